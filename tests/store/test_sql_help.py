"""The help that a store carries for people in a DuckDB shell: comments, and the view `imgmatch_help`."""

import os
import re
import subprocess
import sys

import duckdb
import polars as pl
import pytest

import imgmatch_df
from imgmatch_df.store import macros

# A Python with another release of DuckDB, which opens what this one writes.
SHELL_PYTHON = os.environ.get("IMGMATCH_SHELL_PYTHON", sys.executable)


@pytest.fixture
def store(tmp_path):
    frame = pl.DataFrame(
        {
            "key": ["photos/beach.jpg", "b", "b copy"],
            "phash": pl.Series([0xB9B9534546D1A2E9, 3, 3], dtype=pl.UInt64),
            "bmh1": [b"\x01" * 121, b"\x02" * 121, b"\x02" * 121],
        }
    )
    imgmatch_df.write_hashes(frame, tmp_path / "h.duckdb", key="key")
    frame.rename({"key": "path"}).write_parquet(tmp_path / "today.parquet")
    return tmp_path / "h.duckdb"


@pytest.fixture
def db(store):
    with duckdb.connect(store, read_only=True) as connection:
        yield connection


def macro_rows(db):
    return db.sql(
        "SELECT DISTINCT function_name, parameters, comment, length(macro_definition) > 0 FROM duckdb_functions() "
        "WHERE NOT internal AND function_type IN ('macro', 'table_macro')"
    ).fetchall()


def test_every_macro_for_people_is_in_the_help_and_has_its_text_as_comment(db):
    comments = {name: comment for name, _, comment, _ in macro_rows(db) if not name.startswith("imgmatch_")}
    rows = db.sql("FROM imgmatch_help").fetchall()
    assert comments == {
        name: f"{signature}: {description}. Example: {example}" for name, signature, description, example in rows
    }
    assert len(rows) == len(comments)
    assert rows[0][0] == "copies"
    assert {name for name, *_ in rows} >= {"near_duplicates", "matches", "rank_images", "hamming"}


def test_signatures_name_the_parameters_in_order(db):
    parameters = {name: given for name, given, *_ in macro_rows(db)}
    for name, signature, *_ in db.sql("FROM imgmatch_help").fetchall():
        inner = signature.removeprefix(f"{name}(").removesuffix(")")
        assert [part.split(" := ")[0] for part in inner.split(", ")] == parameters[name]


def test_signatures_name_the_defaults(db):
    """Each default in a signature is what the macro does without the argument."""
    definitions = dict(db.sql("SELECT name, signature FROM imgmatch_help").fetchall())
    text = "\n".join(macros.read_sql(name) for name in macros.FILES)
    for name, signature in definitions.items():
        for parameter, default in re.findall(r"(\w+) := ([^,)]+)", signature.replace("'key'", "'source'")):
            starts = re.findall(rf"^CREATE OR REPLACE MACRO {name}\b(.*?)\bAS\b", text, re.MULTILINE | re.DOTALL)
            assert any(f"{parameter} := {default}" in start for start in starts), (name, parameter, default)


def test_every_example_runs_on_a_store(db, store, monkeypatch):
    monkeypatch.chdir(store.parent)
    examples = dict(db.sql("SELECT name, example FROM imgmatch_help").fetchall())
    examples.pop("to_points")  # the store has no local hashes
    for example in examples.values():
        example = example.replace("id := 'path'", "id := 'path', reference_id := 'key'")
        assert db.sql(example).fetchall(), example


def test_the_key_of_the_store_is_in_the_help(db):
    signature = db.sql("SELECT signature FROM imgmatch_help WHERE name = 'matches'").fetchall()[0][0]
    assert "id := 'key', reference_id := 'key'" in signature
    assert "'source'" not in str(db.sql("FROM imgmatch_help").fetchall())


def test_a_key_with_any_characters(tmp_path):
    for key in ("it's", 'a "b"', "Größe", "two\nlines", "-- c"):
        with duckdb.connect() as connection:
            macros.install(connection, key=key)
            found = connection.sql("SELECT signature FROM imgmatch_help WHERE name = 'copies'").fetchall()[0][0]
            assert "id := '" + key.replace("'", "''") + "'" in found


def test_the_view_shows_among_the_tables_also_of_an_attached_store(store):
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{store}' AS s (READ_ONLY)")
        assert len(connection.sql("FROM s.imgmatch_help").fetchall()) == 14
        connection.execute("USE s")
        assert ("imgmatch_help",) in connection.sql("SHOW TABLES").fetchall()


def test_the_table_and_its_hashes_have_comments(db):
    table = db.sql("SELECT comment FROM duckdb_tables() WHERE table_name = 'hashes'").fetchall()
    assert "imgmatch_help" in table[0][0]
    columns = db.sql("SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'hashes'").fetchall()
    assert {name for name, comment in columns if comment} == {"bmh1", "phash"}


def test_a_store_of_an_older_version_gets_the_help_at_the_next_write(store):
    with duckdb.connect(store) as connection:
        connection.execute("DROP VIEW imgmatch_help")
        connection.execute("DROP MACRO TABLE copies")
        connection.execute("COMMENT ON TABLE hashes IS NULL")
        connection.execute("UPDATE imgmatch_store SET value = 'imgmatch-df 0.0.1, sql 0' WHERE name = 'macros'")
    before = store.read_bytes()
    assert imgmatch_df.read_hashes(store).height == 3
    assert store.read_bytes() == before
    new = pl.DataFrame({"key": ["c"], "phash": pl.Series([7], dtype=pl.UInt64), "bmh1": [b"\x03" * 121]})
    imgmatch_df.write_hashes(new, store, key="key")
    with duckdb.connect(store, read_only=True) as connection:
        assert connection.sql("SELECT name FROM imgmatch_help LIMIT 1").fetchall() == [("copies",)]
        assert connection.sql("FROM copies(1, 'phash')").fetchall() == [("b", 2, 1, None, ["b copy", "c"])]
    test_the_table_and_its_hashes_have_comments(duckdb.connect(store, read_only=True))


def test_another_release_of_duckdb_reads_the_help(store):
    code = (
        "import sys, duckdb; c = duckdb.connect(sys.argv[1], read_only=True); "
        "print(len(c.sql('FROM imgmatch_help').fetchall()), len(c.sql('FROM copies(64, \\'phash\\')').fetchall()), "
        "c.sql('SELECT rank FROM rank_images(\\'b\\', 1)').fetchall(), "
        "len(c.sql('FROM matches(\\'hashes\\', 0)').fetchall()))"
    )
    found = subprocess.run(
        [SHELL_PYTHON, "-c", code, str(store)], check=True, capture_output=True, text=True, timeout=200
    )
    assert found.stdout.split("\n")[0] == "14 1 [(1,)] 5"
