"""Adversarial training: worse pictures within the budget, from a model that does not notice."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import miue_lib as mi
from miue_lib.attack import Attack
from miue_lib.defenses.adversarial import AdversarialTraining

Bands = tuple[mi.ImageSet, mi.ImageSet]


@pytest.fixture(scope="module")
def model(easy: Bands) -> mi.Classifier:
    model = mi.build("small_resnet", easy[0])
    mi.fit(model, easy[0], epochs=6, batch_size=32, crop=0, flip=False)
    return model.train()


def seed(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def test_it_is_the_attack_on_the_model_in_evaluation_mode(easy: Bands, model: mi.Classifier) -> None:
    pictures, labels = easy[1].floats(), easy[1].labels
    moved, targets = AdversarialTraining(radius=0.1, step=0.04, steps=3)(model, pictures, labels, seed())
    attack = Attack(radius=0.1, step=0.04, steps=3)
    assert torch.equal(moved, attack(copy.deepcopy(model).eval(), pictures, labels, seed()))
    assert torch.equal(targets, labels)
    assert torch.equal(pictures, easy[1].floats()), "not in place"
    assert (moved - pictures).abs().max() <= 0.1 + 2**-23  # x ± ρ is rounded to a float32 below 2
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert not moved.requires_grad


def test_it_does_harm(easy: Bands, model: mi.Classifier) -> None:
    pictures, labels = easy[1].floats(), easy[1].labels
    judge = copy.deepcopy(model).eval()
    moved, _ = AdversarialTraining(radius=0.1, step=0.04)(model, pictures, labels, seed())
    with torch.no_grad():
        assert F.cross_entropy(judge(moved), labels) > 2 * F.cross_entropy(judge(pictures), labels)


def test_no_radius_leaves_the_pictures(easy: Bands, model: mi.Classifier) -> None:
    moved, _ = AdversarialTraining(radius=0)(model, easy[1].floats(), easy[1].labels, seed())
    assert torch.equal(moved, easy[1].floats())


def test_nothing_else_changes(easy: Bands, model: mi.Classifier) -> None:
    model = copy.deepcopy(model)
    next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).eval()  # as its owner wants it
    F.cross_entropy(model(easy[1].floats()), easy[1].labels).backward()
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    slopes = [parameter.grad.clone() for parameter in model.parameters()]
    torch_state = torch.get_rng_state()
    defense = AdversarialTraining(radius=0.1, steps=2)
    with torch.no_grad():
        defense(model, easy[1].floats(), easy[1].labels, seed())
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, slope) for p, slope in zip(model.parameters(), slopes, strict=True))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_the_modes_are_restored_after_an_error(easy: Bands) -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(1, 3).eval()

        def forward(self, pictures: Tensor) -> Tensor:
            raise RuntimeError("no")

    model = Failing()
    with pytest.raises(RuntimeError, match="no"):
        AdversarialTraining(radius=0.1)(model, easy[1].floats(), easy[1].labels, seed())
    assert model.training
    assert not model.head.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_generator_decides(easy: Bands, model: mi.Classifier) -> None:
    defense = AdversarialTraining(radius=0.1, steps=1)
    one, same, other = (defense(model, easy[1].floats(), easy[1].labels, seed(number))[0] for number in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radius": -0.1}, r"radius: got -0\.1, expected a number in \[0, 1\]"),
        ({"radius": 0.1, "step": 0}, r"step: got 0, expected a number in \(0, 1\]"),
        ({"radius": 0.1, "steps": 1.5}, r"steps: got 1\.5, expected a whole number >= 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdversarialTraining(**settings)
