"""Input files that are broken, of another encoding, or made by somebody else: a clear message and an exit code."""

import base64
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawing import draw, jpeg
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.cli import tables
from imgmatch_df.cli.app import app

PROGRAM = [sys.executable, "-W", "error", "-c", "from imgmatch_df.cli import main; main()"]
VERBS = (["visual-hash"], ["remove-duplicates"], ["rank-images", "1" * 16])
SECRET = b"root:*:20228:0:99999:7:::\n"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, with an image and a file that is none of the sender's business."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(jpeg(draw(1)))
    (tmp_path / "shadow").write_bytes(SECRET)
    return tmp_path


def call(*words, code=2):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert all(line.isprintable() for line in result.stderr.splitlines())
    if code == 2:
        assert "\nHint: " in result.stderr
    return result


# Text

TEXTS = {
    "in.csv": "url,name\na.jpg,é\na.jpg,b\n",
    "in.ndjson": '{"url":"a.jpg","name":"é"}\n{"url":"a.jpg"}\n',
    "in.jsonl": '{"url":"a.jpg"}\n',
    "in.json": '{"records":[{"_url":"http://127.0.0.1/a.jpg"}]}',
    "list.json": '[{"url":"a.jpg","name":"é"}]',
    "ideographs.csv": "名前,説明\n写真の名前,これは写真の説明です\n" * 20,
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_text_of_another_encoding_is_named(here, name, encoding, mark):
    (here / name).write_bytes((mark + TEXTS[name]).encode(encoding))
    kind = Path(name).suffix
    said = f"imgmatch: {name!r} is {encoding[:6].upper()}, {kind} is read as UTF-8\nHint: save the file as UTF-8.\n"
    assert call("visual-hash", name).stderr == said


def test_text_that_is_utf_8_is_not_taken_for_another_encoding(here):
    for name, text in TEXTS.items():
        if name != "in.json":
            (here / name).write_text(text, encoding="utf-8")
            assert "UTF" not in call("visual-hash", name, code=2 if name.startswith("ideo") else 0).stderr
    (here / "nul.csv").write_bytes(b"url,name\na.jpg,x\0y\n" + b"a.jpg,b\n" * 50)
    call("visual-hash", "nul.csv", code=0)
    (here / "nul.csv").write_bytes(b"url\nx\0.jpg\n")
    call("visual-hash", "nul.csv", code=1)
    (here / "mark.csv").write_text("\ufeffurl\na.jpg\n", encoding="utf-8")
    call("visual-hash", "mark.csv", code=0)
    (here / "mark.ndjson").write_text('\ufeff{"url":"a.jpg"}\n', encoding="utf-8")
    assert "begins with a byte order mark" in call("visual-hash", "mark.ndjson").stderr
    (here / "latin.csv").write_bytes("url,name\na.jpg,é\n".encode("latin-1"))
    assert call("visual-hash", "latin.csv").stderr.endswith("\nHint: save the file as UTF-8.\n")


@pytest.mark.parametrize(
    "text", ['{"records":[{"_url"', "", "[" * 10_000, '{"records":' + "[" * 10_000, '{"a":' + "9" * 5000]
)
def test_a_broken_request_names_the_file(here, text):
    (here / "in.json").write_text(text)
    for words in (["visual-hash", "in.json"], ["rank-images", "in.json"]):
        stderr = call(*words).stderr
        assert "'in.json'" in stderr
        assert "pathlib" not in stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("wide.csv", "u" * 200_000 + "\nx\n"),
        ("deep.json", '[{"url":"a.jpg","a":' + "[" * 900 + "]" * 900 + "}]"),
        ("deeper.ndjson", '{"a":' + "[" * 200_000 + "\n"),
        ("other.ndjson", "[1]\n"),
        ("other.json", '[1, "a", null, {"url": "a.jpg"}]'),
        ("empty.csv", ""),
        ("empty.parquet", ""),
        ("empty.duckdb", ""),
        ("cut.parquet", "PAR1" + "\0" * 50 + "PAR1"),
        ("cut.duckdb", "\0" * 8 + "DUCK" + "\0" * 5000),
    ],
)
def test_a_file_that_cannot_be_read(here, name, content):
    (here / name).write_text(content)
    for verb in VERBS:
        assert "Traceback" not in call(*verb, name).stderr
    assert "Parquet" not in call("visual-hash", name).stderr or name.endswith("parquet")


def test_a_table_with_a_deep_column(here, request):
    """Later Pythons describe a dtype of any depth, 3.11 does not. Half the usual limit: Polars takes cubic time."""
    request.addfinalizer(partial(sys.setrecursionlimit, sys.getrecursionlimit()))
    sys.setrecursionlimit(500)
    (here / "deep.ndjson").write_text('{"url":"a.jpg","a":' + "[" * 300 + "]" * 300 + "}\n")
    for verb in VERBS:
        result = CliRunner().invoke(app, [*map(str, verb), "deep.ndjson"], env={"COLUMNS": "200"})
        assert result.exit_code in (0, 2)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "Traceback" not in result.stderr
        assert max(map(len, result.stderr.splitlines()), default=0) <= 200


@pytest.mark.parametrize("folder", ["a[1]", "b?*", "c"])
@pytest.mark.parametrize("ending", ["ndjson", "jsonl", "csv", "parquet", "json"])
def test_a_path_with_the_characters_of_a_glob_is_a_path(here, folder, ending):
    (here / folder).mkdir()
    (here / "a1").mkdir()
    for place, url in ((here / folder / f"x[ab].{ending}", "a.jpg"), (here / "a1" / f"xa.{ending}", "gone.jpg")):
        frame = pl.DataFrame({"url": [url]})
        {"csv": frame.write_csv, "parquet": frame.write_parquet, "json": frame.write_json}.get(
            ending, frame.write_ndjson
        )(place)
    assert call("visual-hash", f"{folder}/x[ab].{ending}", "-o", "o.parquet", code=0).stderr == ""
    assert pl.read_parquet("o.parquet")["url"].to_list() == ["a.jpg"]


def test_an_extension_type_of_arrow_runs_nothing(here):
    """Its metadata may be a pickle."""
    about = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": b"cposix\n_exit\n(K\x07tR.",
    }
    schema = pa.schema([pa.field("url", pa.string(), metadata=about), pa.field("b", pa.string())])
    pq.write_table(pa.table([pa.array(["a.jpg"]), pa.array(["b"])], schema=schema), here / "in.parquet")
    for verb in VERBS:
        result = CliRunner().invoke(app, [*verb, "in.parquet"])
        assert result.exit_code in (0, 1, 2)  # older releases of Polars read it as text
        assert result.exception is None or isinstance(result.exception, SystemExit)


def test_names_of_columns_and_files_cannot_control_the_terminal(here):
    bad = "\x1b]0;x\x07\x9b31m\x00\u202e"
    frame = pl.DataFrame({f"u{bad}": ["gone.jpg"], f"v{bad}": ["b"]})
    frame.write_parquet("in.parquet")
    for verb in VERBS:
        assert "\N{REPLACEMENT CHARACTER}" in call(*verb, "in.parquet").stderr
    frame.write_csv("in.csv")
    call("visual-hash", "in.csv", "--source", f"w{bad[:-2]}")
    table = frame.select(url=pl.lit("x\x1b[2J.jpg"), status=pl.lit("decode_failed"), detail=pl.lit(bad))
    table.with_columns(phash=pl.lit(None, pl.UInt64)).write_parquet("in.parquet")
    call("remove-duplicates", "in.parquet", "-o", "o.parquet", code=1)


def test_a_panic_of_polars_is_a_message(here, monkeypatch):
    def panic(*_, **__):
        raise pl.exceptions.PanicException("called `Result::unwrap()` on an `Err` value: NulError")

    monkeypatch.setattr(tables, "scan_table", panic)
    (here / "in.csv").write_text("url\na.jpg\n")
    assert "NulError" in call("visual-hash", "in.csv").stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("words", [["visual-hash", "in.csv"], ["--version"]])
def test_a_full_disk_is_not_the_fault_of_the_input(here, words):
    (here / "in.csv").write_text("url\na.jpg\n")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*PROGRAM, *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=250)
    assert done.returncode == 2
    first, hint = done.stderr.splitlines()
    assert "No space left on device" in first
    assert "make room" in hint or "free some space" in hint


def test_without_a_compiler_the_command_says_so(here):
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [*PROGRAM, "visual-hash", "a.jpg"], capture_output=True, env=environment, text=True, timeout=250
    )
    assert done.returncode in (1, 2)
    assert done.stderr.endswith("\nHint: unset NUMBA_DISABLE_JIT.\n")
    assert "Traceback" not in done.stderr


# Requests of somebody else


def request(here, *urls, **fields):
    (here / "in.json").write_text(json.dumps({"records": [{"_url": url} for url in urls], **fields}))
    return "in.json"


@pytest.mark.parametrize("verb", [["visual-hash"], ["remove-duplicates"], ["rank-images", "a.jpg"]])
def test_a_request_reads_no_file(here, verb):
    paths = [
        here / "shadow",
        "shadow",
        "a.jpg",
        f"file://{here}/shadow",
        "./shadow",
        "S3://bucket/a.jpg",
        "ftp://x/a.jpg",
    ]
    name = request(here, *map(str, paths))
    stderr = call(*verb, name, "-o", "out.json", code=1).stderr
    assert "5 records of a request name a file, which --base-dir or --schemes must allow\n" in stderr
    assert "7 of 7 failed: fetch_blocked 7\n" in stderr
    assert "root:" not in stderr + (here / "out.json").read_text()
    call(*verb, name, "-o", "out.ndjson", code=1)
    statuses = pl.read_ndjson("out.ndjson", infer_schema_length=None)["status"]
    assert statuses.to_list() == ["fetch_blocked"] * 7


def test_a_request_reads_files_of_the_folder_that_is_allowed(here):
    (here / "in").mkdir()
    (here / "in" / "a.jpg").write_bytes((here / "a.jpg").read_bytes())
    (here / "in" / "shadow").write_bytes(SECRET)
    (here / "in" / "link.jpg").symlink_to(here / "a.jpg")
    image = base64.b64encode((here / "a.jpg").read_bytes()).decode()
    urls = ["a.jpg", str(here / "in/a.jpg"), str(here / "a.jpg"), "../a.jpg", "link.jpg", "shadow", "s3://b/a.jpg"]
    (here / "in.json").write_text(json.dumps({"records": [*({"_url": url} for url in urls), {"_base64": image}]}))
    result = call("visual-hash", "in.json", "--base-dir", "in", "-o", "out.parquet", code=1)
    rows = pl.read_parquet("out.parquet")
    blocked = ["fetch_blocked"] * 3
    assert rows["status"].to_list() == ["ok", "ok", *blocked, "decode_failed", "fetch_blocked", "ok"]
    assert rows["detail"][5] == "not an image: text"
    assert "root:" not in result.stderr
    assert call("visual-hash", "in.json", "--schemes", "file,data", code=1).stderr.startswith("4 of 8 failed")


def test_the_query_of_a_request_reads_no_file_and_that_of_the_user_does(here):
    name = request(here, "http://127.0.0.1/a.jpg", query_record={"_url": "a.jpg"})
    stderr = call("rank-images", name).stderr
    assert "imgmatch: query_record cannot be hashed: fetch_blocked: blocked: a path" in stderr
    (here / "table.csv").write_text("url\na.jpg\n")
    call("rank-images", "a.jpg", "table.csv", code=0)
    call("rank-images", "a.jpg", name, code=1)
    for against in (name, request(here, "a.jpg", "shadow")):
        call("remove-duplicates", "a.jpg", "--reference", against, code=0)
    stderr = call("remove-duplicates", "a.jpg", "--reference", name, code=0).stderr
    assert stderr.startswith("2 records of a request name a file, which --base-dir or --schemes must allow\n")


def test_a_store_of_a_request_holds_no_files(here):
    assert "1 new, 1 failed" in call("visual-hash", request(here, "a.jpg"), "-o", "s.duckdb", code=1).stdout
    assert imgmatch_df.read_hashes("s.duckdb")["status"].to_list() == ["fetch_blocked"]


# Names


def test_a_listed_name_is_not_taken_for_an_option(here):
    for name in ("-rf.jpg", "b.jpg"):
        (here / name).write_bytes((here / "a.jpg").read_bytes())
    (here / "in.csv").write_text("url\na.jpg\n-rf.jpg\nb.jpg\n")
    assert call("remove-duplicates", "in.csv", "--list-removed", code=0).stdout == "./-rf.jpg\nb.jpg\n"
