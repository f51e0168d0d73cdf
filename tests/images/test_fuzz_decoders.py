"""Mutated files of every format stay within the budget, and the fuzzer sees those that do not."""

import os
import signal
import sys
import time
from functools import partial
from zlib import crc32

import fuzz_decoders
import numpy as np
import pytest
from fuzz_decoders import Cost, options_of, run
from mutations import LARGE_EVERY, corpus, is_large, make_file

from imgmatch_df.batch.image_hashes import hash_image
from imgmatch_df.errors import Failure
from imgmatch_df.options import MAX_PIXELS

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="the peak of the memory is read from /proc"),
]


def test_400_mutated_files_stay_within_the_budget():
    report = run(1, range(400))
    assert report.faults == []
    assert report.n_files == 400
    assert {status for _, status in report.statuses} <= {"ok", "decode_failed", "too_many_pixels"}
    assert {kind for kind, status in report.statuses if status == "ok"} == set(corpus())


@pytest.mark.slow
def test_20_000_mutated_files_stay_within_the_budget():
    report = run(2, range(20_000), n_jobs=2)
    assert report.faults == []
    assert report.n_files == 20_000
    assert min(report.statuses[kind, "ok"] for kind in corpus()) > 100


def test_a_file_follows_from_its_seed_and_its_number():
    files = corpus()
    made = [make_file(files, 1, number) for number in range(200)]
    assert made == [make_file(files, 1, number) for number in range(200)]
    assert len({data for _, data in made}) > 190
    assert made != [make_file(files, 2, number) for number in range(200)]


def test_every_format_has_headers_of_large_images():
    large = [number for number in range(12 * LARGE_EVERY) if is_large(number)]
    assert {make_file(corpus(), 1, number)[0] for number in large} == set(corpus())
    assert {options_of(1, number).max_pixels for number in large} == {MAX_PIXELS}


# --- a decoder that goes wrong with some files ------------------------------------------------------------------------


def go_wrong(wrong, data, options, out):
    match wrong.get(crc32(data)):
        case "memory":
            np.ones(60 << 20, np.uint8)
        case "time":
            started = time.process_time()
            while time.process_time() < started + 1.5:
                pass
        case "error":
            return out[1000]
        case "no memory":
            return Failure("decode_failed", "broken PNG: MemoryError: 9 bytes")
        case "other":
            return Failure("decode_failed", "not what a batch says")
        case "no detail":
            return Failure("decode_failed", "\x1b[2J")
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(60)
    return hash_image(data, options, out)


def run_with(wrong):
    """Hash ten files with a decoder that goes wrong with those that `wrong` names."""
    sums = {crc32(make_file(corpus(), 1, number)[1]): how for number, how in wrong.items()}
    report = run(1, range(10), hash_one=partial(go_wrong, sums))
    assert report.n_files == 10
    return dict(fault.split(" of seed 1", 1) for fault in reversed(report.faults))


def test_every_kind_of_fault_is_seen():
    faults = run_with(dict(enumerate(["memory", "time", "error", "no memory", "other", "no detail"])))
    assert sorted(faults) == [f"file {number}" for number in range(6)]
    words = ("bytes for ", " s for ", "raised KeyError", "out of memory", "not the same twice", "a detail that")
    for number, word in enumerate(words):
        assert word in faults[f"file {number}"]


@pytest.mark.slow
def test_a_child_that_dies_or_hangs_names_its_file_and_the_others_are_hashed(monkeypatch):
    monkeypatch.setattr(fuzz_decoders, "HANG_S", 15.0)
    faults = run_with({3: "crash", 6: "hang"})
    assert faults == {
        "file 3": " (JPEG): ended the process with exit code -9",
        "file 6": " (PNG): took more than 15 s",
    }


def test_the_budget():
    assert Cost(0.9, 20 << 20, 0).over_budget(0) is None
    assert "at most 4.0 s" in Cost(4.5, 0, 10_000_000).over_budget(0)
    assert "10,000,000 pixels" in Cost(0, 300 << 20, 10_000_000).over_budget(1000)
    assert Cost(0, 300 << 20, 10_000_000).over_budget(64 << 20) is None
