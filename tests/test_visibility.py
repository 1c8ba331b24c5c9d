"""How visible noise is: each measure against arithmetic, SSIM against its definition written out."""

import importlib
import math

import numpy as np
import pytest
import torch

import miue_lib as mi
from miue_lib.visibility import ssim, visibility

module = importlib.import_module("miue_lib.visibility")  # the package has a function of that name


def published(images: mi.ImageSet, levels: torch.Tensor) -> mi.Perturbation:
    return mi.Perturbation.of_levels(images, levels, epsilon=1.0, method="test", settings={})


def random_pictures(*shape: int, seed: int = 0, low: int = 0, high: int = 256) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    """SSIM of one channel, window by window (Wang et al. 2004, equations 6 and 13 to 17)."""
    i = np.arange(-5, 6)
    window = np.exp(-(i[:, None] ** 2 + i**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            a, b = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            cov = (window * (a - ma) * (b - mb)).sum()
            c1, c2 = 0.01**2, 0.03**2
            values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return float(np.mean(values))


@pytest.mark.parametrize("shape", [(3, 1, 16, 13), (2, 3, 11, 20)])
def test_ssim_is_its_definition(shape: tuple[int, ...]) -> None:
    x, y = (random_pictures(*shape, seed=seed).double() / 255 for seed in (0, 1))
    y = 0.7 * x + 0.3 * y
    pairs = zip(x.flatten(0, 1).numpy(), y.flatten(0, 1).numpy(), strict=True)
    expected = np.mean(np.reshape([by_definition(*pair) for pair in pairs], shape[:2]), axis=1)
    assert ssim(x, y).tolist() == pytest.approx(expected.tolist(), abs=1e-12)  # rounding: 2⁻⁵³ / 0.0009 is 1e-13
    bright = torch.full_like(x, 1.0)  # flat and bright is where a difference of moments loses most
    assert ssim(bright, bright).tolist() == pytest.approx([1] * shape[0], abs=1e-12)
    flat = 0.5 * bright  # no contrast: the luminance term alone is left
    assert ssim(bright, flat).tolist() == pytest.approx([(2 * 0.5 + 1e-4) / (1.25 + 1e-4)] * shape[0], abs=1e-9)


def test_every_measure_of_known_noise() -> None:
    pictures = random_pictures(3, 3, 12, 14, low=60, high=190)
    images = mi.ImageSet(pictures, torch.tensor([0, 1, 1]))
    levels = torch.zeros(pictures.shape, dtype=torch.int16)
    levels[1] = -5  # everywhere
    levels[2, 0, 3, 4], levels[2, 2, 3, 4], levels[2, 1, 0, 0] = 51, -51, 17  # three values, in two pixels
    found = visibility(images, published(images, levels))
    values, pixels = 3 * 12 * 14, 12 * 14
    squares = [0, values * 25, 2 * 51**2 + 17**2]
    psnr = [math.inf, *(10 * math.log10(255**2 * values / s) for s in squares[1:])]
    assert found.linf.tolist() == pytest.approx([0, 5 / 255, 51 / 255])
    assert found.l2.tolist() == pytest.approx([math.sqrt(s) / 255 for s in squares])
    assert found.l0.tolist() == pytest.approx([0, 1, 2 / pixels])
    assert found.psnr.tolist() == pytest.approx(psnr)
    assert found.ssim[0] == pytest.approx(1, abs=1e-12)
    assert found.ssim[1:].max() < 0.9999
    assert found.summary == pytest.approx(
        {
            "linf": 51 / 255,
            "l2": sum(map(math.sqrt, squares)) / 255 / 3,
            "l0": (1 + 2 / pixels) / 3,
            "psnr": 10 * math.log10(255**2 * 3 * values / sum(squares)),
            "ssim": float(found.ssim.mean()),
        }
    )
    assert found.summary["psnr"] < float(found.psnr.mean())


def test_it_measures_what_is_released_and_not_what_was_wanted() -> None:
    images = mi.ImageSet(torch.full((1, 1, 11, 11), 250, dtype=torch.uint8), torch.tensor([0]))
    wanted = torch.full((1, 1, 11, 11), 8.4 / 255)
    noise = mi.Perturbation.of(images, wanted, epsilon=8.4 / 255, method="test", settings={})
    assert visibility(images, noise).linf.tolist() == pytest.approx([5 / 255])  # 250 + 8.4 is more than white


def test_no_noise_is_invisible(tiny: mi.ImageSet) -> None:
    none = published(tiny, torch.zeros(tiny.images.shape, dtype=torch.int8))
    assert visibility(tiny, none).summary == pytest.approx({"linf": 0, "l2": 0, "l0": 0, "psnr": math.inf, "ssim": 1})


def test_blocks_change_nothing(tiny: mi.ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = mi.craft("random", tiny, seed=3)
    whole = visibility(tiny, noise)
    monkeypatch.setattr(module, "_BLOCK", 1000)  # 6 pictures of 144 pixels; 96 pictures are 16 blocks
    parts = visibility(tiny, noise)
    for name in ("linf", "l2", "l0", "psnr", "ssim"):
        assert getattr(parts, name).shape == (96,)
        assert torch.allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12, atol=0), name


def test_more_noise_is_more_visible(tiny: mi.ImageSet) -> None:
    little, much = (visibility(tiny, mi.craft("random", tiny, epsilon=e / 255)).summary for e in (2, 16))
    assert little["l2"] < much["l2"]
    assert little["psnr"] > much["psnr"]
    assert little["ssim"] > much["ssim"]


def test_what_cannot_be_measured_is_refused(tiny: mi.ImageSet) -> None:
    small = mi.ImageSet(random_pictures(2, 1, 10, 40), torch.tensor([0, 1]))
    with pytest.raises(
        ValueError, match="images: got 2 pictures of 1×10×40, expected at least one, of at least 11 × 11"
    ):
        visibility(small, mi.craft("random", small))
    other = mi.ImageSet(tiny.images.flip(0), tiny.labels, tiny.classes)
    with pytest.raises(ValueError, match="perturbation: got noise made for other pictures"):
        visibility(tiny, mi.craft("random", other))
