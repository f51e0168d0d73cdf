"""A store that somebody else made: no other file is read, nothing of it runs, and what is wrong with it is said."""

import json
import os
import random
import time

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from test_store import FORMS, random_hashes, summary
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df import StoreError
from imgmatch_df.cli.app import app
from imgmatch_df.store import duckdb as duckdb_store
from imgmatch_df.store import duckdb_files, parquet

SECRET = "a secret of this machine"


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_text(SECRET)
    return path


@pytest.fixture
def evil(tmp_path):
    """A DuckDB store, and a function that changes it by SQL."""
    store = tmp_path / "evil.duckdb"
    imgmatch_df.write_hashes(random_hashes(20), store)

    def change(*statements):
        with duckdb.connect(str(store)) as connection:
            for statement in statements:
                connection.execute(statement)
        return store

    return change


def every_use(store):
    """Yield calls that open a store, each in another way."""
    rows = random_hashes(5, seed=1)
    yield lambda: imgmatch_df.read_hashes(store)
    yield lambda: imgmatch_df.scan_hashes(store).collect()
    yield lambda: imgmatch_df.scan_hashes(store).select("source").head(3).collect(engine="streaming")
    yield lambda: rows.imgmatch.remove_duplicates(radius=4, reference=store)
    yield lambda: imgmatch_df.write_hashes(rows, store)


VIEWS = {
    "a file": "SELECT * REPLACE ((SELECT content FROM read_text('{secret}')) AS source) FROM h0",
    "a listing": "SELECT * REPLACE ((SELECT first(file) FROM glob('{folder}/*')) AS source) FROM h0",
    "a table file": "SELECT * REPLACE ((FROM read_csv('{secret}', header = false)) AS source) FROM h0",
    "the environment": "SELECT * REPLACE ((SELECT content FROM read_text('/proc/self/environ')) AS source) FROM h0",
    "nothing": "FROM h0",
}


@pytest.mark.parametrize("view", VIEWS)
def test_views_are_not_read(tmp_path, evil, secret, view):
    sql = VIEWS[view].format(secret=secret, folder=tmp_path)
    with duckdb.connect(str(tmp_path / "evil.duckdb")) as connection:
        connection.execute("ALTER TABLE hashes RENAME TO h0")
        connection.execute(f"CREATE VIEW hashes AS {sql}")
    store = tmp_path / "evil.duckdb"
    for use in every_use(store):
        with pytest.raises(StoreError, match="is a DuckDB file, but not a store of hashes\nHint: ") as raised:
            use()
        assert SECRET not in str(raised.value)


@pytest.mark.parametrize("command", [["export"], ["remove-duplicates", "--radius", "4"], ["visual-hash"]])
def test_the_commands_read_no_view(tmp_path, evil, secret, command):
    store = evil(
        "ALTER TABLE hashes RENAME TO h0",
        f"CREATE VIEW hashes AS SELECT * REPLACE ((SELECT content FROM read_text('{secret}')) AS source) FROM h0",
    )
    found = CliRunner().invoke(app, [command[0], str(store), *command[1:]])
    assert found.exit_code == 2
    assert "is a DuckDB file, but not a store of hashes" in found.stderr
    assert SECRET not in found.output


@pytest.mark.parametrize("form", FORMS[1:])
@pytest.mark.parametrize("command", [["export"], ["remove-duplicates", "--radius", "4"]])
def test_the_commands_read_no_changed_bits(tmp_path, form, command):
    """Though Parquet is a table like any other for them."""
    store = tmp_path / form
    imgmatch_df.write_hashes(random_hashes(300), store)
    assert CliRunner().invoke(app, [command[0], str(store), *command[1:]]).exit_code == 0
    part = store if store.is_file() else next(store.iterdir())
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 1
    part.write_bytes(data)
    found = CliRunner().invoke(app, [command[0], str(store), *command[1:]])
    assert found.exit_code == 2
    assert "is damaged, or was changed by another program" in found.stderr


def test_a_view_of_what_the_store_says_of_itself(evil, secret):
    store = evil(
        "ALTER TABLE imgmatch_store RENAME TO s0",
        "CREATE VIEW imgmatch_store AS SELECT name, if(name = 'created_by', "
        f"(SELECT content FROM read_text('{secret}')), value) AS value FROM s0",
    )
    for use in every_use(store):
        with pytest.raises(StoreError, match="is a DuckDB file, but not a store of hashes"):
            use()


MACROS = (
    "current_setting", "count", "duckdb_tables", "pragma_table_info", "pragma_storage_info", "concat_ws", "contains",
    "duckdb_constraints", "duckdb_indexes", "duckdb_triggers", "coalesce", "max", "query_table",
)  # fmt: skip


def test_macros_of_the_file_are_not_asked(evil, secret):
    """Macros named as functions that are called while a store is used; those of tables too."""
    read = f"(SELECT content FROM read_text('{secret}'))"
    store = evil(
        *(f'CREATE MACRO "{name}"() AS {read}, (x) AS {read}, (x, y) AS {read}' for name in MACROS),
        *(f'CREATE MACRO "{name}"(x) AS TABLE SELECT error({read}) AS a' for name in MACROS),
    )
    before = imgmatch_df.read_hashes(store)
    assert before["source"].equals(random_hashes(20)["source"])
    rows = random_hashes(30)
    assert imgmatch_df.write_hashes(rows, store) == summary(new=10, skipped=20)
    assert imgmatch_df.write_hashes(rows.head(20), store, prune=True).n_pruned == 10
    for use in every_use(store):
        use()


def in_newer_storage(path):
    """Write a file again as DuckDB 2 does where it is not asked to write for others."""
    old = path.with_name("old.duckdb")
    path.rename(old)
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{old}' AS old (READ_ONLY)")
        connection.execute(f"ATTACH '{path}' AS new (STORAGE_VERSION 'v2.0.0')")
        connection.execute("COPY FROM DATABASE old TO new")
    old.unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "ALTER TABLE hashes ADD COLUMN note VARCHAR DEFAULT version()",
            "a computed column",
        ),
        ("CREATE INDEX i ON hashes ((upper(source)))", "an index of expressions"),
        ("CREATE TRIGGER t AFTER INSERT ON hashes FOR EACH STATEMENT INSERT INTO log SELECT 'x'", "a trigger"),
        (None, "a CHECK"),
        ("generated", "a computed column"),
    ],
)
def test_what_a_writer_would_run_is_refused(tmp_path, evil, change, said):
    table = "(SELECT sql FROM duckdb_tables() WHERE table_name = 'hashes')"
    if said == "a trigger":
        if duckdb.__version__ < "2":
            pytest.skip("DuckDB 1 has no triggers")
        in_newer_storage(tmp_path / "evil.duckdb")
    if change is None or change == "generated":
        added = ", CHECK (size IS NULL OR size < 5));" if change is None else ", extra VARCHAR AS (upper(source)));"
        with duckdb.connect(str(tmp_path / "evil.duckdb")) as connection:
            sql = connection.execute(f"SELECT {table}").fetchall()[0][0]
            connection.execute("ALTER TABLE hashes RENAME TO h0")
            connection.execute(sql.removesuffix(");") + added)
            names = [name for name, *_ in connection.execute("DESCRIBE h0").fetchall()]
            connection.execute(f"INSERT INTO hashes ({', '.join(names)}) FROM h0")
            connection.execute("DROP TABLE h0")
        store = tmp_path / "evil.duckdb"
    else:
        store = evil("CREATE TABLE log (x VARCHAR)", change)
    assert imgmatch_df.read_hashes(store).height == 20
    before = store.read_bytes()
    with pytest.raises(StoreError, match=f"has {said}.*, which a writer would run\nHint: "):
        imgmatch_df.write_hashes(random_hashes(30), store)
    assert store.read_bytes() == before
    assert list(tmp_path.iterdir()) == [store]


def test_a_computed_column_is_not_read(tmp_path, evil):
    store = evil("ALTER TABLE hashes DROP COLUMN detail", "CREATE TABLE h1 AS FROM hashes")
    with duckdb.connect(str(store)) as connection:
        sql = connection.execute("SELECT sql FROM duckdb_tables() WHERE table_name = 'hashes'").fetchall()[0][0]
        connection.execute("DROP TABLE hashes")
        connection.execute(sql.removesuffix(");") + ", detail VARCHAR AS (current_setting('temp_directory')));")
    for use in every_use(store):
        with pytest.raises(StoreError, match="not those of a store"):
            use()


@pytest.mark.parametrize("change", ["width VARCHAR", "phash VARCHAR", "size BLOB", "status INTEGER"])
def test_columns_of_other_types(evil, change):
    name, dtype = change.split()
    store = evil(f"ALTER TABLE hashes ALTER {name} TYPE {dtype} USING NULL")
    for use in every_use(store):
        with pytest.raises(StoreError, match=f"the column '{name}' of dtype '{dtype}'"):
            use()


def test_nothing_but_the_file_can_be_opened(evil, secret, tmp_path):
    """Not by anybody who has the connection, whatever the file holds; but what does not fit into memory is spilled."""
    store = evil(
        f"CREATE MACRO leak() AS TABLE SELECT content FROM read_text('{secret}')",
        f"CREATE VIEW leaked AS SELECT content FROM read_text('{secret}')",
    )
    with duckdb_files.reading(store) as connection:
        for sql in (
            "FROM store.main.leak()",
            "FROM store.main.leaked",
            f"FROM read_text('{secret}')",
            f"ATTACH '{tmp_path}/other.duckdb'",
            f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET enable_external_access = true",
            "SET memory_limit = '1GB'",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(sql).fetchall()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.duckdb", "secret.txt"]


def test_a_log_that_is_a_link(tmp_path, evil):
    victim = tmp_path / "victim"
    victim.write_bytes(b"keep me")
    store, log = evil(), tmp_path / "evil.duckdb.wal"
    log.symlink_to(victim)
    for use in every_use(store):
        with pytest.raises(StoreError, match="must be a regular file"):
            use()
    assert victim.read_bytes() == b"keep me"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of Unix")
@pytest.mark.parametrize("name", ["some.duckdb", "some.parquet", "some.duckdb.wal", "parts/part-000001.parquet"])
def test_a_pipe_in_the_place_of_a_file(tmp_path, name):
    """A reader would wait for it for ever."""
    store = tmp_path / name.removesuffix(".wal").partition("/")[0]
    if name.endswith(".wal") or "/" in name:
        imgmatch_df.write_hashes(random_hashes(5), store)
    os.mkfifo(tmp_path / name)
    for use in every_use(store):
        with pytest.raises(StoreError, match="\nHint: "):
            use()


def test_what_failed_in_a_commit_is_said(tmp_path, monkeypatch):
    """And not that the transaction, in which it failed, is aborted."""
    store = tmp_path / "some.duckdb"
    imgmatch_df.write_hashes(random_hashes(5), store)

    def fail(self):
        self._connection.execute("INSERT INTO store.main.hashes (source) VALUES ('x')")
        self._connection.execute("SELECT error('No space left on device')")

    with monkeypatch.context() as patch:
        patch.setattr(duckdb_store.DuckDBStore, "_insert", fail)
        with pytest.raises(StoreError, match=r"there is no room for .*No space left on device"):
            imgmatch_df.write_hashes(random_hashes(8), store)
    assert imgmatch_df.write_hashes(random_hashes(8), store) == summary(new=3, skipped=5)


# What a Parquet store says of itself.

ABOUT = "imgmatch_store"
HOSTILE = {
    "a list": "[]",
    "text": '"x"',
    "a number": "1",
    "null": "null",
    "a cut object": "{",
    "depth": "[" * 100_000,
    "digits": lambda about: {**about, "format": "9" * 5000},
    "a key of no text": lambda about: {**about, "key": ["a"]},
    "a dtype of no text": lambda about: {**about, "key_dtype": {"a": 1}},
    "a format of no text": lambda about: {**about, "format": 1},
    "the key of another column": lambda about: {**about, "key": "phash"},
    "NUL in the key": lambda about: {**about, "key": "a\0b"},
    "no text at all": lambda about: dict.fromkeys(about),
    "a hash of that name": lambda about: {**about, "hash.\x1b[2J": "1"},
    "a later format": lambda about: {**about, "format": "99", "created_by": "me \x1b[2J\x1b[H you are logged out"},
    "another decode": lambda about: {name: text for name, text in about.items() if name != "decode"},
}


def without_checksums(path):
    """Write a Parquet store again, as an earlier release wrote it."""
    about = pl.read_parquet_metadata(path)
    pl.read_parquet(path).write_parquet(path, metadata={ABOUT: about[ABOUT]})


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_words_of_a_parquet_store(tmp_path, hostile):
    store = tmp_path / "some.parquet"
    imgmatch_df.write_hashes(random_hashes(5), store)
    about = json.loads(pl.read_parquet_metadata(store)[ABOUT])
    change = HOSTILE[hostile]
    said = change if isinstance(change, str) else json.dumps(change(about))
    pl.read_parquet(store).write_parquet(store, metadata={ABOUT: said})
    for use in every_use(store):
        with pytest.raises(StoreError, match="\nHint: ") as raised:
            use()
        assert str(raised.value).replace("\n", "").isprintable()
        assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("dtype", [pl.String, pl.Null, pl.Int64, pl.List(pl.UInt64)])
def test_a_parquet_store_with_other_dtypes(tmp_path, dtype):
    store = tmp_path / "some.parquet"
    imgmatch_df.write_hashes(random_hashes(5), store)
    about = pl.read_parquet_metadata(store)
    rows = pl.read_parquet(store).with_columns(pl.lit(None, dtype).alias("phash"))
    rows.write_parquet(store, metadata={ABOUT: about[ABOUT]})
    for use in every_use(store):
        with pytest.raises(StoreError, match="the column 'phash' of dtype"):
            use()


# Bits that change.


def test_a_store_of_an_earlier_release_has_no_checksums(tmp_path):
    store, rows = tmp_path / "some.parquet", random_hashes(10)
    imgmatch_df.write_hashes(rows.head(5), store)
    without_checksums(store)
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows.head(5))
    assert imgmatch_df.write_hashes(rows, store) == summary(new=5, skipped=5)
    assert "imgmatch_checksums" in pl.read_parquet_metadata(store)
    assert_frame_equal(pl.read_parquet(store).select(rows.columns), rows)  # anybody reads it


def mutate(data, rng):
    """Return changed bytes: flipped bits, zeros, other bytes, a cut, or a block in the place of another."""
    changed = bytearray(data)
    kind = rng.randrange(6)
    at = rng.randrange(len(data))
    if kind <= 1:
        for _ in range(rng.choice([1, 1, 3])):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        changed[at : at + 4096] = bytes(len(changed[at : at + 4096]))
    elif kind == 3:
        changed[at] = rng.randrange(256)
    elif kind == 4:
        del changed[at : at + rng.choice([1, 512, len(data)])]
    else:
        other = rng.randrange(len(data))
        changed[at : at + 512] = data[other : other + len(changed[at : at + 512])]
    return bytes(changed)


@pytest.mark.parametrize("form", FORMS[1:])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_changed_bits_are_no_other_hashes(tmp_path, form, seed, monkeypatch):
    monkeypatch.setattr(parquet, "_PART_ROWS", 300)
    monkeypatch.setattr(parquet, "_ROW_GROUP", 100)
    store, rng = tmp_path / form, random.Random(seed)
    rows = random_hashes(500).with_columns(source=pl.format("photos/{}", "source"), detail=pl.lit("a word"))
    imgmatch_df.write_hashes(rows, store)
    parts = [store] if store.is_file() else sorted(store.iterdir())
    whole = {part: part.read_bytes() for part in parts}
    right = imgmatch_df.read_hashes(store)
    some = right["phash"][::7].to_list()

    def outcome(query):
        try:
            return query()
        except (StoreError, pl.exceptions.ComputeError):  # Polars 1 wraps what a source raises
            return None

    queries = [
        lambda: imgmatch_df.read_hashes(store),
        lambda: imgmatch_df.scan_hashes(store).select("phash").collect(),
        lambda: imgmatch_df.scan_hashes(store).filter(pl.col("phash").is_in(some)).select("source").collect(),
        lambda: imgmatch_df.scan_hashes(store).select("source", "bmh1").head(120).collect(),
    ]
    wanted = [query() for query in queries]
    n_refused = 0
    for _ in range(60):
        part = rng.choice(parts)
        part.write_bytes(mutate(whole[part], rng))
        for number, (query, whole_answer) in enumerate(zip(queries, wanted, strict=True)):
            found = outcome(query)
            n_refused += found is None and number == 0
            assert found is None or found.equals(whole_answer), number
        if part.read_bytes() != whole[part]:
            with pytest.raises(StoreError):
                imgmatch_df.read_hashes(store)
        part.write_bytes(whole[part])
    assert n_refused > 50
    assert_frame_equal(imgmatch_df.read_hashes(store), right)


def test_a_writer_takes_no_changed_bits(tmp_path):
    store = tmp_path / "some.parquet"
    imgmatch_df.write_hashes(random_hashes(300), store)
    data = bytearray(store.read_bytes())
    place = len(data) // 3
    data[place] ^= 4
    store.write_bytes(data)
    for rows in (random_hashes(400), random_hashes(300).head(100)):
        with pytest.raises(
            StoreError, match=r"is damaged, or was changed by another program: .* wrong checksum\nHint: "
        ):
            imgmatch_df.write_hashes(rows, store, prune="all")
    assert store.read_bytes() == data


def test_every_byte_is_in_a_checksum(tmp_path):
    """One bit in each 97th byte: all of the file is covered, and so is the space between the columns."""
    store = tmp_path / "some.parquet"
    imgmatch_df.write_hashes(random_hashes(20), store)
    data = store.read_bytes()
    for at in range(0, len(data), 97):
        changed = bytearray(data)
        changed[at] ^= 16
        store.write_bytes(changed)
        with pytest.raises(StoreError):
            imgmatch_df.read_hashes(store)


def test_what_was_checked_is_checked_again_once_it_changes(tmp_path):
    """A file is checked once in a process; a change that keeps its size and its time of modification is seen."""
    store = tmp_path / "some.parquet"
    imgmatch_df.write_hashes(random_hashes(300), store)
    time.sleep(0.05)
    before, data = store.stat(), bytearray(store.read_bytes())
    for _ in range(2):
        assert imgmatch_df.read_hashes(store).height == 300
    data[len(data) // 3] ^= 1
    with store.open("rb+") as file:
        file.write(data)
    os.utime(store, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(StoreError, match="wrong checksum"):
            imgmatch_df.read_hashes(store)
