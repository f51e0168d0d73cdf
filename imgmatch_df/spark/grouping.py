"""Calls of the verbs that cluster on Spark: their arguments, checked, and the cluster of each row."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from imgmatch_df.columns import (
    KEPT,
    LEFT_ID,
    QUALITY,
    QUERY_ID,
    REASON,
    REFERENCE_ID,
    REMOVED_RECORDS,
    RIGHT_ID,
)
from imgmatch_df.errors import ArgumentError, ColumnError, without_warnings
from imgmatch_df.frames import clustering as one_machine
from imgmatch_df.frames.checks import VerbCall
from imgmatch_df.frames.comparison import Comparison
from imgmatch_df.frames.criteria import check_comparison
from imgmatch_df.frames.flat import Guard
from imgmatch_df.frames.layout import Affixes, free_name
from imgmatch_df.frames.pairs import MAX_PAIRS
from imgmatch_df.hashes.kinds import SHA256, visual_hash_fields, with_measures
from imgmatch_df.spark import buckets, components, nodes, sizes
from imgmatch_df.spark.calls import check_blocks, check_row_names, empty_frame
from imgmatch_df.spark.inputs import compared, hashed_guard, with_expressions
from imgmatch_df.spark.nodes import ID, column
from imgmatch_df.spark.rules import PROTECT, RuleColumns
from imgmatch_df.spark.schemas import spark_dtype
from imgmatch_df.spark.sessions import check_frame
from imgmatch_df.spark.shared_points import decide_shared_points
from imgmatch_df.spark.tiles import Tiles, run_tiles
from imgmatch_df.spark.work import WorkFolder

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# Rows of a bucket: few enough for the memory of a task, and enough buckets for its cores.
MAX_BUCKET_ROWS: Final = 500_000
_FEW_BUCKETS: Final = 32
_FEW_ROWS: Final = 20_000

_RULES: Final = ("keep", "protect", "across", "within", "not_duplicates")


@dataclass(frozen=True)
class ClusterCall:
    """A call of a verb that clusters, checked before Spark does anything.

    Parameters
    ----------
    df
        The rows; with the images as a hidden column, where they are a Spark `Column`.
    id
        Column that names rows.
    comparison
        How rows are compared.
    hash, guard
        Columns of hashes, and of what shows which rows are flat, once they are there.
    names
        Columns of the result of the verb.
    record_names
        Fields of the removed records of the verb, if it has them.
    arguments
        All arguments, by their names.
    affixes
        Of new columns.
    made
        Columns that hashing adds, by their plain names; empty without a source.
    source
        Column of images.
    work, keeps
        The work folder, and whether it remains after the call.
    n_blocks
        Number of blocks, None for one that suits.
    reference_id
        Column that names the rows of the reference.
    """

    df: "DataFrame"
    id: str
    comparison: Comparison
    hash: str
    guard: Guard | None
    names: tuple[str, ...]
    record_names: tuple[str, ...]
    arguments: Mapping[str, Any]
    affixes: Affixes
    made: Mapping[str, str]
    source: str | None
    work: WorkFolder
    keeps: bool
    n_blocks: int | None
    reference_id: str | None

    @classmethod
    def check(cls, verb: Any, df: "DataFrame", radius: Any, hash_type: Any, **named: Any) -> "ClusterCall":
        """Return the call of a verb, whose function for one machine checks the arguments."""
        id = check_row_names(df, named["id"])
        _check_names(df, ())
        work_dir, n_blocks = named.pop("work_dir"), check_blocks(named.pop("n_blocks"))
        options, reference, reference_id = named.pop("options"), named["reference"], named.get("reference_id")
        if verb is one_machine.remove_duplicates:  # it shows no reference rows
            named.pop("reference_id")
            if reference is None and reference_id is not None:
                raise ArgumentError("reference_id has no effect without reference=\nHint: pass the reference rows.")
        if reference is not None:
            check_row_names(check_frame(reference, "reference"), reference_id, "reference_id")
        given = with_expressions(df, source=named["source"])
        source = given.arguments["source"]
        affixes = Affixes.make(named["prefix"], named["suffix"])
        fields = {} if source is None else visual_hash_fields(with_measures((hash_type,)))
        made = {name: affixes.name_of(name) for name in fields}
        rules = RuleColumns.of(
            _with_nulls(given.df, fields, made), **{name: named[name] for name in _RULES}, sizes=made
        )
        # Columns that hashing adds are not there yet for the verb.
        not_there = set(made.values()) - set(given.df.columns)
        there = rules.df.select(*(column(name) for name in rules.df.columns if name not in not_there))
        others = {name: value for name, value in named.items() if name not in (*_RULES, "source", "reference")}
        result = verb(
            empty_frame(there),
            radius,
            hash_type,
            **others,
            **rules.checked,
            not_duplicates=None if rules.not_duplicates is None else empty_frame(rules.not_duplicates),
            reference=None if reference is None else empty_frame(reference),
            source=source,
            **options,
        ).collect_schema()
        _check_names(df, result)
        rules.check_excluded(id)
        with without_warnings():  # the verb has warned
            comparison = check_comparison(hash_type, radius, named["min_votes"], named["turns"], default_radius=0)
        if source is None:
            call = VerbCall.check(
                empty_frame(df), comparison.kind, None, {}, column=named["column"], flat=named["flat"]
            )
            hash_name, guard = call.hash, call.guard
        else:
            hash_name, guard = made[comparison.kind.name], hashed_guard(comparison, named["flat"])[1]
            if guard is not None:
                guard = Guard(made[QUALITY], f"{free_name(dict.fromkeys((*df.columns, *made.values())))}_{SHA256.name}")
        hidden = {*rules.df.columns, *given.df.columns} - {*df.columns, *made.values()}
        return cls(
            given.df,
            id,
            comparison,
            hash_name,
            guard,
            tuple(name for name in result if name not in hidden),
            _record_names(result, affixes, hidden),
            {**named, "radius": radius, "options": options},
            affixes,
            made,
            source,
            WorkFolder.of(work_dir, df.sparkSession),
            work_dir is not None,
            n_blocks,
            reference_id,
        )

    def hidden(self, name: str) -> str:
        """Return a name that no column of the rows has."""
        return f"{free_name(dict.fromkeys((*self.df.columns, *self.names)))}_{name}"

    def id_column(self) -> "Column":
        """Return the column that names rows."""
        return column(self.id)

    def result_columns(self) -> "list[Column]":
        """Return the columns of the result, in order."""
        return [column(name) for name in self.names]

    def joined(self, rows: "DataFrame", found: "DataFrame", new: Mapping[str, str]) -> "DataFrame":
        """Return the rows that have a row in `found`, with columns of it under the names of `new`."""
        from pyspark.sql import functions as F  # noqa: N812

        own = self.hidden("id")
        side = found.select(F.col(ID).alias(own), *(F.col(name).alias(alias) for name, alias in new.items()))
        return rows.join(side, self.id_column() == F.col(own)).drop(own)

    def find(self, *, numbered: bool) -> "tuple[DataFrame, DataFrame]":
        """Return the rows with their hashes, and what `Bucket` finds of them: with `CLUSTER_ID`, where `numbered`."""
        rows = self._hashed()
        rules = RuleColumns.of(rows, **{name: self.arguments[name] for name in _RULES}, sizes=self.made)
        reference = self.arguments["reference"]
        if reference is None:
            return rows, self._cluster(rules.df, rules, numbered=numbered)
        matched = self._matched(rules)
        rest = rules.df.join(matched.select(column(ID).alias(self.hidden("id"))), self._named_by("id"), "left_anti")
        found = self._cluster(rest, rules, numbered=numbered)
        return rows, found.unionByName(matched, allowMissingColumns=True)

    def _named_by(self, name: str) -> "Column":
        return self.id_column() == column(self.hidden(name))

    def _cluster(self, given: "DataFrame", rules: RuleColumns, *, numbered: bool) -> "DataFrame":
        """Return what `Bucket` finds of rows, each step of which is written to the folder of the call."""
        spark, comparison = self.df.sparkSession, self.comparison
        needed = dict.fromkeys([self.id, self.hash, *_columns_of(self.guard), *rules.columns.values()])
        rows, survey, _ = compared(
            given.select(*map(column, needed)),
            comparison,
            id=self.id,
            hash_column=self.hash,
            guard=self.guard,
            further=rules.columns,
            with_checksum=self.keeps,
        )
        survey.warn_of_unknown()
        n_blocks = self.n_blocks or sizes.default_blocks(survey.n_hashes, comparison.kind, turns=comparison.directed)
        compares = {name: self.arguments[name] for name in ("radius", "min_votes", "turns", "flat")}
        mark = nodes.fingerprint("cluster", comparison.kind.name, compares, n_blocks, survey.checksum)
        work = self.work.folder(f"cluster-{comparison.kind.name}-{mark}")
        n_buckets = max(1, min(_FEW_BUCKETS, survey.n_rows // _FEW_ROWS), -(-survey.n_rows // MAX_BUCKET_ROWS))
        bucket = buckets.Bucket(
            comparison,
            self.arguments["linkage"],
            rules.arguments,
            guarded=self.guard is not None,
            diameter=self.arguments.get("diameter", False),
            with_joined=numbered,
        )
        keep = rules.arguments["keep"] if isinstance(rules.arguments["keep"], str) else "rule"
        rule = [
            bucket.linkage,
            keep,
            list(rules.columns),
            bucket.diameter,
            numbered,
            n_buckets,
            self._excluded_mark(rules),
        ]
        stage = f"clusters-{nodes.fingerprint(*rule)}"
        if not work.is_finished(stage):
            grouped = rules.add_excluded(self._grouped(rows, survey, work, n_blocks))
            buckets.cluster_buckets(grouped, bucket, n_buckets).write.mode("overwrite").parquet(work.uri_of(stage))
        found = spark.read.schema(bucket.schema(rows.schema[ID].dataType)).parquet(work.uri_of(stage))
        if not numbered:
            return found
        numbers = buckets.number_clusters(found, work, f"{stage}-numbers", survey.n_rows)
        return found.join(numbers, buckets.FIRST)

    def _grouped(self, rows: "DataFrame", survey: nodes.Survey, work: WorkFolder, n_blocks: int) -> "DataFrame":
        """Return rows with the column `GROUP`, which is equal for rows that can be in one cluster."""
        from pyspark.sql import functions as F  # noqa: N812

        spark, by = self.df.sparkSession, []
        if survey.n_hashes and (self.comparison.directed or not self.comparison.equal_only):
            there = nodes.write_nodes(rows, work, n_blocks)
            shared = decide_shared_points(spark, self.comparison, there, n_left=survey.n_hashes)
            tiles = Tiles(there, self.comparison, "links", MAX_PAIRS, shared=shared)
            run_tiles(spark, tiles)
            found = components.find_components(spark, work, tiles.folder)
            masks = None if shared is None else shared.masks(spark)
            members = there.rows(spark).select(ID, nodes.NODE)
            if masks is None:
                members = members.join(found, nodes.NODE)
            else:  # of all rows: an image that is in no component is in a bucket with others, too
                members = members.join(found, nodes.NODE, "left").join(masks, nodes.NODE, "left")
            rows = rows.join(members.drop(nodes.NODE), ID, "left")
            by.append(F.when(F.col(components.ROOT).isNotNull(), F.xxhash64(components.ROOT)))
        compares = F.col(nodes.HASH).isNotNull() & ~F.col(nodes.IS_FLAT)
        by += [
            F.when(compares, F.xxhash64(nodes.HASH)),
            F.when(F.col(nodes.DIGEST).isNotNull(), F.xxhash64(nodes.DIGEST)),
            F.xxhash64(ID),
        ]
        return rows.withColumn(buckets.GROUP, F.coalesce(*by)).drop(components.ROOT)

    def _excluded_mark(self, rules: RuleColumns) -> str:
        """Return a checksum of the pairs that do not count, where steps are kept."""
        if rules.not_duplicates is None or not self.keeps:
            return str(rules.not_duplicates is not None)
        return nodes.checksum_of(rules.not_duplicates.select(LEFT_ID, RIGHT_ID))

    def _hashed(self) -> "DataFrame":
        """Return the rows with their hashes, which are written first where images are hashed."""
        if self.source is None:
            return self.df
        from imgmatch_df.spark.hashing import visual_hash

        kind, spark = self.comparison.kind, self.df.sparkSession
        images = self.df.select(self.id_column().alias(ID), column(self.source).alias("source"))
        mark = nodes.checksum_of(images) if self.keeps else ""
        options = self.arguments["options"]
        work = self.work.folder(f"hashes-{kind.name}-{nodes.fingerprint(mark, options)}")
        if not work.is_finished("hashes"):
            hash_types = list(dict.fromkeys([kind.name, SHA256.name]))
            hashed = visual_hash(images, "source", hash_types=hash_types, **options).drop("source")
            hashed.write.mode("overwrite").parquet(work.uri_of("hashes"))
        names = {**self.made, **({} if self.guard is None else {SHA256.name: str(self.guard.digest)})}
        return self.joined(self.df, spark.read.parquet(work.uri_of("hashes")), names)

    def _matched(self, rules: RuleColumns) -> "DataFrame":
        """Return the rows that match a reference row, as `Bucket` returns rows, with `REFERENCE_ID`."""
        from pyspark.sql import functions as F  # noqa: N812

        from imgmatch_df.spark.pairs import match

        kind, named = self.comparison.kind, self.arguments
        queries = rules.df.select(*map(column, dict.fromkeys([self.id, self.hash, *_columns_of(self.guard)])))
        id, hash_name = self.id, None if self.source is not None else self.hash
        if self.source is not None:
            names = {self.id: ID, self.hash: kind.name}
            if self.guard is not None:
                names |= {str(self.guard.quality): QUALITY, str(self.guard.digest): SHA256.name}
            queries = queries.select(*(column(name).alias(alias) for name, alias in names.items()))
            id = ID
        with without_warnings():
            pairs = match(
                queries,
                named["reference"],
                named["radius"] if kind.by_votes else named["radius"] or 0,
                kind.name,
                id=id,
                reference_id=self.reference_id,
                k=1,
                min_votes=named["min_votes"],
                column=hash_name,
                reference_column=named["reference_column"],
                flat=named["flat"],
                turns=named["turns"],
                work_dir=self.work.uri if self.keeps else None,
                n_blocks=self.n_blocks,
            )
        found = pairs.select(F.col(QUERY_ID).alias(ID), REFERENCE_ID, self.comparison.measure)
        protected = F.lit(False)
        if PROTECT in rules.columns:
            values = rules.df.select(self.id_column().alias(ID), column(rules.columns[PROTECT]).alias(PROTECT))
            found = found.join(values, ID)
            protected = F.coalesce(F.col(PROTECT).cast("boolean"), protected)
        reason = F.when(protected, F.lit("protected")).otherwise(F.lit("in_reference"))
        return found.select(ID, REFERENCE_ID, self.comparison.measure, protected.alias(KEPT), reason.alias(REASON))


def _columns_of(guard: Guard | None) -> list[str]:
    return [] if guard is None else guard.columns


def _record_names(result: pl.Schema, affixes: Affixes, hidden: set[str]) -> tuple[str, ...]:
    records = result.get(affixes.name_of(REMOVED_RECORDS))
    if not isinstance(records, pl.List) or not isinstance(records.inner, pl.Struct):
        return ()
    return tuple(field.name for field in records.inner.fields if field.name not in hidden)


def _check_names(df: "DataFrame", names: Iterable[str]) -> None:
    """Refuse columns whose names the session takes for the same: it ignores upper and lower case by default."""
    matters = df.sparkSession.conf.get("spark.sql.caseSensitive", "false") == "true"
    seen: dict[str, str] = {}
    for name in (*df.columns, *(name for name in names if name not in df.columns)):
        key = name if matters else name.lower()
        if key in seen:
            raise ColumnError(
                f"columns {seen[key]!r} and {name!r} have the same name to this session\n"
                "Hint: prefix= or suffix= renames the new columns; or rename or drop yours."
            )
        seen[key] = name


def _with_nulls(df: "DataFrame", fields: Mapping[str, Any], made: Mapping[str, str]) -> "DataFrame":
    """Return the DataFrame with the columns that hashing adds, of nulls, so that Columns that read them have types."""
    from pyspark.sql import functions as F  # noqa: N812

    added = [
        F.lit(None).cast(spark_dtype(dtype)).alias(made[name])
        for name, dtype in fields.items()
        if made[name] not in df.columns
    ]
    return df.select("*", *added) if added else df
