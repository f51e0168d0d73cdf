"""The retry policy, as tables."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from imgmatch_df.errors import Failure
from imgmatch_df.fetching import retry
from imgmatch_df.fetching.retry import (
    Retryable,
    RetryPolicy,
    final_failure,
    is_retriable_status,
    is_transient,
    next_wait,
    parse_retry_after,
)

FAILURE = Failure("fetch_failed", "HTTP 503")
DOWN = Retryable(FAILURE)


@pytest.fixture(autouse=True)
def without_jitter(monkeypatch):
    monkeypatch.setattr(retry, "POLICY", RetryPolicy(first_wait_s=0.5, max_doublings=4, min_jitter=1.0))


@pytest.mark.parametrize(
    ("failure", "n_attempts", "changes", "wait_s"),
    [
        # The wait doubles, up to `max_doublings`, then up to `timeout_s`.
        (DOWN, 1, {}, 0.5),
        (DOWN, 2, {}, 1.0),
        (DOWN, 3, {}, 2.0),
        (DOWN, 5, {}, 8.0),
        (DOWN, 6, {}, 8.0),
        (DOWN, 5, {"timeout_s": 3}, 3.0),
        (DOWN, 1, {"timeout_s": 0.1}, 0.5),
        # The number of attempts.
        (DOWN, 9, {}, 8.0),
        (DOWN, 10, {}, None),
        (DOWN, 1, {"max_attempts": 1}, None),
        # Retry-After, while it is at most `timeout_s`.
        (Retryable(FAILURE, wait_s=0.0), 1, {}, 0.5),
        (Retryable(FAILURE, wait_s=7.0), 1, {}, 7.0),
        (Retryable(FAILURE, wait_s=20.0), 1, {}, 20.0),
        (Retryable(FAILURE, wait_s=20.1), 1, {}, None),
        (Retryable(FAILURE, wait_s=0.4), 1, {"timeout_s": 0.1}, 0.5),
        # Failures that another attempt would repeat, and hosts that do not respond.
        (FAILURE, 1, {}, None),
        (Failure("fetch_timeout", "…"), 1, {}, None),
        (DOWN, 1, {"is_host_down": True}, None),
    ],
)
def test_next_wait(failure, n_attempts, changes, wait_s):
    options = {"max_attempts": 10, "timeout_s": 20.0, "is_host_down": False}
    assert next_wait(failure, n_attempts, **{**options, **changes}) == wait_s


def test_the_jitter_is_between_half_and_all_of_the_wait(monkeypatch):
    monkeypatch.setattr(retry, "POLICY", RetryPolicy())
    waits = [next_wait(DOWN, 3, max_attempts=9, timeout_s=30, is_host_down=False) for _ in range(300)]
    assert all(1.0 <= wait_s <= 2.0 for wait_s in waits)
    assert max(waits) - min(waits) > 0.5


def test_the_wait_after_many_attempts_is_finite():
    assert next_wait(DOWN, 10**9, max_attempts=2 * 10**9, timeout_s=20, is_host_down=False) == 8.0


@pytest.mark.parametrize(
    ("failure", "n_attempts", "detail"),
    [
        (FAILURE, 1, "HTTP 503 after 1 attempt"),
        (DOWN, 3, "HTTP 503 after 3 attempts"),
        (Retryable(FAILURE, wait_s=3600.0), 1, "HTTP 503, Retry-After 3,600 s, after 1 attempt"),
        (Retryable(FAILURE, wait_s=3600.0), 3, "HTTP 503 after 3 attempts"),
        (Failure("not_found", "HTTP 404"), 1, "HTTP 404 after 1 attempt"),
        (Retryable(Failure("fetch_timeout", "no connection")), 2, "no connection after 2 attempts"),
        (Failure("fetch_blocked", "blocked: …"), 1, "blocked: …"),
        (Failure("too_many_bytes", "9 bytes"), 1, "9 bytes"),
        (Failure("bad_source", "not a URL"), 1, "not a URL"),
        (Failure("missing", "zero bytes"), 2, "zero bytes"),
    ],
)
def test_final_failure(failure, n_attempts, detail):
    found = final_failure(failure, n_attempts, max_attempts=3)
    assert found == Failure((failure.failure if isinstance(failure, Retryable) else failure).status, detail)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 520, 599, 600, 999])
def test_retriable_statuses(status):
    assert is_retriable_status(status)


@pytest.mark.parametrize("status", [0, 101, 200, 204, 206, 304, 400, 401, 403, 404, 408, 410, 425, 451])
def test_other_statuses(status):
    assert not is_retriable_status(status)


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("9" * 40, 999_999_999.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00", 0.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after(text, wait_s):
    assert parse_retry_after(text) == wait_s


def test_retry_after_a_date():
    text = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < parse_retry_after(text) <= 100


class SlowDown(Exception):  # the name of botocore
    pass


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionResetError(), True),
        (OSError(5, "Input/output error"), True),
        (SlowDown(), True),
        (type("ReadTimeoutError", (Exception,), {})(), True),
        (type("EndpointConnectionError", (Exception,), {})(), True),
        (type("ThrottlingException", (Exception,), {})(), True),
        (type("TooManyRequestsError", (Exception,), {})(), True),
        (ValueError("timeout"), False),
        (type("NoCredentialsError", (Exception,), {})(), False),
    ],
)
def test_transient_errors(error, expected):
    assert is_transient(error) is expected
