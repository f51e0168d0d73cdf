"""`rank_images` without records ranks the images of `--store`, as a slow sort of all its rows does."""

import base64
import time

import polars as pl
import pytest
from drawing import draw, jpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from service import Service
from waiting import wait_until

import imgmatch_df
from imgmatch_df.columns import STATUS_DTYPE
from imgmatch_df.documented.values import percent_from_bits
from imgmatch_df.options import Recipe
from imgmatch_df.server.snapshot import Snapshot
from imgmatch_df.server.store_lookup import StoredRows

pytestmark = pytest.mark.long


def bits_between(one, other):
    numbers = [value if isinstance(value, int) else int.from_bytes(value) for value in (one, other)]
    return (numbers[0] ^ numbers[1]).bit_count()


def slow_rank(rows, hash_type, value, k):
    """(key, bits) of the nearest rows: all distances, sorted; ties in row order."""
    near = sorted((bits_between(value, row[hash_type]), place) for place, row in enumerate(rows))
    return [(rows[place]["source"], bits) for bits, place in near[:k]]


HASHES = st.tuples(st.integers(0, (1 << 64) - 1), st.binary(min_size=121, max_size=121))


@settings(deadline=None, max_examples=60)
@given(st.lists(HASHES, max_size=25), HASHES, st.integers(1, 30), st.integers(1, 5))
def test_the_nearest_of_all_parts(stored, query, k, n_parts):
    rows = [
        {"source": f"ü{place}", "width": place, "height": None, "bmh1": bmh1, "phash": phash, "status": "ok"}
        for place, (phash, bmh1) in enumerate([*stored, *stored[:3]])
    ]
    schema = {"source": pl.String, "width": pl.UInt32, "height": pl.UInt32, "bmh1": pl.Binary, "phash": pl.UInt64}
    frame = pl.DataFrame(rows, schema={**schema, "status": STATUS_DTYPE})
    snapshot = Snapshot(frame.iter_slices(max(1, len(rows) // n_parts)), "source")
    for hash_type, value in zip(("phash", "bmh1"), query, strict=True):
        found = snapshot.rank(value, hash_type, k)
        assert [(row["_id"], row["distance"]) for row in found] == slow_rank(rows, hash_type, value, k)
        assert all(row["_record"] == {"_url": row["_id"]} for row in found)
        assert [row["width"] for row in found] == [int(row["_id"][1:]) or None for row in found]


def test_a_store_without_urls_names_its_rows_by_id():
    frame = pl.DataFrame(
        {"sku": ["a"], "width": [1], "height": [1], "bmh1": [bytes(121)], "phash": [0], "status": ["ok"]},
        schema_overrides={"phash": pl.UInt64},
    )
    (row,) = Snapshot([frame], "sku").rank(5, "phash", 3)
    assert (row["_id"], row["_record"], row["distance"]) == ("a", {}, 2)


def test_a_store_that_is_not_there_has_no_ranking(tmp_path):
    """No rows would say that nothing is near."""
    rows = StoredRows(tmp_path / "absent.duckdb", Recipe(), needed=False)
    try:
        assert rows.rank(5, "phash", 3) is None
    finally:
        rows.close()


@pytest.fixture(scope="module")
def hashed():
    images = [jpeg(draw(seed, 90, 60)) for seed in range(30)]
    frame = pl.DataFrame({"image": images, "source": [f"http://a.invalid/{seed}.jpg" for seed in range(30)]})
    return frame.imgmatch.visual_hash("image").drop("image", "quality")


@pytest.fixture(scope="module")
def store(hashed, tmp_path_factory):
    path = tmp_path_factory.mktemp("ranked") / "hashes.duckdb"
    imgmatch_df.write_hashes(hashed, path, key="source")
    return path


@pytest.fixture(scope="module")
def running(store):
    with Service("--store", str(store), "--max-records", "25") as service:
        yield service
        assert not [event for event in service.events if event["event"] == "bug"]


def record(seed):
    return {"_base64": base64.b64encode(jpeg(draw(seed, 90, 60), quality=30)).decode(), "mine": seed}


@pytest.mark.parametrize("hash_type", ["bmh1", "phash"])
@pytest.mark.parametrize("k", [None, 1, 25])
def test_the_stored_images_nearest_to_the_query(running, hashed, hash_type, k):
    given = {} if k is None else {"k": k}
    response = running.ask("rank_images", {"query_record": record(7), "hash_type": hash_type, **given})
    assert response.code == 200, response.text
    value = pl.DataFrame({"i": [base64.b64decode(record(7)["_base64"])]}).imgmatch.visual_hash("i")[hash_type][0]
    expected = slow_rank(hashed.rows(named=True), hash_type, value, k or 10)
    found = response.json
    assert [one["_url"] for one in found["answer_records"]] == [key for key, _ in expected]
    assert found["answer_distances"] == [percent_from_bits(bits, hash_type) for _, bits in expected]
    assert found["answer_records"][0] == {
        "_url": "http://a.invalid/7.jpg",
        "_id": "http://a.invalid/7.jpg",
        "_width": 90,
        "_height": 60,
    }
    assert (found["query_records"][0]["mine"], found["skipped_records"]) == (7, [])
    assert found["status"]["code"] == 200


def test_a_stored_query_is_not_fetched(running):
    response = running.ask("rank_images", {"query_record": {"_url": "http://a.invalid/3.jpg"}, "k": 1})
    assert (response.json["answer_records"][0]["_id"], response.json["answer_distances"]) == (
        "http://a.invalid/3.jpg",
        [0.0],
    )


def test_records_are_ranked_as_before(running):
    body = {"query_record": record(1), "records": [record(2), record(1), {"_base64": "AAAA"}]}
    whole = running.ask("rank_images", body).json
    assert [one["mine"] for one in whole["answer_records"]] == [1, 2]
    first = running.ask("rank_images", {**body, "k": 1}).json
    assert [one["mine"] for one in first["answer_records"]] == [1]
    assert len(first["skipped_records"]) == len(whole["skipped_records"]) == 1
    assert running.ask("rank_images", {**body, "records": []}).json["answer_records"] == []


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"k": 0}, "k must be greater than or equal to 1, got 0"),
        ({"k": 26}, "k must be less than or equal to 25, got 26"),
        ({"k": True}, "k must be"),
        ({"k": "3"}, "k must be"),
        ({"query_record": {"_base64": "AAAA"}}, "query_record failed"),
        ({"hash_type": "pdq"}, "hash_type must be"),
        ({"records": 3}, "records must be a list, got 3"),
    ],
)
def test_wrong_requests_are_refused(running, body, text):
    response = running.ask("rank_images", {"query_record": record(1), **body})
    assert (response.code, response.text[: len(text)]) == (422, text)


@pytest.mark.parametrize("hash_type", ["bmh1", "phash"])
def test_records_that_match_a_stored_image(running, hashed, hash_type):
    """Those within the range of another stored image are known; copies among the others are merged as before."""
    records = [record(1), record(100), record(100), {"_url": "http://a.invalid/4.jpg", "mine": 4}, {"_base64": "AAAA"}]
    body = {"records": records, "range": 6.2, "hash_type": hash_type}
    plain = running.ask("remove_duplicates", body).json
    assert "known_records" not in plain
    unused = running.ask("remove_duplicates", {**body, "against_store": False}).json
    assert [one.get("mine") for one in unused["records"]] == [one.get("mine") for one in plain["records"]]
    assert "known_records" not in unused
    found = running.ask("remove_duplicates", {**body, "against_store": True}).json
    (known,) = found["known_records"]
    image = pl.DataFrame({"i": [base64.b64decode(record(1)["_base64"])]}).imgmatch.visual_hash("i")
    ((key, bits),) = slow_rank(hashed.rows(named=True), hash_type, image[hash_type][0], 1)
    assert (known["mine"], known["_stored_record"]["_url"]) == (1, key)
    assert known["_stored_distance"] == percent_from_bits(bits, hash_type) <= 6.2
    assert known["_status"]["code"] == 200
    # A stored URL is not a copy of itself, and a record that failed is kept.
    assert [one.get("mine") for one in found["records"]] == [100, 4, None]
    assert len(found["records"][0]["removed_records"]) == 1
    assert found["status"]["code"] == 300


def test_the_description_has_the_extension(running):
    schema = running.get("/openapi.json").json["components"]["schemas"]["RankImagesRequest"]
    assert schema["required"] == ["query_record"]
    assert [one["maximum"] for one in schema["properties"]["k"]["anyOf"] if "maximum" in one] == [25]
    assert "<code>k</code>" in running.get("/docs").body.decode()


def test_a_store_that_is_replaced_is_ranked_anew(hashed, tmp_path):
    store, other = tmp_path / "hashes.duckdb", tmp_path / "other.duckdb"
    imgmatch_df.write_hashes(hashed.head(5), store, key="source")
    imgmatch_df.write_hashes(hashed.tail(5), other, key="source")
    rows = StoredRows(store, Recipe())
    try:
        value = hashed["phash"][29]
        assert rows.rank(value, "phash", 9)[0]["_id"] in hashed["source"].head(5)
        other.rename(store)
        wait_until(lambda: rows.rank(value, "phash", 9)[0]["_id"] == "http://a.invalid/29.jpg")
        store.unlink()
        time.sleep(0.3)
        assert rows.rank(value, "phash", 1)[0]["distance"] == 0  # the last rows stay
    finally:
        rows.close()


def test_without_a_store_records_are_needed():
    with Service() as service:
        response = service.ask("rank_images", {"query_record": record(1)})
        assert (response.code, response.text) == (422, "records is missing")
        schema = service.get("/openapi.json").json["components"]["schemas"]["RankImagesRequest"]
        assert sorted(schema["required"]) == ["query_record", "records"]
        assert "k" not in schema["properties"]
        unused = service.ask("remove_duplicates", {"records": [record(1)], "against_store": "any"})
        assert (unused.code, "known_records" in unused.json) == (200, False)
        assert service.ask("rank_images", {"query_record": record(1), "records": [record(2)], "k": "any"}).code == 200
