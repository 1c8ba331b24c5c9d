"""A folder of pictures is protected whole, within the budget, and the same whatever happens on the way."""

import errno
import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import miue_lib as mi
from miue_lib.photos import plan, protect, stages, verdict
from miue_lib.photos.work import Journal, Room, Rows, Steps, in_words, locked, read_journal, side_by_side

protect_module = sys.modules[protect.__module__]  # whose name the function has, too
plan_module = sys.modules[plan.__module__]

QUICK: dict[str, Any] = {"method": "random", "size": 16, "profile": "cpu", "device": "cpu", "report": False}


def noise(height: int, width: int, seed: int, channels: int = 3) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return pixels[:, :, 0] if channels == 1 else pixels


def save(path: Path, pixels: np.ndarray, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **how)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eleven pictures in two classes, of several kinds and sizes, and a file that is none."""
    root = tmp_path / "photos"
    turned = Image.Exif()
    turned[0x0112] = 6
    for i in range(4):
        for name in ("cats", "dogs"):
            save(root / name / f"{i}.png", noise(20 + 9 * i, 40, i + 10 * (name == "cats")))
    save(root / "cats" / "grey.jpg", noise(31, 17, 20, 1))
    save(root / "dogs" / "Größe 日本.webp", noise(18, 30, 21, 4), lossless=True)
    save(root / "dogs" / "deep" / "turned.JPG", noise(24, 50, 22), exif=turned)
    (root / "dogs" / "notes.txt").write_text("a dog")
    return root


def tree(root: Path) -> dict[str, bytes]:
    """What every file holds, hidden ones included."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def source_pixels(path: Path) -> np.ndarray:
    """By Pillow alone, upright, as RGB or grey."""
    from PIL import ImageOps

    with Image.open(path) as picture:
        upright = ImageOps.exif_transpose(picture)
        return np.asarray(upright if upright.mode == "L" else upright.convert("RGB"))


# What it makes


@pytest.mark.parametrize(("webp", "budget"), [(False, 3), (True, 8)])
def test_every_picture_is_published_within_the_budget(photos: Path, tmp_path: Path, webp: bool, budget: int) -> None:
    before, out = tree(photos), tmp_path / "out"
    made = protect(photos, out, webp=webp, budget=budget, **QUICK)
    assert tree(photos) == before
    assert sorted(path.name for path in out.iterdir()) == ["cats", "dogs", "manifest.json"]
    assert json.loads((out / "manifest.json").read_bytes()) == made
    suffix = ".webp" if webp else ".png"
    wanted = {f"{name}/{i}" for name in ("cats", "dogs") for i in range(4)}
    wanted |= {"cats/grey", "dogs/Größe 日本", "dogs/deep/turned"}
    assert {entry["target"] for entry in made["pictures"]} == {name + suffix for name in wanted}
    assert made["left_out"] == [{"source": "dogs/notes.txt", "reason": made["left_out"][0]["reason"]}]
    assert set(tree(out)) == {name + suffix for name in wanted} | {"manifest.json"}
    for entry in made["pictures"]:
        data, source = (out / entry["target"]).read_bytes(), (photos / entry["source"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["source_sha256"] == hashlib.sha256(source).hexdigest()
        with Image.open(io.BytesIO(data)) as picture:
            clean = Image.fromarray(source_pixels(photos / entry["source"]))
            assert picture.size == (entry["width"], entry["height"]) == clean.size
            change = np.asarray(picture.convert("RGB")).astype(int) - np.asarray(clean.convert("RGB"))
            if "Größe" in entry["source"]:
                with Image.open(photos / entry["source"]) as other:
                    assert np.array_equal(np.asarray(picture)[:, :, 3], np.asarray(other)[:, :, 3])
        assert 0 < np.abs(change).max() == entry["linf"] <= budget
        assert entry["psnr"] == pytest.approx(10 * np.log10(255**2 / (change**2).mean()), abs=1e-9)
    summary = made["summary"]
    assert (summary["pictures"], summary["left_out"], summary["linf"]) == (11, 1, budget)
    squared = [10 ** (-entry["psnr"] / 10) for entry in made["pictures"]]
    assert summary["psnr"] == pytest.approx(-10 * np.log10(np.mean(squared)))
    assert made["settings"]["budget"] == budget
    assert made["settings"]["noise"] == {"epsilon": budget / 255, "seed": 0}
    assert made["verdict"] is None


@pytest.mark.parametrize("mixed", [False, True])
def test_grey_pictures_get_noise_of_full_strength(tmp_path: Path, mixed: bool) -> None:
    """Noise of three independent channels would lose √3 of its root mean square in their mean."""
    for name in "ab":
        for i in range(3):
            save(tmp_path / "photos" / name / f"{i}.png", 16 + noise(16, 16, i, 1 + 2 * (mixed and i == 0)) // 9 * 8)
    made = protect(tmp_path / "photos", tmp_path / "out", **QUICK)
    modes = {Image.open(tmp_path / "out" / entry["target"]).mode for entry in made["pictures"]}
    assert modes == {"RGB" if mixed else "L"}
    # Uniform on ±8 levels and rounded: a root mean square of √(64/3 + 1/12) = 4.6, of three channels' mean 2.7, each
    # within 2 % (six pictures of 256 values).
    rms = [np.sqrt(255**2 * 10 ** (-entry["psnr"] / 10)) for entry in made["pictures"]]
    assert np.mean(rms) > 4


def test_a_trainer_finds_the_crafted_noise_in_what_is_published(tmp_path: Path) -> None:
    """Pictures of just the size that the noise is crafted for get just this noise."""
    for name in "ab":
        for i in range(3):
            save(tmp_path / "photos" / name / f"{i}.png", noise(16, 16, i + 5 * (name == "b")))
    protect(tmp_path / "photos", tmp_path / "out", seed=4, **QUICK)
    clean, published = (
        mi.ImageSet(
            np.stack([np.asarray(Image.open(root / name / f"{i}.png")) for name in "ab" for i in range(3)]).transpose(
                0, 3, 1, 2
            ),
            [0, 0, 0, 1, 1, 1],
        )
        for root in (tmp_path / "photos", tmp_path / "out")
    )
    wanted = clean.with_(mi.craft("random", clean, epsilon=8 / 255, seed=4))
    assert torch.equal(published.images, wanted.images)


@pytest.mark.parametrize("method", ["lsp", "ops"])
def test_a_method_with_another_bound_has_no_budget(photos: Path, tmp_path: Path, method: str) -> None:
    with pytest.raises(ValueError, match=f"budget: got 8, expected none: {method} is bounded in L"):
        protect(photos, tmp_path / "out", **QUICK | {"method": method, "budget": 8})
    assert not (tmp_path / "out").exists()
    made = protect(photos, tmp_path / "out", **QUICK | {"method": method})
    assert made["settings"]["budget"] is None
    assert made["summary"]["linf"] > 8


def test_metadata_is_kept_only_when_asked_for(photos: Path, tmp_path: Path) -> None:
    about = Image.Exif()
    about[0x010F] = "a maker"
    save(photos / "cats" / "made.jpg", noise(20, 20, 1), exif=about)
    for keep, maker in ((False, None), (True, "a maker")):
        out = tmp_path / f"out {keep}"
        protect(photos, out, keep_metadata=keep, **QUICK)
        with Image.open(out / "cats" / "made.png") as picture:
            assert picture.getexif().get(0x010F) == maker


# The end of it


@pytest.fixture
def quick_victims(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict in a moment, and in this process."""
    monkeypatch.setattr(verdict, "training", lambda n, size: {**size.victim, "epochs": 1, "batch_size": 16})
    monkeypatch.setattr(verdict, "_side_by_side", lambda cache, calls: (call() for call in calls))


def test_victims_see_the_pictures_that_were_published(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_victims: None
) -> None:
    """One that cannot be published is left out, from what they see too; the report is there at the end."""
    seen: dict[str, Any] = {}
    ask, write = verdict.verdict, stages.encode

    def watched(clean: Any, published: Any, **settings: Any) -> Any:
        seen.update(clean=clean, published=published)
        return ask(clean, published, **settings)

    def encode(picture: Any, suffix: str) -> bytes:
        if picture.pixels.shape[0] == 29:  # cats/1.png and dogs/1.png
            raise ValueError("too large for this test")
        return write(picture, suffix)

    monkeypatch.setattr(verdict, "verdict", watched)
    monkeypatch.setattr(stages, "encode", encode)
    made = protect(photos, tmp_path / "out", seeds=2, **QUICK | {"report": True})
    assert {left["source"]: left["reason"] for left in made["left_out"]}["cats/1.png"] == "too large for this test"
    assert made["summary"]["pictures"] == 9
    assert list(seen["clean"]) == list(verdict.VIEWS)
    for which, root, field in (("clean", photos, "source"), ("published", tmp_path / "out", "target")):
        for name, view in verdict.VIEWS.items():
            found = seen[which][name]
            assert found.labels.tolist() == [entry["class"] == "dogs" for entry in made["pictures"]]
            for pixels, entry in zip(found.images, made["pictures"], strict=True):
                full = source_pixels(root / entry[field])
                wanted = view(full if full.ndim == 3 else full[:, :, None], 16)
                assert np.array_equal(pixels.permute(1, 2, 0).numpy(), wanted)
    assert made["verdict"]["sentences"]
    assert "<html" in (tmp_path / "out" / "report.html").read_text()
    assert not list((tmp_path / "out").glob(".*"))


def test_the_report_is_there_for_a_method_without_a_budget(photos: Path, tmp_path: Path, quick_victims: None) -> None:
    protect(photos, tmp_path / "out", seeds=2, **QUICK | {"report": True, "method": "lsp"})
    assert "<html" in (tmp_path / "out" / "report.html").read_text()


def test_a_finished_output_is_left_as_it_is(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = protect(photos, out, **QUICK)
    times = {path: path.stat().st_mtime_ns for path in [out, *out.rglob("*")]}
    lines: list[str] = []
    assert protect(photos, out, progress=lines.append, **QUICK) == made
    assert lines[-1].endswith("is finished: everything is there, and nothing was written")
    assert {path: path.stat().st_mtime_ns for path in [out, *out.rglob("*")]} == times
    (out / "cats" / "1.png").write_bytes(b"")
    (out / "cats" / "2.png").unlink()
    with pytest.raises(ValueError, match=r"not as it was written \(1 removed, 1 changed, first: 'cats/1.png'\)"):
        protect(photos, out, **QUICK)


class Stop(Exception):
    """As if the process ended here."""


def stop_at(start: str) -> Callable[[str], None]:
    def progress(line: str) -> None:
        if line.startswith(start):
            raise Stop

    return progress


def begun(photos: Path, out: Path, at: str) -> None:
    """An output that was left at the end of a stage, or one that is finished."""
    if at == "finished":
        protect(photos, out, **QUICK)
        return
    with pytest.raises(Stop):
        protect(photos, out, progress=stop_at(at), **QUICK)


@pytest.mark.parametrize("at", ["reading", "publishing", "finished"])
def test_what_was_begun_otherwise_is_refused(photos: Path, tmp_path: Path, at: str) -> None:
    """A plan refuses it too, before it measures anything."""
    out = tmp_path / "out"
    begun(photos, out, at)
    after_noise = (
        ({"budget": 4}, "budget 8, here 4"),
        ({"seed": 1}, "seed 0, here 1"),
        ({"method": "pil", "budget": 8}, "method 'random', here 'pil'"),
        ({"report": True}, "report False, here True"),
    )
    for other, words in (
        ({"webp": True}, "suffix '.png', here '.webp'"),
        ({"size": 17}, "size 16, here 17"),
        *(() if at == "reading" else after_noise),
    ):
        before = tree(out)
        for run in (protect, plan):
            with pytest.raises(ValueError, match=f"^out: got .*other settings .*{words}"):
                run(photos, out, **QUICK | other)
            assert tree(out) == before
    save(photos / "cats" / "new.png", noise(5, 5, 1))
    save(photos / "cats" / "newer.png", noise(5, 5, 1))
    (photos / "dogs" / "0.png").unlink()
    (photos / "dogs" / "1.png").write_bytes((photos / "dogs" / "2.png").read_bytes())
    before = tree(out)
    for run in (protect, plan):
        with pytest.raises(ValueError, match="^photos: got others .*2 added, 1 removed, 1 changed.*: 'cats/new.png'"):
            run(photos, out, **QUICK)
    assert tree(out) == before


def test_a_setting_that_no_method_can_use_is_put_right_later(photos: Path, tmp_path: Path) -> None:
    """It is found out when noise is to be made; what was read by then is kept."""
    out, em = tmp_path / "out", QUICK | {"method": "em"}
    settings = {"surrogate": "2nn", "steps": 1, "noise_batch_size": 8, "batch_size": 8}
    with pytest.raises(ValueError, match="^epochs: got 'many'"):
        protect(photos, out, settings=settings | {"epochs": "many"}, **em)
    lines: list[str] = []
    made = protect(photos, out, settings=settings | {"epochs": 1}, progress=lines.append, **em)
    assert not any(line.startswith("reading") for line in lines)
    assert made["settings"]["set"]["epochs"] == 1
    protect(photos, tmp_path / "never", settings=settings | {"epochs": 1}, **em)
    assert tree(out) == tree(tmp_path / "never")


def test_it_goes_on_with_the_threads_it_began_with(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, found, craft = torch.get_num_threads(), list[int](), protect_module.craft
    begun(photos, tmp_path / "out", "reading")

    def watched(*given: Any, **settings: Any) -> mi.Perturbation:
        found.append(torch.get_num_threads())
        return craft(*given, **settings)

    monkeypatch.setattr(protect_module, "craft", watched)
    torch.set_num_threads(before + 1)
    try:
        protect(photos, tmp_path / "out", **QUICK)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert found == [before]


def test_a_link_in_the_output_leads_nowhere(photos: Path, tmp_path: Path) -> None:
    """One that leads back to the source would let pictures be written over."""
    before, out = tree(photos), tmp_path / "out"
    begun(photos, out, "reading")
    (out / "cats").symlink_to(photos / "cats")
    with pytest.raises(ValueError, match="^out: got .*in which a link stands for a folder of 'cats/"):
        protect(photos, out, **QUICK)
    assert tree(photos) == before
    (out / "cats").unlink()
    (out / ".miue_lib").rename(tmp_path / "elsewhere")
    (out / ".miue_lib").symlink_to(tmp_path / "elsewhere")
    for run in (protect, plan):
        with pytest.raises(ValueError, match=r"^out: got .*whose \.miue_lib is a link"):
            run(photos, out, **QUICK)


def test_a_disk_that_fails_for_a_moment_costs_no_picture(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = stages.bytes_of

    def fails(path: Path) -> bytes:
        if path.name == "2.png":
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(stages, "bytes_of", fails)
    with pytest.raises(OSError, match="^'(cats|dogs)/2.png' cannot be read: Input/output error"):
        protect(photos, tmp_path / "out", **QUICK)
    monkeypatch.setattr(stages, "bytes_of", read)
    made = protect(photos, tmp_path / "out", **QUICK)
    assert made["summary"]["pictures"] == 11


@pytest.mark.parametrize("at", ["reading", "publishing"])
def test_it_goes_on_and_ends_as_if_it_had_never_stopped(photos: Path, tmp_path: Path, at: str) -> None:
    protect(photos, tmp_path / "never", **QUICK)
    out = tmp_path / "out"
    begun(photos, out, at)
    if at == "publishing":
        (out / "cats" / "1.png").write_bytes(b"half of it")  # after a power failure, say
        with (out / ".miue_lib" / "published-0.jsonl").open("ab") as journal:
            journal.write(b'{"index": 7, "entry": {"sou')
    lines: list[str] = []
    protect(photos, out, progress=lines.append, **QUICK)
    assert tree(out) == tree(tmp_path / "never")
    assert not any(line.startswith("reading") for line in lines)
    if at == "publishing":
        assert lines[-1].startswith("publishing 1/1")


# What is refused


def test_where_the_output_may_not_be(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(photos)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"format": "another"}')
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / ".miue_lib").mkdir()
    (tmp_path / "half" / "mine").touch()
    before = tree(tmp_path)
    inside = "neither in .* nor around it: nothing is written there"
    for out, words in (
        (photos, inside),
        (photos / "out", inside),
        (photos / "cats", inside),
        (tmp_path, inside),
        (tmp_path / "link" / "out", inside),
        (tmp_path / "file", "a new or empty folder, or one that this command began"),
        (tmp_path / "file" / "out", "a folder that can be written into"),
        (tmp_path / "full", "in which there is 'mine', expected a new or empty folder"),
        (tmp_path / "half", "in which there is"),
        (tmp_path / "other", "with a manifest.json that is not this command's"),
    ):
        for run in (protect, plan):
            with pytest.raises(ValueError, match=f"^out: got .*{words}"):
                run(photos, out, **QUICK)
    assert tree(tmp_path) == before


def test_a_folder_with_two_names_is_one(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where cases are one, and with bind mounts, links are not all that names a folder twice."""
    other = tmp_path / "PHOTOS"
    (other / "cats").mkdir(parents=True)
    same, stat = photos.stat(), Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **how: same if path == other else stat(path, **how))
    monkeypatch.setattr(os, "stat", lambda path, *, ask=os.stat, **how: same if path == other else ask(path, **how))
    for source, out in ((photos, other), (photos, other / "cats" / "out"), (photos / "cats", other)):
        with pytest.raises(ValueError, match="^out: got .*neither in .* nor around it"):
            protect(source, out, **QUICK)


def test_what_a_file_manager_leaves_is_nothing(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in (".DS_Store", "Thumbs.db"):
        (tmp_path / "out" / name).touch()
    assert protect(photos, tmp_path / "out", **QUICK)["summary"]["pictures"] == 11


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"method": "magic"}, "method: got 'magic'"),
        ({"budget": 0}, "budget: got 0, expected a whole number from 1 to 255"),
        ({"budget": 256}, "budget: got 256, expected a whole number from 1 to 255"),
        ({"budget": 8 / 255}, "budget: got 0.03"),
        ({"size": 4}, "size: got 4"),
        ({"profile": "tpu"}, "profile: got 'tpu'"),
        ({"seed": -1}, "seed: got -1"),
        ({"seeds": 0}, "seeds: got 0"),
        ({"seeds": 1, "report": True}, "seeds: got 1, expected a whole number >= 2"),
        ({"device": "nope"}, r"device: got 'nope' \(.*\), expected a device of this machine"),
        ({"device": "meta"}, "device: got 'meta'"),
        ({"device": "cuda:77"}, "device: got 'cuda:77'"),
        ({"webp": "yes"}, "webp: got 'yes'"),
        ({"settings": {"step": 1}}, "settings: got 'step', expected none: random has no such settings"),
        ({"method": "miue", "settings": {"step": [1]}}, r"settings\['step'\]: got \[1\], expected a number"),
        ({"method": "miue", "settings": {"epsilon": 1}}, "settings: got 'epsilon', expected one of"),
    ],
)
def test_arguments_that_cannot_be(photos: Path, tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        protect(photos, tmp_path / "out", **QUICK | wrong)
    assert not (tmp_path / "out").exists()


def test_no_class_stands_where_the_report_has_to(photos: Path, tmp_path: Path) -> None:
    (photos / "cats").rename(photos / "Report.html")
    for run in (protect, plan):
        with pytest.raises(ValueError, match=r"^photos: got a class called 'Report\.html'"):
            run(photos, tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()


def test_a_second_process_is_refused(photos: Path, tmp_path: Path) -> None:
    refused = []

    def progress(line: str) -> None:
        with pytest.raises(ValueError, match="^out: got .* on which another process is at work"):
            protect(photos, tmp_path / "out", **QUICK)
        refused.append(line)

    protect(photos, tmp_path / "out", progress=progress, **QUICK)
    assert len(refused) == 2


def test_two_classes_of_two_pictures_are_needed(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for i in range(3):
        save(root / "a" / f"{i}.png", noise(9, 9, i))
    save(root / "b" / "0.png", noise(9, 9, 9))
    (root / "b" / "1.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"^photos: got .*two or more readable pictures in \['a'\] .*, expected two"):
        protect(root, tmp_path / "out", **QUICK)
    for i in range(2):
        save(root / "c" / f"{i}.png", noise(9, 9, 20 + i))
    made = protect(root, tmp_path / "other", **QUICK)
    assert made["classes"] == ["a", "c"]
    reasons = {left["source"]: left["reason"] for left in made["left_out"]}
    assert set(reasons) == {"b/0.png", "b/1.png"}
    assert reasons["b/0.png"].startswith("the only picture of its class that can be read")


# What happens meanwhile


@pytest.mark.parametrize("removed", [False, True])
def test_a_picture_that_changes_meanwhile_is_an_error(photos: Path, tmp_path: Path, removed: bool) -> None:
    kept = (photos / "cats" / "2.png").read_bytes()

    def progress(line: str) -> None:
        if line.startswith("reading"):
            (photos / "cats" / "2.png").unlink()
            if not removed:
                save(photos / "cats" / "2.png", noise(20, 20, 77))

    word = "removed" if removed else "changed"
    with pytest.raises(ValueError, match=f"^photos: got 'cats/2.png', {word} meanwhile"):
        protect(photos, tmp_path / "out", progress=progress, **QUICK)
    (photos / "cats" / "2.png").write_bytes(kept)
    protect(photos, tmp_path / "out", **QUICK)
    protect(photos, tmp_path / "never", **QUICK)
    assert tree(tmp_path / "out") == tree(tmp_path / "never")


def test_a_full_disk_ends_it_and_it_goes_on_later(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = stages.write_whole, [5]

    def full(path: Path, data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(stages, "write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        protect(photos, tmp_path / "out", **QUICK)
    monkeypatch.setattr(stages, "write_whole", write)
    assert len(list((tmp_path / "out").rglob("*.png"))) == 5
    protect(photos, tmp_path / "out", **QUICK)
    protect(photos, tmp_path / "never", **QUICK)
    assert tree(tmp_path / "out") == tree(tmp_path / "never")


@pytest.mark.parametrize("damage", ["pixels", "alpha", "file"])
def test_a_file_that_does_not_read_back_as_it_was_meant_is_an_error(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    write = stages.write_whole

    def damaged(path: Path, data: bytes) -> None:
        pixels = np.array(Image.open(io.BytesIO(data)))
        if damage == "pixels":
            pixels.flat[0] ^= 1
        elif damage == "alpha" and pixels.shape[2:] == (4,):
            pixels.flat[3] ^= 1
        other = io.BytesIO()
        Image.fromarray(pixels).save(other, "PNG")
        write(path, data[:-20] if damage == "file" else other.getvalue())

    monkeypatch.setattr(stages, "write_whole", damaged)
    with pytest.raises(OSError, match="read back"):
        protect(photos, tmp_path / "out", **QUICK)
    damaged_ones = "*/Größe*.png" if damage == "alpha" else "*/*.png"
    assert not list((tmp_path / "out").glob(damaged_ones)), "no such file gets a picture's name"


def test_a_picture_beyond_the_budget_is_never_published(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever made it: what is written is compared with the source once more."""
    monkeypatch.setattr(stages, "spread", lambda pixels, levels, most: pixels ^ np.uint8(16))
    with pytest.raises(OSError, match="read back"):
        protect(photos, tmp_path / "out", **QUICK)
    assert not list((tmp_path / "out").glob("*/*.png"))


# Odd pictures


def odd(root: Path) -> set[str]:
    """A tree of what cameras, programs and accidents make; the names of all files."""
    a, b = root / "a", root / "b"
    for i, (height, width) in enumerate([(1, 1), (1, 300), (300, 1), (2, 3), (16, 16), (15, 17), (200, 10)]):
        save(a / f"size{i}.png", noise(height, width, i))
        save(b / f"size{i}.jpg", noise(height, width, i, 1))
    grey16 = np.random.default_rng(1).integers(0, 65536, (20, 20), dtype=np.uint16)
    Image.fromarray(grey16).save(a / "grey16.png")
    rgb = Image.fromarray(noise(20, 24, 30))
    rgb.convert("CMYK").save(a / "cmyk.jpg")
    rgb.quantize(7).save(a / "palette.png")
    rgb.quantize(7).save(a / "clear palette.png", transparency=2)
    rgb.convert("1").save(a / "bits.png")
    rgb.convert("LA").save(a / "grey alpha.png")
    rgb.convert("L").save(a / "clear grey.png", transparency=3)
    rgb.save(a / "clear rgb.png", transparency=(1, 2, 3))
    rgb.convert("RGBA").save(a / "alpha.webp")
    rgb.save(b / "lossy.webp", quality=40)
    rgb.save(b / "progressive.jpeg", progressive=True)
    frames = [Image.fromarray(noise(9, 9, i)) for i in range(3)]
    frames[0].save(a / "animated.png", save_all=True, append_images=frames[1:])
    frames[0].save(a / "animated.webp", save_all=True, append_images=frames[1:])
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(b / f"turned{orientation}.jpg", noise(12, 18, orientation), exif=exif)
    for suffix in ("png", "jpg", "webp"):
        buffer = io.BytesIO()
        rgb.save(buffer, {"jpg": "jpeg"}.get(suffix, suffix))
        for share in (0.1, 0.6, 0.97):
            (b / f"cut {share}.{suffix}").write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * share)])
        (a / f"wrong {suffix}.{'png' if suffix != 'png' else 'jpg'}").write_bytes(buffer.getvalue())
        (b / f"empty.{suffix}").touch()
        (b / f"text.{suffix}").write_text("no picture")
    rgb.save(a / "really a gif.png", "GIF")
    rgb.save(a / "drawing.bmp")
    rgb.save(a / "UPPER.PNG")
    rgb.save(a / "upper.png")
    for name in ("ünïcödé.png", "日本語.png", "🐈.png", "space  two.png", "'quote\".png", "-dash.png", "a\nline.png"):
        rgb.save(a / name)
    rgb.save(a / "same.png")
    rgb.save(a / "same.jpg")
    rgb.save(a / "same.webp")
    (a / "link.png").symlink_to("same.png")
    (a / "broken.png").symlink_to("nowhere.png")
    (a / "loop").symlink_to(a)
    (a / "clash.png").mkdir()
    rgb.save(a / "clash.png" / "in.png")
    rgb.save(a / "clash.jpg")
    rgb.save(a / ".hidden.png")
    rgb.save(root / "outside.png")
    os.mkfifo(a / "pipe.png")
    name = os.fsdecode(b"bytes \xff.png")
    rgb.save(a / "x.tmp", "PNG")
    (a / "x.tmp").rename(a / name)
    found = set()
    for folder, folders, files in os.walk(root):
        linked = [name for name in folders if (Path(folder) / name).is_symlink()]
        found |= {(Path(folder) / name).relative_to(root).as_posix() for name in [*files, *linked]}
    return found


def test_every_odd_file_is_protected_or_listed_with_a_reason(tmp_path: Path) -> None:
    root, out = tmp_path / "photos", tmp_path / "out"
    names = odd(root)
    assert len(names) > 70
    for folder in (root, root / "a", root / "b"):
        folder.chmod(0o555)
    before = {path: path.lstat().st_mtime_ns for path in [root, *root.rglob("*")]}
    try:
        made = protect(root, out, **QUICK)
    finally:
        for folder in (root, root / "a", root / "b"):
            folder.chmod(0o755)
    assert {path: path.lstat().st_mtime_ns for path in [root, *root.rglob("*")]} == before
    sources = [entry["source"] for entry in made["pictures"]]
    left_out = {left["source"]: left["reason"] for left in made["left_out"]}
    assert len(sources) == len(set(sources))
    assert len(left_out) == len(made["left_out"])
    assert not set(sources) & set(left_out)
    printable = {name.encode("utf-8", "backslashreplace").decode() for name in names}
    assert set(sources) | set(left_out) == printable
    assert all(len(reason) > 5 and str(tmp_path) not in reason for reason in left_out.values())
    assert {f"a/size{i}.png" for i in range(7)} < set(sources)
    assert {"a/cmyk.jpg", "a/grey16.png", "a/link.png", "a/🐈.png", "b/turned8.jpg", "a/wrong webp.png"} < set(sources)
    assert {"a/animated.png", "a/loop", "a/broken.png", "b/empty.jpg", "a/pipe.png", "outside.png"} < set(left_out)
    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert written == {entry["target"] for entry in made["pictures"]} | {"manifest.json"}
    for entry in made["pictures"]:
        with Image.open(out / entry["target"]) as picture:
            picture.load()
            assert picture.format == "PNG"
            assert picture.size == (entry["width"], entry["height"])
        assert entry["linf"] <= 8


# The process is killed

KILLED = """
import itertools, json, os, random, shutil, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import miue_lib
from miue_lib.photos import protect, verdict

photos, work = Path(sys.argv[1]), Path(sys.argv[2])
verdict.training = lambda n, size: {**size.victim, "epochs": 1, "batch_size": 8}
verdict._side_by_side = lambda cache, calls: (call() for call in calls)
verdict.VIEWS = dict(list(verdict.VIEWS.items())[:2])
for name in ("stages", "protect"):
    sys.modules[f"miue_lib.photos.{name}"].VIEWS = verdict.VIEWS
settings = dict(surrogate="2nn", epochs=2, steps=1, step=4 / 255, fresh_every=None, noise_batch_size=8, batch_size=8)
calls = itertools.count(1)

def watched(module, name, end):
    # A process is killed before the n-th of the calls that change something on the disk.
    plain = getattr(module, name)
    def call(*arguments, **named):
        if next(calls) == end:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*arguments, **named)
    setattr(module, name, call)

def run(out, end=None):
    for module, names in ((os, ("fsync", "replace", "unlink", "rmdir")), (Path, ("replace", "mkdir"))):
        for name in names:
            watched(module, name, end)
    whole(out)
    return next(calls) - 1

def whole(out):
    protect(photos, out, method="miue", size=16, profile="cpu", device="cpu", seeds=2, settings=settings)

def child(work, *arguments):
    # In a process that has everything imported; no thread runs here, so that it can be forked.
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, b"%d" % work(*arguments))
        os._exit(0)
    os.close(writing)
    return pid, reading

def wait(pid, reading):
    _, status = os.waitpid(pid, 0)
    said = os.read(reading, 100)
    os.close(reading)
    return os.waitstatus_to_exitcode(status), int(said or 0)

def tree(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}

whole(work / "warm")  # what is compiled is compiled once
begun = time.perf_counter()
code, total = wait(*child(run, work / "never"))
seconds = time.perf_counter() - begun
assert code == 0, code
wanted, differ, codes = tree(work / "never"), [], []
ends = [1 + round(i / 9 * (total - 8)) for i in range(10)] + [total - i for i in range(7, -1, -1)]
for end in ends:
    codes.append(wait(*child(run, work / "out", end))[0])
    differ.append([wait(*child(run, work / "out"))[0], tree(work / "out") == wanted, end])
    shutil.rmtree(work / "out")
chance = random.Random(0)
for _ in range(4):
    pid, reading = child(run, work / "out")
    time.sleep(chance.uniform(0, seconds))
    os.kill(pid, signal.SIGKILL)
    wait(pid, reading)
    differ.append([wait(*child(run, work / "out"))[0], tree(work / "out") == wanted, "by time"])
    shutil.rmtree(work / "out")
print(json.dumps({"total": total, "codes": codes, "differ": differ, "files": list(wanted), "seconds": seconds}))
"""


def test_killed_at_any_moment_it_ends_as_if_it_had_never_been(photos: Path, tmp_path: Path) -> None:
    """Before one of the writes, renames and removals of a run, and at times that know nothing of these."""
    found = subprocess.run(
        [sys.executable, "-c", KILLED, str(photos), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "0"},
        cwd=Path(mi.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    said = json.loads(found.stdout)
    # How many calls there are depends a little on who is first: threads that make a folder, a journal that waits 2 s.
    # So the last ends may come too late.
    assert said["codes"].count(-9) >= 12
    assert said["total"] > 50
    assert {"report.html", "manifest.json", "dogs/deep/turned.png"} < set(said["files"])
    assert not any(".miue_lib" in name or name.endswith(".part") for name in said["files"])
    assert [run for run in said["differ"] if run[:2] != [0, True]] == []


# Several processes

SHARED = """
import json, os, sys, time
from pathlib import Path
import torch
from torch import distributed
from miue_lib.photos import protect, verdict

torch.set_num_threads(1)
verdict.training = lambda n, size: {**size.victim, "epochs": 1, "batch_size": 8}
verdict._side_by_side = lambda cache, calls: (call() for call in calls)
rank, photos, work = int(os.environ["RANK"]), Path(sys.argv[1]), Path(sys.argv[2])
distributed.init_process_group("gloo", init_method=f"file://{work}/meet", rank=rank, world_size=2)
settings = dict(surrogate="2nn", epochs=1, steps=1, step=4 / 255, fresh_every=None, noise_batch_size=8, batch_size=8)
how = dict(method="miue", size=16, profile="cpu", device="cpu", seeds=2, settings=settings)
lines = []

made = [protect(photos, work / name, progress=lines.append, **how) for name in ("one", "two", "two")]
images = sys.modules["miue_lib.photos.protect"]._images
if rank == 1:  # it comes late to where noise is made, by a method that does not wait for the others
    sys.modules["miue_lib.photos.protect"]._images = lambda *given: (time.sleep(1), images(*given))[1]
protect(photos, work / "random", method="random", size=16, device="cpu", report=False)
try:
    protect(photos, work / "full", **how)
    refused = ""
except ValueError as error:
    refused = str(error)
print(json.dumps({"same": made[0] == made[1] == made[2], "lines": len(lines), "refused": refused}))
distributed.destroy_process_group()
"""


def test_two_processes_share_the_work(photos: Path, tmp_path: Path) -> None:
    for i in range(4, 8):
        save(photos / "cats" / f"{i}.png", noise(20, 20, 50 + i))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SHARED, str(photos), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"RANK": str(rank), "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "0"},
            cwd=Path(mi.__file__).parents[1],
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (_, errors) in zip(running, outputs, strict=True):
        assert process.returncode == 0, errors
    one, two = (json.loads(output) for output, _ in outputs)
    assert one["same"] and two["same"]
    assert one["lines"] > 3
    assert two["lines"] == 0, "one process tells of all"
    assert "'mine'" in one["refused"] and "'mine'" in two["refused"]
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    made = json.loads((tmp_path / "one" / "manifest.json").read_bytes())
    assert made["settings"]["processes"] == 2
    assert [entry["source"] for entry in made["pictures"]] == sorted(entry["source"] for entry in made["pictures"])
    assert len(made["pictures"]) == 15
    with pytest.raises(ValueError, match="processes 2, here 1"):
        protect(photos, tmp_path / "one", method="miue", size=16, profile="cpu", device="cpu", seeds=2)


# What it would do


def test_a_plan_counts_every_victim(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock on which all that is measured takes a second: so rounds are of 4 squares, two of each class.

    2 seeds of 8 kinds of victims, each 3 epochs on 5/6 of the 11 pictures, 9.
    """
    clock = itertools.count(0.0)
    monkeypatch.setattr(plan_module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(verdict, "training", lambda n, size: {**size.victim, "epochs": 3, "batch_size": 16})
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    memory = []
    for beside in (1, 4):
        monkeypatch.setattr(plan_module, "find_spec", lambda name, there=beside > 1: there)
        found = plan(photos, tmp_path / "out", **QUICK | {"report": True, "seeds": 2})
        assert found["seconds"]["victims"] == pytest.approx(2 * 8 * 3 * 9 / 4 / beside)
        memory.append(found["memory"])
    assert memory[1] - memory[0] > 1e9, "processes take memory"


def test_a_plan_writes_nothing_and_says_what_would_be(photos: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    found = plan(photos, tmp_path / "out", **QUICK | {"report": True, "seeds": 2})
    assert tree(tmp_path) == before
    assert not (tmp_path / "out").exists()
    assert found["state"] == "new"
    assert found["classes"] == {"cats": 5, "dogs": 6}
    assert [left["source"] for left in found["left_out"]] == ["dogs/notes.txt"]
    sizes = [
        source_pixels(photos / path).shape for path in ("cats/grey.jpg", "dogs/Größe 日本.webp", "dogs/deep/turned.JPG")
    ]
    wanted = sum(2 * (20 + 9 * i) * 40 for i in range(4)) + sum(h * w for h, w, *_ in sizes)
    assert found["pixels"] == wanted, "of so few, all are looked into"
    assert all(seconds > 0 for seconds in found["seconds"].values())
    assert 0.5 * 3 * wanted < found["bytes"] < 1.5 * 3 * wanted, "noise does not compress"
    begun(photos, tmp_path / "out", "publishing")
    before = tree(tmp_path / "out")
    found = plan(photos, tmp_path / "out", **QUICK)
    assert (found["state"], found["published"]) == ("begun", 11)
    assert tree(tmp_path / "out") == before


# The work folder's parts


def test_a_journal_survives_the_loss_of_its_end(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for count in (3, 2):
        with Journal(path) as journal:
            for i in range(count):
                journal.add({"i": i})
    whole = path.read_bytes()
    assert [line["i"] for line in read_journal(path)] == [0, 1, 2, 0, 1]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        with Journal(path) as journal:
            journal.add({"i": 7})
        lines = whole[:cut].count(b"\n")
        assert [line["i"] for line in read_journal(path)] == [*[0, 1, 2, 0, 1][:lines], 7]
    path.write_bytes(whole + bytes(100))
    assert len(read_journal(path)) == 5


def test_rows_stay_where_they_were_written(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows", 5, (2, 3))
    rows.write(3, np.full((2, 3), 7, np.uint8))
    rows.flush()
    rows.close()
    again = Rows(tmp_path / "rows", 5, (2, 3))
    again.write(0, np.full((2, 3), 1, np.uint8))
    again.close()
    assert again.all()[:, 0, 0].tolist() == [1, 0, 0, 7, 0]
    with pytest.raises(ValueError, match="row: got"):
        rows.write(0, np.zeros((3, 2), np.uint8))


def test_work_side_by_side_comes_in_order_and_an_error_ends_it() -> None:
    begun: list[int] = []

    def work(i: int) -> int:
        begun.append(i)
        if i == 5:
            raise KeyError(i)
        return i * i

    found = side_by_side(work, range(100), 3)
    with pytest.raises(KeyError):
        assert [next(found) for _ in range(100)]
    assert max(begun) < 5 + 3 * 3
    assert list(side_by_side(abs, range(-9, 0), 2)) == list(range(9, 0, -1))


def test_room_is_never_more_than_there_is() -> None:
    room, inside, most = Room(10), list[int](), list[int]()

    def work(amount: int) -> None:
        with room(amount):
            inside.append(min(amount, 10))
            most.append(sum(inside))
            time.sleep(1e-3)
            inside.remove(min(amount, 10))

    list(side_by_side(work, [3, 9, 4, 200, 1, 10] * 10, 4))
    assert 10 >= max(most) > 0
    assert len(most) == 60


def test_a_lock_is_let_go_of(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "work"
    with locked(folder), pytest.raises(ValueError, match="another process is at work"), locked(folder):
        pass
    with locked(folder):
        (folder / "lock").unlink()


def test_steps_tell_the_last_and_say_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("miue_lib.photos.work.time.monotonic", lambda: now[0])
    monkeypatch.setattr("sys.stderr", io.StringIO())  # no person watches
    lines: list[str] = []
    steps = Steps(lines.append, "reading", 10)
    for _ in range(10):
        now[0] += 2
        steps.step()
    assert lines == [
        "reading 3/10, about 14 s to go",
        "reading 6/10, about 8 s to go",
        "reading 9/10, about 2 s to go",
        "reading 10/10 in 20 s",
    ]
    assert [in_words(seconds) for seconds in (5, 600, 36000)] == ["5 s", "10 min", "10.0 h"]
