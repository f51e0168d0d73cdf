"""The registry of hash kinds: every part of the package that names a kind derives it from here.

Adding a kind to this package touches two files beside its tests:

1. ``hashes/<kind>.py``: a function that writes the hash of one image, as `bmh1.hash_image` does;
2. this file: one `register_hash_kind`.

A third one, ``namespaces/columns.py``, only for a method of its own beside ``imgmatch.perceptual_hash("<kind>")``.
Expressions, frame verbs, stores, SQL macros, decoder processes and the command line need no change. A kind of your own
needs no file of this package: see ``docs/how-to/add-a-hash-kind.md``.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import polars as pl

from imgmatch_df import columns
from imgmatch_df.columns import DETAIL, ETAG, HEIGHT, QUALITY, STATUS, STATUS_DTYPE, WIDTH
from imgmatch_df.errors import ArgumentError
from imgmatch_df.hashes.turns import TurnGrid
from imgmatch_df.options import shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_HASH_TYPES: Final = ("bmh1", "phash")  # computed where a call names no kind
# Computed where a new store or a command names no kind.
STORED_HASH_TYPES: Final = (*DEFAULT_HASH_TYPES, "sha256")
MAX_WIDTH_BYTES: Final = 1024
_NAME: Final = re.compile("[a-z][a-z0-9_]{0,62}")
_KERNEL: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class HashKind:
    """One kind of perceptual hash.

    Parameters
    ----------
    name
        Name of the kind and of its column: lower-case letters, digits and underscores.
    n_bits
        Bits that carry information, and so the largest possible distance.
    n_bytes
        Bytes of one hash, 8 for `UInt64`; the 0/1 string has eight characters for each.
    dtype
        Polars dtype of its column, `Binary` or `UInt64`.
    version
        Name of the definition; hashes of different versions are not comparable.
    kernel
        ``"module:function"``, imported when the first image is hashed, in each process that hashes. The function takes
        a `squares.HashInput` and a row to write: uint8[n_bytes], or uint64[1].
    near_radius
        Advised radius for edited copies, in bits.
    max_honest_radius
        Largest radius that still separates copies from unrelated images, in bits; beyond it the verbs warn. None
        where it is not known: then they never warn.
    reference
        The implementation whose hashes these are, bit for bit.
    title
        What the hash is called in prose.
    documented
        Whether the image-matching API, and so its JSON and the service, has this kind.
    is_perceptual
        Whether the Hamming distance of two hashes says how similar their images are. If not, text files have
        hexadecimal digits in the place of 0 and 1, and a column of this name may hold something else.
    by_votes
        Whether a hash is a set of points, compared by votes for a placement, in the place of a distance.
    flat_hashes
        Hashes that images have only where there is too little to see, for rows of unknown quality.
    turn_grid
        How the bits lie, where they give the hash of the turned image; None where they do not.
    """

    name: str
    n_bits: int
    n_bytes: int
    dtype: pl.DataType
    version: str
    kernel: str
    near_radius: int
    max_honest_radius: int | None = None
    reference: str | None = None
    title: str = "Perceptual hash"
    documented: bool = False
    is_perceptual: bool = True
    by_votes: bool = False
    flat_hashes: tuple[int | bytes, ...] = ()
    turn_grid: TurnGrid | None = None

    def __hash__(self) -> int:
        return hash(self.name)  # looked up for every image

    @property
    def n_chars(self) -> int:
        """Length of the 0/1 string, padding included."""
        return 8 * self.n_bytes

    @property
    def is_number(self) -> bool:
        """Whether a hash is a whole number of 64 bits, not bytes."""
        return self.dtype == pl.UInt64

    def holds(self, dtype: pl.DataType) -> bool:
        """Return whether a column of `dtype` can hold hashes of this kind.

        64 bits come from elsewhere as whole numbers of other dtypes, mostly as signed ones; a column without any hash
        may be `Null`.
        """
        if dtype in (self.dtype, pl.Null):
            return True
        return self.is_number and is_whole(dtype)

    def empty_rows(self, n_rows: int) -> "NDArray[Any]":
        """Return an array for `n_rows` hashes: uint8 (n, n_bytes), or uint64 (n, 1); zeros."""
        import numpy as np

        return np.zeros((n_rows, 1), np.uint64) if self.is_number else np.zeros((n_rows, self.n_bytes), np.uint8)

    def value(self, row: "NDArray[Any]") -> int | bytes:
        """Return the hash in one row of `empty_rows`, as a column has it."""
        return int(row[0]) if self.is_number else row.tobytes()


KINDS: Final[dict[str, HashKind]] = {}


@dataclass(frozen=True, slots=True)
class Measure:
    """A whole number from 0 to 255 that says something about an image or its hash, and is computed with the hashes.

    Parameters
    ----------
    name
        Name of the measure and of its column, of dtype `UInt8`.
    version
        Name of the definition.
    kernel
        As of a `HashKind`; the row to write is uint8[1].
    hash_type
        Name of the hash kind that it comes with; None if it comes with each visual hash.
    """

    name: str
    version: str
    kernel: str
    hash_type: str | None = None

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def dtype(self) -> pl.DataType:
        """Polars dtype of its column."""
        return pl.UInt8()

    @property
    def is_number(self) -> bool:
        """Whether its value is a whole number, as of a `HashKind`."""
        return True

    def empty_rows(self, n_rows: int) -> "NDArray[Any]":
        """Return an array for `n_rows` values: uint8 (n, 1); zeros."""
        import numpy as np

        return np.zeros((n_rows, 1), np.uint8)

    def value(self, row: "NDArray[Any]") -> int:
        """Return the value in one row of `empty_rows`."""
        return int(row[0])


MEASURES: Final = {
    measure.name: measure
    for measure in (
        Measure(QUALITY, "pdq-quality-of-256", "imgmatch_df.hashes.quality:measure_image"),
        Measure("pdq_quality", "pdqhash-full", "imgmatch_df.hashes.pdq:write_quality", hash_type="pdq"),
    )
}
# What is computed of each image, and has a column.
ImageColumn: TypeAlias = HashKind | Measure


def register_hash_kind(kind: HashKind) -> HashKind:
    """Make a kind of perceptual hash known to every verb, to stores, SQL macros and the command line.

    Register it in each process that names it: before it opens a store that holds such hashes, too. The image-matching
    API's JSON and the service keep to their own kinds.

    Parameters
    ----------
    kind
        The kind. A kind that is registered already may be registered again.

    Returns
    -------
    HashKind
        The same kind.

    Raises
    ------
    ArgumentError
        If the kind contradicts itself, or another one has its name.

    Examples
    --------
    >>> from imgmatch_df.hashes.kinds import KINDS, register_hash_kind
    >>> register_hash_kind(KINDS["phash"]).n_bits
    64
    """
    if not isinstance(kind, HashKind):
        raise ArgumentError(f"kind must be a HashKind, got {shown(kind)}\nHint: register_hash_kind(HashKind(name, …)).")
    for is_right, what, hint in _rules(kind):
        if not is_right:
            raise ArgumentError(f"hash kind {shown(kind.name)}: {what}\nHint: {hint}")
    if KINDS.setdefault(kind.name, kind) != kind:
        raise ArgumentError(f"there is another hash kind {kind.name!r}\nHint: give yours another name.")
    return kind


def _rules(kind: HashKind) -> Iterable[tuple[bool, str, str]]:
    """Yield what must hold of a kind, each with what is wrong where it does not, and a hint."""
    yield (
        isinstance(kind.name, str) and _NAME.fullmatch(kind.name) is not None,
        "the name must be lower-case letters, digits and underscores",
        "rename it.",
    )
    yield kind.name not in columns.ALL, "a column of another meaning has this name", "rename it."
    yield (
        kind.dtype == pl.Binary or (kind.is_number and kind.n_bytes == 8),
        f"dtype must be Binary, or UInt64 of 8 bytes, got {kind.dtype} of {shown(kind.n_bytes)}",
        "64 bits are a UInt64, all others Binary.",
    )
    yield (
        0 < kind.n_bytes <= MAX_WIDTH_BYTES,
        f"n_bytes must be 1 to {MAX_WIDTH_BYTES}, got {shown(kind.n_bytes)}",
        "take a shorter hash.",
    )
    yield (
        0 < kind.n_bits <= 8 * kind.n_bytes,
        f"n_bits must be 1 to {8 * kind.n_bytes}, got {shown(kind.n_bits)}",
        "n_bytes is the length with padding.",
    )
    for name, radius in (("near_radius", kind.near_radius), ("max_honest_radius", kind.max_honest_radius)):
        yield (
            radius is None or 0 <= radius <= kind.n_bits,
            f"{name} must be 0 to {kind.n_bits}, got {shown(radius)}",
            "a radius is a number of bits.",
        )
    yield (
        isinstance(kind.kernel, str) and _KERNEL.fullmatch(kind.kernel) is not None,
        f"kernel must be 'module:function', got {shown(kind.kernel)}",
        "name a function of a module that other processes can import.",
    )
    grid = kind.turn_grid
    yield (
        grid is None or (isinstance(grid, TurnGrid) and grid.fits(kind.n_bits)),
        f"turn_grid must be a TurnGrid of at most {kind.n_bits} bits, got {shown(grid)}",
        "TurnGrid(side, bit_order, lowest_frequency) has the values that are allowed.",
    )
    yield (
        not (kind.by_votes and kind.is_perceptual),
        "hashes that are compared by votes have no distance",
        "give is_perceptual=False beside by_votes=True.",
    )
    yield (
        not kind.kernel.startswith("__main__:"),
        "the kernel is in __main__, which no other process can import",
        "put the function into a module.",
    )


def hash_kind(name: str) -> HashKind:
    """Return the hash kind called `name`.

    Raises
    ------
    ArgumentError
        If there is no such kind.
    """
    if not isinstance(name, str) or name not in KINDS:
        raise _unknown_kind(name, KINDS)
    return KINDS[name]


def _unknown_kind(name: object, allowed: Iterable[str]) -> ArgumentError:
    return ArgumentError(
        f"hash_type must be one of {', '.join(map(repr, allowed))}, got {f'{name!r:.80}'.splitlines()[0]}\n"
        "Hint: 'bmh1' separates near-duplicates best, 'phash' is the compact 64-bit one."
    )


def hash_kinds(names: Iterable[str]) -> tuple[HashKind, ...]:
    """Return the hash kinds of these names; raise as `hash_kind`."""
    return tuple(map(hash_kind, names))


def with_measures(hash_types: Iterable[str]) -> tuple[str, ...]:
    """Return the names of hash kinds, and behind them those of the measures that come with them."""
    names = tuple(hash_types)
    return *names, *(name for name, measure in MEASURES.items() if measure.hash_type in (None, *names))


def image_columns(names: Iterable[str]) -> tuple[ImageColumn, ...]:
    """Return the hash kinds and measures of these names; raise as `hash_kind`."""
    return tuple(MEASURES[name] if name in MEASURES else hash_kind(name) for name in names)


def empty_row(columns: Iterable[ImageColumn]) -> "dict[ImageColumn, NDArray[Any]]":
    """Return for each hash kind or measure a row to write its value to."""
    return {column: column.empty_rows(1)[0] for column in columns}


def documented_kind(name: str) -> HashKind:
    """Return the hash kind called `name`, if the image-matching API has it.

    Raises
    ------
    ArgumentError
        If there is no such kind, or the API does not have it.
    """
    if not isinstance(name, str) or name not in KINDS:
        raise _unknown_kind(name, documented_kinds())
    kind = KINDS[name]
    if not kind.documented:
        raise ArgumentError(
            f"the image-matching API has the hash kinds {', '.join(map(repr, documented_kinds()))}, got {name!r}\n"
            "Hint: frames, stores and table files hold any kind."
        )
    return kind


def documented_kinds() -> tuple[str, ...]:
    """Return the names of the kinds that the image-matching API has."""
    return tuple(kind.name for kind in KINDS.values() if kind.documented)


@cache
def load_kernel(kind: ImageColumn) -> "Callable[[Any, NDArray[np.uint8 | np.uint64]], None]":
    """Return the function that hashes one image, imported.

    Raises
    ------
    ArgumentError
        If there is no such function.
    """
    module, _, name = kind.kernel.partition(":")
    try:
        function: Callable[..., None] = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ArgumentError(
            f"the kernel {kind.kernel!r} of the hash kind {kind.name!r} cannot be imported: {error}\n"
            "Hint: kernel='module:function' names a function of a module that every process can import."
        ) from error
    return function


def batch_fields(names: Iterable[str]) -> dict[str, pl.DataType]:
    """Return the columns of a batch of hashed sources: a visual hash, and what a server says to know it again by."""
    return {
        WIDTH: pl.UInt32(),
        HEIGHT: pl.UInt32(),
        **{column.name: column.dtype for column in image_columns(names)},
        STATUS: STATUS_DTYPE,
        DETAIL: pl.String(),
        ETAG: pl.String(),
    }


def visual_hash_fields(names: Iterable[str] = DEFAULT_HASH_TYPES) -> dict[str, pl.DataType]:
    """Return the columns of a visual hash: size, status and detail, then the measures of `names`, last the hashes."""
    by_measure = sorted(image_columns(names), key=lambda column: column.name not in MEASURES)
    return {
        WIDTH: pl.UInt32(),
        HEIGHT: pl.UInt32(),
        STATUS: STATUS_DTYPE,
        DETAIL: pl.String(),
        **{column.name: column.dtype for column in by_measure},
    }


def is_whole(dtype: pl.DataType) -> bool:
    """Return whether a dtype is one of whole numbers."""
    return dtype.is_integer() or (isinstance(dtype, pl.Decimal) and dtype.scale == 0)


# `max_honest_radius` of the kinds of pdqhash and ImageHash: of 11.4 million pairs of unrelated photos, at most one in
# 1,000 lies within it (benchmarks/accuracy.py). Within that of bmh1 lie two, within that of phash 1.2.
BMH1: Final = register_hash_kind(
    HashKind(
        "bmh1",
        n_bits=961,
        n_bytes=121,
        dtype=pl.Binary(),
        version="opencv-block-mean-1",
        kernel="imgmatch_df.hashes.bmh1:hash_image",
        near_radius=24,
        max_honest_radius=128,
        reference="cv2.img_hash.BlockMeanHash(mode=1)",
        title="Block mean hash",
        documented=True,
        flat_hashes=(bytes(121), b"\xff" * 120 + b"\x01"),
        turn_grid=TurnGrid(31, "lowest"),
    )
)
# Without turns: OpenCV compares with a mean that is far from 0, so that the bits give the hash of half of the turned
# images within 4 bits only. The medians of other kinds are near 0.
PHASH: Final = register_hash_kind(
    HashKind(
        "phash",
        n_bits=64,
        n_bytes=8,
        dtype=pl.UInt64(),
        version="opencv-phash",
        kernel="imgmatch_df.hashes.phash:hash_image",
        near_radius=4,
        max_honest_radius=16,
        reference="cv2.img_hash.PHash",
        documented=True,
        flat_hashes=(0,),
    )
)
PDQ: Final = register_hash_kind(
    HashKind(
        "pdq",
        n_bits=256,
        n_bytes=32,
        dtype=pl.Binary(),
        version="pdqhash-full",
        kernel="imgmatch_df.hashes.pdq:hash_image",
        near_radius=31,
        max_honest_radius=97,
        reference="pdqhash.compute",
        title="PDQ hash",
        turn_grid=TurnGrid(16, "last", lowest_frequency=1),
    )
)
# A quarter turn of an image needs its steps down the columns, and dhash has those along the rows alone.
for _name, _n_bytes, _near_radius, _max_honest_radius, _reference, _turn_grid in (
    ("phash", 8, 5, 15, "imagehash.phash(image)", TurnGrid(8, lowest_frequency=0)),
    ("dhash", 8, 4, 11, "imagehash.dhash(image)", None),
    ("ahash", 8, 2, 4, "imagehash.average_hash(image)", TurnGrid(8)),
    ("phash16", 32, 57, 95, "imagehash.phash(image, hash_size=16)", TurnGrid(16, lowest_frequency=0)),
    ("dhash16", 32, 36, 80, "imagehash.dhash(image, hash_size=16)", None),
):
    register_hash_kind(
        HashKind(
            f"imagehash_{_name}",
            n_bits=8 * _n_bytes,
            n_bytes=_n_bytes,
            dtype=pl.UInt64() if _n_bytes == 8 else pl.Binary(),
            version=f"imagehash-4.3-{_name}",
            kernel=f"imgmatch_df.hashes.imagehash:write_{_name}",
            near_radius=_near_radius,
            max_honest_radius=_max_honest_radius,
            reference=_reference,
            title="Perceptual hash of ImageHash",
            turn_grid=_turn_grid,
        )
    )
LOCAL: Final = register_hash_kind(
    HashKind(
        "local",
        n_bits=8 * 715,
        n_bytes=715,
        dtype=pl.Binary(),
        version="local-1",
        kernel="imgmatch_df.hashes.local:hash_image",
        near_radius=0,
        title="Local hashes of 64 points",
        is_perceptual=False,
        by_votes=True,
    )
)
# Last: where a table has several kinds, the first one is compared unless the call names one.
SHA256: Final = register_hash_kind(
    HashKind(
        "sha256",
        n_bits=256,
        n_bytes=32,
        dtype=pl.Binary(),
        version="sha256",
        kernel="imgmatch_df.hashes.sha256:hash_image",
        near_radius=0,
        max_honest_radius=0,
        reference="hashlib.sha256",
        title="SHA-256 of the encoded bytes",
        is_perceptual=False,
    )
)
