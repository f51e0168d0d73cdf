"""The verbs in eight turns find the pairs of a comparison of every turn with every hash, in each engine."""

import numpy as np
import polars as pl
import pytest
import reference
from polars.testing import assert_frame_equal

import imgmatch_df
from imgmatch_df.columns import TURN_DTYPE, TURNS
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import hash_kind
from imgmatch_df.hashes.turns import turned_bits
from imgmatch_df.matching.turned import turn_words

RADII = {"bmh1": 24, "imagehash_ahash": 3}


@pytest.fixture(params=RADII)
def case(request):
    """Return a frame with turned copies, equal hashes, a hash of its own mirror and nulls; its kind and the radius."""
    kind = hash_kind(request.param)
    rng = np.random.default_rng(11)
    words = np.zeros((46, -(-kind.n_bytes // 8)), np.uint64)
    raw, bits = words.view(np.uint8)[:, : kind.n_bytes], turned_bits(kind)
    raw[:] = rng.integers(0, 256, raw.shape)
    if kind.n_bits % 8:
        raw[:, -1] &= 1
    for row in range(16, 46):
        words[row] = turn_words(words[rng.integers(0, row)][None], bits, int(rng.integers(0, 8)))
        raw[row, rng.integers(0, kind.n_bytes - 1)] ^= 1
    words[0] &= turn_words(words[:1], bits, TURNS.index("mirrored"))[0]
    rows = [np.ascontiguousarray(row) for row in raw]
    values = [int.from_bytes(row.tobytes(), "big") if kind.is_number else row.tobytes() for row in rows]
    column = pl.Series(kind.name, [None, *values, None, values[7]], dtype=kind.dtype)
    frame = pl.DataFrame([column]).with_columns(name=pl.int_range(pl.len()).cast(pl.String))
    return frame, kind, RADII[kind.name]


def distances(frame, kind, other=None):
    """Return the distances of the nearest turn and the turns, and the rows that have hashes, of both sides."""
    sides = [frame, frame if other is None else other]
    rows = [np.flatnonzero(side[kind.name].is_not_null().to_numpy()) for side in sides]
    left, right = (codec.hash_words(side[kind.name].drop_nulls(), kind) for side in sides)
    turned = [turn_words(left, turned_bits(kind), number) for number in range(8)]
    return *reference.turned_distances(turned, right), *rows


def same_in_both_engines(frame, verb):
    """Return what a verb makes of a frame, after it made the same of a lazy one, whole and in chunks."""
    eager = verb(frame)
    chunks = pl.concat([frame[:17], frame[17:]], rechunk=False)
    for made in (verb(frame.lazy()).collect(), verb(chunks.lazy()).collect(engine="streaming"), verb(chunks)):
        assert_frame_equal(made, eager)
    assert_frame_equal(verb(frame.lazy()).head(0).collect(), eager.head(0))
    return eager


def test_near_duplicates(case):
    frame, kind, radius = case
    distance, turn, rows, _ = distances(frame, kind)
    found = same_in_both_engines(frame, lambda one: one.imgmatch.near_duplicates(radius, kind.name, turns=True))
    expected = [
        (int(rows[i]), int(rows[j]), int(distance[i, j]), TURNS[turn[i, j]])
        for i in range(len(rows))
        for j in range(i + 1, len(rows))
        if distance[i, j] <= radius
    ]
    assert found.rows() == expected
    assert found.schema["turn"] == TURN_DTYPE
    assert len(set(found["turn"])) > 5
    assert_frame_equal(imgmatch_df.near_duplicates(frame, radius, kind.name, turns=True), found)
    without = frame.imgmatch.near_duplicates(radius, kind.name)
    assert_frame_equal(without, found.filter(turn="none").drop("turn").join(without, on=without.columns, how="semi"))


def test_match(case):
    frame, kind, radius = case
    new, old = frame[:25], frame[25:]
    distance, turn, left, right = distances(new, kind, old)
    found = same_in_both_engines(
        new, lambda one: one.imgmatch.match(old, radius, kind.name, id="name", reference_id="name", turns=True)
    )
    assert found.rows() == [
        (new["name"][int(left[i])], old["name"][int(right[j])], int(distance[i, j]), TURNS[turn[i, j]])
        for i, j in np.argwhere(distance <= radius)
    ]


@pytest.mark.parametrize("linkage", ["connected", "star"])
def test_cluster_and_remove_duplicates(case, linkage):
    frame, kind, radius = case
    distance, _, rows, _ = distances(frame, kind)
    found = same_in_both_engines(
        frame,
        lambda one: one.imgmatch.cluster(radius, kind.name, linkage=linkage, diameter=True, turns=True),
    )
    labels = list(range(frame.height))
    if linkage == "connected":
        for row, root in enumerate(reference.components(len(rows), np.argwhere(distance <= radius).tolist())):
            labels[rows[row]] = int(rows[root])
    else:
        centers = []
        for row in range(len(rows)):
            near = [center for center in centers if distance[row, center] <= radius]
            centers += [] if near else [row]
            labels[rows[row]] = int(rows[near[0] if near else row])
    assert found["representative_id"].to_list() == labels
    place = {int(row): number for number, row in enumerate(rows)}
    to_kept = [distance[place[row], place[label]] if row in place else None for row, label in enumerate(labels)]
    assert found["distance"].to_list() == to_kept
    for label in set(labels) & place.keys():
        members = [place[row] for row in range(frame.height) if labels[row] == label]
        widest = int(distance[np.ix_(members, members)].max())
        assert set(found.filter(representative_id=label)["diameter"]) == {widest}
    kept = same_in_both_engines(
        frame, lambda one: one.imgmatch.remove_duplicates(radius, kind.name, linkage=linkage, turns=True)
    )
    assert kept["name"].to_list() == frame["name"].gather(sorted(set(labels))).to_list()
    assert kept.height + kept["removed_records"].list.len().sum() == frame.height


def test_cluster_with_a_reference(case):
    frame, kind, radius = case
    new, old = frame[:25], frame[25:]
    distance, _, left, right = distances(new, kind, old)
    nearest = {
        new["name"][int(left[i])]: (old["name"][int(right[int(one.argmin())])], int(one.min()))
        for i, one in enumerate(distance)
        if one.min() <= radius
    }
    found = same_in_both_engines(
        new,
        lambda one: one.imgmatch.cluster(radius, kind.name, reference=old, reference_id="name", turns=True),
    )
    matched = found.filter(pl.col("reference_id").is_not_null())
    assert {row["name"]: (row["reference_id"], row["distance"]) for row in matched.to_dicts()} == nearest
    kept = new.imgmatch.remove_duplicates(radius, kind.name, reference=old, turns=True)
    assert not set(kept["name"]) & set(nearest)


def test_rank_images(case):
    frame, kind, _ = case
    distance, turn, rows, _ = distances(frame, kind)
    order = np.argsort(distance[3], kind="stable")
    query = frame[kind.name][int(rows[3])]
    found = same_in_both_engines(frame, lambda one: one.imgmatch.rank_images(query, kind.name, turns=True))
    assert found.columns[:3] == ["rank", "distance", "turn"]
    ranked = found.head(len(rows)).select("distance", "turn", "name").rows()
    assert ranked == [(int(distance[3, i]), TURNS[turn[3, i]], frame["name"][int(rows[i])]) for i in order]
    assert found.tail(2).select("rank", "distance", "turn").rows() == [(None, None, None)] * 2
    few = frame.imgmatch.rank_images(query, kind.name, k=5, prefix="q_", turns=True)
    assert few["q_turn"].to_list() == found["turn"].head(5).to_list()


def test_a_frame_without_hashes_has_no_pairs():
    frame = pl.DataFrame({"bmh1": [None, None]}, schema={"bmh1": pl.Binary})
    assert frame.imgmatch.near_duplicates(24, turns=True).schema["turn"] == TURN_DTYPE
    assert frame.imgmatch.cluster(24, turns=True)["kept"].to_list() == [True, True]
    assert frame.imgmatch.rank_images(bytes(121), "bmh1", turns=True)["turn"].to_list() == [None, None]


@pytest.mark.parametrize("verb", ["near_duplicates", "match", "cluster", "remove_duplicates", "rank_images"])
def test_a_kind_without_turns_is_refused_before_the_query_runs(verb):
    frame = pl.LazyFrame({"phash": [1, 2]}, schema={"phash": pl.UInt64})
    arguments = {"match": (frame, 1), "rank_images": (1,)}.get(verb, (1,))
    with pytest.raises(ArgumentError, match="the bits of phash do not give the hash of a turned image"):
        getattr(frame.imgmatch, verb)(*arguments, "phash", turns=True)
    with pytest.raises(ArgumentError, match="turns must be True or False, got 'yes'"):
        getattr(frame.imgmatch, verb)(*arguments, "phash", turns="yes")


def test_a_column_named_turn_is_not_overwritten():
    frame = pl.DataFrame({"bmh1": [bytes(121)], "turn": ["left"]})
    with pytest.raises(ColumnError, match="already has a column 'turn'"):
        frame.imgmatch.rank_images(bytes(121), "bmh1", turns=True)
    assert frame.imgmatch.rank_images(bytes(121), "bmh1")["turn"].to_list() == ["left"]
