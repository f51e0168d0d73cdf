"""`imgmatch remove-duplicates` and `rank-images`: every way in and out equals the verb, no wanted file is listed."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from drawing import draw, jpeg, save
from PIL import Image
from polars.testing import assert_frame_equal
from terminal import ON_A_SYSTEM_WITH_TERMINALS, on_a_terminal
from typer.testing import CliRunner
from waiting import wait_until

import imgmatch_df
from imgmatch_df.batch import run
from imgmatch_df.cli import inputs, removed
from imgmatch_df.cli.app import app

RADIUS = 40
PROGRAM = [sys.executable, "-W", "error", "-c", "from imgmatch_df.cli import main; main()"]
FAILED_TEXT = "Error Loading Image: Unable to download image from '{}', Attempts: 3"


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def succeed(*words, code=0):
    if "-o" in words:
        Path(words[words.index("-o") + 1]).unlink(missing_ok=True)
    result = call(*words)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """Four pictures, two copies of each of three of them, and a file that is cut off."""
    folder = tmp_path_factory.mktemp("album")
    for seed in range(4):
        pixels = draw(seed, 120 + 20 * seed, 90)
        (folder / f"{seed}.jpg").write_bytes(jpeg(pixels))
        if seed:
            (folder / f"{seed} again.jpg").write_bytes(jpeg(pixels, quality=40 + seed))
            (folder / f"{seed}_half.jpg").write_bytes(jpeg(pixels[::2, ::2]))
    (folder / "cut.jpg").write_bytes(jpeg(draw(9))[:300])
    return folder


@pytest.fixture(scope="session")
def hashed(drawn):
    return imgmatch_df.visual_hash(imgmatch_df.scan_images(drawn), "path", hash_types="bmh1").collect()


@pytest.fixture
def out(tmp_path):
    """A folder to write into that holds no pictures."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def tables(drawn, out):
    """The album hashed into a table of each kind."""
    for ending in ("parquet", "csv", "ndjson"):
        succeed("visual-hash", drawn, "-o", out / f"hashes.{ending}", code=1)
    return [out / f"hashes.{ending}" for ending in ("parquet", "csv", "ndjson")]


@pytest.fixture
def no_hashing(monkeypatch):
    monkeypatch.setattr(run, "hash_batch", lambda *_: pytest.fail("hashed again"))


def bits(column):
    return imgmatch_df.to_bits(column)


def read_csv(path):
    return pl.read_csv(path, schema_overrides={"bmh1": pl.String, "phash": pl.String})


def check_failed(stderr, *rows, no_hash=False):
    """Check that standard error counts and names the rows that failed, and says nothing else."""
    first, *named = stderr.splitlines()
    assert first == f"{len(rows)} of 11 failed: {'no_hash' if no_hash else 'decode_failed'} {len(rows)}"
    assert [line.split(": ")[0].strip() for line in named] == [str(row) for row in rows]
    assert [line.split(": ")[1] for line in named] == (["no_hash"] if no_hash else ["decode_failed"]) * len(rows)
    assert no_hash or all("truncated JPEG" in line for line in named)


def name_of(path):
    return Path(path).name


# remove-duplicates: what comes out


@pytest.mark.parametrize("linkage", ["connected", "star"])
@pytest.mark.parametrize("keep", ["first", "last", "largest"])
def test_the_table_holds_what_the_verb_gives(drawn, hashed, out, linkage, keep):
    words = ("--radius", RADIUS, "--linkage", linkage, "--keep", keep)
    wanted = imgmatch_df.remove_duplicates(hashed, RADIUS, linkage=linkage, keep=keep)
    assert wanted.height == 5
    result = succeed("remove-duplicates", drawn, "-o", out / "o.parquet", *words, code=1)
    assert result.stdout == "kept 5 of 11 rows, removed 6; failed 1\n"
    check_failed(result.stderr, drawn / "cut.jpg")
    assert_frame_equal(pl.read_parquet(out / "o.parquet"), wanted)
    assert [path.name for path in out.iterdir()] == ["o.parquet"]


def test_ndjson_has_the_removed_rows_inside_with_hashes_as_text(drawn, hashed, out):
    succeed("remove-duplicates", drawn, "--radius", RADIUS, "-o", out / "o.ndjson", code=1)
    wanted = imgmatch_df.remove_duplicates(hashed, RADIUS)
    rows = [json.loads(line) for line in (out / "o.ndjson").read_text().splitlines()]
    assert [row["path"] for row in rows] == wanted["path"].to_list()
    assert [row["bmh1"] for row in rows] == wanted.select(bits("bmh1"))["bmh1"].to_list()
    removed = wanted.explode("removed_records").drop_nulls("removed_records")["removed_records"].struct.unnest()
    found = [record for row in rows for record in row["removed_records"]]
    assert [record["path"] for record in found] == removed["path"].to_list()
    assert [record["bmh1"] for record in found] == removed.select(bits("bmh1"))["bmh1"].to_list()


@pytest.mark.parametrize("piped", [False, True])
def test_csv_has_every_row_with_its_cluster(drawn, hashed, out, piped):
    wanted = imgmatch_df.cluster(hashed, RADIUS, id="path").with_columns(bits("bmh1"))
    words = ["remove-duplicates", drawn, "--radius", RADIUS]
    if piped:
        (out / "o.csv").write_bytes(succeed(*words, code=1).stdout_bytes)
    else:
        succeed(*words, "-o", out / "o.csv", code=1)
    found = pl.read_csv(out / "o.csv", infer_schema=False)
    assert found.columns == wanted.columns
    for name in ("path", "bmh1", "cluster_id", "representative_id", "distance", "kept"):
        assert found[name].to_list() == wanted[name].cast(pl.String).to_list()


def test_phash_and_the_radius_of_nothing(drawn, out):
    frame = imgmatch_df.visual_hash(imgmatch_df.scan_images(drawn), "path", hash_types="phash").collect()
    for radius in (0, 6):
        words = ("--hash-type", "phash", *(("--radius", radius) if radius else ()))
        succeed("remove-duplicates", drawn, "-o", out / "o.parquet", *words, code=1)
        wanted = imgmatch_df.remove_duplicates(frame, radius, "phash")
        assert_frame_equal(pl.read_parquet(out / "o.parquet"), wanted)


def test_pictures_inside_a_table_stay_in_parquet(drawn, hashed, out):
    data = [Path(path).read_bytes() for path in hashed["path"]]
    for column in (data, [{"bytes": one, "path": "x"} for one in data]):
        frame = pl.DataFrame({"label": range(len(data)), "image": column})
        frame.write_parquet(out / "in.parquet")
        succeed("remove-duplicates", out / "in.parquet", "--radius", RADIUS, "-o", out / "o.parquet", code=1)
        found = pl.read_parquet(out / "o.parquet")
        assert (
            found["label"].to_list()
            == imgmatch_df.remove_duplicates(hashed.with_row_index(), RADIUS)["index"].to_list()
        )
        assert found["image"].to_list() == [column[row] for row in found["label"]]
        result = succeed("remove-duplicates", out / "in.parquet", "--radius", RADIUS, "-o", out / "o.csv", code=1)
        lost = "image" if column is data else "image.bytes"
        assert f"left out, because .csv cannot hold it: {lost} (Binary); .parquet holds it\n" in result.stderr
        wanted = imgmatch_df.cluster(hashed, RADIUS)["representative_id"].to_list()
        assert read_csv(out / "o.csv")["representative_id"].to_list() == wanted
        succeed("remove-duplicates", out / "in.parquet", "--radius", RADIUS, "-o", out / "o.json", code=1)
        records = json.loads((out / "o.json").read_text())["records"]
        assert [base64.b64decode(record["_base64"]) for record in records] == [data[row] for row in found["label"]]


# Tables that hold hashes


def test_stored_hashes_are_taken(drawn, hashed, tables, out, no_hashing):
    wanted = imgmatch_df.cluster(hashed, RADIUS, keep="largest")["kept"].to_list()
    for table in tables:
        for ending in ("csv", "parquet", "ndjson", "json"):
            words = ("--radius", RADIUS, "--keep", "largest", "-o", out / f"o.{ending}")
            result = succeed("remove-duplicates", table, *words, code=1)
            assert result.stdout == "kept 5 of 11 rows, removed 6; failed 1\n"
            check_failed(result.stderr, drawn / "cut.jpg")
        assert read_csv(out / "o.csv")["kept"].to_list() == wanted
        kept = hashed.filter(pl.Series(wanted))["path"].to_list()
        assert pl.read_parquet(out / "o.parquet")["path"].to_list() == kept
        assert [json.loads(line)["path"] for line in (out / "o.ndjson").read_text().splitlines()] == kept
        records = json.loads((out / "o.json").read_text())["records"]
        assert [record["_url"] for record in records] == kept
        assert records[0]["_width"] == 120


def test_rows_without_a_hash_in_a_table_of_hashes_stay_without(hashed, out, no_hashing):
    rows = hashed.with_columns(bmh1=pl.when(pl.int_range(pl.len()) > 2).then("bmh1")).drop("status")
    rows.write_parquet(out / "in.parquet")
    result = succeed("remove-duplicates", out / "in.parquet", "--radius", 1, "-o", out / "o.csv", code=1)
    check_failed(result.stderr, *hashed["path"].gather([0, 1, 2, 10]), no_hash=True)


def test_stored_hashes_without_sources(hashed, out, no_hashing):
    hashed.select("bmh1", count=1).write_parquet(out / "in.parquet")
    result = succeed("remove-duplicates", out / "in.parquet", "--radius", RADIUS, "-o", out / "o.csv", code=1)
    named = "rows without a name are identified by their number, from 0\n"
    assert result.stderr.startswith(named)
    check_failed(result.stderr.removeprefix(named), "row 10", no_hash=True)
    found = read_csv(out / "o.csv")
    assert found["representative_id"].to_list() == imgmatch_df.cluster(hashed, RADIUS)["representative_id"].to_list()
    result = succeed("remove-duplicates", out / "in.parquet", "--hash-type", "phash", code=2)
    assert "Hint: --hash-type bmh1 uses" in result.stderr
    assert "--source names" in succeed("remove-duplicates", out / "in.parquet", "--list-removed", code=2).stderr


def test_a_table_of_the_other_kind_is_compared_by_that(drawn, out, no_hashing):
    hashes = pl.DataFrame({"phash": [2, 3, 2**63 + 2]}, schema={"phash": pl.UInt64}).with_columns(
        path=pl.lit("no file")
    )
    hashes.write_parquet(out / "in.parquet")
    result = succeed("remove-duplicates", out / "in.parquet", "--radius", 1, "-o", out / "o.parquet")
    assert result.stdout == "kept 1 of 3 rows, removed 2; failed 0\n"
    assert pl.read_parquet(out / "o.parquet")["removed_records"].list.len().to_list() == [2]


def test_hashes_that_are_none(out):
    (out / "in.csv").write_text("path,bmh1\na,0101\n")
    result = succeed("remove-duplicates", out / "in.csv", code=2)
    assert "a bmh1 is 968 characters of 0 and 1" in result.stderr
    (out / "in.ndjson").write_text('{"path": "a", "bmh1": null}\n')
    assert "no_hash 1" in succeed("remove-duplicates", out / "in.ndjson", code=1).stderr
    pl.DataFrame({"path": ["a"], "phash": [1]}).write_parquet(out / "in.parquet")
    assert pl.read_csv(succeed("remove-duplicates", out / "in.parquet").stdout_bytes)["kept"].to_list() == [True]
    pl.DataFrame({"path": ["a"], "phash": [1.5]}).write_parquet(out / "in.parquet")
    assert "column 'phash' has dtype Float64" in succeed("remove-duplicates", out / "in.parquet", code=2).stderr


def test_columns_of_the_input_that_are_called_as_ours_are_no_failures(drawn, hashed, out, no_hashing):
    """A shop's own status, detail and distance say nothing of hashes."""
    rows = hashed.drop("status", "detail").with_columns(
        status=pl.lit("active"), detail=pl.lit("blue shoe"), distance=pl.lit(None, pl.Float64)
    )
    for status in (pl.col("status"), pl.lit(3), pl.struct("status")):
        rows.with_columns(status=status).write_parquet(out / "in.parquet")
        words = ("--radius", RADIUS, "-o", out / "o.json")
        result = succeed("remove-duplicates", out / "in.parquet", *words, code=1)
        left_out = "left out, because the documented .json has no place for it: distance\n"
        assert result.stderr.startswith(left_out)
        check_failed(result.stderr.removeprefix(left_out), drawn / "cut.jpg", no_hash=True)
        response = json.loads((out / "o.json").read_text())
        removed = [record for kept in response["records"] for record in kept.get("removed_records", ())]
        codes = [record["_status"]["code"] for record in (*response["records"], *removed)]
        assert sorted(codes) == [200] * 10 + [400]
        (failed,) = [record for record in response["records"] if record["_status"]["code"] == 400]
        assert failed["_status"]["text"] == "Error Loading Image: Record has no hash"
        query = f"{int.from_bytes(hashed['bmh1'][0]):0968b}"
        succeed("rank-images", query, out / "in.parquet", "-o", out / "o.json", code=1)
        response = json.loads((out / "o.json").read_text())
        assert (len(response["answer_records"]), len(response["skipped_records"])) == (10, 1)
        assert response["skipped_records"][0]["_status"]["text"] == "Error Loading Image: Record has no hash"


def test_the_summary_counts_the_answer_not_columns_of_the_input(hashed, out, no_hashing):
    for kept in (pl.lit("yes"), pl.lit(value=False), pl.lit(7)):
        hashed.with_columns(kept=kept, reference_id=pl.lit("mine")).write_parquet(out / "in.parquet")
        for ending in ("parquet", "ndjson", "json", "csv"):
            words = ("--radius", RADIUS, "-o", out / f"o.{ending}", *(("--prefix", "x_") if ending == "csv" else ()))
            result = succeed("remove-duplicates", out / "in.parquet", *words, code=1)
            assert result.stdout == "kept 5 of 11 rows, removed 6; failed 1\n"
        result = succeed("remove-duplicates", out / "in.parquet", "--radius", RADIUS, "-o", out / "o.csv", code=2)
        assert "the table has a column 'kept' already" in result.stderr
        assert pl.read_parquet(out / "o.parquet")["reference_id"].to_list() == ["mine"] * 5


def test_a_size_that_is_no_number_is_a_column_like_any_other(tables, out, no_hashing):
    csv = tables[1]
    table = pl.read_csv(csv, infer_schema=False)
    sizes = [*"SML", "XL", None, "38", "40.5", "", "007", "-1", "9" * 30]
    table.with_columns(size=pl.Series(sizes), height=pl.lit("80 cm")).write_csv(csv)
    words = ("--radius", RADIUS, "-o", out / "o.parquet")
    succeed("remove-duplicates", csv, *words, code=1)
    found = pl.read_parquet(out / "o.parquet")
    size_of = dict(zip(table["path"], sizes, strict=True))
    assert found["size"].to_list() == [size_of[path] for path in found["path"]]
    assert found.schema["width"] == pl.UInt32
    result = succeed("remove-duplicates", csv, *words, "--keep", "largest", code=2)
    assert "keep='largest' needs a numeric column 'height'" in result.stderr
    table.with_columns(size=pl.Series(sizes)).write_csv(csv)
    succeed("remove-duplicates", csv, *words, "--keep", "largest", code=1)


@pytest.mark.parametrize("form", ["hex", "number", "one of them"])
def test_hashes_of_the_kind_that_is_not_compared_may_have_any_form(hashed, tables, out, no_hashing, form):
    csv = tables[1]
    table = pl.read_csv(csv, infer_schema=False)
    texts = table["phash"].to_list()
    other = [None if text is None else f"{int(text, 2):016x}" if form == "hex" else f"{int(text, 2)}" for text in texts]
    other = [*texts[:-2], other[-2], texts[-1]] if form == "one of them" else other
    table.with_columns(phash=pl.Series(other)).write_csv(csv)
    wanted = imgmatch_df.remove_duplicates(hashed, RADIUS)["path"].to_list()
    for words in ((), ("--hash-type", "bmh1"), ("--reference", csv, "--hash-type", "bmh1")):
        succeed("remove-duplicates", csv, "--radius", RADIUS, *words, "-o", out / "o.parquet", code=1)
        found = pl.read_parquet(out / "o.parquet")
        assert found["path"].to_list() == (table["path"].to_list() if words[:1] == ("--reference",) else wanted)
        form_of = dict(zip(table["path"], other, strict=True))
        assert found["phash"].to_list() == [form_of[path] for path in found["path"]]
    succeed("rank-images", table["bmh1"][0], csv, "-o", out / "o.csv", code=1)
    result = call("remove-duplicates", csv, "--hash-type", "phash")
    if form == "one of them":
        assert (result.exit_code, "a phash is 64 characters of 0 and 1" in result.stderr) == (2, True)
    else:
        assert result.exit_code == 1


def test_beside_pictures_that_are_hashed_the_other_kind_may_have_any_form(drawn, out):
    pl.DataFrame({"path": [str(drawn / "1.jpg"), str(drawn / "2.jpg")], "phash": ["c3", "3c"]}).write_csv(
        out / "in.csv"
    )
    succeed("remove-duplicates", out / "in.csv", "--hash-type", "bmh1", "-o", out / "o.csv")
    assert read_csv(out / "o.csv")["phash"].to_list() == ["c3", "3c"]


def test_hashes_of_the_other_kind_are_hashes_in_the_output(tables, out, no_hashing):
    succeed("remove-duplicates", tables[1], "--radius", RADIUS, "-o", out / "o.parquet", code=1)
    assert pl.read_parquet_schema(out / "o.parquet")["phash"] == pl.UInt64
    assert pl.read_parquet_schema(out / "o.parquet")["bmh1"] == pl.Binary


# --reference


def test_against_stored_rows_equals_a_double_loop(tmp_path, out):
    rng = np.random.default_rng(5)
    base = rng.integers(0, 2**63, 40, np.uint64)

    def make(n):
        flips = np.uint64(1) << rng.integers(0, 64, (3, n)).astype(np.uint64)
        hashes = rng.choice(base, n) ^ np.where(rng.random((3, n)) < 0.5, flips, 0).astype(np.uint64).sum(axis=0)
        values = [None if rng.random() < 0.1 else int(value) for value in hashes]
        return pl.DataFrame(
            {"path": [f"{n}/{row}" for row in range(n)], "phash": values}, {"path": pl.String, "phash": pl.UInt64}
        )

    new, stored = make(120), make(60)
    new = new.with_columns(distance=pl.lit("mine"), kept=pl.lit("mine"))
    new.write_parquet(out / "new.parquet")
    stored.write_parquet(out / "stored.parquet")
    command = ("remove-duplicates", out / "new.parquet")
    for radius in (0, 1, 3):
        words = ("--reference", out / "stored.parquet", "--radius", radius)
        assert "'kept', 'distance' already" in succeed(*command, *words, "-o", out / "o.parquet", code=2).stderr
        succeed(*command, *words, "-o", out / "o.parquet", "--prefix", "our_", code=1)
        found = pl.read_parquet(out / "o.parquet")
        assert set(found["distance"]) == {"mine"}
        found = found.drop("distance", "kept").rename(lambda name: name.removeprefix("our_"))
        nearest = []
        for value in new["phash"]:
            near = [
                ((value ^ known).bit_count(), row)
                for row, known in enumerate(stored["phash"])
                if None not in (value, known) and (value ^ known).bit_count() <= radius
            ]
            nearest.append(min(near, default=None))
        matches = [None if one is None else (one[0], stored["path"][one[1]]) for one in nearest]
        fresh = new.drop("distance", "kept").filter(pl.Series([one is None for one in matches]))
        clustered = iter(imgmatch_df.cluster(fresh, radius, "phash", id="path").rows(named=True))
        wanted = []
        for row, one in zip(new.select("path", "phash").rows(named=True), matches, strict=True):
            if one is None:
                wanted.append({**next(clustered), "reference_id": None})
            else:
                made = {"cluster_id": None, "representative_id": None, "distance": one[0], "kept": False}
                made |= {"reason": "in_reference", "joined_at": None}
                wanted.append({**row, **made, "reference_id": one[1]})
        assert found.rows(named=True) == wanted
        assert any(one is not None for one in matches)


def test_against_a_folder_and_a_table_in_every_output(drawn, hashed, tables, tmp_path, out):
    for against in (drawn, *tables):
        for ending in ("parquet", "ndjson", "csv"):
            result = call("remove-duplicates", drawn, "--reference", against, "--radius", 0, "-o", out / f"o.{ending}")
            assert result.exit_code == 1
            assert result.stdout == "kept 1 of 11 rows, removed 10, 10 of them match a reference row; failed 1\n"
            assert "1 of 11 reference rows have no hash, and match nothing\n" in result.stderr
        assert pl.read_parquet(out / "o.parquet")["reference_id"].null_count() == 1
        line = json.loads((out / "o.ndjson").read_text().splitlines()[0])
        assert (line["kept"], line["distance"], line["reference_id"]) == (False, 0, line["path"])
    result = succeed("remove-duplicates", drawn, "--reference", drawn, "-o", out / "o.json", code=2)
    assert "Hint: -o writes a .parquet" in result.stderr


def test_the_old_name_of_reference_works_and_is_hidden(tables, out):
    words = ("remove-duplicates", tables[0], "--radius", 0, "-o", out / "o.parquet")
    new = call(*words, "--reference", tables[1])
    found = pl.read_parquet(out / "o.parquet")
    old = call(*words, "--against", tables[1])
    said = "--against is deprecated and will be removed in the next release: use --reference\n"
    assert said in old.stderr
    assert said not in new.stderr
    assert (old.exit_code, old.stdout) == (new.exit_code, new.stdout)
    assert_frame_equal(pl.read_parquet(out / "o.parquet"), found)
    both = succeed(*words, "--against", tables[1], "--reference", tables[1], code=2)
    assert "got --reference and --against, which is its old name\nHint: pass --reference only." in both.stderr
    text = call("remove-duplicates", "--help").stdout
    assert "--reference" in text
    assert "--against" not in text


def test_a_column_names_the_reference_rows(tables, out):
    pl.read_parquet(tables[0]).with_row_index("number").write_parquet(out / "reference.parquet")
    words = ("remove-duplicates", tables[0], "--radius", 0, "-o", out / "o.parquet")
    named = (*words, "--reference", out / "reference.parquet", "--reference-id")
    succeed(*named, "number", code=1)
    found = pl.read_parquet(out / "o.parquet")
    assert found["reference_id"].dtype == pl.UInt32
    assert found["reference_id"].drop_nulls().len() == (~found["kept"]).sum() > 0
    absent = succeed(*named, "nope", code=2).stderr
    assert "no column 'nope' in --reference" in absent
    assert "Hint: --reference-id names one of these." in absent
    alone = succeed(*words, "--reference-id", "number", code=2).stderr
    assert "--reference-id has no effect without --reference" in alone


@pytest.mark.parametrize("columns", [{"left": "a", "right": "b"}, {"n": 1.5}, {"phash": 7, "left": "a", "right": "b"}])
def test_against_a_table_whose_images_are_not_clear_has_a_hint_that_can_be_followed(drawn, out, columns, monkeypatch):
    frame = pl.DataFrame({name: [value] for name, value in columns.items()})
    if "right" in columns:
        frame = frame.with_columns(right=pl.lit(str(drawn / "1.jpg")))
    table = out / "in.parquet"
    frame.write_parquet(table)
    with monkeypatch.context() as patch:
        patch.setattr(run, "hash_batch", lambda *_: pytest.fail("hashed"))
        words = ("remove-duplicates", drawn, "--reference", table, "--hash-type", "bmh1")
        hint = succeed(*words, code=2).stderr.split("Hint: ")[1]
    assert f"imgmatch visual-hash {table} --source COLUMN -o reference.duckdb" in hint
    assert "--reference reference.duckdb" in hint
    if "right" in columns:
        known = out / "known.duckdb"
        (out / "copy.jpg").write_bytes((drawn / "1.jpg").read_bytes())
        frame.with_columns(right=pl.lit(str(out / "copy.jpg"))).write_parquet(table)
        succeed("visual-hash", table, "--source", "right", "-o", known)
        assert (
            "1 of them match"
            in succeed("remove-duplicates", drawn, "--reference", known, "-o", out / "o.csv", code=1).stdout
        )


@pytest.mark.parametrize("form", ["known.duckdb", "known.parquet"])
def test_rows_that_are_stored_do_not_match_themselves(drawn, hashed, out, form):
    succeed("visual-hash", drawn, "-o", out / "all.duckdb", code=1)
    if form == "known.parquet":
        imgmatch_df.write_hashes(imgmatch_df.read_hashes(out / "all.duckdb"), out / form)
    else:
        (out / "all.duckdb").rename(out / form)
    words = ("--reference", out / form, "--radius", RADIUS)
    result = succeed("remove-duplicates", drawn, *words, "-o", out / "o.parquet", code=1)
    assert result.stdout == "kept 5 of 11 rows, removed 6, 0 of them match a reference row; failed 1\n"
    wanted = imgmatch_df.cluster(imgmatch_df.scan_images(drawn), RADIUS, source="path", id="path", reference=out / form)
    assert_frame_equal(pl.read_parquet(out / "o.parquet"), wanted.collect())
    assert wanted.collect()["reference_id"].null_count() == 11
    kept = imgmatch_df.remove_duplicates(hashed, RADIUS)["path"].to_list()
    assert wanted.filter("kept").collect()["path"].to_list() == kept
    # A stored copy that is not among the rows is another image.
    copied = pl.read_parquet(out / "o.parquet").filter(kept=False).head(1).select(path="representative_id")
    copied.write_parquet(out / "one.parquet")
    result = succeed("remove-duplicates", out / "one.parquet", *words, "-o", out / "o.csv")
    assert "1 of them match" in result.stdout


# --list-removed


def test_list_removed_prints_one_path_a_line_and_nothing_else(drawn, hashed):
    before = {path.name: path.read_bytes() for path in drawn.iterdir()}
    result = succeed("remove-duplicates", drawn, "--radius", RADIUS, "--list-removed", "--keep", "last", code=1)
    wanted = imgmatch_df.cluster(hashed, RADIUS, keep="last").filter(~pl.col("kept"))["path"].to_list()
    assert result.stdout == "".join(f"{path}\n" for path in wanted)
    assert "1 again.jpg" in result.stdout
    assert {path.name: path.read_bytes() for path in drawn.iterdir()} == before


def test_list_removed_never_names_a_file_that_is_wanted(drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("1.jpg", "1 again.jpg", "2.jpg"):
        (folder / name).write_bytes((drawn / name).read_bytes())
    (folder / "2_link.jpg").symlink_to(folder / "2.jpg")
    os.link(folder / "2.jpg", folder / "2_hard.jpg")
    words = ("--radius", RADIUS, "--list-removed")
    # The same files by several names: only the one whose picture is kept in another file is listed.
    sources = ("photos", str(folder), "photos/../photos/2.jpg")
    result = succeed("remove-duplicates", *sources, *words)
    assert result.stdout.splitlines() == ["photos/1.jpg", str(folder / "1.jpg")]
    assert "not listed: " in result.stderr
    # In a table, relative paths start elsewhere.
    pl.DataFrame({"url": ["2.jpg", "./2.jpg", "2_link.jpg", "1.jpg", "1 again.jpg"]}).write_csv("in.csv")
    (tmp_path / "2_link.jpg").write_bytes(b"another file")
    result = succeed("remove-duplicates", "in.csv", "--base-dir", folder, *words)
    assert result.stdout == f"{folder / '1 again.jpg'}\n"
    assert result.stderr == "not listed: 2 removed rows whose file is also the file of a kept or stored row\n"
    # What is compared with itself is removed, and no file of it.
    for stored in (folder, "photos"):
        result = succeed("remove-duplicates", "photos", "--reference", stored, *words)
        assert result.stdout == ""
        assert result.stderr == "not listed: 5 removed rows whose file is also the file of a kept or stored row\n"


@pytest.fixture
def elsewhere(drawn, tmp_path, monkeypatch):
    """Stores whose relative paths start in `photos`, made there and with --base-dir, and a folder above it."""
    photos = tmp_path / "photos"
    (photos / "sub").mkdir(parents=True)
    for name, to in (("1.jpg", "1.jpg"), ("2.jpg", "sub/2.jpg")):
        (photos / to).write_bytes((drawn / name).read_bytes())
    pl.DataFrame({"url": ["1.jpg", "sub/2.jpg"]}).write_csv(tmp_path / "in.csv")
    monkeypatch.chdir(photos)
    succeed("visual-hash", ".", "-o", tmp_path / "here.duckdb")
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    succeed("visual-hash", "../photos", "-o", tmp_path / "above.duckdb")
    monkeypatch.chdir(tmp_path)
    succeed("visual-hash", "in.csv", "--base-dir", "photos", "-o", "base.duckdb")
    succeed("visual-hash", "in.csv", "--base-dir", "photos", "-o", "base.parquet")
    return tmp_path


@pytest.mark.parametrize("stored", ["here.duckdb", "above.duckdb", "base.duckdb", "base.parquet"])
def test_list_removed_names_no_stored_file_whose_path_started_elsewhere(drawn, elsewhere, stored):
    (elsewhere / "today").mkdir()
    (elsewhere / "today" / "again.jpg").write_bytes((drawn / "1 again.jpg").read_bytes())
    words = ("--reference", stored, "--radius", RADIUS, "--list-removed")
    for photos in ("photos", elsewhere / "photos"):
        result = succeed("remove-duplicates", photos, "today", *words)
        # The copy may be the only one left: the stored file that it matches is not found.
        assert result.stdout == ""
        assert result.stderr == (
            "not listed: 3 removed rows that match a stored row whose file is not found: relative paths of --reference "
            "start in another folder; run the command there\n"
        )
    # Files of the same names that happen to be here are others.
    (elsewhere / "1.jpg").write_bytes((drawn / "3.jpg").read_bytes())
    (elsewhere / "link").symlink_to(elsewhere / "photos")
    wanted = 1 if stored == "base.parquet" else 2  # a table of paths and hashes does not say which file it was
    result = succeed("remove-duplicates", "link", *words)
    assert result.stdout.count("\n") == 2 - wanted
    assert f"not listed: {wanted} removed rows" in result.stderr


def test_list_removed_lists_copies_of_the_stored_files_that_are_found(drawn, elsewhere, monkeypatch):
    monkeypatch.chdir(elsewhere / "photos")
    (elsewhere / "photos" / "1.jpg").unlink()  # a store keeps the row of a file that is gone
    today = elsewhere / "today"
    today.mkdir()
    for number in (1, 2):
        (today / f"{number}.jpg").write_bytes((drawn / f"{number} again.jpg").read_bytes())
    words = ("--reference", "../here.duckdb", "--radius", RADIUS, "--list-removed")
    result = succeed("remove-duplicates", today, *words)
    assert result.stdout == f"{today / '2.jpg'}\n"
    assert result.stderr.startswith("not listed: 1 removed rows that match a stored row whose file is not found")


def test_list_removed_finds_stored_files_from_here(drawn, elsewhere, monkeypatch):
    monkeypatch.chdir(elsewhere / "photos")
    (elsewhere / "photos" / "today").mkdir()
    (elsewhere / "photos" / "today" / "1.jpg").write_bytes((drawn / "1 again.jpg").read_bytes())
    words = ("--reference", "../here.duckdb", "--radius", RADIUS, "--list-removed")
    assert succeed("remove-duplicates", "today", *words).output == "today/1.jpg\n"


def test_list_removed_prints_paths_from_the_working_directory(drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("1.jpg", "1 again.jpg", "1_half.jpg"):
        (tmp_path / "photos" / name).write_bytes((drawn / name).read_bytes())
        (tmp_path / name).write_text("a file of the same name here")
    half = tmp_path / "photos" / "1_half.jpg"
    urls = ["1.jpg", " 1 again.jpg", half.as_uri(), str(half), "file:1%20again.jpg"]
    pl.DataFrame({"url": urls}).write_parquet("in.parquet")
    words = ("in.parquet", "--base-dir", "photos", "--radius", RADIUS, "--list-removed")
    assert succeed("remove-duplicates", *words).stdout == f"photos/1 again.jpg\n{half}\n"
    result = succeed("remove-duplicates", *words, "--keep", "last")
    assert result.stdout == f"photos/1.jpg\n{half}\n"
    assert result.stderr == "not listed: 1 removed rows whose file is also the file of a kept or stored row\n"
    # An address is no path, and stays as it is.
    clustered = pl.DataFrame({"url": ["https://a.example/b.jpg", "s3://b/c.jpg"], "kept": [False, False]})
    assert removed.removed_files(clustered, "url", base_dir="photos").paths == clustered["url"].to_list()


def test_list_removed_refuses_names_with_line_breaks(drawn, tmp_path):
    for name in ("a.jpg", "b\nc.jpg"):
        (tmp_path / name).write_bytes((drawn / "1.jpg").read_bytes())
    result = succeed("remove-duplicates", tmp_path, "--list-removed", code=2)
    assert result.stdout == ""
    assert "line break" in result.stderr
    assert succeed("remove-duplicates", tmp_path, "--list-removed", "--keep", "last").stdout == f"{tmp_path}/a.jpg\n"


# rank-images


@pytest.mark.parametrize("k", [None, 3, 11, 99])
def test_a_ranking_holds_what_the_verb_gives(drawn, hashed, tables, out, k):
    query = str(drawn / "2.jpg")
    wanted = imgmatch_df.rank_images(hashed, query, k=k)
    words = () if k is None else ("-k", k)
    result = succeed("rank-images", query, drawn, "-o", out / "o.parquet", *words, code=1)
    assert result.stdout == ""
    check_failed(result.stderr, drawn / "cut.jpg")
    assert_frame_equal(pl.read_parquet(out / "o.parquet"), wanted)
    for table in tables:
        for ending in ("csv", "ndjson"):
            succeed("rank-images", query, table, "-o", out / f"o.{ending}", *words, code=1)
        found = pl.read_csv(out / "o.csv", infer_schema=False)
        for name in ("path", "distance", "rank"):
            assert found[name].to_list() == wanted[name].cast(pl.String).to_list()
        lines = [json.loads(line) for line in (out / "o.ndjson").read_text().splitlines()]
        assert [(line["path"], line["rank"]) for line in lines] == wanted.select("path", "rank").rows()
        succeed("rank-images", query, table, "-o", out / "o.json", *words, code=1)
        response = json.loads((out / "o.json").read_text())
        nearest = wanted.filter(pl.col("rank").is_not_null())
        assert [record["_url"] for record in response["answer_records"]] == nearest["path"].to_list()
        assert [name_of(record["_url"]) for record in response["skipped_records"]] == ["cut.jpg"]
        assert response["query_records"] == [{"_url": query, "_width": 160, "_height": 90}]


@pytest.mark.parametrize("hash_type", ["bmh1", "phash"])
def test_a_query_of_any_kind(drawn, out, hash_type):
    frame = imgmatch_df.visual_hash(imgmatch_df.scan_images(drawn), "path", hash_types=hash_type).collect()
    path = drawn / "3.jpg"
    encoded = base64.b64encode(path.read_bytes()).decode()
    text = frame.filter(path=str(path)).select(bits(hash_type)).item()
    wanted = imgmatch_df.rank_images(frame, str(path), hash_type)
    for query in (path, path.as_uri(), encoded, f"data:image/jpeg;base64,{encoded}", text):
        words = () if query is text else ("--hash-type", hash_type)  # a hash says itself what kind it is
        succeed("rank-images", query, drawn, *words, "-o", out / "o.parquet", code=1)
        assert_frame_equal(pl.read_parquet(out / "o.parquet"), wanted)
    succeed("rank-images", text, drawn, "-o", out / "o.json", code=1)
    assert json.loads((out / "o.json").read_text())["query_records"] == [{hash_type: text}]


# The documented JSON, end to end


@pytest.fixture
def request_file(drawn, out):
    """Write a request: a picture, itself again, a copy, another as base64, and one that is not there."""

    def write(**fields):
        path = out / "request.json"
        records = [
            {"_url": str(drawn / "1.jpg"), "_id": 1},
            {"_url": str(drawn / "1.jpg"), "_id": 2},
            {"_url": str(drawn / "1 again.jpg"), "_id": 3, "test": "insomnia"},
            {"_base64": base64.b64encode((drawn / "2.jpg").read_bytes()).decode(), "_id": 4},
            {"_url": str(drawn / "gone.jpg"), "_id": 5},
        ]
        path.write_text(json.dumps({"records": records, **fields}))
        return path

    return write


def test_documented_remove_duplicates(drawn, request_file, out):
    result = succeed("remove-duplicates", request_file(), "--base-dir", drawn, "-o", out / "response.json", code=1)
    assert result.stdout == "kept 4 of 5 rows, removed 1; failed 1\n"
    response = json.loads((out / "response.json").read_text())
    status = response.pop("status")
    request_id, proc_id = status.pop("request_id"), status.pop("proc_id")
    assert status == {"code": 300, "text": "MIXED_RESULT"}
    assert isinstance(proc_id, str)
    seconds = response.pop("statistics")
    assert list(seconds) == ["processing time"]
    assert 0 < seconds["processing time"] < 250
    ok = {"code": 200, "text": "OK", "request_id": request_id}
    size = {"_width": 140, "_height": 90}
    url, gone = str(drawn / "1.jpg"), str(drawn / "gone.jpg")
    again = {"_url": url, "_status": ok, "_id": "2", **size}
    copy = {"_url": str(drawn / "1 again.jpg"), "test": "insomnia", "_status": ok, "_id": "3", **size}
    encoded = base64.b64encode((drawn / "2.jpg").read_bytes()).decode()
    other = {"_base64": encoded, "_status": ok, "_id": "4", "_width": 160, "_height": 90}
    failed = {
        "_url": gone,
        "_status": {"code": 400, "text": FAILED_TEXT.format(gone), "request_id": request_id},
        "_id": "5",
    }
    first = {"_url": url, "_status": ok, "_id": "1", **size}
    assert response == {"records": [{**first, "removed_records": [again]}, copy, other, failed]}
    assert list(response["records"][0]) == ["_url", "_status", "_id", "_width", "_height", "removed_records"]
    # The request's range decides, unless the command does.
    for fields, words in (({"range": 4}, ()), ({}, ("--radius", RADIUS)), ({"range": 0}, ("--radius", RADIUS))):
        words = ("--base-dir", drawn, *words)
        succeed("remove-duplicates", request_file(**fields), *words, "-o", out / "response.json", code=1)
        records = json.loads((out / "response.json").read_text())["records"]
        assert [record["_id"] for record in records] == ["1", "4", "5"]
        assert [record["_id"] for record in records[0]["removed_records"]] == ["2", "3"]
    # A range is a share of the bits of whichever kind is compared.
    request = request_file(range=4, hash_type="bmh1")
    words = ("--base-dir", drawn, "--hash-type", "phash")
    succeed("remove-duplicates", request, *words, "-o", out / "o.parquet", code=1)
    assert "bmh1" not in pl.read_parquet(out / "o.parquet").columns
    frame = pl.DataFrame({"url": [str(drawn / "1.jpg")] * 2 + [str(drawn / "1 again.jpg")]})
    wanted = imgmatch_df.remove_duplicates(frame, 2, "phash", source="url").height
    assert pl.read_parquet(out / "o.parquet").height == wanted + 2


def test_documented_rank_images(drawn, request_file, out):
    query = {"_url": str(drawn / "1.jpg"), "mine": [1]}
    succeed("rank-images", request_file(query_record=query), "--base-dir", drawn, "-o", out / "response.json", code=1)
    response = json.loads((out / "response.json").read_text())
    assert list(response) == [
        *("query_records", "answer_distances", "answer_records", "skipped_records", "status", "statistics")
    ]
    size = {"_width": 140, "_height": 90}
    assert response["query_records"] == [{**query, **size}]
    distances = response["answer_distances"]
    assert distances[:2] == [0.0, 0.0]
    assert 0.0 < distances[2] < 4 < 15 < distances[3]
    assert all(round(distance, 1) == distance for distance in distances)
    records = response["answer_records"]
    assert records[:3] == [
        {"_url": str(drawn / "1.jpg"), "_id": "1", **size},
        {"_url": str(drawn / "1.jpg"), "_id": "2", **size},
        {"_url": str(drawn / "1 again.jpg"), "test": "insomnia", "_id": "3", **size},
    ]
    assert (records[3]["_id"], records[3]["_width"]) == ("4", 160)
    request_id = response["status"]["request_id"]
    gone = str(drawn / "gone.jpg")
    failed = {"code": 400, "text": FAILED_TEXT.format(gone), "request_id": request_id}
    assert response["skipped_records"] == [{"_url": gone, "_status": failed, "_id": "5"}]
    assert (response["status"]["code"], response["status"]["text"]) == (300, "MIXED_RESULT")
    succeed(
        "rank-images",
        request_file(query_record=query),
        "--base-dir",
        drawn,
        "-k",
        2,
        "-o",
        out / "response.json",
        code=1,
    )
    response = json.loads((out / "response.json").read_text())
    assert (len(response["answer_records"]), len(response["skipped_records"])) == (2, 1)


def test_a_query_record_that_fails_says_so(request_file, out, drawn):
    query = {"_url": str(drawn / "gone.jpg")}
    result = succeed(
        "rank-images", request_file(query_record=query), "--base-dir", drawn, "-o", out / "response.json", code=2
    )
    assert result.stderr.startswith("imgmatch: query_record cannot be hashed: not_found: ")
    assert not (out / "response.json").exists()
    assert "query_record must be an object" in succeed("rank-images", request_file(), code=2).stderr


def test_against_a_documented_request(drawn, request_file, out):
    request = request_file(range=50, hash_type="phash")  # of which only the records count
    allowed = ("--schemes", "file,data")
    result = succeed(
        "remove-duplicates", drawn, "--reference", request, "--radius", RADIUS, *allowed, "-o", out / "o.csv", code=1
    )
    assert "1 of 5 reference rows have no hash, and match nothing\n" in result.stderr
    found = pl.read_csv(out / "o.csv", infer_schema=False)
    nearest = {name_of(row["path"]): row["reference_id"] for row in found.rows(named=True) if row["reference_id"]}
    assert nearest == dict.fromkeys(["1.jpg", "1_half.jpg"], "1") | {"1 again.jpg": "3"} | dict.fromkeys(
        ["2.jpg", "2 again.jpg", "2_half.jpg"], "4"
    )
    listed = succeed(
        "remove-duplicates", drawn, "--reference", request, "--radius", RADIUS, *allowed, "--list-removed", code=1
    ).stdout.splitlines()
    assert sorted(map(name_of, listed)) == ["1_half.jpg", "2 again.jpg", "2.jpg", "2_half.jpg", "3.jpg", "3_half.jpg"]


# What a person sees


@ON_A_SYSTEM_WITH_TERMINALS
def test_a_terminal_gets_a_summary_of_what_was_removed(drawn, hashed, tables):
    code, seen = on_a_terminal("remove-duplicates", drawn, "--radius", RADIUS)
    assert code == 1
    for words in ("kept 5 of 11 rows, removed 6; failed 1", "11/11", "largest clusters", "1 of 11 failed"):
        assert words in seen
    assert seen.count(" 3  ") == 3  # rows of each cluster
    clustered = imgmatch_df.cluster(hashed, RADIUS)
    assert (
        f"moving the removed files away frees {clustered.filter(~pl.col('kept'))['size'].sum() / 1000:.1f} kB" in seen
    )
    assert "Hint: --store" not in seen
    code, seen = on_a_terminal("remove-duplicates", tables[0], "--no-progress", "--reference", tables[1])
    assert "removed 10, 10 of them match a reference row; failed 1" in seen
    assert "largest clusters" not in seen
    code, seen = on_a_terminal("remove-duplicates", tables[0], "--radius", RADIUS, "--list-removed", "--no-progress")
    assert len(seen.strip().splitlines()) == 8  # and two lines of the row that failed


@ON_A_SYSTEM_WITH_TERMINALS
def test_a_terminal_gets_a_table_of_the_nearest(drawn, tables, out):
    code, seen = on_a_terminal("rank-images", drawn / "1.jpg", tables[2], "-k", 2)
    assert code == 1
    rows = [line for line in seen.splitlines() if " bit" in line]
    assert [row.split()[:3] for row in rows] == [["1", "0", "bits"], ["2", *rows[1].split()[1:3]]]
    assert all("140 x 90" in row or "70 x 45" in row for row in rows)
    hashes = pl.DataFrame({"phash": range(1, 31)}, schema={"phash": pl.UInt64})
    hashes.write_parquet(out / "in.parquet")
    code, seen = on_a_terminal("rank-images", f"{29:064b}", out / "in.parquet")
    assert (code, seen.count(" bit"), "row 28" in seen, "10 more rows" in seen) == (0, 20, True, True)


# Wrong calls

WRONG = {
    "radius": ["remove-duplicates", "{album}", "--radius", "-1"],
    "radius of phash": ["remove-duplicates", "{album}", "--hash-type", "phash", "--radius", "65"],
    "hash type": ["remove-duplicates", "{album}", "--hash-type", "md5"],
    "linkage": ["remove-duplicates", "{album}", "--linkage", "single"],
    "keep": ["remove-duplicates", "{album}", "--keep", "best"],
    "keep what has no size": ["remove-duplicates", "{here}/bare.parquet", "--keep", "largest"],
    "decode": ["remove-duplicates", "{here}/bare.parquet", "--decode", "fast"],
    "against nothing": ["remove-duplicates", "{album}", "--reference", "absent"],
    "against a table without pictures": ["remove-duplicates", "{album}", "--reference", "{here}/numbers.parquet"],
    "list and write": ["remove-duplicates", "{album}", "--list-removed", "-o", "{here}/o.csv"],
    "list bytes": ["remove-duplicates", "{here}/bytes.parquet", "--list-removed"],
    "list what has no name": ["remove-duplicates", "{here}/bare.parquet", "--list-removed"],
    "list what is no text": ["remove-duplicates", "{here}/choice.parquet", "--list-removed"],
    "documented without sources": ["remove-duplicates", "{here}/bare.parquet", "-o", "{here}/o.json"],
    "documented ranking without sources": ["rank-images", "01" * 32, "{here}/bare.parquet", "-o", "{here}/o.json"],
    "documented with numbers": ["remove-duplicates", "{here}/bare.parquet", "--source", "n", "-o", "{here}/o.json"],
    "several requests": ["remove-duplicates", "{here}/request.json", "{here}/request.json"],
    "output": ["remove-duplicates", "{album}", "-o", "o.xlsx"],
    "no source to rank": ["rank-images", "{album}/1.jpg"],
    "k": ["rank-images", "{album}/1.jpg", "{album}", "-k", "0"],
    "query is not there": ["rank-images", "absent.jpg", "{album}"],
    "query is no picture": ["rank-images", "{here}/request.json", "{album}"],
    "query of another kind": ["rank-images", "01" * 32, "{album}", "--hash-type", "bmh1"],
    "request to rank is not there": ["rank-images", "absent.json"],
}


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG.keys())
def test_wrong_calls_are_known_before_hashing(words, drawn, out, monkeypatch):
    original = run.hash_batch

    def only_the_query(values, options, *kinds):
        assert len(values) <= 1, "hashed"
        return original(values, options, *kinds)

    monkeypatch.setattr(run, "hash_batch", only_the_query)
    monkeypatch.setattr(inputs, "collect", lambda *_, **__: pytest.fail("collected"))
    (out / "request.json").write_text('{"records": []}')
    bare = pl.DataFrame({"phash": [1], "n": [2]}, schema={"phash": pl.UInt64, "n": pl.Int64})
    bare.write_parquet(out / "bare.parquet")
    pl.DataFrame({"image": [b"x"] * 9}).write_parquet(out / "bytes.parquet")
    pl.DataFrame({"image": pl.Series(["x"] * 9, dtype=pl.Categorical)}).write_parquet(out / "choice.parquet")
    pl.DataFrame({"a": [1], "b": [2.5]}).write_parquet(out / "numbers.parquet")
    before = sorted(out.iterdir())
    result = succeed(*(word.format(album=drawn, here=out) for word in words), code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("imgmatch: ")
    assert "\nHint: " in result.stderr
    assert sorted(out.iterdir()) == before


def test_a_failing_run_leaves_what_was_there(drawn, out):
    (out / "o.csv").write_text("what was there before")
    for words in (["remove-duplicates", drawn], ["rank-images", drawn / "1.jpg", drawn]):
        result = call(*words, "--on-error", "raise", "-o", out / "o.csv")
        assert result.exit_code == 1
        assert result.stderr.startswith(f"{out / 'o.csv'} exists: it is replaced if this run succeeds\n")
        assert "decode_failed" in result.stderr
        assert (out / "o.csv").read_text() == "what was there before"
        assert [path.name for path in out.iterdir()] == ["o.csv"]


def test_sources_without_rows(out):
    pl.DataFrame(schema={"url": pl.String}).write_parquet(out / "in.parquet")
    for ending in ("parquet", "csv", "ndjson", "json"):
        result = succeed("remove-duplicates", out / "in.parquet", "-o", out / f"o.{ending}")
        assert result.stdout == "kept 0 of 0 rows, removed 0; failed 0\n"
        succeed("rank-images", "0" * 64, out / "in.parquet", "-o", out / f"o.{ending}")
    assert json.loads((out / "o.json").read_text())["answer_records"] == []


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C reaches whole consoles there")
def test_a_join_can_be_interrupted(out):
    # Random hashes at a radius where only a scan of all pairs can answer: a minute and more.
    hashes = np.random.default_rng(1).integers(0, 256, (300_000, 121), np.uint8)
    rows = pl.Series([row.tobytes() for row in hashes], dtype=pl.Binary)
    pl.DataFrame({"bmh1": rows}).write_parquet(out / "in.parquet")
    words = [*PROGRAM, "remove-duplicates", str(out / "in.parquet"), "--radius", "300", "-o", str(out / "o.parquet")]
    few = {**os.environ, "IMGMATCH_MAX_THREADS": "2"}  # on 64 processors it would take a second
    with subprocess.Popen(words, stderr=subprocess.PIPE, env=few) as program:
        wait_until(lambda: len(list(out.iterdir())) > 1 or program.poll() is not None, 200)
        time.sleep(2)  # by now the rows are read and the join is under way
        assert program.poll() is None
        program.send_signal(signal.SIGINT)
        assert program.wait(30) == 130  # the join takes minutes
        assert program.stderr.read().splitlines()[-1] == b"interrupted, nothing was written"
    assert [path.name for path in out.iterdir()] == ["in.parquet"]


def test_turned_copies(out):
    pixels = draw(5, 200, 140)
    for name, one in (("a", pixels), ("b", pixels[:, ::-1]), ("c", np.rot90(pixels)), ("d", draw(6, 200, 140))):
        (out / f"{name}.png").write_bytes(save(Image.fromarray(np.ascontiguousarray(one)), "PNG"))
    words = ("remove-duplicates", *(out / f"{name}.png" for name in "abcd"), "--radius", 4)
    assert succeed(*words).stdout.count("true") == 4
    succeed(*words, "--turns", "-o", out / "o.csv")
    assert pl.read_csv(out / "o.csv", infer_schema=False)["kept"].to_list() == ["true", "false", "false", "true"]
    folder = out / "folder"
    folder.mkdir()
    for name in "bd":
        (out / f"{name}.png").rename(folder / f"{name}.png")
    succeed("rank-images", out / "a.png", folder, "--turns", "-o", out / "r.parquet")
    ranked = pl.read_parquet(out / "r.parquet")
    assert ranked.select("rank", "turn").row(0) == (1, "mirrored")
    assert ranked["distance"][0] <= 4
    refused = succeed(*words[:2], "--turns", "-o", out / "o.json", code=2).stderr
    assert "--turns" in refused
    assert "Hint: " in refused
