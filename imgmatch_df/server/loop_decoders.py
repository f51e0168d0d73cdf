"""Decoder processes that the event loop uses without threads.

A thread that waits for a decoder process wakes up twice per image, and waits for the GIL each time: 0.15 ms of
processor time. So the loop itself sends the images that fit into the buffer of a connection, and reads their hashes.
Whatever takes longer goes on in a thread.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

from imgmatch_df.batch.image_hashes import HashBuffers, ImageSize
from imgmatch_df.batch.isolation import (
    LOST,
    Decoder,
    DecoderLostError,
    Decoders,
    Lane,
    is_result,
    pickled,
    read_response,
)
from imgmatch_df.errors import Failure
from imgmatch_df.fetching.read import read_source
from imgmatch_df.hashes.kinds import HashKind, empty_row
from imgmatch_df.options import Options

# Longer texts are decoded in threads. The buffer of a connection has 200 KB or more.
_MAX_CHARS: Final = 400_000
# How often slow images are looked for. One timer for all, because one for each image takes 5 us.
_CHECK_S: Final = 0.05

Result = ImageSize | Failure


@dataclass(slots=True)
class Begun:
    """An image that a decoder is decoding.

    Parameters
    ----------
    out
        Its hashes, when `on_end` is called with its size.
    on_end
        Callback with the result, or with None if `resume` must be called in a thread.
    """

    out: HashBuffers
    on_end: "Callable[[Begun, Result | None], None]"
    _decoder: Decoder
    _began: float
    _began_s: float
    _rest: memoryview
    _received: bytes = b""


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
        self._begun: dict[Decoder, Begun] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(
        self, source: object, kinds: Sequence[HashKind], on_end: Callable[[Begun, Result | None], None]
    ) -> Begun | None:
        """Begin to hash a base64 source; return None if it must be hashed in a thread."""
        if not isinstance(source, str) or len(source) > _MAX_CHARS or source[:5].lower() != "data:":
            return None
        decoder = self._take()
        if decoder is None:
            return None
        data = read_source(source, self._options)
        if not isinstance(data, bytes):
            self._idle.append(decoder)
            return None
        try:
            began_s = decoder.used_s()
            rest = decoder.send_now(pickled(self._options, tuple(kinds)), data)
        except DecoderLostError:
            self._drop(decoder)
            return None
        begun = Begun(empty_row(kinds), on_end, decoder, monotonic(), began_s, rest)
        self._begun[decoder] = begun
        if rest:
            self._leave_to_thread(decoder, b"")
        elif self._timer is None:
            self._timer = self._loop.call_later(_CHECK_S, self._check)
        return begun

    def resume(self, begun: Begun) -> Result:
        """Complete an image, in any thread; as `Decoders.hash_image`."""
        return self._decoders.resume(
            begun._decoder, self._lane, begun._rest, begun._received, begun.out, begun._began_s
        )

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

    def _drop(self, decoder: Decoder) -> None:
        self._loop.remove_reader(decoder.fileno())
        decoder.close()
        if decoder in self._idle:
            self._idle.remove(decoder)

    def _read(self, decoder: Decoder) -> None:
        """Read from the connection of a decoder."""
        begun = self._begun.get(decoder)
        try:
            received = decoder.receive_now()
        except BlockingIOError:
            return
        except DecoderLostError:
            self._drop(decoder)
            if begun is not None:
                del self._begun[decoder]
                begun.on_end(begun, LOST)
            return
        if begun is None:  # a decoder without an image sends nothing
            self._drop(decoder)
        elif is_result(received):
            del self._begun[decoder]
            try:
                result = read_response(received, begun.out)
            except ValueError:  # the image has taken over the decoder
                self._drop(decoder)
                begun.on_end(begun, LOST)
                return
            self._idle.append(decoder)
            self._decoders.responded_at = monotonic()
            begun.on_end(begun, result)
        else:
            self._leave_to_thread(decoder, received)

    def _leave_to_thread(self, decoder: Decoder, received: bytes) -> None:
        self._loop.remove_reader(decoder.fileno())
        begun = self._begun.pop(decoder)
        begun._received = received
        self._loop.call_soon(begun.on_end, begun, None)

    def _check(self) -> None:
        """Leave images that take long to threads."""
        self._timer = None
        ends = monotonic() - (self._lane.max_s or 0)
        for decoder, begun in list(self._begun.items()):
            if begun._began < ends:
                self._leave_to_thread(decoder, b"")
        if self._begun:
            self._timer = self._loop.call_later(_CHECK_S, self._check)
