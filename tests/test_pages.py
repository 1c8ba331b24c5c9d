"""The rendered book in a real browser, with no network but the local server: `make pages`, after `make render`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from book.tools.browser import find
from book.tools.project import HTML, REPOSITORY, chapters, colab_url

pytestmark = pytest.mark.browser
PAGES = ["index", *chapters(), "status", "search"]
WIDGET = "application/vnd.jupyter.widget-view+json"


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


@pytest.fixture(scope="module")
def page(browser: Browser, site: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """One page of the book, opened once for all its tests, with its equations and widgets in place.

    It fails if anything was asked of another host, a file was missing or an error was logged, up to the last test.
    """
    page = browser.new_page(base_url=site)
    problems: list[str] = []
    page.route(lambda url: not url.startswith((site, "data:", "blob:")), lambda route: route.abort())
    page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
    page.on("response", lambda answer: answer.status < 400 or problems.append(f"{answer.status}: {answer.url}"))
    page.on("console", lambda message: message.type != "error" or problems.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.goto(f"/{request.param}", wait_until="networkidle")
    page.wait_for_function("!window.MathJax || MathJax.startup.promise.then(() => true)")
    yield page
    page.close()
    assert not problems, request.param


every_page = pytest.mark.parametrize("page", [f"{name}.html" for name in PAGES], indirect=True)
every_chapter = pytest.mark.parametrize("page", [f"{name}.html" for name in chapters()], indirect=True)


@every_page
def test_pictures_are_shown_and_described(page: Page) -> None:
    assert page.locator("h1").first.inner_text()
    for image in page.locator("img").all():
        address = (image.get_attribute("src") or "")[:80]
        assert (image.get_attribute("alt") or "").strip(), f"no alternative text: {address}"
        assert image.evaluate("i => !i.checkVisibility() || i.naturalWidth > 0"), f"not shown: {address}"


@every_chapter
def test_equations_render(page: Page) -> None:
    assert page.locator(".math").count() == page.locator(".math mjx-container").count() > 0
    wrong = page.locator('mjx-merror, mjx-container [style*="color: red"]')  # red: a command that MathJax doesn't know
    assert wrong.all_inner_texts() == []


@every_chapter
def test_colab_opens_the_chapter(page: Page) -> None:
    links = [link.get_attribute("href") for link in page.locator('a[href*="colab.research.google.com"]').all()]
    assert len(links) >= 2, "expected the launch button and the badge"
    assert set(links) == {colab_url(PurePosixPath(page.url).stem)}


@every_chapter
def test_sliders_and_buttons_change_their_picture_without_a_kernel(page: Page) -> None:
    widgets = page.locator(".widget-vbox:has(> .widget-hslider), .widget-vbox:has(> .widget-toggle-buttons)")
    if WIDGET in page.content():
        widgets.first.wait_for()
    for widget in widgets.all():
        picture = widget.locator("img:visible").first
        before = picture.get_attribute("src")
        if widget.locator(".noUi-handle").count():
            widget.locator(".noUi-handle").first.focus()
            page.keyboard.press("ArrowRight")
        else:
            widget.get_by_role("button").nth(1).click()
        expect(picture).not_to_have_attribute("src", before or "")


@every_page
def test_the_page_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "it scrolls sideways"
    page.locator(".primary-toggle:visible").click()
    expect(page.get_by_role("link", name="How this book was made").first).to_be_in_viewport()


def test_the_book_has_a_slider() -> None:
    assert any(WIDGET in (HTML / f"{name}.html").read_text(encoding="utf-8") for name in chapters())


@pytest.mark.parametrize("page", ["index.html"], indirect=True)
def test_the_pages_link_the_repository(page: Page) -> None:
    assert page.locator(f'a[href="{REPOSITORY}"]').count() > 0


@pytest.mark.parametrize("page", ["search.html?q=poisoned"], indirect=True)
def test_search_finds_a_term(page: Page) -> None:
    expect(page.locator("ul.search li a").first).to_be_visible()
    found = [link.get_attribute("href") or "" for link in page.locator("ul.search li a").all()]
    assert any("building_miue.html" in address for address in found)
