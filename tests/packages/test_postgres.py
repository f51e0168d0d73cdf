"""The functions of sql/postgres on a real server, against the Python verbs: the truth of the DuckDB macros."""

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import polars as pl
import psycopg
import pytest
from documents import blocks_of, draw_desk, run_command
from polars.testing import assert_frame_equal
from sql_truth import degenerate, described, expected_copies, expected_matches, planted

import imgmatch_df
from imgmatch_df.hashes import codec

pytestmark = [pytest.mark.packages, pytest.mark.filterwarnings("ignore::imgmatch_df.ImgMatchWarning")]
FILE = Path(__file__).parents[2] / "sql" / "postgres" / "imgmatch.sql"
RADII = [("phash", 0), ("phash", 4), ("phash", 9), ("phash", 64), ("bmh1", 0), ("bmh1", 16), ("bmh1", 97)]


def run(*command: object) -> None:
    """Run a program of the server; not as root, as which it does not start."""
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    done = subprocess.run([*prefix, *map(str, command)], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def server():
    """Start a server of its own in a temporary folder, with a socket there and no port."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    assert programs, "needs the Debian package postgresql"
    folder = Path(tempfile.mkdtemp(prefix="imgmatch-pg-"))
    try:
        if os.geteuid() == 0:
            os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
        run(programs[-1] / "initdb", "-D", folder / "data", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8",
            "-U", "test", "--no-sync")  # fmt: skip
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        run(
            programs[-1] / "pg_ctl",
            "-D",
            folder / "data",
            "-o",
            options,
            "-l",
            folder / "log",
            "-w",
            "-t",
            200,
            "start",
        )
        try:
            yield f"host={folder} user=test dbname=postgres"
        finally:
            run(programs[-1] / "pg_ctl", "-D", folder / "data", "-m", "immediate", "-w", "-t", 200, "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def db(server):
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(FILE.read_text())
        connection.execute(FILE.read_text())  # to read it again changes nothing
        yield connection


TYPES = {"String": "text", "UInt32": "bigint", "UInt64": "bigint", "UInt8": "smallint", "Binary": "bytea"}


def load(db, frame, name="hashes", bits=()):
    """Copy a frame into a table: phash as the signed number of the same bits, or in `bits` as a bit string."""
    columns = []
    for column, dtype in frame.schema.items():
        sql = f"bit({968 if column == 'bmh1' else 64})" if column in bits else TYPES[str(dtype)]
        columns.append(f'"{column}" {sql}')
        if column in bits:
            frame = frame.with_columns(codec.to_bits(frame[column]).alias(column))
        elif dtype == pl.UInt64:
            frame = frame.with_columns(pl.col(column).reinterpret(signed=True))
    db.execute(f"DROP TABLE IF EXISTS {name}")
    db.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
    with db.cursor() as cursor, cursor.copy(f"COPY {name} FROM STDIN") as copy:
        for row in frame.iter_rows():
            copy.write_row(row)


def ask(db, query, *values):
    return db.execute(query, values).fetchall()


def by_key(frame):
    """Return the rows as PostgreSQL has them: a table there has no order but that of its ids."""
    return frame.sort("source")


def check(db, frame, other, hash_type, radius):
    load(db, frame)
    load(db, other, "inbox")
    frame, other = by_key(frame), by_key(other)
    pairs = ask(db, "SELECT * FROM near_duplicates(%s, %s)", radius, hash_type)
    assert pairs == imgmatch_df.near_duplicates(frame, radius, hash_type, id="source").rows()
    copies = ask(db, "SELECT kept, copies, farthest, bytes, removed FROM copies(%s, %s)", radius, hash_type)
    assert copies == expected_copies(frame, radius, hash_type)
    matches = ask(db, "SELECT * FROM matches('inbox', %s, hash_type := %s)", radius, hash_type)
    assert matches == expected_matches(other, frame, radius, hash_type).rows()


@pytest.mark.parametrize(("hash_type", "radius"), RADII)
def test_verbs_equal_pythons_on_planted_hashes(db, hash_type, radius):
    frame = described(planted(hash_type))
    sizes = pl.Series([None if i % 5 == 0 else 1000 * i for i in range(len(frame))], dtype=pl.UInt32)
    check(db, frame.with_columns(size=sizes), described(planted(hash_type, n=70)), hash_type, radius)


@pytest.mark.parametrize("name", degenerate("phash"))
@pytest.mark.parametrize("hash_type", ["phash", "bmh1"])
def test_verbs_equal_pythons_on_degenerate_hashes(db, hash_type, name):
    check(db, described(degenerate(hash_type)[name]), described(planted(hash_type, n=5)), hash_type, 3)


def test_images_with_little_to_see(db):
    rows = [
        (value, quality, digest)
        for value in (None, 0, 1, 3, 255)
        for quality in (None, 0, 49, 50)
        for digest in (None, "a", "b", "row 1")
    ]
    schema = {"phash": pl.UInt64, "quality": pl.UInt8, "sha256": pl.String}
    frame = pl.DataFrame(rows, schema, orient="row").with_columns(pl.col("sha256").cast(pl.Binary))
    keys = pl.Series("source", [f"{i:03}" for i in range(len(rows))])
    frame = frame.with_columns(keys)
    load(db, frame)
    load(db, frame[::3], "inbox")
    for radius in (0, 2):
        for flat in ("identical", "match"):
            pairs = ask(db, "SELECT * FROM near_duplicates(%s, 'phash', flat := %s)", radius, flat)
            assert pairs == imgmatch_df.near_duplicates(frame, radius, "phash", id="source", flat=flat).rows()
            copies = ask(db, "SELECT * FROM copies(%s, 'phash', flat := %s)", radius, flat)
            assert copies == expected_copies(frame, radius, "phash", flat=flat)
            found = ask(db, "SELECT * FROM matches('inbox', %s, hash_type := 'phash', flat := %s)", radius, flat)
            assert found == expected_matches(frame[::3], frame, radius, "phash", flat=flat).rows()
    ranked = ask(db, "SELECT * FROM rank_images(1)")
    assert ranked == imgmatch_df.rank_images(frame, 1, "phash").select("rank", "distance", "source").rows()


@pytest.mark.parametrize("hash_type", ["phash", "bmh1"])
@pytest.mark.parametrize("as_bits", [False, True])
def test_bit_strings_and_queries_of_every_form(db, hash_type, as_bits):
    frame = described(planted(hash_type))
    load(db, frame, bits=[hash_type] if as_bits else ())
    frame = by_key(frame)
    at = 5
    value = frame[hash_type][at]
    digits, bits = codec.to_hex(frame[hash_type])[at], codec.to_bits(frame[hash_type])[at]
    for k in (1, 9, None):
        wanted = imgmatch_df.rank_images(frame, value, hash_type, k=k).select("rank", "distance", "source").rows()
        for text in (frame["source"][at], digits, f"0X{digits.upper()}", f" {digits}", bits):
            assert ask(db, "SELECT * FROM rank_images(%s::text, %s)", text, k) == wanted
        of_row = f"(SELECT {hash_type} FROM hashes WHERE source = %s)"
        assert ask(db, f"SELECT * FROM rank_images({of_row}, %s)", frame["source"][at], k) == wanted
    pairs = ask(db, "SELECT * FROM near_duplicates(9, %s)", hash_type)
    assert pairs == imgmatch_df.near_duplicates(frame, 9, hash_type, id="source").rows()
    assert ask(db, f"SELECT * FROM rank_images((SELECT {hash_type} FROM hashes WHERE source = 'typo'))") == []


@pytest.mark.parametrize(("hash_type", "radius"), [("phash", 4), ("bmh1", 24)])
def test_the_index_of_bands_misses_no_row(db, hash_type, radius):
    frame = described(planted(hash_type, n=150))
    load(db, frame)
    bands = f"imgmatch_bands(imgmatch_bits({hash_type}))"
    db.execute(f"CREATE INDEX ON hashes USING gin ({bands})")
    db.execute("SET enable_seqscan = off")
    query = (
        f"SELECT source FROM hashes WHERE {bands} && imgmatch_bands(imgmatch_bits(%s::{{dtype}})) "
        f'AND imgmatch_hamming({hash_type}, %s::{{dtype}}) <= {radius} ORDER BY source COLLATE "C"'
    ).format(dtype="bytea" if hash_type == "bmh1" else "bigint")
    n_found = 0
    for value in frame[hash_type].drop_nulls():
        given = value - 2**64 if hash_type == "phash" and value >= 2**63 else value
        found = [key for (key,) in ask(db, query, given, given)]
        ranked = imgmatch_df.rank_images(frame, value, hash_type, flat="match")
        assert found == ranked.filter(pl.col("distance") <= radius)["source"].sort().to_list()
        n_found += len(found)
    assert n_found > len(frame)
    plan = "\n".join(line for (line,) in ask(db, f"EXPLAIN {query}", given, given))
    db.execute("RESET enable_seqscan")
    assert "Bitmap Index Scan" in plan


def test_many_equal_rows_make_no_pairs_in_copies(db):
    db.execute("DROP TABLE IF EXISTS hashes")
    db.execute("CREATE TABLE hashes AS SELECT i AS source, 8::bigint AS phash FROM generate_series(1, 100000) AS i")
    assert ask(db, "SELECT kept, copies, removed[1] FROM copies(1, 'phash')") == [("1", 99_999, "2")]
    with pytest.raises(psycopg.Error, match=r"4999950000\S* pairs, more than max_pairs 100000000\. Hint: "):
        ask(db, "SELECT * FROM near_duplicates(0, 'phash')")


def test_names_of_tables_and_columns(db):
    frame = described(planted("phash", n=9)).rename({"source": 'a "key"'})
    db.execute('CREATE SCHEMA IF NOT EXISTS "my schema"')
    load(db, frame.rename({'a "key"': "source"}), '"my schema"."Größe"')
    db.execute('ALTER TABLE "my schema"."Größe" RENAME source TO "a ""key"""')
    wanted = imgmatch_df.near_duplicates(frame.sort('a "key"'), 4, "phash", id='a "key"').rows()
    table = '"my schema"."Größe"'
    assert ask(db, "SELECT * FROM near_duplicates(4, 'phash', %s, %s)", table, 'a "key"') == wanted
    numbered = imgmatch_df.near_duplicates(frame, 4, "phash").rows()
    found = ask(db, "SELECT left_id::int, right_id::int, distance FROM near_duplicates(4, 'phash', %s, NULL)", table)
    assert found == numbered


@pytest.mark.parametrize(
    ("call", "said"),
    [
        *(
            case
            for verb in ("near_duplicates(", "copies(", "matches('hashes', ")
            for case in (
                (f"{verb}-1)", "radius must be a whole number of bits from 0 to 961, got -1. Hint: "),
                (f"{verb}1.5)", "from 0 to 961, got 1.5"),
                (f"{verb}NULL)", "got NULL"),
                (f"{verb}65, hash_type := 'phash')", "from 0 to 64, got 65"),
                (f"{verb}4, hash_type := 'dhash')", "hash_type must be bmh1 or phash, got 'dhash'. Hint: "),
                (f"{verb}4, hash_type := NULL)", "hash_type must be bmh1 or phash, got NULL"),
                (f"{verb}4, id := 'path')", "no column path in the table hashes. Hint: "),
                (f"{verb}4, flat := 'no')", "flat must be 'identical' or 'match', got no"),
            )
        ),
        ("matches('nowhere', 4)", 'relation "nowhere" does not exist'),
        ("matches('hashes', 4, reference := 'bare')", "matches: no column bmh1 in the table bare. Hint: "),
        ("matches('hashes', 4, reference := 'narrow')", "the column bmh1 has a hash of 16 bits, and a bmh1 has 968."),
        ("copies(4, tbl := 'texts')", "the column bmh1 of texts has type text. Hint: a hash is a bigint, a bytea"),
        ("matches('hashes', 4, max_pairs := 1)", "more than max_pairs 1 pairs. Hint: "),
        ("rank_images('nowhere')", "no row of hashes has source nowhere, and it is not a hash of bmh1 either"),
        ("rank_images('failed')", "the row with source failed has no bmh1. Hint: "),
        ("rank_images('twice')", "2 rows with different hashes have source twice. Hint: "),
        ("rank_images(NULL::text)", "the query is NULL, an empty text. Hint: "),
        ("rank_images('a', 0)", "k must be a whole number from 1, or NULL, got 0. Hint: "),
        ("rank_images('a', hash_type := 'dhash')", "hash_type must be bmh1 or phash"),
        ("rank_images(5::bigint, hash_type := 'bmh1')", "the column bmh1 has a hash of 64 bits"),
    ],
)
def test_wrong_calls_say_what_is_wrong(db, call, said):
    hashes = [b"\x01" * 121, b"\x01" * 121, None, b"\x01" * 121, b"\x02" * 121]
    load(db, pl.DataFrame({"source": ["a", "b", "failed", "twice", "twice"], "bmh1": hashes}))
    load(db, pl.DataFrame({"source": ["a"]}), "bare")
    load(db, pl.DataFrame({"source": ["a"], "bmh1": [b"ab"]}), "narrow")
    load(db, pl.DataFrame({"source": ["a"], "bmh1": ["ab"]}), "texts")
    db.execute("ALTER TABLE hashes ADD phash bigint")
    with pytest.raises(psycopg.Error, match=said):
        ask(db, f"SELECT * FROM {call}")


def test_the_page_about_postgres(db, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_desk(tmp_path)
    run_command("imgmatch visual-hash photos/ -o hashes.duckdb")
    python, sql = blocks_of(Path(__file__).parents[2] / "docs" / "guide" / "postgres.md")
    db.execute("DROP TABLE IF EXISTS hashes")
    exec(python.code.replace("dbname=photos", server), {})
    for statement, shown in re.findall(r"(?:^|\n)((?:CREATE|SELECT)[^;]+);((?:\n-- .*)*)", sql.code):
        cursor = db.execute(statement)
        rows = cursor.fetchall() if cursor.description else []
        texts = [" | ".join(f"{{{','.join(v)}}}" if isinstance(v, list) else str(v) for v in row) for row in rows]
        assert texts == shown.replace("\n-- ", "\n").splitlines()[1:], statement


def test_a_frame_of_hashes_goes_in_and_out_with_every_bit(db):
    frame = pl.DataFrame({"source": ["a", "b"], "phash": pl.Series([2**64 - 1, 2**63], dtype=pl.UInt64)})
    load(db, frame)
    rows = ask(db, "SELECT source, phash FROM hashes ORDER BY source")
    back = pl.DataFrame(rows, {"source": pl.String, "phash": pl.Int64}, orient="row")
    assert_frame_equal(back.with_columns(pl.col("phash").reinterpret(signed=False)), frame)
