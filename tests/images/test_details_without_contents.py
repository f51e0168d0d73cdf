"""A detail says what a file is and what is wrong with it; it never shows what is in the file.

Whoever fills a column may name any file of the machine in it, and reads the details of the rows.
"""

import io
import json
import struct
import warnings

import polars as pl
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin
from typer.testing import CliRunner

from imgmatch_df.cli.app import app
from imgmatch_df.errors import Failure
from imgmatch_df.images.decode import decode_image
from imgmatch_df.options import Options

SECRET = b"QJXZKVWY" * 12


def quads():
    """Return each four bytes of the secret, which are also a number."""
    return [SECRET[at : at + 4] for at in range(8)]


FORBIDDEN = {
    *(quad.decode().lower() for quad in quads()),
    *(quad.hex() for quad in quads()),
    *(str(struct.unpack(order + "I", quad)[0]) for quad in quads() for order in "<>"),
}


def assert_hides_it(text):
    plain = text.lower().replace(",", "")
    assert not [part for part in FORBIDDEN if part in plain], text


def encode(image_format, mode="RGB", **options):
    stream = io.BytesIO()
    Image.effect_noise((64, 48), 60).convert(mode).save(stream, image_format, **options)
    return stream.getvalue()


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + bytes(4)


def maker_tiff(order):
    entries = [(0x010F, 2, len(SECRET), 100), (0x014A, 4, 1, 0)]
    table = b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 2)
    return (head + table).ljust(100, b"\0") + SECRET


PNG = b"\x89PNG\r\n\x1a\n"
IHDR = encode("PNG")[8:33]
BEGINNINGS = {
    "JPEG": b"\xff\xd8\xff",
    **{
        f"JPEG {marker:x}": b"\xff\xd8\xff" + bytes([marker])
        for marker in (0xC0, 0xC2, 0xC4, 0xDA, 0xDB, 0xE0, 0xE1, 0xEE)
    },
    "JPEG frame": encode("JPEG")[:170],
    "PNG": PNG,
    "PNG, header": PNG + b"\0\0\0\x0dIHDR",
    "PNG, chunks": PNG + IHDR,
    "PNG, name of a chunk": PNG + IHDR + bytes(4),
    "PNG, pixels": PNG + IHDR + b"\0\0\0\x40IDAT",
    "GIF": b"GIF89a",
    "GIF, frame": b"GIF89a" + bytes(7) + b",",
    "WebP": b"RIFF\0\1\0\0WEBP",
    **{f"WebP {name}": b"RIFF\0\1\0\0WEBP" + name.encode() for name in ("VP8 ", "VP8L", "VP8X", "EXIF", "ANMF")},
    "BMP": b"BM",
    "BMP, header": b"BM" + bytes(12) + struct.pack("<I", 40),
    "BMP, bits": b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 9, 9, 1, 8),
    "BMP, 16 bits": b"BM" + bytes(12) + struct.pack("<IiiHHIIIIII", 40, 9, 9, 1, 16, 3, 0, 0, 0, 0, 0),
    **{f"TIFF {mark!r}": mark for mark in (b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0", b"II\0*")},
    "TIFF, tags": b"II*\0\x08\0\0\0\x02\0",
    **{f"PNM P{kind}": b"P%d " % kind for kind in range(1, 8)},
    **{f"PNM P{kind}, pixels": b"P%d 9 9 %s" % (kind, b"255 " * (kind not in (1, 4))) for kind in range(1, 7)},
    "AVIF": b"\0\0\0\x18ftypavif\0\0\0\0mif1avif",
    "AVIF, box": b"\0\0\0\x18ftypavif\0\0\0\0mif1avif\0\0\1\0meta\0\0\0\0",
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "brand": b"\0\0\0\x18ftyp",
    "JP2": b"\0\0\0\x0cjP  \r\n\x87\n",
    "JP2, header": b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x60jp2h",
    "J2K": b"\xff\x4f\xff\x51",
    "J2K, size": encode("JPEG2000", no_jp2=True)[:51],
    **{
        name: name.encode()
        for name in ("", "%PDF-1.7 ", "PK\3\4", "8BPS", "<svg ", "<!-- ", "{", "[", "%!PS ", "II\xbc", "-----BEGIN ")
    },
}


def text_info():
    info = PngImagePlugin.PngInfo()
    info.add_text(SECRET.decode()[:60], SECRET.decode())
    return info


def exif():
    block = Image.Exif()
    block[0x010E] = SECRET.decode()
    return block


def tiff_info():
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    for tag in (0x010E, 0x010F, 0x0131):
        tags[tag] = SECRET.decode()
    return tags


WHOLE = {
    "JPEG": encode("JPEG", comment=SECRET, exif=exif()),
    "JPEG CMYK": encode("JPEG", "CMYK", subsampling=2, comment=SECRET, exif=exif()),
    "PNG": encode("PNG", pnginfo=text_info(), exif=exif()),
    "GIF": encode("GIF", "P", comment=SECRET),
    "WebP": encode("WEBP", exif=exif(), xmp=SECRET),
    "TIFF": encode("TIFF", tiffinfo=tiff_info()),
    "TIFF LZW": encode("TIFF", tiffinfo=tiff_info(), compression="tiff_lzw"),
    "AVIF": encode("AVIF", exif=exif(), xmp=SECRET, speed=10),
    "JPEG 2000": encode("JPEG2000", comment=SECRET.decode()),
    "PNM": b"P6\n# " + SECRET + b"\n9 9\n255\n" + bytes(300),
}


def secret_files():
    for name, beginning in BEGINNINGS.items():
        yield f"{name} + secret", beginning + SECRET
        yield f"{name} + secret, long", beginning + SECRET * 20
        for n_bytes in (1, 2, 3):  # so that each field meets other bytes of it
            yield f"{name} + secret[{n_bytes}:]", beginning + SECRET[n_bytes:]
    for name, data in WHOLE.items():
        at = data.index(SECRET[:16])
        yield f"{name}, cut in the secret", data[: at + 40]
        yield f"{name}, cut", data[: len(data) * 3 // 4]
        for n_bytes in range(0, len(data), max(1, len(data) // 40)):
            yield f"{name}, secret at {n_bytes}", data[:n_bytes] + SECRET + data[n_bytes:]
            yield f"{name}, secret over {n_bytes}", data[:n_bytes] + SECRET + data[n_bytes + len(SECRET) :]
    yield "TIFF, maker", maker_tiff("<")
    yield "TIFF, maker, big endian", maker_tiff(">")
    yield "yaml", b"db:\n  password: " + SECRET
    yield "shadow", b"root:$6$" + SECRET + b":20228:0:99999:7:::\n"
    yield "key", b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + SECRET + b"\n"
    yield "UTF-16", b"\xff\xfe" + SECRET.decode().encode("utf-16-le")
    yield "binary", bytes(range(256)) + SECRET


FILES = dict(secret_files())


def test_no_detail_of_bytes_shows_them():
    seen = set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for data in FILES.values():
            for options in (Options(), Options(alpha="white"), Options(decode="full")):
                result = decode_image(data, options)
                if isinstance(result, Failure) and result.status == "decode_failed":
                    assert_hides_it(result.detail)
                    seen.add(result.detail.split(":")[0])
    assert not caught
    assert {"not an image", "broken PNG", "truncated TIFF", "broken BMP", "broken PNM", "truncated JPEG"} <= seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for number, data in enumerate(FILES.values()):
        (folder / f"{number}.txt").write_bytes(data)
    return folder


def test_no_detail_of_a_local_file_shows_its_bytes(folder):
    frame = pl.DataFrame({"path": [str(folder / f"{number}.txt") for number in range(len(FILES))]})
    out = frame.imgmatch.visual_hash("path")
    assert out.height == len(FILES)
    for detail in out.filter(status="decode_failed")["detail"]:
        assert_hides_it(detail)
    with pytest.raises(Exception, match="not an image: text") as raised:
        frame.head(0).vstack(
            pl.DataFrame({"path": [str(folder / f"{list(FILES).index('yaml')}.txt")]})
        ).imgmatch.visual_hash("path", on_error="raise")
    assert_hides_it(str(raised.value))


def test_no_output_of_the_command_shows_them(folder, tmp_path):
    names = [str(folder / f"{number}.txt") for number in range(0, len(FILES), 9)]
    names += [str(folder / f"{list(FILES).index(name)}.txt") for name in ("yaml", "shadow", "key", "binary")]
    table, request = tmp_path / "t.csv", tmp_path / "r.json"
    pl.DataFrame({"path": names}).write_csv(table)
    request.write_text(json.dumps({"records": [{"_url": name} for name in names]}))
    for arguments in (["visual-hash", str(table), "-o", str(tmp_path / "o.csv")], ["visual-hash", str(request)]):
        result = CliRunner().invoke(app, arguments)
        assert "decode_failed" in result.output or (tmp_path / "o.csv").exists()
        assert_hides_it(result.output)
    written = pl.read_csv(tmp_path / "o.csv", infer_schema=False)
    for detail in written.filter(pl.col("status") == "decode_failed")["detail"]:
        assert_hides_it(detail)
