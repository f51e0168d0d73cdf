"""The command `imgmatch` as a program of its own."""

import os
import subprocess
import sys

import pytest

PROGRAM = [sys.executable, "-W", "error", "-c", "from imgmatch_df.cli.app import main; main()"]
ON_A_SYSTEM_WITH_SIGNALS = pytest.mark.skipif(os.name == "nt", reason="Ctrl-C reaches whole consoles there")

# Ctrl-C reaches the fifth batch while it is hashed. The sixth one waits for it, however long it takes to arrive.
_INTERRUPTED = """
import itertools, signal, threading, time
from imgmatch_df.batch import run
from imgmatch_df.frames import writing

numbers, hash_batch, main_thread = itertools.count(1), run.hash_batch, threading.main_thread().ident

def interrupted(*given):
    number = next(numbers)
    if number == 5:
        threading.Thread(target=signal.pthread_kill, args=(main_thread, signal.SIGINT)).start()
    elif number > 5:
        time.sleep(600)
    return hash_batch(*given)

run.hash_batch, writing._BATCH_ROWS = interrupted, 8
"""


def run_interrupted(*words: object, patch: str = "") -> tuple[int, str]:
    """Run a command that hashes into a store in batches of 8, and is interrupted; return its exit code and stderr."""
    program = [*PROGRAM[:-1], f"{_INTERRUPTED}{patch}\n{PROGRAM[-1]}", *map(str, words)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=200, check=False)
    return done.returncode, done.stderr
