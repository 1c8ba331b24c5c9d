"""Training a victim, and testing it.

The loop is the plain one: SGD with momentum, a learning rate that changes every step, random crop and flip. Pictures
stay on their device as uint8; bfloat16 autocast and channels-last memory are used where the processor or GPU computes
in them.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from ._errors import bad, check_choice, check_count, check_flag, check_number
from ._files import digest_of, read_tagged, write_whole
from .data import ImageSet
from .kernels.crop_flip import View

SCHEDULES = ("one-cycle", "cosine", "multi-step")
_TEST_BATCH = 512
_FORMAT = "miue_lib.training/1"

# (model, pictures, labels, generator) → pictures and targets to train on instead: see `fit`.
Defense = Callable[[nn.Module, Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


def precision(device: torch.device) -> torch.dtype:
    """What the hardware multiplies in fast and exactly enough: bfloat16, float16 (which needs scaling), or float32.

    A GPU below compute capability 8.0 (a T4 is 7.5) reports bfloat16 support by emulation, and is slower for it, but
    has float16; a processor without AVX512-BF16 or AMX has neither.
    """
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if capability >= (8, 0) else torch.float16 if capability >= (7, 0) else torch.float32
    native = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return torch.bfloat16 if native else torch.float32


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast to `precision(device)`."""
    dtype = precision(device)
    enabled = dtype != torch.float32
    return torch.autocast(device.type, dtype if enabled else None, enabled=enabled)


def gradient_scale(device: torch.device, n: int) -> float:
    """What to multiply a mean over n pictures with before its gradient is taken, where only the signs are wanted.

    In float16, whose smallest normal number is 6e-5, the share of one picture of n in the mean would be lost.
    """
    return 64.0 * n if precision(device) == torch.float16 else 1.0


def repeatable(*, tf32: bool | None = None) -> AbstractContextManager[Any]:
    """Inside, cuDNN takes deterministic algorithms only; nothing changes on a CPU.

    tf32: whether it may round float32 to 10 bits of mantissa; None leaves that as it is (torch allows it).
    """
    tf32 = torch.backends.cudnn.allow_tf32 if tf32 is None else tf32
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
    defense: Defense | None = None,
    seed: int = 0,
    on_epoch: Callable[[int, History], None] | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_minutes: float = 10.0,
) -> History:
    """Train `model` in place on `train` and return its curves.

    schedule: `"one-cycle"` (a line up over the first fifth, after Smith and Topin 2019, then half a cosine down to 0),
        `"cosine"` (half a cosine down from the start) or `"multi-step"` (a tenth after two fifths, a hundredth after
        four), all step by step.
    crop: pixels of zero padding before the random crop. flip: horizontal flips.
    defense: called with the model, a batch of augmented pictures `(n, C, H, W)` in [0, 1], their labels `(n,)` and a
        generator; returns what is trained on instead: pictures, and labels or, for each class, probabilities `(n, K)`.
        `miue_lib.defenses` has some.
    seed: fixes the order and the augmentation. With the model's own seed it fixes the result, bit for bit, on a given
        CPU and number of threads; on a GPU, cuDNN is asked for deterministic algorithms.
    on_epoch: called with the epoch's number, from 1, and the curves so far.
    checkpoint: a file for the state of the run. If it is there, training goes on from it, to the same result, bit for
        bit on a CPU. It is written after an epoch when `checkpoint_minutes` have passed, and when `on_epoch` raises,
        and stays after the run: remove it once the model is saved.

    Raises `ValueError` for a setting out of range or a checkpoint that is damaged or of another run, and
    `FloatingPointError` when the loss stops being finite.
    """
    asked = {name: repr(value) for name, value in locals().items() if name not in _NOT_ASKED}
    check_model(model, train)
    if test is not None:
        check_model(model, test)
    check_flag("flip", flip)
    check_count("epochs", epochs)
    check_count("crop", crop, 0, min(train.images.shape[2:]) - 1)
    check_count("seed", seed, 0)
    check_number("checkpoint_minutes", checkpoint_minutes, 0)
    if defense is not None and (isinstance(defense, type) or not callable(defense)):
        raise bad("defense", repr(defense), "an object to call with each batch, such as defenses.MixUp()")
    generator = torch.Generator(train.device).manual_seed(seed)
    descent = Descent(
        model,
        steps=epochs * steps_per_epoch(len(train), check_count("batch_size", batch_size)),
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        schedule=schedule,
    )
    model.to(memory_format=torch.channels_last)
    history, saved = History(), None
    if checkpoint is not None:
        sets = [None if images is None else images.fingerprint for images in (train, test)]
        asked |= {"weights at the start": digest_of(model.state_dict())}
        saved = _Saved(Path(checkpoint), asked | {"pictures": sets}, descent, generator)
        history = saved.restore()
    start = time.perf_counter() - (history.seconds[-1] if history.seconds else 0.0)
    kept = time.perf_counter()
    for epoch in range(len(history.loss) + 1, epochs + 1):
        model.train()
        views = shuffled(train, batch_size, crop, flip, generator)
        batches: Iterator[tuple[Tensor, Tensor]] = ((view(train.floats(i)), train.labels[i]) for i, view in views)
        if defense is not None:
            batches = _defended(batches, defense, model, generator)
        with repeatable():
            loss, accuracy_ = _epoch(descent, batches)
        history.loss.append(loss)
        history.train_accuracy.append(accuracy_)
        if test is not None:
            history.test_accuracy.append(accuracy(model, test))
        history.seconds.append(time.perf_counter() - start)
        if saved is not None and time.perf_counter() - kept >= 60 * checkpoint_minutes:
            saved.save(history)
            kept = time.perf_counter()
        try:
            if on_epoch is not None:
                on_epoch(epoch, history)
        except BaseException:
            if saved is not None:
                saved.save(history)
            raise
    return history


_NOT_ASKED = ("model", "train", "test", "on_epoch", "checkpoint", "checkpoint_minutes")


def _defended(
    batches: Iterator[tuple[Tensor, Tensor]], defense: Defense, model: nn.Module, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    for pictures, labels in batches:
        yield defense(model, pictures, labels, generator)


class _Saved:
    """A run of `fit` in a file: what it is a run of (`asked`), and everything that its next epochs depend on."""

    def __init__(self, path: Path, asked: dict[str, Any], descent: Descent, generator: torch.Generator) -> None:
        if not path.parent.is_dir() or path.is_dir():
            raise bad("checkpoint", repr(str(path)), "a file in a folder that exists")
        self.path, self.asked, self.descent, self.generator = path, asked, descent, generator

    def save(self, history: History) -> None:
        momenta, rest = self.descent.state()
        tensors = {f"model.{name}": tensor for name, tensor in self.descent.model.state_dict().items()}
        tensors |= {f"optimiser.{name}": tensor for name, tensor in momenta.items()}
        tensors["random"] = self.generator.get_state()
        about = {"asked": self.asked, "rest": rest, "history": asdict(history)}
        whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        write_whole(self.path, save(whole, metadata={"format": _FORMAT, "about": json.dumps(about)}))

    def restore(self) -> History:
        """The curves of the epochs that are done: none if the file is not there."""
        if not self.path.exists():
            return History()
        tensors, about = read_tagged(self.path, _FORMAT, "checkpoint", "file that fit has written")
        if about["asked"] != self.asked:
            differ = [name for name, value in self.asked.items() if about["asked"].get(name) != value]
            given = f"{str(self.path)!r}, of a run with other {', '.join(differ)}"
            raise bad("checkpoint", given, "that of a run with the same pictures and settings")

        def those(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        try:
            self.descent.model.load_state_dict(those("model."))
            self.descent.restore(those("optimiser."), about["rest"])
        except (RuntimeError, KeyError) as error:
            why = str(error).splitlines()[0]
            raise bad("checkpoint", f"{str(self.path)!r} ({why})", "that of a run of this model") from error
        self.generator.set_state(tensors["random"])
        return History(**about["history"])


class Descent:
    """SGD on cross-entropy, one batch at a time: optimiser, learning-rate schedule, and the precision of the device.

    steps: how many there will be, for the schedule. synchronise: called with the model when the gradients are there.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        steps: int,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
        schedule: str,
        synchronise: Callable[[nn.Module], None] | None = None,
    ) -> None:
        check_number("learning_rate", learning_rate, 0, open_low=True)
        check_number("momentum", momentum, 0, 1)
        check_number("weight_decay", weight_decay, 0)
        check_choice("schedule", schedule, SCHEDULES)
        rise = max(1, round(0.2 * steps)) if schedule == "one-cycle" else 0

        def share(step: int) -> float:
            """Of the peak learning rate, at a step from 0."""
            if schedule == "multi-step":
                return 0.1 ** int(5 * step / (2 * steps))  # a tenth more from each two fifths on
            if step < rise:
                return (step + 1) / rise
            return 0.5 + 0.5 * math.cos(math.pi * (step - rise) / max(1, steps - rise))

        self.model = model
        self.device = next(model.parameters()).device
        # Fused: one kernel for all weights, and what the scaler finds is read on the GPU, without waiting for it.
        self.optimizer = torch.optim.SGD(
            model.parameters(), learning_rate, momentum, weight_decay=weight_decay, fused=self.device.type == "cuda"
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, share)
        # There from the start: a fused step that the scaler skips would leave a new buffer as memory had it.
        for parameter in model.parameters() if momentum else ():
            self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        half = precision(self.device) == torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self.synchronise = synchronise

    def step(self, pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One step on pictures in [0, 1]; the mean cross-entropy in nats and the number classified, on the device.

        labels: int64 `(n,)`, or probabilities `(n, K)`; classified is a picture whose likeliest class is predicted.
        """
        with autocast(self.device):
            logits = self.model(pictures.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.synchronise is not None:
            self.synchronise(self.model)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        likeliest = labels.argmax(1) if labels.is_floating_point() else labels
        return loss.detach(), (logits.argmax(1) == likeliest).sum()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What `restore` needs, the model's weights apart: tensors, and values that JSON can hold."""
        kept = self.optimizer.state_dict()["state"]
        momenta = {str(number): buffers["momentum_buffer"] for number, buffers in kept.items()}
        return momenta, {"steps done": self.scheduler.last_epoch, "scaler": self.scaler.state_dict()}

    def restore(self, tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
        """Go on from where `state` was taken, with the same arguments and the model as it was."""
        # Copied into the buffers that are there: they lie in memory as the weights do, which a fused step asks for.
        for number, buffers in self.optimizer.state_dict()["state"].items():
            buffers["momentum_buffer"].copy_(tensors[str(number)])
        self.scheduler.last_epoch = rest["steps done"]
        for group, rate in zip(self.optimizer.param_groups, self.scheduler.base_lrs, strict=True):
            group["lr"] = rate * self.scheduler.lr_lambdas[0](rest["steps done"])
        self.scaler.load_state_dict(rest["scaler"])


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


def _epoch(descent: Descent, batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """One step on each batch of (pictures in [0, 1], labels); the mean cross-entropy in nats and accuracy on the way.

    The sums stay on the device until the end: the loop never waits for it.
    """
    loss_sum = hits = torch.zeros((), device=descent.device)
    seen = 0
    for pictures, labels in batches:
        loss, right = descent.step(pictures, labels)
        loss_sum = loss_sum + loss * len(labels)
        hits = hits + right
        seen += len(labels)
    mean = float(loss_sum) / seen
    if not math.isfinite(mean):
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
        for pictures, labels in batches(images):
            hits += (model(pictures).argmax(1) == labels).sum()
    return int(hits) / len(images)


def features(model: nn.Module, images: ImageSet) -> Tensor:
    """g(x) of every picture in order: float32 `(N, d)` on the pictures' device.

    Computed in float32 throughout: bfloat16 would leave a few hundred distinct values, and what is measured on
    features (ties, ranks, neighbours) would measure that.
    """
    check_model(model, images)
    extractor: Any = model
    with evaluating(model), repeatable(tf32=False):
        return torch.cat([extractor.features(pictures).float() for pictures, _ in batches(images)])


def batches(images: ImageSet) -> Iterator[tuple[Tensor, Tensor]]:
    """All pictures in order, in [0, 1], channels last, with their labels: `(n, C, H, W)` and `(n,)`, n at most 512."""
    for start in range(0, len(images), _TEST_BATCH):
        part = slice(start, start + _TEST_BATCH)
        yield images.floats(part).contiguous(memory_format=torch.channels_last), images.labels[part]


def check_model(model: nn.Module, images: ImageSet, device: torch.device | None = None) -> None:
    """Raise `ValueError` unless `model` has `features` and `head`, its features of `images` are 2-D, and it scores
    every class. device: where the model is, if not where the pictures are."""
    if len(images) == 0:
        raise bad("images", "an empty set", "at least one picture")
    if not (callable(getattr(model, "features", None)) and callable(getattr(model, "head", None))):
        raise bad("model", type(model).__name__, "a module with features(x) and head(features)")
    extractor: Any = model
    with evaluating(model):
        one = images.floats(slice(0, 1)).to(device or images.device)
        found = extractor.features(one)
        if found.ndim != 2:
            raise bad("model", f"features of shape {tuple(found.shape)}", "2-D features (n, d); pool or flatten them")
        logits = model(one)
    if logits.shape[-1] < len(images.classes):
        raise bad("model", f"{logits.shape[-1]} logits", f"one for each of {len(images.classes)} classes")
