"""Handlers of the API's endpoints: a validated body to sources, hashes, the verbs of the frames, and the JSON.

Separate from the table in `endpoints`, which names one handler per entry.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final
from uuid import uuid4

import polars as pl

from imgmatch_df.batch.image_hashes import hash_image, sample_images
from imgmatch_df.columns import DETAIL, DISTANCE, OK, REMOVED_RECORDS, STATUS
from imgmatch_df.documented import responses
from imgmatch_df.documented.requests import Request, read_rows
from imgmatch_df.documented.values import ID, RECORD, URL, Json, percent_from_bits
from imgmatch_df.errors import Failure, without_warnings
from imgmatch_df.fetching.refusal_text import without_refusal
from imgmatch_df.frames import clustering, ranking
from imgmatch_df.hashes.kinds import documented_kinds, empty_row, hash_kind, hash_kinds
from imgmatch_df.options import Options
from imgmatch_df.schemes import public_schemes
from imgmatch_df.server.hash_queue import Hasher, Row
from imgmatch_df.server.models import STORED_K
from imgmatch_df.server.responses import overloaded
from imgmatch_df.server.settings import Settings
from imgmatch_df.server.store_lookup import StoredRows
from imgmatch_df.sources import Source, describe, parse_source

_ROW: Final = "row"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an endpoint: the argument of its handler.

    Parameters
    ----------
    body
        The JSON of the request, valid for the request model; empty for an endpoint without one.
    hasher, settings
        Those of this worker.
    request_id
        The id that the response carries.
    started
        When the body was complete, by `time.monotonic`.
    statuses
        The handler adds the status of each image, for the log and the metrics.
    stored
        The stored images; None without a store.
    """

    body: Json
    hasher: Hasher
    settings: Settings
    request_id: str = field(default_factory=lambda: str(uuid4()))
    started: float = field(default_factory=monotonic)
    statuses: list[str] = field(default_factory=list)
    stored: StoredRows | None = None


async def handle_ping(_call: Call) -> Json:
    """Return the name of the service."""
    return responses.ping_response()


async def handle_visual_hash(call: Call) -> Json:
    """Return the records with their hashes."""
    request = read_rows(call.body, "visual_hash")
    rows = await _hash_records(call, request, request.rows)
    return responses.visual_hash_response(rows, hash_types=request.hash_types, **_common(call))


async def handle_remove_duplicates(call: Call) -> Json:
    """Return one record of each group of duplicates; with `against_store`, those of stored images separately.

    Raises
    ------
    Refusal
        With code 503 if the store could not be loaded yet.
    """
    request = read_rows(call.body, "remove_duplicates")
    rows = await _hash_records(call, request, request.rows)
    known: dict[int, Json] = {}
    is_against = call.stored is not None and bool(call.body.get("against_store"))
    if call.stored is not None and is_against:
        known = await _find_stored(call.stored, rows, request)
    others = [row for place, row in enumerate(rows) if place not in known]
    kept = await asyncio.to_thread(_remove_duplicates, others, request)
    common = _common(call)
    response = responses.remove_duplicates_response(kept, hash_type=request.hash_type, **common)
    if is_against:
        writing = {"hash_types": (request.hash_type,), "request_id": call.request_id, "attempts": common["attempts"]}
        records = responses.iter_records([rows[place] for place in known], "remove_duplicates", **writing)
        stored = responses.iter_records(list(known.values()), "rank_images", **writing)
        distances = [percent_from_bits(row[DISTANCE], request.hash_type) for row in known.values()]
        response["known_records"] = [
            {**record, "_stored_record": other, "_stored_distance": distance}
            for record, other, distance in zip(records, stored, distances, strict=True)
        ]
    return response


async def _find_stored(stored: StoredRows, rows: Sequence[Row], request: Request) -> dict[int, Json]:
    """Return the nearest stored row of each row that has one within the range, other than the row itself."""
    known = {}
    for place, row in enumerate(rows):
        if row[STATUS] != OK:
            continue
        # One at a time, so that a client that disconnects, or the deadline, ends the search.
        nearest = await asyncio.to_thread(stored.rank, row[request.hash_type], request.hash_type, 2)
        if nearest is None:
            raise overloaded("the store is not loaded")
        found = next((one for one in nearest if one[ID] != row[URL]), None)
        if found is not None and found[DISTANCE] <= request.radius:
            known[place] = found
    return known


async def handle_rank_images(call: Call) -> Json:
    """Return the records, nearest to the query record first; without records, the nearest stored images.

    Raises
    ------
    ArgumentError
        If the query record has no hash.
    Refusal
        With code 503 if the store could not be loaded yet.
    """
    if call.body.get("records") is None and call.stored is not None:
        return await _rank_stored(call, call.stored)
    request = read_rows(call.body, "rank_images")
    query, *rows = await _hash_records(call, request, [request.query, *request.rows])
    ranked = await asyncio.to_thread(_rank, query, rows, request.hash_type)
    if call.stored is not None and call.body.get("k") is not None:
        found = [row for row in ranked if row[DISTANCE] is not None]
        ranked = found[: call.body["k"]] + [row for row in ranked if row[DISTANCE] is None]
    return responses.rank_images_response([query], ranked, hash_type=request.hash_type, **_common(call))


async def _rank_stored(call: Call, stored: StoredRows) -> Json:
    request = read_rows({**call.body, "records": []}, "rank_images")
    (query,) = await _hash_records(call, request, [request.query])
    k = call.body.get("k") or min(STORED_K, call.settings.max_records)
    ranked: list[Json] | None = []
    if query[STATUS] == OK:  # otherwise `rank_images_response` raises, with the reason
        ranked = await asyncio.to_thread(stored.rank, query[request.hash_type], request.hash_type, k)
    if ranked is None:
        raise overloaded("the store is not loaded")
    return responses.rank_images_response([query], ranked, hash_type=request.hash_type, **_common(call))


def _common(call: Call) -> dict[str, Any]:
    """Return the arguments that the functions of `documented.responses` share."""
    return {
        "request_id": call.request_id,
        "attempts": call.settings.options.attempts,
        "reasons": True,
        "seconds": monotonic() - call.started,
    }


async def _hash_records(call: Call, request: Request, records: Sequence[Any]) -> list[Row]:
    """Return the rows of `records` with hashes, and add their statuses to the call."""
    hashed = await call.hasher.hash([_source(row) for row in records], request.hash_types)
    call.statuses.extend(row[STATUS] for row in hashed)
    if not call.settings.echo_base64:
        records = [
            {**row, RECORD: {key: row[RECORD][key] for key in row[RECORD] if key != "_base64"}} for row in records
        ]
    return [{**row, **result, DETAIL: _public_detail(result)} for row, result in zip(records, hashed, strict=True)]


def _source(row: Row) -> str | Failure | None:
    """Return the source of a record, or a failure for a source that clients must not name."""
    source: str | None = row[URL]
    if source is None or source is not row[RECORD].get("_url"):
        return source
    parsed = parse_source(source)
    if isinstance(parsed, Source) and parsed.kind == "url" and parsed.scheme in public_schemes():
        return source
    if isinstance(parsed, Failure) and parsed.status == "missing":
        return parsed
    allowed = " or ".join(public_schemes())
    return Failure("bad_source", f"'_url' must be an {allowed} URL, got {describe(source)!r}")


def _public_detail(row: Row) -> str | None:
    """Return the detail of a row without IP addresses, Python options, and what other servers say.

    A client must not learn to which private IP addresses the host names of a network resolve, nor read the text of a
    server that only this one reaches.
    """
    detail: str | None = row[DETAIL]
    if detail is None:
        return None
    if row[STATUS] != "fetch_blocked":
        return without_refusal(_OF_PROXY.sub("the proxy", detail))
    hidden, n_hidden = _RESOLVED.subn(" is", detail)
    if not n_hidden:
        hidden = _IS_IP.sub("blocked: the address is", detail)
    return _PYTHON_HINT.sub("; imgmatch serve --allow-private-networks allows it", hidden)


_OF_PROXY = re.compile(r"the proxy (https?|socks5h)://[^\s/]+:[0-9]+")
_RESOLVED = re.compile(r" is [0-9A-Fa-f:.]+(%\S+)?,")
_IS_IP = re.compile(r"^blocked: [0-9A-Fa-f:.]+(%\S+)? is")
_PYTHON_HINT = re.compile("; pass allow_private_networks=True to allow it$")


def _remove_duplicates(rows: Sequence[Row], request: Request) -> list[Row]:
    frame = _frame(rows, request.hash_type)
    with without_warnings():  # the client chose the range, and does not see the log
        kept = clustering.remove_duplicates(frame, request.radius, request.hash_type, flat="match")
    return [
        {**rows[row], REMOVED_RECORDS: [rows[other[_ROW]] for other in removed]}
        for row, removed in kept.select(_ROW, REMOVED_RECORDS).iter_rows()
    ]


def _rank(query: Row, rows: Sequence[Row], hash_type: str) -> list[Row]:
    if query[STATUS] != OK:
        return []  # `rank_images_response` raises, with the reason
    ranked = ranking.rank_images(_frame(rows, hash_type), query[hash_type], hash_type, flat="match")
    return [{**rows[row], DISTANCE: distance} for row, distance in ranked.select(_ROW, DISTANCE).iter_rows()]


def _frame(rows: Sequence[Row], hash_type: str) -> pl.DataFrame:
    """Return a frame of the hashes and the row numbers, for the verbs."""
    hashes = pl.Series(hash_type, [row[hash_type] for row in rows], dtype=hash_kind(hash_type).dtype)
    return pl.DataFrame([pl.Series(_ROW, range(len(rows)), dtype=pl.UInt32), hashes])


def warm_up(options: Options) -> None:
    """Hash, compare and rank once, so that every kernel is compiled and loaded before the first request.

    With `options.isolate`, decoding is left out: the decoder processes warm up themselves.
    """
    kinds = hash_kinds(documented_kinds())
    if not options.isolate:
        rows = empty_row(kinds)
        for sample in sample_images():
            hash_image(sample, Options(decode=options.decode, alpha=options.alpha, trim=options.trim), rows)
    for kind in kinds:
        hashes = list(range(6)) if kind.is_number else [bytes([number]) * kind.n_bytes for number in range(6)]
        hashed = pl.DataFrame({kind.name: pl.Series(hashes, dtype=kind.dtype)})
        for radius in (0, 2 * kind.near_radius):
            clustering.remove_duplicates(hashed, radius, kind.name, flat="match")
            ranking.rank_images(hashed, hashes[0], kind.name, flat="match")
