"""Speed and memory of the library's kernels, beside plain PyTorch and what this device could do at best, in one run.

    python benchmarks/kernels.py                # everything: some four minutes on two cores
    python benchmarks/kernels.py --quick        # small sizes, on a CPU without memory: some 30 seconds
    python benchmarks/kernels.py --compile      # and torch.compile of the plain PyTorch: a minute more
    python benchmarks/kernels.py --only noisy   # the operations whose name holds this word

It takes the GPU where there is one (`--device cpu` to have it otherwise). "PyTorch" is each kernel's `reference`,
which does the same operations one after the other. For kernel sums it is exact, where ours is binned.

Contenders take turns, round after round, and "÷ ours" is a contender's time over ours in the same round. A contender
that needs more than twenty seconds is timed once. On a GPU each run is timed by events, after its cache has been
overwritten; on a CPU a measurement repeats a run until it takes 20 ms, so that small data stay in the cache, and a
share of a large copy can be more than 100%.

The rate divides what has to be done at the least by the time: bytes that are read and written once, or floating-point
operations of the products that cannot be avoided. It is the same for all contenders of an operation, and its share is
of the rate of a large copy, or of a large product of that type, measured here. What else an operation does (sorting,
searching, exponentials) is not counted: the nearest neighbours of KSG reach a small share for that reason.

Memory is the peak during a run over what was there before, results included: on a GPU of tensors, on a CPU of resident
memory in a fresh process. Nothing here passes or fails: see tests/ for that. Let nothing else run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from _timing import (
    SHORTEST,
    SLOW,
    copy_bandwidth,
    gpu_name,
    matmul_rate,
    peak_megabytes,
    report_load,
    report_machine,
    restart_peak,
    spread,
    timed,
)
from torch import Tensor

from miue_lib.kernels import crop_flip, histogram, kde, ksg, noise_step, similarity
from miue_lib.kernels.crop_flip import View

OURS, EAGER, COMPILED = "ours", "PyTorch", "torch.compile"
BINS, NEAREST, GRID, CLASSES, PAD = 32, 3, 256, 10, 4
STEP, EPSILON = 0.2 / 255, 8 / 255
GPU_RUNS = 5  # of a contender in each round
CACHE = 1 << 28  # bytes, more than any GPU's cache


class Sizes(NamedTuple):
    """slices of `pairs` pairs for the histogram, of `points` for KSG and kernel sums; features (B, d); pictures."""

    slices: int
    pairs: int
    points: int
    features: tuple[int, int]
    pictures: tuple[int, int, int, int]


SIZES = {
    "cpu": Sizes(8, 50_000, 2000, (1024, 512), (512, 3, 32, 32)),
    "cpu, quick": Sizes(8, 20_000, 1000, (256, 512), (250, 3, 32, 32)),
    "cuda": Sizes(64, 50_000, 10_000, (8192, 512), (512, 3, 32, 32)),
    "cuda, quick": Sizes(64, 20_000, 5000, (2048, 512), (512, 3, 32, 32)),
    "warm-up": Sizes(2, 500, 500, (64, 32), (4, 3, 8, 8)),  # of the same types and layouts: all that is compiled
}


# The operations


@dataclass(frozen=True)
class Operation:
    """run: calls either function on the operation's data. work: bytes, or floating-point operations, at the least.

    limit: what the rate is a share of, "copy" or the type of a product. loops: whether the reference loops over slices
    in Python, which torch.compile would unroll without end.
    """

    name: str
    size: str
    run: Callable[[Callable[..., Any]], Any]
    ours: Callable[..., Any]
    reference: Callable[..., Any]
    work: float
    limit: str = "copy"
    loops: bool = False


def operations(sizes: Sizes, device: str) -> Iterator[Operation]:
    yield from of_slices(sizes, device)
    yield from of_features(sizes.features, device)
    yield from of_pictures(sizes.pictures, device)


def of_slices(sizes: Sizes, device: str) -> Iterator[Operation]:
    generator = torch.Generator().manual_seed(0)
    m, n = sizes.slices, sizes.pairs
    x = torch.randn(m, n, generator=generator).to(device)
    y = 0.6 * x + 0.8 * torch.randn(m, n, generator=generator).to(device)
    edges = histogram.quantile_edges(x, BINS), histogram.quantile_edges(y, BINS)
    yield Operation(
        "histogram",
        f"{m} × {n}",
        lambda table: table(x, y, *edges),
        histogram.histogram2d,
        histogram.reference,
        8 * m * n,
    )
    n = sizes.points
    u, v = x[:, :n].contiguous(), y[:, :n].contiguous()
    yield Operation(
        "ksg",
        f"{m} × {n}",
        lambda neighbours: neighbours(u, v, NEAREST),
        ksg.neighbours,
        ksg.reference,
        28 * m * n,  # two values of 4 bytes; a distance of 4, and two counts of 8
        loops=True,
    )
    points = torch.stack((u, v), 2) * n ** (1 / 6)  # in widths of Scott's kernel
    reach = 12 * n ** (1 / 6)
    yield Operation(
        "kde",
        f"{m} × {n}",
        lambda sums: sums(points, GRID, min(1.0, reach / (GRID - 1))),
        kde.kernel_sums,
        lambda points, *_: kde.reference(points),
        m * 2 * 2 * 2 * GRID**3,  # two products of matrices for each of two kernels
        "float32",
        loops=True,
    )


def of_features(shape: tuple[int, int], device: str) -> Iterator[Operation]:
    batch, width = shape
    size = f"{batch} × {width}"
    product = 2 * batch**2 * width
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(batch) % CLASSES).to(device)
    features = torch.randn(batch, width, generator=generator).to(device)

    def forward(loss: Callable[..., Tensor]) -> Tensor:
        with torch.no_grad():
            return loss(features, labels, 0.1, 0.1)

    def both(leaf: Tensor, distance_weight: float) -> Callable[[Callable[..., Tensor]], Tensor]:
        leaf = leaf.clone().requires_grad_()
        return lambda loss: torch.autograd.grad(loss(leaf, labels, 0.1, distance_weight), leaf)[0]

    contest = similarity.unchecked, similarity.reference
    yield Operation("similarity, forward", size, forward, *contest, product, "float32")
    yield Operation("similarity, both ways", size, both(features, 0.1), *contest, 2 * product, "float32")
    yield Operation("similarity, both, ζ = 0", size, both(features, 0.0), *contest, 2 * product, "float32")
    yield Operation(
        "similarity, both, bfloat16", size, both(features.bfloat16(), 0.1), *contest, 2 * product, "bfloat16"
    )


def of_pictures(shape: tuple[int, int, int, int], device: str) -> Iterator[Operation]:
    size = " × ".join(map(str, shape))
    pixels = math.prod(shape)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)
    delta = (EPSILON * (2 * torch.rand(shape, generator=generator) - 1)).to(device)
    gradient = torch.randn(shape, generator=generator).to(device)
    from_model = gradient.contiguous(memory_format=torch.channels_last)
    view = View.random(shape[0], PAD, True, torch.Generator(device).manual_seed(0))

    def plain(transposed: bool) -> Callable[[Tensor], Tensor]:
        return lambda values: crop_flip.reference(values, None, view, transposed)

    def plain_noisy(images: Tensor, delta: Tensor) -> Tensor:
        return crop_flip.reference(delta, images, view, False)

    def step(delta: Tensor, images: Tensor, gradient: Tensor) -> None:
        noise_step.noise_step(delta, images, gradient, step=STEP, epsilon=EPSILON)

    def plain_step(delta: Tensor, images: Tensor, gradient: Tensor) -> None:
        delta.copy_(noise_step.reference(delta, images, gradient, STEP, EPSILON))

    yield Operation("view", size, lambda f: f(delta), view, plain(False), 8 * pixels)
    yield Operation("adjoint", size, lambda f: f(from_model), view.adjoint, plain(True), 8 * pixels)
    yield Operation("noisy", size, lambda f: f(images, delta), view.noisy, plain_noisy, 9 * pixels)
    yield Operation("noise_step", size, lambda f: f(delta, images, gradient), step, plain_step, 13 * pixels)


# Time


def contenders(operation: Operation, compile_too: bool) -> dict[str, Callable[[], Any]]:
    """What takes turns, ours first; without what torch.compile cannot do."""
    found = {
        OURS: lambda: operation.run(operation.ours),
        EAGER: lambda: operation.run(operation.reference),
    }
    if compile_too and not operation.loops:
        torch.compiler.reset()
        fast = torch.compile(operation.reference, dynamic=False)
        try:
            operation.run(fast)
            found[COMPILED] = lambda: operation.run(fast)
        except Exception as error:  # it fails in many ways, none of which is ours to mend
            print(f"{operation.name}: torch.compile fails with {type(error).__name__}")
    return found


def interleaved(works: dict[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of each in each round, after a warm-up; one entry for what is slow."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    repeats = {}
    for name, work in works.items():
        work()  # numba and Triton compile
        first = seconds_of(work, 1, device)
        if first > SLOW:
            seconds[name].append(first)
        else:
            repeats[name] = GPU_RUNS if device == "cuda" else max(1, math.ceil(SHORTEST / first))
    for _ in range(rounds):
        for name, times in repeats.items():
            seconds[name].append(seconds_of(works[name], times, device))
    return seconds


def seconds_of(work: Callable[[], Any], times: int, device: str) -> float:
    """Mean seconds of a run."""
    if device == "cpu":
        return sum(timed(work)[0] for _ in range(times)) / times
    cache = torch.empty(CACHE, dtype=torch.uint8, device=device)
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(times)]
    for start, end in events:
        cache.zero_()
        start.record()
        work()
        end.record()
    torch.cuda.synchronize()
    return sum(start.elapsed_time(end) for start, end in events) / 1e3 / times


# Memory


def megabytes(operation: Operation, name: str, asked: argparse.Namespace) -> float | None:
    """The extra peak of one run; None where it is not measured."""
    if asked.device == "cuda":
        function = operation.ours if name == OURS else operation.reference
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        operation.run(function)
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    if asked.quick:
        return None
    # What glibc keeps for later after tensors were freed would be taken for nothing; so it gives large ones back.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, "--device", "cpu", "--cores", str(asked.cores)]
    command += ["--child", f"{operation.name}/{name}"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout))


def child(task: str) -> float:
    """The memory of one contender, in this process, which has done nothing else."""
    wanted, name = task.split("/")

    def found(sizes: Sizes) -> Callable[[], Any]:
        return contenders(next(o for o in operations(sizes, "cpu") if o.name == wanted), False)[name]

    found(SIZES["warm-up"])()
    work = found(SIZES["cpu"])
    before = restart_peak()
    work()
    return peak_megabytes() - before


# The report


def report_limits(device: str, quick: bool) -> dict[str, float]:
    """Bytes/s of a copy and FLOP/s of products, measured now."""
    large = device == "cuda" and not quick
    side = 8192 if large else 4096 if device == "cuda" else 1024 if quick else 2048
    limits = {"copy": copy_bandwidth(device, 1 << (28 if large else 26))}
    for dtype in (torch.float32, torch.bfloat16):
        limits[str(dtype).removeprefix("torch.")] = matmul_rate(device, dtype, side)
    if device == "cuda":
        print(gpu_name())
    print(
        f"measured on {device}: copy {limits['copy'] / 1e9:.1f} GB/s, product of two {side} × {side} matrices "
        f"{limits['float32'] / 1e9:,.0f} GFLOP/s in float32, {limits['bfloat16'] / 1e9:,.0f} in bfloat16"
    )
    return limits


def report_operation(operation: Operation, limits: dict[str, float], asked: argparse.Namespace) -> None:
    works = contenders(operation, asked.compile)
    seconds = interleaved(works, asked.rounds, asked.device)
    memory = {name: megabytes(operation, name, asked) for name in works if name != COMPILED}
    for name, own in seconds.items():
        base = seconds[OURS]
        if len(own) != len(base):  # one of them was slow and timed once: compared with the median
            base = [spread(base)[1]] * len(own)
        ratios = spread([t / b for t, b in zip(own, base, strict=True)])
        rate = operation.work / spread(own)[1]
        extra = memory.get(name)
        print(
            f"{operation.name:28}{operation.size:20}{name:15}"
            + "".join(f"{1e3 * t:10.{3 if t < 1 else 0}f}" for t in spread(own))
            + "".join(f"{r:8.2f}" for r in ratios)
            + f"{len(own):5}"
            + (f"{'–':>9}" if extra is None else f"{extra:9.1f}")
            + f"{rate / 1e9:10.{1 if rate < 1e12 else 0}f} {'GB/s   ' if operation.limit == 'copy' else 'GFLOP/s'}"
            + f"{rate / limits[operation.limit]:7.1%} of {operation.limit}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of miue_lib's kernels beside plain PyTorch.")
    parser.add_argument("--quick", action="store_true", help="small sizes, on a CPU without memory: some 30 seconds")
    parser.add_argument("--compile", action="store_true", help="torch.compile of the plain PyTorch, too")
    parser.add_argument("--only", default="", metavar="WORD", help="the operations whose name holds this word")
    parser.add_argument("--rounds", type=int, help="times that contenders take turns (default: 15; quick: 5)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1), help="threads (default: 2)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.rounds = asked.rounds or (5 if asked.quick else 15)
    torch.set_num_threads(asked.cores)
    if asked.child:
        print(child(asked.child))
        return
    report_machine(asked.cores, ("torch", "triton", "numpy", "numba"))
    limits = report_limits(asked.device, asked.quick)
    quantiles = f"{'p20':>8}{'p50':>8}{'p80':>8}"
    print(f"\n{'':63}{'ms':>30}{'÷ ours':>24}{'':5}{'memory':>9}")
    print(f"{'':63}{'p20':>10}{'p50':>10}{'p80':>10}{quantiles}{'runs':>5}{'MB':>9}{'rate':>10}{'':8}{'share':>7}")
    for operation in operations(SIZES[asked.device + ", quick" * asked.quick], asked.device):
        if asked.only in operation.name:
            report_operation(operation, limits, asked)
    report_load()


if __name__ == "__main__":
    main()
