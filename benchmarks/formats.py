"""The table of files that OpenCV 5 and imgmatch-df read differently: unusual and damaged files, drawn by class.

python benchmarks/formats.py --update-docs
"""

import argparse
import sys
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import polars as pl
from harness import markdown_table, replace_between

import imgmatch_df

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "formats.md"
SEEDS = (1, 2, 3)
SIZE = (160, 120)

sys.path.insert(0, str(ROOT / "tests" / "support"))
from oddities import KINDS, KNOWN, READ, odd_files  # noqa: E402


def table() -> str:
    """Return the table of docs/formats.md, in Markdown."""
    distances = _distances()
    rows = []
    for class_, known in KNOWN.items():
        here = "other pixels" if known.here == known.opencv else known.here
        rows.append([class_, known.opencv, here, _bits(distances[class_]), known.why])
    return markdown_table(["class of file", "OpenCV 5", "here", "bits that differ: bmh1 / phash", "why"], rows)


def _distances() -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {class_: [] for class_ in KNOWN}
    for kind in KINDS:
        for seed in SEEDS:
            for class_, _, data in odd_files(kind, seed, *SIZE):
                known = KNOWN.get(class_)
                if known is not None and known.opencv == known.here == READ:
                    distance = _distance(data)
                    if distance is not None:
                        found[class_].append(distance)
    return found


def _distance(data: bytes) -> tuple[int, int] | None:
    ours = imgmatch_df.visual_hash(pl.DataFrame({"x": [data]}), "x").row(0, named=True)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if ours["status"] != "ok" or pixels is None:
        return None
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    bmh1 = cv2.img_hash.BlockMeanHash_create(1).compute(pixels).tobytes()
    phash = int.from_bytes(cv2.img_hash.PHash_create().compute(pixels).tobytes(), "big")
    bits = sum((a ^ b).bit_count() for a, b in zip(ours["bmh1"], bmh1, strict=True))
    return bits, (ours["phash"] ^ phash).bit_count()


def _bits(distances: list[tuple[int, int]]) -> str:
    if not distances:
        return ""
    middle, most = ([f(kind) for kind in zip(*distances, strict=True)] for f in (median, max))
    return f"median {middle[0]:.0f} / {middle[1]:.0f}, at most {most[0]} / {most[1]}"


def main() -> None:
    """Print, and with ``--update-docs`` write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update-docs", action="store_true")
    arguments = parser.parse_args()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    text = table()
    print(text)
    if arguments.update_docs:
        replace_between(PAGE, "formats", text)


if __name__ == "__main__":
    main()
