"""Listing and reading of zip archives: `zipfile` reads the directory, members are read at their offsets."""

import io
import os
import stat
import struct
import zipfile
import zlib
from typing import Final

from imgmatch_df.archives.contents import ENCRYPTED, ZIPPED, Contents, UnreadableError, read_at
from imgmatch_df.errors import Failure

_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")  # signature, length of the name, length of the extra field
_SIGNATURE: Final = b"PK\x03\x04"
_IS_ENCRYPTED: Final = 0x41  # of the member, or of the directory
_IS_UTF8: Final = 0x800
_EXTRA: Final = struct.Struct("<HH")
_UNICODE_PATH: Final = 0x7075
_UNIX: Final = 3
_MAX_TARGET: Final = 4096
_PIECE: Final = 1 << 20
_NAMES: Final = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "lzma", 9: "deflate64"}
_ERRORS: Final = (
    *(zipfile.BadZipFile, EOFError, NotImplementedError, OSError, OverflowError, RuntimeError, struct.error),
    *(ValueError, zlib.error),
)


def list_zip(file: int) -> Contents:
    """Return the members of a zip archive.

    Raises
    ------
    UnreadableError
        If it has no directory: it is not a zip archive, or is cut.
    """
    contents = Contents()
    try:
        with open(file, "rb", closefd=False) as stream, zipfile.ZipFile(stream) as archive:  # a descriptor
            members = archive.infolist()
    except _ERRORS as error:
        raise UnreadableError(f"not a whole zip archive: {error or type(error).__name__}") from error
    if any(member.volume for member in members):
        raise UnreadableError("a part of a split zip archive, join the parts: zip -s 0 parts.zip --out whole.zip")
    for member in members:
        if member.is_dir():
            continue
        name = _name_of(member)
        kind = ENCRYPTED if member.flag_bits & _IS_ENCRYPTED else ZIPPED + member.compress_type
        facts = (member.header_offset, member.file_size, kind)
        if member.create_system == _UNIX and stat.S_ISLNK(member.external_attr >> 16) and kind != ENCRYPTED:
            target = read_zipped(file, *facts, stored=member.compress_size, crc=member.CRC, max_bytes=_MAX_TARGET)
            if not isinstance(target, Failure):
                contents.add_link(name, os.fsdecode(target), is_hard=False)
                continue
        contents.add(name, *facts, stored=member.compress_size, crc=member.CRC)
    contents.finish()
    return contents


def _name_of(member: zipfile.ZipInfo) -> str:
    """Return the name of a member, the same with every version of Python.

    A name without the flag of UTF-8 is code page 437 by the standard. Info-ZIP adds a UTF-8 name, which `zipfile` reads
    since Python 3.12 or so, and other programs write UTF-8 without the flag.
    """
    name = member.orig_filename.partition("\0")[0]
    if name.isascii() or member.flag_bits & _IS_UTF8:
        return name
    raw = name.encode("cp437")
    extra = member.extra
    while len(extra) >= _EXTRA.size:
        kind, n_bytes = _EXTRA.unpack_from(extra)
        field, extra = extra[_EXTRA.size : _EXTRA.size + n_bytes], extra[_EXTRA.size + n_bytes :]
        if kind == _UNICODE_PATH and field[1:5] == zlib.crc32(raw).to_bytes(4, "little"):
            raw = field[5:]
            break
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return name


def read_zipped(
    file: int, offset: int, size: int, kind: int, *, stored: int, crc: int, max_bytes: int
) -> bytes | Failure:
    """Return the content of a member, or why it cannot be read; at most `max_bytes` and one are decompressed.

    Parameters
    ----------
    file
        Descriptor of the open archive.
    offset, size, kind, stored, crc
        Of the member, see `Contents`; `offset` is that of its local header.
    max_bytes
        Maximum size.
    """
    header = read_at(file, _LOCAL_HEADER.size, offset) if offset >= 0 else b""
    if len(header) < _LOCAL_HEADER.size or not header.startswith(_SIGNATURE):
        return Failure("fetch_failed", "damaged zip archive: there is no member at the place that its directory names")
    _, n_name, n_extra = _LOCAL_HEADER.unpack(header)
    start, limit = offset + _LOCAL_HEADER.size + n_name + n_extra, min(size, max_bytes) + 1
    method = kind - ZIPPED
    try:
        if method == zipfile.ZIP_STORED:
            data = read_at(file, min(stored, limit), start)
        elif method == zipfile.ZIP_DEFLATED:
            data = _inflate(file, start, stored, limit)
        else:
            data = _decompress(file, start, stored, size, method, crc)
    except NotImplementedError:
        name = _NAMES.get(method, f"method {method}")
        return Failure("fetch_failed", f"a compression that zipfile does not read: {name}")
    except _ERRORS as error:
        return Failure("fetch_failed", f"damaged zip archive: {error or type(error).__name__}")
    if len(data) != size or zlib.crc32(data) != crc:
        return Failure("fetch_failed", "damaged zip archive: the size or checksum of the member is wrong")
    return data


def _inflate(file: int, start: int, stored: int, limit: int) -> bytes:
    """Return at most `limit` bytes of a deflated member."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    parts, n_bytes, end = [], 0, start + stored
    while n_bytes < limit and not inflater.eof:
        piece = inflater.unconsumed_tail
        if not piece:
            piece = read_at(file, min(_PIECE, end - start), start)
            start += len(piece)
            if not piece:
                break
        parts.append(inflater.decompress(piece, limit - n_bytes))
        n_bytes += len(parts[-1])
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _decompress(file: int, start: int, stored: int, size: int, method: int, crc: int) -> bytes:
    """Return a member of `size` bytes, decompressed by `zipfile`.

    The member is put into an archive of its own, because an open `ZipFile` holds all members of its archive in memory.
    """
    if stored > 2 * size + _PIECE:
        raise ValueError("a member is larger than its content")
    packed = read_at(file, stored, start)
    name, facts = b"member", (method, 0, 0, crc, stored, size)
    local = struct.pack("<4s5H3L2H", _SIGNATURE, 63, 0, *facts, len(name), 0) + name + packed
    central = struct.pack("<4s6H3L5H2L", b"PK\1\2", 63, 63, 0, *facts, len(name), 0, 0, 0, 0, 0, 0) + name
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local), 0)
    with zipfile.ZipFile(io.BytesIO(local + central + end)) as archive:
        return archive.read("member")
