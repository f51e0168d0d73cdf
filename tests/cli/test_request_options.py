"""--header, --user-agent, --proxy and --min-interval-s."""

import pytest
from hostile_server import HostileServer
from typer.testing import CliRunner

from imgmatch_df.cli.app import app
from imgmatch_df.cli.request_options import parse_headers, parse_proxy
from imgmatch_df.errors import ArgumentError


@pytest.fixture(scope="module")
def server(encoded):
    with HostileServer(encoded) as running:
        yield running


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Referer: https://e.com/", {"Referer": "https://e.com/"}),
        ("A:b", {"A": "b"}),
        ("Cookie:a=b", {"Cookie": "a=b"}),
        ("Cookie: a=b; c=d:e", {"Cookie": "a=b; c=d:e"}),
        ("e.com=A: b", {"e.com": {"A": "b"}}),
        ("*.e.com=A: b=c", {"*.e.com": {"A": "b=c"}}),
        ("e.com:8080=A: b", {"e.com:8080": {"A": "b"}}),
        ("https://[::1]:8=A: b:c", {"https://[::1]:8": {"A": "b:c"}}),
    ],
)
def test_a_header_is_parsed(text, expected):
    assert parse_headers([text]) == expected


def test_headers_of_files(tmp_path):
    path = tmp_path / "secrets ü.txt"
    path.write_text("# a comment\n\ne.com=Authorization: Bearer x\r\nA: b\ne.com=C: d\n", encoding="utf-8")
    assert parse_headers([f"@{path}", "D: e"]) == {"A": "b", "D": "e", "e.com": {"Authorization": "Bearer x", "C": "d"}}
    path.write_text(" http://me:pw@proxy:3128\n")
    assert parse_proxy(f"@{path}") == "http://me:pw@proxy:3128"
    assert parse_headers([]) is parse_headers(None) is parse_proxy(None) is None


@pytest.mark.parametrize("given", [["s3cr3t"], [""], ["=A: s3cr3t"], ["A s3cr3t"], ["A: s3cr3t", "a: s3cr3t"]])
def test_wrong_headers_are_refused_without_their_values(given):
    with pytest.raises(ArgumentError, match=r"--header \d") as error:
        parse_headers(given)
    assert "s3cr3t" not in str(error.value)


def test_wrong_files_are_refused(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "line").write_text("A: b\nBearer s3cr3t\n")
    for name, why in (("none", "No such file"), ("bytes", "not UTF-8"), ("line", "line 2"), ("", "directory")):
        with pytest.raises(ArgumentError, match=why) as error:
            parse_headers([f"@{tmp_path / name}"])
        assert "s3cr3t" not in str(error.value)
    with pytest.raises(ArgumentError, match="as a header and as a host"):
        parse_headers(["A: b", "A=c: d"])


def test_the_command_sends_them(server, tmp_path):
    def run(*words):
        return CliRunner().invoke(app, words)

    (tmp_path / "urls.csv").write_text(f"url\n{server.url('/echo-type')}\n{server.url('/ok/1.jpg')}\n")
    (tmp_path / "h.txt").write_text("127.0.0.1=Authorization: Bearer s3cr3t-t0ken\n")
    shown = run(
        "visual-hash", str(tmp_path / "urls.csv"), "--allow-private-networks", "--header", f"@{tmp_path / 'h.txt'}",
        "--header", "X-Own: a", "--user-agent", "mine/1.0", "--min-interval-s", "0.05", "--attempts", "1",
    )  # fmt: skip
    assert "s3cr3t" not in shown.stdout + shown.stderr
    received = server.headers[-1]
    assert (received["Authorization"], received["X-Own"], received["User-Agent"]) == (
        "Bearer s3cr3t-t0ken",
        "a",
        "mine/1.0",
    )
    through = run(
        "visual-hash", str(tmp_path / "urls.csv"), "--allow-private-networks", "--attempts", "1",
        "--proxy", f"http://me:pa55word@127.0.0.1:{server.port}",
    )  # fmt: skip
    assert "pa55word" not in through.stdout + through.stderr
    assert "Proxy-Authorization" in server.headers[-1]
