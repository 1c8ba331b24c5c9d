"""Methods: budgets hold, seeds repeat, settings matter, and each lowers what it says it lowers."""

import copy
import inspect
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import miue_lib as mi
from miue_lib.attack import Attack
from miue_lib.kernels.crop_flip import View
from miue_lib.noise.batches import ClassBatches
from miue_lib.noise.bilevel import bilevel
from miue_lib.noise.execution import Execution
from miue_lib.noise.miue import miue
from miue_lib.noise.ranks import Batch

Bands = tuple[mi.ImageSet, mi.ImageSet]
SMALL: dict[str, Any] = {"surrogate": "small_resnet", "batch_size": 32}
ROUNDS = SMALL | {"epochs": 3, "steps": 2, "step": 4 / 255}
AGAINST = {"attack_radius": 2 / 255, "attack_step": 2 / 255, "attack_steps": 1, "draws": 1, "crop": 1}
QUICK: dict[str, dict[str, Any]] = {
    "random": {},
    "em": ROUNDS | {"model_batches": 6},
    "ap": SMALL | {"epochs": 2, "steps": 3, "step": 4 / 255, "crop": 1},
    "rem": ROUNDS | AGAINST,
    "sem": ROUNDS | AGAINST,
    "lsp": {"radius": 0.5, "patch": 4},
    "ops": {},
    "cuda_conv": {},
    "ar": {"radius": 0.5, "response": 2.0},
    "tue": {"steps": 3, "rounds": 2, "batch_size": 64},
    "ntga": {"steps": 2, "step": 4 / 255, "block_size": 64, "held_out": 64},
    "gue": SMALL | {"epochs": 1, "inner_steps": 1, "width": 4, "fold": 2},
    # With the authors' weight the term that sees the picture is outvoted by the other here.
    "pil": {"obfuscation": 1.0, "epochs": 3, "steps": 10, "step": 2 / 255, "batch_size": 32, "learning_rate": 0.05},
    "miue": ROUNDS | {"crop": 1},
}
BOUNDED = [name for name, method in mi.METHODS.items() if method.norm == "L∞"]


def test_every_method_is_tried_here() -> None:
    assert set(QUICK) == set(mi.METHODS)


def test_methods_say_what_they_are() -> None:
    for name, method in mi.METHODS.items():
        assert method.kind in ("free", "one pass", "bi-level", "tri-level")
        assert method.norm in ("L∞", "L2", "L0", "none")
        assert method.per in ("sample", "class")
        assert ("epsilon" in method.settings) == (method.norm == "L∞")
        assert "seed" in method.settings
        assert not {"execution", "progress", "images"} & set(method.settings)
        assert set(QUICK[name]) <= set(method.settings)


@pytest.mark.parametrize("method", BOUNDED)
@pytest.mark.parametrize("epsilon", [8 / 255, 0.03, 1 / 255, 1.0])
def test_the_budget_holds_in_published_pictures(easy: Bands, method: str, epsilon: float) -> None:
    train, _ = easy
    one = {"epochs": 1} if "epochs" in QUICK[method] else {}
    noise = mi.craft(method, train, epsilon=epsilon, **QUICK[method] | one)
    published = train.with_(noise).images.int()
    assert 0 < (published - train.images.int()).abs().max() <= 255 * epsilon + 1e-6
    assert noise.method == method
    assert noise.settings["epsilon"] == epsilon


@pytest.mark.parametrize("method", [name for name in QUICK if name not in BOUNDED])
def test_other_budgets_hold_in_published_pictures(easy: Bands, method: str) -> None:
    train, _ = easy
    noise = mi.craft(method, train, **QUICK[method])
    change = (train.with_(noise).images.double() - train.images.double()) / 255
    assert change.any()
    assert noise.epsilon == 1
    norm = mi.METHODS[method].norm
    if norm == "L2":
        assert change.flatten(1).norm(dim=1).max() <= QUICK[method]["radius"] * (1 + 1e-9)
    elif norm == "L0":
        assert change.any(1).flatten(1).sum(1).max() <= 1


@pytest.mark.parametrize("method", QUICK)
def test_noise_is_its_own_for_each_picture_or_for_each_class(easy: Bands, method: str) -> None:
    """The classic mistake keeps noise by label. Class-wise patterns are seen on pictures that are all alike."""
    labels = torch.arange(48) % 3
    pictures = torch.randint(60, 190, (48, 1, 12, 12), generator=torch.Generator().manual_seed(5), dtype=torch.uint8)
    if mi.METHODS[method].per == "class":
        pictures = pictures[:1].expand(48, -1, -1, -1).contiguous()
    noise = mi.craft(method, mi.ImageSet(pictures, labels), **QUICK[method]).levels
    distinct = [len(noise[labels == c].unique(dim=0)) for c in range(3)]
    assert distinct == [1] * 3 if mi.METHODS[method].per == "class" else min(distinct) > 1
    assert len(torch.stack([noise[labels == c][0] for c in range(3)]).unique(dim=0)) == 3


def test_what_crafting_cost_is_counted(easy: Bands) -> None:
    one_epoch = 6 * 32 / 192  # all pictures
    wanted = {"random": 0, "em": 3 * (one_epoch + 2), "ap": 2 * one_epoch + 3, "miue": 3 * (one_epoch + 2)}
    wanted |= {"rem": 3 * (2 * one_epoch + 2 * 2), "sem": 3 * (2 * one_epoch + 2)}
    for method, passes in wanted.items():
        noise = mi.craft(method, easy[0], **QUICK[method] | ({"until_accuracy": None} if method == "em" else {}))
        assert noise.passes == pytest.approx(passes), method
        assert noise.seconds > 0
    assert mi.craft("rem", easy[0], **QUICK["rem"] | {"draws": 3}).passes == pytest.approx(3 * (2 + 2 * 3 * 2))


@pytest.mark.parametrize("method", QUICK)
def test_a_seed_repeats_the_noise(easy: Bands, method: str) -> None:
    train, _ = easy
    state = torch.get_rng_state()
    one, again, other = (mi.craft(method, train, seed=seed, **QUICK[method]) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state), "torch's own random numbers are the caller's"
    assert torch.equal(one.levels, again.levels)
    if method != "ops":  # it searches; a seed breaks ties only
        assert not torch.equal(one.levels, other.levels)
    assert one.settings == again.settings != other.settings


def test_random_noise_is_uniform_over_the_levels(tiny: mi.ImageSet) -> None:
    grey = mi.ImageSet(torch.full((40, 1, 28, 28), 128, dtype=torch.uint8), torch.arange(40) % 2)
    counts = torch.bincount(mi.craft("random", grey).levels.flatten() + 8, minlength=17).double()
    expected = counts.sum() / 17
    assert len(counts) == 17
    # Chi-squared with 16 degrees of freedom: above 45 about once in ten thousand.
    assert float(((counts - expected) ** 2 / expected).sum()) < 45


@pytest.mark.parametrize("method", ["em", "rem", "sem", "miue"])
def test_noise_lowers_its_objective_for_a_model_trained_on_it(easy: Bands, method: str) -> None:
    """With shuffled labels there is nothing to learn but the noise, so random noise leaves the objective high."""
    train, _ = easy
    shuffled = mi.ImageSet(train.images, train.labels[torch.randperm(192, generator=torch.Generator().manual_seed(0))])
    large = {"epsilon": 32 / 255}  # so that a few rounds do what a small budget takes many for
    more = {"epochs": 16, "step": 8 / 255} | ({"steps": 8} if method in ("rem", "sem") else {})
    crafted = shuffled.with_(mi.craft(method, shuffled, **QUICK[method] | more, **large))
    control = shuffled.with_(mi.craft("random", shuffled, **large))

    def objective(images: mi.ImageSet) -> float:
        model = mi.build("small_resnet", images)
        history = mi.fit(model, images, epochs=8, batch_size=32, crop=0, flip=False)
        if method != "miue":
            return history.loss[-1]
        return float(mi.similarity_loss(mi.features(model, images), images.labels, distance_weight=0.1))

    assert objective(crafted) < 0.8 * objective(control)


def test_ap_makes_a_network_see_the_next_class(easy: Bands) -> None:
    train, _ = easy
    judge = mi.build("small_resnet", train, seed=7)  # not the surrogate
    mi.fit(judge, train, epochs=6, batch_size=32, crop=0, flip=False)
    nexts = (train.labels + 1) % 3

    def objective(method: str) -> float:
        more = {"epochs": 6, "steps": 12} if method == "ap" else {}
        noise = mi.craft(method, train, epsilon=48 / 255, **QUICK[method] | more)
        with torch.no_grad():
            return float(F.cross_entropy(judge(train.with_(noise).floats()), nexts))

    judge.eval()
    assert objective("ap") < 0.8 * objective("random")


class More(nn.Module):
    """A surrogate with three outputs more than there are classes, which no label ever asks for."""

    def __init__(self, model: mi.Classifier) -> None:
        super().__init__()
        self.model = model
        self.head = nn.Linear(64, 6)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.features(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


def test_the_class_after_the_last_is_the_first(easy: Bands, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    real = F.cross_entropy

    def remembered(logits: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        seen.update(labels.tolist())
        return real(logits, labels, **kwargs)

    monkeypatch.setattr(F, "cross_entropy", remembered)
    mi.craft("ap", easy[0], **QUICK["ap"] | {"surrogate": More(mi.build("small_resnet", easy[0]))})
    assert seen == {0, 1, 2}


def test_ap_trains_its_surrogate_on_clean_pictures(easy: Bands) -> None:
    train, _ = easy
    spy = Spy(mi.build("small_resnet", train))
    mi.craft("ap", train, **QUICK["ap"] | {"crop": 0, "flip": False, "surrogate": spy, "batch_size": 192})
    assert len(spy.shown) == QUICK["ap"]["epochs"]
    for shown in spy.shown:
        assert torch.allclose(shown.sum(0), train.floats().sum(0), rtol=1e-5)


def test_pil_takes_from_a_linear_model_what_it_sees(easy: Bands) -> None:
    """A linear model trained on clean pictures sees no class in the published ones; in the noise it does."""
    train, _ = easy
    settings = QUICK["pil"] | {"epsilon": 48 / 255, "step": 6 / 255, "epochs": 10}
    pixels = train.floats().flatten(1)
    weights = torch.zeros(3, pixels.shape[1], requires_grad=True)
    optimiser = torch.optim.SGD([weights], 0.05)
    for _ in range(300):
        optimiser.zero_grad()
        F.cross_entropy(pixels @ weights.T, train.labels).backward()
        optimiser.step()
    weights.requires_grad_(False)

    def seen(noise: mi.Perturbation) -> tuple[float, float]:
        """How far what is seen in the picture is from nothing, and the share of noises that tell the class."""
        delta = noise.delta.flatten(1)
        published = F.log_softmax((pixels + delta) @ weights.T, 1)
        right = ((-delta @ weights.T).argmax(1) == train.labels).float().mean()
        return float(-published.mean(1).mean()) - math.log(3), float(right)

    told, right = seen(mi.craft("pil", train, **settings))
    otherwise, by_chance = seen(mi.craft("random", train, epsilon=48 / 255))
    assert told < 0.5 * otherwise
    # Above a third: where a bright band is clipped, even random noise follows the picture.
    assert right > 0.9 > 0.7 > by_chance


def test_an_adversary_stands_between_noise_and_surrogate(easy: Bands, monkeypatch: pytest.MonkeyPatch) -> None:
    """REM attacks the views that the surrogate is trained on and those that move the noise; SEM disturbs the latter."""
    asked: list[tuple[int, bool]] = []
    real = Attack.__call__

    def remembered(self: Attack, model: nn.Module, pictures: torch.Tensor, *rest: Any) -> torch.Tensor:
        asked.append((self.steps, any(p.requires_grad for p in model.parameters())))
        assert not model.training
        moved = real(self, model, pictures, *rest)
        assert 0 < (moved - pictures).abs().max() <= 2 / 255 + 1e-6
        return moved

    monkeypatch.setattr(Attack, "__call__", remembered)
    one_round = {"epochs": 1, "steps": 1, "batch_size": 192, "noise_batch_size": 192}
    for method, while_crafting in (("rem", 1), ("sem", 0)):
        asked.clear()
        mi.craft(method, easy[0], **QUICK[method] | one_round | {"draws": 2})
        assert asked == [(1, True), (while_crafting, False), (while_crafting, False)]


def test_noise_that_starts_anew_forgets_the_round_before(easy: Bands) -> None:
    settings = {name: p.default for name, p in inspect.signature(miue).parameters.items()}
    settings |= QUICK["miue"] | {"epochs": 2, "steps": 1, "step": 1 / 255, "crop": 0, "flip": False}
    pull = torch.ones(12, 12)

    def objective(model: nn.Module, seen: torch.Tensor, batch: Batch) -> torch.Tensor:
        return (seen * pull).sum()

    grey = mi.ImageSet(torch.full((24, 1, 12, 12), 128, dtype=torch.uint8), torch.arange(24) % 2)
    noise = bilevel(grey, objective, method="test", settings=settings, execution=Execution())
    assert (noise.levels == -2).all()
    noise = bilevel(grey, objective, method="test", settings=settings, execution=Execution(), start_anew=True)
    # Uniform in [-8, 8], moved by -1, and held at -8. 3,456 values: the mean's standard error is 8/√3/√3456 = 0.08.
    assert noise.levels.double().mean() == pytest.approx(-1, abs=0.4)
    assert set(noise.levels.unique().tolist()) == set(range(-8, 8))


def test_a_step_follows_the_mean_gradient_of_its_draws(easy: Bands) -> None:
    """Of three views the first, the last and the majority pull one way, and the mean the other."""
    settings = {name: p.default for name, p in inspect.signature(miue).parameters.items()}
    settings |= QUICK["miue"] | {"epochs": 1, "steps": 1, "step": 1 / 255, "crop": 0, "flip": False}
    calls = [0]

    def objective(model: nn.Module, seen: torch.Tensor, batch: Batch) -> torch.Tensor:
        calls[0] += 1
        return (seen * (-3.0 if calls[0] == 2 else 1.0)).sum()

    grey = mi.ImageSet(torch.full((24, 1, 12, 12), 128, dtype=torch.uint8), torch.arange(24) % 2)
    noise = bilevel(grey, objective, method="test", settings=settings, execution=Execution(), draws=3)
    assert (noise.levels == 1).all()
    assert calls[0] == 3


def test_each_setting_reaches_the_method(easy: Bands) -> None:
    train, _ = easy
    base = QUICK["miue"] | {"epochs": 2}
    plain = mi.craft("miue", train, **base).levels
    for change in (
        {"temperature": 1.0},
        {"distance_weight": 5.0},
        {"similarity_weight": 0.0},
        {"steps": 3},
        {"step": 1 / 255},
        {"flip": False},
        {"crop": 0},
        {"noise_batch_size": 24},
        {"learning_rate": 0.01},
        {"momentum": 0.0},
        {"weight_decay": 0.1},
        {"schedule": "one-cycle"},
        {"batch_size": 48},
        {"surrogate": mi.build("small_resnet", train, seed=9)},
        {"fresh_every": 1},
        {"step_decay": True},
    ):
        assert not torch.equal(mi.craft("miue", train, **base | change).levels, plain), change


def test_without_either_of_its_terms_miue_leaves_the_pictures_alone(easy: Bands) -> None:
    noise = mi.craft("miue", easy[0], **QUICK["miue"] | {"similarity_weight": 0.0, "distance_weight": 0.0})
    assert not noise.levels.any()
    assert noise.settings["similarity_weight"] == 0


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("ap", {"epochs": 3, "steps": 4, "step": 1 / 255, "crop": 0, "flip": False, "learning_rate": 0.01}),
        ("rem", {"draws": 2, "attack_radius": 4 / 255, "attack_step": 1 / 255, "attack_steps": 2, "epochs": 2}),
        ("sem", {"draws": 2, "attack_radius": 4 / 255, "attack_step": 1 / 255, "attack_steps": 2, "epochs": 2}),
        ("pil", {"epochs": 2, "steps": 3, "step": 1 / 255, "obfuscation": 0.1, "batch_size": 64, "learning_rate": 0.2}),
    ],
)
def test_each_setting_of_the_others_does_too(easy: Bands, method: str, changes: dict[str, Any]) -> None:
    plain = mi.craft(method, easy[0], **QUICK[method]).levels
    for name, value in changes.items():
        changed = mi.craft(method, easy[0], **QUICK[method] | {name: value})
        assert not torch.equal(changed.levels, plain), name
        assert changed.settings[name] == value


def test_a_given_surrogate_is_left_as_it_was(easy: Bands) -> None:
    model = mi.build("small_resnet", easy[0], seed=9)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mi.craft("em", easy[0], **QUICK["em"] | {"surrogate": model})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


def test_rounds_end_when_the_accuracy_is_reached_and_are_reported(easy: Bands) -> None:
    lines: list[str] = []
    noise = mi.craft("em", easy[0], progress=lines.append, **QUICK["em"] | {"epochs": 30, "until_accuracy": 0.9})
    rounds = len(noise.curves["loss"])
    assert 1 <= rounds < 30
    assert len(lines) == rounds
    assert lines[0].startswith("em round 1/30: surrogate loss")
    assert all(len(curve) == rounds for curve in noise.curves.values())


class Spy(nn.Module):
    """A surrogate that keeps what it is shown while it is trained."""

    def __init__(self, model: mi.Classifier) -> None:
        super().__init__()
        self.model = model
        self.head = model.head
        self.shown: list[torch.Tensor] = []

    def __deepcopy__(self, memo: dict) -> "Spy":
        copied = Spy(copy.deepcopy(self.model))
        copied.shown = self.shown
        return copied

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.features(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.shown.append(x.detach().clone())
        return self.model(x)


def test_the_surrogate_is_trained_on_the_noisy_pictures(easy: Bands) -> None:
    train, _ = easy
    spy = Spy(mi.build("small_resnet", train))
    settings = QUICK["miue"] | {"epochs": 2, "steps": 3, "crop": 0, "flip": False, "surrogate": spy, "batch_size": 192}
    noise = mi.craft("miue", train, **settings)
    first, second = spy.shown
    clean = train.floats()
    assert torch.allclose(first.sum(0), clean.sum(0), rtol=1e-5), "the first round has no noise yet"
    moved = torch.cdist(second.flatten(1), clean.flatten(1)).argmin(1)  # which picture each was
    assert sorted(moved.tolist()) == list(range(192))
    change = (second - clean[moved]).abs()
    assert 0.9 * 8 / 255 < change.max() <= 8 / 255 + 1e-6, "three steps of 4/255, held at 8/255"
    assert noise.linf == pytest.approx(8 / 255)


@pytest.mark.parametrize("crop", [0, 1])
def test_a_step_descends_the_objective_through_the_view(monkeypatch: pytest.MonkeyPatch, crop: int) -> None:
    """The objective pulls on each pixel of the *view* with a known weight, so the step of every pixel is known."""
    grey = mi.ImageSet(torch.full((8, 1, 6, 6), 128, dtype=torch.uint8), torch.arange(8) % 2)
    pull = torch.linspace(-1, 1, 6).expand(6, 6) + 0.1  # from left to right, so that a flip shows
    views: list[View] = []
    indices: list[torch.Tensor] = []
    random_view, draw = View.random, ClassBatches.draw

    def remembered(*args: Any) -> View:
        views.append(random_view(*args))
        return views[-1]

    def drawn(self: ClassBatches, generator: torch.Generator) -> Any:
        for index in draw(self, generator):
            indices.append(index)
            yield index

    def objective(model: nn.Module, seen: torch.Tensor, batch: Batch) -> torch.Tensor:
        assert not any(module.training for module in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
        return (seen * pull).sum()

    monkeypatch.setattr(View, "random", remembered)
    monkeypatch.setattr(ClassBatches, "draw", drawn)
    settings = QUICK["miue"] | {"epsilon": 8 / 255, "step": 3 / 255, "steps": 1, "epochs": 1, "crop": crop}
    settings |= {name: p.default for name, p in inspect.signature(miue).parameters.items() if name not in settings}
    noise = bilevel(grey, objective, method="test", settings=settings, execution=Execution())
    (index,) = indices
    assert views[-1].flip.any()
    assert not views[-1].flip.all()
    seen = views[-1](noise.levels[index] + 100)  # 100 tells the padding, which is 0, from pixels that stayed
    inside = seen != 0
    assert torch.equal((seen - 100)[inside], (-3 * pull.sign()).expand_as(seen)[inside].to(torch.int8))


def test_until_accuracy_is_measured_on_the_noisy_pictures(easy: Bands, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that tells noisy pictures from clean ones: it classifies all of the one and none of the other."""
    grey = mi.ImageSet(torch.full((24, 1, 12, 12), 128, dtype=torch.uint8), torch.arange(24) % 2)

    class Judge(nn.Module):
        def features(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            noisy = ((x - 128 / 255).abs() > 1e-3).float().flatten(1).mean(1) > 0.5
            label = torch.arange(24) % 2
            return F.one_hot(torch.where(noisy, label, 1 - label), 2).float()

    def objective(model: nn.Module, seen: torch.Tensor, batch: Batch) -> torch.Tensor:
        return seen.sum()

    settings = {name: p.default for name, p in inspect.signature(mi.METHODS["em"].run).parameters.items()}
    settings |= QUICK["em"] | {"epochs": 3, "until_accuracy": 1.0, "crop": 0, "flip": False}
    judged = []
    monkeypatch.setattr("miue_lib.noise.bilevel.frozen", lambda model: judged.append(model) or Judge())
    noise = bilevel(grey, objective, method="test", settings=settings, execution=Execution())
    assert len(noise.curves["loss"]) == 1, "every noisy picture is classified after the first round"


@pytest.mark.parametrize("sizes", [[50, 29, 17], [2, 2, 2], [40, 3, 2], [33, 33, 0], [2, 90, 2], [31] * 40])
@pytest.mark.parametrize("size", [4, 12, 25, 64, 1000])
def test_class_batches_hold_everything_once_with_partners_and_others(sizes: list[int], size: int) -> None:
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    images = mi.ImageSet(
        torch.zeros((len(labels), 1, 2, 2), dtype=torch.uint8), labels, tuple(str(c) for c in range(len(sizes)))
    )
    batches = list(ClassBatches(images, size).draw(torch.Generator().manual_seed(0)))
    assert sorted(torch.cat(batches).tolist()) == list(range(len(labels)))
    for index in batches:
        counts = torch.bincount(labels[index])
        assert not (counts == 1).any(), "a picture without a partner of its class"
        assert (counts > 0).sum() >= 2, "a batch of one class"


def test_few_even_classes_are_alike_in_every_batch_and_many_get_partners() -> None:
    def counts(classes: int, each: int, size: int) -> list[torch.Tensor]:
        labels = torch.arange(classes).repeat_interleave(each)
        images = mi.ImageSet(torch.zeros((len(labels), 1, 2, 2), dtype=torch.uint8), labels)
        drawn = ClassBatches(images, size, partners=16).draw(torch.Generator().manual_seed(0))
        return [torch.bincount(labels[index], minlength=classes) for index in drawn]

    assert all(c.tolist() == [25] * 10 for c in counts(10, 1000, 250))
    for c in counts(100, 500, 512):
        assert all(n == 0 or 15 <= n <= 17 for n in c.tolist())
        assert 500 - 32 <= int(c.sum()) <= 512 + 32


class Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(10, 3)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0}, r"epsilon: got 0, expected a number in \(0, 1\]"),
        ({"epsilon": 8}, r"epsilon: got 8, expected a number in \(0, 1\]"),
        ({"epsilon": float("nan")}, r"epsilon: got nan, expected a number in \(0, 1\]"),
        ({"epsilon": "8/255"}, "epsilon: got '8/255', expected a number"),
        ({"epsilon": 0.001}, r"epsilon: got 0\.001, expected at least 1/255"),
        ({"step": 0}, r"step: got 0, expected a number in \(0, 1\]"),
        ({"steps": 0}, "steps: got 0, expected a whole number >= 1"),
        ({"epochs": 2.0}, r"epochs: got 2\.0, expected a whole number >= 1"),
        ({"temperature": -1}, "temperature: got -1, expected a finite number > 0"),
        ({"noise_batch_size": 1}, "noise_batch_size: got 1, expected a whole number >= 4"),
        ({"surrogate": "vgg"}, "model: got 'vgg', expected one of"),
        ({"seed": "x"}, "seed: got .x., expected a whole number >= 0"),
        ({"surrogate": 3}, "surrogate: got 3, expected the name of a model or a module"),
        ({"flip": "no"}, "flip: got 'no', expected True or False"),
        ({"fresh_every": 0}, "fresh_every: got 0, expected a whole number >= 1"),
        (
            {"fresh_every": 2, "surrogate": Maps()},
            "fresh_every: got 2, expected None with a surrogate that is a module",
        ),
        ({"surrogate": Maps()}, r"model: got features of shape \(1, 4, 10, 10\), expected 2-D features"),
        ({"budget": 8}, "settings of 'miue': got budget, expected only epsilon, step, steps"),
    ],
)
def test_bad_settings_are_refused(easy: Bands, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mi.craft("miue", easy[0], **QUICK["miue"] | settings)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("ap", {"epochs": 0}, "epochs: got 0, expected a whole number >= 1"),
        ("ap", {"batch_size": 0.5}, "batch_size: got 0.5, expected a whole number >= 1"),
        ("rem", {"attack_steps": 0}, "attack_steps: got 0, expected a whole number >= 1"),
        ("rem", {"attack_radius": 4}, r"attack_radius: got 4, expected a number in \[0, 1\]"),
        ("rem", {"draws": 0}, "draws: got 0, expected a whole number >= 1"),
        ("sem", {"attack_step": 0}, r"attack_step: got 0, expected a number in \(0, 1\]"),
        ("pil", {"epsilon": 0.001}, r"epsilon: got 0\.001, expected at least 1/255"),
        ("pil", {"obfuscation": -1}, "obfuscation: got -1, expected a finite number >= 0"),
        ("pil", {"epochs": 0}, "epochs: got 0, expected a whole number >= 1"),
    ],
)
def test_bad_settings_of_the_others_are_refused(
    easy: Bands, method: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mi.craft(method, easy[0], **QUICK[method] | settings)


def test_unusable_requests_are_refused(easy: Bands, tiny: mi.ImageSet) -> None:
    with pytest.raises(ValueError, match="method: got 'magic', expected one of 'random', 'lsp', "):
        mi.craft("magic", easy[0])
    with pytest.raises(ValueError, match="images: got Tensor, expected an ImageSet"):
        mi.craft("random", easy[0].images)  # type: ignore[arg-type]
    lonely = tiny.subset([*range(60), 95])
    with pytest.raises(ValueError, match="images: got one picture of class c, expected two or more of each class"):
        mi.craft("miue", lonely, **QUICK["miue"])
    with pytest.raises(ValueError, match="images: got pictures of one class, expected two classes or more"):
        mi.craft("em", tiny.subset(slice(0, 40)), **QUICK["em"])
