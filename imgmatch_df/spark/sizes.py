"""Sizes of a join in blocks: how many blocks and tasks, and the memory of a task.

Rows are divided into blocks by their hash, and a task compares two blocks, or one with itself: a tile. More blocks need
less memory a task, and more work in all, because each block is read and sorted once for each other one. All is a
function of the number of rows and the kind, so that it needs no data.
"""

from typing import Final

from imgmatch_df.hashes.kinds import HashKind

MAX_BLOCKS: Final = 1 << 14
"""Maximum number of blocks of a join."""

WORKER_BYTES: Final = 340 << 20
"""Memory of a Python worker that has compiled the kernels and holds no rows."""

N_VERSIONS: Final = 4
"""Turns of each hash that a join in all eight turns compares with each other."""

_TASK_BYTES: Final = 1_400_000_000
_TASK_BYTES_OF_VOTES: Final = 2_500_000_000  # a row has 64 points
# 131,328 tasks: more take Spark's driver longer than their work. Beyond it the memory of a task grows.
_MAX_DEFAULT_BLOCKS: Final = 512
# Blocks are smaller than they could be, so that several cores have tasks, but not below these rows: a task takes 50 ms
# before it begins.
_MIN_ROWS: Final = 500_000
_MIN_ROWS_OF_NUMBERS: Final = 2_000_000  # 64 bits are compared faster than Spark sorts them into blocks
_MIN_ROWS_OF_VOTES: Final = 4_000
_MIN_BLOCKS: Final = 8  # of so many rows: 36 tasks


def default_blocks(n_rows: int, kind: HashKind, *, turns: bool = False) -> int:
    """Return the number of blocks of a join that names none.

    It does not depend on the cluster: a call again on another number of cores goes on with the same tasks.

    Parameters
    ----------
    n_rows
        Rows with a hash that is compared.
    kind
        Kind of the hashes.
    turns
        Whether all turns of an image are compared; of kinds that are compared by votes they always may be.
    """
    most = max_rows_per_task(kind, turns=turns)
    least = _MIN_ROWS_OF_VOTES if kind.by_votes else _MIN_ROWS_OF_NUMBERS if kind.is_number else _MIN_ROWS
    for_memory = 1 if n_rows <= most else -(-2 * n_rows // most)
    for_cores = min(_MIN_BLOCKS, n_rows // least)
    return min(max(1, for_memory, for_cores), _MAX_DEFAULT_BLOCKS)


def n_tiles(n_blocks: int) -> int:
    """Return the number of tasks that compare all pairs of blocks, each block also with itself."""
    return n_blocks * (n_blocks + 1) // 2


def max_rows_per_task(kind: HashKind, *, turns: bool = False) -> int:
    """Return the number of rows, of both blocks together, with which a task has the memory that it may have."""
    return ((_TASK_BYTES_OF_VOTES if kind.by_votes else _TASK_BYTES) - WORKER_BYTES) // row_bytes(kind, turns=turns)


def task_bytes(n_rows: int, kind: HashKind, n_blocks: int, *, turns: bool = False) -> int:
    """Return the memory of the Python worker of a task, in bytes, pairs not counted."""
    return WORKER_BYTES + row_bytes(kind, turns=turns) * rows_per_task(n_rows, n_blocks)


def rows_per_task(n_rows: int, n_blocks: int) -> int:
    """Return the number of rows of both blocks of a task."""
    return n_rows if n_blocks == 1 else -(-2 * n_rows // n_blocks)


def row_bytes(kind: HashKind, *, turns: bool = False) -> int:
    """Return the memory of one row in a task, in bytes: read, sorted by bands and compared.

    Measured with one thread by ``benchmarks/spark_tiles.py``.
    """
    if kind.by_votes:
        return 27_000  # 64 points in eight turns
    return (84 + 24 * n_words(kind)) * (N_VERSIONS if turns else 1)


def n_words(kind: HashKind) -> int:
    """Return the number of 64-bit words of a hash."""
    return -(-kind.n_bytes // 8)


def bytes_read(n_rows: int, kind: HashKind, n_blocks: int) -> int:
    """Return the bytes that all tasks together read, before compression: each block is read for each other one.

    A worker keeps the blocks of its last task, so that it is less if the next task has one of them.
    """
    return n_blocks * n_rows * (kind.n_bytes + 16)


def stored_bytes(n_rows: int, kind: HashKind) -> int:
    """Return the bytes of the blocks in the work folder before compression, with names of rows of 16 bytes."""
    return n_rows * (kind.n_bytes + 32)
