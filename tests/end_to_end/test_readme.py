"""What the README and the other documents advise is true of the code: options, radii, commands."""

import json
import re
from pathlib import Path

from documents import PAGES, ROOT, blocks_of
from typer.testing import CliRunner

from imgmatch_df.cli import demo
from imgmatch_df.hashes.kinds import KINDS
from imgmatch_df.options import Options

README = ROOT / "README.md"
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
MAX_LINES = 160

ADVICE = re.compile(
    r"--radius[ =](\d+)|\bradius=(\d+)"
    r"|\b(?:cluster|remove_duplicates|near_duplicates|duplicate_clusters|match)\((?:[\w\".]+, )?(\d+)(?=[,)])"
    r"|\.hamming\([^()]+(?:\([^()]*\))?\) <= (\d+)"
)
BY_KIND = re.compile(rf"\b(\d+)\s(?:of|for)\s`?({'|'.join(KINDS)})\b`?")
OF_KIND = re.compile(rf"hash.type\W+({'|'.join(KINDS)})\b|(?:\d, |:= )[\"']({'|'.join(KINDS)})[\"']")


def advised(text: str) -> list[tuple[str, int]]:
    """Return the radii that a text uses or advises, each with the kind of its line."""
    found = [(match[2], int(match[1])) for match in BY_KIND.finditer(text)]
    for line in text.splitlines():
        named = OF_KIND.search(line)
        kind = next(filter(None, named.groups())) if named else "bmh1"
        found += [(kind, int(next(filter(None, match.groups())))) for match in ADVICE.finditer(line)]
    return found


def notebook_text(path: Path) -> str:
    return "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])


def help_text(*words: str) -> str:
    from imgmatch_df.cli.app import app

    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "1000", "TERM": "dumb"}).stdout
    return re.sub(r"[│ ]+", " ", shown)


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= MAX_LINES


def test_the_readme_has_one_generated_table_and_no_other_benchmark():
    markers = re.findall(r"<!-- (\S+):begin -->", README.read_text())
    assert markers == ["main-job", "hashing", "test"]


def test_the_table_of_options_is_whole():
    text = (ROOT / "docs" / "guide" / "hashing.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\|", text[text.index("## Options") :].split("\n## ", 1)[0], re.MULTILINE)
    shown = {name: default.strip("`").replace(",", "") for name, default in rows}
    for name, default in Options.defaults().items():
        value = f'"{default}"' if isinstance(default, str) else str(default)
        assert shown.pop(name) in ({"", "all"} if default is None else {value, value.removesuffix(".0")}), name
    assert shown == {}


def test_one_radius_is_advised_for_each_kind():
    from imgmatch_df.cli.app import app

    commands = [command.name or command.callback.__name__ for command in app.registered_commands]
    texts = {
        # One page shows a kind of its own.
        **{page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES if page.stem != "add-a-hash-kind"},
        "demo": "\n".join(demo._LINES) + f"\n--radius {demo.RADIUS}",
        **{path.name: notebook_text(path) for path in NOTEBOOKS},
        "help": "\n".join([help_text(), *(help_text(name) for name in commands)]),
    }
    # This one shows what a radius is too large for.
    texts["sql.ipynb"] = texts["sql.ipynb"].replace("FROM near_duplicates(16, 'phash')\n", "", 1)
    radii = {name: advised(text) for name, text in texts.items()}
    for name, found in radii.items():
        assert {(kind, radius) for kind, radius in found} <= {
            (kind.name, kind.near_radius) for kind in KINDS.values()
        }, name
    guide = ("docs/guide/choosing-a-radius.md", "docs/guide/near-duplicates.md")
    for name in ("README.md", *guide, "radius.ipynb"):  # both are named there
        assert {kind for kind, _ in radii[name]} >= {"bmh1", "phash"}, name
    own = {kind.name for kind in KINDS.values() if kind.is_perceptual and kind.kernel.startswith("imgmatch_df.")}
    assert {kind for kind, _ in radii["help"]} >= own  # tests register others
    assert sum(map(len, radii.values())) >= 60
    assert len(radii["demo"]) == 3


def test_the_readme_has_every_perceptual_kind_with_its_radius():
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ([\d, ]+) \|", README.read_text(), re.MULTILINE)
    advice = {}
    for names, radii in rows:
        advice |= zip(re.findall(r"\w+", names), map(int, radii.split(",")), strict=True)
    own = [kind for kind in KINDS.values() if kind.is_perceptual and kind.kernel.startswith("imgmatch_df.")]
    assert advice == {kind.name: kind.near_radius for kind in own}
    text = (ROOT / "docs" / "guide" / "hashing.md").read_text()
    rows = re.findall(r"^\| `(imagehash_\w+)` \|.* (\d+) \|$", text, re.MULTILINE)
    assert {name: int(radius) for name, radius in rows} == {
        kind.name: kind.near_radius for kind in own if kind.name.startswith("imagehash_")
    }


def test_advice_of_another_radius_is_seen():
    for line in (
        "--radius 48",
        "x.cluster(radius=48)",
        "remove_duplicates(photos, 48)",
        'today.imgmatch.match("hashes.duckdb", 48, id="path")',
        'pl.col("bmh1").imgmatch.hamming(pl.col("bmh1_right")) <= 48',
        "about 48 of bmh1",
        "8 for `phash`",
    ):
        assert advised(line), line
    assert advised("near_duplicates(4, hash_type := 'phash')") == [("phash", 4)]
    assert advised("imgmatch x --hash-type phash --radius 24") == [("phash", 24)]
    assert advised("radius of 0, 31 x 31, within 7 bits of phash") == []


def test_no_recipe_moves_or_deletes_files():
    for text in (*(path.read_text() for path in PAGES), *map(notebook_text, NOTEBOOKS)):
        assert not re.search(r"xargs|\bmv |\brm |-delete", text)


def test_there_is_one_command_for_each_job():
    for job in ("main-job", "test"):
        (block,) = [block for block in blocks_of(README) if block.mark == f"{job}:begin"]
        assert (block.language, len(block.code.splitlines())) == ("sh", 1)
        assert f"```\n<!-- {job}:end -->" in README.read_text()
