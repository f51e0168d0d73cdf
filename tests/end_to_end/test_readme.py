"""What the README says is true: its Python runs, and so do its commands."""

import json
import re
import shlex
from pathlib import Path

import duckdb
import polars as pl
import pytest
from drawing import draw, jpeg
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.cli import demo
from imgmatch_df.hashes.kinds import KINDS
from imgmatch_df.options import Options

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working directory with what the README's reader has."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for seed in range(6):
        (tmp_path / "photos" / f"{seed}.jpg").write_bytes(jpeg(draw(seed)))
    (tmp_path / "today").mkdir()
    (tmp_path / "today" / "new.jpg").write_bytes(jpeg(draw(7)))
    (tmp_path / "cat.jpg").write_bytes(jpeg(draw(3)))
    files = sorted(str(path) for path in (tmp_path / "photos").iterdir())
    pl.DataFrame({"url": [*files, "photos/gone.jpg"]}).write_parquet(tmp_path / "images.parquet")
    (tmp_path / "request.json").write_text('{"records": [{"_url": "photos/0.jpg"}, {"_url": "photos/1.jpg"}]}')
    return tmp_path


def test_python_examples_run(desk):
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert pl.read_parquet(desk / "hashes.parquet")["phash"].null_count() == 0
    assert imgmatch_df.read_hashes(desk / "hashes.duckdb").height == 6
    assert names["checked"]["status"].cast(pl.String).to_list() == ["ok"] * 6 + ["not_found"]


def test_commands_run(desk):
    from imgmatch_df.cli.app import app

    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("imgmatch ")]
    assert len(lines) >= 5
    for line in lines:
        result = CliRunner().invoke(app, shlex.split(line, comments=True)[1:])
        assert result.exit_code in (0, 1), f"{line}: {result.output}"
    assert (desk / "response.json").exists()


def test_sql_runs(desk):
    imgmatch_df.write_hashes(imgmatch_df.scan_images("photos"), "hashes.duckdb", source="path")
    imgmatch_df.scan_images("photos").with_columns(pl.col("path").imgmatch.phash()).sink_parquet("images.parquet")
    (block,) = blocks("sql")
    with duckdb.connect("hashes.duckdb", read_only=True) as connection:
        answers = [connection.sql(line.partition("--")[0].strip(" ;")).pl() for line in block.splitlines()]
    stored = imgmatch_df.read_hashes("hashes.duckdb")
    assert answers[0].rows() == stored.imgmatch.near_duplicates(24, id="source").rows()
    assert answers[4]["source"][0] == "photos/3.jpg"
    assert [len(answer) for answer in answers[2:7]] == [6, 6, 6, 6, 36]


ADVICE = re.compile(
    r"--radius[ =](\d+)|\bradius=(\d+)"
    r"|\b(?:cluster|remove_duplicates|near_duplicates|duplicate_clusters|match)\((?:\w+, )?(\d+)(?=[,)])"
    r"|\.hamming\(\w+\) <= (\d+)"
)
BY_KIND = re.compile(r"\b(\d+) (?:of|for)\s`?(bmh1|phash)`?")


def advised(text: str) -> list[tuple[str, int]]:
    """Return the radii that a text uses or advises, each with the kind of its line."""
    found = [(match[2], int(match[1])) for match in BY_KIND.finditer(text)]
    for line in text.splitlines():
        kind = "phash" if re.search(r"hash.type\W+phash|'phash'", line) else "bmh1"
        found += [(kind, int(next(filter(None, match.groups())))) for match in ADVICE.finditer(line)]
    return found


def notebook_text(path: Path) -> str:
    return "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])


def help_text(*words: str) -> str:
    from imgmatch_df.cli.app import app

    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "1000", "TERM": "dumb"}).stdout
    return re.sub(r"[│ ]+", " ", shown)


def test_the_table_of_options_is_whole():
    text = README.read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\|", text[text.index("## Options") :].split("\n**", 1)[0], re.MULTILINE)
    shown = {name: default.strip("`").replace(",", "") for name, default in rows}
    for name, default in Options.defaults().items():
        value = f'"{default}"' if isinstance(default, str) else str(default)
        assert shown.pop(name) in ({"", "all"} if default is None else {value, value.removesuffix(".0")}), name
    assert shown == {}


def test_one_radius_is_advised_for_each_kind():
    from imgmatch_df.cli.app import app

    commands = [command.name or command.callback.__name__ for command in app.registered_commands]
    texts = {
        "README.md": README.read_text(),
        "demo": "\n".join(demo._LINES) + f"\n--radius {demo.RADIUS}",
        **{path.name: notebook_text(path) for path in README.parent.glob("notebooks/*.ipynb")},
        "help": "\n".join([help_text(), *(help_text(name) for name in commands)]),
    }
    # This one shows what a radius is too large for.
    texts["sql.ipynb"] = texts["sql.ipynb"].replace("FROM near_duplicates(16, 'phash')\n", "", 1)
    radii = {name: advised(text) for name, text in texts.items()}
    for name, found in radii.items():
        assert {(kind, radius) for kind, radius in found} <= {
            (kind.name, kind.near_radius) for kind in KINDS.values()
        }, name
    for name in ("README.md", "radius.ipynb", "help"):  # both are named there
        assert len(set(radii[name])) == 2, name
    assert len(radii["README.md"]) >= 15
    assert len(radii["demo"]) == 3


def test_advice_of_another_radius_is_seen():
    for line in (
        "--radius 48",
        "x.cluster(radius=48)",
        "remove_duplicates(photos, 48)",
        "about 48 of bmh1",
        "8 for `phash`",
    ):
        assert advised(line), line
    assert advised("near_duplicates(4, hash_type := 'phash')") == [("phash", 4)]
    assert advised("imgmatch x --hash-type phash --radius 24") == [("phash", 24)]
    assert advised("radius of 0, 31 x 31, within 7 bits of phash") == []


def test_no_recipe_moves_or_deletes_files():
    for text in (README.read_text(), *map(notebook_text, README.parent.glob("notebooks/*.ipynb"))):
        assert not re.search(r"xargs|\bmv |\brm |-delete", text)


def test_there_is_one_command_for_each_job():
    for job in ("main-job", "test"):
        (between,) = re.findall(rf"<!-- {job}:begin -->(.*?)<!-- {job}:end -->", README.read_text(), re.DOTALL)
        (block,) = re.findall(r"```sh\n(.*?)```", between, re.DOTALL)
        assert len(block.splitlines()) == 1
