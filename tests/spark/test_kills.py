"""Executors, Python workers and drivers that are killed: the results are those without, and Spark retried."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from drawing import draw, jpeg
from killing import Aim, MissedMomentError, again_if_missed, children, killing
from polars.testing import assert_frame_equal

import imgmatch_df
import imgmatch_df.spark as ims
from imgmatch_df.spark import components
from imgmatch_df.spark.schemas import as_polars

pytestmark = pytest.mark.spark

N_BLOCKS = 8
N_TILES = N_BLOCKS * (N_BLOCKS + 1) // 2
RADIUS = 3


@pytest.fixture(autouse=True)
def executors(spark):
    if not spark.conf.get("spark.master").startswith("local-cluster"):
        pytest.skip("needs executors in processes of their own")


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> tuple[pl.DataFrame, str]:
    """Hashes with chains of near ones and equal ones, in the order of their ids, and a Parquet file of them."""
    rng = np.random.default_rng(5)
    n = 8_000
    hashes = rng.integers(0, 1 << 64, n, np.uint64)
    for row in range(1, n // 2):
        if row % 20:
            hashes[row] = hashes[row - 1] ^ np.uint64(1 << int(rng.integers(64)))
    hashes[n // 2 : n // 2 + 200] = hashes[0]
    frame = pl.DataFrame({"id": [f"r{one:06}" for one in rng.permutation(n)], "phash": hashes}).sort("id")
    path = tmp_path_factory.mktemp("hashes") / "hashes.parquet"
    frame.with_columns(pl.col("phash").reinterpret(signed=True)).write_parquet(path)
    return frame, path.as_uri()


def collected(df, *by: str) -> pl.DataFrame:
    return as_polars(df.toArrow()).sort(by)


def writes(folder: Path, stage: str):
    """Return whether Spark writes a stage."""
    return lambda: any(folder.glob(f"{stage}/_temporary"))


def amid(folder: Path, tiles: str):
    """Return whether some of the tiles are there and some are not."""
    return lambda: 0 < len(list(folder.glob(f"{tiles}/*.parquet"))) < N_TILES


@again_if_missed
def test_clusters_after_kills_in_each_stage(spark, rows, tmp_path, monkeypatch):
    frame, uri = rows
    monkeypatch.setattr(components, "MAX_DRIVER_LINKS", 100)  # so that Spark unites them
    aims = [
        Aim("rows", writes(tmp_path, "cluster-*/rows")),
        Aim("links", amid(tmp_path, "cluster-*/tiles/links")),
        Aim("components", writes(tmp_path, "cluster-*/components*")),
        Aim("clusters", writes(tmp_path, "cluster-*/clusters-*")),
    ]
    with killing(spark, *aims) as kills:
        found = ims.cluster(
            spark.read.parquet(uri), RADIUS, "phash", id="id", work_dir=str(tmp_path), n_blocks=N_BLOCKS
        )
    assert set(kills.retries) == {"rows", "links", "components", "clusters"}
    expected = imgmatch_df.cluster(frame, RADIUS, "phash", id="id")
    names = [name for name in expected.columns if name != "phash"]
    assert_frame_equal(collected(found, "id").select(names), expected.select(names), check_dtypes=False)


@again_if_missed
def test_pairs_after_kills_amid_the_tiles(spark, rows, tmp_path):
    frame, uri = rows
    is_amid = amid(tmp_path, "near_duplicates-*/tiles/pairs")
    with killing(spark, Aim("worker", is_amid, "worker"), Aim("executor", is_amid)) as kills:
        found = ims.near_duplicates(
            spark.read.parquet(uri), RADIUS, "phash", id="id", work_dir=str(tmp_path), n_blocks=N_BLOCKS
        )
    assert set(kills.retries) == {"worker", "executor"}
    expected = imgmatch_df.near_duplicates(frame, RADIUS, "phash", id="id").sort("left_id", "right_id")
    assert_frame_equal(collected(found, "left_id", "right_id"), expected, check_dtypes=False)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> pl.DataFrame:
    """Drawn images in files, a part of them broken."""
    folder = tmp_path_factory.mktemp("images")
    paths = []
    for number in range(60):
        data = jpeg(draw(number, 256, 200))
        path = folder / f"{number:03}.jpg"
        path.write_bytes(data if number % 10 else data[: len(data) // 9])
        paths.append(str(path))
    return pl.DataFrame({"id": range(60), "path": paths})


@again_if_missed
def test_hashes_and_tables_after_kills(spark, images, tmp_path):
    df = spark.createDataFrame(images.to_dicts()).crossJoin(spark.range(40).withColumnRenamed("id", "copy"))
    df = df.selectExpr("id * 40 + copy as id", "path").repartition(16)
    target = tmp_path / "table"
    out = tmp_path / "out"
    is_hashing = writes(tmp_path, "out")
    with killing(spark, Aim("executor", is_hashing), Aim("worker", is_hashing, "worker")):
        ims.visual_hash(df, "path", hash_types=["phash", "bmh1"]).write.parquet(out.as_uri())
    frame = pl.concat([images.with_columns(pl.col("id") * 40 + copy) for copy in range(40)]).sort("id")
    expected = imgmatch_df.visual_hash(frame, "path", hash_types=["phash", "bmh1"])
    hashed = collected(spark.read.parquet(out.as_uri()), "id")
    signed = pl.col("phash").reinterpret(signed=True)
    assert_frame_equal(
        hashed.select(expected.columns), expected.with_columns(signed), check_dtypes=False, categorical_as_str=True
    )
    is_writing = lambda: any(tmp_path.glob(".table.imgmatch/**/_temporary"))  # noqa: E731
    with killing(spark, Aim("table", is_writing)):
        summary = ims.write_hashes(df, str(target), source="path", key="id", hash_types=["phash"])
    assert summary.n_new == 2_400
    stored = collected(ims.read_hashes(spark, str(target)), "id")
    assert stored["id"].to_list() == list(range(2_400))
    assert stored["phash"].to_list() == hashed["phash"].to_list()
    assert ims.write_hashes(df, str(target), source="path", key="id", hash_types=["phash"]).n_new == 0


PROGRAM = """
import pathlib, sys
sys.path.insert(0, {support!r})
from conftest import start_session
import imgmatch_df.spark as ims

spark = start_session(pathlib.Path({folder!r}))
df = spark.read.parquet({uri!r})
ims.near_duplicates(df, {radius}, "phash", id="id", work_dir={work!r}, n_blocks={n_blocks})
"""


def test_a_driver_that_is_killed_and_runs_again(spark, rows, tmp_path):
    frame, uri = rows
    work = tmp_path / "work dir"
    (tmp_path / "session").mkdir()
    program = PROGRAM.format(
        support=str(Path(__file__).parent),
        folder=str(tmp_path / "session"),
        uri=uri,
        radius=RADIUS,
        work=str(work),
        n_blocks=N_BLOCKS,
    )
    driver = subprocess.Popen([sys.executable, "-W", "ignore", "-c", program], stderr=subprocess.DEVNULL)
    is_amid = amid(work, "near_duplicates-*/tiles/pairs")
    try:
        while not is_amid():
            assert driver.poll() is None, "the driver has ended before it was killed"
            time.sleep(0.002)
    finally:
        spark_of_driver = children(driver.pid)
        executors = [one for pid in spark_of_driver for one in children(pid)]
        for pid in (driver.pid, *spark_of_driver):
            os.kill(pid, signal.SIGKILL)
        assert driver.wait() == -signal.SIGKILL
    assert executors
    while any(Path(f"/proc/{pid}").exists() for pid in executors):  # they end without their driver
        time.sleep(0.1)
    (folder,) = work.glob("near_duplicates-*")
    finished = {path: path.stat() for path in folder.glob("tiles/pairs/*.parquet")}
    assert 0 < len(finished) < N_TILES
    there = {path: path.stat() for path in folder.glob("rows/**/*.parquet")}

    found = ims.near_duplicates(spark.read.parquet(uri), RADIUS, "phash", id="id", work_dir=work, n_blocks=N_BLOCKS)
    assert list(work.glob("near_duplicates-*")) == [folder]
    assert len(list(folder.glob("tiles/pairs/*.parquet"))) == N_TILES
    for path, before in {**finished, **there}.items():
        after = path.stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), path
    expected = imgmatch_df.near_duplicates(frame, RADIUS, "phash", id="id").sort("left_id", "right_id")
    assert_frame_equal(collected(found, "left_id", "right_id"), expected, check_dtypes=False)


def test_a_kill_that_misses_its_moment_fails(spark):
    with pytest.raises(MissedMomentError, match="no process had a task"), killing(spark, Aim("never", lambda: False)):
        spark.range(10).count()
