"""From two arrays to an estimate: checks, slices, scaling, the shuffled baseline. It runs any estimator.

Sliced mutual information (Goldfeld and Greenewald 2021) is the mean of I(θᵀX; φᵀY) over independent, uniformly
distributed unit directions θ and φ. It is 0 just where I(X; Y) is, needs estimates in 1-D × 1-D only, and is small in
high dimension: for isotropic Gaussians with ρ = 0.9 it is 0.33 nats in two dimensions and 0.0008 in 512.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from .._errors import bad, check_choice, check_count, check_flag
from .estimate import Estimate, Readings

SCALES = ("standard", "rank", "none")
_NEAR_CEILING = 0.75
_VALUES = {"cpu": 1 << 21, "cuda": 1 << 25}  # projected values of one side held at once
_SLICES = 65_535  # a GPU's limit for the second axis of a launch


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
    cells: of the table it keeps for each slice.
    """

    name: str
    settings: Mapping[str, Any]
    core: Callable[[Tensor, Tensor], Readings]
    vectors: bool = False
    least_n: int = 2
    invariant: bool = False
    cells: int = 0


def directions(slices: int, dimension_x: int, dimension_y: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """θ `(slices, dimension_x)` and φ `(slices, dimension_y)`: independent, uniform on the unit spheres; float64."""
    generator = torch.Generator().manual_seed(check_count("seed", seed, 0))
    slices = check_count("slices", slices)
    drawn = [
        torch.randn(slices, check_count(name, d), generator=generator, dtype=torch.float64)
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
    for name, side in (("x", a), ("y", b)):
        _check_varies(name, side, every_column=slices is None)
    if whiten:
        a, b = _whitened("x", a, whiten), _whitened("y", b, whiten)
    batches = _whole(a, b, plan) if slices is None else _projections(a, b, *_directions(slices, a, b, seed), plan.cells)

    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).to(a.device)
    found, of_shuffled = [], []
    with _exact_products(a.device):
        for u, v in batches:
            for name, side in (("x", u), ("y", v)):
                if slices is not None and bool((side.amin(1) == side.amax(1)).any()):
                    raise bad(name, "a slice that is constant", "data that vary along every direction")
            if scale == "rank" or (scale == "standard" and not plan.invariant):
                u, v = _scaled("x", u, scale), _scaled("y", v, scale)
            found.append(plan.core(u, v))
            if with_baseline:
                of_shuffled.append(plan.core(u, v[:, shuffled]))
    per_slice, ceiling = _joined(found, "value"), float(_joined(found, "ceiling").mean())
    value, stderr = _mean(found)
    if not math.isfinite(value):
        raise bad("x, y", f"data of which {plan.name} reads {value}", "values of moderate size, or scale='standard'")
    baseline, baseline_stderr = _mean(of_shuffled) if with_baseline else (None, None)
    if value >= _NEAR_CEILING * ceiling:
        warnings.warn(
            f"{plan.name} reads {value:.3g} nats, and can't read more than {ceiling:.3g} at n = {n}: the truth may be "
            "larger, and is infinite where one side is a continuous function of the other",
            stacklevel=3,
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
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub":
            raise bad(name, f"a numpy array of {value.dtype}", "real numbers")
        narrow = value.dtype.kind == "f" and value.dtype.itemsize <= 4
        value = torch.from_numpy(np.ascontiguousarray(value, np.float32 if narrow else np.float64))
    if not isinstance(value, Tensor):
        raise bad(name, type(value).__name__, "a torch tensor or numpy array, (N,) or (N, d)")
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


def _check_varies(name: str, side: Tensor, every_column: bool) -> None:
    still = side.amin(0) == side.amax(0)
    if bool(still.all()):
        raise bad(name, "one unique value in every row", "a variable that varies")
    if every_column and bool(still.any()):
        columns = still.nonzero()[:, 0].tolist()
        raise bad(name, f"constant columns {columns[:8]}", "columns that vary, or slices=…, which ignore constant ones")


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
    if not isinstance(slices, tuple):
        return directions(check_count("slices", slices), a.shape[1], b.shape[1], seed)
    if len(slices) != 2 or not all(isinstance(part, Tensor) and part.ndim == 2 for part in slices):
        raise bad("slices", f"a tuple of {len(slices)}", "a number, or the pair (theta, phi) of 2-D tensors")
    theta, phi = slices
    for name, part, side in (("theta", theta, a), ("phi", phi, b)):
        if part.shape[1] != side.shape[1]:
            raise bad("slices", f"{name} of shape {tuple(part.shape)}", f"(m, {side.shape[1]}), for as many columns")
        if not (part.is_floating_point() and bool(part.isfinite().all()) and bool(part.any(1).all())):
            raise bad("slices", f"{name} with a direction that is none", "finite directions other than 0")
    if len(theta) != len(phi) or not len(theta):
        raise bad("slices", f"{len(theta)} and {len(phi)} directions", "equally many, at least one")
    return theta, phi


def _projections(a: Tensor, b: Tensor, theta: Tensor, phi: Tensor, cells: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(θ A, φ B) `(slices, n)`, a batch of slices at a time."""
    a, b = a - a.mean(0), b - b.mean(0)  # so that projecting loses no precision to a large mean
    theta, phi = theta.to(a), phi.to(b)
    size = min(max(1, _VALUES.get(a.device.type, _VALUES["cpu"]) // max(len(a), cells)), _SLICES)
    for start in range(0, len(theta), size):
        part = slice(start, start + size)
        yield theta[part] @ a.T, phi[part] @ b.T


@contextmanager
def _exact_products(device: torch.device) -> Iterator[None]:
    """Inside, float32 matrices are multiplied in float32: TF32 would leave ten bits, and ties."""
    # The settings of each backend: torch.get_float32_matmul_precision() raises once somebody has used these.
    mkldnn: Any = torch.backends.mkldnn
    backends: list[Any] = [torch.backends.cuda.matmul, mkldnn.matmul]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def _scaled(name: str, values: Tensor, scale: str) -> Tensor:
    """Slices `(m, n)`, or columns of `(1, n, d)`, each standardised or turned into normal scores."""
    if scale == "rank":
        return _normal_scores(values)
    values = values - values.mean(1, keepdim=True)
    deviation = values.std(1, keepdim=True)
    if not bool(((deviation > 0) & deviation.isfinite()).all()):
        raise bad(name, f"a standard deviation of {float(deviation.amax())}", "values that vary, of moderate size")
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
