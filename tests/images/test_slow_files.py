"""Files of millions of comments, chunks, codes or numbers: each is read, or refused, in a fraction of a second.

Each of them took 3 s to minutes where Pillow, or a loop in Python, walked over its parts.
"""

import io
import struct
import threading
import time
import zlib

import numpy as np
import polars as pl
import pytest
from PIL import Image

from imgmatch_df.images.decode import decode_image
from imgmatch_df.images.decode_budget import MAX_SEGMENTS
from imgmatch_df.images.guard import DecodedImage
from imgmatch_df.options import Options

MIB = 1 << 20
DEADLINE_S = 3  # of this thread's processor time; here they take up to 0.3 s


def encode(image_format, mode="RGB", **options):
    stream = io.BytesIO()
    Image.effect_noise((64, 48), 60).convert(mode).save(stream, image_format, **options)
    return stream.getvalue()


def with_parts(data, at, part, n_bytes=16 * MIB):
    return data[:at] + part * (n_bytes // len(part)) + data[at:]


def chunk(name, body=b""):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def decode(data):
    """Return the image in `data` or the reason, which take no longer than the deadline."""
    started = time.thread_time()
    result = decode_image(data, Options())
    assert time.thread_time() - started < DEADLINE_S
    return result._replace(pixels=result.pixels.copy()) if isinstance(result, DecodedImage) else result


def assert_same(data, plain):
    result, expected = decode(data), decode(plain)
    assert result[1:] == expected[1:]
    np.testing.assert_array_equal(result.pixels, expected.pixels)


EXIF = b"Exif\0\0II*\0\x08\0\0\0\1\0\0\1\4\0\1\0\0\0\1\0\0\0"
JPEG_PARTS = {
    "comments": b"\xff\xfe\0\2",
    "application": b"\xff\xe5\0\2",
    "profiles": b"\xff\xe2\0\x10ICC_PROFILE\0\1\1",
    "EXIF": b"\xff\xe1" + struct.pack(">H", len(EXIF) + 2) + EXIF,
    "junk": b"\xff\0",
    "padding": b"\xff",
    "restarts": b"\xff\xd0",
}


@pytest.mark.parametrize("name", JPEG_PARTS)
@pytest.mark.parametrize("mode", ["RGB", "CMYK", "odd"])
def test_segments_of_a_jpeg(name, mode):
    plain = encode("JPEG", "CMYK", subsampling=2) if mode == "odd" else encode("JPEG", mode)  # odd: through Pillow
    assert_same(with_parts(plain, 2, JPEG_PARTS[name]), plain)


@pytest.mark.parametrize("part", [b"\xff\xc4\0\2", b"\xff\xdd\0\4\0\0", b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"])
def test_segments_of_a_jpeg_that_count_are_bounded(part):
    for plain in (encode("JPEG"), encode("JPEG", "CMYK", subsampling=2)):
        assert f"at most {MAX_SEGMENTS:,} are read" in decode(with_parts(plain, 2, part)).detail
        assert isinstance(decode(with_parts(plain, 2, part, len(part) * 100)), DecodedImage)


@pytest.mark.parametrize("name", ["comments", "junk", "restarts"])
def test_segments_of_a_cut_jpeg(name):
    data = encode("JPEG")
    assert decode(with_parts(data[:-300], 2, JPEG_PARTS[name])).detail.startswith("truncated JPEG: ")


def test_the_orientation_is_found_behind_whatever_libjpeg_skips():
    for mode in ("RGB", "CMYK"):
        plain = encode("JPEG", mode)
        exif = EXIF.replace(b"\0\1\4\0\1\0\0\0\1", b"\x12\1\3\0\1\0\0\0\6")
        at = 4 + int.from_bytes(plain[4:6], "big")
        block = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
        for part in (b"", b"junk", b"\xff\0", b"\xff", b"\xff\xd0", b"\xff\xfe\0\2"):
            assert decode(plain[:at] + part + block + plain[at:]).orientation == 6


PNG = encode("PNG")
PIXELS, END = PNG.index(b"IDAT") - 4, len(PNG) - 12


@pytest.mark.parametrize("at", [PIXELS, END])
@pytest.mark.parametrize("part", [chunk(b"prIv"), chunk(b"tEXt", b"a\0b"), chunk(b"IDAT")])
def test_chunks_of_a_png(at, part):
    assert_same(with_parts(PNG, at, part), PNG)


def test_pixels_of_a_png_in_chunks_of_one_byte():
    body = zlib.compress(b"".join(b"\0" + bytes([y % 256]) * 1000 for y in range(1000)), 0)
    head = PNG[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 1000, 1000, 8, 0, 0, 0, 0))
    parts = b"".join(chunk(b"IDAT", body[at : at + 1]) for at in range(len(body)))
    assert_same(head + parts + chunk(b"IEND"), head + chunk(b"IDAT", body) + chunk(b"IEND"))
    for n_bytes in (len(parts) // 2, *(len(parts) - n for n in range(13 * 20, 13 * 22))):  # behind them is a checksum
        assert decode(head + parts[:n_bytes]).detail.startswith("truncated PNG: ")


@pytest.mark.parametrize("name", [b"tRNS", b"eXIf", b"PLTE"])
def test_chunks_of_a_png_that_count_are_bounded(name):
    assert decode(with_parts(PNG, PIXELS, chunk(name))).detail == "truncated PNG: no pixels"


@pytest.mark.parametrize("part", [b"!\xfe\0", b"!\xfe\1a\0", b"!\xf9\4\0\0\0\0\0", b"j", b"!\xff\x0bNETSCAPE2.0\0"])
def test_blocks_of_a_gif(part):
    plain = encode("GIF", "P")
    assert_same(with_parts(plain, 13 + (3 << (plain[10] & 7) + 1), part), plain)


def webp(*parts):
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("name", [b"prIv", b"EXIF"])
def test_chunks_of_a_webp(name):
    plain = encode("WEBP")
    header = b"VP8X\x0a\0\0\0\0\0\0\0" + struct.pack("<I", 63)[:3] + struct.pack("<I", 47)[:3]
    many = struct.pack("<4sI", name, 0) * MIB
    assert_same(webp(header, plain[12:], many), plain)
    assert_same(webp(header, many, plain[12:]), plain)
    assert_same(webp(header, plain[12:], many) + b"x", plain)
    assert decode(webp(header, many, plain[12:])[:-9]).detail.startswith("truncated WEBP: ")


PLAIN = {
    "comments": (b"#\n", "truncated"),
    "spaces": (b" ", "truncated"),
    "one number": (b"7", "truncated"),
    "numbers": (b"7 ", ""),
    "other bytes between": (b"7x", ""),
}


@pytest.mark.parametrize("kind", [2, 3])
@pytest.mark.parametrize("name", PLAIN)
def test_plain_text_of_a_pnm(kind, name):
    part, word = PLAIN[name]
    result = decode(b"P%d\n1600 1500\n255\n" % kind + part * (16 * MIB // len(part)))
    if word:
        assert result.detail.startswith(word)
    else:
        assert (result.pixels[..., : kind - 1] == 7).all()


def test_plain_bits_and_the_comments_of_a_header():
    assert (decode(b"P1\n3000 2500\n" + b"0x" * 8 * MIB).pixels == 255).all()
    assert decode(b"P1\n3000 2500\n" + b"#\n" * 8 * MIB).detail.startswith("truncated PNM: ")
    assert decode(b"P6\n" + b"#\n" * 8 * MIB + b"1 1\n255\nabc").detail == "broken PNM: invalid header"


def bmp(bits, width, height, codes):
    palette = b"".join(bytes([value, value // 2, 9, 0]) for value in range(1 << bits))
    start = 54 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(codes), 0, 0, start)
    sizes = (40, width, height, 1, bits, {8: 1, 4: 2}[bits], len(codes), 0, 0, 0, 0)
    return head + struct.pack("<IiiHHIIiiII", *sizes) + palette + codes


@pytest.mark.parametrize("bits", [4, 8])
def test_run_lengths_of_a_bmp(bits):
    short = decode(bmp(bits, 4000, 4000, b"\1\x21\0\0" * 4000))
    assert (short.width, short.height) == (4000, 4000)
    assert (short.pixels[:, 1:, :3] == (9, 0, 0)).all()
    assert (short.pixels[:, 0, 0] == 9).all()
    for codes in (b"\1\1", b"\0\2\0\0", b"\0\3\1\1\1\0", b"\xff\1", b"\0\2\1\1", b"\0\0"):
        decode(bmp(bits, 2000, 2000, codes * (16 * MIB // len(codes))))


def box(name, body=b""):
    return struct.pack(">I4s", len(body) + 8, name) + body


def test_boxes_and_segments_of_a_jpeg_2000():
    jp2, j2k = encode("JPEG2000"), encode("JPEG2000", no_jp2=True)
    header = jp2.index(b"jp2h") - 4
    end = header + int.from_bytes(jp2[header : header + 4], "big")
    resolutions = box(b"res ", box(b"resc") * MIB)
    for inside in (box(b"free") * MIB, box(b"res ") * MIB, resolutions):
        data = jp2[:header] + box(b"jp2h", inside + jp2[header + 8 : end]) + jp2[end:]
        assert decode(data).detail == "JPEG2000 over a limit of decoding: more than 10,000 boxes"
    assert "10,000 boxes" in decode(with_parts(jp2, header, box(b"free"))).detail
    at = j2k.index(b"\xff\x52")
    for part in (b"\xff\x64\0\5\0\1a", b"\xff\x58\0\3\0", j2k[at : at + 14], b"\xff\x30", b"\xff\x70\0\0"):
        assert "100,000 segments" in decode(with_parts(j2k, at, part)).detail
        if part in (b"\xff\x64\0\5\0\1a", b"\xff\x30"):  # may stand there
            assert_same(with_parts(j2k, at, part, 3 * len(part)), j2k)


def test_a_style_of_coding_is_not_hidden_behind_a_segment_that_openjpeg_skips():
    j2k = encode("JPEG2000", no_jp2=True)
    at = j2k.index(b"\xff\x52")
    tiny = b"\xff\x52\0\x0e\1\0\0\1\0\1\4\4\0\1\0\0"  # precincts of one sample
    siz = struct.pack(">II", 3000, 3000)
    large = j2k[:8] + siz + j2k[16:24] + siz + j2k[32:]
    for unknown in (b"\xff\x30", b"\xff\x7f\xff\xff\0\0"):
        assert "code-blocks" in decode(large[:at] + unknown + tiny + large[at:]).detail


def test_other_threads_go_on_meanwhile():
    bombs = [
        b"P3\n1600 1500\n255\n" + b"#\n" * 16 * MIB,
        with_parts(encode("JPEG", "CMYK", subsampling=2), 2, b"\xff\xfe\0\2", 32 * MIB),
        with_parts(PNG, PIXELS, chunk(b"prIv"), 32 * MIB),
        bmp(8, 2000, 2000, b"\0\2\0\0" * 8 * MIB),
    ]
    beats, stop = [], threading.Event()

    def beat():
        while not stop.wait(0.001):
            beats.append(time.process_time())  # on a busy machine, other programs do not count

    decode_image(bombs[0][:99], Options())
    thread = threading.Thread(target=beat)
    thread.start()
    for bomb in bombs:
        decode(bomb)
    stop.set()
    thread.join()
    assert max(np.diff(beats)) < 1


def test_a_slow_file_is_a_row_like_any_other():
    good = encode("JPEG")
    slow = with_parts(good, 2, b"\xff\xdd\0\4\0\0")
    out = pl.DataFrame({"image": [good, slow, good]}).imgmatch.visual_hash("image")
    assert out["status"].to_list() == ["ok", "decode_failed", "ok"]
