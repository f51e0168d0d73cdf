"""Whole commands on a folder of photos, start included, beside other programs that do the same.

    python benchmarks/commands.py [FOLDER] [--only start] --update-docs

Programs may be installed in environments of their own, and be named: --immaculate, which needs Python 3.12 or later,
and --image-dedup-ai.
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
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from harness import allowed_cpus, describe_machine, markdown_table, pin, replace_between
from PIL import Image

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
N_FIRST = 10  # photos of the commands that measure the start
SHARES = (0.0, 0.5, 0.9)  # of byte-identical copies
SEED = 4
CROP = (0.55, 0.95)  # sides of a crop, in sides of its photo
OURS = "imgmatch-df"
IMMACULATE = "Immaculate"
IMAGE_DEDUP_AI = "image-dedup-ai"


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


def run(command: list[str], environment: dict[str, str] | None = None) -> Took:
    """Run a command and return its times."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    wall_s, after = time.perf_counter() - start, os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Took(wall_s, cpu_s)


def _python_of(program: str) -> str:
    """Return the Python that a program is installed for."""
    return str(next(Path(program).absolute().parent.glob("python*")))


def start_section(photos: list[bytes], folder: Path, programs: dict[str, str], n_cpus: int, rounds: int) -> str:
    """Time the first commands ever, and later ones, on ten photos; return the table."""
    place = write(crops(photos, N_FIRST), N_FIRST, 0.0, folder / "ten")
    # The package as an installer leaves it: with bytecode, without compiled kernels.
    package, clean = Path(str(find_spec("imgmatch_df").origin)).parent, folder / "clean"
    shutil.copytree(package, clean / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    run([sys.executable, "-m", "compileall", "-q", str(clean)])
    environment = {**os.environ, "PYTHONPATH": str(clean), "PYTHONSAFEPATH": "1"}
    options = [str(place), "--no-progress", "-o", str(folder / "first.parquet")]
    pdq = ["--hash-type", "pdq", "--radius", "31", "--turns"]
    commands = {
        "`imgmatch visual-hash`": [programs[OURS], "visual-hash", *options],
        "`imgmatch remove-duplicates`, pdq in eight turns": [programs[OURS], "remove-duplicates", *options, *pdq],
    }
    for name in (IMMACULATE, IMAGE_DEDUP_AI):
        if name in programs:
            commands[name] = [programs[name], "--json", str(place)]
    first: dict[str, list[Took]] = {name: [] for name in commands}
    later: dict[str, list[Took]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as kernels:
                own = {**environment, "NUMBA_CACHE_DIR": kernels}
                first[name].append(run(command, own))
                later[name] += [run(command, own) for _ in range(3)]
    rows = [
        [name, *(f"{statistics.median(one[i] for one in took[name]):.2f} s" for took in (first, later) for i in (0, 1))]
        for name in commands
    ]
    header = ["ten photos", "the first command ever", "of processors", "any later one", "of processors"]
    return f"{markdown_table(header, rows)}\n\n{_conditions(programs, rounds, n_cpus)}"


def _conditions(programs: dict[str, str], rounds: int, n_cpus: int) -> str:
    others = "".join(f" {_version(name, program)}," for name, program in programs.items() if name != OURS)
    machine = describe_machine(n_cpus, ["pillow"])
    return f"Whole processes, median of {rounds} rounds, {n_cpus} processors.{others} {machine}"


def section(
    photos: list[bytes], folder: Path, programs: dict[str, str], n_cpus: int, n_images: int, rounds: int
) -> str:
    """Time the commands by turns and return the table."""
    images = crops(photos, n_images)
    rows = []
    for share in SHARES:
        place = write(images, n_images, share, folder / f"{share}")
        kept = str(folder / "kept.parquet")
        options = ["--hash-type", "pdq", "--radius", "31", "--turns", "--no-progress"]
        commands = {OURS: [programs[OURS], "remove-duplicates", str(place), *options, "-o", kept]}
        if IMMACULATE in programs:
            commands[IMMACULATE] = [programs[IMMACULATE], "--json", str(place)]
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
    return (
        f"{markdown_table(['byte-identical copies', '', 'time', 'of processors', 'times ours'], rows)}\n\n"
        f"{n_images:,} JPEG photos of {kilobytes:,.0f} KB on average; pdq within 31 bits in all eight turns. "
        f"{_conditions({name: programs[name] for name in commands}, rounds, n_cpus)}"
    )


def _version(name: str, program: str) -> str:
    code = f"from importlib.metadata import version; print(version({name.lower()!r}))"
    done = subprocess.run([_python_of(program), "-c", code], check=True, capture_output=True, text=True)
    return f"{name} {done.stdout.strip()}"


def main() -> None:
    """Measure, print the table, and with --update-docs write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="images; drawn ones by default")
    for name in (IMMACULATE, IMAGE_DEDUP_AI):
        word = name.lower()
        parser.add_argument(f"--{word}", default=shutil.which(word), help="the program; by default that on PATH")
    parser.add_argument("--only", choices=["start", "commands"], help="one of the tables")
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds")
    parser.add_argument("--update-docs", action="store_true", help="write the table into the documentation")
    arguments = parser.parse_args()
    from photos import draw_photos, read_folder

    photos = draw_photos(80) if arguments.folder is None else read_folder(arguments.folder)
    cpus = allowed_cpus()[:2]
    pin(cpus)
    n_images, rounds = (600, 2) if arguments.quick else (4_600, 7)
    given = {IMMACULATE: arguments.immaculate, IMAGE_DEDUP_AI: arguments.image_dedup_ai}
    programs = {OURS: str(Path(sys.executable).parent / "imgmatch")}
    programs.update((name, program) for name, program in given.items() if program is not None)
    with tempfile.TemporaryDirectory() as name:
        if arguments.only != "commands":
            text = start_section(photos.data, Path(name), programs, len(cpus), 1 if arguments.quick else 3)
            print(text)
            if arguments.update_docs:
                replace_between(PAGE, "start", text)
        if arguments.only != "start":
            text = section(photos.data, Path(name), programs, len(cpus), n_images, rounds)
            print(text)
            if arguments.update_docs:
                replace_between(PAGE, "commands", text)


if __name__ == "__main__":
    main()
