"""Circuit breaker for hosts, so that the rows of a host that does not respond fail without a timeout each."""

from collections import OrderedDict
from typing import Final, NamedTuple

from imgmatch_df.errors import Failure
from imgmatch_df.sources import describe

N_SILENT: Final = 8
SILENT_S: Final = 10.0
OPEN_S: Final = 30.0
_MAX_HOSTS: Final = 4096


class _Silence(NamedTuple):
    n_requests: int
    since: float
    open_until: float  # 0 while the circuit is closed
    last: Failure


class CircuitBreaker:
    """The hosts that recently sent no complete response. Used on one thread.

    The circuit of a host opens when at least 8 requests in a row, over at least 10 seconds, had no complete response:
    there was no connection, or it ended or timed out before the last byte. The circuit is open for 30 seconds, during
    which no request is sent to the host. Then it is half-open, and one request at a time is sent: a response closes the
    circuit, a request without a response opens it again.
    """

    def __init__(self) -> None:
        self._silences: OrderedDict[str, _Silence] = OrderedDict()

    def respond(self, host: str) -> None:
        """Record a complete response of `host`, of any status."""
        self._silences.pop(host, None)

    def fail(self, host: str, failure: Failure, started: float, now: float) -> None:
        """Record a request to `host` that had no complete response.

        Parameters
        ----------
        host
            Scheme, host and port.
        failure
            Result of the row of the request, without another attempt.
        started, now
            Time when the request was started, and current time, in seconds.
        """
        before = self._silences.pop(host, None)
        n_requests = 1 if before is None else before.n_requests + 1
        since = started if before is None else min(before.since, started)
        is_open = n_requests >= N_SILENT and now - since >= SILENT_S
        self._silences[host] = _Silence(n_requests, since, now + OPEN_S if is_open else 0.0, failure)
        if len(self._silences) > _MAX_HOSTS:
            self._silences.popitem(last=False)

    def is_open(self, host: str, now: float) -> bool:
        """Return whether no request may be sent to `host`."""
        silence = self._silences.get(host)
        return silence is not None and now < silence.open_until

    def is_half_open(self, host: str, now: float) -> bool:
        """Return whether one request at a time may be sent to `host`."""
        silence = self._silences.get(host)
        return silence is not None and 0 < silence.open_until <= now

    def refuse(self, host: str, now: float) -> Failure | None:
        """Return why a row of `host` fails without a request, None if its request may start."""
        silence = self._silences.get(host)
        if silence is None or now >= silence.open_until:
            return None
        return Failure(
            silence.last.status,
            f"not requested: {describe(host)} did not respond to the last {silence.n_requests:,} requests"
            f" ({silence.last.detail})",
        )
