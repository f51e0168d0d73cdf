"""Waiting for something that another thread or process does."""

import time


def wait_until(condition, seconds=100):
    """Return as soon as a condition holds; fail after `seconds`."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "not so in time"
        time.sleep(0.005)
