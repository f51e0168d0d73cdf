"""The bar in a notebook, and nothing where nobody sees one."""

import subprocess
import sys

import polars as pl
import pytest

from imgmatch_df import progress

SET_UP = """
import polars as pl
import imgmatch_df
paths = pl.DataFrame({"url": %r})
"""
CELLS = [
    "hashed = paths.imgmatch.visual_hash(progress=True)",
    "hashed = paths.imgmatch.visual_hash()",
    'out = paths.select(pl.col("url").imgmatch.phash(progress=True))',
    'out = paths.lazy().imgmatch.visual_hash(progress=True).collect(engine="streaming")',
    "out = hashed.imgmatch.near_duplicates(24, progress=True)",
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, encoded):
    # Not above: they take seconds to import, in every process that collects tests.
    import nbformat
    from nbclient import NotebookClient

    folder = tmp_path_factory.mktemp("book")
    for number, data in enumerate(encoded[:7]):
        (folder / f"{number}.jpg").write_bytes(data)
    paths = [*(str(folder / f"{number}.jpg") for number in range(7)), "no-such-file"]
    cells = [nbformat.v4.new_code_cell(code) for code in (SET_UP % paths, *CELLS)]
    book = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(book, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return [cell.outputs for cell in book.cells[1:]]


def test_each_cell_with_progress_shows_one_bar(outputs):
    assert [[output.output_type for output in one] for one in outputs] == [
        ["display_data"],
        [],
        ["display_data"],
        ["display_data"],
        ["display_data"],
    ]
    words = [[output.data["text/plain"].split()[0] for output in one] for one in outputs]
    assert words == [["hashing"], [], ["hashing"], ["hashing"], ["joining"]]
    for number in (0, 2, 3):
        assert "8/8" in outputs[number][0].data["text/plain"]
        assert "1 failed" in outputs[number][0].data["text/plain"]


def test_a_plain_program_shows_nothing():
    code = "import polars as pl, imgmatch_df; pl.DataFrame({'url': ['a']}).imgmatch.visual_hash(progress=True)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=250)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_ipython_on_a_terminal_is_not_a_notebook():
    from IPython.core.interactiveshell import InteractiveShell

    assert not hasattr(InteractiveShell, "kernel")
    assert progress._notebook_cell() is None
    assert pl.DataFrame({"url": ["a"]}).imgmatch.visual_hash(progress=True).height == 1
