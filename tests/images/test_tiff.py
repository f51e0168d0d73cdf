"""TIFF in all its layouts, against OpenCV, and broken ones."""

import io
import itertools
import random
import re
import struct
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from PIL import Image
from test_decode import as_seen, by_opencv, detail_of
from tiff_writer import Spec, blocks, codecs, combined, draw, file_of, kinds, layouts, tags_of, tiff

from imgmatch_df.images.decode import decode_image
from imgmatch_df.images.guard import DecodedImage
from imgmatch_df.options import Options

OPTIONS = Options()
SIZES = ((37, 23), (16, 16), (64, 48), (33, 31), (5, 70), (1, 1), (70, 4))
RGB, GREY = Spec(2, 8, 3), Spec()
MIRRORED = (2, 3, 6, 7)  # orientations that mirror left and right before anything else


@pytest.fixture(autouse=True)
def _quiet_opencv():
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


# --- what differs, and what is not read ------------------------------------------------------------------------------


class Known(NamedTuple):
    """Files that OpenCV reads as other pixels, because of a fault of libtiff's or its own."""

    what: str
    covers: Callable[[Spec, int, int, int], bool]
    example: tuple[Spec, int]  # and its orientation
    bits: tuple[int, int]  # the largest distance of bmh1 and phash over the drawn examples
    reason: str
    newer: bool = False  # whether a later libtiff than 4.7.1 may have mended it


def _cut(spec: Spec, width: int) -> bool:
    return spec.tile is not None and width % spec.tile[0] > 0


KNOWN = (
    Known(
        "tiles, orientation 2, 3, 6 or 7",
        lambda spec, w, _, turn: turn in MIRRORED and spec.tile is not None and w > spec.tile[0],
        (RGB._replace(tile=(64, 64), compression=8), 2),
        (626, 44),
        "OpenCV mirrors each tile in its place",
    ),
    Known(
        "tiles cut by the right edge: grey of 16 bits; grey or palette with extra samples",
        lambda spec, w, _, __: (
            _cut(spec, w)
            and not (spec.planes and spec.n_samples > 1)
            and spec.photometric in (0, 1, 3)
            and (spec.bits == 16 or spec.n_samples > 1)
        ),
        (Spec(1, 16, tile=(64, 64), compression=8), 1),
        (102, 36),
        "libtiff skips too few bytes of a row",
        newer=True,
    ),
    Known(
        "YCbCr subsampled 4 x 4: an odd number of blocks in a row, or tiles cut by the right edge",
        lambda spec, w, _, __: (
            spec.subsampling == (4, 4) and (_cut(spec, w) or (spec.tile is None and -(-w // 4) % 2 == 1))
        ),
        (Spec(6, 8, 3, subsampling=(4, 4), tile=(64, 64), compression=8), 1),
        (107, 24),
        "libtiff loses bytes of a strip, or of a row",
        newer=True,
    ),
)


def _sgilog(channels: int) -> bytes:
    values = (draw(RGB, 1)[..., :channels] / 255).astype(np.float32)
    return bytes(cv2.imencode(".tiff", values, [cv2.IMWRITE_TIFF_COMPRESSION, 34676])[1])


# What OpenCV reads and this package does not: an example where one can be drawn, and its detail.
UNREAD = (
    ("LogL, LogLuv (SGILog)", lambda: _sgilog(3), "compressed by SGILog"),
    ("PixarLog of 16 bits", None, "PixarLog of"),
    ("JPEG of 12 or 16 bits, lossless JPEG", None, "JPEG of"),
    ("damaged, or cut inside a plane", lambda: _damaged(), "data are damaged"),
)


def _damaged() -> bytes:
    spec = RGB._replace(compression=5)
    short, _ = blocks(spec, draw(spec, 1, 37, 20))
    return file_of(spec, short, tags_of(spec, 37, 23))


def verdict(data: bytes) -> str:
    ours, truth = decode_image(data, OPTIONS), by_opencv(data)
    if not isinstance(ours, DecodedImage):
        assert ours.status == "decode_failed"
        return "both refuse" if truth is None else f"OpenCV only: {ours.detail}"
    ours = as_seen(ours)
    if truth is None:
        return "ours only"
    return "equal" if ours.shape == truth.shape and (ours == truth).all() else "different"


def run(files: Iterator[tuple[Spec, int, int, int]]) -> Counter[str]:
    """Hold files against OpenCV; return how many came out how."""
    counts: Counter[str] = Counter()
    for number, (spec, width, height, orientation) in enumerate(files):
        tags = {274: (3, [orientation])} if orientation != 1 else {}
        found = verdict(tiff(spec, number % 7, width, height, tags=tags))
        if found == "different":
            assert any(known.covers(spec, width, height, orientation) for known in KNOWN), (
                spec,
                width,
                height,
                orientation,
            )
            found = "listed"
        assert not found.startswith("OpenCV only"), (spec, width, height, orientation, found)
        counts[found] += 1
    return counts


def sample(seed: int) -> Iterator[tuple[Spec, int, int, int]]:
    """Yield every kind of samples in one layout, every layout with one kind, and a part of the codecs."""
    rng = random.Random(seed)
    all_kinds, all_layouts = list(kinds()), list(layouts())
    common = [kind for kind in all_kinds if kind.bits in (1, 8, 16) and kind.kind in (None, 1)]
    specs = [combined(kind, rng.choice(all_layouts)) for kind in all_kinds]
    specs += [combined(rng.choice(common), layout) for layout in all_layouts]
    specs += rng.sample(list(codecs()), 150)
    for spec in specs:
        yield spec, *rng.choice(SIZES), rng.choice((1, 1, 1, *range(2, 9)))


class TestSpace:
    def test_a_sample(self):
        counts = run(sample(1))
        assert counts.total() > 1600
        assert counts["equal"] > 500
        assert counts["both refuse"] > 200

    @pytest.mark.slow
    def test_many_kinds_in_many_layouts(self):
        rng = random.Random(0)
        pairs = (combined(kind, layout) for kind, layout in itertools.product(kinds(), layouts()))
        specs = itertools.chain((spec for spec in pairs if rng.random() < 0.02), codecs())
        counts = run((spec, *rng.choice(SIZES), rng.choice((1, 1, *range(2, 9)))) for spec in specs)
        assert counts["equal"] > 2000, counts

    @pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.what)
    def test_the_list_of_differences_is_not_out_of_date(self, known):
        assert distances(known) == known.bits or (known.newer and libtiff() > (4, 7, 1))

    @pytest.mark.parametrize(("make", "word"), [pytest.param(make, word, id=word) for _, make, word in UNREAD if make])
    def test_what_is_not_read_is_named(self, make, word):
        data = make()
        assert by_opencv(data) is not None
        assert word in detail_of(data)


def equal(data: bytes) -> DecodedImage:
    """Return the decoded file, which OpenCV reads as well, as the same pixels."""
    assert verdict(data) == "equal"
    picture = decode_image(data, OPTIONS)
    assert isinstance(picture, DecodedImage)
    return picture


def agreed(data: bytes) -> None:
    """Check that a file is not read as other pixels, and that a failure is told in words."""
    found = verdict(data)
    assert found != "different"
    if found.startswith("OpenCV only: unsupported kind of TIFF"):
        assert re.search("TIFF: compressed by (JBIG|compression)", found)
    elif found.startswith("OpenCV only"):
        words = r"(announced|end early|file at byte|not positive|tag 32[23] is)"
        assert re.match(rf"OpenCV only: (truncated|broken) TIFF: .*{words}", found), found


def body(spec: Spec) -> bytes:
    return blocks(spec, draw(spec, 0))[0][0]


# 37 x 23 in one strip of 2,553 bytes, or in strips of 777 and a last one of 222.
COUNTS = (
    *([0], [1], [2552], [2554], [1 << 20], [1 << 31], [0xFFFFFFFF], [777] * 4, [777] * 3 + [222], [100] * 4, [800] * 4),
    *(
        [777, 778, 777, 222],
        [0, 777, 777, 222],
        [777, 0, 777, 222],
        [777, 777, 0, 222],
        [776, 777, 777, 222],
        [777] * 3,
    ),
    *([777, 777, 777, 222, 5], [8, 785, 1562, 2339], [0] * 4, [1 << 30] * 4),
)


def libtiff() -> tuple[int, ...]:
    found = re.search(r"TIFF:.*?(\d+)\.(\d+)\.(\d+)\)", cv2.getBuildInformation())
    return tuple(map(int, found.groups())) if found else (0,)


def distances(known: Known) -> tuple[int, int]:
    """Return the largest distances of both hashes over some images of the example's kind."""
    spec, orientation = known.example
    largest = [0, 0]
    for seed in range(6):
        data = tiff(spec, seed, 161, 120, tags={274: (3, [orientation])})
        pixels = as_seen(decode_image(data, OPTIONS)), by_opencv(data)
        for at, make in enumerate((lambda: cv2.img_hash.BlockMeanHash_create(1), cv2.img_hash.PHash_create)):
            one, other = (make().compute(np.ascontiguousarray(image[..., ::-1])).tobytes() for image in pixels)
            largest[at] = max(largest[at], (int.from_bytes(one) ^ int.from_bytes(other)).bit_count())
    return largest[0], largest[1]


class TestTags:
    """Tags as others write them."""

    @pytest.mark.parametrize("order", "<>")
    @pytest.mark.parametrize("big", [False, True])
    @pytest.mark.parametrize("kind", [1, 3, 4, 6, 8, 9, 16, 17, 2, 5, 7, 11, 12, 13])
    def test_orientation_of_every_type(self, kind, big, order):
        for value in range(10):
            values = [value, 1] if kind == 5 else [value]
            equal(tiff(RGB._replace(big=big, order=order), tags={274: (kind, values)}))

    @pytest.mark.parametrize("values", [[], [6, 6], [6, 1, 1], [6] * 9, [65542]], ids=str)
    def test_an_orientation_that_is_not_one_number_is_none(self, values):
        kind = 4 if max(values, default=0) > 65535 else 3
        for big in (False, True):
            assert equal(tiff(RGB._replace(big=big), tags={274: (kind, values)})).orientation == 1
        assert equal(tiff(RGB, tags={274: (8, [-6])})).orientation == 1

    @pytest.mark.parametrize("tag", [256, 257, 258, 259, 262, 277, 278, 284, 273, 279, 320, 530])
    @pytest.mark.parametrize(
        "spec",
        [RGB, GREY, Spec(0, 1), Spec(3), RGB._replace(planes=True), Spec(6, 8, 3, subsampling=(2, 2))],
        ids=str,
    )
    def test_a_missing_tag(self, spec, tag):
        for shape in ({}, {"rows": 7}, {"rows": 7, "compression": 5}, {"compression": 8}, {"tile": (64, 16)}):
            agreed(tiff(spec._replace(**shape), tags={tag: None}))

    @pytest.mark.parametrize("tag", [256, 257, 258, 259, 262, 277, 278, 284, 273, 279, 338, 530])
    @pytest.mark.parametrize("kind", [1, 3, 4, 6, 8, 9, 13, 16, 17])
    def test_every_type_of_number_for_every_tag(self, tag, kind):
        for spec in (RGB, Spec(6, 8, 3, subsampling=(2, 2)), RGB._replace(big=True, order=">")):
            data = tiff(spec, tags_first=False)
            own = {
                **tags_of(spec, 37, 23),
                338: (3, []),
                273: (4, [16 if spec.big else 8]),
                279: (4, [len(body(spec))]),
            }
            if tag in own and (kind not in (1, 6) or max(own[tag][1], default=0) < 128):
                agreed(tiff(spec, tags={tag: (kind, own[tag][1])}))
            assert decode_image(data, OPTIONS)

    @pytest.mark.parametrize("tag", [256, 257, 258, 259, 262, 266, 277, 278, 284, 317, 322, 323, 338, 339, 530])
    def test_odd_values_of_every_tag(self, tag):
        for value, shape in itertools.product(
            (0, 1, 2, 3, 7, 9, 255, 999, 65535),
            ({}, {"rows": 8}, {"compression": 5}, {"tile": (37, 32), "compression": 5}),
        ):
            for spec in (RGB, GREY):
                agreed(tiff(spec._replace(**shape), tags={tag: (3, [value])}))

    @pytest.mark.parametrize("counts", COUNTS, ids=str)
    def test_byte_counts_that_are_wrong(self, counts):
        for trailer in (b"", bytes(3000)):
            for spec in (RGB, RGB._replace(rows=7), RGB._replace(rows=7, compression=5), RGB._replace(planes=True)):
                agreed(tiff(spec, tags={279: (4, counts)}) + trailer)

    @pytest.mark.parametrize("extra", [(), (0,), (1,), (2,), (0, 0), (999,), (3,), (2, 2, 2, 2)], ids=str)
    @pytest.mark.parametrize("n_samples", [1, 2, 3, 4])
    def test_extra_samples_of_any_number(self, n_samples, extra):
        for photometric, bits, planes in itertools.product((1, 2, 5), (8, 16), (False, True)):
            agreed(tiff(Spec(photometric, bits, n_samples, None, extra, planes=planes)))

    @pytest.mark.parametrize("lead", [b"", b"x", b"xyz"])
    @pytest.mark.parametrize("big", [False, True])
    def test_tags_anywhere_in_any_order(self, big, lead):
        for tags_first, sort, order in itertools.product((False, True), (False, True), "<>"):
            spec = RGB._replace(big=big, order=order, rows=7)
            equal(tiff(spec, lead=lead, tags_first=tags_first, sort=sort))

    def test_a_tag_that_comes_twice(self):
        spec = RGB._replace(order=">")
        data = bytearray(tiff(spec, tags={270: (3, [1])}))
        at = data.index(struct.pack(">HHI", 270, 3, 1))
        data[at : at + 12] = struct.pack(">HHIHH", 257, 3, 1, 9, 0)
        agreed(bytes(data))

    @pytest.mark.parametrize("big", [False, True])
    def test_much_that_is_not_pixels(self, big):
        rng = random.Random(1)
        noise = list(rng.randbytes(1 << 20))
        more = {34675: (7, noise), 700: (1, noise), 34665: (4, [8]), 34853: (4, [8]), 330: (4, [8, 8, 8])}
        more |= {33922: (12, [1.5] * 600), 34735: (3, [1] * 400), 270: (2, noise[:999]), 65000: (7, noise)}
        equal(tiff(RGB._replace(big=big), tags=more) + rng.randbytes(10_000))

    def test_of_several_pages_the_first_is_read(self):
        first = tiff(RGB, 1)
        start = len(first)
        for following in (
            start,
            8,
            struct.unpack_from("<I", first, 4)[0],
            0xFFFFFFFF,
        ):  # the last ones: a circle, nothing
            bodies, _ = blocks(RGB, draw(RGB, 1))
            equal(file_of(RGB, bodies, tags_of(RGB, 37, 23), following=following) + bytes(100))

    @pytest.mark.parametrize(
        "coefficients", [(299, 587, 114), (2126, 7152, 722), (0, 1, 0), (1, 0, 1), (5, 1, 9)], ids=str
    )
    @pytest.mark.parametrize("reference", [None, (0, 255, 128, 255, 128, 255), (15, 235, 128, 240, 128, 240), (9,) * 6])
    def test_ycbcr_by_its_own_coefficients_and_ranges(self, coefficients, reference):
        tags = {529: (5, [part for c in coefficients for part in (c, sum(coefficients))])}
        if reference:
            tags[532] = (5, [part for value in reference for part in (value, 1)])
        for subsampling, planes in (((1, 1), False), ((2, 2), False), ((1, 1), True)):
            agreed(tiff(Spec(6, 8, 3, subsampling=subsampling, planes=planes), tags=tags))

    @pytest.mark.parametrize("white", [(0.3127, 0.329), (0.3457, 0.3585), (0.5, 0.0), (1.0, 1.0)], ids=str)
    def test_lab_by_its_own_white(self, white):
        for bits in (8, 16):
            agreed(tiff(Spec(8, bits, 3), tags={318: (11, list(white))}))

    @pytest.mark.parametrize("values", [255, 256, 65535])
    def test_colour_maps_of_both_ranges(self, values):
        for bits in (1, 4, 8):
            colours = [(at * 97) % (values + 1) for at in range(3 << bits)]
            equal(tiff(Spec(3, bits), tags={320: (3, colours)}))
            agreed(tiff(Spec(3, bits), tags={320: (3, colours[:-1])}))
            agreed(tiff(Spec(3, bits), tags={320: (3, [*colours, 1])}))
            agreed(tiff(Spec(3, bits), tags={320: (4, colours)}))


class TestReported:
    """Files that were reported."""

    def test_deep_colour_in_planes(self):
        for compression, predictor in ((1, 1), (8, 1), (8, 2), (5, 2)):
            equal(tiff(Spec(2, 16, 3, planes=True, compression=compression, predictor=predictor)))

    def test_deep_colour_and_associated_alpha_in_planes(self):
        for shape in ({}, {"tile": (32, 32)}):
            equal(tiff(Spec(2, 16, 4, None, (1,), planes=True, **shape)))

    def test_deep_grey_and_alpha(self):
        equal(tiff(Spec(1, 16, 2, None, (2,))))

    @pytest.mark.parametrize("shape", [{}, {"rows": 8}, {"tile": (16, 16)}], ids=str)
    def test_grey_and_alpha_as_jpeg(self, shape):
        for photometric, extra in itertools.product((0, 1), ((2,), (1,), (0,), None)):
            spec = Spec(photometric, 8, 2, None, extra, compression=7, **shape)
            for width, height in ((32, 16), (48, 40)):
                grey = equal(tiff(spec, 1, width, height)).pixels.astype(int)
                over = decode_image(tiff(spec, 1, width, height), Options(alpha="white")).pixels.astype(int)
                assert (over >= grey).all()
                assert ((over > grey).any() == (extra in ((1,), (2,)))).all()

    def test_grey_and_a_sample_without_a_name(self):
        equal(tiff(Spec(1, 8, 2)))

    def test_big_tiff_of_the_other_byte_order(self):
        equal(tiff(RGB._replace(big=True, order=">")))

    def test_orientation_as_a_byte(self):
        assert equal(tiff(RGB, tags={274: (1, [6])})).orientation == 6

    def test_ycbcr_by_bt709(self):
        luma = {529: (5, [2126, 10000, 7152, 10000, 722, 10000])}
        equal(tiff(Spec(6, 8, 3, compression=5), tags=luma))

    def test_signed_colour(self):
        for photometric, n_samples in ((2, 3), (5, 4)):
            equal(tiff(Spec(photometric, 8, n_samples, 2)))
        equal(tiff(Spec(2, 16, 3, 2)))

    def test_deep_lab(self):
        equal(tiff(Spec(8, 16, 3)))


@contextmanager
def memory_below(n_bytes: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < n_bytes
    finally:
        tracemalloc.stop()


class TestBroken:
    def test_a_file_cut_anywhere_fails_and_says_so(self):
        for spec, first in itertools.product((RGB, RGB._replace(rows=7, compression=5), GREY), (False, True)):
            data = tiff(spec, tags_first=first)
            for end in range(8, len(data) - 2, 23):
                detail = detail_of(data[:end])
                assert detail.startswith("truncated TIFF: "), (end, detail)
                assert f"{end:,}" in detail

    @pytest.mark.parametrize("compression", [5, 8, 32773])
    def test_less_than_announced_fails(self, compression):
        spec = RGB._replace(compression=compression)
        short, _ = blocks(spec, draw(spec, 1, 37, 20))
        assert "are damaged or end early" in detail_of(file_of(spec, short, tags_of(spec, 37, 23)))

    @pytest.mark.parametrize("compression", [5, 8, 32773])
    def test_more_than_announced_is_not_made(self, compression):
        spec = GREY._replace(compression=compression)
        bomb, _ = blocks(spec, np.zeros((1000, 1000, 1), np.uint64))
        data = file_of(spec, bomb, tags_of(spec, 37, 23))
        with memory_below(4 * len(data) + (1 << 17)):
            equal(data)

    @pytest.mark.parametrize("side", [20_000, 1 << 20, (1 << 31) - 1])
    def test_sizes_that_are_only_announced(self, side):
        for tags in (
            {256: (4, [side]), 257: (4, [side])},
            {322: (4, [side]), 323: (4, [side])},
            {257: (4, [60_000_000]), 322: (4, [1]), 323: (4, [1])},
            {256: (4, [1]), 257: (4, [50_000_000]), 322: (4, [50_000_000]), 323: (4, [1])},
        ):
            started = time.process_time()
            data = tiff(RGB, tags={**tags, 278: None})
            with memory_below(1 << 20):
                failure = decode_image(data, OPTIONS)
            assert failure.status in ("too_many_pixels", "decode_failed")
            assert time.process_time() - started < 1

    @pytest.mark.parametrize("count", [1 << 16, 1 << 31, (1 << 32) - 1])
    def test_counts_that_are_only_announced(self, count):
        for tag in (258, 273, 279, 320, 338, 339, 347, 529):
            data = bytearray(tiff(Spec(3), tags={338: (3, []), 339: (3, [1]), 347: (7, [0] * 9), 529: (5, [1] * 6)}))
            (start,) = struct.unpack_from("<I", data, 4)
            at = next(at for at in range(start + 2, len(data), 12) if data[at : at + 2] == struct.pack("<H", tag))
            data[at + 4 : at + 8] = struct.pack("<I", count)
            with memory_below(1 << 20):
                agreed(bytes(data))

    @pytest.mark.parametrize("compression", [1, 5, 8])
    @pytest.mark.parametrize("value", [1 << 31, (1 << 32) + 16, (1 << 63) - 1, (1 << 63) + 16, (1 << 64) - 1])
    def test_offsets_and_counts_beyond_the_file(self, value, compression):
        for tag, other in ((273, 279), (279, 273)):
            for spec in (RGB, RGB._replace(rows=12)):
                wide = spec._replace(big=True, compression=compression)
                n_strips = 1 if spec == RGB else 2
                for rest in ([], [(1 << 63) - 1] * n_strips):
                    tags = {tag: (16, [value] * n_strips), **({other: (16, rest)} if rest else {})}
                    agreed(tiff(wide, tags=tags))

    def test_samples_that_are_only_announced(self):
        for compression in (5, 8):
            data = tiff(RGB._replace(compression=compression), tags={277: (3, [65535]), 258: (3, [8])})
            started = time.process_time()
            assert "65535 samples of 8 bits per pixel" in detail_of(data)
            assert time.process_time() - started < 1

    def test_a_header_alone(self):
        for head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            for rest in (b"", bytes(4), bytes(12), b"\xff" * 12, b"\10\0\0\0\0\0\0\0"):
                assert detail_of(head + rest).split(" ")[0] in ("truncated", "broken")

    def test_strips_are_read_a_few_rows_at_a_time(self):
        spec = Spec(2, 16, 3, compression=8, predictor=2)
        data = tiff(spec, 1, 750, 500)
        decode_image(data, OPTIONS)
        with memory_below(24 * 750 * 500):
            assert isinstance(decode_image(data, OPTIONS), DecodedImage)


class TestFloats:
    """Numbers without a white of their own: OpenCV refuses them, they are spread from the least to the largest."""

    @pytest.mark.parametrize(
        "spec", [Spec(1, bits, 1, kind) for bits, kind in ((32, 1), (32, 2), (64, 3), (16, 3))], ids=str
    )
    def test_grey(self, spec):
        values = draw(spec, 1)
        values = values.astype(np.uint32).view(np.int32) if spec.kind == 2 else values
        low, high = values.min(), values.max()
        expected = np.rint((values.astype(float) - float(low)) * (255 / (float(high) - float(low))))
        for layout in (
            Spec(),
            Spec(order=">", rows=7),
            Spec(tile=(16, 16), compression=5, predictor=2),
            Spec(planes=True),
        ):
            picture = decode_image(tiff(combined(spec, layout), 1), OPTIONS)
            np.testing.assert_array_equal(picture.pixels, expected[..., 0])

    def test_colours_are_spread_together(self):
        spec = Spec(2, 32, 3, 3)
        values = draw(spec, 1).astype(float)
        expected = np.rint((values - values.min()) * (255 / (values.max() - values.min())))
        for layout in (
            Spec(),
            Spec(order=">", compression=8, predictor=3),
            Spec(planes=True, compression=8, predictor=3),
        ):
            picture = decode_image(tiff(combined(spec, layout), 1), OPTIONS)
            np.testing.assert_array_equal(picture.pixels[..., :3], expected)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_what_is_not_a_number_is_zero(self, value):
        spec = Spec(1, 32, 1, 3)
        values = np.full((5, 5, 1), 200, np.float32)
        values[2, 2] = value
        picture = decode_image(file_of(spec, [values.tobytes()], tags_of(spec, 5, 5)), OPTIONS)
        assert picture.pixels[2, 2] == 0
        assert picture.pixels[0, 0] == 255


# --- the table in docs/formats.md ------------------------------------------------------------------------------------


def table() -> str:
    """Return the rows of docs/formats.md: `python tests/images/test_tiff.py` prints them."""
    lines = ["| TIFF | bits | why |", "| --- | --- | --- |"]
    lines += [f"| {known.what} | at most {known.bits[0]} / {known.bits[1]} | {known.reason} |" for known in KNOWN]
    lines += ["| CCITT with damaged rows | a few pixels | two versions of libtiff; the cause is not known |"]
    lines += [f"| {what} | - | fails here, OpenCV reads it |" for what, *_ in UNREAD]
    return "\n".join(lines)


def test_the_documents_have_the_table():
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    found = re.search(r"<!-- formats-tiff:begin -->\n(.*?)\n<!-- formats-tiff:end -->", page, re.DOTALL)
    assert found
    assert found[1].strip() == table()


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("ground", ["white", "black"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_transparency_over_a_ground_is_that_of_png(mode, ground, compression):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, len(mode)), np.uint8))
    assert image.mode == mode

    def shown(name, **options):
        stream = io.BytesIO()
        image.save(stream, name, **options)
        pixels = decode_image(stream.getvalue(), Options(alpha=ground)).pixels
        return pixels[..., :3].copy() if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)

    np.testing.assert_array_equal(shown("TIFF", compression=compression), shown("PNG"))
