"""Pixels against OpenCV, and everything that is no picture."""

import io
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib

import cv2
import numpy as np
import pytest
from drawing import (
    FORMATS,
    NAMES,
    draw,
    every_file,
    exif_block,
    gif,
    jpeg,
    palette_bytes,
    png,
    pnm,
    save,
    segments,
    tiff,
)
from PIL import GifImagePlugin, Image, ImageFile

from imgmatch_df.errors import Failure
from imgmatch_df.images import bmp, decode, formats
from imgmatch_df.images import pixels as pixels_module
from imgmatch_df.images import pnm as pnm_module
from imgmatch_df.images.decode import decode_image
from imgmatch_df.images.guard import DecodedImage
from imgmatch_df.images.jpeg import read_segments
from imgmatch_df.images.orientation import exif_orientation
from imgmatch_df.options import Options

OPTIONS = Options()

# OpenCV does not read these (or not as a picture in 8 bits), so there is nothing to compare with.
ONLY_OURS = {
    *("TIFF/F", "TIFF/F big endian", "TIFF/F 0 to 1", "TIFF/F wide", "TIFF/I", "TIFF/I big endian", "TIFF/I negative"),
    *("TIFF/I;32 unsigned", "TIFF/L 2 bits", "TIFF/L 4 bits", "TIFF/L tiled", "TIFF/CMYK 16 bits"),
    *("TIFF/RGB zstd", "TIFF/RGB lzma", "TIFF/RGB float"),
}
# Where the pixels differ, and why.
DIFFERENT = {
    **{f"AVIF/orientation {value}": "OpenCV ignores the orientation of AVIF" for value in range(2, 9)},
}
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


@pytest.fixture(autouse=True)
def _quiet_opencv():
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def by_opencv(data):
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return None if pixels is None else pixels[..., ::-1]


def as_seen(picture):
    """The picture as RGB, its orientation applied; its promises are checked on the way."""
    assert isinstance(picture, DecodedImage), picture
    pixels = picture.pixels
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable  # read-only arrays would make numba compile every kernel twice
    assert pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 4)
    rgb = np.stack([pixels] * 3, axis=-1) if pixels.ndim == 2 else pixels[..., :3]
    rgb = TURNS[picture.orientation](rgb).copy()
    assert rgb.shape[:2] == (picture.height, picture.width)
    return rgb


def detail_of(data, status="decode_failed", options=OPTIONS):
    failure = decode_image(data, options)
    assert isinstance(failure, Failure), failure
    assert failure.status == status
    assert "\n" not in failure.detail
    return failure.detail


class TestPixels:
    @pytest.mark.parametrize("size", [(67, 45), (1, 1), (2, 3), (31, 33), (300, 1), (1, 700)], ids=str)
    @pytest.mark.parametrize("kind", FORMATS)
    def test_equal_opencv(self, kind, size):
        for name, data in every_file(sum(size), *size, kind=f"{kind}/"):
            ours, truth = as_seen(decode_image(data, OPTIONS)), by_opencv(data)
            if truth is None:
                assert name in ONLY_OURS or size != (67, 45), name
            elif name not in DIFFERENT:
                np.testing.assert_array_equal(ours, truth, err_msg=name)

    @pytest.mark.slow
    @pytest.mark.parametrize("size", [(255, 257), (256, 256), (1, 5000), (521, 383)], ids=str)
    @pytest.mark.parametrize("kind", FORMATS)
    def test_equal_opencv_larger(self, kind, size):
        self.test_equal_opencv(kind, size)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("kind", "width", "height"),
        [
            ("JPEG/RGB 4:2:0", 6000, 4000),
            ("PNG/RGB interlaced", 6000, 4000),
            ("TIFF/RGB tiled", 6000, 4000),
            ("WEBP/RGB lossy", 6000, 4000),
        ],
    )
    def test_equal_opencv_as_large_as_cameras_make_them(self, kind, width, height):
        data = next(data for _, data in every_file(1, width, height, kind=kind))
        np.testing.assert_array_equal(as_seen(decode_image(data, OPTIONS)), by_opencv(data))

    @pytest.mark.parametrize("name", sorted(DIFFERENT))
    def test_the_list_of_differences_is_not_out_of_date(self, name):
        for found, data in every_file(1, kind=name):
            if found == name:
                ours, truth = as_seen(decode_image(data, OPTIONS)), by_opencv(data)
                assert ours.shape != truth.shape or (ours != truth).any()

    @pytest.mark.parametrize("subsampling", [0, 1, 2, "4:1:1"])
    @pytest.mark.parametrize("progressive", [False, True])
    def test_jpegs_of_all_odd_sizes(self, subsampling, progressive):
        for width in range(1, 40, 3):
            data = jpeg(draw(width, width, 41 - width), subsampling=subsampling, progressive=progressive, quality=60)
            np.testing.assert_array_equal(as_seen(decode_image(data, OPTIONS)), by_opencv(data))

    def test_several_blocks_of_memory(self):
        # Pillow keeps more than 16 MiB in several blocks, which Arrow cannot show in one piece.
        for shape, format_ in (((4200, 4100), "BMP"), ((2200, 2100, 3), "BMP"), ((2200, 2100, 4), "TIFF")):
            pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
            seen = as_seen(decode_image(save(Image.fromarray(pixels), format_), OPTIONS))
            if format_ == "BMP":
                np.testing.assert_array_equal(seen.T[0].T if pixels.ndim == 2 else seen, pixels)
            else:
                np.testing.assert_array_equal(seen, np.rint(pixels[..., :3] * (pixels[..., 3:] / 255)))

    def test_integers_and_floats_are_stretched_from_least_to_largest(self):
        values = np.array([[-5.0, 0.0, 5.0], [np.nan, 2.5, np.inf]], np.float32)
        grey = decode_image(tiff(values), OPTIONS).pixels
        np.testing.assert_array_equal(grey, [[0, 128, 255], [128, 191, 128]])
        flat = decode_image(tiff(np.full((3, 3), 70_000, np.int32)), OPTIONS).pixels
        assert not flat.any()

    def test_a_deep_grey_of_any_largest_value(self):
        values = np.arange(12, dtype=np.uint16).reshape(3, 4) * 90
        for largest in (1000, 1023, 4095):
            data = pnm(values, 5, largest)
            np.testing.assert_array_equal(as_seen(decode_image(data, OPTIONS)), by_opencv(data))

    @pytest.mark.parametrize("strategy", list(GifImagePlugin.LoadingStrategy))
    def test_gif_under_any_loading_strategy_of_the_user(self, strategy, monkeypatch):
        monkeypatch.setattr(GifImagePlugin, "LOADING_STRATEGY", strategy)
        data = gif([(draw(1, 40, 30, 1) // 2, 0, 0)], (40, 30), palette_bytes(1, 128))
        np.testing.assert_array_equal(as_seen(decode_image(data, OPTIONS)), by_opencv(data))


class TestOrientation:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
    @pytest.mark.parametrize("value", range(1, 9))
    def test_is_honoured_in_every_format_that_carries_it(self, kind, value):
        files = dict(every_file(0, 48, 32, kind=f"{kind}/orientation"))
        numbers = {name: NAMES.index(name) for name in files}
        name = f"{kind}/orientation {value}"
        # The same drawing, turned by hand.
        upright = Image.fromarray(draw(numbers[name], 48, 32))
        expected = TURNS[value](np.asarray(upright))
        seen = as_seen(decode_image(files[name], OPTIONS)).astype(int)
        assert seen.shape == expected.shape
        assert np.abs(seen - expected).mean() < 12  # lossy, but not turned wrong

    def jpeg_with(self, *bodies, at=2):
        plain = jpeg(draw(3, 24, 10))
        parts = [b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in bodies]
        return plain[:at] + b"".join(parts) + plain[at:]

    def orientation(self, data):
        assert by_opencv(data).shape == as_seen(decode_image(data, OPTIONS)).shape
        return decode_image(data, OPTIONS).orientation

    def test_values_out_of_range_are_1(self):
        for value in (0, 9, 255, 65535):
            assert self.orientation(self.jpeg_with(b"Exif\0\0" + exif_block(value))) == 1

    def test_any_type_is_read_as_a_short_as_opencv_does(self):
        for kind in (1, 2, 3, 4, 7):
            assert self.orientation(self.jpeg_with(b"Exif\0\0" + exif_block(6, kind=kind))) == 6
        assert self.orientation(self.jpeg_with(b"Exif\0\0" + exif_block(6, ">", kind=4))) == 1

    def test_the_first_exif_segment_with_an_orientation_counts(self):
        three, six = b"Exif\0\0" + exif_block(3), b"Exif\0\0" + exif_block(6)
        xmp = b"http://ns.adobe.com/xap/1.0/\0<x/>"
        empty = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"
        assert self.orientation(self.jpeg_with(three, six)) == 3
        assert self.orientation(self.jpeg_with(xmp, six)) == 6
        assert self.orientation(self.jpeg_with(empty, six)) == 6
        assert self.orientation(self.jpeg_with(b"Exif\0\0II", six)) == 6
        assert self.orientation(self.jpeg_with(b"", six)) == 6
        assert self.orientation(self.jpeg_with(b"exif\0\0" + exif_block(6))) == 1

    def test_wherever_it_stands_before_the_scan(self):
        plain = jpeg(draw(3, 24, 10))
        for _, at in segments(plain):
            assert self.orientation(self.jpeg_with(b"Exif\0\0" + exif_block(8), at=at)) == 8
        padded = plain[:2] + b"\xff\xff" + self.jpeg_with(b"Exif\0\0" + exif_block(8))[2:]
        assert self.orientation(padded) == 8

    def test_every_cut_and_every_wrong_byte_of_an_exif_block_is_survived(self):
        block = exif_block(6)
        for at in range(len(block)):
            assert exif_orientation(block[:at]) in (None, 6)
            for value in (0, 1, 255):
                assert exif_orientation(block[:at] + bytes([value]) + block[at + 1 :]) in (None, 1, 6)


class TestFastPath:
    def test_a_plain_jpeg_never_sees_pillow(self, monkeypatch):
        monkeypatch.setattr(formats, "decode_with_pillow", None)
        for pixels in (draw(1), draw(1, channels=1)):
            assert as_seen(decode_image(jpeg(pixels, 5), OPTIONS)).size

    @pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("JPEG/", "MPO/"))])
    def test_equals_pillow(self, name):
        data = next(data for found, data in every_file(5, 70, 51, kind=name) if found == name)
        fast = decode._decode_jpeg(data, OPTIONS, read_segments(data).orientation)
        assert (fast is None) == (name == "JPEG/CMYK 4:2:0")  # libjpeg-turbo has no name for this sampling
        if fast is not None:
            seen = as_seen(fast)
            np.testing.assert_array_equal(seen, as_seen(formats.decode_with_pillow(data, formats.JPEG, OPTIONS)))

    def test_garbage_after_the_end_is_no_matter(self):
        data = jpeg(draw(1))
        np.testing.assert_array_equal(as_seen(decode_image(data + b"garbage", OPTIONS)), by_opencv(data))

    def test_the_same_from_bytes_and_memoryview(self):
        for _, data in every_file(1):
            first = decode_image(data, OPTIONS)
            first = first._replace(pixels=first.pixels.copy()) if isinstance(first, DecodedImage) else first
            second = decode_image(memoryview(b"x" + data)[1:], OPTIONS)
            assert first[1:] == second[1:]
            if isinstance(first, DecodedImage):
                np.testing.assert_array_equal(first.pixels[..., :3], second.pixels[..., :3])

    def test_a_thread_keeps_one_bounded_buffer(self, monkeypatch):
        first, second = jpeg(draw(1)), jpeg(draw(2))
        one = decode_image(first, OPTIONS).pixels
        assert np.shares_memory(one, decode_image(second, OPTIONS).pixels)
        monkeypatch.setattr(pixels_module, "MAX_KEPT_BYTES", 100)
        assert not np.shares_memory(one, decode_image(first, OPTIONS).pixels)

    def test_threads_do_not_share_buffers(self):
        files = [jpeg(draw(seed, 90, 80)) for seed in range(8)]
        truths = [by_opencv(data) for data in files]
        wrong = []

        def work(start):
            for step in range(60):
                number = (start + step) % len(files)
                pixels = decode_image(files[number], OPTIONS).pixels
                time.sleep(0)
                if not np.array_equal(pixels[..., :3], truths[number]):
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


class TestScaled:
    OPTIONS = Options(decode="scaled")

    @pytest.mark.parametrize("size", [(300, 200), (256, 256), (511, 700), (512, 512), (2100, 1500), (1, 3000)], ids=str)
    def test_shrinks_to_no_less_than_256_and_reports_the_whole(self, size):
        picture = decode_image(jpeg(draw(1, *size), 6), self.OPTIONS)
        assert (picture.height, picture.width) == size
        rows, columns = picture.pixels.shape
        assert picture.pixels.flags.c_contiguous
        for stored, whole in ((columns, size[0]), (rows, size[1])):
            assert stored >= min(256, whole)
        if min(size) >= 1024:
            assert rows * columns * 4 <= size[0] * size[1]

    def test_grey_is_that_of_the_file(self):
        pixels = draw(1, 300, 200)
        scaled = decode_image(jpeg(pixels, quality=100), self.OPTIONS).pixels
        grey = np.asarray(Image.fromarray(pixels).convert("L")).astype(int)
        assert np.abs(scaled - grey).max() <= 3

    def test_other_formats_are_read_in_full(self):
        for kind in ("PNG/RGB", "WEBP/RGB lossy", "JPEG/CMYK"):
            data = next(data for name, data in every_file(1, 600, 520, kind=kind) if name == kind)
            np.testing.assert_array_equal(as_seen(decode_image(data, self.OPTIONS)), by_opencv(data))

    def test_a_broken_jpeg_stays_broken(self):
        assert decode_image(jpeg(draw(1, 600, 520))[:5000], self.OPTIONS).status == "decode_failed"


class TestMaxPixels:
    @pytest.mark.parametrize("kind", FORMATS)
    def test_is_inclusive_in_every_format(self, kind, monkeypatch):
        for name, data in every_file(1, 30, 20, kind=f"{kind}/"):
            tile = 32 * 32 if "tiled" in name else 600
            assert isinstance(decode_image(data, Options(max_pixels=max(600, tile))), DecodedImage), name
            with monkeypatch.context() as patch:
                patch.setattr(formats, "stored", None)  # no pixel is decoded
                patch.setattr(formats, "_load", None)
                patch.setattr(bmp, "read_pixels", None)
                patch.setattr(pnm_module, "read_pixels", None)
                patch.setattr(ImageFile.ImageFile, "load", None)
                patch.setattr(decode.simplejpeg, "decode_jpeg", None)
                detail = detail_of(data, "too_many_pixels", Options(max_pixels=599))
            assert "max_pixels=599; raise max_pixels" in detail

    def test_the_detail_counts(self):
        assert detail_of(png(draw(1, 100, 100)), "too_many_pixels", Options(max_pixels=9999)) == (
            "100x100 = 10,000 pixels, more than max_pixels=9,999; raise max_pixels to allow it"
        )

    def bomb(self, kind, width, height):
        """A file of a few bytes that claims width x height."""
        small = {
            "PNG": png(np.zeros((1, 1), np.uint8)),
            "GIF": gif([(np.zeros((1, 1), np.uint8), 0, 0)], (1, 1), palette_bytes(1, 128)),
            "JPEG": jpeg(draw(1, 8, 8)),
            "JPEG progressive": jpeg(draw(1, 8, 8), progressive=True),
            "BMP": save(Image.new("RGB", (1, 1)), "BMP"),
            "PPM": f"P6 {width} {height} 255\n".encode(),
            "WEBP": save(
                Image.new("RGBA", (2, 2)), "WEBP", save_all=True, append_images=[Image.new("RGBA", (2, 2), "red")]
            ),
        }
        data = bytearray(small[kind])
        if kind == "PNG":
            data[16:24] = struct.pack(">II", width, height)
            data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        elif kind == "GIF":
            data[6:10] = struct.pack("<HH", width, height)
        elif kind.startswith("JPEG"):
            at = next(at for marker, at in segments(data) if marker in (0xC0, 0xC2))
            data[at + 5 : at + 9] = struct.pack(">HH", height, width)
        elif kind == "BMP":
            data[18:26] = struct.pack("<ii", width, height)
        elif kind == "WEBP":
            assert data[12:16] == b"VP8X"
            data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        return bytes(data)

    @pytest.mark.parametrize("kind", ["PNG", "GIF", "JPEG", "JPEG progressive", "BMP", "PPM", "WEBP"])
    @pytest.mark.parametrize("side", [14_300, 16_000])  # above Pillow's error
    def test_bombs_are_refused_from_the_header(self, kind, side):
        started = time.process_time()
        detail_of(self.bomb(kind, side, side), "too_many_pixels")
        assert time.process_time() - started < 1

    def test_a_tiff_of_few_pixels_and_a_vast_tile(self):
        tags = [(322, 4, [40_000]), (323, 4, [40_000]), (324, 4, [8]), (325, 4, [100])]
        data = tiff(draw(1, 10, 10), photometric=2, deflate=True)
        assert isinstance(decode_image(data, OPTIONS), DecodedImage)
        assert "40000x40000" in detail_of(tiff(draw(1, 10, 10), photometric=2, tags=tags), "too_many_pixels")

    def test_the_limit_of_the_users_pillow_does_not_matter(self, monkeypatch):
        data = [png(draw(1, 50, 50)), jpeg(draw(1, 50, 50, 4), mode="CMYK"), tiff(draw(1, 50, 50), photometric=2)]
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)  # 2,500 pixels: a warning, which is an error here
        for one in data:
            assert isinstance(decode_image(one, OPTIONS), DecodedImage)
        assert Image.MAX_IMAGE_PIXELS == 2000


class TestNoPicture:
    @pytest.mark.parametrize(
        ("data", "word"),
        [
            (b"<!DOCTYPE html><p>404", "unsupported format: a web page or XML"),
            (b'<?xml version="1.0"?><svg/>', "SVG"),
            (b'<?xml version="1.0"?><Error/>', "a web page or XML"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported format: SVG"),
            (b"%PDF-1.7", "PDF"),
            (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
            (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
            (b"8BPS\0\1", "Photoshop"),
            (b"\0\0\1\0\1\0", "an icon"),
            (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
            (b'{"error": "not found"}', "JSON"),
            (b"PK\3\4", "an archive"),
            (b"hello world", "not an image: text"),
            (b"\0" * 100, "not an image: unknown data"),
            (b"\xff\xd8", "not an image"),
            (b"x", "not an image: text"),
            (bytes(2) + b"\2" + bytes(9) + b"\1\0\1\0\x18\0\0\0\0", "not an image"),  # a TGA has no signature
        ],
    )
    def test_what_it_is_instead_is_said(self, data, word):
        assert word in detail_of(data)

    @pytest.mark.parametrize("kind", FORMATS)
    def test_truncated_files_fail_at_every_cut_and_say_so(self, kind):
        for name, data in every_file(1, 60, 50, kind=f"{kind}/"):
            cuts = [40, len(data) // 4, len(data) // 2, len(data) * 3 // 4, len(data) - 40]
            if kind == "MPO" or "animated" in name or "pages" in name or "frame" in name:
                cuts = cuts[:2]  # the first picture may be whole
            elif kind == "JPEG2000":
                cuts = cuts[:1]  # made to be cut: what is there is a coarser picture, to OpenCV too
            for cut in cuts:
                failure = decode_image(data[:cut], OPTIONS)
                assert isinstance(failure, Failure), (name, cut)
                assert failure.status == "decode_failed"
                assert failure.detail.split(" ")[0] in ("truncated", "broken"), failure

    @pytest.mark.parametrize(
        "kind", ["JPEG/RGB", "PNG/RGB", "BMP/24", "BMP/8", "PNM/P2", "PNM/P6", "TIFF/RGB big", "TIFF/I"]
    )
    def test_a_file_cut_in_half_is_said_to_be_truncated(self, kind):
        for name, data in every_file(1, 60, 50, kind=kind):
            assert detail_of(data[: len(data) // 2]).startswith("truncated"), name

    def test_a_truncated_jpeg(self):
        assert detail_of(jpeg(draw(1, 200, 200))[:-300]).startswith("truncated JPEG: image file is truncated")

    def test_a_mislabelled_file_is_what_its_bytes_are(self):
        # Names play no part: a PNG called .jpg is a PNG.
        assert isinstance(decode_image(png(draw(1)), OPTIONS), DecodedImage)

    def test_a_png_with_a_wrong_checksum(self):
        data = bytearray(png(draw(1)))
        data[30] ^= 1
        assert "checksum" in detail_of(bytes(data))

    def test_programs_are_never_started(self, monkeypatch):
        monkeypatch.setattr(subprocess, "Popen", None)
        detail_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")

    def test_a_frame_is_read_without_counting_the_others(self):
        # Ten thousand frames, the second of which is garbage: only the first is looked at.
        frames = [(draw(1, 8, 8, 1) // 2, 0, 0)]
        data = gif(frames, (8, 8), palette_bytes(1, 128))[:-1] + b"\x2c garbage" * 10_000
        started = time.process_time()
        assert isinstance(decode_image(data, OPTIONS), DecodedImage)
        assert time.process_time() - started < 0.5


class TestWarnings:
    NOISY = png(draw(1), chunks=[(b"acTL", bytes(8))])  # an animation of no frames: Pillow complains

    def test_pillow_does_warn_about_this_file(self):
        with pytest.warns(UserWarning, match="Invalid APNG"), Image.open(io.BytesIO(self.NOISY)) as image:
            image.load()

    @pytest.mark.parametrize("action", ["error", "always", "default"])
    def test_no_warning_leaks_whatever_the_users_filters(self, action):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter(action)
            assert isinstance(decode_image(self.NOISY, OPTIONS), DecodedImage)
        assert not seen

    def test_the_users_own_warnings_are_heard_meanwhile(self, monkeypatch):
        inside, outside = threading.Event(), threading.Event()
        real = formats._decode_png

        def slow(data, options):
            inside.set()
            outside.wait(10)
            return real(data, options)

        monkeypatch.setattr(decode, "READERS", (("PNG", lambda head: head.startswith(b"\x89PNG"), slow),))
        thread = threading.Thread(target=decode_image, args=(self.NOISY, OPTIONS))
        thread.start()
        assert inside.wait(10)
        with pytest.warns(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)
        outside.set()
        thread.join()
        with pytest.warns(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)

    def test_importing_changes_nothing_of_pillow(self):
        code = (
            "import warnings, numpy, pyarrow\n"
            "from PIL import Image\n"
            "before = list(warnings.filters), Image.MAX_IMAGE_PIXELS\n"
            "import imgmatch_df.images.decode\n"
            "assert (warnings.filters, Image.MAX_IMAGE_PIXELS) == before"
        )
        subprocess.run([sys.executable, "-c", code], check=True)


class TestCut:
    @pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in ("TIFF", "MPO", "JPEG2000")])
    def test_a_cut_file_fails_or_has_all_its_pixels(self, kind):
        for name, data in every_file(1, 60, 50, kind=f"{kind}/"):
            whole = as_seen(decode_image(data, OPTIONS))
            for cut in (1, 2, 4, 8, 12, 13, 16, 20, 21, 24, 40, len(data) // 4, len(data) // 2, len(data) * 3 // 4):
                result = decode_image(data[:-cut], OPTIONS)
                if isinstance(result, DecodedImage):
                    np.testing.assert_array_equal(as_seen(result), whole, err_msg=f"{name} {cut}")
                    assert cut <= 24 or "animated" in name or "frame" in name, (name, cut)

    def test_opencv_reads_none_that_fails_here(self):
        for name, data in every_file(1, 60, 50):
            if not name.startswith("TIFF"):
                for cut in (1, 13, 20, 40, len(data) // 4, len(data) // 2):
                    if by_opencv(data[:-cut]) is not None:
                        assert isinstance(decode_image(data[:-cut], OPTIONS), DecodedImage), (name, cut)


BOMBS = """
import resource, struct, sys, zlib
sys.path[:0] = {paths!r}
from encoders import gif, png
from drawing import draw, jpeg, palette_bytes, save
from PIL import Image
from imgmatch_df.images.decode import decode_image
from imgmatch_df.images.guard import DecodedImage
from imgmatch_df.options import Options

def used():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

packer = zlib.compressobj(9)
bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(600)) + packer.flush()
rgb = draw(1, 60, 50)
files = [png(rgb, chunks=[(name, head + bomb)]) for name, head in
         ((b"zTXt", b"a\\0\\0"), (b"iTXt", b"a\\0\\1\\0\\0\\0"), (b"iCCP", b"a\\0\\0"))]
files += [png(rgb, chunks=[(b"tEXt", b"a\\0b")] * 100_000)]
files += [png(rgb, chunks=[(b"eXIf", b"MM\\0*\\0\\0\\0\\x08\\xff\\xff" + bytes(1 << 20))])]
files += [png(rgb, chunks=[(b"zTXt", b"a\\0\\0" + zlib.compress(bytes(60 << 20)))] * 30)]
tail = bytes(20 << 20)
image = Image.fromarray(rgb)
files += [jpeg(rgb) + tail, save(image, "WEBP") + tail, save(image, "AVIF", speed=10) + tail, save(image, "BMP") + tail,
          gif([(rgb[..., 0] // 2, 0, 0)], (60, 50), palette_bytes(1, 128)) + tail, save(image, "JPEG2000") + tail,
          png(rgb) + tail, png(rgb, chunks=[(b"prVt", tail)])]
decode_image(png(rgb), Options())
limit = used() + (160 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for number, file in enumerate(files):
    result = decode_image(file, Options())
    assert isinstance(result, DecodedImage), (number, result)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_not_pixels_costs_no_memory():
    code = BOMBS.format(paths=[p for p in sys.path if p.endswith("support")])
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
