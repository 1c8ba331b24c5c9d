"""JPEG as an operation: what it leaves is what PIL's codec leaves, and its gradient is that of no rounding at all."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import miue_lib as mi
from miue_lib.kernels.jpeg import coefficients, compressed, quantisation_table

QUALITIES = [90, 70, 50, 30, 10]


def encoded(picture: torch.Tensor, quality: int) -> Image.Image:
    """A uint8 picture `(C, H, W)`, written and opened by PIL."""
    array = picture.numpy()
    file = io.BytesIO()
    Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
    return Image.open(file)


def by_pil(pictures: torch.Tensor, quality: int) -> torch.Tensor:
    """The levels that PIL's codec leaves of pictures in [0, 1]."""
    arrays = [np.asarray(encoded(p, quality)) for p in (255 * pictures).round().to(torch.uint8)]
    shown = [a[None] if a.ndim == 2 else a.transpose(2, 0, 1) for a in arrays]
    return torch.from_numpy(np.stack(shown)).float()


def smooth(channels: int, height: int, width: int, n: int = 40) -> torch.Tensor:
    """Soft colours and a little noise, as photographs have."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand((n, channels, 5, 6), generator=generator)
    soft = F.interpolate(coarse, size=(height, width), mode="bicubic")
    return (soft + 0.03 * torch.randn(soft.shape, generator=generator)).clamp(0, 1)


def dct() -> torch.Tensor:
    """D, float64, from its definition."""
    return torch.tensor(
        [[math.sqrt((1 if k == 0 else 2) / 8) * math.cos((2 * i + 1) * k * math.pi / 16) for i in range(8)]
         for k in range(8)], dtype=torch.float64
    )  # fmt: skip


@pytest.mark.parametrize("quality", [1, 10, 30, 50, 70, 90, 100])
def test_tables_are_those_that_pil_writes_into_a_file(quality: int) -> None:
    written = encoded(torch.zeros((3, 16, 16), dtype=torch.uint8), quality).quantization
    for chroma in (False, True):
        table = quantisation_table(quality, chroma)
        assert table.shape == (8, 8)
        assert table.flatten().tolist() == list(written[int(chroma)])


@pytest.mark.parametrize("quality", QUALITIES)
def test_it_leaves_what_pil_leaves(quality: int) -> None:
    """Measured. libjpeg rounds within its DCT too, to about 0.05 of a level, and a coefficient so near to half a step
    goes the other way: that moves all 64 pixels of a block, by up to Q/4. The finer the step, the more are so near."""
    sets = {
        "grey": mi.load("fashion-mnist-mini", device="cpu")[0].floats(slice(0, 100)),
        "colour": smooth(3, 37, 51),
        "small": smooth(3, 32, 32),
    }
    for name, pictures in sets.items():
        real = by_pil(pictures, quality)
        differ = (255 * compressed(pictures, quality) - real).abs()
        assert (differ < 1.5).double().mean() > (0.98 if name == "grey" else 0.95), name
        lost = (real - 255 * pictures).abs().mean()
        assert differ.mean() < 0.06 * lost, name


@pytest.mark.parametrize("quality", [1, 10, 30, 50, 75, 90, 95])
def test_of_even_pictures_nothing_differs(quality: int) -> None:
    """Z₀₀ = 8 (v − 128) is exact, here and there, and every other coefficient is 0: what is left is how ties round."""
    every = torch.arange(256) / 255
    even = every[:, None, None, None].expand(256, 1, 9, 11)
    assert torch.equal(compressed(even, quality) * 255, by_pil(even, quality))


def test_of_two_columns_chroma_is_not_smoothed() -> None:
    pictures = torch.rand((50, 3, 4, 3), generator=torch.Generator().manual_seed(0))
    differ = (255 * compressed(pictures, 95) - by_pil(pictures, 95)).abs()
    assert differ.mean() < 0.5  # smoothed, chroma that is random would differ by tens


def test_the_values_are_levels_and_no_pixel_leaves_the_range() -> None:
    pictures = torch.rand((20, 3, 20, 12), generator=torch.Generator().manual_seed(0)).round()
    left = compressed(pictures, 10)
    assert left.shape == pictures.shape
    assert left.min() == 0
    assert left.max() == 1
    levels = (255 * left).round().to(torch.uint8)
    assert torch.equal(left, mi.ImageSet(levels, torch.zeros(20, dtype=torch.int64)).floats())


def test_coefficients_are_those_of_an_orthonormal_transform() -> None:
    pictures = torch.rand((6, 1, 16, 24), generator=torch.Generator().manual_seed(0))
    z = coefficients(pictures)
    assert z.shape == (6, 1, 2, 3, 8, 8)
    levels = (255 * pictures).round().double() - 128
    blocks = levels.reshape(6, 1, 2, 8, 3, 8).transpose(3, 4)
    # A sum of 64 products of levels up to 128: float32 loses at most 64 · 2⁻²⁴ · Σ|D ⊗ D| · 128 ≤ 64 · 2⁻²⁴ · 8 · 128.
    most = 64 * 2**-24 * 8 * 128
    torch.testing.assert_close(z.double(), dct() @ blocks @ dct().T, rtol=0, atol=most)
    torch.testing.assert_close(dct().T @ z.double() @ dct(), blocks, rtol=0, atol=8 * most)  # ‖D ⊗ D‖∞ ≤ 8
    even = torch.full((1, 1, 8, 8), 130 / 255)
    assert coefficients(even)[0, 0, 0, 0, 0, 0] == 16  # 8 · (130 − 128)


def test_chroma_has_half_the_blocks_in_each_direction() -> None:
    pictures = smooth(3, 28, 40, n=3)
    assert coefficients(pictures).shape == (3, 1, 4, 5, 8, 8)
    assert coefficients(pictures, chroma=True).shape == (3, 2, 2, 3, 8, 8)
    grey = pictures[:, :1].expand(-1, 3, -1, -1)
    assert not coefficients(grey, chroma=True).any()
    assert torch.equal(coefficients(grey), coefficients(pictures[:, :1]))


def test_a_noise_below_half_a_step_is_gone_and_above_it_is_not() -> None:
    """One cosine, of the lowest horizontal frequency, around grey: its coefficient is the amplitude times √32."""
    wave = dct()[1].float() / dct()[1].max().float()
    step = float(quantisation_table(10)[0, 1])
    for amplitude in (3.0, 4.0, 6.0, 8.0):
        picture = ((128 + (amplitude * wave).round()) / 255).expand(1, 1, 8, 8)
        z = float(coefficients(picture)[0, 0, 0, 0, 0, 1])
        left = 255 * compressed(picture, 10)
        assert bool((left == 128).all()) == (z < step / 2), amplitude
    assert 3 * math.sqrt(32) < step / 2 < 6 * math.sqrt(32), "both happened"


def explicit(pictures: torch.Tensor, quality: int) -> torch.Tensor:
    """JPEG in double precision, step by step; without rounding to levels, and straight through that of coefficients."""

    def lossy(plane: torch.Tensor, chroma: bool) -> torch.Tensor:
        height, width = plane.shape[2:]
        padded = F.pad(plane, (0, -width % 8, 0, -height % 8), mode="replicate")
        blocks = padded.unfold(2, 8, 8).unfold(3, 8, 8)
        table = quantisation_table(quality, chroma)
        scaled = dct() @ blocks @ dct().T / table
        rounded = scaled + (scaled.round() - scaled).detach()
        back = dct().T @ (rounded * table) @ dct()
        return back.transpose(3, 4).reshape(padded.shape)[..., :height, :width]

    levels = 255 * pictures
    if pictures.shape[1] == 1:
        return (lossy(levels - 128, False) + 128).clamp(0, 255) / 255
    red, green, blue = levels.split(1, 1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.cat(((blue - luma) / 1.772, (red - luma) / 1.402), 1)
    height, width = pictures.shape[2:]
    even = F.pad(chroma, (0, width % 2, 0, height % 2), mode="replicate")
    halved = even.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    doubled = F.interpolate(lossy(halved, True), scale_factor=2, mode="bilinear", align_corners=False)
    cb, cr = doubled[..., :height, :width].split(1, 1)
    luma = lossy(luma - 128, False) + 128
    red, blue = luma + 1.402 * cr, luma + 1.772 * cb
    return torch.cat((red, (luma - 0.299 * red - 0.114 * blue) / 0.587, blue), 1).clamp(0, 255) / 255


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 9, 13), (3, 32, 32), (3, 21, 15)])
def test_the_gradient_is_that_of_straight_through_rounding(shape: tuple[int, int, int]) -> None:
    pictures = smooth(*shape, n=4) * 0.5 + 0.25  # no level near a limit
    weights = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    pictures.requires_grad_(True)
    (given,) = torch.autograd.grad((weights * compressed(pictures, 70)).sum(), pictures)
    exact = pictures.detach().double().requires_grad_(True)
    (wanted,) = torch.autograd.grad((weights * explicit(exact, 70)).sum(), exact)
    # Sums of a few dozen products of numbers up to about 5, in float32: 50 · 5 · 2⁻²⁴.
    torch.testing.assert_close(given.double(), wanted, rtol=0, atol=2e-5)
    if shape[0] == 1:
        assert torch.equal(given, weights), "for a grey picture it is the identity's"


def test_what_a_limit_cuts_off_has_a_gradient_all_the_same() -> None:
    """At quality 10 black becomes −2 and is cut off: noise on it would never start if that stopped the gradient."""
    black = torch.zeros((1, 1, 8, 8), requires_grad=True)
    left = compressed(black, 10)
    assert not left.any()
    assert explicit(black.detach().double() + 2 / 255, 10).max() == 0, "still cut off two levels higher"
    (gradient,) = torch.autograd.grad(left.sum(), black)
    assert (gradient == 1).all()


def test_autocast_and_gradient_mode_change_nothing() -> None:
    pictures = smooth(3, 24, 24, n=3)
    alone = compressed(pictures, 50)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compressed(pictures, 50), alone)
        assert torch.equal(coefficients(pictures), coefficients(pictures.clone()))
    assert torch.equal(compressed(pictures.clone().requires_grad_(True), 50), alone)
    assert torch.is_grad_enabled()
    assert compressed(pictures[:0], 50).shape == (0, 3, 24, 24)


def test_bad_input_is_refused() -> None:
    pictures = torch.rand((2, 1, 8, 8))
    for quality in (0, 101, 50.0, True):
        with pytest.raises(ValueError, match=r"quality: got .*, expected a whole number from 1 to 100"):
            compressed(pictures, quality)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"quality: got .*, expected a whole number from 1 to 100"):
            quantisation_table(quality)  # type: ignore[arg-type]
    for wrong in (pictures[0], torch.rand(2, 2, 8, 8), torch.rand(2, 1, 0, 8)):
        with pytest.raises(ValueError, match=r"pictures: got shape .*, expected \(n, C, H, W\) with C = 1 or 3"):
            compressed(wrong, 50)
    for unit in (pictures.double(), torch.zeros((2, 1, 8, 8), dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"pictures: got dtype .*, expected float32 with values in \[0, 1\]"):
            coefficients(unit)
    with pytest.raises(ValueError, match="chroma: got True, expected False for grey pictures"):
        coefficients(pictures, chroma=True)
    with pytest.raises(ValueError, match="chroma: got 1, expected True or False"):
        quantisation_table(50, 1)  # type: ignore[arg-type]
