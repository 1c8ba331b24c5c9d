"""Orthogonal projection: which directions, that they are gone afterwards, and that nothing else is."""

import math
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression

import miue_lib as mi
from miue_lib.defenses.projection import directions_of, project_out


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def middling(n: int = 300, channels: int = 1, seed: int = 0) -> mi.ImageSet:
    """Pictures between 78 and 178, so that no projection here comes near 0 or 255; d = 64 pixels a channel."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(78, 179, (n, channels, 8, 8), dtype=torch.uint8, generator=generator)
    return mi.ImageSet(images, torch.arange(n) % 3, name="middling")


def levels(images: mi.ImageSet) -> torch.Tensor:
    return images.images.flatten(1).double()


def test_directions_are_orthonormal_and_one_fewer_than_the_classes(tiny: mi.ImageSet) -> None:
    found = directions_of(tiny)
    assert (found.shape, found.dtype) == ((2, 144), torch.float64)
    # Of 144 products each: rounding errors add up to at most 144 of them.
    assert torch.allclose(found @ found.T, torch.eye(2, dtype=torch.float64), rtol=0, atol=144 * 2**-52)
    # A class without pictures has no direction, and two classes have one.
    two = tiny.subset(tiny.labels != 1)
    assert directions_of(two).shape == (1, 144)


@pytest.mark.parametrize("decay", [1.0, 0.02, 0.001])
def test_the_directions_are_those_of_scikit_learns_logistic_regression(tiny: mi.ImageSet, decay: float) -> None:
    pixels = levels(tiny) / 255
    pixels = pixels - pixels.mean(0)
    model = LogisticRegression(C=1 / (decay * len(tiny)), fit_intercept=False, tol=1e-8, max_iter=10_000)
    theirs = torch.from_numpy(model.fit(pixels.numpy(), tiny.labels.numpy()).coef_)
    ours = directions_of(tiny, decay=decay)
    # The objective is λ-strongly convex: with every derivative below 1e-6, W `(3, 144)` is √432 · 1e-6/λ from the
    # minimum or less, and theirs, at 1e-8, a hundredth of that.
    error = 1.01 * math.sqrt(432) * 1e-6 / decay
    assert float((theirs - theirs @ ours.T @ ours).norm()) < error
    assert float(theirs.norm()) > 10 * error


def test_the_span_of_given_directions_is_taken_out_around_the_mean() -> None:
    images = middling(channels=3)
    given = normal(4, 3, 8, 8)
    given[1] = given[0] + 1e-3 * given[1]  # nearly parallel
    given[2] *= 1e9
    pixels = levels(images)
    mean = pixels.mean(0)
    basis = torch.linalg.qr(given.flatten(1).T / given.flatten(1).norm(dim=1)).Q
    exact = mean + (pixels - mean) - (pixels - mean) @ basis @ basis.T
    projected = project_out(images, directions=given)
    assert projected.name == "middling, projected"
    assert torch.equal(projected.labels, images.labels)
    # Nothing is clipped, so all that differs is the rounding; directions 1e-3 apart cost 3 of 16 digits.
    assert float((levels(projected) - exact).abs().max()) <= 0.5 + 1e-9
    # So along each unit vector in the span no more than ‖rounding‖₂ ≤ √d/2 is left; before there was more.
    left = ((levels(projected) - mean) @ basis).norm(dim=1)
    assert float(left.max()) <= math.sqrt(192) / 2
    assert float(((pixels - mean) @ basis).norm(dim=1).max()) > math.sqrt(192) / 2
    assert torch.equal(project_out(images, directions=given.flatten(1)).images, projected.images)


def test_pixels_outside_the_span_stay_to_the_last_bit() -> None:
    images = middling()
    projected = project_out(images, directions=3 * torch.eye(64)[[5, 9]])
    outside = torch.ones(64, dtype=torch.bool)
    outside[[5, 9]] = False
    assert torch.equal(levels(projected)[:, outside], levels(images)[:, outside])
    mean = levels(images).mean(0)[[5, 9]].round()
    assert torch.equal(levels(projected)[:, [5, 9]], mean.expand(300, 2))


def test_projecting_again_changes_nothing() -> None:
    images = middling(channels=3)
    directions = torch.linalg.qr(normal(192, 2)).Q.T
    once = project_out(images, directions=directions)
    # What the rounding e put back along the directions moves pixel i by |(QQᵀe)ᵢ| ≤ √hᵢ ‖e‖, of which uniform
    # e has a standard deviation of √(hᵢ/12): 0.03 for hᵢ = 2/192, far from the half level that would show.
    leverage = directions.square().sum(0).max()
    assert 6 * math.sqrt(float(leverage) / 12) < 0.5
    assert torch.equal(project_out(once, directions=directions).images, once.images)


def test_what_leaves_the_pixel_range_is_clipped() -> None:
    pixels = torch.tensor([[0, 0], [255, 255], [255, 3]], dtype=torch.uint8)
    images = mi.ImageSet(pixels.view(3, 1, 1, 2), torch.tensor([0, 1, 1]))
    # m = (170, 86). Along (1, 1)/√2 the x − m have −128, 127 and 1 in both pixels.
    assert levels(project_out(images, directions=torch.ones(1, 2))).tolist() == [[128, 128], [128, 128], [254, 2]]
    # The first has −50.8 of (2, −1): (−170 + 101.6, −86 − 50.8) is left, which is (101.6, −50.8) with the mean.
    assert levels(project_out(images, directions=torch.tensor([[2.0, -1.0]])))[0].tolist() == [102, 0]


def patterned(n: int, seed: int) -> mi.ImageSet:
    """Normal pictures of standard deviation 20 levels, plus a pattern of ±16 that only the class decides."""
    labels = torch.arange(n) % 2
    pattern = 16 * normal(1, 8, 8, seed=99).sign()
    pixels = 128 + 20 * normal(n, 1, 8, 8, seed=seed) + pattern * (2 * labels - 1).view(n, 1, 1, 1)
    return mi.ImageSet((pixels / 255).clamp(0, 1), labels)


def test_a_class_wise_pattern_is_taken_from_pictures_and_a_linear_model_is_left_to_chance() -> None:
    train, fresh = patterned(2000, 0), patterned(4000, 1)
    # For a large λ the weights are the difference of the class means, whose error has 4σ²/n a pixel.
    directions = directions_of(train, decay=10.0)
    pattern = normal(64, seed=99).sign()
    left = 32 * (pattern - pattern @ directions.T @ directions).norm() / 20  # between the classes, in deviations
    # χ² of 63 times 4/n: 0.126 with a deviation of 0.022, of 13² that there was.
    assert float(left**2) < 0.126 + 4 * 0.022

    def accuracy(images: mi.ImageSet) -> float:
        pixels, labels = levels(images).numpy(), images.labels.numpy()
        return float(
            LogisticRegression(max_iter=1000).fit(pixels[:2000], labels[:2000]).score(pixels[2000:], labels[2000:])
        )

    assert accuracy(fresh) > 0.99
    # No rule does better than Φ(left/2) ≤ 1/2 + left/√(8π), plus three standard errors of 2,000 pictures.
    best = 0.5 + float(left) / math.sqrt(8 * math.pi)
    assert abs(accuracy(project_out(fresh, directions=directions)) - 0.5) < best - 0.5 + 3 * math.sqrt(0.25 / 2000)


def test_a_victims_pictures_lose_what_tells_classes_and_little_along_random_directions() -> None:
    train, _ = mi.load("fashion-mnist-mini", device="cpu")
    images = train.balanced(500)

    def lost(changed: mi.ImageSet) -> float:
        return float((levels(changed) - levels(images)).square().sum() / (levels(images) - mean).square().sum())

    mean = levels(images).mean(0)
    # Of 9 random directions among 784 an expected 9/784; clothes vary along few, so it may be some times that.
    assert lost(project_out(images, directions=normal(9, 784))) < 5 * 9 / 784
    assert lost(project_out(images)) > 10 * 9 / 784


def test_neither_chance_nor_order_nor_grad_mode_decides(tiny: mi.ImageSet) -> None:
    state = torch.get_rng_state()
    projected = project_out(tiny)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(project_out(tiny).images, projected.images)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert torch.equal(project_out(tiny).images, projected.images)
    order = torch.randperm(96, generator=torch.Generator().manual_seed(0))
    moved = project_out(tiny.subset(order)).images.int() - projected.images[order].int()
    assert int(moved.abs().max()) <= 1  # sums in another order: a value near a half may be rounded the other way


def test_more_pictures_than_go_at_once(tiny: mi.ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = project_out(tiny)
    monkeypatch.setattr("miue_lib.defenses.projection._ROWS", 7 * 144)
    assert int((project_out(tiny).images.int() - whole.images.int()).abs().max()) <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 0}, r"decay: got 0, expected a finite number > 0"),
        ({"directions": [1.0]}, r"directions: got list, expected a tensor of floating-point numbers"),
        ({"directions": torch.ones(2, 144, dtype=torch.int64)}, r"directions: got dtype torch.int64"),
        ({"directions": torch.ones(144)}, r"directions: got shape \(144,\), expected \(k, 144\) or \(k, 1, 12, 12\)"),
        ({"directions": torch.ones(2, 143)}, r"directions: got shape \(2, 143\), expected"),
        ({"directions": torch.ones(0, 144)}, r"directions: got shape \(0, 144\), expected"),
        ({"directions": torch.eye(2, 144) / 0}, r"directions: got NaN or infinite values, expected finite"),
        ({"directions": torch.eye(2, 144) * torch.tensor([[1.0], [0.0]])}, r"directions: got a direction of zeros"),
    ],
)
def test_unusable_settings_are_refused(tiny: mi.ImageSet, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        project_out(tiny, **settings)


def test_unusable_pictures_are_refused(tiny: mi.ImageSet) -> None:
    with pytest.raises(ValueError, match=r"images: got Tensor, expected an ImageSet"):
        project_out(tiny.images)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"images: got shape \(0, 1, 12, 12\), expected one picture or more"):
        directions_of(tiny.subset([]))
    with pytest.raises(ValueError, match=r"images: got pictures of one class, expected two or more classes"):
        project_out(tiny.subset(tiny.labels == 1))
    alike = mi.ImageSet(torch.full((6, 1, 2, 2), 9, dtype=torch.uint8), torch.arange(6) % 2)
    with pytest.raises(ValueError, match=r"images: got pictures that nothing linear tells apart"):
        directions_of(alike)
