"""Retry policy: which failed attempts are repeated, and after how long.

All rules are in this module: transports only report failures, and the scheduler only waits.
"""

import random
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

from imgmatch_df.errors import Failure


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Numbers of the policy. The maximum number of attempts and the timeout are options of the caller.

    Parameters
    ----------
    first_wait_s
        Maximum wait before the second attempt, in seconds; it doubles with each further attempt.
    max_doublings
        Maximum number of doublings.
    min_jitter
        Minimum fraction of the wait that is used. The fraction is random, so that requests that failed together are
        not repeated together.
    http_statuses
        HTTP statuses after which a request is repeated.
    """

    first_wait_s: float = 0.5
    max_doublings: int = 16
    min_jitter: float = 0.5
    http_statuses: frozenset[int] = frozenset((429, *range(500, 1000)))


POLICY = RetryPolicy()

# Exceptions of fsspec's filesystems that are not an OSError, by their names: botocore and others define their own.
_TRANSIENT_NAME: Final = re.compile("connect|timeout|slowdown|throttl|toomany", re.IGNORECASE)
_STATUSES_WITH_ATTEMPTS: Final = ("not_found", "fetch_timeout", "fetch_failed")


class Retryable(NamedTuple):
    """Failure of one attempt, after which another attempt may succeed.

    Parameters
    ----------
    failure
        Result of the row if there is no other attempt.
    wait_s
        Wait that the server requests, in seconds; None if it requests none.
    responded
        Whether the server sent a complete response, of any status.
    host
        Scheme, host and port of the server, if a redirect led to another server than that of the URL.
    """

    failure: Failure
    wait_s: float | None = None
    responded: bool = True
    host: str | None = None


def next_wait(
    failure: Failure | Retryable, n_attempts: int, *, max_attempts: int, timeout_s: float, is_host_down: bool
) -> float | None:
    """Return the seconds to wait before the next attempt, None if there is none.

    Parameters
    ----------
    failure
        Outcome of the last attempt.
    n_attempts
        Attempts so far, at least 1.
    max_attempts
        The option `attempts`.
    timeout_s
        The option `timeout_s`. If the server requests a longer wait, there is no other attempt.
    is_host_down
        Whether the circuit breaker refuses requests to the host.
    """
    if not isinstance(failure, Retryable) or n_attempts >= max_attempts or is_host_down:
        return None
    max_wait_s = max(timeout_s, POLICY.first_wait_s)
    requested_s = failure.wait_s or 0.0
    if requested_s > max_wait_s:
        return None
    jitter = random.uniform(POLICY.min_jitter, 1.0)  # noqa: S311  # not a secret
    backoff_s = POLICY.first_wait_s * 2.0 ** min(n_attempts - 1, POLICY.max_doublings) * jitter
    return max(requested_s, min(backoff_s, max_wait_s))


def final_failure(failure: Failure | Retryable, n_attempts: int, max_attempts: int) -> Failure:
    """Return the result of a row after its last attempt; its detail names the number of attempts."""
    if isinstance(failure, Retryable):
        wait_s, failure = failure.wait_s, failure.failure
        if wait_s is not None and n_attempts < max_attempts:
            failure = failure._replace(detail=f"{failure.detail}, Retry-After {wait_s:,.0f} s,")
    if failure.status not in _STATUSES_WITH_ATTEMPTS:
        return failure
    plural = "s" * (n_attempts > 1)
    return failure._replace(detail=f"{failure.detail} after {n_attempts} attempt{plural}")


def is_retriable_status(status: int) -> bool:
    """Return whether a request is repeated after the HTTP status."""
    return status in POLICY.http_statuses


def parse_retry_after(text: str) -> float | None:
    """Return the seconds that a Retry-After header requests: a number or an HTTP date; None if it is neither."""
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def is_transient(error: Exception) -> bool:
    """Return whether the next attempt may succeed after an exception of a client library."""
    return isinstance(error, OSError) or _TRANSIENT_NAME.search(type(error).__name__) is not None
