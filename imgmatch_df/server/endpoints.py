"""Table of the API's endpoints.

Routes, limits of the body, the OpenAPI document, the page `/docs` and the label of the metrics are derived from it, so
that a new endpoint is one entry and one handler.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel

from imgmatch_df.documented.values import Json
from imgmatch_df.errors import ArgumentError
from imgmatch_df.hashes.kinds import documented_kinds
from imgmatch_df.server import examples, handlers, models
from imgmatch_df.server.handlers import Call
from imgmatch_df.server.models import DISTANCE_UNIT, RANGE_RULE
from imgmatch_df.server.settings import Settings

PREFIX: Final = "/image_matching/v2/"

_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint of the API, called by a POST request.

    Parameters
    ----------
    name
        The end of its path. Also the `operationId` of the OpenAPI document, and the label of its metrics.
    summary, description
        Its texts in the OpenAPI document and on the page.
    handler
        Returns the response. An `ArgumentError` becomes a response 422.
    response_fields
        JSON schema of each field of the response, beside `status`.
    request_model
        Returns the pydantic model of the body within the limits of the settings. None: the body is not read.
    example
        Returns the request that the page shows with its response. None: without an example.
    """

    name: str
    summary: str
    description: str
    handler: Callable[[Call], Awaitable[Json]]
    response_fields: Json = field(default_factory=dict)
    request_model: Callable[[Settings], type[BaseModel]] | None = None
    example: Callable[[Settings], Json] | None = None

    @property
    def path(self) -> str:
        """The path of its URL."""
        return PREFIX + self.name


def _records(description: str) -> Json:
    return {"type": "array", "items": {"$ref": "#/components/schemas/AnswerRecord"}, "description": description}


_STATISTICS: Final = {"type": "object", "description": "processing time, in seconds."}

ENDPOINTS: Final[dict[str, Endpoint]] = {
    endpoint.name: endpoint
    for endpoint in (
        Endpoint(
            "ping",
            "Test the service",
            "Returns its name.",
            handlers.handle_ping,
            {"_service_info": {"type": "object", "description": "_name and _info of the service."}},
        ),
        Endpoint(
            "visual_hash",
            "Hash images",
            f"Returns {' and '.join(documented_kinds())} of each image "
            "as strings of 0 and 1, and its width and height in pixels.",
            handlers.handle_visual_hash,
            {"records": _records("The records with their hashes, in order."), "statistics": _STATISTICS},
            models.visual_hash_model,
            examples.visual_hash_example,
        ),
        Endpoint(
            "remove_duplicates",
            "Merge near-duplicates",
            "Records that match move into removed_records of the first of them. An extension of this service, if it "
            "has a store: with against_store, records within the range of a stored image are in known_records instead, "
            f"with the nearest one and its distance. {DISTANCE_UNIT} {RANGE_RULE}",
            handlers.handle_remove_duplicates,
            {
                "records": _records("One record of each group of duplicates, the first; and those that failed."),
                "statistics": _STATISTICS,
            },
            models.remove_duplicates_model,
            examples.remove_duplicates_example,
        ),
        Endpoint(
            "rank_images",
            "Rank images",
            "Returns the records, nearest to query_record first. An extension of this service, if it has a store: "
            f"without records, returns the stored images nearest to query_record, at most k. {DISTANCE_UNIT}",
            handlers.handle_rank_images,
            {
                "query_records": _records("The query record."),
                "answer_records": _records("The records, nearest first."),
                "answer_distances": {
                    "type": "array",
                    "items": {"type": "number", "minimum": 0, "maximum": 100},
                    "description": f"The distance of each of answer_records. {DISTANCE_UNIT}",
                },
                "skipped_records": _records("The records that failed."),
                "statistics": _STATISTICS,
            },
            models.rank_images_model,
            examples.rank_images_example,
        ),
    )
}


def request_models(settings: Settings) -> dict[str, type[BaseModel]]:
    """Return the request models of the endpoints that have one, by name."""
    return {
        endpoint.name: endpoint.request_model(settings)
        for endpoint in ENDPOINTS.values()
        if endpoint.request_model is not None
    }


def register_endpoint(endpoint: Endpoint) -> None:
    """Add an endpoint to every service that this process makes from now on.

    Raises
    ------
    ArgumentError
        If its name is invalid, or registered already.
    """
    if not _NAME.fullmatch(endpoint.name):
        raise ArgumentError(
            f"the name of an endpoint must be lower case, got {endpoint.name!r}\n"
            "Hint: use letters, digits and '_', a letter first."
        )
    if endpoint.name in ENDPOINTS:
        raise ArgumentError(f"the endpoint {endpoint.name!r} is registered already\nHint: choose another name.")
    ENDPOINTS[endpoint.name] = endpoint
