"""What the README says is true: its Python runs, and so do its commands."""

import re
import shlex
from pathlib import Path

import duckdb
import polars as pl
import pytest
from pictures import draw, jpeg
from typer.testing import CliRunner

import imgmatch_df

README = Path(__file__).parent.parent / "README.md"


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
    from imgmatch_df.cli import app

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


def test_there_is_one_command_for_each_job():
    for job in ("main-job", "test"):
        (between,) = re.findall(rf"<!-- {job}:begin -->(.*?)<!-- {job}:end -->", README.read_text(), re.DOTALL)
        (block,) = re.findall(r"```sh\n(.*?)```", between, re.DOTALL)
        assert len(block.splitlines()) == 1
