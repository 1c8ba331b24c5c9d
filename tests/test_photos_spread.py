"""Noise spread over pictures of any size: what the trainer's square shows of it, and how visible it is."""

import importlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import miue_lib as mi
from miue_lib.folder import read_tree
from miue_lib.photos.picture import read
from miue_lib.photos.seen import Seen, compare
from miue_lib.photos.spread import spread, square
from miue_lib.visibility import visibility

module = importlib.import_module("miue_lib.photos.spread")
SHAPES = [
    (1, 1, 3),
    (1, 50, 1),
    (60, 2, 3),
    (7, 5, 3),
    (12, 12, 3),
    (13, 12, 1),
    (30, 41, 3),
    (33, 400, 3),
    (90, 25, 1),
]


def pixels(*shape: int, seed: int = 0, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape, dtype=np.uint8)


def levels(side: int = 12, most: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-most, most + 1, (3, side, side)).astype(np.int8)


def added(picture: np.ndarray, noise: np.ndarray, most: int = 8) -> np.ndarray:
    return spread(picture, noise, most).astype(int) - picture


def grey(*shape: int) -> np.ndarray:
    """A flat picture: nothing is clipped at black or white, and its square is exactly as flat."""
    return np.full(shape, 128, np.uint8)


def shown(picture: np.ndarray, published: np.ndarray, side: int) -> np.ndarray:
    """What a trainer sees of the noise, `(3, side, side)` as it was crafted."""
    return (square(published, side).astype(int) - square(picture, side)).transpose(2, 0, 1)


def test_the_square_is_what_a_folder_of_pictures_is_read_as(tmp_path: Path) -> None:
    pictures = [pixels(30, 41, 3), pixels(50, 9, 1, seed=1), pixels(5, 4, 3, seed=2), pixels(1, 90, 1, seed=3)]
    for i, picture in enumerate(pictures):
        folder = tmp_path / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(picture.squeeze(2) if picture.shape[2] == 1 else picture).save(folder / f"{i}.png")
    parts = read_tree(tmp_path, 12, 0.5, 0)
    read = sorted(image.permute(1, 2, 0).numpy().tobytes() for part in parts for image in part[0])
    assert read == sorted(square(picture, 12).tobytes() for picture in pictures)


def test_where_a_picture_is_transparent_its_square_shows_what_is_stored(tmp_path: Path) -> None:
    """Where a folder is read, it lies on white, and nothing else is seen of one that is clear everywhere."""
    colours = pixels(30, 41, 3)
    files = [tmp_path / folder / f"{i}.png" for folder in "ab" for i in range(2)]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.concatenate([colours, np.zeros((30, 41, 1), np.uint8)], axis=2)).save(file)
    assert all((part[0] == 255).all() for part in read_tree(tmp_path, 12, 0.5, 0))
    assert np.array_equal(square(read(files[0].read_bytes()).pixels, 12), square(colours, 12))


def test_a_picture_of_the_square_s_size_gets_the_levels_unchanged() -> None:
    noise = levels()
    assert np.array_equal(added(grey(12, 12, 3), noise), noise.transpose(1, 2, 0))
    picture = pixels(12, 12, 3)
    expected = np.clip(picture.astype(int) + noise.transpose(1, 2, 0), 0, 255)
    assert np.array_equal(spread(picture, noise.astype(np.int16), 8), expected)
    assert np.array_equal(added(grey(12, 12, 3), noise, most=3), noise.transpose(1, 2, 0).clip(-3, 3))


def test_a_grey_picture_gets_the_mean_over_channels() -> None:
    noise = levels()
    assert np.array_equal(added(grey(12, 12, 1), noise)[..., 0], np.rint(noise.astype(float).mean(0)))
    per_channel = np.broadcast_to(np.int8([[[3]], [[7]], [[-4]]]), (3, 12, 12))
    assert np.array_equal(added(grey(40, 25, 1), per_channel), np.full((40, 25, 1), 2))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_budget_holds_everywhere_and_even_noise_stays_even(shape: tuple[int, ...]) -> None:
    picture = pixels(*shape)
    before = picture.copy()
    published = spread(picture, levels(most=60), 8)
    assert published.dtype == np.uint8
    assert published.shape == shape
    assert np.array_equal(picture, before)
    assert abs(published.astype(int) - picture).max() <= 8
    assert np.array_equal(added(picture, levels(most=60), most=0), np.zeros(shape))
    # Weights sum to 1 up to float32's rounding, 5 · 2⁻²⁴ a tap: far from the half level at which rounding would turn.
    assert np.array_equal(added(grey(*shape), np.full((3, 12, 12), 5, np.int8)), np.full(shape, 5))


@pytest.mark.parametrize("size", [(18, 18), (37, 28), (120, 160), (1000, 90)])
def test_a_square_shows_coarse_noise_as_it_was_crafted(size: tuple[int, int]) -> None:
    cell = np.arange(12) + 0.5
    wave = 8 * np.cos(np.pi * cell / 12)[:, None] * np.cos(np.pi * 2 * cell / 12)
    noise = np.rint(np.stack([wave, -wave, wave.T])).astype(np.int8)
    picture = grey(*size, 3)
    seen = shown(picture, spread(picture, noise, 20), 12)
    # A level: resampling makes these waves a little weaker (a cosine stays one), and two steps make up for it. What is
    # left is rounding, of half a level each: the noise, Pillow's rows, its columns. Rows and columns pass it on times
    # their sum of absolute weights, at most 1.3 each; but the three would have to agree in sign for more than one.
    assert abs(seen - noise).max() <= 1


def test_a_square_shows_of_a_fine_wave_what_two_steps_of_back_projection_give() -> None:
    # Of many pixels, enlarging and shrinking are convolutions with the same cubic (Keys 1981), so together one with its
    # autocorrelation. A wave, whose reflection goes on as a wave, is an eigenvector of that; here λ = 0.64.
    t = np.arange(-4, 4, 1e-3) + 5e-4

    def cubic(t: np.ndarray) -> np.ndarray:
        t = abs(t)
        return np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0))

    eigenvalue = sum(1e-3 * (cubic(t) * cubic(t - k)).sum() * np.cos(np.pi * 24 / 32 * k) for k in range(-3, 4))
    wave = np.rint(80 * np.cos(np.pi * 24 * (np.arange(32) + 0.5) / 32))
    noise = np.broadcast_to(wave, (3, 32, 32)).astype(np.int8)
    picture = grey(640, 700, 3)
    seen = shown(picture, spread(picture, noise, 127), 32)
    expected = (1 - (1 - eigenvalue) ** 3) * wave
    # Levels, all of rounding: 0.5 where the square is made of rows and 0.5 · 1.3 (the sum of absolute weights) before;
    # 0.5 (1 − λ)³ of the wave itself, 0.02; the noise's own, over 20 columns a cell, 0.1. Without the steps 25 are
    # missing, after one 7, and after three 2 less are missing.
    assert abs(seen - expected).max() <= 1.3


@pytest.mark.parametrize("size", [(48, 48), (75, 100), (480, 640), (100, 1500)])
def test_a_square_shows_most_of_white_noise(size: tuple[int, int]) -> None:
    noise = levels(32)
    picture = grey(*size, 3)
    seen = shown(picture, spread(picture, noise, 8), 32).ravel()
    crafted = noise.ravel().astype(float)
    # White noise up to the budget, of which clipping takes much. Plain bicubic resampling gives 0.95 and 0.70. Of 3,072
    # values, the standard error of a correlation of 0.97 is (1 − 0.97²) / √3072 = 0.001.
    assert np.corrcoef(seen, crafted)[0, 1] > 0.97
    assert np.linalg.norm(seen) / np.linalg.norm(crafted) > 0.8


def test_beyond_the_middle_the_noise_is_reflected_again_and_again() -> None:
    wide = added(grey(20, 130, 3), levels())  # the middle is columns 55 to 74
    middle = wide[:, 55:75]
    # The mirrored sum has its terms in the other order. Of 6,000 values, float32's 10⁻⁶ would turn one with a
    # probability of 1 %; with this seed it does not.
    assert np.array_equal(wide[:, 75:95], middle[:, ::-1])
    assert np.array_equal(wide[:, 35:55], middle[:, ::-1])
    assert np.array_equal(wide[:, 95:115], middle)
    assert np.array_equal(wide[:, :90], wide[:, 40:])  # it repeats after twice the middle
    assert abs(middle[:, 1:] - middle[:, :-1]).max() > 0
    odd = added(grey(20, 131, 3), levels())  # the middle begins with half a pixel
    assert np.array_equal(added(grey(20, 131, 3), levels()[..., ::-1]), odd[:, ::-1])
    tall = added(grey(130, 20, 3), levels().transpose(0, 2, 1))
    assert abs(tall.transpose(1, 0, 2) - wide).max() <= 1  # summed first down, then along


def test_noise_shrinks_with_antialiasing() -> None:
    board = np.where(np.indices((12, 12)).sum(0) % 2, 8, -8)
    noise = np.broadcast_to(board, (3, 12, 12)).astype(np.int8)
    # Three cells a pixel, whose centre is a cell's: it would get ±8 without. Away from the edges, where a reflection
    # repeats a cell.
    long = np.tile(noise, (1, 4, 4))
    assert np.array_equal(added(grey(16, 16, 3), long)[3:-3, 3:-3], np.zeros((10, 10, 3)))
    assert abs(added(grey(48, 48, 3), long)).min() == 8


@pytest.mark.parametrize("shape", [(30, 41, 3), (41, 30, 1), (5, 200, 3), (200, 5, 3), (26, 24, 3)])
def test_strips_change_nothing(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    picture, noise = pixels(*shape), levels()
    whole = spread(picture, noise, 8)  # in one strip
    assert np.array_equal(spread(picture, noise, 8), whole)
    for rows, columns in ((1, shape[1]), (7, shape[1]), (shape[0], 1), (7, 9)):
        monkeypatch.setattr(module, "_COLUMNS", columns)
        monkeypatch.setattr(module, "_VALUES", rows * columns * shape[2])
        assert np.array_equal(spread(picture, noise, 8), whole), (rows, columns)


def test_any_layout_in_memory_will_do() -> None:
    picture = pixels(60, 82, 3)[::-2, ::2]
    copy = np.ascontiguousarray(picture)
    published = spread(picture, levels(), 8)
    assert np.array_equal(published, spread(copy, levels(), 8))
    assert np.array_equal(square(picture, 12), square(copy, 12))
    assert compare(picture, published) == compare(copy, published)
    copy.flags.writeable = False  # as what Pillow lends
    assert np.array_equal(published, spread(copy, levels(), 8))
    assert compare(picture, published) == compare(copy, published)
    assert published.flags.writeable


def test_memory_does_not_grow_with_the_picture() -> None:
    def beyond(height: int, width: int) -> int:
        picture = grey(height, width, 3)
        compare(picture[:12, :12], picture[:12, :12])  # compiled before it is measured
        tracemalloc.start()
        try:
            published = spread(picture, levels(32), 8)
            compare(picture, published)
            return tracemalloc.get_traced_memory()[1] - published.nbytes
        finally:
            tracemalloc.stop()

    # Four arrays of 2¹⁸ float32 and less are at work at once, and the noise along 1,500 pixels.
    assert beyond(1500, 1500) < 12e6
    assert beyond(100_000, 3) < 12e6  # where the noise of many rows is made of many cells each


@pytest.mark.parametrize("shape", [(11, 11, 3), (40, 17, 1), (23, 400, 3), (12, 1100, 1)])
def test_compare_is_visibility(shape: tuple[int, ...]) -> None:
    picture = pixels(*shape)
    published = spread(picture, levels(), 8)
    clean, changed = (torch.from_numpy(side).permute(2, 0, 1)[None] for side in (picture, published))
    images = mi.ImageSet(clean, torch.tensor([0]))
    noise = mi.Perturbation.of_levels(images, changed.short() - clean.short(), epsilon=8 / 255, method="", settings={})
    expected = visibility(images, noise)
    found = compare(picture, published)
    assert found.linf == round(255 * float(expected.linf))
    # float64's rounding, 2⁻⁵³: of about 10⁴ squares, and over SSIM's least denominator, 0.0009
    assert found.psnr == pytest.approx(float(expected.psnr), rel=1e-12)
    assert found.ssim == pytest.approx(float(expected.ssim), abs=1e-12)


def test_compare_of_little() -> None:
    picture = grey(10, 300, 3)
    assert compare(picture, picture) == Seen(linf=0, psnr=None, ssim=None)
    changed = picture.copy()
    changed[4, 5] = [128, 131, 118]
    found = compare(picture, changed)
    assert found == compare(changed, picture)
    assert found.linf == 10
    assert found.psnr == pytest.approx(10 * np.log10(255**2 * 9000 / 109), rel=1e-12)
    assert found.ssim is None
    bright = np.full((30, 200, 3), 255, np.uint8)
    assert compare(bright, bright).ssim == pytest.approx(1, abs=1e-12)
    extremes = compare(bright, np.zeros_like(bright))
    assert (extremes.linf, extremes.psnr) == (255, 0)
    assert extremes.ssim == pytest.approx(1e-4 / (1 + 1e-4), rel=1e-9)  # C₁ / (1 + C₁): no contrast on either side


def test_what_is_no_picture_or_noise_is_refused() -> None:
    picture, noise = grey(20, 20, 3), levels()
    for wrong in (grey(20, 20), grey(20, 20, 4), grey(0, 20, 3), picture.astype(np.int16)):
        for call in (lambda p: square(p, 12), lambda p: spread(p, noise, 8), lambda p: compare(p, p)):
            with pytest.raises(
                ValueError, match=r"pixels: got u?int\d+ \(.*\), expected uint8 \(H, W, C\), C of 1 or 3"
            ):
                call(wrong)
    for bad_noise in (noise.astype(float), noise[:1], noise[:, :5], noise[:, :0, :0], noise[0]):
        with pytest.raises(ValueError, match=r"levels: got .*, expected int8 or int16 \(3, s, s\)"):
            spread(picture, bad_noise, 8)
    with pytest.raises(ValueError, match="most: got 8.5"):
        spread(picture, noise, 8.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="side: got 0"):
        square(picture, 0)
    with pytest.raises(ValueError, match=r"published: got shape \(19, 20, 3\), expected that of pixels, \(20, 20, 3\)"):
        compare(picture, picture[1:])
