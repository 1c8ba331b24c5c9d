"""Models: the same seed gives the same one, pixel values in [0, 1] go in, features come out flat."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import densenet, resnet, vgg, vision_transformer

import miue_lib as mi
from miue_lib.models import frozen, load_model, save_model

# Of the features; those of "linear" are as many as the pixels.
WIDTHS = {
    "2nn": 512,
    "3nn": 512,
    "lenet5": 84,
    "small_resnet": 64,
    "small_vgg11": 64,
    "small_resnet18": 64,
    "small_vit": 64,
    # A dense layer adds 8 maps, a transition halves: 16, 24, 12, 28, 14, 46, 23, 47.
    "small_densenet": 47,
    "small_resnet50": 256,
    "vgg11": 512,
    "resnet18": 512,
    "resnet50": 2048,
    "vit_b": 768,
    "densenet121": 1024,
}
LARGE = ("resnet50", "densenet121")  # tried on fewer and smaller pictures, for time
OTHERS = [name for name in mi.MODELS if name not in (*LARGE, "vit_b")]  # whose 85 million weights are built once
SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 33, 17), (3, 96, 80)]
# Batch normalisations of a DenseNet that follow a concatenation, a pool or nothing: one for each dense layer and each
# of three transitions, and the last.
UNFOLDED = {"small_densenet": 10 + 3 + 1, "densenet121": 58 + 3 + 1}


def noise(*shape: int, classes: int = 3) -> mi.ImageSet:
    """Two pictures of random pixels."""
    pictures = torch.randint(0, 256, (2, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return mi.ImageSet(pictures, torch.tensor([0, 1]), tuple(map(str, range(classes))))


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, shape) for name in OTHERS for shape in SHAPES]
    + [(name, shape) for name in LARGE for shape in [(1, 8, 8), (3, 5, 9), (1, 65, 40)]],
)
def test_logits_are_head_of_features(name: str, shape: tuple[int, int, int]) -> None:
    images = noise(*shape)
    model = mi.build(name, images).eval()
    with torch.no_grad():
        features = model.features(images.floats())
        assert features.shape == (2, WIDTHS.get(name, math.prod(shape)))
        assert torch.equal(model(images.floats()), model.head(features))
        assert model(images.floats()).shape == (2, 3)


@pytest.mark.parametrize("name", sorted(set(OTHERS) - {"2nn", "3nn"}))  # there 77 million weights say nothing new
def test_large_pictures_fit(name: str) -> None:
    images = noise(3, 224, 224)
    with torch.no_grad():
        assert mi.build(name, images).eval()(images.floats()).shape == (2, 3)


@pytest.mark.parametrize("name", [*OTHERS, *LARGE])
def test_every_picture_gets_a_gradient_and_is_left_as_it_was(name: str) -> None:
    images = noise(3, 8, 8) if name in LARGE else noise(3, 32, 32)
    model = mi.build(name, images).eval()
    for module in (model, frozen(model)):
        x = images.floats().requires_grad_()
        (gradient,) = torch.autograd.grad(module(x).sum(), x)
        assert torch.isfinite(gradient).all()
        assert (gradient.flatten(1).abs().amax(1) > 0).all()
        assert torch.equal(x, images.floats())


def residual_weights(channels: int, widths: tuple[int, ...], blocks: int) -> int:
    """Two 3 × 3 convolutions a block, a 1 × 1 where the width changes, and 2 weights a channel after each."""
    weights, before = 9 * 4 * channels * widths[0] + 2 * widths[0], widths[0]
    for after in widths:
        weights += 9 * (before + after) * after + 4 * after + (before != after) * (before + 2) * after
        weights += (blocks - 1) * (9 * 2 * after + 4) * after
        before = after
    return weights


def bottleneck_weights(channels: int, widths: tuple[int, ...], blocks: int) -> int:
    """1 × 1, 3 × 3 and 1 × 1 to four times the width, 1 × 1 where a width begins, 2 weights a channel after each."""
    weights, before = 9 * 4 * channels * widths[0] + 2 * widths[0], widths[0]
    for width in widths:
        weights += (before + 2) * 4 * width
        for _ in range(blocks):
            weights += before * width + 9 * width**2 + 4 * width**2 + 2 * (width + width + 4 * width)
            before = 4 * width
    return weights


def dense_weights(channels: int, growth: int, blocks: tuple[int, ...]) -> int:
    """Norm, 1 × 1 to four times the growth, norm, 3 × 3; norm and 1 × 1 to half between blocks; a norm at the end."""
    maps = 2 * growth
    weights = 9 * 4 * channels * maps + 2 * maps
    for number, block in enumerate(blocks):
        if number > 0:
            weights += (2 + maps // 2) * maps
            maps //= 2
        for _ in range(block):
            weights += (2 + 4 * growth) * maps + 2 * 4 * growth + 9 * 4 * growth * growth
            maps += growth
    return weights + 2 * maps


def transformer_weights(patch: int, tokens: int, width: int, layers: int, inner: int) -> int:
    """A patch's embedding, a place for each token, the class token, the last norm; a layer has two norms, four square
    maps and two between width and inner, all with biases."""
    layer = 4 * width + 4 * width * (width + 1) + inner * (width + 1) + width * (inner + 1)
    return width * (patch + 1) + tokens * width + width + 2 * width + layers * layer


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("linear", 10 * 785),
        ("2nn", 512 * 785 + 10 * 513),
        ("3nn", 512 * 785 + 512 * 513 + 10 * 513),
        # 5 · 5 weights for each pair of channels, a bias for each map, then 400, 120 and 84 units and a bias each.
        ("lenet5", 6 * 26 + 16 * (6 * 25 + 1) + 120 * 401 + 84 * 121 + 10 * 85),  # the 61,706 of the textbooks
        ("small_resnet", residual_weights(1, (16, 32, 64), 1) + 10 * 65),
        ("small_resnet18", residual_weights(1, (8, 16, 32, 64), 2) + 10 * 65),
        # 9 weights for each pair of channels, 2 for each of 344 channels.
        ("small_vgg11", 9 * (8 + 8 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 3 * 64 * 64) + 2 * 344 + 10 * 65),
        # VGG-11's convolutions have 9,220,480 weights for three channels, 2,752 of them biases, which the
        # normalisation's replace; it adds as many scales. One channel saves 2 · 9 · 64.
        ("vgg11", 9_220_480 - 2 * 9 * 64 + 2752 + 10 * 513),
        ("small_vit", transformer_weights(49, 17, 64, 4, 128) + 10 * 65),
        ("small_densenet", dense_weights(1, 8, (1, 2, 4, 3)) + 10 * 48),
        ("small_resnet50", bottleneck_weights(1, (8, 16, 32, 64), 2) + 10 * 257),
        # ResNet-50 and DenseNet-121 have 25,557,032 and 7,978,856 weights with 1000 classes and a stem of 7 × 7 for
        # three channels.
        ("resnet50", 25_557_032 - (3 * 49 - 9) * 64 - 990 * 2049),
        ("densenet121", 7_978_856 - (3 * 49 - 9) * 64 - 990 * 1025),
    ],
)
def test_weights_are_as_many_as_published_or_counted_by_hand(name: str, weights: int) -> None:
    assert sum(p.numel() for p in mi.build(name, noise(1, 28, 28, classes=10)).parameters()) == weights


def test_features_of_the_linear_model_are_the_normalised_pixels() -> None:
    images = noise(3, 8, 9)
    model = mi.build("linear", images)
    x = images.floats()
    assert torch.equal(model.features(x), ((x - model.mean) / model.std).flatten(1))


@pytest.mark.parametrize("side", [28, 32])
def test_lenet5_is_the_plain_one_where_that_is_defined(side: int) -> None:
    images = noise(1, side, side, classes=10)
    ours = mi.build("lenet5", images)
    plain = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=(32 - side) // 2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    ).to(memory_format=torch.channels_last)
    with torch.no_grad():
        for theirs, weights in zip(plain.parameters(), ours.parameters(), strict=True):
            theirs.copy_(weights)
    x = images.floats().requires_grad_()
    logits = ours(x)
    wanted = plain((x - ours.mean) / ours.std)
    # A pool picks values, and the rest is the same operations in the same order: equal to the last bit.
    assert torch.equal(logits, wanted)
    got, expected = (torch.autograd.grad(y.square().sum(), x)[0] for y in (logits, wanted))
    assert torch.equal(got, expected)


def test_vgg11_is_torchvisions_averaged_over_the_picture() -> None:
    images = noise(3, 64, 64)  # pools that round up or down are the same here, and 2 × 2 positions are averaged
    ours = mi.build("vgg11", images).train()
    theirs = vgg.make_layers(vgg.cfgs["A"], batch_norm=True).train()
    convolutions = [module for module in theirs if isinstance(module, nn.Conv2d)]
    kernels = [weights for weights in ours.body.parameters() if weights.ndim == 4]
    with torch.no_grad():
        for convolution, kernel in zip(convolutions, kernels, strict=True):
            convolution.weight.copy_(kernel)
            convolution.bias.zero_()
        x = images.floats()
        wanted = theirs((x - ours.mean) / ours.std).mean((2, 3))
        # Sums of up to 9 · 512 products, in another order: a layer is off by about sqrt(4608) float eps, 8e-6, and its
        # normalisation brings sizes back to 1; eight layers by 7e-5.
        assert torch.allclose(ours.features(x), wanted, rtol=1e-4, atol=1e-4)


def test_resnet18_on_small_pictures_is_the_cifar_variant(tiny: mi.ImageSet) -> None:
    count = sum(p.numel() for p in mi.build("resnet18", mi.load("fashion-mnist-mini", device="cpu")[0]).parameters())
    # The published CIFAR ResNet-18 has 11,173,962 parameters with three channels; one channel saves 2 · 9 · 64.
    assert count == 11_173_962 - 2 * 9 * 64


@pytest.mark.parametrize(("name", "original"), [("resnet50", resnet.resnet50), ("densenet121", densenet.densenet121)])
def test_above_64_pixels_it_is_torchvisions(name: str, original: Callable[[], nn.Module]) -> None:
    images = noise(3, 96, 96, classes=1000)  # halved five times without a remainder, as are 224
    ours, theirs = mi.build(name, images), original().to(memory_format=torch.channels_last)
    weights = ours.body.state_dict()
    last = "fc" if name == "resnet50" else "classifier"
    theirs.load_state_dict(weights | {f"{last}.{key}": value for key, value in ours.head.state_dict().items()})
    x = images.floats()
    with torch.no_grad():  # the same operations in the same order, in training mode, where statistics are 2 pictures'
        assert torch.equal(ours(x), theirs((x - ours.mean) / ours.std))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 12)])
def test_small_vit_is_torchvisions_on_a_square_of_the_mean_colour(shape: tuple[int, int, int]) -> None:
    images = noise(*shape)
    ours = mi.build("small_vit", images)
    square = 28 if shape[1] == 28 else 14  # four and two patches of 7
    theirs = vision_transformer.VisionTransformer(square, 7, 4, 2, 64, 128)
    theirs.conv_proj = nn.Conv2d(shape[0], 64, 7, 7)
    theirs.heads = nn.Identity()
    body: Any = ours.body
    theirs.load_state_dict(body.transformer.state_dict())
    x = images.floats()
    padded = ours.mean.expand(2, -1, square, square).clone()
    padded[:, :, : shape[1], : shape[2]] = x
    wanted = theirs((padded - ours.mean) / ours.std)
    # Attention in another order: features have variance 1, and each of 4 layers adds sums of up to 128 products, each
    # off by about sqrt(128) float eps, 1.4e-6.
    assert torch.allclose(ours.features(x), wanted, atol=1e-4)


def test_a_transformer_has_second_and_forward_derivatives_and_leaves_the_choice_of_attention_as_it_was(
    tiny: mi.ImageSet,
) -> None:
    model = mi.build("small_vit", tiny)
    x = tiny.floats(slice(0, 4)).requires_grad_()

    def flags() -> tuple[bool, ...]:
        fast = torch.backends.mha.get_fastpath_enabled()
        return fast, torch._C._get_flash_sdp_enabled(), torch._C._get_math_sdp_enabled()

    before = flags()
    for module in (model, frozen(model)):
        (slope,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
        (bend,) = torch.autograd.grad(slope.square().sum(), x)
        assert (bend.flatten(1).abs().amax(1) > 0).all()
    with torch.no_grad():  # the forward derivative is the same as the one that goes back
        _, forward = torch.func.jvp(model.eval(), (x.detach(),), (torch.ones_like(x),))
    (back,) = torch.autograd.grad(model(x).sum(), x)
    # Sums of 144 pixels' derivatives in another order: float eps of the sum of their sizes.
    assert forward.sum() == pytest.approx(float(back.sum()), abs=1e-5 * float(back.abs().sum()))
    with pytest.raises(AssertionError, match="image height"):
        model(x[:, :, :5])
    assert flags() == before


def test_vit_b_is_the_published_one_with_smaller_patches() -> None:
    images = noise(1, 8, 5)
    model = mi.build("vit_b", images).eval()
    # 86,567,656 with 1000 classes, 197 tokens and patches of 3 × 16 × 16; here are 4 patches of 4 × 4, and 3 classes.
    published = 86_567_656 - 768 * (3 * 256 - 16) - 192 * 768 - 997 * 769
    assert sum(p.numel() for p in model.parameters()) == published
    assert not any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    x = images.floats()
    with torch.no_grad():
        assert model.features(x).shape == (2, WIDTHS["vit_b"])
        assert torch.equal(frozen(model)(x), model.head(model.features(x)))


@pytest.mark.parametrize("method", ["em", "miue"])
@pytest.mark.parametrize("name", ["small_vit", "small_densenet", "small_resnet50", "resnet50", "densenet121"])
def test_noise_can_be_crafted_on_it(name: str, method: str) -> None:
    pictures = torch.randint(0, 256, (16, 1, 12, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = mi.ImageSet(pictures, torch.arange(16) % 2)
    # Not smaller: of 8 × 8, oneDNN's bfloat16 weight gradient of a 3 × 3 convolution of stride 2 on 1 × 1 is garbage.
    steps: dict[str, Any] = {"epochs": 1, "steps": 1, "step": 4 / 255, "noise_batch_size": 16, "batch_size": 16}
    noise = mi.craft(method, images, surrogate=name, **steps)
    assert 0 < noise.delta.abs().max() <= 8 / 255


@pytest.mark.parametrize("name", LARGE)
def test_a_large_one_comes_back_from_a_file(name: str, tmp_path: Path) -> None:
    images = noise(1, 8, 8)
    model = mi.build(name, images, seed=3)
    save_model(model, tmp_path / "victim.safetensors")
    assert torch.equal(
        mi.features(load_model(tmp_path / "victim.safetensors", device="cpu"), images), mi.features(model, images)
    )


def test_normalisation_is_inside_and_from_the_pictures() -> None:
    generator = torch.Generator().manual_seed(0)
    images = mi.ImageSet(
        torch.randint(0, 200, (50, 3, 8, 8), generator=generator, dtype=torch.uint8), torch.arange(50) % 2
    )
    model = mi.build("small_resnet", images)
    pixels = images.floats().double().transpose(0, 1).flatten(1)
    assert torch.allclose(model.mean.flatten().double(), pixels.mean(1), atol=1e-6)
    assert torch.allclose(model.std.flatten().double(), pixels.std(1, correction=0), atol=1e-6)
    x = images.floats()
    assert torch.equal(model.eval().features(x), model.body((x - model.mean) / model.std))
    with pytest.raises(ValueError, match="images: got 1 channels, expected 3, as the model was built for"):
        model.features(x[:, :1])


def test_constant_pictures_do_not_divide_by_zero() -> None:
    images = mi.ImageSet(torch.zeros((4, 1, 8, 8), dtype=torch.uint8), torch.arange(4) % 2)
    assert torch.isfinite(mi.build("small_resnet", images).eval()(images.floats())).all()


@pytest.mark.parametrize("name", ["small_resnet", "small_vit", "small_densenet", "small_resnet50"])
def test_a_seed_fixes_the_model_and_leaves_global_generators_alone(
    name: str, tiny: mi.ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("it reseeded the GPUs"))
    torch.default_generator.manual_seed(7)
    expected = torch.rand(1)
    torch.default_generator.manual_seed(7)
    one, two, other = (mi.build(name, tiny, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)


def test_an_unknown_model_is_refused(tiny: mi.ImageSet) -> None:
    with pytest.raises(ValueError, match="model: got 'vgg', expected one of 'linear', '2nn', '3nn', 'lenet5', "):
        mi.build("vgg", tiny)


@pytest.mark.parametrize("name", [*OTHERS, *LARGE])
def test_a_frozen_copy_computes_the_same_without_weight_gradients(
    name: str, easy: tuple[mi.ImageSet, mi.ImageSet]
) -> None:
    train, _ = easy
    model = mi.build(name, train)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if trained: otherwise these are 0, 1, 1 and 0
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.3, generator=generator)
    x = train.floats(slice(0, 16))
    copied = frozen(model)
    wanted = model.eval()(x)
    assert torch.allclose(copied(x), wanted, rtol=1e-4, atol=1e-4 * float(wanted.detach().abs().max()))
    assert copied(x[:3]).shape == (3, 3)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in copied.modules()) == UNFOLDED.get(name, 0)
    assert not any(p.requires_grad for p in copied.parameters())
    assert all(p.requires_grad for p in model.parameters())


def test_moments_do_not_depend_on_the_blocks_they_are_counted_in(
    tiny: mi.ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = mi.build("small_resnet", tiny)
    for pixels in (1, 5 * 12 * 12, 95 * 12 * 12):  # one picture at a time, several, all but one
        monkeypatch.setattr("miue_lib.models._MOMENT_PIXELS", pixels)
        blocks = mi.build("small_resnet", tiny)
        assert torch.equal(whole.mean, blocks.mean)
        assert torch.equal(whole.std, blocks.std)


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_brings_a_trained_model_back(name: str, easy: tuple[mi.ImageSet, mi.ImageSet], tmp_path: Path) -> None:
    train, test = easy
    model = mi.build(name, train, seed=3)
    mi.fit(model, train.subset(slice(0, 64)), epochs=1, batch_size=32)
    save_model(model, tmp_path / "victim.safetensors")
    torch.default_generator.manual_seed(7)
    expected = torch.rand(1)
    torch.default_generator.manual_seed(7)
    back = load_model(tmp_path / "victim.safetensors", device="cpu")
    assert torch.equal(torch.rand(1), expected)
    assert (back.architecture, back.picture_shape, back.class_names) == (name, (1, 12, 12), ("0", "1", "2"))
    assert torch.equal(mi.features(back, test), mi.features(model, test))
    assert mi.accuracy(back, test) == mi.accuracy(model, test)
    mi.fit(back, train.subset(slice(0, 64)), epochs=1, batch_size=32)  # not frozen
    assert [path.name for path in tmp_path.iterdir()] == ["victim.safetensors"]


def test_a_model_that_cannot_be_saved_is_refused(tiny: mi.ImageSet, tmp_path: Path) -> None:
    model = mi.build("small_resnet", tiny)
    own = mi.Classifier(torch.nn.Flatten(), 144, 3, torch.zeros(1), torch.ones(1))
    for module in (own, torch.nn.Flatten()):
        with pytest.raises(ValueError, match="model: got .*, expected a Classifier made by build"):
            save_model(module, tmp_path / "victim")  # type: ignore[arg-type]
    for path in (tmp_path / "no" / "victim", tmp_path):
        with pytest.raises(ValueError, match="path: got .*, expected a file in a folder that exists"):
            save_model(model, path)
    assert not list(tmp_path.iterdir())


def test_damaged_and_foreign_models_are_refused(tiny: mi.ImageSet, tmp_path: Path) -> None:
    path = tmp_path / "victim.safetensors"
    save_model(mi.build("small_resnet", tiny), path)
    whole = path.read_bytes()

    def refused(content: bytes, message: str) -> None:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_model(path, device="cpu")

    for size in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        refused(whole[:size], "path: got .*, expected a whole file written by save_model")
    refused(whole.replace(b"miue_lib.model/1", b"something.else/1"), "of format 'something.else/1', expected format")
    # The header's length stands before it, so what replaces a part of it is as long as that.
    refused(whole.replace(b"small_resnet", b"large_resnet"), "architecture in .*: got 'large_resnet', expected one of")
    refused(whole.replace(b"small_resnet", b"resnet18".ljust(12)), "architecture in .*: got 'resnet18    ', expected")
    refused(whole.replace(b"picture_shape", b"picture_shade"), "path: got .*KeyError.*, expected a whole file")
    refused(whole.replace(b"[1, 12, 12]", b"[2, 12, 12]"), "path: got .*ValueError.*, expected a whole file")
    refused(whole.replace(b"[1, 12, 12]", b"[3, 12, 12]"), "path: got .*, expected the weights of a small_resnet")
    refused(whole.replace(b'"head.bias"', b'"head.bios"'), "path: got .*, expected the weights of a small_resnet")
    mi.craft("random", tiny).save(path)
    with pytest.raises(ValueError, match=r"of format 'miue_lib.perturbation/2', expected format 'miue_lib.model/1'"):
        load_model(path)
    with pytest.raises(ValueError, match=r"path: got .*nowhere.*, expected a file written by save_model"):
        load_model(tmp_path / "nowhere")
