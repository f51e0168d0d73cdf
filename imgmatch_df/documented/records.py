"""The documented JSON, both ways: requests into frames, hashed frames into responses.

The names of the JSON's fields and its unit of distance (percent of differing bits) live here and in `values` alone.
Nothing here fetches, decodes, hashes or joins.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, get_args
from uuid import uuid4

import polars as pl

from imgmatch_df.columns import DETAIL, DISTANCE, HEIGHT, OK, REMOVED_RECORDS, STATUS, WIDTH
from imgmatch_df.documented.values import ATTEMPTS as ATTEMPTS
from imgmatch_df.documented.values import ID as ID
from imgmatch_df.documented.values import RECORD as RECORD
from imgmatch_df.documented.values import SOURCE as SOURCE
from imgmatch_df.documented.values import (
    Document,
    Json,
    Method,
    RecordWriter,
    format_overall_status,
    load_document,
    percent_from_bits,
    radius_from_range,
    read_bits,
    read_hash_types,
    read_id,
    read_record,
    read_records,
    read_side,
    read_source,
    read_status,
    refused,
)
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.hashes.kinds import BMH1, HashKind, documented_kind, documented_kinds, visual_hash_fields

# Hashed rows: a frame, or mappings with the same names, whose `_record` may be the record itself.
Hashed: TypeAlias = pl.DataFrame | Iterable[Mapping[str, Any]]

_COMPACT: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class RequestRows:
    """A documented request as rows: mappings with the names of `Request.frame`, whose `_record` is the record itself.

    Parameters
    ----------
    rows, hash_types, radius, query, range
        As in `Request`.
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


@dataclass(frozen=True, slots=True)
class Request:
    """A documented request as frames.

    Parameters
    ----------
    frame
        One row per record, in order: `_id` String, `url` String (null where the record holds no image; `_base64`
        comes as a ``data:`` URI, so that it is never taken for a path), `_record` String (the record's own JSON, which
        carries fields of any name and type through a frame).
    hash_types
        Names of the hash kinds asked for, or the documented default of the method.
    radius
        The request's `range` in bits of `hash_type`, inclusive; 0 where the request has none.
    query
        For `rank_images`, one row like those of `frame`, with null `_id` where the request gives none; else None.
    range
        The request's `range` as it came, in percent; None where it has none.
    """

    frame: pl.DataFrame
    hash_types: tuple[str, ...]
    radius: int
    query: pl.DataFrame | None
    range: float | None = None

    @property
    def hash_type(self) -> str:
        """The hash kind to compare by: the first of `hash_types`."""
        return self.hash_types[0]


@dataclass(frozen=True, slots=True)
class VisualHashes:
    """A documented `visual_hash` response as a frame.

    Parameters
    ----------
    frame
        One row per record: `_id`, `url`, `_record` as in `Request` (`_id` null where absent), `width` and `height`
        UInt32, the hashes, `status`, `detail`.
    hash_types
        Names of the hash kinds that the response holds.
    seconds
        Its processing time.
    request_id
        The id that its failed records carry, or None.
    """

    frame: pl.DataFrame
    hash_types: tuple[str, ...]
    seconds: float
    request_id: str | None


def read_request(request: Document, method: Method = "visual_hash") -> Request:
    """Return a documented request as a frame of sources.

    A record without an image is a row like any other, with a null source. A request that is not of the documented
    shape raises. The hosted limit of ten records does not apply.

    Parameters
    ----------
    request
        The body: a mapping, its JSON as str or bytes, or the path of a file that holds it.
    method
        The documented method that it is for. It decides the default of `hash_type` (`visual_hash`: both, else
        ``"bmh1"``) and whether `query_record` is needed.

    Returns
    -------
    Request
        A record's `_id` is kept as a string (duplicates too) and made where absent or null. Where a record has both
        `_base64` and `_url`, `_base64` is taken: it needs no network.

    Raises
    ------
    ArgumentError
        If the body is no JSON object, or a field has a value that is not allowed; the message names the field.

    Examples
    --------
    >>> request = read_request('{"records": [{"_url": "cat.jpg", "_id": 7}], "hash_type": "phash", "range": 5}')
    >>> request.frame.rows(named=True)
    [{'_id': '7', 'url': 'cat.jpg', '_record': '{"_url":"cat.jpg","_id":7}'}]
    >>> request.hash_types, request.radius
    (('phash',), 3)
    """
    read = read_rows(request, method)
    query = None if read.query is None else _source_frame([read.query], ["query_record"])
    return Request(_source_frame(read.rows), read.hash_types, read.radius, query, read.range)


def read_rows(request: Document, method: Method = "visual_hash") -> RequestRows:
    """Return a documented request as rows, for a caller that keeps the records in memory; see `read_request`."""
    if method not in get_args(Method):
        raise refused("method", method, "one of " + ", ".join(map(repr, get_args(Method))), "ping takes no records.")
    body = load_document(request, "request")
    hash_types = read_hash_types(body.get("hash_type"), method)
    range_ = body.get("range")
    query = None
    if method == "rank_images":
        query = _source_row(read_record(body.get("query_record"), "query_record"), "query_record", make_id=False)
    return RequestRows(
        rows=[_source_row(record, f"records[{row}]") for row, record in enumerate(read_records(body))],
        hash_types=hash_types,
        radius=0 if range_ is None else radius_from_range(range_, hash_types[0]),
        query=query,
        range=range_,
    )


def visual_hash_response(
    frame: Hashed,
    *,
    seconds: float,
    hash_types: Sequence[str] = documented_kinds(),
    request_id: str | None = None,
    source: str = SOURCE,
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
        Id that failed records carry; made where None. The documented `status` of this method has none.
    source, attempts, reasons
        As for `iter_records`.

    Returns
    -------
    dict
        `status` is 300 MIXED_RESULT where any record failed, or all; each failed record says why in `_status`.
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
    source: str = SOURCE,
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
        Name of the hash kind that rows were compared by; a row where it is null failed.
    request_id, proc_id
        Ids that the response carries; made where None.
    source, attempts, reasons
        As for `iter_records`.

    Returns
    -------
    dict
        Failed rows match nothing, so they are among the kept ones, and `status` is 300 MIXED_RESULT.
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
    source: str = SOURCE,
    attempts: int = ATTEMPTS,
    reasons: bool = False,
) -> Json:
    """Return ranked rows as the documented `rank_images` response.

    Parameters
    ----------
    query
        One hashed row, columns as for `iter_records`.
    ranked
        Rows nearest first, columns as for `iter_records`, and `distance` in bits, null where the row failed.
    seconds
        Processing time.
    hash_type
        Name of the hash kind that `distance` counts bits of.
    request_id, proc_id
        Ids that the response carries; made where None.
    source, attempts, reasons
        As for `iter_records`.

    Returns
    -------
    dict
        `answer_distances` are percent of differing bits with one decimal; failed rows are the `skipped_records`.

    Raises
    ------
    ArgumentError
        If `query` is not one row, or is a row that failed: there is nothing to rank against.
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
        raise refused("query_record", f"{len(queries)} rows", "one record", "each query has a response of its own.")
    (query_record,) = queries
    if "_status" in query_record:
        status = query_record["_status"]
        because = f" ({status['reason']}: {status['detail']})" if "reason" in status else ""
        raise ArgumentError(
            f"query_record failed: {status['text']}{because}\n"
            "Hint: ranking needs the query's hash; the other records were not looked at."
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
    source: str = SOURCE,
    attempts: int = ATTEMPTS,
    reasons: bool = False,
) -> Iterator[Json]:
    """Yield the documented record of each row, one at a time.

    Parameters
    ----------
    frame
        Hashed rows, as a frame or as mappings. Read where present: `_record` (the record as it came) or else `source`
        (String becomes `_url`, Binary `_base64`), `_id`, `width`, `height`, the hashes, `status`, `detail`, `distance`,
        `removed_records`.
    method
        The documented method, which decides the fields: `visual_hash` writes the hashes, `remove_duplicates` a
        `_status` on every record and `removed_records` where there are some.
    hash_types
        Names of the hash kinds asked for; a row where one is null failed.
    request_id
        Id that `_status` carries.
    source
        Name of the column of sources, for frames that did not come from a request.
    attempts
        Number of attempts named in the documented text of a failed download.
    reasons
        Whether the `_status` of a failed record also has `reason`, one of our statuses such as ``"fetch_blocked"``, and
        `detail`, one line on what happened. The documented response has neither.

    Yields
    ------
    dict
        The record's own fields unchanged and in their order, then the answer's. A field of the answer replaces one of
        the same name, so that an earlier answer can be sent again.

    Raises
    ------
    ColumnError
        If a column that is needed is absent or has another dtype.
    """
    return _written(RecordWriter(method, tuple(hash_types), request_id, source, attempts, reasons), frame)


def parse_visual_hash_response(response: Document) -> VisualHashes:
    """Return a documented `visual_hash` response as a hashed frame.

    `visual_hash_response` makes the same response of it again. A failed record's `status` is its `reason`. Without one
    it is ``"fetch_failed"`` where the text is that of a failed download, ``"missing"`` where there was no image, else
    ``"decode_failed"``.

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
        # Without the bit strings, a thousand bytes a record that the hash columns hold already.
        kept = {key: value for key, value in record.items() if key not in hash_types}
        own.append(_source_row(kept, field, make_id=False))
    statistics = body.get("statistics")
    seconds = statistics.get("processing time") if isinstance(statistics, Mapping) else None
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise refused("statistics['processing time']", seconds, "a number of seconds", "it is a documented field.")
    frame = _source_frame(own).hstack(pl.DataFrame(columns, schema=schema))
    return VisualHashes(frame, hash_types, seconds, request_id)


def _written(writer: RecordWriter, hashed: Hashed) -> Iterator[Json]:
    """Check the columns now, and return an iterator over the rows' records."""
    if not isinstance(hashed, pl.DataFrame):
        return map(writer.record, hashed)
    for name in writer.hash_types:
        _check_hashes(hashed, documented_kind(name), needed=writer.method == "visual_hash")
    carrier = RECORD if RECORD in hashed.columns else writer.source
    _check_columns(hashed, (carrier,), "source= names the column of image references.")
    if hashed.schema[carrier] not in (pl.String, pl.Binary):
        message = f"column {carrier!r} must be String or Binary, got {hashed.schema[carrier]}"
        raise ColumnError(f"{message}\nHint: source= names the column of image references.")
    wanted = (carrier, ID, WIDTH, HEIGHT, STATUS, DETAIL, *writer.hash_types)
    wanted += {"rank_images": (DISTANCE,), "remove_duplicates": (REMOVED_RECORDS,), "visual_hash": ()}[writer.method]
    # Only what is read: the frame may hold the pictures themselves.
    rows = hashed.select([name for name in wanted if name in hashed.columns])
    return map(writer.record, rows.iter_rows(named=True))


def _source_row(record: Mapping[str, Any], field: str, *, make_id: bool = True) -> Json:
    """Return `_id`, source and the record itself; an absent id is null unless made."""
    absent = str(uuid4()) if make_id else None
    try:
        id_ = absent if record.get("_id") is None else read_id(record["_id"], f"{field}._id")
    except ArgumentError:
        raise
    except ValueError as error:  # more digits than Python turns into text
        raise _not_json(field, error) from error
    return {ID: id_, SOURCE: read_source(record), RECORD: record}


def _not_json(field: str, error: Exception) -> ArgumentError:
    return ArgumentError(f"{field} must hold JSON values only, but: {error}\nHint: write other values as strings.")


def _source_frame(rows: Sequence[Json], fields: Sequence[str] | None = None) -> pl.DataFrame:
    """Return the rows as a frame, the records as JSON text."""
    texts = []
    for number, row in enumerate(rows):
        try:
            # ASCII, because a String column cannot hold the lone surrogates that JSON can.
            texts.append(_COMPACT.encode(dict(row[RECORD])))
        except (TypeError, ValueError, RecursionError) as error:
            field = fields[number] if fields else f"records[{number}]"
            raise _not_json(field, error) from error
    schema = {ID: pl.String(), SOURCE: pl.String(), RECORD: pl.String()}
    columns = {ID: [row[ID] for row in rows], SOURCE: [row[SOURCE] for row in rows], RECORD: texts}
    return pl.DataFrame(columns, schema=schema)


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
        message = f"column {kind.name!r} must hold {kind.n_bytes} bytes in every row"
        raise ColumnError(f"{message}\nHint: hash the frame again.")
