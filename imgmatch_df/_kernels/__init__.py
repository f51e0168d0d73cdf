"""The numba kernels: arrays in, arrays out, no I/O. Import the module that is needed; this package imports none."""

from collections.abc import Callable
from typing import Final

before_compiling: Final[list[Callable[[], None]]] = []
"""Functions that are called before the process compiles its first kernel, each once."""
