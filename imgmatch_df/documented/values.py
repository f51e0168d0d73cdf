"""Values of the documented JSON: hashes as text of 0 and 1, distances in percent, statuses, ids.

The unit of distances, percent of differing bits, and the texts of failures are defined only here.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Mapping
from os import PathLike
from typing import Any, Final, Literal, TypeAlias
from uuid import uuid4

import polars as pl

from imgmatch_df.columns import OK, STATUSES
from imgmatch_df.errors import ArgumentError
from imgmatch_df.hashes.kinds import BMH1, HashKind, documented_kind

Json: TypeAlias = dict[str, Any]
Document: TypeAlias = Mapping[str, Any] | str | bytes | PathLike[str]
Method: TypeAlias = Literal["visual_hash", "remove_duplicates", "rank_images"]
# Columns of frames of the documented JSON, besides those of `columns`.
ID: Final = "_id"
URL: Final = "url"
RECORD: Final = "_record"

_PREFIX: Final = "Error Loading Image: "
_NO_IMAGE: Final = "Record has no image in '_url' or '_base64'"
_DOWNLOAD: Final = "Unable to download image from "
_UNREACHABLE: Final = frozenset({"not_found", "fetch_blocked", "fetch_timeout", "fetch_failed"})
_MAX_SIDE: Final = 2**32 - 1


def to_json(response: Mapping[str, Any]) -> str:
    """Return `response` as JSON text, never with NaN or Infinity."""
    return json.dumps(response, allow_nan=False)


def radius_from_range(range_: float, hash_type: str = BMH1.name) -> int:
    """Return the largest Hamming distance, in bits, that the documented `range` includes.

    A pair is within `range` if its rounded distance is: a distance of a response, sent as `range`, includes its pair.

    Parameters
    ----------
    range_
        Percent of the characters of the documented 0/1 string (968 of bmh1, 64 of phash), 0 to 100, inclusive. The
        unit is inferred from the documented sample, where 0.1 is 1 bit of 968.
    hash_type
        Name of the hash kind.

    Raises
    ------
    ArgumentError
        If `range_` is not a number from 0 to 100.

    Examples
    --------
    >>> radius_from_range(0), radius_from_range(0.2), radius_from_range(1), radius_from_range(12.5, "phash")
    (0, 2, 10, 8)
    """
    kind = documented_kind(hash_type)
    if isinstance(range_, bool) or not isinstance(range_, int | float) or not 0 <= range_ <= 100:
        hint = "pass a percentage of differing bits, 0 for equal hashes; a radius in bits is another unit."
        raise refused("range", range_, "a number from 0 to 100", hint)
    distances = range(kind.n_bits + 1)
    return bisect_right(distances, range_, key=lambda bits: percent_from_bits(bits, kind.name)) - 1


def percent_from_bits(bits: int, hash_type: str = BMH1.name) -> float:
    """Return a Hamming distance in bits as the documented percentage, with one decimal.

    Parameters
    ----------
    bits
        The distance.
    hash_type
        Name of the hash kind.

    Examples
    --------
    >>> percent_from_bits(1), percent_from_bits(252), percent_from_bits(1, "phash")
    (0.1, 26.0, 1.6)
    """
    return round(100 * bits / documented_kind(hash_type).n_chars, 1)


def read_id(value: object, field: str) -> str:
    """Return the `_id` of a record as a string."""
    if (isinstance(value, str) and is_text(value)) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    raise refused(field, value, "a string or a whole number", "write other ids as strings.")


def read_side(value: object, field: str) -> int | None:
    """Return `_width` or `_height` in pixels."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_SIDE):
        return value
    raise refused(field, value, "a whole number of pixels", "leave it out if it is unknown.")


def read_bits(text: object, kind: HashKind, field: str, *, needed: bool) -> int | bytes | None:
    """Return a hash from its 0/1 string: int for UInt64 kinds, otherwise bytes."""
    if text is None and not needed:
        return None
    # A pattern, because int(text, 2) also accepts signs, spaces and underscores.
    if not isinstance(text, str) or not re.fullmatch(f"[01]{{{kind.n_chars}}}", text):
        hint = f"send the documented {kind.name} string unchanged."
        raise refused(field, text, f"{kind.n_chars} characters 0 or 1", hint)
    number = int(text, 2)
    return number if kind.dtype == pl.UInt64 else number.to_bytes(kind.n_bytes)


def read_status(status: object, field: str) -> tuple[str, str | None, str | None]:
    """Return status, detail and request id from the `_status` of a record."""
    if status is None:
        return OK, None, None
    if not isinstance(status, Mapping) or not isinstance(status.get("code"), int):
        raise refused(
            f"{field}._status", status, "an object with code and text", "leave it out if the record has not failed."
        )
    if status["code"] == 200:
        return OK, None, None
    detail = str(status.get("text", "")).removeprefix(_PREFIX)
    request_id = None if status.get("request_id") is None else str(status["request_id"])
    reason = read_reason(status.get("reason"))
    if reason is not None:  # a response with reasons
        return reason, str(status.get("detail", detail)), request_id
    if detail == _NO_IMAGE:
        return "missing", detail, request_id
    return "fetch_failed" if detail.startswith(_DOWNLOAD) else "decode_failed", detail, request_id


def read_reason(status: object) -> str | None:
    """Return the status of a failed row; None for other values, as tables may have another column of this name."""
    return status if isinstance(status, str) and status in STATUSES and status != OK else None


def is_text(value: str) -> bool:
    """Return whether a String column can hold `value`: no lone surrogates."""
    return value.isascii() or not re.search("[\ud800-\udfff]", value)


def format_bits(value: int | bytes, kind: HashKind) -> str:
    """Return a hash as its 0/1 string."""
    number = value if isinstance(value, int) else int.from_bytes(value)
    return f"{number:0{kind.n_chars}b}"


def failure_text(status: str | None, detail: str | None, url: object, attempts: int) -> str:
    """Return the documented text of a failed record; the text of a failed download is exact, and not shortened."""
    if status == "missing":
        return _PREFIX + _NO_IMAGE
    if status in _UNREACHABLE and url is not None:
        return f"{_PREFIX}{_DOWNLOAD}'{url}', Attempts: {attempts}"
    return _PREFIX + (detail or status or "Record has no hash")


def format_status(code: int, text: str, **ids: str) -> Json:
    """Return a status object."""
    return {"code": code, "text": text, **ids}


def format_overall_status(mixed: bool, request_id: str | None = None, proc_id: str | None = None) -> Json:
    """Return the status of a whole response."""
    ids = {} if request_id is None else {"request_id": request_id, "proc_id": proc_id or str(uuid4())}
    return format_status(300, "MIXED_RESULT", **ids) if mixed else format_status(200, "OK", **ids)


def refused(field: str, value: object, allowed: str, hint: str) -> ArgumentError:
    """Return the error for a field whose value is not allowed."""
    shown = repr(value)
    return ArgumentError(f"{field} must be {allowed}, got {shown[:80]}{'…' * (len(shown) > 80)}\nHint: {hint}")
