"""Sessions of Spark: a local one to begin with, and the checks of a DataFrame that a call gets."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from imgmatch_df.errors import ArgumentError, ImgMatchError, MissingExtraError
from imgmatch_df.options import shown

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MIN_PYSPARK: Final = (4, 0)
MIN_JAVA: Final = 17
_INSTALL_JAVA: Final = (
    f"install Java {MIN_JAVA} or later (default-jre-headless is a package of Debian), or set JAVA_HOME to its folder."
)

# What images need beside Spark's own defaults. A row may hold 10 MB.
DEFAULTS: Final[dict[str, str]] = {
    # Rows of a batch of Parquet that are decoded at a time: the default of 4,096 photos is some gigabytes of heap.
    "spark.sql.parquet.columnarReaderBatchSize": "64",
    # Rows and bytes that a Python worker gets at a time. Spark 4.0 has 256 MB, 4.3 has 64.
    "spark.sql.execution.arrow.maxRecordsPerBatch": "10000",
    "spark.sql.execution.arrow.maxBytesPerBatch": "64m",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
}
# One process does the work of all executors there.
_LOCAL: Final[dict[str, str]] = {
    "spark.driver.memory": "2g",
    "spark.driver.host": "localhost",
    "spark.driver.bindAddress": "127.0.0.1",
}


def session(master: str = "local[*]", **config: object) -> "SparkSession":
    """Return a classic Spark session with settings for images, on this machine unless `master` names a cluster.

    Verbs take DataFrames of every session; this one is for a laptop, for tests, and as a list of settings to copy.

    Parameters
    ----------
    master
        ``"local[*]"`` for a thread for each core of this machine, ``"local[4]"`` for four, or the URL of a cluster.
    **config
        Settings of Spark by their names: ``session(**{"spark.task.cpus": 2})``. They come before the defaults below.

    Returns
    -------
    SparkSession
        Stop it with ``stop()``. A second call returns it again, if the settings are the same.

    Raises
    ------
    ArgumentError
        If `master` or a setting is not allowed, or the process has a session with other settings.
    MissingExtraError
        If pyspark, pandas or Java is not installed, or is too old.

    Notes
    -----
    The settings are ``spark.sql.parquet.columnarReaderBatchSize=64`` (rows of Parquet that are decoded at a time),
    ``spark.sql.execution.arrow.maxBytesPerBatch=64m`` and ``maxRecordsPerBatch=10000`` (what a Python worker gets at a
    time), ``spark.sql.execution.arrow.pyspark.enabled=true``; on this machine also ``spark.driver.memory=2g``, the
    IP address ``127.0.0.1``, and this Python for the workers (``PYSPARK_PYTHON``, unless it is set).
    """
    builder = import_spark().SparkSession.builder
    if not isinstance(master, str) or not master.strip():
        raise ArgumentError(
            f"master must name where tasks run, got {shown(master)}\nHint: such as 'local[*]' or 'spark://host:7077'."
        )
    if master.startswith("sc://"):
        raise ArgumentError(
            f"master {shown(master)} is the URL of a Connect server\n"
            "Hint: SparkSession.builder.remote(url).getOrCreate() makes a session that all verbs take."
        )
    local = master.startswith("local[") or master == "local"
    settings = {**DEFAULTS, **(_LOCAL if local else {}), **_checked_config(config), "spark.master": master}
    found = _running(settings)
    if found is not None:
        return found
    check_java()
    if local:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    for name, value in settings.items():
        builder = builder.config(name, value)
    return _started(builder, master)


def _checked_config(config: dict[str, object]) -> dict[str, str]:
    checked = {}
    for name, value in config.items():
        if not name.startswith("spark.") or name == "spark.master":
            raise ArgumentError(
                f"{shown(name)} is not the name of a setting of Spark that session takes\n"
                "Hint: session(master, **{'spark.task.cpus': 2}), with the full name."
            )
        if not isinstance(value, str | bool | int | float):
            raise ArgumentError(
                f"the setting {name} must be a str, a number or a bool, got {shown(value)}\n"
                "Hint: leave it out for the default."
            )
        checked[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return checked


def _running(settings: dict[str, str]) -> "SparkSession | None":
    """Return the session of this process; raise `ArgumentError` if it has other settings, which stay as they are."""
    from pyspark.errors import PySparkRuntimeError

    try:
        found: SparkSession = import_spark().SparkSession.active()
    except PySparkRuntimeError:  # there is none
        return None
    for name, value in settings.items():
        if (set_to := found.conf.get(name, None)) != value and not _same_size(set_to, value):
            raise ArgumentError(
                f"this process has a Spark session with {name}={set_to}, not {value}\n"
                "Hint: use that session, which all verbs take, or stop it first: stop()."
            )
    return found


def _same_size(one: str | None, other: str) -> bool:
    """Return whether two sizes are the same number of bytes: Spark shows 64m as 67108864b."""
    units = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    found = [re.fullmatch(r"(\d+)([bkmg]?)b?", (text or "").lower()) for text in (one, other)]
    return all(found) and len({int(each[1]) * units[each[2]] for each in found if each}) == 1


def _started(builder: Any, master: str) -> "SparkSession":
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        found: SparkSession = builder.getOrCreate()
    except (PySparkException, Py4JError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # Py4J has its own first line, and Java's behind a colon.
        reason = next((line for line in lines if line.startswith(": ")), lines[0] if lines else type(error).__name__)
        raise ImgMatchError(
            f"Spark does not start with the master {shown(master)}: {reason.removeprefix(': ')[:300]}\n"
            "Hint: what it printed on standard error has the details."
        ) from error
    return found


def check_java() -> None:
    """Raise `MissingExtraError` unless the Java that Spark would start is there and not too old."""
    home = os.environ.get("JAVA_HOME")
    name = "java.exe" if sys.platform == "win32" else "java"
    java = shutil.which(Path(home, "bin", name)) if home else shutil.which("java")
    if java is None and home:
        raise MissingExtraError(
            f"Spark needs Java, and JAVA_HOME names no Java: there is no {Path(home, 'bin', name)}\n"
            f"Hint: {_INSTALL_JAVA}"
        )
    if java is None:
        raise MissingExtraError(f"Spark needs Java, which is not installed\nHint: {_INSTALL_JAVA}")
    try:
        done = subprocess.run(  # noqa: S603  # the Java that Spark would start
            [java, "-version"], capture_output=True, text=True, errors="replace", check=False
        )
        text = done.stderr + done.stdout
    except OSError as error:
        text, done = str(error), None
    version = re.search(r'version "(?:1\.)?(\d+)', text)
    if done is None or done.returncode or version is None:
        reason = " ".join(text.split())[:200] or "no output"
        raise MissingExtraError(f"Spark needs Java, and {java} does not run: {reason}\nHint: {_INSTALL_JAVA}")
    if int(version[1]) < MIN_JAVA:
        raise MissingExtraError(
            f"Spark needs Java {MIN_JAVA} or later, and {java} is Java {version[1]}\nHint: {_INSTALL_JAVA}"
        )


def import_spark() -> Any:
    """Return the module ``pyspark.sql``; raise `MissingExtraError` where it or pandas is missing or too old."""
    install = "Hint: pip install 'imgmatch-df[spark]' installs it."
    try:
        import pandas  # noqa: F401  # Spark needs it for Arrow
        import pyspark.sql
    except ImportError as error:
        package = (error.name or "pyspark").partition(".")[0]
        raise MissingExtraError(f"Spark needs the package {package}, which is not installed\n{install}") from error
    version = tuple(int(part) for part in re.findall(r"\d+", pyspark.__version__)[:2])
    if version < MIN_PYSPARK:
        raise MissingExtraError(
            f"Spark needs pyspark {'.'.join(map(str, MIN_PYSPARK))} or later, got {pyspark.__version__}\n{install}"
        )
    return pyspark.sql


def check_frame(df: object, name: str = "df") -> "DataFrame":
    """Return a DataFrame of Spark; raise `ArgumentError` for anything else."""
    import_spark()
    from pyspark.sql import DataFrame

    if not isinstance(df, DataFrame):
        raise ArgumentError(
            f"{name} must be a Spark DataFrame, got {shown(df)}\n"
            "Hint: spark.read.parquet makes one, and imgmatch_df has the same functions for other frames."
        )
    return df


def is_local(spark: "SparkSession") -> bool:
    """Return whether all executors of a session run on this machine."""
    return str(spark.conf.get("spark.master", "")).startswith("local")


def is_connect(spark: "SparkSession") -> bool:
    """Return whether a session is one of Spark Connect, whose server may be on another machine."""
    return type(spark).__module__.startswith("pyspark.sql.connect")
