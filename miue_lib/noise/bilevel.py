"""The loop that min–min methods share: train a surrogate on the noisy pictures, then move the noise, and again.

    min over δ of min over θ,  ‖δ_i‖∞ ≤ ε,

in rounds. The *model phase* takes SGD steps on cross-entropy over view(x + δ). The *noise phase* freezes the
surrogate (evaluation mode, no weight gradients) and takes `steps` sign-gradient steps on δ of each batch in turn,
through a fresh random view from the same family that the surrogate is trained on. Noise that is optimised on the
plain picture but trained on through crops (or the reverse) answers a question that no victim asks.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import bad, check_count, check_flag, check_number
from ..data import ImageSet
from ..kernels.crop_flip import View
from ..models import build, frozen
from ..perturbation import Perturbation
from ..train import accuracy, autocast, check_model, make_optimizer, repeatable, sgd, shuffled, steps_per_epoch
from .random import check_epsilon

Objective = Callable[[Any, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The settings that the methods share. Raises `ValueError` for one that is out of range.

    epsilon: L∞ budget in pixel values.
    step: of one sign-gradient step, in pixel values; with `step_decay` it falls in a line, to step / epochs in the
        last round. steps: of them on each batch a round. epochs: rounds.
    model_batches: SGD batches a round; None for one epoch.
    until_accuracy: stop after the round in which the surrogate classifies this share of the noisy pictures correctly;
        None for never.
    fresh_every: rounds after which the surrogate starts afresh, as every victim will; None to keep one throughout.
    """

    epsilon: float
    step: float
    steps: int
    epochs: int
    surrogate: str | nn.Module
    batch_size: int
    noise_batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float
    schedule: str
    crop: int
    flip: bool
    seed: int
    model_batches: int | None = None
    until_accuracy: float | None = None
    fresh_every: int | None = None
    step_decay: bool = False

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        check_number("step", self.step, 0, 1, open_low=True)
        for name, least in {
            "steps": 1,
            "epochs": 1,
            "batch_size": 1,
            "noise_batch_size": 4,
            "crop": 0,
            "seed": 0,
        }.items():
            check_count(name, getattr(self, name), least)
        check_flag("flip", self.flip)
        check_flag("step_decay", self.step_decay)
        if self.model_batches is not None:
            check_count("model_batches", self.model_batches)
        if self.fresh_every is not None:
            check_count("fresh_every", self.fresh_every)
            if not isinstance(self.surrogate, str):
                raise bad("fresh_every", self.fresh_every, "None with a surrogate that is a module, or a model's name")
        if self.until_accuracy is not None:
            check_number("until_accuracy", self.until_accuracy, 0, 1)
        if not isinstance(self.surrogate, str | nn.Module):
            raise bad("surrogate", repr(self.surrogate), "the name of a model or a module with features and head")


def bilevel(
    images: ImageSet,
    objective: Objective,
    *,
    method: str,
    settings: dict[str, Any],
    progress: Callable[[str], None] | None,
) -> Perturbation:
    """Run the rounds and return the noise, rounded to levels.

    objective: `(surrogate, views (n, C, H, W) in [0, 1], labels) → scalar`; δ descends it.
    settings: the method's own arguments, recorded in the result; those of `Loop` steer the rounds.
    progress: called with one line of text a round.

    Raises `ValueError` for settings out of range or a class with one picture, `FloatingPointError` if the objective
    or the surrogate's loss stops being finite.
    """
    loop = Loop(**{f.name: settings[f.name] for f in fields(Loop) if f.name in settings})
    epsilon, crop, flip = loop.epsilon, loop.crop, loop.flip
    batches_of = ClassBatches(images, loop.noise_batch_size)
    per_round = loop.model_batches or steps_per_epoch(len(images), loop.batch_size)
    lifetime = min(loop.fresh_every or loop.epochs, loop.epochs)
    settings = settings | {"surrogate": given if isinstance(given := loop.surrogate, str) else type(given).__name__}
    generator = torch.Generator(images.device).manual_seed(loop.seed)
    delta = torch.zeros(images.images.shape, device=images.device)

    def views() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            for index, view in shuffled(images, loop.batch_size, crop, flip, generator):
                yield view(images.floats(index) + delta[index]), images.labels[index]

    endless = views()
    curves: dict[str, list[float]] = {"loss": [], "train_accuracy": [], "objective": [], "seconds": []}
    start = time.perf_counter()
    for epoch in range(1, loop.epochs + 1):
        life, age = divmod(epoch - 1, lifetime)
        if age == 0:
            model, optimizer, scheduler = _surrogate(loop, images, life, steps=lifetime * per_round)
        model.train()
        with repeatable():
            loss, train_accuracy = sgd(model, optimizer, scheduler, itertools.islice(endless, per_round))
        judge = frozen(model)
        step = loop.step * (1 - (epoch - 1) / loop.epochs) if loop.step_decay else loop.step
        reached = torch.zeros((), device=images.device)
        count = 0
        for index in batches_of.draw(generator):
            pictures, labels, noise = images.floats(index), images.labels[index], delta[index]
            for _ in range(loop.steps):
                view = View.random(len(index), crop, flip, generator)
                gradient, value = _gradient(judge, objective, pictures + noise, labels, view)
                noise = (noise - step * gradient.sign()).clamp_(-epsilon, epsilon)
                noise = (pictures + noise).clamp_(0, 1).sub_(pictures)
                reached += value
                count += 1
            delta[index] = noise
        for name, number in zip(
            curves, (loss, train_accuracy, float(reached) / count, time.perf_counter() - start), strict=True
        ):
            curves[name].append(number)
        if not math.isfinite(curves["objective"][-1]):
            raise FloatingPointError(f"{method}: the objective became {curves['objective'][-1]} in round {epoch}")
        if progress is not None:
            progress(_line(method, epoch, loop.epochs, curves))
        if loop.until_accuracy is not None and epoch < loop.epochs:
            noisy = images.with_(Perturbation.of(images, delta, epsilon=epsilon, method=method, settings={}))
            if accuracy(model, noisy) >= loop.until_accuracy:
                break
    return Perturbation.of(images, delta, epsilon=epsilon, method=method, settings=settings, curves=curves)


def _surrogate(loop: Loop, images: ImageSet, life: int, steps: int) -> tuple[nn.Module, Any, Any]:
    """The surrogate of that number with its optimiser and schedule; a module that was given is copied, not changed."""
    # Seeds a thousand apart: nobody's victim happens to begin where one of the surrogates did.
    given = loop.surrogate
    model = build(given, images, seed=loop.seed + 1000 * life) if isinstance(given, str) else copy.deepcopy(given)
    model.to(images.device).to(memory_format=torch.channels_last)
    check_model(model, images)
    optimizer, scheduler = make_optimizer(
        model,
        steps=steps,
        learning_rate=loop.learning_rate,
        momentum=loop.momentum,
        weight_decay=loop.weight_decay,
        schedule=loop.schedule,
    )
    return model, optimizer, scheduler


def _gradient(
    model: nn.Module, objective: Objective, noisy: Tensor, labels: Tensor, view: View
) -> tuple[Tensor, Tensor]:
    """d objective / d noisy pictures through the view, and the objective's value."""
    seen = view(noisy).requires_grad_(True)
    with repeatable():
        with autocast(seen.device):
            value = objective(model, seen, labels)
        (gradient,) = torch.autograd.grad(value, seen)
    return view.adjoint(gradient), value.detach()


def _line(method: str, epoch: int, epochs: int, curves: dict[str, list[float]]) -> str:
    seconds = curves["seconds"][-1]
    return (
        f"{method} round {epoch}/{epochs}: surrogate loss {curves['loss'][-1]:.3f}, accuracy "
        f"{curves['train_accuracy'][-1]:.3f}, objective {curves['objective'][-1]:.3f}, {seconds:.0f} s, "
        f"at most {seconds / epoch * (epochs - epoch):.0f} s to go"
    )


class ClassBatches:
    """Batches for the noise phase in which every picture has partners of its own class and others to differ from.

    Each class is cut into groups of about `partners` pictures, or of size / classes where that is more, and the
    groups are dealt to the batches in turn, the largest class first. Where classes are few and even, every batch
    holds all of them alike. Batches are larger than `size` only where so few pictures are outside the largest class
    that smaller ones could not all have two classes.
    """

    def __init__(self, images: ImageSet, size: int, partners: int = 16) -> None:
        counts = torch.bincount(images.labels, minlength=len(images.classes)).tolist()
        used = sorted((c for c, n in enumerate(counts) if n), key=lambda c: -counts[c])
        if len(used) < 2:
            raise bad("images", "pictures of one class", "two classes or more")
        lonely = [images.classes[c] for c in used if counts[c] == 1]
        if lonely:
            raise bad("images", f"one picture of class {', '.join(lonely)}", "two or more of each class")
        self.members = [(images.labels == c).nonzero()[:, 0] for c in used]
        wanted = min(size // 2, max(partners, size // len(used)))
        self.groups = [max(1, min(round(len(m) / wanted), len(m) // 2)) for m in self.members]
        # Dealt in turn, so many batches get a group outside the largest class, and so many get two groups.
        self.count = max(1, min(round(len(images) / size), sum(self.groups[1:]), sum(self.groups) // 2))

    def draw(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The indices of each batch; together they hold every picture once."""
        batches: list[list[Tensor]] = [[] for _ in range(self.count)]
        turn = itertools.cycle(batches)
        others = 1 + torch.randperm(len(self.members) - 1, generator=generator, device=generator.device)
        for c in [0, *others.tolist()]:
            order = torch.randperm(len(self.members[c]), generator=generator, device=generator.device)
            for group in self.members[c][order].tensor_split(self.groups[c]):
                next(turn).append(group)
        for batch in batches:
            yield torch.cat(batch)
