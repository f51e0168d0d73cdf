"""Signals that end a command: the exit code says which one, nothing is left half written."""

import os
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from imgmatch_df.cli import exit_codes, inputs
from imgmatch_df.cli.app import app

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Ctrl-C reaches whole consoles there")
SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]

START = "import os, signal, sys, time\n"
WRITES = (
    START
    + """
from pathlib import Path
from imgmatch_df.cli.interrupts import end_on_signals, half_written
end_on_signals()
path = Path(sys.argv[1])
with half_written(path):
    path.touch()
    os.kill(os.getpid(), int(sys.argv[2]))
    time.sleep(0.1)
    print("goes on")
"""
)


def run(code, *words, ignored="", **options):
    trap = ["sh", "-c", f"trap '' {ignored}; exec \"$@\"", "sh"] if ignored else []
    command = [*trap, sys.executable, "-W", "error", "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, **options)


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_half_written_is_removed(tmp_path, number):
    done = run(WRITES, tmp_path / "partial", int(number))
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "interrupted, nothing was written\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_was_ignored_at_the_start_is_ignored(tmp_path, number):
    """As of ``imgmatch … &`` in a script, and of nohup. Polars has a handler of its own for Ctrl-C, set at import."""
    done = run(WRITES, tmp_path / "partial", int(number), ignored="INT HUP")
    assert (done.returncode, done.stdout, done.stderr) == (0, "goes on\n", "")


def test_a_closed_terminal_or_stream_changes_nothing(tmp_path):
    code = WRITES.replace("path.touch()", "path.touch(); os.close(2)")
    done = run(code, tmp_path / "partial", int(signal.SIGHUP))
    assert done.returncode == 128 + signal.SIGHUP
    assert list(tmp_path.iterdir()) == []


def test_a_forked_process_leaves_the_files_of_its_parent(tmp_path):
    code = WRITES.replace(
        "path.touch()",
        "path.touch()\n"
        "    if pid := os.fork():\n"
        "        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), path.exists())\n"
        "        sys.exit()",
    )
    done = run(code, tmp_path / "partial", int(signal.SIGTERM))
    assert (done.stdout, done.stderr) == (f"{128 + signal.SIGTERM} True\n", "")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_the_package_is_imported(number):
    code = START + (
        f"class Sender:\n    def find_spec(*_):\n        os.kill(os.getpid(), {int(number)})\n"
        "import imgmatch_df_command\nsys.meta_path.insert(0, Sender)\nimgmatch_df_command.main()"
    )
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "")


def test_an_interrupt_that_polars_raises_has_words_and_no_number(monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt("interrupted in polars")

    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(inputs, "open_table", interrupt)
    monkeypatch.setattr(exit_codes.os, "_exit", leave)
    result = CliRunner().invoke(app, ["visual-hash", str(tmp_path)])
    assert (result.exit_code, result.stderr) == (130, "interrupted, nothing was written\n")
