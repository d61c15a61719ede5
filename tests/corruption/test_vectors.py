"""Noise on label vectors: sums that a shuffle keeps, tags that go wrong at the stated rates, uploads that agree."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.corruption import tag_noise, vector_shuffle

N, K = 20_000, 5
LABELS = np.arange(N, dtype=np.int32) % K
VECTORS = (np.arange(N)[:, None] // 2 ** np.arange(K) % 2).astype(np.uint8)


# Compiled, as most of the time would go into compiling one operation after another.
jitted_shuffle = jax.jit(vector_shuffle, static_argnames="num_classes")
jitted_tags = jax.jit(tag_noise, static_argnames="batch")


def z_score(count, n, p):
    return abs(float(count) - float(n) * p) / np.sqrt(float(n) * p * (1 - p))


@pytest.mark.parametrize("rate", [0.1, 0.8])
def test_shuffle_keeps_the_number_of_tags_and_touches_only_the_mask(rate):
    noisy, mask = map(np.asarray, jitted_shuffle(jax.random.key(5), VECTORS, rate))
    np.testing.assert_array_equal(noisy.sum(1), VECTORS.sum(1))
    np.testing.assert_array_equal(noisy[~mask], VECTORS[~mask])
    assert z_score(mask.sum(), N, rate) < 4
    assert noisy.dtype == VECTORS.dtype


def test_shuffled_vectors_are_uniform_over_arrangements():
    vectors = np.tile(np.array([1, 1, 0, 0], dtype=np.uint8), (6000, 1))
    noisy = np.asarray(jitted_shuffle(jax.random.key(6), vectors, 1.0).labels)
    _, counts = np.unique(noisy, axis=0, return_counts=True)
    assert len(counts) == 6  # 4 choose 2
    assert max(z_score(c, 6000, 1 / 6) for c in counts) < 4


def test_shuffled_classes_follow_the_law_of_shuffled_one_hot_vectors():
    one_hot = np.eye(K, dtype=np.uint8)[LABELS]
    by_vector = np.asarray(jitted_shuffle(jax.random.key(7), one_hot, 0.5).labels).argmax(1)
    by_class = np.asarray(jitted_shuffle(jax.random.key(8), LABELS, 0.5, K).labels)
    for noisy in (by_vector, by_class):
        assert z_score((noisy != LABELS).sum(), N, 0.5 * (K - 1) / K) < 4


@pytest.mark.parametrize(("missing", "spurious"), [(0.3, 0.05), (0.9, 0.5), (0.0, 0.2), (0.2, 0.0)])
def test_tags_are_dropped_and_added_at_their_own_rates(missing, spurious):
    noisy, mask, copied = map(np.asarray, jitted_tags(jax.random.key(1), VECTORS, missing, spurious, 0.0))
    for wrong, rate in ((noisy[VECTORS == 1] == 0, missing), (noisy[VECTORS == 0] == 1, spurious)):
        assert (wrong.sum() == 0) if rate == 0 else (z_score(wrong.sum(), wrong.size, rate) < 4)
    # Entries go wrong on their own: an example is right if all of its entries are.
    tags = VECTORS.sum(1)
    right = (1.0 - missing) ** tags * (1.0 - spurious) ** (K - tags)
    assert abs((~mask).sum() - right.sum()) < 4 * np.sqrt((right * (1 - right)).sum() + 1)
    np.testing.assert_array_equal(mask, (noisy != VECTORS).any(axis=1))
    assert not copied.any()
    assert noisy.dtype == VECTORS.dtype


def test_copied_uploads_share_the_noisy_tags_of_a_member():
    batch = 10
    rows = np.arange(N)
    unique = (rows[:, None] // 2 ** np.arange(15) % 2).astype(np.uint8)  # each row tells which one it is
    noisy, mask, copied = map(np.asarray, jitted_tags(jax.random.key(2), unique, 0.0, 0.0, 0.3, batch))
    uploads = copied.reshape(-1, batch)
    assert (uploads.all(axis=1) == uploads.any(axis=1)).all()
    assert z_score(uploads.all(axis=1).sum(), len(uploads), 0.3) < 4
    source = noisy @ 2 ** np.arange(15)
    np.testing.assert_array_equal(source[~copied], rows[~copied])
    taken = source.reshape(-1, batch)[uploads.all(axis=1)]
    np.testing.assert_array_equal(taken, np.broadcast_to(taken[:, :1], taken.shape))
    np.testing.assert_array_equal(taken // batch, rows.reshape(-1, batch)[uploads.all(axis=1)] // batch)
    members = np.bincount(taken[:, 0] % batch, minlength=batch)
    assert max(z_score(count, len(taken), 1 / batch) for count in members) < 4
    np.testing.assert_array_equal(mask, copied & (source != rows))


def test_a_copied_upload_copies_what_went_wrong_as_well():
    noisy, _, copied = map(np.asarray, jitted_tags(jax.random.key(3), np.ones((8000, 1), int), 0.5, 0.0, 1.0, 8))
    assert copied.all()
    assert z_score(noisy[::8].sum(), 1000, 0.5) < 4
    assert (noisy.reshape(-1, 8) == noisy[::8]).all()


@pytest.mark.parametrize("n", [1, 23])
def test_the_last_upload_may_be_smaller(n):
    tags = np.eye(n, dtype=np.int32)
    for seed in range(6):
        noisy, _, copied = jitted_tags(jax.random.key(seed), tags, 0.0, 0.0, 1.0, 5)
        assert copied.all()
        np.testing.assert_array_equal(noisy.argmax(axis=1) // 5, np.arange(n) // 5)


def test_members_of_the_smaller_upload_are_copied_equally_often():
    keys = jax.random.split(jax.random.key(6), 2000)
    noisy = jax.vmap(lambda key: jitted_tags(key, np.eye(7, dtype=np.int32), 0.0, 0.0, 1.0, 5).labels[-1])(keys)
    assert z_score(noisy[:, 5].sum(), len(keys), 0.5) < 4
    assert (noisy[:, 5] + noisy[:, 6] == 1).all()


def test_no_noise_changes_nothing():
    for result in (
        jitted_tags(jax.random.key(4), VECTORS, 0.0, 0.0, 0.0),
        jitted_shuffle(jax.random.key(4), VECTORS, 0),
    ):
        np.testing.assert_array_equal(result.labels, VECTORS)
        assert not result.mask.any()
    turned = jitted_tags(jax.random.key(4), VECTORS, 1.0, 1.0, 0.0).labels
    np.testing.assert_array_equal(turned, 1 - VECTORS)


@jax.jit
def tags(key, labels, rate):
    return tag_noise(key, labels, rate, rate / 2, rate, 4)


@pytest.mark.parametrize("corrupt", [jitted_shuffle, tags])
def test_jit_vmap_and_traced_rate_agree_with_eager(corrupt):
    keys = jax.random.split(jax.random.key(11), 2)
    labels = VECTORS[:50].astype(bool)
    eager = [corrupt.__wrapped__(k, labels, 0.4) for k in keys]
    mapped = jax.vmap(partial(corrupt, labels=labels, rate=0.4))(keys)
    for i, expected in enumerate(eager):
        assert expected.labels.dtype == bool
        jax.tree.map(np.testing.assert_array_equal, corrupt(keys[i], labels, 0.4), expected)
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x: x[i], mapped), expected)  # noqa: B023


@pytest.mark.parametrize("corrupt", [jitted_shuffle, tags])
def test_key_decides(corrupt):
    once, again, other = (corrupt(jax.random.key(s), VECTORS, 0.4) for s in (9, 9, 10))
    jax.tree.map(np.testing.assert_array_equal, once, again)
    assert all((a != b).any() for a, b in zip(once, other, strict=True))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda key: vector_shuffle(key, LABELS, 0.1), ValueError, "num_classes is needed"),
        (lambda key: vector_shuffle(key, VECTORS, 0.1, K + 1), ValueError, "5 columns but num_classes is 6"),
        (lambda key: vector_shuffle(key, np.zeros(3), 0.1, K), TypeError, "integers"),
        (lambda key: vector_shuffle(key, VECTORS, 1.1), ValueError, r"rate must lie in \[0, 1\], got 1.1"),
        (lambda key: vector_shuffle(jnp.array([0, 1], jnp.uint32), LABELS, 0.1, K), TypeError, "jax.random.key"),
        (lambda key: tag_noise(key, LABELS, 0.1, 0.1, 0.1), ValueError, r"\[n, K\], got shape \(20000,\)"),
        (lambda key: tag_noise(key, VECTORS, 1.1, 0.1, 0.1), ValueError, "missing must lie .* got 1.1"),
        (lambda key: tag_noise(key, VECTORS, 0.1, -1, 0.1), ValueError, "spurious must lie .* got -1"),
        (lambda key: tag_noise(key, VECTORS, 0.1, 0.1, 2), ValueError, "batch_copied must lie .* got 2"),
        (lambda key: tag_noise(key, VECTORS, 0.1, 0.1, 0.1, 0), ValueError, "batch must be at least 1, got 0"),
        (lambda key: tag_noise(None, VECTORS, 0.1, 0.1, 0.1), TypeError, "jax.random.key"),
    ],
)
def test_bad_input_is_named(key, call, error, match):
    with pytest.raises(error, match=match):
        call(key)
