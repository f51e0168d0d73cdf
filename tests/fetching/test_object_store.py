"""Columns of objects in stores, against a real S3 endpoint on loopback."""

import gc
import sys
from weakref import ref

import polars as pl
import pytest
from polars.testing import assert_series_equal

from imgmatch_df.fetching import object_store, retry, scheduler

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")

BUCKET = "pictures"


@pytest.fixture(scope="module")
def endpoint():
    server = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def storage_options(endpoint):
    return {"key": "me", "secret": "hidden", "client_kwargs": {"endpoint_url": endpoint, "region_name": "us-east-1"}}


@pytest.fixture(scope="module")
def bucket(storage_options, encoded):
    import boto3

    client = boto3.client(
        "s3", aws_access_key_id="me", aws_secret_access_key="hidden", **storage_options["client_kwargs"]
    )
    client.create_bucket(Bucket=BUCKET)
    for number, data in enumerate(encoded[:8]):
        client.put_object(Bucket=BUCKET, Key=f"a b/ü{number}.jpg", Body=data)
    client.put_object(Bucket=BUCKET, Key="empty.jpg", Body=b"")
    client.put_object(Bucket=BUCKET, Key="page.html", Body=b"<!DOCTYPE html>")
    for n_bytes in (1 << 20, (1 << 20) + 1, 10 << 20):
        # A picture with much behind it: the decoder stops where the picture ends.
        client.put_object(Bucket=BUCKET, Key=f"{n_bytes}.jpg", Body=encoded[0].ljust(n_bytes, b"\0"))
    return BUCKET


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(retry, "POLICY", retry.RetryPolicy(first_wait_s=0.02))


def hashed(urls, **options):
    return pl.DataFrame({"url": urls}).imgmatch.visual_hash("url", **options)


def fail(url, **options):
    row = hashed([url], **options).row(0, named=True)
    assert row["phash"] is None
    return row["status"], row["detail"]


def test_objects_have_the_hashes_of_their_bytes(bucket, storage_options, encoded):
    expected = pl.Series("phash", encoded[:8]).imgmatch.phash()
    urls = [f"s3://{bucket}/a b/ü{number}.jpg" for number in range(8)]
    for _ in range(2):
        assert_series_equal(hashed(urls, storage_options=storage_options)["phash"], expected)
    lazy = pl.LazyFrame({"url": urls}).select(pl.col("url").imgmatch.phash(storage_options=storage_options))
    for engine in ("in-memory", "streaming"):
        assert_series_equal(lazy.collect(engine=engine)["phash"], expected)


def test_large_objects_are_read_in_pieces(bucket, storage_options, encoded):
    expected = pl.Series([encoded[0]]).imgmatch.phash().item()
    urls = [f"s3://{bucket}/{n_bytes}.jpg" for n_bytes in (1 << 20, (1 << 20) + 1, 10 << 20)]
    out = hashed(urls, storage_options=storage_options, max_bytes_in_flight=1 << 20)
    assert out["phash"].to_list() == [expected] * 3
    assert scheduler.shared_scheduler()._budget.n_bytes == 0
    out = hashed(urls, storage_options=storage_options, max_bytes=1 << 20)
    assert out["status"].to_list() == ["ok", "too_many_bytes", "too_many_bytes"]
    assert "10,485,760 bytes" in out["detail"][2]


def test_failures_of_object_stores(bucket, storage_options):
    def status(key, **options):
        return fail(f"s3://{key}", storage_options=storage_options, **options)

    assert status(f"{bucket}/none.jpg") == ("not_found", "no such object after 1 attempt")
    assert status("no-such-bucket/none.jpg")[0] == "not_found"
    assert status(f"{bucket}/page.html")[0] == "decode_failed"
    assert status(f"{bucket}/empty.jpg")[0] == "missing"
    assert status(f"me:hidden@{bucket}/a.jpg")[0] == "bad_source"


def test_connection_refused():
    options = {"key": "me", "secret": "hidden", "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"}}
    options["config_kwargs"] = {"retries": {"max_attempts": 0}}
    status, detail = fail("s3://b/a.jpg", storage_options=options, timeout_s=3, attempts=2)
    assert status in ("fetch_failed", "fetch_timeout")
    assert detail.endswith("after 2 attempts")
    assert "hidden" not in detail


@pytest.mark.parametrize("scheme", ["s3", "S3A", "gs", "gcs", "az", "abfs", "hf", "oss", "ftp", "foo"])
def test_the_credentials_of_this_machine_are_used_when_storage_options_are_given(scheme, monkeypatch):
    made = []
    monkeypatch.setattr(object_store, "_make_filesystem", lambda *call: made.append(call) or 1 / 0)
    status, detail = fail(f"{scheme}://victim/a.jpg", allow_private_networks=True)
    assert status == "fetch_blocked"
    assert "storage_options={}" in detail
    assert not made
    fail(f"{scheme}://victim/a.jpg", allow_private_networks=True, storage_options={})
    assert made


@pytest.mark.parametrize("scheme", ["local", "memory", "reference", "zip", "simplecache", "generic", "LOCAL"])
def test_schemes_that_read_from_this_machine_are_refused(scheme):
    for allowed in (False, True):
        assert fail(f"{scheme}:///etc/passwd", allow_private_networks=allowed)[0] == "fetch_blocked"
    assert fail(f"{scheme}://a::http://127.0.0.1/a")[0] == "fetch_blocked"


@pytest.mark.parametrize("scheme", ["ftp", "sftp", "smb", "webhdfs"])
def test_servers_named_by_the_url_need_permission(scheme):
    status, detail = fail(f"{scheme}://127.0.0.1/a.jpg")
    assert status == "fetch_blocked"
    assert "allow_private_networks=True" in detail


def test_unknown_schemes():
    assert fail("foo://a/b.jpg", allow_private_networks=True, storage_options={}) == (
        "bad_source",
        "unknown scheme foo:",
    )


def test_a_missing_extra_is_named_in_the_row(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert object_store._make_filesystem("s3", "s3://b/a.jpg", {}).detail == (
        "s3: URLs need imgmatch-df[cloud]: pip install 'imgmatch-df[cloud]'"
    )


def test_options_show_no_secrets(storage_options):
    from imgmatch_df.options import make_options

    assert "hidden" not in repr(make_options(storage_options=storage_options))
    assert hash(make_options(storage_options=storage_options)) == hash(make_options(storage_options=storage_options))


def test_filesystems_of_old_credentials_are_released(bucket, storage_options, encoded, monkeypatch):
    """Credentials that expire come in a row; each has a filesystem with connections of its own."""
    monkeypatch.setattr(object_store, "_MAX_FILESYSTEMS", 3)
    made = []
    real = object_store._make_filesystem

    def making(*arguments):
        found = real(*arguments)
        made.append(ref(found))
        return found

    monkeypatch.setattr(object_store, "_make_filesystem", making)
    url = f"s3://{bucket}/a b/ü0.jpg"
    expected = pl.Series([encoded[0]]).imgmatch.phash().to_list()

    def read(token):
        return hashed([url], storage_options={**storage_options, "token": str(token)})["phash"].to_list()

    for token in range(7):
        assert read(token) == expected
        assert read(0) == expected  # what is in use stays
    gc.collect()
    assert len(made) == 7
    transport = scheduler.shared_scheduler()._transports[object_store.ObjectStoreClient]
    assert len(transport._filesystems) == 3
    assert sum(one() is not None for one in made) == 3


def test_more_filesystems_than_are_kept_can_be_in_use_at_once(bucket, storage_options, encoded, monkeypatch):
    monkeypatch.setattr(object_store, "_MAX_FILESYSTEMS", 1)
    column = pl.col("url").imgmatch
    exprs = [
        column.phash(storage_options={**storage_options, "token": f"at once {token}"}).alias(str(token))
        for token in range(5)
    ]
    out = pl.DataFrame({"url": [f"s3://{bucket}/a b/ü0.jpg"]}).select(exprs)
    assert out.row(0) == (pl.Series([encoded[0]]).imgmatch.phash().item(),) * 5
