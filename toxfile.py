"""Extension of tox: it finds the Pythons that pyenv installed, and runs no Python twice."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tox.config.sets import ConfigSet
from tox.plugin import impl
from tox.session.state import State
from uv import find_uv_bin

_SUPPORTED = range(11, 15)


@impl
def tox_add_core_config(core_conf: ConfigSet, state: State) -> None:  # noqa: ARG001
    """Add the interpreters of pyenv to `PATH`, name the newest and the oldest, leave out their environments."""
    pyenv = shutil.which("pyenv")
    if pyenv:
        root = subprocess.run([pyenv, "root"], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
        folders = map(str, sorted(Path(root).glob("versions/3.1[1-9]*/bin")))
        os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *folders])
    os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")  # a Python that is not installed is skipped
    os.environ["TOX_UV"] = find_uv_bin()
    minors = [minor for minor in _SUPPORTED if shutil.which(f"python3.{minor}")] or [sys.version_info.minor]
    os.environ["TOX_NEWEST_PYTHON"], os.environ["TOX_OLDEST_PYTHON"] = f"py3{minors[-1]}", f"py3{minors[0]}"
    chosen = getattr(state.conf.options, "env", None)
    if (chosen is None or chosen.is_default_list) and not getattr(state.conf.options, "skip_env", ""):
        # `newest` and `oldest` run all tests with these Pythons.
        state.conf.options.skip_env = f"^py3({minors[0]}|{minors[-1]})$"
