"""Sessions: the settings for images, what each worker gets, and one line of error where something is missing."""

import json
import os
import site
import subprocess
import sys
from pathlib import Path

import pytest
from connect import run_program

from imgmatch_df.errors import MissingExtraError
from imgmatch_df.spark.sessions import check_java

pytestmark = pytest.mark.spark
ROOT = Path(__file__).parents[2]


def test_tasks_run_on_two_executors(spark):
    import pyarrow as pa

    def who(batches):
        import os

        for batch in batches:
            yield pa.RecordBatch.from_pydict({"parent": [os.getppid()] * len(batch)})

    if not spark.conf.get("spark.master").startswith("local-cluster"):
        pytest.skip("another master")
    found = spark.range(100).repartition(8).mapInArrow(who, "parent long").distinct().collect()
    assert len(found) == 2


SESSION = """
    import json, os, sys
    import imgmatch_df
    import imgmatch_df.spark as ims
    from imgmatch_df.spark.workers import map_batches
    from pyspark.sql.types import LongType, StringType, StructField, StructType

    os.environ.pop("PYSPARK_PYTHON")
    os.environ.pop("POLARS_MAX_THREADS", None)
    config = {"spark.task.cpus": 5, "spark.ui.enabled": False, "spark.ui.showConsoleProgress": False}
    spark = ims.session("local[5]", **config)
    assert ims.session("local[5]", **config) is spark

    def threads(batches):
        import pyarrow as pa
        import polars as pl
        from imgmatch_df.threads import n_threads

        for batch in batches:
            found = [n_threads(), pl.thread_pool_size(), os.environ["POLARS_MAX_THREADS"], sys.executable]
            yield pa.RecordBatch.from_pydict({"found": [json.dumps(found)]})

    schema = StructType([StructField("found", StringType())])
    result = {"threads": [json.loads(row.found) for row in map_batches(spark.range(1), threads, schema).collect()]}
    names = ["spark.sql.parquet.columnarReaderBatchSize", "spark.sql.execution.arrow.maxBytesPerBatch"]
    result["settings"] = [spark.conf.get(name) for name in names]
    errors = []
    for master, named in (
        ("local[4]", {}), ("local[5]", {"spark.task.cpus": 1}), ("", {}), (7, {}), ("sc://host", {}),
        ("local[5]", {"task.cpus": 5}), ("local[5]", {"spark.task.cpus": None}), ("local[5]", {"spark.master": "local"}),
    ):
        try:
            ims.session(master, **named)
        except imgmatch_df.errors.ArgumentError as error:
            errors.append(str(error))
    result["kept"] = [spark.conf.get("spark.task.cpus"), spark.conf.get("spark.master")]
    imgmatch_df.__version__ = "99.0"  # of the driver
    try:
        ims.visual_hash(spark.sql("select 'x' as url")).collect()
    except Exception as error:
        errors.append([line for line in str(error).splitlines() if "ImportError" in line][-1])
    spark.stop()
    try:
        ims.session("nonsense://x")
    except imgmatch_df.errors.ImgMatchError as error:
        errors.append(str(error))
    print(json.dumps({**result, "errors": errors}))
"""


def test_a_session_has_settings_for_images_and_workers_as_many_threads_as_cores():
    found = json.loads(run_program(SESSION).splitlines()[-1])
    assert found["threads"] == [[5, 5, "5", sys.executable]]
    assert found["settings"] == ["64", "67108864b"]
    assert found["kept"] == ["5", "local[5]"]
    starts = [
        "this process has a Spark session with spark.master=local[5], not local[4]",
        "this process has a Spark session with spark.task.cpus=5, not ",
        "master must name where tasks run, got ''",
        "master must name where tasks run, got 7",
        "master 'sc://host' is the address of a Connect server",
        "'task.cpus' is not the name of a setting",
        "the setting spark.task.cpus must be a str, a number or a bool, got None",
        "'spark.master' is not the name of a setting",
        "ImportError: an executor has version 0.",
        "Spark does not start with the master 'nonsense://x': org.apache.spark.SparkException: Could not parse Master",
    ]
    for error, start in zip(found["errors"], starts, strict=True):
        assert start in error
        assert "ImportError" in error or "\nHint: " in error


def one_error(program: str, **variables: str) -> str:
    """The last lines of the error of a program in a process of its own, behind the name of the class."""
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables}, check=False)
    assert done.returncode == 1, done.stderr
    return done.stderr.partition("imgmatch_df.errors.MissingExtraError: ")[2].rstrip("\n")


PATHS = f"import sys; sys.path[:0] = {[str(ROOT), *site.getsitepackages()]!r}; "
SESSION_ALONE = "import imgmatch_df.spark; imgmatch_df.spark.session()"


def test_a_missing_java_is_one_line_and_a_hint(tmp_path):
    (tmp_path / "bin").mkdir()
    without = {"PATH": str(tmp_path / "bin"), "JAVA_HOME": ""}
    hint = "Hint: install Java 17 or later, such as the package default-jre-headless of Debian, or set JAVA_HOME to"
    assert one_error(PATHS + SESSION_ALONE, **without) == (
        f"Spark needs Java, which is not installed\n{hint} its folder."
    )
    wrong = one_error(PATHS + SESSION_ALONE, JAVA_HOME="/no/java")
    assert wrong.startswith(f"Spark needs Java, and JAVA_HOME names no Java: there is no /no/java/bin/java\n{hint}")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("""echo 'openjdk version "11.0.2" 2019-01-15' >&2""", "Spark needs Java 17 or later, and {java} is Java 11"),
        ("""echo 'java version "1.8.0_392"' >&2""", "Spark needs Java 17 or later, and {java} is Java 8"),
        ("echo no memory; exit 1", "Spark needs Java, and {java} does not run: no memory"),
        ("true", "Spark needs Java, and {java} does not run: no output"),
    ],
)
def test_an_old_or_broken_java_is_one_line_and_a_hint(script, message, tmp_path, monkeypatch):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\n{script}\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MissingExtraError) as caught:
        check_java()
    assert str(caught.value).split("\nHint: install Java 17 or later")[0] == message.format(java=java)


@pytest.mark.parametrize("package", ["pyspark", "pandas"])
def test_a_missing_package_is_one_line_and_a_hint(package, tmp_path):
    """An environment with all other packages: links to them."""
    for folder in map(Path, site.getsitepackages()):
        for one in folder.iterdir():
            if not one.name.startswith((package, "_")) or one.name == "__pycache__":
                (tmp_path / one.name).symlink_to(one)
    paths = f"import sys; sys.path[:0] = {[str(ROOT), str(tmp_path)]!r}; "
    expected = f"Spark needs the package {package}, which is not installed\nHint: pip install 'imgmatch-df[spark]' installs it."
    assert one_error(paths + SESSION_ALONE) == expected
    assert one_error(paths + "import imgmatch_df.spark; imgmatch_df.spark.visual_hash(None)") == expected
