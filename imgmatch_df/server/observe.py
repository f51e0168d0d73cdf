"""What the people who run the service see: one JSON line for each request, and metrics for Prometheus."""

import json
import logging
import logging.handlers
import os
import queue
import sys
import time
from collections import Counter as Tally
from collections.abc import Iterable
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

LOGGER: Final = logging.getLogger("imgmatch_df.server")
MULTIPROCESS_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"

_BUCKETS: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class JsonFormatter(logging.Formatter):
    """One line of JSON for each record: time, level, event, and the fields that it was given."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _DroppingHandler(logging.handlers.QueueHandler):
    """Drops lines rather than waiting for whoever reads them."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Ignore a full queue: a log that nobody reads must not hold up requests."""


def start_logging() -> logging.handlers.QueueListener:
    """Log JSON lines to standard error, from a thread of their own; stop the listener at the end."""
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(JsonFormatter())
    lines: queue.Queue[logging.LogRecord] = queue.Queue(10_000)
    listener = logging.handlers.QueueListener(lines, stream)
    listener.start()
    handler = _DroppingHandler(lines)
    for logger, level in ((LOGGER, logging.INFO), (logging.getLogger("uvicorn.error"), logging.WARNING)):
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
    return listener


def log(event: str, *, level: int = logging.INFO, exc_info: BaseException | None = None, **fields: object) -> None:
    """Write one line."""
    LOGGER.log(level, event, extra={"fields": fields}, exc_info=exc_info)


class Metrics:
    """Counters of one worker; with several workers, those of all, by files that they share."""

    def __init__(self) -> None:
        self._shared = MULTIPROCESS_DIR in os.environ
        self._registry = CollectorRegistry()
        registry: Any = None if self._shared else self._registry
        self._requests = Counter("imgmatch_requests", "Requests answered.", ["method", "code"], registry=registry)
        self._seconds = Histogram(
            "imgmatch_request_seconds", "Time from head to answer.", ["method"], buckets=_BUCKETS, registry=registry
        )
        self._pictures = Counter("imgmatch_pictures", "Pictures looked at, by outcome.", ["status"], registry=registry)
        self._bytes = Counter("imgmatch_body_bytes", "Bytes of bodies that arrived.", registry=registry)
        self.under_way = Gauge(
            "imgmatch_requests_under_way", "Requests being worked on.", multiprocess_mode="livesum", registry=registry
        )
        self.held_bytes = Gauge(
            "imgmatch_held_bytes", "Bytes of bodies held.", multiprocess_mode="livesum", registry=registry
        )

    def count(self, method: str, code: int, seconds: float, n_bytes: int, statuses: Iterable[str]) -> None:
        """Count an answered request."""
        self._requests.labels(method, str(code)).inc()
        self._seconds.labels(method).observe(seconds)
        self._bytes.inc(n_bytes)
        for status, n_pictures in Tally(statuses).items():
            self._pictures.labels(status).inc(n_pictures)

    def text(self) -> bytes:
        """Return the metrics in the text format of Prometheus."""
        if not self._shared:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def forget_worker(pid: int | None) -> None:
    """Take the gauges of a process that has ended out of the sums."""
    if pid is not None and MULTIPROCESS_DIR in os.environ:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]
