"""What a caller may set, checked once, while the expression is built."""

from dataclasses import dataclass, fields
from os import PathLike, fspath
from typing import Literal, TypedDict, Unpack, get_args

from imgmatch_df.errors import ArgumentError

Decode = Literal["full", "scaled"]
OnError = Literal["null", "raise"]

MAX_PIXELS = 89_478_485  # Pillow's own threshold for a decompression bomb: a quarter of a GiB of RGB
MAX_BYTES = 1 << 28


class SourceOptions(TypedDict, total=False):
    """The keyword options of every call that reads sources; `Options` says what each one means."""

    decode: Decode
    max_pixels: int
    max_bytes: int
    base_dir: str | PathLike[str] | None
    on_error: OnError
    progress: bool


@dataclass(frozen=True, slots=True)
class Options:
    """How sources are read and decoded. Hashable, so that equal calls can share one decode.

    Parameters
    ----------
    decode
        ``"full"`` is the exact path; ``"scaled"`` lets the JPEG decoder shrink large pictures first.
    max_pixels
        Largest width x height that is decoded, checked from the header. Inclusive.
    max_bytes
        Largest encoded size that is read, in bytes. Inclusive.
    base_dir
        Folder that relative paths start from; None means the working directory.
    on_error
        ``"null"`` keeps failed rows as null, ``"raise"`` stops at the first one.
    progress
        Whether to show a bar on the terminal (standard error); where there is none, nothing is shown.
    """

    decode: Decode = "full"
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
    base_dir: str | None = None
    on_error: OnError = "null"
    progress: bool = False

    def __post_init__(self) -> None:
        check_choice("decode", self.decode, get_args(Decode), "'full' is exact, 'scaled' is faster on large JPEGs.")
        check_choice("on_error", self.on_error, get_args(OnError), "'null' keeps failed rows, 'raise' is strict.")
        check_positive("max_pixels", self.max_pixels)
        check_positive("max_bytes", self.max_bytes)
        if not isinstance(self.progress, bool):
            raise ArgumentError(f"progress must be True or False, got {self.progress!r}\nHint: True shows a bar.")


def make_options(**options: Unpack[SourceOptions]) -> Options:
    """Return the options of a call, checked.

    Raises
    ------
    ArgumentError
        If an option is unknown or has a value that is not allowed.
    """
    names = [field.name for field in fields(Options)]
    for name in options:
        if name not in names:
            from difflib import get_close_matches

            guess = get_close_matches(name, names, 1) or names
            raise ArgumentError(f"unknown option {name!r}, allowed are {', '.join(names)}\nHint: try {guess[0]!r}.")
    return Options(**{**options, "base_dir": _resolve_base_dir(options.get("base_dir"))})  # type: ignore[arg-type]


def _resolve_base_dir(base_dir: str | PathLike[str] | None) -> str | None:
    path = fspath(base_dir) if isinstance(base_dir, PathLike) else base_dir
    if path is not None and not isinstance(path, str):
        raise ArgumentError(f"base_dir must be a path, got {base_dir!r}\nHint: pass a str or a pathlib.Path.")
    return path


def check_choice(name: str, value: object, allowed: tuple[str, ...], hint: str) -> None:
    """Raise `ArgumentError` unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ArgumentError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}\nHint: {hint}")


def check_positive(name: str, value: object) -> None:
    """Raise `ArgumentError` unless `value` is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArgumentError(
            f"{name} must be a whole number of at least 1, got {value!r}\nHint: leave it out for the default."
        )
