"""An endpoint that this package does not have: images and their sizes."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, create_model

from imgmatch_df.server.endpoints import Endpoint, register_endpoint
from imgmatch_df.server.models import Body, Record


def measure_model(settings: Any) -> type[BaseModel]:
    records = Annotated[list[Record], Field(max_length=settings.max_hashed_records)]
    return create_model("MeasureRequest", __base__=Body, records=(records, ...), scale=(Annotated[int, Field(ge=1)], 1))


async def measure(call: Any) -> dict[str, Any]:
    images = [f"data:;base64,{record['_base64']}" for record in call.body["records"]]
    rows = await call.hasher.hash(images)
    call.statuses.extend(row["status"] for row in rows)
    scale = call.body.get("scale", 1)
    sides = [[side and side * scale for side in (row["width"], row["height"])] for row in rows]
    return {"sides": sides, "status": {"code": 200, "text": "OK"}}


ENDPOINT = Endpoint(
    "measure",
    "Measure images",
    "Returns the width and height of each image.",
    measure,
    {"sides": {"type": "array", "description": "Pairs of numbers, in pixels."}},
    measure_model,
    lambda _: {"records": [], "scale": 2},
)


if __name__ == "__main__":
    from imgmatch_df.cli import main

    register_endpoint(ENDPOINT)
    main()
