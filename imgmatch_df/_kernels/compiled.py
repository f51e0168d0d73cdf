"""`kernel`: how each kernel is compiled, and how its machine code is kept for the next process.

numba finds what it kept by the names of the function and of its file, and takes it for stale if that one file changed
or numba did. That is not enough: callees stand in other files, and because the index is written before the code, a
process killed in between leaves a fresh index before the code of another release, for good. So the name that numba
sees contains its version and a digest of all kernel sources: no release opens what another one wrote.

numba refuses to compile where it finds no folder that it may write. Here that costs a warning: the machine code is
then kept in a folder of this user below the temporary folder, or not at all.

What is kept is a pickle, so whoever can write it runs code here. A folder that other users may write is not used, and
each file begins with a digest: one that was cut or damaged is compiled again.
"""

import hashlib
import os
import pickle
import stat
import tempfile
import warnings
from collections.abc import Callable
from functools import cache, cached_property, partial
from importlib import resources
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

from imgmatch_df._kernels import before_compiling
from imgmatch_df._kernels.importing import add_symbols, caching, config, import_compiler, numba
from imgmatch_df.errors import NEEDS_COMPILER, ArgumentError, ImgMatchWarning

_DIGEST_BYTES: Final = hashlib.sha256().digest_size
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def _release() -> str:
    package = resources.files("imgmatch_df")
    rooms = ("hashes", "images", "matching")
    folders = [package / "_kernels", package / "hashes", *(package / room / "kernels" for room in rooms)]
    sources = sorted(
        (file.name, file.read_bytes()) for folder in folders for file in folder.iterdir() if file.is_file()
    )
    return hashlib.sha256(repr((numba.__version__, sources)).encode()).hexdigest()[:12]


_RELEASE: Final = _release()


def kernel(function: Callable[..., Any] | None = None, /, *, signatures: Any = None, **options: Any) -> Any:
    """Return the function compiled, without the GIL: at its first call, or now for `signatures`; options as of njit."""
    if function is None:
        return partial(kernel, signatures=signatures, **options)
    if config.DISABLE_JIT:
        raise ArgumentError(NEEDS_COMPILER)
    function.__qualname__ = f"{function.__qualname__.removesuffix(f'-{_RELEASE}')}-{_RELEASE}"
    # C code calls none of the kernels; a wrapper for it takes 0.01 s to compile.
    dispatcher = numba.njit(**{"nogil": True, "no_cfunc_wrapper": True, **options})(function)
    dispatcher._cache = _LateCache(function)  # what cache=True does, with another cache
    if signatures is not None:
        for signature in signatures:
            dispatcher.compile(signature)
        dispatcher.disable_compile()
    return dispatcher


def _warn_once(what: str) -> None:
    global _has_warned
    if not _has_warned:
        _has_warned = True
        hint = "Hint: set NUMBA_CACHE_DIR to a folder that this user may write."
        warnings.warn(f"{what}\n{hint}", ImgMatchWarning, stacklevel=2)


_has_warned = False


@cache
def _own_temporary_folder() -> str | None:
    """Return a folder below the temporary one that no other user can write to, None where there is none."""
    try:
        parent = Path(tempfile.gettempdir()).resolve()
        if not hasattr(os, "geteuid"):  # on Windows each user has a temporary folder of their own
            folder = parent / "imgmatch-df"
            folder.mkdir(exist_ok=True)
            return str(folder)
        folder = parent / f"imgmatch-df-{os.geteuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found, above = folder.lstat(), parent.stat()
    except OSError:
        return None
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    # Where others may write into the folder above, they may also rename what is in it, unless it is sticky.
    is_safe = above.st_mode & stat.S_ISVTX or not above.st_mode & 0o022
    return str(folder) if is_own and is_safe and above.st_uid in (0, os.geteuid()) else None


def _check_private(folder: Path) -> None:
    """Raise `PermissionError` where other users may write into a folder, or put another one into its place."""
    if not hasattr(os, "geteuid"):
        return
    # Who owns the package may change the code that runs here.
    trusted = {0, os.geteuid(), Path(__file__).stat().st_uid}
    found = folder.stat()
    if found.st_uid not in trusted or _others_may_write(found):
        raise PermissionError(f"other users may write into {folder}")
    for above in {*folder.absolute().parents, *folder.resolve().parents}:
        found = above.stat()
        if _others_may_write(found) and not found.st_mode & stat.S_ISVTX:
            raise PermissionError(f"other users may write into {above}")


def _is_private(folder: Path) -> bool:
    try:
        _check_private(folder)
    except OSError:  # absent, too
        return False
    return True


def _others_may_write(found: os.stat_result) -> bool:
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and found.st_gid != 0 and found.st_gid != _own_group()


@cache
def _own_group() -> int | None:
    """Return the group that has this user as its only member, None where there is none."""
    import grp
    import pwd

    try:
        user = pwd.getpwuid(os.geteuid())
        group = grp.getgrgid(user.pw_gid)
    except KeyError:
        return None
    return user.pw_gid if group.gr_name == user.pw_name and not {*group.gr_mem} - {user.pw_name} else None


class _Locator(caching._SourceFileBackedLocatorMixin, caching._CacheLocator):  # type: ignore[misc]
    """Where the machine code of a function is kept: below `_folder`."""

    def __init__(self, function: Any, file: str) -> None:
        self._py_file = file
        self._lineno = function.__code__.co_firstlineno
        self._path = str(Path(self._folder(), self.get_suitable_cache_subpath(file)))

    def _folder(self) -> str:
        raise NotImplementedError

    def get_cache_path(self) -> str:
        """Return the folder for this function."""
        return self._path


class _Temporary(_Locator):
    """A folder below the temporary one."""

    def _folder(self) -> str:
        return _own_temporary_folder() or ""

    @classmethod
    def from_function(cls, function: Any, file: str) -> Any:
        """Return the locator, None where it has no folder."""
        folder = _own_temporary_folder()
        found = None if folder is None else super().from_function(function, file)
        if found is not None:
            _warn_once(f"no folder for compiled kernels can be written; they are kept in {folder}")
        return found


class _Nowhere(_Locator):
    """No folder."""

    def _folder(self) -> str:
        return os.devnull

    def ensure_cache_path(self) -> None:
        """Warn."""
        _warn_once("no folder for compiled kernels can be written; each process compiles them, for up to a minute")


def _checked(locator: Any) -> Any:
    """Return numba's locator, but without a folder where that is not private.

    Nor where its path is relative: a home that is not known, as ``~``.
    """

    def ensure_cache_path(self: Any) -> None:
        folder = Path(self.get_cache_path())
        if not folder.is_absolute() and "UserWide" in locator.__name__:
            raise FileNotFoundError(folder)
        locator.ensure_cache_path(self)
        try:
            _check_private(folder)
        except PermissionError as error:
            _warn_once(f"compiled kernels are not kept in {folder}: {error}")
            raise

    return type(locator.__name__, (locator,), {"ensure_cache_path": ensure_cache_path})


class _Implementation(caching.CompileResultCacheImpl):  # type: ignore[misc]
    # Beside the package nothing is checked: who may write there may change the code, too.
    _locator_classes: Final = [
        *(
            _checked(one) if one.__name__.lstrip("_").startswith("User") else one
            for one in caching.CompileResultCacheImpl._locator_classes
        ),
        _Temporary,
        _Nowhere,
    ]

    def reduce(self, result: Any) -> Any:
        """Return what is kept of a compiled function, without the environments that hold no constants.

        Loading one imports the module of its function: numba's arrays, where a kernel creates one.
        """
        *kept, environments = super().reduce(result)
        return *kept, tuple(one for one in environments if one.consts)


class _Files(caching.IndexDataCacheFile):  # type: ignore[misc]
    """The files of one function.

    numba numbers the files of a function by what its index has: two processes that compile it for different types at
    the same time give both codes one name, and a third process runs the one for the other. Here the name is that of the
    types, and the file says what it is for. What cannot be read or written is compiled again.
    """

    def flush(self) -> None:
        """Forget what is kept."""
        self._save_index({})

    def save(self, key: Any, data: Any) -> None:
        """Keep the machine code for `key`."""
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
        name = self._data_name_pattern.format(number=0).replace(".0.nbc", f".{digest}.nbc")
        try:
            self._write(self._data_path(name), (key, data))
            self._save_index({**self._index(), key: name})
        except OSError as error:
            _warn_once(f"compiled kernels cannot be kept in {self._cache_path}: {error.strerror}")

    def load(self, key: Any) -> Any:
        """Return the machine code for `key`, None where there is none."""
        name = self._index().get(key)
        kept_for, data = self._read(self._data_path(name) if name else "") or (None, None)
        return data if kept_for == key else None

    def _index(self) -> dict[Any, str]:
        stamp, index = self._read(self._index_path) or (None, {})
        return index if stamp == self._source_stamp else {}

    def _save_index(self, index: dict[Any, str]) -> None:
        self._write(self._index_path, (self._source_stamp, index))

    def _read(self, path: str) -> Any:
        """Return what a file holds, None where it is absent, cut or damaged."""
        try:
            content = Path(path).read_bytes()
        except OSError:
            return None
        digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        return pickle.loads(data) if hashlib.sha256(data).digest() == digest else None  # noqa: S301  # written here

    def _write(self, path: str, content: Any) -> None:
        """Write a file that others cannot change, whole or not at all."""
        data = self._dump(content)
        temporary = Path(f"{path}.tmp.{token_hex(8)}")
        try:
            with os.fdopen(os.open(temporary, _NEW_FILE, 0o644), "wb") as file:
                file.write(hashlib.sha256(data).digest() + data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


class _Cache(caching.FunctionCache):  # type: ignore[misc]
    """numba's cache of one function, which works without a folder that can be written."""

    _impl_class: Final = _Implementation

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        stamp, base = self._impl.locator.get_source_stamp(), self._impl.filename_base
        self._cache_file = _Files(self._cache_path, base, stamp)
        # What is there already may be read where it cannot be written: kernels compiled when an image was built.
        file = function.__code__.co_filename
        subpath = self._impl.locator.get_suitable_cache_subpath(file)
        folders = [str(Path(file).parent / "__pycache__")]
        if config.CACHE_DIR and _is_private(configured := Path(config.CACHE_DIR, subpath)):
            folders.insert(0, str(configured))
        self._read_only = [_Files(folder, base, stamp) for folder in folders if folder != self._cache_path]

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep what was compiled for a signature."""
        if isinstance(self._impl.locator, _Nowhere):
            return
        try:
            super().save_overload(signature, result)
        except OSError as error:
            _warn_once(f"compiled kernels cannot be kept in {self._cache_path}: {error.strerror}")

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return the machine code that is kept for a signature, None if it must be compiled.

        numba's method first imports everything that compiling needs, which takes longer than loading.
        """
        add_symbols()
        with self._guard_against_spurious_io_errors():
            if (found := self._load_overload(signature, context)) is not None:
                return found
        while before_compiling:
            before_compiling.pop()()
        import_compiler()
        return None

    def _load_overload(self, signature: Any, context: Any) -> Any:
        key = self._index_key(signature, context.codegen())
        for files in (self._cache_file, *self._read_only):
            if (data := files.load(key)) is not None:
                return self._impl.rebuild(context, data)
        return None


class _LateCache:
    """The cache of one function, opened at its first use.

    To open one takes 0.7 ms, and a command that compiles nothing uses those of few functions: none of what kernels
    call.
    """

    def __init__(self, function: Any) -> None:
        self._function = function

    @cached_property
    def _opened(self) -> _Cache:
        return _Cache(self._function)

    @property
    def cache_path(self) -> str:
        """Return the folder for this function."""
        return str(self._opened.cache_path)

    def flush(self) -> None:
        """Forget what is kept."""
        self._opened.flush()

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Return the machine code that is kept for a signature, None if it must be compiled."""
        return self._opened.load_overload(signature, context)

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep what was compiled for a signature."""
        self._opened.save_overload(signature, result)
