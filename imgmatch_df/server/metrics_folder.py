"""Folder in which several workers share their metrics; later runs remove it if the supervisor was killed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # Windows, where folders cannot be locked
    fcntl = None  # type: ignore[assignment]

_PREFIX: Final = "imgmatch-metrics-"


@contextmanager
def metrics_folder() -> Iterator[str]:
    """Yield a new folder, and remove it at the end; remove old folders that no process uses."""
    remove_unused_folders()
    while True:
        folder = tempfile.mkdtemp(prefix=_PREFIX)
        with using_folder(folder):
            if Path(folder).exists():  # otherwise another process has removed it before the lock
                try:
                    yield folder
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                return


@contextmanager
def using_folder(folder: str) -> Iterator[None]:
    """Lock a folder, so that other processes do not remove it."""
    descriptor = _open(folder)
    if descriptor is None:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def remove_unused_folders() -> None:
    """Remove the folders of this user that no process uses."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        descriptor = _open(str(folder))
        if descriptor is None:
            continue
        try:
            with suppress(OSError):  # it is locked
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _open(folder: str) -> int | None:
    """Return a file descriptor of a folder of this user; None for other paths, and without locks."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    if os.fstat(descriptor).st_uid == os.geteuid():
        return descriptor
    os.close(descriptor)
    return None
