"""The command `imgmatch` as a program of its own."""

import os
import sys

import pytest

PROGRAM = [sys.executable, "-W", "error", "-c", "from imgmatch_df.cli.app import main; main()"]
ON_A_SYSTEM_WITH_SIGNALS = pytest.mark.skipif(os.name == "nt", reason="Ctrl-C reaches whole consoles there")
