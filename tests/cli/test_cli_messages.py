"""What the commands say beside their results: left-out files, failed rows, warnings and hints, in clean short lines."""

import base64
import re
import subprocess
import sys
import warnings
from pathlib import Path

import polars as pl
import pytest
from drawing import draw, jpeg
from terminal import ON_A_SYSTEM_WITH_TERMINALS, on_a_terminal
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.cli.app import app
from imgmatch_df.frames import clustering
from imgmatch_df.hashes.kinds import KINDS

PROGRAM = [sys.executable, "-W", "error", "-c", "from imgmatch_df.cli import main; main()"]


def call(*words, code=0):
    if "-o" in words and not str(out := words[words.index("-o") + 1]).endswith(".duckdb"):
        Path(out).unlink(missing_ok=True)  # a word about what it replaces is for `test_tables`
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory: `photos` with an image and its copy, and more in `far`."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("photos/a.JPG", 1), ("photos/sub/b.jpg", 2), ("far/c.jpg", 3)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(draw(seed)))
    return tmp_path


@pytest.fixture
def left_out(here):
    """A line for what stands in `photos` and is left out now."""
    for name in ("x.PSD", "sub/y.psd", "z.xcf", "a.JPG.xmp", "no suffix"):
        (here / "photos" / name).write_bytes(b"x")
    (here / "photos" / "link").symlink_to(here / "far")
    return "left out: 2 .psd, 1 .xcf; 2 other files (1 without a suffix, 1 .xmp); 1 linked folder\n"


# What is left out


def test_every_folder_input_says_what_it_leaves_out(left_out):
    commands = [
        *(["visual-hash", "photos", "-o", f"o.{ending}"] for ending in ("csv", "parquet", "ndjson", "json", "duckdb")),
        ["visual-hash", "photos"],
        ["remove-duplicates", "photos", "--radius", 1],
        ["remove-duplicates", "photos", "--radius", 1, "--list-removed"],
        ["remove-duplicates", "photos", "--radius", 1, "-o", "o.csv"],
        ["rank-images", "far/c.jpg", "photos"],
        ["rank-images", "far/c.jpg", "photos", "-o", "o.json"],
    ]
    for words in commands:
        assert call(*words).stderr == left_out, words
    assert call("remove-duplicates", "far", "--reference", "photos", "--radius", 1).stderr == left_out.replace(
        "left out:", "left out of --reference:"
    )
    assert pl.read_csv(call("visual-hash", "photos").stdout_bytes, infer_schema=False).height == 2
    assert call("visual-hash", "far").stderr == ""
    n = imgmatch_df.count_left_out("photos")["n"].sum()
    assert n == 2 + 1 + 2 + 1


def test_a_glob_says_what_it_passes_over(left_out, here):
    (here / "photos" / ".hidden").mkdir()
    (here / "photos" / "self").symlink_to(here / "photos")
    result = call("visual-hash", "photos/**/*.jpg", "-o", "o.parquet")
    assert result.stderr == "left out: 1 linked folder; 1 hidden folder\n"
    assert pl.read_parquet("o.parquet")["path"].to_list() == ["photos/a.JPG", "photos/link/c.jpg", "photos/sub/b.jpg"]


def test_a_folder_of_nothing_but_other_formats_says_so(here, without_extras):
    (here / "phone").mkdir()
    (here / "phone" / "x.HEIC").write_bytes(b"x")
    stderr = call("visual-hash", "phone", code=2).stderr
    assert stderr.startswith(
        "imgmatch: no images in 'phone', left out: 1 .heic (pip install 'imgmatch-df[heif]')\nHint: "
    )


def test_an_image_of_a_format_that_is_not_read_is_a_row_that_says_so(here, without_extras):
    (here / "x.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    for source in ("x.HEIC", "*.heic"):
        result = call("visual-hash", source, "photos", "-o", "o.parquet", code=1)
        assert result.stderr.splitlines()[1].startswith("  x.HEIC: decode_failed: HEIC images need the extra heif: ")
        assert pl.read_parquet("o.parquet")["status"].cast(pl.String).to_list() == ["decode_failed", "ok", "ok"]
    (here / "x.docx").write_bytes(b"x")
    assert "unknown input ending '.docx'" in call("visual-hash", "x.docx", code=2).stderr


def test_the_home_directory(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("USERPROFILE", str(here))
    pl.DataFrame({"url": [str(here / "far/c.jpg")]}).write_csv(here / "in.csv")
    monkeypatch.chdir(here / "far")
    for source, n_rows in (("~/photos", 2), ("~/photos/*.jpg", 1), ("~/in.csv", 1), ("~/far/c.jpg", 1)):
        call("visual-hash", source, "-o", here / "o.parquet")
        assert pl.read_parquet(here / "o.parquet").height == n_rows
    result = call("remove-duplicates", "c.jpg", "--reference", "~/far", "-o", here / "o.csv")
    assert "1 of them match" in result.stdout
    assert call("rank-images", "~/far/c.jpg", "~/photos", "-k", 1).stdout.count("\n") == 2


# Rows that failed


def test_ten_failed_rows_are_named_in_order(here):
    for number in range(600):
        (here / "photos" / f"{number:03}.jpg").write_bytes(b"" if number % 5 == 3 else jpeg(draw(number, 20, 20)))
    named = "".join(f"  photos/{n:03}.jpg: missing: zero bytes: photos/{n:03}.jpg\n" for n in range(3, 53, 5))
    said = f"120 of 602 failed: missing 120\n{named}  and 110 more\n"
    for out in ("o.csv", "o.parquet", "o.json"):
        for words in (
            ["visual-hash", "photos"],
            ["remove-duplicates", "photos", "--radius", 1],
            ["rank-images", "far/c.jpg", "photos"],
        ):
            assert call(*words, "-o", out, code=1).stderr == said
    again = "--retry-failed tries them again\n"
    store = ["visual-hash", "photos", "-o", "s.duckdb"]
    assert call(*store, code=1).stderr == f"{named}  and 110 more\n{again}"
    # Rows that are stored and unchanged are named again.
    before = "120 failed in an earlier run, which --strict would count; "
    assert call(*store).stderr == f"{named}  and 110 more\n{before}{again}"
    assert call(*store, "--strict", code=1).stderr == f"{named}  and 110 more\n{again}"
    call("visual-hash", "photos", "-o", "o.parquet", code=1)
    for words in (["remove-duplicates", "s.duckdb", "--radius", 1], ["rank-images", "far/c.jpg", "o.parquet"]):
        assert call(*words, "-o", "o2.csv", code=1).stderr == said
    # Only rows of this run, not others of the store.
    assert call("visual-hash", "photos/00*.jpg", "-o", "s.duckdb", "--strict", code=1).stderr == (
        "".join(named.splitlines(keepends=True)[:2]) + again
    )


@pytest.mark.parametrize("ending", ["csv", "parquet", "json", "duckdb"])
def test_names_are_short_and_clean_and_images_are_never_shown(here, ending):
    image = base64.b64encode(jpeg(draw(1))[:900]).decode()
    urls = [
        image,
        f"data:image/jpeg;base64,{image}",
        "no such\x1b[31m\n\u202e\u2028file.jpg",
        "x/" * 400 + ".jpg",
        "http://user:secret@127.0.0.1/a.jpg?token=secret",
        None,
        "photos/a.JPG",
    ]
    pl.DataFrame({"url": urls}).filter(pl.col("url").is_not_null() | (ending != "duckdb")).write_parquet("in.parquet")
    stderr = call("visual-hash", "in.parquet", "-o", f"o.{ending}", code=1).stderr
    named = [line for line in stderr.splitlines() if line.startswith("  ")]
    assert len(named) == 6 - (ending == "duckdb")
    assert image[:30] not in stderr
    assert "secret" not in stderr
    assert all(line.isprintable() and len(line) < 500 for line in stderr.splitlines())
    if ending != "duckdb":
        assert [line.split(":")[0].strip() for line in named[:2]] == ["row 0 (base64)", "row 1 (a data"]
        assert named[5].startswith("  row 5: missing: ")
    assert any(line.startswith("  http://127.0.0.1/a.jpg?token=…: fetch_blocked: ") for line in named)


def test_rows_of_bytes_have_a_number_and_those_with_a_path_their_path(here):
    data = [jpeg(draw(1)), b"bad", None, b"worse"]
    pl.DataFrame({"image": data}).write_parquet("bytes.parquet")
    pl.DataFrame({"image": [{"bytes": one, "path": f"{row}.jpg"} for row, one in enumerate(data)]}).write_parquet(
        "hf.parquet"
    )
    for table, names in (("bytes", ["row 1", "row 2", "row 3"]), ("hf", ["1.jpg", "2.jpg", "3.jpg"])):
        for verb in (["visual-hash"], ["remove-duplicates", "--radius", 1], ["rank-images", "far/c.jpg"]):
            stderr = call(*verb, f"{table}.parquet", "-o", "o.parquet", code=1).stderr
            assert [line.split(":")[0].strip() for line in stderr.splitlines() if line.startswith("  ")] == names


def test_a_store_with_another_key_names_the_rows(here):
    pl.DataFrame({"sku": [7, 8], "image": [b"bad", jpeg(draw(1))], "url": ["x", "y"]}).write_parquet("in.parquet")
    words = ("visual-hash", "in.parquet", "--key", "sku", "--source")
    kept = "not stored, a store keeps only the key, the source and the hashes: url\n"
    assert call(*words, "image", "-o", "a.duckdb", code=1).stderr.startswith(f"{kept}  sku 7: decode_failed: ")
    kept = kept.replace("url", "image")
    assert call(*words, "url", "-o", "b.duckdb", code=1).stderr.startswith(f"{kept}  x: not_found: ")


# Hints and warnings


@pytest.mark.parametrize("hash_type", [name for name, kind in KINDS.items() if kind.is_perceptual])
def test_radius_0_that_finds_nothing_hints_at_the_advised_radius(here, hash_type):
    said = f"equal hashes only; --radius {KINDS[hash_type].near_radius} finds edited copies\n"
    words = ("remove-duplicates", "photos", "--hash-type", hash_type)
    documents = [["-o", "o.json"]] if KINDS[hash_type].documented else []
    for more in ([], ["--radius", 0], ["-o", "o.csv"], ["-o", "o.parquet"], *documents, ["--list-removed"]):
        assert call(*words, *more).stderr == said
    assert call(*words, "--reference", "far").stderr == said
    assert call(*words, "--radius", 1).stderr == ""
    assert call("remove-duplicates", "far").stderr == ""  # one image has no copy
    (here / "photos" / "again.jpg").write_bytes((here / "photos" / "a.JPG").read_bytes())
    assert call(*words).stderr == ""


@pytest.mark.parametrize("text", ["110 of 112 rows are one cluster", "too far\nHint: take less"])
def test_warnings_of_ours_are_clean_lines_said_once(here, monkeypatch, text):
    cluster = clustering.cluster

    def warn(*args, **options):
        warnings.warn(text, imgmatch_df.ImgMatchWarning, stacklevel=1)
        return cluster(*args, **options)

    monkeypatch.setattr(clustering, "cluster", warn)
    result = call("remove-duplicates", "photos", "--radius", 1, "-o", "o.csv")
    assert result.stderr == f"warning: {text}\n"
    assert warnings.showwarning.__module__ != "imgmatch_df.cli.exit_codes"  # as before the call


def test_warnings_of_others_stay_as_they_are(here, monkeypatch):
    monkeypatch.setattr(clustering, "cluster", lambda *_, **__: warnings.warn("theirs", UserWarning, stacklevel=1))
    with pytest.warns(UserWarning, match="theirs"):
        CliRunner().invoke(app, ["remove-duplicates", "photos", "--radius", "1", "-o", "o.csv"])


def test_nothing_of_python_is_seen_in_a_program(left_out):
    for words in (["visual-hash", "photos"], ["remove-duplicates", "photos", "-o", "o.csv"]):
        result = subprocess.run([*PROGRAM, *words], capture_output=True, timeout=250, text=True)
        assert result.returncode == 0
        assert result.stderr.startswith(left_out)
        assert ".py" not in result.stderr


# On a terminal


@ON_A_SYSTEM_WITH_TERMINALS
@pytest.mark.parametrize("columns", [40, 80])
def test_prose_wraps_between_words(left_out, here, columns):
    (here / "photos" / "broken in the middle of a long name.jpg").write_bytes(jpeg(draw(1))[:300])
    code, seen = on_a_terminal("visual-hash", "photos", "-o", "o.duckdb", "--no-progress", columns=columns)
    assert code == 1
    lines = seen.removeprefix("\x1b[0m").splitlines()
    assert max(map(len, lines)) <= columns
    assert " ".join(seen.split()).count(left_out.strip()) == 1
    assert "broken in the middle of a long name.jpg: decode_failed: truncated JPEG" in " ".join(seen.split())
    assert all(line == line.rstrip() for line in lines)


@ON_A_SYSTEM_WITH_TERMINALS
def test_the_interesting_columns_are_on_a_narrow_screen(here):
    folder = Path("a long name of a folder of images", "and another one below it")
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(jpeg(draw(1), quality=95 - number))
    hashes = pl.DataFrame({"path": sorted(map(str, folder.iterdir())), "phash": [16, 17, 19, 23, 31]})
    hashes.with_columns(pl.col("phash").cast(pl.UInt64)).write_parquet("h.parquet")

    def lines(*words):
        code, seen = on_a_terminal(*words, "--no-progress", columns=80)
        assert code == 0
        found = re.sub(r"\x1b\[[0-9;]*m", "", seen).splitlines()
        assert max(map(len, found)) <= 80
        return [line.rstrip() for line in found]

    first, heading, *cells = lines("remove-duplicates", "h.parquet", "--radius", 1)
    assert first == "kept 1 of 5 rows, removed 4; failed 0"
    assert re.split(" {2,}", heading) == ["largest clusters: kept", "rows", "farthest copy", "distance"]
    assert re.split(" {2,}", cells[0])[1::2] == ["5", "4 bits (chained)"]  # copies of copies go farther than the radius
    assert "0.jpg" in "".join(cells)
    assert "4.jpg" in "".join(cells)
    assert "(chained)" not in "".join(lines("remove-duplicates", "h.parquet", "--radius", 4))
    heading, *ranked = lines("rank-images", folder / "0.jpg", folder, "-k", 2)
    assert heading.split() == ["rank", "distance", "source", "size"]
    assert "".join(ranked).count("67 x 45") == 2


@pytest.mark.parametrize("ending", [".duckdb", ".parquet", ".csv"])
def test_a_name_that_the_system_refuses_has_a_hint(here, ending):
    (here / "a.jpg").write_bytes(jpeg(draw(1, 30, 30)))
    result = CliRunner().invoke(app, ["visual-hash", "a.jpg", "-o", f"{'x' * 300}{ending}"])
    assert result.exit_code == 2
    assert "File name too long\nHint: " in result.stderr
