"""Find duplicate and near-duplicate images where the data already lives: Polars frames, Parquet and DuckDB.

Importing the package registers the namespace ``imgmatch`` on Polars expressions, series and frames.
"""

import typing as _typing
from importlib import import_module as _import_module

from imgmatch_df import namespaces as _namespaces  # noqa: F401  # registers the namespaces
from imgmatch_df.errors import (
    ArgumentError,
    ColumnError,
    DecodeError,
    FetchError,
    ImgMatchError,
    ImgMatchWarning,
    MissingExtraError,
    RowError,
    SourceError,
    StoreError,
)
from imgmatch_df.frames.advice import profile_radii, suggest_min_votes, suggest_radius
from imgmatch_df.frames.clustering import cluster, remove_duplicates
from imgmatch_df.frames.copies import find_copies
from imgmatch_df.frames.expressions import bmh1, hamming, pdq, perceptual_hash, phash, visual_hash
from imgmatch_df.frames.hash_numbers import from_int64, to_int64
from imgmatch_df.frames.hash_text import from_bits, from_hex, to_bits, to_hex
from imgmatch_df.frames.leak_counts import count_leaks
from imgmatch_df.frames.leak_free import assign_split, drop_leaks
from imgmatch_df.frames.leaks import find_leaks
from imgmatch_df.frames.local_hashes import local, to_points
from imgmatch_df.frames.pairs import explain_near_duplicates, match, near_duplicates
from imgmatch_df.frames.ranking import rank_images
from imgmatch_df.frames.suggestions import RadiusSuggestion, VotesSuggestion
from imgmatch_df.frames.writing import WriteSummary, sink_hashes, write_hashes
from imgmatch_df.hashes.kinds import HashKind, register_hash_kind
from imgmatch_df.images.scan import count_left_out, scan_images
from imgmatch_df.report.making import report
from imgmatch_df.report.result import Report
from imgmatch_df.store.open import read_hashes, scan_hashes

if _typing.TYPE_CHECKING:
    from imgmatch_df import documented

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "ColumnError",
    "DecodeError",
    "FetchError",
    "HashKind",
    "ImgMatchError",
    "ImgMatchWarning",
    "MissingExtraError",
    "RadiusSuggestion",
    "Report",
    "RowError",
    "SourceError",
    "StoreError",
    "VotesSuggestion",
    "WriteSummary",
    "assign_split",
    "bmh1",
    "cluster",
    "count_leaks",
    "count_left_out",
    "documented",
    "drop_leaks",
    "explain_near_duplicates",
    "find_copies",
    "find_leaks",
    "from_bits",
    "from_hex",
    "from_int64",
    "hamming",
    "local",
    "match",
    "near_duplicates",
    "pdq",
    "perceptual_hash",
    "phash",
    "profile_radii",
    "rank_images",
    "read_hashes",
    "register_hash_kind",
    "remove_duplicates",
    "report",
    "scan_hashes",
    "scan_images",
    "sink_hashes",
    "suggest_min_votes",
    "suggest_radius",
    "to_bits",
    "to_hex",
    "to_int64",
    "to_points",
    "visual_hash",
    "write_hashes",
]


def __getattr__(name: str) -> object:
    if name == "documented":
        return _import_module("imgmatch_df.documented")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
