"""TUE: the discriminant and its gradient are the released ones, and the noise minimises it within the budget."""

import pytest
import torch
from torch.nn import functional as F

import miue_lib as mi
from miue_lib.kernels.crop_flip import View
from miue_lib.noise.random import random
from miue_lib.noise.tue import separability, tue

QUICK = {"rounds": 3, "steps": 5, "step": 4 / 255, "batch_size": 64}


def looped(noise: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The discriminant written out class by class, spreads detached, as in the paper's appendix."""
    groups = [noise[labels == c] for c in labels.unique()]
    centres = [group.mean(0) for group in groups]
    spreads = [(group - centre).norm(dim=1).mean().detach() for group, centre in zip(groups, centres, strict=True)]
    return torch.stack(
        [
            (spreads[c] + spreads[k] + 1e-5) / ((centres[c] - centres[k]).norm() + 1e-5)
            for c in range(len(groups))
            for k in range(len(groups))
            if c != k
        ]
    ).mean()


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_discriminant_and_its_gradient_are_those_of_autograd(classes: int) -> None:
    """Classes of uneven sizes, one of them (of `classes` + 1) absent."""
    generator = torch.Generator().manual_seed(classes)
    labels = torch.cat([torch.arange(classes), torch.randint(classes, (25,), generator=generator)])
    noise = torch.rand((len(labels), 18), generator=generator, dtype=torch.float64).requires_grad_()
    expected = looped(noise, labels)
    expected.backward()
    found, gradient = separability(noise.detach(), F.one_hot(labels, classes + 1).double())
    assert torch.allclose(found, expected, rtol=1e-12)
    assert torch.allclose(gradient, noise.grad, rtol=0, atol=1e-14)  # of values up to 0.1, sums of some 30 terms


def test_one_class_or_coinciding_centroids_pull_nowhere() -> None:
    noise = torch.rand((6, 5), generator=torch.Generator().manual_seed(0))
    alone, nothing = separability(noise, F.one_hot(torch.zeros(6, dtype=torch.int64), 2).float())
    assert float(alone) == 0
    assert not nothing.any()
    same, still = separability(noise[:3].repeat(2, 1), F.one_hot(torch.arange(6) // 3, 2).float())
    assert torch.isfinite(same)
    assert not still.any()


@pytest.mark.parametrize("view", [{}, {"crop": 2, "flip": True}])
def test_noise_is_more_separable_than_random_noise(easy: tuple[mi.ImageSet, mi.ImageSet], view: dict) -> None:
    train, _ = easy
    members = F.one_hot(train.labels, 3).float()
    crafted, control = tue(train, **QUICK | view), random(train)
    found, other = (float(separability(noise.delta.flatten(1), members)[0]) for noise in (crafted, control))
    assert found < 0.3 * other
    assert crafted.curves["separability"][-1] < crafted.curves["separability"][0]
    assert len(crafted.curves["separability"]) == 3


def test_the_discriminant_is_that_of_the_views(easy: tuple[mi.ImageSet, mi.ImageSet]) -> None:
    """Noise made for shifted and flipped views is easier to tell apart through them than noise made without."""
    train, _ = easy
    members = F.one_hot(train.labels, 3).float()
    view = View.random(len(train), 2, True, torch.Generator().manual_seed(5))
    with_, without = (
        float(separability(view(tue(train, **QUICK | {"rounds": 8} | of).delta).flatten(1), members)[0])
        for of in ({"crop": 2, "flip": True}, {})
    )
    assert with_ < 0.8 * without


@pytest.mark.parametrize("epsilon", [8 / 255, 1 / 255, 0.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_budget_holds_in_published_pictures(tiny: mi.ImageSet, epsilon: float, channels: int) -> None:
    pictures = mi.ImageSet(tiny.images.expand(-1, channels, -1, -1)[..., :9], tiny.labels, tiny.classes)
    noise = tue(pictures, epsilon=epsilon, **QUICK | {"rounds": 2})
    change = pictures.with_(noise).images.int() - pictures.images.int()
    assert 0 < change.max() <= 255 * epsilon + 1e-6, "positive noise is there"
    assert 0 < -change.min() <= 255 * epsilon + 1e-6, "and so is negative noise"


def test_noise_is_of_the_picture_and_its_signs_are_of_the_class() -> None:
    """On grey pictures, where clipping hides nothing, the noise of a class has settled on one pattern at ± ε."""
    grey = mi.ImageSet(torch.full((40, 1, 8, 8), 128, dtype=torch.uint8), torch.arange(40) % 4)
    early, late = (tue(grey, steps=steps, rounds=1, batch_size=40).levels for steps in (3, 40))
    assert len(early.flatten(1).unique(dim=0)) == 40, "each begins at random noise of its own"
    for c in range(4):
        pattern = late[grey.labels == c]
        assert (pattern == pattern[0]).float().mean() > 0.9
    others = [late[grey.labels == c][0] for c in (0, 1)]
    assert (others[0] != others[1]).float().mean() > 0.2


def test_a_seed_repeats_the_noise_and_leaves_other_generators_alone(tiny: mi.ImageSet) -> None:
    state = torch.get_rng_state()
    one, again, other = (tue(tiny, seed=seed, **QUICK) for seed in (0, 0, 1))
    assert torch.equal(one.levels, again.levels)
    assert not torch.equal(one.levels, other.levels)
    assert torch.equal(state, torch.get_rng_state())


def test_each_setting_reaches_the_method(tiny: mi.ImageSet) -> None:
    plain = tue(tiny, **QUICK).levels
    for change in (
        {"epsilon": 4 / 255},
        {"step": 1 / 255},
        {"steps": 2},
        {"rounds": 1},
        {"batch_size": 20},
        {"crop": 1},
        {"flip": True},
    ):
        noise = tue(tiny, **QUICK | change)
        assert not torch.equal(noise.levels, plain), change
        assert noise.settings.items() >= change.items()


def test_it_says_how_far_it_is(tiny: mi.ImageSet) -> None:
    lines: list[str] = []
    tue(tiny, progress=lines.append, **QUICK)
    assert lines[-1].startswith("tue round 3/3: separability discriminant 0.")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epsilon": 0.001}, "epsilon: got 0.001, expected at least 1/255"),
        ({"step": 0.0}, "step: got 0.0, expected a number in"),
        ({"steps": 0}, "steps: got 0, expected a whole number >= 1"),
        ({"rounds": 1.5}, "rounds: got 1.5, expected a whole number >= 1"),
        ({"batch_size": 0}, "batch_size: got 0, expected a whole number >= 1"),
        ({"crop": 12}, "crop: got 12, expected a whole number from 0 to 11"),
        ({"flip": 1}, "flip: got 1, expected True or False"),
        ({"seed": -1}, "seed: got -1, expected a whole number >= 0"),
    ],
)
def test_bad_settings_are_refused(tiny: mi.ImageSet, wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tue(tiny, **wrong)


def test_one_class_is_refused(tiny: mi.ImageSet) -> None:
    with pytest.raises(ValueError, match="images: got pictures of one class, expected two classes or more"):
        tue(tiny.subset(tiny.labels == 0), **QUICK)
