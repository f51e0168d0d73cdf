"""Stores as the release before this one wrote them: its layout, pinned here, written with DuckDB and PyArrow alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

# It opened a DuckDB file with these settings to write it, and its checkpoints were made in the file.
CONFIG = {"storage_compatibility_version": "v1.4.0", "auto_checkpoint_skip_wal_threshold": (1 << 63) - 1}
ENTRIES = {
    "format": "1",
    "key": "source",
    "key_dtype": "String",
    "has_source": "true",
    "decode": "full",
    "hash.bmh1": "opencv-block-mean-1",
    "hash.phash": "opencv-phash",
    "created_by": "imgmatch-df 0.1.0",
}
STATUSES = [
    *("ok", "missing", "bad_source", "not_found", "fetch_blocked", "fetch_timeout", "fetch_failed", "too_many_bytes"),
    *("decode_failed", "too_many_pixels"),
]
TABLE = """
CREATE TABLE hashes (
    "source" VARCHAR NOT NULL, "width" UINTEGER, "height" UINTEGER, "bmh1" BLOB, "phash" UBIGINT,
    "status" VARCHAR, "detail" VARCHAR, "size" UBIGINT, "modified" TIMESTAMP, "etag" VARCHAR
)
"""
# Two of its macros: one that is still there, with another definition, and one for a reader without this package.
MACROS = (
    "CREATE OR REPLACE MACRO to_bits(hash) AS 'those of the release before'",
    "CREATE OR REPLACE MACRO rank_images(query, k, tbl := 'hashes') AS TABLE SELECT 1 AS source",
)
SCHEMA = pa.schema(
    [
        ("source", pa.large_string()),
        ("width", pa.uint32()),
        ("height", pa.uint32()),
        ("bmh1", pa.large_binary()),
        ("phash", pa.uint64()),
        pa.field(
            "status",
            pa.dictionary(pa.uint8(), pa.large_string(), ordered=True),
            metadata={"_PL_ENUM_VALUES2": "".join(f"{len(name)};{name}" for name in STATUSES)},
        ),
        ("detail", pa.large_string()),
        ("size", pa.uint64()),
        ("modified", pa.timestamp("us", "UTC")),
        ("etag", pa.large_string()),
    ]
)


def table_of(rows):
    """Return rows with the columns of a store, as Arrow, every status one of those of that release."""
    arrow = rows.select(
        pl.col(name) if name in rows.columns else pl.lit(None).alias(name) for name in SCHEMA.names
    ).with_columns(pl.col("status").cast(pl.String))
    columns = arrow.to_arrow()
    codes = pa.array([None if name is None else STATUSES.index(name) for name in arrow["status"]], pa.uint8())
    status = pa.DictionaryArray.from_arrays(codes, pa.array(STATUSES, pa.large_string()), ordered=True)
    return pa.Table.from_arrays(
        [status if name == "status" else columns[name].cast(SCHEMA.field(name).type) for name in SCHEMA.names],
        schema=SCHEMA,
    )


def write_duckdb(rows, path, *, n_parts=1, **config):
    """Make a store, with one checkpoint for each part of the rows."""
    with duckdb.connect(str(path), config={**CONFIG, **config}) as connection:
        connection.execute(TABLE)
        connection.execute("CREATE TABLE imgmatch_store (name VARCHAR, value VARCHAR)")
        entries = {**ENTRIES, "macros": "imgmatch-df 0.1.0"}
        connection.executemany("INSERT INTO imgmatch_store VALUES (?, ?)", list(entries.items()))
        for macro in MACROS:
            connection.execute(macro)
    for part in range(n_parts):
        first, end = (rows.height * number // n_parts for number in (part, part + 1))
        with duckdb.connect(str(path), config={**CONFIG, **config}) as connection:
            insert(connection, rows[first:end])


def insert(connection, rows):
    plain = table_of(rows)  # read by its name
    plain = plain.set_column(5, "status", plain["status"].cast(pa.large_string()))
    modified = plain["modified"].cast(pa.timestamp("us"))
    plain = plain.set_column(8, "modified", modified)
    connection.register("batch", plain)
    connection.execute("INSERT INTO hashes SELECT * FROM batch")
    connection.unregister("batch")


def write_parquet(rows, path):
    metadata = {"imgmatch_store": json.dumps(ENTRIES)}
    pq.write_table(table_of(rows).replace_schema_metadata(metadata), path, compression="zstd", row_group_size=65_536)


def write_store(rows, target):
    """Make a store of the form that the name of `target` says; a folder has two parts."""
    if target.suffix == ".duckdb":
        write_duckdb(rows, target)
    elif target.suffix == ".parquet":
        write_parquet(rows, target)
    else:
        target.mkdir()
        half = rows.height // 2
        for number, part in enumerate((rows[:half], rows[half:])):
            write_parquet(part, target / f"part-{number:06}.parquet")


# Commits the rest of the rows. Then it is killed; or it is stopped in a checkpoint, when the blocks are written and the
# header is not, and what was there before lies beside it.
_KILLED = """
import os, shutil, sys
sys.path.insert(0, sys.argv[1])
import duckdb, polars as pl
from previous_release import CONFIG, insert
rows, target = pl.read_parquet(sys.argv[2]), sys.argv[3]
connection = duckdb.connect(target, config={**CONFIG, "checkpoint_threshold": "1GB"})
for part in rows.iter_slices(16):
    insert(connection, part)
if sys.argv[4] == "in a checkpoint":
    for end in ("", ".wal"):
        shutil.copy(target + end, target + ".before" + end)
    connection.execute("SET debug_checkpoint_abort = 'after_free_list_write'")
    try:
        connection.execute("CHECKPOINT")
    except duckdb.Error:
        pass
os._exit(9)
"""


def kill_writer(rows, path, when="between commits"):
    """Let a writer of that release add rows to a DuckDB store, and be killed."""
    rows.write_parquet(path.with_name("added.parquet"))
    command = [sys.executable, "-c", _KILLED, Path(__file__).parent, path.with_name("added.parquet"), path, when]
    assert subprocess.run(command).returncode == 9
    path.with_name("added.parquet").unlink()


def copy_store(path, copy):
    """Copy a DuckDB store with its log."""
    for end in ("", ".wal"):
        shutil.copy(f"{path}{end}", f"{copy}{end}")
