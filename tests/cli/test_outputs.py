"""Outputs: a registry of formats, and files that one run writes, complete or not at all."""

import signal
import subprocess
import sys

import polars as pl
import pytest
from drawing import draw, jpeg
from typer.testing import CliRunner

from imgmatch_df.cli import formats
from imgmatch_df.cli.app import app
from imgmatch_df.cli.outputs import suffixes_text
from imgmatch_df.store import locks


def call(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


def write_psv(frame, target, _has_images):
    frame.sink_csv(target, separator="|")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in (1, 2, 3):
        (folder / f"{number}.jpg").write_bytes(jpeg(draw(number)))
    (folder / "again.jpg").write_bytes(jpeg(draw(1)))
    return folder


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A file of a format that this package does not have."""
    monkeypatch.setitem(formats.OUTPUT_FORMATS, ".psv", None)  # which is undone at the end
    formats.register_format(formats.Format(".psv", write_psv, nests=False, holds_nan=False))
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "o.psv"


def test_every_command_writes_a_registered_format(photos, out):
    call("visual-hash", photos, "-o", out)
    hashed = pl.read_csv(out, separator="|", infer_schema=False)
    assert hashed["status"].to_list() == ["ok"] * 4
    assert hashed["phash"].str.len_chars().to_list() == [64] * 4  # it holds no bytes, so hashes are text
    call("remove-duplicates", photos, "-o", out)
    found = pl.read_csv(out, separator="|", infer_schema=False)
    assert found["kept"].to_list() == ["true", "true", "true", "false"]
    found = call("rank-images", photos / "1.jpg", photos, "-k", 2, "-o", out, "--prefix", "x_")
    assert "it is replaced if this run succeeds" in found.stderr
    assert pl.read_csv(out, separator="|", infer_schema=False)["x_distance"].to_list() == ["0", "0"]


def test_what_it_cannot_hold_is_said(photos, out):
    table = pl.DataFrame(
        {"path": [str(photos / "1.jpg")], "tags": [["a"]], "at": [{"x": 1}], "raw": [b"1"], "n": [1e999]}
    )
    table.write_parquet(out.with_name("in.parquet"))
    said = call("visual-hash", out.with_name("in.parquet"), "-o", out).stderr
    assert "a column for each field, because .psv cannot nest: at\n" in said
    assert "left out, because .psv cannot hold it: tags (List(String)), raw (Binary); .parquet holds it\n" in said
    assert "written as null, because .psv cannot hold NaN and infinity: n" in said
    assert {"tags", "raw", "at.x"} & set(pl.read_csv(out, separator="|", infer_schema=False).columns) == {"at.x"}


def test_errors_and_help_list_the_formats(photos, out):
    assert ".json, .psv\n" in call("visual-hash", photos, "-o", "x.nope", code=2).stderr
    assert suffixes_text(tables_only=True) == ".parquet, .csv, .tsv, .ndjson, .jsonl, .arrow, .ipc, .feather or .psv"
    for command in ("visual-hash", "remove-duplicates", "rank-images"):
        said = " ".join(call(command, "--help").stdout.replace("│", " ").split())
        assert f"{suffixes_text().replace(', .json or .psv', ' or .json')}; else the screen." in said


def test_what_a_killed_run_left_is_removed(photos, out):
    out = out.with_suffix(".csv")
    code = (
        "import os, sys\nfrom imgmatch_df.cli.outputs import written_whole\n"
        f"with written_whole(sys.argv[1], None) as path:\n    os.kill(os.getpid(), {signal.SIGTERM:d})\n"
    )
    subprocess.run([sys.executable, "-c", code, out], check=False)
    assert sorted(path.name for path in out.parent.iterdir()) == [".o.csv.lock", ".o.csv.partial"]
    call("visual-hash", photos, "-o", out)
    assert [path.name for path in out.parent.iterdir()] == ["o.csv"]


def test_one_run_at_a_time_writes_a_file(photos, out, monkeypatch):
    monkeypatch.setattr(locks, "WAIT_S", 0.0)
    with locks.sole_writer(out):
        said = call("visual-hash", photos, "-o", out, code=2).stderr
    assert f"{str(out)!r} is in use by this process" in said.replace("\n", "")
    call("visual-hash", photos, "-o", out)
