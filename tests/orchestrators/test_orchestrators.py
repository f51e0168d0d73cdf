"""The examples of docs/guide/pipelines.md run in the orchestrators that they are for."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from drawing import draw, jpeg

import imgmatch_df

pytestmark = [pytest.mark.orchestrators, pytest.mark.timeout(2000)]  # their commands take long on a busy machine

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "pipelines.md"
BLOCK = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with photos, of which two are equal, that has the files of the page."""
    (tmp_path / "photos").mkdir()
    for name, seed in (("a", 1), ("b", 2), ("copy of a", 1)):
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(jpeg(draw(seed)))
    for name, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("/srv", str(tmp_path)), encoding="utf-8")
    return tmp_path


def run(place: Path, *command: str, **variables: str) -> str:
    """Return what a program of this environment prints."""
    scripts = Path(sys.executable).parent
    path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "HOME": str(place), "PATH": path, **variables}
    environment.pop("PYTHONSAFEPATH", None)  # modules are imported from the folder
    program = str(scripts / command[0])
    done = subprocess.run(
        [program, *command[1:]], cwd=place, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def n_stored(place: Path) -> int:
    return imgmatch_df.read_hashes(place / "hashes.duckdb").filter(status="ok").height


def test_airflow(place: Path) -> None:
    (place / "dags").mkdir()
    (place / "photos_dag.py").rename(place / "dags" / "photos_dag.py")
    variables = {
        "AIRFLOW_HOME": str(place / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(place / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
    }
    for command in (["db", "migrate"], ["dags", "reserialize"], ["dags", "test", "photos"]):
        run(place, "airflow", *command, **variables)
    assert n_stored(place) == 3
    summary = json.loads((place / "summary.json").read_text())
    assert (summary["exit_code"], summary["n_new"]) == (0, 3)


def test_dagster(place: Path) -> None:
    code = "import dagster, photos_asset as p; r = dagster.materialize([p.hashes])"
    code += "; print([m.metadata['n_new'].value for m in r.asset_materializations_for_node('hashes')])"
    assert run(place, "python", "-c", code, DAGSTER_HOME="").endswith("[3]\n")
    assert n_stored(place) == 3


def test_prefect(place: Path) -> None:
    code = "import json, photos_flow; print(json.dumps(photos_flow.photos()))"
    variables = {
        "PREFECT_HOME": str(place / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "400",
    }
    printed = run(place, "python", "-c", code, **variables)
    assert json.loads(printed.splitlines()[-1])["status"] == {"ok": 3}
    assert n_stored(place) == 3


def test_dbt(place: Path) -> None:
    imgmatch_df.write_hashes(imgmatch_df.scan_images(place / "photos"), place / "hashes.duckdb", source="path")
    project = 'name: photos\nversion: "1.0.0"\nprofile: photos\nflags: {send_anonymous_usage_stats: false}\n'
    (place / "dbt_project.yml").write_text(project)
    run(place, "dbt", "run", "--profiles-dir", str(place))
    with duckdb.connect(str(place / "warehouse.duckdb")) as warehouse:
        rows = warehouse.sql("SELECT kept, count(*)::INT FROM copies GROUP BY kept ORDER BY kept").fetchall()
    assert rows == [(False, 1), (True, 2)]
