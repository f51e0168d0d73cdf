"""All pairs of hashes within a radius: how fast and how complete, compared with other libraries.

    python benchmarks/joining.py [--hashes FILE] [--folder FOLDER] [--quick] [--update-docs]

See benchmarks/README.md for what is measured and how.
"""

import argparse
import math
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from growth import draw_growth
from harness import (
    Arena,
    WorkerError,
    allowed_cpus,
    describe_machine,
    markdown_table,
    median_and_quartiles,
    pin,
    replace_between,
    run,
)
from hash_sets import (
    MAX_CROPS,
    U8,
    drawn_bmh1,
    mixed_bmh1,
    pair_shares,
    planted_phashes,
    random_bmh1,
    random_phashes,
    stored_bmh1,
)
from joiners import CONTENDERS, JOINERS, N_QUERIES, SCANS, Cell, K

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "imgmatch-df", "polars", "numba", "numpy", "faiss-cpu", "hammingbird", "pynear", "imagededup", "duckdb",
)  # fmt: skip
SMALL = (1_000, 5_000)  # rows at which slow contenders are measured; too few for a table
MAX_PAIRS = 20_000_000  # a cell of which a sample shows more is left out, and the table says how many they would be


@dataclass(frozen=True)
class HashSet:
    """A file of hashes, and its description in the tables."""

    kind: str
    name: str
    what: str
    path: Path
    n_rows: int
    shares: tuple[float, ...]  # of all pairs within each radius, estimated from a sample

    def expected_pairs(self, n: int, radius: int) -> float:
        """Return the number of pairs of the first `n` rows within a radius, as the sample shows it."""
        return self.shares[radius] * n * (n - 1) / 2


@dataclass(frozen=True)
class Figure:
    """The seconds of one contender in one cell.

    Parameters
    ----------
    measured_n
        Rows at which it was measured; fewer than those of the cell if the seconds are extrapolated.
    ratio
        The seconds over those of ours just before and just after.
    n_pairs
        Number of pairs, of ours alone.
    """

    seconds: float
    measured_n: int
    recall: float | None
    n_false: int
    ratio: float = 1.0
    n_pairs: int = 0


@dataclass
class Results:
    """The figures of one set of hashes, by contender, radius and rows, and the failures."""

    hashes: HashSet
    figures: dict[tuple[str, int], dict[int, Figure]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def get(self, name: str, n: int, radius: int) -> Figure | None:
        """Return the figure of a cell, extrapolated if it was not measured; None if no smaller one was."""
        measured = self.figures.get((name, radius), {})
        smaller = [size for size in measured if size <= n]
        if not smaller:
            return None
        last = measured[max(smaller)]
        if last.measured_n == n:
            return last
        seconds = last.seconds * (n / last.measured_n) ** self._growth(name, radius)
        ours = None if name == "ours" else self.get("ours", n, radius)
        return replace(last, seconds=seconds, ratio=1.0 if ours is None else seconds / ours.seconds)

    def expected_s(self, name: str, n: int, radius: int) -> float:
        figure = self.get(name, n, radius)
        last = max(self.figures.get((name, radius), {}).items(), key=lambda item: item[0], default=None)
        # On a busy machine, starting threads takes 100 ms: a shorter time does not show that a larger cell is slow.
        unsure = last is not None and last[1].seconds < 0.1 and n <= 5 * last[0]
        return 0.0 if figure is None or unsure else figure.seconds

    def _growth(self, name: str, radius: int) -> float:
        """Return the exponent of n: 2 for a scan; for an index that of its last factor of four or more, from 1 to 2."""
        measured = self.figures[name, radius]
        large = max(measured)
        small = max((n for n in measured if 4 * n <= large), default=large)
        if name in SCANS or small == large:
            return 2.0
        growth = math.log(measured[large].seconds / measured[small].seconds) / math.log(large / small)
        return min(2.0, max(1.0, growth))


class Bench:
    """One run: a folder for its files, the processors it may use, its contenders, and how thorough it is."""

    def __init__(self, folder: Path, cpus: list[int], arena: Arena, *, quick: bool) -> None:
        self.folder = folder
        self.cpus = cpus[:2]
        self.arena = arena
        self.quick = quick
        self._start = time.monotonic()

    def say(self, what: str) -> None:
        print(f"[{time.monotonic() - self._start:4.0f} s] {what}", file=sys.stderr, flush=True)

    def save(self, kind: str, name: str, what: str, hashes: U8) -> HashSet:
        path = self.folder / f"{len(list(self.folder.iterdir()))}.npy"
        np.save(path, hashes)
        return HashSet(kind, name, what, path, len(hashes), pair_shares(hashes))

    def result(self, name: str, data: object) -> dict[str, float]:
        """Return the result of a contender for `data`."""
        file = self.folder / "request.pickle"
        file.write_bytes(pickle.dumps(data))
        result: dict[str, float] = self.arena.worker(name, self.cpus).request("result", str(file))
        return result

    def measure(
        self,
        hashes: HashSet,
        sizes: Sequence[int],
        radii: Mapping[str, Iterable[int]],
        limits_s: Mapping[str, float],
        *,
        always: Set[tuple[str, int, int]] = frozenset(),
    ) -> Results:
        """Return the figures of the cells of a set, from the smallest size up.

        Parameters
        ----------
        radii
            By contender.
        limits_s
            By contender, the maximum time of a cell, estimated from smaller ones; longer cells are extrapolated.
        always
            Cells (contender, rows, radius) that are measured in any case.
        """
        results = Results(hashes)
        for n in sizes:
            for radius in sorted({radius for chosen in radii.values() for radius in chosen}):
                names = [
                    name
                    for name, chosen in radii.items()
                    if radius in chosen
                    and hashes.expected_pairs(n, radius) <= MAX_PAIRS
                    and name not in results.failures
                    and ((name, n, radius) in always or results.expected_s(name, n, radius) <= limits_s[name])
                ]
                if names and (n not in SMALL or len(names) > 1):
                    self._measure_cell(results, names, n, radius)
        return results

    def _measure_cell(self, results: Results, names: list[str], n: int, radius: int) -> None:
        hashes = results.hashes
        cell = Cell(hashes.kind, str(hashes.path), n, radius, str(self.folder / "pairs.npy"))
        self.say(f"{hashes.kind}, {n:,} rows, within {radius}: {', '.join(names)}")
        ours = self._figure("ours", cell)
        seconds = [ours.seconds]
        for name in names:
            if name == "ours":
                continue
            try:
                figure = self._figure(name, cell)
            except WorkerError as error:
                results.failures[name] = f"{(str(error).splitlines() or ['failed'])[0]:.100}"
                continue
            if seconds[-1] < 1:
                seconds.append(self._figure("ours", replace(cell, check=False)).seconds)
            figure = replace(figure, ratio=figure.seconds / statistics.mean(seconds[-2:]))
            results.figures.setdefault((name, radius), {})[n] = figure
        ours = replace(ours, seconds=statistics.median(seconds))
        results.figures.setdefault(("ours", radius), {})[n] = ours

    def _figure(self, name: str, cell: Cell) -> Figure:
        found = self.result(name, cell)
        n_pairs = int(found.get("n_pairs", 0))
        return Figure(found["seconds"], cell.n, found["recall"], int(found["n_false"]), n_pairs=n_pairs)


def measure_phash(bench: Bench) -> tuple[Results, Results]:
    bench.say("making phashes")
    radii = (4, 8) if bench.quick else (0, 2, 4, 6, 8, 10, 12)
    sizes = [10_000, 100_000] if bench.quick else [10_000, 100_000, 1_000_000, 10_000_000]
    planted = bench.save(
        "phash",
        "planted",
        "Uniform hashes, a twentieth of them others with 0 to 12 bits flipped.",
        planted_phashes(sizes[-1]),
    )
    random = bench.save("phash", "random", "Uniform hashes.", random_phashes(min(sizes[-1], 1_000_000)))
    everyone = dict.fromkeys(JOINERS, (4, 8))
    some = {*radii} - {2, 6, 10}
    chosen = {**everyone, "ours": radii, "flat": some, "multi": some, "pynear": some}
    peers_s = 1.0 if bench.quick else 3.0
    limits_s = {**dict.fromkeys(JOINERS, peers_s), "ours": 30.0}
    always = {("flat", 10_000, radius) for radius in some}
    always |= set() if bench.quick else {("flat", 100_000, radius) for radius in (4, 8)}
    sets = (
        bench.measure(planted, [*SMALL, *[n for n in sizes if n < 1e7]], chosen, limits_s, always=always),
        bench.measure(random, [n for n in sizes if n < 1e7], {"ours": radii}, limits_s),
    )
    if sizes[-1] >= 1e7:  # ours alone, at the radii that have an aim for growth
        largest = bench.measure(planted, sizes[-1:], {"ours": (4, 8)}, {"ours": math.inf})
        for key, figures in largest.figures.items():
            sets[0].figures[key].update(figures)
    return sets


def measure_bmh1(bench: Bench, stored: U8, what: tuple[str, str], large: HashSet) -> tuple[Results, Results]:
    radii = (24,) if bench.quick else (0, 8, 16, 24, 48, 96)
    sizes = [n for n in ((20_000,) if bench.quick else (20_000, 50_000, 200_000)) if n <= len(stored)]
    peers_s = 1.0 if bench.quick else 3.0
    limits_s = {**dict.fromkeys(JOINERS, peers_s), "ours": 40.0}
    some = {*radii} - {8, 16}
    chosen = {**dict.fromkeys(JOINERS, (24,)), "ours": radii, "flat": some, "multi": {*radii} & {0, 24}}
    del chosen["imagededup"]  # its scan is of 64 bits
    always = {("ours", large.n_rows, radius) for radius in radii if radius <= 24}
    always |= {("flat", SMALL[-1] if bench.quick else 20_000, radius) for radius in some}
    if not bench.quick:  # needed for the aims
        always |= {(name, n, radius) for name, n in (("flat", 50_000), ("ours", 200_000)) for radius in (24, 96)}
    small = bench.save("bmh1", *what, stored)
    return (
        bench.measure(small, [*SMALL, *sizes], chosen, limits_s, always=always),
        bench.measure(large, [large.n_rows // 10, large.n_rows], {"ours": radii}, limits_s, always=always),
    )


@dataclass(frozen=True)
class Aim:
    """An aim of the design, and the measured value."""

    what: str
    aim: float
    got: float | None
    at_least: bool
    note: str = ""

    def row(self) -> list[str]:
        if self.got is None:
            return [self.what, self._text(self.aim), "not measured", ""]
        met = self.got >= self.aim if self.at_least else self.got <= self.aim
        return [self.what, self._text(self.aim), f"{self.got:,.3g}x{self.note}", "met" if met else "missed"]

    def _text(self, number: float) -> str:
        return f"at {'least' if self.at_least else 'most'} {number:,.4g}x"


def aims_of(phash: Results, bmh1: Results) -> list[Aim]:
    aims = [_faster_than_flat(phash, n, radius, aim) for n, radius, aim in ((100_000, 4, 400), (100_000, 8, 100))]
    for small, large in ((100_000, 1_000_000), (1_000_000, 10_000_000)):
        for radius in (4, 8):
            pair = [phash.figures.get(("ours", radius), {}).get(n) for n in (small, large)]
            got = pair[1].seconds / pair[0].seconds if pair[0] and pair[1] else None
            aims.append(Aim(f"phash within {radius}: {large:,} rows over {small:,}", 18, got, at_least=False))
    rows = ((50_000, 24, 300), (200_000, 24, 1000), (50_000, 96, 25), (200_000, 96, 25))
    return aims + [_faster_than_flat(bmh1, n, radius, aim) for n, radius, aim in rows]


def _faster_than_flat(results: Results, n: int, radius: int, aim: float) -> Aim:
    flat, ours = (results.get(name, n, radius) for name in ("flat", "ours"))
    what = f"{results.hashes.kind}, {n:,} rows within {radius}, over faiss flat"
    # A scan of less than a tenth of the rows takes milliseconds: too short to extrapolate.
    if flat is None or ours is None or ours.measured_n < n or 10 * flat.measured_n < n:
        return Aim(what, aim, None, at_least=True)
    note = "" if flat.measured_n == n else f" (faiss extrapolated from {flat.measured_n:,} rows)"
    return Aim(what, aim, flat.ratio, at_least=True, note=note)


def rank_section(bench: Bench, hashes: HashSet) -> tuple[str, list[Aim]]:
    bench.say("ranking")
    file = bench.folder / "rank.pickle"
    file.write_bytes(pickle.dumps(np.load(hashes.path)))
    race = bench.arena.race(
        dict.fromkeys(("read", "rank"), bench.cpus), file, limit="read", n_rounds=5 if bench.quick else 25
    )
    if race["rank"].failure is not None:
        raise WorkerError(race["rank"].failure)
    right = bench.arena.worker("rank", bench.cpus).request("result", str(file))
    rows = []
    for name in ("read", "rank"):
        times, low, high = median_and_quartiles([1 / share for share in race[name].to_limit])
        milliseconds = 1e3 * statistics.median(race[name].seconds)
        rows.append([CONTENDERS[name].label, f"{milliseconds:.1f}", f"{times:.2f} ({low:.2f} to {high:.2f})"])
    rows[1][0] += ", the rows of a plain scan" if right else ", WRONG ROWS"
    table = markdown_table(
        [f"one query against {hashes.n_rows:,} bmh1", "milliseconds", "of reading once (quartiles)"], rows
    )
    bench.say("many queries")
    many, aims = many_queries(bench, file, hashes.name)
    file.write_bytes(pickle.dumps(random_bmh1(hashes.n_rows)))
    more, aims_of_random = many_queries(bench, file, "uniform")
    header = [
        f"the {K} nearest of {hashes.n_rows:,} bmh1, at any distance",
        "one query, milliseconds",
        f"each of {N_QUERIES:,} at once",
        "times faster",
    ]
    once = Aim("ranking, over reading the bytes once", 1.11, times, at_least=False)
    return f"{table}\n\n{markdown_table(header, [*many, *more])}", [once, *aims, *aims_of_random]


def many_queries(bench: Bench, file: Path, hashes: str) -> tuple[list[list[str]], list[Aim]]:
    """Return the rows of 1,000 queries at once, of ours and of faiss, and the gain of each query over one alone."""
    rows, aims = [], []
    for name in ("rank-many", "flat-many"):
        label = f"{CONTENDERS[name].label}, {hashes}"
        try:
            got = bench.arena.worker(name, bench.cpus).request("result", str(file))
        except WorkerError as error:
            rows.append([label, f"{(str(error).splitlines() or ['failed'])[0]:.100}", "", ""])
            continue
        each = got["seconds"] / N_QUERIES
        label += "" if got["right"] else ", WRONG ROWS"
        rows.append([label, f"{1e3 * got['single']:.1f}", f"{1e3 * each:.2f}", f"{got['single'] / each:.1f}"])
        if name == "rank-many":
            what = f"each of {N_QUERIES:,} queries of {hashes} bmh1 at once, over one query alone"
            aims.append(Aim(what, 5, got["single"] / each, at_least=True))
    return rows, aims


def memory_section(bench: Bench, hashes: HashSet, radius: int = 16) -> tuple[str, Aim]:
    bench.say("memory")
    n_bytes = hashes.n_rows * np.load(hashes.path, mmap_mode="r").shape[1]
    cell = Cell(hashes.kind, str(hashes.path), hashes.n_rows, radius, "")
    got = bench.result("join-memory", cell)
    share = (got["growth"] + n_bytes - got["result"]) / n_bytes
    table = markdown_table(
        [f"join of {hashes.n_rows:,} bmh1 within {radius}", "MB"],
        [
            ["the hashes", f"{n_bytes / 1e6:,.0f}"],
            [f"the {got['n_rows']:,.0f} pairs", f"{got['result'] / 1e6:,.0f}"],
            ["growth of the process while it runs, at most", f"{got['growth'] / 1e6:,.0f}"],
        ],
    )
    what = f"memory of a join of {hashes.n_rows:,} bmh1 within {radius}: all but the pairs, over the hashes"
    return table, Aim(what, 4, share, at_least=False)


def degenerate_section(bench: Bench, bmh1: HashSet) -> str:
    bench.say("half of the rows equal")
    n = 100_000 if bench.quick else 1_000_000
    rows = []
    for kind, hashes in (("phash", random_phashes(n)), ("bmh1", np.load(bmh1.path)[:n])):
        equal = np.random.default_rng(6).choice(len(hashes), len(hashes) // 2, replace=False)
        hashes[equal] = hashes[equal[0]]
        saved = bench.save(kind, "half equal", "", hashes)
        got = bench.result(f"cluster-memory@{kind}", Cell(kind, str(saved.path), saved.n_rows, 4, ""))
        rows.append(
            [kind, f"{saved.n_rows:,}", f"{len(equal):,}", f"{got['seconds']:.2f}", f"{got['growth'] / 1e6:,.0f}",
             f"{hashes.nbytes / 1e6:,.0f}"]
        )  # fmt: skip
    return markdown_table(
        ["`cluster(4)`", "rows", "of them equal", "seconds", "growth of the process, MB", "hashes, MB"], rows
    )


# Tables.


def duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1e3 * seconds:.2g} ms" if seconds < 0.1 else f"{1e3 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{float(f'{seconds:.2g}'):,.0f} s" if seconds < 1e4 else f"{float(f'{seconds / 3600:.2g}'):,.3g} h"


def short(n: int) -> str:
    return f"{n / 10 ** int(math.log10(n)):g}e{int(math.log10(n))}"


def cell_text(figure: Figure | None, n: int, *, with_ratio: bool) -> str:
    """Return seconds, how many times ours, and recall; extrapolated ones begin with ≈ and give the rows measured."""
    if figure is None:
        return ""
    guessed = figure.measured_n < n
    recall = "no pairs" if figure.recall is None else f"{figure.recall:.3f}"
    if figure.n_false:
        recall += f", {figure.n_false:,} wrong"
    ratio = f" ({float(f'{figure.ratio:.2g}'):,.{0 if figure.ratio > 9.9 else 1}f}x)" if with_ratio else ""
    guess = f" at {short(figure.measured_n)}" if guessed else ""
    return f"{'≈ ' * guessed}{duration(figure.seconds)}{ratio} · {recall}{guess}"


def pairs_text(results: Results, n: int, radius: int) -> str:
    """Return the number of pairs of a cell; ≈ is that of a sample, of a cell that was left out for its many pairs."""
    figure = results.get("ours", n, radius)
    expected = results.hashes.expected_pairs(n, radius)
    if figure is not None and figure.measured_n == n:
        return f"{figure.n_pairs:,}"
    return f"≈ {expected:.1g}, left out" if expected > MAX_PAIRS else ""


def headline_table(columns: Sequence[tuple[Results, int, int]]) -> str:
    rows = []
    for name, contender in JOINERS.items():
        cells = [
            cell_text(results.get(name, n, radius), n, with_ratio=name != "ours") or results.failures.get(name, "")
            for results, n, radius in columns
        ]
        if any(cell and not cell.startswith("not installed") for cell in cells):  # those are listed with the versions
            rows.append([contender.label, *cells])
    header = [f"{results.hashes.kind}, {n:,} rows, within {radius}" for results, n, radius in columns]
    table = markdown_table(["", *header], rows)
    return (
        f"{table}\n\nTime, times ours, and recall: the share of all pairs that is found. ≈ is extrapolated from the "
        "rows named: quadratically for a scan, for an index by its growth over the last factor of four or more. "
        "Two threads each."
    )


def full_table(results: Results, sizes: Iterable[int]) -> str:
    radii = sorted({radius for _, radius in results.figures})
    rows = []
    for name, contender in JOINERS.items():
        for n in sizes:
            figures = [results.get(name, n, radius) for radius in radii]
            # Of ours only measured cells: ten million rows have two radii, and cells of too many pairs are left out.
            if name == "ours":
                figures = [figure if figure is not None and figure.measured_n == n else None for figure in figures]
            if any(figures) and (name == "ours" or n <= 1_000_000):
                texts = [cell_text(figure, n, with_ratio=False) for figure in figures]
                rows.append([f"{contender.label}, {n:,}", *texts])
                if name == "ours":
                    rows.append([f"pairs of {n:,}", *(pairs_text(results, n, radius) for radius in radii)])
        if name in results.failures:
            rows.append([contender.label, results.failures[name], *[""] * (len(radii) - 1)])
    table = markdown_table(["rows", *(f"within {radius}" for radius in radii)], rows)
    return f"{results.hashes.what}\n\n{table}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hashes", type=Path, help="Parquet file with a column bmh1; drawn in code if none is given")
    parser.add_argument("--folder", type=Path, help="images whose crops make the million bmh1; else drawn in code")
    parser.add_argument("--quick", action="store_true", help="fewer rows and radii: under a minute, rough")
    parser.add_argument("--update-docs", action="store_true", help="write tables and plot into the documents")
    arguments = parser.parse_args()
    all_cpus = allowed_cpus()
    pin(all_cpus[:2])
    with tempfile.TemporaryDirectory() as folder, Arena(__file__, CONTENDERS) as arena:
        bench = Bench(Path(folder), all_cpus, arena, quick=arguments.quick)
        phash, random = measure_phash(bench)
        bench.say("making bmh1")
        n_large = 100_000 if bench.quick else 1_000_000
        if arguments.folder is None:
            drawn, what = drawn_bmh1(n_large), ("drawn", "Drawn in code, with the correlations of photos.")
        else:
            drawn, n_crops = mixed_bmh1(arguments.folder, n_large)
            text = (
                f"{n_crops:,} crops of the images of a folder, at most {MAX_CROPS} of each; the others drawn in code."
            )
            what = ("crops and drawn", text)
        large = bench.save("bmh1", *what, drawn)
        stored, stored_what = drawn, what
        if arguments.hashes is not None:
            stored, stored_what = (
                stored_bmh1(arguments.hashes),
                ("stored", "Hashes of real images, read from a file."),
            )
        bmh1, million = measure_bmh1(bench, stored, stored_what, large)
        ranking, rank_aims = rank_section(bench, large)
        memory, memory_aim = memory_section(bench, large)
        degenerate = degenerate_section(bench, large)
        bench.say("done")
    aims = [*aims_of(phash, bmh1), *rank_aims, memory_aim]
    machine = describe_machine(len(all_cpus), PACKAGES)
    columns = [(phash, 100_000, 4), (phash, 100_000, 8), (bmh1, 20_000, 24)]
    if not bench.quick:
        columns = [*columns[:2], (phash, 1_000_000, 8), *((bmh1, 200_000, radius) for radius in (24, 96))]
    columns = [column for column in columns if column[1] <= column[0].hashes.n_rows]
    headline = headline_table(columns)
    sections = {
        "Ours and the others": headline,
        "Aims": markdown_table(["", "aim", "got", ""], [aim.row() for aim in aims]),
        "phash, planted": full_table(phash, (10_000, 100_000, 1_000_000, 10_000_000)),
        "phash, random": full_table(random, (10_000, 100_000, 1_000_000)),
        "bmh1": full_table(bmh1, (20_000, 50_000, 200_000)),
        "bmh1, the large set": full_table(million, (n_large // 10, n_large)),
        "Ranking": ranking,
        "Memory": memory,
        "Half of the rows equal": degenerate,
    }
    details = "\n\n".join(f"### {title}\n\n{text}" for title, text in sections.items()) + f"\n\n{machine}"
    print(details)
    if arguments.update_docs:
        replace_between(ROOT / "docs" / "benchmarks.md", "joining", f"{headline}\n\n{ranking}\n\n{machine}")
        replace_between(ROOT / "benchmarks" / "README.md", "joining-more", details)
        panels = [(phash, (0, 4, 8, 12)), (bmh1, (0, 24, 48, 96))]
        draw_growth(ROOT / "docs" / "images" / "joining.png", panels, SMALL)


if __name__ == "__main__":
    run(main, CONTENDERS)
