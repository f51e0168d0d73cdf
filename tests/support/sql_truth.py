"""Hashes with known distances, and what SQL must give for them: the results of the Python verbs."""

import numpy as np
import polars as pl

import imgmatch_df
from imgmatch_df.hashes.kinds import KINDS


def packed(rows, hash_type):
    """Return hashes as a column: rows uint8 (n, bytes)."""
    if hash_type == "phash":
        return pl.Series(hash_type, rows.view(">u8").astype(np.uint64).ravel(), dtype=pl.UInt64)
    return pl.Series(hash_type, [row.tobytes() for row in rows], dtype=pl.Binary)


def flipped(row, bits):
    bits = np.asarray(bits, dtype=np.int64)
    row = row.copy()
    np.bitwise_xor.at(row, bits // 8, (128 >> bits % 8).astype(np.uint8))
    return row


def planted(hash_type, seed=0, n=60):
    """Return random hashes and, of some, copies with 0 to 20 bits flipped, chains of them, and equal ones; shuffled."""
    rng = np.random.default_rng(seed)
    kind = KINDS[hash_type]
    n_bits = kind.n_bits
    bits = rng.integers(0, 2, (n, kind.n_chars), dtype=np.uint8)
    bits[:, n_bits:] = 0
    rows = list(np.packbits(bits, axis=1))
    for i in range(n):
        rows.append(flipped(rows[i], rng.permutation(n_bits)[: i % 21]))
    for _ in range(12):
        rows.append(flipped(rows[-1], rng.integers(0, n_bits, 1)))
    rows += [rows[0]] * 5 + [rows[n + 3]] * 3
    column = packed(np.array(rows)[rng.permutation(len(rows))], hash_type)
    return column.scatter(np.arange(0, len(column), 17), None)


def degenerate(hash_type):
    kind = KINDS[hash_type]
    zero = np.zeros(kind.n_bytes, np.uint8)
    columns = {
        "no rows": packed(np.empty((0, kind.n_bytes), np.uint8), hash_type),
        "one row": packed(zero[None], hash_type),
        "all zero": packed(np.array([zero] * 40), hash_type),
        "all one": packed(np.array([~zero] * 9), hash_type),
        "one bit apart": packed(np.array([flipped(zero, [bit]) for bit in range(64)]), hash_type),
        "ends": packed(np.array([zero, ~zero, flipped(zero, [0]), flipped(zero, [kind.n_bits - 1])]), hash_type),
        "a staircase": packed(np.array([flipped(zero, range(k)) for k in range(0, 64, 3)][::-1]), hash_type),
        "nulls": pl.Series(hash_type, [None] * 4, dtype=kind.dtype),
    }
    columns["nulls and zeros"] = pl.concat([columns["nulls"], columns["all zero"][:3], columns["nulls"][:1]])
    return columns


def described(column):
    """Return a frame as it is stored: a key, some columns around the hash."""
    n = len(column)
    return pl.DataFrame(
        {
            "source": [f"photos/{n - i:05}.jpg" for i in range(n)],
            "width": pl.Series(range(n), dtype=pl.UInt32),
            column.name: column,
            "status": ["ok" if value is not None else "decode_failed" for value in column],
        },
        schema_overrides={"source": pl.String, "status": pl.String},
    )


def expected_copies(frame, radius, hash_type, id="source", flat="identical"):
    """Return what `copies` gives, from the clusters of the verb, in Python."""
    clustered = imgmatch_df.cluster(frame, radius, hash_type, id=id, flat=flat)
    keys = clustered[id].to_list() if id else range(len(clustered))
    clusters = {}
    for key, row in zip(keys, clustered.iter_rows(named=True), strict=True):
        clusters.setdefault(row["cluster_id"], []).append((key, row["distance"], row.get("size")))
    rows = []
    for (kept, _, _), *others in clusters.values():
        if others:
            sizes = [size for _, _, size in others if size is not None]
            farthest = max(distance for _, distance, _ in others)
            rows.append((kept, len(others), farthest, sum(sizes) if sizes else None, [key for key, _, _ in others]))
    return sorted(rows, key=lambda row: -row[1])


def expected_matches(frame, reference, radius, hash_type, **options):
    """Return the rows of `match`, nearest first for each row of the queries."""
    options = {"id": "source", "reference_id": "source", **options}
    by_row = {**options, "id": None, "reference_id": None}
    pairs = imgmatch_df.match(frame, reference, radius, hash_type, **options)
    order = imgmatch_df.match(frame, reference, radius, hash_type, **by_row).with_row_index("at")
    return pairs[order.sort("query_id", "distance", "reference_id")["at"]]
