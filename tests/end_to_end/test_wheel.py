"""The built archives: what they contain, and that the installed wheel runs every command outside the checkout."""

import base64
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import polars as pl
import pytest
from service import Service
from typer.main import get_command
from uv import find_uv_bin

import imgmatch_df
from imgmatch_df.cli.app import app

ROOT = Path(__file__).parents[2]
UV = find_uv_bin()  # pip takes ten times the time
LEFT_BEHIND = {"__pycache__", ".ipynb_checkpoints"}

pytestmark = pytest.mark.slow


def files_below(*folders: str) -> set[str]:
    """Return the names of the files in folders of the checkout, relative to it."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in found if not LEFT_BEHIND & set(path.parts)}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source archive, and with the wheel that is built from the source archive."""
    folder = tmp_path_factory.mktemp("archives")
    command = [sys.executable, "-m", "build", "--installer", "uv", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(archives: Path) -> Path:
    (path,) = archives.glob("*.whl")
    return path


class Installed:
    """A virtual environment that has the wheel, and a folder outside the checkout to work in."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        self.wheel = wheel
        subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
        self.scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.install()

    def install(self, extra: str = "") -> None:
        python = self.scripts / "python"
        subprocess.run([UV, "pip", "install", "--quiet", "--python", python, f"{self.wheel}{extra}"], check=True)
        subprocess.run([UV, "pip", "check", "--quiet", "--python", python], check=True)

    def run(self, program: str, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        hidden = ("PYTHONPATH", "IMGMATCH_TOKEN")
        done = subprocess.run(
            [self.scripts / program, *words],
            cwd=self.folder,
            env={name: value for name, value in os.environ.items() if name not in hidden},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == code, f"{program} {words}: {done.stdout}{done.stderr}"
        return done

    def imgmatch(self, *words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run("imgmatch", *words, code=code)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installed:
    """The wheel without extras, and the pictures of the demo."""
    made = Installed(tmp_path_factory.mktemp("installed"), wheel)
    assert "imgmatch remove-duplicates" in made.imgmatch("demo", "--folder", "photos").stdout
    (made.folder / "photos" / "cut_off.jpg").unlink()  # the one that cannot be decoded
    return made


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"imgmatch_df-{imgmatch_df.__version__}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        for path in (ROOT / "sql").glob("*.sql"):
            assert archive.read(f"imgmatch_df/_sql/{path.name}") == path.read_bytes()
    sql = {name.replace("sql/", "imgmatch_df/_sql/", 1) for name in files_below("sql")}
    assert sql
    assert "imgmatch_df/py.typed" in names
    packaged = {name for name in names if not name.startswith(info)}
    assert packaged == files_below("imgmatch_df") | sql | {"imgmatch_df_command.py"}
    assert f"{info}/licenses/LICENSE" in names
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra")) >= {"server", "cloud"}


def test_the_source_archive_holds_what_the_checkout_does(archives):
    (path,) = archives.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = ("benchmarks", "docs", "imgmatch_df", "notebooks", "sql", "tests")
    assert files_below(*folders) - names == set()
    documents = {path.name for path in ROOT.glob("*.md")}
    assert {*documents, "LICENSE", "Dockerfile", ".dockerignore", "pyproject.toml", "toxfile.py"} < names
    assert [name for name in names if re.match(r"\.(venv|tox|git)/|dist/|build/", name)] == []


def test_every_command_has_help(installed):
    commands = get_command(app).commands
    assert set(commands) >= {"visual-hash", "remove-duplicates", "rank-images", "export", "demo", "ping", "serve"}
    assert imgmatch_df.__version__ in installed.imgmatch("--version").stdout
    shown = installed.imgmatch("--help").stdout
    for name in commands:
        assert name in shown
        assert f"imgmatch {name}" in installed.imgmatch(name, "--help").stdout


def test_commands_hash_compare_and_export(installed):
    folder = installed.folder
    installed.imgmatch("visual-hash", "photos", "-o", "hashes.duckdb")
    installed.imgmatch("visual-hash", "photos", "-o", "hashes.parquet")
    hashes = pl.read_parquet(folder / "hashes.parquet")
    assert hashes.height > 10
    assert hashes["bmh1"].null_count() == hashes["phash"].null_count() == 0

    installed.imgmatch("remove-duplicates", "hashes.duckdb", "--radius", "24", "-o", "kept.parquet")
    assert 0 < pl.read_parquet(folder / "kept.parquet").height < hashes.height
    shutil.copytree(folder / "photos", folder / "again")
    installed.imgmatch("remove-duplicates", "again", "--reference", "hashes.duckdb", "-o", "new.parquet")
    assert not pl.read_parquet(folder / "new.parquet")["kept"].any()

    installed.imgmatch("report", "hashes.duckdb", "-o", "report.html")
    assert b'id="thumbnails-0"' in (folder / "report.html").read_bytes()

    query = min((folder / "photos").glob("*.jpg"))
    installed.imgmatch("rank-images", query, "hashes.duckdb", "-k", "3", "-o", "ranked.parquet")
    ranked = pl.read_parquet(folder / "ranked.parquet")
    assert ranked.height == 3
    assert ranked["distance"][0] == 0

    installed.imgmatch("export", "hashes.duckdb", "-o", "response.json")
    assert (folder / "response.json").read_text().count('"phash"') == hashes.height
    assert '"status"' in installed.imgmatch("ping").stdout
    installed.run("python", "-W", "error", "-m", "imgmatch_df", "ping")


def test_without_an_extra_an_error_names_it(installed):
    refused = installed.imgmatch("serve", code=2).stderr
    assert "imgmatch-df[server]" in refused
    assert "Traceback" not in refused
    code = (
        "import imgmatch_df, polars as pl\n"
        "print(pl.Series(['s3://bucket/a.jpg']).imgmatch.visual_hash(storage_options={}).struct.field('detail').item())"
    )
    assert "pip install 'imgmatch-df[cloud]'" in installed.run("python", "-c", code).stdout


def test_with_the_extra_it_serves(installed):
    installed.install("[server]")
    with Service(program=[str(installed.scripts / "imgmatch"), "serve"]) as running:
        assert running.ask("ping").code == 200
        photo = min((installed.folder / "photos").glob("*.jpg")).read_bytes()
        answer = running.ask("visual_hash", {"records": [{"_base64": base64.b64encode(photo).decode()}]})
        assert answer.code == 200
        assert len(answer.json["records"][0]["phash"]) == 64
        assert running.stop() == 0
