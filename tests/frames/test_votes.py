"""Local hashes in the frame verbs: pairs, clusters and ranks by votes, equal on all faces."""

import io
import warnings

import numpy as np
import polars as pl
import pytest
import reference
from PIL import Image
from polars.testing import assert_frame_equal

import imgmatch_df

pytestmark = pytest.mark.long

ENGINES = ["eager", "in-memory", "streaming"]
MEASURES = ["votes", "turn", "scale", "shift_x", "shift_y", "coverage"]


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def scene(seed, width=320, height=240):
    """Return a picture of many corners."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def collage(upper, lower):
    """Return one picture above another."""
    both = Image.new("RGB", (upper.width, upper.height + lower.height))
    both.paste(upper, (0, 0))
    both.paste(lower, (0, upper.height))
    return both


def soft(seed):
    """Return a picture of few corners."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC)


def with_logo(picture, logo):
    both = picture.copy()
    both.paste(logo, (picture.width - logo.width, picture.height - logo.height))
    return both


FIRST, SECOND = scene(1), scene(2)
LOGO = scene(3, 140, 110)
FLAT = Image.new("RGB", (80, 60), (200, 120, 40))
PICTURES = {
    "first": FIRST,
    "flat": FLAT,
    "cropped": FIRST.crop((40, 20, 300, 220)),
    "collage": collage(FIRST, SECOND),
    "second": SECOND,
    "broken": None,
    "turned": SECOND.transpose(Image.Transpose.ROTATE_90),
    "equal": FIRST,
    "logo a": with_logo(soft(4), LOGO),
    "logo b": with_logo(soft(5), LOGO),
    "flat too": FLAT,
}


@pytest.fixture(scope="module")
def images():
    data = [b"no image" if picture is None else png(picture) for picture in PICTURES.values()]
    return pl.DataFrame({"name": list(PICTURES), "url": data})


@pytest.fixture(scope="module")
def hashed(images):
    return images.imgmatch.visual_hash("url", hash_types=("local", "pdq", "sha256"))


@pytest.fixture(scope="module")
def pairs(hashed):
    return imgmatch_df.near_duplicates(hashed, hash_type="local", id="name")


def ask(frame, engine, verb):
    if engine == "eager":
        return verb(frame)
    query = verb(frame.lazy())
    result = query.collect(engine=engine)
    assert dict(query.collect_schema()) == dict(result.schema)
    return result


def by_names(pairs):
    return {row[:2]: row[2] for row in pairs.select("left_id", "right_id", "votes").iter_rows()}


def test_pairs_have_votes_and_a_placement(pairs):
    assert dict(pairs.schema) == {
        "left_id": pl.String(),
        "right_id": pl.String(),
        "votes": pl.UInt8(),
        "turn": pl.Enum(imgmatch_df.columns.TURNS),
        **dict.fromkeys(MEASURES[2:], pl.Float32()),
    }
    found = by_names(pairs)
    assert set(found) == {
        *(("first", other) for other in ("cropped", "collage", "equal")),
        *(("cropped", other) for other in ("collage", "equal") if ("cropped", other) in found),
        *(("collage", other) for other in ("second", "turned", "equal")),
        ("second", "turned"),
        ("logo a", "logo b"),
    }
    placed = {row["right_id"]: row for row in pairs.filter(pl.col("left_id") == "first").iter_rows(named=True)}
    assert placed["cropped"]["scale"] == pytest.approx(320 / 260, rel=0.02)
    assert placed["cropped"]["shift_x"] == pytest.approx(-40 / 260, abs=0.02)
    assert placed["cropped"]["shift_y"] == pytest.approx(-20 / 200, abs=0.02)
    assert placed["equal"]["coverage"] > 0.8 > placed["collage"]["coverage"]
    assert pairs.filter(left_id="second")["turn"].to_list() == ["rotated_270"]  # Pillow counts counterclockwise


@pytest.mark.parametrize("engine", ENGINES)
def test_all_faces_are_equal(images, hashed, pairs, engine):
    local = {"hash_type": "local", "id": "name"}
    assert_frame_equal(ask(hashed, engine, lambda data: imgmatch_df.near_duplicates(data, **local)), pairs)
    assert_frame_equal(ask(hashed, engine, lambda data: data.imgmatch.near_duplicates(**local, min_votes=8)), pairs)
    assert_frame_equal(ask(images, engine, lambda data: data.imgmatch.near_duplicates(**local, source="url")), pairs)
    other = hashed.rename({"local": "points"})
    assert_frame_equal(ask(other, engine, lambda data: data.imgmatch.near_duplicates(**local, column="points")), pairs)
    digits = hashed.with_columns(pl.col("local").imgmatch.to_hex())
    assert_frame_equal(ask(digits, engine, lambda data: data.imgmatch.near_duplicates(**local)), pairs)
    strict = ask(hashed, engine, lambda data: data.imgmatch.near_duplicates(**local, min_votes=20))
    assert_frame_equal(strict, pairs.filter(pl.col("votes") >= 20))


def test_no_order_and_no_chunks_change_the_pairs(hashed, pairs):
    order = np.random.default_rng(0).permutation(len(hashed))
    shuffled = pl.concat([hashed[order[:4]], hashed[order[4:]]], rechunk=False)
    found = by_names(shuffled.imgmatch.near_duplicates(hash_type="local", id="name"))
    assert {frozenset(names): votes for names, votes in found.items()} == {
        frozenset(names): votes for names, votes in by_names(pairs).items()
    }


def test_turns_are_compared_unless_the_call_says_no(hashed, pairs):
    found = hashed.imgmatch.near_duplicates(hash_type="local", id="name", turns=False)
    assert_frame_equal(found, pairs.filter(pl.col("turn") == "none"))
    assert found.height < pairs.height


@pytest.mark.parametrize("engine", ENGINES)
def test_match_compares_both_sides(hashed, pairs, engine, tmp_path):
    new, old = hashed.head(4), hashed.tail(7)
    local = {"hash_type": "local", "id": "name"}
    found = ask(new, engine, lambda data: data.imgmatch.match(old, **local, reference_id="name"))
    within = pairs.filter(
        pl.col("left_id").is_in(new["name"].to_list()), pl.col("right_id").is_in(old["name"].to_list())
    )
    assert_frame_equal(found, within.rename({"left_id": "query_id", "right_id": "reference_id"}))
    imgmatch_df.write_hashes(hashed, tmp_path / "all.duckdb", key="name", hash_types="local")
    stored = ask(new, engine, lambda data: data.imgmatch.match(tmp_path / "all.duckdb", **local))
    everything = new.imgmatch.match(hashed, **local, reference_id="name").filter(
        pl.col("query_id") != pl.col("reference_id")
    )
    order = ["query_id", "reference_id"]
    assert_frame_equal(stored.sort(order), everything.sort(order))


def test_k_keeps_the_rows_with_the_most_votes(hashed):
    """Also where an identical file with little to see has no votes, and is the nearest."""
    twice = pl.concat([hashed, hashed])
    every = hashed.imgmatch.match(twice, hash_type="local", max_pairs=10_000)
    far = pl.when(pl.col("votes") == 0).then(0).otherwise(256 - pl.col("votes").cast(pl.Int64))
    ranked = every.sort("query_id", far, "reference_id").group_by("query_id", maintain_order=True)
    for k in (1, 3):
        nearest = hashed.imgmatch.match(twice, hash_type="local", k=k)
        assert_frame_equal(nearest, ranked.head(k))
        parts = hashed.imgmatch.match(twice, hash_type="local", k=k, max_pairs=30)
        assert_frame_equal(parts, nearest)


def slow_clusters(n_rows, pairs, linkage, order):
    """Return the representative of each row."""
    near = {frozenset(pair) for pair in pairs}
    if linkage == "star":
        centers = {}
        for row in order:
            centers[row] = next(
                (one for one in order if centers.get(one) == one and frozenset((row, one)) in near), row
            )
        return [centers[row] for row in range(n_rows)]
    labels = list(range(n_rows))
    for _ in range(n_rows):
        for left, right in pairs:
            labels[left] = labels[right] = min(labels[left], labels[right])
    return [next(one for one in order if labels[one] == labels[row]) for row in range(n_rows)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("linkage", ["star", "connected"])
@pytest.mark.parametrize("keep", ["first", "last", "largest"])
def test_clusters_are_those_of_the_pairs(hashed, engine, linkage, keep):
    rows = pl.concat([hashed, hashed.head(5)])
    near = rows.imgmatch.near_duplicates(hash_type="local")
    votes = {frozenset(row[:2]): row[2] for row in near.select("left_id", "right_id", "votes").iter_rows()}
    order = list(range(len(rows)))
    if keep == "last":
        order.reverse()
    if keep == "largest":
        order.sort(key=lambda row: -(rows["width"][row] or 0) * (rows["height"][row] or 0))
    wanted = slow_clusters(len(rows), near.select("left_id", "right_id").rows(), linkage, order)
    clusters = ask(rows, engine, lambda data: data.imgmatch.cluster(hash_type="local", linkage=linkage, keep=keep))
    assert clusters["representative_id"].to_list() == wanted
    assert clusters["kept"].to_list() == [row == representative for row, representative in enumerate(wanted)]
    assert clusters.schema["votes"] == pl.UInt8
    for row, representative in enumerate(wanted):
        found = clusters["votes"][row]
        if row == representative:
            assert found is None
        elif frozenset((row, representative)) in votes:
            assert found == votes[frozenset((row, representative))]
        else:
            assert linkage == "connected"
            assert found < 8
    kept = ask(
        rows, engine, lambda data: data.imgmatch.remove_duplicates(hash_type="local", linkage=linkage, keep=keep)
    )
    assert kept["name"].to_list() == rows["name"].filter(clusters["kept"]).to_list()
    assert kept["removed_records"].list.len().sum() == len(rows) - len(kept)


@pytest.mark.parametrize("linkage", ["star", "connected"])
@pytest.mark.parametrize("seed", range(6))
def test_rules_of_pairs_hold_for_votes(hashed, linkage, seed):
    rng = np.random.default_rng(seed)
    rows = pl.concat([hashed, hashed.head(5), hashed.head(3)])
    n = len(rows)
    order = rng.permutation(n).tolist()
    across = rng.integers(0, 3, n).tolist() if seed % 2 else None
    within = [None if value == 2 else int(value) for value in rng.integers(0, 3, n)] if seed in (2, 3) else None
    excluded = rng.integers(0, n, (2 * n, 2)).tolist() if seed > 2 else []
    near = rows.imgmatch.near_duplicates(hash_type="local")
    costs = {(left, right): -votes for left, right, votes in near.select(near.columns[:3]).rows()}
    best, joined = reference.ruled_clusters(costs, order, linkage == "connected", across, within, excluded)
    rule = {
        "keep": pl.lit(pl.Series(np.argsort(order))),
        "across": None if across is None else pl.lit(pl.Series(across)),
        "within": None if within is None else pl.lit(pl.Series(within)),
        "not_duplicates": pl.DataFrame(excluded, schema=["left_id", "right_id"], orient="row") if excluded else None,
    }
    found = rows.imgmatch.cluster(hash_type="local", linkage=linkage, **rule)
    assert found["representative_id"].to_list() == best
    assert found["joined_at"].to_list() == [
        None if one == row else -cost for row, (one, cost) in enumerate(zip(best, joined, strict=True))
    ]
    assert found["kept"].to_list() == reference.kept_rows(best, [False] * n, across, excluded)
    conditions = {name: rule[name] for name in ("across", "within", "not_duplicates")}
    some = rows.imgmatch.near_duplicates(hash_type="local", **conditions)
    counted = [
        near.row(i)
        for i, (left, right) in enumerate(near.select("left_id", "right_id").rows())
        if (across is None or across[left] != across[right])
        and (within is None or (within[left] is not None and within[left] == within[right]))
        and [left, right] not in excluded
        and [right, left] not in excluded
    ]
    assert some.rows() == counted
    assert some.height > 0
    assert (some.height < near.height) == (seed > 0)


def test_connected_joins_what_a_collage_shows_and_star_does_not(hashed):
    rows = hashed.filter(pl.col("name").is_in(["first", "collage", "second"]))
    of = {
        linkage: rows.imgmatch.cluster(hash_type="local", linkage=linkage)["cluster_id"].to_list()
        for linkage in (None, "star", "connected")
    }
    assert of == {None: [0, 0, 1], "star": [0, 0, 1], "connected": [0, 0, 0]}
    assert rows.imgmatch.cluster(24, "pdq", id="name")["cluster_id"].n_unique() == 3


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reference_row_with_the_most_votes_is_the_nearest(hashed, engine):
    new, old = (
        hashed.filter(pl.col("name").is_in(["collage", "logo a", "flat"])),
        hashed.filter(pl.col("name").is_in(["first", "equal", "cropped", "flat", "broken"])),
    )
    clusters = ask(
        new,
        engine,
        lambda data: data.imgmatch.cluster(hash_type="local", reference=old, reference_id="name", id="name"),
    )
    near = imgmatch_df.match(new, old, hash_type="local", id="name", reference_id="name")
    best = near.sort("votes", descending=True, maintain_order=True).group_by("query_id", maintain_order=True).first()
    matched = clusters.filter(pl.col("reference_id").is_not_null()).select("name", "reference_id", "votes")
    assert_frame_equal(matched, best.select(pl.col("query_id").alias("name"), "reference_id", "votes"))
    assert matched["name"].to_list() == ["collage"]
    kept = ask(new, engine, lambda data: data.imgmatch.remove_duplicates(hash_type="local", reference=old))
    assert kept["name"].to_list() == ["flat", "logo a"]


@pytest.mark.parametrize("engine", ENGINES)
def test_ranks_have_the_most_votes_first(hashed, engine):
    query = hashed["local"][0]
    ranked = ask(hashed, engine, lambda data: data.imgmatch.rank_images(query, "local"))
    near = imgmatch_df.match(hashed.head(1), hashed, hash_type="local", reference_id="name")
    near = near.sort("votes", descending=True, maintain_order=True)
    assert ranked.columns[: len(MEASURES) + 1] == ["rank", *MEASURES]
    found, order = ranked.filter(pl.col("rank").is_not_null()), ["reference_id", *MEASURES]
    assert found["rank"].to_list() == list(range(1, len(near) + 1))
    assert_frame_equal(found.rename({"name": "reference_id"}).select(order), near.select(order))
    others = ranked.tail(len(hashed) - len(near))
    assert others["votes"].null_count() == len(others)
    assert others["name"].to_list() == [name for name in hashed["name"] if name not in near["reference_id"].to_list()]
    for k in (1, len(near) + 2, 100):
        top = ask(hashed, engine, lambda data, k=k: data.imgmatch.rank_images(png(FIRST), "local", k=k))
        assert_frame_equal(top, ranked.head(k))


def test_a_logo_in_common_has_votes_and_a_small_coverage(pairs):
    both = pairs.filter(left_id="logo a", right_id="logo b").row(0, named=True)
    assert both["votes"] >= 8
    assert both["coverage"] < 0.4
    others = pairs.filter(pl.col("left_id") == "first", pl.col("right_id") == "equal")
    assert others["coverage"].item() > 0.8


def test_images_without_points_match_nothing(hashed):
    flat = hashed.filter(pl.col("name").str.starts_with("flat"))
    assert flat["local"].n_unique() == 1
    assert flat.imgmatch.near_duplicates(hash_type="local").is_empty()
    assert flat.imgmatch.cluster(hash_type="local")["kept"].to_list() == [True, True]
    assert flat.imgmatch.match(flat, hash_type="local").is_empty()
    assert flat.imgmatch.rank_images(flat["local"][0], "local")["rank"].null_count() == 2
    nothing = hashed.clear()
    assert nothing.imgmatch.near_duplicates(hash_type="local").is_empty()
    assert nothing.imgmatch.cluster(hash_type="local").is_empty()
    assert nothing.imgmatch.rank_images(flat["local"][0], "local").is_empty()
    failed = hashed.filter(name="broken")
    assert failed.imgmatch.cluster(hash_type="local").select("cluster_id", "kept", "votes").rows() == [(0, True, None)]


def test_an_image_a_thousand_times_is_one_cluster(hashed):
    rows = pl.concat([hashed.head(1)] * 1000 + [hashed.filter(name="second")])
    with pytest.warns(
        imgmatch_df.ImgMatchWarning, match=r"1,000 of 1,001 rows are one cluster, fewest votes \d+ at min"
    ):
        clusters = rows.imgmatch.cluster(hash_type="local")
    assert clusters["representative_id"].to_list() == [0] * 1000 + [1000]
    with pytest.warns(imgmatch_df.ImgMatchWarning, match="linkage='star' does not chain"):
        rows.imgmatch.cluster(hash_type="local", linkage="connected")
    with pytest.raises(imgmatch_df.ArgumentError, match="more than max_pairs=1,000 pairs"):
        rows.imgmatch.near_duplicates(hash_type="local", max_pairs=1000)


def test_explain_counts_images_points_and_candidates(hashed):
    text = hashed.imgmatch.explain_near_duplicates(hash_type="local")
    n_points = hashed["local"].unique().imgmatch.to_points().list.len().sum()
    assert text.startswith(f"votes; min_votes 8; 7 different images with {n_points} points, 0 set aside")
    assert text.endswith("candidates")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f.imgmatch.near_duplicates(), "radius is missing.*\nHint: radius=24 finds"),
        (lambda f: f.imgmatch.match(f), "radius is missing"),
        (lambda f: f.imgmatch.match(f, hash_type="pdq"), "in bits of pdq\nHint: radius=31"),
        (lambda f: f.imgmatch.near_duplicates(8, "local"), "votes and has no radius, got 8\nHint: min_votes=8"),
        (lambda f: f.imgmatch.cluster(0, "local"), "has no radius, got 0"),
        (lambda f: f.imgmatch.cluster(8, "pdq", min_votes=8), "got 8\nHint: min_votes is for hash_type='local'"),
        (lambda f: f.imgmatch.rank_images(bytes(32), "pdq", min_votes=8), "has no min_votes"),
        (lambda f: f.imgmatch.cluster(hash_type="local", min_votes=1), "from 2 to 64, got 1"),
        (lambda f: f.imgmatch.near_duplicates(hash_type="local", min_votes=65), "from 2 to 64, got 65"),
        (lambda f: f.imgmatch.near_duplicates(hash_type="local", min_votes=8.5), "whole number"),
        (lambda f: f.imgmatch.near_duplicates(hash_type="local", turns="all"), "turns must be True or False"),
        (lambda f: f.imgmatch.cluster(hash_type="local", diameter=True), "diameter=True needs distances"),
        (lambda f: f.imgmatch.cluster(hash_type="local", linkage="chain"), "linkage must be one of"),
        (lambda f: f.imgmatch.explain_near_duplicates(hash_type="local", min_votes=0), "from 2 to 64, got 0"),
        (lambda f: f.imgmatch.find_copies(min_votes=1), "from 2 to 64"),
        (lambda f: f.imgmatch.find_copies(radius=None), "radius is missing"),
        (lambda f: f.imgmatch.find_copies(max_pairs=0), "max_pairs must be"),
        (lambda f: f.imgmatch.find_copies(decode="scaled"), "no effect without source="),
    ],
)  # fmt: skip
def test_errors(hashed, call, message):
    for frame in (hashed, hashed.lazy()):
        with pytest.raises(imgmatch_df.ArgumentError, match=message):
            call(frame)


def test_columns_that_are_absent_or_hold_something_else(hashed):
    with pytest.raises(imgmatch_df.ColumnError, match="no column 'local' in the frame"):
        hashed.drop("local").imgmatch.near_duplicates(hash_type="local")
    with pytest.raises(imgmatch_df.ColumnError, match="no column 'local' in the frame"):
        hashed.drop("local").imgmatch.find_copies()
    with pytest.raises(imgmatch_df.ColumnError, match="no column 'pdq' in the frame"):
        hashed.drop("pdq").imgmatch.find_copies()
    with pytest.raises(imgmatch_df.ColumnError, match="holds hashes of 32 bytes, a local has 715"):
        hashed.imgmatch.near_duplicates(hash_type="local", column="pdq")


def test_other_kinds_are_compared_as_before(hashed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hashed.imgmatch.near_duplicates(31, "pdq").columns == ["left_id", "right_id", "distance"]
        assert hashed.imgmatch.cluster(hash_type="pdq")["distance"].drop_nulls().to_list() == [0] * 10
