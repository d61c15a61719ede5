"""Intervals and decided lists hold where their assumptions do, and promise nothing where nothing is known."""

import numpy as np
import pytest

from nlx.arguments import ArgumentError
from nlx.cleaning.clean import clean
from nlx.cleaning.estimates import decided, estimate
from tests.cleaning.test_evidence import noisy_world

SEEDS = range(4)


def test_a_list_keeps_its_promise_and_is_no_longer_than_it_has_to_be():
    for seed in SEEDS:
        probs, given, true = noisy_world(6000, seed=seed)
        lists = [decided(probs, given, precision) for precision in (0.7, 0.9)]
        shares = [np.mean(given[listed] != true[listed]) for listed in lists]
        assert shares[0] >= 0.7
        assert shares[1] >= 0.9
        assert lists[0].sum() > lists[1].sum() > 0.1 * (given != true).sum()
        assert (lists[0] | ~lists[1]).all()


def test_nothing_is_promised_of_clean_labels_or_of_a_model_that_knows_nothing():
    probs, given, _ = noisy_world(rate=0.0)
    assert not decided(probs, given, 0.9).any()
    rng = np.random.default_rng(0)
    blind = rng.dirichlet(np.full(4, 2.0), 2000)
    assert not decided(blind, rng.integers(0, 4, 2000), 0.9).any()


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_intervals_hold(rate):
    for seed in SEEDS:
        probs, given, true = noisy_world(rate=rate, seed=seed)
        known, wrong = estimate(probs, given), given != true
        assert known.noise_rate.low <= wrong.mean() <= known.noise_rate.high
        assert known.noise_rate.high - known.noise_rate.low < 0.25
        by_label = [wrong[given == j].mean() for j in range(4)]
        assert (known.wrong_by_label.low <= by_label).all()
        assert (by_label <= known.wrong_by_label.high).all()
        assert (known.transition.low <= known.transition.value).all()
        assert (known.transition.value <= known.transition.high).all()
        assert known.remaining.low < known.remaining.value < known.remaining.high


def test_four_examples_say_nearly_nothing():
    rate = estimate(np.tile([[0.9, 0.1], [0.1, 0.9]], (2, 1)), np.array([0, 1, 0, 1])).noise_rate
    assert rate.low == 0
    assert rate.high > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": 1.0}, "`precision` must lie between 0 and 1, got 1.0"),
        ({"precision": 0.9, "method": "can"}, "leave `method` out"),
    ],
)
def test_a_promise_that_cannot_be_made_is_one_sentence(options, message):
    with pytest.raises(ArgumentError, match=message):
        clean(np.eye(10), np.arange(10) % 2, **options)
