import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from nlx import losses

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(0, 3, (6, 5)), jnp.float32)
LABELS = jnp.array([0, 4, 2, 2, 1, 3])
ALL = {
    "bootstrap_soft": losses.bootstrap_soft,
    "bootstrap_hard": losses.bootstrap_hard,
    "generalized": losses.generalized_cross_entropy,
    "mae": losses.mean_absolute_error,
    "symmetric": losses.symmetric_cross_entropy,
    "active": losses.active_passive,
    "joint": losses.joint_asymmetric,
    "tempered": losses.bi_tempered,
    "smooth": losses.label_smoothing,
}


def probs64(logits):
    x = np.asarray(logits, np.float64)
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def naive(name, p, y):
    """One example, float64, from the formula's words."""
    hot = np.eye(len(p))[y]
    if name == "bootstrap_soft":
        return -np.sum((0.95 * hot + 0.05 * p) * np.log(p))
    if name == "bootstrap_hard":
        return -np.sum((0.8 * hot + 0.2 * np.eye(len(p))[p.argmax()]) * np.log(p))
    if name == "generalized":
        return (1 - p[y] ** 0.7) / 0.7
    if name == "mae":
        return np.abs(p - hot).sum()
    share = np.log(p[y]) / np.log(p).sum()
    if name == "active":
        return share + 4 * (1 - p[y])
    if name == "joint":
        return share + (((p - 30 * hot) ** 2).sum() - 29**2) / len(p)
    if name == "smooth":
        return -np.sum((0.9 * hot + 0.1 / len(p)) * np.log(p))
    if name == "tempered":
        return tempered(np.log(p), y, 0.8, 1.2)
    reverse = -np.sum(p * np.where(hot > 0, 0.0, -4.0))
    return -0.1 * np.log(p[y]) + reverse


def tempered(x, y, t1, t2):
    """The normalization by bisection."""
    low, high = x.max(), x.max() + 1e3
    for _ in range(200):
        middle = (low + high) / 2
        p = (1 + (t2 - 1) * (middle - x)) ** (1 / (1 - t2))
        low, high = (middle, high) if p.sum() > 1 else (low, middle)
    return -(p[y] ** (1 - t1) - 1) / (1 - t1) - (1 - np.sum(p ** (2 - t1))) / (2 - t1)


@pytest.mark.parametrize("name", ALL)
def test_each_is_its_formula(name):
    p = probs64(LOGITS)
    expected = [naive(name, p[i], y) for i, y in enumerate(np.asarray(LABELS))]
    np.testing.assert_allclose(ALL[name](LOGITS, LABELS), expected, rtol=2e-5)
    np.testing.assert_allclose(jax.jit(ALL[name])(LOGITS, LABELS), expected, rtol=2e-5)


@pytest.mark.parametrize("name", [n for n in ALL if n != "bootstrap_soft"])
def test_gradients(name):
    check_grads(lambda x: ALL[name](x, LABELS), (LOGITS,), order=1, modes=["rev"], atol=2e-2, rtol=2e-2)


def test_soft_bootstrap_holds_its_target_constant():
    p = jax.nn.softmax(LOGITS)
    target = 0.95 * jax.nn.one_hot(LABELS, 5) + 0.05 * p
    gradient = jax.grad(lambda x: losses.bootstrap_soft(x, LABELS).sum())(LOGITS)
    np.testing.assert_allclose(gradient, p - target, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_extremes_are_finite(name, scale):
    logits = jnp.array([[scale, 0.0, -scale], [0.0, 0.0, 0.0], [scale, scale, scale]])
    value, gradient = jax.value_and_grad(lambda x: ALL[name](x, jnp.array([2, 1, 0])).sum())(logits)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", ALL)
def test_masked_examples_give_nothing(name):
    where = jnp.array([True, False, True, True, False, True])
    masked = ALL[name](LOGITS, LABELS, where=where)
    np.testing.assert_allclose(masked[where], ALL[name](LOGITS[where], LABELS[where]), rtol=1e-6)
    assert (masked[~where] == 0).all()
    gradient = jax.grad(lambda x: ALL[name](x, LABELS, where=where).sum())(LOGITS)
    assert (gradient[~where] == 0).all()


@pytest.mark.parametrize("name", ALL)
def test_shifts_permutations_and_bfloat16(name):
    order = np.array([3, 0, 4, 1, 2])
    expected = ALL[name](LOGITS, LABELS)
    np.testing.assert_allclose(ALL[name](LOGITS + 5, LABELS), expected, rtol=1e-4)
    renamed = jnp.argsort(jnp.asarray(order))[LABELS]
    np.testing.assert_allclose(ALL[name](LOGITS[:, order], renamed), expected, rtol=1e-5)
    assert ALL[name](LOGITS.astype(jnp.bfloat16), LABELS).dtype == jnp.bfloat16


def test_limits():
    ce = losses.cross_entropy(LOGITS, LABELS)
    np.testing.assert_allclose(losses.bootstrap_soft(LOGITS, LABELS, beta=1.0), ce, rtol=1e-6)
    np.testing.assert_allclose(losses.bootstrap_hard(LOGITS, LABELS, beta=1.0), ce, rtol=1e-6)
    np.testing.assert_allclose(losses.label_smoothing(LOGITS, LABELS, 0.0), ce, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(losses.bi_tempered(LOGITS, LABELS, 1.0, 1.0), ce, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(losses.generalized_cross_entropy(LOGITS, LABELS, q=1e-4), ce, rtol=1e-3)
    np.testing.assert_allclose(
        2 * losses.generalized_cross_entropy(LOGITS, LABELS, q=1.0),
        losses.mean_absolute_error(LOGITS, LABELS),
        rtol=1e-5,
    )
    # Summed over all labels, mae is a constant: why uniform noise does not move its minimum.
    total = sum(losses.mean_absolute_error(LOGITS, jnp.full(6, k)) for k in range(5))
    np.testing.assert_allclose(total, 2 * 4, rtol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\], got 1.5"):
        losses.bootstrap_soft(LOGITS, LABELS, beta=1.5)
    with pytest.raises(ValueError, match=r"beta must lie in \[0, 1\], got -1"):
        losses.bootstrap_hard(LOGITS, LABELS, beta=-1)
    with pytest.raises(ValueError, match=r"q must lie in \(0, 1\], got 0"):
        losses.generalized_cross_entropy(LOGITS, LABELS, q=0)
    with pytest.raises(ValueError, match="log_zero 0 below 0"):
        losses.symmetric_cross_entropy(LOGITS, LABELS, log_zero=0)
    for loss in ALL.values():
        with pytest.raises(TypeError, match="labels must be integers"):
            loss(LOGITS, LABELS.astype(jnp.float32))
