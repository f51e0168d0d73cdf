"""`imgmatch serve --store`: answers from memory, keeps up with the store, and never keeps anybody from writing it."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import polars as pl
import pytest
import service
from hypothesis import given, settings
from hypothesis import strategies as st
from service import PROGRAM, Service
from waiting import wait_until

import imgmatch_df
from imgmatch_df import columns
from imgmatch_df.errors import StoreError
from imgmatch_df.hashes import kinds
from imgmatch_df.options import Recipe
from imgmatch_df.server import private_copy as copies
from imgmatch_df.server import snapshot
from imgmatch_df.server import store_lookup as stored_module
from imgmatch_df.server.private_copy import BeingWrittenError, identify, private_copy
from imgmatch_df.server.snapshot import COLUMNS, Snapshot
from imgmatch_df.server.store_lookup import StoredRows, check_store

pytestmark = pytest.mark.long

FORMS = {"duckdb": "hashes.duckdb", "folder": "hashes", "parquet": "hashes.parquet"}
N_ROWS = 20_000
FOLDERS = [str(Path(file).parent) for file in (__file__, service.__file__)]


def url(number):
    return f"http://a.invalid/{number}.jpg"  # cannot be fetched: what is answered has been stored


def rows(numbers, version=0):
    """Rows whose hashes tell number and version."""
    numbers = list(numbers)
    bmh1 = [hashlib.sha512(f"{number}/{version}".encode()).digest() * 2 for number in numbers]
    return pl.DataFrame(
        {
            "source": [url(number) for number in numbers],
            "width": [number % 1000 + 1 for number in numbers],
            "height": [480] * len(numbers),
            "bmh1": [hash_[:121] for hash_ in bmh1],
            "phash": [phash(number, version) for number in numbers],
            "etag": [f'"{version}"'] * len(numbers),  # which tells `write_hashes` that a row has changed
        },
        schema_overrides={"width": pl.UInt32, "height": pl.UInt32, "phash": pl.UInt64},
    )


def phash(number, version=0):
    return (number << 32 | version) + (1 << 63)


@pytest.fixture(params=FORMS)
def store(request, tmp_path):
    path = tmp_path / FORMS[request.param]
    imgmatch_df.write_hashes(rows(range(100)), path)
    return path


@contextmanager
def stored(path, **options):
    found = StoredRows(path, Recipe(), **options)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def looks(monkeypatch):
    """A function that waits until the files of a store have been looked at three times more."""
    seen = []
    identify = stored_module.identify
    monkeypatch.setattr(stored_module, "identify", lambda path: seen.append(path) or identify(path))

    def wait(n_looks=3):
        n_wanted = len(seen) + n_looks
        wait_until(lambda: len(seen) >= n_wanted)

    return wait


def version_of(found, number):
    row = found([url(number)]).get(url(number))
    return None if row is None else row["phash"] - phash(number)


# Over HTTP


WRITER = """
import sys, time
sys.path[:0] = sys.argv[3:]
import imgmatch_df
from test_server_store import rows
path, ends, n = sys.argv[1], time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < ends or n < 3:
    n += 1
    imgmatch_df.write_hashes(rows(range(100), n), path)
    imgmatch_df.write_hashes(rows([20_000 + n]), path)
print(n)
"""
FOREIGN_WRITER = """
import sys, time, duckdb
path, ends, n = sys.argv[1], time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < ends or n < 3:
    n += 1
    with duckdb.connect(path) as connection:
        connection.execute("UPDATE hashes SET phash = phash + 1 WHERE source < 'http://a.invalid/2'")
    time.sleep(0.01)
print(n)
"""


def ask_at_once(running, seconds, n_clients=16):
    """Ask with several clients for some seconds, at least five times each; count the answers of each code."""
    ends = time.monotonic() + seconds

    def ask(client):
        rng = np.random.default_rng(client)
        found = Counter()
        while time.monotonic() < ends or found.total() - found["wrong"] < 5:
            numbers = rng.integers(100, N_ROWS, 5).tolist()
            answer = running.ask("visual_hash", {"records": [{"_url": url(number)} for number in numbers]})
            found[answer.code] += 1
            if answer.code == 200:
                records = answer.json["records"]
                found["wrong"] += [record.get("phash") for record in records] != [f"{phash(n):064b}" for n in numbers]
        return found

    with ThreadPoolExecutor(n_clients) as pool:
        return sum(pool.map(ask, range(n_clients)), Counter())


@pytest.mark.parametrize(
    ("form", "writer", "n_workers"),
    [
        ("duckdb", WRITER, 1),
        ("duckdb", FOREIGN_WRITER, 2),
        pytest.param("folder", WRITER, 1, marks=pytest.mark.slow),
        pytest.param("duckdb", FOREIGN_WRITER, 1, marks=pytest.mark.slow),
        pytest.param("duckdb", WRITER, 2, marks=pytest.mark.slow),
        pytest.param("folder", WRITER, 2, marks=pytest.mark.slow),
        pytest.param("parquet", WRITER, 1, marks=pytest.mark.slow),
        pytest.param("parquet", WRITER, 2, marks=pytest.mark.slow),
    ],
    ids=lambda value: {WRITER: "ours", FOREIGN_WRITER: "foreign"}.get(value, str(value)),
)
def test_many_clients_and_a_writer_at_once(tmp_path, form, writer, n_workers):
    """No request fails, and no writer is refused."""
    path = tmp_path / FORMS[form]
    imgmatch_df.write_hashes(rows(range(N_ROWS)), path)
    with Service("--store", str(path), "--workers", str(n_workers)) as running:
        if writer is FOREIGN_WRITER:
            expected = ask_at_once(running, 1)
            assert set(expected) == {200}
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", writer, str(path), "2", *FOLDERS],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        found = ask_at_once(running, 3)
        output, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        assert int(output) > 2
        assert set(found) - {"wrong"} == {200}, found
        if writer is WRITER:  # the foreign one changes what is asked for
            assert found["wrong"] == 0
            wait_until(lambda: "phash" in ask_one(running, 20_001))
        assert not [event for event in running.events if event["event"] == "bug"]


def ask_one(running, number):
    return running.ask("visual_hash", {"records": [{"_url": url(number)}]}).json["records"][0]


def test_a_store_is_followed(store):
    with Service("--store", str(store), "--attempts", "1") as running:
        check_that_new_changed_and_removed_rows_are_seen(running, store)
        check_that_a_store_that_goes_is_answered_from_memory_and_said_once(running, store)


def check_that_new_changed_and_removed_rows_are_seen(running, store):
    assert ask_one(running, 7)["phash"] == f"{phash(7):064b}"
    assert ask_one(running, 7)["_width"] == 8
    assert "phash" not in ask_one(running, 100)
    imgmatch_df.write_hashes(rows([100]), store)
    wait_until(lambda: "phash" in ask_one(running, 100))  # about 0.2 s where nothing else runs
    imgmatch_df.write_hashes(rows([7], 1), store)
    wait_until(lambda: ask_one(running, 7)["phash"] == f"{phash(7, 1):064b}")
    imgmatch_df.write_hashes(rows(range(7, 101), 1), store, prune=True)
    wait_until(lambda: "phash" not in ask_one(running, 6))
    assert ask_one(running, 100)["phash"] == f"{phash(100, 1):064b}"
    assert running.wait_for_event("store loaded", rows=100)


def check_that_a_store_that_goes_is_answered_from_memory_and_said_once(running, store):
    n_loaded = running.count("store loaded")
    store.rename(store.with_name("away" + store.suffix))
    event = running.wait_for_event("store not read")
    assert "no such store" in event["reason"]
    assert event["level"] == "warning"
    assert event["rows"] == 94
    for number in range(7, 57):
        assert ask_one(running, number)["phash"] == f"{phash(number, 1):064b}"
    assert running.count("store not read") == 1
    imgmatch_df.write_hashes(rows([1000]), store)
    wait_until(lambda: "phash" in ask_one(running, 1000))
    assert "phash" not in ask_one(running, 7)
    wait_until(lambda: running.count("store loaded") == n_loaded + 1)


def other_kind(path):
    imgmatch_df.write_hashes(rows([1]).drop("bmh1"), path)


def other_decode(path):
    imgmatch_df.write_hashes(rows([1]), path, decode="scaled")


def no_store(path):
    path.write_bytes(b"This is no store of hashes." * 1000)


def folder_of_others(path):
    path.mkdir()
    (path / "holiday.jpg").write_bytes(b"x")


@pytest.mark.parametrize(
    ("replace", "reason"),
    [
        (other_kind, "hash_types is 'phash' in the store"),
        (other_decode, "decode is 'scaled' in the store"),
        (no_store, ""),
        (folder_of_others, "is not a store of hashes"),
    ],
)
def test_a_store_replaced_by_another_kind_is_not_taken(store, replace, reason, monkeypatch, looks):
    events = []
    monkeypatch.setattr(stored_module, "log", lambda event, **fields: events.append((event, fields)))
    with stored(store) as found:
        store.rename(store.with_name(f"away{store.suffix}"))
        replace(store)
        wait_until(lambda: any(event == "store not read" and reason in fields["reason"] for event, fields in events))
        assert version_of(found, 7) == 0
        (last,) = [fields for event, fields in events if event == "store not read" and reason in fields["reason"]][-1:]
        assert str(store) in last["reason"]
        assert "imgmatch-store-" not in last["reason"], "the name of the copy helps nobody"
        looks()
        said = [(event, fields.get("reason")) for event, fields in events]
        assert sorted(set(said)) == sorted(said), "each reason is said once"
        if store.is_dir():
            shutil.rmtree(store)
        else:
            store.unlink()
        store.with_name(f"away{store.suffix}").rename(store)
        imgmatch_df.write_hashes(rows([7], 1), store)
        wait_until(lambda: version_of(found, 7) == 1)


@pytest.mark.parametrize(
    ("name", "n_workers"),
    [
        *(
            (name, "1")
            for name in ("gone.duckdb", "gone", "gone.parquet", "text.duckdb", "text.parquet", "torn.duckdb")
        ),
        *((name, "2") for name in ("gone", "text.parquet", "torn.duckdb")),
    ],
)
def test_a_store_that_cannot_be_loaded_ends_the_start(tmp_path, name, n_workers):
    path = tmp_path / name
    if name.startswith("text"):
        no_store(path)
    elif name.startswith("torn"):
        imgmatch_df.write_hashes(rows(range(5000)), path)
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(os.urandom(300_000))
    done = subprocess.run(
        [*PROGRAM, "--port", "0", "--store", str(path), "--workers", n_workers],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert str(path) in done.stderr
    assert "Hint:" in done.stderr
    assert "Traceback" not in done.stderr
    assert '"listening"' not in done.stderr


@pytest.mark.slow
def test_a_worker_is_replaced_while_the_store_is_gone(tmp_path):
    path = tmp_path / "hashes.duckdb"
    imgmatch_df.write_hashes(rows([1]), path)
    with Service("--store", str(path), "--workers", "2", "--attempts", "1") as running:
        wait_until(lambda: len({event["pid"] for event in running.events if event["event"] == "listening"}) == 2)
        away = path.rename(tmp_path / "away.duckdb")
        victim = running.wait_for_event("listening")["pid"]
        os.kill(victim, 9)
        wait_until(lambda: len({event["pid"] for event in running.events if event["event"] == "listening"}) == 3)
        running.wait_for_event("store not read", rows=0)
        away.rename(path)
        running.wait_for_event("store loaded", rows=1)
        wait_until(lambda: all("phash" in ask_one(running, 1) for _ in range(20)))


# In one process


def test_a_store_that_comes_back_as_it_was_is_said_each_time(store, monkeypatch):
    events = []
    monkeypatch.setattr(stored_module, "log", lambda event, **_: events.append(event))
    away = store.with_name(f"away{store.suffix}")
    with stored(store) as found:
        for n_times in (1, 2):
            store.rename(away)
            wait_until(lambda n_times=n_times: events.count("store not read") == n_times)
            away.rename(store)
            wait_until(lambda n_times=n_times: events.count("store loaded") == n_times + 1)
        assert len(found) == 100


def test_a_store_that_cannot_be_looked_at_is_said(store, monkeypatch):
    """Whichever call the system refuses; some go wrong only where a folder goes away meanwhile."""
    for name in ("identify", "open_store", "private_copy"):

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        with monkeypatch.context() as patch:
            patch.setattr(stored_module, name, refuse)
            with pytest.raises(StoreError, match=r"cannot be read: Permission denied\nHint: "):
                StoredRows(store, Recipe())


def test_a_link_to_a_store_is_read_with_its_log_and_by_its_own_ending(tmp_path):
    path, link = tmp_path / "hashes-of-today", tmp_path / "hashes.duckdb"
    imgmatch_df.write_hashes(rows([1]), tmp_path / "made.duckdb")
    (tmp_path / "made.duckdb").rename(path)
    link.symlink_to(path)
    with stored(link) as found:
        assert version_of(found, 1) == 0
        with duckdb.connect(str(path)) as connection:
            insert = "INSERT INTO hashes SELECT * REPLACE (? AS source) FROM hashes LIMIT 1"
            connection.execute(insert, [url(2)])
            wait_until(lambda: found([url(2)]))
        other = tmp_path / "other.duckdb"
        imgmatch_df.write_hashes(rows([3]), other)
        link.unlink()
        link.symlink_to(other)
        wait_until(lambda: found([url(3)]))


def test_reading_leaves_the_store_as_it_is(store, tmp_path_factory, monkeypatch):
    copies = tmp_path_factory.mktemp("copies")
    monkeypatch.setattr(tempfile, "tempdir", str(copies))

    def state():
        files = [store, *store.iterdir()] if store.is_dir() else list(store.parent.iterdir())
        return {(file, file.stat().st_mtime_ns, file.is_file() and file.read_bytes()) for file in files}

    before = state()
    with stored(store) as found:
        assert version_of(found, 1) == 0
    check_store(store, Recipe())
    assert state() == before
    assert not list(copies.glob(f"imgmatch-store-*/{store.name}"))


def test_rows_that_are_committed_but_in_the_log_only_are_seen(tmp_path, looks):
    path = tmp_path / "hashes.duckdb"
    imgmatch_df.write_hashes(rows([1]), path)
    with stored(path) as found, duckdb.connect(str(path)) as connection:
        insert = "INSERT INTO hashes SELECT * REPLACE (? AS source) FROM hashes LIMIT 1"
        connection.execute(insert, [url(2)])
        wait_until(lambda: found([url(2)]))
        connection.execute("BEGIN")
        connection.execute(insert, [url(3)])
        looks()
        assert found([url(1), url(2), url(3)]).keys() == {url(1), url(2)}
        connection.execute("COMMIT")
        wait_until(lambda: found([url(3)]))


def test_a_store_that_is_written_all_the_time_is_read_in_the_end(store, monkeypatch):
    tick_ns = copies._TICK_NS
    monkeypatch.setattr(copies, "_TICK_NS", 10**18)  # always written a moment ago
    with pytest.raises(BeingWrittenError, match="is being written"), private_copy(store):
        pass
    monkeypatch.setattr(stored_module, "_MAX_RETRY_S", 600)
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 5:
            monkeypatch.setattr(copies, "_TICK_NS", tick_ns)
        time.sleep(seconds)

    monkeypatch.setattr(stored_module, "sleep", wait)
    with stored(store) as found:
        assert len(waits) >= 5
        assert len(found) == 100


def test_a_store_that_never_pauses_is_said(store, monkeypatch):
    events = []
    monkeypatch.setattr(stored_module, "log", lambda event, **fields: events.append((event, fields)))
    with stored(store) as found:
        monkeypatch.setattr(copies, "_TICK_NS", 10**18)
        monkeypatch.setattr(stored_module, "_MAX_RETRY_S", 0.5)
        imgmatch_df.write_hashes(rows([7], 1), store)
        wait_until(lambda: any("is being written" in fields.get("reason", "") for _, fields in events))
        assert version_of(found, 7) == 0
        with pytest.raises(BeingWrittenError, match="is being written"):
            StoredRows(store, Recipe())


@pytest.mark.parametrize("change", ["append", "rewrite", "replace", "remove", "cut"])
def test_a_copy_of_a_file_that_changes_meanwhile_is_thrown_away(store, monkeypatch, change):
    part = store if store.is_file() else next(store.iterdir())
    copy_bytes = copies._copy_bytes

    def copy_and_change(source, target, n_bytes):
        copy_bytes(source, target, n_bytes // 2)
        data = part.read_bytes()
        if change == "append":
            part.write_bytes(data + b"x")
        elif change == "rewrite":
            part.write_bytes(data)
        elif change == "replace":
            other = part.with_name("other")
            shutil.copy2(part, other)
            other.replace(part)
        elif change == "remove":
            part.unlink()
        else:
            os.truncate(part, 10)
        copy_bytes(source, target, n_bytes - n_bytes // 2)

    time.sleep(0.05)
    monkeypatch.setattr(copies, "_copy_bytes", copy_and_change)
    with pytest.raises(BeingWrittenError), private_copy(store):
        pass


def test_a_log_that_grows_meanwhile_is_copied_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "hashes.duckdb"
    imgmatch_df.write_hashes(rows([1]), path)
    with duckdb.connect(str(path)) as connection:
        insert = "INSERT INTO hashes SELECT * REPLACE (? AS source) FROM hashes LIMIT 1"
        connection.execute(insert, [url(2)])
        time.sleep(0.05)
        copy_bytes = copies._copy_bytes

        def copy_and_insert(source, target, n_bytes):
            connection.execute(insert, [url(3)])
            copy_bytes(source, target, n_bytes)

        monkeypatch.setattr(copies, "_copy_bytes", copy_and_insert)
        with private_copy(path) as copy:
            assert imgmatch_df.read_hashes(copy)["source"].to_list() == [url(1), url(2)]


def test_a_copy_without_the_kernels_help_is_the_same(store, monkeypatch):
    def refuse(*_):
        raise OSError

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    time.sleep(0.05)
    with private_copy(store) as copy:
        found = [copy, *copy.iterdir()] if copy.is_dir() else [copy]
        for file in found:
            if file.is_file():
                assert file.read_bytes() == (store.parent / file.relative_to(copy.parent)).read_bytes()
        assert imgmatch_df.read_hashes(copy).height == 100


def test_no_room_for_a_copy_is_said_and_the_rows_stay(store, monkeypatch):
    events = []
    monkeypatch.setattr(stored_module, "log", lambda event, **fields: events.append((event, fields)))
    with stored(store) as found:
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=7))
            imgmatch_df.write_hashes(rows([7], 1), store)
            wait_until(lambda: any("7 free" in fields.get("reason", "") for _, fields in events))
            assert version_of(found, 7) == 0
        imgmatch_df.write_hashes(rows([8], 1), store)
        wait_until(lambda: version_of(found, 8) == 1)
        assert version_of(found, 7) == 1
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=7))
        with pytest.raises(StoreError, match=r"cannot be copied.*bytes, and .* has 7 free\nHint: make room"):
            StoredRows(store, Recipe())
        monkeypatch.setattr(tempfile, "tempdir", str(store.parent / "absent"))
        with pytest.raises(StoreError, match=r"cannot be copied.*No such file"):
            check_store(store, Recipe())


def test_a_store_without_a_change_is_not_read_again(store, monkeypatch, looks):
    made = []
    make = stored_module.Snapshot
    monkeypatch.setattr(stored_module, "Snapshot", lambda *given: made.append(make(*given)) or made[-1])
    with stored(store):
        looks()
        assert list(map(len, made)) == [0, 100]
        os.utime(store if store.is_file() else next(store.iterdir()))
        wait_until(lambda: len(made) == 3)
        looks()
        assert list(map(len, made)) == [0, 100, 100]


def test_a_bug_while_loading_is_logged_and_not_the_end(store, monkeypatch):
    events = []
    monkeypatch.setattr(stored_module, "log", lambda event, **fields: events.append(event))
    monkeypatch.setattr(stored_module, "_RETRY_AFTER_S", 0.1)
    with stored(store) as found:
        with monkeypatch.context() as patch:
            patch.setattr(stored_module, "identify", lambda _: 1 / 0)
            wait_until(lambda: "bug" in events)
        imgmatch_df.write_hashes(rows([7], 1), store)
        wait_until(lambda: version_of(found, 7) == 1)


def test_every_file_of_a_store_is_looked_at(tmp_path):
    path = tmp_path / "hashes.duckdb"
    seen = [identify(path)]
    for name in ("hashes.duckdb", "hashes.duckdb.wal", "hashes.duckdb.wal.checkpoint", "hashes.duckdb.wal.recovery"):
        (tmp_path / name).write_bytes(b"x")
        seen.append(identify(path))
        (tmp_path / name).write_bytes(b"xx")
        seen.append(identify(path))
    assert all(before != after for before, after in pairwise(seen))
    (tmp_path / "link.duckdb").symlink_to(path)
    assert identify(tmp_path / "link.duckdb") == seen[-1]


# What is in memory

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
HASHED = st.tuples(
    st.none() | st.integers(1, 2**32 - 1), st.binary(min_size=121, max_size=121), st.integers(0, 2**64 - 1)
)


def batches_of(table, n_parts):
    frame = pl.DataFrame(
        {
            "source": list(table),
            "width": [width for width, _, _ in table.values()],
            "height": [width for width, _, _ in table.values()],
            "bmh1": [bmh1 for _, bmh1, _ in table.values()],
            "phash": [number for _, _, number in table.values()],
            "status": ["ok"] * len(table),
        },
        schema={
            "source": pl.String,
            **{name: dtype for name, dtype in kinds.visual_hash_fields().items() if name in COLUMNS},
        },
    )
    return list(frame.iter_slices(max(1, frame.height // n_parts)))


@pytest.mark.parametrize("digest", ["as it is", "of few values", "of one value"])
@given(st.dictionaries(TEXTS, HASHED, max_size=30), st.lists(TEXTS, max_size=10), st.integers(1, 5))
@settings(deadline=None)
def test_keys_are_found_as_in_a_dict(digest, table, others, n_parts):
    """However many of them have the same digest."""
    as_it_is = snapshot._digest
    n_values = {"as it is": None, "of few values": 3, "of one value": 1}[digest]
    with pytest.MonkeyPatch.context() as patch:
        if n_values:
            patch.setattr(snapshot, "_digest", lambda keys: as_it_is(keys) % np.uint64(n_values))
        made = Snapshot(batches_of(table, n_parts), "source")
        found = made.find([*others, *table, *table])
    assert len(made) == len(table)
    assert all(row.keys() == kinds.visual_hash_fields().keys() for row in found.values())
    assert found == {
        key: {"width": width, "height": width, "bmh1": bmh1, "phash": number, "status": "ok", "detail": None}
        for key, (width, bmh1, number) in table.items()
    }


def test_rows_without_hashes_are_not_known():
    frame = rows(range(6)).with_columns(
        status=pl.Series(["ok", "ok", "ok", "ok", "decode_failed", "ok"], dtype=columns.STATUS_DTYPE)
    )
    whole = frame["bmh1"].to_list()
    frame = frame.with_columns(
        bmh1=pl.Series([whole[0], None, whole[2], whole[3][:120], whole[4], whole[5]], dtype=pl.Binary),
        phash=pl.Series([1, 2, None, 4, 5, 6], dtype=pl.UInt64),
    )
    made = Snapshot([frame], "source")
    assert list(made.find(frame["source"].to_list())) == [url(0), url(5)]


def test_a_million_rows_would_take_less_than_250_mb():
    numbers = range(10_000)
    frame = rows(numbers).with_columns(
        source=pl.Series([f"https://images.example.com/photos/2024/{n:03}/{n:09}-large.jpg" for n in numbers]),
        status=pl.lit("ok", columns.STATUS_DTYPE),
    )
    assert 100 * Snapshot([frame], "source").n_bytes < 250e6
