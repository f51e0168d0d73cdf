"""The columns of a verb's result: names that collide with none of the user's, and one order for all verbs."""

from collections.abc import Collection, Container, Iterable, Mapping
from typing import Any, Final, NamedTuple

import polars as pl

from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.hashes.kinds import KINDS

_HINT = "prefix= or suffix= renames the new columns; or rename or drop yours."


class Affixes(NamedTuple):
    """What stands before and after the names of the columns that a call adds.

    Parameters
    ----------
    prefix, suffix
        Text; empty by default.
    """

    prefix: str = ""
    suffix: str = ""

    @classmethod
    def make(cls, prefix: object, suffix: object) -> "Affixes":
        """Return the affixes of a call, checked.

        Raises
        ------
        ArgumentError
            If one is not a str.
        """
        for name, value in (("prefix", prefix), ("suffix", suffix)):
            if not isinstance(value, str):
                raise ArgumentError(f"{name} must be a str, got {value!r:.80}\nHint: leave it out for plain names.")
        return cls(str(prefix), str(suffix))

    def name_of(self, name: str) -> str:
        """Return the name of the new column that is called `name` where there are no affixes."""
        return f"{self.prefix}{name}{self.suffix}"

    def add(self, names: Iterable[str], schema: Mapping[str, Any], hint: str = _HINT) -> dict[str, str]:
        """Return the names of new columns, by their plain names.

        Raises
        ------
        ColumnError
            If the frame has a column of such a name: a verb never replaces a column of the user's.
        """
        added = {name: self.name_of(name) for name in names}
        taken = [name for name in added.values() if name in schema]
        if taken:
            shown = ", ".join(map(repr, taken))
            raise ColumnError(
                f"the frame already has {'a column' if len(taken) == 1 else 'columns'} {shown}, and this call adds "
                f"{'one of that name' if len(taken) == 1 else 'columns of these names'}\nHint: {hint}"
            )
        return added


NO_AFFIXES: Final = Affixes()


def free_name(names: Container[str]) -> str:
    """Return a name for a temporary column, which is not one of `names`."""
    name = "__imgmatch"
    while name in names:
        name += "_"
    return name


def arranged(new: Iterable[str], schema: Mapping[str, Any], made: Collection[str] = ()) -> list[str]:
    """Return the columns of a result in order: the new ones, those of the frame, and the hashes last.

    A hash fills the width of a notebook or terminal: behind it, the new columns would not be seen.

    Parameters
    ----------
    new
        Columns that the verb adds, in order.
    schema
        Columns of the hashed frame, without `new`.
    made
        Those of them that are hashes under other names.
    """
    hashes = {name for name, dtype in schema.items() if name in made or is_hash(name, dtype)}
    return [*new, *(name for name in schema if name not in hashes), *(name for name in schema if name in hashes)]


def is_hash(name: str, dtype: Any) -> bool:
    """Return whether a column holds hashes, by its name and dtype."""
    return name in KINDS and KINDS[name].holds(dtype)


def without_bytes(expr: pl.Expr, dtype: Any) -> tuple[pl.Expr, Any] | None:
    """Return an expression without its `Binary` parts, such as encoded images, and its dtype; None if nothing is left.

    Parameters
    ----------
    expr
        A column, or what it is nested in.
    dtype
        Its dtype.
    """
    if dtype in (pl.Binary, pl.Object):
        return None
    if isinstance(dtype, pl.Struct):
        parts = {field.name: without_bytes(expr.struct.field(field.name), field.dtype) for field in dtype.fields}
        left = {name: part for name, part in parts.items() if part is not None}
        if len(left) == len(parts) and all(left[field.name][1] == field.dtype for field in dtype.fields):
            return expr, dtype
        if not left:
            return None
        struct = pl.struct(part.alias(name) for name, (part, _) in left.items())
        # A null struct stays null, and does not become one of nulls.
        inner = pl.Struct({name: part_dtype for name, (_, part_dtype) in left.items()})
        return pl.when(expr.is_not_null()).then(struct), inner
    if isinstance(dtype, pl.List | pl.Array):
        found = without_bytes(pl.element(), dtype.inner)
        if found is None or found[1] == dtype.inner:
            return None if found is None else (expr, dtype)
        values = expr.arr.to_list() if isinstance(dtype, pl.Array) else expr
        return values.list.eval(found[0]), pl.List(found[1])
    return expr, dtype
