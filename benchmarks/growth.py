"""The plot of the time of joins by the number of rows."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw_growth(path: Path, panels: Sequence[tuple[Any, Sequence[int]]], few: Sequence[int]) -> None:
    """Draw seconds over rows, ours by radius and faiss flat, dashed where it is extrapolated; not at `few` rows."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(11, 4.6), layout="constrained", sharey=True)
    for axis, (results, radii) in zip(axes, panels, strict=True):
        measured = {n for figures in results.figures.values() for n in figures if n not in few}
        largest = max(measured)
        shown = [radius for radius in radii if ("ours", radius) in results.figures]
        for i, radius in enumerate(shown):
            points = {n: f.seconds for n, f in sorted(results.figures["ours", radius].items()) if n not in few}
            colour = plt.colormaps["viridis"](0.9 - 0.9 * i / max(1, len(shown) - 1))
            axis.plot(list(points), list(points.values()), "o-", color=colour, label=f"imgmatch-df, within {radius}")
        # A scan takes the same time at any radius: the radius with the largest measured size.
        flat = max((r for who, r in results.figures if who == "flat"), key=lambda r: max(results.figures["flat", r]))
        points = {n: f.seconds for n, f in sorted(results.figures["flat", flat].items()) if n not in few}
        axis.plot(list(points), list(points.values()), "s-", color="crimson", label="faiss flat, any radius")
        last = results.get("flat", largest, flat)
        if last is not None and points and last.measured_n < largest:
            ends = [max(points), largest], [points[max(points)], last.seconds]
            axis.plot(*ends, "--", color="crimson", label="faiss flat, extrapolated")
        axis.set_xlim(7e3, 1.4 * 10 ** math.ceil(math.log10(largest)))
        axis.set(xscale="log", yscale="log", xlabel="rows", title=f"{results.hashes.kind}, {results.hashes.name}")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, frameon=False)
    axes[0].set_ylabel("seconds for all pairs, two threads")
    figure.savefig(path, dpi=100)
    plt.close(figure)
