"""What is computed beside the perceptual hashes: SHA-256 of the file, quality, and the quality of PDQ."""

import base64
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from drawing import draw, save
from pdq_reference import pdq
from PIL import Image

import imgmatch_df
from imgmatch_df.batch.run import hash_batch
from imgmatch_df.hashes import quality
from imgmatch_df.hashes.kinds import KINDS, MEASURES, with_measures
from imgmatch_df.hashes.quality import measure_image
from imgmatch_df.hashes.squares import HashInput
from imgmatch_df.options import Options

ENGINES = ["eager", "in-memory", "streaming"]


@pytest.mark.parametrize("isolate", [False, True])
def test_sha256_is_that_of_the_encoded_bytes(mixed, folder, isolate):
    hashed = mixed.imgmatch.visual_hash(hash_types="sha256", isolate=isolate)
    for url, status, found in hashed.select("url", "status", "sha256").iter_rows():
        if status != "ok":
            assert found is None
            continue
        is_path = "/picture" in url
        data = Path(url.removeprefix("file://")).read_bytes() if is_path else base64.b64decode(url.split(",")[-1])
        assert found == sha256(data).digest()


@pytest.mark.parametrize("engine", ENGINES)
def test_expressions_and_fields_agree(folder, paths, engine):
    query = paths.lazy().select(
        pl.col("url").imgmatch.perceptual_hash("sha256").alias("digest"),
        pl.col("url").imgmatch.visual_hash(hash_types=("pdq", "sha256")).alias("all"),
        pl.col("url").imgmatch.visual_hash(hash_types="phash").alias("phash"),
    )
    out = query.collect() if engine == "eager" else query.collect(engine=engine)
    fields = out["all"].struct.unnest()
    assert fields["sha256"].equals(out["digest"])
    assert fields["quality"].equals(out["phash"].struct.field("quality"))
    assert (fields["quality"].dtype, fields["pdq_quality"].dtype) == (pl.UInt8, pl.UInt8)
    assert "pdq_quality" not in out["phash"].struct.fields
    whole = paths.imgmatch.visual_hash(hash_types=("pdq", "sha256"))
    for name in ("quality", "pdq_quality", "pdq", "sha256"):
        assert fields[name].equals(whole[name])


def test_measures_come_with_their_kinds():
    assert with_measures(()) == ("quality",)
    assert with_measures(("phash",)) == ("phash", "quality")
    assert with_measures(("pdq", "phash")) == ("pdq", "phash", "quality", "pdq_quality")
    assert not MEASURES.keys() & KINDS.keys()
    with pytest.raises(imgmatch_df.ArgumentError, match="hash_type must be one of"):
        pl.DataFrame({"quality": [1]}).imgmatch.cluster(0, "quality")


def test_pdq_quality_is_that_of_the_reference():
    images = [draw(seed, 40 + 11 * seed, 90 - 3 * seed) for seed in range(12)]
    encoded = [save(Image.fromarray(image), "PNG") for image in images]
    hashed = pl.DataFrame({"image": encoded}).imgmatch.visual_hash("image", hash_types="pdq")
    assert hashed.select("pdq", "pdq_quality").rows() == [pdq(image) for image in images]


def test_quality_is_the_sum_of_steps_of_means():
    rng = np.random.default_rng(5)
    out = np.zeros(1, np.uint8)
    for width, height in ((256, 256), (300, 200), (90, 400), (31, 17)):
        for spread in (0, 3, 30, 255):
            pixels = rng.integers(0, spread + 1, (height, width)).astype(np.uint8)
            image = HashInput(pixels, 1)
            measure_image(image, out)
            means = image.grey_square(256).reshape(64, 4, 64, 4).sum(axis=(1, 3), dtype=int)
            steps = [np.abs(np.diff(means, axis=axis)) * 100 // (255 * 16) for axis in (0, 1)]
            assert out[0] == min(sum(step.sum() for step in steps) // 90, 100)
    measure_image(HashInput(np.full((50, 60), 200, np.uint8), 1), out)
    assert out[0] == 0


def test_a_step_in_percent_of_white_is_cut_to_a_whole_number():
    for step in range(quality._WHITE + 1):
        assert step * quality._PERCENT >> quality._SHIFT == step * 100 // quality._WHITE


def test_only_what_is_asked_for_is_computed(encoded):
    batch = hash_batch(pl.Series(encoded[:3]), Options(), ("phash",))
    assert batch.struct.fields == ["width", "height", "phash", "status", "detail", "etag"]
