"""Requests of the documented API, as rows and as frames."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, get_args
from uuid import uuid4

import polars as pl

from imgmatch_df.documented.values import (
    ID,
    RECORD,
    URL,
    Document,
    Json,
    Method,
    is_text,
    radius_from_range,
    read_id,
    refused,
)
from imgmatch_df.errors import ArgumentError
from imgmatch_df.hashes.kinds import BMH1, documented_kind, documented_kinds

_COMPACT: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True)
class Request:
    """A documented request.

    Parameters
    ----------
    rows
        One mapping per record, in order, with the names of `frame`. Its `_record` is the record itself.
    hash_types
        Names of the requested hash kinds, or the documented default of the method.
    radius
        The `range` of the request in bits of `hash_type`, inclusive; 0 if the request has none.
    query
        The row of `query_record`, with a null `_id` if the record has none; None for other methods than `rank_images`.
    range
        The `range` of the request in percent; None if it has none.
    """

    rows: list[Json]
    hash_types: tuple[str, ...]
    radius: int
    query: Json | None
    range: float | None = None

    @property
    def hash_type(self) -> str:
        """The hash kind to compare by: the first of `hash_types`."""
        return self.hash_types[0]

    @cached_property
    def frame(self) -> pl.DataFrame:
        """One row per record: `_id`, `url` and `_record`, all String.

        `url` is null if the record has no image; `_base64` becomes a ``data:`` URI, so that it is not parsed as a path.
        `_record` is the JSON of the record, so that its fields may have any name and type.
        """
        return source_frame(self.rows)

    @cached_property
    def query_frame(self) -> pl.DataFrame | None:
        """The row of `query` as a frame like `frame`; None without a query."""
        return None if self.query is None else source_frame([self.query], ["query_record"])


def read_request(request: Document, method: Method = "visual_hash") -> Request:
    """Return a documented request as a frame of sources.

    A record without an image is a row with a null source. The hosted limit of ten records does not apply.

    Parameters
    ----------
    request
        The body: a mapping, its JSON as str or bytes, or the path of a JSON file.
    method
        The documented method. It decides the default of `hash_type` (both kinds for `visual_hash`, otherwise
        ``"bmh1"``) and whether `query_record` is needed.

    Returns
    -------
    Request
        The `_id` of a record is kept as a string, even if it is not unique; a missing one is generated. If a record has
        both `_base64` and `_url`, `_base64` is used, because it needs no network.

    Raises
    ------
    ArgumentError
        If the body is not a JSON object, or a field has an invalid value; the message names the field.

    Examples
    --------
    >>> request = read_request('{"records": [{"_url": "cat.jpg", "_id": 7}], "hash_type": "phash", "range": 5}')
    >>> request.frame.rows(named=True)
    [{'_id': '7', 'url': 'cat.jpg', '_record': '{"_url":"cat.jpg","_id":7}'}]
    >>> request.hash_types, request.radius
    (('phash',), 3)
    """
    found = read_rows(request, method)
    _ = found.query_frame, found.frame  # they raise for records that are not JSON
    return found


def read_rows(request: Document, method: Method = "visual_hash") -> Request:
    """Return a documented request whose records are JSON values, without making frames; see `read_request`."""
    if method not in get_args(Method):
        raise refused("method", method, "one of " + ", ".join(map(repr, get_args(Method))), "pass no request for ping.")
    body = load_document(request, "request")
    hash_types = read_hash_types(body.get("hash_type"), method)
    range_ = body.get("range")
    query = None
    if method == "rank_images":
        query = source_row(read_record(body.get("query_record"), "query_record"), "query_record", make_id=False)
    return Request(
        rows=[source_row(record, f"records[{row}]") for row, record in enumerate(read_records(body))],
        hash_types=hash_types,
        radius=0 if range_ is None else radius_from_range(range_, hash_types[0]),
        query=query,
        range=range_,
    )


def load_document(document: Document, what: str) -> Mapping[str, Any]:
    """Return `document` as a JSON object; parse it, or read it from a file, if needed."""
    if isinstance(document, Mapping):
        return document
    text: object = document
    if isinstance(document, PathLike):
        try:
            text = Path(document).read_bytes()
        except OSError as error:
            message = f"{what} {fspath(document)!r} cannot be read: {error.strerror}"
            raise ArgumentError(f"{message}\nHint: pass the path of a JSON file.") from error
    if not isinstance(text, str | bytes):
        raise refused(what, document, "a mapping, JSON text or a path", "pass a pathlib.Path or JSON text.")
    try:
        body = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        hint = "pass JSON text as a str, a file as a pathlib.Path."
        if isinstance(document, PathLike):
            what, hint = f"{what} {fspath(document)!r}", "check that the file is complete JSON in UTF-8."
        raise ArgumentError(f"{what} must be JSON, but: {error}\nHint: {hint}") from error
    if not isinstance(body, dict):
        raise refused(what, body, "a JSON object", 'start the body with {"records": [, as documented.')
    return body


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def read_records(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the `records` of a body, a list of objects."""
    records = body.get("records")
    if not isinstance(records, list | tuple):
        hint = f"add records; the body has the fields {', '.join(map(repr, body)) or 'none'}."
        raise refused("records", records, "a list of objects", hint)
    return [read_record(record, f"records[{row}]") for row, record in enumerate(records)]


def read_record(record: object, field: str) -> Mapping[str, Any]:
    """Return `record` if it is an object."""
    if not isinstance(record, Mapping):
        raise refused(field, record, "an object", 'write {"_url": "…"} or {"_base64": "…"}.')
    return record


def read_hash_types(value: object, method: Method) -> tuple[str, ...]:
    """Return the names in `hash_type` of a request, a string or a list, or the default of the method."""
    several = method == "visual_hash"
    if value is None:
        return documented_kinds() if several else (BMH1.name,)
    given: Sequence[str] = value if isinstance(value, list | tuple) else (value,)
    names = tuple(dict.fromkeys(documented_kind(name).name for name in given))
    if not names or (len(names) > 1 and not several):
        allowed = "one or more kinds" if several else "one kind"
        allowed += f" of {', '.join(map(repr, documented_kinds()))}"
        raise refused("hash_type", value, allowed, "leave it out for the documented default.")
    return names


def record_source(record: Mapping[str, Any]) -> str | None:
    """Return the source of the image of a record; None without one."""
    encoded, url = record.get("_base64"), record.get("_url")
    if isinstance(encoded, str) and encoded and is_text(encoded):
        return encoded if encoded[:5].lower() == "data:" else f"data:;base64,{encoded}"
    return url if isinstance(url, str) and url and is_text(url) else None


def source_row(record: Mapping[str, Any], field: str, *, make_id: bool = True) -> Json:
    """Return the row of a record: `_id`, `url` and `_record`. A missing id is null, or generated."""
    absent = str(uuid4()) if make_id else None
    try:
        id_ = absent if record.get("_id") is None else read_id(record["_id"], f"{field}._id")
    except ArgumentError:
        raise
    except ValueError as error:  # more digits than Python converts to text
        raise _not_json(field, error) from error
    return {ID: id_, URL: record_source(record), RECORD: record}


def source_frame(rows: Sequence[Json], fields: Sequence[str] | None = None) -> pl.DataFrame:
    """Return the rows as a frame, the records as JSON text."""
    texts = []
    for number, row in enumerate(rows):
        try:
            # ASCII, because a String column cannot hold the lone surrogates that JSON can.
            texts.append(_COMPACT.encode(dict(row[RECORD])))
        except (TypeError, ValueError, RecursionError) as error:
            field = fields[number] if fields else f"records[{number}]"
            raise _not_json(field, error) from error
    schema = {ID: pl.String(), URL: pl.String(), RECORD: pl.String()}
    columns = {ID: [row[ID] for row in rows], URL: [row[URL] for row in rows], RECORD: texts}
    return pl.DataFrame(columns, schema=schema)


def _not_json(field: str, error: Exception) -> ArgumentError:
    return ArgumentError(f"{field} must hold JSON values only, but: {error}\nHint: write other values as strings.")
