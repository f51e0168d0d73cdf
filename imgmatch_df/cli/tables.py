"""Input files, folders and globs as lazy frames of sources or hashes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import polars as pl
from polars.io.plugins import register_io_source

from imgmatch_df.cli.expanding import IMAGES, LIST, STORE, check_options, existing, expand, root_of
from imgmatch_df.cli.given_sources import GivenSources
from imgmatch_df.cli.input_formats import INPUT_FORMATS
from imgmatch_df.cli.lake_tables import DELTA  # noqa: F401  # registers these formats
from imgmatch_df.cli.lists import SourceList
from imgmatch_df.cli.table_files import check_encoding, is_list, scan_table
from imgmatch_df.columns import DETAIL, ETAG, HEIGHT, PATH, QUALITY, SIZE, SOURCE, STATUS, WIDTH
from imgmatch_df.documented import requests, values
from imgmatch_df.documented.values import Method, radius_from_range
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames import ranking
from imgmatch_df.frames.given_hashes import read_given
from imgmatch_df.frames.hugging_face import Features, read_features, without_extensions
from imgmatch_df.hashes.kinds import BMH1, KINDS, HashKind, hash_kind
from imgmatch_df.image_columns import holds_bytes, holds_sources, image_sources, is_image_struct, text_of
from imgmatch_df.images.exclusion import Rules
from imgmatch_df.images.folders import LeftOut, exclusion_of
from imgmatch_df.images.scan import list_images
from imgmatch_df.options import Recipe
from imgmatch_df.sources import url_of
from imgmatch_df.store.base import store_suffixes
from imgmatch_df.store.manifest import Manifest
from imgmatch_df.store.open import manifest_of, scan_hashes

# Common names of columns of images, the most specific first.
_SOURCE_NAMES: Final = (
    *(values.URL, PATH, "file", "image", "_url", "file_name", "filename", "file_path", "filepath"),
    *("image_path", "image_url", "img", "photo", "picture", "source", "src", "uri"),
)
_NOT_SOURCES: Final = (STATUS, DETAIL, ETAG, values.ID, values.RECORD)
_NAME: Final = "__imgmatch_name"  # column of the names of these images
_GIVEN: Final = "__imgmatch_given_"

# Rows hashed at a time. Polars ends a query only between batches: this limits the wait after an error or a closed pipe
# to about a second, and is not slower, because several batches are hashed at once.
BATCH_ROWS: Final = 256
# More rows with URLs at a time: a batch ends with the response of its slowest server.
_URL_BATCH_ROWS: Final = 8192
_SAMPLED_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class SourceTable:
    """Sources, or hashes, read from files.

    Parameters
    ----------
    frame
        One row per source, with all columns of the input.
    source
        Name of the column of sources; None only for hashes without such a column.
    stored
        Hash kinds whose columns are in the input, if the command uses them.
    request
        The documented request of the rows, or None.
    batch_rows
        Number of rows to hash at a time.
    manifest
        Manifest of the store of the rows, or None.
    unlisted
        Folders that cannot be listed, each with the reason. Their images are missing.
    left_out
        Numbers of files and folders that are left out, by reason and suffix.
    name
        Column of `frame` that is not in the input and names the images of `source`, or None.
    read_as
        Column of `frame` that is not in the input and has the hashes of a column of another name, or None.
    given
        Columns of `frame` with hashes in the foreign form of the input, and the names of the hash columns that were
        read from them.
    store
        Store of --store, which keeps the hashes of the rows, or None.
    features
        Hugging Face features of the input, or None.
    given_sources
        The arguments that name the files.
    """

    frame: pl.LazyFrame
    source: str | None
    stored: tuple[str, ...] = ()
    request: requests.Request | None = None
    batch_rows: int = BATCH_ROWS
    manifest: Manifest | None = None
    unlisted: tuple[str, ...] = ()
    left_out: Mapping[LeftOut, int] = field(default_factory=dict)
    name: str | None = None
    read_as: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    store: str | None = None
    features: Features | None = None
    given_sources: GivenSources = field(default_factory=GivenSources)

    @property
    def columns(self) -> list[str]:
        """Columns of the input."""
        hidden = {*self.given, self.name, self.read_as}
        return [name for name in self.frame.collect_schema() if name not in hidden]

    @property
    def label(self) -> str | None:
        """Column of `frame` that identifies images in messages, if there is one."""
        return self.name or self.source

    @property
    def carrier(self) -> str:
        """Column of sources, or its default name."""
        return values.URL if self.source is None else self.source

    @property
    def id_column(self) -> str | None:
        """Column that identifies rows; None where their numbers do."""
        if self.request is not None:
            return values.ID
        if self.name is not None or self.source is None:
            return self.name
        return self.source if self.frame.collect_schema()[self.source] == pl.String else None

    def kind(self, name: str | None) -> HashKind:
        """Return the hash kind to compare by: `name`, or that of the request, of the hashes in the input, or bmh1."""
        if name is None and self.request is not None:
            name = self.request.hash_type
        return hash_kind(name or (*self.stored, BMH1.name)[0])

    def recipe(self, kind: HashKind, wanted: Recipe) -> Recipe | None:
        """Return the recipe of the hashes of `kind`: that of the store, `wanted` for new ones, None if unknown."""
        if kind.name not in self.stored:
            return wanted
        return None if self.manifest is None else self.manifest.recipe

    def radius(self, kind: HashKind) -> int:
        """Return the `range` of a request as a radius in bits of `kind`; 0 without one."""
        range_ = None if self.request is None else self.request.range
        return 0 if range_ is None else radius_from_range(range_, kind.name)


def open_sources(
    sources: Sequence[str],
    source: str | None = None,
    *,
    base_dir: str | None = None,
    method: Method = "visual_hash",
    hash_type: str | None = None,
    query: str | None = None,
    column: str | None = None,
    needs_column: bool = True,
) -> SourceTable:
    """Return the sources of files, folders or globs as a lazy frame.

    Images are listed at once, so that an error is raised before hashing if nothing matches; tables are read lazily.

    Parameters
    ----------
    sources
        Folders, images and globs of them; or tables of one kind (``.duckdb``, those of `INPUT_FORMATS`, ``.json`` also
        for documented requests), globs of them, or a folder with Parquet files and no images; or lists (``.txt``, ``-``
        for standard input). May be `GivenSources`, with options.
    source
        Column of sources in a table; None finds it by name or dtype.
    base_dir
        Only to refuse it without a table.
    method
        Purpose of the sources. ``"visual_hash"`` ignores hashes in a table; the other methods use them, also in the
        forms of `hashes.forms`.
    hash_type
        Hash kind to compare by; None for that of `query`, else the first in the table. Columns of other kinds may hold
        any values.
    query
        The query of a ranking, which may be a hash.
    column
        Column of a table with hashes of the kind `hash_type`; None for those with the name of a kind.
    needs_column
        Whether `column` must be in the table; otherwise it is ignored where it is not.

    Raises
    ------
    ArgumentError
        If nothing matches, a suffix is unknown, kinds are mixed, or an option does not apply.
    ColumnError
        If there is no such column, or the column of sources is not clear.

    Notes
    -----
    Columns of a CSV stay text, so that ``007`` is written unchanged and no late row has another type. In a table with
    hashes, width, height and size become numbers if all of their values are numbers.
    """
    if column is not None and hash_type is None:
        raise ArgumentError(
            f"--column {column} does not name the kind of its hashes\nHint: --hash-type names it: {', '.join(KINDS)}."
        )
    sources = GivenSources.of(sources)
    sources.check()
    rules = sources.rules()
    if sources.files_from is None:
        found = [expand(given, rules) for given in sources]
    else:
        found = [(LIST, [existing(sources.files_from)])]
    kinds = sorted({kind for kind, _ in found})
    if len(kinds) > 1:
        raise ArgumentError(
            f"sources must be of one kind, got {', '.join(kinds)}\nHint: run one command for each kind."
        )
    paths = [path for _, part in found for path in part]
    is_table = kinds[0] in INPUT_FORMATS and (kinds != [".json"] or all(map(is_list, paths)))
    if column is not None and not is_table and needs_column:
        raise ArgumentError(
            f"--column is for tables, the sources are {kinds[0]}\nHint: leave --column out: it names foreign hashes."
        )
    check_options(kinds[0], sources, rules, source, base_dir)
    if kinds == [IMAGES]:
        images, unlisted, left_out = list_images(paths, rules)
        return SourceTable(images.lazy(), PATH, unlisted=unlisted, left_out=left_out, given_sources=sources)
    if kinds == [LIST]:
        return _open_lists(paths, sources, rules)
    if kinds[0] in INPUT_FORMATS and INPUT_FORMATS[kinds[0]].is_text:
        for path in paths:
            check_encoding(path, kinds[0])
    if kinds == [".json"] and not is_table:
        return _open_requests(paths, source, method)
    roots = {root for root, part in zip(map(root_of, sources), found, strict=True) if part[1]}
    root = roots.pop() if len(roots) == 1 else ""
    if kinds[0] in (STORE, *store_suffixes()):
        return _open_stores(paths, source, takes_hashes=method != "visual_hash")
    frame = scan_table(paths, kinds[0], root)
    schema = frame.collect_schema()
    if column is not None and column not in schema:
        if needs_column:
            raise ColumnError(
                f"no column {column!r}, the table has {_shown(schema)}\nHint: --column names one of them."
            )
        column = None
    # A digest beside images does not replace their hashes, and the column may hold something else.
    wanted = [name for name, kind in KINDS.items() if kind.is_perceptual or name == hash_type]
    stored = tuple(name for name in wanted if method != "visual_hash" and name in schema)
    if column is not None and hash_type is not None:
        stored = (hash_kind(hash_type).name,)
    elif hash_type is None and query is not None:
        hash_type = query_kind(query, stored)
    return _open_table(frame, kinds[0], paths, source, stored, hash_type, column)


def is_table(sources: Sequence[str]) -> bool:
    """Return whether one of the sources is a table or a store, and not images."""
    rules = GivenSources.of(sources).rules()
    return any(expand(given, rules)[0] not in (IMAGES, LIST) for given in sources)


def query_kind(query: str, stored: Collection[str]) -> str | None:
    """Return the kind of the hash QUERY, first of the stored kinds; None where it is not a hash, or names a file.

    Raises
    ------
    ArgumentError
        If it may be a hash of several kinds.
    """
    try:
        kind = ranking.kind_of_query(query, stored, None)
    except ArgumentError as error:
        raise ArgumentError(str(error).replace("Hint: hash_type names", "Hint: --hash-type names")) from error
    return None if kind is None else kind.name


def _open_lists(paths: list[str], sources: GivenSources, rules: Rules) -> SourceTable:
    exclusion = exclusion_of(rules.exclude) if rules.exclude else None
    found = SourceList(paths, null=sources.null, exclusion=exclusion)
    batch_rows = _URL_BATCH_ROWS if found.has_urls(_SAMPLED_ROWS) else BATCH_ROWS
    frame = found.scan(batch_rows)
    return SourceTable(frame, SOURCE, batch_rows=batch_rows, left_out=found.left_out(), given_sources=sources)


def _open_table(
    frame: pl.LazyFrame,
    suffix: str,
    paths: list[str],
    source: str | None,
    stored: tuple[str, ...],
    hash_type: str | None,
    column: str | None,
) -> SourceTable:
    features = read_features(paths) if suffix == ".parquet" else None
    frame = frame if features is None else without_extensions(frame)
    schema = pl.Schema({name: dtype for name, dtype in frame.collect_schema().items() if name != column})
    name = _find_source(schema, source, needed=not stored)
    batch_rows = _batch_rows(frame, name)
    if suffix != ".parquet":
        frame = _in_batches(frame, batch_rows)
    frame, given = _with_hashes(frame, stored, hash_type, column)
    read_as = None if column is None or column in stored or stored[0] in schema else stored[0]
    table = SourceTable(
        frame, name, stored=stored, batch_rows=batch_rows, read_as=read_as, given=given, features=features
    )
    text = text_of(pl.col(name), schema[name]) if name is not None and schema[name].is_nested() else None
    return table if text is None else replace(table, frame=frame.with_columns(text.alias(_NAME)), name=_NAME)


def _open_stores(paths: list[str], source: str | None, *, takes_hashes: bool) -> SourceTable:
    if len(paths) > 1:
        raise ArgumentError(f"one store at a time, got {len(paths)}\nHint: run one command for each.")
    frame = scan_hashes(paths[0])
    schema = frame.collect_schema()
    stored = tuple(name for name in KINDS if takes_hashes and name in schema)
    # A store without this column has no names of images: its other columns of text are not names.
    name = SOURCE if source is None and SOURCE in schema else source
    return SourceTable(
        frame,
        name if stored and name is None else _find_source(schema, name, needed=not stored),
        stored=stored,
        manifest=manifest_of(paths[0]),
    )


def _with_hashes(
    frame: pl.LazyFrame, stored: tuple[str, ...], hash_type: str | None, column: str | None
) -> tuple[pl.LazyFrame, dict[str, str]]:
    """Return the table with its hashes in the dtype of their kind, and the columns that hold them in a foreign form.

    The hashes to compare must be readable. Another column that cannot be read in every row, such as a size of "XL" or
    hashes of another kind, stays unchanged. With `column`, that one has the hashes to compare.
    """
    schema = frame.collect_schema()
    compared = hash_type or (*stored, None)[0]
    read, given = [], {}
    for name in stored:
        if column not in (None, name):
            found = read_given(frame, KINDS[name], column)
            read.append((pl.col(column) if found is None else found.expr).alias(name))
            if name in schema:
                given[f"{_GIVEN}{name}"] = name
            continue
        try:
            found = read_given(frame, KINDS[name])
        except ColumnError:
            if name == compared:
                raise
            continue
        if found is None or not (found.is_ours or name == compared):
            continue
        read.append(found.expr)
        if not found.is_ours:
            given[f"{_GIVEN}{name}"] = name
    numbers = {
        name: pl.col(name).cast(dtype, strict=False)
        for name, dtype in ((WIDTH, pl.UInt32), (HEIGHT, pl.UInt32), (SIZE, pl.UInt64), (QUALITY, pl.UInt8))
        if any(schema[name] == pl.String for name in (stored if column is None else (column,)))
        and schema.get(name) == pl.String
    }
    # Formats of text hold a wider number; a column of that name may also be the user's own.
    if {WIDTH, HEIGHT, STATUS, QUALITY} <= set(schema) and (schema[QUALITY].is_integer() or QUALITY in numbers):
        numbers[QUALITY] = pl.col(QUALITY).cast(pl.UInt8, strict=False)
    if numbers:
        readable = {name: (number.is_not_null() | pl.col(name).is_null()).all() for name, number in numbers.items()}
        is_read = frame.select(**readable).collect(engine="streaming").row(0, named=True)
        read += [number for name, number in numbers.items() if is_read[name]]
    originals = [pl.col(name).alias(other) for other, name in given.items()]
    return frame.with_columns(*read, *originals), given


def _batch_rows(frame: pl.LazyFrame, source: str | None) -> int:
    dtype = None if source is None else frame.collect_schema()[source]
    if not holds_sources(dtype) or holds_bytes(dtype):
        return BATCH_ROWS
    first = frame.select(str(source)).head(_SAMPLED_ROWS).collect().to_series()
    return _URL_BATCH_ROWS if any(url_of(value) for value in image_sources(first)) else BATCH_ROWS


def _in_batches(frame: pl.LazyFrame, batch_rows: int) -> pl.LazyFrame:
    """Return the same rows in batches of `batch_rows`: Polars reads text in megabytes, which may be 100,000 paths."""

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        query = frame if n_rows is None else frame.head(n_rows)
        for part in query.collect_batches(chunk_size=batch_rows, maintain_order=True):
            for batch in part.iter_slices(batch_rows):
                found = batch if predicate is None else batch.filter(predicate)
                yield found if with_columns is None else found.select(with_columns)

    return register_io_source(batches, schema=frame.collect_schema(), is_pure=True)


def _open_requests(paths: list[str], source: str | None, method: Method) -> SourceTable:
    if source is not None:
        raise ArgumentError("--source is for tables, a request names its images itself\nHint: leave --source out.")
    found = [requests.read_request(Path(path), method) for path in paths]
    if len(found) == 1:
        return SourceTable(found[0].frame.lazy(), values.URL, request=found[0])
    if method != "visual_hash":
        raise ArgumentError(
            f"one request at a time, got {len(paths)}\nHint: each has its own hash_type and range; put their records "
            "into one."
        )
    hash_types = tuple(dict.fromkeys(name for request in found for name in request.hash_types))
    rows = [row for request in found for row in request.rows]
    joined = replace(found[0], rows=rows, hash_types=hash_types)
    return SourceTable(joined.frame.lazy(), values.URL, request=joined)


def _find_source(schema: pl.Schema, source: str | None, *, needed: bool) -> str | None:
    if source is not None:
        if source not in schema:
            raise ColumnError(
                f"no column {source!r}, the table has {_shown(schema)}\nHint: --source names one of them."
            )
        return source
    usable = [
        name
        for name, dtype in schema.items()
        if name not in (*KINDS, *_NOT_SOURCES) and (dtype in (pl.String, pl.Binary) or _is_of_images(dtype))
    ]
    holding = [name for name in usable if _is_of_images(schema[name])]
    if len(holding) == 1:  # other columns of text may describe these images
        return holding[0]
    named = [name for name in _SOURCE_NAMES if name in usable]
    if named:
        return named[0]
    if len(usable) == 1:
        return usable[0]
    if not needed:
        return None
    raise ColumnError(
        f"the column of images is not clear, the table has {_shown(schema)}\nHint: name it with --source."
    )


def _shown(schema: pl.Schema, n_columns: int = 20) -> str:
    shown = [f"{name} ({dtype})" for name, dtype in list(schema.items())[:n_columns]]
    return ", ".join(shown) + ", …" * (len(schema) > n_columns) if shown else "no columns"


def _is_of_images(dtype: pl.DataType) -> bool:
    return is_image_struct(dtype) or (dtype.is_nested() and holds_bytes(dtype))
