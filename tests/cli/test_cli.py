"""The command line: every way in and out against the frame verb, and what it says when it is called wrongly."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest
from drawing import draw, jpeg
from polars.testing import assert_frame_equal
from program import ON_A_SYSTEM_WITH_SIGNALS, PROGRAM
from terminal import ON_A_SYSTEM_WITH_TERMINALS, on_a_terminal
from typer.testing import CliRunner
from waiting import wait_until

import imgmatch_df
from imgmatch_df.batch import run
from imgmatch_df.cli.app import app
from imgmatch_df.columns import STATUS_DTYPE
from imgmatch_df.documented import responses
from imgmatch_df.hashes.kinds import KINDS, STORED_HASH_TYPES

HASHED = ["width", "height", "bmh1", "phash", "status", "detail"]
ON_A_SYSTEM_WITH_BYTES = pytest.mark.skipif(sys.platform != "linux", reason="file names are text there")


def call(*words):
    """Run the command inside this process."""
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def replaced(out):
    """Return the word about an output that is there already."""
    return f"{out} exists: it is replaced if this run succeeds\n"


def hash_files(source, out, *options):
    """Run `visual-hash`, which must succeed, and return what it wrote."""
    is_there = out.is_file()
    result = call("visual-hash", source, "-o", out, *options)
    assert (result.exit_code, result.output) == (0, replaced(out) if is_there else "")
    return read(out)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def read(path):
    """Return the columns of a hashed frame from any output."""
    match path.suffix:
        case ".parquet":
            frame = pl.read_parquet(path, glob=False)
        case ".csv":
            frame = from_text(pl.read_csv(path, infer_schema=False, glob=False))
        case ".json":
            frame = responses.parse_visual_hash_response(path).frame
        case _:
            frame = from_text(pl.read_ndjson(path))
    return frame.select(column for column in HASHED if column in frame.columns)


def from_text(frame):
    return frame.with_columns(
        pl.col("width", "height").cast(pl.UInt32),
        pl.col("status").cast(STATUS_DTYPE),
        pl.col("detail").cast(pl.String),
        *(pl.col(name).imgmatch.from_bits(name) for name in KINDS if name in frame.columns and name != "sha256"),
    )


@pytest.fixture
def expected(paths):
    return paths.imgmatch.visual_hash().select(HASHED)


@pytest.fixture
def empty(tmp_path_factory):
    """A folder to write into that holds no pictures."""
    return tmp_path_factory.mktemp("out")


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".ndjson", ".jsonl", ".json", ".PARQUET"])
def test_every_output_holds_what_the_frame_verb_gives(folder, empty, expected, ending):
    out = empty / f"out{ending}"
    if ending == ".PARQUET":
        assert call("visual-hash", folder, "-o", out).exit_code == 0
        out = out.rename(empty / "out.parquet")
        assert_frame_equal(read(out), expected)
    else:
        assert_frame_equal(hash_files(folder, out), expected)
    assert names(empty) == [out.name]


def test_a_pipe_gets_csv(folder, expected, empty):
    result = call("visual-hash", folder)
    assert result.exit_code == 0
    (empty / "piped.csv").write_bytes(result.stdout_bytes)
    assert_frame_equal(read(empty / "piped.csv"), expected)
    assert result.stderr == ""


def test_every_way_to_name_pictures(folder, empty, expected):
    for number, source in enumerate((folder, folder / "*.jpg", folder / "**" / "*.jpg", f"{folder}/picture[0-9]*")):
        assert_frame_equal(hash_files(source, empty / f"{number}.parquet"), expected)
    one = folder / "picture07.jpg"
    assert_frame_equal(hash_files(one, empty / "one.parquet"), expected[7:8])
    one = one.rename(folder / "no_ending")
    assert_frame_equal(hash_files(one, empty / "one.parquet"), expected[7:8])


def test_several_sources_come_one_after_the_other(folder, empty, expected):
    # As a shell hands on photos/*.jpg.
    paths = sorted(folder.glob("*.jpg"))
    assert call("visual-hash", *paths[5:], *paths[:5], "-o", empty / "out.parquet").exit_code == 0
    assert_frame_equal(read(empty / "out.parquet"), pl.concat([expected[5:], expected[:5]]))


def test_a_folder_gives_path_size_and_time(folder, empty):
    assert call("visual-hash", folder, "-o", empty / "out.parquet").exit_code == 0
    images = imgmatch_df.scan_images(folder).collect()
    wanted = images.imgmatch.visual_hash("path", hash_types=STORED_HASH_TYPES)
    assert_frame_equal(pl.read_parquet(empty / "out.parquet"), wanted)


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".ndjson", ".jsonl"])
def test_tables_as_input(paths, empty, expected, ending):
    table = empty / f"table{ending}"
    write = {".parquet": paths.write_parquet, ".csv": paths.write_csv}.get(ending, paths.write_ndjson)
    write(table)
    for out in (".parquet", ".csv", ".ndjson", ".json"):
        assert_frame_equal(hash_files(table, empty / f"out{out}"), expected)


def test_documented_request_in_documented_response_out(paths, folder, empty, expected):
    request = {"records": [{"_url": url, "_id": row, "mine": [1]} for row, url in enumerate(paths["url"])]}
    (empty / "request.json").write_text(json.dumps(request))
    assert_frame_equal(hash_files(empty / "request.json", empty / "response.json", "--base-dir", folder), expected)
    response = json.loads((empty / "response.json").read_text())
    assert response["status"] == {"code": 200, "text": "OK"}
    assert response["statistics"]["processing time"] > 0
    assert [record["_id"] for record in response["records"]] == [str(row) for row in range(40)]
    assert response["records"][3]["mine"] == [1]
    assert_frame_equal(hash_files(empty / "request.json", empty / "out.parquet", "--base-dir", folder), expected)


def test_a_request_says_which_hashes_unless_the_command_does(paths, folder, empty):
    request = {"records": [{"_url": paths["url"][0]}], "hash_type": "phash"}
    (empty / "request.json").write_text(json.dumps(request))
    assert "bmh1" not in hash_files(empty / "request.json", empty / "out.parquet", "--base-dir", folder).columns
    assert "bmh1" not in json.loads((empty / "request.json").read_text())["records"][0]
    assert (
        "phash"
        not in hash_files(
            empty / "request.json", empty / "out.csv", "--base-dir", folder, "--hash-types", "bmh1"
        ).columns
    )


def test_parts_of_a_table(paths, empty, expected):
    parts = empty / "parts" / "year=2026"
    parts.mkdir(parents=True)
    for part in range(4):
        paths[10 * part : 10 * part + 10].write_parquet(parts / f"{part}.parquet")
    assert_frame_equal(hash_files(empty / "parts", empty / "out.parquet"), expected)
    assert_frame_equal(hash_files(parts / "*.parquet", empty / "out.parquet"), expected)
    result = call("visual-hash", parts / "1.parquet", parts / "0.parquet", "-o", empty / "out.parquet")
    assert result.exit_code == 0
    assert_frame_equal(read(empty / "out.parquet"), pl.concat([expected[10:20], expected[:10]]))


def test_names_with_the_signs_of_a_glob(paths, empty, expected):
    paths.write_parquet(empty / "a[1].parquet")
    assert_frame_equal(hash_files(empty / "a[1].parquet", empty / "out*.parquet"), expected)
    paths.write_csv(empty / "a[1].csv")
    assert_frame_equal(hash_files(empty / "a[1].csv", empty / "out[2].csv"), expected)


def test_pictures_inside_a_table(encoded, empty, expected):
    pl.DataFrame({"id": range(40), "picture": encoded}).write_parquet(empty / "in.parquet", row_group_size=7)
    assert_frame_equal(hash_files(empty / "in.parquet", empty / "out.parquet"), expected)
    assert pl.read_parquet(empty / "out.parquet")["picture"].to_list() == encoded
    said = "left out, because the documented .json has no place for it: id\n"
    assert call("visual-hash", empty / "in.parquet", "-o", empty / "out.json").output == said
    assert_frame_equal(read(empty / "out.json"), expected)
    for ending in (".csv", ".ndjson"):
        result = call("visual-hash", empty / "in.parquet", "-o", empty / f"out{ending}")
        assert (result.exit_code, result.stderr) == (
            0,
            f"left out, because {ending} cannot hold it: picture (Binary); .parquet holds it\n",
        )
        assert_frame_equal(read(empty / f"out{ending}"), expected)
        assert "id" in (empty / f"out{ending}").read_text().splitlines()[0]


def test_images_as_hugging_face_stores_them(encoded, empty, expected):
    images = [{"bytes": data, "path": f"{row}.jpg"} for row, data in enumerate(encoded)]
    frame = pl.DataFrame({"label": ["cat"] * 40, "image": images})
    frame.write_parquet(empty / "in.parquet")
    assert_frame_equal(hash_files(empty / "in.parquet", empty / "out.parquet"), expected)
    hashed = pl.read_parquet(empty / "out.parquet")
    assert hashed.columns == [
        "width",
        "height",
        "status",
        "detail",
        "quality",
        "label",
        "image",
        "bmh1",
        "phash",
        "sha256",
    ]
    assert_frame_equal(hashed.drop("quality", "sha256"), frame.hstack(expected), check_column_order=False)
    assert call("visual-hash", empty / "in.parquet", "-o", empty / "out.json").stderr == (
        "left out, because the documented .json has no place for it: label\n"
    )
    assert_frame_equal(read(empty / "out.json"), expected)
    result = call("visual-hash", empty / "in.parquet")
    said = "left out, because .csv cannot hold it: image.bytes (Binary); .parquet holds it\n"
    assert (result.exit_code, result.stderr) == (
        0,
        "a column for each field, because .csv cannot nest: image\n" + said,
    )
    assert pl.read_csv(result.stdout_bytes, infer_schema=False)["image.path"].to_list() == [
        f"{row}.jpg" for row in range(40)
    ]


def test_text_of_a_csv_stays_as_it_is(paths, empty):
    table = paths.with_columns(code=pl.lit("007"), note=pl.lit('say "a, b"\nand c'), none=pl.lit(None, pl.String))
    table.write_csv(empty / "in.csv")
    hash_files(empty / "in.csv", empty / "out.csv")
    assert_frame_equal(pl.read_csv(empty / "out.csv", infer_schema=False).select(table.columns), table)


def test_types_of_a_late_ndjson_row_do_not_matter(paths, empty):
    rows = [{"url": paths["url"][0], "extra": 1}] * 300 + [{"url": paths["url"][1], "extra": 1.5, "late": "x"}]
    (empty / "in.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert hash_files(empty / "in.ndjson", empty / "out.parquet").height == 301
    assert pl.read_parquet(empty / "out.parquet")["late"].to_list() == [None] * 300 + ["x"]


def test_the_column_of_sources_is_found(paths, empty, expected):
    for columns in (["title", "url"], ["title", "path", "image"], ["only"], ["title", "file_name"]):
        source = next(name for name in ("url", "path", "only", "file_name") if name in columns)
        frame = pl.DataFrame({name: paths["url"] if name == source else ["-"] * 40 for name in columns})
        frame.with_columns(id=pl.int_range(40)).write_parquet(empty / "in.parquet")
        assert_frame_equal(hash_files(empty / "in.parquet", empty / "out.parquet"), expected)


def test_a_hashed_file_keeps_its_columns(folder, empty, expected):
    first = empty / "first.parquet"
    assert_frame_equal(hash_files(folder, first), expected)
    before = pl.read_parquet(first)
    result = call("visual-hash", first, "-o", first)
    assert result.exit_code == 2
    assert (
        "the table has columns 'width', 'height', 'status', 'detail', 'quality', 'bmh1', 'phash' already"
        in result.stderr
    )
    assert_frame_equal(pl.read_parquet(first), before)
    hash_files(first, first, "--prefix", "new_")  # reads the file that it replaces
    again = pl.read_parquet(first)
    assert_frame_equal(again.select(before.columns), before)
    new = again.select(pl.col("^new_.*$").name.map(lambda name: name[4:]))
    assert_frame_equal(new, before.select(new.columns))
    assert set(before.columns) - set(new.columns) == {"path", "size", "modified", "sha256"}  # the table has a digest


def test_the_column_of_sources_by_name(paths, empty, expected):
    paths.select(path=pl.lit("wrong"), here="url").write_csv(empty / "in.csv")
    assert_frame_equal(hash_files(empty / "in.csv", empty / "out.csv", "--source", "here"), expected)


def test_hash_types(folder, empty, expected):
    for options in (["--hash-types", "phash"], ["--hash-types", " phash "]):
        assert_frame_equal(hash_files(folder, empty / "out.csv", *options), expected.drop("bmh1"))
    for options in (["--hash-types", "bmh1,phash"], ["--hash-types", "bmh1", "--hash-types", "phash"]):
        assert_frame_equal(hash_files(folder, empty / "out.ndjson", *options), expected)
    assert_frame_equal(hash_files(folder, empty / "out.json", "--hash-types", "bmh1"), expected.drop("phash"))


def test_options_are_those_of_the_frame_verb(tmp_path, empty):
    (tmp_path / "large.jpg").write_bytes(jpeg(draw(1, 1100, 900)))
    (tmp_path / "small.jpg").write_bytes(jpeg(draw(2, 90, 70)))
    frame = pl.DataFrame({"url": ["large.jpg", "small.jpg"]})
    frame.write_csv(empty / "in.csv")
    for options in (
        {"decode": "scaled"},
        {"decode": "full"},
        {"max_pixels": 90 * 70},
        {"max_pixels": 90 * 70 - 1},
        {"max_bytes": (tmp_path / "small.jpg").stat().st_size},
    ):
        wanted = frame.imgmatch.visual_hash(hash_types=STORED_HASH_TYPES, base_dir=tmp_path, **options)
        words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
        result = call("visual-hash", empty / "in.csv", "-o", empty / "out.parquet", "--base-dir", tmp_path, *words)
        assert result.exit_code == (wanted["status"] != "ok").any(), result.output
        assert_frame_equal(pl.read_parquet(empty / "out.parquet"), wanted)


def test_relative_paths_start_from_the_working_directory(folder, empty, expected, monkeypatch):
    pl.DataFrame({"url": sorted(path.name for path in folder.glob("*.jpg"))}).write_csv(empty / "in.csv")
    monkeypatch.chdir(folder)
    assert_frame_equal(hash_files(empty / "in.csv", empty / "out.csv"), expected)
    assert_frame_equal(hash_files(".", empty / "out.csv"), expected)


@ON_A_SYSTEM_WITH_BYTES
def test_a_name_that_is_not_utf8_is_a_row_that_says_so(folder, empty):
    bad = os.fsencode(folder) + b"/bad\xff.jpg"
    with open(bad, "wb") as file:  # noqa: PTH123
        file.write((folder / "picture03.jpg").read_bytes())
    for ending in (".parquet", ".csv", ".json", ".duckdb"):
        result = call("visual-hash", folder, "-o", empty / f"out{ending}")
        assert result.exit_code == 1, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
    assert read(empty / "out.parquet").height == 41
    row = pl.read_parquet(empty / "out.parquet").row(0, named=True)
    assert (row["path"], row["status"]) == (f"{folder}/bad\\xff.jpg", "bad_source")
    assert row["detail"].startswith("the file name is not UTF-8, rename the file: ")
    assert row["size"] == os.stat(bad).st_size  # noqa: PTH116
    assert call("visual-hash", os.fsdecode(bad)).exit_code == 1
    assert call("remove-duplicates", folder, "--list-removed").stdout == ""
    # A table can name it, as an address.
    url = f"{folder.as_uri()}/bad%FF.jpg"
    pl.DataFrame({"url": [str(folder / "picture03.jpg"), url]}).write_csv(empty / "in.csv")
    result = call("remove-duplicates", empty / "in.csv", "--list-removed")
    assert (result.exit_code, result.stdout_bytes) == (0, bad + b"\n")


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".ndjson", ".json"])
def test_failed_rows_are_in_the_output_and_counted(mixed, empty, ending):
    (mixed.select("url") if ending == ".json" else mixed).write_parquet(empty / "in.parquet")
    result = call("visual-hash", empty / "in.parquet", "-o", empty / f"out{ending}", "--source", "url")
    assert result.exit_code == 1
    summary = "8 of 13 failed: "
    first, *named = result.stderr.splitlines()
    assert first.startswith(summary)
    counts = dict(part.rsplit(" ", 1) for part in first.removeprefix(summary).split(", "))
    assert counts == {"missing": "3", "bad_source": "2", "decode_failed": "2", "not_found": "1"}
    wanted = mixed.imgmatch.visual_hash()
    failed = wanted.with_row_index().filter(pl.col("status") != "ok").rows(named=True)
    numbered = {1: "row 1", 4: "row 4", 11: "row 11 (a data: URI)"}
    assert named == [f"  {numbered.get(row['index'], row['url'])}: {row['status']}: {row['detail']}" for row in failed]
    written = read(empty / f"out{ending}")
    assert_frame_equal(written.select("bmh1", "phash"), wanted.select("bmh1", "phash"))
    if ending == ".json":
        assert json.loads((empty / "out.json").read_text())["status"]["code"] == 300
    else:
        assert written["status"].to_list() == mixed["expected"].to_list()
        assert_frame_equal(written, wanted.select(HASHED))


def test_strict_mode_stops_and_writes_nothing(mixed, empty):
    mixed.select("url").write_parquet(empty / "in.parquet")
    (empty / "out.csv").write_text("what was there before")
    result = call("visual-hash", empty / "in.parquet", "-o", empty / "out.csv", "--on-error", "raise")
    assert result.exit_code == 1
    # Several batches run at once: which of the failed rows stops the run is not promised.
    said = result.stderr.removeprefix(replaced(empty / "out.csv"))
    assert re.match("imgmatch: row [0-9]+ of its batch: (missing|bad_source|not_found|decode_failed): ", said)
    assert "Hint:" in result.stderr
    assert "python_udf" not in result.stderr
    assert (empty / "out.csv").read_text() == "what was there before"
    assert names(empty) == ["in.parquet", "out.csv"]


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".ndjson"])
def test_each_picture_is_decoded_once_in_small_batches(paths, empty, monkeypatch, ending):
    n_hashed = []
    original = run.hash_batch

    def spy(values, options, *kinds):
        n_hashed.append(len(values))
        return original(values, options, *kinds)

    monkeypatch.setattr(run, "hash_batch", spy)
    long = pl.concat([paths] * 25)
    {".parquet": long.write_parquet, ".csv": long.write_csv}.get(ending, long.write_ndjson)(empty / f"in{ending}")
    for out in (".parquet", ".csv"):
        n_hashed.clear()
        hash_files(empty / f"in{ending}", empty / f"out{out}")
        assert sum(n_hashed) == 1000
        assert max(n_hashed) <= 600  # Parquet is split among the threads, and not below


def test_a_table_without_rows(paths, empty):
    for ending, write in ((".parquet", paths[:0].write_parquet), (".csv", paths[:0].write_csv)):
        write(empty / f"in{ending}")
        for out in (".parquet", ".csv", ".ndjson", ".json"):
            (empty / f"out{out}").unlink(missing_ok=True)
            result = call("visual-hash", empty / f"in{ending}", "-o", empty / f"out{out}")
            assert (result.exit_code, result.output) == (0, "")
    assert pl.read_csv(empty / "out.csv").columns == [
        *("width", "height", "status", "detail", "quality", "url", "bmh1", "phash", "sha256")
    ]
    assert json.loads((empty / "out.json").read_text())["records"] == []


WRONG = {
    "no such folder": ["no-such-folder"],
    "nothing matches a glob": ["*.nothing"],
    "nothing matches a glob of tables": ["*.parquet"],
    "no such table": ["absent.csv"],
    "empty folder": ["{empty}"],
    "empty source": [""],
    "one of several sources is not there": ["{pictures}", "no-such-folder"],
    "unknown input ending": ["{empty}/notes.doc"],
    "unknown output ending": ["{pictures}", "-o", "out.xlsx"],
    "output without ending": ["{pictures}", "-o", "out"],
    "output into no folder": ["{pictures}", "-o", "absent/out.csv"],
    "output is a folder": ["{pictures}", "-o", "{empty}/folder.csv"],
    "mixed kinds": ["{pictures}", "{empty}/good.csv"],
    "no such column": ["{empty}/good.csv", "--source", "absent"],
    "column of numbers": ["{empty}/numbers.parquet", "--source", "a"],
    "no column is a source": ["{empty}/numbers.parquet"],
    "which column is not clear": ["{empty}/unclear.csv"],
    "hash type": ["{pictures}", "--hash-types", "md5"],
    "no hash type": ["{pictures}", "--hash-types", ","],
    "the same hash type twice": ["{pictures}", "--hash-types", "phash,phash"],
    "decode": ["{pictures}", "--decode", "fast"],
    "on error": ["{pictures}", "--on-error", "ignore"],
    "max pixels": ["{pictures}", "--max-pixels", "0"],
    "max bytes": ["{pictures}", "--max-bytes", "-5"],
    "base_dir for pictures": ["{pictures}", "--base-dir", "/"],
    "source for pictures": ["{pictures}", "--source", "path"],
    "source for a request": ["{empty}/request.json", "--source", "url"],
    "garbage parquet": ["{empty}/garbage.parquet"],
    "cut parquet": ["{empty}/cut.parquet"],
    "empty parquet": ["{empty}/zero.parquet"],
    "empty csv": ["{empty}/zero.csv"],
    "garbage csv": ["{empty}/garbage.csv"],
    "garbage ndjson": ["{empty}/garbage.ndjson"],
    "garbage request": ["{empty}/garbage.json"],
    "a request without records": ["{empty}/other.json"],
    "table is a folder": ["{empty}/folder.csv"],
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("out", ["out.parquet", None])
def test_wrong_calls_get_a_hint_and_leave_nothing(words, out, folder, empty, monkeypatch):
    garbage = bytes(range(256)) * 8
    for ending in (".parquet", ".csv", ".ndjson", ".json"):
        (empty / f"garbage{ending}").write_bytes(garbage)
        (empty / f"zero{ending}").write_bytes(b"")
    (empty / "notes.doc").write_text("notes")
    (empty / "folder.csv").mkdir()
    (empty / "other.json").write_text('{"images": []}')
    (empty / "request.json").write_text('{"records": []}')
    pl.DataFrame({"url": ["a"]}).write_csv(empty / "good.csv")
    pl.DataFrame({"a": [1], "b": [2.5]}).write_parquet(empty / "numbers.parquet")
    pl.DataFrame({"left": ["a"], "right": ["b"]}).write_csv(empty / "unclear.csv")
    pl.DataFrame({"url": ["a" * 9] * 999}).write_parquet(empty / "cut.parquet")
    (empty / "cut.parquet").write_bytes((empty / "cut.parquet").read_bytes()[:-20])
    before = names(empty)
    here = empty / "folder.csv"  # with nothing in it
    monkeypatch.chdir(here)
    if words == ["{empty}"]:
        words = ["."]
    words = [word.format(pictures=folder, empty=empty) for word in words]
    if out is not None and "-o" not in words:
        words += ["-o", out]
    result = call("visual-hash", *words)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("imgmatch: ")
    assert "\nHint: " in result.stderr
    assert result.stdout.count("\n") <= 1  # a header, where the table is found to be damaged further down
    assert names(empty) == before
    assert names(here) == []


def test_an_output_that_cannot_be_written_is_known_before_hashing(folder, empty, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("imgmatch_df.atomic.open_new", refuse)
    monkeypatch.setattr(run, "hash_batch", lambda *_: pytest.fail("hashed"))
    result = call("visual-hash", folder, "-o", empty / "out.csv")
    assert result.exit_code == 2
    assert "cannot write" in result.stderr
    assert "Permission denied" in result.stderr


def test_a_damaged_row_group_leaves_the_old_output(paths, empty):
    table = empty / "in.parquet"
    pl.concat([paths] * 40).with_row_index().write_parquet(table, row_group_size=100, compression="uncompressed")
    data = bytearray(table.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 600] = b"\xff" * 600
    table.write_bytes(data)
    (empty / "out.parquet").write_text("what was there before")
    result = call("visual-hash", table, "-o", empty / "out.parquet")
    assert result.exit_code == 2
    assert "Hint:" in result.stderr
    assert (empty / "out.parquet").read_text() == "what was there before"
    assert names(empty) == ["in.parquet", "out.parquet"]


def test_a_link_stays_a_link(folder, empty, expected):
    (empty / "real.csv").write_text("old")
    (empty / "link.csv").symlink_to(empty / "real.csv")
    hash_files(folder, empty / "link.csv")
    assert (empty / "link.csv").is_symlink()
    assert_frame_equal(read(empty / "real.csv"), expected)


def test_ping_and_version_and_help():
    assert json.loads(call("ping").stdout) == responses.ping_response()
    assert call("--version").stdout == f"imgmatch {imgmatch_df.__version__}\n"
    for words in (["--help"], ["-h"], ["visual-hash", "--help"], ["ping", "--help"], ["demo", "--help"]):
        result = call(*words)
        assert result.exit_code == 0
        assert "Usage: imgmatch" in result.stdout or "Usage: " in result.stdout
        assert len(words) == 1 or "Example: imgmatch " + words[0] in result.stdout
    assert "visual-hash" in call().output


def test_as_a_program(mixed, empty):
    mixed.write_csv(empty / "mixed.csv")
    words = [*PROGRAM, "visual-hash", str(empty / "mixed.csv"), "--progress"]
    result = subprocess.run(words, capture_output=True, timeout=250)
    assert result.returncode == 1
    stderr = result.stderr.removeprefix(b"compiling kernels, once on this machine\n")
    assert stderr.startswith(b"8 of 13 failed: ")  # and no bar, though asked for: this is no terminal
    assert b"Traceback" not in result.stderr
    assert result.stdout.count(b"\n") == 14


@ON_A_SYSTEM_WITH_SIGNALS
def test_a_closed_output_is_a_wrong_call(folder, empty):
    for words in (["visual-hash", folder], ["visual-hash", folder, "-o", empty / "o.parquet"], ["ping"], ["--help"]):
        closed = ["sh", "-c", 'exec "$0" "$@" >&-', *PROGRAM, *map(str, words)]
        result = subprocess.run(closed, capture_output=True, timeout=250, text=True)
        assert result.returncode == 2
        assert result.stderr.startswith("imgmatch: standard output is closed\nHint: ")
        assert result.stderr.count("\n") == 2
    both = ["sh", "-c", 'exec "$0" "$@" >&- 2>&-', *PROGRAM, "ping"]
    assert subprocess.run(both, capture_output=True, timeout=250).returncode == 2
    silent = ["sh", "-c", 'exec "$0" "$@" 2>&-', *PROGRAM, "visual-hash", str(folder)]
    result = subprocess.run(silent, capture_output=True, timeout=250)
    assert (result.returncode, result.stdout.count(b"\n")) == (0, 41)
    assert names(empty) == []


@ON_A_SYSTEM_WITH_SIGNALS
def test_a_reader_that_leaves_early_is_no_error(paths, empty):
    pl.concat([paths] * 50).write_csv(empty / "in.csv")
    with subprocess.Popen(
        [*PROGRAM, "visual-hash", str(empty / "in.csv")], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout.readline().startswith(b"width,height,status,detail,quality,url,")
        program.stdout.close()
        assert program.stderr.read() == b""
        assert program.wait(200) == 128 + 13


@ON_A_SYSTEM_WITH_SIGNALS
@pytest.mark.parametrize(
    ("number", "ending"),
    [
        (signal.SIGINT, ".parquet"),
        pytest.param(signal.SIGTERM, ".csv", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, ".ndjson", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, ".json", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_ends_soon_and_leaves_nothing(tmp_path, empty, number, ending):
    (tmp_path / "photo.jpg").write_bytes(jpeg(draw(1, 1500, 1200)))
    pl.DataFrame({"url": [str(tmp_path / "photo.jpg")] * 200_000}).write_csv(tmp_path / "in.csv")
    out = empty / f"out{ending}"
    with subprocess.Popen(
        [*PROGRAM, "visual-hash", str(tmp_path / "in.csv"), "-o", str(out)], stderr=subprocess.PIPE
    ) as program:
        wait_until(lambda: names(empty), 200)
        time.sleep(1.5)
        program.send_signal(number)
        assert program.wait(60) == 128 + number  # all rows take ten minutes
        said = program.stderr.read().decode()
        assert said == (
            "interrupted, nothing was written; --store hashes.duckdb keeps the hashes of an interrupted run\n"
        )
    assert names(empty) == []


@ON_A_SYSTEM_WITH_TERMINALS
def test_a_terminal_gets_a_bar_and_a_table(folder, empty):
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    code, seen = on_a_terminal("visual-hash", folder)
    assert code == 1
    assert "41/41" in seen
    assert "/s" in seen
    assert "1 failed" in seen
    assert "1 of 41 failed: decode_failed 1" in seen
    assert "picture39.jpg" in seen
    assert "21 more rows" in seen
    assert seen.rfind("\x1b[?25h") > seen.rfind("\x1b[?25l")  # the cursor is back
    assert names(empty) == []


@ON_A_SYSTEM_WITH_TERMINALS
def test_the_bar_knows_how_many_rows_a_table_has(paths, empty):
    paths.write_csv(empty / "in.csv")
    code, seen = on_a_terminal("visual-hash", empty / "in.csv", "-o", empty / "out.parquet")
    assert (code, "0/40" in seen, "40/40" in seen) == (0, True, True)


@ON_A_SYSTEM_WITH_TERMINALS
def test_no_bar_where_none_is_wanted(folder, empty):
    code, seen = on_a_terminal("visual-hash", folder, "-o", empty / "out.csv", "--no-progress")
    assert (code, seen.removeprefix("\x1b[0m")) == (0, "")


@ON_A_SYSTEM_WITH_TERMINALS
@pytest.mark.slow
def test_an_interrupted_bar_gives_the_cursor_back(tmp_path):
    import pty

    (tmp_path / "photo.jpg").write_bytes(jpeg(draw(1, 1500, 1200)))
    pl.DataFrame({"url": [str(tmp_path / "photo.jpg")] * 50_000}).write_csv(tmp_path / "in.csv")
    controller, terminal = pty.openpty()
    words, seen = [*PROGRAM, "visual-hash", str(tmp_path / "in.csv")], b""
    with subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=terminal) as program:
        os.close(terminal)
        while b"/50000" not in seen:
            seen += os.read(controller, 65536)
        program.send_signal(signal.SIGINT)
        try:
            while part := os.read(controller, 65536):
                seen += part
        except OSError:  # the other side is closed
            pass
        assert program.wait(200) == 130
    os.close(controller)
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l")


@pytest.mark.parametrize("ending", [".csv", ".ndjson", ".parquet"])
def test_tables_have_the_digest_of_each_file(folder, empty, ending):
    assert call("visual-hash", folder, "-o", empty / f"out{ending}").exit_code == 0
    rows = {
        ".csv": lambda path: pl.read_csv(path, infer_schema=False),
        ".ndjson": pl.read_ndjson,
        ".parquet": pl.read_parquet,
    }[ending](empty / f"out{ending}")
    digests = rows["sha256"] if ending != ".parquet" else rows["sha256"].bin.encode("hex")
    assert digests.to_list() == [sha256(Path(path).read_bytes()).hexdigest() for path in rows["path"]]


def test_a_column_called_as_a_digest_stays(paths, empty):
    mine = paths.with_columns(sha256=pl.lit("of the shop"))
    mine.write_csv(empty / "in.csv")
    for command in (["visual-hash"], ["remove-duplicates"], ["rank-images", paths["url"][0]]):
        assert call(*command, empty / "in.csv", "-o", empty / "out.csv").exit_code == 0, command
        written = pl.read_csv(empty / "out.csv", infer_schema=False)
        assert written["sha256"].unique().to_list() == ["of the shop"], command
        (empty / "out.csv").unlink()
