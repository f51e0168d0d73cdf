"""Installs the SQL macros of `sql/` in a DuckDB file, so that every DuckDB shell can query its hashes."""

from functools import cache
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Each file uses only macros of the files before it.
FILES: Final = ("hashes", "rank_images", "near_duplicates", "duplicate_clusters", "remove_duplicates")

_DEFAULT_KEY: Final = "id := 'source'"


def read_sql(name: str) -> str:
    """Return the text of one file of `sql/`."""
    packaged = files("imgmatch_df") / "_sql" / f"{name}.sql"  # in a wheel
    checkout = Path(__file__).parents[2] / "sql" / f"{name}.sql"
    return (packaged if packaged.is_file() else checkout).read_text(encoding="utf-8")


@cache
def digest() -> str:
    """Return a digest of the macros, 16 hex digits, which differs between versions."""
    text = "\0".join(map(read_sql, FILES))
    return blake2b(text.encode(), digest_size=8).hexdigest()


def install(connection: "DuckDBPyConnection", *, key: str = "source") -> None:
    """Create or replace the macros in the database that `connection` uses.

    Tables are looked up when a macro runs, and need not exist now. A file needs storage version v1.4.0 or later.

    Parameters
    ----------
    connection
        A connection that may write.
    key
        Default ``id`` of the macros: the column that identifies rows.
    """
    default = "id := '{}'".format(key.replace("'", "''"))
    for name in FILES:
        # Comments are dropped, because a line break in a key would end them.
        lines = [line for line in read_sql(name).splitlines() if not line.lstrip().startswith("--")]
        connection.execute("\n".join(lines).replace(_DEFAULT_KEY, default))
