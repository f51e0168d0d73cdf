"""Log and metrics of the service: one JSON line per request on standard error, and counters for Prometheus."""

import json
import logging
import os
import sys
import threading
import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from imgmatch_df.columns import OK

LOGGER: Final = logging.getLogger("imgmatch_df.server")
MULTIPROCESS_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"

_GATHER_S: Final = 0.02
_MAX_LINES: Final = 10_000
_MAX_OF_LIBRARY: Final = 20  # lines a minute

_BUCKETS: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


_JSON: Final = json.JSONEncoder(default=str)  # `json.dumps` would make one for each line


@lru_cache(maxsize=4)
def _second(since_1970: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since_1970))


class JsonFormatter(logging.Formatter):
    """Formats a record as a line of JSON: time, level, event, and the fields of the call."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": _second(int(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _JSON.encode(line)


class LineWriter(logging.Handler):
    """Writes lines to standard error in a separate thread, the lines of `_GATHER_S` at a time.

    A wake-up for each line would take the GIL from the requests: 0.15 ms of each. If standard error is not read, lines
    above `_MAX_LINES` are dropped, because requests must not wait for the log.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._records: deque[logging.LogRecord] = deque()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="imgmatch-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record for the thread."""
        if len(self._records) < _MAX_LINES:
            self._records.append(record)
            self._wake.set()

    def stop(self) -> None:
        """Write the queued records, and end the thread."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._wake.wait()
            self._wake.clear()  # before the records are taken, so that later ones set it again
            is_last = self._stopping.wait(_GATHER_S)
            records = [self._records.popleft() for _ in range(len(self._records))]
            with suppress(OSError):  # the reader of the pipe has ended
                sys.stderr.write("".join(f"{self.format(record)}\n" for record in records))
                sys.stderr.flush()


class _RateLimit(logging.Filter):
    """Lets `_MAX_OF_LIBRARY` records a minute through, and counts the others."""

    def __init__(self) -> None:
        super().__init__()
        self._began = 0.0
        self._n_records = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written."""
        if record.created - self._began > 60:
            n_left_out = max(0, self._n_records - _MAX_OF_LIBRARY)
            if n_left_out:
                record.fields = {"left_out_before": n_left_out}
            self._began, self._n_records = record.created, 0
        self._n_records += 1
        return self._n_records <= _MAX_OF_LIBRARY


def start_logging() -> LineWriter:
    """Log JSON lines to standard error; the caller must stop the returned writer."""
    lines = LineWriter()
    libraries = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
    for logger in libraries:  # some errors repeat thousands of times a second
        logger.filters[:] = [_RateLimit()]
    for logger, level in ((LOGGER, logging.INFO), *((logger, logging.WARNING) for logger in libraries)):
        logger.handlers[:] = [lines]
        logger.setLevel(level)
        logger.propagate = False
    return lines


def log(event: str, *, level: int = logging.INFO, exc_info: BaseException | None = None, **fields: object) -> None:
    """Log one line: the event and its fields."""
    if LOGGER.isEnabledFor(level):
        error = None if exc_info is None else (type(exc_info), exc_info, exc_info.__traceback__)
        # `LOGGER.log` would look for the line of the caller, which is not logged.
        LOGGER.handle(LOGGER.makeRecord(LOGGER.name, level, __file__, 0, event, (), error, extra={"fields": fields}))


def _tally(statuses: Sequence[str]) -> Iterable[tuple[str, int]]:
    """Return each status and its number; a Counter of one image would take 4 us."""
    return Tally(statuses).items() if len(statuses) > 1 else [(status, 1) for status in statuses]


class Metrics:
    """Metrics of one worker; with several workers the sums of all, from files that they share."""

    def __init__(self) -> None:
        self._shared = MULTIPROCESS_DIR in os.environ
        self._registry = CollectorRegistry()
        registry: Any = None if self._shared else self._registry
        self._requests = Counter("imgmatch_requests", "Responses sent.", ["method", "code"], registry=registry)
        self._seconds = Histogram(
            "imgmatch_request_seconds", "Time from header to response.", ["method"], buckets=_BUCKETS, registry=registry
        )
        self._images = Counter("imgmatch_pictures", "Images processed, by status.", ["status"], registry=registry)
        self._failed = Counter("imgmatch_failed_records", "Failed records, by status.", ["reason"], registry=registry)
        self._bytes = Counter("imgmatch_body_bytes", "Bytes of request bodies.", registry=registry)
        # Few, and looking one up takes 3 us.
        self._of_requests = cache(self._count_of)
        self._images_with = cache(self._images.labels)
        self.in_flight = Gauge(
            "imgmatch_requests_under_way", "Requests in flight.", multiprocess_mode="livesum", registry=registry
        )
        self.held_bytes = Gauge(
            "imgmatch_held_bytes",
            "Bytes held of requests and unread responses.",
            multiprocess_mode="livesum",
            registry=registry,
        )

    def count(self, method: str, code: int, seconds: float, n_bytes: int, statuses: Sequence[str]) -> None:
        """Count a request and its response."""
        requests, durations = self._of_requests(method, code)
        requests.inc()
        durations.observe(seconds)
        self._bytes.inc(n_bytes)
        for status, n_images in _tally(statuses):
            self._images_with(status).inc(n_images)
            if status != OK:
                self._failed.labels(status).inc(n_images)

    def _count_of(self, method: str, code: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(method, str(code)), self._seconds.labels(method)

    def text(self) -> bytes:
        """Return the metrics in the text format of Prometheus."""
        if not self._shared:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def forget_worker(pid: int | None) -> None:
    """Remove the gauges of an ended process from the sums."""
    if pid is not None and MULTIPROCESS_DIR in os.environ:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]
