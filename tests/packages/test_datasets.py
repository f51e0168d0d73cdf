"""Tables of Hugging Face `datasets`, which reads its images from what this package writes."""

import io
import os
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

import imgmatch_df

pytestmark = pytest.mark.packages


def encoded(seed: int) -> bytes:
    """Return a PNG of 12 x 12 blocks."""
    blocks = np.random.default_rng(seed).integers(0, 255, (12, 12, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(blocks.repeat(8, axis=0).repeat(8, axis=1)).save(data, "png")
    return data.getvalue()


@pytest.fixture
def datasets(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, offline, with its cache in the folder of the test."""
    for name in ("HF_HOME", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    return datasets


@pytest.fixture
def here(tmp_path, monkeypatch: pytest.MonkeyPatch, datasets: Any) -> Any:
    """A folder with the shards of a dataset: eight images, of which the last three are copies of the first three."""
    monkeypatch.chdir(tmp_path)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "box": datasets.List(datasets.Value("float32")),
            "grid": datasets.Array2D((2, 2), "int32"),
        }
    )
    for part in range(2):
        rows = range(4 * part, 4 * part + 4)
        columns = {
            "image": [{"bytes": encoded(row % 5), "path": f"{row}.png"} for row in rows],
            "label": [row % 2 for row in rows],
            "box": [[0.5, row] for row in rows],
            "grid": [[[row, 1], [2, 3]] for row in rows],
        }
        datasets.Dataset.from_dict(columns, features=features).to_parquet(f"train-{part}.parquet")
    return tmp_path


def load(datasets: Any, here: Any, files: Any) -> Any:
    return datasets.load_dataset("parquet", data_files=files, cache_dir=str(here / "cache"))["train"]


def call(*words: str) -> None:
    from imgmatch_df.cli.app import app

    result = CliRunner().invoke(app, list(words), env=dict(os.environ))
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("words", "n_rows"),
    [
        (("visual-hash",), 8),
        (("remove-duplicates", "--radius", "24"), 5),
        (("remove-duplicates", "--radius", "24", "--only-input-columns"), 5),
        (("rank-images", "query.png"), 8),
    ],
    ids=str,
)
def test_images_are_images_before_and_after(words: Any, n_rows: int, datasets: Any, here: Any) -> None:
    (here / "query.png").write_bytes(encoded(0))
    before = load(datasets, here, ["train-0.parquet", "train-1.parquet"])
    call(*words, "train-*.parquet", "-o", "out.parquet")
    after = load(datasets, here, "out.parquet")
    assert {name: after.features[name] for name in before.features} == before.features
    if "--only-input-columns" in words:
        assert after.features == before.features
        assert pq.read_schema("out.parquet").equals(pq.read_schema("train-0.parquet"), check_metadata=True)
    assert after.num_rows == n_rows
    of_path = {
        image["path"]: image["bytes"] for image in before.cast_column("image", datasets.Image(decode=False))["image"]
    }
    raw = after.cast_column("image", datasets.Image(decode=False))
    for row, image in zip(after, raw["image"], strict=True):
        assert row["image"].size == (96, 96)
        assert image["bytes"] == of_path[image["path"]]
        assert row["grid"][0][0] == row["box"][1]


def test_lists_of_images(datasets: Any, here: Any) -> None:
    features = datasets.Features({"images": datasets.List(datasets.Image()), "text": datasets.Value("string")})
    columns = {"images": [[{"bytes": encoded(n), "path": None}] * n for n in range(3)], "text": ["a", "b", "c"]}
    datasets.Dataset.from_dict(columns, features=features).to_parquet("lists.parquet")
    from imgmatch_df.cli.app import app

    result = CliRunner().invoke(app, ["visual-hash", "lists.parquet", "-o", "out.parquet"])
    assert result.exit_code == 1  # the first row has no image
    after = load(datasets, here, "out.parquet")
    assert {name: after.features[name] for name in features} == features
    assert after["status"] == ["missing", "ok", "ok"]
    assert [len(images) for images in after["images"]] == [0, 1, 2]
    assert after[2]["images"][1].size == (96, 96)


def test_a_dataset_as_a_frame(datasets: Any, here: Any) -> None:
    frame = load(datasets, here, "train-*.parquet").to_polars()
    kept = frame.imgmatch.cluster(24, source="image").filter("kept").select(frame.columns)
    assert kept["image"].struct.field("path").to_list() == [f"{row}.png" for row in range(5)]
    hashed = frame.imgmatch.visual_hash("image")
    assert hashed["phash"].to_list() == [
        pl.select(imgmatch_df.phash(pl.lit(encoded(row % 5)))).item() for row in range(8)
    ]
