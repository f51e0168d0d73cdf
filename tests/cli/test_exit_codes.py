"""Usage errors, which Typer finds, have the form of all other errors: what is wrong, and one hint."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from imgmatch_df.cli.app import app

# By the kind of error: arguments, a part of the message, the command whose help the hint names.
USAGE_ERRORS = {
    "unknown option": (["visual-hash", ".", "--nonsense"], "--nonsense", "imgmatch visual-hash"),
    "misspelled option": (["visual-hash", ".", "--max-pixel", "1"], "--max-pixels", "imgmatch visual-hash"),
    "unknown short option": (["rank-images", "a.jpg", ".", "-z"], "-z", "imgmatch rank-images"),
    "unknown option before the command": (["--nonsense", "ping"], "--nonsense", "imgmatch"),
    "unknown command": (["nonsense"], "No such command 'nonsense'", "imgmatch"),
    "misspelled command": (["visual-has"], "No such command 'visual-has'", "imgmatch"),
    "missing argument": (["export"], "Missing argument 'STORE'", "imgmatch export"),
    "missing query": (["rank-images"], "Missing argument 'QUERY'", "imgmatch rank-images"),
    "missing value": (["remove-duplicates", ".", "--radius"], "'--radius' requires", "imgmatch remove-duplicates"),
    "value for a flag": (["visual-hash", ".", "--prune=yes"], "'--prune' does not take", "imgmatch visual-hash"),
    "not a whole number": (["remove-duplicates", ".", "--radius", "2.5"], "'--radius'", "imgmatch remove-duplicates"),
    "not a number": (["visual-hash", ".", "--timeout-s", "soon"], "'--timeout-s'", "imgmatch visual-hash"),
    "not a port": (["serve", "--port", "http"], "'--port'", "imgmatch serve"),
    "too many arguments": (["ping", "extra"], "unexpected extra argument", "imgmatch ping"),
}


@pytest.mark.parametrize(("words", "part", "command"), USAGE_ERRORS.values(), ids=USAGE_ERRORS.keys())
def test_a_usage_error_names_the_help_of_its_command(words, part, command):
    result = CliRunner().invoke(app, words, prog_name="imgmatch")
    assert result.exit_code == 2
    assert result.stdout == ""
    message, hint = result.stderr.splitlines()
    assert message.startswith("imgmatch: ")
    assert part in message
    assert hint == f"Hint: run {command} --help."


def test_a_usage_error_of_a_program():
    program = [sys.executable, "-W", "error", "-c", "import sys; sys.argv[0] = 'imgmatch'\n"]
    program[-1] += "from imgmatch_df.cli import main; main()"
    result = subprocess.run([*program, "ping", "extra"], capture_output=True, timeout=250, text=True)
    assert result.returncode == 2
    assert result.stderr.splitlines()[1:] == ["Hint: run imgmatch ping --help."]


def test_no_argument_shows_the_help():
    result = CliRunner().invoke(app, [], prog_name="imgmatch")
    assert "visual-hash" in result.output
    assert "Hint:" not in result.output
