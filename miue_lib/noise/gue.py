"""GUE: a generator of noise, trained in a game against the classifier that learns from it (Liu, Wang and Gao 2024)."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._errors import bad, check_choice, check_count, check_flag, check_number
from ..data import ImageSet
from ..kernels.crop_flip import View, pixel_values
from ..models import build
from ..perturbation import Perturbation
from ..train import check_model, evaluating, repeatable, shuffled, steps_per_epoch
from .random import check_epsilon

OPTIMIZERS: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
_BLOCK = 512  # pictures for which noise is generated at once


def gue(
    images: ImageSet,
    *,
    epsilon: float = 8 / 255,
    eta: float = 1.5,
    epochs: int = 50,
    inner_steps: int = 10,
    inner_learning_rate: float = 1e-4,
    learning_rate: float = 0.01,
    generator_learning_rate: float = 0.1,
    generator_optimizer: str = "sgd",
    width: int = 64,
    fold: int = 1,
    surrogate: str | nn.Module = "resnet18",
    batch_size: int = 256,
    crop: int = 0,
    flip: bool = False,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Perturbation:
    """Noise that a U-Net makes from each picture, so that who learns from pictures with noise fails on those without.

    A Stackelberg game. The follower is a classifier θ that minimises g(a, θ), its cross-entropy on pictures with the
    noise of the generator a. The leader wants low f(θ), the cross-entropy on clean pictures towards the wrong class
    that θ finds least likely:

        min over a, θ of f(θ)   subject to   q(a, θ) = g(a, θ) − min over θ' of g(a, θ') ≤ 0.

    Each batch is a step of BOME (Liu, Ye, Wright, Stone and Liu 2022), which needs no second derivatives. `inner_steps`
    of Adam on a copy of θ give θᵀ in place of the minimiser; then a and θ descend ∇f + λ ∇q, with the least λ ≥ 0 for
    which q falls by `eta` ‖∇q‖²: λ = max(0, eta − ⟨∇f, ∇q⟩ / ‖∇q‖²). f does not depend on a, so the generator
    follows λ ∇q alone.

    The follower of the game is the one best reply that suits the leader, not every victim. A θ that knows noise when it
    sees it, is right where there is some and undecided where there is none, has low f and low g, whatever the noise
    says of the class; a victim then learns as ever. So the `curves` of f and g do not foretell what a victim will do.

    Norm: L∞ ≤ `epsilon`, in pixel values. Sample-wise. Cost: an epoch is inner_steps + 3 passes of the surrogate and
    one of the U-Net; new pictures cost a forward pass of the U-Net (`train_generator`, `apply`).

    learning_rate: of plain SGD for θ. inner_learning_rate: of Adam for θᵀ. generator_learning_rate: of `"sgd"` or
        `"adam"` for a.
    width: channels of the U-Net at full resolution. fold: side of the squares of pixels that it takes as one pixel with
        more channels; with 2 it does a quarter of the work.
    surrogate: a model's name, or a module with features and head, which is copied. crop, flip: as victims will, the
        classifier sees clean and noisy pictures through these.

    The defaults are the released CIFAR-10 settings. Deviations: the original tests its generator on *test* pictures
    every five epochs and keeps the one that does most harm; here no test picture is ever seen, and the last generator
    is used. The noise of a batch is computed once, not anew for each inner step: it is the same. Batch normalisation
    of the U-Net ends with the statistics of all pictures, not of the last few batches. Pictures left over after the
    last full batch wait for another epoch. The surrogate normalises its input. Noise is rounded to the nearest level,
    where the original truncates. `generator_optimizer`, `fold`, `crop` and `flip` are additions.

    Raises `ValueError` for a setting out of range, `FloatingPointError` when a loss stops being finite.
    """
    settings = {name: value for name, value in locals().items() if name not in ("images", "progress")}
    generator = train_generator(images, progress=progress, **settings)
    return replace(apply(generator, images), curves=generator.curves, passes=generator.passes)


def train_generator(
    images: ImageSet,
    *,
    epsilon: float = 8 / 255,
    eta: float = 1.5,
    epochs: int = 50,
    inner_steps: int = 10,
    inner_learning_rate: float = 1e-4,
    learning_rate: float = 0.01,
    generator_learning_rate: float = 0.1,
    generator_optimizer: str = "sgd",
    width: int = 64,
    fold: int = 1,
    surrogate: str | nn.Module = "resnet18",
    batch_size: int = 256,
    crop: int = 0,
    flip: bool = False,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Generator:
    """The generator that `gue` applies, trained on `images`; settings and errors are those of `gue`."""
    settings = {name: value for name, value in locals().items() if name not in ("images", "progress")}
    _check(images, settings)
    classifier = build(surrogate, images, seed=seed) if isinstance(surrogate, str) else copy.deepcopy(surrogate)
    check_model(classifier.to(images.device), images)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        generator = Generator(images.images.shape[1], epsilon=epsilon, width=width, fold=fold)
    name = surrogate if isinstance(surrogate, str) else type(surrogate).__name__
    generator.settings = settings | {"surrogate": name}
    generator.to(images.device).to(memory_format=torch.channels_last)
    game = Game(
        generator,
        classifier,
        classes=len(images.classes),
        eta=eta,
        inner_steps=inner_steps,
        inner_learning_rate=inner_learning_rate,
        learning_rate=learning_rate,
        generator_learning_rate=generator_learning_rate,
        generator_optimizer=generator_optimizer,
    )
    chance = torch.Generator(images.device).manual_seed(seed)
    start = time.perf_counter()
    for epoch in range(1, epochs + 1):
        with repeatable(tf32=False):
            batches = shuffled(images, batch_size, crop, flip, chance)
            moves = [game.move(images.images[index], images.labels[index], view) for index, view in batches]
        means = torch.stack(moves).mean(0).tolist()
        for curve, mean in zip(generator.curves.values(), means, strict=True):
            curve.append(mean)
        if not all(map(math.isfinite, means)):
            raise FloatingPointError(
                f"gue: the losses became {means} in epoch {epoch}; smaller learning rates may help"
            )
        if progress is not None:
            now = ", ".join(f"{name} {curve[-1]:.3f}" for name, curve in generator.curves.items())
            progress(f"gue epoch {epoch}/{epochs}: {now}, {time.perf_counter() - start:.0f} s")
    _settle(generator, images, batch_size)
    share = steps_per_epoch(len(images), batch_size) * min(batch_size, len(images)) / len(images)
    generator.passes = epochs * share * (inner_steps + 4)
    return generator


def _check(images: ImageSet, settings: dict[str, Any]) -> None:
    """Raise `ValueError` for a setting out of range, or pictures of one class."""
    check_epsilon(settings["epsilon"])
    for name in ("eta", "inner_learning_rate", "learning_rate", "generator_learning_rate"):
        check_number(name, settings[name], 0, open_low=True)
    for name in ("epochs", "inner_steps", "width", "fold"):
        check_count(name, settings[name])
    check_count("batch_size", settings["batch_size"], 2)
    check_count("crop", settings["crop"], 0, max(0, min(images.images.shape[2:]) - 1))
    check_count("seed", settings["seed"], 0)
    check_flag("flip", settings["flip"])
    check_choice("generator_optimizer", settings["generator_optimizer"], OPTIMIZERS)
    if not isinstance(settings["surrogate"], str | nn.Module):
        raise bad("surrogate", repr(settings["surrogate"]), "the name of a model or a module with features and head")
    if len(torch.unique(images.labels)) < 2:
        raise bad("images", "pictures of fewer than two classes", "two classes or more")


def _settle(generator: Generator, images: ImageSet, batch_size: int) -> None:
    """Give batch normalisation the statistics that all the pictures have under the final weights, and stop it learning.

    The moving averages of training lag behind weights that move fast, through one layer after the other.
    """
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain average of all batches
    with torch.no_grad(), repeatable(tf32=False):
        for part in images.images.tensor_split(steps_per_epoch(len(images), batch_size)):
            generator(pixel_values(part).contiguous(memory_format=torch.channels_last))
    generator.eval()


def apply(generator: Generator, images: ImageSet) -> Perturbation:
    """The noise of a trained generator for any pictures of as many channels: one forward pass.

    It depends on each picture alone, not on the others beside it, nor on its label. Raises `ValueError` for pictures of
    other channels.
    """
    if images.images.shape[1] != generator.channels:
        given = f"pictures of {images.images.shape[1]} channels"
        raise bad("images", given, f"{generator.channels}, as the generator was trained on")
    delta = torch.empty(images.images.shape, device=images.device)
    with evaluating(generator), repeatable(tf32=False):
        for start in range(0, len(images), _BLOCK):
            part = slice(start, start + _BLOCK)
            delta[part] = generator(images.floats(part).contiguous(memory_format=torch.channels_last))
    return Perturbation.of(images, delta, epsilon=generator.epsilon, method="gue", settings=generator.settings)


class Generator(nn.Module):
    """ε · tanh of a U-Net (Ronneberger, Fischer and Brox 2015): noise of the shape of its pictures `(n, C, H, W)`.

    Three halvings by averaging, three doublings by bilinear interpolation; each size has two convolutions with batch
    normalisation. Any size of picture will do: an odd side is halved upwards, and a doubling goes to the size that is
    to be met again.

    epsilon, settings: what it was trained with. curves: the means over each epoch of f, g, the gap q and λ. passes:
    what the training cost. To keep one, save its `state_dict()`, and load that into one made with the same arguments.
    """

    def __init__(self, channels: int, *, epsilon: float, width: int = 64, fold: int = 1) -> None:
        super().__init__()
        self.channels, self.epsilon, self.fold = channels, epsilon, fold
        self.settings: dict[str, Any] = {"epsilon": epsilon, "width": width, "fold": fold}
        self.curves: dict[str, list[float]] = {"clean": [], "noisy": [], "gap": [], "multiplier": []}
        self.passes = 0.0
        inner = channels * fold**2
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(_convolutions(*pair) for pair in zip([inner, *widths], widths, strict=False))
        self.up = nn.ModuleList(_convolutions(3 * after, after) for after in reversed(widths[:-1]))
        self.last = nn.Sequential(nn.Conv2d(width, inner, 1), nn.BatchNorm2d(inner))

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        x = F.pixel_unshuffle(F.pad(images, (0, -width % self.fold, 0, -height % self.fold)), self.fold)
        x = self.down[0](x)
        larger = []
        for block in self.down[1:]:
            larger.append(x)
            x = block(F.avg_pool2d(x, 2, ceil_mode=True))
        for block in self.up:
            beside = larger.pop()
            x = block(torch.cat([enlarged(x, *beside.shape[2:]), beside], 1))
        noise = F.pixel_shuffle(torch.tanh(self.last(x)), self.fold)
        return self.epsilon * noise[..., :height, :width]


def _convolutions(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (before, after):
        layers += [nn.Conv2d(width, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def enlarged(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear interpolation of `(n, C, h, w)` to (height, width), corners on corners.

    As `F.interpolate` with align_corners, but by two products of matrices: the gradient of that one is summed on a GPU
    in an order that changes from run to run. Channels-last in and out, so that nothing is moved in memory.
    """
    n, channels, h, w = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(n * h, w, channels)
    pixels = (_weights(w, width, x) @ pixels).view(n, h, width * channels)
    return (_weights(h, height, x) @ pixels).view(n, height, width, channels).permute(0, 3, 1, 2)


def _weights(size: int, larger: int, like: Tensor) -> Tensor:
    """`(larger, size)`: the share that each of `size` points in a row has in each of `larger` over the same length."""
    places = torch.linspace(0, size - 1, larger, device=like.device, dtype=like.dtype)
    return (1 - (places[:, None] - torch.arange(size, device=like.device)).abs()).clamp_min(0)


class Game:
    """The generator a, the classifier θ, and θᵀ, which is θ after `inner_steps` more steps of training on a batch.

    In float32, on whatever hardware: the generator follows the difference of two gradients that are nearly the same.
    """

    def __init__(
        self,
        generator: Generator,
        classifier: nn.Module,
        *,
        classes: int,
        eta: float,
        inner_steps: int,
        inner_learning_rate: float,
        learning_rate: float,
        generator_learning_rate: float,
        generator_optimizer: str,
    ) -> None:
        self.generator = generator.train()
        self.classifier = classifier.to(memory_format=torch.channels_last).train()
        self.answer = copy.deepcopy(self.classifier)
        self.eta, self.inner_steps, self.inner_learning_rate = eta, inner_steps, inner_learning_rate
        self.classes = classes  # a classifier may have more outputs, which no picture ever asks for
        self.weights = list(generator.parameters()), list(self.classifier.parameters())
        self.optimizers = (
            OPTIMIZERS[generator_optimizer](self.weights[0], generator_learning_rate),
            torch.optim.SGD(self.weights[1], learning_rate),
        )

    def move(self, pictures: Tensor, labels: Tensor, view: View) -> Tensor:
        """One step of a and of θ on uint8 `(n, C, H, W)` and its labels; (f, g, q, λ) before it, on the device."""
        of_a, of_theta = self.weights
        clean = pixel_values(pictures).contiguous(memory_format=torch.channels_last)
        noisy = view((clean + self.generator(clean)).clamp(0, 1))
        seen = noisy.detach()
        self._answer(seen, labels)

        f = wrong_loss(self.classifier(view(clean))[:, : self.classes], labels)
        f_theta = torch.autograd.grad(f, of_theta)
        seen.requires_grad_(True)
        g = F.cross_entropy(self.classifier(seen), labels)
        *g_theta, g_seen = torch.autograd.grad(g, [*of_theta, seen])
        least = F.cross_entropy(self.answer(seen), labels)
        (least_seen,) = torch.autograd.grad(least, seen)
        q_a = torch.autograd.grad(noisy, of_a, g_seen - least_seen)

        # θᵀ counts as fixed, so ∇q = (∇_a g(a, θ) − ∇_a g(a, θᵀ), ∇_θ g(a, θ)).
        square = _product(q_a, q_a) + _product(g_theta, g_theta)
        multiplier = F.relu((self.eta * square - _product(f_theta, g_theta)) / (square + 1e-8))
        for weight, gradient in zip(of_a, q_a, strict=True):
            weight.grad = multiplier * gradient
        for weight, own, constraint in zip(of_theta, f_theta, g_theta, strict=True):
            weight.grad = own + multiplier * constraint
        for optimizer in self.optimizers:
            optimizer.step()
        return torch.stack([f, g, g - least, multiplier]).detach()

    def _answer(self, seen: Tensor, labels: Tensor) -> None:
        """Make θᵀ of θ."""
        self.answer.load_state_dict(self.classifier.state_dict())
        adam = torch.optim.Adam(self.answer.parameters(), self.inner_learning_rate, fused=True)
        for _ in range(self.inner_steps):
            adam.zero_grad()
            F.cross_entropy(self.answer(seen), labels).backward()  # type: ignore[no-untyped-call]
            adam.step()


def wrong_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean of each picture's largest cross-entropy towards a class not its own, in nats; logits `(n, K)`."""
    least = logits.scatter(1, labels[:, None], math.inf).amin(1)
    return (logits.logsumexp(1) - least).mean()


def _product(one: Iterable[Tensor], other: Iterable[Tensor]) -> Tensor:
    """The inner product of two vectors that are in parts."""
    return torch.stack([(u * v).sum() for u, v in zip(one, other, strict=True)]).sum()
