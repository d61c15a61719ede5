import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.methods.icnm import icnm

K, B, F = 3, 5, 4
RNG = np.random.default_rng(0)
OUTPUTS = {
    "logits": jnp.asarray(RNG.normal(size=(B, K)), jnp.float32),
    "features": jnp.asarray(RNG.normal(size=(B, F)), jnp.float32),
}
VECTORS = jnp.asarray(RNG.integers(0, 2, (B, K)), jnp.float32)
PARAMS = {
    "weights": jnp.asarray(RNG.normal(size=(F, 2, K)), jnp.float32),
    "bias": jnp.asarray(RNG.normal(size=(K, 2)), jnp.float32),
}


def test_the_posterior_is_bayes_rule_on_presence_and_reporting():
    posterior = icnm().posterior(PARAMS, (), OUTPUTS, {"noisy_label": VECTORS})
    v = 1 / (1 + np.exp(-np.asarray(OUTPUTS["logits"], np.float64)))
    odds = np.einsum("bf,fjk->bkj", *(np.asarray(x, np.float64) for x in (OUTPUTS["features"], PARAMS["weights"])))
    r = 1 / (1 + np.exp(-(odds + np.asarray(PARAMS["bias"]))))
    said = np.where(np.asarray(VECTORS)[..., None] > 0, r, 1 - r)
    joint = np.stack([1 - v, v], -1) * said
    np.testing.assert_allclose(posterior.candidates["bayes"].probs, joint[..., 1] / joint.sum(-1), rtol=1e-4)


def test_both_heads_learn_and_the_start_trusts_labels():
    method = icnm()
    params, _ = method.init(jax.random.key(0), OUTPUTS, K, 10)
    batch = {"noisy_label": VECTORS}

    def loss(params, logits):
        return method.loss(jax.random.key(0), params, (), {**OUTPUTS, "logits": logits}, batch, jnp.int32(0))[0].sum()

    slopes = jax.grad(loss, argnums=(0, 1))(params, OUTPUTS["logits"])
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(slopes))
    believed = method.posterior(params, (), {**OUTPUTS, "logits": jnp.zeros((B, K))}, batch).candidates["bayes"].probs
    np.testing.assert_array_equal(believed > 0.5, VECTORS > 0)
    with pytest.raises(ValueError, match="`start` must be above 0, got 0"):
        icnm(start=0)
