"""Readers: they change nothing, and neither they nor a writer fail because of each other."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from previous_release import copy_store, kill_writer, write_store
from test_store import FORMS, random_hashes, summary
from test_store_kills import ON_UNIX, WRITER, child, damaged_files, run

import imgmatch_df
from imgmatch_df import ImgMatchWarning, StoreError
from imgmatch_df.frames import chunks, writing
from imgmatch_df.store import duckdb as duckdb_store
from imgmatch_df.store import duckdb_files, locks
from imgmatch_df.store.duckdb_files import log_of
from imgmatch_df.store.open import open_store

pytestmark = pytest.mark.long


def state_of(folder):
    """Return all files of a folder, with their bytes and times; of folders, the times."""
    return {
        path.relative_to(folder): (b"" if path.is_dir() else path.read_bytes(), path.stat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


def read_in_every_way(store):
    """Read a store as every verb does."""
    rows = random_hashes(5)
    calls = [
        lambda: imgmatch_df.read_hashes(store),
        lambda: imgmatch_df.scan_hashes(store).select("phash").head(3).collect(engine="streaming"),
        lambda: rows.imgmatch.match(store, 3, "phash"),
        lambda: rows.imgmatch.cluster(3, "phash", reference=store),
        lambda: rows.imgmatch.remove_duplicates(3, "phash", reference=store),
        lambda: read_some(store),
    ]
    for call in calls:
        try:
            call()
        except (StoreError, pl.exceptions.ComputeError):  # a damaged one; Polars 1 wraps what its sources raise
            continue


def read_some(store):
    with open_store(store) as opened:
        return opened.stored(pl.Series(["0.jpg", "nope"]), ["source", "phash"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("made_by", ["this", "the release before"])
def test_reading_changes_nothing(tmp_path, form, made_by):
    store, rows = tmp_path / form, random_hashes(300)
    imgmatch_df.write_hashes(rows, store) if made_by == "this" else write_store(rows, store)
    if form == "hashes.duckdb":
        kill_writer(random_hashes(40, start=300), store)  # a log lies beside it
        assert log_of(store).exists()
    before = state_of(tmp_path)
    read_in_every_way(store)
    assert imgmatch_df.read_hashes(store).height == (340 if form == "hashes.duckdb" else 300)
    assert state_of(tmp_path) == before


def test_reading_damaged_files_changes_nothing(tmp_path):
    names = list(damaged_files(tmp_path))
    before = state_of(tmp_path)
    for name in names:
        read_in_every_way(tmp_path / name)
    assert state_of(tmp_path) == before


def test_reading_damaged_logs_changes_nothing(tmp_path):
    store, rows = tmp_path / "some.duckdb", random_hashes(300)
    imgmatch_df.write_hashes(rows, store)
    kill_writer(random_hashes(40, start=300), store)
    log = log_of(store).read_bytes()
    for number, content in enumerate(
        [b"", log[:10], log[:-7], log[: len(log) // 2], b"\0" * 100, b"no log\n" * 99, log[::-1]]
        + [log[:at] + bytes([log[at] ^ 4]) + log[at + 1 :] for at in range(3, len(log), len(log) // 4)]
    ):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        copy_store(store, folder / "some.duckdb")
        log_of(folder / "some.duckdb").write_bytes(content)
        before = state_of(folder)
        read_in_every_way(folder / "some.duckdb")
        assert state_of(folder) == before


@ON_UNIX
@pytest.mark.parametrize("form", FORMS)
def test_a_store_that_may_only_be_read(form):
    rows = random_hashes(300)
    code = WRITER + (
        "import os, tempfile\n"
        f"with tempfile.TemporaryDirectory() as warm:\n    imgmatch_df.write_hashes(rows, warm + '/{form}')\n"
        f"    imgmatch_df.read_hashes(warm + '/{form}')\n"  # imports what it needs
        "if os.getuid() == 0:\n    os.setuid(65534)\n"
        "print(imgmatch_df.read_hashes(target).height)"
    )
    with TemporaryDirectory() as name:  # that of pytest may be read by its owner alone
        folder, store = Path(name), Path(name, form)
        imgmatch_df.write_hashes(rows, store)
        if form == "hashes.duckdb":
            kill_writer(random_hashes(40, start=300), store)
        rows.write_parquet(folder / "rows.parquet")
        for path in (*folder.rglob("*"), folder):
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = state_of(folder)
        said = run(code, folder / "rows.parquet", store, "")
        assert said.stdout == ("340\n" if form == "hashes.duckdb" else "300\n"), said.stderr
        assert state_of(folder) == before
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)


@pytest.mark.parametrize("form", FORMS)
def test_threads_read_one_store_at_once(tmp_path, form):
    store, rows = tmp_path / form, random_hashes(500)
    imgmatch_df.write_hashes(rows, store)
    errors = []

    def read(number):
        try:
            for _ in range(3):
                key = f"{number}.jpg"
                with open_store(store) as opened:
                    found = opened.stored(pl.Series([key]), ["source", "phash"])
                assert found.rows() == [(key, rows["phash"][number])]
                assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows)
                assert imgmatch_df.scan_hashes(store).select(pl.len()).collect().item() == 500
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    run_threads(read, 16)
    assert errors == []
    assert not duckdb_files._instances


def run_threads(call, n_threads):
    threads = [threading.Thread(target=call, args=(number,)) for number in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("form", "in_threads"),
    [
        *((form, False) for form in FORMS),
        (FORMS[0], True),
        *(pytest.param(form, True, marks=pytest.mark.slow) for form in FORMS[1:]),
    ],
)
def test_a_writer_and_readers_at_once(tmp_path, form, in_threads, monkeypatch):
    """Whoever reads meanwhile sees the rows of some moment: the first so many, each whole."""
    for module in (writing, chunks):
        monkeypatch.setattr(module, "CHUNK_ROWS_OF_HASHES", 100)
    store, rows = tmp_path / form, random_hashes(1_200)
    imgmatch_df.write_hashes(rows.head(500), store)
    errors, heights, done = [], [], threading.Event()

    def read(_):
        try:
            while not done.is_set():
                found = imgmatch_df.read_hashes(store).select(rows.columns)
                assert_frame_equal(found, rows.head(found.height))
                heights.append(found.height)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    def write():
        try:
            for end in range(600, 1_201, 300):
                imgmatch_df.write_hashes(rows.head(end), store)
        finally:
            done.set()

    if in_threads:
        writer = threading.Thread(target=write)
        writer.start()
        run_threads(read, 4)
        writer.join()
    else:
        rows.write_parquet(tmp_path / "rows.parquet")
        code = WRITER + (
            "print('ready', flush=True)\nsys.stdin.readline()\n"
            "for end in range(600, 1_201, 300):\n    imgmatch_df.write_hashes(rows.head(end), target)\n"
        )
        with child(code, tmp_path / "rows.parquet", store, "") as process:
            reader = threading.Thread(target=run_threads, args=(read, 4))
            reader.start()
            process.stdin.write("\n")
            process.stdin.close()
            assert process.wait() == 0
            done.set()
            reader.join()
    assert errors == []
    assert min(heights) < 1_200
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows)


def test_a_reader_does_not_keep_a_writer_out(tmp_path):
    """Nor a shell that only reads; both see what was there when they began."""
    store, rows = tmp_path / "some.duckdb", random_hashes(40)
    imgmatch_df.write_hashes(rows.head(10), store)
    with open_store(store) as opened, duckdb.connect(str(store), read_only=True) as shell:
        assert imgmatch_df.write_hashes(rows, store) == summary(new=30, skipped=10)
        assert opened.count() == 10
        assert shell.execute("SELECT count(*) FROM hashes").fetchall() == [(10,)]
        assert imgmatch_df.read_hashes(store).height == 40
    assert not log_of(store).exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_writer_waits_for_another(tmp_path, form):
    store, rows = tmp_path / form, random_hashes(40)
    imgmatch_df.write_hashes(rows.head(10), store)
    opened = threading.Event()

    def write():
        with open_store(store, write=True):
            opened.set()
            time.sleep(0.3)

    other = threading.Thread(target=write)
    other.start()
    opened.wait()
    assert imgmatch_df.write_hashes(rows, store) == summary(new=30, skipped=10)
    other.join()


def test_a_store_that_another_program_writes_is_waited_for(tmp_path, monkeypatch):
    store, rows = tmp_path / "some.duckdb", random_hashes(40)
    imgmatch_df.write_hashes(rows.head(10), store)
    rows.write_parquet(tmp_path / "rows.parquet")
    shell = "import duckdb\nconnection = duckdb.connect(target)\nprint('ready', flush=True)\nsys.stdin.readline()\n"
    with child(WRITER + shell, tmp_path / "rows.parquet", store, "") as process:
        with monkeypatch.context() as patch:
            patch.setattr(locks, "WAIT_S", 0.0)
            for call in (imgmatch_df.read_hashes, lambda store: imgmatch_df.write_hashes(rows, store)):
                with pytest.raises(StoreError, match=f"in use by process {process.pid}\nHint"):
                    call(store)
        leave = threading.Timer(0.3, process.kill)
        leave.start()
        assert imgmatch_df.read_hashes(store).height == 10
        leave.join()
    assert imgmatch_df.write_hashes(rows, store) == summary(new=30, skipped=10)


def test_what_another_program_wrote_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    store, rows = tmp_path / "some.duckdb", random_hashes(40)
    imgmatch_df.write_hashes(rows.head(10), store)
    other = tmp_path / "other.duckdb"
    imgmatch_df.write_hashes(rows.head(20), other)
    publish = duckdb_files.Draft.publish

    def late(draft):
        other.replace(store)
        publish(draft)

    monkeypatch.setattr(duckdb_files.Draft, "publish", late)
    with pytest.warns(ImgMatchWarning, match="another program, which has changed it"):
        imgmatch_df.write_hashes(rows, store)


_FORKED = """
import os, sys, warnings
from pathlib import Path
import imgmatch_df
from imgmatch_df.store import locks as atomic, duckdb_files
from imgmatch_df.store.open import open_store
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
store = Path(sys.argv[1])
told, tell = os.pipe()
with open_store(store, write=True):
    child = os.fork()
    if child == 0:
        atomic.WAIT_S = 0.0
        try:
            with atomic.sole_writer(store):
                print("both write")
        except imgmatch_df.StoreError as error:
            print(str(error).splitlines()[0])
        print(len(duckdb_files._instances), flush=True)
        os.write(tell, b"tried")
        sys.stdin.readline()
        with atomic.sole_writer(store):
            print("free", flush=True)
        os._exit(0)
    os.read(told, 5)
print("closed", flush=True)
os.waitpid(child, 0)
"""


@ON_UNIX
@pytest.mark.parametrize("form", FORMS)
def test_a_child_of_a_writer(tmp_path, form):
    """What a process had open when it forked is its own: the child waits as others do, and keeps no lock."""
    store, rows = tmp_path / form, random_hashes(40)
    imgmatch_df.write_hashes(rows.head(10), store)
    command = [sys.executable, "-c", _FORKED, store]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        said = {process.stdout.readline() for _ in range(3)}
        assert said == {f"{str(store)!r} is in use by another process\n", "0\n", "closed\n"}
        assert imgmatch_df.write_hashes(rows, store) == summary(new=30, skipped=10)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "free\n"


def test_without_hard_links_a_store_is_written_in_place(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(95, "Operation not supported")

    store, rows = tmp_path / "some.duckdb", random_hashes(400)
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(duckdb_store, "_MIN_LOG_BYTES", 10_000)
    monkeypatch.setattr(duckdb_store, "_MAX_LOG_BYTES", 10_000)
    for module in (writing, chunks):
        monkeypatch.setattr(module, "CHUNK_ROWS_OF_HASHES", 50)
    assert imgmatch_df.write_hashes(rows.head(200), store).n_new == 200
    assert imgmatch_df.write_hashes(rows[100:], store, prune=True) == summary(new=200, skipped=100, pruned=100)
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows[100:])
    assert [path.name for path in tmp_path.iterdir()] == ["some.duckdb"]


@ON_UNIX
def test_a_link_to_a_store_stays_one(tmp_path):
    (tmp_path / "real").mkdir()
    store, link, rows = tmp_path / "real" / "some.duckdb", tmp_path / "link.duckdb", random_hashes(40)
    imgmatch_df.write_hashes(rows.head(10), store)
    store.chmod(0o640)
    link.symlink_to(store)
    assert imgmatch_df.write_hashes(rows, link) == summary(new=30, skipped=10)
    assert link.is_symlink()
    assert imgmatch_df.read_hashes(store).height == imgmatch_df.read_hashes(link).height == 40
    assert store.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in Path(store.parent).iterdir()] == ["some.duckdb"]


def test_a_log_that_could_not_be_put_into_the_file_is_named(tmp_path, monkeypatch):
    store, rows = tmp_path / "some.duckdb", random_hashes(40)
    imgmatch_df.write_hashes(rows.head(10), store)
    with monkeypatch.context() as patch:
        patch.setattr(duckdb_files, "sync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.warns(ImgMatchWarning, match=r"stored in 'some.duckdb.wal'.*no room.*\nHint: keep both files"):
            assert imgmatch_df.write_hashes(rows, store).n_new == 30
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows)
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(store, copy)
    shutil.copy(log_of(store), copy)
    assert_frame_equal(imgmatch_df.read_hashes(copy / store.name).select(rows.columns), rows)
    assert imgmatch_df.write_hashes(rows, store) == summary(skipped=40)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "some.duckdb"]


def check_after_a_kill(store, rows):
    """Return how many rows a store has: the first so many, for us and for DuckDB alone; then the run goes on."""
    found = imgmatch_df.read_hashes(store).select(rows.columns)
    assert_frame_equal(found, rows.head(found.height))
    with duckdb.connect(str(store), read_only=True) as shell:
        assert shell.execute("SELECT count(DISTINCT source) FROM hashes").fetchall() == [(found.height,)]
    again = imgmatch_df.write_hashes(rows, store)
    assert again == summary(new=rows.height - found.height, skipped=found.height)
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows)
    assert [path.name for path in store.parent.iterdir()] == [store.name]
    return found.height


STEPS = ["sync", "sync_folder", "copy_access", "_file_stamp"]


def test_what_lies_there_at_any_step_of_a_run_is_whole(tmp_path, monkeypatch):
    """Copies of all files, made while a run commits twice and puts that into the file, are stores to go on with."""
    rows = random_hashes(100)
    store = tmp_path / "store" / "some.duckdb"
    store.parent.mkdir()
    imgmatch_df.write_hashes(rows.head(40), store)
    n_copies = 0

    def copied(call):
        def copy_first(*arguments):
            nonlocal n_copies
            shutil.copytree(store.parent, tmp_path / f"copy{n_copies}")
            n_copies += 1
            return call(*arguments)

        return copy_first

    with monkeypatch.context() as patch:
        for module in (writing, chunks):
            patch.setattr(module, "CHUNK_ROWS_OF_HASHES", 70)
        for name in STEPS:
            patch.setattr(duckdb_files, name, copied(getattr(duckdb_files, name)))
        imgmatch_df.write_hashes(rows, store)
    assert n_copies > 5
    heights = [check_after_a_kill(tmp_path / f"copy{number}" / store.name, rows) for number in range(n_copies)]
    assert heights == sorted(heights)
    assert set(heights) == {40, 70, 100}


@ON_UNIX
@pytest.mark.slow
def test_killed_at_any_step_of_a_run(tmp_path):
    """The same with processes that are killed."""
    rows = random_hashes(100)
    rows.write_parquet(tmp_path / "rows.parquet")
    code = (
        WRITER.replace("20_000", "1 << 30")
        + f"""
import os
from pathlib import Path
from imgmatch_df.store import duckdb_files
left = int(sys.argv[4])
def step(call):
    def stepped(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return call(*args, **kwargs)
    return stepped
for name in ("replace", "unlink"):
    setattr(Path, name, step(getattr(Path, name)))
for name in {STEPS}:
    setattr(duckdb_files, name, step(getattr(duckdb_files, name)))
os.link = step(os.link)
imgmatch_df.write_hashes(rows, target)
"""
    )
    heights = []
    for n_steps in range(60):
        store = tmp_path / str(n_steps) / "some.duckdb"
        store.parent.mkdir()
        imgmatch_df.write_hashes(rows.head(40), store)
        killed = run(code, tmp_path / "rows.parquet", store, "", n_steps).returncode
        heights.append(check_after_a_kill(store, rows))
        if killed == 0:
            break
    assert killed == 0
    assert heights == sorted(heights)
    assert len(set(heights)) > 2
