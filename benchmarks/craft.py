"""Crafting MI-UE noise: the library beside a plain restatement of the paper's released code, in one run.

    python benchmarks/craft.py                        # some three minutes on two cores
    python benchmarks/craft.py --quick                # some forty seconds
    python benchmarks/craft.py --rounds 20 --victims 3    # how well both protect, too: an hour

Both get the same pictures, model, budget and settings: the paper's, for a few rounds. Each run is a process of its own
that has crafted a little before it is timed. A picture counts once for each forward and backward pass, in either phase.
Memory is the peak of the run over what was resident before it: on a CPU of the process (the restatement's loader
workers, if any, left out), on a GPU of tensors there. With `--repeats` the two take turns, medians are shown, and
"restated ÷ ours" is the median over turns.

"Share" is the useful arithmetic a second, over the rate of a large matrix product in float32 or bfloat16, measured
here. Useful is what the loop needs of the model: forward and weight gradients for a training step, forward and picture
gradients for a noise step; what is computed beyond that, and the loss, counts as nothing. On a processor with
bfloat16 units ours multiplies in bfloat16, else in float32; the restatement in float32 (on a GPU, convolutions in TF32,
as torch does unless told otherwise).

On a GPU: ResNet-18 on random pictures of CIFAR-10's size (or `--data cifar10`), a part of them for two rounds, and from
the last round a projection to the paper's 100 rounds of 50,000; `--full` measures that itself, `--only ours` without
the restatement, which would take days. Nothing here passes or fails: see tests/ for that. Let nothing else run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import released
import torch
from _timing import matmul_rate, peak_megabytes, report_load, report_machine, restart_peak
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import miue_lib as mi

SETTINGS: dict[str, Any] = {
    "epsilon": 8 / 255,
    "steps": 10,
    "step": 0.2 / 255,
    "temperature": 0.1,
    "distance_weight": 0.1,
    "batch_size": 128,
    "noise_batch_size": 512,
    "learning_rate": 0.1,
    "crop": 4,
    "flip": True,
    "seed": 0,
}
PAPER = {"pictures": 50_000, "rounds": 100}
WARM_UP = {"epochs": 1, "steps": 1}


# One run: this file again, as a fresh process


def run_in_fresh_process(who: str, asked: argparse.Namespace, noise: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", who, "--noise", str(noise)]
    for name in ("data", "model", "pictures", "rounds", "steps", "threads", "workers"):
        command += [f"--{name}", str(getattr(asked, name))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def child(who: str, asked: argparse.Namespace) -> dict[str, Any]:
    images, _ = pictures(asked.data, asked.pictures)
    settings = SETTINGS | {"surrogate": asked.model, "epochs": asked.rounds, "steps": asked.steps}
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    ends: list[float] = []

    def progress(_: str) -> None:
        if on_gpu:
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    def craft(some: mi.ImageSet, **more: Any) -> mi.Perturbation:
        if who == "ours":
            return mi.craft("miue", some, progress=progress, **settings | more)
        return released.craft(some, workers=asked.workers, device=device, progress=progress, **settings | more)

    images = images.to(device if who == "ours" else "cpu")
    craft(images.balanced(min(len(images), 20 * len(images.classes))), **WARM_UP)
    ends.clear()
    before = restart_peak(device.type)
    start = time.perf_counter()
    noise = craft(images)
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    megabytes = peak_megabytes(device.type) - before
    noise.save(asked.noise)
    rounds = [end - begin for begin, end in zip([start, *ends], ends, strict=False)]
    return {"seconds": seconds, "rounds": rounds, "megabytes": megabytes}


def pictures(data: str, n: int) -> tuple[mi.ImageSet, mi.ImageSet | None]:
    """About n training pictures, as many of each class, and the test pictures; on the CPU."""
    if data == "random":
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)
        return mi.ImageSet(drawn, torch.arange(n) % 10, name="random pictures"), None
    train, test = mi.load(data, device="cpu")
    return train.balanced(min(n, len(train))), test


# What the loop needs


def useful_flops(name: str, images: mi.ImageSet, batch: int = 8) -> tuple[float, float]:
    """Of a training step and of a noise step, a picture: two for each multiplication and addition in the model."""
    some = images.subset(slice(0, batch))
    model = mi.build(name, images)
    with FlopCounterMode(display=False) as training:
        F.cross_entropy(model(some.floats()), some.labels).backward()
    model.eval().requires_grad_(False)
    with FlopCounterMode(display=False) as noise:
        model.features(some.floats().requires_grad_(True)).sum().backward()
    return training.get_total_flops() / batch, noise.get_total_flops() / batch


# The sections of the report


def report_crafting(asked: argparse.Namespace, images: mi.ImageSet, folder: Path) -> None:
    device, side = ("cuda", 8192) if torch.cuda.is_available() else ("cpu", 2048)
    rates = {name: matmul_rate(device, dtype, side) for name, dtype in DTYPES.items()}
    print("large matrix product: " + ", ".join(f"{rate / 1e12:.3g} TFLOP/s in {name}" for name, rate in rates.items()))
    n, batch = len(images), SETTINGS["batch_size"]
    # The library leaves what does not fill a batch for the next round; the restatement trains on a smaller one.
    trained = {"ours": max(1, n // batch) * min(batch, n), "restated": n}
    of_training, of_noise = useful_flops(asked.model, images)
    print(
        f"{asked.model}, {n:,} of {images!r}: {of_training / 1e6:.1f} MFLOP a picture to train, "
        f"{of_noise / 1e6:.1f} for a noise step\nrounds: {asked.rounds}, of one epoch and {asked.steps} noise steps a "
        f"picture; batches of {batch} and {SETTINGS['noise_batch_size']}\n"
    )
    runs: dict[str, list[dict[str, Any]]] = {who: [] for who in asked.only}
    for _ in range(asked.repeats):
        for who in asked.only:
            runs[who].append(run_in_fresh_process(who, asked, folder / who))
    head = ("seconds", "1st round", "last", "images/s", "memory MB", *(f"share {name}" for name in rates))
    print(" " * 10 + "".join(f"{name:>16}" for name in head))
    for who, found in runs.items():
        passes = asked.rounds * (trained[who] + asked.steps * n)
        useful = asked.rounds * (trained[who] * of_training + asked.steps * n * of_noise)
        seconds = statistics.median(run["seconds"] for run in found)
        first, last = (statistics.median(run["rounds"][i] for run in found) for i in (0, -1))
        megabytes = statistics.median(run["megabytes"] for run in found)
        cells = [f"{seconds:.2f}", f"{first:.2f}", f"{last:.2f}", f"{passes / seconds:,.0f}", f"{megabytes:,.0f}"]
        cells += [f"{useful / seconds / rate:.1%}" for rate in rates.values()]
        print(f"{who:10}" + "".join(f"{cell:>16}" for cell in cells))
    if len(runs) == 2:
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(runs["ours"], runs["restated"], strict=True)]
        memory = [b["megabytes"] / max(1.0, a["megabytes"]) for a, b in zip(*runs.values(), strict=True)]
        print(f"restated ÷ ours: {statistics.median(ratios):.1f} in time, {statistics.median(memory):.1f} in memory")
    if torch.cuda.is_available() and not asked.full:
        report_projection(runs, n, asked.steps)


def report_projection(runs: dict[str, list[dict[str, Any]]], n: int, steps: int) -> None:
    for who, found in runs.items():
        last = statistics.median(run["rounds"][-1] for run in found)
        hours = last * PAPER["pictures"] / n * PAPER["rounds"] / 3600
        print(
            f"{who}: PROJECTED from the last round, {hours:.2f} hours for {PAPER['rounds']} rounds of "
            f"{PAPER['pictures']:,} pictures with {steps} noise steps each"
        )


def report_victims(asked: argparse.Namespace, images: mi.ImageSet, test: mi.ImageSet, folder: Path) -> None:
    """Test accuracy of victims trained with the profile's settings, on clean pictures and on each noise."""
    size = mi.profile("gpu" if torch.cuda.is_available() else "cpu")
    images, test = images.to(mi.data.default_device()), test.to(mi.data.default_device())
    print(f"\nclean test accuracy of {asked.victims} victims ({asked.model}), mean ± standard deviation over seeds")
    for who in ("clean", *asked.only):
        train = images if who == "clean" else images.with_(mi.Perturbation.load(folder / who))
        found = []
        for seed in range(1, asked.victims + 1):
            victim = mi.build(asked.model, train, seed=seed)
            mi.fit(victim, train, seed=seed, **size.victim)
            found.append(mi.accuracy(victim, test))
        spread = f" ± {statistics.stdev(found):.4f}" if len(found) > 1 else ""
        print(f"{who:10}{statistics.mean(found):.4f}{spread}", flush=True)


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description="Speed, memory and strength of MI-UE, ours and restated.")
    add = parser.add_argument
    add("--quick", action="store_true", help="1,000 pictures, one round of 3 noise steps: some forty seconds")
    add("--full", action="store_true", help="the paper's size: 50,000 pictures, 100 rounds")
    add("--only", choices=["ours", "restated"], action="append", help="one of the two (default: both)")
    add("--victims", type=int, default=0, metavar="N", help="victims to train on each noise (default: %(default)s)")
    add("--repeats", type=int, default=1, help="times that the two take turns (default: %(default)s)")
    data = "for miue_lib.load, or random: pictures of CIFAR-10's size (default: fashion-mnist-mini; on a GPU random)"
    add("--data", default="random" if on_gpu else "fashion-mnist-mini", help=data)
    add(
        "--model",
        choices=list(mi.MODELS),
        default="resnet18" if on_gpu else "small_resnet",
        help="(default: by device)",
    )
    add("--pictures", type=int, help="(default: 2,000; on a GPU 10,240)")
    add("--rounds", type=int, help="(default: 2)")
    add("--steps", type=int, help=f"noise steps a round (default: {SETTINGS['steps']})")
    add("--threads", type=int, default=min(2, os.cpu_count() or 1), help="of the CPU (default: %(default)s)")
    add("--workers", type=int, default=0, help="processes of the restatement's loader (default: %(default)s)")
    add("--child", help=argparse.SUPPRESS)
    add("--noise", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    usual = (10_240 if on_gpu else 2000, 2, SETTINGS["steps"])
    if asked.quick:
        usual = (1000, 1, 3)
    if asked.full:
        usual = (PAPER["pictures"], PAPER["rounds"], SETTINGS["steps"])
    for name, value in zip(("pictures", "rounds", "steps"), usual, strict=True):
        if getattr(asked, name) is None:
            setattr(asked, name, value)
    if asked.victims and asked.data == "random":
        parser.error("--victims needs pictures that can be learnt: --data cifar10, say")
    asked.only = asked.only or ["ours", "restated"]
    return asked


def main() -> None:
    asked = options()
    torch.set_num_threads(asked.threads)
    if asked.child:
        print(json.dumps(child(asked.child, asked)))
        return
    if torch.cuda.is_available():
        print(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    report_machine(asked.threads, ("torch", "torchvision", "numpy", "numba"))
    images, test = pictures(asked.data, asked.pictures)
    with tempfile.TemporaryDirectory() as folder:
        report_crafting(asked, images, Path(folder))
        if asked.victims and test is not None:
            report_victims(asked, images, test, Path(folder))
    report_load()


if __name__ == "__main__":
    main()
