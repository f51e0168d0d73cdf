"""Kinds of sources, determined from the value only, without access to disk or network."""

import binascii
import os
import re
from contextlib import suppress
from typing import Final, Literal, NamedTuple, TypeVar
from urllib.parse import unquote

from imgmatch_df.errors import Failure
from imgmatch_df.schemes import scheme_of

T = TypeVar("T")
SourceKind = Literal["bytes", "path", "base64", "url"]

_SCHEME_OF_KIND: Final = {"path": "file", "base64": "data", "bytes": "data"}
# A scheme of one letter is a Windows drive.
URL_PATTERN: Final = r"\s*[A-Za-z][A-Za-z0-9+.\-]+://"
FILE_PATTERN: Final = r"\s*[Ff][Ii][Ll][Ee]:"
_SCHEME: Final = re.compile(URL_PATTERN)
# `//host/a.jpg` without a scheme, as in web pages. A host has a dot or a port, else `//tmp/a.jpg` is a path.
_SCHEMELESS: Final = re.compile(
    r"//(?:[^/\\?#@\s]*@)?(?:[^/\\?#@:\s.]+\.[^/\\?#@:\s]+|\[[0-9A-Fa-f:.]+\]|[^/\\?#@:\s]+:\d)"
)
_MAYBE_URL: Final = re.compile(r"\s*(?:[A-Za-z][A-Za-z0-9+.\-]+:)?//")
_DRIVE: Final = re.compile(r"/[A-Za-z]:(?=/|\\|$)")

# First characters of the formats in base64. A path may start with them as well ("/9j/photos/a.jpg"), so length and
# alphabet are checked too.
_BASE64_MAGIC: Final = re.compile(
    r"[/_]9j[/_]"  # JPEG
    r"|iVBORw0KGgo"  # PNG
    r"|R0lGOD[dl]h"  # GIF
    r"|UklGR.{6}XRUJQ"  # WebP
    r"|SUkqA|SUkrA|TU0AK"  # TIFF, little and big endian
    r"|Qk[0-3].{5}AAAA"  # BMP
    r"|AAAADGpQICA|[/_]0[/_]{2}U[Q-T]"  # JPEG 2000, file and codestream
    r"|AAAA..Z0eXB"  # AVIF and its family
    r"|UD[EIMQUY][KgNJ]"  # PBM, PGM, PPM
    r"|cW9pZ"  # QOI
    r"|JVBERi0|PHN2Zy|PD94bWwg"  # PDF, SVG, XML: not supported, but the decoder names them
)
_NOT_BASE64: Final = re.compile(r"[^A-Za-z0-9+/\-_=\s]")
_MIN_BASE64_CHARS: Final = 64
_MAX_PATH_CHARS: Final = 4096  # PATH_MAX of Linux, the largest of all systems: a longer string is not a path
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE: Final = b" \t\n\r\f\v"
_NO_DIGITS: Final = f"={_WHITE_SPACE.decode()}"

_ESCAPED_BYTE: Final = re.compile(rb"\\x([89a-f][0-9a-f])")

_USER_INFO: Final = re.compile(r"^(\s*(?:[A-Za-z][A-Za-z0-9+.\-]+:)?//)[^/?#]*@")
# Name of a parameter, and the equals sign after it.
_NAME: Final = re.compile(r"[?&;]([^=&;#]*)(=?)")
SECRET_NAME: Final = re.compile("auth|credential|key|pass|pwd|secret|session|sig|token", re.IGNORECASE)
_END_OF_VALUE: Final = re.compile("[&;#]")
# Bytes of a data URI that are unescaped at a time; temporary arrays are about ten times as large.
_UNESCAPED_AT_A_TIME: Final = 1 << 20


class Source(NamedTuple):
    """Kind and content of a value.

    Parameters
    ----------
    kind
        ``"bytes"``: the image itself. ``"path"``: a file. ``"base64"``: the image as text, not decoded yet.
        ``"url"``: any other value with a scheme; the transport of the scheme decides whether it can be fetched.
    value
        The bytes, the path, the base64 text or the URL.
    """

    kind: SourceKind
    value: str | bytes

    @property
    def scheme(self) -> str:
        """Scheme of a URL in lower case, ``"file"`` for a path, ``"data"`` for base64 and bytes."""
        return scheme_of(str(self.value)) if self.kind == "url" else _SCHEME_OF_KIND[self.kind]


class Fetched(NamedTuple):
    """An encoded image from the network.

    Parameters
    ----------
    data
        Its bytes.
    content_type
        Media type by the server, such as ``"image/jpeg"``; empty if unknown.
    etag
        Version by the server: the ETag, or the time of modification; empty if unknown.
    """

    data: bytes
    content_type: str = ""
    etag: str = ""

    @property
    def is_image(self) -> bool:
        """Whether the server names an image type or an unspecific one."""
        return self.content_type.startswith("image/") or self.content_type in ("", "application/octet-stream")

    def describe(self) -> str:
        """Return media type and size, as the detail of a row whose bytes are not an image."""
        return f"got {describe(self.content_type) or 'no content type'}, {len(self.data):,} bytes"


def parse_source(value: str) -> Source | Failure:
    """Return the kind and content of the string `value`, or why it is not a source.

    Surrounding white space is dropped. ``data:`` and ``file:`` URIs are parsed; other values ``scheme://…`` are
    URLs, and ``//host/…`` with a dot or a port in its host is an https URL. Any other string is base64 if it is long
    enough and starts as a base64 image does, else a path (``example.com/a.jpg`` too).

    Parameters
    ----------
    value
        One value of a string column.

    Returns
    -------
    Source or Failure
        The failure is `missing` for blank text and `bad_source` for text that cannot name an image on any machine.
    """
    text = value.strip()
    if not text:
        return Failure("missing", "the text is empty")
    if "\0" in text:
        return Failure("bad_source", f"contains a NUL character: {describe(text)}")
    scheme = text[:5].lower()
    if scheme == "data:":
        return _parse_data_uri(text)
    if scheme == "file:":
        return _parse_file_uri(text)
    if found := _SCHEME.match(text):
        if found.end() == len(text):
            return Failure("bad_source", f"a URL without a host: {describe(text)}")
        return Source("url", text)
    if text.startswith("//") and _SCHEMELESS.match(text):
        return Source("url", f"https:{text}")
    return Source("base64" if _is_base64(text) else "path", text)


def url_of(value: object) -> str | None:
    """Return the URL that one value of a column is, None for any other value.

    The result agrees with `parse_source`; values that are not URLs take a tenth of the time.
    """
    if not isinstance(value, str) or not _MAYBE_URL.match(value):
        return None
    source = parse_source(value)
    return str(source.value) if isinstance(source, Source) and source.kind == "url" else None


def is_path(value: object) -> bool:
    """Return whether a value of a column is the path of a local file."""
    source = parse_source(value) if isinstance(value, str) else None
    return isinstance(source, Source) and source.kind == "path"


def too_many_bytes(size: str, max_bytes: int) -> Failure:
    """Return the failure of a source that is larger than `max_bytes`.

    Parameters
    ----------
    size
        Its size in words, such as ``"1,000 bytes"``.
    max_bytes
        The option of that name.
    """
    return Failure("too_many_bytes", f"{size}, more than max_bytes={max_bytes:,}; raise max_bytes to allow it")


def decode_base64(text: str, max_bytes: int) -> bytes | Failure:
    """Return the bytes of base64 text.

    Line breaks, the URL-safe alphabet and missing padding are accepted, any other text that is not base64 is refused.

    Parameters
    ----------
    text
        Base64, standard or URL-safe.
    max_bytes
        Maximum decoded size in bytes, inclusive; checked before decoding.
    """
    if len(text) * 3 // 4 <= max_bytes:
        # Sufficient for nearly all base64: a photo of 100 KB takes 8 us, while the code below holds the GIL for 700 us.
        import pybase64

        with suppress(ValueError):
            return pybase64.b64decode(text, validate=True)
    # The size is checked before the text is copied.
    n_bytes = (len(text) - sum(map(text.count, _NO_DIGITS))) * 3 // 4
    if n_bytes > max_bytes:
        return too_many_bytes(f"{n_bytes:,} bytes of base64", max_bytes)
    try:
        digits = text.encode("ascii").translate(_URL_SAFE, _WHITE_SPACE).rstrip(b"=")
    except UnicodeEncodeError:
        return _bad_base64(text)
    if len(digits) % 4 == 1:
        return Failure(
            "bad_source", f"invalid base64: {len(digits):,} characters are not a whole number of bytes; truncated?"
        )
    try:
        return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4), strict_mode=True)
    except binascii.Error:
        return _bad_base64(text)


def describe(value: object, max_chars: int = 80) -> str:
    """Return `value` for messages: one line of at most `max_chars` characters, without credentials.

    Parameters
    ----------
    value
        A source. Bytes are shown by their number only.
    max_chars
        Maximum length of the result.
    """
    if not isinstance(value, str):
        return "<null>" if value is None else f"<{memoryview(value).nbytes:,} bytes>"  # type: ignore[arg-type]
    text = redact(value)[: max_chars + 1]
    if not text.isprintable():
        text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def path_as_text(path: str) -> str:
    """Return a path as valid text: bytes of its name that are not UTF-8 are escaped."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")


def path_from_text(text: str) -> bytes:
    """Return the file name that `path_as_text` has converted to `text`."""
    return _ESCAPED_BYTE.sub(lambda found: bytes.fromhex(found[1].decode()), os.fsencode(text))


def redact(value: T) -> T:
    """Return `value` without credentials if it is a URL: user, password, signatures, tokens."""
    if not isinstance(value, str) or not _MAYBE_URL.match(value):
        return value
    return _without_secrets(_USER_INFO.sub(r"\1", value))  # type: ignore[return-value]  # a str for a str


def _without_secrets(url: str) -> str:
    # Each character is read once, so the time is linear in the length for any text.
    if not SECRET_NAME.search(url):
        return url
    parts, start, at = [], 0, 0
    while (found := _NAME.search(url, at)) is not None:
        at = found.end()
        if found[2] and SECRET_NAME.search(found[1]):
            parts += [url[start:at], "…"]
            end = _END_OF_VALUE.search(url, at)
            at = start = len(url) if end is None else end.start()
    return "".join([*parts, url[start:]])


def _is_base64(text: str) -> bool:
    if len(text) < _MIN_BASE64_CHARS:
        return False
    if _NOT_BASE64.search(text, 0, _MAX_PATH_CHARS):
        return False
    return len(text) > _MAX_PATH_CHARS or _BASE64_MAGIC.match(text) is not None


def _bad_base64(text: str) -> Failure:
    wrong = _NOT_BASE64.search(text)
    if wrong is None:
        return Failure("bad_source", "invalid base64: '=' before the end")
    return Failure(
        "bad_source", f"invalid base64: {wrong.group()!r} at character {wrong.start() + 1:,} is not in its alphabet"
    )


def _parse_data_uri(text: str) -> Source | Failure:
    header, comma, payload = text.partition(",")
    if not comma:
        return Failure("bad_source", f"a data: URI without a comma: {describe(text)}")
    if not payload:
        return Failure("missing", f"a data: URI without data: {describe(text)}")
    if header.rstrip().lower().endswith(";base64"):
        return Source("base64", _unescape(payload).decode("utf-8", "replace") if "%" in payload else payload)
    return Source("bytes", _unescape(payload))


def _unescape(text: str) -> bytes:
    """Return the result of `urllib.parse.unquote_to_bytes`, without a Python object per escape."""
    data = text.encode("utf-8", "surrogatepass")
    out = bytearray()
    start = 0
    while start < len(data):
        end = min(start + _UNESCAPED_AT_A_TIME, len(data))
        if end < len(data):  # do not split an escape
            end -= next((n for n in (1, 2) if data[end - n] == ord("%")), 0)
        out += _unescape_part(data[start:end])
        start = end
    return bytes(out)


def _unescape_part(data: bytes) -> bytes:
    if b"%" not in data:
        return data
    import numpy as np

    digits = np.full(256, 255, np.uint8)
    for digit in b"0123456789abcdefABCDEF":
        digits[digit] = int(chr(digit), 16)
    values = np.frombuffer(data, np.uint8).copy()
    at = np.flatnonzero(values[:-2] == ord("%"))
    high, low = digits[values[at + 1]], digits[values[at + 2]]
    valid = (high < 16) & (low < 16)
    at = at[valid]
    values[at] = high[valid] << 4 | low[valid]
    kept = np.ones(len(values), np.bool_)
    kept[at + 1] = kept[at + 2] = False
    return values[kept].tobytes()


def _parse_file_uri(text: str) -> Source | Failure:
    rest = text[5:]
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            return Failure("bad_source", f"a file: URI of another machine: {describe(text)}")
        rest = slash + rest
    path = unquote(rest, errors="surrogateescape")
    if not path or "\0" in path:
        return Failure("bad_source", f"a file: URI without a usable path: {describe(text)}")
    if os.name == "nt" and _DRIVE.match(path):
        path = path[1:]
    return Source("path", path)
