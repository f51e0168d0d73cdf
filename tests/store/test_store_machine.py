"""Any sequence of runs, read meanwhile and killed now and then, leaves what a dictionary would hold."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partialmethod
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from polars.testing import assert_frame_equal

import imgmatch_df
from imgmatch_df import StoreError, WriteSummary
from imgmatch_df.columns import STATUS_DTYPE
from imgmatch_df.frames import chunks, writing
from imgmatch_df.store import duckdb, parquet

pytestmark = pytest.mark.long

ROWS_OF_A_COMMIT = 4
SCHEMA = {
    "source": pl.String,
    "phash": pl.UInt64,
    "status": STATUS_DTYPE,
    "size": pl.UInt64,
    "modified": pl.Datetime("us", "UTC"),
}
COLUMNS = list(SCHEMA)

# One row: its key, the day of its file, and whether it has a hash.
ROWS = st.lists(
    st.tuples(st.integers(0, 30).map(lambda key: f"{key}.jpg"), st.integers(1, 3), st.booleans()), max_size=24
)


def row_of(key, day, has_hash):
    digest = hash((key, day)) % 2**64
    modified = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
    return (key, digest if has_hash else None, "ok" if has_hash else "decode_failed", 1000, modified)


def frame_of(rows):
    return pl.DataFrame([row_of(*row) for row in rows], schema=SCHEMA, orient="row")


class Model:
    """What the store holds: rows by key, in order."""

    def __init__(self):
        self.rows = {}

    def commits(self, rows, *, retry_failed):
        """Return the summary of a run, and what each of its commits stores."""
        seen, done, commits = set(), WriteSummary(), []
        for first in range(0, len(rows), ROWS_OF_A_COMMIT):
            commit = {}
            for key, day, has_hash in rows[first : first + ROWS_OF_A_COMMIT]:
                known = self.rows.get(key)
                if key in seen:
                    done += WriteSummary(n_duplicates=1)
                    continue
                seen.add(key)
                if known is None:
                    done += WriteSummary(n_new=1)
                elif known[1] != day:
                    done += WriteSummary(n_changed=1)
                elif retry_failed and not known[2]:
                    done += WriteSummary(n_retried=1)
                else:
                    done += WriteSummary(n_skipped=1, n_failed=not known[2], n_failed_before=not known[2])
                    continue
                commit[key] = (key, day, has_hash)
                done += WriteSummary(n_failed=not has_hash)
            commits += [commit] if commit else []
        return done, seen, commits

    def frame(self):
        return frame_of(self.rows.values())


class Killed(BaseException):
    """A run ends."""


class Machine(RuleBasedStateMachine):
    """Runs of `write_hashes` beside the model."""

    form = ""

    @initialize()
    def make(self):
        self.folder = TemporaryDirectory()
        self.target = Path(self.folder.name, self.form)
        self.model = Model()
        imgmatch_df.write_hashes(frame_of([]), self.target)

    def teardown(self):
        self.folder.cleanup()

    @rule(rows=ROWS, retry_failed=st.booleans(), prune=st.sampled_from([False, True, "all"]), lazy=st.booleans())
    def write(self, rows, retry_failed, prune, lazy):
        wanted, keys, commits = self.model.commits(rows, retry_failed=retry_failed)
        dropped = [key for key in self.model.rows if key not in keys]
        refused = prune is True and bool(dropped) and (2 * len(dropped) > len(self.model.rows) or not rows)
        frame = frame_of(rows)
        before = self.model.frame()
        stored = frame_of([row for commit in commits for row in commit.values()])

        def seen(store, commit, *rows):
            self.read_meanwhile(before, stored)
            commit(store, *rows)
            self.read_meanwhile(before, stored)

        def call():
            return imgmatch_df.write_hashes(
                frame.lazy() if lazy else frame, self.target, retry_failed=retry_failed, prune=prune
            )

        with self.watched(seen):
            if refused:
                with pytest.raises(StoreError, match=r"prune=True would drop .*\nHint: is it whole"):
                    call()
                if lazy:
                    self.apply(commits)
                return
            done = call()
        self.apply(commits)
        if prune:
            for key in dropped:
                del self.model.rows[key]
            wanted += WriteSummary(n_pruned=len(dropped))
        assert done == wanted

    @rule(rows=ROWS, n_commits=st.integers(0, 4), lazy=st.booleans())
    def killed(self, rows, n_commits, lazy):
        _, _, commits = self.model.commits(rows, retry_failed=False)
        self.kill(frame_of(rows), n_commits)
        self.apply(commits[:n_commits])

    @rule()
    def again(self):
        rows = list(self.model.rows.values())
        done = imgmatch_df.write_hashes(frame_of(rows), self.target, prune=True)
        n_failed = sum(not row[2] for row in rows)
        assert done == WriteSummary(n_skipped=len(rows), n_failed=n_failed, n_failed_before=n_failed)

    @invariant()
    def is_read(self):
        if hasattr(self, "model"):
            found = imgmatch_df.read_hashes(self.target).select(COLUMNS)
            assert_frame_equal(found, self.model.frame())
            found = imgmatch_df.scan_hashes(self.target).filter(pl.col("phash").is_not_null()).select("source")
            assert found.collect().height == sum(row[2] for row in self.model.rows.values())

    def apply(self, commits):
        for commit in commits:
            self.model.rows |= commit  # a key that is there keeps its place

    def read_meanwhile(self, before, stored):
        """Each row is one that was there, or one that is being stored, and none is there twice or not at all."""
        found = imgmatch_df.read_hashes(self.target).select(COLUMNS)
        assert found["source"].is_unique().all()
        known = pl.concat([before, stored])
        assert found.join(known, on=COLUMNS, how="anti", nulls_equal=True).is_empty()
        assert set(before["source"]) <= set(found["source"])

    @contextmanager
    def watched(self, commit):
        """Let stores call `commit` with what they would do instead."""
        with pytest.MonkeyPatch.context() as patch:
            for store in (duckdb.DuckDBStore, parquet.ParquetStore):
                patch.setattr(store, "commit", partialmethod(commit, store.commit))
            yield

    def kill(self, frame, n_commits):
        """End a run after so many commits."""
        left = n_commits

        def stop(store, commit, *rows):
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            commit(store, *rows)

        with self.watched(stop), suppress(Killed):
            imgmatch_df.write_hashes(frame, self.target)


# Killed by the system: before a commit, or after the last one.
_KILLED = """
import os, sys
import polars as pl
import imgmatch_df
from imgmatch_df.frames import chunks, writing as storing
from imgmatch_df.store import duckdb as duckdb_store, parquet as parquet_store
storing.CHUNK_ROWS_OF_HASHES = chunks.CHUNK_ROWS_OF_HASHES = 4
parquet_store._COMMIT_S = parquet_store._COMMIT_SHARE = 0.0
parquet_store._PART_ROWS = 10
left = int(sys.argv[3])
def stop(of):
    def commit(store, *rows):
        global left
        if left == 0:
            os.kill(os.getpid(), 9)
        left -= 1
        of(store, *rows)
    return commit
for store in (duckdb_store.DuckDBStore, parquet_store.ParquetStore):
    store.commit = stop(store.commit)
storing._WriteRun.finish = lambda _: os.kill(os.getpid(), 9)
imgmatch_df.write_hashes(pl.read_parquet(sys.argv[1]), sys.argv[2])
"""


class KilledMachine(Machine):
    """The same with processes that are killed."""

    def kill(self, frame, n_commits):
        rows = Path(self.folder.name, "rows.parquet")
        frame.write_parquet(rows)
        command = [sys.executable, "-W", "error", "-c", _KILLED, rows, self.target, str(n_commits)]
        assert subprocess.run(command).returncode == -signal.SIGKILL
        rows.unlink()


@pytest.fixture(autouse=True)
def small_commits(monkeypatch):
    for module in (writing, chunks):
        monkeypatch.setattr(module, "CHUNK_ROWS_OF_HASHES", ROWS_OF_A_COMMIT)
    monkeypatch.setattr(parquet, "_COMMIT_S", 0.0)
    monkeypatch.setattr(parquet, "_COMMIT_SHARE", 0.0)
    monkeypatch.setattr(parquet, "_PART_ROWS", 10)


def run(machine, form, n_examples, n_steps):
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        type(machine.__name__, (machine,), {"form": form}),
        settings=settings(
            max_examples=n_examples,
            stateful_step_count=n_steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("form", ["hashes.duckdb", "hashes.parquet", "parts"])
def test_any_sequence_of_runs(form):
    run(Machine, form, 2 if form.endswith("duckdb") else 5, 8)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.name == "nt", reason="uses signals of Unix")
@pytest.mark.parametrize("form", ["hashes.duckdb", "hashes.parquet", "parts"])
def test_any_sequence_of_runs_and_kills(form):
    run(Machine, form, 8 if form.endswith("duckdb") else 16, 12)
    run(KilledMachine, form, 3 if form.endswith("duckdb") else 5, 8)
