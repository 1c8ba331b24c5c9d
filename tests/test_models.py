"""Models: the same seed gives the same one, pixel values in [0, 1] go in, features come out flat."""

from pathlib import Path

import pytest
import torch

import miue_lib as mi
from miue_lib.models import frozen, load_model, save_model


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
