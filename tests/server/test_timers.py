"""Timers of requests: as those of asyncio, on one timer of the loop."""

import asyncio
import gc

import pytest

from imgmatch_df.server.timers import Timers

WAYS = [asyncio.timeout, None]


async def timed(way, timers, within_s, work):
    if way is None:
        with timers.timeout(within_s):
            return await work
    async with way(within_s):
        return await work


def outcome(way, scenario):
    """What a scenario returns or raises, and what it leaves behind."""

    async def run():
        timers = Timers()
        try:
            found = await scenario(lambda within_s, work: timed(way, timers, within_s, work))
        except (TimeoutError, asyncio.CancelledError, ValueError) as error:
            found = type(error)
        assert not timers._active
        return found, asyncio.current_task().cancelling()

    return asyncio.run(run())


async def in_time(timed):
    return await timed(100, asyncio.sleep(0, "done"))


async def late(timed):
    return await timed(0.02, asyncio.sleep(100))


async def outer_late(timed):
    return await timed(0.02, timed(100, asyncio.sleep(100)))


async def inner_late(timed):
    try:
        return await timed(100, timed(0.02, asyncio.sleep(100)))
    except TimeoutError:
        return await asyncio.sleep(0.1, "went on")


async def failed(timed):
    async def fail():
        raise ValueError

    return await timed(1, fail())


async def cancelled(timed):
    task = asyncio.ensure_future(timed(100, asyncio.sleep(100)))
    await asyncio.sleep(0.01)
    task.cancel()
    return await task


async def ends_as_it_expires(timed):
    """The block swallows the cancellation, so there is a result."""

    async def swallow():
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            return "swallowed"

    return await timed(0.02, swallow())


@pytest.mark.parametrize(
    "scenario",
    [in_time, late, outer_late, inner_late, failed, cancelled, ends_as_it_expires],
    ids=lambda one: one.__name__,
)
def test_a_timeout_is_that_of_asyncio(scenario):
    expected, own = (outcome(way, scenario) for way in WAYS)
    assert own == expected


def test_callbacks_come_once_and_not_after_they_are_cancelled():
    async def run():
        timers, called = Timers(), []
        timers.call_later(0.01, lambda: kept[3].cancel())  # the first one, also if all are late
        kept = [timers.call_later(0.05 * number, lambda number=number: called.append(number)) for number in range(4)]
        kept[2].cancel()
        await asyncio.sleep(0.3)
        while timers._next is not None:  # without timers, nothing wakes the loop
            await asyncio.sleep(0.01)
        timers.call_later(0, lambda: called.append("again"))
        while "again" not in called:
            await asyncio.sleep(0.01)
        return called

    assert asyncio.run(run()) == [0, 1, "again"]


def test_one_object_serves_several_loops_one_after_the_other():
    timers = Timers()

    async def run():
        with timers.timeout(0.02):
            await asyncio.sleep(100)

    for _ in range(2):
        with pytest.raises(TimeoutError):
            asyncio.run(run())
    gc.collect()
