"""The 2-D histogram and its edges."""

import numpy as np
import pytest
import torch

from miue_lib.kernels import histogram as kernel


def sample(m=3, n=1000, bins=(9, 6), dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, m, n, generator=generator, dtype=dtype)
    edges = [torch.randn(m, b - 1, generator=generator, dtype=dtype).sort(1).values for b in bins]
    return x, y, *edges


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "bins"), [(1, (2, 2)), (1025, (9, 6)), (3001, (33, 64))])
def test_paths_agree(n, bins, dtype, gpu):
    arguments = sample(3, n, bins, dtype)
    expected = kernel.reference(*arguments)
    assert expected.shape == (3, *bins) and expected.dtype == torch.int64
    assert torch.equal(kernel._cpu(*arguments), expected)
    found = kernel._cuda(*(part.to(gpu) for part in arguments), block=512)
    assert torch.equal(found.cpu(), expected)


def test_reference_against_numpy():
    x, y, edges_x, edges_y = sample()
    for s in range(len(x)):
        bounds = [np.concatenate(([-np.inf], edges[s].numpy(), [np.inf])) for edges in (edges_x, edges_y)]
        # numpy compares with its edges as we do: a value equal to an edge is to its right
        expected = np.histogram2d(x[s].numpy(), y[s].numpy(), bins=[np.clip(b, -1e9, 1e9) for b in bounds])[0]
        assert np.array_equal(kernel.reference(x, y, edges_x, edges_y)[s].numpy(), expected)


def test_a_value_on_an_edge_lies_to_its_right():
    x = torch.tensor([[-1.0, 0.0, 1.0, 2.0]])
    edges = torch.tensor([[0.0, 2.0]])
    expected = torch.tensor([[[1, 0, 0], [0, 2, 0], [0, 0, 1]]])
    for path in (kernel._cpu, kernel.reference):
        assert torch.equal(path(x, x, edges, edges), expected)


@pytest.mark.parametrize("n", [7, 64, 1000])
def test_quantile_edges_share_distinct_values_out_evenly(n):
    x = torch.randperm(n, generator=torch.Generator().manual_seed(0)).double()[None]
    bins = 5
    edges = kernel.quantile_edges(x, bins)
    counts = kernel.histogram2d(x, x, edges, edges)[0].diagonal()
    assert counts.tolist() == torch.bincount(torch.arange(n) * bins // n).tolist()  # bin ⌊rank · B / n⌋


@pytest.mark.parametrize("rare", [1.0, -1.0])
def test_a_rare_value_beside_a_common_one_keeps_its_bin(rare):
    x = torch.tensor([[0.0] * 97 + [rare] * 3])
    edges = kernel.quantile_edges(x, 32)
    table = kernel.histogram2d(x, x, edges, edges)[0]
    assert sorted(table[table > 0].tolist()) == [3, 97]


@pytest.mark.parametrize(
    ("atoms", "bins"),
    [
        ([60, 40], 2),
        ([40, 60], 2),
        ([45, 40, 15], 3),
        ([30, 40, 30], 3),
        ([20, 40, 40], 3),
        ([10, 80, 10], 4),
        ([3, 94, 3], 32),
    ],
)
def test_no_atom_is_thrown_in_with_what_lies_beside_it(atoms, bins):
    x = torch.arange(len(atoms)).repeat_interleave(torch.tensor(atoms)).double()[None]
    edges = kernel.quantile_edges(x, bins)
    table = kernel.histogram2d(x, x, edges, edges)[0]
    assert table[table > 0].tolist() == atoms


@pytest.mark.parametrize("bins", [2, 3, 7, 32])
def test_edges_ascend_whatever_repeats(bins):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(200, 50, generator=generator) * 5 * torch.rand(200, 1, generator=generator)).round()
    edges = kernel.quantile_edges(x, bins)
    assert bool((edges[:, 1:] >= edges[:, :-1]).all())
    # Each edge parts something.
    varies = x.amin(1) < x.amax(1)
    assert bool(((edges > x.amin(1, keepdim=True)) & (edges <= x.amax(1, keepdim=True)))[varies].all())


def test_new_tensors_are_made_on_the_cpu_whatever_the_default():
    arguments = sample()
    with torch.device("meta"):
        counts = kernel.histogram2d(*arguments)
        assert counts.is_cpu and kernel.quantile_edges(arguments[0], 8).is_cpu
    assert torch.equal(counts, kernel.reference(*arguments))


def test_equal_values_share_a_bin():
    x = torch.tensor([[0.0] * 70 + list(range(1, 31))])
    edges = kernel.quantile_edges(x, 10)
    table = kernel.histogram2d(x, x, edges, edges)[0]
    assert 70 in table.diagonal().tolist()
    assert torch.equal(table, table.diagonal().diag())
