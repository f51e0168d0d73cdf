"""The documents as programs: which blocks of code a page has, and the folder in which a reader runs them."""

import contextlib
import importlib.util
import io
import json
import re
import shlex
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import duckdb
import polars as pl
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
# How to extend the package: their code belongs into files of the package, and is tested with toys there.
HOW_TO = ROOT / "docs" / "how-to"
# Its code needs Java: tests/spark/test_guide.py runs it.
SPARK = ROOT / "docs" / "guide" / "spark.md"
RUN = ("python", "sh", "sql")
# "<!-- not run: why -->" in the line above a block; the blocks of these two markers are run by CI itself.
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
_MARKS = ("main-job:begin", "test:begin")


@dataclass(frozen=True)
class Block:
    """A block of code of a page.

    Parameters
    ----------
    language, code
        As in the page.
    line
        Line of the first fence, from 1.
    mark
        The comment above the block, None where there is none.
    """

    language: str
    code: str
    line: int
    mark: str | None

    @property
    def reason(self) -> str | None:
        """Why the block is not run, None where it is."""
        return self.mark.removeprefix("not run: ") if self.mark and self.mark.startswith("not run: ") else None

    @property
    def is_run(self) -> bool:
        """Whether the tests run the block."""
        return self.language in RUN and self.reason is None and self.mark not in _MARKS


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of code of a page, in order; none of a page about how to extend the package."""
    if page.parent == HOW_TO:
        return []
    text = page.read_text(encoding="utf-8")
    return [
        Block(match["language"], match["code"], text[: match.start("language")].count("\n") + 1, match["mark"])
        for match in _BLOCK.finditer(text)
    ]


def draw_desk(folder: Path) -> None:
    """Draw what the reader of the documents has in the working directory."""
    samples = _sample_images()
    photos = folder / "photos"
    for seed, name in ((4, "beach.jpg"), (12, "tower.jpg"), (7, "2019/LAKE.JPG"), (13, "2019/forest.jpg")):
        samples.save_photo(samples.draw_photo(seed), photos / name)
    for seed, name, edit in ((4, "beach", "half"), (4, "beach", "jpeg10"), (12, "tower", "grey")):
        samples.save_copy(samples.draw_photo(seed), edit, photos / name)
    (photos / "cut.jpg").write_bytes((photos / "tower.jpg").read_bytes()[:9000])
    samples.save_photo(samples.draw_photo(30), folder / "today" / "NEW.JPG")
    samples.save_copy(samples.draw_photo(4), "webp", folder / "today" / "beach")
    samples.save_photo(samples.draw_photo(4), folder / "originals" / "beach.jpg")
    samples.save_copy(samples.draw_photo(4), "half", folder / "exports" / "beach")
    samples.save_photo(samples.draw_photo(4), folder / "query.jpg")
    paths = sorted(path.relative_to(folder).as_posix() for path in photos.rglob("*.*"))
    pl.DataFrame({"url": [*paths, "photos/lost.jpg"]}).write_parquet(folder / "images.parquet")
    records = [{"_url": "photos/beach.jpg"}, {"_url": "photos/tower.jpg"}]
    (folder / "request.json").write_text(json.dumps({"records": records}))


def run_page(page: Path) -> list[tuple[Block, str]]:
    """Run the blocks of a page in the working directory, in order; return each with what it prints.

    All Python blocks of a page share their names. Lines of `sh` are commands of `imgmatch`. Statements of `sql` run in
    the store ``hashes.duckdb``.
    """
    names: dict[str, object] = {}
    with pl.Config():  # pages may set what is shown
        return [(block, _run(block, page, names) if block.is_run else "") for block in blocks_of(page)]


def _run(block: Block, page: Path, names: dict[str, object]) -> str:
    if block.language == "python":
        shown = io.StringIO()
        code = "\n" * block.line + block.code  # tracebacks name the line of the page
        with contextlib.redirect_stdout(shown):
            exec(compile(code, str(page), "exec"), names)
        return shown.getvalue()
    if block.language == "sh":
        return "".join(run_command(line) for line in block.code.splitlines() if line and not line.startswith("#"))
    return _run_sql(block.code)


def run_command(line: str) -> str:
    """Run a command of `imgmatch` in this process; return what it prints on standard output."""
    from imgmatch_df.cli.app import app

    program, *arguments = shlex.split(line, comments=True)
    assert program == "imgmatch", f"{line!r} is not a command of imgmatch: mark the block"
    result = CliRunner().invoke(app, arguments)
    # 1: some rows failed; 3: what was looked for was found
    assert result.exit_code in (0, 1, 3), f"{line}: {result.output}"
    return result.stdout


def _run_sql(code: str) -> str:
    statements = [line.partition("--")[0].strip() for line in code.splitlines()]
    shown = []
    with duckdb.connect("hashes.duckdb", read_only=True) as connection:
        for statement in filter(None, " ".join(statements).split(";")):
            result = connection.sql(statement)
            result.fetchall()  # all rows, of which a few are shown
            shown.append(str(result))
    return "\n".join(shown)


def with_outputs(page: Path, ran: list[tuple[Block, str]]) -> str:
    """Return the text of a page with what its blocks printed, in the blocks of `text` that follow them."""
    text = page.read_text(encoding="utf-8")
    parts, end = [], 0
    for match, (before, after) in zip(list(_BLOCK.finditer(text))[1:], pairwise(ran), strict=True):
        if after[0].language == "text" and before[0].is_run:
            parts += [text[end : match.start("code")], before[1].rstrip("\n") + "\n"]
            end = match.end("code")
    return "".join([*parts, text[end:]])


def _sample_images() -> ModuleType:
    """Return the module of the notebooks that draws the same images on every machine."""
    spec = importlib.util.spec_from_file_location("notebook_sample_images", ROOT / "notebooks" / "sample_images.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
