"""`find_copies`: the pairs of local hashes and of PDQ with both evidences, equal on all faces."""

import io

import numpy as np
import polars as pl
import pytest
from documents import run_command
from PIL import Image, ImageOps
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.cli.app import app

pytestmark = pytest.mark.long

ENGINES = ["eager", "in-memory", "streaming"]
COLUMNS = ["votes", "distance", "turn", "scale", "shift_x", "shift_y", "coverage", "evidence"]


def png(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def scene(seed):
    """Return a picture of many corners."""
    small = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    return Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC)


FIRST, SECOND = scene(1), scene(2)
FLAT = Image.new("RGB", (80, 60), (200, 120, 40))
PICTURES = {
    "a first": FIRST,
    "b cropped": FIRST.crop((40, 20, 300, 220)),
    "c squashed": FIRST.resize((120, 240)),
    "d mirrored": ImageOps.mirror(FIRST),
    "e second": SECOND,
    "f flat": FLAT,
    "g broken": None,
    "h flat": FLAT,
    "i flat": Image.new("RGB", (70, 60), (20, 120, 40)),
}


@pytest.fixture(scope="module")
def images():
    data = [b"no image" if picture is None else png(picture) for picture in PICTURES.values()]
    return pl.DataFrame({"name": list(PICTURES), "url": data})


@pytest.fixture(scope="module")
def hashed(images):
    return images.imgmatch.visual_hash("url", hash_types=("local", "pdq", "sha256"))


@pytest.fixture(scope="module")
def copies(hashed):
    return imgmatch_df.find_copies(hashed, id="name")


def ask(frame, engine, verb):
    if engine == "eager":
        return verb(frame)
    query = verb(frame.lazy())
    result = query.collect(engine=engine)
    assert dict(query.collect_schema()) == dict(result.schema)
    return result


def test_the_pairs_are_those_of_both_kinds(hashed, copies):
    voted = hashed.imgmatch.near_duplicates(hash_type="local", id="name")
    near = hashed.imgmatch.near_duplicates(31, "pdq", turns=True, id="name")
    wanted = {}
    for row in voted.iter_rows(named=True):
        wanted[row["left_id"], row["right_id"]] = {**row, "distance": None, "evidence": "local"}
    for row in near.iter_rows(named=True):
        names = row["left_id"], row["right_id"]
        if names in wanted:
            wanted[names] |= {"distance": row["distance"], "evidence": "both"}
        else:
            wanted[names] = {**dict.fromkeys(copies.columns), **row, "evidence": "pdq"}
    assert copies.columns == ["left_id", "right_id", *COLUMNS]
    assert copies.to_dicts() == [
        {column: row[column] for column in copies.columns} for _, row in sorted(wanted.items())
    ]


def test_each_evidence_finds_what_the_other_misses(copies):
    found = {row[:2]: row[2:] for row in copies.select("left_id", "right_id", "evidence", "turn").iter_rows()}
    assert found["a first", "b cropped"] == ("local", "none")
    assert found["a first", "c squashed"] == ("pdq", "none")
    assert found["a first", "d mirrored"] == ("both", "mirrored")
    assert found["f flat", "h flat"] == ("pdq", "none")  # one file
    assert not any("e second" in names or "i flat" in names or "g broken" in names for names in found)
    assert copies.filter(evidence="pdq").select("votes", "scale", "shift_x", "coverage").null_count().row(0) == (
        (copies.filter(evidence="pdq").height,) * 4
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_all_faces_are_equal(images, hashed, copies, engine):
    for frame, options in (
        (hashed, {}),
        (images, {"source": "url"}),
        (hashed.drop("pdq"), {"source": "url"}),
        (hashed.drop("local"), {"source": "url"}),
        (hashed.drop("local", "pdq", "quality", "sha256"), {"source": "url"}),
        (hashed, {"min_votes": 8, "radius": 31, "flat": "identical", "max_pairs": 100}),
    ):
        found = ask(frame, engine, lambda data, options=options: data.imgmatch.find_copies(id="name", **options))
        assert_frame_equal(found, copies)
    numbers = ask(hashed, engine, imgmatch_df.find_copies)
    assert_frame_equal(numbers.select(COLUMNS), copies.select(COLUMNS))
    assert numbers.schema["left_id"] == pl.UInt32


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reference_is_a_frame_or_a_store(hashed, copies, engine, tmp_path):
    new, old = hashed.head(2), hashed.tail(7)
    found = ask(new, engine, lambda data: data.imgmatch.find_copies(id="name", reference=old, reference_id="name"))
    of = {"left_id": new["name"].to_list(), "right_id": old["name"].to_list()}
    wanted = copies.filter(pl.col(column).is_in(names) for column, names in of.items())
    assert_frame_equal(found, wanted.rename({"left_id": "query_id", "right_id": "reference_id"}))
    store = tmp_path / "all.duckdb"
    imgmatch_df.write_hashes(hashed, store, key="name", hash_types=("local", "pdq", "sha256"))
    stored = ask(hashed, engine, lambda data: data.imgmatch.find_copies(id="name", reference=store))
    everything = hashed.imgmatch.find_copies(id="name", reference=hashed, reference_id="name")
    order = ["query_id", "reference_id"]
    assert_frame_equal(stored.sort(order), everything.filter(pl.col("query_id") != pl.col("reference_id")).sort(order))
    assert stored.height == 2 * copies.height
    imgmatch_df.write_hashes(hashed, tmp_path / "pdq.duckdb", key="name", hash_types="pdq")
    with pytest.raises(imgmatch_df.ImgMatchError, match="local"):
        new.imgmatch.find_copies(reference=tmp_path / "pdq.duckdb")


def test_stricter_arguments_give_fewer_pairs(hashed, copies):
    strict = hashed.imgmatch.find_copies(id="name", min_votes=64, radius=0)
    assert 0 < strict.height < copies.height
    with pytest.raises(imgmatch_df.ArgumentError, match="more than max_pairs=1 pairs"):
        hashed.imgmatch.find_copies(max_pairs=1)


@pytest.mark.filterwarnings("ignore:a radius of 256 of 256 bits joins unrelated images")
def test_flat_images_are_compared_by_pdq(hashed):
    flat = hashed.filter(pl.col("name").str.ends_with("flat"))
    assert flat.imgmatch.find_copies(id="name")["right_id"].to_list() == ["h flat"]
    with pytest.warns(imgmatch_df.ImgMatchWarning, match="3 images show too little"):
        assert flat.drop("sha256").imgmatch.find_copies().is_empty()
    by_hash = flat.imgmatch.near_duplicates(256, "pdq", flat="match", turns=True)
    found = flat.imgmatch.find_copies(radius=256, flat="match")
    assert by_hash.height == found.height == 3
    assert_frame_equal(found.select(by_hash.columns), by_hash)


@pytest.fixture
def folder(tmp_path):
    for name, picture in PICTURES.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{name}.png").write_bytes(b"no image" if picture is None else png(picture))
    return tmp_path


def read(path):
    """Return pairs in a text file without the folder and the suffix of names."""
    names = pl.col("left_id", "right_id").str.replace(r"^.*/", "").str.replace(r"\.png$", "")
    return pl.read_csv(path, schema_overrides={"scale": pl.Float32}).with_columns(names)


def as_text(copies):
    return pl.read_csv(copies.write_csv().encode(), schema_overrides={"scale": pl.Float32})


def test_the_command_writes_the_pairs(folder, copies):
    run_command(f"imgmatch find-copies '{folder}/in' -o '{folder}/pairs.csv'")
    assert_frame_equal(read(folder / "pairs.csv"), as_text(copies))
    run_command(f"imgmatch find-copies '{folder}/in' -o '{folder}/pairs.parquet'")
    whole = pl.read_parquet(folder / "pairs.parquet")
    assert_frame_equal(whole.select(COLUMNS), copies.select(COLUMNS))
    piped = run_command(f"imgmatch find-copies '{folder}/in'")
    assert piped == (folder / "pairs.csv").read_text()


@pytest.mark.parametrize("target", ["hashes.duckdb", "hashes.csv", "hashes.parquet"])
def test_the_command_reads_hashes(folder, target):
    run_command(f"imgmatch visual-hash '{folder}/in' --hash-types local,pdq,sha256 -o '{folder}/{target}'")
    for path in (folder / "in").iterdir():
        path.unlink()
    found = CliRunner().invoke(app, ["find-copies", str(folder / target)])
    assert found.exit_code == 1  # one image failed
    assert found.stdout.count("\n") > 4
    assert "1 of 9 failed" in found.stderr


def test_the_command_refuses_wrong_calls(folder):
    source = str(folder / "in")
    for words, message in (
        (["--min-votes", "1"], "min_votes must be a whole number from 2 to 64, got 1"),
        (["--radius", "-1"], "radius must be a whole number of bits"),
        (["--max-pairs", "0"], "max_pairs must be"),
        (["--flat", "all"], "flat must be one of"),
        (["-o", str(folder / "pairs.json")], "has no pairs of copies"),
        (["-o", str(folder / "pairs.txt")], "unknown output ending"),
    ):
        result = CliRunner().invoke(app, ["find-copies", source, *words])
        assert (result.exit_code, message in result.stderr) == (2, True), result.output


def test_other_commands_compare_by_votes(folder, hashed):
    source = str(folder / "in")
    out = folder / "kept.parquet"
    run_command(f"imgmatch remove-duplicates '{source}' --hash-type local -o '{out}'")
    kept = pl.read_parquet(out)
    wanted = hashed.imgmatch.remove_duplicates(hash_type="local")
    assert kept["local"].to_list() == wanted["local"].to_list()
    assert kept["removed_records"].list.len().to_list() == wanted["removed_records"].list.len().to_list()
    run_command(f"imgmatch remove-duplicates '{source}' --hash-type local --min-votes 64 --no-turns -o '{out}'")
    assert len(pl.read_parquet(out)) == len(PICTURES)
    clusters = pl.read_csv(run_command(f"imgmatch remove-duplicates '{source}' --hash-type local").encode())
    assert clusters.columns[:6] == ["cluster_id", "kept", "reason", "votes", "joined_at", "representative_id"]
    ranked = pl.read_csv(
        run_command(f"imgmatch rank-images '{source}/a first.png' '{source}' --hash-type local").encode()
    )
    assert ranked.columns[:3] == ["rank", "votes", "turn"]
    assert ranked["votes"].drop_nulls().to_list() == ranked["votes"].drop_nulls().sort(descending=True).to_list()
    assert ranked["rank"].drop_nulls().to_list() == [1, 2, 3]
    wrong = CliRunner().invoke(app, ["remove-duplicates", source, "--hash-type", "local", "--radius", "3"])
    assert (wrong.exit_code, "local is compared by votes and has no radius" in wrong.stderr) == (2, True)
