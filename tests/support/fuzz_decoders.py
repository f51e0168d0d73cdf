"""A mutation fuzzer over all decoders, whose oracle is the budget: each file within its time and its memory.

    python tests/support/fuzz_decoders.py [--files 20000] [--seed 1] [--jobs 2]
    python tests/support/fuzz_decoders.py --seed 1 --write NUMBER FILE

A file follows from its seed and its number. Files are hashed in child processes under RLIMIT_AS, many in each; a child
that dies, or that takes a minute for one file, costs that file, which is named.
"""

import argparse
import ctypes
import os
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from drawing import draw, jpeg
from mutations import corpus, is_large, make_file

from imgmatch_df.batch import image_hashes
from imgmatch_df.batch.run import hash_sources
from imgmatch_df.columns import STATUSES
from imgmatch_df.errors import Failure
from imgmatch_df.hashes.kinds import BMH1, PHASH, empty_row
from imgmatch_df.images import pixel_budget
from imgmatch_df.options import MAX_PIXELS, Options

# The budget: 3 s for 10 megapixels and 24 bytes a pixel beyond the input. What every file may take besides
# covers the first use of a code path, and the buffers of libraries.
S_A_PIXEL = 3 / 10_000_000
FREE_S = 1.0
BYTES_A_PIXEL = 24
FREE_BYTES = 24 << 20
MAX_BYTES = 1_500_000_000  # beside what a child has mapped
HANG_S = 60.0
START_S = 300.0  # importing and compiling, on a busy machine

USUAL_PIXELS = 4_000_000  # or 20,000 files would take an hour; large ones may have the default
BATCH = 50


def options_of(seed: int, number: int) -> Options:
    """Return how a file is decoded."""
    rng = random.Random(number << 40 | seed)
    return Options(
        max_pixels=MAX_PIXELS if is_large(number) else USUAL_PIXELS,
        decode=rng.choice(("full", "full", "scaled")),
        alpha=rng.choice(("drop", "drop", "white")),
    )


# --- the oracle ------------------------------------------------------------------------------------------------------

HashOne = Callable[[Any, Options, Any], Any]


class Cost(NamedTuple):
    """What one file took: processor time, memory at its peak beyond what was there, and its pixels."""

    cpu_s: float
    n_bytes: int
    n_pixels: int

    def over_budget(self, n_file_bytes: int) -> str | None:
        """Return what is too much, None where nothing is."""
        max_s = FREE_S + S_A_PIXEL * self.n_pixels
        max_bytes = FREE_BYTES + n_file_bytes + BYTES_A_PIXEL * self.n_pixels
        if self.cpu_s > max_s:
            return f"{self.cpu_s:.1f} s for {self.n_pixels:,} pixels, at most {max_s:.1f} s"
        if self.n_bytes > max_bytes:
            return f"{self.n_bytes:,} bytes for {self.n_pixels:,} pixels, at most {max_bytes:,}"
        return None


@dataclass
class Report:
    """What came of a run."""

    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)  # by format and status
    faults: list[str] = field(default_factory=list)

    @property
    def n_files(self) -> int:
        return self.statuses.total()


class _Meter(pixel_budget.PixelBudget):
    """A budget that notes whether an image was admitted: what is refused from its header must cost nothing."""

    admitted = False

    def take(self, amount: int) -> None:
        self.admitted = True
        super().take(amount)


def _memory(name: str) -> int:
    """Return a line of /proc/self/status, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split(maxsplit=1)[0]) * 1024


def _measure(data: bytes, options: Options, hash_one: HashOne, out: Any, meter: _Meter) -> tuple[Any, Cost]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, meter.admitted = _memory("VmRSS"), False
    started = time.process_time()
    result = hash_one(data, options, out)
    cpu_s = time.process_time() - started
    n_bytes = _memory("VmHWM") - before
    # How many pixels a broken image claims is not known, but for the limit.
    n_pixels = options.max_pixels if meter.admitted else 0
    if isinstance(result, image_hashes.ImageSize):
        n_pixels = result.width * result.height
    return result, Cost(cpu_s, n_bytes, n_pixels)


def _judge(result: Any, options: Options) -> str | None:
    """Return what is wrong with a result, None where nothing is."""
    if isinstance(result, image_hashes.ImageSize):
        fits = 0 < result.width * result.height <= options.max_pixels
        return None if fits else f"{result.width}x{result.height} is not within max_pixels"
    if not isinstance(result, Failure) or result.status not in STATUSES or result.status == "ok":
        return f"no result: {result!r}"
    if not (10 < len(result.detail) < 300 and result.detail.isprintable()):
        return f"a detail that nobody can read: {result.detail!r}"
    return f"out of memory: {result.detail}" if "memory" in result.detail.lower() else None


def work(
    connection: Connection, seed: int, numbers: Sequence[int], files: dict[str, list[bytes]], hash_one: HashOne
) -> None:
    """Hash files in a child process: tell the number of each before, and the outcome after it."""
    ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD: what is freed goes back, so the next file is measured
    meter = pixel_budget.PIXELS = _Meter(1 << 60)
    out = empty_row((BMH1, PHASH))
    good = jpeg(draw(3))
    for data in (good, *chain(*files.values())):  # imports and compiles
        image_hashes.hash_image(data, Options(), out)
    own = hash_sources([good], Options()).row(0)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MAX_BYTES, mapped + MAX_BYTES))
    connection.send(("ready",))
    for start in range(0, len(numbers), BATCH):
        batches: dict[Options, list[tuple[int, bytes, Any]]] = {}
        for number in numbers[start : start + BATCH]:
            kind, data = make_file(files, seed, number)
            options = options_of(seed, number)
            connection.send(("begin", number, kind))
            try:
                result, cost = _measure(data, options, hash_one, out, meter)
                fault = _judge(result, options) or cost.over_budget(len(data))
            except Exception as error:  # noqa: BLE001  # what the fuzzer is there to find
                result, fault = None, f"raised {type(error).__name__}: {error}"
            row = _row(result, out)
            connection.send(("end", row[0] if row else "raised", fault))
            if row is not None and not is_large(number):  # two at a time take more than the limit of one
                batches.setdefault(options, []).append((number, data, row))
        for options, rows in batches.items():
            for number, fault in _neighbours(rows, options, good, own, hash_one):
                connection.send(("fault", number, fault))
    connection.send(("done", 0, ""))


def _row(result: Any, out: Any) -> tuple[Any, ...] | None:
    if isinstance(result, image_hashes.ImageSize):
        return "ok", result.width, result.height, *(kind.value(row) for kind, row in out.items())
    return tuple(result) if isinstance(result, Failure) else None


def _neighbours(
    rows: list[tuple[int, bytes, Any]], options: Options, good: bytes, own: dict[str, Any], hash_one: HashOne
) -> Iterator[tuple[int, str]]:
    """Hash files again in one batch, with sound ones beside them: all must be as they were when they were alone."""
    sources = [good, *(data for _, data, _ in rows), good]
    hashed = hash_sources(sources, options)
    for row in (0, len(sources) - 1):
        if options.decode == "full" and hashed.row(row) != own:
            yield rows[0][0], "a sound neighbour has other hashes"
    for row, (number, _, before) in enumerate(rows, 1):
        now = hashed.row(row)
        after = ("ok", now["width"], now["height"], now["bmh1"], now["phash"]) if now["status"] == "ok" else (
            now["status"], now["detail"]
        )  # fmt: skip
        if after != before:
            yield number, f"not the same twice: {str(before)[:150]}, then {str(after)[:150]}"


# --- a run -----------------------------------------------------------------------------------------------------------


def run(seed: int, numbers: Sequence[int], *, n_jobs: int = 1, hash_one: HashOne = image_hashes.hash_image) -> Report:
    """Hash mutated files in `n_jobs` child processes and return what came of it."""
    report = Report()
    threads = [Thread(target=_supervise, args=(seed, numbers[job::n_jobs], hash_one, report)) for job in range(n_jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.faults.sort()
    return report


def _supervise(seed: int, numbers: Sequence[int], hash_one: HashOne, report: Report) -> None:
    """Hash files in a child, and in another one from the next file on where that dies."""
    while numbers:
        ours, theirs = get_context("spawn").Pipe()
        child = get_context("spawn").Process(target=work, args=(theirs, seed, numbers, corpus(), hash_one), daemon=True)
        child.start()
        theirs.close()
        number, kind, max_s = numbers[0], "none", START_S
        while True:
            try:
                if not ours.poll(max_s):
                    child.kill()
                    ended = f"took more than {max_s:g} s"
                    break
                what, *told = ours.recv()
            except EOFError:
                child.join()
                ended = f"ended the process with exit code {child.exitcode}"
                break
            if what == "done":
                ended = ""
                break
            max_s = HANG_S
            if what == "begin":
                number, kind = told
            elif what == "end":
                report.statuses[kind, told[0]] += 1
                if told[1]:
                    report.faults.append(f"file {number} of seed {seed} ({kind}): {told[1]}")
            elif what == "fault":
                report.faults.append(f"file {told[0]} of seed {seed}: {told[1]}")
        child.join()
        if not ended:
            return
        report.statuses[kind, "lost"] += 1
        report.faults.append(f"file {number} of seed {seed} ({kind}): {ended}")
        numbers = numbers[list(numbers).index(number) + 1 :]


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Mutated files through every decoder, under a budget.")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--write", nargs=2, metavar=("NUMBER", "FILE"), help="write one file, and hash nothing")
    given = parser.parse_args()
    if given.write:
        Path(given.write[1]).write_bytes(make_file(corpus(), given.seed, int(given.write[0]))[1])
        return 0
    started = time.monotonic()
    report = run(given.seed, range(given.files), n_jobs=given.jobs)
    lines = []
    for kind in sorted(corpus()):
        counts = {status: n for (name, status), n in sorted(report.statuses.items()) if name == kind}
        lines.append(f"{kind:9} {', '.join(f'{n:,} {status}' for status, n in counts.items())}")
    lines.append(f"{report.n_files:,} files in {time.monotonic() - started:.0f} s, {len(report.faults)} faults")
    sys.stdout.write("\n".join([*lines, *report.faults, ""]))
    return bool(report.faults)


if __name__ == "__main__":
    sys.exit(main())
