"""What may happen to a store: killed writers, torn files, full disks, other writers, foreign and damaged files."""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import duckdb
import polars as pl
import pytest
from drawing import draw, jpeg
from polars.testing import assert_frame_equal
from test_store import FORMS, random_hashes, summary

import imgmatch_df
from imgmatch_df import StoreError
from imgmatch_df.frames import writing
from imgmatch_df.options import Recipe
from imgmatch_df.store import locks, manifest
from imgmatch_df.store.open import open_store

pytestmark = pytest.mark.long

ON_UNIX = pytest.mark.skipif(os.name == "nt", reason="uses signals and limits of Unix")

# Commits of a few rows, checkpoints after some of them, parts of some dozens: so that a kill hits each of them.
WRITER = """
import sys
import polars as pl
import imgmatch_df
from imgmatch_df.frames import chunks, writing as storing
from imgmatch_df.store import duckdb as duckdb_store, parquet as parquet_store
storing.CHUNK_ROWS_OF_HASHES = chunks.CHUNK_ROWS_OF_HASHES = 16
storing._BATCH_ROWS = 8
parquet_store._COMMIT_S = parquet_store._COMMIT_SHARE = 0.0
parquet_store._PART_ROWS = 150
duckdb_store._MIN_LOG_BYTES = duckdb_store._MAX_LOG_BYTES = 20_000
rows, target, source = pl.read_parquet(sys.argv[1]), sys.argv[2], sys.argv[3] or None
if source:
    imgmatch_df.visual_hash(pl.DataFrame({"url": ["nothing.jpg"]}))
    from imgmatch_df.hashes import bmh1, phash
"""
RUN = """
print("ready", flush=True)
sys.stdin.readline()
print(imgmatch_df.write_hashes(rows, target, source=source, prune=True))
"""


@contextmanager
def child(code, *arguments):
    """Start a process that does `code`, and wait until it says that it is ready."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def run(code, *arguments):
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, input="\n")


def stamped(rows, day):
    """Give rows the fingerprint of files of that day."""
    return rows.with_columns(
        size=pl.lit(1000, pl.UInt64), modified=pl.lit(day).str.to_datetime(time_unit="us", time_zone="UTC")
    )


@pytest.fixture
def album(tmp_path):
    """Rows to write into a store that has some of them, some others, and some that are to go."""
    old = stamped(random_hashes(200, seed=1), "2026-01-01")
    new = stamped(random_hashes(500, seed=2, start=50), "2026-01-02")
    same = old.slice(100, 50)
    rows = pl.concat([new.head(50), same, new.slice(100)])
    rows.write_parquet(tmp_path / "rows.parquet")
    return old, rows


def finished(store, old, rows):
    """Return the rows of a store that nobody disturbed."""
    calm = store.with_name(f"calm-{store.name}")
    imgmatch_df.write_hashes(old, calm)
    imgmatch_df.write_hashes(rows, calm, prune=True)
    return imgmatch_df.read_hashes(calm)


def check_between(store, old, new):
    """A store, after a kill: it opens, no key is there twice, each row is whole: the old or the new one."""
    found = imgmatch_df.read_hashes(store)
    assert found["source"].is_unique().all()
    known = pl.concat([old, new]).unique()
    assert found.join(known, on=old.columns, how="anti", nulls_equal=True).is_empty()
    # What was there before is there still: nothing is pruned before the last row is stored.
    if found.height < len(set(old["source"]) | set(new["source"])):
        lost = old.join(found, on="source", how="anti")
        assert lost.is_empty() or set(found["source"]) >= set(new["source"])


def kill_and_resume(store, old, rows, table, n_kills, seed):
    wanted = finished(store, old, rows)
    before = store.with_name(f"before-{store.name}")
    imgmatch_df.write_hashes(old, before)
    copy = shutil.copytree if before.is_dir() else shutil.copy
    copy(before, store)
    columns = [name for name in rows.columns if name in wanted.columns]
    old, new = (frame.select(columns) for frame in (old, rows))
    moments = random.Random(seed)
    with child(WRITER + RUN, table, store, "") as process:
        started = time.monotonic()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait() == 0
        takes_s = time.monotonic() - started
    assert_frame_equal(imgmatch_df.read_hashes(store), wanted)
    n_killed = n_done = 0
    clear = True
    while n_killed < n_kills:
        if clear:
            shutil.rmtree(store) if store.is_dir() else store.unlink()
            copy(before, store)
        with child(WRITER + RUN, table, store, "") as process:
            process.stdin.write("\n")
            process.stdin.flush()
            time.sleep(moments.uniform(0, takes_s * 1.1))
            process.send_signal(signal.SIGKILL)
            clear = process.wait() == 0
        n_killed, n_done = n_killed + (not clear), n_done + clear
        takes_s *= 0.8 if clear else 1  # the first run may have been slower than the others
        if clear:
            assert_frame_equal(imgmatch_df.read_hashes(store), wanted)
        else:
            check_between(store, old, new)
            clear = moments.random() < 0.2  # else the next one goes on
            if clear:
                imgmatch_df.write_hashes(rows, store, prune=True)
                assert_frame_equal(imgmatch_df.read_hashes(store), wanted)
        assert n_done < 10 * n_kills + 10
    imgmatch_df.write_hashes(rows, store, prune=True)
    assert_frame_equal(imgmatch_df.read_hashes(store), wanted)
    assert {path.name for path in store.parent.iterdir() if not path.name.startswith("rows")} == {
        store.name,
        before.name,
        f"calm-{store.name}",
    }


@ON_UNIX
@pytest.mark.parametrize("form", FORMS[:1])  # the others below, at more moments
def test_killed_and_resumed(tmp_path, album, form):
    kill_and_resume(tmp_path / form, *album, tmp_path / "rows.parquet", n_kills=2, seed=form)


@ON_UNIX
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", FORMS)
def test_killed_at_many_moments(tmp_path, album, form):
    n_kills = 10 if form == FORMS[0] else 5
    kill_and_resume(tmp_path / form, *album, tmp_path / "rows.parquet", n_kills=n_kills, seed=50)


@ON_UNIX
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", FORMS)
def test_killed_while_it_hashes(tmp_path, form):
    """The same with pictures, from a store that is not there yet."""
    (tmp_path / "photos").mkdir()
    for seed in range(150):
        (tmp_path / "photos" / f"{seed:03}.jpg").write_bytes(jpeg(draw(seed)))
    rows = imgmatch_df.scan_images(tmp_path / "photos").collect()
    rows.write_parquet(tmp_path / "rows.parquet")
    store = tmp_path / form
    wanted = rows.imgmatch.visual_hash("path").rename({"path": "source"})
    moments = random.Random(form)
    n_killed = 0
    while n_killed < 4:
        with child(WRITER + RUN, tmp_path / "rows.parquet", store, "path") as process:
            process.stdin.write("\n")
            process.stdin.flush()
            time.sleep(moments.uniform(0, 0.4))
            process.kill()
            n_killed += process.wait() != 0
        if store.exists() and (store.is_file() or any(store.iterdir())):
            found = imgmatch_df.read_hashes(store)
            assert_frame_equal(found.select(wanted.columns), wanted.head(found.height))
            if found.height == wanted.height:
                shutil.rmtree(store) if store.is_dir() else store.unlink()
    imgmatch_df.write_hashes(rows, store, source="path")
    assert_frame_equal(imgmatch_df.read_hashes(store).select(wanted.columns), wanted)


@ON_UNIX
@pytest.mark.slow
def test_a_torn_log_is_read_as_far_as_it_is_whole(tmp_path, album):
    """As after a power cut: whatever of the log was on disk, the file opens and holds whole batches."""
    _, rows = album
    code = WRITER.replace("20_000", "1 << 30") + (
        "\nimport os\nwith storing.open_store(target) as store:\n    pass\n"
        "finish = storing._WriteRun.finish\n"
        "def kill(*_, **__):\n    os.kill(os.getpid(), 9)\n"
        "storing._WriteRun.finish = kill\n" + RUN
    )
    store = tmp_path / "some.duckdb"
    imgmatch_df.write_hashes(rows.clear(), store)
    rows.head(192).write_parquet(tmp_path / "part.parquet")
    assert run(code, tmp_path / "part.parquet", store, "").returncode == -signal.SIGKILL
    log = tmp_path / "some.duckdb.wal"
    whole = log.read_bytes()
    heights = set()
    for n_bytes in sorted(random.Random(0).sample(range(len(whole)), 12)):
        torn = tmp_path / f"torn{n_bytes}.duckdb"
        shutil.copy(store, torn)
        torn.with_name(f"{torn.name}.wal").write_bytes(whole[:n_bytes])
        found = imgmatch_df.read_hashes(torn)
        assert_frame_equal(found.select(rows.columns), rows.head(found.height))
        assert found.height % 16 == 0
        heights.add(found.height)
        assert imgmatch_df.write_hashes(rows, torn).n_new == rows.height - found.height
        assert_frame_equal(imgmatch_df.read_hashes(torn).select(rows.columns), rows)
    assert len(heights) > 4
    assert imgmatch_df.read_hashes(store).height == 192


FULL = """
import imgmatch_df
try:
    imgmatch_df.write_hashes(rows, target)
except imgmatch_df.StoreError as error:
    print(error)
else:
    print("all written")
"""


@ON_UNIX
@pytest.mark.parametrize("form", FORMS)
def test_a_full_disk(tmp_path, form):
    """No file may grow beyond a limit, as on a disk with a quota."""
    random_hashes(20_000).write_parquet(tmp_path / "rows.parquet")
    store = tmp_path / form
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, 1_200_000))\n"
    code = WRITER.replace("= 16\n", "= 1000\n").replace("= 150", "= 100_000").replace("20_000", "300_000")
    said = run(code + limit + FULL, tmp_path / "rows.parquet", store, "")
    check_full(said, store, tmp_path / "rows.parquet")


@ON_UNIX
@pytest.mark.parametrize("form", FORMS)
def test_a_full_file_system(tmp_path, form):
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        not shutil.which("mount")
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True).returncode
    ):
        pytest.skip("mounting a small file system is not allowed here")
    try:
        random_hashes(20_000).write_parquet(tmp_path / "rows.parquet")
        code = WRITER.replace("= 16\n", "= 1000\n").replace("= 150", "= 100_000").replace("20_000", "300_000")
        said = run(code + FULL, tmp_path / "rows.parquet", disk / form, "")
        shutil.copytree(disk, tmp_path / "roomy")
    finally:
        subprocess.run(["umount", disk], check=True)
    check_full(said, tmp_path / "roomy" / form, tmp_path / "rows.parquet")


def check_full(said, store, table):
    rows = pl.read_parquet(table)
    assert said.returncode == 0, said.stderr
    assert "Hint: " in said.stdout, said.stdout
    assert "there is no room for" in said.stdout, said.stdout
    assert "continues where it stopped" in said.stdout, said.stdout
    assert "Traceback" not in said.stderr
    found = imgmatch_df.read_hashes(store)
    assert 0 < found.height < 20_000
    assert_frame_equal(found.select(rows.columns), rows.head(found.height))
    assert imgmatch_df.write_hashes(rows, store) == summary(new=20_000 - found.height, skipped=found.height)
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows)
    left = {path.name for path in store.parent.iterdir()}
    assert left <= {store.name, "rows.parquet", "disk", "roomy"}


@ON_UNIX
@pytest.mark.parametrize("form", FORMS)
def test_a_folder_that_may_not_be_written(form):
    """Readers need no permission to write; a writer is told."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = random_hashes(20)
        imgmatch_df.write_hashes(rows.head(10), folder / form)
        rows.write_parquet(folder / "rows.parquet")
        for path in sorted(folder.rglob("*"), reverse=True):
            path.chmod(0o555 if path.is_dir() else 0o444)
        folder.chmod(0o555)
        warm = "import tempfile\nwith tempfile.TemporaryDirectory() as folder:\n    "
        warm += f"imgmatch_df.write_hashes(rows, folder + '/{form}')\n"  # imports what it needs
        code = WRITER + warm + "import os\nif os.getuid() == 0:\n    os.setuid(65534)\n"
        code += "print(imgmatch_df.read_hashes(target).height)\n" + FULL
        code += "\ntarget = target.replace('" + form + "', 'new-" + form + "')" + FULL
        said = run(code, folder / "rows.parquet", folder / form, "")
        folder.chmod(0o755)
        for path in folder.rglob("*"):
            path.chmod(0o755)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("10\n")
    assert said.stdout.count("Hint: ") == 2, said.stdout
    assert "all written" not in said.stdout


HOLD = """
with storing.open_store(target, write=True) as store:
    print("ready", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def no_wait(monkeypatch):
    """A store that is in use is waited for no longer than it takes to see that it is."""
    monkeypatch.setattr(locks, "WAIT_S", 0.0)


@pytest.mark.parametrize("form", FORMS)
def test_a_second_writer_is_told(tmp_path, form, no_wait):
    store, rows = tmp_path / form, random_hashes(30)
    rows.write_parquet(tmp_path / "rows.parquet")
    imgmatch_df.write_hashes(rows.head(10), store)
    with child(WRITER + HOLD, tmp_path / "rows.parquet", store, ""):
        with pytest.raises(StoreError, match=r"in use by .*process.*\nHint: one writer at a time"):
            imgmatch_df.write_hashes(rows, store)
        assert imgmatch_df.read_hashes(store).height == 10
    # The holder was killed: its lock went with it.
    assert imgmatch_df.write_hashes(rows, store) == summary(new=20, skipped=10)


@pytest.mark.parametrize("form", FORMS)
def test_a_second_writer_in_this_process(tmp_path, form, monkeypatch):
    store, rows = tmp_path / form, random_hashes(30)
    imgmatch_df.write_hashes(rows.head(10), store)
    with monkeypatch.context() as patch:
        patch.setattr(locks, "WAIT_S", 0.0)
        with open_store(store, write=True), pytest.raises(StoreError, match=r"in use by .*this process"):
            imgmatch_df.write_hashes(rows, store)
        if form == "hashes.duckdb":
            # A connection that may write is not ours: what it does in the file would be lost.
            with duckdb.connect(str(store)), pytest.raises(StoreError, match="connection of this process"):
                imgmatch_df.write_hashes(rows, store)
    # Ten threads at once: each waits for the one before, and nothing is there twice.
    outcomes = []

    def write():
        outcomes.append(imgmatch_df.write_hashes(rows, store))

    threads = [threading.Thread(target=write) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome.n_new for outcome in outcomes) == [0] * 9 + [20]
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows)


def test_two_may_make_a_store_at_once(tmp_path):
    rows = random_hashes(10)
    rows.write_parquet(tmp_path / "rows.parquet")
    for form in FORMS:
        about = manifest.Manifest.make("source", pl.String(), ("bmh1", "phash"), Recipe(), has_source=False)
        for _ in range(2):
            writing.make_store(tmp_path / form, about)
        assert imgmatch_df.read_hashes(tmp_path / form).height == 0


def damaged_files(tmp_path):
    """Yield files that are no stores, by name."""
    rows = random_hashes(500)
    for form in ("good.duckdb", "good.parquet"):
        imgmatch_df.write_hashes(rows, tmp_path / form)
        data = (tmp_path / form).read_bytes()
        suffix = Path(form).suffix
        for name, content in {
            "empty": b"",
            "text": b"name,phash\na.jpg,7\n" * 2000,
            "picture": jpeg(draw(1)),
            "short": data[:100],
            "cut": data[: len(data) // 2],
            "less": data[:-40],
            "headless": bytes(4096) + data[4096:],
        }.items():
            (tmp_path / f"{name}{suffix}").write_bytes(content)
            yield f"{name}{suffix}"
    with duckdb.connect(str(tmp_path / "foreign.duckdb")) as connection:
        connection.execute("CREATE TABLE hashes AS SELECT 'a' AS source, 7 AS phash")
    rows.write_parquet(tmp_path / "foreign.parquet")
    (tmp_path / "foreign").mkdir()
    rows.write_parquet(tmp_path / "foreign" / "rows.parquet")
    (tmp_path / "mixed").mkdir()
    rows.write_parquet(tmp_path / "mixed" / "part-000000.parquet")
    yield from ("foreign.duckdb", "foreign.parquet", "foreign", "mixed")


def test_foreign_and_damaged_files_are_named_and_left_alone(tmp_path):
    rows = random_hashes(3)
    for name in damaged_files(tmp_path):
        path = tmp_path / name
        inside = next(path.iterdir()) if path.is_dir() else path
        before = inside.read_bytes()
        for call in (
            lambda path=path: imgmatch_df.read_hashes(path),
            lambda path=path: imgmatch_df.write_hashes(rows, path),
        ):
            with pytest.raises(StoreError) as raised:
                call()
            assert name in str(raised.value)
            assert "\nHint: " in str(raised.value)
        assert inside.read_bytes() == before, name
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("form", FORMS)
def test_a_store_of_a_later_format(tmp_path, form, monkeypatch):
    store, rows = tmp_path / form, random_hashes(3)
    monkeypatch.setattr(manifest, "FORMAT", 2)
    imgmatch_df.write_hashes(rows, store)
    monkeypatch.undo()
    for call in (lambda: imgmatch_df.scan_hashes(store), lambda: imgmatch_df.write_hashes(rows, store)):
        with pytest.raises(StoreError, match=r"has format 2, made by imgmatch-df.*\nHint: install a newer imgmatch-df"):
            call()


def test_a_store_that_was_changed_by_hand(tmp_path):
    store = tmp_path / "some.duckdb"
    imgmatch_df.write_hashes(random_hashes(3), store)
    with duckdb.connect(str(store)) as connection:
        connection.execute("UPDATE imgmatch_store SET value = 'soon' WHERE name = 'format'")
    with pytest.raises(StoreError, match="cannot read the manifest of"):
        imgmatch_df.scan_hashes(store)
    with duckdb.connect(str(store)) as connection:
        connection.execute("UPDATE imgmatch_store SET value = '1' WHERE name = 'format'")
        connection.execute("ALTER TABLE hashes DROP COLUMN bmh1")
    with pytest.raises(StoreError, match=r"\nHint: "):
        imgmatch_df.scan_hashes(store)


def test_a_duckdb_file_of_a_later_duckdb(tmp_path):
    """The header says which version of the storage it has."""
    store = tmp_path / "some.duckdb"
    imgmatch_df.write_hashes(random_hashes(3), store)
    data = bytearray(store.read_bytes())
    data[12:20] = (9999).to_bytes(8, "little")
    store.write_bytes(data)
    with pytest.raises(StoreError, match=r"\nHint: "):
        imgmatch_df.scan_hashes(store)
    assert store.read_bytes() == data
