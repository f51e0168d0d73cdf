"""Decoder processes: an image that crashes its decoder, or takes too long or too much memory, affects only its row.

A thread cannot be stopped, and shares its memory. Each hashing thread therefore sends its images to a separate process,
which returns the hashes. The processes are forked from a fork server, which has imported everything and has no other
threads. A fork takes milliseconds, so a killed process is soon replaced.
"""

import atexit
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from pickle import dumps
from time import monotonic, sleep
from typing import Any, Final

from imgmatch_df.batch.decoder import (
    LENGTH,
    LOST,
    NORMAL,
    START_S,
    Begun,
    DeclinedError,
    Decoder,
    DecoderLostError,
    Lane,
    receive,
)
from imgmatch_df.batch.decoder import LOW as LOW
from imgmatch_df.batch.image_hashes import HashBuffers, ImageSize
from imgmatch_df.errors import ArgumentError, Failure, ImgMatchError
from imgmatch_df.hashes.kinds import KINDS, MEASURES, ImageColumn
from imgmatch_df.images import pixel_budget
from imgmatch_df.options import Options

# 88 megapixels take 3 to 27 s in the slowest formats, and larger images of these exceed the limit of memory.
DEADLINE_S: Final = 30.0
_BUFFER_BYTES: Final = 1 << 20  # larger than most images; the system may allow less
_END_S: Final = 10.0
_PAUSES_S: Final = (0.05, 0.5)  # before each retry to start a process

_MAIN: Final = (
    "import sys; sys.path[:] = {path!r}; from imgmatch_df.batch.isolation_process import serve_forks; "
    "serve_forks({fd}, {kinds!r})"
)


class DecodersUnavailableError(ImgMatchError):
    """No decoder process can be started."""


_ANY: Final = Lane()


class _ForkServer:
    """The process that forks decoders; all of them end with it.

    Raises
    ------
    OSError
        If it cannot be started.
    """

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                code = _MAIN.format(
                    path=sys.path, fd=theirs.fileno(), kinds=dumps((*KINDS.values(), *MEASURES.values()))
                )
                self.process = subprocess.Popen(  # noqa: S603  # our own interpreter
                    [sys.executable, "-c", code],
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C on the terminal must reach the caller only
                )
        except BaseException:
            self._control.close()
            raise
        self._control.settimeout(START_S)
        self._is_ready = False

    def wait_until_ready(self) -> None:
        """Wait until the fork server has imported and compiled everything.

        Raises
        ------
        DecodersUnavailableError
            If it cannot decode.
        OSError, EOFError
            If it ends, or does not respond in time.
        """
        if self._is_ready:
            return
        (n_bytes,) = LENGTH.unpack(receive(self._control, LENGTH.size))
        if n_bytes:
            reason = receive(self._control, n_bytes).decode(errors="replace")
            raise DecodersUnavailableError(_unavailable(reason))
        self._is_ready = True

    def fork(self, priority: bytes) -> Decoder:
        """Return a new decoder."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            with theirs:
                socket.send_fds(self._control, [priority], [theirs.fileno()])
            return Decoder(ours)
        except BaseException:
            ours.close()
            raise

    def close(self) -> None:
        """End the fork server."""
        with suppress(OSError):  # it has already ended
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            self.process.wait(_END_S if self._is_ready else 0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._control.close()

    def forget(self) -> None:
        """Close the connections that a forked child has inherited."""
        self._control.close()


def _unavailable(reason: object) -> str:
    return (
        f"no decoder process can be started: {reason}\n"
        "Hint: allow more processes, memory and open files, or decode in this process (isolate=False, --no-isolate)."
    )


def _within_s(lane: Lane) -> float:
    return DEADLINE_S if lane.max_s is None else lane.max_s


class Decoders:
    """The decoder processes of this process: one per thread that hashes."""

    def __init__(self) -> None:
        if not hasattr(os, "fork"):
            raise ArgumentError("isolate=True needs os.fork, which this system does not have\nHint: leave isolate out.")
        self._lock = threading.Lock()
        self._starting = threading.Lock()
        self._free: list[Decoder] = []
        self._free_low: list[Decoder] = []
        self._server: _ForkServer | None = None
        self._is_closed = False
        self.responded_at = 0.0  # time of `monotonic` at which an image was last decoded or failed

    def hash_image(self, data: Any, options: Options, out: HashBuffers, lane: Lane = _ANY) -> ImageSize | Failure:
        """Write the hashes of an encoded image; return its size, or why it has no hashes; see `hash_image`.

        Each request has the hash kinds, so kinds that were registered after the start are computed too.

        Raises
        ------
        ImgMatchError
            If the kernel of a hash kind cannot be imported, or raises an exception.
        DeclinedError
            If the image is too large or too slow for the lane; it can be hashed in another lane.
        DecodersUnavailableError
            If no process can be started.
        """
        request = pickled(options, tuple(out))
        with lane.budget or pixel_budget.PIXELS:
            decoder = self._take(lane.priority)
            return self._run(decoder, lane, partial(decoder.hash, data, request, out, lane, _within_s(lane)))

    def resume(self, decoder: Decoder, begun: Begun, out: HashBuffers, lane: Lane) -> ImageSize | Failure:
        """Complete an image that was sent to `decoder` without waiting, as `hash_image`."""
        with lane.budget or pixel_budget.PIXELS:
            return self._run(decoder, lane, partial(decoder.resume, begun, out, lane, _within_s(lane)))

    def take_free(self) -> Decoder | None:
        """Return a decoder of normal priority that is running and free, None if there is none."""
        with self._lock:
            return self._free.pop() if self._free else None

    def _run(self, decoder: Decoder, lane: Lane, hash_one: Callable[[], ImageSize | Failure]) -> ImageSize | Failure:
        try:
            result = hash_one()
        except DeclinedError:
            self._give_back(decoder, lane.priority)
            raise
        except TimeoutError:
            decoder.kill()
            if lane.max_s is not None:
                raise DeclinedError from None
            return Failure("decode_failed", f"not decoded within {DEADLINE_S:g} s")
        except DecoderLostError:
            decoder.close()
            return LOST
        except ImgMatchError:
            self._give_back(decoder, lane.priority)
            raise
        except BaseException:  # Ctrl-C: the next response would belong to this image
            decoder.kill()
            raise
        self.responded_at = monotonic()
        self._give_back(decoder, lane.priority)
        return result

    def warm_up(self, n_decoders: int, priority: bytes = NORMAL) -> None:
        """Start `n_decoders` processes now."""
        for decoder in [self._take(priority) for _ in range(n_decoders)]:
            self._give_back(decoder, priority)

    def close(self) -> None:
        """End all processes, also those that are decoding."""
        with self._lock:
            self._is_closed = True
            for decoder in self._free + self._free_low:
                decoder.close()
            self._free.clear()
            self._free_low.clear()
            if self._server is not None:
                self._server.close()

    def forget(self) -> None:
        """Close the connections that a forked child has inherited."""
        for decoder in self._free + self._free_low:
            decoder.close()
        if self._server is not None:
            self._server.forget()

    def _free_of(self, priority: bytes) -> list[Decoder]:
        return self._free if priority == NORMAL else self._free_low

    def _give_back(self, decoder: Decoder, priority: bytes) -> None:
        with self._lock:
            if not self._is_closed:
                self._free_of(priority).append(decoder)
                return
        decoder.close()

    def _take(self, priority: bytes) -> Decoder:
        with self._lock:
            free = self._free_of(priority)
            if free:
                return free.pop()
        error: Exception | None = None
        for pause_s in (0.0, *_PAUSES_S):
            sleep(pause_s)
            try:
                return self._ready_server().fork(priority)
            except (OSError, EOFError, DecoderLostError) as found:  # as if resources are short for a moment
                error = found
        raise DecodersUnavailableError(_unavailable(str(error) or "its process ended")) from error

    def _ready_server(self) -> _ForkServer:
        """Return the fork server; a new one if it has ended."""
        with self._starting:
            with self._lock:
                if self._is_closed:
                    raise DecodersUnavailableError(_unavailable("they have been closed"))
                server = self._server
                if server is None or server.process.poll() is not None:
                    if server is not None:
                        server.close()
                    server = self._server = _ForkServer()
            server.wait_until_ready()
            return server


@lru_cache(maxsize=16)
def pickled(options: Options, kinds: tuple[ImageColumn, ...]) -> bytes:
    """Return the request for images with these options and hash kinds."""
    return dumps((options, kinds))


_lock = threading.Lock()
_decoders: Decoders | None = None


def decoders() -> Decoders:
    """Return the decoder processes of this process, which are started on first use."""
    global _decoders
    with _lock:
        if _decoders is None:
            _decoders = Decoders()
        return _decoders


def _close_at_exit() -> None:
    global _decoders
    with _lock:
        closing, _decoders = _decoders, None
    if closing is not None:
        closing.close()


def _leave_to_parent() -> None:
    global _lock, _decoders
    _lock = threading.Lock()
    if _decoders is not None:
        _decoders.forget()
    _decoders = None


atexit.register(_close_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
