"""Download scheduler: one event loop in a dedicated thread, shared by the whole process.

Each batch passes its URLs and gets one callback per URL. A request starts when its host and the process have a free
connection and the byte budget has room. Between two attempts a URL occupies no connection.
"""

import asyncio
import atexit
import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Final, TypeAlias

from imgmatch_df.errors import Failure
from imgmatch_df.fetching.byte_budget import ByteBudget, Claim
from imgmatch_df.fetching.circuit_breaker import CircuitBreaker
from imgmatch_df.fetching.pace import HostPace, pace_of
from imgmatch_df.fetching.retry import Retryable, final_failure, next_wait
from imgmatch_df.fetching.transport import Attempt, Outcome, Transport, load_transport
from imgmatch_df.http_options import DEFAULT_PORTS
from imgmatch_df.options import Options
from imgmatch_df.schemes import refused_scheme, scheme_of
from imgmatch_df.sources import Fetched

# A quarter of the connections is reserved for batches with fewer requests in flight than these, so that a batch whose
# requests all wait for slow hosts does not delay the others.
_N_RESERVED: Final = 4
# A row that fails without a request takes 20 us: 100,000 of them in a row would delay all requests by 2 s.
_MAX_REFUSED_AT_ONCE: Final = 200
# On Windows the loop watches at most 512 sockets (select), some of which it needs itself.
_MAX_CONNECTIONS: Final = 480 if sys.platform == "win32" else sys.maxsize
_MAX_CLOSE_S: Final = 5.0  # closing takes milliseconds, unless the machine is busy

Result: TypeAlias = Fetched | Failure
# Callback, run on the loop thread exactly once per URL: index, result, release. The result is None if the caller
# cancelled, an exception for a bug. `release` returns the bytes of a `Fetched` to the byte budget.
OnResult: TypeAlias = Callable[[int, Result | BaseException | None, Callable[[], None]], None]


class Download:
    """The URLs of one batch. After `Scheduler.start`, only the loop thread uses it.

    Parameters
    ----------
    urls
        URLs, in the order of their rows.
    options
        Options of fetching.
    on_result
        Callback for each result; must return at once.
    """

    def __init__(self, urls: Sequence[str], options: Options, on_result: OnResult) -> None:
        self.options = options
        self.n_pending = len(urls)
        self.n_in_flight = 0
        # By index: the attempt, or the timer until the next attempt.
        self.in_flight: dict[int, Attempt | asyncio.TimerHandle] = {}
        self._urls = urls
        self._on_result = on_result
        self._n_attempts: Counter[int] = Counter()
        self._queues: dict[str, deque[int]] = {}
        self._hosts: list[str] = []
        self._ready: deque[str] = deque()
        self._full: set[str] = set()
        self._early: set[str] = set()  # hosts whose next request must wait for `min_interval_s`
        for index, url in enumerate(urls):
            # On the thread of the caller, which can raise the error of an import.
            host = load_transport(scheme_of(url)).origin_of(url)
            self._hosts.append(host)
            self._queues.setdefault(host, deque()).append(index)
        self._ready.extend(self._queues)

    def url(self, index: int) -> str:
        """Return a URL."""
        return self._urls[index]

    def host(self, index: int) -> str:
        """Return scheme, host and port of a URL, by which connections are counted."""
        return self._hosts[index]

    def take(
        self,
        n_connections_to: Counter[str],
        circuits: CircuitBreaker,
        pace: HostPace,
        now: float,
        on_early: Callable[[str, float], None],
    ) -> int | None:
        """Return the next index whose host has a free connection, the hosts in turn; None if there is none.

        Parameters
        ----------
        n_connections_to
            Connections by host.
        circuits
            Hosts that do not respond.
        pace
            Times of the requests to hosts.
        now
            Time of the loop.
        on_early
            Callback for a host whose next request must wait, and the time of it; then `resume` must be called.
        """
        interval_s = self.options.min_interval_s
        while self._ready:
            host = self._ready.popleft()
            if interval_s and (start := pace.next_start(host, interval_s)) > now:
                self._early.add(host)
                on_early(host, start)
                continue
            limit = 1 if circuits.is_half_open(host, now) else self.options.n_connections_per_host
            if n_connections_to[host] >= limit:
                self._full.add(host)
                continue
            queue = self._queues[host]
            index = queue.popleft()
            if queue:
                self._ready.append(host)
            return index
        return None

    def put_back(self, index: int) -> None:
        """Queue a URL for its next attempt, before the URLs of its host that had none."""
        host = self._hosts[index]
        self._queues[host].appendleft(index)
        if len(self._queues[host]) == 1:
            self._ready.append(host)

    def free(self, host: str) -> None:
        """Record that a connection to `host` has become free."""
        if host in self._full:
            self._full.discard(host)
            if self._queues[host]:
                self._ready.append(host)

    def resume(self, host: str) -> None:
        """Record that the time of the next request to `host` may have come."""
        if host in self._early:
            self._early.discard(host)
            if self._queues[host]:
                self._ready.append(host)

    def count_attempt(self, index: int) -> int:
        """Count an attempt of a URL; return the number of its attempts."""
        self._n_attempts[index] += 1
        return self._n_attempts[index]

    def was_attempted(self, index: int) -> bool:
        """Return whether a URL has had an attempt."""
        return index in self._n_attempts

    def drop_queued(self, after: int) -> list[int]:
        """Remove the queued URLs with an index greater than `after`, and return their indices."""
        dropped = []
        for queue in self._queues.values():
            dropped += [index for index in queue if index > after]
            kept = [index for index in queue if index <= after]
            queue.clear()
            queue.extend(kept)
        self._ready = deque(host for host in self._ready if self._queues[host])
        # `put_back` makes a host ready whose queue is empty, so it must not be made ready again.
        self._full = {host for host in self._full if self._queues[host]}
        self._early = {host for host in self._early if self._queues[host]}
        return dropped

    def deliver(
        self, index: int, result: Result | BaseException | None, release: Callable[[], None] = lambda: None
    ) -> None:
        """Call the callback of the batch."""
        self.n_pending -= 1
        self._on_result(index, result, release)


class Scheduler:
    """The event loop, its thread, and all downloads in it."""

    def __init__(self) -> None:
        self._loop = asyncio.SelectorEventLoop()  # the default of Windows cannot watch file descriptors
        self._downloads: deque[Download] = deque()
        self._budget = ByteBudget(self._on_room)
        self._circuits = CircuitBreaker()
        self._pace = pace_of(self._loop)
        self._pace_timers: dict[str, asyncio.TimerHandle] = {}
        self._n_connections = 0
        self._n_connections_to: Counter[str] = Counter()
        self._will_continue = False
        self._transports: dict[type[Transport], Transport] = {}
        self._thread = threading.Thread(target=self._run, daemon=True, name="imgmatch-network")
        self._thread.start()

    # --- any thread --------------------------------------------------------------------------------------------------

    def start(self, download: Download) -> None:
        """Start a download."""
        self._loop.call_soon_threadsafe(self._add, download)

    def stop(self, download: Download, after: int = -1) -> None:
        """Cancel the URLs of a download with an index greater than `after`; their result is None."""
        with suppress(RuntimeError):  # the loop is closed, and everything is cancelled
            self._loop.call_soon_threadsafe(self._stop, download, after)

    def close(self) -> None:
        """Cancel all downloads, close the connections and end the thread."""
        done = asyncio.run_coroutine_threadsafe(self._close(), self._loop)
        with suppress(TimeoutError):
            done.result(_MAX_CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_MAX_CLOSE_S)
        if not self._thread.is_alive():
            self._loop.close()

    # --- loop thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _add(self, download: Download) -> None:
        self._downloads.append(download)
        self._feed()

    def _feed(self) -> None:
        """Start all requests that can start now, one of each batch in turn."""
        if self._will_continue:
            return
        n_idle = n_refused = 0
        while n_idle < len(self._downloads):
            if n_refused == _MAX_REFUSED_AT_ONCE:
                self._will_continue = True
                self._loop.call_soon(self._continue)
                return
            download = self._downloads[0]
            self._downloads.rotate(-1)
            index = self._next(download)
            if index is None:
                n_idle += 1
            else:
                n_idle = 0
                n_refused += not self._start_attempt(download, index)

    def _continue(self) -> None:
        self._will_continue = False
        self._feed()

    def _next(self, download: Download) -> int | None:
        options = download.options
        max_connections = min(options.n_connections, _MAX_CONNECTIONS)
        if download.n_in_flight >= _N_RESERVED:
            max_connections -= max_connections // 4
        if self._n_connections >= max_connections or not self._budget.has_room(options.max_bytes_in_flight):
            return None
        now = self._loop.time()
        return download.take(self._n_connections_to, self._circuits, self._pace, now, self._wait_for_pace)

    def _wait_for_pace(self, host: str, start: float) -> None:
        """Schedule the next request to a host; one timer for all downloads, which then take turns."""
        timer = self._pace_timers.get(host)
        if timer is not None and timer.when() <= start:
            return
        if timer is not None:
            timer.cancel()
        self._pace_timers[host] = self._loop.call_at(start, self._on_pace, host)

    def _on_pace(self, host: str) -> None:
        del self._pace_timers[host]
        for download in self._downloads:
            download.resume(host)
        self._feed()

    def _start_attempt(self, download: Download, index: int) -> bool:
        """Start a request and return True, or fail its row and return False."""
        url, host, now = download.url(index), download.host(index), self._loop.time()
        scheme = scheme_of(url)
        refused = refused_scheme(scheme, download.options.schemes)
        proxy = _proxy_for(scheme, download.options)
        if refused is None and not download.was_attempted(index):
            refused = self._circuits.refuse(host, now)
        if refused is None and proxy is not None:
            refused = self._circuits.refuse(proxy, now)
        if refused is not None:
            self._deliver(download, index, refused)
            return False
        self._pace.record(host, now)
        self._n_connections += 1
        self._n_connections_to[host] += 1
        download.n_in_flight += 1
        claim = self._budget.claim(download.options.max_bytes_in_flight)
        on_done = partial(self._end_attempt, download, index, claim, now)
        try:
            transport = self._transport(scheme)
            download.in_flight[index] = transport.start(url, download.options, claim, on_done)
        except Exception as error:  # noqa: BLE001  # a bug, raised again in the thread that waits for the batch
            self._loop.call_soon(on_done, error)
        return True

    def _transport(self, scheme: str) -> Transport:
        kind = load_transport(scheme)
        if kind not in self._transports:
            self._transports[kind] = kind(self._loop, self._circuits)
        return self._transports[kind]

    def _end_attempt(
        self,
        download: Download,
        index: int,
        claim: Claim,
        started: float,
        outcome: Outcome | BaseException | None,
    ) -> None:
        download.in_flight.pop(index, None)
        host = download.host(index)
        proxy = _proxy_for(scheme_of(download.url(index)), download.options)
        silent_host = None
        if isinstance(outcome, Retryable) and not outcome.responded:
            silent_host = outcome.host or host
            self._circuits.fail(silent_host, outcome.failure, started, self._loop.time())
        if isinstance(outcome, Fetched | Failure | Retryable) and (silent_host is None or silent_host != proxy):
            if silent_host != host:
                self._circuits.respond(host)
            if proxy is not None:
                self._circuits.respond(proxy)
        self._n_connections -= 1
        download.n_in_flight -= 1
        self._n_connections_to[host] -= 1
        if not self._n_connections_to[host]:
            del self._n_connections_to[host]
        for other in self._downloads:
            other.free(host)
        if isinstance(outcome, Fetched):
            claim.complete()
            self._deliver(download, index, outcome, claim.release)
        else:
            claim.drop()
            if isinstance(outcome, Failure | Retryable):
                self._retry_or_fail(download, index, outcome)
            else:
                self._deliver(download, index, outcome)
        self._feed()

    def _retry_or_fail(self, download: Download, index: int, failure: Failure | Retryable) -> None:
        n_attempts, options = download.count_attempt(index), download.options
        host = (isinstance(failure, Retryable) and failure.host) or download.host(index)
        wait_s = next_wait(
            failure,
            n_attempts,
            max_attempts=options.attempts,
            timeout_s=options.timeout_s,
            is_host_down=self._circuits.is_open(host, self._loop.time()),
        )
        if wait_s is None:
            self._deliver(download, index, final_failure(failure, n_attempts, options.attempts))
        else:
            download.in_flight[index] = self._loop.call_later(wait_s, self._retry, download, index)

    def _retry(self, download: Download, index: int) -> None:
        del download.in_flight[index]
        download.put_back(index)
        self._feed()

    def _deliver(
        self,
        download: Download,
        index: int,
        result: Result | BaseException | None,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        if download.n_pending == 1:
            self._downloads.remove(download)
        download.deliver(index, result, release)

    def _on_room(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._budget.wake()
        self._feed()

    def _stop(self, download: Download, after: int) -> None:
        for index in download.drop_queued(after):
            self._deliver(download, index, None)
        for index, waiting in list(download.in_flight.items()):
            if index <= after:
                continue
            waiting.cancel()
            if isinstance(waiting, asyncio.TimerHandle):
                del download.in_flight[index]
                self._deliver(download, index, None)

    async def _close(self) -> None:
        for download in list(self._downloads):
            self._stop(download, -1)
        while self._n_connections:
            await asyncio.sleep(0.01)
        for transport in self._transports.values():
            transport.close()


def _proxy_for(scheme: str, options: Options) -> str | None:
    """Return the proxy for a scheme, by which failures to connect to it are counted; None if there is none."""
    return options.proxy.origin if options.proxy is not None and scheme in DEFAULT_PORTS else None


def fetch(url: str, options: Options) -> Result:
    """Return the content of one URL; the calling thread waits."""
    future: Future[Result] = Future()

    def on_result(_index: int, result: Result | BaseException | None, release: Callable[[], None]) -> None:
        if isinstance(result, tuple):
            future.set_result(result)
        else:
            future.set_exception(result or InterruptedError("the download scheduler has been closed"))
        release()

    shared_scheduler().start(Download([url], options, on_result))
    return future.result()


def shared_scheduler() -> Scheduler:
    """Return the scheduler of this process; the first call makes it, and the first call in a forked child."""
    global _scheduler
    with _lock:
        if _scheduler is None:
            _scheduler = Scheduler()
        return _scheduler


_lock = threading.Lock()
_scheduler: Scheduler | None = None
_of_parents: Final[list[Scheduler]] = []  # kept: destroying them would close connections of the parent process


def _close_at_exit() -> None:
    global _scheduler
    with _lock:
        closing, _scheduler = _scheduler, None
    if closing is not None:
        closing.close()


def _leave_to_parent() -> None:
    global _lock, _scheduler
    _lock = threading.Lock()
    if _scheduler is not None:
        _of_parents.append(_scheduler)
    _scheduler = None


atexit.register(_close_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
