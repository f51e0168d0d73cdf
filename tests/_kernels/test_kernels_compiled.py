"""What is kept of compiled kernels: each release finds its own, and no other's."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import imgmatch_df
from imgmatch_df._kernels import compiled

pytestmark = pytest.mark.long

CODE = """
import numpy as np
from imgmatch_df.matching.kernels.hamming import hamming_words
out = np.empty(1, np.uint16)
hamming_words(np.zeros(2, np.uint64), np.full((1, 2), 7, np.uint64), out)
print(out[0])
"""


@pytest.fixture
def package(tmp_path):
    """A copy of the package, of which nothing is compiled."""
    ignored = shutil.ignore_patterns("__pycache__")
    return shutil.copytree(Path(imgmatch_df.__file__).parent, tmp_path / "imgmatch_df", ignore=ignored)


def distance(package) -> str:
    command = [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1])\n" + CODE, str(package.parent)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=250).stdout.strip()


def kept(package) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in package.rglob("*.nb?")}


def test_a_change_of_a_callee_in_another_file_is_seen(package):
    assert distance(package) == "6"
    popcount = package / "_kernels" / "popcount.py"
    source = popcount.read_text()
    changed = source.replace("return builder.ctpop(args[0])", "return builder.add(args[0], args[0])")
    assert changed != source
    popcount.write_text(changed)
    assert distance(package) == "28"
    popcount.write_text(source)
    assert distance(package) == "6"


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_a_damaged_file_is_not_opened(tmp_path, ending):
    """What is kept is a pickle: whatever else stands there would run here."""
    files = compiled._Files(str(tmp_path), "kernel-1", "stamp")
    files.save("int8", "code")
    (path,) = tmp_path.glob(f"*.{ending}")
    whole = path.read_bytes()
    flipped = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 7)]
    cut = [whole[:length] for length in range(0, len(whole), 5)]
    for damaged in (*cut, *flipped, bytes(range(256)) * 9, b"\x80\x04cposix\n_exit\n(K\x07tR.", whole + b"."):
        path.write_bytes(damaged)
        assert files.load("int8") is None
    files.save("int8", "code")
    assert files.load("int8") == "code"
    files.flush()
    assert files.load("int8") is None


def test_what_was_compiled_is_kept_unless_it_is_damaged_or_of_another_release(package):
    assert distance(package) == "6"
    before = kept(package)
    assert len(before) == 2
    assert distance(package) == "6"
    assert kept(package) == before

    for path in package.rglob("*.nb?"):
        path.write_bytes(b"\x80\x04cposix\n_exit\n(K\x07tR.")
    assert distance(package) == "6"
    after = kept(package)
    assert after.keys() == before.keys()
    assert all(after[name] > before[name] for name in before)

    # Another release, here by a line break at the end of a file, has names of its own.
    file = package / "_kernels" / "views.py"
    file.write_text(file.read_text() + "\n")
    assert distance(package) == "6"
    assert len(kept(package)) == 2 * len(before)


def test_two_processes_that_compile_one_kernel_for_two_types_keep_both_codes_apart(tmp_path, monkeypatch):
    """Each has read the index before the other one wrote it."""
    files = compiled._Files(str(tmp_path), "kernel-1", "stamp")
    with monkeypatch.context() as before:
        before.setattr(compiled._Files, "_index", lambda self: {})
        files.save("int8", "code for int8")
        files.save("float64", "code for float64")
    assert len(list(tmp_path.glob("*.nbc"))) == 2
    assert files.load("int8") is None  # compiled again
    assert files.load("float64") == "code for float64"
