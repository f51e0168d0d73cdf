"""Bodies that servers compress, although no request asks for it."""

import gzip
import tracemalloc
import zlib

import brotli
import polars as pl
import pytest
from hostile_server import ENCODERS, HostileServer, raw_deflate, zstd

from imgmatch_df.fetching.content_encoding import Decompressor, EncodingError, parse_encodings, unsupported

FAST = {"allow_private_networks": True, "timeout_s": 60, "attempts": 1}
NAMES = {"raw": "deflate", "members": "gzip", "frames": "zstd"}
BODY = b"".join(number.to_bytes(4) for number in range(20_000))


@pytest.fixture(scope="module")
def server(encoded):
    with HostileServer(encoded) as running:
        yield running


def hashed(url, **options):
    return pl.DataFrame({"url": [url]}).imgmatch.visual_hash("url", **{**FAST, **options}).row(0, named=True)


def unpack(names, data, size=1 << 30, max_bytes=1 << 30):
    decompressor = Decompressor(tuple(names), max_bytes)
    out = b"".join(piece for at in range(0, len(data), size) for piece in decompressor.pieces(data[at : at + size]))
    decompressor.check_end()
    return out


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 30])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_each_encoding_in_chunks_of_each_size(encoder, size):
    names = parse_encodings(NAMES.get(encoder, encoder))
    body = BODY if size > 1 else BODY[:4000]
    assert unpack(names, ENCODERS[encoder](body), size) == body


@pytest.mark.parametrize(
    "path",
    [
        *("gzip", "x-gzip", "deflate", "raw", "members", "br", "zstd", "frames", "identity", "gzip/gzip", "br/gzip"),
        *("members/zstd", "raw/br/identity", "gzip/members?lines=1", "gzip?more=trailing", "members?size=1"),
    ],
)
def test_encoded_images_are_read(server, encoded, path):
    expected = pl.Series(encoded[:1]).imgmatch.phash().item()
    row = hashed(server.url(f"/encoded/{path}"))
    assert (row["status"], row["detail"], row["phash"]) == ("ok", None, expected)
    assert server.headers[-1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("encoder", ["gzip", "deflate", "raw", "members", "br", "zstd", "frames"])
def test_a_truncated_body_is_said_to_be_truncated(server, encoder):
    row = hashed(server.url(f"/encoded/{encoder}?cut=3"))
    name = NAMES.get(encoder, encoder)
    assert (row["status"], row["detail"]) == (
        "fetch_failed",
        f"the body is not valid {name}: it is truncated after 1 attempt",
    )


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
def test_a_body_that_is_not_encoded_as_it_says(name):
    with pytest.raises(EncodingError, match=f"the body is not valid {name}"):
        unpack([name], b"\xff\xd8\xff\xe0 plain jpeg \xff" * 50)


def test_encodings_are_read_in_turn():
    data = gzip.compress(brotli.compress(zstd.compress(BODY)))
    assert unpack(["zstd", "br", "gzip"], data) == BODY
    assert parse_encodings(" GZIP , identity,, br ") == ("gzip", "br")
    assert unsupported(("gzip", "compress")) == "unsupported Content-Encoding 'compress'"
    assert unsupported(("gzip",) * 6) == "6 encodings of the body, more than 5"


@pytest.mark.parametrize("encoder", ["gzip", "raw", "br", "zstd"])
def test_bombs_are_stopped_without_their_memory(encoder):
    data = ENCODERS[encoder](bytes(32 << 20))
    tracemalloc.start()
    n_bytes = 0
    for piece in Decompressor((NAMES.get(encoder, encoder),), 1 << 20).pieces(data):
        n_bytes += len(piece)
        if n_bytes > 1 << 20:
            break
    assert 1 << 20 < n_bytes < 2 << 20
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_bombs_between_two_encodings_are_stopped():
    bomb = gzip.compress(gzip.compress(b"") * 100_000)
    with pytest.raises(EncodingError, match="more than max_bytes"):
        unpack(["gzip", "gzip"], bomb, max_bytes=1 << 20)
    with pytest.raises(EncodingError, match="more than 65,536 members"):
        unpack(["gzip"], gzip.compress(b"") * 65_537)


@pytest.mark.parametrize("encoder", ["br", "zstd", "gzip/gzip"])
def test_bombs_of_servers_are_too_many_bytes(encoder, encoded):
    with HostileServer([bytes(8 << 20)]) as bombs:
        row = hashed(bombs.url(f"/encoded/{encoder}"), max_bytes=1 << 20, timeout_s=20)
    assert row["status"] == "too_many_bytes"


def test_a_raw_stream_is_not_taken_for_one_of_zlib():
    for level in (0, 1, 6, 9):
        for body in (b"", b"x", BODY, bytes(100_000), bytes(range(256)) * 300):
            for wbits in (9, 12, 15):
                packer = zlib.compressobj(level, wbits=-wbits)
                assert unpack(["deflate"], packer.compress(body) + packer.flush()) == body
                packer = zlib.compressobj(level, wbits=wbits)
                assert unpack(["deflate"], packer.compress(body) + packer.flush()) == body
    assert unpack(["deflate"], raw_deflate(BODY)) == BODY
