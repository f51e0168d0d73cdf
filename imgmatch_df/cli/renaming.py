"""Column names while a command computes and in its output, so that no new column replaces one of the table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from imgmatch_df.columns import REMOVED_RECORDS
from imgmatch_df.errors import ColumnError

# Prefix of the columns of the table whose names new columns use meanwhile.
ASIDE: Final = "__imgmatch_aside_"


@dataclass(frozen=True, slots=True)
class Naming:
    """Column names while a command computes, and in its output.

    Parameters
    ----------
    prefix, suffix
        Prefix and suffix of the new columns in the output.
    added
        Names of the new columns, without prefix and suffix.
    given
        Columns with hashes in a foreign form: their temporary names, and the names of the hashes read from them, which
        they replace in the output.
    dropped
        Columns that are not written.
    """

    prefix: str = ""
    suffix: str = ""
    added: tuple[str, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()

    @property
    def has_affixes(self) -> bool:
        """Whether the new columns have a prefix or suffix."""
        return bool(self.prefix or self.suffix)

    def check(self, names: Iterable[str]) -> None:
        """Refuse new columns with the name of a column of the table.

        Raises
        ------
        ColumnError
            Before anything is hashed.
        """
        names = set(names)
        taken = [name for name in map(self._output_name, self.added) if name in names]
        if taken:
            several = len(taken) > 1
            raise ColumnError(
                f"the table has {'columns' if several else 'a column'} {', '.join(map(repr, taken))} already, and this "
                f"command adds {'columns of these names' if several else 'one of that name'}\n"
                "Hint: --prefix or --suffix renames the new columns, as in --prefix imgmatch_."
            )

    def aside(self, name: str) -> str:
        """Return the temporary name of a column of the table, which differs if a new column has its name."""
        return f"{ASIDE}{name}" if name in self.added else name

    def only_input(self, frame: pl.LazyFrame, order: Sequence[str]) -> pl.LazyFrame:
        """Return the rows of a table without new columns.

        Parameters
        ----------
        frame
            The rows with new columns.
        order
            Columns of the table, in order; other columns of `frame` come after them.
        """
        place = {name: number for number, name in enumerate(order)}

        def number_of(name: str) -> int:
            while name not in place and "." in name:  # a field of a struct
                name = name.rpartition(".")[0]
            return place.get(name, len(place))

        own = [str(name) for name in frame.collect_schema() if name not in {*self.added, *self.dropped}]
        own.sort(key=number_of)
        return frame.select(own)

    def restore(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Return a result with the names of the output, also in nested rows."""
        schema = frame.collect_schema()
        removed = schema.get(REMOVED_RECORDS)
        fields = self._fields(schema)
        exprs = [pl.col(source).alias(name) for name, source in fields.items()]
        nested = self._output_name(REMOVED_RECORDS)
        if REMOVED_RECORDS in self.added and isinstance(removed, pl.List) and isinstance(removed.inner, pl.Struct):
            inner = self._fields(removed.inner.to_schema())
            if any(name != source for name, source in inner.items()) or len(inner) < len(removed.inner.fields):
                record = pl.struct(pl.element().struct.field(source).alias(name) for name, source in inner.items())
                exprs = [
                    pl.col(REMOVED_RECORDS).list.eval(record).alias(name) if name == nested else expr
                    for name, expr in zip(fields, exprs, strict=True)
                ]
        return frame.select(exprs)

    def _fields(self, schema: Mapping[str, Any]) -> dict[str, str]:
        """Return the columns of the output: their names in the output, and in the result."""
        given = {name: other for other, name in self.given.items() if other in schema}
        return {
            own_name(self._output_name(name)): given.get(name, name)
            for name in schema
            if name not in self.given and name not in self.dropped
        }

    def _output_name(self, name: str) -> str:
        return f"{self.prefix}{name}{self.suffix}" if name in self.added else name


def own_name(name: str) -> str:
    """Return the name of a column in the table of the user."""
    return name.removeprefix(ASIDE)


UNCHANGED: Final = Naming()
