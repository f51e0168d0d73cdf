"""The user's table on the command line: all of it comes out of every command, or a word says what does not."""

import csv
import io
import json
import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from drawing import draw, jpeg
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.batch import run as batches
from imgmatch_df.cli.app import app
from imgmatch_df.hashes.forms import form_of, parse_text
from imgmatch_df.hashes.kinds import BMH1, KINDS, PHASH

N = 6
COMMANDS = ("visual-hash", "remove-duplicates", "rank-images")
TABLES = ("parquet", "csv", "ndjson")


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def run(command, source, out, *words, code=0, query=None):
    """Run a command that keeps all rows, into a new file."""
    out.unlink(missing_ok=True)
    first = () if command != "rank-images" else (query or "0" * 968,)
    result = call(command, *first, source, "-o", out, *words)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Six images of which two pairs are equal."""
    folder = tmp_path_factory.mktemp("images")
    for number, seed in enumerate((1, 1, 2, 3, 3, 4)):
        (folder / f"{number}.jpg").write_bytes(jpeg(draw(seed, 120, 90)))
    return sorted(map(str, folder.iterdir()))


@pytest.fixture
def no_hashing(monkeypatch):
    monkeypatch.setattr(batches, "hash_batch", lambda *_: pytest.fail("hashed"))


def read(path):
    """Return what a command wrote, rows in the order of the input."""
    frame = {
        ".parquet": lambda: pl.read_parquet(path, glob=False, hive_partitioning=False),
        ".csv": lambda: pl.read_csv(path, infer_schema=False),
    }.get(path.suffix, lambda: pl.read_ndjson(path, infer_schema_length=None))()
    if "removed_records" in frame.columns:
        removed = frame.select(pl.col("removed_records").explode(empty_as_null=False)).unnest("removed_records")
        frame = pl.concat([frame.drop("removed_records"), removed], how="diagonal_relaxed")
    return frame.sort("url")


STAMP = datetime(2024, 7, 1, 12, 30, 15, 123456)
VALUES = {
    "u64": pl.Series([0, 2**63, 2**64 - 1, None, 7, 1], dtype=pl.UInt64),
    "i64": pl.Series([-(2**63), 2**63 - 1, None, 0, -1, 1]),
    "i8": pl.Series([-128, 127, None, 0, -1, 1], dtype=pl.Int8),
    "i128": pl.Series([-(2**100), 2**100, None, 0, -1, 1], dtype=pl.Int128),
    "float": pl.Series([0.1, -0.0, 1e300, None, 5e-324, 1 / 3]),
    "float32": pl.Series([0.1, -0.0, 1e30, None, 1.5, 2.5], dtype=pl.Float32),
    "nan": pl.Series([float("nan"), float("inf"), float("-inf"), None, 1.5, 2.5]),
    "nan_list": pl.Series([[1.0, float("nan")], None, [], [None], [2.0], [3.0]]),
    "bool": pl.Series([True, False, None, True, True, False]),
    "text": pl.Series(["", " a", 'say "b",\nc', "é\u202e\U0001f600", None, "007"]),
    "date": pl.Series([date(1, 1, 1), date(9999, 12, 31), None, date(2024, 2, 29), date(1970, 1, 1), date(1969, 1, 1)]),
    "time": pl.Series([time(0), time(23, 59, 59, 999999), None, time(1), time(2), time(3)]),
    "datetime": pl.Series([STAMP, None, STAMP, STAMP, STAMP, STAMP], dtype=pl.Datetime("us")),
    "nanoseconds": pl.Series([1234567890123456789, None, 1, 2, 3, 4]).cast(pl.Datetime("ns")),
    "zoned": pl.Series([STAMP, None, STAMP, STAMP, STAMP, STAMP], dtype=pl.Datetime("us")).dt.replace_time_zone(
        "Europe/Prague"
    ),
    "duration": pl.Series([timedelta(days=-1, microseconds=5), None, timedelta(0), *[timedelta(hours=1)] * 3]),
    "decimal": pl.Series([Decimal("-12345678901234567.89"), None, *[Decimal("0.10")] * 4], dtype=pl.Decimal(38, 2)),
    "categorical": pl.Series(["a", "b", None, "a", "a", ""], dtype=pl.Categorical),
    "enum": pl.Series(["a", "b", None, "a", "a", "b"], dtype=pl.Enum(["b", "a"])),
    "nothing": pl.Series([None] * N, dtype=pl.Null),
    "list": pl.Series([[1, None], [], None, [2], [3], [4]]),
    "array": pl.Series([[1, 2], [3, 4], None, [5, 6], [7, 8], [9, 10]], dtype=pl.Array(pl.Int64, 2)),
    "struct": pl.Series([{"a": 1, "b": {"c": "x"}}, {"a": None, "b": None}, *[{"a": 2, "b": {"c": "y"}}] * 4]),
    "null_struct": pl.Series([None, *[{"a": 1}] * 5]),
    "list_of_structs": pl.Series([[{"a": [1]}, None], [], None, *[[{"a": []}]] * 3]),
    "binary": pl.Series([b"", b"\x00\xff", None, b"a", b"b", b"c"]),
    "struct_with_bytes": pl.Series([{"bytes_": b"x", "name": f"{row}"} for row in range(N)]),
    "list_of_bytes": pl.Series([[b"x"], [], None, *[[b"y"]] * 3]),
    "list_with_bytes": pl.Series([[{"data": b"x", "name": "n"}], [], None, *[[{"data": b"y", "name": "m"}]] * 3]),
}


def table(images, *columns):
    return pl.DataFrame({"url": images}).with_columns(*columns)


@pytest.mark.parametrize("form", TABLES)
@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_type_comes_out_of_every_command(images, tmp_path, command, name, form):
    frame = table(images, VALUES[name].alias("mine"))
    frame = frame.with_columns(bmh1=pl.Series([b"\1" * 121] * N))
    frame = frame.drop("bmh1") if command == "visual-hash" else frame
    source, out = tmp_path / "in.parquet", tmp_path / f"out.{form}"
    frame.write_parquet(source)
    result = run(command, source, out, "--source", "url")
    found, dtype = read(out), frame.schema["mine"]
    holds = form == "parquet" or not (
        "bytes" in name or name in ("binary", "nan", "nan_list") or (form == "csv" and dtype.is_nested())
    )
    if form == "parquet" and command == "remove-duplicates" and ("bytes" in name or name == "binary"):
        assert "not in removed_records, which hold no images: mine" in result.stderr
        kept = pl.read_parquet(out)
        assert_frame_equal(
            kept.select("url", "mine"), frame.filter(pl.col("url").is_in(kept["url"].implode())).select("url", "mine")
        )
    elif form == "parquet":
        assert_frame_equal(found.select("url", "mine"), frame.select("url", "mine"))
    elif holds and form == "csv":
        wanted = pl.read_csv(io.BytesIO(_csv(frame)), infer_schema=False)
        assert_frame_equal(found.select("url", "mine"), wanted)
    elif holds:
        assert [row["mine"] for row in _json(out)] == [row["mine"] for row in _json(_ndjson(frame, tmp_path))]
    if holds:
        assert not result.stderr.startswith("left out")
    elif name == "nan":
        if form == "csv":
            assert found["mine"].to_list() == ["NaN", "inf", "-inf", None, "1.5", "2.5"]
        else:
            assert f"written as null, because .{form} cannot hold NaN and infinity: mine; .parquet" in result.stderr
    else:
        assert "mine" in result.stderr
        assert ".parquet holds" in result.stderr or "a column for each field" in result.stderr


def _csv(frame):
    mine = pl.col("mine").dt.to_string("iso") if frame.schema["mine"] == pl.Duration else "mine"
    return frame.select("url", mine).write_csv().encode()


def _ndjson(frame, tmp_path):
    frame.select("url", "mine").write_ndjson(tmp_path / "wanted.ndjson")
    return tmp_path / "wanted.ndjson"


def _json(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [record for row in rows for record in (row, *row.get("removed_records", ()))]
    return sorted(rows, key=lambda row: row["url"])


@pytest.mark.parametrize(
    ("name", "form", "kept", "lost"),
    [
        ("struct", "csv", {"mine.a": ["1", None, *["2"] * 4], "mine.b.c": ["x", None, *["y"] * 4]}, ""),
        ("struct_with_bytes", "csv", {"mine.name": list("012345")}, "mine.bytes_ (Binary)"),
        ("struct_with_bytes", "ndjson", {"mine": [{"name": n} for n in "012345"]}, "mine.bytes_ (Binary)"),
        (
            "list_with_bytes",
            "ndjson",
            {"mine": [[{"name": "n"}], [], None, *[[{"name": "m"}]] * 3]},
            "mine[].data (Binary)",
        ),
        ("list_of_bytes", "ndjson", {}, "mine[] (Binary)"),
        ("list", "csv", {}, "mine (List(Int64))"),
        ("array", "csv", {}, "mine (Array(Int64, shape=(2,)))"),
        ("binary", "csv", {}, "mine (Binary)"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_of_nested_columns_stays_what_the_format_holds(images, tmp_path, command, name, form, kept, lost):
    source, out = tmp_path / "in.parquet", tmp_path / f"out.{form}"
    table(images, VALUES[name].alias("mine")).write_parquet(source)
    result = run(command, source, out, "--source", "url", query=images[0])
    found = read(out)
    assert {column: found[column].to_list() for column in found.columns if column.startswith("mine")} == kept
    said = [line for line in result.stderr.splitlines() if line.startswith("left out")]
    assert said == ([f"left out, because .{form} cannot hold it: {lost}; .parquet holds it"] if lost else [])


ODD = ["", " ", "a.b", "A", "a", 'say "x"', "two\nlines", "comma,", "é", "--flag", "__imgmatch", "select", "0"]


@pytest.mark.parametrize("form", [*TABLES, "jsonl"])
@pytest.mark.parametrize("given", [*TABLES, "jsonl"])
@pytest.mark.parametrize("command", COMMANDS)
def test_odd_names_of_columns_stay(images, tmp_path, command, given, form):
    frame = table(images, *(pl.lit(f"v{number}").alias(name) for number, name in enumerate(ODD)))
    source, out = tmp_path / f"in.{given}", tmp_path / f"out.{form}"
    {"parquet": frame.write_parquet, "csv": frame.write_csv}.get(given, frame.write_ndjson)(source)
    run(command, source, out, "--source", "url", query=images[0])
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(out.read_text(), newline="")))
    else:
        rows = _json(out) if form != "parquet" else read(out).rows(named=True)
    assert len(rows) == N
    for row in rows:
        assert {name: row[name] for name in ODD} == {name: f"v{number}" for number, name in enumerate(ODD)}


def test_a_csv_with_a_name_twice_is_refused(images, tmp_path, no_hashing):
    (tmp_path / "in.csv").write_text("url,label,label\na.jpg,1,2\n")
    result = call("visual-hash", tmp_path / "in.csv", "-o", tmp_path / "out.csv")
    assert result.exit_code == 2
    assert "has more than one column named 'label'\nHint: rename" in result.stderr


# Columns that are called as ours


ADDED = {
    "visual-hash": ["width", "height", "bmh1", "phash", "sha256", "status", "detail", "quality"],
    "remove-duplicates": ["width", "height", "bmh1", "status", "detail", "quality"],
    "rank-images": ["width", "height", "bmh1", "status", "detail", "quality", "distance", "rank"],
}
CLUSTERED = ["cluster_id", "representative_id", "distance", "kept", "reason", "joined_at"]


@pytest.mark.parametrize("form", TABLES)
@pytest.mark.parametrize("given", ["parquet", "csv", "ndjson"])
@pytest.mark.parametrize("command", COMMANDS)
def test_columns_called_as_ours_are_kept(images, tmp_path, command, given, form, monkeypatch):
    added = ADDED[command]
    if command == "remove-duplicates":
        added = added + (CLUSTERED if form == "csv" else ["removed_records"])
    mine = ["width", "height", "status", "detail", "distance", "rank", "kept", "cluster_id", "etag", "left_id"]
    mine += ["reference_id", "removed_records", "source", "path"] + ["phash", "bmh1"] * (command == "visual-hash")
    frame = table(images, *(pl.format(f"my {name} {{}}", pl.int_range(N)).alias(name) for name in mine))
    source, out = tmp_path / f"in.{given}", tmp_path / f"out.{form}"
    {"parquet": frame.write_parquet, "csv": frame.write_csv}.get(given, frame.write_ndjson)(source)
    with monkeypatch.context() as patched:
        patched.setattr(batches, "hash_batch", lambda *_: pytest.fail("hashed"))
        result = run(command, source, out, "--source", "url", code=2, query="1" * 968)
    taken = [name for name in added if name in mine]
    assert all(repr(name) in result.stderr for name in taken)
    assert "Hint: --prefix or --suffix renames the new columns" in result.stderr
    assert not out.exists()
    for words, rename in (
        (("--prefix", "x_"), "x_{}"),
        (("--suffix", " new"), "{} new"),
        (("--prefix", "a", "--suffix", "b"), "a{}b"),
    ):
        run(command, source, out, "--source", "url", *words, query=images[0])
        if form in ("parquet", "csv"):
            rows = pl.read_parquet(out) if form == "parquet" else pl.read_csv(out, infer_schema=False)
            nested = rename.format("removed_records")
            if nested in rows.columns:
                removed = rows.select(pl.col(nested).explode(empty_as_null=False)).unnest(nested)
                rows = pl.concat([rows.drop(nested), removed])
            rows = rows.sort("url").rows(named=True)
        else:
            rows = [json.loads(line) for line in out.read_text().splitlines()]
            rows = [record for row in rows for record in (row, *row.pop(rename.format("removed_records"), ()))]
            rows.sort(key=lambda row: row["url"])
        assert [{name: row[name] for name in ("url", *mine)} for row in rows] == frame.rows(named=True)
        new = {rename.format(name) for name in added} - {rename.format("removed_records")}
        assert set(rows[0]) == {"url", *mine} | new


def test_fields_that_become_columns_of_a_csv_are_kept_too(images, tmp_path, no_hashing):
    table(images, pl.struct(status=pl.lit("mine")).alias("shop")).write_parquet(tmp_path / "in.parquet")
    result = run(
        "visual-hash", tmp_path / "in.parquet", tmp_path / "o.csv", "--source", "url", "--prefix", "shop.", code=2
    )
    assert "the table has a column 'shop.status' already" in result.stderr


@pytest.mark.parametrize("form", ["json", "duckdb"])
def test_where_no_column_of_the_table_is_written_none_is_in_the_way(images, tmp_path, form):
    frame = table(images, pl.lit("mine").alias("status"), pl.lit("m").alias("distance"), pl.lit("l").alias("label"))
    frame.write_parquet(tmp_path / "in.parquet")
    commands = ("visual-hash",) if form == "duckdb" else COMMANDS
    for command in commands:
        first = [images[0]] if command == "rank-images" else []
        out = ["-o", tmp_path / f"out.{form}"]
        result = call(command, *first, tmp_path / "in.parquet", "--source", "url", *out)
        assert result.exit_code == 0, result.output
        if form == "json":
            assert "left out, because the documented .json has no place for it: " in result.stderr
            assert "distance, label" in result.stderr
        else:
            said = "not stored, a store keeps only the key, the source and the hashes: status, distance, label\n"
            assert result.stderr == said
        refused = call(command, *first, tmp_path / "in.parquet", "--source", "url", *out, "--prefix", "x_")
        assert "--prefix and --suffix name the new columns of a table" in refused.stderr
        assert refused.exit_code == 2


def test_fields_of_a_request_that_a_store_does_not_keep_are_said(images, tmp_path):
    (tmp_path / "in.json").write_text(json.dumps({"records": [{"_url": images[0], "_id": "1", "sku": 3}]}))
    result = call("visual-hash", tmp_path / "in.json", "--base-dir", "/", "-o", tmp_path / "out.duckdb")
    assert result.stderr == "not stored, a store keeps only the key, the source and the hashes: _id, sku\n"
    result = call("visual-hash", tmp_path / "in.json", "--base-dir", "/", "-o", tmp_path / "out.json")
    assert result.stderr == ""


# Partitions


@pytest.mark.parametrize("form", TABLES)
@pytest.mark.parametrize("given", ["folder", "glob", "files"])
@pytest.mark.parametrize("command", COMMANDS)
def test_partitions_of_hive_are_columns(images, tmp_path, command, given, form):
    root = tmp_path / "data"
    keys = [("2023", "a b", "007"), ("2024", "x/y", "010"), ("__HIVE_DEFAULT_PARTITION__", "é", "1")]
    for row, (year, cat, code) in enumerate(keys):
        folder = root / f"year={year}" / f"cat={cat.replace('/', '%2F')}" / f"code={code}"
        folder.mkdir(parents=True)
        pl.DataFrame({"url": images[2 * row : 2 * row + 2]}).write_parquet(folder / "part.parquet")
    (root / "_SUCCESS").touch()
    sources = {
        "folder": [root],
        "glob": [root / "*" / "*" / "*" / "*.parquet"],
        "files": sorted(root.rglob("*.parquet")),
    }[given]
    out = tmp_path / f"out.{form}"
    first = [images[0]] if command == "rank-images" else []
    result = call(command, *first, *sources, "-o", out)
    assert result.exit_code == 0, result.output
    found = read(out)
    assert found["year"].cast(pl.String).to_list() == ["2023", "2023", "2024", "2024", None, None]
    assert found["cat"].to_list() == ["a b", "a b", "x/y", "x/y", "é", "é"]
    assert found["code"].to_list() == ["007", "007", "010", "010", "1", "1"]


@pytest.mark.parametrize("given", ["folder", "glob"])
@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (
            ["plain", "year=1"],
            r"the partitions of '.*year=1/a.parquet' are year, those of '.*plain/a.parquet' are none",
        ),
        (["year=1", "year=2/month=3"], r"are month, year, those of '.*' are year"),
        (["Year=1", "year=2"], r"are year, those of '.*' are Year"),
        (["year=a=b", "year=c"], r"a folder of '.*' has more than one =, .*\nHint: write = in a value as %3D"),
        (["url=x", "url=y"], r"has a column 'url' with other values than the partition of that name"),
    ],
)
def test_partitions_that_would_be_lost_or_replace_a_column_are_refused(images, tmp_path, folders, said, given):
    for name in folders:
        (tmp_path / "data" / name).mkdir(parents=True)
        pl.DataFrame({"url": images}).write_parquet(tmp_path / "data" / name / "a.parquet")
    source = tmp_path / "data" if given == "folder" else tmp_path / "data" / "**" / "*.parquet"
    result = call("visual-hash", source, "-o", tmp_path / "out.csv")
    assert result.exit_code == 2
    assert re.search(said, result.stderr)
    assert "\nHint: " in result.stderr


@pytest.mark.parametrize("values", [["", "1"], ["1", ""], ["x", ""]])
def test_values_of_partitions_may_be_empty_or_a_column_too(images, tmp_path, values):
    for value in values:
        (tmp_path / "data" / f"code={value}").mkdir(parents=True)
        frame = pl.DataFrame({"url": images, "code": value})
        frame.write_parquet(tmp_path / "data" / f"code={value}" / "a.parquet")
    run("visual-hash", tmp_path / "data", tmp_path / "out.csv", "--source", "url")
    # A CSV has no way to tell an empty text from no value but quotes.
    assert set(read(tmp_path / "out.csv")["code"]) == set(values)


def test_a_folder_called_as_a_partition_adds_no_column_to_what_is_in_it(images, tmp_path):
    root = tmp_path / "run=3" / "data"
    root.mkdir(parents=True)
    pl.DataFrame({"url": images}).write_parquet(root / "a.parquet")
    run("visual-hash", root, tmp_path / "out.parquet")
    assert "run" not in read(tmp_path / "out.parquet").columns


# Names of rows


@pytest.fixture
def hugging_face(images, tmp_path):
    data = [{"bytes": Path(path).read_bytes(), "path": f"{row}.jpg"} for row, path in enumerate(images)]
    pl.DataFrame({"image": data, "label": list("aabbcc")}).write_parquet(tmp_path / "hf.parquet")
    return tmp_path / "hf.parquet"


def test_the_names_of_images_inside_a_struct_name_the_rows(hugging_face, tmp_path):
    out = tmp_path / "out.csv"
    call("remove-duplicates", hugging_face, "-o", out)
    found = pl.read_csv(out, infer_schema=False)
    assert found["image.path"].to_list() == [f"{row}.jpg" for row in range(N)]
    assert found["representative_id"].to_list() == ["0.jpg", "0.jpg", "2.jpg", "3.jpg", "3.jpg", "5.jpg"]
    for form in ("csv", "parquet", "ndjson"):
        out = tmp_path / f"out.{form}"
        result = run("remove-duplicates", hugging_face, out, "--reference", hugging_face)
        assert "named by their number" not in result.stderr
        if form == "csv":
            frame = pl.read_csv(out, infer_schema=False)
        else:
            frame = pl.read_parquet(out) if form == "parquet" else pl.read_ndjson(out)
        assert frame["reference_id"].to_list() == ["0.jpg", "0.jpg", "2.jpg", "3.jpg", "3.jpg", "5.jpg"]
        assert not [name for name in frame.columns if name.startswith("__")]


@pytest.mark.parametrize("paths", [[None] * N, ["x.jpg"] * N])
def test_names_that_name_no_row_give_way_to_row_numbers_with_a_word(hugging_face, tmp_path, paths):
    frame = pl.read_parquet(hugging_face)
    frame.with_columns(pl.col("image").struct.with_fields(path=pl.Series(paths, dtype=pl.String))).write_parquet(
        hugging_face
    )
    result = run("remove-duplicates", hugging_face, tmp_path / "out.csv")
    assert "rows without a name are identified by their number, from 0" in result.stderr
    found = pl.read_csv(tmp_path / "out.csv", infer_schema=False)
    assert found["representative_id"].to_list() == ["0", "0", "2", "3", "3", "5"]


@pytest.mark.parametrize("absent", [(), (1, 3), tuple(range(N))])
@pytest.mark.parametrize("command", COMMANDS)
def test_images_of_a_struct_are_where_their_path_leads_if_not_in_the_table(images, tmp_path, command, absent):
    frame = pl.DataFrame(
        {
            "image": [
                {"bytes": None if n in absent else Path(path).read_bytes(), "path": path}
                for n, path in enumerate(images)
            ]
        },
        schema={"image": pl.Struct({"bytes": pl.Binary, "path": pl.String})},
    )
    frame.write_parquet(tmp_path / "in.parquet", row_group_size=2)
    result = run(command, tmp_path / "in.parquet", tmp_path / "out.csv", query=images[0])
    assert "failed" not in result.stderr
    found = pl.read_csv(tmp_path / "out.csv", infer_schema=False).sort("image.path")
    assert found["image.path"].to_list() == images
    assert found["status"].to_list() == ["ok"] * N
    if command == "remove-duplicates":
        assert found["representative_id"].to_list() == [images[row] for row in (0, 0, 2, 3, 3, 5)]


# Outputs that are there


@pytest.mark.parametrize("form", [*TABLES, "jsonl", "json"])
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_there_is_not_replaced_without_a_word(images, tmp_path, command, form):
    out = tmp_path / f"out.{form}"
    out.write_text("precious")
    first = [images[0]] if command == "rank-images" else []
    result = call(command, *first, *images, "-o", out)
    assert result.stderr.startswith(f"{out} exists: it is replaced if this run succeeds\n")
    assert result.exit_code == 0


@pytest.mark.parametrize("command", ["remove-duplicates", "rank-images"])
def test_a_store_is_not_replaced_by_a_table(images, tmp_path, command, no_hashing):
    hashes = pl.DataFrame({"source": ["a"], "phash": [1]}, schema_overrides={"phash": pl.UInt64})
    store = tmp_path / "hashes.parquet"
    imgmatch_df.write_hashes(hashes, store)
    before = store.read_bytes()
    first = [images[0]] if command == "rank-images" else []
    result = call(command, *first, *images, "-o", store)
    assert (result.exit_code, store.read_bytes()) == (2, before)
    assert "is a store of hashes, which this command would replace\nHint: choose another name" in result.stderr


# Hashes from elsewhere

PHASHES = [0, 1, 2**63, 2**64 - 1, 13382819324714132201, 2**63 + 1, 5]
SIGNED = [value - 2**64 if value >= 2**63 else value for value in PHASHES]
RNG = np.random.default_rng(0)
BMH1S = [bytes(RNG.integers(0, 256, 120, dtype=np.uint8)) + b"\x80" for _ in PHASHES]
BMH1S[1], BMH1S[4] = BMH1S[0][:-2] + b"\0\0", BMH1S[2]
FOREIGN = {
    "phash": {
        "signed": pl.Series(SIGNED, dtype=pl.Int64),
        "unsigned": pl.Series(PHASHES, dtype=pl.UInt64),
        "wide": pl.Series(PHASHES, dtype=pl.Int128),
        "wide signed": pl.Series(SIGNED, dtype=pl.Int128),
        "decimal": pl.Series([Decimal(value) for value in PHASHES], dtype=pl.Decimal(20, 0)),
        "signed text": pl.Series(map(str, SIGNED), dtype=pl.String),
        "unsigned text": pl.Series(map(str, PHASHES), dtype=pl.String),
        "hex": pl.Series([f"{value:016x}" for value in PHASHES]),
        "HEX": pl.Series([f"{value:016X}" for value in PHASHES]),
        "0x": pl.Series([f"0x{value:016x}" for value in PHASHES]),
        "0/1": pl.Series([f"{value:064b}" for value in PHASHES]),
        "spaces": pl.Series([f" {value:016x} " for value in PHASHES]),
    },
    "bmh1": {
        "hex": pl.Series([value.hex() for value in BMH1S]),
        "HEX": pl.Series([value.hex().upper() for value in BMH1S]),
        "0x": pl.Series([f"0X{value.hex()}" for value in BMH1S]),
        "0/1": pl.Series([f"{int.from_bytes(value):0968b}" for value in BMH1S]),
    },
}
CASES = [(kind, form) for kind, forms in FOREIGN.items() for form in forms]


def write(frame, path):
    {".parquet": frame.write_parquet, ".csv": frame.write_csv}.get(path.suffix, frame.write_ndjson)(path)
    return path


@pytest.mark.parametrize("given", ["parquet", "csv", "ndjson", "json"])
@pytest.mark.parametrize(("kind", "form"), CASES)
def test_hashes_from_elsewhere_are_as_good_as_ours(tmp_path, no_hashing, kind, form, given):
    column = FOREIGN[kind][form]
    names = [f"{row}.jpg" for row in range(len(PHASHES))]
    frame = pl.DataFrame({"path": names, kind: column}).vstack(
        pl.DataFrame({"path": ["none"], kind: pl.Series([None], dtype=column.dtype)})
    )
    ours = pl.Series(PHASHES if kind == "phash" else BMH1S, dtype=KINDS[kind].dtype).extend_constant(None, 1)
    wanted = frame.with_columns(ours.alias(kind))
    if given == "json":
        path = tmp_path / "in.json"
        path.write_text(
            frame.write_json()
            if column.dtype != pl.Decimal
            else json.dumps(
                [{**row, kind: None if row[kind] is None else int(row[kind])} for row in frame.rows(named=True)]
            )
        )
    else:
        path = write(frame, tmp_path / f"in.{given}")
    radius = 2 if kind == "phash" else 128
    clusters = imgmatch_df.cluster(wanted, radius, kind, id="path").drop(kind)
    result = run("remove-duplicates", path, tmp_path / "o.csv", "--radius", radius, "--hash-type", kind, code=1)
    assert "no_hash 1" in result.stderr
    found = pl.read_csv(tmp_path / "o.csv", infer_schema=False)
    for name in clusters.columns:
        assert found[name].to_list() == clusters[name].cast(pl.String).to_list()
    query = PHASHES[2] if kind == "phash" else BMH1S[2]
    ranking = imgmatch_df.rank_images(wanted, query, kind).drop(kind)
    texts = [column_form[2] for column_form in FOREIGN[kind].values() if column_form.dtype == pl.String]
    if given != "parquet":  # how the query is read does not depend on the file: another form for each column
        texts = [texts[CASES.index((kind, form)) % len(texts)]]
    for text in texts:
        run("rank-images", path, tmp_path / "o.parquet", "--hash-type", kind, code=1, query=text)
        ranked = pl.read_parquet(tmp_path / "o.parquet")
        for name in ranking.columns:
            assert ranked[name].to_list() == ranking[name].to_list()
    # A foreign form comes out as it came in; strings of 0 and 1 are this package's own, and hashes in Parquet.
    if form == "0/1":
        assert ranked[kind].to_list() == [wanted[kind][frame["path"].to_list().index(name)] for name in ranked["path"]]
    elif given == "parquet":
        assert ranked[kind].to_list() == [frame[kind][frame["path"].to_list().index(name)] for name in ranked["path"]]
        assert ranked.schema[kind] == frame.schema[kind]


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("signed", "unsigned"),
        ("hex", "signed text"),
        ("unsigned", "wide signed"),
        ("0/1", "HEX"),
        ("unsigned text", "0/1"),
    ],
)
def test_two_tables_may_have_two_forms(tmp_path, no_hashing, mine, theirs):
    names = pl.Series("path", [f"{row}.jpg" for row in range(len(PHASHES))])
    pl.DataFrame([names, FOREIGN["phash"][mine].alias("phash")]).write_parquet(tmp_path / "new.parquet")
    pl.DataFrame([names, FOREIGN["phash"][theirs].alias("phash")]).reverse().write_parquet(tmp_path / "old.parquet")
    words = ("--reference", tmp_path / "old.parquet", "--flat", "match")
    run("remove-duplicates", tmp_path / "new.parquet", tmp_path / "o.parquet", *words)
    found = pl.read_parquet(tmp_path / "o.parquet")
    assert found["reference_id"].to_list() == names.to_list()
    assert found["distance"].to_list() == [0] * len(names)
    if mine != "0/1":
        assert found["phash"].to_list() == FOREIGN["phash"][mine].to_list()


@pytest.mark.parametrize("given", ["parquet", "csv", "ndjson"])
@pytest.mark.parametrize(
    ("kind", "values", "shown"),
    [
        (
            "phash",
            ["b9b9534546d1a2e9", None, "nonsense", "x"],
            "'nonsense' (8 characters) in row 2 (from 0), a phash is 64",
        ),
        ("phash", ["b9b9534546d1a2e9", "b9b9534546d1a2e", "x"], "'b9b9534546d1a2e' (15 characters) in row 1 (from 0)"),
        (
            "phash",
            ["1", "2", "b9b9534546d1a2e9"],
            "'b9b9534546d1a2e9' (16 characters) in row 2 (from 0) in another form",
        ),
        ("phash", ["18446744073709551616", "1"], "'18446744073709551616' (20 characters) in row 0 (from 0)"),
        ("phash", ["1", "-9223372036854775809"], "'-9223372036854775809' (20 characters) in row 1 (from 0)"),
        ("phash", ["1.5"], "'1.5' (3 characters) in row 0 (from 0)"),
        ("bmh1", ["00" * 121, "0" * 968], f"'{'0' * 79}"),
        ("bmh1", ["00" * 121, "00" * 120], "(240 characters) in row 1 (from 0), a bmh1 is 968 characters of 0 and 1"),
    ],
)
def test_the_first_value_that_is_no_hash_is_named(tmp_path, no_hashing, kind, values, shown, given):
    path = write(pl.DataFrame({"path": ["a"] * len(values), kind: values}), tmp_path / f"in.{given}")
    for words in (["remove-duplicates", path], ["rank-images", "0" * KINDS[kind].n_chars, path]):
        result = call(*words, "--hash-type", kind)
        assert result.exit_code == 2
        assert f"column '{kind}' holds " in result.stderr
        assert shown in result.stderr
        assert "Hint: " in result.stderr


def test_digits_are_hexadecimal_where_all_values_have_sixteen(tmp_path, no_hashing):
    """A column has one form: that of all of its values."""
    for values, wanted in (
        (["1234567890123456", "0000000000000010"], [0x1234567890123456, 16]),
        (["1234567890123456", "10"], [1234567890123456, 10]),
    ):
        write(pl.DataFrame({"path": ["a", "b"], "phash": values}), tmp_path / "in.csv")
        frame = pl.DataFrame({"phash": wanted}, schema={"phash": pl.UInt64})
        run("rank-images", tmp_path / "in.csv", tmp_path / "o.csv", query="0" * 64)
        found = pl.read_csv(tmp_path / "o.csv")["distance"].to_list()
        assert found == imgmatch_df.rank_images(frame, 0, "phash")["distance"].to_list()


def written(value):
    """Return a phash in every form."""
    numbers = [f"{value}", f"{value - 2**64}" if value >= 2**63 else f"+{value}"]
    return [*numbers, f"{value:016x}", f"{value:016X}", f"0x{value:016x}", f"{value:064b}"]


QUERIES = [(value, text) for value in PHASHES[2:] for text in written(value)]


@pytest.mark.parametrize(("value", "text"), [*QUERIES, (0x1234567890123456, "1234567890123456")])
def test_a_query_is_a_hash_in_any_form(tmp_path, no_hashing, monkeypatch, value, text):
    monkeypatch.chdir(tmp_path)
    frame = pl.DataFrame(
        {"path": [f"{row}" for row in range(len(PHASHES))], "phash": pl.Series(PHASHES, dtype=pl.UInt64)}
    )
    frame.write_parquet("in.parquet")
    wanted = imgmatch_df.rank_images(frame, value, "phash")["distance"].to_list()
    for words in (
        ["rank-images", text, "in.parquet", "-o", "o.csv"],
        ["rank-images", "-o", "o.csv", text, "in.parquet"],
        ["rank-images", "-o", "o.csv", "--", text, "in.parquet"],
    ):
        result = call(*words)
        assert result.exit_code == 0, result.output
        assert pl.read_csv("o.csv", infer_schema=False)["distance"].cast(pl.UInt16).to_list() == wanted
    result = call("rank-images", text, "in.parquet", "-o", "o.json")
    assert json.loads((tmp_path / "o.json").read_text())["query_records"][0]["phash"] == f"{value:064b}"
    assert result.exit_code == 0


def test_the_kind_of_a_query_is_that_of_the_table(tmp_path, no_hashing, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digits = ["ab" * 8, "00" * 8]
    frame = pl.DataFrame(
        {"path": ["a", "b"], "bmh1": ["00" * 121] * 2, "imagehash_dhash": digits, "pdq": ["cd" * 32] * 2}
    )
    frame.write_parquet("in.parquet")
    for query, wanted in (("ab" * 8, ["0", "40"]), ("cd" * 32, ["0", "0"]), ("0" * 64, ["0", "40"])):
        result = call("rank-images", query, "in.parquet", "-o", "o.csv")
        assert result.exit_code == 0, result.output
        assert pl.read_csv("o.csv", infer_schema=False)["distance"].to_list() == wanted
    frame.with_columns(phash="imagehash_dhash").write_parquet("in.parquet")
    result = call("rank-images", "ab" * 8, "in.parquet")
    assert result.exit_code == 2
    assert "may be a hash of several kinds: phash, imagehash_dhash\nHint: --hash-type names the kind" in result.stderr
    assert call("rank-images", "ab" * 8, "in.parquet", "--hash-type", "imagehash_dhash").exit_code == 0


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("suffix", ["parquet", "csv", "ndjson"])
def test_a_column_of_another_name(tmp_path, no_hashing, monkeypatch, suffix, beside):
    """The column is compared and written as it is, also beside a column with the name of the kind."""
    monkeypatch.chdir(tmp_path)
    digits = ["ab" * 8, "00" * 8, "ab" * 7 + "aa", None]
    frame = pl.DataFrame({"path": ["a", "b", "c", "d"], "mine": digits})
    if beside:
        frame = frame.with_columns(pl.Series("imagehash_phash", ["not", "a", "hash", ""]))
    write(frame, tmp_path / f"in.{suffix}")
    chosen = ("--column", "mine", "--hash-type", "imagehash_phash")
    wanted = frame.select("path", pl.col("mine").imgmatch.from_hex("imagehash_phash").alias("imagehash_phash"))
    result = call("remove-duplicates", f"in.{suffix}", *chosen, "--radius", "1", "-o", "o.parquet")
    assert result.exit_code == 1, result.output  # d has no hash
    kept = pl.read_parquet("o.parquet")
    assert kept.select(sorted(frame.columns)).equals(pl.concat([frame[:2], frame[3:]]).select(sorted(frame.columns)))
    assert kept.columns == ["removed_records", *(name for name in frame.columns if name in kept.columns)]
    assert set(kept.schema["removed_records"].inner.to_schema()) == set(frame.columns)
    for query in ("ab" * 8, "0", "1" * 64):
        result = call("rank-images", query, f"in.{suffix}", *chosen, "-o", "o.csv")
        assert result.exit_code == 1, result.output
        ranked = pl.read_csv("o.csv")
        assert ranked["path"].to_list() == imgmatch_df.rank_images(wanted, query, "imagehash_phash")["path"].to_list()
        assert sorted(ranked.columns) == sorted(["rank", "distance", *frame.columns])
    for other in (frame, frame.rename({"mine": "imagehash_phash"}) if not beside else frame):
        write(other[:2], tmp_path / f"known.{suffix}")
        result = call("remove-duplicates", f"in.{suffix}", *chosen, "--reference", f"known.{suffix}", "-o", "o.parquet")
        assert result.exit_code == 1, result.output
        found = pl.read_parquet("o.parquet").sort("path")
        assert found["reference_id"].to_list() == ["a", "b", None, None]
        assert set(frame.columns) < set(found.columns)
        assert ("imagehash_phash" in found.columns) == beside


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("in.csv", "--column", "mine"), "--column mine does not name the kind of its hashes\nHint: --hash-type"),
        (("in.csv", "--column", "other", "--hash-type", "phash"), "no column 'other', the table has path (String), "),
        (
            ("in.csv", "--column", "mine", "--hash-type", "phash"),
            "column 'mine' holds 'x' (1 characters) in row 1 (from",
        ),
        ((".", "--column", "mine", "--hash-type", "phash"), "--column is for tables, the sources are images\nHint: "),
    ],
)
def test_columns_that_cannot_be_read(tmp_path, no_hashing, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"path": ["a", "b"], "mine": ["ab" * 8, "x"]}).write_csv("in.csv")
    for command in (("remove-duplicates",), ("rank-images", "0" * 64)):
        result = call(*command, *words)
        assert result.exit_code == 2
        assert message in result.stderr
        assert "Hint: " in result.stderr


def test_lists_of_bits_become_hashes(tmp_path, no_hashing, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = [[[True] * 8] * 8, [[False] * 8] * 8, [[True] * 8] * 8]
    frame = pl.DataFrame({"path": ["a", "b", "c"], "imagehash_phash": grid})
    frame.write_parquet("in.parquet")
    assert call("remove-duplicates", "in.parquet", "-o", "o.parquet").exit_code == 0
    assert pl.read_parquet("o.parquet")["path"].to_list() == ["a", "b"]
    frame[:2].with_columns(imagehash_phash=pl.Series([grid[0], grid[0][:7]])).write_parquet("bad.parquet")
    result = call("remove-duplicates", "bad.parquet")
    assert result.exit_code == 2
    assert "holds 56 values, and 64 in the rows before it in row 1 (from 0)" in result.stderr


def test_the_name_of_a_file_is_not_a_hash(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deadbeefdeadbeef").write_bytes(Path(images[0]).read_bytes())
    result = call("rank-images", "deadbeefdeadbeef", *images, "-o", "o.csv")
    assert result.exit_code == 0, result.output
    assert pl.read_csv("o.csv", infer_schema=False)["distance"][0] == "0"


def test_options_are_no_negative_queries(images):
    assert "No such option" in call("rank-images", "-x5", images[0]).output
    assert call("rank-images", images[0], images[1], "-k", "-5").exit_code == 2


@pytest.mark.parametrize("kind", [PHASH, BMH1])
def test_forms_of_one_text(kind):
    zeros = {"phash": 0, "bmh1": bytes(121)}[kind.name]
    assert parse_text("0" * kind.n_chars, kind) == zeros
    assert parse_text("0" * 2 * kind.n_bytes, kind) == zeros
    assert form_of("", kind) is None
    assert form_of("x" * kind.n_chars, kind) is None
    assert parse_text("g" * 16, kind) is None


# Text formats of all rows that are there


def test_a_list_in_json_is_a_table(images, tmp_path):
    rows = [{"url": path, "n": number, "more": {"a": [number]}} for number, path in enumerate(images)]
    (tmp_path / "in.json").write_text(json.dumps(rows))
    run("visual-hash", tmp_path / "in.json", tmp_path / "out.parquet")
    found = pl.read_parquet(tmp_path / "out.parquet")
    assert found.select("url", "n", "more").rows(named=True) == rows
    assert found["status"].to_list() == ["ok"] * N
    (tmp_path / "in.json").write_text("[1, 2]")
    assert "is not a list of objects only" in call("visual-hash", tmp_path / "in.json").stderr


# Export


@pytest.mark.parametrize("form", TABLES)
def test_a_table_with_hashes_is_exported_as_a_store_is(images, tmp_path, form):
    (tmp_path / "cut.jpg").write_bytes(b"no image")
    pl.DataFrame({"url": [*images, str(tmp_path / "cut.jpg")], "label": "x"}).write_parquet(tmp_path / "in.parquet")
    for out in (f"t.{form}", "wanted.json", "s.duckdb"):
        run("visual-hash", tmp_path / "in.parquet", tmp_path / out, code=1)
    answers = []
    for source in (tmp_path / f"t.{form}", tmp_path / "s.duckdb"):
        result = call("export", source, "-o", tmp_path / "o.json")
        assert result.exit_code == 0, result.output
        answers.append(json.loads((tmp_path / "o.json").read_text()))
    assert "no place for it: label" in call("export", tmp_path / f"t.{form}").stderr
    answers.append(json.loads((tmp_path / "wanted.json").read_text()))
    for answer in answers:
        answer.pop("statistics")
        for record in answer["records"]:
            record.get("_status", {}).pop("request_id", None)
    assert answers[0] == answers[2]
    assert answers[1] == answers[2]


def test_a_table_without_hashes_is_not_exported(images, tmp_path, no_hashing):
    pl.DataFrame({"url": images}).write_parquet(tmp_path / "in.parquet")
    result = call("export", tmp_path / "in.parquet")
    assert result.exit_code == 2
    assert "has no column bmh1 or phash\nHint: imgmatch visual-hash" in result.stderr


@pytest.mark.parametrize("dtype", [pl.Int64, pl.Int128, pl.Decimal(20, 0), pl.String])
def test_hashes_in_a_foreign_form_are_exported_beside_others(images, tmp_path, dtype):
    hashed = imgmatch_df.visual_hash(pl.DataFrame({"url": images}))
    signed = hashed["phash"].reinterpret(signed=True) if dtype in (pl.Int64, pl.Int128) else hashed["phash"]
    answers = []
    for name, phash in (("ours", hashed["phash"]), ("foreign", signed.cast(dtype)), ("none", pl.Series(["a"] * N))):
        hashed.with_columns(phash.alias("phash")).write_parquet(tmp_path / f"{name}.parquet")
        result = call("export", tmp_path / f"{name}.parquet")
        assert result.exit_code == 0, result.output
        answers.append(json.loads(result.stdout)["records"])
    assert answers[0] == answers[1]
    assert "left out, because the documented .json has no place for it: phash" in result.stderr
    assert [set(record) for record in answers[2]] == [{"_url", "_width", "_height", "bmh1"}] * N
