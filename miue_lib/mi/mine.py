"""Mutual information from a neural network: MINE (Belghazi et al. 2018).

Donsker and Varadhan (1983): for every function T, with (x, y) a pair and (x, y') of two different pairs,

    I(X; Y) ≥ E T(x, y) − log E exp T(x, y'),

with equality for the logarithm of the density ratio, up to a constant. T is a small network, trained to raise the right
side. The logarithm makes the gradient of a mini-batch biased; its denominator is therefore a running mean, as the
authors propose.

What is reported is the right side on pairs that were held out, with the running mean of the weights. On the training
mini-batches it would jump by 0.06 nats from one to the next at ρ = 0.9, and on all training pairs it would reward
memorising. It is a lower bound up to the noise of n' held-out pairs, and the logarithm of a mean of n' terms can't be
trusted beyond about log n' (McAllester and Stratos 2020), which is given as the ceiling: with a few dozen pairs, T can
exceed it by chance.

Far outliers make T large, and then a few pairs decide the mean of exp T; it is formed in logarithms, so that nothing
overflows, but heavy tails still read too small. Take scale="rank" there.

All slices are trained at once: the weights of m networks are stacked, and a layer is one batched matrix product. All
start from the same weights and see the same mini-batches, so that a batch of slices gives what a loop would.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from .._errors import check_count, check_number
from .estimate import Estimate, Readings
from .sliced import Common, Measure, measure

_HELD_OUT = 0.3
_SHUFFLES = 10  # pairings of the held-out x and y in the second term
_RUNNING = 0.01  # weight of a new mini-batch in the running means
_CURVE = 20  # points on the learning curve


def mine(
    x: Any,
    y: Any,
    *,
    hidden: int = 64,
    steps: int = 1000,
    batch_size: int = 512,
    learning_rate: float = 3e-3,
    **common: Unpack[Common],
) -> Estimate:
    """I(X; Y) by a network with two hidden layers, trained for `steps` mini-batches with Adam and a falling rate.

    x, y and `common`: see `mutual_information`; its seed also chooses weights and mini-batches. Vectors of any
    dimension are taken without slices. `details["curve"]` `(m, 20)` is the held-out value along the training.
    """
    return measure(x, y, plan(hidden, steps, batch_size, learning_rate, common.get("seed", 0)), common)


def plan(
    hidden: int = 64, steps: int = 1000, batch_size: int = 512, learning_rate: float = 3e-3, seed: int = 0
) -> Measure:
    hidden, steps = check_count("hidden", hidden), check_count("steps", steps, _CURVE)
    batch_size = check_count("batch_size", batch_size, 2)
    learning_rate = check_number("learning_rate", learning_rate, 0, open_low=True)
    seed = check_count("seed", seed, 0)
    core = partial(readings, hidden=hidden, steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    settings = {"hidden": hidden, "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
    cells = lambda n: max(batch_size, _held_out(n)) * hidden + hidden**2  # noqa: E731
    return Measure("mine", settings, core, vectors=True, least_n=10, cells=cells)


def _held_out(n: int) -> int:
    return max(2, int(_HELD_OUT * n))


@torch.inference_mode(False)
def readings(
    x: Tensor, y: Tensor, *, hidden: int, steps: int, batch_size: int, learning_rate: float, seed: int
) -> Readings:
    """Of scaled slices x, y `(m, n)`, or of vectors `(m, n, d_x)`, `(m, n, d_y)`."""
    x, y = (part if part.ndim == 3 else part[:, :, None] for part in (x, y))
    x, y = x.float(), y.float()
    m, n = x.shape[:2]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(n, generator=generator).to(x.device)
    held_out = _held_out(n)
    x_test, y_test = x[:, order[:held_out]], y[:, order[:held_out]]
    x, y = x[:, order[held_out:]], y[:, order[held_out:]]

    weights = _weights(x.shape[2] + y.shape[2], hidden, generator)
    weights = [weight.to(x.device).expand(m, -1, -1).clone().requires_grad_() for weight in weights]
    averaged = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.Adam(weights, lr=learning_rate)
    running = torch.zeros_like(x[:, 0, 0])  # the logarithm of the running mean
    curve: list[Tensor] = []
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            one, other = torch.randint(n - held_out, (2, batch_size), generator=generator).to(x.device)
            together = _network(weights, x[:, one], y[:, one])
            apart = _network(weights, x[:, one], y[:, other]).logsumexp(1) - math.log(batch_size)
            share = max(_RUNNING, 1 / (step + 1))
            if step:  # T = 0 to begin with, as `running` is
                running = torch.logaddexp(running + math.log(1 - share), apart.detach() + math.log(share))
            # The gradient of each slice, with a smooth denominator; the ratio is at most 1 / share
            loss = ((apart - running).exp() - together.mean(1)).sum()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            for average, weight in zip(averaged, weights, strict=True):
                average.lerp_(weight.detach(), share)
            if (step + 1) * _CURVE // steps > len(curve):
                curve.append(_bound(averaged, x_test, y_test, shuffles=1)[0])
    value, stderr = _bound(averaged, x_test, y_test)
    curve[-1] = value
    return Readings(value, stderr, torch.full_like(value, math.log(held_out)), details={"curve": torch.stack(curve, 1)})


def _weights(inputs: int, hidden: int, generator: torch.Generator) -> list[Tensor]:
    """He's (2015) normal weights, zero biases, and a last layer of zeros: T = 0 and a bound of 0 to begin with."""
    weights = [
        torch.randn(1, inputs, hidden, generator=generator, dtype=torch.float32) * math.sqrt(2 / inputs),
        torch.zeros(1, 1, hidden),
        torch.randn(1, hidden, hidden, generator=generator, dtype=torch.float32) * math.sqrt(2 / hidden),
        torch.zeros(1, 1, hidden),
        torch.zeros(1, hidden, 1),
    ]
    return [weight.float() for weight in weights]


def _network(weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    """T(x, y) `(m, n)` of m networks. No bias at the end: the bound does not change with it."""
    first, bias, second, bias_too, last = weights
    z = F.silu(torch.baddbmm(bias, torch.cat((x, y), 2), first))
    z = F.silu(torch.baddbmm(bias_too, z, second))
    return torch.bmm(z, last)[:, :, 0]


@torch.no_grad()
def _bound(weights: list[Tensor], x: Tensor, y: Tensor, shuffles: int = _SHUFFLES) -> tuple[Tensor, Tensor]:
    """The right side on these pairs, and its standard error by the delta method, float64 `(m,)`."""
    n = x.shape[1]
    together = _network(weights, x, y).double()
    shuffles = min(shuffles, n - 1)
    shifts = [1 + i * (n - 1) // shuffles for i in range(shuffles)]
    apart = torch.stack([_network(weights, x, y.roll(shift, 1)).double() for shift in shifts])
    log_mean = apart.logsumexp((0, 2)) - math.log(apart.shape[0] * n)
    ratios = (apart - log_mean[:, None]).exp().mean(0)
    variance = together.var(1) + ratios.var(1)
    return together.mean(1) - log_mean, (variance / n).sqrt()
