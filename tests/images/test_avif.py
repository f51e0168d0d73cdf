"""AVIF is judged by the AV1 frames in it, whatever its container says."""

import io
import struct
import time

import numpy as np
import pytest
from PIL import Image

from imgmatch_df.images import avif
from imgmatch_df.images.decode import decode_image
from imgmatch_df.images.guard import DecodedImage
from imgmatch_df.options import Options

pytestmark = pytest.mark.long


def encode(size=(64, 48), mode="RGB", **options):
    stream = io.BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(stream, "AVIF", **{"speed": 10} | options)
    return stream.getvalue()


def saying(data, width, height):
    """Return an AVIF whose container says another size."""
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


def box(name, body=b""):
    return struct.pack(">I4s", len(body) + 8, name) + body


def in_meta(data, more):
    """Return an AVIF with more boxes in its box `meta`, before its pixels, whose places are corrected."""
    at = data.index(b"meta") - 4
    end = at + int.from_bytes(data[at : at + 4], "big")
    return data[:at] + box(b"meta", moved(data[at + 8 : end], len(more)) + more) + data[end:]


def moved(meta, n_bytes):
    """Return the box `meta` of an image without alpha whose pixels begin some bytes later."""
    at = meta.index(b"iloc") + 4
    assert meta[at : at + 8] == bytes([0, 0, 0, 0, 0x44, 0, 0, 1])  # one item; offset and length of 4 bytes
    (offset,) = struct.unpack_from(">I", meta, at + 14)
    return meta[: at + 14] + struct.pack(">I", offset + n_bytes) + meta[at + 18 :]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("size", [(1, 1), (64, 48), (700, 300), (1025, 17)])
@pytest.mark.parametrize("options", [{}, {"subsampling": "4:4:4"}, {"quality": 100}, {"codec": "auto"}], ids=str)
def test_frames_have_the_size_of_the_image(mode, size, options):
    assert avif.largest_frame(encode(size, mode, **options)) == size
    assert avif.largest_frame(memoryview(encode(size, mode, **options))) == size


def test_a_sequence_is_judged_by_its_first_frame():
    images = [Image.effect_noise((64, 48), n).convert("RGB") for n in (20, 40, 60)]
    for mode in ("RGB", "RGBA"):
        stream = io.BytesIO()
        first, *others = (image.convert(mode) for image in images)
        first.save(stream, "AVIF", save_all=True, append_images=others, speed=10)
        assert avif.largest_frame(stream.getvalue()) == (64, 48)
        assert isinstance(decode_image(stream.getvalue(), Options()), DecodedImage)


def test_max_pixels_holds_for_what_is_decoded():
    data = saying(encode((1200, 900), "L"), 64, 64)
    small = decode_image(data, Options(max_pixels=1_000_000))
    assert small.status == "too_many_pixels"
    assert small.detail.startswith("1200x900 = 1,080,000 pixels")
    assert isinstance(decode_image(data, Options(max_pixels=1_080_000)), DecodedImage)


def test_a_frame_that_may_have_a_size_of_its_own_counts_as_the_largest_possible():
    """Sequence headers of still images say so in their third bit from the fourth on; here each frame may differ."""
    sequence = bits(
        (0, 3), (0, 1), (0, 1), (0, 1), (0, 1), (0, 5), (0, 12), (0, 5),  # profile, still, reduced, …, operating point
        (15, 4), (12, 4), (63, 16), (47, 13),  # bits of the width and the height; the largest ones
        (0, 1), (0, 3), (0, 1), (0, 1), (0, 1), (0, 1), (0, 1), (1, 1), (1, 1),  # no numbers, tools, screen content
    )  # fmt: skip
    for has_own, expected in ((0, (64, 48)), (1, (1 << 16, 1 << 13))):
        frame = bits((0, 1), (0, 2), (1, 1), (0, 1), (0, 1), (has_own, 1), (0, 8))
        assert avif.largest_frame(container(obu(1, sequence) + obu(6, frame))) == expected


def bits(*values):
    text = "".join(f"{value:0{n_bits}b}" for value, n_bits in values)
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")


def obu(kind, body):
    return bytes([kind << 3 | 2, len(body)]) + body


def container(stream):
    """Return an AVIF of one item."""
    plain = encode()
    at = plain.index(b"iloc") + 4
    head = plain[: plain.index(b"mdat") + 4]
    return head[: at + 14] + struct.pack(">II", len(head), len(stream)) + head[at + 22 :] + stream


def test_hidden_frames_are_counted():
    data = encode((64, 48), "L")
    at = data.index(b"mdat") + 4
    stream = data[at:]
    assert avif.largest_frame(container(stream)) == (64, 48)
    with pytest.raises(ValueError, match="more than 8 frames"):
        avif.largest_frame(container(stream * 9))


def test_frames_of_far_more_pixels_than_the_image_are_refused():
    data = encode((3000, 2500), "L")
    at = data.index(b"mdat") + 4
    assert avif.largest_frame(data) == (3000, 2500)
    with pytest.raises(ValueError, match=r"frames of 45,000,000 pixels for an image of 3,072"):
        avif.largest_frame(saying(container(data[at:] * 6), 64, 48))


def references(n_items):
    items = np.arange(1000, 1000 + n_items, dtype=">u4").tobytes()
    parts = [struct.pack(">IH", n + 9, 5000) + items[20_000 * n : 20_000 * (n + 1)] for n in range(n_items // 5000)]
    return box(b"iref", b"\1\0\0\0" + b"".join(box(b"dimg", part) for part in parts))


BOMBS = {
    "references to items": references(250_000),  # a minute in libavif, which holds the interpreter's lock
    "boxes": box(b"free") * 50_000,
    "properties": box(b"iprp", box(b"ipco", box(b"free") * 50_000)),
    "groups": box(b"grpl", bytes(100_000)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_of_boxes_are_refused_at_once(name):
    started = time.thread_time()
    result = decode_image(in_meta(encode(), BOMBS[name]), Options())
    assert result.status == "decode_failed"
    assert result.detail.startswith(("broken AVIF: more than 10,000 boxes", "broken AVIF: a box ", "broken AVIF: two"))
    assert time.thread_time() - started < 3


def test_a_few_more_boxes_are_no_matter():
    plain = encode()
    data = in_meta(plain, box(b"free") * 50)
    assert decode_image(data, Options())[1:] == decode_image(plain, Options())[1:]
    assert isinstance(decode_image(plain + box(b"free") * 50, Options()), DecodedImage)


def test_a_second_description_of_the_items_is_refused():
    plain = encode()
    at = plain.index(b"iloc") - 4
    again = plain[at : at + int.from_bytes(plain[at : at + 4], "big")]
    with pytest.raises(ValueError, match="two boxes iloc"):
        avif.largest_frame(in_meta(plain, again))


def test_cut_and_mutated_files_are_refused_or_decoded():
    data = encode(mode="RGBA")
    for end in range(12, len(data), 7):
        assert decode_image(data[:end], Options()).status == "decode_failed"
    for at in range(len(data)):
        for value in (0, 255):
            decode_image(data[:at] + bytes([value]) + data[at + 1 :], Options(max_pixels=1_000_000))
