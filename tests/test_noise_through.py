"""Noise that is crafted through what a victim does to published pictures."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import miue_lib as mi
from miue_lib.kernels.jpeg import compressed
from miue_lib.noise.bilevel import bilevel
from miue_lib.noise.execution import Execution
from miue_lib.noise.ranks import Batch

Bands = tuple[mi.ImageSet, mi.ImageSet]
QUICK: dict[str, Any] = {"surrogate": "small_resnet", "batch_size": 24, "noise_batch_size": 24}
QUICK |= {"epochs": 1, "steps": 1, "step": 3 / 255, "crop": 0, "flip": False}


def pulled(model: nn.Module, seen: Tensor, batch: Batch) -> Tensor:
    """An objective whose gradient at each pixel of what is seen is known: from left to right, from −1 to 1.2."""
    return (seen * (torch.linspace(-1, 1, seen.shape[3]) + 0.1)).sum()


def engine(
    images: mi.ImageSet, through: Callable[[Tensor], Tensor] | None, objective: Any = pulled, **settings: Any
) -> mi.Perturbation:
    defaults = mi.METHODS["miue"].settings | QUICK | settings
    return bilevel(images, objective, method="test", settings=defaults, execution=Execution(), through=through)


@pytest.fixture
def grey() -> mi.ImageSet:
    return mi.ImageSet(torch.full((24, 1, 12, 12), 128, dtype=torch.uint8), torch.arange(24) % 2, name="grey")


def test_a_step_descends_through_what_the_victim_does(grey: mi.ImageSet) -> None:
    expected = (-3 * (torch.linspace(-1, 1, 12) + 0.1).sign()).to(torch.int8).expand(24, 1, 12, 12)
    assert torch.equal(engine(grey, None).levels, expected)
    assert torch.equal(engine(grey, lambda pictures: pictures).levels, expected)
    assert torch.equal(engine(grey, lambda pictures: 1 - pictures).levels, -expected)
    assert torch.equal(engine(grey, lambda pictures: pictures.flip(3)).levels, expected.flip(3))
    assert not engine(grey, lambda pictures: 0 * pictures).levels.any()


def test_what_does_nothing_changes_nothing(easy: Bands) -> None:
    """Crops, flips, surrogate and all: a victim that leaves the pictures as they are is the one of before."""

    def objective(model: Any, seen: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(model(seen).float(), batch.labels)

    settings = {"epochs": 3, "steps": 2, "crop": 1, "flip": True, "until_accuracy": 0.999}
    none, nothing = (engine(easy[0], through, objective, **settings) for through in (None, lambda p: p * 1.0))
    assert torch.equal(none.levels, nothing.levels)
    assert none.curves["loss"] == nothing.curves["loss"]
    assert none.curves["objective"] == nothing.curves["objective"]


def test_both_phases_see_what_the_victim_will_have(grey: mi.ImageSet) -> None:
    shown: dict[bool, list[Tensor]] = {True: [], False: []}

    class Spy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(144, 2)

        def features(self, x: Tensor) -> Tensor:
            return x.flatten(1)

        def forward(self, x: Tensor) -> Tensor:
            shown[self.training].append(x.detach().clone())
            return self.head(self.features(x))

        def __deepcopy__(self, memo: dict) -> "Spy":
            copied = Spy()
            copied.head = copy.deepcopy(self.head)
            return copied

    received: list[Tensor] = []

    def through(pictures: Tensor) -> Tensor:
        received.append(pictures.detach().clone())
        return 0.25 + 0.5 * pictures

    def objective(model: Any, views: Tensor, batch: Batch) -> Tensor:
        return pulled(model, views, batch) + 0 * model(views).sum()

    noise = engine(grey, through, objective, epochs=2, surrogate=Spy())
    published = grey.with_(noise).floats()
    for first, second in (shown[True], shown[False][-2:]):
        torch.testing.assert_close(first, 0.25 + 0.5 * grey.floats(), msg="before there is noise")
        moved = (second - (0.25 + 0.5 * grey.floats())).abs()
        assert moved.min() > 0, "and with it"
    assert {tuple(one.shape) for one in received} == {(24, 1, 12, 12)}
    assert (published - grey.floats()).abs().max() > 5 / 255


def test_accuracy_is_that_on_what_the_victim_will_have(grey: mi.ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge classifies noisy pictures only; a victim that wipes them clean keeps the rounds going."""

    class Judge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            noisy = ((x - 128 / 255).abs() > 1e-3).float().flatten(1).mean(1) > 0.5
            label = torch.arange(24) % 2
            return F.one_hot(torch.where(noisy, label, 1 - label), 2).float()

    def wiped(pictures: Tensor) -> Tensor:
        return pictures + (torch.full_like(pictures, 128 / 255) - pictures).detach()

    monkeypatch.setattr("miue_lib.noise.bilevel.frozen", lambda model: Judge())
    rounds = {"epochs": 3, "until_accuracy": 1.0}
    assert len(engine(grey, None, **rounds).curves["loss"]) == 1
    assert len(engine(grey, wiped, **rounds).curves["loss"]) == 3


def test_it_is_done_in_single_precision(grey: mi.ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miue_lib.train.precision", lambda device: torch.bfloat16)
    inside: list[bool] = []

    def through(pictures: Tensor) -> Tensor:
        assert pictures.dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
        return pictures

    def objective(model: Any, seen: Tensor, batch: Batch) -> Tensor:
        inside.append(torch.is_autocast_enabled("cpu"))
        return pulled(model, seen, batch)

    engine(grey, through, objective, until_accuracy=1.0)
    assert inside == [True]


def test_a_gradient_that_is_not_a_number_is_an_error(grey: mi.ImageSet) -> None:
    def through(pictures: Tensor) -> Tensor:
        return pictures + (pictures - pictures.detach()).abs().sqrt()  # at 0: 0 · ∞

    with pytest.raises(FloatingPointError, match="test: the objective became nan in round 1, batch 1, step 1"):
        engine(grey, through)


def test_miue_through_jpeg_is_told_by_its_settings(easy: Bands, tmp_path: Path) -> None:
    plain = mi.craft("miue", easy[0], **QUICK)
    assert plain.settings["jpeg"] is None
    keep = {"checkpoint": tmp_path / "run"}
    noise = mi.craft("miue", easy[0], **QUICK, jpeg=10, **keep)
    assert noise.settings["jpeg"] == 10
    assert not torch.equal(noise.levels, plain.levels)
    assert torch.equal(mi.craft("miue", easy[0], **QUICK, jpeg=10).levels, noise.levels)
    with pytest.raises(ValueError, match="of another run .*jpeg 10, here 30"):
        mi.craft("miue", easy[0], **QUICK, jpeg=30, **keep, resume=True)
    for quality in (0, 101, 10.0, True, "10"):
        with pytest.raises(ValueError, match="jpeg: got .*, expected a whole number from 1 to 100"):
            mi.craft("miue", easy[0], **QUICK, jpeg=quality)


def test_noise_crafted_through_jpeg_does_more_of_its_work_after_jpeg(easy: Bands) -> None:
    """Labels are shuffled: whatever classes a network finds in compressed published pictures, it finds in the noise."""
    train, _ = easy
    shuffled = mi.ImageSet(train.images, train.labels[torch.randperm(192, generator=torch.Generator().manual_seed(0))])
    settings = QUICK | {"epochs": 6, "steps": 2, "step": 8 / 255, "noise_batch_size": 96, "epsilon": 32 / 255}

    def learned(jpeg: int | None) -> float:
        published = shuffled.with_(mi.craft("miue", shuffled, **settings, jpeg=jpeg))
        left = mi.ImageSet(compressed(published.floats(), 5), published.labels)
        model = mi.build("small_resnet", left)
        return mi.fit(model, left, epochs=4, batch_size=24, crop=0, flip=False).loss[-1]

    assert learned(5) < 0.8 * learned(None)
