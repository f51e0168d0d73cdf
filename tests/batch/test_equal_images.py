"""Images with equal bytes are decoded once, and get the hashes that they would get alone."""

import base64
import hashlib
from random import Random

import polars as pl
import pytest
from drawing import draw, jpeg

import imgmatch_df
from imgmatch_df.batch import equal_images, run
from imgmatch_df.batch.equal_images import EqualImages
from imgmatch_df.batch.image_hashes import hash_image
from imgmatch_df.batch.known_images import KNOWN_IMAGES
from imgmatch_df.hashes.kinds import image_columns
from imgmatch_df.options import Options


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


def test_copies_with_other_comments_are_told_apart_unread(images):
    commented = [images[0][:2] + b"\xff\xfe\0\x0a%08d" % number + images[0][2:] for number in range(20)]

    def read(row):
        raise AssertionError(f"row {row} is read again")

    found = EqualImages(read)
    assert [found.find(row, data).row for row, data in enumerate(commented)] == list(range(20))


@pytest.mark.parametrize("n_bytes", [1, 16_383, 16_384, 16_385, 40_000])
@pytest.mark.parametrize("as_given", [bytes, memoryview])
def test_one_byte_tells_images_apart(n_bytes, as_given):
    data = Random(n_bytes).randbytes(n_bytes)
    places = {0, 300, n_bytes // 2, n_bytes // 2 + 40, n_bytes - 40, n_bytes - 1} & {*range(n_bytes)}
    others = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in places]
    for other in others:
        contents = [as_given(data), as_given(other), as_given(bytes(data))]
        found = EqualImages(contents.__getitem__)
        assert [found.find(row, content).row for row, content in enumerate(contents)] == [0, 1, 0]


def test_a_key_may_be_dropped_while_its_image_is_read(images, monkeypatch):
    monkeypatch.setattr(equal_images, "_MAX_KEPT", 1)

    def read(_row):
        found.find(2, images[2][:-1])  # another key, for which the first one is dropped
        return images[1]

    found = EqualImages(read)
    found.find(0, images[0])
    assert found.find(1, images[0]).row == 1


@pytest.mark.parametrize("n_rows", [1, 2, 7, 8, 127, 128, 129, 1000])
def test_threads_take_fewer_rows_at_the_end(images, n_rows, monkeypatch):
    monkeypatch.setattr(run, "n_threads", lambda: 2)
    batch = run._Run([images[0]] * n_rows, run.HashedRows(n_rows, image_columns(["phash"])), Options())
    taken = [task[0] for task in iter(batch._next, None)]
    assert [row for rows in taken for row in rows] == list(range(n_rows))
    sizes = [len(rows) for rows in taken]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == max(1, min(16, n_rows // 8))
    assert sizes[-1] == 1


def test_one_row_at_a_time_beside_urls(images):
    sources = ["http://127.0.0.1:9/a.jpg", *[images[0]] * 200]
    batch = run._Run(sources, run.HashedRows(201, image_columns(["phash"])), Options())
    assert [task[0] for task in iter(batch._next, None)] == [[row] for row in range(1, 201)]
