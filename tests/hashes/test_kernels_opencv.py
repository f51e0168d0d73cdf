"""The hash kernels against OpenCV, bit for bit."""

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_pictures import open_source_opencv, opencv_hashes

from imgmatch_df.hashes import bmh1, phash
from imgmatch_df.hashes.squares import HashInput, upright

ORIENTATIONS = range(1, 9)
SIZES = [
    (1, 1), (1, 2), (2, 1), (2, 2), (1, 7), (9, 1), (3, 5), (31, 33), (32, 32), (33, 31), (64, 1000), (128, 128),
    (255, 257), (256, 256), (257, 255), (400, 500), (511, 513), (512, 512), (700, 333), (1, 5000), (5000, 1),
]  # fmt: skip

# Where coefficients tie exactly, the order of float additions decides, and OpenCV's depends on the processor.
needs_avx2 = pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="OpenCV adds in another order")


def hashes(pixels: np.ndarray, orientation: int = 1) -> tuple[bytes, int]:
    given, blocks, cosines = HashInput(pixels, orientation), np.full(121, 0xAA, np.uint8), np.zeros(1, np.uint64)
    bmh1.hash_image(given, blocks)
    phash.hash_image(given, cosines)
    return blocks.tobytes(), int(cosines[0])


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape, dtype=np.uint8)


def landscape(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw what photos are like: smooth, with edges and a little noise."""
    coarse = cv2.resize(noise(rng, 6, 8, 4), (width, height), interpolation=cv2.INTER_CUBIC)
    cv2.circle(coarse, (width // 3, height // 2), max(1, height // 5), (200, 40, 90, 7), -1)
    return cv2.add(coarse, rng.integers(0, 12, coarse.shape, dtype=np.uint8))


def drawn() -> dict[str, np.ndarray]:
    """Draw grey pictures that are full of ties: flat, split, periodic, symmetric."""
    y, x = np.mgrid[0:96, 0:96]
    r = np.hypot(x - 47.5, y - 47.5)
    levels = {
        "right": x, "down": y, "diagonal": x + y, "circle": r < 30, "rings": np.sin(r / 3), "cone": r,
        "split right": x > 47, "split down": y > 47, "light over dark": y < 40, "corner": (x < 20) & (y < 30),
        "saddle": (x - 47.5) * (y - 47.5), "cross": (abs(x - y) < 5) | (abs(x + y - 95) < 5),
        "dots": (x % 12 - 5.5) ** 2 + (y % 12 - 5.5) ** 2 < 12, "triangle": x > y,
        **{f"stripes {p}": x // p % 2 for p in (1, 2, 3, 4, 6, 8, 12, 16, 24, 48)},
        **{f"bars {p}": y // p % 2 for p in (1, 2, 3, 4, 6, 8, 12, 16, 24, 48)},
        **{f"checkerboard {p}": (x // p + y // p) % 2 for p in (1, 2, 3, 4, 6, 8, 12, 16, 24, 48)},
    }  # fmt: skip
    pictures = {}
    for name, level in levels.items():
        level = np.asarray(level, float)
        unit = (level - level.min()) / np.ptp(level)
        for low, high in ((0, 255), (255, 0), (10, 200), (127, 128)):
            pictures[f"{name} {low} to {high}"] = np.rint(low + unit * (high - low)).astype(np.uint8)
    return pictures


@pytest.mark.parametrize("n_channels", [1, 4])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_noise_of_every_size_and_orientation(size: tuple[int, int], n_channels: int) -> None:
    rng = np.random.default_rng([*size, n_channels])
    pixels = noise(rng, *size, *([4] if n_channels == 4 else []))
    for picture in (pixels, (pixels >> 7) * np.uint8(255), pixels // 86 + np.uint8(100)):
        for orientation in ORIENTATIONS:
            with open_source_opencv():
                assert hashes(picture, orientation) == opencv_hashes(picture, orientation), orientation


@pytest.mark.parametrize("seed", range(8))
def test_landscapes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for orientation in ORIENTATIONS:
        pixels = landscape(rng, *rng.integers(16, 900, 2))
        assert hashes(pixels, orientation) == opencv_hashes(pixels, orientation)


def test_crops() -> None:
    rng = np.random.default_rng(0)
    pixels = landscape(rng, 600, 800)
    for _ in range(500):
        height, width = rng.integers(1, 300, 2)
        top, left = rng.integers(0, (600 - height, 800 - width))
        crop = np.ascontiguousarray(pixels[top : top + height, left : left + width])
        assert hashes(crop) == opencv_hashes(crop), crop.shape


def test_drawn_pictures() -> None:
    for name, pixels in drawn().items():
        for orientation in ORIENTATIONS:
            with open_source_opencv():
                assert hashes(pixels, orientation) == opencv_hashes(pixels, orientation), (name, orientation)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (40, 30)], ids=str)
def test_flat_pictures_are_all_ones_and_zero(shape: tuple[int, int]) -> None:
    all_ones = b"\xff" * 120 + b"\x01"
    for level in range(256):
        grey = np.full(shape, level, np.uint8)
        colour = np.broadcast_to(np.array([level, 255 - level, level // 3, 9], np.uint8), (*shape, 4)).copy()
        for pixels in (grey, colour):
            assert hashes(pixels) == opencv_hashes(pixels) == (all_ones, 0), level


@needs_avx2
def test_pictures_whose_mean_coefficient_is_zero() -> None:
    # f(x, y) + f(y, x) is constant, so the coefficients cancel pairwise: the hardest ties there are.
    rng = np.random.default_rng(5)
    for _ in range(200):
        upper = np.triu(rng.integers(-127, 128, (32, 32)), 1)
        pixels = (128 + upper - upper.T).astype(np.uint8)
        for orientation in ORIENTATIONS:
            with open_source_opencv():
                assert hashes(pixels, orientation) == opencv_hashes(pixels, orientation)


@needs_avx2
@settings(deadline=None, max_examples=300)
@given(st.data(), st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 4]), st.sampled_from(ORIENTATIONS))
def test_any_picture(data: st.DataObject, height: int, width: int, n_channels: int, orientation: int) -> None:
    size = height * width * n_channels
    some = data.draw(st.binary(min_size=1, max_size=40))
    pixels = np.resize(np.frombuffer(some, np.uint8), size).reshape(
        (height, width) if n_channels == 1 else (height, width, 4)
    )
    with open_source_opencv():
        assert hashes(pixels, orientation) == opencv_hashes(pixels, orientation)


def test_grey_equals_its_replicated_channels_and_the_fourth_byte_is_ignored() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        grey = noise(rng, *rng.integers(1, 300, 2))
        colour = np.stack([grey, grey, grey, noise(rng, *grey.shape)], axis=2)
        assert hashes(grey) == hashes(colour)


def opencv_square(pixels: np.ndarray, side: int) -> np.ndarray:
    small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LINEAR_EXACT)
    return small if pixels.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_RGBA2GRAY)


@pytest.mark.parametrize("n_channels", [1, 4])
@pytest.mark.parametrize("side", [16, 32, 256])
def test_squares_of_every_width(side: int, n_channels: int) -> None:
    """A vector of 16 pixels has its neighbours in one vector, in two or in none, by the width."""
    rng = np.random.default_rng([side, n_channels])
    for width in range(1, 601 if side == 256 else 121):
        pixels = noise(rng, int(rng.integers(1, 600)), width, *([4] if n_channels == 4 else []))
        pixels = pixels if rng.integers(2) else (pixels >> 7) * np.uint8(255)
        orientation = int(rng.integers(1, 9))
        square = HashInput(pixels, orientation).grey_square(side)
        assert np.array_equal(square, opencv_square(upright(pixels, orientation), side)), pixels.shape


def test_orientation_equals_the_picture_turned_by_hand() -> None:
    pixels = landscape(np.random.default_rng(2), 90, 131)
    turned = np.rot90(pixels, -1)  # orientation 6: a quarter turn clockwise to be seen
    assert hashes(pixels, 6) == hashes(np.ascontiguousarray(turned), 1)


def test_read_only_pixels_are_accepted_and_strided_ones_refused() -> None:
    pixels = landscape(np.random.default_rng(3), 50, 60)
    expected = hashes(pixels)
    pixels.flags.writeable = False
    assert hashes(pixels) == expected
    with pytest.raises(TypeError):
        hashes(pixels[:, ::2])


def test_threads_share_nothing() -> None:
    rng = np.random.default_rng(4)
    pictures = [landscape(rng, *rng.integers(20, 400, 2)) for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(hashes, pictures * 5)) == [hashes(picture) for picture in pictures] * 5


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(9000, 7000, 4), (9000, 7000), (4000, 3000, 4)], ids=str)
def test_large_pictures(shape: tuple[int, ...]) -> None:
    pixels = noise(np.random.default_rng(6), *shape)
    for orientation in (1, 3, 6):
        assert hashes(pixels, orientation) == opencv_hashes(pixels, orientation)


@pytest.mark.slow
@pytest.mark.parametrize(("cpu", "features"), [("generic", ""), ("haswell", ""), ("haswell", "+avx,+avx2")])
def test_other_vector_widths_give_the_same_bits(cpu: str, features: str, tmp_path: os.PathLike[str]) -> None:
    if cpu == "haswell" and platform.machine() not in {"x86_64", "AMD64"}:
        pytest.skip("no such processor")
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--noconftest",  # it compiles all kernels
        __file__,
        "-k",
        "noise or landscapes or squares",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
