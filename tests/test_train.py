"""Training: it learns what can be learnt, repeats itself for a seed, and reports what it saw."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import miue_lib as mi
from miue_lib.train import Descent, autocast, shuffled

Bands = tuple[mi.ImageSet, mi.ImageSet]


def test_a_victim_learns_and_its_curves_say_so(easy: Bands) -> None:
    train, test = easy
    model = mi.build("small_resnet", train)
    epochs: list[int] = []
    history = mi.fit(
        model, train, test=test, epochs=6, batch_size=32, crop=0, on_epoch=lambda epoch, _: epochs.append(epoch)
    )
    assert epochs == [1, 2, 3, 4, 5, 6]
    for curve in (history.loss, history.train_accuracy, history.test_accuracy, history.seconds):
        assert len(curve) == 6
    assert history.test_accuracy[-1] == mi.accuracy(model, test) > 0.95
    assert history.loss[-1] < history.loss[0]
    assert history.seconds == sorted(history.seconds)
    assert history.train_accuracy[-1] > history.train_accuracy[0]


@pytest.mark.parametrize("schedule", ["one-cycle", "cosine"])
def test_a_seed_repeats_the_run(easy: Bands, schedule: str) -> None:
    train, _ = easy

    def run(seed: int) -> tuple[mi.History, torch.Tensor]:
        model = mi.build("small_resnet", train)
        history = mi.fit(model, train, epochs=2, batch_size=32, schedule=schedule, seed=seed)
        return history, torch.cat([p.detach().flatten() for p in model.parameters()])

    (first, weights), (again, same), (_, different) = run(0), run(0), run(1)
    assert (first.loss, first.train_accuracy) == (again.loss, again.train_accuracy)
    assert torch.equal(weights, same)
    assert not torch.equal(weights, different)


def test_train_accuracy_counts_what_was_trained_on(easy: Bands) -> None:
    """With a head that cannot change its mind the accuracy is the share of one class, whatever the views."""
    train, _ = easy
    model = mi.build("small_resnet", train)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([50.0, 0, 0]))
    history = mi.fit(model, train, epochs=1, batch_size=192, learning_rate=1e-9)
    assert history.train_accuracy == [1 / 3]


def test_features_come_in_order_and_leave_the_model_as_it_was(easy: Bands) -> None:
    train, _ = easy
    model = mi.build("small_resnet", train).train()
    features = mi.features(model, train)
    assert features.shape == (192, 64)
    assert features.dtype == torch.float32
    assert model.training
    with torch.no_grad():
        plain = model.eval().features(train.floats())
    # Float32 throughout, so only the order of sums differs; bfloat16 would be off by 2⁻⁹ relative.
    assert torch.allclose(features, plain, rtol=1e-5, atol=1e-6)


def test_modes_come_back_after_an_error_and_module_by_module(easy: Bands, monkeypatch: pytest.MonkeyPatch) -> None:
    train, _ = easy
    model = mi.build("small_resnet", train).train()
    model.body[3].eval()  # a normalisation that its owner has fixed

    def fail(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory, say")

    mi.accuracy(model, train)
    monkeypatch.setattr(model, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        mi.accuracy(model, train)
    assert model.training
    assert not model.body[3].training
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("schedule", "peak"), [("one-cycle", 20), ("cosine", 1)])
def test_schedules_rise_and_fall_where_they_say(schedule: str, peak: int) -> None:
    def rates(steps: int) -> list[float]:
        descent = Descent(
            nn.Linear(1, 1), steps=steps, learning_rate=0.2, momentum=0.9, weight_decay=0, schedule=schedule
        )
        seen = []
        for _ in range(steps):
            seen.append(descent.optimizer.param_groups[0]["lr"])
            descent.step(torch.ones(1, 1, 1, 1), torch.zeros((1, 1, 1), dtype=torch.int64))
        return seen

    hundred = rates(100)
    assert max(hundred) == pytest.approx(0.2)
    assert hundred[peak - 1] == pytest.approx(0.2)
    assert hundred[:peak] == sorted(hundred[:peak])
    assert hundred[peak:] == sorted(hundred[peak:], reverse=True)
    assert 0 < hundred[-1] < 0.001
    for few in range(1, 8):
        assert all(0 < rate <= 0.2 + 1e-12 for rate in rates(few))


def test_the_multi_step_schedule_divides_by_ten_after_two_and_four_fifths() -> None:
    descent = Descent(nn.Linear(1, 1), steps=10, learning_rate=1.0, momentum=0, weight_decay=0, schedule="multi-step")
    share = descent.scheduler.lr_lambdas[0]
    assert [share(step) for step in range(10)] == pytest.approx([1] * 4 + [0.1] * 4 + [0.01] * 2)


def test_one_step_is_stochastic_gradient_descent(easy: Bands) -> None:
    """The first step of `fit`, redone by hand on the same view: learning rate, decay and gradient are what they say."""
    train, _ = easy
    settings = {"learning_rate": 0.05, "weight_decay": 0.01}
    ours, by_hand = mi.build("small_resnet", train), mi.build("small_resnet", train).train()
    mi.fit(ours, train, epochs=1, batch_size=192, crop=1, schedule="cosine", seed=3, **settings)  # type: ignore[arg-type]
    index, view = next(iter(shuffled(train, 192, 1, True, torch.Generator().manual_seed(3))))
    with autocast(train.device):
        logits = by_hand(view(train.floats(index)).contiguous(memory_format=torch.channels_last))
    F.cross_entropy(logits.float(), train.labels[index]).backward()
    for ours_now, p in zip(ours.parameters(), by_hand.parameters(), strict=True):
        assert p.grad is not None
        expected = p - 0.05 * (p.grad + 0.01 * p)
        assert torch.allclose(ours_now, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.05},
        {"momentum": 0.5},
        {"weight_decay": 0.05},
        {"schedule": "cosine"},
        {"crop": 1},
        {"flip": False},
        {"batch_size": 48},
    ],
)
def test_each_setting_reaches_the_training(easy: Bands, change: dict) -> None:
    train, _ = easy

    def weights(**settings: object) -> torch.Tensor:
        model = mi.build("small_resnet", train)
        mi.fit(model, train, epochs=2, **({"batch_size": 32} | settings))  # type: ignore[arg-type]
        return model.head.weight.detach()

    assert not torch.equal(weights(**change), weights())


class Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3)
        self.head = nn.LazyLinear(3)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


def test_models_that_do_not_fit_are_refused(easy: Bands) -> None:
    train, _ = easy
    with pytest.raises(ValueError, match=r"model: got features of shape \(1, 4, 10, 10\), expected 2-D features"):
        mi.fit(Maps(), train)
    with pytest.raises(ValueError, match=r"model: got Linear, expected a module with features\(x\) and head"):
        mi.accuracy(nn.Linear(2, 2), train)
    two = mi.ImageSet(train.images[:2], torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="model: got 2 logits, expected one for each of 3 classes"):
        mi.fit(mi.build("small_resnet", two), train)
    with pytest.raises(ValueError, match="images: got 3 channels, expected 1"):
        mi.fit(
            mi.build("small_resnet", train), train, test=mi.ImageSet(train.images.expand(-1, 3, -1, -1), train.labels)
        )
    with pytest.raises(ValueError, match="images: got an empty set, expected at least one picture"):
        mi.fit(mi.build("small_resnet", train), train.subset(slice(0, 0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs: got 0, expected a whole number >= 1"),
        ({"batch_size": 1.5}, r"batch_size: got 1\.5, expected a whole number >= 1"),
        ({"learning_rate": 0}, "learning_rate: got 0, expected a finite number > 0"),
        ({"learning_rate": float("nan")}, "learning_rate: got nan"),
        ({"momentum": 2}, r"momentum: got 2, expected a number in \[0, 1\]"),
        ({"schedule": "step"}, "schedule: got 'step', expected one of 'one-cycle', 'cosine', 'multi-step'"),
        ({"checkpoint": "no/such/folder"}, "checkpoint: got 'no/such/folder', expected a file in a folder that exists"),
        ({"checkpoint_minutes": -1}, "checkpoint_minutes: got -1, expected a finite number >= 0"),
        ({"defense": "mixup"}, "defense: got 'mixup', expected an object to call with each batch"),
        ({"defense": mi.ImageSet}, "defense: got <class '.*ImageSet'>, expected an object to call with each batch"),
        ({"flip": "no"}, "flip: got 'no', expected True or False"),
        ({"crop": -1}, "crop: got -1, expected a whole number from 0 to 11"),
        ({"crop": 12}, "crop: got 12, expected a whole number from 0 to 11"),
    ],
)
def test_bad_settings_are_refused(easy: Bands, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mi.fit(mi.build("small_resnet", easy[0]), easy[0], **options)


def test_a_loss_that_is_not_finite_stops_the_run(easy: Bands) -> None:
    model = mi.build("small_resnet", easy[0])
    with torch.no_grad():
        model.head.bias[0] = torch.inf
    with pytest.raises(FloatingPointError, match="the training loss became"):
        mi.fit(model, easy[0], epochs=1)


def test_a_defense_decides_what_is_trained_on(easy: Bands) -> None:
    """One that swaps pictures and labels for others: training on those others by hand gives the same weights."""
    train, _ = easy
    seen = []

    def inverted(model: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, generator: torch.Generator):
        assert model.training
        seen.append(len(pictures))
        return 1 - pictures, labels

    other = mi.ImageSet(255 - train.images, train.labels)
    settings = {"epochs": 2, "batch_size": 64, "crop": 0, "seed": 2}
    model, by_hand = mi.build("small_resnet", train), mi.build("small_resnet", train)
    history = mi.fit(model, train, defense=inverted, **settings)  # type: ignore[arg-type]
    expected = mi.fit(by_hand, other, **settings)  # type: ignore[arg-type]
    assert seen == [64] * 6
    # 1 − u/255 and (255 − u)/255 differ in the last bit; two epochs of bfloat16 make more of it, a wrong picture much.
    assert history.loss == pytest.approx(expected.loss, rel=0.02)
    assert mi.fit(mi.build("small_resnet", train), train, **settings).loss != pytest.approx(expected.loss, rel=0.02)  # type: ignore[arg-type]


def test_targets_may_be_probabilities(easy: Bands) -> None:
    train, _ = easy

    def certain(model: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, generator: torch.Generator):
        return pictures, F.one_hot(labels, 3).float()

    settings = {"epochs": 1, "batch_size": 64}
    models = [mi.build("small_resnet", train) for _ in range(2)]
    plain = mi.fit(models[0], train, **settings)  # type: ignore[arg-type]
    soft = mi.fit(models[1], train, defense=certain, **settings)  # type: ignore[arg-type]
    # The same sum in another order: float32 rounds it differently, and nothing else may differ.
    assert soft.loss == pytest.approx(plain.loss, rel=1e-4)
    assert soft.train_accuracy == pytest.approx(plain.train_accuracy, abs=2 / 192)


def noisy(model: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, generator: torch.Generator):
    return (pictures + 0.1 * torch.rand(pictures.shape, generator=generator)).clamp(0, 1), labels


class Stop(Exception):
    pass


def test_a_run_that_was_stopped_goes_on_to_the_same_end(easy: Bands, tmp_path) -> None:
    train, test = easy
    settings: dict = {"test": test, "epochs": 4, "batch_size": 32, "crop": 1, "defense": noisy, "seed": 5}

    def stop(epoch: int, history: mi.History) -> None:
        if epoch == 2:
            raise Stop

    whole, broken, resumed = (mi.build("small_resnet", train) for _ in range(3))
    expected = mi.fit(whole, train, **settings)
    file = tmp_path / "run"
    with pytest.raises(Stop):
        mi.fit(broken, train, checkpoint=file, on_epoch=stop, **settings)
    epochs: list[int] = []
    history = mi.fit(resumed, train, checkpoint=file, on_epoch=lambda epoch, _: epochs.append(epoch), **settings)
    assert epochs == [3, 4]
    assert (history.loss, history.test_accuracy) == (expected.loss, expected.test_accuracy)
    assert history.seconds == sorted(history.seconds)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name])
    assert file.exists()


def test_a_checkpoint_is_written_by_the_clock_and_refused_by_another_run(easy: Bands, tmp_path) -> None:
    train, _ = easy
    file = tmp_path / "run"

    def run(model: str = "small_resnet", images: mi.ImageSet = train, **more: object) -> None:
        settings: dict = {"epochs": 1, "batch_size": 64, "checkpoint": file, "checkpoint_minutes": 0} | more
        mi.fit(mi.build(model, images, seed=settings.pop("weights", 0)), images, **settings)

    run(checkpoint_minutes=10)
    assert not file.exists()
    run()
    assert file.exists()
    with pytest.raises(ValueError, match=r"checkpoint: got '.*', of a run with other learning_rate, expected that of"):
        run(learning_rate=0.05)
    with pytest.raises(ValueError, match="of a run with other .*pictures, expected"):
        run(images=train.subset(slice(0, 128)))
    for other in ({"model": "linear"}, {"weights": 1}):
        with pytest.raises(ValueError, match="of a run with other weights at the start"):
            run(**other)  # type: ignore[arg-type]
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="expected a whole file that fit has written"):
        run()
