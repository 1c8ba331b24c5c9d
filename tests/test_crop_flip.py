"""Random crop and flip: equal to doing it picture by picture on every path, and its adjoint is one."""

import pytest
import torch
from torch.nn import functional as F

from miue_lib.kernels import crop_flip as kernel
from miue_lib.kernels.crop_flip import View, pixel_values

SHAPES = [(7, 1, 28, 28), (5, 3, 9, 14), (2, 2, 33, 40), (1, 1, 1, 1)]  # one of more pixels than a block of the GPU's
DTYPES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def by_hand(images: torch.Tensor, view: View) -> torch.Tensor:
    _, _, height, width = images.shape
    padded = F.pad(images, (view.pad,) * 4)
    out = []
    for picture, dy, dx, flip in zip(padded, view.dy, view.dx, view.flip, strict=True):
        crop = picture[:, dy : dy + height, dx : dx + width]
        out.append(crop.flip(2) if flip else crop)
    return torch.stack(out)


def sample(shape: tuple[int, ...], pad: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, View]:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, shape, generator=generator).to(dtype)
    return pictures, View.random(shape[0], pad, True, generator)


def there(view: View, device: torch.device) -> View:
    return View(view.dy.to(device), view.dx.to(device), view.flip.to(device), view.pad)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pad", [0, 1, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_equals_the_plain_way(shape: tuple[int, ...], pad: int, dtype: torch.dtype) -> None:
    images, view = sample(shape, pad, dtype)
    assert torch.equal(view(images), by_hand(images, view))


# Each dtype's size and each layout is compiled anew: not every pair of them.
@pytest.mark.parametrize(("dtype", "layout"), [*((dtype, LAYOUTS[0]) for dtype in DTYPES), (torch.float32, LAYOUTS[1])])
@pytest.mark.parametrize("transposed", [False, True])
def test_paths_agree(dtype: torch.dtype, layout: torch.memory_format, transposed: bool, gpu: torch.device) -> None:
    for shape, pad in zip(SHAPES, (4, 1, 50, 3), strict=True):  # 50: some pictures leave their frame altogether
        images, view = sample(shape, pad, dtype)
        images = images.contiguous(memory_format=layout)
        expected = kernel.reference(images, None, view, transposed)
        found = kernel._cpu(images, None, view, transposed)
        on_gpu = kernel._cuda(images.to(gpu), None, there(view, gpu), transposed)
        assert expected.dtype == found.dtype == on_gpu.dtype == dtype
        assert torch.equal(found, expected) and torch.equal(on_gpu.cpu(), expected)
        written = torch.contiguous_format if transposed else torch.channels_last
        assert all(result.is_contiguous(memory_format=written) for result in (expected, found, on_gpu))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_noisy_paths_agree(layout: torch.memory_format, gpu: torch.device) -> None:
    for shape, pad in zip(SHAPES, (4, 1, 50, 3), strict=True):
        images, view = sample(shape, pad, torch.uint8)
        delta = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=layout)
        expected = by_hand(images.float() / 255 + delta, view)
        found = view.noisy(images, delta)
        on_gpu = kernel._cuda(delta.to(gpu), images.to(gpu), there(view, gpu), transposed=False)
        assert torch.equal(found, expected) and torch.equal(on_gpu.cpu(), expected)
        assert torch.equal(kernel.reference(delta, images, view, transposed=False), expected)
        assert all(result.is_contiguous(memory_format=torch.channels_last) for result in (found, on_gpu))


def test_pixel_values_are_the_float32_numbers_nearest_to_the_quotients() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    values = pixel_values(levels)

    def off(x: torch.Tensor) -> torch.Tensor:
        return (x.double() * 255 - levels).abs()  # without rounding: 24 bits times 8 bits

    for side in (-1.0, 2.0):
        assert bool((off(values) <= off(values.nextafter(torch.tensor(side)))).all())


@pytest.mark.parametrize("layout", ["cut out", "pictures last"])
def test_any_strides(layout: str, gpu: torch.device) -> None:
    images, view = sample((4, 3, 6, 10), 2)
    strided = {
        "cut out": torch.nn.functional.pad(images, (1, 2, 3, 4))[:, :, 3:-4, 1:-2],
        "pictures last": images.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    }[layout]
    assert not strided.is_contiguous()
    assert torch.equal(view(strided), view(images))
    assert torch.equal(view.noisy(images.byte(), strided), view.noisy(images.byte(), images))
    assert torch.equal(kernel._cuda(strided.to(gpu), None, there(view, gpu), False).cpu(), view(images))


def test_threads_share_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    images, view = sample((5, 3, 9, 14), 2)
    delta = images / 1000
    expected = view(images), view.noisy(images.byte(), delta)
    for threads in (2, 3, 8):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert torch.equal(view(images), expected[0])
        assert torch.equal(view.noisy(images.byte(), delta), expected[1])


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
    assert torch.autograd.gradgradcheck(view, (images,))


def test_the_adjoint_has_the_same_inner_products() -> None:
    """⟨V x, y⟩ = ⟨x, Vᵀ y⟩ without any rounding: of whole numbers, whose products float64 adds exactly."""
    x, view = sample((6, 3, 12, 11), 3, torch.float64)
    y = x.flip(0, 2) - 100
    assert float((view(x) * y).sum()) == float((x * view.adjoint(y)).sum())
    assert torch.equal(view(view.adjoint(view(x))), view(x))  # what stays has only been moved


def test_noisy_passes_gradients_to_the_noise() -> None:
    images, view = sample((3, 3, 6, 7), 2, torch.uint8)
    delta = torch.zeros(images.shape, requires_grad=True)
    upstream = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    (ours,) = torch.autograd.grad(view.noisy(images, delta), delta, upstream)
    assert torch.equal(ours, view.adjoint(upstream))


def test_new_tensors_are_made_on_the_cpu_whatever_the_default() -> None:
    images, view = sample((3, 1, 5, 6), 2, torch.uint8)
    with torch.device("meta"):
        seen = view.noisy(images, images / 1000)
        assert seen.is_cpu and pixel_values(images).is_cpu and view(images).is_cpu


def test_an_empty_batch_has_an_empty_view() -> None:
    images, view = sample((0, 3, 5, 6), 2)
    assert view(images).shape == view.adjoint(images).shape == (0, 3, 5, 6)


def test_bad_input_is_refused() -> None:
    images, view = sample((4, 1, 5, 6), 2, torch.uint8)
    with pytest.raises(ValueError, match=r"images: got shape \(3, 1, 5, 6\), expected \(4, C, H, W\): a picture for"):
        view(images[1:])
    with pytest.raises(ValueError, match=r"gradient: got shape \(4, 5, 6\), expected \(4, C, H, W\)"):
        view.adjoint(images[:, 0])
    with pytest.raises(ValueError, match=r"images: got shape \(4, 1, 5, 6\) torch.float32, expected uint8 of shape"):
        view.noisy(images.float(), images.float())
    with pytest.raises(ValueError, match=r"delta: got dtype torch.float64, expected float32"):
        view.noisy(images, images.double())


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


def test_random_numbers_are_drawn_in_the_order_that_recorded_results_depend_on() -> None:
    ours, plain = (torch.Generator().manual_seed(7) for _ in range(2))
    for flip in (True, False):  # without flips, too, a coin is tossed for each picture
        view = View.random(11, 3, flip, ours)
        offsets, coins = torch.randint(0, 7, (2, 11), generator=plain), torch.rand(11, generator=plain)
        assert torch.equal(torch.stack((view.dy, view.dx)), offsets)
        assert torch.equal(view.flip, (coins < 0.5) & flip)
