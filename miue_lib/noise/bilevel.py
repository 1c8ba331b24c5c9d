"""The engine that min–min methods share: train a surrogate on the noisy pictures, then move the noise, and again.

    min over δ of min over θ,  ‖δ_i‖∞ ≤ ε,

in rounds. The *model phase* takes SGD steps on cross-entropy over view(x + δ). The *noise phase* freezes the
surrogate (evaluation mode, no weight gradients) and takes `steps` sign-gradient steps on δ of each batch in turn,
through a fresh random view from the same family that the surrogate is trained on. Noise that is optimised on the
plain picture but trained on through crops (or the reverse) answers a question that no victim asks.

A run is a row of *ticks*: a batch of the model phase, or all steps of a batch of the noise phase. What is random in a
tick depends on the seed and the tick's number alone, never on what was drawn before. So the state between two ticks
is the noise, the surrogate, its optimiser and the number: a run can stop after any tick and go on as if it had not.
Pictures, noise and surrogate stay on the device, and nothing is read back from it before a round ends.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import bad, check_count, check_flag, check_number
from ..attack import Attack
from ..data import ImageSet
from ..kernels.crop_flip import View, pixel_values
from ..kernels.noise_step import noise_step
from ..models import build, frozen
from ..perturbation import Perturbation, budget_in_levels, rounded
from ..train import Descent, autocast, check_model, gradient_scale, repeatable, steps_per_epoch
from .batches import ClassBatches, check_classes
from .checkpoint import Keeper, State
from .execution import Execution, of_rank
from .random import check_epsilon
from .ranks import Batch, Ranks
from .store import Store, mapped

Objective = Callable[[Any, Tensor, Batch], Tensor]
Through = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The settings that the methods share. Raises `ValueError` for one that is out of range.

    epsilon: L∞ budget in pixel values.
    step: of one sign-gradient step, in pixel values; with `step_decay` it falls in a line, to step / epochs in the
        last round. steps: of them on each batch a round. epochs: rounds.
    batch_size, noise_batch_size: over all processes, where several craft together.
    model_batches: SGD batches a round; None for one epoch.
    until_accuracy: stop after the round in which the surrogate classifies this share of the noisy pictures correctly;
        None for never.
    fresh_every: rounds after which the surrogate starts afresh, as every victim will; None to keep one throughout.
    draws: random views whose gradients are averaged for one step on the noise. start_anew: whether the noise of a
    batch starts in every round from uniform noise in the budget, instead of from where
        the last round left it (at first: nothing).
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
    draws: int = 1
    start_anew: bool = False

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
            "draws": 1,
        }.items():
            check_count(name, getattr(self, name), least)
        check_flag("flip", self.flip)
        check_flag("step_decay", self.step_decay)
        check_flag("start_anew", self.start_anew)
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
    execution: Execution,
    train_against: Attack | None = None,
    craft_against: Attack | None = None,
    through: Through | None = None,
    **rounds: Any,
) -> Perturbation:
    """Run the rounds and return the noise, rounded to levels.

    objective: `(surrogate, views (n, C, H, W) in [0, 1], batch) → scalar`; δ descends it. `batch.labels` belong to the
        views. Where several processes craft together, `batch.all_labels` and `batch.all_features(own)` tell of theirs.
    settings: the method's own arguments, recorded in the result; those that `Loop` has steer the rounds.
    train_against, craft_against: an adversary that moves the views before the surrogate, or the noise, is shown them.
    through: what the victim will do to the published pictures before it trains, `(n, C, H, W)` → the same, float32 in
        [0, 1], differentiable. Both phases see view(through(x + δ)) in place of view(x + δ). It is to be a function of
        `settings`: a checkpoint knows those alone.
    rounds: what of `Loop` the method fixes, or calls otherwise in its settings.

    Raises `ValueError` for settings out of range or a class with one picture, `FloatingPointError` if the objective
    or the surrogate's loss stops being finite, `OSError` for a disk that is full, and `RuntimeError` if another of
    the processes ends.
    """
    loop = Loop(**{f.name: settings[f.name] for f in fields(Loop) if f.name in settings} | rounds)
    settings = settings | {"surrogate": given if isinstance(given := loop.surrogate, str) else type(given).__name__}
    if execution.delta_file is not None and budget_in_levels(loop.epsilon) > 127:
        raise bad("epsilon", loop.epsilon, "less than half the range with a delta_file, which keeps 8 bits a pixel")
    check_count("crop", loop.crop, 0, max(0, min(images.images.shape[2:]) - 1))
    ranks = Ranks.current()
    check_classes(images, ranks.world)
    asked = settings | {"method": method, "pictures": images.fingerprint, "processes": ranks.world,
                        "8 bits at rest": execution.delta_file is not None}  # fmt: skip
    ranks.agree_on("settings or pictures", repr(asked))
    try:
        with Keeper(execution, ranks, asked) as keeper:
            state = keeper.load()
            against = train_against, craft_against
            crafting = Crafting(images, objective, loop, method, execution, ranks, *against, through)
            if state is not None:
                crafting.restore(state)
            resumed_at = crafting.tick
            while not crafting.done:
                crafting.advance()
                if why := keeper.wanted():
                    crafting.check_finite()
                    keeper.save(crafting.state(), why)
            if crafting.tick > resumed_at:
                keeper.finish(crafting.state())
            return crafting.result(settings)
    except RuntimeError as error:
        if not ranks.lost(error):
            raise
        last = "" if execution.checkpoint is None else f"; {str(execution.checkpoint)!r} holds the last state"
        message = f"another of the {ranks.world} processes that craft this noise has ended{last}"
        raise RuntimeError(f"{message} ({error})") from error
    finally:
        ranks.close()


class Crafting:
    """A run between two ticks.

    tick: how many are done. accounts of the round so far stay on the device: `losses` and `objectives`, a value for
    each step of the model and of the noise, and `hits`, how many pictures the surrogate classified while training.
    """

    def __init__(
        self,
        images: ImageSet,
        objective: Objective,
        loop: Loop,
        method: str,
        execution: Execution,
        ranks: Ranks,
        train_against: Attack | None,
        craft_against: Attack | None,
        through: Through | None,
    ) -> None:
        self.images, self.objective, self.loop, self.method, self.ranks = images, objective, loop, method, ranks
        self.train_against, self.craft_against, self.through = train_against, craft_against, through
        self.share = images if ranks.world == 1 else images.subset(ranks.members(images))
        self.device = torch.device(execution.device or images.device)
        self.progress = execution.progress if ranks.rank == 0 else None
        self.batch_size = min(max(1, loop.batch_size // ranks.world), ranks.least(len(self.share)))
        self.batches_of = ClassBatches(self.share, max(4, loop.noise_batch_size // ranks.world))
        # The ranks exchange something in every tick: they must have equally many.
        self.batches_of.count = ranks.least(self.batches_of.count)
        self.per_epoch = ranks.least(steps_per_epoch(len(self.share), self.batch_size))
        self.per_round = loop.model_batches or self.per_epoch
        self.ticks = self.per_round + self.batches_of.count
        self.lifetime = min(loop.fresh_every or loop.epochs, loop.epochs)
        self.order = torch.Generator(self.share.device)
        self.chance = torch.Generator(self.device)
        self.file = None if execution.delta_file is None else Path(execution.delta_file)
        self.whole: Tensor | None = None  # where the noise of several ranks is put together in the end
        self.delta = ranks.all_or_none(lambda: self._room(loop.epsilon, execution.resume))
        self.curves: dict[str, list[float]] = {"loss": [], "train_accuracy": [], "objective": [], "seconds": []}
        self.judge: nn.Module | None = None  # the surrogate as the noise phase sees it
        self.descent: Descent
        self.tick = 0
        self.done = False
        self.drawn: tuple[int, list[Tensor]] = (-1, [])
        self.shuffled: tuple[int, Tensor] = (-1, torch.empty(0))
        self.started = self.spoken = time.perf_counter()
        self._new_life(0)
        self._new_round()

    def _room(self, epsilon: float, resume: bool) -> Store:
        """A place for the noise of this rank's pictures; in a file, for that of all as well."""
        own = None if self.file is None else of_rank(self.file, self.ranks.rank, self.ranks.world)
        store = Store(self.share.images.shape, epsilon, self.device, own, resume)
        if self.file is not None and self.ranks.world > 1 and self.ranks.first_here:
            self.whole = mapped(self.file, self.images.images.shape, resume)
        return store

    # One tick

    def advance(self) -> None:
        """Do the next tick, and what belongs to the end of a phase, a round or a surrogate's life."""
        epoch, batch = divmod(self.tick, self.ticks)
        if batch == 0 and epoch and epoch % self.lifetime == 0:
            self._new_life(epoch // self.lifetime)
        if batch < self.per_round:
            self._train(epoch * self.per_round + batch, batch)
            if batch + 1 == self.per_round:
                self.ranks.average_statistics(self.model)
        else:
            self._move(epoch, batch - self.per_round)
        self.tick += 1
        if batch + 1 == self.ticks:
            self._end_round(epoch + 1)
        elif self.progress is not None and time.perf_counter() - self.spoken > 30:
            self._speak(f"{self.method} round {epoch + 1}/{self.loop.epochs}: batch {batch + 1} of {self.ticks}")

    def _train(self, number: int, batch: int) -> None:
        """One SGD step of the surrogate; `number` counts them over the rounds, `batch` in this one."""
        epoch, place = divmod(number, self.per_epoch)
        if self.shuffled[0] != epoch:
            self._seed(self.order, "order", epoch)
            places = torch.randperm(len(self.share), generator=self.order, device=self.order.device)
            self.shuffled = epoch, places
        index = self.shuffled[1][place * self.batch_size :][: self.batch_size]
        pictures, labels = self._pictures(index)
        self._seed(self.chance, "view", number)
        view = View.random(len(index), self.loop.crop, self.loop.flip, self.chance)
        delta = self.delta.read(index)
        seen = view.noisy(pictures, delta) if self.through is None else view(self._received(pictures, delta))
        with repeatable():
            if self.train_against is not None:
                self.model.eval()
                seen = self.train_against(self.model, seen, labels, self.chance)
            self.model.train()
            self.losses[batch], hits = self.descent.step(seen, labels)
        self.hits += hits
        self.judge = None

    def _move(self, epoch: int, batch: int) -> None:
        """All steps of one batch of noise."""
        loop = self.loop
        if self.drawn[0] != epoch:
            self._seed(self.order, "batches", epoch)
            self.drawn = epoch, list(self.batches_of.draw(self.order))
        if self.judge is None:
            self.judge = frozen(self.model)
        index = self.drawn[1][batch]
        pictures, labels = self._pictures(index)
        delta = self.delta.read(index)
        whole = self.ranks.batch(labels)
        step = loop.step * (1 - epoch / loop.epochs) if loop.step_decay else loop.step
        self._seed(self.chance, "noise", epoch, batch)
        if loop.start_anew:
            x = pixel_values(pictures)
            start = torch.rand(delta.shape, generator=self.chance, device=delta.device)
            delta.copy_((x + loop.epsilon * (2 * start - 1)).clamp_(0, 1).sub_(x))
        for number in range(loop.steps):
            drawn = [self._gradient(pictures, delta, whole) for _ in range(loop.draws)]
            gradient = drawn[0][0] if loop.draws == 1 else torch.stack([one for one, _ in drawn]).sum(0)
            noise_step(delta, pictures, gradient, step=step, epsilon=loop.epsilon)
            self.objectives[batch, number] = torch.stack([value for _, value in drawn]).mean()
        self.delta.write(index, delta)

    def _gradient(self, pictures: Tensor, delta: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """d objective / d δ through a random view, times whatever keeps half precision from losing it, and the value.

        The value is NaN as well where the gradient holds one: `noise_step` would pass over it in silence.
        """
        view = View.random(len(pictures), self.loop.crop, self.loop.flip, self.chance)
        if self.through is None:
            seen = view.noisy(pictures, delta)
        else:
            published = pixel_values(pictures).add_(delta).requires_grad_(True)
            received = self.through(published)
            seen = view(received.detach())
        with repeatable():
            if self.craft_against is not None:
                assert self.judge is not None
                seen = self.craft_against(self.judge, seen, batch.labels, self.chance)
            seen.requires_grad_(True)
            with autocast(self.device):
                value = self.objective(self.judge, seen, batch)
            (gradient,) = torch.autograd.grad(value * gradient_scale(self.device, len(seen)), seen)
        lost = gradient.isnan().any()
        gradient = view.adjoint(gradient)
        if self.through is not None:
            (gradient,) = torch.autograd.grad(received, published, gradient)
            lost = lost | gradient.isnan().any()
        return gradient, torch.where(lost, math.nan, value.detach())

    def _received(self, pictures: Tensor, delta: Tensor) -> Tensor:
        """The noisy pictures as the victim will have them, without a gradient."""
        noisy = pixel_values(pictures).add_(delta)
        if self.through is None:
            return noisy
        with torch.no_grad():
            return self.through(noisy)

    def _pictures(self, index: Tensor) -> tuple[Tensor, Tensor]:
        return self.share.images[index].to(self.device), self.share.labels[index].to(self.device)

    def _seed(self, generator: torch.Generator, *what: object) -> None:
        """Make what `generator` draws next a function of the seed, this rank and `what` it is for."""
        words = repr((self.loop.seed, self.ranks.rank, *what)).encode()
        generator.manual_seed(int.from_bytes(hashlib.sha256(words).digest()[:7]))

    # A round, a surrogate's life

    def _new_round(self) -> None:
        self.losses = torch.zeros(self.per_round, device=self.device)
        self.hits = torch.zeros((), dtype=torch.int64, device=self.device)
        self.objectives = torch.zeros(self.batches_of.count, self.loop.steps, device=self.device)

    def _end_round(self, epoch: int) -> None:
        self.check_finite()
        means = self.losses.mean(), self.hits / (self.per_round * self.batch_size), self.objectives.mean()
        sums = [float(self.ranks.total(mean)) / self.ranks.world for mean in means]
        elapsed = time.perf_counter() - self.started
        for curve, number in zip(self.curves.values(), [*sums, elapsed], strict=True):
            curve.append(number)
        self._new_round()
        if self.progress is not None:
            pictures = self._passes() * len(self.images)
            self._speak(
                f"{self.method} round {epoch}/{self.loop.epochs}: surrogate loss {sums[0]:.3f}, accuracy "
                f"{sums[1]:.3f}, objective {sums[2]:.3f}, {pictures / elapsed:,.0f} images/s, {elapsed:.0f} s, "
                f"at most {elapsed / epoch * (self.loop.epochs - epoch):.0f} s to go"
            )
        enough = self.loop.until_accuracy
        self.done = epoch == self.loop.epochs or (enough is not None and self._accuracy() >= enough)

    def _passes(self) -> float:
        """Forward and backward passes over all pictures so far; the forward ones that measure accuracy not counted."""
        attack, harder = (0 if a is None else a.steps for a in (self.train_against, self.craft_against))
        trained = self.per_round * self.batch_size / len(self.share) * (1 + attack)
        return len(self.curves["loss"]) * (trained + self.loop.steps * self.loop.draws * (1 + harder))

    def _speak(self, line: str) -> None:
        assert self.progress is not None
        self.spoken = time.perf_counter()
        self.progress(line)

    def check_finite(self) -> None:
        """Raise `FloatingPointError` that says where, if a value of this round is not finite, on any rank."""
        finite = bool(self.losses.isfinite().all() & self.objectives.isfinite().all())
        if not self.ranks.most(not finite):
            return
        epoch = max(0, self.tick - 1) // self.ticks + 1
        for name, values in (("surrogate's loss", self.losses), ("objective", self.objectives)):
            if not bool(values.isfinite().all()):
                place = (~values.isfinite()).nonzero()[0].tolist()
                where = f"batch {place[0] + 1}" + (f", step {place[1] + 1}" if len(place) > 1 else "")
                value = float(values[tuple(place)])
                message = f"{self.method}: the {name} became {value} in round {epoch}, {where}"
                raise FloatingPointError(f"{message}; a smaller learning_rate may help")
        raise FloatingPointError(f"{self.method}: in another process, a value is not finite in round {epoch}")

    def _accuracy(self) -> float:
        """The share of the noisy pictures that the surrogate classifies, as the victim will have them."""
        judge = frozen(self.model)
        hits = torch.zeros((), dtype=torch.int64, device=self.device)
        for start in range(0, len(self.share), 512):
            places = torch.arange(start, min(start + 512, len(self.share)), device=self.share.device)
            pictures, labels = self._pictures(places)
            seen = self._received(pictures, self.delta.read(places)).contiguous(memory_format=torch.channels_last)
            with torch.no_grad(), autocast(self.device):
                hits += (judge(seen).argmax(1) == labels).sum()
        return int(self.ranks.total(hits)) / len(self.images)

    def _new_life(self, life: int) -> None:
        """A surrogate with its optimiser and schedule; a module that was given is copied, not changed."""
        loop = self.loop
        # Seeds a thousand apart: nobody's victim happens to begin where one of the surrogates did.
        given = loop.surrogate
        seed = loop.seed + 1000 * life
        model = build(given, self.images, seed=seed) if isinstance(given, str) else copy.deepcopy(given)
        self.model = model.to(self.device).to(memory_format=torch.channels_last)
        self.ranks.same_weights(self.model)
        check_model(self.model, self.images, self.device)
        self.judge = None
        self.descent = Descent(
            self.model,
            steps=self.lifetime * self.per_round,
            learning_rate=loop.learning_rate,
            momentum=loop.momentum,
            weight_decay=loop.weight_decay,
            schedule=loop.schedule,
            synchronise=self.ranks.average_gradients if self.ranks.world > 1 else None,
        )

    # Stopping and going on

    def state(self) -> State:
        """Everything that the ticks to come depend on."""
        optimiser, rest = self.descent.state()
        tensors = {
            "delta": self.delta.at_rest,
            "losses": self.losses,
            "hits": self.hits,
            "objectives": self.objectives,
            # Of no use here, but a surrogate may draw from it: dropout does.
            "random": torch.get_rng_state(),
            **{f"model.{name}": tensor for name, tensor in self.model.state_dict().items()},
            **{f"optimiser.{name}": tensor for name, tensor in optimiser.items()},
        }
        if self.device.type == "cuda":
            tensors["random of the GPU"] = torch.cuda.get_rng_state(self.device)
        elapsed = time.perf_counter() - self.started
        return tensors, rest | {"tick": self.tick, "done": self.done, "curves": self.curves, "elapsed": elapsed}

    def restore(self, state: State) -> None:
        """Go on from `state`, which was written for the same run."""
        tensors, rest = state
        self.tick, self.done, self.curves = rest["tick"], rest["done"], rest["curves"]
        self.started = time.perf_counter() - rest["elapsed"]
        self._new_life(max(0, self.tick - 1) // self.ticks // self.lifetime)

        def those(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        self.delta.at_rest.copy_(tensors["delta"])
        self.model.load_state_dict(those("model."))
        self.descent.restore(those("optimiser."), rest)
        for name in ("losses", "hits", "objectives"):
            getattr(self, name).copy_(tensors[name])
        torch.set_rng_state(tensors["random"])
        if "random of the GPU" in tensors:
            torch.cuda.set_rng_state(tensors["random of the GPU"], self.device)

    # The end

    def result(self, settings: dict[str, Any]) -> Perturbation:
        """The noise of all pictures in whole levels; the same on every rank."""
        epsilon = self.loop.epsilon
        levels = rounded(self.share, self.delta.read, epsilon, self.delta.levels())
        if self.ranks.world > 1:
            levels = self._put_together(levels)
        fingerprint = self.images.fingerprint
        return Perturbation(levels, epsilon, self.method, settings, fingerprint, self.curves, self._passes())

    def _put_together(self, part: Tensor) -> Tensor:
        """The levels of all pictures, from every rank's part: in memory, or in the file that they share."""
        shape = self.images.images.shape
        if self.file is None:
            whole = torch.empty(shape, dtype=part.dtype)
            self.ranks.collect(part, self.images, whole)
            return whole.to(self.images.device)
        self.ranks.collect(part, self.images, self.whole)
        self.ranks.barrier()
        of_rank(self.file, self.ranks.rank, self.ranks.world).unlink()
        return self.whole if self.whole is not None else mapped(self.file, shape, there=True)
