"""Models: the same seed gives the same one, pixel values in [0, 1] go in, features come out flat."""

import pytest
import torch

import miue_lib as mi
from miue_lib.models import frozen


@pytest.mark.parametrize("name", list(mi.MODELS))
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 33, 17), (3, 96, 80)])
def test_logits_are_head_of_features(name: str, shape: tuple[int, int, int]) -> None:
    pictures = torch.randint(0, 256, (4, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = mi.ImageSet(pictures, torch.tensor([0, 1, 2, 2]))
    model = mi.build(name, images).eval()
    with torch.no_grad():
        features = model.features(images.floats())
        assert features.shape == (4, {"small_resnet": 64, "resnet18": 512}[name])
        assert torch.equal(model(images.floats()), model.head(features))
        assert model(images.floats()).shape == (4, 3)


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
    with pytest.raises(ValueError, match="model: got 'vgg', expected one of 'small_resnet', 'resnet18'"):
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
