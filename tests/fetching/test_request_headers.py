"""Headers of requests: what is accepted, which server gets what, and that no value is shown."""

import pickle

import polars as pl
import pytest
from hostile_server import HostileServer

import imgmatch_df
from imgmatch_df.errors import ArgumentError
from imgmatch_df.fetching.request_headers import request_lines, secrets_of
from imgmatch_df.fetching.urls import clean_url, follow_redirect
from imgmatch_df.options import make_options

FAST = {"allow_private_networks": True, "timeout_s": 20, "attempts": 1}
SECRET = "Bearer s3cr3t-t0ken"


@pytest.fixture(scope="module")
def server(encoded):
    with HostileServer(encoded) as running:
        yield running


@pytest.fixture(scope="module")
def other(encoded):
    with HostileServer(encoded) as running:
        yield running


def hashed(url, **options):
    return pl.DataFrame({"url": [url]}).imgmatch.visual_hash("url", **{**FAST, **options}).row(0, named=True)


def sent(headers, url, *, first=None, **options):
    """The header lines of a request, by name in lower case."""
    column = clean_url(first or url)
    target = column if first is None else clean_url(url)
    lines = request_lines(target, column, make_options(headers=headers, **options))
    return {
        line.decode("latin-1").partition(": ")[0].lower(): line.decode("latin-1").partition(": ")[2] for line in lines
    }


# --- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        *("Authorization: x", ["A: b"], 7, {1: "b"}, {"": "b"}, {"A b": "c"}, {"A:": "b"}, {"Ä": "b"}, {"A\n": "b"}),
        *(
            {"A": "b\r\nC: d"},
            {"A": "b\nc"},
            {"A": "b\0"},
            {"A": "日本"},
            {"A": b"b"},
            {"A": None},
            {"A": 1},
            {"A": " "},
        ),
        *({"A": "b", "a": "c"}, {"A": "x" * 9000}, {f"A{n}": "b" for n in range(101)}),
        *({name: "x"} for name in ("Host", "content-length", "Transfer-Encoding", "TE", "Connection", "Upgrade")),
        *({name: "x"} for name in ("Accept-Encoding", "RANGE", "If-None-Match", "Proxy-Authorization", "Expect")),
        *(
            {"h": {"Host": "x"}},
            {"h": {"A": {"B": "c"}}},
            {"h": {"A": "b\n" + "c"}},
            {"h": {"A": "b"}, "H.": {"A": "c"}},
        ),
        *(
            {host: {"A": "b"}}
            for host in ("", "a b", "a/b", "ftp://a", "a:0", "a:99999", "u:p@a", "*", "a.*.b", "[::1")
        ),
        *({host: {"A": "b"}} for host in ("256.1.1.1", "a..b", "-a-", None, 1, "a?b", "a#b", "https://")),
    ],
)
def test_wrong_headers_raise_without_their_values(headers):
    if isinstance(headers, dict):
        headers = {**headers, "X-Other": SECRET}
    with pytest.raises(ArgumentError, match="\nHint: ") as error:
        pl.col("url").imgmatch.phash(headers=headers)
    assert SECRET not in str(error.value)


def test_a_name_that_holds_the_value_is_not_shown():
    with pytest.raises(ArgumentError) as error:
        make_options(headers={f"Authorization: {SECRET}": "x"})
    assert "s3cr3t" not in str(error.value)


@pytest.mark.parametrize("agent", ["", " ", "a\nb", "日本", 7, "x" * 9000, b"x"])
def test_a_wrong_user_agent_raises(agent):
    with pytest.raises(ArgumentError, match="user_agent must be one line"):
        make_options(user_agent=agent)
    with pytest.raises(ArgumentError, match="both set the User-Agent"):
        make_options(user_agent="a", headers={"USER-AGENT": "b"})


def test_no_headers_are_the_same_as_none():
    assert make_options(headers={}).headers is make_options(headers={"h": {}}).headers is None


# --- which server gets what ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "gets", "gets_not"),
    [
        ("e.com", ["http://e.com/", "https://E.com./", "http://e.com:8080/"], ["http://a.e.com/", "http://ee.com/"]),
        (
            "*.e.com",
            ["http://a.e.com/", "https://b.a.e.com:1/"],
            ["http://e.com/", "http://ae.com/", "http://e.com.x/"],
        ),
        ("e.com:8080", ["http://e.com:8080/", "https://e.com:8080/"], ["http://e.com/", "http://e.com:80801/x"]),
        ("https://e.com", ["https://e.com/", "https://e.com:443/"], ["http://e.com/", "https://e.com:444/"]),
        ("http://e.com:80/", ["http://e.com/"], ["https://e.com:80/", "http://e.com:81/"]),
        ("Bücher.example", ["http://bücher.example/", "http://xn--bcher-kva.example/"], ["http://bucher.example/"]),
        ("[::1]:80", ["http://[0:0::1]/"], ["http://[::1]:81/", "http://[::2]/"]),
        ("127.0.0.1", ["http://127.1/", "http://0x7f000001:81/"], ["http://127.0.0.2/", "http://1.127.0.0.1.e/"]),
    ],
)
def test_a_key_names_hosts(key, gets, gets_not):
    headers = {key: {"X-Key": "v"}}
    assert [sent(headers, url).get("x-key") for url in gets] == ["v"] * len(gets)
    for url in gets_not:
        if not isinstance(clean_url(url), tuple) or hasattr(clean_url(url), "host"):
            assert "x-key" not in sent(headers, url), url


def test_the_most_specific_header_counts():
    headers = {
        "https://a.e.com": {"X": "scheme"},
        "a.e.com:444": {"X": "port"},
        "a.e.com": {"X": "host"},
        "*.a.e.com": {"X": "deep"},
        "*.e.com": {"x": "wild"},
        "X": "all",
        "User-Agent": "mine",
    }
    hosts = ["b.com", "b.e.com", "b.a.e.com", "a.e.com:1", "a.e.com:444", "a.e.com"]
    expected = ["all", "wild", "deep", "host", "port", "scheme"]
    assert [sent(headers, f"https://{host}/")["x"] for host in hosts] == expected
    assert sent({"e.com": {"User-Agent": "b"}}, "http://e.com/", user_agent="a")["user-agent"] == "b"
    assert sent({"Authorization": "a"}, "http://me:pw@e.com/")["authorization"] == "Basic bWU6cHc="
    assert sent({"Accept": "image/png"}, "http://e.com/")["accept"] == "image/png"


@pytest.mark.parametrize(
    ("first", "target", "arrives"),
    [
        ("https://e.com/", "https://e.com/x", ["all", "host", "agent"]),
        ("http://e.com/", "https://e.com/", ["all", "host", "agent"]),  # the upgrade that most sites make
        ("http://e.com:8080/", "https://e.com/", ["host", "agent"]),
        ("https://e.com/", "https://e.com:444/", ["agent"]),
        ("https://e.com/", "http://e.com/", ["agent"]),
        ("http://e.com/", "http://e.com:8080/", ["agent"]),
        ("https://e.com/", "https://www.e.com/", ["agent"]),
        ("https://e.com/", "https://evil.com/", ["agent"]),
        ("https://evil.com/", "https://e.com/", ["host", "agent"]),
        ("http://evil.com/", "http://e.com/", ["agent"]),
        ("http://evil.com/", "http://f.com:81/", ["port", "agent"]),
    ],
)
def test_a_redirect_gets_what_is_its_own(first, target, arrives):
    headers = {
        "X-Api-Key": "all",
        "User-Agent": "agent",
        "e.com": {"Authorization": "host"},
        "f.com:81": {"X-Port": "port"},
    }
    names = {"all": "x-api-key", "host": "authorization", "agent": "user-agent", "port": "x-port"}
    found = sent(headers, target, first=first)
    assert [word for word, name in names.items() if found.get(name) == word] == sorted(arrives, key=list(names).index)


def test_headers_reach_their_server_only(server, other):
    """Another port is another server, and another name too, also of the same machine."""
    headers = {"127.0.0.1": {"Authorization": SECRET}, "Cookie": "a=b", "Referer": "https://e.com/", "X-Own": "v"}
    targets = [other.url("/ok/1.jpg"), server.url("/ok/1.jpg", "localhost"), other.url("/ok/1.jpg", "localhost")]
    for target in targets:
        assert hashed(server.url(f"/to?u={target}"), headers=headers)["status"] == "ok"
        got = (server if str(server.port) in target else other).headers[-1]
        assert not {"Authorization", "Cookie", "X-Own"} & got.keys()
        assert got["Referer"] == "https://e.com/"
        asked = [each for each in server.headers if each.get("Authorization") == SECRET]
        assert asked
        assert asked[-1]["X-Own"] == "v"
    assert hashed(server.url("/to?u=/ok/1.jpg"), headers=headers)["status"] == "ok"
    assert server.headers[-1]["Authorization"] == SECRET
    assert hashed(server.url("/ok/2.jpg"))["status"] == "ok"
    assert not {"Authorization", "Cookie", "Referer"} & server.headers[-1].keys()


def test_https_never_leads_to_http():
    assert follow_redirect(clean_url("https://e.com/"), "http://e.com/").status == "fetch_blocked"


def test_the_user_agent(server):
    hashed(server.url("/ok/1.jpg"), user_agent="my-crawler/1.0 (+https://example.com/bot) ü")
    assert server.headers[-1]["User-Agent"] == "my-crawler/1.0 (+https://example.com/bot) ü"
    hashed(server.url("/ok/1.jpg"))
    assert server.headers[-1]["User-Agent"] == f"imgmatch-df/{imgmatch_df.__version__}"


# --- nothing is shown ------------------------------------------------------------------------------------------------


def test_values_are_in_no_repr_and_survive_a_pickle():
    options = make_options(headers={"X-Key": SECRET, "e.com": {"Authorization": SECRET}}, user_agent="a")
    assert "s3cr3t" not in f"{options} {options.headers} {options.headers.rules}"
    assert "Authorization for e.com" in repr(options.headers)
    assert pickle.loads(pickle.dumps(options)) == options
    expr = pl.col("url").imgmatch.phash(headers={"X-Key": SECRET})
    assert "s3cr3t" not in str(expr)
    assert "s3cr3t" not in pl.LazyFrame({"url": ["a"]}).select(expr).explain()


def test_what_a_server_repeats_is_hidden(server, tmp_path, caplog):
    headers = {
        "Authorization": SECRET,
        "Cookie": "sid=c00kie-value; theme=dark",
        "X-Api-Key": "kéy/with space",
        "User-Agent": "mine/1.0",
    }
    urls = [
        server.url("/echo?x=1"),
        server.url("/echo?sig=s1gnature%2Fvalue"),
        server.url("/echo").replace("//", "//me:pa55word@"),
        server.url("/echo?code=503"),
        server.url("/echo-type"),
        server.url("/to?u=/loop/s3cr3t-t0ken"),
    ]
    frame = pl.DataFrame({"url": urls})
    with caplog.at_level(0):
        out = frame.imgmatch.visual_hash("url", headers=headers, **FAST)
    shown = " ".join(out["detail"]) + caplog.text
    for secret in ("s3cr3t", "c00kie", "kéy", "s1gnature", "pa55word", "bWU6cGE1NXdvcmQ"):
        assert secret not in shown, secret
    assert out["detail"][0].startswith("HTTP 403: “{'")
    frame = frame.head(-1)  # its last URL is the secret of somebody else
    imgmatch_df.write_hashes(frame, tmp_path / "s.duckdb", source="url", headers=headers, **FAST)
    stored = imgmatch_df.read_hashes(tmp_path / "s.duckdb")
    assert "s3cr3t" not in f"{stored.rows()}"
    assert b"s3cr3t-t0ken" not in (tmp_path / "s.duckdb").read_bytes()


def test_the_parts_of_values_are_secrets_too():
    options = make_options(
        headers={"Authorization": "Basic bWU6cGE1NXdvcmQ=", "X-Flag": "yes", "Referer": "https://e.c/"}
    )
    found = secrets_of(clean_url("http://h/"), options)
    assert {"Basic bWU6cGE1NXdvcmQ=", "pa55word", "https://e.c/"} <= set(found)
    assert not {"yes", "https", "Basic", "HTTP"} & set(found)


def test_equal_urls_with_different_headers_are_fetched_for_each(server):
    """Expressions of one statement share a batch, but not if their headers differ."""
    server.headers.clear()
    column = pl.col("url").imgmatch
    frame = pl.DataFrame({"url": [server.url("/ok/1.jpg?shared")]})
    exprs = [column.phash(headers={"X-Who": who}, **FAST).alias(who) for who in "abb"[:2]]
    for engine in ("in-memory", "streaming"):
        server.headers.clear()
        frame.lazy().select(*exprs).collect(engine=engine)
        assert sorted(headers["X-Who"] for headers in server.headers) == ["a", "b"]
    server.headers.clear()
    frame.select(column.phash(headers={"X-Who": "a"}, **FAST), column.bmh1(headers={"x-who": "a"}, **FAST).alias("b"))
    assert {headers.get("X-Who", headers.get("x-who")) for headers in server.headers} == {"a"}
