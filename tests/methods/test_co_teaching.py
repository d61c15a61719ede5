import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nlx.arguments import ArgumentError
from nlx.methods.co_teaching import co_teaching
from nlx.methods.plain import cross_entropy, plain
from nlx.models import build, pair
from nlx.training.mesh import make_mesh
from nlx.training.trainer import Trainer

B, K = 10, 3
RNG = np.random.default_rng(0)


def rising(end, steps):
    return lambda step: end * jnp.minimum(step.astype(jnp.float32) / steps, 1)


def test_each_network_learns_from_what_is_easy_for_the_other():
    logits, labels = RNG.normal(0, 2, (B, 2, K)), RNG.integers(0, K, B)
    method = co_teaching(rising(0.4, 10))

    def loss(logits, step=5):
        out = method.loss(jax.random.key(0), {}, (), {"pair_logits": logits}, {"noisy_label": labels}, jnp.int32(step))
        return out[0].mean(), out

    slope, (losses, _, metrics) = jax.grad(loss, has_aux=True)(jnp.asarray(logits, jnp.float32))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    each = -np.log(p[np.arange(B), :, labels])
    easy = [set(np.argsort(each[:, net])[:8]) for net in (0, 1)]  # a fifth is left out at half of the way
    expected = np.zeros_like(p)
    for i in range(B):
        for net in (0, 1):
            if i in easy[1 - net]:
                expected[i, net] = (p[i, net] - np.eye(K)[labels[i]]) / 8
    np.testing.assert_allclose(slope, expected, atol=1e-6)
    wanted = sum(each[list(easy[1 - net]), net].sum() for net in (0, 1)) / 8
    np.testing.assert_allclose(losses.mean(), wanted, rtol=1e-5)
    assert float(metrics["agreement"]) == pytest.approx(len(easy[0] & easy[1]) / 8)
    assert float(metrics["kept"]) == pytest.approx(0.8)
    first = loss(jnp.asarray(logits, jnp.float32), 0)[1]
    np.testing.assert_allclose(first[0], each.sum(1), rtol=1e-5)


def test_a_pair_are_two_networks_whose_mean_predicts():
    twins = pair(build("resnet8", (8, 8, 1), K))
    params, stats = twins.init(jax.random.key(0))
    x = jnp.asarray(RNG.normal(size=(4, 8, 8, 1)), jnp.float32)
    outputs = twins.apply_test(params, stats, x)
    probs = jax.nn.softmax(outputs["pair_logits"])
    assert jnp.abs(probs[:, 0] - probs[:, 1]).max() > 1e-3  # they begin at different weights
    np.testing.assert_allclose(jax.nn.softmax(outputs["logits"]), probs.mean(1), rtol=1e-5)
    trained, moved = twins.apply(params, stats, x, True, jax.random.key(1))
    one = build("resnet8", (8, 8, 1), K).apply_test(params["a"], stats["a"], x)
    np.testing.assert_allclose(outputs["pair_logits"][:, 0], one["logits"], rtol=1e-5)
    np.testing.assert_allclose(outputs["features"][:, : one["features"].shape[1]], one["features"], rtol=1e-5)
    assert trained["features"].shape == (4, 2 * one["features"].shape[1])
    assert all((np.asarray(a) != b).any() for a, b in zip(*map(jax.tree.leaves, (moved, stats)), strict=True))


def test_two_networks_memorize_less_than_one():
    true = RNG.integers(0, 3, 300)
    x = (2.5 * np.eye(3, 20)[true] + RNG.normal(size=(300, 20))).astype(np.float32)
    noisy = np.where(RNG.uniform(size=300) < 0.4, RNG.integers(0, 3, 300), true)

    def right(model, method):
        trainer = Trainer(model, method, optax.sgd(0.2), batch_size=50, mesh=make_mesh(jax.devices()[:1]))
        state = trainer.fit((x, noisy), jax.random.key(0), 60).state
        return np.mean(trainer.posterior(state, (x, noisy)).candidates["classifier"].probs.argmax(1) == true)

    model = build("mlp", (20,), 3, widths=(64,))
    together = right(pair(model), co_teaching(rising(float(np.mean(noisy != true)), 60)))
    assert together > right(model, plain(cross_entropy)) + 0.05


def test_one_network_is_refused():
    model, mesh = build("mlp", (2,), 2, widths=(4,)), make_mesh(jax.devices()[:1])
    trainer = Trainer(model, co_teaching(lambda step: 0.2), optax.sgd(0.1), batch_size=2, mesh=mesh)
    with pytest.raises(ArgumentError, match=r"needs two networks: make the model by `nlx.models.pair`"):
        trainer.fit((np.zeros((8, 2), np.float32), np.arange(8) % 2), jax.random.key(0), 1)
