"""Clusters on Spark are those of one machine on the rows in the order of their ids."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import imgmatch_df
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.spark import buckets, components, grouping
from imgmatch_df.spark import cluster as spark_cluster
from imgmatch_df.spark import remove_duplicates as spark_remove_duplicates
from imgmatch_df.spark.schemas import as_polars, as_spark

pytestmark = [pytest.mark.spark, pytest.mark.filterwarnings("ignore::imgmatch_df.errors.ImgMatchWarning")]


def on_spark(spark, frame):
    return spark.createDataFrame(as_spark(frame))


def assert_same(found, expected, id="name"):
    """Compare a result with that of one machine, which is in the order of the ids."""
    read = [name for name in found.columns if name != "removed_records"]
    rows = as_polars(found.select(*read).toArrow()).sort(id)
    assert found.columns == expected.columns
    signed = pl.DataFrame(as_spark(expected))
    assert_frame_equal(rows, as_polars(signed.select(read).to_arrow()))
    if "removed_records" in found.columns:
        records = {row[id]: [one.asDict(True) for one in row["removed_records"]] for row in found.collect()}
        assert records == dict(signed.select(id, "removed_records").iter_rows())


def hashes_with_shapes(n, seed=0):
    """Random hashes, copies of them within 3 bits, 500 equal ones, a shuffled path of steps of one bit."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 1 << 63, n, np.uint64) * np.uint64(2)
    copies = n // 4
    hashes[:copies] = hashes[n - copies :]
    for _ in range(3):
        hashes[:copies] ^= np.uint64(1) << rng.integers(0, 64, copies).astype(np.uint64)
    hashes[copies : copies + 500] = hashes[copies]
    n_path = min(2_000, n // 8)
    step, path = np.uint64(rng.integers(1 << 63)), []
    for i in range(n_path):
        path.append(step)
        step ^= np.uint64(1) << np.uint64((i * 7 + i // 64) % 64)
    hashes[copies + 500 : copies + 500 + n_path] = path
    return hashes[rng.permutation(n)]


def ruled_frame(n=3_000, seed=1):
    """Rows with hashes of few images, rows without, flat rows with and without digests, and columns for rules."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 1 << 63, n // 3, np.uint64)
    hashes = images[rng.integers(0, len(images), n)]
    flips = np.uint64(1) << rng.integers(0, 64, n).astype(np.uint64)
    hashes = np.where(rng.random(n) < 0.5, hashes ^ flips, hashes)
    digests = pl.Series([f"{one:x}" for one in rng.integers(0, n // 6, n)])
    frame = pl.DataFrame(
        {
            "name": pl.Series(rng.permutation(10 * n)[:n]).cast(pl.String),
            "phash": pl.Series(hashes, dtype=pl.UInt64),
            "folder": pl.Series(rng.integers(0, 4, n)),
            "score": rng.random(n),
            "width": pl.Series(rng.integers(1, 9, n)),
            "height": pl.Series(rng.integers(1, 9, n)),
            "quality": pl.Series(rng.integers(45, 101, n), dtype=pl.UInt8),
            "sha256": digests,
        }
    )
    number = pl.int_range(n)
    return frame.with_columns(
        pl.when(number % 50 > 0).then("phash"),
        pl.when(number % 7 > 0).then("sha256"),
        pl.when(number % 11 > 0).then("score"),
        pl.when(number % 13 > 0).then("folder"),
    )


def declared(frame, n=400):
    """Pairs of rows with equal hashes, in both orders, and names that no row has."""
    same = (
        frame.drop_nulls("phash")
        .group_by("phash", maintain_order=True)
        .agg("name")
        .filter(pl.col("name").list.len() > 1)
    )
    pairs = same.head(n).select(left_id=pl.col("name").list.last(), right_id=pl.col("name").list.first())
    return pl.concat([pairs, pl.DataFrame({"left_id": ["none", None], "right_id": ["nobody", "none"]})])


def mirrored(frame):
    """Return the frame with every third hash, of 8 x 8 bits, mirrored."""
    hashes = frame["phash"].fill_null(0).to_numpy()
    bits = np.unpackbits(hashes.view(np.uint8)).reshape(-1, 8, 8)[:, :, ::-1]
    turned = pl.Series(np.packbits(bits).view(np.uint64))
    is_turned = (pl.int_range(len(frame)) % 3 == 0) & pl.col("phash").is_not_null()
    return frame.with_columns(pl.when(is_turned).then(turned).otherwise("phash").alias("phash"))


@pytest.mark.parametrize(
    ("n", "radius", "n_blocks", "limit"),
    [(50_000, 0, 3, None), (50_000, 1, 8, 1_000), (50_000, 4, 1, None), (200_000, 4, 3, None)],
)
def test_labels_of_many_hashes_equal_those_of_one_machine(spark, monkeypatch, n, radius, n_blocks, limit):
    frame = pl.DataFrame({"name": np.random.default_rng(2).permutation(n), "phash": hashes_with_shapes(n)})
    if limit is not None:
        monkeypatch.setattr(components, "MAX_DRIVER_LINKS", limit)
    found = spark_cluster(on_spark(spark, frame), radius, "phash", id="name", n_blocks=n_blocks)
    assert_same(found, imgmatch_df.cluster(frame.sort("name"), radius, "phash", id="name"))


CASES = {
    "last, star": {"keep": "last", "linkage": "star", "diameter": True},
    "largest": {"keep": "largest", "diameter": True},
    "rules": {"keep": ["score"], "protect": "is_best", "across": "folder"},
    "within": {"keep": "smallest", "within": "folder", "not_duplicates": True},
    "turns": {"hash_type": "imagehash_ahash", "turns": True, "flat": "match"},
}


@pytest.mark.parametrize("case", CASES)
def test_rules_equal_those_of_one_machine(spark, monkeypatch, case):
    from pyspark.sql import functions as F

    monkeypatch.setattr(grouping, "_FEW_ROWS", 500)  # six buckets
    frame, named = ruled_frame(), dict(CASES[case])
    df, truth = on_spark(spark, frame), dict(named)
    if named.get("protect"):
        named |= {"protect": F.col("score") > 0.9, "keep": [F.col("score"), "name"]}
        truth |= {"protect": pl.col("score") > 0.9, "keep": [pl.col("score"), pl.col("name")]}
    if named.get("not_duplicates"):
        truth["not_duplicates"] = declared(frame)
        named["not_duplicates"] = on_spark(spark, truth["not_duplicates"])
    if named.get("turns"):
        frame = mirrored(frame).rename({"phash": "imagehash_ahash"})
        df = on_spark(spark, frame)
    else:
        named["hash_type"] = truth["hash_type"] = "phash"
    rows = frame.sort("name")
    found = spark_cluster(df, 4, id="name", n_blocks=3, prefix="c_", **named)
    assert_same(found, imgmatch_df.cluster(rows, 4, id="name", prefix="c_", **truth))
    if "diameter" not in named:
        found = spark_remove_duplicates(df, 4, id="name", **named)
        assert_same(found, imgmatch_df.remove_duplicates(rows, 4, id="name", **truth))


def test_rows_of_a_reference_leave_first(spark):
    from pyspark.sql import functions as F

    frame, other = ruled_frame(), ruled_frame(1_000, seed=3)
    hashes = frame["phash"].sample(1_000, seed=4)
    other = other.with_columns(hashes, pl.col("name").alias("key")).select("key", "phash", "quality", "sha256")
    named = {"reference_id": "key", "id": "name"}
    found = spark_cluster(
        on_spark(spark, frame), 4, "phash", reference=on_spark(spark, other), protect=F.col("score") > 0.9, **named
    )
    expected = imgmatch_df.cluster(
        frame.sort("name"), 4, "phash", reference=other.sort("key"), protect=pl.col("score") > 0.9, **named
    )
    assert expected["reference_id"].null_count() < len(frame) - 500
    assert_same(found, expected)


def test_columns_keep_their_types(spark):
    from pyspark.sql import functions as F

    rows = spark.sql(
        "SELECT * FROM VALUES "
        "(1, 8L, map('a', 1), timestamp'2026-01-02 03:04:05', 1.50BD, struct(X'01' AS bytes, 'p' AS path), X'02'), "
        "(2, 9L, map('b', 2), timestamp'2026-01-02 03:04:06', 2.50BD, struct(X'03' AS bytes, 'q' AS path), X'04'), "
        "(3, 255L, NULL, NULL, NULL, NULL, NULL) AS t(id, phash, `a.b`, time, price, image, bytes)"
    ).withColumn("span", F.expr("make_ym_interval(1, 2)"))
    found = spark_cluster(rows, 1, "phash", id="id")
    fields = {field.name: field.dataType for field in found.schema.fields}
    assert {name: fields[name] for name in rows.columns} == {one.name: one.dataType for one in rows.schema.fields}
    assert [row["cluster_id"] for row in found.drop("span").orderBy("id").collect()] == [0, 0, 1]
    removed = spark_remove_duplicates(rows, 1, "phash", id="id")
    assert removed.schema["removed_records"].dataType.elementType["span"] == rows.schema["span"]
    rows = rows.drop("span")
    kept = spark_remove_duplicates(rows, 1, "phash", id="id").orderBy("id").collect()
    assert [row["id"] for row in kept] == [1, 3]
    (record,) = kept[0]["removed_records"]
    assert record.asDict(True) == {
        **{name: rows.collect()[1][name] for name in ("id", "a.b", "time", "price", "phash")},
        "image": {"path": "q"},
    }
    assert kept[1]["removed_records"] == []


def test_few_rows(spark):
    frame = pl.DataFrame({"name": [5], "phash": [1 << 63]}, schema={"name": pl.Int32, "phash": pl.UInt64})
    for rows in (frame, frame.clear(), frame.with_columns(phash=pl.lit(None, pl.UInt64))):
        named = {"id": "name", "diameter": True}
        assert_same(
            spark_cluster(on_spark(spark, rows), 4, "phash", **named), imgmatch_df.cluster(rows, 4, "phash", **named)
        )


def test_a_call_again_goes_on_in_its_folder(spark, tmp_path):
    frame = ruled_frame(500)
    df = on_spark(spark, frame)
    first = spark_cluster(df, 4, "phash", id="name", n_blocks=2, work_dir=str(tmp_path))
    (folder,) = tmp_path.iterdir()
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    assert {"tiles", "components", "rows"} <= {path.name for path in folder.iterdir()}
    again = spark_cluster(df, 4, "phash", id="name", n_blocks=2, work_dir=str(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")} == written
    assert sorted(first.collect()) == sorted(again.collect())
    spark_cluster(df, 4, "phash", id="name", n_blocks=2, keep="last", work_dir=str(tmp_path))
    assert [folder] == list(tmp_path.iterdir())
    assert {path: path.stat().st_mtime_ns for path in written} == written
    spark_cluster(df.filter("folder = 1"), 4, "phash", id="name", n_blocks=2, work_dir=str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2


def test_clusters_are_numbered_over_several_ranges(spark, tmp_path, monkeypatch):
    from imgmatch_df.spark.work import WorkFolder

    monkeypatch.setattr(buckets, "_ROWS_PER_RANGE", 10)
    ids = np.random.default_rng(0).permutation(1_000).astype(str)
    found = on_spark(spark, pl.DataFrame({"id": ids, "first_id": ids}))
    numbers = buckets.number_clusters(found, WorkFolder(str(tmp_path)), "numbers", 1_000)
    assert [row["cluster_id"] for row in numbers.orderBy("first_id").collect()] == list(range(1_000))


def test_wrong_arguments_raise_before_a_job(spark, tmp_path):
    from pyspark.sql import functions as F

    df = on_spark(spark, ruled_frame(20))
    wrong = [
        ({}, ArgumentError, "id is missing"),
        ({"id": "folder_"}, ColumnError, "no column 'folder_'"),
        ({"id": "score"}, ColumnError, "rows are named by"),
        ({"id": "name", "keep": "best"}, ArgumentError, "keep must be one of"),
        ({"id": "name", "keep": 3}, ArgumentError, "keep must be one of"),
        ({"id": "name", "protect": "score"}, ColumnError, "protect must be Boolean"),
        ({"id": "name", "protect": F.col("nope")}, ColumnError, "protect cannot be read"),
        ({"id": "name", "across": pl.col("folder")}, ArgumentError, "across must be"),
        ({"id": "name", "linkage": "stars"}, ArgumentError, "linkage must be"),
        ({"id": "name", "not_duplicates": [("1", "2")]}, ArgumentError, "not_duplicates must be a Spark DataFrame"),
        ({"id": "name", "reference": df}, ArgumentError, "reference_id is missing"),
        ({"id": "name", "n_blocks": 0}, ArgumentError, "n_blocks must be"),
        ({"id": "name", "work_dir": "here"}, ArgumentError, "work_dir must be"),
    ]
    for named, error, text in wrong:
        for verb in (spark_cluster, spark_remove_duplicates):
            with pytest.raises(error, match=text):
                verb(df, 4, "phash", **{"work_dir": str(tmp_path / "w"), **named})
    assert not (tmp_path / "w").exists()
    with pytest.raises(ArgumentError, match="different values"):
        spark_cluster(df.union(df), 4, "phash", id="name")
