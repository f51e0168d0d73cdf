"""The registry of schemes: a toy scheme, served from memory, works everywhere that its registration says."""

import asyncio
import re

import polars as pl
import pytest
from polars.testing import assert_series_equal
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.cli.app import app
from imgmatch_df.errors import ArgumentError, Failure
from imgmatch_df.fetching import retry, scheduler
from imgmatch_df.fetching.read import read_source
from imgmatch_df.fetching.retry import Retryable
from imgmatch_df.fetching.transport import TaskTransport, Transport, load_transport
from imgmatch_df.images.fingerprints import fingerprint
from imgmatch_df.options import Options, make_options
from imgmatch_df.schemes import SCHEMES, Scheme, public_schemes, refused_scheme, register_scheme, transport_path
from imgmatch_df.server import handlers
from imgmatch_df.server.hash_queue import Hasher
from imgmatch_df.server.settings import Settings
from imgmatch_df.sources import Fetched, Source, parse_source, url_of

SHELF = {}  # images by URL
REQUESTS = []
FAILURES = {
    "toy://shelf/blocked": Failure("fetch_blocked", "blocked: a broken toy"),
    "toy://shelf/busy": Retryable(Failure("fetch_failed", "the toy is in use")),
    "toy://shelf/empty": Failure("missing", "zero bytes"),
    "toy://shelf/text": Fetched(b"not an image"),
}


class ToyTransport(TaskTransport):
    """Serves `SHELF`."""

    async def fetch(self, url, options, claim, clock):
        REQUESTS.append(url)
        name = url.partition("?")[0]
        if name.endswith("/slow"):
            await asyncio.sleep(60)
        if name in FAILURES:
            return FAILURES[name]
        if name not in SHELF:
            return Failure("not_found", "no such toy")
        await claim.wait_and_take(len(SHELF[name]), clock)
        return Fetched(SHELF[name], "image/toy", etag="toy tag")


@pytest.fixture(autouse=True)
def toys(encoded, monkeypatch):
    """Register the scheme for one test."""
    monkeypatch.setattr(retry, "POLICY", retry.RetryPolicy(first_wait_s=0.01))
    register_scheme(Scheme("toy", f"{__name__}:ToyTransport"))
    SHELF.update({f"toy://shelf/{number}": data for number, data in enumerate(encoded[:8])})
    REQUESTS.clear()
    yield pl.DataFrame({"image": list(SHELF)})
    SHELF.clear()
    del SCHEMES["toy"]


@pytest.fixture
def expected(toys, encoded):
    return pl.Series("phash", encoded[:8]).imgmatch.phash()


@pytest.mark.parametrize("engine", ["eager", "in-memory", "streaming"])
def test_expressions(toys, expected, engine):
    expr = pl.col("image").imgmatch.phash().alias("phash")
    out = toys.select(expr) if engine == "eager" else toys.lazy().select(expr).collect(engine=engine)
    assert_series_equal(out["phash"], expected)


def test_verbs_and_the_series(toys, expected):
    assert_series_equal(toys.imgmatch.visual_hash("image")["phash"], expected)
    assert_series_equal(toys["image"].imgmatch.phash().alias("phash"), expected)


def test_the_name_of_a_scheme_has_no_case(toys, encoded):
    url = "TOY" + toys["image"][0].removeprefix("toy")
    SHELF[url] = encoded[0]
    row = pl.DataFrame({"image": [f"  {url}\n"]}).imgmatch.visual_hash("image").row(0, named=True)
    assert row["status"] == "ok"


def test_the_byte_budget_holds_for_a_toy(toys, expected):
    out = toys.imgmatch.visual_hash("image", max_bytes_in_flight=1)
    assert_series_equal(out["phash"], expected)
    assert scheduler.shared_scheduler()._budget.n_bytes == 0


def test_a_failure_is_the_result_of_its_row(toys):
    names = ["none", "blocked", "busy", "empty", "text", "slow", "0"]
    frame = pl.DataFrame({"image": [f"toy://shelf/{name}" for name in names]})
    out = frame.imgmatch.visual_hash("image", timeout_s=1, attempts=2)
    assert out.select("status", "detail").rows() == [
        ("not_found", "no such toy after 1 attempt"),
        ("fetch_blocked", "blocked: a broken toy"),
        ("fetch_failed", "the toy is in use after 2 attempts"),
        ("missing", "zero bytes"),
        ("decode_failed", "not an image: text"),
        ("fetch_timeout", "no complete response within 1 s after 2 attempts"),
        ("ok", None),
    ]
    assert REQUESTS.count("toy://shelf/busy") == REQUESTS.count("toy://shelf/slow") == 2
    with pytest.raises(imgmatch_df.FetchError, match="row 0 of its batch: not_found: no such toy"):
        frame.imgmatch.visual_hash("image", on_error="raise", timeout_s=1)


def test_a_bug_of_a_transport_is_raised(toys, monkeypatch):
    monkeypatch.setitem(FAILURES, "toy://shelf/0", None)
    monkeypatch.setattr(ToyTransport, "start", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        toys.imgmatch.visual_hash("image")


def test_the_option_schemes(toys):
    assert toys.imgmatch.visual_hash("image", schemes=["TOY"])["status"].unique().to_list() == ["ok"]
    REQUESTS.clear()
    out = toys.imgmatch.visual_hash("image", schemes=["http", "file"])
    assert out.select("status", "detail").unique().rows() == [
        ("fetch_blocked", "blocked: a URL of the scheme toy:; schemes= allows file, http")
    ]
    assert not REQUESTS


def test_functions_that_read_one_source(toys, encoded):
    assert parse_source(" toy://shelf/0 ") == Source("url", "toy://shelf/0")
    assert parse_source("toy://shelf/0").scheme == "toy"
    assert url_of("toy://shelf/0") == "toy://shelf/0"
    assert read_source("toy://shelf/0", Options()) == encoded[0]
    assert read_source("toy://shelf/0", make_options(schemes=["http"])).status == "fetch_blocked"
    assert fingerprint(toys["image"], None).null_count().row(0) == (8, 8, 8)


def test_a_store_keeps_the_version_of_a_toy(toys, tmp_path):
    imgmatch_df.write_hashes(toys, tmp_path / "s.duckdb", source="image")
    assert imgmatch_df.read_hashes(tmp_path / "s.duckdb")["etag"].unique().to_list() == ["toy tag"]


def test_the_command_line(toys, expected, tmp_path):
    toys.write_csv(tmp_path / "toys.csv")
    command = ["visual-hash", str(tmp_path / "toys.csv"), "-o", str(tmp_path / "out.parquet"), "--no-progress"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert_series_equal(pl.read_parquet(tmp_path / "out.parquet")["phash"], expected)
    CliRunner().invoke(app, [*command[:-2], str(tmp_path / "no.parquet"), "--no-progress", "--schemes", "http"])
    assert pl.read_parquet(tmp_path / "no.parquet")["status"].unique().to_list() == ["fetch_blocked"]


def served(url):
    """The record of a service for one URL."""

    async def ask():
        settings = Settings(options=Options(isolate=False))
        hasher = Hasher(settings.options)
        try:
            return await handlers.handle_visual_hash(handlers.Call({"records": [{"_url": url}]}, hasher, settings))
        finally:
            hasher.close()

    return asyncio.run(ask())["records"][0]


def test_the_service_refuses_it(toys):
    record = served("toy://shelf/0")
    assert "'_url' must be an http or https URL, got 'toy://shelf/0'" in record["_status"]["text"]
    assert not REQUESTS


def test_the_service_accepts_it_once_it_is_public(toys, expected):
    SCHEMES["toy"] = Scheme("toy", f"{__name__}:ToyTransport", is_public=True)
    assert public_schemes() == ("http", "https", "toy")
    record = served("toy://shelf/0")
    assert record["phash"] == f"{expected[0]:064b}"
    assert "must be an http or https or toy URL" in served("s3://b/a.jpg")["_status"]["text"]


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        (Scheme("toy", "a.b:C"), "the scheme 'toy' is registered already"),
        (Scheme("http", "a.b:C"), "the scheme 'http' is registered already"),
        (Scheme("c", "a.b:C"), "at least 2 characters, got 'c'"),
        (Scheme("Toys", "a.b:C"), "must be lower case"),
        (Scheme("to ys", "a.b:C"), "must be lower case"),
        (Scheme("toys", None), "transport must be an import path 'module:Class', got None"),
        (Scheme("toys", "a.b.C"), "got 'a.b.C'"),
    ],
)
def test_registrations_that_are_refused(scheme, words):
    before = dict(SCHEMES)
    with pytest.raises(ArgumentError, match=re.escape(words)) as raised:
        register_scheme(scheme)
    assert "\nHint: " in str(raised.value)
    assert before == SCHEMES


def test_every_scheme_has_a_transport_or_is_local():
    local = [name for name, scheme in SCHEMES.items() if scheme.transport is None]
    assert local == ["file", "data"]
    for name in local:
        with pytest.raises(ArgumentError, match="are not fetched"):
            transport_path(name)
    members = {name for name in vars(Transport) if not name.startswith("_")}
    assert {"start", "close", "origin_of"} <= members
    for name in [*(SCHEMES.keys() - set(local)), "s3", "unknown"]:
        assert members <= set(dir(load_transport(name)))


def test_the_messages_name_sources_as_people_do():
    allowed = frozenset(["https"])
    assert [refused_scheme(name, allowed).detail.split(";")[0] for name in ("file", "data", "s3", "x" * 99)] == [
        "blocked: a path",
        "blocked: base64",
        "blocked: a URL of the scheme s3:",
        f"blocked: a URL of the scheme {'x' * 20}:",
    ]
    assert refused_scheme("https", allowed) is None
    assert refused_scheme("anything", None) is None
