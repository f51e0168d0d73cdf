"""How a report looks and is used: accessible, on a phone, by keyboard, filtered, sorted, and compared side by side."""

import pytest
from drawing import draw
from PIL import Image
from report_page import clusters_of

import imgmatch_df

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(album):
    return imgmatch_df.report(album, 24, keep="largest", id="path", max_radius=48)


@pytest.fixture(scope="module")
def local_report(album):
    return imgmatch_df.report(album, hash_type="local", min_votes=8, keep="largest", id="path")


def findings(page) -> list[str]:
    """Return what axe-core finds to be serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response
    assert len(found["passes"]) > 10
    return [
        f"{rule['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for rule in found["violations"]
        for node in rule["nodes"]
        if rule["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(scheme, width, report, show):
    opened = show(report, width=width, color_scheme=scheme)
    page = opened.page
    page.evaluate("() => document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    opened.press("ArrowRight", " ")
    assert findings(page) == []
    opened.press("Enter")
    assert page.locator("#compare").is_visible()
    assert findings(page) == []
    opened.press("b")
    assert findings(page) == []
    opened.press("Escape", "?")
    assert page.locator("#help").is_visible()
    assert findings(page) == []


def test_axe_finds_nothing_serious_in_a_report_of_votes(local_report, show):
    opened = show(local_report)
    assert findings(opened.page) == []
    opened.press("ArrowRight", "Enter")
    assert findings(opened.page) == []


@pytest.mark.parametrize("width", [1280, 400, 320])
def test_nothing_is_wider_than_the_window(width, report, local_report, show):
    for one in (report, local_report):
        opened = show(one, width=width, height=800)
        page = opened.page
        page.evaluate("() => document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        for keys in ((), ("Enter",), ("b",), ("Escape", "?")):
            opened.press(*keys)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            for dialog in page.locator("dialog[open]").all():
                box = dialog.bounding_box()
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= width


def test_a_report_is_used_by_keyboard_alone(report, show):
    """Tab reaches the slider, the arrow keys move it, and tab reaches the filters, the buttons and the images."""
    opened = show(report)
    page = opened.page
    reached = set()
    for _ in range(120):
        opened.press("Tab")
        place = page.evaluate("((at) => at.id || at.name || at.className || at.textContent)(document.activeElement)")
        reached.add(place)
        if place == "radius":
            opened.press("ArrowRight")
            assert page.locator("#radius-value").inner_text().startswith("25 ")
            opened.press("ArrowLeft")
    wanted = {"radius", "sort", "text", "folder", "from", "to", "across", "mixed", "undecided"}
    wanted |= {
        "decisions.csv",
        "decisions.json",
        "not_duplicates.csv",
        "only-reviewed",
        "import",
        "Keys ?",
        "thumb",
        "state",
    }
    assert wanted - reached == set()


def test_keys_work_after_the_slider_was_moved(report, show):
    opened = show(report)
    opened.move_slider(20)
    opened.press("j", "ArrowRight", " ")
    assert opened.current().locator(".reason").inner_text() == "kept by you"


def test_focus_is_visible(report, show):
    opened = show(report)
    opened.press("j")
    outline = opened.page.evaluate(
        "() => { const style = getComputedStyle(document.activeElement);"
        " return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0; }"
    )
    assert outline


def test_enter_on_a_weak_link_compares_its_images(report, show):
    opened = show(report)
    page = opened.page
    item = page.locator("#inside > li").nth(3)
    item.locator("button.thumb").focus()
    opened.press("Enter")
    shown = page.locator("#compare .path").all_inner_texts()
    assert shown == item.locator(".path").all_inner_texts()


def test_images_are_compared_side_by_side(report, show):
    opened = show(report)
    page = opened.page
    opened.press("j", "ArrowRight")
    path = opened.current().locator(".path").inner_text()
    opened.press("Enter")
    dialog = page.locator("#compare")
    assert dialog.is_visible()
    assert dialog.locator("img").count() == 2
    assert dialog.locator(".path").nth(1).inner_text() == path
    before = opened.count("would be removed")
    opened.press(" ")
    assert opened.count("would be removed") == before - 1
    opened.press("u")
    assert opened.count("would be removed") == before
    assert not page.locator("#stage.blink").count()
    opened.press("b")
    assert page.locator("#stage.blink").count()
    for shown in (0, 1, 0):  # the second image lies on the first, and comes and goes
        page.wait_for_function(
            "(shown) => getComputedStyle(document.querySelectorAll('#stage figure')[1]).opacity === shown",
            arg=str(shown),
        )
    places = [page.locator("#stage figure").nth(at).bounding_box() for at in (0, 1)]
    assert (places[0]["x"], places[0]["y"]) == (places[1]["x"], places[1]["y"])
    opened.press("b")
    assert not page.locator("#stage.blink").count()
    opened.press("Escape")
    assert dialog.is_hidden()
    assert page.evaluate("document.activeElement.closest('.card.current') !== null")
    opened.press("ArrowLeft")
    assert opened.current().locator(".path").inner_text() != path


def test_the_difference_of_two_hashes(report, album, show):
    """The drawn bits are those of `to_bits`, the lowest of a byte first, 31 a row, and what differs is marked."""
    opened = show(report)
    page = opened.page
    opened.press("j", "ArrowRight", "Enter")
    paths = page.locator("#compare .path").all_inner_texts()
    bits = dict(album.select("path", imgmatch_df.to_bits("bmh1")).iter_rows())
    left, right = ([bits[path][8 * (i // 8) + 7 - i % 8] == "1" for i in range(961)] for path in paths)
    colors = pixels_of(page.locator("#compare canvas"), 31)
    differs = [a != b for a, b in zip(left, right, strict=True)]
    kinds = {(color, bit if not other else None) for color, bit, other in zip(colors, left, differs, strict=True)}
    assert len(kinds) == len(set(colors)) == 3
    assert page.locator("#bits-text").inner_text() == f"{sum(differs)} of 961 bits differ"


def pixels_of(canvas, width: int) -> list[str]:
    """Return the colours of a canvas, row by row."""
    read = """(canvas, width) => {
        const copy = document.createElement('canvas');
        Object.assign(copy, { width, height: width });
        const context = copy.getContext('2d', { willReadFrequently: true });
        context.imageSmoothingEnabled = false;
        context.drawImage(canvas, 0, 0, width, width);
        const { data } = context.getImageData(0, 0, width, width);
        return Array.from({ length: width * width }, (_, i) => data.slice(4 * i, 4 * i + 4).join(' '));
    }"""
    assert canvas.get_attribute("width") == str(width)
    return canvas.evaluate(read, width)


def test_the_bits_lie_where_the_image_is_bright(show, tmp_path):
    pixels = draw(5, 124, 124, 1) // 4
    pixels[:62, :62] += 180
    for name, quality in (("a.jpg", 95), ("b.jpg", 30)):
        Image.fromarray(pixels).save(tmp_path / name, quality=quality)
    opened = show(imgmatch_df.report(imgmatch_df.scan_images(str(tmp_path)), 24, source="path"))
    opened.press("Enter")
    pixels = pixels_of(opened.page.locator("#compare canvas"), 31)
    colors = [pixels[31 * y + x] for x, y in ((3, 3), (12, 12), (12, 3), (28, 3), (3, 28), (28, 28))]
    assert len(set(colors[:3])) == 1
    assert colors[0] not in colors[3:]


@pytest.mark.parametrize("edit", ["cropped", "half", "marked"])
def test_the_placement_of_a_local_copy_is_a_frame(edit, album, show):
    """A crop from (12, 9) of 240 x 180 leaves out four columns on the right and three rows below."""
    pairs = album.filter(album["path"].str.contains(edit) | album["path"].str.contains("IMG_0008"))
    frame = pairs.filter(pairs["path"].str.contains("0008"))
    opened = show(imgmatch_df.report(frame, hash_type="local", min_votes=8, keep="largest"))
    page = opened.page
    opened.press("ArrowRight", "Enter")
    box = page.locator("#compare .placement")
    assert box.count() == 1
    place = box.evaluate(
        "(box) => { const [inner, outer] = [box.getBoundingClientRect(), box.parentElement.getBoundingClientRect()];"
        " return [(inner.x - outer.x) / outer.width, (inner.y - outer.y) / outer.height,"
        " inner.width / outer.width, inner.height / outer.height]; }"
    )
    owner = box.locator("xpath=ancestor::figure").locator(".path").inner_text()
    crop = [12 / 240, 9 / 180, 224 / 240, 168 / 180]
    whole = [0, 0, 1, 1]
    outside = [-12 / 224, -9 / 168, 240 / 224, 180 / 168]
    wanted = whole if edit != "cropped" else outside if "cropped" in owner else crop
    assert place == pytest.approx(wanted, abs=0.02)


SORTS = {
    "copies": lambda images, _: -len(images),
    "path": lambda images, _: images[0]["path"],
}


@pytest.mark.parametrize("sort", SORTS)
def test_clusters_are_sorted(sort, report, show):
    opened = show(report)
    opened.page.locator("#sort").select_option(sort)
    found = opened.listed()
    keys = [SORTS[sort](images, None) for images in found]
    assert keys == sorted(keys)


def test_clusters_are_sorted_by_their_farthest_copy_and_by_bytes(report, album, show):
    sizes = dict(album.select("path", "size").iter_rows())
    opened = show(report)
    opened.page.locator("#sort").select_option("bytes")
    freed = [sum(sizes[image["path"]] for image in images if not image["kept"]) for images in opened.listed()]
    assert freed == sorted(freed, reverse=True)
    opened.page.locator("#sort").select_option("farthest")
    joined = {}  # the least radius at which a cluster has these images
    for radius in range(25):
        for kept, removed in clusters_of(album.imgmatch.cluster(radius, keep="largest")):
            joined.setdefault(kept | removed, radius)
    farthest = [joined[frozenset(image["path"] for image in images)] for images in opened.listed()]
    assert farthest == sorted(farthest, reverse=True)
    assert len(set(farthest)) > 3


def test_clusters_are_filtered(report, show):
    opened = show(report)
    page = opened.page
    every = opened.listed()

    def paths(images):
        return [image["path"] for image in images]

    page.locator("#text").fill("IMG_0008")
    assert opened.listed() == [images for images in every if any("IMG_0008" in path for path in paths(images))]
    page.locator("#text").fill("img_0008")
    assert len(opened.listed()) == 1
    page.locator("#text").fill("no such path")
    assert opened.listed() == []
    assert page.locator("#found").inner_text().startswith("0 of ")
    page.locator("#text").fill("")
    page.locator("input[name=across]").check()
    across = [images for images in every if len({path.rpartition("/")[0] for path in paths(images)}) > 1]
    assert opened.listed() == across
    page.locator("input[name=across]").uncheck()
    page.locator("input[name=undecided]").check()
    opened.press("Escape")
    page.locator("#list .cluster header input[type=checkbox]").first.check()
    page.locator("input[name=undecided]").uncheck()
    page.locator("input[name=undecided]").check()
    assert len(opened.listed()) == len(every) - 1


def test_dark_and_light_differ(report, show):
    colors = {
        show(report, color_scheme=scheme).page.evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    }
    assert len(colors) == 2


@pytest.mark.parametrize("width", [1280, 400])
def test_the_current_image_is_not_under_the_bar(width, report, show):
    """The bar with the slider stays at the top, and hides no image that a key goes to."""
    opened = show(report, width=width, height=700)
    page = opened.page
    page.evaluate("document.querySelector('#clusters').scrollIntoView()")
    assert is_below_the_bar(page, "#clusters-title")
    for key in ("j",) * 5 + ("k",) * 5:
        opened.press(key)
        assert is_below_the_bar(page, "#list .card.current")


def is_below_the_bar(page, selector: str) -> bool:
    """Return whether an element begins below the bar, once the page scrolls no more."""
    return page.evaluate(
        """(selector) => document.querySelector(selector).getBoundingClientRect().top
            >= document.getElementById('bar').getBoundingClientRect().bottom - 1""",
        selector,
    )
