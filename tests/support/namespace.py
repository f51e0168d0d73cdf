"""A network of its own for a test's child process: loopback, some private addresses, and a public one that is ours.

    python -c "import namespace; namespace.enter(); …"

What connects to a private address is noted: the canary listens on every address of the namespace.
"""

import ctypes
import fcntl
import selectors
import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

CANNOT = 77  # the exit code where no namespace can be made
PUBLIC = "93.184.216.34"
PRIVATE = (
    "10.0.0.7",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.192",
    "192.168.0.1",
)
PORTS = (21, 22, 80, 443, 445, 8080, 9000)

_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_SIOCSIFADDR, _SIOCSIFFLAGS, _IFF_UP = 0x8916, 0x8914, 1


def enter() -> None:
    """Move this process, which has one thread yet, into a network that nothing leads out of."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEWNET) and libc.unshare(_NEWUSER | _NEWNET):
        sys.exit(CANNOT)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for number, ip in enumerate(("127.0.0.1", PUBLIC, *PRIVATE)):
            name = b"lo" if number == 0 else b"lo:%d" % number
            address = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(ip))
            fcntl.ioctl(control, _SIOCSIFADDR, struct.pack("16s16s8x", name, address))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))


class Canary:
    """Servers on the usual ports of every address.

    Parameters
    ----------
    respond
        Returns what the public address sends for the path of a request.
    """

    def __init__(self, respond: Callable[[str], bytes]) -> None:
        self.hits: list[str] = []
        self.paths: list[str] = []
        self._respond = respond
        self._selector = selectors.DefaultSelector()
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            for port in PORTS:
                listener = socket.socket(family)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((host, port))
                listener.listen(1024)
                self._selector.register(listener, selectors.EVENT_READ)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                connection, _ = key.fileobj.accept()
                ip, port = connection.getsockname()[:2]
                if ip == PUBLIC:
                    threading.Thread(target=self._answer, args=(connection,), daemon=True).start()
                else:
                    self.hits.append(f"{ip}:{port}")
                    connection.close()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(5)
            request = b""
            while b"\r\n\r\n" not in request:
                more = connection.recv(65536)
                if not more:
                    return
                request += more
            path = request.split(b" ", 2)[1].decode("latin-1")
            self.paths.append(path)
            connection.sendall(self._respond(path))
