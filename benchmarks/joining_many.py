"""All pairs of a million PDQ hashes of real images, and of many phashes: how fast and how complete, beside faiss.

    python benchmarks/joining_many.py [FOLDER] [--share SHARE] [--update-docs]

See benchmarks/README.md for what is measured and how.
"""

import argparse
import math
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import (
    Arena,
    Contender,
    allowed_cpus,
    describe_machine,
    markdown_table,
    pin,
    replace_between,
    run,
)
from hash_sets import crop_pdq, planted_phashes
from joiners import CONTENDERS as MEASURED
from joiners import JOINERS, Cell, _as_numbers, _multi_hash, _nothing

ROOT = Path(__file__).resolve().parent.parent
N_COMPARED = 2_000_000_000  # pairs of a searched row and another: some seconds
PACKAGES = ("imgmatch-df", "polars", "numba", "numpy", "faiss-cpu")


def _sampled(make_index: Callable[[Any, int, int, int], Any]) -> Callable[[Cell, int], dict[str, float]]:
    """Return the measurement of a faiss index: its search for some rows among all, compared with our pairs of these."""

    def result(cell: Cell, n_threads: int) -> dict[str, float]:
        import faiss

        faiss.omp_set_num_threads(n_threads)
        codes = cell.load()
        n_queries = min(cell.n, max(20, N_COMPARED // cell.n))
        rows = np.sort(np.random.default_rng(cell.n).choice(cell.n, n_queries, replace=False))
        start = time.perf_counter()
        index = make_index(faiss, 8 * codes.shape[1], cell.n, cell.radius)
        index.add(codes)
        build_s = time.perf_counter() - start
        index.range_search(codes[rows[:8]], cell.radius + 1)  # threads are started
        start = time.perf_counter()
        limits, _, others = index.range_search(codes[rows], cell.radius + 1)  # faiss's radius is exclusive
        search_s = time.perf_counter() - start
        ends = np.repeat(rows, np.diff(limits.astype(np.int64))), others
        found = _as_numbers(np.minimum(*ends), np.maximum(*ends))
        ours = np.load(cell.pairs)
        is_searched = np.zeros(cell.n, np.bool_)
        is_searched[rows] = True
        true = ours[is_searched[ours >> np.uint64(32)] | is_searched[ours & np.uint64(0xFFFFFFFF)]]
        n_common = len(np.intersect1d(found, true, assume_unique=True))
        return {
            "seconds": build_s + search_s * cell.n / n_queries,
            "n_queries": n_queries,
            "recall": n_common / len(true) if len(true) else float("nan"),
            "n_false": len(found) - n_common,
            "n_pairs": len(true),
        }

    return result


CONTENDERS = {
    "ours": JOINERS["ours"],
    "flat": Contender(
        JOINERS["flat"].label,
        ("faiss-cpu",),
        _nothing,
        _sampled(lambda faiss, n_bits, *_: faiss.IndexBinaryFlat(n_bits)),
    ),
    "multi": Contender(JOINERS["multi"].label, ("faiss-cpu",), _nothing, _sampled(_multi_hash)),
    "join-memory": MEASURED["join-memory"],
}


def shown_recall(recall: float) -> str:
    return "no pairs" if math.isnan(recall) else f"{recall:.3f}"


def measure(
    arena: Arena, cell: Cell, cpus: list[int], folder: Path, peers: Sequence[str]
) -> tuple[list[list[str]], int]:
    """Return the rows of the table, and the number of pairs."""

    def result(name: str, data: Cell) -> dict[str, float]:
        file = folder / "request.pickle"
        file.write_bytes(pickle.dumps(data))
        found: dict[str, float] = arena.worker(name, cpus).request("result", str(file))
        return found

    first = result("ours", cell)
    seconds = [first["seconds"]]
    unchecked = Cell(cell.kind, cell.hashes, cell.n, cell.radius, cell.pairs, check=False)
    measured = {}
    for name in peers:
        measured[name] = result(name, cell)
        seconds.append(result("ours", unchecked)["seconds"])
        measured[name]["times"] = measured[name]["seconds"] / statistics.mean(seconds[-2:])
    memory = result("join-memory", cell)["growth"]
    text = [
        CONTENDERS["ours"].label,
        f"{statistics.median(seconds):.2f}",
        "1",
        "all",
        shown_recall(first["recall"]),
        "0",
    ]
    rows = [[*text, f"{memory / 1e6:,.0f}"]]
    for name, got in measured.items():
        rows.append(
            [
                CONTENDERS[name].label,
                f"≈ {got['seconds']:,.0f}",
                f"{got['times']:,.0f}",
                f"{got['n_queries']:,.0f}",
                shown_recall(got["recall"]),
                f"{got['n_false']:,.0f}",
                "",
            ]
        )
    return rows, int(first["n_pairs"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="images whose crops are hashed; without it, phashes alone")
    parser.add_argument("--share", type=float, default=1.0, help="the share of the rows that is joined; 1 by default")
    parser.add_argument("--update-docs", action="store_true", help="write the tables into benchmarks/README.md")
    arguments = parser.parse_args()
    cpus = allowed_cpus()
    pin(cpus[:2])
    planted = "uniform phashes, a twentieth of them others with 0 to 12 bits flipped"
    sets = [("phash", 10_000_000, 8, planted, ("flat",)), ("phash", 100_000_000, 4, planted, ("flat",))]
    if arguments.folder is not None:
        n_images = sum(path.is_file() for path in arguments.folder.rglob("*"))
        sets.insert(0, ("pdq", 1_000_000, 31, f"PDQ hashes of random crops of {n_images:,} images", ("flat", "multi")))
    texts = []
    for kind, n_all, radius, what, peers in sets:
        n = max(1000, int(n_all * arguments.share))
        print(f"{n:,} {what}, within {radius}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as name, Arena(__file__, CONTENDERS) as arena:
            folder = Path(name)
            made = planted_phashes(n) if kind == "phash" else crop_pdq(arguments.folder, n, len(cpus[:2]))
            np.save(folder / "hashes.npy", made)
            del made
            cell = Cell(kind, str(folder / "hashes.npy"), n, radius, str(folder / "pairs.npy"))
            rows, n_pairs = measure(arena, cell, cpus[:2], folder, peers)
        columns = [
            "",
            "seconds",
            "times ours",
            "rows searched for",
            "recall",
            "wrong pairs",
            "growth of the process, MB",
        ]
        texts.append(f"{n:,} {what}, within {radius} bits, {n_pairs:,} pairs:\n\n{markdown_table(columns, rows)}")
    texts.append(
        "Two threads each. faiss searches for some random rows among all; the seconds are those of its index, and of "
        "the search times the rows over the rows searched for. Their pairs are compared with ours, and ours "
        "with a plain scan of some rows."
    )
    text = "\n\n".join([*texts, describe_machine(len(cpus), PACKAGES)])
    print(text)
    if arguments.update_docs:
        replace_between(ROOT / "benchmarks" / "README.md", "joining-many", text)


if __name__ == "__main__":
    run(main, CONTENDERS)
