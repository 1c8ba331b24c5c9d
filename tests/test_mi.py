"""The four estimators against closed forms, their common face, and what it refuses."""

import math
import sys
import warnings
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch

import miue_lib
from miue_lib import mi, theory
from miue_lib.mi.estimate import Readings

# Of the module `miue_lib.mi.ksg` and so on only the function is an attribute.
MODULES = {name: sys.modules[f"miue_lib.mi.{name}"] for name in ("sliced", *mi.ESTIMATORS)}
sliced = MODULES["sliced"]


def gaussian(rho, n, seed=0, dtype=torch.float64):
    a, noise = torch.randn(2, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a.to(dtype), (rho * a + math.sqrt(1 - rho**2) * noise).to(dtype)


def quiet(*arguments, **settings):
    return mi.mutual_information(*arguments, baseline=False, **settings)


QUICK = {"ksg": {}, "kde": {}, "histogram": {"bins": 8}, "mine": {"steps": 40, "hidden": 8, "batch_size": 64}}


# Against the truth, n = 50,000


@pytest.mark.parametrize(("rho", "tolerance"), [(0.3, 0.015), (0.6, 0.018), (0.9, 0.025)])
def test_ksg_on_gaussian_pairs(rho, tolerance):
    assert abs(quiet(*gaussian(rho, 50_000)).value - theory.gaussian_mi(rho)) <= tolerance


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9, 0.99])
def test_kde_on_gaussian_pairs(rho):
    assert abs(quiet(*gaussian(rho, 50_000), estimator="kde").value - theory.gaussian_mi(rho)) <= 0.015


@pytest.mark.parametrize("rho", [0.3, 0.6, 0.9])
def test_mine_on_gaussian_pairs(rho):
    assert abs(quiet(*gaussian(rho, 50_000), estimator="mine").value - theory.gaussian_mi(rho)) <= 0.04


def test_ksg_on_the_uniform_channel():
    x, noise = torch.rand(2, 50_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    estimate = quiet(x, x + 0.2 * noise - 0.1)
    assert abs(estimate.value - theory.uniform_channel_mi(0.1)) <= 0.02


def test_rank_histogram_of_independent_variables_has_no_bias():
    x, y = gaussian(0.0, 50_000)
    assert abs(quiet(x, y, estimator="histogram").value) <= 0.002
    plug_in = quiet(x, y, estimator="histogram", correct=False)
    assert plug_in.value == pytest.approx(31**2 / (2 * 50_000), rel=0.2)


@pytest.mark.parametrize("n", [5, 1000, 50_000])
def test_a_variable_with_itself_reads_the_ceiling_of_ksg(n):
    x, _ = gaussian(0.0, n)
    with pytest.warns(UserWarning, match="larger, and is infinite"):
        estimate = quiet(x, x)
    truth = float(torch.digamma(torch.tensor(float(n))) - torch.digamma(torch.tensor(3.0)))
    assert estimate.value == pytest.approx(truth, abs=1e-3)
    assert estimate.ceiling == pytest.approx(truth, abs=1e-3)


@pytest.mark.parametrize("estimator", ["kde", "histogram"])
def test_a_variable_with_itself_reads_the_ceiling_and_warns(estimator):
    x, _ = gaussian(0.0, 2000)
    for y in (x, -x):
        with pytest.warns(UserWarning, match=f"{estimator} reads"):
            estimate = quiet(x, y, estimator=estimator)
        # Mirrored, a bin loses one value at an end and gains one at the other.
        assert estimate.value == pytest.approx(estimate.ceiling, rel=1e-3 if y is x else 0.05)


def test_ksg_agrees_with_scikit_learn():
    from sklearn.feature_selection import mutual_info_regression

    for rho in (0.0, 0.6, 0.95):
        x, y = gaussian(rho, 5000)
        theirs = mutual_info_regression(x[:, None].numpy(), y.numpy(), n_neighbors=3, random_state=0)[0]
        assert max(quiet(x, y).value, 0) == pytest.approx(theirs, abs=2e-3)  # theirs is clipped at 0


def test_ksg_of_vectors():
    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    estimates = [quiet(x, x + noise, estimator=name) for name in ("ksg", "kde", "mine")]
    truth = 2 * theory.gaussian_channel_mi(1.0)
    # sd of the information density of two pairs with ρ² = ½ is 1, so the standard error is 1/√n; thrice that, and
    # a bias of KDE and MINE in four dimensions
    for estimate, allowed in zip(estimates, (0.0, 0.05, 0.05), strict=True):
        assert abs(estimate.value - truth) <= 3 / math.sqrt(4000) + allowed, estimate


def test_kde_takes_no_grid_for_vectors_of_any_dimension():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(1000, 2, generator=generator), torch.randn(1000, generator=generator)
    y += x[:, 0]
    assert quiet(x, y, estimator="kde", grid=16).value == quiet(x, y, estimator="kde").value


def test_kde_says_when_vectors_are_too_thinly_spread():
    x = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="kde finds .* of the points alone in 16 dimensions"):
        quiet(x, x + x.flip(0), estimator="kde")


def test_ksg_takes_atoms_for_what_they_are():
    # A fair die seen through a channel that replaces it by another throw with probability ½
    generator = torch.Generator().manual_seed(0)
    x, other = torch.randint(0, 6, (2, 20_000), generator=generator)
    y = torch.where(torch.rand(20_000, generator=generator) < 0.5, x, other)
    joint = torch.full((6, 6), 1 / 72, dtype=torch.float64) + torch.eye(6) / 12
    truth = float((joint * (joint * 36).log()).sum())
    estimate = quiet(x, y)
    assert estimate.details["atoms"] == 1
    assert abs(estimate.value - truth) <= 4 * estimate.stderr


@pytest.mark.parametrize("estimator", ["ksg", "kde", "histogram"])
def test_the_standard_error_is_that_of_repetitions(estimator):
    settings = {"bins": 8} if estimator == "histogram" else {}  # in 32² bins the correction itself varies
    estimates = [quiet(*gaussian(0.6, 1000, seed), estimator=estimator, **settings) for seed in range(40)]
    spread = float(torch.tensor([estimate.value for estimate in estimates]).std())
    claimed = float(np.mean([estimate.stderr for estimate in estimates]))
    # The sd of 40 numbers is itself uncertain by 1/√78 = 11 %; three of those, and what a term a point leaves out.
    assert 0.6 <= claimed / spread <= 1.5


# Slices


@pytest.mark.parametrize("estimator", ["ksg", "kde", "histogram"])
def test_slices_of_gaussians_in_four_dimensions(estimator):
    n, d, rho, slices = 50_000, 4, 0.9, 200
    x, noise = torch.randn(2, n, d, generator=torch.Generator().manual_seed(0))
    y = rho * x + math.sqrt(1 - rho**2) * noise
    estimate = quiet(x, y, estimator=estimator, slices=slices, seed=1)
    theta, phi = mi.directions(slices, d, d, seed=1)
    eye = torch.eye(d, dtype=torch.float64)
    covariance = torch.cat((torch.cat((eye, rho * eye), 1), torch.cat((rho * eye, eye), 1)))
    truth = theory.gaussian_slices_mi(theta, phi, covariance)
    assert abs(estimate.value - truth.mean()) <= 0.004
    assert estimate.stderr == pytest.approx(float(truth.std()) / math.sqrt(slices), rel=0.2)


@pytest.mark.parametrize("estimator", ["ksg", "kde", "histogram"])
def test_slices_in_512_dimensions(estimator):
    n, d, rho = 20_000, 512, 0.9
    x, noise = torch.randn(2, n, d, generator=torch.Generator().manual_seed(0))
    y = rho * x + math.sqrt(1 - rho**2) * noise
    estimate = mi.mutual_information(x, y, estimator=estimator, slices=200)
    assert abs(estimate.value - theory.sliced_gaussian_mi(d, rho)) <= 3 * estimate.stderr
    assert abs(estimate.baseline) <= 4 * estimate.baseline_stderr


@pytest.mark.parametrize("estimator", mi.ESTIMATORS)
def test_a_batch_of_slices_equals_a_loop(estimator, monkeypatch):
    x, noise = torch.randn(2, 300, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta, phi = mi.directions(3, 5, 2, seed=4)
    y = (x + noise)[:, :2]
    together = quiet(x, y, estimator=estimator, slices=(theta, phi), **QUICK[estimator])
    assert together.value == pytest.approx(float(together.per_slice.mean()))
    for s in range(3):
        alone = quiet(x, y, estimator=estimator, slices=(theta[s : s + 1], phi[s : s + 1]), **QUICK[estimator])
        assert alone.value == pytest.approx(float(together.per_slice[s]), abs=1e-5)
    monkeypatch.setitem(sliced._VALUES, "cpu", 600)
    in_parts = quiet(x, y, estimator=estimator, slices=(theta, phi), **QUICK[estimator])
    assert torch.allclose(in_parts.per_slice, together.per_slice, atol=1e-5)
    same = quiet(x, y, estimator=estimator, slices=3, seed=4, **QUICK[estimator])
    # MINE's seed is also that of its weights
    assert estimator == "mine" or torch.allclose(same.per_slice, together.per_slice)


@pytest.mark.parametrize(
    ("estimator", "settings", "held"),
    [
        ("ksg", {}, 1000),
        ("histogram", {"bins": 200}, 200**2),
        ("kde", {"grid": 16, "bandwidth": 0.02}, 1800**2),  # twelve standard deviations in steps of 0.02 · n^(−1/6)
        ("mine", {}, 512 * 64),  # activations of a mini-batch
        ("mine", {"batch_size": 16}, 300 * 64),  # and of the pairs held out
    ],
)
def test_a_batch_holds_no_more_slices_than_fit_in_memory(estimator, settings, held):
    sizes = []

    def core(u, v):
        sizes.append(len(u))
        return Readings(*torch.ones(3, len(u), dtype=torch.float64))

    x, y = torch.randn(2, 1000, 2, generator=torch.Generator().manual_seed(0))
    plan = replace(MODULES[estimator].plan(**settings), core=core)
    with pytest.warns(UserWarning, match="can't read more than 1 "):
        sliced.measure(x, y, plan, {"slices": 3000, "baseline": False})
    assert sum(sizes) == 3000
    assert max(sizes) <= max(1, sliced._VALUES["cpu"] // held)


def test_directions_are_independent_unit_vectors():
    theta, phi = mi.directions(20_000, 3, 3, seed=1)
    assert torch.allclose(theta.norm(dim=1), torch.ones(20_000, dtype=torch.float64))
    t = (theta * phi).sum(1)  # uniform on [−1, 1] in three dimensions: variance ⅓, that of t² is 4/45
    assert abs(t.square().mean() - 1 / 3) <= 4 * math.sqrt(4 / 45 / 20_000)
    assert torch.equal(theta, mi.directions(20_000, 3, 3, seed=1)[0])
    assert not torch.equal(theta, mi.directions(20_000, 3, 3, seed=2)[0])


@pytest.fixture
def precisions():
    """The switches for fast products; put back after the test."""
    backends = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
    before = [backend.fp32_precision for backend in backends]
    yield backends
    for backend, precision in zip(backends, before, strict=True):
        backend.fp32_precision = precision


@pytest.mark.parametrize("estimator", mi.ESTIMATORS)
def test_autocast_and_inference_mode_change_nothing(estimator):
    x, y = gaussian(0.6, 500, dtype=torch.float32)
    expected = quiet(x, y, estimator=estimator, **QUICK[estimator]).value
    with torch.autocast("cpu", torch.bfloat16):
        assert quiet(x, y, estimator=estimator, **QUICK[estimator]).value == expected
    with torch.inference_mode():
        assert quiet(x.clone(), y.clone(), estimator=estimator, **QUICK[estimator]).value == expected


@pytest.mark.parametrize("settings", [{"grid": 16}, {"bandwidth": 0.2}])
def test_kde_takes_as_fine_a_grid_as_it_needs(settings):
    x, y = gaussian(0.6, 20_000)
    assert abs(quiet(x, y, estimator="kde", **settings).value - theory.gaussian_mi(0.6)) <= 0.03


@pytest.mark.parametrize("how", ["for all", "for each backend"])
def test_products_are_exact_under_autocast_and_fast_settings(how, precisions):
    # As large as this, bfloat16 is taken where the processor has it.
    x, noise = torch.randn(2, 2000, 512, generator=torch.Generator().manual_seed(0))
    expected = quiet(x, x + noise, slices=64).per_slice
    if how == "for all":
        torch.set_float32_matmul_precision("medium")
    else:
        precisions[0].fp32_precision, precisions[1].fp32_precision = "tf32", "bf16"
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quiet(x, x + noise, slices=64).per_slice, expected)
    assert [backend.fp32_precision for backend in precisions] == ["tf32", "bf16"]


def test_of_several_threads_the_last_restores_the_settings(precisions):
    precisions[0].fp32_precision, precisions[1].fp32_precision = "tf32", "bf16"
    with ExitStack() as first, ExitStack() as second:
        for stack in (first, second):
            stack.enter_context(sliced._exact_products(torch.device("cpu")))
        first.close()
        assert [backend.fp32_precision for backend in precisions] == ["ieee", "ieee"]
    assert [backend.fp32_precision for backend in precisions] == ["tf32", "bf16"]


@pytest.mark.parametrize("estimator", mi.ESTIMATORS)
def test_the_default_device_does_not_matter(estimator):
    x, y = torch.randn(2, 500, 2, generator=torch.Generator().manual_seed(0))
    expected = mi.mutual_information(x, y, estimator=estimator, slices=2, **QUICK[estimator])
    with torch.device("meta"):
        found = mi.mutual_information(x.numpy(), y, estimator=estimator, slices=2, **QUICK[estimator])
    assert torch.equal(found.per_slice, expected.per_slice) and found.baseline == expected.baseline


@pytest.mark.parametrize("estimator", mi.ESTIMATORS)
def test_directions_may_require_gradients(estimator):
    theta, phi = mi.directions(2, 3, 3)
    found = quiet(WIDE, WIDE.flip(0), estimator=estimator, slices=(theta.requires_grad_(), phi), **QUICK[estimator])
    assert not found.per_slice.requires_grad


def test_a_large_column_that_is_constant_does_not_pass_for_rounding():
    x = torch.cat((WIDE, torch.full((50, 1), 1e9)), 1)
    assert math.isfinite(quiet(x, WIDE.flip(0), slices=5).value)


def test_a_large_mean_costs_no_precision():
    x, noise = torch.randn(2, 2000, 8, generator=torch.Generator().manual_seed(0))
    x, y = (x * 64).round() / 64, ((x + noise) * 64).round() / 64  # so that adding 2¹⁶ rounds nothing
    for estimator in ("ksg", "kde", "histogram"):
        expected = quiet(x, y, estimator=estimator, slices=5).per_slice
        shifted = quiet(x + 2**16, y - 2**16, estimator=estimator, slices=5).per_slice
        assert torch.allclose(shifted, expected, atol=1e-3)


# What does not change the answer, and what does


@pytest.mark.parametrize("estimator", ["ksg", "kde", "histogram"])
def test_symmetric_and_blind_to_the_order_of_pairs(estimator):
    x, y = gaussian(0.6, 2000)
    value = quiet(x, y, estimator=estimator).value
    assert quiet(y, x, estimator=estimator).value == pytest.approx(value, abs=1e-9)
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(1))
    assert quiet(x[order], y[order], estimator=estimator).value == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("estimator", ["ksg", "kde", "histogram"])
def test_blind_to_shift_and_scale(estimator):
    x, y = gaussian(0.9, 2000)
    value = quiet(x, y, estimator=estimator).value
    assert quiet(1000 * x + 3, 0.01 * y, estimator=estimator).value == pytest.approx(value, abs=1e-6)
    if estimator != "histogram":  # whose bins are closed on the left only
        assert quiet(-x, y, estimator=estimator).value == pytest.approx(value, abs=1e-6)


def test_without_scaling_ksg_is_wrong_about_a_thousandfold_side():
    x, y = gaussian(0.9, 2000)
    assert quiet(1000 * x, y, scale="none").value < quiet(x, y, scale="none").value - 0.05


def test_ranks_undo_a_monotone_map():
    x, y = gaussian(0.9, 5000)
    for estimator in ("ksg", "kde"):
        plain = quiet(x, y, estimator=estimator, scale="rank")
        bent = quiet((3 * x).exp(), y**3, estimator=estimator, scale="rank")
        assert bent.value == pytest.approx(plain.value, abs=1e-9)
        assert plain.value == pytest.approx(float(theory.gaussian_mi(0.9)), abs=4 * plain.stderr)


def test_whitening_raises_the_sliced_information_of_a_thin_direction():
    x, noise = torch.randn(2, 4000, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    widths = torch.tensor([10.0, 10, 10, 10, 10, 0.1])
    x = x * widths
    y = noise * widths
    y[:, 5] = x[:, 5]  # the sides share only the thinnest coordinate
    plain, white = (quiet(x, y, slices=100, estimator="histogram", whiten=whiten) for whiten in (False, True))
    assert white.value > plain.value + 3 * plain.stderr
    truth = quiet(x / widths, y / widths, slices=100, estimator="histogram", seed=9)
    assert abs(white.value - truth.value) <= 4 * math.hypot(white.stderr, truth.stderr)


def test_whitening_to_some_components():
    x = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * torch.tensor([9, 3, 1])
    noise = torch.randn(2000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    strongest, weakest = x[:, 0] + noise, x[:, 2] + 0.1 * noise
    of_strongest, of_weakest = (quiet(x, y, whiten=1).value for y in (strongest, weakest))
    assert of_strongest > 1 > 0.1 > of_weakest  # one component is kept, that of the largest variance
    dependent = torch.cat((x, x.sum(1, keepdim=True)), 1)  # three directions in four columns
    with pytest.raises(ValueError, match="whiten: got 4, expected at most 3, the number of directions in which x"):
        quiet(dependent, x, whiten=4, slices=2)


def test_ranks_of_equal_values_are_their_middle_one():
    scaled = sliced._scaled("x", torch.tensor([[5.0, 1.0, 1.0, 7.0]]), "rank")
    expected = [torch.special.ndtri(torch.tensor(share)).item() for share in (5 / 8, 2 / 8, 2 / 8, 7 / 8)]
    assert scaled[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_never_clipped():
    values = [quiet(*gaussian(0.0, 300, seed)).value for seed in range(20)]
    assert min(values) < 0 < max(values)


def test_the_baseline_is_that_of_shuffled_pairs():
    x, y = gaussian(0.9, 2000)
    for estimator in mi.ESTIMATORS:
        estimate = mi.mutual_information(x, y, estimator=estimator, **QUICK[estimator])
        assert estimate.baseline is not None and abs(estimate.baseline) < estimate.value / 5
    assert quiet(x, y).baseline is None


# The face


@pytest.mark.parametrize("estimator", mi.ESTIMATORS)
def test_each_estimator_is_a_function_of_its_own(estimator):
    x, y = gaussian(0.6, 500)
    by_name = miue_lib.mutual_information(x, y, estimator=estimator, seed=3, **QUICK[estimator])
    alone = getattr(mi, estimator)(x, y, seed=3, **QUICK[estimator])
    assert alone.value == by_name.value
    assert alone.estimator == estimator and alone.n == 500
    assert alone.per_slice.shape == (1,) and alone.per_slice.dtype == torch.float64
    assert QUICK[estimator].items() <= alone.settings.items()
    assert "nats" in str(alone) and estimator in str(alone)


def test_mine_keeps_its_curve():
    x, y = gaussian(0.9, 2000)
    estimate = quiet(x, y, estimator="mine", steps=400)
    curve = estimate.details["curve"]
    assert curve.shape == (1, 20)
    assert float(curve[0, -1]) == pytest.approx(estimate.value)
    assert curve[0, 0] < 0.5 * estimate.value


def test_mine_survives_heavy_tails():
    a, b, noise = torch.randn(3, 20_000, generator=torch.Generator().manual_seed(4))
    estimate = quiet(a / b, a / b + 0.1 * noise, estimator="mine", steps=300)
    assert math.isfinite(estimate.value) and bool(estimate.details["curve"].isfinite().all())


def test_readings_that_are_no_numbers_are_refused_with_a_remedy():
    x, y = gaussian(0.6, 500)
    with pytest.raises(
        ValueError, match="of which mine reads nan, expected .* scale='rank' or a smaller learning_rate"
    ):
        quiet(x, y, estimator="mine", learning_rate=1e30, steps=20)
    of_pairs = torch.tensor([[0.1], [0.1], [2.0]], dtype=torch.float64)
    readings = iter([Readings(*of_pairs), Readings(*of_pairs * math.nan)])
    plan = replace(MODULES["ksg"].plan(), core=lambda u, v: next(readings))
    with pytest.raises(ValueError, match="got shuffled data of which ksg reads nan"):
        sliced.measure(x, y, plan, {})


def test_mine_is_repeatable_and_leaves_the_random_state_alone():
    x, y = gaussian(0.6, 500)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    values = [quiet(x, y, estimator="mine", seed=1, **QUICK["mine"]).value for _ in range(2)]
    assert values[0] == values[1]
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("estimator", mi.ESTIMATORS)
def test_the_default_dtype_does_not_matter(estimator):
    x, y = gaussian(0.6, 500, dtype=torch.float32)
    expected = quiet(x, y, estimator=estimator, **QUICK[estimator]).value
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert quiet(x, y, estimator=estimator, **QUICK[estimator]).value == pytest.approx(expected, abs=1e-6)
    finally:
        torch.set_default_dtype(before)


def test_mine_works_where_gradients_are_off():
    x, y = gaussian(0.6, 500)
    expected = quiet(x, y, estimator="mine", **QUICK["mine"]).value
    with torch.no_grad():
        assert quiet(x.requires_grad_(), y, estimator="mine", **QUICK["mine"]).value == expected


@pytest.mark.parametrize(
    "convert",
    [
        lambda t: t.numpy(),
        lambda t: t.numpy().astype(np.float32),
        lambda t: t[:, None],
        lambda t: t.half(),
        lambda t: t.bfloat16(),
        lambda t: t.numpy().astype(">f8"),
        lambda t: t.flip(0).numpy()[::-1],
    ],
)
def test_kinds_of_input(convert):
    x, y = gaussian(0.6, 1000)
    # bfloat16 leaves 8 bits, and ties
    assert quiet(convert(x), convert(y)).value == pytest.approx(quiet(x, y).value, abs=0.1)


def test_a_numpy_array_that_is_read_only_is_copied():
    x, y = (side.numpy() for side in gaussian(0.6, 500))
    x.setflags(write=False)
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            quiet(x, y)
    finally:
        torch.set_warn_always(always)


def test_warnings_point_at_the_caller():
    x, _ = gaussian(0.6, 500)
    z = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    for call in (
        lambda: mi.ksg(x, x),
        lambda: mi.mutual_information(x, x),
        lambda: mi.information(x, x),
        lambda: mi.kde(z, z),
        lambda: mi.information(z, z, estimator="kde"),
    ):
        with pytest.warns(UserWarning) as caught:
            call()
        assert {warning.filename for warning in caught} == {__file__}


def test_whole_numbers_and_booleans_are_converted():
    x, y = torch.randint(0, 5, (2, 500), generator=torch.Generator().manual_seed(0))
    expected = quiet(x.double(), (x + y > 4).double(), estimator="histogram").value
    for a in (x, x.numpy(), x.to(torch.uint8), x.numpy().astype(np.uint32)):
        assert quiet(a, x + y > 4, estimator="histogram").value == expected


@pytest.mark.parametrize("estimator", ["histogram", "kde", "ksg"])
def test_information_adds_up(estimator):
    x, y = gaussian(0.8, 3000)
    found = miue_lib.information(x, y, estimator=estimator)
    value = found.mutual_information.value
    assert found.entropy_x + found.entropy_y - found.joint_entropy == pytest.approx(value, abs=1e-9)
    if estimator == "histogram":
        assert found.kind == "discrete"
        assert found.normalised == pytest.approx(value / math.sqrt(found.entropy_x * found.entropy_y))
    else:
        assert found.kind == "differential"
        assert found.normalised == pytest.approx(0.8, abs=0.05)  # Linfoot's coefficient of a Gaussian pair is |ρ|
        # ½ log 2πe = 1.419 for a standardised Gaussian, whose log-density has sd 1/√2
        assert found.entropy_x == pytest.approx(1.4189, abs=4 / math.sqrt(2 * 3000))


@pytest.mark.parametrize("estimator", ["kde", "ksg"])
def test_entropies_of_vectors(estimator):
    z = torch.randn(3000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    covariance = torch.tensor([[1.0, 0.5, 0.3], [0.5, 1.0, 0.2], [0.3, 0.2, 1.0]], dtype=torch.float64)
    z = z @ torch.linalg.cholesky(covariance).T
    found = miue_lib.information(z[:, :2], z[:, 2], estimator=estimator)
    value = found.mutual_information.value
    assert found.entropy_x + found.entropy_y - found.joint_entropy == pytest.approx(value, abs=1e-9)
    # The log-density of d dimensions has variance d/2; kernels of h = 0.3 or so widen each dimension by h²/2 nats.
    for entropy, block in ((found.entropy_x, covariance[:2, :2]), (found.joint_entropy, covariance)):
        allowed = 4 * math.sqrt(len(block) / 2 / 3000) + (0.05 * len(block) if estimator == "kde" else 0.03)
        assert abs(entropy - theory.gaussian_entropy(block)) <= allowed


def test_information_tells_a_fall_of_entropy_from_a_loss_of_dependence():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5000, generator=generator)
    noise = torch.randn(5000, generator=generator)
    # Knows only the sign, mostly: H(Y) falls, I is below log 2
    collapsed = torch.where(x + 0.2 * noise > 0, 1.0, -1.0) + 0.01 * noise
    blurred = x + 2 * noise  # H(Y) stays, the dependence goes
    one, other = miue_lib.information(x, collapsed), miue_lib.information(x, blurred)
    assert one.entropy_y < other.entropy_y - 1
    assert one.normalised > other.normalised
    assert 0.3 < one.mutual_information.value < math.log(2)


def test_mine_has_no_entropies():
    with pytest.raises(ValueError, match="estimator: got 'mine', expected one that is made of entropies"):
        miue_lib.information(*gaussian(0.5, 100), estimator="mine")


# What is refused

GOOD = torch.randn(50, generator=torch.Generator().manual_seed(0))
WIDE = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
WIDE_AND_TINY = WIDE.double() * torch.tensor([1, 1e-200, 1], dtype=torch.float64)
COMPLEMENT = torch.stack((GOOD, 1 - GOOD), 1)
STILL = torch.cat((WIDE[:, :1], torch.ones(50, 1)), 1)


def with_value(value):
    changed = GOOD.clone()
    changed[7] = value
    return changed


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((with_value(math.nan), GOOD), {}, "x: got 1 values that are NaN or infinite, expected finite numbers"),
        ((GOOD, with_value(math.inf)), {}, "y: got 1 values that are NaN or infinite, expected finite numbers"),
        ((GOOD, GOOD[:40]), {}, "y: got 40 rows, expected as many as x has, 50: they are pairs"),
        ((GOOD[:3], GOOD[:3]), {}, "x: got 3 rows, expected at least 4 for ksg"),
        ((GOOD[:9], GOOD[:9]), {"k": 9}, "x: got 9 rows, expected at least 10 for ksg"),
        ((GOOD[:31], GOOD[:31]), {"estimator": "histogram"}, "x: got 31 rows, expected at least 32 for histogram"),
        ((1e200 * GOOD.double(), GOOD), {}, "x: got a standard deviation of inf, expected values that vary, of mod"),
        ((STILL, GOOD), {"slices": (torch.eye(2)[1:], torch.ones(1, 1))}, "x: got a slice that is constant"),
        ((GOOD, GOOD), {"estimator": "kde", "bandwidth": 0.001}, "bandwidth: got 0.001, expected at least 0.01"),
        ((GOOD, GOOD), {"device": "meta"}, "device: got meta, expected a CPU or CUDA device"),
        ((GOOD[:2], GOOD[:2]), {"estimator": "kde"}, "x: got 2 rows, expected at least 4 for kde"),
        ((GOOD[:9], GOOD[:9]), {"estimator": "mine"}, "x: got 9 rows, expected at least 10 for mine"),
        ((torch.ones(50), GOOD), {}, "x: got one unique value in every row, expected a variable that varies"),
        ((GOOD, torch.ones(50)), {"slices": 3}, "y: got one unique value"),
        ((STILL, GOOD), {}, "x: got constant columns [1], expected columns that vary"),
        ((WIDE, GOOD), {"estimator": "histogram"}, "x: got 3 columns, expected one column for histogram, or slices=…"),
        ((GOOD, WIDE), {"estimator": "histogram"}, "y: got 3 columns"),
        ((WIDE[None], WIDE), {}, "x: got shape (1, 50, 3), expected (N,) or (N, d)"),
        ((WIDE[:, :0], WIDE), {}, "x: got shape (50, 0), expected (N,) or (N, d), not empty"),
        ((GOOD, GOOD.to(torch.complex64)), {}, "y: got torch.complex64, expected real numbers"),
        ((GOOD.numpy().astype(complex), GOOD), {}, "x: got a numpy array of complex128, expected real numbers"),
        ((np.array(["a", "b"]), GOOD), {}, "x: got a numpy array of <U1, expected real numbers"),
        (([1.0, 2.0], GOOD), {}, "x: got list, expected a torch tensor or numpy array"),
        ((WIDE, WIDE), {"slices": 0}, "slices: got 0, expected a whole number >= 1"),
        ((WIDE, WIDE), {"slices": 2.5}, "slices: got 2.5, expected a whole number >= 1"),
        ((WIDE, WIDE), {"slices": mi.directions(4, 3, 2)}, "slices: got phi of shape (4, 2), expected (m, 3)"),
        ((WIDE, WIDE), {"slices": (torch.ones(2, 3), torch.ones(4, 3))}, "slices: got 2 and 4 directions"),
        ((WIDE, WIDE), {"slices": (torch.zeros(2, 3), torch.ones(2, 3))}, "slices: got theta with a direction that"),
        ((WIDE, WIDE), {"slices": (torch.ones(2, 3),)}, "slices: got a tuple of ['2-D tensor'], expected a number, or"),
        ((WIDE, WIDE), {"slices": (np.ones((2, 3)),) * 2}, "slices: got a tuple of ['ndarray', 'ndarray'], expected"),
        ((WIDE, WIDE), {"slices": [torch.ones(3)] * 2}, "slices: got a list of ['1-D tensor', '1-D tensor'], expected"),
        ((WIDE_AND_TINY, GOOD), {}, "x: got a standard deviation of 0.0, expected values that vary"),
        ((COMPLEMENT, GOOD), {"slices": (torch.ones(1, 2), torch.ones(1, 1))}, "x: got a slice that is constant up to"),
        ((GOOD.to("meta"), GOOD), {}, "x: got a torch.strided tensor on meta, expected a dense tensor that holds val"),
        ((GOOD, GOOD.to_sparse()), {}, "y: got a torch.sparse_coo tensor on cpu, expected a dense tensor that holds"),
        ((np.ma.masked_less(GOOD.numpy(), 0), GOOD), {}, "x: got a masked array, expected an array without a mask"),
        ((GOOD, GOOD), {"seed": 2**64}, "seed: got 18446744073709551616, expected a whole number from 0 to 92233720"),
        ((GOOD, GOOD), {"estimator": "knn"}, "estimator: got 'knn', expected one of 'ksg', 'kde', 'histogram', 'mine'"),
        ((GOOD, GOOD), {"device": "tpu"}, "device: got 'tpu', expected a device that is there"),
        ((GOOD, GOOD), {"scale": "unit"}, "scale: got 'unit', expected one of 'standard', 'rank', 'none'"),
        ((GOOD, GOOD), {"whiten": 0}, "whiten: got 0, expected a whole number >= 1"),
        ((GOOD, GOOD), {"baseline": 1}, "baseline: got 1, expected True or False"),
        ((GOOD, GOOD), {"seed": -1}, "seed: got -1, expected a whole number >= 0"),
        ((GOOD, GOOD), {"k": 0}, "k: got 0, expected a whole number >= 1"),
        ((GOOD, GOOD), {"estimator": "histogram", "bins": 1}, "bins: got 1, expected a whole number from 2 to 1024"),
        ((GOOD, GOOD), {"estimator": "histogram", "binning": "equal"}, "binning: got 'equal'"),
        ((GOOD, GOOD), {"estimator": "histogram", "correct": "yes"}, "correct: got 'yes', expected True or False"),
        ((GOOD, GOOD), {"estimator": "kde", "grid": 8}, "grid: got 8, expected a whole number from 16 to 2048"),
        ((GOOD, GOOD), {"estimator": "kde", "bandwidth": 0}, "bandwidth: got 0, expected a finite number > 0"),
        ((GOOD, GOOD), {"estimator": "mine", "steps": 5}, "steps: got 5, expected a whole number >= 20"),
        ((GOOD, GOOD), {"estimator": "mine", "learning_rate": -1.0}, "learning_rate: got -1.0"),
    ],
)
def test_bad_input(arguments, settings, message):
    with pytest.raises(ValueError) as error:
        mi.mutual_information(*arguments, **settings)
    assert message in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there():
    with pytest.raises(ValueError, match="device: got 'cuda', expected a device that is there"):
        mi.ksg(GOOD, GOOD, device="cuda")


@pytest.mark.parametrize("estimator", mi.ESTIMATORS)
def test_unknown_settings_are_named(estimator):
    with pytest.raises(TypeError, match=f"{estimator}.*got an unexpected keyword argument 'colour'"):
        mi.mutual_information(GOOD, GOOD, estimator=estimator, colour=3)


def test_dead_columns_do_no_harm_to_slices():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dead = torch.cat((WIDE, torch.zeros(50, 2)), 1)
        theta, phi = mi.directions(5, 5, 3)
        expected = quiet(WIDE, WIDE, slices=(theta[:, :3], phi))
        assert torch.allclose(quiet(dead, WIDE, slices=(theta, phi)).per_slice, expected.per_slice, atol=1e-6)


# On a GPU

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@needs_gpu
@pytest.mark.parametrize("estimator", mi.ESTIMATORS)
@pytest.mark.parametrize(
    ("columns", "settings"),
    [
        (1, {}),
        (1, {"scale": "rank"}),
        (1, {"whiten": True}),
        (2, {}),
        (2, {"whiten": True}),  # without slices: axes may point either way, and slices would tell
        (2, {"slices": 20}),
        (2, {"slices": 20, "scale": "rank"}),
    ],
)
def test_a_gpu_reads_what_the_cpu_reads(columns, settings, estimator, device="cuda"):
    if estimator == "histogram" and columns == 2 and "slices" not in settings:
        pytest.skip("a histogram takes no vectors")
    x, noise = torch.randn(2, 2000, columns, generator=torch.Generator().manual_seed(0))
    y = 0.6 * x + 0.8 * noise
    settings = settings | QUICK[estimator]
    expected = mi.mutual_information(x, y, estimator=estimator, **settings)
    found = mi.mutual_information(x.to(device), y.to(device), estimator=estimator, **settings)
    allowed = 0.05 if estimator == "mine" else 5e-4  # its training magnifies what rounding does
    assert found.per_slice.is_cpu
    assert torch.allclose(found.per_slice, expected.per_slice, rtol=0, atol=allowed)
    assert found.baseline == pytest.approx(expected.baseline, abs=allowed)
    assert found.ceiling == pytest.approx(expected.ceiling, abs=allowed)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU at the most")
def test_a_gpu_that_is_not_the_current_one():
    test_a_gpu_reads_what_the_cpu_reads(2, {"slices": 20}, "ksg", "cuda:1")
