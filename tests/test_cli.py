"""The command line: what it writes and says, how it ends, and that it refuses before it works."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import miue_lib as mi
from miue_lib import results
from miue_lib.cli import main
from miue_lib.models import load_model, save_model

QUICK = ["surrogate=small_resnet", "epochs=3", "steps=2", "step=4/255", "batch_size=32", "crop=1", "fresh_every=null"]
VICTIM = ["batch_size=32", "learning_rate=0.1", "crop=1", "flip=false"]


@pytest.fixture(scope="session")
def folder(easy: tuple[mi.ImageSet, mi.ImageSet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The easy pictures as anyone keeps theirs: `part/class/picture.png`."""
    path = tmp_path_factory.mktemp("pictures")
    for part, images in zip(("train", "test"), easy, strict=True):
        for i, (picture, label) in enumerate(zip(images.images, images.labels.tolist(), strict=True)):
            (path / part / "abc"[label]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture[0].numpy()).save(path / part / "abc"[label] / f"{i:03}.png")
    return path


@pytest.fixture(scope="session")
def data(folder: Path) -> list[str]:
    return ["--data", f"folder:{folder}", "--size", "12", "--device", "cpu"]


@pytest.fixture(scope="session")
def train(folder: Path) -> mi.ImageSet:
    return mi.load(f"folder:{folder}", size=12, device="cpu")[0]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `craft` is called with."""
    seen: list[dict[str, Any]] = []

    def craft(method: str, images: mi.ImageSet, **settings: Any) -> mi.Perturbation:
        seen.append(settings | {"method": method})
        return mi.craft(method, images, **settings)

    monkeypatch.setattr("miue_lib.cli.craft", craft)
    return seen


def ends(arguments: list[Any]) -> int:
    """The exit code, whoever gives it: `main`, or the parser."""
    try:
        return main([str(word) for word in arguments])
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code


def rows(text: str) -> dict[str, str]:
    return {name.strip(): value.strip() for name, _, value in (line.partition("  ") for line in text.splitlines())}


# Done


def test_craft_train_and_mi_follow_each_other(
    data: list[str],
    train: mi.ImageSet,
    calls: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, weights = tmp_path / "noise.safetensors", tmp_path / "victim.safetensors"
    craft = ["craft", *data, "--method", "miue", "--out", out, "--profile", "cpu", "--epsilon", "16/255", "--seed", 5]
    assert ends([*craft, "--set", *QUICK]) == 0
    said = capsys.readouterr()
    noise = mi.Perturbation.load(out)
    wanted = mi.profile("cpu").noise["miue"] | {"epochs": 3, "steps": 2, "step": 4 / 255, "batch_size": 32, "crop": 1}
    wanted |= {"fresh_every": None, "epsilon": 16 / 255, "seed": 5}  # what is said goes before the profile
    assert {name: noise.settings[name] for name in wanted} == wanted
    assert torch.equal(noise.levels, mi.craft("miue", train, **wanted).levels)
    table = rows(said.out)
    assert table["method"] == "miue"
    assert table["pictures"].startswith("192 of 3×12×12")
    assert table["ε"].startswith("16/255 = 0.0627")
    assert table["L∞"] == f"{round(255 * noise.linf)} of 255 levels"
    assert table["PSNR"] == f"{mi.visibility(train, noise).summary['psnr']:.1f} dB"
    assert {"L2", "SSIM"} <= table.keys()
    assert table["noise"] == str(out)
    assert table["next"].endswith(
        f"train --data {data[1]} --size 12 --profile cpu --noise {out} --out victim.safetensors"
    )
    assert float(table["seconds"]) >= 0
    # The median round: each has 6 batches of 32 and 2 noise steps on 192 pictures.
    rounds = sorted(b - a for a, b in zip([0.0, *noise.curves["seconds"]], noise.curves["seconds"], strict=False))
    assert table["images/s"].startswith(f"{(6 * 32 + 2 * 192) / rounds[1]:,.0f},")
    assert [line.split(":")[0] for line in said.err.splitlines()] == [f"miue round {i}/3" for i in (1, 2, 3)]

    assert ends(["train", *data, "--noise", out, "--out", weights, "--epochs", 2, "--set", *VICTIM]) == 0
    said = capsys.readouterr()
    table, victim = rows(said.out), load_model(weights, device="cpu")
    published = train.with_(noise)
    _, test = mi.load(data[1], size=12, device="cpu")
    for row, images, n in (("test", test, 96), ("train", published, 192)):
        p = mi.accuracy(victim, images)
        assert table[row].startswith(f"{p:.4f} ± {(p * (1 - p) / n) ** 0.5:.4f} of {n} ")
    assert table["victim"].startswith("small_resnet, 2 epochs on")
    assert len(said.err.splitlines()) == 2

    measure = ["mi", *data, "--noise", out, "--victim", weights, "--estimator", "histogram", "--slices", 20]
    assert ends(measure) == 0
    table = rows(capsys.readouterr().out)
    found = mi.mutual_information(
        mi.features(victim, train), mi.features(victim, published), estimator="histogram", slices=20
    )
    assert table["I(g(x); g(x'))"] == f"{found.value:.4f} ± {found.stderr:.4f} nats"
    assert table["shuffled"].startswith(f"{found.baseline:.4f} ± {found.baseline_stderr:.4f} nats")
    assert table["ceiling"].startswith(f"{found.ceiling:.4f} nats")
    assert ends([*measure, "--on", "test"]) == 2  # for which no noise was made
    assert "noise made for other pictures" in capsys.readouterr().err


def test_without_noise_a_victim_learns_from_clean_pictures(
    data: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert ends(["train", *data, "--epochs", 4, "--set", *VICTIM]) == 0
    table = rows(capsys.readouterr().out)
    assert float(table["test"].split()[0]) > 0.9
    assert "weights" not in table
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_is_passed_on_and_lives_until_the_noise_is_safe(
    data: list[str],
    calls: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, beside, delta = tmp_path / "noise.safetensors", tmp_path / "noise.checkpoint", tmp_path / "delta"
    command = ["craft", *data, "--method", "em", "--out", out, "--set", *QUICK[:4], "epochs=1"]

    def disk_full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("miue_lib.perturbation.save_file", disk_full)
        assert ends(command) == 1
    assert [path.name for path in tmp_path.iterdir()] == [beside.name]
    said = capsys.readouterr()
    assert not said.out
    assert f"{beside} is kept: --resume goes on from there" in said.err
    assert said.err.splitlines()[-1] == "miue_lib: error: [Errno 28] No space left on device"

    assert ends(command) == 2  # what took hours is not written over for the lack of a word
    assert "noise.checkpoint', which exists, expected --resume to go on from it, or --force" in capsys.readouterr().err
    assert len(calls) == 1

    assert ends([*command, "--resume", "--checkpoint-minutes", "0.5"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert ends([*command, "--resume", "--force", "--checkpoint-minutes", "0.5", "--delta-file", delta]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    named = {name: calls[-1][name] for name in ("checkpoint", "checkpoint_minutes", "resume", "delta_file")}
    assert named == {"checkpoint": beside, "checkpoint_minutes": 0.5, "resume": True, "delta_file": delta}

    assert ends([*command, "--force", "--no-checkpoint"]) == 0
    assert not {"checkpoint", "checkpoint_minutes", "resume"} & calls[-1].keys()
    assert ends([*command, "--force", "--checkpoint", tmp_path / "other"]) == 0
    assert (calls[-1]["checkpoint"], calls[-1]["resume"]) == (tmp_path / "other", False)


def test_random_noise_has_nothing_to_resume(data: list[str], calls: list[dict[str, Any]], tmp_path: Path) -> None:
    command = ["craft", *data, "--method", "random", "--out", tmp_path / "noise"]
    assert ends([*command, "--resume", "--delta-file", tmp_path / "delta"]) == 0
    assert calls == [{"method": "random", "epsilon": 8 / 255, "seed": 0}]
    assert [path.name for path in tmp_path.iterdir()] == ["noise"]


def test_methods_of_another_norm_have_no_epsilon(
    data: list[str], calls: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["craft", *data, "--method", "cuda_conv", "--out", tmp_path / "noise", "--set", "size=3"]
    assert ends([*command, "--epsilon", "4/255"]) == 2
    assert "--epsilon: got 0.0156863, expected none: cuda_conv is not bounded" in capsys.readouterr().err
    assert ends(command) == 0
    assert calls == [{"method": "cuda_conv", "blur": 0.3, "size": 3, "seed": 0}]
    assert "ε" not in rows(capsys.readouterr().out)


def test_progress_is_one_line_where_someone_watches(
    data: list[str],
    calls: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    assert ends(["craft", *data, "--method", "em", "--out", tmp_path / "noise", "--set", *QUICK[:4]]) == 0
    said = capsys.readouterr().err
    parts = said.rstrip("\n").split("\r")
    assert [part[:12] for part in parts] == ["", "em round 1/3", "em round 2/3", "em round 3/3"]
    assert all(len(part) <= 39 for part in parts)
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", ["", "craft", "train", "mi"])
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends([*command.split(), "--help"]) == 0
    said = capsys.readouterr().out
    assert f"python -m miue_lib {command or 'craft'}" in said.partition("example")[2]
    for code in (0, 1, 2, 130, 143):
        assert f"\n  {code:<5}" in said.partition("exit codes:")[2]
    if command in ("craft", "train"):
        assert "epochs=100" in said
        assert "epochs=" + {"craft": "27", "train": "12"}[command] in said


# Not done


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (FloatingPointError("the objective became nan"), 1, "the objective became nan"),
        (RuntimeError("CUDA out of memory.\nTried to"), 1, "CUDA out of memory. Tried to"),
        (OSError("mirror is gone"), 1, "mirror is gone"),
        (MemoryError(), 1, "MemoryError"),
        (ValueError("step: got 3"), 2, "step: got 3"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_how_it_failed_is_one_line_and_an_exit_code(
    error: BaseException,
    code: int,
    words: str,
    data: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def craft(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("miue_lib.cli.craft", craft)
    command = ["craft", *data, "--method", "miue", "--out", tmp_path / "noise"]
    assert ends(command) == code
    assert capsys.readouterr() == ("", f"miue_lib: error: {words}\n")
    assert ends([*command, "--traceback"]) == code
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last)")
    assert said.endswith(f"miue_lib: error: {words}\n")


def test_sigterm_ends_it_in_order(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def craft(*_: Any, checkpoint: Path, **__: Any) -> None:
        checkpoint.touch()
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("it went on")

    monkeypatch.setattr("miue_lib.cli.craft", craft)
    before = signal.getsignal(signal.SIGTERM)
    assert ends(["craft", *data, "--method", "miue", "--out", tmp_path / "noise"]) == 143
    assert "noise.checkpoint is kept: --resume" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_bug_is_not_caught(data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("miue_lib.cli.load", lambda *_, **__: {}["missing"])
    with pytest.raises(KeyError):
        main(["craft", *data, "--method", "random", "--out", str(tmp_path / "noise")])


def test_warnings_are_one_line(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*_: Any, **__: Any) -> None:
        warnings.warn("left out 1 unreadable of 2 files", stacklevel=2)
        raise ValueError("nothing left")

    monkeypatch.setattr("miue_lib.cli.load", load)
    assert ends(["craft", *data, "--method", "random", "--out", tmp_path / "noise"]) == 2
    wanted = "miue_lib: warning: left out 1 unreadable of 2 files\nmiue_lib: error: nothing left\n"
    assert capsys.readouterr().err == wanted


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--method", "magic"], "argument --method: invalid choice: 'magic'"),
        (["--epsilon", "8/0"], "argument --epsilon: got '8/0', expected a number such as 8/255 or 0.03"),
        (["--epsilon", "eight"], "argument --epsilon: got 'eight', expected a number such as"),
        (["--epsilon", "8"], "epsilon: got 8.0, expected a number in (0, 1]"),
        (["--epsilon", "nan"], "epsilon: got nan, expected a number in (0, 1]"),
        (["--set", "budget=3"], "--set: got 'budget', expected one of step, steps, epochs"),
        (["--set", "epsilon=0.1"], "--set: got 'epsilon', expected one of step, steps, epochs"),
        (["--set", "steps"], "argument --set: got 'steps', expected NAME=VALUE"),
        (["--set", "step=1/0"], "argument --set: got '1/0', expected a number"),
        (["--set", "steps=2.5"], "steps: got 2.5, expected a whole number >= 1"),
        (["--set", "flip=no"], "flip: got 'no', expected True or False"),
        (["--set", "surrogate=vgg"], "model: got 'vgg', expected one of 'linear', '2nn', "),
        (["--method", "random"], "--set: got 'surrogate', expected none: random has no such settings"),
        (["--seed", "-1"], "seed: got -1, expected a whole number >= 0"),
        (["--device", "tpu"], "argument --device: got 'tpu'"),
        (["--device", "cuda:99"], "argument --device: got 'cuda:99'"),
        (["--data", "imagenet"], "name: got 'imagenet', expected one of 'fashion-mnist-mini'"),
        (["--data", "folder:nowhere"], "name: got 'folder:nowhere', expected the path of a folder that exists"),
        (["--root", "x"], "root: got 'x', expected no root"),
        (["--out", "missing/noise"], "--out: got 'missing/noise', expected a file in a folder that exists"),
        (["--out", "taken"], "--out: got 'taken', which exists, expected another name, or --force to write over it"),
        (["--out", "."], "--out: got '.', expected a file in a folder that exists"),
        (["--checkpoint", "missing/x"], "--checkpoint: got 'missing/x', expected a file in a folder that exists"),
        (["--delta-file", "missing/x"], "--delta-file: got 'missing/x', expected a file in a folder that exists"),
        (["--checkpoint", "noise"], "expected a file of its own for each"),
        (["--no-checkpoint", "--checkpoint", "x"], "argument --checkpoint: not allowed with argument --no-checkpoint"),
        (["--no-checkpoint", "--resume"], "--resume: got --no-checkpoint with it, expected one of the two"),
    ],
)
def test_what_craft_cannot_use_is_refused(
    more: list[str],
    words: str,
    data: list[str],
    calls: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").touch()
    assert ends(["craft", *data, "--method", "miue", "--out", "noise", "--set", *QUICK, *more]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert not said.out
    assert "Traceback" not in said.err
    assert not Path("noise").exists()


def test_a_folder_that_cannot_be_written_into_is_found_out_before_the_work(
    data: list[str],
    calls: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def read_only(**_: Any) -> None:  # a mode would not stop a test that runs as root
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    assert ends(["craft", *data, "--method", "random", "--out", tmp_path / "noise"]) == 2
    assert "([Errno 13] Permission denied), expected a file in a folder that can" in capsys.readouterr().err
    assert not calls


def test_a_noise_or_victim_that_does_not_fit_is_an_error_not_clean_training(
    data: list[str],
    train: mi.ImageSet,
    tiny: mi.ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    mi.craft("random", tiny).save("others")
    mi.craft("random", train).save("noise")
    Path("half").write_bytes(Path("noise").read_bytes()[:1000])
    save_model(mi.build("small_resnet", tiny), "grey")
    monkeypatch.setattr("miue_lib.cli.build", lambda *_, **__: pytest.fail("it trained"))
    for arguments, words in (
        (["train", "--noise", "nowhere"], "path: got 'nowhere', expected a file written by Perturbation.save"),
        (["train", "--noise", "half"], "expected a whole file written by Perturbation.save"),
        (["train", "--noise", "others"], "perturbation: got noise made for other pictures"),
        (["train", "--model", "vgg"], "argument --model: invalid choice: 'vgg'"),
        (["train", "--out", "missing/victim"], "--out: got 'missing/victim', expected a file in a folder that exists"),
        (["train", "--out", "noise"], "--out: got 'noise', which exists"),
        (["train", "--set", "step=1"], "--set: got 'step', expected one of epochs, batch_size"),
        (
            ["mi", "--noise", "noise", "--victim", "nowhere"],
            "path: got 'nowhere', expected a file written by save_model",
        ),
        (["mi", "--noise", "noise", "--victim", "noise"], "expected format 'miue_lib.model/1'"),
        (["mi", "--noise", "others", "--victim", "grey"], "perturbation: got noise made for other pictures"),
        (["mi", "--noise", "noise", "--victim", "grey"], "--victim: got a model for pictures of 1×12×12, expected one"),
    ):
        assert ends([arguments[0], *data, *arguments[1:]]) == 2
        said = capsys.readouterr()
        assert words in said.err
        assert not said.out


# Processes


def test_two_processes_share_a_craft_and_one_of_them_speaks(data: list[str], folder: Path, tmp_path: Path) -> None:
    """The real program, as torchrun starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "miue_lib", "craft", *data, "--method", "random", "--out", str(tmp_path / "noise")]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            command,
            env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank, "PYTHONIOENCODING": "ascii"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    try:
        (first, errors), (second, _) = (rank.communicate(timeout=60) for rank in ranks)
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    assert rows(first)["L\\u221e"] == "8 of 255 levels"  # a terminal that has no ∞
    assert second == ""
    assert mi.Perturbation.load(tmp_path / "noise").method == "random"


def test_only_craft_runs_in_several_processes(
    data: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert ends(["train", *data]) == 2
    assert (
        "train under torchrun: got 2 processes, expected one: only craft and protect share their work"
        in capsys.readouterr().err
    )


# Evaluating


def evaluation(data: list[str], folder: Path, *more: object) -> list[object]:
    command = ["evaluate", "--suite", "paper", *data, "--profile", "cpu", "--tables", "ablation", "--name", "bands"]
    return [*command, "--out", folder / "out", "--work", folder / "work", *more]


def test_a_table_is_recorded_listed_and_not_run_again(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also after a kill that nothing can answer: what was recorded stays, and the end is that of a run never killed."""
    assert ends(evaluation(data, tmp_path, "--list")) == 0
    assert rows(capsys.readouterr().out)["recorded"].startswith("0 of 9 runs of 3 cases")
    assert not (tmp_path / "out").exists()

    command = [sys.executable, "-m", "miue_lib", *map(str, evaluation(data, tmp_path))]
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    killed = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **quiet)
    try:
        end = time.monotonic() + 60
        while not list((tmp_path / "out").rglob("*.json")) and time.monotonic() < end:
            time.sleep(0.05)
    finally:
        killed.kill()
        killed.wait()
    assert 0 < len(list((tmp_path / "out").rglob("*.json"))) <= 3
    results.read(tmp_path / "out")

    assert ends(evaluation(data, tmp_path)) == 0
    said = capsys.readouterr()
    assert rows(said.out)["recorded"].startswith("9 of 9 runs of 3 cases")
    assert "0 of 9 runs are recorded" not in said.out
    records = {record.row: record for record in results.read(tmp_path / "out")}
    assert len(records) == 3
    assert {(r.seeds, r.data, r.profile, r.table) for r in records.values()} == {
        ((0, 1, 2), "bands", "cpu", "ablation")
    }

    assert ends(evaluation(data, tmp_path / "never killed")) == 0
    capsys.readouterr()
    for record in results.read(tmp_path / "never killed" / "out"):
        assert record.numbers["accuracy"] == records[record.row].numbers["accuracy"]

    assert ends(evaluation(data, tmp_path)) == 0
    assert "9 of 9 runs are recorded" in capsys.readouterr().out
    assert ends([*evaluation(data, tmp_path / "in no time"), "--minutes", 0]) == 3
    assert rows(capsys.readouterr().out)["left"].startswith("9 runs")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tables", "none"], "invalid choice: 'none'"),
        (["--minutes", "-1"], "--minutes: got -1.0, expected a finite number >= 0"),
        (["--minutes", "soon"], "got 'soon', expected a number"),
        (["--out", __file__], "expected a folder, or a path where one can be made"),
        (["--pretrained", "none.safetensors"], "path: got 'none.safetensors', expected a file written by save_model"),
        (["--suite", "mine"], "invalid choice: 'mine'"),
        (["--name", " "], "--name: got ' ', expected what a reader is to see"),
        (["--work", f"{__file__}/work"], "--work: got "),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert ends(evaluation(data, tmp_path, *more)) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert not said.out
    assert not (tmp_path / "out").exists()


# Protecting


@pytest.fixture
def photos(folder: Path, tmp_path: Path) -> Path:
    """Some of the easy pictures, for which a method without networks is enough, and a file that is none."""
    path = tmp_path / "photos"
    for file in sorted((folder / "test").rglob("*.png"))[::4]:
        (path / file.parent.name).mkdir(parents=True, exist_ok=True)
        (path / file.parent.name / file.name).write_bytes(file.read_bytes())
    (path / "notes.txt").touch()
    return path


def test_protect_publishes_a_folder_and_says_what_it_did(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [
        "protect",
        "photos",
        "--out",
        "out",
        "--method",
        "random",
        "--no-report",
        "--budget",
        "5",
        "--size",
        "12",
    ]
    assert ends(command) == 0
    said = capsys.readouterr()
    table = rows(said.out)
    assert table["pictures"] == "24 in 3 classes"
    assert table["left out"] == "1, why is in the manifest"
    assert table["method"] == "random"
    assert table["L∞"].startswith("5 of 255 levels, at most 5")
    made = json.loads((tmp_path / "out" / "manifest.json").read_bytes())
    assert table["PSNR"] == f"{made['summary']['psnr']:.1f} dB"
    assert table["SSIM"] == f"{made['summary']['ssim']:.4f}"
    assert table["manifest"] == "out/manifest.json"
    assert not {"report", "private"} & {*table}
    assert said.err.splitlines()[0].startswith("reading 24/24 in ")
    assert made == mi.protect("photos", "other", method="random", budget=5, size=12, report=False)
    assert ends(command) == 0
    said = capsys.readouterr()
    assert rows(said.out) == table
    assert "is finished" in said.err
    assert ends([*command, "--seed", 1]) == 2
    assert "made with other settings (seed 0, here 1)" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_and_writes_nothing(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert ends(["protect", photos, "--out", tmp_path / "out", "--method", "random", "--no-report", "--dry-run"]) == 0
    table = rows(capsys.readouterr().out)
    assert sorted(tmp_path.rglob("*")) == before
    assert table["output"] == "new"
    assert table["pictures"].startswith("24 in 3 classes")
    assert [table[f"class {name}"] for name in "abc"] == ["8", "8", "8"]
    assert table["left out"].startswith("1; 24 files")
    assert "left out: notes.txt" in table
    assert {"size", "time", "time, crafting", "time, publishing", "memory"} < table.keys()


def test_a_report_says_its_verdict_in_the_table(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = {"pictures": 2000, "left_out": 0, "linf": 8, "psnr": None, "ssim": None}
    made = {
        "summary": summary,
        "classes": ["a", "b"],
        "settings": {"title": "MI-UE", "budget": 8},
        "verdict": {"sentences": ["One.", "Two."]},
    }
    monkeypatch.setattr("miue_lib.cli.protect", lambda *_, **__: made)
    assert ends(["protect", photos, "--out", tmp_path / "out"]) == 0
    table = rows(capsys.readouterr().out)
    assert (table["pictures"], table["left out"]) == ("2,000 in 2 classes", "0")
    assert (table["verdict 1"], table["verdict 2"]) == ("One.", "Two.")
    assert table["report"] == str(tmp_path / "out" / "report.html")
    assert table["private"].startswith("report.html shows some pictures as they were")
    assert "PSNR" not in table


def test_names_do_nothing_to_a_terminal(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "\x1b[2Jclear\nrow.txt").touch()
    (photos / "a" / "turned\u202e.png").write_bytes(b"no picture")
    for more in (["--dry-run"], []):
        command = ["protect", photos, "--out", tmp_path / "\x1bout", "--method", "random", "--no-report", *more]
        assert ends(command) == 0
        said = capsys.readouterr()
        assert not {"\x1b", "\u202e"} & {*said.out, *said.err}
        assert r"\x1b" in said.out
        if more:
            assert r"left out: \x1b[2Jclear\nrow.txt" in said.out
            assert r"left out: a/turned\u202e.png" in said.out
    assert ends(command) == 0
    assert r"\x1bout is finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--out", "photos/out"], 2, "out: got 'photos/out', expected a folder neither in 'photos' nor around it"),
        (["--out", "."], 2, "out: got '.', expected a folder neither in 'photos' nor around it"),
        (["--out", "full"], 2, "in which there is 'mine', expected a new or empty folder"),
        (["--budget", "0"], 2, "budget: got 0, expected a whole number from 1 to 255"),
        (["--budget", "8/255"], 2, "argument --budget: invalid int value: '8/255'"),
        (["--method", "lsp", "--budget", "8"], 2, "budget: got 8, expected none: lsp is bounded in L2"),
        (["--set", "epochs=3"], 2, "--set: got 'epochs', expected none: random has no such settings"),
        (["--method", "miue", "--set", "epsilon=1"], 2, "--set: got 'epsilon', expected one of step, "),
        (["--seeds", "0"], 2, "seeds: got 0"),
        (["--data", "folder:x"], 2, "unrecognized arguments: --data"),
    ],
)
def test_what_protect_cannot_use_is_refused(
    more: list[str],
    code: int,
    words: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/mine").touch()
    before = sorted(tmp_path.rglob("*"))
    assert ends(["protect", "photos", "--out", "out", "--method", "random", "--no-report", *more]) == code
    said = capsys.readouterr()
    assert words in said.err
    assert not said.out
    assert sorted(tmp_path.rglob("*")) == before
