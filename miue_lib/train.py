"""Training a victim, and testing it.

The loop is the plain one: SGD with momentum, a learning rate that changes every step, random crop and flip. Pictures
stay on their device as uint8; bfloat16 autocast and channels-last memory are used where the processor or GPU computes
in them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._errors import bad, check_choice, check_count, check_flag, check_number
from .data import ImageSet
from .kernels.crop_flip import View

SCHEDULES = ("one-cycle", "cosine")
_TEST_BATCH = 512


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 autocast where the hardware multiplies in bfloat16, float32 elsewhere.

    A GPU below compute capability 8.0 (a T4 is 7.5) reports bfloat16 support by emulation, and is slower for it; so
    is a processor without AVX512-BF16 or AMX.
    """
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        native = device.type == "cpu" and bool(
            torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        )
    return torch.autocast(device.type, torch.bfloat16, enabled=native)


def repeatable() -> AbstractContextManager[Any]:
    """Inside, cuDNN takes deterministic algorithms only; nothing changes on a CPU."""
    tf32 = torch.backends.cudnn.allow_tf32
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32)


@dataclass
class History:
    """The curves of a training run, one entry an epoch.

    loss: mean cross-entropy in nats; train_accuracy: on the augmented pictures as they were trained on, measured
    while training; test_accuracy: on clean test pictures after the epoch (empty without a test set); seconds: wall
    time since the start.
    """

    loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def fit(
    model: nn.Module,
    train: ImageSet,
    *,
    test: ImageSet | None = None,
    epochs: int = 12,
    batch_size: int = 128,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    schedule: str = "one-cycle",
    crop: int = 2,
    flip: bool = True,
    seed: int = 0,
    on_epoch: Callable[[int, History], None] | None = None,
) -> History:
    """Train `model` in place on `train` and return its curves.

    schedule: `"one-cycle"` (a line up over the first fifth, after Smith and Topin 2019, then half a cosine down to 0)
        or `"cosine"` (half a cosine down from the start), both step by step.
    crop: pixels of zero padding before the random crop. flip: horizontal flips.
    seed: fixes the order and the augmentation. With the model's own seed it fixes the result, bit for bit, on a given
        CPU and number of threads; on a GPU, cuDNN is asked for deterministic algorithms.
    on_epoch: called with the epoch's number, from 1, and the curves so far.

    Raises `ValueError` for a setting out of range, and `FloatingPointError` when the loss stops being finite.
    """
    check_model(model, train)
    if test is not None:
        check_model(model, test)
    check_flag("flip", flip)
    check_count("epochs", epochs)
    check_count("crop", crop, 0)
    check_count("seed", seed, 0)
    generator = torch.Generator(train.device).manual_seed(seed)
    optimizer, scheduler = make_optimizer(
        model,
        steps=epochs * steps_per_epoch(len(train), check_count("batch_size", batch_size)),
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        schedule=schedule,
    )
    model.to(memory_format=torch.channels_last)
    history = History()
    start = time.perf_counter()
    for epoch in range(1, epochs + 1):
        model.train()
        views = shuffled(train, batch_size, crop, flip, generator)
        batches = ((view(train.floats(i)), train.labels[i]) for i, view in views)
        with repeatable():
            loss, accuracy_ = sgd(model, optimizer, scheduler, batches)
        history.loss.append(loss)
        history.train_accuracy.append(accuracy_)
        if test is not None:
            history.test_accuracy.append(accuracy(model, test))
        history.seconds.append(time.perf_counter() - start)
        if on_epoch is not None:
            on_epoch(epoch, history)
    return history


def make_optimizer(
    model: nn.Module, *, steps: int, learning_rate: float, momentum: float, weight_decay: float, schedule: str
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """SGD and its learning-rate schedule over `steps` steps."""
    check_number("learning_rate", learning_rate, 0, open_low=True)
    check_number("momentum", momentum, 0, 1)
    check_number("weight_decay", weight_decay, 0)
    check_choice("schedule", schedule, SCHEDULES)
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum, weight_decay=weight_decay)
    rise = max(1, round(0.2 * steps)) if schedule == "one-cycle" else 0

    def share(step: int) -> float:
        """Of the peak learning rate, at a step from 0."""
        if step < rise:
            return (step + 1) / rise
        return 0.5 + 0.5 * math.cos(math.pi * (step - rise) / max(1, steps - rise))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def steps_per_epoch(n: int, batch_size: int) -> int:
    """How many batches `shuffled` makes of n pictures."""
    return max(1, n // batch_size)


def shuffled(
    images: ImageSet, batch_size: int, crop: int, flip: bool, generator: torch.Generator
) -> Iterator[tuple[Tensor, View]]:
    """One epoch: the indices of each batch in random order, and a random view of it.

    What is left over after the last full batch waits for another epoch: batch normalisation over a handful of
    pictures would do more harm than they do good.
    """
    order = torch.randperm(len(images), generator=generator, device=images.device)
    for batch in range(steps_per_epoch(len(images), batch_size)):
        index = order[batch * batch_size : (batch + 1) * batch_size]
        yield index, View.random(len(index), crop, flip, generator)


def sgd(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    batches: Iterator[tuple[Tensor, Tensor]],
) -> tuple[float, float]:
    """One step on each batch of (pictures in [0, 1], labels); the mean cross-entropy in nats and accuracy on the way.

    The sums stay on the device until the end: the loop never waits for it.
    """
    loss_sum = hits = None
    seen = 0
    for pictures, labels in batches:
        with autocast(pictures.device):
            logits = model(pictures.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
        right = (logits.argmax(1) == labels).sum()
        loss_sum = loss.detach() * len(labels) if loss_sum is None else loss_sum + loss.detach() * len(labels)
        hits = right if hits is None else hits + right
        seen += len(labels)
    if loss_sum is None or hits is None:
        raise bad("batches", "none", "at least one")
    mean = float(loss_sum) / seen
    if not torch.isfinite(loss_sum):
        raise FloatingPointError(f"the training loss became {mean}: a smaller learning_rate may help")
    return mean, int(hits) / seen


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards, and after an error, every module's mode as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def accuracy(model: nn.Module, images: ImageSet) -> float:
    """The share of `images` that `model` classifies as labelled, in [0, 1]."""
    check_model(model, images)
    hits = torch.zeros((), dtype=torch.int64, device=images.device)
    with evaluating(model), autocast(images.device):
        for part in _parts(images):
            hits += (model(_channels_last(images, part)).argmax(1) == images.labels[part]).sum()
    return int(hits) / len(images)


def features(model: nn.Module, images: ImageSet) -> Tensor:
    """g(x) of every picture in order: float32 `(N, d)` on the pictures' device.

    Computed in float32 throughout: bfloat16 would leave a few hundred distinct values, and what is measured on
    features (ties, ranks, neighbours) would measure that.
    """
    check_model(model, images)
    extractor: Any = model
    with evaluating(model):
        return torch.cat([extractor.features(_channels_last(images, part)).float() for part in _parts(images)])


def _parts(images: ImageSet) -> list[slice]:
    return [slice(start, start + _TEST_BATCH) for start in range(0, len(images), _TEST_BATCH)]


def _channels_last(images: ImageSet, part: slice) -> Tensor:
    return images.floats(part).contiguous(memory_format=torch.channels_last)


def check_model(model: nn.Module, images: ImageSet) -> None:
    """Raise `ValueError` unless `model` has `features` and `head`, its features of `images` are 2-D, and it scores
    every class."""
    if len(images) == 0:
        raise bad("images", "an empty set", "at least one picture")
    if not (callable(getattr(model, "features", None)) and callable(getattr(model, "head", None))):
        raise bad("model", type(model).__name__, "a module with features(x) and head(features)")
    extractor: Any = model
    with evaluating(model):
        one = images.floats(slice(0, 1))
        found = extractor.features(one)
        if found.ndim != 2:
            raise bad("model", f"features of shape {tuple(found.shape)}", "2-D features (n, d); pool or flatten them")
        logits = model(one)
    if logits.shape[-1] < len(images.classes):
        raise bad("model", f"{logits.shape[-1]} logits", f"one for each of {len(images.classes)} classes")
