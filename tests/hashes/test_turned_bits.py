"""Turns of hashes are a group, and give the hash of the turned image."""

import io

import numpy as np
import polars as pl
import pytest
from drawing import draw
from PIL import Image

import imgmatch_df
from imgmatch_df.columns import TURN_DTYPE, TURNS
from imgmatch_df.errors import ArgumentError
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import BMH1, KINDS, HashKind, hash_kind, register_hash_kind
from imgmatch_df.hashes.turns import TurnGrid, check_turns, turned_bits
from imgmatch_df.matching.turned import turn_words
from imgmatch_df.turns import COMPOSED, EVERY_TURN, INVERSE

ABLE = [kind for kind in KINDS.values() if kind.turn_grid is not None]
# What Pillow calls the turns: its quarter turns are counterclockwise.
OF_PILLOW = {
    "rotated_90": Image.Transpose.ROTATE_270,
    "rotated_180": Image.Transpose.ROTATE_180,
    "rotated_270": Image.Transpose.ROTATE_90,
    "mirrored": Image.Transpose.FLIP_LEFT_RIGHT,
    "flipped": Image.Transpose.FLIP_TOP_BOTTOM,
    "transposed": Image.Transpose.TRANSPOSE,
    "transversed": Image.Transpose.TRANSVERSE,
}


def turned_image(image, turn):
    return image if turn == "none" else image.transpose(OF_PILLOW[turn])


def random_words(kind, n=200):
    rng = np.random.default_rng(5)
    words = np.zeros((n, -(-kind.n_bytes // 8)), np.uint64)
    raw = words.view(np.uint8)[:, : kind.n_bytes]
    raw[:] = rng.integers(0, 256, raw.shape)
    return words


def bits_of(words, kind):
    """Return the documented 0/1 strings as an array (n, n_chars)."""
    return np.unpackbits(words.view(np.uint8)[:, : kind.n_bytes], axis=1)


def test_the_names_of_the_turns_are_those_of_pillow_but_clockwise():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for name, turn in zip(TURNS, EVERY_TURN, strict=True):
        made = pixels.T if turn.swaps else pixels
        made = made[:: -1 if turn.reverses_rows else 1, :: -1 if turn.reverses_columns else 1]
        np.testing.assert_array_equal(made, np.asarray(turned_image(Image.fromarray(pixels), name)), name)
    assert pl.Enum(TURNS) == TURN_DTYPE
    assert list(INVERSE) == [0, 3, 2, 1, 4, 5, 6, 7]


def test_the_kinds_that_have_turns():
    assert [kind.name for kind in ABLE] == ["bmh1", "pdq", "imagehash_phash", "imagehash_ahash", "imagehash_phash16"]


@pytest.mark.parametrize("kind", ABLE, ids=lambda kind: kind.name)
def test_turns_of_a_hash_are_a_group(kind):
    words, bits = random_words(kind), turned_bits(kind)
    turned = [turn_words(words, bits, number) for number in range(8)]
    np.testing.assert_array_equal(turned[0], words)
    for first in range(8):
        np.testing.assert_array_equal(turn_words(turned[first], bits, INVERSE[first]), words)
        for second in range(8):
            both = turn_words(turned[first], bits, second)
            np.testing.assert_array_equal(both, turned[COMPOSED[first][second]], f"{TURNS[first]}, {TURNS[second]}")
    assert len({each.tobytes() for each in turned}) == 8


@pytest.mark.parametrize("kind", ABLE, ids=lambda kind: kind.name)
def test_the_kernel_does_what_the_grid_says(kind):
    words, bits = random_words(kind, 65), turned_bits(kind)
    for number, turn in enumerate(EVERY_TURN):
        sources, inverted = kind.turn_grid.sources(turn, kind.n_chars)
        expected = bits_of(words, kind)[:, sources] ^ inverted
        np.testing.assert_array_equal(bits_of(turn_words(words, bits, number), kind), expected)


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 9000])
def test_any_number_of_hashes_can_be_turned(n):
    words, bits = random_words(BMH1, n), turned_bits(BMH1)
    one_by_one = [turn_words(words[row : row + 1], bits, 1) for row in range(0, n, 997)]
    np.testing.assert_array_equal(turn_words(words, bits, 1)[::997], np.concatenate([*one_by_one, words[:0]]))


# Bits of cosine coefficients are compared with a median, which moves a little when half of the signs change.
@pytest.mark.parametrize(
    ("name", "radius", "share"),
    [
        ("bmh1", 4, 0.98),
        ("imagehash_ahash", 2, 0.98),
        ("imagehash_phash", 8, 0.9),
        ("pdq", 31, 0.9),
        ("imagehash_phash16", 57, 0.98),
    ],
)
def test_a_turned_hash_is_that_of_the_turned_image(name, radius, share):
    kind = hash_kind(name)
    images = [Image.fromarray(draw(seed, 320 + 7 * seed, 240 + 3 * seed)) for seed in range(24)]
    files = []
    for image in images:
        for turn in TURNS:
            files.append(io.BytesIO())
            turned_image(image, turn).save(files[-1], "BMP")
    column = pl.Series("image", [file.getvalue() for file in files])
    hashed = column.to_frame().select(imgmatch_df.perceptual_hash("image", name)).to_series()
    words = codec.hash_words(hashed, kind).reshape(len(images), 8, -1)
    bits, untouched = turned_bits(kind), np.ascontiguousarray(words[:, 0])
    distances = np.array(
        [np.bitwise_count(turn_words(untouched, bits, number) ^ words[:, number]).sum(axis=1) for number in range(1, 8)]
    )
    assert (distances <= radius).mean() >= share, np.sort(distances.ravel())


@pytest.mark.parametrize("name", ["phash", "imagehash_dhash", "imagehash_dhash16", "sha256"])
def test_a_kind_without_turns_says_which_kinds_have_them(name):
    with pytest.raises(ArgumentError, match=rf"bits of {name} do not give .*\nHint: hash_type= one of 'bmh1', 'pdq', "):
        check_turns(True, hash_kind(name))
    assert check_turns(False, hash_kind(name)) is False
    with pytest.raises(ArgumentError, match="turns must be True or False, got 1"):
        check_turns(1, BMH1)


@pytest.mark.parametrize("grid", [TurnGrid(9), TurnGrid(0), "grid", TurnGrid(8, "middle"), TurnGrid(8, "first", 2)])
def test_a_grid_that_does_not_fit_is_refused(grid):
    with pytest.raises(ArgumentError, match="turn_grid must be a TurnGrid of at most 64 bits"):
        register_hash_kind(HashKind("off", 64, 8, pl.UInt64(), "1", "toy_kind:hash_image_64", 4, turn_grid=grid))
