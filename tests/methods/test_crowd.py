"""Crowds: EM's target and matrices by hand, layers by hand, and what held-out models change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.arguments import ArgumentError
from nlx.crowd import dawid_skene
from nlx.methods.crowd import CrowdMemory, Given, crowd, log_likelihood
from nlx.methods.crowd_layers import conal, crowd_layer

N, A, K, P, F = 30, 6, 3, 4, 5
RNG = np.random.default_rng(0)
TRUE = RNG.integers(0, K, N)
WHO = np.where(RNG.uniform(size=(N, P)) < 0.8, RNG.integers(0, A, (N, P)), -1)
SAID = np.where(WHO < 0, -1, np.where(RNG.uniform(size=(N, P)) < 0.8, TRUE[:, None], RNG.integers(0, K, (N, P))))
PEOPLE = {"num_annotators": A, "num_classes": K}
OUTPUTS = {
    "logits": jnp.asarray(RNG.normal(size=(N, K)), jnp.float32),
    "features": jnp.asarray(RNG.normal(size=(N, F)), jnp.float32),
}
SHAPES = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), OUTPUTS)
BATCH = {"noisy_label": jnp.zeros(N, jnp.int32), "index": jnp.arange(N)}
LOG_P = np.log(np.asarray(jax.nn.softmax(OUTPUTS["logits"]), np.float64))


def begun(method, size=N):
    return method.init(jax.random.key(0), SHAPES, K, size)


def likelihood(confusion):
    """Log p(answers | true class) in loops."""
    out = np.zeros((N, K))
    for n in range(N):
        for a, j in zip(WHO[n], SAID[n], strict=True):
            if j >= 0:
                out[n] += np.log(np.asarray(confusion, np.float64)[a, :, j])
    return out


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_the_target_is_bayes_rule_and_trusted_labels_are_certain():
    method = crowd(WHO, SAID, **PEOPLE)
    params, memory = begun(method)
    flat = np.repeat(np.arange(N), P), WHO.ravel(), SAID.ravel()
    alone = dawid_skene(*flat, num_items=N, **PEOPLE, iterations=20)
    np.testing.assert_allclose(memory.log_likelihood, likelihood(alone.confusion), atol=1e-4)
    q = softmax(LOG_P + np.asarray(memory.log_likelihood))
    trusted = np.where(np.arange(N) < 5, (TRUE + 1) % K, -1)
    batch = BATCH | {"trusted_label": jnp.asarray(trusted, jnp.int32)}
    loss, stored, _ = method.loss(None, params, memory, OUTPUTS, batch, 0)
    target = np.where(trusted[:, None] >= 0, np.eye(K)[trusted], q)
    np.testing.assert_allclose(loss, -(target * LOG_P).sum(1), rtol=1e-4)
    np.testing.assert_allclose(method.posterior(params, memory, OUTPUTS, batch).candidates["crowd"].probs, q, atol=1e-5)
    slope = jax.grad(lambda x: method.loss(None, params, memory, {**OUTPUTS, "logits": x}, batch, 0)[0].sum())
    np.testing.assert_allclose(slope(OUTPUTS["logits"]), np.exp(LOG_P) - target, atol=1e-5)  # the target is constant
    new = method.refresh(None, stored, OUTPUTS["features"], batch)
    assert not np.allclose(new.log_likelihood, memory.log_likelihood, atol=1e-2)
    fitted = dawid_skene(
        *flat, num_items=N, **PEOPLE, log_prior=LOG_P.astype(np.float32), trusted=trusted, iterations=20
    )
    np.testing.assert_allclose(new.log_likelihood, likelihood(fitted.confusion), atol=1e-4)


def test_examples_that_no_batch_has_visited_tell_nothing_of_annotators():
    method = crowd(WHO, SAID, **PEOPLE)
    params, memory = begun(method)
    _, stored, _ = method.loss(None, params, memory, OUTPUTS, BATCH, 0)
    odd = np.arange(N) % 2 == 1
    partly = stored._replace(log_probs=jnp.where(odd[:, None], 0.0, stored.log_probs))
    silent = stored._replace(given=stored.given._replace(label=jnp.where(odd[:, None], -1, stored.given.label)))
    features = OUTPUTS["features"]
    ours, theirs = (method.refresh(None, m, features, BATCH).log_likelihood[~odd] for m in (partly, silent))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert not np.allclose(ours, method.refresh(None, stored, features, BATCH).log_likelihood[~odd], atol=1e-2)


def test_what_held_out_models_say_takes_the_classifiers_place_for_good():
    held_out = np.asarray(RNG.dirichlet(np.ones(K), N), np.float32)
    method = crowd(WHO, SAID, **PEOPLE, held_out=held_out)
    params, memory = begun(method, size=N + 2)
    assert method.refresh is None
    assert (memory.given.label[N:] == -1).all()
    rows = CrowdMemory(Given(*(x[:N] for x in memory.given)), memory.log_likelihood[:N], memory.log_probs[:N])
    _, stored, _ = method.loss(None, params, rows, OUTPUTS, BATCH, 0)
    assert stored is rows
    q = method.posterior(params, rows, OUTPUTS, BATCH).candidates["crowd"].probs
    np.testing.assert_allclose(q, softmax(np.log(held_out) + np.asarray(rows.log_likelihood, np.float64)), atol=1e-5)
    said = log_likelihood(rows.given, jnp.full((A, K, K), 1 / 3))
    np.testing.assert_allclose(said, np.log(1 / 3) * (SAID >= 0).sum(1)[:, None].repeat(K, 1), rtol=1e-5)


def cross_entropies(scores_of):
    """Mean over each example's answers of the cross-entropy of scores, 0 without any."""
    out = np.zeros(N)
    for n in range(N):
        each = [-np.log(softmax(scores_of(n, a)[None])[0, j]) for a, j in zip(WHO[n], SAID[n], strict=True) if j >= 0]
        out[n] = np.mean(each) if each else 0
    return out


def test_layers_are_those_of_the_papers():
    own, common = RNG.normal(size=(A, K, K)).astype(np.float32), RNG.normal(size=(K, K)).astype(np.float32)
    people, examples = RNG.normal(size=(A, 2)).astype(np.float32), RNG.normal(size=(F, 2)).astype(np.float32)
    p, x = np.exp(LOG_P), np.asarray(OUTPUTS["features"], np.float64)
    layer = crowd_layer(WHO, SAID, **PEOPLE)
    loss, _, _ = layer.loss(None, {"own": jnp.asarray(own)}, begun(layer)[1], OUTPUTS, BATCH, 0)
    np.testing.assert_allclose(loss, cross_entropies(lambda n, a: p[n] @ own[a]), rtol=1e-4)

    def mixed(n, a):
        u, v = people[a] / np.linalg.norm(people[a]), x[n] @ examples
        omega = 1 / (1 + np.exp(-u @ v / np.linalg.norm(v)))
        return omega * p[n] @ common + (1 - omega) * p[n] @ own[a]

    method = conal(WHO, SAID, **PEOPLE, width=2, apart=0.1)
    params = {"own": own, "common": common, "people": people, "examples": examples}
    loss, _, _ = method.loss(None, jax.tree.map(jnp.asarray, params), begun(method)[1], OUTPUTS, BATCH, 0)
    apart = sum(np.linalg.norm(own[a] - common) for a in range(A))
    np.testing.assert_allclose(loss, cross_entropies(mixed) - 0.1 * apart, rtol=1e-4)
    assert jax.tree.map(jnp.shape, begun(method)[0]) == {**jax.tree.map(np.shape, params), "examples": (F, 2)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crowd(WHO, SAID[:3], **PEOPLE), r"must be int \[n, P\]"),
        (lambda: crowd_layer(WHO * 1.0, SAID, **PEOPLE), r"must be int \[n, P\]"),
        (lambda: crowd_layer(WHO, SAID + 1, **PEOPLE), r"`labels` must lie in \[0, 3\)"),
        (lambda: conal(WHO, SAID, **PEOPLE, apart=-1), "`apart` at least 0"),
        (lambda: crowd(WHO, SAID, **PEOPLE, held_out=np.ones((2, K))), r"`held_out` must be \[30, 3\]"),
    ],
)
def test_a_mistake_is_told(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
