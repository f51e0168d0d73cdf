"""The OpenAPI description, made of the models."""

from importlib.metadata import version
from typing import Any, Final

from pydantic import TypeAdapter

from imgmatch_df.columns import OK, STATUSES
from imgmatch_df.documented.values import Json, Method
from imgmatch_df.hashes.kinds import documented_kinds, hash_kinds
from imgmatch_df.server.models import DISTANCE_UNIT, RANGE_RULE, describe_models
from imgmatch_df.server.settings import Settings

PREFIX: Final = "/image_matching/v2/"

_SUMMARIES: Final = {
    "ping": ("Test the service", "Returns its name."),
    "visual_hash": (
        "Hash images",
        f"Returns {' and '.join(documented_kinds())} of each image "
        "as strings of 0 and 1, and its width and height in pixels.",
    ),
    "remove_duplicates": (
        "Merge near-duplicates",
        f"Records that match move into removed_records of the first of them. {DISTANCE_UNIT} {RANGE_RULE}",
    ),
    "rank_images": ("Rank images", f"Returns the records, nearest to query_record first. {DISTANCE_UNIT}"),
}
_REFUSALS: Final = {
    "400": "The body is not JSON.",
    "401": "No token, or a wrong one.",
    "408": "The body took too long to arrive.",
    "413": "The body is too large.",
    "415": "The body is not application/json.",
    "422": "A field is wrong; the text names it, and what is allowed.",
    "500": "A bug. The log has the request's id.",
    "503": "Overloaded, or it took too long; try again after Retry-After seconds.",
}
_STATUS: Final = {
    "type": "object",
    "required": ["code", "text"],
    "properties": {
        "code": {
            "type": "integer",
            "description": "200: OK. 300: some records failed. 400 in a record's _status: it failed.",
        },
        "text": {"type": "string", "description": "What happened."},
        "request_id": {"type": "string", "description": "Also in the header X-Request-Id, and in the log."},
        "proc_id": {"type": "string"},
        "reason": {
            "type": "string",
            "enum": [status for status in STATUSES if status != OK],
            "description": "Why a record failed, in one word.",
        },
        "detail": {"type": "string", "description": "Why a record failed, in one line."},
    },
}


def _list_of(description: str) -> Json:
    return {"type": "array", "items": {"$ref": "#/components/schemas/AnswerRecord"}, "description": description}


_STATISTICS: Final = {"type": "object", "description": "processing time, in seconds."}
_ANSWERS: Final[dict[str, Json]] = {
    "ping": {"_service_info": {"type": "object", "description": "_name and _info of the service."}},
    "visual_hash": {"records": _list_of("The records with their hashes, in order."), "statistics": _STATISTICS},
    "remove_duplicates": {
        "records": _list_of("One record of each group of duplicates, the first; and those that failed."),
        "statistics": _STATISTICS,
    },
    "rank_images": {
        "query_records": _list_of("The query record."),
        "answer_records": _list_of("The records, nearest first."),
        "answer_distances": {
            "type": "array",
            "items": {"type": "number", "minimum": 0, "maximum": 100},
            "description": f"The distance of each of answer_records. {DISTANCE_UNIT}",
        },
        "skipped_records": _list_of("The records that failed."),
        "statistics": _STATISTICS,
    },
}
_RECORD: Final = {
    "type": "object",
    "description": "The record's own fields, and those of the response.",
    "properties": {
        "_id": {"type": "string"},
        "_width": {"type": "integer", "description": "In pixels, as the image is seen."},
        "_height": {"type": "integer", "description": "In pixels, as the image is seen."},
        "_status": {
            "$ref": "#/components/schemas/Status",
            "description": "Of every record of remove_duplicates, and of those that failed: code 400, reason, detail.",
        },
        **{
            kind.name: {
                "type": "string",
                "pattern": f"^[01]{{{kind.n_chars}}}$",
                "description": f"{kind.title}: {kind.n_chars} characters.",
            }
            for kind in hash_kinds(documented_kinds())
        },
        "removed_records": _list_of("The records that were merged with this one."),
    },
}


def describe_api(settings: Settings, models: dict[Method, TypeAdapter[Any]]) -> Json:
    """Return the OpenAPI 3.1 description."""
    schemas = dict(describe_models(models)["$defs"])
    names = {method: next(name for name in schemas if _is_body_of(name, method)) for method in models}
    schemas |= {"Status": _STATUS, "AnswerRecord": _RECORD, "Refusal": _envelope({})}
    paths: Json = {}
    for method, (summary, details) in _SUMMARIES.items():
        schemas[f"{method}_answer"] = _envelope(_ANSWERS[method])
        operation: Json = {
            "operationId": method,
            "summary": summary,
            "description": details,
            "responses": {
                "200": _content("OK, or code 300 in status where some records failed.", f"{method}_answer"),
                **{code: _content(text, "Refusal") for code, text in _REFUSALS.items() if _may(method, code)},
            },
        }
        if method in names:
            body = {"application/json": {"schema": {"$ref": f"#/components/schemas/{names[method]}"}}}
            operation["requestBody"] = {"required": True, "content": body}
        paths[f"{PREFIX}{method}"] = {"post": operation}
    description: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "Image matching service",
            "version": version("imgmatch-df"),
            "description": f"Get visual hashes, find (near-)duplicate images and rank them. {DISTANCE_UNIT}",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if settings.tokens:
        scheme = {"type": "apiKey", "in": "header", "name": "Authorization", "description": "Token YOUR_API_TOKEN"}
        description["components"]["securitySchemes"] = {"token": scheme}
        description["security"] = [{"token": []}]
    return description


def _is_body_of(name: str, method: str) -> bool:
    return name == f"{method.title().replace('_', '')}Request"


def _may(method: str, code: str) -> bool:
    return method != "ping" or code in ("401", "500", "503")


def _envelope(properties: Json) -> Json:
    status = {"status": {"$ref": "#/components/schemas/Status", "description": "Of the whole response."}}
    return {"type": "object", "required": ["status", *properties], "properties": {**properties, **status}}


def _content(description: str, schema: str) -> Json:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}
