"""Plans of moves: which removed files can be moved without the loss of an image, and why each other file cannot."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from stat import S_ISLNK, S_ISREG
from typing import Final, NamedTuple

import polars as pl

from imgmatch_df.archives.paths import split_path
from imgmatch_df.columns import CLUSTER_ID, KEPT, MODIFIED, PATH, SIZE
from imgmatch_df.errors import ArgumentError, Failure
from imgmatch_df.hashes.kinds import SHA256
from imgmatch_df.moving.files import digest_of
from imgmatch_df.moving.journal import Link, Move
from imgmatch_df.sources import parse_source, path_from_text

_NS_PER_US: Final = 1000


class MovePlan(NamedTuple):
    """The moves of a run.

    Parameters
    ----------
    moves
        Files that can be moved.
    refused
        For each other removed file its path and the reason, in one line.
    n_before
        Files that an earlier run has moved into the same folder.
    made
        Folders of the targets that do not exist, each after its parent.
    """

    moves: list[Move]
    refused: list[str]
    n_before: int
    made: list[str]

    @property
    def n_bytes(self) -> int:
        """Size of the files, in bytes."""
        return sum(move.size for move in self.moves)


class _Decision(NamedTuple):
    """A decision. `path` is None where the source is not a path; times are in microseconds."""

    path: str | None
    text: str
    cluster: str | None
    is_kept: bool
    size: int | None
    modified: int | None
    digest: bytes | None


class _UnmovableError(Exception):
    """The reason why a file is not moved."""


def check_folder(option: str, folder: Path, sources: Iterable[str]) -> None:
    """Refuse a folder that files cannot be moved into.

    Parameters
    ----------
    option
        The option that names the folder, for the message.
    folder
        The folder.
    sources
        Folders, and other sources, in which the next run would find the moved files again.

    Raises
    ------
    ArgumentError
        If it is a file, its parent does not exist, or it is in one of `sources`.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise ArgumentError(f"{option} {str(folder)!r} is not a folder\nHint: name a new folder.")
    if not folder.exists() and not folder.absolute().parent.is_dir():
        raise ArgumentError(f"no such folder: {str(folder.parent)!r}\nHint: make it first.")
    real = Path(os.path.realpath(folder))
    for source in sources:
        if os.path.isdir(source) and real.is_relative_to(os.path.realpath(source)):  # it may be a glob
            raise ArgumentError(
                f"{option} {str(folder)!r} is in the source {source!r}, so the next run would find the files "
                "again\nHint: choose a folder beside it."
            )


def folders_of(decisions: pl.DataFrame, base_dir: str | None = None) -> list[str]:
    """Return the folders of the files in a table of decisions, each once."""
    paths = (path_on_disk(text, base_dir) for text in decisions[PATH].drop_nulls())
    return sorted({os.path.dirname(path) or os.curdir for path in paths if path is not None})


def plan_moves(
    decisions: pl.DataFrame,
    folder: Path,
    *,
    base_dir: str | None = None,
    link: Link | None = None,
    before: Collection[str] = (),
    kept_elsewhere: Collection[str] = (),
) -> MovePlan:
    """Return the moves of the removed files of a table, and the reasons against the others. Nothing is changed.

    Parameters
    ----------
    decisions
        See `decisions.read_decisions`.
    folder
        The folder to move them into, below which they keep their paths from the working directory, or from the root.
    base_dir
        Start of relative paths in the table; None for the working directory.
    link
        Kind of the links to the kept file that are made at the old places.
    before
        Absolute paths of files that earlier runs have moved.
    kept_elsewhere
        Clusters whose kept file exists, although the table does not have it.
    """
    columns = (PATH, CLUSTER_ID, KEPT, SIZE, pl.col(MODIFIED).dt.epoch("us"), SHA256.name)
    values = decisions.select(columns).filter(pl.col(PATH).is_not_null()).iter_rows()
    rows = [_Decision(path_on_disk(text, base_dir), text, *others) for text, *others in values]
    planner = _Planner(rows, folder, link, kept_elsewhere)
    moves, refused, n_before = list[Move](), list[str](), 0
    for row in _distinct(row for row in rows if not row.is_kept):
        if row.path is not None and os.path.abspath(row.path) in before:
            n_before += 1
            continue
        try:
            moves.append(planner.planned(row, len(moves)))
        except _UnmovableError as error:
            refused.append(f"{row.text}: {error}")
    return MovePlan(moves, refused, n_before, _missing_folders(moves, folder))


class _Planner:
    """The facts that decide about each removed file."""

    def __init__(self, rows: list[_Decision], folder: Path, link: Link | None, kept_elsewhere: Collection[str]) -> None:
        self._folder, self._real_folder = folder, os.path.realpath(folder)
        self._link, self._kept_elsewhere = link, kept_elsewhere
        self._targets: set[str] = set()
        self._real_folders: dict[str, str] = {}
        self._kept_ids: set[tuple[int, int]] = set()
        self._kept_paths: set[str] = set()
        self._kept_of: dict[str | None, str] = {}  # the first kept file of each cluster
        self._kept_in_archives: set[str | None] = set()
        removed_from = {row.cluster for row in rows if not row.is_kept}
        for row in rows:
            if not row.is_kept or row.path is None:
                continue
            self._kept_paths.add(os.path.abspath(row.path))
            found = _status(row.path, follow=True)
            if found is None:
                if split_path(row.path) is not None:
                    self._kept_in_archives.add(row.cluster)
                continue
            self._kept_ids.add((found.st_dev, found.st_ino))
            is_wanted = row.cluster is not None and row.cluster in removed_from and row.cluster not in self._kept_of
            if is_wanted and not _objection(row, found):
                self._kept_of[row.cluster] = row.path

    def planned(self, row: _Decision, number: int) -> Move:
        """Return the move of a file.

        Raises
        ------
        _UnmovableError
            If it cannot be moved.
        """
        found = None if row.path is None else _status(row.path, follow=False)
        if row.path is None or found is None:
            in_archive = row.path is not None and split_path(row.path) is not None
            raise _UnmovableError("is in an archive, which is not changed" if in_archive else "is not a file here")
        if S_ISLNK(found.st_mode):
            raise _UnmovableError("is a symbolic link")
        whole = os.path.abspath(row.path)  # without "..", and links as they are
        if whole in self._kept_paths or (found.st_dev, found.st_ino) in self._kept_ids:
            raise _UnmovableError("is also the file of a kept row")
        if objection := _objection(row, found):
            raise _UnmovableError(objection)
        kept = self._kept_of.get(row.cluster)
        if kept is None and (self._link is not None or row.cluster not in self._kept_elsewhere):
            if row.cluster in self._kept_in_archives:
                raise _UnmovableError("the kept image of its cluster is in an archive, not a file here")
            raise _UnmovableError("no kept file of its cluster is here, as it was hashed")
        if kept is not None and self._link == "hard" and os.stat(kept).st_dev != found.st_dev:
            raise _UnmovableError(f"a hard link cannot lead to {kept}, which is in another file system")
        target = self._target(whole)
        return Move(
            number,
            os.path.join(os.getcwd(), row.path),  # ".." may come after a link
            os.path.abspath(target),
            found.st_size,
            found.st_mtime_ns,
            os.path.abspath(kept) if self._link is not None and kept is not None else None,
        )

    def _target(self, whole: str) -> str:
        if self._is_inside(whole):
            raise _UnmovableError(f"is in {self._folder} already")
        target = str(self._folder / path_below(whole))
        if os.path.lexists(target) or target in self._targets:
            raise _UnmovableError(f"cannot become {target}: File exists")
        if not self._is_inside(target):
            raise _UnmovableError(f"cannot become {target}: a link there leads to another folder")
        self._targets.add(target)
        return target

    def _is_inside(self, path: str) -> bool:
        """Return whether a path is in the folder of the targets, after links to folders are followed."""
        parent = os.path.dirname(path)
        if parent not in self._real_folders:
            self._real_folders[parent] = os.path.join(os.path.realpath(parent), "")
        return self._real_folders[parent].startswith(os.path.join(self._real_folder, ""))


def path_below(whole: str) -> Path:
    """Return the path from the working directory, or from the root for a path outside of it."""
    path, start = Path(whole), Path.cwd()
    return path.relative_to(start if path.is_relative_to(start) else path.anchor)


def shown_path(path: str) -> str:
    """Return a path for messages, from the working directory if it is below it."""
    start = os.path.join(os.getcwd(), "")
    return path.removeprefix(start)


def path_on_disk(text: str, base_dir: str | None = None) -> str | None:
    """Return the path that the text in a table names, None for a source that is not a path."""
    found = parse_source(text)
    if isinstance(found, Failure) or found.kind != "path" or not isinstance(found.value, str):
        return None
    path = os.path.join(base_dir or "", found.value)  # half the time of a Path, a million times
    if "\\x" in path and not os.path.lexists(path):
        escaped = os.fsdecode(path_from_text(path))
        return escaped if os.path.lexists(escaped) else path
    return path


def _objection(row: _Decision, found: os.stat_result) -> str | None:
    """Return why a file is not the one that was hashed, None if it is as far as the table says."""
    if not S_ISREG(found.st_mode):
        return "is not a file here"
    has_size = row.size in (None, found.st_size)
    if not has_size or row.modified not in (None, found.st_mtime_ns // _NS_PER_US):
        return "has changed since it was hashed"
    try:
        is_same = row.path is None or row.digest is None or digest_of(row.path) == row.digest
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if is_same else "has other bytes than when it was hashed"


def _distinct(rows: Iterable[_Decision]) -> Iterable[_Decision]:
    """Return the rows with a path that no earlier row has."""
    found = dict[str, _Decision]()
    for row in rows:
        found.setdefault(row.text if row.path is None else os.path.abspath(row.path), row)
    return found.values()


def _missing_folders(moves: Iterable[Move], folder: Path) -> list[str]:
    """Return the folders of targets that do not exist, from `folder`, each after its parent."""
    top, missing = Path(os.path.abspath(folder)), dict[str, None]()
    for parent in {os.path.dirname(move.target): None for move in moves}:
        below = Path(parent).relative_to(top)
        for part in (*reversed(below.parents), below):
            if part.parts and not os.path.lexists(top / part):
                missing[str(part)] = None
    return list(missing)


def _status(path: str, *, follow: bool) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=follow)
    except (OSError, ValueError):
        return None
