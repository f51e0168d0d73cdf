"""Requests through proxies of others (tinyproxy, Dante), and to nginx."""

import gzip
import os
import shutil
import socket
import subprocess
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import brotli
import polars as pl
import pytest
import trustme
from PIL import Image
from service import is_listening
from waiting import wait_until

from imgmatch_df.fetching import circuit_breaker

pytestmark = pytest.mark.packages

FAST = {"allow_private_networks": True, "timeout_s": 100, "attempts": 1}
NGINX = """
daemon off; pid {root}/nginx.pid; error_log {root}/error.log; worker_processes 1; user root;
events {{}}
http {{
  access_log {root}/access.log combined; types {{ image/png png; text/html html; }}
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3; uwsgi_temp_path {root}/t4;
  scgi_temp_path {root}/t5;
  server {{
    listen 127.0.0.1:{http}; listen 127.0.0.1:{https} ssl; root {root}/www;
    ssl_certificate {root}/cert.pem; ssl_certificate_key {root}/key.pem;
    location /private/ {{ if ($http_authorization != "Bearer s3cr3t-t0ken") {{ return 401; }} }}
    location /agents/ {{ types {{ }} if ($http_user_agent !~ "example.com/bot") {{
        return 403 "Set a User-Agent with a contact, see https://example.com/policy"; }} default_type text/plain; }}
    location /gzip/ {{ add_header Content-Encoding gzip; }}
    location /brotli/ {{ add_header Content-Encoding br; }}
    location /away/ {{ return 302 http://localhost:{http}/private/a.png; }}
    location /up/ {{ return 301 https://127.0.0.1:{https}/private/a.png; }}
  }}
}}
"""
TINYPROXY = """
Port {port}
Listen 127.0.0.1
Timeout 200
MaxClients 20
LogFile "{root}/tinyproxy.log"
LogLevel Info
BasicAuth me pa55word
"""
DANTE = """
logoutput: {root}/dante.log
internal: 127.0.0.1 port = {port}
external: lo
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks block {{ from: 127.0.0.0/8 to: 127.0.0.3/32 }}
socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 protocol: tcp }}
"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def running(program, *arguments, port, env=None):
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/bin")
    assert path is not None, f"{program} is not installed; .ci/run names the packages of Debian"
    process = subprocess.Popen([path, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    try:
        wait_until(lambda: process.poll() is not None or is_listening(port))
        assert process.poll() is None, f"{program} ended"
        yield
    finally:
        process.terminate()
        process.wait(100)


class Web:
    def __init__(self, root: Path) -> None:
        self.root, self.http, self.https = root, free_port(), free_port()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.http}{path}"

    def lines(self) -> list[str]:
        return (self.root / "access.log").read_text().splitlines()


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    root = tmp_path_factory.mktemp("nginx")
    made = Web(root)
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.cert_chain_pems[0].write_to_path(root / "cert.pem")
    certificate.private_key_pem.write_to_path(root / "key.pem")
    authority.cert_pem.write_to_path(root / "ca.pem")
    image = BytesIO()
    Image.effect_noise((64, 48), 90).save(image, "png")
    for folder in ("private", "agents", "gzip", "brotli"):
        (root / "www" / folder).mkdir(parents=True)
        (root / "www" / folder / "a.png").write_bytes(image.getvalue())
    half = len(image.getvalue()) // 2
    parts = image.getvalue()[:half], image.getvalue()[half:]
    (root / "www/gzip/a.png").write_bytes(b"".join(map(gzip.compress, parts)))
    (root / "www/brotli/a.png").write_bytes(brotli.compress(image.getvalue()))
    (root / "nginx.conf").write_text(NGINX.format(root=root, http=made.http, https=made.https))
    with running("nginx", "-c", str(root / "nginx.conf"), "-p", str(root), port=made.http):
        yield made


@pytest.fixture(scope="module")
def tinyproxy(tmp_path_factory):
    root, port = tmp_path_factory.mktemp("tinyproxy"), free_port()
    (root / "tinyproxy.conf").write_text(TINYPROXY.format(root=root, port=port))
    with running("tinyproxy", "-d", "-c", str(root / "tinyproxy.conf"), port=port):
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def dante(tmp_path_factory):
    root, port = tmp_path_factory.mktemp("dante"), free_port()
    (root / "dante.conf").write_text(DANTE.format(root=root, port=port))
    with running("danted", "-f", str(root / "dante.conf"), "-p", str(root / "pid"), port=port):
        yield f"127.0.0.1:{port}"


@pytest.fixture
def trusted(web, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(web.root / "ca.pem"))
    from imgmatch_df.fetching import scheduler

    scheduler._close_at_exit()  # handles have the certificates of their start
    yield
    scheduler._close_at_exit()


def hashed(*urls, **options):
    out = pl.DataFrame({"url": urls}).imgmatch.visual_hash("url", **{**FAST, **options})
    return list(zip(out["status"], out["detail"], strict=True))


OK = ("ok", None)


# --- nginx -----------------------------------------------------------------------------------------------------------


def test_headers_of_a_host(web):
    headers = {"127.0.0.1": {"Authorization": "Bearer s3cr3t-t0ken"}}
    assert hashed(web.url("/private/a.png"), headers=headers) == [OK]
    status, detail = hashed(web.url("/private/a.png"))[0]
    assert status == "fetch_failed"
    assert detail.startswith("HTTP 401: “401 Authorization Required nginx")
    assert hashed(web.url("/away/"), headers=headers)[0][0] == "fetch_failed", "localhost is another host"


def test_headers_are_not_sent_to_another_port(web, trusted):
    headers = {"127.0.0.1": {"Authorization": "Bearer s3cr3t-t0ken"}}
    assert hashed(web.url("/up/"), headers=headers)[0][0] == "fetch_failed"
    both = {**headers, f"https://127.0.0.1:{web.https}": {"Authorization": "Bearer s3cr3t-t0ken"}}
    assert hashed(web.url("/up/"), headers=both) == [OK]


def test_a_user_agent_with_a_contact(web):
    url = web.url("/agents/a.png")
    assert hashed(url) == [
        ("fetch_failed", "HTTP 403: “Set a User-Agent with a contact, see https://example.com/policy” after 1 attempt")
    ]
    assert hashed(url, user_agent="crawler/1.0 (+https://example.com/bot)") == [OK]


def test_encodings(web):
    assert hashed(web.url("/gzip/a.png"), web.url("/brotli/a.png")) == [OK, OK]


# --- proxies ---------------------------------------------------------------------------------------------------------


def test_http_and_https_through_tinyproxy(web, tinyproxy, trusted, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    urls = [
        web.url("/agents/a.png"),
        web.url("/agents/a.png", "localhost"),
        f"https://127.0.0.1:{web.https}/agents/a.png",
    ]
    agent = "through-tinyproxy (+https://example.com/bot)"
    before = len(web.lines())
    assert hashed(*urls, proxy=f"http://me:pa55word@{tinyproxy}", user_agent=agent) == [OK] * 3
    assert all(agent in line for line in web.lines()[before:])
    assert hashed(urls[2].replace("/agents/", "/none/"), proxy=f"http://me:pa55word@{tinyproxy}")[0][0] == "not_found"


def test_credentials_of_a_proxy(web, tinyproxy):
    """Tinyproxy answers 407 where there are none, and 401 to wrong ones."""
    wrong = f"the proxy http://{tinyproxy} does not accept the credentials: HTTP"
    http, https = web.url("/gzip/a.png"), f"https://127.0.0.1:{web.https}/gzip/a.png"
    without = f"http://{tinyproxy}"
    assert hashed(http, https, proxy=without) == [("fetch_failed", f"{wrong} 407 after 1 attempt")] * 2
    for credentials in ("me:wrong-word", "you:pa55word"):
        proxy = f"http://{credentials}@{tinyproxy}"
        assert hashed(https, proxy=proxy) == [("fetch_failed", f"{wrong} 401 after 1 attempt")]
        # As a server could answer it, so the text and the proxy are named.
        status, detail = hashed(http, proxy=proxy)[0]
        assert status == "fetch_failed"
        assert detail.startswith("HTTP 401: “401 Unauthorized")
        assert f"through the proxy http://{tinyproxy}" in detail
        assert "word" not in detail.replace("password", "")


def test_what_a_proxy_cannot_reach(web, tinyproxy):
    proxy = f"http://me:pa55word@{tinyproxy}"
    dead = free_port()
    https, http = hashed(f"https://127.0.0.1:{dead}/a.png", f"http://127.0.0.1:{dead}/a.png", proxy=proxy)
    assert https == ("fetch_failed", f"the proxy http://{tinyproxy} did not connect: HTTP 500 after 1 attempt")
    assert http[0] == "fetch_failed"
    assert http[1].startswith("HTTP 500: “")
    assert "pa55word" not in http[1]


def test_https_and_http_through_dante(web, dante, trusted):
    proxy = f"socks5h://{dante}"
    urls = [web.url("/gzip/a.png"), web.url("/gzip/a.png", "localhost"), f"https://localhost:{web.https}/gzip/a.png"]
    assert hashed(*urls, proxy=proxy) == [OK] * 3
    refused, blocked = hashed(f"http://127.0.0.1:{free_port()}/a.png", web.url("/gzip/a.png", "127.0.0.3"), proxy=proxy)
    assert refused == ("fetch_failed", f"the proxy {proxy} did not connect: connection refused after 1 attempt")
    assert blocked == ("fetch_failed", f"the proxy {proxy} did not connect: not allowed by its rules after 1 attempt")


def test_a_private_network_behind_a_proxy(web, tinyproxy):
    proxy = f"http://me:pa55word@{tinyproxy}"
    urls = [web.url("/gzip/a.png", host) for host in ("127.0.0.1", "127.1", "localhost", "a.internal", "box", "[::1]")]
    before = len(web.lines())
    with pytest.warns(match="resolves host names") as warned:
        out = hashed(*urls, proxy=proxy, allow_private_networks=False)
    assert "pa55word" not in str(warned[0].message)
    assert [status for status, _ in out] == ["fetch_blocked"] * len(urls)
    assert len(web.lines()) == before


def test_a_dead_proxy_stops_its_rows_and_no_others(web, monkeypatch):
    monkeypatch.setattr(circuit_breaker, "SILENT_S", 0.0)
    proxy = f"http://me:pa55word@127.0.0.1:{free_port()}"
    urls = [web.url(f"/gzip/a.png?n={n}") for n in range(200)]
    out = hashed(*urls, proxy=proxy, n_connections=4)
    origin = proxy.replace("me:pa55word@", "")
    assert out[0] == ("fetch_failed", f"no connection to the proxy {origin}: connection refused after 1 attempt")
    assert out[-1][1].startswith(f"not requested: {origin} did not respond to the last ")
    assert hashed(*urls[:20]) == [OK] * 20
