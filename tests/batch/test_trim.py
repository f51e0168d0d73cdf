"""trim="borders" and pdq_variant="512": the same hashes on every face, and stores that say how theirs were made."""

import io
import itertools
import sys

import numpy as np
import polars as pl
import pytest
from drawing import draw
from pdq_reference import pdq
from PIL import Image, ImageOps
from polars.testing import assert_frame_equal, assert_series_equal
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df import ArgumentError, StoreError
from imgmatch_df.cli.app import app
from imgmatch_df.hashes.kinds import KINDS, with_measures
from imgmatch_df.options import Options, Recipe
from imgmatch_df.server.store_lookup import check_store
from imgmatch_df.store.manifest import Manifest

pytestmark = pytest.mark.long

PERCEPTUAL = tuple(kind.name for kind in KINDS.values() if kind.is_perceptual)
OTHERS = tuple(kind.name for kind in KINDS.values() if not kind.is_perceptual)


def call(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def picture(seed, height=150, width=190):
    """Return RGB pixels in which no line is uniform."""
    rng = np.random.default_rng(seed)
    tones = rng.integers(30, 90, (height // 10, width // 10, 3)) + 130 * rng.integers(
        0, 2, (height // 10, width // 10, 1)
    )
    return np.kron(tones, np.ones((10, 10, 1))).astype(np.uint8)


def framed(pixels, top, bottom, left, right, tone=255):
    return np.pad(pixels, ((top, bottom), (left, right), (0, 0)), constant_values=tone)


def encoded(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", **options)
    return file.getvalue()


FRAMES = {
    "frame": (40, 40, 50, 50, 255),
    "letterbox": (30, 30, 0, 0, 0),
    "pillarbox": (0, 0, 60, 60, 0),
    "uneven": (11, 33, 22, 44, 128),
    "none": (0, 0, 0, 0, 0),
}


@pytest.mark.parametrize("border", FRAMES.values(), ids=FRAMES)
def test_hashes_are_those_of_the_inside_and_the_rest_is_of_the_whole(border):
    inside = picture(1)
    whole = framed(inside, *border)
    frame = pl.DataFrame({"x": [encoded(inside), encoded(whole), encoded(whole[:, :, 0]), encoded(inside[:, :, 0])]})
    made = imgmatch_df.visual_hash(frame, "x", hash_types=(*PERCEPTUAL, *OTHERS), trim="borders")
    plain = imgmatch_df.visual_hash(frame, "x", hash_types=(*PERCEPTUAL, *OTHERS))
    of_pixels = [name for name in with_measures(PERCEPTUAL) if name in made]
    for framed_row, inside_row in ((1, 0), (2, 3)):
        assert made.select(of_pixels).row(framed_row) == plain.select(of_pixels).row(inside_row)
    assert_frame_equal(made.select("width", "height", *OTHERS), plain.select("width", "height", *OTHERS))
    assert made["width"][1] == whole.shape[1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_has_the_hashes_of_its_turned_inside(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    inside = picture(2)
    frame = pl.DataFrame({"x": [encoded(framed(inside, 25, 45, 35, 15), exif=exif), encoded(inside, exif=exif)]})
    made = imgmatch_df.visual_hash(frame, "x", hash_types=PERCEPTUAL, trim="borders")
    assert made.select(PERCEPTUAL).row(0) == made.select(PERCEPTUAL).row(1)


def photos():
    """Return a frame of four images, of which the first two differ in their frame only."""
    inside = [picture(seed, 130, 530) for seed in (3, 3, 4, 5)]
    borders = ((30, 30, 110, 110), (0, 0, 0, 0), (30, 30, 110, 110), (40, 40, 0, 0))
    data = [encoded(framed(pixels, *border)) for pixels, border in zip(inside, borders, strict=True)]
    return pl.DataFrame({"name": ["framed", "plain", "other", "bars"], "x": data})


OPTIONS = ({}, {"trim": "borders"}, {"pdq_variant": "512"}, {"trim": "borders", "pdq_variant": "512"})


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_face_makes_the_same_hashes(options, tmp_path):
    frame, kinds = photos(), ("bmh1", "phash", "pdq")
    made = imgmatch_df.visual_hash(frame, "x", hash_types=kinds, **options)
    assert (made["bmh1"][0] == made["bmh1"][1]) == ("trim" in options)
    alone = frame.select(
        imgmatch_df.perceptual_hash("x", "bmh1", **options),
        pl.col("x").imgmatch.phash(**options),
        pl.col("x").imgmatch.pdq(**options),
        # An equal call with other options shares nothing with these.
        other=imgmatch_df.pdq("x", pdq_variant="512" if "pdq_variant" not in options else "full"),
    )
    assert_frame_equal(alone.select(kinds), made.select(kinds))
    assert alone["other"].to_list() != alone["pdq"].to_list()
    lazy = frame.lazy().imgmatch.visual_hash("x", hash_types=kinds, **options).collect()
    assert_frame_equal(lazy, made)
    for number, data in enumerate(frame["x"]):
        (tmp_path / f"{number}.png").write_bytes(data)
    flags = [text for name, value in options.items() for text in ("--" + name.replace("_", "-"), value)]
    store = tmp_path / "s.duckdb"
    call("visual-hash", tmp_path, "-o", store, "--hash-types", ",".join(kinds), *flags)
    stored = imgmatch_df.read_hashes(store).sort("source")
    assert_frame_equal(stored.select(with_measures(kinds)), made.select(with_measures(kinds)))
    call("visual-hash", tmp_path, "-o", tmp_path / "t.parquet", "--hash-types", "pdq", *flags)
    assert_series_equal(pl.read_parquet(tmp_path / "t.parquet")["pdq"], made["pdq"])


@pytest.mark.skipif(sys.platform == "win32", reason="there are no decoder processes")
def test_decoder_processes_make_the_same_hashes():
    for options in OPTIONS:
        ways = [
            imgmatch_df.visual_hash(photos(), "x", hash_types=("bmh1", "pdq"), isolate=isolate, **options)
            for isolate in (False, True)
        ]
        assert_frame_equal(*ways)


def test_verbs_that_hash_take_the_inside():
    frame = photos()
    pairs = {trim: frame.imgmatch.near_duplicates(0, source="x", id="name", trim=trim) for trim in (None, "borders")}
    assert pairs[None].height == 0
    assert pairs["borders"].select("left_id", "right_id").rows() == [("framed", "plain")]
    assert frame.imgmatch.remove_duplicates(0, source="x", trim="borders").height == 3
    assert frame.imgmatch.cluster(0, source="x", trim="borders").height == 4
    ranked = frame.imgmatch.rank_images(frame["x"][0], source="x", trim="borders", k=2)
    assert ranked["distance"].to_list() == [0, 0]
    matched = frame.head(1).imgmatch.match(
        imgmatch_df.visual_hash(frame.tail(3), "x", trim="borders"), 0, source="x", trim="borders", reference_id="name"
    )
    assert matched["reference_id"].to_list() == ["plain"]


def test_the_quality_is_that_of_what_was_hashed():
    flat = np.full((200, 300, 3), 200, np.uint8)
    frame = pl.DataFrame({"x": [encoded(framed(pixels, 70, 70, 90, 90, 0)) for pixels in (flat, picture(6))]})
    for trim, expected in ((None, [100, 100]), ("borders", [0, 100])):  # the edge of a frame is much to see
        assert imgmatch_df.visual_hash(frame, "x", trim=trim)["quality"].to_list() == expected


@pytest.mark.parametrize("value", ["", "border", "Borders", True, 5, ("borders",)])
def test_other_values_of_trim_are_refused(value):
    with pytest.raises(ArgumentError, match=r"trim must be one of 'borders', got .*\nHint: pass None"):
        imgmatch_df.phash("x", trim=value)


@pytest.mark.parametrize("value", ["", "256", 512, None, "FULL"])
def test_other_variants_of_pdq_are_refused(value):
    with pytest.raises(ArgumentError, match=r"pdq_variant must be one of 'full', '512', got .*\nHint: pass 'full'"):
        imgmatch_df.pdq("x", pdq_variant=value)


# pdq_variant


def sampled(pixels):
    """Return the 512 x 512 pixels that ThreatExchange's C++ program hashes of a large image, one by one."""
    height, width = pixels.shape[:2]
    if max(height, width) <= 512:
        return pixels
    return np.array([[pixels[i * height // 512, j * width // 512] for j in range(512)] for i in range(512)])


@pytest.mark.parametrize("size", [(512, 512), (513, 300), (40, 700), (800, 620), (3, 600), (600, 4)])
def test_the_512_variant_is_pdq_of_the_sampled_image(size):
    pixels = draw(7, size[1], size[0])
    frame = pl.DataFrame({"x": [encoded(pixels), encoded(pixels[:, :, 1])]})
    made = imgmatch_df.visual_hash(frame, "x", hash_types="pdq", pdq_variant="512")
    grey = np.repeat(pixels[:, :, 1:2], 3, axis=2)
    assert made.select("pdq", "pdq_quality").rows() == [pdq(sampled(pixels)), pdq(sampled(grey))]
    if max(size) <= 512:
        assert_frame_equal(made, imgmatch_df.visual_hash(frame, "x", hash_types="pdq"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_512_variant_samples_the_image_as_it_is_seen(orientation):
    pixels = draw(8, 700, 521)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(pixels, exif=exif)
    seen = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    made = pl.DataFrame({"x": [data]}).select(imgmatch_df.pdq("x", pdq_variant="512")).item()
    assert made == pdq(sampled(seen))[0]


# Stores


@pytest.mark.parametrize("form", ["s.duckdb", "s.parquet", "parts"])
@pytest.mark.parametrize(("option", "values"), [("trim", (None, "borders")), ("pdq_variant", ("full", "512"))])
def test_a_store_says_it_and_mixes_nothing(option, values, form, tmp_path):
    frame = photos()
    for ours, theirs in itertools.permutations(values):
        target = tmp_path / f"{ours}-{form}"
        write = {"hash_types": ("bmh1", "pdq", "sha256"), "source": "x", "key": "name"}
        imgmatch_df.write_hashes(frame, target, **write, **{option: ours})
        assert imgmatch_df.write_hashes(frame, target, **write, **{option: ours}).n_new == 0
        for hashes in (frame, imgmatch_df.read_hashes(target)):
            more = {**write, "source": "x" if hashes is frame else None, option: theirs}
            with pytest.raises(StoreError, match=f"{option} is {ours!r} in the store, {theirs!r} in this call"):
                imgmatch_df.write_hashes(hashes, target, **more)
        queries = frame.select("x")  # without the key, or no row would match itself

        def match(kind, radius, value, queries=queries, target=target):
            return queries.imgmatch.match(target, radius, kind, source="x", **{option: value}).height

        others = ("bmh1", "pdq") if option == "trim" else ("pdq",)
        for kind in others:
            with pytest.raises(
                StoreError,
                match=rf"it has {option}={ours!r}, this call has {option}={theirs!r}.*\nHint: pass {option}=",
            ):
                match(kind, 0, theirs)
        # What the option does not change is compared.
        for kind, value in ((kind, value) for kind in ("bmh1", "pdq", "sha256") for value in values):
            if value == ours or kind not in others:
                assert match(kind, 0, value) >= frame.height


def test_a_store_without_pdq_takes_either_variant(tmp_path):
    store = tmp_path / "s.duckdb"
    write = {"hash_types": "phash", "source": "x", "key": "name"}
    imgmatch_df.write_hashes(photos(), store, **write, pdq_variant="512")
    assert imgmatch_df.write_hashes(photos(), store, **write).n_new == 0


def test_the_service_reads_stores_of_its_own_value_of_trim(tmp_path):
    for number, data in enumerate(photos()["x"]):
        (tmp_path / f"{number}.png").write_bytes(data)
    images = imgmatch_df.scan_images(tmp_path).rename({"path": "url"}).collect()
    for trim, other in ((None, "borders"), ("borders", None)):
        store = tmp_path / f"{trim}.duckdb"
        kinds = ("bmh1", "phash", "pdq")
        imgmatch_df.write_hashes(images, store, source="url", hash_types=kinds, trim=trim, pdq_variant="512")
        check_store(store, Recipe(trim=trim))  # it has no pdq, whose variant does not matter
        with pytest.raises(StoreError, match=f"trim is {trim!r} in the store, {other!r} in this call"):
            check_store(store, Recipe(trim=other))


def test_the_command_line_refuses_to_compare_them(tmp_path):
    for number, data in enumerate(photos()["x"]):
        (tmp_path / f"{number}.png").write_bytes(data)
    store = tmp_path / "s.duckdb"
    call("visual-hash", tmp_path, "-o", store, "--trim", "borders")
    for command in (["visual-hash", tmp_path, "-o", store], ["remove-duplicates", tmp_path, "--reference", store]):
        assert "trim" in call(*command, code=2).stderr
        call(*command, "--trim", "borders")
    assert "trim must be one of 'borders'" in call("visual-hash", tmp_path, "--trim", "edges", code=2).stderr


RECIPES = [
    Recipe(*values)
    for values in itertools.product(("full", "scaled"), ("drop", "white", "black"), (None, "borders"), ("full", "512"))
]


def test_the_text_of_a_recipe_gives_it_back():
    assert [Recipe.parse(recipe.text) for recipe in RECIPES] == RECIPES
    assert len({recipe.text for recipe in RECIPES}) == len(RECIPES)
    assert [Options(**recipe._asdict()).recipe for recipe in RECIPES] == RECIPES
    # As earlier releases wrote it.
    assert [Recipe().text, Recipe("scaled").text, Recipe("full", "white").text] == ["full", "scaled", "full+white"]


def test_a_store_of_a_later_recipe_is_refused():
    entries = Manifest.make("k", pl.String(), ("phash",), Recipe(), has_source=False).entries
    with pytest.raises(StoreError, match=r"unknown part 'sharpened' of the recipe.*\nHint: install"):
        Manifest.parse({**entries, "decode": "full+sharpened"}, "it")
