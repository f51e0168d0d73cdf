"""Code of the decoder processes: the fork server and its children, which decode."""

import ctypes
import errno
import gc
import os
import signal
import socket
import sys
import warnings
from contextlib import suppress
from pickle import loads
from typing import Final

from imgmatch_df.batch.decoder import (
    FAILED,
    GRANTED,
    HASHED,
    KERNEL_FAILED,
    LENGTH,
    LOW,
    NEEDS_BYTES,
    PID,
    REQUEST,
    RESPONSE,
    receive,
)
from imgmatch_df.batch.image_hashes import hash_image, sample_images
from imgmatch_df.errors import ArgumentError, Failure, ImgMatchError
from imgmatch_df.hashes.kinds import ImageColumn, empty_row, load_kernel
from imgmatch_df.images import pixel_budget
from imgmatch_df.images.pixel_budget import PixelBudget
from imgmatch_df.options import Options

# Memory of one image, in addition to that of the process when it starts.
MAX_MEMORY_BYTES: Final = 2_000_000_000
_LOW_NICENESS: Final = 10  # a tenth of the processor time of a process of normal priority
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def serve_forks(fd: int, kinds: bytes) -> None:
    """Fork a decoder for each socket that is received over `fd`, until `fd` is closed; then kill all decoders.

    `kinds` is a pickled tuple of the hash kinds whose kernels are imported first.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # the process that started this one handles them and ends this one
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=fd) as control:
        try:
            _warm_up(loads(kinds))  # noqa: S301  # written by the process that started this one
        except Exception as error:  # noqa: BLE001  # raised in the process that started this one
            reason = f"{type(error).__name__}: {error}".encode("utf-8", "replace")
            control.sendall(LENGTH.pack(len(reason)) + reason)
            return
        control.sendall(LENGTH.pack(0))
        children: set[int] = set()
        try:
            while _serve_fork(control, children):
                pass
        finally:
            for child in children:  # `waitpid` was not called for them, so no process ID was reused
                os.kill(child, signal.SIGKILL)
            for child in children:
                os.waitpid(child, 0)


def _serve_fork(control: socket.socket, children: set[int]) -> bool:
    """Fork one decoder; return False if the connection is closed."""
    try:
        priority, fds, _, _ = socket.recv_fds(control, 1, 1)
    except ConnectionResetError:
        return False
    if not priority:
        return False
    for child in list(children):
        if os.waitpid(child, os.WNOHANG)[0]:
            children.remove(child)
    for given in fds:
        try:
            child = os.fork()
        except OSError as error:
            with socket.socket(fileno=given) as connection, suppress(ConnectionError):
                connection.sendall(PID.pack(-(error.errno or errno.EAGAIN)))
            continue
        if not child:
            control.close()
            try:
                _run_decoder(given, priority)
            finally:
                os._exit(0)
        os.close(given)
        children.add(child)
    return True


def _warm_up(kinds: tuple[ImageColumn, ...]) -> None:
    """Import and compile everything for decoding, so that all decoders share it."""
    importable = []
    for kind in kinds:
        with suppress(ArgumentError):  # raised again for the first image that needs this kind
            load_kernel(kind)
            importable.append(kind)
    # `os.fork` warns of threads of libraries, which the decoders do not use.
    warnings.simplefilter("ignore", DeprecationWarning)
    # With a trim, so that its kernel is there too; the samples have no borders.
    options = Options(trim="borders")
    hashed = [hash_image(sample, options, empty_row(importable)) for sample in sample_images()]
    for result in hashed:
        if isinstance(result, Failure):
            raise RuntimeError(f"a sample image cannot be decoded: {result.detail}")
    gc.freeze()  # a collection would write to shared pages and copy them


def _run_decoder(fd: int, priority: bytes) -> None:
    _end_with_parent()
    if priority == LOW:
        os.nice(_LOW_NICENESS)
    _limit_memory()
    with socket.socket(fileno=fd) as connection, suppress(EOFError, ConnectionError):
        _serve_images(connection)


class _ImageDeclined(BaseException):
    """The parent process declined the image. Not an `Exception`, so that no decoder reports a damaged image."""


class _BudgetOfParent(PixelBudget):
    """The budget of the parent process, used over the connection."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(0)
        self._connection = connection
        self.n_bytes = 0  # taken for the current image

    def take(self, n_bytes: int) -> None:
        """Take the bytes of the current image; raise `_ImageDeclined` if the parent process declines."""
        if n_bytes <= max(pixel_budget.SMALL, self.n_bytes):
            return
        self._connection.sendall(RESPONSE.pack(NEEDS_BYTES, 0, 0, n_bytes, 0))
        if receive(self._connection, 1) != GRANTED:
            raise _ImageDeclined
        self.n_bytes = n_bytes


def _serve_images(connection: socket.socket) -> None:
    budget = pixel_budget.PIXELS = _BudgetOfParent(connection)
    connection.sendall(PID.pack(os.getpid()))
    last, options, out = b"", Options(), empty_row(())
    while True:
        n_request, n_data = REQUEST.unpack(receive(connection, REQUEST.size))
        request = bytes(receive(connection, n_request))
        if request != last:
            options, kinds = loads(request)  # noqa: S301  # written by the process that started this one
            last, out = request, empty_row(kinds)
        budget.n_bytes = 0
        data = None
        try:
            data = receive(connection, n_data)
            result = hash_image(memoryview(data), options, out)
        except MemoryError:
            result = Failure("decode_failed", "not enough memory to decode it")
        except _ImageDeclined:
            continue
        except ImgMatchError as error:
            message = str(error).encode("utf-8", "replace")
            connection.sendall(RESPONSE.pack(KERNEL_FAILED, 0, 0, 0, len(message)) + message)
            continue
        finally:
            del data
        if isinstance(result, Failure):
            rest = "\n".join(result).encode("utf-8", "replace")
            response = RESPONSE.pack(FAILED, 0, 0, 0, len(rest))
        else:
            rest = b"".join(row.tobytes() for row in out.values()) + (result.detail or "").encode()
            response = RESPONSE.pack(HASHED, result.width, result.height, 0, len(rest))
        connection.sendall(response + rest)


def _end_with_parent() -> None:
    """Make the system kill this process if the fork server is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_memory() -> None:
    import resource

    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123
            mapped = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # not Linux
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = mapped + MAX_MEMORY_BYTES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, wanted))
