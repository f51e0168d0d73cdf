"""Estimates of unrelated pairs against known truth, and the suggested radii and votes, on sets with planted copies.

    python benchmarks/advice.py --folder FOLDER [--folder FOLDER] [--update-docs]

See benchmarks/README.md for what is measured and how.
"""

import argparse
import os
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from accuracy import METHODS, PACKAGES, ROOT, hashed, without_near_copies
from edits import EDITS
from harness import describe_machine, markdown_table, replace_between
from hash_sets import drawn_bmh1, planted_phashes, random_phashes

import imgmatch_df
from imgmatch_df.frames.suggestions import MAX_SHARE
from imgmatch_df.hashes.kinds import KINDS

SHARES: Final = (0.0, 0.01, 0.1, 0.5)
KIND_NAMES: Final = ("bmh1", "phash", "pdq", "local")
LARGEST_RADIUS: Final = 48  # of the radii whose copies a suggestion is compared with
# Edits after which unrelated images have a broad frame in common, and so are near each other.
FRAMES: Final = ("vignette", "meme", "letterbox10", "pad20", "screenshot")
Ints = npt.NDArray[np.int64]
_MEAN_FLIPS: Final = {"phash": 2, "bmh1": 8}
_MOST_FLIPS: Final = {"phash": 8, "bmh1": 40}


@dataclass(frozen=True)
class Planted:
    """Hashes of unrelated images and of copies of some, in random order, and the image that each row shows."""

    frame: pl.DataFrame
    images: Ints


@dataclass(frozen=True)
class Outcome:
    """What the suggestion does to one set: pairs of copies and of unrelated images, the estimate, and the best radius.

    Parameters
    ----------
    at
        The suggested radius or number of votes.
    suggested
        Whether pairs are suggested at all.
    copies, unrelated, estimated
        Pairs at the suggestion.
    best
        Pairs of copies at the best radius of at most 48 bits, or number of votes: the one with the most copies among
        those at which at most 1 % of the pairs are of unrelated images.
    """

    at: int
    suggested: bool
    copies: int
    unrelated: int
    estimated: float
    best: int


def measure(planted: Planted, kind: str) -> Outcome:
    """Return what the suggestion does to a set."""
    profile = planted.frame.imgmatch.profile_radii(kind)  # type: ignore[attr-defined]
    n_pairs = profile["n_pairs"].to_numpy().astype(np.int64)
    measure_of = profile[profile.columns[0]].to_numpy().astype(np.int64)
    by_votes = KINDS[kind].by_votes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the radius is large
        if by_votes:
            found = planted.frame.imgmatch.suggest_min_votes(kind)  # type: ignore[attr-defined]
            pairs = imgmatch_df.near_duplicates(planted.frame, hash_type=kind, min_votes=int(measure_of[-1]))
        else:
            found = planted.frame.imgmatch.suggest_radius(kind)  # type: ignore[attr-defined]
            pairs = _pairs_of_copies(planted, kind)
    at = found.min_votes if by_votes else found.radius
    if by_votes:
        left, right = (planted.images[pairs[name].to_numpy()] for name in ("left_id", "right_id"))
        measures = pairs["votes"].to_numpy()[left == right]
        copies = np.array([(measures >= votes).sum() for votes in measure_of])
    else:
        copies = np.array([(pairs["distance"].to_numpy() <= radius).sum() for radius in measure_of])
    unrelated = n_pairs - copies
    allowed = (n_pairs > 0) & (unrelated <= MAX_SHARE * n_pairs)
    if not by_votes:
        allowed &= measure_of <= LARGEST_RADIUS
    row = int(np.flatnonzero(measure_of == at)[0])
    suggested = found.reason.startswith("a ")  # "a radius of", "a minimum of"
    return Outcome(
        at,
        suggested,
        int(copies[row]) if suggested else 0,
        int(unrelated[row]) if suggested else 0,
        float(profile["n_unrelated"][row]) if suggested else 0.0,
        int(copies[allowed].max(initial=0)),
    )


def _pairs_of_copies(planted: Planted, kind: str) -> pl.DataFrame:
    """Return the distances of the pairs of rows that show one image."""
    rows = pl.DataFrame({"image": planted.images, "row": np.arange(len(planted.images))})
    pairs = rows.join(rows, on="image").filter(pl.col("row") < pl.col("row_right"))
    hashes = planted.frame[kind]
    distance = hashes.gather(pairs["row"]).imgmatch.hamming(hashes.gather(pairs["row_right"]))  # type: ignore[attr-defined]
    return pairs.with_columns(distance.alias("distance"))


# Sets.


def as_column(packed: npt.NDArray[np.uint8], kind: str) -> pl.Series:
    """Return hashes, (n, n_bytes) uint8, as a column."""
    if kind == "phash":
        return pl.Series(kind, packed.view(">u8")[:, 0].astype(np.uint64), dtype=pl.UInt64)
    return pl.Series(kind, [row.tobytes() for row in packed], dtype=pl.Binary)


def drawn_set(n: int, share: float, kind: str, seed: int) -> Planted:
    """Return hashes of smooth random fields, of which some are copied with a few bits flipped."""
    rng = np.random.default_rng(seed)
    packed = drawn_hashes(n, kind, rng)
    sources = rng.choice(n, round(n * share), replace=False)
    copies = packed[sources].copy()
    n_flips = np.minimum(rng.geometric(1 / _MEAN_FLIPS[kind], len(copies)) - 1, _MOST_FLIPS[kind])
    for copy, count in zip(copies, n_flips, strict=True):
        for bit in rng.choice(KINDS[kind].n_bits, count, replace=False):
            copy[bit // 8] ^= np.uint8(128 >> bit % 8 if kind == "phash" else 1 << bit % 8)
    return shuffled(np.concatenate([packed, copies]), np.concatenate([np.arange(n), sources]), kind, rng)


def drawn_hashes(n: int, kind: str, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return the signs of smooth random fields: bits of low frequencies in phash, of places in bmh1."""
    if kind == "phash":
        weights = rng.standard_normal((24, 64)) + np.eye(24, 64) * 3
        return np.packbits(rng.standard_normal((n, 24)) @ weights > 0, axis=1)
    side, frequency = np.arange(31), np.arange(9)
    waves = np.cos(np.pi * (side + 0.5)[None, :] / 31 * frequency[:, None])
    basis = np.einsum("iy,jx->ijyx", waves, waves).reshape(81, 961)[1:]
    basis *= (1 + np.hypot(*np.meshgrid(frequency, frequency)).ravel()[1:, None]) ** -1.2
    return np.packbits(rng.standard_normal((n, 80)) @ basis > 0, axis=1, bitorder="little")


def shuffled(packed: npt.NDArray[np.uint8], images: Ints, kind: str, rng: np.random.Generator) -> Planted:
    """Return a set in random order."""
    order = rng.permutation(len(images))
    return Planted(as_column(np.ascontiguousarray(packed[order]), kind).to_frame(), images[order])


def image_set(originals: pl.DataFrame, copies: pl.DataFrame, n: int, share: float, kind: str, seed: int) -> Planted:
    """Return the hashes of some images, and of one edited copy each of a share of them."""
    chosen = originals.sample(n, seed=seed)
    edited = copies.join(chosen.select("path"), on="path", how="semi").sample(fraction=1, shuffle=True, seed=seed)
    rows = pl.concat([chosen.select("path", kind), edited.head(round(n * share)).select("path", kind)])
    rows = rows.sample(fraction=1, shuffle=True, seed=seed).drop_nulls()
    return Planted(rows.select(kind), rows["path"].rank("dense").to_numpy().astype(np.int64))


def read_images(folders: Sequence[Path], n_processes: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the hashes of the images of some folders that are no copies of each other, and of a copy of each."""
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    methods = [method for method in METHODS if method.name in KIND_NAMES]
    originals = without_near_copies(hashed(paths, methods, n_processes=n_processes))
    edits = [name for name in EDITS if name not in FRAMES]
    chosen = [Path(path) for path in originals["path"]]
    random.Random(3).shuffle(chosen)
    parts = [
        hashed(chosen[at :: len(edits)], methods, (name,), n_processes=n_processes) for at, name in enumerate(edits)
    ]
    return originals, pl.concat(parts)


# Tables.


def table_row(what: str, kind: str, n: int, share: float, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Return one row of the table of truth against estimate."""
    made = [one for one in outcomes if one.suggested]
    copies, unrelated = sum(one.copies for one in made), sum(one.unrelated for one in made)
    estimated, best = sum(one.estimated for one in made), sum(one.best for one in outcomes)
    worst = max((one.unrelated / (one.copies + one.unrelated) for one in made), default=0)
    at = f"{statistics.median(one.at for one in made):g}" if made else ""
    return (
        what,
        f"`{kind}`",
        f"{n:,}",
        f"{100 * share:g} %",
        f"{len(made)} of {len(outcomes)}",
        at,
        f"{100 * copies / best:.0f} %" if best else "",
        f"{unrelated:,}",
        f"{estimated:,.1f}",
        f"{100 * unrelated / max(1, copies + unrelated):.1f} %" if made else "",
        f"{100 * worst:.1f} %" if made else "",
    )


def truth_table(sets: Sequence[tuple[str, str, int, Callable[[float, int], Planted], int]]) -> str:
    """Return the table of truth against estimate, of sets: what, kind, rows, how to make one, and their number."""
    rows = []
    for what, kind, n, make, n_sets in sets:
        for share in SHARES:
            start = time.monotonic()
            rows.append(table_row(what, kind, n, share, [measure(make(share, seed), kind) for seed in range(n_sets)]))
            print(f"{time.monotonic() - start:5.0f} s  {rows[-1]}", file=sys.stderr)
    header = (
        "images", "kind", "rows", "copied", "suggested for", "radius or votes", "copies found, of the best",
        "unrelated pairs", "estimated", "their share", "in the worst set",
    )  # fmt: skip
    return markdown_table(header, rows)


def speed_table(n: int) -> str:
    """Return the table of seconds for `n` rows."""
    makes = {"phash": (random_phashes, planted_phashes), "bmh1": (drawn_bmh1,)}
    rows = []
    for kind, functions in makes.items():
        for function in functions:
            frame = as_column(function(n), kind).to_frame()
            start = time.perf_counter()
            profile = frame.imgmatch.profile_radii(kind)  # type: ignore[attr-defined]
            seconds = time.perf_counter() - start
            last = profile.filter("exact")["radius"][-1]
            rows.append((f"`{function.__name__}`", f"`{kind}`", f"{n:,}", f"{last}", f"{seconds:.0f} s"))
            print(rows[-1], file=sys.stderr)
    return markdown_table(("hashes", "kind", "rows", "largest radius joined", "seconds"), rows)


def main() -> None:
    """Measure, print the tables, and with --update-docs write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, action="append", default=[], help="images; several times")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the frame that is timed; 0 for none")
    parser.add_argument("--largest", type=int, default=100_000, help="rows of the largest drawn set")
    parser.add_argument("--only-speed", action="store_true", help="leave the table of truth as it is")
    parser.add_argument("--update-docs", action="store_true", help="write the tables into the documentation")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", imgmatch_df.ImgMatchWarning)
    sets: list[tuple[str, str, int, Callable[[float, int], Planted], int]] = []
    for kind in ("bmh1", "phash"):
        for n, n_sets in ((500, 8), (5_000, 3), (arguments.largest, 1)):

            def draw(share: float, seed: int, n: int = n, kind: str = kind) -> Planted:
                return drawn_set(n, share, kind, seed)

            sets.append(("drawn", kind, n, draw, n_sets))
    note = ""
    if arguments.folder:
        originals, copies = read_images(arguments.folder, os.cpu_count() or 1)
        for kind in KIND_NAMES:
            for n, n_sets in ((500, 8), (originals.height, 1)):

                def choose(share: float, seed: int, n: int = n, kind: str = kind) -> Planted:
                    return image_set(originals, copies, n, share, kind, seed)

                sets.append(("photos", kind, n, choose, n_sets))
        folders = ", ".join(f"`{folder.name}`" for folder in arguments.folder)
        note = f" Photos: {originals.height:,} images of {folders}, without copies of each other."
    if arguments.only_speed:
        sets = []
    truth = truth_table(sets) + f"\n\nRows are counted without the copies.{note}"
    print(truth)
    if arguments.update_docs and sets:
        replace_between(ROOT / "docs" / "guide" / "choosing-a-radius.md", "advice", truth)
    if arguments.rows:
        speed = f"{speed_table(arguments.rows)}\n\n{describe_machine(os.cpu_count() or 1, PACKAGES)}"
        print(speed)
        if arguments.update_docs:
            replace_between(ROOT / "benchmarks" / "README.md", "advice", speed)


if __name__ == "__main__":
    main()
