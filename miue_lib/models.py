"""Surrogates and victims: logits = head(features(x)), pixel values in [0, 1] in, normalisation inside.

The budget ε of a perturbation lives in pixel space, so a model that normalises for itself cannot disagree with it.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.vision_transformer import VisionTransformer

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


def _fully_connected(images: ImageSet, layers: int) -> tuple[nn.Module, int]:
    """All but the last of so many fully connected layers, of width 512, with ReLU; the last is the head."""
    width = math.prod(images.images.shape[1:])
    body: list[nn.Module] = [nn.Flatten()]
    for _ in range(layers - 1):
        body += [nn.Linear(width, 512), nn.ReLU(inplace=True)]
        width = 512
    return nn.Sequential(*body), width


def _linear(images: ImageSet) -> tuple[nn.Module, int]:
    """Logistic regression: the features are the normalised pixels themselves, and only the head has weights."""
    return _fully_connected(images, 1)


def _2nn(images: ImageSet) -> tuple[nn.Module, int]:
    """Two fully connected layers: about 0.4 million weights for grey 28 × 28 pixels.

    Zhu, Miao, Dong and Gao (2026) do not give the width of their 2-NN and 3-NN: 512 is this library's choice.
    """
    return _fully_connected(images, 2)


def _3nn(images: ImageSet) -> tuple[nn.Module, int]:
    """Three fully connected layers: about 0.67 million weights for grey 28 × 28 pixels."""
    return _fully_connected(images, 3)


def _lenet5(images: ImageSet) -> tuple[nn.Module, int]:
    """LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998): about 61 thousand weights, two convolutions.

    As it is built today: with ReLU and max-pooling, which were tanh and a trained average, and with a second
    convolution that sees all six channels of the first. Sides of 28 and of 32 pixels are pooled by two; any other
    side is pooled to the same 14, then 5. (Windows then overlap, and a GPU adds their gradients in no fixed order.)

    Nothing is normalised between its layers: at a learning rate of 0.2, which the residual networks take, some seeds
    stay at chance; 0.1 is safer.
    """
    _, channels, height, width = images.images.shape
    padding = (2 if height < 32 else 0, 2 if width < 32 else 0)  # LeNet-5 saw its 28 × 28 digits in 32 × 32
    body = nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=padding),
        nn.ReLU(inplace=True),
        nn.AdaptiveMaxPool2d(14),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(inplace=True),
        nn.AdaptiveMaxPool2d(5),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.ReLU(inplace=True),
        nn.Linear(120, 84),
        nn.ReLU(inplace=True),
    )
    return body, 84


def _vgg(images: ImageSet, first: int) -> tuple[nn.Module, int]:
    """The eight convolutions of VGG-11, of widths from `first` to 8 · `first`, each with batch normalisation.

    The features are averages over the picture. Pools round up: five that round down leave nothing of 28 pixels.
    """
    before = images.images.shape[1]
    layers: list[nn.Module] = []
    for stage in ((1,), (2,), (4, 4), (8, 8), (8, 8)):
        for times in stage:
            after = times * first
            layers += [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
            before = after
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), before


def _vgg11(images: ImageSet) -> tuple[nn.Module, int]:
    """VGG-11 (Simonyan and Zisserman 2015) as is usual for small pictures: 9.2 million weights.

    With batch normalisation (Ioffe and Szegedy 2015), and an average in place of the two wide layers before the head.
    """
    return _vgg(images, 64)


def _small_vgg11(images: ImageSet) -> tuple[nn.Module, int]:
    """VGG-11 at an eighth of its width, for CPUs: about 145 thousand weights."""
    return _vgg(images, 8)


def _folding(images: ImageSet, width: int) -> list[nn.Module]:
    """A stem that folds 2 × 2 pixels into channels before its convolution, which has no bias.

    At 28 × 28 that costs little accuracy, and on a CPU it is several times as fast as full-size first layers, whose
    input gradients are bound by memory.
    """
    _, channels, height, side = images.images.shape
    return [
        nn.ZeroPad2d((0, side % 2, 0, height % 2)),
        nn.PixelUnshuffle(2),
        nn.Conv2d(4 * channels, width, 3, padding=1, bias=False),
    ]


def _residual(
    images: ImageSet, block: type[BasicBlock | Bottleneck], widths: tuple[int, ...], blocks: tuple[int, ...]
) -> tuple[nn.Module, int]:
    """Residual blocks (He et al. 2016), so many of each width; from one width to the next the picture is halved.

    A bottleneck puts out four times its width. The stem folds.
    """
    before = widths[0]
    layers: list[nn.Module] = [*_folding(images, before), nn.BatchNorm2d(before), nn.ReLU(inplace=True)]
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        after = width * block.expansion
        for number in range(count):
            stride = 2 if stage > 0 and number == 0 else 1
            shortcut = None
            if stride == 2 or before != after:
                shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
            layers.append(block(before, width, stride, shortcut))
            before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), before


def _small_resnet(images: ImageSet) -> tuple[nn.Module, int]:
    """Three residual blocks of widths 16, 32, 64: about 78 thousand weights."""
    return _residual(images, BasicBlock, (16, 32, 64), (1, 1, 1))


def _small_resnet18(images: ImageSet) -> tuple[nn.Module, int]:
    """ResNet-18's eight residual blocks at an eighth of their width, for CPUs: about 176 thousand weights."""
    return _residual(images, BasicBlock, (8, 16, 32, 64), (2, 2, 2, 2))


def _small_resnet50(images: ImageSet) -> tuple[nn.Module, int]:
    """ResNet-50 at an eighth of its width and with eight of its sixteen bottlenecks, two of each width, for CPUs.

    About 224 thousand weights, in 26 layers.
    """
    return _residual(images, Bottleneck, (8, 16, 32, 64), (2, 2, 2, 2))


def _small(images: ImageSet) -> bool:
    """Whether the pictures are of up to 64 pixels a side, for which stems made for ImageNet are too coarse."""
    return max(images.images.shape[2:]) <= 64


def _torchvision_resnet(
    images: ImageSet, block: type[BasicBlock | Bottleneck], layers: list[int]
) -> tuple[nn.Module, int]:
    """A ResNet (He et al. 2016); for pictures of up to 64 pixels with the CIFAR stem: 3 × 3, no max-pool."""
    body = ResNet(block, layers)
    if _small(images):
        body.conv1 = nn.Conv2d(images.images.shape[1], 64, 3, padding=1, bias=False)
        body.maxpool = nn.Identity()
    elif images.images.shape[1] != 3:
        body.conv1 = nn.Conv2d(images.images.shape[1], 64, 7, stride=2, padding=3, bias=False)
    width = body.fc.in_features
    body.fc = nn.Identity()
    return body, width


def _resnet18(images: ImageSet) -> tuple[nn.Module, int]:
    """ResNet-18: 11.2 million weights, at any size."""
    return _torchvision_resnet(images, BasicBlock, [2, 2, 2, 2])


def _resnet50(images: ImageSet) -> tuple[nn.Module, int]:
    """ResNet-50: 23.5 million weights, at any size.

    As torchvision builds it: where a block halves the picture its 3 × 3 convolution does, which was its first 1 × 1.
    """
    return _torchvision_resnet(images, Bottleneck, [3, 4, 6, 3])


def _dense(images: ImageSet, growth: int, blocks: tuple[int, int, int, int], stem: nn.Module) -> tuple[nn.Module, int]:
    """A DenseNet-BC (Huang, Liu, van der Maaten and Weinberger 2017) whose first convolution is `stem`.

    It starts at twice the growth. Pools round up: those that round down leave nothing of fewer than 8 pixels.
    """
    body = DenseNet(growth, blocks, 2 * growth)
    body.features.conv0 = stem
    if _small(images):
        body.features.pool0 = nn.Identity()
    for module in body.modules():
        if isinstance(module, nn.AvgPool2d):
            module.ceil_mode = True
    width = body.classifier.in_features
    body.classifier = nn.Identity()
    return body, width


def _densenet121(images: ImageSet) -> tuple[nn.Module, int]:
    """DenseNet-121: 7.0 million weights; for pictures of up to 64 pixels the stem is 3 × 3, without a max-pool.

    Its four blocks and three transitions are ImageNet's; the paper's own networks for CIFAR have three and two.
    """
    channels = images.images.shape[1]
    small = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    large = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return _dense(images, 32, (6, 12, 24, 16), small if _small(images) else large)


def _small_densenet(images: ImageSet) -> tuple[nn.Module, int]:
    """DenseNet-121 with a sixth of its dense layers, at a quarter of their growth, for CPUs: 35 thousand weights.

    The stem folds.
    """
    return _dense(images, 8, (1, 2, 4, 3), nn.Sequential(*_folding(images, 16)))


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Inside, attention is matrix products and a softmax rather than one fused kernel.

    A fused one adds gradients on a GPU in no fixed order, has neither second nor forward derivatives, and goes back
    through bfloat16 on a CPU several times as slowly.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Transformer(nn.Module):
    """torchvision's vision transformer with the class token for its features, over pictures padded to a square.

    Its attention is plain: see `_plain_attention`.
    """

    def __init__(self, padding: tuple[int, int, int, int], transformer: VisionTransformer) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d(padding)
        self.transformer = transformer

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures `(n, C, H, W)` to class tokens `(n, width)`."""
        with _plain_attention():
            tokens: Tensor = self.transformer(self.pad(pictures))
        return tokens


def _transformer(
    images: ImageSet, patch: int, width: int, layers: int, heads: int, inner: int
) -> tuple[nn.Module, int]:
    """A vision transformer (Dosovitskiy et al. 2021) without dropout; its features are the normalised class token.

    inner: width of the hidden layer of a block's perceptron. Pictures are padded with zeros, at the right and below,
    to a square of whole patches: torchvision's transformer sees no other.
    """
    _, channels, height, side = images.images.shape
    square = math.ceil(max(height, side) / patch) * patch
    body = VisionTransformer(square, patch, layers, heads, width, inner)
    if channels != 3:
        body.conv_proj = nn.Conv2d(channels, width, patch, patch)
    body.heads = nn.Identity()
    return _Transformer((0, square - side, 0, square - height), body), width


def _vit_b(images: ImageSet) -> tuple[nn.Module, int]:
    """ViT-B: about 85 million weights; patches of 4 × 4 for pictures of up to 64 pixels, 16 × 16 above."""
    return _transformer(images, 4 if _small(images) else 16, 768, 12, 12, 3072)


def _small_vit(images: ImageSet) -> tuple[nn.Module, int]:
    """Four blocks of width 64, with two heads, for CPUs: about 139 thousand weights for grey 28 × 28 pixels.

    Patches of 7 × 7, so that those are 16: four times as many cost three times the time. The perceptrons are twice as
    wide as the tokens, which are four times in ViT-B. A learning rate of 0.05 suits it. A transformer is slow to learn
    from a few thousand pictures, and stays behind the convolutional networks.
    """
    return _transformer(images, 7 if _small(images) else 16, 64, 4, 2, 128)


# The small ones first, each group from the shallowest to the deepest: by the layers with weights on the longest way
# through, of which a block of a transformer has four.
MODELS: dict[str, Callable[[ImageSet], tuple[nn.Module, int]]] = {
    "linear": _linear,
    "2nn": _2nn,
    "3nn": _3nn,
    "lenet5": _lenet5,
    "small_resnet": _small_resnet,
    "small_vgg11": _small_vgg11,
    "small_resnet18": _small_resnet18,
    "small_vit": _small_vit,
    "small_densenet": _small_densenet,
    "small_resnet50": _small_resnet50,
    "vgg11": _vgg11,
    "resnet18": _resnet18,
    "resnet50": _resnet50,
    "vit_b": _vit_b,
    "densenet121": _densenet121,
}


def build(name: str, images: ImageSet, *, seed: int = 0) -> Classifier:
    """The model called `name`, freshly initialised with `seed`, for pictures like `images`, on their device.

    Channels, classes and the normalisation (mean and standard deviation of a channel) are taken from `images`.
    Raises `ValueError` for an unknown name.
    """
    check_choice("model", name, MODELS)
    check_count("seed", seed, 0)
    return _initialised(name, images, *_moments(images.images), seed).to(images.device)


def begin_with(model: Classifier, start: Classifier) -> None:
    """Give `model` the feature extractor of `start`, trained elsewhere; its head stays as it was drawn.

    Raises `ValueError` unless both are of one architecture and for pictures alike.
    """
    shapes = [{name: tensor.shape for name, tensor in one.body.state_dict().items()} for one in (model, start)]
    if start.architecture != model.architecture or shapes[0] != shapes[1]:
        given, wanted = (f"a {one.architecture} for pictures of {one.picture_shape}" for one in (start, model))
        raise bad("start", given, wanted)
    model.body.load_state_dict(start.body.state_dict())


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

    In a `Classifier`, each batch normalisation that follows a convolution is folded into it: the same function, to
    rounding, and one seventh less time for an input gradient on a CPU. (Most of a DenseNet's follow a concatenation.)
    """
    copied = copy.deepcopy(model).eval()
    # Only then: tracing would keep a transformer's operations and lose the choice of how its attention is computed.
    if isinstance(copied, Classifier) and any(isinstance(part, nn.BatchNorm2d) for part in copied.body.modules()):
        copied.body = fuse(copied.body)
    return copied.eval().requires_grad_(False)  # again: the folded parts are new
