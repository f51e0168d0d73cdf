"""Endpoints are a table: one that is registered has a route, limits, metrics, a description and a place on the page."""

import base64
import sys
from dataclasses import replace

import pytest
import toy_endpoint
from drawing import draw, jpeg
from service import PREFIX, Service

from imgmatch_df import ArgumentError
from imgmatch_df.server import endpoints

PROGRAM = [sys.executable, "-W", "error", toy_endpoint.__file__, "serve"]


@pytest.fixture(scope="module")
def service():
    with Service("--max-hashed-records", "2", program=PROGRAM) as running:
        yield running
        assert not [event for event in running.events if event["event"] == "bug"]


def image(width=30, height=20):
    return {"_base64": base64.b64encode(jpeg(draw(1, width, height))).decode()}


def test_it_gets_a_valid_body_and_its_result_is_sent(service):
    response = service.ask("measure", {"records": [image(), image(40, 50)], "scale": 3})
    assert (response.code, response.json["sides"]) == (200, [[90, 60], [120, 150]])
    assert service.ask("measure/", {"records": []}).json["sides"] == []
    response = service.ask("measure", {"records": [image()]})
    event = service.wait_for_event("request", request_id=response.headers["x-request-id"])
    assert (event["path"], event["records"]) == (PREFIX + "measure", 1)


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ({}, 422, "records is missing"),
        ({"records": [{}] * 3}, 422, "records must hold at most 2, got 3"),
        ({"records": [], "scale": 0}, 422, "scale must be greater than or equal to 1, got 0"),
        ({"records": [], "scale": "2"}, 422, "scale must be a valid integer, got '2'"),
        ([], 422, "the body must be a JSON object, got a list"),
        (b"{", 400, "the body must be JSON"),
        (b"," * 200_000, 413, "at most 100,000 JSON values"),
    ],
)
def test_its_body_has_the_limits_of_the_others(service, body, code, text):
    response = service.ask("measure", body)
    assert response.code == code
    assert text in response.text


def test_it_needs_the_token_and_a_post(service):
    assert service.ask("measure", {"records": []}, authorization="Token another").code == 401
    assert service.get(PREFIX + "measure").headers["allow"] == "POST"


def test_it_is_described(service):
    document = service.get("/openapi.json").json
    operation = document["paths"][PREFIX + "measure"]["post"]
    assert (operation["operationId"], operation["summary"]) == ("measure", "Measure images")
    assert {"200", "401", "413", "422", "503"} <= operation["responses"].keys()
    schemas = document["components"]["schemas"]
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert schemas[reference.rpartition("/")[2]]["properties"]["records"]["maxItems"] == 2
    assert schemas["measure_answer"]["required"] == ["status", "sides"]
    page = service.get("/docs").body.decode()
    assert "Returns the width and height of each image." in page
    assert "&quot;sides&quot;: []" in page, "the response to the example"


def test_its_requests_are_counted_under_its_name(service):
    service.ask("measure", {"records": [image()]})
    service.ask("no_such_endpoint", {})
    metrics = service.get("/metrics", authorization=f"Token {service.token}").body.decode()
    assert 'imgmatch_requests_total{code="200",method="measure"}' in metrics
    assert 'imgmatch_requests_total{code="404",method="other"}' in metrics
    assert "no_such_endpoint" not in metrics


@pytest.mark.parametrize("name", ["visual_hash", "ping", "", "Measure", "a/b", "2d"])
def test_names_are_checked(name):
    with pytest.raises(ArgumentError, match=r"(must be lower case|is registered already)(?s:.)*Hint: "):
        endpoints.register_endpoint(replace(toy_endpoint.ENDPOINT, name=name))
    assert list(endpoints.ENDPOINTS) == ["ping", "visual_hash", "remove_duplicates", "rank_images"]
