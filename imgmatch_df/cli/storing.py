"""The option --store: hashes that a command keeps in a store, so that the next command does not compute them again."""

import os
from typing import Final

import polars as pl

from imgmatch_df.cli import runs
from imgmatch_df.cli.display import stored_text
from imgmatch_df.cli.exit_codes import say
from imgmatch_df.cli.tables import SourceTable
from imgmatch_df.columns import MODIFIED, SIZE, SOURCE
from imgmatch_df.errors import ArgumentError, StoreError
from imgmatch_df.frames import expressions, writing
from imgmatch_df.frames.layout import arranged
from imgmatch_df.hashes.kinds import PDQ, STORED_HASH_TYPES, hash_kind, visual_hash_fields, with_measures
from imgmatch_df.image_columns import holds_bytes
from imgmatch_df.images.fingerprints import fingerprint
from imgmatch_df.options import Recipe, SourceOptions, make_options
from imgmatch_df.sources import url_of
from imgmatch_df.store.base import is_same_file, kind_of, locate
from imgmatch_df.store.open import manifest_of, open_store

_VISUAL_HASH: Final = "__imgmatch_visual_hash"


def kept_text(store: str | None, *, is_hashing: bool = False) -> str:
    """Return what an interrupted run leaves, for its message.

    Parameters
    ----------
    store
        Store of --store, or None.
    is_hashing
        Whether images are being hashed, whose hashes a store would keep.
    """
    if store is not None:
        return f"the hashes so far are in {store}"
    return "nothing was written" + "; --store hashes.duckdb keeps the hashes of an interrupted run" * is_hashing


def check_names(store: str | None, **others: str | None) -> str | None:
    """Return the value of --store; refuse the name of another file of the call.

    Parameters
    ----------
    store
        Value of --store, or None.
    **others
        Values of other options, by their names.

    Raises
    ------
    ArgumentError
        If the suffix is not that of a store, or another option names the same file.
    """
    if store is None:
        return None
    store = os.path.expanduser(store)  # noqa: PTH111  # it may be a URI
    try:
        kind_of(locate(store))
    except ArgumentError as error:
        raise ArgumentError(str(error).replace("target", "--store", 1)) from error
    for name, other in others.items():
        if other is not None and is_same_file(store, other):
            raise ArgumentError(
                f"--store and --{name} name one file, {store!r}\nHint: choose another name for the store."
            )
    return store


def check_keeps(store: str, table: SourceTable, kinds: tuple[str, ...], options: SourceOptions) -> None:
    """Refuse a store that cannot keep the hashes of `kinds` of a table, before hours of hashing.

    Raises
    ------
    ArgumentError, StoreError
        If the images have no names, or the store lacks a kind or was made with other options.
    """
    if table.request is not None:
        raise ArgumentError(
            "--store is for images and tables, SOURCE is a documented request\nHint: leave --store out."
        )
    source = table.source
    if source is None or table.label is None or holds_bytes(table.frame.collect_schema()[source]):
        raise ArgumentError(
            "--store needs paths or URLs of the images, and SOURCE holds the images themselves\n"
            f"Hint: imgmatch visual-hash SOURCE --key COLUMN -o {store} hashes them; COLUMN identifies the rows."
        )
    manifest = manifest_of(store, write=True)
    if manifest is None:
        return
    shown = f"--store {store!r}"
    if manifest.key != SOURCE or manifest.columns[SOURCE] != pl.String:
        raise StoreError(
            f"{shown} has the key {manifest.key!r}, and images are looked up by {SOURCE!r}\n"
            "Hint: choose another name for the store."
        )
    absent = [name for name in with_measures(kinds) if name not in manifest.image_columns]
    if absent:
        raise StoreError(
            f"{shown} has {', '.join(manifest.image_columns)}, but no {', '.join(absent)}\n"
            "Hint: choose another name, for a new store with all hashes that this command needs."
        )
    wanted = make_options(**options).recipe
    if PDQ.name not in manifest.hash_types:
        wanted = wanted._replace(pdq_variant=manifest.recipe.pdq_variant)
    for name, ours, theirs in zip(Recipe._fields, manifest.recipe, wanted, strict=True):
        if ours != theirs:
            option = f"--{name.replace('_', '-')}"
            hint = f"leave {option} out" if ours is None else f"pass {option} {ours}"
            raise StoreError(
                f"{shown} has hashes with {name}={ours!r}, this call has {name}={theirs!r}\n"
                f"Hint: {hint}, or choose another name for the store."
            )
    for name in kinds:
        manifest.check_comparable(hash_kind(name), None, shown)


def hash_through(table: SourceTable, store: str, kinds: tuple[str, ...], options: SourceOptions) -> pl.LazyFrame:
    """Return the query of `expressions.visual_hash` for the rows of a table, which takes known hashes from a store.

    When the query runs, it adds the hashes of new and changed images to the store.
    """
    source, fields = str(table.label), visual_hash_fields(with_measures(kinds))
    base = (
        pl.col(source)
        .map_batches(lambda sources: _look_up(sources, store, kinds, options), return_dtype=pl.Struct(fields))
        .alias(_VISUAL_HASH)
    )
    columns = [pl.col(_VISUAL_HASH).struct.field(name) for name in fields]
    schema = table.frame.collect_schema()
    hashes = {name: fields[name] for name in kinds}
    order = arranged([name for name in fields if name not in kinds], {**schema, **hashes}, hashes)
    return table.frame.with_columns(base).with_columns(columns).select(order)


def _look_up(sources: pl.Series, store: str, kinds: tuple[str, ...], options: SourceOptions) -> pl.Series:
    """Return the hashes of `sources`, after the new and changed ones are hashed and stored."""
    fields = list(visual_hash_fields(with_measures(kinds)))
    texts = sources.cast(pl.String).alias(SOURCE)
    images = texts.unique(maintain_order=True).to_frame()
    known = images.hstack(fingerprint(images[SOURCE], make_options(**options).base_dir))
    is_there = pl.col(SIZE).is_not_null() | pl.Series([url_of(text or "") is not None for text in images[SOURCE]])
    # A file that is not there now must not get the hashes that it had.
    there, others = known.filter(is_there), known.filter(~is_there).select(SOURCE)
    done = writing.write_hashes(
        there.select(SOURCE, SIZE, MODIFIED),
        store,
        source=SOURCE,
        key=SOURCE,
        hash_types=_kinds_of(store, kinds),
        retry_failed=True,
        **options,
    )
    say(stored_text(store, done))
    runs.current().add_output(store)
    with open_store(store) as opened:
        stored = opened.stored(there[SOURCE], [SOURCE, *fields])
    quiet: SourceOptions = {**options, "progress": False}
    failed = expressions.visual_hash(others, SOURCE, hash_types=kinds, **quiet)
    found = pl.concat([stored, failed.select(stored.columns)])
    rows = texts.to_frame().join(found, on=SOURCE, how="left", nulls_equal=True, maintain_order="left")
    return rows.select(pl.struct(fields)).to_series().alias(sources.name)


def _kinds_of(store: str, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """Return the hash kinds of a store; of a new one, `kinds` and those that are stored by default."""
    manifest = manifest_of(store)
    return tuple(dict.fromkeys((*kinds, *STORED_HASH_TYPES))) if manifest is None else manifest.hash_types
