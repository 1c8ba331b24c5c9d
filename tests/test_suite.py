"""The tables are those of the paper, and every case of them can be run."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

import miue_lib as mi
from miue_lib import results
from miue_lib.suite import TABLES, fitted_to, pretrained, suite


def pictures(channels=3, side=32):
    return mi.ImageSet(torch.zeros((20, channels, side, side), dtype=torch.uint8), torch.arange(20) % 10)


@pytest.fixture(params=["cpu", "gpu"])
def size(request):
    return mi.profile(request.param)


def test_every_case_has_a_place_of_its_own(size):
    tables = suite(size, pictures())
    assert tuple(tables) == TABLES
    for name, cases in tables.items():
        assert cases and {case.table for case in cases} == {name}
        places = Counter((case.row, case.column) for case in cases)
        assert max(places.values()) == 1


def test_cases_differ_in_what_is_run_not_in_name_alone(size):
    for cases in suite(size, pictures()).values():
        runs = [repr(dict(case.settings.items()) | {"table": 0, "row": 0, "column": 0}) for case in cases]
        assert len(set(runs)) == len(runs)


def test_the_published_tables_are_all_there_at_the_papers_size():
    tables = suite(mi.profile("gpu"), pictures())
    ours = {(case.table, case.row, case.column) for cases in tables.values() for case in cases}
    theirs = {(one.table, one.row, one.column) for one in results.published("Zhu") if one.data == "CIFAR-10"}
    lacking = {place for place in theirs - ours if place[0] not in ("information", "mine")}
    assert not lacking


def test_adversarial_training_is_the_papers():
    cases = suite(mi.profile("gpu"), pictures())["adversarial"]
    (case,) = [case for case in cases if (case.row, case.column) == ("MI-UE", "AT-4")]
    assert case.defended == {"radius": 4 / 255, "steps": 10, "step": 2 / 255}
    assert case.robust == 4 / 255
    assert case.trained == {"schedule": "multi-step", "weight_decay": 5e-4}
    assert next(case for case in cases if case.column == "none").defense == "none"


def test_short_attacks_can_cross_the_budget():
    for case in suite(mi.profile("cpu"), pictures(1, 28))["adversarial"]:
        if case.robust:
            assert case.defended["steps"] * case.defended["step"] == pytest.approx(1.25 * case.robust)


def test_grayscale_is_for_colours_and_cutout_grows_with_the_picture(size):
    def columns(images):
        return {case.column: case for case in suite(size, images)["defenses"]}

    assert "grayscale" in columns(pictures(3)) and "grayscale" not in columns(pictures(1))
    assert columns(pictures(3, 32))["Cutout"].defended["size"] == 16
    assert columns(pictures(1, 28))["Cutout"].defended["size"] == 14


def test_the_step_grows_with_the_budget(size):
    cases = [case for case in suite(size, pictures())["sensitivity"] if case.row == "epsilon"]
    per_budget = {round(case.crafted["step"] / case.crafted["epsilon"], 9) for case in cases}
    assert len(cases) > 2 and len(per_budget) == 1


def test_a_profile_is_fitted_to_large_and_few_pictures():
    gpu = mi.profile("gpu")
    assert fitted_to(gpu, pictures(3, 224)).noise["miue"]["step"] == 0.4 / 255
    assert "step" not in fitted_to(gpu, pictures(3, 64)).noise["miue"]
    assert fitted_to(gpu, pictures()).few == 20
    uneven = mi.ImageSet(torch.zeros((9, 1, 8, 8), dtype=torch.uint8), torch.tensor([0] * 6 + [1] * 3))
    assert fitted_to(gpu, uneven).few == 6
    for name in ("lsp", "ar"):  # the same root mean square a pixel at every size
        radii = [fitted_to(gpu, pictures(3, side)).noise[name]["radius"] / side for side in (32, 224)]
        assert radii[0] == pytest.approx(radii[1])
    assert gpu.few == 50_000 and "step" not in gpu.noise["miue"]


def test_victims_that_begin_with_given_features_are_of_its_architecture(size):
    start = mi.build("small_resnet", pictures())
    cases = pretrained(size, start)
    assert [case.method for case in cases] == list(size.rows)
    assert {(case.model, case.start, case.column) for case in cases} == {
        ("small_resnet", True, "small_resnet, pretrained")
    }


def test_cases_pickle_and_keep_settings_of_their_own():
    settings = {"epochs": 3}
    case = replace(suite(mi.profile("cpu"), pictures())["methods"][0], trained=settings)
    settings["epochs"] = 4
    assert case.trained == {"epochs": 3}
