"""What makes two images near-duplicates, from the arguments of a verb: a radius, or a minimum number of votes."""

from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames.checks import check_radius
from imgmatch_df.frames.comparison import Comparison
from imgmatch_df.frames.distances import ByDistance
from imgmatch_df.frames.votes import MIN_VOTES, ByVotes
from imgmatch_df.hashes.kinds import KINDS, HashKind, hash_kind
from imgmatch_df.hashes.turns import check_turns
from imgmatch_df.options import shown, whole_number

_LEAST_VOTES, _MOST_VOTES = 2, 64


def check_comparison(
    hash_type: str, radius: object, min_votes: object, turns: object, *, default_radius: int | None = None
) -> Comparison:
    """Return the comparison that the arguments of a verb name.

    Parameters
    ----------
    hash_type, radius, min_votes, turns
        As the verbs take them; None for what a call does not name.
    default_radius
        The radius of a call that names none; None if it must name one.

    Raises
    ------
    ArgumentError
        If a value is not allowed, or the kind has no such argument.
    """
    kind = hash_kind(hash_type)
    if kind.by_votes:
        refuse_radius(kind, radius)
        return check_ranking(kind, min_votes, turns)
    refuse_votes(kind, min_votes)
    radius = default_radius if radius is None else radius
    if radius is None:
        raise ArgumentError(
            f"radius is missing: the maximum distance in bits of {kind.name}\n"
            f"Hint: radius={kind.near_radius} finds edited copies; hash_type='local' has min_votes in its place."
        )
    _, n_bits = check_radius(radius, hash_type)
    return ByDistance(kind, n_bits, turns=check_turns(turns, kind))


def check_ranking(kind: HashKind, min_votes: object, turns: object) -> Comparison:
    """Return the comparison of a ranking, which has no radius; parameters and errors as of `check_comparison`."""
    if kind.by_votes:
        return ByVotes(kind, check_min_votes(min_votes), turns=check_turns(turns, kind))
    refuse_votes(kind, min_votes)
    return ByDistance(kind, kind.n_bits, turns=check_turns(turns, kind))


def check_min_votes(min_votes: object) -> int:
    """Return `min_votes` as an int, the default for None."""
    if min_votes is None:
        return MIN_VOTES
    number = whole_number(min_votes)
    if number is None or not _LEAST_VOTES <= number <= _MOST_VOTES:
        raise ArgumentError(
            f"min_votes must be a whole number from {_LEAST_VOTES} to {_MOST_VOTES}, got {shown(min_votes)}\n"
            f"Hint: {MIN_VOTES} finds edited copies, 11 is strict."
        )
    return number


def refuse_radius(kind: HashKind, radius: object) -> None:
    """Refuse a radius for a kind that is compared by votes."""
    if radius is not None:
        raise ArgumentError(
            f"{kind.name} is compared by votes and has no radius, got {shown(radius)}\n"
            f"Hint: min_votes={MIN_VOTES} in its place."
        )


def refuse_votes(kind: HashKind, min_votes: object) -> None:
    """Refuse a number of votes for a kind that is compared by its distance."""
    if min_votes is not None:
        by_votes = " or ".join(repr(other.name) for other in KINDS.values() if other.by_votes)
        raise ArgumentError(
            f"{kind.name} is compared by its distance and has no min_votes, got {shown(min_votes)}\n"
            f"Hint: min_votes is for hash_type={by_votes}."
        )
