"""Profiles: each setting in the table is one that the library accepts, and an unknown name is refused."""

import inspect
from dataclasses import fields

import pytest

import miue_lib as mi
from miue_lib.data import DATASETS
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


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(ValueError, match="profile: got 'tpu', expected one of 'cpu', 'gpu'"):
        mi.profile("tpu")
