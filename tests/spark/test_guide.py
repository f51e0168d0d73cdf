"""The page about Spark in the documents: its code runs in a session of its own, and prints what the page shows.

`python tests/spark/test_guide.py` runs the page and writes what its code prints into it.
"""

import os
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from connect import run_program
from documents import SPARK, draw_desk, run_page, with_outputs

pytestmark = pytest.mark.spark

PROGRAM = """
    import sys
    from pathlib import Path
    from test_guide import text_of_page

    Path("page.md").write_text(text_of_page(), encoding="utf-8")
"""


def text_of_page() -> str:
    """Run the page in the working directory; return it with what its code prints."""
    draw_desk(Path())
    try:
        return with_outputs(SPARK, run_page(SPARK))
    finally:
        from pyspark.sql import SparkSession

        SparkSession.active().stop()


def test_code_of_the_guide_runs_and_prints_what_the_page_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_program(PROGRAM, PYTHONPATH=str(Path(__file__).parent))
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == SPARK.read_text(encoding="utf-8")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as fresh:
        os.chdir(fresh)
        SPARK.write_text(text_of_page(), encoding="utf-8")
