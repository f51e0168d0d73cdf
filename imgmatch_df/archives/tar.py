"""Listing of tar archives.

`tarfile` takes 15 to 35 microseconds for a member, 50 for a sample of webdataset with three files; hashing a thumbnail
takes 300. So the usual headers are read here in 5: files with a short name, also after a PAX header that has only times
and names. `tarfile` reads all others: long names, links, sparse files, large numbers.
"""

import re
import struct
import tarfile
import zlib
from typing import Final

from imgmatch_df.archives.contents import CUT, PLAIN, SPARSE, Contents, FilePart, UnreadableError, read_at, shown_name

_BLOCK: Final = 512
_ZEROS: Final = bytes(_BLOCK)
_READ: Final = 4 * _BLOCK  # a PAX header, its records, and the header of the file
_MAX_HEADERS: Final = 1 << 22  # of one member: names, links and the map of a sparse file
_OCTAL: Final = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
# Records of a PAX header that change neither name nor place of the file.
_IGNORED: Final = re.compile(rb"[acm]time|comment|[ug]id|[ug]name|charset|(?:SCHILY|LIBARCHIVE|MSWINDOWS)\..*")
_TRAILING: Final = 1 << 16

# First bytes of compressed files.
_COMPRESSED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
# What `tarfile` raises for a header that is damaged.
TAR_ERRORS: Final = (tarfile.TarError, EOFError, OverflowError, RecursionError, struct.error, ValueError)


def list_tar(file: int, n_bytes: int) -> Contents:
    """Return the members of a tar archive.

    Parameters
    ----------
    file
        Descriptor of the open archive.
    n_bytes
        Its size.

    Raises
    ------
    UnreadableError
        If it does not begin as a tar archive.
    """
    contents = Contents()
    at = 0
    while True:
        data = read_at(file, _READ, at)
        if data[:_BLOCK] == _ZEROS:
            contents.note = _after_end(file, at)
            break
        if not data:
            if not at:
                raise UnreadableError("zero bytes")
            contents.note = "it has no end mark, it may be cut"
            break
        found = _read_usual(data)
        if found is not None:
            name, start, size = found
            start += at
            after = start + size + -size % _BLOCK
            if start + size > n_bytes:
                contents.add(name, start, size, CUT, stored=max(0, n_bytes - start))
            elif not name.endswith("/"):  # a directory of old archives
                contents.add(name, start, size)
        else:
            try:
                after = at + _add_unusual(contents, file, at, n_bytes)
            except TAR_ERRORS as error:
                if not at:
                    is_compressed = data.startswith(_COMPRESSED)
                    what = "a compressed tar, decompress it" if is_compressed else "not a tar archive"
                    raise UnreadableError(what) from error
                contents.note = f"it is cut or damaged at byte {at:,}, after {len(contents.names):,} files"
                break
        if after > n_bytes:
            cut = f" within {shown_name(contents.names[-1])!r}" if contents.kind and contents.kind[-1] == CUT else ""
            contents.note = f"it is cut{cut}"
            break
        at = after
    contents.finish()
    return contents


def read_sparse(file: int, offset: int, n_bytes: int) -> bytes:
    """Return up to `n_bytes` of the sparse file whose header is at `offset`.

    Raises
    ------
    TAR_ERRORS
        If the archive is damaged.
    """
    with _open_part(FilePart(file, offset, 1 << 62)) as archive:
        member = archive.next()
        opened = None if member is None else archive.extractfile(member)
        return b"" if opened is None else opened.read(n_bytes)


def _read_usual(data: bytes) -> tuple[str, int, int] | None:
    """Return name, offset of the bytes and size of a file with a usual header, None for another header."""
    kind = _kind(data)
    if kind in (b"0", b"\0"):
        size = _number(data[124:136])
        return None if size is None else (_name(data), _BLOCK, size)
    if kind != b"x":
        return None
    n_records = _number(data[124:136])
    if n_records is None:
        return None
    start = _BLOCK + n_records + -n_records % _BLOCK
    header = data[start : start + _BLOCK]
    if _kind(header) not in (b"0", b"\0"):
        return None
    size, name = _number(header[124:136]), None
    at, end = _BLOCK, _BLOCK + n_records
    while at < end:
        space = data.find(b" ", at, end)
        if space < 0 or not data[at:space].isdigit():
            return None
        after = at + int(data[at:space])
        key, equals, value = data[space + 1 : after - 1].partition(b"=")
        if not equals or after > end or data[after - 1 : after] != b"\n":
            return None
        if key == b"path":
            name = value.rstrip(b"/").decode("utf-8", "surrogateescape")
        elif key == b"size" and value.isdigit():
            size = int(value)
        elif not _IGNORED.fullmatch(key):
            return None
        at = after
    return None if size is None else (_name(header) if name is None else name, start + _BLOCK, size)


def _kind(header: bytes) -> bytes | None:
    """Return the type of a member, None where the header is not whole or its checksum is wrong."""
    if len(header) < _BLOCK:
        return None
    expected = _number(header[148:156])
    # The low half of Adler-32 is the sum of the bytes plus one, modulo 65,521: exact for 256 bytes.
    total = sum((zlib.adler32(part) & 0xFFFF) - 1 for part in (header[:148], header[156:340], header[340:_BLOCK]))
    return header[156:157] if expected == total + 8 * ord(" ") else None


def _number(field: bytes) -> int | None:
    """Return an octal number, None for a number of another form."""
    found = _OCTAL.fullmatch(field)
    return None if found is None else int(found[1] or b"0", 8)


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "surrogateescape")


def _add_unusual(contents: Contents, file: int, at: int, n_bytes: int) -> int:
    """Add the member whose header is at `at`, as `tarfile` reads it; return how many bytes after `at` the next is."""
    with _open_part(FilePart(file, at, min(n_bytes, at + _MAX_HEADERS))) as archive:
        member = archive.next()
        if member is None:
            raise tarfile.ReadError("no header")
        after: int = archive.offset
    if member.size < 0 or after < _BLOCK:
        raise tarfile.ReadError("a negative size")
    if member.issym() or member.islnk():
        contents.add_link(member.name, member.linkname, is_hard=member.islnk())
    elif member.isreg():
        is_whole = at + after <= n_bytes or (not member.issparse() and at + member.offset_data + member.size <= n_bytes)
        if not is_whole:
            contents.add(member.name, at, member.size, CUT, stored=max(0, n_bytes - at - member.offset_data))
        elif member.issparse():
            contents.add(member.name, at, member.size, SPARSE)
        else:
            contents.add(member.name, at + member.offset_data, member.size, PLAIN)
    elif not member.isdir():
        contents.n_others += 1
    return after


def _open_part(part: FilePart) -> tarfile.TarFile:
    return tarfile.open(fileobj=part, mode="r:", encoding="utf-8", errors="surrogateescape")


def _after_end(file: int, at: int) -> str | None:
    """Return what follows the end mark, if it is another archive."""
    data = read_at(file, _TRAILING, at).lstrip(b"\0")
    return None if not data else "more bytes follow its end mark, perhaps of a second archive"
