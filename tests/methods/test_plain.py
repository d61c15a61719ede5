import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx import losses
from nlx.methods.plain import backward, plain, trusting

K = 3
LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(5, K)), jnp.float32)
LABELS = jnp.array([0, 1, 2, 2, 0])
VECTORS = jnp.array([[0.0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
INVERSE = jnp.array([[2.0, -1, 0], [0, 1, 0], [-1, 0, 2]])


def loss_of(method, labels, **batch):
    batch = {"noisy_label": labels, **batch}
    return method.loss({}, {}, {"logits": LOGITS}, batch, jax.random.key(0), jnp.int32(0))[0]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (plain(), losses.cross_entropy(LOGITS, LABELS)),
        (plain("binary_cross_entropy"), losses.binary_cross_entropy(LOGITS, jax.nn.one_hot(LABELS, K))),
        (plain("bootstrap_soft", beta=0.7), losses.bootstrap_soft(LOGITS, LABELS, 0.7)),
        (plain("bootstrap_hard", beta=0.7), losses.bootstrap_hard(LOGITS, LABELS, 0.7)),
        (plain("generalized_ce", q=0.4), losses.generalized_cross_entropy(LOGITS, LABELS, 0.4)),
        (plain("symmetric_ce", alpha=0.4), losses.symmetric_cross_entropy(LOGITS, LABELS, 0.4)),
        (plain("mae"), losses.mean_absolute_error(LOGITS, LABELS)),
        (backward(INVERSE), losses.backward_corrected(LOGITS, LABELS, INVERSE)),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_each_name_is_its_loss(method, expected):
    np.testing.assert_allclose(loss_of(method, LABELS), expected, rtol=1e-6)


def test_several_labels():
    np.testing.assert_allclose(loss_of(plain(), VECTORS), losses.binary_cross_entropy(LOGITS, VECTORS), rtol=1e-6)
    p = 1 / (1 + np.exp(-np.asarray(LOGITS, np.float64)))
    target = 0.6 * np.asarray(VECTORS) + 0.4 * p
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum(-1)
    np.testing.assert_allclose(loss_of(plain("bootstrap_soft", beta=0.6), VECTORS), expected, rtol=1e-4)
    with pytest.raises(ValueError, match="loss 'mae' is for one label per example"):
        loss_of(plain("mae"), VECTORS)


def test_trusted_labels_take_the_place_of_noisy_ones():
    trusted = jnp.array([-1, 2, -1, -2, 1])
    expected = losses.cross_entropy(LOGITS, jnp.array([0, 2, 2, 2, 1]))
    np.testing.assert_allclose(loss_of(trusting(), LABELS, trusted_label=trusted), expected, rtol=1e-6)
    np.testing.assert_allclose(loss_of(trusting(), LABELS), losses.cross_entropy(LOGITS, LABELS), rtol=1e-6)
    rows = jnp.where(jnp.array([[True], [False], [False], [False], [False]]), jnp.array([[1, 1, 0]]), -1)
    expected = losses.binary_cross_entropy(LOGITS, VECTORS.at[0].set(jnp.array([1.0, 1, 0])))
    np.testing.assert_allclose(loss_of(trusting(), VECTORS, trusted_label=rows), expected, rtol=1e-6)


def test_the_entropy_scores_outliers():
    batch = {"noisy_label": LABELS}
    flat = plain().posterior({}, {}, {"logits": jnp.zeros((5, K))}, batch).extras["outlier_score"]
    np.testing.assert_allclose(flat, np.log(K), rtol=1e-6)
    sure = plain().posterior({}, {}, {"logits": 1e4 * jnp.eye(K)[LABELS]}, batch).extras["outlier_score"]
    np.testing.assert_allclose(sure, 0, atol=1e-6)


def test_an_unknown_loss_is_told():
    with pytest.raises(ValueError, match="unknown loss 'hinge'"):
        plain("hinge")
