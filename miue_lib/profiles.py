"""The one table of everything that differs between a quick run on two cores and the paper's size on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ._errors import check_choice
from .noise import METHODS


@dataclass(frozen=True)
class Profile:
    """A size at which the chapters run.

    data: for `load`. model: for `build`; victims and surrogates alike. victim: settings for `fit`. seeds: how many
    victims. noise: method → settings for `craft`. few: training pictures, for `ImageSet.balanced`, of the chapters that
    measure what was crafted rather than craft. many: MI-UE's settings that change where it is crafted many times over,
    with this and that taken away. depths: the paper's victims by depth, name → for `build`.

    For the tables of `miue_lib.suite`: crafts: how many times noise is crafted for the victims of a case, with a
    seed each. victim_title: what `model` is called. brief: what changes in `victim` where very many are trained.
    Methods ("clean" too) whose noise meets every victim: `transferred`; every defence: `rows`; adversarial
    training: `resisted`. transfer: the victims, name → for `build`, and what changes in `victim`. adversarial: what
    changes in `victim` for adversarial training; attack: its `steps`, and the `step` if it does not grow with the
    radius. defenses: settings of `DEFENSES`. shares: of pictures with noise, in per cent. sweeps: MI-UE's setting →
    values that are tried; swept: what else changes in its settings meanwhile.
    """

    name: str
    data: str
    model: str
    seeds: int
    few: int
    victim: Mapping[str, Any]
    noise: Mapping[str, Mapping[str, Any]]
    many: Mapping[str, Any]
    depths: Mapping[str, str]
    crafts: int
    victim_title: str
    transferred: tuple[str, ...]
    rows: tuple[str, ...]
    resisted: tuple[str, ...]
    brief: Mapping[str, Any]
    transfer: Mapping[str, tuple[str, Mapping[str, Any]]]
    adversarial: Mapping[str, Any]
    attack: Mapping[str, Any]
    defenses: Mapping[str, Mapping[str, Any]]
    shares: tuple[int, ...]
    sweeps: Mapping[str, tuple[Any, ...]]
    swept: Mapping[str, Any]


def _frozen(**settings: Any) -> Mapping[str, Any]:
    return MappingProxyType(settings)


def _by_depth(*, vgg11: str, resnet18: str) -> Mapping[str, str]:
    names = {"Linear": "linear", "2-NN": "2nn", "3-NN": "3nn", "LeNet-5": "lenet5"}
    return MappingProxyType(names | {"VGG-11": vgg11, "ResNet-18": resnet18})


def _victims(models: Mapping[str, str], **settings: Any) -> dict[str, tuple[str, Mapping[str, Any]]]:
    return {title: (model, _frozen(**settings)) for title, model in models.items()}


# Half the batch and a third of the epochs: two thirds of the steps at less than half the cost.
_BRIEF = _frozen(epochs=4, batch_size=64)

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        # About eight minutes on two cores: the embedded pictures and a small residual network.
        "cpu": Profile(
            name="cpu",
            data="fashion-mnist-mini",
            model="small_resnet",
            seeds=3,
            few=3000,
            victim=_frozen(epochs=12, learning_rate=0.2, weight_decay=1e-4, schedule="cosine", crop=2),
            noise=_frozen(
                random=_frozen(),
                em=_frozen(
                    surrogate="small_resnet",
                    epochs=8,
                    steps=5,
                    step=1.6 / 255,
                    model_batches=20,
                    until_accuracy=None,
                    noise_batch_size=250,
                    crop=2,
                    flip=True,
                ),
                ap=_frozen(
                    surrogate="small_resnet",
                    epochs=5,
                    steps=20,
                    step=1.6 / 255,
                    noise_batch_size=250,
                    crop=2,
                ),
                rem=_frozen(
                    surrogate="small_resnet",
                    epochs=4,
                    steps=3,
                    step=4 / 255,
                    draws=1,
                    attack_radius=2 / 255,
                    attack_step=2 / 255,
                    attack_steps=1,
                    noise_batch_size=250,
                    crop=2,
                ),
                sem=_frozen(
                    surrogate="small_resnet",
                    epochs=4,
                    steps=5,
                    step=2.4 / 255,
                    draws=1,
                    attack_radius=2 / 255,
                    attack_step=2 / 255,
                    attack_steps=1,
                    noise_batch_size=250,
                    crop=2,
                ),
                # Budgets in L2 of the same root mean square a pixel as the authors' on 3×32×32.
                lsp=_frozen(radius=6 / 255 * 28),
                ar=_frozen(radius=1.0 * (784 / 3072) ** 0.5, response=7.0),
                ops=_frozen(),
                cuda_conv=_frozen(size=5),
                pil=_frozen(epochs=10, batch_size=128, learning_rate=0.05),
                tue=_frozen(rounds=3),
                ntga=_frozen(steps=2, step=4.4 / 255, held_out=1000),
                gue=_frozen(
                    surrogate="small_resnet",
                    epochs=4,
                    inner_steps=3,
                    inner_learning_rate=3e-3,
                    learning_rate=0.1,
                    generator_learning_rate=1e-2,
                    generator_optimizer="adam",
                    width=8,
                    fold=2,
                    batch_size=32,
                    crop=2,
                    flip=True,
                ),
                miue=_frozen(
                    surrogate="small_resnet",
                    epochs=27,
                    steps=2,
                    step=1.6 / 255,
                    step_decay=True,
                    fresh_every=3,
                    temperature=0.2,
                    distance_weight=1.0,
                    noise_batch_size=250,
                    crop=2,
                ),
            ),
            many=_frozen(epochs=6),
            depths=_by_depth(vgg11="small_vgg11", resnet18="small_resnet18"),
            crafts=3,
            victim_title="small ResNet",
            transferred=("clean", "em", "tue", "miue"),
            rows=("clean", "miue"),
            resisted=("clean", "rem", "miue"),
            brief=_BRIEF,
            # By the recipe of the chapter that compares depths, so that the first six are its victims too.
            transfer=_victims(
                dict(_by_depth(vgg11="small_vgg11", resnet18="small_resnet18"))
                | {"ResNet-50": "small_resnet50", "DenseNet-121": "small_densenet"},
                **dict(_BRIEF) | {"learning_rate": 0.1},
            )
            | _victims({"ViT-B": "small_vit"}, **dict(_BRIEF) | {"learning_rate": 0.05}),
            adversarial=_BRIEF,
            attack=_frozen(steps=1),
            defenses=_frozen(vae=_frozen(training_steps=300), diffusion=_frozen(time=0.2, training_steps=300)),
            shares=(60, 80, 90, 100),
            sweeps=_frozen(
                epsilon=(4 / 255, 8 / 255, 16 / 255),
                step=(2 / 255,),
                steps=(4,),
                temperature=(0.1, 0.5),
                distance_weight=(0.0, 10.0),
                surrogate=("small_vgg11", "3nn"),
            ),
            swept=_frozen(epochs=3, step=4 / 255),
        ),
        # The paper's settings: CIFAR-10, ResNet-18, 100 epochs.
        "gpu": Profile(
            name="gpu",
            data="cifar10",
            model="resnet18",
            seeds=3,
            few=50_000,
            victim=_frozen(epochs=100, schedule="cosine", weight_decay=1e-4, crop=4),
            noise=_frozen(**{name: _frozen() for name in METHODS}),
            many=_frozen(),
            depths=_by_depth(vgg11="vgg11", resnet18="resnet18"),
            crafts=1,
            victim_title="ResNet-18",
            transferred=("clean", "em", "ap", "ar", "sem", "gue", "tue", "miue"),
            rows=("clean", "em", "ap", "ar", "sem", "gue", "tue", "miue"),
            resisted=("clean", "em", "sem", "rem", "tue", "miue"),
            brief=_frozen(),
            transfer=_victims(_by_depth(vgg11="vgg11", resnet18="resnet18"))
            | _victims({"ResNet-50": "resnet50", "DenseNet-121": "densenet121"})
            | _victims({"ViT-B": "vit_b"}, learning_rate=0.01),  # a transformer does not survive 0.1
            adversarial=_frozen(schedule="multi-step", weight_decay=5e-4),
            attack=_frozen(steps=10, step=2 / 255),
            defenses=_frozen(
                vae=_frozen(training_steps=20_000, batch_size=256, width=64),
                diffusion=_frozen(time=0.2, training_steps=20_000, batch_size=256, width=64, learning_rate=1e-3),
            ),
            shares=(20, 40, 60, 80, 90, 100),
            sweeps=_frozen(
                epsilon=(4 / 255, 6 / 255, 12 / 255, 16 / 255),
                step=(0.1 / 255, 0.4 / 255, 0.8 / 255),
                steps=(5, 20),
                temperature=(0.05, 0.2, 0.5),
                distance_weight=(0.01, 1.0, 10.0),
                surrogate=("vgg11", "resnet50"),
            ),
            swept=_frozen(),
        ),
    }
)


def profile(name: str) -> Profile:
    """The profile called `name`. Raises `ValueError` for any other."""
    return PROFILES[check_choice("profile", name, PROFILES)]
