"""Check of the installed uvicorn: `server.protocol` uses undocumented attributes, which differ between minors."""

import re
from importlib.metadata import version
from typing import Final

from imgmatch_df.errors import MissingExtraError

# The tests pass with the first and with the last of these minors. The bounds in pyproject.toml are the same.
FIRST_MINOR: Final = (0, 34)
LAST_MINOR: Final = (0, 54)


def check_uvicorn() -> None:
    """Raise unless the installed uvicorn is of a tested minor.

    Raises
    ------
    PackageNotFoundError
        If there is no uvicorn.
    MissingExtraError
        If its version is outside the range.
    """
    installed = version("uvicorn")
    found = re.match(r"(\d+)\.(\d+)", installed)
    minor = (int(found[1]), int(found[2])) if found else (0, 0)
    if not FIRST_MINOR <= minor <= LAST_MINOR:
        first, last = (".".join(map(str, bound)) for bound in (FIRST_MINOR, LAST_MINOR))
        raise MissingExtraError(
            f"imgmatch serve needs uvicorn {first} to {last}, the installed version is {installed}\n"
            'Hint: pip install "imgmatch-df[server]" installs one of these.'
        )
