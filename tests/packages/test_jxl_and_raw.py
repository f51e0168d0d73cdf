"""JPEG XL with imagecodecs, and the previews of RAW files with rawpy."""

import random
import struct

import cv2
import imagecodecs
import numpy as np
import polars as pl
import pytest
from cameras import raw_file
from drawing import draw, exif_block, jpeg, png, save
from PIL import Image, ImageOps

import imgmatch_df
from imgmatch_df.errors import Failure
from imgmatch_df.images import pixel_budget
from imgmatch_df.images.alpha import composite
from imgmatch_df.images.decode import decode_image
from imgmatch_df.images.guard import DecodedImage
from imgmatch_df.images.jxl_header import read_header
from imgmatch_df.options import Options

pytestmark = pytest.mark.packages

SIZE = (203, 140)
RGB, RGBA = draw(3, *SIZE), draw(4, *SIZE, channels=4)


def turned(pixels, orientation):
    """The pixels as seen, by Pillow."""
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


def as_seen(image):
    assert isinstance(image, DecodedImage), image
    seen = turned(np.ascontiguousarray(image.pixels[..., :3]), image.orientation)
    assert seen.shape[:2] == (image.height, image.width)
    return seen


def by_opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def jxl(pixels, **options):
    return bytes(imagecodecs.jpegxl_encode(pixels, **{"effort": 1, "lossless": True, **options}))


def detail_of(data, status="decode_failed", options=None):
    failure = decode_image(data, options or Options())
    assert isinstance(failure, Failure), failure
    assert failure.status == status
    return failure.detail


def hashes_are_equal(*images):
    out = pl.DataFrame({"image": list(images)}).imgmatch.visual_hash("image")
    assert out["status"].unique().to_list() == ["ok"]
    return out.select("bmh1", "phash").n_unique() == 1


# JPEG XL


@pytest.mark.parametrize("container", [False, True])
def test_pixels_without_loss_are_the_pixels(container):
    for pixels in (RGB, RGB[..., 0], RGB[:1], RGB[:, :1]):
        image = decode_image(jxl(pixels, usecontainer=container), Options())
        np.testing.assert_array_equal(image.pixels[..., :3] if pixels.ndim == 3 else image.pixels, pixels)
    assert hashes_are_equal(jxl(RGB, usecontainer=container), png(RGB))


def test_lossy_pixels_are_those_of_libjxl():
    data = jxl(RGB, lossless=False, level=80, effort=4)
    np.testing.assert_array_equal(as_seen(decode_image(data, Options())), imagecodecs.jpegxl_decode(data))


@pytest.mark.parametrize("bits", [1, 4, 7, 8, 10, 12, 16])
def test_every_depth_becomes_8_bits(bits):
    high = (1 << bits) - 1
    values = (RGB.astype(np.int64) * high // 255).astype(np.uint8 if bits <= 8 else np.uint16)
    image = decode_image(jxl(values, bitspersample=bits), Options())
    expected = values >> bits - 8 if bits > 8 else values.astype(int) * 255 // high
    np.testing.assert_array_equal(image.pixels[..., :3], expected)
    floats = (RGB / 255).astype(np.float32)
    np.testing.assert_array_equal(decode_image(jxl(floats), Options()).pixels[..., :3], RGB)


@pytest.mark.parametrize("alpha", ["drop", "white", "black"])
def test_transparency(alpha):
    for pixels in (RGBA, RGBA[..., :2]):
        colours, opaque = pixels[..., :-1].copy(), pixels[..., -1].copy()
        image = decode_image(jxl(pixels), Options(alpha=alpha))
        truth = colours[..., 0] if colours.shape[2] == 1 else colours
        if alpha != "drop":
            composite(truth, opaque, 255 if alpha == "white" else 0)
        found = image.pixels if truth.ndim == 2 else image.pixels[..., :3]
        np.testing.assert_array_equal(found, truth)


def test_a_packed_jpeg_has_the_hashes_of_the_jpeg():
    turned = save(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0" + exif_block(6))
    for whole in (jpeg(RGB), turned, save(Image.fromarray(RGB), "JPEG", progressive=True)):
        data = bytes(imagecodecs.jpegxl_encode_jpeg(whole))
        assert read_header(data).is_jpeg
        np.testing.assert_array_equal(as_seen(decode_image(data, Options())), as_seen(decode_image(whole, Options())))
        np.testing.assert_array_equal(as_seen(decode_image(data, Options())), by_opencv(whole))
        only = decode_image(data, Options(formats=frozenset({"jxl"})))
        assert isinstance(only, DecodedImage)


def test_the_first_frame_is_hashed():
    frames = np.stack([RGB, draw(9, *SIZE)])
    np.testing.assert_array_equal(decode_image(jxl(frames), Options()).pixels[..., :3], RGB)


@pytest.mark.parametrize(
    "size", [(1, 1), (8, 8), (16, 8), (256, 256), (300, 200), (513, 77), (400, 300), (1920, 1080), (9000, 3), (3, 9000)]
)
def test_the_header_has_the_size(size):
    flat = np.zeros((size[1], size[0], 3), np.uint8)
    for container in (False, True):
        assert read_header(jxl(flat, usecontainer=container))[:4] == (*size, 8, 0)
    assert read_header(jxl(np.zeros((size[1], size[0], 4), np.uint16)))[:4] == (*size, 16, 1)


def test_max_pixels_holds_before_a_pixel_is_decoded(monkeypatch):
    monkeypatch.setattr(imagecodecs, "jpegxl_decode", lambda *_args, **_options: pytest.fail("decoded"))
    for data in (jxl(RGB), jxl(RGB, usecontainer=True), bytes(imagecodecs.jpegxl_encode_jpeg(jpeg(RGB)))):
        assert "203x140 = 28,420 pixels" in detail_of(data, "too_many_pixels", Options(max_pixels=28_419))
    taken = []
    monkeypatch.setattr(pixel_budget.PIXELS, "take", taken.append)
    monkeypatch.setattr(imagecodecs, "jpegxl_decode", lambda *_args, **_options: np.zeros((1000, 1000, 3), np.uint8))
    assert isinstance(decode_image(jxl(np.zeros((1000, 1000, 3), np.uint8)), Options()), DecodedImage)
    assert taken == [15_000_000]


def test_files_that_are_cut_fail_and_say_so():
    for data in (jxl(RGB), jxl(RGB, usecontainer=True), bytes(imagecodecs.jpegxl_encode_jpeg(jpeg(RGB)))):
        for cut in (14, len(data) // 3, len(data) - 9):
            assert detail_of(data[:cut]).startswith("truncated JPEG XL")


# RAW


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_preview_is_hashed_and_said_so(order, orientation):
    upright = turned(RGB, orientation)
    for preview in (jpeg(RGB, quality=95), RGB):
        data = raw_file(preview, order=order, orientation=orientation, size=SIZE)
        image = decode_image(data, Options())
        expected = by_opencv(preview) if isinstance(preview, bytes) else RGB
        np.testing.assert_array_equal(as_seen(image), turned(expected, orientation))
        height, width = upright.shape[:2]
        assert image.detail == f"hash of the embedded preview, {width}x{height}"


def test_the_orientation_of_the_preview_comes_first():
    own = save(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0" + exif_block(3))
    image = decode_image(raw_file(own, orientation=6, size=SIZE), Options())
    np.testing.assert_array_equal(as_seen(image), by_opencv(own))
    none = Image.Exif()
    none[0x010F] = "maker"
    without = save(Image.fromarray(RGB), "JPEG", exif=none)
    image = decode_image(raw_file(without, orientation=6, size=SIZE), Options())
    np.testing.assert_array_equal(as_seen(image), turned(by_opencv(without), 6))


def test_a_row_has_the_detail_in_every_way(tmp_path):
    data = raw_file(jpeg(RGB), size=SIZE)
    said = "hash of the embedded preview, 203x140"
    for name in ("a.DNG", "b.arw"):
        sony = raw_file(jpeg(RGB), make="SONY", dng=False, size=SIZE)
        (tmp_path / name).write_bytes(data if name == "a.DNG" else sony)
    frame = imgmatch_df.scan_images(tmp_path).collect()
    assert frame.height == 2
    for isolate in (False, True):
        out = frame.imgmatch.visual_hash("path", isolate=isolate)
        assert out["status"].to_list() == ["ok", "ok"]
        assert out["detail"].to_list() == [said, said]
        assert out["width"].to_list() == [203, 203]
    assert hashes_are_equal(data, jpeg(RGB))
    imgmatch_df.write_hashes(frame, tmp_path / "h.duckdb", source="path")
    stored = imgmatch_df.scan_hashes(tmp_path / "h.duckdb").collect()
    assert stored["detail"].to_list() == [said, said]


def test_limits_hold_for_the_preview():
    data = raw_file(jpeg(RGB), size=SIZE)
    too_large = detail_of(data, "too_many_pixels", Options(max_pixels=28_419))
    assert too_large.startswith("preview of RAW (DNG): 203x140 = 28,420 pixels")
    assert "preview of RAW" not in detail_of(data, options=Options(formats=frozenset({"jpeg", "tiff"})))
    assert detail_of(data, options=Options(formats=frozenset({"tiff"}))) == "RAW is not among formats=tiff"
    assert isinstance(decode_image(data, Options(formats=frozenset({"raw"}))), DecodedImage)


def test_a_raw_file_without_a_preview_that_can_be_read_fails():
    data = raw_file(jpeg(RGB), size=SIZE)
    preview = jpeg(RGB)
    assert "RAW (DNG)" in detail_of(data.replace(preview, bytes(len(preview))))
    assert "RAW (DNG)" in detail_of(data.replace(preview, preview[:300] + bytes(len(preview) - 300)))
    assert "RAW (Fujifilm)" in detail_of(b"FUJIFILMCCD-RAW 0201" + bytes(5000))
    assert "RAW (Canon CR3)" in detail_of(b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(500))


@pytest.mark.parametrize("kind", ["jxl", "raw"])
def test_mutated_files_are_rows(kind):
    files = {
        "jxl": [jxl(RGB), jxl(RGBA, usecontainer=True), jxl(RGB, lossless=False, level=70)],
        "raw": [raw_file(jpeg(RGB), size=SIZE), raw_file(RGB, order=">", orientation=6)],
    }[kind]
    rng = random.Random(2)
    results = []
    for _ in range(200):
        data = bytearray(rng.choice(files))
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(rng.choice((120, len(data))))
            data[at if rng.random() < 0.7 else -at - 1] = rng.randrange(256)
        results.append(decode_image(bytes(data), Options(max_pixels=4_000_000)))
    failures = [result for result in results if isinstance(result, Failure)]
    assert {failure.status for failure in failures} <= {"decode_failed", "too_many_pixels"}
    assert 5 < len(failures) < 195
    assert all("\n" not in failure.detail and failure.detail.isprintable() for failure in failures)


def test_boxes_of_a_jpeg_xl_are_counted():
    many = b"\0\0\0\x0cJXL \r\n\x87\n" + struct.pack(">I4s", 8, b"free") * 20_000
    assert "more than 10,000 boxes" in detail_of(many)
