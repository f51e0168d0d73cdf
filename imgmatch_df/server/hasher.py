"""The pictures of all requests, hashed a few at a time and in turn, so that none waits for another's thousand.

Photos that came in a body are put into small batches, two of which are under way: a call has its price,
and the threads never wait for the event loop. A request's addresses are one batch of their
own, in a thread that only waits, so that a slow server holds up nobody else.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias

from imgmatch_df.batches import hash_sources
from imgmatch_df.errors import Failure
from imgmatch_df.options import Options
from imgmatch_df.schema import BMH1, DETAIL, HEIGHT, PHASH, STATUS, WIDTH
from imgmatch_df.sources import decode_base64

Row: TypeAlias = Mapping[str, Any]
# Hashed rows of those addresses that are known already; what is not known is fetched. Called in a thread.
Known: TypeAlias = Callable[[Sequence[str]], Mapping[str, Row]]

_BATCH_ROWS: Final = 16
_BATCH_BYTES: Final = 4 << 20  # about one 12-megapixel photo, or 40 small ones: what others wait for at most
_N_BATCHES: Final = 2
_N_LOOKUPS: Final = 64  # requests with addresses at a time; their threads wait, the connections are bounded elsewhere


def nothing_known(_urls: Sequence[str]) -> Mapping[str, Row]:
    """Return what is known of addresses without a store: nothing."""
    return {}


class _Job:
    """The photos of one request that wait, and the rows that are done."""

    def __init__(self, n_rows: int, photos: deque[tuple[int, bytes]]) -> None:
        self.photos = photos
        self.n_open = len(photos)
        self.rows: list[Row | None] = [None] * n_rows
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, error: BaseException) -> None:
        self.photos.clear()
        if not self.done.done():
            self.done.set_exception(error)


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
        self._waiting: deque[_Job] = deque()
        self._n_batches = 0
        self._batches = ThreadPoolExecutor(_N_BATCHES, thread_name_prefix="imgmatch-batch")
        self._lookups = ThreadPoolExecutor(_N_LOOKUPS, thread_name_prefix="imgmatch-lookup")

    async def hash(self, sources: Sequence[str | Failure | None]) -> list[Row]:
        """Return a row of `schema.visual_hash_fields()` for each source, in order.

        Cancelling gives up what is not hashed yet, and what is being fetched.

        Parameters
        ----------
        sources
            ``data:`` URIs and addresses; None gives a row without an image, a failure one that says so.
        """
        photos: deque[tuple[int, bytes]] = deque()
        others: list[tuple[int, str | None]] = []
        failed: list[tuple[int, Failure]] = []
        for position, source in enumerate(sources):
            if isinstance(source, Failure):
                failed.append((position, source))
            elif (photo := decode_photo(source, self._options.max_bytes)) is not None:
                photos.append((position, photo))
            else:
                others.append((position, source))
        job = _Job(len(sources), photos)
        for position, failure in failed:
            job.rows[position] = _failed_row(failure)
        try:
            if photos:
                self._waiting.append(job)
                self._feed()
            if others:
                rows = await self._look_up([source for _, source in others])
                for (position, _), row in zip(others, rows, strict=True):
                    job.rows[position] = row
            if job.n_open:
                await job.done
        finally:
            job.photos.clear()
            if job.done.done() and not job.done.cancelled():
                job.done.exception()  # seen, also where something else failed first
        return [row for row in job.rows if row is not None]

    def close(self) -> None:
        """End the threads."""
        self._batches.shutdown(wait=False, cancel_futures=True)
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

    def _feed(self) -> None:
        """Start batches while there are photos and fewer than two under way."""
        while self._n_batches < _N_BATCHES and (batch := self._next_batch()):
            self._n_batches += 1
            work = asyncio.get_running_loop().run_in_executor(self._batches, self._hash_photos, batch)
            work.add_done_callback(lambda work, batch=batch: self._landed(batch, work))  # type: ignore[misc]

    def _next_batch(self) -> list[tuple[_Job, int, bytes]]:
        """Return the next photos, one of each request in turn."""
        batch: list[tuple[_Job, int, bytes]] = []
        n_bytes = 0
        while self._waiting and len(batch) < _BATCH_ROWS:
            job = self._waiting[0]
            if not job.photos:
                self._waiting.popleft()
                continue
            if batch and n_bytes + len(job.photos[0][1]) > _BATCH_BYTES:
                break
            position, photo = job.photos.popleft()
            n_bytes += len(photo)
            batch.append((job, position, photo))
            self._waiting.rotate(-1)
        return batch

    def _hash_photos(self, batch: list[tuple[_Job, int, bytes]]) -> list[Row]:
        rows = hash_sources([photo for *_, photo in batch], self._options)
        return [rows.row(number) for number in range(len(batch))]

    def _landed(self, batch: list[tuple[_Job, int, bytes]], work: asyncio.Future[list[Row]]) -> None:
        self._n_batches -= 1
        self._feed()  # first, so that the threads have work while the answers are written
        error = RuntimeError("the service has ended") if work.cancelled() else work.exception()
        if error is not None:
            for job, *_ in batch:
                job.fail(error)
            return
        for (job, position, _), row in zip(batch, work.result(), strict=True):
            job.rows[position] = row
            job.n_open -= 1
            if not job.n_open and not job.done.done():
                job.done.set_result(None)


def decode_photo(source: str | None, max_bytes: int) -> bytes | None:
    """Return the bytes of a ``data:`` URI in base64; None for all else, which the ordinary path looks at."""
    if source is None or source[:5].lower() != "data:":
        return None
    header, _, payload = source.partition(",")
    if not header.lower().endswith(";base64"):
        return None
    data = decode_base64(payload, max_bytes)
    return None if isinstance(data, Failure) else data or None


def _failed_row(failure: Failure) -> Row:
    nothing = dict.fromkeys((WIDTH, HEIGHT, BMH1.name, PHASH.name))
    return {**nothing, STATUS: failure.status, DETAIL: failure.detail}
