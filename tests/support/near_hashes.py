"""Hashes of which many are near others."""

from typing import Any

import numpy as np

from imgmatch_df.hashes.kinds import HashKind


def near_hashes(kind: HashKind, n_rows: int, rng: np.random.Generator) -> list[Any]:
    """Return hashes of a kind, of which a half is up to 3 bits from others, and 30 are equal."""
    rows = rng.integers(0, 256, (n_rows, kind.n_bytes), dtype=np.uint8)
    rows[:, -1] = 0
    half = n_rows // 2
    rows[half:] = rows[rng.integers(0, half, n_rows - half)]
    for _ in range(3):
        flipped = 1 << rng.integers(0, 8, n_rows - half)
        rows[np.arange(half, n_rows), rng.integers(0, kind.n_bytes - 1, n_rows - half)] ^= flipped.astype(np.uint8)
    rows[100:130] = rows[100]
    return [int.from_bytes(row.tobytes(), "big") if kind.is_number else row.tobytes() for row in rows]
