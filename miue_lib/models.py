"""Surrogates and victims: logits = head(features(x)), pixel values in [0, 1] in, normalisation inside.

The budget ε of a perturbation lives in pixel space, so a model that normalises for itself cannot disagree with it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torchvision.models.resnet import BasicBlock, ResNet

from ._errors import bad, check_choice, check_count
from .data import ImageSet


class Classifier(nn.Module):
    """A feature extractor g and a linear head h; the classifier is h ∘ g.

    body: maps normalised pictures `(n, C, H, W)` to features `(n, width)`.
    mean, std: `(C,)`, in pixel values in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, width: int, classes: int, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, classes)
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("std", std.view(1, -1, 1, 1))

    def features(self, images: Tensor) -> Tensor:
        """g(x): pictures `(n, C, H, W)` in [0, 1] to features `(n, width)`."""
        if images.shape[1] != self.mean.shape[1]:
            raise bad("images", f"{images.shape[1]} channels", f"{self.mean.shape[1]}, as the model was built for")
        features: Tensor = self.body((images - self.mean) / self.std)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """h(g(x)): pictures `(n, C, H, W)` in [0, 1] to logits `(n, classes)`."""
        logits: Tensor = self.head(self.features(images))
        return logits


def _small_resnet(images: ImageSet) -> tuple[nn.Module, int]:
    """Three residual blocks (He et al. 2016) of widths 16, 32, 64: about 78 thousand weights.

    The stem folds 2 × 2 pixels into channels before its convolution: at 28 × 28 that costs little accuracy, and on a
    CPU it is several times as fast as full-size first layers, whose input gradients are bound by memory.
    """
    _, channels, height, width = images.images.shape
    widths = (16, 32, 64)
    layers: list[nn.Module] = [
        nn.ZeroPad2d((0, width % 2, 0, height % 2)),
        nn.PixelUnshuffle(2),
        nn.Conv2d(4 * channels, widths[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(inplace=True),
    ]
    before = widths[0]
    for after in widths:
        shortcut = None
        if after != before:
            shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride=2, bias=False), nn.BatchNorm2d(after))
        layers.append(BasicBlock(before, after, stride=1 if shortcut is None else 2, downsample=shortcut))
        before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), before


def _resnet18(images: ImageSet) -> tuple[nn.Module, int]:
    """ResNet-18 (He et al. 2016); for pictures of up to 64 pixels with the CIFAR stem: 3 × 3, no max-pool."""
    body = ResNet(BasicBlock, [2, 2, 2, 2])
    if max(images.images.shape[2:]) <= 64:
        body.conv1 = nn.Conv2d(images.images.shape[1], 64, 3, padding=1, bias=False)
        body.maxpool = nn.Identity()
    elif images.images.shape[1] != 3:
        body.conv1 = nn.Conv2d(images.images.shape[1], 64, 7, stride=2, padding=3, bias=False)
    width = body.fc.in_features
    body.fc = nn.Identity()
    return body, width


MODELS: dict[str, Callable[[ImageSet], tuple[nn.Module, int]]] = {"small_resnet": _small_resnet, "resnet18": _resnet18}


def build(name: str, images: ImageSet, *, seed: int = 0) -> Classifier:
    """The model called `name`, freshly initialised with `seed`, for pictures like `images`, on their device.

    Channels, classes and the normalisation (mean and standard deviation of a channel) are taken from `images`.
    Raises `ValueError` for an unknown name.
    """
    check_choice("model", name, MODELS)
    check_count("seed", seed, 0)
    pixels = images.images.transpose(0, 1).flatten(1)
    # uint8 has few values: their histogram gives exact moments without a float copy of the whole set.
    counts = torch.stack([torch.bincount(channel, minlength=256) for channel in pixels]).double()
    values = torch.arange(256, device=counts.device, dtype=torch.float64) / 255
    shares = counts / counts.sum(1, keepdim=True)
    mean = shares @ values
    std = (shares @ values.square() - mean.square()).clamp_min(1e-12).sqrt().clamp_min(1 / 255)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every GPU's generator as well
        body, width = MODELS[name](images)
        model = Classifier(body, width, len(images.classes), mean.float().cpu(), std.float().cpu())
    return model.to(images.device).to(memory_format=torch.channels_last)


def frozen(model: nn.Module) -> nn.Module:
    """A copy of `model` for evaluation, without weight gradients.

    In a `Classifier`, each batch normalisation is folded into the convolution before it: the same function, to
    rounding, and one seventh less time for an input gradient on a CPU.
    """
    copied = copy.deepcopy(model).eval()
    if isinstance(copied, Classifier):
        copied.body = fuse(copied.body)
    return copied.eval().requires_grad_(False)  # again: the folded parts are new
