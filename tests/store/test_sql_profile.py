"""`radius_profile` of SQL counts what `profile_radii` does."""

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import imgmatch_df
from imgmatch_df.store.macros import FILES, read_sql

pytestmark = pytest.mark.long

COUNTS = ["radius", "n_pairs", "n_clusters", "n_removed", "n_largest"]
NEAR = st.integers(0, 63).map(lambda bit: 5 | 1 << bit)
ROW = st.tuples(
    st.none() | st.sampled_from([0, 1, 3, 8, 255]) | NEAR,  # hash
    st.none() | st.sampled_from([49, 50]),  # quality
    st.none() | st.sampled_from(["a", "b"]),  # digest
)


@pytest.fixture(scope="module")
def db():
    with duckdb.connect() as connection:
        for name in FILES:
            connection.execute(read_sql(name))
        yield connection


def check(db, frame, max_radius, hash_type, flat="identical"):
    db.register("hashes", frame)
    found = db.sql(f"FROM radius_profile({max_radius}, '{hash_type}', flat := '{flat}')").pl()
    expected = frame.imgmatch.profile_radii(hash_type, max_radius=max_radius, flat=flat)
    assert_frame_equal(found, expected.select(COUNTS))


@pytest.mark.filterwarnings("ignore::imgmatch_df.ImgMatchWarning")
@settings(max_examples=25, deadline=None)
@given(st.lists(ROW, max_size=12), st.integers(0, 9), st.sampled_from(["identical", "match"]))
def test_equals_profile_radii(db, rows, max_radius, flat):
    schema = {"phash": pl.UInt64, "quality": pl.UInt8, "sha256": pl.String}
    frame = pl.DataFrame(rows, schema, orient="row")
    # Files with different hashes are different.
    check(db, frame.with_columns(pl.format("{}{}", "sha256", "phash").alias("sha256")), max_radius, "phash", flat)


def test_equals_profile_radii_of_bmh1(db):
    hashes = [bytes(120) + b"\x80"] * 3
    for n in range(30):  # chains, two bits a step
        row = bytearray(hashes[0])
        row[n % 5] |= 255 >> (n % 8)
        row[50 + n // 5] |= 7
        hashes.append(bytes(row))
    check(db, pl.DataFrame({"bmh1": hashes}), 20, "bmh1")


def test_errors(db):
    db.register("hashes", pl.DataFrame({"phash": [1, 2, 3, 4]}, schema={"phash": pl.UInt64}))
    for call, message in {
        "65, 'phash'": "radius must be a whole number of bits from 0 to 64",
        "4, 'no'": "hash_type",
        "4, 'phash', max_pairs := 1": "6 pairs, more than max_pairs 1",
        "4, 'phash', flat := 'no'": "flat must be",
    }.items():
        with pytest.raises(duckdb.Error, match=message):
            db.sql(f"FROM radius_profile({call})").fetchall()


def test_a_store_has_the_macro(tmp_path):
    frame = pl.DataFrame({"path": ["a", "b", "c"], "phash": pl.Series([1, 3, 7], dtype=pl.UInt64)})
    imgmatch_df.write_hashes(frame, tmp_path / "h.duckdb", key="path", hash_types="phash")
    with duckdb.connect(tmp_path / "h.duckdb", read_only=True) as connection:
        assert connection.sql("SELECT n_pairs FROM radius_profile(2, 'phash')").fetchall() == [(0,), (2,), (3,)]
