"""Queue of the images of all requests, one of each request in turn, so that small requests do not wait for large ones.

Images of a body are taken at once, those of URLs when they are fetched. No thread waits for a download or for the event
loop. Threads hash the images themselves, or pass them to decoder processes. Then large and slow images have lanes of
their own, so that other images do not wait for them; and the event loop itself passes small images of a body to the
processes (see `loop_decoders`).
"""

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple, TypeAlias

from imgmatch_df.batch.decoder import LOW, DeclinedError, Lane
from imgmatch_df.batch.image_hashes import HashBuffers, ImageSize
from imgmatch_df.batch.isolation import Decoders, DecodersUnavailableError
from imgmatch_df.batch.run import hash_source
from imgmatch_df.columns import DETAIL, HEIGHT, OK, STATUS, WIDTH
from imgmatch_df.errors import Failure
from imgmatch_df.fetching.scheduler import Download, shared_scheduler
from imgmatch_df.hashes.kinds import DEFAULT_HASH_TYPES, HashKind, ImageColumn, hash_kinds
from imgmatch_df.images.pixel_budget import PixelBudget
from imgmatch_df.options import Options
from imgmatch_df.server.loop_decoders import LoopDecoders, LoopImage
from imgmatch_df.sources import Fetched, url_of
from imgmatch_df.threads import n_threads, pool

Row: TypeAlias = Mapping[str, Any]
# Returns the rows of the URLs whose hashes are stored; other URLs are fetched. The event loop calls it, so it must not
# block.
Known: TypeAlias = Callable[[Sequence[str]], Mapping[str, Row]]

# How long a thread of the pool hashes before other tasks of the pool, such as joins, get their turn.
_TURN_S: Final = 0.02
# An image that is too large or too slow for a lane moves to the next one. The decoder processes of later lanes have a
# low priority. A JPEG of 12 megapixels takes 64 MB and 0.1 s. All lanes together use at most 4 GB.
_LANES: Final = (
    Lane(PixelBudget(600_000_000), max_bytes=64_000_000, max_s=0.25),
    Lane(PixelBudget(1_100_000_000), max_bytes=256_000_000, max_s=1.5, priority=LOW),
    Lane(PixelBudget(2_100_000_000), priority=LOW),
)
# A small image that shows whether images can be hashed, needed if none was hashed for `_FRESH_S`.
_SAMPLE: Final = "data:;base64,UDUgMiAyIDI1NSAAAAAA"
_FRESH_S: Final = 5.0
_SAMPLE_TIMEOUT_S: Final = 3.0


def nothing_known(_urls: Sequence[str]) -> Mapping[str, Row]:
    """Return no rows: the look-up of a service without a store."""
    return {}


def _nothing() -> None:
    pass


def _n_decoders() -> int:
    """Return the number of decoder processes for images of the first lane.

    One more than processors: another process decodes while a result waits for the event loop (11 % more requests a
    second at 16 connections).
    """
    return n_threads() + 1


class _Image(NamedTuple):
    """One image and the numbers of its rows; `release` returns the memory of a fetched image to the byte budget."""

    positions: list[int]
    source: str | Fetched | None
    release: Callable[[], None] = _nothing


class _Job:
    """The rows of one request, complete when `done` is.

    Threads that hash and fetch read `ended`, under the lock of the `Hasher` only.
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
    """Images of one lane that wait, and the threads that hash them. Used under the lock of the `Hasher` only.

    Parameters
    ----------
    executor
        Has the threads.
    n_threads
        Maximum number of threads that hash at a time.
    arguments
        Arguments of `hash_source`, beside the source and the hash kinds.
    """

    def __init__(self, executor: Executor, n_threads: int, *arguments: Any) -> None:
        self.executor = executor
        self.n_threads = n_threads
        self.arguments = arguments
        self.n_workers = 0
        self._waiting: OrderedDict[_Job, deque[_Image]] = OrderedDict()

    def add(self, job: _Job, images: Sequence[_Image]) -> None:
        if images:
            self._waiting.setdefault(job, deque()).extend(images)

    def take(self) -> tuple[_Job, _Image] | None:
        """Return the next image, one of each request in turn."""
        for job, images in self._waiting.items():
            image = images.popleft()
            if images:
                self._waiting.move_to_end(job)
            else:
                del self._waiting[job]
            return job, image
        return None

    def remove(self, job: _Job) -> Sequence[_Image]:
        return self._waiting.pop(job, ())

    def clear(self) -> list[_Job]:
        jobs = list(self._waiting)
        self._waiting.clear()
        return jobs


class Hasher:
    """Hashes images for one event loop.

    Parameters
    ----------
    options
        How images are fetched and decoded.
    known
        Returns the rows of stored URLs.
    """

    def __init__(self, options: Options, known: Known = nothing_known) -> None:
        self._options = options
        self._known = known
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._hashed: list[tuple[_Job, list[int], Row | BaseException]] = []
        self._hashed_at = 0.0
        self._sampling: asyncio.Task[bool] | None = None
        self._decoders = Decoders() if options.isolate else None
        self._loop_thread = threading.get_ident()
        self._loop_decoders: LoopDecoders | None = None
        self._queues: list[_Queue] = []
        if self._decoders is None:
            self._queues.append(_Queue(pool(), n_threads(), options))
            return
        for lane in _LANES:
            n_decoders = _n_decoders() if lane is _LANES[0] else n_threads()
            threads = ThreadPoolExecutor(n_decoders, thread_name_prefix="imgmatch-decoding")
            hash_one = partial(self._decoders.hash_image, lane=lane)
            self._queues.append(_Queue(threads, n_decoders, options, hash_one))
        self._loop_decoders = LoopDecoders(self._decoders, _LANES[0], options)

    async def hash(
        self, sources: Sequence[str | Failure | None], hash_types: Sequence[str] = DEFAULT_HASH_TYPES
    ) -> list[Row]:
        """Return a row of `kinds.visual_hash_fields()` for each source, in order.

        A cancellation also cancels the images that wait, and the downloads.

        Parameters
        ----------
        sources
            ``data:`` URIs and URLs; None becomes a row with the status `missing`, a failure a row with its status.
        hash_types
            The kinds to compute. Stored rows may have more.
        """
        job = _Job(len(sources), hash_kinds(hash_types))
        local: list[_Image] = []
        remote: list[tuple[int, str, str]] = []
        for position, source in enumerate(sources):
            if isinstance(source, Failure):
                job.settle([position], _failed_row(source, job.kinds))
            elif source is not None and (url := url_of(source)) is not None:
                remote.append((position, source, url))
            else:
                local.append(_Image([position], source))
        download = None
        try:
            self._add(self._queues[0], job, local)
            if remote:
                download = self._fetch(job, self._look_up(job, remote))
            if job.n_open:
                await job.done
        finally:
            with self._lock:
                job.ended = True
                left = [image for queue in self._queues for image in queue.remove(job)]
            for image in left:
                image.release()
            if download is not None and job.n_open:
                shared_scheduler().stop(download)
            if job.done.done() and not job.done.cancelled():
                job.done.exception()  # retrieved, because asyncio logs exceptions that never are
        return [row for row in job.rows if row is not None]

    def close(self) -> None:
        """Cancel the images that wait, and end the decoder processes."""
        with self._lock:
            waiting = [job for queue in self._queues for job in queue.clear()]
        for job in waiting:
            job.settle([], RuntimeError("the service has ended"))
        if self._loop_decoders is not None:
            self._loop_decoders.close()
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
        """Return whether images can be hashed; hash a sample if none was hashed in the last seconds."""
        if monotonic() - self._last_hashed_at() < _FRESH_S:
            return True
        if self._sampling is None:
            self._sampling = asyncio.create_task(self._hash_sample())
        return await asyncio.shield(self._sampling)

    async def _hash_sample(self) -> bool:
        began = monotonic()
        try:
            with suppress(TimeoutError, DecodersUnavailableError):
                async with asyncio.timeout(_SAMPLE_TIMEOUT_S):
                    await self.hash([_SAMPLE])
            return self._last_hashed_at() >= began
        finally:
            self._sampling = None

    def _last_hashed_at(self) -> float:
        return self._hashed_at if self._decoders is None else self._decoders.responded_at

    def _look_up(self, job: _Job, remote: list[tuple[int, str, str]]) -> dict[str, list[int]]:
        """Settle the rows of stored URLs; return the other URLs, each with the numbers of its rows."""
        known = self._known([source for _, source, _ in remote])
        missing: dict[str, list[int]] = {}
        for position, source, url in remote:
            if source in known:
                job.settle([position], known[source])
            else:
                missing.setdefault(url, []).append(position)
        return missing

    def _fetch(self, job: _Job, urls: dict[str, list[int]]) -> Download | None:
        """Begin to fetch URLs; each image is queued when it is complete."""
        if not urls:
            return None
        positions = list(urls.values())

        def complete(number: int, result: Any, release: Callable[[], None]) -> None:
            if isinstance(result, Fetched):
                self._add(self._queues[0], job, [_Image(positions[number], result, release)])
            elif result is not None:  # None: the download was cancelled
                row = _failed_row(result, job.kinds) if isinstance(result, Failure) else result
                self._put(job, positions[number], row)

        download = Download(list(urls), self._options, complete)
        shared_scheduler().start(download)
        return download

    def _add(self, queue: _Queue, job: _Job, images: Sequence[_Image]) -> None:
        """Add images to a queue, and start one thread per image, up to the maximum of the queue."""
        with self._lock:
            ended = job.ended
            if not ended:
                queue.add(job, images)
            n_more = 0 if ended else min(len(images), queue.n_threads - queue.n_workers)
            queue.n_workers += n_more
        for image in images if ended else ():
            image.release()
        for _ in range(n_more):
            self._start(queue)

    def _start(self, queue: _Queue) -> None:
        """Hash images of the queue, in the event loop or in a thread; called by any thread."""
        if self._loop_decoders is None or queue is not self._queues[0]:
            queue.executor.submit(self._work, queue)
        elif threading.get_ident() == self._loop_thread:
            self._begin(queue)
        else:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._begin, queue)

    def _begin(self, queue: _Queue) -> None:
        """Begin the next image of the queue in the event loop; if that is not possible, hash it in a thread."""
        taken = self._next(queue)
        if taken is None or self._loop_decoders is None:
            return
        job, image = taken

        def end(begun: LoopImage, result: ImageSize | Failure | None) -> None:
            if result is None:
                queue.executor.submit(self._work, queue, (job, image), begun)
                return
            image.release()
            job.settle(image.positions, _row_of(result, begun.out))
            self._begin(queue)

        try:
            if not self._loop_decoders.begin(image.source, job.kinds, end):
                queue.executor.submit(self._work, queue, taken)
        except Exception as error:  # noqa: BLE001  # a bug, raised again by `hash`
            job.settle(image.positions, error)
            self._begin(queue)

    def _work(self, queue: _Queue, first: tuple[_Job, _Image] | None = None, begun: LoopImage | None = None) -> None:
        """Hash images of the queue, in one of its threads, for at most about `_TURN_S`.

        Parameters
        ----------
        queue
            The queue.
        first
            An image that was taken from the queue, None for none.
        begun
            The decoding of `first`, if it has begun in the event loop.
        """
        ends = monotonic() + _TURN_S
        while (taken := first or self._next(queue)) is not None:
            job, image = taken
            row: Row | BaseException
            try:
                if begun is None or self._loop_decoders is None:
                    row = hash_source(image.source, *queue.arguments, kinds=job.kinds)
                else:
                    row = _row_of(self._loop_decoders.resume(begun), begun.out)
                self._hashed_at = monotonic()
            except DeclinedError:
                first = begun = None
                self._add(self._queues[self._queues.index(queue) + 1], job, [image])
                continue
            except BaseException as error:  # noqa: BLE001  # raised again by `hash`
                row = error
            first = begun = None
            image.release()
            self._put(job, image.positions, row)
            if monotonic() > ends:
                self._start(queue)
                return

    def _next(self, queue: _Queue) -> tuple[_Job, _Image] | None:
        """Return the next image; None if there is none, and then the thread must end."""
        with self._lock:
            taken = queue.take()
            if taken is None:
                queue.n_workers -= 1
            return taken

    def _put(self, job: _Job, positions: list[int], row: Row | BaseException) -> None:
        """Pass a row to its request in the event loop; called by any thread."""
        with self._lock:
            is_first = not self._hashed
            self._hashed.append((job, positions, row))
        if is_first:  # otherwise a call of `_settle` is scheduled already
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        """Pass the completed rows to their requests."""
        with self._lock:
            hashed, self._hashed = self._hashed, []
        for job, positions, row in hashed:
            job.settle(positions, row)


def _row_of(result: ImageSize | Failure, out: HashBuffers) -> Row:
    """Return the row of an image that was hashed into `out`, as `HashedRows.row`."""
    if isinstance(result, Failure):
        return _failed_row(result, out)
    hashes = {kind.name: kind.value(hashed) for kind, hashed in out.items()}
    return {WIDTH: result.width, HEIGHT: result.height, **hashes, STATUS: OK, DETAIL: result.detail}


def _failed_row(failure: Failure, kinds: Iterable[ImageColumn]) -> Row:
    nothing = dict.fromkeys((WIDTH, HEIGHT, *(kind.name for kind in kinds)))
    return {**nothing, STATUS: failure.status, DETAIL: failure.detail}
