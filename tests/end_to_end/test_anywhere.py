"""Hashing and joining where nothing can be written, where the user is not known, and where many start at once."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from drawing import draw, jpeg

import imgmatch_df
from imgmatch_df._kernels import compiled

pytestmark = pytest.mark.long

IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
NEEDS_ROOT = pytest.mark.skipif(
    not IS_ROOT or shutil.which("setpriv") is None, reason="needs root and setpriv, to start a program as another user"
)
SLOW = pytest.mark.slow
STRANGER = 65_534

# Small, so that it is compiled in a moment.
DISTANCE = """
import numpy as np
from imgmatch_df.matching.kernels.hamming import hamming_words
out = np.empty(1, np.uint16)
hamming_words(np.zeros(2, np.uint64), np.full((1, 2), 7, np.uint64), out)
print(out[0])
"""
HASH_AND_JOIN = """
import sys, warnings
import polars as pl
import imgmatch_df
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    frame = pl.DataFrame({"url": sys.argv[1:]}).imgmatch.visual_hash()
    pairs = frame.imgmatch.near_duplicates(24)
    kept = frame.imgmatch.remove_duplicates(24)
    ranked = frame.imgmatch.rank_images(frame["phash"][0], "phash", k=1)
names = [one.category.__name__ for one in caught]
print(names, frame["status"].to_list(), pairs.rows(), kept.height, ranked.item(0, "distance"))
"""
RIGHT = f"{['ok'] * 3} {[(0, 1, 0)]} 2 0"


@pytest.fixture
def place():
    """A folder that every user may enter, with a copy of the package that nobody has compiled."""
    folder = Path(tempfile.mkdtemp(prefix="imgmatch-test-")).resolve()
    folder.chmod(0o755)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(imgmatch_df.__file__).parent, folder / "site" / "imgmatch_df", ignore=ignored)
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    for number, seed in enumerate((1, 1, 2)):
        (folder / f"{number}.jpg").write_bytes(jpeg(draw(seed, 60, 60)))
    yield folder
    shutil.rmtree(folder)


def start(place: Path, code: str, *arguments: str, uid: int | None = None, before: str = "", **environment: str):
    """Run code with the copied package, with no environment but the one given, and return the finished process."""
    # To read, also where the environment lies in a folder of root's alone, as tox makes it; not to write.
    reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    command = [] if uid is None else ["setpriv", f"--reuid={uid}", "--clear-groups", *reads]
    code = f"import sys; sys.path.insert(0, {str(place / 'site')!r})\n{before}\n{code}"
    environment = {"TMPDIR": str(place / "tmp"), "PATH": os.environ["PATH"], **environment}
    return subprocess.run(
        [*command, sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        env=environment,
        cwd=place,
    )


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.nbc") if path.stat().st_size]


def images(place: Path) -> list[str]:
    return [str(place / f"{number}.jpg") for number in range(3)]


def warnings_of(done: subprocess.CompletedProcess[str]) -> int:
    return done.stderr.count("ImgMatchWarning")


@NEEDS_ROOT
@SLOW
def test_a_user_without_a_home_hashes_and_joins(place):
    done = start(place, HASH_AND_JOIN, *images(place), uid=STRANGER, HOME="/nonexistent", NUMBA_CACHE_DIR="/root/x")
    assert done.stdout.strip() == f"['ImgMatchWarning'] {RIGHT}", done.stderr


@NEEDS_ROOT
@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({}, marks=SLOW),
        pytest.param({"HOME": "/nonexistent"}, marks=SLOW),
        {"HOME": "/root", "NUMBA_CACHE_DIR": "/root/x"},
    ],
)
def test_a_user_without_a_home_has_a_folder_of_their_own(place, environment):
    done = start(place, DISTANCE, uid=STRANGER, **environment)
    assert (done.stdout.strip(), warnings_of(done)) == ("6", 1), done.stderr
    (folder,) = (place / "tmp").glob("imgmatch-df-*")
    found = folder.stat()
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (STRANGER, 0o700)
    assert kept(folder)


@NEEDS_ROOT
def test_the_second_process_compiles_nothing(place):
    assert start(place, DISTANCE, uid=STRANGER).stdout.strip() == "6"
    before = [(path, path.stat().st_mtime_ns) for path in kept(place / "tmp")]
    done = start(place, DISTANCE, uid=STRANGER, PYTHONDONTWRITEBYTECODE="1")
    assert (done.stdout.strip(), warnings_of(done)) == ("6", 1)
    assert [(path, path.stat().st_mtime_ns) for path in kept(place / "tmp")] == before != []


@NEEDS_ROOT
@pytest.mark.parametrize(
    "trap",
    [
        "of another user",
        *(pytest.param(one, marks=SLOW) for one in ("open to others", "a link", "a file", "below an open folder")),
    ],
)
def test_the_code_of_others_is_never_loaded(place, trap):
    """The folder below the temporary one is taken only if nobody else can have written it."""
    folder = place / "tmp" / f"imgmatch-df-{STRANGER}"
    good = place / "good"
    good.mkdir()
    good.chmod(0o1777)
    assert start(place, DISTANCE, uid=STRANGER, TMPDIR=str(good)).stdout.strip() == "6"
    (made,) = good.iterdir()
    if trap == "a file":
        folder.touch()
    elif trap == "a link":
        folder.symlink_to(made)
    else:
        shutil.copytree(made, folder)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 0 if trap == "of another user" else STRANGER, 0)
        folder.chmod(0o777 if trap == "open to others" else 0o755 if trap == "of another user" else 0o700)
    if trap == "below an open folder":
        (place / "tmp").chmod(0o777)
    for path in kept(place / "tmp"):
        path.write_bytes(b"\x80\x04cposix\n_exit\n(K\x07tR.")  # code that ends the process, were it loaded
    done = start(place, DISTANCE, uid=STRANGER)
    assert (done.returncode, done.stdout.strip(), warnings_of(done)) == (0, "6", 1), done.stderr


@NEEDS_ROOT
def test_a_home_that_is_not_known_is_no_folder_here(place):
    """The name of the home stays ``~`` where the user has no entry, and that is a folder of the working directory."""
    (place / "~").mkdir()
    (place / "~").chmod(0o777)
    done = start(place, DISTANCE, uid=54_321)
    assert (done.stdout.strip(), warnings_of(done)) == ("6", 1)
    assert list((place / "~").iterdir()) == []


@NEEDS_ROOT
def test_no_temporary_folder_either(place):
    """Where nothing at all can be written, the kernels are compiled and not kept."""
    before = "import tempfile\ntempfile.tempdir = '/proc'\n"
    done = start(place, DISTANCE, uid=STRANGER, before=before)
    assert (done.stdout.strip(), warnings_of(done)) == ("6", 1), done.stderr


@NEEDS_ROOT
def test_what_was_compiled_before_is_read_where_it_cannot_be_written(place):
    """As in a container with a read-only file system, or started as a user that the image does not know."""
    cache = place / "cache"
    assert start(place, DISTANCE, NUMBA_CACHE_DIR=str(cache)).stdout.strip() == "6"
    done = start(place, DISTANCE, uid=STRANGER, NUMBA_CACHE_DIR=str(cache))
    assert (done.stdout.strip(), warnings_of(done)) == ("6", 1)
    assert kept(place / "tmp") == []


@NEEDS_ROOT
def test_a_configured_folder_that_others_may_write_is_not_used(place):
    cache = place / "cache"
    assert start(place, DISTANCE, NUMBA_CACHE_DIR=str(cache)).stdout.strip() == "6"
    (folder,) = cache.iterdir()
    folder.chmod(0o777)
    for path in kept(cache):
        path.write_bytes(b"\x80\x04cposix\n_exit\n(K\x07tR.")  # code that ends the process, were it loaded
    before = {path: path.read_bytes() for path in kept(cache)}
    done = start(place, DISTANCE, NUMBA_CACHE_DIR=str(cache))
    assert (done.returncode, done.stdout.strip(), warnings_of(done)) == (0, "6", 1), done.stderr
    assert "other users may write into" in done.stderr
    assert {path: path.read_bytes() for path in kept(cache)} == before


@NEEDS_ROOT
def test_which_folders_are_private(tmp_path):
    folder = tmp_path / "above" / "cache"
    folder.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(folder.parent)
    for mode, above, user, group, private in (
        (0o755, 0o755, 0, 0, True),
        (0o775, 0o775, 0, 0, True),  # the group of root
        (0o755, 0o1777, 0, 0, True),  # as /tmp
        (0o755, 0o755, STRANGER, 0, False),
        (0o775, 0o755, 0, 1, False),
        (0o777, 0o755, 0, 0, False),
        (0o1777, 0o755, 0, 0, False),
        (0o755, 0o777, 0, 0, False),
    ):
        os.chown(folder, user, group)
        folder.chmod(mode)
        folder.parent.chmod(above)
        for path in (folder, link / "cache"):
            assert compiled._is_private(path) == private, (oct(mode), oct(above), user, group)
    assert not compiled._is_private(tmp_path / "absent")


@NEEDS_ROOT
def test_what_is_kept_cannot_be_written_by_others_whatever_the_umask(place):
    assert start(place, DISTANCE, NUMBA_CACHE_DIR=str(place / "cache"), before="import os; os.umask(0)").returncode == 0
    assert {stat.S_IMODE(path.stat().st_mode) & 0o022 for path in kept(place)} == {0}


def test_a_folder_that_can_be_written_is_taken_without_a_word(place):
    done = start(
        place, DISTANCE, NUMBA_CACHE_DIR=str(place / "cache"), before="import warnings\nwarnings.simplefilter('error')"
    )
    assert (done.stdout.strip(), done.stderr) == ("6", "")
    assert kept(place / "cache")
    assert list((place / "tmp").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk(place):
    """Empty files can be made, nothing can be written into them."""
    before = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    done = start(place, DISTANCE, before=before, HOME=str(place))
    assert (done.stdout.strip(), warnings_of(done)) == ("6", 1), done.stderr
    assert kept(place) == []
    done = start(place, DISTANCE, HOME=str(place))
    assert (done.stdout.strip(), warnings_of(done)) == ("6", 0), done.stderr


@pytest.mark.parametrize("ending", ["nbi", pytest.param("nbc", marks=SLOW)])
def test_a_file_that_was_cut_is_compiled_again(place, ending):
    assert start(place, DISTANCE).stdout.strip() == "6"
    (path,) = (place / "site").rglob(f"*.{ending}")
    whole = path.read_bytes()
    for length in (0, len(whole) // 2):
        path.write_bytes(whole[:length])
        done = start(place, DISTANCE)
        assert (done.stdout.strip(), warnings_of(done)) == ("6", 0), done.stderr
        assert len(path.read_bytes()) > length


@SLOW
def test_eight_processes_start_on_a_cold_cache(place):
    """Half of them with other types, so that the machine code of both is made for the same function at once."""
    (place / "site" / "twice.py").write_text(
        "from imgmatch_df._kernels.compiled import kernel\n"
        "@kernel\ndef total(values):\n    sum = 0.0\n    for value in values:\n        sum += value\n    return sum\n"
    )
    code = DISTANCE + "import twice; print(twice.total(np.full(3, 2.5).astype(sys.argv[1])))"
    dtypes = ["float64", "int8"] * 4
    for _ in range(2):  # cold, then what the first ones left
        with ThreadPoolExecutor(8) as starting:
            done = list(starting.map(lambda dtype: start(place, code, dtype), dtypes))
        assert [one.stdout.split() for one in done] == [["6", "7.5" if one == "float64" else "6.0"] for one in dtypes]
        assert [one.stderr for one in done] == [""] * 8


@pytest.mark.parametrize("code", [HASH_AND_JOIN, DISTANCE], ids=["a call", "a kernel"])
def test_without_a_compiler_one_error_says_so(place, code):
    done = start(place, code, *images(place), NUMBA_DISABLE_JIT="1")
    assert "ArgumentError: the environment variable NUMBA_DISABLE_JIT is set, " in done.stderr
    assert done.stderr.endswith("\nHint: unset NUMBA_DISABLE_JIT.\n")
    assert start(place, DISTANCE, NUMBA_DISABLE_JIT="0").stdout.strip() == "6"
