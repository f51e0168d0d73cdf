"""Texts that a stranger chose, and files that changed, in a report: shown as text, and nothing runs."""

import json

import polars as pl
import pytest
from album import draw_noise
from drawing import draw
from PIL import Image
from report_page import clusters_of

import imgmatch_df

pytestmark = pytest.mark.browser
RUN = "globalThis.ran = 1"
NAMES = [
    f"</script><script>{RUN}</script>",
    f"<img src=x onerror='{RUN}'>",
    f'" onload="{RUN}" x="',
    f"' onfocus='{RUN}' autofocus='",
    f"]]></style></title><!--<script>{RUN}",
    f"javascript:{RUN}",
    "two\nlines",
    "carriage\rreturn",
    "\u202egpj.exe",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "a\u2028b\u2029c",
    'it\'s "quoted", with; commas',
    "{{ 7 * 7 }} {% raw %} ${7 * 7} `7`",
    "&lt;b&gt; &amp;amp; &#x41;",
    "=1+1",
    " spaces ",
    "\\u003cb\\u003e \\\\",
    "100%25%2f#fragment?query",
    "\x01\x1f",
    "x" * 200,
]


def ran(page) -> bool:
    return page.evaluate("globalThis.ran !== undefined")


def test_hostile_file_names_are_text(show, tmp_path):
    """Each is the name of an image, of its copy, of a file that fails and of a flat image."""
    for number, name in enumerate(NAMES):
        for folder in ("kept", "copy", "failed", "flat"):
            (tmp_path / "files" / folder / f"{name}.png").parent.mkdir(parents=True, exist_ok=True)
        image = draw_noise(number, 12, 9).resize((96, 72))
        image.save(tmp_path / "files" / "kept" / f"{name}.png")
        image.resize((48, 36)).save(tmp_path / "files" / "copy" / f"{name}.png")
        (tmp_path / "files" / "failed" / f"{name}.png").write_bytes(b"no image")
        Image.new("RGB", (64, 64), (number, 9, 9)).save(tmp_path / "files" / "flat" / f"{name}.png")
    paths = sorted(str(path) for path in (tmp_path / "files").rglob("*") if path.is_file())
    frame = pl.DataFrame({"path": paths}).imgmatch.visual_hash("path", hash_types=("bmh1", "sha256"))
    assert frame.filter(pl.col("status") != "ok").height == len(NAMES)
    opened = show(imgmatch_df.report(frame, 24, keep="largest", title=NAMES[0]))
    truth = clusters_of(frame.imgmatch.cluster(24, keep="largest"))
    assert len(truth) == len(NAMES)
    assert opened.clusters() == truth
    assert all(image["has_image"] for images in opened.listed() for image in images)
    assert opened.page.title() == NAMES[0]
    assert opened.page.locator("h1").text_content() == NAMES[0]
    rest = opened.page.locator("section[aria-labelledby=rest-title]").text_content()
    assert [path for path in paths if "/failed/" in path and path not in rest] == []
    assert [path for path in paths if "/flat/" in path and path not in rest] == []
    for at in range(3):
        opened.page.locator("#list .thumb").nth(at).click()
        opened.press("ArrowRight", "Escape")
    saved = opened.decisions(tmp_path)
    in_clusters = {path for kept, removed in truth for path in kept | removed}
    assert set(saved["path"]) == in_clusters
    assert pl.read_csv(tmp_path / "decisions.csv", infer_schema=False)["path"].to_list() == saved["path"].to_list()
    opened.page.locator("#text").fill(RUN)
    assert not ran(opened.page)


def test_links_lead_to_the_files(show, tmp_path):
    """The link of a path is that of the file, whatever its name, and a link has no other scheme."""
    for number, name in enumerate(["a b.png", "100%25.png", "#x?y.png", "é\U0001f600.png", "q'\"<>.png"]):
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(draw(number, 96, 72)).save(tmp_path / folder / name)
    frame = imgmatch_df.scan_images([str(tmp_path / "a"), str(tmp_path / "b")]).imgmatch.visual_hash("path").collect()
    opened = show(imgmatch_df.report(frame, 8))
    links = opened.page.evaluate(
        "() => [...document.querySelectorAll('#list .path a')].map((link) => [link.textContent, link.href])"
    )
    assert len(links) == 10
    for path, link in links:
        with_link = opened.page.evaluate("(link) => decodeURIComponent(new URL(link).pathname)", link)
        assert with_link == path


@pytest.mark.parametrize(
    "name", ["javascript:alert(1)", "data:text/html,<script>alert(1)</script>", "ftp://host/a.png"]
)
def test_no_link_runs_a_script(name, show):
    frame = pl.DataFrame({"path": [name, "plain.png"], "phash": pl.Series([7, 7], dtype=pl.UInt64)})
    opened = show(imgmatch_df.report(frame, 0, "phash", flat="match"))
    assert opened.count("clusters") == 1
    links = opened.page.evaluate("() => [...document.querySelectorAll('a')].map((link) => link.href)")
    assert not [link for link in links if link.startswith(("javascript:", "data:", "ftp:"))]


def test_credentials_of_urls_are_not_in_the_page(tmp_path):
    frame = pl.DataFrame(
        {
            "url": ["https://user:secret@host.invalid/a.png", "https://host.invalid/b.png?token=hidden"],
            "phash": pl.Series([7, 7], dtype=pl.UInt64),
        }
    )
    path = tmp_path / "report.html"
    report = imgmatch_df.report(frame, 0, "phash", flat="match", max_pictures=0)
    report.write_html(path)
    assert "secret" not in json.dumps(report._about)
    assert "secret" not in path.read_text(encoding="utf-8")


def test_hostile_ids_are_text(show, tmp_path):
    frame = pl.DataFrame(
        {"name": [name + side for name in NAMES for side in "ab"], "phash": pl.Series(range(40), dtype=pl.UInt64) // 2}
    ).with_columns(pl.col("phash") * 0x0101_0101_0101 + 0x00FF_00FF_00FF_0000)
    opened = show(imgmatch_df.report(frame, 0, "phash", id="name"))
    assert opened.clusters() == clusters_of(frame.imgmatch.cluster(0, "phash"), "name")
    saved = opened.decisions(tmp_path)
    assert saved["id"].to_list() == frame["name"].to_list()
    assert not ran(opened.page)


def test_images_that_changed_or_are_missing_have_no_thumbnail(show, tmp_path):
    for number in range(4):
        for side in "ab":
            Image.fromarray(draw(number, 96, 72)).save(tmp_path / f"{number}{side}.png")
    frame = imgmatch_df.scan_images(str(tmp_path)).imgmatch.visual_hash("path").collect()
    (tmp_path / "0a.png").unlink()
    (tmp_path / "1b.png").write_bytes(b"no image any more")
    (tmp_path / "2a.png").write_bytes((tmp_path / "2a.png").read_bytes()[:300])
    (tmp_path / "3b.png").unlink()
    (tmp_path / "3b.png").mkdir()
    opened = show(imgmatch_df.report(frame, 8))
    without = {image["path"][-6:] for images in opened.listed() for image in images if not image["has_image"]}
    assert without == {"0a.png", "1b.png", "2a.png", "3b.png"}
    card = opened.page.locator("#list .card").filter(has=opened.page.locator(".path", has_text="0a.png"))
    assert card.locator(".thumb").inner_text() == "no thumbnail"


def test_rows_beyond_the_maximum_have_no_thumbnail(show, tmp_path):
    for number in range(3):
        for side in "abc":
            Image.fromarray(draw(number, 96, 72)).save(tmp_path / f"{number}{side}.png")
    frame = imgmatch_df.scan_images(str(tmp_path)).imgmatch.visual_hash("path").collect()
    opened = show(imgmatch_df.report(frame, 8, max_pictures=4))
    shown = [[image["has_image"] for image in images] for images in opened.listed()]
    assert sorted(map(sum, shown)) == [0, 2, 2]
    assert [images[0] for images in shown] == [any(images) for images in shown]  # the kept one is among them
