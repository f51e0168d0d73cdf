"""`imgmatch apply`: the tables of remove-duplicates, moved, shown and undone; messages and exit codes."""

import os
import re
import subprocess
import sys

import polars as pl
import pytest
from drawing import draw, jpeg
from program import ON_A_SYSTEM_WITH_SIGNALS, PROGRAM
from terminal import ON_A_SYSTEM_WITH_TERMINALS, on_a_terminal
from typer.testing import CliRunner

from imgmatch_df.cli.app import app

pytestmark = pytest.mark.long


def run(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def album(tmp_path, monkeypatch):
    """A folder `photos` in the working directory: two photos and a copy of each in another folder."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photos/a", "photos/b"):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("1.jpg", "2.jpg"):
            (tmp_path / folder / name).write_bytes(jpeg(draw(int(name[0]))))
    return tmp_path


def facts_below(folder):
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*.jpg")
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["d.csv", "d.parquet", "d.ndjson", "d.jsonl"])
def test_the_tables_of_remove_duplicates(album, name):
    run("remove-duplicates", "photos", "-o", name)
    before = facts_below(album)
    shown = run("apply", name, "--move-to", "removed", "--dry-run").stdout
    assert "photos/b/1.jpg -> removed/photos/b/1.jpg\n" in shown
    assert re.search(r"^would move 2 files into removed, 0\.0 MB; nothing is moved$", shown, re.MULTILINE)
    assert facts_below(album) == before
    assert not (album / "removed").exists()
    result = run("apply", name, "--move-to", "removed")
    assert result.stdout == "moved 2 files into removed\n"
    assert "imgmatch apply removed/undo.ndjson --undo moves them back\n" in result.stderr
    after = {path.replace("photos/b", "removed/photos/b"): fact for path, fact in before.items()}
    assert facts_below(album) == after
    again = run("apply", name, "--move-to", "removed")
    assert (again.stdout, again.stderr) == ("moved 0 files into removed\n", "2 more were moved before\n")
    assert "would move 2 files back" in run("apply", "removed/undo.ndjson", "--undo", "--dry-run").stdout
    assert facts_below(album) == after
    assert run("apply", "removed/undo.ndjson", "--undo").stdout == "moved 2 files back\n"
    assert facts_below(album) == before


@pytest.mark.parametrize("form", ["csv", "json"])
def test_decisions_of_a_person(album, form):
    run("remove-duplicates", "photos", "-o", "d.csv")
    rows = pl.read_csv("d.csv", infer_schema=False).select("path", "cluster_id", "size", "modified")
    decided = rows.with_columns(
        decision=pl.when(pl.col("path") == "photos/a/1.jpg").then(pl.lit("remove")).otherwise(pl.lit("keep"))
    )
    getattr(decided, f"write_{form}")(f"decisions.{form}")
    assert run("apply", f"decisions.{form}", "--move-to", "removed").stdout == "moved 1 files into removed\n"
    assert (album / "removed/photos/a/1.jpg").exists()


def test_a_changed_file_is_named_and_the_exit_code_is_1(album):
    run("remove-duplicates", "photos", "-o", "d.csv")
    (album / "photos/b/1.jpg").write_bytes(b"edited")
    result = run("apply", "d.csv", "--move-to", "removed", code=1)
    assert result.stdout == "moved 1 files into removed\n"
    assert "not moved: photos/b/1.jpg: has changed since it was hashed\n" in result.stderr
    assert (album / "photos/b/1.jpg").read_bytes() == b"edited"


def test_bytes_are_checked_where_there_is_a_digest(album):
    run("visual-hash", "photos", "-o", "hashed.csv")
    run("remove-duplicates", "hashed.csv", "-o", "d.csv")
    path = album / "photos/b/1.jpg"
    stat = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    result = run("apply", "d.csv", "--move-to", "removed", code=1)
    assert "not moved: photos/b/1.jpg: has other bytes than when it was hashed\n" in result.stderr


def test_a_file_or_pipe_gets_every_reason(album):
    names = ["photos/a/1.jpg", *(f"missing/{number}.jpg" for number in range(30))]
    pl.DataFrame({"path": names, "cluster_id": 0, "kept": [True] + [False] * 30}).write_csv("d.csv")
    said = run("apply", "d.csv", "--move-to", "removed", code=1).stderr
    assert [line for line in said.splitlines() if "is not a file here" in line] == [
        f"not moved: {name}: is not a file here" for name in names[1:]
    ]


def test_rows_that_match_a_reference_row_need_the_command_that_compares(album):
    run("remove-duplicates", "photos/b", "--reference", "photos/a", "-o", "d.csv")
    said = run("apply", "d.csv", "--move-to", "removed", code=1).stderr
    assert "not moved: photos/b/1.jpg: no kept file of its cluster is here, as it was hashed\n" in said
    result = run("remove-duplicates", "photos/b", "--reference", "photos/a", "--move-removed", "removed")
    assert "moved 2 files into removed\n" in result.stdout


def test_a_table_without_facts_says_so(album):
    pl.DataFrame({"file": ["a/1.jpg", "b/1.jpg"], "cluster_id": [0, 0], "kept": [True, False]}).write_csv("d.csv")
    result = run("apply", "d.csv", "--source", "file", "--base-dir", "photos", "--move-to", "removed")
    assert "files that have changed since are not noticed: the table has no size, modified, sha256\n" in result.stderr
    assert (album / "removed/photos/b/1.jpg").exists()


@pytest.mark.skipif(os.name == "nt", reason="links")
@pytest.mark.parametrize("link", ["hard", "symbolic"])
def test_links(album, link):
    before = facts_below(album)
    run("remove-duplicates", "photos", "-o", "d.csv")
    run("apply", "d.csv", "--move-to", "removed", "--link", link)
    assert (album / "photos/b/1.jpg").samefile(album / "photos/a/1.jpg")
    run("remove-duplicates", "photos", "-o", "again.csv")
    result = run("apply", "again.csv", "--move-to", "removed-again", code=1)
    assert result.stdout == "moved 0 files into removed-again\n"
    run("apply", "removed/undo.ndjson", "--undo")
    assert facts_below(album) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["d.csv"], "--move-to is missing"),
        (["no.csv", "--move-to", "removed"], "no such file: 'no.csv'"),
        (["photos", "--move-to", "removed"], "no such file: 'photos'"),
        (["photos/a/1.jpg", "--move-to", "removed"], "unknown input ending '.jpg'"),
        (["d.csv", "--move-to", "photos/a/removed"], "is in the source 'photos/a'"),
        (["d.csv", "--move-to", "no/removed"], "no such folder: 'no'"),
        (["d.csv", "--move-to", "d.csv"], "is not a folder"),
        (["d.csv", "--move-to", "removed", "--link", "soft"], "--link must be hard or symbolic, got 'soft'"),
        (["d.csv", "--move-to", "removed", "--undo"], "--move-to has no effect with --undo"),
        (["d.csv", "--source", "file", "--undo"], "--source has no effect with --undo"),
        (["d.csv", "--undo"], "is not a journal of moves"),
        (["d.csv", "--move-to", "removed", "--source", "file"], "the decisions have no paths in 'file'"),
        (["response.json", "--move-to", "removed"], "is a documented response"),
    ],
)
def test_wrong_calls_change_nothing(album, words, said):
    run("remove-duplicates", "photos", "-o", "d.csv")
    run("remove-duplicates", "photos", "-o", "response.json")
    before = facts_below(album)
    result = run("apply", *words, code=2)
    assert said in result.stderr
    assert "\nHint: " in result.stderr
    assert facts_below(album) == before
    assert not (album / "removed").exists()


def test_an_empty_table(album):
    (album / "d.csv").write_text("path,cluster_id,decision\n")
    assert run("apply", "d.csv", "--move-to", "removed").stdout == "moved 0 files into removed\n"
    assert not (album / "removed").exists()


def test_as_a_program(album):
    """With strict warnings, and a line break in a name."""
    (album / "photos/b/2.jpg").rename(album / "photos/b/2\n.jpg")
    run("remove-duplicates", "photos", "-o", "d.csv")
    done = subprocess.run([*PROGRAM, "apply", "d.csv", "--move-to", "removed"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "moved 2 files into removed\n"), done.stderr
    assert (album / "removed/photos/b/2\n.jpg").exists()


@ON_A_SYSTEM_WITH_TERMINALS
def test_a_terminal_shows_the_progress_and_the_first_reasons(album):
    names = ["photos/a/1.jpg", *(f"missing/{number}.jpg" for number in range(30)), "photos/b/1.jpg"]
    pl.DataFrame({"path": names, "cluster_id": 0, "kept": [True] + [False] * 31}).write_csv("d.csv")
    code, seen = on_a_terminal("apply", "d.csv", "--move-to", "removed")
    assert code == 1
    assert re.search(r"moving .*1/1", seen)
    assert seen.count("is not a file here") == 10
    assert "not moved: 20 more" in seen


@ON_A_SYSTEM_WITH_SIGNALS
def test_ctrl_c_says_how_to_go_on(album):
    run("remove-duplicates", "photos", "-o", "d.csv")
    before = facts_below(album)
    code = """
import os, signal
from imgmatch_df.cli import main
rename, done = os.rename, []
def interrupted(old, new):
    rename(old, new)
    done.append(new)
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGINT)
os.rename = interrupted
main()
"""
    words = ["apply", "d.csv", "--move-to", "removed"]
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, *words], capture_output=True, text=True)
    said = "interrupted, undo.ndjson of the folder lists the moves; the same call moves the other files\n"
    assert (done.returncode, done.stderr) == (130, said)
    assert run(*words).stdout == "moved 1 files into removed\n"
    for name in ("undo-2.ndjson", "undo.ndjson"):
        run("apply", f"removed/{name}", "--undo")
    assert facts_below(album) == before
    assert not list(album.rglob(".imgmatch*"))
