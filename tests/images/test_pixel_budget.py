"""How much memory decoding takes at a time."""

import threading
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest

from imgmatch_df.images.pixel_budget import SMALL, PixelBudget


class Gauge:
    """The most that several threads hold at a time."""

    def __init__(self):
        self.now = self.most = 0
        self.lock = threading.Lock()

    def add(self, n):
        with self.lock:
            self.now += n
            self.most = max(self.most, self.now)


@pytest.mark.parametrize("n_threads", [1, 2, 16])
def test_no_more_than_the_limit_is_held(n_threads):
    budget, gauge = PixelBudget(10 * SMALL), Gauge()

    def decode(number):
        n_bytes = SMALL * (2 + number % 5)
        with budget:
            budget.take(n_bytes)
            gauge.add(n_bytes)
            sleep(0.001)
            gauge.add(-n_bytes)

    with ThreadPoolExecutor(n_threads) as threads:
        list(threads.map(decode, range(200)))
    assert 0 < gauge.most <= 10 * SMALL
    assert budget._n_bytes == 0


def test_one_image_may_exceed_it_alone_and_is_not_overtaken_for_ever():
    budget, gauge = PixelBudget(4 * SMALL), Gauge()
    done = []

    def decode(n_bytes):
        with budget:
            budget.take(n_bytes)
            gauge.add(n_bytes)
            sleep(0.002)
            gauge.add(-n_bytes)
        done.append(n_bytes)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(decode, [2 * SMALL] * 20 + [9 * SMALL] + [2 * SMALL] * 100))
    assert gauge.most == 9 * SMALL
    assert done.index(9 * SMALL) < 40


def test_small_images_do_not_wait():
    budget = PixelBudget(1)
    with budget:
        budget.take(9 * SMALL)
        with ThreadPoolExecutor(1) as threads:
            threads.submit(take_within, budget, SMALL).result(10)


def test_what_an_image_takes_twice_does_not_wait_for_itself():
    budget = PixelBudget(2 * SMALL)
    with budget:
        budget.take(2 * SMALL)
        budget.take(9 * SMALL)
    assert budget._n_bytes == 0


def test_images_that_are_decoded_twice_do_not_wait_for_each_other():
    budget, both = PixelBudget(4 * SMALL), threading.Barrier(2)

    def decode(_):
        with budget:
            budget.take(2 * SMALL)
            both.wait(10)
            budget.take(3 * SMALL)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(decode, range(2), timeout=20))
    assert budget._n_bytes == 0


def test_nothing_is_taken_outside_of_an_image():
    budget = PixelBudget(2 * SMALL)
    budget.take(9 * SMALL)
    with budget:
        budget.take(9 * SMALL)
    budget.take(9 * SMALL)
    assert budget._n_bytes == 0


def test_an_error_gives_it_back():
    budget = PixelBudget(2 * SMALL)
    with pytest.raises(ZeroDivisionError), budget:
        budget.take(2 * SMALL + 1 // 0)
    with budget:
        budget.take(2 * SMALL)
    take_within(budget, 2 * SMALL)


def take_within(budget, n_bytes):
    with budget:
        budget.take(n_bytes)
