import pytest

pytestmark = pytest.mark.spark


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
