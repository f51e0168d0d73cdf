"""What a person decides in a report: keys, undo, downloads that other commands read, and imports."""

import subprocess

import polars as pl
import pytest
from album import draw_album
from polars.testing import assert_frame_equal
from program import PROGRAM

import imgmatch_df

pytestmark = pytest.mark.browser
RULE = ["path", "cluster_id", "representative_id", "distance", "kept"]


@pytest.fixture
def report(album):
    return imgmatch_df.report(album, 24, keep="largest", id="path", max_radius=48)


def expected(album, chosen=None, radius=24, linkage="connected"):
    """Return the rows of clusters as `cluster` gives them, with the choices `{path: kept}`."""
    chosen = chosen or {}
    found = album.imgmatch.cluster(radius, keep="largest", id="path", linkage=linkage)
    rows = found.filter(pl.len().over("cluster_id") > 1)
    choice = pl.col("path").replace_strict(list(chosen), list(chosen.values()), default=None, return_dtype=pl.Boolean)
    return rows.with_columns(
        kept=pl.coalesce(choice, "kept"),
        decided_by=pl.when(choice.is_null()).then(pl.lit("rule")).otherwise(pl.lit("person")),
    )


def test_keys_choose_and_undo_and_a_reload_keeps_the_choice(report, show):
    opened = show(report)
    before = opened.count("would be removed")
    opened.press("j", "ArrowRight", " ")
    assert opened.count("would be removed") == before - 1
    path = opened.current().locator(".path").inner_text()
    opened.press("u")
    assert opened.count("would be removed") == before
    opened.press(" ")
    opened.page.reload()
    opened.__post_init__()
    assert opened.count("would be removed") == before - 1
    assert {image["path"] for images in opened.listed() for image in images if image["reason"] == "kept by you"} == {
        path
    }


def test_everything_can_be_undone(report, show):
    """After any keys, as many undos as choices give the page as it was."""
    opened = show(report)
    before = opened.listed()
    counts = opened.counts()
    opened.press("j", "ArrowRight", " ", "ArrowRight", "K", "j", "A", "k", " ", "j", "j", "A", "K")
    assert opened.counts() != counts
    opened.page.locator("#list .cluster header input[type=checkbox]").first.check()
    for _ in range(20):
        opened.press("u")
    assert opened.listed() == before
    assert opened.counts() == counts
    assert opened.page.locator("#undo").is_disabled()


def test_keep_only_this_and_keep_all(report, album, show):
    opened = show(report)
    opened.press("j", "ArrowRight", "K")
    path = opened.current().locator(".path").inner_text()
    (images,) = [images for images in opened.listed() if path in {image["path"] for image in images}]
    assert [image["path"] for image in images if image["kept"]] == [path]
    before = opened.count("would be removed")
    opened.press("j", "A")
    cluster = opened.current().locator("xpath=ancestor::article")
    assert cluster.locator(".card").count() == cluster.locator(".card.kept").count()
    assert opened.count("would be removed") == before - cluster.locator(".card").count() + 1


@pytest.mark.parametrize("linkage", ["connected", "star"])
def test_downloads_are_what_cluster_returns(linkage, album, show, tmp_path):
    opened = show(imgmatch_df.report(album, 24, keep="largest", id="path", max_radius=48, linkage=linkage))
    for radius in (24, 0, 48):
        opened.move_slider(radius)
        saved = opened.decisions(tmp_path)
        truth = expected(album, radius=radius, linkage=linkage)
        assert saved.height > 0
        assert_frame_equal(saved.select(RULE), truth.select(RULE), check_dtypes=False, check_row_order=False)
        assert saved["decided_by"].unique().to_list() == ["rule"]
        assert not saved["reviewed"].any()


def test_downloads_have_the_choices_and_an_import_restores_them(report, album, show, tmp_path):
    opened = show(report)
    opened.press("j", "ArrowRight", " ")
    first = opened.current().locator(".path").inner_text()
    opened.press("j", "j", "ArrowRight", "K")
    images = opened.current().locator("xpath=ancestor::article").locator(".card")
    kept = opened.current().locator(".path").inner_text()
    chosen = {first: True} | {path: path == kept for path in images.locator(".path").all_inner_texts()}
    opened.page.locator("#list .cluster header input[type=checkbox]").nth(1).check()
    saved = opened.decisions(tmp_path)
    truth = expected(album, chosen)
    columns = [*RULE, "decided_by"]
    assert_frame_equal(saved.select(columns), truth.select(columns), check_dtypes=False, check_row_order=False)
    assert saved["reviewed"].sum() > 1
    assert saved.filter("reviewed")["cluster_id"].n_unique() == 1
    (tmp_path / "excel.csv").write_bytes(
        b"\xef\xbb\xbf" + (tmp_path / "decisions.csv").read_bytes().replace(b"\n", b"\r\n")
    )
    for name in ("decisions.csv", "decisions.json", "excel.csv"):
        other = show(report)
        other.page.locator("#import").set_input_files(tmp_path / name)
        other.page.wait_for_function("() => document.querySelectorAll('#list .cluster input:checked').length === 1")
        folder = tmp_path / "again"
        folder.mkdir(exist_ok=True)
        assert_frame_equal(other.decisions(folder), saved)


def test_only_reviewed_clusters_are_saved(report, show, tmp_path):
    opened = show(report)
    opened.page.locator("#only-reviewed").check()
    assert opened.save("decisions.csv", tmp_path).read_text().count("\n") == 1
    opened.page.locator("#list .cluster header input[type=checkbox]").nth(2).check()
    saved = opened.decisions(tmp_path)
    paths = opened.page.locator("#list .cluster").nth(2).locator(".path").all_inner_texts()
    assert set(saved["path"]) == set(paths)
    assert saved["reviewed"].all()


@pytest.mark.parametrize("name", ["decisions.csv", "decisions.json"])
def test_apply_moves_what_the_page_would_remove(name, show, tmp_path, monkeypatch):
    """The files of the album have times with fractions of a second, as files of a camera have."""
    monkeypatch.chdir(tmp_path)
    draw_album(tmp_path / "photos", 8)
    frame = imgmatch_df.scan_images("photos").imgmatch.visual_hash("path", hash_types=("bmh1", "sha256")).collect()
    opened = show(imgmatch_df.report(frame, 24, keep="largest"))
    opened.press("ArrowRight", " ")
    assert opened.count("would be removed") > 1
    removed = {image["path"] for images in opened.listed() for image in images if not image["kept"]}
    opened.decisions(tmp_path)
    command = [*PROGRAM, "apply", name, "--move-to", "removed"]
    dry = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    assert (dry.returncode, dry.stderr) == (0, ""), dry
    assert {line.split(" -> ")[0] for line in dry.stdout.splitlines() if " -> " in line} == removed
    subprocess.run(command, check=True)
    assert {
        path.relative_to(tmp_path / "removed").as_posix() for path in (tmp_path / "removed").rglob("*.jpg")
    } == removed


def test_pairs_that_a_person_marks_are_no_duplicates(report, album, show, tmp_path):
    opened = show(report)
    opened.press("j", "ArrowRight", "d")
    cluster = opened.current().locator("xpath=ancestor::article")
    left, right = (cluster.locator(".path").nth(at).inner_text() for at in (0, 1))
    saved = pl.read_csv(opened.save("not_duplicates.csv", tmp_path))
    assert saved.rows(named=True) == [{"left_id": left, "right_id": right}]
    found = album.imgmatch.cluster(24, keep="largest", id="path", not_duplicates=saved)
    assert found.filter(path=right)["kept"].item() or found.filter(path=right)["representative_id"].item() != left
