"""Hashes as expressions: equal to OpenCV, decoded once, the same whatever engine, chunks, order or threads run them."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest
from drawing import draw, jpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal

import imgmatch_df
from imgmatch_df.batch import run as batches
from imgmatch_df.image_columns import image_sources
from imgmatch_df.images import decode

ENGINES = ["eager", "in-memory", "streaming"]


def run(frame: pl.DataFrame, engine: str, *exprs: pl.Expr) -> pl.DataFrame:
    if engine == "eager":
        return frame.with_columns(*exprs)
    return frame.lazy().with_columns(*exprs).collect(engine=engine)


def both(column: str = "url", **options: object) -> tuple[pl.Expr, pl.Expr]:
    return pl.col(column).imgmatch.phash(**options), pl.col(column).imgmatch.bmh1(**options)


def opencv_hashes(data: bytes) -> tuple[int, bytes]:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    phash = cv2.img_hash.PHash_create().compute(picture).tobytes()
    return int.from_bytes(phash, "big"), cv2.img_hash.BlockMeanHash_create(1).compute(picture).tobytes()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the pictures that were decoded."""
    sizes: list[int] = []
    original = decode.decode_image

    def counting(data, options):
        sizes.append(len(memoryview(data)))
        return original(data, options)

    monkeypatch.setattr(decode, "decode_image", counting)
    return sizes


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_to_opencv(encoded, engine):
    out = run(pl.DataFrame({"url": encoded}), engine, *both())
    assert list(zip(out["phash"], out["bmh1"], strict=True)) == [opencv_hashes(data) for data in encoded]
    assert out.schema == {"url": pl.Binary, "phash": pl.UInt64, "bmh1": pl.Binary}


def test_some_hash_uses_the_top_bit(encoded):
    assert pl.Series(encoded).imgmatch.phash().max() >= 2**63


@pytest.mark.parametrize("engine", ENGINES)
def test_two_hashes_decode_once(paths, decoded, engine):
    run(paths, engine, *both())
    assert len(decoded) == len(paths)


@pytest.mark.parametrize("engine", ENGINES)
def test_three_expressions_with_aliases_decode_once(paths, decoded, engine):
    phash, bmh1 = both()
    run(paths, engine, phash.alias("p"), bmh1.alias("b"), pl.col("url").imgmatch.visual_hash())
    assert len(decoded) == len(paths)


@pytest.mark.parametrize("make", [pl.DataFrame.lazy, lambda frame: frame])
def test_verb_decodes_once(paths, decoded, make):
    make(paths).imgmatch.visual_hash().lazy().collect()
    assert len(decoded) == len(paths)


def test_different_options_decode_apart(paths, decoded):
    paths.with_columns(pl.col("url").imgmatch.phash(), pl.col("url").imgmatch.bmh1(max_pixels=10**6))
    assert len(decoded) == 2 * len(paths)


@pytest.mark.parametrize("engine", ENGINES)
def test_second_statement_sees_the_changed_file(paths, encoded, engine):
    first = run(paths, engine, *both())
    for path in paths["url"]:
        Path(path).write_bytes(encoded[-1])
    second = run(paths, engine, *both())
    assert second["phash"].unique().to_list() == [opencv_hashes(encoded[-1])[0]]
    assert first["phash"].n_unique() > 1


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_ten_rows_taken_decode_ten(paths, decoded, engine):
    out = paths.lazy().with_columns(*both()).head(10).collect(engine=engine)
    assert (len(out), len(decoded)) == (10, 10)


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_filters_and_projections_are_honoured(paths, decoded, engine):
    lazy = paths.lazy().with_row_index().with_columns(*both())
    out = lazy.filter(pl.col("index") < 7).collect(engine=engine)
    assert (len(out), len(decoded)) == (7, 7)
    decoded.clear()
    lazy.select("index").collect(engine=engine)
    assert decoded == []


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_and_chunks_change_nothing(mixed, engine):
    expected = pl.concat([mixed[row : row + 1].imgmatch.visual_hash() for row in range(len(mixed))])
    assert expected.columns == ["width", "height", "status", "detail", "quality", "url", "expected", "bmh1", "phash"]
    chunked = pl.concat([mixed[:5], mixed[5:6], mixed[6:]], rechunk=False)
    with pl.Config() as config:
        config.set_streaming_chunk_size(2)
        out = run(chunked, engine, pl.col("url").imgmatch.visual_hash()).unnest("visual_hash")
    assert_frame_equal(out.select(expected.columns), expected)
    assert_frame_equal(mixed.imgmatch.visual_hash(), expected)
    assert_frame_equal(mixed.lazy().imgmatch.visual_hash().collect(), expected)


@settings(deadline=None, max_examples=25)
@given(order=st.permutations(range(13)), data=st.data())
def test_order_and_slices_change_nothing(mixed_session, order, data):
    expected = mixed_session.imgmatch.visual_hash()
    start = data.draw(st.integers(0, 13))
    length = data.draw(st.integers(0, 13))
    shuffled = mixed_session[list(order)].slice(start, length)
    out = shuffled.with_columns(pl.col("url").imgmatch.visual_hash()).unnest("visual_hash")
    assert_frame_equal(out.select(expected.columns), expected[list(order)].slice(start, length))


@pytest.fixture(scope="module")
def mixed_session(tmp_path_factory, encoded):
    folder = tmp_path_factory.mktemp("mixed")
    values: list[str | None] = [None, "", "no-such-file", "data:,x", "\0"]
    for number in range(8):
        (folder / f"{number}.jpg").write_bytes(encoded[number][: 300 if number % 3 == 0 else None])
        values.append(str(folder / f"{number}.jpg"))
    return pl.DataFrame({"url": values})


def test_statuses_and_nulls_agree(mixed):
    out = mixed.imgmatch.visual_hash()
    assert out["status"].cast(pl.String).to_list() == mixed["expected"].to_list()
    failed = out["status"] != "ok"
    for name in ("width", "height", "bmh1", "phash"):
        assert out[name].is_null().to_list() == failed.to_list()
    assert out["detail"].is_not_null().to_list() == failed.to_list()
    assert all("\n" not in detail for detail in out["detail"].drop_nulls())


def test_raise_names_the_first_failed_row(encoded):
    frame = pl.DataFrame({"url": [encoded[0], b"", encoded[1], b"junk", None] * 20})
    for _ in range(5):
        with pytest.raises((imgmatch_df.SourceError, pl.exceptions.ComputeError), match="row 1 of its batch: missing"):
            run(frame, "in-memory", pl.col("url").imgmatch.phash(on_error="raise"))


def test_raise_names_the_failed_row_of_a_streamed_batch(encoded):
    frame = pl.DataFrame({"url": [encoded[0], b"", encoded[1]]})  # Polars cuts it where it likes
    errors = (imgmatch_df.SourceError, pl.exceptions.ComputeError)
    for _ in range(5):
        with pytest.raises(errors, match=r"row [01] of its batch: missing"):
            run(frame, "streaming", pl.col("url").imgmatch.phash(on_error="raise"))


def test_raise_without_failure_gives_the_hashes(encoded):
    column = pl.Series("url", encoded)
    assert_series_equal(column.imgmatch.phash(on_error="raise"), column.imgmatch.phash())


@pytest.mark.parametrize("dtype", [pl.String, pl.Binary, pl.Null])
@pytest.mark.parametrize("engine", ENGINES)
def test_empty_and_null_frames(dtype, engine):
    for values in ([], [None], [None] * 3):
        out = run(pl.DataFrame({"url": values}, schema={"url": dtype}), engine, *both())
        assert out["phash"].to_list() == out["bmh1"].to_list() == [None] * len(values)
        assert out.schema["phash"] == pl.UInt64
        assert out.schema["bmh1"] == pl.Binary


@settings(deadline=None, max_examples=60)
@given(st.lists(st.none() | st.binary(max_size=40), max_size=30), st.integers(0, 30), st.integers(0, 30))
def test_buffers_of_a_column_are_its_values(values, start, length):
    column = pl.Series(values, dtype=pl.Binary)
    chunked = pl.concat([column, column[:3], column], rechunk=False)
    for series in (column, column.slice(start, length), chunked, chunked.slice(start, length)):
        buffers = image_sources(series)
        got = [None if buffers[row] is None else bytes(buffers[row]) for row in range(len(buffers))]
        assert got == series.to_list()


def test_one_row_and_literals(encoded, paths):
    expected = opencv_hashes(encoded[0])[0]
    assert pl.select(pl.lit(encoded[0]).imgmatch.phash()).item() == expected
    assert pl.select(pl.lit(paths["url"][0]).imgmatch.phash()).item() == expected
    out = paths.lazy().select("url", pl.lit(encoded[0]).imgmatch.phash().alias("p")).collect()
    assert out["p"].to_list() == [expected] * len(paths)


def test_names(encoded):
    out = pl.DataFrame({"url": encoded[:2]}).select(*both(), pl.col("url").imgmatch.visual_hash())
    assert out.columns == ["phash", "bmh1", "visual_hash"]
    assert pl.Series("url", encoded[:2]).imgmatch.phash().name == "phash"


def test_categorical_and_enum_sources(paths):
    expected = paths["url"].imgmatch.phash()
    assert_series_equal(paths["url"].cast(pl.Categorical).imgmatch.phash(), expected)
    assert_series_equal(paths["url"].cast(pl.Enum(paths["url"])).imgmatch.phash(), expected)


def test_derived_sources_share_one_decode_when_lazy(folder, decoded):
    names = pl.DataFrame({"name": [path.name for path in sorted(folder.glob("*.jpg"))]})
    source = pl.lit(str(folder) + os.sep) + pl.col("name")
    out = names.lazy().with_columns(source.imgmatch.phash(), source.imgmatch.bmh1()).collect()
    assert len(decoded) == len(names)
    assert out["phash"].null_count() == 0


def test_sources_made_by_a_python_function(folder):
    names = pl.DataFrame({"name": [path.name for path in sorted(folder.glob("*.jpg"))]})
    lock = threading.Lock()  # cannot be pickled, so neither can the function

    def full(name: str) -> str:
        with lock:
            return str(folder / name)

    source = pl.col("name").map_elements(full, return_dtype=pl.String)
    out = names.with_columns(source.imgmatch.phash(), source.imgmatch.bmh1())
    assert out["phash"].null_count() == 0


def test_group_by_and_over(encoded):
    frame = pl.DataFrame({"url": encoded[:6], "key": ["a", "b"] * 3})
    expected = frame.with_columns(pl.col("url").imgmatch.phash())
    grouped = frame.group_by("key", maintain_order=True).agg(pl.col("url").imgmatch.phash()).explode("phash")
    assert grouped["phash"].to_list() == [*expected["phash"][::2], *expected["phash"][1::2]]


def test_many_user_threads_at_once(paths):
    expected = paths.with_columns(*both())
    with ThreadPoolExecutor(8) as users:
        for out in users.map(lambda _: paths.with_columns(*both()), range(16)):
            assert_frame_equal(out, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_child_hashes(paths):
    import warnings

    expected = paths["url"].imgmatch.phash()
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking a process that has threads
        child = os.fork()
    if child == 0:  # Polars itself does not survive a fork, our own part must
        out = batches.hash_batch(paths["url"], imgmatch_df.options.Options())
        os.write(write, str(out.struct.field("phash").to_list() == expected.to_list()).encode())
        os._exit(0)
    os.close(write)
    assert os.read(read, 10) == b"True"
    os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: pl.col("a").imgmatch.phash(decode="fast"),
            imgmatch_df.ArgumentError,
            "decode must be one of 'full', 'scaled'",
        ),
        (
            lambda: pl.col("a").imgmatch.phash(max_pixels=0),
            imgmatch_df.ArgumentError,
            "max_pixels must be a whole number",
        ),
        (
            lambda: pl.col("a").imgmatch.phash(max_bytes=1.5),
            imgmatch_df.ArgumentError,
            "max_bytes must be a whole number",
        ),
        (lambda: pl.col("a").imgmatch.bmh1(radius=8), imgmatch_df.ArgumentError, "unknown option 'radius'"),
        (lambda: pl.col("a").imgmatch.bmh1(base_dir=3), imgmatch_df.ArgumentError, "base_dir must be a path"),
        (lambda: pl.col("a").imgmatch.bmh1(on_error="ignore"), imgmatch_df.ArgumentError, "on_error must be one of"),
        (lambda: pl.col("a").imgmatch.bmh1(progress=1), imgmatch_df.ArgumentError, "progress must be True or False"),
        (
            lambda: pl.col("a").imgmatch.visual_hash(hash_types="dhash"),
            imgmatch_df.ArgumentError,
            "hash_type must be one of",
        ),
        (
            lambda: pl.col("a").imgmatch.visual_hash(hash_types=[]),
            imgmatch_df.ArgumentError,
            "must name each kind once",
        ),
        (lambda: pl.col("a").imgmatch.from_bits("md5"), imgmatch_df.ArgumentError, "hash_type must be one of"),
        (lambda: pl.col("a").imgmatch.hamming("01x"), imgmatch_df.ArgumentError, "a hash value is"),
        (lambda: pl.col("a").imgmatch.hamming(-(2**63) - 1), imgmatch_df.ArgumentError, "a hash value is"),
        (lambda: pl.col("a").imgmatch.hamming(2**64), imgmatch_df.ArgumentError, "a hash value is"),
        (lambda: imgmatch_df.phash(3), imgmatch_df.ArgumentError, "a column is needed, got int"),
        (lambda: pl.DataFrame({"a": ["x"]}).imgmatch.visual_hash(), imgmatch_df.ColumnError, "no column 'url'"),
        (lambda: pl.LazyFrame({"a": ["x"]}).imgmatch.visual_hash("b"), imgmatch_df.ColumnError, "no column 'b'"),
        (lambda: pl.LazyFrame({"a": [1]}).imgmatch.visual_hash("a"), imgmatch_df.ColumnError, "has dtype Int64"),
    ],
)
def test_callers_mistakes_raise_at_once_with_a_hint(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\nHint: " in str(caught.value)


def test_wrong_dtype_raises_when_the_query_runs():
    with pytest.raises((imgmatch_df.ColumnError, pl.exceptions.ComputeError), match="has dtype Int64"):
        pl.Series("a", [1]).imgmatch.phash()


def test_a_bad_row_takes_no_neighbour_with_it(encoded):
    bad = [b"", b"\xff\xd8\xff", encoded[0][:200], b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(50), os.urandom(300)]
    column = pl.Series([data for pair in zip(encoded[:6], bad, strict=True) for data in pair])
    out = column.imgmatch.visual_hash().struct.unnest()
    assert out["phash"][::2].to_list() == [opencv_hashes(data)[0] for data in encoded[:6]]
    assert out["phash"][1::2].null_count() == 6


def test_scaled_is_near_and_reports_the_full_size():
    data = jpeg(draw(5, 1600, 1200))
    full, scaled = (
        pl.Series([data]).imgmatch.visual_hash(decode=decode_path).struct.unnest() for decode_path in ("full", "scaled")
    )
    assert scaled.select("width", "height").row(0) == full.select("width", "height").row(0) == (1600, 1200)
    assert scaled["bmh1"].imgmatch.hamming(full["bmh1"]).item() <= 48
