"""The step on the noise: equal to its formula on every path, to the last bit, and within its budget."""

import pytest
import torch

from miue_lib.kernels import noise_step as kernel
from miue_lib.kernels.noise_step import noise_step

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SHAPES = [(4, 1, 28, 28), (2, 3, 9, 14), (1, 1, 1, 1)]
STEP, EPSILON = 1.6 / 255, 8 / 255


def sample(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float32, epsilon: float = EPSILON
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise that is a little beyond the budget and the frame here and there, pictures, and a gradient with zeros."""
    generator = torch.Generator().manual_seed(0)
    delta = epsilon * (2.4 * torch.rand(shape, generator=generator) - 1.2)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    images[torch.rand(shape, generator=generator) < 0.3] = 0
    images[torch.rand(shape, generator=generator) < 0.3] = 255
    gradient = torch.randn(shape, generator=generator)
    gradient[torch.rand(shape, generator=generator) < 0.2] = 0
    return delta, images, gradient.to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_paths_agree(shape: tuple[int, ...], dtype: torch.dtype, gpu: torch.device) -> None:
    delta, images, gradient = sample(shape, dtype)
    expected = kernel.reference(delta, images, gradient, STEP, EPSILON)
    on_cpu, on_gpu = delta.clone(), delta.clone().to(gpu)
    noise_step(on_cpu, images, gradient, step=STEP, epsilon=EPSILON)
    kernel._cuda(on_gpu, images.to(gpu), gradient.to(gpu), STEP, EPSILON)
    assert torch.equal(on_cpu, expected) and torch.equal(on_gpu.cpu(), expected)


def test_equals_the_formula_pixel_by_pixel() -> None:
    delta, images, gradient = sample((2, 3, 9, 14))
    wanted = []
    for d, u, g in zip(*(part.flatten().tolist() for part in (delta, images, gradient)), strict=True):
        x = u / 255
        moved = min(max(d - STEP * ((g > 0) - (g < 0)), -EPSILON), EPSILON)
        wanted.append(min(max(x + moved, 0), 1) - x)
    noise_step(delta, images, gradient, step=STEP, epsilon=EPSILON)
    # Rounded to float32: x (which counts twice), the sum and the difference by 2⁻²⁵ at most, δ, α and ε by far less.
    assert float((delta.double().flatten() - torch.tensor(wanted, dtype=torch.float64)).abs().max()) < 5 * 2**-25


@pytest.mark.parametrize("epsilon", [8 / 255, 0.03, 1 / 255, 1.0])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_budget_and_range_hold_for_every_byte(epsilon: float, sign: float) -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    delta = torch.zeros(images.shape)
    for _ in range(3):
        noise_step(delta, images, torch.full(images.shape, -sign), step=epsilon / 2, epsilon=epsilon)
        noisy = kernel.pixel_values(images) + delta
        assert float(noisy.min()) >= 0 and float(noisy.max()) <= 1
        limit = float(torch.tensor(epsilon)) + 2**-24
        assert float(delta.double().abs().max()) <= limit
    # And the budget is used up, where the picture has room for it.
    room = torch.tensor(epsilon).minimum(1 - noisy.sub(delta) if sign > 0 else noisy.sub(delta))
    assert float((sign * delta - room).abs().max()) <= 2**-23


def test_not_a_number_leaves_the_noise_alone(gpu: torch.device) -> None:
    delta, images, _ = sample((2, 1, 4, 5))
    zero, unknown = torch.zeros(images.shape), torch.full(images.shape, torch.nan)
    expected = kernel.reference(delta, images, zero, STEP, EPSILON)
    assert torch.equal(kernel.reference(delta, images, unknown, STEP, EPSILON), expected)
    on_gpu = delta.to(gpu, copy=True)
    kernel._cuda(on_gpu, images.to(gpu), unknown.to(gpu), STEP, EPSILON)
    noise_step(delta, images, unknown, step=STEP, epsilon=EPSILON)
    assert torch.equal(delta, expected) and torch.equal(on_gpu.cpu(), expected)


def test_gradients_of_any_strides(gpu: torch.device) -> None:
    delta, images, gradient = sample((3, 3, 6, 7))
    expected = kernel.reference(delta, images, gradient, STEP, EPSILON)
    last = gradient.contiguous(memory_format=torch.channels_last)
    wide = torch.nn.functional.pad(gradient, (1, 2))[:, :, :, 1:-2]
    for strided in (last, wide):
        on_cpu, on_gpu = delta.clone(), delta.to(gpu, copy=True)
        noise_step(on_cpu, images, strided, step=STEP, epsilon=EPSILON)
        kernel._cuda(on_gpu, images.to(gpu), strided.to(gpu), STEP, EPSILON)
        assert torch.equal(on_cpu, expected) and torch.equal(on_gpu.cpu(), expected)


def test_threads_share_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    delta, images, gradient = sample((3, 3, 6, 7))
    expected = kernel.reference(delta, images, gradient, STEP, EPSILON)
    for threads in (2, 3, 8):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        moved = delta.clone()
        noise_step(moved, images, gradient, step=STEP, epsilon=EPSILON)
        assert torch.equal(moved, expected)


def test_autograd_notices_the_change() -> None:
    delta, images, gradient = sample((1, 1, 4, 5))
    weight = torch.ones((), requires_grad=True)
    product = (weight * delta).sum()  # keeps δ for the derivative in the weight
    noise_step(delta, images, gradient, step=STEP, epsilon=EPSILON)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_bad_input_is_refused() -> None:
    delta, images, gradient = sample((4, 3, 5, 6))
    for arguments, message in (
        ((delta.double(), images, gradient), r"delta: got torch.float64 .*, expected contiguous float32"),
        ((delta.permute(0, 2, 3, 1), images, gradient), r"delta: got torch.float32 with strides \(90, 6, 1, 30\), exp"),
        ((delta, images.float(), gradient), r"images: got shape \(4, 3, 5, 6\) torch.float32, expected uint8 of"),
        ((delta, images[1:], gradient), r"images: got shape \(3, 3, 5, 6\) torch.uint8, expected uint8 of shape \(4,"),
        (
            (delta, images, gradient.long()),
            r"gradient: got shape \(4, 3, 5, 6\) torch.int64, expected float32, float16",
        ),
        ((delta, images, gradient[0]), r"gradient: got shape \(3, 5, 6\) torch.float32, expected float32, float16 or"),
    ):
        with pytest.raises(ValueError, match=message):
            noise_step(*arguments, step=STEP, epsilon=EPSILON)
