"""How linearly separable noise is: chance, certainty, and a known number between."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression

import miue_lib as mi
from miue_lib.explain import linear_separability
from miue_lib.explain.separability import halves


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_noise_without_classes_reads_as_chance_although_it_can_be_fitted() -> None:
    labels, noise = torch.arange(1000) % 4, normal(1000, 3, 10, 30)
    pixels = noise.flatten(1).numpy()
    assert LogisticRegression().fit(pixels, labels).score(pixels, labels) == 1  # what testing on the same noise says
    # Three standard errors of one half; the other one may err with it.
    assert abs(linear_separability(noise, labels) - 1 / 4) < 3 * math.sqrt(1 / 4 * 3 / 4 / 500)


def test_class_wise_noise_is_separable_whatever_its_scale(tiny: mi.ImageSet) -> None:
    patterns = 1e-4 * normal(3, 1, 12, 12) + 7
    assert linear_separability(patterns[tiny.labels], tiny.labels) == 1


def test_overlapping_classes_are_told_apart_as_well_as_is_possible() -> None:
    labels = torch.arange(4000) % 2
    noise = normal(4000, 5, seed=1)
    noise[:, 2] += 2.0 * labels
    best = 0.5 * (1 + math.erf(1 / math.sqrt(2)))  # Φ(1): no rule does better on two normals two deviations apart
    # Two standard errors of the share, and what the fit to 2,000 points costs: of the order d/n.
    assert abs(linear_separability(noise, labels) - best) < 2 * math.sqrt(best * (1 - best) / 4000) + 5 / 2000


def test_clipping_to_the_pixel_range_leaves_the_picture_in_the_noise() -> None:
    labels = torch.arange(600) % 2
    images = torch.full((600, 1, 12, 12), 128, dtype=torch.uint8)
    images[labels == 1, :, :, 6:] = 0  # black: noise can only be added
    published = mi.craft("random", mi.ImageSet(images, labels))
    assert linear_separability(published, labels) > 0.95
    unclipped = mi.craft("random", mi.ImageSet(torch.full_like(images, 128), labels))
    assert abs(linear_separability(unclipped, labels) - 1 / 2) < 3 * math.sqrt(1 / 4 / 300)


def test_every_class_is_halved_whatever_its_size() -> None:
    labels = torch.tensor([0] * 31 + [1] * 6 + [2] * 3 + [3])
    half = halves(labels, seed=0)
    assert torch.bincount(labels[half], minlength=4).tolist() == [16, 3, 1, 1]
    assert not torch.equal(half, halves(labels, seed=1))


def test_a_seed_repeats_and_another_does_not() -> None:
    labels, noise = torch.arange(200) % 4, normal(200, 20)
    assert linear_separability(noise, labels, seed=1) == linear_separability(noise, labels, seed=1)
    assert len({linear_separability(noise, labels, seed=seed) for seed in range(6)}) > 1
    before = torch.random.get_rng_state()
    linear_separability(noise, labels)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("noise", "labels", "settings", "message"),
    [
        (
            normal(4, 3),
            torch.tensor([0, 0, 1]),
            {},
            r"labels: got .*\(3,\), expected a whole number >= 0 for each of 4",
        ),
        (normal(4, 3), torch.tensor([0, 0, 1, -1]), {}, "labels: got .*, expected a whole number >= 0"),
        (normal(4, 3), torch.tensor([0.0, 0, 1, 1]), {}, "labels: got torch.float32"),
        (normal(4, 3), torch.tensor([0, 0, 0, 1]), {}, r"labels: got classes of \[3, 1\] pictures, expected two"),
        (normal(4, 3), torch.tensor([True, True, False, False]), {}, "labels: got torch.bool"),
        (normal(4), torch.tensor([0, 0, 1, 1]), {}, r"noise: got torch.float32 \(4,\), expected real numbers \(N, d\)"),
        (normal(4, 3) / 0, torch.tensor([0, 0, 1, 1]), {}, "noise: got NaN or infinite values"),
        (normal(4, 3), torch.tensor([0, 0, 1, 1]), {"seed": -1}, "seed: got -1"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    noise: torch.Tensor, labels: torch.Tensor, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        linear_separability(noise, labels, **settings)
