"""From a validated request to the documented answer: sources to rows, rows through the verbs, rows to JSON."""

import asyncio
import re
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Any

import polars as pl

from imgmatch_df.batch.image_hashes import hash_image, sample_images
from imgmatch_df.columns import DETAIL, DISTANCE, OK, REMOVED_RECORDS, STATUS
from imgmatch_df.documented import responses
from imgmatch_df.documented.requests import Request
from imgmatch_df.documented.values import RECORD, URL, Json, Method
from imgmatch_df.errors import Failure, without_warnings
from imgmatch_df.frames import clustering, ranking
from imgmatch_df.hashes.kinds import documented_kinds, empty_row, hash_kind, hash_kinds
from imgmatch_df.options import Options
from imgmatch_df.schemes import public_schemes
from imgmatch_df.server.hash_queue import Hasher, Row
from imgmatch_df.server.settings import Settings
from imgmatch_df.sources import Source, describe, parse_source

_ROW = "row"


async def answer(
    request: Request,
    method: Method,
    hasher: Hasher,
    settings: Settings,
    request_id: str,
    started: float,
    statuses: list[str],
) -> Json:
    """Return the documented answer.

    Parameters
    ----------
    request
        What `models.read_body` gave.
    method
        The documented method.
    hasher, settings
        Of this worker.
    request_id
        Id that the answer carries.
    started
        When the request had arrived, by `time.monotonic`.
    statuses
        Gets the status of each image, also where the query of `rank_images` failed.

    Raises
    ------
    ArgumentError
        If the query of `rank_images` has no hash.
    """
    asked = request.rows if request.query is None else [request.query, *request.rows]
    hashed = await hasher.hash([_source(row) for row in asked], request.hash_types)
    statuses += [row[STATUS] for row in hashed]
    if not settings.echo_base64:
        asked = [{**row, RECORD: {key: row[RECORD][key] for key in row[RECORD] if key != "_base64"}} for row in asked]
    rows = [{**row, **result, DETAIL: _public_detail(result)} for row, result in zip(asked, hashed, strict=True)]
    common: dict[str, Any] = {"request_id": request_id, "attempts": settings.options.attempts, "reasons": True}
    if method == "visual_hash":
        response = partial(responses.visual_hash_response, rows, hash_types=request.hash_types)
    elif method == "remove_duplicates":
        kept = await asyncio.to_thread(_remove_duplicates, rows, request)
        response = partial(responses.remove_duplicates_response, kept, hash_type=request.hash_type)
    else:
        query, *others = rows
        ranked = await asyncio.to_thread(_rank, query, others, request.hash_type)
        response = partial(responses.rank_images_response, [query], ranked, hash_type=request.hash_type)
    return response(seconds=monotonic() - started, **common)


def _source(row: Row) -> str | Failure | None:
    """Return the picture that a record names, unless it is one that a stranger may not name."""
    source: str | None = row[URL]
    if source is None or source is not row[RECORD].get("_url"):
        return source
    named = parse_source(source)
    if isinstance(named, Source) and named.kind == "url" and named.scheme in public_schemes():
        return source
    if isinstance(named, Failure) and named.status == "missing":
        return named
    allowed = " or ".join(public_schemes())
    return Failure("bad_source", f"'_url' must be an {allowed} URL, got {describe(source)!r}")


def _public_detail(row: Row) -> str | None:
    """Return the detail of a row without what only those who run the service may know, or could use.

    A client must not learn which private addresses the names of a network stand for.
    """
    detail: str | None = row[DETAIL]
    if detail is None or row[STATUS] != "fetch_blocked":
        return detail
    hidden, n_hidden = _RESOLVED.subn(" is", detail)
    if not n_hidden:
        hidden = _IS_IP.sub("blocked: the address is", detail)
    return _PYTHON_HINT.sub("; imgmatch serve --allow-private-networks allows it", hidden)


_RESOLVED = re.compile(r" is [0-9A-Fa-f:.]+(%\S+)?,")
_IS_IP = re.compile(r"^blocked: [0-9A-Fa-f:.]+(%\S+)? is")
_PYTHON_HINT = re.compile("; pass allow_private_networks=True to allow it$")


def _remove_duplicates(rows: Sequence[Row], request: Request) -> list[Row]:
    frame = _frame(rows, request.hash_type)
    with without_warnings():  # the client chose the range, and does not see the log
        kept = clustering.remove_duplicates(frame, request.radius, request.hash_type)
    return [
        {**rows[row], REMOVED_RECORDS: [rows[other[_ROW]] for other in removed]}
        for row, removed in kept.select(_ROW, REMOVED_RECORDS).iter_rows()
    ]


def _rank(query: Row, rows: Sequence[Row], hash_type: str) -> list[Row]:
    if query[STATUS] != OK:
        return []  # `rank_images_response` says why
    ranked = ranking.rank_images(_frame(rows, hash_type), query[hash_type], hash_type)
    return [{**rows[row], DISTANCE: distance} for row, distance in ranked.select(_ROW, DISTANCE).iter_rows()]


def _frame(rows: Sequence[Row], hash_type: str) -> pl.DataFrame:
    """Return the hashes, each with the number of its row: what the verbs compare."""
    hashes = pl.Series(hash_type, [row[hash_type] for row in rows], dtype=hash_kind(hash_type).dtype)
    return pl.DataFrame([pl.Series(_ROW, range(len(rows)), dtype=pl.UInt32), hashes])


def warm_up(options: Options) -> None:
    """Hash, compare and rank once, so that every kernel is compiled and loaded before the first request.

    What decoder processes do is left to them.
    """
    kinds = hash_kinds(documented_kinds())
    if not options.isolate:
        rows = empty_row(kinds)
        for sample in sample_images():
            hash_image(sample, Options(decode=options.decode, alpha=options.alpha), rows)
    for kind in kinds:
        hashes = list(range(6)) if kind.is_number else [bytes([number]) * kind.n_bytes for number in range(6)]
        hashed = pl.DataFrame({kind.name: pl.Series(hashes, dtype=kind.dtype)})
        for radius in (0, 2 * kind.near_radius):
            clustering.remove_duplicates(hashed, radius, kind.name)
            ranking.rank_images(hashed, hashes[0], kind.name)
