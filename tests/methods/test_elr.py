"""That a method needs one file and no other: ELR, written by the contract alone, trains like the library's own."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nlx.methods.plain import cross_entropy, plain
from nlx.models import build
from nlx.training.mesh import make_mesh
from nlx.training.trainer import Trainer
from tests.methods.elr import Targets, elr

RNG = np.random.default_rng(0)


def test_it_is_one_short_file_that_imports_the_contract_and_primitives():
    text = Path(__file__).with_name("elr.py").read_text()
    assert len(text.splitlines()) <= 60
    modules = {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    assert {m for m in modules if m.startswith("nlx")} == {"nlx.losses", "nlx.methods.method"}


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
