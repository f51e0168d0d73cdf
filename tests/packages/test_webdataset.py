"""Shards that webdataset writes, and the samples that it reads of them."""

import tarfile
from pathlib import Path

import polars as pl
import pytest
import webdataset
from archives import add, image

import imgmatch_df

pytestmark = [
    pytest.mark.packages,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # webdataset leaves files open
]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of ten samples: an image, a label and metadata each."""
    with webdataset.ShardWriter(f"{tmp_path}/%05d.tar", maxcount=10, verbose=0) as writer:
        for number in range(30):
            name = f"train/{number:06}" if number % 2 else f"ü {number:06}"
            writer.write({"__key__": name, "jpg": image(number), "cls": number, "json": {"number": number}})
    return tmp_path


def samples(path: Path) -> dict[str, bytes]:
    """Return the images of a shard by their keys, as webdataset reads them."""
    dataset = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    return {sample["__key__"]: sample["jpg"] for sample in dataset if "jpg" in sample}


def test_the_images_of_shards_are_those_that_webdataset_reads(shards):
    scanned = imgmatch_df.scan_images(shards / "*.tar", sample_keys=True).collect()
    expected = {(str(path), key): data for path in sorted(shards.iterdir()) for key, data in samples(path).items()}
    assert len(expected) == 30
    archives = scanned["path"].str.extract(r"^(.*\.tar)/")
    assert list(zip(archives, scanned["key"], strict=True)) == list(expected)
    assert scanned["size"].to_list() == list(map(len, expected.values()))
    hashed = scanned.imgmatch.visual_hash("path", hash_types="sha256")
    of_bytes = pl.DataFrame({"data": list(expected.values())}).imgmatch.visual_hash("data", hash_types="sha256")
    assert hashed["sha256"].equals(of_bytes["sha256"])
    assert imgmatch_df.count_left_out(shards / "*.tar")["n"].sum() == 60


def test_odd_names_have_the_keys_of_webdataset(tmp_path):
    names = ["./a.jpg", "b.x.jpg", "c/d.e/f.jpg", "/g.jpg", "h\ni.jpg", "../j.jpg", "é/ü.seg.jpg", "k" * 150 + ".x.jpg"]
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for number, name in enumerate(names):
            add(archive, name, image(number))
    with (tmp_path / "0.tar").open("rb") as file:
        members = list(webdataset.tariterators.tar_file_iterator(file))
    scanned = imgmatch_df.scan_images(tmp_path / "0.tar", sample_keys=True).collect()
    assert [member["fname"] for member in members] == names
    assert scanned["key"].to_list() == [webdataset.tariterators.base_plus_ext(name)[0] for name in names]
    assert scanned["path"].imgmatch.phash().to_list() == pl.Series(map(image, range(8))).imgmatch.phash().to_list()


def test_a_shard_whose_writer_was_killed(shards):
    path = shards / "00001.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(imgmatch_df.ImgMatchWarning, match="cannot list the rest of '.*00001.tar'"):
        scanned = imgmatch_df.scan_images(shards / "*.tar").collect()
    assert 22 <= scanned.height <= 27
    assert scanned["path"].imgmatch.phash().null_count() <= 1
