"""Pictures in object stores, and wherever else fsspec reaches: what ``imgmatch-df[cloud]`` adds."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from imgmatch_df.errors import Failure, Setback
from imgmatch_df.fetching.byte_budget import Claim
from imgmatch_df.options import Options, StorageOptions
from imgmatch_df.sources import Fetched, describe, redact
from imgmatch_df.threads import in_daemon_thread

if TYPE_CHECKING:
    from collections.abc import Coroutine

FileSystem: TypeAlias = Any  # of fsspec, which has no types
Outcome: TypeAlias = Fetched | Failure | Setback

# Stores whose servers the storage options name, not the address: a stranger's column cannot lead elsewhere.
_OBJECT_STORES: Final = frozenset(
    ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "oss", "oci", "ocilake", "tos", "tosfs")
)
# What fsspec can reach without leaving this machine, or as a mere detour to another scheme.
_NOT_REMOTE: Final = frozenset(
    ("arrow_hdfs", "async_wrapper", "asynclocal", "asyncwrapper", "blockcache", "cached", "dask", "data", "dir",
     "file", "filecache", "generic", "git", "libarchive", "local", "memory", "pyscript", "reference", "root",
     "simplecache", "tar", "zip")
)  # fmt: skip
# Each has connections of its own, and is made for other credentials: those that expire come in a row.
_MAX_FILESYSTEMS: Final = 32
_FIRST_PIECE: Final = 1 << 20  # most pictures are smaller, and are one request then
_PIECE: Final = 1 << 23
_PASSING: Final = re.compile("connect|timeout|slowdown|throttl|toomany", re.IGNORECASE)


class CloudClient:
    """The filesystems of the process. Made and used in one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._filesystems: OrderedDict[tuple[str, StorageOptions, str], asyncio.Task[FileSystem | Failure]]
        self._filesystems = OrderedDict()

    def start(
        self,
        url: str,
        options: Options,
        claim: Claim,
        landed: Callable[[Outcome | BaseException | None], None],
    ) -> asyncio.Task[Outcome]:
        """Fetch the object that `url` names; return what can be cancelled.

        Parameters
        ----------
        url
            An address with any scheme but http and https.
        options
            `timeout_s`, `max_bytes`, `storage_options` and `allow_private_networks` count here.
        claim
            Gets the bytes as they come.
        landed
            Told the outcome, in a later turn of the loop: None where it was cancelled, an exception where we have a
            bug.
        """
        task = self._loop.create_task(self._attempt(url, options, claim))
        task.add_done_callback(lambda task: landed(None if task.cancelled() else task.exception() or task.result()))
        return task

    async def _attempt(self, url: str, options: Options, claim: Claim) -> Outcome:
        scheme = url.partition(":")[0].lower()
        if (refused := _refuse(scheme, url, options)) is not None:
            return refused
        try:
            async with asyncio.timeout(options.timeout_s) as clock:
                found = await self._filesystem(scheme, url, options)
                return found if isinstance(found, Failure) else await _read(found, url, options, claim, clock)
        except TimeoutError:
            what = f"no whole answer within {options.timeout_s:g} s"
            return Setback(Failure("fetch_timeout", what), responded=False)
        except Exception as error:  # noqa: BLE001  # a filesystem may raise anything; it becomes its row
            return _explain(error, url)

    async def _filesystem(self, scheme: str, url: str, options: Options) -> FileSystem | Failure:
        place = "" if scheme in _OBJECT_STORES else url.split("/")[2]
        storage_options = options.storage_options or StorageOptions()
        key = (scheme, storage_options, place)
        if key not in self._filesystems:
            # Making one takes seconds at times (boto), and each has connections of its own.
            making = in_daemon_thread(lambda: _make_filesystem(scheme, url, storage_options))
            self._filesystems[key] = asyncio.create_task(making)
            if len(self._filesystems) > _MAX_FILESYSTEMS:
                # A filesystem closes its connections when nothing refers to it: when what it reads has been read.
                self._filesystems.popitem(last=False)
        self._filesystems.move_to_end(key)
        task = self._filesystems[key]
        try:
            return await asyncio.shield(task)
        except Exception:
            if self._filesystems.get(key) is task:
                del self._filesystems[key]
            raise


def _refuse(scheme: str, url: str, options: Options) -> Failure | None:
    if scheme in _NOT_REMOTE:
        return Failure("fetch_blocked", f"blocked: {scheme[:20]}: leads to this machine or to another scheme")
    if scheme not in _OBJECT_STORES and not options.allow_private_networks:
        return Failure(
            "fetch_blocked",
            f"blocked: where {scheme[:20]}: leads is not checked; pass allow_private_networks=True to allow it",
        )
    if options.storage_options is None:
        return Failure(
            "fetch_blocked",
            f"blocked: {scheme[:20]}: uses the credentials of this machine; pass storage_options={{}} to allow it",
        )
    if scheme in _OBJECT_STORES and ":" in url.split("/")[2].rpartition("@")[0]:
        return Failure("bad_source", "credentials do not belong into the address of an object; pass storage_options")
    return None


def _make_filesystem(scheme: str, url: str, storage_options: StorageOptions) -> FileSystem | Failure:
    try:
        import fsspec
    except ImportError:
        return _needs_extra(scheme)
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        return _needs_extra(scheme, f" ({describe(str(error))})")
    except ValueError:
        return Failure("bad_source", f"nothing is known to read {scheme[:20]}: addresses")
    # Not from fsspec's cache, which keeps one instance for each thread. What the address says (host, user) is for
    # servers alone.
    of_url = {} if scheme in _OBJECT_STORES else kind._get_kwargs_from_urls(url)
    return kind(**{**of_url, **storage_options, "skip_instance_cache": True})


def _needs_extra(scheme: str, why: str = "") -> Failure:
    return Failure(
        "fetch_failed", f"{scheme[:20]}: addresses need imgmatch-df[cloud]{why}: pip install 'imgmatch-df[cloud]'"
    )


async def _read(
    filesystem: FileSystem, url: str, options: Options, claim: Claim, clock: asyncio.Timeout
) -> Fetched | Failure:
    path = filesystem._strip_protocol(url)  # the only way, documented for implementers
    try:
        first = await _call(filesystem, "cat_file", path, start=0, end=min(_FIRST_PIECE, options.max_bytes + 1))
    except (FileNotFoundError, PermissionError):
        raise
    except OSError:  # of an empty object no range can be had
        if (await _call(filesystem, "info", path))["size"]:
            raise
        first = b""
    await claim.wait_and_take(len(first), clock)
    pieces, n_bytes = [first], len(first)
    if n_bytes >= min(_FIRST_PIECE, options.max_bytes + 1):
        size = (await _call(filesystem, "info", path))["size"]
        if size > options.max_bytes:
            return Failure(
                "too_many_bytes",
                f"{size:,} bytes, more than max_bytes={options.max_bytes:,}; raise max_bytes to allow it",
            )
        while n_bytes < size:
            piece = await _call(filesystem, "cat_file", path, start=n_bytes, end=min(n_bytes + _PIECE, size))
            if not piece:
                return Failure("fetch_failed", f"the object ends with {n_bytes:,} of {size:,} bytes")
            await claim.wait_and_take(len(piece), clock)
            pieces.append(piece)
            n_bytes += len(piece)
    if not n_bytes:
        return Failure("missing", "zero bytes")
    return Fetched(b"".join(pieces))


async def _call(filesystem: FileSystem, name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of a filesystem: in fsspec's own loop where it is asynchronous, else in a thread."""
    if filesystem.async_impl:
        call: Coroutine[Any, Any, Any] = getattr(filesystem, f"_{name}")(*args, **kwargs)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, filesystem.loop))
    return await in_daemon_thread(lambda: getattr(filesystem, name)(*args, **kwargs))


def _explain(error: Exception, url: str) -> Failure | Setback:
    if isinstance(error, FileNotFoundError):
        return Failure("not_found", "no such object")
    if isinstance(error, PermissionError):
        return Failure("fetch_failed", "no permission to read; storage_options take credentials")
    # The message may repeat the address, and the address may hold a key.
    words = " ".join(str(error).replace(url, redact(url)).split())
    failure = Failure("fetch_failed", f"{type(error).__name__}: {describe(words)}")
    passing = isinstance(error, OSError) or _PASSING.search(type(error).__name__)
    return Setback(failure) if passing else failure
