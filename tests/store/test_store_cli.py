"""The command line and stores: incremental hashing, stores as input, what is known, and the documented JSON of it."""

import json
import os
import subprocess
import sys

import polars as pl
import pytest
from drawing import draw, jpeg
from polars.testing import assert_frame_equal
from program import ON_A_SYSTEM_WITH_SIGNALS, run_interrupted
from test_store import random_hashes
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.batch import run as batches
from imgmatch_df.cli.app import app
from imgmatch_df.documented import responses

pytestmark = pytest.mark.long

HASHED = ["width", "height", "bmh1", "phash", "status", "detail"]


def call(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("out") / "hashes.duckdb"


@pytest.fixture
def no_hashing(monkeypatch):
    monkeypatch.setattr(batches, "hash_batch", lambda *_: pytest.fail("hashed again"))


def test_a_second_run_does_what_is_left(folder, store, monkeypatch):
    assert call("visual-hash", folder, "-o", store).stdout == f"{store}: 40 new\n"
    wanted = imgmatch_df.scan_images(folder).collect().imgmatch.visual_hash("path")
    stored = imgmatch_df.read_hashes(store)
    assert_frame_equal(stored.rename({"source": "path"}).select(wanted.columns), wanted)
    with monkeypatch.context() as patch:
        patch.setattr(batches, "hash_batch", lambda *_: pytest.fail("hashed again"))
        assert call("visual-hash", folder, "-o", store).stdout == f"{store}: 0 new, 40 unchanged\n"
        # The same pictures, as a table of their paths.
        wanted.select("path").write_csv(store.with_name("paths.csv"))
        assert "0 new, 40 unchanged" in call("visual-hash", store.with_name("paths.csv"), "-o", store).stdout
    (folder / "picture01.jpg").unlink()
    (folder / "picture02.jpg").write_bytes(jpeg(draw(99)))
    (folder / "zz.jpg").write_bytes(jpeg(draw(98))[:300])
    assert (
        call("visual-hash", folder, "-o", store, code=1).stdout
        == f"{store}: 1 new, 1 changed, 38 unchanged, 1 failed\n"
    )
    again = call("visual-hash", folder, "-o", store)
    assert again.stdout == f"{store}: 0 new, 40 unchanged, 1 failed\n"
    assert again.stderr.splitlines()[-1].endswith("; --retry-failed tries them again")
    assert again.stderr.startswith(f"  {folder}/zz.jpg: decode_failed: ")
    again = call("visual-hash", folder, "-o", store, "--retry-failed", "--prune", code=1)
    assert again.stdout == f"{store}: 0 new, 1 tried again, 39 unchanged, 1 pruned, 1 failed\n"
    assert imgmatch_df.read_hashes(store).height == 40


def test_a_folder_that_cannot_be_listed_is_said_and_not_pruned(folder, store, lock):
    (folder / "sub" / "deep").mkdir(parents=True)
    for number in range(30):
        (folder / f"picture{number:02}.jpg").rename(folder / "sub" / "deep" / f"{number:02}.jpg")
    call("visual-hash", folder, "-o", store)
    unlock = lock(folder / "sub" / "deep")
    (folder / "picture39.jpg").unlink()
    said = f"cannot list '{folder}/sub/deep' (Permission denied), its images are left out\n"
    for source in (folder, folder / "**" / "*.jpg"):
        result = call("visual-hash", source, "-o", store, "--prune", code=1)
        assert result.stdout == f"{store}: 0 new, 9 unchanged\n"
        assert result.stderr == said + "nothing is pruned, since folders or archives could not be listed\n"
        assert imgmatch_df.read_hashes(store).height == 40
        out = store.with_name("out.csv")
        for words in (
            ["visual-hash", source, "-o", out],
            ["remove-duplicates", source, "-o", out, "--radius", 1],
            ["rank-images", folder / "picture30.jpg", source, "-o", out],
            ["remove-duplicates", store, "--reference", source, "-o", out],
        ):
            assert call(*words, code=1).stderr.endswith(said)
    assert "cannot list" in call("visual-hash", folder / "sub", code=2).stderr
    assert "no pictures" not in call("visual-hash", folder / "sub" / "deep", code=2).stderr
    unlock()
    assert "1 pruned" in call("visual-hash", folder, "-o", store, "--prune").stdout


def test_folders_of_parts_and_parquet_stores_are_continued(folder, store):
    parts = store.with_name("parts")
    parts.mkdir()
    assert call("visual-hash", folder, "-o", parts).stdout == f"{parts}: 40 new\n"
    assert call("visual-hash", folder, "-o", parts).stdout == f"{parts}: 0 new, 40 unchanged\n"
    single = store.with_name("single.parquet")
    imgmatch_df.write_hashes(imgmatch_df.scan_images(folder).head(10), single, source="path")
    assert call("visual-hash", folder, "-o", single).stdout == f"{single}: 30 new, 10 unchanged\n"
    # A table that is none stays one.
    table = store.with_name("table.parquet")
    assert call("visual-hash", folder, "-o", table).output == ""
    again = call("visual-hash", folder, "-o", table).output
    assert again == f"{table} exists: it is replaced if this run succeeds\n"
    assert "path" in pl.read_parquet_schema(table)


def test_tables_with_keys_and_pictures(encoded, paths, store):
    table = store.with_name("table.parquet")
    rows = paths.with_columns(sku=pl.int_range(40), image=pl.Series(encoded))
    rows.write_parquet(table)
    assert "40 new" in call("visual-hash", table, "--source", "url", "--key", "sku", "-o", store).stdout
    assert imgmatch_df.read_hashes(store).columns[:2] == ["sku", "source"]
    assert "0 new, 40 unchanged" in call("visual-hash", table, "--source", "url", "-o", store).stdout
    other = store.with_name("other.duckdb")
    assert "40 new" in call("visual-hash", table, "--source", "image", "--key", "sku", "-o", other).stdout
    assert "40 unchanged" in call("visual-hash", table, "--source", "image", "--key", "sku", "-o", other).stdout


def test_documented_requests_are_stored(paths, store):
    request = store.with_name("request.json")
    request.write_text(json.dumps({"records": [{"_url": url} for url in paths["url"]], "hash_type": "phash"}))
    assert "40 new" in call("visual-hash", request, "--base-dir", "/", "-o", store).stdout
    assert "bmh1" not in imgmatch_df.read_hashes(store).columns


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prune", "-o", "x.parquet"], "--prune is only for stores"),
        (["--retry-failed"], "--retry-failed is only for stores"),
        (["--key", "a", "-o", "x.csv"], "--key is only for stores"),
        (["-o", "x.sqlite"], "known are .duckdb, .parquet"),
        (["-o", "no/such/x.duckdb"], "cannot write into 'no/such'"),
        (["-o", "{store}", "--decode", "scaled"], "decode is 'full' in the store, 'scaled' in this call"),
        (
            ["-o", "{store}", "--hash-types", "phash"],
            "hash_types is 'bmh1, phash, sha256' in the store, 'phash' in this call",
        ),
        (["-o", "{store}", "--key", "size"], "key must not be the name of another column"),
        (["-o", "{store}", "--key", "sku"], "no column 'sku'"),
    ],
)
def test_wrong_calls(folder, store, words, message, monkeypatch):
    monkeypatch.chdir(store.parent)
    call("visual-hash", folder / "picture00.jpg", "-o", store)
    before = sorted(store.parent.iterdir())
    result = call("visual-hash", folder, *(word.format(store=store) for word in words), code=2)
    assert message in result.stderr
    assert "Hint: " in result.stderr
    assert sorted(store.parent.iterdir()) == before
    assert imgmatch_df.read_hashes(store).height == 1


def test_a_damaged_store_is_named(folder, store):
    store.write_bytes(b"no database")
    for words in (["visual-hash", folder, "-o", store], ["remove-duplicates", store], ["export", store]):
        assert f"'{store}' is not a DuckDB file\nHint: " in call(*words, code=2).stderr
    assert store.read_bytes() == b"no database"


def test_stores_as_input_equal_frames(folder, store, no_hashing, monkeypatch):
    monkeypatch.undo()
    (folder / "again.jpg").write_bytes((folder / "picture03.jpg").read_bytes())
    call("visual-hash", folder, "-o", store)
    monkeypatch.setattr(batches, "hash_batch", lambda *_: pytest.fail("hashed again"))
    stored = imgmatch_df.read_hashes(store)
    out = store.with_name("out.parquet")
    call("remove-duplicates", store, "--radius", 40, "-o", out)
    assert_frame_equal(pl.read_parquet(out), stored.imgmatch.remove_duplicates(40))
    assert pl.read_parquet(out).height < stored.height
    query = f"{stored['phash'][5]:064b}"
    call("rank-images", query, store, "--hash-type", "phash", "-k", 9, "-o", out)
    assert_frame_equal(pl.read_parquet(out), stored.imgmatch.rank_images(query, "phash", k=9))
    listed = call("remove-duplicates", store, "--radius", 40, "--list-removed").stdout.splitlines()
    assert listed == [str(folder / "picture03.jpg")]


def test_today_against_what_is_stored(folder, store, encoded):
    call("visual-hash", folder, "-o", store)
    today = store.with_name("today")
    today.mkdir()
    for number in range(50, 55):
        (today / f"{number}.jpg").write_bytes(jpeg(draw(number)))
    (today / "known.jpg").write_bytes(encoded[7])
    out = store.with_name("out.parquet")
    said = call("remove-duplicates", today, "--reference", store, "--radius", 8, "-o", out).stdout
    assert said == "kept 5 of 6 rows, removed 1, 1 of them match a reference row; failed 0\n"
    found = pl.read_parquet(out)
    assert found.filter(~pl.col("kept"))["reference_id"].to_list() == [str(folder / "picture07.jpg")]
    wanted = imgmatch_df.scan_images(today).collect().imgmatch.visual_hash("path", hash_types="bmh1")
    wanted = wanted.imgmatch.cluster(8, id="path", reference=store)
    assert_frame_equal(found, wanted)
    listed = call("remove-duplicates", today, "--reference", store, "--radius", 8, "--list-removed").stdout
    assert listed == f"{today / 'known.jpg'}\n"


def test_an_export_is_the_documented_response(mixed, store):
    sources = mixed.filter(pl.col("url").is_not_null())
    imgmatch_df.write_hashes(sources, store, source="url")
    out = store.with_name("response.json")
    call("export", store, "-o", out)
    rows = sources.imgmatch.visual_hash()
    wanted = responses.visual_hash_response(rows, seconds=0, request_id="r")
    found = json.loads(out.read_text())
    assert list(found) == list(wanted)
    for record in found["records"]:
        if "_status" in record:
            record["_status"]["request_id"] = "r"
    assert found["records"] == wanted["records"]
    assert found["status"] == wanted["status"]
    parsed = responses.parse_visual_hash_response(out).frame
    assert_frame_equal(
        parsed.select("width", "height", "bmh1", "phash"), rows.select("width", "height", "bmh1", "phash")
    )
    assert json.loads(call("export", store).stdout)["records"][0] == wanted["records"][0]
    assert "Hint: " in call("export", store, "-o", store.with_name("x.csv"), code=2).stderr
    assert "no such store" in call("export", store.with_name("none.duckdb"), "-o", out, code=2).stderr


@pytest.mark.parametrize("n_rows", [0, 1, 3])
def test_an_export_of_rows_with_keys(store, n_rows):
    rows = random_hashes(3).head(n_rows).with_columns(sku=pl.int_range(n_rows) + 7)
    imgmatch_df.write_hashes(rows, store, key="sku")
    out = store.with_name("response.json")
    call("export", store, "-o", out)
    found = json.loads(out.read_text())["records"]
    assert [record["_id"] for record in found] == [str(7 + row) for row in range(n_rows)]
    assert [record["_url"] for record in found] == rows["source"].to_list()
    other = store.with_name("other.duckdb")
    imgmatch_df.write_hashes(rows.drop("source"), other, key="sku")
    call("export", other, "-o", out)
    assert [set(record) for record in json.loads(out.read_text())["records"]] == [
        {"_id", "_width", "_height", "bmh1", "phash"}
    ] * n_rows


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="asks Unix for the peak of memory")
def test_an_export_takes_no_more_memory_for_more_records(tmp_path):
    peaks = []
    for n_rows in (100_000, 400_000):
        store = tmp_path / f"{n_rows}.duckdb"
        imgmatch_df.write_hashes(random_hashes(n_rows).select("source", "phash", "bmh1"), store)
        code = (
            "import resource, sys\nfrom pathlib import Path\n"
            "from imgmatch_df.documented.export import export_response\n"
            "print(export_response(sys.argv[1], Path(sys.argv[2])).n_rows)\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-c", code, store, tmp_path / "out.json"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert len(said.split()) == 2, said
        n_written, peak = said.split()
        assert int(n_written) == n_rows
        peaks.append(int(peak))
    assert peaks[1] < peaks[0] + 220_000  # KiB, buffers of DuckDB; the 300,000 records more are 340 MB of text


@ON_A_SYSTEM_WITH_SIGNALS
def test_an_interrupted_run_keeps_what_was_hashed(tmp_path, store):
    photos = tmp_path / "photos"
    photos.mkdir()
    data = jpeg(draw(1, 300, 200))
    for number in range(80):
        (photos / f"{number:03}.jpg").write_bytes(data)
    words = ["visual-hash", photos, "-o", store]
    assert run_interrupted(*words) == (130, f"interrupted, the hashes so far are in {store}\n")
    n_rows = imgmatch_df.read_hashes(store).height
    assert 0 < n_rows < 80
    assert f"{80 - n_rows} new, {n_rows} unchanged" in call(*words).stdout


def test_help_names_the_store():
    for command in ("visual-hash", "export"):
        assert ".duckdb" in call(command, "--help").stdout


def test_against_a_store_of_another_decode_path(folder, store):
    scaled = store.with_name("scaled.duckdb")
    call("visual-hash", folder, "-o", store)
    call("visual-hash", folder, "-o", scaled, "--decode", "scaled")
    for source in (folder, store):
        result = call("remove-duplicates", source, "--reference", scaled, code=2)
        assert "it has decode='scaled'" in result.stderr
        assert "this call has decode='full'" in result.stderr
    call("remove-duplicates", folder, "--reference", scaled, "--decode", "scaled")
    call("remove-duplicates", store, "--reference", store)
