"""Every column name and dtype of the project, and the hash kinds. Other modules import the names from here."""

from dataclasses import dataclass
from typing import Final

import polars as pl

from imgmatch_df.errors import ArgumentError

# Columns of a hashed frame.
WIDTH: Final = "width"
HEIGHT: Final = "height"
STATUS: Final = "status"
DETAIL: Final = "detail"

# Columns of a scanned folder.
PATH: Final = "path"
SIZE: Final = "size"
MODIFIED: Final = "modified"

# Columns of what a scan leaves out.
REASON: Final = "reason"
SUFFIX: Final = "suffix"
N: Final = "n"

# Columns of a store of hashes, besides those above.
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
DIAMETER: Final = "diameter"
REMOVED_RECORDS: Final = "removed_records"
RANK: Final = "rank"
CLUSTER_COLUMNS: Final = (CLUSTER_ID, KEPT, DISTANCE, DIAMETER, REPRESENTATIVE_ID, REFERENCE_ID)

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
MODIFIED_DTYPE: Final = pl.Datetime("us", "UTC")
DISTANCE_DTYPE: Final = pl.UInt16()
ROW_DTYPE: Final = pl.UInt32()


@dataclass(frozen=True, slots=True)
class HashKind:
    """One kind of perceptual hash.

    Parameters
    ----------
    name
        Name of the kind and of its column.
    n_bits
        Bits that carry information, and so the largest possible distance.
    n_bytes
        Bytes of one hash; the documented 0/1 string has eight characters for each.
    dtype
        Polars dtype of its column.
    version
        Name of the definition; hashes of different versions are not comparable.
    near_radius
        Advised radius for edited copies, in bits.
    max_honest_radius
        Largest radius that still separates copies from unrelated images, in bits; beyond it the verbs warn.
    """

    name: str
    n_bits: int
    n_bytes: int
    dtype: pl.DataType
    version: str
    near_radius: int
    max_honest_radius: int

    @property
    def n_chars(self) -> int:
        """Length of the documented 0/1 string, padding included."""
        return 8 * self.n_bytes

    def holds(self, dtype: pl.DataType) -> bool:
        """Return whether a column of `dtype` can hold hashes of this kind.

        64 bits come from elsewhere as whole numbers of other dtypes, mostly as signed ones; a column without any hash
        may be `Null`.
        """
        if dtype in (self.dtype, pl.Null):
            return True
        return self.n_bits == 64 and (dtype.is_integer() or (isinstance(dtype, pl.Decimal) and dtype.scale == 0))


BMH1: Final = HashKind(
    "bmh1",
    n_bits=961,
    n_bytes=121,
    dtype=pl.Binary(),
    version="opencv-block-mean-1",
    near_radius=24,
    max_honest_radius=128,
)
PHASH: Final = HashKind(
    "phash",
    n_bits=64,
    n_bytes=8,
    dtype=pl.UInt64(),
    version="opencv-phash",
    near_radius=4,
    max_honest_radius=16,
)
HASH_KINDS: Final[dict[str, HashKind]] = {kind.name: kind for kind in (BMH1, PHASH)}


def hash_kind(name: str) -> HashKind:
    """Return the hash kind called `name`.

    Raises
    ------
    ArgumentError
        If there is no such kind.
    """
    if not isinstance(name, str) or name not in HASH_KINDS:
        raise ArgumentError(
            f"hash_type must be one of {', '.join(map(repr, HASH_KINDS))}, got {f'{name!r:.80}'.splitlines()[0]}\n"
            "Hint: 'bmh1' separates near-duplicates best, 'phash' is the compact 64-bit one."
        )
    return HASH_KINDS[name]


def batch_fields() -> dict[str, pl.DataType]:
    """Return the columns of a batch of hashed sources: a visual hash, and what a server says to know it again by."""
    return {
        WIDTH: pl.UInt32(),
        HEIGHT: pl.UInt32(),
        **{name: kind.dtype for name, kind in HASH_KINDS.items()},
        STATUS: STATUS_DTYPE,
        DETAIL: pl.String(),
        ETAG: pl.String(),
    }


def visual_hash_fields(hash_types: tuple[str, ...] = tuple(HASH_KINDS)) -> dict[str, pl.DataType]:
    """Return the columns of a visual hash: width, height, status and detail, and last the hashes that are wanted."""
    return {
        WIDTH: pl.UInt32(),
        HEIGHT: pl.UInt32(),
        STATUS: STATUS_DTYPE,
        DETAIL: pl.String(),
        **{name: hash_kind(name).dtype for name in hash_types},
    }
