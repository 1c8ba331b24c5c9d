"""The rendered book in a real browser, with no network but the local server: `make pages`, after `make render`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from book.tools.browser import find
from book.tools.project import HTML, REPOSITORY, chapters, colab_url

pytestmark = pytest.mark.browser
PAGES = ["index", *chapters(), "status", "search"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of a server for the rendered book."""
    assert (HTML / "index.html").exists(), "there are no pages to test: run `make book`"
    assert (HTML / "_static" / "npm").exists(), "the pages were rendered without npm and need a network: install npm"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=HTML))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    quiet = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=quiet)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Page]:
    """A new tab. The test fails if a page asked another host for anything, missed a file or logged an error."""
    page = browser.new_page(base_url=site)
    problems: list[str] = []
    page.route(lambda url: not url.startswith((site, "data:", "blob:")), lambda route: route.abort())
    page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
    page.on("response", lambda answer: answer.status < 400 or problems.append(f"{answer.status}: {answer.url}"))
    page.on("console", lambda message: message.type != "error" or problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    yield page
    page.close()
    assert not problems


def settled(page: Page, name: str) -> Page:
    """Opens a page and waits until its equations, widgets and pictures are there."""
    page.goto(f"/{name}.html", wait_until="networkidle")
    page.wait_for_function("!window.MathJax || MathJax.startup.promise.then(() => true)")
    return page


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_complete_without_a_network(page: Page, name: str) -> None:
    settled(page, name)
    assert page.locator("h1").first.inner_text()
    for image in page.locator("img").all():
        address = (image.get_attribute("src") or "")[:80]
        assert (image.get_attribute("alt") or "").strip(), f"no alternative text: {address}"
        assert image.evaluate("i => !i.checkVisibility() || i.naturalWidth > 0"), f"not shown: {address}"


@pytest.mark.parametrize("name", PAGES)
def test_nothing_scrolls_sideways_on_a_phone(page: Page, name: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    settled(page, name)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("name", chapters())
def test_equations_render(page: Page, name: str) -> None:
    settled(page, name)
    assert page.locator(".math").count() == page.locator(".math mjx-container").count() > 0
    assert page.locator("mjx-merror").count() == 0


@pytest.mark.parametrize("name", chapters())
def test_sliders_change_their_picture_without_a_kernel(page: Page, name: str) -> None:
    settled(page, name)
    sliders = page.locator(".widget-vbox:has(> .widget-hslider)")
    if "application/vnd.jupyter.widget-view+json" in page.content():
        sliders.first.wait_for()
    for slider in sliders.all():
        before = slider.locator("img:visible").get_attribute("src")
        slider.locator(".noUi-handle").focus()
        page.keyboard.press("ArrowRight")
        expect(slider.locator("img:visible")).not_to_have_attribute("src", before or "")


@pytest.mark.parametrize("name", chapters())
def test_colab_opens_the_chapter(page: Page, name: str) -> None:
    settled(page, name)
    links = [link.get_attribute("href") for link in page.locator('a[href*="colab.research.google.com"]').all()]
    assert len(links) >= 2, "expected the launch button and the badge"
    assert set(links) == {colab_url(name)}


def test_the_pages_link_the_repository(page: Page) -> None:
    settled(page, "index")
    assert page.locator(f'a[href="{REPOSITORY}"]').count() > 0


def test_search_finds_a_term(page: Page) -> None:
    page.goto("/search.html?q=poisoned", wait_until="networkidle")
    expect(page.locator("ul.search li a").first).to_be_visible()
    found = [link.get_attribute("href") for link in page.locator("ul.search li a").all()]
    assert any("building_miue.html" in (address or "") for address in found)
