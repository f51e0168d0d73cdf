"""Hashes to join: random and planted phashes, and bmh1 hashes from a file, from crops of images, or drawn in code.

All are arrays (n, n_bytes) of uint8: the bytes of each hash, as OpenCV returns them. Their order is random, so that the
first rows of a set are a smaller set of the same kind.
"""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from photos import read_folder
from PIL import Image

U8 = npt.NDArray[np.uint8]
SIDE = 31  # of the grid of bits of a bmh1
N_CELLS = SIDE + 1  # half-blocks on a side; a block is two by two of them
MAX_CROPS = 500  # of an image: the crops of one image are near each other, so their pairs grow as the square
N_SAMPLED = 128, 100_000  # rows that are compared with others, and these, to estimate the number of pairs


def random_phashes(n: int) -> U8:
    """Return uniform hashes: near-duplicates among them are due to chance."""
    return np.random.default_rng(1).integers(0, 256, (n, 8), np.uint8)


def planted_phashes(n: int, farthest: int = 12) -> U8:
    """Return uniform hashes, of which a twentieth are others with 0 to `farthest` bits flipped."""
    rng = np.random.default_rng(2)
    hashes = rng.integers(0, 256, (n, 8), np.uint8)
    copies = rng.choice(n, n // 20, replace=False)
    n_flips = rng.integers(0, farthest + 1, len(copies))
    flips = np.argsort(rng.random((len(copies), 64)), axis=1) < n_flips[:, None]
    # Copies of earlier rows, so that the first rows of the set are also a planted set.
    hashes[copies] = hashes[rng.integers(0, copies + 1)] ^ np.packbits(flips, axis=1)
    return hashes


def drawn_bmh1(n: int) -> U8:
    """Return the block means of smooth random fields, thresholded; a tenth are others with their field changed a bit.

    The amplitudes fall with the frequency as in photos, so that neighbouring bits are correlated as in photos.
    """
    rng = np.random.default_rng(3)
    frequency = np.arange(16)
    waves = np.cos(np.pi * (np.arange(SIDE) + 0.5)[None, :] / SIDE * frequency[:, None])
    basis = np.einsum("iy,jx->ijyx", waves, waves).reshape(-1, SIDE * SIDE)[1:]
    amplitude = (np.hypot(*np.meshgrid(frequency, frequency)).ravel()[1:]) ** -1.3
    basis = (basis * amplitude[:, None]).astype(np.float32)
    fields = rng.standard_normal((n, len(basis)), np.float32)
    copies = rng.choice(n, n // 10, replace=False)
    change = 10 ** rng.uniform(-2, -0.5, (len(copies), 1)).astype(np.float32)
    noise = rng.standard_normal((len(copies), len(basis)), np.float32)
    fields[copies] = fields[rng.integers(0, copies + 1)] + change * noise
    parts = np.array_split(fields, max(1, n // 20_000))
    return np.concatenate([_pack(part @ basis) for part in parts])


def crop_bmh1(folder: Path, n: int, max_crops: int | None = None) -> U8:
    """Return the hashes of `n` random crops of the images of a folder, fewer with at most `max_crops` of each.

    Block means come from sums over the grey image.

    They are not OpenCV's bits, because no image is resized, but have the statistics of real images.
    """
    rng = np.random.default_rng(4)
    images = read_folder(folder).data
    n = n if max_crops is None else min(n, max_crops * len(images))
    parts = []
    for i, encoded in enumerate(images):
        grey = np.asarray(Image.open(io.BytesIO(encoded)).convert("L"))
        n_crops = (i + 1) * n // len(images) - i * n // len(images)
        sums = np.zeros((grey.shape[0] + 1, grey.shape[1] + 1), np.int64)
        sums[1:, 1:] = grey.cumsum(0, np.int64).cumsum(1)
        share = rng.uniform(0.4, 1, (n_crops, 1))
        edges = []
        for length in grey.shape:
            start = rng.uniform(0, 1 - share) * length
            edges.append(np.rint(start + share * length * np.linspace(0, 1, N_CELLS + 1)).astype(np.int64))
        y, x = edges
        at = sums[y[:, :, None], x[:, None, :]]
        means = (at[:, 2:, 2:] - at[:, :-2, 2:] - at[:, 2:, :-2] + at[:, :-2, :-2]) / (
            (y[:, 2:] - y[:, :-2])[:, :, None] * (x[:, 2:] - x[:, :-2])[:, None, :]
        )
        flat = means.reshape(n_crops, -1)
        parts.append(_pack(flat - flat.mean(1, keepdims=True)))
    return rng.permutation(np.concatenate(parts))


def mixed_bmh1(folder: Path, n: int) -> tuple[U8, int]:
    """Return `n` hashes: at most `MAX_CROPS` crops of each image, the others drawn in code; and the number of crops."""
    crops = crop_bmh1(folder, n, MAX_CROPS)
    if len(crops) == n:
        return crops, n
    return np.random.default_rng(9).permutation(np.concatenate([crops, drawn_bmh1(n - len(crops))])), len(crops)


def random_bmh1(n: int) -> U8:
    """Return uniform hashes of the 961 bits of a bmh1."""
    hashes = np.random.default_rng(10).integers(0, 256, (n, -(-SIDE * SIDE // 8)), np.uint8)
    hashes[:, -1] &= (1 << SIDE * SIDE % 8) - 1
    return hashes


def pair_shares(hashes: U8) -> tuple[float, ...]:
    """Return the share of all pairs within each number of bits, from 0 on, estimated from some rows."""
    n_queries, n_others = (min(len(hashes), n) for n in N_SAMPLED)
    words = np.zeros((n_others, -(-hashes.shape[1] // 8)), np.uint64)
    words.view(np.uint8)[:, : hashes.shape[1]] = hashes[:n_others]
    counts = np.zeros(64 * words.shape[1] + 1, np.int64)
    for row in range(n_queries):
        distances = np.bitwise_count(words ^ words[row]).sum(1, np.int64)
        counts += np.bincount(distances, minlength=len(counts))
    counts[0] -= n_queries  # each row and itself
    return tuple((counts.cumsum() / max(1, n_queries * (n_others - 1))).tolist())


def stored_bmh1(path: Path) -> U8:
    """Return the column ``bmh1`` of a Parquet file, in random order."""
    import polars as pl

    column = pl.read_parquet(path, columns=["bmh1"])["bmh1"].drop_nulls()
    return np.random.default_rng(5).permutation(np.frombuffer(b"".join(column), np.uint8).reshape(len(column), -1))


def _pack(values: npt.NDArray[np.floating]) -> U8:
    return np.packbits(values >= 0, axis=1, bitorder="little")


def crop_pdq(folder: Path, n: int, n_threads: int) -> U8:
    """Return the PDQ hashes of random crops of the images of a folder, equally many of each.

    The images are reduced to at most 256 pixels a side and grey first, so that a million crops take some minutes.
    """
    from imgmatch_df.hashes.kernels.pdq import hash_pixels

    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = np.empty((n, 32), np.uint8)

    def hash_crops(number: int) -> None:
        rng = np.random.default_rng([7, number])
        with Image.open(paths[number]) as image:
            image.draft("L", (512, 512))
            grey = image.convert("L")
        grey.thumbnail((256, 256))
        pixels = np.asarray(grey)
        for row in range(number * n // len(paths), (number + 1) * n // len(paths)):
            height, width = (max(1, round(rng.uniform(0.4, 1) * side)) for side in pixels.shape)
            y, x = (
                int(rng.integers(0, whole - part + 1))
                for whole, part in zip(pixels.shape, (height, width), strict=True)
            )
            hash_pixels(np.ascontiguousarray(pixels[y : y + height, x : x + width]), hashes[row])

    hash_pixels(np.zeros((64, 64), np.uint8), hashes[0])  # compiled once
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(hash_crops, range(len(paths))))
    return np.random.default_rng(8).permutation(hashes)
