"""Rows of a store that are looked up by key: in the order in which they are stored, and in any other."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from test_store import FORMS, random_hashes, summary

import imgmatch_df
from imgmatch_df.store.open import open_store

pytestmark = pytest.mark.long

N_STORED = 60


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Stores of each form of which some rows were deleted, so that DuckDB has gaps in its row numbers."""
    folder, rows = tmp_path_factory.mktemp("lookup"), random_hashes(N_STORED + 20)
    rows = rows.with_columns(source=pl.when(pl.int_range(pl.len()) == 5).then(pl.lit("")).otherwise("source"))
    found = []
    for form in FORMS:
        whole, pruned = folder / form, folder / f"pruned-{form}"
        imgmatch_df.write_hashes(rows[:N_STORED], whole)
        imgmatch_df.write_hashes(rows, pruned)
        imgmatch_df.write_hashes(pl.concat([rows[:30], rows[50:]]), pruned, prune=True)
        found += [whole, pruned]
    return rows, found


# Runs of rows, which may begin where the one before ended, with keys that are not stored in between.
RUNS = st.lists(st.tuples(st.none() | st.integers(0, 99), st.integers(0, 50), st.lists(st.integers(0, 50), max_size=2)))


@settings(max_examples=10)
@given(RUNS)
def test_rows_are_found_in_any_order(stores, runs):
    rows, found = stores
    keys, sequence, end = rows["source"].to_list() + [f"new{n}" for n in range(20)], [], 0
    for first, n_rows, moved in runs:
        start = end if first is None else first
        wanted = keys[start : start + n_rows]
        end = min(start + n_rows, len(keys))
        for place in moved:
            wanted.insert(place, wanted.pop() if wanted else keys[place])
        sequence.append(pl.Series("source", list(dict.fromkeys(wanted)), dtype=pl.String))
    for store in found:
        stored = imgmatch_df.read_hashes(store)
        with open_store(store) as opened:
            for wanted in sequence:
                for columns in (["source"], ["phash", "source", "status"], ["phash"]):
                    got = opened.stored(wanted, columns)
                    truth = stored.filter(pl.col("source").is_in(wanted.implode())).select(columns)
                    assert_frame_equal(got, truth, check_row_order=False)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", ["source", "number"])
def test_states_are_the_same_in_any_order(tmp_path, form, key):
    """Unchanged, changed and new rows, in order and mixed."""
    rows = random_hashes(60).with_columns(
        pl.int_range(60).alias("number"),
        size=pl.lit(7, pl.UInt64),
        modified=pl.lit("2026-01-01").str.to_datetime(time_unit="us", time_zone="UTC"),
    )
    store = tmp_path / form
    write = lambda frame, where=store: imgmatch_df.write_hashes(frame.drop("number" if key == "source" else "source"), where, key=key)  # noqa: E501, E731  # fmt: skip
    assert write(rows[:40]) == summary(new=40)
    assert write(rows[:40]) == summary(skipped=40)
    assert write(rows[:40].reverse()) == summary(skipped=40)
    assert write(rows[:45]) == summary(skipped=40, new=5)  # the new ones last
    assert write(pl.concat([rows[45:50], rows[:45]])) == summary(skipped=45, new=5)  # the new ones first
    assert write(rows[7:30]) == summary(skipped=23)
    changed = rows.with_columns(size=pl.when(pl.int_range(60) % 9 == 0).then(pl.lit(8, pl.UInt64)).otherwise("size"))
    assert write(changed[:50]) == summary(skipped=44, changed=6)
    assert write(pl.concat([changed[:50], changed[:50], changed[50:]])) == summary(skipped=50, new=10, duplicates=50)
    found = imgmatch_df.read_hashes(store)
    fresh = tmp_path / f"fresh-{form}"
    write(changed, fresh)
    assert_frame_equal(found.sort(key), imgmatch_df.read_hashes(fresh).sort(key))
