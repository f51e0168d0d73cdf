"""Executors and Python workers that are killed: nothing is lost, nothing is there twice, and Spark retried."""

import pytest
from killing import Aim, killing

from imgmatch_df.spark.work import WorkFolder
from imgmatch_df.spark.workers import map_batches

pytestmark = pytest.mark.spark


@pytest.fixture(autouse=True)
def executors(spark):
    if not spark.conf.get("spark.master").startswith("local-cluster"):
        pytest.skip("needs executors in processes of their own")


def test_files_of_tasks_are_whole_after_kills(spark, tmp_path):
    work = WorkFolder.of(str(tmp_path / "work"), spark)

    def write(batches):
        import time

        for batch in batches:
            for number in batch.column(0).to_pylist():
                time.sleep(0.3)
                work.write(f"tiles/{number}.parquet", bytes([number]) * 1000)
            yield batch

    def is_amid():
        return 1 < len(work.names("tiles")) < 24

    with killing(spark, Aim("executor", is_amid), Aim("worker", is_amid, "worker")) as kills:
        rows = map_batches(spark.range(0, 24, 1, 24), write, "id long").collect()
    assert {one.reason for one in kills.retries["worker"]} == {"ExceptionFailure"}
    assert "ExecutorLostFailure" in {one.reason for one in kills.retries["executor"]}
    assert sorted(row["id"] for row in rows) == list(range(24))
    assert len(work.names("tiles")) == 24
    assert all(work.read(f"tiles/{number}.parquet") == bytes([number]) * 1000 for number in range(24))


def test_a_kill_that_misses_its_moment_fails(spark):
    with pytest.raises(AssertionError, match="no process had a task"), killing(spark, Aim("never", lambda: False)):
        spark.range(10).count()
