"""Transparency: dropped, or shown over white or black."""

import io
import itertools

import numpy as np
import polars as pl
import pytest
from drawing import draw, draw16, palette_bytes, save
from encoders import gif, png
from oddities import _bmp, _rows
from PIL import Image, ImageDraw
from test_decode import as_seen, by_opencv

import imgmatch_df
from imgmatch_df import ArgumentError, StoreError
from imgmatch_df.images.alpha import composite
from imgmatch_df.images.decode import decode_image
from imgmatch_df.options import Options

GREY = {"white": 255, "black": 0}


def over(pixels, alpha, background):
    """The rule, one value at a time."""
    values = np.stack([pixels] * 3, axis=-1) if pixels.ndim == 2 else pixels[..., :3]
    out = np.empty(values.shape, np.uint8)
    for at in np.ndindex(values.shape):
        opaque = int(alpha[at[:2]])
        out[at] = (int(values[at]) * opaque + background * (255 - opaque) + 127) // 255
    return out


def seen(data, alpha):
    return as_seen(decode_image(data, Options(alpha=alpha)))


def test_every_value_over_every_alpha():
    value, alpha = (plane.astype(np.uint8) for plane in np.mgrid[0:256, 0:256])
    for background in (0, 1, 128, 255):
        grey = value.copy()
        composite(grey, alpha, background)
        exact = (value.astype(int) * alpha + background * (255 - alpha.astype(int)) + 127) // 255
        np.testing.assert_array_equal(grey, exact)
        assert np.abs(exact - (value * (alpha / 255) + background * (1 - alpha / 255))).max() <= 0.5
        colours = np.dstack([value, value, value, alpha])
        composite(colours, colours[..., 3], background)
        np.testing.assert_array_equal(colours, np.dstack([exact, exact, exact, alpha]))


def transparent_files():
    """Yield (name, file, stored pixels, alpha), where the file keeps both without loss."""
    rgba, la = draw(1, 31, 22, 4), draw(2, 31, 22, 2)
    yield "PNG/RGBA", png(rgba), rgba, rgba[..., 3]
    yield "PNG/RGBA interlaced", png(rgba, interlaced=True), rgba, rgba[..., 3]
    yield "PNG/LA", png(la), la[..., 0], la[..., 1]
    for channels in (2, 4):
        deep = draw16(3, 31, 22, channels)
        high = (deep >> 8).astype(np.uint8)
        yield f"PNG/16 bits, {channels}", png(deep, 16), high[..., 0] if channels == 2 else high, high[..., -1]
    indices = draw(4, 31, 22, 1) // 2
    colours = np.frombuffer(palette_bytes(5, 128), np.uint8).reshape(-1, 3)
    table = np.full(128, 255, np.uint8)
    table[:100] = np.arange(0, 200, 2)
    for interlaced in (False, True):
        file = png(indices, 8, colours.tobytes(), table[:100].tobytes(), interlaced=interlaced)
        yield f"PNG/P {interlaced}", file, colours[indices], table[indices]
    for bits in (1, 2, 4, 8):
        few = (draw(6, 31, 22, 1).astype(np.uint16) * (1 << bits) // 256).astype(np.uint8)
        shades = (few.astype(int) * 255 // ((1 << bits) - 1)).astype(np.uint8)
        key = int(few[3, 4])
        yield (
            f"PNG/L {bits} bits with a key",
            png(few, bits, transparency=bytes([0, key])),
            shades,
            np.where(few == key, 0, 255),
        )
    deep, rgb = draw16(7, 31, 22, 1), draw(8, 31, 22)
    deep[5:9] = 0x1234
    deep[9] = 0x1235  # the same high byte
    key = np.where(deep == 0x1234, 0, 255)
    yield "PNG/L 16 bits with a key", png(deep, 16, transparency=b"\x12\x34"), (deep >> 8).astype(np.uint8), key
    rgb[5:9] = 1, 2, 3
    key = np.where((rgb == (1, 2, 3)).all(axis=-1), 0, 255)
    yield "PNG/RGB with a key", png(rgb, transparency=b"\0\1\0\2\0\3"), rgb, key
    deep = draw16(9, 31, 22)
    deep[5:9] = 0x101, 0x202, 0x303
    deep[9] = 0x101, 0x202, 0x304
    key = np.where((deep == (0x101, 0x202, 0x303)).all(axis=-1), 0, 255)
    for interlaced in (False, True):
        file = png(deep, 16, transparency=b"\1\1\2\2\3\3", interlaced=interlaced)
        yield f"PNG/RGB 16 bits with a key {interlaced}", file, (deep >> 8).astype(np.uint8), key
    yield "WEBP", save(Image.fromarray(rgba), "WEBP", lossless=True, exact=True), rgba, rgba[..., 3]
    yield "JPEG2000/RGBA", save(Image.fromarray(rgba), "JPEG2000"), rgba, rgba[..., 3]
    yield "JPEG2000/LA", save(Image.fromarray(la), "JPEG2000"), la[..., 0], la[..., 1]
    key = np.where(indices == 60, 0, 255)
    yield "GIF", gif([(indices, 0, 0)], (31, 22), colours.tobytes(), 7, 60), colours[indices], key
    inside = np.zeros((22, 31), int)
    inside[3:13, 5:25] = 255
    small = gif([(indices[3:13, 5:25], 5, 3)], (31, 22), colours.tobytes(), 7)
    yield "GIF, small frame", small, colours[indices], inside
    words = np.ascontiguousarray(rgba[..., [2, 1, 0, 3]]).view("<u4")[..., 0]
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    yield "BMP", _bmp(_rows(words, 32), 32, (31, 22), 108, 3, masks), rgba, rgba[..., 3]
    opaque = np.full((22, 31), 255)
    yield "BMP without a mask for it", _bmp(_rows(words, 32), 32, (31, 22)), rgba, opaque
    yield "PNG/RGB", png(rgb), rgb, opaque
    yield "PNG, damaged transparency", png(rgb, transparency=b"\0\1"), rgb, opaque


@pytest.mark.parametrize("name", [name for name, *_ in transparent_files()])
def test_is_shown_over_white_or_black(name):
    (file, pixels, alpha) = next(rest for found, *rest in transparent_files() if found == name)
    for background, grey in GREY.items():
        np.testing.assert_array_equal(seen(file, background), over(pixels, alpha, grey))
    truth = by_opencv(file)
    assert truth is not None or name.startswith("GIF")  # OpenCV 4.10 reads no GIF
    if truth is not None:
        np.testing.assert_array_equal(seen(file, "drop"), truth)


def test_avif_and_lossy_webp():
    rgba = draw(1, 31, 22, 4)
    for file in (save(Image.fromarray(rgba), "AVIF", speed=10), save(Image.fromarray(rgba), "WEBP")):
        with Image.open(io.BytesIO(file)) as image:
            loaded = np.asarray(image.convert("RGBA"))
        for background, grey in GREY.items():
            np.testing.assert_array_equal(seen(file, background), over(loaded, loaded[..., 3], grey))


def glyph(number, format_="PNG", **options):
    image = Image.new("RGBA", (200, 200))
    pen, ink = ImageDraw.Draw(image), (0, 0, 0, 255)
    shapes = (
        lambda: pen.ellipse((20, 20, 180, 180), fill=ink),
        lambda: pen.rectangle((80, 5, 120, 195), fill=ink),
        lambda: pen.polygon([(100, 5), (195, 190), (5, 190)], fill=ink),
    )
    shapes[number]()
    return save(image, format_, **options)


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "GIF", "AVIF", "JPEG2000"])
def test_line_art_on_transparency_can_be_told_apart(format_):
    options = {"lossless": True} if format_ == "WEBP" else {}
    frame = pl.DataFrame({"x": [glyph(number, format_, **options) for number in range(3)]})
    kept = {
        alpha: imgmatch_df.remove_duplicates(frame, radius=0, source="x", alpha=alpha, flat="match").height
        for alpha in ("drop", "white", "black")
    }
    assert kept == {"drop": 1, "white": 3, "black": 1}


def test_two_values_of_it_in_one_statement_share_nothing():
    frame = pl.DataFrame({"x": [glyph(0), glyph(1)]})
    both = frame.select(
        drop=imgmatch_df.phash("x"),
        white=imgmatch_df.phash("x", alpha="white"),
        black=pl.col("x").imgmatch.phash(alpha="black"),
    )
    alone = [
        imgmatch_df.visual_hash(frame, "x", alpha=alpha)["phash"].to_list() for alpha in ("drop", "white", "black")
    ]
    assert [both[name].to_list() for name in ("drop", "white", "black")] == alone
    assert alone[0] != alone[1]


def test_a_jpeg_has_none():
    frame = pl.DataFrame({"x": [save(Image.fromarray(draw(1, 300, 280)), "JPEG")]})
    for decode in ("full", "scaled"):
        hashes = {
            alpha: imgmatch_df.visual_hash(frame, "x", alpha=alpha, decode=decode)["bmh1"][0]
            for alpha in ("drop", "white")
        }
        assert hashes["drop"] == hashes["white"]


@pytest.mark.parametrize("value", ["", "White", "grey", None, 255, True, ("white",)])
def test_other_values_are_refused(value):
    with pytest.raises(ArgumentError, match=r"alpha must be one of 'drop', 'white', 'black', got .*\nHint: "):
        imgmatch_df.phash("x", alpha=value)


@pytest.mark.parametrize("form", ["s.duckdb", "s.parquet", "parts"])
def test_a_store_says_it_and_mixes_nothing(tmp_path, form):
    store, frame = tmp_path / form, pl.DataFrame({"x": [glyph(0), glyph(1)], "k": ["a", "b"]})
    ways = ("drop", "white", "black")
    for first, second in itertools.permutations(ways, 2):
        target = tmp_path / f"{first}-{second}-{form}"
        imgmatch_df.write_hashes(frame, target, source="x", key="k", alpha=first)
        with pytest.raises(StoreError, match=f"alpha is '{first}' in the store, '{second}' in this call"):
            imgmatch_df.write_hashes(frame, target, source="x", key="k", alpha=second)
        with pytest.raises(
            StoreError, match=rf"it has alpha='{first}', this call has alpha='{second}'.*\nHint: pass alpha='{first}'"
        ):
            imgmatch_df.match(frame, target, radius=4, source="x", id="k", alpha=second)
    imgmatch_df.write_hashes(frame, store, source="x", key="k", alpha="white", decode="scaled")
    stored = imgmatch_df.scan_hashes(store).collect().sort("k")
    made = imgmatch_df.visual_hash(frame, "x", alpha="white")
    assert stored["phash"].to_list() == made["phash"].to_list()
    assert imgmatch_df.write_hashes(frame, store, source="x", key="k", alpha="white", decode="scaled").n_new == 0
