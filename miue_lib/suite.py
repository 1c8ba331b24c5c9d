"""The tables of the paper, and of what its reviewers asked for, as cases for `miue_lib.evaluate`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .data import ImageSet
from .evaluate import EPSILON, Case
from .models import Classifier
from .noise import METHODS
from .profiles import Profile

TABLES = ("methods", "adversarial", "defenses", "ablation", "transfer", "share", "epochs", "sensitivity")


def suite(size: Profile, images: ImageSet) -> dict[str, list[Case]]:
    """Table → its cases for pictures like `images`, the most telling table first, each as large as `size` can run it.

    methods: every method's noise, one victim. adversarial: adversarial training at four radii. defenses: whatever else
    a victim may do. ablation: MI-UE without one of its terms. transfer: other victims. share: noise on some of the
    pictures only. epochs: victims that train for longer or shorter. sensitivity: MI-UE with one setting changed.
    """
    return {
        "methods": _methods(size),
        "adversarial": _adversarial(size),
        "defenses": _defenses(size, images),
        "ablation": _ablation(size),
        "transfer": _transfer(size),
        "share": _share(size),
        "epochs": _epochs(size),
        "sensitivity": _sensitivity(size),
    }


def fitted_to(size: Profile, images: ImageSet) -> Profile:
    """The profile for pictures like these.

    Budgets in L2 keep the root mean square a pixel that their authors chose for 3×32×32. Zhu et al. (2026) craft with
    steps of 0.4/255 for large pictures. `few` is no more than there are, equally many of each class.
    """
    noise = dict(size.noise)
    pixels = images.images[0].numel()
    noise["lsp"] = dict(noise["lsp"]) | {"radius": 6 / 255 * pixels**0.5}
    noise["ar"] = dict(noise["ar"]) | {"radius": (pixels / 3072) ** 0.5}
    if max(images.images.shape[2:]) > 64:
        noise["miue"] = {"step": 0.4 / 255} | dict(noise["miue"])
    classes = len(images.classes)
    fewest = int(images.labels.bincount(minlength=classes).min())
    return replace(size, noise=noise, few=min(size.few, classes * fewest))


def title_of(method: str) -> str:
    """As rows are called."""
    return METHODS[method].title if method in METHODS else method


def _methods(size: Profile) -> list[Case]:
    names = ("clean", *METHODS)
    return [_plain(size, "methods", name, size.victim_title) for name in names]


def _plain(size: Profile, table: str, method: str, column: str, **more: Any) -> Case:
    settings = {"model": size.model, "row": title_of(method)} | more
    return Case(table=table, method=method, column=column, **settings)


def _adversarial(size: Profile) -> list[Case]:
    """Adversarial training at four radii, and, with the same recipe, without an adversary."""
    cases = []
    for levels in (0, 2, 4, 6, 8):
        radius = levels / 255
        attack = {"radius": radius, "steps": size.attack["steps"]}
        attack["step"] = size.attack.get("step") or 1.25 * radius / attack["steps"]
        defended: Any = {"defense": "adversarial", "defended": attack, "robust": radius} if levels else {}
        column = f"AT-{levels}" if levels else "none"
        for method in size.resisted:
            cases.append(_plain(size, "adversarial", method, column, trained=size.adversarial, **defended))
    return cases


def _defenses(size: Profile, images: ImageSet) -> list[Case]:
    cases = []
    for column, (name, settings) in _defended_with(size, images).items():
        for method in size.rows:
            case = _plain(size, "defenses", method, column, defense=name, trained=size.brief)
            cases.append(replace(case, defended=settings))
    return cases


def _defended_with(size: Profile, images: ImageSet) -> dict[str, tuple[str, dict[str, Any]]]:
    """Column → a name of `DEFENSES` and settings."""
    found: dict[str, tuple[str, dict[str, Any]]] = {"none": ("none", {})}
    found |= {f"JPEG {quality}": ("jpeg", {"quality": quality}) for quality in (90, 70, 50, 30, 10)}
    found |= {"grayscale": ("grayscale", {})} if images.images.shape[1] == 3 else {}
    found |= {"2 bits": ("bit_depth", {"bits": 2}), "projection": ("projection", {})}
    # As large for these pictures as 16 pixels are for the 32 of CIFAR-10.
    found |= {"Cutout": ("cutout", {"size": max(1, min(images.images.shape[2:]) // 2)})}
    found |= {name: (name.lower(), {}) for name in ("CutMix", "MixUp")}
    found |= {"UEraser lite": ("ueraser", {"draws": 1}), "UEraser max": ("ueraser", {"draws": 5})}
    found |= {"VAE": ("vae", {}), "diffusion": ("diffusion", {})}
    return {column: (name, dict(size.defenses.get(name, {})) | given) for column, (name, given) in found.items()}


def _ablation(size: Profile) -> list[Case]:
    """MI-UE without one of its terms and without the other; the full loss crafted in as many rounds beside them."""
    taken = {
        "MI-UE": {},
        "MI-UE without the distance term": {"distance_weight": 0.0},
        "MI-UE without the similarity term": {"similarity_weight": 0.0},
    }
    return [
        _plain(size, "ablation", "miue", size.victim_title, row=row, crafted=dict(size.many) | changes)
        for row, changes in taken.items()
    ]


def _transfer(size: Profile) -> list[Case]:
    cases = []
    for column, (model, settings) in size.transfer.items():
        for method in size.transferred:
            cases.append(_plain(size, "transfer", method, column, model=model, trained=settings))
    return cases


def _share(size: Profile) -> list[Case]:
    """MI-UE's noise on a share of every class, on one class, and victims of the clean part alone.

    Those train for as many steps as the others: for more epochs on fewer pictures.
    """
    cases = []
    epochs = (dict(size.victim) | dict(size.brief))["epochs"]
    for percent in size.shares:
        case = _plain(size, "share", "miue", f"{percent} %", trained=size.brief, share=percent / 100)
        cases.append(case)
        if percent < 100:
            longer = dict(size.brief) | {"epochs": round(epochs * 100 / (100 - percent))}
            cases.append(replace(case, row="the clean part alone", clean_part=True, trained=longer))
    cases.append(_plain(size, "share", "clean", "0 %", row="MI-UE", trained=size.brief))
    cases.append(_plain(size, "share", "miue", "one class", trained=size.brief, only=0))
    return cases


def _epochs(size: Profile) -> list[Case]:
    """Victims that train for half the profile's epochs, and for all of them."""
    whole = size.victim["epochs"]
    lengths = whole // 2, whole
    return [
        _plain(size, "epochs", method, f"{epochs} epochs", trained={"epochs": epochs})
        for epochs in lengths
        for method in size.transferred
    ]


def _sensitivity(size: Profile) -> list[Case]:
    """MI-UE with one setting changed: a row for each setting, a column for each value."""
    cases = []
    for setting, values in size.sweeps.items():
        for value in values:
            changes = {setting: value}
            if setting == "epsilon":
                # So that as many steps reach as far within the budget as they do at 8/255.
                changes["step"] = (dict(size.noise["miue"]) | dict(size.swept)).get("step", 0.2 / 255) * value / EPSILON
            column = f"{255 * value:.4g}/255" if setting in ("epsilon", "step") else f"{value}"
            changes = dict(size.swept) | changes
            more = {"row": setting, "crafted": changes, "trained": size.brief}
            cases.append(_plain(size, "sensitivity", "miue", column, **more))
    return cases


def pretrained(size: Profile, start: Classifier) -> list[Case]:
    """Victims that begin with the features of `start`, for a `Bench` that has it: a column of the table transfer."""
    column = f"{start.architecture}, pretrained"
    more: dict[str, Any] = {"model": start.architecture, "trained": size.brief, "start": True}
    return [_plain(size, "transfer", method, column, **more) for method in size.rows]
