"""Images of a batch with equal bytes, of which only the first one is decoded."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from imgmatch_df.errors import Failure

_SAMPLE: Final = 32  # bytes, from the end and from the middle
_START: Final = 256  # bytes: copies of one photo with other comments, dates or settings differ here
_COMPARED_BYTES: Final = 1 << 14  # at a time
_MAX_COMPARED: Final = 4  # images with one length and equal samples that are compared with a further one
_MAX_KEPT: Final = 1 << 16  # lengths and samples: 30 MB

# Returns the bytes of the image in a row, or why they cannot be read.
ReadRow = Callable[[int], Any]


class FirstImage:
    """The first image with its bytes, and the rows that wait for its hashes.

    Parameters
    ----------
    row
        Row of the image.
    """

    __slots__ = ("failure", "is_done", "row", "waiting")

    def __init__(self, row: int) -> None:
        self.row = row
        self.is_done = False
        self.failure: Failure | None = None
        self.waiting: list[int] | None = None  # None: no row


class EqualImages:
    """The last 65,536 different images of a batch.

    A digest of every image costs 3 % of the time for decoding it, and several times more where the processor has no
    instructions for SHA-256. So the length and a few bytes of images are compared first, and only where these are equal
    all bytes are compared: the row of the first image is read again.

    Parameters
    ----------
    read
        Returns the bytes of the image in a row.
    """

    def __init__(self, read: ReadRow) -> None:
        self._read = read
        self._images: OrderedDict[tuple[int, int, bytes, bytes], tuple[FirstImage, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, row: int, data: Any) -> FirstImage:
        """Return the first image whose bytes equal `data`: that of `row` if there is none before."""
        half = len(data) >> 1
        key = len(data), hash(bytes(data[:_START])), bytes(data[-_SAMPLE:]), bytes(data[half : half + _SAMPLE])
        n_compared = 0
        while True:
            with self._lock:
                images = self._images.get(key, ())
                if images:
                    self._images.move_to_end(key)
                if n_compared >= len(images):  # the key may have been dropped meanwhile
                    first = FirstImage(row)
                    if n_compared < _MAX_COMPARED:
                        self._images[key] = *images, first
                        if len(self._images) > _MAX_KEPT:
                            self._images.popitem(last=False)
                    return first
                image = images[n_compared]
            found = self._read(image.row)
            if not isinstance(found, Failure) and _are_equal(found, data):
                return image
            n_compared += 1

    def wait(self, image: FirstImage, row: int) -> bool:
        """Return whether `row` waits for the hashes of an image; otherwise they are there."""
        with self._lock:
            if not image.is_done:
                if image.waiting is None:
                    image.waiting = []
                image.waiting.append(row)
            return not image.is_done

    def finish(self, image: FirstImage, failure: Failure | None) -> Sequence[int]:
        """Mark an image as hashed; return the rows that wait for it."""
        with self._lock:
            image.failure, image.is_done = failure, True
            return image.waiting or ()


def _are_equal(data: Any, other: Any) -> bool:
    """Return whether two objects have the same bytes; memoryviews compare their bytes one by one, so pieces are copied.

    Files that differ in what is written about the image differ near their start.
    """
    stops = range(_COMPARED_BYTES, len(data) + _COMPARED_BYTES, _COMPARED_BYTES)
    return len(data) == len(other) and all(
        bytes(data[stop - _COMPARED_BYTES : stop]) == bytes(other[stop - _COMPARED_BYTES : stop]) for stop in stops
    )
