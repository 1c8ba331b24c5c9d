"""Fano, Hellman and Raviv: random tables lie between the bounds, and the bounds are reached where they should be."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from miue_lib import theory

F64 = torch.float64


def entropy(p):
    return float(-torch.xlogy(p, p).sum())


def of_table(joint):
    """I(Z; Y) and the accuracy of the best classifier of a table p(y, z), and P(Y)."""
    return entropy(joint.sum(1)) + entropy(joint.sum(0)) - entropy(joint), float(joint.amax(0).sum()), joint.sum(1)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(1, 15), st.floats(0.2, 6), st.booleans())
def test_random_tables_lie_between_the_bounds(seed, classes, values, sharpness, uniform):
    generator = torch.Generator().manual_seed(seed)
    given_y = torch.softmax(sharpness * torch.randn(classes, values, generator=generator, dtype=F64), 1)
    prior = torch.softmax((not uniform) * torch.randn(classes, generator=generator, dtype=F64), 0)
    joint = prior[:, None] * given_y
    information, accuracy, prior = of_table(joint)
    information = min(max(information, 0.0), entropy(prior))  # rounding
    low, high = theory.information_range(accuracy, prior)
    assert low - 1e-9 <= information <= high + 1e-9
    low, high = theory.accuracy_range(information, prior)
    assert low - 1e-9 <= accuracy <= high + 1e-9
    # Any other classifier errs more, and still certifies no more than there is.
    guesses = torch.randint(classes, (values,), generator=generator)
    certified, _ = theory.information_range(float(joint[guesses, torch.arange(values)].sum()), prior)
    assert certified <= information + 1e-9


@pytest.mark.parametrize("size", [1, 2, 5, 10])
def test_blocks_reach_the_lower_end(size):
    """Z names a block of so many classes: log(K/size) nats, accuracy 1/size."""
    prior = torch.full((10,), 0.1)
    information, accuracy, _ = of_table(torch.kron(torch.eye(10 // size, dtype=F64), torch.ones(size, 1)) / 10)
    assert theory.information_range(accuracy, prior)[1] == pytest.approx(information, abs=1e-9)
    assert theory.accuracy_range(min(information, math.log(10)), prior)[0] == pytest.approx(accuracy, abs=1e-9)


@pytest.mark.parametrize("error", [0.0, 0.2, 0.55, 0.9])
def test_a_symmetric_channel_reaches_fano(error):
    prior = torch.full((10,), 0.1)
    joint = torch.full((10, 10), error / 9, dtype=F64).fill_diagonal_(1 - error) / 10
    information, accuracy, _ = of_table(joint)
    assert theory.information_range(accuracy, prior)[0] == pytest.approx(information, abs=1e-9)
    assert theory.accuracy_range(max(0.0, min(information, math.log(10))), prior)[1] == pytest.approx(
        accuracy, abs=1e-7
    )


def test_sharper_than_hellman_and_raviv_and_than_jensen():
    prior = torch.full((10,), 0.1)
    for error in torch.linspace(0, 0.9, 91).tolist():
        _, most = theory.information_range(1 - error, prior)
        plain = math.log(10) - max(2 * math.log(2) * error, -math.log(1 - error))
        assert most <= plain + 1e-9
        if error <= 0.5:
            assert most == pytest.approx(math.log(10) - 2 * math.log(2) * error, abs=1e-9)


def test_a_head_below_chance_proves_nothing():
    prior = torch.tensor([0.5, 0.25, 0.25])
    everything = 1.5 * math.log(2)
    assert theory.information_range(0.3, prior)[1] == pytest.approx(everything)
    assert theory.information_range(0.4999, prior)[1] == pytest.approx(everything)
    assert theory.information_range(0.5, prior)[1] == pytest.approx(everything - math.log(2))
    assert theory.accuracy_range(0.0, prior)[0] == pytest.approx(0.5)  # naming the most frequent class


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.information_range(1.2, torch.ones(2) / 2), "accuracy: got 1.2, expected a number in [0, 1]"),
        (lambda: theory.information_range(0.5, torch.ones(2)), "prior: got [1.0, 1.0], expected probabilities of at"),
        (lambda: theory.information_range(0.5, torch.ones(1)), "prior: got [1.0], expected probabilities of at least"),
        (lambda: theory.accuracy_range(0.7, torch.ones(2) / 2), "information: got 0.7 nats, expected at most H(Y) ="),
        (lambda: theory.accuracy_range(-0.1, torch.ones(2) / 2), "information: got -0.1, expected a finite number >="),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value).startswith(message)
