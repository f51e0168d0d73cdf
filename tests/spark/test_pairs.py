"""Pairs on Spark equal those of one machine, whatever the blocks; finished tiles are not computed again."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from drawing import draw, jpeg
from near_hashes import near_hashes

import imgmatch_df
import imgmatch_df.spark as ims
from imgmatch_df.errors import ArgumentError, ColumnError, ImgMatchWarning, TooManyPairsError
from imgmatch_df.hashes.kinds import KINDS
from imgmatch_df.spark.schemas import as_spark

pytestmark = pytest.mark.spark

N_ROWS = 200_000


def many_hashes() -> pl.DataFrame:
    """Return 200,000 hashes in any order: near ones, 500 equal ones, and a path of 2,000, each 1 to 3 bits apart."""
    rng = np.random.default_rng(18)
    hashes = rng.integers(0, 1 << 64, N_ROWS, dtype=np.uint64)
    bits = np.uint64(1) << rng.integers(0, 64, (3, N_ROWS)).astype(np.uint64)
    near = slice(100_000, 120_000)
    hashes[near] = hashes[:20_000] ^ bits[0, near] ^ bits[1, near]
    hashes[:500] = hashes[0]
    flips = np.bitwise_or.reduce(np.where(rng.random((3, 2_000)) < 0.7, bits[:, :2_000], np.uint64(1)), axis=0)
    hashes[150_000:152_000] = np.bitwise_xor.accumulate(flips)
    is_null = rng.random(N_ROWS) < 0.01
    flat = pl.Series(rng.integers(0, 100, N_ROWS) + (np.arange(N_ROWS) < 500) * 50, dtype=pl.Int64)
    return pl.DataFrame(
        {
            "name": [f"bücher/{number:06}.jpg" for number in rng.permutation(N_ROWS)],
            "phash": pl.Series(hashes),
            "quality": (flat.clip(40, 100)).cast(pl.UInt8),
            "sha256": pl.Series([f"{number:064X}" for number in rng.integers(0, 20_000, N_ROWS)]),
        }
    ).with_columns(pl.when(pl.Series(is_null)).then(None).otherwise("phash").alias("phash"))


def near_frame(name: str, n_rows: int = 3_000, seed: int = 1) -> pl.DataFrame:
    """Return hashes of a kind, of which a half is up to 3 bits from others, with flat, null and equal ones."""
    rng, kind = np.random.default_rng(seed), KINDS[name]
    hashes = near_hashes(kind, n_rows, rng)
    return pl.DataFrame(
        {
            "id": [f"é{number:05}" for number in rng.permutation(n_rows)],
            name: pl.Series(values=[None if n % 17 == 3 else one for n, one in enumerate(hashes)], dtype=kind.dtype),
            "quality": pl.Series(values=rng.integers(45, 80, n_rows), dtype=pl.UInt8),
            "sha256": [f"{number:064x}" for number in rng.integers(0, n_rows // 10, n_rows)],
            "folder": rng.choice(["a", "b", "c"], n_rows),
            "product": [None if n % 3 == 0 else int(one) for n, one in enumerate(rng.integers(0, 3, n_rows))],
        }
    ).with_columns(pl.when(pl.int_range(n_rows) % 19 == 3).then(None).otherwise("quality").alias("quality"))


def to_spark(spark, frame: pl.DataFrame, n_tasks: int = 3):
    return spark.createDataFrame(as_spark(frame)).repartition(n_tasks)


def assert_same(found, wanted: pl.DataFrame) -> None:
    """Check that a DataFrame of Spark has the rows of one of Polars, in any order."""
    expected = pl.DataFrame(as_spark(wanted))
    rows = pl.DataFrame(found.toArrow())
    assert rows.schema == expected.schema
    assert len(expected)
    assert rows.sort(rows.columns).equals(expected.sort(expected.columns))


@pytest.fixture(scope="module")
def many() -> pl.DataFrame:
    return many_hashes().sort("name")


@pytest.fixture(scope="module")
def many_on_spark(spark, many, tmp_path_factory):
    file = tmp_path_factory.mktemp("many") / "many.parquet"
    mixed = many.sample(fraction=1, shuffle=True, seed=3)
    pl.DataFrame(as_spark(mixed)).write_parquet(file, row_group_size=50_000)
    return spark.read.parquet(str(file))


@pytest.mark.parametrize(("radius", "n_blocks"), [(0, 3), (4, 8), (6, 1)])
def test_pairs_of_many_hashes(many, many_on_spark, radius, n_blocks):
    found = ims.near_duplicates(many_on_spark, radius, "phash", id="name", n_blocks=n_blocks)
    assert_same(found, imgmatch_df.near_duplicates(many, radius, "phash", id="name"))


@pytest.mark.parametrize(("kind", "turns"), [("bmh1", True), ("pdq", None)])
def test_conditions_and_turns(spark, kind, turns):
    from pyspark.sql import functions as F

    frame = near_frame(kind).sort("id")
    named = {"id": "id", "turns": turns}
    every = imgmatch_df.near_duplicates(frame, 6, kind, **named)
    some = every.sample(fraction=0.3, seed=1).select("left_id", "right_id")
    some = pl.concat([some[::2], some[1::2].select(left_id="right_id", right_id="left_id")])
    df = to_spark(spark, frame)
    assert_same(ims.near_duplicates(df, 6, kind, n_blocks=3, **named), every)
    found = ims.near_duplicates(
        df,
        6,
        kind,
        across="folder",
        within=F.col("product") + 1,
        not_duplicates=spark.createDataFrame(as_spark(some)),
        n_blocks=2,
        **named,
    )
    wanted = imgmatch_df.near_duplicates(
        frame, 6, kind, across="folder", within="product", not_duplicates=some, **named
    )
    assert_same(found, wanted)


def test_matches(spark):
    frame = near_frame("bmh1").sort("id")
    reference = near_frame("bmh1", 1_500).with_columns(ref=pl.int_range(1_500, dtype=pl.Int64) * 7 - 900).sort("ref")
    sides = to_spark(spark, frame), to_spark(spark, reference.drop("id"))
    named = {"id": "id", "reference_id": "ref", "columns": ["product", "sha256"]}
    single = {"reference": reference.drop("id"), **named}
    for turns, k, n_blocks in ((None, None, 1), (True, 2, 2)):
        found = ims.match(*sides, 6, "bmh1", turns=turns, k=k, n_blocks=n_blocks, **named)
        assert_same(found, imgmatch_df.match(frame, radius=6, hash_type="bmh1", turns=turns, k=k, **single))
    found = ims.match(*sides, 6, "bmh1", k=1, across="folder", n_blocks=2, **named)
    assert_same(found, imgmatch_df.match(frame, radius=6, hash_type="bmh1", k=1, across="folder", **single))


def test_finished_tiles_are_not_computed_again(spark, tmp_path):
    frame = near_frame("phash").sort("id")
    df, work = to_spark(spark, frame), str(tmp_path / "my work")

    def call(radius: int = 5, df=df):
        return ims.near_duplicates(df, radius, "phash", id="id", work_dir=work, n_blocks=3)

    def times() -> dict[Path, int]:
        return {one: one.stat().st_mtime_ns for one in sorted(Path(work).rglob("*.parquet"))}

    wanted = imgmatch_df.near_duplicates(frame, 5, "phash", id="id")
    assert_same(call(), wanted)
    first = times()
    tiles = [one for one in first if one.parent.name == "pairs"]
    assert len(tiles) == 6
    assert_same(call(), wanted)
    assert times() == first
    totals = tiles[2].parent / "_totals.json"
    totals.unlink()
    tiles[2].unlink()
    assert_same(call(), wanted)
    later = times()
    assert [one for one in first if later[one] != first[one]] == [tiles[2]]
    call(4)
    assert len(list(Path(work).iterdir())) == 2
    other = to_spark(spark, frame.with_columns(pl.when(pl.int_range(pl.len()) != 7).then("phash").alias("phash")))
    call(df=other)
    assert len(list(Path(work).iterdir())) == 3


def test_too_many_pairs(spark):
    df = to_spark(spark, pl.DataFrame({"id": range(300), "phash": [5] * 300}, schema={"id": int, "phash": pl.UInt64}))
    with pytest.raises(TooManyPairsError, match="max_pairs=44,849 "):
        ims.near_duplicates(df, 1, "phash", id="id", max_pairs=44_849)
    with pytest.raises(TooManyPairsError, match="max_pairs=89,999 "):
        ims.match(df, df, 1, "phash", id="id", reference_id="id", max_pairs=89_999)
    assert ims.near_duplicates(df, 1, "phash", id="id", max_pairs=44_850).count() == 44_850


def test_ids_and_widths(spark):
    rows = [(1, 5, b"x"), (2, 5, b"x"), (2, 7, b"x"), (None, 9, b"x")]
    df = spark.createDataFrame(rows, "id int, phash long, bmh1 binary")
    with pytest.raises(ArgumentError, match="1 of 4 rows have null"):
        ims.near_duplicates(df, 1, "phash", id="id")
    known = df.filter("id is not null")
    with pytest.raises(ArgumentError, match="3 rows have 2 different values"):
        ims.near_duplicates(known, 1, "phash", id="id")
    one_each = known.filter("phash < 7")
    with pytest.raises(ArgumentError, match="reference_id='id': 3 rows have 2 different"):
        ims.match(one_each, known, 1, "phash", id="id", reference_id="id")
    with pytest.raises(ColumnError, match="1 bytes, a bmh1 has 121"):
        ims.near_duplicates(one_each, 1, "bmh1", id="id")


def test_few_rows(spark):
    """No row, no hash, one hash; flat rows that nothing is known of."""
    schema = "id int, phash long, quality int"
    for rows in ([], [(1, None, 80), (2, None, None)], [(1, 5, None)]):
        df = spark.createDataFrame(rows, schema)
        assert ims.near_duplicates(df, 3, "phash", id="id").collect() == []
    assert ims.match(df, df, 3, "phash", id="id", reference_id="id", k=1).collect() == [(1, 1, 0)]
    with pytest.warns(ImgMatchWarning, match="2 images show too little"):
        found = ims.near_duplicates(spark.createDataFrame([(1, 5, 9), (2, 5, 9)], schema), 3, "phash", id="id")
    assert found.collect() == []


def test_hashes_in_other_forms(spark):
    frame = near_frame("phash", 600).select("id", "phash", (pl.col("phash") % 3).alias("a.b")).sort("id")
    wanted = imgmatch_df.near_duplicates(frame, 6, "phash", id="id", within="a.b")
    text = frame.select("id", "a.b", imgmatch_df.to_hex("phash").str.to_uppercase().alias("old hash"))
    lists = frame.select(
        "id", "a.b", imgmatch_df.to_bits("phash").str.split("").cast(pl.List(pl.Int8)).alias("old hash")
    )
    for other in (text, lists):
        df = to_spark(spark, other)
        found = ims.near_duplicates(df, 6, "phash", id="id", within="a.b", column="old hash", n_blocks=2)
        assert_same(found, wanted)
    wide = df.sparkSession.createDataFrame([(1, Decimal(2**63 + 5)), (2, Decimal(5))], "id long, phash decimal(20,0)")
    assert ims.near_duplicates(wide, 1, "phash", id="id").collect() == [(1, 2, 1)]
    mixed = spark.createDataFrame([(1, "00000000000000ff"), (2, "12345")], "id long, phash string")
    with pytest.raises(ColumnError, match="several forms"):
        ims.near_duplicates(mixed.repartition(2), 1, "phash", id="id")
    with pytest.raises(ColumnError, match="'xyz'"):
        ims.near_duplicates(spark.createDataFrame([(1, "xyz")], mixed.schema), 1, "phash", id="id")


def test_images_are_hashed_once(spark, tmp_path):
    files = [tmp_path / f"image {n}.jpg" for n in range(12)]
    for n, file in enumerate(files):
        file.write_bytes(jpeg(draw(n // 3), quality=60 + n) if n < 11 else b"broken")
    frame = pl.DataFrame({"id": range(12), "file": [str(one) for one in files], "n": [n % 2 for n in range(12)]})
    wanted = imgmatch_df.near_duplicates(frame, 24, source="file", id="id", across="n")
    df = to_spark(spark, frame)
    for _ in range(2):
        named = {"source": "file", "id": "id", "across": "n", "work_dir": str(tmp_path / "work")}
        assert_same(ims.near_duplicates(df, 24, **named), wanted)
        for file in files:
            file.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"radius": 65}, ArgumentError, "radius must be"),
        ({"radius": None}, ArgumentError, "radius is missing"),
        ({"hash_type": "nothing"}, ArgumentError, "nothing"),
        ({"id": None}, ArgumentError, "id is missing"),
        ({"id": "absent"}, ColumnError, "no column 'absent'"),
        ({"across": 5}, ArgumentError, "across must be the name of a column or a Spark Column"),
        ({"within": "absent"}, ColumnError, "absent"),
        ({"not_duplicates": [(1, 2)]}, ArgumentError, "not_duplicates must be a Spark DataFrame"),
        ({"column": "absent"}, ColumnError, "no column 'absent'"),
        ({"flat": "no"}, ArgumentError, "flat must be"),
        ({"max_pairs": 0}, ArgumentError, "max_pairs"),
        ({"min_votes": 8}, ArgumentError, "has no min_votes"),
        ({"turns": True}, ArgumentError, "turns"),
        ({"work_dir": "relative"}, ArgumentError, "work_dir must be"),
        ({"n_blocks": 0}, ArgumentError, "n_blocks must be"),
        ({"timeout_s": 3}, ArgumentError, "no effect without source"),
    ],
)
def test_wrong_arguments_start_no_job(spark, arguments, error, text):
    df = spark.createDataFrame([(1, 5)], "id int, phash long")
    named = {"radius": 1, "hash_type": "phash", "id": "id", **arguments}
    tracker = spark.sparkContext.statusTracker()
    before = tracker.getJobIdsForGroup()
    with pytest.raises(error, match=text):
        ims.near_duplicates(df, **named)
    with pytest.raises(error, match=text):
        ims.match(df, df, **{"reference_id": "id", **named})
    assert tracker.getJobIdsForGroup() == before
