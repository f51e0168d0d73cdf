"""Registry of source schemes, such as ``http`` in ``http://host/a.jpg``.

A scheme is registered once. Downloads, the `schemes` option, the messages, the command line and the service read its
properties here. The registry holds names and import paths only, so that importing it loads no client library.
"""

import re
from dataclasses import dataclass
from typing import Final

from imgmatch_df.errors import ArgumentError, Failure

# A scheme of one letter is a Windows drive.
_NAME: Final = re.compile(r"[a-z][a-z0-9+.\-]+")
_IMPORT_PATH: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

# Transport of the schemes that are not registered here; fsspec has its own registry.
FSSPEC_TRANSPORT: Final = "imgmatch_df.fetching.object_store:ObjectStoreClient"
_HTTP_TRANSPORT: Final = "imgmatch_df.fetching.http:HttpClient"


@dataclass(frozen=True, slots=True)
class Scheme:
    """A scheme of sources.

    Parameters
    ----------
    name
        Lower case, without the colon; at least two characters.
    transport
        Import path ``"module:Class"`` of the `imgmatch_df.fetching.transport.Transport` that fetches its URLs; None
        for sources that need no network. Imported with the first URL of the scheme.
    noun
        A source of the scheme, as messages name it; None means a URL of the scheme.
    is_public
        Whether clients of the service may send URLs of the scheme. Its transport must then connect to nothing but the
        public internet, unless `allow_private_networks` is set, and must use no credentials of this machine.
    """

    name: str
    transport: str | None
    noun: str | None = None
    is_public: bool = False


SCHEMES: Final[dict[str, Scheme]] = {
    scheme.name: scheme
    for scheme in (
        Scheme("file", None, noun="a path"),
        Scheme("data", None, noun="base64"),
        Scheme("http", _HTTP_TRANSPORT, is_public=True),
        Scheme("https", _HTTP_TRANSPORT, is_public=True),
    )
}


def register_scheme(scheme: Scheme) -> None:
    """Register a scheme, so that values such as ``name://…`` are fetched by its transport.

    Raises
    ------
    ArgumentError
        If the name or the import path is invalid, or the name is registered already.
    """
    if not is_scheme_name(scheme.name) or scheme.name != scheme.name.lower():
        raise ArgumentError(
            f"the name of a scheme must be lower case and at least 2 characters, got {scheme.name!r}\n"
            "Hint: use letters, digits, '+', '-' and '.', a letter first."
        )
    if scheme.transport is None or not _IMPORT_PATH.fullmatch(scheme.transport):
        raise ArgumentError(
            f"transport must be an import path 'module:Class', got {scheme.transport!r}\n"
            "Hint: name the module and the class of the transport."
        )
    if scheme.name in SCHEMES:
        raise ArgumentError(
            f"the scheme {scheme.name!r} is registered already, for {SCHEMES[scheme.name].transport}\n"
            "Hint: choose another name."
        )
    SCHEMES[scheme.name] = scheme


def is_scheme_name(text: str) -> bool:
    """Return whether text can be the name of a scheme, in any case."""
    return _NAME.fullmatch(text.lower()) is not None


def scheme_of(url: str) -> str:
    """Return the scheme of a URL, in lower case."""
    return url.partition(":")[0].lower()


def transport_path(name: str) -> str:
    """Return the import path of the transport that fetches URLs of a scheme.

    Raises
    ------
    ArgumentError
        If sources of the scheme are not fetched.
    """
    scheme = SCHEMES.get(name)
    path = FSSPEC_TRANSPORT if scheme is None else scheme.transport
    if path is None:
        raise ArgumentError(f"sources of the scheme {name!r} are not fetched\nHint: read them with read_source.")
    return path


def public_schemes() -> tuple[str, ...]:
    """Return the names of the schemes that clients of the service may use."""
    return tuple(scheme.name for scheme in SCHEMES.values() if scheme.is_public)


def refused_scheme(name: str, allowed: frozenset[str] | None) -> Failure | None:
    """Return why a source of the scheme is not read, None if it is.

    Parameters
    ----------
    name
        Scheme of a URL in lower case, ``"file"`` for a path, ``"data"`` for base64.
    allowed
        The option `schemes`.
    """
    if allowed is None or name in allowed:
        return None
    scheme = SCHEMES.get(name)
    noun = (scheme and scheme.noun) or f"a URL of the scheme {name[:20]}:"
    return Failure("fetch_blocked", f"blocked: {noun}; schemes= allows {', '.join(sorted(allowed))}")
