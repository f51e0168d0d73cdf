"""Hash columns: their bits, their strings and their distances, held against one value at a time in plain Python."""

import gc
import io

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_series_equal

import imgmatch_df
from imgmatch_df._kernels.views import gather_words
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.codec import hash_rows, hash_views, hash_words

PHASHES = st.lists(st.none() | st.integers(0, 2**64 - 1), max_size=20)
BMH1S = st.lists(st.none() | st.binary(min_size=121, max_size=121), max_size=20)


def phashes(values):
    return pl.Series("h", values, dtype=pl.UInt64)


def bmh1s(values):
    return pl.Series("h", values, dtype=pl.Binary)


def distance(left, right):
    if left is None or right is None:
        return None
    if isinstance(left, bytes):
        left, right = int.from_bytes(left), int.from_bytes(right)
    return (left ^ right).bit_count()


@given(PHASHES)
def test_phash_strings_round_trip(values):
    bits = phashes(values).imgmatch.to_bits()
    assert bits.to_list() == [None if value is None else f"{value:064b}" for value in values]
    assert_series_equal(bits.imgmatch.from_bits("phash"), phashes(values))


@given(BMH1S)
def test_bmh1_strings_round_trip(values):
    bits = bmh1s(values).imgmatch.to_bits()
    assert bits.to_list() == [None if value is None else f"{int.from_bytes(value):0968b}" for value in values]
    assert_series_equal(bits.imgmatch.from_bits("bmh1"), bmh1s(values))


@given(PHASHES)
def test_hexadecimal_digits_of_numbers_round_trip(values):
    digits = phashes(values).imgmatch.to_hex()
    assert digits.to_list() == [None if value is None else f"{value:016x}" for value in values]
    assert_series_equal(digits.imgmatch.from_hex("phash"), phashes(values))
    assert_series_equal(("0X" + digits.str.to_uppercase()).imgmatch.from_hex("phash").alias("h"), phashes(values))
    signed = phashes(values).reinterpret(signed=True)
    assert_series_equal(signed.imgmatch.to_hex(), digits)


@given(BMH1S)
def test_hexadecimal_digits_of_bytes_round_trip(values):
    digits = bmh1s(values).imgmatch.to_hex()
    assert digits.to_list() == [None if value is None else value.hex() for value in values]
    assert_series_equal(digits.imgmatch.from_hex("bmh1"), bmh1s(values))


@given(
    st.lists(
        st.tuples(st.none() | st.binary(min_size=121, max_size=121), st.none() | st.binary(min_size=121, max_size=121)),
        max_size=12,
    )
)
def test_bmh1_distances(pairs):
    left, right = (bmh1s([pair[side] for pair in pairs]) for side in (0, 1))
    out = left.imgmatch.hamming(right)
    assert out.dtype == pl.UInt16
    assert out.name == "distance"
    assert out.to_list() == [distance(*pair) for pair in pairs]


@given(st.lists(st.tuples(st.none() | st.integers(0, 2**64 - 1), st.none() | st.integers(0, 2**64 - 1)), max_size=12))
def test_phash_distances(pairs):
    left, right = (phashes([pair[side] for pair in pairs]) for side in (0, 1))
    out = left.imgmatch.hamming(right)
    assert out.dtype == pl.UInt16
    assert out.to_list() == [distance(*pair) for pair in pairs]


@given(PHASHES, st.integers(0, 2**64 - 1))
def test_phash_distances_to_one_value_in_every_form(values, query):
    expected = [distance(value, query) for value in values]
    for other in (query, f"{query:064b}"):
        assert phashes(values).imgmatch.hamming(other).to_list() == expected
    frame = pl.LazyFrame({"h": phashes(values)})
    for engine in ("in-memory", "streaming"):
        assert frame.select(imgmatch_df.hamming("h", query)).collect(engine=engine).to_series().to_list() == expected


@given(BMH1S, st.binary(min_size=121, max_size=121))
def test_bmh1_distances_to_one_value_in_every_form(values, query):
    expected = [distance(value, query) for value in values]
    for other in (query, f"{int.from_bytes(query):0968b}"):
        assert bmh1s(values).imgmatch.hamming(other).to_list() == expected


def test_columns_of_a_frame_and_slices():
    rng = np.random.default_rng(0)
    values = [rng.bytes(121) if i % 7 else None for i in range(300)]
    frame = pl.DataFrame({"a": bmh1s(values), "b": bmh1s(values[::-1])})
    expected = [distance(*pair) for pair in zip(values, values[::-1], strict=True)]
    assert frame.select(imgmatch_df.hamming("a", pl.col("b"))).to_series().to_list() == expected
    assert frame[100:200].select(imgmatch_df.hamming("a", pl.col("b"))).to_series().to_list() == expected[100:200]
    assert frame[100:200]["a"].imgmatch.to_bits().to_list() == [
        None if v is None else f"{int.from_bytes(v):0968b}" for v in values[100:200]
    ]
    chunked = pl.concat([frame[:50], frame[50:]], rechunk=False)
    assert chunked.select(imgmatch_df.hamming("a", pl.col("b"))).to_series().to_list() == expected


def test_rows_of_a_column_longer_than_a_chunk():
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 256, (70_000, 121), np.uint8)
    column = bmh1s([row.tobytes() for row in rows])
    query = rows[3].tobytes()
    expected = np.bitwise_count(rows ^ rows[3]).sum(axis=1)
    assert column.imgmatch.hamming(query).to_numpy().tolist() == expected.tolist()


def test_other_binary_widths_have_distances_too():
    assert bmh1s([b"\0\1", b"\377\377", None]).imgmatch.hamming(b"\0\0").to_list() == [1, 16, None]


def test_null_columns():
    nulls = pl.Series("h", [None, None], dtype=pl.Null)
    assert nulls.imgmatch.hamming(3).to_list() == [None, None]
    assert nulls.imgmatch.to_bits().to_list() == [None, None]
    assert nulls.imgmatch.from_bits("bmh1").dtype == pl.Binary


def test_rows_keep_all_64_bits_beside_nulls():
    rows, valid = hash_rows(phashes([2**64 - 1, None, 2**63 + 1]))
    assert rows.tolist() == [[255] * 8, [0] * 8, [128, 0, 0, 0, 0, 0, 0, 1]]
    assert valid.tolist() == [True, False, True]


def layouts(values):
    """Return a column of the values as every layout of Arrow's views that a frame may come with, nulls among them."""
    column = pl.Series(values, dtype=pl.Binary)
    some = pl.Series([values[0], None, *values, None], dtype=pl.Binary)
    pieces = [column[:3], column[:0], column[3:]]
    fixed = pa.array(values, pa.binary(len(values[0])))
    return {
        "one buffer": column,
        "fixed width": pl.Series(fixed, dtype=pl.Binary),
        "slice": pl.concat([column, column])[len(values) : 2 * len(values)],
        "chunks": pl.concat(pieces, rechunk=False),
        "rechunked": pl.concat(pieces, rechunk=True),
        "gathered": column.reverse().gather(list(range(len(values)))[::-1]),
        "filtered": some[2:].filter(some[2:].is_not_null()),
        "with nulls": some[1:],
        "chunks with nulls": pl.concat([some[1:2], column[:1], some[3:]], rechunk=False),
        "parquet": pl.read_parquet(parquet(column))["h"],
    }


def parquet(column):
    file = io.BytesIO()
    column.alias("h").to_frame().write_parquet(file, row_group_size=7)
    file.seek(0)
    return file


@pytest.mark.parametrize("width", [1, 2, 7, 8, 9, 11, 12, 13, 16, 64, 121, 128, 512])
def test_values_of_every_layout_are_read_where_they_lie(width):
    rng = np.random.default_rng(width)
    values = [rng.bytes(width) for _ in range(40)]
    for name, column in layouts(values).items():
        truth = column.to_list()
        assert [value for value in truth if value] == values, name
        rows, valid = hash_rows(column)
        assert [row.tobytes() for row in rows] == [value or bytes(width) for value in truth], name
        assert valid.tolist() == [value is not None for value in truth], name
        words = hash_words(column.drop_nulls())
        assert [row.tobytes() for row in words] == [value + bytes(-width % 8) for value in values], name
        assert column.imgmatch.hamming(values[3]).to_list() == [
            None if value is None else distance(value, values[3]) for value in truth
        ], name


def test_hashes_stay_when_their_frame_is_gone():
    (chunk,) = hash_views(pl.Series([bytes([i % 256]) * 121 for i in range(1000)]))
    gc.collect()
    words = np.empty((1000, 16), np.uint64)
    assert gather_words(chunk.values, chunk.buffers, chunk.width, words)
    assert words.view(np.uint8)[:, 120].tolist() == [i % 256 for i in range(1000)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bmh1s([bytes(8), bytes(8), bytes(121)]).imgmatch.to_bits(), "holds values of 8, 121 bytes"),
        (lambda: bmh1s([b"", b""]).imgmatch.to_bits(), "holds values of 0 bytes"),
        (lambda: phashes([1]).imgmatch.hamming(bytes(121)), "cannot compare"),
        (lambda: bmh1s([bytes(121)]).imgmatch.hamming(bytes(8)), "hashes of 121 bytes"),
        (lambda: bmh1s([bytes(121), bytes(8)]).imgmatch.to_bits(), "holds values of 8, 121 bytes"),
        (lambda: bmh1s([bytes(1025)]).imgmatch.to_bits(), "holds values of 1025 bytes"),
        (lambda: pl.Series([1.5]).imgmatch.to_bits(), "has dtype Float64"),
        (lambda: pl.Series(["01" * 32]).imgmatch.from_bits("bmh1"), r"\(64 characters\), a bmh1 is 968"),
        (lambda: pl.Series(["2" * 64]).imgmatch.from_bits("phash"), "a phash is 64 characters of 0 and 1"),
        (lambda: pl.Series([5]).imgmatch.from_bits("phash"), "from_bits reads String"),
        (lambda: pl.Series([1.5]).imgmatch.to_hex(), "has dtype Float64"),
        (lambda: bmh1s([bytes(121), bytes(8)]).imgmatch.to_hex(), "holds values of 8, 121 bytes"),
        (lambda: pl.Series(["0" * 15]).imgmatch.from_hex("phash"), r"\(15 characters\), .* phash is 16 hexadecimal"),
        (lambda: pl.Series(["g" * 16]).imgmatch.from_hex("phash"), "phash is 16 hexadecimal digits"),
        (lambda: pl.Series(["+" + "0" * 15]).imgmatch.from_hex("phash"), "phash is 16 hexadecimal digits"),
        (lambda: pl.Series(["0" * 16]).imgmatch.from_hex("bmh1"), "bmh1 is 242 hexadecimal digits"),
        (lambda: pl.Series([5]).imgmatch.from_hex("phash"), "from_hex reads String"),
    ],
)
def test_wrong_columns_say_so(call, message):
    with pytest.raises((imgmatch_df.ColumnError, pl.exceptions.ComputeError), match=message):
        call()


@pytest.mark.parametrize("column", [phashes([1, None, 2**64 - 1]), bmh1s([bytes(121), None, bytes([7] * 121)])])
def test_strings_are_made_in_parts(column, monkeypatch):
    """Memory while strings are made grows with the part, not with the column; parts change nothing."""
    whole = pl.concat([column] * 9, rechunk=True)
    expected = whole.imgmatch.to_bits()
    monkeypatch.setattr(codec, "_CHUNK_ROWS", 4)
    rows_at_once = []
    real = codec.hash_rows
    monkeypatch.setattr(codec, "hash_rows", lambda part: rows_at_once.append(len(part)) or real(part))
    assert whole.imgmatch.to_bits().to_list() == expected.to_list()
    assert rows_at_once == [4] * 6 + [3]
    assert column[:0].imgmatch.to_bits().to_list() == []


def test_widths_are_compared_over_all_parts(monkeypatch):
    monkeypatch.setattr(codec, "_CHUNK_ROWS", 2)
    column = bmh1s([bytes(8), None, bytes(121), bytes(121)])
    with pytest.raises((imgmatch_df.ColumnError, pl.exceptions.ComputeError), match="holds values of 8, 121 bytes"):
        column.imgmatch.to_bits()
