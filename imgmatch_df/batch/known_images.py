"""Hashes of the last images of the process by their digests, so that equal bytes in several batches are hashed once."""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from imgmatch_df.batch.image_hashes import ImageSize
from imgmatch_df.hashes.kinds import ImageColumn
from imgmatch_df.options import Options

_MAX_KEPT: Final = 1 << 14  # images: 20 MB with all kinds


class KnownHashes(NamedTuple):
    """What is known of an image.

    Parameters
    ----------
    hashes
        A copy of the row of each kind.
    size
        Its size.
    """

    hashes: Sequence[Any]
    size: ImageSize


class KnownImages:
    """The last images that were hashed."""

    def __init__(self) -> None:
        self._images: OrderedDict[tuple[Any, ...], KnownHashes] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, digest: bytes, options: Options, kinds: Sequence[ImageColumn]) -> KnownHashes | None:
        """Return what is known of the image with a SHA-256 digest, hashed with these options; None if nothing is."""
        key = _key(digest, options, kinds)
        with self._lock:
            known = self._images.get(key)
            if known is not None:
                self._images.move_to_end(key)
            return known

    def add(self, digest: bytes, options: Options, kinds: Sequence[ImageColumn], known: KnownHashes) -> None:
        """Keep what is known of an image."""
        with self._lock:
            self._images[_key(digest, options, kinds)] = known
            if len(self._images) > _MAX_KEPT:
                self._images.popitem(last=False)


KNOWN_IMAGES: Final = KnownImages()


def _forget_threads_of_parent() -> None:
    # In a forked child, a thread of the parent may hold the lock.
    KNOWN_IMAGES.__init__()  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads_of_parent)


def _key(digest: bytes, options: Options, kinds: Sequence[ImageColumn]) -> tuple[Any, ...]:
    """Return what the hashes of an image depend on."""
    return digest, options.recipe, options.max_pixels, options.formats, *kinds
