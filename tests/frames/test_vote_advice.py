"""Advice on the number of votes: counts of the verbs, the estimate against known truth, and the suggestion."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from test_votes import PICTURES, png, scene, soft

import imgmatch_df
from imgmatch_df.frames.vote_advice import VOTE_FIELDS

pytestmark = pytest.mark.long

SAME = ["min_votes", "n_pairs", "n_unrelated", "unrelated_share"]  # in any order of the rows


@pytest.fixture(scope="module")
def hashed():
    """Return the hashes of pictures with copies, repeated rows and a row without points."""
    pictures = [picture for picture in PICTURES.values() if picture is not None]
    images = [*map(png, pictures), png(scene(7)), png(scene(7)), png(scene(1)), None]
    return pl.DataFrame({"image": images}, schema={"image": pl.Binary}).imgmatch.visual_hash(
        "image", hash_types=("local",)
    )


def test_counts_are_those_of_the_verbs(hashed):
    profile = hashed.imgmatch.profile_radii("local", min_votes=3)
    assert profile["min_votes"].to_list() == list(range(64, 2, -1))
    for row in profile.iter_rows(named=True):
        votes = row["min_votes"]
        assert row["n_pairs"] == hashed.imgmatch.near_duplicates(hash_type="local", min_votes=votes).height
        clusters = hashed.imgmatch.cluster(hash_type="local", min_votes=votes).filter(pl.col("local").is_not_null())
        sizes = clusters["cluster_id"].value_counts()["count"]
        shared = sizes.filter(sizes > 1)
        expected = (len(shared), shared.sum() - len(shared), sizes.max())
        assert (row["n_clusters"], row["n_removed"], row["n_largest"]) == expected


def test_any_order_and_engine(hashed):
    profile = hashed.imgmatch.profile_radii("local")
    assert profile.schema == pl.Schema(VOTE_FIELDS)
    shuffled = hashed.sample(fraction=1, shuffle=True, seed=2)
    assert_frame_equal(shuffled.imgmatch.profile_radii("local").select(SAME), profile.select(SAME), check_exact=True)
    assert shuffled.imgmatch.suggest_min_votes() == hashed.imgmatch.suggest_min_votes()
    lazy = hashed.lazy().imgmatch.profile_radii("local")
    assert lazy.collect_schema() == pl.Schema(VOTE_FIELDS)
    assert_frame_equal(lazy.collect(engine="streaming"), profile, check_exact=True)
    assert hashed.lazy().imgmatch.suggest_min_votes() == hashed.imgmatch.suggest_min_votes()


def test_copies_are_suggested(hashed):
    found = hashed.imgmatch.suggest_min_votes()
    assert found.copies_seen
    assert 5 <= found.min_votes <= 11
    assert found.reason.startswith(f"a minimum of {found.min_votes} votes joins")
    few = hashed.imgmatch.suggest_min_votes(max_share=1e-5)
    assert few.min_votes > found.min_votes


def test_images_are_hashed_first():
    frame = pl.DataFrame({"image": [png(PICTURES["first"]), png(PICTURES["cropped"])]})
    assert frame.imgmatch.profile_radii("local", source="image")["n_pairs"][-1] == 1


def test_no_copies():
    frame = pl.DataFrame({"image": [png(scene(seed)) for seed in range(30, 42)]})
    found = imgmatch_df.suggest_min_votes(frame, source="image")
    assert (found.min_votes, found.copies_seen) == (64, False)
    assert found.reason == "no copies seen: 0 pairs with 5 votes or more"


@pytest.mark.parametrize("height", [0, 1, 2])
def test_tiny_frames(hashed, height):
    for frame in (hashed.head(height), hashed.tail(1).head(height)):
        profile = frame.imgmatch.profile_radii("local")
        assert profile.height == 60
        assert profile["n_pairs"].sum() == profile["n_removed"].sum() == 0


def test_the_estimate_counts_pairs_of_unrelated_images():
    """Pictures of few corners agree on places more often than photos do."""
    frame = pl.DataFrame({"image": [png(soft(seed)) for seed in range(150)]})
    profile = frame.imgmatch.profile_radii("local", source="image", min_votes=2)
    n_pairs, n_unrelated = (profile[name].to_numpy() for name in ("n_pairs", "n_unrelated"))
    assert n_pairs[profile["min_votes"].to_numpy() == 4] > 0
    assert (n_unrelated <= n_pairs).all()
    shown = profile["min_votes"].to_numpy() >= 5
    assert (np.maximum(n_unrelated, 3)[shown] >= n_pairs[shown] / 3).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hash_type": "phash"}, "is not compared by votes"),
        ({"min_votes": 1}, "min_votes must be"),
        ({"max_share": 0}, "max_share must be"),
        ({"max_pairs": 1}, "more than max_pairs"),
    ],
)
def test_wrong_calls(hashed, options, message):
    with pytest.raises(imgmatch_df.ArgumentError, match=message):
        hashed.imgmatch.suggest_min_votes(**options)


def test_votes_have_no_radius(hashed):
    with pytest.raises(imgmatch_df.ArgumentError, match="has no radius"):
        hashed.imgmatch.profile_radii("local", max_radius=3)
    with pytest.raises(imgmatch_df.ArgumentError, match="has no min_votes"):
        pl.DataFrame({"phash": [1, 2]}).imgmatch.profile_radii("phash", min_votes=3)
