"""Programs in processes of their own, such as those of Connect sessions: a process has one kind of session.

`run_connected` runs a program that has a Connect session as `spark`, and returns what it prints.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

SUPPORT = Path(__file__).parents[1] / "support"

_CONNECT = """
import sys, warnings
from pyspark.sql import SparkSession
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of packages that Spark imports
    spark = SparkSession.builder.remote({master!r}).getOrCreate()
assert type(spark).__module__.startswith("pyspark.sql.connect"), type(spark)
try:
{program}
finally:
    spark.stop()
"""


def run_connected(program: str, *arguments: object, master: str = "local[2]", timeout_s: float = 800) -> str:
    """Return what a program prints that has a Connect session with a server of its own, as the name `spark`.

    Parameters
    ----------
    program
        Python, indented as it may be; its arguments are ``sys.argv[1:]``, and it can import tests/support.
    """
    inner = textwrap.indent(textwrap.dedent(program), "    ")
    return run_program(_CONNECT.format(master=master, program=inner), *arguments, timeout_s=timeout_s)


def run_program(program: str, *arguments: object, timeout_s: float = 800, **variables: str) -> str:
    """Return what a program prints in a process of its own; fail with its last lines if it fails."""
    environment = {
        **os.environ,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_LOCAL_HOSTNAME": "localhost",
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")])),
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-8000:]}"
    return done.stdout
