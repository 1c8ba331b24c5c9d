"""An adversary stays within its budget, does harm, and leaves the model as it was."""

import pytest
import torch
from torch.nn import functional as F

import miue_lib as mi
from miue_lib.attack import Attack

Bands = tuple[mi.ImageSet, mi.ImageSet]


@pytest.fixture(scope="module")
def model(easy: Bands) -> mi.Classifier:
    model = mi.build("small_resnet", easy[0])
    mi.fit(model, easy[0], epochs=6, batch_size=32, crop=0, flip=False)
    return model.eval()


def harm(model: mi.Classifier, images: mi.ImageSet, attack: Attack, seed: int = 0) -> float:
    moved = attack(model, images.floats(), images.labels, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return float(F.cross_entropy(model(moved), images.labels))


def test_it_stays_within_the_budget_and_the_range(easy: Bands, model: mi.Classifier) -> None:
    pictures = easy[1].floats()
    pictures[:, :, :3], pictures[:, :, 3:6] = 0, 1  # where the range is what holds it
    moved = Attack(radius=0.1, step=0.04, steps=5)(model, pictures, easy[1].labels, torch.Generator().manual_seed(0))
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert (moved - pictures).abs().max() <= 0.1 + 1e-6
    inner = (moved - pictures).abs()[:, :, 6:]
    assert (inner > 0.099).float().mean() > 0.5, "five steps of 0.04 reach the edge of most pixels' budget"


def test_steps_do_harm_that_noise_does_not(easy: Bands, model: mi.Classifier) -> None:
    noise = Attack(radius=0.1)
    assert harm(model, easy[1], Attack(radius=0.1, step=0.04, steps=5)) > 2 * harm(model, easy[1], noise)
    assert harm(model, easy[1], Attack(radius=0.0)) == pytest.approx(harm(model, easy[1], noise), abs=0.1)


def test_without_steps_it_is_uniform_noise(easy: Bands, model: mi.Classifier) -> None:
    grey = torch.full((64, 1, 12, 12), 0.5)
    moved = Attack(radius=0.1)(model, grey, torch.zeros(64, dtype=torch.int64), torch.Generator().manual_seed(0))
    change = (moved - grey).flatten().double()
    # 9,216 uniform values in [-r, r]: the mean's standard error is r / √(3n), that of the mean square √(4/45 / n) r².
    assert abs(float(change.mean())) < 4 * 0.1 / (3 * 9216) ** 0.5
    assert float(change.square().mean()) == pytest.approx(0.01 / 3, abs=4 * (4 / 45 / 9216) ** 0.5 * 0.01)


def test_the_generator_decides_and_the_model_stays(easy: Bands, model: mi.Classifier) -> None:
    attack = Attack(radius=0.1, step=0.04, steps=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    slopes = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    assert slopes
    assert harm(model, easy[1], attack, seed=3) == harm(model, easy[1], attack, seed=3) != harm(model, easy[1], attack)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    after = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(torch.equal(one, other) for one, other in zip(slopes, after, strict=True))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radius": 2}, r"radius: got 2, expected a number in \[0, 1\]"),
        ({"radius": 0.1, "steps": -1}, "steps: got -1, expected a whole number >= 0"),
        ({"radius": 0.1, "steps": 3}, r"step: got 0\.0, expected a number in \(0, 1\]"),
        ({"radius": 0.1, "steps": 3, "step": float("nan")}, "step: got nan, expected a number"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Attack(**settings)
