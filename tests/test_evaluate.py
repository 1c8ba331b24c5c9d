"""Cases: each says what its victim finds, and a table of them is run once, recorded, and gone on with."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

import miue_lib as mi
from miue_lib import evaluate, explain, results
from miue_lib.defenses import bit_depth
from miue_lib.evaluate import Bench, Case

SMALL = replace(
    mi.profile("cpu"),
    model="linear",
    seeds=2,
    crafts=2,
    victim={"epochs": 2, "batch_size": 48, "crop": 1},
    noise={"random": {}, "miue": {"surrogate": "linear", "epochs": 2, "steps": 1, "crop": 1, "noise_batch_size": 48}},
)


@pytest.fixture
def bench(easy, tmp_path) -> Bench:
    return Bench(size=SMALL, train=easy[0], test=easy[1], cache=mi.Cache(tmp_path / "cache"), data="bands", seed=3)


def case(**changes) -> Case:
    return Case(**({"table": "t", "row": "random", "column": "c", "model": "linear", "method": "random"} | changes))


def test_a_plain_case_is_what_craft_and_fit_make(bench):
    noise = mi.craft("random", bench.train, epsilon=8 / 255, seed=4)
    published = bench.train.with_(noise)
    victim = mi.build("linear", published, seed=5)
    history = mi.fit(victim, published, test=bench.test, seed=5, **SMALL.victim)
    assert torch.equal(bench.published(case(), 1).images, published.images)
    found = bench.numbers(case(), 1)
    assert found.pop("training seconds") > 0
    assert found == {"accuracy": history.test_accuracy[-1], "highest accuracy": max(history.test_accuracy)}
    clean = mi.build("linear", bench.train, seed=5)
    history = mi.fit(clean, bench.train, test=bench.test, seed=5, **SMALL.victim)
    assert bench.numbers(case(method="clean"), 1)["accuracy"] == history.test_accuracy[-1]


@pytest.mark.parametrize("crafts", [1, 2])
def test_noise_is_crafted_as_often_as_the_profile_says(bench, crafts):
    few = replace(bench, size=replace(SMALL, crafts=crafts))
    same = torch.equal(few.noise(case(), 0).levels, few.noise(case(), 1).levels)
    assert same == (crafts == 1)


def test_settings_of_a_case_come_before_the_profiles(bench):
    assert bench.noise(case(crafted={"epsilon": 2 / 255}), 0).linf == pytest.approx(2 / 255)
    assert bench.noise(case(), 0).linf == pytest.approx(8 / 255)
    _, history = bench.victim(case(trained={"epochs": 1}), 0)
    assert len(history.loss) == 1


def test_a_share_of_every_class_carries_noise_and_larger_shares_hold_smaller_ones(bench):
    clean, noisy = bench.train.images, bench.published(case(), 0).images
    changed = {}
    for share in (0.25, 0.5, 1.0):
        mixed = bench.published(case(share=share), 0)
        changed[share] = (mixed.images != clean).flatten(1).any(1)
        assert torch.equal(mixed.images[changed[share]], noisy[changed[share]])
        # A picture of 144 pixels, each moved with probability 16/17, stays as it is once in 17¹⁴⁴.
        assert torch.bincount(bench.train.labels[changed[share]]).tolist() == [round(64 * share)] * 3
    assert bool((changed[0.25] <= changed[0.5]).all())
    assert not torch.equal(bench.published(case(share=0.5), 1).images, bench.published(case(share=0.5), 0).images)
    alone = bench.published(case(share=0.25, clean_part=True), 0)
    assert torch.equal(alone.images, clean[~changed[0.25]])
    assert torch.equal(alone.labels, bench.train.labels[~changed[0.25]])


def test_one_class_alone_carries_noise(bench):
    changed = (bench.published(case(only=1), 0).images != bench.train.images).flatten(1).any(1)
    assert torch.equal(changed, bench.train.labels == 1)


def test_a_defense_on_pictures_sees_what_is_published_and_one_in_training_the_batches(bench):
    published = bench.published(case(), 0)
    coarse = bit_depth(published, bits=2)
    expected = mi.build("linear", coarse, seed=4)
    mi.fit(expected, coarse, seed=4, **SMALL.victim)
    victim, _ = bench.victim(case(defense="bit_depth", defended={"bits": 2}), 0)
    assert torch.equal(victim.head.weight, expected.head.weight)
    found = bench.numbers(case(defense="bit_depth", defended={"bits": 2}), 0)
    kept, rest = explain.survival(bench.train, published, bit_depth(bench.train, bits=2), coarse)
    assert (found["survives"], found["disturbance"]) == (kept, rest)
    plain, _ = bench.victim(case(), 0)
    cut, _ = bench.victim(case(defense="cutout", defended={"size": 4}), 0)
    assert not torch.equal(plain.head.weight, cut.head.weight)
    assert not torch.equal(plain.head.weight, victim.head.weight)


def test_robust_accuracy_is_of_the_cases_radius_with_ten_steps(bench):
    found = bench.numbers(case(robust=8 / 255), 0)
    victim, _ = bench.victim(case(robust=8 / 255), 0)
    assert found["robust accuracy"] == explain.robust_accuracy(victim, bench.test, radius=8 / 255, steps=10, seed=3)
    assert found["robust accuracy"] <= found["accuracy"]


def test_a_case_may_begin_with_features_that_the_bench_has(bench):
    start = mi.build("small_resnet", bench.train, seed=9)
    begun = case(start=True, model="small_resnet", trained={"epochs": 1, "learning_rate": 1e-12})
    victim, _ = replace(bench, start=start).victim(begun, 0)
    assert torch.equal(victim.body[2].weight, start.body[2].weight)
    with pytest.raises(ValueError, match="start: got no model, expected one with the features that"):
        bench.victim(begun, 0)


def test_side_by_side_gives_what_single_runs_give_and_crafts_each_noise_once(bench, monkeypatch):
    made = []
    monkeypatch.setattr(mi.Cache, "at_once", lambda self, calls: (call() for call in calls))
    monkeypatch.setattr(
        Bench, "noise", lambda self, c, k, _real=Bench.noise, **m: made.append(k) or _real(self, c, k, **m)
    )
    cases = [case(), case(row="half", share=0.5), case(row="clean", method="clean")]
    records = evaluate.side_by_side(cases, bench)
    assert made[:2] == [0, 1] and len(made) == 2 + 4
    for one, record in zip(cases, records, strict=True):
        assert record.numbers["accuracy"] == tuple(bench.numbers(one, k)["accuracy"] for k in (0, 1))
        assert (record.row, record.seeds, record.profile, record.data) == (one.row, (3, 4), "cpu", "bands")
        assert record.fingerprints == {"train": bench.train.fingerprint, "test": bench.test.fingerprint}
    settings = {"model": "linear", "method": "random", "share": 0.5, "training": SMALL.victim, "crafting seeds": 2}
    assert records[1].settings == settings | {"crafting": {"epsilon": 8 / 255}}
    assert records[1].seconds == sum(records[1].numbers["training seconds"])


def test_a_run_is_recorded_and_not_made_again(bench, tmp_path, monkeypatch):
    cases, out, said = [case(), case(row="clean", method="clean")], tmp_path / "out", []
    assert evaluate.run(cases, bench, out, tell=said.append, say=said.append) == 0
    records = {record.row: record for record in results.read(out)}
    assert {row: len(record.seeds) for row, record in records.items()} == {"random": 2, "clean": 2}
    assert records["random"].numbers["accuracy"] == tuple(bench.numbers(case(), k)["accuracy"] for k in (0, 1))
    assert records["random"].seconds > 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    monkeypatch.setattr(Bench, "numbers", lambda *_, **__: pytest.fail("made again"))
    assert evaluate.run(cases, bench, out, tell=said.append, say=said.append) == 0
    assert said[-1] == "4 of 4 runs are recorded"
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}


def test_seeds_of_a_record_are_added_one_at_a_time(bench, tmp_path):
    out = tmp_path / "out"
    one = replace(bench, size=replace(SMALL, seeds=1))
    assert evaluate.run([case()], one, out) == 0
    (first,) = results.read(out)
    assert evaluate.run([case()], bench, out) == 0
    (both,) = results.read(out)
    assert both.numbers["accuracy"][:1] == first.numbers["accuracy"] and both.seeds == (3, 4)


def test_records_of_other_pictures_seeds_or_starts_stand_beside_each_other(bench, tmp_path):
    out = tmp_path / "out"
    begun = case(start=True, model="small_resnet", trained={"epochs": 1})
    few = replace(bench, size=replace(SMALL, seeds=1))
    starts = [replace(few, start=mi.build("small_resnet", bench.train, seed=seed)) for seed in (8, 9)]
    others = [replace(few, seed=4), replace(few, train=bench.train.subset(slice(0, 96)))]
    for place, (one, what) in enumerate(
        [(few, case()), *((b, case()) for b in others), *((b, begun) for b in starts)], 1
    ):
        evaluate.run([what], one, out)
        assert len(results.read(out)) == place


def test_a_case_that_fails_is_named_and_the_others_are_run(bench, tmp_path):
    bad, out, told = case(row="bad", crafted={"epsilon": 7}), tmp_path / "out", []
    with pytest.raises(RuntimeError, match="1 cases failed, the first of them t, bad, c: epsilon: got 7"):
        evaluate.run([bad, case()], bench, out, tell=told.append)
    assert [record.row for record in results.read(out)] == ["random"]
    assert sum("failed" in line for line in told) == 1


def test_it_runs_outside_the_main_thread(bench, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(evaluate.run, [case()], bench, tmp_path / "out").result() == 0


def test_whole_records_of_other_code_stay_and_are_counted(bench, tmp_path):
    out, told = tmp_path / "out", []
    evaluate.run([case()], bench, out)
    (path,) = out.rglob("*.json")
    path.write_text(path.read_text().replace('"code": "', '"code": "other '))
    assert evaluate.run([case()], bench, out, tell=told.append) == 0
    assert told[0].startswith("1 whole records are of other code or another machine")


@pytest.mark.parametrize("what", ["code", "pictures"])
def test_a_record_of_other_code_or_pictures_is_not_gone_on_with(bench, tmp_path, what):
    out = tmp_path / "out"
    evaluate.run([case()], replace(bench, size=replace(SMALL, seeds=1)), out)
    (path,) = out.rglob("*.json")
    content = json.loads(path.read_text())
    content["numbers"] = {name: [0.123] for name in content["numbers"]}
    if what == "code":
        content["code"] = "another"
    else:
        content["fingerprints"]["train"] = "0"
    path.write_text(json.dumps(content))
    evaluate.run([case()], bench, out)
    whole = [record for record in results.read(out) if len(record.seeds) == 2]
    assert len(whole) == 1 and 0.123 not in whole[0].numbers["accuracy"]


def test_out_of_time_it_stops_where_it_can_go_on(bench, tmp_path, monkeypatch):
    out = tmp_path / "out"
    cases = [case(row="MI-UE", method="miue")]
    assert evaluate.run(cases, bench, out, minutes=0, say=print) == 2
    assert not out.exists()
    whole = bench.numbers(replace(cases[0], column="whole"), 0)
    other = replace(bench, cache=mi.Cache(tmp_path / "other"))
    left, pieces = 2, 0
    while left:
        left, pieces = _piece(cases, other, out, monkeypatch), pieces + 1
        assert pieces < 30
    (record,) = results.read(out)
    assert record.numbers["accuracy"][0] == whole["accuracy"]
    assert pieces > 4


def _piece(cases, bench, out, monkeypatch):
    """A run whose time is up as soon as something is said of a round or an epoch."""
    said = []
    monkeypatch.setattr(evaluate._Clock, "is_up", lambda clock: len(said) > 1)
    return evaluate.run(cases, bench, out, minutes=10, tell=said.append, say=said.append)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "none"}, "model: got 'none', expected one of 'linear'"),
        ({"method": "none"}, "method: got 'none', expected one of 'clean', 'random'"),
        ({"defense": "prayer"}, "defense: got 'prayer', expected one of 'none', 'jpeg'"),
        ({"share": 1.5}, r"share: got 1.5, expected a number in \[0, 1\]"),
        ({"robust": -1}, r"robust: got -1, expected a number in \[0, 1\]"),
        ({"only": -1}, "only: got -1, expected a whole number >= 0"),
        ({"only": 1, "share": 0.5}, "share: got 0.5, expected 1 where only one class is published with noise"),
        ({"clean_part": True}, "clean_part: got True, expected a share below 1, or one class"),
    ],
)
def test_cases_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        case(**changes)
