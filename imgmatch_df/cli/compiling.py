"""Start of the first command on a machine, which compiles the kernels."""

import subprocess
import sys
from threading import Thread
from typing import Final

from imgmatch_df.cli.exit_codes import say
from imgmatch_df.threads import n_threads

_START: Final = "import sys; sys.path[:] = {path!r}; "
# This process needs them last: by then the second one has compiled them.
_HASH: Final = _START + "import imgmatch_df.hashes.phash, imgmatch_df.hashes.quality"
_COMPARE: Final = (
    _START
    + """
import polars as pl
import imgmatch_df
frame = pl.DataFrame({{"pdq": [bytes([row]) * 32 for row in range(10)]}})
imgmatch_df.cluster(frame, 3, "pdq")
imgmatch_df.match(frame, frame, 3, "pdq")
"""
)


def compile_kernels(*, compares: bool) -> None:
    """Say that kernels are being compiled, and compile some in a second process: of joins if the command `compares`."""
    say("compiling kernels, once on this machine")
    if n_threads() > 1:
        # A thread waits for the process, so that it is no zombie; the command does not wait for the thread.
        code = (_COMPARE if compares else _HASH).format(path=sys.path)
        Thread(target=_compile, args=(code,), daemon=True).start()


def _compile(code: str) -> None:
    # If it fails, this process compiles that kernel.
    subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
