"""Copies on Spark: the pairs by votes and those of `find_copies` are those of one machine, at any number of blocks."""

import io

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageOps
from polars.testing import assert_frame_equal

import imgmatch_df
import imgmatch_df.spark as ims
from imgmatch_df.matching import shared_points
from imgmatch_df.matching.shared_points import Limits
from imgmatch_df.spark.schemas import as_spark

pytestmark = pytest.mark.spark

SMALL = Limits(1, 40, (8, 64), 3)


def scene(seed, width=224, height=168):
    """Return a picture of many corners."""
    small = np.random.default_rng(seed).integers(0, 256, (20, 26, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


LOGO = scene(999, 90, 90)


def with_logo(image):
    pasted = image.copy()
    pasted.paste(LOGO, (10, 20))
    return pasted


def pictures():
    """Return images by their names: originals, edited copies, some several times, flat ones, files without an image."""
    found = {}
    for seed in range(24):
        image = scene(seed)
        edits = [
            image,
            image.crop((20, 10, 200, 150)),
            ImageOps.mirror(image),
            ImageOps.expand(image, 24, "white"),
            image.resize((110, 168)),
            image.transpose(Image.Transpose.ROTATE_90).crop((10, 10, 150, 200)),
        ]
        for number, edit in enumerate(edits[: 2 + seed % 5]):
            found[f"{(seed * 7 + number * 11) % 24:02}-{seed}-{number}"] = edit
    for seed in range(100, 130):
        found[f"{seed % 7}-logo-{seed}"] = with_logo(scene(seed))
    for number in range(4):  # the same image before and after its copies
        found[f"{6 * number:02}-again-{number}"] = scene(3)
        found[f"{6 * number:02}-mirrored-{number}"] = ImageOps.mirror(scene(3))
    for number in range(3):
        found[f"z flat {number}"] = Image.new("RGB", (80, 60), (200, 120, 40 * (number // 2)))
    return found


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def images():
    data = {name: png(image) for name, image in pictures().items()}
    rows = {"name": [*data, "broken", "null"], "url": [*data.values(), b"no image", None]}
    folders = [f"folder {len(name) % 3}" for name in rows["name"]]
    return pl.DataFrame({**rows, "folder": folders}).sample(fraction=1, shuffle=True, seed=1)


@pytest.fixture(scope="module")
def hashed(images):
    return imgmatch_df.visual_hash(images, "url", hash_types=("local", "pdq", "sha256")).drop("url")


@pytest.fixture(scope="module")
def df(spark, hashed):
    return spark.createDataFrame(as_spark(hashed)).repartition(3)


def assert_same(found, expected):
    """Compare a DataFrame of Spark, in any order, with one of one machine."""
    assert found.columns == expected.columns
    rows = pl.DataFrame(found.toArrow())
    assert_frame_equal(rows.sort(rows.columns[:2]), pl.DataFrame(as_spark(expected)).sort(rows.columns[:2]))


@pytest.mark.parametrize("n_blocks", [1, 3, 8])
def test_copies_are_those_of_one_machine(df, hashed, n_blocks):
    expected = imgmatch_df.find_copies(hashed.sort("name"), id="name")
    assert set(expected["evidence"]) == {"local", "pdq", "both"}
    assert {"none", "mirrored", "rotated_90"} <= set(expected["turn"])
    assert_same(ims.find_copies(df, id="name", n_blocks=n_blocks), expected)


@pytest.mark.parametrize("n_blocks", [1, 3])
def test_points_are_set_aside_over_all_blocks(monkeypatch, tmp_path, df, hashed, n_blocks):
    ordered = hashed.sort("name")
    unlimited = imgmatch_df.near_duplicates(ordered, hash_type="local", id="name", min_votes=4)
    monkeypatch.setattr(shared_points, "LIMITS", SMALL)
    expected = imgmatch_df.near_duplicates(ordered, hash_type="local", id="name", min_votes=4)
    assert expected.height < unlimited.height  # images that share a logo alone are no candidates
    named = {"id": "name", "hash_type": "local", "min_votes": 4, "work_dir": str(tmp_path), "n_blocks": n_blocks}
    assert_same(ims.near_duplicates(df, **named), expected)
    assert len(list(tmp_path.glob("*/kept/masks/*.parquet"))) == n_blocks

    queries = ordered.filter(pl.int_range(pl.len()) % 3 == 0)
    some = df.join(df.sparkSession.createDataFrame(as_spark(queries.select("name"))), "name")
    expected = imgmatch_df.match(queries, ordered, hash_type="local", id="name", reference_id="name", min_votes=4, k=2)
    assert expected.height > queries.height
    assert_same(ims.match(some, df, reference_id="name", k=2, **named), expected)


def test_conditions_and_a_reference(df, hashed):
    ordered = hashed.sort("name")
    lefts, rights = (
        ordered.filter(pl.col("folder").is_in(names)) for names in (["folder 0"], ["folder 1", "folder 2"])
    )
    every = imgmatch_df.find_copies(lefts, id="name", reference=rights, reference_id="name")
    assert every.height > 10
    given = every.head(3).rename({"query_id": "left_id", "reference_id": "right_id"}).select("left_id", "right_id")
    pairs = df.sparkSession.createDataFrame(as_spark(given))
    named = {"id": "name", "reference_id": "name", "min_votes": 6, "radius": 20, "flat": "match"}
    expected = imgmatch_df.find_copies(
        lefts, reference=rights, within=pl.col("name").str.slice(0, 1), not_duplicates=given, **named
    )
    assert 0 < expected.height < every.height
    found = ims.find_copies(
        df.filter("folder = 'folder 0'"),
        reference=df.filter("folder != 'folder 0'"),
        within=df["name"].substr(1, 1),
        not_duplicates=pairs,
        n_blocks=2,
        **named,
    )
    assert_same(found, expected)


def test_images_are_hashed_once(spark, tmp_path, images, hashed):
    some = images.sort("name").gather_every(4)
    has = hashed.select("name", "local", pl.lit(value=1).cast(pl.UInt8).alias("quality"))
    expected = imgmatch_df.find_copies(some.sort("name"), id="name", source="url", across="folder")
    assert expected.height > 3
    given = some.join(has, on="name").rename({"name": "sha256"})  # a name of a column that the verb makes
    df = spark.createDataFrame(as_spark(given))
    for frame in (df.drop("local", "quality"), df):
        found = ims.find_copies(frame, id="sha256", source="url", across="folder", work_dir=str(tmp_path))
        assert_same(found, expected)
    n_files = len(list(tmp_path.rglob("*")))
    assert len(list(tmp_path.glob("hashes-copies-*"))) == 2
    assert_same(ims.find_copies(df, id="sha256", source="url", across="folder", work_dir=str(tmp_path)), expected)
    assert len(list(tmp_path.rglob("*"))) == n_files


def test_no_rows_and_wrong_arguments(df):
    none = ims.find_copies(df.limit(0), id="name")
    assert none.count() == 0
    assert none.columns == ims.find_copies(df.filter("local is null"), id="name").columns
    for named, message in (
        ({}, "id is missing"),
        ({"id": "status"}, "status"),
        ({"id": "name", "radius": 400}, "radius must be"),
        ({"id": "name", "min_votes": 1}, "min_votes must be"),
        ({"id": "name", "n_blocks": 0}, "n_blocks must be"),
        ({"id": "name", "max_pairs": 0}, "max_pairs"),
        ({"id": "name", "reference": df}, "reference_id is missing"),
        ({"id": "name", "reference": "hashes.duckdb", "reference_id": "name"}, "reference must be a Spark DataFrame"),
        ({"id": "name", "within": "no column"}, "no column"),
        ({"id": "name", "source": 3}, "source must be"),
    ):
        with pytest.raises(imgmatch_df.ImgMatchError, match=message):
            ims.find_copies(df, **named)
    for name in ("local", "pdq"):
        with pytest.raises(imgmatch_df.ColumnError, match=f"no column '{name}'"):
            ims.find_copies(df.drop(name), id="name")
    with pytest.raises(imgmatch_df.ArgumentError, match="more than max_pairs=3 pairs"):
        ims.find_copies(df, id="name", max_pairs=3)
