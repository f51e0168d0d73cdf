"""The OpenAPI description, made of the models, and a page of it that needs no network."""

from html import escape
from importlib.metadata import version
from json import dumps
from typing import Any, Final

from pydantic import TypeAdapter

from imgmatch_df.documented import Json, Method
from imgmatch_df.server.models import describe_models
from imgmatch_df.server.settings import Settings

PREFIX: Final = "/image_matching/v2/"

_SUMMARIES: Final = {
    "ping": ("Test the service", "Answers with its name."),
    "visual_hash": ("Hash pictures", "bmh1 and phash of each picture, as strings of 0 and 1, its width and height."),
    "remove_duplicates": ("Merge near-duplicates", "Records that match move into `removed_records` of the first."),
    "rank_images": ("Rank pictures", "Nearest to `query_record` first, with distances in percent of differing bits."),
}
_REFUSALS: Final = {
    "400": "The body is no JSON.",
    "401": "No token, or a wrong one.",
    "408": "The body took too long to arrive.",
    "413": "The body is too large.",
    "415": "The body is not application/json.",
    "422": "A field is wrong; the text names it, and what is allowed.",
    "500": "A bug. The log has the request's id.",
    "503": "Overloaded, or it took too long; try again after `Retry-After` seconds.",
}
_STATUS: Final = {
    "type": "object",
    "required": ["code", "text"],
    "properties": {
        "code": {"type": "integer"},
        "text": {"type": "string"},
        "request_id": {"type": "string"},
        "proc_id": {"type": "string"},
    },
}
_LIST: Final = {"type": "array", "items": {"$ref": "#/components/schemas/AnswerRecord"}}
_ANSWERS: Final[dict[str, Json]] = {
    "ping": {"_service_info": {"type": "object"}},
    "visual_hash": {"records": _LIST, "statistics": {"type": "object"}},
    "remove_duplicates": {"records": _LIST, "statistics": {"type": "object"}},
    "rank_images": {
        "query_records": _LIST,
        "answer_records": _LIST,
        "answer_distances": {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 100}},
        "skipped_records": _LIST,
        "statistics": {"type": "object"},
    },
}
_RECORD: Final = {
    "type": "object",
    "description": "The record's own fields, and the answer's.",
    "properties": {
        "_id": {"type": "string"},
        "_width": {"type": "integer"},
        "_height": {"type": "integer"},
        "_status": {"$ref": "#/components/schemas/Status"},
        "bmh1": {"type": "string", "pattern": "^[01]{968}$"},
        "phash": {"type": "string", "pattern": "^[01]{64}$"},
        "removed_records": _LIST,
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
                "200": _content("OK, or code 300 in `status` where some records failed.", f"{method}_answer"),
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
            "description": "Get visual hashes, find (near-)duplicate images and rank them.",
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
    status = {"status": {"$ref": "#/components/schemas/Status"}}
    return {"type": "object", "required": ["status", *properties], "properties": {**properties, **status}}


def _content(description: str, schema: str) -> Json:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


def page(description: Json) -> bytes:
    """Return the description as a page without scripts, which works offline and runs nothing."""
    parts = []
    for path, operations in description["paths"].items():
        operation = operations["post"]
        schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        name = schema.get("$ref", "").rpartition("/")[2]
        answers = "".join(
            f"<tr><td>{code}<td>{escape(answer['description'])}" for code, answer in operation["responses"].items()
        )
        body = f"<pre>{escape(dumps(description['components']['schemas'][name], indent=2))}</pre>" if name else ""
        parts.append(
            f"<h2>POST <code>{escape(path)}</code></h2><p><b>{escape(operation['summary'])}.</b> "
            f"{escape(operation['description'])}</p>{body}<table>{answers}</table>"
        )
    info = description["info"]
    return (
        f"<!DOCTYPE html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:50em;margin:2em auto;padding:0 1em}"
        "pre{background:#f4f4f4;padding:1em;overflow:auto;max-height:20em}td{padding-right:1em}</style>"
        f"<h1>{escape(info['title'])} <small>imgmatch-df {escape(info['version'])}</small></h1>"
        f"<p>{escape(info['description'])} <a href=/openapi.json>openapi.json</a></p>"
        "<p>Send <code>Authorization: Token YOUR_API_TOKEN</code> and <code>Content-Type: application/json</code>.</p>"
        f"{''.join(parts)}"
    ).encode()
