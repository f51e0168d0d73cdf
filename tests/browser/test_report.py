"""A report shows what `cluster` returns, at every place of its slider, and takes the decisions of a person."""

import polars as pl
import pytest
from report_page import clusters_of, counts_of

import imgmatch_df

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::imgmatch_df.ImgMatchWarning"),  # of radii that join all
]
RADII = (0, 8, 24, 48)
VOTES = (40, 20, 12, 8)
KEEP = {
    "first": {"keep": "first"},
    "last": {"keep": "last"},
    "largest": {"keep": "largest"},
    "smallest": {"keep": "smallest"},
    "newest": {"keep": "newest"},
    "oldest": {"keep": "oldest"},
    "expressions": {"keep": [pl.col("path").str.contains("Exports", literal=True), -pl.col("size").cast(pl.Int64)]},
    "protect": {"keep": "largest", "protect": pl.col("path").str.contains("half|grey|2024")},
    "across": {"keep": "largest", "across": pl.col("path").str.extract("([^/]+)/[^/]+$")},
    "within": {"keep": "largest", "within": pl.col("modified").dt.day() < 12},
}


@pytest.mark.parametrize("linkage", ["connected", "star"])
@pytest.mark.parametrize("hash_type", ["bmh1", "phash"])
def test_slider_shows_the_clusters_of_each_radius(hash_type, linkage, album, show):
    report = imgmatch_df.report(album, 8, hash_type, linkage=linkage, keep="largest", id="path", max_radius=48)
    opened = show(report)
    assert opened.count("images") == album.height
    for radius in (8, *RADII, 8):
        truth = album.imgmatch.cluster(radius, hash_type, linkage=linkage, keep="largest")
        opened.move_slider(radius)
        assert opened.counts() == counts_of(truth), radius
        assert opened.clusters() == clusters_of(truth), radius
        removed = truth.filter(~pl.col("kept"))
        assert_bytes(opened.tile("freed"), removed["size"].sum())


def assert_bytes(shown: str, n_bytes: int) -> None:
    """Compare bytes as they are shown, such as ``12 kB``."""
    value, unit = shown.split()
    scale = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    assert abs(float(value) * scale - n_bytes) <= 0.5 * scale


@pytest.mark.parametrize("linkage", ["connected", "star"])
def test_slider_shows_the_clusters_of_each_number_of_votes(linkage, album, show):
    report = imgmatch_df.report(album, hash_type="local", min_votes=12, linkage=linkage, keep="largest", id="path")
    opened = show(report)
    for votes in VOTES:
        truth = album.imgmatch.cluster(hash_type="local", min_votes=votes, linkage=linkage, keep="largest")
        opened.move_slider(votes)
        assert opened.counts() == counts_of(truth), votes
        assert opened.clusters() == clusters_of(truth), votes


def test_slider_with_turns(album, show):
    report = imgmatch_df.report(album, 8, turns=True, max_radius=48)
    opened = show(report)
    for radius in (0, 8, 30):
        opened.move_slider(radius)
        assert opened.clusters() == clusters_of(album.imgmatch.cluster(radius, turns=True)), radius


def test_slider_with_a_reference(album, show):
    reference, frame = album.gather_every(3), album.gather_every(3, 1)
    report = imgmatch_df.report(frame, 8, reference=reference, reference_id="path", max_radius=48)
    opened = show(report)
    for radius in RADII:
        opened.move_slider(radius)
        truth = frame.imgmatch.cluster(radius, reference=reference)
        assert opened.clusters() == clusters_of(truth), radius
        assert opened.count("in the reference") == truth["reference_id"].is_not_null().sum()


@pytest.mark.parametrize("rule", KEEP)
@pytest.mark.parametrize("linkage", ["connected", "star"])
def test_kept_images_are_those_of_the_rule(rule, linkage, album, show):
    options = {**KEEP[rule], "linkage": linkage}
    opened = show(imgmatch_df.report(album, 24, max_radius=48, **options))
    for radius in (24, 48, 8):
        opened.move_slider(radius)
        truth = album.imgmatch.cluster(radius, **options)
        assert opened.clusters() == clusters_of(truth)
        assert opened.counts() == counts_of(truth)


def test_pairs_that_are_no_duplicates_do_not_join(album, show):
    pairs = album.imgmatch.near_duplicates(24, id="path").gather_every(2).select("left_id", "right_id")
    options = {"id": "path", "not_duplicates": pairs}
    opened = show(imgmatch_df.report(album, 24, **options))
    for radius in (24, 8):
        opened.move_slider(radius)
        truth = album.imgmatch.cluster(radius, **options)
        assert opened.clusters() == clusters_of(truth)


def test_failed_flat_and_left_out_images_are_shown(album, show):
    opened = show(imgmatch_df.report(album, 24))
    page = opened.page
    assert opened.count("failed") == 2
    assert opened.count("flat") == album.filter(pl.col("quality") < 50).height
    for summary in page.locator("summary").all():
        summary.click()
    text = "".join(page.locator("details").all_inner_texts())
    for name, status in album.filter(pl.col("status") != "ok").select("path", "status").iter_rows():
        assert name in text
        assert status in text
    for name in ("white.jpg", "black.jpg"):
        assert name in text


def test_weakest_links_and_pairs_just_outside(album, show):
    """The joins on both sides of the radius are those of the spanning forest."""
    opened = show(imgmatch_df.report(album, 8, max_radius=48))
    links = album.imgmatch.near_duplicates(48, id="path")
    for radius in (8, 24):
        opened.move_slider(radius)
        for place, held in (("inside", pl.col("distance") <= radius), ("outside", pl.col("distance") > radius)):
            items = opened.page.locator(f"#{place} > li")
            assert 0 < items.count() <= 20
            shown = {(row["left_id"], row["right_id"]) for row in links.filter(held).iter_rows(named=True)}
            for item in items.all():
                left, right = item.locator(".path").all_inner_texts()
                assert (left, right) in shown or (right, left) in shown


def test_a_report_without_pairs(show):
    frame = pl.DataFrame({"name": ["a", "b"], "phash": pl.Series([0x0F0F0F0F12345678, None], dtype=pl.UInt64)})
    opened = show(imgmatch_df.report(frame, 4, "phash", id="name"))
    assert opened.count("images") == 2
    assert opened.count("failed") == 1
    assert opened.counts() == {"clusters": 0, "removed": 0}
    assert opened.listed() == []


def test_an_empty_report(show):
    frame = pl.DataFrame({"path": [], "phash": []}, schema={"path": pl.String, "phash": pl.UInt64})
    opened = show(imgmatch_df.report(frame, 4, "phash"))
    assert opened.count("images") == 0
