"""Stores of hashes, of every form: what is written is what is read, and nothing is hashed twice."""

import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from drawing import draw, jpeg
from hostile_server import HostileServer
from polars.testing import assert_frame_equal

import imgmatch_df
from imgmatch_df import ArgumentError, ColumnError, StoreError, WriteSummary
from imgmatch_df.batch import run
from imgmatch_df.columns import STATUS_DTYPE
from imgmatch_df.frames import chunks, writing
from imgmatch_df.store import parquet

pytestmark = pytest.mark.long

FORMS = ["hashes.duckdb", "hashes.parquet", "parts"]
HASHED = ["width", "height", "bmh1", "phash", "status", "detail"]


@pytest.fixture(params=FORMS)
def store(request, tmp_path_factory):
    return tmp_path_factory.mktemp("store") / request.param


@pytest.fixture
def hashed_rows(monkeypatch):
    """The sources that were hashed, in the order in which they were."""
    rows: list[object] = []
    hash_batch = run.hash_batch

    def seen(values, options, *kinds):
        rows.extend(values.to_list())
        return hash_batch(values, options, *kinds)

    monkeypatch.setattr(run, "hash_batch", seen)
    return rows


def summary(**counts):
    return WriteSummary(**{f"n_{name}": count for name, count in counts.items()})


def random_hashes(n_rows, seed=0, start=0):
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "source": [f"{row}.jpg" for row in range(start, start + n_rows)],
            "width": pl.Series(rng.integers(1, 9999, n_rows), dtype=pl.UInt32),
            "height": pl.Series(rng.integers(1, 9999, n_rows), dtype=pl.UInt32),
            "bmh1": [rng.bytes(121) for _ in range(n_rows)],
            "phash": pl.Series(rng.integers(0, 2**64, n_rows, np.uint64), dtype=pl.UInt64),
            "status": pl.Series(["ok"] * n_rows, dtype=STATUS_DTYPE),
            "detail": pl.Series([None] * n_rows, dtype=pl.String),
        },
        schema_overrides={"bmh1": pl.Binary},
    )


def later(path, n_seconds=5):
    """Make a file look written again."""
    stat = path.stat()
    os.utime(path, (stat.st_atime, stat.st_mtime + n_seconds))


def test_what_is_read_is_what_the_verb_gives(mixed, store):
    sources = mixed.filter(pl.col("url").is_not_null())
    wanted = sources.imgmatch.visual_hash()
    found = imgmatch_df.write_hashes(sources, store, source="url")
    assert found == summary(new=12, failed=7)
    stored = imgmatch_df.read_hashes(store)
    assert_frame_equal(stored.select(HASHED), wanted.select(HASHED))
    assert stored["source"].to_list() == sources["url"].to_list()
    assert list(stored.schema) == [
        *("source", "width", "height", "bmh1", "phash", "sha256", "quality", "status", "detail"),
        *("size", "modified", "etag"),
    ]
    assert stored.schema["modified"] == pl.Datetime("us", "UTC")
    for name in ("mixed.duckdb", "mixed.parquet"):  # the stored frame is one that can be stored
        assert stored.imgmatch.write_hashes(store.with_name(name)) == summary(new=12, failed=7)
        assert_frame_equal(imgmatch_df.read_hashes(store.with_name(name)), stored)


def test_nothing_is_hashed_twice(folder, store, hashed_rows):
    photos = imgmatch_df.scan_images(folder)
    assert photos.imgmatch.sink_hashes(store, source="path") == summary(new=40)
    first = imgmatch_df.read_hashes(store)
    assert_frame_equal(first.select("size", "modified"), photos.select("size", "modified").collect())
    hashed_rows.clear()
    for frame in (photos, photos.collect(), photos.select("path"), photos.select("path").collect()):
        assert imgmatch_df.write_hashes(frame, store, source="path") == summary(skipped=40)
    assert hashed_rows == []
    assert_frame_equal(imgmatch_df.read_hashes(store), first)


def test_new_and_changed_rows_are_hashed(folder, store, hashed_rows):
    photos = imgmatch_df.scan_images(folder)
    imgmatch_df.write_hashes(photos, store, source="path")
    hashed_rows.clear()
    changed = [folder / "picture03.jpg", folder / "picture17.jpg"]
    changed[0].write_bytes(jpeg(draw(1000)))
    later(changed[1], -3600)  # the clock went backwards
    new = folder / "anew.jpg"
    new.write_bytes(jpeg(draw(2000)))
    assert imgmatch_df.write_hashes(photos, store, source="path") == summary(new=1, changed=2, skipped=38)
    assert sorted(hashed_rows) == sorted(map(str, [new, *changed]))
    stored = imgmatch_df.read_hashes(store)
    # The changed ones keep their places, the new one comes last.
    assert stored["source"].to_list() == [*(f"{folder}/picture{n:02}.jpg" for n in range(40)), str(new)]
    wanted = stored.select(url="source").imgmatch.visual_hash()
    assert_frame_equal(stored.select(HASHED), wanted.select(HASHED))


def test_failed_rows_are_tried_again_when_asked(folder, store):
    (folder / "cut.jpg").write_bytes(b"\xff\xd8 no picture")
    gone = str(folder / "later.jpg")
    rows = pl.DataFrame({"url": [str(folder / "cut.jpg"), gone, str(folder / "picture00.jpg")]})
    assert imgmatch_df.write_hashes(rows, store, source="url") == summary(new=3, failed=2)
    assert imgmatch_df.write_hashes(rows, store, source="url") == summary(skipped=3, failed=2, failed_before=2)
    again = imgmatch_df.write_hashes(rows, store, source="url", retry_failed=True)
    assert again == summary(retried=2, skipped=1, failed=2)
    # A file that was not there and is now has changed, without being asked.
    Path(gone).write_bytes(jpeg(draw(5)))
    assert imgmatch_df.write_hashes(rows, store, source="url") == summary(
        changed=1, skipped=2, failed=1, failed_before=1
    )
    assert imgmatch_df.read_hashes(store)["status"].cast(str).to_list() == ["decode_failed", "ok", "ok"]


def test_a_file_that_is_gone_keeps_its_hashes_until_it_is_pruned(folder, store):
    photos = imgmatch_df.scan_images(folder).collect().select("path")
    imgmatch_df.write_hashes(photos, store, source="path")
    (folder / "picture05.jpg").unlink()
    before = imgmatch_df.read_hashes(store)
    assert imgmatch_df.write_hashes(photos, store, source="path", retry_failed=True) == summary(skipped=40)
    assert imgmatch_df.write_hashes(imgmatch_df.scan_images(folder), store, source="path") == summary(skipped=39)
    assert_frame_equal(imgmatch_df.read_hashes(store), before)
    pruned = imgmatch_df.write_hashes(imgmatch_df.scan_images(folder), store, source="path", prune=True)
    assert pruned == summary(skipped=39, pruned=1)
    assert_frame_equal(imgmatch_df.read_hashes(store), before.filter(~pl.col("source").str.ends_with("05.jpg")))
    # All of them: the store is empty, and still one.
    assert imgmatch_df.write_hashes(photos.clear(), store, source="path", prune="all") == summary(pruned=39)
    assert imgmatch_df.read_hashes(store).height == 0
    assert imgmatch_df.write_hashes(photos, store, source="path").n_new == 40


def test_the_first_of_equal_keys_counts(paths, store, hashed_rows, monkeypatch):
    for name in ("CHUNK_ROWS", "_STREAM_ROWS"):
        monkeypatch.setattr(chunks, name, 7)
    twice = pl.concat([paths, paths.reverse()])
    for frame in (twice, twice.lazy()):
        assert imgmatch_df.write_hashes(frame, store, source="url").n_duplicates == 40
    assert imgmatch_df.read_hashes(store)["source"].to_list() == paths["url"].to_list()
    assert hashed_rows == paths["url"].to_list()
    # Also where another row of the same key has another picture.
    rows = paths.head(2).with_columns(sku=pl.lit(1))
    other = store.with_name(f"other-{store.name}")
    assert imgmatch_df.write_hashes(rows, other, source="url", key="sku") == summary(new=1, duplicates=1)
    assert imgmatch_df.write_hashes(rows, other, source="url", key="sku") == summary(skipped=1, duplicates=1)
    assert imgmatch_df.read_hashes(other)["source"].to_list() == paths["url"].to_list()[:1]


@pytest.mark.parametrize("lazy", [False, True])
def test_null_keys_are_refused(paths, store, lazy):
    rows = pl.concat([paths, pl.DataFrame({"url": [None]}, schema={"url": pl.String})])
    with pytest.raises(ColumnError, match="null in 1 rows\nHint"):
        imgmatch_df.write_hashes(rows.lazy() if lazy else rows, store, source="url")


def test_a_key_of_its_own(paths, store, hashed_rows):
    rows = paths.with_columns(sku=pl.int_range(40, dtype=pl.UInt16))
    assert imgmatch_df.write_hashes(rows, store, source="url", key="sku").n_new == 40
    stored = imgmatch_df.read_hashes(store)
    assert list(stored.schema)[:2] == ["sku", "source"]
    assert stored.schema["sku"] == pl.Int64
    assert stored["source"].to_list() == paths["url"].to_list()
    # The key of the store need not be named again; another picture under a key is a change.
    hashed_rows.clear()
    moved = rows.with_columns(url=pl.when(pl.col("sku") == 7).then(pl.lit(paths["url"][8])).otherwise("url"))
    assert imgmatch_df.write_hashes(moved, store, source="url") == summary(changed=1, skipped=39)
    assert hashed_rows == [paths["url"][8]]
    with pytest.raises(StoreError, match="the key is 'sku' in the store, 'source' in this call"):
        imgmatch_df.write_hashes(rows, store, source="url", key="source")
    with pytest.raises(StoreError, match="the dtype of the key is 'Int64' in the store, 'String' in this call"):
        imgmatch_df.write_hashes(rows.cast({"sku": pl.String}), store, source="url")
    with pytest.raises(ColumnError, match="no column 'sku'"):
        imgmatch_df.write_hashes(paths, store, source="url")


def test_pictures_in_the_frame(encoded, store, hashed_rows, monkeypatch):
    monkeypatch.setattr(chunks, "_CHUNK_BYTES", 16 * max(map(len, encoded)))
    rows = pl.DataFrame({"id": [str(n) for n in range(40)], "image": encoded})
    assert rows.lazy().imgmatch.sink_hashes(store, source="image", key="id") == summary(new=40)
    hashed_rows.clear()
    other = rows.with_columns(image=pl.Series([encoded[1], *encoded[1:]]))
    assert other.imgmatch.write_hashes(store, source="image", key="id") == summary(changed=1, skipped=39)
    assert hashed_rows == [encoded[1]]
    stored = imgmatch_df.read_hashes(store)
    assert "source" not in stored.columns
    assert stored["size"].to_list() == [len(data) for data in other["image"]]
    assert_frame_equal(stored.select(HASHED), other.imgmatch.visual_hash("image").select(HASHED))
    with pytest.raises(ColumnError, match="a key is text or whole numbers\nHint: key="):
        imgmatch_df.write_hashes(rows, store.with_name("x.duckdb"), source="image")


@pytest.mark.parametrize("n_rows", [0, 1])
def test_few_rows(paths, store, n_rows):
    rows = paths.head(n_rows)
    for frame in (rows, rows.lazy()):
        imgmatch_df.write_hashes(frame, store, source="url")
    stored = imgmatch_df.read_hashes(store)
    assert_frame_equal(stored.select(HASHED), rows.imgmatch.visual_hash().select(HASHED))
    assert imgmatch_df.scan_hashes(store).select(pl.len()).collect().item() == n_rows


def test_keys_of_every_kind(store):
    keys = ["", " ", "é", "e\u0301", "画像/猫.jpg", "🐈", "a\nb", "a'b\"c", "x" * 1_000_000, "\0", "NULL", "%", "\\"]
    rows = random_hashes(len(keys)).with_columns(source=pl.Series(keys))
    assert imgmatch_df.write_hashes(rows, store) == summary(new=len(keys))
    assert imgmatch_df.write_hashes(rows.reverse(), store) == summary(skipped=len(keys))
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows)
    named = rows.rename({"source": 'the "key", 键'})
    other = store.with_name(f"other-{store.name}")
    imgmatch_df.write_hashes(named, other, key='the "key", 键')
    assert_frame_equal(imgmatch_df.read_hashes(other).select(named.columns), named)
    assert imgmatch_df.write_hashes(named, other) == summary(skipped=len(keys))


def test_hashes_that_are_there(store):
    rows = random_hashes(50).with_columns(pl.when(pl.int_range(50) % 7 > 0).then("phash").alias("phash"))
    phash = rows.select("source", "phash")
    assert imgmatch_df.write_hashes(phash, store) == summary(new=50, failed=8)
    stored = imgmatch_df.read_hashes(store)
    assert list(stored.schema) == ["source", "width", "height", "phash", "status", "detail", "size", "modified", "etag"]
    assert_frame_equal(stored.select(phash.columns), phash)
    assert stored["status"].cast(str).to_list() == [None if row % 7 == 0 else "ok" for row in range(50)]
    # The kinds of the store are taken where none are named.
    assert imgmatch_df.write_hashes(random_hashes(9, start=45), store) == summary(
        new=4, skipped=5, failed=1, failed_before=1
    )
    assert imgmatch_df.write_hashes(phash, store, retry_failed=True) == summary(retried=8, skipped=42, failed=8)


@pytest.mark.parametrize("form", FORMS)
def test_incompatible_hashes_are_not_mixed(tmp_path, paths, form):
    store, rows = tmp_path / form, random_hashes(5)
    imgmatch_df.write_hashes(rows.select("source", "phash"), store)
    before = imgmatch_df.read_hashes(store)
    said = r"cannot add to .*: hash_types is 'phash' in the store, 'bmh1, phash' in this call\nHint"
    with pytest.raises(StoreError, match=said):
        imgmatch_df.write_hashes(rows, store, hash_types=("phash", "bmh1"))
    with pytest.raises(StoreError, match="decode is 'full' in the store, 'scaled' in this call\nHint"):
        imgmatch_df.write_hashes(paths, store, source="url", decode="scaled")
    with pytest.raises(ColumnError, match="no column 'phash'"):
        imgmatch_df.write_hashes(rows.select("source", "bmh1"), store)
    assert_frame_equal(imgmatch_df.read_hashes(store), before)


def test_another_version_of_a_hash_is_not_mixed(store, monkeypatch):
    rows = random_hashes(5)
    imgmatch_df.write_hashes(rows, store)
    kind = imgmatch_df.hashes.kinds.KINDS["phash"]
    newer = replace(kind, version="opencv-phash-2")
    monkeypatch.setitem(imgmatch_df.hashes.kinds.KINDS, "phash", newer)
    said = "the version of phash is 'opencv-phash' in the store, 'opencv-phash-2' in this call"
    with pytest.raises(StoreError, match=said):
        imgmatch_df.write_hashes(rows, store)
    with pytest.raises(StoreError, match="has phash of version 'opencv-phash'"):
        rows.imgmatch.match(store, 3, "phash")
    assert rows.drop("source").imgmatch.match(store, 3).height == 5
    assert imgmatch_df.read_hashes(store).height == 5


def test_scanning_eager_lazy_and_streaming(store, monkeypatch):
    monkeypatch.setattr(parquet, "_PART_ROWS", 1000)
    rows = random_hashes(5000)
    assert imgmatch_df.write_hashes(rows, store) == summary(new=5000)
    lazy = imgmatch_df.scan_hashes(store)
    whole = imgmatch_df.read_hashes(store)
    assert lazy.collect_schema() == whole.schema
    assert_frame_equal(whole.select(rows.columns), rows)
    queries = [
        lambda frame: frame.select("phash"),
        lambda frame: frame.filter(pl.col("width") > 5000).select("source", "bmh1"),
        lambda frame: frame.filter(pl.col("status") == "ok", pl.col("modified").is_null()).tail(3),
        lambda frame: frame.head(10).filter(pl.col("height") > 100),
        lambda frame: frame.slice(4990).select("detail", "width"),
        lambda frame: frame.select(pl.len(), pl.col("phash").max().alias("most")),
        lambda frame: frame.sort("phash").with_row_index().select("index", "source").head(7),
    ]
    for query in queries:
        for engine in ("in-memory", "streaming"):
            assert_frame_equal(query(lazy).collect(engine=engine), query(whole))
    assert sum(batch.height for batch in lazy.collect_batches()) == 5000


def test_a_folder_of_parts_is_read_by_anybody(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_PART_ROWS", 100)
    store, rows = tmp_path / "parts", random_hashes(250)
    imgmatch_df.write_hashes(rows.head(130), store)
    imgmatch_df.write_hashes(rows, store)
    assert sorted(path.name for path in store.iterdir()) == [f"part-{part:06}.parquet" for part in range(3)]
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]
    assert_frame_equal(pl.read_parquet(store).select(rows.columns), rows)
    import duckdb

    with duckdb.connect() as connection:
        found = connection.sql(f"SELECT phash FROM '{store}/*.parquet' ORDER BY filename, file_row_number").pl()
    assert found["phash"].to_list() == rows["phash"].to_list()
    assert imgmatch_df.write_hashes(rows.slice(50, 40), store, prune="all").n_pruned == 210
    assert_frame_equal(imgmatch_df.read_hashes(store).select(rows.columns), rows.slice(50, 40))
    assert len(list(store.iterdir())) == 1


def test_hashes_take_no_more_room_than_they_have(tmp_path):
    rows = random_hashes(20_000).select("source", "bmh1", "phash")
    imgmatch_df.write_hashes(rows, tmp_path / "some.parquet")
    assert (tmp_path / "some.parquet").stat().st_size < 20_000 * 155
    imgmatch_df.write_hashes(rows, tmp_path / "some.duckdb")
    assert (tmp_path / "some.duckdb").stat().st_size < 20_000 * 200


def test_a_stream_is_stored_as_it_comes(tmp_path, monkeypatch):
    """Rows of the first batches are stored when a later one fails."""
    monkeypatch.setattr(chunks, "CHUNK_ROWS_OF_HASHES", 4096)
    n_rows = 20_000

    def fail(column):
        if column.max() > 15_000:
            raise ValueError("the stream broke")
        return column

    broken = (
        random_hashes(n_rows)
        .lazy()
        .with_row_index()
        .with_columns(pl.col("index").map_batches(fail, return_dtype=pl.UInt32, is_elementwise=True))
    )
    with pytest.raises((ValueError, pl.exceptions.ComputeError), match="the stream broke"):
        broken.filter(pl.col("index") >= 0).imgmatch.sink_hashes(tmp_path / "some.duckdb")
    stored = imgmatch_df.read_hashes(tmp_path / "some.duckdb")
    assert 0 < stored.height < n_rows
    assert_frame_equal(stored.select("source", "phash"), random_hashes(n_rows).select("source", "phash")[: len(stored)])


def test_strict_mode_keeps_what_came_before(folder, store, monkeypatch):
    monkeypatch.setattr(writing, "_BATCH_ROWS", 8)
    (folder / "picture20.jpg").write_bytes(b"no picture")
    with pytest.raises(imgmatch_df.DecodeError):
        imgmatch_df.write_hashes(imgmatch_df.scan_images(folder), store, source="path", on_error="raise")
    assert imgmatch_df.read_hashes(store).height == 16


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ColumnError, "no column 'bmh1'.*\nHint: source="),
        ({"source": "nope"}, ColumnError, "no column 'nope'"),
        ({"source": "url", "hash_types": "ahash"}, ArgumentError, "hash_type must be one of"),
        ({"source": "url", "key": "width"}, ColumnError, "no column 'width'"),
        ({"source": "url", "key": "phash"}, ArgumentError, "key must not be the name of another column"),
        ({"source": "url", "prune": 1}, ArgumentError, "prune must be True or False"),
        ({"source": "url", "timeout_s": -1}, ArgumentError, "timeout_s must be"),
        ({"source": "url", "retry": True}, ArgumentError, "unknown option 'retry'"),
    ],
)
def test_wrong_calls_leave_nothing(tmp_path, arguments, error, message):
    rows = pl.DataFrame({"url": ["a.jpg"], "phash": ["a"]}) if arguments else pl.DataFrame({"url": ["a.jpg"]})
    with pytest.raises(error, match=message):
        imgmatch_df.write_hashes(rows, tmp_path / "x.duckdb", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_wrong_targets(tmp_path, paths):
    for target in ("x.csv", tmp_path / "x.txt"):
        with pytest.raises(ArgumentError, match=r"must end in \.duckdb or \.parquet, or be a folder"):
            imgmatch_df.write_hashes(paths, target, source="url")
    for target in (None, 3, ""):
        with pytest.raises(ArgumentError, match="target must be a path"):
            imgmatch_df.scan_hashes(target)
    with pytest.raises(StoreError, match="no such store"):
        imgmatch_df.scan_hashes(tmp_path / "none.duckdb")
    for form in FORMS:
        with pytest.raises(StoreError, match="Hint"):
            imgmatch_df.write_hashes(paths, tmp_path / "no" / "such" / form, source="url")
    with pytest.raises(ArgumentError, match="timeout_s has no effect without source="):
        imgmatch_df.write_hashes(random_hashes(1), tmp_path / "x.duckdb", timeout_s=3)


def test_addresses_are_asked_once(encoded, store):
    """What the server says of a picture is stored; what is stored is not asked for again, unless it failed."""
    with HostileServer(pictures=encoded) as server:
        urls = [server.url(f"/{path}") for path in ("tagged/tag", "tagged/time", "tagged/no", "status/404")]
        rows = pl.DataFrame({"url": [*urls, urls[0]]})
        options = {"source": "url", "allow_private_networks": True}
        assert rows.imgmatch.write_hashes(store, **options) == summary(new=4, duplicates=1, failed=1)
        stored = imgmatch_df.read_hashes(store)
        assert stored["etag"].to_list() == ['"v1"', "Sun, 22 Nov 2026 00:00:00 GMT", None, None]
        assert stored["size"].null_count() == 4
        n_requests = len(server.headers)
        assert rows.imgmatch.write_hashes(store, **options) == summary(
            skipped=4, duplicates=1, failed=1, failed_before=1
        )
        assert len(server.headers) == n_requests
        again = rows.imgmatch.write_hashes(store, **options, retry_failed=True)
        assert again == summary(retried=1, skipped=3, duplicates=1, failed=1)
        assert len(server.headers) == n_requests + 1
    assert_frame_equal(imgmatch_df.read_hashes(store), stored)


def test_the_shell_finds_the_macros(tmp_path, monkeypatch):
    import duckdb

    from imgmatch_df.store import duckdb as duckdb_store

    store, rows = tmp_path / "some.duckdb", random_hashes(30).rename({"source": "sku"})
    imgmatch_df.write_hashes(rows.head(20), store, key="sku")
    with duckdb.connect(str(store)) as shell:
        wanted = rows["phash"][3]
        assert shell.execute("SELECT sku, distance FROM rank_images(?, 1)", [wanted]).fetchall() == [("3.jpg", 0)]
        shell.execute("DROP MACRO to_bits")
    monkeypatch.setattr(duckdb_store, "made_by", lambda: "imgmatch-df of another version")
    imgmatch_df.write_hashes(rows, store)
    with duckdb.connect(str(store), read_only=True) as shell:
        assert shell.execute("SELECT to_bits(phash) FROM hashes LIMIT 1").fetchone() == (f"{rows['phash'][0]:064b}",)
        assert shell.execute("SELECT count(*) FROM imgmatch_store WHERE name = 'macros'").fetchone() == (1,)


@pytest.mark.parametrize("name", ["[x]", "a?", "**", "{ax,b}", "x[1]/sub"])
@pytest.mark.parametrize("form", [".duckdb", ".parquet", ""])
def test_a_name_that_looks_like_a_glob_is_a_name(tmp_path, name, form):
    target = tmp_path / f"{name}{form}"
    target.parent.mkdir(exist_ok=True)
    if form != ".duckdb":
        imgmatch_df.write_hashes(random_hashes(3, seed=1), tmp_path / f"ax{form}")
    wanted = random_hashes(5, seed=2)
    if "?" in name and form == ".duckdb":
        # Its rows would be in a log of another name, which nobody finds again.
        for call in (lambda: imgmatch_df.write_hashes(wanted, target), lambda: imgmatch_df.read_hashes(target)):
            with pytest.raises(ArgumentError, match=r"the path of a .duckdb must not contain '\?'.*\nHint: rename"):
                call()
            target.touch()  # without a file, there is no store to read
        return
    assert imgmatch_df.write_hashes(wanted, target).n_new == 5
    assert imgmatch_df.write_hashes(wanted, target).n_skipped == 5
    assert_frame_equal(imgmatch_df.read_hashes(target).select(wanted.columns), wanted)
    assert imgmatch_df.match(wanted, target, 0, "phash").height == 0


@pytest.mark.parametrize("form", [".duckdb", ".parquet", ""])
def test_a_name_that_the_system_refuses_is_our_error(tmp_path, form):
    target = tmp_path / f"{'x' * 300}{form}"
    rows = random_hashes(1)
    for call in (
        lambda: imgmatch_df.write_hashes(rows, target),
        lambda: imgmatch_df.read_hashes(target),
        lambda: rows.imgmatch.cluster(1, reference=target),
    ):
        with pytest.raises(imgmatch_df.StoreError, match=r"File name too long\nHint: "):
            call()


def test_a_store_with_digests_takes_rows_without(tmp_path, folder):
    images = imgmatch_df.scan_images(folder).collect()
    imgmatch_df.write_hashes(images[:3], tmp_path / "h.duckdb", source="path")
    hashed = images[3:5].imgmatch.visual_hash("path")
    assert imgmatch_df.write_hashes(hashed, tmp_path / "h.duckdb").n_new == 2
    stored = imgmatch_df.read_hashes(tmp_path / "h.duckdb")
    digests = [sha256(Path(path).read_bytes()).digest() for path in images["path"][:3]]
    assert stored["sha256"].to_list() == [*digests, None, None]
    assert stored["quality"].to_list() == images[:5].imgmatch.visual_hash("path")["quality"].to_list()
    assert stored["status"].to_list() == ["ok"] * 5
    with pytest.raises(imgmatch_df.ColumnError, match="no column 'sha256'"):
        imgmatch_df.write_hashes(hashed, tmp_path / "h.duckdb", hash_types=("bmh1", "phash", "sha256"))


@pytest.mark.parametrize("suffix", [".duckdb", ".parquet", ""])
def test_a_store_without_quality_or_digests_goes_on_without(tmp_path, folder, suffix):
    images = imgmatch_df.scan_images(folder).collect()
    target = tmp_path / f"h{suffix}"
    plain = images[:3].imgmatch.visual_hash("path").drop("quality")
    imgmatch_df.write_hashes(plain, target)
    assert not {"quality", "sha256"} & set(imgmatch_df.scan_hashes(target).collect_schema())
    assert imgmatch_df.write_hashes(images, target, source="path").n_new == images.height - 3
    stored = imgmatch_df.read_hashes(target)
    assert stored["phash"].to_list() == images.imgmatch.visual_hash("path")["phash"].to_list()
    assert stored.columns == imgmatch_df.scan_hashes(target).collect_schema().names()


def test_a_key_may_be_called_as_a_digest(tmp_path, folder):
    images = imgmatch_df.scan_images(folder).collect()[:3]
    named = images.select(pl.col("path"), sha256=pl.Series(["one", "two", "three"]))
    imgmatch_df.write_hashes(named, tmp_path / "h.duckdb", source="path", key="sha256")
    imgmatch_df.write_hashes(named, tmp_path / "h.duckdb", source="path")
    stored = imgmatch_df.read_hashes(tmp_path / "h.duckdb")
    assert stored["sha256"].to_list() == ["one", "two", "three"]
    with pytest.raises(imgmatch_df.ArgumentError, match="key must not be the name of another column"):
        imgmatch_df.write_hashes(named, tmp_path / "i.duckdb", source="path", key="sha256", hash_types="sha256")
