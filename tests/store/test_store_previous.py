"""A store that the release before wrote: read, compared, continued and pruned as one of this release."""

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from previous_release import SCHEMA, kill_writer, write_store
from test_store import FORMS, random_hashes, summary

import imgmatch_df

COLUMNS = SCHEMA.names


def stamped(rows, day):
    """Give rows what the release before knew of their files; one of them failed, one was an address."""
    return rows.with_columns(
        phash=pl.when(pl.int_range(pl.len()) != 3).then("phash"),
        bmh1=pl.when(pl.int_range(pl.len()) != 3).then("bmh1"),
        status=pl.when(pl.int_range(pl.len()) == 3).then(pl.lit("decode_failed")).otherwise("status"),
        detail=pl.when(pl.int_range(pl.len()) == 3).then(pl.lit("truncated JPEG")),
        size=pl.when(pl.int_range(pl.len()) != 5).then(pl.lit(1000, pl.UInt64)),
        modified=pl.when(pl.int_range(pl.len()) != 5).then(
            pl.lit(f"2026-01-0{day}").str.to_datetime(time_unit="us", time_zone="UTC")
        ),
        etag=pl.when(pl.int_range(pl.len()) == 5).then(pl.lit('"v1"')),
    ).cast({"status": imgmatch_df.columns.STATUS_DTYPE})


@pytest.fixture(params=FORMS)
def store(request, tmp_path):
    return tmp_path / request.param


def test_it_is_read_and_compared(store):
    rows = stamped(random_hashes(300), 1)
    write_store(rows, store)
    found = imgmatch_df.read_hashes(store)
    assert found.columns == COLUMNS
    assert_frame_equal(found, rows.select(COLUMNS))
    assert imgmatch_df.scan_hashes(store).collect_schema() == found.schema
    same = store.with_name(f"same-{store.name}")
    imgmatch_df.write_hashes(rows, same)
    assert_frame_equal(rows.imgmatch.match(store, 8), rows.imgmatch.match(same, 8))
    assert_frame_equal(rows.imgmatch.cluster(8, reference=store), rows.imgmatch.cluster(8, reference=same))


def test_it_is_continued_and_pruned(store):
    old, new = stamped(random_hashes(300), 1), stamped(random_hashes(400, seed=1), 2)
    write_store(old, store)
    assert imgmatch_df.write_hashes(old, store) == summary(skipped=300, failed=1, failed_before=1)
    assert_frame_equal(imgmatch_df.read_hashes(store), old.select(COLUMNS))
    mixed = pl.concat([old[:100], new[100:200], new[350:]])
    assert imgmatch_df.write_hashes(mixed, store, prune=True) == summary(
        new=50, changed=100, skipped=100, failed=1, failed_before=1, pruned=100
    )
    assert_frame_equal(imgmatch_df.read_hashes(store), mixed.select(COLUMNS))
    again = imgmatch_df.write_hashes(mixed, store, prune=True, retry_failed=True)
    assert again == summary(retried=1, skipped=249, failed=1)
    said = "hash_types is 'bmh1, phash' in the store, 'phash' in this call"
    with pytest.raises(imgmatch_df.StoreError, match=said):
        imgmatch_df.write_hashes(new, store, hash_types="phash")


def test_what_its_killed_writer_committed_is_there(tmp_path):
    store, rows = tmp_path / "some.duckdb", stamped(random_hashes(400), 1)
    write_store(rows[:300], store)
    kill_writer(rows[300:], store)
    assert_frame_equal(imgmatch_df.read_hashes(store), rows.select(COLUMNS))
    assert imgmatch_df.write_hashes(rows, store) == summary(skipped=400, failed=1, failed_before=1)
    assert_frame_equal(imgmatch_df.read_hashes(store), rows.select(COLUMNS))
    assert [path.name for path in tmp_path.iterdir()] == ["some.duckdb"]


def test_its_macros_are_replaced(tmp_path):
    store, rows = tmp_path / "some.duckdb", stamped(random_hashes(20), 1)
    write_store(rows, store)
    imgmatch_df.write_hashes(rows, store)
    with duckdb.connect(str(store), read_only=True) as shell:
        assert shell.execute("SELECT to_bits(phash) FROM hashes LIMIT 1").fetchall() == [(f"{rows['phash'][0]:064b}",)]
        query = [rows["phash"][7]]
        assert shell.execute("SELECT source, distance FROM rank_images(?, 1)", query).fetchall() == [("7.jpg", 0)]
        assert shell.execute("SELECT count(*) FROM imgmatch_store WHERE name = 'macros'").fetchall() == [(1,)]
