"""Entry point of the command `imgmatch`, which a signal ends also during the half second of importing the package.

The module is not in the package, because importing the package imports Polars.
"""

import atexit
import gc
import os
import signal


def main() -> None:
    """Run the command line."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _frame: os._exit(128 + number))
    # What the modules hold is used until the end. Searching it for garbage takes 0.03 s while they are imported, and
    # 0.1 to 0.2 s at exit.
    atexit.register(gc.freeze)
    gc.disable()
    from imgmatch_df.cli import app

    gc.freeze()
    gc.enable()
    app.main()
