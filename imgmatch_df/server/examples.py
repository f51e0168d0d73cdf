"""Example requests of the page `/docs`, with images drawn in code, so that no image file is needed."""

from base64 import b64encode
from io import BytesIO

from imgmatch_df.documented.values import Json
from imgmatch_df.server.settings import Settings


def visual_hash_example(settings: Settings) -> Json:
    """Return a request of `visual_hash`: an image, and a value that is not one."""
    records = _draw_records()
    return {"records": [records[0], records[3]][: settings.max_hashed_records]}


def remove_duplicates_example(settings: Settings) -> Json:
    """Return a request of `remove_duplicates`."""
    return {"records": _draw_records()[: settings.max_records], "range": 5}


def rank_images_example(settings: Settings) -> Json:
    """Return a request of `rank_images`."""
    query, *records = _draw_records()
    return {"query_record": query, "records": records[: settings.max_records], "hash_type": "phash"}


def _draw_records() -> list[Json]:
    """Return records of two copies of one image, of another image, and of a value that is not an image."""
    from PIL import Image

    sizes = {"original": (32, 32), "smaller copy": (24, 24), "another": (32, 32)}
    records = []
    for name, size in sizes.items():
        drawn = Image.linear_gradient("L") if name != "another" else Image.radial_gradient("L")
        stream = BytesIO()
        drawn.resize(size).quantize(16).save(stream, "PNG")
        records.append({"_id": name, "_base64": b64encode(stream.getvalue()).decode()})
    records.append({"_id": "not an image", "_base64": "bm8gaW1hZ2U="})
    return records
