"""The delay between requests to one host, `min_interval_s`, measured by the server.

No test depends on how long something takes at most, but for hosts that must not wait for others.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import polars as pl
import pytest
from hostile_server import HostileServer
from waiting import wait_until

from imgmatch_df.errors import ArgumentError
from imgmatch_df.fetching import retry, scheduler
from imgmatch_df.fetching.pace import _MAX_HOSTS, HostPace
from imgmatch_df.options import make_options

FAST = {"allow_private_networks": True, "timeout_s": 60}
EARLY_S = 0.02  # the clocks of the loop and of the server are read at different moments, and a timer may be early


class TimedServer(HostileServer):
    """A server that notes when requests arrive."""

    def __enter__(self):
        self.times = []
        return super().__enter__()

    async def _serve(self, reader, writer):
        before, noted = reader.readuntil, self.times

        async def read_until(separator):
            head = await before(separator)
            noted.append(monotonic())
            return head

        reader.readuntil = read_until
        await super()._serve(reader, writer)

    def check_pace(self, began, interval_s):
        """Check that no request is early, as the first one was sent after `began`.

        The time from one to the next is no measure: a request may wait before it is read here.
        """
        assert all(at - began >= n * interval_s - EARLY_S for n, at in enumerate(self.times)), (began, self.times)


@pytest.fixture
def server(encoded):
    with TimedServer(encoded) as running:
        yield running


def hashed(urls, **options):
    return pl.DataFrame({"url": urls}).imgmatch.visual_hash("url", **{**FAST, **options})


def test_requests_to_a_host_wait(server):
    began = monotonic()
    out = hashed([server.url(f"/ok/{n}.jpg") for n in range(6)], min_interval_s=0.15)
    assert set(out["status"]) == {"ok"}
    assert len(server.times) == 6
    server.check_pace(began, 0.15)


def hold(server):
    """Let no request to a server begin; return a function that lets them begin, one after the other."""
    shared, host = scheduler.shared_scheduler(), server.url("")
    shared._pace.record(host, shared._loop.time() + 3600)

    def release():
        wait_until(lambda: host in shared._pace_timers)
        shared._pace._started.clear()
        shared._loop.call_soon_threadsafe(lambda: (shared._pace_timers[host].cancel(), shared._on_pace(host)))

    return release


def test_other_hosts_do_not_wait(server, encoded):
    release = hold(server)
    with TimedServer(encoded) as other, ThreadPoolExecutor(2) as users:
        slow = [server.url(f"/ok/{n}.jpg") for n in range(4)]
        quick = [other.url(f"/ok/{n}.jpg?{n}") for n in range(40)]
        paced = users.submit(hashed, slow, min_interval_s=0.2, n_connections=4)
        free = users.submit(hashed, quick, n_connections=4)
        try:
            assert set(free.result()["status"]) == {"ok"}
            assert not server.times
        finally:
            began = monotonic()
            release()
        assert set(paced.result()["status"]) == {"ok"}
        server.check_pace(began, 0.2)


def test_retries_and_redirects_wait_too(server, monkeypatch):
    monkeypatch.setattr(retry, "POLICY", retry.RetryPolicy(first_wait_s=0.001))
    urls = [server.url("/flaky?times=2"), server.url("/hops/3"), server.url("/busy?after=0")]
    began = monotonic()
    out = hashed(urls, min_interval_s=0.1)
    assert set(out["status"]) == {"ok"}
    assert len(server.times) == 3 + 4 + 2
    server.check_pace(began, 0.1)


def test_several_calls_take_turns(server):
    shared, release = scheduler.shared_scheduler(), hold(server)  # none begins before all three wait
    parts = [[server.url(f"/ok/{n}.jpg?call={call}") for n in range(4)] for call in range(3)]
    with ThreadPoolExecutor(3) as users:
        calls = [users.submit(hashed, part, min_interval_s=0.08) for part in parts]
        wait_until(lambda: len(shared._downloads) == 3)
        began = monotonic()
        release()
        outs = [call.result() for call in calls]
    assert all(set(out["status"]) == {"ok"} for out in outs)
    server.check_pace(began, 0.08)
    order = [target.partition("call=")[2] for target in server.targets]
    assert all(set(order[at : at + 3]) == {"0", "1", "2"} for at in range(0, 12, 3)), order


def test_a_call_without_a_delay_counts_for_one_that_has_it(server):
    began = monotonic()
    hashed([server.url("/ok/0.jpg")])
    hashed([server.url("/ok/1.jpg")], min_interval_s=0.3)
    server.check_pace(began, 0.3)


def test_rows_that_wait_can_be_cancelled(server):
    urls = [server.url("/ok/0.jpg"), server.url("/status/404"), *(server.url(f"/ok/{n}.jpg") for n in range(2, 200))]
    with pytest.raises(Exception, match="row 1"):
        pl.Series("url", urls).imgmatch.phash(on_error="raise", min_interval_s=0.2, **FAST)
    assert server.targets.total() < 100
    assert scheduler.shared_scheduler()._n_connections == 0


def test_a_stopped_download_with_retries_takes_each_url_once(server):
    """A host whose queue was emptied was made ready twice, by the retry and by the connection that became free."""
    done, results = threading.Event(), []

    def on_result(index, result, release):
        results.append(index)
        release()
        if len(results) == 40:
            done.set()

    urls = [server.url(f"/status/503?n={n}") for n in range(40)]
    options = make_options(**FAST, n_connections_per_host=2, attempts=2)
    download = scheduler.Download(urls, options, on_result)
    shared = scheduler.shared_scheduler()
    shared.start(download)
    shared.stop(download, after=1)
    assert done.wait(100)
    assert sorted(results) == list(range(40))


@pytest.mark.parametrize("wrong", [-1, -0.001, float("nan"), float("inf"), True, "1", None, 10**9])
def test_wrong_delays_raise(wrong):
    with pytest.raises(ArgumentError, match=r"min_interval_s must be a number of seconds from 0 to 1,000,000"):
        make_options(min_interval_s=wrong)


def test_only_times_without_effect_are_forgotten():
    pace = HostPace()
    assert pace.next_start("h", 10.0) <= 0
    for n in range(3 * _MAX_HOSTS):
        pace.record(f"h{n}", float(n))
    assert len(pace._started) < 2 * _MAX_HOSTS
    last = 3 * _MAX_HOSTS - 1
    assert pace.next_start(f"h{last}", 10.0) == last + 10.0
    assert pace.reserve(f"h{last}", 10.0, float(last)) == last + 10.0
    assert pace.reserve(f"h{last}", 10.0, float(last)) == last + 20.0
