"""Extension of tox: it finds the Pythons that pyenv installed, and runs no Python twice."""

import re
import shutil
import subprocess
from pathlib import Path

from tox.config.sets import ConfigSet
from tox.plugin import impl
from tox.session.state import State

_SUPPORTED = range(11, 15)


@impl
def tox_add_core_config(core_conf: ConfigSet, state: State) -> None:  # noqa: ARG001
    """Add the interpreters of pyenv to those that `tox --discover` names; leave out that of `newest`."""
    options = state.conf.options
    found: list[Path] = []
    pyenv = shutil.which("pyenv")
    if pyenv:
        root = subprocess.run([pyenv, "root"], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
        found = sorted(Path(root).glob("versions/3.1[1-9]*/bin/python"))
        options.discover += map(str, found)
    minors = {int(match[1]) for path in found if (match := re.search(r"versions/3\.(\d+)", str(path)))}
    minors = {minor for minor in _SUPPORTED if minor in minors or shutil.which(f"python3.{minor}")}
    chosen = getattr(options, "env", None)
    if minors and (chosen is None or chosen.is_default_list) and not getattr(options, "skip_env", ""):
        options.skip_env = f"^py3{max(minors)}$"
