"""Names of files that are not read, and of those that are AVIF by their brands."""

import struct

import numpy as np
import pytest
from cameras import raw_file
from drawing import draw, save, tiff
from PIL import Image
from test_decode import detail_of

from imgmatch_df.images import foreign
from imgmatch_df.images.decode import decode_image
from imgmatch_df.images.guard import DecodedImage
from imgmatch_df.options import Options

HEIC = ("heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs", "mif1", "mif2", "msf1", "miaf")


def needs(name, extra):
    return f"{name} images need the extra {extra}: pip install 'imgmatch-df[{extra}]'"


def media(major, *compatible, rest=bytes(200)):
    body = b"ftyp" + major.encode() + bytes(4) + b"".join(brand.encode() for brand in compatible)
    return struct.pack(">I", len(body) + 4) + body + rest


@pytest.mark.parametrize("brand", HEIC)
@pytest.mark.parametrize("compatible", [(), ("mif1",), ("heic",), ("mif1", "heic", "miaf"), ("miaf", "MiHB")])
def test_heic_is_named_in_every_brand(brand, compatible, without_extras):
    assert detail_of(media(brand, *compatible)) == needs("HEIC", "heif")


@pytest.mark.parametrize("brand", HEIC)
def test_heic_is_named_by_a_compatible_brand(brand, without_extras):
    for major in ("isom", "MiHE", "xxxx"):
        assert needs("HEIC", "heif") == detail_of(media(major, "xxxx", brand))


def test_an_avif_is_one_by_any_of_its_brands():
    whole = save(Image.fromarray(draw(1)), "AVIF", speed=10)
    (size,) = struct.unpack_from(">I", whole)
    for major in ("avif", "mif1", "msf1", "miaf", "heic", "MA1A"):
        brands = ("mif1", "avif", "heic", "miaf", "MA1B")[: (size - 16) // 4]
        assert foreign.is_avif(media(major, "mif1", "avif"))
        file = media(major, *brands, rest=whole[size:])
        assert isinstance(decode_image(file, Options()), DecodedImage), major
    assert not foreign.is_avif(media("mif1", "heic"))


@pytest.mark.parametrize("size", [0, 1, 7, 8, 12, 15, 16, 17, 1 << 31, (1 << 32) - 1])
def test_a_wrong_size_of_the_brands_is_survived(size):
    data = struct.pack(">I", size) + media("heic", "mif1", *["xxxx"] * 300)[4:]
    for end in (8, 11, 12, 16, 20, len(data)):
        detail_of(data[:end])
        detail_of(memoryview(data)[:end])


def tiff_tags(*tags, order="<", make=b"NIKON CORPORATION\0"):
    """A TIFF whose only directory has `tags`; the maker's name stands at its end."""
    entries = b"".join(
        struct.pack(order + "HHII", tag, 4, len(make) if tag == 0x010F else 1, 8 + 2 + 12 * len(tags) + 4)
        for tag in sorted(tags)
    )
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(order + "IH", 8, len(tags)) + entries + bytes(4) + make + bytes(99)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (media("isom", "iso2", "avc1", "mp41"), "a video"),
        (media("qt  "), "a video"),
        (media("mp42", "isom"), "a video"),
        (media("jxl ", "jxl "), "JPEG XL"),
        (b"\x1aE\xdf\xa3" + bytes(30), "a video (WebM or Matroska)"),
        (b"RIFF\0\0\0\0AVI LIST", "a video (AVI)"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "a video (QuickTime)"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "Radiance HDR"),
        (b"#?RGBE\n", "Radiance HDR"),
        (b"P7\nWIDTH 1\n", "PAM"),
        (b"PF\n1 1\n-1\n", "PFM"),
        (b"v/1\x01\2\0\0\0", "OpenEXR"),
        (b"8BPS\0\1", "Photoshop (PSD)"),
        (b"qoif\0\0\0\1", "QOI"),
        (b"\0\0\1\0\1\0", "an icon (ICO)"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe-3.0", "PostScript"),
        (b"<svg xmlns=''>", "SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn -->\n<svg>", "SVG"),
        (b"<?xml version='1.0'?><!DOCTYPE svg PUBLIC 'x'>\n<svg>", "SVG"),
        (b"\n <!doctype html>", "a web page or XML"),
        (b"<html>", "a web page or XML"),
        ("\ufeff<html>".encode("utf-16-le"), "a web page or XML"),
        (b"<Error><Code>AccessDenied", "a web page or XML"),
        (b' {"message": "not found"}', "JSON"),
        (b"PK\3\4", "an archive"),
        (b"\x1f\x8b\x08", "an archive"),
        (b"DDS |\0\0\0", "DDS"),
        (b"II\xbc\1", "JPEG XR"),
        (bytes(128) + b"DICM", "DICOM"),
    ],
)
def test_what_is_not_read_is_named(data, name):
    assert f"unsupported format: {name}" in detail_of(data)


@pytest.mark.parametrize(
    ("data", "name", "extra"),
    [
        (media("crx ", "crx "), "RAW (Canon CR3)", "raw"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + media("jxl "), "JPEG XL", "jxl"),
        (b"\xff\x0a" + bytes(30), "JPEG XL", "jxl"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(99), "RAW (Canon CR2)", "raw"),
        (b"II\x1a\0\0\0HEAPCCDR", "RAW (Canon CRW)", "raw"),
        (b"FUJIFILMCCD-RAW 0201", "RAW (Fujifilm)", "raw"),
        (b"IIU\0" + bytes(30), "RAW (Panasonic)", "raw"),
        (b"IIRO\x08\0\0\0", "RAW (Olympus)", "raw"),
        (tiff_tags(0x0100, 0xC612), "RAW (DNG)", "raw"),
        (tiff_tags(0x0100, 0xC612, order=">"), "RAW (DNG)", "raw"),
        (tiff_tags(0x010F, 0x014A), "RAW (Nikon Corporation)", "raw"),
        (tiff_tags(0x010F, 0x014A, make=b"SONY\0"), "RAW (Sony)", "raw"),
        (tiff_tags(0x010F, 0x014A, make=b"s3cret of this machine\0"), "RAW", "raw"),
    ],
)
def test_what_an_extra_reads_names_the_extra(data, name, extra, without_extras):
    assert detail_of(data) == needs(name, extra)


def test_a_raw_file_is_one_by_the_data_of_its_sensor():
    small = draw(1, 60, 40)
    for order in "<>":
        for make in ("private", "SONY", "nobody"):
            data = raw_file(small, order=order, make=make, dng=False)
            assert foreign.raw_tiff(data) == ("RAW (Sony)" if make == "SONY" else "RAW")
            for end in range(0, len(data), 7):
                foreign.raw_tiff(data[:end])
                foreign.raw_tiff(memoryview(data)[:end])
        assert foreign.raw_tiff(raw_file(small, order=order)) == "RAW (DNG)"
    chance = tiff(np.frombuffer(b"CR\2\0", np.uint8).reshape(2, 2))
    assert foreign.raw_tiff(chance) == ""
    assert isinstance(decode_image(chance, Options()), DecodedImage)


def test_a_tiff_with_a_maker_and_further_directories_is_read_as_a_tiff():
    pixels = draw(1, 60, 40)
    data = raw_file(pixels, dng=False, photometric=1)
    assert not foreign.raw_tiff(data)
    assert foreign.camera_raw(data)
    image = decode_image(data, Options())
    np.testing.assert_array_equal(image.pixels[..., :3], pixels)
    assert image.detail is None


def test_directories_in_a_circle_end():
    data = bytearray(raw_file(draw(1, 60, 40), dng=False, photometric=1))
    (first,) = struct.unpack_from("<I", data, 4)
    (n_entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * n_entries, first)
    assert foreign.raw_tiff(bytes(data)) == ""


def test_an_empty_file():
    assert detail_of(b"") == "not an image: the file is empty"


def test_what_has_no_name():
    for data in (b"\0" * 40, b"RIFF\0\0\0\0ACON", b"\xff\xfe\xfd", "ü".encode()[:1], b"caf\xe9 " * 200):
        assert detail_of(data) == "not an image: unknown data"


def test_text():
    for data in (
        b"hello",
        b"<- an arrow",
        "größe".encode(),
        b"a: 1\r\n\tb: 2\n",
        ("x" * 511 + "ü").encode(),
        b"\x1b[0m",
    ):
        assert detail_of(data) == "not an image: text"
