"""Neighbours and counts: the fast paths equal brute force to the last bit."""

import pytest
import torch

from miue_lib.kernels import ksg

KINDS = ("gaussian", "whole numbers", "relu", "cauchy", "same")


def sample(kind, n, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a, noise, c, d = torch.randn(4, n, generator=generator, dtype=torch.float64)
    b = 0.6 * a + 0.8 * noise
    x, y = {
        "gaussian": (a, b),
        "whole numbers": ((3 * a).round(), (3 * b).round()),
        "relu": (a.relu(), b.relu()),
        "cauchy": (a / c, b / d),
        "same": (a, a.clone()),
    }[kind]
    return x[None].to(dtype), y[None].to(dtype)


def definition(x, y, k):
    """Brute force, as one would write it on a blackboard."""
    apart_x, apart_y = (x[:, None] - x[None, :]).abs(), (y[:, None] - y[None, :]).abs()
    apart = torch.maximum(apart_x, apart_y)
    eps = torch.tensor([sorted(row[:i] + row[i + 1 :])[k - 1] for i, row in enumerate(apart.tolist())], dtype=x.dtype)
    counts = [((side < eps[:, None]) & ~torch.eye(len(x), dtype=torch.bool)).sum(1) for side in (apart_x, apart_y)]
    return eps, *counts


def assert_equal(found, expected):
    for name, a, b in zip(("eps", "n_x", "n_y"), found, expected, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b), name


@pytest.mark.parametrize("kind", KINDS)
def test_reference_is_the_definition(kind):
    x, y = sample(kind, 200)
    assert_equal([part[0] for part in ksg.reference(x, y, 3)], definition(x[0], y[0], 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", ["k+1", 257, 4000])
@pytest.mark.parametrize("kind", KINDS)
def test_cpu_equals_brute_force(kind, n, dtype):
    for k in (1, 3, 10) if n != 4000 else (3,):
        x, y = sample(kind, k + 1 if n == "k+1" else n, dtype)
        assert_equal(ksg._cpu(x, y, k), ksg.reference(x, y, k))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", ["k+1", 257, 4000])
@pytest.mark.parametrize("kind", KINDS)
def test_triton_equals_brute_force(kind, n, dtype, gpu):
    for k in (1, 6) if n != 4000 else (3,):
        x, y = (part.to(gpu) for part in sample(kind, k + 1 if n == "k+1" else n, dtype))
        assert_equal(ksg._cuda(x, y, k, block=2048 if n == 4000 else 256), ksg.reference(x, y, k))


def test_triton_takes_slices_stored_as_columns(gpu):
    x, y = torch.randn(2, 257, 3, generator=torch.Generator().manual_seed(0)).to(gpu)
    assert_equal(ksg._cuda(x.T, y.T, 3, block=256), ksg.reference(x.T, y.T, 3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("k", [256, 257, 1100])
def test_many_neighbours_on_a_gpu(k):
    x, y = (part.cuda() for part in sample("gaussian", 2000, torch.float32))
    assert_equal(ksg.neighbours(x, y, k), ksg.reference(x, y, k))


def test_a_long_tie_is_sorted_by_y():
    # Three quarters of x are 0: many strips of one tie, on both sides of a point.
    x, y = sample("gaussian", 3000)
    x = (x - 0.67).relu()
    assert_equal(ksg._cpu(x, y, 3), ksg.reference(x, y, 3))


def test_extreme_scales():
    x, y = sample("gaussian", 500)
    for a, b in ((1e-300, 1.0), (1e300, 1e300), (1.0, 1e-12)):
        assert_equal(ksg._cpu(a * x, b * y, 3), ksg.reference(a * x, b * y, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extents_that_overflow_or_underflow(dtype):
    tiny, huge = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps, 0.9 * torch.finfo(dtype).max
    steps = torch.randint(0, 50, (1, 200), generator=torch.Generator().manual_seed(0)).to(dtype)
    spread = torch.tensor([[-1.0, 1, -0.6, 0.6, 0.3, -0.3]], dtype=dtype) * huge
    for x in (steps * tiny, spread):
        assert_equal(ksg._cpu(x, x.flip(1), 2), ksg.reference(x, x.flip(1), 2))


def test_slices_are_independent():
    pairs = [sample(kind, 500, seed=i) for i, kind in enumerate(("gaussian", "cauchy", "relu"))]
    x, y = (torch.cat(sides) for sides in zip(*pairs, strict=True))
    for s, (u, v) in enumerate(pairs):
        assert_equal([part[s : s + 1] for part in ksg.neighbours(x, y, 3)], ksg.neighbours(u, v, 3))


@pytest.mark.parametrize(("d_x", "d_y"), [(1, 2), (3, 1), (5, 4)])
def test_vectors_equal_brute_force(d_x, d_y):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 300, d_x, generator=generator)
    y = torch.randn(2, 300, d_y, generator=generator) + x[:, :, :1]
    for u, v in ((x, y), (x.round(), y.round()), (x.relu(), y.relu())):
        for k in (1, 4):
            assert_equal(ksg.neighbours(u, v, k), ksg.reference(u, v, k))


def test_vectors_of_one_coordinate_are_scalars():
    x, y = sample("gaussian", 300)
    assert_equal(ksg.neighbours(x[:, :, None], y[:, :, None], 3), ksg.neighbours(x, y, 3))


def test_inputs_are_left_alone_whatever_their_strides():
    x, y = sample("gaussian", 300)
    wide = torch.stack((x[0], y[0]), 1)
    before = wide.clone()
    assert_equal(ksg.neighbours(wide[:, :1].T, wide[:, 1:].T, 3), ksg.reference(x, y, 3))
    assert torch.equal(wide, before)
