"""Whole commands on a folder of photos, start included, beside another program that does the same.

    python benchmarks/commands.py [FOLDER] [--immaculate PROGRAM] --update-docs

Immaculate needs Python 3.12 or later, so that it may be installed in an environment of its own.
"""

import argparse
import io
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from harness import allowed_cpus, describe_machine, markdown_table, pin, replace_between
from PIL import Image

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
SHARES = (0.0, 0.5, 0.9)  # of byte-identical copies
SEED = 4
CROP = (0.55, 0.95)  # sides of a crop, in sides of its photo
OURS = "imgmatch-df"
IMMACULATE = "Immaculate"


class Took(NamedTuple):
    """Seconds of a run: elapsed, and of processors."""

    wall_s: float
    cpu_s: float


def crops(photos: list[bytes], n: int) -> list[bytes]:
    """Return `n` different photos of about 40 KB: crops, some of them mirrored."""
    rng = random.Random(SEED)
    images = [Image.open(io.BytesIO(photo)).convert("RGB") for photo in photos]
    found = []
    for _ in range(n):
        image = rng.choice(images)
        width, height = (int(side * rng.uniform(*CROP)) for side in image.size)
        left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
        crop = image.crop((left, top, left + width, top + height))
        if rng.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        stream = io.BytesIO()
        crop.save(stream, "JPEG", quality=90)
        found.append(stream.getvalue())
    return found


def write(photos: list[bytes], n: int, share: float, place: Path) -> Path:
    """Write `n` files of which a share are copies of others, in random order."""
    n_different = n - round(n * share)
    numbers = [number % n_different for number in range(n)]
    random.Random(SEED).shuffle(numbers)
    place.mkdir()
    for number, photo in enumerate(numbers):
        (place / f"{number:06}.jpg").write_bytes(photos[photo])
    return place


def run(command: list[str]) -> Took:
    """Run a command and return its times."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall_s, after = time.perf_counter() - start, os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Took(wall_s, cpu_s)


def section(photos: list[bytes], folder: Path, immaculate: str | None, n_cpus: int, n_images: int, rounds: int) -> str:
    """Time the commands by turns and return the table."""
    imgmatch = str(Path(sys.executable).parent / "imgmatch")
    images = crops(photos, n_images)
    rows = []
    for share in SHARES:
        place = write(images, n_images, share, folder / f"{share}")
        kept = str(folder / "kept.parquet")
        options = ["--hash-type", "pdq", "--radius", "31", "--turns", "--no-progress"]
        commands = {OURS: [imgmatch, "remove-duplicates", str(place), *options, "-o", kept]}
        if immaculate is not None:
            commands[IMMACULATE] = [immaculate, "--json", str(place)]
        took: dict[str, list[Took]] = {name: [] for name in commands}
        for number in range(rounds + 1):
            for name, command in commands.items():
                found = run(command)
                if number:  # the first run reads files and compiles kernels
                    took[name].append(found)
        own = statistics.median(one.wall_s for one in took[OURS])
        for name, runs in took.items():
            wall_s = statistics.median(one.wall_s for one in runs)
            cpu_s = statistics.median(one.cpu_s for one in runs)
            rows.append([f"{share:.0%}", name, f"{wall_s:.2f} s", f"{cpu_s:.2f} s", f"{wall_s / own:.2f}"])
    kilobytes = statistics.mean(map(len, images)) / 1e3
    peer = "" if immaculate is None else f" {_version(immaculate)},"
    return (
        f"{markdown_table(['byte-identical copies', '', 'time', 'of processors', 'times ours'], rows)}\n\n"
        f"{n_images:,} JPEG photos of {kilobytes:,.0f} KB on average; pdq within 31 bits in all eight turns; whole "
        f"processes, median of {rounds} rounds, {n_cpus} processors.{peer} {describe_machine(n_cpus, ['pillow'])}"
    )


def _version(program: str) -> str:
    python = Path(os.path.realpath(Path(program).parent / "python"))
    code = "from importlib.metadata import version; print(version('immaculate'))"
    done = subprocess.run(
        [str(Path(program).parent / python.name), "-c", code], check=True, capture_output=True, text=True
    )
    return f"{IMMACULATE} {done.stdout.strip()}"


def main() -> None:
    """Measure, print the table, and with --update-docs write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="images; drawn ones by default")
    parser.add_argument("--immaculate", default=shutil.which("immaculate"), help="the program; by default that on PATH")
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds")
    parser.add_argument("--update-docs", action="store_true", help="write the table into the documentation")
    arguments = parser.parse_args()
    from photos import draw_photos, read_folder

    photos = draw_photos(80) if arguments.folder is None else read_folder(arguments.folder)
    cpus = allowed_cpus()[:2]
    pin(cpus)
    n_images, rounds = (600, 2) if arguments.quick else (4_600, 7)
    with tempfile.TemporaryDirectory() as name:
        text = section(photos.data, Path(name), arguments.immaculate, len(cpus), n_images, rounds)
    print(text)
    if arguments.update_docs:
        replace_between(PAGE, "commands", text)


if __name__ == "__main__":
    main()
