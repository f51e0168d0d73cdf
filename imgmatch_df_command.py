"""Entry point of the command `imgmatch`, which a signal ends also during the half second of importing the package.

The module is not in the package, because importing the package imports Polars.
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
