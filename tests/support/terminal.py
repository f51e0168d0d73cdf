"""A pseudo-terminal around the command, to see what a person sees."""

import os
import threading
from contextlib import redirect_stderr, redirect_stdout

import pytest

from imgmatch_df.cli.app import app

ON_A_SYSTEM_WITH_TERMINALS = pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")


def on_a_terminal(*words, columns=120):
    """Run the command inside this process on a pseudo-terminal; return its exit code and what the user sees."""
    import pty

    controller, terminal = pty.openpty()
    seen = []

    def watch():
        try:
            while part := os.read(controller, 65536):
                seen.append(part)
        except OSError:  # the other side is closed
            pass

    watcher = threading.Thread(target=watch)
    watcher.start()
    with (
        os.fdopen(terminal, "w", buffering=1) as shown,
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(shown),
        redirect_stderr(shown),
    ):
        for name, value in (("COLUMNS", str(columns)), ("LINES", "40"), ("TERM", "xterm")):
            patch.setenv(name, value)
        # In standalone mode the program would leave with the code that is returned here.
        code = app([str(word) for word in words], standalone_mode=False)
    watcher.join()
    os.close(controller)
    return code or 0, b"".join(seen).decode()
