"""The documented JSON, held against the documentation's own examples, field by field."""

import json
import math
from base64 import b64encode
from itertools import islice
from pathlib import Path
from uuid import UUID

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgmatch_df import columns as schema
from imgmatch_df.documented import requests, responses, values
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.hashes import kinds
from imgmatch_df.sources import parse_source

# The documented examples, verbatim.
BMH1_BITS = (
    "11111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111"
    "11111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111"
    "11111111111111111111111111111111110011111111111111111111111111111100001111111111111111011111111111100011111111011"
    "11111000000001111110011111111001111110000000011111110111111110001111100000000111111111111111100001111000000001111"
    "11111111111100000111100000001111111111111111000000111000000011111111111111110000000110000000111111110111111100000"
    "00010000000111111110011111100000000100000001111111100011111000000001000000011111111000011110000000011000000111111"
    "11000001110000000000000000111111110000001100000000000000001100000000000001000000000000000011000000000000000000000"
    "00000000000100000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000100"
    "1100000000000001110000000000011111111000000000111111110000000001"
)
PHASH_BITS = "1111110000001011010000111110110010111001000101100010010110001010"
URL = "https://images.ximilar.com/examples/fashion_products/10073009-HERO.jpeg"
VISUAL_HASH = {
    "records": [{"_url": URL, "_width": 400, "_height": 400, "bmh1": BMH1_BITS, "phash": PHASH_BITS}],
    "statistics": {"processing time": 0.13515067100524902},
    "status": {"code": 200, "text": "OK"},
}
REQUEST_ID = "7a1cf0ee-a2dd-4fa2-9927-69441bc1d3dc"
PROC_ID = "d9ac827a-ee8e-4e3b-a5d2-665c10e3fa84"
EACH_OK = {"code": 200, "text": "OK", "request_id": REQUEST_ID}
REMOVE_DUPLICATES_REQUEST = """{
"records": [
{"_url": "__URL_PATH_1__", "_id": 1},
{"_url": "__URL_PATH_1__", "_id": 2},
{"_url": "__URL_PATH_2__", "_id": 3}
]
}"""
REMOVE_DUPLICATES = {
    "records": [
        {
            "_url": "__URL_PATH_1__",
            "_status": EACH_OK,
            "_id": "1",
            "_width": 259,
            "_height": 460,
            "removed_records": [
                {"_url": "__URL_PATH_1__", "_status": EACH_OK, "_id": "2", "_width": 259, "_height": 460}
            ],
        },
        {"_url": "__URL_PATH_2__", "_status": EACH_OK, "_id": "3", "_width": 212, "_height": 289},
    ],
    "status": {"code": 200, "text": "OK", "request_id": REQUEST_ID, "proc_id": PROC_ID},
    "statistics": {"processing time": 0.7242739200592041},
}
RANK_IDS = (
    "e7ee2a82-495f-4df7-adc3-5cdb2b5fadf7",
    "b170de44-75e2-4c4c-a41a-ff1ed9fa84b6",
    "ee72be0b-ab93-4696-9689-7f866ea9bb38",
    "dccb8eab-c4da-4fc6-b24a-1d92fe96f75e",
)
RANK_REQUEST_ID = "a798e682-2b89-49ea-bb6b-0c2d09d523c1"
RANK_PROC_ID = "19ef9e49-0c6b-4dca-a52a-80726da178ed"
RANK_IMAGES = {
    "query_records": [{"_url": "__URL_PATH_1__", "_width": 259, "_height": 460}],
    "answer_distances": [0.0, 0.1, 26.0],
    "answer_records": [
        {"_url": "__URL_PATH_1__", "_id": RANK_IDS[0], "_width": 259, "_height": 460},
        {"_url": "__URL_PATH_2__", "_id": RANK_IDS[1], "_width": 259, "_height": 460},
        {"_url": "__URL_PATH_3__", "test": "insomnia", "_id": RANK_IDS[2], "_width": 212, "_height": 289},
    ],
    "skipped_records": [
        {
            "_url": "__URL_PATH_4_NOT_WORKING__",
            "_status": {
                "code": 400,
                "text": "Error Loading Image: Unable to download image from '__URL_PATH_4_NOT_WORKING__', Attempts: 3",
                "request_id": RANK_REQUEST_ID,
            },
            "_id": RANK_IDS[3],
        }
    ],
    "status": {
        "code": 300,
        "text": "MIXED_RESULT",
        "request_id": RANK_REQUEST_ID,
        "proc_id": RANK_PROC_ID,
    },
    "statistics": {"processing time": 0.9733231067657471},
}

JSON_NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
# Every code point, lone surrogates too: JSON can say them.
JSON_TEXT = st.text(st.characters(), max_size=8)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | JSON_NUMBERS | JSON_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(JSON_TEXT, inner, max_size=3),
    max_leaves=6,
)
ANSWER_FIELDS = {"_id", "_url", "_base64", "_status", "_width", "_height", "bmh1", "phash", "removed_records"}
UNKNOWN_FIELDS = st.dictionaries(JSON_TEXT.filter(lambda key: key not in ANSWER_FIELDS), JSON_VALUES, max_size=4)
HASHES = st.tuples(st.binary(min_size=121, max_size=121), st.integers(0, 2**64 - 1))


def hashed(frame, hashes=None, statuses=None, details=None, sides=(400, 300)):
    """What the pipeline would add: hashes, sides, status and detail, nulls where the row failed."""
    n = frame.height
    hashes = hashes or [(bytes([row % 256]) * 121, 2**64 - 1 - row) for row in range(n)]
    statuses = statuses or ["ok"] * n
    ok = [status == "ok" for status in statuses]
    added = {
        "width": [sides[0] if good else None for good in ok],
        "height": [sides[1] if good else None for good in ok],
        "bmh1": [pair[0] if good else None for pair, good in zip(hashes, ok, strict=True)],
        "phash": [pair[1] if good else None for pair, good in zip(hashes, ok, strict=True)],
        "status": statuses,
        "detail": details or [None if good else "a detail" for good in ok],
    }
    return frame.hstack(pl.DataFrame(added, schema=kinds.visual_hash_fields()))


def with_removed(frame, kept, removed):
    """What `remove_duplicates` gives: kept rows, and the other rows as a list of structs."""
    groups = [frame[rows].to_dicts() for rows in removed]
    dtype = pl.List(pl.Struct(frame.schema))
    return frame[kept].with_columns(pl.Series("removed_records", groups, dtype=dtype))


def answer(request, method="visual_hash", **options):
    frame = hashed(requests.read_request(request, method).frame, **options)
    return responses.visual_hash_response(frame, seconds=1.0)


# The documented examples


@pytest.mark.parametrize("spell", [dict, json.dumps, lambda body: json.dumps(body).encode()])
def test_documented_visual_hash_response_comes_back_unchanged(spell):
    parsed = responses.parse_visual_hash_response(spell(VISUAL_HASH))
    expected = pl.DataFrame(
        [(400, 400, int(BMH1_BITS, 2).to_bytes(121, "big"), int(PHASH_BITS, 2))],
        schema={"width": pl.UInt32, "height": pl.UInt32, "bmh1": pl.Binary, "phash": pl.UInt64},
        orient="row",
    )
    assert parsed.frame.select(expected.columns).equals(expected)
    assert parsed.frame["phash"][0] >= 2**63
    assert parsed.frame.schema["status"] == schema.STATUS_DTYPE
    assert parsed.hash_types == ("bmh1", "phash")
    back = responses.visual_hash_response(parsed.frame, hash_types=parsed.hash_types, seconds=parsed.seconds)
    # As text, so that the order of the fields and the last digit of the time are held too.
    assert values.to_json(back) == json.dumps(VISUAL_HASH)


def test_documented_visual_hash_request_reads():
    request = requests.read_request({"records": [{"_url": URL}]})
    assert request.frame["url"].to_list() == [URL]
    assert (request.hash_types, request.radius, request.query) == (("bmh1", "phash"), 0, None)


def test_documented_remove_duplicates():
    request = requests.read_request(REMOVE_DUPLICATES_REQUEST, "remove_duplicates")
    assert (request.hash_type, request.radius) == ("bmh1", 0)
    assert request.frame["_id"].to_list() == ["1", "2", "3"]
    frame = hashed(request.frame).with_columns(
        width=pl.Series([259, 259, 212], dtype=pl.UInt32), height=pl.Series([460, 460, 289], dtype=pl.UInt32)
    )
    response = responses.remove_duplicates_response(
        with_removed(frame, [0, 2], [[1], []]),
        seconds=0.7242739200592041,
        request_id=REQUEST_ID,
        proc_id=PROC_ID,
    )
    assert values.to_json(response) == json.dumps(REMOVE_DUPLICATES)


def test_documented_rank_images():
    body = {
        "query_record": {"_url": "__URL_PATH_1__"},
        "records": [
            {"_url": "__URL_PATH_1__"},
            {"_url": "__URL_PATH_2__"},
            {"_url": "__URL_PATH_3__", "test": "insomnia"},
            {"_url": "__URL_PATH_4_NOT_WORKING__"},
        ],
    }
    request = requests.read_request(body, "rank_images")
    assert request.hash_type == "bmh1"
    statuses = ["ok", "ok", "ok", "fetch_failed"]
    ranked = hashed(request.frame, statuses=statuses).with_columns(
        pl.Series("_id", RANK_IDS),
        pl.Series("width", [259, 259, 212, None], dtype=pl.UInt32),
        pl.Series("height", [460, 460, 289, None], dtype=pl.UInt32),
        pl.Series("distance", [0, 1, 252, None], dtype=schema.DISTANCE_DTYPE),
    )
    response = responses.rank_images_response(
        hashed(request.query_frame, sides=(259, 460)),
        ranked,
        seconds=0.9733231067657471,
        request_id=RANK_REQUEST_ID,
        proc_id=RANK_PROC_ID,
    )
    assert values.to_json(response) == json.dumps(RANK_IMAGES)


def test_documented_ping():
    assert responses.ping_response() == {
        "status": {"code": 200, "text": "OK"},
        "_service_info": {
            "_name": "Image matching service",
            "_info": "Get visual hashes, find (near-)duplicate images and rank them",
        },
    }


# Round trips


@given(st.lists(UNKNOWN_FIELDS, max_size=5))
def test_unknown_fields_come_back_unchanged_and_in_their_order(fields):
    body = {"records": [{"_url": "a.jpg", **own} for own in fields]}
    for request in (body, json.dumps(body)):
        got = answer(request)["records"]
        own = [{key: value for key, value in record.items() if key not in ANSWER_FIELDS} for record in got]
        assert json.dumps(own) == json.dumps(fields)


@given(st.lists(st.tuples(HASHES, UNKNOWN_FIELDS), min_size=1, max_size=4), st.floats(0, 1e6))
def test_hashed_frames_survive_the_json(rows, seconds):
    body = {"records": [{"_url": f"{row}.jpg", **own} for row, (_, own) in enumerate(rows)]}
    frame = hashed(requests.read_request(body).frame, hashes=[hashes for hashes, _ in rows])
    response = responses.visual_hash_response(frame, seconds=seconds)
    for record, ((bmh1, phash), _) in zip(response["records"], rows, strict=True):
        assert record["bmh1"] == "".join(f"{byte:08b}" for byte in bmh1)
        assert record["phash"] == f"{phash:064b}"
    parsed = responses.parse_visual_hash_response(values.to_json(response))
    same = ["_id", "url", "width", "height", "bmh1", "phash", "status", "detail"]
    assert parsed.frame.select(same).equals(frame.select(same))
    again = responses.visual_hash_response(parsed.frame, hash_types=parsed.hash_types, seconds=parsed.seconds)
    assert values.to_json(again) == values.to_json(response)


def test_thousands_of_records_with_clashing_fields():
    values = [1, "1", None, [1], {"1": 1}, 2**53 + 1, 1.5, True, "ü€😀", -(10**30)]
    body = {"records": [{"_url": "a.jpg", "x": values[row % 10], f"own{row}": row} for row in range(3000)]}
    got = answer(json.dumps(body))["records"]
    for row, record in enumerate(got):
        assert json.dumps(record["x"]) == json.dumps(values[row % 10])
        assert record[f"own{row}"] == row
        assert f"own{row - 1}" not in record


@pytest.mark.parametrize(
    ("given_id", "kept"), [(1, "1"), ("1", "1"), ("", ""), (2**70, str(2**70)), (-3, "-3"), ("ü", "ü")]
)
def test_ids_are_kept_as_strings(given_id, kept):
    body = {"records": [{"_url": "a", "_id": given_id}, {"_id": given_id, "_url": "b"}]}
    assert requests.read_request(body).frame["_id"].to_list() == [kept, kept]
    assert [record["_id"] for record in answer(body)["records"]] == [kept, kept]


def test_absent_ids_are_made_and_differ():
    frame = requests.read_request({"records": [{"_url": "a"}, {"_url": "a", "_id": None}, {"_url": "a"}]}).frame
    ids = frame["_id"].to_list()
    assert len(set(ids)) == 3
    assert [str(UUID(made, version=4)) for made in ids] == ids


def test_a_query_is_not_given_an_id():
    body = {"query_record": {"_url": "q"}, "records": []}
    assert requests.read_request(body, "rank_images").query_frame["_id"].to_list() == [None]
    body = {"query_record": {"_url": "q", "_id": 9}, "records": []}
    assert requests.read_request(body, "rank_images").query_frame["_id"].to_list() == ["9"]


def test_the_request_is_left_as_it_was():
    body = {"records": [{"_url": "a", "nested": {"x": [1]}}], "hash_type": ["phash"]}
    before = json.dumps(body)
    answer(body)
    assert json.dumps(body) == before


def test_request_from_a_file(tmp_path: Path):
    path = tmp_path / "request.json"
    path.write_bytes(b"\xef\xbb\xbf" + REMOVE_DUPLICATES_REQUEST.encode())  # editors write byte order marks
    assert requests.read_request(path).frame.height == 3


def test_empty_requests_and_frames():
    request = requests.read_request({"records": []})
    assert request.frame.schema == {"_id": pl.String, "url": pl.String, "_record": pl.String}
    response = responses.visual_hash_response(hashed(request.frame), seconds=0.5)
    assert response == {
        "records": [],
        "statistics": {"processing time": 0.5},
        "status": {"code": 200, "text": "OK"},
    }
    assert responses.parse_visual_hash_response(response).frame.height == 0


# Sources


@pytest.mark.parametrize(
    ("record", "source"),
    [
        ({"_url": "http://a/b.jpg"}, "http://a/b.jpg"),
        ({"_url": ""}, None),
        ({"_url": None}, None),
        ({"_url": 5}, None),
        ({"_url": ["a.jpg"]}, None),
        ({"_url": "\ud800.jpg"}, None),
        ({"_base64": ""}, None),
        ({"_base64": {"x": 1}}, None),
        ({}, None),
        ({"test": 1}, None),
        ({"_base64": "/etc/passwd"}, "data:;base64,/etc/passwd"),
        ({"_base64": "data:image/png;base64,AAAA"}, "data:image/png;base64,AAAA"),
        ({"_base64": "AAAA", "_url": "a.jpg"}, "data:;base64,AAAA"),
        ({"_base64": None, "_url": "a.jpg"}, "a.jpg"),
        ({"_base64": "", "_url": "a.jpg"}, "a.jpg"),
    ],
)
def test_source_of_a_record(record, source):
    frame = requests.read_request({"records": [record]}).frame
    assert frame["url"].to_list() == [source]
    assert json.loads(frame["_record"][0]) == record


def test_base64_is_never_taken_for_a_path():
    frame = requests.read_request({"records": [{"_base64": "photos/a"}]}).frame
    assert parse_source(frame["url"][0]).kind == "base64"


def test_base64_comes_back_as_it_came():
    (record,) = answer({"records": [{"_base64": "AAAA", "x": 1}]})["records"]
    assert record["_base64"] == "AAAA"
    assert "_url" not in record


# Rows that failed


def failed_record(record, status, detail, **options):
    frame = hashed(requests.read_request({"records": [record]}).frame, statuses=[status], details=[detail])
    return responses.visual_hash_response(frame, seconds=0.0, request_id="r", **options)


@pytest.mark.parametrize("status", ["not_found", "fetch_blocked", "fetch_timeout", "fetch_failed"])
def test_text_of_a_failed_download_is_the_documented_one(status):
    url = "https://a.example/" + "x" * 200 + "?q='"
    response = failed_record({"_url": url, "_id": 4, "x": 1}, status, "HTTP 404", attempts=5)
    text = f"Error Loading Image: Unable to download image from '{url}', Attempts: 5"
    expected = {"_url": url, "x": 1, "_status": {"code": 400, "text": text, "request_id": "r"}, "_id": "4"}
    assert json.dumps(response["records"]) == json.dumps([expected])
    assert response["status"] == {"code": 300, "text": "MIXED_RESULT"}


@pytest.mark.parametrize(
    ("record", "status", "text"),
    [
        ({"_url": "a.jpg"}, "decode_failed", "Error Loading Image: a detail"),
        ({"_url": "a.jpg"}, "too_many_bytes", "Error Loading Image: a detail"),
        ({"_base64": "AAAA"}, "bad_source", "Error Loading Image: a detail"),
        ({"_base64": "AAAA"}, "fetch_failed", "Error Loading Image: a detail"),
        ({}, "missing", "Error Loading Image: Record has no image in '_url' or '_base64'"),
    ],
)
def test_text_of_other_failures(record, status, text):
    response = failed_record(record, status, "a detail")
    assert response["records"][0]["_status"] == {"code": 400, "text": text, "request_id": "r"}
    assert failed_record(record, "decode_failed", None)["records"][0]["_status"]["text"].endswith("decode_failed")


@pytest.mark.parametrize("status", [status for status in schema.STATUSES if status != "ok"])
def test_reasons_stand_beside_the_documented_text_where_they_are_wanted(status):
    plain = failed_record({"_url": "a.jpg"}, status, "a detail")["records"][0]["_status"]
    response = failed_record({"_url": "a.jpg"}, status, "a detail", reasons=True)
    assert response["records"][0]["_status"] == {**plain, "reason": status, "detail": "a detail"}
    assert failed_record({}, status, None, reasons=True)["records"][0]["_status"]["detail"] == status
    parsed = responses.parse_visual_hash_response(response)
    assert parsed.frame.select("status", "detail").row(0) == (status, "a detail")
    again = responses.visual_hash_response(parsed.frame, seconds=0.0, request_id="r", reasons=True)
    assert values.to_json(again) == values.to_json(response)


def test_a_record_without_one_of_our_statuses_has_no_reason():
    frame = pl.DataFrame({"url": ["a"], "phash": [None]}, schema={"url": pl.String, "phash": pl.UInt64})
    for other in (frame, frame.with_columns(status=pl.lit("sold out"))):
        (record,) = responses.visual_hash_response(other, hash_types=["phash"], seconds=0, reasons=True)["records"]
        assert record["_status"].keys() == {"code", "text", "request_id"}
    body = failed_record({"_url": "a.jpg"}, "not_found", "gone", reasons=True)
    body["records"][0]["_status"]["reason"] = "of another service"
    assert responses.parse_visual_hash_response(body).frame["status"].to_list() == ["fetch_failed"]


def test_failed_records_survive_the_json_among_others():
    body = {"records": [{"_url": f"{row}.jpg", "x": row} for row in range(4)] + [{}]}
    statuses = ["ok", "fetch_failed", "decode_failed", "ok", "missing"]
    frame = hashed(requests.read_request(body).frame, statuses=statuses)
    response = responses.visual_hash_response(frame, seconds=2, request_id="r")
    assert response["status"] == {"code": 300, "text": "MIXED_RESULT"}
    assert ["_status" in record for record in response["records"]] == [False, True, True, False, True]
    parsed = responses.parse_visual_hash_response(response)
    assert parsed.frame["status"].to_list() == statuses
    again = responses.visual_hash_response(parsed.frame, seconds=parsed.seconds, request_id=parsed.request_id)
    assert values.to_json(again) == values.to_json(response)


def test_all_failed_is_a_mixed_result_too_and_parses():
    response = failed_record({"_url": "a.jpg"}, "not_found", "no such file")
    assert response["status"]["code"] == 300
    parsed = responses.parse_visual_hash_response(response)
    assert parsed.hash_types == ("bmh1", "phash")
    assert parsed.frame.select("bmh1", "phash", "width").row(0) == (None, None, None)


def test_a_request_id_is_made_for_failed_records():
    frame = hashed(requests.read_request({"records": [{}, {}]}).frame, statuses=["missing"] * 2)
    got = responses.visual_hash_response(frame, seconds=0)["records"]
    made = {record["_status"]["request_id"] for record in got}
    assert len(made) == 1
    UUID(made.pop())


def test_remove_duplicates_keeps_failed_rows_and_says_so():
    frame = hashed(requests.read_request(REMOVE_DUPLICATES_REQUEST).frame, statuses=["ok", "ok", "not_found"])
    response = responses.remove_duplicates_response(with_removed(frame, [0, 2], [[1], []]), seconds=0)
    kept, failed = response["records"]
    assert kept["removed_records"][0]["_id"] == "2"
    assert (failed["_status"]["code"], failed["_id"]) == (400, "3")
    assert not failed.keys() & {"_width", "_height", "removed_records"}
    assert response["status"]["text"] == "MIXED_RESULT"
    ids = {response["status"]["request_id"], failed["_status"]["request_id"], kept["_status"]["request_id"]}
    assert len(ids) == 1
    assert response["status"]["proc_id"] not in ids


def test_a_null_hash_without_a_status_column_is_a_failure():
    frame = pl.DataFrame({"url": ["a", "b"], "phash": [7, None]}, schema={"url": pl.String, "phash": pl.UInt64})
    got = responses.visual_hash_response(frame, hash_types=["phash"], seconds=0)["records"]
    assert got[0] == {"_url": "a", "phash": f"{7:064b}"}
    assert got[1]["_status"]["text"] == "Error Loading Image: Record has no hash"


def test_rank_images_with_nothing_skipped_and_phash():
    request = requests.read_request(
        {"query_record": {"_url": "q", "x": 1, "_id": 5}, "records": [{"_url": "a"}], "hash_type": "phash"},
        "rank_images",
    )
    ranked = hashed(request.frame).with_columns(pl.lit(16, pl.UInt16).alias("distance"))
    response = responses.rank_images_response(
        hashed(request.query_frame), ranked, seconds=0, hash_type=request.hash_type
    )
    assert response["answer_distances"] == [25.0]
    assert response["skipped_records"] == []
    assert response["status"]["code"] == 200
    assert response["query_records"] == [{"_url": "q", "x": 1, "_id": "5", "_width": 400, "_height": 300}]


def test_a_failed_query_is_an_error_that_says_so():
    body = {"query_record": {"_url": "http://dead/"}, "records": [{"_url": "a"}]}
    request = requests.read_request(body, "rank_images")
    query = hashed(request.query_frame, statuses=["fetch_failed"])
    ranked = hashed(request.frame).with_columns(pl.lit(None, pl.UInt16).alias("distance"))
    with pytest.raises(
        ArgumentError, match=r"query_record failed: Error Loading Image: Unable to download .*'http://dead/'"
    ):
        responses.rank_images_response(query, ranked, seconds=0)
    with pytest.raises(ArgumentError, match="query_record must be one record, got '2 rows'"):
        responses.rank_images_response(hashed(pl.concat([request.query_frame] * 2)), ranked, seconds=0)


# An earlier answer sent again


def test_fields_of_an_earlier_answer_are_replaced():
    earlier = {
        "_url": "a.jpg",
        "_status": {"code": 400, "text": "old"},
        "_id": "7",
        "_width": 1,
        "_height": 2,
        "bmh1": "old",
        "removed_records": [{"_id": "old"}],
    }
    request = requests.read_request({"records": [earlier]}, "remove_duplicates")
    (record,) = responses.visual_hash_response(hashed(request.frame), seconds=0, hash_types=["bmh1"], request_id="r")[
        "records"
    ]
    assert "_status" not in record
    assert (record["_id"], record["_width"], record["bmh1"]) == ("7", 400, "0" * 968)
    failed = hashed(request.frame, statuses=["not_found"])
    (record,) = responses.visual_hash_response(failed, seconds=0)["records"]
    assert not record.keys() & {"_width", "_height", "bmh1"}
    kept = with_removed(hashed(request.frame), [0], [[]])
    (record,) = responses.remove_duplicates_response(kept, seconds=0)["records"]
    assert "removed_records" not in record
    assert record["bmh1"] == "old"  # no field of this method, so the record's own


# Frames that did not come from a request


def test_frames_of_paths_and_of_bytes():
    frame = hashed(pl.DataFrame({"path": ["a.jpg", "ü.jpg"], "size": [1, 2], "_id": [10, 20]}))
    got = responses.visual_hash_response(frame, seconds=0, source="path", hash_types=["phash"])["records"]
    assert got[1] == {"_url": "ü.jpg", "_id": "20", "_width": 400, "_height": 300, "phash": f"{2**64 - 2:064b}"}
    frame = hashed(pl.DataFrame({"image": [b"\x00\xff"]}))
    (record,) = responses.visual_hash_response(frame, seconds=0, source="image", hash_types=["phash"])["records"]
    assert record["_base64"] == b64encode(b"\x00\xff").decode()


def test_records_are_streamed():
    frame = hashed(requests.read_request({"records": [{"_url": str(row)} for row in range(5000)]}).frame)
    stream = responses.iter_records(frame, "visual_hash", hash_types=("phash",), request_id="r")
    assert [record["_url"] for record in islice(stream, 3)] == ["0", "1", "2"]
    assert sum(1 for _ in stream) == 4997


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.all().exclude("phash"), "'phash' is absent"),
        (pl.all().exclude("url", "_record"), "'url' is absent"),
        (pl.all().exclude("_record", "url"), "Hint: source="),
    ],
)
def test_absent_columns_are_named(change, message):
    frame = hashed(requests.read_request({"records": [{"_url": "a"}]}).frame)
    with pytest.raises(ColumnError, match=message):
        responses.visual_hash_response(frame.select(change), seconds=0)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"phash": pl.Series([-1], dtype=pl.Int64)}, "'phash' must be UInt64, got Int64"),
        ({"bmh1": pl.Series([b"short"])}, "'bmh1' must hold 121 bytes"),
        ({"bmh1": pl.Series(["0101"])}, "'bmh1' must be Binary, got String"),
        ({"_record": pl.Series([1])}, "'_record' must be String or Binary, got Int64"),
    ],
)
def test_columns_of_another_dtype_are_named(columns, message):
    frame = hashed(requests.read_request({"records": [{"_url": "a"}]}).frame).with_columns(**columns)
    with pytest.raises(ColumnError, match=message):
        responses.visual_hash_response(frame, seconds=0)


def test_verb_columns_are_needed():
    frame = hashed(requests.read_request({"records": [{"_url": "a"}]}).frame)
    with pytest.raises(ColumnError, match="'removed_records' is absent"):
        responses.remove_duplicates_response(frame, seconds=0)
    with pytest.raises(ColumnError, match="'distance' is absent"):
        responses.rank_images_response(frame, frame, seconds=0)


# The caller's mistakes


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "records must be a list of objects, got None\nHint: the body has the fields none"),
        ({"record": []}, "records must be .*\nHint: the body has the fields 'record'"),
        ({"records": {"_url": "a"}}, "records must be a list"),
        ({"records": "a.jpg"}, "records must be a list"),
        ({"records": [{"_url": "a"}, "b.jpg"]}, r"records\[1\] must be an object, got 'b.jpg'"),
        ({"records": [None]}, r"records\[0\] must be an object, got None"),
        ({"records": [{"_id": True}]}, r"records\[0\]._id must be a string or a whole number, got True"),
        ({"records": [{"_id": 1.5}]}, r"records\[0\]._id must be"),
        ({"records": [{"_id": [1]}]}, r"records\[0\]._id must be"),
        ({"records": [{"_id": "\udc00"}]}, r"records\[0\]._id must be"),
        ({"records": [{"x": math.nan}]}, r"records\[0\] must hold JSON values only"),
        ({"records": [{"x": b"bytes"}]}, r"records\[0\] must hold JSON values only"),
        ({"records": [{"_id": 10**5000}]}, r"records\[0\] must hold JSON values only"),
        ({"records": [], "hash_type": "dhash"}, "hash_type must be one of 'bmh1', 'phash', 'pdq', got 'dhash'"),
        ({"records": [], "hash_type": ["bmh1", "dhash"]}, "hash_type must be one of"),
        ({"records": [], "hash_type": []}, "hash_type must be one or more kinds of"),
        ({"records": [], "hash_type": {"bmh1": 1}}, "hash_type must be one of"),
        ({"records": [], "range": -1}, "range must be a number from 0 to 100, got -1"),
        ({"records": [], "range": math.nan}, "range must be"),
        ({"records": [], "range": True}, "range must be"),
        ({"records": [], "range": "5"}, "range must be a number from 0 to 100, got '5'"),
        ({"records": [], "range": 101}, "range must be .*\nHint: range is a percentage"),
        ({"records": [], "range": 10**400}, "range must be"),
        ('{"records": [], "range": 1e999}', "range must be"),
        ('{"records": [{"x": NaN}]}', "request must be JSON, but: NaN"),
        ('{"records": [{"x": -Infinity}]}', "request must be JSON, but: -Infinity"),
        ('{"records": [{"x": 1e999}]}', r"records\[0\] must hold JSON values only"),
        ("request.json", "request must be JSON.*\nHint: .*pathlib.Path"),
        (b"\xff\xfe\xfd", "request must be JSON"),
        ("[" * 100_000, "request must be JSON"),
        ("9" * 5000, "request must be JSON"),
        ("[]", r"request must be a JSON object, got \[\]"),
        (5, "request must be a mapping, JSON text or a path, got 5"),
    ],
)
def test_mistakes_in_a_request_name_the_field(body, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        requests.read_request(body)
    assert "\nHint: " in str(caught.value)
    assert len(str(caught.value)) < 400


def test_mistakes_that_only_some_methods_have(tmp_path: Path):
    with pytest.raises(ArgumentError, match="hash_type must be one kind of"):
        requests.read_request({"records": [], "hash_type": ["bmh1", "phash"]}, "remove_duplicates")
    with pytest.raises(ArgumentError, match="query_record must be an object, got None"):
        requests.read_request({"records": []}, "rank_images")
    with pytest.raises(ArgumentError, match=r"query_record\._id must be"):
        requests.read_request({"records": [], "query_record": {"_id": 0.5}}, "rank_images")
    with pytest.raises(ArgumentError, match=r"method must be one of 'visual_hash'.* got 'ping'"):
        requests.read_request({"records": []}, "ping")
    with pytest.raises(ArgumentError, match="cannot be read: No such file"):
        requests.read_request(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("given_type", "kinds"),
    [(None, ("bmh1", "phash")), ("phash", ("phash",)), (["phash", "bmh1", "phash"], ("phash", "bmh1"))],
)
def test_hash_types(given_type, kinds):
    assert requests.read_request({"records": [], "hash_type": given_type}).hash_types == kinds


def changed(**fields):
    return {**VISUAL_HASH, "records": [{**VISUAL_HASH["records"][0], **fields}]}


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (changed(phash="1" * 63), r"records\[0\].phash must be 64 characters 0 or 1"),
        (changed(phash=" " + "1" * 63), r"records\[0\].phash must be"),
        (changed(phash="1_" * 32), r"records\[0\].phash must be"),
        (changed(phash="1" * 64 + "\n"), r"records\[0\].phash must be"),
        (changed(phash="١" * 64), r"records\[0\].phash must be"),
        (changed(phash=7), r"records\[0\].phash must be"),
        (changed(bmh1="1" * 961), r"records\[0\].bmh1 must be 968 characters 0 or 1"),
        ({**VISUAL_HASH, "records": [*changed()["records"], {"_url": "a", "bmh1": BMH1_BITS}]}, r"records\[1\].phash"),
        (changed(_width=-1), r"records\[0\]._width must be"),
        (changed(_width="400"), r"records\[0\]._width must be"),
        (changed(_height=2**32), r"records\[0\]._height must be"),
        (changed(_height=True), r"records\[0\]._height must be"),
        (changed(_status="OK"), r"records\[0\]._status must be"),
        ({"records": []}, r"statistics\['processing time'\] must be"),
        ({"records": 1}, "records must be a list"),
        ("{", "response must be JSON"),
    ],
)
def test_mistakes_in_a_response_name_the_field(response, message):
    with pytest.raises(ArgumentError, match=message):
        responses.parse_visual_hash_response(response)


def test_a_response_of_one_kind_parses():
    body = changed()
    del body["records"][0]["bmh1"]
    parsed = responses.parse_visual_hash_response(body)
    assert parsed.hash_types == ("phash",)
    assert "bmh1" not in parsed.frame.columns
    assert responses.visual_hash_response(parsed.frame, hash_types=("phash",), seconds=parsed.seconds) == body


def test_to_json_never_writes_nan():
    with pytest.raises(ValueError, match="not JSON compliant"):
        values.to_json(
            responses.visual_hash_response(hashed(requests.read_request({"records": []}).frame), seconds=math.nan)
        )


# The documented unit of distance


KINDS = pytest.mark.parametrize("name", ["bmh1", "phash"])


def included(range_, name):
    """The distances within `range`, by the rule itself: those that are shown as a number within it."""
    kind = kinds.hash_kind(name)
    return [bits for bits in range(kind.n_bits + 1) if round(100 * bits / kind.n_chars, 1) <= range_]


@KINDS
def test_a_distance_as_it_is_shown_is_within_itself(name):
    kind = kinds.hash_kind(name)
    for bits in range(kind.n_bits + 1):
        shown = values.percent_from_bits(bits, name)
        assert shown == round(100 * bits / kind.n_chars, 1)
        radius = values.radius_from_range(shown, name)
        assert radius >= bits
        assert values.percent_from_bits(radius, name) == shown
        assert radius == kind.n_bits or values.percent_from_bits(radius + 1, name) > shown
        assert values.radius_from_range(json.loads(json.dumps(shown)), name) == radius
        assert bits == 0 or values.radius_from_range(math.nextafter(shown, -1), name) < bits


@KINDS
def test_every_range_with_one_decimal_includes_what_is_shown_within_it(name):
    for tenths in range(1001):
        assert values.radius_from_range(tenths / 10, name) == included(tenths / 10, name)[-1]
    for percent in range(101):
        assert values.radius_from_range(percent, name) == values.radius_from_range(float(percent), name)
    assert values.radius_from_range(0, name) == 0
    assert values.radius_from_range(100, name) == kinds.hash_kind(name).n_bits


@KINDS
@given(range_=st.floats(0, 100) | st.integers(0, 100))
def test_a_range_includes_what_is_shown_within_it(name, range_):
    within = included(range_, name)
    assert within == list(range(values.radius_from_range(range_, name) + 1))


@given(st.floats(0, 100), st.floats(0, 100), st.sampled_from(["bmh1", "phash"]))
def test_radius_grows_with_range(small, large, name):
    small, large = sorted((small, large))
    assert 0 <= values.radius_from_range(small, name) <= values.radius_from_range(large, name)


def test_range_of_a_request_is_a_radius_in_bits():
    assert requests.read_request({"records": [], "range": 1}, "remove_duplicates").radius == 10
    assert requests.read_request({"records": [], "range": 5, "hash_type": "phash"}, "remove_duplicates").radius == 3
    assert requests.read_request({"records": [], "range": None}, "remove_duplicates").radius == 0
