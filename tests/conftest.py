"""What every test may ask for."""

import base64
import functools
import os
import sys
from pathlib import Path

import polars as pl
import pytest
import typer.testing
from drawing import draw, jpeg
from hypothesis import settings
from warm_up import warm_up

import imgmatch_df  # noqa: F401  # registers the namespaces

settings.register_profile("untimed", deadline=None)  # a loaded machine takes longer than 200 ms at times
settings.load_profile("untimed")

# A program builds its command once. So do the tests, which call it a thousand times: 12 ms less for each call.
typer.testing._get_command = functools.cache(typer.testing._get_command)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the kernels that most tests need, before workers start: the first tests neither wait nor see it said."""
    if not hasattr(session.config, "workerinput"):
        warm_up()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Ignore the folders whose tests need more packages, unless -m selects their marker."""
    needed = set(config.getoption("markexpr").replace("not ", "not-").split())
    folders = {"browser", "orchestrators", "packages", "spark"}
    return True if collection_path.parent.name == "tests" and collection_path.name in folders - needed else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one more than processors: tests wait for timeouts and for processes that they start."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def encoded() -> list[bytes]:
    """Forty encoded pictures, all different."""
    return [jpeg(draw(seed, 40 + 3 * seed, 90 - seed)) for seed in range(40)]


@pytest.fixture
def folder(tmp_path: Path, encoded: list[bytes]) -> Path:
    """A folder of the forty pictures."""
    for number, data in enumerate(encoded):
        (tmp_path / f"picture{number:02}.jpg").write_bytes(data)
    return tmp_path


@pytest.fixture
def paths(folder: Path) -> pl.DataFrame:
    """A frame of their paths, in order."""
    return pl.DataFrame({"url": sorted(map(str, folder.glob("*.jpg")))})


@pytest.fixture
def mixed(encoded: list[bytes], folder: Path) -> pl.DataFrame:
    """Sources of every kind and every way to fail, in one String column."""
    good = base64.b64encode(encoded[0]).decode()
    (folder / "cut.jpg").write_bytes(encoded[1][:400])
    (folder / "page.html").write_text("<!DOCTYPE html><p>404")
    (folder / "empty.jpg").write_bytes(b"")
    return pl.DataFrame(
        {
            "url": [
                str(folder / "picture00.jpg"),
                None,
                good,
                f"data:image/jpeg;base64,{good}",
                "",
                (folder / "picture02.jpg").as_uri(),
                str(folder / "no-such-file.jpg"),
                str(folder),
                str(folder / "cut.jpg"),
                str(folder / "page.html"),
                str(folder / "empty.jpg"),
                "data:image/png;base64,@@@",
                str(folder / "picture03.jpg"),
            ],
            "expected": [
                *("ok", "missing", "ok", "ok", "missing", "ok", "not_found", "bad_source"),
                *("decode_failed", "decode_failed", "missing", "bad_source", "ok"),
            ],
        }
    )


@pytest.fixture
def lock(monkeypatch):
    """A function that makes folders impossible to list, also for root."""
    real, locked = os.scandir, set()

    def scandir(path="."):
        if isinstance(path, str | Path) and Path(path).resolve() in locked:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)

    def lock_folder(path):
        locked.add(path.resolve())
        return lambda: locked.remove(path.resolve())

    return lock_folder


@pytest.fixture
def without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the packages of the extras that read formats seem missing."""
    for module in ("pillow_heif", "imagecodecs", "rawpy"):
        monkeypatch.setitem(sys.modules, module, None)
