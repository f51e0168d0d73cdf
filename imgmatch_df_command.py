"""The start of the command `imgmatch`: a signal ends it also while the package is imported, which takes half a second.

A module of its own, because the first line that names the package imports Polars.
"""

import os
import signal


def main() -> None:
    """Run the command line."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _frame: os._exit(128 + number))
    from imgmatch_df.cli import app

    app.main()
