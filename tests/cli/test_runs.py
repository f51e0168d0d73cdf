"""What commands leave for schedulers: exit codes with --max-failed, --summary-json and --log-format."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from drawing import draw, jpeg
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.cli import runs
from imgmatch_df.cli.app import app
from imgmatch_df.progress import METER

N_GOOD, N_BROKEN = 7, 2
PROGRAM = [sys.executable, "-W", "error", "-c", "from imgmatch_df.cli import main; main()"]


def call(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """The working directory, with `photos` of which two are broken."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number in range(N_GOOD):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(jpeg(draw(number // 2)))
    for name in "xy":
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(jpeg(draw(1))[:300])
    return tmp_path


def summary(path="summary.json"):
    return json.loads(Path(path).read_text(encoding="utf-8"))


COMMANDS = {
    "visual-hash": ["visual-hash", "photos", "-o", "o.parquet"],
    "store": ["visual-hash", "photos", "-o", "o.duckdb"],
    "remove-duplicates": ["remove-duplicates", "photos", "--radius", 1, "-o", "o.csv"],
    "kept by --store": ["remove-duplicates", "photos", "--radius", 1, "-o", "o.csv", "--store", "kept.duckdb"],
    "rank-images": ["rank-images", "photos/1.jpg", "photos", "-o", "o.json"],
    "find-copies": ["find-copies", "photos", "-o", "o.ndjson"],
    "advise": ["advise", "photos"],
    "report": ["report", "photos", "--radius", 4, "-o", "o.html"],
}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_a_limit_and_a_summary(here, name):
    words = COMMANDS[name]
    call(*words, "--summary-json", "summary.json", code=1)
    found = summary()
    assert (found["command"], found["exit_code"], found["error"]) == (words[0], 1, None)
    assert found["version"] == imgmatch_df.__version__
    assert (found["n_rows"], found["n_failed"]) == (N_GOOD + N_BROKEN, N_BROKEN)
    assert found["status"] == {"ok": N_GOOD, "decode_failed": N_BROKEN}
    assert found["outputs"] == [word for word in words if str(word).startswith(("o.", "kept."))][::-1]
    for path in here.glob("*.duckdb"):
        path.unlink()
    for limit, code in ((N_BROKEN, 0), (N_BROKEN - 1, 1), ("23%", 0), ("22.2%", 1), ("100%", 0), (0, 1)):
        call(*words, "--max-failed", limit, "--strict", "--summary-json", "summary.json", code=code)
        assert summary()["exit_code"] == code


def test_counts_of_verbs():
    call(*COMMANDS["remove-duplicates"], "--max-failed", "9", "--summary-json", "s.json")
    kept = pl.read_csv("o.csv", columns=["kept"])["kept"].sum()
    assert (summary("s.json")["n_kept"], summary("s.json")["n_removed"]) == (kept, N_GOOD + N_BROKEN - kept)
    words = ["match", "photos", "photos", "--hash-type", "phash", "--radius", 0, "-o", "m.csv"]
    call(*words, "--summary-json", "s.json", code=3)
    found = summary("s.json")
    assert (found["exit_code"], found["n_matched"], found["n_failed"]) == (3, N_GOOD, N_BROKEN)
    assert found["n_pairs"] == pl.read_csv("m.csv", columns=["query_id"]).height > N_GOOD
    (Path("more") / "sub").mkdir(parents=True)
    Path("more/0.jpg").write_bytes(Path("photos/0.jpg").read_bytes())
    call("leaks", "photos", "more", "-o", "l.csv", "--summary-json", "s.json", "--log-format", "json", code=3)
    found = summary("s.json")
    assert (found["exit_code"], found["n_rows"], found["n_pairs"]) == (3, N_GOOD + N_BROKEN + 1, 2)
    call("leaks", "photos", "more", "-o", "l.csv", "--max-leakage", 1, "--max-failed", N_BROKEN, code=0)
    call(*COMMANDS["find-copies"], "--max-failed", "9", "--summary-json", "s.json")
    assert summary("s.json")["n_pairs"] == pl.read_ndjson("o.ndjson").height > 0


def test_failed_rows_of_an_earlier_run_fail_no_rerun(here):
    words = [*COMMANDS["store"], "--summary-json", "s.json"]
    call(*words, code=1)
    call(*words)
    found = summary("s.json")
    assert (found["n_new"], found["n_skipped"], found["n_failed"], found["n_failed_before"]) == (0, 9, 2, 2)
    assert found["status"] == {"ok": N_GOOD, "decode_failed": N_BROKEN}
    call(*words, "--strict", code=1)
    call(*words, "--retry-failed", code=1)  # it fails now
    assert summary("s.json")["n_retried"] == N_BROKEN
    call(*words)
    (here / "photos" / "z.jpg").write_bytes(b"no image")
    call(*words, code=1)
    (here / "photos" / "z.jpg").write_bytes(b"another one, that is no image")
    call(*words, code=1)  # it has changed
    call(*words)


def test_write_summary_as_dict(here):
    rows = imgmatch_df.scan_images("photos").collect()
    done = imgmatch_df.write_hashes(rows, "s.duckdb", source="path").to_dict()
    assert json.loads(json.dumps(done)) == done
    assert done["status"] == {"ok": N_GOOD, "decode_failed": N_BROKEN}
    assert done["n_rows"] == done["n_new"] == rows.height
    given = pl.concat([imgmatch_df.read_hashes("s.duckdb").select("source", "phash")] * 2)
    assert imgmatch_df.write_hashes(given, "t.duckdb").to_dict()["status"] == {"ok": N_GOOD, "no_hash": N_BROKEN}


@pytest.mark.parametrize("limit", ["-1", "1.5", "x", "", "%", "101%", "-1%", "nan%", "inf%", "1e3"])
def test_a_limit_that_is_none_is_refused(limit):
    said = call("visual-hash", "photos", "-o", "o.csv", f"--max-failed={limit}", code=2).stderr
    assert "--max-failed must be" in said
    assert "Hint:" in said


def test_a_summary_replaces_only_a_summary(here):
    call("visual-hash", "photos", "-o", "o.csv", "--summary-json", "s.json", code=1)
    call("visual-hash", "nothing", "-o", "o.csv", "--summary-json", "s.json", code=2)
    found = summary("s.json")
    assert (found["exit_code"], found["n_rows"], found["outputs"]) == (2, 0, [])
    assert "no such file or folder" in found["error"]
    (here / "mine.json").write_text('{"command": 1}')
    (here / "empty").mkdir()
    for name, said in (
        ("mine.json", "is not a summary"),
        ("photos/1.jpg", "is not a summary"),
        ("o.csv", "a file that the command uses"),
        ("./o.csv", "a file that the command uses"),
        ("empty", "is a folder"),
        ("no/s.json", "no such folder"),
    ):
        before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
        assert said in call("visual-hash", "photos", "-o", "o.csv", "--summary-json", name, code=2).stderr
        assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_a_summary_on_standard_output_stands_there_alone():
    for name, words in COMMANDS.items():
        if name != "advise":
            assert json.loads(call(*words, "--summary-json", "-", code=1).stdout)["n_failed"] == N_BROKEN
    # CSV for the pipe and the summary would be one text.
    said = call("visual-hash", "photos", "--summary-json", "-", code=2)
    assert "both for standard output" in said.stderr
    assert json.loads(said.stdout)["exit_code"] == 2


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_killed_run_leaves_no_summary(here):
    call(*COMMANDS["store"], "--summary-json", "s.json", code=1)
    os.mkfifo(here / "photos" / "zz.jpg")  # nobody writes into it
    data = jpeg(draw(1, 300, 300))
    for number in range(2000):
        (here / "photos" / f"more{number}.jpg").write_bytes(data)
    running = subprocess.Popen([*PROGRAM, *map(str, COMMANDS["store"]), "--summary-json", "s.json"])
    while (here / "s.json").exists() and running.poll() is None:
        time.sleep(0.01)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    assert not (here / "s.json").exists()


def events(text):
    found = [json.loads(line) for line in text.splitlines()]
    for event in found:
        assert datetime.fromisoformat(event["time"]).tzinfo is not None
    return found


def test_the_log_is_json(monkeypatch):
    monkeypatch.setattr(runs, "_LOG_EVERY_S", 0.001)
    before = METER.counts()
    said = call(*COMMANDS["remove-duplicates"], "--log-format", "json", code=1)
    found = events(said.stderr)
    failed = [(event["source"], event["status"]) for event in found if event["event"] == "row_failed"]
    assert failed == [("photos/x.jpg", "decode_failed"), ("photos/y.jpg", "decode_failed")]
    assert {"level": "info", "event": "message", "message": "2 of 9 failed: decode_failed 2"}.items() <= found[
        -4
    ].items()
    assert (found[-1]["event"], found[-1]["exit_code"], found[-1]["n_rows"]) == ("end", 1, N_GOOD + N_BROKEN)
    assert METER.counts().n_done - before.n_done == N_GOOD + N_BROKEN
    assert METER.counts().n_rows - before.n_rows == N_GOOD + N_BROKEN
    assert METER.shows_bar


def test_the_log_has_the_progress(here, monkeypatch):
    for number in range(600):
        (here / "photos" / f"more{number}.jpg").write_bytes(jpeg(draw(number, 40, 40)))
    monkeypatch.setattr(runs, "_LOG_EVERY_S", 0.02)
    found = events(call("visual-hash", "photos", "-o", "o.duckdb", "--log-format", "json", code=1).stderr)
    progress = [event for event in found if event["event"] == "progress"]
    done = [event["n_done"] for event in progress]
    assert done == sorted(done)
    assert 0 < done[-1] <= progress[-1]["n_rows"] == 600 + N_GOOD + N_BROKEN
    text = call("visual-hash", "photos", "-o", "p.duckdb", "--log-format", "text", code=1).stderr
    assert " of 609 rows, " in text
    assert all(datetime.fromisoformat(line.split()[0]) for line in text.splitlines())


def test_errors_are_in_the_log():
    found = events(call("visual-hash", "no\nthing", "-o", "o.csv", "--log-format", "json", code=2).stderr)
    assert [(event["level"], event["event"]) for event in found] == [("error", "message"), ("error", "end")]
    assert "Hint:" in found[0]["message"]
    assert "--log-format must be" in call("visual-hash", "photos", "--log-format", "xml", code=2).stderr
