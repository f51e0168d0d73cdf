"""numba, imported without scipy, which the kernels of this package do not need. Other modules import it from here."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from threading import get_ident
from typing import Any


class _WithoutScipy(MetaPathFinder):
    """Finder of modules by which one thread finds no scipy. The imports of other threads do not change."""

    def __init__(self) -> None:
        self._thread = get_ident()

    def find_spec(self, fullname: str, *_: Any) -> None:
        """Raise `ModuleNotFoundError` for scipy and its modules."""
        if fullname.partition(".")[0] == "scipy" and get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


@contextmanager
def without_scipy() -> Iterator[None]:
    """Hide scipy from the imports of this thread within the context.

    numba imports `scipy.linalg` only to find out whether it is installed, which takes longer than the import of numba.
    """
    finder = _WithoutScipy()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


with without_scipy():
    import numba
    from llvmlite import binding
    from numba import types
    from numba.core import caching, cgutils, config
    from numba.core.datamodel.models import PrimitiveModel
    from numba.core.runtime import _nrt_python
    from numba.extending import intrinsic, register_model

__all__ = [
    "PrimitiveModel",
    "add_symbols",
    "caching",
    "cgutils",
    "config",
    "import_compiler",
    "intrinsic",
    "numba",
    "register_model",
    "types",
    "without_scipy",
]


@cache
def add_symbols() -> None:
    """Name the functions of numba's runtime to LLVM, which kernels that allocate arrays call.

    `rtsys.initialize` also compiles those that are inlined, 0.02 s, which numba does before it compiles a kernel.
    """
    for name, address in _nrt_python.c_helpers.items():
        binding.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


def import_compiler() -> None:
    """Import numba's implementations of Python and NumPy functions, which only compiling needs."""
    with without_scipy():
        from numba.np import arraymath
    # Other kernels of the process may call functions that need scipy: numba then imports it while it compiles them.
    if hasattr(arraymath, "_HAVE_BLAS"):  # from numba 0.68 on
        arraymath._HAVE_BLAS = find_spec("scipy") is not None
