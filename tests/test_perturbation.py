"""Noise as published: the budget holds after rounding, files are whole or refused."""

import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import miue_lib as mi
from miue_lib.perturbation import budget_in_levels


def perturbation(images: mi.ImageSet, epsilon: float, scale: float = 2.0, seed: int = 0) -> mi.Perturbation:
    generator = torch.Generator().manual_seed(seed)
    delta = scale * epsilon * (2 * torch.rand(images.images.shape, generator=generator) - 1)
    return mi.Perturbation.of(images, delta, epsilon=epsilon, method="test", settings={"seed": seed})


@given(epsilon=st.floats(1 / 255, 1), scale=st.floats(0, 3), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_budget_and_range_hold_after_rounding(epsilon: float, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randint(0, 256, (4, 1, 5, 5), generator=generator, dtype=torch.uint8)
    images = mi.ImageSet(pictures, torch.tensor([0, 0, 1, 1]))
    noise = perturbation(images, epsilon, scale, seed)
    published = images.with_(noise)
    moved = (published.images.int() - images.images.int()).abs().max().item()
    assert moved <= 255 * epsilon + 1e-6
    assert moved == round(255 * noise.linf)
    assert torch.equal(published.labels, images.labels)


def test_rounding_is_to_the_nearest_level_both_ways() -> None:
    images = mi.ImageSet(torch.full((1, 1, 1, 6), 100, dtype=torch.uint8), torch.tensor([0]))
    delta = torch.tensor([0.4, 0.6, 1.4, -0.4, -0.6, -1.4]).view(1, 1, 1, 6) / 255
    noise = mi.Perturbation.of(images, delta, epsilon=8 / 255, method="test", settings={})
    assert noise.levels.flatten().tolist() == [0, 1, 1, 0, -1, -1]
    # Truncation would pull every value towards zero: over uniform noise the mean change of |δ| is half a level.
    generator = torch.Generator().manual_seed(0)
    images = mi.ImageSet(torch.full((1, 1, 100, 100), 100, dtype=torch.uint8), torch.tensor([0]))
    delta = (2 * torch.rand((1, 1, 100, 100), generator=generator) - 1) * 8 / 255
    noise = mi.Perturbation.of(images, delta, epsilon=8 / 255, method="test", settings={})
    bias = 255 * (noise.delta.abs() - delta.abs()).mean().item()
    standard_error = 1 / math.sqrt(12 * delta.numel())  # a rounding error is uniform on ±½
    assert abs(bias) < 4 * standard_error


@pytest.mark.parametrize(("epsilon", "levels"), [(8 / 255, 8), (16 / 255, 16), (0.03, 7), (1.0, 255)])
def test_a_budget_is_whole_levels(epsilon: float, levels: int) -> None:
    assert budget_in_levels(epsilon) == levels


def test_a_file_brings_everything_back(tiny: mi.ImageSet, tmp_path: Path) -> None:
    for epsilon in (8 / 255, 200 / 255):  # within int8, and beyond it
        noise = perturbation(tiny, epsilon)
        noise.save(tmp_path / "noise.safetensors")
        back = mi.Perturbation.load(tmp_path / "noise.safetensors")
        assert torch.equal(back.levels, noise.levels)
        assert (back.epsilon, back.method, back.settings) == (epsilon, "test", {"seed": 0})
        assert torch.equal(tiny.with_(back).images, tiny.with_(noise).images)
    assert [path.name for path in tmp_path.iterdir()] == ["noise.safetensors"]


def test_noise_of_other_pictures_is_refused(tiny: mi.ImageSet) -> None:
    noise = perturbation(tiny, 8 / 255)
    other = mi.ImageSet(tiny.images.flip(0), tiny.labels, tiny.classes, "flipped")
    with pytest.raises(ValueError, match=r"perturbation: got noise made for other pictures .*, expected noise"):
        other.with_(noise)


def padded(old: bytes, about: bytes) -> bytes:
    """Another `about`, in as many bytes: the header's length stands before it."""
    return b'"about":"' + about.replace(b'"', b'\\"').ljust(len(old) - len(b'"about":""')) + b'"'


def test_truncated_and_foreign_files_are_refused(tiny: mi.ImageSet, tmp_path: Path) -> None:
    path = tmp_path / "noise.safetensors"
    noise = perturbation(tiny, 8 / 255)
    noise.save(path)
    whole = path.read_bytes()
    for size in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"path: got .*, expected a whole file written by Perturbation.save"):
            mi.Perturbation.load(path)
    path.write_bytes(whole.replace(b"miue_lib.perturbation/2", b"something.else.entirely"))
    with pytest.raises(ValueError, match=r"of format 'something.else.entirely', expected format"):
        mi.Perturbation.load(path)
    for about in (b"{}", b"[1]", b"not json"):
        damaged = re.sub(rb'"about":"(?:[^"\\]|\\.)*"', lambda m: padded(m[0], about), whole)  # noqa: B023
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"path: got .*, expected a whole file written by Perturbation.save"):
            mi.Perturbation.load(path)
    with pytest.raises(ValueError, match=r"path: got .*nowhere.*, expected a file written by"):
        mi.Perturbation.load(tmp_path / "nowhere")


def test_saving_leaves_the_old_file_or_the_new_one(
    tiny: mi.ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "noise.safetensors"
    perturbation(tiny, 8 / 255).save(path)
    before = path.read_bytes()

    def disk_full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        perturbation(tiny, 8 / 255, seed=1).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(ValueError, match=r"path: got .*, expected a file in a folder that exists"):
        perturbation(tiny, 8 / 255).save(tmp_path / "no" / "noise")


def test_impossible_noise_is_refused(tiny: mi.ImageSet) -> None:
    def of(delta: torch.Tensor) -> mi.Perturbation:
        return mi.Perturbation.of(tiny, delta, epsilon=8 / 255, method="test", settings={})

    with pytest.raises(ValueError, match=r"delta: got shape \(2, 1, 12, 12\), expected the pictures' shape"):
        of(torch.zeros(2, 1, 12, 12))
    with pytest.raises(ValueError, match="delta: got NaN"):
        of(torch.full(tiny.images.shape, torch.nan))
    with pytest.raises(ValueError, match="levels: got noise of 9/255, expected at most epsilon = 8/255"):
        mi.Perturbation(torch.full(tiny.images.shape, 9, dtype=torch.int16), 8 / 255, "test", {}, tiny.fingerprint)
    with pytest.raises(ValueError, match="levels: got noise of 32768/255"):  # whose absolute value int16 cannot hold
        mi.Perturbation(torch.full(tiny.images.shape, -32768, dtype=torch.int16), 8 / 255, "test", {}, "")
    for epsilon in (5.0, math.nan, 0):
        with pytest.raises(ValueError, match="epsilon: got .*, expected a number in"):
            mi.Perturbation.of(tiny, torch.zeros(tiny.images.shape), epsilon=epsilon, method="test", settings={})
