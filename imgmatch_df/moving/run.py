"""Runs that move files and runs that undo them. Each finishes or takes back what a killed run left behind."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import Final, NamedTuple, TypeAlias

from imgmatch_df.atomic import sync_folder
from imgmatch_df.errors import ArgumentError
from imgmatch_df.moving.files import HeldError, is_link_to, make_link, relocate, settle
from imgmatch_df.moving.journal import (
    Journal,
    Link,
    Move,
    MoveOutcome,
    journals_in,
    read_journal,
    remove_partial,
    write_journal,
)
from imgmatch_df.moving.planning import MovePlan, shown_path
from imgmatch_df.store.locks import sole_writer

# Makes the plan of the paths that earlier runs have moved.
MakePlan: TypeAlias = Callable[[set[str]], MovePlan]
OnMoved: TypeAlias = Callable[[int, int], None] | None

# Some file systems store times in steps of two seconds.
_TIME_STEP_NS: Final = 2_000_000_000
# A move and its undoing have different temporary names.
_BACK: Final = "-back"
_LOCKED: Final = "moves"


class Done(NamedTuple):
    """The result of a run.

    Parameters
    ----------
    moves
        The moves that were made or undone; those that would be, of a dry run.
    failed
        For each other file its path and the reason, in one line.
    n_before
        Files that an earlier run has moved.
    journal
        Path of the journal; None if there is none.
    """

    moves: list[Move]
    failed: list[str]
    n_before: int = 0
    journal: Path | None = None

    @property
    def n_bytes(self) -> int:
        """Size of the files, in bytes."""
        return sum(move.size for move in self.moves)


def preview_moves(make_plan: MakePlan, folder: Path) -> Done:
    """Return what `run_moves` would do, and change nothing."""
    before = set[str]()
    for path in journals_in(folder):
        journal = read_journal(path)
        before |= _moved_from(journal)
    plan = make_plan(before)
    return Done(plan.moves, plan.refused, plan.n_before)


def run_moves(make_plan: MakePlan, folder: Path, *, link: Link | None = None, progress: OnMoved = None) -> Done:
    """Move the files of a plan into `folder`, where a journal is written before the first of them is moved.

    Parameters
    ----------
    make_plan
        Returns the plan. Its argument is the absolute paths of the files that earlier runs have moved into `folder`.
    folder
        The folder; it is made if there are files to move.
    link
        Kind of the links to the kept files that are made at the old places.
    progress
        Called with the number of done moves and of all.

    Raises
    ------
    ArgumentError
        If files cannot be written into `folder`.
    StoreError
        If another process moves files into `folder`.
    """
    is_new = not folder.exists()
    with _writing_into(folder):
        folder.mkdir(exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    done = Done([], [])
    try:
        with sole_writer(folder / _LOCKED):
            remove_partial(folder)
            failed, before = list[str](), set[str]()
            for path in journals_in(folder):
                journal = read_journal(path)
                failed += _settle(journal)
                before |= _moved_from(journal)
            plan = make_plan(before)
            done = Done([], [*failed, *plan.refused], plan.n_before)
            if plan.moves:
                with _writing_into(folder):
                    journal = write_journal(folder, plan.moves, link, plan.made)
                done = done._replace(journal=journal.path)
                _move_all(journal, done, progress)
    finally:
        if is_new and done.journal is None:
            with suppress(OSError):  # not empty
                folder.rmdir()
    return done


def undo_moves(path: Path, *, is_dry: bool = False, progress: OnMoved = None) -> Done:
    """Move the files of a journal back to their old places. A file that has changed since is not moved.

    Parameters
    ----------
    path
        Path of the journal.
    is_dry
        Whether to change nothing, and only return what would be moved back.
    progress
        Called with the number of done moves and of all.

    Raises
    ------
    ArgumentError
        If `path` is not a journal.
    StoreError
        If another process moves files into or out of its folder.
    """
    if is_dry:
        journal = read_journal(path)
        moves, failed = list[Move](), _damage(journal)
        for move in journal.moves:
            if _outcome(journal, move) == "moved":
                if (reason := _hindrance(journal, move)) is None:
                    moves.append(move)
                else:
                    failed.append(f"{shown_path(move.target)}: {reason}")
        return Done(moves, failed, journal=path)
    read_journal(path)  # before the lock, which writes into the folder
    with sole_writer(path.parent / _LOCKED):
        remove_partial(path.parent)
        journal = read_journal(path)
        done = Done([], [*_settle(journal), *_damage(journal)], journal=path)
        moved = [move for move in journal.moves if journal.outcomes.get(move.number) == "moved"]
        with journal.opened():
            for n_done, move in enumerate(moved, 1):
                try:
                    _undo(journal, move)
                except OSError as error:
                    done.failed.append(_failure(move.target, move.source, error))
                else:
                    journal.note(move, "undone")
                    done.moves.append(move)
                if progress is not None:
                    progress(n_done, len(moved))
            _sync(done.moves)
        for folder in reversed(journal.made):
            with suppress(OSError):  # not empty
                (path.parent / folder).rmdir()
    return done


def _move_all(journal: Journal, done: Done, progress: OnMoved) -> None:
    with journal.opened():
        for n_done, move in enumerate(journal.moves, 1):
            try:
                relocate(move.source, move.target, journal.tag(move), partial(_is_planned, move))
                _link(journal, move)
            except OSError as error:
                done.failed.append(_failure(move.source, move.target, error))
                if os.path.lexists(move.source) and not isinstance(error, HeldError):
                    journal.note(move, "not_moved")  # otherwise the next run looks for the file
            else:
                journal.note(move, "moved")
                done.moves.append(move)
            if progress is not None:
                progress(n_done, len(journal.moves))
        _sync(done.moves)


def _link(journal: Journal, move: Move) -> None:
    """Make the link at the old place of a moved file, or move the file back."""
    if journal.link is None or move.kept is None:
        return
    try:
        make_link(journal.link, move.kept, move.source)
    except OSError:
        _relocate_back(journal, move)
        raise


def _undo(journal: Journal, move: Move) -> None:
    if (reason := _hindrance(journal, move)) is not None:
        raise OSError(0, reason)
    had_link = os.path.lexists(move.source)
    if had_link:
        os.unlink(move.source)  # `_hindrance` has checked that it is the link
    try:
        _relocate_back(journal, move)
    except OSError:
        if had_link and journal.link is not None and move.kept is not None:
            make_link(journal.link, move.kept, move.source)
        raise


def _relocate_back(journal: Journal, move: Move) -> None:
    relocate(move.target, move.source, journal.tag(move) + _BACK, partial(_is_moved, move))
    found = os.stat(move.source)
    if found.st_mtime_ns != move.mtime_ns:
        os.utime(move.source, ns=(found.st_atime_ns, move.mtime_ns))


def _hindrance(journal: Journal, move: Move) -> str | None:
    """Return why a moved file cannot be moved back, None if it can."""
    if not os.path.lexists(move.target):
        return "it is not there any more"
    if not _is_moved(move, os.lstat(move.target)):
        return "it has changed since it was moved"
    return None if _is_free(journal, move) else "there is a file at its old place"


def _settle(journal: Journal) -> list[str]:
    """Finish or take back the moves that a killed run left half done; return the files that need a person.

    The state on the disk becomes the outcome of moves that have none.
    """
    failed, found = list[str](), list[tuple[Move, MoveOutcome]]()
    for move in journal.moves:
        if journal.outcomes.get(move.number, "moved") != "moved":
            continue
        tag = journal.tag(move)
        try:
            settle(move.source, move.target, tag)
            settle(move.target, move.source, tag + _BACK)
            outcome = _outcome(journal, move)
            if outcome == "moved" and move.number not in journal.outcomes and not os.path.lexists(move.source):
                _link(journal, move)
        except OSError as error:
            failed.append(f"{shown_path(move.source)}: an interrupted move cannot be finished: {error.strerror}")
        else:
            if outcome != journal.outcomes.get(move.number):
                found.append((move, outcome))
    if found:
        with journal.opened():
            for move, outcome in found:
                journal.note(move, outcome)
    return failed


def _moved_from(journal: Journal) -> set[str]:
    """Return the absolute old places of the moved files, except those where there is another file now."""
    moved = (move for move in journal.moves if _outcome(journal, move) == "moved" and _is_free(journal, move))
    return {os.path.abspath(move.source) for move in moved}


def _outcome(journal: Journal, move: Move) -> MoveOutcome:
    """Return the outcome of a move, from the disk where a run may have been killed before it was noted."""
    noted = journal.outcomes.get(move.number)
    if noted is None:
        is_there = os.path.lexists(move.target) and _is_moved(move, os.lstat(move.target))
        return "moved" if is_there and _is_free(journal, move) else "not_moved"
    if noted == "moved" and not os.path.lexists(move.target) and not _is_free(journal, move):
        return "undone"
    return noted


def _is_free(journal: Journal, move: Move) -> bool:
    """Return whether there is no file at the old place, or only the link that the run has made."""
    if not os.path.lexists(move.source):
        return True
    return journal.link is not None and move.kept is not None and is_link_to(journal.link, move.kept, move.source)


def _is_planned(move: Move, found: os.stat_result) -> bool:
    return S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == (move.size, move.mtime_ns)


def _is_moved(move: Move, found: os.stat_result) -> bool:
    is_near = abs(found.st_mtime_ns - move.mtime_ns) <= _TIME_STEP_NS
    return S_ISREG(found.st_mode) and found.st_size == move.size and is_near


def _failure(path: str, target: str, error: OSError) -> str:
    return f"{shown_path(path)}: cannot become {shown_path(target)}: {error.strerror}"


def _damage(journal: Journal) -> list[str]:
    is_cut = f"{journal.path}: lines are missing, and the files that they name stay where they are"
    return [is_cut] * journal.is_cut


def _sync(moves: list[Move]) -> None:
    for folder in {os.path.dirname(path) for move in moves for path in (move.source, move.target)}:
        sync_folder(Path(folder))


@contextmanager
def _writing_into(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArgumentError(
            f"cannot write into {str(folder)!r}: {error.strerror}\nHint: choose another folder."
        ) from error
