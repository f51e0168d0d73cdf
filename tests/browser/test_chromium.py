"""What `open_page` forbids is seen."""

from pathlib import Path

import pytest
from browsing import opened

pytestmark = pytest.mark.browser
PAGE = "<!DOCTYPE html><html lang=en><title>page</title>{}<p>text</p>"
FAULTS = {
    "a request": ('<img alt="" src="{folder}/other.png">', "requests file:"),
    "a request to a host": ('<link rel="stylesheet" href="https://example.invalid/style.css">', "requests https:"),
    "a log": ("<script>console.error('broken')</script>", "logs broken"),
    "an exception": ("<script>throw new Error('broken')</script>", "raises broken"),
    "a rejected promise": ("<script>Promise.reject(new Error('later'))</script>", "raises later"),
    "what the policy forbids": (
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\"><script>let a = 1</script>",
        "page.html logs ",
    ),
}


def test_a_page_without_faults_opens(open_page, tmp_path: Path):
    path = tmp_path / "page.html"
    path.write_text(PAGE.format(""))
    page = open_page(path)
    assert page.locator("p").inner_text() == "text"
    assert open_page(path, like=page).locator("p").inner_text() == "text"


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_a_page_fail(name: str, chromium, tmp_path: Path):
    body, message = FAULTS[name]
    path = tmp_path / "page.html"
    path.write_text(PAGE.format(body.format(folder=tmp_path.as_uri())))
    with pytest.raises(AssertionError, match=message), opened(chromium) as open_page:
        open_page(path).evaluate("new Promise(done => setTimeout(done, 50))")
