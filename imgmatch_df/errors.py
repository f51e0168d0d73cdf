"""Errors: exceptions for the caller's mistakes, `Failure` for the rows that fail.

Every exception takes exactly one message string, because Polars rebuilds an exception that leaves a batch as
``type(error)(message)``.
"""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple

import polars as pl

if TYPE_CHECKING:
    from types import FrameType

# Frames of these folders are not the line that a warning is about.
_INNER = tuple(os.path.dirname(path) + os.sep for path in (__file__, pl.__file__))  # noqa: PTH120  # compared as text
_is_silent: ContextVar[bool] = ContextVar("is_silent", default=False)


NEEDS_COMPILER: Final = (
    "the environment variable NUMBA_DISABLE_JIT is set, and the kernels run only when compiled\n"
    "Hint: unset NUMBA_DISABLE_JIT."
)


class ImgMatchError(Exception):
    """Base of every exception that imgmatch-df raises on purpose."""


class ImgMatchWarning(UserWarning):
    """A call gives an exact result that is probably not the one that the caller wants."""


class ArgumentError(ImgMatchError, ValueError):
    """An argument has a value that is not allowed. Raised while the expression is built."""


class ColumnError(ImgMatchError, TypeError):
    """A column is absent or has a dtype that is not allowed."""


class RowError(ImgMatchError):
    """A row failed and the call has ``on_error="raise"``."""


class SourceError(RowError):
    """The row's value is not a usable reference to an image (`missing`, `bad_source`)."""


class FetchError(RowError):
    """The row's bytes could not be read (`not_found`, `fetch_*`, `too_many_bytes`)."""


class DecodeError(RowError):
    """The row's bytes are not a decodable image (`decode_failed`, `too_many_pixels`)."""


class StoreError(ImgMatchError):
    """A store of hashes cannot be read or written."""


class MissingExtraError(ImgMatchError, ImportError):
    """An optional dependency is absent; the message names the extra that brings it."""


class Failure(NamedTuple):
    """Why one row has no hashes. A value and not an exception: a row that fails does not stop the others.

    Parameters
    ----------
    status
        One of `columns.STATUSES` other than ``"ok"``.
    detail
        One line that a person can act on; no credentials, no more than 80 characters of the source.
    """

    status: str
    detail: str


class Setback(NamedTuple):
    """Why one attempt to fetch a row failed, where a retry may succeed.

    Parameters
    ----------
    failure
        What the row becomes if there is no other attempt.
    wait_s
        Seconds to wait as the server requests, None if it does not.
    responded
        Whether the server sent a whole response, of whatever status.
    host
        Scheme, host and port of the server, where a redirect led to another one than that of the URL.
    """

    failure: Failure
    wait_s: float | None = None
    responded: bool = True
    host: str | None = None


_ERROR_OF_STATUS: dict[str, type[RowError]] = {
    "missing": SourceError,
    "bad_source": SourceError,
    "not_found": FetchError,
    "fetch_blocked": FetchError,
    "fetch_timeout": FetchError,
    "fetch_failed": FetchError,
    "too_many_bytes": FetchError,
    "decode_failed": DecodeError,
    "too_many_pixels": DecodeError,
}


def row_error(failure: Failure, row: int) -> RowError:
    """Return the exception that stands for `failure` under ``on_error="raise"``.

    Parameters
    ----------
    failure
        What went wrong with the row.
    row
        Position of the row in its batch, counted from 0.
    """
    message = (
        f"row {row} of its batch: {failure.status}: {failure.detail}\nHint: on_error='null' keeps such rows as null."
    )
    return _ERROR_OF_STATUS[failure.status](message)


def warn(message: str, category: type[Warning] = ImgMatchWarning) -> None:
    """Issue a warning that points at the line of the user's code that made the call."""
    if _is_silent.get():
        return
    level = 1
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith(_INNER):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Issue no `ImgMatchWarning` in this context, for calls of a user who would not see one."""
    token = _is_silent.set(True)
    try:
        yield
    finally:
        _is_silent.reset(token)
