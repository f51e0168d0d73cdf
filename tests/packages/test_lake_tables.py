"""Delta and Iceberg tables and Lance datasets as sources of the commands."""

import polars as pl
import pytest
from drawing import draw, jpeg
from typer.testing import CliRunner

from imgmatch_df.cli.app import app

pytestmark = [
    pytest.mark.packages,
    # Of the packages themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::polars.exceptions.PolarsWarning", "ignore::UserWarning"),
]


def call(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


def write_delta(folder, rows, others):
    rows.write_delta(str(folder))
    others.write_delta(str(folder), mode="append")
    import deltalake

    # A reader of the Parquet files alone would have the deleted row, too.
    deltalake.DeltaTable(str(folder)).delete("id = 'gone'")
    return [folder, f"{folder}/"]


def write_iceberg(folder, rows, others):
    from pyiceberg.catalog.sql import SqlCatalog

    catalog = SqlCatalog("c", uri=f"sqlite:///{folder}.db", warehouse=f"file://{folder.parent}")
    catalog.create_namespace("n")
    table = catalog.create_table("n.t", schema=rows.to_arrow().schema, location=f"file://{folder}")
    table.append(rows.to_arrow())
    table.append(others.filter(pl.col("id") != "gone").to_arrow())
    metadata = table.metadata_location.removeprefix("file://")
    catalog.engine.dispose()
    return [folder, metadata]


def write_lance(folder, rows, others):
    import lance

    lance.write_dataset(rows.to_arrow(), str(folder))
    lance.write_dataset(others.to_arrow(), str(folder), mode="append")
    lance.dataset(str(folder)).delete("id = 'gone'")
    return [folder]


@pytest.mark.parametrize("write", [write_delta, write_iceberg, write_lance])
def test_the_current_rows_of_a_table_are_hashed(tmp_path, write):
    images = [jpeg(draw(number)) for number in range(4)]
    paths = []
    for number, image in enumerate(images):
        paths.append(str(tmp_path / f"{number}.jpg"))
        (tmp_path / f"{number}.jpg").write_bytes(image)
    ids = ["a", "b", "ç d", "gone"]
    for column, values in (("path", paths), ("image", images)):
        rows = pl.DataFrame({"id": ids, column: values})
        sources = write(tmp_path / f"{column} table", rows[:2], rows[2:])
        for source in sources:
            for out in ("o.parquet", "o.csv.gz"):
                call("visual-hash", source, "--source", column, "-o", tmp_path / out)
            read = pl.read_parquet(tmp_path / "o.parquet")
            assert sorted(read.select("id", "status").rows()) == [("a", "ok"), ("b", "ok"), ("ç d", "ok")]
            assert sorted(pl.read_csv(tmp_path / "o.csv.gz", infer_schema=False)["id"]) == ["a", "b", "ç d"]
    said = call("visual-hash", sources[0], tmp_path, code=2).stderr
    assert "sources must be of one kind" in said
    assert "--exclude is for" in call("visual-hash", sources[0], "--exclude", "x", code=2).stderr
