"""Profiles: each setting in the table is one that the library accepts, and an unknown name is refused."""

import inspect
from dataclasses import fields

import pytest
from torch import nn

import miue_lib as mi
from miue_lib.data import DATASETS
from miue_lib.defenses import DEFENSES
from miue_lib.noise.bilevel import Loop


@pytest.mark.parametrize("name", list(mi.PROFILES))
def test_every_setting_exists(name: str) -> None:
    profile = mi.profile(name)
    assert profile.name == name
    assert profile.data in DATASETS
    assert profile.model in mi.MODELS
    assert profile.seeds >= 3
    assert set(profile.victim) <= set(inspect.signature(mi.fit).parameters)
    assert set(profile.noise) == set(mi.METHODS)
    for method, settings in profile.noise.items():
        accepted = inspect.signature(mi.METHODS[method].run).parameters
        assert set(settings) <= set(accepted) - {"seed", "progress", "epsilon"}
        everything = {key: parameter.default for key, parameter in accepted.items()} | dict(settings)
        if "execution" in everything:  # run by the engine
            loop = Loop(**{f.name: everything[f.name] for f in fields(Loop) if f.name in everything})
            assert loop.surrogate == profile.model


@pytest.mark.parametrize("name", list(mi.PROFILES))
def test_many_changes_miue_into_what_it_accepts(name: str) -> None:
    profile = mi.profile(name)
    accepted = inspect.signature(mi.METHODS["miue"].run).parameters
    assert set(profile.many) <= set(accepted) - {"seed", "progress", "epsilon"}
    settings = {key: parameter.default for key, parameter in accepted.items()}
    once, many = (
        Loop(**{f.name: given[f.name] for f in fields(Loop) if f.name in given})
        for given in (
            settings | dict(profile.noise["miue"]),
            settings | dict(profile.noise["miue"]) | dict(profile.many),
        )
    )
    assert many.surrogate == profile.model
    assert many.epochs <= once.epochs, "what is crafted many times over costs no more each time"


@pytest.mark.parametrize("name", list(mi.PROFILES))
def test_depths_are_the_papers_victims_by_depth(name: str, tiny: mi.ImageSet) -> None:
    depths = mi.profile(name).depths
    assert list(depths) == ["Linear", "2-NN", "3-NN", "LeNet-5", "VGG-11", "ResNet-18"]
    assert set(depths.values()) <= set(mi.MODELS)
    layers = [
        sum(isinstance(module, nn.Conv2d | nn.Linear) for module in mi.build(model, tiny).modules())
        for model in depths.values()
    ]
    assert layers == sorted(set(layers)), "each has more layers than the one before"


@pytest.mark.parametrize("name", list(mi.PROFILES))
def test_settings_of_the_tables_are_accepted(name: str) -> None:
    profile = mi.profile(name)
    recipes = [profile.brief, profile.adversarial, *(settings for _, settings in profile.transfer.values())]
    for recipe in recipes:
        assert set(recipe) <= set(inspect.signature(mi.fit).parameters)
    assert {model for model, _ in profile.transfer.values()} <= set(mi.MODELS)
    assert list(profile.transfer)[: len(profile.depths)] == list(profile.depths)
    for rows in (profile.transferred, profile.rows, profile.resisted):
        assert rows[0] == "clean" and "miue" in rows and set(rows[1:]) <= set(mi.METHODS)
    for defense, settings in profile.defenses.items():
        assert set(settings) <= set(inspect.signature(DEFENSES[defense].run).parameters)
    accepted = set(inspect.signature(mi.METHODS["miue"].run).parameters)
    assert set(profile.sweeps) | set(profile.swept) <= accepted
    assert 1 <= profile.crafts <= profile.seeds


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(ValueError, match="profile: got 'tpu', expected one of 'cpu', 'gpu'"):
        mi.profile("tpu")
