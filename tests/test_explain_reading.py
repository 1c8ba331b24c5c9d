"""A reading is of the victim, the pictures and the seed that it says, and a victim looked at is the same victim."""

import copy
import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import digamma
from torch import nn

import miue_lib as mi
from miue_lib import explain
from miue_lib.explain import along_training, measure, reading, sliced_mi
from miue_lib.mi import ESTIMATORS, information, mutual_information

Bands = tuple[mi.ImageSet, mi.ImageSet]
Poisoned = tuple[mi.Classifier, mi.ImageSet, mi.ImageSet, mi.ImageSet]
MINE = {"hidden": 32, "steps": 300, "batch_size": 128, "learning_rate": 0.01}
SLICES, SEED = 40, 7  # more slices than MINE takes


def blurred(n: int, shortcut: int, seed: int) -> tuple[mi.ImageSet, mi.ImageSet]:
    """6 × 6 noise, sorted by its three uneven classes, a column of each a little brighter; and the same pictures with
    a row of each class brighter by `shortcut` levels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0] * (n // 2) + [1] * (n // 3) + [2] * (n - n // 2 - n // 3))
    images = torch.randint(60, 180, (n, 1, 6, 6), generator=generator)
    images[torch.arange(n), 0, :, labels] += 12
    published = images.clone()
    published[torch.arange(n), 0, labels] += shortcut
    return mi.ImageSet(images.to(torch.uint8), labels), mi.ImageSet(published.to(torch.uint8), labels)


@pytest.fixture(scope="module")
def poisoned() -> Poisoned:
    """A victim of a shortcut, and X, X′ and test pictures that all differ for it."""
    (clean, published), (test, _) = blurred(240, 10, seed=0), blurred(90, 0, seed=1)
    victim = mi.build("2nn", published)
    mi.fit(victim, published, epochs=3, batch_size=32, crop=0, flip=False)
    return victim, clean, published, test


@pytest.fixture(scope="module")
def found(poisoned: Poisoned) -> dict[str, float]:
    return measure(*poisoned, slices=SLICES, seed=SEED)


def features(poisoned: Poisoned) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    victim, *sets = poisoned
    z, published_z, test_z = (mi.features(victim, images) for images in sets)
    return z, published_z, test_z


def test_each_part_is_of_the_pictures_that_its_name_says(poisoned: Poisoned, found: dict[str, float]) -> None:
    victim, clean, published, test = poisoned
    z, published_z, test_z = features(poisoned)
    labels, delta = clean.labels, published.images.double() - clean.images.double()

    def separability(values: torch.Tensor) -> float:
        return explain.linear_separability(values, labels, seed=SEED)

    def refit(train_z: torch.Tensor, per_class: int = 20) -> float:
        return explain.refit_head(train_z, labels, test_z, test.labels, per_class=per_class, seed=SEED)

    told = information(z, published_z, slices=SLICES, seed=SEED)
    swapped = information(published_z, z, slices=SLICES, seed=SEED)
    # name: (what it is, what it would be of something else)
    parts = {
        "accuracy": (mi.accuracy(victim, test), mi.accuracy(victim, clean)),
        "accuracy on X′": (mi.accuracy(victim, published), mi.accuracy(victim, clean)),
        "normalised histogram": (told.normalised, swapped.normalised),
        "H(g(X))": (told.entropy_x, swapped.entropy_x),
        "H(g(X′))": (told.entropy_y, swapped.entropy_y),
        "separability of δ": (separability(delta), separability(published.images)),
        "separability of g(X′)": (separability(published_z), separability(z)),
        "A-distance": (
            explain.proxy_a_distance(z, published_z, seed=SEED),
            explain.proxy_a_distance(z, published_z, seed=SEED + 1),
        ),
        "refit": (refit(z), refit(published_z)),
    }
    assert {name: found[name] for name in parts} == {name: right for name, (right, _) in parts.items()}
    assert [name for name, (right, wrong) in parts.items() if right == wrong] == []
    assert refit(z, 30) != found["refit"]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_mutual_information_is_of_clean_and_published_features(
    poisoned: Poisoned, found: dict[str, float], estimator: str
) -> None:
    z, published_z, _ = features(poisoned)
    settings = {"slices": 32, **MINE} if estimator == "mine" else {"slices": SLICES}
    expected = mutual_information(z, published_z, estimator=estimator, seed=SEED, **settings)
    names = {"value": "", "stderr": " stderr", "baseline": " baseline", "baseline_stderr": " baseline stderr"}
    for part, name in names.items():
        assert found[estimator + name] == getattr(expected, part)
    if estimator != "histogram":
        # Of a Gaussian pair with I = value, |ρ|: I = −½ log(1 − ρ²)
        normalised = found[f"normalised {estimator}"]
        assert -0.5 * math.log1p(-(normalised**2)) == pytest.approx(abs(expected.value), rel=1e-9)
        assert math.copysign(1, normalised) == math.copysign(1, expected.value)


def test_sliced_mi_passes_on_what_it_is_given(poisoned: Poisoned) -> None:
    z, published_z, _ = features(poisoned)
    settings = {"estimator": "histogram", "bins": 8, "slices": 3, "seed": SEED}
    expected = mutual_information(z, published_z, **settings)
    read = sliced_mi(*poisoned[:3], **settings)
    parts = {part: getattr(expected, part) for part in ("value", "stderr", "baseline", "baseline_stderr")}
    assert read == parts | {"own": mutual_information(z, z, **settings).value}
    assert sliced_mi(*poisoned[:3], **settings, baseline=False)["own"] == read["own"]


def test_own_is_of_the_victim_and_the_clean_pictures_alone(poisoned: Poisoned, found: dict[str, float]) -> None:
    victim, clean, published, _ = poisoned
    z, _, _ = features(poisoned)
    assert {name for name in found if name.endswith("own")} == {"histogram own", "ksg own"}
    for estimator in ("histogram", "ksg"):
        settings = {"estimator": estimator, "slices": SLICES, "seed": SEED}
        own = mutual_information(z, z, **settings).value
        assert found[f"{estimator} own"] == own
        assert own != found[estimator]
        as_they_are, swapped, by_another = (
            sliced_mi(*given, **settings)
            for given in (
                (victim, clean, clean),
                (victim, published, clean),
                (mi.build("2nn", clean, seed=1), clean, published),
            )
        )
        assert as_they_are["value"] == as_they_are["own"] == own
        assert own not in (swapped["own"], by_another["own"])


def test_victims_differ_in_own_where_nothing_was_published_but_the_clean_pictures() -> None:
    """Two random slices of unit Gaussian features in r directions correlate by the cosine of two random directions
    in r dimensions. Its square is Beta(1/2, (r − 1)/2), and the mean of −½ log(1 − cos²) is ½ [ψ(r/2) − ψ((r − 1)/2)].
    """
    generator = torch.Generator().manual_seed(0)
    pixels = (0.5 + 0.1 * torch.randn(600, 1, 4, 4, generator=generator)).clamp(0, 1)
    clean = mi.ImageSet(pixels, torch.arange(600) % 2)
    basis = torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q

    def in_directions(r: int) -> mi.Classifier:
        layer = nn.Linear(16, 16, bias=False)
        layer.weight.data = basis[:, :r] @ basis[:, :r].T
        return mi.Classifier(nn.Sequential(nn.Flatten(), layer), 16, 2, torch.zeros(1), torch.ones(1))

    few, all_ = (sliced_mi(in_directions(r), clean, clean, estimator="ksg") for r in (3, 16))
    for read, r in ((few, 3), (all_, 16)):
        # `stderr` is that of own too, since clean and published features are the same.
        assert abs(read["own"] - (digamma(r / 2) - digamma((r - 1) / 2)) / 2) < 4 * read["stderr"]
    # By the value alone, the second victim would have lost what the first has kept. Neither has lost anything.
    assert few["value"] - all_["value"] > 4 * math.hypot(few["stderr"], all_["stderr"])
    assert few["own"] - few["value"] == all_["own"] - all_["value"] == 0


def test_mine_has_no_more_slices_than_were_asked_for(poisoned: Poisoned) -> None:
    read = measure(*poisoned, estimators=("mine",), slices=2, seed=SEED)
    expected = sliced_mi(*poisoned[:3], estimator="mine", slices=2, seed=SEED, **MINE)
    assert read["mine"] == expected["value"]


def test_the_geometry_is_of_unit_features_within_classes(poisoned: Poisoned, found: dict[str, float]) -> None:
    _, published_z, _ = features(poisoned)
    labels = poisoned[1].labels
    unit = published_z.double() / published_z.double().norm(dim=1, keepdim=True)
    trace = log_det = cosine = 0.0
    for c in range(3):
        of_class = unit[labels == c]
        sigma = torch.cov(of_class.T, correction=0)
        share = len(of_class) / len(unit)
        trace += share * float(sigma.trace())
        log_det += share * float(torch.logdet(torch.eye(len(sigma)) + sigma / 0.1**2))
        cosine += share * float((of_class @ of_class.T).mean())
    # Sums and products in float64 of at most 512² terms, of numbers up to 40.
    assert found["trace"] == pytest.approx(trace, rel=1e-12)
    assert found["log det"] == pytest.approx(log_det, rel=1e-10)
    assert found["cosine"] == pytest.approx(cosine, rel=1e-12)
    assert found["cosine"] == pytest.approx(1 - found["trace"], abs=1e-12)


def test_attacks_are_on_published_pictures(poisoned: Poisoned, found: dict[str, float]) -> None:
    victim, clean, published, _ = poisoned
    for levels in (1, 2):
        expected, of_clean = (
            explain.robust_accuracy(victim, images, radius=levels / 255, seed=SEED) for images in (published, clean)
        )
        # All 240 are attacked, in another order and so from another start: a picture or two at the edge may differ.
        assert found[f"robust {levels}/255"] == pytest.approx(expected, abs=2 / 240)
        assert abs(expected - of_clean) > 4 / 240
    # Each picture gets another corner than in the set's own order: as of another seed.
    near, far = (
        torch.tensor([explain.local_linearity(victim, published, radius=radius, seed=s) for s in range(16)])
        for radius in (1 / 255, 2 / 255)
    )
    chance = 4 * float(far.std()) * math.sqrt(1 + 1 / 16)
    assert abs(found["linearity"] - float(far.mean())) < chance < float(near.mean() - far.mean())


def test_a_reading_is_of_plain_finite_numbers(found: dict[str, float]) -> None:
    assert all(type(value) is float and math.isfinite(value) for value in found.values())
    assert json.loads(json.dumps(found)) == found
    assert all(-1 <= found[f"normalised {estimator}"] <= 1 for estimator in ESTIMATORS)


def test_only_the_estimators_that_were_asked_for(poisoned: Poisoned, found: dict[str, float]) -> None:
    read = measure(*poisoned, estimators=("histogram",), slices=SLICES, seed=SEED)
    others = {name for name in found if {"ksg", "kde", "mine"} & set(name.split())}
    assert len(others) == 3 * 5 + 1  # own, of KSG
    assert read == {name: value for name, value in found.items() if name not in others}
    none = measure(*poisoned, estimators=(), slices=SLICES, seed=SEED)
    assert none == {name: value for name, value in read.items() if "histogram" not in name}


def test_clean_pictures_published_as_they_are(poisoned: Poisoned) -> None:
    victim, clean, _, test = poisoned
    z = mi.features(victim, clean)
    read = measure(victim, clean, clean, test, estimators=("histogram",), slices=SLICES)
    assert read["A-distance"] == 0
    assert read["separability of δ"] == 1 / 2  # the share of the largest class: there is nothing to tell them by
    # The same features, but along other directions: each side's mean has the standard error of its slices.
    details = information(z, z, slices=SLICES).mutual_information.details
    deviation = math.hypot(*(float(details[name].std()) for name in ("entropy_x", "entropy_y")))
    assert read["H(g(X))"] != read["H(g(X′))"]
    assert abs(read["H(g(X))"] - read["H(g(X′))"]) < 4 * deviation / math.sqrt(SLICES)


def on_a_line(images: mi.ImageSet) -> mi.Classifier:
    """A victim with a single feature, the mean of the pixels less a half."""
    layer = nn.Linear(images.images[0].numel(), 1)
    nn.init.constant_(layer.weight, 1 / layer.in_features)
    nn.init.constant_(layer.bias, -0.5)
    mean, std = torch.zeros(1), torch.ones(1)
    return mi.Classifier(nn.Sequential(nn.Flatten(), layer), 1, len(images.classes), mean, std)


def test_no_warning_of_a_ceiling_escapes_and_every_other_does(
    poisoned: Poisoned, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, clean, _, test = poisoned
    victim = on_a_line(clean)
    z = mi.features(victim, clean)
    with pytest.warns(UserWarning, match="can't read more than"):
        mutual_information(z, z, estimator="histogram", slices=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = measure(victim, clean, clean, test, estimators=("histogram", "ksg"), slices=2)
        assert read["normalised histogram"] == pytest.approx(1)
        assert read["histogram"] > 0.75 * math.log(32)
    assert read["ksg"] > 1
    unpaired = z[torch.randperm(len(z), generator=torch.Generator().manual_seed(0))]
    # All slices are the same line, and the baseline is off as one reading of independent pairs is.
    assert abs(read["ksg baseline"]) < 4 * mutual_information(z, unpaired).stderr < 1

    def noisy(*arguments: Any, **settings: Any) -> Any:
        warnings.warn("something else", UserWarning, stacklevel=1)
        return mutual_information(*arguments, **settings)

    monkeypatch.setattr(reading, "mutual_information", noisy)
    with pytest.warns(UserWarning, match="something else"):
        sliced_mi(victim, clean, clean, slices=2)


def test_the_pictures_that_are_attacked_are_of_several_classes() -> None:
    labels = torch.tensor([0] * 1040 + [1] * 160)  # sorted by class, as those of a folder are
    images = torch.randint(256, (1200, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pictures = mi.ImageSet(images, labels)
    victim = mi.build("2nn", pictures)
    with torch.no_grad():
        victim.head.bias.copy_(torch.tensor([100.0, 0.0]))  # the first class, whatever is shown
    read = measure(victim, pictures, pictures, pictures, estimators=(), slices=2)
    share, taken = 1040 / 1200, 500
    deviation = math.sqrt(share * (1 - share) / taken * (1200 - taken) / 1199)  # drawn without replacement
    assert read["accuracy"] == share
    assert abs(read["robust 2/255"] - share) < 4 * deviation < 1 - share


RECIPE: dict[str, Any] = {"epochs": 3, "batch_size": 64, "learning_rate": 0.02, "crop": 1, "flip": False}


@pytest.fixture(scope="module")
def curves(easy: Bands) -> dict[str, list[float]]:
    clean, test = easy
    return along_training("small_resnet", clean, darker(clean), test, slices=8, seed=SEED, **RECIPE)


def darker(images: mi.ImageSet) -> mi.ImageSet:
    return mi.ImageSet(images.images // 2, images.labels)


def test_a_victim_that_is_looked_at_is_the_same_victim(easy: Bands, curves: dict[str, list[float]]) -> None:
    clean, test = easy
    published = darker(clean)
    victim = mi.build("small_resnet", published, seed=SEED)  # with batch normalisation: looking could move its means
    history = mi.fit(victim, published, test=test, seed=SEED, **RECIPE)
    assert len(set(history.test_accuracy)) > 1
    assert curves["accuracy"] == history.test_accuracy
    read = measure(victim, clean, published, test, estimators=("histogram",), slices=8, seed=SEED)
    names = {f"histogram{part}" for part in ("", " stderr", " baseline", " baseline stderr", " own")}
    assert set(curves) == names | {"accuracy", "trace", "refit"}
    assert {name: len(curve) for name, curve in curves.items()} == dict.fromkeys(curves, RECIPE["epochs"])
    assert {name: curve[-1] for name, curve in curves.items()} == {name: read[name] for name in curves}
    assert read["histogram"] == sliced_mi(victim, clean, published, slices=8, seed=SEED)["value"]


def test_another_seed_trains_another_victim(easy: Bands, curves: dict[str, list[float]]) -> None:
    clean, test = easy
    other = along_training("small_resnet", clean, darker(clean), test, slices=8, seed=SEED + 1, **RECIPE)
    assert other["trace"] != curves["trace"]


class Breaks(mi.Classifier):
    """Fails on more than one picture: after `check_model` tried it."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 1:
            raise RuntimeError("out of memory")
        return super().features(images)


def test_everything_stays_as_it_was(poisoned: Poisoned) -> None:
    _, clean, published, test = poisoned
    victim = copy.deepcopy(poisoned[0]).train()
    breaks = Breaks(victim.body, 512, 3, victim.mean, victim.std)
    victim.body[1].eval()  # a part that its owner has set apart

    def state() -> list[Any]:
        return [
            torch.random.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002 (scikit-learn could draw from it)
            torch.is_grad_enabled(),
            torch.get_default_device(),
            torch.get_num_threads(),
            torch.backends.cudnn.deterministic,
            list(warnings.filters),
            [module.training for module in victim.modules()],
            [weights.tolist() for weights in victim.state_dict().values()],
        ]

    before = state()
    measure(victim, clean, published, test, slices=2)
    assert state() == before
    along_training("linear", clean, published, test, slices=2, epochs=1)
    assert state() == before
    with pytest.raises(RuntimeError, match="out of memory"):
        measure(breaks, clean, published, test, slices=2)
    assert state() == before


def test_a_kept_reading_is_the_same(poisoned: Poisoned, found: dict[str, float], tmp_path: Any) -> None:
    cache = mi.Cache(tmp_path)
    settings = {"estimators": ("histogram", "ksg"), "slices": SLICES, "seed": SEED}
    kept = [cache.keep(measure, *poisoned, **settings) for _ in range(2)]
    assert len(list(tmp_path.iterdir())) == 1
    assert kept[0] == kept[1] == {name: found[name] for name in kept[0]}
    assert "normalised ksg" in kept[0]


ENOUGH = mi.ImageSet(torch.zeros((40, 1, 6, 6), dtype=torch.uint8), torch.arange(40) % 2)
SMALLER = mi.ImageSet(ENOUGH.images[:, :, 1:], ENOUGH.labels)
SORTED = mi.ImageSet(ENOUGH.images, ENOUGH.labels.sort().values)
THIRD = mi.ImageSet(ENOUGH.images, torch.arange(40) % 3)
NONE = ENOUGH.subset([])
ELSEWHERE = mi.ImageSet(NONE.images.to("meta"), NONE.labels.to("meta"))  # empty: that device holds no labels to check
REFUSED = [
    ({"slices": 0}, "slices: got 0, expected a whole number >= 1"),
    ({"slices": (2, 2)}, "slices: got (2, 2), expected a whole number"),
    ({"seed": -1}, "seed: got -1, expected a whole number from 0 to"),
    ({"seed": 2**32}, "seed: got 4294967296, expected a whole number from 0 to 4294967295"),
    ({"published": SMALLER}, "published: got pictures of shape (40, 1, 5, 6), expected those of clean, (40, 1, 6, 6)"),
    ({"published": SORTED}, "published: got 20 of 40 labels that clean has not, expected the pictures of clean in"),
    ({"clean": THIRD, "published": THIRD}, "clean: got classes of [14, 13, 13] pictures, expected two or more classes"),
    ({"test": THIRD}, "clean: got classes of [20, 20, 0] pictures, expected two or more classes, each of at least the"),
    ({"clean": (one := ENOUGH.subset(ENOUGH.labels == 0)), "published": one, "test": one}, "clean: got classes of [20"),
    ({"clean": NONE, "published": NONE, "test": NONE}, "clean: got classes of [] pictures"),
    ({"clean": NONE, "published": ELSEWHERE}, "published: got pictures on meta, expected pictures on cpu, where clean"),
]


@pytest.mark.parametrize(("changed", "message"), REFUSED)
@pytest.mark.parametrize("function", [measure, along_training])
def test_it_is_refused_before_any_work(function: Any, changed: dict[str, Any], message: str) -> None:
    # What comes first is no victim, and no architecture's name: whoever works with it before checking stumbles.
    given = {"clean": ENOUGH, "published": ENOUGH, "test": ENOUGH} | changed
    with pytest.raises(ValueError) as error:
        function(None, **given)
    assert str(error.value).startswith(message)


def test_an_unknown_estimator_is_refused_before_any_work() -> None:
    with pytest.raises(ValueError, match="estimators: got 'knn', expected one of 'ksg', 'kde', 'histogram', 'mine'"):
        measure(None, ENOUGH, ENOUGH, ENOUGH, estimators=("histogram", "knn"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("clean", "published", "message"),
    [
        (ENOUGH, SMALLER, "published: got pictures of shape"),
        (ENOUGH, SORTED, "published: got 20 of 40 lab"),
        (NONE, ELSEWHERE, "published: got pictures on meta, expected pictures on cpu, where clean is"),
    ],
)
def test_sliced_mi_refuses_other_pictures(clean: mi.ImageSet, published: mi.ImageSet, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sliced_mi(None, clean, published)  # type: ignore[arg-type]


def test_a_victim_whose_features_are_dead_is_refused(poisoned: Poisoned) -> None:
    _, clean, published, test = poisoned
    victim = on_a_line(clean)
    victim.body.append(nn.ReLU())  # what is darker than a half has no feature left
    dead = int((mi.features(victim, published) == 0).sum())
    assert 0 < dead < len(clean)
    with pytest.raises(ValueError, match=f"victim: got features that are 0 for {dead} pictures, expected features"):
        measure(victim, clean, published, test, estimators=(), slices=2)


def test_what_is_refused_is_the_victim_and_not_what_an_estimator_is_given(
    poisoned: Poisoned, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, *sets = poisoned
    # Of features that are all 0 every estimator would complain too, of an x that the caller never saw.
    monkeypatch.setitem(mi.MODELS, "dead", lambda images: (nn.Sequential(nn.Flatten(), nn.Threshold(1e9, 0)), 36))
    for refused in (
        lambda: measure(mi.build("dead", sets[0]), *sets, slices=2),
        lambda: along_training("dead", *sets, slices=2, epochs=1),
    ):
        with pytest.raises(ValueError, match="victim: got features that are 0 for 240 pictures, expected features"):
            refused()
