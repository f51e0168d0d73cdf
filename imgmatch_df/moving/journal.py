"""The journal of a run that moves files: every planned move, on the disk before the first file is moved.

A journal is a file of JSON lines: a header, one line per planned move, and one line per finished move. A killed run has
no line for the moves that it did not finish; `run.settle_journal` finds their state on the disk.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NamedTuple, TypeAlias, get_args

from imgmatch_df.atomic import written_file
from imgmatch_df.errors import ArgumentError

Link: TypeAlias = Literal["hard", "symbolic"]
MoveOutcome: TypeAlias = Literal["moved", "not_moved", "undone"]

LINKS: Final = get_args(Link)
_FORMAT: Final = "imgmatch moves"
_VERSION: Final = 1
_HEADER: Final = frozenset(("id", "link", "n_moves", "made"))
_NAME: Final = "undo"
_SUFFIX: Final = ".ndjson"
_PARTIAL: Final = f".{_NAME}.partial"


class Move(NamedTuple):
    """A planned move.

    Parameters
    ----------
    number
        Number of the move in its journal, from 0.
    source
        Absolute path of the file before the move.
    target
        Absolute path of the file after the move.
    size
        Its size in bytes.
    mtime_ns
        Its time of modification, in nanoseconds since 1970.
    kept
        Absolute path of the file that a link at `source` leads to after the move; None without links.
    """

    number: int
    source: str
    target: str
    size: int
    mtime_ns: int
    kept: str | None = None


@dataclass(slots=True)
class Journal:
    """The moves of one run.

    Parameters
    ----------
    path
        Path of the journal, in the folder that files are moved into.
    id
        Random text, part of the names of temporary files.
    link
        Kind of the links at the old places; None for none.
    moves
        The planned moves.
    made
        Folders that the run made, below the folder of the journal, each after its parent.
    outcomes
        Last known outcome of each move by its number.
    is_cut
        Whether planned moves are missing.
    ends_whole
        Whether the last line is complete.
    """

    path: Path
    id: str
    link: Link | None
    moves: list[Move]
    made: list[str]
    outcomes: dict[int, MoveOutcome] = field(default_factory=dict)
    is_cut: bool = False
    ends_whole: bool = True
    _file: BinaryIO | None = None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Open the file for `note` within the block, and flush it to the disk at the end."""
        with self.path.open("ab") as file:
            self._file = file
            if not self.ends_whole:
                file.write(b"\n")
            try:
                yield
            finally:
                file.flush()
                os.fsync(file.fileno())
                self._file = None

    def note(self, move: Move, outcome: MoveOutcome) -> None:
        """Append the outcome of a move, without waiting for the disk: a lost line is found out by the next run."""
        assert self._file is not None
        self.outcomes[move.number] = outcome
        self._file.write(_line({"move": move.number, "outcome": outcome}))
        self._file.flush()

    def tag(self, move: Move) -> str:
        """Return the text in the names of the temporary files of a move."""
        return f"{self.id}-{move.number}"


def journals_in(folder: Path) -> list[Path]:
    """Return the paths of the journals in a folder, oldest first."""
    paths = list[Path]()
    while (path := _journal_path(folder, len(paths))).exists():
        paths.append(path)
    return paths


def remove_partial(folder: Path) -> None:
    """Remove the journal that a killed run has not finished, and so has moved no file."""
    (folder / _PARTIAL).unlink(missing_ok=True)


def write_journal(folder: Path, moves: Sequence[Move], link: Link | None, made: Sequence[str]) -> Journal:
    """Write a new journal into `folder`, durably: it appears complete or not at all.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path = _journal_path(folder, len(journals_in(folder)))
    journal = Journal(path, os.urandom(6).hex(), link, list(moves), list(made))
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "id": journal.id,
        "link": link,
        "n_moves": len(moves),
        "made": journal.made,
    }
    with written_file(path, folder / _PARTIAL, replace=False) as file:
        file.write(_line(header))
        for move in moves:
            planned = {**move._asdict(), "target": os.path.relpath(move.target, folder)}
            file.write(_line(planned))
    return journal


def read_journal(path: Path) -> Journal:
    """Return a journal. Lines that are damaged, or cut by a crash, are left out.

    Raises
    ------
    ArgumentError
        If the file is not a journal of this version.
    """
    with path.open("rb") as file:
        header = _record(file.readline())
        lines = file.readlines()
    if (header.get("format"), header.get("version")) != (_FORMAT, _VERSION) or not header.keys() >= _HEADER:
        raise ArgumentError(
            f"{str(path)!r} is not a journal of moves\nHint: it is {_NAME}{_SUFFIX} in the folder of --move-to."
        )
    journal = Journal(path, header["id"], header["link"], [], header["made"])
    folder = os.path.abspath(path.parent)  # links stay as they are
    for line in lines:
        record = _record(line)
        if record.keys() == set(Move._fields):
            journal.moves.append(Move(**{**record, "target": os.path.join(folder, record["target"])}))
        elif record.keys() == {"move", "outcome"}:
            journal.outcomes[record["move"]] = record["outcome"]
    journal.is_cut = len(journal.moves) != header["n_moves"]
    journal.ends_whole = bool(lines) and lines[-1].endswith(b"\n")
    return journal


def _journal_path(folder: Path, n_before: int) -> Path:
    return folder / f"{_NAME}{f'-{n_before + 1}' * bool(n_before)}{_SUFFIX}"


def _line(record: dict[str, Any]) -> bytes:
    # ASCII only: bytes of names that are not UTF-8 are escaped as lone surrogates, and line breaks as \n.
    return json.dumps(record).encode("ascii") + b"\n"


def _record(line: bytes) -> dict[str, Any]:
    """Return the object in a line, empty where the line is damaged."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
