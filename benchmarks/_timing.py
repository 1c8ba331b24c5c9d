"""What the benchmarks share: time, memory, and what this machine could do at best."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

SLOW = 20.0  # seconds beyond which a contender runs once
SHORTEST = 0.02  # seconds that a measurement lasts at least, by repeating
GPU_REPEATS = 5


# Time


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def gpu_seconds(work: Callable[[], Any], repeats: int = GPU_REPEATS) -> tuple[float, float, Any]:
    """Fastest and median time by CUDA events, after a warm-up in which Triton compiles, and what `work` returned."""
    work()
    result = None
    seconds = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        result = work()
        end.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return min(seconds), statistics.median(seconds), result


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, (0.2, 0.5, 0.8))
    return float(low), float(middle), float(high)


# What is possible


def matmul_rate(device: str, dtype: torch.dtype, side: int) -> float:
    """FLOP/s of a large product of matrices of that type, without TF32."""
    torch.set_float32_matmul_precision("highest")
    a = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / _fastest(lambda: a @ a, device)


def copy_bandwidth(device: str, values: int) -> float:
    """Bytes/s of a large copy of float32, read and written."""
    source = torch.zeros(values, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * values / _fastest(lambda: target.copy_(source), device)


def _fastest(work: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        return gpu_seconds(work)[0]
    work()
    return min(timed(work)[0] for _ in range(GPU_REPEATS))


# Memory


def restart_peak(device: str = "cpu") -> float:
    """What is held now, in megabytes; from here on, so far as the system allows, the peak counts anew."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1e6
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_megabytes()


def peak_megabytes(device: str = "cpu") -> float:
    """Peak resident memory of this process; on a GPU, of tensors there.

    Linux's getrusage would not do: it begins with the peak of the process that started this one.
    """
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.exists() and (peak := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(peak[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


# The machine


def report_machine(cores: int, packages: Sequence[str], peers: Sequence[str] = ()) -> None:
    """What runs where. Peers are packages that are left out of the comparison if they are not installed."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    print(f"{model[1] if model else platform.processor() or platform.machine()}, {os.cpu_count()} cores, {cores} used")
    found = [f"python {platform.python_version()}"]
    for package in (*packages, *peers):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed" + (": left out" if package in peers else ""))
    print(", ".join(found))
    report_load()


def report_load() -> None:
    if hasattr(os, "getloadavg"):
        print("load over 1, 5 and 15 minutes: " + ", ".join(f"{load:.2f}" for load in os.getloadavg()))


def gpu_name() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = "unknown"
    with suppress(OSError, subprocess.CalledProcessError):
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")[0]
    return f"{torch.cuda.get_device_name()}, driver {driver}, CUDA {torch.version.cuda}"
