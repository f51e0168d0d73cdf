"""Copies found and unrelated images matched, by each hash kind of this package and by the reference packages.

    python benchmarks/accuracy.py --folder FOLDER [--folder FOLDER] [--max-images 100] [--update-docs]

See benchmarks/README.md for what is measured and how.
"""

import argparse
import io
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from edits import EDITS, HARDER
from harness import describe_machine, markdown_table, package_version, replace_between
from PIL import Image, ImageOps

import imgmatch_df
from imgmatch_df.hashes.kinds import KINDS, HashKind

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("imgmatch-df", "pillow", "ImageHash", "pdqhash", "opencv-contrib-python-headless", "numpy")
OWN: Final = tuple(kind for kind in KINDS.values() if kind.is_perceptual)
# Votes count as distances, so that all methods are compared alike: ever more votes as an ever smaller distance.
MOST_VOTES: Final = 64
LEAST_VOTES: Final = 4
EVERY_EDIT: Final = {**EDITS, **HARDER}
VOTES: Final = (4, 6, 8, 11, 15)
ADVISED_VOTES: Final = 8
RARE: Final = 1e-6  # one false pair per million
SOME: Final = 1e-3
SAME_IMAGE: Final = 0.98  # correlation of two thumbnails
_THUMBNAIL: Final = (32, 32)
Hash = int | bytes


# Methods. A method is a hash kind of this package, or a function of a reference package.


@dataclass(frozen=True)
class Method:
    """One column of hashes.

    Parameters
    ----------
    name
        Its name in the tables, and of its column.
    kind
        The hash kind; of a reference package, the one whose form and advised radius its hashes have.
    package
        The distribution it needs.
    load
        Imports the package and returns the function that hashes one encoded image; None for a kind of this package.
    """

    name: str
    kind: HashKind
    package: str = "imgmatch-df"
    load: Callable[[], Callable[[bytes], Hash | None]] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of hashes that it compares."""
        return (self.name,)

    @property
    def advised(self) -> int:
        """The advised radius, in bits."""
        return self.kind.near_radius

    @property
    def largest(self) -> int:
        """The largest distance that is compared."""
        return self.kind.n_bits

    def shown(self, radius: int) -> str:
        """Return a radius as it stands in a table."""
        return str(radius)

    def distances(self, left: pl.DataFrame, right: pl.DataFrame) -> pl.Series:
        """Return the distances of the hashes of two frames, row by row."""
        distances: pl.Series = left[self.name].imgmatch.hamming(right[self.name])  # type: ignore[attr-defined]
        return distances

    def near(self, table: pl.DataFrame, radius: int) -> pl.Series:
        """Return the distances of all pairs of a table within a radius; the column `row` names its rows."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the radius is large
            pairs = imgmatch_df.near_duplicates(table, radius, self.kind.name, id="row", column=self.name, flat="match")
        return pairs["distance"]


@dataclass(frozen=True)
class Votes(Method):
    """Local hashes, compared by votes; `with_pdq` also finds what PDQ finds in eight turns, as `find_copies` does."""

    with_pdq: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return ("local", "pdq", "quality", "sha256") if self.with_pdq else ("local",)

    @property
    def advised(self) -> int:
        return MOST_VOTES - ADVISED_VOTES

    @property
    def largest(self) -> int:
        return MOST_VOTES - LEAST_VOTES

    def shown(self, radius: int) -> str:
        return f"{MOST_VOTES - radius} votes"

    def distances(self, left: pl.DataFrame, right: pl.DataFrame) -> pl.Series:
        both = pl.concat([left.select(self.columns), right.select(self.columns)]).with_row_index("row")
        own = self._pairs(both, LEAST_VOTES).filter(
            pl.col("right_id").cast(pl.Int64) - pl.col("left_id") == left.height
        )
        rows = pl.DataFrame({"left_id": range(left.height)}, schema={"left_id": pl.UInt32})
        return rows.join(own, on="left_id", how="left", maintain_order="left")["distance"]

    def near(self, table: pl.DataFrame, radius: int) -> pl.Series:
        return self._pairs(table, MOST_VOTES - radius)["distance"]

    def _pairs(self, table: pl.DataFrame, min_votes: int) -> pl.DataFrame:
        """Return ``left_id, right_id, distance`` of the pairs of a table with enough votes, or near in PDQ."""
        if self.with_pdq:
            pairs = imgmatch_df.find_copies(table, min_votes=min_votes, id="row")
        else:
            pairs = imgmatch_df.near_duplicates(table, hash_type="local", min_votes=min_votes, id="row")
        distance = MOST_VOTES - pl.col("votes").cast(pl.Int64)
        by_pdq = pl.col("distance").is_not_null() if self.with_pdq else pl.lit(value=False)
        return pairs.select("left_id", "right_id", pl.when(by_pdq).then(0).otherwise(distance).alias("distance"))


def _imagehash(name: str, **options: int) -> Callable[[], Callable[[bytes], Hash]]:
    def load() -> Callable[[bytes], Hash]:
        import imagehash

        function = getattr(imagehash, name)

        def compute(data: bytes) -> Hash:
            packed = np.packbits(function(_open(data), **options).hash).tobytes()
            return int.from_bytes(packed) if len(packed) == 8 else packed

        return compute

    return load


def _pdqhash() -> Callable[[bytes], Hash]:
    import pdqhash

    return lambda data: np.packbits(pdqhash.compute(np.asarray(_open(data).convert("RGB")))[0]).tobytes()


def _opencv(name: str, *options: int) -> Callable[[], Callable[[bytes], Hash | None]]:
    def load() -> Callable[[bytes], Hash | None]:
        import cv2

        cv2.setNumThreads(1)
        algorithm = getattr(cv2.img_hash, name).create(*options)

        def compute(data: bytes) -> Hash | None:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if pixels is None:
                return None
            packed: bytes = algorithm.compute(pixels).tobytes()
            return int.from_bytes(packed) if len(packed) == 8 else packed

        return compute

    return load


def _open(data: bytes) -> Image.Image:
    """Return an image decoded and upright."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data)))


METHODS: Final = (
    *(Method(kind.name, kind) for kind in OWN),
    Votes("local", KINDS["local"]),
    Votes("find_copies", KINDS["local"], with_pdq=True),
    Method("OpenCV BlockMeanHash(1)", KINDS["bmh1"], "opencv-contrib-python-headless", _opencv("BlockMeanHash", 1)),
    Method("OpenCV PHash", KINDS["phash"], "opencv-contrib-python-headless", _opencv("PHash")),
    Method("pdqhash", KINDS["pdq"], "pdqhash", _pdqhash),
    Method("ImageHash phash", KINDS["imagehash_phash"], "ImageHash", _imagehash("phash")),
    Method("ImageHash dhash", KINDS["imagehash_dhash"], "ImageHash", _imagehash("dhash")),
    Method("ImageHash average_hash", KINDS["imagehash_ahash"], "ImageHash", _imagehash("average_hash")),
    Method("ImageHash phash, 16", KINDS["imagehash_phash16"], "ImageHash", _imagehash("phash", hash_size=16)),
    Method("ImageHash dhash, 16", KINDS["imagehash_dhash16"], "ImageHash", _imagehash("dhash", hash_size=16)),
    Method("ImageHash whash", KINDS["imagehash_ahash"], "ImageHash", _imagehash("whash")),
)


# Hashes, in processes.


def own_columns(methods: Iterable[Method]) -> list[str]:
    """Return the columns of `visual_hash` that the methods compare, without the digest, which each row has."""
    names = [name for method in methods if method.load is None for name in method.columns]
    return [name for name in dict.fromkeys(names) if name != "sha256"]


def hash_images(paths: Iterable[Path], methods: Sequence[Method], edits: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the hashes of images, or if `edits` are named those of their edited copies, as rows."""
    rows: list[dict[str, Any]] = []
    for path in paths:
        data = path.read_bytes()
        row: dict[str, Any] = {"path": str(path)}
        try:
            image = _open(data)
            if edits:
                pixels = image.convert("RGB")
                copies = {edit: EVERY_EDIT[edit].copy(pixels) for edit in edits}
                rows.extend({**row, "edit": edit, "data": copy} for edit, copy in copies.items())
            else:
                small = image.convert("L").resize(_THUMBNAIL, Image.Resampling.BOX)
                rows.append({**row, "edit": "", "thumbnail": small.tobytes(), "data": data})
        except (OSError, ValueError, SyntaxError):
            continue  # not an image, or a damaged one; the note of the tables has the number of images
    encoded = [row.pop("data") for row in rows]
    rows = [{**row, "sha256": sha256(data).digest()} for row, data in zip(rows, encoded, strict=True)]
    kinds = own_columns(methods)
    frame = pl.DataFrame({"url": encoded}, schema={"url": pl.Binary})
    own = imgmatch_df.visual_hash(frame, hash_types=[name for name in kinds if name in KINDS]) if kinds else frame
    columns = {name: own[name].to_list() for name in kinds}
    for method in methods:
        if method.load is not None:
            columns[method.name] = list(map(method.load(), encoded))
    return [{**row, **{name: values[i] for name, values in columns.items()}} for i, row in enumerate(rows)]


def _hash_job(job: tuple[tuple[Path, ...], tuple[str, ...], tuple[str, ...]]) -> list[dict[str, Any]]:
    paths, names, edits = job
    warnings.simplefilter("ignore")  # of peers and of Pillow, about odd files
    return hash_images(paths, [method for method in METHODS if method.name in names], edits)


def hashed(
    paths: Sequence[Path], methods: Sequence[Method], edits: tuple[str, ...] = (), *, n_processes: int
) -> pl.DataFrame:
    """Return the hashes of images, or of their edited copies, in the order of the paths."""
    names = tuple(method.name for method in methods)
    size = 1 if edits else 32
    jobs = [(tuple(paths[start : start + size]), names, edits) for start in range(0, len(paths), size)]
    schema = {
        "path": pl.String(), "sha256": pl.Binary(), "edit": pl.String(),
        **({} if edits else {"thumbnail": pl.Binary()}),
        **{name: KINDS[name].dtype if name in KINDS else pl.UInt8() for name in own_columns(methods)},
        **{method.name: method.kind.dtype for method in methods if method.load is not None},
    }  # fmt: skip
    # Spawned: a process forked from one with threads may hang.
    os.environ.update(dict.fromkeys(("POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS"), "1"))
    frames = []
    start = time.monotonic()
    with get_context("spawn").Pool(n_processes) as pool:
        for i, rows in enumerate(pool.imap(_hash_job, jobs), 1):
            frames.append(pl.DataFrame(rows, schema))
            if i % 20 == 0 or i == len(jobs):
                print(f"{time.monotonic() - start:5.0f} s  {i} of {len(jobs)} tasks", file=sys.stderr)
    return pl.concat(frames)


# Figures.


def without_near_copies(originals: pl.DataFrame) -> pl.DataFrame:
    """Return the images that are not a copy of an earlier one: not its bytes, and not its thumbnail.

    Thumbnails are grey, of 32 x 32 means. Two are of one image where they correlate by at least 0.98: between 0.985 and
    0.99 there was no pair among 4,953 images, and above it only copies.
    """
    originals = originals.unique("sha256", keep="first", maintain_order=True)
    pixels = np.frombuffer(b"".join(originals["thumbnail"]), np.uint8).reshape(originals.height, -1)
    units = pixels - pixels.mean(axis=1, keepdims=True, dtype=np.float32)
    lengths = np.linalg.norm(units, axis=1, keepdims=True)
    units = np.where(lengths > 0, units / np.maximum(lengths, 1e-6), 0).astype(np.float32)  # flat: like no other
    is_copy = np.zeros(len(units), np.bool_)
    for start in range(0, len(units), 512):
        rows = units[start : start + 512]
        alike = rows @ units[: start + len(rows)].T >= SAME_IMAGE
        is_copy[start : start + len(rows)] = np.tril(alike, start - 1).any(axis=1)
    return originals.filter(~pl.Series(is_copy))


def n_pairs(n: int) -> int:
    return n * (n - 1) // 2


def nearest_distances(hashes: pl.DataFrame, method: Method, share: float = SOME) -> npt.NDArray[np.int64]:
    """Return the distances of the nearest pairs of a frame, sorted: all pairs within a radius.

    The radius is at least the advised one, and grows until at least `share` of all pairs is within it. So the memory
    stays far below that of all pairs.
    """
    radius = method.largest if isinstance(method, Votes) else method.advised
    table = hashes.select(method.columns).with_row_index("row")
    while True:
        found = method.near(table, radius)
        if len(found) >= share * n_pairs(hashes.height) or radius == method.largest:
            return found.sort().to_numpy().astype(np.int64)
        radius = min(method.largest, radius + max(1, method.largest // 32))


@dataclass(frozen=True)
class Figures:
    """What is measured of one method.

    Parameters
    ----------
    near
        Distances of the nearest unrelated pairs, sorted.
    n_unrelated
        The number of unrelated pairs.
    own
        By edit, the distances of the copies from their originals; null where a hash is missing.
    same_edit
        By edit, the false pairs per million within the advised radius among copies with the same edit.
    """

    method: Method
    near: npt.NDArray[np.int64]
    n_unrelated: int
    own: Mapping[str, pl.Series]
    same_edit: Mapping[str, float]

    def distance_of(self, share: float) -> int:
        """Return the distance within which this share of all unrelated pairs lies."""
        return int(self.near[min(len(self.near), max(1, math.ceil(share * self.n_unrelated))) - 1])

    def radius_of(self, share: float) -> int | None:
        """Return the largest radius with at most this share of false pairs; None if equal hashes are more."""
        allowed = math.floor(share * self.n_unrelated)
        if allowed >= len(self.near):
            return self.method.largest
        radius = int(self.near[allowed]) - 1
        return None if radius < 0 else radius

    def per_million(self, radius: int) -> float:
        """Return the false pairs per million unrelated ones, for a radius up to the advised one."""
        return 1e6 * int(np.searchsorted(self.near, radius, "right")) / max(1, self.n_unrelated)

    def recall(self, radius: int | None, edit: str | None = None) -> float:
        """Return the share of copies within a radius, in percent: of one edit, or the mean of all but `HARDER`."""
        if radius is None:
            return 0.0
        edits = [name for name in self.own if name not in HARDER] if edit is None else [edit]
        shares = [(self.own[edit] <= radius).fill_null(value=False).mean() for edit in edits]
        return 100 * float(np.mean(np.array(shares, np.float64)))


def measure(method: Method, unrelated: pl.DataFrame, edited: pl.DataFrame) -> Figures:
    """Return the figures of one method from the hashes of unrelated images and of edited copies of some of them."""
    near = nearest_distances(unrelated, method)
    own, same_edit = {}, {}
    for (edit,), copies in edited.group_by("edit", maintain_order=True):
        originals = copies.select("path").join(unrelated, on="path", how="left", maintain_order="left")
        own[str(edit)] = method.distances(copies, originals)
        false = int((nearest_distances(copies, method, 0) <= method.advised).sum())
        same_edit[str(edit)] = 1e6 * false / max(1, n_pairs(copies.height))
    return Figures(method, near, n_pairs(unrelated.height), own, same_edit)


# Tables.


def radius_table(figures: Iterable[Figures]) -> str:
    """Return the table of advised radii of the kinds of this package, and of unrelated pairs."""
    header = [
        "kind", "bits", "advised radius", "copies found", "false pairs per million",
        "nearest unrelated pair", "one per million", "one in 1,000", "a warning above",
    ]  # fmt: skip
    rows = []
    for one in figures:
        kind = one.method.kind
        rows.append(
            [
                f"`{one.method.name}`",
                str(kind.n_bits),
                str(kind.near_radius),
                f"{one.recall(kind.near_radius):.1f} %",
                _rate(one.per_million(kind.near_radius)),
                *(str(one.distance_of(share)) for share in (0, RARE, SOME)),
                str(kind.max_honest_radius),
            ]
        )
    return markdown_table(header, rows)


def summary_table(figures: Sequence[Figures], equal: Mapping[str, str]) -> str:
    """Return the table of all methods, at equal false pairs and at the advised radius."""
    header = [
        "hash", "bits", "radius of one false pair per million", "copies found within it", "advised radius",
        "copies found within it", "false pairs per million within it", "equal to ours",
    ]  # fmt: skip
    rows = []
    for one in figures:
        radius, near = one.radius_of(RARE), one.method.advised
        is_advised = one.method.load is None or equal[one.method.name] != ""
        at_near = [one.method.shown(near), f"{one.recall(near):.1f} %", _rate(one.per_million(near))]
        rows.append(
            [
                f"`{one.method.name}`" if one.method.load is None else one.method.name,
                "" if isinstance(one.method, Votes) else str(one.method.kind.n_bits),
                "none" if radius is None else one.method.shown(radius),
                f"{one.recall(radius):.1f} %",
                *(at_near if is_advised else ["", "", ""]),
                equal[one.method.name],
            ]
        )
    return markdown_table(header, rows)


def votes_table(figures: Iterable[Figures]) -> str:
    """Return the table of copies found and false pairs by the number of votes."""
    header = ["votes at least", "copies found", "false pairs", "per million", "copies found with PDQ", "false pairs"]
    alone, with_pdq = figures
    rows = []
    for votes in VOTES:
        radius = MOST_VOTES - votes
        rows.append([str(votes)])
        for one in (alone, with_pdq):
            rows[-1] += [f"{one.recall(radius):.1f} %", f"{np.searchsorted(one.near, radius, 'right'):,}"]
        rows[-1].insert(3, _rate(alone.per_million(radius)))
    return markdown_table(header, rows)


def votes_edit_table(voted: Sequence[Figures], pdq: Figures) -> str:
    """Return the table of the copies found of each edit, in percent: by votes, and by PDQ within the advised radius."""
    local, both = voted
    columns = {
        **{f"`local`, {votes} votes": (local, MOST_VOTES - votes) for votes in (4, 8, 11)},
        f"`find_copies`, {ADVISED_VOTES} votes": (both, both.method.advised),
        f"`pdq`, {pdq.method.advised} bits": (pdq, pdq.method.advised),
    }
    rows = [
        [edit.what, *(f"{one.recall(radius, name):.0f}" for one, radius in columns.values())]
        for name, edit in EVERY_EDIT.items()
    ]
    mean = ["mean of these", *(f"{one.recall(radius):.1f}" for one, radius in columns.values())]
    return markdown_table(["edit", *columns], [*rows[: len(EDITS)], mean, *rows[len(EDITS) :]])


def edit_table(
    figures: Sequence[Figures],
    cell: Callable[[Figures, str], str],
    names: Sequence[str],
    edits: Iterable[str] = tuple(EDITS),
) -> str:
    """Return a table with a row for each edit and a column for each method."""
    rows = [[EDITS[edit].what, *(cell(one, edit) for one in figures)] for edit in edits]
    return markdown_table(["edit", *names], rows)


def _rate(per_million: float) -> str:
    return f"{per_million:.1f}" if per_million < 100 else f"{per_million:,.0f}"


def equal_hashes(method: Method, frames: Sequence[pl.DataFrame]) -> str:
    """Return in how many images a reference package has the hash of the kind, as text; empty if they are others."""
    if method.load is None or method.name == "ImageHash whash":
        return ""
    pairs = [frame.select(pl.col(method.name) == pl.col(method.kind.name)).to_series() for frame in frames]
    found = pl.concat(pairs).drop_nulls()
    return f"{found.sum():,} of {len(found):,}"


def opencv_from_imagehash(frame: pl.DataFrame) -> str:
    """Return how far the two hashes called phash are from each other, as a sentence."""
    phash: Any = frame["phash"]
    median = phash.imgmatch.hamming(frame["imagehash_phash"]).median()
    return (
        f"`phash` (OpenCV's) and `imagehash_phash` of the same image differ in {median:.0f} of 64 bits (median), as "
        "hashes of unrelated images do: they cannot be compared."
    )


def find_images(folders: Iterable[Path]) -> Iterator[list[Path]]:
    """Yield the files of each folder, sorted."""
    for folder in folders:
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
        if not paths:
            raise SystemExit(f"no file in {folder}")
        yield paths


def spread(paths: Sequence[Path], n: int) -> list[Path]:
    """Return at most `n` of the paths, evenly spread."""
    return list(paths) if len(paths) <= n else [paths[i * len(paths) // n] for i in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, action="append", required=True, help="images; may be given repeatedly")
    parser.add_argument("--max-images", type=int, default=1_000_000, help="of each folder, evenly spread")
    parser.add_argument("--max-edited", type=int, default=300, help="images that are edited, in all")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument(
        "--own", action="store_true", help="no reference packages; leaves the tables with them as they are"
    )
    parser.add_argument("--update-docs", action="store_true", help="write the tables into the documents")
    arguments = parser.parse_args()
    methods = [method for method in METHODS if package_version(method.package) is not None]
    if arguments.own:
        methods = [method for method in methods if method.load is None]
    missing = sorted({method.package for method in METHODS} - {method.package for method in methods})
    folders = [spread(paths, arguments.max_images) for paths in find_images(arguments.folder)]
    originals = hashed([path for paths in folders for path in paths], methods, n_processes=arguments.processes)
    unrelated = without_near_copies(originals)
    if unrelated.height < 2:
        raise SystemExit(f"the folders have {unrelated.height} images that are not copies of others, 2 are needed")
    kept = set(unrelated["path"])
    each = max(1, arguments.max_edited // len(folders))
    chosen = [path for paths in folders for path in spread([path for path in paths if str(path) in kept], each)]
    edited = hashed(chosen, methods, tuple(EVERY_EDIT), n_processes=arguments.processes)
    figures = []
    for method in methods:
        print(f"pairs of {method.name}", file=sys.stderr)
        figures.append(measure(method, unrelated, edited))
    equal = {method.name: equal_hashes(method, [unrelated, edited]) for method in methods}
    own = [one for one in figures if one.method.load is None and not isinstance(one.method, Votes)]
    voted = [one for one in figures if isinstance(one.method, Votes)]
    names = [f"`{one.method.name}`" for one in own]
    note = (
        f"Unrelated: {n_pairs(unrelated.height):,} pairs of {unrelated.height:,} images of {originals.height:,}; "
        f"{originals.height - unrelated.height:,} are left out as copies of others. Copies: {len(EDITS)} edits of "
        f"{len(chosen)} images. Folders: {', '.join(f'`{folder.name}`' for folder in arguments.folder)}."
    )
    left_out = f" Not installed, so left out: {', '.join(missing)}." if missing else ""
    machine = describe_machine(os.cpu_count() or 1, PACKAGES)
    radius = f"{radius_table(own)}\n\n{note}"
    by_edit = edit_table(own, lambda one, edit: f"{one.recall(one.method.advised, edit):.0f}", names)
    summary = f"{summary_table(figures, equal)}\n\n{note}{left_out} {opencv_from_imagehash(unrelated)} {machine}"
    by_votes = f"{votes_table(voted)}\n\n{note}"
    by_edit_and_votes = votes_edit_table(voted, next(one for one in own if one.method.name == "pdq"))
    n_hashes = unrelated.height + edited.height
    different = [one for one in figures if equal[one.method.name] != f"{n_hashes:,} of {n_hashes:,}"]  # ours too
    at_rare = edit_table(
        different,
        lambda one, edit: f"{one.recall(one.radius_of(RARE), edit):.0f}",
        [*names, *(one.method.name for one in different[len(own) :])],
    )
    compared = [*own, *voted]
    at_same = edit_table(
        compared,
        lambda one, edit: _rate(one.same_edit[edit]),
        [*names, *(f"`{one.method.name}`" for one in voted)],
        [edit for edit in EDITS if any(one.same_edit[edit] for one in compared)],
    )
    more = (
        f"### Copies found at one false pair per million, in percent\n\n{at_rare}\n\n"
        "Reference packages have a column where a hash of theirs is not equal to ours.\n\n"
        "### False pairs per million among copies with the same edit\n\n"
        f"Within the advised radius or votes, of {n_pairs(len(chosen)):,} pairs of unrelated images. Edits without a "
        f"row have none.\n\n{at_same}"
    )
    print("\n\n".join((radius, by_edit, by_votes, by_edit_and_votes, summary, more)))
    if arguments.update_docs:
        replace_between(ROOT / "docs" / "guide" / "choosing-a-radius.md", "radius", radius)
        replace_between(ROOT / "docs" / "guide" / "choosing-a-radius.md", "recall", by_edit)
        replace_between(ROOT / "docs" / "guide" / "copies.md", "votes", by_votes)
        replace_between(ROOT / "docs" / "guide" / "copies.md", "votes-recall", by_edit_and_votes)
        if not arguments.own:
            replace_between(ROOT / "docs" / "benchmarks.md", "accuracy", summary)
            replace_between(ROOT / "benchmarks" / "README.md", "accuracy-more", more)


if __name__ == "__main__":
    main()
