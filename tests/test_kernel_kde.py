"""Binned leave-one-out kernel sums, against the sums themselves."""

import math

import pytest
import torch

from miue_lib.kernels import kde as kernel


def points(n, d, dtype=torch.float64, m=2):
    h = n ** (-1 / 6)
    return torch.randn(m, n, d, generator=torch.Generator().manual_seed(0), dtype=dtype) / h, h


def test_reference_is_the_definition():
    t, _ = points(100, 3)
    for s, (sums, squares) in enumerate(zip(*kernel.reference(t), strict=True)):
        values = torch.exp(-(torch.cdist(t[s], t[s]) ** 2) / 2).fill_diagonal_(0)
        assert torch.allclose(sums, values.sum(1), rtol=1e-10)
        assert torch.allclose(squares, (values**2).sum(1), rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize(("grid", "tolerance"), [(256, 5e-4), (512, 1.5e-4)])
def test_binned_equals_exact(grid, tolerance, d, dtype):
    t, h = points(3000, d, dtype)
    spacing = 12 / (h * (grid - 1))
    for binned, exact in zip(kernel.kernel_sums(t, grid, spacing), kernel.reference(t.double()), strict=True):
        # what enters an estimate: the mean logarithm, isolated points floored
        logs = [part.double().clamp_min(0.1).log().mean(1) for part in (binned, exact)]
        assert (logs[0] - logs[1]).abs().max() <= tolerance


@pytest.mark.parametrize("r", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("spacing", [0.2, 0.4])
def test_binning_does_not_widen_the_kernel(spacing, r):
    # Two points at distance r, anywhere on the grid. Plain binning would be off by δ²/6 on average at r = 0.
    m = 4000
    first = spacing * torch.rand(m, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = kernel.kernel_sums(torch.cat((first, first + r), 1), 33, spacing)
    for sums, exact in zip(found, (math.exp(-(r**2) / 2), math.exp(-(r**2))), strict=True):
        standard_error = sums[:, 0].std() / math.sqrt(m)
        # Fourth order: the triangles' excess kurtosis δ⁴/30 times a fourth derivative, at most 12, over 24.
        assert abs(sums[:, 0].mean() - exact) <= spacing**4 / 60 + 4 * standard_error


def test_points_beyond_the_grid_are_alone():
    t = torch.tensor([[[0.0, 0.0], [0.1, 0.0], [99.0, 0.0]]])
    sums, squares = kernel.kernel_sums(t, 65, 0.1)
    assert sums[0, 2] == 0 and squares[0, 2] == 0
    assert sums[0, 0].item() == pytest.approx(math.exp(-0.005), abs=0.1**2 / 2)


@pytest.mark.parametrize("d", [1, 2])
def test_triton_equals_the_cpu(d, gpu):
    t, h = points(1025, d, torch.float32)
    grid, spacing = 64, 12 / (h * 63)
    shape = (len(t), grid, grid if d == 2 else 1)
    table, on_gpu = torch.zeros(shape), torch.zeros(shape, device=gpu)
    kernel._spread_cpu(t, table, spacing)
    kernel._spread_cuda(t.to(gpu), on_gpu, spacing, block=512)
    # A cell adds up to n weights ≤ 1, each off by a few roundings of a coordinate of size `grid`.
    rounding = grid * torch.finfo(torch.float32).eps
    assert (table - on_gpu.cpu()).abs().max() <= 4 * rounding * table.max()
    sums = kernel._read_cpu(t, table, spacing, 1.0, 0.9)
    read = kernel._read_cuda(t.to(gpu), table.to(gpu), spacing, 1.0, 0.9, block=512)
    assert (sums - read.cpu()).abs().max() <= 4 * rounding * table.max()


def test_new_tensors_are_made_on_the_cpu_whatever_the_default():
    t, _ = points(50, 2)
    expected = kernel.kernel_sums(t, 64, 0.3)
    with torch.device("meta"):
        found = kernel.kernel_sums(t, 64, 0.3)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_swapping_and_mirroring_change_nothing():
    t, _ = points(500, 2)
    sums = kernel.kernel_sums(t, 128, 0.3)[0]
    assert torch.allclose(kernel.kernel_sums(t.flip(2), 128, 0.3)[0], sums, rtol=1e-12)
    assert torch.allclose(kernel.kernel_sums(t * torch.tensor([1, -1]), 128, 0.3)[0], sums, rtol=1e-9, atol=1e-9)
