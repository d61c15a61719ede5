import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx import losses
from nlx.methods import method as contract
from nlx.methods.can import can, paper_schedule
from nlx.methods.plain import plain

K = 3
METHODS = {
    "plain": plain(),
    "plain_binary": plain("binary_cross_entropy"),
    "can": can(K, temperature=paper_schedule(100), rho=paper_schedule(100)),
}
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


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_the_contract(name, kind):
    loss, aux, posterior = jax.jit(lambda labels: call(METHODS[name], labels))(LABELS[kind])
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


def test_plain_is_cross_entropy():
    np.testing.assert_allclose(call(plain(), LABELS["single"])[0], losses.cross_entropy(LOGITS, LABELS["single"]))
    np.testing.assert_allclose(call(plain(), LABELS["multi"])[0], losses.binary_cross_entropy(LOGITS, LABELS["multi"]))
    one_hot = jax.nn.one_hot(LABELS["single"], K)
    np.testing.assert_allclose(
        call(plain("binary_cross_entropy"), LABELS["single"])[0], losses.binary_cross_entropy(LOGITS, one_hot)
    )
    with pytest.raises(ValueError, match="unknown loss 'hinge'"):
        plain("hinge")


def test_only_makes_a_posterior_whose_candidate_is_chosen():
    posterior = contract.only("classifier", jnp.ones((5, K)) / K)
    assert list(posterior.candidates) == ["classifier"]
    assert posterior.cost["classifier"].shape == (5,)
