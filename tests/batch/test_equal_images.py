"""Images with equal bytes are decoded once, and get the hashes that they would get alone."""

import base64
import hashlib
from random import Random

import polars as pl
import pytest
from drawing import draw, jpeg

import imgmatch_df
from imgmatch_df.batch import run
from imgmatch_df.batch.equal_images import EqualImages
from imgmatch_df.batch.image_hashes import hash_image
from imgmatch_df.batch.known_images import KNOWN_IMAGES


@pytest.fixture
def decoded(monkeypatch):
    """The lengths of the images that are decoded."""
    lengths = []

    def counted(data, options, out):
        lengths.append(len(data))
        return hash_image(data, options, out)

    monkeypatch.setattr(run, "hash_image", counted)
    return lengths


@pytest.fixture
def images():
    """Images that end alike, so that their lengths and pieces of them are equal, and one that is broken."""
    tail = bytes(100_000)
    drawn = [jpeg(draw(seed, 40, 30)) for seed in range(12)]
    longest = max(map(len, drawn))
    return [data.ljust(longest, b"\0") + tail for data in drawn] + [b"\xff\xd8\xff no image" + tail]


def hashed_alone(sources, **options):
    return pl.concat([imgmatch_df.visual_hash(pl.DataFrame({"url": [one]}), **options) for one in sources])


@pytest.mark.parametrize("n_threads", [1, 2, 8])
def test_equal_bytes_are_decoded_once(images, decoded, monkeypatch, n_threads):
    monkeypatch.setattr(run, "n_threads", lambda: n_threads)
    expected = hashed_alone(images)
    decoded.clear()
    picks = Random(n_threads).choices(range(4), k=200)
    frame = pl.DataFrame({"url": [images[pick] for pick in picks]})
    assert imgmatch_df.visual_hash(frame).drop("url").equals(expected[picks].drop("url"))
    assert len(decoded) == len(set(picks))


def test_other_bytes_of_one_length_are_other_images(images, decoded):
    expected = hashed_alone(images)
    assert expected["phash"].n_unique() == len(images)
    decoded.clear()
    order = [*range(13), *range(13)]
    found = imgmatch_df.visual_hash(pl.DataFrame({"url": [images[pick] for pick in order]}))
    assert found.equals(expected[order])
    assert 13 <= len(decoded) < 26  # only some images of one length are compared


def test_files_text_and_bytes(images, decoded, tmp_path):
    for number in (0, 1, 2, 3, 12):
        for copy in "ab":
            (tmp_path / f"{number}{copy}.jpg").write_bytes(images[number])
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    text = base64.b64encode(images[0]).decode()
    sources = [*paths, text, f"data:image/jpeg;base64,{text}", str(tmp_path / "no-such-file.jpg"), None]
    expected = hashed_alone(sources)
    decoded.clear()
    assert imgmatch_df.visual_hash(pl.DataFrame({"url": sources})).equals(expected)
    assert len(decoded) == 5


def test_the_first_row_that_fails_is_the_error(images):
    sources = [images[0], images[12], images[1], images[12]] * 20
    with pytest.raises(imgmatch_df.DecodeError, match="row 1"):
        imgmatch_df.visual_hash(pl.DataFrame({"url": sources}), on_error="raise")


def test_digests_find_equal_bytes_in_other_batches(images, decoded, monkeypatch):
    KNOWN_IMAGES._images.clear()
    types = ("bmh1", "phash", "pdq", "local", "sha256")
    frame = pl.DataFrame({"url": images[:5]})
    first = imgmatch_df.visual_hash(frame, hash_types=types)
    again = imgmatch_df.visual_hash(frame.reverse(), hash_types=types)
    assert again.reverse().equals(first)
    assert len(decoded) == 5
    scaled = imgmatch_df.visual_hash(frame, hash_types=types, decode="scaled")
    assert len(decoded) == 10
    assert scaled["sha256"].equals(first["sha256"])


@pytest.mark.parametrize("isolate", [False, True])
def test_digests_are_those_of_the_bytes(images, isolate):
    KNOWN_IMAGES._images.clear()
    types = ("phash", "sha256", "bmh1")
    options = {"hash_types": types, "isolate": isolate}
    frame = pl.DataFrame({"url": [images[3], images[12], images[4], images[3]]})
    digests = [hashlib.sha256(images[row]).digest() for row in (3, 4)]
    for _ in range(2):  # computed, and kept
        hashes = imgmatch_df.visual_hash(frame, **options)
        assert hashes["sha256"].to_list() == [digests[0], None, digests[1], digests[0]]
        without = imgmatch_df.visual_hash(frame, hash_types=("phash", "bmh1"), isolate=isolate)
        assert hashes.select(without.columns).equals(without)


def test_a_file_that_changes_is_another_image(images):
    contents = {0: images[0], 1: images[0], 2: images[0]}
    found = EqualImages(lambda row: contents[row])
    first = found.find(0, contents[0])
    assert found.find(1, contents[1]) is first
    contents[0] = images[1]
    assert found.find(2, contents[2]).row == 2


def test_bytes_of_any_length(decoded):
    sources = [bytes(n) for n in range(1, 200)]
    frame = pl.DataFrame({"url": [*sources, *sources]})
    found = imgmatch_df.visual_hash(frame)
    assert found["status"].unique().to_list() == ["decode_failed"]
    assert sorted(decoded) == list(range(1, 200))
