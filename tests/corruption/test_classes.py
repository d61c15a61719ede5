"""Noise on classes: rates and targets within stated z-scores, masks that tell the truth, matrices met exactly."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.corruption import flips, outliers, uniform_flips, vector_shuffle

N, K = 20_000, 5
LABELS = np.arange(N, dtype=np.int32) % K
TRANSITION = np.array(
    [
        [0.6, 0.1, 0.1, 0.1, 0.1],
        [0.0, 0.5, 0.5, 0.0, 0.0],
        [0.0, 0.0, 1.0, 0.0, 0.0],
        [0.3, 0.3, 0.0, 0.3, 0.1],
        [0.0, 0.0, 0.7, 0.3, 0.0],
    ],
    np.float32,
)


def z_score(count, n, p):
    return abs(float(count) - float(n) * p) / np.sqrt(float(n) * p * (1 - p))


def jitted(corrupt):
    """Compiled once for all tests, as most of their time would go into compiling one operation after another."""
    return jax.jit(corrupt, static_argnames="num_classes")


@jitted
def uniform(key, labels, rate, num_classes=K):
    return uniform_flips(key, labels, num_classes, rate)


@jitted
def shuffle(key, labels, rate, num_classes=K):
    return vector_shuffle(key, labels, rate, num_classes)


@jitted
def outlying(key, labels, rate, num_classes=K):
    return outliers(key, labels, num_classes, rate)


@jitted
def by_matrix(key, labels, rate, num_classes=K):
    rate = jnp.asarray(rate, jnp.float32)
    off = rate / (num_classes - 1)
    return flips(key, labels, jnp.where(jnp.eye(num_classes, dtype=bool), 1 - rate, off))


jitted_flips = jax.jit(flips)
KINDS = [uniform, shuffle, outlying, by_matrix]
TARGETS = {uniform: K - 1, shuffle: K, outlying: K, by_matrix: K - 1}


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("corrupt", KINDS)
def test_touches_the_stated_share(corrupt, rate):
    mask = corrupt(jax.random.key(1), LABELS, rate).mask
    assert mask.dtype == bool
    assert z_score(mask.sum(), N, rate) < 4


@pytest.mark.parametrize("corrupt", KINDS)
def test_touched_classes_become_each_target_equally_often(corrupt):
    targets = TARGETS[corrupt]
    noisy, mask = map(np.asarray, corrupt(jax.random.key(2), LABELS, 0.5))
    shift = (noisy - LABELS)[mask] % K
    counts = np.bincount(shift, minlength=K)[K - targets :]
    assert counts.sum() == mask.sum()  # a flip never gives the class it started from
    assert max(z_score(c, mask.sum(), 1 / targets) for c in counts) < 4
    # The target does not depend on the class either: every row of the transition matrix is the same.
    rows = np.array([np.bincount(shift[LABELS[mask] == c], minlength=K) for c in range(K)])[:, K - targets :]
    assert max(z_score(c, row.sum(), 1 / targets) for row in rows for c in row) < 4.5


@pytest.mark.parametrize("corrupt", KINDS)
def test_untouched_labels_stay(corrupt):
    noisy, mask = corrupt(jax.random.key(3), LABELS, 0.4)
    np.testing.assert_array_equal(np.asarray(noisy)[~mask], LABELS[~mask])
    noisy, mask = corrupt(jax.random.key(3), LABELS, 0.0)
    assert not mask.any()
    np.testing.assert_array_equal(noisy, LABELS)
    assert corrupt(jax.random.key(3), LABELS, 1.0).mask.all()


@pytest.mark.parametrize("corrupt", [uniform, by_matrix])
def test_flip_mask_is_exactly_the_changed_labels(corrupt):
    noisy, mask = corrupt(jax.random.key(4), LABELS, 0.6)
    np.testing.assert_array_equal(np.asarray(noisy) != LABELS, mask)


def test_flips_follow_every_row_and_never_the_impossible():
    noisy = np.asarray(jitted_flips(jax.random.key(5), LABELS, TRANSITION).labels)
    counts = np.zeros((K, K))
    np.add.at(counts, (LABELS, noisy), 1)
    certain = (TRANSITION == 0) | (TRANSITION == 1)
    np.testing.assert_array_equal(counts[certain], (N / K) * TRANSITION[certain])
    scores = [z_score(counts[i, j], N / K, float(TRANSITION[i, j])) for i, j in np.argwhere(~certain)]
    assert max(scores) < 4


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [1, 2, 3, 4, 0], [4, 2, 2, 0, 1]])
def test_flips_by_a_matrix_of_zeros_and_ones_are_exact(order):
    noisy, mask = jitted_flips(jax.random.key(6), LABELS, np.eye(K, dtype=np.float32)[order])
    np.testing.assert_array_equal(noisy, np.array(order)[LABELS])
    np.testing.assert_array_equal(mask, np.array(order)[LABELS] != LABELS)


@pytest.mark.parametrize("num_classes", [2, 3, 100])
def test_flips_are_the_inverse_of_the_cumulative_sum(num_classes):
    rng = np.random.default_rng(num_classes)
    transition = rng.dirichlet(np.full(num_classes, 0.3), num_classes).astype(np.float32)
    labels = rng.integers(0, num_classes, 3000)
    key = jax.random.key(7)
    u = np.asarray(jax.random.uniform(key, labels.shape, dtype=jnp.float32))
    cumulative = np.cumsum(transition.astype(np.float64), axis=1)
    expected = np.array([np.searchsorted(cumulative[y], x, side="right") for y, x in zip(labels, u, strict=True)])
    clear = np.abs(cumulative[labels] - u[:, None]).min(axis=1) > 1e-5
    assert clear.mean() > 0.99 - num_classes * 1e-4
    noisy = np.asarray(jitted_flips(key, labels, transition).labels)
    np.testing.assert_array_equal(noisy[clear], expected[clear])


def test_rows_that_rounding_leaves_below_one_give_nothing_to_impossible_classes():
    transition = np.tile(np.array([0.4995, 0.5, 0.0, 0.0], np.float32), (4, 1))
    noisy = jitted_flips(jax.random.key(8), np.zeros(100_000, np.int32), transition).labels
    assert noisy.max() == 1


def test_a_draw_of_exactly_zero_gives_nothing_to_impossible_classes(key, monkeypatch):
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.zeros(shape, dtype))
    np.testing.assert_array_equal(flips(key, LABELS[:K], TRANSITION).labels, [0, 1, 2, 0, 2])


def test_outliers_are_labelled_whatever_stood_there_before():
    noisy, mask = map(np.asarray, outlying(jax.random.key(9), LABELS, 0.5))
    for c in range(K):
        counts = np.bincount(noisy[mask & (c == LABELS)], minlength=K)
        assert max(z_score(count, counts.sum(), 1 / K) for count in counts) < 4


@pytest.mark.parametrize("corrupt", KINDS)
def test_key_decides(corrupt):
    once, again, other = (corrupt(jax.random.key(s), LABELS, 0.4) for s in (9, 9, 10))
    jax.tree.map(np.testing.assert_array_equal, once, again)
    assert (once.labels != other.labels).any()
    assert (once.mask != other.mask).any()


@pytest.mark.parametrize("corrupt", KINDS)
def test_jit_vmap_and_traced_rate_agree_with_eager(corrupt):
    keys = jax.random.split(jax.random.key(11), 2)
    eager = [corrupt.__wrapped__(k, LABELS, 0.4) for k in keys]
    mapped = jax.vmap(partial(corrupt, labels=LABELS, rate=0.4))(keys)
    for i, expected in enumerate(eager):
        jax.tree.map(np.testing.assert_array_equal, corrupt(keys[i], LABELS, 0.4), expected)
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x: x[i], mapped), expected)  # noqa: B023


@pytest.mark.parametrize("corrupt", KINDS)
def test_small_label_types_do_not_overflow(corrupt):
    labels = jnp.full((500,), 99, jnp.int8)
    noisy, _ = corrupt(jax.random.key(12), labels, 1.0, 100)
    assert noisy.dtype == jnp.int8
    assert noisy.min() >= 0
    assert noisy.max() < 100
    assert len(np.unique(noisy)) > 90


@pytest.mark.parametrize("function", [uniform_flips, outliers])
def test_labels_must_be_classes(function, key):
    with pytest.raises(TypeError, match="integers"):
        function(key, np.zeros(3), K, 0.1)
    with pytest.raises(ValueError, match="one dimension"):
        function(key, np.zeros((3, 2), int), K, 0.1)
    with pytest.raises(ValueError, match="at least 2"):
        function(key, LABELS, 1, 0.1)
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\], got 1.1"):
        function(key, LABELS, K, 1.1)
    with pytest.raises(ValueError, match="got nan"):
        function(key, LABELS, K, float("nan"))
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        function(np.array([0, 1], np.uint32), LABELS, K, 0.1)


@pytest.mark.parametrize(
    ("labels", "transition", "error", "match"),
    [
        (LABELS * 1.0, TRANSITION, TypeError, "labels must be integers"),
        (LABELS[:, None], TRANSITION, ValueError, "one dimension"),
        (LABELS, np.eye(K, dtype=int), TypeError, "transition must be floating"),
        (LABELS, TRANSITION[:4], ValueError, r"square, .* got shape \(4, 5\)"),
        (LABELS, TRANSITION[0], ValueError, r"got shape \(5,\)"),
        (LABELS, np.ones((1, 1)), ValueError, r"K of at least 2, got shape \(1, 1\)"),
        (LABELS, TRANSITION * np.float32(0.9), ValueError, "row 0 is no distribution"),
        (LABELS, np.array([[1.0, 0.0], [1.5, -0.5]]), ValueError, "row 1 is no distribution"),
        (LABELS, np.full((2, 2), np.nan), ValueError, "row 0 is no distribution"),
    ],
)
def test_flips_name_bad_input(key, labels, transition, error, match):
    with pytest.raises(error, match=match):
        flips(key, labels, transition)


def test_flips_need_a_typed_key():
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        flips(jnp.array([0, 1], jnp.uint32), LABELS, TRANSITION)
