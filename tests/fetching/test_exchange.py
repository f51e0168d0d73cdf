"""The state of one attempt: the pieces of a body."""

import random
import sys

from imgmatch_df.fetching.exchange import SMALL_PIECE_BYTES, Fetch
from imgmatch_df.options import make_options


def body(pieces):
    fetch = Fetch(make_options(), None, lambda _: None, 0.0)
    for piece in pieces:
        fetch.add(piece)
    return fetch


def test_the_body_is_all_pieces_in_their_order():
    draw = random.Random(1)
    for _ in range(50):
        sizes = draw.choices([1, 7, SMALL_PIECE_BYTES - 1, SMALL_PIECE_BYTES, 16_384], k=draw.randrange(40))
        pieces = [draw.randbytes(n_bytes) for n_bytes in sizes]
        fetch = body(pieces)
        assert fetch.n_bytes == sum(sizes)
        assert fetch.take_body() == b"".join(pieces)
        assert fetch.take_body() == b""


def test_small_pieces_take_no_more_memory_than_the_body():
    fetch = body([b"x"] * 100_000)
    assert sum(map(sys.getsizeof, fetch.pieces)) < 200_000
    assert fetch.take_body() == b"x" * 100_000
