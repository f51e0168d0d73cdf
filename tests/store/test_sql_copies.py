"""`copies`, `matches` and `rank_images` by text, against the Python verbs, as SQL would be written by hand."""

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from sql_truth import degenerate, described, expected_copies, expected_matches, planted
from test_sql import NUMBERS, RADII, as_signed

import imgmatch_df
from imgmatch_df.hashes import codec
from imgmatch_df.store import macros

pytestmark = pytest.mark.filterwarnings("ignore::imgmatch_df.ImgMatchWarning")
FLAT_ROW = st.tuples(
    st.none() | st.sampled_from([0, 1, 3, 8, 9, 255]),  # hash
    st.none() | st.sampled_from([0, 49, 50, 100]),  # quality
    st.none() | st.sampled_from(["a", "b", "1"]),  # digest: "1" is also the number of a row
)
FLAT_SCHEMA = {"phash": pl.UInt64, "quality": pl.UInt8, "sha256": pl.String}


@pytest.fixture(scope="module")
def db():
    with duckdb.connect() as connection:
        macros.install(connection)
        yield connection


@pytest.mark.parametrize(("hash_type", "radius"), [(name, radius) for name in RADII for radius in RADII[name]])
def test_copies_and_matches_equal_pythons(db, hash_type, radius):
    frame = described(planted(hash_type)).with_columns(
        size=pl.Series([None if i % 5 == 0 else 1000 * i for i in range(len(planted(hash_type)))], dtype=pl.UInt64)
    )
    other = described(planted(hash_type, seed=0, n=70))  # shares hashes with the first
    db.register("hashes", frame)
    db.register("inbox", other)
    call = f"{radius}, hash_type := '{hash_type}'"
    assert db.sql(f"FROM copies({call})").fetchall() == expected_copies(frame, radius, hash_type)
    assert db.sql(f"FROM copies({call}, id := NULL)").fetchall() == expected_copies(frame, radius, hash_type, None)
    found = db.sql(f"FROM matches('inbox', {call})").pl()
    assert_frame_equal(found, expected_matches(other, frame, radius, hash_type))
    found = db.sql(f"FROM matches('hashes', {call}, reference := 'inbox', id := NULL, reference_id := NULL)").pl()
    assert_frame_equal(found, expected_matches(frame, other, radius, hash_type, id=None, reference_id=None))


@pytest.mark.parametrize("name", degenerate("phash"))
@pytest.mark.parametrize("hash_type", RADII)
def test_copies_and_matches_of_degenerate_hashes(db, hash_type, name):
    frame, other = described(degenerate(hash_type)[name]), described(planted(hash_type, n=5))
    db.register("hashes", frame)
    db.register("inbox", other)
    call = f"3, hash_type := '{hash_type}'"
    assert db.sql(f"FROM copies({call})").fetchall() == expected_copies(frame, 3, hash_type)
    for query, reference, left, right in (("inbox", "hashes", other, frame), ("hashes", "inbox", frame, other)):
        found = db.sql(f"FROM matches('{query}', {call}, reference := '{reference}')").pl()
        assert_frame_equal(found, expected_matches(left, right, 3, hash_type))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(FLAT_ROW, max_size=9), st.lists(FLAT_ROW, max_size=9), st.integers(0, 9),
    st.sampled_from(["identical", "match"]),
)  # fmt: skip
def test_images_with_little_to_see(db, rows, others, radius, flat):
    binary = pl.col("sha256").cast(pl.Binary)
    frames = [pl.DataFrame(one, FLAT_SCHEMA, orient="row").with_columns(binary) for one in (rows, others)]
    for name, frame in zip(("inbox", "hashes"), frames, strict=True):
        db.register(name, frame)
    call = f"{radius}, hash_type := 'phash', flat := '{flat}', id := NULL"
    found = db.sql(f"FROM matches('inbox', {call}, reference_id := NULL)").pl()
    wanted = expected_matches(*frames, radius, "phash", id=None, reference_id=None, flat=flat)
    assert_frame_equal(found, wanted)
    assert db.sql(f"FROM copies({call})").fetchall() == expected_copies(frames[1], radius, "phash", None, flat)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_signed_and_wide_numbers_are_the_same_bits(db, dtype):
    column = planted("phash").extend(pl.Series([0, 2**63 - 1, 2**63, 2**64 - 1], dtype=pl.UInt64))
    frame = described(column)
    db.register("ours", frame)
    db.register("signed", frame.with_columns(as_signed(column)))
    of = "ours" if dtype == "UHUGEINT" else "signed"
    db.execute(f"CREATE OR REPLACE TABLE theirs AS SELECT * REPLACE (phash::{dtype} AS phash) FROM {of}")
    wanted = expected_matches(frame, frame, 9, "phash")
    for query, reference in (("theirs", "ours"), ("ours", "theirs"), ("theirs", "theirs")):
        found = db.sql(f"FROM matches('{query}', 9, reference := '{reference}', hash_type := 'phash')").pl()
        assert_frame_equal(found, wanted)
    found = db.sql("FROM copies(9, 'phash', tbl := 'theirs')").fetchall()
    assert found == expected_copies(frame, 9, "phash")
    key, query = frame["source"][-1], frame["phash"][-1]
    ranked = imgmatch_df.rank_images(frame, query, "phash", k=9).drop("phash")
    for text in (key, f"{query:016x}", f"{query:064b}"):
        found = db.sql(f"FROM rank_images('{text}', 9, tbl := 'theirs')").pl().drop("phash")
        assert_frame_equal(found, ranked)


@pytest.mark.parametrize("hash_type", RADII)
@pytest.mark.parametrize("k", [1, 9, None])
def test_a_key_and_digits_rank_as_the_hash_does(db, hash_type, k):
    frame = described(planted(hash_type))
    db.register("hashes", frame)
    at = 5
    wanted = imgmatch_df.rank_images(frame, frame[hash_type][at], hash_type, k=k)
    digits, bits = codec.to_hex(frame[hash_type])[at], codec.to_bits(frame[hash_type])[at]
    for text in (frame["source"][at], digits, digits.upper(), f"0x{digits}", f" {digits}\n", bits):
        for named in ("", f", hash_type := '{hash_type}'"):
            found = db.sql(f"FROM rank_images(?, ?{named})", params=[text, k]).pl()
            assert_frame_equal(found, wanted)
    found = db.sql(f"FROM rank_images((SELECT source FROM hashes LIMIT 1 OFFSET {at}), {k or 'NULL'})").pl()
    assert_frame_equal(found, wanted)
    frame = frame.with_row_index("number")
    db.register("numbered", frame)
    found = db.sql(f"FROM rank_images('{at}', tbl := 'numbered', id := 'number')").pl()
    assert_frame_equal(found, imgmatch_df.rank_images(frame, frame[hash_type][at], hash_type))


def test_the_kind_of_text(db):
    """A key ranks by bmh1; digits by the kind that has as many, as in Python."""
    frame = described(planted("phash")).with_columns(planted("bmh1"))
    db.register("hashes", frame)
    key = frame["source"][5]
    assert_frame_equal(db.sql(f"FROM rank_images('{key}')").pl(), frame.imgmatch.rank_images(frame["bmh1"][5]))
    found = db.sql(f"FROM rank_images('{key}', hash_type := 'phash')").pl()
    assert_frame_equal(found, frame.imgmatch.rank_images(frame["phash"][5], "phash"))
    for text in (codec.to_hex(frame["phash"])[5], codec.to_hex(frame["bmh1"])[5], codec.to_bits(frame["bmh1"])[5]):
        assert_frame_equal(db.sql(f"FROM rank_images('{text}')").pl(), frame.imgmatch.rank_images(text))
    db.register("two", frame.with_columns(imagehash_dhash="phash"))
    with pytest.raises(duckdb.Error, match=r"may be a hash of several kinds: phash, imagehash_dhash\. Hint: hash_type"):
        db.sql("FROM rank_images('b9b9534546d1a2e9', tbl := 'two')").fetchall()
    found = db.sql("SELECT distance FROM rank_images('b9b9534546d1a2e9', 1, 'two', 'phash')").fetchall()
    assert found == [(frame.imgmatch.rank_images("b9b9534546d1a2e9", "phash", k=1)["distance"].item(),)]


def test_a_text_of_a_key_that_is_a_hash_too_is_the_key(db):
    digits = "00000000000000ff"
    db.register("hashes", pl.DataFrame({"source": [digits, "b"], "phash": pl.Series([1, 255], dtype=pl.UInt64)}))
    assert db.sql(f"SELECT source FROM rank_images('{digits}', 1)").fetchall() == [(digits,)]


def test_rows_with_one_key(db):
    frame = pl.DataFrame({"source": ["a", "a", "b", "b"], "phash": pl.Series([1, 1, 1, 2], dtype=pl.UInt64)})
    db.register("hashes", frame)
    assert db.sql("SELECT count(*) FILTER (distance = 0) FROM rank_images('a')").fetchall() == [(3,)]
    with pytest.raises(duckdb.Error, match=r"2 rows with different hashes have source b\. Hint: pass the hash"):
        db.sql("FROM rank_images('b')").fetchall()
    assert db.sql("FROM copies(0, 'phash')").fetchall() == [("a", 2, 0, None, ["a", "b"])]
    found = db.sql("FROM matches('hashes', 0, hash_type := 'phash')").pl()
    assert_frame_equal(found, expected_matches(frame, frame, 0, "phash"))


SIZES = {"TEXT": "'12'", "DATE": "DATE '2020-01-01'", "DOUBLE": "1.5", "LIST": "[1]", "NEGATIVE": "-5"}


@pytest.mark.parametrize("value", SIZES.values(), ids=SIZES)
def test_a_column_called_size_of_another_type_is_no_size(db, value):
    db.execute(
        f"CREATE OR REPLACE TABLE mine AS SELECT unnest(range(3)) AS source, 8::UBIGINT AS phash, {value} AS size"
    )
    assert db.sql("FROM copies(0, 'phash', tbl := 'mine')").fetchall() == [(0, 2, 0, None, [1, 2])]
    db.execute("CREATE OR REPLACE TABLE mine AS SELECT * REPLACE (7::SMALLINT AS size) FROM mine")
    assert db.sql("SELECT bytes FROM copies(0, 'phash', tbl := 'mine')").fetchall() == [(14,)]


def test_max_pairs_of_matches_is_inclusive(db):
    rows = [(8, 60, None)] * 3 + [(0, 0, "a")] * 2
    db.register("hashes", pl.DataFrame(rows, FLAT_SCHEMA, orient="row").with_row_index("source"))
    call = "'hashes', 0, hash_type := 'phash'"
    assert len(db.sql(f"FROM matches({call}, max_pairs := 13)").fetchall()) == 13
    with pytest.raises(duckdb.Error, match=r"matches: 13 pairs, more than max_pairs 12\. Hint: "):
        db.sql(f"SELECT 1 FROM matches({call}, max_pairs := 12)").fetchall()


@pytest.mark.parametrize("columns", ["*", "count(*)", "1"])
@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("copies(-1)", "radius must be a whole number of bits from 0 to 961, got -1. Hint: "),
        ("copies(65, 'phash')", "from 0 to 64, got 65"),
        ("copies(1, 'dhash')", "hash_type must be one of 'bmh1', .*got 'dhash'. Hint: "),
        ("copies(1, 'pdq')", "copies: no column pdq in the table, which has .*Hint: pass another table as tbl"),
        ("copies(1, 'local')", "copies: local hashes have no distance. Hint: "),
        ("copies(1, id := 'nowhere')", "copies: no column nowhere in the table, .*Hint: pass the column of keys as id"),
        ("copies(1, flat := 'no')", "flat must be 'identical' or 'match', got no"),
        ("matches('inbox', -1)", "radius must be a whole number of bits from 0 to 961, got -1. Hint: "),
        ("matches('inbox', 1, hash_type := 'dhash')", "hash_type must be one of 'bmh1', .*got 'dhash'. Hint: "),
        ("matches('inbox', 1, hash_type := NULL)", "hash_type must be one of 'bmh1', .*got NULL. Hint: "),
        ("matches('bare', 1)", "matches: no column bmh1 in the table, .*Hint: pass another table as tbl"),
        ("matches('inbox', 1, reference := 'bare')", "no column bmh1 in .*Hint: pass another table as reference"),
        ("matches('inbox', 1, id := 'path')", "no column path in .*keys as id, or id := NULL"),
        ("matches('inbox', 1, reference_id := 'path')", "keys as reference_id, or reference_id := NULL"),
        ("matches('inbox', 1, reference := 'narrow')", "the column bmh1 has a hash of 256 bits, and a bmh1 has 968."),
        ("matches('inbox', 1, reference := 'number')", "the column bmh1 has a hash of 64 bits, and a bmh1 has 968."),
        ("near_duplicates(1, tbl := 'number')", "the column bmh1 has a hash of 64 bits, and a bmh1 has 968."),
        ("rank_images('nowhere')", "rank_images: no row has source nowhere, and it is not a hash of bmh1 or phash"),
        ("rank_images('')", "rank_images: no row has source , and it is not a hash"),
        ("rank_images('failed')", "the row with source failed has no bmh1. Hint: rank by another row"),
        ("rank_images(NULL::VARCHAR)", "rank_images: the query is NULL, an empty text. Hint: "),
        ("rank_images('x', id := 'nowhere')", "query is text, x, .*the table has no column nowhere. Hint: "),
        ("rank_images('x', id := NULL)", "query is text, x, .*Hint: "),
        ("rank_images('a', hash_type := 'dhash')", "hash_type must be one of 'bmh1', .*got 'dhash'. Hint: "),
        ("rank_images('a', hash_type := 'pdq')", "no column pdq in the table"),
        ("rank_images('a', tbl := 'bare')", "rank_images: no column of hashes in the table, which has"),
        *(
            (f"rank_images({query}, {k})", f"k must be a whole number from 1, or NULL, got {k}. Hint: ")
            for query in ("'a'", "1", "(SELECT bmh1 FROM hashes LIMIT 1)")
            for k in (0, -1, 1.5)
        ),
    ],
)
def test_wrong_calls_say_what_is_wrong(db, columns, call, said):
    frame = pl.DataFrame(
        {
            "source": ["a", "b", "failed"],
            "bmh1": [b"\x01" * 121, b"\x02" * 121, None],
            "phash": pl.Series([1, 2, None], dtype=pl.UInt64),
        }
    )
    tables = {
        "hashes": frame,
        "inbox": frame[:2],
        "bare": frame.select("source"),
        "narrow": frame.with_columns(pl.lit(bytes(32)).alias("bmh1")),
        "number": frame.with_columns(pl.lit(5, dtype=pl.UInt64).alias("bmh1")),
    }
    for name, table in tables.items():
        db.register(name, table)
    with pytest.raises(duckdb.Error, match=f"(?s){said}"):
        db.sql(f"SELECT {columns} FROM {call}").fetchall()


def test_tables_and_columns_with_names_of_ours(db):
    names = ["removed", "clusters", "keys", "near", "twins", "pairs", "checked", "counted", "probed", "sample", "texts",
             "stored", "parsed", "best", "found", "available", "id_columns", "measured", "nearest", "given", "query",
             "radius", "tbl", "reference", "copies", "matches"]  # fmt: skip
    frame = described(planted("phash", n=9))
    frame = frame.with_columns(pl.lit(1).alias(name) for name in names)
    for name in names:
        db.register(name, frame)
        found = db.sql(f"FROM matches('{name}', 4, reference := '{name}', hash_type := 'phash')").pl()
        assert_frame_equal(found, expected_matches(frame, frame, 4, "phash"))
        assert db.sql(f"FROM copies(4, 'phash', '{name}')").fetchall() == expected_copies(frame, 4, "phash")
        found = db.sql(f"FROM rank_images('{frame['source'][1]}', 5, '{name}')").pl()
        assert_frame_equal(found, imgmatch_df.rank_images(frame, frame["phash"][1], "phash", k=5))
        db.unregister(name)
