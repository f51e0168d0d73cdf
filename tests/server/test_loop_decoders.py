"""Decoder processes that the event loop uses: the same rows as in threads, whatever an image does to its decoder."""

import asyncio
import os
import signal
from base64 import b64encode
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from imgmatch_df.batch.decoder import RESPONSE, is_result
from imgmatch_df.batch.run import hash_sources
from imgmatch_df.hashes.kinds import BMH1, PHASH
from imgmatch_df.options import Options
from imgmatch_df.server.hash_queue import _LANES, Hasher

pytestmark = [pytest.mark.long, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

OPTIONS = Options(isolate=True)
CRASHED = "the decoder crashed, or ran out of memory"


def uri(data):
    return f"data:;base64,{b64encode(data).decode()}"


def noise(width, height, quality=95):
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def hashing(work):
    """Run `work` with a hasher whose decoders run."""

    async def run():
        hasher = Hasher(OPTIONS)
        try:
            await asyncio.to_thread(hasher.warm_up)
            hasher._loop_decoders._lane = _LANES[0]._replace(max_s=100)  # else slow images are left to threads
            return await work(hasher)
        finally:
            hasher.close()

    return asyncio.run(asyncio.wait_for(run(), 200))


def idle(hasher):
    return hasher._loop_decoders._idle


def test_rows_are_those_of_threads(encoded):
    large = noise(420, 400), noise(2400, 1800, 20)  # more than the buffer of a connection; more than the free memory
    images = [*encoded[:6], b"", b"no image", encoded[0][:900], *large]
    sources = [*map(uri, images), "data:;base64,%", None, uri(encoded[1]) + "\n"]
    batch = hash_sources(sources, replace(OPTIONS, isolate=False))
    expected = [batch.row(number) for number in range(len(sources))]

    async def work(hasher):
        together = await asyncio.gather(*(hasher.hash([source]) for source in sources * 3))
        assert idle(hasher), "some were hashed in the loop"
        return [row for rows in together for row in rows], await hasher.hash(sources)

    apart, in_one = hashing(work)
    assert apart == expected * 3
    assert in_one == expected


def test_an_idle_decoder_that_ends_costs_no_row(encoded):
    async def work(hasher):
        rows = await hasher.hash([uri(encoded[0])])
        killed = [decoder._pid for decoder in idle(hasher)]
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        while idle(hasher):
            await asyncio.sleep(0.01)
        return rows, killed, await hasher.hash([uri(encoded[0])])

    before, killed, after = hashing(work)
    assert killed
    assert before == after


@pytest.mark.parametrize(
    "response", [None, RESPONSE.pack(1, 10, 10, 0, 3) + b"abc", b"x", RESPONSE.pack(2, 0, 0, 1, 0)]
)
def test_an_image_that_ends_or_takes_over_its_decoder_costs_its_row(encoded, monkeypatch, response):
    """It may send a response of its own, of which not one byte is trusted."""

    async def work(hasher):
        await hasher.hash([uri(encoded[0])])
        (decoder,) = idle(hasher)
        os.kill(decoder._pid, signal.SIGSTOP)
        hashed = asyncio.ensure_future(hasher.hash([uri(encoded[0])]))
        await asyncio.sleep(0)
        if response is not None:
            monkeypatch.setattr(decoder, "receive_now", lambda: response)
            hasher._loop_decoders._read(decoder)
        if response is None or not is_result(response):  # else it has been killed
            os.kill(decoder._pid, signal.SIGKILL)
        (row,) = await hashed
        return row, await hasher.hash([uri(encoded[0])])

    lost, after = hashing(work)
    assert (lost["status"], lost["detail"], lost["phash"]) == ("decode_failed", CRASHED, None)
    assert after == [hash_sources([encoded[0]], Options()).row(0)]


def test_a_slow_image_goes_on_in_a_thread_and_holds_up_nothing(encoded):
    async def work(hasher):
        await hasher.hash([uri(encoded[0])])
        (decoder,) = idle(hasher)
        hasher._loop_decoders._lane = _LANES[0]
        os.kill(decoder._pid, signal.SIGSTOP)
        slow = asyncio.ensure_future(hasher.hash([uri(encoded[0])]))
        await asyncio.sleep(0)
        while hasher._loop_decoders._begun:  # until it is left to a thread
            await asyncio.sleep(0.05)
        others = await asyncio.gather(*(hasher.hash([uri(image)]) for image in encoded[:8]))
        assert not slow.done()
        os.kill(decoder._pid, signal.SIGCONT)
        return await slow, others

    slow, others = hashing(work)
    assert slow == others[0] == [hash_sources([encoded[0]], Options()).row(0)]
    assert {row["status"] for rows in others for row in rows} == {"ok"}


def test_images_in_decoders_end_with_the_hasher(encoded):
    async def work(hasher):
        await hasher.hash([uri(encoded[0])])
        (decoder,) = idle(hasher)
        os.kill(decoder._pid, signal.SIGSTOP)
        hashed = asyncio.ensure_future(hasher.hash([uri(encoded[0])]))
        await asyncio.sleep(0.01)
        hasher.close()
        (row,) = await hashed
        return row

    assert hashing(work) == {
        **dict.fromkeys(("width", "height", BMH1.name, PHASH.name)),
        "status": "decode_failed",
        "detail": CRASHED,
    }


def test_a_bug_is_raised_by_its_request_and_the_next_one_is_hashed(encoded, monkeypatch):
    async def work(hasher):
        with monkeypatch.context() as patch:
            patch.setattr(hasher._loop_decoders, "_take", lambda: 1 / 0)
            for _ in range(20):
                with pytest.raises(ZeroDivisionError):
                    await hasher.hash([uri(encoded[0])])
        return await hasher.hash([uri(encoded[0])])

    assert hashing(work) == [hash_sources([encoded[0]], Options()).row(0)]
