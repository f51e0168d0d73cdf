"""Borders of images: the kernel against a slow definition, and drawn bars, frames, products and odd sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from imgmatch_df.hashes.kernels.borders import find_borders

TURNS = [lambda a, k=k, f=f: np.rot90(a.T if f else a, k) for f in (False, True) for k in range(4)]


def depth_of(lines):
    """Return how many of the first lines are a border, by the definition of `find_borders`."""
    n, length = lines.shape
    medians = [sorted(line)[(length - 1) // 2] for line in lines.tolist()]
    depth = 0
    while depth < n and abs(medians[depth] - medians[0]) <= 8:
        if np.abs(lines[depth].astype(int) - medians[depth]).sum() > 3 * length:
            break
        depth += 1
    if depth < 0.02 * n or depth >= 0.45 * n:
        return 0
    for at in range(depth, min(n - 1, depth + max(3, n // 100))):
        if (np.abs(lines[at].astype(int) - medians[0]) > 16).mean() >= 0.5:
            return at + 1
    return 0


def slow_borders(grey):
    top, bottom, left, right = 0, grey.shape[0], 0, grey.shape[1]
    for _ in range(2):
        inside = grey[top:bottom, left:right]
        above, below = depth_of(inside), depth_of(inside[::-1])
        before, after = depth_of(inside.T), depth_of(inside.T[::-1])
        if top + above < bottom - below:
            top, bottom = top + above, bottom - below
        if left + before < right - after:
            left, right = left + before, right - after
    return top, bottom, left, right


def picture(height, width, seed=0):
    """Return grey pixels without a border: blocks of random tones."""
    blocks = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1), np.uint8)
    return np.kron(blocks, np.ones((4, 4), np.uint8))[:height, :width]


def framed(grey, top, bottom, left, right, tone=255):
    return np.pad(grey, ((top, bottom), (left, right)), constant_values=tone)


SIZES = st.tuples(st.integers(1, 60), st.integers(1, 60))


@settings(max_examples=300, deadline=None)
@given(
    hnp.arrays(np.uint8, SIZES, elements=st.sampled_from([0, 3, 4, 20, 21, 250, 255])),
    st.tuples(*[st.integers(0, 30)] * 4),
    st.integers(0, 255),
)
def test_the_kernel_equals_the_definition(grey, border, tone):
    for image in (grey, framed(grey, *border, tone)):
        assert find_borders(image) == slow_borders(image)


@settings(max_examples=100, deadline=None)
@given(SIZES, st.tuples(*[st.integers(0, 30)] * 4), st.sampled_from([0, 128, 255]), st.integers(0, 9))
def test_the_borders_of_a_turned_image_are_the_turned_borders(size, border, tone, seed):
    image = framed(picture(*size, seed), *border, tone)
    inside = np.zeros(image.shape, np.bool_)
    top, bottom, left, right = find_borders(image)
    inside[top:bottom, left:right] = True
    for turn in TURNS:
        top, bottom, left, right = find_borders(np.ascontiguousarray(turn(image)))
        turned = turn(inside)
        assert turned[top:bottom, left:right].all()
        assert turned.sum() == (bottom - top) * (right - left)


@pytest.mark.parametrize("tone", [0, 255])
@pytest.mark.parametrize("noise", [0, 2])
@pytest.mark.parametrize(
    "border", [(0, 0, 0, 0), (30, 30, 0, 0), (0, 0, 40, 40), (50, 50, 60, 60), (40, 0, 0, 0), (20, 60, 10, 30)]
)
def test_bars_and_frames_are_found(border, noise, tone):
    image = framed(np.where(picture(160, 200) < 128, 60, 190).astype(np.uint8), *border, tone)
    shift = np.random.default_rng(1).integers(-noise, noise + 1, image.shape)
    image = np.clip(image + shift, 0, 255).astype(np.uint8)
    top, bottom, left, right = find_borders(image)
    # The first line of the picture counts as the edge.
    wanted = (border[0], image.shape[0] - border[1], border[2], image.shape[1] - border[3])
    for found, place, given_border in zip((top, bottom, left, right), wanted, border, strict=True):
        assert abs(found - place) == (1 if given_border else 0)


def test_bars_inside_a_frame_are_found():
    inside = np.where(picture(100, 160) < 128, 90, 170).astype(np.uint8)
    image = framed(framed(inside, 30, 30, 0, 0, 0), 40, 40, 40, 40, 255)
    top, bottom, left, right = find_borders(image)
    assert (bottom - top, right - left) == (98, 158)


def test_the_ground_of_a_product_is_no_border():
    y, x = np.mgrid[:300, :300]
    disc = np.where((y - 150) ** 2 + (x - 150) ** 2 < 90**2, 80, 255).astype(np.uint8)
    assert find_borders(disc) == (0, 300, 0, 300)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (40, 50), (1, 3000)])
@pytest.mark.parametrize("tone", [0, 255])
def test_flat_images_have_no_border(size, tone):
    assert find_borders(np.full(size, tone, np.uint8)) == (0, size[0], 0, size[1])


def test_colours_are_compared_as_grey():
    colours = np.random.default_rng(2).integers(0, 256, (90, 70, 4), np.uint8)
    colours[:20, :, :3] = (250, 3, 90)
    red, green, blue = (colours[:, :, channel].astype(int) for channel in range(3))
    grey = ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)
    assert find_borders(colours) == find_borders(grey) == (21, 90, 0, 70)
