"""What SECURITY.md names is there, with the figures that it gives."""

import re
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from imgmatch_df.batch import isolation, isolation_process
from imgmatch_df.cli.app import app
from imgmatch_df.images import decode_costs, pixel_budget
from imgmatch_df.images.decode_budget import MAX_SCANS
from imgmatch_df.options import Options

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
ROWS = dict(re.findall(r"^\| `(\S+)` \| (\S+) \|", TEXT, re.MULTILINE))


def defaults_of(command):
    parameters = get_command(app).commands[command].params
    return {
        flag: parameter.default
        for parameter in parameters
        for flag in (*parameter.opts, *parameter.secondary_opts)
        if flag.startswith("--")
    }


@pytest.mark.parametrize("name", ROWS)
def test_the_defaults_in_the_tables_are_those_of_the_code(name):
    default = defaults_of("serve")[name] if name.startswith("--") else Options.defaults()[name]
    assert ROWS[name] == (default if isinstance(default, str) else f"{default:,g}" if default < 100 else f"{default:,}")


def test_there_is_a_row_for_each_limit_of_the_python_options():
    limits = {name for name, default in Options.defaults().items() if type(default) in (int, float)}
    assert limits <= ROWS.keys()


def test_the_figures_in_the_text_are_those_of_the_code():
    text = " ".join(TEXT.split())
    assert f"One image takes at most {decode_costs.MAX_DECODE_BYTES / 1e9:g} GB" in text
    assert f"at a time take at most {pixel_budget.MAX_PIXEL_BYTES / 1e9:g} GB together" in text
    assert f"at most {MAX_SCANS} scans" in text
    assert f"{isolation.DEADLINE_S:g} s and {isolation_process.MAX_MEMORY_BYTES / 1e9:g} GB for each image" in text


def test_every_option_in_the_text_exists():
    flags = {flag for command in get_command(app).commands for flag in defaults_of(command)} | {"--version"}
    assert set(re.findall(r"`(?:imgmatch )?(--[a-z0-9-]+)", TEXT)) <= flags
    assert set(re.findall(r"`([a-z_]+)=", TEXT)) <= Options.defaults().keys()
    assert re.findall(r"`([a-z_]+)=", TEXT)


def test_it_is_linked_and_shipped():
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "SECURITY.md" in project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert not re.findall(r"\S+@\S+\.\S+", TEXT)  # no mailbox that nobody reads
