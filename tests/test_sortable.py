"""A sortable table in a real browser, with neither a kernel nor a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from book.tools.browser import find
from miue_lib import plots

pytestmark = pytest.mark.browser

HEADERS = ("method", "victim", "accuracy (%)", "gap")
ROWS = (
    ("MI-UE", "ResNet-18", "11.2 ± 0.3", "−0.5"),
    ("EM", "ResNet-18", "9.7 ± 1.2", "0.25"),
    ("EM", "ResNet-152", "100", "–"),
    ("clean", "3-layer CNN", "", "1e-3"),
    ("MI-UE", "ResNet-50", "11.2 ± 0.1", "1,200"),
    ("</script><b>&", "ViT", "–", "∞"),
)
# As where require.js is on the page, which a script that stands for itself leaves alone.
REQUIRE = 'window.define = window.require = () => { throw new Error("require.js was asked") }; define.amd = {}'


def html() -> str:
    columns: Any = {header: lambda row, i=i: row[i] for i, header in enumerate(HEADERS)}
    return str(plots.sortable(ROWS, columns, filters=HEADERS[:2], label="results").data)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=["--disable-quic", "--no-first-run"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page that fails if it asks for anything or an error is logged."""
    page = browser.new_page()
    problems: list[str] = []
    page.on("request", lambda request: request.url.startswith("file:") or problems.append(request.url))
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    page.close()
    assert not problems


def show(page: Page, folder: Path, *, copies: int = 1) -> list[Locator]:
    """Opens a page of that many copies of the table, and finds them."""
    file = folder / "page.html"
    file.write_text(f"<!doctype html><meta charset=utf-8><body>{html() * copies}", encoding="utf-8")
    page.goto(file.as_uri())
    return page.locator(".miue-sortable").all()


def order(table: Locator) -> list[int]:
    """The visible rows, by their places in `ROWS`."""
    rows = [tuple(row.locator("th, td").all_inner_texts()) for row in table.locator("tbody tr:visible").all()]
    return [ROWS.index(row) for row in rows]  # type: ignore[arg-type]


def head(table: Locator, column: int) -> Locator:
    return table.locator("thead th").nth(column)


@pytest.mark.parametrize(
    ("column", "rising", "falling"),
    [
        (0, [5, 3, 1, 2, 0, 4], [0, 4, 1, 2, 3, 5]),  # equal ones as they were; marks come before letters
        (1, [3, 0, 1, 4, 2, 5], [5, 2, 4, 0, 1, 3]),  # -18, -50, -152
        (2, [1, 0, 4, 2, 3, 5], [2, 0, 4, 1, 3, 5]),  # what is empty stays last
        (3, [0, 3, 1, 4, 5, 2], [5, 4, 1, 3, 0, 2]),
    ],
)
def test_a_header_sorts_and_sorts_in_reverse(
    page: Page, tmp_path: Path, column: int, rising: list[int], falling: list[int]
) -> None:
    (table,) = show(page, tmp_path)
    button = head(table, column).get_by_role("button", name=HEADERS[column], exact=True)
    assert order(table) == list(range(len(ROWS)))
    button.click()
    assert order(table) == rising
    expect(head(table, column)).to_have_attribute("aria-sort", "ascending")
    button.click()
    assert order(table) == falling
    expect(head(table, column)).to_have_attribute("aria-sort", "descending")
    head(table, 1 - min(column, 1)).get_by_role("button").click()
    assert table.locator("[aria-sort]").count() == 1


def test_keys_sort(page: Page, tmp_path: Path) -> None:
    (table,) = show(page, tmp_path)
    head(table, 2).get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert order(table) == [1, 0, 4, 2, 3, 5]
    page.keyboard.press("Space")
    assert order(table) == [2, 0, 4, 1, 3, 5]


def test_words_and_choices_filter_together(page: Page, tmp_path: Path) -> None:
    (table,) = show(page, tmp_path)
    words, (method, victim) = table.get_by_role("searchbox"), table.get_by_role("combobox").all()
    count = table.get_by_role("status")
    expect(count).to_have_text("6 of 6 rows")
    words.fill("  resnet-18   mi-ue ")
    assert order(table) == [0]
    expect(count).to_have_text("1 of 6 rows")
    words.fill("-0.5")  # as it is typed
    assert order(table) == [0]
    words.fill("")
    method.select_option("EM")
    assert order(table) == [1, 2]
    victim.select_option("ResNet-152")
    assert order(table) == [2]
    head(table, 2).get_by_role("button").click()
    assert order(table) == [2]
    victim.select_option("all")
    assert order(table) == [1, 2]
    words.fill("nothing like it")
    expect(count).to_have_text("0 of 6 rows")
    words.fill("")
    method.select_option("</script><b>&")
    assert order(table) == [5]


def test_equal_tables_on_a_page_work_by_themselves(page: Page, tmp_path: Path) -> None:
    one, other = show(page, tmp_path, copies=2)
    one.get_by_role("searchbox").fill("EM")
    head(other, 2).get_by_role("button").click()
    assert order(one) == [1, 2]
    assert order(other) == [1, 0, 4, 2, 3, 5]
    expect(one.get_by_role("status")).to_have_text("2 of 6 rows")
    expect(other.get_by_role("status")).to_have_text("6 of 6 rows")
    expect(head(one, 2)).not_to_have_attribute("aria-sort", "ascending")


def test_a_notebook_that_runs_scripts_by_itself_shows_it(page: Page) -> None:
    page.set_content(f"<div></div><script>{REQUIRE}</script>")
    page.locator("div").first.evaluate("(output, html) => { output.innerHTML = html }", html() * 2)
    one, other = page.locator(".miue-sortable").all()
    run = "script => (0, eval)(script.textContent)"
    one.locator("xpath=following-sibling::script").first.evaluate(run)
    one.get_by_role("searchbox").fill("EM")
    other.locator("xpath=following-sibling::script").first.evaluate(run)
    expect(one.get_by_role("status")).to_have_text("2 of 6 rows")  # 2 of 2, were it set up again
    head(other, 2).get_by_role("button").click()
    assert order(one) == [1, 2]
    assert order(other) == [1, 0, 4, 2, 3, 5]


def test_it_is_a_plain_table_where_no_script_runs(browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page(java_script_enabled=False)
    (table,) = show(page, tmp_path)
    expect(table.get_by_role("searchbox")).to_be_hidden()
    assert table.get_by_role("button").count() == 0
    assert order(table) == list(range(len(ROWS)))
    page.close()


def test_a_phone_scrolls_the_table_in_its_box_below_the_headers(page: Page, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    columns: Any = {f"column {i}": lambda row, i=i: f"cell {row} {i}" for i in range(9)}
    shown = plots.sortable(range(210), columns, filters=["column 0", "column 1"], label="cells").data
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8><body>{shown}", encoding="utf-8")
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.get_by_role("region", name="cells")
    assert (box.bounding_box() or {"height": 0})["height"] < 844
    box.focus()
    page.keyboard.press("End")
    expect(page.get_by_text("cell 209 0", exact=True).last).to_be_in_viewport()
    top = (head(page.locator(".miue-sortable"), 0).bounding_box() or {"y": -1})["y"]
    assert top == pytest.approx((box.bounding_box() or {"y": -2})["y"], abs=1)  # a pixel is rounded
