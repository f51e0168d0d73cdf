"""Scratch is used again, but never by two at once, and little of it is kept."""

import threading

import numpy as np
import pytest

from imgmatch_df._kernels import scratch


@pytest.mark.parametrize("shape", [0, 5, (3, 0), (2, 70_000), 1_000_003, (1, 1 << 21)])
@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_arrays_are_as_asked_for(shape, dtype):
    array = scratch.empty(shape, dtype)
    assert array.shape == np.empty(shape, dtype).shape
    assert array.dtype == dtype
    assert array.flags.c_contiguous
    assert array.flags.writeable
    array[:] = 7
    assert (array == 7).all()


def test_memory_is_used_again_when_the_last_view_is_gone():
    scratch._spare.clear()
    array = scratch.empty(100_000, np.uint64)
    view = array[5:].view(np.uint8)
    address = array.ctypes.data
    del array
    others = [scratch.empty(100_000, np.uint64) for _ in range(20)]
    assert not any(np.shares_memory(view, other) for other in others)
    del view
    assert scratch.empty(100_000, np.uint64).ctypes.data == address


def test_arrays_of_many_threads_are_apart():
    def fill(number):
        for size in (70_000, 100_000, 300_000) * 20:
            array = scratch.empty(size, np.uint32)
            array[:] = number
            wrong.append(np.count_nonzero(array != number))

    wrong = []
    threads = [threading.Thread(target=fill, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 360
    assert not any(wrong)


def test_little_is_kept():
    arrays = [scratch.empty(1 << 20, np.uint64) for _ in range(9)]
    arrays += [scratch.empty(1 << size, np.uint8) for size in range(16, 24)]
    del arrays
    assert 0 < sum(size * len(blocks) for size, blocks in scratch._spare.items()) <= scratch._KEPT
