"""Keep rules equal plain double loops: who represents a cluster, who is never removed, which pairs count."""

from datetime import UTC, datetime
from itertools import combinations

import numpy as np
import polars as pl
import pytest
import reference
from drawing import draw, jpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import imgmatch_df
from imgmatch_df.columns import REASONS

ENGINES = ["eager", "in-memory", "streaming"]
# The frames here are all clusters; `test_verb_warnings.py` has what is said of that.
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::imgmatch_df.ImgMatchWarning")]

HASHES = st.sampled_from([0x33, 0x33, 0x34, 0x37, 0x3F, 0xFF3F, 2**63, 2**63 + 7, None])
ROW = st.fixed_dictionaries(
    {
        "phash": HASHES,
        "folder": st.sampled_from(["a", "b", "c", None]),
        "product": st.sampled_from([1, 2, None]),
        "safe": st.sampled_from([True, False, False, False, False, None]),
        "quality": st.sampled_from([100, 100, 7]),
        "sha256": st.sampled_from([b"x", b"x", b"y", None]),
        "width": st.sampled_from([1, 2, None]),
        "height": st.sampled_from([1, 2]),
        "size": st.sampled_from([1, 2, None]),
        "modified": st.sampled_from([datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC), None]),
    }
)
# Few rows for the edges, many so that they meet.
ROWS = st.lists(ROW, max_size=3) | st.lists(ROW, min_size=8, max_size=12)
SCHEMA = {
    "phash": pl.UInt64,
    "folder": pl.String,
    "product": pl.Int64,
    "safe": pl.Boolean,
    "quality": pl.UInt8,
    "sha256": pl.Binary,
    "width": pl.UInt32,
    "height": pl.UInt32,
    "size": pl.UInt64,
    "modified": pl.Datetime("us", "UTC"),
}
PAIRS = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 12)), min_size=2, max_size=25)
SORTED_BY = {
    "first": ([], []),
    "largest": ([pl.col("width") * pl.col("height"), pl.col("size")], [True, True]),
    "smallest": ([pl.col("width") * pl.col("height"), pl.col("size")], [False, False]),
    "newest": ([pl.col("modified")], [True]),
    "oldest": ([pl.col("modified")], [False]),
}
EXPRESSIONS = [pl.col("folder") == "b", -pl.col("size").cast(pl.Int64)]


def make(rows):
    return pl.DataFrame(rows, schema=SCHEMA)


def not_duplicates(pairs):
    return pl.DataFrame(pairs, schema={"left_id": pl.Int64, "right_id": pl.Int64}, orient="row")


def preference(frame, keep):
    """The row numbers, the best first, as a sort of the frame gives them."""
    numbered = frame.with_row_index("n").with_columns(~pl.col("safe").fill_null(value=False))
    if keep == "last":
        numbered = numbered.reverse()
    by, descending = (EXPRESSIONS, [False] * 2) if keep == "rule" else SORTED_BY.get(keep, ([], []))
    by, descending = [pl.col("safe"), *by], [False, *descending]
    return numbered.sort(by, descending=descending, nulls_last=True, maintain_order=True)["n"].to_list()


def pair_costs(frame, radius):
    """The distance of all near-duplicates: of rows with little to see those of identical files."""
    costs = {}
    rows = frame.rows(named=True)
    for i, j in combinations(range(len(rows)), 2):
        left, right = rows[i], rows[j]
        if left["phash"] is None or right["phash"] is None:
            continue
        if left["quality"] < 50 or right["quality"] < 50:
            if left["quality"] == right["quality"] and left["sha256"] is not None and left["sha256"] == right["sha256"]:
                costs[i, j] = 0
        elif (distance := (left["phash"] ^ right["phash"]).bit_count()) <= radius:
            costs[i, j] = distance
    return costs


def expected_reasons(frame, keep, representative, across, excluded):
    excluded = {frozenset(pair) for pair in excluded}
    out = []
    for i, best in enumerate(representative):
        if frame["phash"][i] is None:
            out.append("no_hash")
        elif representative.count(best) == 1:
            out.append("single")
        elif frame["safe"][i]:
            out.append("protected")
        elif i == best:
            out.append(f"kept_{keep}" if keep != "rule" else "kept_by_rule")
        elif across is not None and across[i] == across[best]:
            out.append("same_value")
        else:
            out.append("not_duplicate" if frozenset((i, best)) in excluded else "copy")
    return out


@settings(max_examples=60, deadline=None)
@given(
    ROWS,
    st.sampled_from([0, 1, 2, 5]),
    st.sampled_from(["connected", "star"]),
    st.sampled_from(["first", "last", "largest", "smallest", "newest", "oldest", "rule"]),
    st.booleans(),
    st.booleans(),
    st.none() | PAIRS,
    st.sampled_from(ENGINES),
)
def test_law_clusters_by_rule_equal_the_double_loop(rows, radius, linkage, keep, has_across, has_within, pairs, engine):
    frame = make(rows)
    across = frame["folder"].to_list() if has_across else None
    within = frame["product"].to_list() if has_within else None
    rule = {
        "keep": EXPRESSIONS if keep == "rule" else keep,
        "linkage": linkage,
        "protect": pl.col("safe"),
        "across": pl.col("folder").str.to_uppercase() if has_across else None,
        "within": "product" if has_within else None,
        "not_duplicates": None if pairs is None else not_duplicates(pairs),
    }
    representative, joined = reference.ruled_clusters(
        pair_costs(frame, radius), preference(frame, keep), linkage == "connected", across, within, pairs or ()
    )
    kept = reference.kept_rows(representative, frame["safe"].fill_null(value=False).to_list(), across, pairs or ())

    def ask(verb):
        if engine == "eager":
            return verb(frame)
        with pl.Config() as config:
            config.set_streaming_chunk_size(3)
            return verb(frame.lazy()).collect(engine=engine)

    found = ask(lambda data: data.imgmatch.cluster(radius, "phash", **rule))
    assert found["representative_id"].to_list() == representative
    assert found["kept"].to_list() == kept
    has_hash = frame["phash"].is_not_null().to_list()
    assert found["joined_at"].to_list() == [
        at if is_there else None for at, is_there in zip(joined, has_hash, strict=True)
    ]
    assert found["reason"].to_list() == expected_reasons(frame, keep, representative, across, pairs or ())
    assert found["reason"].dtype == pl.Enum(REASONS)
    numbered = frame.with_row_index("n")
    nested = ask(lambda data: data.with_row_index("n").imgmatch.remove_duplicates(radius, "phash", **rule))
    assert nested["n"].to_list() == [i for i, is_kept in enumerate(kept) if is_kept]
    removed = {
        row: [i for i in range(len(rows)) if representative[i] == row and not kept[i]] for row in nested["n"].to_list()
    }
    assert [[one["n"] for one in records] for records in nested["removed_records"]] == [
        removed[row] for row in nested["n"]
    ]
    assert sum(map(len, removed.values())) + nested.height == numbered.height


@settings(max_examples=20, deadline=None)
@given(ROWS, st.sampled_from([0, 2, 5]), st.booleans(), st.booleans(), st.none() | PAIRS)
def test_law_every_smaller_radius_is_a_filter(rows, radius, has_across, has_within, pairs):
    frame = make(rows)
    rule = {
        "across": "folder" if has_across else None,
        "within": "product" if has_within else None,
        "not_duplicates": None if pairs is None else not_duplicates(pairs),
    }
    wide = frame.imgmatch.cluster(radius, "phash", **rule)
    best, joined = wide["representative_id"].to_list(), wide["joined_at"].to_list()
    for smaller in range(radius + 1):
        label = frame.imgmatch.cluster(smaller, "phash", **rule)["cluster_id"].to_list()
        for row in range(len(rows)):
            if joined[row] is not None:
                assert (joined[row] <= smaller) == (label[row] == label[best[row]])


@settings(max_examples=30, deadline=None)
@given(ROWS, st.randoms(use_true_random=False), st.sampled_from(["connected", "star"]))
def test_law_row_order_changes_nothing_but_ties(rows, random, linkage):
    frame = make(rows).with_row_index("n")
    rule = {
        "keep": [pl.col("size"), pl.col("n")],
        "linkage": linkage,
        "protect": "safe",
        "across": "folder",
        "not_duplicates": not_duplicates([(i, i + 2) for i in range(len(rows))]),
        "id": "n",
    }
    shuffled = list(range(len(rows)))
    random.shuffle(shuffled)
    columns = ["n", "representative_id", "kept", "reason", "distance", "joined_at"]
    expected = frame.imgmatch.cluster(2, "phash", **rule).select(columns)
    chunks = [frame[[row]] for row in shuffled] or [frame]
    found = pl.concat(chunks, rechunk=False).imgmatch.cluster(2, "phash", **rule).select(columns)
    assert_frame_equal(found.sort("n"), expected)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=2, max_size=2)), max_size=8),
    st.booleans(),
    st.booleans(),
    st.none() | PAIRS,
    st.sampled_from(["connected", "star"]),
)
def test_law_rules_hold_for_turned_hashes(rows, has_across, has_within, pairs, linkage):
    hashes = [bytes([value[0] & 3]) + bytes(31) for _, value in rows]
    frame = pl.DataFrame(
        {"pdq": hashes, "folder": [folder for folder, _ in rows]}, schema={"pdq": pl.Binary, "folder": pl.Int64}
    )
    values = frame["folder"].to_list()
    near = frame.imgmatch.near_duplicates(2, "pdq", turns=True, flat="match")
    costs = {(left, right): distance for left, right, distance, _ in near.rows()}
    across, within = (values if has_across else None), (values if has_within else None)
    expected = reference.ruled_clusters(
        costs, list(range(len(rows))), linkage == "connected", across, within, pairs or ()
    )
    found = frame.imgmatch.cluster(
        2,
        "pdq",
        turns=True,
        flat="match",
        linkage=linkage,
        across="folder" if has_across else None,
        within="folder" if has_within else None,
        not_duplicates=None if pairs is None else not_duplicates(pairs),
    )
    assert (found["representative_id"].to_list(), found["joined_at"].to_list()) == expected


def test_a_large_cluster_joins_at_the_same_radii(monkeypatch):
    from imgmatch_df.matching import conditions

    rng = np.random.default_rng(3)
    values = np.cumsum(1 << rng.integers(0, 6, 400).astype(np.uint64)).astype(np.uint64)
    frame = pl.DataFrame({"phash": values})
    expected = frame.imgmatch.cluster(5, "phash", keep="last")
    monkeypatch.setattr(conditions, "_MAX_SEARCHED", 20)
    assert_frame_equal(frame.imgmatch.cluster(5, "phash", keep="last"), expected)
    assert expected["joined_at"].n_unique() > 2


@settings(max_examples=30, deadline=None)
@given(ROWS, ROWS, st.booleans(), st.booleans(), st.none() | PAIRS, st.sampled_from(ENGINES))
def test_law_pairs_that_count(rows, others, has_across, has_within, pairs, engine):
    left, right = make(rows), make(others)
    across, within = pl.col("folder"), pl.col("product")
    rule = {
        "across": across if has_across else None,
        "within": within if has_within else None,
        "not_duplicates": None if pairs is None else not_duplicates(pairs),
    }

    def counts(i, j, pair):
        return (
            (not has_across or i["folder"] != j["folder"])
            and (not has_within or (i["product"] is not None and i["product"] == j["product"]))
            and (pairs is None or pair not in pairs)
        )

    def ask(verb):
        return verb(left) if engine == "eager" else verb(left.lazy()).collect(engine=engine)

    near = left.imgmatch.near_duplicates(5, "phash")
    a, b = left.rows(named=True), right.rows(named=True)
    expected = [
        (i, j, distance)
        for i, j, distance in near.rows()
        if counts(a[i], a[j], (i, j)) and (pairs is None or (j, i) not in pairs)
    ]
    assert ask(lambda data: data.imgmatch.near_duplicates(5, "phash", **rule)).rows() == expected
    near = left.imgmatch.match(right, 5, "phash")
    expected = [(i, j, distance) for i, j, distance in near.rows() if counts(a[i], b[j], (i, j))]
    assert ask(lambda data: data.imgmatch.match(right, 5, "phash", **rule)).rows() == expected


def test_pairs_of_copies_that_count():
    hashes = [bytes(31) + b"a", bytes(32), bytes(31) + b"c"]
    frame = pl.DataFrame({"local": [bytes(715)] * 3, "pdq": hashes, "folder": ["a", "a", "b"], "name": ["x", "y", "z"]})
    options = {"flat": "match", "id": "name"}
    names = imgmatch_df.find_copies(frame, **options).select("left_id", "right_id").rows()
    assert names == [("x", "y"), ("x", "z"), ("y", "z")]
    for data in (frame, frame.lazy()):
        for rule, expected in (
            ({"across": "folder"}, [("x", "z"), ("y", "z")]),
            ({"within": "folder"}, [("x", "y")]),
            ({"not_duplicates": pl.DataFrame({"left_id": ["z"], "right_id": ["x"]})}, [("x", "y"), ("y", "z")]),
        ):
            found = imgmatch_df.find_copies(data, **options, **rule).lazy().collect()
            assert found.select("left_id", "right_id").rows() == expected
            found = imgmatch_df.find_copies(data, reference=frame, reference_id="name", **options, **rule)
            named = found.lazy().collect().select("query_id", "reference_id").rows()
            both_ways = set(expected) | {pair[::-1] for pair in expected}
            if "within" in rule:
                both_ways |= {(name, name) for name in "xyz"}
            if "not_duplicates" in rule:  # these are pairs of a query and a reference row, in this order
                both_ways |= {("x", "z"), *((name, name) for name in "xyz")}
            assert set(named) == both_ways


FRAME = pl.DataFrame({"phash": [8, 9, 11, 255], "name": ["a", "b", "c", "d"]}, schema_overrides={"phash": pl.UInt64})


def test_a_protected_row_that_matches_the_reference_is_kept():
    reference_rows = pl.DataFrame({"phash": [8]}, schema={"phash": pl.UInt64})
    rule = {"reference": reference_rows, "protect": pl.col("name").is_in(["b"])}
    found = FRAME.imgmatch.cluster(1, "phash", **rule)
    assert found.select("cluster_id", "kept", "reason", "distance", "joined_at", "reference_id").rows() == [
        (None, False, "in_reference", 0, None, 0),
        (None, True, "protected", 1, None, 0),
        (0, True, "single", 0, 0, None),
        (1, True, "single", 0, 0, None),
    ]
    kept = FRAME.lazy().imgmatch.remove_duplicates(1, "phash", **rule).collect()
    assert kept["name"].to_list() == ["b", "c", "d"]
    assert kept["removed_records"].list.len().to_list() == [0, 0, 0]


def test_rules_hold_among_the_rows_that_no_reference_row_matches():
    reference_rows = pl.DataFrame({"phash": [255]}, schema={"phash": pl.UInt64})
    rows = FRAME.reverse()
    pairs = pl.DataFrame({"left_id": ["b"], "right_id": ["a"]})
    for rule in (
        {"keep": "last", "across": pl.col("name") == "b"},
        {"keep": pl.col("name"), "within": pl.col("name") != "c"},
        {"not_duplicates": pairs, "protect": pl.col("name") == "a"},
    ):
        found = rows.imgmatch.cluster(1, "phash", reference=reference_rows, id="name", **rule)
        alone = rows.filter(pl.col("name") != "d").imgmatch.cluster(1, "phash", id="name", **rule)
        assert_frame_equal(found.filter(pl.col("name") != "d").drop("reference_id"), alone)


def test_the_rule_sees_what_hashing_adds():
    images = pl.DataFrame({"image": [jpeg(draw(1, 160, 120)[::2, ::2]), jpeg(draw(1, 160, 120)), b"broken"]})
    for data in (images, images.lazy()):
        rule = {"keep": -pl.col("our_width").cast(pl.Int64), "protect": pl.col("our_status") != "ok", "prefix": "our_"}
        found = data.imgmatch.cluster(30, source="image", **rule).lazy().collect()
        assert found["our_kept"].to_list() == [False, True, True]
        assert found["our_reason"].to_list() == ["copy", "kept_by_rule", "no_hash"]


def test_names_of_pairs_need_not_be_unique_nor_there():
    frame = pl.DataFrame({"phash": [1, 1, 1, 1], "n": ["a", "a", None, "b"]}, schema_overrides={"phash": pl.UInt64})
    pairs = pl.LazyFrame({"left_id": ["b", None, "zz"], "right_id": ["a", "a", "b"], "note": ["x", "y", "z"]})
    found = frame.imgmatch.near_duplicates(0, "phash", not_duplicates=pairs, id="n").drop("distance").rows()
    assert found == [("a", "a"), ("a", None), ("a", None), (None, "b")]


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        ({"keep": "best"}, imgmatch_df.ArgumentError, "keep must be one of 'first', .*, or expressions, got 'best'"),
        ({"keep": 3}, imgmatch_df.ArgumentError, "keep must be one of .* got 3\nHint: "),
        ({"keep": []}, imgmatch_df.ArgumentError, "keep must be one of"),
        ({"keep": [3]}, imgmatch_df.ArgumentError, "keep must be one of"),
        ({"keep": "smallest"}, imgmatch_df.ColumnError, "keep='smallest' needs a numeric column 'width'"),
        ({"keep": "newest"}, imgmatch_df.ColumnError, "keep='newest' needs a column 'modified' of times"),
        ({"keep": pl.col("nothing")}, imgmatch_df.ColumnError, "keep cannot be read from the frame, .*nothing"),
        ({"protect": "nothing"}, imgmatch_df.ColumnError, "protect cannot be read from the frame"),
        ({"protect": "name"}, imgmatch_df.ColumnError, "protect must be Boolean, got String\nHint: "),
        ({"across": 3}, imgmatch_df.ArgumentError, "across must be a column or an expression, got 3"),
        ({"within": pl.col("a", "b")}, imgmatch_df.ColumnError, "within cannot be read from the frame"),
        ({"not_duplicates": "pairs.csv"}, imgmatch_df.ArgumentError, "not_duplicates must be a frame"),
        ({"not_duplicates": pl.DataFrame({"left_id": [0]})}, imgmatch_df.ColumnError, "needs columns 'left_id' and"),
        (
            {"not_duplicates": pl.DataFrame({"left_id": ["a"], "right_id": ["b"]})},
            imgmatch_df.ColumnError,
            "has dtype String, row numbers are integers\nHint: id= names",
        ),
    ],
)
def test_mistakes_are_named_before_anything_is_hashed(rule, error, message):
    images = FRAME.rename({"phash": "number"}).with_columns(image=pl.lit("no such file.jpg"))
    for data in (FRAME, FRAME.lazy()):
        for verb in (imgmatch_df.cluster, imgmatch_df.remove_duplicates):
            with pytest.raises(error, match=message):
                verb(data, 1, "phash", **rule)
    if "'smallest'" not in message:  # hashing makes width and height
        with pytest.raises(error, match=message):
            imgmatch_df.cluster(images, 1, source="image", **rule)


def test_names_of_another_dtype_are_an_error():
    frame = FRAME.with_columns(n=pl.int_range(4))
    pairs = pl.DataFrame({"left_id": ["a"], "right_id": ["b"]})
    with pytest.raises(imgmatch_df.ColumnError, match="names rows by String, the values of 'n' are Int64"):
        frame.imgmatch.cluster(1, "phash", not_duplicates=pairs, id="n")


def test_match_needs_the_columns_on_both_sides():
    with pytest.raises(imgmatch_df.ColumnError, match=r"read from both sides, .*'phash'"):
        FRAME.imgmatch.match(FRAME.select("phash"), 1, "phash", across="name")


def test_a_linkage_of_a_plugin_takes_no_conditions(monkeypatch):
    from imgmatch_df.matching.linkages import LINKAGES, Linkage

    monkeypatch.setitem(LINKAGES, "none", Linkage("joins none", False, lambda *arguments: arguments[3]))
    with pytest.raises(imgmatch_df.ArgumentError, match="linkage='none' takes no across, within and not_duplicates"):
        FRAME.imgmatch.cluster(1, "phash", linkage="none", across="name")


def test_equal_hashes_of_many_values_are_searched_once():
    n = 50_000
    frame = pl.DataFrame({"phash": [7] * n, "user": range(n)}, schema_overrides={"phash": pl.UInt64})
    found = frame.imgmatch.cluster(0, "phash", across="user")
    assert found["kept"].sum() == 1
    assert frame.imgmatch.cluster(0, "phash", within="user")["kept"].all()


@pytest.mark.parametrize("pair", [(0, 2), (2, 0)])
@pytest.mark.parametrize("keep", ["first", "last"])
def test_a_row_that_meets_a_row_of_which_it_is_no_duplicate(pair, keep):
    frame = FRAME.head(3)
    found = frame.imgmatch.cluster(2, "phash", keep=keep, not_duplicates=not_duplicates([pair]))
    best, other = (0, 2) if keep == "first" else (2, 0)
    assert found["representative_id"].to_list() == [best] * 3
    assert found["reason"][other] == "not_duplicate"
    assert found["kept"].to_list() == [True, False, True]


def test_equal_hashes_of_a_pair_that_does_not_count_meet_through_a_third():
    frame = pl.DataFrame({"phash": [9, 9, 9]}, schema={"phash": pl.UInt64})
    rule = {"not_duplicates": not_duplicates([(0, 1)])}
    found = frame.imgmatch.cluster(0, "phash", **rule)
    assert found["reason"].to_list() == ["kept_first", "not_duplicate", "copy"]
    assert frame.head(2).imgmatch.cluster(0, "phash", **rule)["reason"].to_list() == ["single"] * 2
    found = frame.imgmatch.cluster(0, "phash", linkage="star", **rule)
    assert found["reason"].to_list() == ["kept_first", "single", "copy"]


@pytest.mark.parametrize("hashes", ["phash", "flat"])
def test_equal_rows_of_one_folder_meet_through_another(hashes):
    frame = pl.DataFrame({"phash": [9, 9, 9], "folder": ["a", "a", "b"]}, schema_overrides={"phash": pl.UInt64})
    if hashes == "flat":
        frame = frame.with_columns(quality=pl.lit(3, pl.UInt8), sha256=pl.lit(b"one file"))
    for linkage, reasons in (
        ("connected", ["kept_first", "same_value", "copy"]),
        ("star", ["kept_first", "single", "copy"]),
    ):
        found = frame.imgmatch.cluster(0, "phash", across="folder", linkage=linkage)
        assert found["reason"].to_list() == reasons
        alone = frame.head(2).imgmatch.cluster(0, "phash", across="folder", linkage=linkage)
        assert alone["reason"].to_list() == ["single"] * 2
