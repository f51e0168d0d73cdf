"""One decoder process, and the messages between it and its parent process."""

import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from struct import Struct
from time import monotonic
from typing import Any, Final, NamedTuple

from imgmatch_df.batch.image_hashes import HashBuffers, ImageSize
from imgmatch_df.errors import Failure, ImgMatchError
from imgmatch_df.images import pixel_budget
from imgmatch_df.images.pixel_budget import PixelBudget

START_S: Final = 120.0  # importing and compiling, on a busy machine
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
LOST: Final = Failure("decode_failed", "the decoder crashed, or ran out of memory")


class DecoderLostError(Exception):
    """The decoder process ended before it responded."""


class DeclinedError(Exception):
    """The image takes more memory or time than its lane allows."""


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


@dataclass(slots=True)
class Begun:
    """An image that was sent to a decoder without waiting.

    Parameters
    ----------
    rest
        The part of the image that has not been sent.
    used_s
        Value of `Decoder.used_s` when the image was sent.
    received
        The part of the response that has been received.
    """

    rest: memoryview
    used_s: float
    received: bytes = b""


class Decoder:
    """A decoder process, for one image at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(START_S)
        self._pid: int = PID.unpack(self._receive(PID.size))[0]
        if self._pid < 0:
            raise OSError(-self._pid, os.strerror(-self._pid))

    def hash(self, data: Any, request: bytes, out: HashBuffers, lane: Lane, within_s: float) -> ImageSize | Failure:
        """Write the hashes of an encoded image; return its size, or why it has no hashes.

        `request` is a pickled tuple of the options and the hash kinds; `within_s` the maximum time of a response.

        Raises
        ------
        DecoderLostError
            If the process ends before it responds.
        TimeoutError
            If it does not respond before the deadline.
        DeclinedError
            If the image takes more memory than the lane allows. The process can be used again.
        """
        self._connection.settimeout(within_s)
        self._send_image(_header(request, data), memoryview(data).cast("B"))
        return self._receive_result(out, lane, self.used_s(), None)

    def send_now(self, request: bytes, data: bytes) -> "Begun":
        """Send a request as far as possible without waiting.

        Raises
        ------
        DecoderLostError
            If the process has ended, or does not read.
        """
        header = _header(request, data)
        used_s = self.used_s()
        self._connection.setblocking(False)
        try:
            n_sent = self._connection.sendmsg([header, data]) - len(header)
        except OSError as error:
            raise DecoderLostError from error
        if n_sent < 0:
            raise DecoderLostError
        return Begun(memoryview(data)[n_sent:], used_s)

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

    def resume(self, begun: "Begun", out: HashBuffers, lane: Lane, within_s: float) -> ImageSize | Failure:
        """Complete what `send_now` has begun, as `hash`.

        Parameters
        ----------
        begun
            What has been sent and received.
        out, lane, within_s
            As for `hash`.

        Raises
        ------
        TimeoutError
            At once if nothing is left but to wait, and the process has used half of the time of the lane.
        """
        self._connection.settimeout(within_s)
        received = begun.received
        if begun.rest:
            try:
                self._connection.sendall(begun.rest)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise DecoderLostError from error
        is_late = lane.max_s is not None and self.used_s() - begun.used_s > lane.max_s / 2
        if is_late and not begun.rest and not received:
            raise TimeoutError
        if received and len(received) < RESPONSE.size:
            received += self._receive(RESPONSE.size - len(received))
        return self._receive_result(out, lane, begun.used_s, bytearray(received) or None)

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
    if kind == HASHED:
        import numpy as np

        at = RESPONSE.size
        for row in out.values():
            row.view("u1")[:] = np.frombuffer(response, "u1", row.nbytes, at)
            at += row.nbytes
        return ImageSize(width, height, response[at:].decode() or None)
    text = response[RESPONSE.size :].decode()
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
