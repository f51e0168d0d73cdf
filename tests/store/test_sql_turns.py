"""The SQL macro `turned` gives the hashes that the package gives."""

import duckdb
import numpy as np
import pytest

from imgmatch_df.columns import TURNS
from imgmatch_df.hashes.kinds import KINDS
from imgmatch_df.hashes.turns import turned_bits
from imgmatch_df.matching.turned import turn_words
from imgmatch_df.store import macros

ABLE = [kind.name for kind in KINDS.values() if kind.turn_grid is not None]


@pytest.fixture(scope="module")
def database():
    with duckdb.connect() as connection:
        macros.install(connection)
        yield connection


@pytest.mark.parametrize("name", ABLE)
def test_turned_is_that_of_the_package(database, name):
    kind = KINDS[name]
    rng = np.random.default_rng(4)
    words = np.zeros((5, -(-kind.n_bytes // 8)), np.uint64)
    raw = words.view(np.uint8)[:, : kind.n_bytes]
    raw[:] = rng.integers(0, 256, raw.shape)

    def values(hashes):
        rows = [row[: kind.n_bytes].tobytes() for row in hashes.view(np.uint8)]
        return [int.from_bytes(row, "big") for row in rows] if kind.is_number else rows

    dtype = "UBIGINT" if kind.is_number else "BLOB"
    database.execute(f"CREATE OR REPLACE TEMP TABLE hashed (row INTEGER, hash {dtype})")
    database.executemany("INSERT INTO hashed VALUES (?, ?)", list(enumerate([*values(words), None])))
    for number, turn in enumerate(TURNS):
        answer = database.sql(
            f"SELECT turned(hash, '{turn}', hash_type := '{name}') FROM hashed ORDER BY row"
        ).fetchall()
        assert [row[0] for row in answer] == [*values(turn_words(words, turned_bits(kind), number)), None], turn


def test_turned_takes_bmh1_where_no_kind_is_named(database):
    hashed = bytes(range(121))
    answer = database.execute("SELECT turned(turned(?::BLOB, 'mirrored'), 'mirrored')", [hashed]).fetchall()
    assert answer == [(hashed,)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("turned('\\x00'::BLOB || repeat('a', 120)::BLOB, 'upside')", "turn must be none, .* got upside"),
        ("turned(repeat('a', 121)::BLOB, NULL)", "turn must be none, .* got NULL"),
        ("turned(5::UBIGINT, 'mirrored', hash_type := 'phash')", "bits of phash do not give"),
        ("turned(5::UBIGINT, 'mirrored')", "bits of an unknown kind"),
        ("turned(5::UBIGINT, 'mirrored', hash_type := 'none')", "bits of none do not give"),
    ],
)
def test_wrong_calls(database, call, message):
    with pytest.raises(duckdb.Error, match=message):
        database.sql(f"SELECT {call}").fetchall()
