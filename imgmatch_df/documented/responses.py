"""Responses of the documented API: hashed rows into records, and a `visual_hash` response back into a frame."""

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import uuid4

import polars as pl

from imgmatch_df.columns import DETAIL, DISTANCE, HEIGHT, OK, REMOVED_RECORDS, STATUS, WIDTH
from imgmatch_df.documented.requests import load_document, read_records, source_frame, source_row
from imgmatch_df.documented.values import (
    ID,
    RECORD,
    URL,
    Document,
    Json,
    Method,
    failure_text,
    format_bits,
    format_overall_status,
    format_status,
    percent_from_bits,
    read_bits,
    read_reason,
    read_side,
    read_status,
    refused,
)
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.hashes.kinds import BMH1, HashKind, documented_kind, documented_kinds, visual_hash_fields
from imgmatch_df.image_columns import BYTES_FIELD, PATH_FIELD, holds_sources
from imgmatch_df.options import ATTEMPTS
from imgmatch_df.sources import redact

# Hashed rows: a frame, or mappings with the same names, whose `_record` may be the record itself.
Hashed: TypeAlias = pl.DataFrame | Iterable[Mapping[str, Any]]

_RESPONSE_FIELDS: Final = frozenset({"_id", "_status", "_width", "_height"})


@dataclass(frozen=True, slots=True)
class VisualHashes:
    """A documented `visual_hash` response as a frame.

    Parameters
    ----------
    frame
        One row per record: `_id`, `url`, `_record` as in `Request` (`_id` null if missing), `width` and `height`
        UInt32, the hashes, `status`, `detail`.
    hash_types
        Names of the hash kinds in the response.
    seconds
        Processing time in seconds.
    request_id
        Id in its failed records, or None.
    """

    frame: pl.DataFrame
    hash_types: tuple[str, ...]
    seconds: float
    request_id: str | None


def ping_response() -> Json:
    """Return the documented `ping` response."""
    return {
        "status": {"code": 200, "text": "OK"},
        "_service_info": {
            "_name": "Image matching service",
            "_info": "Get visual hashes, find (near-)duplicate images and rank them",
        },
    }


def visual_hash_response(
    frame: Hashed,
    *,
    seconds: float,
    hash_types: Sequence[str] = documented_kinds(),
    request_id: str | None = None,
    source: str = URL,
    attempts: int = ATTEMPTS,
    reasons: bool = False,
) -> Json:
    """Return a hashed frame as the documented `visual_hash` response.

    Parameters
    ----------
    frame
        Columns as for `iter_records`, and those of `hash_types`.
    seconds
        Processing time.
    hash_types
        Names of the hash kinds to write.
    request_id
        Id in failed records; None generates one. The documented `status` of this method has none.
    source, attempts, reasons
        As for `iter_records`.

    Returns
    -------
    dict
        `status` is 300 MIXED_RESULT if any record failed; the `_status` of a failed record has the reason.
    """
    made_id = request_id or str(uuid4())
    writer = RecordWriter("visual_hash", tuple(hash_types), made_id, source, attempts, reasons)
    records = list(_written(writer, frame))
    return {
        "records": records,
        "statistics": {"processing time": seconds},
        "status": format_overall_status(any("_status" in record for record in records)),
    }


def remove_duplicates_response(
    frame: Hashed,
    *,
    seconds: float,
    hash_type: str = BMH1.name,
    request_id: str | None = None,
    proc_id: str | None = None,
    source: str = URL,
    attempts: int = ATTEMPTS,
    reasons: bool = False,
) -> Json:
    """Return the kept rows of a hashed frame as the documented `remove_duplicates` response.

    Parameters
    ----------
    frame
        The kept rows, columns as for `iter_records`, and `removed_records` List(Struct of the other columns).
    seconds
        Processing time.
    hash_type
        Name of the hash kind that was compared; a row without it failed.
    request_id, proc_id
        Ids in the response; None generates them.
    source, attempts, reasons
        As for `iter_records`.

    Returns
    -------
    dict
        Failed rows match nothing, so they are kept, and `status` is 300 MIXED_RESULT.
    """
    if isinstance(frame, pl.DataFrame):
        _check_columns(frame, (REMOVED_RECORDS,), "pass the result of remove_duplicates.")
    made_id = request_id or str(uuid4())
    writer = RecordWriter("remove_duplicates", (hash_type,), made_id, source, attempts, reasons)
    records = list(_written(writer, frame))
    return {
        "records": records,
        "status": format_overall_status(any(record["_status"]["code"] != 200 for record in records), made_id, proc_id),
        "statistics": {"processing time": seconds},
    }


def rank_images_response(
    query: Hashed,
    ranked: Hashed,
    *,
    seconds: float,
    hash_type: str = BMH1.name,
    request_id: str | None = None,
    proc_id: str | None = None,
    source: str = URL,
    attempts: int = ATTEMPTS,
    reasons: bool = False,
) -> Json:
    """Return ranked rows as the documented `rank_images` response.

    Parameters
    ----------
    query
        One hashed row, columns as for `iter_records`.
    ranked
        Rows nearest first, columns as for `iter_records`, and `distance` in bits, null if the row failed.
    seconds
        Processing time.
    hash_type
        Name of the hash kind of `distance`.
    request_id, proc_id
        Ids in the response; None generates them.
    source, attempts, reasons
        As for `iter_records`.

    Returns
    -------
    dict
        `answer_distances` are percent of differing bits with one decimal; `skipped_records` are the failed rows.

    Raises
    ------
    ArgumentError
        If `query` is not one row, or the row failed.
    """
    made_id = request_id or str(uuid4())
    writer = RecordWriter("rank_images", (hash_type,), made_id, source, attempts, reasons)
    queries = list(_written(writer, query))
    if isinstance(ranked, pl.DataFrame):
        _check_columns(ranked, (DISTANCE,), "pass the result of rank_images.")
        distances: list[int | None] = ranked[DISTANCE].to_list()
    else:
        ranked = list(ranked)
        distances = [row[DISTANCE] for row in ranked]
    if len(queries) != 1:
        raise refused("query_record", f"{len(queries)} rows", "one record", "make one response per query.")
    (query_record,) = queries
    if "_status" in query_record:
        status = query_record["_status"]
        because = f" ({status['reason']}: {status['detail']})" if "reason" in status else ""
        raise ArgumentError(
            f"query_record failed: {status['text']}{because}\n"
            "Hint: send a query image that can be hashed; the other records were not read."
        )
    rows = list(zip(distances, _written(writer, ranked), strict=True))
    skipped = [record for bits, record in rows if bits is None]
    return {
        "query_records": [query_record],
        "answer_distances": [percent_from_bits(bits, hash_type) for bits in distances if bits is not None],
        "answer_records": [record for bits, record in rows if bits is not None],
        "skipped_records": skipped,
        "status": format_overall_status(bool(skipped), made_id, proc_id),
        "statistics": {"processing time": seconds},
    }


def iter_records(
    frame: Hashed,
    method: Method,
    *,
    hash_types: Sequence[str],
    request_id: str,
    source: str = URL,
    attempts: int = ATTEMPTS,
    reasons: bool = False,
) -> Iterator[Json]:
    """Yield the documented record of each row, one at a time.

    Parameters
    ----------
    frame
        Hashed rows, as a frame or as mappings. Columns, if present: `_record` (the record of the request) or `source`
        (String becomes `_url`, Binary `_base64`), `_id`, `width`, `height`, the hashes, `status`, `detail`, `distance`,
        `removed_records`.
    method
        The documented method, which decides the fields: `visual_hash` writes the hashes, `remove_duplicates` a
        `_status` in every record and `removed_records` if there are some.
    hash_types
        Names of the hash kinds to write; a row with a null in one of them has failed.
    request_id
        Id in `_status`.
    source
        Name of the column of sources, for frames that did not come from a request.
    attempts
        Number of attempts named in the documented text of a failed download.
    reasons
        Whether the `_status` of a failed record also has `reason`, the status of the row such as ``"fetch_blocked"``,
        and `detail`, one line of text. The documented response has neither.

    Yields
    ------
    dict
        The fields of the record, unchanged and in order, then those of the response. A field of the response replaces
        one of the same name, so that a record of an earlier response can be sent again.

    Raises
    ------
    ColumnError
        If a column is missing or has another dtype.
    """
    return _written(RecordWriter(method, tuple(hash_types), request_id, source, attempts, reasons), frame)


def parse_visual_hash_response(response: Document) -> VisualHashes:
    """Return a documented `visual_hash` response as a hashed frame.

    `visual_hash_response` turns the frame into the same response. The `status` of a failed record is its `reason`.
    Without one it is ``"fetch_failed"`` for the text of a failed download, ``"missing"`` for a record without an image,
    and ``"decode_failed"`` otherwise.

    Raises
    ------
    ArgumentError
        If the response is not of the documented shape; the message names the field.
    """
    body = load_document(response, "response")
    records = read_records(body)
    found = tuple(name for name in documented_kinds() if any(record.get(name) is not None for record in records))
    hash_types = found or documented_kinds()
    schema = visual_hash_fields(hash_types)
    columns: dict[str, list[Any]] = {name: [] for name in schema}
    own, request_id = [], None
    for row, record in enumerate(records):
        field = f"records[{row}]"
        status, detail, failed_id = read_status(record.get("_status"), field)
        request_id = request_id or failed_id
        columns[STATUS].append(status)
        columns[DETAIL].append(detail)
        columns[WIDTH].append(read_side(record.get("_width"), f"{field}._width"))
        columns[HEIGHT].append(read_side(record.get("_height"), f"{field}._height"))
        for name in hash_types:
            needed = status == OK
            columns[name].append(read_bits(record.get(name), documented_kind(name), f"{field}.{name}", needed=needed))
        # Without the texts of the hashes: they take 1,000 bytes per record, and the hash columns have them already.
        kept = {key: value for key, value in record.items() if key not in hash_types}
        own.append(source_row(kept, field, make_id=False))
    statistics = body.get("statistics")
    seconds = statistics.get("processing time") if isinstance(statistics, Mapping) else None
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise refused("statistics['processing time']", seconds, "a number of seconds", "pass an unchanged response.")
    frame = source_frame(own).hstack(pl.DataFrame(columns, schema=schema))
    return VisualHashes(frame, hash_types, seconds, request_id)


@dataclass(frozen=True, slots=True)
class RecordWriter:
    """Converter of hashed rows to the records of one response, one row at a time.

    Parameters
    ----------
    method, hash_types, request_id, source, attempts, reasons
        As for `iter_records`.
    """

    method: Method
    hash_types: tuple[str, ...]
    request_id: str
    source: str
    attempts: int
    reasons: bool = False

    def __post_init__(self) -> None:
        for name in self.hash_types:
            documented_kind(name)

    def record(self, row: Mapping[str, Any]) -> Json:
        """Return the documented record of one row."""
        record = self._own_fields(row)
        ok = self._is_ok(row)
        if not ok:
            reason = read_reason(row.get(STATUS))
            detail = None if reason is None else row.get(DETAIL)
            text = failure_text(reason, detail, redact(record.get("_url")), self.attempts)
            record["_status"] = format_status(400, text, request_id=self.request_id)
            if self.reasons and reason is not None:
                record["_status"] |= {"reason": reason, "detail": detail or reason}
        elif self.method == "remove_duplicates":
            record["_status"] = format_status(200, "OK", request_id=self.request_id)
        if row.get(ID) is not None:
            record["_id"] = str(row[ID])
        if not ok:
            return record
        for key, name in (("_width", WIDTH), ("_height", HEIGHT)):
            if row.get(name) is not None:
                record[key] = row[name]
        if self.method == "visual_hash":
            record.update((name, format_bits(row[name], documented_kind(name))) for name in self.hash_types)
        elif row.get(REMOVED_RECORDS):
            record["removed_records"] = [self.record(removed) for removed in row[REMOVED_RECORDS]]
        return record

    def _own_fields(self, row: Mapping[str, Any]) -> Json:
        if RECORD not in row:
            value, path = _image_of(row[self.source])
            named = {} if path is None else {"_id": path}
            return named | ({"_base64": b64encode(value).decode()} if isinstance(value, bytes) else {"_url": value})
        replaced: Sequence[str] = {
            "visual_hash": self.hash_types,
            "remove_duplicates": ("removed_records",),
            "rank_images": (),
        }[self.method]
        own = row[RECORD]
        fields = (own if isinstance(own, Mapping) else json.loads(own)).items()
        return {key: value for key, value in fields if key not in _RESPONSE_FIELDS and key not in replaced}

    def _is_ok(self, row: Mapping[str, Any]) -> bool:
        # For the other methods, and for nested rows, a `distance` column belongs to the user.
        if self.method == "rank_images" and DISTANCE in row:
            return row[DISTANCE] is not None
        if any(name in row for name in self.hash_types):
            return all(row.get(name, 0) is not None for name in self.hash_types)
        return read_reason(row.get(STATUS)) is None


def _written(writer: RecordWriter, hashed: Hashed) -> Iterator[Json]:
    """Check the columns now, and return an iterator over the records."""
    if not isinstance(hashed, pl.DataFrame):
        return map(writer.record, hashed)
    for name in writer.hash_types:
        _check_hashes(hashed, documented_kind(name), needed=writer.method == "visual_hash")
    carrier = RECORD if RECORD in hashed.columns else writer.source
    _check_columns(hashed, (carrier,), "source= names the column of image references.")
    if hashed.schema[carrier] not in (pl.String, pl.Binary) and not _is_nested_source(hashed.schema[carrier]):
        message = f"column {carrier!r} must be String or Binary, got {hashed.schema[carrier]}"
        raise ColumnError(f"{message}\nHint: source= names the column of image references.")
    wanted = (carrier, ID, WIDTH, HEIGHT, STATUS, DETAIL, *writer.hash_types)
    wanted += {"rank_images": (DISTANCE,), "remove_duplicates": (REMOVED_RECORDS,), "visual_hash": ()}[writer.method]
    # Only needed columns: the frame may contain the images.
    rows = hashed.select([name for name in wanted if name in hashed.columns])
    return map(writer.record, rows.iter_rows(named=True))


def _image_of(value: Any) -> tuple[Any, str | None]:
    """Return the image of a value of a column of images, and the path that names it, None where it is itself a name."""
    while isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, Mapping):
        return value, None
    image, path = value.get(BYTES_FIELD), value.get(PATH_FIELD)
    return (image, path) if image or path is None else (path, None)


def _is_nested_source(dtype: Any) -> bool:
    return bool(dtype.is_nested()) and holds_sources(dtype)


def _check_columns(frame: pl.DataFrame, names: Sequence[str], hint: str) -> None:
    absent = [name for name in names if name not in frame.columns]
    if absent:
        raise ColumnError(f"column {absent[0]!r} is absent, the frame has {frame.columns}\nHint: {hint}")


def _check_hashes(frame: pl.DataFrame, kind: HashKind, *, needed: bool) -> None:
    if kind.name not in frame.columns and not needed:
        return
    _check_columns(frame, (kind.name,), "hash the frame first, or leave the kind out of hash_types.")
    dtype = frame.schema[kind.name]
    if dtype != kind.dtype:
        raise ColumnError(f"column {kind.name!r} must be {kind.dtype}, got {dtype}\nHint: from_bits reads 0/1 strings.")
    if dtype == pl.Binary and not frame[kind.name].bin.size().eq(kind.n_bytes).all():
        message = f"column {kind.name!r} must have {kind.n_bytes} bytes in every row"
        raise ColumnError(f"{message}\nHint: hash the frame again.")
