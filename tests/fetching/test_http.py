"""Columns of http addresses, against a server that does everything wrong, over real sockets."""

import gc
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic, sleep

import polars as pl
import pytest
from hostile_server import HostileServer
from polars.testing import assert_frame_equal, assert_series_equal
from waiting import wait_until

import imgmatch_df
from imgmatch_df.documented.responses import visual_hash_response
from imgmatch_df.fetching import circuit_breaker, curl, http, retry, scheduler
from imgmatch_df.options import make_options

pytestmark = pytest.mark.long

ENGINES = ["eager", "in-memory", "streaming"]
ODD = ["/odd-header", "/odd-header/trailer", "/interim/ok"]
FAST = {"allow_private_networks": True, "timeout_s": 60}


@pytest.fixture(scope="module")
def server(encoded):
    with HostileServer(encoded) as running:
        yield running


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(retry, "POLICY", retry.RetryPolicy(first_wait_s=0.02))


def hashed(urls, **options):
    frame = pl.DataFrame({"url": urls}, schema={"url": pl.String})
    return frame.imgmatch.visual_hash("url", **{**FAST, **options})


def fail(url, **options):
    """The status and the detail of one address."""
    row = hashed([url], **options).row(0, named=True)
    assert row["phash"] is None
    assert row["bmh1"] is None
    return row["status"], row["detail"]


# --- pictures that come ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_hashes_are_those_of_the_bytes(server, encoded, engine):
    column = pl.col("url").imgmatch
    frame = pl.DataFrame({"url": [server.url(f"/ok/{n}.jpg") for n in range(40)]})
    exprs = column.phash(**FAST), column.bmh1(**FAST)
    server.targets.clear()
    out = frame.with_columns(*exprs) if engine == "eager" else frame.lazy().with_columns(*exprs).collect(engine=engine)
    expected = pl.DataFrame({"url": encoded}).with_columns(
        pl.col("url").imgmatch.phash(), pl.col("url").imgmatch.bmh1()
    )
    assert_frame_equal(out.drop("url"), expected.drop("url"))
    assert set(server.targets.values()) == {1}, "each is fetched once, for both hashes"


@pytest.mark.parametrize("path", ["/zipped", "/chunked", "/until-end", "/longer", "/ok/0.jpg?a=b", "/hops/5", *ODD])
def test_ways_to_send_an_image(server, encoded, path):
    expected = pl.Series("url", encoded[:1]).imgmatch.phash()
    for _ in range(3):  # also on a connection that was used before
        assert_series_equal(hashed([server.url(path)])["phash"], expected)


def test_a_url_in_several_rows_is_fetched_once(server, encoded):
    server.targets.clear()
    urls = [server.url(f"/ok/{n % 3}.jpg") for n in range(60)] + [server.url("/status/404")] * 5
    out = hashed(urls)
    assert set(server.targets.values()) == {1}
    assert out["phash"].head(60).n_unique() == 3
    assert out["status"].tail(5).to_list() == ["not_found"] * 5
    alone = hashed(urls[:3]).drop("url")
    assert_frame_equal(out.drop("url").head(60), pl.concat([alone] * 20))


def test_local_and_remote_rows_mix(server, mixed, encoded):
    urls = [url for value in mixed["url"] for url in (value, server.url(f"/ok/{len(value or '')}.jpg"))]
    out = hashed(urls)
    assert out["status"].gather_every(2).to_list() == mixed["expected"].to_list()
    assert out["status"].gather_every(2, 1).to_list() == ["ok"] * len(mixed)


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("/ok/1.jpg?a b", "/ok/1.jpg?a%20b"),
        ("/ok/1.jpg?ü=日本", "/ok/1.jpg?%C3%BC=%E6%97%A5%E6%9C%AC"),
        ("/ok/1.jpg?x=%2f%2F%zz%", "/ok/1.jpg?x=%2f%2F%25zz%25"),
        ("/ok/1.jpg?q=1#top", "/ok/1.jpg?q=1"),
        ("/ok/./x/../1.jpg", "/ok/1.jpg"),
        ("\\ok\\1.jpg", "/ok/1.jpg"),
        ("/ok/1.jpg?" + "é" * 4000, "/ok/1.jpg?" + "%C3%A9" * 4000),
        ("/ok/1.jpg?sig=a%2Bb%3D&x=~+*'()", "/ok/1.jpg?sig=a%2Bb%3D&x=~+*'()"),
    ],
)
def test_urls_are_sent_in_normal_form(server, written, sent):
    server.targets.clear()
    assert hashed([f"  HTTP://127.0.0.1:{server.port}{written}\n"])["status"].item() == "ok"
    assert list(server.targets) == [sent]


def test_hosts_are_sent_in_normal_form(server, encoded, monkeypatch):
    asked = []
    monkeypatch.setattr(curl, "_look_up", lambda host: asked.append(host) or [(socket.AF_INET, "127.0.0.1")])
    urls = [
        server.url("/ok/1.jpg", host) for host in ("BÜCHER.example", "例え.jp", "a_b.example", "127.1", "0x7f000001")
    ]
    assert hashed(urls)["status"].to_list() == ["ok"] * 5
    assert sorted(asked) == ["a_b.example", "xn--bcher-kva.example", "xn--r8jz45g.jp"]


def test_ipv6(encoded):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with HostileServer(encoded, host="::1") as server:
        assert hashed([server.url("/ok/1.jpg", "[::1]")])["status"].item() == "ok"
        assert fail(server.url("/ok/1.jpg", "[::1]"), allow_private_networks=False)[0] == "fetch_blocked"


def test_a_column_of_arbitrary_text():
    urls = ["http://", "http:///a.jpg", "http://a..b/", "http://h:99999/", "http://[::1/", "https://@/", "http://%00/"]
    assert hashed(urls)["status"].to_list() == ["bad_source"] * len(urls)


def test_very_long_urls_fail_and_are_not_cached(server):
    zeros = "0" * 5000
    urls = [
        f"http://127.0.0.1:{zeros}80{zeros}/",
        f"http://127.0.0.1:{server.port}/" + "a" * 70_000,
        f"http://127.0.0.1:{server.port}/" + "a" * 9_000_000,
        "http://" + "a" * 30_000 + "/",
        "http://me:" + "a" * 9_000_000 + "@h/",
    ]
    out = hashed([*urls, server.url("/ok/1.jpg"), server.url("/to?u=" + urls[0])])
    assert out["status"].to_list() == ["bad_source"] * 5 + ["ok", "fetch_failed"]
    assert out["detail"].str.len_chars().max() < 400
    # A port may have as many zeros before it as it likes.
    assert hashed([f"http://127.0.0.1:{zeros[:3000]}{server.port}/ok/1.jpg"])["status"].item() == "ok"


def test_a_bug_ends_only_its_batch(server, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    for name, paths in (
        ("check_header", ["/empty", "/ok/1.jpg"]),
        ("parse_header", ["/empty", "/ok/1.jpg", "/slow-headers"]),
        ("clean_url", ["/ok/1.jpg"]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(http, name, broken)
            for path in paths:
                with pytest.raises(ZeroDivisionError):
                    hashed([server.url(path)], n_connections=1, timeout_s=0.6)
        assert fail(server.url("/slow-headers"), n_connections=1, attempts=1, timeout_s=0.6)[0] == "fetch_timeout"
        assert hashed([server.url("/ok/1.jpg")], n_connections=1)["status"].item() == "ok"


@pytest.mark.parametrize("after_s", [0, 0.1])
def test_an_unrequested_response_is_not_used_for_the_next_url(server, encoded, after_s):
    """A broken server would shift the hashes of all rows that follow by one."""
    before, n_strays = server.n_connections, server.n_strays
    expected = pl.DataFrame({"url": encoded[:4]}).imgmatch.visual_hash("url")["phash"]
    for row, path in enumerate((f"/stray/0.jpg?after={after_s}", "/ok/1.jpg", "/ok/2.jpg", "/ok/3.jpg")):
        assert hashed([server.url(path)])["phash"][0] == expected[row]
        if row == 0:
            wait_until(lambda: server.n_strays > n_strays)
            sleep(0.05)
    assert server.n_connections - before <= 2  # a new one, which is used again


# --- answers that are no pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/status/404", "not_found", "HTTP 404 after 1 attempt"),
        ("/status/410", "not_found", "HTTP 410 after 1 attempt"),
        ("/status/403", "fetch_failed", "HTTP 403 after 1 attempt"),
        ("/status/204", "fetch_failed", "HTTP 204 after 1 attempt"),
        ("/status/500", "fetch_failed", "HTTP 500 after 3 attempts"),
        ("/status/429", "fetch_failed", "HTTP 429 after 3 attempts"),
        ("/status/206", "fetch_failed", "HTTP 206, a part of the image"),
        ("/slow-headers", "fetch_timeout", "no complete response within 0.6 s after 3 attempts"),
        ("/drip", "fetch_timeout", "no complete response within 0.6 s after 3 attempts"),
        ("/endless-headers", "fetch_failed", "HTTP"),
        ("/announced", "too_many_bytes", "1,099,511,627,776 bytes, more than max_bytes=268,435,456"),
        ("/cut", "fetch_failed", "the connection ended after 500 of 1,000 bytes after 3 attempts"),
        ("/cut-chunked", "fetch_failed", "the connection ended after 100 bytes after 3 attempts"),
        ("/reset", "fetch_failed", "the connection ended before a response after 3 attempts"),
        ("/hang-up", "fetch_failed", "the connection ended before a response after 3 attempts"),
        ("/garbage", "fetch_failed", "the response is not HTTP after 1 attempt"),
        ("/long-header", "fetch_failed", "the response is not HTTP after 1 attempt"),
        ("/late-404", "not_found", "HTTP 404 after 1 attempt"),
        ("/html", "decode_failed", "got text/html, 512 bytes"),
        ("/empty", "missing", "zero bytes"),
        ("/odd-header/empty", "missing", "zero bytes"),
        ("/interim", "fetch_timeout", "no complete response within 0.6 s after 3 attempts"),
        ("/broken-zip", "fetch_failed", "the body is not valid gzip"),
        ("/unknown-zip", "fetch_failed", "unsupported Content-Encoding 'x-compress'"),
        ("/loop", "fetch_failed", "more than 5 redirects"),
        ("/hops/6", "fetch_failed", "more than 5 redirects"),
        ("/nowhere", "fetch_failed", "HTTP 301, a redirect without a Location header"),
        ("/to?u=file:///etc/passwd", "fetch_blocked", "blocked: redirected to another scheme, file:"),
        ("/to?u=ftp://127.0.0.1/a", "fetch_blocked", "blocked: redirected to another scheme, ftp:"),
        ("/to?u=data:,x", "fetch_blocked", "blocked: redirected to another scheme, data:"),
        ("/to?u=http://[", "fetch_failed", "redirected to an invalid URL"),
    ],
)
def test_failures_of_servers(server, path, status, detail):
    found = fail(server.url(path), timeout_s=0.6 if status == "fetch_timeout" or "late" in path else 60)
    assert found[0] == status
    assert detail in found[1]
    assert "\n" not in found[1]
    assert hashed([server.url("/ok/1.jpg")])["status"].item() == "ok"


@pytest.mark.parametrize("path", ["/endless", "/bomb"])
def test_too_large_responses_are_stopped(server, path):
    server.n_sent = 0
    assert fail(server.url(path), max_bytes=1 << 20)[0] == "too_many_bytes"
    assert server.n_sent < 16 << 20


@pytest.mark.parametrize("n_bytes", [999, 1000, 1001])
def test_max_bytes_is_inclusive(server, n_bytes):
    assert fail(server.url(f"/sized/{n_bytes}"), max_bytes=1000)[0] == (
        "decode_failed" if n_bytes <= 1000 else "too_many_bytes"
    )


def test_connection_refused(server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        status, detail = fail(f"http://127.0.0.1:{free.getsockname()[1]}/a.jpg")
    assert status == "fetch_failed"
    assert "no connection" in detail
    assert "after 3 attempts" in detail


def test_an_unknown_host_name(monkeypatch):
    def look_up(host):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(curl, "_look_up", look_up)
    assert fail("http://nobody.example/a.jpg") == ("fetch_failed", "no such host: nobody.example after 1 attempt")


def test_a_look_up_that_fails_after_the_timeout_is_not_logged(monkeypatch, caplog):
    late, ended = threading.Event(), threading.Event()

    def look_up(host):
        late.wait(100)
        ended.set()
        raise socket.gaierror(socket.EAI_AGAIN, "Try again")

    monkeypatch.setattr(curl, "_look_up", look_up)
    assert fail("http://slow.example/a.jpg", attempts=1, timeout_s=0.6) == (
        "fetch_timeout",
        "no connection within 0.2 s after 1 attempt",
    )
    late.set()
    assert ended.wait(100)
    sleep(0.1)
    monkeypatch.setattr(curl, "_look_up", lambda host: [(socket.AF_INET, "127.0.0.1")])
    fail("http://slow.example/a.jpg", attempts=1, timeout_s=0.6)  # the next look-up takes the place of the failed one
    gc.collect()
    assert not caplog.records


def test_many_hosts_are_resolved_in_linear_time_and_dropped(server, monkeypatch):
    """16,000 hosts took a minute of the network's thread when the table of places was made anew for each."""
    monkeypatch.setattr(curl, "_look_up", lambda host: [(socket.AF_INET, "127.0.0.1")])
    monkeypatch.setattr(curl, "_MAX_RESOLVED", 20)
    urls = [server.url(f"/ok/{n}.jpg", f"h{n}.example") for n in range(100)]
    assert hashed(urls)["status"].to_list() == ["ok"] * 100
    client = scheduler.shared_scheduler()._transports[http.HttpClient]
    assert len(client._pools[True]._resolved) == 20


@pytest.mark.parametrize("reused", [False, True])
def test_an_attempt_that_times_out_at_the_moment_of_its_look_up_ends_once(server, monkeypatch, reused):
    """The callback of the look-up is scheduled by then, and cannot be removed any more; the batch waited for ever."""
    fail(server.url("/ok/0.jpg", "h.example"), attempts=1)  # the transport exists
    client = scheduler.shared_scheduler()._transports[http.HttpClient]
    resolve = curl.ConnectionPool.resolve
    timed_out = []

    def time_out(_):
        for attempt in list(client._in_flight):
            timed_out.append(attempt)
            attempt.time_out()

    def resolve_late(pool, host, port):
        resolving = resolve(pool, host, port)
        if not timed_out:
            resolving.add_done_callback(time_out)  # before that of the attempt
        return resolving

    monkeypatch.setattr(curl, "_look_up", lambda host: [(socket.AF_INET, "127.0.0.1")])
    monkeypatch.setattr(curl.ConnectionPool, "resolve", resolve_late)
    urls = [server.url(f"/ok/{n}.jpg", "late.example") for n in range(5 if reused else 1)]
    assert hashed(urls)["status"].to_list() == ["ok"] * len(urls)
    assert timed_out
    assert scheduler.shared_scheduler()._budget.n_bytes == 0
    assert scheduler.shared_scheduler()._n_connections == 0


# --- trying again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_transient_failures_are_retried(server, code):
    server.targets.clear()
    assert hashed([server.url(f"/flaky?times=2&code={code}")])["status"].item() == "ok"
    assert server.targets.total() == 3


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451])
def test_other_failures_are_not_retried(server, code):
    server.targets.clear()
    assert fail(server.url(f"/flaky?code={code}"))[1] == f"HTTP {code} after 1 attempt"
    assert server.targets.total() == 1


def test_attempts(server):
    server.targets.clear()
    assert fail(server.url("/status/503"), attempts=5)[1] == "HTTP 503 after 5 attempts"
    assert server.targets.total() == 5
    assert fail(server.url("/status/503"), attempts=1)[1] == "HTTP 503 after 1 attempt"


def test_backoff_never_ends_the_attempts(server, monkeypatch):
    monkeypatch.setattr(retry, "POLICY", retry.RetryPolicy(first_wait_s=0.5))
    server.targets.clear()
    assert fail(server.url("/status/503"), timeout_s=1, attempts=4)[1] == "HTTP 503 after 4 attempts"
    assert server.targets.total() == 4


def test_retry_after_is_honoured(server):
    server.targets.clear()
    start = monotonic()
    assert hashed([server.url("/busy?after=1")])["status"].item() == "ok"
    assert monotonic() - start >= 1
    assert hashed([server.url("/busy?after=Wed,%2021%20Oct%202015%2007:28:00%20GMT")])["status"].item() == "ok"
    assert hashed([server.url("/busy?after=nonsense")])["status"].item() == "ok"


def test_a_retry_after_of_an_hour_ends_the_attempts(server):
    assert fail(server.url("/busy?after=3600")) == (
        "fetch_failed",
        "HTTP 429, Retry-After 3,600 s, after 1 attempt",
    )


# --- who may be reached ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f.0.0.1", "017700000001", "１２７.0.0.1", "0", "0.0.0.0"),
        *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]", "[::127.0.0.1]"),
        *("10.0.0.7", "192.168.1.1", "172.31.255.255", "169.254.169.254", "[fd00:ec2::254]", "[fe80::1]", "224.0.0.1"),
    ],
)
def test_private_networks_are_blocked(server, host):
    server.targets.clear()
    status, detail = fail(server.url("/ok/1.jpg", host), allow_private_networks=False)
    assert status == "fetch_blocked"
    assert "pass allow_private_networks=True to allow it" in detail
    assert not server.targets


def test_the_detail_of_a_blocked_ip_address():
    assert fail("http://10.0.0.7/a.jpg", allow_private_networks=False)[1] == (
        "blocked: 10.0.0.7 is a private address; pass allow_private_networks=True to allow it"
    )


def test_host_names_of_private_ip_addresses_are_blocked(server, monkeypatch):
    monkeypatch.setattr(curl, "_look_up", lambda host: [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
    server.targets.clear()
    status, detail = fail(server.url("/ok/1.jpg", "innocent.example"), allow_private_networks=False)
    assert (status, detail.partition(";")[0]) == (
        "fetch_blocked",
        "blocked: innocent.example is 127.0.0.1, a loopback address",
    )
    assert not server.targets


@pytest.fixture
def public(monkeypatch):
    """Let 127.0.0.2 and no other loopback address count as public."""
    real = curl.blocked_reason
    monkeypatch.setattr(curl, "blocked_reason", lambda ip: None if ip == "127.0.0.2" else real(ip))


@pytest.fixture
def public_server(encoded, public):
    with HostileServer(encoded, host="127.0.0.2") as running:
        yield running


def test_redirects_to_private_networks_are_blocked(server, public_server, monkeypatch):
    monkeypatch.setattr(curl, "_look_up", lambda host: [(socket.AF_INET, "127.0.0.1")])
    server.targets.clear()
    private = [server.url("/ok/1.jpg"), server.url("/ok/1.jpg", "innocent.example"), f"//127.1:{server.port}/ok/1.jpg"]
    urls = [public_server.url(f"/to?u={url}") for url in private] + [public_server.url("/ok/1.jpg")]
    out = hashed(urls, allow_private_networks=False)
    assert out["status"].to_list() == ["fetch_blocked"] * 3 + ["ok"]
    assert not server.targets


def test_a_host_name_that_changes_its_ip_address_never_leads_inside(server, public_server, monkeypatch):
    """Check and connection use one look-up, and the socket is checked once more."""
    answers = iter(["127.0.0.2", "127.0.0.1"])
    asked = []

    def look_up(host):
        asked.append(host)
        return [(socket.AF_INET, next(answers, "127.0.0.1"))]

    monkeypatch.setattr(curl, "_look_up", look_up)
    server.targets.clear()
    first = f"http://rebound.example:{public_server.port}/ok/1.jpg"
    second = f"http://rebound.example:{server.port}/ok/1.jpg"
    out = hashed([first], allow_private_networks=False)
    assert out["status"].item() == "ok"
    assert asked == ["rebound.example"]
    assert fail(second, allow_private_networks=False)[0] == "fetch_blocked"
    assert not server.targets


def test_of_several_ip_addresses_the_public_one_is_used(public_server, monkeypatch):
    found = [(socket.AF_INET, "10.0.0.7"), (socket.AF_INET, "127.0.0.2"), (socket.AF_INET6, "fe80::1")]
    monkeypatch.setattr(curl, "_look_up", lambda host: found)
    out = hashed([public_server.url("/ok/1.jpg", "both.example")], allow_private_networks=False)
    assert out["status"].item() == "ok"


def test_a_wrong_result_of_the_resolver_is_blocked_at_the_socket(server, monkeypatch):
    async def find(host, port, look_ups, *, check):
        return f"+{host}:{port}:127.0.0.1"

    monkeypatch.setattr(curl, "_resolve_for_curl", find)
    assert fail(server.url("/ok/1.jpg", "liar.example"), allow_private_networks=False)[0] == "fetch_blocked"


def test_connections_to_private_networks_are_not_shared(server):
    url = server.url("/ok/1.jpg")
    assert hashed([url])["status"].item() == "ok"
    assert fail(url, allow_private_networks=False)[0] == "fetch_blocked"


def test_proxies_of_the_environment_are_not_used(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert hashed([server.url("/ok/1.jpg?proxy")])["status"].item() == "ok"


def test_a_netrc_is_not_read(server, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fail(server.url("/login?netrc"))[1] == "HTTP 401 after 1 attempt"


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_credentials_are_sent_and_never_shown(server, caplog):
    url = server.url("/login").replace("//", "//me:secret@")
    with caplog.at_level(0):
        assert hashed([url])["status"].item() == "ok"
        bad = ["/status/404", "/reset", "/loop", "/html", "/announced"]
        out = hashed([server.url(path).replace("//", "//me:secret@") for path in bad], attempts=1)
    assert not [detail for detail in out["detail"] if "secret" in detail]
    assert "secret" not in caplog.text
    assert fail(url.replace("http:", "gopher:"))[1].count("secret") == 0
    frame = out.with_columns(pl.col("url").alias("_url"))
    response = visual_hash_response(frame, seconds=0)
    assert all("secret" not in record["_status"]["text"] for record in response["records"])


def test_credentials_are_sent_to_their_origin_only(server, encoded):
    with HostileServer(encoded) as other:
        url = server.url(f"/to?u={other.url('/ok/1.jpg')}").replace("//", "//me:secret@", 1)
        assert hashed([url])["status"].item() == "ok"
        assert "Authorization" not in other.headers[-1]
        # They go along to the same server, and stay out of what is asked for next.
        assert hashed([server.url("/to?u=/login").replace("//", "//me:secret@", 1)])["status"].item() == "ok"
        assert hashed([server.url("/to?u=/ok/1.jpg", "127.1")])["status"].item() == "ok"
        assert "Authorization" not in server.headers[-1]


def test_cookies_are_not_kept(server):
    assert hashed([server.url(f"/ok/{n}.jpg") for n in range(3)])["status"].to_list() == ["ok"] * 3
    assert not any("Cookie" in headers for headers in server.headers)


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fresh_server(encoded):
    with HostileServer(encoded) as running:
        yield running


def test_connections_are_used_again(fresh_server):
    paths = ["/ok/{}.jpg", "/status/404?{}", "/to?u=/ok/1.jpg?{}", "/empty?{}", "/zipped?{}", "/chunked?{}"]
    urls = [fresh_server.url(path.format(n)) for n in range(10) for path in paths]
    for _ in range(3):
        hashed(urls, n_connections=4)
    assert fresh_server.n_connections <= 4


def test_connections_are_bounded(fresh_server):
    server = fresh_server
    for options, most in (({"n_connections": 3}, 3), ({"n_connections_per_host": 5}, 5), ({}, 32)):
        server.most_open = 0
        hashed([server.url(f"/gathered?of={most}&n={n}") for n in range(40)], **options)
        assert server.most_open == most


def test_spellings_of_a_host_count_as_one_host(fresh_server):
    hosts = ["127.0.0.1", "2130706433", "0x7f.1", "127.1", "127.0.0.1.", "me:pw@127.0.0.1"]
    urls = [fresh_server.url(f"/gathered?of=2&n={n}", host) for n in range(6) for host in hosts]
    assert set(hashed(urls, n_connections_per_host=2)["status"]) == {"ok"}
    assert fresh_server.most_open == 2


def test_connections_are_bounded_over_all_expressions(fresh_server):
    server = fresh_server
    urls = [[server.url(f"/slow-headers?s=0.05&n={n}&m={m}") for n in range(10)] for m in range(4)]
    with ThreadPoolExecutor(4) as users:
        done = list(users.map(lambda part: hashed(part, n_connections=4), urls))
    assert all(set(out["status"]) == {"ok"} for out in done)
    assert server.most_open <= 4


def test_a_slow_host_does_not_delay_another(server, encoded):
    with HostileServer(encoded) as other:
        server.is_holding, n_open = True, server.n_open
        slow = [server.url(f"/held?n={n}") for n in range(100)]
        with ThreadPoolExecutor(1) as user:
            answered = user.submit(hashed, slow)
            wait_until(lambda: server.n_open >= n_open + 32)
            quick = hashed([other.url(f"/ok/{n}.jpg") for n in range(40)])
            assert not answered.done()
            server.is_holding = False
            assert set(answered.result()["status"]) == {"ok"}
        assert set(quick["status"]) == {"ok"}


def test_bytes_in_flight_are_bounded_without_a_deadlock(server):
    urls = [server.url(f"/sized/{500_000 + n}") for n in range(64)]
    out = hashed(urls, max_bytes_in_flight=100_000)
    assert set(out["status"]) == {"decode_failed"}
    assert scheduler.shared_scheduler()._budget.n_bytes == 0


@pytest.mark.parametrize("way", ["bits", "bits/zipped"])
def test_bodies_that_waited_for_memory_are_complete(server, encoded, way):
    """What had to wait comes again, together with what has arrived meanwhile."""
    urls = [server.url(f"/{way}?n={n}") for n in range(40)]
    expected = pl.Series(encoded[:40]).imgmatch.phash().to_list()
    for max_bytes_in_flight in (1, 1000, 20_000, 100_000):
        out = hashed(urls, max_bytes_in_flight=max_bytes_in_flight)
        assert out["phash"].to_list() == expected
    assert scheduler.shared_scheduler()._budget.n_bytes == 0


def test_strict_names_the_first_row_in_row_order(server):
    urls = [server.url(f"/slow-headers?s=0.05&n={n}") for n in range(3)]
    urls += [server.url("/slow-headers?s=30"), server.url("/status/404"), *urls, server.url("/drip")]
    for order in (urls, [*urls[:3], *urls[4:]]):
        status, times = ("fetch_timeout", 1) if order is urls else ("not_found", 3)
        for _ in range(times):
            with pytest.raises(imgmatch_df.FetchError, match=f"row 3 of its batch: {status}"):
                pl.Series("url", order).imgmatch.phash(on_error="raise", attempts=1, **{**FAST, "timeout_s": 2})


def test_strict_cancels_the_rows_after_a_failure(server):
    server.targets.clear()
    urls = [server.url("/status/404"), *(server.url(f"/slow-headers?s=9&n={n}") for n in range(200))]
    with pytest.raises(imgmatch_df.FetchError, match="row 0"):
        pl.Series("url", urls).imgmatch.phash(on_error="raise", allow_private_networks=True)
    assert server.targets.total() < 100


def test_many_rows_of_which_a_third_fail_in_every_way(server):
    ways = {
        "/status/404": "not_found",
        "/status/503": "fetch_failed",
        "/reset": "fetch_failed",
        "/cut": "fetch_failed",
        "/garbage": "fetch_failed",
        "/html": "decode_failed",
        "/slow-headers": "fetch_timeout",
        "/loop": "fetch_failed",
        "/bomb": "too_many_bytes",
        "/announced": "too_many_bytes",
        "/nowhere": "fetch_failed",
        "/empty": "missing",
        "/to?u=file:///etc/passwd": "fetch_blocked",
    }
    urls, expected = [], []
    for n in range(2000):
        path, status = list(ways.items())[n // 3 % len(ways)] if n % 3 == 0 else (f"/ok/{n % 40}.jpg", "ok")
        urls.append(server.url(f"{path}{'&' if '?' in path else '?'}row={n}"))
        expected.append(status)
    frame = pl.DataFrame({"url": urls}).with_row_index()
    options = {**FAST, "timeout_s": 4, "attempts": 1, "max_bytes": 1 << 20, "n_connections_per_host": 64}
    out = frame.lazy().with_columns(pl.col("url").imgmatch.visual_hash(**options)).unnest("visual_hash").collect()
    assert out["index"].to_list() == list(range(2000))
    assert out["status"].to_list() == expected
    assert scheduler.shared_scheduler()._budget.n_bytes == 0
    assert scheduler.shared_scheduler()._n_connections == 0


def test_rows_of_a_host_that_does_not_respond_fail_at_once(server, fresh_server, monkeypatch):
    monkeypatch.setattr(circuit_breaker, "SILENT_S", 0.5)
    monkeypatch.setattr(circuit_breaker, "OPEN_S", 600.0)
    silent = [fresh_server.url(f"/slow-headers?s=60&n={n}") for n in range(3000)]
    live = [server.url(f"/ok/{n % 40}.jpg?live={n}") for n in range(50)]
    options = {**FAST, "timeout_s": 1}
    out = hashed([*silent[:1500], *live, *silent[1500:]], **options)
    assert out["status"].to_list() == ["fetch_timeout"] * 1500 + ["ok"] * 50 + ["fetch_timeout"] * 1500
    assert fresh_server.targets.total() < 300
    detail = out["detail"][-1]
    assert detail.startswith(f"not requested: {fresh_server.url('')} did not respond to the last ")
    # The next call does not ask either; when the time is over one request is let through, and finds that it is back.
    before = fresh_server.targets.total()
    assert fail(fresh_server.url("/ok/1.jpg"), **options)[0] == "fetch_timeout"
    assert fresh_server.targets.total() == before
    circuits = scheduler.shared_scheduler()._circuits
    (host,) = (host for host in circuits._silences if host in fresh_server.url(""))
    circuits._silences[host] = circuits._silences[host]._replace(open_until=0.001)
    assert hashed([fresh_server.url(f"/ok/{n}.jpg") for n in range(9)], **FAST)["status"].to_list() == ["ok"] * 9


@pytest.mark.parametrize("path", ["/slow-headers?", "/drip?", "/stalled?lines=1", "/stalled?", "/stalled?s=0.2"])
def test_incomplete_responses_open_the_circuit(fresh_server, monkeypatch, path):
    monkeypatch.setattr(circuit_breaker, "SILENT_S", 0.5)
    urls = [fresh_server.url(f"{path}&n={n}") for n in range(2000)]
    out = hashed(urls, **{**FAST, "timeout_s": 0.4})
    assert set(out["status"]) <= {"fetch_timeout", "fetch_failed"}
    assert out["detail"].str.starts_with("not requested: ").sum() > 1000
    assert fresh_server.targets.total() < 400


def test_a_silent_redirect_target_does_not_open_the_circuit_of_the_redirecting_host(server, fresh_server, monkeypatch):
    monkeypatch.setattr(circuit_breaker, "SILENT_S", 0.5)
    urls = [server.url(f"/to?n={n}&u={fresh_server.url('/slow-headers')}") for n in range(400)]
    live = [server.url(f"/ok/{n % 40}.jpg?beside={n}") for n in range(400)]
    out = hashed([url for pair in zip(urls, live, strict=True) for url in pair], **{**FAST, "timeout_s": 1})
    assert out["status"].to_list() == ["fetch_timeout", "ok"] * 400
    assert out["detail"][-2].startswith(f"not requested: {fresh_server.url('')} did not respond to the last ")
    assert fresh_server.targets.total() < 150


def test_rows_that_fail_at_once_do_not_delay_others():
    answered, seen, done = [], [], threading.Event()
    shared = scheduler.shared_scheduler()

    def begin():
        shared._add(download)
        shared._loop.call_soon(lambda: seen.append(len(answered)))

    def arrived(position, answer, release):
        answered.append(answer.status)
        if len(answered) == 5000:
            done.set()

    urls = [f"ftp://h{n}.example/a.jpg" for n in range(5000)]
    download = scheduler.Download(urls, make_options(schemes=["http"]), arrived)
    shared._loop.call_soon_threadsafe(begin)
    assert done.wait(100)
    assert seen[0] < 1000
    assert set(answered) == {"fetch_blocked"}


def test_a_host_that_responds_to_some_requests_gets_all(server, monkeypatch):
    monkeypatch.setattr(circuit_breaker, "SILENT_S", 0.0)
    # Every other request has a response, also while as many as there are connections wait in vain.
    urls = [server.url(f"/slow-headers?s=60&n={n}" if n % 2 else f"/status/404?n={n}") for n in range(24)]
    before = server.targets.total()
    out = hashed(urls, **{**FAST, "timeout_s": 0.8, "attempts": 1, "n_connections_per_host": 2})
    assert out["status"].to_list() == ["not_found", "fetch_timeout"] * 12
    assert server.targets.total() == before + 24


@pytest.mark.slow
def test_one_call_with_silent_hosts_leaves_connections_to_others(server, monkeypatch):
    monkeypatch.setattr(curl, "_look_up", lambda host: [(socket.AF_INET, "127.0.0.1")])
    urls = [server.url(f"/slow-headers?s=60&n={n}", f"silent{n % 8}.example") for n in range(160)]
    with ThreadPoolExecutor(1) as user:
        n_open = server.n_open
        slow = user.submit(hashed, urls, **{**FAST, "timeout_s": 6, "attempts": 1})
        wait_until(lambda: server.n_open > n_open + 7)
        assert fail(server.url("/status/404?beside"), **FAST)[0] == "not_found"
        assert not slow.done()  # it would wait for a connection until those of the others are over
        slow.result()


def test_look_ups_of_names_take_a_bounded_number_of_threads(monkeypatch):
    release = threading.Event()
    n_under_way, most, n_ended = 0, 0, 0
    lock = threading.Lock()

    def look_up(host):
        nonlocal n_under_way, most, n_ended
        with lock:
            n_under_way += 1
            most = max(most, n_under_way)
        release.wait(100)
        with lock:
            n_under_way -= 1
            n_ended += 1
        raise socket.gaierror(socket.EAI_NONAME, "")

    monkeypatch.setattr(curl, "_look_up", look_up)
    urls = [f"http://h{n}.example/a.jpg" for n in range(1000)]
    out = hashed(urls, timeout_s=0.2, attempts=1, n_connections=1000)
    wait_until(lambda: most == curl._MAX_LOOKUPS)
    release.set()
    assert set(out["status"]) == {"fetch_timeout"}
    assert most == curl._MAX_LOOKUPS
    while n_ended < len(urls):  # those in the queue too, or later tests would wait for real look-ups
        sleep(0.01)


def test_a_body_in_small_chunks_is_complete_and_does_not_delay_others(server, encoded, monkeypatch):
    turns, unpause = [], http._HttpAttempt._unpause
    monkeypatch.setattr(http._HttpAttempt, "_unpause", lambda attempt: turns.append(attempt) or unpause(attempt))
    assert fail(server.url("/crumbs?bytes=100"), timeout_s=100)[0] == "decode_failed"  # 4 MiB of zeros
    assert len(turns) > 10
    expected = pl.Series(encoded[:1]).imgmatch.phash().item()
    for n_bytes in (1, 2, 64, 5000):
        assert hashed([server.url(f"/crumbs?bytes={n_bytes}&end=1")])["phash"].item() == expected
    assert scheduler.shared_scheduler()._budget.n_bytes == 0


def test_text_of_servers_is_shown_without_control_characters(server, tmp_path):
    status, detail = fail(server.url("/escapes"))
    assert status == "decode_failed"
    assert detail.isprintable()
    assert "hello" in detail
    frame = pl.DataFrame({"url": [server.url("/escapes")]})
    imgmatch_df.write_hashes(frame, tmp_path / "s.duckdb", source="url", allow_private_networks=True)
    assert imgmatch_df.read_hashes(tmp_path / "s.duckdb")["etag"].item().isprintable()


def test_redirects_respect_the_option_schemes(server):
    url = server.url("/to?u=" + server.url("/ok/1.jpg").replace("http:", "https:"))
    assert fail(url, schemes=["http"])[0] == "fetch_blocked"
    assert fail(server.url("/ok/1.jpg"), schemes=["https"])[0] == "fetch_blocked"
    assert hashed([server.url("/to?u=" + server.url("/ok/1.jpg"))], schemes=["http"])["status"].item() == "ok"
