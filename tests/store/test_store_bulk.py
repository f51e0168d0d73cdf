"""Many rows into a DuckDB store at once: in whole row groups, in a copy that no reader sees before it is whole."""

import os
import shutil

import duckdb
import numpy as np
import polars as pl
import pytest
import test_store_kills
from polars.testing import assert_frame_equal
from previous_release import kill_writer, write_store
from test_store import random_hashes, summary
from test_store_kills import ON_UNIX, WRITER, kill_and_resume, run, stamped
from test_store_reading import STEPS, check_after_a_kill

import imgmatch_df
from imgmatch_df import StoreError
from imgmatch_df.frames import chunks, writing
from imgmatch_df.store import duckdb as duckdb_store
from imgmatch_df.store import duckdb_bulk, duckdb_files, locks
from imgmatch_df.store.duckdb_files import log_of
from imgmatch_df.store.open import open_store

pytestmark = pytest.mark.long


@pytest.fixture
def small_groups(monkeypatch):
    """Row groups of 30 rows, in commits of 70."""
    monkeypatch.setattr(duckdb_store, "ROW_GROUP_ROWS", 30)
    for module in (writing, chunks):
        monkeypatch.setattr(module, "CHUNK_ROWS_OF_HASHES", 70)
    return monkeypatch


@pytest.fixture
def published(monkeypatch):
    """How many rows the file had each time after a private copy replaced it."""
    heights: list[int] = []
    publish = duckdb_files.Draft.publish

    def seen(draft):
        publish(draft)
        if not draft.shares_log:
            with duckdb.connect(str(draft._path), read_only=True) as shell:
                heights.extend(shell.execute("SELECT count(*) FROM hashes").fetchall()[0])

    monkeypatch.setattr(duckdb_files.Draft, "publish", seen)
    return heights


def whole(rows, schema):
    """Return rows with all columns of a store."""
    return rows.select(
        pl.col(name) if name in rows.columns else pl.lit(None, dtype).alias(name) for name, dtype in schema.items()
    )


def test_whole_row_groups_are_compressed_once_and_in_order(tmp_path, published):
    n = 2 * duckdb_bulk.ROW_GROUP_ROWS + 60_000
    phash = pl.Series("phash", np.random.default_rng(1).integers(0, 2**64, n, np.uint64))
    rows = pl.DataFrame({"source": pl.select(pl.format("{}.jpg", pl.int_range(n))).to_series(), "phash": phash})
    store = tmp_path / "some.duckdb"
    assert imgmatch_df.write_hashes(rows.lazy(), store) == summary(new=n)
    assert imgmatch_df.read_hashes(store).select("source", "phash").equals(rows)
    assert published == [n]
    with duckdb.connect(str(store), read_only=True) as shell:
        heights = shell.execute(
            "SELECT sum(count) FROM pragma_storage_info('hashes') WHERE column_name = 'phash' "
            "AND segment_type <> 'VALIDITY' GROUP BY row_group_id ORDER BY row_group_id"
        ).fetchall()
        assert heights == [(duckdb_bulk.ROW_GROUP_ROWS,)] * 2 + [(60_000,)]
        # What was compressed while it was inserted is not compressed again, which would leave free blocks.
        ((free,),) = shell.execute("SELECT sum(free_blocks) FROM pragma_database_size()").fetchall()
        assert free <= 4
    assert imgmatch_df.write_hashes(rows, store) == summary(skipped=n)
    assert [path.name for path in tmp_path.iterdir()] == ["some.duckdb"]


@pytest.mark.parametrize("publish_s", [0.0, 5.0])
def test_the_rows_are_those_of_a_parquet_store(tmp_path, small_groups, published, publish_s):
    small_groups.setattr(duckdb_store, "_PUBLISH_S", publish_s)
    small_groups.setattr(duckdb_store, "_PUBLISH_SHARE", 0.0)
    old, new = (stamped(random_hashes(250, seed), f"2026-01-0{seed}") for seed in (1, 2))
    # Rows as before, changed, as before but elsewhere, and new ones: in chunks of few and of many new rows.
    more = random_hashes(407, seed=3, start=250).with_columns(
        pl.lit(None, pl.UInt64).alias("size"), pl.lit(None, pl.Datetime("us", "UTC")).alias("modified")
    )
    mixed = pl.concat([old[:40], new[40:60], more[:10], old[100:150], more[10:]])
    stores = [tmp_path / "some.duckdb", tmp_path / "parts"]
    for rows in (old, mixed, mixed.reverse(), new):
        assert len({imgmatch_df.write_hashes(rows, store) for store in stores}) == 1
        found, wanted = map(imgmatch_df.read_hashes, stores)
        assert_frame_equal(found, wanted)
    assert len(published) > (5 if publish_s == 0 else 1)
    assert len({imgmatch_df.write_hashes(mixed, store, prune=True) for store in stores}) == 1
    assert_frame_equal(imgmatch_df.read_hashes(stores[0]), imgmatch_df.read_hashes(stores[1]))


def test_readers_see_nothing_of_it_before_it_is_whole(tmp_path, small_groups):
    store, rows = tmp_path / "some.duckdb", random_hashes(300)
    imgmatch_df.write_hashes(rows.head(20), store)
    given = imgmatch_df.read_hashes(store)
    more = whole(rows[20:], given.schema)
    with open_store(store, write=True) as opened:
        for part in more.iter_slices(50):
            opened.commit(part, part.clear())
            assert imgmatch_df.read_hashes(store).height == 20
            assert not log_of(store).exists()
        assert opened.count() == 20 + 280 // 30 * 30  # the others are in memory
        opened.flush()
        assert imgmatch_df.read_hashes(store).height == opened.count() == 300
        few = random_hashes(5, start=900)
        opened.commit(whole(few, given.schema), more.clear())
        assert log_of(store).exists()
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), pl.concat([rows, few]))


def test_what_a_killed_writer_left_in_the_log_comes_first(tmp_path, small_groups, published):
    store, rows = tmp_path / "some.duckdb", random_hashes(500)
    before = rows.with_columns(
        pl.lit(None, dtype).alias(name)
        for name, dtype in {"size": pl.UInt64, "modified": pl.Datetime("us", "UTC"), "etag": pl.String}.items()
    )
    write_store(before[:100], store)
    kill_writer(before[100:150], store)
    assert log_of(store).exists()
    assert imgmatch_df.write_hashes(rows, store) == summary(new=350, skipped=150)
    assert published[-1] == 500
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows)
    assert [path.name for path in tmp_path.iterdir()] == ["some.duckdb"]


def test_what_lies_there_at_any_step_is_whole(tmp_path, small_groups):
    rows = random_hashes(200)
    store = tmp_path / "store" / "some.duckdb"
    store.parent.mkdir()
    imgmatch_df.write_hashes(rows.head(20), store)
    n_copies = 0

    def copied(call):
        def copy_first(*arguments):
            nonlocal n_copies
            shutil.copytree(store.parent, tmp_path / f"copy{n_copies}")
            n_copies += 1
            return call(*arguments)

        return copy_first

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duckdb_store, "_PUBLISH_S", 0.0)
        patch.setattr(duckdb_store, "_PUBLISH_SHARE", 0.0)
        for name in STEPS:
            patch.setattr(duckdb_files, name, copied(getattr(duckdb_files, name)))
        imgmatch_df.write_hashes(rows, store)
    heights = [check_after_a_kill(tmp_path / f"copy{number}" / store.name, rows) for number in range(n_copies)]
    assert heights == sorted(heights)
    assert len(set(heights)) == 4


_BULK = WRITER.replace("20_000", "1 << 30").replace(
    "rows, target",
    "duckdb_store.ROW_GROUP_ROWS = 6\nduckdb_store._PUBLISH_S, duckdb_store._PUBLISH_SHARE = 0.0, 0.5\nrows, target",
)


@ON_UNIX
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_many_moments(tmp_path, monkeypatch):
    monkeypatch.setattr(test_store_kills, "WRITER", _BULK)
    old, new = stamped(random_hashes(200, seed=1), "2026-01-01"), stamped(random_hashes(500, 2, 50), "2026-01-02")
    rows = pl.concat([new.head(50), old.slice(100, 50), new.slice(100)])
    rows.write_parquet(tmp_path / "rows.parquet")
    kill_and_resume(tmp_path / "some.duckdb", old, rows, tmp_path / "rows.parquet", n_kills=5, seed=7)


@ON_UNIX
def test_killed_before_it_is_whole(tmp_path):
    rows, store = random_hashes(400), tmp_path / "store" / "some.duckdb"
    rows.write_parquet(tmp_path / "rows.parquet")
    store.parent.mkdir()
    imgmatch_df.write_hashes(rows.head(40), store)
    code = (
        _BULK.replace("0.0, 0.5", "99.0, 99.0")
        + """
import os
duckdb_store.DuckDBStore.flush = lambda _: os.kill(os.getpid(), 9)
imgmatch_df.write_hashes(rows, target)
"""
    )
    assert run(code, tmp_path / "rows.parquet", store, "").returncode == -9
    assert (store.parent / ".some.duckdb.draft").is_dir()
    assert check_after_a_kill(store, rows) == 40


def test_a_copy_that_cannot_replace_the_file_is_an_error(tmp_path, small_groups):
    store, rows = tmp_path / "some.duckdb", random_hashes(300)
    imgmatch_df.write_hashes(rows.head(20), store)
    before = store.read_bytes()

    def refuse(_):
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duckdb_files, "sync", refuse)
        with pytest.raises(StoreError, match=r"there is no room for .*some.duckdb"):
            imgmatch_df.write_hashes(rows, store)
    assert store.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["some.duckdb"]
    assert imgmatch_df.write_hashes(rows, store) == summary(new=280, skipped=20)
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows)


def test_after_an_error_no_row_is_behind_a_missing_one(tmp_path, small_groups):
    store, rows = tmp_path / "some.duckdb", random_hashes(300)
    imgmatch_df.write_hashes(rows.head(20), store)
    columns = imgmatch_df.scan_hashes(store).collect_schema()
    bad = whole(rows[20:], columns).with_columns(source=pl.when(pl.int_range(pl.len()) != 125).then("source"))
    with pytest.raises(StoreError, match="NOT NULL"), open_store(store, write=True) as opened:
        opened.commit(bad, bad.clear())
    found = imgmatch_df.read_hashes(store)
    assert_frame_equal(found.select(rows.columns), rows.head(20 + 120))  # the groups before the one with the null
    assert imgmatch_df.write_hashes(rows, store) == summary(new=160, skipped=140)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_run_goes_on(tmp_path, small_groups, error):
    store, rows = tmp_path / "some.duckdb", random_hashes(300)
    imgmatch_df.write_hashes(rows.head(20), store)
    append, calls = duckdb_store.append_row_groups, iter(range(9))

    def interrupted(connection, groups, *names):
        if next(calls) == 2:
            append(connection, iter([next(groups)]), *names)
            raise error
        append(connection, groups, *names)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duckdb_store, "append_row_groups", interrupted)
        with pytest.raises(error):
            imgmatch_df.write_hashes(rows, store)
    n_left = imgmatch_df.read_hashes(store).height
    assert n_left > 100
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows.head(n_left))
    assert imgmatch_df.write_hashes(rows, store) == summary(new=300 - n_left, skipped=n_left)
    assert [path.name for path in tmp_path.iterdir()] == ["some.duckdb"]


def test_without_hard_links_it_is_written_in_place(tmp_path, small_groups):
    def refuse(*_, **__):
        raise OSError(95, "Operation not supported")

    store, rows = tmp_path / "some.duckdb", random_hashes(300)
    small_groups.setattr(os, "link", refuse)
    assert imgmatch_df.write_hashes(rows, store) == summary(new=300)
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows)
    assert [path.name for path in tmp_path.iterdir()] == ["some.duckdb"]


def test_a_file_that_another_program_changed_is_not_replaced(tmp_path, small_groups, monkeypatch):
    monkeypatch.setattr(locks, "WAIT_S", 0.1)
    store, rows = tmp_path / "some.duckdb", random_hashes(300)
    imgmatch_df.write_hashes(rows.head(20), store)
    add = duckdb_store.append_row_groups

    def change_first(*arguments):
        os.utime(store, ns=(1, 1))
        add(*arguments)

    monkeypatch.setattr(duckdb_store, "append_row_groups", change_first)
    with pytest.raises(StoreError, match="another program, which has changed it"):
        imgmatch_df.write_hashes(rows, store)
    monkeypatch.undo()
    assert imgmatch_df.read_hashes(store).height == 20
