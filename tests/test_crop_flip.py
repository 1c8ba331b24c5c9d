"""Random crop and flip: equal to doing it picture by picture, and its adjoint is one."""

import pytest
import torch
from torch.nn import functional as F

from miue_lib.kernels.crop_flip import View


def by_hand(images: torch.Tensor, view: View) -> torch.Tensor:
    _, _, height, width = images.shape
    padded = F.pad(images, (view.pad,) * 4)
    out = []
    for picture, dy, dx, flip in zip(padded, view.dy, view.dx, view.flip, strict=True):
        crop = picture[:, dy : dy + height, dx : dx + width]
        out.append(crop.flip(2) if flip else crop)
    return torch.stack(out)


@pytest.mark.parametrize("shape", [(7, 1, 28, 28), (5, 3, 9, 14), (1, 1, 1, 1)])
@pytest.mark.parametrize("pad", [0, 1, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_equals_the_plain_way(shape: tuple[int, ...], pad: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, shape, generator=generator).to(dtype)
    view = View.random(shape[0], pad, True, generator)
    assert torch.equal(view(images), by_hand(images, view))


def test_backward_is_the_adjoint() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 2, 7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    view = View.random(6, 2, True, generator)
    upstream = torch.randn(6, 2, 7, 5, generator=generator, dtype=torch.float64)
    (plain,) = torch.autograd.grad(by_hand(images, view), images, upstream)
    (ours,) = torch.autograd.grad(view(images), images, upstream)
    assert torch.equal(ours, plain)
    assert torch.equal(view.adjoint(upstream), plain)
    assert torch.autograd.gradcheck(view, (images,))


def test_offsets_and_flips_are_uniform() -> None:
    n = 20_000
    view = View.random(n, 2, True, torch.Generator().manual_seed(0))
    for offsets in (view.dy, view.dx):
        counts = torch.bincount(offsets, minlength=5)
        # Chi-squared with 4 degrees of freedom: above 23.5 once in ten thousand.
        assert len(counts) == 5
        assert float(((counts - n / 5) ** 2 / (n / 5)).sum()) < 23.5
    assert abs(view.flip.float().mean() - 0.5) < 4 * 0.5 / n**0.5
    assert not View.random(n, 2, False, torch.Generator()).flip.any()
