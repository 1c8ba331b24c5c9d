"""What networks learn from published pictures, and whether what is said about it follows from the numbers."""

import io
import math
import random
import statistics
import sys
import weakref
from collections import Counter
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy.stats import t

import miue_lib as mi
from miue_lib.photos.verdict import VIEWS, Stored, crafting, outcomes, sample, sentences, split, training, verdict
from miue_lib.train import steps_per_epoch

CPU = mi.PROFILES["cpu"]
QUICK = replace(CPU, model="linear")


def fit(picture: Image.Image, side: int) -> np.ndarray:
    return np.asarray(ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.BICUBIC))


def photo(height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def in_pillow(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(90, 71), (32, 32), (5, 40), (1, 1)])
def test_views_are_what_pillow_makes(height: int, width: int, channels: int) -> None:
    pixels = photo(height, width, channels)
    picture = in_pillow(pixels)
    expected = {"plain": fit(picture, 16)}
    for quality in (90, 70, 50, 30):
        file = io.BytesIO()
        picture.save(file, format="JPEG", quality=quality)  # at full size, before the square is cut out
        expected[f"jpeg-{quality}"] = fit(Image.open(file), 16)
    square = Image.fromarray(expected["plain"])
    expected["grayscale"] = np.asarray(square.convert("L").convert("RGB"))
    expected["resized"] = np.asarray(Image.fromarray(fit(picture, 8)).resize((16, 16), Image.Resampling.BICUBIC))
    assert list(VIEWS) == list(expected)
    for name, view in VIEWS.items():
        found = view(pixels, 16)
        assert found.dtype == np.uint8 and found.shape == (16, 16, 3)
        assert np.array_equal(found, expected[name]), name


def test_what_is_too_long_for_jpeg_is_looked_at_all_the_same() -> None:
    pixels = photo(1, 65_501, 3)
    assert np.array_equal(VIEWS["jpeg-50"](pixels, 4), VIEWS["plain"](pixels, 4))


def test_a_sample_is_as_balanced_as_can_be() -> None:
    labels = [0] * 50 + [1] * 9 + [2] * 1 + [3] * 40
    for most in range(1, 101):
        chosen = sample(labels, most, seed=3)
        assert chosen == sorted(set(chosen)) and len(chosen) == most
        counts = Counter(labels[place] for place in chosen)
        largest = max(counts.values())
        for label, there in Counter(labels).items():  # a class is behind the others only where it has no more
            assert counts[label] >= min(there, largest - 1)
    assert sample(labels, 1000, seed=3) == list(range(100))
    assert sample(labels, 20, seed=3) == sample(torch.tensor(labels), 20, seed=3) != sample(labels, 20, seed=4)


def test_six_splits_hold_out_every_picture_once() -> None:
    labels = torch.tensor([0, 1, 1] * 12)  # 12 and 24 pictures, of which 2 and 4 are held out
    held_out = []
    for number in range(6):
        train, test = split(labels, number, seed=5)
        assert torch.equal(torch.cat([train, test]).sort().values, torch.arange(36))
        assert labels[test].bincount().tolist() == [2, 4]
        held_out += test.tolist()
    assert sorted(held_out) == list(range(36))
    assert not torch.equal(split(labels, 0, seed=5)[1], split(labels, 0, seed=6)[1])


def test_small_classes_are_split_too() -> None:
    labels = torch.tensor([2, 0, 2, 3, 3, 3])
    for number in range(4):
        train, test = split(labels, number, seed=0)
        assert labels[train].bincount(minlength=4).tolist() == [1, 0, 1, 2]
        assert labels[test].bincount(minlength=4).tolist() == [0, 0, 1, 1]  # the only one of class 0 is trained on
    assert {split(labels, number, seed=0)[1].tolist()[0] for number in (0, 1)} == {0, 2}


def blank(n: int, classes: int = 2) -> mi.ImageSet:
    return mi.ImageSet(torch.zeros((n, 3, 12, 12), dtype=torch.uint8), torch.arange(n) % classes)


@pytest.mark.parametrize("n", [2, 3, 10, 50, 250, 833, 5000, 10_000])
def test_few_pictures_get_steps_enough(n: int) -> None:
    victim = training(n, CPU)
    assert victim["epochs"] * steps_per_epoch(n, victim["batch_size"]) >= 600
    for method in ("miue", "ap", "rem", "pil"):
        settings = mi.METHODS[method].settings | crafting(method, blank(n), CPU)
        lives = settings["epochs"] / (settings.get("fresh_every") or settings["epochs"])
        assert lives == (9 if method == "miue" else 1)
        assert settings["epochs"] / lives * steps_per_epoch(n, settings["batch_size"]) >= 300


@pytest.mark.parametrize("n", [2, 3, 9])
def test_a_handful_goes_through_batch_normalisation(n: int) -> None:
    few = blank(n)
    curves = mi.fit(mi.build("small_resnet", few), few, **training(n, CPU) | {"epochs": 1})
    assert math.isfinite(curves.loss[-1])


def test_where_a_profile_has_steps_enough_its_settings_stay() -> None:
    assert training(10_000, CPU) == dict(CPU.victim) | {"batch_size": 128}
    for size, n in ((CPU, 10_000), (mi.PROFILES["gpu"], 50_000)):
        for method in ("miue", "ap", "em", "rem", "pil", "random", "tue", "ntga"):
            defaults = mi.METHODS[method].settings
            # A life of 3 epochs of 78 steps is short of 300: it gets a fourth.
            more = {"fresh_every": 4, "epochs": 36} if (method, size) == ("miue", CPU) else {}
            assert defaults | crafting(method, blank(n), size) == defaults | dict(size.noise[method]) | more, method


@pytest.mark.parametrize("method", ["miue", "em", "ap", "rem", "gue"])
def test_four_pictures_can_be_protected(method: str) -> None:
    four = mi.ImageSet(torch.from_numpy(np.stack([photo(12, 12, 3)] * 4)).permute(0, 3, 1, 2), torch.arange(4) % 2)
    settings = crafting(method, four, CPU)
    short = {name: 1 for name in ("epochs", "steps", "model_batches") if name in settings}
    noise = mi.craft(method, four, epsilon=8 / 255, **settings | short)
    assert noise.levels.shape == four.images.shape


def test_noise_without_a_budget_a_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="method: got 'lsp', expected one of 'random'"):
        crafting("lsp", blank(10), CPU)


def bands(n: int) -> torch.Tensor:
    """Rows of noise, with a bright band whose height tells the class, place modulo 3, from which anything learns."""
    pixels = torch.rand((n, 3, 12, 12), generator=torch.Generator().manual_seed(1)) * 0.4
    for row in range(4):
        pixels[torch.arange(n), :, 4 * (torch.arange(n) % 3) + row] += 0.5
    return pixels


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """72 pictures in three classes; as they are published, every class shows the band of the next, and in grey its
    own: what is learned is wrong for every picture, or right."""
    cache = mi.Cache(tmp_path_factory.mktemp("victims"))
    labels = torch.arange(72) % 3
    own, next_one = (mi.ImageSet(shown, labels) for shown in (bands(72), bands(73)[1:]))
    clean = {"grayscale": own, "plain": own}
    published = {"grayscale": own, "plain": next_one}
    said: list[str] = []
    arguments = {"size": QUICK, "seeds": 3, "seed": 7, "cache": cache}
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    with patch.dict(sys.modules, {"joblib": None}):  # as if it were not installed
        found = verdict(clean, published, progress=said.append, **arguments)
    assert torch.get_num_threads() == 2  # though victims have one
    torch.set_num_threads(threads)
    return found, said, clean, published, arguments


def test_what_networks_learn(measured) -> None:
    found, said, *_ = measured
    assert {name: found[name] for name in ("model", "side", "train", "test", "tested", "seeds")} == {
        "model": "linear", "side": 12, "train": 60, "test": 12, "tested": 36, "seeds": [8, 9, 10]
    }  # fmt: skip
    assert found["chance"] == 1 / 3 and found["settings"] == training(60, QUICK)
    # The bands are 0.5 above noise of ±0.2, over a third of the pixels: nothing is left to chance.
    assert [(row["name"], row["accuracy"], row["outcome"]) for row in found["rows"]] == [
        ("clean", [1, 1, 1], None),
        ("plain", [0, 0, 0], "protected"),
        ("grayscale", [1, 1, 1], "not protected"),
    ]
    assert len(said) == 9 and said[-1].startswith("verdict: 9 of 9 networks trained")
    assert sentences(found) == [
        "From the unprotected pictures, networks learn: they get 100 % of new ones right, where guessing gets 33 %.",
        "As they are, the pictures are protected: networks get 0 % right, against 100 % from the unprotected ones.",
        "Turned to grey, the pictures are not protected: networks get 100 % right, against 100 % from the "
        "unprotected ones.",
    ]


def test_victims_are_kept_and_joblib_changes_nothing(measured) -> None:
    """A name tells the number of threads too, so what joblib's processes read is what they would have trained."""
    found, _, clean, published, arguments = measured
    kept = {file: file.stat().st_mtime_ns for file in arguments["cache"].folder.iterdir()}
    # Six, not nine: those trained on the pictures in grey are those trained on the unprotected ones.
    assert len(kept) == 6
    assert verdict(clean, published, **arguments) == found
    assert {file: file.stat().st_mtime_ns for file in arguments["cache"].folder.iterdir()} == kept


@pytest.mark.parametrize("joblib", [True, False])
def test_on_a_machine_with_a_gpu_victims_on_the_cpu_have_one_thread_too(measured, joblib: bool) -> None:
    found, _, clean, published, arguments = measured
    kept = {*arguments["cache"].folder.iterdir()}
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    modules = {} if joblib else {"joblib": None}
    with patch.object(torch.cuda, "is_available", lambda: True), patch.dict(sys.modules, modules):
        assert verdict(clean, published, **arguments) == found
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    assert {*arguments["cache"].folder.iterdir()} == kept  # a name tells the number of threads


@pytest.fixture
def stored(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Stored:
    """48 pictures under all views, in a file, of which two are not shown; victims of one epoch for them."""
    pixels = np.memmap(tmp_path / "views", np.uint8, "w+", shape=(50, len(VIEWS), 3, 12, 12))
    pixels[:] = np.random.default_rng(0).integers(0, 256, pixels.shape)
    monkeypatch.setattr("miue_lib.photos.verdict.training", lambda n, size: {**size.victim, "epochs": 1})
    return Stored(pixels, [*range(10), *range(12, 50)], torch.arange(48) % 2, ("a", "b"), "some", torch.device("cpu"))


def test_what_lies_in_a_file_is_read_view_by_view(stored: Stored) -> None:
    assert [*stored] == [*VIEWS] and len(stored) == len(VIEWS)
    for number, (view, images) in enumerate(stored.items()):
        assert np.array_equal(images.images, stored.pixels[stored.places, number])
        assert torch.equal(images.labels, stored.labels)
        assert (images.classes, images.name) == (("a", "b"), f"some, {view}")


def test_few_sets_are_in_memory_at_a_time(stored: Stored, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many views and seeds: of one network at most its view and the two parts of it, and of the next."""
    alive: weakref.WeakSet[mi.ImageSet] = weakref.WeakSet()
    check = mi.ImageSet.__post_init__

    def watched(self: mi.ImageSet) -> None:
        check(self)
        alive.add(self)

    monkeypatch.setattr(mi.ImageSet, "__post_init__", watched)
    monkeypatch.setitem(sys.modules, "joblib", None)
    counts: list[int] = []
    cache = mi.Cache(tmp_path / "cache")
    verdict(stored, stored, size=QUICK, seeds=2, cache=cache, progress=lambda _: counts.append(len(alive)))
    assert len(counts) == 2 * (1 + len(VIEWS)) and max(counts) <= 6


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [0, 1, 1, 1], [0, 1], [0, 0, 2]])
def test_a_handful_of_pictures_is_too_few(labels: list[int], tmp_path) -> None:
    few = {"plain": mi.ImageSet(bands(len(labels)), torch.tensor(labels), ("a", "b", "c"))}
    with patch.dict(sys.modules, {"joblib": None}):
        found = verdict(few, few, size=QUICK, seeds=1, cache=mi.Cache(tmp_path))
    assert found["train"] + found["test"] == len(labels)
    assert all(len(row["accuracy"]) == 1 for row in found["rows"])
    (said,) = sentences(found)
    assert said.startswith("Too few pictures to measure")


def test_sets_that_do_not_belong_together_are_refused(tmp_path) -> None:
    some = mi.ImageSet(bands(12), torch.arange(12) % 3)
    others = mi.ImageSet(bands(12), torch.arange(12) % 2)
    one = mi.ImageSet(bands(12), torch.zeros(12, dtype=torch.int64))
    keep = {"size": QUICK, "cache": mi.Cache(tmp_path)}
    with pytest.raises(ValueError, match="published: got views"):
        verdict({"plain": some}, {"plain": some, "grayscale": some}, **keep)
    with pytest.raises(ValueError, match="published: got views"):
        verdict({"grayscale": some}, {"grayscale": some}, **keep)
    with pytest.raises(ValueError, match=r"published\['plain'\]"):
        verdict({"plain": some}, {"plain": others}, **keep)
    with pytest.raises(ValueError, match="two classes or more"):
        verdict({"plain": one}, {"plain": one}, **keep)


def a_verdict(*rows: list[float], tested: int = 500, chance: float = 0.1) -> dict:
    names = ("clean", *VIEWS)[: len(rows)]
    shown = [{"name": name, "title": name, "accuracy": row} for name, row in zip(names, rows, strict=True)]
    return {"rows": shown, "tested": tested, "chance": chance}


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        # Unprotected 0.5, 0.52, 0.48, chance 0.1: half of what is learned is 0.2. Differences are written beside. By
        # shares of 500 the interval is at most ± 0.062; by seeds ± 2.484 s.
        ([0.2, 0.22, 0.18], "pictures are protected"),  # 0.3 thrice: ± 0.060
        ([0.1, 0.4, 0.1], "may or may not be protected"),  # 0.4, 0.12, 0.38; s = 0.156: ± 0.388 and 0.3 is not clear
        ([0.4, 0.42, 0.38], "protected in part"),  # 0.1 thrice, ± 0.062
        ([0.301, 0.321, 0.281], "protected in part"),  # 0.199 thrice
        ([0.299, 0.319, 0.279], "pictures are protected"),  # 0.201 thrice
        ([0.47, 0.49, 0.45], "not protected"),  # 0.03 thrice: it may be 0, and is not 0.13
        # 0.08, 0.02, 0.08; s = 0.035: 0.06 ± 0.086 may be 0 and a third of 0.4, and is not half of it.
        ([0.42, 0.5, 0.4], "protected in part at most, if at all"),
        ([0.44, 0.46, 0.42], "not protected"),  # 0.06 thrice, ± 0.062
        ([0.55, 0.57, 0.53], "not protected"),
        ([0.3, 0.5, 0.5], "may or may not be protected"),  # 0.2, 0.02, −0.02; s = 0.117: ± 0.29
    ],
)
def test_what_is_said_follows_from_differences(accuracy: list[float], expected: str) -> None:
    _, said = sentences(a_verdict([0.5, 0.52, 0.48], accuracy))
    wordings = ("pictures are protected", "protected in part", "protected in part at most, if at all", "not protected")
    wordings = (*(f"{word}:" for word in wordings), "may or may not be protected")
    assert [word for word in wordings if word in said.replace("pictures are protected in", "protected in")] == [
        expected if expected in wordings else f"{expected}:"
    ]


@pytest.mark.parametrize("seeds", range(2, 11))
def test_the_interval_by_seeds_is_that_of_student(seeds: int) -> None:
    """Of a million pictures the other is ± 0.0014 at most, and the narrowest here ± 0.015, the widest ± 0.25: less than
    half of what is learned, 0.4."""
    scatter = [0.02 * (-1) ** number for number in range(seeds)]
    half = t.ppf(0.975, seeds - 1) * statistics.stdev(scatter) / math.sqrt(seeds)
    for share, clear in ((0.998, False), (1.002, True)):
        row = [0.9 - share * half - statistics.mean(scatter) + one for one in scatter]
        (outcome,) = outcomes(a_verdict([0.9] * seeds, row, tested=10**6))
        assert (outcome == "in part") == clear


def test_few_pictures_widen_the_interval() -> None:
    # 0.3 thrice, which of 45 pictures is 0.3 ± 0.186; of 12 it is ± 0.35, but that few are refused anyway.
    rows = [0.5, 0.5, 0.5], [0.2, 0.2, 0.2]
    assert "are protected:" in sentences(a_verdict(*rows, tested=45))[1]
    assert sentences(a_verdict(*rows, tested=29)) == [
        "Too few pictures to measure what the protection does: 29 to test a network on."
    ]
    # 0.2 of 0.3: ± 1.96 √(0.2419 / 32 + 0.1875 / 32) = 0.227.
    assert "may or may not be protected" in sentences(a_verdict([0.4] * 3, [0.2] * 3, tested=30))[1]


def test_a_network_that_learns_nothing_tells_nothing() -> None:
    # Chance of 60 pictures: 0.1 ± 1.96 √(0.09 / 60) = 0.076.
    (said,) = sentences(a_verdict([0.17] * 3, [0.1] * 3, tested=60))
    assert "even from the unprotected ones, networks get 17 % right, where guessing gets 10 %" in said
    assert len(sentences(a_verdict([0.18] * 3, [0.1] * 3, tested=60))) == 2


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (a_verdict([0.95], [0.1], [0.9]), "Too few trainings"),
        (a_verdict([0.95] * 3, [0.1] * 3, [0.9] * 3, tested=29), "Too few pictures"),
        (a_verdict([0.1] * 3, [0.1] * 3, [0.1] * 3), "Too few pictures"),
    ],
)
def test_where_little_was_measured_nothing_is_clear(found: dict, why: str) -> None:
    (said,) = sentences(found)
    assert said.startswith(why)
    assert "95 %" not in said  # of which 29 pictures, or one training, are no proof
    assert outcomes(found) == ["unclear", "unclear"]


def test_pictures_stay_protected_only_if_they_are() -> None:
    kept, lost = [0.2] * 3, [0.5] * 3
    assert "JPEG at quality 90, the pictures stay protected" in sentences(a_verdict([0.5] * 3, kept, kept))[2]
    assert "JPEG at quality 90, the pictures are protected:" in sentences(a_verdict([0.5] * 3, lost, kept))[2]


@pytest.mark.parametrize("seeds", [3, 6])
def test_noise_that_does_nothing_is_seldom_praised(seeds: int) -> None:
    """Two networks of the same accuracy, each right about its own pictures: an interval of 95 % leaves out 0 on the
    side of protection in 2.5 % of the cases, give or take; of 1,000 in 25 ± 4 · √(25 · 0.975) at most."""
    draw = random.Random(seeds)
    each = 20
    praised = told = 0
    for _ in range(1000):
        rows = [[sum(draw.random() < 0.4 for _ in range(each)) / each for _ in range(seeds)] for _ in range(2)]
        said = sentences(a_verdict(*rows, tested=seeds * each))
        if len(said) == 2:
            told += 1
            praised += "are protected" in said[1] and "at most" not in said[1]  # whole or in part
    assert told > 600
    assert praised <= 25 + 4 * math.sqrt(25 * 0.975)
