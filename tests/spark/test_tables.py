"""Tables of hashes: Parquet, Delta and Iceberg, written by Spark, read by Spark and by other programs."""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import polars as pl
import pytest
from connect import SUPPORT, run_connected
from drawing import draw, jpeg
from polars.testing import assert_frame_equal

import imgmatch_df
from imgmatch_df.errors import ArgumentError, ColumnError, MissingExtraError, StoreError

pytestmark = [
    pytest.mark.spark,
    # Of the packages themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::polars.exceptions.PolarsWarning", "ignore::UserWarning"),
]

FORMATS = ["parquet", "delta", "iceberg"]
KINDS = ("bmh1", "phash", "sha256")


class Lake:
    """A table of a format and images to hash."""

    def __init__(self, folder: Path, form: str, n: int = 24) -> None:
        self.folder, self.form = folder, form
        self.images = folder / "im ages"
        self.images.mkdir(parents=True)
        self.paths = [str(self.images / f"ü {number:03}.jpg") for number in range(n)]
        for number in range(n):
            self.draw(number, broken=number % 8 == 3)
        self.catalog = None
        self.target = str(folder / "ta[b]le")
        if form == "iceberg":
            self.target = "lake.hashes"
            self.catalog = {
                "type": "sql",
                "uri": f"sqlite:///{folder}/catalog.db",
                "warehouse": f"file://{folder}/ware house",
            }

    @property
    def named(self) -> dict:
        return {"format": self.form, "catalog": self.catalog}

    def begin(self) -> None:
        if self.form == "iceberg":
            from pyiceberg.catalog import load_catalog

            load_catalog("default", **self.catalog).create_namespace_if_not_exists("lake")

    def draw(self, number: int, *, broken: bool = False) -> None:
        Path(self.paths[number]).write_bytes(b"broken" if broken else jpeg(draw(number // 2, 60, 50)))

    def by_others(self) -> pl.DataFrame:
        """Return the table as programs without Spark read it."""
        if self.form == "parquet":
            return pl.read_parquet(self.target)
        if self.form == "delta":
            from deltalake import DeltaTable

            return pl.from_arrow(DeltaTable(self.target).to_pyarrow_table())
        from pyiceberg.catalog import load_catalog

        return pl.from_arrow(load_catalog("default", **self.catalog).load_table(self.target).scan().to_arrow())

    def files(self) -> dict[str, tuple[int, int]]:
        """Return inode and time of the Parquet files that are there."""
        root = self.folder / "ware house" if self.form == "iceberg" else Path(self.target)
        found = {str(one): one.stat() for one in root.rglob("*.parquet") if "/_imgmatch/" not in str(one)}
        return {name: (about.st_ino, about.st_mtime_ns) for name, about in found.items()}


@pytest.fixture(params=FORMATS)
def lake(request, tmp_path) -> Lake:
    made = Lake(tmp_path, request.param)
    made.begin()
    return made


def truth(paths: list[str], kinds=KINDS) -> pl.DataFrame:
    """The table that one machine would write."""
    hashed = imgmatch_df.visual_hash(pl.DataFrame({"source": paths}), "source", hash_types=kinds)
    columns = ["source", "width", "height", *kinds, "quality", "status", "detail"]
    return as_table(hashed.select(columns))


def as_table(frame: pl.DataFrame) -> pl.DataFrame:
    signed = [pl.col(name).imgmatch.to_int64() for name, dtype in frame.schema.items() if dtype == pl.UInt64]
    numbers = [pl.col(name).cast(pl.Int64) for name in ("width", "height", "quality")]
    return frame.with_columns(*signed, *numbers, pl.col("status").cast(pl.String)).sort("source")


def rows_of(spark, paths):
    return spark.createDataFrame([(one,) for one in paths], ["url"])


def read(spark, lake, **named) -> pl.DataFrame:
    import imgmatch_df.spark as ims

    return as_table(pl.from_arrow(ims.read_hashes(spark, lake.target, catalog=lake.catalog, **named).toArrow()))


def test_only_new_keys_are_hashed(spark, lake):
    import imgmatch_df.spark as ims

    first, wanted = lake.paths[:14], truth(lake.paths)
    done = ims.write_hashes(rows_of(spark, [*first, *first[:2]]), lake.target, rows_per_commit=5, **lake.named)
    assert (done.n_new, done.n_duplicates, done.n_failed) == (14, 2, 2)
    before = lake.files()
    for one in first:
        Path(one).unlink()  # hashed again, it would be missing
    again = ims.write_hashes(rows_of(spark, lake.paths), lake.target, catalog=lake.catalog)
    assert (again.n_new, again.n_skipped, again.n_failed, again.n_failed_before) == (10, 14, 3, 2)
    assert again.status == {"decode_failed": 3, "ok": 21}
    assert before.items() <= lake.files().items()
    # The same for Spark, for other programs, and for the verbs of one machine.
    assert_frame_equal(read(spark, lake), wanted)
    others = lake.by_others()
    assert_frame_equal(as_table(others), wanted, check_dtypes=False)
    pairs = others.sort("source").imgmatch.near_duplicates(4, "phash", id="source")
    assert_frame_equal(pairs, wanted.imgmatch.near_duplicates(4, "phash", id="source"), check_row_order=False)
    assert pairs.height >= 8
    # What failed is hashed again, and the rows beside it are not.
    for number in (3, 19):
        lake.draw(number)
    retried = ims.write_hashes(
        rows_of(spark, lake.paths), lake.target, catalog=lake.catalog, retry_failed=True, rows_per_commit=1
    )
    assert (retried.n_retried, retried.n_skipped, retried.n_failed) == (3, 21, 1)
    assert retried.status == {"ok": 23, "not_found": 1}
    fixed = read(spark, lake)
    assert_frame_equal(fixed.filter(pl.col("status") == "ok").drop("detail"), whole(lake, wanted))
    assert fixed.height == lake.by_others().height == 24
    # Nothing of the work is left.
    assert not list(lake.folder.rglob("pending"))
    assert not list(lake.folder.glob(".*"))


def whole(lake: Lake, wanted: pl.DataFrame) -> pl.DataFrame:
    """The rows of a table after images 3 and 19 were mended and 11 was lost."""
    mended = truth([lake.paths[3], lake.paths[19]])
    return pl.concat([wanted.filter(pl.col("status") == "ok"), mended]).sort("source").drop("detail")


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[5].split(os.pathsep)
from pathlib import Path
from conftest import start_session
import imgmatch_df.spark as ims
from test_tables import Lake, rows_of
from imgmatch_df.spark import delta_tables, iceberg_tables, parquet_tables, table_base

form, moment, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
lake = Lake.__new__(Lake)
lake.__dict__.update(eval(sys.argv[4]))
seen = 0

def killed(function, n):
    def call(*args, **named):
        global seen
        seen += 1
        if seen == n and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **named)
        if seen == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

if form == "parquet":
    from imgmatch_df.spark import tables
    tables._ROWS_PER_FILE = 3  # so that a commit has several files
    table_base.TableFolder.move = killed(table_base.TableFolder.move, 3)
elif form == "delta":
    import deltalake
    deltalake.DeltaTable.create_write_transaction = killed(deltalake.DeltaTable.create_write_transaction, 2)
else:
    from pyiceberg.table import Transaction
    Transaction.commit_transaction = killed(Transaction.commit_transaction, 2)
spark = start_session(folder, "local[2]")
ims.write_hashes(rows_of(spark, lake.paths), lake.target, rows_per_commit=6, **lake.named)
"""


@pytest.mark.parametrize(("form", "moment"), [("parquet", "before"), ("delta", "before"), ("iceberg", "after")])
def test_a_killed_driver_loses_one_step(spark, tmp_path, form, moment):
    import imgmatch_df.spark as ims

    lake = Lake(tmp_path, form)
    lake.begin()
    about = {**lake.__dict__, "folder": str(lake.folder), "images": str(lake.images)}
    places = f"{SUPPORT}:{Path(__file__).parent}"
    log = tmp_path / "log"  # a pipe stays open as long as a process of Spark lives
    with log.open("w") as out:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(KILLED), form, moment, str(tmp_path / "work"), repr(about), places],
            check=False, stdout=out, stderr=out, timeout=800,
        )  # fmt: skip
    assert done.returncode == -9, log.read_text()[-3000:]
    stored = read(spark, lake)["source"].to_list()
    assert 1 <= len(stored) < 24
    assert len(set(stored)) == len(stored)
    before = lake.files()
    for one in stored:
        Path(one).rename(f"{one}.hidden")
    again = ims.write_hashes(rows_of(spark, lake.paths), lake.target, rows_per_commit=6, **lake.named)
    assert (again.n_skipped, again.n_new) == (len(stored), 24 - len(stored))
    assert before.items() <= lake.files().items()
    for one in stored:
        Path(f"{one}.hidden").rename(one)
    assert_frame_equal(read(spark, lake), truth(lake.paths))
    assert_frame_equal(as_table(lake.by_others()), truth(lake.paths), check_dtypes=False)


@pytest.mark.parametrize("form", ["delta", "iceberg"])
def test_two_writers_store_each_key_once(spark, tmp_path, form, monkeypatch):
    import imgmatch_df.spark as ims
    from imgmatch_df.spark.delta_tables import DeltaTable
    from imgmatch_df.spark.iceberg_tables import IcebergTable

    lake = Lake(tmp_path, form, 12)
    lake.begin()
    ims.write_hashes(rows_of(spark, lake.paths[:2]), lake.target, **lake.named)
    kind = {"delta": DeltaTable, "iceberg": IcebergTable}[form]
    commit, others = kind.commit, []

    def late(table, added, replaced):
        if not others:  # the other writer commits after this one has hashed, before it commits
            others.append(None)
            others[0] = ims.write_hashes(rows_of(spark, lake.paths[:8]), lake.target, **lake.named)
        commit(table, added, replaced)

    monkeypatch.setattr(kind, "commit", late)
    done = ims.write_hashes(rows_of(spark, lake.paths[4:]), lake.target, **lake.named)
    assert (others[0].n_new, others[0].n_skipped) == (6, 2)
    assert (done.n_new, done.n_skipped, done.n_failed, done.n_failed_before) == (4, 4, 1, 0)
    assert_frame_equal(read(spark, lake), truth(lake.paths))
    # The same where both replace a row that failed.
    others.clear()
    lake.draw(3)

    def late_retry(table, added, replaced):
        if not others:
            others.append(None)
            others[0] = ims.write_hashes(rows_of(spark, lake.paths), lake.target, retry_failed=True, **lake.named)
        commit(table, added, replaced)

    monkeypatch.setattr(kind, "commit", late_retry)
    ims.write_hashes(rows_of(spark, lake.paths), lake.target, retry_failed=True, **lake.named)
    assert_frame_equal(read(spark, lake), truth(lake.paths))


def test_versions_and_partitions_of_delta_are_read(spark, tmp_path):
    import imgmatch_df.spark as ims

    target = str(tmp_path / "in put")
    days = pl.Series(["2026-01-01", "2026-01-02", None]).str.to_date()
    frame = pl.DataFrame({"part": ["a b", "c:d/e%", None], "day": days, "url": ["x", "y", "z"], "n": [1, 2, 3]})
    frame.write_delta(target, delta_write_options={"partition_by": ["part", "day"]})
    more = frame.with_columns(pl.col("n") + 10, extra=pl.lit("new"))
    more.write_delta(target, mode="append", delta_write_options={"schema_mode": "merge"})
    first = pl.from_arrow(ims.read_hashes(spark, target, version=0).toArrow())
    assert_frame_equal(first.sort("n"), frame)
    both = pl.from_arrow(ims.read_hashes(spark, target).toArrow())
    assert_frame_equal(both.sort("n"), pl.concat([frame, more], how="diagonal"), check_column_order=False)
    with pytest.raises(StoreError, match="cannot open the Delta table"):
        ims.read_hashes(spark, target, version=7)
    with pytest.raises(StoreError, match="without a record of how"):
        ims.write_hashes(both_as(spark, frame), target, key="url")
    # A table that maps its columns to other names.
    log = Path(target, "_delta_log", "00000000000000000000.json")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    for entry in entries:
        if "metaData" in entry:
            entry["metaData"]["configuration"]["delta.columnMapping.mode"] = "name"
    shutil.rmtree(Path(target, "_delta_log"))
    log.parent.mkdir()
    log.write_text("\n".join(map(json.dumps, entries)))
    with pytest.raises(StoreError, match=r"maps its columns|cannot open the Delta table"):
        ims.read_hashes(spark, target)


def both_as(spark, frame):
    return spark.createDataFrame(frame.select("url").rows(), ["url"])


def test_iceberg_tables_that_other_programs_changed(spark, tmp_path):
    from pyiceberg.catalog import load_catalog

    import imgmatch_df.spark as ims

    about = Lake(tmp_path, "iceberg", 1).catalog
    catalog = load_catalog("default", **about)
    catalog.create_namespace("lake")
    rows = pl.DataFrame({"url": ["a", "b"], "n": [1, 2]}).to_arrow()
    table = catalog.create_table("lake.urls", rows.schema)
    table.append(rows)
    first = table.current_snapshot().snapshot_id
    with table.update_schema() as update:
        from pyiceberg.types import StringType

        update.add_column("extra", StringType())
    table.append(pl.DataFrame({"url": ["c"], "n": [3], "extra": ["x"]}).to_arrow())
    found = pl.from_arrow(ims.read_hashes(spark, "lake.urls", catalog=catalog).toArrow()).sort("n")
    assert found.rows() == [("a", 1, None), ("b", 2, None), ("c", 3, "x")]
    found = pl.from_arrow(ims.read_hashes(spark, "lake.urls", catalog=about, version=first).toArrow()).sort("n")
    assert found.rows() == [("a", 1), ("b", 2)]
    with pytest.raises(ArgumentError, match="number of a snapshot"):
        ims.read_hashes(spark, "lake.urls", catalog=about, version=5)
    with table.update_schema() as update:
        update.rename_column("n", "number")
    with pytest.raises(StoreError, match="renamed"):
        ims.read_hashes(spark, "lake.urls", catalog=about)
    with pytest.raises(StoreError, match="no such namespace"):
        ims.write_hashes(rows_of(spark, ["x"]), "other.hashes", catalog=about)


def test_hashes_made_in_another_way_are_refused(spark, lake):
    import imgmatch_df.spark as ims

    rows = rows_of(spark, lake.paths[:2])
    ims.write_hashes(rows, lake.target, hash_types="phash", **lake.named)
    before = lake.files()
    for named, said in [
        ({"hash_types": "pdq"}, "hash_types is 'phash' in the store, 'pdq' in this call"),
        ({"decode": "scaled"}, "decode is 'full' in the store, 'scaled' in this call"),
        ({"trim": "borders"}, "trim is None"),
        ({"alpha": "white"}, "alpha is 'drop'"),
        ({"key": "url"}, "the key is 'source' in the store, 'url' in this call"),
    ]:
        with pytest.raises(StoreError, match=said):
            ims.write_hashes(rows, lake.target, catalog=lake.catalog, **named)
    assert lake.files() == before
    with pytest.raises(ArgumentError, match="format"):
        ims.write_hashes(rows, lake.target, catalog=lake.catalog, format="delta" if lake.form != "delta" else "parquet")
    if lake.form != "iceberg":
        with pytest.raises(StoreError, match="no such table"):
            ims.read_hashes(spark, f"{lake.target}-absent")


def test_hashes_that_a_frame_has_and_images_in_a_frame(spark, tmp_path):
    import imgmatch_df.spark as ims

    images = [jpeg(draw(number, 60, 50)) for number in range(4)]
    df = spark.createDataFrame([(7 * number, image) for number, image in enumerate(images)], ["id", "image"])
    done = ims.write_hashes(df, tmp_path / "made", source="image", key="id", hash_types=("phash", "local"))
    assert (done.n_new, done.n_failed) == (4, 0)
    made = ims.read_hashes(spark, tmp_path / "made")
    assert made.columns == ["id", "width", "height", "phash", "local", "quality", "status", "detail"]
    given = ims.write_hashes(made, tmp_path / "given", source=None, key="id", format="delta")
    assert given.n_new == 4
    copied = ims.read_hashes(spark, tmp_path / "given")
    same = [pl.from_arrow(one.select(*made.columns[:6]).toArrow()).sort("id") for one in (made, copied)]
    assert_frame_equal(*same)
    assert (
        same[0]["phash"].to_list()
        == imgmatch_df.visual_hash(pl.DataFrame({"image": images}), "image", hash_types="phash")["phash"]
        .imgmatch.to_int64()
        .to_list()
    )
    again = ims.write_hashes(made, tmp_path / "given", source=None)
    assert (again.n_new, again.n_skipped) == (0, 4)


def test_wrong_calls_are_refused_before_anything_is_made(spark, tmp_path, monkeypatch):
    import imgmatch_df.spark as ims

    df = spark.createDataFrame([("a", 1), (None, 2)], ["url", "n"])
    target = tmp_path / "no folder" / "t"
    for error, said, named in [
        (ArgumentError, "format must be 'parquet', 'delta', 'iceberg' or None, got 'lance'", {"format": "lance"}),
        (ArgumentError, "needs catalog=", {"format": "iceberg"}),
        (ArgumentError, "takes no catalog=", {"format": "delta", "catalog": "x"}),
        (ArgumentError, "rows_per_commit must be a whole number of at least 1, got 0", {"rows_per_commit": 0}),
        (ArgumentError, "retry_failed", {"retry_failed": "yes"}),
        (ArgumentError, "catalog must be", {"catalog": 7}),
        (ColumnError, "no column 'path'", {"source": "path"}),
        (ColumnError, "no column 'id'", {"key": "id"}),
        (ColumnError, "column 'n'", {"source": "n"}),
        (ArgumentError, "has no effect without source=", {"source": None, "timeout_s": 3}),
        (ColumnError, "no column 'bmh1'", {"source": None}),
    ]:
        with pytest.raises(error, match=said):
            ims.write_hashes(df, "a.b" if "catalog" in named else target, **named)
    for wrong in (None, "", 7):
        with pytest.raises(ArgumentError, match="target must be"):
            ims.write_hashes(df, wrong)
    with pytest.raises(ColumnError, match="the key 'source' is null in 1 rows"):
        ims.write_hashes(df, target)
    assert not list(target.parent.glob("t*"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for form in ("parquet", "delta"):
        with pytest.raises(StoreError, match="folder with other files"):
            ims.write_hashes(df.dropna().limit(1), tmp_path / "full", format=form)
    monkeypatch.setitem(sys.modules, "deltalake", None)
    monkeypatch.setitem(sys.modules, "pyiceberg.catalog", None)
    for named in ({"format": "delta"}, {"catalog": {"type": "sql"}}):
        with pytest.raises(MissingExtraError, match=r"imgmatch-df\[lakes\]"):
            ims.write_hashes(df.dropna().limit(1), "a.b" if "catalog" in named else tmp_path / "new", **named)


def test_connect_sessions_write_and_read_tables(tmp_path):
    lake = Lake(tmp_path, "delta", 10)
    said = run_connected(
        """
        import json
        import imgmatch_df.spark as ims
        from pathlib import Path
        folder = Path(sys.argv[1])
        paths = json.loads(sys.argv[2])
        df = spark.createDataFrame([(one,) for one in paths], ["url"])
        for target, form in ((folder / "p", "parquet"), (folder / "ta[b]le", "delta")):
            ims.write_hashes(df.limit(4), target, format=form)
            done = ims.write_hashes(df, target, rows_per_commit=3)
            (folder / "im ages" / paths[3]).write_bytes((folder / "im ages" / paths[2]).read_bytes())
            done = ims.write_hashes(df, target, retry_failed=True)
            found = ims.read_hashes(spark, target)
            print(done.n_retried, found.count(), found.filter("status = 'ok'").count())
            (folder / "im ages" / paths[3]).write_bytes(b"broken")
        """,
        tmp_path, json.dumps(lake.paths),
    )  # fmt: skip
    assert said.split("\n")[:2] == ["1 10 10"] * 2
    assert as_table(lake.by_others())["source"].to_list() == lake.paths
