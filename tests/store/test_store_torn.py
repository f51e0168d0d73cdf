"""Torn and damaged blocks: readers leave them as they are, a writer repairs what it can check, and refuses the rest."""

import os
import random
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from previous_release import copy_store, kill_writer, write_duckdb
from test_store import random_hashes, summary

import imgmatch_df
from imgmatch_df import ImgMatchWarning, StoreError
from imgmatch_df.store import duckdb_files, duckdb_repair, locks
from imgmatch_df.store.duckdb_files import log_of

pytestmark = pytest.mark.long

ON_UNIX = pytest.mark.skipif(os.name == "nt", reason="uses locks of Unix")
FIRST_BLOCK = 12288  # after three headers


def torn_files(tmp_path, rows, n_bytes, sample):
    """Yield stores as DuckDB leaves them when it is killed in the middle of a block. Their logs have the last rows."""
    store = tmp_path / f"store{n_bytes}.duckdb"
    write_duckdb(rows[:-50], store, n_parts=7, default_block_size=n_bytes)  # so that there is metadata to write over
    kill_writer(rows[-50:], store, "in a checkpoint")
    after = store.read_bytes()
    before = Path(f"{store}.before").read_bytes().ljust(len(after), b"\0")
    assert before[:FIRST_BLOCK] == after[:FIRST_BLOCK]
    places = range(FIRST_BLOCK, len(after), n_bytes)
    changed = [at for at in places if before[at : at + n_bytes] != after[at : at + n_bytes]]
    rewritten = [at for at in metadata_blocks(Path(f"{store}.before"), n_bytes) if at in changed]
    cuts = [  # between two pages of memory, with something still to be written
        (at, cut)
        for at in rewritten
        for cut in range(at + 4096 - at % 4096, at + n_bytes, 4096)
        if before[cut : at + n_bytes] != after[cut : at + n_bytes]
    ]
    for number in range(sample):
        moments = random.Random(number)
        data = bytearray(before)
        at, cut = moments.choice(cuts)
        for other in moments.sample(changed, moments.randrange(len(changed))):  # those that were written before
            data[other : other + n_bytes] = after[other : other + n_bytes]
        data[at : at + n_bytes] = before[at : at + n_bytes]
        data[at:cut] = after[at:cut]
        folder = tmp_path / f"torn{n_bytes}-{number}"
        folder.mkdir()
        path = folder / "torn.duckdb"
        copy_store(f"{store}.before", path)
        path.write_bytes(data)
        yield path, at


def metadata_blocks(path, n_bytes):
    """Return where the blocks of metadata begin."""
    with duckdb.connect(str(path), read_only=True) as connection:
        found = connection.execute("SELECT block_id FROM pragma_metadata_info()").fetchall()
    return [FIRST_BLOCK + block * n_bytes for (block,) in found]


def said_of(path):
    """Return what DuckDB says of the rows of a file; None where it reads them all."""
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            connection.execute("SELECT * FROM hashes").fetchall()
    except duckdb.Error as error:
        return str(error)
    return None


def state_of(folder):
    """Return the names, the bytes and the times of all files of a folder."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@ON_UNIX
@pytest.mark.parametrize("n_bytes", [16384, 262144])
def test_a_torn_block_is_repaired_by_a_writer_alone(tmp_path, n_bytes):
    rows = random_hashes(400)
    more = pl.concat([rows, random_hashes(50, seed=1, start=400)])
    for path, at in torn_files(tmp_path, rows, n_bytes, sample=3):
        assert "does not match stored checksum" in (said_of(path) or "")
        check_without_log(path)
        before = state_of(path.parent)
        for call in (imgmatch_df.read_hashes, imgmatch_df.scan_hashes, lambda path: rows.imgmatch.match(path, 3)):
            with pytest.raises(StoreError, match=r"is damaged: .*\nHint: .*the next write_hashes or .* repairs it"):
                call(path)
        assert state_of(path.parent) == before
        with pytest.warns(ImgMatchWarning, match=r"torn blocks.* with its 400 rows.*\nHint: the blocks are kept in"):
            assert imgmatch_df.write_hashes(more, path) == summary(new=50, skipped=400)
        assert_frame_equal(imgmatch_df.read_hashes(path).select(rows.columns), more)
        assert said_of(path) is None
        saved = path.with_name(f"torn.duckdb.block-{at}.bak")
        assert saved.read_bytes() == before[path.name][0][at : at + n_bytes]
        assert {one.name for one in path.parent.iterdir()} == {path.name, saved.name}


def check_without_log(path):
    """Where no checkpoint was killed, a wrong checksum is damage, and is not hidden."""
    alone = path.parent.parent / "alone.duckdb"
    shutil.copy(path, alone)
    with pytest.raises(StoreError, match=r"cannot be used.*\nHint: if it is damaged"):
        imgmatch_df.read_hashes(alone)
    with pytest.raises(StoreError, match=r"cannot be used.*\nHint: if it is damaged"):
        imgmatch_df.write_hashes(random_hashes(3), alone)
    assert alone.read_bytes() == path.read_bytes()


@pytest.mark.slow
@ON_UNIX
def test_flipped_bits_are_not_made_into_other_rows(tmp_path):
    """Of a store with a log, any bit of any block: the rows are the same, or nothing is changed."""
    rows = random_hashes(400)
    store = tmp_path / "some.duckdb"
    write_duckdb(rows[:-50], store, n_parts=7, default_block_size=16384)
    kill_writer(rows[-50:], store)
    whole = store.read_bytes()
    outcomes = []
    moments = random.Random(0)
    metadata = metadata_blocks(store, 16384)
    for number in range(60):
        start = moments.choice(metadata) if number % 3 else FIRST_BLOCK
        end = start + 16384 if number % 3 else len(whole)
        at = moments.choice([place for place in range(start, end) if whole[place]])
        damaged = bytearray(whole)
        damaged[at] ^= 1 << moments.randrange(8)
        folder = tmp_path / f"flip{number}"
        folder.mkdir()
        path = folder / "flipped.duckdb"
        copy_store(store, path)
        path.write_bytes(damaged)
        before = state_of(folder)
        outcomes.append(outcome_of(path, rows))
        if outcomes[-1] == "refused":  # the log may have got more: macros, and the mark of a checkpoint that failed
            assert path.read_bytes() == damaged
            assert log_of(path).read_bytes().startswith(before[log_of(path).name][0])
    assert set(outcomes) >= {"refused", "repaired"}, outcomes


def outcome_of(path, rows):
    """Read a store and continue it, and return what became of it. Whatever it is, no other rows are read."""
    before = state_of(path.parent)
    found = rows_of(path)
    assert state_of(path.parent) == before
    with warnings.catch_warnings(record=True, action="always") as warned:
        try:
            imgmatch_df.write_hashes(rows, path)
        except StoreError as error:
            said = str(error)
        else:
            said = ""
    if said:
        assert found is None
        assert "\nHint: " in said
        assert not warned
        return "refused"
    again = rows_of(path)
    if found is not None:
        assert_frame_equal(found, rows)
        assert not warned
        assert_frame_equal(again, rows)
        return "whole"
    assert all(one.category is ImgMatchWarning for one in warned)
    if again is None:  # a block of hashes, which a run that finds all keys does not read
        return "still refused"
    assert "torn blocks" in str(warned[0].message)
    assert_frame_equal(again, rows)
    return "repaired"


def rows_of(path):
    """Return the rows of a store; None where it is refused."""
    try:
        return imgmatch_df.read_hashes(path).select(random_hashes(1).columns)
    except StoreError:
        return None


@ON_UNIX
def test_a_torn_block_is_left_alone_while_another_has_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "WAIT_S", 0.0)
    rows = random_hashes(400)
    path, _ = next(torn_files(tmp_path, rows, 262144, sample=1))
    before = state_of(path.parent)
    lock = (
        "import fcntl, sys\nfile = open(sys.argv[1], 'rb+')\nfcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print('ready', flush=True)\nsys.stdin.readline()"
    )
    command = [sys.executable, "-c", lock, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "ready\n"
        for call in (imgmatch_df.read_hashes, lambda path: imgmatch_df.write_hashes(rows, path)):
            with pytest.raises(StoreError, match="in use by"):
                call(path)
        assert state_of(path.parent) == before
        holder.communicate("\n")
    with pytest.warns(ImgMatchWarning, match="torn blocks"):
        assert imgmatch_df.write_hashes(rows, path) == summary(skipped=400)


@ON_UNIX
def test_a_repair_that_is_interrupted_is_made_again(tmp_path, monkeypatch):
    rows = random_hashes(400)
    moments = [(duckdb_repair, "_save"), (duckdb_files.Draft, "publish"), (duckdb_files, "sync")]
    for (path, _), moment in zip(torn_files(tmp_path, rows, 262144, sample=3), moments, strict=True):
        with monkeypatch.context() as patch:
            patch.setattr(*moment, interrupt)
            with pytest.raises(KeyboardInterrupt):
                imgmatch_df.write_hashes(rows, path)
        with pytest.raises(StoreError, match="is damaged"):
            imgmatch_df.read_hashes(path)
        with pytest.warns(ImgMatchWarning, match="torn blocks"):
            assert imgmatch_df.write_hashes(rows, path) == summary(skipped=400)
        assert_frame_equal(imgmatch_df.read_hashes(path).select(rows.columns), rows)


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_the_log_of_a_file_that_was_removed(tmp_path):
    """A writer that was killed before its log was gone, and a user who removed the file: a new store begins."""
    for older in (random_hashes(5), random_hashes(50)):
        store = tmp_path / "store.duckdb"
        imgmatch_df.write_hashes(older.clear(), store)
        kill_writer(older, store)
        assert log_of(store).stat().st_size > 0
        store.unlink()
        rows = random_hashes(20, seed=1)
        assert imgmatch_df.write_hashes(rows, store) == summary(new=20)
        assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows)
        assert not log_of(store).exists()
        store.unlink()
