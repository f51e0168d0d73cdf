"""Formats by their first bytes and tags: those that need an extra, and names of the others for the details of rows."""

import re
import struct
from typing import Final, NamedTuple

Data = bytes | memoryview

_MAX_BRANDS: Final = 64
_MAKE, _SUB_IFDS, _DNG_VERSION, _PHOTOMETRIC = 0x010F, 0x014A, 0xC612, 0x0106
_SENSOR_DATA: Final = frozenset({32803, 34892})  # photometric interpretations: colour filter array, linear raw
_MAX_DIRECTORIES: Final = 32  # of a TIFF; cameras write at most 10
_MAX_ENTRIES: Final = 4096  # of a directory
_AVIF: Final = frozenset({b"avif", b"avis"})
_HEIC: Final = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1", b"miaf"}
)
_BRANDS: Final = (  # other ISO media files
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
    ("an archive", re.compile(rb"PK\x03\x04|\x1f\x8b|Rar!|7z\xbc\xaf|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd")),
    ("a program", re.compile(rb"\x7fELF|MZ.{58}|\xca\xfe\xba\xbe|\xcf\xfa\xed\xfe", re.DOTALL)),
    ("Parquet", re.compile(rb"PAR1")),
    ("JSON", re.compile(rb"(\xef\xbb\xbf)?\s*[{\[]")),
)
# RAW files that are no TIFF.
_RAW: Final = (
    ("RAW (Canon CR3)", re.compile(rb"....ftypcrx ", re.DOTALL)),
    ("RAW (Canon CRW)", re.compile(rb"II\x1a\x00\x00\x00HEAPCCDR")),
    ("RAW (Fujifilm)", re.compile(rb"FUJIFILMCCD-RAW")),
    ("RAW (Panasonic)", re.compile(rb"IIU\x00")),
    ("RAW (Olympus)", re.compile(rb"IIR[OS]|MMOR")),
    ("RAW (Minolta)", re.compile(rb"\x00MRM")),
    ("RAW (Sigma)", re.compile(rb"FOVb")),
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


def is_heic(data: Data) -> bool:
    """Return whether a file is a HEIC or HEIF by its brands, and nothing else that is named."""
    own = brands(data)
    return not _HEIC.isdisjoint(own) and all(known.isdisjoint(own) for _, known in _BRANDS)


def raw_name(data: Data) -> str:
    """Return the kind of a RAW file of a camera that is no TIFF, an empty string for other files."""
    header = bytes(data[:32])
    return next((name for name, magic in _RAW if magic.match(header)), "")


def raw_tiff(data: Data) -> str:
    """Return the kind of a TIFF that is surely a RAW file: a CR2, a DNG, or one with the data of a sensor.

    Their first directory is often a small image, which a reader of TIFF takes for the whole.
    """
    order = _byte_order(data)
    if bytes(data[4:12]) == b"\x10\0\0\0CR\2\0":
        return "RAW (Canon CR2)"
    waiting = [_first_directory(data, order)] if order else []
    make, seen = b"", set[int]()
    while waiting and len(seen) < _MAX_DIRECTORIES:
        start = waiting.pop(0)
        if start in seen or not start:
            continue
        seen.add(start)
        tags, following = _read_directory(data, order, start)
        make = make or _maker(data, tags)
        if _DNG_VERSION in tags:
            return "RAW (DNG)"
        if _PHOTOMETRIC in tags and tags[_PHOTOMETRIC].short in _SENSOR_DATA:
            return _named_raw(make)
        waiting += [*_sub_directories(data, order, tags), following]
    return ""


def camera_raw(data: Data) -> str:
    """Return the kind of a TIFF that is probably a RAW file, an empty string for other files."""
    order = _byte_order(data)
    if not order:
        return ""
    tags, _ = _read_directory(data, order, _first_directory(data, order))
    return _named_raw(_maker(data, tags)) if _SUB_IFDS in tags and _MAKE in tags else ""


class _Entry(NamedTuple):
    """An entry of a TIFF directory: its number of values, and the value as an integer of 16 bits, and of 32 bits."""

    n_values: int
    short: int
    value: int


def _byte_order(data: Data) -> str:
    """Return the byte order of a TIFF that is not a BigTIFF, an empty string for other files."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]), "")
    return order if 42 in data[2:4] else ""


def _first_directory(data: Data, order: str) -> int:
    return int(struct.unpack_from(order + "I", data, 4)[0]) if len(data) >= 8 else 0


def _read_directory(data: Data, order: str, start: int) -> tuple[dict[int, _Entry], int]:
    """Return the entries of a TIFF directory by their tags, and the offset of the next directory, 0 for none."""
    tags: dict[int, _Entry] = {}
    try:
        (n_entries,) = struct.unpack_from(order + "H", data, start)
        for at in range(start + 2, start + 2 + 12 * min(n_entries, _MAX_ENTRIES), 12):
            tag, _, count, value = struct.unpack_from(order + "HHII", data, at)
            tags[tag] = _Entry(count, struct.unpack_from(order + "H", data, at + 8)[0], value)
        (following,) = struct.unpack_from(order + "I", data, start + 2 + 12 * n_entries)
    except struct.error:  # cut off
        return tags, 0
    return tags, following


def _sub_directories(data: Data, order: str, tags: dict[int, _Entry]) -> list[int]:
    entry = tags.get(_SUB_IFDS)
    if entry is None:
        return []
    if entry.n_values == 1:
        return [entry.value]
    n_bytes = 4 * min(entry.n_values, _MAX_DIRECTORIES)
    found = bytes(data[entry.value : entry.value + n_bytes])
    return [offset for (offset,) in struct.iter_unpack(order + "I", found[: len(found) // 4 * 4])]


def _maker(data: Data, tags: dict[int, _Entry]) -> bytes:
    entry = tags.get(_MAKE, _Entry(0, 0, 0))
    return bytes(data[entry.value : entry.value + min(entry.n_values, 32)]).split(b"\0")[0].strip().upper()


def _named_raw(make: bytes) -> str:
    # A name that is not known may be anything, and a detail shows no bytes of a file.
    return f"RAW ({make.decode().title()})" if make in _MAKERS else "RAW"


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
