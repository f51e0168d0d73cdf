"""Sockets, processes and signals of the service: how it starts, replaces dead workers, and stops."""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from contextlib import ExitStack, suppress
from dataclasses import replace
from multiprocessing.connection import wait
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from imgmatch_df.errors import ArgumentError, ImgMatchError
from imgmatch_df.options import Options
from imgmatch_df.server.accepting import Acceptor
from imgmatch_df.server.app import Service, create_app
from imgmatch_df.server.handlers import warm_up
from imgmatch_df.server.hash_queue import Known, nothing_known
from imgmatch_df.server.metrics_folder import metrics_folder, remove_unused_folders, using_folder
from imgmatch_df.server.protocol import Connection
from imgmatch_df.server.settings import Settings
from imgmatch_df.server.store_lookup import StoredRows, check_store
from imgmatch_df.server.telemetry import MULTIPROCESS_DIR, forget_worker, log, start_logging
from imgmatch_df.threads import n_threads

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

_BACKLOG: Final = 2048
# An open connection may carry a next request, already on its way when the service receives the signal to stop.
_LINGER_S: Final = 1.0
_SETTLE_S: Final = 0.25
# OPEN_MAX of macOS: setrlimit(2) refuses more, although getrlimit(2) returns infinity.
_MACOS_FILES: Final = 10_240
# Open files other than clients' connections, downloads, and the two sockets of each decoder process.
_OTHER_FILES: Final = 64
CANNOT_HASH: Final = 3  # exit code
_STOPS: Final = (signal.SIGTERM, signal.SIGINT)


class Server(uvicorn.Server):
    """Server of uvicorn that aborts stuck connections, and stops without losing a request."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._acceptors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept connections."""
        if sys.platform == "win32":  # its event loop has no `add_reader`
            await super().startup(sockets)
            return
        await super().startup([])
        self._acceptors = [Acceptor(listener, self._connect) for listener in sockets or []]

    async def on_tick(self, counter: int) -> bool:
        """Update a metric ten times a second, and abort stuck connections once a second."""
        self._service.count_held()
        if counter % 10 == 0:
            now = monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.abort_if_stuck(now)
        return await super().on_tick(counter) or self._service.failed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, respond to the requests of the open ones, then end."""
        self._service.draining = True
        log("stopping", connections=len(self.server_state.connections))
        for server in self.servers:
            server.close()
        for acceptor in self._acceptors:
            for connection in acceptor.stop():
                await acceptor.connect(connection)
        began = monotonic()
        # At least `_SETTLE_S`: accepted connections are in `connections` a moment later.
        while not self.force_exit and (passed := monotonic() - began) < _LINGER_S:
            if passed > _SETTLE_S and not self.server_state.connections:
                break
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)
        log("stopped")

    def _connect(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


def run_service(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then complete the requests in flight.

    Raises
    ------
    ArgumentError
        If the host and port cannot be used.
    StoreError
        If the store cannot be used.
    SystemExit
        With a code other than 0, if images cannot be hashed here. The log says why.
    """
    lines = start_logging()
    try:
        # The store first: its errors are raised before a socket is opened.
        if settings.workers == 1:
            with ExitStack() as stack:
                known = _open_known(settings, stack, needed=True)
                _serve(settings, _start_listening(settings), known)
            return
        if settings.store is not None:
            check_store(settings.store, settings.options.recipe)
        listener = _start_listening(settings)
        with metrics_folder() as folder:
            os.environ[MULTIPROCESS_DIR] = folder  # before the workers import prometheus_client
            Supervisor(settings, listener).run()
    finally:
        lines.stop()


def _open_known(settings: Settings, stack: ExitStack, *, needed: bool) -> Known:
    """Return the look-up of stored hashes, which follows the store until `stack` ends."""
    if settings.store is None:
        return nothing_known
    rows = StoredRows(settings.store, settings.options.recipe, needed=needed)
    stack.callback(rows.close)
    return rows


def _start_listening(settings: Settings) -> socket.socket:
    listener = _listen(settings)
    _allow_many_files()
    return listener


def _listen(settings: Settings) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ArgumentError(
            f"cannot listen at {settings.host} port {settings.port}: {reason}\nHint: use --port 0 for a free port."
        ) from error
    listener.setblocking(False)
    return listener


def _allow_many_files() -> None:
    """Raise the maximum number of open files, which limits the connections, as far as the system allows."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    # At most the hard limit. macOS and Linux refuse "unlimited" even where the hard limit is.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_endless = hard == resource.RLIM_INFINITY
    wanted = _MACOS_FILES if is_endless else hard
    if sys.platform == "darwin":
        wanted = min(wanted, _MACOS_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with suppress(ValueError, OSError):  # the old limit is enough for some hundred connections
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _max_connections(settings: Settings) -> int:
    """Return the maximum number of connections that the settings and the limit of open files allow."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return settings.max_connections
    n_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if n_files == resource.RLIM_INFINITY:
        return settings.max_connections
    n_others = _OTHER_FILES + settings.options.n_connections + 4 * n_threads()
    n_left = max(n_files - n_others, n_files // 2)
    if n_left < settings.max_connections:
        log("fewer connections", level=logging.WARNING, max_connections=n_left, open_files=n_files)
    return min(settings.max_connections, n_left)


def _work(settings: Settings, listener: socket.socket) -> None:
    """Run one of several workers, in the main thread of its process."""
    lines = start_logging()
    try:
        with ExitStack() as stack:
            stack.callback(remove_unused_folders)  # the supervisor may have been killed
            stack.enter_context(using_folder(os.environ[MULTIPROCESS_DIR]))
            _end_with_supervisor(settings.grace_s + _LINGER_S + 5)
            # A worker that replaces a dead one must serve even if the store is missing.
            _serve(settings, listener, _open_known(settings, stack, needed=False))
    finally:
        lines.stop()


def _end_with_supervisor(within_s: float) -> None:
    """Stop this worker, as SIGTERM does, when its supervisor has ended; exit if that takes longer than `within_s`."""
    supervisor = multiprocessing.parent_process()
    if supervisor is None:
        raise RuntimeError("this process is not a worker")

    def watch() -> None:
        wait([supervisor.sentinel])
        log("supervisor died", level=logging.CRITICAL, pid=supervisor.pid)
        os.kill(os.getpid(), signal.SIGTERM)
        sleep(within_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="imgmatch-supervisor").start()


def _compile(options: Options) -> None:
    """Compile all kernels for the workers; exit with `CANNOT_HASH` if that fails."""
    lines = start_logging()
    try:
        warm_up(replace(options, isolate=False))
    except Exception as error:  # noqa: BLE001  # of any kind: no worker is started
        bug = None if isinstance(error, ImgMatchError) else error
        log("cannot hash", level=logging.CRITICAL, reason=str(error), exc_info=bug)
        raise SystemExit(CANNOT_HASH) from None
    finally:
        lines.stop()


def _serve(settings: Settings, listener: socket.socket, known: Known) -> None:
    """Serve in this process until a signal stops it."""
    host, port, *_ = listener.getsockname()
    log("listening", host=host, port=port, pid=os.getpid())
    service = create_app(settings, known)
    connection = type(
        "Connection",
        (Connection,),
        {
            "held": service.held,
            "max_connections": _max_connections(settings),
            "header_timeout_s": settings.header_timeout_s,
            "response_timeout_s": settings.response_timeout_s,
        },
    )
    config = uvicorn.Config(
        service,
        http=connection,
        ws="none",
        loop="asyncio",  # uvloop was slower with bodies of this size
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=max(1, round(settings.keep_alive_s)),
        timeout_graceful_shutdown=max(1, round(settings.grace_s)),
    )
    for number in _STOPS:
        signal.signal(number, _ignore)  # uvicorn raises the signal again after it has handled it
    Server(config, service).run(sockets=[listener])
    if service.failed:
        raise SystemExit(CANNOT_HASH)


def _ignore(_number: int, _frame: object) -> None:
    pass


class Supervisor:
    """Starts the workers, replaces dead ones, and ends them all."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[BaseProcess, float] = {}
        self._stopping = threading.Event()

    def run(self) -> None:
        """Supervise until a signal."""
        for number in _STOPS:
            signal.signal(number, lambda *_: self._stopping.set())
        try:
            # Compile once, before the workers start, and in a separate process: the compiler stays in its memory.
            compiling = self._context.Process(target=_compile, args=(self._settings.options,))
            compiling.start()
            while compiling.is_alive() and not self._stopping.wait(0.05):
                pass
            if not self._stopping.is_set() and compiling.exitcode:
                log("not started", level=logging.CRITICAL, exit_code=compiling.exitcode)
                raise SystemExit(CANNOT_HASH)
            compiling.terminate()
            for _ in range(0 if self._stopping.is_set() else self._settings.workers):
                self._start()
            while not self._stopping.wait(0.25):
                self._replace_dead()
        finally:
            self._listener.close()
            self._end()

    def _start(self) -> None:
        worker = self._context.Process(target=_work, args=(self._settings, self._listener))
        worker.start()
        self._workers[worker] = monotonic()

    def _replace_dead(self) -> None:
        for worker, started in list(self._workers.items()):
            if worker.is_alive():
                continue
            del self._workers[worker]
            forget_worker(worker.pid)
            log("worker died", level=logging.ERROR, pid=worker.pid, exit_code=worker.exitcode)
            if worker.exitcode == CANNOT_HASH:  # the next one would fail too
                raise SystemExit(CANNOT_HASH)
            self._stopping.wait(max(0.0, 1.0 - (monotonic() - started)))  # at most one a second
            if not self._stopping.is_set():
                self._start()

    def _end(self) -> None:
        for worker in self._workers:
            worker.terminate()
        ends = monotonic() + self._settings.grace_s + _LINGER_S + 5
        for worker in self._workers:
            worker.join(max(0.0, ends - monotonic()))
            if worker.is_alive():
                worker.kill()
                worker.join()
