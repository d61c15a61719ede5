"""Synthetic noise: rates and targets within stated z-scores, masks that tell the truth, sums that a shuffle keeps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.corruption import uniform_flips, vector_shuffle

N, K = 20_000, 5
LABELS = np.arange(N, dtype=np.int32) % K
VECTORS = (np.arange(N)[:, None] // 2 ** np.arange(K) % 2).astype(np.uint8)


def z_score(count, n, p):
    return abs(float(count) - float(n) * p) / np.sqrt(float(n) * p * (1 - p))


def flips(key, labels, rate, num_classes=K):
    return uniform_flips(key, labels, num_classes, rate)


def shuffle(key, labels, rate, num_classes=K):
    return vector_shuffle(key, labels, rate, num_classes)


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("corrupt", [flips, shuffle])
def test_touches_the_stated_share(corrupt, rate):
    mask = corrupt(jax.random.key(1), LABELS, rate).mask
    assert mask.dtype == bool
    assert z_score(mask.sum(), N, rate) < 4


@pytest.mark.parametrize(("corrupt", "targets"), [(flips, K - 1), (shuffle, K)])
def test_touched_classes_become_each_target_equally_often(corrupt, targets):
    noisy, mask = map(np.asarray, corrupt(jax.random.key(2), LABELS, 0.5))
    shift = (noisy - LABELS)[mask] % K
    counts = np.bincount(shift, minlength=K)[K - targets :]
    assert counts.sum() == mask.sum()  # a flip never gives the class it started from
    assert max(z_score(c, mask.sum(), 1 / targets) for c in counts) < 4
    # The target does not depend on the class either: every row of the transition matrix is the same.
    rows = np.array([np.bincount(shift[LABELS[mask] == c], minlength=K) for c in range(K)])[:, K - targets :]
    assert max(z_score(c, row.sum(), 1 / targets) for row in rows for c in row) < 4.5


@pytest.mark.parametrize("corrupt", [flips, shuffle])
def test_untouched_labels_stay(corrupt):
    noisy, mask = corrupt(jax.random.key(3), LABELS, 0.4)
    np.testing.assert_array_equal(np.asarray(noisy)[~mask], LABELS[~mask])
    noisy, mask = corrupt(jax.random.key(3), LABELS, 0.0)
    assert not mask.any()
    np.testing.assert_array_equal(noisy, LABELS)
    assert corrupt(jax.random.key(3), LABELS, 1.0).mask.all()


def test_flip_mask_is_exactly_the_changed_labels():
    noisy, mask = uniform_flips(jax.random.key(4), LABELS, K, 0.6)
    np.testing.assert_array_equal(np.asarray(noisy) != LABELS, mask)


def test_shuffle_keeps_the_number_of_tags_and_touches_only_the_mask():
    noisy, mask = map(np.asarray, vector_shuffle(jax.random.key(5), VECTORS, 0.5))
    np.testing.assert_array_equal(noisy.sum(1), VECTORS.sum(1))
    np.testing.assert_array_equal(noisy[~mask], VECTORS[~mask])
    assert noisy.dtype == VECTORS.dtype


def test_shuffled_vectors_are_uniform_over_arrangements():
    vectors = np.tile(np.array([1, 1, 0, 0], dtype=np.uint8), (6000, 1))
    noisy = np.asarray(vector_shuffle(jax.random.key(6), vectors, 1.0).labels)
    _, counts = np.unique(noisy, axis=0, return_counts=True)
    assert len(counts) == 6  # 4 choose 2
    assert max(z_score(c, 6000, 1 / 6) for c in counts) < 4


def test_shuffled_classes_follow_the_law_of_shuffled_one_hot_vectors():
    one_hot = np.eye(K, dtype=np.uint8)[LABELS]
    by_vector = np.asarray(vector_shuffle(jax.random.key(7), one_hot, 0.5).labels).argmax(1)
    by_class = np.asarray(vector_shuffle(jax.random.key(8), LABELS, 0.5, K).labels)
    for noisy in (by_vector, by_class):
        assert z_score((noisy != LABELS).sum(), N, 0.5 * (K - 1) / K) < 4


@pytest.mark.parametrize("corrupt", [flips, shuffle])
def test_key_decides(corrupt):
    once, again, other = (corrupt(jax.random.key(s), LABELS, 0.4) for s in (9, 9, 10))
    jax.tree.map(np.testing.assert_array_equal, once, again)
    assert (once.labels != other.labels).any()
    assert (once.mask != other.mask).any()


@pytest.mark.parametrize("corrupt", [flips, shuffle])
def test_jit_vmap_and_traced_rate_agree_with_eager(corrupt):
    keys = jax.random.split(jax.random.key(11), 3)
    labels = LABELS[:50]
    eager = [corrupt(k, labels, 0.4) for k in keys]
    jitted = jax.jit(corrupt)
    mapped = jax.vmap(partial(corrupt, labels=labels, rate=0.4))(keys)
    for i, expected in enumerate(eager):
        jax.tree.map(np.testing.assert_array_equal, jitted(keys[i], labels, 0.4), expected)
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x: x[i], mapped), expected)  # noqa: B023


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.int8])
@pytest.mark.parametrize("corrupt", [flips, shuffle])
def test_small_label_types_do_not_overflow(corrupt, dtype):
    labels = jnp.full((500,), 99, dtype)
    noisy, _ = corrupt(jax.random.key(12), labels, 1.0, 100)
    assert noisy.dtype == dtype
    assert noisy.min() >= 0
    assert noisy.max() < 100
    assert len(np.unique(noisy)) > 90


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda key: uniform_flips(key, np.zeros(3), K, 0.1), TypeError, "integers"),
        (lambda key: uniform_flips(key, np.zeros((3, 2), int), K, 0.1), ValueError, "one dimension"),
        (lambda key: uniform_flips(key, LABELS, 1, 0.1), ValueError, "at least 2"),
        (lambda key: uniform_flips(key, LABELS, K, 1.1), ValueError, r"\[0, 1\], got 1.1"),
        (lambda key: uniform_flips(key, LABELS, K, float("nan")), ValueError, "got nan"),
        (lambda key: vector_shuffle(key, LABELS, 0.1), ValueError, "num_classes is needed"),
        (lambda key: vector_shuffle(key, VECTORS, 0.1, K + 1), ValueError, "5 columns but num_classes is 6"),
        (lambda key: vector_shuffle(key, np.zeros(3), 0.1, K), TypeError, "integers"),
        (lambda key: uniform_flips(np.array([0, 1], np.uint32), LABELS, K, 0.1), TypeError, "jax.random.key"),
        (lambda key: vector_shuffle(jnp.array([0, 1], jnp.uint32), LABELS, 0.1, K), TypeError, "jax.random.key"),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call(jax.random.key(0))
