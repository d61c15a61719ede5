"""Margins while training, and how they are joined with a posterior that knows nothing of them."""

import numpy as np
import pytest
from scipy.special import expit, logit

from nlx import clean
from nlx.arguments import ArgumentError
from nlx.cleaning.clean import evidence_of
from nlx.cleaning.evidence import weigh
from nlx.cleaning.margins import join

RNG = np.random.default_rng(0)


def pooled(x, y):
    """Isotonic regression, by pooling neighbours that are out of order until none is."""
    order = np.lexsort((y, x))
    blocks = []
    for at in np.unique(x):
        same = order[x[order] == at]
        blocks.append([y[same].mean(), len(same), list(same)])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, count, rows = blocks.pop()
            low = blocks[-1]
            blocks[-1] = [(low[0] * low[1] + mean * count) / (low[1] + count), low[1] + count, low[2] + rows]
    fitted = np.empty(len(x))
    for mean, _, rows in blocks:
        fitted[rows] = mean
    return fitted


def test_the_given_labels_log_odds_are_averaged_with_those_of_its_margin():
    q, y, aum = RNG.dirichlet(np.ones(4), 40), RNG.integers(0, 4, 40), RNG.normal(size=40).round(1)
    given = q[np.arange(40), y]
    expected = expit((logit(given) + logit(pooled(aum, given))) / 2)
    joined = join(q, y, aum)
    np.testing.assert_allclose(joined[np.arange(40), y], expected, rtol=1e-4)
    np.testing.assert_allclose(joined.sum(axis=1), 1, rtol=1e-6)
    others = np.ones((40, 4), bool)
    others[np.arange(40), y] = False
    ratio = (joined / q)[others].reshape(40, 3)
    np.testing.assert_allclose(ratio, ratio[:, :1].repeat(3, axis=1), rtol=1e-4)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_certain_posteriors_stay_probabilities(k):
    joined = join(np.eye(k)[np.arange(6) % k], np.zeros(6, int), np.arange(6.0))
    assert np.isfinite(joined).all()
    assert k == 1 or np.allclose(joined.sum(axis=1), 1)


@pytest.mark.slow
def test_a_network_is_added_where_it_is_asked_for():
    true = RNG.integers(0, 3, 240)
    x = 1.5 * np.eye(3, 8)[true] + RNG.normal(size=(240, 8))
    noisy = np.where(RNG.uniform(size=240) < 0.3, (true + 1) % 3, true)
    table = clean(x, noisy, network=True)
    assert table.chosen == "bayes_margins"
    np.testing.assert_array_equal(table.posterior, clean(x, noisy, network=True).posterior)
    wrong = noisy != true
    for name in ("aum", "confidence"):
        assert table.extras[name][wrong].mean() < table.extras[name][~wrong].mean()
    expected = join(weigh(evidence_of(table), noisy).posterior, noisy, table.extras["aum"])
    np.testing.assert_allclose(table.posterior, expected, rtol=1e-4, atol=1e-6)
    assert "aum" not in clean(x, noisy).extras


@pytest.mark.slow
def test_a_trusted_label_is_certain_with_a_network_too():
    rng = np.random.default_rng(1)
    true = rng.integers(0, 3, 150)
    x, noisy = 3 * np.eye(3, 8)[true] + rng.normal(size=(150, 8)), (true + (np.arange(150) < 9)) % 3
    table = clean(x, noisy, trusted={0: int(true[0])}, network=True)
    assert table.cleaned_label[0] == true[0]
    assert table.probability[0] == 1
    assert table.extras["aum"][0] > table.extras["aum"][1:9].mean()  # it is the true label's margin


@pytest.mark.parametrize("options", [{"method": "generalized_ce"}, {"several": True}])
def test_a_network_is_for_the_default_and_one_label(options):
    labels = (np.arange(30)[:, None] + np.arange(3)) % 2 if options.pop("several", False) else np.arange(30) % 3
    with pytest.raises(ArgumentError, match=r"`network` is for one label per example and joins no other system"):
        clean(RNG.normal(size=(30, 4)), labels, network=True, **options)
