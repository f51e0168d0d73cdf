"""Report pages: what they show of hostile names, of images from anywhere, and how they are written."""

import io
import json
import re
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from drawing import draw, jpeg
from hostile_server import HostileServer
from PIL import Image
from report_reader import Page

import imgmatch_df
from imgmatch_df.report import inputs as report_inputs
from imgmatch_df.report import page as report_page
from imgmatch_df.report.building import make_report
from imgmatch_df.report.result import to_bytes

NAMES = [
    "</script><script>alert(1)</script>.jpg",
    "<!--<script>.jpg",
    "quotes \" and ' & ampersand.jpg",
    "two\nlines\r\u2028.jpg",
    "\u202egpj.right to left.jpg",
    "{{ 7 * 7 }} {% raw %}.jpg",
    "\U0001f600 e\u0301 \x7f\x1b[31m.jpg",
    "=cmd|' /C calc'!A0.jpg",
]


def equal_rows(**columns) -> pl.DataFrame:
    """Return rows with equal hashes."""
    n = len(next(iter(columns.values())))
    return pl.DataFrame({**columns, "phash": pl.Series([7] * n, dtype=pl.UInt64)})


def page_of(frame, *args, **call) -> Page:
    return Page(to_bytes(imgmatch_df.report(frame, *args, **call)))


def test_names_are_text():
    frame = equal_rows(path=NAMES).with_columns(detail=pl.lit("</script>"), status=pl.lit("not_found"))
    failed = pl.DataFrame({"path": NAMES, "detail": NAMES, "status": "not_found"})
    frame = pl.concat([frame, failed], how="diagonal")
    html = to_bytes(imgmatch_df.report(frame, 0, "phash", id="path", title="</title><script>"))
    page = Page(html)
    assert page.rows["id"] == NAMES
    assert page.rows["path"] == NAMES
    assert [(one["id"], one["detail"]) for one in page.about["failed"]] == [(name, name) for name in NAMES]
    assert page.about["title"] == "</title><script>"
    assert page.texts_of("title") == ["</title><script>"]
    scripts = [attributes for tag, attributes, _ in page.elements if tag == "script"]
    assert len([one for one in scripts if "type" not in one]) == 2
    assert not [name for _, attributes, _ in page.elements for name in attributes if name.startswith("on")]
    assert not [attributes for _, attributes, _ in page.elements if "style" in attributes]


def test_links_lead_to_files_and_web_pages_only():
    sources = [
        "/photos/a b?#%.jpg",
        "relative/c.jpg",
        "https://example.com/d.jpg?size=2",
        "https://user:secret@example.com/e.jpg",
        "https://example.com/f.jpg?X-Amz-Signature=abc",
        "s3://bucket/g.jpg",
        "javascript:alert(1)",
        "data:image/png;base64,iVBORw0KGgo=",
        "file:///photos/h.jpg",
        "latin \\xe9.jpg",
        "",
    ]
    page = page_of(equal_rows(path=sources), 0, "phash", max_pictures=0)
    here = Path.cwd()
    assert page.rows["link"] == [
        "file:///photos/a%20b%3F%23%25.jpg",
        f"file://{here}/relative/c.jpg",
        "https://example.com/d.jpg?size=2",
        None,
        None,
        None,
        f"file://{here}/javascript%3Aalert%281%29",
        None,
        "file:///photos/h.jpg",
        f"file://{here}/latin%20%E9.jpg",
        None,
    ]
    assert "secret" not in json.dumps(page.rows)
    assert "abc" not in json.dumps(page.rows)
    assert page.rows["path"][7] is None
    assert page.rows["id"] == [str(row) for row in range(len(sources))]


def test_titles_and_commands_of_other_encodings():
    request = report_inputs.ReportRequest(0, "phash", title="lone \udce9", command="imgmatch report caf\udce9/")
    page = Page(to_bytes(make_report(equal_rows(name=["a", "b"]), request, {})))
    assert page.about["title"] == "lone \\udce9"
    assert page.about["command"] == "imgmatch report caf\\udce9/"


def test_the_policy_allows_the_scripts_and_styles_of_the_page_alone():
    html = to_bytes(imgmatch_df.report(equal_rows(name=["a", "b"]), 0, "phash"))
    page = Page(html)
    (policy,) = [
        attributes["content"]
        for tag, attributes, _ in page.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    scripts = [text for tag, attributes, text in page.elements if tag == "script" and "type" not in attributes]
    assert policy == report_page.security_policy(page.texts_of("style"), scripts)
    assert policy.startswith("default-src 'none'; img-src data: blob: file:; script-src 'sha256-")
    assert "unsafe" not in policy
    assert not [value for _, attributes, _ in page.elements for name, value in attributes.items() if name == "src"]


def test_json_ends_no_element():
    assert report_page.page_json("</script>&\u2028\ud800é") == '"\\u003c/script\\u003e\\u0026\\u2028\\ud800\\u00e9"'
    with pytest.raises(ValueError, match="not JSON compliant"):
        report_page.page_json(float("nan"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Paths of images in pairs: turned by EXIF, grey, with alpha, small, and large."""
    folder = tmp_path_factory.mktemp("images")
    turned = Image.Exif()
    turned[0x0112] = 6
    made = {
        "plain.jpg": (Image.fromarray(draw(1, 400, 300)), {}),
        "turned.jpg": (Image.fromarray(draw(2, 400, 300)), {"exif": turned}),
        "grey.png": (Image.fromarray(draw(3, 300, 300, 1)), {}),
        "alpha.png": (Image.fromarray(draw(4, 200, 100, 4)), {}),
        "small.png": (Image.fromarray(draw(5, 30, 20)), {}),
        "narrow.jpg": (Image.fromarray(draw(6, 2000, 40)), {}),
    }
    for name, (image, options) in made.items():
        image.save(folder / name, **options)
        image.save(folder / f"copy of {name}", **options)
    return folder


SIZES = {
    "alpha": (160, 80),
    "grey": (160, 160),
    "narrow": (160, 3),
    "plain": (160, 120),
    "small": (30, 20),
    "turned": (120, 160),
}


def sizes_of(page: Page) -> dict[str, tuple[int, int] | None]:
    found = {}
    for node, path in enumerate(page.rows["path"]):
        image = page.image(node)
        found[Path(path).name] = None if image is None else image.size
    return found


@pytest.mark.parametrize("isolate", [False, True])
def test_thumbnails_of_files(images, isolate):
    frame = imgmatch_df.scan_images(images)
    page = page_of(frame, 0, source="path", isolate=isolate)
    expected = {f"{start}{name}": size for name, size in SIZES.items() for start in ("", "copy of ")}
    assert {name.rsplit(".")[0]: size for name, size in sizes_of(page).items()} == expected
    assert page.rows["width"] == imgmatch_df.visual_hash(frame, "path").collect()["width"].to_list()
    assert page.rows["size"] == frame.collect()["size"].to_list()
    assert page.rows["modified"] == (frame.collect()["modified"].dt.epoch("us") / 1e6).to_list()
    assert len(page.rows["identical_files"]) == 6
    at = page.rows["path"].index(str(images / "turned.jpg"))
    with Image.open(images / "turned.jpg") as image:
        seen = np.asarray(image.transpose(Image.Transpose.ROTATE_270).resize((120, 160)).convert("RGB"), np.float64)
    assert np.abs(np.asarray(page.image(at).convert("RGB")) - seen).mean() < 12


def test_images_that_cannot_be_read_now_have_no_thumbnail(images, tmp_path):
    paths = []
    for number in range(6):
        paths.append(tmp_path / f"{number}.jpg")
        paths[-1].write_bytes((images / "plain.jpg").read_bytes())
    hashed = pl.DataFrame({"path": list(map(str, paths))}).imgmatch.visual_hash("path")
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    paths[2].write_bytes(b"<svg/>")
    paths[3].write_bytes(jpeg(draw(1, 3000, 2000), 90))
    page = page_of(hashed, 0, max_pixels=1_000_000, on_error="raise")
    assert [page.image(node) is None for node in range(6)] == [True, True, True, True, False, False]
    page = page_of(hashed, 0, max_bytes=100)
    assert [page.image(node) for node in range(6)] == [None] * 6
    page = page_of(hashed.drop("path"), 0)
    assert page.rows["path"] == [None] * 6
    assert not any(page.thumbnails)


def test_thumbnails_of_urls_are_fetched_safely():
    data = [jpeg(draw(seed, 100, 80), 90) for seed in range(2)]
    with HostileServer(data) as server:
        base = f"http://127.0.0.1:{server.port}"
        urls = [f"{base}/ok/0.jpg", f"{base}/ok/1.jpg", f"{base}/status/404", f"{base}/ok/0.jpg"]
        frame = equal_rows(url=urls)
        refused = page_of(frame, 0, "phash", attempts=1)
        assert not any(refused.thumbnails)
        assert not server.targets
        page = page_of(frame, 0, "phash", allow_private_networks=True, attempts=1)
        assert [page.image(node) and page.image(node).size for node in range(4)] == [
            (100, 80),
            (100, 80),
            None,
            (100, 80),
        ]
        assert server.targets["/ok/0.jpg"] == 1
    assert page.rows["link"] == urls


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("form", ["binary", "struct", "struct and path"])
def test_images_in_the_frame(images, form, lazy):
    data = [(images / "plain.jpg").read_bytes(), (images / "turned.jpg").read_bytes()] * 2
    if form == "binary":
        frame = pl.DataFrame({"name": list("abcd"), "image": data})
    else:
        rows = [{"bytes": one, "path": f"{number}.jpg"} for number, one in enumerate(data)]
        if form == "struct and path":
            rows[3] = {"bytes": None, "path": str(images / "turned.jpg")}
        frame = pl.DataFrame({"name": list("abcd"), "image": rows})
    report = imgmatch_df.report(frame.lazy() if lazy else frame, 0, source="image", id="name")
    page = Page(to_bytes(report))
    assert [page.image(node).size for node in range(4)] == [(160, 120), (120, 160)] * 2
    assert page.clusters(0) == {frozenset("ac"), frozenset("bd")}
    assert page.rows["path"][:3] == ([None] * 3 if form == "binary" else ["0.jpg", "1.jpg", "2.jpg"])
    if lazy:
        assert "bytes" not in str(report.clusters.schema.get("image"))
        assert report.clusters.schema.get("image") != pl.Binary


def test_a_store_and_its_images(images, tmp_path):
    store = tmp_path / "hashes.duckdb"
    imgmatch_df.write_hashes(imgmatch_df.scan_images(images), store, source="path")
    stored = imgmatch_df.scan_hashes(store)
    page = page_of(stored, 0, id="source")
    assert len(page.clusters(0)) == 6
    assert all(page.thumbnails)
    new = pl.DataFrame({"path": [str(images / "plain.jpg")], "extra": 1}).imgmatch.visual_hash("path")
    page = page_of(new.with_columns(pl.lit("another").alias("path")), 0, reference=store, id="path")
    (found,) = page.rows["reference"]
    assert found["id"].endswith("plain.jpg")
    assert found["link"].startswith("file:///")
    assert found["measure"] == 0
    assert Image.open(io.BytesIO(page.thumbnails[found["place"]])).size == (160, 120)


def test_flat_images_are_listed(tmp_path):
    for number, colour in enumerate(["white", "white", "black", "grey"]):
        Image.new("RGB", (80 + number // 2, 60), colour).save(tmp_path / f"{number}.png")
    page = page_of(imgmatch_df.scan_images(tmp_path), 24, source="path", id="path")
    names = [str(tmp_path / f"{number}.png") for number in range(4)]
    assert page.about["flat"] == names
    assert page.about["counts"]["flat"] == 4
    assert page.clusters(0) == page.clusters(96) == {frozenset(names[:2])}


def test_equal_frames_make_equal_pages(images):
    def make(frame, when):
        request = report_inputs.ReportRequest(source="path", created=datetime(2026, 1, when, tzinfo=UTC))
        return to_bytes(make_report(frame, request, {}))

    frame = imgmatch_df.scan_images(images)
    first, again, later = make(frame, 1), make(frame.collect(), 1), make(frame, 2)
    assert first == again
    assert first.replace(b"2026-01-01T00:00:00+00:00", b"") != first
    assert first.replace(b"2026-01-01", b"2026-01-02") == later
    pages = [Page(first), Page(later), page_of(frame, 0, source="path", keep="last")]
    digests = [one.about["digest"] for one in pages]
    assert digests[0] == digests[1] != digests[2]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)


def test_the_kept_and_the_farthest_are_shown_first():
    rng = np.random.default_rng(0)
    hashes = []
    for _ in range(40):
        center = int(rng.integers(0, 1 << 63))
        hashes += [center, center ^ 1, center ^ 0b1111, center ^ 0b11]
    frame = pl.DataFrame({"path": [f"{n}.jpg" for n in range(160)], "phash": pl.Series(hashes, dtype=pl.UInt64)})
    page = page_of(frame, 4, "phash", max_pictures=80)
    shown = [row % 4 for row, place in zip(page.rows["row"], page.rows["place"], strict=True) if place >= 0]
    assert shown == [0, 2] * 40
    fewer = page_of(frame, 4, "phash", max_pictures=30)
    assert [row % 4 for row, place in zip(fewer.rows["row"], fewer.rows["place"], strict=True) if place >= 0] == [
        0,
        2,
    ] * 15
    assert sorted(place for place in page.rows["place"] if place >= 0) == list(range(80))
    assert page.about["thumbnails"] == {"count": 80, "page_size": 500}
    assert [len(one) for one in page.pages] == [80]
    assert [len(one) for one in page_of(equal_rows(path=["x.jpg"] * 1200), 0, "phash").pages] == [500, 500, 200]


def test_a_radius_is_suggested(images):
    report = imgmatch_df.report(imgmatch_df.scan_images(images), source="path")
    assert report.radius == 24
    assert report.suggestion.reason.startswith("too few different hashes for an estimate: 24 bits")
    assert Page(to_bytes(report)).about["suggestion"] == report.suggestion.reason
    given = imgmatch_df.report(imgmatch_df.scan_images(images), 3, source="path")
    assert (given.radius, given.suggestion) == (3, None)
    assert given.clusters.drop("sha256").equals(
        imgmatch_df.scan_images(images)
        .imgmatch.cluster(3, source="path")
        .collect()
        .select(given.clusters.drop("sha256").columns)
    )


def test_files_are_whole(tmp_path):
    report = imgmatch_df.report(equal_rows(name=["a", "b"]), 0, "phash")
    target = tmp_path / "report.html"
    target.write_text("old")
    assert report.write_html(target) == target.stat().st_size
    assert target.read_bytes() == to_bytes(report)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(imgmatch_df.ArgumentError, match="is a folder"):
        report.write_html(tmp_path)
    with pytest.raises(imgmatch_df.ArgumentError, match="which is not a folder"):
        report.write_html(tmp_path / "none" / "report.html")
    with pytest.raises(imgmatch_df.ArgumentError, match="target must be a path or a file, got 3"):
        report.write_html(3)


def test_a_notebook_shows_the_page_in_a_frame():
    report = imgmatch_df.report(equal_rows(name=["<b>", "'\""]), 0, "phash", id="name", title='"><script>')
    page = report._repr_html_()
    found = re.fullmatch(
        r'<iframe title="([^"]*)" sandbox="allow-scripts allow-downloads" srcdoc="([^"]*)" style="[^"]*"></iframe>',
        page,
    )
    assert found
    assert "<" not in found[2]
    assert unescape(found[2]).encode() == to_bytes(report)


def test_empty_frames_have_a_page():
    for frame in (equal_rows(name=["a"]), equal_rows(name=["a"]).head(0)):
        for call in ({}, {"linkage": "star"}, {"reference": equal_rows(name=["a"]).head(0)}):
            page = page_of(frame, 4, "phash", **call)
            assert page.n == 0
            assert page.clusters(4) == set()
            assert page.pages == []
    assert (
        page_of(pl.DataFrame(schema={"local": imgmatch_df.hashes.kinds.KINDS["local"].dtype}), hash_type="local").n == 0
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"max_radius": 65}, "max_radius must be a whole number of bits from 0 to 64, got 65"),
        ({"max_pictures": -1}, "max_pictures must be a whole number of at least 0, got -1"),
        ({"title": 3}, "title must be a str, got 3"),
        ({"linkage": "single"}, "linkage must be one of 'connected', 'star', got 'single'"),
        ({"keep": "best"}, "keep must be one of"),
        ({"min_votes": 8}, "phash is compared by its distance and has no min_votes, got 8"),
        ({"reference_id": "name"}, "reference_id has no effect without reference="),
        ({"radius": -1}, "radius must be a whole number of bits from 0 to 64, got -1"),
        ({"decode": "half"}, "decode must be one of"),
        ({"hash_type": "local", "max_radius": 3}, "local is compared by votes and has no max_radius, got 3"),
    ],
)
def test_wrong_calls(call, message):
    with pytest.raises(imgmatch_df.ArgumentError, match=message):
        imgmatch_df.report(equal_rows(name=["a"]), **{"hash_type": "phash", **call})


def test_wrong_columns():
    with pytest.raises(imgmatch_df.ColumnError, match="no column 'bmh1' in the frame"):
        imgmatch_df.report(equal_rows(name=["a"]))
    with pytest.raises(imgmatch_df.ColumnError, match="no column 'image' in the frame"):
        imgmatch_df.report(equal_rows(name=["a"]), 0, "phash", source="image")
    with pytest.raises(imgmatch_df.ArgumentError, match="frame must be a Polars DataFrame or LazyFrame, got list"):
        imgmatch_df.report([1], source="image")


def test_the_function_keeps_its_name_beside_its_package():
    import imgmatch_df.report.page

    assert callable(imgmatch_df.report)
    assert isinstance(imgmatch_df.report(equal_rows(name=["a", "b"]), 0, "phash"), imgmatch_df.Report)
