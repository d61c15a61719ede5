"""ELR, and that a method needs one file and no other, written by the contract alone."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from nlx.arguments import ArgumentError
from nlx.methods import elr as module
from nlx.methods.elr import Targets, elr
from nlx.methods.plain import cross_entropy, plain
from nlx.models import build
from nlx.training.mesh import make_mesh
from nlx.training.order import epoch_order
from nlx.training.trainer import Trainer

RNG = np.random.default_rng(0)


def test_it_is_one_short_file_that_imports_the_contract_and_primitives():
    text = Path(module.__file__).read_text()
    assert len(text.splitlines()) <= 60
    modules = {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    assert {m for m in modules if m.startswith("nlx")} == {"nlx.arguments", "nlx.losses", "nlx.methods.method"}


def test_loss_and_memory_follow_the_paper():
    logits, labels = RNG.normal(size=(5, 3)), np.array([0, 2, 1, 1, 0])
    before = RNG.dirichlet(np.ones(3), 5) * 0.6
    batch = {"noisy_label": jnp.asarray(labels), "index": jnp.arange(5)}
    args = ({"logits": jnp.asarray(logits, jnp.float32)}, batch, jnp.int32(0))
    loss, after, _ = elr().loss(jax.random.key(0), {}, Targets(jnp.asarray(before, jnp.float32)), *args)
    for i in range(5):
        p = np.exp(logits[i]) / np.exp(logits[i]).sum()
        t = 0.7 * before[i] + 0.3 * p
        np.testing.assert_allclose(after.mean[i], t, rtol=1e-4)
        np.testing.assert_allclose(loss[i], -np.log(p[labels[i]]) + 3 * np.log(1 - p @ t), rtol=1e-3)


@pytest.mark.parametrize("options", [{"strength": -1.0}, {"momentum": 1.0}, {"momentum": float("nan")}])
def test_options_out_of_range_are_told(options):
    with pytest.raises(ArgumentError, match=r"`strength` must be at least 0 and `momentum` in \[0, 1\)"):
        elr(**options)


def test_a_whole_training_is_that_of_a_float64_loop():
    n, size, k, rate, epochs, key = 24, 8, 3, 0.5, 4, jax.random.key(2)
    x, labels = RNG.normal(size=(n, 5)).astype(np.float32), RNG.integers(0, k, n)
    trainer = Trainer(
        lambda rngs: nnx.Linear(5, k, rngs=rngs),
        elr(),
        optax.sgd(rate),
        batch_size=size,
        mesh=make_mesh(jax.devices()[:1]),
    )
    start = jax.tree.map(lambda p: np.asarray(p, np.float64), trainer.init(key, (x, labels)).params["model"])
    fitted = trainer.fit((x, labels), key, epochs)

    kernel, bias, t = start["kernel"], start["bias"], np.zeros((n, k))
    for epoch in range(epochs):
        order = np.asarray(epoch_order(key, epoch, jnp.arange(n, dtype=jnp.int32), n))
        losses = []
        for batch in order.reshape(-1, size):
            logits = x[batch].astype(np.float64) @ kernel + bias
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            t[batch] = 0.7 * t[batch] + 0.3 * p
            agreement = (p * t[batch]).sum(1, keepdims=True)
            losses.append(np.mean(-np.log(p[np.arange(size), labels[batch]]) + 3 * np.log(1 - agreement[:, 0])))
            slope = p - np.eye(k)[labels[batch]] - 3 * p * (t[batch] - agreement) / (1 - agreement)
            kernel, bias = kernel - rate * x[batch].T @ slope / size, bias - rate * slope.mean(0)
        assert fitted.history[epoch]["train_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    np.testing.assert_allclose(fitted.state.memory.mean[:n], t, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fitted.state.params["model"]["kernel"], kernel, rtol=1e-3, atol=1e-5)


def test_it_trains_through_the_trainer_and_memorizes_less():
    true = RNG.integers(0, 3, 300)
    x = (2.5 * np.eye(3, 20)[true] + RNG.normal(size=(300, 20))).astype(np.float32)
    noisy = np.where(RNG.uniform(size=300) < 0.4, RNG.integers(0, 3, 300), true)

    def train(method):
        mesh = make_mesh(jax.devices()[:1])
        model = build("mlp", (20,), 3, widths=(64,))
        trainer = Trainer(model, method, optax.sgd(0.2), batch_size=50, mesh=mesh)
        fitted = trainer.fit((x, noisy), jax.random.key(0), 60)
        posterior = trainer.posterior(fitted.state, (x, noisy))
        return fitted, posterior.candidates["classifier"].probs.argmax(1)

    fitted, cleaned = train(elr())
    _, memorized = train(plain(cross_entropy))
    assert np.mean(memorized == noisy) > np.mean(cleaned == noisy) + 0.1
    assert np.mean(cleaned == true) > np.mean(memorized == true) + 0.05
    np.testing.assert_allclose(fitted.state.memory.mean[:300].sum(axis=1), 1, atol=0.01)
