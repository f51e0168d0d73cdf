"""Decoder processes: what one image does to its decoder costs its own row."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from drawing import draw, jpeg
from polars.testing import assert_frame_equal, assert_series_equal
from waiting import wait_until

import imgmatch_df
from imgmatch_df.batch import isolation
from imgmatch_df.batch.image_hashes import hash_image
from imgmatch_df.batch.isolation import LOW, DeclinedError, Decoders, DecodersUnavailableError, Lane
from imgmatch_df.errors import Failure
from imgmatch_df.hashes.kinds import BMH1, PHASH, empty_row
from imgmatch_df.images import decode_costs, pixel_budget
from imgmatch_df.images.pixel_budget import PixelBudget
from imgmatch_df.options import Options

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="decoder processes are forked"),
]
OPTIONS = Options()


@pytest.fixture(scope="module")
def decoders():
    running = Decoders()
    yield running
    running.close()
    assert running._server.process.returncode == 0


def both(decoders, data, options=OPTIONS):
    here, isolated = empty_row((BMH1, PHASH)), empty_row((BMH1, PHASH))
    return (
        (hash_image(data, options, here), *(row.tobytes() for row in here.values())),
        (decoders.hash_image(data, options, isolated), *(row.tobytes() for row in isolated.values())),
    )


def test_the_hashes_are_those_of_this_process(decoders, encoded):
    broken = [b"", b"\xff\xd8\xff", encoded[0][:200], "não é imagem".encode(), b"\x89PNG\r\n\x1a\n"]
    for data in [*encoded[:10], memoryview(encoded[0]), *broken, jpeg(draw(3, 3000, 2000))]:
        here, there = both(decoders, data)
        assert here == there
    here, there = both(decoders, encoded[0], Options(max_pixels=10))
    assert here == there
    assert here[0].status == "too_many_pixels"


def test_threads_have_a_process_each(decoders, encoded):
    def hash_one(number):
        here, there = both(decoders, encoded[number % len(encoded)])
        return here == there

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(hash_one, range(100)))
    assert 1 <= len(decoders._free) <= 5


def test_a_killed_decoder_costs_one_row(decoders, encoded):
    both(decoders, encoded[0])
    for decoder in decoders._free:
        os.kill(decoder._pid, signal.SIGKILL)
    n_killed = len(decoders._free)
    out = empty_row((BMH1, PHASH))
    results = [decoders.hash_image(encoded[0], OPTIONS, out) for _ in range(n_killed + 2)]
    assert [isinstance(result, Failure) for result in results] == [True] * n_killed + [False] * 2
    assert results[0] == Failure("decode_failed", "the decoder crashed, or ran out of memory")


def test_a_decoder_that_takes_too_long_is_killed(decoders, encoded, monkeypatch):
    both(decoders, encoded[0])
    decoder = decoders._free[-1]
    os.kill(decoder._pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(isolation, "DEADLINE_S", 0.3)
        failure = decoders.hash_image(encoded[0], OPTIONS, empty_row((BMH1, PHASH)))
    assert failure == Failure("decode_failed", "not decoded within 0.3 s")
    assert decoder not in decoders._free
    assert both(decoders, encoded[0])[0] == both(decoders, encoded[0])[1]


def test_processes_end_with_this_one(encoded):
    running = Decoders()
    running.warm_up(2)
    pids = [decoder._pid for decoder in running._free]
    running.close()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))  # each ends by itself, soon


class NotedBudget(PixelBudget):
    def __init__(self):
        super().__init__(1 << 40)
        self.taken = []

    def take(self, n_bytes):
        self.taken.append(n_bytes)
        super().take(n_bytes)


def test_memory_is_taken_from_the_budget_of_this_process(decoders, encoded, monkeypatch):
    noted = NotedBudget()
    monkeypatch.setattr(pixel_budget, "PIXELS", noted)
    image = jpeg(draw(3, 2400, 1600))
    both(decoders, image)
    del noted.taken[:]
    out = empty_row((BMH1, PHASH))
    assert decoders.hash_image(image, OPTIONS, out).width == 2400
    assert noted.taken == [decode_costs.n_bytes("JPEG", image, 2400, 1600)]
    n_taken = len(noted.taken)
    assert decoders.hash_image(encoded[0], OPTIONS, out).width
    assert len(noted.taken) == n_taken, "small images are not counted"
    assert noted._n_bytes == 0


def test_an_image_too_large_for_a_lane_is_declined_and_hashed_in_the_next(decoders):
    out = empty_row((BMH1, PHASH))
    image = jpeg(draw(3, 2400, 1600))
    small = Lane(NotedBudget(), max_bytes=17_000_000)
    both(decoders, image)
    pids = {decoder._pid for decoder in decoders._free}
    with pytest.raises(DeclinedError):
        decoders.hash_image(image, OPTIONS, out, small)
    assert {decoder._pid for decoder in decoders._free} == pids, "its process goes on"
    assert small.budget.taken == []
    assert decoders.hash_image(image, OPTIONS, out, Lane(NotedBudget(), priority=LOW)).width == 2400
    low = decoders._free_low[-1]._pid
    assert os.getpriority(os.PRIO_PROCESS, low) > os.getpriority(os.PRIO_PROCESS, 0)


def test_an_image_too_slow_for_a_lane_is_declined(decoders, encoded):
    both(decoders, encoded[0])
    victim = decoders._free[-1]
    os.kill(victim._pid, signal.SIGSTOP)
    with pytest.raises(DeclinedError):
        decoders.hash_image(encoded[0], OPTIONS, empty_row((BMH1, PHASH)), Lane(max_s=0.2))
    assert victim not in decoders._free
    assert both(decoders, encoded[0])[0] == both(decoders, encoded[0])[1]


def test_a_killed_fork_server_is_replaced(encoded):
    running = Decoders()
    out = empty_row((BMH1, PHASH))
    expected = running.hash_image(encoded[0], OPTIONS, out)
    first = running._server.process
    first.kill()
    first.wait()
    results = [running.hash_image(encoded[0], OPTIONS, out) for _ in range(3)]
    assert results[-1] == expected
    assert sum(isinstance(result, Failure) for result in results) <= 1
    assert running._server.process.pid != first.pid
    running.close()
    with pytest.raises(DecodersUnavailableError, match="closed"):
        running.hash_image(encoded[0], OPTIONS, out)


def test_decoders_that_cannot_start_raise_the_reason(encoded, monkeypatch, tmp_path):
    text = "from imgmatch_df.batch import image_hashes\nimage_hashes.sample_images = lambda: [b'no image']\n"
    (tmp_path / "sitecustomize.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    running = Decoders()
    with pytest.raises(DecodersUnavailableError, match="a sample image cannot be decoded") as error:
        running.hash_image(encoded[0], OPTIONS, empty_row((BMH1, PHASH)))
    assert "Hint:" in str(error.value)
    running.close()


OWNER = """
import os, sys, threading, time
import numpy as np
from imgmatch_df.batch.isolation import LOW, Decoders
from imgmatch_df.options import Options
running = Decoders()
running.warm_up(2)
running.warm_up(1, LOW)
print(*[one._pid for one in running._free + running._free_low], running._server.process.pid, flush=True)
for decoder in running._free:
    os.kill(decoder._pid, 19)  # SIGSTOP: in the middle of an image
threading.Thread(target=running.hash_image, args=(b"image", Options(), empty_row([BMH1]))).start()
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("is_server_killed", [False, True])
def test_no_process_is_left_when_the_owner_is_killed(is_server_killed):
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        pids = list(map(int, owner.stdout.readline().split()))
        assert len(pids) == 4
        if is_server_killed:
            os.kill(pids[-1], signal.SIGKILL)
        owner.kill()
    wait_until(lambda: not any(map(is_running, pids)))


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_isolate_is_an_option_of_every_call(encoded, tmp_path):
    frame = pl.DataFrame({"image": [*encoded[:8], b"", None, encoded[0][:200]]})
    expected = frame.imgmatch.visual_hash("image")
    assert_frame_equal(frame.imgmatch.visual_hash("image", isolate=True), expected)
    lazy = frame.lazy().with_columns(pl.col("image").imgmatch.phash(isolate=True))
    for engine in ("in-memory", "streaming"):
        assert_series_equal(lazy.collect(engine=engine)["phash"], expected["phash"])
    with pytest.raises(imgmatch_df.DecodeError):
        frame.tail(1).imgmatch.visual_hash("image", isolate=True, on_error="raise")


def test_a_lack_of_memory_costs_the_row(encoded, monkeypatch):
    from imgmatch_df.fetching import read
    from imgmatch_df.images import decode

    frame = pl.DataFrame({"image": [encoded[0], b"huge", encoded[1]]})

    def huge(function):
        def call(data, *rest):
            if bytes(data) == b"huge":
                raise MemoryError
            return function(data, *rest)

        return call

    for module, name, status in ((decode, "decode_image", "decode_failed"), (read, "read_source", "fetch_failed")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, huge(getattr(module, name)))
            out = frame.imgmatch.visual_hash("image")
        assert out["status"].to_list() == ["ok", status, "ok"]
        assert "not enough memory" in out["detail"][1]
