"""Decoder processes: an image that crashes its decoder, or takes too long or too much memory, affects only its row.

A thread cannot be stopped, and shares its memory. Each hashing thread therefore sends its images to a separate process,
which returns the hashes. The processes are forked from a fork server, which has imported everything and has no other
threads. A fork takes milliseconds, so a killed process is soon replaced.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from pickle import dumps
from struct import Struct
from time import monotonic, sleep
from typing import Any, Final, NamedTuple

from imgmatch_df.batch.image_hashes import HashBuffers, ImageSize
from imgmatch_df.errors import ArgumentError, Failure, ImgMatchError
from imgmatch_df.hashes.kinds import KINDS, MEASURES, ImageColumn
from imgmatch_df.images import pixel_budget
from imgmatch_df.images.pixel_budget import PixelBudget
from imgmatch_df.options import Options

# 88 megapixels take 3 to 27 s in the slowest formats, and larger images of these exceed the limit of memory.
DEADLINE_S: Final = 30.0
_START_S: Final = 120.0  # importing and compiling, on a busy machine
_BUFFER_BYTES: Final = 1 << 20  # larger than most images; the system may allow less
_END_S: Final = 10.0
_PAUSES_S: Final = (0.05, 0.5)  # before each retry to start a process

REQUEST: Final = Struct("<IQ")  # lengths in bytes: of the pickled options and hash kinds, of the image
RESPONSE: Final = Struct("<BIIQI")  # kind, width, height, bytes of memory, length of the payload in bytes
_RESPONSE_BYTES: Final = 512
_N_WAITS: Final = 4  # timeouts until an image is declined that got little processor time
# Kinds of responses, and their payload.
FAILED: Final = 0  # status and detail of a `Failure`, in two lines
HASHED: Final = 1  # the hashes, in the order of the request, and the detail
NEEDS_BYTES: Final = 2  # none; the image needs this memory, which one byte grants or declines
KERNEL_FAILED: Final = 3  # the message of an error in the kernel of a hash kind
GRANTED: Final = b"y"
DECLINED: Final = b"n"
PID: Final = Struct("<i")  # or the error number of fork(2), negative
LENGTH: Final = Struct("<I")  # of the reason why the fork server cannot decode; 0 if it can
# The byte that is sent to the fork server with a socket: the priority of the decoder.
NORMAL: Final = b"n"
LOW: Final = b"l"

_MAIN: Final = (
    "import sys; sys.path[:] = {path!r}; from imgmatch_df.batch.isolation_process import serve_forks; "
    "serve_forks({fd}, {kinds!r})"
)


LOST: Final = Failure("decode_failed", "the decoder crashed, or ran out of memory")


class DecoderLostError(Exception):
    """The decoder process ended before it responded."""


class DeclinedError(Exception):
    """The image takes more memory or time than its lane allows."""


class DecodersUnavailableError(ImgMatchError):
    """No decoder process can be started."""


class Lane(NamedTuple):
    """Limits for the images of some callers.

    Parameters
    ----------
    budget
        Limits the total memory of images that are decoded at a time; None means the budget of this process.
    max_bytes
        Images that take more memory are declined.
    max_s
        Images that take more seconds are declined. None: they fail after `DEADLINE_S`.
    priority
        `NORMAL`, or `LOW` for processes that yield the processors to others.
    """

    budget: PixelBudget | None = None
    max_bytes: float = float("inf")
    max_s: float | None = None
    priority: bytes = NORMAL


_ANY: Final = Lane()


class Decoder:
    """A decoder process, for one image at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(_START_S)
        self._pid: int = PID.unpack(self._receive(PID.size))[0]
        if self._pid < 0:
            raise OSError(-self._pid, os.strerror(-self._pid))

    def hash(self, data: Any, request: bytes, out: HashBuffers, lane: Lane) -> ImageSize | Failure:
        """Write the hashes of an encoded image; return its size, or why it has no hashes.

        `request` is a pickled tuple of the options and the hash kinds.

        Raises
        ------
        DecoderLostError
            If the process ends before it responds.
        TimeoutError
            If it does not respond before the deadline.
        DeclinedError
            If the image takes more memory than the lane allows. The process can be used again.
        """
        self._connection.settimeout(_within_s(lane))
        self._send_image(_header(request, data), memoryview(data).cast("B"))
        return self._receive_result(out, lane, self.used_s(), None)

    def send_now(self, request: bytes, data: bytes) -> memoryview:
        """Send a request as far as possible without waiting; return the rest of the image, which `resume` must send.

        Raises
        ------
        DecoderLostError
            If the process has ended, or does not read.
        """
        header = _header(request, data)
        self._connection.setblocking(False)
        try:
            n_sent = self._connection.sendmsg([header, data]) - len(header)
        except OSError as error:
            raise DecoderLostError from error
        if n_sent < 0:
            raise DecoderLostError
        return memoryview(data)[n_sent:]

    def receive_now(self) -> bytes:
        """Return the bytes that have arrived of the response to `send_now`, at most `_RESPONSE_BYTES`.

        Raises
        ------
        BlockingIOError
            If there are none.
        DecoderLostError
            If the process has ended.
        """
        try:
            received = self._connection.recv(_RESPONSE_BYTES)
        except ConnectionResetError as error:
            raise DecoderLostError from error
        if not received:
            raise DecoderLostError
        return received

    def resume(self, rest: memoryview, received: bytes, out: HashBuffers, lane: Lane, began_s: float) -> Any:
        """Complete what `send_now` has begun, as `hash`.

        Parameters
        ----------
        rest
            The part of the image that has not been sent.
        received
            The part of the response that has been received.
        out, lane
            As for `hash`.
        began_s
            Value of `used_s` when the image was sent.

        Raises
        ------
        TimeoutError
            At once if nothing is left but to wait, and the process has used half of the time of the lane.
        """
        self._connection.settimeout(_within_s(lane))
        if rest:
            try:
                self._connection.sendall(rest)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise DecoderLostError from error
        if not rest and not received and lane.max_s is not None and self.used_s() - began_s > lane.max_s / 2:
            raise TimeoutError
        if received and len(received) < RESPONSE.size:
            received += self._receive(RESPONSE.size - len(received))
        return self._receive_result(out, lane, began_s, bytearray(received) or None)

    def _receive_result(
        self, out: HashBuffers, lane: Lane, began_s: float, response: bytearray | None
    ) -> ImageSize | Failure:
        while True:
            response = response or self._receive_start(began_s, lane)
            kind, _, _, number, n_bytes = RESPONSE.unpack_from(response)
            if kind != NEEDS_BYTES:
                break
            if number > lane.max_bytes:
                self._send(DECLINED)
                raise DeclinedError
            (lane.budget or pixel_budget.PIXELS).take(number)
            self._send(GRANTED)
            response = None
        response += self._receive(RESPONSE.size + n_bytes - len(response))
        return read_response(response, out)

    def kill(self) -> None:
        """Kill the process."""
        # Its end of the connection is open, so it is running, and its process ID was not reused.
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._connection.close()

    def fileno(self) -> int:
        """Return the file descriptor of the connection."""
        return self._connection.fileno()

    def close(self) -> None:
        """Close the connection, which ends the process."""
        self._connection.close()

    def _send_image(self, header: bytes, data: memoryview) -> None:
        """Send a request, as much as possible in one call, so that the process wakes up once."""
        try:
            n_sent = self._connection.sendmsg([header, data]) - len(header)
            if n_sent < 0:  # the process does not read
                raise DecoderLostError
            self._connection.sendall(data[n_sent:])
        except (BrokenPipeError, ConnectionResetError) as error:
            raise DecoderLostError from error

    def _send(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise DecoderLostError from error

    def used_s(self) -> float:
        """Return the processor time of the process in seconds; if the system does not provide it, the current time."""
        if sys.platform != "linux":
            return monotonic()
        from time import clock_gettime

        try:
            return clock_gettime((~self._pid << 3) | 2)  # the clock of another process: clock_getcpuclockid(3)
        except OSError as error:
            raise DecoderLostError from error

    def _receive_start(self, began_s: float, lane: Lane) -> bytearray:
        """Return the first bytes of a response: at least its header, nearly always all of it."""
        out = bytearray(_RESPONSE_BYTES)
        n_bytes = 0
        for n_left in reversed(range(_N_WAITS)):
            try:
                n_bytes = self._connection.recv_into(out)
                break
            except TimeoutError:
                # On a busy machine the process may have waited for a processor.
                if lane.max_s is None or not n_left or self.used_s() - began_s > lane.max_s / 2:
                    raise
            except ConnectionResetError as error:
                raise DecoderLostError from error
        if not n_bytes:
            raise DecoderLostError
        del out[n_bytes:]
        if n_bytes < RESPONSE.size:
            out += self._receive(RESPONSE.size - n_bytes)
        return out

    def _receive(self, n_bytes: int) -> bytearray:
        try:
            return receive(self._connection, n_bytes)
        except (EOFError, ConnectionResetError) as error:
            raise DecoderLostError from error


def _within_s(lane: Lane) -> float:
    return DEADLINE_S if lane.max_s is None else lane.max_s


def _header(request: bytes, data: Any) -> bytes:
    return REQUEST.pack(len(request), memoryview(data).nbytes) + request


def is_result(response: bytes) -> bool:
    """Return whether a response is complete, and the last one to its image."""
    if len(response) < RESPONSE.size:
        return False
    kind, _, _, _, n_bytes = RESPONSE.unpack_from(response)
    return kind in (HASHED, FAILED) and len(response) == RESPONSE.size + n_bytes


def read_response(response: bytes | bytearray, out: HashBuffers) -> ImageSize | Failure:
    """Return the size of an image, and write its hashes, or return why it has none, from a complete response.

    Raises
    ------
    ImgMatchError
        If the kernel of a hash kind has failed.
    """
    kind, width, height, _, _ = RESPONSE.unpack_from(response)
    rest = memoryview(response)[RESPONSE.size :]
    if kind == HASHED:
        at = 0
        for row in out.values():
            row.view("u1")[:] = rest[at : at + row.nbytes]
            at += row.nbytes
        return ImageSize(width, height, bytes(rest[at:]).decode() or None)
    text = bytes(rest).decode()
    if kind == KERNEL_FAILED:
        raise ImgMatchError(text)
    status, _, detail = text.partition("\n")
    return Failure(status, detail)


def receive(connection: socket.socket, n_bytes: int) -> bytearray:
    """Return the next bytes of a connection; raise EOFError if it ends before."""
    out = bytearray(n_bytes)
    view, at = memoryview(out), 0
    while at < n_bytes:
        n_more = connection.recv_into(view[at:])
        if not n_more:
            raise EOFError
        at += n_more
    return out


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
        self._control.settimeout(_START_S)
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
            return self._run(decoder, lane, partial(decoder.hash, data, request, out, lane))

    def resume(self, decoder: Decoder, lane: Lane, *begun: Any) -> ImageSize | Failure:
        """Complete an image that `decoder` has begun, as `hash_image`; `begun` are arguments of `Decoder.resume`."""
        rest, received, out, began_s = begun
        with lane.budget or pixel_budget.PIXELS:
            return self._run(decoder, lane, partial(decoder.resume, rest, received, out, lane, began_s))

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
