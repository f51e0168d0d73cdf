"""The frame verbs equal slow obvious truths, and each other: eager, in-memory and streaming, rows in any order."""

import numpy as np
import polars as pl
import pytest
import reference
from drawing import draw, jpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import imgmatch_df
from imgmatch_df.hashes.kinds import BMH1, KINDS

ENGINES = ["eager", "in-memory", "streaming"]
# The frames here are all clusters, and some radii all bits; `test_verb_warnings.py` has what is said of that.
pytestmark = pytest.mark.filterwarnings("ignore::imgmatch_df.ImgMatchWarning")


def make(n, hash_type="bmh1", seed=0, null_share=0.1):
    """A frame of clustered hashes: copies, neighbours up to a dozen bits away, strangers and nulls."""
    rng = np.random.default_rng(seed)
    kind = KINDS[hash_type]
    bits = rng.integers(0, 2, (n, 8 * kind.n_bytes), np.uint8)
    for row in range(n):
        if row and rng.random() < 0.6:
            bits[row] = bits[rng.integers(row)]
            bits[row, rng.integers(0, kind.n_bits, rng.integers(0, 7))] ^= 1
    bits[:, kind.n_bits :] = 0
    packed = np.packbits(bits, axis=1)
    valid = rng.random(n) >= null_share
    hashes = [row.tobytes() if ok else None for row, ok in zip(packed, valid, strict=True)]
    if hash_type == "phash":
        hashes = [None if value is None else int.from_bytes(value) for value in hashes]
    return pl.DataFrame(
        {
            hash_type: pl.Series(hashes, dtype=kind.dtype),
            "name": [f"picture {row}" for row in range(n)],
            "width": rng.integers(1, 5, n),
            "height": rng.integers(1, 5, n),
            "size": rng.integers(1, 4, n),
        }
    )


def words(frame, hash_type="bmh1"):
    """The present hashes as reference words, and their rows."""
    rows = [row for row, value in enumerate(frame[hash_type]) if value is not None]
    values = [frame[hash_type][row] for row in rows]
    numbers = [value if isinstance(value, int) else int.from_bytes(value) for value in values]
    return [(number,) for number in numbers], rows


def ask(frame, engine, verb):
    if engine == "eager":
        return verb(frame)
    with pl.Config() as config:
        config.set_streaming_chunk_size(7)
        return verb(frame.lazy()).collect(engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("hash_type", ["bmh1", "phash"])
@pytest.mark.parametrize("radius", [0, 1, 5, 12, 30])
def test_near_duplicates_are_all_pairs_within_the_radius(hash_type, radius, engine):
    frame = make(90, hash_type)
    hashes, rows = words(frame, hash_type)
    expected = [(rows[i], rows[j], d) for i, j, d in reference.self_pairs(hashes, radius)]
    out = ask(frame, engine, lambda data: data.imgmatch.near_duplicates(radius, hash_type))
    assert out.rows() == expected
    assert out.schema == {"left_id": pl.UInt32, "right_id": pl.UInt32, "distance": pl.UInt16}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("hash_type", ["bmh1", "phash"])
def test_match_is_all_pairs_across(hash_type, engine):
    new, stored = make(40, hash_type, seed=3), make(60, hash_type, seed=3)
    left, left_rows = words(new, hash_type)
    right, right_rows = words(stored, hash_type)
    expected = [
        (f"picture {left_rows[i]}", right_rows[j], d)
        for i, a in enumerate(left)
        for j, b in enumerate(right)
        if (d := reference.hamming(a, b)) <= 9
    ]
    assert len(expected) > 40
    out = ask(new, engine, lambda data: data.imgmatch.match(stored, 9, hash_type, id="name"))
    assert out.rows() == expected
    assert out.schema == {"query_id": pl.String, "reference_id": pl.UInt32, "distance": pl.UInt16}
    assert_frame_equal(ask(new, engine, lambda data: data.imgmatch.match(stored.lazy(), 9, hash_type, id="name")), out)


@pytest.mark.parametrize("linkage", ["connected", "star"])
@pytest.mark.parametrize("keep", ["first", "last", "largest"])
@pytest.mark.parametrize("engine", ENGINES)
def test_clusters_are_those_of_the_plain_passes(linkage, keep, engine):
    frame = make(80, seed=5)
    hashes, rows = words(frame)
    radius = 6
    preference = {
        "first": list(range(len(rows))),
        "last": list(range(len(rows)))[::-1],
        "largest": sorted(
            range(len(rows)),
            key=lambda i: (-frame["width"][rows[i]] * frame["height"][rows[i]], -frame["size"][rows[i]], i),
        ),
    }[keep]
    if linkage == "star":
        labels = reference.stars(hashes, radius, preference)
    else:
        components = reference.components(len(rows), [pair[:2] for pair in reference.self_pairs(hashes, radius)])
        best = {}
        for row in preference:
            best.setdefault(components[row], row)
        labels = [best[component] for component in components]
    representative = list(range(len(frame)))
    distance = [None] * len(frame)
    diameter = [None] * len(frame)
    for i, label in enumerate(labels):
        representative[rows[i]] = rows[label]
        distance[rows[i]] = reference.hamming(hashes[i], hashes[label])
    for i, widest in enumerate(reference.diameters(hashes, labels)):
        diameter[rows[i]] = widest
    numbers = {}
    for row in range(len(frame)):
        numbers.setdefault(representative[row], len(numbers))
    expected = frame.with_columns(
        pl.Series("cluster_id", [numbers[row] for row in representative], dtype=pl.UInt32),
        pl.Series("representative_id", [f"picture {row}" for row in representative]),
        pl.Series("distance", distance, dtype=pl.UInt16),
        pl.Series("kept", [representative[row] == row for row in range(len(frame))]),
        pl.Series("diameter", diameter, dtype=pl.UInt16),
    ).select(
        *("cluster_id", "kept", "distance", "diameter", "representative_id"),
        *("name", "width", "height", "size", "bmh1"),
    )
    out = ask(
        frame,
        engine,
        lambda data: data.imgmatch.cluster(radius, linkage=linkage, keep=keep, id="name", diameter=True),
    )
    assert out.columns[:6] == ["cluster_id", "kept", "reason", "distance", "joined_at", "diameter"]
    assert_frame_equal(out.drop("reason", "joined_at"), expected)  # see test_keep_rules.py
    if linkage == "star":
        assert out["distance"].max() <= radius


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("keep", ["first", "last", "largest"])
def test_removed_records_are_the_other_rows_of_the_cluster(engine, keep):
    frame = make(70, seed=7)
    clustered = frame.imgmatch.cluster(6, keep=keep)
    out = ask(frame, engine, lambda data: data.imgmatch.remove_duplicates(6, keep=keep))
    kept = clustered.filter("kept")
    assert out.columns == ["removed_records", "name", "width", "height", "size", "bmh1"]
    assert_frame_equal(out.drop("removed_records"), kept.select("name", "width", "height", "size", "bmh1"))
    for row, removed in zip(kept.iter_rows(named=True), out["removed_records"].to_list(), strict=True):
        others = clustered.filter((pl.col("cluster_id") == row["cluster_id"]) & ~pl.col("kept"))
        assert removed == others.select(frame.columns).to_dicts()
    assert out.height + out["removed_records"].list.len().sum() == frame.height


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("hash_type", ["bmh1", "phash"])
@pytest.mark.parametrize("k", [None, 1, 7, 1000])
def test_ranking_is_a_stable_sort_by_distance(engine, hash_type, k):
    frame = make(60, hash_type, seed=9)
    query = frame[hash_type].drop_nulls()[5]
    number = query if isinstance(query, int) else int.from_bytes(query)
    distances = [
        None if value is None else ((value if isinstance(value, int) else int.from_bytes(value)) ^ number).bit_count()
        for value in frame[hash_type]
    ]
    order = sorted(range(60), key=lambda row: (distances[row] is None, distances[row] or 0, row))[:k]
    expected = (
        frame[order]
        .with_columns(
            pl.Series("distance", [distances[row] for row in order], dtype=pl.UInt16),
            pl.Series(
                "rank", [None if distances[row] is None else at + 1 for at, row in enumerate(order)], dtype=pl.UInt32
            ),
        )
        .select("rank", "distance", "name", "width", "height", "size", hash_type)
    )
    out = ask(frame, engine, lambda data: data.imgmatch.rank_images(query, hash_type, k=k))
    assert_frame_equal(out, expected)
    bits = pl.Series([query], dtype=KINDS[hash_type].dtype).imgmatch.to_bits()[0]
    assert_frame_equal(frame.imgmatch.rank_images(bits, hash_type, k=k), expected)


@settings(deadline=None, max_examples=20)
@given(order=st.permutations(range(40)), radius=st.integers(0, 14))
def test_row_order_changes_no_pair_and_no_component(order, radius):
    frame = make(40, seed=11)

    def pairs(data):
        out = data.imgmatch.near_duplicates(radius, id="name")
        return {(*sorted(pair[:2]), pair[2]) for pair in out.rows()}

    def groups(data):
        out = data.imgmatch.cluster(radius)
        return {frozenset(group["name"]) for _, group in out.group_by("cluster_id")}

    shuffled = frame[list(order)]
    assert pairs(shuffled) == pairs(frame)
    assert groups(shuffled) == groups(frame)


def test_chunks_change_nothing():
    frame = make(60, seed=13)
    chunked = pl.concat([frame[:1], frame[1:20], frame[20:]], rechunk=False)
    assert_frame_equal(chunked.imgmatch.cluster(6), frame.imgmatch.cluster(6))
    assert_frame_equal(chunked.imgmatch.near_duplicates(6), frame.imgmatch.near_duplicates(6))


IDS = {
    "integers": pl.Series([7, -1, 7, None], dtype=pl.Int8),
    "strings": pl.Series(["é", "", "é", None]),
    "categoricals": pl.Series(["a", "b", "a", None], dtype=pl.Categorical),
    "enums": pl.Series(["a", "b", "a", None], dtype=pl.Enum(["b", "a"])),
    "structs": pl.Series([{"x": 1, "y": "a"}, {"x": 2, "y": None}, {"x": 1, "y": "a"}, {"x": 3, "y": "c"}]),
    "lists": pl.Series([[1, 2], [], [1, 2], None]),
    "decimals": pl.Series(["1.5", "2.5", "1.5", None]).str.to_decimal(scale=1),
    "binary": pl.Series([b"\0", b"", b"\0", None]),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
def test_ids_come_back_as_they_were(ids, engine):
    frame = pl.DataFrame({"phash": pl.Series([1, 1, 1, 1], dtype=pl.UInt64), "id": ids})
    pairs = ask(frame, engine, lambda data: data.imgmatch.near_duplicates(0, "phash", id="id"))
    assert pairs.schema["left_id"] == pairs.schema["right_id"] == ids.dtype
    assert pairs["left_id"].to_list() == ids.gather([0, 0, 0, 1, 1, 2]).to_list()
    assert pairs["right_id"].to_list() == ids.gather([1, 2, 3, 2, 3, 3]).to_list()
    clustered = ask(frame, engine, lambda data: data.imgmatch.cluster(0, "phash", id="id", keep="last"))
    assert clustered.schema["representative_id"] == ids.dtype
    assert clustered["representative_id"].to_list() == [ids[3]] * 4 if ids.dtype != pl.List else True


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [pl.Binary, pl.Null])
@pytest.mark.parametrize("hashes", [[], [None], [None, None]])
def test_frames_without_any_hash(hashes, dtype, engine):
    frame = pl.DataFrame({"bmh1": hashes, "name": ["a"] * len(hashes)}, schema={"bmh1": dtype, "name": pl.String})
    n = len(hashes)
    assert ask(frame, engine, lambda data: data.imgmatch.near_duplicates(3)).height == 0
    assert ask(frame, engine, lambda data: data.imgmatch.match(frame, 3)).height == 0
    clustered = ask(frame, engine, lambda data: data.imgmatch.cluster(3, diameter=True))
    assert clustered.drop("bmh1").rows() == [(row, True, "no_hash", None, None, None, row, "a") for row in range(n)]
    assert ask(frame, engine, lambda data: data.imgmatch.remove_duplicates(3))["removed_records"].to_list() == [[]] * n
    ranked = ask(frame, engine, lambda data: data.imgmatch.rank_images(bytes(121)))
    assert ranked.drop("bmh1").rows() == [(None, None, "a")] * n


def test_one_row():
    frame = pl.DataFrame({"bmh1": [b"\1" * 121]})
    assert frame.imgmatch.near_duplicates(961).height == 0
    assert frame.imgmatch.cluster(961).drop("bmh1").rows() == [(0, True, "single", 0, 0, 0)]
    assert frame.imgmatch.rank_images(b"\1" * 121)["rank"].to_list() == [1]


def test_hashes_of_the_top_bit_and_the_largest_radius():
    frame = pl.DataFrame({"phash": pl.Series([2**64 - 1, 0, 2**63, None], dtype=pl.UInt64)})
    out = frame.imgmatch.near_duplicates(64, "phash", flat="match")
    assert out.rows() == [(0, 1, 64), (0, 2, 63), (1, 2, 1)]


@pytest.mark.parametrize("engine", ENGINES)
def test_columns_of_any_name_stay(engine):
    names = ["__imgmatch", "__imgmatch_", "l", "r", "removed", "row"]
    frame = pl.DataFrame({"phash": pl.Series([1, 1, 2**40], dtype=pl.UInt64)}).with_columns(
        pl.int_range(3).alias(name) for name in names
    )
    clustered = ask(frame, engine, lambda data: data.imgmatch.cluster(0, "phash"))
    assert_frame_equal(clustered.select(frame.columns), frame)
    kept = ask(frame, engine, lambda data: data.imgmatch.remove_duplicates(0, "phash"))
    assert_frame_equal(kept.select(frame.columns), frame[[0, 2]])
    assert kept["removed_records"].to_list() == [[frame.row(1, named=True)], []]
    ranked = ask(frame, engine, lambda data: data.imgmatch.rank_images(1, "phash"))
    assert_frame_equal(ranked.select(frame.columns), frame)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_largest_of_pictures_without_sizes_is_the_first(engine):
    frame = pl.DataFrame(
        {"phash": [1, 1, None], "width": [None] * 3, "height": [None] * 3, "size": [None] * 3},
        schema_overrides={"phash": pl.UInt64},
    )
    assert frame.schema["width"] == pl.Null
    for sizes in ({}, {"height": pl.lit(3)}):
        clustered = ask(
            frame.with_columns(**sizes), engine, lambda data: data.imgmatch.cluster(0, "phash", keep="largest")
        )
        assert clustered["kept"].to_list() == [True, False, True]


def test_predicates_and_slices_do_not_reach_the_clustering():
    frame = make(50, seed=17)
    expected = frame.imgmatch.cluster(6)
    for engine in ("in-memory", "streaming"):
        lazy = frame.lazy().imgmatch.cluster(6)
        out = lazy.filter(pl.col("name") > "picture 3").head(9).collect(engine=engine)
        assert_frame_equal(out, expected.filter(pl.col("name") > "picture 3").head(9))


@pytest.fixture(scope="module")
def pictures():
    base = [draw(seed, 200, 150) for seed in range(4)]
    copies = [np.clip(picture.astype(int) + 6, 0, 255).astype(np.uint8) for picture in base]
    return pl.DataFrame({"url": [*map(jpeg, base), b"broken", *map(jpeg, copies)]})


@pytest.mark.parametrize("engine", ENGINES)
def test_source_hashes_first(pictures, engine):
    out = ask(pictures, engine, lambda data: data.imgmatch.remove_duplicates(60, source="url"))
    assert out.height == 5
    assert out["removed_records"].list.len().to_list() == [1, 1, 1, 1, 0]
    assert out["status"].cast(pl.String).to_list() == ["ok"] * 4 + ["decode_failed"]
    pairs = ask(pictures, engine, lambda data: data.imgmatch.near_duplicates(60, source="url", max_pixels=10**6))
    assert pairs.select("left_id", "right_id").rows() == [(0, 5), (1, 6), (2, 7), (3, 8)]
    largest = ask(pictures, engine, lambda data: data.imgmatch.cluster(60, source="url", keep="largest"))
    assert largest["kept"].sum() == 5
    ranked = ask(pictures, engine, lambda data: data.imgmatch.rank_images(pictures["url"][6], source="url", k=2))
    assert set(ranked["url"]) == {pictures["url"][6], pictures["url"][1]}
    matched = ask(
        pictures[5:], engine, lambda data: data.imgmatch.match(pictures.imgmatch.visual_hash(), 60, source="url")
    )
    assert matched["reference_id"].to_list() == [0, 5, 1, 6, 2, 7, 3, 8]


def test_a_query_that_cannot_be_hashed_is_an_error(pictures):
    hashed = pictures.imgmatch.visual_hash()
    with pytest.raises(imgmatch_df.FetchError, match="the query cannot be hashed: not_found: no such file"):
        hashed.imgmatch.rank_images("no-such-picture.jpg")
    with pytest.raises(imgmatch_df.DecodeError, match="the query cannot be hashed: decode_failed"):
        hashed.lazy().imgmatch.rank_images(b"junk")


@pytest.mark.parametrize("number", [np.int8, np.int64, np.uint8, np.uint64])
@pytest.mark.parametrize("engine", ENGINES)
def test_whole_numbers_of_numpy_are_whole_numbers(number, engine):
    frame = make(24, seed=3).with_columns(phash=pl.int_range(24).cast(pl.UInt64))
    for verb in (
        lambda data, n: data.imgmatch.near_duplicates(n(1), "phash", max_pairs=n(100)),
        lambda data, n: data.imgmatch.match(frame, n(0), "phash", max_pairs=n(100)),
        lambda data, n: data.imgmatch.cluster(n(1), "phash"),
        lambda data, n: data.imgmatch.remove_duplicates(n(1), "phash"),
        lambda data, n: data.imgmatch.rank_images(n(7), "phash", k=n(3)),
        lambda data, n: data.imgmatch.near_duplicates(n(24)),
    ):
        assert_frame_equal(*(ask(frame, engine, lambda data, n=n, verb=verb: verb(data, n)) for n in (number, int)))
    for top in (np.uint64(2**64 - 1), np.int64(-1), -1):
        assert frame.imgmatch.rank_images(top, "phash", k=1)["phash"].item() == 15
    for wrong in (np.float64(2), np.bool_(True), np.int64(-1), "2"):
        with pytest.raises(imgmatch_df.ArgumentError, match="Hint: "):
            frame.imgmatch.cluster(wrong)
    for wrong in (np.float64(2), np.bool_(True), np.int64(-1), "2", None):
        for call in (
            lambda wrong: frame.imgmatch.near_duplicates(wrong),
            lambda wrong: frame.imgmatch.near_duplicates(1, max_pairs=wrong),
            lambda wrong: frame.imgmatch.cluster(1, source="name", max_pixels=wrong),
        ):
            with pytest.raises(imgmatch_df.ArgumentError, match="Hint: "):
                call(wrong)
    for wrong in (np.float64(2), np.bool_(True), True, None, 2**64, -(2**63) - 1):
        with pytest.raises(imgmatch_df.ArgumentError, match="Hint: "):
            frame.imgmatch.rank_images(wrong, "phash")


def test_a_query_may_be_a_path(pictures, tmp_path):
    path = tmp_path / "query.jpg"
    path.write_bytes(pictures["url"][0])
    hashed = pictures.imgmatch.visual_hash()
    for frame in (hashed, hashed.lazy()):
        assert_frame_equal(frame.imgmatch.rank_images(path), frame.imgmatch.rank_images(str(path)))
    digits = tmp_path / ("01" * 32)
    with pytest.raises(imgmatch_df.FetchError, match="not_found"):
        hashed.imgmatch.rank_images(digits.relative_to(tmp_path), "phash")


def test_too_many_pairs_name_the_hash_and_the_way_out():
    frame = pl.DataFrame({"phash": pl.Series([5] * 1000 + [2**40], dtype=pl.UInt64)})
    with pytest.raises(
        imgmatch_df.ArgumentError, match=r"more than max_pairs=1,000 pairs.* 1,000 of 1,001 rows"
    ) as caught:
        frame.imgmatch.near_duplicates(2, "phash", max_pairs=1000)
    assert "cluster()" in str(caught.value)
    assert frame.imgmatch.cluster(2, "phash")["kept"].sum() == 2


def test_explain_names_the_plan():
    frame = make(200)
    text = frame.imgmatch.explain_near_duplicates(24)
    assert text == frame.lazy().imgmatch.explain_near_duplicates(24)
    assert "radius 24" in text
    assert text.startswith(("scan", "bands", "1 band", "2", "3"))


def test_explain_names_the_plan_of_turned_hashes():
    frame = make(200)
    once = frame.imgmatch.explain_near_duplicates(24)
    turned = frame.imgmatch.explain_near_duplicates(24, turns=True)
    assert frame.imgmatch.explain_near_duplicates(24, turns=False) == once
    about, plan = turned.split("; ", 1)
    assert about == "4 turns of each hash, which make all 8 between two"
    n_rows = [int(text.split("; ")[2].split(" x ")[0].replace(",", "")) for text in (once, plan)]
    assert n_rows[1] == 4 * n_rows[0]
    with pytest.raises(imgmatch_df.ArgumentError, match="turns"):
        frame.imgmatch.explain_near_duplicates(4, "phash", turns=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda f: f.imgmatch.near_duplicates(-1),
            imgmatch_df.ArgumentError,
            "radius must be a whole number of bits from 0 to 961",
        ),
        (lambda f: f.imgmatch.near_duplicates(962), imgmatch_df.ArgumentError, "got 962"),
        (lambda f: f.imgmatch.near_duplicates(2.5), imgmatch_df.ArgumentError, "got 2.5"),
        (lambda f: f.imgmatch.near_duplicates(True), imgmatch_df.ArgumentError, "got True"),
        (lambda f: f.imgmatch.near_duplicates(65, "phash"), imgmatch_df.ArgumentError, "from 0 to 64"),
        (lambda f: f.imgmatch.near_duplicates(1, "dhash"), imgmatch_df.ArgumentError, "hash_type must be one of"),
        (lambda f: f.imgmatch.near_duplicates(1, "phash"), imgmatch_df.ColumnError, "no column 'phash'"),
        (lambda f: f.imgmatch.near_duplicates(1, id="nom"), imgmatch_df.ColumnError, "no column 'nom'"),
        (lambda f: f.imgmatch.near_duplicates(1, max_pairs=0), imgmatch_df.ArgumentError, "max_pairs must be"),
        (
            lambda f: f.imgmatch.near_duplicates(1, decode="scaled"),
            imgmatch_df.ArgumentError,
            "decode has no effect without",
        ),
        (lambda f: f.imgmatch.near_duplicates(1, source="gone"), imgmatch_df.ColumnError, "no column 'gone'"),
        (lambda f: f.imgmatch.near_duplicates(1, radiu=3), imgmatch_df.ArgumentError, "unknown option 'radiu'"),
        (lambda f: f.imgmatch.match(f.drop("bmh1"), 1), imgmatch_df.ColumnError, "no column 'bmh1'"),
        (lambda f: f.imgmatch.cluster(1, linkage="single"), imgmatch_df.ArgumentError, "linkage must be one of"),
        (lambda f: f.imgmatch.cluster(1, keep="best"), imgmatch_df.ArgumentError, "keep must be one of"),
        (
            lambda f: f.drop("width").imgmatch.cluster(1, keep="largest"),
            imgmatch_df.ColumnError,
            "needs a numeric column 'width'",
        ),
        (lambda f: f.imgmatch.rank_images(5), imgmatch_df.ArgumentError, "query must be a bmh1 or an image"),
        (lambda f: f.imgmatch.rank_images(bytes(121), k=0), imgmatch_df.ArgumentError, "k must be"),
        *(
            (
                lambda f, verb=verb: verb(f.head(1).with_columns(pl.Series("o", [object()], dtype=pl.Object))),
                imgmatch_df.ColumnError,
                "column 'o' has dtype Object",
            )
            for verb in (
                lambda f: f.imgmatch.near_duplicates(1, id="o"),
                lambda f: f.imgmatch.match(f, 1, id="o"),
                lambda f: f.imgmatch.match(f, 1, reference_id="o"),
                lambda f: f.imgmatch.cluster(1, id="o"),
                lambda f: f.imgmatch.cluster(1, reference=f, reference_id="o"),
            )
        ),
        (
            lambda f: f.with_columns(pl.lit("01").cast(pl.Categorical).alias("bmh1")).imgmatch.cluster(),
            imgmatch_df.ColumnError,
            r"has dtype Categorical.*\nHint: visual_hash",
        ),
        (
            lambda f: f.with_columns(pl.lit(1.5).alias("phash")).imgmatch.cluster(0, "phash"),
            imgmatch_df.ColumnError,
            r"has dtype Float64.*\nHint: a float has lost bits",
        ),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_callers_mistakes_raise_at_once_with_a_hint(call, error, message, lazy):
    frame = make(5)
    with pytest.raises(error, match=message) as caught:
        call(frame.lazy() if lazy else frame)
    assert "\nHint: " in str(caught.value)


def test_hashes_of_another_width_say_so():
    frame = pl.DataFrame({"bmh1": [bytes(8)]})
    with pytest.raises(imgmatch_df.ColumnError, match=f"hashes of 8 bytes, a bmh1 has {BMH1.n_bytes}"):
        frame.imgmatch.near_duplicates(1)
