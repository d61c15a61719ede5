from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nlx import losses
from nlx.methods.plain import (
    backward,
    cross_entropy,
    generalized_q,
    per_class,
    plain,
    trusted_cross_entropy,
    with_vectors,
)

K = 3
LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(5, K)), jnp.float32)
LABELS = jnp.array([0, 1, 2, 2, 0])
VECTORS = jnp.array([[0.0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
INVERSE = jnp.array([[2.0, -1, 0], [0, 1, 0], [-1, 0, 2]])


def loss_of(method, labels, **batch):
    batch = {"noisy_label": labels, **batch}
    return method.loss(jax.random.key(0), {}, (), {"logits": LOGITS}, batch, jnp.int32(0))[0]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (plain(cross_entropy, "plain"), losses.cross_entropy(LOGITS, LABELS)),
        (plain(per_class), losses.binary_cross_entropy(LOGITS, jax.nn.one_hot(LABELS, K))),
        (plain(losses.mean_absolute_error), losses.mean_absolute_error(LOGITS, LABELS)),
        (
            plain(partial(losses.generalized_cross_entropy, q=0.4)),
            losses.generalized_cross_entropy(LOGITS, LABELS, 0.4),
        ),
        (plain(optax.softmax_cross_entropy_with_integer_labels), losses.cross_entropy(LOGITS, LABELS)),
        (backward(INVERSE), losses.backward_corrected(LOGITS, LABELS, INVERSE)),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_any_loss_of_one_value_per_example_is_a_method(method, expected):
    np.testing.assert_allclose(loss_of(method, LABELS), expected, rtol=1e-6)


def test_a_method_is_called_after_its_loss_unless_it_has_a_name():
    assert plain(partial(partial(losses.generalized_cross_entropy, q=0.4))).name == "generalized_cross_entropy"
    assert plain(cross_entropy, "plain").name == "plain"
    assert plain(lambda logits, labels: cross_entropy(logits, labels)).name == "plain"
    assert plain(with_vectors(partial(losses.bootstrap_soft, beta=0.6))).name == "bootstrap_soft"


def test_several_labels():
    expected = losses.binary_cross_entropy(LOGITS, VECTORS)
    for loss in (cross_entropy, per_class, losses.binary_cross_entropy):
        np.testing.assert_allclose(loss_of(plain(loss), VECTORS), expected, rtol=1e-6)
    p = 1 / (1 + np.exp(-np.asarray(LOGITS, np.float64)))
    target = 0.6 * np.asarray(VECTORS) + 0.4 * p
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum(-1)
    soft = with_vectors(partial(losses.bootstrap_soft, beta=0.6))
    np.testing.assert_allclose(loss_of(plain(soft), VECTORS), expected, rtol=1e-4)
    np.testing.assert_allclose(loss_of(plain(soft), LABELS), losses.bootstrap_soft(LOGITS, LABELS, 0.6), rtol=1e-6)


def test_trusted_labels_take_the_place_of_noisy_ones():
    trusted = jnp.array([-1, 2, -1, -2, 1])
    method = trusted_cross_entropy()
    expected = losses.cross_entropy(LOGITS, jnp.array([0, 2, 2, 2, 1]))
    np.testing.assert_allclose(loss_of(method, LABELS, trusted_label=trusted), expected, rtol=1e-6)
    np.testing.assert_allclose(loss_of(method, LABELS), losses.cross_entropy(LOGITS, LABELS), rtol=1e-6)
    rows = jnp.where(jnp.array([[True], [False], [False], [False], [False]]), jnp.array([[1, 1, 0]]), -1)
    expected = losses.binary_cross_entropy(LOGITS, VECTORS.at[0].set(jnp.array([1.0, 1, 0])))
    np.testing.assert_allclose(loss_of(method, VECTORS, trusted_label=rows), expected, rtol=1e-6)


def test_the_entropy_scores_outliers():
    batch, method = {"noisy_label": LABELS}, plain(cross_entropy)
    flat = method.posterior({}, (), {"logits": jnp.zeros((5, K))}, batch).columns["outlier_score"]
    assert flat.kind == "outlier_score"
    np.testing.assert_allclose(flat.values, np.log(K), rtol=1e-6)
    sure = method.posterior({}, (), {"logits": 1e4 * jnp.eye(K)[LABELS]}, batch).columns["outlier_score"].values
    np.testing.assert_allclose(sure, 0, atol=1e-6)
    assert method.posterior({}, (), {"logits": LOGITS}, {"noisy_label": VECTORS}).columns == {}


@pytest.mark.parametrize(
    ("classes", "q"), [(2, 0.7), (10, 0.7), (27, np.log(10) / np.log(27)), (100, 0.5), (1000, 1 / 3)]
)
def test_of_many_classes_a_label_counts_a_tenth_at_first(classes, q):
    assert generalized_q(classes) == pytest.approx(q)
    logits, first = jnp.zeros((1, classes)), jnp.zeros(1, jnp.int32)
    loss = partial(losses.generalized_cross_entropy, q=generalized_q(classes))
    steps = [jnp.linalg.norm(jax.grad(lambda x, of=of: of(x, first)[0])(logits)) for of in (loss, losses.cross_entropy)]
    assert steps[0] / steps[1] >= 0.099
