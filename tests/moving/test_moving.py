"""Moves of removed files: what is refused, what is never overwritten, and what an undo restores."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest

from imgmatch_df.errors import ArgumentError, ColumnError, StoreError
from imgmatch_df.moving import planning
from imgmatch_df.moving.decisions import SCHEMA, read_decisions
from imgmatch_df.moving.files import relocate
from imgmatch_df.moving.journal import journals_in, read_journal
from imgmatch_df.moving.run import preview_moves, run_moves, undo_moves
from imgmatch_df.sources import path_as_text
from imgmatch_df.store import locks

pytestmark = pytest.mark.long

ON_UNIX = pytest.mark.skipif(os.name == "nt", reason="links and names of Unix")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, data=None):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.fsencode(str(path)) if data is None else data)
    os.utime(path, ns=(10**18, 10**18 + len(path.name) * 1_000_001))
    return path


def decided(*rows, stamped=True, digests=False):
    """Return decisions about rows (path, cluster, is_kept), with the facts of the files as they are now."""
    found = []
    for path, cluster, is_kept in rows:
        exists = os.path.isfile(path)
        stat = os.stat(path) if exists and stamped else None
        found.append(
            {
                "path": path_as_text(str(path)),
                "cluster_id": str(cluster),
                "kept": is_kept,
                "size": stat and stat.st_size,
                "modified": stat and datetime.fromtimestamp(stat.st_mtime_ns // 1000 / 1e6, tz=UTC),
                "sha256": sha256(Path(path).read_bytes()).digest() if exists and digests else None,
            }
        )
    return pl.DataFrame(found, schema=SCHEMA)


def move(decisions, folder="removed", **options):
    link = options.get("link")
    return run_moves(
        lambda before: planning.plan_moves(decisions, Path(folder), before=before, **options), Path(folder), link=link
    )


def facts_below(folder):
    """Return bytes and time of all files below a folder, by path; of a link its target."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_symlink():
            found[str(path)] = os.readlink(path)
        elif path.is_file():
            found[str(path)] = path.read_bytes(), path.stat().st_mtime_ns
    return found


def pair(name="photos/copy.jpg", kept="photos/kept.jpg", **options):
    """Write a kept file and a removed one, and return the decisions."""
    write(kept)
    write(name)
    return decided((kept, 0, True), (name, 0, False), **options)


@pytest.mark.parametrize("n_files", [50, pytest.param(2000, marks=pytest.mark.slow)])
def test_equal_names_in_two_folders(n_files):
    names = [f"IMG_{number:04}.jpg" for number in range(n_files)]
    rows = []
    for number, name in enumerate(names):
        rows.append((write(f"keep/{name}"), number, True))
        rows += [(write(f"backup-{year}/{name}"), number, False) for year in (2019, 2020)]
    before = facts_below(".")
    decisions = decided(*rows)
    done = move(decisions)
    assert (len(done.moves), done.failed) == (2 * n_files, [])
    after = facts_below(".")
    assert {f"removed/{path}": fact for path, fact in before.items() if path.startswith("backup")} == {
        path: fact for path, fact in after.items() if path.startswith("removed/backup")
    }
    assert {path for path in after if not path.startswith("removed")} == {f"keep/{name}" for name in names}
    again = move(decisions)
    assert (again.moves, again.failed, again.n_before, again.journal) == ([], [], 2 * n_files, None)
    undone = undo_moves(done.journal)
    assert (len(undone.moves), undone.failed) == (2 * n_files, [])
    assert {path: fact for path, fact in facts_below(".").items() if not path.startswith("removed")} == before
    assert os.listdir("removed") == ["undo.ndjson"]
    assert undo_moves(done.journal).moves == []


@ON_UNIX
@pytest.mark.parametrize(
    "name", ["a\nb.jpg", "-rf.jpg", " x .jpg", "a\\xff.jpg", "né\u202e'\".jpg", os.fsdecode(b"\xff\xfe.jpg"), "x" * 250]
)
@pytest.mark.parametrize("link", [None, "hard", "symbolic"])
def test_names(name, link):
    decisions = pair(f"photos/{name}")
    before = facts_below("photos")
    done = move(decisions, link=link)
    assert done.failed == []
    assert Path("removed/photos", name).read_bytes() == before[f"photos/{name}"][0]
    assert os.path.lexists(f"photos/{name}") == (link is not None)
    assert undo_moves(done.journal).failed == []
    assert facts_below("photos") == before


@ON_UNIX
def test_a_name_that_begins_with_a_hyphen_in_the_working_directory():
    decisions = pair("-rf.jpg", "kept.jpg")
    assert [Path(one.target).name for one in move(decisions).moves] == ["-rf.jpg"]


@pytest.mark.parametrize("changed", ["copy.jpg", "kept.jpg"])
@pytest.mark.parametrize("how", ["size", "time", "bytes", "missing"])
def test_changed_files_are_refused(changed, how):
    decisions = pair(digests=True)
    path = Path("photos", changed)
    stat = path.stat()
    if how == "missing":
        path.unlink()
    elif how == "size":
        path.write_bytes(b"longer than it was, by far")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif how == "time":
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1000))
    else:
        path.write_bytes(bytes(stat.st_size))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    before = facts_below(".")
    reasons = {
        "size": "has changed since it was hashed",
        "time": "has changed since it was hashed",
        "bytes": "has other bytes than when it was hashed",
        "missing": "is not a file here",
    }
    reason = reasons[how] if changed == "copy.jpg" else "no kept file of its cluster is here, as it was hashed"
    assert move(decisions).failed == [f"photos/copy.jpg: {reason}"]
    assert facts_below(".") == before
    assert not os.path.exists("removed")


def test_a_file_that_changes_after_the_plan_stays():
    decisions = pair()

    def make_plan(before):
        plan = planning.plan_moves(decisions, Path("removed"), before=before)
        Path("photos/copy.jpg").write_bytes(b"edited meanwhile")
        return plan

    done = run_moves(make_plan, Path("removed"))
    assert [line.rpartition(": ")[2] for line in done.failed] == ["changed meanwhile"]
    assert Path("photos/copy.jpg").read_bytes() == b"edited meanwhile"
    assert sorted(os.listdir("photos")) == ["copy.jpg", "kept.jpg"]


def test_a_file_that_is_replaced_within_the_move_stays(monkeypatch):
    """Another program replaces the file after the last check: the new file is put back."""
    write("photos/copy.jpg")
    planned = os.lstat("photos/copy.jpg")
    rename = os.rename

    def replace_first(old, new):
        if str(old) == "photos/copy.jpg":
            Path("photos/new").write_bytes(b"saved at the last moment")
            os.replace("photos/new", old)
        rename(old, new)

    monkeypatch.setattr(os, "rename", replace_first)
    with pytest.raises(OSError, match="changed meanwhile"):
        relocate("photos/copy.jpg", "removed/copy.jpg", "tag", lambda found: found.st_ino == planned.st_ino)
    assert Path("photos/copy.jpg").read_bytes() == b"saved at the last moment"
    assert os.listdir("photos") == ["copy.jpg"]
    assert os.listdir("removed") == []


@ON_UNIX
@pytest.mark.parametrize(
    "kind", ["hard link", "symbolic link", "kept link", "linked folder", "other spelling", "twice"]
)
def test_a_file_that_is_a_kept_one_by_another_name_is_refused(kind):
    write("photos/kept.jpg")
    kept, name = "photos/kept.jpg", "photos/copy.jpg"
    reason = "is also the file of a kept row"
    if kind == "hard link":
        os.link(kept, name)
    elif kind == "symbolic link":
        os.symlink("kept.jpg", name)
        reason = "is a symbolic link"
    elif kind == "kept link":
        kept, name = "photos/link.jpg", "photos/kept.jpg"
        os.symlink("kept.jpg", kept)
    elif kind == "linked folder":
        os.symlink("photos", "same")
        name = "same/kept.jpg"
    elif kind == "other spelling":
        name = "./photos/../photos/kept.jpg"
    else:
        name = kept
    before = facts_below(".")
    assert move(decided((kept, 0, True), (name, 0, False))).failed == [f"{name}: {reason}"]
    assert facts_below(".") == before


def test_clusters_of_which_nothing_is_kept_here():
    for name in ("a", "b", "c", "d"):
        write(f"{name}.jpg")
    decisions = decided(
        ("https://host.invalid/a.jpg", 0, True), ("a.jpg", 0, False),
        ("b.jpg", 1, False), ("c.jpg", 1, False),
        ("missing.jpg", 2, True), ("d.jpg", 2, False), ("https://host.invalid/d.jpg", 2, False),
    )  # fmt: skip
    nothing = "no kept file of its cluster is here, as it was hashed"
    assert move(decisions).failed == [
        *(f"{name}.jpg: {nothing}" for name in "abcd"),
        "https://host.invalid/d.jpg: is not a file here",
    ]
    assert sorted(os.listdir()) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


def test_rows_without_a_cluster_are_no_cluster():
    write("a.jpg")
    write("b.jpg")
    decisions = decided(("a.jpg", 0, True), ("b.jpg", 0, False)).with_columns(cluster_id=pl.lit(None, pl.String))
    assert move(decisions).failed == ["b.jpg: no kept file of its cluster is here, as it was hashed"]


def test_nothing_is_overwritten():
    decisions = pair()
    write("removed/photos/copy.jpg", b"of another run")
    before = facts_below(".")
    assert move(decisions).failed == ["photos/copy.jpg: cannot become removed/photos/copy.jpg: File exists"]
    assert facts_below(".") == before


def test_nothing_is_overwritten_that_appears_after_the_plan():
    decisions = pair()

    def make_plan(before):
        plan = planning.plan_moves(decisions, Path("removed"), before=before)
        write("removed/photos/copy.jpg", b"of another program")
        return plan

    assert [line.endswith("File exists") for line in run_moves(make_plan, Path("removed")).failed] == [True]
    assert Path("removed/photos/copy.jpg").read_bytes() == b"of another program"
    assert Path("photos/copy.jpg").exists()


def test_an_undo_overwrites_nothing():
    decisions = pair()
    journal = move(decisions).journal
    write("photos/copy.jpg", b"a new file")
    undone = undo_moves(journal)
    assert [line.rpartition(": ")[2] for line in undone.failed] == ["there is a file at its old place"]
    assert Path("photos/copy.jpg").read_bytes() == b"a new file"
    os.remove("photos/copy.jpg")
    Path("removed/photos/copy.jpg").write_bytes(b"edited there")
    assert [line.rpartition(": ")[2] for line in undo_moves(journal).failed] == ["it has changed since it was moved"]


def test_a_new_file_at_an_old_place_is_not_taken_for_the_moved_one():
    decisions = pair()
    move(decisions)
    write("photos/copy.jpg", b"a new file")
    again = move(decisions)
    assert (again.n_before, again.failed) == (0, ["photos/copy.jpg: has changed since it was hashed"])


def test_a_file_whose_place_is_taken_within_the_move_is_put_back_by_the_next_run(monkeypatch):
    decisions = pair()
    before = facts_below("photos")
    rename = os.rename

    def take_both_places(old, new):
        rename(old, new)
        write("photos/copy.jpg", b"new here")
        write("removed/photos/copy.jpg", b"new there")

    monkeypatch.setattr(os, "rename", take_both_places)
    done = move(decisions)
    assert len(done.failed) == 1
    assert "nor can it be put back, it is" in done.failed[0]
    monkeypatch.setattr(os, "rename", rename)
    assert "an interrupted move cannot be finished" in move(decisions).failed[0]
    assert Path("photos/copy.jpg").read_bytes() == b"new here"
    assert Path("removed/photos/copy.jpg").read_bytes() == b"new there"
    os.remove("photos/copy.jpg")
    assert move(decisions).failed == ["photos/copy.jpg: cannot become removed/photos/copy.jpg: File exists"]
    assert facts_below("photos") == before


@ON_UNIX
def test_a_link_that_a_person_has_removed_is_not_made_again():
    decisions = pair()
    move(decisions, link="symbolic")
    os.remove("photos/copy.jpg")
    assert move(decisions, link="symbolic").n_before == 1
    assert os.listdir("photos") == ["kept.jpg"]


@ON_UNIX
@pytest.mark.parametrize("link", ["hard", "symbolic"])
def test_links_lead_to_the_kept_file(link):
    decisions = pair()
    before = facts_below("photos")
    done = move(decisions, link=link)
    assert Path("photos/copy.jpg").read_bytes() == Path("photos/kept.jpg").read_bytes()
    assert os.path.islink("photos/copy.jpg") == (link == "symbolic")
    assert Path("removed/photos/copy.jpg").read_bytes() == before["photos/copy.jpg"][0]
    assert move(decisions, link=link).n_before == 1
    assert undo_moves(done.journal).failed == []
    assert facts_below("photos") == before


@ON_UNIX
def test_a_link_that_cannot_be_made_leaves_the_file(monkeypatch):
    decisions = pair()
    before = facts_below("photos")

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    assert [line.rpartition(": ")[2] for line in move(decisions, link="symbolic").failed] == ["Operation not permitted"]
    assert facts_below("photos") == before


@ON_UNIX
def test_a_link_in_the_target_folder_is_not_followed():
    decisions = pair()
    os.makedirs("removed")
    os.makedirs("elsewhere")
    os.symlink("../elsewhere", "removed/photos")
    reason = "cannot become removed/photos/copy.jpg: a link there leads to another folder"
    assert move(decisions).failed == [f"photos/copy.jpg: {reason}"]
    assert os.listdir("elsewhere") == []


@pytest.fixture
def memory():
    """A folder in another file system."""
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(tempfile.gettempdir()).st_dev:
        pytest.skip("there is no other file system")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_across_file_systems(memory):
    decisions = pair()
    os.chmod("photos/copy.jpg", 0o640)
    before = facts_below("photos")
    done = move(decisions, memory / "removed")
    moved = memory / "removed" / "photos" / "copy.jpg"
    assert (moved.read_bytes(), moved.stat().st_mtime_ns) == before["photos/copy.jpg"]
    assert moved.stat().st_mode & 0o777 == 0o640
    assert os.listdir("photos") == ["kept.jpg"]
    assert undo_moves(done.journal).failed == []
    assert facts_below("photos") == before
    assert os.stat("photos/copy.jpg").st_mode & 0o777 == 0o640


def test_a_hard_link_across_file_systems_is_refused(memory):
    write(memory / "kept.jpg")
    write("copy.jpg")
    decisions = decided((memory / "kept.jpg", 0, True), ("copy.jpg", 0, False))
    assert "a hard link cannot lead to" in move(decisions, link="hard").failed[0]
    assert move(decisions, link="symbolic").failed == []


def test_a_copy_that_cannot_be_finished_leaves_the_file(memory, monkeypatch):
    decisions = pair()
    before = facts_below("photos")

    def fill(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fill)
    done = move(decisions, memory / "removed")
    assert [line.rpartition(": ")[2] for line in done.failed] == ["No space left on device"]
    assert facts_below("photos") == before
    assert [path.name for path in (memory / "removed").rglob("*") if path.is_file()] == ["undo.ndjson"]


def test_a_file_system_without_hard_links(monkeypatch):
    decisions = pair()
    before = facts_below("photos")

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    done = move(decisions)
    assert done.failed == []
    assert undo_moves(done.journal).failed == []
    assert facts_below("photos") == before


@ON_UNIX
@pytest.mark.parametrize("place", ["removed", "photos"])
def test_a_folder_that_cannot_be_written(place):
    code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
import filelock, test_moving
from pathlib import Path
if os.getuid() == 0:  # who may write everywhere
    os.setgid(65534)
    os.setuid(65534)
decisions = test_moving.decided(("photos/kept.jpg", 0, True), ("photos/copy.jpg", 0, False))
try:
    print(test_moving.move(decisions).failed)
except test_moving.ArgumentError as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for name in ("photos/kept.jpg", "photos/copy.jpg"):
            write(Path(folder, name))
        os.mkdir(Path(folder, "removed"))
        os.chmod(Path(folder, "removed"), 0o555 if place == "removed" else 0o777)
        os.chmod(Path(folder, "photos"), 0o555)
        before = facts_below(Path(folder, "photos"))
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
        said = {"removed": "cannot write into 'removed': Permission denied\nHint:", "photos": ": Permission denied']"}
        assert said[place] in done.stdout, done.stderr
        assert facts_below(Path(folder, "photos")) == before
        os.chmod(Path(folder, "photos"), 0o755)
        assert not list(Path(folder, "removed").rglob("*.jpg"))


def test_the_target_in_a_folder_of_the_images_is_refused():
    decisions = pair()
    folders = planning.folders_of(decisions)
    for folder in ("photos", "photos/removed", "./photos/../photos/removed"):
        with pytest.raises(
            ArgumentError, match="is in the source 'photos', so the next run would find the files again"
        ):
            planning.check_folder("--move-to", Path(folder), folders)
    planning.check_folder("--move-to", Path("removed"), folders)
    write("file")
    with pytest.raises(ArgumentError, match="is not a folder"):
        planning.check_folder("--move-to", Path("file"), folders)
    with pytest.raises(ArgumentError, match="no such folder: 'no'"):
        planning.check_folder("--move-to", Path("no/removed"), folders)


def test_files_in_the_target_are_not_moved_again():
    write("kept.jpg")
    write("removed/photos/copy.jpg")
    decisions = decided(("kept.jpg", 0, True), ("removed/photos/copy.jpg", 0, False))
    assert move(decisions).failed == ["removed/photos/copy.jpg: is in removed already"]


def test_two_runs_into_one_folder(monkeypatch):
    monkeypatch.setattr(locks, "WAIT_S", 0.1)
    decisions = pair()
    Path("removed").mkdir()
    with locks.sole_writer(Path("removed/moves")), pytest.raises(StoreError, match="in use by this process"):
        move(decisions)
    assert move(decisions).failed == []


RUN = """
import sys
sys.path[:0] = {paths!r}
import test_moving
from pathlib import Path
names = [(name, number) for name in ("kept", "copy") for number in range(100)]
rows = [(f"photos/{{name}}/{{number}}.jpg", number, name == "kept") for name, number in names]
decisions = test_moving.decided(*rows)
print("ready", flush=True)
sys.stdin.readline()
done = test_moving.move(decisions, sys.argv[1])
print(len(done.moves))
"""


@pytest.mark.parametrize("folders", [("one", "two"), pytest.param(("one", "one"), marks=pytest.mark.slow)])
def test_two_runs_at_once_move_each_file_once(folders):
    rows = [(f"photos/{name}/{number}.jpg", number) for name in ("kept", "copy") for number in range(100)]
    for path, _ in rows:
        write(path)
    before = facts_below("photos")
    command = [sys.executable, "-c", RUN.format(paths=sys.path)]
    runs = [
        subprocess.Popen([*command, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for folder in folders
    ]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        run.stdin.write("\n")
        run.stdin.flush()
    counts = [int(run.communicate()[0]) for run in runs]
    assert sum(counts) == 100
    after = {path.partition("photos/")[2]: fact for path, fact in facts_below(".").items() if path.endswith(".jpg")}
    assert after == {path.partition("photos/")[2]: fact for path, fact in before.items()}
    assert not list(Path().rglob(".imgmatch*"))
    for folder in set(folders):
        for journal in journals_in(Path(folder)):
            assert undo_moves(journal).failed == []
    assert facts_below("photos") == before


def three_moved():
    rows = [("photos/kept.jpg", 0, True), *((f"photos/{name}.jpg", 0, False) for name in "abc")]
    for path, _, _ in rows:
        write(path)
    before = facts_below("photos")
    return before, move(decided(*rows)).journal


def test_every_cut_of_a_journal_restores_the_files_that_it_names():
    before, journal = three_moved()
    whole = journal.read_bytes()
    starts = [at + 1 for at, byte in enumerate(whole) if byte == 10]
    for length in sorted({*range(starts[0], len(whole), 41), *starts, starts[1] - 1, starts[3] - 1}):
        journal.write_bytes(whole[:length])
        undone = undo_moves(journal)
        n_named = sum(start - 1 <= length for start in starts[1:4])
        assert len(undone.moves) == n_named, length
        assert [line.partition(": ")[2] for line in undone.failed] == (
            [] if n_named == 3 else ["lines are missing, and the files that they name stay where they are"]
        )
        assert undo_moves(journal).moves == []
        journal.write_bytes(whole)
        assert len(undo_moves(journal).moves) == 3 - n_named
        assert facts_below("photos") == before
        for name in "abc":
            os.makedirs("removed/photos", exist_ok=True)
            os.rename(f"photos/{name}.jpg", f"removed/photos/{name}.jpg")
        journal.write_bytes(whole)


def test_a_journal_whose_first_line_is_damaged_is_no_journal():
    _, journal = three_moved()
    journal.write_bytes(journal.read_bytes()[20:])
    with pytest.raises(ArgumentError, match="is not a journal of moves"):
        undo_moves(journal)


def test_a_journal_goes_with_its_folder(here):
    before, _ = three_moved()
    os.rename("removed", "moved elsewhere")
    assert undo_moves(Path("moved elsewhere/undo.ndjson")).failed == []
    assert facts_below("photos") == before


def test_the_journal_is_on_the_disk_before_the_first_move(monkeypatch):
    decisions, seen = pair(), []
    rename = os.rename

    def see(old, new):
        seen.append(read_journal(Path("removed/undo.ndjson")))
        rename(old, new)

    monkeypatch.setattr(os, "rename", see)
    move(decisions)
    assert [[Path(one.source).name for one in journal.moves] for journal in seen] == [["copy.jpg"]]
    assert (seen[0].outcomes, seen[0].is_cut) == ({}, False)


def test_each_run_has_its_own_journal():
    first, second = pair("photos/a.jpg"), pair("photos/b.jpg")
    assert [move(one).journal.name for one in (first, second)] == ["undo.ndjson", "undo-2.ndjson"]
    assert undo_moves(Path("removed/undo-2.ndjson")).failed == []
    assert sorted(os.listdir("photos")) == ["b.jpg", "kept.jpg"]
    header = json.loads(Path("removed/undo.ndjson").read_text().splitlines()[0])
    assert (header["format"], header["version"], header["made"]) == ("imgmatch moves", 1, ["photos"])


def test_a_preview_is_what_happens_and_changes_nothing():
    write("photos/new.jpg")
    decisions = pl.concat([pair(), decided(("photos/new.jpg", 1, False))])
    before = facts_below(".")

    def make_plan(moved):
        return planning.plan_moves(decisions, Path("removed"), before=moved)

    seen = preview_moves(make_plan, Path("removed"))
    assert facts_below(".") == before
    assert sorted(os.listdir()) == ["photos"]
    done = run_moves(make_plan, Path("removed"))
    assert (seen.moves, seen.failed) == (done.moves, done.failed)
    after = facts_below(".")
    assert preview_moves(make_plan, Path("removed")).n_before == 1
    assert undo_moves(done.journal, is_dry=True).moves == done.moves
    assert facts_below(".") == after


def test_decisions_of_every_form():
    text = {"size": "7", "modified": "2026-11-29T08:59:13.721260+0000", "sha256": "ab" * 32}
    rows = pl.LazyFrame(
        [
            {"path": "a", "cluster_id": 0, "kept": "true", "decision": None, **text},
            {"path": "b", "cluster_id": 0, "kept": "false", "decision": "keep", **text},
            {"path": "c", "cluster_id": 0, "kept": "TRUE", "decision": " Remove ", **text},
            {"path": "d", "cluster_id": None, "kept": None, "decision": "", **dict.fromkeys(text)},
        ]
    )
    read = read_decisions(rows)
    assert read.schema == SCHEMA
    assert read["kept"].to_list() == [True, True, False, True]
    assert read["cluster_id"].to_list() == ["0", "0", "0", None]
    when = datetime(2026, 11, 29, 8, 59, 13, 721260, tzinfo=UTC)
    assert read["modified"].to_list() == [when, when, when, None]
    assert read["sha256"].to_list() == [b"\xab" * 32] * 3 + [None]
    for other in ("2026-11-29 08:59:13.721260Z", "2026-11-29T10:59:13.721260+02:00", "2026-11-29T08:59:13.721260"):
        assert read_decisions(rows.head(1).with_columns(modified=pl.lit(other)))["modified"].item() == when
    assert read_decisions(rows.rename({"path": "url"}).drop("kept"), "url")["kept"].to_list() == [
        True,
        True,
        False,
        True,
    ]


def test_nested_decisions():
    nested = pl.LazyFrame(
        {
            "path": ["a", "b"],
            "size": [1, 2],
            "removed_records": [[{"path": "c", "size": 3}, {"path": "d", "size": 4}], []],
        },
        schema_overrides={"size": pl.UInt64},
    )
    read = read_decisions(nested)
    assert read.select("path", "cluster_id", "kept", "size").rows() == [
        ("a", "0", True, 1), ("b", "1", True, 2), ("c", "0", False, 3), ("d", "0", False, 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"kept": ["maybe"]}, "kept of row 0 is 'maybe', which cannot be read"),
        ({"decision": ["delete"]}, "decision of row 0 is 'delete', which cannot be read"),
        ({"kept": [True], "size": ["XL"]}, "size of row 0 is 'XL'"),
        ({"kept": [True], "modified": ["yesterday"]}, "modified of row 0 is 'yesterday'"),
        ({"kept": [True], "sha256": ["abc"]}, "sha256 of row 0 is 'abc'"),
        ({"kept": [True], "sha256": ["ab"]}, "sha256 of row 0 is 'ab'"),
        ({"x": [1]}, "the decisions need cluster_id, and decision or kept; they have path, cluster_id, x"),
        ({"kept": [True], "cluster_id": None}, "the decisions need cluster_id"),
        ({"kept": [True], "path": None}, "the decisions have no paths in 'path'"),
    ],
)
def test_wrong_decisions(columns, said):
    given = {"path": ["a"], "cluster_id": [0], **columns}
    frame = pl.LazyFrame({name: values for name, values in given.items() if values is not None})
    with pytest.raises(ColumnError, match=said) as caught:
        read_decisions(frame)
    assert "\nHint: " in str(caught.value)
