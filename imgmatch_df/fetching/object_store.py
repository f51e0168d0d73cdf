"""Transport for object stores and all other schemes of fsspec; needs ``imgmatch-df[cloud]``."""

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from imgmatch_df.errors import Failure
from imgmatch_df.fetching.byte_budget import Claim
from imgmatch_df.fetching.circuit_breaker import CircuitBreaker
from imgmatch_df.fetching.retry import Retryable, is_transient
from imgmatch_df.fetching.transport import Outcome, TaskTransport
from imgmatch_df.options import Options, StorageOptions
from imgmatch_df.schemes import scheme_of
from imgmatch_df.sources import Fetched, describe, redact, too_many_bytes
from imgmatch_df.threads import in_daemon_thread

if TYPE_CHECKING:
    from collections.abc import Coroutine

FileSystem: TypeAlias = Any  # of fsspec, which has no types

# Stores whose servers are named by the storage options, not by the URL: an untrusted column cannot choose a server.
_OBJECT_STORES: Final = frozenset(
    ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "oss", "oci", "ocilake", "tos", "tosfs")
)
# Schemes of fsspec that read from this machine, or redirect to another scheme.
_NOT_REMOTE: Final = frozenset(
    ("arrow_hdfs", "async_wrapper", "asynclocal", "asyncwrapper", "blockcache", "cached", "dask", "data", "dir",
     "file", "filecache", "generic", "git", "libarchive", "local", "memory", "pyscript", "reference", "root",
     "simplecache", "tar", "zip")
)  # fmt: skip
# Each filesystem has its own connections. New credentials, such as those that replace expired ones, need a new one.
_MAX_FILESYSTEMS: Final = 32
_FIRST_PIECE: Final = 1 << 20  # bytes; most images are smaller, and take one request
_PIECE: Final = 1 << 23


class ObjectStoreClient(TaskTransport):
    """The filesystems of the process. Made and used on the thread of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, circuits: CircuitBreaker) -> None:
        super().__init__(loop, circuits)
        self._filesystems: OrderedDict[tuple[str, StorageOptions, str], asyncio.Task[FileSystem | Failure]]
        self._filesystems = OrderedDict()

    async def fetch(self, url: str, options: Options, claim: Claim, clock: asyncio.Timeout) -> Outcome:
        """Return the object at a URL; `storage_options` apply too."""
        scheme = scheme_of(url)
        if (refused := _refuse(scheme, url, options)) is not None:
            return refused
        try:
            found = await self._filesystem(scheme, url, options)
            return found if isinstance(found, Failure) else await _read(found, url, options, claim, clock)
        except TimeoutError:
            raise
        except Exception as error:  # noqa: BLE001  # a filesystem may raise anything; it becomes the result of the row
            return _explain(error, url)

    async def _filesystem(self, scheme: str, url: str, options: Options) -> FileSystem | Failure:
        authority = "" if scheme in _OBJECT_STORES else url.split("/")[2]
        storage_options = options.storage_options or StorageOptions()
        key = (scheme, storage_options, authority)
        if key not in self._filesystems:
            # In a thread, because some take seconds to construct (boto).
            making = in_daemon_thread(lambda: _make_filesystem(scheme, url, storage_options))
            self._filesystems[key] = asyncio.create_task(making)
            if len(self._filesystems) > _MAX_FILESYSTEMS:
                # A filesystem closes its connections when the last read that refers to it has ended.
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
        return Failure("fetch_blocked", f"blocked: {scheme[:20]}: reads from this machine or from another scheme")
    if scheme not in _OBJECT_STORES and not options.allow_private_networks:
        return Failure(
            "fetch_blocked",
            f"blocked: servers of {scheme[:20]}: URLs are not checked; pass allow_private_networks=True to allow it",
        )
    if options.storage_options is None:
        return Failure(
            "fetch_blocked",
            f"blocked: {scheme[:20]}: uses the credentials of this machine; pass storage_options={{}} to allow it",
        )
    if scheme in _OBJECT_STORES and ":" in url.split("/")[2].rpartition("@")[0]:
        return Failure("bad_source", "credentials in the URL of an object; pass them as storage_options")
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
        return Failure("bad_source", f"unknown scheme {scheme[:20]}:")
    # Not from the cache of fsspec, which has one instance per thread. Parts of the URL (host, user) are arguments of
    # the filesystem, except for object stores.
    of_url = {} if scheme in _OBJECT_STORES else kind._get_kwargs_from_urls(url)
    return kind(**{**of_url, **storage_options, "skip_instance_cache": True})


def _needs_extra(scheme: str, why: str = "") -> Failure:
    return Failure(
        "fetch_failed", f"{scheme[:20]}: URLs need imgmatch-df[cloud]{why}: pip install 'imgmatch-df[cloud]'"
    )


async def _read(
    filesystem: FileSystem, url: str, options: Options, claim: Claim, clock: asyncio.Timeout
) -> Fetched | Failure:
    path = filesystem._strip_protocol(url)  # private, but documented for implementers; there is no public function
    try:
        first = await _call(filesystem, "cat_file", path, start=0, end=min(_FIRST_PIECE, options.max_bytes + 1))
    except (FileNotFoundError, PermissionError):
        raise
    except OSError:  # an empty object has no range
        if (await _call(filesystem, "info", path))["size"]:
            raise
        first = b""
    await claim.wait_and_take(len(first), clock)
    pieces, n_bytes = [first], len(first)
    if n_bytes >= min(_FIRST_PIECE, options.max_bytes + 1):
        size = (await _call(filesystem, "info", path))["size"]
        if size > options.max_bytes:
            return too_many_bytes(f"{size:,} bytes", options.max_bytes)
        while n_bytes < size:
            piece = await _call(filesystem, "cat_file", path, start=n_bytes, end=min(n_bytes + _PIECE, size))
            if not piece:
                return Failure("fetch_failed", f"the object ended after {n_bytes:,} of {size:,} bytes")
            await claim.wait_and_take(len(piece), clock)
            pieces.append(piece)
            n_bytes += len(piece)
    if not n_bytes:
        return Failure("missing", "zero bytes")
    return Fetched(b"".join(pieces))


async def _call(filesystem: FileSystem, name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a method of a filesystem: on the loop of fsspec if it is asynchronous, else in a thread."""
    if filesystem.async_impl:
        call: Coroutine[Any, Any, Any] = getattr(filesystem, f"_{name}")(*args, **kwargs)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, filesystem.loop))
    return await in_daemon_thread(lambda: getattr(filesystem, name)(*args, **kwargs))


def _explain(error: Exception, url: str) -> Failure | Retryable:
    if isinstance(error, FileNotFoundError):
        return Failure("not_found", "no such object")
    if isinstance(error, PermissionError):
        return Failure("fetch_failed", "no permission to read; pass credentials as storage_options")
    # The message may repeat the URL, and the URL may contain a key.
    message = " ".join(str(error).replace(url, redact(url)).split())
    failure = Failure("fetch_failed", f"{type(error).__name__}: {describe(message)}")
    return Retryable(failure) if is_transient(error) else failure
