"""Hashes from elsewhere are as good as ours: signed, wide and decimal numbers with the same 64 bits, in every verb."""

from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal

import imgmatch_df
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import BMH1, PHASH

ENGINES = ["eager", "in-memory", "streaming"]
# Postgres, Spark, Delta and Iceberg have no unsigned integers; Spark reads them as decimals, DuckDB has wide ones.
DTYPES = {
    "Int64": pl.Int64(),
    "Int128": pl.Int128(),
    "UInt128": getattr(pl, "UInt128", pl.Int128)(),
    "Decimal(20, 0)": pl.Decimal(20, 0),
    "Decimal(38, 0)": pl.Decimal(38, 0),
    "UInt64": pl.UInt64(),
}
EDGES = [0, 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**63 + 5, 2**64 - 1, None]


def signed(value):
    return value if value is None or value < 2**63 else value - 2**64


def as_dtype(values, dtype):
    values = [signed(value) for value in values] if dtype == pl.Int64 else values
    if isinstance(dtype, pl.Decimal):
        values = [None if value is None else Decimal(value) for value in values]
    return pl.Series("phash", values, dtype=dtype)


def hashes(n, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 2**64, 8, np.uint64)
    found = [int(rng.choice(base) ^ np.uint64(1) << np.uint64(rng.integers(64))) for _ in range(n)]
    return [None if rng.random() < 0.1 else value for value in found]


def frame_of(dtype, n=48, seed=0):
    return pl.DataFrame([as_dtype(hashes(n, seed), dtype), pl.Series("name", range(n))])


VERBS = {
    "near_duplicates": lambda data, other: data.imgmatch.near_duplicates(3, "phash"),
    "near_duplicates, id": lambda data, other: data.imgmatch.near_duplicates(3, "phash", id="name"),
    "match": lambda data, other: data.imgmatch.match(other, 3, "phash", reference_id="name"),
    "cluster": lambda data, other: data.imgmatch.cluster(3, "phash", keep="last", diameter=True),
    "cluster, against": lambda data, other: data.imgmatch.cluster(3, "phash", reference=other[:9], reference_id="name"),
    "remove_duplicates": lambda data, other: data.imgmatch.remove_duplicates(3, "phash", reference=other[:3]),
    "rank_images": lambda data, other: data.imgmatch.rank_images(2**63 + 1, "phash"),
    "hamming": lambda data, other: data.select(pl.col("phash").imgmatch.hamming(2**64 - 1)),
    "to_bits": lambda data, other: data.select(pl.col("phash").imgmatch.to_bits()),
}


def unsigned(frame):
    """The frame as it is where hashes are `UInt64`."""
    frame = frame.with_columns(codec.unsigned(frame[name]) for name in frame.columns if name == "phash")
    if "removed_records" in frame.columns:
        as_number = pl.element().struct.with_fields(
            pl.field("phash").map_batches(codec.unsigned, return_dtype=pl.UInt64)
        )
        frame = frame.with_columns(pl.col("removed_records").list.eval(as_number))
    return frame


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_every_dtype_mixed_with_others(verb, dtype, engine):
    call = VERBS[verb]
    ours, others = frame_of(dtype), {name: frame_of(other, seed=1) for name, other in DTYPES.items()}
    wanted = call(frame_of(pl.UInt64()), others["UInt64"])
    for other in (
        others.values() if "other" in VERBS[verb].__code__.co_names or engine == "eager" else [others["UInt64"]]
    ):
        out = call(ours, other) if engine == "eager" else call(ours.lazy(), other).collect(engine=engine)
        assert out.schema.get("phash", dtype) == dtype or verb == "to_bits"  # a column comes back as it was
        assert_frame_equal(out if verb == "to_bits" else unsigned(out), wanted)
    if verb in ("cluster", "rank_images"):
        assert_frame_equal(out.select("phash", "name").sort("name"), ours.select("phash", "name"))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_edges_keep_every_bit(dtype):
    column = as_dtype(EDGES, dtype)
    assert codec.unsigned(column).to_list() == EDGES
    bits = [None if value is None else f"{value:064b}" for value in EDGES]
    assert column.imgmatch.to_bits().to_list() == bits
    for literal in EDGES[:-1]:
        wanted = [None if value is None else (value ^ literal).bit_count() for value in EDGES]
        for one in {literal, signed(literal), np.uint64(literal), np.int64(signed(literal)), f"{literal:064b}"}:
            assert column.imgmatch.hamming(one).to_list() == wanted
            ranked = column.to_frame().imgmatch.rank_images(one, "phash", flat="match")
            assert ranked["distance"].to_list() == [
                *sorted(distance for distance in wanted if distance is not None),
                None,
            ]
    for other in DTYPES.values():
        assert column.imgmatch.hamming(as_dtype(EDGES, other)).to_list() == [0] * 8 + [None]
    assert codec.unsigned(column[:0]).dtype == pl.UInt64
    assert codec.unsigned(column[-1:]).to_list() == [None]


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_signed_numbers_are_their_bits(values):
    wanted = pl.Series([None if value is None else value % 2**64 for value in values], dtype=pl.UInt64)
    for dtype in (pl.Int64, pl.Int128, pl.Decimal(20, 0)):
        assert_series_equal(codec.unsigned(pl.Series(values, dtype=dtype)), wanted)


@pytest.mark.parametrize("dtype", [pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32])
def test_narrow_numbers_are_numbers(dtype):
    values = [0, 1, 100, None, *([-1, -100] if dtype.is_signed_integer() else [])]
    column = pl.Series("phash", values, dtype=dtype)
    assert codec.unsigned(column).to_list() == [None if value is None else value % 2**64 for value in values]
    assert column.to_frame().imgmatch.rank_images(0, "phash").columns == ["rank", "distance", "phash"]


@pytest.mark.parametrize("name", ["^a$", "^.*$", "*", ""])
def test_any_name_of_a_column(name):
    column = pl.Series(name, [Decimal(2**64 - 1)], dtype=pl.Decimal(20, 0))
    assert codec.unsigned(column).to_list() == [2**64 - 1]


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**19 * 9])
@pytest.mark.parametrize("dtype", [pl.Int128(), pl.Decimal(20, 0), pl.Decimal(38, 0)])
def test_numbers_of_more_bits_are_refused(dtype, value):
    number = Decimal if isinstance(dtype, pl.Decimal) else int
    column = pl.Series("phash", [number(1), None, number(value)], dtype=dtype)
    frame = column.to_frame()
    for call in (
        lambda: frame.imgmatch.near_duplicates(3, "phash"),
        lambda: frame.imgmatch.match(pl.DataFrame({"phash": [1]}), 3, "phash"),
        lambda: frame.imgmatch.cluster(3, "phash"),
        lambda: frame.lazy().imgmatch.remove_duplicates(3, "phash").collect(),
        lambda: frame.imgmatch.rank_images(1, "phash"),
        lambda: column.imgmatch.hamming(1),
        lambda: column.imgmatch.to_bits(),
    ):
        with pytest.raises(
            (imgmatch_df.ColumnError, pl.exceptions.ComputeError),
            match=f"column 'phash' holds {value}, a phash is of 64 bits: -2\\*\\*63 to 2\\*\\*64 - 1\nHint: ",
        ):
            call()


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**30, True, np.bool_(True), 1.0, np.float64(1), None, [1]])
def test_literals_that_are_no_hash_are_refused_while_the_expression_is_built(value):
    for data in (pl.col("phash"), pl.Series([1])):
        with pytest.raises(imgmatch_df.ArgumentError, match=r"a hash value is an int of .*\nHint: "):
            data.imgmatch.hamming(value)
    frame = pl.DataFrame({"phash": [1]})
    for data in (frame, frame.lazy()):
        with pytest.raises(imgmatch_df.ArgumentError, match="\nHint: "):
            data.imgmatch.rank_images(value, "phash")


def test_a_query_of_a_failed_row_has_a_hint():
    with pytest.raises(imgmatch_df.ArgumentError, match="got None\nHint: a row that failed has no phash"):
        pl.DataFrame({"phash": [1]}).imgmatch.rank_images(None, "phash")


WRONG = {
    "float": ("phash", pl.Series([1.5]), "a float has lost bits"),
    "decimal with a fraction": ("phash", pl.Series([Decimal("1.5")]), "visual_hash makes it"),
    "categorical": ("phash", pl.Series(["01"], dtype=pl.Categorical), "visual_hash makes it"),
    "lists of floats": ("bmh1", pl.Series([[0.0] * 121]), "visual_hash makes it"),
    "lists of text": ("phash", pl.Series([["0"] * 64]), "visual_hash makes it"),
    "bool": ("phash", pl.Series([True]), "visual_hash makes it"),
    "bytes for numbers": ("phash", pl.Series([bytes(8)]), "visual_hash makes it"),
    "numbers for bytes": ("bmh1", pl.Series([1]), "visual_hash makes it"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_other_dtypes_are_refused_when_the_call_is_built(wrong):
    kind, column, hint = WRONG[wrong]
    frame = column.alias(kind).to_frame()
    known = pl.DataFrame({kind: [None]})
    for data in (frame, frame.lazy()):
        for call in (
            lambda data=data: data.imgmatch.near_duplicates(3, kind),
            lambda data=data: data.imgmatch.match(known, 3, kind),
            lambda data=data: known.imgmatch.match(data, 3, kind),
            lambda data=data: data.imgmatch.cluster(3, kind),
            lambda data=data: known.imgmatch.cluster(3, kind, reference=data),
            lambda data=data: data.imgmatch.remove_duplicates(3, kind),
            lambda data=data: data.imgmatch.rank_images("0" * (64 if kind == "phash" else 968), kind),
        ):
            with pytest.raises(imgmatch_df.ColumnError, match=rf"(?s)column '{kind}' has dtype .*\nHint: .*{hint}"):
                call()


@pytest.mark.parametrize("n_bytes", [0, 1, 8, 120, 122, 968])
def test_bytes_of_another_width_are_no_bmh1(n_bytes):
    wrong, right = pl.DataFrame({"bmh1": [bytes(n_bytes)]}), pl.DataFrame({"bmh1": [bytes(BMH1.n_bytes)]})
    mixed = pl.concat([right, wrong])
    for frame in (wrong, mixed, mixed[::-1]):
        for call in (
            lambda frame=frame: frame.imgmatch.near_duplicates(3),
            lambda frame=frame: right.imgmatch.match(frame, 3),
            lambda frame=frame: frame.imgmatch.cluster(3),
            lambda frame=frame: frame.imgmatch.rank_images(bytes(121)),
            lambda frame=frame: frame["bmh1"].imgmatch.hamming(bytes(121)),
        ):
            with pytest.raises(
                (imgmatch_df.ColumnError, pl.exceptions.ComputeError), match=f"{n_bytes}.* bytes|must have one width"
            ):
                call()


def test_stored_hashes_come_from_signed_numbers(tmp_path):
    rows = frame_of(pl.Int64()).with_columns(source=pl.format("{}.jpg", "name")).drop("name")
    assert imgmatch_df.write_hashes(rows, tmp_path / "hashes.duckdb").n_new == 48
    stored = imgmatch_df.read_hashes(tmp_path / "hashes.duckdb")
    assert_series_equal(stored["phash"], codec.unsigned(rows["phash"]))
    assert stored.schema["phash"] == PHASH.dtype
    again = rows.with_columns(pl.col("phash").cast(pl.Decimal(20, 0)))
    assert imgmatch_df.write_hashes(again, tmp_path / "more.parquet").n_new == 48
    assert imgmatch_df.read_hashes(tmp_path / "more.parquet")["phash"].equals(stored["phash"])
    new = rows.drop("source").imgmatch.match(tmp_path / "hashes.duckdb", 0, "phash")
    assert new.height >= rows["phash"].count()
