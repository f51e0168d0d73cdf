"""`imgmatch serve` over a real socket: the documented methods, field by field, and the same answers as the frames."""

import base64
import json
import os
import re
import shutil
import subprocess
import warnings
from html import unescape
from uuid import UUID

import polars as pl
import pytest
from drawing import draw, jpeg
from hostile_server import HostileServer
from service import PREFIX, Service

import imgmatch_df
from imgmatch_df import columns
from imgmatch_df.documented import requests, responses
from imgmatch_df.server import handlers, models

pytestmark = pytest.mark.long

FAILED = "Error Loading Image: Unable to download image from '{}', Attempts: 3"


@pytest.fixture(scope="module")
def album():
    """Four pictures, then smaller copies of three of them."""
    pixels = [draw(seed, 130 + 10 * seed, 100) for seed in range(4)]
    return [*(jpeg(one) for one in pixels), *(jpeg(one[::2, ::2]) for one in pixels[1:])]


@pytest.fixture(scope="module")
def web(album):
    with HostileServer(album) as server:
        yield server


@pytest.fixture(scope="module")
def service():
    with Service("--allow-private-networks", "--timeout-s", "60") as running:
        yield running


@pytest.fixture(scope="module")
def guarded():
    """A service as it comes: without private networks."""
    with Service() as running:
        yield running


def encoded(picture):
    return base64.b64encode(picture).decode()


def is_uuid(text):
    return str(UUID(text)) == text


# The documented examples


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("method", ["ping", "visual_hash", "remove_duplicates", "rank_images"])
def test_the_documented_commands_work_with_another_host(service, web, method):
    records = [{"_url": web.url(f"/ok/{name}.jpg")} for name in (0, 0, 1)]
    query = {"query_record": records[2]} if method == "rank_images" else {}
    body = json.dumps({"records": records, **query}, indent=0)  # lines, as in the documentation
    command = ["curl", "--silent", "--request", "POST", "--url", service.url(PREFIX + method)]
    command += ["--header", f"authorization: Token {service.token}"]
    if method != "ping":
        command += ["--header", "content-type: application/json", "--data", body]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=200).stdout)
    assert answer["status"].items() >= {"code": 200, "text": "OK"}.items()
    if method == "ping":
        assert answer == service.ask("ping").json
    else:
        n_expected = {"visual_hash": 3, "remove_duplicates": 2, "rank_images": 3}[method]
        assert len(answer["answer_records" if method == "rank_images" else "records"]) == n_expected


def test_ping_is_the_documented_one(service):
    answer = service.ask("ping", content_type="")
    assert answer.code == 200
    assert answer.json == {
        "status": {"code": 200, "text": "OK"},
        "_service_info": {
            "_name": "Image matching service",
            "_info": "Get visual hashes, find (near-)duplicate images and rank them",
        },
    }


def test_visual_hash_has_the_documented_fields(service, web):
    url = web.url("/ok/0.jpg")
    answer = service.ask("visual_hash", {"records": [{"_url": url}]}).json
    assert answer.keys() == {"records", "statistics", "status"}
    assert answer["status"] == {"code": 200, "text": "OK"}
    assert answer["statistics"].keys() == {"processing time"}
    assert 0 < answer["statistics"]["processing time"] < 10
    (record,) = answer["records"]
    assert record.keys() == {"_url", "_id", "_width", "_height", "bmh1", "phash"}
    assert (record["_url"], record["_width"], record["_height"]) == (url, 130, 100)
    assert {len(record["bmh1"]), len(record["phash"])} == {968, 64}
    assert set(record["bmh1"] + record["phash"]) == {"0", "1"}


def test_remove_duplicates_has_the_documented_fields(service, web):
    urls = [web.url("/ok/0.jpg"), web.url("/ok/0.jpg"), web.url("/ok/1.jpg")]
    request = {"records": [{"_url": url, "_id": number} for number, url in enumerate(urls, 1)]}
    answer = service.ask("remove_duplicates", request).json
    assert answer.keys() == {"records", "status", "statistics"}
    request_id = answer["status"]["request_id"]
    assert is_uuid(request_id)
    assert is_uuid(answer["status"]["proc_id"])
    each = {"code": 200, "text": "OK", "request_id": request_id}
    assert answer["status"] == {"code": 200, "text": "OK", "request_id": request_id} | {
        "proc_id": answer["status"]["proc_id"]
    }
    first = {"_url": urls[0], "_status": each, "_width": 130, "_height": 100}
    assert answer["records"] == [
        {**first, "_id": "1", "removed_records": [{**first, "_id": "2"}]},
        {"_url": urls[2], "_status": each, "_id": "3", "_width": 140, "_height": 100},
    ]


def test_rank_images_has_the_documented_fields(service, web, album):
    gone = web.url("/status/404")
    request = {
        "query_record": {"_url": web.url("/ok/1.jpg")},
        "records": [
            {"_url": web.url("/ok/2.jpg"), "test": "insomnia"},
            {"_url": web.url("/ok/4.jpg")},
            {"_url": web.url("/ok/1.jpg")},
            {"_url": gone},
        ],
    }
    answered = service.ask("rank_images", request)
    answer = answered.json
    assert answered.code == 200
    assert answer.keys() == {
        *("query_records", "answer_records", "answer_distances", "skipped_records", "status", "statistics")
    }
    assert answer["query_records"] == [{"_url": web.url("/ok/1.jpg"), "_width": 140, "_height": 100}]
    names = [record["_url"].rpartition("/")[2] for record in answer["answer_records"]]
    assert names == ["1.jpg", "4.jpg", "2.jpg"]
    assert answer["answer_records"][2]["test"] == "insomnia"
    assert all(is_uuid(record["_id"]) for record in answer["answer_records"])
    distances = answer["answer_distances"]
    assert distances[0] == 0.0
    assert distances == sorted(distances)
    assert all(round(one, 1) == one for one in distances)
    (skipped,) = answer["skipped_records"]
    assert skipped["_status"]["code"] == 400
    assert skipped["_status"]["text"] == FAILED.format(gone)
    assert skipped["_status"]["request_id"] == answer["status"]["request_id"]
    assert (answer["status"]["code"], answer["status"]["text"]) == (300, "MIXED_RESULT")


# What records may hold


def test_fields_and_ids_are_kept(service, album):
    record = {"_id": 2**80, "ünïcode": ["é", {"deep": [1, 2.5, None, True]}], "n": 10**30, "_base64": encoded(album[0])}
    (answered,) = service.ask("visual_hash", {"records": [record]}).json["records"]
    assert {key: answered[key] for key in record} == {**record, "_id": str(2**80)}
    ids = ["a", "a", 7, None]
    answer = service.ask("visual_hash", {"records": [{"_base64": encoded(album[0]), "_id": one} for one in ids]}).json
    got = [record["_id"] for record in answer["records"]]
    assert got[:3] == ["a", "a", "7"]
    assert is_uuid(got[3])


@pytest.mark.parametrize(
    "spell",
    [
        lambda data: base64.b64encode(data).decode(),
        lambda data: base64.encodebytes(data).decode(),
        lambda data: base64.urlsafe_b64encode(data).decode(),
        lambda data: base64.b64encode(data).decode().rstrip("="),
        lambda data: "data:image/jpeg;base64," + base64.b64encode(data).decode(),
    ],
    ids=["plain", "lines", "url-safe", "no padding", "data URI"],
)
def test_base64_in_every_spelling(service, album, spell):
    record = {"_base64": spell(album[0])}
    (answered,) = service.ask("visual_hash", {"records": [record]}).json["records"]
    assert answered["_base64"] == record["_base64"]
    (phash,) = pl.Series([album[0]]).imgmatch.phash()
    assert answered["phash"] == f"{phash:064b}"


@pytest.mark.parametrize(
    ("request_types", "expected"),
    [
        (None, {"bmh1", "phash"}),
        ("phash", {"phash"}),
        (["bmh1"], {"bmh1"}),
        (["phash", "bmh1", "phash"], {"bmh1", "phash"}),
    ],
)
def test_hash_type_is_a_string_or_a_list(service, album, request_types, expected):
    body = {"records": [{"_base64": encoded(album[0])}], "hash_type": request_types}
    (record,) = service.ask("visual_hash", body).json["records"]
    assert record.keys() & {"bmh1", "phash"} == expected


def test_range_is_in_percent(service, album):
    photos = [{"_base64": encoded(picture), "_id": str(row)} for row, picture in enumerate(album)]
    frame = pl.DataFrame({"url": album}).imgmatch.visual_hash("url")
    for percent, bits in ((0, 0), (0.2, 2), (1, 10), (5, 48), (26, 252), (100, 961)):
        answer = service.ask("remove_duplicates", {"records": photos, "range": percent}).json
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", imgmatch_df.ImgMatchWarning)
            kept = frame.with_row_index("id").imgmatch.remove_duplicates(radius=bits)
        assert [int(record["_id"]) for record in answer["records"]] == kept["id"].to_list(), percent


FOREIGN = [
    "/etc/passwd",
    "file:///etc/passwd",
    "FILE:/etc/passwd",
    "photo.jpg",
    "s3://bucket/a.jpg",
    "ftp://example.com/a.jpg",
    "data:image/png;base64,iVBORw0KGgo=",
    "C:\\secret.jpg",
    "/proc/self/environ",
    "\x00",
    "gopher://127.0.0.1/",
]


@pytest.mark.parametrize("url", FOREIGN)
def test_records_name_no_local_files(service, url):
    answer = service.ask("visual_hash", {"records": [{"_url": url}]})
    (record,) = answer.json["records"]
    assert answer.json["status"] == {"code": 300, "text": "MIXED_RESULT"}
    assert record["_status"]["code"] == 400
    assert "must be an http or https URL" in record["_status"]["text"]
    assert "phash" not in record


def test_private_networks_are_out_of_reach(guarded, web):
    for host in ("127.0.0.1", "localhost", "[::1]", "169.254.169.254", "0x7f.1", "10.0.0.1"):
        url = f"http://{host}:{web.port}/ok/0.jpg"
        (record,) = guarded.ask("visual_hash", {"records": [{"_url": url}]}).json["records"]
        assert record["_status"]["text"] == FAILED.format(url)
    assert not web.targets.get("/only/guarded")


def test_one_bad_record_spoils_no_other(service, album):
    bad = [{}, {"_base64": "@@@"}, {"_base64": encoded(album[0][:300])}, {"_url": ""}, {"_base64": encoded(b"<html>")}]
    answer = service.ask("visual_hash", {"records": [*bad, {"_base64": encoded(album[0])}]}).json
    assert answer["status"] == {"code": 300, "text": "MIXED_RESULT"}
    assert [record.get("_status", {}).get("code") for record in answer["records"]] == [400] * 5 + [None]
    assert len({record["_status"]["request_id"] for record in answer["records"][:5]}) == 1
    assert answer["records"][0]["_status"]["text"] == "Error Loading Image: Record has no image in '_url' or '_base64'"


def test_a_query_without_hash_is_refused(service, album):
    body = {"query_record": {"_base64": "@@@"}, "records": [{"_base64": encoded(album[0])}]}
    answer = service.ask("rank_images", body)
    assert answer.code == 422
    assert answer.text.startswith("query_record failed: Error Loading Image: invalid base64")


FAILING = {
    "missing": {},
    "decode_failed": {"_base64": "bm8gaW1hZ2U="},
    "bad_source": {"_url": "/etc/passwd"},
    "fetch_blocked": {"_url": "http://127.0.0.1:1/a.jpg"},
    "fetch_failed": {"_url": "http://no-such-host.invalid/a.jpg"},
}


def test_a_failed_record_has_its_reason_and_detail_beside_the_documented_text(guarded):
    answer = guarded.ask("visual_hash", {"records": [{**record, "_id": name} for name, record in FAILING.items()]})
    for record in answer.json["records"]:
        status = record["_status"]
        assert status.keys() == {"code", "text", "request_id", "reason", "detail"}
        assert status["reason"] == record["_id"]
        assert status["detail"]
        assert "\n" not in status["detail"]
        if status["reason"].startswith("fetch"):
            assert status["text"] == FAILED.format(record["_url"])
    event = guarded.wait_for_event("request", request_id=answer.headers["x-request-id"])
    assert event["failed"] == 5
    assert event["reasons"] == dict.fromkeys(FAILING, 1)
    metrics = guarded.get("/metrics", authorization=f"Token {guarded.token}").body.decode()
    for name in FAILING:
        assert f'imgmatch_failed_records_total{{reason="{name}"}}' in metrics


@pytest.mark.parametrize("method", ["remove_duplicates", "rank_images"])
def test_failed_records_among_others_have_their_reason(guarded, album, method):
    good = {"_base64": encoded(album[0])}
    answer = guarded.ask(method, {"query_record": good, "records": [good, FAILING["fetch_blocked"]]}).json
    failed = answer["skipped_records"] if method == "rank_images" else answer["records"][1:]
    assert [record["_status"]["reason"] for record in failed] == ["fetch_blocked"]


def test_a_failed_query_says_its_reason_and_is_counted(guarded, album):
    body = {"query_record": FAILING["fetch_blocked"], "records": [{"_base64": encoded(album[0])}]}
    answer = guarded.ask("rank_images", body)
    assert answer.code == 422
    assert "(fetch_blocked: blocked: the address is a loopback address" in answer.text
    event = guarded.wait_for_event("request", request_id=answer.headers["x-request-id"])
    assert event["reasons"] == {"fetch_blocked": 1}


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        ("blocked: intranet.example is 10.1.2.3, a private address; pass allow_private_networks=True to allow it",
         "blocked: intranet.example is a private address; imgmatch serve --allow-private-networks allows it"),
        ("blocked: fe.ad is fd00::7, a private address; pass allow_private_networks=True to allow it",
         "blocked: fe.ad is a private address; imgmatch serve --allow-private-networks allows it"),
        ("blocked: fe80::1%eth0 is a link-local address; pass allow_private_networks=True to allow it",
         "blocked: the address is a link-local address; imgmatch serve --allow-private-networks allows it"),
        ("blocked: 10.1.2.3 is a private address; pass allow_private_networks=True to allow it",
         "blocked: the address is a private address; imgmatch serve --allow-private-networks allows it"),
        ("blocked: redirected to another scheme, file:", "blocked: redirected to another scheme, file:"),
    ],
)  # fmt: skip
def test_details_do_not_tell_the_addresses_of_a_network(detail, shown):
    assert handlers._public_detail({"status": "fetch_blocked", "detail": detail}) == shown
    assert handlers._public_detail({"status": "fetch_failed", "detail": detail}) == detail


# One truth, two faces


def without_ids(response):
    text = json.dumps(response)
    for key in ("request_id", "proc_id"):
        for found in {status[key] for status in statuses(response) if key in status}:
            text = text.replace(found, key)
    body = json.loads(text)
    del body["statistics"]
    return body


def statuses(response):
    if isinstance(response, dict):
        yield from (value for key, value in response.items() if key in ("status", "_status"))
        for value in response.values():
            yield from statuses(value)
    elif isinstance(response, list):
        for value in response:
            yield from statuses(value)


@pytest.mark.parametrize("hash_type", ["bmh1", "phash"])
@pytest.mark.parametrize("method", ["visual_hash", "remove_duplicates", "rank_images"])
def test_the_same_pictures_give_the_same_answer_as_frames(service, web, album, method, hash_type):
    pictures = [
        *({"_base64": encoded(picture), "_id": row, "own": [row]} for row, picture in enumerate(album)),
        {"_url": web.url("/ok/2.jpg"), "_id": "by address"},
        {"_url": web.url("/status/404"), "_id": "gone"},
        {"_id": "nothing"},
    ]
    body = {"records": pictures, "hash_type": hash_type, "range": 6, "query_record": pictures[1]}
    answer = service.ask(method, body).json
    request = requests.read_request(json.dumps(body), method)
    options = {"allow_private_networks": True}
    frame = imgmatch_df.visual_hash(request.frame, "url", hash_types=hash_type, **options)
    if method == "visual_hash":
        expected = responses.visual_hash_response(frame, seconds=0, hash_types=request.hash_types, reasons=True)
    elif method == "remove_duplicates":
        kept = imgmatch_df.remove_duplicates(frame, request.radius, hash_type)
        expected = responses.remove_duplicates_response(kept, seconds=0, hash_type=hash_type, reasons=True)
    else:
        query = imgmatch_df.visual_hash(request.query_frame, "url", hash_types=hash_type, **options)
        ranked = imgmatch_df.rank_images(frame, query[hash_type][0], hash_type)
        expected = responses.rank_images_response(query, ranked, seconds=0, hash_type=hash_type, reasons=True)
    assert without_ids(answer) == without_ids(expected)


# For those who run it


def test_health_readiness_and_metrics(service, album):
    assert service.get("/health").json["status"]["code"] == 200
    assert service.get("/ready").code == 200
    service.ask("visual_hash", {"records": [{"_base64": encoded(album[0])}, {}]})
    metrics = service.get("/metrics", authorization=f"Token {service.token}").body.decode()
    assert 'imgmatch_requests_total{code="200",method="visual_hash"}' in metrics
    assert 'imgmatch_pictures_total{status="ok"}' in metrics
    assert 'imgmatch_pictures_total{status="missing"}' in metrics
    assert "imgmatch_requests_under_way 0.0" in metrics
    assert service.get("/metrics").code == 401


def test_the_description_and_its_page(service):
    description = service.get("/openapi.json").json
    assert description["openapi"] == "3.1.0"
    assert set(description["paths"]) == {
        PREFIX + m for m in ("ping", "visual_hash", "remove_duplicates", "rank_images")
    }
    assert description["components"]["schemas"]["VisualHashRequest"]["properties"]["records"]["maxItems"] == 10
    page = service.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert b"<script" not in page.body
    assert all(path.encode() in page.body for path in description["paths"])


def test_the_root_leads_to_the_page(service):
    answer = service.get("/")
    assert (answer.code, answer.headers["location"]) == (307, "/docs")
    assert service.send("POST", "/", b"", {}).code == 405
    assert service.send("HEAD", "/", None, {}).code == 307


def test_the_page_tells_units_and_rules_and_escapes_what_it_is_given(service):
    body = service.get("/docs").body.decode()
    described = json.dumps(service.get("/openapi.json").json)
    for words in (models.DISTANCE_UNIT, models.RANGE_RULE):
        assert words in body
        assert words in described
    for status in columns.STATUSES[1:]:
        assert f"<code>{status}</code>" in body
    shown = service.get("/docs", host="<b>evil</b>").body.decode()
    assert "evil" not in shown
    assert "http://localhost:8000/image_matching/v2/ping" in shown


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_commands_of_the_page_work_as_they_are_pasted(service):
    """And what it shows as their responses is what comes."""
    blocks = list(map(unescape, re.findall(r"<pre>(.*?)</pre>", service.get("/docs").body.decode(), re.DOTALL)))
    commands = [block for block in blocks if block.startswith("curl")]
    shown = [json.loads(block) for block in blocks if block.startswith("{")]
    assert (len(commands), len(shown)) == (4, 3)
    environment = {**os.environ, "IMGMATCH_TOKEN": service.token}
    for command, expected in zip(commands, [None, *shown], strict=True):
        done = subprocess.run(command, shell=True, env=environment, capture_output=True, check=True, timeout=200)
        answer = json.loads(done.stdout)
        assert answer["status"]["code"] in (200, 300)
        if expected is not None:
            assert without_ids(answer) == without_ids(expected)


def test_the_page_is_there_whatever_the_limits():
    limits = ("--max-hashed-records", "1", "--max-records", "1", "--max-pixels", "10", "--no-echo-base64")
    with Service(*limits) as running:
        body = running.get("/docs").body.decode()
        assert body.count("curl --request POST") == 4
        assert "too_many_pixels" in body


def test_logs_are_json_with_ids_and_without_secrets(service, web):
    secret = f"http://me:hush@127.0.0.1:{web.port}/status/404?token=hush"
    answer = service.ask("visual_hash", {"records": [{"_url": secret}]})
    request_id = answer.headers["x-request-id"]
    event = service.wait_for_event("request", request_id=request_id)
    assert (event["code"], event["path"], event["records"], event["failed"]) == (200, PREFIX + "visual_hash", 1, 1)
    assert "hush" not in "".join(service.lines)
    assert service.token not in "".join(service.lines)
    assert "hush" not in answer.json["records"][0]["_status"]["text"]


def test_a_trailing_slash_is_no_other_method(service):
    assert service.ask("ping/").code == 200
