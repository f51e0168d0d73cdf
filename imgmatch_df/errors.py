"""Exceptions for mistakes of the caller, and `Failure` for rows that cannot be hashed.

Every exception takes exactly one argument, the message, because Polars creates a new exception,
``type(error)(message)``, from one that is raised in a batch.
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

# Stack frames in these folders are skipped when a warning is attributed to a line.
_INNER = tuple(os.path.dirname(path) + os.sep for path in (__file__, pl.__file__))  # noqa: PTH120  # compared as text
_is_silent: ContextVar[bool] = ContextVar("is_silent", default=False)


NEEDS_COMPILER: Final = (
    "the environment variable NUMBA_DISABLE_JIT is set, and the kernels run only when compiled\n"
    "Hint: unset NUMBA_DISABLE_JIT."
)


class ImgMatchError(Exception):
    """Base class of all exceptions that imgmatch-df raises on purpose."""


class ImgMatchWarning(UserWarning):
    """The result of a call is exact, but probably not what the caller intended."""


class ArgumentError(ImgMatchError, ValueError):
    """An argument has a value that is not allowed. Raised while the expression is built."""


class TooManyPairsError(ArgumentError):
    """There are more pairs than the argument `max_pairs` allows. Raised when the query runs."""


class ColumnError(ImgMatchError, TypeError):
    """A column is absent or has a dtype that is not allowed."""


class RowError(ImgMatchError):
    """A row failed and the caller passed ``on_error="raise"``."""


class SourceError(RowError):
    """The value of the row is not a usable reference to an image (`missing`, `bad_source`)."""


class FetchError(RowError):
    """The bytes of the row could not be read (`not_found`, `fetch_*`, `too_many_bytes`)."""


class DecodeError(RowError):
    """The bytes of the row cannot be decoded as an image (`decode_failed`, `too_many_pixels`)."""


class StoreError(ImgMatchError):
    """A store of hashes cannot be read or written."""


class MissingExtraError(ImgMatchError, ImportError):
    """An optional dependency is not installed; the message names the extra that installs it."""


class Failure(NamedTuple):
    """Reason why a row has no hashes. It is a value, not an exception, so that one row does not stop the others.

    Parameters
    ----------
    status
        One of `columns.STATUSES` other than ``"ok"``.
    detail
        One line for the user, without credentials, with at most 80 characters of the source.
    """

    status: str
    detail: str


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
    """Return the exception that represents `failure` with ``on_error="raise"``.

    Parameters
    ----------
    failure
        Reason why the row failed.
    row
        Position of the row in its batch, from 0.
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
    """Suppress `ImgMatchWarning` in this context, for calls whose user would not see it."""
    token = _is_silent.set(True)
    try:
        yield
    finally:
        _is_silent.reset(token)
