"""Formats that optional packages read: the extra of each, its suffixes, and whether it is installed."""

from importlib.util import find_spec
from typing import Final, NamedTuple


class Extra(NamedTuple):
    """An extra of this project that reads one format.

    Parameters
    ----------
    name
        Name of the extra, and of the format in the option `formats`.
    module
        Module of the package that reads it.
    suffixes
        Suffixes of its files, in lower case.
    """

    name: str
    module: str
    suffixes: frozenset[str]


HEIF: Final = Extra("heif", "pillow_heif", frozenset((".heic", ".heics", ".heif", ".heifs", ".hif")))
JXL: Final = Extra("jxl", "imagecodecs", frozenset((".jxl",)))
RAW: Final = Extra(
    "raw",
    "rawpy",
    frozenset(
        (
            *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".k25", ".kdc"),
            *(".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".rwz", ".sr2", ".srf"),
            *(".srw", ".x3f"),
        )
    ),
)
EXTRAS: Final = (HEIF, JXL, RAW)


def is_installed(extra: Extra) -> bool:
    """Return whether the package of an extra is installed; it is not imported."""
    return find_spec(extra.module) is not None


def read_suffixes() -> frozenset[str]:
    """Return the suffixes of the extras that are installed."""
    return frozenset[str]().union(*(extra.suffixes for extra in EXTRAS if is_installed(extra)))


def install_command(*extras: Extra) -> str:
    """Return the command that installs some extras."""
    return f"pip install 'imgmatch-df[{','.join(extra.name for extra in extras)}]'"


def extras_of(suffixes: frozenset[str]) -> tuple[Extra, ...]:
    """Return the extras that read at least one of `suffixes`."""
    return tuple(extra for extra in EXTRAS if not extra.suffixes.isdisjoint(suffixes))
