"""What is under way over the network: one event loop, in a thread of its own, for the whole process.

Each batch hands over its addresses and is told of each answer once. A request starts when there is a free connection,
to its host and in all, and room for what it brings; one that has to be tried again leaves its connection meanwhile.
"""

import asyncio
import atexit
import os
import random
import re
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from imgmatch_df.errors import Failure, Setback
from imgmatch_df.fetching.byte_budget import Claim, Memory
from imgmatch_df.fetching.circuit_breaker import CircuitBreaker
from imgmatch_df.fetching.urls import origin_of
from imgmatch_df.options import Options
from imgmatch_df.sources import Fetched, refused_scheme

if TYPE_CHECKING:
    from imgmatch_df.fetching.http import WebClient
    from imgmatch_df.fetching.object_store import CloudClient

_BACKOFF_S: Final = 0.5
_WITH_ATTEMPTS: Final = ("not_found", "fetch_timeout", "fetch_failed")
_BUCKET: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/\\?#]*")
_HTTP: Final = re.compile("https?:", re.IGNORECASE)
# A batch whose requests all wait for slow hosts holds up no other: a quarter of the connections is for batches that
# have fewer requests than these in flight.
_N_RESERVED: Final = 4
# Rows that fail at once take 20 us each: 100,000 of them would hold up all requests for 2 s.
_REFUSED_AT_A_TIME: Final = 200
# On Windows the loop watches at most 512 sockets (select), and it has some of its own.
_MAX_OPEN: Final = 480 if sys.platform == "win32" else sys.maxsize
_CLOSE_WITHIN_S: Final = 5.0  # milliseconds, unless the machine is busy

Answer: TypeAlias = Fetched | Failure
# Told in the loop's thread, once for each address: its position, and the answer; None where the caller has stopped it;
# an exception where we have a bug. The release gives back the bytes of a `Fetched`.
Arrived: TypeAlias = Callable[[int, Answer | BaseException | None, Callable[[], None]], None]


class Attempt(Protocol):
    """An attempt to fetch one address, under way."""

    def cancel(self) -> object:
        """Give up: it lands with None."""


class Download:
    """The addresses of one batch. After it has been started, the thread of the loop has it.

    Parameters
    ----------
    urls
        Addresses, in the order of their rows.
    options
        Those of `Options` that are about fetching.
    arrived
        Called with each answer; must return at once.
    """

    def __init__(self, urls: Sequence[str], options: Options, arrived: Arrived) -> None:
        self.options = options
        self.n_open = len(urls)
        self._urls = urls
        self._arrived = arrived
        self._n_attempts: Counter[int] = Counter()
        self._queues: dict[str, deque[int]] = {}
        self._hosts: list[str] = []
        self._ready: deque[str] = deque()
        self._full: set[str] = set()
        self.n_in_flight = 0
        self.under_way: dict[int, Attempt | asyncio.TimerHandle] = {}
        for position, url in enumerate(urls):
            host = origin_of(url) if _HTTP.match(url) else found[0] if (found := _BUCKET.match(url)) else ""
            self._hosts.append(host)
            self._queues.setdefault(host, deque()).append(position)
        self._ready.extend(self._queues)

    def url(self, position: int) -> str:
        """Return an address."""
        return self._urls[position]

    def host(self, position: int) -> str:
        """Return the scheme, host and port of an address, as its connections are counted."""
        return self._hosts[position]

    def take(self, n_open_to: Counter[str], circuits: CircuitBreaker, now: float) -> int | None:
        """Return the next position whose host has a connection free, the hosts in turn; None where there is none."""
        while self._ready:
            host = self._ready.popleft()
            if n_open_to[host] >= (1 if circuits.is_half_open(host, now) else self.options.n_connections_per_host):
                self._full.add(host)
                continue
            queue = self._queues[host]
            position = queue.popleft()
            if queue:
                self._ready.append(host)
            return position
        return None

    def put_back(self, position: int) -> None:
        """Let an address have another attempt, before those of its host that had none."""
        host = self._hosts[position]
        self._queues[host].appendleft(position)
        if len(self._queues[host]) == 1:
            self._ready.append(host)

    def free(self, host: str) -> None:
        """Say that a connection to `host` has become free."""
        if host in self._full:
            self._full.discard(host)
            if self._queues[host]:
                self._ready.append(host)

    def count_attempt(self, position: int) -> int:
        """Return how many attempts an address has had, this one included."""
        self._n_attempts[position] += 1
        return self._n_attempts[position]

    def was_attempted(self, position: int) -> bool:
        """Return whether an address has had an attempt."""
        return position in self._n_attempts

    def drop_queued(self, after: int) -> list[int]:
        """Forget the addresses behind the position `after` that wait for a connection, and return them."""
        dropped = []
        for queue in self._queues.values():
            dropped += [position for position in queue if position > after]
            kept = [position for position in queue if position <= after]
            queue.clear()
            queue.extend(kept)
        self._ready = deque(host for host in self._ready if self._queues[host])
        return dropped

    def answer(
        self, position: int, answer: Answer | BaseException | None, release: Callable[[], None] = lambda: None
    ) -> None:
        """Tell the batch."""
        self.n_open -= 1
        self._arrived(position, answer, release)


class Network:
    """The event loop, its thread, and everything that is under way in it."""

    def __init__(self) -> None:
        self._loop = asyncio.SelectorEventLoop()  # Windows has another one, which watches no file descriptors
        self._downloads: deque[Download] = deque()
        self._memory = Memory(self._call_back)
        self._circuits = CircuitBreaker()
        self._n_open = 0
        self._goes_on = False
        self._n_open_to: Counter[str] = Counter()
        self._web: WebClient | None = None
        self._cloud: CloudClient | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="imgmatch-network")
        self._thread.start()

    # --- from any thread ---------------------------------------------------------------------------------------------

    def start(self, download: Download) -> None:
        """Begin a download."""
        import imgmatch_df.fetching.http  # noqa: F401  # in this thread, which can be told what goes wrong with it

        self._loop.call_soon_threadsafe(self._add, download)

    def stop(self, download: Download, after: int = -1) -> None:
        """Give up the addresses of a download whose position is beyond `after`; they are answered with None."""
        with suppress(RuntimeError):  # closed, and everything given up
            self._loop.call_soon_threadsafe(self._stop, download, after)

    def close(self) -> None:
        """Give up what is under way, close the connections and end the thread."""
        done = asyncio.run_coroutine_threadsafe(self._close(), self._loop)
        with suppress(TimeoutError):
            done.result(_CLOSE_WITHIN_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_WITHIN_S)
        if not self._thread.is_alive():
            self._loop.close()

    # --- in the loop's thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _add(self, download: Download) -> None:
        self._downloads.append(download)
        self._feed()

    def _feed(self) -> None:
        """Start whatever may start now, one request of each batch in turn."""
        if self._goes_on:
            return
        n_idle = n_refused = 0
        while n_idle < len(self._downloads):
            if n_refused == _REFUSED_AT_A_TIME:
                self._goes_on = True
                self._loop.call_soon(self._go_on)
                return
            download = self._downloads[0]
            self._downloads.rotate(-1)
            position = self._next(download)
            if position is None:
                n_idle += 1
            else:
                n_idle = 0
                n_refused += not self._begin(download, position)

    def _go_on(self) -> None:
        self._goes_on = False
        self._feed()

    def _next(self, download: Download) -> int | None:
        options = download.options
        most = min(options.n_connections, _MAX_OPEN)
        if download.n_in_flight >= _N_RESERVED:
            most -= most // 4
        if self._n_open >= most or not self._memory.has_room(options.max_bytes_in_flight):
            return None
        return download.take(self._n_open_to, self._circuits, self._loop.time())

    def _begin(self, download: Download, position: int) -> bool:
        """Start a request, or let its row fail; return whether it was started."""
        url, host, now = download.url(position), download.host(position), self._loop.time()
        refused = refused_scheme(url.partition(":")[0], download.options.schemes)
        if refused is None and not download.was_attempted(position):
            refused = self._circuits.refuse(host, now)
        if refused is not None:
            self._answer(download, position, refused)
            return False
        self._n_open += 1
        self._n_open_to[host] += 1
        download.n_in_flight += 1
        claim = self._memory.claim(download.options.max_bytes_in_flight)
        landed = partial(self._landed, download, position, claim, now)
        try:
            client = self._web_client() if _HTTP.match(url) else self._cloud_client()
            download.under_way[position] = client.start(url, download.options, claim, landed)
        except Exception as error:  # noqa: BLE001  # a bug of ours, raised again where the batch is waited for
            self._loop.call_soon(landed, error)
        return True

    def _cloud_client(self) -> "CloudClient":
        if self._cloud is None:
            from imgmatch_df.fetching.object_store import CloudClient

            self._cloud = CloudClient(self._loop)
        return self._cloud

    def _web_client(self) -> "WebClient":
        if self._web is None:
            from imgmatch_df.fetching.http import WebClient

            self._web = WebClient(self._loop, self._circuits)
        return self._web

    def _landed(
        self,
        download: Download,
        position: int,
        claim: Claim,
        started: float,
        outcome: Answer | Setback | BaseException | None,
    ) -> None:
        download.under_way.pop(position, None)
        host = download.host(position)
        silent = None
        if isinstance(outcome, Setback) and not outcome.responded:
            silent = outcome.host or host
            self._circuits.fail(silent, outcome.failure, started, self._loop.time())
        if silent != host and isinstance(outcome, Fetched | Failure | Setback):
            self._circuits.respond(host)
        self._n_open -= 1
        download.n_in_flight -= 1
        self._n_open_to[host] -= 1
        if not self._n_open_to[host]:
            del self._n_open_to[host]
        for other in self._downloads:
            other.free(host)
        if isinstance(outcome, Fetched):
            claim.arrive()
            self._answer(download, position, outcome, claim.release)
        else:
            claim.drop()
            if isinstance(outcome, Failure | Setback):
                self._judge(download, position, outcome)
            else:
                self._answer(download, position, outcome)
        self._feed()

    def _judge(self, download: Download, position: int, outcome: Failure | Setback) -> None:
        """Try again, or let the row fail."""
        n_attempts = download.count_attempt(position)
        if isinstance(outcome, Setback):
            options = download.options
            longest_s = max(options.timeout_s, _BACKOFF_S)
            asked_s = outcome.wait_s or 0.0
            is_silent = self._circuits.is_open(outcome.host or download.host(position), self._loop.time())
            if n_attempts < options.attempts and asked_s <= longest_s and not is_silent:
                # Jitter, or all that failed together come back together.
                own_s = _BACKOFF_S * 2.0 ** min(n_attempts - 1, 16) * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
                wait_s = max(asked_s, min(own_s, longest_s))
                download.under_way[position] = self._loop.call_later(wait_s, self._again, download, position)
                return
            outcome = _last_failure(outcome, n_attempts, options)
        if outcome.status in _WITH_ATTEMPTS:
            plural = "s" * (n_attempts > 1)
            outcome = outcome._replace(detail=f"{outcome.detail} after {n_attempts} attempt{plural}")
        self._answer(download, position, outcome)

    def _again(self, download: Download, position: int) -> None:
        del download.under_way[position]
        download.put_back(position)
        self._feed()

    def _answer(
        self,
        download: Download,
        position: int,
        answer: Answer | BaseException | None,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        if download.n_open == 1:
            self._downloads.remove(download)
        download.answer(position, answer, release)

    def _call_back(self) -> None:
        with suppress(RuntimeError):  # closed
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._memory.wake()
        self._feed()

    def _stop(self, download: Download, after: int) -> None:
        for position in download.drop_queued(after):
            self._answer(download, position, None)
        for position, waiting in list(download.under_way.items()):
            if position <= after:
                continue
            waiting.cancel()
            if isinstance(waiting, asyncio.TimerHandle):
                del download.under_way[position]
                self._answer(download, position, None)

    async def _close(self) -> None:
        for download in list(self._downloads):
            self._stop(download, -1)
        while self._n_open:
            await asyncio.sleep(0.01)
        if self._web is not None:
            self._web.close()


def fetch(url: str, options: Options) -> Answer:
    """Return what one address gives; the calling thread waits."""
    result: Future[Answer] = Future()

    def arrived(_position: int, answer: Answer | BaseException | None, release: Callable[[], None]) -> None:
        if isinstance(answer, tuple):
            result.set_result(answer)
        else:
            result.set_exception(answer or InterruptedError("the network has been closed"))
        release()

    network().start(Download([url], options, arrived))
    return result.result()


def network() -> Network:
    """Return the one of this process; it is made when it is needed first, and anew in a forked child."""
    global _network
    with _lock:
        if _network is None:
            _network = Network()
        return _network


def _last_failure(setback: Setback, n_attempts: int, options: Options) -> Failure:
    failure = setback.failure
    if setback.wait_s is not None and n_attempts < options.attempts:
        failure = failure._replace(detail=f"{failure.detail}, which asks to wait {setback.wait_s:,.0f} s,")
    return failure


_lock = threading.Lock()
_network: Network | None = None
_parents: Final[list[Network]] = []  # kept, since destroying them would close what the parent uses


def _close_at_exit() -> None:
    global _network
    with _lock:
        closing, _network = _network, None
    if closing is not None:
        closing.close()


def _leave_to_parent() -> None:
    global _lock, _network
    _lock = threading.Lock()
    if _network is not None:
        _parents.append(_network)
    _network = None


atexit.register(_close_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
