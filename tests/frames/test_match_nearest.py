"""`match` with `k` and `columns` equals a slow sort of all pairs, in whatever parts the pairs are found."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import imgmatch_df
from imgmatch_df.hashes.kinds import PDQ

ENGINES = ["eager", "in-memory", "streaming"]


def phashes(numbers):
    return pl.Series("phash", numbers, dtype=pl.UInt64)


def slow(new, old, radius, k=None):
    """(query row, reference row, bits) of the k nearest: a double loop, and a sort."""
    found = []
    for row, one in enumerate(new):
        near = [
            ((one ^ other).bit_count(), place)
            for place, other in enumerate(old)
            if one is not None and other is not None and (one ^ other).bit_count() <= radius
        ]
        found += [(row, place, bits) for bits, place in sorted(near)[:k]]
    return found


def ask(frame, engine, verb):
    return verb(frame) if engine == "eager" else verb(frame.lazy()).collect(engine=engine)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.integers(1, 12)), max_size=12),
    st.lists(st.one_of(st.none(), st.integers(1, 12)), max_size=12),
    st.integers(0, 4),
    st.integers(1, 5),
    st.integers(12, 40),
)
def test_k_is_the_first_of_the_sorted_pairs(new, old, radius, k, max_pairs):
    frame, reference = pl.DataFrame([phashes(new)]), pl.DataFrame([phashes(old)])
    found = frame.imgmatch.match(reference, radius, "phash", k=k, max_pairs=max_pairs)
    assert found.rows() == slow(new, old, radius, k)


@pytest.mark.parametrize("engine", ENGINES)
def test_columns_come_along_in_their_order(engine):
    rng = np.random.default_rng(1)
    new, old = (rng.integers(1, 60, n).tolist() for n in (40, 50))
    frame = pl.DataFrame([phashes(new)])
    reference = pl.DataFrame([phashes(old)]).with_columns(
        pl.Series("category", [f"c{row}" for row in range(50)]),
        pl.Series("tags", [[row] if row % 3 else None for row in range(50)]),
    )
    pairs = slow(new, old, 2, 3)
    found = ask(
        frame,
        engine,
        lambda data: data.imgmatch.match(reference, 2, "phash", k=3, columns=["tags", "category"]),
    )
    assert found.columns == ["query_id", "reference_id", "distance", "tags", "category"]
    assert found.rows() == [
        (row, place, bits, reference["tags"][place] if reference["tags"][place] is None else [place], f"c{place}")
        for row, place, bits in pairs
    ]
    all_pairs = ask(frame, engine, lambda data: data.imgmatch.match(reference, 2, "phash", columns=["category"]))
    assert [row[:3] for row in all_pairs.rows()] == sorted(slow(new, old, 2))


def test_k_comes_after_the_conditions():
    """The nearest row does not hide the next one where its pair does not count."""
    new = pl.DataFrame({"phash": phashes([1]), "label": ["a"], "id": ["q"]})
    old = pl.DataFrame({"phash": phashes([1, 3, 7]), "label": ["a", "b", "b"], "id": ["x", "y", "z"]})
    found = new.imgmatch.match(old, 3, "phash", k=1, across="label", columns=["id"])
    assert found.rows() == [(0, 1, 1, "y")]
    declared = pl.DataFrame({"left_id": ["q"], "right_id": ["x"]})
    found = new.imgmatch.match(old, 3, "phash", k=1, id="id", reference_id="id", not_duplicates=declared)
    assert found.rows() == [("q", "y", 1)]


def test_a_row_is_not_its_own_nearest_in_a_store(tmp_path):
    frame = pl.DataFrame({"source": ["a", "b"], "phash": phashes([1, 3])})
    hashed = frame.with_columns(bmh1=pl.lit(b"\1" * 121), width=pl.lit(1, pl.UInt32), height=pl.lit(1, pl.UInt32))
    imgmatch_df.write_hashes(hashed, tmp_path / "s.duckdb", key="source")
    found = frame.imgmatch.match(tmp_path / "s.duckdb", 1, "phash", k=1, id="source", columns=["width"])
    assert found.rows() == [("a", "b", 1, 1), ("b", "a", 1, 1)]


@pytest.mark.parametrize("max_pairs", [100, 9, 4])
def test_flat_images_match_identical_files_in_every_part(max_pairs):
    quality = pl.Series("quality", [10, 90] * 4, dtype=pl.UInt8)
    new = pl.DataFrame([phashes([5] * 8), quality, pl.Series("sha256", [b"s", b"t"] * 4)])
    old = pl.DataFrame([phashes([5, 4]), quality[:2], pl.Series("sha256", [b"s", b"u"])])
    found = new.imgmatch.match(old, 1, "phash", k=2, max_pairs=max_pairs)
    assert found.rows() == [(row, 0, 0) if row % 2 == 0 else (row, 1, 1) for row in range(8)]


def test_one_row_with_more_pairs_than_allowed_is_an_error():
    new, old = pl.DataFrame([phashes([1])]), pl.DataFrame([phashes([1] * 5)])
    with pytest.raises(imgmatch_df.ArgumentError, match="more than max_pairs=4 pairs"):
        new.imgmatch.match(old, 0, "phash", k=1, max_pairs=4)


@pytest.mark.filterwarnings("ignore:a radius of 128")
def test_pairs_of_turns_are_nearest_first():
    rng = np.random.default_rng(2)
    bits = rng.integers(0, 2, (30, 256), np.uint8)
    rows = [np.packbits(row).tobytes() for row in bits]
    frame = pl.DataFrame({"pdq": pl.Series(rows, dtype=PDQ.dtype)})
    every = frame.imgmatch.match(frame, 128, "pdq", turns=True)
    nearest = frame.imgmatch.match(frame, 128, "pdq", turns=True, k=2)
    expected = every.sort("query_id", "distance", "reference_id").group_by("query_id", maintain_order=True).head(2)
    assert_frame_equal(nearest, expected)
    assert nearest["turn"].n_unique() > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be a whole number of at least 1, got 0"),
        ({"k": 1.5}, "k must be"),
        ({"columns": "category"}, "columns must be a list of names, got 'category'"),
        ({"columns": ["absent"]}, "no column 'absent' in the reference, it has 'phash', 'category', 'distance'"),
        ({"columns": [3]}, "columns must be the name of a column, got 3"),
        ({"columns": ["category", "category"]}, "columns names 'category' more than once"),
        ({"columns": ["distance"]}, "a column 'distance', and this call adds one of that name"),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_wrong_arguments_raise_at_once(arguments, message, lazy):
    old = pl.DataFrame({"phash": phashes([1]), "category": ["a"], "distance": [1]})
    frame = old.lazy() if lazy else old
    with pytest.raises((imgmatch_df.ArgumentError, imgmatch_df.ColumnError), match=message) as caught:
        frame.imgmatch.match(old, 3, "phash", **arguments)
    assert "Hint: " in str(caught.value)


@pytest.mark.filterwarnings("ignore:a radius of 900")
@pytest.mark.parametrize("k", [1, 4, 60])
def test_k_nearest_of_long_hashes_at_any_distance(monkeypatch, k):
    """In one pass or from all pairs, with rows that do not count, flat rows and nulls."""
    from imgmatch_df.matching import neighbours

    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (160, 121), np.uint8)
    noise[:, 120] &= 1
    noise[40:80] = noise[:40] ^ (rng.random((40, 121)) < 0.1)
    noise[40:80, 120] &= 1
    hashes = [row.tobytes() for row in noise]
    hashes[5] = hashes[90] = None
    hashes[7] = hashes[95] = hashes[96] = bytes(121)
    digests = [f"{row:064x}" for row in range(160)]
    digests[7] = digests[95]
    frame = pl.DataFrame(
        {"bmh1": hashes, "sha256": digests, "group": [row % 2 for row in range(160)], "name": range(160)}
    )
    new, old = frame[:70], frame[40:]
    found = []
    for is_faster in (True, False):
        monkeypatch.setattr(neighbours, "is_faster", lambda *_, is_faster=is_faster: is_faster)
        found += [
            imgmatch_df.match(new, old, 900, k=k, **options)
            for options in ({}, {"across": "group"}, {"id": "name", "reference_id": "name", "across": "name"})
        ]
    for one, other in zip(found[:3], found[3:], strict=True):
        assert len(one) > 60
        assert_frame_equal(one, other)
