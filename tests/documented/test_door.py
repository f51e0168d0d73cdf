"""The documented JSON as Python users have it: from a table to JSON, and from JSON to a table."""

import io
import json

import polars as pl
import pytest
from drawing import draw, jpeg
from polars.testing import assert_frame_equal

import imgmatch_df
from imgmatch_df import documented


@pytest.fixture
def table(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(jpeg(draw(9))[:400])
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(draw(number)))
    (tmp_path / "again.jpg").write_bytes(jpeg(draw(1)))
    return pl.DataFrame({"url": [str(tmp_path / name) for name in ("1.jpg", "2.jpg", "again.jpg", "cut.jpg")]})


def test_a_table_to_json_and_back(table):
    hashed = table.imgmatch.visual_hash("url")
    text = documented.to_json(documented.visual_hash_response(hashed, seconds=1, reasons=True))
    found = documented.parse_visual_hash_response(text)
    assert_frame_equal(found.frame.select(hashed.drop("quality").columns), hashed.drop("quality"))
    assert (found.seconds, found.hash_types) == (1, ("bmh1", "phash"))


def test_a_request_to_a_response(table):
    body = {"records": [{"_url": url, "sku": row} for row, url in enumerate(table["url"])], "range": 1}
    request = documented.read_request(json.dumps(body), "remove_duplicates")
    assert request.rows[1]["_record"] == {"_url": table["url"][1], "sku": 1}
    assert request.query is request.query_frame is None
    hashed = request.frame.imgmatch.visual_hash("url", hash_types=request.hash_type)
    kept = hashed.imgmatch.remove_duplicates(request.radius)
    response = documented.remove_duplicates_response(kept, seconds=0.5)
    assert [record["sku"] for record in response["records"]] == [0, 1, 3]
    assert [record["sku"] for record in response["records"][0]["removed_records"]] == [2]
    ranking = documented.read_request(body | {"query_record": body["records"][2]}, "rank_images")
    query = ranking.query_frame.imgmatch.visual_hash("url")
    ranked = hashed.imgmatch.rank_images(query["bmh1"][0])
    response = documented.rank_images_response(query, ranked, seconds=0.5)
    assert response["answer_distances"][:2] == [0.0, 0.0]
    assert [record["sku"] for record in response["skipped_records"]] == [3]


def test_a_store_to_json_and_back(table, tmp_path):
    store, out = tmp_path / "hashes.duckdb", tmp_path / "response.json"
    imgmatch_df.write_hashes(table, store, source="url")
    for target in (out, str(out)):
        assert documented.export_response(store, target) == (4, 1)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix not in (".jpg", ".duckdb")) == [out.name]
    stored = imgmatch_df.read_hashes(store)
    found = documented.parse_visual_hash_response(out).frame.rename({"url": "source"})
    assert_frame_equal(found.select("source", "bmh1", "phash"), stored.select("source", "bmh1", "phash"))
    stream = io.BytesIO()
    documented.export_table(stored.lazy(), stream, ("phash",), "source")
    assert json.loads(stream.getvalue())["records"][0].keys() == {"_url", "_width", "_height", "phash"}


def test_a_failed_export_leaves_the_old_file(tmp_path):
    out = tmp_path / "response.json"
    out.write_text("old")
    with pytest.raises(imgmatch_df.ColumnError):
        documented.export_table(pl.LazyFrame({"url": ["a"], "phash": ["x"]}), out, ("phash",), "url")
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert out.read_text() == "old"
