"""Columns of images: their dtypes, the text that names an image, and their values as sources.

A column of images has text (paths, URLs, base64), bytes (encoded images), structs of both, as Hugging Face `datasets`
writes them, or lists of one of these, of which the first value counts. Every verb, store and command reads a column of
images by this module, so all of them accept the same dtypes.
"""

import itertools
from collections.abc import Sequence
from struct import Struct
from typing import Any, Final, TypeVar

import polars as pl

BYTES_FIELD: Final = "bytes"  # of Struct{bytes, path}
PATH_FIELD: Final = "path"

SliceT = TypeVar("SliceT", pl.Series, pl.DataFrame)

_TEXT: Final = (pl.String, pl.Categorical, pl.Enum)


def is_text_dtype(dtype: Any) -> bool:
    """Return whether values of a dtype are text."""
    return dtype in _TEXT


def holds_sources(dtype: Any) -> bool:
    """Return whether a column of a dtype can be hashed."""
    if isinstance(dtype, pl.List | pl.Array):
        return holds_sources(dtype.inner)
    return is_text_dtype(dtype) or dtype in (pl.Binary, pl.Null) or is_image_struct(dtype)


def is_image_struct(dtype: Any) -> bool:
    """Return whether a dtype is a struct of the bytes of an image, or of its path, or of both."""
    return isinstance(dtype, pl.Struct) and bool(_image_fields(dtype))


def holds_bytes(dtype: Any) -> bool:
    """Return whether a column of a dtype can hold encoded images, and not only their names."""
    if isinstance(dtype, pl.List | pl.Array):
        return holds_bytes(dtype.inner)
    return dtype == pl.Binary or _image_fields(dtype).get(BYTES_FIELD) == pl.Binary


def text_of(images: pl.Expr, dtype: Any) -> pl.Expr | None:
    """Return the paths, URLs or base64 text of a column of images; None where its dtype has only bytes.

    Parameters
    ----------
    images
        A column of images.
    dtype
        Its dtype.

    Returns
    -------
    Expr or None
        `String`: the text, or the path of a struct, null where it has none; of a list, that of the first value.
    """
    if isinstance(dtype, pl.List):
        return text_of(images.list.get(0, null_on_oob=True), dtype.inner)
    if isinstance(dtype, pl.Array):
        return text_of(images.arr.get(0, null_on_oob=True), dtype.inner)
    if is_text_dtype(dtype):
        return images.cast(pl.String)
    if is_text_dtype(_image_fields(dtype).get(PATH_FIELD)):
        return images.struct.field(PATH_FIELD).cast(pl.String)
    return None


def dtype_text(dtype: Any) -> str:
    """Return what a column of images may be, for a message about one of another dtype, with a hint."""
    hint = "cast the column, or name another with source=."
    if isinstance(dtype, pl.Struct):
        names = [field.name for field in dtype.fields if holds_sources(field.dtype)]
        if names:
            hint = f"source=pl.col(…).struct.field({names[0]!r}) hashes that field."
    return (
        f"has dtype {dtype!s:.200}, sources are String (paths, URLs, base64), Binary (images), Struct with these as "
        f"{PATH_FIELD!r} or {BYTES_FIELD!r}, or List of one of these\nHint: {hint}"
    )


def image_sources(images: pl.Series) -> Sequence[Any]:
    """Return the sources of a column of images: text, memoryviews of encoded images, and None.

    A struct is its bytes, or its path where it has no bytes; a list is its first value.

    Parameters
    ----------
    images
        A column with a dtype of `holds_sources`.
    """
    # No Polars query is used, because it may need the threads of Polars, which may wait for the batch of this column.
    if is_text_dtype(images.dtype) or images.dtype == pl.Null:
        return images.cast(pl.String).to_list()
    if images.dtype.is_nested():
        images = gathered(images)
    return _sources_of_arrow(images.to_arrow(compat_level=pl.CompatLevel.newest()))


def gathered(rows: SliceT) -> SliceT:
    """Return the rows of a slice without its offset, for Arrow; no image is copied.

    Polars 1.40 counts the offset of a slice of structs twice in Arrow.
    """
    return rows[list(range(len(rows)))]


class Buffers(Sequence[Any]):
    """A column of binary views as a sequence of memoryviews and None, by the layout of Arrow.

    It takes 0.4 microseconds per row of any length; a scalar of pyarrow takes 30 and copies each image with the GIL.
    """

    _VIEW = Struct("<i4xii")  # length; four bytes of the value; index of its buffer; offset in the buffer

    def __init__(self, array: Any) -> None:
        _, views, *data = array.buffers()
        self._n_rows = len(array)
        self._views = memoryview(views)[16 * array.offset :]
        self._data = [memoryview(buffer) for buffer in data]
        self._valid = array.is_valid().to_pylist() if array.null_count else None

    def __len__(self) -> int:
        return self._n_rows

    def __getitem__(self, row: Any) -> Any:
        if not 0 <= row < self._n_rows:
            raise IndexError(row)  # ends an iteration
        if self._valid is not None and not self._valid[row]:
            return None
        length, buffer, start = self._VIEW.unpack_from(self._views, 16 * row)
        if length > 12:
            return self._data[buffer][start : start + length]
        return self._views[16 * row + 4 : 16 * row + 4 + length]  # a short value is stored in the view


class _Structs(Sequence[Any]):
    """A column of structs: the bytes of each image, else its path, else None."""

    def __init__(self, array: Any) -> None:
        fields = {field.name: array.field(place) for place, field in enumerate(array.type)}
        images, paths = fields.get(BYTES_FIELD), fields.get(PATH_FIELD)
        self._images, self._paths = (
            _sources_of_arrow(part) if part is not None and _is_plain(part) else None for part in (images, paths)
        )
        self._valid = array.is_valid().to_pylist() if array.null_count else None
        self._n_rows = len(array)

    def __len__(self) -> int:
        return self._n_rows

    def __getitem__(self, row: Any) -> Any:
        if not 0 <= row < self._n_rows:
            raise IndexError(row)  # ends an iteration
        if self._valid is not None and not self._valid[row]:
            return None
        image = None if self._images is None else self._images[row]
        path = None if self._paths is None else self._paths[row]
        # Zero bytes are not an image: the path may name one.
        return image if path is None or image else path


class _Firsts(Sequence[Any]):
    """A column of lists: the first value of each, None for a null and for an empty list."""

    def __init__(self, array: Any) -> None:
        if str(array.type).startswith("fixed_size_list"):
            width = array.type.list_size
            starts = range(array.offset * width, (array.offset + len(array)) * width, width) if width else []
            empty = [width == 0] * len(array)
        else:
            starts = array.offsets.to_pylist()
            empty = [start == end for start, end in itertools.pairwise(starts)]
        valid = array.is_valid().to_pylist()
        self._values = _sources_of_arrow(array.values)
        self._places = [
            None if is_empty or not is_valid else starts[row]
            for row, (is_empty, is_valid) in enumerate(zip(empty, valid, strict=True))
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, row: Any) -> Any:
        place = self._places[row]
        return None if place is None else self._values[place]


def _sources_of_arrow(array: Any) -> Sequence[Any]:
    name = str(array.type)
    if name == "binary_view":
        return Buffers(array)
    if name.startswith("struct"):
        return _Structs(array)
    if name.startswith(("list", "large_list", "fixed_size_list")):
        return _Firsts(array)
    values: list[Any] = array.to_pylist()
    return values


def _is_plain(array: Any) -> bool:
    """Return whether an array has bytes or text."""
    return str(array.type) == "binary_view" or "string" in str(array.type)


def _image_fields(dtype: Any) -> dict[str, Any]:
    """Return the fields of a struct that hold images: bytes, also as base64, and text as their path."""
    if not isinstance(dtype, pl.Struct):
        return {}
    fields = dtype.to_schema()
    image, path = fields.get(BYTES_FIELD), fields.get(PATH_FIELD)
    found = {BYTES_FIELD: image, PATH_FIELD: path}
    fits = {
        BYTES_FIELD: is_text_dtype(image) or image in (pl.Binary, pl.Null),
        PATH_FIELD: is_text_dtype(path) or path == pl.Null,
    }
    return {name: field for name, field in found.items() if field is not None and fits[name]}
