"""The SQL macros of `sql/`, put into a DuckDB file so that every shell can query its hashes."""

from functools import cache
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# In the order in which they lean on each other.
FILES: Final = ("hashes", "rank_images", "near_duplicates", "duplicate_clusters", "remove_duplicates")

_DEFAULT_KEY: Final = "id := 'source'"


def read_sql(name: str) -> str:
    """Return the text of one file of `sql/`."""
    packaged = files("imgmatch_df") / "_sql" / f"{name}.sql"  # in a wheel
    checkout = Path(__file__).parents[2] / "sql" / f"{name}.sql"
    return (packaged if packaged.is_file() else checkout).read_text(encoding="utf-8")


@cache
def digest() -> str:
    """Return what tells these macros from those of another version: 16 hex digits."""
    text = "\0".join(map(read_sql, FILES))
    return blake2b(text.encode(), digest_size=8).hexdigest()


def install(connection: "DuckDBPyConnection", *, key: str = "source") -> None:
    """Create or replace the macros in the database that `connection` uses.

    They need no table: what a call asks for is looked up when it runs. A file needs storage version v1.4.0 or later.

    Parameters
    ----------
    connection
        May write.
    key
        Column that names the rows where a call has no ``id``.
    """
    default = "id := '{}'".format(key.replace("'", "''"))
    for name in FILES:
        # Without comments, which a key with a line break would end.
        lines = [line for line in read_sql(name).splitlines() if not line.lstrip().startswith("--")]
        connection.execute("\n".join(lines).replace(_DEFAULT_KEY, default))
