"""Start of the first command on a machine, which compiles the kernels."""

import subprocess
import sys
from threading import Thread
from typing import Final

from imgmatch_df.cli.exit_codes import say
from imgmatch_df.threads import n_threads

# This process needs them last: by then the second one has compiled them.
_COMPILE: Final = "import sys; sys.path[:] = {path!r}; import imgmatch_df.hashes.phash, imgmatch_df.hashes.quality"


def compile_kernels() -> None:
    """Say that kernels are being compiled, and compile some of them in a second process."""
    say("compiling kernels, once on this machine")
    if n_threads() > 1:
        # A thread waits for the process, so that it is no zombie; the command does not wait for the thread.
        Thread(target=_compile, args=(_COMPILE.format(path=sys.path),), daemon=True).start()


def _compile(code: str) -> None:
    # If it fails, this process compiles that kernel.
    subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
