"""Hugging Face image columns on the command line: names of rows, and the features of Parquet files."""

import json

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from drawing import draw, png
from typer.testing import CliRunner

from imgmatch_df.cli.app import app

FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
SCHEMA = pa.schema(
    [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
    metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
)


def call(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


def write_dataset(path, numbers, schema=SCHEMA, **options):
    rows = [{"image": {"bytes": png(draw(n % 3)), "path": f"{n}.png"}, "label": n % 2} for n in numbers]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, **options)
    return path


def features_of(path):
    schema = pq.read_schema(path)
    return json.loads(schema.metadata[b"huggingface"])["info"]["features"]


def paths_of(path):
    return pl.read_parquet(path)["image"].struct.field("path").to_list()


@pytest.fixture
def train(tmp_path):
    """Five images, of which the last two are copies of the first two."""
    return write_dataset(tmp_path / "train.parquet", range(5))


def test_only_input_columns_keeps_the_schema_of_the_input(train, tmp_path):
    out = tmp_path / "o.parquet"
    result = call("remove-duplicates", train, "--source", "image", "--only-input-columns", "-o", out)
    assert "kept 3 of 5 rows, removed 2" in result.output
    assert pq.read_schema(out).equals(SCHEMA, check_metadata=True)
    assert pl.read_parquet(out).equals(pl.read_parquet(train)[:3])


@pytest.mark.parametrize(
    "words", [("visual-hash",), ("remove-duplicates",), ("rank-images", "query.png")], ids=lambda words: words[0]
)
def test_every_table_keeps_the_features_of_its_columns(words, train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "query.png").write_bytes(png(draw(0)))
    call(*words, train, "-o", "o.parquet")
    schema = pq.read_schema("o.parquet")
    assert features_of("o.parquet") == FEATURES
    assert [schema.field(name) for name in SCHEMA.names] == list(SCHEMA)
    # What Polars reads is what it would have written.
    read = pl.read_parquet("o.parquet")
    assert isinstance(read.schema["status"], pl.Enum)
    assert read.schema["image"] == pl.Struct({"bytes": pl.Binary, "path": pl.String})
    assert read["image"].struct.field("bytes").null_count() == 0


def test_removed_records_have_paths_and_no_images(train, tmp_path):
    out = tmp_path / "o.parquet"
    result = call("remove-duplicates", train, "-o", out)
    assert "not in removed_records, which hold no images: image.bytes (Binary)" in result.output
    removed = pl.read_parquet(out)["removed_records"].explode().struct.unnest().drop_nulls("bmh1")
    assert removed["image"].to_list() == [{"path": "3.png"}, {"path": "4.png"}]


def test_features_are_those_of_the_columns_that_are_written(tmp_path):
    extra = {**FEATURES, "dropped": {"dtype": "string", "_type": "Value"}, "label": {"dtype": "string"}}
    schema = SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": extra}, "x": 1})})
    train = write_dataset(tmp_path / "t.parquet", range(4), schema)
    call("visual-hash", train, "-o", tmp_path / "o.parquet")
    assert features_of(tmp_path / "o.parquet") == {"image": extra["image"], "label": extra["label"]}
    assert json.loads(pq.read_schema(tmp_path / "o.parquet").metadata[b"huggingface"])["x"] == 1


@pytest.mark.parametrize("value", ["{", "[]", '{"info": 3}', '{"info": {"features": null}}', "7"])
def test_keys_without_features_are_left_out(value, tmp_path):
    train = write_dataset(tmp_path / "t.parquet", range(4), SCHEMA.with_metadata({"huggingface": value}))
    call("visual-hash", train, "-o", tmp_path / "o.parquet")
    assert pl.read_parquet(tmp_path / "o.parquet")["status"].to_list() == ["ok"] * 4


def test_shards_are_one_table(tmp_path):
    for part in range(2):
        write_dataset(tmp_path / f"train-{part}.parquet", range(2 * part, 2 * part + 2))
    out = tmp_path / "o.parquet"
    result = call("remove-duplicates", tmp_path / "train-*.parquet", "--only-input-columns", "-o", out)
    assert paths_of(out) == ["0.png", "1.png", "2.png"]
    assert pq.read_schema(out).equals(SCHEMA, check_metadata=True)
    assert "features" not in result.output
    write_dataset(tmp_path / "train-2.parquet", range(1), SCHEMA.with_metadata({}))
    result = call("remove-duplicates", tmp_path / "train-*.parquet", "--only-input-columns", "-o", out)
    assert "train-2.parquet has other Hugging Face features than the first file, whose features are kept" in (
        result.stderr.replace("\n", " ")
    )


def test_row_groups_are_small_and_in_order(tmp_path):
    train = write_dataset(tmp_path / "t.parquet", range(3), row_group_size=2)
    rows = pa.concat_tables([pq.read_table(train)] * 200).replace_schema_metadata(SCHEMA.metadata)
    rows = rows.set_column(1, "label", pa.array(range(600)))
    pq.write_table(rows, train)
    out = tmp_path / "o.parquet"
    call("visual-hash", train, "--hash-types", "phash", "-o", out)
    with pq.ParquetFile(out) as file:
        assert [file.metadata.row_group(number).num_rows for number in range(3)] == [256, 256, 88]
    assert pl.read_parquet(out)["label"].to_list() == list(range(600))
    call("remove-duplicates", out, "--within", "label", "--only-input-columns", "-o", tmp_path / "same.parquet")
    assert pl.read_parquet(tmp_path / "same.parquet").equals(pl.read_parquet(out))


def test_reference_rows_and_only_input_columns(train, tmp_path):
    test = write_dataset(tmp_path / "test.parquet", [2, 5])
    out = tmp_path / "o.parquet"
    call("remove-duplicates", test, "--reference", train, "--only-input-columns", "-o", out)
    assert paths_of(out) == []
    assert pq.read_schema(out).equals(SCHEMA, check_metadata=True)
    call("remove-duplicates", train, "--reference", write_dataset(tmp_path / "t.parquet", [1]), "-o", out)
    found = pl.read_parquet(out)
    assert found["reference_id"].to_list() == [None, "1.png", None, None, "1.png"]
    assert found["representative_id"].to_list() == ["0.png", None, "2.png", "0.png", None]


def test_rows_of_a_store_are_not_copies_of_themselves(train, tmp_path):
    store = tmp_path / "hashes.duckdb"
    call("visual-hash", train, "-o", store)
    assert "5 unchanged" in call("visual-hash", train, "-o", store).output
    result = call("remove-duplicates", train, "--reference", store, "-o", tmp_path / "o.parquet")
    assert "kept 3 of 5 rows, removed 2, 0 of them match a reference row" in result.output


def test_only_input_columns_in_other_formats(train, tmp_path):
    result = call("remove-duplicates", train, "--only-input-columns")
    assert result.stdout.splitlines()[0] == "image.path,label"
    call("remove-duplicates", train, "--only-input-columns", "-o", tmp_path / "o.ndjson")
    first = json.loads((tmp_path / "o.ndjson").read_text().splitlines()[0])
    assert first == {"image": {"path": "0.png"}, "label": 0}


@pytest.mark.parametrize(
    "words", [("-o", "o.json"), ("--list-removed",), ("--prefix", "x_", "-o", "o.parquet")], ids=lambda words: words[0]
)
def test_only_input_columns_needs_a_table(words, train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("remove-duplicates", train, "--only-input-columns", *words, code=2)
    assert "imgmatch: --only-input-columns " in result.stderr
    assert "Hint: " in result.stderr


def test_columns_of_the_table_may_have_any_name(tmp_path):
    schema = SCHEMA.append(pa.field("status", pa.string())).append(pa.field("kept", pa.int32()))
    train = write_dataset(tmp_path / "t.parquet", range(4), schema)
    call("remove-duplicates", train, "--only-input-columns", "-o", tmp_path / "o.parquet")
    assert pq.read_schema(tmp_path / "o.parquet").equals(schema, check_metadata=False)


def test_binary_columns_are_written_with_their_images(tmp_path):
    frame = pl.DataFrame({"a": [1, 2, 3], "jpg": [png(draw(0)), png(draw(1)), png(draw(0))], "b": [b"1", b"2", b"3"]})
    frame.write_parquet(tmp_path / "t.parquet")
    call("remove-duplicates", tmp_path / "t.parquet", "--source", "jpg", "-o", tmp_path / "o.parquet")
    kept = pl.read_parquet(tmp_path / "o.parquet")
    assert kept.select("a", "jpg", "b").equals(frame[:2])
    assert [name for name in kept.columns if name in frame.columns] == ["a", "jpg", "b"]
    assert kept["removed_records"].list.len().to_list() == [1, 0]
    call(
        "remove-duplicates",
        tmp_path / "t.parquet",
        "--source",
        "jpg",
        "--only-input-columns",
        "-o",
        tmp_path / "o.parquet",
    )
    assert pl.read_parquet(tmp_path / "o.parquet").equals(frame[:2])


def test_lists_of_images_have_the_name_of_the_first(tmp_path):
    image = {"bytes": png(draw(0)), "path": "0.png"}
    frame = pl.DataFrame({"images": [[image, image], [], None, [{"bytes": None, "path": "no.png"}]]})
    frame.write_parquet(tmp_path / "t.parquet")
    result = call("visual-hash", tmp_path / "t.parquet", "-o", tmp_path / "o.csv", code=1)
    assert "left out, because .csv cannot hold it: images (List(Struct(" in result.stderr
    assert "no.png: not_found" in result.stderr
    found = pl.read_csv(tmp_path / "o.csv", columns=["status", "images.path"])
    assert found["status"].to_list() == ["ok", "missing", "missing", "not_found"]
    assert found["images.path"].to_list() == ["0.png", None, None, "no.png"]


def test_the_documented_json_has_images_and_paths(tmp_path):
    images = [
        {"bytes": png(draw(0)), "path": "0.png"},
        {"bytes": None, "path": "no.png"},
        {"bytes": b"x", "path": None},
    ]
    pl.DataFrame({"image": [*images, None]}).write_parquet(tmp_path / "t.parquet")
    call("visual-hash", tmp_path / "t.parquet", "-o", tmp_path / "o.json", code=1)
    records = json.loads((tmp_path / "o.json").read_text())["records"]
    assert [record.get("_id") for record in records] == ["0.png", None, None, None]
    assert [record.get("_url") for record in records] == [None, "no.png", None, None]
    assert [bool(record.get("_base64")) for record in records] == [True, False, True, False]


def test_paths_that_name_several_rows_are_not_ids(tmp_path):
    same = pa.array([{"bytes": png(draw(0)), "path": "image.png"}] * 2, SCHEMA.field("image").type)
    pq.write_table(pa.table({"image": same}), tmp_path / "t.parquet")
    result = call("find-copies", tmp_path / "t.parquet", "-o", tmp_path / "o.csv")
    assert "rows without a name are identified by their number, from 0" in result.stderr
    assert pl.read_csv(tmp_path / "o.csv").select("left_id", "right_id").rows() == [(0, 1)]
