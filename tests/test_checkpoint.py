"""A run that was stopped, killed or refused: it goes on to the same noise, or says why not, and nothing is lost."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import miue_lib as mi
from miue_lib.noise import checkpoint as checkpoints
from miue_lib.noise.bilevel import Crafting

Bands = tuple[mi.ImageSet, mi.ImageSet]
COMMON: dict[str, Any] = {"surrogate": "small_resnet", "epochs": 4, "steps": 2, "step": 3.3 / 255, "batch_size": 32,
                          "noise_batch_size": 48, "crop": 1, "flip": True}  # fmt: skip
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "miue": ("miue", COMMON),
    "miue in several lives": ("miue", COMMON | {"fresh_every": 3, "step_decay": True, "schedule": "one-cycle"}),
    "em": ("em", COMMON | {"model_batches": 4, "until_accuracy": 0.9, "learning_rate": 0.02}),
}


class Stopped(Exception):
    pass


def stop_after(monkeypatch: pytest.MonkeyPatch, ticks: int) -> None:
    """From now on the process 'dies' at the start of that tick."""
    advance = Crafting.advance

    def limited(self: Crafting) -> None:
        if self.tick >= ticks:
            raise Stopped
        advance(self)

    monkeypatch.setattr(Crafting, "advance", limited)


@pytest.fixture(scope="module")
def uninterrupted(easy: Bands) -> dict[str, mi.Perturbation]:
    return {run: mi.craft(method, easy[0], **settings) for run, (method, settings) in RUNS.items()}


@pytest.mark.parametrize(
    ("run", "ticks"),
    [
        *(("miue", ticks) for ticks in (1, 6, 7, 10, 11, 39)),
        *(("miue in several lives", ticks) for ticks in (23, 29, 30, 31, 37)),
        *(("em", ticks) for ticks in (3, 4, 8, 13)),
    ],
)
def test_going_on_gives_the_same_noise_bit_for_bit(
    easy: Bands,
    uninterrupted: dict[str, mi.Perturbation],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: str,
    ticks: int,
) -> None:
    """A round of miue is 6 + 4 ticks, of em 4 + 4: stops in each phase, between phases, rounds and lives (3 rounds)."""
    method, settings = RUNS[run]
    train, _ = easy
    wanted = uninterrupted[run]
    keep: dict[str, Any] = {"checkpoint": tmp_path / "state", "checkpoint_minutes": 0}
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        stop_after(patched, ticks)
        mi.craft(method, train, **settings, **keep)
    torch.randn(7)  # whatever else the next process drew before
    resumed = mi.craft(method, train, **settings, **keep, resume=True)
    assert torch.equal(resumed.levels, wanted.levels)
    assert resumed.settings == wanted.settings
    for name in ("loss", "train_accuracy", "objective"):
        assert resumed.curves[name] == wanted.curves[name]
    again = mi.craft(method, train, **settings, **keep, resume=True)
    assert torch.equal(again.levels, wanted.levels), "the checkpoint of a finished run gives its result"


def test_a_surrogate_that_draws_at_random_goes_on_as_well(
    easy: Bands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(144, 16), nn.Dropout(0.5))
            self.head = nn.Linear(16, 3)

        def features(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.features(x))

    torch.manual_seed(0)
    settings = COMMON | {"surrogate": Dropping()}
    torch.manual_seed(1)
    uninterrupted = mi.craft("miue", easy[0], **settings)
    keep: dict[str, Any] = {"checkpoint": tmp_path / "state", "checkpoint_minutes": 0}
    torch.manual_seed(1)
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        stop_after(patched, 13)
        mi.craft("miue", easy[0], **settings, **keep)
    torch.manual_seed(2)
    assert torch.equal(mi.craft("miue", easy[0], **settings, **keep, resume=True).levels, uninterrupted.levels)


def test_a_file_for_the_noise_changes_it_by_no_more_than_its_rounding(easy: Bands, tmp_path: Path) -> None:
    train, _ = easy
    settings = COMMON | {"epochs": 1}
    there = mi.craft("miue", train, **settings, delta_file=tmp_path / "delta")
    here = mi.craft("miue", train, **settings)
    # One round writes each δ once, to within half of ε/127 = 0.063/255: levels differ only where rounding turns.
    assert there.levels.dtype == torch.int8
    assert (there.levels.int() - here.levels.int()).abs().max() <= 1
    assert float((there.levels != here.levels).float().mean()) < 0.1
    assert (tmp_path / "delta").stat().st_size == train.images.numel()
    there.save(tmp_path / "noise")
    assert torch.equal(mi.Perturbation.load(tmp_path / "noise").levels, there.levels)


def test_small_steps_add_up_in_a_file(easy: Bands, tmp_path: Path) -> None:
    """A step of 0.2/255 in 8 bits of whole levels would be rounded away each time; in units of ε/127 it is not."""
    settings = COMMON | {"epochs": 12, "steps": 1, "step": 0.2 / 255, "crop": 0, "flip": False}
    noise = mi.craft("miue", easy[0], **settings, delta_file=tmp_path / "delta")
    assert 1 / 255 <= noise.linf <= 12 * 0.2 / 255 + 0.5 / 255


def test_going_on_with_a_file(easy: Bands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, _ = easy
    uninterrupted = mi.craft("miue", train, **COMMON, delta_file=tmp_path / "one").levels.clone()
    keep: dict[str, Any] = {"checkpoint": tmp_path / "state", "checkpoint_minutes": 0, "delta_file": tmp_path / "two"}
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        stop_after(patched, 17)
        mi.craft("miue", train, **COMMON, **keep)
    assert torch.equal(mi.craft("miue", train, **COMMON, **keep, resume=True).levels, uninterrupted)


PROGRAM = """
import signal
import sys
import torch
import miue_lib as mi

torch.set_num_threads(1)
pictures = torch.randint(0, 256, (192, 1, 12, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
train = mi.ImageSet(pictures, torch.arange(192) % 3)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background would have it ignored
print("ready", flush=True)
noise = mi.craft("miue", train, surrogate="small_resnet", epochs=int(sys.argv[2]), steps=2, batch_size=32,
                 noise_batch_size=48, checkpoint=sys.argv[1], checkpoint_minutes=float(sys.argv[3]), resume=True,
                 progress=lambda line: print(line, flush=True))
noise.save(sys.argv[1] + ".noise")
"""


def start(checkpoint: Path, epochs: int, minutes: float) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(checkpoint), str(epochs), str(minutes)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(mi.__file__).parents[1],
    )


def result(checkpoint: Path) -> torch.Tensor:
    return mi.Perturbation.load(f"{checkpoint}.noise").levels


def test_killed_at_a_random_moment_it_goes_on_to_the_same_noise(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole", 8, 1000)
    assert whole.wait(120) == 0
    seed = time.time_ns()
    dice = random.Random(seed)  # any moment must do
    for _ in range(2):
        killed = start(tmp_path / "killed", 8, 0)
        assert killed.stdout is not None
        assert "ready" in killed.stdout.readline()
        time.sleep(dice.uniform(0, 1))
        killed.kill()
        killed.communicate()
    last = start(tmp_path / "killed", 8, 0)
    assert last.wait(120) == 0
    assert torch.equal(result(tmp_path / "killed"), result(tmp_path / "whole")), f"seed {seed}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_first(tmp_path: Path, number: signal.Signals) -> None:
    stopped = start(tmp_path / "state", 10_000, 1000)
    assert stopped.stdout is not None
    while "round 2/" not in stopped.stdout.readline():
        assert stopped.poll() is None
    stopped.send_signal(number)
    _, errors = stopped.communicate(timeout=60)
    assert stopped.returncode == -number if number == signal.SIGTERM else stopped.returncode != 0, errors
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    with safe_open(tmp_path / "state", framework="pt") as file:
        assert '"tick": ' in file.metadata()["about"]


def test_signals_are_as_before_afterwards_and_untouched_without_a_checkpoint(easy: Bands, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    during: list[Any] = []

    def watch(line: str) -> None:
        during.append([signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)])

    quick = COMMON | {"epochs": 1}
    mi.craft("miue", easy[0], **quick, progress=watch)
    mi.craft("miue", easy[0], **quick, progress=watch, checkpoint=tmp_path / "state")
    assert during[0] == before
    assert during[1] != before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    done = []  # signals can be caught in the main thread only: elsewhere a checkpoint still works
    thread = threading.Thread(
        target=lambda: done.append(mi.craft("miue", easy[0], **quick, checkpoint=tmp_path / "other"))
    )
    thread.start()
    thread.join()
    assert done


@pytest.fixture
def written(easy: Bands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run that was stopped in its second round."""
    path = tmp_path / "state"
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        stop_after(patched, 13)
        mi.craft("miue", easy[0], **COMMON, checkpoint=path, checkpoint_minutes=0)
    return path


def test_a_checkpoint_of_another_run_is_refused_and_left_alone(easy: Bands, written: Path) -> None:
    content = written.read_bytes()
    train, _ = easy
    other = mi.ImageSet(train.images.flip(3), train.labels)
    for images, method, change, message in (
        (train, "miue", {"steps": 3}, r"checkpoint: got '.*state' of another run \(steps 2, here 3\), expected one"),
        (train, "miue", {"seed": 1, "crop": 0}, r"\(crop 1, here 0; seed 0, here 1\)"),
        (train, "em", {}, r"method 'miue', here 'em'"),
        (other, "miue", {}, r"\(pictures '[0-9a-f]{64}', here '[0-9a-f]{64}'\)"),
        (train, "miue", {"delta_file": written.parent / "delta"}, r"\(8 bits at rest False, here True\)"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            mi.craft(method, images, **COMMON | change, checkpoint=written, resume=True)
    with pytest.raises(ValueError, match=r"checkpoint: got '.*state', which is there, expected resume=True to go on"):
        mi.craft("miue", train, **COMMON, checkpoint=written)
    assert written.read_bytes() == content
    assert list(written.parent.iterdir()) == [written]


def test_a_damaged_checkpoint_is_refused(easy: Bands, written: Path) -> None:
    content = written.read_bytes()
    flipped = bytearray(content)
    flipped[-1000] ^= 1
    for damaged, message in (
        (content[: len(content) // 2], r"expected a whole checkpoint"),
        (b"", r"expected a whole checkpoint"),
        (b"not a checkpoint at all", r"expected a whole checkpoint"),
        (bytes(flipped), r"whose content has changed since it was written, expected a whole checkpoint"),
    ):
        written.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"checkpoint: got '.*state'.*{message}"):
            mi.craft("miue", easy[0], **COMMON, checkpoint=written, resume=True)
    save_file({"x": torch.ones(1)}, written)
    with pytest.raises(
        ValueError, match=r"checkpoint: got '.*state' of format None, expected format 'miue_lib.checkpoint/1'"
    ):
        mi.craft("miue", easy[0], **COMMON, checkpoint=written, resume=True)


FULL = PROGRAM.replace("import sys\n", "import resource, signal, sys, warnings\n", 1).replace(
    'print("ready", flush=True)\n',
    """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing past the limit is an error, as on a full disk
sizes = iter([2**30, 20_000])
from miue_lib.noise import checkpoint
write = checkpoint.Keeper._write
def limited(self, path, state):
    resource.setrlimit(resource.RLIMIT_FSIZE, (next(sizes, 20_000), 2**30))
    try:
        return write(self, path, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))
checkpoint.Keeper._write = limited
warnings.simplefilter("always")
""",
)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file size are POSIX")
def test_a_full_disk_is_a_warning_and_the_last_checkpoint_is_intact(tmp_path: Path) -> None:
    path = tmp_path / "state"
    command = [sys.executable, "-c", FULL, str(path), "2", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=Path(mi.__file__).parents[1], check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"checkpoint: '{path}' could not be written" in done.stderr
    assert "what it held before is intact" in done.stderr
    tick = '"tick": 1,'  # the first was written, all others failed
    with safe_open(path, framework="pt") as file:
        assert tick in file.metadata()["about"]
        assert file.get_tensor("delta").shape == (192, 1, 12, 12)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state", "state.noise"], "nothing half-written is left"


def test_a_full_disk_when_stopping_is_an_error(easy: Bands, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = written.read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    monkeypatch.setattr(checkpoints.Keeper, "wanted", lambda self: int(signal.SIGTERM))
    with pytest.raises(OSError, match=r"checkpoint: '.*state' could not be written \(.*No space left on device\)"):
        mi.craft("miue", easy[0], **COMMON, checkpoint=written, resume=True)
    assert written.read_bytes() == content


def test_no_room_for_the_noise_is_said_before_anything_is_done(
    easy: Bands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"delta_file: no room for the 27,648 bytes of '.*delta' \(.*No space left"):
        mi.craft("miue", easy[0], **COMMON, delta_file=tmp_path / "delta")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["objective", "surrogate's loss"])
def test_a_loss_that_is_not_finite_ends_the_run_with_the_last_good_state_kept(
    easy: Bands, written: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    content = written.read_bytes()
    if where == "objective":
        gradient = Crafting._gradient
        calls = iter(range(100))

        def broken(self: Crafting, *args: Any) -> tuple[torch.Tensor, torch.Tensor]:
            moved, value = gradient(self, *args)
            return moved, value * (float("nan") if next(calls) == 5 else 1)  # third batch, second step

        monkeypatch.setattr(Crafting, "_gradient", broken)
        message = r"miue: the objective became nan in round 2, batch 3, step 2; a smaller learning_rate may help"
    else:
        step = mi.train.Descent.step

        def broken_step(self: Any, *args: Any) -> tuple[torch.Tensor, torch.Tensor]:
            loss, hits = step(self, *args)
            return loss * float("inf"), hits

        monkeypatch.setattr(mi.train.Descent, "step", broken_step)
        message = r"miue: the surrogate's loss became inf in round 2, batch 4"
    for minutes in (1000, 0):  # met at the end of the round; met when it is to be saved
        written.write_bytes(content)
        calls = iter(range(100))
        with pytest.raises(FloatingPointError, match=message):
            mi.craft("miue", easy[0], **COMMON, checkpoint=written, resume=True, checkpoint_minutes=minutes)
        with safe_open(written, framework="pt") as file:
            for name in ("losses", "objectives"):
                assert torch.isfinite(file.get_tensor(name)).all()


def test_a_gradient_that_is_not_finite_is_met_as_well(easy: Bands, monkeypatch: pytest.MonkeyPatch) -> None:
    """√ at 0 has a finite value and no finite slope: its sign would move nothing, in silence."""
    method = mi.METHODS["miue"].run
    monkeypatch.setattr(
        "miue_lib.kernels.similarity.unchecked",
        lambda g, *rest: g.sum() * 0 + (g.sum() * 0).abs().sqrt() * 0,
    )
    with pytest.raises(FloatingPointError, match="the objective became nan in round 1, batch 1, step 1"):
        method(easy[0], **COMMON)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resume": True}, "resume: got True, expected a checkpoint to continue from"),
        ({"resume": "yes", "checkpoint": "state"}, "resume: got 'yes', expected True or False"),
        ({"checkpoint": "nowhere/state"}, "checkpoint: got 'nowhere/state', expected a file in a folder that exists"),
        ({"checkpoint": "."}, "checkpoint: got '.', expected a file in a folder that exists"),
        ({"checkpoint_minutes": -1}, "checkpoint_minutes: got -1, expected a finite number >= 0"),
        ({"delta_file": "nowhere/delta"}, "delta_file: got 'nowhere/delta', expected a file in a folder that exists"),
        ({"device": "gpu"}, "device: got .gpu., expected a device of torch"),
        ({"delta_file": "there"}, "delta_file: got 'there', expected a path where nothing is yet"),
    ],
)
def test_bad_options_are_refused(
    easy: Bands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").write_text("something dear")
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message):
        mi.craft("miue", easy[0], **COMMON, **options)
    assert Path("there").read_text() == "something dear"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there"]


def test_in_half_precision_the_scale_goes_on_as_well(
    easy: Bands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a T4: float16, whose gradients are scaled, by a scale that the run adapts."""
    train, _ = easy
    monkeypatch.setattr("miue_lib.train.precision", lambda device: torch.float32)
    exact = mi.craft("miue", train, **COMMON)
    monkeypatch.setattr("miue_lib.train.precision", lambda device: torch.float16)
    uninterrupted = mi.craft("miue", train, **COMMON)
    assert uninterrupted.curves["train_accuracy"][-1] > 0.9
    # A gradient lost below float16's smallest number would leave its noise where it is, at 0 in the end.
    still = [float((noise.levels == 0).float().mean()) for noise in (exact, uninterrupted)]
    assert still[1] < still[0] + 0.02
    keep: dict[str, Any] = {"checkpoint": tmp_path / "state", "checkpoint_minutes": 0}
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        stop_after(patched, 13)
        mi.craft("miue", train, **COMMON, **keep)
    with safe_open(tmp_path / "state", framework="pt") as file:
        assert json.loads(file.metadata()["about"])["rest"]["scaler"]["scale"] > 1
    assert torch.equal(mi.craft("miue", train, **COMMON, **keep, resume=True).levels, uninterrupted.levels)


def test_a_state_of_several_processes_is_not_passed_over(easy: Bands, tmp_path: Path) -> None:
    (tmp_path / "state.1of2").touch()
    with pytest.raises(
        ValueError, match=r"checkpoint: got '.*state.1of2', of another number of processes, expected as"
    ):
        mi.craft("miue", easy[0], **COMMON, checkpoint=tmp_path / "state", resume=True)


def test_a_signal_after_the_last_batch_is_handed_on(
    easy: Bands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Crafting.result

    def late(self: Crafting, settings: dict[str, Any]) -> mi.Perturbation:
        signal.raise_signal(signal.SIGINT)
        return result(self, settings)

    monkeypatch.setattr(Crafting, "result", late)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background would have it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            mi.craft("miue", easy[0], **COMMON | {"epochs": 1}, checkpoint=tmp_path / "state")
    finally:
        signal.signal(signal.SIGINT, before)


def test_momentum_lies_in_memory_as_the_weights_do(easy: Bands, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fused step on a GPU refuses anything else."""
    seen: list[bool] = []
    restore = Crafting.restore

    def watched(self: Crafting, state: Any) -> None:
        restore(self, state)
        kept = self.descent.optimizer.state
        seen.extend(kept[p]["momentum_buffer"].stride() == p.stride() for p in self.model.parameters())

    monkeypatch.setattr(Crafting, "restore", watched)
    mi.craft("miue", easy[0], **COMMON, checkpoint=written, resume=True)
    assert len(seen) > 10
    assert all(seen)


def test_a_file_for_the_noise_holds_eight_bits(easy: Bands, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="epsilon: got 0.6, expected less than half the range with a delta_file"):
        mi.craft("miue", easy[0], epsilon=0.6, **COMMON, delta_file=tmp_path / "delta")


def test_a_signal_that_is_ignored_stays_ignored(easy: Bands, tmp_path: Path) -> None:
    during: list[Any] = []
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        mi.craft(
            "miue",
            easy[0],
            **COMMON | {"epochs": 1},
            checkpoint=tmp_path / "state",
            progress=lambda line: during.append(signal.getsignal(signal.SIGINT)),
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert during == [signal.SIG_IGN]
