"""Columns of strangers, in a network where something listens on every address: nothing private is reached."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, unquote

import namespace
import polars as pl
import pytest
from drawing import draw, jpeg

import imgmatch_df  # noqa: F401  # registers the namespaces

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are of Linux")

_HOSTS = """
127.0.0.1 127.1 127.0.1 127.0.0.1. 127.1. 0 0.0.0.0 0x7f.1 0x7f000001 0x7f.0x0.0x0.0x1 017700000001 0177.0.0.1
00000177.0.0.1 127.00000.0.1 2130706433 4294967297 localhost LOCALHOST localhost. a.localhost [::1] [::]
[0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b::127.0.0.1]
[2002:7f00:1::] [2001:0:7f00:1::] [::1%25lo] [::1%lo] [fe80::1%25lo] [fec0::1] [fd00:ec2::254] [ff02::1]
[::a9fe:a9fe] [::ffff:169.254.169.254] １２７.０.０.１ ①②⑦.⓪.⓪.① 127。0。0。1 127．0．0．1 127｡0｡0｡1 ⓛⓞⓒⓐⓛⓗⓞⓢⓣ
12\u00ad7.0.0.1 %31%32%37.0.0.1 127%2e0%2e0%2e1 127.0.0.1%00.public.example 127.0.0.1%2f@public.example
x@127.0.0.1 public.example@127.0.0.1 public.example:80@127.0.0.1 93.184.216.34@10.0.0.7
127.0.0.1\\@public.example 127.0.0.1#@public.example 127.0.0.1?@public.example public.example#@127.0.0.1
127.0.0.1:80 127.0.0.1:8080 127.0.0.1:00080 127.0.0.1:443 127.0.0.1:80:80 10.0.0.7 172.16.0.1 192.168.0.1
192.0.0.192 100.100.100.200 168.63.129.16 169.254.169.254 0xa9fea9fe 2852039166 0251.0376.0251.0376
private.example mapped.example mixed.example flip.example
"""
HOSTS = [*_HOSTS.split(), "127.\t0.0.1", "127.0.0\n.1", "127.0.0.1\r", " 127.0.0.1"]
_SCHEMES = """
file gopher ftp ftps sftp ssh dict ldap ldaps tftp smb telnet imap pop3 rtsp rtmp scp ws wss webhdfs hdfs git github
reference simplecache filecache blockcache zip tar libarchive memory data dask jupyter http+unix unix s3 s3a gs gcs az
abfs abfss adl hf oss oci tos dbfs lakefs box gdrive arrow_hdfs local dir cached generic asynclocal
"""
SCHEMES = _SCHEMES.split()
FORMS = [
    *("http://{}/a", "https://{}/a", "HTTP://{}/a", "//{}/a", " http://{}"),
    *("http:\\\\{}/a", "http:/\\{}/a", "http:///{}/a"),
]
OF_SCHEMES = ["{}://127.0.0.1:8080/a", "{}://127.0.0.1/a", "{}::http://127.0.0.1/a", "{}://bucket/a"]
ODD_LOCATIONS = [
    *("/\\127.0.0.1/", "\\\\127.0.0.1", "http:/\\/127.0.0.1", "http:127.0.0.1", "///127.0.0.1/a", "http:///127.0.0.1/"),
    *("file:///etc/passwd", "data:image/png;base64,AAAA", "javascript:1", f"http://127.0.0.1#@{namespace.PUBLIC}"),
]
OBJECT_STORES = ("s3", "gs", "gcs", "az", "abfs", "adl", "hf", "oss", "oci", "tos")


def values():
    written = [form.replace("{}", host) for host in HOSTS for form in FORMS]
    return written + [form.replace("{}", scheme) for scheme in SCHEMES for form in OF_SCHEMES]


def values_but_objects():
    return [value for value in values() if not value.startswith(OBJECT_STORES)]


def redirects():
    written = [form.replace("{}", host) for host in HOSTS for form in ("http://{}/a", "https://{}/a", "//{}/a")]
    written += [form.replace("{}", scheme) for scheme in SCHEMES for form in OF_SCHEMES] + ODD_LOCATIONS
    return [f"http://{namespace.PUBLIC}/to/{quote(location, safe='')}" for location in written]


def names():
    return [f"http://{name}.example/{n}" for name in ("flip", "mixed", "private", "mapped") for n in range(40)]


CALLS = {
    "values": (values, {}),
    "values, with storage_options": (
        lambda: [v for v in values() if not v.startswith(OBJECT_STORES)],
        {"storage_options": {}},
    ),
    "redirects": (redirects, {}),
    "redirects, with storage_options": (redirects, {"storage_options": {}}),
    "names": (names, {}),
}


def look_up(host, *_, **__):
    """Stand in for the resolver."""
    look_up.n_calls += 1
    ips = {
        "public.example": [namespace.PUBLIC],
        "private.example": ["127.0.0.1"],
        "mapped.example": ["::ffff:127.0.0.1"],
        "mixed.example": ["127.0.0.1", namespace.PUBLIC, "::1"],
        "flip.example": ["127.0.0.1" if look_up.n_calls % 2 else namespace.PUBLIC],
        "localhost": ["127.0.0.1"],
        "a.localhost": ["127.0.0.1"],
    }.get(host)
    if ips is None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")
    return [(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 0)) for ip in ips]


look_up.n_calls = 0


FOLDERS = [str(Path(file).parent) for file in (__file__, namespace.__file__)]
IN_NAMESPACE = f"import sys; sys.path[:0] = {FOLDERS!r}; import namespace; namespace.enter(); "


def attack():
    """In the namespace: hash every column, and print what happened."""
    good = jpeg(draw(1))

    def respond(path):
        if path.startswith("/to/"):
            location = unquote(path.removeprefix("/to/")).encode()
            return (
                b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nConnection: close\r\nLocation: " + location + b"\r\n\r\n"
            )
        return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(good) + good

    socket.getaddrinfo = look_up
    canary = namespace.Canary(respond)
    out = {}
    for name, (make, options) in CALLS.items():
        canary.hits.clear()
        column = pl.Series([*make(), f"http://{namespace.PUBLIC}/good"])
        hashed = column.imgmatch.visual_hash(timeout_s=2, attempts=1, **options).struct.unnest()
        out[name] = {
            "hits": list(canary.hits),
            "unclean": [text for text in hashed["detail"] if text is not None and not text.isprintable()],
            "ok": column.filter(hashed["status"] == "ok").to_list(),
            "n_redirects": sum(path.startswith("/to/") for path in canary.paths),
        }
    json.dump(out, sys.stdout)


@pytest.fixture(scope="module")
def found():
    code = f"{IN_NAMESPACE}import test_network_namespace; test_network_namespace.attack()"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, timeout=250)
    if run.returncode == namespace.CANNOT:
        pytest.skip("no network namespace can be made here")
    assert run.returncode == 0, run.stderr.decode()
    return json.loads(run.stdout)


@pytest.mark.parametrize("call", CALLS)
def test_no_private_network_is_reached(found, call):
    assert found[call]["hits"] == []
    assert found[call]["unclean"] == []
    assert f"http://{namespace.PUBLIC}/good" in found[call]["ok"]
    assert len(found[call]["ok"]) > 1 or "values" not in call  # such as http://127.0.0.1%2f@public.example


def test_every_redirect_was_sent(found):
    assert found["redirects"]["n_redirects"] >= len(redirects())


def test_the_canary_sees_allowed_requests():
    code = f"""
{IN_NAMESPACE}
import polars as pl, imgmatch_df
canary = namespace.Canary(str)
urls = [f"http://{{ip}}:8080/a" for ip in ("127.0.0.1", "[::1]", *namespace.PRIVATE)]
pl.Series(urls).imgmatch.phash(allow_private_networks=True, attempts=1, timeout_s=3)
assert len(set(canary.hits)) == len(urls), canary.hits
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=250)
    if run.returncode == namespace.CANNOT:
        pytest.skip("no network namespace can be made here")
    assert run.returncode == 0, run.stderr.decode()
