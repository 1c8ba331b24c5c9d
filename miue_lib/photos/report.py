"""The page that says what was done to a folder of pictures, and what that buys: one HTML file, for anyone."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from PIL import Image

from .._console import visible
from .._errors import bad

_STYLE = Path(__file__).with_name("report.css")
_SMALL = 64  # pixels a side: what is smaller is shown enlarged too
_ENLARGED = 152  # pixels a side at most, so that two fit beside each other on a telephone
_LONG = 8  # rows of a list that is folded

# Key in the manifest, name, what it says, format, and whether the largest value is the worst.
_MEASURES = (
    ("linf", "Largest change", "of a colour value, of the 255 that there are.", "{:.0f}", True),
    ("psnr", "PSNR", "How far the noise lies below the picture, in decibels (dB). By a rule of thumb most people notice"
     " it below 30, and few above 40.", "{:.1f} dB", False),
    ("ssim", "SSIM", "How alike the two are in their small structures. 1: the same.", "{:.3f}", False),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Shown:
    """A picture, or a part of one, that the page shows as it was and as it is published.

    title: its name. before, after: uint8 `(h, w, C)` with C of 1 or 3, shown pixel by pixel: 320 a side fit the page.
    """

    title: str
    before: np.ndarray
    after: np.ndarray

    def __post_init__(self) -> None:
        for name, pixels in (("before", self.before), ("after", self.after)):
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
                raise bad(name, f"{pixels.dtype} {pixels.shape}", "uint8 (h, w, C), C 1 or 3")
        if self.before.shape != self.after.shape:
            raise bad("after", f"shape {self.after.shape}", f"that of before, {self.before.shape}")


def report(manifest: Mapping[str, Any], shown: Sequence[Shown]) -> str:
    """The page about the protected pictures of `manifest`, with `shown` as examples. It can be written as UTF-8.

    manifest: as `protect` returns it. The first row of its verdict is of the clean pictures, the second of the
    published ones, and the others are of published ones that the trainer treated in some way first. It has a sentence
    for each row, or one in all where nothing is clear.

    The page needs no scripts and asks for nothing: pictures and style are within, and its security policy refuses the
    rest, whatever a file's name smuggles in. It depends on the arguments alone.
    """
    count = len(manifest["pictures"])
    title = f"What protecting {_several(count, 'picture')} buys"
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    parts = [
        _introduction(manifest, title),
        _warning(shown),
        _verdict(manifest["verdict"]),
        _limits(manifest["verdict"]),
        _examples(shown),
        _figures(manifest),
        _left_out(manifest),
        _method(manifest),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, parts))
        + "\n</main>\n</body>\n</html>\n"
    )


def _introduction(manifest: Mapping[str, Any], title: str) -> str:
    count, classes, settings = len(manifest["pictures"]), len(manifest["classes"]), manifest["settings"]
    verdict = manifest["verdict"]
    measured = (
        " Then models were trained on them, to see whether it works."
        if verdict and verdict["rows"]
        else " Whether it works was not measured."
    )
    return (
        f'<header>\n<p class="kicker">Pictures against training, by miue_lib</p>\n<h1>{title}</h1>\n'
        f'<p class="standfirst">Faint noise was added to {_several(count, "picture")} in '
        f"{_several(classes, 'class', 'classes')}, by the method {_text(settings['title'])}: it is meant to make a "
        "model that is trained on them learn the noise in place of what they show. No colour value moved by more than "
        f"{manifest['summary']['linf']} of 255.{measured}</p>\n</header>"
    )


def _warning(shown: Sequence[Shown]) -> str:
    if not shown:
        return ""
    return (
        '<p class="warning"><strong>Keep this page to yourself.</strong> Its examples are parts of the unprotected '
        "originals. Do not publish it together with the pictures.</p>"
    )


def _verdict(verdict: Mapping[str, Any] | None) -> str:
    """What models learnt, before everything else on the page."""
    head = "<section>\n<h2>Can a model still learn from them?</h2>\n"
    if verdict is None:
        return (
            f'{head}<p class="verdict unmeasured">This was not measured, so nothing here says that these pictures are '
            "protected.</p>\n</section>"
        )
    rows, sentences = verdict["rows"], verdict["sentences"]
    seeds, chance = len(verdict["seeds"]), verdict["chance"]
    if len(sentences) < len(rows) or not rows:
        head += f'<p class="verdict unmeasured">{_text(sentences[0])}</p>\n'
        sentences = [""] * len(rows)
    else:
        head += f'<p class="verdict">{_text(sentences[1])}</p>\n'
        head += _worst(rows, sentences)
    if not rows:
        return f"{head}</section>"
    clean, *others = (_bar(row, sentence, chance) for row, sentence in zip(rows, sentences, strict=True))
    lines = f'<tbody class="clean">\n{clean}</tbody>\n<tbody>\n{"".join(others)}</tbody>\n'
    words = '<th scope="col">In words</th>' if any(sentences) else ""
    times = "once" if seeds == 1 else f"{seeds} times, each with another split and another start of the model"
    dots = "" if seeds == 1 else f"<span>{_svg(_dot(0.5))}one of the {seeds} times</span>"
    return (
        f"{head}<p>A model was trained on {_several(verdict['train'], 'picture')} and then asked what "
        f"{_several(verdict['test'], 'other')} show, unprotected ones that it had never seen. This was done {times}. "
        f"The less it gets right, the better the pictures are protected; guessing gets {_percent(chance)} right.</p>\n"
        '<table class="bars">\n<caption class="hidden">What models recognise, by what they were trained on</caption>\n'
        '<thead><tr><th scope="col">Trained on</th>'
        f'<th scope="col" class="bar">New pictures recognised<br>{_axis()}</th>{words}</tr></thead>\n'
        f"{lines}</table>\n"
        f'<p class="note key"><span>{_svg(_box(1))}average</span>{dots}<span>{_svg(_upright(0.5, "chance"))}guessing'
        "</span></p>\n<p>“Protected” means that a model gets clearly less right than from the unprotected pictures, and"
        " loses at least half of what it learns from these beyond guessing; not that it learns nothing. A treatment "
        "makes unprotected pictures harder to learn too; that part is counted here as if the noise had done it.</p>\n"
        "</section>"
    )


def _worst(rows: Sequence[Mapping[str, Any]], sentences: Sequence[str]) -> str:
    """The treatment after which most is learnt: nobody knows what a trainer will do."""
    treated = [(mean(row["accuracy"]), sentence) for row, sentence in zip(rows, sentences, strict=True)][2:]
    if not treated:
        return ""
    _, sentence = max(treated, key=lambda one: one[0])
    return f"<p>Of what a trainer might do to them, this helps a model most here. {_text(sentence)}</p>\n"


def _bar(row: Mapping[str, Any], sentence: str, chance: float) -> str:
    values = row["accuracy"]
    average = mean(values)
    drawn = "".join(_upright(x, "rule") for x in (0, 0.5, 1)) + _box(average) + _upright(chance, "chance")
    if len(values) > 1:
        drawn += "".join(map(_dot, values))
    words = f"<td>{_text(sentence)}</td>" if sentence else ""
    said = f"{_percent(average)} on average of {', '.join(map(_percent, values))}; guessing: {_percent(chance)}"
    return (
        f'<tr><th scope="row">{_text(row["title"])}</th>'
        f'<td class="bar">{_svg(drawn, said)}<b>{_percent(average)}</b></td>{words}</tr>\n'
    )


def _svg(drawn: str, said: str = "", kind: str = "") -> str:
    """A drawing as wide as its style says; places in it are shares of that. said: for those who cannot see it."""
    named = f'role="img" aria-label="{said}"' if said else 'aria-hidden="true"'
    return f'<svg class="{kind}" {named}>{drawn}</svg>' if kind else f"<svg {named}>{drawn}</svg>"


def _box(share: float) -> str:
    return f'<rect class="mean" y="20%" width="{100 * share:.2f}%" height="60%"></rect>'


def _dot(share: float) -> str:
    return f'<circle class="dot" cx="{100 * share:.2f}%" cy="50%" r="4"></circle>'


def _upright(share: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{100 * share:.2f}%" x2="{100 * share:.2f}%" y1="0" y2="100%"></line>'


def _axis() -> str:
    anchors = {0.0: "start", 0.5: "middle", 1.0: "end"}
    ticks = (f'<text x="{100 * x:g}%" y="85%" text-anchor="{a}">{_percent(x)}</text>' for x, a in anchors.items())
    return _svg("".join(ticks), kind="axis")


def _limits(verdict: Mapping[str, Any] | None) -> str:
    points = [
        "<strong>Who knows of it can work against it.</strong> Training can be made robust to small changes "
        "(adversarial training), and noise can be filtered out of pictures. That costs time and some quality, but it "
        "can be done.",
        "<strong>A few pictures among many protect little.</strong> If only one class, or a small part of the pictures "
        "that a model is trained on, is protected, the model learns from the rest.",
        "<strong>What is out is out.</strong> Nothing here helps pictures that have already been published without it.",
        "<strong>People still see your pictures.</strong> They can look at them, copy them and print them, and a "
        "trained eye can see the noise.",
        "<strong>Models that exist still recognise them.</strong> The noise is aimed at training. It hides nobody and "
        "nothing from a model that has been trained already, on other pictures.",
    ]
    if verdict is not None and verdict["rows"]:
        points.insert(0, _undone(verdict))
        points.append(
            f"<strong>One kind of model was tried</strong>, on pictures made {verdict['side']} pixels a side. Larger "
            "ones that look at larger pictures, or start from what they have learnt elsewhere, may fare differently."
        )
    items = "".join(f"<li>{point}</li>\n" for point in points)
    return f'<section>\n<h2>What this does not protect from</h2>\n<ul class="limits">\n{items}</ul>\n</section>'


def _undone(verdict: Mapping[str, Any]) -> str:
    """Which of the treatments that were measured take from the pictures what protection they have as they are."""
    _, published, *treated = verdict["rows"]
    if not treated:
        return "<strong>No counter-measures were tried</strong> in this measurement. Some are known to undo such noise."
    if published["outcome"] not in ("protected", "in part"):
        return (
            "<strong>Here there was nothing clear to undo.</strong> Without any counter-measure, the pictures are not "
            "clearly protected either."
        )
    said, counts = "", Counter(row["outcome"] for row in treated)
    for outcome, words in _LEFT.items():
        rows = [row for row in treated if row["outcome"] == outcome]
        named = "; ".join(f"“{_text(row['title'])}” ({_percent(mean(row['accuracy']))})" for row in rows)
        said += f" {counts[outcome]} {words}: {named}." if rows else ""
    if counts["not protected"]:
        head, after = "It can be undone.", " Anyone can do this, also without knowing of the noise."
    else:
        head, after = "None of those tried here clearly undid all of it.", " There are others."
    return f"<strong>{head}</strong> Counter-measures tried: {len(treated)}.{said}{after}"


# What a counter-measure did to pictures whose outcome this is.
_LEFT = {
    "not protected": "left the pictures unprotected",
    "in part": "left them protected in part",
    "in part at most": "left them protected in part at most",
    "unclear": "may or may not have undone it, too uncertain to tell",
    "protected": "left them protected",
}


def _examples(shown: Sequence[Shown]) -> str:
    if not shown:
        return ""
    small = [_pair(place, one) for place, one in enumerate(shown, 1) if _is_small(one)]
    large = [_pair(place, one) for place, one in enumerate(shown, 1) if not _is_small(one)]
    small = ['<div class="small">\n', *small, "</div>\n"] if small else []
    return (
        "<section>\n<h2>What you see of it</h2>\n<p>Each picture as it was and as it is published, pixel by pixel, and "
        "the noise by itself, laid on grey and amplified until its largest change is as large as any can be. Tick a "
        "box, or press a picture, to lay the protected one over the original: where it flickers, there is noise.</p>\n"
        f"{''.join(large + small)}</section>"
    )


def _is_small(one: Shown) -> bool:
    height, width = one.before.shape[:2]
    return bool(max(height, width) < _SMALL)


def _pair(place: int, one: Shown) -> str:
    height, width = one.before.shape[:2]
    difference, factor = _difference(one)
    title, number = _text(one.title), f"{factor:.3g}"
    added, told = "No noise", f"nothing was added to {title}"
    if factor:
        added, told = f"Noise × {number}", f"what was added to {title}, amplified {number} times around grey"
    cells = (
        ("before", "Original", one.before, f"{title}, as it was"),
        ("after", "Protected", one.after, f"{title}, as it is published"),
        ("difference", added, difference, told),
    )
    times = _ENLARGED // max(height, width) if _is_small(one) else 1
    panels = ""
    for name, caption, pixels, alt in cells:
        image = f'<img src="{_data(pixels)}" alt="{alt}" width="{times * width}" height="{times * height}">'
        # The checkbox has a name of its own: as its label, the pictures would lend it their descriptions.
        inside = image if name == "difference" else f'<label for="flick-{place}">{image}</label>'
        panels += f'<span class="cap cap-{name}">{caption}</span><div class="{name}">{inside}</div>\n'
    below = f'<p class="note">Enlarged × {times}</p>\n' if times > 1 else ""
    return (
        f'<div class="pair" style="--w: {times * width}px; --shape: {width} / {height}">\n<h3>{_name(one.title)}</h3>\n'
        f'<input type="checkbox" id="flick-{place}" aria-label="Lay the protected picture over the original: {title}">'
        f'<label for="flick-{place}">Lay the protected one over the original</label>\n'
        f'<div class="panels">\n<span class="place"></span>\n{panels}</div>\n{below}</div>\n'
    )


def _difference(one: Shown) -> tuple[np.ndarray, float]:
    """What was added around grey, its largest change as far as 8 bits go to both sides; and the factor, 0 for none."""
    delta = one.after.astype(np.int16) - one.before
    most = int(np.abs(delta).max())
    factor = 127 / most if most else 0.0
    return np.rint(128 + factor * delta).astype(np.uint8), factor


def _data(pixels: np.ndarray) -> str:
    """A data URI of these very pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _figures(manifest: Mapping[str, Any]) -> str:
    pictures, summary = manifest["pictures"], manifest["summary"]
    lines = ""
    for key, name, meaning, form, larger_is_worse in _MEASURES:
        values = sorted((one[key] for one in pictures if one[key] is not None), reverse=larger_is_worse)  # worst first
        if not values:
            continue
        told = {"most changed": values[0], "middle": values[len(values) // 2], "least changed": values[-1]}
        cells = "".join(f'<td data-label="{label}">{form.format(value)}</td>' for label, value in told.items())
        lines += (
            f'<tr><th scope="row">{name}<small>{meaning}</small></th>{cells}'
            f'<td class="shape">{_histogram(values)}</td></tr>\n'
        )
    same = sum(one["linf"] == 0 for one in pictures)
    notes = f" Pictures that did not change at all, and so have no protection: {same:,}." if same else ""
    tiny = sum(one["ssim"] is None for one in pictures)
    notes += f" Pictures too small for SSIM: {tiny:,}." if tiny else ""
    psnr = "" if summary["psnr"] is None else f" PSNR of all pictures together: {summary['psnr']:.1f} dB."
    return (
        "<section>\n<h2>How much the pictures changed</h2>\n"
        '<table class="figures">\n<caption class="hidden">Measures of the change</caption>\n<thead><tr>'
        '<th scope="col">Measure</th><th scope="col">Most changed</th><th scope="col">Middle</th>'
        '<th scope="col">Least changed</th><th scope="col">All pictures</th></tr></thead>\n'
        f"<tbody>\n{lines}</tbody>\n</table>\n"
        f'<p class="note">manifest.json has the figures of every picture.{psnr}{notes}</p>\n</section>'
    )


def _histogram(values: Sequence[float]) -> str:
    counts, _ = np.histogram(values, bins=24)
    heights = 100 * counts / counts.max()
    bars = "".join(
        f'<rect class="mean" x="{100 * i / 24:.2f}%" width="3.6%" y="{100 - h:.1f}%" height="{h:.1f}%"></rect>'
        for i, h in enumerate(heights)
        if h
    )
    said = f"Histogram of {_several(len(values), 'picture')} from {min(values):.4g} to {max(values):.4g}"
    return _svg(bars, said, "histogram")


def _left_out(manifest: Mapping[str, Any]) -> str:
    left_out = manifest["left_out"]
    parts = "<section>\n<h2>Left out, and changed on the way</h2>\n"
    if left_out:
        rows = "".join(
            f'<tr><th scope="row">{_name(one["source"])}</th><td>{_text(one["reason"])}</td></tr>\n' for one in left_out
        )
        table = (
            '<table class="left-out">\n<thead><tr><th scope="col">File</th><th scope="col">Why it was left out</th>'
            f"</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n"
        )
        files, are = _several(len(left_out), "file"), "is" if len(left_out) == 1 else "are"
        parts += f"<p>{files} of the folder {are} not protected, and not among the published pictures.</p>\n"
        parts += _folded(f"All {len(left_out):,} and the reasons", table) if len(left_out) > _LONG else table
    else:
        parts += "<p>Nothing was left out: every file of the folder was a picture and is protected.</p>\n"
    notes = Counter(note for one in manifest["pictures"] for note in one["notes"])
    if notes:
        # The commonest first; equally common ones by name, so that the order of the pictures does not show.
        items = sorted(notes.items(), key=lambda item: (-item[1], item[0]))
        rows = "".join(f"<dt>{_several(n, 'picture')}</dt><dd>{_text(note)}</dd>\n" for note, n in items)
        parts += f"<p>Before the noise was added, some pictures had to be changed:</p>\n<dl>\n{rows}</dl>\n"
    return f"{parts}</section>"


def _method(manifest: Mapping[str, Any]) -> str:
    settings, verdict = manifest["settings"], manifest["verdict"]
    rows = {
        "Method": settings["title"],
        "Budget": "none a pixel" if settings["budget"] is None else f"{settings['budget']:g} of 255",
        "Noise": f"crafted for squares of {settings['size']} pixels a side, then spread to each picture's own size",
        "Settings of the noise": _listed(settings["noise"]),
        "Seed": str(settings["seed"]),
        "Profile": str(settings["profile"]),
        "Published as": f"{settings['suffix']}, metadata {'kept' if settings['keep_metadata'] else 'dropped'}",
        "Classes": ", ".join(manifest["classes"]),
    }
    if verdict is not None:
        rows |= {
            "Model of the measurement": verdict["model"],
            "Its training": _listed(verdict["settings"]),
            "What it saw": f"squares of {verdict['side']} pixels a side",
            "Pictures": f"{verdict['train']:,} to train on, {verdict['test']:,} held out, every time",
            "Seeds": ", ".join(map(str, verdict["seeds"])),
        }
    rows["Versions"] = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    items = "".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>\n" for name, value in rows.items())
    how = f"<dl>\n{items}</dl>\n"
    if verdict is not None:
        how += (
            "<p>Every time the pictures were split anew, class by class, and all models of that time were trained and "
            "tested on the same split. Where the trainer treated the pictures it learnt from, it treated those that it "
            "was tested on alike. The tests are of unprotected pictures throughout.</p>\n"
        )
    return f"<section>\n<h2>How it was made and measured</h2>\n{_folded('All settings', how)}</section>"


def _folded(title: str, inside: str) -> str:
    return f"<details>\n<summary>{title}</summary>\n{inside}</details>\n"


def _listed(settings: Mapping[str, Any]) -> str:
    """Settings on a line, those within settings in brackets."""
    said = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            said.append(f"{name} ({_listed(value)})")
        else:
            said.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(said) or "none"


def _text(value: object) -> str:
    """It as HTML text or within an attribute's quotes, with what would not be seen as Python would write it."""
    return html.escape(visible(value))


def _name(name: str) -> str:
    """The name of a file or picture. bdi: one in Arabic does not turn the text round it about."""
    return f"<bdi>{_text(name)}</bdi>"


def _several(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u00a0%"
