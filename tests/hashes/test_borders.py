"""The inside of uniform borders: against a slow, obvious version, on turned images, and on drawn pictures."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from reference import inside_of_borders

from imgmatch_df.columns import TURNS
from imgmatch_df.hashes.kernels.borders import find_borders
from imgmatch_df.turns import EVERY_TURN

WHITE, BLACK, GREY = 255, 0, 128


def luma(pixels):
    return (
        pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(np.ascontiguousarray(pixels[:, :, :3])).convert("L"))
    )


def framed(inside, top, bottom, left, right, tone):
    """Return an RGBX or grey image with a border of one tone around it."""
    height, width = inside.shape[:2]
    image = np.full((top + height + bottom, left + width + right, *inside.shape[2:]), tone, np.uint8)
    image[top : top + height, left : left + width] = inside
    return image


def picture(height, width, seed=3):
    """Return an RGBX picture that no border is part of."""
    pixels = np.zeros((height, width, 4), np.uint8)
    rng = np.random.default_rng(seed)
    pixels[:, :, :3] = rng.integers(30, 90, (height, width, 3)) + 130 * rng.integers(0, 2, (height, width, 1))
    return pixels


def turned(pixels, turn):
    steps = EVERY_TURN[turn]
    if steps.swaps:
        pixels = pixels.swapaxes(0, 1)
    if steps.reverses_rows:
        pixels = pixels[::-1]
    return pixels[:, ::-1] if steps.reverses_columns else pixels


@st.composite
def bordered_images(draw_value):
    """Draw a picture, and around it borders of any widths, tones and noise."""
    rng = np.random.default_rng(draw_value(st.integers(0, 2**32 - 1)))
    height, width = draw_value(st.integers(1, 40)), draw_value(st.integers(1, 40))
    low = draw_value(st.sampled_from((0, 120)))
    image = rng.integers(low, low + draw_value(st.sampled_from((2, 30, 130))), (height, width, 4), np.uint8)
    for _ in range(draw_value(st.integers(0, 3))):
        widths = [draw_value(st.integers(0, 14)) for _ in range(4)]
        image = framed(image, *widths, draw_value(st.sampled_from((0, 9, 17, 118, 255))))
    noise = draw_value(st.integers(0, 12))
    noisy = np.clip(image + rng.integers(-noise, noise + 1, image.shape), 0, 255).astype(np.uint8)
    return noisy if draw_value(st.booleans()) else np.ascontiguousarray(noisy[:, :, 0])


@settings(max_examples=300, deadline=None)
@given(bordered_images(), st.sampled_from(range(len(TURNS))), st.sampled_from((1, 2)))
def test_equals_the_obvious_version_in_every_turn_and_stride(image, turn, step):
    image = turned(image, turn)[::step, ::step]
    assert find_borders(image) == inside_of_borders(luma(image))


@settings(max_examples=200, deadline=None)
@given(bordered_images(), st.sampled_from(range(len(TURNS))))
def test_the_inside_of_a_turned_image_is_the_turned_inside(image, turn):
    rows_and_columns = np.dstack(np.indices(image.shape[:2]))
    top, bottom, left, right = find_borders(image)
    expected = turned(rows_and_columns[top:bottom, left:right], turn)
    top, bottom, left, right = find_borders(turned(image, turn))
    np.testing.assert_array_equal(turned(rows_and_columns, turn)[top:bottom, left:right], expected)


@settings(max_examples=200, deadline=None)
@given(bordered_images())
def test_an_inside_has_no_borders(image):
    top, bottom, left, right = find_borders(image)
    inside = image[top:bottom, left:right]
    assert find_borders(inside) == (0, bottom - top, 0, right - left)
    assert min(inside.shape[:2]) >= min(16, *image.shape[:2])


@pytest.mark.parametrize(
    ("top", "bottom", "left", "right"),
    [(40, 40, 0, 0), (0, 0, 30, 30), (25, 25, 25, 25), (3, 0, 0, 0), (40, 10, 5, 20), (0, 90, 0, 0), (70, 70, 70, 70)],
    ids=["letterbox", "pillarbox", "frame", "top", "uneven", "bottom", "broad"],
)
@pytest.mark.parametrize("tone", [WHITE, BLACK])
def test_bars_and_frames_go(top, bottom, left, right, tone):
    inside = picture(120, 160)
    image = framed(inside, top, bottom, left, right, tone)
    assert find_borders(image) == (top, top + 120, left, left + 160)
    assert find_borders(image[:, :, 0]) == (top, top + 120, left, left + 160)


def test_nested_borders_of_several_tones_go():
    image = framed(framed(picture(100, 130), 10, 10, 12, 12, WHITE), 40, 40, 0, 0, BLACK)
    image = framed(image, 8, 8, 8, 8, GREY)
    assert find_borders(image) == (58, 158, 20, 150)


def test_a_border_with_the_noise_of_a_camera_goes_but_not_one_of_stronger_noise():
    rng = np.random.default_rng(5)
    image = framed(picture(100, 100), 20, 20, 20, 20, GREY).astype(np.int16)
    weak = (image + rng.integers(-4, 5, image.shape)).astype(np.uint8)
    strong = (np.clip(image + rng.integers(-20, 21, image.shape), 0, 255)).astype(np.uint8)
    assert find_borders(weak) == (20, 120, 20, 120)
    assert find_borders(strong) == (0, 140, 0, 140)


@pytest.mark.parametrize("quality", [95, 50, 20])
def test_a_frame_survives_jpeg(quality):
    file = io.BytesIO()
    inside = np.asarray(Image.fromarray(picture(23, 30)).resize((240, 180), Image.Resampling.NEAREST))
    image = framed(inside, 30, 30, 30, 30, WHITE)
    Image.fromarray(image[:, :, :3]).save(file, "JPEG", quality=quality)
    pixels = np.asarray(Image.open(file).convert("RGBX"))
    top, bottom, left, right = find_borders(pixels)
    assert max(abs(top - 30), abs(bottom - 210), abs(left - 30), abs(right - 270)) <= 2


def disc(side, radius):
    y, x = np.mgrid[:side, :side] - side / 2
    return np.where(y * y + x * x <= radius * radius, 40, WHITE).astype(np.uint8)


def bottle():
    """Return a narrow product on white: a neck and a body, as shops show it."""
    image = np.full((300, 300), WHITE, np.uint8)
    image[40:100, 140:160] = 60
    image[100:240, 110:190] = picture(140, 80)[:, :, 0] // 2
    return image


def carton():
    """Return a product whose sides are straight, and each less than half of the image."""
    return framed(picture(130, 130)[:, :, 0], 85, 85, 85, 85, WHITE)


@pytest.mark.parametrize(
    "image", [disc(200, 60), disc(400, 150), bottle(), carton()], ids=["disc", "plate", "bottle", "carton"]
)
def test_the_background_of_a_product_stays(image):
    assert find_borders(image) == (0, image.shape[0], 0, image.shape[1])


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (300, 1), (15, 400), (16, 16), (200, 300)])
@pytest.mark.parametrize("tone", [WHITE, BLACK])
def test_flat_and_tiny_images_stay_whole(shape, tone):
    image = np.full(shape, tone, np.uint8)
    assert find_borders(image) == (0, shape[0], 0, shape[1])


def test_an_inside_of_fewer_than_16_lines_is_not_taken():
    assert find_borders(framed(picture(15, 60), 8, 8, 0, 0, BLACK)) == (0, 31, 0, 60)
    assert find_borders(framed(picture(16, 60), 8, 8, 0, 0, BLACK)) == (8, 24, 0, 60)


def test_borders_below_2_and_from_45_percent_of_a_side_stay():
    assert find_borders(framed(picture(99, 100), 1, 0, 0, 0, BLACK)) == (0, 100, 0, 100)
    assert find_borders(framed(picture(98, 100), 2, 0, 0, 0, BLACK)) == (2, 100, 0, 100)
    assert find_borders(framed(picture(56, 100), 44, 0, 0, 0, BLACK)) == (44, 100, 0, 100)
    assert find_borders(framed(picture(55, 100), 45, 0, 0, 0, BLACK)) == (0, 100, 0, 100)


def test_a_read_only_image_is_read_and_stays_as_it_is():
    image = framed(picture(60, 60), 9, 9, 9, 9, BLACK)
    before = image.copy()
    image.setflags(write=False)
    assert find_borders(image) == (9, 69, 9, 69)
    np.testing.assert_array_equal(image, before)
