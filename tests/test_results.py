"""What was written is read again, what is broken is named, and published numbers are what the papers say."""

import json
import math
import os
import zipfile
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch

from miue_lib.results import Record, beside, find, hardware, pivot, provenance, published, read, write

CASE = {
    "table": "methods",
    "row": "MI-UE",
    "column": "ResNet-18",
    "data": "CIFAR-10",
    "numbers": {"accuracy": (0.1, 0.25, 0.13), "MI (nats)": (-0.01, 1.5, 1 / 3)},
    "seeds": (0, 1, 7),
    "settings": {"epochs": 100, "step": 0.2 / 255, "noise": {"crop": (4, None)}, "schedule": "cosine", "flip": True},
    "fingerprints": {"train": "0a1b", "test": "2c3d"},
    "code": "miue_lib 0.1.0, source 0123",
    "hardware": {"processor": "Ampère™ 80"},
    "profile": "gpu",
    "seconds": 12.5,
    "date": "2026-03-01T12:00:00+00:00",
}
RUN = Record(**CASE)


def test_what_was_written_is_read_again(tmp_path):
    assert read(write(RUN, tmp_path / "made" / "here")) == [RUN]
    bare = Record(table="a", row="b", column="c", data="d", numbers={"loss": [3]}, source="Somebody (2020)")
    write(bare, tmp_path / "made")
    assert read(tmp_path) == [bare, RUN]  # by path: made/a, made/here
    assert read(str(write(bare, str(tmp_path)))) == [bare]


def test_a_record_holds_copies_of_what_json_would_give_back():
    settings = {"noise": MappingProxyType({"sizes": (1, np.float64(0.5))})}
    numbers = {"accuracy": [np.float32(0.5), 1, 0]}
    record = replace(RUN, settings=settings, numbers=numbers)
    numbers["accuracy"].append(2)
    assert record.settings == {"noise": {"sizes": [1, 0.5]}}
    assert record.numbers == {"accuracy": (0.5, 1.0, 0.0)}
    assert json.loads(json.dumps(record.settings)) == record.settings


def test_mean_and_standard_deviation():
    # Of 0.10, 0.25, 0.13: mean 0.16, squares of what is left 0.0036 + 0.0081 + 0.0009 = 0.0126, over n − 1 = 2.
    assert RUN.mean() == pytest.approx(0.16, abs=1e-15)
    assert RUN.sd() == pytest.approx(math.sqrt(0.0063), abs=1e-15)
    assert RUN.mean("MI (nats)") == pytest.approx((1.5 - 0.01 + 1 / 3) / 3, abs=1e-15)
    pair = replace(RUN, numbers={"accuracy": (0.25, 0.75)}, seeds=(0, 1))  # ± 0.25: √(2 · 0.0625 / 1)
    assert pair.sd() == pytest.approx(math.sqrt(0.125), abs=1e-15)
    single = replace(RUN, numbers={"accuracy": (0.5,)}, seeds=())
    assert (single.mean(), single.sd()) == (0.5, None)
    with pytest.raises(ValueError, match=r"metric: got 'loss', expected one of 'accuracy', 'MI \(nats\)'"):
        RUN.sd("loss")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"table": "Methods"}, "table: got 'Methods', expected lower-case letters, digits and hyphens"),
        ({"table": "../up"}, "table: got '../up'"),
        ({"table": "methods\n"}, "table: got "),
        ({"table": ""}, "table: got ''"),
        ({"row": "  "}, "row: got '  ', expected what a reader is to see"),
        ({"column": 8}, "column: got 8, expected a string"),
        ({"numbers": {}}, "numbers: got {}, expected at least one metric"),
        ({"numbers": {"accuracy": 0.5}}, r"numbers\['accuracy'\]: got 0.5, expected a tuple or list"),
        (
            {"numbers": {"accuracy": (10.0, 20.0, 30.0)}},
            r"numbers\['accuracy'\]: got 10.0, expected a number in",
        ),
        ({"numbers": {"robust accuracy": (0.5, 0.5, -0.1)}}, r"numbers\['robust accuracy'\]: got -0.1"),
        ({"numbers": {"MI (nats)": (0.0, math.nan, 0.0)}}, "got nan, expected a finite number"),
        ({"numbers": {"MI (nats)": (0.0, math.inf, 0.0)}}, "got inf, expected a finite number"),
        ({"numbers": {"accuracy": (0.5, 0.5)}}, r"got \(0.5, 0.5\), expected a length of 3: one for each seed"),
        (
            {"numbers": {"accuracy": (0.5, 0.5), "loss": (1.0,)}, "seeds": ()},
            r"got \(1.0,\), expected a length of 2: for",
        ),
        ({"numbers": {"accuracy": ()}, "seeds": ()}, r"got \(\), expected a length of 1: for each"),
        ({"seeds": (0, 1, 1)}, r"seeds: got \(0, 1, 1\), expected every seed once"),
        ({"seeds": (0, 1, 0.5)}, r"seeds\[2\]: got 0.5, expected a whole number"),
        ({"seeds": 3}, "seeds: got 3, expected a tuple or list"),
        ({"settings": {"step": math.nan}}, r"settings\['step'\]: got nan, expected a plain value"),
        ({"settings": {"noise": [0, {"a": torch.ones(1)}]}}, r"settings\['noise'\]\[1\]\['a'\]: got tensor"),
        (
            {"settings": {"noise": {1: 2}}},
            r"settings\['noise'\]: got {1: 2}, expected a mapping whose keys are",
        ),
        ({"settings": None}, "settings: got None, expected a mapping"),
        ({"fingerprints": {"train": 5}}, r"fingerprints\['train'\]: got 5, expected a string"),
        ({"hardware": {"cores": 2}}, r"hardware\['cores'\]: got 2, expected a string"),
        ({"profile": "tpu"}, "profile: got 'tpu', expected one of '', 'cpu', 'gpu'"),
        ({"seconds": -1}, "seconds: got -1, expected a finite number >= 0"),
        ({"date": "yesterday"}, "date: got 'yesterday', expected a date and time in UTC"),
        ({"date": "2026-03-01T12:00:00"}, "expected a date and time in UTC"),
        ({"date": "2026-03-01T12:00:00+02:00"}, "expected a date and time in UTC"),
        ({"code": ""}, "source: got '' without a code and a date, expected a citation"),
        ({"date": ""}, "source: got '' without a code and a date, expected a citation"),
    ],
)
def test_what_is_no_record_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        Record(**CASE | changed)


def test_another_run_of_a_case_replaces_it_and_another_case_never_does(tmp_path):
    first = write(RUN, tmp_path)
    assert first.parent == tmp_path / "methods"
    assert first.name.startswith("mi-ue--resnet-18--cifar-10--")
    again = {"numbers": {"accuracy": (0.3,)}, "seeds": RUN.seeds[:1], "seconds": None, "code": "later", "hardware": {}}
    again |= {"date": "2027-01-01T00:00:00Z"}
    rerun = replace(RUN, **again, settings=dict(reversed(RUN.settings.items())))
    assert write(rerun, tmp_path) == first
    assert read(tmp_path) == [rerun]
    others = [{"table": "transfer"}, {"row": "MI UE"}, {"column": "ResNet 18"}, {"data": "CIFAR 10"}]
    others += [{"profile": "cpu"}, {"source": "Somebody (2020)"}, {"settings": {"epochs": 99}}]
    others += [{"row": row} for row in ("ζ", "ξ", "../up", 300 * "long ")]
    others += [{"column": "MI-UE", "row": "ResNet-18"}, {"fingerprints": {"train": "another"}}]
    others += [{"seeds": tuple(seed + 7 for seed in RUN.seeds)}]
    paths = [write(replace(RUN, **changed), tmp_path) for changed in others]
    assert len({first, *paths}) == len(others) + 1
    assert len({str(path).lower() for path in paths}) == len(paths)  # on a disk that does not tell A from a
    assert all(path.parent.parent == tmp_path for path in paths)
    assert len(read(tmp_path)) == len(others) + 1


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = write(RUN, tmp_path)

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write(replace(RUN, seconds=1.0), tmp_path)
    assert read(path) == [RUN]
    assert list(path.parent.iterdir()) == [path]


def test_what_is_in_a_file_is_text_for_a_reader(tmp_path):
    text = write(RUN, tmp_path).read_text(encoding="utf-8")
    assert text.endswith("}\n") and text.count("\n") > len(CASE)
    assert "Ampère™" in text
    content = json.loads(text)
    assert content["format"] == "miue_lib.result/1"
    assert list(content) == sorted(content)


WHOLE = {"format": "miue_lib.result/1"} | asdict(RUN)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "Expecting value"),
        (json.dumps(WHOLE)[:-20], ""),
        ("[" * 100_000, "recursion"),
        ('{"a": "\xff"}'.encode("latin-1"), "utf-8"),
        (json.dumps(asdict(RUN)), "format: got None, expected 'miue_lib.result/1'"),
        (json.dumps(WHOLE | {"format": "miue_lib.result/2"}), "format: got 'miue_lib.result/2'"),
        (json.dumps([WHOLE, 5]), "format: got None"),
        (json.dumps(WHOLE | {"colour": "red"}), "colour"),
        (json.dumps({key: value for key, value in WHOLE.items() if key != "row"}), "row"),
        (json.dumps(WHOLE | {"seconds": math.nan}), "seconds: got nan"),
        (json.dumps(WHOLE | {"seconds": 10**400}), "too large"),
        (json.dumps(WHOLE | {"settings": {"step": math.inf}}), "got inf"),
        (json.dumps(WHOLE | {"numbers": [0.5]}), "numbers: got"),
    ],
)
def test_a_file_that_holds_no_records_is_named(tmp_path, content, why):
    write(RUN, tmp_path)
    path = tmp_path / "methods" / "other.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for given in (path, tmp_path):
        with pytest.raises(ValueError, match=rf"path: got '[^']*other\.json' \(.*{why}.*\), expected JSON records of"):
            read(given)


def test_what_is_no_json_and_what_is_hidden_is_passed_over(tmp_path):
    path = write(RUN, tmp_path)
    (path.parent / "notes.txt").write_text("not read")
    (path.parent / f".{path.name}.x.part").write_text("of a run that was killed")
    (path.parent / ".ipynb_checkpoints").mkdir()
    (path.parent / ".ipynb_checkpoints" / "copy.json").write_bytes(path.read_bytes())
    assert read(tmp_path) == [RUN]
    (tmp_path / ".hidden").mkdir()
    assert read(write(RUN, tmp_path / ".hidden").parent) == [RUN]  # what is asked for is shown
    (tmp_path / "empty").mkdir()
    assert read(tmp_path / "empty") == []
    with pytest.raises(ValueError, match=r"path: got '.*nothing\.json' \(.*No such file"):
        read(tmp_path / "nothing.json")


def test_a_list_in_a_file_keeps_its_order(tmp_path):
    other = replace(RUN, row="EM")
    (tmp_path / "a.json").write_text(json.dumps([WHOLE, {"format": "miue_lib.result/1"} | asdict(other)]))
    assert read(tmp_path) == read(tmp_path / "a.json") == [RUN, other]


def test_find_compares_fields():
    runs = [replace(RUN, row=row, profile=profile) for row in ("EM", "AP") for profile in ("cpu", "gpu")]
    assert find(runs, row="AP") == runs[2:]
    assert find(iter(runs), row="EM", profile="gpu") == runs[1:2]
    assert find(runs, row="GUE") == []
    assert find(runs) == runs
    with pytest.raises(ValueError, match="field: got 'method', expected one of 'table', 'row'"):
        find([], method="EM")


def test_a_pivot_has_one_record_in_a_cell():
    runs = [replace(RUN, row=row, column=column) for row, column in (("EM", "2-NN"), ("AP", "3-NN"), ("EM", "3-NN"))]
    table = pivot(runs)
    assert table == {"EM": {"2-NN": runs[0], "3-NN": runs[2]}, "AP": {"3-NN": runs[1]}}
    assert list(table) == ["EM", "AP"]
    with pytest.raises(ValueError, match="records: got two of row 'EM' and column '2-NN', expected one"):
        pivot([*runs, replace(runs[0], profile="cpu")])


def test_groups_stand_beside_each_other_by_row():
    here = [replace(RUN, row=row, profile="cpu") for row in ("EM", "OPS")]
    theirs = [replace(RUN, row=row, source="Somebody (2020)") for row in ("AP", "EM")]
    table = beside({"here": here, "on a GPU": [], "published": theirs})
    assert table == {
        "EM": {"here": here[0], "on a GPU": None, "published": theirs[1]},
        "OPS": {"here": here[1], "on a GPU": None, "published": None},
        "AP": {"here": None, "on a GPU": None, "published": theirs[0]},
    }
    assert list(table) == ["EM", "OPS", "AP"]
    with pytest.raises(ValueError, match=r"groups\['here'\]: got two records of row 'EM', expected one"):
        beside({"here": [*here, here[0]]})


def test_provenance_makes_a_record(tmp_path):
    about = provenance("cpu")
    record = Record(**{key: value for key, value in CASE.items() if key not in about} | about)
    assert read(write(record, tmp_path)) == [record]
    assert record.hardware["torch"] == torch.__version__
    assert record.hardware["device"] == "cpu" and "gpu" not in record.hardware
    assert hardware(torch.device("cpu")) == record.hardware


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands in for nvidia-smi")
@pytest.mark.parametrize(
    ("script", "driver"),
    [("echo 570.86.15; echo 570.86.15", "570.86.15"), ("exit 9", "unknown"), ("true", "unknown"), (None, "unknown")],
)
def test_the_driver_is_what_nvidia_smi_says(tmp_path, monkeypatch, script, driver):
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU, {device}")
    about = hardware("cuda:1")
    assert (about["gpu"], about["driver"]) == ("a GPU, cuda:1", driver)


def test_published_numbers_are_complete():
    # Counted in the papers' tables: rows times columns, less what was not measured there.
    assert Counter((record.source.split(" and ")[0], record.table) for record in published()) == {
        ("Zhu, Miao, Dong", "methods"): 11 + 8 + 8,
        ("Zhu, Miao, Dong", "information"): 10,
        ("Zhu, Miao, Dong", "transfer"): 6 * 8,
        ("Zhu, Miao, Dong", "adversarial"): 6 * 5,
        ("Zhu, Miao, Dong", "ablation"): 3 * 3,
        ("Zhu, Miao, Dong", "mine"): 2,
        ("Qin, Gao, Zhao, Ye", "defenses"): 7 * 10,
        ("Liu, Zhao", "defenses"): 8 * 3,
        ("Liu, Chen", "methods"): 1,
    }
    assert all(record.source and not record.seeds and record.sd(*record.numbers) is None for record in published())
    for paper in {record.source for record in published()}:
        tables = {(record.table, record.data) for record in published(paper)}
        for table, data in tables:
            pivot(find(published(paper), table=table, data=data))  # no cell twice


@pytest.mark.parametrize(
    ("title", "table", "row", "column", "data", "number"),
    [
        ("Mutual Information", "methods", "clean", "ResNet-18", "CIFAR-10", 0.9445),
        ("Mutual Information", "methods", "MI-UE", "ResNet-18", "CIFAR-100", 0.0117),
        ("Mutual Information", "methods", "TUE", "ResNet-18", "ImageNet subset", 0.0495),
        ("Mutual Information", "transfer", "AR", "LeNet-5", "CIFAR-10", 0.7333),
        ("Mutual Information", "adversarial", "REM", "AT-4", "CIFAR-10", 0.3945),
        ("Mutual Information", "adversarial", "EM", "none", "CIFAR-10", 0.2417),
        ("Mutual Information", "ablation", "MI-UE without the similarity term", "ResNet-18", "CIFAR-100", 0.2672),
        ("Mutual Information", "mine", "EM + MINE", "ResNet-18", "CIFAR-10", 0.1562),
        ("APBench", "defenses", "AP", "JPEG 10", "CIFAR-10", 0.8408),
        ("APBench", "defenses", "OPS", "grayscale", "CIFAR-10", 0.1988),
        ("Shortcut Squeezing", "defenses", "AP", "grayscale", "CIFAR-10", 0.0911),
        ("Perturbation-Induced", "methods", "PIL", "ResNet-18", "CIFAR-10", 0.1277),
    ],
)
def test_a_published_number_is_the_papers(title, table, row, column, data, number):
    (record,) = find(published(title), table=table, row=row, column=column, data=data)
    assert record.numbers == {"accuracy": (number,)}


def test_published_information_is_in_nats_and_of_a_histogram():
    table = pivot(find(published(), table="information"))
    assert table["MI-UE"]["ResNet-18"].mean("MI (nats)") == 0.4969
    assert all(record.settings == {"estimator": "histogram"} for row in table.values() for record in row.values())


def test_published_names_what_a_paper_calls_otherwise():
    called = find(published(), settings={"called": "TAP"})
    assert {(record.row, record.table) for record in called} == {("AP", "defenses")}
    assert called == find(published(), table="defenses", row="AP")


def test_an_unknown_paper_is_refused():
    with pytest.raises(ValueError, match="title: got 'Nobody', expected a part of one of: Zhu, Miao, Dong and Gao"):
        published("Nobody")


def test_the_wheel_holds_the_published_numbers(tmp_path):
    flit = pytest.importorskip("flit_core.wheel")
    root = Path(__file__).parent.parent
    made = flit.make_wheel_in(root / "pyproject.toml", tmp_path)
    with zipfile.ZipFile(made.file) as wheel:
        assert wheel.read("miue_lib/published.json") == (root / "miue_lib" / "published.json").read_bytes()
