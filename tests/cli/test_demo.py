"""The demo: the same pictures each time, every copy found and nothing else, and no folder of others touched."""

import hashlib
import re

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.cli import demo
from imgmatch_df.cli.app import app


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    demo.draw_images(folder)
    return folder


@pytest.fixture(scope="module")
def hashed(drawn):
    return imgmatch_df.visual_hash(imgmatch_df.scan_images(drawn), "path").collect()


def call(*words):
    return CliRunner().invoke(app, ["demo", *map(str, words)], env={"COLUMNS": "120"})


def picture(column):
    """Name of the picture that a file shows, whatever was done to it."""
    return pl.col(column).str.extract(r"([a-z]+)[^/\\]*$")


def test_everything_hashes_but_the_file_that_is_cut_off(hashed):
    assert hashed.height == 41
    failed = hashed.filter(pl.col("status") != "ok")
    assert failed["status"].to_list() == ["decode_failed"]
    assert failed["path"].item().endswith("cut_off.jpg")


def test_exactly_the_copies_are_found(hashed):
    copies = demo.find_edited(hashed, demo.RADIUS)
    missed = demo.find_missed(hashed, copies)
    assert copies.height + missed.height == sum(len(edits) for _, edits in demo._IMAGES.values())
    assert copies.select((picture("original") == picture("copy")).all()).item()
    assert copies["original"].str.extract(r"([^/\\]+)$").unique().sort().to_list() == sorted(
        f"{name}.jpg" for name, (_, edits) in demo._IMAGES.items() if edits
    )


def test_the_copy_that_is_missed_is_shown_with_its_distance(hashed):
    missed = demo.find_missed(hashed, demo.find_edited(hashed, demo.RADIUS))
    assert missed.select("original", "copy").rows() == [("chess.jpg", "chess_cropped.jpg")]
    assert demo.RADIUS < missed["bmh1"].item() < 2 * demo.RADIUS
    assert demo.find_missed(hashed, demo.find_edited(hashed, missed["bmh1"].item())).is_empty()


def test_the_radius_has_room_on_both_sides(hashed):
    # Were a decoder to change a few bits, the demo must still tell copies from others.
    with pytest.warns(imgmatch_df.ImgMatchWarning, match="961 of 961 bits"):
        others = demo.find_edited(hashed, 961)
    others = others.filter(picture("original") != picture("copy"))
    assert others["bmh1"].min() > 2 * demo.RADIUS
    assert demo.find_edited(hashed, demo.RADIUS)["bmh1"].max() < demo.RADIUS


def test_find_copies_against_a_double_loop(hashed):
    rows = hashed.filter(pl.col("status") == "ok").rows(named=True)

    def distance(left, right):
        return (int.from_bytes(left["bmh1"]) ^ int.from_bytes(right["bmh1"])).bit_count()

    for radius in (0, 10, demo.RADIUS):
        pairs = {
            (left["path"], right["path"]): distance(left, right)
            for row, left in enumerate(rows)
            for right in rows[row + 1 :]
            if distance(left, right) <= radius
        }
        copies = {right for _, right in pairs}
        wanted = {pair: bits for pair, bits in pairs.items() if pair[0] not in copies}
        found = demo.find_edited(hashed, radius)
        assert dict(zip(found.select("original", "copy").iter_rows(), found["bmh1"], strict=True)) == wanted


def test_the_same_pictures_each_time(drawn, tmp_path):
    demo.draw_images(tmp_path / "new" / "folder")

    def digests(folder):
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}

    assert digests(drawn) == digests(tmp_path / "new" / "folder")


def test_what_the_user_sees(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # again into its own folder
        result = call()
        assert result.exit_code == 0, result.output
        assert "Drew 41 images into imgmatch-demo" in result.stdout
        assert "harbour_half_size.jpg" in result.stdout
        assert "3 images have no copy." in result.stdout
        assert "Not hashed: cut_off.jpg, decode_failed: " in result.stdout
        assert re.search(r"Missed: chess_cropped\.jpg, [0-9]+ bits from chess\.jpg\. A cropped image", result.stdout)
        assert "    imgmatch remove-duplicates photos --radius 24 -o kept.parquet\n" in result.stdout
    assert len(list((tmp_path / "imgmatch-demo").glob("*.*g"))) == 39  # and two .webp


@pytest.mark.parametrize("n_columns", [40, 80, 120])
def test_prose_wraps_between_words_and_commands_do_not(tmp_path, n_columns):
    folder = tmp_path / "a folder with spaces"
    result = CliRunner().invoke(app, ["demo", "--folder", str(folder)], env={"COLUMNS": str(n_columns)})
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    prose = [line for line in lines if not line.startswith("    ") and str(tmp_path) not in line]
    assert max(map(len, prose)) <= n_columns
    words = " ".join(result.stdout.split())
    assert "A cropped image with fine structure can be missed." in words
    assert "some are copies of others, one file is cut off." in words
    for line in demo._LINES:
        assert f"    {line}".rstrip() in lines


def test_the_lines_that_it_prints_run(drawn, tmp_path, monkeypatch):
    drawn_here = tmp_path / "photos"
    drawn_here.symlink_to(drawn)
    monkeypatch.chdir(tmp_path)
    _, shown = call("--folder", tmp_path / "x").stdout.split("No file is deleted.\n")
    command, *python = [line[4:] for line in shown.splitlines() if line]
    words = command.split()
    assert words[0] == "imgmatch"
    assert CliRunner().invoke(app, words[1:]).exit_code == 1
    names = {}
    exec("\n".join(python), names)
    assert_frame_equal(names["kept"], pl.read_parquet("kept.parquet"))


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "harbour.jpg").write_bytes(b"mine")
    result = call("--folder", tmp_path)
    assert result.exit_code == 2
    assert "Hint: --folder" in result.stderr
    assert "Traceback" not in result.output
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("harbour.jpg", b"mine")]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        result = call("--folder", folder)
        assert result.exit_code == 2
        assert "Hint: --folder" in result.stderr
