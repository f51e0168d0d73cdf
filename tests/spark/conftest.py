"""Sessions of Spark with real executors: two processes of one core and 1 GB each."""

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# A JVM of these tests lives for seconds to minutes. What the second compiler takes for it, and the threads that collect
# garbage, is not earned back: a third of the processor time of all tests.
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"

# A busy machine pauses processes for longer than Spark expects. As properties of Java they are for every session, also
# for those of programs that tests start.
TIMEOUTS = {
    "spark.executor.heartbeatInterval": "60s",
    "spark.network.timeout": "600s",
    "spark.python.authenticate.socketTimeout": "600s",
    "spark.sql.broadcastTimeout": "3000",
    "spark.storage.blockManagerSlaveTimeoutMs": "600s",
    "spark.worker.timeout": "600",
}
TEST_TIMEOUT_S = 1800

# Spark on one machine needs no network, and finds the Python of the tests. Programs that tests start get the same.
os.environ.update(
    SPARK_SUBMIT_OPTS=" ".join([JAVA_OPTIONS, *(f"-D{name}={value}" for name, value in TIMEOUTS.items())]),
    SPARK_LOCAL_IP="127.0.0.1",
    SPARK_LOCAL_HOSTNAME="localhost",
    PYSPARK_PYTHON=sys.executable,
    PYSPARK_DRIVER_PYTHON=sys.executable,
)

CONFIG = {
    "spark.executor.extraJavaOptions": JAVA_OPTIONS,
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.shuffle.partitions": "4",
    "spark.default.parallelism": "4",
    "spark.eventLog.enabled": "true",
    "spark.eventLog.rolling.enabled": "false",
    "spark.eventLog.compress": "false",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder more time."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S))


def start_session(folder: Path, master: str = "local-cluster[2,1,1024]", **config: str) -> "SparkSession":
    """Return a session whose files are in a folder."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(master).appName("tests")
    (folder / "events").mkdir(parents=True, exist_ok=True)
    files = {
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.eventLog.dir": f"file://{folder}/events",  # tests that kill executors read what Spark reports
    }
    for name, value in {**CONFIG, **files, **config}.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator["SparkSession"]:
    """A session with two executors; IMGMATCH_SPARK_MASTER chooses another master, such as local[2], to try things."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that Spark imports
        session = start_session(
            tmp_path_factory.mktemp("spark"), os.environ.get("IMGMATCH_SPARK_MASTER", "local-cluster[2,1,1024]")
        )
    yield session
    session.stop()
