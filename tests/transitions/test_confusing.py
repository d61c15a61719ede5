import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.transitions.confusing import estimate_confusing, noise_kinds

RNG = np.random.default_rng(0)
RUN = jax.jit(estimate_confusing, static_argnums=2)


def estimate(true, noisy, k, where=True):
    """Padded to one size, so that one trace serves all tests of a K."""
    n = len(true)
    wide = -(-n // 8192) * 8192
    where = np.pad(np.broadcast_to(where, n), (0, wide - n))
    padded = (np.pad(np.asarray(x, np.int32), (0, wide - n), constant_values=-1) for x in (true, noisy))
    estimated = RUN(*padded, k, where=where)
    return estimated._replace(kind=estimated.kind[:n])


def pairs(counts):
    """Labels with the given counts, in a random order."""
    counts = np.asarray(counts)
    true, noisy = (np.repeat(x.ravel(), counts.ravel()) for x in np.indices(counts.shape))
    order = RNG.permutation(len(true))
    return true[order].astype(np.int32), noisy[order].astype(np.int32)


def from_row(row):
    """Counts where only class 0 is mislabelled, as in `row` for the classes 1, 2, ..."""
    counts = np.eye(len(row) + 1, dtype=int) * 3
    counts[0, 1:] = row
    return counts


def value(row, c):
    """E of Eq. 9 for one class: every pair is of the type that explains it better."""
    alpha = 1 / len(row)
    return sum(m * np.log(max(p, alpha)) for m, p in zip(row, c, strict=True))


def best(row):
    """The best value over all k, and the smallest k that reaches it."""
    m = np.sort(row)[::-1].astype(float)
    values = []
    for k in range(1, len(m) + 1):
        c = m[:k] / m[:k].sum()
        values.append(sum(x * np.log(p) for x, p in zip(m, c, strict=False) if x) + m[k:].sum() * np.log(1 / len(m)))
    return max(values), int(np.argmax(np.array(values) >= max(values) - 1e-6 * m.sum())) + 1


@pytest.mark.parametrize("k", [3, 5, 6, 8, 12])
def test_every_row_is_the_best_over_all_k(k):
    for _ in range(8):
        counts = RNG.negative_binomial(0.3, 0.02, (k, k)) + np.eye(k, dtype=int)
        counts[RNG.uniform(size=(k, k)) < 0.2] = 40  # some confusions of equal size
        counts[-1] = 5 * np.eye(k, dtype=int)[-1]  # never mislabelled
        estimated = estimate(*pairs(counts), k)
        np.testing.assert_array_equal(estimated.counts, counts)
        np.testing.assert_allclose(estimated.transition.sum(1), 1, rtol=1e-6)
        np.testing.assert_array_equal(np.diag(estimated.transition), 0)
        for i in range(k):
            row, c = (np.delete(x[i], i) for x in (counts, np.asarray(estimated.transition)))
            if row.sum():
                target, size_of = best(row)
                np.testing.assert_allclose(value(row, c), target, rtol=1e-5, atol=1e-4)
                assert (c > 0).sum() == size_of


@pytest.mark.parametrize("k", [3, 6])
def test_no_random_matrix_does_better(k):
    for _ in range(10):
        counts = RNG.integers(0, 30, (k, k))
        estimated = estimate(*pairs(counts), k)
        for i in range(k):
            row, c = np.delete(counts[i], i), np.delete(np.asarray(estimated.transition)[i], i)
            others = RNG.dirichlet(np.full(k - 1, 0.3), 2000)
            values = np.log(np.maximum(others, 1 / (k - 1))) @ row
            assert (values <= value(row, c) + 1e-3).all()
            assert values.max() > value(row, c) - 0.2 * row.sum()


def test_several_confusions_pay_from_six_classes_on():
    several = estimate(*pairs(from_row([50, 48, 45, *[1] * 8])), 12)
    np.testing.assert_allclose(several.transition[0], np.array([0, 50, 48, 45, *[0] * 8]) / 143, rtol=1e-6)
    two = estimate(*pairs(from_row([50, 50, 1, 1, 1])), 6)
    np.testing.assert_array_equal(two.transition[0], [0, 0.5, 0.5, 0, 0, 0])
    for k in (3, 4, 5):
        few = estimate(*pairs(from_row([50] * (k - 1))), k)
        assert (np.asarray(few.transition[0]) > 0).sum() == 1


def test_ties_take_the_smaller_k_and_the_lower_class():
    # K = 5: one confusion of two equal mistakes is worth ln(1/4), and so are both: 2 ln(1/2).
    true, noisy = pairs(from_row([0, 7, 7, 0]))
    estimated = estimate(true, noisy, 5)
    np.testing.assert_array_equal(estimated.transition[0], [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(estimated.kind[(true == 0) & (noisy == 2)], 2)
    np.testing.assert_array_equal(estimated.kind[(true == 0) & (noisy == 3)], 1)


def test_an_entry_of_exactly_alpha_is_random():
    assert noise_kinds(jnp.array([0]), jnp.array([1]), jnp.full((4, 4), 1 / 3))[0] == 1
    # Two classes: every mistake has probability 1 under both kinds of noise.
    estimated = estimate(jnp.array([0, 0, 1]), jnp.array([1, 0, 0]), 2)
    np.testing.assert_array_equal(estimated.kind, [1, 0, 1])
    np.testing.assert_array_equal(estimated.transition, [[0, 1], [1, 0]])


def test_classes_without_mistakes_or_examples_have_a_uniform_row():
    true, noisy = jnp.array([0, 0, 1, 1]), jnp.array([0, 0, 3, 3])
    estimated = estimate(true, noisy, 4)
    np.testing.assert_allclose(estimated.transition[0], [0, 1 / 3, 1 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(estimated.transition[2], [1 / 3, 1 / 3, 0, 1 / 3], rtol=1e-6)
    np.testing.assert_array_equal(estimated.transition[1], [0, 0, 0, 1])
    np.testing.assert_array_equal(estimated.counts.sum(1), [2, 2, 0, 0])
    nothing = estimate(jnp.zeros(0, jnp.int32), jnp.zeros(0, jnp.int32), 3)
    np.testing.assert_array_equal(nothing.transition, (1 - np.eye(3)) / 2)


def test_masked_examples_and_impossible_labels_do_not_count():
    true, noisy = pairs(RNG.integers(0, 20, (7, 7)))
    where = RNG.uniform(size=len(true)) < 0.5
    part = estimate(true[where], noisy[where], 7)
    masked = estimate(np.where(where, true, -1), np.where(where, noisy, 99), 7, where=where)
    np.testing.assert_array_equal(masked.transition, part.transition)
    np.testing.assert_array_equal(masked.counts, part.counts)
    np.testing.assert_array_equal(masked.kind[where], part.kind)
    np.testing.assert_array_equal(masked.kind[~where], -1)
    unmasked = estimate(np.where(where, true, -1), np.where(where, noisy, 99), 7)
    np.testing.assert_array_equal(unmasked.counts, part.counts)


def test_large_and_uneven_counts_stay_exact_in_proportion():
    counts = from_row([1_000_000, 900_000, 5, 4, 3, 2, 1])
    estimated = estimate(*pairs(counts), 8)
    np.testing.assert_allclose(estimated.transition[0, 1:3], [1 / 1.9, 0.9 / 1.9], rtol=1e-6)
    np.testing.assert_array_equal(estimated.transition[0, 3:], 0)


def test_jit_is_eager():
    true, noisy = pairs(RNG.integers(0, 20, (6, 6)))
    eager = estimate_confusing(true, noisy, 6)
    for a, b in zip(eager, RUN(true, noisy, 6), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_bad_input_is_named():
    labels = jnp.array([0, 1])
    with pytest.raises(TypeError, match="true_labels must be integers"):
        estimate_confusing(jnp.zeros(2), labels, 2)
    with pytest.raises(ValueError, match="one dimension"):
        estimate_confusing(labels, labels[None], 2)
    with pytest.raises(ValueError, match="must have the same shape"):
        estimate_confusing(labels, labels[:1], 2)
    with pytest.raises(ValueError, match="num_classes must be at least 2"):
        estimate_confusing(labels, labels, 1)
