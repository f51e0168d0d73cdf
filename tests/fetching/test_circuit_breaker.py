"""The rule by which hosts are given up, and asked again."""

from imgmatch_df.errors import Failure
from imgmatch_df.fetching.circuit_breaker import N_SILENT, OPEN_S, SILENT_S, CircuitBreaker

HOST = "http://h:80"
LATE = Failure("fetch_timeout", "no connection within 1 s")


def silent(breaker, n_requests, started, now, host=HOST):
    for _ in range(n_requests):
        breaker.fail(host, LATE, started, now)


def test_a_circuit_opens_after_enough_requests_and_enough_time():
    breaker = CircuitBreaker()
    silent(breaker, N_SILENT - 1, 0.0, SILENT_S)
    assert breaker.refuse(HOST, SILENT_S) is None
    silent(breaker, 1, SILENT_S, SILENT_S)
    assert breaker.refuse(HOST, SILENT_S) == Failure(
        "fetch_timeout", f"not requested: {HOST} did not respond to the last {N_SILENT} requests ({LATE.detail})"
    )
    breaker = CircuitBreaker()
    silent(breaker, 10 * N_SILENT, 0.0, SILENT_S - 0.1)
    assert breaker.refuse(HOST, SILENT_S) is None
    assert breaker.refuse("http://other:80", SILENT_S) is None


def test_a_response_closes_the_circuit():
    breaker = CircuitBreaker()
    silent(breaker, N_SILENT, 0.0, SILENT_S)
    assert breaker.is_open(HOST, SILENT_S)
    breaker.respond(HOST)
    assert not breaker.is_open(HOST, SILENT_S)
    silent(breaker, N_SILENT - 1, 0.0, 2 * SILENT_S)
    assert breaker.refuse(HOST, 2 * SILENT_S) is None


def test_a_half_open_circuit_allows_one_request_at_a_time():
    breaker = CircuitBreaker()
    silent(breaker, N_SILENT, 0.0, SILENT_S)
    later = SILENT_S + OPEN_S
    assert breaker.refuse(HOST, later - 0.1) is not None
    assert not breaker.is_half_open(HOST, later - 0.1)
    assert breaker.refuse(HOST, later) is None
    assert breaker.is_half_open(HOST, later)
    silent(breaker, 1, later, later + 1)
    assert breaker.refuse(HOST, later + OPEN_S) is not None
    assert breaker.is_half_open(HOST, later + 1 + OPEN_S)
    breaker.respond(HOST)
    assert not breaker.is_half_open(HOST, later + 1 + OPEN_S)


def test_the_number_of_recorded_hosts_is_bounded():
    breaker = CircuitBreaker()
    for number in range(20_000):
        silent(breaker, 1, 0.0, 1.0, f"http://h{number}:80")
    assert len(breaker._silences) < 5_000


def test_credentials_are_not_shown():
    breaker = CircuitBreaker()
    silent(breaker, N_SILENT, 0.0, SILENT_S, "s3://key:secret@bucket")
    assert "secret" not in breaker.refuse("s3://key:secret@bucket", SILENT_S).detail
