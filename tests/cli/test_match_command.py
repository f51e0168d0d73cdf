"""`imgmatch match` lists the pairs of two nested loops, nearest first, with the columns of the list."""

import json
from pathlib import Path

import polars as pl
import pytest
from drawing import draw, jpeg, save
from PIL import Image
from terminal import ON_A_SYSTEM_WITH_TERMINALS, on_a_terminal
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.cli.app import app

PROGRAM_WORDS = {"COLUMNS": "200"}


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env=PROGRAM_WORDS)


def hits(*words, code=3):
    """Write a table of hits, and read it back."""
    out = Path(words[words.index("-o") + 1])
    out.unlink(missing_ok=True)
    result = call("match", *words)
    assert result.exit_code == code, result.output
    return pl.read_csv(out, infer_schema=False) if out.suffix == ".csv" else pl.read_parquet(out)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Known images; an inbox with copies of some, other images and a cut one; and what is in both, hashed."""
    root = tmp_path_factory.mktemp("match")
    for name in ("known", "inbox", "clean"):
        (root / name).mkdir()
    for seed in range(8):
        pixels = draw(seed, 400, 300)
        (root / "known" / f"{seed}.jpg").write_bytes(jpeg(pixels))
        if seed < 3:
            (root / "inbox" / f"copy {seed}.jpg").write_bytes(jpeg(pixels[::2, ::2], quality=60))
    (root / "inbox" / "copy 2 mirrored.jpg").write_bytes(jpeg(draw(2, 400, 300)[:, ::-1].copy()))
    for seed in range(20, 23):
        for folder in ("inbox", "clean"):
            (root / folder / f"{seed}.jpg").write_bytes(jpeg(draw(seed, 320, 200)))
    (root / "inbox" / "cut.jpg").write_bytes(jpeg(draw(9))[:300])
    return root


@pytest.fixture(scope="module")
def hashed(folders):
    kinds = ("pdq", "phash")
    known, inbox = (
        imgmatch_df.scan_images(folders / name).imgmatch.visual_hash("path", hash_types=kinds).collect()
        for name in ("known", "inbox")
    )
    return known, inbox


@pytest.fixture(scope="module")
def blocklist(folders, hashed):
    known, _ = hashed
    path = folders / "blocklist.csv"
    known.select(
        imgmatch_df.to_hex("pdq").alias("hash"),
        "quality",
        category=pl.format("cat {}", pl.int_range(pl.len())),
        distance=pl.lit("own"),
    ).write_csv(path)
    return path


def slow(known, inbox, radius, k=None):
    """(query path, reference row, bits): a double loop; the k nearest of each, all nearest first."""
    found = []
    for row, one in enumerate(inbox["pdq"]):
        near = [
            ((int.from_bytes(one) ^ int.from_bytes(other)).bit_count(), place)
            for place, other in enumerate(known["pdq"])
            if one is not None
        ]
        found += [(bits, row, place) for bits, place in sorted(near)[:k] if bits <= radius]
    return [(inbox["path"][row], place, bits) for bits, row, place in sorted(found)]


@pytest.mark.parametrize(("radius", "k"), [(31, None), (97, None), (97, 1), (97, 2), (0, None)])
def test_hits_are_those_of_two_loops(folders, hashed, blocklist, tmp_path, radius, k):
    expected = slow(*hashed, radius, k)
    words = [] if k is None else ["-k", k]
    code = 3 if expected else 1  # one file is cut
    out = tmp_path / "hits.csv"
    found = hits(
        *(folders / "inbox", blocklist, "--hash-type", "pdq", "--radius", radius, "-o", out, "--prefix", "m_"),
        *words,
        code=code,
    )
    assert found.columns == ["m_query_id", "m_reference_id", "m_distance", "hash", "quality", "category", "distance"]
    rows = [(row["m_query_id"], int(row["m_reference_id"]), int(row["m_distance"])) for row in found.rows(named=True)]
    assert rows == expected
    assert radius != 31 or len({path for path, _, _ in rows}) == 3
    digits = hashed[0].select(imgmatch_df.to_hex("pdq")).to_series()
    assert found["hash"].to_list() == [digits[place] for _, place, _ in rows]
    assert found["category"].to_list() == [f"cat {place}" for _, place, _ in rows]
    assert set(found["distance"]) <= {"own"}


def test_a_column_of_the_list_is_never_replaced(folders, blocklist, tmp_path):
    result = call("match", folders / "inbox", blocklist, "--hash-type", "pdq", "-o", tmp_path / "hits.csv")
    assert result.exit_code == 2
    assert "the table has a column 'distance' already" in result.output
    assert "Hint: --prefix or --suffix" in result.output
    assert not (tmp_path / "hits.csv").exists()


@pytest.mark.parametrize("name", ["raw.txt", "known.parquet", "known.ndjson", "known.duckdb", "known"])
def test_every_reference_gives_the_same_pairs(folders, hashed, tmp_path, name):
    known, _ = hashed
    path = tmp_path / name
    digits = known.select("path", imgmatch_df.to_hex("pdq").alias("pdq"), "quality", note=pl.lit("x"))
    if name == "raw.txt":
        rows = digits.select("pdq", "quality", "path").rows()
        path.write_text("".join(f"{one},{quality},{file}\n" for one, quality, file in rows))
    elif name == "known.parquet":
        known.write_parquet(path)
    elif name == "known.ndjson":
        digits.write_ndjson(path)
    elif name == "known.duckdb":
        imgmatch_df.write_hashes(known.rename({"path": "source"}), path, key="source", hash_types="pdq")
    else:
        path = folders / "known"
    found = hits(folders / "inbox", path, "--hash-type", "pdq", "-o", tmp_path / "hits.parquet")
    expected = [(query, known["path"][row], bits) for query, row, bits in slow(*hashed, 31)]
    assert found.select("query_id", "reference_id", "distance").rows() == expected
    own = {
        "raw.txt": ["hash", "quality", "filename"],
        "known.parquet": [name for name in known.columns if name not in ("pdq", "phash")],
        "known.ndjson": ["path", "pdq", "quality", "note"],
    }
    assert found.columns[3:] == own.get(name, [])


def test_formats_and_a_pipe(folders, hashed, blocklist, tmp_path):
    listed = tmp_path / "list.csv"
    pl.read_csv(blocklist).drop("distance").write_csv(listed)
    expected = slow(*hashed, 31)
    result = CliRunner().invoke(app, ["match", str(folders / "inbox"), str(listed), "--hash-type", "pdq"])
    assert result.exit_code == 3
    piped = pl.read_csv(result.stdout.encode())
    assert piped.select("query_id", "reference_id", "distance").rows() == expected
    out = tmp_path / "hits.ndjson"
    assert call("match", folders / "inbox", listed, "--hash-type", "pdq", "-o", out).exit_code == 3
    assert [json.loads(line)["category"] for line in out.read_text().splitlines()] == piped["category"].to_list()
    result = call("match", folders / "inbox", listed, "--hash-type", "pdq", "-o", tmp_path / "hits.json")
    assert (result.exit_code, "the documented .json has no matches" in result.output) == (2, True)


def test_exit_codes(folders, hashed, blocklist, tmp_path):
    words = ["--hash-type", "pdq", "--prefix", "m_", "-o", tmp_path / "hits.csv"]
    result = call("match", folders / "clean", blocklist, *words)
    assert (result.exit_code, "0 of 3 images match" in result.output) == (0, True)
    assert (tmp_path / "hits.csv").read_text().count("\n") == 1
    result = call("match", folders / "clean" / "20.jpg", folders / "inbox" / "cut.jpg", blocklist, *words)
    assert (result.exit_code, "1 of 2 failed: decode_failed 1" in result.output) == (1, True)
    result = call("match", folders / "inbox", blocklist, *words)  # hits, and a failed image
    assert (result.exit_code, "3 of 8 images match" in result.output) == (3, True)
    assert "failed: decode_failed 1" in result.output
    broken = tmp_path / "broken.txt"
    broken.write_text(f"{'ab' * 32}\nzz\n")
    result = call("match", folders / "clean", broken, *words)
    assert (result.exit_code, "line 2: 'zz' (2 characters)" in result.output) == (1, True)
    result = call("match", folders / "clean", broken, *words, "--on-error", "raise")
    assert (result.exit_code, "has a row without a pdq: line 2" in result.output) == (1, True)
    for wrong, text in (
        (["absent.csv"], "nothing matches 'absent.csv'"),
        ([blocklist, "-k", "0"], "k must be a whole number of at least 1, got 0"),
        ([blocklist, "--radius", "300"], "radius must be a whole number of bits from 0 to 256, got 300"),
        ([blocklist, "--reference-column", "x"], "no column 'x' in"),
        ([blocklist, "--reference-id", "x"], "no column 'x' in"),
        ([blocklist, "--min-votes", "3"], "pdq is compared by its distance and has no min_votes"),
        ([folders / "known", "--reference-column", "x"], "--reference-column names a column of one"),
    ):
        result = call("match", folders / "clean", *wrong, *words)
        assert (result.exit_code, text in result.output) == (2, True), result.output
        assert "Hint: " in result.output


def test_a_list_without_the_kind_says_what_to_pass(folders, blocklist):
    result = call("match", folders / "clean", blocklist)
    assert result.exit_code == 2
    assert "--hash-type names another kind of hash" in result.output


def test_the_kind_is_that_of_the_reference(folders, hashed, tmp_path):
    known, _ = hashed
    known.select("path", "phash").write_parquet(tmp_path / "known.parquet")
    found = hits(folders / "inbox", tmp_path / "known.parquet", "-o", tmp_path / "hits.parquet")
    assert found["distance"].max() <= 4
    result = call("match", folders / "inbox", tmp_path / "known.parquet", "-o", tmp_path / "hits.csv")
    assert "within 4 bits of phash" in result.output


def test_turns_find_mirrored_copies(folders, blocklist, tmp_path):
    words = (folders / "inbox", blocklist, "--hash-type", "pdq", "--prefix", "m_", "-o", tmp_path / "hits.csv")
    assert "mirrored" not in "".join(hits(*words)["m_query_id"])
    found = hits(*words, "--turns").filter(pl.col("m_query_id").str.contains("2 mirrored"))
    assert found["m_turn"].to_list() == ["mirrored"]
    assert found["category"].to_list() == ["cat 2"]


def test_local_hashes_compare_by_votes(folders, tmp_path):
    words = (folders / "inbox", folders / "known", "--hash-type", "local", "-o", tmp_path / "hits.parquet")
    found = hits(*words)
    assert found.columns[:3] == ["query_id", "reference_id", "votes"]
    assert found["votes"].to_list() == sorted(found["votes"], reverse=True)
    assert found["query_id"].n_unique() == 4  # the mirrored one, too
    assert hits(*words, "--min-votes", 60, code=1).is_empty()


def test_hashes_of_little_to_see_are_said(folders, hashed, tmp_path):
    _, inbox = hashed
    near = inbox.filter(pl.col("path").str.ends_with("copy 0.jpg"))
    listed = tmp_path / "list.csv"
    digits = near.select(imgmatch_df.to_hex("pdq")).item()
    listed.write_text(f"hash,quality\n{digits},49\n")
    Image.new("RGB", (99, 99), "white").save(tmp_path / "blank.png")
    words = (near["path"][0], tmp_path / "blank.png", listed, "--hash-type", "pdq", "-o", tmp_path / "hits.csv")
    result = call("match", *words)
    assert result.exit_code == 0
    assert "rows of REFERENCE with a quality below 50 match identical files only: 1; --flat match" in result.output
    assert "images with a quality below 50 match identical files only: 1; --flat match" in result.output
    assert hits(*words, "--flat", "match")["distance"].to_list() == ["0"]


def test_a_row_does_not_match_itself_in_its_store(folders, tmp_path):
    store = tmp_path / "all.duckdb"
    assert call("visual-hash", folders / "clean", "-o", store).exit_code == 0
    result = call("match", folders / "clean", store, "-o", tmp_path / "hits.csv")
    assert (result.exit_code, "0 of 3 images match" in result.output) == (0, True)
    assert call("match", store, folders / "clean", "--hash-type", "phash", "-o", tmp_path / "hits.csv").exit_code == 3


def test_hashes_are_kept_in_a_store(folders, blocklist, tmp_path):
    words = (folders / "clean", blocklist, "--hash-type", "pdq", "--prefix", "m_", "-o", tmp_path / "hits.csv")
    store = tmp_path / "store.duckdb"
    assert "3 new" in call("match", *words, "--store", store).output
    assert "3 unchanged" in call("match", *words, "--store", store).output


def test_reference_of_other_commands_reads_lists_too(folders, blocklist, tmp_path):
    words = ("--reference", blocklist, "--hash-type", "pdq", "--radius", 31, "-o", tmp_path / "kept.csv")
    result = call("remove-duplicates", folders / "inbox", *words)
    assert result.exit_code == 1  # one file is cut
    assert "removed 3, 3 of them match a reference row" in result.output


def test_nested_columns_are_named_where_a_format_cannot_hold_them(folders, hashed, tmp_path):
    known, _ = hashed
    rows = known.select(imgmatch_df.to_hex("pdq").alias("hash")).with_columns(tags=pl.lit(["a"]), blob=pl.lit(b"x"))
    rows.write_parquet(tmp_path / "list.parquet")
    words = (folders / "inbox", tmp_path / "list.parquet", "--hash-type", "pdq", "-o")
    result = call("match", *words, tmp_path / "hits.csv")
    assert "left out of the list, which holds bytes there: blob" in result.output
    assert "left out, because .csv cannot hold it: tags (List(String))" in result.output
    assert hits(*words, tmp_path / "hits.parquet")["tags"].to_list() == [["a"]] * 3


@ON_A_SYSTEM_WITH_TERMINALS
def test_the_screen(folders, blocklist):
    code, shown = on_a_terminal("match", str(folders / "inbox"), str(blocklist), "--hash-type", "pdq", "--no-progress")
    assert code == 3
    assert "3 of 8 images match" in shown
    assert "within 31 bits of pdq; failed 1" in shown
    assert "category" in shown
    assert "cat 2" in shown


def test_names_of_every_sort(hashed, tmp_path):
    known, _ = hashed
    folder = tmp_path / "a [b] ü"
    folder.mkdir()
    (folder / "=x, y.jpg").write_bytes(save(Image.fromarray(draw(1, 400, 300)), "PNG"))
    listed = tmp_path / "lïst = 1.csv"
    digits = known.select(imgmatch_df.to_hex("pdq")).to_series()
    listed.write_text(f'hash,"a, ""b"""\n{digits[1]},"ü, ""q"""\n')
    found = hits(folder, listed, "--hash-type", "pdq", "-o", tmp_path / "hits.parquet")
    assert found["query_id"].to_list() == [str(folder / "=x, y.jpg")]
    assert found['a, "b"'].to_list() == ['ü, "q"']
