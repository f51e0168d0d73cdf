"""Columns of images in every dtype, and as expressions, in every verb and store."""

import pickle

import polars as pl
import pyarrow as pa
import pytest
from drawing import draw, png
from polars.testing import assert_frame_equal

import imgmatch_df
from imgmatch_df import ArgumentError, ColumnError
from imgmatch_df.images import decode

IMAGE = pl.Struct({"bytes": pl.Binary, "path": pl.String})


@pytest.fixture(scope="module")
def images():
    return [png(draw(seed % 3, 64, 48)) for seed in range(5)]


@pytest.fixture(scope="module")
def hashes(images):
    return pl.Series(images).imgmatch.phash().to_list()


@pytest.fixture
def photos(images):
    """As a Hugging Face dataset: images 0 and 3, and 1 and 4, are equal."""
    values = [{"bytes": image, "path": f"{number}.png"} for number, image in enumerate(images)]
    return pl.DataFrame({"image": values, "label": range(5)}, schema_overrides={"image": IMAGE})


def series(images, kind, folder):
    """A column of three images, and a value without one."""
    path = folder / "1.png"
    path.write_bytes(images[1])
    first, third = images[0], images[2]
    struct = [{"bytes": first, "path": "a"}, {"bytes": None, "path": str(path)}, {"bytes": third, "path": None}]
    paths = [folder / f"{number}.png" for number in range(3)]
    for number, one in enumerate(paths):
        one.write_bytes(images[number])
    names = [str(one) for one in paths]
    columns = {
        "struct": pl.Series([*struct, None], dtype=IMAGE),
        "no fields": pl.Series([*struct, {"bytes": None, "path": None}], dtype=IMAGE),
        "zero bytes": pl.Series([struct[0], {"bytes": b"", "path": names[1]}, struct[2], {"bytes": b"", "path": None}]),
        "order": pl.Series([*struct, None]).struct.unnest().select(pl.struct("path", n=1, bytes="bytes")).to_series(),
        "bytes only": pl.Series([{"bytes": images[0]}, {"bytes": images[1]}, {"bytes": third}, {"bytes": None}]),
        "path only": pl.Series([*({"path": name} for name in names), {"path": None}]),
        "null bytes": pl.Series(
            [*({"bytes": None, "path": name} for name in names), None],
            dtype=pl.Struct({"bytes": pl.Null, "path": pl.String}),
        ),
        "null path": pl.Series(
            [*({"bytes": image, "path": None} for image in images[:3]), None],
            dtype=pl.Struct({"bytes": pl.Binary, "path": pl.Null}),
        ),
        "a size": pl.Series([*({"bytes": 7, "path": name} for name in names), None]),
        "categorical": pl.Series([*({"path": name} for name in names), None]).cast(pl.Struct({"path": pl.Categorical})),
        "enum": pl.Series([*({"path": name} for name in names), None]).cast(pl.Struct({"path": pl.Enum(names)})),
        "file URL": pl.Series([*({"bytes": None, "path": one.as_uri()} for one in paths), None]),
        "list of structs": pl.Series([[struct[0], struct[1]], [struct[1]], [struct[2]], []], dtype=pl.List(IMAGE)),
        "list of bytes": pl.Series([[first, third], [images[1]], [third], None]),
        "list of paths": pl.Series([[name] for name in names] + [[None]]),
        "array": pl.Series([[*pair] for pair in zip(struct, struct, strict=True)] + [None], dtype=pl.Array(IMAGE, 2)),
        "list of lists": pl.Series([[[names[0]], []], [[names[1]]], [[names[2]]], [[]]]),
        "array of width 0": pl.Series([[], [], [], None], dtype=pl.Array(pl.String, 0)),
        "large_binary": pl.Series(pa.array([first, images[1], third, None], pa.large_binary())),
        "binary_view": pl.Series(pa.array([first, images[1], third, None], pa.binary_view())),
        "arrow struct": pl.Series(
            pa.array([*struct, None], pa.struct({"bytes": pa.large_binary(), "path": pa.large_string()}))
        ),
    }
    return columns[kind].alias("image")


KINDS = (
    *("struct", "no fields", "zero bytes", "order", "bytes only", "path only", "null bytes", "null path", "a size"),
    *("categorical", "enum", "file URL", "list of structs", "list of bytes", "list of paths", "array"),
    *("list of lists", "large_binary", "binary_view", "arrow struct"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_dtypes_of_images(kind, images, hashes, tmp_path):
    column = series(images, kind, tmp_path)
    wanted = [*hashes[:3], None]
    assert column.imgmatch.phash().to_list() == wanted
    assert column.to_frame().select(pl.col("image").imgmatch.phash()).to_series().to_list() == wanted
    hashed = column.to_frame().imgmatch.visual_hash("image")
    assert hashed["phash"].to_list() == wanted
    assert hashed["status"].to_list() == ["ok", "ok", "ok", "missing"]
    assert hashed["image"].equals(column, null_equal=True)
    # Slices have offsets, and several chunks are one column.
    assert column[1:].imgmatch.phash().to_list() == wanted[1:]
    chunked = pl.concat([column[2:], column, column[:1]], rechunk=False)
    assert chunked.imgmatch.phash().to_list() == [*wanted[2:], *wanted, *wanted[:1]]
    streamed = chunked.to_frame().lazy().imgmatch.visual_hash("image").collect(engine="streaming")
    assert streamed["phash"].to_list() == [*wanted[2:], *wanted, *wanted[:1]]
    assert column[:0].imgmatch.phash().to_list() == []


def test_lists_without_values(tmp_path, images):
    column = series(images, "array of width 0", tmp_path)
    assert column.imgmatch.visual_hash().struct.field("status").to_list() == ["missing"] * 4


@pytest.mark.parametrize("path", ["https://example.invalid/a.jpg", "s3://bucket/a.jpg"])
def test_a_path_may_be_a_url(path):
    column = pl.Series("image", [{"bytes": None, "path": path}], dtype=IMAGE)
    hashed = column.to_frame().imgmatch.visual_hash("image", schemes=("file",))
    assert hashed["status"].to_list() == ["fetch_blocked"]


def test_paths_start_from_base_dir(tmp_path, images, hashes):
    (tmp_path / "a.png").write_bytes(images[0])
    column = pl.Series([{"bytes": None, "path": "a.png"}], dtype=IMAGE)
    assert column.imgmatch.phash(base_dir=str(tmp_path)).to_list() == hashes[:1]


@pytest.mark.parametrize("lazy", [False, True])
def test_structs_are_decoded_once_per_statement(lazy, photos, monkeypatch):
    seen = []
    decode_image = decode.decode_image
    monkeypatch.setattr(decode, "decode_image", lambda *args, **more: seen.append(1) or decode_image(*args, **more))
    frame = photos.lazy() if lazy else photos
    frame.select(pl.col("image").imgmatch.phash(), pl.col("image").imgmatch.bmh1()).lazy().collect()
    # Three are different. A streaming query may have equal ones in several batches.
    assert 3 <= len(seen) <= (len(photos) if lazy else 3)


def test_equal_buffers_of_other_rows_are_not_shared(photos, hashes):
    halves = pl.DataFrame({"a": photos["image"][:2], "b": photos["image"][1:3]})
    found = halves.select(pl.col("a").imgmatch.phash(), pl.col("b").imgmatch.phash().alias("other"))
    assert found.rows() == [(hashes[0], hashes[1]), (hashes[1], hashes[2])]


SOURCES = {
    "a name": "image",
    "a column": pl.col("image"),
    "a field": pl.col("image").struct.field("bytes"),
    "an alias": pl.col("image").alias("photo"),
    "a list": pl.concat_list("image"),
}
VERBS = {
    "visual_hash": lambda frame, source, _: frame.imgmatch.visual_hash(source),
    "near_duplicates": lambda frame, source, _: frame.imgmatch.near_duplicates(0, source=source),
    "match": lambda frame, source, known: frame.imgmatch.match(known, 0, source=source),
    "cluster": lambda frame, source, _: frame.imgmatch.cluster(0, source=source),
    "remove_duplicates": lambda frame, source, _: frame.imgmatch.remove_duplicates(0, source=source),
    "rank_images": lambda frame, source, known: frame.imgmatch.rank_images(known["bmh1"][0], source=source),
    "find_copies": lambda frame, source, _: frame.imgmatch.find_copies(source=source),
    "profile_radii": lambda frame, source, _: frame.imgmatch.profile_radii(source=source, max_radius=2),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_an_expression(verb, photos):
    known = photos[:2].imgmatch.visual_hash("image").drop("image")
    expected = VERBS[verb](photos, "image", known)
    assert len(expected)
    for source in SOURCES.values():
        assert_frame_equal(VERBS[verb](photos, source, known), expected)
        assert_frame_equal(VERBS[verb](photos.lazy(), source, known).collect(), expected)


def test_no_other_column_is_needed(photos, hashes):
    found = photos.imgmatch.visual_hash(pl.concat_str(pl.lit("no/"), pl.col("image").struct.field("path")))
    assert found["detail"].to_list() == [f"no such file: no/{number}.png" for number in range(5)]
    of_two = pl.DataFrame({"a": [None, "x"], "b": photos["image"].struct.field("bytes")[:2]})
    assert of_two.imgmatch.visual_hash(pl.coalesce("b"))["phash"].to_list() == hashes[:2]


def test_reports_take_expressions(photos):
    for source in SOURCES.values():
        for frame in (photos, photos.lazy()):
            report = frame.imgmatch.report(0, source=source)
            assert (report.counts.copies, report.counts.thumbnails) == (2, 4)
            assert not [name for name in report.clusters.columns if name.startswith("__")]


def test_removed_records_have_the_path_and_no_bytes(photos):
    kept = photos.imgmatch.remove_duplicates(0, source="image")
    assert kept["removed_records"].explode().struct.field("image").drop_nulls().to_list() == [
        {"path": "3.png"},
        {"path": "4.png"},
    ]
    assert kept.schema["image"] == IMAGE


@pytest.mark.parametrize("target", ["hashes.duckdb", "hashes.parquet"])
@pytest.mark.parametrize("source", ["image", pl.col("image").alias("photo")])
def test_stores_name_structs_by_their_paths(target, source, photos, hashes, tmp_path):
    store = tmp_path / target
    done = imgmatch_df.write_hashes(photos, store, source=source)
    assert (done.n_new, done.n_failed) == (5, 0)
    stored = imgmatch_df.read_hashes(store).lazy().sort("source").collect()
    assert stored["source"].to_list() == [f"{number}.png" for number in range(5)]
    assert stored["phash"].to_list() == hashes
    assert imgmatch_df.write_hashes(photos.lazy(), store, source=source).n_skipped == 5
    other = photos.with_columns(
        image=pl.struct(
            photos["image"].struct.field("bytes").reverse().alias("bytes"), path=pl.col("image").struct.field("path")
        )
    )
    assert imgmatch_df.write_hashes(other, store, source=source).n_changed == 4  # the third is in the middle
    # A row is not a copy of itself.
    imgmatch_df.write_hashes(photos, store, source=source)
    assert photos.imgmatch.cluster(0, source=source, reference=store)["kept"].sum() == 3
    assert photos.lazy().imgmatch.remove_duplicates(0, source=source, reference=store).collect().height == 3
    assert photos.imgmatch.match(store, 0, source=source).rows() == [
        (0, "3.png", 0),
        (1, "4.png", 0),
        (3, "0.png", 0),
        (4, "1.png", 0),
    ]


def test_stores_with_another_key_keep_the_path(photos, tmp_path):
    store = tmp_path / "hashes.duckdb"
    assert imgmatch_df.write_hashes(photos, store, source="image", key="label").n_new == 5
    stored = imgmatch_df.read_hashes(store).lazy().sort("label").collect()
    assert stored.select("label", "source").rows() == [(number, f"{number}.png") for number in range(5)]
    assert imgmatch_df.write_hashes(photos, store, source="image", key="label").n_skipped == 5


def test_the_key_may_have_the_name_of_the_images(photos, tmp_path):
    for source, key in (("image", "image"), (pl.col("image").alias("photo"), "photo")):
        store = tmp_path / f"{key}.duckdb"
        assert imgmatch_df.write_hashes(photos, store, source=source, key=key).n_new == 5
        assert imgmatch_df.write_hashes(photos, store, source=source).n_skipped == 5
        assert photos.imgmatch.cluster(0, source=source, reference=store)["kept"].sum() == 3


def test_paths_of_expressions_are_keys(tmp_path, images):
    for number, image in enumerate(images):
        (tmp_path / f"{number}.png").write_bytes(image)
    names = pl.DataFrame({"name": [f"{number}.png" for number in range(5)]})
    source = pl.concat_str(pl.lit(f"{tmp_path}/"), "name")
    store = tmp_path / "hashes.duckdb"
    assert imgmatch_df.write_hashes(names, store, source=source).n_new == 5
    assert imgmatch_df.write_hashes(names, store, source=source).n_skipped == 5
    assert names.imgmatch.cluster(0, source=source, reference=store)["kept"].sum() == 3


def test_images_without_a_name_need_a_key(photos, tmp_path):
    store = tmp_path / "hashes.duckdb"
    with pytest.raises(ColumnError, match="Hint: key= names another column"):
        imgmatch_df.write_hashes(photos, store, source=pl.col("image").struct.field("bytes"))
    unnamed = photos.with_columns(pl.col("image").struct.with_fields(path=pl.lit(None, pl.String)))
    with pytest.raises(ColumnError, match="the key 'source' is null"):
        imgmatch_df.write_hashes(unnamed, store, source="image")


def test_expressions_on_structs_can_be_pickled(photos, hashes):
    expr = pickle.loads(pickle.dumps(pl.col("image").imgmatch.phash()))
    assert photos.select(expr).to_series().to_list() == hashes


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (pl.col("no"), ColumnError, "unable to find column \"no\".*\nHint: the frame has 'image', 'label'"),
        (pl.all(), ArgumentError, "must be one column, got an expression for 2: 'image', 'label'\nHint: "),
        (pl.col("label"), ColumnError, "column 'label' has dtype Int64, sources are String .*\nHint: cast"),
        (pl.struct(jpg="image"), ColumnError, r"has dtype Struct.*\nHint: source=.*struct.field\('jpg'\) hashes"),
        (pl.struct("label"), ColumnError, "has dtype Struct.*\nHint: cast"),
        (pl.concat_list("label"), ColumnError, r"has dtype List\(Int64\)"),
        (7, ArgumentError, "source must be the name of a column or an expression, got 7\nHint: "),
        (pl.Series(["a"]), ArgumentError, "source must be the name of a column or an expression, got a Series\nHint: "),
    ],
)
def test_sources_that_are_none(source, error, message, photos):
    for frame in (photos, photos.lazy()):
        with pytest.raises(error, match=message):
            frame.imgmatch.visual_hash(source)
        with pytest.raises(error, match=message):
            frame.imgmatch.cluster(0, source=source)
        with pytest.raises(error, match=message):
            frame.imgmatch.report(0, source=source)


def test_images_are_not_ids(photos):
    with pytest.raises(ColumnError, match=r"column 'image' holds images, which cannot name rows\nHint: .*path"):
        photos.imgmatch.near_duplicates(0, source="image", id="image")
    named = photos.with_columns(path=pl.col("image").struct.field("path"))
    assert named.imgmatch.near_duplicates(0, source="image", id="path").rows() == [
        ("0.png", "3.png", 0),
        ("1.png", "4.png", 0),
    ]
