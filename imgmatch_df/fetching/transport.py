"""Transport interface: the client that fetches the URLs of a scheme, as the scheduler uses it."""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Final, Protocol, TypeAlias, cast

from imgmatch_df.errors import Failure
from imgmatch_df.fetching.byte_budget import Claim
from imgmatch_df.fetching.circuit_breaker import CircuitBreaker
from imgmatch_df.fetching.retry import Retryable
from imgmatch_df.options import Options
from imgmatch_df.schemes import transport_path
from imgmatch_df.sources import Fetched

Outcome: TypeAlias = Fetched | Failure | Retryable
# Callback, run on the loop thread exactly once per attempt and never from within `start`: the outcome; None if the
# attempt was cancelled; an exception for a bug, which is raised again in the thread that waits for the batch.
OnDone: TypeAlias = Callable[[Outcome | BaseException | None], None]

_ORIGIN: Final = re.compile(r"[^:]*://[^/\\?#]*")


class Attempt(Protocol):
    """One attempt to fetch one URL, in flight."""

    def cancel(self) -> object:
        """Cancel the attempt: its callback gets None."""


class Transport(Protocol):
    """Client that fetches URLs of one or more schemes. Made, used and closed on the thread of one event loop.

    Parameters
    ----------
    loop
        Event loop of the scheduler.
    circuits
        Hosts that do not respond; for transports that follow redirects.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, circuits: CircuitBreaker) -> None: ...

    @staticmethod
    def origin_of(url: str) -> str:
        """Return the host of a URL, by which connections and failures to respond are counted."""

    def start(self, url: str, options: Options, claim: Claim, on_done: OnDone) -> Attempt:
        """Start one attempt to fetch a URL; return at once.

        Parameters
        ----------
        url
            The text of the column, without surrounding white space.
        options
            The transport applies `timeout_s`, `max_bytes` and `allow_private_networks`.
        claim
            Part of the byte budget; the transport takes each piece of the body from it before it keeps the piece.
        on_done
            Callback for the outcome.
        """

    def close(self) -> None:
        """Close all connections. No attempt is in flight."""


class TaskTransport(ABC):
    """Base class of transports whose attempt is one coroutine: a subclass defines `fetch`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, circuits: CircuitBreaker) -> None:
        self._loop = loop
        self._circuits = circuits

    @staticmethod
    def origin_of(url: str) -> str:
        """Return scheme and host: the text before the first slash of the path."""
        found = _ORIGIN.match(url)
        return found[0] if found else ""

    def start(self, url: str, options: Options, claim: Claim, on_done: OnDone) -> asyncio.Task[Outcome]:
        """Start one attempt to fetch a URL; see `Transport.start`."""
        task = self._loop.create_task(self._attempt(url, options, claim))
        task.add_done_callback(lambda task: on_done(None if task.cancelled() else task.exception() or task.result()))
        return task

    def close(self) -> None:  # noqa: B027  # a subclass without connections has nothing to close
        """Close all connections."""

    @abstractmethod
    async def fetch(self, url: str, options: Options, claim: Claim, clock: asyncio.Timeout) -> Outcome:
        """Return the image at a URL, or why there is none.

        Parameters
        ----------
        url, options, claim
            See `Transport.start`. The timeout is applied by the caller.
        clock
            For ``await claim.wait_and_take(n_bytes, clock)``: waiting for the byte budget does not count as time.
        """

    async def _attempt(self, url: str, options: Options, claim: Claim) -> Outcome:
        try:
            async with asyncio.timeout(options.timeout_s) as clock:
                return await self.fetch(url, options, claim, clock)
        except TimeoutError:
            return no_response_in_time(options)


def no_response_in_time(options: Options) -> Retryable:
    """Return the outcome of an attempt that exceeded `timeout_s`."""
    return Retryable(Failure("fetch_timeout", f"no complete response within {options.timeout_s:g} s"), responded=False)


def load_transport(scheme: str) -> type[Transport]:
    """Return the class of the transport for a scheme in lower case; import it if needed."""
    return _load(transport_path(scheme))


@cache
def _load(path: str) -> type[Transport]:
    module, _, name = path.partition(":")
    return cast("type[Transport]", getattr(import_module(module), name))
