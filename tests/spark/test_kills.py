"""Executors, Python workers and drivers that are killed: nothing is lost, nothing is there twice, and Spark retried."""

import pytest
from killing import killing

from imgmatch_df.spark.work import WorkFolder
from imgmatch_df.spark.workers import map_batches

pytestmark = pytest.mark.spark


@pytest.fixture(autouse=True)
def executors(spark):
    if not spark.conf.get("spark.master").startswith("local-cluster"):
        pytest.skip("needs executors in processes of their own")


@pytest.mark.parametrize("victim", ["executor", "worker"])
def test_files_of_tasks_are_whole_after_a_kill(spark, tmp_path, victim):
    work = WorkFolder.of(str(tmp_path / "work"), spark)

    def write(batches):
        import time

        for batch in batches:
            for number in batch.column(0).to_pylist():
                time.sleep(0.3)
                work.write(f"tiles/{number}.parquet", bytes([number]) * 1000)
            yield batch

    with killing(spark, lambda: len(work.names("tiles")) > 1, victim) as kill:
        rows = map_batches(spark.range(0, 12, 1, 12), write, "id long").collect()
    assert kill.retries
    assert sorted(row["id"] for row in rows) == list(range(12))
    assert len(work.names("tiles")) == 12
    assert all(work.read(f"tiles/{number}.parquet") == bytes([number]) * 1000 for number in range(12))
