"""Rows of DuckDB stores: positions that a column hides, and the types in which they are read."""

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from test_store import random_hashes, summary

import imgmatch_df
from imgmatch_df.store import duckdb_repair
from imgmatch_df.store.duckdb import TABLE
from imgmatch_df.store.duckdb_files import Draft, reading


@pytest.mark.parametrize("key", ["rowid", "RowID"])
def test_a_key_that_is_named_as_the_positions_of_rows(tmp_path, key, monkeypatch):
    """DuckDB then has no positions: runs resume, rows change and are pruned, and a repair keeps all rows in order."""
    store, rows = tmp_path / "some.duckdb", random_hashes(40).rename({"source": key})
    imgmatch_df.write_hashes(rows.head(30), store, key=key)
    assert imgmatch_df.write_hashes(rows, store, key=key) == summary(new=10, skipped=30)
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows)
    left = rows.filter(pl.int_range(pl.len()) % 3 > 0)
    assert imgmatch_df.write_hashes(left, store, key=key, prune=True) == summary(skipped=left.height, pruned=14)
    monkeypatch.setattr(duckdb_repair, "MAX_COMMIT_ROWS", 7)
    draft = Draft(store)
    assert duckdb_repair._make_anew(draft, TABLE) == left.height
    draft.publish()
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), left)


def test_strings_are_read_as_views(tmp_path):
    """Other strings of one batch may have at most 2 GB together, and Polars copies them."""
    store = tmp_path / "some.duckdb"
    imgmatch_df.write_hashes(random_hashes(3), store)
    with reading(store) as connection:
        found = connection.sql(f"SELECT source FROM {TABLE}").to_arrow_reader()
        assert str(found.schema.field("source").type) == "string_view"
        found.close()
