"""The SQL macros of `sql/`, which a store carries so that every DuckDB shell can query its hashes."""

from collections.abc import Mapping
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from imgmatch_df.hashes.kinds import DEFAULT_HASH_TYPES, KINDS, MAX_WIDTH_BYTES, HashKind, hash_kinds
from imgmatch_df.hashes.turns import TurnGrid

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Each file uses only macros of the files before it.
FILES: Final = (
    "hashes",
    "near_duplicates",
    "rank_images",
    "duplicate_clusters",
    "copies",
    "matches",
    "radius_profile",
    "remove_duplicates",
    "help",
)

_DEFAULT_KEY: Final = "id := 'source'"
_BEGIN: Final = "-- hash kinds: begin\n"
_END: Final = "-- hash kinds: end\n"
_LINE: Final = "\n        "


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
    votes = ", ".join(_text(kind.name) for kind in kinds if kind.by_votes)
    n_bits_of_width: dict[int, int] = {}
    for kind in kinds:
        n_bits_of_width[kind.n_chars] = max(kind.n_bits, n_bits_of_width.get(kind.n_chars, 0))
    widths = sorted({kind.n_bytes for kind in kinds if not kind.is_number})
    near = sorted(hash_kinds(DEFAULT_HASH_TYPES), key=lambda kind: not kind.is_number)
    macros = {
        "imgmatch_hash_types()": "[" + ",".join(f"{_LINE}{_text(name)}" for name in KINDS) + "\n    ]",
        "imgmatch_vote_types()": f"[{votes}]::VARCHAR[]",
        "imgmatch_hash_form(hash_type)": _case(
            "hash_type", {_text(kind.name): "'number'" if kind.is_number else "'bytes'" for kind in kinds}, "'other'"
        ),
        "imgmatch_n_chars(hash_type)": _case("hash_type", {_text(kind.name): kind.n_chars for kind in kinds}, "NULL"),
        "imgmatch_max_radius(hash_type)": _case(
            "hash_type", {_text(kind.name): kind.n_bits for kind in kinds}, 8 * MAX_WIDTH_BYTES
        ),
        "imgmatch_max_radius_of_bits(n_chars)": _case("n_chars", n_bits_of_width, "n_chars"),
        "imgmatch_is_hash_width(n_bytes)": f"n_bytes IN ({', '.join(map(str, widths))})",
        "imgmatch_width_text()": _text(f"a hash is a BLOB of {_either(widths)} bytes"),
        "imgmatch_chars_text()": _text(f"hashes have {_either(sorted(n_bits_of_width))} characters"),
        "imgmatch_flat_counts(hash_type)": _case(
            "hash_type", {_text(kind.name): str(_flat_counts(kind)) for kind in kinds if kind.flat_hashes}, "[]"
        ),
        "imgmatch_turn_grid(hash_type)": _case(
            "hash_type", {_text(kind.name): _grid(kind.turn_grid) for kind in kinds if kind.turn_grid}, "NULL"
        ),
        "imgmatch_near_text()": _text(" or ".join(f"{kind.near_radius} of {kind.name}" for kind in near)),
    }
    return "\n".join(f"CREATE OR REPLACE MACRO {call} AS\n    {body};" for call, body in macros.items()) + "\n"


def _grid(grid: TurnGrid) -> str:
    frequency = "NULL::INTEGER" if grid.lowest_frequency is None else grid.lowest_frequency
    return f"{{'side': {grid.side}, 'bit_order': {_text(grid.bit_order)}, 'frequency': {frequency}}}"


def _flat_counts(kind: HashKind) -> list[int]:
    """Return the numbers of set bits of the flat hashes of a kind, none or all."""
    counts = [(one if isinstance(one, int) else int.from_bytes(one)).bit_count() for one in kind.flat_hashes]
    return [count for count in counts if count in (0, kind.n_bits)]


def _case(value: str, results: Mapping[Any, object], default: object) -> str:
    whens = "".join(f"{_LINE}WHEN {key} THEN {result}" for key, result in results.items())
    return f"CASE {value}{whens}{_LINE}ELSE {default}\n    END"


def _either(numbers: list[int]) -> str:
    """Return numbers as they stand in a sentence: "8, 16 or 32"."""
    *others, last = map(str, numbers)
    return f"{', '.join(others)} or {last}" if others else last


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
    defaults = {_DEFAULT_KEY: default, _text(_DEFAULT_KEY)[1:-1]: _text(default)[1:-1]}  # in code, and in texts
    for name in FILES:
        # Comments are dropped, because a line break in a key would end one.
        lines = [line for line in read_sql(name).splitlines() if not line.lstrip().startswith("--")]
        text = "\n".join(lines)
        for wanted, replacement in defaults.items():
            text = text.replace(wanted, replacement)
        connection.execute(text)
