"""From two arrays to an estimate: checks, slices, scaling, the shuffled baseline. It runs any estimator.

Sliced mutual information (Goldfeld and Greenewald 2021) is the mean of I(θᵀX; φᵀY) over independent, uniformly
distributed unit directions θ and φ. It is 0 just where I(X; Y) is, needs estimates in 1-D × 1-D only, and is small in
high dimension: for isotropic Gaussians with ρ = 0.9 it is 0.33 nats in two dimensions and 0.0008 in 512.
"""

from __future__ import annotations

import math
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from .._errors import bad, check_choice, check_count, check_flag
from .estimate import Estimate, Readings

SCALES = ("standard", "rank", "none")
_NEAR_CEILING = 0.75
_LOCK = threading.Lock()
_before: list[list[str]] = []  # the precisions that each who is in `_exact_products` found
_VALUES = {"cpu": 1 << 21, "cuda": 1 << 25}  # projected values of one side held at once
_SLICES = 65_535  # a GPU's limit for the second axis of a launch
_ROUNDINGS = 4  # of each column, in the spread of a slice: of the data, of the centred data and of the product


class Common(TypedDict, total=False):
    """The settings that all estimators share; see `mutual_information`."""

    slices: int | tuple[Any, Any] | None
    seed: int
    scale: str
    whiten: bool | int
    baseline: bool
    device: str | torch.device | None


@dataclass(frozen=True)
class Measure:
    """An estimator with its settings.

    core: of slices x, y `(m, n)` and, if `vectors`, of `(m, n, d_x)`, `(m, n, d_y)`. least_n: the fewest pairs.
    invariant: whether it reads the same however a side is shifted and scaled, so that scaling can be spared.
    cells: of n, how many numbers it keeps for each slice beside its values.
    """

    name: str
    settings: Mapping[str, Any]
    core: Callable[[Tensor, Tensor], Readings]
    vectors: bool = False
    least_n: int = 2
    invariant: bool = False
    cells: Callable[[int], int] = lambda n: 0


def directions(slices: int, dimension_x: int, dimension_y: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """θ `(slices, dimension_x)` and φ `(slices, dimension_y)`: independent, uniform on the unit spheres; float64."""
    generator = torch.Generator("cpu").manual_seed(check_count("seed", seed, 0))
    slices = check_count("slices", slices)
    drawn = [
        torch.randn(slices, check_count(name, d), generator=generator, dtype=torch.float64, device="cpu")
        for name, d in (("dimension_x", dimension_x), ("dimension_y", dimension_y))
    ]
    return drawn[0] / drawn[0].norm(dim=1, keepdim=True), drawn[1] / drawn[1].norm(dim=1, keepdim=True)


def measure(x: Any, y: Any, plan: Measure, common: Common) -> Estimate:
    """The estimate of `plan` for x and y: what every estimator of this package ends in."""
    unknown = set(common) - set(Common.__annotations__)
    if unknown:
        raise TypeError(f"{plan.name}() got an unexpected keyword argument {min(unknown)!r}")
    slices, seed = common.get("slices"), check_count("seed", common.get("seed", 0), 0)
    scale = check_choice("scale", common.get("scale", "standard"), SCALES)
    whiten = _check_whiten(common.get("whiten", False))
    with_baseline = check_flag("baseline", common.get("baseline", True))
    a, b = _pair(x, y, common.get("device"))
    n = len(a)
    if n < plan.least_n:
        raise bad("x", f"{n} rows", f"at least {plan.least_n} for {plan.name} with these settings")
    sizes = [_check_varies(name, side, every_column=slices is None) for name, side in (("x", a), ("y", b))]
    if whiten:
        a, b = _whitened("x", a, whiten), _whitened("y", b, whiten)
        sizes = [torch.ones_like(side[0]) for side in (a, b)]  # of variance one
    along = None if slices is None else _directions(slices, a, b, seed)
    batches = _whole(a, b, plan) if along is None else _projections(a, b, *along, sizes, plan.cells(n))

    found, of_shuffled = [], []
    with (
        torch.cuda.device(a.device) if a.is_cuda else nullcontext(),  # where Triton launches
        _cpu_by_default(),
        _exact_products(a.device),
    ):
        shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(a.device)
        for u, v in batches:
            if scale == "rank" or (scale == "standard" and not plan.invariant):
                u, v = _scaled("x", u, scale), _scaled("y", v, scale)
            found.append(plan.core(u, v))
            if with_baseline:
                of_shuffled.append(plan.core(u, v[:, shuffled]))
    per_slice, ceiling = _joined(found, "value"), float(_joined(found, "ceiling").mean())
    value, stderr = _mean(found)
    baseline, baseline_stderr = _mean(of_shuffled) if with_baseline else (None, None)
    for reading, what in ((value, "data"), (baseline, "shuffled data")):
        if reading is not None and not math.isfinite(reading):
            remedy = "scale='rank'" + " or a smaller learning_rate" * ("learning_rate" in plan.settings)
            raise bad("x, y", f"{what} of which {plan.name} reads {reading}", f"moderate values: try {remedy}")
    if value >= _NEAR_CEILING * ceiling:
        warn(
            f"{plan.name} reads {value:.3g} nats, and can't read more than {ceiling:.3g} at n = {n}: the truth may be "
            "larger, and is infinite where one side is a continuous function of the other"
        )
    return Estimate(
        value=value,
        stderr=stderr,
        baseline=baseline,
        baseline_stderr=baseline_stderr,
        per_slice=per_slice,
        ceiling=ceiling,
        n=n,
        estimator=plan.name,
        settings=dict(plan.settings)
        | {"slices": None if slices is None else len(per_slice), "seed": seed, "scale": scale, "whiten": whiten},
        details={name: torch.cat([r.details[name] for r in found]).cpu() for name in found[0].details},
    )


def _joined(found: list[Readings], name: str) -> Tensor:
    return torch.cat([getattr(readings, name) for readings in found]).cpu()


def _mean(found: list[Readings]) -> tuple[float, float]:
    """Over slices, with its standard error; of a single reading, with its own."""
    values = _joined(found, "value")
    if len(values) == 1:
        return float(values), float(_joined(found, "stderr"))
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


def warn(message: str) -> None:
    """A warning that points at the line outside this package from which it was entered."""
    level, frame, package = 1, sys._getframe(), __name__.partition(".")[0]
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


# What comes in


def _pair(x: Any, y: Any, device: Any) -> tuple[Tensor, Tensor]:
    sides = [_matrix(name, value) for name, value in (("x", x), ("y", y))]
    if device is not None:
        sides = [side.to(_check_device(device)) for side in sides]
    if sides[0].device.type not in ("cpu", "cuda"):
        raise bad("device", str(sides[0].device), "a CPU or CUDA device")
    if sides[0].device != sides[1].device:
        raise bad("y", f"a tensor on {sides[1].device}", f"one on {sides[0].device}, where x is, or device=…")
    if len(sides[0]) != len(sides[1]):
        raise bad("y", f"{len(sides[1])} rows", f"as many as x has, {len(sides[0])}: they are pairs")
    precise = torch.float64 if torch.float64 in (sides[0].dtype, sides[1].dtype) else torch.float32
    return sides[0].to(precise), sides[1].to(precise)


def _matrix(name: str, value: Any) -> Tensor:
    if isinstance(value, np.ma.MaskedArray):
        raise bad(name, "a masked array", "an array without a mask: leave out the pairs where a side is masked")
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub":
            raise bad(name, f"a numpy array of {value.dtype}", "real numbers")
        narrow = value.dtype.kind == "f" and value.dtype.itemsize <= 4
        value = torch.from_numpy(np.require(value, np.float32 if narrow else np.float64, ["C", "W", "E"]))
    if not isinstance(value, Tensor):
        raise bad(name, type(value).__name__, "a torch tensor or numpy array, (N,) or (N, d)")
    if value.is_meta or value.layout != torch.strided:
        raise bad(name, f"a {value.layout} tensor on {value.device}", "a dense tensor that holds values")
    if value.is_complex():
        raise bad(name, str(value.dtype), "real numbers; give real and imaginary part as two columns")
    if value.ndim not in (1, 2) or 0 in value.shape:
        raise bad(name, f"shape {tuple(value.shape)}", "(N,) or (N, d), not empty")
    whole = not value.is_floating_point()
    matrix = value.detach().to(torch.float64 if whole or value.dtype == torch.float64 else torch.float32)
    if not bool(matrix.isfinite().all()):
        raise bad(name, f"{int((~matrix.isfinite()).sum())} values that are NaN or infinite", "finite numbers")
    return matrix[:, None] if matrix.ndim == 1 else matrix


def _check_device(device: Any) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise bad("device", repr(device), f"a device that is there, such as 'cpu' ({reason})") from None
    return found


def _check_whiten(whiten: Any) -> bool | int:
    if isinstance(whiten, bool):
        return whiten
    return check_count("whiten", whiten)


def _check_varies(name: str, side: Tensor, every_column: bool) -> Tensor:
    """The largest magnitude in each column; 0 in one that is constant, as rounding is the same in all its rows."""
    low, high = side.amin(0), side.amax(0)
    still = low == high
    if bool(still.all()):
        raise bad(name, "one unique value in every row", "a variable that varies")
    if every_column and bool(still.any()):
        columns = still.nonzero()[:, 0].tolist()
        raise bad(name, f"constant columns {columns[:8]}", "columns that vary, or slices=…, which ignore constant ones")
    return torch.maximum(high, -low).masked_fill(still, 0)


# Slices and scaling


def _whole(a: Tensor, b: Tensor, plan: Measure) -> Iterator[tuple[Tensor, Tensor]]:
    """Everything as the one slice: `(1, n)`, or `(1, n, d)` for vectors."""
    if a.shape[1] == b.shape[1] == 1:
        yield a.T, b.T
    elif plan.vectors:
        yield a[None], b[None]
    else:
        name, columns = ("x", a.shape[1]) if a.shape[1] > 1 else ("y", b.shape[1])
        raise bad(name, f"{columns} columns", f"one column for {plan.name}, or slices=… (200, say)")


def _directions(slices: Any, a: Tensor, b: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    if not isinstance(slices, (tuple, list)):
        return directions(check_count("slices", slices), a.shape[1], b.shape[1], seed)
    if len(slices) != 2 or not all(isinstance(part, Tensor) and part.ndim == 2 for part in slices):
        parts = [f"{part.ndim}-D tensor" if isinstance(part, Tensor) else type(part).__name__ for part in slices]
        raise bad("slices", f"a {type(slices).__name__} of {parts}", "a number, or a tuple (theta, phi) of 2-D tensors")
    theta, phi = slices[0].detach(), slices[1].detach()
    for name, part, side in (("theta", theta, a), ("phi", phi, b)):
        if part.shape[1] != side.shape[1]:
            raise bad("slices", f"{name} of shape {tuple(part.shape)}", f"(m, {side.shape[1]}), for as many columns")
        if not (part.is_floating_point() and bool(part.isfinite().all()) and bool(part.any(1).all())):
            raise bad("slices", f"{name} with a direction that is none", "finite directions other than 0")
    if len(theta) != len(phi) or not len(theta):
        raise bad("slices", f"{len(theta)} and {len(phi)} directions", "equally many, at least one")
    return theta, phi


def _projections(
    a: Tensor, b: Tensor, theta: Tensor, phi: Tensor, sizes: list[Tensor], cells: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """(θ A, φ B) `(slices, n)`, a batch of slices at a time. sizes: largest magnitudes of the columns."""
    theta, phi = theta.to(a), phi.to(b)
    # How far apart rounding alone can put the values of a slice
    rounding = _ROUNDINGS * torch.finfo(a.dtype).eps
    noise_x, noise_y = rounding * (theta.abs() @ sizes[0]), rounding * (phi.abs() @ sizes[1])
    a, b = a - a.mean(0), b - b.mean(0)  # so that projecting loses no precision to a large mean
    size = min(max(1, _VALUES.get(a.device.type, _VALUES["cpu"]) // max(len(a), cells)), _SLICES)
    for start in range(0, len(theta), size):
        part = slice(start, start + size)
        u, v = theta[part] @ a.T, phi[part] @ b.T
        for name, side, noise in (("x", u, noise_x), ("y", v, noise_y)):
            if bool((side.amax(1) - side.amin(1) <= noise[part]).any()):
                raise bad(name, "a slice that is constant up to rounding", "data that vary along every direction")
        yield u, v


def _cpu_by_default() -> Any:
    """Inside, tensors that don't say where they go (Adam's, say) go to the CPU. Left out, as it costs, if they do."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


@contextmanager
def _exact_products(device: torch.device) -> Iterator[None]:
    """Inside, float32 matrices are multiplied in float32: TF32 would leave ten bits, and ties.

    The switches belong to the process: of several threads inside, the first saves them and the last restores them.
    """
    # The settings of each backend: torch.get_float32_matmul_precision() raises once somebody has used these.
    mkldnn: Any = torch.backends.mkldnn
    backends: list[Any] = [torch.backends.cuda.matmul, mkldnn.matmul]
    with _LOCK:
        _before.append([backend.fp32_precision for backend in backends])
        for backend in backends:
            backend.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        with _LOCK:
            precisions = _before.pop()  # of the first to come in once the list is empty
            if not _before:
                for backend, precision in zip(backends, precisions, strict=True):
                    backend.fp32_precision = precision


def _scaled(name: str, values: Tensor, scale: str) -> Tensor:
    """Slices `(m, n)`, or columns of `(1, n, d)`, each standardised or turned into normal scores."""
    if scale == "rank":
        return _normal_scores(values)
    values = values - values.mean(1, keepdim=True)
    deviation = values.std(1, keepdim=True)
    unusable = deviation[~((deviation > 0) & deviation.isfinite())]
    if len(unusable):
        raise bad(name, f"a standard deviation of {float(unusable[0])}", "values that vary, of moderate size")
    return values / deviation


def _normal_scores(values: Tensor) -> Tensor:
    """Each value's rank (the middle one of equals) as a quantile of the normal distribution."""
    if values.ndim == 3:
        return torch.stack([_normal_scores(values[:, :, c]) for c in range(values.shape[2])], 2)
    values = values.contiguous()
    ascending = values.sort(1).values
    n = values.shape[1]
    below = torch.searchsorted(ascending, values)
    not_above = torch.searchsorted(ascending, values, right=True)
    scores: Tensor = torch.special.ndtri((below + not_above).double() / (2 * n))
    return scores.to(values.dtype)


def _whitened(name: str, side: Tensor, components: bool | int) -> Tensor:
    """The first principal components of the rows, each of variance one; True takes all that vary."""
    centred = side.double()
    centred -= centred.mean(0)
    values, axes = torch.linalg.eigh(centred.T @ centred / (len(side) - 1))
    values, axes = values.flip(0), axes.flip(1)
    rounding = max(torch.finfo(torch.float64).eps, torch.finfo(side.dtype).eps ** 2)  # of a variance
    rank = int((values > values[0] * len(values) * rounding).sum())
    if components is not True:
        if components > rank:
            raise bad("whiten", components, f"at most {rank}, the number of directions in which {name} varies")
        rank = components
    white: Tensor = centred @ (axes[:, :rank] / values[:rank].sqrt())
    return white.to(side.dtype)
