"""SQL compares images with little to see as the verbs do."""

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import imgmatch_df
from imgmatch_df.store.macros import read_sql

FILES = ("hashes", "near_duplicates", "duplicate_clusters", "remove_duplicates", "rank_images")
ROW = st.tuples(
    st.none() | st.sampled_from([0, 1, 3, 8, 9, 255]),  # hash
    st.none() | st.sampled_from([0, 49, 50, 100]),  # quality
    st.none() | st.sampled_from(["a", "b"]),  # digest
)


@pytest.fixture(scope="module")
def db():
    with duckdb.connect() as connection:
        for name in FILES:
            connection.execute(read_sql(name))
        yield connection


def check(db, frame, radius, hash_type, flat):
    db.register("hashes", frame)
    call = f"{radius}, '{hash_type}', flat := '{flat}'"
    pairs = db.sql(f"FROM near_duplicates({call})").pl()
    assert pairs.rows() == frame.imgmatch.near_duplicates(radius, hash_type, id="source", flat=flat).rows()
    clustered = frame.imgmatch.cluster(radius, hash_type, id="source", flat=flat)
    names = ["cluster_id", "kept", "distance", "representative_id"]
    assert db.sql(f"FROM duplicate_clusters({call})").pl().select(names).rows() == clustered.select(names).rows()
    kept = frame.imgmatch.remove_duplicates(radius, hash_type, flat=flat)
    assert db.sql(f"FROM remove_duplicates({call})").pl()["source"].to_list() == kept["source"].to_list()
    ranked = frame.imgmatch.rank_images(1, hash_type, flat=flat)
    names = ["rank", "distance", "source"]
    assert db.sql(f"FROM rank_images(1, flat := '{flat}')").pl().select(names).rows() == ranked.select(names).rows()


@pytest.mark.filterwarnings("ignore::imgmatch_df.ImgMatchWarning")
@settings(max_examples=25)
@given(st.lists(ROW, min_size=1, max_size=10), st.integers(0, 3), st.sampled_from(["identical", "match"]))
def test_equals_the_verbs(db, rows, radius, flat):
    schema = {"phash": pl.UInt64, "quality": pl.UInt8, "sha256": pl.String}
    frame = pl.DataFrame(rows, schema, orient="row").with_columns(pl.col("sha256").cast(pl.Binary))
    check(db, frame.with_row_index("source"), radius, "phash", flat)


@pytest.mark.filterwarnings("ignore::imgmatch_df.ImgMatchWarning")
@pytest.mark.parametrize("quality", [pl.Int32, pl.Float64, pl.String, pl.Boolean, pl.Binary, pl.UInt64])
def test_a_column_of_another_type_is_no_quality(db, quality):
    column = pl.Series("quality", [1, 1, 0]).cast(pl.String if quality == pl.Binary else quality).cast(quality)
    frame = pl.DataFrame({"source": range(3), "phash": [8, 8, 0]}).with_columns(column, pl.col("phash").cast(pl.UInt64))
    check(db, frame, 2, "phash", "identical")
    assert db.sql("FROM near_duplicates(2, 'phash')").pl().rows() == [(0, 1, 0)]


@pytest.mark.parametrize(
    "value", ["DATE '2020-01-01'", "[1]", "{'a': 1}", "'x'::ENUM ('x')", "1.5", "NULL", "MAP {1: 2}"]
)
def test_a_column_of_any_type_may_be_called_as_ours(db, value):
    db.execute(f"CREATE OR REPLACE TABLE mine AS SELECT 8::UBIGINT AS phash, {value} AS quality, {value} AS sha256")
    db.execute("INSERT INTO mine FROM mine")
    assert db.sql("FROM near_duplicates(0, 'phash', tbl := 'mine', id := NULL)").fetchall() == [(0, 1, 0)]
    assert len(db.sql("FROM rank_images(8, tbl := 'mine')").fetchall()) == 2


def test_blank_bmh1(db):
    hashes = [bytes(121), bytes(121), b"\xff" * 120 + b"\x01", b"\xff" * 120 + b"\x01", b"\xff" * 121, b"\xff" * 121]
    db.register("hashes", pl.DataFrame({"source": range(6), "bmh1": hashes}))
    assert db.sql("FROM near_duplicates(0)").pl().rows() == [(4, 5, 0)]
    assert db.sql("FROM near_duplicates(0, flat := 'match')").pl().height == 3


def test_identical_files_are_near_duplicates_whatever_their_hashes(db):
    rows = [(0, 0, b"a"), (1, 0, b"a"), (0, None, b"a"), (255, 49, b"a"), (255, 49, b"row 5"), (255, 49, None)]
    schema = {"phash": pl.UInt64, "quality": pl.UInt8, "sha256": pl.Binary}
    check(db, pl.DataFrame(rows, schema, orient="row").with_row_index("source"), 0, "phash", "identical")


def test_a_wrong_flat_is_said(db):
    db.register("hashes", pl.DataFrame({"source": [1], "phash": [1]}))
    for verb in ("near_duplicates", "duplicate_clusters", "remove_duplicates"):
        with pytest.raises(duckdb.Error, match=r"flat must be 'identical' or 'match', got drop. Hint: "):
            db.sql(f"FROM {verb}(0, 'phash', flat := 'drop')").fetchall()


def test_a_store_has_what_the_guard_needs(tmp_path):
    from io import BytesIO

    from low_content import images

    encoded = []
    for image in images(2).values():
        stream = BytesIO()
        image.save(stream, "PNG")
        encoded.append(stream.getvalue())
    frame = pl.DataFrame({"key": range(len(encoded) + 1), "image": [*encoded, encoded[0]]})
    imgmatch_df.write_hashes(frame, tmp_path / "h.duckdb", source="image", key="key")
    with duckdb.connect(tmp_path / "h.duckdb") as store:
        pairs = store.sql("FROM near_duplicates(24, id := 'key')").pl()
    assert (0, len(encoded), 0) in pairs.rows()
    stored = imgmatch_df.scan_hashes(tmp_path / "h.duckdb").collect()
    assert pairs.rows() == stored.imgmatch.near_duplicates(24, id="key").rows()
