"""The OpenAPI document of the service, derived from the endpoints, their models and the settings."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from imgmatch_df.columns import OK, STATUSES
from imgmatch_df.documented.values import Json
from imgmatch_df.hashes.kinds import documented_kinds, hash_kinds
from imgmatch_df.server.endpoints import ENDPOINTS, Endpoint
from imgmatch_df.server.models import DISTANCE_UNIT
from imgmatch_df.server.settings import Settings

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
        "removed_records": {
            "type": "array",
            "items": {"$ref": "#/components/schemas/AnswerRecord"},
            "description": "The records that were merged with this one.",
        },
    },
}


def describe_api(settings: Settings, models: Mapping[str, type[BaseModel]]) -> Json:
    """Return the OpenAPI 3.1 document.

    Parameters
    ----------
    settings
        Those of the service.
    models
        Request models of the endpoints that have one, by name.
    """
    references, described = models_json_schema(
        [(model, "validation") for model in models.values()], ref_template="#/components/schemas/{model}"
    )
    bodies = {name: references[model, "validation"] for name, model in models.items()}
    schemas = {**described["$defs"], "Status": _STATUS, "AnswerRecord": _RECORD, "Refusal": _envelope({})}
    paths: Json = {}
    for endpoint in ENDPOINTS.values():
        response = f"{endpoint.name}_answer"
        schemas[response] = _envelope(endpoint.response_fields)
        operation: Json = {
            "operationId": endpoint.name,
            "summary": endpoint.summary,
            "description": endpoint.description,
            "responses": {
                "200": _content("OK, or code 300 in status where some records failed.", response),
                **{code: _content(text, "Refusal") for code, text in _REFUSALS.items() if _may(endpoint, code)},
            },
        }
        if endpoint.name in bodies:
            body = {"application/json": {"schema": bodies[endpoint.name]}}
            operation["requestBody"] = {"required": True, "content": body}
        paths[endpoint.path] = {"post": operation}
    document: Json = {
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
        document["components"]["securitySchemes"] = {"token": scheme}
        document["security"] = [{"token": []}]
    return document


def _may(endpoint: Endpoint, code: str) -> bool:
    """Return whether an endpoint may respond with an error code; without a body, few can happen."""
    return endpoint.request_model is not None or code in ("401", "500", "503")


def _envelope(properties: Json) -> Json:
    status = {"status": {"$ref": "#/components/schemas/Status", "description": "Of the whole response."}}
    return {"type": "object", "required": ["status", *properties], "properties": {**properties, **status}}


def _content(description: str, schema: str) -> Json:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}
