"""Extension of tox: it finds the Pythons that pyenv installed, whether or not a shim leads to them."""

import shutil
import subprocess
from pathlib import Path

from tox.config.sets import ConfigSet
from tox.plugin import impl
from tox.session.state import State


@impl
def tox_add_core_config(core_conf: ConfigSet, state: State) -> None:  # noqa: ARG001
    """Add the interpreters of pyenv to those that `tox --discover` names."""
    pyenv = shutil.which("pyenv")
    if pyenv:
        root = subprocess.run([pyenv, "root"], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
        state.conf.options.discover += map(str, sorted(Path(root).glob("versions/3.1[1-9]*/bin/python")))
