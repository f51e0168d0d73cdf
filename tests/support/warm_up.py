"""Kernels that most tests call, compiled before the workers start: else each worker compiles them at the same time."""

import subprocess
import sys
from io import BytesIO

import numpy as np
import polars as pl
from PIL import Image

import imgmatch_df  # noqa: F401  # registers the namespaces
from imgmatch_df.hashes.kinds import KINDS
from imgmatch_df.options import Options
from imgmatch_df.server import handlers


def serve() -> None:
    """Decode every format, and do what the service does, with its kinds of hash."""
    handlers.warm_up(Options())


def hash_images() -> None:
    """Compute the kinds of hash that the service does not have, and compare local hashes."""
    noise = np.random.default_rng(1).integers(0, 256, (24, 32, 3), np.uint8)
    image = Image.fromarray(noise).resize((320, 240))
    files = [BytesIO() for _ in range(4)]
    for turn, file in enumerate(files):
        image.rotate(90 * turn, expand=True).save(file, "PNG")
    others = tuple(kind.name for kind in KINDS.values() if not kind.documented)
    hashed = pl.DataFrame({"image": [file.getvalue() for file in files]}).imgmatch.visual_hash(
        "image", hash_types=others
    )
    assert hashed.imgmatch.find_copies().height > 0
    hashed.imgmatch.cluster(hash_type="local", min_votes=6)


def join_hashes() -> None:
    """Join hashes of one word and of many, within a frame and with another one."""
    rng = np.random.default_rng(1)
    for kind in (KINDS["phash"], KINDS["bmh1"]):
        bits = np.repeat(rng.integers(0, 256, (1000, kind.n_bytes), np.uint8), 3, axis=0)
        bits[::3, 0] ^= 1
        hashes = bits.view(np.uint64).ravel() if kind.is_number else [row.tobytes() for row in bits]
        frame = pl.DataFrame({kind.name: pl.Series(hashes, dtype=kind.dtype)})
        frame.head(90).imgmatch.near_duplicates(kind.max_honest_radius, kind.name, flat="match")
        frame.imgmatch.near_duplicates(kind.near_radius, kind.name)
        frame.imgmatch.match(frame, kind.near_radius, kind.name)
        for linkage in ("connected", "star"):
            frame.imgmatch.cluster(kind.near_radius, kind.name, linkage=linkage, diameter=True)
        frame.imgmatch.cluster(kind.near_radius, kind.name, reference=frame.head(10))
        frame.imgmatch.rank_images(frame[kind.name][0], kind.name, k=3)
        frame.imgmatch.profile_radii(kind.name, max_radius=3)


PARTS = {part.__name__: part for part in (serve, hash_images, join_hashes)}


def warm_up() -> None:
    """Do all parts at the same time, each in a process."""
    running = [subprocess.Popen([sys.executable, __file__, name]) for name in PARTS]
    assert [process.wait() for process in running] == [0] * len(PARTS)


if __name__ == "__main__":
    PARTS[sys.argv[1]]()
