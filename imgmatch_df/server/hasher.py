"""The pictures of all requests, hashed one at a time and in turn, so that none waits for another's thousand.

Photos that came in a body are taken by the threads of the pool themselves, which never wait for the event loop; a
request's addresses are a batch in a thread that only waits, so that a slow server holds up nobody else.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import Any, Final, TypeAlias

from imgmatch_df.batches import hash_source, hash_sources
from imgmatch_df.errors import Failure
from imgmatch_df.options import Options
from imgmatch_df.schema import BMH1, DETAIL, HEIGHT, PHASH, STATUS, WIDTH
from imgmatch_df.threads import n_threads, pool

Row: TypeAlias = Mapping[str, Any]
# Hashed rows of those addresses that are known already; what is not known is fetched. Called in a thread.
Known: TypeAlias = Callable[[Sequence[str]], Mapping[str, Row]]

# How long a thread of the pool hashes photos before it lets in the addresses that have arrived.
_TURN_S: Final = 0.02
_N_LOOKUPS: Final = 64  # requests with addresses at a time; their threads wait, the connections are bounded elsewhere


def nothing_known(_urls: Sequence[str]) -> Mapping[str, Row]:
    """Return what is known of addresses without a store: nothing."""
    return {}


class _Job:
    """The photos of one request that wait, and the rows that are done.

    `photos` is shared with the threads that hash, and touched under the lock of the `Hasher` only.
    """

    def __init__(self, n_rows: int, photos: deque[tuple[int, str]]) -> None:
        self.photos = photos
        self.n_open = len(photos)
        self.rows: list[Row | None] = [None] * n_rows
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, position: int, row: Row | BaseException) -> None:
        if not isinstance(row, BaseException):
            self.rows[position] = row
            self.n_open -= 1
        if self.done.done():
            return
        if isinstance(row, BaseException):
            self.done.set_exception(row)
        elif not self.n_open:
            self.done.set_result(None)


class Hasher:
    """Hashes for one event loop.

    Parameters
    ----------
    options
        How pictures are fetched and decoded.
    known
        Gives the rows of addresses that need not be fetched.
    """

    def __init__(self, options: Options, known: Known = nothing_known) -> None:
        self._options = options
        self._known = known
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._waiting: deque[_Job] = deque()
        self._hashed: list[tuple[_Job, int, Row | BaseException]] = []
        self._n_workers = 0
        self._lookups = ThreadPoolExecutor(_N_LOOKUPS, thread_name_prefix="imgmatch-lookup")

    async def hash(self, sources: Sequence[str | Failure | None]) -> list[Row]:
        """Return a row of `schema.visual_hash_fields()` for each source, in order.

        Cancelling gives up what is not hashed yet, and what is being fetched.

        Parameters
        ----------
        sources
            ``data:`` URIs and addresses; None gives a row without an image, a failure one that says so.
        """
        photos: deque[tuple[int, str]] = deque()
        others: list[tuple[int, str | None]] = []
        failed: list[tuple[int, Failure]] = []
        for position, source in enumerate(sources):
            if isinstance(source, Failure):
                failed.append((position, source))
            elif source is not None and source[:5].lower() == "data:":
                photos.append((position, source))
            else:
                others.append((position, source))
        job = _Job(len(sources), photos)
        for position, failure in failed:
            job.rows[position] = _failed_row(failure)
        try:
            if photos:
                self._start(job)
            if others:
                rows = await self._look_up([source for _, source in others])
                for (position, _), row in zip(others, rows, strict=True):
                    job.rows[position] = row
            if job.n_open:
                await job.done
        finally:
            with self._lock:
                photos.clear()
            if job.done.done() and not job.done.cancelled():
                job.done.exception()  # seen, also where something else failed first
        return [row for row in job.rows if row is not None]

    def close(self) -> None:
        """Give up what waits."""
        with self._lock:
            waiting = [*self._waiting]
            self._waiting.clear()
        for job in waiting:
            job.settle(0, RuntimeError("the service has ended"))
        self._lookups.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, sources: list[str | None]) -> list[Row]:
        given_up = False

        def look_up() -> list[Row]:
            known = self._known([source for source in sources if source is not None])
            unknown = [None if source in known else source for source in sources]
            rows = hash_sources(unknown, self._options, given_up=lambda: given_up)
            return [
                rows.row(number) if source is None or source not in known else known[source]
                for number, source in enumerate(sources)
            ]

        try:
            return await asyncio.get_running_loop().run_in_executor(self._lookups, look_up)
        finally:
            given_up = True

    def _start(self, job: _Job) -> None:
        """Let the photos wait, and have as many more threads hash as there are photos for, unless all do."""
        with self._lock:
            self._waiting.append(job)
            n_more = min(len(job.photos), n_threads() - self._n_workers)
            self._n_workers += n_more
        for _ in range(n_more):
            pool().submit(self._work)

    def _work(self) -> None:
        """Hash, in a thread of the pool, until no photo waits or somebody else's turn has come."""
        ends = monotonic() + _TURN_S
        while (taken := self._next_photo()) is not None:
            job, position, photo = taken
            row: Row | BaseException
            try:
                row = hash_source(photo, self._options)
            except BaseException as error:  # noqa: BLE001  # raised again in the request
                row = error
            with self._lock:
                is_first = not self._hashed
                self._hashed.append((job, position, row))
            if is_first:  # else the loop has been called and not come yet
                with suppress(RuntimeError):  # it has been closed meanwhile
                    self._loop.call_soon_threadsafe(self._land)
            if monotonic() > ends:
                pool().submit(self._work)
                return

    def _next_photo(self) -> tuple[_Job, int, str] | None:
        """Return the next photo, one of each request in turn; where there is none, the thread counts no more."""
        with self._lock:
            while self._waiting:
                job = self._waiting.popleft()
                if job.photos:
                    self._waiting.append(job)
                    return job, *job.photos.popleft()
            self._n_workers -= 1
            return None

    def _land(self) -> None:
        """Give the requests the rows that are done."""
        with self._lock:
            hashed, self._hashed = self._hashed, []
        for job, position, row in hashed:
            job.settle(position, row)


def _failed_row(failure: Failure) -> Row:
    nothing = dict.fromkeys((WIDTH, HEIGHT, BMH1.name, PHASH.name))
    return {**nothing, STATUS: failure.status, DETAIL: failure.detail}
