"""Decoder processes: an image that crashes its decoder, or takes too long or too much memory, costs one row.

A thread cannot be stopped and shares its memory, so each thread that hashes talks to a process of its own: bytes go in,
hashes come out. The processes are forked from one that has everything imported and no other threads, which takes
milliseconds, so a killed one is replaced at once.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from functools import lru_cache
from pickle import dumps
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from imgmatch_df.errors import ArgumentError, Failure
from imgmatch_df.image_hashes import ImageHashes
from imgmatch_df.options import Options

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# 88 megapixels, the default of `max_pixels`, take 3 to 27 s in the slowest formats.
DEADLINE_S: Final = 30.0
_START_S: Final = 120.0  # importing and compiling, on a busy machine

REQUEST: Final = Struct("<IQ")  # bytes of the options, bytes of the image
RESPONSE: Final = Struct("<BIIQI")  # whether it is hashed, width, height, phash, bytes of what follows
PID: Final = Struct("<I")

_MAIN: Final = (
    "import sys; sys.path[:] = {path!r}; from imgmatch_df.isolation_process import serve_forks; serve_forks({fd})"
)


class DecoderLostError(Exception):
    """The decoder process ended in the middle of an image."""


class _Decoder:
    """A decoder process, for one image at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(_START_S)
        self._pid: int = PID.unpack(self._receive(PID.size))[0]

    def hash(self, data: Any, options: bytes, bmh1_out: "NDArray[np.uint8]") -> ImageHashes | Failure:
        """Have an image hashed.

        Raises
        ------
        DecoderLostError
            If the process ends before it responds.
        TimeoutError
            If it does not respond by the deadline.
        """
        self._connection.settimeout(DEADLINE_S)
        try:
            self._connection.sendall(REQUEST.pack(len(options), memoryview(data).nbytes) + options)
            self._connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise DecoderLostError from error
        ok, width, height, phash, n_bytes = RESPONSE.unpack(self._receive(RESPONSE.size))
        rest = self._receive(n_bytes)
        if ok:
            bmh1_out[:] = memoryview(rest)
            return ImageHashes(width, height, phash)
        status, _, detail = rest.decode().partition("\n")
        return Failure(status, detail)

    def kill(self) -> None:
        """End the process, whatever it does."""
        # Its end of the connection is open, so it has not ended, and its number is not another's.
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._connection.close()

    def close(self) -> None:
        """Let the process end by itself."""
        self._connection.close()

    def _receive(self, n_bytes: int) -> bytearray:
        try:
            return receive(self._connection, n_bytes)
        except (EOFError, ConnectionResetError) as error:
            raise DecoderLostError from error


def receive(connection: socket.socket, n_bytes: int) -> bytearray:
    """Return the next bytes of a connection; raise EOFError where it ends before."""
    out = bytearray(n_bytes)
    view, at = memoryview(out), 0
    while at < n_bytes:
        n_more = connection.recv_into(view[at:])
        if not n_more:
            raise EOFError
        at += n_more
    return out


class Decoders:
    """The decoder processes of this process: as many as there are threads that hash at a time."""

    def __init__(self) -> None:
        if not hasattr(os, "fork"):
            raise ArgumentError("isolate=True needs a system with fork\nHint: leave isolate out on Windows.")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._control = ours
        self._lock = threading.Lock()
        self._free: list[_Decoder] = []
        with theirs:
            code = _MAIN.format(path=sys.path, fd=theirs.fileno())
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter
                [sys.executable, "-c", code],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C on the terminal is for the caller
            )

    def hash_image(self, data: Any, options: Options, bmh1_out: "NDArray[np.uint8]") -> ImageHashes | Failure:
        """Return the hashes of an encoded image, or why it has none; as `image_hashes.hash_image`."""
        pickled = _pickled(options)
        decoder = self._take()
        try:
            result = decoder.hash(data, pickled, bmh1_out)
        except TimeoutError:
            decoder.kill()
            return Failure("decode_failed", f"not decoded within {DEADLINE_S:g} s")
        except DecoderLostError:
            decoder.close()
            return Failure("decode_failed", "the decoder crashed, or ran out of memory")
        except BaseException:  # Ctrl-C: its next response would be that of this image
            decoder.kill()
            raise
        with self._lock:
            self._free.append(decoder)
        return result

    def warm_up(self, n_decoders: int) -> None:
        """Start so many processes now."""
        decoders = [self._take() for _ in range(n_decoders)]
        with self._lock:
            self._free += decoders

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            for decoder in self._free:
                decoder.close()
            self._free.clear()
            self._control.close()
        self._process.wait()

    def forget(self) -> None:
        """Close what a forked child has inherited."""
        for decoder in self._free:
            decoder.close()
        self._control.close()

    def _take(self) -> _Decoder:
        with self._lock:
            if self._free:
                return self._free.pop()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with theirs:
                socket.send_fds(self._control, [b"f"], [theirs.fileno()])
        try:
            return _Decoder(ours)
        except BaseException:
            ours.close()
            raise


@lru_cache(maxsize=16)
def _pickled(options: Options) -> bytes:
    return dumps(options)


_lock = threading.Lock()
_decoders: Decoders | None = None


def decoders() -> Decoders:
    """Return the decoder processes of this process, which are started when they are needed first."""
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
