"""`visual_hash` on Spark: the rows of one machine, in every kind of session, and in bounded memory."""

import json

import numpy as np
import polars as pl
import pytest
from connect import run_connected, run_program
from drawing import draw, jpeg
from hostile_server import HostileServer
from polars.testing import assert_frame_equal

import imgmatch_df
import imgmatch_df.spark as ims
from imgmatch_df.columns import STATUS_DTYPE, STATUSES
from imgmatch_df.errors import ArgumentError, ColumnError

pytestmark = pytest.mark.spark

N_ROWS = 5_000
LIMITS = {"max_bytes": 20_000, "max_pixels": 10_000}
FETCHING = {"allow_private_networks": True, "timeout_s": 5.0, "attempts": 1}
EXACT = {"width": pl.UInt32, "height": pl.UInt32, "quality": pl.UInt8, "phash": pl.UInt64, "status": STATUS_DTYPE}


def as_rows(result, order="id") -> pl.DataFrame:
    """The rows of a Spark DataFrame in the order of a column, with the dtypes of one machine."""
    frame = pl.DataFrame(result.toArrow())
    unsigned = [pl.col("phash").reinterpret(signed=False)] if "phash" in frame.columns else []
    others = {name: dtype for name, dtype in EXACT.items() if name in frame.columns and name != "phash"}
    return frame.with_columns(unsigned).cast(others).sort(order)


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """Two hundred files, of which the last ten are broken, cut, too large or no images."""
    good = [jpeg(draw(seed), quality=80) for seed in range(190)]
    noise = np.random.default_rng(1).bytes(30_000)
    large = jpeg(draw(1, 200, 100), quality=60)
    return [*good, b"", good[0][:300], b"<!DOCTYPE html>", b"GIF89a", good[1] + noise, large, noise[:99], good[2][:-40],
            good[3][:20], b"\x89PNG\r\n\x1a\n"]  # fmt: skip


@pytest.fixture(scope="module")
def album(images, tmp_path_factory) -> pl.DataFrame:
    """Rows of images as paths and as bytes, each path once."""
    folder = tmp_path_factory.mktemp("album")
    rows = []
    for n in range(N_ROWS):
        data = images[n % len(images)]
        path = folder / f"{n:05} é.jpg"
        if n < len(images):
            path.write_bytes(data)
        else:
            path.hardlink_to(rows[n % len(images)]["path"])
        rows.append({"id": n, "path": str(path), "image": data})
    frame = pl.DataFrame(rows)
    odd = pl.col("id") % 97
    path = (
        pl.when(odd == 0).then(None).when(odd == 1).then(pl.col("path") + ".lost").when(odd == 2).then(pl.lit(""))
        .when(odd == 3).then(pl.lit("s3://bucket/image.jpg")).when(odd == 4).then(pl.lit("data:image/png;base64,?"))
        .otherwise("path")
    )  # fmt: skip
    return frame.with_columns(path=path, image=pl.when(odd > 0).then("image"))


def test_five_thousand_rows_are_those_of_one_machine(spark, album, images, tmp_path):
    with HostileServer(images[:3]) as server:
        urls = ["/ok/1.jpg", "/slow-headers", "/status/404", "/status/500", "/html", "/reset", "/empty", "/nowhere"]
        fetched = pl.DataFrame({"id": range(N_ROWS, N_ROWS + len(urls)), "path": [server.url(url) for url in urls]})
        frame = pl.concat([album, fetched], how="diagonal")
        frame.write_parquet(tmp_path / "album.parquet", row_group_size=500)
        options = {**LIMITS, **FETCHING}
        expected = imgmatch_df.visual_hash(frame, "path", **options)
        result = ims.visual_hash(spark.read.parquet(str(tmp_path / "album.parquet")).repartition(7), "path", **options)
        assert result.columns == expected.columns
        assert_frame_equal(as_rows(result), expected)
    assert set(expected["status"]) == set(STATUSES)


def test_bytes_are_hashed_as_on_one_machine(spark, album, tmp_path):
    album.drop("path").write_parquet(tmp_path / "album.parquet", row_group_size=1000)
    stored = spark.read.parquet(str(tmp_path / "album.parquet"))
    expected = imgmatch_df.visual_hash(album.drop("path"), "image", **LIMITS)
    assert_frame_equal(as_rows(ims.visual_hash(stored, "image", **LIMITS)), expected)


@pytest.mark.parametrize("hash_types", ["pdq", ["phash", "sha256"], ["local", "bmh1"]])
def test_other_kinds_affixes_and_structs(spark, album, hash_types):
    from pyspark.sql import functions as F

    rows = album.head(120)
    expected = imgmatch_df.visual_hash(rows, "image", hash_types=hash_types, prefix="a_", suffix="_z", alpha="white")
    df = spark.createDataFrame(rows.to_pandas().replace({float("nan"): None}), "id long, path string, image binary")
    for source in (F.col("image"), F.struct(F.col("image").alias("bytes"), F.lit(None).cast("string").alias("path"))):
        result = ims.visual_hash(df, source, hash_types=hash_types, prefix="a_", suffix="_z", alpha="white")
        assert result.columns == expected.columns
        found = pl.DataFrame(result.toArrow()).sort("id")
        exact = {name: dtype for name, dtype in expected.schema.items() if dtype != pl.UInt64}
        unsigned = [pl.col(name).reinterpret(signed=False) for name in set(exact) ^ set(expected.columns)]
        assert_frame_equal(found.with_columns(unsigned).cast(exact), expected)


def test_other_columns_pass_by_with_type_nullability_and_metadata(spark):
    from pyspark.sql import types

    df = spark.sql(
        """select 'no such file.jpg' as url, timestamp'1700-01-01 01:02:03.456789' as `a.b`,
        timestamp_ntz'2020-01-01 01:02:03' as `we``ird`, cast(1.5 as decimal(38, 10)) as d, date'1500-01-01' as day,
        map('a', array(1, null)) as m, array(named_struct('x', 1, 'y', null)) as s, interval '1' day as i,
        cast('nan' as double) as f, X'00ff' as b, null as n, cast(7 as byte) as quality7, 18446744073709551615BD as big,
        'A' collate utf8_lcase as c, named_struct('bytes', X'00', 'path', 'x') as image, timestamp'2020-01-01' as `é`"""
    )
    df = df.withMetadata("d", {"unit": "mm"})
    result = ims.visual_hash(df, "url", hash_types="phash")
    assert result.columns == ["width", "height", "status", "detail", "quality", *df.columns, "phash"]
    assert types.StructType(result.schema.fields[5:-1]) == df.schema
    assert [field.metadata for field in result.schema.fields[5:-1]] == [field.metadata for field in df.schema.fields]
    assert repr(result.select(*(f"`{name.replace('`', '``')}`" for name in df.columns)).collect()) == repr(df.collect())
    (row,) = result.select("status", "detail", "phash").collect()
    assert tuple(row) == ("not_found", "no such file: no such file.jpg", None)


def test_columns_with_existing_hashes_and_no_rows(spark):
    df = spark.createDataFrame([("x.jpg", 7, b"a")], "url string, phash long, sha256 binary")
    assert ims.visual_hash(df, hash_types="bmh1").columns == [
        *("width", "height", "status", "detail", "quality", "url", "phash", "sha256", "bmh1")
    ]
    assert ims.visual_hash(df.limit(0), hash_types="bmh1").collect() == []


def test_relative_paths_are_those_of_the_driver(spark, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(images[0])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.jpg").write_bytes(images[1])
    df = spark.createDataFrame([("a.jpg",), ("b.jpg",), ("../a.jpg",)], "url string").coalesce(1)
    for options in ({}, {"base_dir": "in"}):
        expected = imgmatch_df.visual_hash(pl.DataFrame({"url": ["a.jpg", "b.jpg", "../a.jpg"]}), **options)
        assert_frame_equal(as_rows(ims.visual_hash(df, **options), "url"), expected.sort("url"))


def test_the_first_row_that_fails_is_an_error_with_its_reason(spark):
    from pyspark.errors import PythonException

    df = spark.createDataFrame([("no-such-file.jpg",)], "url string")
    result = ims.visual_hash(df, on_error="raise", progress=True)  # lazy
    with pytest.raises(PythonException) as caught:
        result.collect()
    assert (
        str(caught.value)
        .rstrip()
        .endswith(
            "imgmatch_df.errors.FetchError: not_found: no such file: no-such-file.jpg\n"
            "Hint: on_error='null' keeps such rows as null."
        )
    )


WRONG = {
    "no such column": (["nope"], {}),
    "another type": (["n"], {}),
    "a number": ([3], {}),
    "an unknown kind": (["url"], {"hash_types": ["dhash"]}),
    "no kinds": (["url"], {"hash_types": []}),
    "an unknown option": (["url"], {"timeout": 3}),
    "a wrong option": (["url"], {"max_bytes": 0}),
    "a wrong folder": (["url"], {"base_dir": "/no/such/folder"}),
    "a wrong prefix": (["url"], {"prefix": 3}),
    "a name that is taken": (["url"], {"suffix": "_x"}),
    "a pattern": (["^url$"], {}),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_raise_what_they_raise_on_one_machine(spark, case):
    args, named = WRONG[case]
    df = spark.createDataFrame([("x.jpg", 1, 2)], "url string, n long, width_x long")
    frame = pl.DataFrame(schema={"url": pl.String, "n": pl.Int64, "width_x": pl.Int64})
    with pytest.raises((ArgumentError, ColumnError)) as expected:
        imgmatch_df.visual_hash(frame, *args, **named)
    with pytest.raises(type(expected.value)) as found:
        ims.visual_hash(df, *args, **named)
    if case != "a number":  # the hint names a Column
        assert str(found.value) == str(expected.value)


def test_wrong_frames_and_columns_raise(spark):
    from pyspark.sql import functions as F

    df = spark.createDataFrame([("x.jpg", 1)], "url string, WIDTH long")
    for frame in (None, pl.DataFrame({"url": ["x"]}), df.schema):
        with pytest.raises(ArgumentError, match=r"df must be a Spark DataFrame, got .*\nHint: "):
            ims.visual_hash(frame)
    with pytest.raises(ColumnError, match=r"already has a column 'WIDTH', .* adds 'width': .*\nHint: prefix="):
        ims.visual_hash(df)
    twice = df.select("url", "url")
    with pytest.raises(ColumnError, match="has two columns 'url'\nHint: "):
        ims.visual_hash(twice)
    with pytest.raises(ColumnError, match=r"source is a Column that Spark cannot compute: .*\nHint: .*'url', 'WIDTH'"):
        ims.visual_hash(df, F.col("nope"))
    with pytest.raises(ArgumentError, match=r"source must be one column, got 2: 'url', 'WIDTH'\nHint: "):
        ims.visual_hash(df, F.col("*"))
    with pytest.raises(ColumnError, match=r"column 'WIDTH' "):
        ims.visual_hash(df, F.col("WIDTH"), prefix="x_")
    months = spark.sql("select 'x.jpg' as url, interval '3' month as months")
    with pytest.raises(ColumnError, match=r"column 'months' has type interval month, .*\nHint: drop"):
        ims.visual_hash(months)


CONNECTED = """
    import polars as pl
    import imgmatch_df.spark as ims
    from pyspark.sql import functions as F

    df = spark.read.parquet(sys.argv[1])
    struct = F.struct(F.col("image").alias("bytes"), F.lit("x").alias("path"))
    for name, source in (("name", "image"), ("column", struct)):
        result = ims.visual_hash(df, source, max_bytes=20_000, max_pixels=10_000)
        pl.DataFrame(result.toArrow()).write_parquet(f"{sys.argv[2]}/{name}.parquet")
    wrong = [
        ("nope", {}), ("id", {}), (F.col("nope"), {}), (F.col("*"), {}), ("image", {"suffix": 3}),
        ("image", {"base_dir": "here"}), ("image", {"base_dir": 3}), ("image", {"hash_types": "dhash"}),
    ]
    for source, named in wrong:
        try:
            ims.visual_hash(df, source, **named)
        except Exception as error:
            print(type(error).__name__, str(error).partition("Hint: ")[0].split(chr(10))[0])
    # The client need not have the folder.
    far = ims.visual_hash(df.limit(1), "image", base_dir="/no/such/folder/of/an/executor")
    try:
        far.collect()
    except Exception as error:
        print(type(error).__name__, [line for line in str(error).splitlines() if "base_dir" in line][-1].strip())
"""


def test_connect_sessions_give_the_same_rows(album, tmp_path):
    rows = album.head(400).drop("path")
    rows.write_parquet(tmp_path / "rows.parquet")
    printed = run_connected(CONNECTED, tmp_path / "rows.parquet", tmp_path).splitlines()
    expected = imgmatch_df.visual_hash(rows, "image", **LIMITS)
    for name in ("name", "column"):
        found = pl.read_parquet(tmp_path / f"{name}.parquet").with_columns(pl.col("phash").reinterpret(signed=False))
        others = {name: dtype for name, dtype in EXACT.items() if name != "phash"}
        assert_frame_equal(found.cast(others).sort("id"), expected)
        structs = rows.with_columns(image=pl.struct(bytes="image", path=pl.lit("x")))
        expected = imgmatch_df.visual_hash(structs, "image", **LIMITS).with_columns(image=rows["image"])
    assert [line.split()[0] for line in printed] == [
        *("ColumnError", "ColumnError", "ColumnError", "ArgumentError", "ArgumentError"),
        *("ArgumentError", "ArgumentError", "ArgumentError", "PythonException"),
    ], printed
    assert printed[-1].endswith("base_dir is not a folder: '/no/such/folder/of/an/executor'")


SMALL_HEAP = """
    import json, sys
    import pyarrow as pa
    import imgmatch_df.spark as ims
    from imgmatch_df.spark.workers import map_batches
    from pyspark.sql.types import StringType, StructField, StructType

    spark = ims.session("local-cluster[2,1,512]", **{
        "spark.executor.memory": "512m", "spark.ui.enabled": False, "spark.ui.showConsoleProgress": False,
    })
    spark.sparkContext.setLogLevel("ERROR")

    def heap_of_executor(batches):
        from pathlib import Path

        pid = "self"
        while True:  # worker, daemon, executor
            line = Path(f"/proc/{pid}/cmdline").read_bytes().split(bytes(1))
            found = [one.decode() for one in line if one.startswith(b"-Xmx")]
            if found:
                break
            pid = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        for batch in batches:
            yield pa.RecordBatch.from_pydict({"heap": found})

    schema = StructType([StructField("heap", StringType())])
    heaps = map_batches(spark.range(8).repartition(4), heap_of_executor, schema)
    hashed = ims.visual_hash(spark.read.parquet(sys.argv[1]), "image", hash_types="phash")
    counted = hashed.groupBy("status").agg({"id": "sum", "image": "count", "phash": "max"}).collect()
    tasks = spark.sparkContext.statusTracker()
    failed = sum(tasks.getStageInfo(n).numFailedTasks for n in range(10) if tasks.getStageInfo(n))
    print(json.dumps({
        "heaps": sorted({row.heap for row in heaps.collect()}),
        "rows": [row.asDict() for row in counted],
        "failed": failed,
    }))
    spark.stop()
"""


def test_a_heap_of_512_mb_hashes_four_times_its_size(images, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Photos of 100 KB of which the most are bytes behind the end of a small JPEG.
    padding = np.random.default_rng(5).bytes(100_000)
    good = [image + padding for image in images[:160]]
    n_groups = -(-(2 << 30) // sum(map(len, good)))
    schema = pa.schema({"id": pa.int64(), "image": pa.binary()})
    with pq.ParquetWriter(tmp_path / "photos.parquet", schema, compression="none", use_dictionary=False) as writer:
        for n in range(n_groups):
            writer.write_table(pa.table([range(n * 160, n * 160 + 160), good], schema=schema))
    assert (tmp_path / "photos.parquet").stat().st_size >= 4 * (512 << 20)
    found = json.loads(run_program(SMALL_HEAP, tmp_path / "photos.parquet").splitlines()[-1])
    n_rows = 160 * n_groups
    largest = imgmatch_df.visual_hash(pl.DataFrame({"image": images[:160]}), "image")["phash"].reinterpret(signed=True)
    assert found == {
        "heaps": ["-Xmx512M"],
        "failed": 0,
        "rows": [
            {"status": "ok", "sum(id)": n_rows * (n_rows - 1) // 2, "count(image)": n_rows, "max(phash)": largest.max()}
        ],
    }
