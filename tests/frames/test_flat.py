"""Images with little to see match identical files only, in every verb, and are compared as others on demand."""

import io
import json
from hashlib import sha256

import numpy as np
import polars as pl
import pytest
from drawing import draw, jpeg
from hypothesis import given
from hypothesis import strategies as st
from low_content import images
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.cli.app import app
from imgmatch_df.hashes.kinds import KINDS

ENGINES = ["eager", "in-memory", "streaming"]
ROW = st.tuples(
    st.none() | st.sampled_from([0, 1, 3, 8, 9, 255]),  # hash
    st.none() | st.sampled_from([0, 49, 50, 100]),  # quality
    st.none() | st.sampled_from(["a", "b"]),  # digest
)


@pytest.fixture(scope="module")
def drawn():
    """A hundred images with little to see, and their hashes."""
    encoded = []
    for image in images().values():
        stream = io.BytesIO()
        image.save(stream, "PNG")
        encoded.append(stream.getvalue())
    frame = pl.DataFrame({"name": list(images()), "image": encoded})
    return frame.imgmatch.visual_hash("image", hash_types=["bmh1", "phash", "pdq", "sha256"])


def ask(frame, engine, call):
    return call(frame) if engine == "eager" else call(frame.lazy()).collect(engine=engine)


def frame_of(rows):
    schema = {"phash": pl.UInt64, "quality": pl.UInt8, "sha256": pl.String}
    return pl.DataFrame(rows, schema, orient="row").with_columns(pl.col("sha256").cast(pl.Binary))


def is_flat(row):
    value, quality, _ = row
    return value is not None and (value == 0 if quality is None else quality < 50)


def distance(left, right, radius):
    """Return the distance of two rows that match, else None."""
    if left[0] is None or right[0] is None:
        return None
    if is_flat(left) or is_flat(right):
        same = is_flat(left) and is_flat(right) and left[2] is not None and left[2] == right[2]
        return 0 if same else None
    bits = (left[0] ^ right[0]).bit_count()
    return bits if bits <= radius else None


@pytest.mark.filterwarnings("ignore::imgmatch_df.ImgMatchWarning")
@given(st.lists(ROW, max_size=12), st.lists(ROW, max_size=8), st.integers(0, 3))
def test_every_verb_equals_a_double_loop(rows, others, radius):
    frame, other = frame_of(rows), frame_of(others)
    pairs = [
        (i, j, found)
        for i, left in enumerate(rows)
        for j, right in enumerate(rows)
        if i < j and (found := distance(left, right, radius)) is not None
    ]
    assert frame.imgmatch.near_duplicates(radius, "phash").rows() == pairs
    matches = [
        (i, j, found)
        for i, left in enumerate(rows)
        for j, right in enumerate(others)
        if (found := distance(left, right, radius)) is not None
    ]
    assert frame.imgmatch.match(other, radius, "phash").rows() == matches
    joined = list(range(len(rows)))  # the first row of the cluster of each row
    for _ in rows:
        for i, j, _ in pairs:
            joined[i] = joined[j] = min(joined[i], joined[j])
    clustered = frame.imgmatch.cluster(radius, "phash")
    assert clustered["representative_id"].to_list() == joined
    kept = frame.imgmatch.remove_duplicates(radius, "phash")
    assert kept.select(frame.columns).rows() == [frame.row(row) for row in sorted(set(joined))]
    against = frame.imgmatch.cluster(radius, "phash", reference=other)
    nearest = [
        min(((found, j) for i, j, found in matches if i == row), default=(None, None))[1] for row in range(len(rows))
    ]
    assert against["reference_id"].to_list() == nearest
    ranked = frame.with_row_index("row").imgmatch.rank_images(1, "phash")
    order = [(value ^ 1).bit_count() for value, *_ in (row for row in rows if row[0] is not None and not is_flat(row))]
    assert ranked["distance"].drop_nulls().to_list() == sorted(order)
    plain = frame.select("phash").imgmatch.near_duplicates(radius, "phash", flat="match")
    assert frame.imgmatch.near_duplicates(radius, "phash", flat="match").equals(plain)


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_give_the_same(drawn, engine):
    for call in (
        lambda data: data.imgmatch.near_duplicates(24, id="name"),
        lambda data: data.imgmatch.match(drawn, 24),
        lambda data: data.imgmatch.cluster(24, reference=drawn[:50]),
        lambda data: data.imgmatch.remove_duplicates(24),
        lambda data: data.imgmatch.rank_images(bytes(121)),
    ):
        assert_frame_equal(ask(drawn, engine, call), call(drawn))


@pytest.mark.parametrize("engine", ENGINES)
def test_images_are_hashed_with_what_the_guard_needs(drawn, engine):
    """With `source`, results are those of a frame that has quality and digest; the digest is not shown."""
    encoded = pl.concat([drawn[::7], drawn[:2]]).select("name", "image")
    hashed = encoded.imgmatch.visual_hash("image", hash_types=["bmh1", "sha256"])
    for call in (
        lambda data, **more: data.imgmatch.near_duplicates(24, **more),
        lambda data, **more: data.imgmatch.match(drawn, 24, **more),
    ):
        assert_frame_equal(ask(encoded, engine, lambda data, call=call: call(data, source="image")), call(hashed))
    for call in (
        lambda data, **more: data.imgmatch.cluster(24, **more),
        lambda data, **more: data.imgmatch.remove_duplicates(24, **more).drop("removed_records"),
        lambda data, **more: data.imgmatch.rank_images(bytes(121), **more),
    ):
        out = ask(encoded, engine, lambda data, call=call: call(data, source="image"))
        assert "sha256" not in out.columns
        assert_frame_equal(out, call(hashed).drop("sha256"))
    removed = ask(encoded, engine, lambda data: data.imgmatch.remove_duplicates(24, source="image"))
    assert "sha256" not in removed["removed_records"].explode().struct.unnest().columns


def test_few_images_with_little_to_see_get_a_false_partner(drawn):
    def n_partners(radius, hash_type, **more):
        pairs = drawn.imgmatch.near_duplicates(radius, hash_type, **more)
        return len(set(pairs["left_id"]) | set(pairs["right_id"]))

    for hash_type, most in (("bmh1", 6), ("phash", 8), ("pdq", 0)):
        assert n_partners(KINDS[hash_type].near_radius, hash_type) <= most
    assert n_partners(24, "bmh1", flat="match") > 6  # so the images are of the kind that needs the guard
    assert n_partners(4, "phash", flat="match") > 8


def test_the_measure_agrees_with_that_of_pdq(drawn):
    photos = pl.DataFrame({"image": [jpeg(draw(seed, 200 + 9 * seed, 170)) for seed in range(60)]})
    both = pl.concat([drawn.select("image"), photos]).imgmatch.visual_hash("image", hash_types="pdq")
    agree = (both["quality"] >= 50) == (both["pdq_quality"] >= 50)
    assert agree.mean() >= 0.98
    assert {True, False} == set(both["quality"] >= 50)


def test_quality_is_the_same_for_every_turn():
    pixels = draw(3, 256, 256)
    turned = [np.rot90(one, turn) for one in (pixels, pixels[:, ::-1]) for turn in range(4)]
    encoded = []
    for one in turned:
        stream = io.BytesIO()
        from PIL import Image

        Image.fromarray(np.ascontiguousarray(one)).save(stream, "PNG")
        encoded.append(stream.getvalue())
    assert pl.DataFrame({"image": encoded}).imgmatch.visual_hash("image")["quality"].n_unique() == 1


def test_flat_rows_without_digests_are_said():
    frame = pl.DataFrame({"phash": [0, 0, 0, 9]}, schema={"phash": pl.UInt64})
    with pytest.warns(imgmatch_df.ImgMatchWarning, match="3 images show too little.*sha256.*\nHint: "):
        assert frame.imgmatch.cluster(4, "phash")["kept"].to_list() == [True] * 4
    assert frame[2:].imgmatch.cluster(2, "phash")["kept"].to_list() == [True] * 2  # one alone has no partner to miss
    with pytest.raises(imgmatch_df.ArgumentError, match=r"flat must be one of 'identical', 'match'.*\nHint: "):
        frame.imgmatch.cluster(4, "phash", flat="drop")


def test_digests_may_be_hexadecimal():
    digest = sha256(b"1").digest()
    frame = pl.DataFrame({"phash": [0, 0, 0], "sha256": [digest.hex().upper(), digest.hex(), None]})
    frame = frame.with_columns(pl.col("phash").cast(pl.UInt64))
    assert frame.imgmatch.near_duplicates(0, "phash").rows() == [(0, 1, 0)]
    binary = pl.DataFrame({"phash": [0], "sha256": [digest]}, schema={"phash": pl.UInt64, "sha256": pl.Binary})
    assert frame.imgmatch.match(binary, 0, "phash").rows() == [(0, 0, 0), (1, 0, 0)]


def test_too_many_identical_images_are_refused():
    frame = pl.DataFrame({"phash": [0] * 100, "sha256": ["a"] * 100}).with_columns(pl.col("phash").cast(pl.UInt64))
    with pytest.raises(imgmatch_df.ArgumentError, match="more than max_pairs=4,949 pairs"):
        frame.imgmatch.near_duplicates(0, "phash", max_pairs=4949)
    with pytest.raises(imgmatch_df.ArgumentError, match="more than max_pairs=9,999 pairs"):
        frame.imgmatch.match(frame, 0, "phash", max_pairs=9999)
    assert frame.imgmatch.near_duplicates(0, "phash", max_pairs=4950).height == 4950


def test_on_the_command_line(drawn, tmp_path):
    for name, image in (
        drawn.filter(pl.col("name").str.contains("^(flat|gradient)")).select("name", "image").iter_rows()
    ):
        (tmp_path / f"{name}.png").write_bytes(image)
    (tmp_path / "same.png").write_bytes((tmp_path / "flat 0.png").read_bytes())

    def run(*words):
        result = CliRunner().invoke(app, ["remove-duplicates", str(tmp_path), "--radius", "24", *words])
        assert result.exit_code == 0, result.output
        return result

    out = tmp_path / "out.csv"
    run("-o", str(out))
    rows = pl.read_csv(out, infer_schema=False)
    assert rows.height == 21
    assert "sha256" not in rows.columns
    assert rows.filter(kept="false")["path"].str.ends_with("same.png").to_list() == [True]
    run("-o", str(out), "--flat", "match")
    plain = pl.read_csv(out, infer_schema=False)["kept"].str.count_matches("true").sum()
    assert plain < 20
    run("-o", str(tmp_path / "out.json"))  # the documented JSON compares plainly
    assert len(json.loads((tmp_path / "out.json").read_text())["records"]) == plain
    for suffix in ("csv", "ndjson", "parquet", "duckdb"):  # what is stored is guarded as what is hashed
        hashes = tmp_path / f"hashes.{suffix}"
        assert CliRunner().invoke(app, ["visual-hash", str(tmp_path), "-o", str(hashes)]).exit_code == 0
        result = CliRunner().invoke(app, ["remove-duplicates", str(hashes), "--radius", "24", "-o", str(out)])
        assert result.exit_code == 0, result.output
        kept = pl.read_csv(out, infer_schema=False)["kept"].to_list()
        assert (kept.count("true"), kept.count("false")) == (20, 1), suffix
    wrong = ["remove-duplicates", str(tmp_path), "--flat", "identical", "-o", str(tmp_path / "out.json")]
    result = CliRunner().invoke(app, wrong)
    assert (result.exit_code, "Hint: --flat match" in result.stderr) == (2, True)


def test_turns_leave_images_with_little_to_see_out():
    frame = frame_of([(0, 10, "a"), (0, 10, "a"), (9, 100, "a"), (0, 10, "b"), (9, 100, None)])
    hashes = {"imagehash_ahash": pl.col("phash")}
    turned = frame.with_columns(**hashes).imgmatch.near_duplicates(0, "imagehash_ahash", turns=True)
    assert turned.rows() == [(0, 1, 0, "none"), (2, 4, 0, "none")]
    other = frame.with_columns(**hashes)[1:]
    matched = frame.with_columns(**hashes).imgmatch.match(other, 0, "imagehash_ahash", turns=True)
    assert matched.rows() == [(0, 0, 0, "none"), (1, 0, 0, "none"), (2, 1, 0, "none"), (2, 3, 0, "none"),
                              (3, 2, 0, "none"), (4, 1, 0, "none"), (4, 3, 0, "none")]  # fmt: skip
    kept = frame.with_columns(**hashes).imgmatch.cluster(0, "imagehash_ahash", turns=True)
    assert kept["kept"].to_list() == [True, False, True, True, False]
    ranked = frame.with_columns(**hashes).imgmatch.rank_images(9, "imagehash_ahash", turns=True)
    assert ranked["turn"].to_list() == ["none", "none", None, None, None]
