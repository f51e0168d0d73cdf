"""Wrong arguments: every parameter of every public function, with every kind of value that it is not made for.

A call works, or raises our own error with a hint before anything is read. It never raises what Polars or Python raise.
"""

import inspect
import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from drawing import draw, jpeg
from hostile_server import HostileServer
from polars.testing import assert_frame_equal

import imgmatch_df
from imgmatch_df import options
from imgmatch_df.options import Options

IMAGES = [jpeg(draw(seed, 30, 30)) for seed in (1, 2)]
FRAME = pl.DataFrame(
    {
        "url": IMAGES,
        "phash": pl.Series([1, 2], dtype=pl.UInt64),
        "bmh1": [bytes(121), bytes([1] * 121)],
        "local": [bytes(715), bytes(715)],
        "pdq": [bytes(32), bytes([1] * 32)],
        "id": ["a", "b"],
        "bits": ["0" * 64, "1" * 64],
        "size": [1, 2],
    }
)
LEAKS = pl.DataFrame({"split": ["test"], "id": [0], "other_split": ["train"], "other_id": [0]})
OURS = (imgmatch_df.ArgumentError, imgmatch_df.ColumnError, imgmatch_df.StoreError, imgmatch_df.RowError)

VALUES = {
    "None": None,
    "True": True,
    "zero": 0,
    "one": 1,
    "minus one": -1,
    "huge": 10**30,
    "half": 0.5,
    "nan": math.nan,
    "inf": math.inf,
    "complex": 1j,
    "np.int64": np.int64(3),
    "np.uint8": np.uint8(1),
    "np.float32": np.float32(2),
    "np.float64": np.float64(0.5),
    "np.bool_": np.bool_(True),
    "np.str_": np.str_("url"),
    "np.bytes_": np.bytes_(b"url"),
    "np.array": np.arange(3),
    "np.datetime64": np.datetime64("2024-01-01"),
    "text": "no such thing",
    "empty text": "",
    "NUL": "\0",
    "bytes": b"x",
    "bytearray": bytearray(b"x"),
    "memoryview": memoryview(b"x"),
    "list": [],
    "list of a name": ["url"],
    "list of numbers": [1, 2],
    "tuple": ("url",),
    "set": {"url"},
    "dict": {"url": 1},
    "Expr": pl.col("url"),
    "Series": pl.Series("url", [1]),
    "DataFrame": pl.DataFrame({"url": [1]}),
    "LazyFrame": pl.LazyFrame({"url": [1]}),
    "dtype": pl.UInt64,
    "object": object(),
    "class": int,
    "function": len,
}


def right(name: str, folder: Any) -> dict[str, Any]:
    """Arguments with which a function works."""
    frame = FRAME.drop("url")
    written = {"frame": FRAME.select("url", "id"), "target": str(folder / "new.parquet"), "source": "url", "key": "id"}
    return {
        "pdq": {"source": pl.col("url")},
        "phash": {"source": pl.col("url")},
        "bmh1": {"source": pl.col("url")},
        "local": {"source": pl.col("url")},
        "to_points": {"local": "local"},
        "register_hash_kind": {"kind": imgmatch_df.hashes.kinds.PHASH},
        "perceptual_hash": {"source": pl.col("url"), "hash_type": "phash"},
        "visual_hash": {"data": FRAME.select("url"), "source": "url"},
        "hamming": {"hashes": "phash", "other": 3},
        "to_bits": {"hashes": "phash"},
        "from_bits": {"bits": "bits", "hash_type": "phash"},
        "to_hex": {"hashes": "phash"},
        "to_int64": {"hashes": "phash"},
        "from_int64": {"numbers": "phash"},
        "from_hex": {"digits": pl.lit("0" * 16), "hash_type": "phash"},
        "near_duplicates": {"frame": frame, "radius": 3},
        "explain_near_duplicates": {"frame": frame, "radius": 3},
        "match": {"frame": frame, "reference": frame, "radius": 3, "k": 2, "columns": ["id"]},
        "find_copies": {"frame": frame},
        "cluster": {"frame": frame},
        "find_leaks": {"splits": {"train": frame, "test": frame}, "radius": 3},
        "count_leaks": {"leaks": LEAKS, "splits": {"train": 1, "test": 1}},
        "drop_leaks": {"frame": frame, "reference": frame, "radius": 3},
        "assign_split": {"cluster": "id", "shares": {"train": 0.8, "test": 0.2}},
        "remove_duplicates": {"frame": frame},
        "profile_radii": {"frame": frame},
        "suggest_radius": {"frame": frame},
        "suggest_min_votes": {"frame": frame},
        "report": {"frame": frame},
        "rank_images": {"frame": frame, "query": bytes(121)},
        "read_hashes": {"target": str(folder / "store.parquet")},
        "scan_hashes": {"target": str(folder / "store.parquet")},
        "scan_images": {"source": str(folder)},
        "count_left_out": {"source": str(folder)},
        "write_hashes": written,
        "sink_hashes": {**written, "frame": written["frame"].lazy()},
    }.get(name, {})


def functions() -> list[str]:
    return [name for name in imgmatch_df.__all__ if inspect.isfunction(getattr(imgmatch_df, name))]


def parameters(name: str) -> list[str]:
    found = inspect.signature(getattr(imgmatch_df, name)).parameters.values()
    names = [one.name for one in found if one.kind is not one.VAR_KEYWORD]
    return names + (list(Options.__dataclass_fields__) if len(names) < len(found) else [])


CALLS = [(name, parameter) for name in functions() for parameter in parameters(name)]


def finish(name: str, result: Any) -> None:
    """Run what a call only builds."""
    if isinstance(result, pl.Expr):
        FRAME.select(result)
    elif isinstance(result, pl.LazyFrame):
        result.collect()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    imgmatch_df.write_hashes(FRAME.select("url", "id"), folder / "store.parquet", source="url", key="id")
    return folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a wrong target is not made here


def test_each_function_has_arguments_that_work(folder):
    for name in functions():
        finish(name, getattr(imgmatch_df, name)(**right(name, folder)))


@pytest.mark.filterwarnings("ignore::imgmatch_df.ImgMatchWarning")
@pytest.mark.parametrize(("name", "parameter"), CALLS, ids=[f"{name}-{parameter}" for name, parameter in CALLS])
def test_wrong_arguments_are_our_errors(name, parameter, folder):
    wrong = []
    for words, value in VALUES.items():
        arguments = {**right(name, folder), parameter: value}
        if parameter in Options.__dataclass_fields__ and "source" in parameters(name):
            arguments.setdefault("source", "url")
            if name not in ("visual_hash", "write_hashes", "sink_hashes", "phash", "pdq", "bmh1", "local"):
                images = FRAME.select("url", "id", "size")
                arguments |= {"splits": {"a": images, "b": images}} if name == "find_leaks" else {"frame": images}
        try:
            result = getattr(imgmatch_df, name)(**arguments)
        except OURS as error:
            if "\nHint: " not in str(error):
                wrong.append(f"{words}: no hint: {error}")
            continue
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is reported
            wrong.append(f"{words}: {type(error).__module__}.{type(error).__name__}: {str(error)[:120]}")
            continue
        try:
            finish(name, result)
        except BaseException as error:  # noqa: BLE001
            # What a column of an expression is called shows when the query runs.
            absent = isinstance(error, pl.exceptions.ColumnNotFoundError) and isinstance(result, pl.Expr)
            if not absent and "Hint: " not in str(error):
                wrong.append(f"{words}: when run: {type(error).__name__}: {str(error)[:120]}")
    assert wrong == []


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32, np.uint64])
def test_numpy_integers_are_whole_numbers(kind):
    found = FRAME.drop("url").imgmatch.near_duplicates(kind(3), "phash", max_pairs=kind(9))
    assert_frame_equal(found, FRAME.drop("url").imgmatch.near_duplicates(3, "phash"))
    assert FRAME.drop("url").imgmatch.rank_images(kind(1), "phash", k=kind(1)).height == 1
    column = pl.col("url").imgmatch
    numbers = dict.fromkeys(options._WHOLE_NUMBERS, kind(100))
    assert FRAME.select(column.phash(**numbers | {"max_pixels": np.int64(10**6), "max_bytes": np.int64(10**6)})).height


@pytest.mark.parametrize("number", [np.float32(2), np.float64(2), np.int64(2), np.uint8(2), 2, 2.0, True + 1.0])
def test_numbers_of_seconds(number):
    made = options.make_options(timeout_s=number)
    assert (made.timeout_s, type(made.timeout_s)) == (2.0, float)
    assert made == options.make_options(timeout_s=2)  # so that the expressions share one decode


HASHES = [7, np.uint64(7), np.int32(7), np.uint8(7), "0" * 61 + "111", np.str_("0" * 61 + "111")]
BYTES = [make(bytes([255, *bytes(120)])) for make in (bytes, bytearray, memoryview, np.bytes_)] + ["1" * 8 + "0" * 960]


@pytest.mark.parametrize(("column", "value"), [("phash", one) for one in HASHES] + [("bmh1", one) for one in BYTES])
def test_hamming_takes_what_rank_images_takes(column, value):
    plain = 7 if column == "phash" else bytes([255, *bytes(120)])
    expected = FRAME.select(imgmatch_df.hamming(column, plain))
    if isinstance(value, np.bytes_):
        value = np.bytes_(value).ljust(121, b"\0")  # numpy drops zeros at the end
    assert_frame_equal(FRAME.select(pl.col(column).imgmatch.hamming(value)), expected)
    assert FRAME[column].imgmatch.hamming(value).to_list() == expected["distance"].to_list()
    ranked = FRAME.drop("url").imgmatch.rank_images(value, column, flat="match")
    assert sorted(ranked["distance"]) == sorted(expected["distance"])


def test_hamming_takes_a_series():
    one, both = FRAME["phash"][:1], FRAME["phash"]
    assert FRAME.select(imgmatch_df.hamming("phash", one)).to_series().to_list() == [0, 2]
    assert FRAME.select(imgmatch_df.hamming("phash", both)).to_series().to_list() == [0, 0]
    assert both.imgmatch.hamming(one).to_list() == [0, 2]


@pytest.mark.parametrize("name", ["id", "reference_id", "key"])
def test_an_expression_where_a_name_is_wanted_is_refused_with_a_sentence(name):
    calls = {
        "id": lambda: FRAME.drop("url").imgmatch.cluster(id=pl.col("id")),
        "reference_id": lambda: FRAME.drop("url").imgmatch.match(FRAME, 3, reference_id=pl.col("id")),
        "key": lambda: FRAME.imgmatch.write_hashes("a.parquet", source="url", key=pl.col("id")),
    }
    with pytest.raises(imgmatch_df.ArgumentError, match=f"^{name} must be the name of a column, got an Expr\nHint: "):
        calls[name]()


@pytest.mark.parametrize("name", [*options._WHOLE_NUMBERS, "timeout_s"])
@pytest.mark.timeout(60)
def test_huge_numbers_are_allowed_or_refused_before_anything_is_fetched(name):
    with HostileServer(IMAGES) as server:
        frame = pl.DataFrame({"url": [server.url("/ok/0.jpg"), server.url("/status/503")]})
        for value in (10**6, 2**31, 2**63, 10**30, 10**400):
            given = {"allow_private_networks": True, "attempts": 1, name: value}
            if name == "attempts":
                frame = frame[:1]
            if name == "timeout_s" and value > 10**6:
                with pytest.raises(imgmatch_df.ArgumentError, match=r"at most 1,000,000.*\nHint: "):
                    frame.imgmatch.visual_hash(**given)
            else:
                assert frame.imgmatch.visual_hash(**given)["status"][0] == "ok"


@pytest.mark.parametrize("column", ["phash", "bmh1"])
@pytest.mark.parametrize("n_rows", [0, 3, 7])
def test_columns_of_different_lengths_are_not_compared(column, n_rows):
    other = pl.Series("other", [FRAME[column][0]] * n_rows, dtype=FRAME.schema[column])
    for call in (
        lambda: FRAME.select(imgmatch_df.hamming(column, other)),
        lambda: FRAME.with_columns(pl.col(column).imgmatch.hamming(other)),
        lambda: FRAME[column].imgmatch.hamming(other),
    ):
        with pytest.raises(imgmatch_df.ColumnError, match=rf"\(2 rows\) with 'other' \({n_rows} rows\)\nHint: "):
            call()


@pytest.mark.parametrize("other", [pl.col("phash"), pl.col("nothing"), pl.lit(5), pl.selectors.all()])
def test_a_series_is_not_compared_with_an_expression(other):
    with pytest.raises(imgmatch_df.ArgumentError, match="other must be a Series or one hash, got an Expr\nHint: "):
        FRAME["phash"].imgmatch.hamming(other)


def test_keys_beyond_64_bits_are_refused():
    frame = FRAME.select("phash", pl.Series("sku", [2**64, 1], dtype=pl.Int128))
    with pytest.raises(imgmatch_df.ColumnError, match="'sku' is null or does not fit into 64 bits in 1 rows\nHint: "):
        imgmatch_df.write_hashes(frame, "a.duckdb", key="sku")


@pytest.mark.parametrize(
    ("source", "key"), [("url", "source"), ("url", "")], ids=["a key that has the name of sources", "no name"]
)
@pytest.mark.parametrize("dtype", [pl.String, pl.Binary])
def test_keys_that_no_store_can_have_are_refused(source, key, dtype):
    frame = pl.DataFrame({"url": pl.Series(["a.jpg"]).cast(dtype), key: ["one"]})
    with pytest.raises(imgmatch_df.ArgumentError, match="\nHint: rename the column of keys"):
        imgmatch_df.write_hashes(frame, "a.duckdb", source=source, key=key)


@pytest.mark.parametrize("column", ["width", "height", "status", "detail", "etag"])
@pytest.mark.parametrize("values", [pl.Series([[1], [2]]), pl.Series([b"a", b"b"]), pl.Series([True, False])])
def test_columns_of_the_users_that_describe_no_image_are_not_stored_as_if_they_did(column, values):
    frame = FRAME.select("phash", "id", values.alias(column))
    with pytest.raises(imgmatch_df.ColumnError, match=f"column '{column}' has dtype .*\nHint: rename or drop"):
        imgmatch_df.write_hashes(frame, "a.duckdb", key="id")


def test_sizes_that_no_image_has_are_not_stored():
    frame = FRAME.select("phash", "id", width=pl.Series([math.nan, 1e300]), height=pl.Series([-1, 7]))
    imgmatch_df.write_hashes(frame, "a.duckdb", key="id")
    assert imgmatch_df.read_hashes("a.duckdb").sort("id").select("width", "height").rows() == [(None, None), (None, 7)]
