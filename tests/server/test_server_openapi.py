"""Requests made from the OpenAPI description, sound and broken: no answer that it does not name, and none of 5xx."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from service import PREFIX, TOKEN, Service

pytestmark = pytest.mark.long

CHECKS = [
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    schemathesis.checks.not_a_server_error,
]


@pytest.fixture(scope="module")
def running():
    with Service("--timeout-s", "1", "--attempts", "1") as service:
        yield service
        assert not [event for event in service.events if event["event"] == "bug"]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["sound", "broken"])
@pytest.mark.parametrize("method", ["ping", "visual_hash", "remove_duplicates", "rank_images"])
@pytest.mark.parametrize("n_requests", [20, pytest.param(80, marks=pytest.mark.slow)])
def test_requests_from_the_description(running, method, mode, n_requests):
    if method == "ping" and mode is GenerationMode.NEGATIVE:
        pytest.skip("it takes nothing that could be wrong")
    description = schemathesis.openapi.from_dict(running.get("/openapi.json").json)
    requests = description[PREFIX + method]["POST"].as_strategy(generation_mode=mode)

    @given(requests)
    @settings(
        max_examples=n_requests,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    def send(case):
        case.headers = {**(case.headers or {}), "Authorization": f"Token {TOKEN}"}
        response = case.call(base_url=running.url(""))
        case.validate_response(response, checks=CHECKS)

    send()
