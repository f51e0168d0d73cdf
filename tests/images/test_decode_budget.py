"""Files that ask for more than their pixels need, told from their headers."""

import io
import struct

import polars as pl
import pytest
from PIL import Image

import imgmatch_df
from imgmatch_df.images.decode_budget import MAX_SCANS, jpeg2000_budget
from imgmatch_df.images.decode_budget import jpeg_budget as budget_of_segments
from imgmatch_df.images.jpeg import read_segments


def encode(width, height, image_format, mode="RGB", **options):
    stream = io.BytesIO()
    Image.effect_noise((width, height), 60).convert(mode).save(stream, image_format, **options)
    return stream.getvalue()


def jpeg_budget(data):
    return budget_of_segments(data, read_segments(data))


USUAL = [
    {},
    {"codeblock_size": (32, 32), "precinct_size": (128, 128)},
    {"codeblock_size": (16, 16), "precinct_size": (64, 64)},
    {"tile_size": (128, 128)},
    {"tile_size": (64, 64)},
    {"num_resolutions": 1},
    {"quality_layers": [80, 40, 20, 10, 5]},
    {"progression": "RPCL"},
    {"irreversible": True},
    {"no_jp2": True},
]


@pytest.mark.parametrize("options", USUAL, ids=str)
@pytest.mark.parametrize(
    ("size", "mode"),
    [
        *(((width, height), mode) for width, height in ((1, 1), (64, 48)) for mode in ("L", "RGB", "RGBA")),
        ((900, 1200), "RGB"),
        *(pytest.param((900, 1200), mode, marks=pytest.mark.slow) for mode in ("L", "RGBA")),
    ],
)
def test_usual_jpeg_2000_files_pass(options, size, mode):
    assert jpeg2000_budget(encode(*size, "JPEG2000", mode, **options)) is None


def codestream(width, height, *, tile=None, n_components=3, levels=1, block=(4, 4), precincts=None, layers=1, coc=None):
    """The headers of a codestream; the exponents of blocks and precincts are those of the standard."""
    tile_width, tile_height = tile or (width, height)
    siz = struct.pack(">H8IH", 0, width, height, 0, 0, tile_width, tile_height, 0, 0, n_components)
    siz += b"\x07\x01\x01" * n_components

    def style(block, precincts):
        sizes = b"" if precincts is None else bytes(y << 4 | x for x, y in precincts)
        return bytes([levels, block[0] - 2, block[1] - 2, 0, 1]) + sizes

    def segment(marker, body):
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    cod = struct.pack(">BBHB", precincts is not None, 0, layers, 0) + style(block, precincts)
    out = b"\xff\x4f" + segment(0x51, siz) + segment(0x52, cod) + segment(0x5C, b"\x40" + bytes(3 * levels + 1))
    if coc is not None:
        out += segment(0x53, b"\1\1" + style(*coc))
    return out + segment(0x90, struct.pack(">HIBB", 0, 0, 0, 1)) + b"\xff\x93\xff\xd9"


TINY = [(0, 0), (0, 0)]
BOMBS = {
    "precincts of one sample": {"precincts": TINY},
    "code-blocks of 4 x 4": {"block": (2, 2)},
    "wide and low code-blocks": {"block": (4, 2)},
    "precincts of a component": {"coc": ((6, 6), TINY)},
    "tiles of one pixel": {"tile": (1, 1)},
    "tiles of 16 x 16": {"tile": (16, 16)},
    "layers": {"precincts": [(5, 5), (6, 6)], "layers": 65535},
    "components": {"n_components": 1000},
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("boxed", [False, True])
def test_bombs_are_refused(name, boxed):
    data = codestream(3000, 3000, **({"block": (6, 6)} | BOMBS[name]))
    if boxed:
        data = b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I4s", 12, b"free") + b"free" + b"\0\0\0\0jp2c" + data
    assert jpeg2000_budget(data) is not None
    assert jpeg2000_budget(codestream(3000, 3000, block=(6, 6))) is None


def test_the_style_of_a_tile_counts_as_well():
    tiny = codestream(3000, 3000, block=(6, 6), precincts=TINY)
    cod = tiny[tiny.index(b"\xff\x52") : tiny.index(b"\xff\x5c")]
    data = codestream(3000, 3000, block=(6, 6))
    at = data.index(b"\xff\x93")
    assert jpeg2000_budget(data[:at] + cod + data[at:]) is not None


def test_what_is_no_jpeg_2000_is_left_to_the_decoder():
    whole = encode(64, 48, "JPEG2000")
    for data in (b"", b"\xff\x4f", b"\xff\x4f\xff\x51", whole[:30], *(whole[:n] for n in range(0, 300, 7))):
        assert jpeg2000_budget(data) is None
        assert jpeg2000_budget(memoryview(data)) is None


def scans(n_scans, image=None):
    data = image or encode(64, 48, "JPEG", "L", progressive=True)
    start = data.rindex(b"\xff\xda")
    last = data[start : data.rindex(b"\xff\xd9")]
    return data[:start] + last * n_scans + b"\xff\xd9"


def test_jpegs_with_too_many_scans_are_refused():
    usual = [encode(64, 48, "JPEG", mode, progressive=p) for mode in ("L", "RGB", "CMYK") for p in (False, True)]
    for data in usual:
        assert jpeg_budget(data) is None
        assert jpeg_budget(memoryview(data)) is None
    assert jpeg_budget(scans(MAX_SCANS // 2)) is None
    assert f"at most {MAX_SCANS}" in jpeg_budget(scans(MAX_SCANS + 1))


def test_scans_of_one_component_at_a_time_count_without_progression():
    data = bytearray(scans(MAX_SCANS + 1, encode(64, 48, "JPEG", "L")))
    assert jpeg_budget(bytes(data)) is None  # one scan holds all that there is: libjpeg stops behind it
    at = data.index(b"\xff\xc0")
    data[at + 9] = 3  # components
    assert jpeg_budget(bytes(data)) is not None


def test_cut_jpegs_are_left_to_the_decoder():
    data = encode(64, 48, "JPEG", progressive=True)
    for n_bytes in range(0, len(data), 11):
        assert jpeg_budget(data[:n_bytes]) is None


def test_what_asks_for_too_much_is_a_row_and_its_neighbours_are_hashed():
    bomb = codestream(3000, 3000, block=(6, 6), precincts=TINY)
    good = encode(64, 48, "JPEG")
    out = pl.DataFrame({"image": [good, bomb, scans(MAX_SCANS + 1), good]}).imgmatch.visual_hash("image")
    assert out["status"].to_list() == ["ok", "decode_failed", "decode_failed", "ok"]
    assert out["detail"][1].startswith("JPEG2000 over a limit of decoding: ")
    assert out["detail"][2].startswith("JPEG over a limit of decoding: ")


def saying_another_size():
    """Images of 1200 x 1000 pixels in containers that say 8 x 8."""
    gif = encode(1200, 1000, "GIF", "P")
    yield "GIF, frame beyond the screen", gif[:6] + struct.pack("<HH", 8, 8) + gif[10:]
    webp = encode(1200, 1000, "WEBP")
    canvas = b"VP8X\x0a\0\0\0\0\0\0\0" + b"\7\0\0" * 2
    yield "WebP, canvas", b"RIFF" + struct.pack("<I", len(webp) + 10) + b"WEBP" + canvas + webp[12:]
    jp2 = encode(1200, 1000, "JPEG2000")
    at = jp2.index(b"ihdr") + 4
    yield "JPEG 2000, ihdr", jp2[:at] + struct.pack(">II", 8, 8) + jp2[at + 8 :]
    png, small = encode(1200, 1000, "PNG"), encode(8, 8, "PNG")
    yield "PNG, two headers", small[:33] + png[8:]
    jpeg, small = encode(1200, 1000, "JPEG"), encode(8, 8, "JPEG")
    frame = small[small.index(b"\xff\xc0") : small.index(b"\xff\xc4")]
    at = jpeg.index(b"\xff\xc0")
    yield "JPEG, two frames", jpeg[:at] + frame + jpeg[at:]
    yield "JPEG, two frames, the other way round", jpeg[: at + len(frame)] + frame + jpeg[at + len(frame) :]
    tiff = encode(1200, 1000, "TIFF", compression="jpeg")
    (start,) = struct.unpack_from("<I", tiff, 4)
    data = bytearray(tiff)
    for at in range(start + 2, start + 2 + 12 * tiff[start], 12):
        if (tag := struct.unpack_from("<H", tiff, at)[0]) in (256, 257, 273, 278, 279):  # the first strip alone
            kind, n_values, value = struct.unpack_from("<HII", tiff, at + 2)
            value = struct.unpack_from("<I" if kind == 4 else "<H", tiff, value if n_values > 1 else at + 8)[0]
            struct.pack_into("<HII", data, at + 2, 4, 1, value if tag in (273, 279) else 8)
    yield "TIFF of JPEG", bytes(data)


def test_max_pixels_holds_for_what_is_decoded():
    names, images = zip(*saying_another_size(), strict=True)
    out = pl.DataFrame({"name": names, "image": images}).imgmatch.visual_hash("image", max_pixels=1_000_000)
    assert set(out["status"]) == {"too_many_pixels", "decode_failed"}


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "gif", "tiff", "bmp", "avif", "pnm", "jpeg2000"])
def test_formats_says_which_are_read(name):
    image = {"pnm": "PPM"}.get(name, name.upper())
    frame = pl.DataFrame({"image": [encode(64, 48, image), encode(64, 48, "PNG" if name != "png" else "JPEG")]})
    out = frame.imgmatch.visual_hash("image", formats=[name.upper()])
    assert out["status"].to_list() == ["ok", "decode_failed"]
    assert f"not among formats={name}" in out["detail"][1]
    assert frame.imgmatch.visual_hash("image")["status"].to_list() == ["ok", "ok"]


@pytest.mark.parametrize("formats", ["jpeg", [], ["jpg"], [1], 7])
def test_formats_are_names(formats):
    with pytest.raises(imgmatch_df.ArgumentError, match="formats must be"):
        imgmatch_df.phash("image", formats=formats)
