"""Noise that looks at the example: who is flipped, and to what, follows the features; the mean rate is as stated."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import truncnorm

from nlx.corruption import instance_dependent

N, K, F = 12_000, 5, 6
LABELS = np.arange(N, dtype=np.int32) % K
FEATURES = np.random.default_rng(0).normal(3.0, [0.1, 1, 2, 3, 4, 50], (N, F)).astype(np.float32)
LINE = np.sort(np.random.default_rng(1).standard_normal((N, 1)).astype(np.float32), axis=0)


def z_score(count, n, p):
    return abs(float(count) - float(n) * p) / np.sqrt(float(n) * p * (1 - p))


@pytest.mark.parametrize("rate", [0.05, 0.4, 0.93])
def test_mean_rate_is_the_stated_one_and_the_mask_the_changed_labels(rate):
    noisy, mask = map(np.asarray, instance_dependent(jax.random.key(1), FEATURES, LABELS, K, rate))
    assert z_score(mask.sum(), N, rate) < 4
    np.testing.assert_array_equal(noisy != LABELS, mask)
    assert noisy.dtype == LABELS.dtype
    assert noisy.min() == 0
    assert noisy.max() == K - 1


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_none_or_all_are_flipped_at_the_ends(rate):
    noisy, mask = instance_dependent(jax.random.key(2), FEATURES, LABELS, K, rate)
    assert (mask == bool(rate)).all()
    assert ((noisy != LABELS) == bool(rate)).all()


@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_flip_rates_are_quantiles_of_the_cut_normal_along_a_direction(rate):
    mask = np.asarray(instance_dependent(jax.random.key(3), LINE, LABELS % 3, 3, rate).mask)
    width = min(rate, 1 - rate)
    law = truncnorm(-width / 0.1, width / 0.1, loc=rate, scale=0.1)
    expected = law.ppf((np.arange(N) + 0.5) / N).reshape(10, -1).mean(axis=1)
    hits = mask.reshape(10, -1).sum(axis=1)
    if hits[0] > hits[-1]:  # the direction may point either way
        hits = hits[::-1]
    assert max(z_score(count, N / 10, p) for count, p in zip(hits, expected, strict=True)) < 4
    assert hits[-1] > 1.3 * hits[0]


def test_targets_follow_the_features_by_a_softmax_per_class():
    # On a line, the log odds of two targets are w times the feature: even in the middle, opposite on either side.
    labels = np.arange(N, dtype=np.int32) % 3
    noisy = np.asarray(instance_dependent(jax.random.key(4), LINE, labels, 3, 1.0).labels)
    slopes = []
    for c in range(3):
        first, _ = (j for j in range(3) if j != c)
        x, took = LINE[labels == c, 0], noisy[labels == c] == first
        w = 0.0
        for _ in range(20):  # Newton's method for the maximum likelihood
            p = 1 / (1 + np.exp(-w * x))
            w += ((took - p) * x).sum() / (p * (1 - p) * x**2).sum()
        p = 1 / (1 + np.exp(-w * x))
        for bin_ in np.array_split(np.arange(len(x)), 8):
            assert abs(took[bin_].sum() - p[bin_].sum()) < 4 * np.sqrt((p * (1 - p))[bin_].sum())
        slopes.append(w)
    assert np.abs(slopes).min() > 0.1
    assert min(abs(a - b) for a, b in zip(slopes, slopes[1:] + slopes[:1], strict=True)) > 0.1  # one per class


def test_features_are_standardized_and_constant_ones_count_for_nothing():
    plain, scaled, wider = (
        instance_dependent(jax.random.key(5), x, LABELS, K, 0.5)
        for x in (FEATURES, 8 * FEATURES - 16, FEATURES.astype(np.float64))
    )
    for other in (scaled, wider):
        assert (np.asarray(plain.labels) == np.asarray(other.labels)).mean() > 0.99
    constant, mask = instance_dependent(jax.random.key(6), np.full((N, F), 7.0), LABELS, K, 0.5)
    shift = (np.asarray(constant) - LABELS)[np.asarray(mask)] % K
    assert max(z_score(c, mask.sum(), 1 / (K - 1)) for c in np.bincount(shift, minlength=K)[1:]) < 4


def test_key_decides_and_jit_and_vmap_agree_with_eager():
    keys = jax.random.split(jax.random.key(7), 2)
    eager = [instance_dependent(k, FEATURES, LABELS, K, 0.5) for k in keys]
    jax.tree.map(np.testing.assert_array_equal, instance_dependent(keys[0], FEATURES, LABELS, K, 0.5), eager[0])
    assert (eager[0].mask != eager[1].mask).any()
    jitted = jax.jit(partial(instance_dependent, num_classes=K))
    mapped = jax.vmap(lambda k: instance_dependent(k, FEATURES, LABELS, K, 0.5))(keys)
    for i, expected in enumerate(eager):
        jax.tree.map(np.testing.assert_array_equal, jitted(keys[i], FEATURES, LABELS, rate=0.5), expected)
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda a: a[i], mapped), expected)  # noqa: B023


def test_small_label_types_do_not_overflow():
    noisy, _ = instance_dependent(jax.random.key(8), FEATURES[:500], jnp.full((500,), 99, jnp.int8), 100, 1.0)
    assert noisy.dtype == jnp.int8
    assert noisy.min() >= 0
    assert noisy.max() < 99


@pytest.mark.parametrize(
    ("features", "labels", "classes", "rate", "error", "match"),
    [
        (FEATURES.astype(int), LABELS, K, 0.1, TypeError, "features must be floating, got int"),
        (FEATURES[:5], LABELS, K, 0.1, ValueError, r"one row per label, got \(5, 6\) for 12000 labels"),
        (FEATURES[:, 0], LABELS, K, 0.1, ValueError, r"must be \[n, F\]"),
        (FEATURES, LABELS * 1.0, K, 0.1, TypeError, "labels must be integers"),
        (FEATURES, LABELS, 1, 0.1, ValueError, "at least 2"),
        (FEATURES, LABELS, K, 1.5, ValueError, r"rate must lie in \[0, 1\], got 1.5"),
    ],
)
def test_bad_input_is_named(key, features, labels, classes, rate, error, match):
    with pytest.raises(error, match=match):
        instance_dependent(key, features, labels, classes, rate)


def test_key_must_be_typed():
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        instance_dependent(jnp.array([0, 1], jnp.uint32), FEATURES, LABELS, K, 0.1)
