"""Several processes that craft one perturbation: two of them, with gloo, on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import miue_lib as mi
from miue_lib.noise.ranks import Ranks

# What every process begins with: RANK, the folder in which the two meet, and pictures of three classes.
BEGIN = """
import json, os, sys
from pathlib import Path
import torch
from torch import distributed
import miue_lib as mi
from miue_lib.noise import bilevel, checkpoint
from miue_lib.noise.ranks import Batch, Ranks

torch.set_num_threads(1)
rank, folder = int(os.environ["RANK"]), Path(sys.argv[1])
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
labels = torch.arange(193) % 3
images = torch.rand((193, 1, 12, 12), generator=torch.Generator().manual_seed(1)) * 0.4
for row in range(4):
    images[torch.arange(193), 0, 4 * labels + row] += 0.5
train = mi.ImageSet(images, labels)
settings = dict(surrogate="small_resnet", epochs=4, steps=2, step=4 / 255, batch_size=32, noise_batch_size=64, crop=1)

def say(**what):
    print(json.dumps(what), flush=True)
"""


def processes(folder: Path, program: str) -> list[subprocess.Popen]:
    """The program in two processes."""
    (folder / "meet").unlink(missing_ok=True)
    return [
        subprocess.Popen(
            [sys.executable, "-c", BEGIN + program, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"RANK": str(rank), "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "0"},
            cwd=Path(mi.__file__).parents[1],
        )
        for rank in range(2)
    ]


def said(folder: Path, program: str) -> list[dict[str, Any]]:
    """What the two processes said, each in one line of JSON."""
    running = processes(folder, program)
    try:
        outputs = [process.communicate(timeout=120) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (_, errors) in zip(running, outputs, strict=True):
        assert process.returncode == 0, errors
    return [json.loads(output) for output, _ in outputs]


def test_alone_nothing_is_exchanged(easy: tuple[mi.ImageSet, mi.ImageSet]) -> None:
    ranks = Ranks.current()
    assert (ranks.rank, ranks.world) == (0, 1)
    assert ranks.members(easy[0]).tolist() == list(range(192))
    batch = ranks.batch(easy[0].labels)
    features = torch.ones(192, 2)
    assert batch.all_features(features) is features
    assert batch.all_labels is batch.labels


@pytest.mark.parametrize("sizes", [[50, 29, 17], [5, 5, 5], [2, 90, 3]])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_shares_are_disjoint_even_and_hold_every_picture(sizes: list[int], world: int) -> None:
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))[torch.randperm(sum(sizes))]
    images = mi.ImageSet(torch.zeros((len(labels), 1, 2, 2), dtype=torch.uint8), labels)
    shares = [Ranks(rank, world).members(images) for rank in range(world)]
    assert sorted(torch.cat(shares).tolist()) == list(range(len(labels)))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for c in range(3):
        of_class = [int((labels[share] == c).sum()) for share in shares]
        assert max(of_class) - min(of_class) <= 1


def test_two_processes_craft_one_noise_each_its_half(tmp_path: Path) -> None:
    one, two = said(
        tmp_path,
        """
seen = {}
end = bilevel.Crafting.result
def result(self, settings):
    seen["share"] = self.delta.at_rest.numel()
    seen["weights"] = sum(float(p.double().abs().sum()) for p in self.model.state_dict().values())
    return end(self, settings)
bilevel.Crafting.result = result
lines = []
noise = mi.craft("miue", train, **settings, progress=lines.append)
with_file = mi.craft("miue", train, **settings | {"epochs": 1}, delta_file=folder / "delta")
em = mi.craft("em", train, surrogate="small_resnet", epochs=2, steps=2, model_batches=4, until_accuracy=0.99)
noise.save(folder / f"noise{rank}")
say(levels=int(noise.levels.long().sum()), largest=noise.linf, lines=len(lines), rounds=len(noise.curves["loss"]),
    loss=noise.curves["loss"], settings=noise.settings["noise_batch_size"], em=int(em.levels.long().abs().sum()),
    file=int(with_file.levels.long().abs().sum()), **seen)
""",
    )
    kept = [mi.Perturbation.load(tmp_path / f"noise{rank}") for rank in range(2)]
    assert torch.equal(kept[0].levels, kept[1].levels)
    assert kept[0].fingerprint == kept[1].fingerprint
    assert (kept[0].levels != 0).flatten(1).any(1).all(), "every picture has noise"
    assert 0 < kept[0].linf <= 8 / 255
    assert one["share"] + two["share"] == 193 * 144
    assert abs(one["share"] - two["share"]) == 144, "97 pictures and 96"
    assert one["weights"] == two["weights"], "the surrogates are the same, statistics included"
    assert (one["lines"], two["lines"]) == (4, 0), "one process tells of all"
    assert one["loss"] == two["loss"]
    assert one["loss"][-1] < 0.8 * one["loss"][0]
    assert one["settings"] == 64
    assert one["em"] == two["em"] > 0
    assert one["file"] == two["file"] > 0
    files = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("delta"))
    assert files == ["delta"], "one file for all; those of the parts are gone"


def test_gathered_features_give_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    """Each rank's gradient is its part of the gradient that one process would compute, unequal parts included."""
    one, two = said(
        tmp_path,
        """
ranks = Ranks.current()
features = torch.randn(11, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
labels = torch.arange(11) % 3
mine = slice(0, 7) if rank == 0 else slice(7, 11)

def loss(g, y):
    return mi.similarity_loss(g, y, distance_weight=0.1)

whole = features.clone().requires_grad_()
(wanted,) = torch.autograd.grad(loss(whole, labels), whole)
own = features[mine].clone().requires_grad_()
batch = ranks.batch(labels[mine])
value = loss(batch.all_features(own), batch.all_labels)
(gradient,) = torch.autograd.grad(value, own)
say(labels=batch.all_labels.tolist(), own=len(batch.labels), difference=float((gradient - wanted[mine]).abs().max()),
    most=ranks.most(rank), least=ranks.least(rank), everyones=ranks.everyones(rank))
""",
    )
    for rank, seen in enumerate((one, two)):
        assert seen["labels"] == [i % 3 for i in range(11)]
        assert seen["own"] == (7, 4)[rank]
        assert seen["difference"] < 1e-12
        assert (seen["most"], seen["least"], seen["everyones"]) == (1, 0, [0, 1])


def test_two_processes_go_on_where_they_stopped(tmp_path: Path) -> None:
    """Also if one had renamed its new file and the other had not."""
    one, two = said(
        tmp_path,
        """
class Stopped(Exception):
    pass

advance, replace = bilevel.Crafting.advance, Path.replace
whole = mi.craft("miue", train, **settings).levels
equal = []
for case, stop in enumerate((13, 14)):
    def limited(self):
        if self.tick == stop:
            raise Stopped
        advance(self)
    def half(self, target):
        # Before the last save of the second case, the second process 'dies' when all have written and none renamed.
        if case == 1 and rank == 1 and b'tick' + bytes([92]) + b'": 14' in self.read_bytes():
            raise Stopped
        return replace(self, target)
    keep = dict(checkpoint=folder / f"state{case}", checkpoint_minutes=0)
    bilevel.Crafting.advance = limited
    def only_new(self, target):
        return half(self, target) if self.name.endswith(".new") else replace(self, target)
    Path.replace = only_new
    try:
        mi.craft("miue", train, **settings, **keep)
    except Stopped:
        pass
    bilevel.Crafting.advance, Path.replace = advance, replace
    distributed.barrier()
    names = sorted(p.name for p in folder.iterdir() if p.name.startswith(f"state{case}"))
    distributed.barrier()
    equal.append((names, torch.equal(mi.craft("miue", train, **settings, **keep, resume=True).levels, whole)))
say(equal=equal)
""",
    )
    (names, first), (names_half, second) = one["equal"]
    assert names == ["state0.1of2", "state0.2of2"]
    assert names_half == ["state1.1of2", "state1.2of2", "state1.2of2.new"]
    assert first
    assert second
    assert two["equal"] == one["equal"]


def test_processes_that_were_given_different_things_are_refused(tmp_path: Path) -> None:
    answers = said(
        tmp_path,
        """
errors = []
for images, change in ((train, {"seed": rank}), (train.subset(slice(rank, None)), {}),
                       (train, {"surrogate": "small_resnet", "steps": 2 + rank})):
    try:
        mi.craft("miue", images, **settings | change)
    except ValueError as error:
        errors.append(str(error))
say(errors=errors)
""",
    )
    wanted = "settings or pictures: got different settings or pictures in the 2 processes, expected the same in each"
    assert [answer["errors"] for answer in answers] == [[wanted] * 3] * 2


def test_when_one_process_dies_the_other_says_so_and_the_checkpoint_is_whole(tmp_path: Path) -> None:
    survivor, dead = processes(
        tmp_path,
        """
advance = bilevel.Crafting.advance
def limited(self):
    if rank == 1 and self.tick == 13:
        os._exit(9)
    advance(self)
bilevel.Crafting.advance = limited
mi.craft("miue", train, **settings, checkpoint=folder / "state", checkpoint_minutes=0)
""",
    )
    _, errors = survivor.communicate(timeout=120)
    dead.communicate(timeout=120)
    assert dead.returncode == 9
    assert survivor.returncode == 1
    message = f"another of the 2 processes that craft this noise has ended; '{tmp_path / 'state'}' holds the last state"
    assert message in errors, errors
    answers = said(
        tmp_path,
        """
whole = mi.craft("miue", train, **settings).levels
resumed = mi.craft("miue", train, **settings, checkpoint=folder / "state", resume=True).levels
say(equal=torch.equal(resumed, whole))
""",
    )
    assert answers == [{"equal": True}] * 2


def test_what_one_process_finds_wrong_all_say(tmp_path: Path) -> None:
    """A full disk, a loss that is no number, a file in the way, in the second process only: none waits for ever."""
    answers = said(
        tmp_path,
        """
import warnings
import miue_lib.noise.checkpoint

said = []
def attempt(**change):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            said.append(int(mi.craft("miue", train, **settings, **change).levels.long().abs().sum()))
        except (ValueError, OSError, FloatingPointError) as error:
            said.append(f"{type(error).__name__}: {error}")
    said.extend(str(warning.message) for warning in caught)
    distributed.barrier()

attempt()
save, calls = checkpoint.save_file, iter(range(100))
def full(*args):
    if rank == 1 and next(calls) == 3:
        raise OSError(28, "No space left on device")
    save(*args)
checkpoint.save_file = full
attempt(checkpoint=folder / "state", checkpoint_minutes=0)
checkpoint.save_file = save
if rank == 1:
    Path(folder / "delta.2of2").write_text("something dear")
attempt(delta_file=folder / "delta")
if rank == 1:
    content = Path(folder / "state.2of2").read_bytes()
    Path(folder / "state.2of2").write_bytes(content[:1000])
distributed.barrier()
attempt(checkpoint=folder / "state", resume=True)
Path(folder / "lonely.1of2").touch()
distributed.barrier()
gradient = bilevel.Crafting._gradient
if rank == 1:
    bilevel.Crafting._gradient = lambda self, *args: (lambda g, v: (g, v * float("nan")))(*gradient(self, *args))
attempt()
bilevel.Crafting._gradient = gradient
say(said=said)
""",
    )
    (one, one_full, one_warned, one_way, one_damaged, one_nan), two = answers[0]["said"], answers[1]["said"]
    assert one == one_full == two[0] == two[1], "a full disk changes nothing but the file"
    assert "another process could not write its own" in one_warned
    assert "No space left on device" in two[2]
    assert one_way.startswith("ValueError: in another process: delta_file: got")
    assert two[3].startswith("ValueError: delta_file: got")
    assert one_damaged.startswith("ValueError: in another process: checkpoint: got")
    assert two[4].startswith("ValueError: checkpoint: got")
    assert one_nan == "FloatingPointError: miue: in another process, a value is not finite in round 1"
    assert two[5].startswith("FloatingPointError: miue: the objective became nan in round 1, batch 1, step 1")


def test_a_class_too_small_to_share_is_refused(tmp_path: Path) -> None:
    answers = said(
        tmp_path,
        """
few = mi.ImageSet(train.images[:11], torch.tensor([0] * 4 + [1] * 4 + [2] * 3), ("a", "b", "c"))
try:
    mi.craft("miue", few, **settings)
except ValueError as error:
    say(error=str(error))
""",
    )
    wanted = "images: got 3 pictures of class c, expected 4 or more, two for each of 2 processes, of each class"
    assert [answer["error"] for answer in answers] == [wanted] * 2
