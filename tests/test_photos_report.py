"""The page about protected pictures: whole, closed to the outside, and true to the manifest."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from book.tools.browser import find
from miue_lib.photos.report import Shown, report

VOID = {"meta", "input", "img", "br"}
# Markup, quotes, a mark that turns the text about, a byte that is no UTF-8, a line of its own, the end of a style.
HOSTILE = "\"><script>alert(1)</script>'&amp;</style>\u202egpj.exe\udce9\n\x00</bdi></details>"
SEEN = HOSTILE.replace("\u202e", "\\u202e").replace("\udce9", "\\udce9").replace("\n", "\\n").replace("\x00", "\\x00")


class Reader(HTMLParser):
    """What is on a page: its tags in order, and the text of every element; it fails where a tag is not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[tuple[str, int]] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append((tag, len(self.texts)))
            self.texts.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for tag, place in self._open:
            self.texts[place] = (tag, self.texts[place][1] + data)

    def all(self, tag: str) -> list[str]:
        return [text.strip() for name, text in self.texts if name == tag]

    def attributes(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def picture(n: int, **changed: Any) -> dict[str, Any]:
    about = {"source": f"a/{n}.jpg", "target": f"a/{n}.png", "class": "a", "width": 32, "height": 32, "linf": 8,
             "psnr": 31.0 + n, "ssim": 0.9 + n / 1000, "source_sha256": "0" * 64, "sha256": "1" * 64,
             "notes": []}  # fmt: skip
    return about | changed


def verdict(*means: float) -> dict[str, Any]:
    rows = [
        {"name": f"row-{i}", "title": f"title {i}", "accuracy": [m - 0.02, m + 0.02, m], "outcome": "unclear"}
        for i, m in enumerate(means)
    ]
    rows[0]["outcome"] = None
    return {"model": "small_resnet", "settings": {"epochs": 12, "learning_rate": 0.2}, "side": 32, "train": 1000,
            "test": 200, "chance": 0.1, "seeds": [0, 1, 2], "rows": rows,
            "sentences": [f"Sentence {i}." for i in range(len(rows))]}  # fmt: skip


def manifest(**changed: Any) -> dict[str, Any]:
    about = {
        "format": "miue_lib.protected/1",
        "versions": {"miue_lib": "0.1.0", "torch": "2.13.0", "pillow": "12.0.0"},
        "settings": {"method": "miue", "title": "MI-UE", "budget": 8, "size": 32, "profile": "cpu", "seed": 0,
                     "seeds": 3, "suffix": ".png", "keep_metadata": False,
                     "noise": {"epochs": 27, "step": 1.6 / 255}},
        "classes": ["a", "b"],
        "pictures": [picture(n) for n in range(5)],
        "left_out": [{"source": "b/film.webp", "reason": "animated, 12 frames"}],
        "summary": {"pictures": 5, "left_out": 1, "linf": 8, "psnr": 32.3, "ssim": 0.902},
        "verdict": verdict(0.8, 0.1, 0.6, 0.2),
    }  # fmt: skip
    return about | changed


def shown(height: int, width: int, channels: int, title: str = "a/0.jpg") -> Shown:
    """A random picture with noise of up to 8 levels, which it reaches."""
    rng = np.random.default_rng(height)
    before = rng.integers(8, 248, (height, width, channels), dtype=np.uint8)
    noise = rng.integers(-8, 9, before.shape)
    noise[0, 0, 0] = 8
    return Shown(title, before, (before + noise).astype(np.uint8))


def pixels(data: str) -> np.ndarray:
    assert data.startswith("data:image/png;base64,")
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2], validate=True))))
    return image[:, :, None] if image.ndim == 2 else image


def limits(page: str) -> str:
    """The first thing that the page says is not protected from."""
    return Reader(page).all("li")[0]


def test_is_whole_and_closed_to_the_outside() -> None:
    page = report(manifest(), [shown(96, 128, 3), shown(28, 28, 1)])
    read = Reader(page)
    assert page.startswith("<!DOCTYPE html>")
    assert read.attributes("html") == [{"lang": "en"}]
    names = {tag for tag, _ in read.tags}
    assert not names & {"script", "link", "iframe", "object", "base", "form", "a"}
    for _, attributes in read.tags:
        assert attributes.get("src", "data:image/png;").startswith("data:image/png;")
        assert not any(name.startswith("on") or name == "href" for name in attributes)
    assert "url(" not in page and "@import" not in page and "//" not in re.sub('data:[^"]*', "", page)
    (policy,) = (a["content"] for a in read.attributes("meta") if "http-equiv" in a)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {a["for"] for a in read.attributes("label")} <= set(ids)
    assert all(a["alt"] for a in read.attributes("img"))
    assert all("scope" in a for a in read.attributes("th"))


def test_depends_on_nothing_but_its_arguments() -> None:
    assert report(manifest(), [shown(28, 28, 3)]) == report(manifest(), [shown(28, 28, 3)])


def test_says_what_was_done_in_numbers() -> None:
    read = Reader(report(manifest(), []))
    (head,) = read.all("header")
    assert "5 pictures in 2 classes" in head and "MI-UE" in head
    assert "No colour value moved by more than 8 of 255" in head
    assert read.all("h1") == read.all("title") == ["What protecting 5 pictures buys"]
    one = report(manifest(pictures=[picture(0)]), [])
    assert "What protecting 1 picture buys" in one


def test_nothing_in_the_manifest_is_markup() -> None:
    def filled(text: str) -> str:
        measured = verdict(0.8, 0.1, 0.6)
        measured["rows"] = [row | {"title": text} for row in measured["rows"]]
        measured |= {"sentences": [text] * 3, "model": text, "settings": {text: text, "more": {text: text}}}
        settings = manifest()["settings"] | {"title": text, "suffix": text, "profile": text, "noise": {text: text}}
        about = manifest(
            verdict=measured, settings=settings, classes=[text, "b"], versions={text: text},
            left_out=[{"source": text, "reason": text}] * 9, pictures=[picture(0, notes=[text])],
        )  # fmt: skip
        return report(about, [shown(28, 28, 3, text), shown(96, 96, 3, text)])

    page, plain = filled(HOSTILE), filled("plain")
    page.encode("utf-8")
    assert not set("\u202e\udce9\x00") & set(page)
    read, harmless = Reader(page), Reader(plain)
    # The tags are the same, and wherever the harmless text stands, the other stands too, readable.
    assert [
        (tag, {name: value.replace(SEEN, "plain") for name, value in attributes.items()})
        for tag, attributes in read.tags
    ] == harmless.tags
    assert [text.replace(SEEN, "plain") for _, text in read.texts] == [text for _, text in harmless.texts]


def test_the_verdict_comes_first_with_every_row_and_its_sentence() -> None:
    page = report(manifest(), [shown(28, 28, 3)])
    read = Reader(page)
    assert read.all("h2")[0] == "Can a model still learn from them?"
    (text,) = read.all("main")
    cells = read.all("tr")[1:5]
    assert read.all("tr")[5].startswith("Measure")  # of the next table
    for row, (cell, percent) in enumerate(zip(cells, (80, 10, 60, 20), strict=True)):
        assert cell == f"title {row}{percent}\u00a0%Sentence {row}."
    assert text.index("Sentence 1.") < text.index("title 0")  # the answer, before the table


def test_bars_show_mean_seeds_and_chance() -> None:
    page = report(manifest(), [])
    row = page[page.index("title 2") :]
    row = Reader(row[row.index("<svg") : row.index("</svg>") + len("</svg>")])
    (bar,) = row.attributes("rect")
    assert bar["width"] == "60.00%"
    assert [dot["cx"] for dot in row.attributes("circle")] == ["58.00%", "62.00%", "60.00%"]
    assert [line["x1"] for line in row.attributes("line") if line["class"] == "chance"] == ["10.00%"]
    (drawing,) = row.attributes("svg")
    said = "60 % on average of 58 %, 62 %, 60 %; guessing: 10 %".replace(" %", "\u00a0%")
    assert drawing["aria-label"] == said


def decided(*outcomes: str) -> dict[str, Any]:
    """A verdict whose rows after the first have these outcomes, whatever their numbers."""
    found = verdict(0.8, *(0.3,) * len(outcomes))
    for row, outcome in zip(found["rows"][1:], outcomes, strict=True):
        row["outcome"] = outcome
    return found


def test_names_the_counter_measures_that_undo_it() -> None:
    told = decided("protected", "not protected", "in part", "unclear", "protected")
    assert limits(report(manifest(verdict=told), [])) == (
        "It can be undone. Counter-measures tried: 4. 1 left the pictures unprotected: “title 2” (30 %). 1 left them "
        "protected in part: “title 3” (30 %). 1 may or may not have undone it, too uncertain to tell: “title 4” "
        "(30 %). 1 left them protected: “title 5” (30 %). Anyone can do this, also without knowing of the noise."
    ).replace(" %", "\u00a0%")
    for outcomes in (("protected", "protected"), ("in part", "unclear", "in part")):
        said = limits(report(manifest(verdict=decided(*outcomes)), []))
        assert said.startswith("None of those tried here clearly undid all of it.") and "can be undone" not in said
    assert "No counter-measures were tried" in limits(report(manifest(verdict=verdict(0.8, 0.1)), []))


@pytest.mark.parametrize("published", ["unclear", "not protected"])
def test_names_none_where_the_pictures_are_not_clearly_protected(published: str) -> None:
    """Whatever the numbers, it says what the sentences say."""
    said = limits(report(manifest(verdict=decided(published, "not protected", "protected")), []))
    assert "nothing clear to undo" in said and "title" not in said and "can be undone" not in said


def test_tells_of_the_treatment_that_helps_a_model_most() -> None:
    found = verdict(0.8, 0.5, 0.2, 0.4, 0.3)
    said = next(one for one in Reader(report(manifest(verdict=found), [])).all("p") if "helps a model most" in one)
    assert said.endswith(found["sentences"][3])
    assert "helps a model most" not in report(manifest(verdict=verdict(0.8, 0.2)), [])


def test_where_nothing_is_clear_one_sentence_says_so_above_the_numbers() -> None:
    read = Reader(report(manifest(verdict=verdict(0.8, 0.1, 0.6) | {"sentences": ["Too few pictures."]}), []))
    (text,) = read.all("main")
    assert text.count("Too few pictures.") == 1
    assert read.all("tr")[1:4] == [f"title {row}{percent}\u00a0%" for row, percent in enumerate((80, 10, 60))]
    assert "In words" not in text and "nothing clear to undo" in read.all("li")[0]
    none = Reader(report(manifest(verdict=verdict(0.8) | {"rows": [], "sentences": ["Too few pictures."]}), []))
    assert none.all("main")[0].count("Too few pictures.") == 1 and "title" not in none.all("main")[0]
    assert "Whether it works was not measured" in none.all("header")[0]


def test_a_page_that_shows_originals_says_that_it_must_not_be_published() -> None:
    warning = "Its examples are parts of the unprotected originals. Do not publish it together with the pictures."
    page = report(manifest(), [shown(28, 28, 3)])
    assert warning in page and page.index(warning) < page.index("<h2>")
    assert warning not in report(manifest(), [])


def test_without_a_verdict_says_that_nothing_is_known() -> None:
    page = report(manifest(verdict=None), [])
    read = Reader(page)
    assert "This was not measured, so nothing here says that these pictures are protected." in read.all("p")
    assert "Whether it works was not measured" in read.all("header")[0]
    assert 'class="bars"' not in page and "counter-measure" not in page.lower()


def test_limits_are_told_with_and_without_a_verdict() -> None:
    for told in (None, verdict(0.8, 0.1)):
        (text,) = Reader(report(manifest(verdict=told), [])).all("ul")
        for part in ("adversarial training", "filtered", "one class", "already been published", "trained eye",
                     "trained already"):  # fmt: skip
            assert part in text


@pytest.mark.parametrize("channels", [1, 3])
def test_large_pictures_are_shown_pixel_by_pixel(channels: int) -> None:
    one = shown(96, 200, channels)
    images = Reader(report(manifest(), [one])).attributes("img")
    assert [(image["width"], image["height"]) for image in images] == [("200", "96")] * 3
    before, after, difference = (pixels(image["src"]) for image in images)
    assert np.array_equal(before, one.before) and np.array_equal(after, one.after)
    # The largest change, 8, is as far from grey as 8 bits go to both sides: 127.
    delta = one.after.astype(int) - one.before
    assert np.array_equal(difference, np.rint(128 + delta * (127 / 8)))
    assert difference[0, 0, 0] == 255
    assert "Noise × 15.9" in report(manifest(), [one])


def test_small_pictures_are_enlarged_by_whole_factors() -> None:
    for side in (1, 28, 63):
        one = shown(side, side, 3)
        images = Reader(report(manifest(), [one])).attributes("img")
        assert len(images) == 3
        (large,) = {int(image["width"]) for image in images}
        assert large % side == 0 and large > side
        assert np.array_equal(pixels(images[0]["src"]), one.before)
    images = Reader(report(manifest(), [shown(64, 64, 3)])).attributes("img")
    assert [image["width"] for image in images] == ["64"] * 3


def test_a_picture_without_noise_says_so() -> None:
    still = np.full((80, 80, 3), 7, np.uint8)
    page = report(manifest(), [Shown("still", still, still)])
    assert "No noise" in page and "nothing was added to still" in page
    assert np.array_equal(pixels(Reader(page).attributes("img")[2]["src"]), np.full((80, 80, 3), 128))


def test_figures_are_those_of_the_worst_middle_and_best_picture() -> None:
    pictures = [picture(n) for n in (3, 0, 4, 1, 2)] + [picture(9, linf=0, psnr=None, ssim=None)]
    page = report(manifest(pictures=pictures), [])
    cells = [text for text in Reader(page).all("td") if re.fullmatch(r"[\d.]+( dB)?", text)]
    assert cells == ["8", "8", "0", "31.0 dB", "33.0 dB", "35.0 dB", "0.900", "0.902", "0.904"]
    assert "did not change at all, and so have no protection: 1." in page
    assert "too small for SSIM: 1." in page
    assert "PSNR of all pictures together: 32.3 dB" in page


def test_pictures_left_out_are_listed_and_a_long_list_is_folded() -> None:
    few = Reader(report(manifest(), []))
    assert "b/film.webpanimated, 12 frames" in few.all("tr")
    assert len(few.all("details")) == 1  # how it was measured
    files = [{"source": f"b/{n}.txt", "reason": f"reason {n}"} for n in range(40)]
    many = Reader(report(manifest(left_out=files), []))
    folded, _ = many.all("details")
    assert folded.startswith("All 40") and all(f"b/{n}.txtreason {n}" in many.all("tr") for n in range(40))
    assert "Nothing was left out" in report(manifest(left_out=[]), [])


def test_what_was_changed_on_the_way_is_counted() -> None:
    pictures = [picture(n, notes=["rotated"] + ["converted"] * (n == 0)) for n in range(3)]
    read = Reader(report(manifest(pictures=pictures), []))
    assert read.all("dt")[:2] == ["3 pictures", "1 picture"]
    assert read.all("dd")[:2] == ["rotated", "converted"]


def test_how_it_was_measured_stands_at_the_end() -> None:
    last = Reader(report(manifest(), [])).all("details")[-1]
    for part in ("small_resnet", "epochs 12, learning_rate 0.2", "epochs 27, step 0.006275", "0, 1, 2",
                 "1,000 to train on, 200 held out", "torch 2.13.0"):  # fmt: skip
        assert part in last


def test_refuses_what_cannot_be_shown() -> None:
    good = np.zeros((4, 5, 3), np.uint8)
    for wrong in (good[:, :, :2], good[0], good.astype(np.float32), good[:0]):
        with pytest.raises(ValueError, match="before: got"):
            Shown("a", wrong, wrong)
    with pytest.raises(ValueError, match=r"after: got shape \(4, 4, 3\)"):
        Shown("a", good, good[:, :4])


def test_colours_can_be_read() -> None:
    """The contrast of text is at least 4.5 and that of bars 2.5, in the light and in the dark (WCAG 2.2)."""
    style = Reader(report(manifest(), [])).all("style")[0]
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]

    def luminance(colour: str) -> float:
        levels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for part in (light, dark):
        colours = dict(re.findall(r"--(\w+): (#\w{6})", part))
        for name, least in (("ink", 4.5), ("soft", 4.5), ("accent", 4.5), ("plain", 2.5)):
            low, high = sorted((luminance(colours["paper"]), luminance(colours[name])))
            assert (high + 0.05) / (low + 0.05) >= least, name


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=["--disable-quic", "--no-first-run"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """The page with long hostile names, opened from a file; it fails if anything is asked for or logged."""
    long = "long" * 60 + HOSTILE
    about = manifest(left_out=[{"source": long, "reason": long}] * 9, classes=[long, "b"])
    file = tmp_path / "report.html"
    file.write_text(report(about, [shown(240, 320, 3, long), shown(28, 28, 3, long)]), encoding="utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    problems: list[str] = []
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or problems.append(request.url))
    page.on("console", lambda message: problems.append(message.text))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.goto(file.as_uri())
    yield page
    page.close()
    assert not problems


@pytest.mark.browser
def test_fits_a_telephone(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    for width in (1100, 390, 320):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 390, "height": 800})
    first = page.locator(".panels img").first.bounding_box()
    assert first is not None and (first["width"], first["height"]) == (320, 240)  # pixel by pixel


@pytest.mark.browser
def test_the_verdict_is_a_table_on_a_telephone_too(page: Page) -> None:
    """For a screen reader, though its rows are laid out as blocks."""
    table = page.get_by_role("table", name="What models recognise, by what they were trained on")
    assert page.viewport_size is not None and page.viewport_size["width"] == 390
    expect(table.get_by_role("columnheader")).to_have_count(3)
    expect(table.get_by_role("rowheader")).to_have_text([f"title {row}" for row in range(4)])
    expect(table.get_by_role("cell")).to_have_count(8)


@pytest.mark.browser
def test_keys_lay_the_protected_picture_over_the_original(page: Page) -> None:
    pair = page.locator(".pair").first
    before, after = pair.locator(".before img"), pair.locator(".after img")

    def distance() -> tuple[float, float]:
        """How far below the original the protected one lies, and the height of the whole."""
        boxes = [one.bounding_box() for one in (before, after, pair)]
        a, b, whole = (box for box in boxes if box is not None)
        assert a["x"] == b["x"]  # on a telephone
        return b["y"] - a["y"], whole["height"]

    apart, height = distance()
    assert apart > 240
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(pair.get_by_role("checkbox")).to_be_checked()
    assert distance() == (0, height)  # and nothing below jumps
    after.click()  # a press on the picture takes it back
    assert distance() == (apart, height)
