"""The command `imgmatch leaks`."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import polars as pl

from imgmatch_df.cli import display, inputs, outputs, runs, storing
from imgmatch_df.cli.arguments import (
    FlatOption,
    HashColumn,
    HashTypeOption,
    LabelColumn,
    MaxLeakage,
    MaxPairs,
    MinVotes,
    NearRadius,
    Out,
    SourceOption,
    SplitNames,
    SplitSources,
    Turns,
    WithinSplits,
)
from imgmatch_df.cli.exit_codes import Tally, reported, say
from imgmatch_df.cli.formats import fit_columns
from imgmatch_df.cli.given_sources import GivenSources
from imgmatch_df.cli.lists import STDIN
from imgmatch_df.cli.outputs import interruptible
from imgmatch_df.cli.source_options import source_options, split_names
from imgmatch_df.cli.split_sources import group_sources, group_text
from imgmatch_df.cli.tables import SourceTable, is_table
from imgmatch_df.columns import (
    DETAIL,
    LEAK_ID,
    N_LEAKED,
    N_ROWS,
    OTHER_ID,
    OTHER_SPLIT,
    ROW_DTYPE,
    SHARE,
    SOURCE,
    SPLIT,
    STATUS,
)
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames import leak_counts
from imgmatch_df.frames import leaks as verbs
from imgmatch_df.frames.checks import shown_names
from imgmatch_df.frames.flat import check_flat
from imgmatch_df.frames.pairs import MAX_PAIRS
from imgmatch_df.hashes.kinds import BMH1, KINDS, HashKind, hash_kind
from imgmatch_df.naming import ROW, source_text, source_texts
from imgmatch_df.options import SourceOptions, make_options
from imgmatch_df.store.base import is_store

_LABEL: Final = "__imgmatch_label"


class _Split(NamedTuple):
    """A split: its opened sources, its hashed rows as a query, and the column of labels in it."""

    table: SourceTable
    hashed: pl.LazyFrame


def leaks(
    sources: SplitSources,
    out: Out = None,
    names: SplitNames = None,
    radius: NearRadius = None,
    hash_type: HashTypeOption = None,
    column: HashColumn = None,
    min_votes: MinVotes = None,
    turns: Turns = None,
    flat: FlatOption = None,
    label: LabelColumn = None,
    max_leakage: MaxLeakage = 0.0,
    within_splits: WithinSplits = False,
    max_pairs: MaxPairs = MAX_PAIRS,
    source: SourceOption = None,
    **given: Any,
) -> None:
    """Find images of one split of a data set that are near-duplicates of images of another split.

    Example: imgmatch leaks train.parquet test.parquet --source image --label label -o leaks.csv

    Shards of one split, such as train-00000-of-00002.parquet, belong together. Exit code 0: no split leaks more than
    --max-leakage; 3: one does, also where rows failed; 1: some rows failed and leak nothing; 2: wrong call.
    """
    store = given["store"]
    with reported(kept=storing.kept_text(store)):
        store = storing.check_names(store, out=out)
        form = outputs.open_target(out)
        options = source_options(given)
        if form is outputs.DOCUMENTED:
            raise ArgumentError("the documented .json has no leaks\nHint: -o writes a .csv or a .parquet.")
        if not 0 <= max_leakage <= 1:
            raise ArgumentError(
                f"--max-leakage must be a share from 0 to 1, got {max_leakage:g}\nHint: 0.01 is one row of a hundred."
            )
        given_sources = _checked_sources(sources)
        groups = {
            name: given_sources.alike(group)
            for name, group in group_sources(given_sources, split_names([names]) if names is not None else ()).items()
        }
        tables = _open_splits(groups, source, given["base_dir"], hash_type, column, store)
        kind = hash_kind(hash_type or _common_kind(list(tables.values())))
        if hash_type is None:  # now that the kind is known, its columns must be readable
            again = {name: groups[name] for name, table in tables.items() if table.stored[:1] not in ((), (kind.name,))}
            tables |= _open_splits(again, source, given["base_dir"], kind.name, column, store)
        for table in tables.values():
            inputs.say_blocked(table, options)
        _check_comparable(groups, tables, kind, options)
        if radius is None and not kind.by_votes:
            radius = kind.near_radius
        guards = flat is None or check_flat(flat)
        splits = {name: _hashed(name, table, kind, label, options) for name, table in tables.items()}

        def find(frames: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
            return verbs.find_leaks(
                frames,
                radius,
                kind.name,
                min_votes=min_votes,
                label=None if label is None else _LABEL,
                within_splits=within_splits,
                flat="identical" if guards else "match",
                max_pairs=max_pairs,
                turns=turns,
                progress=options["progress"],
            )

        # First without rows, so that errors of the call are raised before hours of hashing.
        nothing = find({name: split.hashed.collect_schema().to_frame() for name, split in splits.items()})
        fitted = None if form is None else fit_columns(nothing.schema, form)
        if fitted is not None and form is not None:
            inputs.say_lost(fitted, form)
        for name, group in groups.items():
            if len(group) > 1:
                say(f"split {name}: {group_text(group)}")
        with outputs.written_whole(out, sys.stdout.buffer) as target:
            rows = {
                name: inputs.collect(split.hashed, split.table, kind, shown=options["progress"])
                for name, split in splits.items()
            }
            found = interruptible(lambda: find(rows))
            if form and fitted is not None:
                named = _named(found, rows, splits).lazy().select(list(fitted.columns.values()))
                outputs.write_table(named, target, form)
        counts = leak_counts.count_leaks(found, rows)
        tally = _tally(rows, splits, kind)
        if out is not None or not form:
            pairs = f"{found.height:,} pair{'s' * (found.height != 1)} of near-duplicates"
            within = "" if radius is None else f" within {radius} bits"
            say(
                f"{pairs} among {len(rows)} splits, by {kind.name}{within}; failed {tally.n_failed:,}",
                err=False,
            )
            failed = {name: part[kind.name].null_count() for name, part in rows.items()}
            display.show_leak_matrix(counts, failed, has_labels=label is not None)
            texts = {name: source_texts(part, splits[name].table.label) for name, part in rows.items()}
            display.show_worst_leaks(found, texts)
        if not form:
            for name, split in splits.items():
                inputs.say_store(split.table, inputs.compared_kinds(split.table, kind), rows[name].height)
        runs.current().counts = {
            "n_leaked": int(counts.filter(pl.col(OTHER_SPLIT).is_null())[N_LEAKED].sum()),
            "n_pairs": found.height,
        }
        above = counts.filter(pl.col(OTHER_SPLIT).is_null() & (pl.col(SHARE) > max_leakage))
        _finish(tally, above, max_leakage, is_whole=not any(table.unlisted for table in tables.values()))


def _checked_sources(sources: list[str]) -> GivenSources:
    found = GivenSources.of(sources)
    if found.files_from is not None or STDIN in found:
        raise ArgumentError(
            "a split is not read from --files-from or standard input\nHint: save each list as a .txt, and name them."
        )
    found.check()
    return found


def _open_splits(
    groups: Mapping[str, GivenSources],
    source: str | None,
    base_dir: str | None,
    hash_type: str | None,
    column: str | None,
    store: str | None,
) -> dict[str, SourceTable]:
    """Return the sources of each split; options about tables apply to the splits that are tables."""
    # A store has its hashes, and images have no columns.
    have_columns = {name: is_table(group) and not any(map(is_store, group)) for name, group in groups.items()}
    tables = {}
    for name, group in groups.items():
        applies = have_columns[name] or not any(have_columns.values())
        tables[name] = inputs.open_table(
            group,
            source if applies else None,
            base_dir if applies else None,
            "remove_duplicates",
            hash_type,
            column=column,
            needs_column=applies,
            of=f" of {name}",
            store=store,
        )
    return tables


def _common_kind(tables: Sequence[SourceTable]) -> str:
    """Return the first hash kind that all splits with hashes have; that of the first of them where there is none."""
    stored = [table.stored for table in tables if table.stored]
    common = [name for name in KINDS if stored and all(name in names for names in stored)]
    requested = [table.request.hash_type for table in tables if table.request is not None]
    return (*common, *(names[0] for names in stored), *(name for name in requested if name), BMH1.name)[0]


def _check_comparable(
    groups: Mapping[str, list[str]], tables: Mapping[str, SourceTable], kind: HashKind, options: SourceOptions
) -> None:
    """Refuse splits whose hashes were made with different options."""
    recipe = make_options(**options).recipe
    for name, table in tables.items():
        if table.manifest is not None and kind.name in table.stored:
            for other in tables.values():
                table.manifest.check_comparable(kind, other.recipe(kind, recipe), repr(groups[name][0]))


def _hashed(name: str, table: SourceTable, kind: HashKind, label: str | None, options: SourceOptions) -> _Split:
    """Return a split with a query for the columns that are compared and shown."""
    if label is not None and label not in table.columns:
        raise ColumnError(
            f"no column {label!r} in split {name!r}, it has {shown_names(dict.fromkeys(table.columns))}\n"
            "Hint: --label names the column of classes of every split; leave it out if one has none."
        )
    if label is not None:
        table = replace(table, frame=table.frame.with_columns(pl.col(label).alias(_LABEL)))
    return _Split(*inputs.hash_compared(table, inputs.compared_kinds(table, kind), options, [_LABEL]))


def _named(found: pl.DataFrame, rows: Mapping[str, pl.DataFrame], splits: Mapping[str, _Split]) -> pl.DataFrame:
    """Return the leaks with names of rows in the place of their numbers, where the rows of a split have names."""
    columns = {name: inputs.naming_column(part, splits[name].table) for name, part in rows.items()}
    unnamed = [name for name, column in columns.items() if column is None]
    if unnamed:
        say(f"rows without a name are identified by their number, from 0: {', '.join(unnamed)}")
    if len(unnamed) == len(rows):
        return found
    ids = pl.concat(
        pl.DataFrame(
            {
                SPLIT: pl.repeat(name, part.height, dtype=pl.String, eager=True),
                LEAK_ID: pl.int_range(part.height, dtype=ROW_DTYPE, eager=True),
                ROW: (pl.int_range(part.height, eager=True) if column is None else part[column]).cast(pl.String),
            }
        )
        for (name, part), column in zip(rows.items(), columns.values(), strict=True)
    )
    for split, row in ((SPLIT, LEAK_ID), (OTHER_SPLIT, OTHER_ID)):
        texts = found.select(pl.col(split).cast(pl.String), row)
        named = texts.join(ids, left_on=[split, row], right_on=[SPLIT, LEAK_ID], how="left", maintain_order="left")
        found = found.with_columns(named[ROW].alias(row))
    return found


def _tally(rows: Mapping[str, pl.DataFrame], splits: Mapping[str, _Split], kind: HashKind) -> Tally:
    """Count the rows of all splits by status."""
    parts = []
    for name, part in rows.items():
        number = pl.format("row {} of {}", pl.int_range(pl.len()), pl.lit(name))
        text = pl.coalesce(source_text(part.schema, splits[name].table.label), number).alias(SOURCE)
        about = [pl.col(column).cast(pl.String) for column in (STATUS, DETAIL) if part.schema.get(column) == pl.String]
        if part.schema.get(STATUS) in (pl.Enum, pl.Categorical):
            about.append(pl.col(STATUS).cast(pl.String))
        parts.append(part.select(text, kind.name, *about))
    return Tally.of(pl.concat(parts, how="diagonal"), kind, SOURCE)


def _finish(tally: Tally, above: pl.DataFrame, max_leakage: float, *, is_whole: bool) -> None:
    """Exit with 3 if a split leaks too much, also where rows failed: more rows could only leak more."""
    for split, n_leaked, n_rows, share in above.select(SPLIT, N_LEAKED, N_ROWS, SHARE).iter_rows():
        say(
            f"{n_leaked:,} of {n_rows:,} rows of {split} leak ({display.share_text(share)}), more than --max-leakage "
            f"{max_leakage:g}"
        )
    tally.finish(is_whole=is_whole, is_found=not above.is_empty())
