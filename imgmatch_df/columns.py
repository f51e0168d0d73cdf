"""Column names and dtypes of the project, except those of hash kinds, so that no other module spells a column name."""

from typing import Final

import polars as pl

# Columns of a hashed frame.
WIDTH: Final = "width"
HEIGHT: Final = "height"
STATUS: Final = "status"
DETAIL: Final = "detail"
QUALITY: Final = "quality"

# Columns of a scanned folder.
PATH: Final = "path"
SIZE: Final = "size"
SAMPLE_KEY: Final = "key"  # of webdataset
MODIFIED: Final = "modified"

# Columns of the files that a scan skips.
REASON: Final = "reason"
SUFFIX: Final = "suffix"
N: Final = "n"

# Further columns of a store of hashes.
SOURCE: Final = "source"
ETAG: Final = "etag"

# Columns of joins, clusters and rankings.
LEFT_ID: Final = "left_id"
RIGHT_ID: Final = "right_id"
QUERY_ID: Final = "query_id"
REFERENCE_ID: Final = "reference_id"
DISTANCE: Final = "distance"
CLUSTER_ID: Final = "cluster_id"
REPRESENTATIVE_ID: Final = "representative_id"
KEPT: Final = "kept"
JOINED_AT: Final = "joined_at"
DECISION: Final = "decision"
DIAMETER: Final = "diameter"
REMOVED_RECORDS: Final = "removed_records"
RANK: Final = "rank"
TURN: Final = "turn"
VOTES: Final = "votes"
SCALE: Final = "scale"
SHIFT_X: Final = "shift_x"
SHIFT_Y: Final = "shift_y"
COVERAGE: Final = "coverage"
EVIDENCE: Final = "evidence"
CLUSTER_COLUMNS: Final = (
    *(CLUSTER_ID, KEPT, REASON, DISTANCE, VOTES, JOINED_AT, DIAMETER),
    *(REPRESENTATIVE_ID, REFERENCE_ID),
)

# Columns of leaks between the splits of a data set, and of their counts.
SPLIT: Final = "split"
LEAK_ID: Final = "id"
LABEL: Final = "label"
OTHER_SPLIT: Final = "other_split"
OTHER_ID: Final = "other_id"
OTHER_LABEL: Final = "other_label"
N_ROWS: Final = "n_rows"
N_LEAKED: Final = "n_leaked"
SHARE: Final = "share"
N_LABEL_CONFLICTS: Final = "n_label_conflicts"

# Columns of radius advice.
RADIUS_BITS: Final = "radius"
FEWEST_VOTES: Final = "min_votes"
N_PAIRS: Final = "n_pairs"
N_CLUSTERS: Final = "n_clusters"
N_REMOVED: Final = "n_removed"
N_LARGEST: Final = "n_largest"
N_UNRELATED: Final = "n_unrelated"
UNRELATED_SHARE: Final = "unrelated_share"
RECALL: Final = "recall"
EXACT: Final = "exact"

OK: Final = "ok"
STATUSES: Final = (
    OK,
    "missing",
    "bad_source",
    "not_found",
    "fetch_blocked",
    "fetch_timeout",
    "fetch_failed",
    "too_many_bytes",
    "decode_failed",
    "too_many_pixels",
)
STATUS_DTYPE: Final = pl.Enum(STATUSES)
# What was done to an image, in the words of Pillow; quarter turns are clockwise.
TURNS: Final = (
    "none",
    "rotated_90",
    "rotated_180",
    "rotated_270",
    "mirrored",
    "flipped",
    "transposed",
    "transversed",
)
TURN_DTYPE: Final = pl.Enum(TURNS)
POINTS_DTYPE: Final = pl.List(pl.Struct({"hash": pl.UInt64, "x": pl.UInt8, "y": pl.UInt8, "level": pl.UInt8}))
MODIFIED_DTYPE: Final = pl.Datetime("us", "UTC")
DISTANCE_DTYPE: Final = pl.UInt16()
VOTES_DTYPE: Final = pl.UInt8()
# Why a row is kept or removed: it is alone in its cluster; it is the representative; it is kept beside it; removed.
REASONS: Final = (
    *("single", "no_hash"),
    *("kept_first", "kept_last", "kept_largest", "kept_smallest", "kept_newest", "kept_oldest", "kept_by_rule"),
    *("protected", "same_value", "not_duplicate"),
    *("copy", "in_reference"),
)
REASON_DTYPE: Final = pl.Enum(REASONS)
# What shows that two images are copies.
EVIDENCES: Final = ("local", "pdq", "both")
EVIDENCE_DTYPE: Final = pl.Enum(EVIDENCES)
ROW_DTYPE: Final = pl.UInt32()

# Names that a hash kind cannot have.
ALL: Final = frozenset(
    (
        WIDTH,
        HEIGHT,
        STATUS,
        DETAIL,
        QUALITY,
        PATH,
        SIZE,
        MODIFIED,
        REASON,
        SUFFIX,
        N,
        SOURCE,
        ETAG,
        LEFT_ID,
        RIGHT_ID,
        QUERY_ID,
    )
).union(CLUSTER_COLUMNS, (REMOVED_RECORDS, RANK, TURN, SCALE, SHIFT_X, SHIFT_Y, COVERAGE, EVIDENCE, SPLIT, OTHER_SPLIT))
