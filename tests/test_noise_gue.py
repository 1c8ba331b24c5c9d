"""GUE: the moves of its game, the sizes its generator takes, and that it learns from the pictures it is given alone."""

import copy
import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import miue_lib as mi
from miue_lib.kernels.crop_flip import View
from miue_lib.noise.gue import Game, Generator, apply, enlarged, gue, train_generator, wrong_loss

Bands = tuple[mi.ImageSet, mi.ImageSet]
QUICK: dict[str, Any] = {
    "surrogate": "small_resnet",
    "epochs": 1,
    "inner_steps": 1,
    "width": 4,
    "batch_size": 32,
    "learning_rate": 0.1,
    "inner_learning_rate": 3e-3,
}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """A `Generator` that a test makes for itself begins with weights from the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def game(images: mi.ImageSet, epsilon: float = 8 / 255, **settings: Any) -> Game:
    rates = {
        "classes": len(images.classes),
        "eta": 1.5,
        "inner_steps": 3,
        "inner_learning_rate": 3e-3,
        "learning_rate": 0.1,
    }
    generator = Generator(images.images.shape[1], epsilon=epsilon, width=4)
    classifier = mi.build("small_resnet", images)
    rates |= {"generator_learning_rate": 0.3, "generator_optimizer": "sgd"}
    return Game(generator, classifier, **rates | settings)


# The noise


@pytest.mark.parametrize("epsilon", [8 / 255, 0.03, 1 / 255, 1.0])
def test_the_budget_holds_in_published_pictures(easy: Bands, epsilon: float) -> None:
    train, _ = easy
    noise = gue(train, epsilon=epsilon, **QUICK)
    published = train.with_(noise).images.int()
    change = published - train.images.int()
    assert 0 < change.abs().max() <= 255 * epsilon + 1e-6
    assert change.min() < 0 < change.max(), "noise darkens and brightens"
    assert (noise.method, noise.settings["epsilon"]) == ("gue", epsilon)


def test_a_seed_repeats_the_noise_and_leaves_the_global_one_alone(easy: Bands) -> None:
    train = easy[0].subset(slice(0, 64))
    before = torch.get_rng_state()
    one, again, other = (gue(train, seed=seed, crop=1, flip=True, **QUICK) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.levels, again.levels)
    assert not torch.equal(one.levels, other.levels)
    assert one.curves == again.curves


def test_each_setting_reaches_the_method(easy: Bands) -> None:
    train = easy[0].subset(slice(0, 64))
    plain = gue(train, **QUICK).levels
    for change in (
        {"eta": 5.0},
        {"epochs": 2},
        {"inner_steps": 2},
        {"inner_learning_rate": 1e-2},
        {"learning_rate": 0.5},
        {"generator_learning_rate": 0.5},
        {"generator_optimizer": "adam"},
        {"width": 5},
        {"fold": 2},
        {"surrogate": mi.build("small_resnet", train, seed=9)},
        {"batch_size": 24},
        {"crop": 1},
        {"flip": True},
    ):
        assert not torch.equal(gue(train, **QUICK | change).levels, plain), change


def test_noise_is_rounded_to_the_nearest_level(easy: Bands) -> None:
    grey = mi.ImageSet(torch.full((4, 1, 8, 8), 128, dtype=torch.uint8), torch.arange(4) % 2)
    generator = Generator(1, epsilon=8 / 255, width=2).eval()
    nn.init.constant_(generator.last[1].bias, 0.7)  # so that truncation towards zero would show as a bias
    wanted = 255 * generator(grey.floats())
    assert (apply(generator, grey).levels - wanted).abs().max() <= 0.5 + 1e-4


# What it learns from


def test_networks_see_nothing_but_the_given_pictures_and_their_noise(easy: Bands) -> None:
    """Every input of every network, in training and afterwards, is a given picture or one within ε of a given one."""
    train, test = easy
    seen: list[tuple[nn.Module, Tensor]] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, Generator | mi.Classifier):
            seen.append((module, inputs[0].detach().clone()))

    hook = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        gue(train, **QUICK)
    finally:
        hook.remove()
    known, epsilon = train.floats().flatten(1), 8 / 255

    def distance(pictures: Tensor) -> Tensor:
        return torch.cdist(pictures.flatten(1), known, p=float("inf")).amin(1)

    assert distance(test.floats()).min() > 2 * epsilon, "test pictures would be noticed"
    assert {type(module) for module, _ in seen} == {Generator, mi.Classifier}
    for module, pictures in seen:
        assert distance(pictures).max() <= (0 if isinstance(module, Generator) else epsilon + 1e-6)
    generated = torch.cat([pictures for module, pictures in seen if isinstance(module, Generator)])
    times = torch.bincount(torch.cdist(generated.flatten(1), known).argmin(1), minlength=192)
    assert torch.equal(times, torch.full((192,), 3)), "in training, for the statistics at its end, and for the noise"


def test_new_pictures_get_the_noise_that_they_would_among_others(easy: Bands) -> None:
    train, test = easy
    generator = train_generator(train, **QUICK)
    both = mi.ImageSet(torch.cat([train.images, test.images]), torch.cat([train.labels, test.labels]))
    inside, alone = apply(generator, both).levels[192:], apply(generator, test).levels
    one_by_one = torch.cat([apply(generator, test.subset([i])).levels for i in range(5)])
    # Sums over other numbers of pictures may round differently, and so move a value over the edge between two levels.
    for levels, others in ((inside, alone), (one_by_one, alone[:5])):
        assert (levels - others).abs().max() <= 1
        assert (levels != others).float().mean() < 1e-3
    assert alone.unique(dim=0).shape[0] == 96, "each picture has noise of its own"
    relabelled = mi.ImageSet(test.images, test.labels.flip(0))
    assert torch.equal(apply(generator, relabelled).levels, alone), "the label does not matter"


def test_crafting_is_training_and_applying(easy: Bands) -> None:
    train, _ = easy
    lines: list[str] = []
    noise = gue(train, progress=lines.append, **QUICK | {"epochs": 2})
    generator = train_generator(train, **QUICK | {"epochs": 2})
    before = copy.deepcopy(generator.state_dict())
    assert torch.equal(apply(generator, train).levels, noise.levels)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert noise.curves == generator.curves
    assert all(len(curve) == 2 for curve in noise.curves.values())
    assert [line.split(":")[0] for line in lines] == ["gue epoch 1/2", "gue epoch 2/2"]
    assert noise.passes == 2 * (1 + 4), "192 pictures are six whole batches of 32"
    whole, part = (inspect.signature(function).parameters for function in (gue, train_generator))
    assert {name: p.default for name, p in whole.items()} == {name: p.default for name, p in part.items()}


def test_a_given_surrogate_is_left_as_it_was(easy: Bands) -> None:
    model = mi.build("small_resnet", easy[0], seed=9)
    before = copy.deepcopy(model.state_dict())
    noise = gue(easy[0], **QUICK | {"surrogate": model})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert noise.settings["surrogate"] == "Classifier"


# The game


def test_wrong_loss_is_the_largest_cross_entropy_towards_a_wrong_class() -> None:
    logits, labels = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 5
    wrong = [F.cross_entropy(logits, (labels + k) % 5, reduction="none") for k in range(1, 5)]
    torch.testing.assert_close(wrong_loss(logits, labels), torch.stack(wrong).amax(0).mean())


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_a_move_is_a_step_down_the_gradient_of_f_plus_lambda_q(easy: Bands, inner_steps: int) -> None:
    train, _ = easy
    pictures, labels = train.images[:32], train.labels[:32]
    view = View.random(32, 1, True, torch.Generator().manual_seed(3))
    played = game(train, inner_steps=inner_steps)
    generator, theta = copy.deepcopy(played.generator), copy.deepcopy(played.classifier)
    a, weights = list(generator.parameters()), list(theta.parameters())
    told = played.move(pictures, labels, view)

    clean = train.floats(slice(0, 32))
    noisy = view((clean + generator(clean)).clamp(0, 1))
    best = copy.deepcopy(theta)
    adam = torch.optim.Adam(best.parameters(), 3e-3)
    for _ in range(inner_steps):
        adam.zero_grad()
        F.cross_entropy(best(noisy.detach()), labels).backward()
        adam.step()
    f, g = wrong_loss(theta(view(clean)), labels), F.cross_entropy(theta(noisy), labels)
    q = g - F.cross_entropy(best(noisy), labels)
    of_q = torch.autograd.grad(q, [*a, *weights], retain_graph=True)
    of_f = [*map(torch.zeros_like, a), *torch.autograd.grad(f, weights, retain_graph=True)]
    square = sum(float(u.square().sum()) for u in of_q)
    inner = sum(float((u * v).sum()) for u, v in zip(of_q, of_f, strict=True))
    multiplier = max(0.0, 1.5 - inner / square)
    torch.testing.assert_close(told, torch.stack([f, g, q, torch.tensor(multiplier)]), rtol=1e-3, atol=1e-4)
    # BOME's condition: along the step, q falls by eta ‖∇q‖² at least.
    assert inner + multiplier * square >= 1.5 * square * (1 - 1e-5)

    moved = [*played.generator.parameters(), *played.classifier.parameters()]
    rates = [0.3] * len(a) + [0.1] * len(weights)
    for now, old, u, v, rate in zip(moved, [*a, *weights], of_f, of_q, rates, strict=True):
        # Float32 through a dozen layers: a thousandth of the step, or of its largest entry where it cancels.
        step = rate * (u + multiplier * v)
        torch.testing.assert_close(old - now, step, rtol=1e-3, atol=1e-3 * float(step.abs().max()) + 1e-6)


def test_the_classifier_is_right_with_the_noise_and_wrong_without(easy: Bands) -> None:
    """What the players are after: θ is right with the noise, less so with its values in other places, wrong without."""
    train, _ = easy
    played = game(train, epsilon=32 / 255, generator_optimizer="adam", generator_learning_rate=1e-2)
    order = torch.Generator().manual_seed(0)
    for _ in range(25):
        index = torch.randperm(192, generator=order)[:32]
        played.move(train.images[index], train.labels[index], View.random(32, 0, False, order))
    clean = train.floats()
    with torch.no_grad():
        delta = played.generator(clean)
        random = delta.flatten(1)[:, torch.randperm(144, generator=order)].view_as(delta)

        def loss(pictures: Tensor) -> float:
            return float(F.cross_entropy(played.classifier(pictures.clamp(0, 1)), train.labels))

        assert loss(clean + delta) < 0.5 * loss(clean)
        assert loss(clean + delta) < loss(clean + random)


# The generator


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 3, 4, 6), (4, 4, 7, 8), (1, 3, 2, 5)])
def test_enlarging_is_bilinear_interpolation(sizes: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *sizes[:2], generator=torch.Generator().manual_seed(0), requires_grad=True)
    ours, theirs = enlarged(x, *sizes[2:]), F.interpolate(x, sizes[2:], mode="bilinear", align_corners=True)
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(*(torch.autograd.grad((y * weight).sum(), x)[0] for y in (ours, theirs)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fold", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (12, 12), (17, 30)])
def test_any_size_of_picture_gets_noise_of_its_shape(channels: int, fold: int, size: tuple[int, int]) -> None:
    generator = Generator(channels, epsilon=0.1, width=2, fold=fold).eval()
    noise = generator(torch.rand(3, channels, *size, generator=torch.Generator().manual_seed(0)))
    assert noise.shape == (3, channels, *size)
    assert 0 < noise.abs().max() <= 0.1


def test_the_default_generator_has_the_authors_weights() -> None:
    # Two 3 × 3 convolutions at 3-64-128-256-512 and 768-256, 384-128, 192-64, each with biases and normalisation.
    pairs = [*itertools.pairwise((3, 64, 128, 256, 512)), (768, 256), (384, 128), (192, 64)]
    expected = sum(9 * (a * b + b * b) + 6 * b for a, b in pairs) + 64 * 3 + 3 + 6
    assert sum(p.numel() for p in Generator(3, epsilon=0.1).parameters()) == expected


def test_two_uneven_classes_in_colour() -> None:
    images = torch.randint(0, 256, (11, 3, 9, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    noise = gue(mi.ImageSet(images, torch.tensor([0] * 10 + [1]), ("a", "b")), **QUICK | {"fold": 2})
    assert noise.levels.shape == images.shape


def test_as_few_pictures_as_there_can_be() -> None:
    """At 8 × 8 the lowest layer has one pixel: a batch of one picture would have no variance there."""
    images = torch.randint(0, 256, (3, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    noise = gue(mi.ImageSet(images, torch.tensor([0, 1, 1])), **QUICK | {"batch_size": 2})
    assert noise.passes == pytest.approx(2 / 3 * 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 8}, r"epsilon: got 8, expected a number in \(0, 1\]"),
        ({"epsilon": 0.001}, r"epsilon: got 0\.001, expected at least 1/255"),
        ({"eta": 0}, "eta: got 0, expected a finite number > 0"),
        ({"epochs": 0}, "epochs: got 0, expected a whole number >= 1"),
        ({"inner_steps": 1.5}, r"inner_steps: got 1\.5, expected a whole number >= 1"),
        ({"inner_learning_rate": 0}, "inner_learning_rate: got 0, expected a finite number > 0"),
        ({"learning_rate": float("nan")}, "learning_rate: got nan, expected a finite number > 0"),
        ({"generator_learning_rate": "x"}, "generator_learning_rate: got 'x', expected a finite number > 0"),
        ({"generator_optimizer": "sam"}, "generator_optimizer: got 'sam', expected one of 'sgd', 'adam'"),
        ({"width": 0}, "width: got 0, expected a whole number >= 1"),
        ({"fold": 0}, "fold: got 0, expected a whole number >= 1"),
        ({"batch_size": 1}, "batch_size: got 1, expected a whole number >= 2"),
        ({"crop": 12}, "crop: got 12, expected a whole number from 0 to 11"),
        ({"flip": "no"}, "flip: got 'no', expected True or False"),
        ({"seed": -1}, "seed: got -1, expected a whole number >= 0"),
        ({"surrogate": 3}, "surrogate: got 3, expected the name of a model or a module"),
        ({"surrogate": "vgg"}, "model: got 'vgg', expected one of"),
        ({"learning_rate": 1e30}, "gue: the losses became"),
    ],
)
def test_bad_settings_are_refused(easy: Bands, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(FloatingPointError if "became" in message else ValueError, match=message):
        gue(easy[0], **QUICK | settings)


def test_unusable_pictures_are_refused(easy: Bands, tiny: mi.ImageSet) -> None:
    with pytest.raises(
        ValueError, match="images: got pictures of fewer than two classes, expected two classes or more"
    ):
        gue(tiny.subset(slice(0, 40)), **QUICK)
    with pytest.raises(ValueError, match="images: got pictures of 1 channels, expected 3, as the generator"):
        apply(Generator(3, epsilon=0.1, width=2), easy[0])
