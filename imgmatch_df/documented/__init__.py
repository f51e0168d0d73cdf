"""The JSON of the image-matching API v2 (Ximilar's), which this project calls the documented JSON.

Requests become frames to hash, hashed frames become responses, and a `visual_hash` response becomes a hashed frame
again. Distances are percent of differing bits in this JSON, and bits everywhere else. No function of this package
fetches, decodes or compares images.

Examples
--------
>>> import polars as pl
>>> from imgmatch_df import documented
>>> table = pl.DataFrame({"url": ["a.jpg"], "phash": [7], "status": ["ok"]}, schema_overrides={"phash": pl.UInt64})
>>> response = documented.visual_hash_response(table, seconds=0.1, hash_types=["phash"])
>>> response["records"][0]["phash"] == "0" * 61 + "111"
True
>>> documented.parse_visual_hash_response(documented.to_json(response)).frame.select("url", "phash", "status").rows()
[('a.jpg', 7, 'ok')]
"""

from imgmatch_df.documented.export import Exported, export_response, export_table
from imgmatch_df.documented.requests import Request, read_request
from imgmatch_df.documented.responses import (
    VisualHashes,
    iter_records,
    parse_visual_hash_response,
    ping_response,
    rank_images_response,
    remove_duplicates_response,
    visual_hash_response,
)
from imgmatch_df.documented.values import percent_from_bits, radius_from_range, to_json

__all__ = [
    "Exported",
    "Request",
    "VisualHashes",
    "export_response",
    "export_table",
    "iter_records",
    "parse_visual_hash_response",
    "percent_from_bits",
    "ping_response",
    "radius_from_range",
    "rank_images_response",
    "read_request",
    "remove_duplicates_response",
    "to_json",
    "visual_hash_response",
]
