"""Neighbours, their opinion beside a model's, and Bayes' rule whose sharpness is found on the labels."""

import jax.numpy as jnp
import numpy as np
import pytest

from nlx import transitions
from nlx.arguments import ArgumentError
from nlx.cleaning.bayes import HeldOut, Reading, by_em, likelihood, posterior
from nlx.cleaning.evidence import each_class, fuse, weigh, weigh_each
from nlx.cleaning.neighbours import neighbours
from nlx.methods.method import KNOWN_WRONG

RNG = np.random.default_rng(0)


def noisy_world(n=3000, k=4, rate=0.3, sharp=1.0, seed=0):
    """Held-out probabilities that are right once raised to ``sharp``, given labels and true ones."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, 0.05), n)
    true = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=k - 1)
    given = np.where(rng.random(n) < rate, (true + rng.integers(1, k, n)) % k, true)
    said = np.maximum(p, 1e-9) ** (1 / sharp)
    return said / said.sum(axis=1, keepdims=True), given, true


@pytest.mark.parametrize(("n", "k"), [(1203, 7), (40, 39), (65, 15), (2048, 15), (70, 69)])
def test_neighbours_are_those_of_all_cosines(n, k):
    x = RNG.normal(size=(n, 6)).astype(np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    near = neighbours(x, k)
    assert near.shape == (n, k)
    np.testing.assert_allclose(
        np.take_along_axis(cosines, near, axis=1), -np.sort(-cosines, axis=1)[:, :k], rtol=0, atol=1e-5
    )
    assert not (near == np.arange(n)[:, None]).any()
    with pytest.raises(ArgumentError, match="`k` must lie between 1 and"):
        neighbours(x, n)


def test_em_is_a_loop_over_examples():
    probs, given, _ = noisy_world(200)
    start = transitions.from_confident_joint(transitions.confident_joint(probs, given), given)
    held_out = HeldOut(probs, given)
    np.testing.assert_array_equal(held_out.counted, start)
    reading = by_em(held_out, start, 1.3, 2)
    p, t = probs**1.3, np.asarray(start, np.float64)
    p /= p.sum(axis=1, keepdims=True)
    for _ in range(2):
        counts = 5 * np.asarray(start, np.float64)
        for i, y in enumerate(given):
            q = p[i] * t[:, y]
            counts[:, y] += q / q.sum()
        t = counts / counts.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(reading.matrix, t, atol=1e-4)
    assert likelihood(held_out, reading) == pytest.approx(
        np.mean([np.log(p[i] @ t[:, y]) for i, y in enumerate(given)]), abs=1e-4
    )


def test_probabilities_that_say_too_little_are_sharpened_and_others_are_not():
    powers = [weigh(*noisy_world(sharp=sharp)[:2]).power for sharp in (1.0, 2.0)]
    assert powers[0] <= 1.4
    assert powers[1] > powers[0]
    probs, given, true = noisy_world(sharp=2.0)
    weighed = weigh(probs, given)
    best = np.mean(weighed.posterior.argmax(axis=1) == true)
    assert best > max(np.mean(given == true), np.mean(probs.argmax(axis=1) == true)) + 0.02
    np.testing.assert_allclose(np.diag(weighed.transition), 0.7, atol=0.06)


def test_noise_that_depends_on_the_class_is_told_from_one_rate_for_all():
    """And the posterior is the mean of both readings, by weight."""
    probs, given, true = noisy_world(1500)
    pairs = np.where(np.random.default_rng(1).random(1500) < 0.3, (true + 1) % 4, true)
    even, structured = weigh(probs, given), weigh(probs, pairs)
    assert even.structure < 0.1 < 0.9 < structured.structure
    held_out = HeldOut(probs, given)
    start = np.asarray(transitions.from_confident_joint(transitions.confident_joint(probs, given), given), np.float64)
    often = np.bincount(given, minlength=4) / 1500
    rate = 1 - np.diag(start) @ often
    one = [[1 - rate if i == j else rate * often[j] / (1 - often[i]) for j in range(4)] for i in range(4)]
    readings = []
    for matrix, rounds in ((start, 5), (np.array(one), 0)):
        matrix = jnp.asarray(matrix, jnp.float32)
        fits = {a: likelihood(held_out, Reading(matrix, a)) for a in (0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8)}
        power = max(fits, key=fits.get)
        readings.append((fits[power], posterior(*held_out, by_em(held_out, matrix, power, rounds))))
    gain = 1500 * (readings[0][0] - readings[1][0])
    weight = 1 / (1 + np.exp(-8 * (gain / (11 / 2 * np.log(1500)) - 0.5)))
    assert even.structure == pytest.approx(weight, abs=1e-3)
    mean = even.structure * readings[0][1] + (1 - even.structure) * readings[1][1]
    np.testing.assert_allclose(even.posterior, mean, atol=1e-4)


@pytest.mark.parametrize("noise", ["one rate", "pairs"])
def test_noise_of_many_classes_is_told_apart_by_labels_that_it_was_not_counted_on(noise):
    """With fewer examples than T has entries; there Schwarz's price would never let T speak."""
    rng = np.random.default_rng(0)
    n, k = 3000, 60
    true = rng.integers(0, k, n)
    wrong = rng.random(n) < 0.3
    given = np.where(wrong, (true + (1 if noise == "pairs" else rng.integers(1, k, n))) % k, true)
    # Models that have learnt from such labels: they give the wrong class of a pair its share.
    seen = np.full((n, k), 0.1 / k)
    seen[np.arange(n), true] += 0.6
    seen[np.arange(n), (true + 1) % k] += 0.3 if noise == "pairs" else 0.0
    probs = seen * rng.gamma(20, 1 / 20, (n, k))
    probs /= probs.sum(axis=1, keepdims=True)
    weighed = weigh(probs, given)
    assert weighed.structure == pytest.approx(float(noise == "pairs"), abs=1e-3)
    assert np.mean(weighed.posterior.argmax(axis=1) == true) > 0.9  # 0.7 as given
    rates = weighed.transition[np.arange(k), (np.arange(k) + 1) % k]
    assert (rates.mean() > 0.1) == (noise == "pairs")
    one = weigh(probs[:1], given[:1]).posterior
    assert one.shape == (1, k)
    assert np.isfinite(one).all()


def test_neighbours_help_where_a_model_cannot_and_are_left_alone_where_they_say_nothing():
    place = RNG.normal(size=(1500, 2))
    true = (np.floor(place * 2).sum(axis=1) % 2).astype(int)  # a chessboard: a linear model knows nothing
    given = np.where(RNG.random(1500) < 0.2, 1 - true, true)
    near = np.argsort(((place[:, None] - place[None]) ** 2).sum(axis=-1), axis=1)[:, 1:16].astype(np.int32)
    ignorant = np.full((1500, 2), 0.5) + RNG.normal(size=(1500, 1)) * [0.01, -0.01]
    assert fuse(ignorant, given, near)[1] > 0
    told = np.where(true[:, None] == np.arange(2), 0.95, 0.05)
    random = RNG.integers(0, 1500, (1500, 15)).astype(np.int32)
    fused, _ = fuse(told, given, random)
    np.testing.assert_array_equal(fused.argmax(axis=1), true)


def test_a_soft_label_weighs_as_much_as_it_is_sure():
    probs, given, _ = noisy_world()
    hard, vectors = weigh(probs, given), np.eye(4)[given]
    np.testing.assert_allclose(weigh(probs, given, soft=vectors).posterior, hard.posterior, atol=1e-5)
    sharp = np.maximum(probs, 1e-12) ** hard.power
    even = weigh(probs, given, soft=np.full((3000, 4), 0.25)).posterior
    np.testing.assert_allclose(even, sharp / sharp.sum(axis=1, keepdims=True), atol=1e-4)
    between = weigh(probs, given, soft=(vectors + 0.25) / 2).posterior
    own = np.arange(3000), given
    assert (between[own] <= hard.posterior[own] + 1e-5).all()


def test_known_labels_are_certain_and_correct_what_is_believed_of_the_others():
    probs, given, true = noisy_world(seed=3)
    # Held-out models that take the fourth class for the first in most cases, so that noise seems to be between these.
    mistaken = (true == 3) & (np.random.default_rng(0).random(3000) < 0.8)
    probs[mistaken] = probs[mistaken][:, [3, 1, 2, 0]]
    known = np.where(np.arange(3000) % 4 == 0, true, -1)
    alone, told = weigh(probs, given), weigh(probs, given, known)
    np.testing.assert_array_equal(told.posterior[known >= 0], np.eye(4)[true[known >= 0]])
    T = transitions.symmetric(4, 0.3)
    assert np.abs(told.transition - T).max() < 0.9 * np.abs(alone.transition - T).max()
    rest = known < 0
    assert np.mean(told.posterior.argmax(axis=1)[rest] == true[rest]) > np.mean(
        alone.posterior.argmax(axis=1)[rest] == true[rest]
    )


def test_labels_known_to_be_wrong_are_excluded_and_tell_of_the_noise():
    said, given, true = noisy_world(rate=0.3)
    looked_at = np.arange(len(given)) % 2 == 0
    right = np.where(looked_at & (given == true), true, -1)
    known = np.where(looked_at & (given != true), KNOWN_WRONG, right)
    nothing, half, both = (weigh(said, given, k) for k in (None, right, known))
    wrong = known == KNOWN_WRONG
    assert (both.posterior[wrong, given[wrong]] == 0).all()
    np.testing.assert_allclose(both.posterior.sum(axis=1), 1, rtol=1e-4)
    kept = [float(np.diagonal(found.transition).mean()) for found in (half, both)]
    assert kept[1] < kept[0]  # right ones alone speak for little noise
    assert kept[1] == pytest.approx(np.mean(given == true), abs=0.02)
    assert (both.posterior.argmax(axis=1) == true)[wrong].mean() > (nothing.posterior.argmax(axis=1) == true)[
        wrong
    ].mean()


def test_each_class_of_several_is_weighed_by_itself():
    rng = np.random.default_rng(0)
    true = (rng.random((2000, 3)) < (0.5, 0.2, 0.1)).astype(np.uint8)
    missing, spurious = (0.3, 0.1, 0.4), (0.05, 0.1, 0.02)
    given = np.where(rng.random(true.shape) < np.where(true == 1, missing, spurious), 1 - true, true).astype(np.uint8)
    given[:, 2] = 0  # a class that nobody names
    seen = np.clip(true + rng.normal(size=true.shape) * 0.35, 0.02, 0.98)
    found = weigh_each(seen, given)
    for c in range(2):
        alone = weigh(np.stack([1 - seen[:, c], seen[:, c]], axis=1).astype(np.float32), given[:, c].astype(int))
        np.testing.assert_allclose(found[:, c], alone.posterior[:, 1], atol=1e-6)
    np.testing.assert_allclose(found[:, 2], seen[:, 2], atol=1e-6)
    right = [np.mean((p >= 0.5)[:, :2] == true[:, :2]) for p in (found, seen, given)]
    assert right[0] > max(right[1:])


def test_what_is_known_of_several_is_certain():
    seen, given = np.full((40, 2), 0.4), np.tile([[0, 1], [1, 0]], (20, 1))
    known = np.full((40, 2), -1)
    known[:3, 0] = 1
    found = weigh_each(seen, given, known)
    np.testing.assert_allclose(found[:3, 0], 1, atol=1e-6)
    assert np.isfinite(found).all()


def test_neighbours_speak_for_each_class_of_several():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(800, 2)).astype(np.float32)
    true = np.stack([x[:, 0] * x[:, 1] > 0, x[:, 0] > 0], axis=1).astype(np.uint8)  # the first is nothing for lines
    given = np.where(rng.random(true.shape) < 0.2, 1 - true, true).astype(np.uint8)
    seen = np.stack([np.full(800, 0.5), 1 / (1 + np.exp(-3 * x[:, 0]))], axis=1)
    near = neighbours(x, 15)
    found = each_class(lambda p, y, known: fuse(p, y, near, known)[0], seen, given)
    assert found.dtype == np.float32
    assert np.mean((found[:, 0] >= 0.5) == true[:, 0]) > 0.9
    alone = fuse(np.stack([1 - seen[:, 1], seen[:, 1]], axis=1).astype(np.float32), given[:, 1].astype(int), near)[0]
    np.testing.assert_allclose(found[:, 1], alone[:, 1], atol=1e-6)
