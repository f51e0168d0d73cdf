"""`--store` of the commands: the answer of a call without it, and no image is hashed twice."""

import os
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from drawing import draw, jpeg
from polars.testing import assert_frame_equal
from program import ON_A_SYSTEM_WITH_SIGNALS, run_interrupted
from terminal import ON_A_SYSTEM_WITH_TERMINALS, on_a_terminal
from typer.testing import CliRunner

import imgmatch_df
from imgmatch_df.batch import run as batches
from imgmatch_df.cli.app import app

pytestmark = pytest.mark.long
N_IMAGES = 7  # and one that is cut off
N_MANY = 80


def call(*words, code=1):
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


def draw_album(folder, first=0):
    folder.mkdir(parents=True)
    for seed in range(first, first + 4):
        pixels = draw(seed, 120, 90 + 10 * seed)
        (folder / f"{seed}.jpg").write_bytes(jpeg(pixels))
        if seed > first:
            (folder / f"{seed} again.jpg").write_bytes(jpeg(pixels, quality=40 + seed))
    (folder / "cut.jpg").write_bytes(jpeg(draw(9))[:300])
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_album(tmp_path / "photos")
    return tmp_path


@pytest.fixture
def hashed_rows(monkeypatch):
    """The sources that are hashed."""
    rows = []
    hash_batch = batches.hash_batch

    def count(sources, *rest):
        rows.extend(sources)
        return hash_batch(sources, *rest)

    monkeypatch.setattr(batches, "hash_batch", count)
    return rows


COMMANDS = {
    "visual-hash": [],
    "remove-duplicates": ["--radius", 40],
    "rank-images": [],
    "find-copies": [],
    "advise": [],
}


def words_of(command, *sources):
    query = ["photos/1.jpg"] if command == "rank-images" else []
    return [command, *query, *(sources or ["photos"]), *COMMANDS[command]]


@pytest.mark.parametrize("store", ["kept.duckdb", "kept.parquet", "kept"])
@pytest.mark.parametrize("command", list(COMMANDS))
def test_the_answer_is_the_one_without_a_store_and_the_second_run_hashes_what_failed(here, command, store, hashed_rows):
    outs = [here / f"{number}.parquet" for number in range(3)]
    call(*words_of(command), "-o", outs[0])
    says = [call(*words_of(command), "-o", outs[1], "--store", store).stderr]
    assert f"{store}: {N_IMAGES + 1} new, 1 failed" in says[0]
    hashed_rows.clear()
    says.append(call(*words_of(command), "-o", outs[2], "--store", store).stderr)
    assert f"{store}: 0 new, 1 tried again, {N_IMAGES} unchanged, 1 failed" in says[1]
    again = [name for name in hashed_rows if name != "photos/1.jpg"]  # the query
    assert again == ["photos/cut.jpg"]
    frames = [pl.read_parquet(out) for out in outs]
    assert_frame_equal(frames[0], frames[1])
    assert_frame_equal(frames[0], frames[2])
    for text in says:
        assert "photos/cut.jpg: decode_failed" in text or command == "visual-hash"


def test_one_store_serves_every_command(here, hashed_rows):
    call(*words_of("find-copies"), "-o", "pairs.csv", "--store", "all.duckdb")
    hashed_rows.clear()
    for number, command in enumerate(COMMANDS):
        call(*words_of(command), "-o", f"{number}.csv", "--store", "all.duckdb")
    for kind in ("phash", "pdq", "local"):
        call("remove-duplicates", "photos", "--hash-type", kind, "-o", "one.csv", "--store", "all.duckdb")
    assert set(hashed_rows) == {"photos/cut.jpg", "photos/1.jpg"}
    assert hashed_rows.count("photos/1.jpg") == 1  # the query
    stored = imgmatch_df.read_hashes("all.duckdb")
    assert stored.height == N_IMAGES + 1
    assert {"bmh1", "phash", "pdq", "local", "sha256"} <= set(stored.columns)


def test_a_store_of_visual_hash_is_used_and_continued(here, hashed_rows):
    call("visual-hash", "photos", "-o", "h.duckdb")
    hashed_rows.clear()
    (here / "photos" / "new.jpg").write_bytes(jpeg(draw(20)))
    call(*words_of("remove-duplicates"), "-o", "o.csv", "--store", "h.duckdb")
    assert sorted(hashed_rows) == ["photos/cut.jpg", "photos/new.jpg"]
    assert "0 new" in call("visual-hash", "photos", "-o", "h.duckdb", code=0).stdout


def test_other_rows_of_the_store_do_not_join_and_stay(here):
    draw_album(here / "others", first=2)  # copies of some of the photos
    call("remove-duplicates", "others", "-o", "others.csv", "--store", "h.duckdb")
    call(*words_of("remove-duplicates"), "-o", "with.parquet", "--store", "h.duckdb")
    call(*words_of("remove-duplicates"), "-o", "without.parquet")
    assert_frame_equal(pl.read_parquet("with.parquet"), pl.read_parquet("without.parquet"))
    assert imgmatch_df.read_hashes("h.duckdb").height == 2 * (N_IMAGES + 1)


def test_changed_files_are_hashed_again_and_vanished_ones_are_no_rows(here, hashed_rows):
    call(*words_of("remove-duplicates"), "-o", "o.csv", "--store", "h.duckdb")
    (here / "photos" / "0.jpg").unlink()
    (here / "photos" / "1.jpg").write_bytes(jpeg(draw(30)))
    (here / "photos" / "2.jpg").write_bytes(b"\xff\xd8\xff")
    (here / "photos" / "cut.jpg").write_bytes(jpeg(draw(31)))
    hashed_rows.clear()
    call(*words_of("remove-duplicates"), "-o", "with.csv", "--store", "h.duckdb")
    assert sorted(hashed_rows) == [f"photos/{name}.jpg" for name in ("1", "2", "cut")]
    call(*words_of("remove-duplicates"), "-o", "without.csv")
    assert Path("with.csv").read_text() == Path("without.csv").read_text()
    assert "photos/0.jpg" not in Path("with.csv").read_text()


def test_tables_with_equal_missing_and_null_names(here):
    """Also of a file that was there when it was hashed: its hashes must not come back."""
    paths = ["photos/1.jpg", "photos/1.jpg", None, "photos/gone.jpg", "photos/0.jpg", "", "photos/cut.jpg"]
    table = pl.DataFrame({"path": paths, "size": 1, "bmh1_of": "x", "n": range(7)})
    table.write_parquet("in.parquet")
    call("visual-hash", "in.parquet", "-o", "first.parquet", "--store", "h.duckdb")
    (here / "photos" / "0.jpg").unlink()
    for command in ("visual-hash", "remove-duplicates", "find-copies"):
        outs = [here / f"{command}{number}.parquet" for number in range(2)]
        call(*words_of(command, "in.parquet"), "-o", outs[0])
        call(*words_of(command, "in.parquet"), "-o", outs[1], "--store", f"{command}.duckdb")
        assert_frame_equal(*map(pl.read_parquet, outs))
    call("visual-hash", "in.parquet", "-o", "again.parquet", "--store", "h.duckdb")
    found = pl.read_parquet("again.parquet")
    assert_frame_equal(found, pl.read_parquet("visual-hash0.parquet"))
    assert found["status"].to_list()[4] == "not_found"
    assert found["path"].to_list() == paths


def test_stale_times_in_a_table_are_not_those_of_the_files(here, hashed_rows):
    """A table that lists sizes and times is not the listing of the folder now."""
    imgmatch_df.scan_images("photos").collect().write_parquet("in.parquet")
    call("visual-hash", "in.parquet", "-o", "o.parquet", "--store", "h.duckdb")
    (here / "photos" / "1.jpg").write_bytes(jpeg(draw(30)))
    hashed_rows.clear()
    call("visual-hash", "in.parquet", "-o", "with.parquet", "--store", "h.duckdb")
    assert "photos/1.jpg" in hashed_rows
    call("visual-hash", "in.parquet", "-o", "without.parquet")
    assert_frame_equal(pl.read_parquet("with.parquet"), pl.read_parquet("without.parquet"))


def test_relative_paths_of_two_folders(here, monkeypatch):
    """Names start from the working directory or --base-dir; other files of the same names are hashed."""
    for folder, first in (("a", 0), ("b", 10)):
        draw_album(here / folder / "photos", first=first)
        (here / folder / "photos" / "same.jpg").write_bytes(jpeg(draw(first)))
        monkeypatch.chdir(here / folder)
        call(*words_of("remove-duplicates"), "-o", "with.csv", "--store", "../h.duckdb")
        call(*words_of("remove-duplicates"), "-o", "without.csv")
        assert Path("with.csv").read_text() == Path("without.csv").read_text()
    monkeypatch.chdir(here)
    pl.DataFrame({"path": ["photos/same.jpg"]}).write_csv("in.csv")
    for folder in ("a", "b"):
        words = ("visual-hash", "in.csv", "--base-dir", folder)
        call(*words, "-o", "with.csv", "--store", "t.duckdb", code=0)
        call(*words, "-o", "without.csv", code=0)
        assert Path("with.csv").read_text() == Path("without.csv").read_text()


def test_the_reference_is_hashed_into_the_store_too(here, hashed_rows):
    draw_album(here / "known", first=2)
    words = (*words_of("remove-duplicates"), "--reference", "known")
    call(*words, "-o", "without.csv")
    call(*words, "-o", "first.csv", "--store", "h.duckdb")
    hashed_rows.clear()
    call(*words, "-o", "second.csv", "--store", "h.duckdb")
    assert set(hashed_rows) == {"photos/cut.jpg", "known/cut.jpg"}
    assert Path("without.csv").read_text() == Path("first.csv").read_text() == Path("second.csv").read_text()
    refused = call(*words[:-1], "h.duckdb", "-o", "o.csv", "--store", here / "h.duckdb", code=2).stderr
    assert refused.startswith("imgmatch: --store and --reference name one file")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--decode", "scaled"], ["decode='full'", "decode='scaled'", "pass --decode full"]),
        (["--alpha", "white"], ["alpha='drop'", "alpha='white'", "pass --alpha drop"]),
        (["--trim", "borders"], ["trim=None", "trim='borders'", "leave --trim out"]),
        (["--pdq-variant", "512", "--hash-type", "pdq"], ["pdq_variant='full'", "pass --pdq-variant full"]),
    ],
)
def test_a_store_of_other_options_is_refused(here, hashed_rows, options, words):
    call(*words_of("find-copies"), "-o", "o.csv", "--store", "h.duckdb")
    hashed_rows.clear()
    refused = call("remove-duplicates", "photos", *options, "-o", "o.csv", "--store", "h.duckdb", code=2).stderr
    for word in (*words, "--store 'h.duckdb'", "Hint: "):
        assert word in refused
    assert hashed_rows == []


def test_a_store_that_lacks_a_kind_is_refused(here):
    call(*words_of("remove-duplicates"), "-o", "o.csv", "--store", "h.duckdb")
    refused = call(*words_of("find-copies"), "-o", "o.csv", "--store", "h.duckdb", code=2).stderr
    assert "no local, pdq, pdq_quality" in refused
    call("visual-hash", "photos", "--hash-types", "phash", "-o", "phash.duckdb")
    assert "no sha256" in call("advise", "photos", "--hash-type", "phash", "--store", "phash.duckdb", code=2).stderr


def test_names_and_sources_that_have_no_store(here):
    (here / "table.parquet").touch()
    pl.DataFrame({"path": ["photos/1.jpg"]}).write_parquet("some.parquet")
    pl.DataFrame({"image": [(here / "photos/1.jpg").read_bytes()]}).write_parquet("bytes.parquet")
    pl.DataFrame({"source": ["a"], "phash": [1]}, schema_overrides={"phash": pl.UInt64}).write_parquet("known.parquet")
    (here / "request.json").write_text('{"records": [{"_url": "photos/1.jpg"}]}')
    keyed = pl.DataFrame({"n": [1], "path": ["photos/1.jpg"]})
    imgmatch_df.write_hashes(keyed, "keyed.duckdb", source="path", key="n")
    words = words_of("remove-duplicates")
    for store, said in (
        ("x.csv", "--store must end in .duckdb or .parquet"),
        ("some.parquet", "not a store of hashes"),
        ("photos", "Hint: "),
        ("none/h.duckdb", "cannot write into"),
        ("keyed.duckdb", "has the key 'n'"),
    ):
        refused = call(*words, "-o", "o.csv", "--store", store, code=2).stderr
        assert said in refused
        assert "Hint: " in refused
    for source, said in (("bytes.parquet", "--key COLUMN"), ("request.json", "a documented request")):
        assert said in call("remove-duplicates", source, "-o", "o.csv", "--store", "h.duckdb", code=2).stderr
    assert "both stores" in call("visual-hash", "photos", "-o", "a.duckdb", "--store", "b.duckdb", code=2).stderr
    assert "name one file" in call(*words, "-o", "h.parquet", "--store", "./h.parquet", code=2).stderr
    said = call("remove-duplicates", "known.parquet", "-o", "o.csv", "--store", "h.duckdb", code=0).stderr
    assert "nothing is added to h.duckdb, since SOURCE has hashes" in said
    assert not (here / "h.duckdb").exists()


@pytest.mark.parametrize("store", ["kept/h.duckdb", "kept/h.parquet"])
@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_store_is_refused_before_anything_is_hashed(here, hashed_rows, store):
    (here / "kept").mkdir()
    call(*words_of("remove-duplicates"), "-o", "o.csv", "--store", store)
    for path, mode in ((store, 0o400), ("kept", 0o500)):
        Path(path).chmod(mode)
    hashed_rows.clear()
    refused = call(*words_of("remove-duplicates"), "-o", "o.csv", "--store", store, code=2).stderr
    (here / "kept").chmod(0o700)
    assert store in refused
    assert "Hint: " in refused
    assert hashed_rows == []


def test_a_failed_row_ends_the_run_and_the_others_are_kept(here):
    words = (*words_of("remove-duplicates"), "--on-error", "raise", "--store", "h.duckdb")
    assert "decode_failed" in call(*words, "-o", "o.csv").stderr
    assert not (here / "o.csv").exists()
    (here / "photos" / "cut.jpg").unlink()
    call(*words, "-o", "o.csv", code=0)
    assert (here / "o.csv").exists()


@ON_A_SYSTEM_WITH_TERMINALS
def test_the_screen_says_that_a_store_keeps_the_hashes_of_many_images(here):
    pl.DataFrame({"path": ["photos/1.jpg"] * 100}).write_csv("many.csv")
    pl.DataFrame({"path": ["photos/1.jpg"] * 99}).write_csv("few.csv")
    hint = "Hint: --store hashes.duckdb keeps the hashes"
    for command in ("find-copies", "remove-duplicates", "rank-images", "advise"):
        words = words_of(command, "many.csv")
        assert hint in on_a_terminal(*words)[1]
        for others in ([*words, "--store", "all.duckdb"], words_of(command, "few.csv"), [*words, "-o", "o.csv"]):
            assert hint not in on_a_terminal(*others)[1]
    assert hint not in on_a_terminal("remove-duplicates", "all.duckdb")[1]


@ON_A_SYSTEM_WITH_SIGNALS
@pytest.mark.parametrize("store", ["h.duckdb", pytest.param("h.parquet", marks=pytest.mark.slow)])
def test_ctrl_c_keeps_what_was_hashed_and_the_next_run_hashes_the_rest(here, store, hashed_rows):
    many = here / "many"
    many.mkdir()
    data = jpeg(draw(1, 300, 200))
    for number in range(N_MANY):
        (many / f"{number:03}.jpg").write_bytes(data)
    patch = "from imgmatch_df.store import parquet; parquet._COMMIT_S = 0.0" if store.endswith(".parquet") else ""
    words = ["remove-duplicates", "many", "-o", "o.csv", "--store", store]
    assert run_interrupted(*words, patch=patch) == (130, f"interrupted, the hashes so far are in {store}\n")
    assert not (here / "o.csv").exists()
    n_rows = imgmatch_df.read_hashes(store).height
    assert 0 < n_rows < N_MANY
    call(*words, code=0)
    assert len(hashed_rows) == N_MANY - n_rows
    call("remove-duplicates", "many", "-o", "without.csv", code=0)
    assert Path("o.csv").read_text() == Path("without.csv").read_text()


def test_times_before_1970_and_far_in_the_future(here):
    for name, year in (("0.jpg", 1960), ("1.jpg", 2200)):
        stamp = datetime(year, 1, 1, tzinfo=UTC).timestamp()
        os.utime(here / "photos" / name, (stamp, stamp))
    call(*words_of("advise"), "-o", "o.csv", "--store", "h.duckdb")
    said = call(*words_of("advise"), "-o", "o.csv", "--store", "h.duckdb").stderr
    assert f"{N_IMAGES} unchanged" in said
