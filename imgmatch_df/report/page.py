"""The HTML file of a report: its template, its data as text that cannot end an element, and its security policy."""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE_SIZE: Final = 500  # thumbnails in one element of the page
_FOLDER: Final = "imgmatch_df.report"
_TEMPLATE: Final = "page.html.j2"
_STYLES: Final = ("vendor/uPlot.min.css", "report.css")
_SCRIPTS: Final = ("vendor/uPlot.iife.min.js", "report.js")
# What could end an element or begin one, and what JavaScript once took for the end of a line.
_ESCAPES: Final = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def page_json(value: Any) -> str:
    """Return compact JSON of ASCII characters that cannot end an element of a page."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def pack(data: bytes) -> str:
    """Return bytes as base64 of gzip; equal bytes give equal text."""
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode("ascii")


def write_page(title: str, about: Any, packed: dict[str, str], thumbnails: Iterable[bytes]) -> Iterator[str]:
    """Yield the text of a page in parts, so that its thumbnails are in memory once, as bytes.

    Parameters
    ----------
    title
        Title of the page.
    about
        The element ``about``, as Python objects of JSON.
    packed
        The elements ``rows``, ``pairs`` and ``hashes``: base64.
    thumbnails
        WebP files, empty where there is none.
    """
    from markupsafe import Markup

    styles, scripts = _texts(_STYLES), _texts(_SCRIPTS)
    template = _environment().get_template(_TEMPLATE)
    yield from template.generate(
        title=title,
        csp=security_policy(styles, scripts),
        styles=[Markup(style) for style in styles],  # noqa: S704  # files of this package
        scripts=[Markup(script) for script in scripts],  # noqa: S704  # files of this package
        run=about,
        about=Markup(page_json(about)),  # noqa: S704  # escaped for an element of JSON
        packed=packed,
        pages=(Markup(page) for page in _pages(thumbnails)),  # noqa: S704  # base64
    )


def security_policy(styles: Iterable[str], scripts: Iterable[str]) -> str:
    """Return the content security policy of a page that has these styles and scripts, and loads nothing."""
    sources = {
        "script-src": " ".join(f"'{_digest(script)}'" for script in scripts),
        "style-src": " ".join(f"'{_digest(style)}'" for style in styles),
    }
    inline = "; ".join(f"{name} {value}" for name, value in sources.items())
    return f"default-src 'none'; img-src data: blob: file:; {inline}; base-uri 'none'; form-action 'none'"


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"


def _pages(thumbnails: Iterable[bytes]) -> Iterator[str]:
    """Yield JSON lists of base64 texts."""
    page: list[str] = []
    for data in thumbnails:
        page.append(base64.b64encode(data).decode("ascii"))
        if len(page) == PAGE_SIZE:
            yield page_json(page)
            page = []
    if page:
        yield page_json(page)


@cache
def _texts(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return files of this package; their lines end as a browser reads them, for the hashes of the policy."""
    folder = resources.files(_FOLDER)
    return tuple((folder / name).read_text(encoding="utf-8").replace("\r\n", "\n") for name in names)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(_FOLDER, ""), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
