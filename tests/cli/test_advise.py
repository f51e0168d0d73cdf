"""`imgmatch advise`: a table of radii, the suggestion, and the reason."""

import io

import numpy as np
import polars as pl
import pytest
from PIL import Image
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.cli.app import app

pytestmark = pytest.mark.long


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Draw a folder of six images and a copy of one."""
    rng = np.random.default_rng(3)
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(6):
        image = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)
        image.save(folder / f"{n}.png")
    image.resize((80, 60)).save(folder / "copy.jpg")
    monkeypatch.chdir(tmp_path)
    return folder


def run(*words):
    return CliRunner().invoke(app, ["advise", *map(str, words), "--no-progress"])


def test_a_pipe_has_the_profile(photos):
    done = run("photos")
    assert done.exit_code == 0
    found = pl.read_csv(io.StringIO(done.stdout))
    expected = imgmatch_df.scan_images("photos").imgmatch.visual_hash("path").collect().imgmatch.profile_radii()
    names = ["radius", "n_pairs", "n_clusters", "n_removed", "n_largest"]
    assert_frame_equal(found.select(names), expected.select(names), check_dtypes=False)
    assert "7 hashes, bmh1: too few different hashes for an estimate: 24 bits" in " ".join(done.stderr.split())


def test_a_store_a_file_and_edits(photos):
    assert CliRunner().invoke(app, ["visual-hash", "photos", "-o", "h.duckdb", "--no-progress"]).exit_code == 0
    assert run("h.duckdb", "--hash-type", "phash", "--max-radius", 9, "--edits", "-o", "p.parquet").exit_code == 0
    profile = pl.read_parquet("p.parquet")
    assert profile["radius"].to_list() == list(range(10))
    assert profile["recall"][9] > 0.5
    plain = run("h.duckdb", "--hash-type", "phash", "--max-radius", 9, "-o", "q.parquet")
    assert plain.exit_code == 0
    assert pl.read_parquet("q.parquet")["recall"].null_count() == 10


def test_the_screen_marks_the_suggestion(photos, monkeypatch):
    monkeypatch.setattr("imgmatch_df.cli.advise.is_screen", lambda: True)
    done = run("photos", "--edits")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if "→" in line] == ["24"]
    assert "recall" in done.stdout
    assert "recall" not in run("photos").stdout


def test_votes(photos, monkeypatch):
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8))
    noise = noise.resize((320, 240), Image.Resampling.BICUBIC)
    noise.save(photos / "noise.png")
    noise.crop((20, 10, 300, 230)).save(photos / "cropped.png")
    done = run("photos", "--hash-type", "local", "--min-votes", 6)
    assert done.exit_code == 0
    found = pl.read_csv(io.StringIO(done.stdout))
    assert found["min_votes"].to_list() == list(range(64, 5, -1))
    assert found["n_pairs"][-1] == 2
    assert "local: a minimum of 8 votes joins 2 pairs" in " ".join(done.stderr.split())
    monkeypatch.setattr("imgmatch_df.cli.advise.is_screen", lambda: True)
    lines = run("photos", "--hash-type", "local").stdout.splitlines()
    assert [line.split()[1] for line in lines if "→" in line] == ["8"]
    assert "min votes" in " ".join(lines)


def test_failed_rows(photos):
    (photos / "cut.jpg").write_bytes((photos / "copy.jpg").read_bytes()[:300])
    done = run("photos")
    assert done.exit_code == 1
    assert "7 hashes" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-radius", 2000], "max_radius must be"),
        (["--max-share", 2], "max_share must be"),
        (["--hash-type", "local", "--max-radius", 3], "has no radius"),
        (["--hash-type", "local", "--edits"], "--edits counts distances"),
        (["--min-votes", 8], "has no min_votes"),
        (["-o", "x.json"], "has no radii"),
        (["--flat", "no"], "flat must be"),
    ],
)
def test_wrong_calls(photos, words, message):
    done = run("photos", *words)
    assert done.exit_code == 2
    assert message in done.stderr


def test_edits_need_images(photos):
    pl.DataFrame({"phash": pl.Series([1, 2], dtype=pl.UInt64)}).write_parquet("h.parquet")
    done = run("h.parquet", "--edits")
    assert done.exit_code == 2
    assert "--edits needs the images" in done.stderr
