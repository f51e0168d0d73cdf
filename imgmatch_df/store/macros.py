"""The SQL macros of `sql/`, which a store carries so that every DuckDB shell can query its hashes."""

from collections.abc import Callable, Iterable
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imgmatch_df.hashes.kinds import KINDS, MAX_WIDTH_BYTES, HashKind

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Each file uses only macros of the files before it.
FILES: Final = ("hashes", "rank_images", "near_duplicates", "duplicate_clusters", "remove_duplicates")

_DEFAULT_KEY: Final = "id := 'source'"
_BEGIN: Final = "-- hash kinds: begin\n"
_END: Final = "-- hash kinds: end\n"


def read_sql(name: str) -> str:
    """Return the text of one file of `sql/`, with the hash kinds that are registered."""
    packaged = files("imgmatch_df") / "_sql" / f"{name}.sql"  # in a wheel
    checkout = Path(__file__).parents[2] / "sql" / f"{name}.sql"
    text = (packaged if packaged.is_file() else checkout).read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    return before + begin + kinds_sql() + end + after if begin else text


def kinds_sql() -> str:
    """Return the macros that describe the registered hash kinds."""
    kinds = list(KINDS.values())
    n_bits_of_width: dict[int, int] = {}
    for kind in kinds:
        n_bits_of_width[kind.n_chars] = max(kind.n_bits, n_bits_of_width.get(kind.n_chars, 0))
    by_length, numbers_first = (sorted(kinds, key=key) for key in (lambda k: k.n_chars, lambda k: not k.is_number))
    binary = [kind for kind in kinds if not kind.is_number]
    macros = {
        "imgmatch_hash_types()": f"[{', '.join(map(_text, KINDS))}]",
        "imgmatch_hash_form(hash_type)": _case(kinds, lambda kind: "'number'" if kind.is_number else "'bytes'")
        + " ELSE 'other' END",
        "imgmatch_n_chars(hash_type)": _case(kinds, lambda kind: kind.n_chars) + " END",
        "imgmatch_max_radius(hash_type)": f"{_case(kinds, lambda kind: kind.n_bits)} ELSE {8 * MAX_WIDTH_BYTES} END",
        "imgmatch_max_radius_of_bits(n_chars)": "CASE n_chars"
        + "".join(f" WHEN {n_chars} THEN {n_bits}" for n_chars, n_bits in n_bits_of_width.items())
        + " ELSE n_chars END",
        "imgmatch_is_hash_width(n_bytes)": f"n_bytes IN ({', '.join(sorted({str(kind.n_bytes) for kind in binary}))})",
        "imgmatch_hash_types_text()": _text(" or ".join(map(_text, KINDS))),
        "imgmatch_width_text()": _text(
            ", ".join(f"a {kind.name} is a BLOB of {kind.n_bytes} bytes" for kind in binary)
        ),
        "imgmatch_chars_text()": _text(", ".join(f"{kind.name} has {kind.n_chars}" for kind in by_length)),
        "imgmatch_near_text()": _text(" or ".join(f"{kind.near_radius} of {kind.name}" for kind in numbers_first)),
    }
    return "\n".join(f"CREATE OR REPLACE MACRO {call} AS\n    {body};" for call, body in macros.items()) + "\n"


def _case(kinds: Iterable[HashKind], value: Callable[[HashKind], object]) -> str:
    return "CASE hash_type" + "".join(f" WHEN {_text(kind.name)} THEN {value(kind)}" for kind in kinds)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def digest() -> str:
    """Return a digest of the macros, 16 hex digits, which differs between versions and sets of hash kinds."""
    text = "\0".join(map(read_sql, FILES))
    return blake2b(text.encode(), digest_size=8).hexdigest()


def install(connection: "DuckDBPyConnection", *, key: str = "source") -> None:
    """Create or replace the macros in the database that `connection` uses.

    Macros find tables when they run, so tables need not exist now. A file needs storage version v1.4.0 or later.

    Parameters
    ----------
    connection
        A connection that may write.
    key
        Default ``id`` of the macros: the column that identifies rows.
    """
    default = f"id := {_text(key)}"
    for name in FILES:
        # Comments are dropped, because a line break in a key would end one.
        lines = [line for line in read_sql(name).splitlines() if not line.lstrip().startswith("--")]
        connection.execute("\n".join(lines).replace(_DEFAULT_KEY, default))
