"""What the expressions of one statement share, and that no statement gets what an earlier one read."""

import gc
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from drawing import draw, jpeg
from hostile_server import HostileServer
from polars.testing import assert_frame_equal

import imgmatch_df
from imgmatch_df.batch import run as batches
from imgmatch_df.batch import sharing, statements
from imgmatch_df.frames import expressions
from imgmatch_df.hashes.kinds import batch_fields

pytestmark = pytest.mark.long

ENGINES = ["eager", "in-memory", "streaming"]
WEB = {"allow_private_networks": True, "attempts": 1}


@pytest.fixture
def server(encoded):
    with HostileServer(encoded[:3]) as running:
        yield running


@pytest.fixture
def hashed_rows(monkeypatch):
    """The number of rows of each batch that was hashed."""
    sizes: list[int] = []
    real = batches.hash_batch

    def counting(values, options, *kinds):
        sizes.append(len(values))
        return real(values, options, *kinds)

    monkeypatch.setattr(batches, "hash_batch", counting)
    return sizes


def run(frame: pl.DataFrame, engine: str, *exprs: pl.Expr) -> pl.DataFrame:
    if engine == "eager":
        return frame.select(*exprs)
    return frame.lazy().select(*exprs).collect(engine=engine)


def two(**options: object) -> tuple[pl.Expr, pl.Expr]:
    return pl.col("url").imgmatch.phash(**options), pl.col("url").imgmatch.bmh1(**options)


# --- nothing of an earlier statement ---------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("second", ["the same expression", "the other expression", "both"])
def test_a_later_statement_reads_again(server, engine, second):
    frame = pl.DataFrame({"url": [server.url("/flaky?times=1&code=500")]})
    phash, bmh1 = two(**WEB)
    assert run(frame, engine, phash).row(0) == (None,)
    chosen = {"the same expression": [phash], "the other expression": [bmh1], "both": [phash, bmh1]}[second]
    assert None not in run(frame, engine, *chosen).row(0)


def test_an_eager_statement_after_a_lazy_one_reads_again(server):
    frame = pl.DataFrame({"url": [server.url("/flaky?times=2&code=500")]})
    exprs = two(**WEB)
    found = [run(frame, engine, *exprs).row(0) for engine in ("in-memory", "eager", "streaming")]
    assert [None in row for row in found] == [True, True, False]


def test_one_lazy_frame_collected_twice_reads_twice(server):
    frame = pl.LazyFrame({"url": [server.url("/flaky?times=1&code=500")]}).select(*two(**WEB))
    assert frame.collect().row(0) == (None, None)
    assert None not in frame.collect().row(0)


@pytest.mark.parametrize("engine", ENGINES)
def test_each_statement_inside_one_function_reads_again(server, engine):
    """`pipe` and `map_batches` are functions of Polars that run statements of the user."""
    phash, bmh1 = two(**WEB)

    def twice(frame: pl.DataFrame) -> pl.DataFrame:
        return pl.concat(
            [run(frame, engine, phash), run(frame, engine, bmh1.is_not_null().alias("bmh1"))], how="horizontal"
        )

    out = pl.DataFrame({"url": [server.url("/flaky?times=1&code=500")]}).pipe(twice)
    assert out.row(0) == (None, True)
    lazy = pl.LazyFrame({"url": [server.url("/flaky/b?times=1&code=500")]})
    out = lazy.map_batches(twice, schema={"phash": pl.UInt64, "bmh1": pl.Boolean}).collect()
    assert out.row(0) == (None, True)


def test_a_statement_that_starts_while_another_runs_reads_again(paths, monkeypatch):
    """The second thread asks for the same buffers while the first one is hashing them."""
    real, inside = batches.hash_batch, [threading.Event(), threading.Event()]
    order = iter(inside)

    def meeting(values, options, *kinds):
        next(order).set()
        assert inside[1].wait(200)
        return real(values, options, *kinds)

    monkeypatch.setattr(batches, "hash_batch", meeting)
    phash, bmh1 = two()
    with ThreadPoolExecutor(2) as users:
        first = users.submit(paths.select, phash)
        assert inside[0].wait(200)
        second = users.submit(paths.select, bmh1)
        assert first.result()["phash"].null_count() == second.result()["bmh1"].null_count() == 0


def test_a_file_of_the_same_size_and_time_is_read_again(tmp_path):
    red, blue = (draw(seed, 40, 40) for seed in (1, 2))
    data = [jpeg(image) for image in (red, blue)]
    data = [one.ljust(max(map(len, data)), b"\0") for one in data]
    path = tmp_path / "a.jpg"
    frame = pl.DataFrame({"url": [str(path)]})
    exprs = two()
    found = []
    for one in data:
        path.write_bytes(one)
        os.utime(path, ns=(0, 0))
        found.append(frame.select(*exprs).row(0))
    assert found == [pl.DataFrame({"url": [one]}).select(*exprs).row(0) for one in data]
    assert found[0] != found[1]


# --- one statement reads once ----------------------------------------------------------------------------------------

ONCE = """
import sys
import polars as pl
import imgmatch_df
from imgmatch_df.batch import run as batches, sharing

sizes = []
real = batches.hash_batch
def counting(values, options, *kinds):
    sizes.append(len(values))
    return real(values, options, *kinds)
batches.hash_batch = counting

frame = pl.DataFrame({"url": sys.argv[1:]})
column = pl.col("url").imgmatch
phash, bmh1, whole = column.phash(), column.bmh1(), column.visual_hash()
exprs = [phash, bmh1, whole, phash.imgmatch.hamming(0).alias("d"), bmh1.imgmatch.to_bits().alias("bits")]
verb = lambda inner: inner.with_columns(phash, bmh1).select("url")
for statement in (
    lambda: frame.select(*exprs),
    lambda: frame.with_columns(*exprs),
    lambda: frame.with_columns_seq(*exprs),
    lambda: frame.filter(phash.is_not_null() & bmh1.is_not_null()),
    lambda: frame.sort(phash, bmh1),
    lambda: frame.group_by(pl.lit(1)).agg(*exprs),
    lambda: frame.lazy().select(*exprs).collect(),
    lambda: frame.lazy().select(*exprs).collect(engine="streaming"),
    lambda: frame.pipe(lambda inner: inner.select(*exprs)),
    lambda: frame.lazy().map_batches(verb, schema={"url": pl.String}).collect(),
):
    sizes.clear()
    statement()
    print(sum(sizes), end=" ")
"""


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_one_statement_hashes_each_row_once(paths, n_threads):
    command = [sys.executable, "-W", "error", "-c", ONCE, *paths["url"][:5]]
    environment = {**os.environ, "POLARS_MAX_THREADS": str(n_threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert (done.stdout.split(), done.stderr) == (["5"] * 10, "")


@pytest.mark.parametrize("engine", ENGINES)
def test_one_statement_fetches_each_url_once(server, engine):
    urls = [server.url(f"/ok/{number}.jpg") for number in range(3)]
    server.targets.clear()
    run(pl.DataFrame({"url": urls}), engine, *two(**WEB), pl.col("url").imgmatch.visual_hash(**WEB))
    assert list(server.targets.values()) == [1, 1, 1]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_frame_verb_reads_each_source_once_per_call(server, engine):
    urls = [server.url(f"/ok/{number}.jpg") for number in range(3)]
    frame = pl.DataFrame({"url": urls})
    server.targets.clear()
    for n_calls in (1, 2):
        if engine == "eager":
            out = frame.imgmatch.visual_hash(**WEB)
        else:
            out = frame.lazy().imgmatch.visual_hash(**WEB).collect(engine=engine)
        assert out["status"].to_list() == ["ok"] * 3
        assert list(server.targets.values()) == [n_calls] * 3


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_the_lazy_verb_hashes_no_row_that_is_not_selected(paths, engine, hashed_rows):
    hashed = paths.with_row_index().lazy().imgmatch.visual_hash()
    for query, n_rows in (
        (hashed.head(2), 2),
        (hashed.filter(pl.col("index") < 3), 3),
        (hashed.select("index"), 0),
        (hashed.select("phash", "status"), len(paths)),
        (hashed.filter(pl.col("status") == "ok"), len(paths)),
    ):
        hashed_rows.clear()
        query.collect(engine=engine)
        assert sum(hashed_rows) == n_rows


STATEMENTS = {
    "verb": lambda frame, engine: (
        frame.imgmatch.visual_hash()
        if engine == "eager"
        else frame.lazy().imgmatch.visual_hash().collect(engine=engine)
    ),
    "expressions": lambda frame, engine: run(frame, engine, *two()),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_sharing_costs_no_stat_and_no_thread(paths, monkeypatch, statement, engine):
    """The second statement calls `os.stat` on no source, and starts no thread outside of the pool."""
    stats, starts = [], []
    stat, start = os.stat, threading.Thread.start

    def counting_stat(path, *arguments, **options):
        stats.append(path)
        return stat(path, *arguments, **options)

    def counting_start(thread):
        if not thread.name.startswith("imgmatch_"):  # the pool starts its threads as they are needed
            starts.append(thread)
        start(thread)

    statement(paths, engine)
    monkeypatch.setattr(os, "stat", counting_stat)
    monkeypatch.setattr(threading.Thread, "start", counting_start)
    out = statement(paths, engine)
    threading.Thread(target=paths["url"].len).start()
    Path(__file__).stat()
    assert out["phash"].null_count() == 0
    assert [path for path in stats if path in set(paths["url"])] == []
    assert stats
    assert len(starts) == 1


def test_threads_of_the_caller_share_no_wrong_batches(paths, encoded):
    frames = [paths, pl.DataFrame({"url": encoded}), paths.reverse()]
    exprs = two()
    expected = [frame.select(*exprs) for frame in frames]
    with ThreadPoolExecutor(6) as users:
        for number, out in enumerate(users.map(lambda number: frames[number % 3].select(*exprs), range(18))):
            assert_frame_equal(out, expected[number % 3])


# --- nothing is held -------------------------------------------------------------------------------------------------


def held() -> int:
    gc.collect()
    return sum(isinstance(thing, sharing._Flight) for thing in gc.get_objects())


@pytest.mark.parametrize("engine", ENGINES)
def test_no_batch_is_held_after_its_statement(paths, engine):
    phash, bmh1 = two()
    run(paths, engine, phash)
    run(paths, engine, phash, bmh1)
    with pytest.raises((imgmatch_df.ImgMatchError, pl.exceptions.ComputeError)):
        run(pl.DataFrame({"url": ["no-such-file"]}), engine, *two(on_error="raise"))
    assert held() == 0
    del bmh1


def test_a_statement_holds_few_batches(paths, monkeypatch):
    most = 0
    put = statements.Running.put

    def watching(self, *arguments):
        nonlocal most
        put(self, *arguments)
        most = max(most, held())

    monkeypatch.setattr(statements.Running, "put", watching)
    phash, bmh1 = two()
    paths.with_row_index().group_by("index").agg(phash, bmh1)
    assert 0 < most <= 3 * sharing._MAX_HELD  # those held, and those at work


def test_a_single_expression_reads_no_stack(paths, monkeypatch):
    monkeypatch.setattr(sharing, "Running", None)
    gc.collect()
    paths.select(pl.col("url").imgmatch.phash(max_bytes=10**6 + 1))
    paths.imgmatch.visual_hash(max_bytes=10**6 + 1)
    paths.lazy().imgmatch.visual_hash(max_bytes=10**6 + 1).collect(engine="streaming")


def test_the_expressions_kept_are_few_and_locked():
    """Many threads make expressions on many columns; the table of shared ones is one of few entries."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as users:
            for _ in users.map(lambda number: pl.col(f"c{number % 19}").imgmatch.phash(), range(4000)):
                pass
    finally:
        sys.setswitchinterval(interval)
    assert len(expressions._shared) <= expressions._MAX_SHARED


# --- expressions travel ----------------------------------------------------------------------------------------------

TRAVEL = """
import io, pickle, sys
import polars as pl
from imgmatch_df.batch import run as batches, sharing

n_rows = 0
real = batches.hash_batch
def counting(values, options, *kinds):
    global n_rows
    n_rows += len(values)
    return real(values, options, *kinds)
batches.hash_batch = counting
frame, exprs, query = pickle.loads(sys.stdin.buffer.read())
out = [frame.select(*exprs), frame.lazy().select(*exprs).collect()]
out.append(pl.LazyFrame.deserialize(io.BytesIO(query)).collect())
sys.stdout.buffer.write(pickle.dumps((out, n_rows)))
"""


def test_expressions_and_queries_work_in_another_process(paths, tmp_path):
    cloudpickle = pytest.importorskip("cloudpickle", reason="Polars needs it to pickle any expression of a function")
    storage = {"key": "k", "nested": {"a": [1]}}
    web = {"headers": {"h.example": {"Authorization": "Bearer x"}}, "proxy": "http://me:pw@proxy.example:1"}
    options = {"storage_options": storage, **web, "allow_private_networks": True, "base_dir": tmp_path, "timeout_s": 9}
    phash, bmh1 = two(**options)
    exprs = [
        phash,
        bmh1,
        pl.col("url").imgmatch.visual_hash(hash_types="phash", **options),
        phash.imgmatch.hamming(5).alias("to one"),
        phash.imgmatch.hamming(phash).alias("to itself"),
        bmh1.imgmatch.to_bits().imgmatch.from_bits("bmh1").alias("back"),
    ]
    expected = paths.select(*exprs)
    query = paths.lazy().imgmatch.visual_hash(**options).imgmatch.cluster(24).select("phash", "cluster_id")
    for dumps in (pickle.dumps, cloudpickle.dumps):
        sent = dumps((paths, exprs, query.serialize()))
        done = subprocess.run([sys.executable, "-c", TRAVEL], input=sent, capture_output=True, timeout=240, check=True)
        (eager, lazy, verb), n_rows = pickle.loads(done.stdout)
        assert_frame_equal(eager, expected)
        assert_frame_equal(lazy, expected)
        assert_frame_equal(verb, query.collect())
        assert n_rows == 3 * len(paths)


def test_pickled_expressions_contain_no_locks():
    """Without Polars' own wrapper, which only cloudpickle can pickle."""
    options = imgmatch_df.options.make_options(storage_options={"secret": "s"}, max_pixels=10**6)
    dtype = pl.Struct(batch_fields(["phash"]))
    shared = sharing.shared_batches(options, dtype, b"source")
    for one in (shared, sharing.SharedBatches(options, dtype), sharing.Field(shared, "phash"), options):
        assert type(pickle.loads(pickle.dumps(one))) is type(one)
    assert pickle.loads(pickle.dumps(shared)) is shared
    assert pickle.loads(pickle.dumps(options)) == options


@pytest.mark.skipif(not hasattr(sys, "_current_frames"), reason="stacks cannot be read here")
def test_stacks_name_the_statements():
    seen = []

    def look(values: pl.Series) -> pl.Series:
        seen.append(
            [frame.f_code.co_name for one in sys._current_frames().values() for frame in statements._statements(one)]
        )
        return values

    expr = pl.col("a").map_batches(look, return_dtype=pl.Int64, is_elementwise=True)
    pl.DataFrame({"a": [1]}).select(expr, expr.alias("b"))
    pl.DataFrame({"a": [1]}).pipe(lambda frame: frame.with_columns(expr))
    assert seen == [["select"], ["select"], ["with_columns", "pipe"]]
