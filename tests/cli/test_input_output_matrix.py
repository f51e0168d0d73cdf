"""Every kind of source with every format of output: each row is found by its own name, or a message says otherwise.

The kinds are those of the registries, so that a new format is tested by itself: a new input format needs a writer in
`WRITERS` only if no output format has its suffix.
"""

import json
from pathlib import Path
from typing import NamedTuple

import duckdb
import polars as pl
import pytest
from drawing import draw, jpeg
from typer.testing import CliRunner

from imgmatch_df.cli import lake_tables
from imgmatch_df.cli.app import app
from imgmatch_df.cli.formats import OUTPUT_FORMATS
from imgmatch_df.cli.input_formats import INPUT_FORMATS, open_bytes
from imgmatch_df.cli.lists import LIST_SUFFIXES, STDIN
from imgmatch_df.cli.table_files import scan_table
from imgmatch_df.store.base import store_suffixes

NAMES = ["a 1.jpg", "b,2.jpg", "ç 3.jpg", "a copy.jpg"]  # the last is a copy of the first
IDS = ["id-one", "id-two", "id-drei", "id-copy"]
LAKES = (lake_tables.DELTA, lake_tables.ICEBERG, lake_tables.LANCE)  # in tests/packages
COMMANDS = {
    "visual-hash": [],
    "remove-duplicates": ["--radius", "0"],
    "rank-images": [],
    "find-copies": [],
}


class Input(NamedTuple):
    """Words of SOURCE, standard input, and the names of the rows that every output must have."""

    words: list[str]
    names: list[str]
    stdin: bytes = b""
    has_ids: bool = False


def table(column: str) -> pl.DataFrame:
    images = [Path("photos", name).read_bytes() for name in NAMES]
    paths = [f"photos/{name}" for name in NAMES]
    values = {
        "path": paths,
        "binary": images,
        "struct": [{"bytes": image, "path": path} for image, path in zip(images, paths, strict=True)],
    }
    name = {"path": "path", "binary": "image", "struct": "image"}[column]
    return pl.DataFrame({"id": IDS, name: values[column]})


def write_stream(frame: pl.DataFrame, path: str) -> None:
    frame.write_ipc_stream(path)


def write_list(frame: pl.DataFrame, path: str) -> None:
    text = json.dumps(frame.to_dicts()).encode()
    if path.endswith(".json"):
        Path(path).write_bytes(text)
        return
    import pyarrow

    with pyarrow.output_stream(path, compression={"gz": "gzip", "zst": "zstd"}[path.rpartition(".")[2]]) as file:
        file.write(text)


WRITERS = {".arrows": write_stream, ".json": write_list, ".json.gz": write_list, ".json.zst": write_list}


def write(frame: pl.DataFrame, path: str, suffix: str) -> None:
    if suffix in WRITERS:
        WRITERS[suffix](frame, path)
    else:
        OUTPUT_FORMATS[suffix].write(frame.lazy(), Path(path), False)


def table_input(suffix: str, column: str) -> Input:
    path = f"table {column}{suffix}"
    write(table(column), path, suffix)
    return Input([path, "--source", "image" if column != "path" else "path"], IDS, has_ids=True)


def request() -> Input:
    records = [{"_id": one, "_url": f"photos/{name}"} for one, name in zip(IDS, NAMES, strict=True)]
    Path("request.json").write_text(json.dumps({"records": records}))
    return Input(["request.json", "--base-dir", "."], IDS)


def store() -> Input:
    call("visual-hash", "photos", "-o", "in.duckdb")
    return Input(["in.duckdb"], [f"photos/{name}" for name in NAMES])


PATHS = [f"photos/{name}" for name in NAMES]
LINES = "".join(f"{path}\n" for path in PATHS).encode()


def a_list(suffix: str) -> Input:
    path = f"list{suffix}"
    if suffix == ".txt":
        Path(path).write_bytes(LINES)
    else:
        import pyarrow

        with pyarrow.output_stream(path, compression={".gz": "gzip", ".zst": "zstd"}[suffix[4:]]) as file:
            file.write(LINES)
    return Input([path], PATHS)


INPUTS = {
    "folder": lambda: Input(["photos"], PATHS),
    "glob": lambda: Input(["photos/*.jpg"], PATHS),
    "images": lambda: Input(PATHS, PATHS),
    "standard input": lambda: Input([STDIN], PATHS, LINES),
    "files from": lambda: Input(["--files-from", STDIN, "--null"], PATHS, LINES.replace(b"\n", b"\0")),
    "request": request,
    "store": store,
    **{f"list {suffix}": lambda suffix=suffix: a_list(suffix) for suffix in LIST_SUFFIXES},
    **{
        f"{column} {suffix}": lambda suffix=suffix, column=column: table_input(suffix, column)
        for suffix, form in INPUT_FORMATS.items()
        if suffix not in LAKES
        for column in (("path",) if form.is_text else ("path", "binary", "struct"))
    },
}
OUTPUTS = (*OUTPUT_FORMATS, *store_suffixes())


def call(*words, code=0, stdin=b""):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"}, input=stdin)
    assert result.exit_code == code, f"{words}: {result.output}"
    return result


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(NAMES[:3]):
        (tmp_path / "photos" / name).write_bytes(jpeg(draw(number, 120, 90)))
    (tmp_path / "photos" / NAMES[3]).write_bytes((tmp_path / "photos" / NAMES[0]).read_bytes())
    return tmp_path


def text_of(path: str, suffix: str) -> str:
    """Return everything in an output as text."""
    if suffix in store_suffixes():
        with duckdb.connect(path, read_only=True) as connection:
            return str(connection.sql("select * from hashes").fetchall())
    if suffix in INPUT_FORMATS and not INPUT_FORMATS[suffix].is_text:
        return str(scan_table([path], suffix).collect().to_dicts())
    with open_bytes(path) as file:
        text = file.read().decode("utf-8")
    return text if suffix != ".json" else json.dumps(json.loads(text), ensure_ascii=False)


def is_refused(command: str, suffix: str) -> bool:
    return suffix in store_suffixes() and command != "visual-hash"


def check(command: str, kind: str, suffix: str) -> None:
    given = INPUTS[kind]()
    out = f"out{suffix}"
    words = [command, *(["photos/a 1.jpg"] if command == "rank-images" else []), *given.words, *COMMANDS[command]]
    if suffix in store_suffixes() and given.has_ids:
        words += ["--key", "id"]
    if suffix in store_suffixes() and kind == "request":
        words += ["--key", "_id"]
    if is_refused(command, suffix) or (command == "find-copies" and suffix == ".json"):
        call(*words, "-o", out, stdin=given.stdin, code=2)
        return
    if kind == "store" and command == "visual-hash" and suffix not in (".json", *store_suffixes()):
        words += ["--prefix", "new_"]  # it has columns of these names
    said = call(*words, "-o", out, stdin=given.stdin).stderr
    text = text_of(out, suffix)
    if command == "find-copies":
        numbered = "rows without a name are identified by their number, from 0" in said
        pair = ("0", "3") if numbered else (given.names[0], given.names[3])
        by_path = (PATHS[0], PATHS[3])
        assert all(one in text for one in pair) or all(one in text for one in by_path), text
        return
    absent = [name for name in given.names if name not in text]
    if absent and given.has_ids and suffix == ".json":
        # The documented JSON names images by their URL.
        assert "left out, because the documented .json has no place for it: id" in said
        absent = []
    assert not absent, f"{command} {kind} {suffix}: {absent} are not in {text}"


@pytest.mark.parametrize("number", range(len(INPUTS)), ids=list(INPUTS))
def test_each_kind_of_source(photos, number):
    # Each kind with one output of its own and one command, so that every format is written.
    check("visual-hash", list(INPUTS)[number], OUTPUTS[number % len(OUTPUTS)])
    commands = list(COMMANDS)[1:]
    check(commands[number % len(commands)], list(INPUTS)[number], OUTPUTS[(number * 7 + 3) % len(OUTPUTS)])


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", INPUTS)
def test_every_kind_of_source_with_every_output_and_command(photos, command, kind):
    # Each command and kind with every third output, so that any two of the three meet, many times.
    first = -(list(COMMANDS).index(command) + list(INPUTS).index(kind)) % 3
    for suffix in OUTPUTS[first::3]:
        check(command, kind, suffix)


def test_every_format_is_in_the_matrix():
    assert len(INPUTS) >= len(INPUT_FORMATS)
    assert len(OUTPUTS) <= len(INPUTS)  # so that the fast test writes every one
