"""Work folders: whole files or none, the same folder for Spark and pyarrow, and one error for a folder that is not."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from imgmatch_df.errors import ArgumentError
from imgmatch_df.spark.work import WorkFolder

pytestmark = pytest.mark.spark

NAMES = ["a b", "a%20b", "ü日本", "a:b", "a#b", "a=b", "_x", ".y", "a,b", "%", "it's", 'a"b']


def names_in(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


@pytest.fixture
def table() -> pa.Table:
    return pa.table({"left_node": [1, 2], "right_node": [3, 4]})


@pytest.mark.parametrize("name", NAMES)
def test_spark_and_pyarrow_find_the_same_files(spark, tmp_path, name, table):
    folder = WorkFolder.of(str(tmp_path / name), spark)
    folder.write_table("tiles/pairs/0-0.parquet", table)
    found = spark.read.parquet(folder.uri_of("tiles/pairs"))
    assert found.columns == table.column_names
    assert sorted(map(tuple, found.collect())) == [(1, 3), (2, 4)]
    spark.range(3).write.parquet(folder.uri_of("rows"))
    assert folder.is_finished("rows")
    assert sorted(folder.read_tables("rows")["id"].to_pylist()) == [0, 1, 2]
    assert all(one.endswith(".parquet") for one in folder.names("rows"))
    assert names_in(tmp_path / name) == ["rows", "tiles"]  # nothing of the check of the folder


@pytest.mark.parametrize("name", ["a b", "a%20b", "ü"])
def test_a_file_uri_is_a_path(spark, tmp_path, name):
    folder = WorkFolder.of((tmp_path / name).as_uri(), spark)
    assert folder == WorkFolder.of(tmp_path / name, spark) == WorkFolder(str(tmp_path / name))
    assert WorkFolder.of(f"file:{tmp_path}/x", spark).uri == f"{tmp_path}/x"


@pytest.mark.parametrize(
    "work_dir",
    ["", "work", "./work", "~/work", 1, b"/tmp/x", ["/tmp"], "/", "file:///", "s3://", "dbfs:/x", "dbfs://x", "x:y"]
    + [f"/tmp/a{one}b" for one in "*?[]{}\\"]
    + ["s3a://bucket/w?endpoint_override=localhost"],
)
def test_wrong_folders_raise_one_error(spark, work_dir):
    with pytest.raises(ArgumentError, match=r"(?s)work_dir.*Hint: "):
        WorkFolder.of(work_dir, spark)


def test_a_folder_that_cannot_be_written_raises_one_error(spark, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in [tmp_path / "file" / "work", Path("/proc/work")]:
        with pytest.raises(ArgumentError, match=r"cannot be written: .*\nHint: "):
            WorkFolder.of(folder, spark)


def test_a_folder_of_the_driver_only_raises_one_error(spark):
    if not spark.conf.get("spark.master").startswith("local-cluster"):
        pytest.skip("another master")
    # The same name, but another folder in each process.
    with pytest.raises(ArgumentError, match=r"(?s)is not one folder for all machines: on .*driver.*Hint: "):
        WorkFolder.of("/proc/self/cwd/work-of-the-driver", spark)
    assert not names_in(Path("/proc/self/cwd/work-of-the-driver"))
    Path("/proc/self/cwd/work-of-the-driver").rmdir()


@pytest.mark.parametrize("end", ["pass", "raise ValueError", "sys.exit(3)", "os.kill(os.getpid(), signal.SIGINT)"])
def test_the_temporary_folder_is_deleted_at_the_end(tmp_path, end):
    code = f"""
import os, signal, sys
from imgmatch_df.spark.work import _temporary_folder
folder = _temporary_folder()
open(folder + "/file", "w").close()
if os.fork() == 0:
    sys.exit()  # a fork has the same exit functions
os.wait()
print(os.listdir(folder), flush=True)
{end}
"""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert ran.stdout.decode().split("\n")[-2] == "['file']"
    assert (ran.returncode == 0) == (end == "pass")
    assert not list(tmp_path.iterdir())


def test_attempts_at_the_same_time_give_one_whole_file(tmp_path):
    folder, data = WorkFolder(str(tmp_path)), os.urandom(1 << 20)
    torn, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            if folder.exists("tiles/0-0.parquet") and folder.read("tiles/0-0.parquet") != data:
                torn.append(True)

    reader = threading.Thread(target=read)
    reader.start()
    code = (
        "import pickle, sys\nfolder, data = pickle.load(sys.stdin.buffer)\n"
        "for _ in range(10): folder.write('tiles/0-0.parquet', data)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) for _ in range(3)]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(pickle.dumps((folder, data)))
        writer.stdin.close()
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    stop.set()
    reader.join()
    assert not torn
    assert names_in(tmp_path / "tiles") == ["0-0.parquet"]
    assert folder.read("tiles/0-0.parquet") == data


def test_a_process_killed_while_it_writes_leaves_no_part(tmp_path, table):
    folder = WorkFolder(str(tmp_path))
    folder.write_table("tiles/0-0.parquet", table)
    code = f"""
import os, signal
from imgmatch_df.spark.work import WorkFolder
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)  # when the bytes are written, but not under their name
WorkFolder({str(tmp_path)!r}).write("tiles/0-1.parquet", bytes(1 << 20))
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert len(names_in(tmp_path / "tiles")) == 2  # the part has another name
    assert folder.names("tiles") == ["0-0.parquet"]
    assert not folder.exists("tiles/0-1.parquet")
    assert folder.read_tables("tiles").equals(table)


def test_an_error_while_it_writes_leaves_no_file(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        WorkFolder(str(tmp_path)).write("tiles/0-0.parquet", b"x")
    assert not names_in(tmp_path / "tiles")


def test_names_of_a_folder_that_is_not_there(tmp_path):
    folder = WorkFolder(str(tmp_path))
    assert folder.names() == folder.names("tiles") == []
    assert not folder.is_finished("rows")


def test_objects_of_s3(monkeypatch, table):
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        for name, value in {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        for uri in ["s3a://bucket/a b/%20ü", "s3://bucket/work"]:
            folder = pickle.loads(pickle.dumps(WorkFolder(uri)))
            assert folder.names("tiles") == []
            assert not folder.exists("tiles/0-0.parquet")
            for _ in range(2):
                folder.write_table("tiles/0-0.parquet", table)
            folder.write("rows/_SUCCESS", b"")
            assert folder.names("tiles") == ["0-0.parquet"]
            assert folder.read_tables("tiles").equals(table)
            assert folder.is_finished("rows")
            assert folder.uri_of("tiles") == f"{uri}/tiles"
        keys = {one["Key"] for one in client.list_objects_v2(Bucket="bucket")["Contents"]}
        assert {"a b/%20ü/tiles/0-0.parquet", "work/tiles/0-0.parquet"} <= keys
        with pytest.raises(OSError, match=r"(?i)bucket"):
            WorkFolder("s3a://no-such-bucket/w").write("x", b"x")
    finally:
        server.stop()
