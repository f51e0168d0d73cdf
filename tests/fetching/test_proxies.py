"""Requests through a proxy. The server of the other tests is one, for http: it reads the path of the whole URL."""

import base64
import pickle
import socket
import threading

import polars as pl
import pytest
from hostile_server import HostileServer

from imgmatch_df.errors import ArgumentError, ImgMatchWarning
from imgmatch_df.fetching import circuit_breaker, http, scheduler
from imgmatch_df.fetching.proxies import refuse_private
from imgmatch_df.fetching.urls import clean_url
from imgmatch_df.options import make_options

FAST = {"allow_private_networks": True, "timeout_s": 60, "attempts": 1}


@pytest.fixture(scope="module")
def proxy(encoded):
    with HostileServer(encoded) as running:
        yield running


def hashed(*urls, **options):
    out = pl.DataFrame({"url": urls}).imgmatch.visual_hash("url", **{**FAST, **options})
    return list(zip(out["status"], out["detail"], strict=True))


@pytest.mark.parametrize(
    "given",
    [
        *("", "proxy:3128", "http://proxy", "http://proxy:", "http://proxy:0", "http://proxy:99999", "http://:3128"),
        *("http://proxy:31x", "http://proxy:3128/path", "http://proxy:3128?q", "ftp://proxy:21", "socks5://proxy:1080"),
        *("socks4://p:1", "http://a b:1", "http://u:s3cr3t/x@proxy:1", "http://u:s3cr3t%0a@proxy:1", "http://[::1:1"),
        *(
            "http://u:s3cr3t%ff@proxy:1",
            f"http://u:{'s3cr3t' * 50}@proxy:1",
            "http://s3cr3t%3A:p@proxy:1",
            7,
            b"http://p:1",
        ),
        *(["http://proxy:1"], "http://proxy:²", "http://-:1", True),
    ],
)
def test_wrong_proxies_raise_and_are_not_shown(given):
    with pytest.raises(ArgumentError, match=r"proxy must be the URL of a proxy.*\nHint: ") as error:
        make_options(proxy=given)
    assert "s3cr3t" not in str(error.value)


def test_a_proxy_is_shown_without_credentials():
    options = make_options(proxy=" HTTP://me:pa%40ss%3Aword@PROXY.example.com:3128/ ", allow_private_networks=True)
    assert (options.proxy.user, options.proxy.password) == ("me", "pa@ss:word")
    assert repr(options.proxy) == "<http://proxy.example.com:3128>"
    assert "pa@ss" not in repr(options)
    assert pickle.loads(pickle.dumps(options)) == options
    assert (
        make_options(proxy="socks5h://[::1]:1080", allow_private_networks=True).proxy.origin == "socks5h://[::1]:1080"
    )


def test_a_warning_says_once_what_is_not_checked():
    given = "http://me:pa55word@once.example.com:3128"
    with pytest.warns(ImgMatchWarning, match="resolves host names, so a name that resolves to a private IP") as warned:
        make_options(proxy=given)
    make_options(proxy=given)
    make_options(proxy=given.replace("once", "never"), allow_private_networks=True)
    assert len(warned) == 1
    assert "pa55word" not in str(warned[0].message)


@pytest.mark.parametrize(
    ("host", "is_refused"),
    [
        *((host, True) for host in ("127.0.0.1", "0x7f.1", "10.0.0.7", "[::1]", "[::ffff:7f00:1]", "169.254.169.254")),
        *(
            (host, True)
            for host in ("localhost", "LOCALHOST.", "a.localhost", "box", "nas.local", "x.internal", "a.lan")
        ),
        *((host, False) for host in ("example.com", "8.8.8.8", "local.example.com", "127.0.0.1.example.com")),
    ],
)
def test_what_is_checked_without_resolving(host, is_refused):
    refused = refuse_private(clean_url(f"http://{host}/a.jpg"))
    assert (refused is not None) is is_refused
    assert refused is None or refused.status == "fetch_blocked"


def test_requests_go_through_the_proxy_and_no_name_is_resolved(proxy, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(http.ConnectionPool, "resolve", None)
    proxy.headers.clear()
    url = "http://images.example.com/ok/1.jpg"
    given = f"http://me:pa55word@127.0.0.1:{proxy.port}"
    headers = {"images.example.com": {"Authorization": "Bearer x"}}
    with pytest.warns(match="resolves host names"):
        assert hashed(url, proxy=given, allow_private_networks=False, headers=headers) == [("ok", None)]
    (received,) = proxy.headers
    assert url in proxy.targets
    assert received["Host"] == "images.example.com"
    assert received["Authorization"] == "Bearer x"
    assert received["Proxy-Authorization"] == f"Basic {base64.b64encode(b'me:pa55word').decode()}"
    assert hashed(proxy.url("/ok/1.jpg")) == [("ok", None)], "without a proxy, at once"
    assert "Proxy-Authorization" not in proxy.headers[-1]


def test_credentials_of_one_expression_are_not_used_by_another(proxy):
    url = "http://images.example.com/ok/1.jpg"
    for credentials in ("me:pa55word@", "you:pa55word@", ""):
        assert hashed(url, proxy=f"http://{credentials}127.0.0.1:{proxy.port}") == [("ok", None)]
        sent = proxy.headers[-1].get("Proxy-Authorization", "")
        assert base64.b64decode(sent.removeprefix("Basic ")).decode() == credentials.removesuffix("@")


def test_redirects_are_checked_behind_a_proxy(proxy):
    given = f"http://127.0.0.1:{proxy.port}"
    targets = ["http://127.0.0.1/ok/1.jpg", "http://nas.local/ok/1.jpg", "http://b.example.com/ok/1.jpg"]
    with pytest.warns(match="resolves host names"):
        out = hashed(
            *(f"http://a.example.com/to?u={target}" for target in targets), proxy=given, allow_private_networks=False
        )
    assert [status for status, _ in out] == ["fetch_blocked", "fetch_blocked", "ok"]


def test_failures_of_a_proxy_are_not_those_of_the_image(proxy):
    given = f"http://me:pa55word@127.0.0.1:{proxy.port}"
    origin = f"http://127.0.0.1:{proxy.port}"
    assert hashed("http://h.example/status/407", proxy=given) == [
        ("fetch_failed", f"the proxy {origin} does not accept the credentials: HTTP 407 after 1 attempt")
    ]
    assert hashed("http://h.example/status/407".replace("h.example", f"127.0.0.1:{proxy.port}"))[0][1] == (
        "HTTP 407 after 1 attempt"
    )
    assert hashed("http://h.example/refuse?text=pa55word&code=503", proxy=given) == [
        ("fetch_failed", f"HTTP 503: “…” through the proxy {origin} after 1 attempt")
    ]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
        for url in ("http://h.example/a.jpg", "https://h.example/a.jpg"):
            assert hashed(url, proxy=dead.replace("//", "//me:pa55word@")) == [
                ("fetch_failed", f"no connection to the proxy {dead}: connection refused after 1 attempt")
            ]
    status, detail = hashed("http://h.example/a.jpg", proxy="http://proxy.invalid:3128")[0]
    assert status == "fetch_failed"
    assert detail.startswith("no connection to the proxy http://proxy.invalid:3128: ")


@pytest.mark.parametrize("scheme", ["http", "socks5h"])
def test_a_proxy_that_accepts_and_is_silent(scheme):
    """The server behind it may be the slow one, so this does not count for the proxy."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        origin = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
        assert hashed("https://h.example/a.jpg", proxy=origin, timeout_s=1.5) == [
            ("fetch_timeout", f"no connection through the proxy {origin} within 0.5 s after 1 attempt")
        ]


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
def test_a_server_that_is_no_proxy(scheme):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            for _ in range(2):
                connection, _ = listening.accept()
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        given = f"{scheme}://me:pa55word@127.0.0.1:{listening.getsockname()[1]}"
        out = hashed("http://h.example/a.jpg", "https://h.example/b.jpg", proxy=given)
        thread.join(100)
    assert [status for status, _ in out] == ["fetch_failed"] * 2
    assert "pa55word" not in str(out)


def test_rows_of_a_dead_proxy_fail_at_once_and_no_others(proxy, monkeypatch):
    monkeypatch.setattr(circuit_breaker, "SILENT_S", 0.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
        urls = [proxy.url(f"/ok/{n % 40}.jpg?n={n}") for n in range(300)]
        out = hashed(*urls, proxy=dead, n_connections=4)
        assert {status for status, _ in out} == {"fetch_failed"}
        assert out[-1][1].startswith(f"not requested: {dead} did not respond to the last ")
        assert hashed(*urls[:40]) == [("ok", None)] * 40


def test_pools_of_many_proxies_are_bounded(proxy):
    for n in range(40):
        assert hashed("http://h.example/ok/1.jpg", proxy=f"http://user{n}:p@127.0.0.1:{proxy.port}") == [("ok", None)]
    client = scheduler.shared_scheduler()._transports[http.HttpClient]
    assert len(client._pools) <= http._MAX_PROXIED_POOLS + 2
    assert client._pools.keys() == client._idle.keys()
