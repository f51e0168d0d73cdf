"""The images of all requests, hashed one at a time and in turn, so that none waits for another's thousand.

Threads take them, which never wait for the event loop: images that came in a body at once, those of URLs as they
arrive. No thread waits for a URL, so that a slow server delays no other image. The threads hash, or have decoder
processes do it: then an image that is large or slow waits for others of its kind.
"""

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple, TypeAlias

from imgmatch_df.batch.isolation import LOW, DeclinedError, Decoders, DecodersUnavailableError, Lane
from imgmatch_df.batch.run import hash_source
from imgmatch_df.columns import DETAIL, HEIGHT, STATUS, WIDTH
from imgmatch_df.errors import Failure
from imgmatch_df.fetching.scheduler import Download, shared_scheduler
from imgmatch_df.hashes.kinds import DEFAULT_HASH_TYPES, HashKind, hash_kinds
from imgmatch_df.images.pixel_budget import PixelBudget
from imgmatch_df.options import Options
from imgmatch_df.sources import Fetched, url_of
from imgmatch_df.threads import n_threads, pool

Row: TypeAlias = Mapping[str, Any]
# Hashed rows of those URLs that are known already; what is not known is fetched. Called in the event loop: it must not
# wait for anything.
Known: TypeAlias = Callable[[Sequence[str]], Mapping[str, Row]]

# How long a thread of the pool hashes before it lets in others, such as the comparisons of a request.
_TURN_S: Final = 0.02
# With decoder processes, an image that is too large or too slow for a lane waits for the next one. The processes of the
# later lanes have a low priority. A JPEG of 12 megapixels takes 64 MB and 0.1 s. All lanes together stay below 4 GB.
_LANES: Final = (
    Lane(PixelBudget(600_000_000), max_bytes=64_000_000, max_s=0.25),
    Lane(PixelBudget(1_100_000_000), max_bytes=256_000_000, max_s=1.5, priority=LOW),
    Lane(PixelBudget(2_100_000_000), priority=LOW),
)
# A small image, to find out whether images are hashed; not needed for some seconds after any other was.
_SAMPLE: Final = "data:;base64,UDUgMiAyIDI1NSAAAAAA"
_SHOWN_FOR_S: Final = 5.0
_SHOW_WITHIN_S: Final = 3.0


def nothing_known(_urls: Sequence[str]) -> Mapping[str, Row]:
    """Return what is known of addresses without a store: nothing."""
    return {}


def _nothing() -> None:
    pass


def _n_decoders() -> int:
    """Return the number of decoder processes for images of the first lane.

    One more than processors: while the response of one waits for the event loop, another one decodes (11 % more
    requests a second at 16 connections).
    """
    return n_threads() + 1


class _Picture(NamedTuple):
    """One picture, and the rows that it stands in; `release` gives back the memory of one that was fetched."""

    positions: list[int]
    source: str | Fetched | None
    release: Callable[[], None] = _nothing


class _Job:
    """The rows of one request.

    `kinds` are computed. `ended` is shared with the threads that hash and fetch, and touched under the lock of the
    `Hasher` only.
    """

    def __init__(self, n_rows: int, kinds: tuple[HashKind, ...]) -> None:
        self.kinds = kinds
        self.ended = False
        self.n_open = n_rows
        self.rows: list[Row | None] = [None] * n_rows
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, positions: list[int], row: Row | BaseException) -> None:
        if not isinstance(row, BaseException):
            for position in positions:
                self.rows[position] = row
            self.n_open -= len(positions)
        if self.done.done():
            return
        if isinstance(row, BaseException):
            self.done.set_exception(row)
        elif not self.n_open:
            self.done.set_result(None)


class _Queue:
    """Images that wait to be hashed, and the threads that hash them. Touched under the lock of the `Hasher` only.

    Parameters
    ----------
    executor
        Gives the threads.
    n_threads
        How many of them hash at a time.
    arguments
        Of `hash_source`, beside the source and the hash kinds.
    """

    def __init__(self, executor: Callable[[], Executor], n_threads: int, *arguments: Any) -> None:
        self.executor = executor
        self.n_threads = n_threads
        self.arguments = arguments
        self.n_workers = 0
        self._waiting: OrderedDict[_Job, deque[_Picture]] = OrderedDict()

    def add(self, job: _Job, pictures: Sequence[_Picture]) -> None:
        if pictures:
            self._waiting.setdefault(job, deque()).extend(pictures)

    def take(self) -> tuple[_Job, _Picture] | None:
        """Return the next image, one of each request in turn."""
        for job, pictures in self._waiting.items():
            picture = pictures.popleft()
            if pictures:
                self._waiting.move_to_end(job)
            else:
                del self._waiting[job]
            return job, picture
        return None

    def remove(self, job: _Job) -> Sequence[_Picture]:
        return self._waiting.pop(job, ())

    def clear(self) -> list[_Job]:
        jobs = list(self._waiting)
        self._waiting.clear()
        return jobs


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
        self._hashed: list[tuple[_Job, list[int], Row | BaseException]] = []
        self._hashed_at = 0.0
        self._showing: asyncio.Task[bool] | None = None
        self._decoders = Decoders() if options.isolate else None
        self._queues = [_Queue(pool, n_threads(), options)]
        if self._decoders is not None:
            self._queues = []
            for lane in _LANES:
                n_decoders = _n_decoders() if lane is _LANES[0] else n_threads()
                threads = ThreadPoolExecutor(n_decoders, thread_name_prefix="imgmatch-decoding")
                hash_one = partial(self._decoders.hash_image, lane=lane)
                executor = lambda threads=threads: threads  # noqa: E731
                self._queues.append(_Queue(executor, n_decoders, options, hash_one))

    async def hash(
        self, sources: Sequence[str | Failure | None], hash_types: Sequence[str] = DEFAULT_HASH_TYPES
    ) -> list[Row]:
        """Return a row of `kinds.visual_hash_fields()` for each source, in order.

        Cancelling gives up what is not hashed yet, and what is being fetched.

        Parameters
        ----------
        sources
            ``data:`` URIs and addresses; None gives a row without an image, a failure one that says so.
        hash_types
            The kinds to compute; rows that are known already may have more.
        """
        job = _Job(len(sources), hash_kinds(hash_types))
        local: list[_Picture] = []
        addresses: list[tuple[int, str, str]] = []
        for position, source in enumerate(sources):
            if isinstance(source, Failure):
                job.settle([position], _failed_row(source, job.kinds))
            elif source is not None and (url := url_of(source)) is not None:
                addresses.append((position, source, url))
            else:
                local.append(_Picture([position], source))
        download = None
        try:
            self._add(self._queues[0], job, local)
            if addresses:
                places = self._look_up(job, addresses)
                download = self._fetch(job, places)
            if job.n_open:
                await job.done
        finally:
            with self._lock:
                job.ended = True
                left = [picture for queue in self._queues for picture in queue.remove(job)]
            for picture in left:
                picture.release()
            if download is not None and job.n_open:
                shared_scheduler().stop(download)
            if job.done.done() and not job.done.cancelled():
                job.done.exception()  # seen, also where something else failed first
        return [row for row in job.rows if row is not None]

    def close(self) -> None:
        """Give up what waits."""
        with self._lock:
            waiting = [job for queue in self._queues for job in queue.clear()]
        for job in waiting:
            job.settle([], RuntimeError("the service has ended"))
        if self._decoders is not None:
            self._decoders.close()

    def warm_up(self) -> None:
        """Start the decoder processes.

        Raises
        ------
        DecodersUnavailableError
            If they cannot be started, or cannot decode.
        """
        if self._decoders is not None:
            self._decoders.warm_up(_n_decoders())

    async def can_hash(self) -> bool:
        """Return whether images are hashed at present; where none was for a while, hash one."""
        if monotonic() - self._last_hashed_at() < _SHOWN_FOR_S:
            return True
        if self._showing is None:
            self._showing = asyncio.create_task(self._show())
        return await asyncio.shield(self._showing)

    async def _show(self) -> bool:
        began = monotonic()
        try:
            with suppress(TimeoutError, DecodersUnavailableError):
                async with asyncio.timeout(_SHOW_WITHIN_S):
                    await self.hash([_SAMPLE])
            return self._last_hashed_at() >= began
        finally:
            self._showing = None

    def _last_hashed_at(self) -> float:
        return self._hashed_at if self._decoders is None else self._decoders.responded_at

    def _look_up(self, job: _Job, addresses: list[tuple[int, str, str]]) -> dict[str, list[int]]:
        """Settle the addresses that are known; return the others, each once, with the rows that it stands in."""
        known = self._known([source for _, source, _ in addresses])
        places: dict[str, list[int]] = {}
        for position, source, url in addresses:
            if source in known:
                job.settle([position], known[source])
            else:
                places.setdefault(url, []).append(position)
        return places

    def _fetch(self, job: _Job, places: dict[str, list[int]]) -> Download | None:
        """Begin to fetch addresses; each is hashed as soon as it is there and a thread of the pool is free."""
        if not places:
            return None
        positions = list(places.values())

        def arrived(number: int, answer: Any, release: Callable[[], None]) -> None:
            if isinstance(answer, Fetched):
                self._add(self._queues[0], job, [_Picture(positions[number], answer, release)])
            elif answer is not None:  # else it has been stopped
                row = _failed_row(answer, job.kinds) if isinstance(answer, Failure) else answer
                self._put(job, positions[number], row)

        download = Download(list(places), self._options, arrived)
        shared_scheduler().start(download)
        return download

    def _add(self, queue: _Queue, job: _Job, pictures: Sequence[_Picture]) -> None:
        """Let pictures wait, and have as many more threads hash as there are pictures, unless all do."""
        with self._lock:
            ended = job.ended
            if not ended:
                queue.add(job, pictures)
            n_more = 0 if ended else min(len(pictures), queue.n_threads - queue.n_workers)
            queue.n_workers += n_more
        for picture in pictures if ended else ():
            picture.release()
        for _ in range(n_more):
            queue.executor().submit(self._work, queue)

    def _work(self, queue: _Queue) -> None:
        """Hash, in a thread of the queue, until no picture waits or somebody else's turn has come."""
        ends = monotonic() + _TURN_S
        while (taken := self._next(queue)) is not None:
            job, picture = taken
            row: Row | BaseException
            try:
                row = hash_source(picture.source, *queue.arguments, kinds=job.kinds)
                self._hashed_at = monotonic()
            except DeclinedError:
                self._add(self._queues[self._queues.index(queue) + 1], job, [picture])
                continue
            except BaseException as error:  # noqa: BLE001  # raised again in the request
                row = error
            picture.release()
            self._put(job, picture.positions, row)
            if monotonic() > ends:
                queue.executor().submit(self._work, queue)
                return

    def _next(self, queue: _Queue) -> tuple[_Job, _Picture] | None:
        """Return the next picture; where there is none, the thread counts no more."""
        with self._lock:
            taken = queue.take()
            if taken is None:
                queue.n_workers -= 1
            return taken

    def _put(self, job: _Job, positions: list[int], row: Row | BaseException) -> None:
        """Have a row that is done given to its request, from any thread."""
        with self._lock:
            is_first = not self._hashed
            self._hashed.append((job, positions, row))
        if is_first:  # else the loop has been called and not come yet
            with suppress(RuntimeError):  # it has been closed meanwhile
                self._loop.call_soon_threadsafe(self._land)

    def _land(self) -> None:
        """Give the requests the rows that are done."""
        with self._lock:
            hashed, self._hashed = self._hashed, []
        for job, positions, row in hashed:
            job.settle(positions, row)


def _failed_row(failure: Failure, kinds: Sequence[HashKind]) -> Row:
    nothing = dict.fromkeys((WIDTH, HEIGHT, *(kind.name for kind in kinds)))
    return {**nothing, STATUS: failure.status, DETAIL: failure.detail}
