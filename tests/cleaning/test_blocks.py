"""What is made of many examples block by block is what is made of them at once, and the rest is kept short."""

import jax
import numpy as np
import pytest

import nlx
from nlx import transitions
from nlx.arguments import ArgumentError
from nlx.cleaning import arrays, bayes, blocks, estimates, margins
from nlx.cleaning.arrays import features_of, standard_form
from nlx.cleaning.bayes import HeldOut, by_em, likelihood
from nlx.cleaning.blocks import row_blocks
from nlx.cleaning.estimates import NoiseView, decided, estimate
from nlx.cleaning.evidence import weigh
from nlx.cleaning.label_files import read_labels, write_labels
from nlx.methods.method import KNOWN_WRONG
from nlx.methods.top import Top, likeliest
from tests.cleaning.test_evidence import noisy_world

RNG = np.random.default_rng(0)
N, K = 600, 4


@pytest.fixture
def in_blocks(monkeypatch):
    """Blocks of 211 probabilities or so, of which the last is short."""

    def split(cells=211):
        for module in (arrays, bayes, estimates, margins):
            monkeypatch.setattr(module, "row_blocks", lambda n, width, _=0: row_blocks(n, width, cells))

    return split


@pytest.mark.parametrize("told", ["nothing", "some true labels", "soft labels"])
def test_bayes_rule_by_blocks(told, in_blocks):
    probs, given, true = noisy_world(N, K)
    known, soft = None, None
    if told == "some true labels":
        known = np.where(
            np.arange(N) % 5 == 0, true, np.where((np.arange(N) % 7 == 0) & (given != true), KNOWN_WRONG, -1)
        )
    if told == "soft labels":
        soft = (np.eye(K)[given] + RNG.dirichlet(np.ones(K), N)) / 2
        given = soft.argmax(axis=1)
    whole = weigh(probs, given, known, soft)
    assert len(list(whole.held_out)) == 1
    in_blocks()
    parts = weigh(probs, given, known, soft)
    assert len(list(parts.held_out)) == 12
    np.testing.assert_array_equal(parts.held_out.joint, whole.held_out.joint)
    np.testing.assert_allclose(parts.transition, whole.transition, atol=1e-5)
    assert (parts.power, parts.structure) == (whole.power, pytest.approx(whole.structure, abs=1e-3))
    np.testing.assert_allclose(parts.posterior, whole.posterior, atol=1e-4)
    reading = by_em(parts.held_out, whole.held_out.counted, 1.3, 2)
    assert likelihood(parts.held_out, reading) == pytest.approx(likelihood(whole.held_out, reading), abs=1e-5)


def test_the_joint_of_a_class_that_few_blocks_have(in_blocks):
    probs, given, _ = noisy_world(N, K)
    given = np.where(given == 3, 0, given)
    given[[0, 400]] = 3
    expected = transitions.confident_joint(probs, given)
    in_blocks()
    np.testing.assert_array_equal(HeldOut(probs, given).joint, expected)
    halves = [
        transitions.confident_joint(
            probs[part], given[part], thresholds=transitions.confident_thresholds(probs, given), at_least=0
        )
        for part in (slice(None, 300), slice(300, None))
    ]
    np.testing.assert_array_equal(np.maximum(sum(halves), np.eye(K, dtype=int)), expected)


def test_lists_and_estimates_by_blocks(in_blocks):
    probs, given, _ = noisy_world(6000)
    at_once = NoiseView(probs, given)
    listed, known = at_once.decided(0.8), at_once.estimates
    in_blocks(1000)
    blocks = NoiseView(probs, given)
    assert 0 < listed.sum() < 6000
    assert np.mean(blocks.decided(0.8) != listed) < 0.002  # a cut may move by rounding
    for name, interval in blocks.estimates._asdict().items():
        np.testing.assert_allclose(interval, getattr(known, name), atol=1e-3)


def test_of_very_many_examples_some_are_enough_for_estimates(monkeypatch):
    probs, given, _ = noisy_world(20_000)
    whole = estimate(probs, given).noise_rate
    monkeypatch.setattr(estimates, "ENOUGH", 4 * 2000)
    some = estimate(probs, given).noise_rate
    assert whole.value == pytest.approx(some.value, abs=0.04)
    assert some.high - some.low > whole.high - whole.low
    assert estimate(probs, given).noise_rate == some
    assert decided(probs, given, 0.9).sum() > 1000


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16])
def test_features_are_prepared_by_blocks_in_float64(dtype, in_blocks):
    x = (RNG.normal(size=(1003, 7)) * 50 + 100).astype(dtype)
    x[:, 2] = 3
    expected = x.astype(np.float64)
    expected = np.where(
        expected.std(axis=0) > 0, (expected - expected.mean(axis=0)) / np.maximum(expected.std(axis=0), 1e-9), 0
    )
    in_blocks()
    features = features_of(x)
    assert features.dtype == dtype
    prepared = standard_form(features).apply(features)
    np.testing.assert_allclose(prepared, 16 / np.sqrt(7) * expected, rtol=1e-5, atol=1e-5)
    assert prepared.dtype == np.float32


def test_the_row_that_is_not_finite_is_named_wherever_it_is(in_blocks):
    x = RNG.normal(size=(500, 7))
    x[321, 5] = np.inf
    in_blocks()
    with pytest.raises(ArgumentError, match=r"`inputs`\[321, 5\] is inf: repair"):
        features_of(x)


@pytest.mark.slow
@pytest.mark.parametrize("network", [False, True])
def test_the_likeliest_of_many_classes_are_kept_of_very_many_examples(network, monkeypatch, tmp_path):
    """All that the table says is what it would say with all of them, unlabelled and trusted rows included."""
    rng = np.random.default_rng(0)
    centres, true = rng.normal(size=(42, 12)), rng.integers(0, 42, 900)
    x = (centres[true] + 0.3 * rng.normal(size=(900, 12))).astype(np.float32)
    noisy = np.where(rng.random(900) < 0.3, rng.integers(0, 42, 900), true)
    noisy[10:20] = -1
    how = {"trusted": {i: int(true[i]) for i in range(40, 60)}, "network": network, "folds": 2}
    how |= {} if network else {"precision": 0.9}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        whole = nlx.clean(x, noisy, **how)
        monkeypatch.setattr(blocks, "MOST_GIB", 0.0)
        short = nlx.clean(x, noisy, **how)
    assert isinstance(short.posterior, Top)
    assert not isinstance(whole.posterior, Top)
    for name in ("cleaned_label", "noisy_label", "issue_rank"):
        np.testing.assert_array_equal(getattr(short, name), getattr(whole, name))
    for name in ("probability", "label_score"):
        np.testing.assert_allclose(getattr(short, name), getattr(whole, name), atol=1e-5)
    beliefs = [name for name in ("out_of_fold", "evidence") if name in whole.extras]
    assert len(beliefs) == 2
    for name in beliefs:
        expected = likeliest(whole.extras[name], whole.noisy_label)
        np.testing.assert_array_equal(short.extras[name].classes, expected.classes)
    for name in set(whole.extras) - set(beliefs):
        np.testing.assert_array_equal(short.extras[name], whole.extras[name])
    assert short.guard == whole.guard
    assert np.mean(short.cleaned_label == true) > np.mean(noisy == true) + 0.1
    write_labels(tmp_path / "labels.parquet", short)
    assert isinstance(read_labels(tmp_path / "labels.parquet").posterior, Top)


@pytest.mark.parametrize("form", [np.asarray, jax.numpy.asarray])
def test_probabilities_of_either_kind_of_array(form):
    probs, given, _ = noisy_world(300)
    expected = weigh(np.asarray(probs, np.float32), given).posterior
    np.testing.assert_allclose(weigh(form(np.asarray(probs, np.float32)), form(given)).posterior, expected, atol=1e-6)


def test_half_of_the_margins_by_blocks(in_blocks):
    q, labels, aum = RNG.dirichlet(np.ones(K), N), RNG.integers(0, K, N), RNG.normal(size=N)
    whole = margins.join(q, labels, aum)
    in_blocks()
    np.testing.assert_allclose(margins.join(q, labels, aum), whole, atol=1e-6)
