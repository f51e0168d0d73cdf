"""What the requests look like: models that validate, and that the OpenAPI description is made of."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from imgmatch_df.documented.requests import Request, read_rows
from imgmatch_df.documented.values import Json, Method
from imgmatch_df.hashes.kinds import documented_kinds, hash_kinds
from imgmatch_df.server.responses import Refusal
from imgmatch_df.server.settings import Settings

# The unit of distances and the rule of `range`, for the description of the API and its page.
DISTANCE_UNIT: Final = (
    "Distances are percent of differing bits, with one decimal: "
    + ", ".join(f"100 x bits / {kind.n_chars} for {kind.name}" for kind in hash_kinds(documented_kinds()))
    + "."
)
RANGE_RULE: Final = (
    "A pair is within the range if its distance, rounded to one decimal as rank_images shows it, is at most the range."
)

HashType: Any = Literal[documented_kinds()]


class Record(BaseModel):
    """One picture, and any fields of the client's own, which come back unchanged."""

    model_config = ConfigDict(extra="allow", strict=True)

    url: str | None = Field(None, alias="_url", description="http or https URL of the image.")
    base64: str | None = Field(None, alias="_base64", description="The image file in base64; goes before _url.")
    id: str | int | None = Field(None, alias="_id", description="Comes back as a string; made where absent.")


class _Body(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


def request_models(settings: Settings) -> dict[Method, TypeAdapter[Any]]:
    """Return the model of each method's body."""
    hashed = Annotated[list[Record], Field(max_length=settings.max_hashed_records, description="The images.")]
    compared = Annotated[list[Record], Field(max_length=settings.max_records, description="The images.")]
    several = HashType | Annotated[list[HashType], Field(min_length=1)] | None
    one = HashType | Annotated[list[HashType], Field(min_length=1, max_length=1)] | None
    which = Field(None, description="Kinds of hash to compute; default both.")
    by_which = Field(None, description="Kind of hash to compare by; default bmh1.")
    query = Annotated[Record, Field(description="The image to compare the others with.")]
    percent = Annotated[float, Field(ge=0, le=100)] | None
    threshold = Field(None, description=f"Largest distance of duplicates; default 0, equal hashes only. {RANGE_RULE}")
    fields: dict[Method, dict[str, Any]] = {
        "visual_hash": {"records": (hashed, ...), "hash_type": (several, which)},
        "remove_duplicates": {
            "records": (compared, ...),
            "hash_type": (one, by_which),
            "range": (percent, threshold),
        },
        "rank_images": {"query_record": (query, ...), "records": (compared, ...), "hash_type": (one, by_which)},
    }
    return {
        method: TypeAdapter(create_model(_model_name(method), __base__=_Body, **own)) for method, own in fields.items()
    }


def _model_name(method: str) -> str:
    return f"{method.title().replace('_', '')}Request"


def read_body(body: object, method: Method, model: TypeAdapter[Any]) -> Request:
    """Return the rows of a request, validated.

    Raises
    ------
    Refusal
        422, which names the field, what it is and what is allowed.
    """
    if not isinstance(body, dict):
        raise Refusal(422, f"the body must be a JSON object, got {_shown(body)}")
    try:
        model.validate_python(body)
    except ValidationError as error:
        raise Refusal(422, _explain(error)) from None
    # ArgumentError, where a value has a meaning that types do not tell, becomes a 422 as well.
    return read_rows(body, method)


_ALLOWED: Final = {
    "missing": "is missing",
    "string_type": "must be a string",
    "list_type": "must be a list",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "literal_error": f"must be {' or '.join(map(repr, documented_kinds()))}",
    "float_type": "must be a number",
    "greater_than_equal": "must be a number from 0 to 100",
    "less_than_equal": "must be a number from 0 to 100",
    "finite_number": "must be a number from 0 to 100",
}


def _explain(error: ValidationError) -> str:
    # Of a union's members each has its say; the first one is what is usually meant.
    first = error.errors(include_url=False, include_context=True)[0]
    field = ""
    for part in first["loc"]:
        if isinstance(part, int):
            field += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "int"):
            field += f".{part}" if field else part
    if first["type"] == "too_long":
        context = first["ctx"]
        return f"{field} must hold at most {context['max_length']:,}, got {context['actual_length']:,}"
    if first["type"] == "too_short":
        return f"{field} must not be empty"
    if field.endswith("._id"):
        return f"{field} must be a string or a whole number, got {_shown(first['input'])}"
    told = _ALLOWED.get(first["type"], first["msg"])
    return f"{field} {told}" if first["type"] == "missing" else f"{field} {told}, got {_shown(first['input'])}"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return "a number of hundreds of digits"
    shown = repr(value[:60] if isinstance(value, str) else value)
    return shown[:60] + "…" * (len(shown) > 60)


def describe_models(models: dict[Method, TypeAdapter[Any]]) -> Json:
    """Return the JSON schemas of the bodies, by method, and their shared parts under ``$defs``."""
    _, schemas = TypeAdapter.json_schemas(
        [(method, "validation", model) for method, model in models.items()],
        ref_template="#/components/schemas/{model}",
    )
    return schemas
