"""The page `/docs`: the OpenAPI document as HTML, with requests and the responses of this service to them.

It has no scripts, so that it works offline and the browser executes nothing.
"""

import re
from collections.abc import Mapping
from html import escape
from json import dumps
from typing import Any, Final

from imgmatch_df.documented.values import Json
from imgmatch_df.server.models import DISTANCE_UNIT, RANGE_RULE

_STYLE: Final = (
    "body{font:16px/1.5 system-ui;max-width:60em;margin:2em auto;padding:0 1em}"
    "pre{background:#f4f4f4;padding:1em;overflow:auto;max-height:20em;white-space:pre-wrap;overflow-wrap:anywhere}"
    "table{border-collapse:collapse}td,th{padding:.2em 1em .2em 0;text-align:left;vertical-align:top}"
    "tr{border-bottom:1px solid #ddd}h2{margin-top:2.5em}"
)
_NOTES: Final = (
    "Send <code>Authorization: Token YOUR_API_TOKEN</code> and <code>Content-Type: application/json</code>.",
    f"<b>Distances.</b> {escape(DISTANCE_UNIT)} <b>Range.</b> {escape(RANGE_RULE)} So a distance that rank_images "
    "shows, sent as <code>range</code>, includes the pair that it was shown for.",
    "<b>Records that fail</b> do not harm the others: their <code>_status</code> has code 400, a text, a "
    "<code>reason</code> in one word and a <code>detail</code> in one line. Fields of your own come back unchanged.",
)


def page(document: Json, examples: Mapping[str, tuple[Json, Json]], host: str) -> bytes:
    """Return the page, in UTF-8.

    Parameters
    ----------
    document
        The result of `openapi.describe_api`.
    examples
        Request and response of each endpoint that has an example, by name.
    host
        The header `Host` of the client's request, which may have any value.
    """
    shown_host = host if re.fullmatch(r"[A-Za-z0-9.\-:\[\]]{1,255}", host) else "localhost:8000"
    info, schemas = document["info"], document["components"]["schemas"]
    parts = []
    for path, operations in document["paths"].items():
        operation = operations["post"]
        name = operation["operationId"]
        parts.append(f"<h2 id={name}>POST <code>{escape(path)}</code></h2>")
        parts.append(f"<p><b>{escape(operation['summary'])}.</b> {escape(operation['description'])}</p>")
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        if body is not None:
            parts.append(f"<h3>Request</h3>{_fields(body, schemas)}")
        returned = operation["responses"]["200"]["content"]["application/json"]["schema"]
        parts.append(f"<h3>Response</h3>{_fields(returned, schemas)}")
        request, response = examples.get(name, (None, None))
        parts.append(f"<h3>Example</h3><pre>{escape(_curl(f'http://{shown_host}{path}', request, document))}</pre>")
        if response is not None:
            parts.append(f"<pre>{escape(dumps(response, indent=2))}</pre>")
        codes = "".join(
            f"<tr><td>{code}<td>{escape(one['description'])}" for code, one in operation["responses"].items()
        )
        parts.append(f"<h3>HTTP status</h3><table>{codes}</table>")
    records = "".join(
        f"<h2 id={name}>{title}</h2>{_fields({'$ref': f'/{name}'}, schemas)}"
        for name, title in (
            ("Record", "A record of a request"),
            ("AnswerRecord", "A record of a response"),
            ("Status", "A status"),
        )
    )
    return (
        f"<!DOCTYPE html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style>"
        f"<h1>{escape(info['title'])} <small>imgmatch-df {escape(info['version'])}</small></h1>"
        f"<p>{escape(info['description'])} <a href=/openapi.json>openapi.json</a></p>"
        f"{''.join(f'<p>{note}</p>' for note in _NOTES)}{''.join(parts)}{records}</html>"
    ).encode()


def _curl(url: str, request: Json | None, document: Json) -> str:
    lines = [f"curl --request POST --url {url}"]
    if "security" in document:
        lines.append('--header "authorization: Token $IMGMATCH_TOKEN"')
    if request is not None:
        lines += ["--header 'content-type: application/json'", f"--data '{dumps(request)}'"]
    return " \\\n  ".join(lines)


def _fields(schema: Json, schemas: Json) -> str:
    """Return the fields of an object as a table."""
    found = _resolve(schema, schemas)
    rows = []
    for name, field in found["properties"].items():
        needed = " (needed)" if name in found.get("required", ()) else ""
        described = field.get("description", _resolve(field, schemas).get("description", ""))
        rows.append(
            f"<tr><td><code>{escape(name)}</code>{needed}<td>{_type(field, schemas)}<td>{escape(described)}",
        )
    return f"<table><tr><th>field<th>type<th>{''.join(rows)}</table>"


def _resolve(schema: Json, schemas: Json) -> Json:
    resolved: Json = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return resolved


def _type(schema: Json, schemas: Json) -> str:
    """Return the type of a field with its limits, as HTML."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"<a href=#{name}>{name}</a>"
    if "anyOf" in schema:
        kinds = [_type(one, schemas) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(one))}</code>" for one in schema["enum"])
    if schema.get("type") == "array":
        limit = f", at most {schema['maxItems']:,}" if "maxItems" in schema else ""
        return f"list of {_type(schema.get('items', {}), schemas)}{limit}"
    limits: list[Any] = [schema[key] for key in ("minimum", "maximum") if key in schema]
    shown = f" from {limits[0]} to {limits[1]}" if len(limits) == 2 else ""
    return escape(f"{schema.get('type', 'any')}{shown}")
