"""pydantic models of the request bodies, which validate them and give the OpenAPI document its schemas."""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, create_model
from pydantic_core import PydanticCustomError

from imgmatch_df.documented.values import Json
from imgmatch_df.hashes.kinds import documented_kinds, hash_kinds
from imgmatch_df.server.responses import Refusal
from imgmatch_df.server.settings import Settings

# The unit of distances and the rule of `range`, for the OpenAPI document and the page.
DISTANCE_UNIT: Final = (
    "Distances are percent of differing bits, with one decimal: "
    + ", ".join(f"100 x bits / {kind.n_chars} for {kind.name}" for kind in hash_kinds(documented_kinds()))
    + "."
)
RANGE_RULE: Final = (
    "A pair is within the range if its distance, rounded to one decimal as rank_images shows it, is at most the range."
)


# How many stored images `rank_images` returns by default.
STORED_K: Final = 10


class Record(BaseModel):
    """One image, and any fields of the client's own, which come back unchanged."""

    model_config = ConfigDict(extra="allow", strict=True)

    url: str | None = Field(None, alias="_url", description="http or https URL of the image.")
    base64: str | None = Field(None, alias="_base64", description="The image file in base64; goes before _url.")
    id: str | int | None = Field(None, alias="_id", description="Comes back as a string; made where absent.")


class Body(BaseModel):
    """Base of the request models: unknown fields are allowed, values are not converted."""

    model_config = ConfigDict(extra="allow", strict=True)


def _check_percent(value: float) -> float:
    if not 0 <= value <= 100:
        raise PydanticCustomError("percent", "must be a number from 0 to 100")
    return value


_HashType: Any = Literal[documented_kinds()]
_SeveralHashTypes: Any = _HashType | Annotated[list[_HashType], Field(min_length=1)] | None
_OneHashType: Any = _HashType | Annotated[list[_HashType], Field(min_length=1, max_length=1)] | None
_Percent: Any = Annotated[
    float, AfterValidator(_check_percent), WithJsonSchema({"maximum": 100, "minimum": 0, "type": "number"})
]
_QUERY: Any = Annotated[Record, Field(description="The image to compare the others with.")]
_COMPARED_BY: Final = (_OneHashType, Field(None, description="Kind of hash to compare by; default bmh1."))


def visual_hash_model(settings: Settings) -> type[BaseModel]:
    """Return the model of a `visual_hash` request."""
    return create_model(
        "VisualHashRequest",
        __base__=Body,
        records=(_records(settings.max_hashed_records), ...),
        hash_type=(_SeveralHashTypes, Field(None, description="Kinds of hash to compute; default both.")),
    )


def remove_duplicates_model(settings: Settings) -> type[BaseModel]:
    """Return the model of a `remove_duplicates` request; with a store, it has one more field than that of the API."""
    rule = f"Largest distance of duplicates; default 0, equal hashes only. {RANGE_RULE}"
    fields: dict[str, Any] = {}
    if settings.store is not None:
        about = "An extension: whether records within the range of an image of the store are known_records."
        fields["against_store"] = (bool | None, Field(None, description=about))
    return create_model(
        "RemoveDuplicatesRequest",
        __base__=Body,
        records=(_records(settings.max_records), ...),
        hash_type=_COMPARED_BY,
        range=(_Percent | None, Field(None, description=rule)),
        **fields,
    )


def rank_images_model(settings: Settings) -> type[BaseModel]:
    """Return the model of a `rank_images` request; with a store, it has two more rules than the documented API."""
    records: Any = (_records(settings.max_records), ...)
    fields: dict[str, Any] = {}
    if settings.store is not None:
        about = "The images. An extension of this service: without them, the images of its store are ranked."
        records = (_records(settings.max_records, about) | None, None)
        k = Annotated[int, Field(ge=1, le=settings.max_records)]
        limit = f"An extension: maximum number of answer_records; {STORED_K} by default of stored images, else all."
        fields["k"] = (k | None, Field(None, description=limit))
    return create_model(
        "RankImagesRequest",
        __base__=Body,
        query_record=(_QUERY, ...),
        records=records,
        hash_type=_COMPARED_BY,
        **fields,
    )


def _records(max_records: int, description: str = "The images.") -> Any:
    return Annotated[list[Record], Field(max_length=max_records, description=description)]


def check_body(body: object, model: type[BaseModel]) -> Json:
    """Return the body if it is valid.

    Raises
    ------
    Refusal
        With code 422 and a text that names the field, its value, and what is allowed.
    """
    if not isinstance(body, dict):
        raise Refusal(422, f"the body must be a JSON object, got {_shown(body)}")
    try:
        model.model_validate(body)
    except ValidationError as error:
        raise Refusal(422, _explain(error)) from None
    return body


# What is allowed, by the type of pydantic's error. Other errors have a message that begins with "Input should".
_ALLOWED: Final = {
    "missing": "is missing",
    "string_type": "must be a string",
    "list_type": "must be a list",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "float_type": "must be a number",
}


def _explain(error: ValidationError) -> str:
    # Of a union, pydantic has one error per member. The first member is the usual type of the field.
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
    allowed = _ALLOWED.get(first["type"]) or first["msg"].replace("Input should", "must", 1)
    return f"{field} {allowed}" if first["type"] == "missing" else f"{field} {allowed}, got {_shown(first['input'])}"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return "a number of hundreds of digits"
    shown = repr(value[:60] if isinstance(value, str) else value)
    return shown[:60] + "…" * (len(shown) > 60)
