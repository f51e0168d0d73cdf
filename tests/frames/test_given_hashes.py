"""Hashes in the forms of other programs: one value, or a column, gives what the hash itself gives, in every verb."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal

import imgmatch_df
from imgmatch_df.hashes import forms
from imgmatch_df.hashes.kinds import KINDS, hash_kind

KIND_NAMES = ["phash", "bmh1", "pdq", "imagehash_phash", "imagehash_phash16"]
ERRORS = (imgmatch_df.ColumnError, pl.exceptions.ComputeError)


def draw_hashes(kind, seed=0, n=12):
    """Return hashes some of which are near, as a column with a null; the padding of bmh1 is 0."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((n, kind.n_chars), np.uint8)
    rows[:, : kind.n_bits] = rng.integers(0, 2, (n, kind.n_bits))
    rows[n // 2 :] = rows[: n - n // 2]
    rows[n // 2 :, 1] ^= 1
    values = [bytes(row) for row in np.packbits(rows, axis=1)]
    found = [int.from_bytes(value, "big") for value in values] if kind.is_number else values
    return pl.Series(kind.name, [*found, None], dtype=kind.dtype)


def written(column, kind):
    """Return a column of hashes in every other form."""
    bits = column.imgmatch.to_bits()
    lists = [None if text is None else [one == "1" for one in text] for text in bits]
    short = [None if row is None else row[: kind.n_bits] for row in lists]
    data = [None if text is None else list(bytes.fromhex(text)) for text in column.imgmatch.to_hex()]
    half = kind.n_chars // 8
    grid = [None if row is None else [row[at : at + half] for at in range(0, kind.n_chars, half)] for row in lists]
    ones = [None if row is None else [int(bit) for bit in row] for row in short]
    made = {
        "0/1": bits,
        "hex": column.imgmatch.to_hex(),
        "HEX": " 0x" + column.imgmatch.to_hex().str.to_uppercase() + " ",
        "booleans": pl.Series(lists, dtype=pl.List(pl.Boolean)),
        "booleans without padding": pl.Series(short, dtype=pl.List(pl.Boolean)),
        "array of booleans": pl.Series(lists, dtype=pl.Array(pl.Boolean, kind.n_chars)),
        "grid": pl.Series(grid, dtype=pl.List(pl.List(pl.Boolean))),
        "grid in an array": pl.Series(grid, dtype=pl.Array(pl.Boolean, (8, half))),
        "bytes": pl.Series(data, dtype=pl.List(pl.UInt8)),
        "array of bytes": pl.Series(data, dtype=pl.Array(pl.UInt8, kind.n_bytes)),
        "numbers 0 and 1": pl.Series(ones, dtype=pl.List(pl.Int64)),
    }
    if kind.is_number:
        made |= {"decimal": column.cast(pl.String), "signed": column.reinterpret(signed=True).cast(pl.String)}
    return {name: one.alias(column.name) for name, one in made.items()}


FORMS = list(written(draw_hashes(KINDS["phash"]), KINDS["phash"]))
COLUMNS = [(name, form) for name in KIND_NAMES for form in written(draw_hashes(KINDS[name]), KINDS[name])]


def verbs(hash_type):
    """Return the verbs as functions of a frame and a reference frame."""
    radius = 3
    return {
        "near_duplicates": lambda f, _: f.imgmatch.near_duplicates(radius, hash_type, id="name"),
        "match": lambda f, g: f.imgmatch.match(g, radius, hash_type, reference_id="name"),
        "cluster": lambda f, _: f.imgmatch.cluster(radius, hash_type, diameter=True),
        "cluster with a reference": lambda f, g: f.imgmatch.cluster(radius, hash_type, reference=g),
        "remove_duplicates": lambda f, _: f.imgmatch.remove_duplicates(radius, hash_type),
        "rank_images": lambda f, g: f.imgmatch.rank_images("0" * hash_kind(hash_type).n_chars, hash_type),
        "hamming": lambda f, g: f.select(pl.col(hash_type).imgmatch.hamming(pl.col("other"), hash_type=hash_type)),
    }


def with_name(column, other):
    return pl.DataFrame([column, other.alias("other"), pl.Series("name", map(str, range(len(column))))])


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("hash_type", "form"), COLUMNS)
def test_a_column_in_any_form_gives_what_its_hashes_give(hash_type, form, lazy):
    kind = KINDS[hash_type]
    hashes = draw_hashes(kind)
    others = pl.concat([draw_hashes(kind, seed=1, n=10).reverse(), hashes[2:4]])
    wanted = with_name(hashes, others)
    known = with_name(others, hashes)
    mine = with_name(written(hashes, kind)[form], written(others, kind)[form])
    theirs = with_name(written(others, kind)[form], written(hashes, kind)[form])
    for name, verb in verbs(hash_type).items():
        expected = verb(wanted, known)
        for left, right in ((mine, theirs), (mine, known), (wanted, theirs)):
            found = verb(left.lazy(), right.lazy()).collect() if lazy else verb(left, right)
            hidden = [hash_type, "other", "removed_records"]
            assert_frame_equal(found.drop(hidden, strict=False), expected.drop(hidden, strict=False))
            assert found.height > 0, name
    assert mine.imgmatch.cluster(3, hash_type)[hash_type].to_list() == mine[hash_type].to_list()


@given(st.lists(st.none() | st.integers(0, 2**64 - 1), max_size=12), st.sampled_from(FORMS))
def test_columns_round_trip(values, form):
    kind = KINDS["phash"]
    column = pl.Series("phash", values, dtype=pl.UInt64)
    if form == "decimal" and all(value is None or len(str(value)) == 16 for value in values):
        return  # 16 digits are hexadecimal
    assert_series_equal(forms.read_column(written(column, kind)[form], kind), column)


def test_a_form_is_that_of_the_whole_column():
    """A part of a column of decimals, such as the rows without a reference row, may look hexadecimal."""
    numbers = [1234567890123456, 1234567890123457, 5, None]
    frame = pl.DataFrame({"phash": pl.Series(numbers, dtype=pl.UInt64)})
    text = frame.with_columns(pl.col("phash").cast(pl.String))
    known = pl.DataFrame({"phash": pl.Series([5], dtype=pl.UInt64)})
    for data in (text, text.lazy()):
        found = data.imgmatch.cluster(1, "phash", reference=known)
        assert_frame_equal(
            found.lazy().collect().drop("phash"), frame.imgmatch.cluster(1, "phash", reference=known).drop("phash")
        )
    streamed = text.lazy().select(pl.col("phash").imgmatch.hamming(5, hash_type="phash"))
    assert streamed.collect(engine="streaming").to_series().to_list() == [(n ^ 5).bit_count() for n in numbers[:3]] + [
        None
    ]


BAD = {
    "text": (["0" * 16, None, "x"], r"holds 'x' \(1 characters\) in row 2 \(from 0\), a phash is 64 characters of 0"),
    "another form": (["1", "2", "b9b9534546d1a2e9"], r"in row 2 \(from 0\) in another form than the values before it"),
    "a number too large": (["18446744073709551616"], r"in row 0 \(from 0\), a phash is 64"),
    "a list too short": ([[True] * 64, None, [True] * 63], r"holds 63 values, and 64 in the rows before it in row 2"),
    "lists too short": (
        [None, [True] * 63],
        r"holds 63 values in row 1 \(from 0\), a phash is a list of 64 bits, or of 8",
    ),
    "a null in a list": ([[1] * 8, [1] * 7 + [None]], r"holds null in row 1 \(from 0\)"),
    "an empty list": ([[1] * 8, None, []], r"holds an empty list or null in row 2 \(from 0\)"),
    "a null in a grid": ([[[True] * 8] * 8, [[True] * 8] * 7 + [None]], r"holds an empty list or null in row 1"),
    "a number above 255": ([[0] * 8, [0] * 7 + [256]], r"holds the number 256 in row 1 \(from 0\)"),
    "a number below 0": ([None, [-1] * 8], r"holds the number -1 in row 1 \(from 0\)"),
    "a bit of 2": ([[0] * 63 + [2]], r"holds the number 2 in row 0 \(from 0\)"),
}


@pytest.mark.parametrize("bad", BAD)
def test_the_first_value_that_is_not_a_hash_is_named_with_its_row(bad):
    values, message = BAD[bad]
    column = pl.Series("phash", values)
    frame, known = column.to_frame(), pl.DataFrame({"phash": pl.Series([1], dtype=pl.UInt64)})
    for data in (frame, frame.lazy()):
        for call in (
            lambda data=data: data.imgmatch.near_duplicates(3, "phash"),
            lambda data=data: data.imgmatch.match(known, 3, "phash"),
            lambda data=data: known.lazy().imgmatch.match(data, 3, "phash"),
            lambda data=data: data.imgmatch.cluster(3, "phash"),
            lambda data=data: known.lazy().imgmatch.cluster(3, "phash", reference=data),
            lambda data=data: data.imgmatch.remove_duplicates(3, "phash"),
            lambda data=data: data.imgmatch.rank_images(0, "phash"),
            lambda data=data: data.select(pl.col("phash").imgmatch.hamming(0, hash_type="phash")),
        ):
            with pytest.raises(ERRORS, match=rf"(?s)column 'phash' .*{message}.*\nHint: "):
                call().lazy().collect()


def value_forms(value, kind):
    """Return one hash in the forms of one value."""
    number = value if kind.is_number else int.from_bytes(value, "big")
    data = number.to_bytes(kind.n_bytes, "big")
    text = [f"{number:0{kind.n_chars}b}", data.hex(), data.hex().upper(), f"0x{data.hex()}", f" {data.hex()}\n"]
    decimals = [f"{number}", f"{number - 2**64}" if number >= 2**63 else f"+{number}"] if kind.is_number else []
    ints = [number, np.uint64(number), number - 2**64 if number >= 2**63 else number] if kind.is_number else []
    return [*text, *decimals, *ints, data, bytearray(data), memoryview(data)]


@pytest.mark.parametrize("hash_type", KIND_NAMES)
def test_a_value_in_any_form_is_its_hash(hash_type, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind = KINDS[hash_type]
    hashes = draw_hashes(kind)
    frame = hashes.to_frame()
    for value in (hashes[0], hashes[4]):
        expected = frame.imgmatch.rank_images(value, hash_type)
        for one in value_forms(value, kind):
            assert_frame_equal(frame.imgmatch.rank_images(one, hash_type), expected)
            # the only kind of hash in the frame
            assert_frame_equal(frame.lazy().imgmatch.rank_images(one).collect(), expected)
            for distances in (
                frame.select(pl.col(hash_type).imgmatch.hamming(one)).to_series(),
                hashes.imgmatch.hamming(one, hash_type=hash_type),
            ):
                assert sorted(distances.drop_nulls()) == expected["distance"].drop_nulls().to_list()


def test_the_zeros_of_one_length_are_those_of_the_column():
    """64 zeros are the 0/1 string of a phash, and the digits of a pdq."""
    frame = pl.DataFrame({"phash": pl.Series([3], dtype=pl.UInt64), "pdq": [bytes([7] * 32)]})
    zeros = "0" * 64
    found = frame.select(pl.col("phash").imgmatch.hamming(zeros), pdq=pl.col("pdq").imgmatch.hamming(zeros))
    assert found.row(0) == (2, 96)
    assert frame.select("pdq").imgmatch.rank_images(zeros)["distance"].item() == 96
    assert frame.imgmatch.rank_images(zeros)["distance"].item() == 2  # 0/1 comes first


@pytest.mark.parametrize(
    ("columns", "query", "kinds"),
    [
        (["phash", "imagehash_phash", "bmh1"], "0" * 16, "phash, imagehash_phash"),
        (["phash", "imagehash_phash"], 5, "phash, imagehash_phash"),
        (["pdq", "imagehash_phash16", "phash"], "ab" * 32, "pdq, imagehash_phash16"),
        (["pdq", "imagehash_dhash16", "phash"], bytes(32), "pdq, imagehash_dhash16"),
    ],
)
def test_a_value_of_several_kinds_is_refused_with_their_names(columns, query, kinds):
    frame = pl.DataFrame({name: pl.Series([None], dtype=KINDS[name].dtype) for name in columns})
    for data in (frame, frame.lazy()):
        with pytest.raises(imgmatch_df.ArgumentError, match=f"several kinds: {kinds}\nHint: hash_type names the kind"):
            data.imgmatch.rank_images(query)
        for name in kinds.split(", "):
            assert data.imgmatch.rank_images(query, name).lazy().collect().height == 1


@pytest.mark.parametrize("value", ["", "x", "12", "0" * 15, "g" * 16, "0x", "18446744073709551616", b"", 2**64, 1.5])
def test_what_is_no_value_of_a_kind_is_refused(value):
    for kind in ("bmh1", "pdq"):
        with pytest.raises(imgmatch_df.ArgumentError, match=f"a {kind} is .* hexadecimal digits.*\nHint: "):
            pl.col(kind).imgmatch.hamming(value, hash_type=kind)
    with pytest.raises(imgmatch_df.ArgumentError, match="hash_type must be one of"):
        pl.col("phash").imgmatch.hamming(1, hash_type="md5")


def test_digits_that_name_a_file_are_the_file(tmp_path, monkeypatch):
    from drawing import draw, jpeg

    monkeypatch.chdir(tmp_path)
    image = jpeg(draw(1, 30, 30))
    hashed = pl.DataFrame({"url": [image]}).imgmatch.visual_hash("url")
    (tmp_path / "deadbeefdeadbeef").write_bytes(image)
    (tmp_path / "12").write_bytes(image)
    for name in ("deadbeefdeadbeef", "12"):
        assert hashed.imgmatch.rank_images(name, "phash")["distance"].item() == 0
        monkeypatch.chdir("/")
        assert hashed.imgmatch.rank_images(name, "phash", base_dir=tmp_path)["distance"].item() == 0
        distance = (hashed["phash"][0] ^ (0xDEADBEEFDEADBEEF if name != "12" else 12)).bit_count()
        assert hashed.imgmatch.rank_images(name, "phash")["distance"].item() == distance
        monkeypatch.chdir(tmp_path)


def named_verbs(hash_type, mine, theirs):
    """Return the verbs as functions of a frame with the column `mine`, and of a reference frame with `theirs`."""
    other = {} if theirs in (mine, hash_type) else {"reference_column": theirs}
    given = {"hash_type": hash_type, "column": mine}
    return {
        "near_duplicates": lambda f, _: f.imgmatch.near_duplicates(3, **given, id="name"),
        "match": lambda f, g: f.imgmatch.match(g, 3, **given, **other, id="name", reference_id="name"),
        "cluster": lambda f, g: f.imgmatch.cluster(3, **given, **other, reference=g, reference_id="name"),
        "remove_duplicates": lambda f, g: f.imgmatch.remove_duplicates(3, **given, **other, reference=g),
        "rank_images": lambda f, _: f.imgmatch.rank_images("0" * 2 * hash_kind(hash_type).n_bytes, **given),
    }


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(("mine", "theirs"), [("a", "a"), ("a", "b"), ("a", None), (None, "b"), ("id", "hash")])
@pytest.mark.parametrize("hash_type", ["imagehash_phash", "pdq"])
def test_a_column_of_another_name(hash_type, mine, theirs, lazy):
    kind = KINDS[hash_type]
    hashes = draw_hashes(kind)
    others = pl.concat([draw_hashes(kind, seed=1, n=10).reverse(), hashes[2:4]])
    names = pl.Series("name", map(str, range(len(hashes))))
    ours, known = pl.DataFrame([names, hashes]), pl.DataFrame([names[: len(others)], others])
    foreign = pl.DataFrame([names, hashes.imgmatch.to_hex().alias(mine or hash_type)])
    if mine and kind.is_number:
        foreign = foreign.with_columns(pl.Series(hash_type, ["another column"] * len(hashes)))
    reference = known.rename({hash_type: theirs or hash_type})
    for name, verb in named_verbs(hash_type, mine, theirs or hash_type).items():
        expected = named_verbs(hash_type, None, hash_type)[name](ours, known)
        found = verb(foreign.lazy(), reference.lazy()).collect() if lazy else verb(foreign, reference)
        hidden = [hash_type, mine or hash_type, "removed_records"]
        assert_frame_equal(found.drop(hidden, strict=False), expected.drop(hidden, strict=False))
        if mine and mine in found.columns:
            assert found.columns[-1] in (mine, hash_type)
    if mine:
        text = foreign.imgmatch.explain_near_duplicates(3, hash_type, column=mine)
        assert text == ours.imgmatch.explain_near_duplicates(3, hash_type)
        removed = foreign.imgmatch.remove_duplicates(3, hash_type, column=mine)
        assert mine in removed.schema["removed_records"].inner.to_schema()


def test_columns_that_cannot_be_named(tmp_path):
    frame = pl.DataFrame({"a": pl.Series([1], dtype=pl.UInt64), "url": ["x"]})
    frame.select("url").imgmatch.write_hashes(tmp_path / "store.duckdb", source="url")
    for data in (frame, frame.lazy()):
        for call, error, message in (
            (
                lambda f: f.imgmatch.cluster(0, "phash", column="b"),
                imgmatch_df.ColumnError,
                "no column 'b' in the frame",
            ),
            (
                lambda f: f.imgmatch.cluster(0, "bmh1", column="a"),
                imgmatch_df.ColumnError,
                "'a' has dtype UInt64, a bmh1",
            ),
            (
                lambda f: f.imgmatch.near_duplicates(0, column=pl.col("a")),
                imgmatch_df.ArgumentError,
                "column must be the",
            ),
            (
                lambda f: f.imgmatch.cluster(0, "phash", column="a", source="url"),
                imgmatch_df.ArgumentError,
                "column has no effect with source=",
            ),
            (
                lambda f: f.imgmatch.cluster(0, "phash", column="a", reference_column="a"),
                imgmatch_df.ArgumentError,
                "reference_column has no effect without reference=",
            ),
            (
                lambda f: f.imgmatch.match(f, 0, "phash", column="a", reference_column="b"),
                imgmatch_df.ColumnError,
                "no column 'b' in the frame",
            ),
            (
                lambda f: f.imgmatch.match(tmp_path / "store.duckdb", 0, "phash", column="a", reference_column="a"),
                imgmatch_df.ArgumentError,
                "reference_column is for frames, and reference is a store",
            ),
        ):
            with pytest.raises(error, match=rf"{message}.*\n?.*\nHint: |{message}.*\nHint: "):
                call(data)
        assert data.imgmatch.match(tmp_path / "store.duckdb", 0, "phash", column="a").lazy().collect().height == 0


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("target", ["hashes.duckdb", "hashes.parquet"])
@pytest.mark.parametrize(
    ("hash_type", "form"), [("phash", form) for form in FORMS] + [("pdq", "hex"), ("bmh1", "grid")]
)
def test_stores_take_every_form_of_a_kind_that_is_named(tmp_path, hash_type, form, target, lazy):
    kind = KINDS[hash_type]
    hashes = draw_hashes(kind)
    frame = pl.DataFrame({"source": map(str, range(len(hashes))), hash_type: written(hashes, kind)[form]})
    path = tmp_path / target
    summary = imgmatch_df.write_hashes(frame.lazy() if lazy else frame, path, hash_types=hash_type)
    assert (summary.n_new, summary.n_failed) == (len(hashes), 1)
    stored = imgmatch_df.read_hashes(path).sort(pl.col("source").cast(pl.Int64))
    assert_series_equal(stored[hash_type], hashes)


def test_stores_refuse_text_of_a_kind_that_is_not_named_and_text_that_is_no_hash(tmp_path):
    frame = pl.DataFrame({"source": ["a", "b"], "phash": ["00000000000000ff", "ff"]})
    for target in ("hashes.duckdb", "hashes.parquet"):
        path = tmp_path / target
        with pytest.raises(imgmatch_df.ColumnError, match="has dtype String, a phash is UInt64"):
            imgmatch_df.write_hashes(frame, path)
        with pytest.raises(imgmatch_df.ColumnError, match="holds 'ff'"):
            imgmatch_df.write_hashes(frame, path, hash_types="phash")
        assert not path.exists()
