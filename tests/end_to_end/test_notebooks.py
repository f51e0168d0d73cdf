"""The notebooks run from top to bottom, and what they show is what is stored in them.

`python tests/end_to_end/test_notebooks.py` runs them and stores what they show.
"""

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from nbformat import NotebookNode

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
MAX_BYTES = 300_000


def read(path: Path) -> "NotebookNode":
    """Return a notebook. nbformat takes seconds to import: not in every process that collects tests."""
    import nbformat

    return nbformat.read(path, as_version=4)


def run(path: Path, folder: Path) -> "NotebookNode":
    """Return a notebook with what it shows when it is run in a folder that has nothing but the helper beside it."""
    from nbclient import NotebookClient

    shutil.copy(path.with_name("sample_images.py"), folder)
    book = read(path)
    client = NotebookClient(
        book, timeout=240, kernel_name="python3", record_timing=False, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    book.metadata.language_info = {"name": "python"}  # not the version of who ran it last
    return book


def shown(book: "NotebookNode") -> list[list[object]]:
    """Return the outputs of each cell: texts as they are, of images only that there is one."""
    return [[_shown(output) for output in cell.outputs] for cell in book.cells if cell.cell_type == "code"]


def _shown(output: "NotebookNode") -> object:
    if output.output_type == "stream":
        return output.name, output.text
    return {form: text if form == "text/plain" else None for form, text in output.data.items()}


@pytest.fixture(scope="module", autouse=True)
def _fonts():
    """Have matplotlib look for fonts now: the first time it says so, in the middle of a notebook."""
    import matplotlib.font_manager  # noqa: F401


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == {"clean", "etl", "leaks", "radius", "sql"}


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_and_shows_what_is_stored(path, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)  # a notebook finds what lies beside it
    assert shown(run(path, tmp_path)) == shown(read(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_small_and_clean(path):
    import nbformat

    text = path.read_text(encoding="utf-8")
    assert len(text) <= MAX_BYTES
    assert not re.search(r"/(home|tmp|root|mnt|opt|srv|usr|var|Users|work\w*)/|[A-Z]:\\\\", text)
    book = read(path)
    nbformat.validate(book)
    codes = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == list(range(1, len(codes) + 1))
    assert any("image/png" in output.get("data", {}) for cell in codes for output in cell.outputs)
    assert not [output for cell in codes for output in cell.outputs if output.get("name") == "stderr"]


if __name__ == "__main__":
    import nbformat

    for one in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as fresh:
            nbformat.write(run(one, Path(fresh)), one)
        sys.stdout.write(f"{one.name}: {one.stat().st_size / 1e3:,.0f} KB\n")
