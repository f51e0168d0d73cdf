"""Advice on the radius: exact counts at every radius, estimates against known truth, and the suggestion."""

import io
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from polars.testing import assert_frame_equal

import imgmatch_df
from imgmatch_df.frames.advice import PROFILE_FIELDS
from imgmatch_df.frames.suggestions import suggestion_of
from imgmatch_df.hashes.kinds import KINDS

pytestmark = pytest.mark.long

N_BYTES = {"bmh1": 121, "phash": 8}
SEED = 5


def hashes_of(bits: np.ndarray, kind: str) -> pl.Series:
    """Return rows of bits, (n, n_bits) bool, as a column of hashes."""
    padded = np.zeros((len(bits), 8 * N_BYTES[kind]), np.bool_)
    padded[:, : bits.shape[1]] = bits
    packed = np.packbits(padded, axis=1)
    if kind == "phash":
        return pl.Series("phash", packed.view(">u8").astype(np.uint64)[:, 0], dtype=pl.UInt64)
    return pl.Series("bmh1", [row.tobytes() for row in packed], dtype=pl.Binary)


def unrelated_bits(n: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return the bits of unrelated images: signs of a few random waves, so that near bits are correlated."""
    if kind == "phash":
        weights = rng.standard_normal((24, 64)) + np.eye(24, 64) * 3
        return rng.standard_normal((n, 24)) @ weights > 0
    side = np.arange(31)
    waves = np.cos(np.pi * (side + 0.5)[None, :] / 31 * np.arange(9)[:, None])
    basis = np.einsum("iy,jx->ijyx", waves, waves).reshape(81, 961)[1:]
    basis *= (1 + np.hypot(*np.meshgrid(np.arange(9), np.arange(9))).ravel()[1:, None]) ** -1.2
    return rng.standard_normal((n, 80)) @ basis > 0


def planted(n: int, share: float, kind: str, seed: int) -> tuple[pl.DataFrame, np.ndarray]:
    """Return unrelated rows and copies of a share of them, and which image each row shows."""
    rng = np.random.default_rng(seed)
    bits = unrelated_bits(n, kind, rng)
    sources = rng.choice(n, int(n * share), replace=False)
    copies = bits[sources].copy()
    for copy, n_flips in zip(copies, rng.geometric(1 / (2 if kind == "phash" else 8), len(copies)) - 1, strict=True):
        copy[rng.choice(bits.shape[1], min(n_flips, 8 if kind == "phash" else 40), replace=False)] ^= True
    images = np.concatenate([np.arange(n), sources])
    order = rng.permutation(len(images))
    return hashes_of(np.concatenate([bits, copies])[order], kind).to_frame(), images[order]


def expected_counts(frame: pl.DataFrame, radius: int, kind: str, **options: str) -> tuple[int, ...]:
    """Return pairs, clusters of two rows or more, removed rows and the largest cluster, from the verbs."""
    clustered = frame.imgmatch.cluster(radius, kind, **options).filter(pl.col(kind).is_not_null())
    sizes = clustered["cluster_id"].value_counts()["count"].to_list()
    n_pairs = frame.imgmatch.near_duplicates(radius, kind, **options).height
    shared = [size for size in sizes if size > 1]
    return n_pairs, len(shared), sum(shared) - len(shared), max(sizes, default=0)


def counts(profile: pl.DataFrame, radius: int) -> tuple[int, ...]:
    """Return the four counts of one radius."""
    return profile.select("n_pairs", "n_clusters", "n_removed", "n_largest").row(radius)


@pytest.mark.filterwarnings("ignore:a radius of:imgmatch_df.ImgMatchWarning")
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.integers(0, 2**64 - 1), st.integers(0, 63).map(lambda bit: 3 | 1 << bit))),
    st.integers(0, 64),
)
def test_counts_are_those_of_the_verbs(values, radius):
    frame = pl.DataFrame({"phash": values}, schema={"phash": pl.UInt64})
    profile = imgmatch_df.profile_radii(frame, "phash", max_radius=64, flat="match")
    assert profile["exact"].all()
    assert profile["radius"].to_list() == list(range(65))
    assert counts(profile, radius) == expected_counts(frame, radius, "phash", flat="match")


@pytest.mark.parametrize(("kind", "radii"), [("phash", (0, 1, 4, 9, 14)), ("bmh1", (0, 8, 24, 60, 128))])
def test_counts_of_planted_sets(kind, radii):
    frame, _ = planted(700, 0.5, kind, SEED)
    profile = frame.imgmatch.profile_radii(kind, max_radius=radii[-1])
    for radius in radii:
        assert counts(profile, radius) == expected_counts(frame, radius, kind)


class Truth(NamedTuple):
    """What a suggestion does to a planted set: pairs that it finds, those of unrelated images, and their estimate."""

    suggestion: imgmatch_df.RadiusSuggestion
    n_pairs: int
    n_wrong: int
    n_estimated: float


def truth(n: int, share: float, kind: str, seed: int) -> Truth:
    """Return the truth about the suggestion for one planted set."""
    frame, images = planted(n, share, kind, seed)
    profile = frame.imgmatch.profile_radii(kind)
    found = suggestion_of(profile, KINDS[kind])
    pairs = frame.imgmatch.near_duplicates(found.radius, kind)
    left, right = images[pairs["left_id"].to_numpy()], images[pairs["right_id"].to_numpy()]
    return Truth(found, pairs.height, int((left != right).sum()), float(profile["n_unrelated"][found.radius]))


@pytest.mark.parametrize("kind", ["phash", "bmh1"])
@pytest.mark.parametrize(("n", "share"), [(500, 0.5), (3_000, 0.5), (3_000, 0.1)])
def test_few_unrelated_pairs_at_the_suggestion(kind, n, share):
    found = truth(n, share, kind, SEED)
    assert found.suggestion.copies_seen
    assert found.n_estimated <= 0.01 * found.n_pairs
    assert found.n_wrong <= 0.03 * found.n_pairs
    assert found.n_pairs - found.n_wrong >= 0.9 * int(n * share)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["phash", "bmh1"])
@pytest.mark.parametrize(("n", "share"), [(500, 0.01), (500, 0.5), (2_000, 0.05), (6_000, 0.01), (6_000, 0.5)])
def test_few_unrelated_pairs_at_the_suggestions_of_many_sets(kind, n, share):
    """Over several sets, because one has few pairs of unrelated images at its suggestion."""
    found = [truth(n, share, kind, seed) for seed in range(8)]
    n_pairs, n_wrong, n_estimated = (sum(one[column] for one in found) for column in (1, 2, 3))
    assert all(one.suggestion.copies_seen for one in found)
    assert n_estimated <= 0.01 * n_pairs
    assert n_wrong <= 3 * n_estimated
    assert n_pairs - n_wrong >= 0.9 * 8 * int(n * share)


@pytest.mark.parametrize("kind", ["phash", "bmh1"])
@pytest.mark.parametrize("n", [1_500, 5_000])
def test_the_estimate_is_near_the_truth(kind, n):
    """Without copies all pairs are unrelated, and the estimate is of these."""
    frame, _ = planted(n, 0, kind, SEED)
    profile = frame.imgmatch.profile_radii(kind, max_radius=250 if kind == "bmh1" else 16)
    n_pairs, n_unrelated = profile["n_pairs"].to_numpy(), profile["n_unrelated"].to_numpy()
    many = n_pairs >= 30
    assert many.any()
    assert (n_unrelated[many] >= n_pairs[many] / 3).all()
    assert (n_unrelated <= n_pairs).all()


@pytest.mark.parametrize(("kind", "largest"), [("phash", 64), ("bmh1", 961)])
def test_pairs_beyond_the_tail_are_unrelated(kind, largest):
    frame, _ = planted(1_000, 0.2, kind, SEED)
    last = frame.imgmatch.profile_radii(kind, max_radius=largest, max_pairs=1_000_000).row(-1, named=True)
    assert last["n_pairs"] == 1_200 * 1_199 // 2
    assert 0.99 * last["n_pairs"] < last["n_unrelated"] < last["n_pairs"]


@pytest.mark.parametrize("kind", ["phash", "bmh1"])
@pytest.mark.parametrize("n", [60, 500, 5_000])
@pytest.mark.parametrize("seed", range(3))
def test_no_copies(kind, n, seed):
    frame, _ = planted(n, 0, kind, seed)
    found = frame.imgmatch.suggest_radius(kind)
    assert not found.copies_seen
    assert found.radius == 0
    assert found.reason.startswith("no copies seen")


def test_any_order_chunks_and_engine():
    frame, _ = planted(800, 0.3, "bmh1", SEED)
    profile = frame.imgmatch.profile_radii()
    shuffled = frame.sample(fraction=1, shuffle=True, seed=1)
    parts = pl.concat([shuffled[:100], shuffled[100:]], rechunk=False)
    assert_frame_equal(parts.imgmatch.profile_radii(), profile, check_exact=True)
    for engine in ("streaming", "in-memory"):
        lazy = parts.lazy().imgmatch.profile_radii()
        assert lazy.collect_schema() == pl.Schema(PROFILE_FIELDS)
        assert_frame_equal(lazy.collect(engine=engine), profile, check_exact=True)
    assert parts.lazy().imgmatch.suggest_radius() == frame.imgmatch.suggest_radius()


def test_a_sample_of_any_order(monkeypatch):
    monkeypatch.setattr("imgmatch_df.matching.profile.MAX_SAMPLE", 200)
    frame, _ = planted(800, 0.3, "phash", SEED)
    profile = frame.imgmatch.profile_radii("phash")
    shuffled = frame.sample(fraction=1, shuffle=True, seed=1)
    assert_frame_equal(shuffled.imgmatch.profile_radii("phash"), profile, check_exact=True)
    assert profile["n_unrelated"].is_not_null().all()


@pytest.mark.parametrize("values", [[], [None], [None, None], [7], [7, None, 9]])
def test_tiny_frames(values):
    frame = pl.DataFrame({"phash": values}, schema={"phash": pl.UInt64})
    profile = frame.imgmatch.profile_radii("phash", max_radius=3)
    assert profile.schema == pl.Schema(PROFILE_FIELDS)
    assert counts(profile, 3) == expected_counts(frame, 3, "phash")
    assert profile["n_unrelated"].null_count() == profile["unrelated_share"].null_count() == 4
    found = frame.imgmatch.suggest_radius("phash", max_radius=1)
    assert found.radius == 0
    assert not found.copies_seen


def test_all_equal():
    frame = pl.DataFrame({"phash": [7] * 3_000}, schema={"phash": pl.UInt64})
    profile = frame.imgmatch.profile_radii("phash", max_pairs=10)
    assert profile["exact"].all()
    assert {counts(profile, radius) for radius in range(17)} == {(4_498_500, 1, 2_999, 3_000)}
    found = frame.imgmatch.suggest_radius("phash")
    assert (found.radius, found.copies_seen) == (4, True)
    assert "too few different hashes" in found.reason


def test_flat_rows_match_identical_files_only():
    frame = pl.DataFrame(
        {
            "phash": pl.Series([0, 0, 0, 0, 1, 3], dtype=pl.UInt64),
            "quality": pl.Series([0, 0, 0, 0, 90, 90], dtype=pl.UInt8),
            "sha256": ["aa", "aa", "aa", "bb", "cc", "dd"],
        }
    )
    for flat in ("identical", "match"):
        profile = frame.imgmatch.profile_radii("phash", max_radius=2, flat=flat)
        for radius in range(3):
            assert counts(profile, radius) == expected_counts(frame, radius, "phash", flat=flat)
    with pytest.warns(imgmatch_df.ImgMatchWarning, match="match nothing"):
        frame.drop("sha256").imgmatch.profile_radii("phash", max_radius=0)


def test_copies_that_no_radius_keeps_apart():
    frame, _ = planted(3_000, 0.1, "phash", SEED)
    found = frame.imgmatch.suggest_radius("phash", max_share=1e-9)
    assert (found.radius, found.copies_seen) == (0, True)
    assert found.reason.startswith("copies are seen, but no radius keeps pairs of unrelated images to 0 %")


def test_too_many_pairs():
    frame, _ = planted(1_500, 0.5, "phash", SEED)
    whole = frame.imgmatch.profile_radii("phash")
    profile = frame.imgmatch.profile_radii("phash", max_pairs=2_000)
    joined = profile.filter("exact")
    assert 0 < joined.height < profile.height
    assert_frame_equal(joined.select(whole.columns[:5]), whole.select(whole.columns[:5]).head(joined.height))
    left_out = profile.filter(~pl.col("exact"))
    assert left_out["n_clusters"].null_count() == left_out.height
    assert profile["n_pairs"].to_list() == pytest.approx(whole["n_pairs"].to_list(), rel=0.1)
    assert "too many pairs to join" in suggestion_of(profile, KINDS["phash"]).reason


def test_too_many_copies_for_the_sample(monkeypatch):
    monkeypatch.setattr("imgmatch_df.matching.profile.MAX_SAMPLE", 2)
    frame, _ = planted(300, 0.5, "phash", SEED)
    profile = frame.imgmatch.profile_radii("phash", max_pairs=100)
    n_joined = profile.filter("exact").height
    assert n_joined < 17
    assert counts(profile, n_joined - 1) == expected_counts(frame, n_joined - 1, "phash")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hash_type": "local"}, "compared by votes and has no radius"),
        ({"hash_type": "sha256"}, "equal or not"),
        ({"hash_type": "phash", "max_radius": 65}, "max_radius must be"),
        ({"hash_type": "phash", "max_radius": True}, "max_radius must be"),
        ({"hash_type": "phash", "max_pairs": 0}, "max_pairs must be"),
        ({"hash_type": "phash", "max_share": 0}, "max_share must be"),
        ({"hash_type": "phash", "max_share": 1.0}, "max_share must be"),
        ({"hash_type": "phash", "flat": "no"}, "flat must be"),
    ],
)
def test_wrong_arguments(options, message):
    frame = pl.DataFrame({"phash": [1, 2]}, schema={"phash": pl.UInt64})
    with pytest.raises(imgmatch_df.ArgumentError, match=message):
        frame.imgmatch.suggest_radius(**options)


def drawn(n: int) -> list[bytes]:
    """Return images of coloured noise at several scales, encoded."""
    rng = np.random.default_rng(SEED)
    images = []
    for _ in range(n):
        image = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        image.save(file, "PNG")
        images.append(file.getvalue())
    return images


def test_recall_of_edited_copies():
    frame = pl.DataFrame({"image": drawn(12)})
    made = frame.imgmatch.profile_radii(source="image")
    recall = made["recall"].to_list()
    assert recall == sorted(recall)
    assert recall[0] < recall[24]
    assert recall[-1] > 0.8
    hashed = frame.imgmatch.visual_hash("image")
    for given_hashes in (hashed, hashed.sample(fraction=1, shuffle=True, seed=1)):
        assert_frame_equal(given_hashes.imgmatch.profile_radii(source="image"), made, check_exact=True)
    assert hashed.imgmatch.profile_radii()["recall"].null_count() == 129


def test_images_that_cannot_be_read_again(tmp_path):
    hashed = pl.DataFrame({"image": drawn(3)}).imgmatch.visual_hash("image")
    moved = hashed.with_columns(path=pl.format("{}/{}.png", pl.lit(str(tmp_path)), pl.int_range(pl.len())))
    assert moved.imgmatch.profile_radii(source="path")["recall"].null_count() == 129
    (tmp_path / "1.png").write_bytes(hashed["image"][1])
    assert moved.imgmatch.profile_radii(source="path")["recall"][-1] > 0.8
