"""The data of a report page gives at every value of the slider what `cluster` returns."""

import io
import warnings

import numpy as np
import polars as pl
import pytest
from PIL import Image
from report_reader import Page

import imgmatch_df
from imgmatch_df.columns import TURNS
from imgmatch_df.hashes.codec import hash_words
from imgmatch_df.hashes.kinds import KINDS
from imgmatch_df.hashes.turns import turned_bits
from imgmatch_df.matching.turned import turn_words
from imgmatch_df.report.result import to_bytes

pytestmark = pytest.mark.long
VALUES = {"bmh1": (0, 8, 24, 48, 96), "phash": (0, 2, 4, 9, 16), "pdq": (0, 8, 31, 40)}


def hashed(kind: str, seed: int = 0, n_centers: int = 60) -> pl.DataFrame:
    """Return rows around centers, chains of them, equal hashes, and rows without a hash."""
    rng = np.random.default_rng(seed)
    n_bits, n_bytes = KINDS[kind].n_bits, KINDS[kind].n_bytes
    rows = []
    for _ in range(n_centers):
        bits = rng.integers(0, 2, n_bits)
        for _ in range(rng.integers(1, 6)):
            rows.append(bits.copy())
            flips = rng.integers(0, n_bits, rng.integers(0, VALUES[kind][-1] // 2))
            bits[flips] ^= 1
    order = rng.permutation(len(rows))
    packed = [np.packbits(np.pad(rows[row], (0, 8 * n_bytes - n_bits)), bitorder="little").tobytes() for row in order]
    values = [int.from_bytes(data, "little") if KINDS[kind].is_number else data for data in packed]
    values[3] = values[10] = None
    n = len(values)
    return pl.DataFrame(
        {
            "name": [f"row {number}" for number in range(n)],
            "folder": rng.integers(0, 3, n),
            "width": rng.integers(1, 5, n),
            "height": rng.integers(1, 5, n),
            "size": rng.integers(1, 1000, n),
            kind: pl.Series(values, dtype=KINDS[kind].dtype),
        }
    )


def expected(frame: pl.DataFrame, **call) -> tuple[set[frozenset[str]], set[str], set[str]]:
    """Return the clusters, the removed rows and the rows in the reference, from `cluster`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", imgmatch_df.ImgMatchWarning)
        found = imgmatch_df.cluster(frame, id="name", **call)
    known = (
        set(found.filter(pl.col("reference_id").is_not_null())["name"]) if "reference_id" in found.columns else set()
    )
    new = found.filter(pl.col("cluster_id").is_not_null())
    clusters = new.group_by("cluster_id").agg("name").filter(pl.col("name").list.len() > 1)["name"]
    return set(map(frozenset, clusters.to_list())), set(new.filter(~pl.col("kept"))["name"]), known


def check(frame: pl.DataFrame, kind: str, values, **call) -> Page:
    """Compare a page with `cluster` at some radii."""
    report = imgmatch_df.report(frame, values[1], kind, id="name", max_radius=values[-1], **call)
    page = Page(to_bytes(report))
    assert page.about["limit"] == values[-1]
    for value in values:
        clusters, removed, known = expected(frame, radius=value, hash_type=kind, **call)
        assert page.clusters(value) == clusters
        assert page.removed(value) == removed
        assert {page.rows["id"][node] for node in page.known(value)} == known
        profile = page.about["profile"]
        assert profile["n_clusters"][value] == len(clusters)
        assert profile["n_largest"][value] == max(map(len, clusters), default=1)
    return page


@pytest.mark.parametrize("linkage", ["connected", "star"])
@pytest.mark.parametrize("kind", VALUES)
def test_clusters_at_every_radius(kind, linkage):
    frame = hashed(kind)
    page = check(frame, kind, VALUES[kind], linkage=linkage)
    n_pairs = [imgmatch_df.near_duplicates(frame, value, kind).height for value in VALUES[kind]]
    assert [page.about["profile"]["n_pairs"][value] for value in VALUES[kind]] == n_pairs
    assert page.about["counts"]["pairs"] == n_pairs[-1]
    if linkage == "connected":
        assert len(page.pairs["a"]) < page.n


@pytest.mark.parametrize("linkage", ["connected", "star"])
@pytest.mark.parametrize("keep", ["last", "largest", "smallest", pl.col("size"), ["folder", -pl.col("size")]])
def test_keep_rules(keep, linkage):
    frame = hashed("bmh1", 1)
    page = check(frame, "bmh1", (0, 24, 48), linkage=linkage, keep=keep)
    assert page.about["keep"] == (keep if isinstance(keep, str) else "rule")
    assert page.removed(24) != expected(frame, radius=24, linkage=linkage)[1]


@pytest.mark.parametrize("linkage", ["connected", "star"])
def test_protected_rows(linkage):
    page = check(hashed("bmh1", 2), "bmh1", (0, 24, 48), linkage=linkage, protect=pl.col("folder") == 1, keep="largest")
    assert "protected" in page.rows["reason_kept"]
    assert "largest of its cluster" in page.rows["reason_kept"]


@pytest.mark.parametrize("linkage", ["connected", "star"])
@pytest.mark.parametrize("condition", ["across", "within"])
def test_conditions(condition, linkage):
    page = check(hashed("bmh1", 3), "bmh1", (0, 24, 48), linkage=linkage, **{condition: "folder"})
    assert page.about["across"] is (condition == "across")


def test_pairs_that_are_no_duplicates():
    frame = hashed("phash", 4)
    pairs = imgmatch_df.near_duplicates(frame, 4, "phash", id="name")
    apart = pairs.gather_every(3).select("left_id", "right_id")
    assert apart.height > 3
    check(frame, "phash", (0, 4, 9), not_duplicates=apart)
    check(frame, "phash", (0, 4, 9), not_duplicates=apart, linkage="star")


@pytest.mark.parametrize("linkage", ["connected", "star"])
def test_reference(linkage):
    frame = hashed("bmh1", 5)
    reference = frame.gather_every(7).select(pl.col("name").str.replace("row", "old"), "bmh1")
    page = check(frame, "bmh1", (0, 24, 48), linkage=linkage, reference=reference, reference_id="name")
    named = [one["id"] for one in page.rows["reference"] if one is not None]
    assert named
    assert set(named) <= set(reference["name"])


@pytest.mark.parametrize("linkage", ["connected", "star"])
def test_turns(linkage):
    frame, kind = hashed("pdq", 6), KINDS["pdq"]
    words = hash_words(frame["pdq"].drop_nulls(), kind)
    turned = turn_words(words, turned_bits(kind), TURNS.index("mirrored"))
    mirrored = frame.drop_nulls("pdq").with_columns(
        pl.Series("pdq", [row.tobytes() for row in turned]), pl.col("name") + " mirrored"
    )
    both = pl.concat([frame, mirrored])
    page = check(both, "pdq", (0, 31), linkage=linkage, turns=True)
    assert page.hashes == []
    assert set(page.pairs["turn"]) > {"none"}


def test_rows_in_no_pair_are_left_out():
    frame = hashed("bmh1", 7)
    page = Page(to_bytes(imgmatch_df.report(frame, 24, id="name", max_radius=24)))
    paired = imgmatch_df.near_duplicates(frame, 24)
    rows = sorted({*paired["left_id"], *paired["right_id"]})
    assert page.rows["row"] == rows
    assert len(rows) < frame.height
    assert page.about["counts"] == {
        "rows": frame.height,
        "hashed": frame.height - 2,
        "failed": 2,
        "flat": 0,
        "pairs": paired.height,
    }
    assert [one["id"] for one in page.about["failed"]] == ["row 3", "row 10"]


@pytest.mark.parametrize("kind", VALUES)
def test_hashes_give_the_distances_of_pairs(kind):
    page = Page(to_bytes(imgmatch_df.report(hashed(kind, 8), 0, kind)))
    assert page.about["hash_bits"] == KINDS[kind].n_bits
    assert len(page.hashes[0]) == KINDS[kind].n_bytes
    for a, b, measure in zip(page.pairs["a"], page.pairs["b"], page.pairs["measure"], strict=True):
        left, right = (int.from_bytes(page.hashes[node], "big") for node in (a, b))
        assert (left ^ right).bit_count() == measure
        assert a < b
    order = list(zip(page.pairs["measure"], page.pairs["a"], page.pairs["b"], strict=True))
    assert order == sorted(order)


def test_ten_thousand_equal_rows_have_few_pairs():
    frame = pl.DataFrame({"phash": pl.Series([7] * 10_000 + [6] * 500, dtype=pl.UInt64)})
    report = imgmatch_df.report(frame, 1, "phash")
    page = Page(to_bytes(report))
    assert report.counts.clusters == 1
    assert report.counts.copies == 10_499
    assert len(page.pairs["a"]) == 10_499
    with pytest.raises(imgmatch_df.ArgumentError, match=r"more than 1,000,000 pairs at radius=1.*\nHint: lower radius"):
        imgmatch_df.report(frame, 1, "phash", linkage="star")


def scene(seed: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    return Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def copies() -> pl.DataFrame:
    """Rows with local hashes: images, their crops, a collage, and one blank image."""
    pages = [scene(seed) for seed in range(4)]
    both = Image.new("RGB", (320, 480))
    both.paste(pages[0], (0, 0))
    both.paste(pages[1], (0, 240))
    edits = [page.crop((20 + 9 * number, 10, 300, 220)) for number, page in enumerate(pages)]
    images = [*pages, *edits, both, pages[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT), Image.new("RGB", (80, 60))]
    files = []
    for image in images:
        stream = io.BytesIO()
        image.save(stream, "PNG")
        files.append(stream.getvalue())
    frame = pl.DataFrame({"name": [f"row {number}" for number in range(len(files))], "image": files})
    return frame.imgmatch.visual_hash("image", hash_types="local")


@pytest.mark.parametrize("linkage", [None, "connected", "star"])
def test_votes(copies, linkage):
    report = imgmatch_df.report(copies, None, "local", min_votes=8, id="name", linkage=linkage, source="image")
    page = Page(to_bytes(report))
    assert (report.radius, report.min_votes, page.about["limit"], page.hashes) == (None, 8, 6, [])
    for value in (6, 8, 11, 20, 64):
        clusters, removed, _ = expected(copies, hash_type="local", min_votes=value, linkage=linkage)
        assert page.clusters(value) == clusters
        assert page.removed(value) == removed
        at = page.about["profile"]["min_votes"].index(value)
        assert page.about["profile"]["n_clusters"][at] == len(clusters)
        assert page.about["profile"]["n_removed"][at] == len(removed)
    assert page.clusters(8)
    assert page.pairs["measure"] == sorted(page.pairs["measure"], reverse=True)


def test_votes_are_suggested(copies):
    report = imgmatch_df.report(copies, hash_type="local")
    suggested = imgmatch_df.suggest_min_votes(copies, min_votes=6)
    assert (report.min_votes, report.suggestion) == (suggested.min_votes, suggested)
    unrelated = imgmatch_df.profile_radii(copies, "local", min_votes=6).sort("min_votes")["n_unrelated"]
    assert report.profile["n_unrelated"].equals(unrelated)


def test_votes_have_the_placements_of_the_pairs(copies):
    page = Page(to_bytes(imgmatch_df.report(copies, hash_type="local", linkage="star", min_votes=8)))
    pairs = imgmatch_df.near_duplicates(copies, hash_type="local", min_votes=6)
    rows = page.rows["row"]
    ours = {
        (rows[a], rows[b]): (votes, turn, pytest.approx(scale, abs=1e-3), pytest.approx(x, abs=1e-3))
        for a, b, votes, turn, scale, x in zip(
            *(page.pairs[name] for name in ("a", "b", "measure", "turn", "scale", "shift_x")), strict=True
        )
    }
    theirs = {
        (one["left_id"], one["right_id"]): (one["votes"], one["turn"], one["scale"], one["shift_x"])
        for one in pairs.to_dicts()
    }
    assert ours == theirs
    assert "mirrored" in {turn for _, turn, _, _ in ours.values()}
