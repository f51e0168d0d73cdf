"""Decoder processes that the event loop uses without threads.

A thread that waits for a decoder process wakes up twice per image, and waits for the GIL each time: 0.15 ms of
processor time. So the loop itself sends the images that fit into the buffer of a connection, and reads their hashes.
Whatever takes longer goes on in a thread.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final, TypeAlias

from imgmatch_df.batch.decoder import (
    LOST,
    Begun,
    Decoder,
    DecoderLostError,
    Lane,
    is_result,
    read_response,
)
from imgmatch_df.batch.image_hashes import HashBuffers, ImageSize
from imgmatch_df.batch.isolation import Decoders, pickled
from imgmatch_df.errors import Failure
from imgmatch_df.fetching.read import read_source
from imgmatch_df.hashes.kinds import HashKind, empty_row
from imgmatch_df.options import Options

# Longer texts are decoded in threads. The buffer of a connection has 200 KB or more.
_MAX_CHARS: Final = 400_000
# How often slow images are looked for. One timer for all, because one for each image takes 5 us.
_CHECK_S: Final = 0.05

ImageResult: TypeAlias = ImageSize | Failure


@dataclass(slots=True)
class LoopImage:
    """An image that a decoder is decoding.

    Parameters
    ----------
    decoder
        The decoder.
    begun
        What has been sent and received.
    began
        Time of `monotonic` when the image was sent.
    out
        Its hashes, when `on_end` is called with its size.
    on_end
        Callback with the result, or with None if `LoopDecoders.resume` must be called in a thread.
    """

    decoder: Decoder
    begun: Begun
    began: float
    out: HashBuffers
    on_end: "OnImageEnd"


OnImageEnd: TypeAlias = Callable[[LoopImage, ImageResult | None], None]


class LoopDecoders:
    """Decoder processes that are watched by the event loop. Used on its thread, except for `resume`.

    Parameters
    ----------
    decoders
        The processes; they must have been started.
    lane
        Limits of the images; an image that exceeds its time is resumed in a thread.
    options
        How to read and decode.
    """

    def __init__(self, decoders: Decoders, lane: Lane, options: Options) -> None:
        self._loop = asyncio.get_running_loop()
        self._decoders = decoders
        self._lane = lane
        self._options = options
        self._idle: list[Decoder] = []
        self._begun: dict[Decoder, LoopImage] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, source: object, kinds: Sequence[HashKind], on_end: OnImageEnd) -> bool:
        """Begin to hash a base64 source; return False if it must be hashed in a thread."""
        if not isinstance(source, str) or len(source) > _MAX_CHARS or source[:5].lower() != "data:":
            return False
        try:
            data = read_source(source, self._options)
        except MemoryError:  # a thread tries it again, and reports it
            return False
        decoder = self._take() if isinstance(data, bytes) else None
        if decoder is None or not isinstance(data, bytes):
            return False
        try:
            begun = decoder.send_now(pickled(self._options, tuple(kinds)), data)
        except DecoderLostError:
            self._drop(decoder)
            return False
        self._begun[decoder] = LoopImage(decoder, begun, monotonic(), empty_row(kinds), on_end)
        if begun.rest:
            self._leave_to_thread(decoder, b"")
        elif self._timer is None:
            self._timer = self._loop.call_later(_CHECK_S, self._check)
        return True

    def resume(self, image: LoopImage) -> ImageResult:
        """Complete an image, in any thread; as `Decoders.hash_image`."""
        return self._decoders.resume(image.decoder, image.begun, image.out, self._lane)

    def close(self) -> None:
        """End the processes."""
        begun, self._begun = self._begun, {}
        for decoder in [*self._idle, *begun]:
            self._drop(decoder)
        if self._timer is not None:
            self._timer.cancel()
        for image in begun.values():
            image.on_end(image, LOST)

    def _take(self) -> Decoder | None:
        if self._idle:
            return self._idle.pop()
        decoder = self._decoders.take_free()
        if decoder is not None:
            self._loop.add_reader(decoder.fileno(), self._read, decoder)
        return decoder

    def _drop(self, decoder: Decoder, *, kill: bool = False) -> None:
        self._loop.remove_reader(decoder.fileno())
        if kill:
            decoder.kill()
        else:
            decoder.close()
        if decoder in self._idle:
            self._idle.remove(decoder)

    def _read(self, decoder: Decoder) -> None:
        """Read from the connection of a decoder."""
        image = self._begun.get(decoder)
        try:
            received = decoder.receive_now()
        except BlockingIOError:
            return
        except DecoderLostError:
            self._drop(decoder)
            if image is not None:
                del self._begun[decoder]
                image.on_end(image, LOST)
            return
        if image is None:  # a decoder without an image sends nothing
            self._drop(decoder, kill=True)
        elif is_result(received):
            del self._begun[decoder]
            try:
                result = read_response(received, image.out)
            except ValueError:  # the image has taken over the decoder
                self._drop(decoder, kill=True)
                result = LOST
            else:
                self._idle.append(decoder)
                self._decoders.responded_at = monotonic()
            image.on_end(image, result)
        else:
            self._leave_to_thread(decoder, received)

    def _leave_to_thread(self, decoder: Decoder, received: bytes) -> None:
        self._loop.remove_reader(decoder.fileno())
        image = self._begun.pop(decoder)
        image.begun.received = received
        self._loop.call_soon(image.on_end, image, None)

    def _check(self) -> None:
        """Leave images that take long to threads."""
        self._timer = None
        ends = monotonic() - (self._lane.max_s or 0)
        for decoder, image in list(self._begun.items()):
            if image.began < ends:
                self._leave_to_thread(decoder, b"")
        if self._begun:
            self._timer = self._loop.call_later(_CHECK_S, self._check)
