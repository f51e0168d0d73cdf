"""The libraries that find all pairs of hashes within a radius, called as their documentation says, with two threads.

The time begins with the hashes in the form that a library takes and ends with its own form of the result: it includes
building an index, and no conversion.
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from math import comb
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from harness import Contender, Way

U8 = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cell:
    """One join: the first `n` hashes of a file, within a radius.

    Parameters
    ----------
    kind
        ``"phash"`` or ``"bmh1"``.
    hashes
        File of an array (rows, n_bytes) of uint8.
    pairs
        File of our pairs, with which those of the other contenders are compared.
    check
        Whether the pairs are checked, or only the time is measured.
    """

    kind: str
    hashes: str
    n: int
    radius: int
    pairs: str
    check: bool = True

    def load(self) -> U8:
        return np.ascontiguousarray(np.load(self.hashes, mmap_mode="r")[: self.n])

    def frame(self) -> Any:
        return as_frame(self.load(), self.kind)


class Join(NamedTuple):
    """A prepared join: `run` is timed, `read` returns the rows of each pair from its result."""

    run: Callable[[], Any]
    read: Callable[[Any], tuple[Any, Any]]


def as_frame(hashes: U8, kind: str) -> Any:
    import polars as pl
    import pyarrow as pa

    if kind == "phash":
        return pl.DataFrame({kind: hashes.view(">u8").ravel().astype(np.uint64)})
    array = pa.FixedSizeBinaryArray.from_buffers(pa.binary(hashes.shape[1]), len(hashes), [None, pa.py_buffer(hashes)])
    return pl.DataFrame({kind: array})


def as_words(hashes: U8) -> npt.NDArray[np.uint64]:
    words = np.zeros((len(hashes), -(-hashes.shape[1] // 8)), np.uint64)
    words.view(np.uint8)[:, : hashes.shape[1]] = hashes
    return words


def _contender(label: str, packages: tuple[str, ...], prepare: Callable[[Cell, int], Join]) -> Contender:
    def ways(cell: Cell, n_threads: int) -> dict[str, Way]:
        return {"": lambda: prepare(cell, n_threads).run}

    def result(cell: Cell, n_threads: int) -> object:
        join = prepare(cell, n_threads)
        seconds, raw = _time(join.run)
        recall, n_false = _compare(cell, *join.read(raw)) if cell.check else (None, 0)
        return {"seconds": seconds, "recall": recall, "n_false": n_false}

    return Contender(label, packages, ways, result)


def _time(run: Callable[[], Any], once_s: float = 3.0) -> tuple[float, Any]:
    """Return the median seconds and a result; a first run that takes longer than `once_s` is the only one."""
    seconds: list[float] = []
    # For at least 0.4 s: after a pause, while another contender ran, the first rounds of some milliseconds are slow.
    while sum(seconds) < 0.4 or (len(seconds) == 1 and seconds[0] < once_s):
        raw = None  # two results at once would take twice the memory
        start = time.perf_counter()
        raw = run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[len(seconds) > 1 :]), raw  # the first one warms up, if there are more


# Pairs as numbers, left row * 2^32 + right row with left < right, so that two sets of them compare quickly.


def _as_numbers(left: Any, right: Any) -> npt.NDArray[np.uint64]:
    left, right = np.asarray(left, np.uint64), np.asarray(right, np.uint64)
    apart = left < right
    return np.unique((left[apart] << np.uint64(32)) | right[apart])


def _compare(cell: Cell, left: Any, right: Any) -> tuple[float | None, int]:
    """Return the share of our pairs that are found, None if we have no pairs, and the number of other pairs found."""
    found, true = _as_numbers(left, right), np.load(cell.pairs)
    n_common = len(np.intersect1d(found, true, assume_unique=True))
    return (n_common / len(true) if len(true) else None), len(found) - n_common


def _scan_sample(cell: Cell, left: Rows, right: Rows) -> tuple[float | None, int]:
    """Compare our pairs with a plain scan of some rows against all; half of these rows are in one of our pairs."""
    words = as_words(cell.load())
    rng = np.random.default_rng(cell.n + cell.radius)
    n_rows = int(np.clip(2e8 // words.size, 8, 64))
    rows = rng.integers(0, cell.n, n_rows)
    if len(left):
        rows[::2] = np.concatenate([left, right])[rng.integers(0, 2 * len(left), len(rows[::2]))]
    rows = np.unique(rows)
    near = [np.flatnonzero(np.bitwise_count(words ^ words[row]).sum(1) <= cell.radius) for row in rows]
    ends = np.repeat(rows, [len(others) for others in near]), np.concatenate(near)
    true = _as_numbers(np.minimum(*ends), np.maximum(*ends))
    ours = np.isin(left, rows) | np.isin(right, rows)
    found = _as_numbers(left[ours], right[ours])
    n_common = len(np.intersect1d(found, true, assume_unique=True))
    return (n_common / len(true) if len(true) else None), len(found) - n_common


def _ours() -> Contender:
    def prepare(cell: Cell, _n_threads: int) -> Join:
        import imgmatch_df  # noqa: F401  # registers the verbs

        frame = cell.frame()
        return Join(
            lambda: frame.imgmatch.near_duplicates(cell.radius, cell.kind),
            lambda pairs: (pairs["left_id"].to_numpy(), pairs["right_id"].to_numpy()),
        )

    def result(cell: Cell, n_threads: int) -> object:
        join = prepare(cell, n_threads)
        seconds, raw = _time(join.run, once_s=12)  # the first run may compile kernels
        if not cell.check:
            return {"seconds": seconds, "recall": None, "n_false": 0, "n_pairs": len(raw)}
        left, right = join.read(raw)
        np.save(cell.pairs, _as_numbers(left, right))
        recall, n_false = _scan_sample(cell, left, right)
        return {"seconds": seconds, "recall": recall, "n_false": n_false, "n_pairs": len(raw)}

    return Contender(
        "imgmatch-df", ("imgmatch-df",), lambda cell, n_threads: {"": lambda: prepare(cell, n_threads).run}, result
    )


def _faiss(make_index: Callable[[Any, int, int, int], Any]) -> Callable[[Cell, int], Join]:
    def prepare(cell: Cell, n_threads: int) -> Join:
        import faiss

        faiss.omp_set_num_threads(n_threads)
        codes = cell.load()

        def run() -> Any:
            index = make_index(faiss, 8 * codes.shape[1], cell.n, cell.radius)
            index.add(codes)
            return index.range_search(codes, cell.radius + 1)  # faiss's radius is exclusive

        return Join(run, lambda raw: (np.repeat(np.arange(cell.n), np.diff(raw[0].astype(np.int64))), raw[2]))

    return prepare


def _multi_hash(faiss: Any, n_bits: int, n: int, radius: int) -> Any:
    """Make the index of the setting with the least expected work of those that find every pair."""
    settings = []
    for n_bands in range(1, min(radius + 1, 32) + 1):
        width, n_flips = min(n_bits // n_bands, 32), radius // n_bands
        probes = sum(comb(width, flips) for flips in range(n_flips + 1))
        settings.append((n_bands * probes * (1 + n / 2**width), n_bands, width, n_flips))
    _, n_bands, width, n_flips = min(settings)
    index = faiss.IndexBinaryMultiHash(n_bits, n_bands, width)
    index.nflip = n_flips
    return index


def _pynear(cell: Cell, _n_threads: int) -> Join:
    import pynear

    codes = cell.load()

    def run() -> Any:
        index = pynear.BKTreeBinaryIndex64() if codes.shape[1] == 8 else pynear.BKTreeBinaryIndexN()
        index.set(codes)
        return index.find_threshold(codes, cell.radius)

    return Join(run, lambda raw: _of_lists(raw[0]))


def _of_lists(neighbours: Iterable[Iterable[int]]) -> tuple[Any, Any]:
    lists = [list(row) for row in neighbours]
    return np.repeat(np.arange(len(lists)), [len(row) for row in lists]), np.fromiter(chain(*lists), np.int64)


def _hammingbird(cell: Cell, _n_threads: int) -> Join:
    from hammingbird import find_pairs_self

    codes = cell.load()
    return Join(
        lambda: find_pairs_self(codes, k=cell.radius),
        lambda raw: tuple(np.array([pair[:2] for pair in raw], np.int64).reshape(-1, 2).T),
    )


def _imagededup(method: str) -> Callable[[Cell, int], Join]:
    """Search as imagededup's ``HashEval`` does: each hash against its index, in processes.

    ``HashEval`` itself cannot be imported without torch. The distance is one xor where imagededup compares characters:
    that is faster, and right for hashes of more than 64 bits.
    """

    def prepare(cell: Cell, n_threads: int) -> Join:
        from imagededup.handlers.search.bktree import BKTree
        from imagededup.handlers.search.brute_force_cython import BruteForceCython

        sys.setrecursionlimit(100_000)  # its tree is built by recursion
        hashes = {str(row): code.tobytes().hex() for row, code in enumerate(cell.load())}

        def run() -> Any:
            index = (BKTree if method == "bktree" else BruteForceCython)(hashes, _hex_distance)
            _of_child[:] = [index, list(hashes.values()), cell.radius]
            with get_context("fork").Pool(n_threads) as pool:  # 100 at a time, as in imagededup
                return pool.map(_search_in_child, range(cell.n), 100)

        return Join(run, _of_lists)

    return prepare


_of_child: list[Any] = []


def _search_in_child(row: int) -> list[int]:
    index, hashes, radius = _of_child
    return [int(name) for name, _ in index.search(hashes[row], radius)]


def _hex_distance(left: str, right: str) -> int:
    return (int(left, 16) ^ int(right, 16)).bit_count()


def _polars(cell: Cell, _n_threads: int) -> Join:
    import polars as pl

    columns = _word_columns(cell)
    frame = pl.DataFrame(columns).with_row_index("row").lazy()
    distance = pl.sum_horizontal(
        (pl.col(name) ^ pl.col(f"{name}_right")).bitwise_count_ones().cast(pl.UInt16) for name in columns
    )
    pairs = frame.join(frame, how="cross").filter(pl.col("row") < pl.col("row_right"), distance <= cell.radius)
    query = pairs.select("row", "row_right")
    return Join(
        lambda: query.collect(engine="streaming"), lambda raw: (raw["row"].to_numpy(), raw["row_right"].to_numpy())
    )


def _duckdb(cell: Cell, n_threads: int) -> Join:
    import duckdb
    import pyarrow as pa

    columns = _word_columns(cell)
    table = pa.table({"row": np.arange(cell.n), **columns})
    connection = duckdb.connect(config={"threads": n_threads})
    connection.register("arriving", table)
    connection.execute("CREATE TABLE hashes AS FROM arriving")
    distance = " + ".join(f"bit_count(xor(l.{name}, r.{name}))::SMALLINT" for name in columns)
    query = (
        "SELECT l.row AS l, r.row AS r FROM hashes AS l CROSS JOIN hashes AS r "
        f"WHERE l.row < r.row AND {distance} <= {cell.radius}"
    )
    return Join(lambda: connection.execute(query).fetchnumpy(), lambda raw: (raw["l"], raw["r"]))


def _word_columns(cell: Cell) -> dict[str, npt.NDArray[np.uint64]]:
    """Return hashes as columns of 64 bits, because neither engine has a fast xor of bytes."""
    words = as_words(cell.load())
    return {f"w{i}": np.ascontiguousarray(words[:, i]) for i in range(words.shape[1])}


# The limit of ranking, and ours: one query against all rows, in interleaved rounds.


def _read_once(hashes: U8, _n_threads: int) -> dict[str, Way]:
    words = hashes.ravel()[: hashes.size // 8 * 8].view(np.uint64)
    return {"": lambda: lambda: np.bitwise_xor.reduce(words)}


def _rank(hashes: U8, _n_threads: int) -> dict[str, Way]:
    import imgmatch_df

    frame, query = as_frame(hashes, "bmh1"), hashes[len(hashes) // 2].tobytes()
    return {"": lambda: lambda: imgmatch_df.rank_images(frame, query, k=10)}


def _rank_result(hashes: U8, _n_threads: int) -> object:
    """Return whether the ten nearest rows are those of a plain scan, ties in row order."""
    import imgmatch_df

    frame, query = as_frame(hashes, "bmh1"), hashes[len(hashes) // 2]
    ranked = imgmatch_df.rank_images(frame.with_row_index("row"), query.tobytes(), k=10)
    words = as_words(hashes)
    distances = np.bitwise_count(words ^ words[len(hashes) // 2]).sum(1)
    return ranked["row"].to_list() == np.argsort(distances, kind="stable")[:10].tolist()


# Many queries at once, of ours and of faiss: seconds of all, and whether the distances are those of one query alone.

N_QUERIES, K = 1000, 10


def _queries_of(hashes: U8) -> U8:
    return np.ascontiguousarray(hashes[:: max(1, len(hashes) // N_QUERIES)][:N_QUERIES])


def _rank_many_result(hashes: U8, _n_threads: int) -> object:
    import imgmatch_df

    frame, queries = as_frame(hashes, "bmh1"), _queries_of(hashes)
    queried = as_frame(queries, "bmh1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the radius is of all bits
        seconds, raw = _time(lambda: imgmatch_df.match(queried, frame, 961, k=K))
    single, _ = _time(lambda: [imgmatch_df.rank_images(frame, query.tobytes(), k=K) for query in queries[:20]])
    numbered, right = frame.with_row_index("row"), True
    for row in range(0, len(queries), 50):
        one = imgmatch_df.rank_images(numbered, queries[row].tobytes(), k=K)
        got = raw.filter(raw["query_id"] == row)
        right &= got["reference_id"].to_list() == one["row"].to_list()
        right &= got["distance"].to_list() == one["distance"].to_list()
    return {"seconds": seconds, "single": single / 20, "right": float(right)}


def _flat_many_result(hashes: U8, n_threads: int) -> object:
    import faiss

    faiss.omp_set_num_threads(n_threads)
    index, queries = faiss.IndexBinaryFlat(8 * hashes.shape[1]), _queries_of(hashes)
    index.add(np.ascontiguousarray(hashes))
    seconds, _ = _time(lambda: index.search(queries, K))
    single, _ = _time(lambda: [index.search(query[None], K) for query in queries[:20]])
    return {"seconds": seconds, "single": single / 20, "right": 1.0}


# Memory, each in a separate worker: the maximum growth of the process while a verb runs.


def _measure_memory(call: Callable[[Any], Any], frame: Any) -> dict[str, float]:
    call(frame.head(2000))  # imports, compiled kernels
    before = _reset_peak()
    start = time.perf_counter()
    result = call(frame)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "growth": _status("VmHWM") - before,
        "result": float(result.estimated_size()),
        "n_rows": float(len(result)),
    }


def _reset_peak() -> float:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(key: str) -> float:
    """Return a line of the process's status, in bytes; NaN if the system has none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except FileNotFoundError:
        return float("nan")
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith(key))


def _join_memory(cell: Cell, _n_threads: int) -> object:
    import imgmatch_df

    return _measure_memory(lambda frame: imgmatch_df.near_duplicates(frame, cell.radius, cell.kind), cell.frame())


def _cluster_memory(cell: Cell, _n_threads: int) -> object:
    import imgmatch_df

    return _measure_memory(lambda frame: imgmatch_df.cluster(frame, cell.radius, cell.kind), cell.frame())


def _nothing(_data: object, _n_threads: int) -> dict[str, Way]:
    return {"": lambda: lambda: None}


JOINERS = {
    "ours": _ours(),
    "flat": _contender(
        "faiss `IndexBinaryFlat`", ("faiss-cpu",), _faiss(lambda faiss, n_bits, *_: faiss.IndexBinaryFlat(n_bits))
    ),
    "multi": _contender("faiss `IndexBinaryMultiHash`", ("faiss-cpu",), _faiss(_multi_hash)),
    "hammingbird": _contender("hammingbird", ("hammingbird",), _hammingbird),
    "pynear": _contender("pynear BK-tree", ("pynear",), _pynear),
    "imagededup": _contender("imagededup, Cython scan", ("imagededup",), _imagededup("cython")),
    "imagededup-tree": _contender("imagededup BK-tree", ("imagededup",), _imagededup("bktree")),
    "duckdb": _contender("DuckDB cross join", ("duckdb",), _duckdb),
    "polars": _contender("Polars cross join", ("polars",), _polars),
}
CONTENDERS = {
    **JOINERS,
    "read": Contender("`numpy.bitwise_xor.reduce`", ("numpy",), _read_once),
    "rank": Contender("`rank_images`, k=10", ("imgmatch-df",), _rank, _rank_result),
    "rank-many": Contender("imgmatch-df", ("imgmatch-df",), _nothing, _rank_many_result),
    "flat-many": Contender("faiss `IndexBinaryFlat.search`", ("faiss-cpu",), _nothing, _flat_many_result),
    "join-memory": Contender("join", ("imgmatch-df",), _nothing, _join_memory),
    "cluster-memory": Contender("cluster", ("imgmatch-df",), _nothing, _cluster_memory),
}
# Their time grows as the square of the number of rows, for any hashes.
SCANS = {"flat", "imagededup", "duckdb", "polars"}
