"""What decoder processes run: one process that forks, and its children that decode."""

import os
import signal
import socket
from contextlib import suppress
from pickle import loads
from typing import Final

from imgmatch_df.errors import Failure
from imgmatch_df.image_hashes import hash_image
from imgmatch_df.isolation import PID, REQUEST, RESPONSE, receive
from imgmatch_df.options import Options

# Beside what the process has mapped when it starts: the memory of one image.
MAX_BYTES: Final = 1_500_000_000


def serve_forks(fd: int) -> None:
    """Fork a decoder for every socket that comes over `fd`, until that is closed."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a process that forks has one thread
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended children leave nothing behind
    _import_all()
    with socket.socket(fileno=fd) as control:
        while True:
            message, fds, _, _ = socket.recv_fds(control, 1, 1)
            if not message:
                return
            for given in fds:
                if not os.fork():
                    control.close()
                    with socket.socket(fileno=given) as connection:
                        _serve_images(connection)
                    os._exit(0)
                os.close(given)


def _import_all() -> None:
    """Import and compile what a decoder needs."""
    import numpy as np

    grey = b"P5 2 2 255 " + bytes(4)
    hash_image(grey, Options(), np.empty(121, np.uint8))


def _serve_images(connection: socket.socket) -> None:
    import numpy as np

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _limit_memory()
    connection.sendall(PID.pack(os.getpid()))
    bmh1 = np.empty(121, np.uint8)
    options_bytes, options = b"", Options()
    with suppress(EOFError, ConnectionError):
        while True:
            n_options, n_data = REQUEST.unpack(receive(connection, REQUEST.size))
            given = bytes(receive(connection, n_options))
            if given != options_bytes:
                options_bytes, options = given, loads(given)  # noqa: S301  # of the process that started this one
            try:
                data = receive(connection, n_data)
                result = hash_image(memoryview(data), options, bmh1)
            except MemoryError:
                result = Failure("decode_failed", "not enough memory to decode it")
            if isinstance(result, Failure):
                rest = "\n".join(result).encode("utf-8", "replace")
                response = RESPONSE.pack(0, 0, 0, 0, len(rest))
            else:
                rest = bmh1.tobytes()
                response = RESPONSE.pack(1, result.width, result.height, result.phash, len(rest))
            connection.sendall(response + rest)
            del data


def _limit_memory() -> None:
    import resource

    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123
            mapped = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # not Linux
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = mapped + MAX_BYTES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, wanted))
