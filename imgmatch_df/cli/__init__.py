"""The command line `imgmatch`."""

from imgmatch_df.cli.app import main

__all__ = ["main"]
