"""A report in a notebook, which nbconvert runs and makes a page of: it works in its sandboxed frame."""

import subprocess
import sys

import nbformat
import polars as pl
import pytest
from report_page import counts_of

import imgmatch_df

pytestmark = pytest.mark.browser
CODE = """
import polars as pl
import imgmatch_df

frame = pl.read_parquet("hashed.parquet")
imgmatch_df.report(frame, 24, keep="largest", title="Album")
"""
# The page of nbconvert loads these from other hosts; here they are empty.
NOTHING = "data:text/javascript,"


@pytest.fixture(scope="module")
def converted(album, tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    album.write_parquet(folder / "hashed.parquet")
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CODE)]), folder / "book.ipynb")
    urls = [f"--HTMLExporter.{name}={NOTHING}" for name in ("require_js_url", "mathjax_url")]
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--execute", *urls, "book.ipynb"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "book.html"


def test_a_report_in_a_notebook_works(converted, album, open_page, tmp_path):
    page = open_page(converted)
    element = page.locator("iframe[title=Album]")
    assert element.get_attribute("sandbox") == "allow-scripts allow-downloads"
    frame = element.content_frame
    frame.locator("body[data-ready=true]").wait_for()
    for radius in (24, 8):
        frame.locator("#radius").fill(str(radius))
        truth = counts_of(album.imgmatch.cluster(radius, keep="largest"))
        assert frame.locator("#n-clusters").inner_text() == str(truth["clusters"])
        assert frame.locator("#n-removed").inner_text() == str(truth["removed"])
    frame.locator("#list .thumb").nth(1).focus()
    page.keyboard.press(" ")
    assert frame.locator("#n-removed").inner_text() == str(truth["removed"] - 1)
    with page.expect_download() as found:
        frame.locator("button", has_text="decisions.csv").click()
    found.value.save_as(tmp_path / "decisions.csv")
    saved = pl.read_csv(tmp_path / "decisions.csv")
    assert saved.filter(~pl.col("kept")).height == truth["removed"] - 1
    assert saved.filter(decided_by="person").height == 1


def test_a_sandboxed_report_has_no_storage(converted, open_page):
    """Nothing that the page of a stranger does reaches the notebook, and the report works without storage."""
    page = open_page(converted)
    page.locator("iframe").content_frame.locator("body[data-ready=true]").wait_for()
    frame = next(frame for frame in page.frames if frame.parent_frame is not None)
    assert frame.evaluate("(() => { try { return localStorage.length } catch (error) { return error.name } })()") == (
        "SecurityError"
    )
    assert frame.evaluate("self.origin") == "null"


def test_the_html_of_a_report_is_one_frame(album):
    html = imgmatch_df.report(album, 24, title='<b>"x"')._repr_html_()
    assert html.startswith("<iframe ")
    assert html.count("<") == 2
    assert html.endswith("></iframe>")
