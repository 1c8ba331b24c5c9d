"""How a victim answers near a picture: how far it can be moved before it is misjudged, and how straight the way is."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from .._errors import bad, check_count, check_number
from ..attack import Attack
from ..data import ImageSet
from ..train import autocast, batches, check_model, evaluating, repeatable


def robust_accuracy(
    model: nn.Module, images: ImageSet, *, radius: float, step: float | None = None, steps: int = 10, seed: int = 0
) -> float:
    """The share of `images` that `model` classifies as labelled, and still does after an attack, in [0, 1].

    radius: how far a pixel may move. step: of one of the attack's `steps`; None is 2.5 · radius / steps, enough to
    cross the budget, as Madry et al. (2018) chose it. Both in pixel values in [0, 1]. seed: of the random start.

    The attack is `miue_lib.attack.Attack` (projected gradient ascent on cross-entropy, L∞) on the model in evaluation
    mode. A picture that is wrong before it counts as wrong, even if the attack happens to put it right. So radius 0
    gives `miue_lib.accuracy`, and no other radius gives more.

    It is an upper bound: another attack, or more steps, may find what this one missed. A model so sure of its answer
    that the cross-entropy rounds to 0 has no gradient to follow, and seems more robust than it is (Croce and Hein
    2020).

    Raises `ValueError` for a setting out of range or a model that does not fit the pictures.
    """
    check_model(model, images)
    check_number("radius", radius, 0, 1)
    check_count("steps", steps)
    step = min(1.0, 2.5 * radius / steps) if step is None else check_number("step", step, 0, 1, open_low=True)
    attack = Attack(radius=radius, step=step, steps=steps if radius > 0 else 0)
    generator = torch.Generator(images.device).manual_seed(check_count("seed", seed, 0))
    held = torch.zeros((), dtype=torch.int64, device=images.device)
    with evaluating(model), repeatable():
        for pictures, labels in batches(images):
            with torch.enable_grad():
                moved = attack(model, pictures, labels, generator)
            with autocast(images.device):
                right = [model(seen).argmax(1) == labels for seen in (pictures, moved)]
            held += (right[0] & right[1]).sum()
    return int(held) / len(images)


def local_linearity(model: nn.Module, images: ImageSet, *, radius: float, seed: int = 0) -> float:
    """How much of the change of a model's logits, `radius` away from a picture, its derivative there predicts:

        1 − E‖f(x + d) − f(x) − J(x) d‖ / E‖f(x + d) − f(x)‖,

    over pictures x and corners d of the L∞ ball: each pixel moves up or down by `radius` (pixel values in [0, 1]), at
    random. 1: f is linear there; 0: one could as well predict that nothing changes; below 0: the derivative is worse
    than that. Norms are Euclidean; f are the logits less their mean over classes, since what is added to all of them
    changes no decision. J(x) d is exact, by forward-mode differentiation. seed: of the corners, one a picture.

    The error of linearisation is that of Moosavi-Dezfooli et al. (2019) and Qin et al. (2019), who penalise it in
    training. Theirs is of the loss, in absolute terms and in the worst direction; this one is of the logits, relative
    to how much they change, and in a typical direction, so that models of different scale can be compared. x + d is
    not clipped to [0, 1]: the statement is about the function, not about pictures.

    Computed in float32 throughout, and rounding (of about 1e-6 of the logits) is nothing that a derivative predicts:
    take a radius that moves the logits by much more. Raises `ValueError` for a setting out of range, a model that does
    not fit the pictures, and logits that do not change at all.
    """
    check_model(model, images)
    check_number("radius", radius, 0, 1, open_low=True)
    generator = torch.Generator(images.device).manual_seed(check_count("seed", seed, 0))

    def centred(pictures: Tensor) -> Tensor:
        logits: Tensor = model(pictures)
        return logits - logits.mean(1, keepdim=True)

    missed = changed = torch.zeros((), dtype=torch.float64, device=images.device)
    with evaluating(model), repeatable(tf32=False):
        for pictures, _ in batches(images):
            up = torch.randint(2, pictures.shape, generator=generator, device=pictures.device)
            corner = radius * (2.0 * up - 1).contiguous(memory_format=torch.channels_last)
            here, predicted = _with_derivative(centred, pictures, corner)
            change = centred(pictures + corner) - here
            missed = missed + (change - predicted).norm(dim=1).sum(dtype=torch.float64)
            changed = changed + change.norm(dim=1).sum(dtype=torch.float64)
    if float(changed) == 0:
        raise bad("model", f"logits that do not change within {radius:g}", "logits that depend on the picture")
    return 1 - float(missed / changed)


def _with_derivative(f: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """f(x), and the derivative of f at x in a direction, in one forward pass."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", "`torch.jit.script`")  # which torch itself calls the first time, deprecated
        value, derivative = forward_ad.unpack_dual(f(forward_ad.make_dual(x, direction)))  # type: ignore[no-untyped-call]
    return value, torch.zeros_like(value) if derivative is None else derivative
