"""What survives a defence: exact where it is known."""

from dataclasses import replace

import pytest
import torch

import miue_lib as mi
from miue_lib.explain import survival


def noisy(images: mi.ImageSet) -> mi.ImageSet:
    return images.with_(mi.craft("random", images, epsilon=8 / 255, seed=1))


def changed(images: mi.ImageSet, by: torch.Tensor) -> mi.ImageSet:
    return replace(images, images=(images.images.to(torch.int16) + by).clamp(0, 255).to(torch.uint8))


@pytest.fixture(scope="module")
def middle() -> mi.ImageSet:
    """Grey levels from 100 to 155: nothing is cut off."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(100, 156, (60, 1, 9, 7), generator=generator, dtype=torch.uint8)
    return mi.ImageSet(images, torch.arange(60) % 3)


def test_what_changes_nothing_lets_everything_through(middle):
    assert survival(middle, noisy(middle), middle, noisy(middle)) == (1.0, 0.0)


def test_what_forgets_the_picture_lets_nothing_through(middle):
    assert survival(middle, noisy(middle), middle, middle) == (0.0, 0.0)


def test_a_part_of_the_noise_and_a_disturbance_are_told_apart(middle):
    """Noise of ±2 of which half is kept, and a change of 3 in places where δ sums to nothing with its signs."""
    sign = torch.ones_like(middle.images, dtype=torch.int16)
    sign[..., ::2, :] = -1  # rows alternate, so what is constant in a column of 8 rows is orthogonal to it
    across = torch.zeros_like(sign)
    across[..., :8, :] = 3
    published, defended = changed(middle, 2 * sign), changed(middle, sign + across)
    kept, rest = survival(middle, published, middle, defended)
    assert kept == pytest.approx(0.5)
    assert rest == pytest.approx((9 * 8 / 9) / 4)  # of 9 rows 8 are moved by 3, against an energy of 4 a pixel


def test_pictures_that_do_not_belong_together_are_refused(middle):
    for other in (middle.subset(slice(0, 30)), replace(middle, labels=middle.labels.flip(0))):
        with pytest.raises(ValueError, match=r"defended: got pictures .*, expected those of clean, \(60, 1, 9, 7\)"):
            survival(middle, noisy(middle), middle, other)
    with pytest.raises(ValueError, match="published: got the clean pictures, expected pictures with noise"):
        survival(middle, middle, middle, middle)
