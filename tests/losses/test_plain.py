import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from nlx.losses import binary_cross_entropy, cross_entropy, soft_cross_entropy, soft_forward_corrected


def log_softmax64(logits):
    x = np.asarray(logits, np.float64)
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@pytest.fixture
def logits():
    return jnp.asarray(np.random.default_rng(0).normal(0, 3, (6, 5)), jnp.float32)


@pytest.fixture
def labels():
    return jnp.array([0, 4, 2, 2, 1, 3])


@pytest.fixture
def targets():
    return jnp.asarray(np.random.default_rng(1).uniform(0, 1, (6, 5)), jnp.float32)


def test_cross_entropy_is_the_log_probability_of_the_label(logits, labels):
    expected = [-log_softmax64(logits)[i, y] for i, y in enumerate(np.asarray(labels))]
    np.testing.assert_allclose(cross_entropy(logits, labels), expected, rtol=1e-5)


def test_soft_cross_entropy_is_the_expectation_of_cross_entropy(logits, targets):
    q = targets / targets.sum(-1, keepdims=True)
    expected = sum(q[:, k] * cross_entropy(logits, jnp.full(6, k)) for k in range(5))
    np.testing.assert_allclose(soft_cross_entropy(logits, q), expected, rtol=1e-5)


def test_soft_cross_entropy_of_one_hot_is_cross_entropy(logits, labels):
    np.testing.assert_allclose(
        soft_cross_entropy(logits, jax.nn.one_hot(labels, 5)), cross_entropy(logits, labels), rtol=1e-5
    )


def test_binary_cross_entropy_is_the_log_likelihood_of_bernoullis(logits, targets):
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    t = np.asarray(targets, np.float64)
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).sum(-1)
    np.testing.assert_allclose(binary_cross_entropy(logits, targets), expected, rtol=1e-5)


def test_shifting_logits_and_permuting_classes_change_nothing(logits, labels):
    order = np.array([3, 0, 4, 1, 2])
    np.testing.assert_allclose(cross_entropy(logits + 7, labels), cross_entropy(logits, labels), rtol=1e-4)
    np.testing.assert_allclose(
        cross_entropy(logits[:, order], jnp.argsort(jnp.asarray(order))[labels]),
        cross_entropy(logits, labels),
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    "loss", [lambda x: cross_entropy(x, jnp.array([0, 1])), lambda x: binary_cross_entropy(x, jnp.full((2, 3), 0.3))]
)
def test_gradients(loss):
    check_grads(loss, (jnp.array([[0.5, -1.0, 2.0], [0.0, 0.1, -0.3]]),), order=2, modes=("rev",), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_finite_at_extreme_logits(extreme):
    logits = jnp.array([[extreme, 0.0, -extreme]])
    for loss in (
        lambda x: cross_entropy(x, jnp.array([2])),
        lambda x: soft_cross_entropy(x, jnp.array([[0.2, 0.3, 0.5]])),
        lambda x: binary_cross_entropy(x, jnp.array([[0.0, 1.0, 1.0]])),
    ):
        value, gradient = jax.value_and_grad(lambda x, loss=loss: loss(x)[0])(logits)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_masked_examples_give_no_loss_and_no_gradient_even_when_infinite(logits, labels):
    mask = jnp.array([True, False, True, True, False, True])
    full = cross_entropy(logits, labels, where=mask)
    np.testing.assert_allclose(full[mask], cross_entropy(logits[mask], labels[mask]), rtol=1e-6)
    assert (np.asarray(full)[~np.asarray(mask)] == 0).all()
    gradient = jax.grad(lambda x: cross_entropy(x, labels, where=mask).sum())(logits)
    assert (np.asarray(gradient)[~np.asarray(mask)] == 0).all()


def test_masked_classes_leave_the_binary_loss(logits, targets):
    mask = jnp.arange(5) < 3
    kept = binary_cross_entropy(logits[:, :3], targets[:, :3])
    np.testing.assert_allclose(
        binary_cross_entropy(logits, targets, where=jnp.broadcast_to(mask, logits.shape)), kept, rtol=1e-6
    )


def test_jit_and_vmap_agree_with_a_loop(logits, labels):
    loop = jnp.stack([cross_entropy(x, y) for x, y in zip(logits, labels, strict=True)])
    np.testing.assert_allclose(jax.jit(cross_entropy)(logits, labels), loop, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(cross_entropy)(logits, labels), loop, rtol=1e-6)


def test_bfloat16_stays_bfloat16(logits, labels, targets):
    low = logits.astype(jnp.bfloat16)
    assert cross_entropy(low, labels).dtype == jnp.bfloat16
    assert soft_cross_entropy(low, targets).dtype == jnp.bfloat16
    assert binary_cross_entropy(low, targets).dtype == jnp.bfloat16


def test_bad_input_is_named(logits, labels, targets):
    with pytest.raises(TypeError, match="labels must be integers, got float32"):
        cross_entropy(logits, labels.astype(jnp.float32))
    with pytest.raises(TypeError, match="logits must be floating"):
        cross_entropy(labels, labels)
    with pytest.raises(ValueError, match="must have the same shape"):
        cross_entropy(logits, labels[:3])
    with pytest.raises(ValueError, match="must have the same shape"):
        binary_cross_entropy(logits, targets[:, :2])


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (soft_cross_entropy, "must be at least 0"),
        (lambda x, q, **o: soft_forward_corrected(x, q, 0.8 * jnp.eye(5) + 0.04, **o), "must be at least 0"),
        (binary_cross_entropy, r"must lie in \[0, 1\]"),
    ],
)
def test_soft_labels_that_are_none_are_refused_or_unknown(loss, message, logits, targets):
    row = np.arange(6) == 1
    counts = np.repeat(~row[:, None], 5, 1) if loss is binary_cross_entropy else ~row
    slope = jax.jit(jax.value_and_grad(lambda x, q: loss(x, q)[1]))
    for wrong in (-1, np.nan, -np.inf, [0, 1, -1, 0, 1]):
        soft = np.where(row[:, None], np.asarray(wrong, np.float32), targets)
        with pytest.raises(ValueError, match=f"targets {message}"):
            loss(logits, soft)
        value, slopes = slope(logits, soft)
        assert np.isnan(value)
        assert np.isfinite(slopes).all()
        np.testing.assert_allclose(loss(logits, soft, where=counts)[~row], loss(logits, targets)[~row], rtol=1e-6)
    if loss is not binary_cross_entropy:  # counts of votes
        np.testing.assert_allclose(loss(logits, 3 * targets), 3 * loss(logits, targets), rtol=1e-5)
