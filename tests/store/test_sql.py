"""The macros of sql/ against the Python verbs, row for row, and as a shell without Python packages sees them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from sql_truth import degenerate, described, planted

import imgmatch_df
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import KINDS
from imgmatch_df.store import macros

# Radii that join unrelated images warn; the answers are compared all the same.
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::imgmatch_df.ImgMatchWarning")]
RADII = {"phash": (0, 1, 2, 4, 8, 9, 15, 16, 64), "bmh1": (0, 1, 5, 16, 30, 96, 97)}


@pytest.fixture(scope="module")
def database():
    connection = duckdb.connect()
    macros.install(connection)
    with connection:
        yield connection


@pytest.fixture
def ask(database):
    """Return the answer of SQL over a table ``hashes`` that holds a frame."""

    def asked(frame, query, name="hashes"):
        database.register("frame_of_test", frame.to_arrow())
        database.execute(f'CREATE OR REPLACE TABLE "{name}" AS FROM frame_of_test')
        try:
            return database.sql(query).pl()
        finally:
            database.execute(f'DROP TABLE "{name}"')
            database.unregister("frame_of_test")

    return asked


def clustered(frame, radius, hash_type, id):
    """Return what `cluster` gives without the columns of keep rules, which SQL has not."""
    return imgmatch_df.cluster(frame, radius, hash_type, id=id).drop("reason", "joined_at")


def check(ask, frame, hash_type, radius):
    """Assert that the SQL verbs give what the Python verbs give."""
    arguments = f"{radius}, hash_type := '{hash_type}'"
    for id, named in (("source", ""), (None, ", id := NULL")):
        assert_frame_equal(
            ask(frame, f"FROM near_duplicates({arguments}{named})"),
            imgmatch_df.near_duplicates(frame, radius, hash_type, id=id),
        )
        assert_frame_equal(
            ask(frame, f"FROM duplicate_clusters({arguments}{named})"),
            clustered(frame, radius, hash_type, id=id),
        )
    assert_frame_equal(
        ask(frame, f"FROM remove_duplicates({arguments})"), imgmatch_df.remove_duplicates(frame, radius, hash_type)
    )


@pytest.mark.parametrize(("hash_type", "radius"), [(name, radius) for name in RADII for radius in RADII[name]])
def test_verbs_equal_pythons_on_planted_hashes(ask, hash_type, radius):
    check(ask, described(planted(hash_type)), hash_type, radius)


@pytest.mark.parametrize("radius", [3, *(pytest.param(radius, marks=pytest.mark.slow) for radius in (0, 1, 20))])
@pytest.mark.parametrize("name", degenerate("phash"))
@pytest.mark.parametrize("hash_type", RADII)
def test_verbs_equal_pythons_on_degenerate_hashes(ask, hash_type, name, radius):
    check(ask, described(degenerate(hash_type)[name]), hash_type, radius)


@pytest.mark.parametrize(("hash_type", "radius"), [("phash", 8), ("phash", 12), ("bmh1", 16), ("bmh1", 48)])
def test_pairs_equal_the_cross_join(ask, hash_type, radius):
    frame = described(pl.concat([planted(hash_type, seed, 150) for seed in range(3)]))
    crossed = f"""
        WITH numbered AS (SELECT *, row_number() OVER () AS row FROM hashes)
        SELECT l.source AS left_id, r.source AS right_id, hamming(l.{hash_type}, r.{hash_type}) AS distance
        FROM numbered l JOIN numbered r ON l.row < r.row
        WHERE hamming(l.{hash_type}, r.{hash_type}) <= {radius} ORDER BY l.row, r.row"""
    assert_frame_equal(ask(frame, f"FROM near_duplicates({radius}, '{hash_type}')"), ask(frame, crossed))


@settings(deadline=None, max_examples=25)
@given(
    values=st.lists(st.none() | st.integers(0, 2**64 - 1) | st.integers(2**64 - 9, 2**64 - 1), max_size=12),
    flips=st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=20)), max_size=6),
    radius=st.integers(0, 64),
)
def test_every_radius_of_any_phashes(database, values, flips, radius):
    for at, bits in flips:
        if at < len(values) and values[at] is not None:
            values.append(values[at] ^ sum(1 << bit for bit in bits))
    frame = pl.DataFrame({"phash": values}, schema={"phash": pl.UInt64})
    database.register("any_phashes", frame.to_arrow())
    pairs = database.sql(f"FROM near_duplicates({radius}, 'phash', any_phashes, id := NULL)").pl()
    assert_frame_equal(pairs, imgmatch_df.near_duplicates(frame, radius, "phash"))


def test_equal_rows_make_no_pairs_in_clusters(ask):
    frame = described(pl.Series("phash", [8] * 100_000 + [9], dtype=pl.UInt64))
    clusters = ask(
        frame, "SELECT max(cluster_id), sum(distance), count(*) FILTER (kept) FROM duplicate_clusters(1, 'phash')"
    )
    assert clusters.rows() == [(0, 1, 1)]
    kept = ask(frame, "SELECT source, len(removed_records) FROM remove_duplicates(0, 'phash')")
    assert kept.rows() == [("photos/100001.jpg", 99_999), ("photos/00001.jpg", 0)]
    with pytest.raises(duckdb.Error, match=r"4999950000 pairs, more than max_pairs 100000000\. Hint: a smaller radius"):
        ask(frame, "FROM near_duplicates(0, 'phash')")


def test_max_pairs_is_inclusive(ask):
    frame = described(pl.Series("phash", [8, 8, 8, 9], dtype=pl.UInt64))
    assert len(ask(frame, "FROM near_duplicates(1, 'phash', max_pairs := 6)")) == 6
    with pytest.raises(duckdb.Error, match="6 pairs, more than max_pairs 5"):
        ask(frame, "FROM near_duplicates(1, 'phash', max_pairs := 5)")


@pytest.mark.parametrize("hash_type", RADII)
@pytest.mark.parametrize("k", [1, 7, 1000, None])
def test_rank_images_equals_pythons(ask, hash_type, k):
    column = planted(hash_type)
    frame = described(column)
    for query in (column[1], column[40], degenerate(hash_type)["all one"][0]):
        literal = f"{query}" if hash_type == "phash" else f"from_hex('{query.hex()}')"
        limit = "NULL" if k is None else k
        assert_frame_equal(
            ask(frame, f"FROM rank_images({literal}, {limit})"), imgmatch_df.rank_images(frame, query, hash_type, k=k)
        )


def test_rank_images_by_a_stored_hash_and_by_documented_bits(ask):
    frame = described(planted("bmh1")).with_columns(planted("phash"))
    for hash_type in RADII:
        query = frame[hash_type][5]
        answer = imgmatch_df.rank_images(frame, query, hash_type, k=9)
        stored = f"(SELECT {hash_type} FROM hashes WHERE source = '{frame['source'][5]}')"
        bits = codec.to_bits(frame[hash_type])[5]
        assert_frame_equal(ask(frame, f"FROM rank_images({stored}, 9)"), answer)
        assert_frame_equal(ask(frame, f"FROM rank_images(from_bits('{bits}', '{hash_type}'), k := 9)"), answer)


ADDED = {
    "rank_images(3, 5)": ["rank", "distance"],
    "duplicate_clusters(4, 'phash')": ["cluster_id", "kept", "distance", "representative_id"],
    "remove_duplicates(4, 'phash')": ["removed_records"],
}


@pytest.mark.parametrize(("call", "name"), [(call, name) for call, names in ADDED.items() for name in names])
def test_a_column_of_the_users_is_not_replaced(ask, call, name):
    verb = call.split("(")[0]
    for taken in (name, name.title()):
        frame = described(planted("phash")).with_columns(pl.lit("mine").alias(taken))
        with pytest.raises(
            duckdb.Error, match=f"{verb}: the table has columns with names .*{taken}.* VARCHAR. Hint: pass"
        ):
            ask(frame, f"FROM {call}")
        answer = ask(
            frame, f"WITH mine AS (SELECT * RENAME ({taken} AS my_{taken}) FROM hashes) FROM {call[:-1]}, tbl := mine)"
        )
        assert set(answer.columns) == {f"my_{taken}", *described(planted("phash")).columns, *ADDED[call]}


@pytest.mark.parametrize("call", ADDED)
def test_new_columns_stand_first_and_hashes_last(ask, call):
    frame = described(planted("phash")).with_columns(planted("bmh1")).select("phash", "source", "bmh1", "width")
    assert ask(frame, f"FROM {call}").columns == [*ADDED[call], "source", "width", "phash", "bmh1"]
    named = call.replace("4, 'phash'", "4, 'phash', id := NULL") if "clusters" in call else call
    assert ask(frame.select("phash"), f"FROM {named}").columns == [*ADDED[call], "phash"]


NUMBERS = {
    "BIGINT": pl.Int64,
    "HUGEINT": None,
    "UHUGEINT": None,
    "DECIMAL(20, 0)": None,
    "DECIMAL(38, 0)": None,
}


def as_signed(column):
    return column.reinterpret(signed=True)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("is_signed", [True, False])
def test_phashes_of_databases_without_unsigned_integers(database, dtype, is_signed):
    """Postgres, Spark and Iceberg keep the same 64 bits in a signed number, or the value in a wider one."""
    if (dtype == "BIGINT" and not is_signed) or (dtype == "UHUGEINT" and is_signed):
        pytest.skip("does not fit")
    column = planted("phash").extend(pl.Series([0, 2**63 - 1, 2**63, 2**64 - 1], dtype=pl.UInt64))
    frame = described(column)
    database.register("ours", frame.to_arrow())
    database.register("signed", frame.with_columns(as_signed(column)).to_arrow())
    database.execute(
        f"CREATE OR REPLACE TABLE theirs AS SELECT * REPLACE (phash::{dtype} AS phash) "
        f"FROM {'signed' if is_signed else 'ours'}"
    )
    table = "tbl := 'theirs'"
    for radius in (0, 9):
        pairs = database.sql(f"FROM near_duplicates({radius}, 'phash', {table})").pl()
        assert_frame_equal(pairs, imgmatch_df.near_duplicates(frame, radius, "phash", id="source"))
        for verb, wanted in (
            ("duplicate_clusters", clustered(frame, radius, "phash", id="source")),
            ("remove_duplicates", imgmatch_df.remove_duplicates(frame, radius, "phash")),
        ):
            answer = database.sql(f"FROM {verb}({radius}, 'phash', {table})").pl()
            names = [name for name in wanted.columns if name not in ("phash", "removed_records")]
            assert_frame_equal(answer.select(names), wanted.select(names))
    for query in (2**64 - 1, 2**63, 2**63 - 1, 0, *column.drop_nulls()[:3].to_list()):
        wanted = imgmatch_df.rank_images(frame, query, "phash").drop("phash")
        for literal in (
            query,
            query - 2**64 if query >= 2**63 else query,
            f"{query}::UBIGINT",
            f"{query}::DECIMAL(20)",
        ):
            assert_frame_equal(database.sql(f"FROM rank_images({literal}, {table})").pl().drop("phash"), wanted)
    both = database.sql(
        "SELECT hamming(t.phash, o.phash), hamming(o.phash, t.phash), to_bits(t.phash) = to_bits(o.phash) "
        "FROM theirs t JOIN ours o USING (source) WHERE o.phash IS NOT NULL"
    ).fetchall()
    assert set(both) == {(0, 0, True)}


@pytest.mark.parametrize(
    ("left", "right"), [("1.5", "1"), ("18446744073709551616", "1"), ("-9223372036854775809", "1")]
)
def test_numbers_that_are_no_phash_are_refused(database, left, right):
    for query in (
        f"SELECT hamming({left}, {right})",
        f"SELECT to_bits({left})",
        f"FROM rank_images({left}, tbl := 'one')",
    ):
        database.execute("CREATE OR REPLACE TABLE one AS SELECT 'a' AS source, 0::UBIGINT AS phash")
        with pytest.raises(duckdb.Error, match=r"a phash is a whole number of 64 bits, from -9223372036854775808 to"):
            database.sql(query).fetchall()


@pytest.mark.parametrize("hash_type", RADII)
@pytest.mark.parametrize("k", ["NULL", "3"])
def test_a_query_that_is_null_ranks_nothing(ask, hash_type, k):
    frame = described(planted(hash_type))
    for query in (
        f"(SELECT {hash_type} FROM hashes WHERE source = 'typo')",
        f"NULL::{'BLOB' if hash_type == 'bmh1' else 'BIGINT'}",
    ):
        answer = ask(frame, f"FROM rank_images({query}, {k})")
        assert answer.is_empty()
        assert set(answer.columns) == {"rank", "distance", *frame.columns}


def test_every_public_macro_has_a_comment(database):
    found = database.sql(
        "SELECT DISTINCT function_name, comment FROM duckdb_functions() WHERE comment IS NOT NULL AND NOT internal"
    ).fetchall()
    assert {name for name, _ in found} == {
        *("hamming", "to_bits", "from_bits", "rank_images", "near_duplicates", "duplicate_clusters"),
        *("radius_profile", "remove_duplicates", "hash_to_hex", "hash_from_hex", "to_points", "turned"),
        *("copies", "matches"),
    }
    assert all(comment.startswith(f"{name}(") for name, comment in found)


def test_any_names_of_tables_and_columns_work(ask):
    text = "\n".join(macros.read_sql(name) for name in macros.FILES)
    expressions = set(re.findall(r"(\w+)(?:\([\w, ]+\))? AS (?:MATERIALIZED )?\(", text))
    names = sorted(name for name in expressions if not name.startswith("imgmatch"))
    assert {"hashed", "near", "labels", "passed", "named", "numbered"} <= set(names)
    names += ["row", "words", "key", "label", "radius", "id", "tbl", "k", "query", "hash_type", "it's", "a b", "Größe"]
    frame = described(planted("phash", n=9))
    ranked = imgmatch_df.rank_images(frame, 3, "phash", k=5)
    for name in names:
        table = """tbl := '"{}"'""".format(name.replace("'", "''"))
        answer = ask(frame, f"FROM remove_duplicates(4, 'phash', {table})", name)
        assert_frame_equal(answer, imgmatch_df.remove_duplicates(frame, 4, "phash"))
        answer = ask(frame, f"FROM duplicate_clusters(4, 'phash', {table})", name)
        assert_frame_equal(answer, clustered(frame, 4, "phash", id="source"))
        query = f'(SELECT 3::UBIGINT FROM "{name}" LIMIT 1)'
        answer = ask(frame, f"FROM rank_images({query}, 5, {table})", name)
        assert_frame_equal(answer, ranked)
    answers = {"phash", "source", "distance", "rank", "cluster_id", "representative_id", "kept", "removed_records"}
    wide = frame.with_columns(pl.lit(1).alias(name) for name in names if name not in answers)
    check(ask, wide, "phash", 4)
    assert_frame_equal(ask(wide, "FROM rank_images(3)"), imgmatch_df.rank_images(wide, 3, "phash"))


def test_views_expressions_and_files_by_name(ask, tmp_path):
    frame = described(planted("phash"))
    frame.write_parquet(tmp_path / "stored.parquet")
    pairs = imgmatch_df.near_duplicates(frame, 4, "phash", id="source")
    assert_frame_equal(ask(frame, f"FROM near_duplicates(4, 'phash', '{tmp_path / 'stored.parquet'}')"), pairs)
    recent = "WITH recent AS (FROM hashes LIMIT 50)"
    answer = ask(frame, f"{recent} FROM near_duplicates(4, 'phash', tbl := recent)")
    assert_frame_equal(answer, imgmatch_df.near_duplicates(frame[:50], 4, "phash", id="source"))


def test_hamming_and_bits_equal_pythons(ask):
    frame = described(planted("bmh1")).with_columns(planted("phash", seed=1))
    for hash_type in RADII:
        column, other = frame[hash_type], frame[hash_type].reverse()
        both = frame.with_columns(other.alias("other"), codec.to_bits(column).alias("bits"))
        answer = ask(both, f"SELECT hamming({hash_type}, other) AS distance FROM hashes")
        assert_frame_equal(answer, pl.DataFrame([codec.distances(column, other).alias("distance")]))
        answer = ask(both, f"SELECT to_bits({hash_type}) AS {hash_type} FROM hashes")
        assert_frame_equal(answer, pl.DataFrame([codec.to_bits(column)]))
        answer = ask(both, f"SELECT from_bits(bits, '{hash_type}') AS {hash_type} FROM hashes")
        assert_frame_equal(answer, pl.DataFrame([column]))
        answer = ask(both, f"SELECT hash_to_hex({hash_type}) AS {hash_type} FROM hashes")
        assert_frame_equal(answer, pl.DataFrame([codec.to_hex(column)]))
        digits = frame.with_columns(("0x" + codec.to_hex(column).str.to_uppercase()).alias("digits"))
        answer = ask(digits, f"SELECT hash_from_hex(digits, '{hash_type}') AS {hash_type} FROM hashes")
        assert_frame_equal(answer, pl.DataFrame([column]))


def test_hexadecimal_digits_of_numbers_of_other_types(database):
    """Signed and wide numbers stand for the same 64 bits; DuckDB's own functions are not replaced."""
    for value in (0, 1, 2**63 - 1, 2**63, 2**64 - 1):
        signed = value - 2**64 if value >= 2**63 else value
        types = {"UBIGINT": value, "BIGINT": signed, "HUGEINT": signed, "UHUGEINT": value, "DECIMAL(20, 0)": value}
        for dtype, number in types.items():
            found = database.sql(f"SELECT hash_to_hex('{number}'::{dtype})").fetchall()
            assert found == [(f"{value:016x}",)]
    found = database.sql("SELECT hash_to_hex(NULL), hash_from_hex(NULL, 'phash'), hash_from_hex(NULL, 'pdq')")
    assert found.fetchall() == [(None, None, None)]
    assert database.sql("SELECT to_hex(255), from_hex('ff')").fetchall() == [("FF", b"\xff")]


@settings(deadline=None, max_examples=15)
@given(st.text(st.sampled_from("0123456789abcdefABCDEFxX g_+-é\n"), max_size=20))
def test_hash_from_hex_refuses_what_python_refuses(database, text):
    for padded in (text, text.rjust(16, "0"), f"0x{text.rjust(16, 'f')}", text.ljust(242, "a"), text.ljust(64, "B")):
        for hash_type, kind in KINDS.items():
            query = f"SELECT hash_from_hex(?, '{hash_type}')"
            try:
                wanted = codec.from_hex(pl.Series("digits", [padded]), kind)[0]
            except imgmatch_df.ImgMatchError:
                with pytest.raises(duckdb.Error, match=f"expected {2 * kind.n_bytes} hexadecimal digits"):
                    database.execute(query, [padded]).fetchall()
            else:
                assert database.execute(query, [padded]).fetchall() == [(wanted,)]


def test_null_and_literal_hashes(database):
    answer = database.sql(
        "SELECT hamming(NULL, NULL), hamming(NULL, 3), hamming(3, 4), hamming(18446744073709551615, 0)"
    )
    assert answer.fetchall() == [(None, None, 3, 64)]
    answer = database.sql("SELECT to_bits(NULL), from_bits(NULL, 'phash'), from_bits(NULL, 'bmh1'), to_bits(2)")
    assert answer.fetchall() == [(None, None, None, f"{2:064b}")]


@settings(deadline=None, max_examples=15)
@given(st.text(st.sampled_from("01 x_b+é\n"), max_size=6) | st.sampled_from(["0" * 63, "1" * 65, "0" * 64, "1" * 968]))
def test_from_bits_refuses_what_python_refuses(database, text):
    for padded in (text, text.rjust(64, "0"), text.ljust(968, "1")):
        for hash_type, kind in KINDS.items():
            bits = pl.Series("bits", [padded])
            try:
                wanted = codec.from_bits(bits, kind)[0]
            except imgmatch_df.ImgMatchError:
                with pytest.raises(duckdb.Error, match=f"expected {kind.n_chars} characters of 0 and 1"):
                    database.execute(f"SELECT from_bits(?, '{hash_type}')", [padded]).fetchall()
            else:
                assert database.execute(f"SELECT from_bits(?, '{hash_type}')", [padded]).fetchall() == [(wanted,)]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT hamming(phash, bmh1) FROM hashes", r"hamming\(a BLOB, b BLOB\)"),
        ("SELECT hamming(bmh1, bmh1[2:]) FROM hashes", "hashes of 121 bytes with hashes of 120 bytes"),
        ("SELECT from_bits('0', 'dhash')", "hash_type must be one of 'bmh1', 'phash', .*got 'dhash'. Hint: "),
        ("SELECT from_bits('0', NULL)", "hash_type must be one of 'bmh1', 'phash', .*got NULL. Hint: "),
        (
            "SELECT from_bits('b9b9534546d1a2e9', 'phash')",
            r"got b9b9534546d1a2e9 .*hexadecimal is read by hash_from_hex\(digits, hash_type\)",
        ),
        ("SELECT hash_from_hex('0', 'dhash')", "hash_type must be one of 'bmh1', 'phash', .*got 'dhash'. Hint: "),
        ("SELECT hash_from_hex('ab', 'phash')", r"got ab \(2 characters\), expected 16 hexadecimal digits. Hint: "),
        ("SELECT hash_to_hex('ab')", "got the text ab. Hint: from_bits.*hash_from_hex"),
        ("SELECT hash_to_hex(1.5::DOUBLE)", "a phash is a whole number of 64 bits, got the DOUBLE 1.5"),
        *(
            case
            for verb in ("near_duplicates", "duplicate_clusters", "remove_duplicates")
            for case in (
                (f"FROM {verb}(-1, 'phash')", "whole number of bits from 0 to 64, got -1. Hint: "),
                (f"FROM {verb}(1.5)", "whole number of bits from 0 to 961, got 1.5"),
                (f"FROM {verb}(NULL)", "whole number of bits from 0 to 961, got NULL"),
                (f"FROM {verb}(962)", "whole number of bits from 0 to 961, got 962"),
                (f"FROM {verb}(65, 'phash')", "whole number of bits from 0 to 64, got 65"),
                (f"FROM {verb}(65, 'phash', empty)", "whole number of bits from 0 to 64, got 65"),
                (f"FROM {verb}(4, 'dhash')", "hash_type must be one of 'bmh1', 'phash', .*got 'dhash'. Hint: "),
                (f"FROM {verb}(4, 'source')", "hash_type must be one of 'bmh1', 'phash', .*got 'source'. Hint: "),
                (f"FROM {verb}(4, NULL)", "hash_type must be one of 'bmh1', 'phash', .*got NULL. Hint: "),
                (f"FROM {verb}(4, 'dhash', empty)", "hash_type must be one of 'bmh1', 'phash', .*got 'dhash'. Hint: "),
                (f"FROM {verb}(4, tbl := 'nowhere')", "nowhere does not exist"),
                (f"FROM {verb}(4, 'bmh1', short)", "a hash is a BLOB of .* bytes, got 120 bytes"),
                (f"FROM {verb}(4, 'phash', texts)", "got the text b9b9534546d1a2e9. Hint: from_bits"),
                (
                    f"FROM {verb}(4, 'phash', floats)",
                    "got the DOUBLE .*, which has 53 bits. Hint: read the column as HUGEINT",
                ),
            )
        ),
        (
            "FROM near_duplicates(4, id := 'path')",
            'no column path in the table, which has "?source"? VARCHAR.*Hint: .* or id := NULL',
        ),
        ("FROM duplicate_clusters(4, id := 'path')", "no column path in the table, which has"),
        ("FROM rank_images('x', 3)", "no row has source x, and it is not a hash of bmh1 or phash either. Hint: "),
        ("FROM rank_images('x'::BLOB, 3)", "hashes of 121 bytes with hashes of 1 bytes"),
        ("FROM rank_images(''::BLOB, 3)", "hashes of 121 bytes with hashes of 0 bytes"),
        ("FROM rank_images(3, 3, texts)", "got the text b9b9534546d1a2e9. Hint: from_bits"),
        ("FROM rank_images(3, 3, floats)", "which has 53 bits"),
        ("FROM rank_images('x'::BLOB, 3, hex)", "got the text b9b9534546d1a2e9. Hint: from_bits"),
    ],
)
def test_wrong_calls_say_what_is_wrong(ask, query, said):
    frame = described(planted("bmh1")).with_columns(planted("phash"))
    others = (
        "WITH empty AS (FROM hashes LIMIT 0), short AS (SELECT source, bmh1[2:] AS bmh1 FROM hashes), "
        "texts AS (SELECT source, 'b9b9534546d1a2e9' AS phash FROM hashes), "
        "hex AS (SELECT source, 'b9b9534546d1a2e9' AS bmh1 FROM hashes), "
        "floats AS (SELECT source, phash::DOUBLE AS phash FROM hashes) "
    )
    with pytest.raises(duckdb.Error, match=f"(?s){said}"):
        ask(frame, others + query)


@pytest.mark.parametrize(("kept", "absent", "query"), [("phash", "bmh1", "'x'::BLOB"), ("bmh1", "phash", "3")])
def test_a_store_of_one_kind_answers_for_that_kind(ask, kept, absent, query):
    frame = described(planted(kept))
    check(ask, frame, kept, 3)
    for verb in ("near_duplicates", "duplicate_clusters", "remove_duplicates"):
        with pytest.raises(
            duckdb.Error, match=f"{verb}: no column {absent} in the table, which has .*source.* Hint: pass"
        ):
            ask(frame, f"FROM {verb}(3, '{absent}')")
        with pytest.raises(
            duckdb.Error, match=f"{verb}: no column {absent} in the table, which has .*source.* Hint: pass"
        ):
            ask(frame.clear(), f"FROM {verb}(3, '{absent}')")
    with pytest.raises(duckdb.Error, match=f"rank_images: no column {absent} in the table"):
        ask(frame, f"FROM rank_images({query}, 3)")


# A Python with another release of DuckDB, and nothing else, opens what this one writes (and takes its macros along).
SHELL_PYTHON = os.environ.get("IMGMATCH_SHELL_PYTHON", sys.executable)
SHELL = """
import json, sys
import duckdb
assert not any(name in sys.modules for name in ("imgmatch_df", "polars", "numba"))
with duckdb.connect(sys.argv[1], read_only=True) as connection:
    print(json.dumps([connection.sql(query).fetchall() for query in json.loads(sys.argv[2])], default=str))
"""


def listed(frame):
    return [list(row) for row in frame.rows()]


def test_a_stored_file_answers_a_plain_shell(tmp_path):
    path = tmp_path / "hashes.duckdb"  # the catalog is named as the table is
    frame = described(planted("bmh1")).with_columns(planted("phash"), key=pl.int_range(pl.len(), dtype=pl.Int64))
    with duckdb.connect(path, config={"storage_compatibility_version": "v1.4.0"}) as connection:
        connection.register("frame_of_test", frame.to_arrow())
        macros.install(connection, key="it's")
        macros.install(connection)
        macros.install(connection, key="key")
        connection.execute("CREATE TABLE hashes AS FROM frame_of_test")
        n_macros = "SELECT count(*), count(DISTINCT function_name) FROM duckdb_functions() WHERE NOT internal"
        before = connection.sql(n_macros).fetchall()
        macros.install(connection, key="key")
        assert connection.sql(n_macros).fetchall() == before
    queries = [
        "FROM near_duplicates(16)",
        "FROM near_duplicates(4, 'phash')",
        "SELECT key, cluster_id, representative_id, distance, kept FROM duplicate_clusters(16)",
        "SELECT key, len(removed_records) FROM remove_duplicates(16)",
        "SELECT key, distance, rank FROM rank_images((SELECT bmh1 FROM hashes WHERE key = 3), 10)",
        "SELECT to_bits(phash), hamming(phash, 3), from_bits(to_bits(bmh1), 'bmh1') = bmh1 FROM hashes",
    ]
    found = subprocess.run(
        [SHELL_PYTHON, "-c", SHELL, str(path), json.dumps(queries)], check=True, capture_output=True, text=True,
        cwd=tmp_path, timeout=250,
    )  # fmt: skip
    pairs, close, clusters, removed, ranked, bits = json.loads(found.stdout)
    assert pairs == listed(imgmatch_df.near_duplicates(frame, 16, id="key"))
    assert close == listed(imgmatch_df.near_duplicates(frame, 4, "phash", id="key"))
    names = ["key", "cluster_id", "representative_id", "distance", "kept"]
    assert clusters == listed(imgmatch_df.cluster(frame, 16, id="key").select(names))
    kept = imgmatch_df.remove_duplicates(frame, 16)
    assert removed == listed(kept.select("key", pl.col("removed_records").list.len()))
    assert ranked == listed(imgmatch_df.rank_images(frame, frame["bmh1"][3], k=10).select("key", "distance", "rank"))
    assert [row[0] for row in bits] == codec.to_bits(frame["phash"]).to_list()
    assert {row[2] for row in bits} == {True, None}


def test_every_macro_file_says_what_it_is_and_is_installed():
    folder = Path(__file__).parents[2] / "sql"
    assert sorted(path.stem for path in folder.glob("*.sql")) == sorted(macros.FILES)
    for name in macros.FILES:
        text = macros.read_sql(name)
        assert text.startswith("-- ")
        assert "CREATE MACRO" not in text.upper()
        assert not re.search(r"\bif\(", re.sub("--.*", "", text))  # DuckDB 2.0 stores what 1.5 then does not know
        start = {"hashes": r"hamming\(", "help": "FROM imgmatch_help"}.get(name, rf"{name}\(")
        assert re.search(f"^--   {start}", text, re.MULTILINE)
        assert max(map(len, text.splitlines())) <= 120


WRONG_KINDS = ["'dhash'", "'PHASH'", "''", "NULL", "5", "true", "['phash']"]


@pytest.mark.parametrize("columns", ["*", "count(*)", "1"])
@pytest.mark.parametrize("verb", ["near_duplicates", "duplicate_clusters", "remove_duplicates"])
def test_a_small_store_refuses_wrong_calls_too(tmp_path, verb, columns):
    """The optimizer drops what no column of the result needs: of a few rows without pairs, all checks."""
    frame = pl.DataFrame({"source": ["a", "b"], "phash": pl.Series([0, 2**63 - 1], dtype=pl.UInt64)})
    imgmatch_df.write_hashes(frame, tmp_path / "a.duckdb")
    with duckdb.connect(tmp_path / "a.duckdb", read_only=True) as database:
        calls = [(f"{verb}(1, {kind})", "hash_type must be one of 'bmh1', .*got .*Hint: ") for kind in WRONG_KINDS]
        calls += [(f"{verb}({radius}, 'phash')", "radius must be a whole number of bits") for radius in (-1, 65, 1.5)]
        if verb != "remove_duplicates":
            calls.append((f"{verb}(1, 'phash', id := 'nowhere')", "no column nowhere in the table"))
        for call, said in calls:
            with pytest.raises(duckdb.Error, match=said):
                database.execute(f"SELECT {columns} FROM {call}").fetchall()
