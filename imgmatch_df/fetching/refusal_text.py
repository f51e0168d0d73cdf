"""Text of the responses in which servers refuse a request: many say there what they require, such as a User-Agent."""

import re
from html.parser import HTMLParser
from typing import Final

from imgmatch_df.fetching.content_encoding import Decompressor, EncodingError
from imgmatch_df.fetching.request_headers import hide
from imgmatch_df.fetching.response import ResponseHeader
from imgmatch_df.sources import redact

MAX_CHARS: Final = 80
MAX_WAIT_S: Final = 2.0  # for the body of a refusal, after its header
_MAX_BYTES: Final = 1 << 13  # of the body, compressed and decompressed
_MARKUP: Final = re.compile(r"text/html|application/xhtml\+xml|text/xml|application/xml|application/\S+\+xml")
_TEXT: Final = re.compile(rf"{_MARKUP.pattern}|text/plain|application/json|application/\S+\+json")
# Codecs of Python that decode in linear time.
_CHARSET: Final = re.compile(
    r"utf-?8|us-ascii|utf-16(le|be)?|iso-8859-\d+|windows-12\d\d|koi8-[ru]|shift_jis|euc-(jp|kr)|gb(2312|k|18030)|big5"
)
_URL: Final = re.compile(r"https?://[^\s\"'<>]+")
_SKIPPED: Final = ("script", "style", "template", "noscript", "svg")
# As `shown_refusal` writes it into a detail; the text has no quotation marks like these.
_SHOWN: Final = re.compile("^(HTTP [0-9]+): “[^”]*”")


class RefusalReader:
    """Reader of the body of one refusal.

    Parameters
    ----------
    header
        Header of the response, whose body is text of an encoding that is supported; see `has_text`.
    """

    def __init__(self, header: ResponseHeader) -> None:
        self._header = header
        self._body = bytearray()
        self._n_received = 0
        self._decompressor = Decompressor(header.encodings, _MAX_BYTES)

    def take(self, chunk: bytes) -> bool:
        """Take a chunk of the body; return whether more of it is wanted."""
        self._n_received += len(chunk)
        try:
            for piece in self._decompressor.pieces(chunk[:_MAX_BYTES]):
                self._body += piece[:_MAX_BYTES]
                if len(self._body) >= _MAX_BYTES:
                    return False
        except EncodingError:  # what was decompressed before is shown
            return False
        return self._n_received < _MAX_BYTES

    def text(self, secrets: tuple[str, ...]) -> str:
        """Return at most 80 characters of the body in one line, without markup and secrets; empty if there is none."""
        charset = _CHARSET.fullmatch(self._header.charset)
        text = bytes(self._body[:_MAX_BYTES]).decode(charset[0] if charset else "utf-8", "replace")
        if _MARKUP.fullmatch(self._header.content_type):
            text = _text_of_markup(text)
        text = hide(" ".join(_printable(text).split()), secrets)
        text = _URL.sub(lambda found: redact(found[0]), text).strip()
        text = _without_start_of(text, secrets)
        return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1].rstrip() + "…"


def has_text(header: ResponseHeader) -> bool:
    """Return whether the body of a refusal is text that can be shown."""
    return header.status >= 400 and _TEXT.fullmatch(header.content_type) is not None


def with_refusal(detail: str, status: int, text: str) -> str:
    """Return a detail such as ``HTTP 403``, with the text of the server after it."""
    return detail.replace(f"HTTP {status}", f"HTTP {status}: “{text}”", 1) if text else detail


def without_refusal(detail: str) -> str:
    """Return a detail without the text of the server, for people who must not read what a server says."""
    return _SHOWN.sub(r"\1", detail)


def _printable(text: str) -> str:
    text = text.replace("“", '"').replace("”", '"')
    return "".join(char if char.isprintable() else " " for char in text)


def _without_start_of(text: str, secrets: tuple[str, ...]) -> str:
    """Return `text` without the first characters of a secret at its end, where the body was cut."""
    for secret in secrets:
        for n_chars in range(min(len(secret), len(text)), 3, -1):
            if text.lower().endswith(secret[:n_chars].lower()):
                return text[:-n_chars] + "…"
    return text


def _text_of_markup(text: str) -> str:
    """Return the title and the text of HTML or XML; the title is left out where the text begins with it."""
    parser = _MarkupText()
    parser.feed(text)
    parser.close()
    title, shown = (" ".join("".join(parts).split()) for parts in (parser.title, parser.shown))
    return shown if shown.lower().startswith(title.lower()) else f"{title} {shown}"


class _MarkupText(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title: list[str] = []
        self.shown: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002  # of HTMLParser
        if not self._inside and tag in (*_SKIPPED, "title"):
            self._inside = tag
        self.shown.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""
        self.shown.append(" ")

    def handle_data(self, data: str) -> None:
        if self._inside == "title":
            self.title.append(data)
        elif not self._inside:
            self.shown.append(data)
