"""Surrogates and victims: logits = head(features(x)), pixel values in [0, 1] in, normalisation inside.

The budget ε of a perturbation lives in pixel space, so a model that normalises for itself cannot disagree with it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torchvision.models.resnet import BasicBlock, ResNet

from ._errors import bad, check_choice, check_count
from ._files import read_tagged, write_whole
from .data import ImageSet, default_device

_FORMAT = "miue_lib.model/1"
_MOMENT_PIXELS = 1 << 24  # that `build` counts at once: pictures may be more than memory holds


class Classifier(nn.Module):
    """A feature extractor g and a linear head h; the classifier is h ∘ g.

    body: maps normalised pictures `(n, C, H, W)` to features `(n, width)`.
    mean, std: `(C,)`, in pixel values in [0, 1].

    One that `build` made knows its architecture's name, the `(C, H, W)` of its pictures and its class names, which
    is what `save_model` needs to write beside the weights; of any other these are empty.
    """

    mean: Tensor
    std: Tensor
    architecture: str = ""
    picture_shape: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ()

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
    return _initialised(name, images, *_moments(images.images), seed).to(images.device)


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `(C,)` of each channel of uint8 `(N, C, H, W)`, float32 on the CPU, in [0, 1].

    uint8 has few values: their histogram gives exact moments, and needs no more than a block of the pictures at once.
    """
    rows = max(1, _MOMENT_PIXELS // images[:1].numel()) if len(images) else 1
    counts = torch.zeros((images.shape[1], 256), dtype=torch.int64, device=images.device)
    for start in range(0, len(images), rows):
        pixels = images[start : start + rows].transpose(0, 1).flatten(1)
        counts += torch.stack([torch.bincount(channel, minlength=256) for channel in pixels])
    values = torch.arange(256, device=images.device, dtype=torch.float64) / 255
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = shares @ values
    std = (shares @ values.square() - mean.square()).clamp_min(1e-12).sqrt().clamp_min(1 / 255)
    return mean.float().cpu(), std.float().cpu()


def _initialised(name: str, images: ImageSet, mean: Tensor, std: Tensor, seed: int) -> Classifier:
    """The architecture with weights drawn from `seed`, on the CPU; of `images` only shape and classes matter."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every GPU's generator as well
        body, width = MODELS[name](images)
        model = Classifier(body, width, len(images.classes), mean, std)
    model.architecture, model.class_names = name, images.classes
    model.picture_shape = tuple(images.images.shape[1:])
    return model.to(memory_format=torch.channels_last)


def save_model(model: Classifier, path: str | Path) -> None:
    """Write the weights of a model that `build` made as a safetensors file, whole or not at all.

    Raises `ValueError` for any other module, or a path in a folder that does not exist.
    """
    if not isinstance(model, Classifier) or model.architecture not in MODELS:
        raise bad("model", type(model).__name__, "a Classifier made by build")
    path = Path(path)
    if not path.parent.is_dir() or path.is_dir():
        raise bad("path", repr(str(path)), "a file in a folder that exists")
    about = {
        "architecture": model.architecture,
        "picture_shape": model.picture_shape,
        "class_names": model.class_names,
    }
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_whole(path, save(weights, metadata={"format": _FORMAT, "about": json.dumps(about)}))


def load_model(path: str | Path, *, device: torch.device | str | None = None) -> Classifier:
    """Read what `save_model` wrote, onto `device` (by default the GPU where there is one).

    Raises `ValueError` for a path that is not there, a file that is not whole, and an architecture that is not known.
    """
    what = "file written by save_model"
    weights, about = read_tagged(Path(path), _FORMAT, "path", what)
    try:
        name, shape, classes = (about[key] for key in ("architecture", "picture_shape", "class_names"))
        like = ImageSet(torch.empty((0, *shape), dtype=torch.uint8), torch.empty(0, dtype=torch.int64), tuple(classes))
        mean, std = (weights[key].flatten() for key in ("mean", "std"))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise bad("path", f"{str(path)!r} ({error!r})", f"a whole {what}") from error
    check_choice(f"architecture in {str(path)!r}", name, MODELS)
    try:
        model = _initialised(name, like, mean, std, seed=0)
        model.load_state_dict(weights)
    except RuntimeError as error:  # weights that are missing, too many or of other sizes
        raise bad("path", f"{str(path)!r} ({str(error).splitlines()[0]})", f"the weights of a {name}") from error
    return model.to(default_device() if device is None else device)


def frozen(model: nn.Module) -> nn.Module:
    """A copy of `model` for evaluation, without weight gradients.

    In a `Classifier`, each batch normalisation is folded into the convolution before it: the same function, to
    rounding, and one seventh less time for an input gradient on a CPU.
    """
    copied = copy.deepcopy(model).eval()
    if isinstance(copied, Classifier):
        copied.body = fuse(copied.body)
    return copied.eval().requires_grad_(False)  # again: the folded parts are new
