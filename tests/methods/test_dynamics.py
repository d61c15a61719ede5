"""What is kept of a label while training, against means over a history that keeps everything."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nlx.methods.dynamics import with_dynamics
from nlx.methods.plain import cross_entropy, plain
from nlx.methods.self_learning import corrections, self_learning
from nlx.models import build
from nlx.training.mesh import make_mesh
from nlx.training.trainer import Trainer

RNG = np.random.default_rng(0)
N, K = 12, 3


def test_columns_are_means_over_all_visits():
    method = with_dynamics(plain(cross_entropy))
    labels = RNG.integers(0, K, N)
    params, memory = method.init(jax.random.key(0), {}, K, N)
    margins, probs = [[] for _ in range(N)], [[] for _ in range(N)]
    for step in range(20):
        rows = RNG.permutation(N - 1)[:5]  # the last one is never visited
        logits = RNG.normal(size=(5, K)) * 3
        batch = {"noisy_label": jnp.asarray(labels[rows]), "index": jnp.asarray(rows)}
        kept = jax.tree.map(lambda x, rows=rows: x[rows], memory)
        args = {"logits": jnp.asarray(logits, jnp.float32)}, batch, jnp.int32(step)
        loss, after, _ = method.loss(jax.random.key(0), params, kept, *args)
        np.testing.assert_allclose(loss, cross_entropy(args[0]["logits"], batch["noisy_label"]), rtol=1e-6)
        memory = jax.tree.map(lambda x, y, rows=rows: x.at[rows].set(y), memory, after)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        for row, z, q in zip(rows, logits, p, strict=True):
            margins[row].append(z[labels[row]] - np.delete(z, labels[row]).max())
            probs[row].append(q[labels[row]])
    outputs = {"logits": jnp.zeros((N, K))}
    told = method.posterior(params, memory, outputs, {"noisy_label": jnp.asarray(labels)}).columns
    for name, each in (
        ("aum", [np.mean(m or 0) for m in margins]),
        ("confidence", [np.mean(p or 0) for p in probs]),
        ("variability", [np.std(p or 0) for p in probs]),
    ):
        np.testing.assert_allclose(told[name].values, each, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_margins_of_wrong_labels_are_low_and_another_methods_memory_is_kept():
    true = RNG.integers(0, K, 300)
    x = (2 * np.eye(K, 6)[true] + RNG.normal(size=(300, 6))).astype(np.float32)
    noisy = np.where(RNG.uniform(size=300) < 0.3, (true + 1) % K, true)
    inner = self_learning(K, refresh_after=corrections(1))
    states = []
    for method in (inner, with_dynamics(inner)):
        model, mesh = build("mlp", (6,), K, widths=(16,)), make_mesh(jax.devices()[:1])
        trainer = Trainer(model, method, optax.sgd(0.1), batch_size=50, mesh=mesh)
        states.append(trainer.fit((x, noisy), jax.random.key(0), 3).state)
    jax.tree.map(np.testing.assert_array_equal, states[0].params, states[1].params)
    jax.tree.map(np.testing.assert_array_equal, states[0].memory, states[1].memory[0])
    aum = np.asarray(states[1].memory[1].margin)[:300]
    assert aum[noisy != true].mean() + 0.5 < aum[noisy == true].mean()


def test_a_class_that_has_no_other_has_a_margin_of_nought():
    method = with_dynamics(plain(cross_entropy))
    params, memory = method.init(jax.random.key(0), {}, 1, 2)
    batch = {"noisy_label": jnp.zeros(2, jnp.int32), "index": jnp.arange(2)}
    _, after, _ = method.loss(jax.random.key(0), params, memory, {"logits": jnp.ones((2, 1))}, batch, jnp.int32(0))
    assert after[1].margin.tolist() == [0, 0]
    assert after[1].prob.tolist() == pytest.approx([1, 1])
