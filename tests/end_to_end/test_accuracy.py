"""The benchmark of copies found and unrelated images matched: its edits and its figures, without reference packages."""

import importlib
import sys

import numpy as np
import polars as pl
import pytest
from documents import ROOT
from PIL import Image

from imgmatch_df.hashes.kinds import KINDS

SEED = 3
N_IMAGES, N_EDITS = 64, 3


@pytest.fixture(scope="module")
def benchmarks():
    """Return the modules `accuracy` and `edits`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        names = ("accuracy", "edits", "harness", "photos")
        yield importlib.import_module("accuracy"), importlib.import_module("edits")
        for name in names:
            sys.modules.pop(name, None)


def image(width, height):
    pixels = np.random.default_rng(SEED).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def random_hashes(n, seed):
    return np.random.default_rng(seed).integers(0, 2**64, n, np.uint64)


def figures_of(accuracy, originals, copies):
    """Return the figures of a hash of 64 bits, given those of the originals and of their copies, edit by edit."""
    method = accuracy.Method("a hash", KINDS["phash"])
    paths = [f"{row}.jpg" for row in range(len(originals))]
    unrelated = pl.DataFrame({"path": paths, "a hash": pl.Series(originals, dtype=pl.UInt64)})
    edited = pl.concat(
        pl.DataFrame({"path": paths, "edit": f"edit {i}", "a hash": pl.Series(hashes, dtype=pl.UInt64)})
        for i, hashes in enumerate(copies)
    )
    return accuracy.measure(method, unrelated, edited)


def test_every_edit_is_the_same_on_every_run_and_changes_the_image(benchmarks):
    _, edits = benchmarks
    original = image(60, 40)
    assert len(edits.EDITS) == len({edit.what for edit in edits.EDITS.values()}) == 33
    copies = {name: edit.copy(original) for name, edit in edits.EDITS.items()}
    assert copies == {name: edit.copy(original.copy()) for name, edit in edits.EDITS.items()}
    assert len(set(copies.values())) == len(copies)
    assert original == image(60, 40)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (2, 3)])
def test_every_edit_takes_images_of_every_size(benchmarks, size):
    _, edits = benchmarks
    for edit in edits.EDITS.values():
        assert min(edit.draw(image(*size)).size) >= 1


def test_a_perfect_hash_finds_all_copies_and_nothing_else(benchmarks):
    accuracy, _ = benchmarks
    hashes = random_hashes(N_IMAGES, SEED)
    figures = figures_of(accuracy, hashes, [hashes] * N_EDITS)
    radius = figures.radius_of(accuracy.RARE)
    assert radius == figures.distance_of(0) - 1 > 4
    assert figures.recall(radius) == figures.recall(4) == figures.recall(0, "edit 1") == 100
    assert figures.per_million(4) == 0
    assert set(figures.same_edit.values()) == {0}


def test_a_useless_hash_finds_nothing_at_any_radius_without_false_pairs(benchmarks):
    accuracy, _ = benchmarks
    equal = np.full(N_IMAGES, 7, np.uint64)
    figures = figures_of(accuracy, equal, [equal] * N_EDITS)
    assert figures.radius_of(accuracy.RARE) is None
    assert figures.recall(figures.radius_of(accuracy.RARE)) == 0
    assert figures.recall(4) == 100
    assert figures.per_million(4) == 1e6
    assert set(figures.same_edit.values()) == {1e6}

    figures = figures_of(accuracy, random_hashes(N_IMAGES, SEED), [random_hashes(N_IMAGES, 4 + i) for i in range(3)])
    assert figures.recall(figures.radius_of(accuracy.RARE)) < 10


def test_a_copy_without_a_hash_is_not_found(benchmarks):
    accuracy, _ = benchmarks
    hashes = random_hashes(N_IMAGES, SEED).tolist()
    figures = figures_of(accuracy, hashes, [[None, *hashes[1:]], hashes])
    assert figures.recall(4, "edit 0") == pytest.approx(100 * (1 - 1 / N_IMAGES))
    assert figures.recall(4, "edit 1") == 100


def test_radii_and_rates_are_those_of_all_pairs(benchmarks):
    accuracy, _ = benchmarks
    hashes = random_hashes(200, SEED)
    figures = figures_of(accuracy, hashes, [hashes])
    rows, columns = np.triu_indices(200, 1)
    distances = np.sort(np.bitwise_count(hashes[rows] ^ hashes[columns]).astype(int))
    assert figures.n_unrelated == len(distances) == 19_900
    assert len(figures.near) >= 20
    assert figures.near.tolist() == distances[: len(figures.near)].tolist()
    assert figures.distance_of(0) == distances[0]
    assert figures.distance_of(1e-3) == distances[19]
    for share in (1e-6, 1e-4, 1e-3):
        allowed = int(share * len(distances))
        radius = figures.radius_of(share)
        assert (distances <= radius).sum() <= allowed < (distances <= radius + 1).sum()


def test_copies_in_a_folder_are_left_out(benchmarks, tmp_path):
    accuracy, edits = benchmarks
    original = image(80, 60).resize((400, 300), Image.Resampling.BICUBIC)
    other = original.transpose(Image.Transpose.ROTATE_180)
    for name, data in {
        "a.jpg": edits.encode(original, "JPEG", quality=90),
        "b.jpg": edits.encode(original, "JPEG", quality=90),
        "c.jpg": edits.EDITS["jpeg10"].copy(original),
        "d.jpg": edits.encode(other, "JPEG", quality=90),
        "flat.png": edits.encode(Image.new("RGB", (8, 8), "red"), "PNG"),
        "flat2.png": edits.encode(Image.new("RGB", (9, 8), "blue"), "PNG"),
        "text.jpg": b"text",
    }.items():
        (tmp_path / name).write_bytes(data)
    own = [method for method in accuracy.METHODS if method.load is None]
    rows = accuracy.hash_images(sorted(tmp_path.iterdir()), own)
    kept = accuracy.without_near_copies(pl.DataFrame(rows))
    assert [path.rpartition("/")[2] for path in kept["path"]] == ["a.jpg", "d.jpg", "flat.png", "flat2.png"]
    names = {method.name for method in own}
    assert {"bmh1", "phash", "pdq", "imagehash_phash16"} <= names
    assert "sha256" not in names
    assert all(kept[name].null_count() == 0 for method in own for name in method.columns)
    copies = accuracy.hash_images([tmp_path / "a.jpg"], own, ["jpeg50", "crop20"])
    assert [row["edit"] for row in copies] == ["jpeg50", "crop20"]
