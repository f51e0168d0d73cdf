"""What the documents say is true: their code runs and prints what they show, and no page is lost.

`python tests/end_to_end/test_docs.py` runs the pages and writes what their code prints into them.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path

import pytest
from typer.main import get_command

import imgmatch_df
from imgmatch_df.cli.app import app
from imgmatch_df.columns import STATUSES
from imgmatch_df.errors import Failure, row_error

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from documents import HOW_TO, PAGES, ROOT, RUN, SPARK, blocks_of, draw_desk, run_page, with_outputs

pytestmark = pytest.mark.long

MAX_NOT_RUN = 8
# Words of rule 1 of "Plain English" in CONTRIBUTING.md, as far as they have one meaning.
BANNED = re.compile(
    r"\b(pictures?|strangers?|nobody|under way|answer(s|ed)?|land(s|ed)?|lean(s|ed)? on|told|asked|gone)\b",
    re.IGNORECASE,
)
WITH_CODE = [page for page in PAGES if page != SPARK and any(block.is_run for block in blocks_of(page))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_code_runs_and_prints_what_the_page_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_desk(tmp_path)
    assert with_outputs(page, run_page(page)) == page.read_text(encoding="utf-8")


def test_few_blocks_are_not_run_and_each_says_why():
    marked = [block for page in PAGES for block in blocks_of(page) if block.mark and block.language in RUN]
    others = [block for block in marked if block.mark not in ("main-job:begin", "test:begin")]
    assert all(block.reason for block in others)
    assert len([block for block in others if "tests/packages" not in block.reason]) <= MAX_NOT_RUN


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_code_that_runs_or_what_it_prints(page):
    blocks = blocks_of(page)
    if page.parent != HOW_TO:
        text = page.read_text(encoding="utf-8")
        n_files = len(re.findall('^```[a-z]+ title="', text, re.MULTILINE))  # which tests/orchestrators run
        assert text.count("```") == 2 * (len(blocks) + n_files)
    for before, block in zip([None, *blocks], blocks, strict=False):
        assert block.language in RUN or (block.language == "text" and before and before.is_run), block


def test_every_page_is_in_the_navigation():
    named = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.name != "README.md"} <= set(named)


def test_the_reference_has_every_public_name():
    named = re.findall(r"^::: imgmatch_df\.(\w+)$", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE)
    assert sorted(named) == imgmatch_df.__all__


def test_every_table_of_a_benchmark_has_one_place():
    places = []
    for script in ROOT.glob("benchmarks/*.py"):
        text = script.read_text()
        page = re.search(r"^PAGE = (.*)$", text, re.MULTILINE)
        for path, marker in re.findall(r'replace_between\((PAGE|ROOT[^,]*), "([\w-]+)"', text):
            parts = re.findall(r'"([^"]+)"', page[1] if page and path == "PAGE" else path)
            places.append((ROOT.joinpath(*parts), marker))
    assert len(places) == len(set(places)) >= 12
    for page, marker in places:
        text = page.read_text(encoding="utf-8")
        assert text.count(f"<!-- {marker}:begin -->") == text.count(f"<!-- {marker}:end -->") == 1, (page, marker)


def test_every_link_of_the_documents_outside_the_site_leads_to_a_file():
    for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / name).read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{name}: {target}"


def test_every_module_that_a_document_names_exists():
    for page in (*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"):
        for name in re.findall(r"`(?:python )?([\w/]+\.(?:py|sql|ipynb))\b(?!\.\w)", page.read_text(encoding="utf-8")):
            folders = (ROOT, ROOT / "imgmatch_df", ROOT / "benchmarks")
            assert any((folder / name).exists() for folder in folders), f"{page.name}: {name}"


def test_the_statuses_are_those_of_the_code():
    text = (ROOT / "docs" / "concepts" / "statuses.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|.*\| (?:`(\w+)` )?\|$", text, re.MULTILINE)
    errors = {status: type(row_error(Failure(status, ""), 0)).__name__ for status in STATUSES[1:]}
    assert rows == [(status, errors.get(status, "")) for status in STATUSES]


def test_every_option_in_the_text_exists():
    commands = get_command(app).commands.values()
    flags = {flag for one in commands for option in one.params for flag in (*option.opts, *option.secondary_opts)}
    others = {"--help", "--update-docs"}  # of every command, of benchmarks
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        assert set(re.findall(r"`[^`\n]*?(--[a-z][a-z0-9-]+)", prose)) <= flags | others, page


def prose_of(path: Path) -> str:
    """Return the text of a document without code and without generated tables."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = "\n".join("".join(cell["source"]) for cell in cells)
    text = re.sub(r"<!-- (\S+):begin -->.*?<!-- \1:end -->", "", text, flags=re.DOTALL)
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]+`", "", text)


@pytest.mark.parametrize(
    "path",
    [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md")),
     ROOT / "benchmarks" / "README.md", *sorted(ROOT.glob("notebooks/*.ipynb"))],
    ids=name_of,
)  # fmt: skip
def test_words(path):
    assert [match[0] for match in BANNED.finditer(prose_of(path))] == []


if __name__ == "__main__":
    for one in WITH_CODE:
        with tempfile.TemporaryDirectory() as fresh:
            os.chdir(fresh)
            draw_desk(Path(fresh))
            one.write_text(with_outputs(one, run_page(one)), encoding="utf-8")
            os.chdir(ROOT)
