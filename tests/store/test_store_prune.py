"""What a run leaves alone: rows of a frame that is not whole, and the settings of others."""

import os
import shutil
import threading

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from test_store import FORMS, random_hashes, summary
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df import ArgumentError, StoreError, incomplete
from imgmatch_df.cli.app import app
from imgmatch_df.frames import chunks
from imgmatch_df.frames.seen import SeenKeys


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A folder with a store of each form, to be copied."""
    folder = tmp_path_factory.mktemp("stores")
    for form in FORMS:
        imgmatch_df.write_hashes(random_hashes(100), folder / form)
    return folder


@pytest.fixture(params=FORMS)
def store(request, stores, tmp_path):
    """A store of a hundred rows."""
    made = stores / request.param
    return (shutil.copytree if made.is_dir() else shutil.copy2)(made, tmp_path / request.param)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("n_left", "n_new", "is_refused"), [
    (100, 5, False), (51, 0, False), (50, 0, False), (49, 0, True), (1, 500, True), (0, 0, True), (0, 9, True),
])  # fmt: skip
def test_pruning_more_than_half_is_refused(store, lazy, n_left, n_new, is_refused):
    frame = pl.concat([random_hashes(100).head(n_left), random_hashes(n_new, seed=1, start=100)])
    given_frame = frame.lazy() if lazy else frame
    before = imgmatch_df.read_hashes(store)
    if is_refused:
        with pytest.raises(
            StoreError,
            match=f"prune=True would drop {100 - n_left} of the 100 rows .*: the frame has {n_left + n_new} rows\n"
            "Hint: .*prune='all' drops them all the same",
        ):
            imgmatch_df.write_hashes(given_frame, store, prune=True)
        found = imgmatch_df.read_hashes(store)
        assert_frame_equal(found.head(100), before)
        assert found.height == (100 + n_new if lazy else 100)
        imgmatch_df.write_hashes(given_frame, store, prune="all")
    else:
        done = imgmatch_df.write_hashes(given_frame, store, prune=True)
        assert done == summary(new=n_new, skipped=n_left, pruned=100 - n_left)
    assert_frame_equal(imgmatch_df.read_hashes(store).select(frame.columns), frame)


@pytest.mark.parametrize("lazy", [False, True])
def test_an_empty_store_is_pruned_by_an_empty_frame(tmp_path, lazy):
    empty = random_hashes(0)
    done = imgmatch_df.write_hashes(empty.lazy() if lazy else empty, tmp_path / "some.duckdb", prune=True)
    assert done == summary()


@pytest.mark.parametrize("prune", ["half", "All", 1, None, ["all"]])
def test_what_prune_may_be(store, prune):
    with pytest.raises(ArgumentError, match=r"prune must be .*, got .*\nHint: .*'all'"):
        imgmatch_df.write_hashes(random_hashes(100), store, prune=prune)


def test_an_emptied_folder_prunes_nothing(folder, tmp_path_factory):
    store = tmp_path_factory.mktemp("out") / "some.duckdb"
    photos = imgmatch_df.scan_images(folder)
    imgmatch_df.write_hashes(photos, store, source="path")
    for path in folder.glob("*.jpg"):
        path.unlink()
    with pytest.raises(StoreError, match="would drop 40 of the 40 rows"):
        photos.imgmatch.sink_hashes(store, source="path", prune=True)
    assert imgmatch_df.read_hashes(store).height == 40
    assert photos.imgmatch.sink_hashes(store, source="path", prune="all") == summary(pruned=40)


def test_a_listing_that_is_not_whole_prunes_nothing(store, monkeypatch):
    frame = random_hashes(90)

    def listed(column):
        incomplete.note_unlisted()
        return column

    lazy = frame.lazy().with_columns(pl.col("source").map_batches(listed, return_dtype=pl.String))
    with pytest.raises(StoreError, match=r"could not all be listed\nHint: .*prune='all'"):
        imgmatch_df.write_hashes(lazy, store, prune=True)
    assert imgmatch_df.read_hashes(store).height == 100
    assert imgmatch_df.write_hashes(lazy, store, prune="all") == summary(skipped=90, pruned=10)


def test_a_folder_that_cannot_be_listed_is_counted(folder, lock):
    (folder / "deep").mkdir()
    unlock = lock(folder / "deep")
    before = incomplete.n_unlisted()
    with pytest.warns(UserWarning, match="cannot list"):
        imgmatch_df.scan_images(folder).collect()
    assert incomplete.n_unlisted() == before + 1
    unlock()


def test_the_command_line_prunes_at_most_half(folder, tmp_path_factory):
    store = tmp_path_factory.mktemp("out") / "some.duckdb"

    def call(*words):
        return CliRunner().invoke(app, ["visual-hash", str(folder), "-o", str(store), *words])

    assert call().exit_code == 0
    for path in sorted(folder.glob("*.jpg"))[:30]:
        path.unlink()
    refused = call("--prune")
    assert refused.exit_code == 2
    assert "prune=True would drop 30 of the 40 rows" in refused.stderr
    assert "30 pruned" in call("--prune-all").stdout
    refused = CliRunner().invoke(app, ["visual-hash", str(folder), "-o", "x.csv", "--prune-all"])
    assert "--prune-all is only for stores" in refused.stderr


@pytest.mark.parametrize("hashes_itself", [True, False])
def test_settings_of_others_are_left_alone(tmp_path, hashes_itself):
    """Settings made by another thread while a run reads its frame are there afterwards, all of them."""
    names = ["POLARS_FMT_MAX_ROWS", *chunks._MORSEL_VARIABLES]
    before = {name: os.environ.pop(name, None) for name in names}

    def change(column):
        def set_rows():
            pl.Config.set_tbl_rows(77)

        thread = threading.Thread(target=set_rows)
        thread.start()
        thread.join()
        return column

    try:
        frame = random_hashes(50).lazy().with_columns(pl.col("source").map_batches(change, return_dtype=pl.String))
        if hashes_itself:
            imgmatch_df.write_hashes(frame, tmp_path / "some.duckdb")
        else:
            imgmatch_df.write_hashes(frame.select("source"), tmp_path / "some.duckdb", source="source")
        assert os.environ["POLARS_FMT_MAX_ROWS"] == "77"
        assert not set(chunks._MORSEL_VARIABLES) & set(os.environ)
        pl.Config.set_streaming_chunk_size(1234)
        imgmatch_df.write_hashes(frame, tmp_path / "other.duckdb")
        assert "1234" in [os.environ.get(name) for name in chunks._MORSEL_VARIABLES]
    finally:
        pl.Config.set_streaming_chunk_size(None)
        pl.Config.set_tbl_rows(None)
        os.environ |= {name: value for name, value in before.items() if value is not None}


def test_large_rows_are_taken_a_few_at_a_time():
    frame = pl.DataFrame({"image": [bytes(1 << 16)] * 100})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "_CHUNK_BYTES", 10 << 16)
        for given_frame in (frame, frame.lazy()):
            parts = list(chunks.chunks_of(given_frame, hashes=False))
            assert pl.concat(parts).equals(frame)
            assert 8 <= max(part.height for part in parts) <= 12
    small = pl.DataFrame({"image": [b"small"] * 5000})
    assert [part.height for part in chunks.chunks_of(small, hashes=False)] == [5000]


@given(st.lists(st.lists(st.integers(-5, 40), max_size=30), max_size=8), st.booleans(), st.booleans())
def test_seen_keys_equal_a_set(parts, as_text, with_collisions):
    dtype = pl.String if as_text else pl.Int64
    seen, truth = SeenKeys(dtype), set()
    with pytest.MonkeyPatch.context() as patch:
        if with_collisions:
            patch.setattr(
                "imgmatch_df.frames.seen.digests_of", lambda keys: (keys.cast(pl.Int64).to_numpy() % 3).astype("u8")
            )
        for part in parts:
            keys = pl.Series(part, dtype=pl.Int64).unique(maintain_order=True).cast(dtype)
            assert seen.find(keys).to_list() == [key in truth for key in keys]
            seen.add(keys.filter(~seen.find(keys)))
            truth |= set(keys)
    assert sorted(seen.keys) == sorted(truth)
