"""Speed, memory and error of the estimators of mutual information, beside those of other packages, in one run.

    python benchmarks/mi.py            # everything: some ten minutes on two cores
    python benchmarks/mi.py --quick    # small sizes: some 25 seconds

Time is milliseconds a slice (a pair of scalar variables) with the given cores busy: the library takes a batch of
slices, a thread each; scikit-learn takes a slice a process; the others take one slice with as many threads as they
know how to use. Contenders take turns, round after round, so that whatever else the machine does hits all alike, and
"÷ ours" is a contender's time over that of its group's first row in the same round. A contender that needs more than
twenty seconds runs once.

Memory is the peak of resident memory during a run over what was resident before it, in a fresh process for each
contender, for as many slices as it holds at once. Error is |estimate − truth| in nats for one Gaussian pair with
ρ = 0.6, the same for all; it includes what chance gives to that sample.

Peers that are not installed are left out. npeet-plus is used here alone: `pip install npeet-plus`, and
`pip install scikit-learn scipy` for the others. Nothing here passes or fails: see tests/ for that. Let nothing else
run: threads of torch wait for each other by spinning, and one busy core makes ours many times slower.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from _timing import (
    GPU_REPEATS,
    SHORTEST,
    SLOW,
    copy_bandwidth,
    gpu_name,
    gpu_seconds,
    matmul_rate,
    peak_megabytes,
    report_load,
    report_machine,
    restart_peak,
    spread,
    timed,
)
from torch import Tensor

from miue_lib import mi
from miue_lib.kernels.histogram import histogram2d, quantile_edges
from miue_lib.kernels.kde import reference as exact_kernel_sums
from miue_lib.theory import gaussian_mi

RHO, K, BINS = 0.6, 3, 32
BATCH = 8  # slices that the library takes at once
SEVERAL = "scikit-learn, {} processes"
PEERS = {"sklearn": "scikit-learn", "scipy": "scipy", "npeet_plus": "npeet-plus"}  # module: package


@cache
def pairs(n: int, columns: int) -> tuple[Tensor, Tensor]:
    """x and y `(n, columns)`, float32 as features are: column c of x and of y is a Gaussian pair with ρ."""
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, columns, generator=generator)
    return x, RHO * x + math.sqrt(1 - RHO**2) * torch.randn(n, columns, generator=generator)


# The contenders


@dataclass(frozen=True)
class Contender:
    """run: the work to be timed, on `slices` slices. value: the first slice's estimate, from what `run` returns."""

    group: str
    name: str
    slices: int
    run: Callable[[], Any]
    value: Callable[[Any], float]


def contenders(n: int, cores: int, pool: Any = None) -> list[Contender]:
    """All that can run here, grouped, the library first in its group; without a pool, only what is one process."""
    x, y = pairs(n, BATCH)
    each_column = torch.eye(BATCH), torch.eye(BATCH)  # as directions: slice c is column c
    u, v = x[:, 0].contiguous(), y[:, 0].contiguous()
    a, b = u.numpy(), v.numpy()

    def ours(estimator: Callable[..., mi.Estimate], **settings: Any) -> Callable[[], mi.Estimate]:
        return lambda: estimator(x, y, slices=each_column, baseline=False, **settings)

    def first(estimate: mi.Estimate) -> float:
        return float(estimate.per_slice[0])

    found: list[Contender] = []

    def add(group: str, name: str, slices: int, run: Callable[[], Any], value: Callable[[Any], float]) -> None:
        found.append(Contender(group, name, slices, run, value))

    add("KSG", f"ours, {BATCH} slices", BATCH, ours(mi.ksg, k=K), first)
    add("KSG", "ours, one slice", 1, lambda: mi.ksg(u, v, k=K, baseline=False), first)
    if installed("sklearn"):
        add("KSG", "scikit-learn, 1 process", 1, lambda: sklearn_ksg(a, b), float)
        if pool is not None:
            tasks = [(n, c) for c in range(2 * cores)]  # two for each process, handed out one by one
            work = lambda: pool.starmap(sklearn_in_worker, tasks, chunksize=1)  # noqa: E731
            add("KSG", SEVERAL.format(cores), len(tasks), work, lambda values: values[0])
    if installed("npeet_plus"):
        add("KSG", "npeet-plus", 1, lambda: npeet_ksg(a, b), float)
    if installed("scipy"):
        add("KSG", f"scipy KD-tree, {cores} workers", 1, lambda: scipy_ksg(a, b, cores), float)

    add("KDE", f"ours, {BATCH} slices", BATCH, ours(mi.kde), first)
    add("KDE", "ours, one slice", 1, lambda: mi.kde(u, v, baseline=False), first)
    add("KDE", "exact, chunked torch", 1, lambda: exact_kde(u, v), float)

    # The table alone, on given edges; histogramdd wants the outermost edges, too, and its points in rows
    rows = x.T.contiguous(), y.T.contiguous()
    edges = quantile_edges(rows[0], BINS), quantile_edges(rows[1], BINS)
    points = torch.stack((u, v), 1)
    bins = [torch.cat((w.min()[None], e[0], w.max()[None])) for w, e in zip((u, v), edges, strict=True)]
    table = f"our table, {BATCH} slices"
    add("histogram", table, BATCH, lambda: histogram2d(*rows, *edges), lambda counts: mi_of_table(counts[0]))
    add("histogram", "torch.histogramdd", 1, lambda: torch.histogramdd(points, bins=bins).hist, mi_of_table)
    add("histogram", "ours, ranks to estimate", BATCH, ours(mi.histogram, bins=BINS), first)
    return found


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def sklearn_ksg(x: np.ndarray, y: np.ndarray) -> float:
    from sklearn.feature_selection import mutual_info_regression

    return float(mutual_info_regression(x[:, None], y, discrete_features=False, n_neighbors=K, random_state=0)[0])


def sklearn_in_worker(n: int, column: int) -> float:
    """Draws its data itself, once, so that none travel between processes while it is timed."""
    x, y = pairs(n, BATCH)
    return sklearn_ksg(x[:, column % BATCH].numpy(), y[:, column % BATCH].numpy())


def npeet_ksg(x: np.ndarray, y: np.ndarray) -> float:
    import npeet_plus

    return float(npeet_plus.mi(x[:, None], y[:, None], k=K, base=math.e))


def scipy_ksg(x: np.ndarray, y: np.ndarray, workers: int) -> float:
    """What one would write with scipy: neighbours by a KD-tree, marginal counts by binary search."""
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    z = np.stack((x, y), 1).astype(np.float64)
    eps = cKDTree(z).query(z, K + 1, p=np.inf, workers=workers)[0][:, K]
    radius = eps * (1 - 1e-9)  # side ± eps would round onto the neighbour itself, and count it
    total = digamma(K) + digamma(len(x))
    for side in z.T:
        ascending = np.sort(side)
        count = np.searchsorted(ascending, side + radius, side="right") - np.searchsorted(ascending, side - radius)
        total -= digamma(count).mean()  # the point itself is counted, which is the + 1
    return float(total)


def exact_kde(x: Tensor, y: Tensor) -> float:
    """The estimate of `miue_lib.mi.kde` with all n² kernel values, in blocks of rows, for the pair and both sides."""
    n = len(x)
    h = n ** (-1 / 6)
    x, y = ((side - side.mean()) / side.std() for side in (x, y))
    r = (x * y).sum() / (n - 1)
    u, v = (x + y) / (2 * (1 + r)).sqrt(), (x - y) / (2 * (1 - r)).sqrt()
    logs = []
    for points in (torch.stack((u, v), 1), x[:, None], y[:, None]):
        sums, squares = (found[0].double() for found in exact_kernel_sums(points[None] / h))
        sums = sums.clamp_min(0.1)
        logs.append(sums.log() + squares / (2 * sums.square()))
    return float((logs[0] - logs[1] - logs[2]).mean() + math.log(n - 1) - 0.5 * torch.log1p(-r * r))


def mi_of_table(counts: Tensor) -> float:
    """Entropies of a table of counts, corrected by Miller and Madow, to mutual information."""

    def entropy(table: Tensor) -> float:
        p = table.double() / counts.sum()
        return float(-torch.xlogy(p, p).sum() + ((table > 0).sum() - 1) / (2 * counts.sum()))

    return entropy(counts.sum(0)) + entropy(counts.sum(1)) - entropy(counts)


# Time


def interleaved(group: Sequence[Contender], rounds: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds a slice of each contender in each round, after a warm-up, and what each returned."""
    seconds: dict[str, list[float]] = {c.name: [] for c in group}
    results, repeats = {}, {}
    for c in group:
        first, results[c.name] = timed(c.run)  # numba compiles, modules are imported
        if first > SLOW:
            seconds[c.name].append(first / c.slices)
        else:
            repeats[c.name] = max(1, math.ceil(SHORTEST / timed(c.run)[0]))
    for _ in range(rounds):
        for c in group:
            if c.name in repeats:
                total = sum(timed(c.run)[0] for _ in range(repeats[c.name]))
                seconds[c.name].append(total / repeats[c.name] / c.slices)
    return seconds, results


# Memory: this file again, as a fresh process


def in_fresh_process(task: str, n: int, cores: int, slices: int = 0) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", task, "--sizes", str(n), "--cores", str(cores)]
    done = subprocess.run([*command, "--slices", str(slices)], stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def child(task: str, n: int, cores: int, slices: int) -> dict[str, Any]:
    if task in ("plain", "shuffled"):
        return many_slices(n, slices, baseline=task == "shuffled")
    run_small, run = (
        next(c.run for c in contenders(size, cores) if f"{c.group}/{c.name}" == task) for size in (500, n)
    )
    run_small()
    before = restart_peak()
    run()
    return {"megabytes": peak_megabytes() - before}


# The sections of the report


def report_contenders(sizes: Sequence[int], cores: int, rounds: int, memory: bool) -> None:
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that start now
    pool = multiprocessing.get_context("spawn").Pool(cores)
    del os.environ["OMP_NUM_THREADS"]
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = threads
    truth = float(gaussian_mi(RHO))
    head = f"\n{'':36}{'':6}{'at':>4}{'ms a slice':>27}{'÷ ours':>27}{'':6}{'memory':>9}{'error':>9}\n"
    quantiles = f"{'p20':>9}{'p50':>9}{'p80':>9}"
    print(head + f"{'':36}{'n':>6}{'once':>5}{quantiles[1:]}{quantiles}{'runs':>6}{'MB':>9}{'nats':>9}")
    with pool:
        for n in sizes:
            everyone = contenders(n, cores, pool)
            for name in dict.fromkeys(c.group for c in everyone):
                group = [c for c in everyone if c.group == name]
                seconds, results = interleaved(group, rounds)
                alone = [c.name for c in group if c.name != SEVERAL.format(cores)] * memory
                with ThreadPoolExecutor(cores) as helpers:  # nothing is timed now
                    answers = helpers.map(lambda c: in_fresh_process(f"{name}/{c}", n, cores)["megabytes"], alone)  # noqa: B023
                    megabytes = dict(zip(alone, answers, strict=True))
                if "scikit-learn, 1 process" in megabytes:
                    megabytes[SEVERAL.format(cores)] = cores * megabytes["scikit-learn, 1 process"]
                for c in group:
                    times = "".join(f"{1e3 * t:9.{3 if t < 1 else 0}f}" for t in spread(seconds[c.name]))
                    base, own = seconds[group[0].name], seconds[c.name]
                    if len(own) != len(base):  # one of them was slow and ran once: compared with the median
                        base = [spread(base)[1]] * len(own)
                    ratios = spread([t / b for t, b in zip(own, base, strict=True)])
                    print(
                        f"{name:10}{c.name:26}{n:6}{c.slices:4}{times}"
                        + "".join(f"{r:9.2f}" for r in ratios)
                        + f"{len(seconds[c.name]):6}"
                        + (f"{megabytes[c.name]:9.1f}" if c.name in megabytes else f"{'–':>9}")
                        + f"{abs(c.value(results[c.name]) - truth):9.4f}",
                        flush=True,
                    )


def many_slices(n: int, slices: int, baseline: bool, dimensions: int = 512, repeats: int = 3) -> dict[str, Any]:
    """The whole of sliced mutual information by rank histogram, projections included."""
    mi.histogram(*pairs(500, dimensions), slices=2, baseline=baseline)
    x, y = pairs(n, dimensions)
    before = restart_peak()
    runs = [timed(lambda: mi.histogram(x, y, slices=slices, baseline=baseline)) for _ in range(repeats)]
    return {
        "seconds": [seconds for seconds, _ in runs],
        "megabytes": peak_megabytes() - before,
        "peak": peak_megabytes(),
        "error": abs(runs[0][1].value - sliced_truth(slices, dimensions)),
    }


def sliced_truth(slices: int, dimensions: int) -> float:
    """Of the very slices that seed 0 draws: θᵀX and φᵀY have the correlation ρ θᵀφ."""
    theta, phi = mi.directions(slices, dimensions, dimensions)
    return float(gaussian_mi(RHO * (theta * phi).sum(1)).mean())


def report_many_slices(n: int, slices: int, cores: int) -> None:
    print(f"\n{slices} slices of {n} × 512, float32, by rank histogram, projections included, in a fresh process")
    for task, words in (("plain", "without the shuffled baseline"), ("shuffled", "with it")):
        found = in_fresh_process(task, n, cores, slices)
        print(
            f"{words:31}{min(found['seconds']):7.2f} s (fastest of {len(found['seconds'])}), "
            f"{statistics.median(found['seconds']):.2f} s (median); "
            f"peak of the process {found['peak']:.0f} MB, {found['megabytes']:.0f} MB more than with the data alone; "
            f"error {found['error']:.5f}",
            flush=True,
        )


# GPU


def report_gpu(n: int, slices: int, dimensions: int = 512, compared: int = 16, device: str = "cuda") -> None:
    """The three estimators, what of the device's limit they reach, their difference from the CPU, and naive KSG.

    The limit is a model: the products (projections, and the two 256 × 256 smoothings by two kernels of KDE) at the
    rate of a large float32 product, plus the bytes below at the rate of a large copy, both measured here.
    """
    x, y = pairs(n, dimensions)
    x_there, y_there = x.to(device), y.to(device)
    theta, phi = mi.directions(slices, dimensions, dimensions)
    directions = theta.to(device), phi.to(device)
    flops, bandwidth = matmul_rate(device, torch.float32, 8192), copy_bandwidth(device, 1 << 28)
    print(f"\n{gpu_name()}; measured: {flops / 1e12:.1f} TFLOP/s in float32, {bandwidth / 1e9:.0f} GB/s")
    print(f"{slices} slices of {n} × {dimensions}, float32, projections included, no baseline")
    # Bytes a pair at the least, in float32. Both sides written and read by the next step: 16. A sort of one side: four
    # passes over 4 bytes of value and 4 of index, read and written: 64. Standardising: 16.
    bytes_a_pair = {
        "histogram": 16 + 2 * 64 + 8,  # by rank; and read to be counted
        "ksg": 16 + 16 + 3 * 64 + 24 + 24,  # x, strips, y; eps and two counts (8 bytes each) written, then read
        "kde": 16 + 16 + 2 * 16 + 2 * (16 + 12) + 24,  # u, v, x, y written and spread; sums read off twice; logarithms
    }
    smoothing = {"kde": 2 * 2 * 2 * 256**3}
    for name, data in bytes_a_pair.items():
        estimator = mi.ESTIMATORS[name]
        work = lambda: estimator(x_there, y_there, slices=directions, baseline=False)  # noqa: B023, E731
        torch.cuda.reset_peak_memory_stats()
        fastest, median, estimate = gpu_seconds(work)
        memory = torch.cuda.max_memory_allocated() / 1e6  # of tensors, the data included
        on_cpu = estimator(x, y, slices=(theta[:compared], phi[:compared]), baseline=False).per_slice
        apart = float((estimate.per_slice[:compared] - on_cpu).abs().max())
        products = 4 * n * dimensions * slices + smoothing.get(name, 0) * slices
        limit = products / flops + data * n * slices / bandwidth
        print(
            f"{name:10}{1e3 * fastest:9.1f} ms (fastest of {GPU_REPEATS}){1e3 * median:9.1f} ms (median); "
            f"limit {1e3 * limit:.1f} ms, share {limit / median:.0%}; peak {memory:.0f} MB; "
            f"GPU − CPU at most {apart:.1e} in {compared} slices; "
            f"error {abs(estimate.value - sliced_truth(slices, dimensions)):.5f}",
            flush=True,
        )


def report_naive_gpu(sizes: Sequence[int], device: str = "cuda", batch: int = 100) -> None:
    print("KSG by cdist and topk, one slice, beside ours in turn: ms a slice, medians")
    for n in sizes:
        x, y = (side.to(device) for side in pairs(n, batch))
        each_column = torch.eye(batch, device=device), torch.eye(batch, device=device)
        ours = lambda: mi.ksg(x, y, k=K, slices=each_column, scale="none", baseline=False)  # noqa: B023, E731
        naive = lambda: naive_ksg(x[:, 0], y[:, 0])  # noqa: B023, E731
        seconds: dict[str, list[float]] = {"ours": [], "naive": []}
        try:
            for _ in range(3):
                _, of_naive, value = gpu_seconds(naive, 1)
                _, of_ours, estimate = gpu_seconds(ours, 1)
                seconds["naive"].append(of_naive)
                seconds["ours"].append(of_ours / batch)
        except torch.OutOfMemoryError:
            print(f"n = {n:6}: not enough memory on this GPU")
            continue
        of_naive, of_ours = statistics.median(seconds["naive"]), statistics.median(seconds["ours"])
        print(
            f"n = {n:6}: naive {1e3 * of_naive:.2f}, ours {1e3 * of_ours:.3f} ({batch} slices at once), "
            f"÷ ours {of_naive / of_ours:.0f}; the estimates differ by {abs(value - float(estimate.per_slice[0])):.1e}",
            flush=True,
        )


def naive_ksg(x: Tensor, y: Tensor) -> float:
    n = len(x)
    z = torch.stack((x, y), 1)
    apart = torch.cdist(z, z, p=math.inf).fill_diagonal_(math.inf)
    eps = apart.topk(K, largest=False).values[:, -1:]
    del apart
    near = [((side[:, None] - side[None, :]).abs() < eps).sum(1) for side in (x, y)]  # the point itself is the + 1
    psi = [torch.digamma(count.double()).mean() for count in near]
    total = torch.digamma(torch.tensor([float(K), float(n)], dtype=torch.float64)).sum()
    return float(total) - float(psi[0] + psi[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Time, memory and error of miue_lib's estimators of mutual information beside other packages'.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, and memory in the last section only: some 25 seconds"
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        metavar="N",
        help="numbers of pairs (default: 1000 5000 20000 50000; quick: 1000 5000)",
    )
    parser.add_argument("--rounds", type=int, help="times that contenders take turns (default: 9; quick: 3)")
    parser.add_argument(
        "--cores",
        type=int,
        default=min(2, os.cpu_count() or 1),
        help="threads of ours, processes of scikit-learn (default: 2)",
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--slices", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.cores)
    if asked.child:
        print(json.dumps(child(asked.child, asked.sizes[0], asked.cores, asked.slices)))
        return
    sizes = asked.sizes or ([1000, 5000] if asked.quick else [1000, 5000, 20_000, 50_000])
    report_machine(asked.cores, ("torch", "numpy", "numba"), tuple(PEERS.values()))
    report_contenders(sizes, asked.cores, asked.rounds or (3 if asked.quick else 9), memory=not asked.quick)
    n, slices = (10_000, 100) if asked.quick else (50_000, 1000)
    report_many_slices(n, slices, asked.cores)
    if torch.cuda.is_available():
        report_gpu(n, slices)
        report_naive_gpu([5000] if asked.quick else [5000, 20_000])
    else:
        print("\nno GPU here: that part is left out")
    report_load()


if __name__ == "__main__":
    main()
