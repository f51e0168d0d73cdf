"""Columns of the user's are kept: a verb adds its own under names that are free, before them, or refuses the call."""

import polars as pl
import pytest
from drawing import draw, jpeg
from polars.testing import assert_frame_equal

import imgmatch_df

ENGINES = ["eager", "in-memory", "streaming"]
MADE = ["width", "height", "status", "detail", "quality"]

CLUSTER = ["cluster_id", "kept", "reason", "distance", "joined_at", "representative_id"]
# What each verb adds to a frame that has hashes.
VERBS = {
    "cluster": (lambda data, **kw: data.imgmatch.cluster(3, "phash", **kw), CLUSTER),
    "cluster, diameter": (
        lambda data, **kw: data.imgmatch.cluster(3, "phash", diameter=True, **kw),
        [*CLUSTER[:5], "diameter", "representative_id"],
    ),
    "cluster, against": (
        lambda data, **kw: data.imgmatch.cluster(3, "phash", reference=STORED, reference_id="name", **kw),
        [*CLUSTER, "reference_id"],
    ),
    "remove_duplicates": (
        lambda data, **kw: data.imgmatch.remove_duplicates(3, "phash", **kw),
        ["removed_records"],
    ),
    "rank_images": (lambda data, **kw: data.imgmatch.rank_images(7, "phash", **kw), ["rank", "distance"]),
}
STORED = pl.DataFrame({"phash": pl.Series([1 << 40], dtype=pl.UInt64), "name": ["known"]})


@pytest.fixture
def hashed():
    hashes = pl.Series([7, 5, 1 << 40, None, 1 << 50], dtype=pl.UInt64)
    return pl.DataFrame({"phash": hashes, "bmh1": [b"\1" * 121] * 5, "name": list("abcde"), "count": range(5)})


@pytest.fixture(scope="module")
def images():
    data = [jpeg(draw(seed, 120, 90)) for seed in (1, 1, 2)]
    return pl.DataFrame({"url": [*data, b"broken"], "name": list("abcd")})


def ask(frame, engine, verb, **options):
    return verb(frame, **options) if engine == "eager" else verb(frame.lazy(), **options).collect(engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("verb", VERBS)
def test_new_columns_stand_first_and_hashes_last(hashed, verb, engine):
    call, new = VERBS[verb]
    assert ask(hashed, engine, call).columns == [*new, "name", "count", "phash", "bmh1"]
    assert call(hashed.lazy()).collect_schema() == ask(hashed, engine, call).schema


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", sorted({name for _, new in VERBS.values() for name in new}))
def test_a_column_of_the_users_is_never_replaced(hashed, name, engine):
    frame = hashed.with_columns(pl.lit("mine").alias(name))
    for call, new in VERBS.values():
        if name not in new:
            out = ask(frame, engine, call)
            assert out[name].to_list() == ["mine"] * out.height
            assert out.columns == [*new, "name", "count", name, "phash", "bmh1"]
            continue
        for data in (frame, frame.lazy()):
            with pytest.raises(
                imgmatch_df.ColumnError, match=f"already has a column '{name}'.*\nHint: prefix= or suffix="
            ):
                call(data)
            with pytest.raises(imgmatch_df.ColumnError, match=f"already has a column 'a {name}'"):
                call(data.rename({name: f"a {name}"}), prefix="a ")
        for affixes in ({"prefix": "our "}, {"suffix": " 2"}, {"prefix": "<", "suffix": ">"}):
            full = [f"{affixes.get('prefix', '')}{one}{affixes.get('suffix', '')}" for one in new]
            out = ask(frame, engine, call, **affixes)
            assert out.columns == [*full, "name", "count", name, "phash", "bmh1"]
            assert out[name].to_list() == ["mine"] * out.height
            plain = ask(hashed, engine, call)
            renamed = out.drop(name).rename(dict(zip(full, new, strict=True)))
            if "removed_records" in new:
                assert set(out[full[0]].explode().drop_nulls().struct.field(name)) == {"mine"}
                plain, renamed = plain.drop(new), renamed.drop(new)
            assert_frame_equal(renamed, plain)


@pytest.mark.parametrize("wrong", [None, 1, b"x", ["a"]])
@pytest.mark.parametrize("which", ["prefix", "suffix"])
def test_affixes_are_text(hashed, images, which, wrong):
    for call, _ in VERBS.values():
        with pytest.raises(imgmatch_df.ArgumentError, match=f"{which} must be a str, got .*\nHint: "):
            call(hashed, **{which: wrong})
    for data in (images, images.lazy(), pl.col("url")):
        with pytest.raises(imgmatch_df.ArgumentError, match=f"{which} must be a str"):
            imgmatch_df.visual_hash(data, **{which: wrong})


@pytest.mark.parametrize("engine", ENGINES)
def test_visual_hash_replaces_nothing(images, engine):
    plain = ask(images, engine, lambda data: data.imgmatch.visual_hash())
    assert plain.columns == [*MADE, "url", "name", "bmh1", "phash"]
    for name in (*MADE, "bmh1", "phash"):
        frame = images.with_columns(pl.lit("mine").alias(name))
        for data in (frame, frame.lazy()):
            with pytest.raises(
                imgmatch_df.ColumnError, match=f"a column '{name}', and this call adds one of that name"
            ):
                data.imgmatch.visual_hash()
        out = ask(frame, engine, lambda data: data.imgmatch.visual_hash(suffix="_2"))
        assert out.columns == [*(f"{one}_2" for one in MADE), "url", "name", name, "bmh1_2", "phash_2"]
        assert out[name].to_list() == ["mine"] * 4
        assert_frame_equal(out.drop(name).rename(lambda one: one.removesuffix("_2")), plain)
    with pytest.raises(
        imgmatch_df.ColumnError, match="columns 'width', 'height', 'status', 'detail', 'quality', 'bmh1', 'phash'"
    ):
        plain.imgmatch.visual_hash()
    with pytest.raises(imgmatch_df.ColumnError, match="columns 'width', 'height', 'status', 'detail', 'quality'"):
        images.imgmatch.visual_hash(hash_types="phash").imgmatch.visual_hash(hash_types="bmh1")
    again = plain.imgmatch.visual_hash(hash_types="phash", prefix="second_")
    assert again["second_phash"].equals(plain["phash"])


@pytest.mark.parametrize("engine", ENGINES)
def test_the_fields_of_an_expression_have_affixes(images, engine):
    expr = pl.col("url").imgmatch.visual_hash(prefix="<", suffix=">")
    out = images.select(expr) if engine == "eager" else images.lazy().select(expr).collect(engine=engine)
    assert out.columns == ["visual_hash"]
    assert out.unnest("visual_hash").columns == [*(f"<{name}>" for name in MADE), "<bmh1>", "<phash>"]
    assert out.unnest("visual_hash")["<phash>"].equals(images["url"].imgmatch.phash())
    assert images["url"].imgmatch.visual_hash(suffix="_2").struct.fields[0] == "width_2"


SOURCE_VERBS = {
    "cluster": (lambda data, **kw: data.imgmatch.cluster(9, source="url", keep="largest", **kw), CLUSTER),
    "remove_duplicates": (
        lambda data, **kw: data.imgmatch.remove_duplicates(9, source="url", keep="largest", **kw),
        ["removed_records"],
    ),
    "rank_images": (lambda data, **kw: data.imgmatch.rank_images(bytes(121), source="url", **kw), ["rank", "distance"]),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("verb", SOURCE_VERBS)
def test_what_is_hashed_on_the_way_has_the_affixes_too(images, verb, engine):
    call, new = SOURCE_VERBS[verb]
    plain = ask(images, engine, call)
    assert plain.columns == [*new, *MADE, "url", "name", "bmh1"]
    mine = images.with_columns(pl.lit("mine").alias(name) for name in (*MADE, "bmh1", "phash"))
    for name in (*MADE, "bmh1"):
        for data in (images.with_columns(mine[name]), images.lazy().with_columns(mine[name])):
            with pytest.raises(imgmatch_df.ColumnError, match=f"already has a column '{name}'.*\nHint: "):
                call(data)
    with pytest.raises(imgmatch_df.ColumnError, match="Hint: leave source= out to compare the hashes in 'bmh1'"):
        call(images.with_columns(mine["bmh1"]))
    out = ask(mine, engine, call, prefix="our_")
    own = ["url", "name", *MADE, "bmh1", "phash"]
    assert out.columns == [*(f"our_{name}" for name in (*new, *MADE)), *own, "our_bmh1"]
    assert out.select(own[2:]).unique().rows() == [("mine",) * 7]
    found = out.drop(own[2:]).rename(lambda name: name.removeprefix("our_")).select(plain.columns)
    if "removed_records" in new:
        records = found["removed_records"].explode().drop_nulls().struct.unnest()
        assert (
            records["name"].to_list() == plain["removed_records"].explode().drop_nulls().struct.field("name").to_list()
        )
        assert {"our_width", "our_bmh1", "bmh1"} <= set(records.columns)
        found, plain = found.drop(new), plain.drop(new)
    assert_frame_equal(found, plain)


@pytest.mark.parametrize("engine", ENGINES)
def test_hashes_that_are_there_are_used_and_others_of_the_users_do_not_matter(images, engine):
    hashed = images.imgmatch.visual_hash(hash_types="bmh1")
    wanted = images.imgmatch.near_duplicates(9, id="name", source="url")
    assert wanted.rows() == [("a", "b", 0)]
    assert_frame_equal(ask(hashed, engine, lambda data: data.imgmatch.near_duplicates(9, id="name")), wanted)
    # Pairs hold none of the frame's columns, so any may be called as ours, and ids come from them.
    for name in (*MADE, "bmh1", "phash", "distance", "left_id", "right_id", "query_id", "reference_id", "__imgmatch"):
        frame = images.rename({"name": name})
        for verb in (
            lambda data, name=name: data.imgmatch.near_duplicates(9, id=name, source="url"),
            lambda data, name=name, frame=frame: data.imgmatch.match(
                hashed.select("bmh1", pl.col("name").alias("distance")),
                9,
                id=name,
                reference_id="distance",
                source="url",
            ),
        ):
            out = ask(frame, engine, verb)
            assert ("a", "b", 0) in out.rows()
            assert out.columns[2] == "distance"


def test_a_wrong_call_hashes_nothing(images, monkeypatch):
    monkeypatch.setattr(imgmatch_df.batch.run, "hash_batch", lambda *_: pytest.fail("hashed"))
    frame = images.with_columns(distance=pl.lit(1.5))
    for call in (
        lambda: frame.imgmatch.cluster(9, source="url"),
        lambda: frame.imgmatch.rank_images("0" * 968, source="url"),
        lambda: images.imgmatch.cluster(9, source="url", id="nope"),
        lambda: images.imgmatch.near_duplicates(9, source="url", id="nope"),
        lambda: images.imgmatch.match(images, 9, source="url"),
        lambda: images.imgmatch.cluster(9, source="url", reference=images),
    ):
        with pytest.raises(imgmatch_df.ColumnError):
            call()


# Removed records


@pytest.mark.parametrize("engine", ENGINES)
def test_removed_records_hold_no_image(images, engine):
    hashed = images.imgmatch.visual_hash()
    nested = hashed.with_columns(
        image=pl.struct(bytes="url", path="name"),
        images=pl.concat_list(pl.struct(bytes="url", path="name")),
        deep=pl.struct(pl.struct(bytes="url"), n=pl.lit(1)),
        only=pl.struct(bytes="url"),
        blobs=pl.concat_list("url"),
        pair=pl.concat_arr(pl.struct(bytes="url", path="name")),
        missing=pl.when(pl.lit(value=False)).then(pl.struct(bytes="url", path="name")),
    )
    out = ask(nested, engine, lambda data: data.imgmatch.remove_duplicates(9))
    assert out.select(nested.columns).equals(nested[[0, 2, 3]])  # what is kept is whole
    (removed,) = out["removed_records"][0].to_list()
    assert removed == {
        **nested.select(*MADE, "name", "bmh1", "phash").row(1, named=True),
        "image": {"path": "b"},
        "images": [{"path": "b"}],
        "deep": {"n": 1},
        "pair": [{"path": "b"}],
        "missing": None,
    }
    lazy = nested.lazy().imgmatch.remove_duplicates(9)
    assert lazy.collect_schema() == out.schema
    assert out["removed_records"].list.len().to_list() == [1, 0, 0]
    # Frames without bytes keep every column.
    plain = hashed.drop("url").with_columns(tags=pl.lit(["x"]), at=pl.struct("name"))
    (removed,) = ask(plain, engine, lambda data: data.imgmatch.remove_duplicates(9))["removed_records"][0]
    assert removed == plain.row(1, named=True)


PATTERNS = ["*", "^.*$", "^name$", "^$"]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_name_that_polars_takes_for_a_pattern_is_refused(hashed, images, tmp_path, pattern, lazy):
    def made(frame):
        return frame.lazy() if lazy else frame

    known, unknown = hashed.with_columns(pl.lit("mine").alias(pattern)), images.with_columns(pl.lit("x").alias(pattern))
    calls = [
        *(lambda call=call: call(made(known)) for call, _ in VERBS.values()),
        lambda: made(unknown).imgmatch.visual_hash("url"),
        lambda: made(unknown).imgmatch.cluster(3, source="url"),
        lambda: made(known).imgmatch.near_duplicates(3, "phash", id=pattern),
        lambda: made(known).imgmatch.match(known, 3, "phash", id=pattern),
        lambda: made(known).imgmatch.match(known, 3, "phash", reference_id=pattern),
        lambda: made(unknown.drop("url").rename({pattern: "url"}).rename({"url": pattern})).imgmatch.visual_hash(
            pattern
        ),
        lambda: imgmatch_df.write_hashes(made(unknown), tmp_path / "a.duckdb", source="url", key=pattern),
        lambda: imgmatch_df.write_hashes(made(unknown), tmp_path / "a.duckdb", source=pattern),
    ]
    for call in calls:
        with pytest.raises(imgmatch_df.ColumnError, match=r"as a pattern of names, not as one column\nHint: rename"):
            call()
    # What does not read the column does not mind its name.
    assert ask(known, "streaming" if lazy else "eager", lambda data: data.imgmatch.near_duplicates(3, "phash")).height


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("size", [pl.Series(["XL", "S", "M", "L", "XS"]), pl.Series([[1]] * 5), pl.Series([b""] * 5)])
def test_a_size_that_is_no_number_may_name_the_rows(hashed, engine, size):
    frame = hashed.with_columns(size.alias("size"), width=pl.Series([1, 2, 1, 1, 1]), height=pl.lit(3))
    out = ask(frame, engine, lambda data: data.imgmatch.cluster(3, "phash", keep="largest", id="size"))
    assert out["representative_id"].to_list() == size.gather([1, 1, 1, 3, 1]).to_list()
