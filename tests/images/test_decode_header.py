"""The size of a JPEG from its segments, against the header that libjpeg reads."""

import io

import numpy as np
import pytest
from PIL import Image

from imgmatch_df.errors import Failure
from imgmatch_df.images.decode import _decode_jpeg
from imgmatch_df.images.jpeg import read_segments
from imgmatch_df.options import Options

OPTIONS = Options(max_pixels=100_000)


def encoded(mode, size=(33, 19), **options):
    rng = np.random.default_rng(7)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).convert(mode).save(
        stream, "JPEG", **options
    )
    return stream.getvalue()


def decoded(data, *, by_segments):
    segments = read_segments(data)
    image = _decode_jpeg(data, OPTIONS, segments.orientation, segments if by_segments else None)
    if image is None or isinstance(image, Failure):
        return image
    return image.pixels[..., :3].tobytes(), image.pixels.shape, image[1:]


def both(data):
    found = decoded(data, by_segments=True)
    assert found == decoded(data, by_segments=False)
    return found


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True, "quality": 30}], ids=str)
def test_every_byte_of_the_header_changed(mode, options):
    data = encoded(mode, **options)
    assert both(data) is not None
    rng = np.random.default_rng(1)
    end = read_segments(data).end + 12
    for at in range(2, end):
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        both(bytes(changed))
        both(data[:at])
        both(data[:at] + rng.bytes(3) + data[at:])


def test_two_frame_headers():
    small, large = encoded("RGB"), encoded("RGB", (200, 300))
    for first, second in ((small, large), (large, small), (small, encoded("L")), (encoded("L", (64, 64)), small)):
        start = second.index(b"\xff\xc0")
        length = int.from_bytes(second[start + 2 : start + 4])
        frame = second[start : start + 2 + length]
        for marker in (b"\xff\xc0", b"\xff\xc4", b"\xff\xda"):
            at = first.index(marker)
            both(first[:at] + frame + first[at:])


def test_a_size_that_is_not_in_the_frame_header():
    """The number of rows may follow the first scan; libjpeg does not read such files."""
    data = encoded("RGB")
    at = data.index(b"\xff\xc0") + 5
    assert both(data[:at] + b"\0\0" + data[at + 2 :]) is None


def test_too_many_pixels():
    failure = both(encoded("RGB", (400, 300)))
    assert (failure.status, "400x300" in failure.detail) == ("too_many_pixels", True)
