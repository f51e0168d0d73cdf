"""`kernel`: how each kernel is compiled, and how its machine code is kept for the next process.

numba finds what it kept by the names of the function and of its file, and takes it for stale if that one file changed
or numba did. That is not enough: callees stand in other files, and because the index is written before the code, a
process killed in between leaves a fresh index before the code of another release, for good. So the name that numba
sees tells its version and all the sources of this package: no release opens what another one wrote.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from importlib import resources
from typing import Any, Final

import numba


def _release() -> str:
    sources = sorted(
        (file.name, file.read_bytes()) for file in resources.files(__package__).iterdir() if file.is_file()
    )
    return hashlib.sha256(repr((numba.__version__, sources)).encode()).hexdigest()[:12]


_RELEASE: Final = _release()


def kernel(function: Callable[..., Any] | None = None, /, *, signatures: Any = None, **options: Any) -> Any:
    """Return the function compiled, without the GIL: at its first call, or now for `signatures`; options as of njit."""
    if function is None:
        return partial(kernel, signatures=signatures, **options)
    function.__qualname__ = f"{function.__qualname__}-{_RELEASE}"
    return numba.njit(signatures, nogil=True, cache=True, **options)(function)
