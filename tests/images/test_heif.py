"""HEIC and HEIF, held against the pixels that pillow-heif gives and against OpenCV's hashes of them."""

import functools
import io
import random
import struct
import threading

import cv2
import numpy as np
import pillow_heif
import polars as pl
import pytest
from drawing import draw, exif_block, png
from PIL import Image
from test_decode import TURNS, as_seen, detail_of

import imgmatch_df
from imgmatch_df.errors import Failure
from imgmatch_df.images import decode_costs, pixel_budget
from imgmatch_df.images.alpha import composite
from imgmatch_df.images.decode import decode_image
from imgmatch_df.images.guard import DecodedImage
from imgmatch_df.options import Options

SIZE = (203, 140)


def heif(pixels, mode="RGB", **options):
    size = pixels.shape[1::-1]
    file, stream = pillow_heif.from_bytes(mode, size, np.ascontiguousarray(pixels).tobytes()), io.BytesIO()
    file.save(stream, **options)
    return stream.getvalue()


def truth_of(data):
    return np.asarray(pillow_heif.open_heif(data).to_pillow().convert("RGB"))


def deep(pixels):
    return pixels.astype(np.uint16) * 257


RGB, RGBA = draw(3, *SIZE), draw(4, *SIZE, channels=4)
DRAWN = {
    "colour": lambda: heif(RGB),
    "colour, one tile": lambda: heif(RGB, tile_size=0),
    "grid": lambda: heif(RGB, tile_size=64),
    "not subsampled": lambda: heif(RGB, chroma=444),
    "10 bits": lambda: heif(deep(RGB), "RGB;16"),
    "alpha": lambda: heif(RGBA, "RGBA"),
    "10 bits, alpha": lambda: heif(deep(RGBA), "RGBA;16"),
    "only EXIF is turned": lambda: heif(RGB, exif=exif_block(1)).replace(exif_block(1), exif_block(6)),
    "thumbnails": lambda: heif(RGB, thumbnails=[64, 128]),
    **{f"turned {turn}": lambda turn=turn: heif(RGB, exif=exif_block(turn)) for turn in range(2, 9)},
}


@functools.cache
def file_of(name):
    """Return a file, which takes too long to draw for every worker to draw all when it collects tests."""
    return DRAWN[name]()


@pytest.mark.parametrize("name", DRAWN)
def test_pixels_and_hashes_are_those_of_pillow_heif(name):
    data = file_of(name)
    image, truth = decode_image(data, Options()), truth_of(data)
    np.testing.assert_array_equal(as_seen(image), truth)
    out = pl.DataFrame({"image": [data, png(truth)]}).imgmatch.visual_hash("image")
    assert out.select("bmh1", "phash", "width", "height").n_unique() == 1
    assert out["detail"].to_list() == [None, None]
    theirs = cv2.img_hash.pHash(truth[..., ::-1]).tobytes()
    assert out["phash"][0].to_bytes(8, "little") == theirs or out["phash"][0].to_bytes(8, "big") == theirs


def test_what_turns_an_image_turns_it_once():
    plain = as_seen(decode_image(heif(RGB, quality=-1, chroma=444), Options())).astype(int)
    for turn in range(2, 9):
        turned = as_seen(decode_image(heif(RGB, quality=-1, chroma=444, exif=exif_block(turn)), Options()))
        np.testing.assert_allclose(turned.astype(int), TURNS[turn](plain), atol=6)
    # The format says that EXIF has no say: pillow-heif has written both, and here it is EXIF alone.
    alone = heif(RGB, quality=-1, chroma=444, exif=exif_block(1)).replace(exif_block(1), exif_block(6))
    assert exif_block(6) in alone
    np.testing.assert_array_equal(as_seen(decode_image(alone, Options())), plain)


@pytest.mark.parametrize("mode", ["L", "L;16"])
def test_grey_is_grey(mode):
    grey = RGB[..., 0]
    image = decode_image(heif(deep(grey) if mode == "L;16" else grey, mode, quality=-1), Options())
    assert image.pixels.ndim == 2
    np.testing.assert_allclose(image.pixels.astype(int), grey, atol=4)


@pytest.mark.parametrize("alpha", ["white", "black"])
def test_transparency_is_shown_over_a_colour(alpha):
    data = file_of("alpha")
    truth = np.array(pillow_heif.open_heif(data).to_pillow())
    composite(truth, truth[..., 3].copy(), 255 if alpha == "white" else 0)
    np.testing.assert_array_equal(as_seen(decode_image(data, Options(alpha=alpha))), truth[..., :3])
    straight = heif(RGBA, "RGBa")
    assert isinstance(decode_image(straight, Options(alpha=alpha)), DecodedImage)


def test_the_primary_image_of_several_is_hashed():
    file = pillow_heif.from_bytes("RGB", SIZE, RGB.tobytes())
    other = draw(9, 90, 70)
    file.add_frombytes("RGB", (90, 70), other.tobytes())
    for primary, size in ((0, SIZE), (1, (90, 70))):
        stream = io.BytesIO()
        file.save(stream, primary_index=primary)
        data = stream.getvalue()
        image = decode_image(data, Options())
        assert (image.width, image.height) == size
        np.testing.assert_array_equal(as_seen(image), truth_of(data))


@pytest.mark.parametrize("brand", [b"mif1", b"heix", b"msf1", b"miaf", b"MiHE"])
def test_every_brand_is_read(brand):
    data = file_of("colour").replace(b"ftypheic", b"ftyp" + brand, 1)
    np.testing.assert_array_equal(as_seen(decode_image(data, Options())), truth_of(file_of("colour")))


def test_max_pixels_holds_before_a_pixel_is_decoded(monkeypatch):
    for name in ("grid", "turned 6", "10 bits"):
        assert "more than max_pixels=28,419" in detail_of(file_of(name), "too_many_pixels", Options(max_pixels=28_419))
        assert isinstance(decode_image(file_of(name), Options(max_pixels=28_420)), DecodedImage)
    monkeypatch.setattr(decode_costs, "MAX_DECODE_BYTES", 2_000_000)
    large = heif(np.zeros((1000, 1000, 3), np.uint8))
    assert "HEIC of 1000x1000 pixels takes 0.02 GB" in detail_of(large, "too_many_pixels", Options(max_pixels=1 << 20))


def test_a_frame_that_is_larger_than_its_container_says_is_refused():
    data = heif(np.zeros((1024, 1024, 3), np.uint8), tile_size=0)
    at = data.index(b"ispe") + 8
    small = data[:at] + struct.pack(">II", 64, 64) + data[at + 8 :]
    assert "HEIC" in detail_of(small, options=Options(max_pixels=10_000))


def test_large_images_take_from_the_budget(monkeypatch):
    taken = []
    monkeypatch.setattr(pixel_budget.PIXELS, "take", taken.append)
    decode_image(heif(np.zeros((1000, 1000, 3), np.uint8)), Options())
    assert taken == [18_000_000]


def test_files_that_are_cut_fail():
    for name in ("colour", "grid", "alpha"):
        data = file_of(name)
        for cut in (12, 24, 40, len(data) // 3, len(data) // 2, len(data) - 40):
            assert "HEIC" in detail_of(data[:cut])


def test_what_is_cut_behind_the_pixels_is_no_matter():
    whole = heif(RGB, exif=exif_block(1))
    assert whole.index(exif_block(1)) > len(whole) - 60
    np.testing.assert_array_equal(as_seen(decode_image(whole[:-8], Options())), truth_of(file_of("colour")))


def test_tiles_have_no_more_pixels_than_the_image_may():
    data = heif(np.zeros((2048, 2048, 3), np.uint8), tile_size=512)
    assert isinstance(decode_image(data, Options()), DecodedImage)
    at = data.index(b"dimg") + 6
    (n_tiles,) = struct.unpack_from(">H", data, at)
    assert n_tiles == 16
    tile = data.index(b"ispe", data.index(b"ispe") + 4) + 8
    assert struct.unpack_from(">II", data, tile) == (512, 512)
    large = data[:tile] + struct.pack(">II", 5120, 5120) + data[tile + 8 :]
    assert "tiles of 419,430,400 pixels for an image of 4,194,304" in detail_of(large)
    # A tile that is the grid itself.
    (primary,) = struct.unpack_from(">H", data, data.index(b"pitm") + 8)
    itself = data[: at + 2] + struct.pack(">H", primary) + data[at + 4 :]
    assert "HEIC" in detail_of(itself)


def test_mutated_files_are_rows():
    rng = random.Random(1)
    results = []
    for _ in range(150):
        data = bytearray(rng.choice(list(map(file_of, DRAWN))))
        for _ in range(rng.choice((1, 1, 2, 8))):
            data[rng.randrange(rng.choice((700, len(data))))] = rng.randrange(256)
        results.append(decode_image(bytes(data), Options(max_pixels=4_000_000)))
    failures = [result for result in results if isinstance(result, Failure)]
    assert {failure.status for failure in failures} <= {"decode_failed", "too_many_pixels"}
    assert 10 < len(failures) < 140
    assert all("\n" not in failure.detail and failure.detail.isprintable() for failure in failures)


def test_threads_and_processes_change_nothing():
    frame = pl.DataFrame({"image": list(map(file_of, DRAWN)) * 3})
    hashed = frame.imgmatch.visual_hash("image")
    alone = pl.concat([frame[[row]].imgmatch.visual_hash("image") for row in range(len(DRAWN))])
    assert hashed.equals(pl.concat([alone] * 3))
    assert hashed.equals(frame.imgmatch.visual_hash("image", isolate=True))
    results = [None] * 4

    def decode(number):
        results[number] = as_seen(decode_image(file_of("grid"), Options()))

    threads = [threading.Thread(target=decode, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, truth_of(file_of("grid")))


def test_scaled_decoding_is_the_same():
    image = decode_image(file_of("colour"), Options(decode="scaled"))
    np.testing.assert_array_equal(as_seen(image), truth_of(file_of("colour")))


def test_formats_names_it(without_extras):
    options = Options(formats=frozenset({"jpeg", "avif"}))
    assert detail_of(file_of("colour"), options=options) == "HEIC is not among formats=avif, jpeg"
    needed = "HEIC images need the extra heif: pip install 'imgmatch-df[heif]'"
    assert detail_of(file_of("colour"), options=Options(formats=frozenset({"heif"}))) == needed


def test_a_row_says_which_extra_to_install(without_extras):
    frame = pl.DataFrame({"image": [file_of("colour"), png(RGB)]}).imgmatch.visual_hash("image")
    assert frame["status"].to_list() == ["decode_failed", "ok"]
    assert frame["detail"][0] == "HEIC images need the extra heif: pip install 'imgmatch-df[heif]'"
    with pytest.raises(imgmatch_df.DecodeError, match="imgmatch-df\\[heif\\]"):
        pl.DataFrame({"image": [file_of("colour")]}).imgmatch.visual_hash("image", on_error="raise")


def test_an_edit_of_the_pixels_is_found(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(heif(RGB, exif=exif_block(6), quality=90))
    Image.fromarray(TURNS[6](RGB)).save(tmp_path / "IMG_1.jpg", quality=90)
    frame = imgmatch_df.scan_images(tmp_path).collect()
    assert frame.height == 2
    assert frame.imgmatch.remove_duplicates(radius=4, source="path").height == 1
