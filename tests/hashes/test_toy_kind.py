"""A kind that only these tests have passes through every face: the registry is all there is to adding one."""

import base64
import json
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import duckdb
import polars as pl
import pytest
import toy_kind
from drawing import draw, jpeg
from polars.testing import assert_frame_equal
from toy_kind import TOY, TOY64
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df import documented
from imgmatch_df.batch import image_hashes
from imgmatch_df.cli.app import app
from imgmatch_df.hashes.kinds import BMH1, KINDS, PHASH, HashKind, empty_row, load_kernel, register_hash_kind
from imgmatch_df.options import Options
from imgmatch_df.store import macros

TOYS = pytest.mark.parametrize("kind", [TOY, TOY64], ids=["bytes", "number"])
FORMS = pytest.mark.parametrize("form", ["duckdb", "parquet"])
REFUSED = "the image-matching API has the hash kinds 'bmh1', 'phash', got 'toy"


@pytest.fixture(autouse=True)
def registered():
    for kind in (TOY, TOY64):
        register_hash_kind(kind)
    toy_kind.calls.clear()
    yield
    for kind in (TOY, TOY64):
        del KINDS[kind.name]


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Twelve images, each with a copy, and one that is cut off."""
    folder = tmp_path_factory.mktemp("toys")
    for seed in range(12):
        pixels = draw(seed, 80 + seed, 60)
        (folder / f"{seed:02}.jpg").write_bytes(jpeg(pixels))
        (folder / f"{seed:02}x.jpg").write_bytes(jpeg(pixels, quality=40))
    (folder / "cut.jpg").write_bytes(jpeg(draw(99))[:200])
    return folder


@pytest.fixture
def frame(images):
    return pl.DataFrame({"url": sorted(map(str, images.glob("*.jpg")))})


def truth(frame: pl.DataFrame, kind: HashKind) -> list[int | bytes | None]:
    """Return the hashes by the kernel, an image at a time."""
    hashes = []
    for path in frame["url"]:
        row = empty_row([kind])
        size = image_hashes.hash_image(Path(path).read_bytes(), Options(), row)
        hashes.append(kind.value(row[kind]) if isinstance(size, image_hashes.ImageSize) else None)
    return hashes


def distance(left: int | bytes, right: int | bytes) -> int:
    numbers = [int.from_bytes(one, "big") if isinstance(one, bytes) else one for one in (left, right)]
    return (numbers[0] ^ numbers[1]).bit_count()


def near(hashes: list, radius: int) -> list[tuple[int, int, int]]:
    return [
        (i, j, distance(hashes[i], hashes[j]))
        for i, j in combinations(range(len(hashes)), 2)
        if None not in (hashes[i], hashes[j]) and distance(hashes[i], hashes[j]) <= radius
    ]


@TOYS
def test_expressions(frame, kind):
    wanted = pl.Series(kind.name, truth(frame, kind), dtype=kind.dtype)
    assert wanted.null_count() == 1
    assert wanted.n_unique() > 12
    expr = pl.col("url").imgmatch.perceptual_hash(kind.name)
    for found in (
        frame.select(expr),
        frame.lazy().select(expr).collect(engine="in-memory"),
        frame.lazy().select(expr).collect(engine="streaming"),
        frame.select(imgmatch_df.perceptual_hash("url", kind.name)),
        frame["url"].imgmatch.perceptual_hash(kind.name).to_frame(),
        frame.select(pl.col("url").imgmatch.visual_hash(hash_types=kind.name).struct.field(kind.name)),
        frame.imgmatch.visual_hash("url", hash_types=(kind.name,)).select(kind.name),
        frame.lazy().imgmatch.visual_hash("url", hash_types=["phash", kind.name]).select(kind.name).collect(),
    ):
        assert_frame_equal(found, wanted.to_frame())


@TOYS
def test_beside_other_kinds_in_one_statement(frame, kind, monkeypatch):
    n_decoded = []
    decode = image_hashes.hash_image
    monkeypatch.setattr("imgmatch_df.batch.run.hash_image", lambda *given: n_decoded.append(1) or decode(*given))
    source = pl.col("url").imgmatch
    query = frame.lazy().select(source.phash(), source.perceptual_hash(kind.name), source.bmh1())
    for run in (lambda: query.collect(engine="in-memory"), lambda: query.collect(engine="streaming")):
        n_decoded.clear()
        found = run()
        assert len(n_decoded) == frame.height
        assert found[kind.name].to_list() == truth(frame, kind)
        alone = frame.imgmatch.visual_hash("url")
        assert_frame_equal(found.select("bmh1", "phash"), alone.select("bmh1", "phash"))


def test_only_the_kinds_asked_for_are_computed(frame, monkeypatch):
    """In every verb and expression."""
    for kind in (BMH1, PHASH):
        kernel = f"toy_kind:{kind.name}"
        real = load_kernel(kind)

        def spy(image, out, real=real, name=kind.name):
            toy_kind.calls.append(name)
            real(image, out)

        monkeypatch.setattr(toy_kind, kind.name, spy, raising=False)
        monkeypatch.setitem(KINDS, kind.name, replace(kind, kernel=kernel))
    # Each on a column of its own: an expression that is still there, on the same column, adds its kinds.
    calls = [
        (lambda rows, name: rows.imgmatch.visual_hash(name, hash_types=("phash",)), {"phash"}),
        (lambda rows, name: rows.imgmatch.visual_hash(name), {"bmh1", "phash"}),
        (lambda rows, name: rows.lazy().imgmatch.visual_hash(name, hash_types="toy").collect(), {"toy"}),
        (lambda rows, name: rows.select(imgmatch_df.phash(name)), {"phash"}),
        (lambda rows, name: rows.select(imgmatch_df.bmh1(name)), {"bmh1"}),
        (lambda rows, name: rows.lazy().select(imgmatch_df.perceptual_hash(name, "toy64")).collect(), {"toy64"}),
        (lambda rows, name: rows.select(imgmatch_df.visual_hash(name, hash_types=("toy", "phash"))), {"toy", "phash"}),
        (lambda rows, name: rows.imgmatch.near_duplicates(4, "phash", source=name), {"phash"}),
        (lambda rows, name: rows.lazy().imgmatch.remove_duplicates(4, source=name).collect(), {"bmh1"}),
        (lambda rows, name: rows.imgmatch.rank_images(rows[name][0], "phash", source=name), {"phash"}),
    ]
    for number, (work, wanted) in enumerate(calls):
        toy_kind.calls.clear()
        work(frame.head(3).rename({"url": f"url{number}"}), f"url{number}")
        assert set(toy_kind.calls) == wanted
        assert len(toy_kind.calls) <= 4 * len(wanted)


@TOYS
def test_frame_verbs(frame, kind):
    hashes = truth(frame, kind)
    hashed = frame.imgmatch.visual_hash("url", hash_types=kind.name)
    for radius in (0, kind.near_radius, kind.n_bits):
        assert hashed.imgmatch.near_duplicates(radius, kind.name).rows() == near(hashes, radius)
    radius, pairs = kind.near_radius, near(hashes, kind.near_radius)
    assert len(pairs) > 6
    assert frame.imgmatch.near_duplicates(radius, kind.name, source="url").rows() == pairs
    lazy = hashed.lazy().imgmatch.near_duplicates(radius, kind.name)
    assert lazy.collect(engine="streaming").rows() == pairs
    both = sorted(
        [*pairs, *((j, i, d) for i, j, d in pairs), *((i, i, 0) for i, h in enumerate(hashes) if h is not None)]
    )
    assert hashed.imgmatch.match(hashed, radius, kind.name).rows() == both
    clusters = hashed.imgmatch.cluster(radius, kind.name)
    assert clusters.columns[-1] == kind.name
    assert {(i, j) for i, j, _ in pairs} <= {
        (i, j) for i, j in combinations(range(len(hashes)), 2) if clusters["cluster_id"][i] == clusters["cluster_id"][j]
    }
    kept = frame.imgmatch.remove_duplicates(radius, kind.name, source="url")
    assert kept["url"].to_list() == clusters.filter("kept")["url"].to_list()
    for query in (hashes[4], frame["url"][4], hashed[kind.name].imgmatch.to_bits()[4]):
        ranked = hashed.imgmatch.rank_images(query, kind.name)
        wanted = sorted((distance(hashes[4], one), row) for row, one in enumerate(hashes) if one is not None)
        assert ranked["url"].to_list()[:-1] == [frame["url"][row] for _, row in wanted]
        assert ranked["distance"].to_list() == [*(bits for bits, _ in wanted), None]
    with pytest.raises(
        imgmatch_df.ArgumentError, match=f"radius must be a whole number of bits from 0 to {kind.n_bits}"
    ):
        hashed.imgmatch.near_duplicates(kind.n_bits + 1, kind.name)


@TOYS
def test_distances_and_bits(frame, kind):
    hashes = truth(frame, kind)
    column = pl.DataFrame({kind.name: pl.Series(hashes, dtype=kind.dtype)})
    bits = column.select(imgmatch_df.to_bits(kind.name))
    assert bits[kind.name].str.len_chars().drop_nulls().unique().to_list() == [kind.n_chars]
    assert_frame_equal(bits.select(imgmatch_df.from_bits(kind.name, kind.name)), column)
    wanted = [None if one is None else distance(one, hashes[0]) for one in hashes]
    for other in (hashes[0], bits[kind.name][0]):
        assert column.select(imgmatch_df.hamming(kind.name, other)).to_series().to_list() == wanted


@FORMS
@TOYS
def test_stores(frame, kind, form, tmp_path):
    target = tmp_path / f"hashes.{form}"
    summary = imgmatch_df.write_hashes(frame.head(5), target, source="url", hash_types=(kind.name, "phash"))
    assert summary.n_new == 5
    toy_kind.calls.clear()
    summary = imgmatch_df.write_hashes(frame, target, source="url")
    assert (summary.n_new, summary.n_skipped) == (frame.height - 5, 5)
    assert set(toy_kind.calls) == {kind.name}
    stored = imgmatch_df.read_hashes(target).sort("source")
    assert stored[kind.name].to_list() == truth(frame, kind)
    assert "bmh1" not in stored.columns
    assert_frame_equal(imgmatch_df.scan_hashes(target).collect().sort("source"), stored)
    new = frame.imgmatch.visual_hash("url", hash_types=kind.name).with_columns(pl.col("url") + "!")
    found = new.imgmatch.match(target, kind.near_radius, kind.name)
    assert found.height >= stored[kind.name].drop_nulls().len()
    del KINDS[kind.name]
    try:
        with pytest.raises(imgmatch_df.StoreError, match=f"hash kind.*{kind.name!r}.*\n.*register_hash_kind"):
            imgmatch_df.read_hashes(target)
    finally:
        register_hash_kind(kind)


@TOYS
def test_sql_of_a_store(frame, kind, tmp_path):
    target, hashes = tmp_path / "hashes.duckdb", truth(frame, kind)
    imgmatch_df.write_hashes(frame, target, source="url", hash_types=(kind.name, "bmh1"))
    stored = imgmatch_df.read_hashes(target)
    name, radius = kind.name, kind.near_radius
    with duckdb.connect(target, read_only=True) as database:
        ours = stored.imgmatch.near_duplicates(radius, name, id="source").rows()
        assert database.sql(f"FROM near_duplicates({radius}, '{name}')").fetchall() == ours
        assert len(ours) > 6
        ranked = f"FROM rank_images((SELECT {name} FROM hashes WHERE source LIKE '%04.jpg'), 3, hash_type := '{name}')"
        query = stored.filter(pl.col("source").str.ends_with("04.jpg"))[name].item()
        answer = database.sql(ranked)
        assert [row[answer.columns.index("source")] for row in answer.fetchall()] == stored.imgmatch.rank_images(
            query, name, k=3
        )["source"].to_list()
        assert answer.columns[-2:] == [one for one in stored.columns if one in KINDS]
        clusters = stored.imgmatch.cluster(radius, name)["cluster_id"].to_list()
        found = database.sql(f"SELECT cluster_id FROM duplicate_clusters({radius}, '{name}')").fetchall()
        assert [one for (one,) in found] == clusters
        n_kept = len(set(clusters))
        assert database.sql(f"SELECT count(*) FROM remove_duplicates({radius}, '{name}')").fetchall() == [(n_kept,)]
        bits = database.sql(f"SELECT {name}, from_bits(to_bits({name}), '{name}') FROM hashes").fetchall()
        assert [one for one, _ in bits] == [one for _, one in bits] == stored[name].to_list()
        assert set(hashes) == set(stored[name])
        with pytest.raises(duckdb.Error, match=f"radius must be a whole number of bits from 0 to {kind.n_bits}"):
            database.sql(f"FROM near_duplicates({kind.n_bits + 1}, '{name}')").fetchall()
        with pytest.raises(duckdb.Error, match=r"hash_type must be one of 'bmh1', .*'toy', 'toy64', got 'tot'"):
            database.sql("FROM near_duplicates(1, 'tot')").fetchall()


def test_the_file_of_macros_has_the_kinds_of_the_package():
    """For those who read it without Python; a store has what is registered."""
    ours = macros.read_sql("hashes")
    assert "'toy64'" in ours
    for kind in (TOY, TOY64):
        del KINDS[kind.name]
    try:
        assert macros.read_sql("hashes") == (Path(__file__).parents[2] / "sql" / "hashes.sql").read_text()
    finally:
        for kind in (TOY, TOY64):
            register_hash_kind(kind)


@TOYS
def test_command_line(images, frame, kind, tmp_path):
    def call(*words, code=0):
        result = CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})
        assert result.exit_code == code, result.output
        return result

    table, store = tmp_path / "hashes.parquet", tmp_path / "hashes.duckdb"
    call("visual-hash", images, "--hash-types", kind.name, "-o", store, code=1)
    stored = imgmatch_df.read_hashes(store).sort("source")
    assert stored[kind.name].to_list() == truth(frame, kind)
    call("visual-hash", images, "--hash-types", f"{kind.name},phash", "-o", tmp_path / "hashes.csv", code=1)
    written = pl.read_csv(tmp_path / "hashes.csv", infer_schema=False)
    assert written.select(imgmatch_df.from_bits(kind.name, kind.name)).to_series().null_count() == 1
    assert kind.name in call("visual-hash", images, "--hash-types", kind.name, code=1).output
    call("remove-duplicates", store, "--hash-type", kind.name, "--radius", kind.near_radius, "-o", table, code=1)
    wanted = stored.imgmatch.remove_duplicates(kind.near_radius, kind.name)
    assert pl.read_parquet(table)["source"].to_list() == wanted["source"].to_list()
    call("rank-images", frame["url"][4], store, "--hash-type", kind.name, "-k", 3, "-o", table, code=1)
    assert pl.read_parquet(table)["distance"].to_list()[0] == 0
    for words in (
        ("visual-hash", images, "--hash-types", kind.name),
        ("remove-duplicates", images, "--hash-type", kind.name),
        ("rank-images", frame["url"][4], images, "--hash-type", kind.name),
    ):
        toy_kind.calls.clear()
        assert REFUSED in call(*words, "-o", tmp_path / "out.json", code=2).output
        assert not toy_kind.calls


@TOYS
def test_decoder_processes(frame, kind, tmp_path):
    """Also those that were forked before the kind was registered."""
    del KINDS[kind.name]
    frame.head(2).select(pl.col("url").imgmatch.phash(isolate=True))
    register_hash_kind(kind)
    found = frame.imgmatch.visual_hash("url", hash_types=("bmh1", kind.name), isolate=True)
    assert found[kind.name].to_list() == truth(frame, kind)
    assert not [name for name in toy_kind.calls if name == "bmh1"]
    assert found["bmh1"].to_list() == frame.imgmatch.visual_hash("url")["bmh1"].to_list()


@pytest.mark.parametrize("isolate", [False, True], ids=["threads", "processes"])
@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        ("toy_kind:fail", "the kernel 'toy_kind:fail' of the hash kind 'broken' failed: ZeroDivisionError: a mistake"),
        ("toy_kind:nothing", "the kernel 'toy_kind:nothing' of the hash kind 'broken' cannot be imported: "),
        ("no_such_module:fail", "the kernel 'no_such_module:fail' of the hash kind 'broken' cannot be imported: "),
    ],
)
def test_a_kernel_with_a_mistake_ends_the_query(frame, monkeypatch, kernel, said, isolate):
    """It is not the fault of an image; and the decoder processes can be used on."""
    monkeypatch.setitem(KINDS, "broken", replace(TOY, name="broken", kernel=kernel))
    with pytest.raises(Exception, match=said):
        frame.imgmatch.visual_hash("url", hash_types="broken", isolate=isolate)
    assert frame.imgmatch.visual_hash("url", isolate=isolate)["phash"].null_count() == 1


def test_the_documented_json_refuses_it(frame):
    hashed = frame.imgmatch.visual_hash("url", hash_types=("toy", "phash"))
    with pytest.raises(imgmatch_df.ArgumentError, match=REFUSED):
        documented.visual_hash_response(hashed, seconds=0, hash_types=("toy",))
    with pytest.raises(imgmatch_df.ArgumentError, match=REFUSED):
        documented.read_request(json.dumps({"records": [{"_url": "a"}], "hash_type": "toy"}), "visual_hash")
    request = documented.read_request(json.dumps({"records": [{"_url": "a"}]}), "visual_hash")
    assert request.hash_types == ("bmh1", "phash")


def test_the_service_refuses_it():
    """In a process of its own, which registers the kinds before the models are made."""
    image = base64.b64encode(jpeg(draw(1))).decode()
    code = f"""
import asyncio, json, sys
sys.path.insert(0, {toy_kind.__file__.rpartition("/")[0]!r})
import toy_kind
from imgmatch_df.hashes.kinds import register_hash_kind
register_hash_kind(toy_kind.TOY)
from imgmatch_df.server import endpoints, models, openapi, settings
from imgmatch_df.server.responses import Refusal
made = settings.Settings()
described = endpoints.request_models(made)
try:
    body = {{"records": [{{"_base64": {image!r}}}], "hash_type": "toy"}}
    models.check_body(body, described["visual_hash"])
except Refusal as refusal:
    print(refusal)
print("toy" in json.dumps(openapi.describe_api(made, described)))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "hash_type must be 'bmh1' or 'phash', got 'toy'" in said.stdout
    assert said.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "To y"}, "the name must be lower-case"),
        ({"name": "width"}, "a column of another meaning has this name"),
        ({"name": "phash"}, "there is another hash kind 'phash'"),
        ({"dtype": pl.String()}, "dtype must be Binary, or UInt64 of 8 bytes, got String of 16"),
        ({"dtype": pl.UInt64()}, "dtype must be Binary, or UInt64 of 8 bytes, got UInt64 of 16"),
        ({"n_bytes": 1025}, "n_bytes must be 1 to 1024, got 1025"),
        ({"n_bits": 129}, "n_bits must be 1 to 128, got 129"),
        ({"near_radius": 129}, "near_radius must be 0 to 128, got 129"),
        ({"max_honest_radius": -1}, "max_honest_radius must be 0 to 128, got -1"),
        ({"kernel": "toy_kind.hash_image"}, "kernel must be 'module:function', got 'toy_kind.hash_image'"),
        ({"kernel": "__main__:hash_image"}, "the kernel is in __main__"),
    ],
)
def test_a_kind_that_contradicts_itself_is_refused(change, said):
    with pytest.raises(imgmatch_df.ArgumentError, match=said):
        register_hash_kind(replace(TOY, **change))
    with pytest.raises(imgmatch_df.ArgumentError, match="kind must be a HashKind, got 'toy'"):
        register_hash_kind("toy")
