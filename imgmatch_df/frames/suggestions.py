"""Suggestions of a radius or of a minimum number of votes, read from the profiles of `profile_radii`."""

from dataclasses import dataclass
from typing import Final

import polars as pl

from imgmatch_df.columns import (
    EXACT,
    FEWEST_VOTES,
    N_CLUSTERS,
    N_PAIRS,
    N_UNRELATED,
    RADIUS_BITS,
    UNRELATED_SHARE,
)
from imgmatch_df.hashes.kinds import HashKind

MAX_SHARE: Final = 0.01
MOST_VOTES: Final = 64  # of two images


@dataclass(frozen=True, slots=True)
class RadiusSuggestion:
    """A radius for a frame, from `suggest_radius`.

    Parameters
    ----------
    radius
        In bits. 0 where no copies are seen, or no radius keeps unrelated images to the share that is allowed.
    reason
        Why, in one sentence.
    copies_seen
        Whether there are more near pairs than unrelated images give.
    """

    radius: int
    reason: str
    copies_seen: bool


@dataclass(frozen=True, slots=True)
class VotesSuggestion:
    """A minimum number of votes for a frame, from `suggest_min_votes`.

    Parameters
    ----------
    min_votes
        The minimum number of votes. 64, the most that two images can have, where no copies are seen, or no number keeps
        unrelated images to the share that is allowed.
    reason
        Why, in one sentence.
    copies_seen
        Whether there are more pairs with many votes than unrelated images give.
    """

    min_votes: int
    reason: str
    copies_seen: bool


def suggestion_of(
    profile: pl.DataFrame, kind: HashKind, max_share: float = MAX_SHARE
) -> RadiusSuggestion | VotesSuggestion:
    """Return the suggestion that a result of `profile_radii` gives."""
    return votes_of(profile, max_share) if kind.by_votes else radius_of(profile, kind, max_share)


def radius_of(profile: pl.DataFrame, kind: HashKind, max_share: float) -> RadiusSuggestion:
    """Return the suggestion that the profile of a kind with distances gives."""
    joined = profile.filter(EXACT)
    last = joined.row(-1, named=True)
    stop = (
        ""
        if joined.height == profile.height
        else f"; radii above {_bits(last[RADIUS_BITS])} have too many pairs to join"
    )
    if joined[N_UNRELATED].null_count() and last[N_PAIRS] == 0:
        return RadiusSuggestion(0, f"no copies seen: no two images are within {_bits(last[RADIUS_BITS])}{stop}", False)
    if joined[N_UNRELATED].null_count():
        radius = min(kind.near_radius, last[RADIUS_BITS])
        n_pairs = joined[N_PAIRS][radius]
        reason = (
            f"too few different hashes for an estimate: {_bits(radius)} is the advised radius of {kind.name}, and "
            f"finds {_counted(n_pairs, 'pair')}{stop}"
        )
        return RadiusSuggestion(radius, reason, n_pairs > 0)
    fitting = joined.filter(pl.col(N_PAIRS) > 0, pl.col(N_UNRELATED) <= max_share * pl.col(N_PAIRS))
    if fitting.height:
        found = fitting.row(-1, named=True)
        reason = (
            f"a radius of {_bits(found[RADIUS_BITS])} joins {_counted(found[N_CLUSTERS], 'cluster')}; about "
            f"{_percent(found[UNRELATED_SHARE])} of its {_counted(found[N_PAIRS], 'pair')} are of unrelated images"
            f"{stop}"
        )
        return RadiusSuggestion(found[RADIUS_BITS], reason, True)
    beyond = joined.filter(_is_beyond_chance())
    if beyond.height:
        found = beyond.sort(UNRELATED_SHARE, RADIUS_BITS).row(0, named=True)
        reason = (
            f"copies are seen, but no radius keeps pairs of unrelated images to {_percent(max_share)}: the least is "
            f"about {_percent(found[UNRELATED_SHARE])} of {_counted(found[N_PAIRS], 'pair')}, within "
            f"{_bits(found[RADIUS_BITS])}{stop}"
        )
        return RadiusSuggestion(0, reason, True)
    reason = (
        f"no copies seen: {_counted(last[N_PAIRS], 'pair')} within {_bits(last[RADIUS_BITS])}, and unrelated images "
        f"alone would give about as many{stop}"
    )
    return RadiusSuggestion(0, reason, False)


def votes_of(profile: pl.DataFrame, max_share: float) -> VotesSuggestion:
    """Return the suggestion that the profile of a kind compared by votes gives."""
    fitting = profile.filter(pl.col(N_PAIRS) > 0, pl.col(N_UNRELATED) <= max_share * pl.col(N_PAIRS))
    if fitting.height:
        found = fitting.row(-1, named=True)
        reason = (
            f"a minimum of {_counted(found[FEWEST_VOTES], 'vote')} joins {_counted(found[N_PAIRS], 'pair')}; about "
            f"{_percent(found[UNRELATED_SHARE])} of them are of unrelated images"
        )
        return VotesSuggestion(found[FEWEST_VOTES], reason, True)
    last = profile.row(-1, named=True)
    beyond = profile.filter(_is_beyond_chance())
    if beyond.height:
        found = beyond.sort(UNRELATED_SHARE, FEWEST_VOTES).row(0, named=True)
        reason = (
            f"copies are seen, but no number of votes keeps pairs of unrelated images to {_percent(max_share)}: the "
            f"least is about {_percent(found[UNRELATED_SHARE])} of {_counted(found[N_PAIRS], 'pair')}, with "
            f"{_counted(found[FEWEST_VOTES], 'vote')}"
        )
        return VotesSuggestion(MOST_VOTES, reason, True)
    reason = f"no copies seen: {_counted(last[N_PAIRS], 'pair')} with {_counted(last[FEWEST_VOTES], 'vote')} or more"
    if last[N_PAIRS]:
        reason += ", and unrelated images alone would give about as many"
    return VotesSuggestion(MOST_VOTES, reason, False)


def _is_beyond_chance() -> pl.Expr:
    """Three times as many pairs as expected, and three more, are no chance."""
    return pl.col(N_PAIRS) >= 3 * pl.col(N_UNRELATED) + 3


def _bits(radius: int) -> str:
    return f"{radius:,} bit{'s' * (radius != 1)}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 else "0 %"
