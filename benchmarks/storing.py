"""Stores of hashes: writing, reading, resuming, SQL and matches with new rows, compared with Parquet of 0/1 strings.

    python benchmarks/storing.py [FOLDER] [--quick] [--update-docs]

See benchmarks/README.md for what is measured and how.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import allowed_cpus, describe_machine, markdown_table, pin, replace_between

CPUS = allowed_cpus()
pin(CPUS[:2])  # before the thread pools are created, which have one thread per processor

import duckdb  # noqa: E402
import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
import pyarrow as pa  # noqa: E402
from hash_sets import U8, crop_bmh1, drawn_bmh1, planted_phashes  # noqa: E402

import imgmatch_df  # noqa: E402

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("imgmatch-df", "polars", "duckdb", "numba", "pyarrow")
KINDS = ("bmh1", "phash")
N_BYTES = {"bmh1": 121, "phash": 8}
RADII = (4, 16)
STRINGS = "Parquet of 0/1 strings"


@dataclass(frozen=True)
class Sizes:
    """How many rows each part has.

    Parameters
    ----------
    stored
        Rows of the store.
    new
        Rows that are matched with it.
    paired
        Rows whose pairs are found in SQL.
    crossed
        Rows of the cross join, of which the seconds for `paired` are extrapolated.
    files
        Files that are listed with size and time.
    rounds
        Number of rounds; the fastest counts.
    """

    stored: int = 1_000_000
    new: int = 10_000
    paired: int = 200_000
    crossed: int = 20_000
    files: int = 100_000
    rounds: int = 3


QUICK = Sizes(stored=100_000, new=1_000, paired=20_000, crossed=5_000, files=5_000, rounds=2)


@dataclass(frozen=True)
class Aim:
    """What is wanted of a task, what was measured, and whether it is enough."""

    what: str
    wanted: str
    got: str
    is_met: bool

    @classmethod
    def under(cls, what: str, limit_s: float, seconds: float) -> "Aim":
        return cls(what, f"under {limit_s:g} s", duration(seconds), seconds < limit_s)

    def row(self) -> list[str]:
        return [self.what, self.wanted, self.got, "met" if self.is_met else "missed"]


def fastest(run: Callable[[], Any], n_rounds: int, prepare: Callable[[], object] = lambda: None) -> tuple[float, Any]:
    """Return the seconds of the fastest round, and the result of the last one; `prepare` is not timed."""
    seconds = []
    for _ in range(n_rounds):
        prepare()
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


# What is stored.


def as_frame(bmh1: U8, phash: U8, prefix: str) -> pl.DataFrame:
    """Return hashes with paths and the other columns of `scan_images` and `visual_hash`."""
    n = len(phash)
    rng = np.random.default_rng(7)
    buffers = [None, pa.py_buffer(np.ascontiguousarray(bmh1))]
    row = pl.int_range(n, eager=True)
    return pl.DataFrame(
        {
            "path": pl.select(pl.format(f"{prefix}/{{}}/IMG_{{}}.jpg", row // 1000, row)).to_series(),
            "size": rng.integers(20_000, 5_000_000, n, np.uint64),
            "modified": pl.Series(rng.integers(15 * 10**14, 17 * 10**14, n)).cast(pl.Datetime("us", "UTC")),
            "width": rng.choice(np.array([640, 1024, 3000, 4000], np.uint32), n),
            "height": rng.choice(np.array([480, 768, 2000, 3000], np.uint32), n),
            "bmh1": pl.Series(pa.FixedSizeBinaryArray.from_buffers(pa.binary(N_BYTES["bmh1"]), n, buffers)),
            "phash": phash.view(">u8").astype(np.uint64).ravel(),
        }
    )


def flipped(hashes: U8, n_bits: int, farthest: int) -> U8:
    """Return hashes with 0 to `farthest` of their first `n_bits` bits flipped."""
    rng = np.random.default_rng(8)
    n_flips = rng.integers(0, farthest + 1, len(hashes))
    flips = np.zeros((len(hashes), 8 * hashes.shape[1]), np.bool_)
    for flip, n in zip(flips, n_flips, strict=True):
        flip[rng.choice(n_bits, n, replace=False)] = True
    return hashes ^ np.packbits(flips, axis=1, bitorder="little")


@dataclass(frozen=True)
class Hashes:
    """Hashes to store, and new ones: half of them stored ones with some bits flipped."""

    stored: pl.DataFrame
    new: pl.DataFrame

    @classmethod
    def make(cls, sizes: Sizes, folder: Path | None) -> "Hashes":
        say("making hashes")
        n, n_known = sizes.stored + sizes.new, sizes.new // 2
        # New rows are later rows of the same draw: those that are not copies are not stored.
        bmh1 = drawn_bmh1(n) if folder is None else crop_bmh1(folder, n)
        drawn = {"bmh1": bmh1, "phash": planted_phashes(n)}
        old = {kind: hashes[: sizes.stored] for kind, hashes in drawn.items()}
        known = np.random.default_rng(9).choice(sizes.stored, n_known, replace=False)
        new = {
            kind: np.concatenate([
                flipped(old[kind][known], 961 if kind == "bmh1" else 64, 2 * RADII[-1]),
                hashes[sizes.stored + n_known :],
            ])
            for kind, hashes in drawn.items()
        }  # fmt: skip
        return cls(as_frame(old["bmh1"], old["phash"], "photos"), as_frame(new["bmh1"], new["phash"], "inbox"))


def packed(hashes: pl.Series) -> U8:
    """Return a hash column as bytes: (n, n_bytes) uint8."""
    if hashes.dtype == pl.UInt64:
        return hashes.to_numpy().astype(">u8").view(np.uint8).reshape(-1, 8)
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), -1)


# What is measured.


def storing_section(folder: Path, hashes: Hashes, sizes: Sizes) -> tuple[str, list[Path], list[Aim]]:
    """Measure writing, reading and size on disk; return the table, the stores that were written, and the aims."""
    targets = [folder / "hashes.duckdb", folder / "hashes", folder / "hashes.parquet"]
    labels = ["DuckDB", "Parquet folder", "Parquet file", STRINGS]
    n = hashes.stored.height
    columns: list[list[str]] = []
    measured: list[tuple[float, ...]] = []
    for label, target in zip(labels, [*targets, folder / "strings.parquet"], strict=True):
        say(f"writing and reading: {label}")
        write, read = (_write_strings, _read_strings) if label == STRINGS else (_write_store, imgmatch_df.read_hashes)
        write_s, _ = fastest(partial(write, hashes.stored, target), sizes.rounds, partial(_remove, target))
        read_s, got = fastest(partial(read, target), sizes.rounds)
        if not all(got[kind].equals(hashes.stored[kind]) for kind in KINDS):
            raise SystemExit(f"{label}: the rows read differ from the rows written")
        one_s = [
            "" if label == STRINGS else duration(fastest(partial(_read_one, target, kind), sizes.rounds)[0])
            for kind in KINDS
        ]
        columns.append([f"{n / write_s:,.0f}", f"{n / read_s:,.0f}", *one_s, f"{_n_bytes(target) / n:,.0f}"])
        measured.append((write_s, read_s, _n_bytes(target)))
    rows = [
        "rows a second written",
        "rows a second read, all columns",
        "reading `bmh1` alone",
        "reading `phash` alone",
        "bytes a row on disk",
    ]
    cells = zip(*columns, strict=True)
    header = [f"{n:,} rows", *labels]
    aims = [
        Aim(f"{what} of {n:,} rows: DuckDB / Parquet folder", "at most 2", f"{ours / theirs:.2f}", ours <= 2 * theirs)
        for what, ours, theirs in zip(
            ("seconds to write", "seconds to read", "bytes"), measured[0], measured[1], strict=True
        )
    ]
    return markdown_table(header, [[row, *cell] for row, cell in zip(rows, cells, strict=True)]), targets, aims


def _write_store(frame: pl.DataFrame, target: Path) -> None:
    imgmatch_df.write_hashes(frame, target)


def _read_one(target: Path, kind: str) -> pl.DataFrame:
    return imgmatch_df.scan_hashes(target).select(kind).collect()


def _write_strings(frame: pl.DataFrame, target: Path) -> None:
    frame.with_columns(imgmatch_df.to_bits(kind) for kind in KINDS).write_parquet(target)


def _read_strings(target: Path) -> pl.DataFrame:
    back = [imgmatch_df.from_bits(kind, kind) for kind in KINDS]
    return pl.read_parquet(target).with_columns(back)


def _files_of(target: Path) -> list[Path]:
    return [path for path in target.rglob("*") if path.is_file()] if target.is_dir() else [target]


def _n_bytes(target: Path) -> int:
    return sum(path.stat().st_size for path in _files_of(target))


def _remove(target: Path) -> None:
    for path in _files_of(target):
        path.unlink(missing_ok=True)


def resume_section(
    folder: Path, targets: Sequence[Path], hashes: Hashes, sizes: Sizes
) -> tuple[str, list[float], list[Aim]]:
    """Measure a run that finds every row stored and unchanged, and the listing of files that it needs."""
    files = hashes.stored.select("path", "size", "modified")
    rows, seconds, aims = [], [], []
    for target in targets:
        say(f"resuming: {target.name}")
        took_s, summary = fastest(partial(imgmatch_df.write_hashes, files, target, source="path"), sizes.rounds)
        if summary.n_skipped != files.height:
            raise SystemExit(f"{target.name}: {summary}")
        what = f"a run that finds all {files.height:,} rows unchanged: {_form(target)}"
        rows.append([what, duration(took_s)])
        seconds.append(took_s)
        if target.suffix == ".duckdb":
            aims.append(Aim.under(f"resume of {files.height:,} unchanged rows", 0.5, took_s))
    say(f"making {sizes.files:,} files")
    for number in range(sizes.files):
        path = folder / "files" / f"{number // 1000}" / f"IMG_{number}.jpg"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.touch()
    list_s, scanned = fastest(lambda: imgmatch_df.scan_images(folder / "files").collect(), sizes.rounds)
    scale = files.height / scanned.height
    rows.append([f"`scan_images` of {scanned.height:,} files: list them, read size and time", duration(list_s)])
    if scale > 1:
        rows.append([f"the same for {files.height:,}, extrapolated linearly", f"≈ {duration(scale * list_s)}"])
    return markdown_table(["", "time"], rows), seconds, aims


_N_ADDED = 1_000


def adding_section(targets: Sequence[Path], hashes: Hashes, sizes: Sizes) -> str:
    """Measure a run that adds a few rows to many: a DuckDB file is copied for it."""
    rows = []
    for target in targets:
        say(f"adding: {target.name}")
        numbers = iter(range(sizes.rounds))
        add_s, _ = fastest(lambda target=target, numbers=numbers: _add(target, hashes.new, next(numbers)), sizes.rounds)
        rows.append([f"a run that adds {_N_ADDED:,} rows to {sizes.stored:,}: {_form(target)}", duration(add_s)])
    return markdown_table(["", "time"], rows)


def _add(target: Path, new: pl.DataFrame, number: int) -> None:
    """Store rows with keys of this round alone."""
    rows = new.head(_N_ADDED).with_columns(pl.format("added{}/{}", pl.lit(number), "path").alias("path"))
    imgmatch_df.write_hashes(rows, target)


def _form(target: Path) -> str:
    return {".duckdb": "DuckDB", ".parquet": "Parquet file"}.get(target.suffix, "Parquet folder")


def match_section(
    targets: Sequence[Path], hashes: Hashes, sizes: Sizes
) -> tuple[str, dict[tuple[str, int], float], list[Aim]]:
    """Measure new rows against stored ones, and check the pairs of some new rows against a scan."""
    cells: dict[tuple[str, int], list[str]] = {}
    seconds: dict[tuple[str, int], float] = {}
    aims = []
    for kind in KINDS:
        checked = _checked_pairs(hashes, kind, RADII[-1])
        for radius in RADII:
            for target in targets:
                say(f"matching: {kind} within {radius}, {target.name}")
                took_s, pairs = fastest(
                    partial(imgmatch_df.match, hashes.new, target, radius, kind, id="path"), sizes.rounds
                )
                expected = checked.filter(pl.col("distance") <= radius)
                found = pairs.filter(pl.col("query_id").is_in(checked["query_id"].unique().implode()))
                wrong = "" if _same(found, expected) else ", WRONG PAIRS"
                cells.setdefault((kind, radius), [f"{pairs.height:,}"]).append(duration(took_s) + wrong)
                if target.suffix == ".duckdb":
                    seconds[kind, radius] = took_s
                    what = f"match of {hashes.new.height:,} with {hashes.stored.height:,}, {kind} within {radius}"
                    aims.append(Aim.under(what, 3, took_s))
    rows = [[f"{kind} within {radius}", *texts] for (kind, radius), texts in cells.items()]
    header = [
        f"{hashes.new.height:,} new rows with {hashes.stored.height:,} stored",
        "pairs",
        *map(_form, targets),
    ]
    return markdown_table(header, rows), seconds, aims


def _checked_pairs(hashes: Hashes, kind: str, radius: int, n_queries: int = 40) -> pl.DataFrame:
    """Return the pairs of some new rows, found by a scan of all stored rows."""
    stored = packed(hashes.stored[kind])
    found = []
    for query in np.linspace(0, hashes.new.height // 2, n_queries, endpoint=False).astype(int):
        differing = np.bitwise_count(packed(hashes.new[kind][[int(query)]]) ^ stored).sum(1, np.uint16)
        near = np.flatnonzero(differing <= radius)
        found += [(hashes.new["path"][int(query)], hashes.stored["path"][int(row)], differing[row]) for row in near]
    schema = {"query_id": pl.String, "reference_id": pl.String, "distance": pl.UInt16}
    return pl.DataFrame(found, schema, orient="row")


def _same(found: pl.DataFrame, expected: pl.DataFrame) -> bool:
    names = ["query_id", "reference_id"]
    return found.sort(names).equals(expected.sort(names))


def sql_section(target: Path, hashes: Hashes, sizes: Sizes) -> tuple[str, list[list[str]]]:
    """Measure the macros, beside the verbs of Python on the same store and a cross join."""
    stored = hashes.stored
    rows, short = [], []
    with duckdb.connect(target, read_only=True) as db:
        for kind in KINDS:
            say(f"SQL rank_images: {kind}")
            query = hashes.new[kind][0]
            sql = "SELECT source, distance FROM rank_images(?, 10)"
            sql_s, ranked = fastest(partial(_query, db, sql, query), sizes.rounds)
            python_s, expected = fastest(partial(_rank_in_python, target, query, kind), sizes.rounds)
            wrong = "" if ranked.equals(expected) else ", WRONG ROWS"
            what = f"`rank_images`, {kind}, nearest 10 of {stored.height:,}"
            rows.append([what, duration(sql_s) + wrong, duration(python_s), ""])
            short.append(rows[-1])
    for kind, radius in (("phash", 4), ("bmh1", 16)):
        say(f"SQL near_duplicates: {kind}")
        with duckdb.connect(target, read_only=True) as db:
            _use_rows(db, stored, sizes.paired)
            sql = f"FROM near_duplicates({radius}, '{kind}', tbl := 'first_rows')"
            sql_s, pairs = fastest(partial(_query, db, sql), sizes.rounds)
            _use_rows(db, stored, sizes.crossed)
            cross_s, crossed = fastest(partial(_cross_join, db, kind, radius), 1)
            fewer = _query(db, sql)
        python_s, expected = fastest(
            partial(imgmatch_df.near_duplicates, stored.head(sizes.paired), radius, kind, id="path"), sizes.rounds
        )
        wrong = "" if pairs.equals(expected) and crossed == fewer.height else ", WRONG PAIRS"
        cross_s *= (sizes.paired / sizes.crossed) ** 2
        what = f"`near_duplicates({radius}, '{kind}')`, {sizes.paired:,} rows, {pairs.height:,} pairs"
        rows.append([what, duration(sql_s) + wrong, duration(python_s),
                     f"≈ {duration(cross_s)} ({times(cross_s / sql_s)} ours)"])  # fmt: skip
        short += [rows[-1]] if kind == "phash" else []
    return markdown_table(["", "SQL", "Python", "SQL, as a cross join"], rows), short


def _query(db: "DuckDBPyConnection", sql: str, *values: object) -> pl.DataFrame:
    return db.sql(sql, params=list(values)).pl()


def _rank_in_python(target: Path, query: int | bytes, kind: str) -> pl.DataFrame:
    rows = imgmatch_df.scan_hashes(target).select("source", kind)
    return imgmatch_df.rank_images(rows, query, kind, k=10).select("source", "distance").collect()


def _use_rows(db: "DuckDBPyConnection", stored: pl.DataFrame, n: int) -> None:
    """Put the first rows into a temporary table ``first_rows``."""
    first = stored.head(n).select(source="path", bmh1="bmh1", phash="phash").to_arrow()
    db.register("given", first)
    db.execute("CREATE OR REPLACE TEMP TABLE first_rows AS FROM given")
    db.unregister("given")


def _cross_join(db: "DuckDBPyConnection", kind: str, radius: int) -> int:
    """Count the pairs without macros. Bit strings are made once, not for each pair."""
    word = "phash" if kind == "phash" else "bmh1::BIT"
    ((n_pairs,),) = db.execute(
        f"WITH words AS MATERIALIZED (SELECT rowid AS row, {word} AS word FROM first_rows) "
        "SELECT count(*) FROM words AS l JOIN words AS r "
        "ON l.row < r.row AND bit_count(xor(l.word, r.word)) <= ?",
        [radius],
    ).fetchall()
    return int(n_pairs)


# Tables.


def say(what: str) -> None:
    print(f"[{time.monotonic() - _START:4.0f} s] {what}", file=sys.stderr, flush=True)


_START = time.monotonic()


def duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1e3 * seconds:.2g} ms" if seconds < 0.1 else f"{1e3 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{float(f'{seconds:.2g}'):,.0f} s"


def times(ratio: float) -> str:
    return f"{float(f'{ratio:.2g}'):,g}x"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows: under a minute, rough")
    parser.add_argument("--update-docs", action="store_true", help="write the tables into the documents")
    parser.add_argument("folder", nargs="?", type=Path, help="images whose crops make the bmh1; else drawn in code")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else Sizes()
    hashes = Hashes.make(sizes, arguments.folder)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say("compiling")
        imgmatch_df.write_hashes(hashes.stored.head(100), folder / "first.duckdb")
        for kind in KINDS:
            imgmatch_df.match(hashes.new.head(100), folder / "first.duckdb", RADII[-1], kind)
        storing, targets, store_aims = storing_section(folder, hashes, sizes)
        resuming, resume_s, resume_aims = resume_section(folder, targets, hashes, sizes)
        matching, match_s, match_aims = match_section(targets[:2], hashes, sizes)
        sql, of_sql = sql_section(targets[0], hashes, sizes)
        adding = adding_section(targets, hashes, sizes)
    say("done")
    machine = describe_machine(len(CPUS), PACKAGES)
    what = "drawn in code" if arguments.folder is None else "of crops of the images of a folder"
    note = f"bmh1 {what}. Files in the page cache, fastest of {sizes.rounds} rounds, two threads. {machine}"
    sections = {
        "Aims": markdown_table(["", "aim", "got", ""], [aim.row() for aim in (*store_aims, *resume_aims, *match_aims)]),
        "Writing and reading": storing,
        "Resuming": resuming,
        "New against stored": matching,
        "SQL": sql,
        "Adding": adding,
    }
    details = "\n\n".join(f"### {title}\n\n{text}" for title, text in sections.items()) + f"\n\n{note}"
    print(details)
    if arguments.update_docs:
        again = f"`write_hashes` of {sizes.stored:,} rows that are stored, unchanged"
        what = f"`match` of {sizes.new:,} new rows with {sizes.stored:,} stored"
        in_python = {again: resume_s[0]}
        in_python |= {f"{what}, {kind} within {radius}": took_s for (kind, radius), took_s in match_s.items()}
        rows = [[name, "", duration(took_s), ""] for name, took_s in in_python.items()]
        short = markdown_table(["a store in DuckDB", "SQL", "Python", "SQL, as a cross join"], [*rows, *of_sql])
        replace_between(ROOT / "docs" / "benchmarks.md", "storing", f"{storing}\n\n{short}\n\n{note}")
        replace_between(ROOT / "benchmarks" / "README.md", "storing-more", details)


if __name__ == "__main__":
    main()
