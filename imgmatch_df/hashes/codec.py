"""Hashes as columns: from kernel arrays to Series, to the documented 0/1 strings and back, and their distances.

The bits of bmh1 and phash follow OpenCV's `img_hash` (``BlockMeanHash`` mode 1 and ``PHash``).
"""

from typing import TYPE_CHECKING, Any

import polars as pl

from imgmatch_df.columns import DISTANCE, DISTANCE_DTYPE
from imgmatch_df.errors import ColumnError
from imgmatch_df.hashes.kinds import BMH1, KINDS, MAX_WIDTH_BYTES, HashKind, ImageColumn, is_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from imgmatch_df._kernels.views import Views

# Rows whose exclusive-or is held at once: 8 MB for bmh1, so that a distance of two columns stays in cache-sized memory.
_CHUNK_ROWS = 1 << 16


def to_series(kind: ImageColumn, hashes: "NDArray[Any]", valid: "NDArray[np.bool_]") -> pl.Series:
    """Return a column of `hashes`, an array as `kind.empty_rows` makes it, null where `valid` is False."""
    if kind.is_number:
        return _number_series(hashes.ravel(), valid).alias(kind.name)
    return _binary_series(kind.name, hashes, valid)


def size_series(sizes: "NDArray[np.uint32]", valid: "NDArray[np.bool_]") -> pl.Series:
    """Return a `UInt32` column of `sizes`, uint32 (n,), null where `valid` is False."""
    return _number_series(sizes, valid)


def _number_series(numbers: "NDArray[Any]", valid: "NDArray[np.bool_]") -> pl.Series:
    import pyarrow as pa

    n_rows = len(numbers)
    buffers = [_validity(valid), pa.py_buffer(numbers)]
    dtype = pa.from_numpy_dtype(numbers.dtype)
    return pl.Series(_ArrowArray(pa.Array.from_buffers(dtype, n_rows, buffers, int(n_rows - valid.sum()))))


def _binary_series(name: str, rows: "NDArray[np.uint8]", valid: "NDArray[np.bool_]") -> pl.Series:
    import pyarrow as pa

    n_rows, n_bytes = rows.shape
    if n_rows == 0:
        return pl.Series(name, [], dtype=pl.Binary)
    array = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(n_bytes), n_rows, [_validity(valid), pa.py_buffer(rows)], int(n_rows - valid.sum())
    )
    return pl.Series(_ArrowArray(array)).cast(pl.Binary).alias(name)


class _ArrowArray:
    """Array that Polars reads through the Arrow C interface: to read one of pyarrow, it imports `pyarrow.compute`."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __arrow_c_array__(self, requested_schema: object = None) -> Any:
        return self._array.__arrow_c_array__(requested_schema)


def _validity(valid: "NDArray[np.bool_]") -> Any:
    import numpy as np
    import pyarrow as pa

    return pa.py_buffer(np.packbits(valid, bitorder="little"))


def as_hashes(column: pl.Series, kind: HashKind) -> pl.Series:
    """Return a column of hashes in the dtype of its kind, whatever dtype that `kind` holds it comes in.

    Raises
    ------
    ColumnError
        If a value does not fit.
    """
    return unsigned(column) if kind.is_number and column.dtype != pl.Null else column.cast(kind.dtype)


def unsigned(column: pl.Series) -> pl.Series:
    """Return a column of whole numbers as `UInt64` with the same 64 bits; any other column as it is.

    Databases without unsigned integers hold a hash of 2**63 or more as a negative number, or as a wider one.

    Raises
    ------
    ColumnError
        If a value is below -2**63 or above 2**64 - 1.
    """
    dtype = column.dtype
    if dtype in (pl.UInt64, pl.Null) or not is_whole(dtype):
        return column
    if dtype.is_unsigned_integer() and dtype != getattr(pl, "UInt128", None):
        return column.cast(pl.UInt64)
    if dtype in (pl.Int8, pl.Int16, pl.Int32, pl.Int64):
        return column.cast(pl.Int64).reinterpret(signed=False)
    name, column = column.name, column.alias("hash")  # Polars takes some names for patterns
    wide = column.cast(pl.Int128, strict=False)
    fits = wide.is_between(-(1 << 63), (1 << 64) - 1).fill_null(value=False)
    wrong = column.filter(~fits & column.is_not_null())
    if len(wrong):
        raise ColumnError(
            f"column {name!r} holds {wrong[0]}, a phash is of 64 bits: -2**63 to 2**64 - 1\n"
            "Hint: is it another kind of hash?"
        )
    number = pl.col("hash")
    whole = pl.when(number < 0).then(number + pl.lit(1 << 64, dtype=pl.Int128)).otherwise(number)
    return wide.to_frame().select(whole.cast(pl.UInt64)).to_series().alias(name)


def dtype_hint(dtype: pl.DataType, kind: HashKind | None = None) -> str:
    """Return what makes hashes of a column that has another dtype; None is any kind."""
    if dtype == pl.String:
        return "from_bits and from_hex turn text into hashes of the kind that they are given."
    if dtype.is_float() and (kind is None or kind.is_number):
        return "a float has lost bits of the hash; read the table again with whole numbers in this column."
    return "visual_hash makes it of images; hash_type= names another kind."


def hash_rows(hashes: pl.Series) -> "tuple[NDArray[np.uint8], NDArray[np.bool_]]":
    """Return the bytes of a hash column and which rows have a hash.

    Parameters
    ----------
    hashes
        Whole numbers, or `Binary` whose values all have one width of 1 to 512 bytes.

    Returns
    -------
    rows, valid
        uint8 (n, width) with zeros where the hash is null, and bool (n,). A number gives its eight bytes big-endian.

    Raises
    ------
    ColumnError
        If the dtype is no hash dtype, or the values differ in width.
    """
    import numpy as np

    hashes = unsigned(hashes)
    valid = hashes.is_not_null().to_numpy()
    if hashes.dtype == pl.UInt64:
        return hashes.fill_null(0).to_numpy().astype(">u8").view(np.uint8).reshape(-1, 8), valid
    if hashes.dtype != pl.Binary:
        raise ColumnError(
            f"column {hashes.name!r} has dtype {hashes.dtype}, a hash column is UInt64 ({_names(is_number=True)}) or "
            f"Binary ({_names(is_number=False)})\n"
            f"Hint: {dtype_hint(hashes.dtype)}"
        )
    present = hashes.drop_nulls()
    width = _one_width(present)
    packed = _value_bytes(present).reshape(len(present), width)
    if len(present) == len(hashes):
        return packed, valid
    rows = np.zeros((len(hashes), width), np.uint8)
    rows[valid] = packed
    return rows, valid


def _one_width(present: pl.Series) -> int:
    """Return the width in bytes of all values of a `Binary` column without nulls."""
    widths = present.bin.size().unique().sort().to_list()
    if len(widths) > 1 or (widths and not 1 <= widths[0] <= MAX_WIDTH_BYTES):
        raise ColumnError(
            f"column {present.name!r} holds values of {', '.join(map(str, widths[:4]))} bytes, the hashes of a column "
            f"have one width of 1 to {MAX_WIDTH_BYTES} bytes\nHint: {_widths()}."
        )
    return widths[0] if widths else BMH1.n_bytes


def _value_bytes(present: pl.Series) -> "NDArray[np.uint8]":
    """Return the concatenated bytes of a `Binary` column without nulls, without a copy of our own."""
    import numpy as np

    # Offsets, not row numbers: a slice starts inside its buffer, and null rows take no bytes in it.
    array = present.to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offset_buffer, values = array.buffers()
    if values is None:
        return np.empty(0, np.uint8)
    offsets = np.frombuffer(offset_buffer, np.int64)
    return np.frombuffer(values, np.uint8)[offsets[array.offset] : offsets[array.offset + len(array)]]


def hash_views(hashes: pl.Series, kind: HashKind | None = None) -> "list[Views]":
    """Return where the values of a `Binary` column without nulls lie, chunk by chunk. Nothing is copied.

    Raises
    ------
    ColumnError
        If the first value has not the width of `kind`, or of any hash; who reads the others sees whether they have it.
    """
    import numpy as np

    from imgmatch_df._kernels.views import Views

    if len(hashes) and not 1 <= len(hashes[0]) <= MAX_WIDTH_BYTES:
        _one_width(hashes)
    if kind is not None and len(hashes) and len(hashes[0]) != kind.n_bytes:
        raise ColumnError(
            f"column {hashes.name!r} holds hashes of {len(hashes[0])} bytes, a {kind.name} has {kind.n_bytes}\n"
            "Hint: is it another kind of hash?"
        )
    arrays = [chunk.to_arrow(compat_level=pl.CompatLevel.newest()) for chunk in hashes.get_chunks() if len(chunk)]
    return [
        Views(
            np.frombuffer(views, np.uint32).reshape(-1, 4)[array.offset : array.offset + len(array)],
            np.array([buffer.address for buffer in buffers], np.int64),
            len(hashes[0]),
            array,
        )
        for array in arrays
        for _, views, *buffers in [array.buffers()]
    ]


def hash_words(hashes: pl.Series, kind: HashKind | None = None) -> "NDArray[np.uint64]":
    """Return the hashes of a column without nulls as words, uint64 (n, n_words) with zeros behind the last byte.

    Parameters
    ----------
    hashes
        `UInt64`, which gives its eight bytes big-endian, or `Binary` whose values all have one width.
    kind
        What hashes they are; None allows every width of 1 to 512 bytes.

    Raises
    ------
    ColumnError
        If the values differ in width, or are no hashes of the kind.
    """
    import numpy as np

    if hashes.dtype == pl.UInt64:
        words: NDArray[np.uint64] = np.empty((len(hashes), 1), np.uint64)
        words.view(">u8")[:, 0] = hashes.to_numpy()
        return words
    from imgmatch_df._kernels.views import gather_words

    views = hash_views(hashes, kind)
    width = views[0].width if views else (kind or BMH1).n_bytes
    words = np.empty((len(hashes), -(-width // 8)), np.uint64)
    start = 0
    for chunk in views:
        stop = start + len(chunk.values)
        if not gather_words(chunk.values, chunk.buffers, width, words[start:stop]):
            _one_width(hashes)
        start = stop
    return words


def distances(left: pl.Series, right: pl.Series) -> pl.Series:
    """Return the Hamming distance of two hash columns, row by row, in bits.

    Parameters
    ----------
    left, right
        Hash columns of one kind; a column of length 1 is compared with every row of the other.

    Returns
    -------
    Series
        `UInt16`, null where either hash is null.

    Raises
    ------
    ColumnError
        If the columns are no hash columns, or of different kinds.
    """
    left, right = unsigned(left), unsigned(right)
    if left.dtype != right.dtype and pl.Null not in (left.dtype, right.dtype):
        raise ColumnError(
            f"cannot compare {left.name!r} ({left.dtype}) with {right.name!r} ({right.dtype})\n"
            f"Hint: both sides must be {_names(is_number=True)} (whole numbers) or both {_names(is_number=False)} "
            "(Binary)."
        )
    if len(left) != len(right) and 1 not in (len(left), len(right)):
        raise ColumnError(
            f"cannot compare {left.name!r} ({len(left):,} rows) with {right.name!r} ({len(right):,} rows)\n"
            "Hint: both sides must have the same number of rows, or one of them a single row."
        )
    if pl.Null in (left.dtype, right.dtype):
        n_rows = 0 if 0 in (len(left), len(right)) else max(len(left), len(right))
        return pl.Series(DISTANCE, [None] * n_rows, dtype=DISTANCE_DTYPE)
    if left.dtype == pl.UInt64:
        return (left ^ right).bitwise_count_ones().cast(DISTANCE_DTYPE).alias(DISTANCE)
    return _byte_distances(left, right)


def _byte_distances(left: pl.Series, right: pl.Series) -> pl.Series:
    import numpy as np

    left_rows, left_valid = hash_rows(left)
    right_rows, right_valid = hash_rows(right)
    if left_rows.shape[1] != right_rows.shape[1] and left_valid.any() and right_valid.any():
        raise ColumnError(
            f"cannot compare hashes of {left_rows.shape[1]} bytes ({left.name!r}) with hashes of "
            f"{right_rows.shape[1]} bytes ({right.name!r})\nHint: both sides must be hashes of one kind."
        )
    valid = left_valid & right_valid
    out = np.zeros(len(valid), np.uint16)
    if not valid.any():
        return pl.Series(DISTANCE, [None] * len(valid), dtype=DISTANCE_DTYPE)
    left_rows, right_rows = np.broadcast_arrays(left_rows, right_rows)
    for start in range(0, len(valid), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        np.bitwise_count(left_rows[rows] ^ right_rows[rows]).sum(axis=1, dtype=np.uint16, out=out[rows])
    return pl.select(
        pl.when(pl.Series(valid)).then(pl.Series(out)).alias(DISTANCE)  # null where either side is
    ).to_series()


def to_bits(hashes: pl.Series) -> pl.Series:
    """Return the documented 0/1 strings of a hash column; null stays null.

    Returns
    -------
    Series
        `String` of eight characters a byte, each byte most significant bit first.
    """
    import numpy as np

    if hashes.dtype == pl.Null:
        return hashes.cast(pl.String)
    if hashes.dtype == pl.Binary:
        _one_width(hashes.drop_nulls())  # of all rows, not of each part
    # A string is eight times as long as its hash, and is there three times while it is made.
    starts = range(0, max(1, len(hashes)), _CHUNK_ROWS)
    parts = []
    for part in (hashes.slice(start, _CHUNK_ROWS) for start in starts):
        rows, valid = hash_rows(part)
        characters = np.unpackbits(rows, axis=1) + np.uint8(ord("0"))
        parts.append(_binary_series(hashes.name, characters, valid).cast(pl.String))
    return pl.concat(parts)


def from_bits(bits: pl.Series, kind: HashKind) -> pl.Series:
    """Return the hashes that documented 0/1 strings stand for; null stays null.

    Raises
    ------
    ColumnError
        If the column is not `String`, or a value is not `kind.n_chars` characters of 0 and 1.
    """
    import numpy as np

    if bits.dtype == pl.Null:
        return bits.cast(kind.dtype)
    what = (
        f"a {kind.name} is {kind.n_chars} characters of 0 and 1\nHint: the kinds differ in length; is it the other one?"
    )
    _check_text(bits, "from_bits", rf"^[01]{{{kind.n_chars}}}$", what)
    valid = bits.is_not_null().to_numpy()
    rows = np.zeros((len(bits), kind.n_bytes), np.uint8)
    characters = _value_bytes(bits.drop_nulls().cast(pl.Binary)).reshape(-1, kind.n_chars)
    rows[valid] = np.packbits(characters == ord("1"), axis=1)
    hashes = rows.view(">u8").astype(np.uint64) if kind.is_number else rows
    return to_series(kind, hashes, valid).alias(bits.name)


def to_hex(hashes: pl.Series) -> pl.Series:
    """Return the hexadecimal digits of a hash column, two for each byte, in lower case; null stays null."""
    if hashes.dtype == pl.Null:
        return hashes.cast(pl.String)
    if hashes.dtype == pl.Binary:
        _one_width(hashes.drop_nulls())
        return hashes.bin.encode("hex")
    return _binary_series(hashes.name, *hash_rows(hashes)).bin.encode("hex")


def from_hex(digits: pl.Series, kind: HashKind) -> pl.Series:
    """Return the hashes that hexadecimal digits stand for; null stays null.

    Raises
    ------
    ColumnError
        If the column is not `String`, or a value is not `2 * kind.n_bytes` digits, perhaps after ``0x``.
    """
    if digits.dtype == pl.Null:
        return digits.cast(kind.dtype)
    n_digits = 2 * kind.n_bytes
    what = f"a hash of kind {kind.name} is {n_digits} hexadecimal digits\nHint: name the kind that has this length."
    _check_text(digits, "from_hex", rf"^(0[xX])?[0-9a-fA-F]{{{n_digits}}}$", what)
    digits = digits.str.replace("^0[xX]", "")
    return digits.str.to_integer(base=16, dtype=pl.UInt64) if kind.is_number else digits.str.decode("hex")


def _check_text(text: pl.Series, reader: str, pattern: str, what: str) -> None:
    """Refuse a column that is not text, or has a value that `pattern` does not match; `what` ends the message."""
    if text.dtype != pl.String:
        raise ColumnError(
            f"column {text.name!r} has dtype {text.dtype}, {reader} reads String\n"
            "Hint: UInt64 and Binary hash columns are hashes already."
        )
    wrong = text.filter(text.str.contains(pattern).not_())
    if len(wrong):
        raise ColumnError(f"column {text.name!r} holds {wrong[0][:80]!r} ({len(wrong[0])} characters), {what}")


def _names(*, is_number: bool) -> str:
    """Return the names of the kinds of one dtype, for a message."""
    return " or ".join(kind.name for kind in KINDS.values() if kind.is_number == is_number)


def _widths() -> str:
    """Return how many bytes the kinds have that are `Binary`, for a message."""
    return ", ".join(f"{kind.name} has {kind.n_bytes}" for kind in KINDS.values() if not kind.is_number)
