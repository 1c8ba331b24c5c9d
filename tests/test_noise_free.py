"""LSP, OPS and CUDA: patterns that need no network. Budgets hold as published, and patterns belong to classes."""

import itertools
from typing import Any

import pytest
import torch

import miue_lib as mi
from miue_lib.noise.cuda_conv import cuda_conv
from miue_lib.noise.l2 import levels_in_ball
from miue_lib.noise.lsp import lsp
from miue_lib.noise.ops import class_pixels, ops, painted

RADIUS = 6 / 255 * 144**0.5  # a root mean square of 6 levels over 12 × 12
QUICK: dict[Any, dict[str, Any]] = {lsp: {"radius": RADIUS, "patch": 4}, ops: {}, cuda_conv: {}}
SHAPES = [(1, 12, 12), (3, 9, 13)]


def pictures(n: int, shape: tuple[int, ...], classes: int = 3, seed: int = 0) -> mi.ImageSet:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(classes, (n,), generator=generator)
    return mi.ImageSet(images, labels, tuple(str(c) for c in range(classes)))


def grey(n: int, shape: tuple[int, ...], classes: int = 3) -> mi.ImageSet:
    return mi.ImageSet(torch.full((n, *shape), 128, dtype=torch.uint8), torch.arange(n) % classes)


def change(images: mi.ImageSet, noise: mi.Perturbation) -> torch.Tensor:
    return (images.with_(noise).images.int() - images.images.int()).double() / 255


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [0.05, 0.2, 1.0, 5.0])
def test_what_is_published_lies_in_the_ball_and_near_its_surface(shape: tuple[int, ...], radius: float) -> None:
    images, generator = pictures(60, shape), torch.Generator().manual_seed(1)
    noise = torch.randn(images.images.shape, generator=generator)
    noise[0] = 0
    for clean, clipped in ((images, True), (grey(60, shape), False)):
        levels = levels_in_ball(clean, lambda rows: noise[rows], radius)
        published = clean.images.int() + levels
        assert published.min() >= 0
        assert published.max() <= 255
        norms = (levels.double() / 255).flatten(1).norm(dim=1)
        assert norms.max() <= radius * (1 + 1e-8)
        assert not levels[0].any()
        if not clipped and radius < 5:  # scaling stops within a few thousandths; the smallest noise is coarse
            assert norms[1:].min() >= radius * (0.8 if radius == 0.05 else 0.98)


def test_rounding_in_the_ball_is_to_the_nearest_level() -> None:
    images = grey(400, (1, 28, 28))
    noise = torch.randn(images.images.shape, generator=torch.Generator().manual_seed(1)).abs()
    levels = levels_in_ball(images, lambda rows: noise[rows], 0.5)
    sizes = noise * (0.5 * 255 / noise.flatten(1).norm(dim=1)[:, None, None, None])
    # Truncation would lose half a level on average.
    assert abs(float((levels - sizes).mean())) < 0.05


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [0.2, RADIUS, 3.0])
def test_lsp_keeps_its_budget(shape: tuple[int, ...], radius: float) -> None:
    images = pictures(90, shape)
    noise = lsp(images, radius=radius, patch=4)
    norms = change(images, noise).flatten(1).norm(dim=1)
    assert 0.5 * radius < norms.max() <= radius * (1 + 1e-8)
    assert noise.settings == {"radius": radius, "patch": 4, "separation": 10.0, "seed": 0}


@pytest.mark.parametrize("shape", SHAPES)
def test_lsp_is_flat_patches_whose_signs_are_the_class(shape: tuple[int, ...]) -> None:
    images = mi.ImageSet(grey(60, shape).images, torch.arange(60) % 3, ("0", "1", "2", "absent"))
    levels = lsp(images, radius=4 * RADIUS, patch=4, separation=1e6).levels
    for y, x in itertools.product(range(shape[1]), range(shape[2])):
        assert torch.equal(levels[..., y, x], levels[..., y - y % 4, x - x % 4])
    for c in range(3):
        own = levels[images.labels == c]
        assert torch.equal(own, own[:1].expand_as(own)), "so far apart, a class is one pattern"
    assert len(levels.flatten(1).unique(dim=0)) == 3


def test_lsp_varies_within_a_class_with_the_picture_alone() -> None:
    images = pictures(60, (1, 12, 12))
    levels = lsp(images, **QUICK[lsp]).levels
    assert len(levels.flatten(1).unique(dim=0)) == 60
    twice = mi.ImageSet(images.images[[0, 0, 1]], images.labels[[0, 0, 1]], images.classes)
    assert torch.equal(lsp(twice, **QUICK[lsp]).levels, levels[[0, 0, 1]])


def test_lsp_spreads_as_the_authors_classification_problem_does() -> None:
    """Colours of a class before scaling are A z + μ: of variance Σ A² ~ F/3 about ±separation, in every direction."""
    images = pictures(4000, (3, 16, 16), classes=2)
    levels = lsp(images, radius=20.0, patch=8, separation=0.0).levels[:, :, ::8, ::8]  # F = 12
    colours = levels[images.labels == 0].flatten(1).double()
    covariance = torch.linalg.eigvalsh(torch.corrcoef(colours.T))
    assert covariance.max() > 2 > 1 > covariance.min(), "A is a dense random matrix: colours are correlated"
    assert (colours.mean(0).abs() < 5 * colours.std(0) / len(colours) ** 0.5 + 2).all(), "without separation, no centre"


@pytest.mark.parametrize("method", [lsp, cuda_conv])
def test_noise_of_a_part_is_that_part_of_the_noise(method: Any) -> None:
    images = pictures(90, (1, 12, 12))
    part = torch.arange(89, 0, -3)
    whole = method(images, seed=3, **QUICK[method]).levels
    assert torch.equal(method(images.subset(part), seed=3, **QUICK[method]).levels, whole[part])


@pytest.mark.parametrize("method", QUICK)
def test_a_seed_repeats_the_noise_and_leaves_torch_alone(method: Any) -> None:
    images = grey(60, (1, 12, 12))  # grey, so that OPS has equal scores to choose among
    state = torch.get_rng_state()
    one, again, other = (method(images, seed=seed, **QUICK[method]) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.levels, again.levels)
    assert not torch.equal(one.levels, other.levels)


@pytest.mark.parametrize("shape", SHAPES)
def test_ops_takes_the_pixels_that_a_plain_search_takes(shape: tuple[int, ...]) -> None:
    images = pictures(90, shape)
    positions, colours = class_pixels(images, pixels=2)
    floats = images.floats().double().flatten(2)
    taken: list[tuple[int, tuple[int, ...]]] = []
    for c in range(3):
        scores = {}
        for p, corner in itertools.product(range(floats.shape[2]), itertools.product((0, 1), repeat=shape[0])):
            moved = (torch.tensor(corner) - floats[images.labels == c, :, p]).abs()
            scores[p, corner] = float(moved.mean() / moved.std(correction=0))
        ranked = sorted((pair for pair in scores if pair not in taken), key=lambda pair: -scores[pair])
        best = ranked[:1] + [pair for pair in ranked if pair[0] != ranked[0][0]][:1]
        taken += best
        assert [(int(p), tuple(k.tolist())) for p, k in zip(positions[c], colours[c], strict=True)] == best


@pytest.mark.parametrize("pixels", [1, 3])
def test_ops_changes_so_many_positions_to_the_colour_of_the_class(pixels: int) -> None:
    images = pictures(90, (3, 9, 13))
    noise = ops(images, pixels=pixels)
    assert (change(images, noise) != 0).any(1).flatten(1).sum(1).max() == pixels
    published = images.with_(noise).images.flatten(2)
    for c, (positions, colours) in enumerate(zip(*class_pixels(images, pixels=pixels), strict=True)):
        assert (published[images.labels == c][:, :, positions] == 255 * colours.T).all()


def test_ops_gives_constant_classes_pixels_of_their_own_that_change_them() -> None:
    """Where a class does not vary the score of the original is 1/0, or 0/0 for the colour that is there already."""
    images = mi.ImageSet(torch.zeros((40, 1, 6, 6), dtype=torch.uint8), torch.arange(40) % 4)
    positions, colours = class_pixels(images)
    assert (colours == 1).all()
    assert len(positions.unique()) == 4


def test_ops_never_gives_two_classes_the_same_position_and_colour() -> None:
    one = pictures(20, (1, 6, 6)).images
    images = mi.ImageSet(one.repeat(4, 1, 1, 1), torch.arange(4).repeat_interleave(20))  # every class wants the same
    positions, colours = class_pixels(images)
    assert len(set(zip(positions.flatten().tolist(), colours.flatten().tolist(), strict=True))) == 4


def test_ops_paints_new_pictures_by_their_class() -> None:
    images, new = pictures(90, (1, 12, 12)), pictures(20, (1, 12, 12), seed=1)
    positions, colours = class_pixels(images)
    published = new.images + painted(new, positions, colours)
    at = published.flatten(2).gather(2, positions[new.labels][:, None])
    assert torch.equal(at[:, 0, 0], 255 * colours[new.labels][:, 0, 0].to(at.dtype))


@pytest.mark.parametrize(("shape", "size"), [((1, 12, 12), 3), ((3, 9, 13), 5)])
def test_cuda_conv_is_a_convolution_with_the_classes_filter(shape: tuple[int, ...], size: int) -> None:
    """An impulse shows the filter: 1 in the centre, up to `blur` around it, the same for every channel and picture."""
    impulse = torch.zeros((30, *shape), dtype=torch.uint8)
    impulse[..., 4, 6] = 255
    images = mi.ImageSet(impulse, torch.arange(30) % 3)
    published = images.with_(cuda_conv(images, blur=0.3, size=size)).images
    around = published[..., 4 - size // 2 : 5 + size // 2, 6 - size // 2 : 7 + size // 2]
    assert torch.equal(around.int().sum((1, 2, 3)), published.int().sum((1, 2, 3)))
    assert (around[..., size // 2, size // 2] == 255).all()
    off = around.int().clone()
    off[..., size // 2, size // 2] = 0
    assert 0.2 * 255 < off.max() <= 0.3 * 255 + 0.5
    assert torch.equal(around, around[:3, :1].repeat(10, shape[0], 1, 1))
    assert len(around.flatten(1).unique(dim=0)) == 3


def test_cuda_conv_scales_to_the_pictures_maximum_and_is_a_library_convolution() -> None:
    images = pictures(30, (3, 9, 13))
    images.images[0] = 0
    published = images.with_(cuda_conv(images, blur=0.5)).images
    assert not published[0].any()
    assert (published[1:].amax((1, 2, 3)) == 255).all()
    impulse = torch.zeros((3, 1, 5, 5), dtype=torch.uint8)
    impulse[..., 2, 2] = 255
    shown = mi.ImageSet(impulse, torch.arange(3))
    filters = shown.with_(cuda_conv(shown, blur=0.5)).floats()[..., 1:4, 1:4].flip(2, 3)  # to half a level of 255
    for picture, label, got in list(zip(images.floats(), images.labels, published, strict=True))[1:]:
        wanted = torch.conv2d(picture[:, None], filters[label, None], padding=1)[:, 0]
        # Eight neighbours, each wrong by up to half a level; as much again for the maximum; and one rounding.
        assert (255 * wanted / wanted.max() - got).abs().max() <= 8.5 + 0.5


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (lsp, {"radius": 0.5}),
        (lsp, {"patch": 3}),
        (lsp, {"separation": 2.0}),
        (ops, {"pixels": 2}),
        (cuda_conv, {"blur": 0.2}),
        (cuda_conv, {"size": 5}),
    ],
)
def test_each_setting_reaches_the_method(method: Any, settings: dict[str, Any]) -> None:
    images = pictures(30, (1, 12, 12))
    noise = method(images, **QUICK[method] | settings)
    assert not torch.equal(noise.levels, method(images, **QUICK[method]).levels)
    assert noise.settings.items() >= settings.items()


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (lsp, {"radius": 0}, r"radius: got 0, expected a number in \(0, 12\]"),
        (lsp, {"radius": 0.02}, r"radius: got 0\.02, expected at least 0\.04706 for 1×12×12"),
        (lsp, {"patch": 0}, "patch: got 0, expected a whole number >= 1"),
        (lsp, {"patch": 12}, "patch: got 12, expected smaller patches: 1 colours have 2 signs for 3 classes"),
        (lsp, {"separation": -1}, "separation: got -1, expected a finite number >= 0"),
        (lsp, {"seed": -1}, "seed: got -1, expected a whole number >= 0"),
        (ops, {"pixels": 0}, "pixels: got 0, expected a whole number from 1 to 72"),
        (ops, {"pixels": 73}, "pixels: got 73, expected a whole number from 1 to 72"),
        (ops, {"seed": 0.5}, r"seed: got 0\.5, expected a whole number >= 0"),
        (cuda_conv, {"blur": 0}, r"blur: got 0, expected a number in \(0, 1\]"),
        (cuda_conv, {"size": 4}, "size: got 4, expected an odd number"),
        (cuda_conv, {"size": 1}, "size: got 1, expected a whole number >= 2"),
        (cuda_conv, {"seed": "x"}, "seed: got 'x', expected a whole number >= 0"),
    ],
)
def test_bad_settings_are_refused(method: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method(pictures(30, (1, 12, 12)), **QUICK[method] | settings)


@pytest.mark.parametrize("levels", [1.0, 1.3, 6.0])
def test_flat_noise_is_not_rounded_away(levels: float) -> None:
    """Noise that is alike over a patch rounds up or down as a whole; the smallest radius that is taken keeps most."""
    grey = mi.ImageSet(torch.full((90, 1, 28, 28), 128, dtype=torch.uint8), torch.arange(90) % 3)
    grey = mi.ImageSet(grey.images + (torch.arange(90) % 30).view(-1, 1, 1, 1).to(torch.uint8), grey.labels)
    radius = levels / 255 * 28
    norms = mi.craft("lsp", grey, radius=radius).delta.flatten(1).norm(dim=1)
    assert norms.max() <= radius * (1 + 1e-6)
    assert norms.min() > 0.5 * radius


def test_many_classes_may_share_positions_of_ops() -> None:
    """A hundred classes on 64 pixels: 128 pairs of position and colour."""
    images = torch.randint(0, 256, (200, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    positions, colours = class_pixels(mi.ImageSet(images, torch.arange(200) % 100))
    assert len({*zip(positions[:, 0].tolist(), colours[:, 0, 0].tolist(), strict=True)}) == 100
    with pytest.raises(ValueError, match="images: got 200 classes of 8×8 pixels, expected a pixel for each class"):
        class_pixels(mi.ImageSet(images, torch.arange(200)))
