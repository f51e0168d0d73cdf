"""Imports and messages of a command: of the first one on a machine, which compiles the kernels, and of later ones."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from drawing import draw, jpeg

import imgmatch_df
import imgmatch_df_command

COMPILING = "compiling kernels, once on this machine\n"
# Each takes 20 ms to 1 s. With scipy in the environment, numba imports it.
NOT_NEEDED = [
    *("scipy", "numba.np.arraymath", "numba.np.arrayobj", "duckdb", "pyarrow.compute", "pycurl", "fsspec", "pathspec"),
    "imgmatch_df.hashes.kernels.borders",
]
PROGRAM = f"""
import atexit, pathlib, sys
modules = pathlib.Path("modules.txt")
atexit.register(lambda: modules.write_text(repr(sorted(set({NOT_NEEDED}) & set(sys.modules)))))
from imgmatch_df_command import main
main()
"""
SCIPY = """
with open(__file__ + ".imported", "a") as file:
    file.write("once\\n")
__version__ = "1.20.0"
"""
# numba sees no scipy while it is imported by this package; other threads and later imports do.
HIDDEN = """
import threading
from imgmatch_df._kernels.importing import without_scipy
found = []
def look(where):
    try:
        import scipy
    except ImportError:
        found.append(f"{where}: none")
    else:
        found.append(f"{where}: {scipy.__version__}")
with without_scipy():
    look("hidden")
    thread = threading.Thread(target=look, args=["other thread"])
    thread.start()
    thread.join()
look("later")
print(found)
"""
NUMBA = """
import sys
import imgmatch_df._kernels.compiled
from imgmatch_df._kernels.importing import import_compiler
import_compiler()
print([name for name in sys.modules if name.startswith("scipy")])
"""


@pytest.fixture
def place(tmp_path):
    """A folder with ten images, a copy of the package of which nothing is compiled, and a scipy that notes imports."""
    (tmp_path / "photos").mkdir()
    for number in range(10):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(jpeg(draw(number // 2, 60, 60)))
    package, ignored = Path(imgmatch_df.__file__).parent, shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, tmp_path / "site" / "imgmatch_df", ignore=ignored)
    shutil.copy(imgmatch_df_command.__file__, tmp_path / "site")
    (tmp_path / "site" / "scipy").mkdir()
    (tmp_path / "site" / "scipy" / "__init__.py").write_text(SCIPY)
    return tmp_path


def start(place: Path, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run code with the copied package and the scipy; return the finished process."""
    environment = {**os.environ, "PYTHONPATH": str(place / "site"), "PYTHONSAFEPATH": "1"}
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *words],
        capture_output=True, text=True, timeout=280, cwd=place, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def test_scipy_is_hidden_from_one_thread_only(place):
    done = start(place, HIDDEN)
    assert done.stdout == "['hidden: none', 'other thread: 1.20.0', 'later: 1.20.0']\n"


def test_numba_is_imported_without_scipy(place):
    assert start(place, NUMBA).stdout == "[]\n"


@pytest.mark.slow
def test_the_first_command_says_that_it_compiles_and_later_ones_import_no_compiler(place):
    hashing, joining = ["visual-hash", "photos"], ["remove-duplicates", "photos", "--radius", "24"]
    for words in (hashing, joining):  # the second one compiles the joins
        cold = start(place, PROGRAM, *words)
        assert cold.stderr == COMPILING
        warm = start(place, PROGRAM, *words)
        assert (warm.stdout, warm.stderr) == (cold.stdout, "")
        assert (place / "modules.txt").read_text() == "[]"
    assert not list((place / "site" / "scipy").glob("*.imported"))
