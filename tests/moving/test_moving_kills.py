"""Runs that are killed before and after every change to the disk: no file is lost, and the next run cleans up."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.skipif(os.name == "nt", reason="forks and signals"), pytest.mark.long]

# Forks a run for each moment, kills it there, and checks what it and the next run leave. One process for all moments,
# because it takes longer to import the package than to move the files.
KILLS = """
import os, shutil, signal, sys
from pathlib import Path
from imgmatch_df.moving import run
from imgmatch_df.moving.journal import Move, journals_in
from imgmatch_df.moving.planning import MovePlan

mode, link, top, other = sys.argv[1], sys.argv[2] or None, Path(sys.argv[3]), Path(sys.argv[4])
stride = int(sys.argv[5])
os.fsync = lambda file: None  # a killed process does not need it, and it takes most of the time
source, target = top / "photos", other / "removed"
NAMES = ["a/1.jpg", "a/2\\n.jpg", os.fsdecode(b"b/\\xff.jpg")]
CHANGES = ("rename", "link", "unlink", "symlink", "mkdir", "fsync", "utime", "rmdir")

def draw():
    for folder in (source, target):
        shutil.rmtree(folder, ignore_errors=True)
    for number, name in enumerate([*NAMES, "kept.jpg"]):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * 70_000)
        os.utime(path, ns=(10**18, 10**18 + number * 1_000_000_007))

def snapshot(folder):
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return {str(path.relative_to(folder)): facts(path) for path in paths}

def facts(path):
    return (os.fsencode(os.readlink(path)), 0) if path.is_symlink() else (path.read_bytes(), path.stat().st_mtime_ns)

def make_plan(before):
    moves = []
    for name in NAMES:
        path = source / name
        if str(path) not in before:
            found = path.lstat()
            kept = str(source / "kept.jpg") if link else None
            moves.append(Move(len(moves), str(path), str(target / name), found.st_size, found.st_mtime_ns, kept))
    return MovePlan(moves, [], len(before), ["a", "b"])

def work(undo):
    done = run.undo_moves(target / "undo.ndjson") if undo else run.run_moves(make_plan, target, link=link)
    assert done.failed == [], done.failed

def killed(moment, undo):
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        assert status in (0, signal.SIGKILL), status
        return status != 0
    n_calls = 0
    def deadly(change):
        def call(*args, **options):
            nonlocal n_calls
            n_calls += 1
            if n_calls * 2 == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return change(*args, **options)
            finally:
                if n_calls * 2 + 1 == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
        return call
    for name in CHANGES:
        setattr(os, name, deadly(getattr(os, name)))
    try:
        work(undo)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(7)
    os._exit(0)

def no_rubbish():
    return not [path for folder in (source, target) for path in folder.rglob("*") if path.name.startswith(".")]

draw()
original = snapshot(source)
work(undo=False)
moved = snapshot(source)
assert {name: snapshot(target)[name] for name in NAMES} == {name: original[name] for name in NAMES}
moment = 2
while True:
    draw()
    if mode == "undo":
        work(undo=False)
    if not killed(moment, mode == "undo"):
        break
    if mode == "undo":
        work(undo=True)
    else:
        everything = sorted(set(snapshot(source).values()) | set(snapshot(target).values()))
        assert all(found in everything for found in original.values()), moment
        if mode == "then undo" and not journals_in(target):
            assert snapshot(source) == original, moment
        elif mode == "then undo":
            work(undo=True)
        else:
            work(undo=False)
            assert snapshot(source) == moved, moment
            assert {name: snapshot(target)[name] for name in NAMES} == {name: original[name] for name in NAMES}, moment
            assert no_rubbish(), moment
            for path in journals_in(target):
                assert run.undo_moves(path).failed == [], moment
    if mode != "then undo" or journals_in(target):
        assert no_rubbish(), (moment, list(target.rglob("*")))
    assert snapshot(source) == original, (moment, snapshot(source).keys())
    assert not [path for path in target.rglob("*") if path.suffix == ".jpg"], moment
    moment += stride
print(moment)
"""


@pytest.fixture
def memory():
    """A folder in another file system."""
    place = Path("/dev/shm")
    if not place.is_dir() or place.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("there is no other file system")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield folder


def kill_everywhere(mode, link, source, target, stride=1):
    """Return the number of moments, of which each `stride`-th is tried."""
    command = [sys.executable, "-c", KILLS, mode, link, str(source), str(target), str(stride)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize("mode", ["then again", "then undo", "undo"])
def test_a_killed_run_is_finished_or_undone_at_some_moments(tmp_path, mode):
    assert kill_everywhere(mode, "", tmp_path, tmp_path, stride=13) > 20


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "link"), [("then again", "symbolic"), ("then undo", "hard"), ("undo", "symbolic")])
def test_a_killed_run_is_finished_or_undone(tmp_path, mode, link):
    assert kill_everywhere(mode, link, tmp_path, tmp_path, stride=3) > 50


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["then again", "then undo", "undo"])
def test_a_killed_run_between_file_systems(tmp_path, memory, mode):
    assert kill_everywhere(mode, "symbolic", tmp_path, memory, stride=3) > 60
