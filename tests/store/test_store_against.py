"""New rows against stored ones: frames and stores of every form, in every verb, equal a double loop."""

import random

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from test_store import FORMS, random_hashes

import imgmatch_df
from imgmatch_df import ArgumentError, ColumnError, StoreError

RADIUS = {"phash": 6, "bmh1": 40}
ENGINES = ["eager", "in-memory", "streaming"]
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::imgmatch_df.ImgMatchWarning"),  # blank images are one cluster
]


def flip(value, n_flips, rng):
    """Return a hash so many bits away."""
    n_bits = 64 if isinstance(value, int) else 961
    number = value if isinstance(value, int) else int.from_bytes(value)
    for bit in rng.sample(range(n_bits), n_flips):
        number ^= 1 << (bit if n_bits == 64 else bit + 7)
    return number if isinstance(value, int) else number.to_bytes(121)


def truth(new, old, radius):
    """Return, for each new hash, the position of the nearest old one and how far it is, by a double loop."""
    bits = [[int.from_bytes(v) if isinstance(v, bytes) else v for v in side] for side in (new, old)]
    found = []
    for one in bits[0]:
        distances = [None if None in (one, other) else (one ^ other).bit_count() for other in bits[1]]
        near = [
            (distance, row) for row, distance in enumerate(distances) if distance is not None and distance <= radius
        ]
        found.append(min(near)[::-1] if near else (None, None))
    return found


@pytest.fixture(params=["phash", "bmh1"])
def sides(request):
    """New rows and known ones: copies near and far, equal ones, several at one distance, rows without a hash."""
    name, rng = request.param, random.Random(request.param)
    old = random_hashes(120, seed=3)
    values = old[name].to_list()
    values[7] = values[100] = values[3]
    values[9] = None
    old = old.with_columns(pl.Series(name, values, dtype=old.schema[name]))
    radius = RADIUS[name]
    new = [flip(values[row], rng.choice([0, 1, radius - 1, radius, radius + 1]), rng) for row in range(10, 90)]
    new += [values[3], values[7], None, None, *new[:20], *(flip(new[0], 2, rng) for _ in range(3))]
    own = random_hashes(40, seed=4)[name].to_list()
    new += own + [flip(value, 1, rng) for value in own]
    rng.shuffle(new)
    frame = pl.DataFrame({"id": [f"new{row}" for row in range(len(new))], name: pl.Series(new, dtype=old.schema[name])})
    return name, radius, frame, old


@pytest.mark.parametrize("linkage", ["connected", "star"])
def test_cluster_against_equals_a_double_loop(sides, linkage):
    name, radius, new, old = sides
    wanted = truth(new[name].to_list(), old[name].to_list(), radius)
    found = imgmatch_df.cluster(
        new, radius, name, linkage=linkage, id="id", reference=old, reference_id="source", diameter=True
    )
    assert found["reference_id"].to_list() == [None if row is None else old["source"][row] for row, _ in wanted]
    matched = found.filter(pl.col("reference_id").is_not_null())
    assert 60 < matched.height < new.height - 60
    assert matched["distance"].to_list() == [distance for _, distance in wanted if distance is not None]
    assert not matched["kept"].any()
    for column in ("cluster_id", "representative_id", "diameter"):
        assert matched[column].null_count() == matched.height
    # The others are what they are without the matched ones.
    others = found.filter(pl.col("reference_id").is_null())
    alone = imgmatch_df.cluster(others.select(new.columns), radius, name, linkage=linkage, id="id", diameter=True)
    assert_frame_equal(others.drop("reference_id"), alone)
    assert found.select(new.columns).equals(new)
    # Rows by number, where no column names them.
    numbers = imgmatch_df.cluster(new, radius, name, linkage=linkage, reference=old)
    assert numbers["reference_id"].to_list() == [row for row, _ in wanted]
    assert [None if row is None else f"new{row}" for row in numbers["representative_id"]] == found[
        "representative_id"
    ].to_list()


@pytest.mark.parametrize("form", FORMS)
def test_every_stored_form_and_engine_gives_the_same(sides, tmp_path, form):
    name, radius, new, old = sides
    store = tmp_path / form
    imgmatch_df.write_hashes(old, store)
    verbs = {
        "match": lambda frame, known, **kw: frame.imgmatch.match(known, radius, name, id="id", **kw),
        "cluster": lambda frame, known, **kw: frame.imgmatch.cluster(radius, name, id="id", reference=known, **kw),
    }
    for call in verbs.values():
        wanted = call(new, old, reference_id="source")
        for known in (store, str(store), imgmatch_df.read_hashes(store), imgmatch_df.scan_hashes(store)):
            named = {} if isinstance(known, (str, type(store))) else {"reference_id": "source"}
            assert_frame_equal(call(new, known, **named), wanted)
            for engine in ("in-memory", "streaming"):
                lazy = call(new.lazy(), known, **named)
                assert lazy.collect_schema() == wanted.schema
                assert_frame_equal(lazy.collect(engine=engine), wanted)
        assert call(new.lazy(), store, reference_id="width").collect_schema()["reference_id"] == pl.UInt32
    wanted = call(new, store)
    left = imgmatch_df.remove_duplicates(new, radius, name, reference=store)
    assert left["id"].to_list() == wanted.filter("kept")["id"].to_list()
    removed = wanted.filter(~pl.col("kept"), pl.col("reference_id").is_null())["id"].to_list()
    assert sorted(row["id"] for rows in left["removed_records"] for row in rows) == sorted(removed)
    assert_frame_equal(imgmatch_df.remove_duplicates(new.lazy(), radius, name, reference=store).collect(), left)


def test_only_hashes_and_keys_are_read(tmp_path, monkeypatch):
    store, rows = tmp_path / "some.duckdb", random_hashes(50)
    imgmatch_df.write_hashes(rows, store)
    read = []
    query = imgmatch_df.store.duckdb.DuckDBStore.read

    def seen(opened, columns, *rest):
        read.append(sorted(columns))
        return query(opened, columns, *rest)

    monkeypatch.setattr(imgmatch_df.store.duckdb.DuckDBStore, "read", seen)
    assert rows.drop("source").imgmatch.match(store, 0).height == 50
    assert rows.imgmatch.remove_duplicates(0, "phash", reference=store).height == 50
    assert read == [["bmh1", "source"], ["phash", "source"]]


@pytest.mark.parametrize("n_new", [0, 1])
@pytest.mark.parametrize("n_old", [0, 1])
def test_few_rows(tmp_path, n_new, n_old):
    rows = random_hashes(1)
    store = tmp_path / "some.duckdb"
    imgmatch_df.write_hashes(rows.head(n_old), store)
    new = rows.head(n_new).drop("source")
    for frame in (new, new.lazy()):
        found = frame.imgmatch.cluster(8, "phash", reference=store).lazy().collect()
        assert found["reference_id"].to_list() == (["0.jpg"] if n_old else [None]) * n_new
        assert found["kept"].to_list() == [not n_old] * n_new
        left = frame.imgmatch.remove_duplicates(8, "phash", reference=store).lazy().collect()
        assert left.height == n_new * (1 - n_old)


def test_what_is_equal_is_compared_once(tmp_path):
    """A hundred thousand blank pictures against as many: ten billion pairs, none of which is made."""
    blank = pl.DataFrame({"phash": [8] * 100_000}, schema={"phash": pl.UInt64})
    found = imgmatch_df.cluster(blank, 3, "phash", reference=blank)
    assert found["reference_id"].unique().to_list() == [0]
    assert not found["kept"].any()


def test_wrong_calls(tmp_path):
    rows = random_hashes(3)
    imgmatch_df.write_hashes(rows.select("source", "phash"), tmp_path / "some.duckdb")
    for verb in (imgmatch_df.cluster, imgmatch_df.remove_duplicates):
        with pytest.raises(StoreError, match="no such store"):
            verb(rows, reference=tmp_path / "none.duckdb")
        with pytest.raises(ColumnError, match="no column 'bmh1'"):
            verb(rows, reference=tmp_path / "some.duckdb")
        with pytest.raises(ArgumentError, match="must be a frame or the path of a store, got list"):
            verb(rows, reference=[1])
    with pytest.raises(ColumnError, match="no column 'nope'"):
        imgmatch_df.cluster(rows, 0, "phash", reference=rows, reference_id="nope")
    with pytest.raises(ArgumentError, match="reference_id has no effect without reference="):
        imgmatch_df.cluster(rows, reference_id="source")
    with pytest.raises(ArgumentError, match="must be a frame or the path of a store, got int"):
        imgmatch_df.match(rows, 3, 3)


def test_hashes_of_another_decode_path_are_not_compared(folder, tmp_path):
    store, pictures = tmp_path / "scaled.duckdb", imgmatch_df.scan_images(folder).collect()
    imgmatch_df.write_hashes(pictures, store, source="path", decode="scaled")
    verbs = {
        "cluster": lambda frame, **kw: frame.imgmatch.cluster(0, reference=store, **kw),
        "remove_duplicates": lambda frame, **kw: frame.imgmatch.remove_duplicates(0, reference=store, **kw),
        "match": lambda frame, **kw: frame.imgmatch.match(store, 0, **kw),
    }
    for verb in verbs.values():
        for frame in (pictures, pictures.lazy()):
            with pytest.raises(
                StoreError, match=r"it has decode='scaled', this call has decode='full'.*\nHint: pass decode='scaled'"
            ):
                verb(frame, source="path")
    assert verbs["match"](pictures.rename({"path": "url"}), source="url", decode="scaled").height == 0
    elsewhere = pictures.with_columns(path=f"{folder}/./" + pl.col("path").str.split("/").list.last())
    assert verbs["match"](elsewhere, source="path", decode="scaled").height >= 40
    # Of hashes that are there already, nobody knows.
    assert verbs["match"](imgmatch_df.read_hashes(store).drop("source")).height >= 40


# A row that is in the store itself


def ask(frame, engine, verb):
    return verb(frame) if engine == "eager" else verb(frame.lazy()).collect(engine=engine)


def own_truth(new, old, radius, same):
    """Return for each row the nearest stored row, by a double loop: a stored row meets none of the rows themselves."""
    stored_here = {j for i in range(new.height) for j in range(old.height) if same(i, j)}
    found = []
    for i, value in enumerate(new["phash"]):
        is_stored = any(same(i, j) for j in range(old.height))
        near = [
            ((value ^ other).bit_count(), j)
            for j, other in enumerate(old["phash"])
            if None not in (value, other)
            and (value ^ other).bit_count() <= radius
            and not (is_stored and j in stored_here)
        ]
        found.append(min(near)[1] if near else None)
    return found


KEYS = {
    "source": ({}, {"source": "source"}, None),
    "path for source": ({}, {"source": "path"}, None),
    "url for source": ({}, {"source": "url"}, None),
    "category": ({}, {"source": "source"}, pl.Categorical),
    "sku": ({"key": "sku"}, {"source": "anything", "sku": "sku"}, None),
    "sku as a small number": ({"key": "sku"}, {"source": "anything", "sku": "sku"}, pl.UInt16),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("keys", KEYS)
def test_a_row_never_matches_itself_in_a_store(tmp_path, form, keys):
    call, names, dtype = KEYS[keys]
    rng = random.Random(keys)
    rows = random_hashes(60, seed=8).select("source", "phash").with_columns(sku=pl.int_range(60) + 100)
    values = rows["phash"].to_list()
    for row in range(10, 40):  # copies of each other, near and equal
        values[row] = flip(values[row % 10], rng.choice([0, 1, 3, 8]), rng)
    rows = rows.with_columns(pl.Series("phash", values, dtype=pl.UInt64))
    stored = rows if "key" in call else rows.drop("sku")
    imgmatch_df.write_hashes(stored[20:], tmp_path / form, **call)
    new = rows[rng.sample(range(60), 45)]  # some are stored, some are not
    id_name = call.get("key", "source")
    if dtype is not None:
        new = new.with_columns(pl.col(id_name).cast(dtype))
    new, old = new.rename({"source": names["source"]}), stored[20:]
    ids, keys_of = old[id_name].to_list(), new[names[id_name]].cast(old.schema[id_name]).to_list()
    same = lambda i, j: keys_of[i] == ids[j]  # noqa: E731
    wanted = own_truth(new, old, 6, same)
    wanted_pairs = [
        (i, ids[j])
        for i, value in enumerate(new["phash"])
        for j, other in enumerate(old["phash"])
        if not same(i, j) and None not in (value, other) and (value ^ other).bit_count() <= 6
    ]
    for engine in ENGINES:
        found = ask(new, engine, lambda frame: frame.imgmatch.cluster(6, "phash", reference=tmp_path / form))
        assert found["reference_id"].to_list() == [None if j is None else ids[j] for j in wanted]
        assert 3 < found["reference_id"].count() < 42
        left = ask(new, engine, lambda frame: frame.imgmatch.remove_duplicates(6, "phash", reference=tmp_path / form))
        assert left["phash"].to_list() == found.filter("kept")["phash"].to_list()
        pairs = ask(new, engine, lambda frame: frame.imgmatch.match(tmp_path / form, 6, "phash"))
        assert pairs.select("query_id", "reference_id").rows() == wanted_pairs


def test_the_store_of_today_removes_nothing_of_today(folder, tmp_path):
    today = imgmatch_df.scan_images(folder)
    for path in sorted(folder.glob("*.jpg"))[:3]:
        path.with_suffix(".copy.jpg").write_bytes(path.read_bytes())
    store = tmp_path / "hashes.duckdb"
    imgmatch_df.write_hashes(today.collect(), store, source="path")
    alone = today.imgmatch.remove_duplicates(24, source="path").collect()
    assert alone.height == 40
    assert_frame_equal(today.imgmatch.remove_duplicates(24, source="path", reference=store).collect(), alone)
    hashed = today.imgmatch.visual_hash("path", hash_types="bmh1").collect()
    assert_frame_equal(hashed.imgmatch.remove_duplicates(24, reference=store), alone)
    # A copy that the store has and today's rows have not is another row.
    first = hashed.filter(pl.col("path").str.ends_with("picture00.jpg"))
    assert first.imgmatch.cluster(24, reference=store)["reference_id"].item().endswith("picture00.copy.jpg")
    assert first.imgmatch.remove_duplicates(24, reference=store).height == 0


def test_another_source_under_the_key_of_a_row_is_another_image(tmp_path):
    store = tmp_path / "hashes.duckdb"
    rows = pl.DataFrame({"sku": [1, 2, 3], "source": ["a", "b", None], "phash": [3, 1 << 20, 1 << 40]})
    imgmatch_df.write_hashes(rows.with_columns(pl.col("phash").cast(pl.UInt64)), store, key="sku")
    new = rows.with_columns(source=pl.Series(["a", "other", None]))
    assert new.imgmatch.match(store, 0, "phash")["query_id"].to_list() == [1]
    assert new.imgmatch.cluster(0, "phash", reference=store)["reference_id"].to_list() == [None, 2, None]
    assert new.drop("source").imgmatch.match(store, 0, "phash").height == 0  # the key is all that is known
    assert new.drop("sku").imgmatch.match(store, 0, "phash").height == 3


def test_keys_of_another_kind_tell_nothing(tmp_path):
    store = tmp_path / "hashes.duckdb"
    rows = random_hashes(5).select("source", "phash")
    imgmatch_df.write_hashes(rows, store)
    for source in (pl.int_range(5), pl.col("source").cast(pl.Binary), pl.lit(None, pl.String)):
        assert rows.with_columns(source=source).imgmatch.match(store, 0, "phash").height == 5
    assert rows.imgmatch.match(imgmatch_df.read_hashes(store), 0, "phash").height == 5  # a frame has no key
