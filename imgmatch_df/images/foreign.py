"""Names of formats that are not supported, by their first bytes, for the details of failed rows."""

import re
import struct
from typing import Final

Data = bytes | memoryview

_MAX_BRANDS: Final = 64
_MAKE, _SUB_IFDS, _DNG_VERSION = 0x010F, 0x014A, 0xC612
_AVIF: Final = frozenset({b"avif", b"avis"})
_HEIC: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1", b"miaf"}
)
_BRANDS: Final = (  # other ISO media files
    ("Canon RAW (CR3)", frozenset({b"crx "})),
    ("JPEG XL", frozenset({b"jxl "})),
    ("JPEG 2000 of a kind", frozenset({b"jpx ", b"jpm ", b"mjp2"})),
)
_SVG: Final = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*|<!DOCTYPE svg[^>]*>\s*)*<svg\b", re.IGNORECASE | re.DOTALL
)
_MAGIC: Final = (
    ("a video (AVI)", re.compile(rb"RIFF....AVI ", re.DOTALL)),
    ("an audio file", re.compile(rb"RIFF....WAVE|ID3|OggS|fLaC", re.DOTALL)),
    ("a video (WebM or Matroska)", re.compile(rb"\x1aE\xdf\xa3")),
    ("a video (MPEG)", re.compile(rb"\x00\x00\x01[\xba\xb3]")),
    ("a video (QuickTime)", re.compile(rb"....(moov|mdat|wide|free|skip)", re.DOTALL)),
    ("SVG", _SVG),
    ("a web page or XML", re.compile(rb"(\xef\xbb\xbf|\xff\xfe|\xfe\xff)?[\s\x00]*<[\s\x00]*[!?a-z/]", re.I)),
    ("JPEG XL", re.compile(rb"\xff\n|\x00\x00\x00\x0cJXL ")),
    ("PDF", re.compile(rb"\s*%PDF")),
    ("PostScript", re.compile(rb"%!PS|\xc5\xd0\xd3\xc6")),
    ("Photoshop (PSD)", re.compile(rb"8BPS")),
    ("an icon (ICO)", re.compile(rb"\x00\x00\x01\x00")),
    ("a cursor (CUR)", re.compile(rb"\x00\x00\x02\x00[^\x00]\x00|icns")),
    ("Radiance HDR", re.compile(rb"#\?(RADIANCE|RGBE)")),
    ("OpenEXR", re.compile(rb"v/1\x01")),
    ("QOI", re.compile(rb"qoif")),
    ("PAM", re.compile(rb"P7\s")),
    ("PFM", re.compile(rb"P[Ff]\s")),
    ("Sun Raster", re.compile(rb"\x59\xa6\x6a\x95")),
    ("JPEG XR", re.compile(rb"II\xbc")),
    ("DDS", re.compile(rb"DDS ")),
    ("FITS", re.compile(rb"SIMPLE  =")),
    ("DICOM", re.compile(rb".{128}DICM", re.DOTALL)),
    ("GIMP (XCF)", re.compile(rb"gimp xcf")),
    ("DjVu", re.compile(rb"AT&TFORM")),
    ("Windows metafile", re.compile(rb"\xd7\xcd\xc6\x9a|\x01\x00\x00\x00.{36} EMF", re.DOTALL)),
    ("Fujifilm RAW", re.compile(rb"FUJIFILMCCD-RAW")),
    ("Panasonic RAW", re.compile(rb"IIU\x00")),
    ("Olympus RAW", re.compile(rb"IIR[OS]|MMOR")),
    ("Minolta RAW", re.compile(rb"\x00MRM")),
    ("Sigma RAW", re.compile(rb"FOVb")),
    ("Canon RAW", re.compile(rb"II\x1a\x00\x00\x00HEAPCCDR")),
    ("an archive", re.compile(rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd")),
    ("a program", re.compile(rb"\x7fELF|MZ.{58}|\xca\xfe\xba\xbe|\xcf\xfa\xed\xfe", re.DOTALL)),
    ("Parquet", re.compile(rb"PAR1")),
    ("JSON", re.compile(rb"(\xef\xbb\xbf)?\s*[{\[]")),
)
HEADER_BYTES: Final = 512
_MAKERS: Final = frozenset(
    {
        *(b"CANON", b"EASTMAN KODAK COMPANY", b"EPSON", b"FUJIFILM", b"HASSELBLAD", b"KODAK", b"LEAF", b"LEICA"),
        *(b"LEICA CAMERA AG", b"MAMIYA", b"NIKON", b"NIKON CORPORATION", b"OLYMPUS", b"PANASONIC", b"PENTAX"),
        *(b"PENTAX CORPORATION", b"PHASE ONE", b"RICOH", b"SAMSUNG", b"SAMSUNG TECHWIN", b"SIGMA", b"SINAR", b"SONY"),
    }
)
_BINARY: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def brands(data: Data) -> tuple[bytes, ...]:
    """Return the brands of an ISO media file, the major brand first; none for other files."""
    if bytes(data[4:8]) != b"ftyp":
        return ()
    size = min(int.from_bytes(data[:4], "big"), 16 + 4 * _MAX_BRANDS, len(data))
    return (bytes(data[8:12]), *(bytes(data[at : at + 4]) for at in range(16, size - 3, 4)))


def is_avif(data: Data) -> bool:
    """Return whether a file is an AVIF by its brands; a file with other images too, such as HEIC, may be one."""
    return not _AVIF.isdisjoint(brands(data))


def describe_unsupported(data: Data) -> str:
    """Return the probable format of unsupported data, as a detail.

    It repeats none of the bytes: the data may be a secret of this machine.
    """
    header = bytes(data[:HEADER_BYTES])
    if not header:
        return "not an image: the file is empty"
    name = _name(header)
    return f"unsupported format: {name}" if name else f"not an image: {_kind(header)}"


def camera_raw(data: Data) -> str:
    """Return the camera format of a TIFF with raw sensor data, an empty string for other files."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None:
        return ""
    if bytes(data[8:10]) == b"CR":
        return "Canon RAW (CR2)"
    tags: dict[int, tuple[int, int]] = {}
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (n_entries,) = struct.unpack_from(order + "H", data, start)
        for at in range(start + 2, start + 2 + 12 * n_entries, 12):
            tag, _, count, value = struct.unpack_from(order + "HHII", data, at)
            tags[tag] = count, value
    except struct.error:
        pass
    if _DNG_VERSION in tags:
        return "RAW (DNG)"
    if _SUB_IFDS in tags and _MAKE in tags:
        count, value = tags[_MAKE]
        make = bytes(data[value : value + min(count, 32)]).split(b"\0")[0].strip().upper()
        return f"RAW ({make.decode().title()})" if make in _MAKERS else "RAW"
    return ""


def _kind(header: bytes) -> str:
    """Return ``"text"`` or ``"unknown data"``."""
    try:
        header.decode()
    except UnicodeDecodeError as error:
        if len(header) < HEADER_BYTES or error.start < HEADER_BYTES - 3:  # only the last character may be cut off
            return "unknown data"
    return "unknown data" if _BINARY.search(header) else "text"


def _name(header: bytes) -> str:
    own = brands(header)
    if own:
        for name, known in _BRANDS:
            if not known.isdisjoint(own):
                return name
        return "HEIC" if not _HEIC.isdisjoint(own) else "a video"
    return next((name for name, magic in _MAGIC if magic.match(header)), "")
