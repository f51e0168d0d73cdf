"""What decoding an image takes, told from its headers, and images that would take too much."""

import contextlib

import pytest
from PIL import Image
from test_decode_bounds import save
from test_decode_budget import codestream
from tiff_writer import Spec, file_of, tags_of

from imgmatch_df.errors import Failure
from imgmatch_df.images import decode_costs, guard, pixel_budget, tiff
from imgmatch_df.images.decode import decode_image
from imgmatch_df.images.guard import DecodedImage
from imgmatch_df.options import MAX_PIXELS, Options
from imgmatch_df.server.settings import Settings


def jpeg(mode="RGB", **options):
    return save(Image.new(mode, (64, 48)), "JPEG", **options)


def test_jpegs_of_several_scans_take_more():
    baseline = decode_costs.n_bytes("JPEG", jpeg(), 10, 10)
    for mode in ("L", "RGB", "CMYK"):
        assert decode_costs.n_bytes("JPEG", jpeg(mode), 10, 10) == baseline
        progressive = jpeg(mode, progressive=True)
        assert decode_costs.n_bytes("JPEG", progressive, 10, 10) > 2 * baseline
    # One scan for each component.
    data = bytearray(jpeg("L"))
    data[data.index(b"\xff\xc0") + 9] = 3
    assert decode_costs.n_bytes("JPEG", bytes(data), 10, 10) > 2 * baseline


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", jpeg()[:20], b"\xff\xd8" + b"\xff\xfe\0\2" * 5000])
def test_what_is_no_whole_jpeg_takes_as_much(data):
    assert decode_costs.n_bytes("JPEG", data, 10, 10) == decode_costs.n_bytes("JPEG", jpeg(progressive=True), 10, 10)


def test_tiles_of_jpeg_2000_take_less():
    whole, tiled = (codestream(8000, 8000, tile=tile) for tile in (None, (1000, 1000)))
    n_whole, n_tiled = (decode_costs.n_bytes("JPEG2000", data, 8000, 8000) for data in (whole, tiled))
    assert n_tiled < n_whole * 0.6


def test_more_pixels_may_take_more():
    assert decode_costs.max_bytes(1) == decode_costs.max_bytes(MAX_PIXELS) == 2_000_000_000
    assert decode_costs.max_bytes(2 * MAX_PIXELS) == 4_000_000_000


@pytest.mark.parametrize("n_components", [1, 3, 4])
def test_a_jpeg_2000_of_more_than_2_gb_is_refused_before_it_is_decoded(n_components, monkeypatch):
    monkeypatch.setattr(pixel_budget.PIXELS, "take", lambda _: pytest.fail("it is decoded"))
    data = codestream(11_400, 11_400, n_components=n_components, block=(6, 6))
    if n_components == 1:
        with pytest.raises(pytest.fail.Exception):
            decode_image(data, Options())
        return
    failure = decode_image(data, Options())
    assert isinstance(failure, Failure)
    assert failure.status == "too_many_pixels"
    assert "JPEG2000 of 11400x11400 pixels takes " in failure.detail
    assert "GB of max_pixels=201,326,592; raise max_pixels to allow it" in failure.detail
    with pytest.raises(pytest.fail.Exception):
        decode_image(data, Options(max_pixels=3 * MAX_PIXELS))


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_every_format_is_held_to_it(format_, monkeypatch):
    data = save(Image.new("RGB", (1100, 1000)), format_)
    assert isinstance(decode_image(data, Options()), DecodedImage)
    monkeypatch.setattr(decode_costs, "MAX_DECODE_BYTES", 1_100_000)
    failure = decode_image(data, Options())
    assert failure.status == "too_many_pixels"
    assert "of 1100x1000 pixels takes 0.0" in failure.detail


def test_a_tiff_takes_what_its_strips_take():
    def n_bytes(**more):
        found = []
        spec = Spec(2, 8, 3, **more)
        data = file_of(spec, [bytes(8)] * -(-5000 // spec.rows), tags_of(spec, 5000, 5000))
        with contextlib.suppress(ZeroDivisionError):
            tiff.decode(data, MAX_PIXELS, lambda _: 1 // 0, admit=lambda *size: found.append(size))
        ((width, height, n_bytes),) = found
        assert (width, height) == (5000, 5000)
        return n_bytes / 25_000_000

    assert n_bytes(rows=10, compression=8) < 5
    assert n_bytes(rows=5000, compression=8) < 6
    assert n_bytes(rows=5000, compression=7) > 10


@pytest.mark.parametrize("size", [(12_000, 9000), (12_032, 9024)])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "AVIF", "HEIC"])
def test_108_megapixels_are_admitted_by_default_and_not_by_the_service(name, size, monkeypatch):
    taken = []
    monkeypatch.setattr(pixel_budget.PIXELS, "take", taken.append)
    progressive = jpeg(progressive=True)
    assert guard.admit(name, progressive, *size, Options()) is None
    assert taken
    assert taken[0] <= pixel_budget.MAX_PIXEL_BYTES
    refused = guard.admit(name, progressive, *size, Settings().options)
    assert refused.status == "too_many_pixels"
    assert "more than max_pixels=89,478,485" in refused.detail


def test_the_largest_photo_of_a_phone_is_admitted_as_a_jpeg(monkeypatch):
    taken = []
    monkeypatch.setattr(pixel_budget.PIXELS, "take", taken.append)
    assert guard.admit("JPEG", jpeg(), 16_384, 12_288, Options()) is None
    assert taken == [5 * 16_384 * 12_288]
    refused = guard.admit("JPEG", jpeg(progressive=True), 16_384, 12_288, Options())
    assert "JPEG of 16384x12288 pixels takes 2.62 GB to decode, more than the 2.00 GB" in refused.detail
