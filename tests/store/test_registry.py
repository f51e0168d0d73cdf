"""Stores are a registry: a kind that is registered in one line works with every function, command and the service."""

import json

import polars as pl
import pytest
import toy_store
from drawing import draw, jpeg
from polars.testing import assert_frame_equal
from test_store import later, random_hashes, summary
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df import ArgumentError, StoreError
from imgmatch_df.batch import run as batches
from imgmatch_df.cli.app import app
from imgmatch_df.options import Recipe
from imgmatch_df.server.store_lookup import StoredRows
from imgmatch_df.store import base, locks
from imgmatch_df.store.open import open_store


@pytest.fixture(params=[".toy", "memory:"])
def store(request, tmp_path_factory, monkeypatch):
    """A store of a kind that this package does not have."""
    for name, kind in toy_store.KINDS.items():
        monkeypatch.setitem(base._kinds, name, None)  # which is undone at the end
        base.register_store(name, kind)
    monkeypatch.setattr(toy_store, "MEMORY", {})
    return "memory://hashes" if request.param == "memory:" else str(tmp_path_factory.mktemp("out") / "hashes.toy")


def call(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def test_it_is_written_as_the_others_are(folder, store, monkeypatch):
    photos = imgmatch_df.scan_images(folder)
    (folder / "cut.jpg").write_bytes(jpeg(draw(98))[:300])
    assert imgmatch_df.write_hashes(photos, store, source="path") == summary(new=41, failed=1)
    wanted = imgmatch_df.scan_images(folder).collect().imgmatch.visual_hash("path").rename({"path": "source"})
    assert_frame_equal(imgmatch_df.read_hashes(store).select(wanted.columns), wanted)
    (folder / "picture02.jpg").write_bytes(jpeg(draw(99)))
    later(folder / "picture02.jpg")
    (folder / "picture03.jpg").unlink()
    found = imgmatch_df.scan_images(folder)
    found = found.imgmatch.sink_hashes(store, source="path", retry_failed=True, prune=True)
    assert found == summary(changed=1, retried=1, skipped=38, pruned=1, failed=1)
    wanted = imgmatch_df.scan_images(folder).collect().imgmatch.visual_hash("path").rename({"path": "source"})
    monkeypatch.setattr(batches, "hash_batch", lambda *_: pytest.fail("hashed again"))
    assert_frame_equal(imgmatch_df.read_hashes(store).select(wanted.columns), wanted)
    rows = imgmatch_df.scan_hashes(store)
    assert_frame_equal(
        rows.filter(pl.col("status") == "ok").select("phash").head(3).collect(), wanted.select("phash").slice(1, 3)
    )
    with pytest.raises(StoreError, match="decode is 'full' in the store, 'scaled' in this call"):
        imgmatch_df.write_hashes(photos, store, source="path", decode="scaled")


def test_verbs_compare_with_it(store):
    rows = random_hashes(40)
    imgmatch_df.write_hashes(rows.head(30), store)
    new = rows.with_columns(source=pl.col("source") + "?")
    found = imgmatch_df.match(new, store, 0, id="source")
    assert_frame_equal(found, imgmatch_df.match(new, rows.head(30), 0, id="source", **stored_id("source")))
    assert found.height == 30
    assert imgmatch_df.remove_duplicates(new, 0, reference=store).height == 10
    clustered = imgmatch_df.cluster(new, 0, id="source", reference=store)
    assert clustered["kept"].sum() == 10


def stored_id(name):
    """Return the argument that names the column of ids on the other side, by the name that it has."""
    import inspect

    names = inspect.signature(imgmatch_df.match).parameters
    return {"reference_id" if "reference_id" in names else "stored_id": name}


def test_commands_take_it(folder, store, tmp_path_factory):
    out = tmp_path_factory.mktemp("outputs")
    assert call("visual-hash", folder, "-o", store).stdout == f"{store}: 40 new\n"
    (folder / "picture03.jpg").unlink()
    assert call("visual-hash", folder, "-o", store, "--prune").stdout == f"{store}: 0 new, 39 unchanged, 1 pruned\n"
    (folder / "cut.jpg").write_bytes(b"cut")
    found = call("visual-hash", folder, "-o", store, code=1)
    assert "1 new, 39 unchanged, 1 failed" in found.stdout
    assert "cut.jpg: decode_failed" in found.stderr
    call("export", store, "-o", out / "response.json")
    records = json.loads((out / "response.json").read_text())["records"]
    assert len(records) == 40
    call("remove-duplicates", store, "-o", out / "o.parquet", code=1)
    assert pl.read_parquet(out / "o.parquet").height == 40
    (out / "today").mkdir()
    (out / "today" / "known.jpg").write_bytes((folder / "picture07.jpg").read_bytes())
    found = call("remove-duplicates", out / "today", "--reference", store, "-o", out / "o.csv")
    assert "removed 1, 1 of them match a reference row" in found.stdout
    call("rank-images", folder / "picture04.jpg", store, "-k", 1, "-o", out / "ranked.parquet", code=1)
    assert pl.read_parquet(out / "ranked.parquet")["source"].to_list() == [str(folder / "picture04.jpg")]


def test_the_service_answers_from_it(store):
    imgmatch_df.write_hashes(random_hashes(5), store)
    if store.startswith("memory:"):
        with pytest.raises(StoreError, match=r"is not a file or a folder.*\nHint: "):
            StoredRows(store, Recipe())
        return
    rows = StoredRows(store, Recipe())
    try:
        assert set(rows(["1.jpg", "9.jpg"])) == {"1.jpg"}
    finally:
        rows.close()


def test_messages_name_it(store, tmp_path):
    for words in (["visual-hash", tmp_path, "-o", "x.nope"], ["visual-hash", "--help"]):
        assert ".duckdb" in call(*words, code=0 if "--help" in words else 2).output
    assert ".toy" in call("visual-hash", tmp_path, "-o", "x.nope", code=2).output
    with pytest.raises(ArgumentError, match=r"must end in \.duckdb or \.parquet or \.toy"):
        imgmatch_df.read_hashes("x.nope")
    with pytest.raises(StoreError, match="no such store"):
        imgmatch_df.read_hashes(store)
    if store.endswith(".toy"):
        imgmatch_df.write_hashes(random_hashes(5), store)
        with pytest.MonkeyPatch.context() as patch, open_store(store, write=True):
            patch.setattr(locks, "WAIT_S", 0.0)
            with pytest.raises(StoreError, match="in use by this process"):
                imgmatch_df.write_hashes(random_hashes(6), store)


@pytest.mark.parametrize("name", ["toy", ".", ":", ".toy:", ".Toy"])
def test_names_that_are_neither_suffix_nor_scheme(name):
    with pytest.raises(ArgumentError, match=r"name must be a suffix or a scheme.*\nHint: "):
        base.register_store(name, toy_store.KINDS[".toy"])
