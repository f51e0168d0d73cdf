"""Unusual and damaged files against OpenCV: the same pixels, or no pixels on both sides, or a class that is listed."""

import importlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from oddities import KINDS, KNOWN, READ, REFUSED, odd_files
from PIL import __version__ as pillow_version
from test_decode import as_seen, by_opencv

from imgmatch_df.images.decode import decode_image
from imgmatch_df.images.guard import DecodedImage
from imgmatch_df.options import Options

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
OPENCV_5 = int(cv2.__version__.split(".")[0]) >= 5
DRAWN_WITH = (cv2.__version__, pillow_version) == ("5.0.0", "13.0.0")


@pytest.fixture(autouse=True)
def _quiet_opencv():
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def truth(data):
    try:
        return by_opencv(data)
    except cv2.error:
        return None


def verdict(data):
    """Return what OpenCV and we do with `data`, and whether the pixels are the same."""
    ours, theirs = decode_image(data, Options()), truth(data)
    read = READ if isinstance(ours, DecodedImage) else REFUSED
    if not isinstance(ours, DecodedImage) or theirs is None:
        return READ if theirs is not None else REFUSED, read, False
    seen = as_seen(ours)
    return READ, read, seen.shape == theirs.shape and bool((seen == theirs).all())


@pytest.mark.skipif(not OPENCV_5, reason="the list is that of OpenCV 5")
@pytest.mark.parametrize("kind", KINDS)
def test_every_class_is_equal_or_listed(kind):
    wrong, seen = Counter(), {}
    for class_, what, data in odd_files(kind):
        opencv, here, equal = verdict(data)
        if class_ in KNOWN:
            seen.setdefault(class_, set()).add((opencv, here, equal))
        elif not equal and (opencv, here) != (REFUSED, REFUSED):
            wrong[f"{class_} ({what}): OpenCV {opencv}, here {here}"] += 1
    assert not wrong, "\n".join(list(wrong)[:60])
    for class_, verdicts in seen.items():
        known = KNOWN[class_]
        assert (known.opencv, known.here, False) in verdicts, f"{class_} is listed and does not differ: {verdicts}"
        others = verdicts - {(known.opencv, known.here, False)}
        assert all(equal or (opencv, here) == (REFUSED, REFUSED) for opencv, here, equal in others), (class_, others)


@pytest.mark.skipif(not OPENCV_5, reason="the table is that of OpenCV 5")
def test_the_table_in_the_documents_is_the_one_that_is_drawn(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    formats = importlib.import_module("formats")
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    written = page.split("<!-- formats:begin -->")[1].split("<!-- formats:end -->")[0].strip().splitlines()
    drawn = formats.table().splitlines()
    if not DRAWN_WITH:  # other encoders draw other files
        written, drawn = ([line.split("|")[1:4] + line.split("|")[5:] for line in table] for table in (written, drawn))
    assert written == drawn


@pytest.mark.parametrize("sign", "_+-.e,x/'")
@pytest.mark.parametrize("text", ["0 9 1{}08 4 5 6 7", "0 9 8{} 4 5 6 7"])
def test_a_character_within_a_plain_number_ends_it(sign, text):
    """Python and numpy read 1_08 as 108."""
    data = f"P2 3 2 255 {text.format(sign)}\n".encode()
    truth, ours = by_opencv(data), decode_image(data, Options())
    np.testing.assert_array_equal(as_seen(ours), truth)
