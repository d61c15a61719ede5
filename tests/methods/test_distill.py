import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nlx.arguments import ArgumentError
from nlx.data import Split
from nlx.methods.distill import distill
from nlx.models import build
from nlx.training.mesh import make_mesh
from nlx.training.trainer import Trainer

RNG = np.random.default_rng(0)
Q = RNG.dirichlet(np.ones(3), 6)


def test_loss_and_gradient_are_those_of_cross_entropy_with_beliefs():
    x = RNG.normal(0, 3, (6, 3))
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    method = distill(Q)
    _, memory = method.init(jax.random.key(0), {}, 3, 8)
    rows = jax.tree.map(lambda leaf: leaf[:6], memory)
    loss = lambda x: method.loss(jax.random.key(0), {}, rows, {"logits": x}, {}, jnp.int32(0))[0]  # noqa: E731
    np.testing.assert_allclose(loss(jnp.asarray(x, jnp.float32)), -(Q * np.log(p)).sum(axis=1), rtol=1e-5)
    slope = jax.grad(lambda x: loss(x).sum())(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(slope, p - Q, atol=1e-6)
    far = jnp.asarray([[1e4, -1e4, 0.0]] * 6)
    assert np.isfinite(loss(far)).all()
    assert np.isfinite(jax.grad(lambda x: loss(x).sum())(far)).all()
    np.testing.assert_allclose(
        method.posterior({}, rows, {"logits": far}, {}).candidates["beliefs"].probs, Q, rtol=1e-6
    )


def test_a_network_learns_beliefs_and_not_labels():
    true = RNG.integers(0, 3, 300)
    x = (3 * np.eye(3, 5)[true] + RNG.normal(size=(300, 5))).astype(np.float32)
    labels = RNG.integers(0, 3, 300).astype(np.int32)  # say nothing
    mesh = make_mesh(jax.devices()[:1])
    method, model = distill(np.eye(3)[true]), build("mlp", (5,), 3, widths=(16,))
    trainer = Trainer(model, method, optax.sgd(0.1, momentum=0.9), batch_size=50, mesh=mesh)
    state = trainer.fit(Split(x, labels, None), jax.random.key(0), 20).state
    assert (trainer.predict(state, x).argmax(axis=1) == true).mean() > 0.95
    posterior = trainer.posterior(state, Split(x, labels, None))
    np.testing.assert_array_equal(posterior.candidates["beliefs"].probs, np.eye(3)[true])
    assert (posterior.columns["classifier"].values.argmax(axis=1) == true).mean() > 0.95


@pytest.mark.parametrize("wrong", [Q[0], Q * 2, -Q, Q * np.nan, np.zeros((0, 3))])
def test_what_is_no_belief_is_refused(wrong):
    with pytest.raises(ArgumentError, match="`beliefs` must be probabilities"):
        distill(wrong)


@pytest.mark.parametrize(("classes", "size"), [(4, 6), (3, 5)])
def test_beliefs_of_other_data_are_refused(classes, size):
    with pytest.raises(ArgumentError, match=rf"not of {size} examples and {classes} classes"):
        distill(Q).init(jax.random.key(0), {}, classes, size)
