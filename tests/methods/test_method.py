import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.methods import method as contract
from nlx.methods.can import can, paper_schedule
from nlx.methods.crf import annealed, crf, crf_analytic
from nlx.methods.icnm import icnm
from nlx.methods.method import followed_by
from nlx.methods.noise_layer import forward, noise_layer, outliers
from nlx.methods.noise_types import bottom_up, noise_types, shared_trunk
from nlx.methods.plain import backward, plain, trusting
from nlx.methods.self_learning import self_learning

K = 3
EYE = np.eye(K, dtype=np.float32)
METHODS = {
    "plain": plain(),
    "plain_binary": plain("binary_cross_entropy"),
    "bootstrap_soft": plain("bootstrap_soft"),
    "trusting": trusting(),
    "icnm": icnm(K, K),
    "can": can(K, temperature=paper_schedule(100), rho=paper_schedule(100)),
}
SINGLE_LABEL = {
    "generalized_ce": plain("generalized_ce", q=0.5),
    "backward": backward(EYE),
    "forward": forward(EYE),
    "noise_layer": noise_layer(K),
    "outliers": outliers(K, 0.1, K),
    "noise_types": noise_types(K, (1 - EYE) / (K - 1), shared_trunk(K), boundaries=(0, 0)),
    "bottom_up": bottom_up(EYE),
    "crf_analytic": crf_analytic(EYE, alpha=annealed(2.0, 1.0, 10)),
    "self_learning": self_learning(K, refresh_after=lambda epochs: True),
    "followed_by": followed_by(plain("mae"), trusting(), 5),
}
MULTI_LABEL = {
    "noise_layer": noise_layer(K, multi_label=True),
    "crf": crf(K, K, alpha=annealed(2.0, 1.0, 10), auxiliary=None, hidden=2, chains=3, sweeps=2),
}
CASES = [
    *((name, kind, method) for kind in ("single", "multi") for name, method in METHODS.items()),
    *((name, "single", method) for name, method in SINGLE_LABEL.items()),
    *((name, "multi", method) for name, method in MULTI_LABEL.items()),
]
LOGITS = jnp.asarray(np.random.default_rng(0).normal(size=(5, K)), jnp.float32)
LABELS = {
    "single": jnp.array([0, 1, 2, 2, 0]),
    "multi": jnp.array([[0.0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]]),
}


def call(method, labels):
    batch = {"noisy_label": labels, "index": jnp.arange(5)}
    outputs = {"logits": LOGITS, "features": LOGITS}
    params, memory = method.init(jax.random.key(0), batch, 5)
    rows = jax.tree.map(lambda m: m[batch["index"]], memory)
    loss, aux = method.loss(params, rows, outputs, batch, jax.random.key(1), jnp.int32(0))
    return loss, aux, method.posterior(params, rows, outputs, batch)


@pytest.mark.parametrize(("name", "kind", "method"), CASES, ids=[f"{name}-{kind}" for name, kind, _ in CASES])
def test_every_method_keeps_the_contract(name, kind, method):
    loss, aux, posterior = jax.jit(lambda labels: call(method, labels))(LABELS[kind])
    assert loss.shape == (5,)
    assert loss.dtype == jnp.float32
    assert all(value.shape in ((), (5,)) for value in aux.metrics.values())
    assert posterior.candidates.keys() == posterior.cost.keys()
    for candidate, probs in posterior.candidates.items():
        assert probs.shape == (5, K)
        assert posterior.cost[candidate].shape == (5,)
        assert ((probs >= 0) & (probs <= 1)).all()
        if kind == "single":
            np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-5)
    assert all(value.shape[0] == 5 for value in posterior.extras.values())


def test_one_method_follows_another_from_a_step_on():
    both = followed_by(plain("mae"), trusting(), 5)
    batch = {"noisy_label": LABELS["single"], "index": jnp.arange(5), "trusted_label": jnp.array([1, -1, -1, -1, 2])}
    for step, alone in ((4, plain("mae")), (5, trusting())):
        losses = [
            m.loss({}, {}, {"logits": LOGITS}, batch, jax.random.key(0), jnp.int32(step))[0] for m in (both, alone)
        ]
        np.testing.assert_array_equal(*losses)


def test_only_makes_a_posterior_whose_candidate_is_chosen():
    posterior = contract.only("classifier", jnp.ones((5, K)) / K)
    assert list(posterior.candidates) == ["classifier"]
    assert posterior.cost["classifier"].shape == (5,)
