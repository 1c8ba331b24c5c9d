"""Models: the same seed gives the same one, pixel values in [0, 1] go in, features come out flat."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import vgg

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
    "vgg11": 512,
    "resnet18": 512,
}


def noise(*shape: int, classes: int = 3) -> mi.ImageSet:
    """Two pictures of random pixels."""
    pictures = torch.randint(0, 256, (2, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return mi.ImageSet(pictures, torch.tensor([0, 1]), tuple(map(str, range(classes))))


@pytest.mark.parametrize("name", list(mi.MODELS))
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 33, 17), (3, 96, 80)])
def test_logits_are_head_of_features(name: str, shape: tuple[int, int, int]) -> None:
    images = noise(*shape)
    model = mi.build(name, images).eval()
    with torch.no_grad():
        features = model.features(images.floats())
        assert features.shape == (2, WIDTHS.get(name, math.prod(shape)))
        assert torch.equal(model(images.floats()), model.head(features))
        assert model(images.floats()).shape == (2, 3)


@pytest.mark.parametrize("name", sorted(set(mi.MODELS) - {"2nn", "3nn"}))  # there 77 million weights say nothing new
def test_large_pictures_fit(name: str) -> None:
    images = noise(3, 224, 224)
    with torch.no_grad():
        assert mi.build(name, images).eval()(images.floats()).shape == (2, 3)


@pytest.mark.parametrize("name", list(mi.MODELS))
def test_every_picture_gets_a_gradient_and_is_left_as_it_was(name: str) -> None:
    images = noise(3, 32, 32)
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


def test_a_seed_fixes_the_model_and_leaves_global_generators_alone(
    tiny: mi.ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("it reseeded the GPUs"))
    torch.default_generator.manual_seed(7)
    expected = torch.rand(1)
    torch.default_generator.manual_seed(7)
    one, two, other = (mi.build("small_resnet", tiny, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)


def test_an_unknown_model_is_refused(tiny: mi.ImageSet) -> None:
    with pytest.raises(ValueError, match="model: got 'vgg', expected one of 'linear', '2nn', '3nn', 'lenet5', "):
        mi.build("vgg", tiny)


@pytest.mark.parametrize("name", list(mi.MODELS))
def test_a_frozen_copy_computes_the_same_without_weight_gradients(
    name: str, easy: tuple[mi.ImageSet, mi.ImageSet]
) -> None:
    train, _ = easy
    model = mi.build(name, train)
    mi.fit(model, train.subset(slice(0, 64)), epochs=2, batch_size=32)  # so that the statistics are not 0 and 1
    x = train.floats(slice(0, 16))
    copied = frozen(model)
    wanted = model.eval()(x)
    assert torch.allclose(copied(x), wanted, rtol=1e-4, atol=1e-4 * float(wanted.detach().abs().max()))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in copied.modules())
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


@pytest.mark.parametrize("name", list(mi.MODELS))
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
