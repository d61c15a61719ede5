from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx import posteriors
from nlx.methods.noise_types import bottom_up, noise_types, second_backbone, shared_trunk
from nlx.transitions.confusing import estimate_confusing, noise_kinds

RNG = np.random.default_rng(0)
N, F, K = 12, 5, 4
STAGES = {"classifier": 0, "types": 10, "together": 20}
CONFUSING = jnp.array([[0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 1], [1 / 3, 1 / 3, 1 / 3, 0]], jnp.float32)
NOISY = jnp.asarray(RNG.integers(0, K, N), jnp.int32)
TRUSTED = jnp.asarray(np.where(np.arange(N) < 6, RNG.integers(0, K, N), -1), jnp.int32).at[11].set(-2)
X = jnp.asarray(RNG.normal(size=(N, F)), jnp.float32)
BATCH = {"noisy_label": NOISY, "trusted_label": TRUSTED, "index": jnp.arange(N), "features": X}
WEIGHTS = {
    "trunk": jnp.asarray(RNG.normal(size=(F, F)), jnp.float32),
    "head": jnp.asarray(RNG.normal(size=(F, K)), jnp.float32),
}


def own_network(key):
    return {"in": jax.random.normal(key, (F, 8)), "out": jax.random.normal(key, (8, 3))}


BRANCHES = {
    "shared": shared_trunk(F),
    "own": second_backbone(own_network, lambda params, x: jnp.tanh(x @ params["in"]) @ params["out"]),
}


@cache
def make(branch="own", **options):
    return noise_types(K, CONFUSING, BRANCHES[branch], boundaries=(10, 20), **options)


def outputs_of(weights):
    features = jnp.tanh(X @ weights["trunk"])
    return {"features": features, "logits": features @ weights["head"]}


def start(method):
    params, memory = method.init(jax.random.key(0), BATCH, N)
    assert memory == {}
    return jax.tree.map(lambda p: p + 0.1, params)  # away from the zeros of a linear head


@cache
def jitted(loss):
    return jax.jit(loss)


def losses(method, stage, batch=BATCH, weights=WEIGHTS, params=None):
    params = start(method) if params is None else params
    step = jnp.int32(STAGES[stage])
    return jitted(method.loss)(params, {}, outputs_of(weights), batch, jax.random.key(1), step)


def cross_entropy(q, logits):
    return -np.sum(np.asarray(q) * np.asarray(jax.nn.log_softmax(logits)), axis=1)


@pytest.mark.parametrize("branch", BRANCHES)
def test_every_stage_is_its_cross_entropy(branch):
    method = make(branch, clean_weight=3.0)
    outputs, params = outputs_of(WEIGHTS), start(method)
    kinds = BRANCHES[branch].apply(params, outputs, BATCH)
    q = posteriors.noise_types(outputs["logits"], kinds, NOISY, CONFUSING)
    known = np.asarray(TRUSTED) >= 0
    true = np.where(known, TRUSTED, 0)
    kind = np.array(
        [0 if t == n else 2 if CONFUSING[t, n] > 1 / 3 + 1e-6 else 1 for t, n in zip(true, NOISY, strict=True)]
    )
    about_class = cross_entropy(np.where(known[:, None], np.eye(K)[true], q.label), outputs["logits"])
    about_kind = cross_entropy(np.where(known[:, None], np.eye(3)[kind], q.kind), kinds)
    expected = {
        "classifier": known * about_class,
        "types": known * about_kind,
        "together": np.where(known, 3.0, 1.0) * (about_class + about_kind),
    }
    assert set(kind[known]) == {0, 1, 2}
    for stage, values in expected.items():
        loss, aux = losses(method, stage)
        np.testing.assert_allclose(loss, values, rtol=1e-4, atol=1e-6)
        assert all(v.shape == (N,) for v in aux.metrics.values())


@pytest.mark.parametrize("branch", BRANCHES)
def test_gradient_reaches_only_what_a_stage_trains(branch):
    method = make(branch)

    def total(weights, params, step):
        return method.loss(params, {}, outputs_of(weights), BATCH, jax.random.key(0), step)[0].sum()

    gradients = jax.jit(jax.grad(total, (0, 1)))
    for stage, (backbone, types) in {"classifier": (1, 0), "types": (0, 1), "together": (1, 1)}.items():
        by_weights, by_params = gradients(WEIGHTS, start(method), jnp.int32(STAGES[stage]))
        assert all(bool(g.any()) == bool(backbone) for g in jax.tree.leaves(by_weights))
        assert all(bool(g.any()) == bool(types) for g in jax.tree.leaves(by_params))


def test_no_gradient_goes_through_the_posterior():
    method = make("own")
    batch = {name: x for name, x in BATCH.items() if name != "trusted_label"}

    def loss(logits):
        outputs = {"logits": logits, "features": X}
        return method.loss(start(method), {}, outputs, batch, jax.random.key(0), jnp.int32(20))[0].sum()

    logits = outputs_of(WEIGHTS)["logits"]
    q = method.posterior(start(method), {}, {"logits": logits, "features": X}, batch)
    by_logits = jax.jit(jax.grad(loss))(logits)
    np.testing.assert_allclose(by_logits, jax.nn.softmax(logits) - q.candidates["posterior"], atol=1e-6)


def test_branch_rate_scales_the_gradient_of_the_branch_alone():
    def grads(rate):
        method = make("shared", branch_rate=rate)
        return jax.grad(lambda w, p: losses(method, "together", weights=w, params=p)[0].sum(), (0, 1))(
            WEIGHTS, start(method)
        )

    (weights, params), (weights_slow, params_slow) = grads(1.0), grads(0.25)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), weights, weights_slow)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(0.25 * a, b, rtol=1e-5, atol=1e-7), params, params_slow)


def test_posterior_takes_no_notice_of_trusted_labels():
    method = make()
    with_them = method.posterior(start(method), {}, outputs_of(WEIGHTS), BATCH)
    batch = {name: x for name, x in BATCH.items() if name != "trusted_label"}
    without = method.posterior(start(method), {}, outputs_of(WEIGHTS), batch)
    jax.tree.map(np.testing.assert_array_equal, with_them, without)
    assert with_them.extras["noise_type"].shape == (N, 3)
    np.testing.assert_allclose(with_them.candidates["posterior"].sum(1), 1, rtol=1e-5)
    assert (with_them.cost["posterior"] > 0).all()


def test_without_trusted_labels_only_the_last_stage_learns():
    batch = {name: x for name, x in BATCH.items() if name != "trusted_label"}
    for stage in ("classifier", "types"):
        np.testing.assert_array_equal(losses(make(), stage, batch)[0], 0)
    assert (losses(make(), "together", batch)[0] > 0).all()


def test_losses_stay_finite_at_extremes_and_where_the_trusted_part_lacks_a_class():
    true = jnp.array([0, 0, 0, 1, 1, 1], jnp.int32)  # classes 2 and 3 are not seen, 1 is never mislabelled
    confusing = estimate_confusing(true, jnp.array([0, 1, 3, 1, 1, 1], jnp.int32), K).transition
    method = noise_types(K, confusing, shared_trunk(K), boundaries=(10, 20))
    params = {"head": {"weights": 1e4 * jnp.eye(K, 3), "bias": jnp.array([0, -1e4, 1e4])}}

    def total(logits, params, step):
        outputs = {"logits": logits, "features": jnp.sign(logits)}
        return method.loss(params, {}, outputs, BATCH, jax.random.key(0), step)[0].sum()

    run = jax.jit(jax.value_and_grad(total, (0, 1)))
    for step in STAGES.values():
        value, grads = run(1e4 * jnp.sign(outputs_of(WEIGHTS)["logits"]), params, jnp.int32(step))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((value, grads)))


def test_em_finds_out_which_labels_are_wrong():
    centres = 3 * np.eye(K, F)
    true = RNG.integers(0, K, 400)
    x = (centres[true] + RNG.normal(size=(400, F))).astype(np.float32)
    kind = np.where(x[:, -1] > 0.5, 2, 0)  # what x says of the noise is independent of the class
    noisy = np.where(kind == 2, (true + 1) % K, true).astype(np.int32)
    trusted = np.where(np.arange(400) < 100, true, -1).astype(np.int32)
    # A label next to the true one is all confusion here.
    confusing = estimate_confusing(true[:100].astype(np.int32), noisy[:100], K).transition
    method = noise_types(K, confusing, shared_trunk(F), boundaries=(60, 120))
    batch = {"noisy_label": jnp.asarray(noisy), "trusted_label": jnp.asarray(trusted), "index": jnp.arange(400)}
    inputs = jnp.asarray(x)

    def objective(params, step):
        outputs = {"features": inputs, "logits": inputs @ params["model"]}
        return method.loss(params["method"], {}, outputs, batch, jax.random.key(0), step)[0].mean()

    def one(params, step):
        grads = jax.grad(objective)(params, step)
        return jax.tree.map(lambda p, g: p - g, params, grads), None

    params = {"model": jnp.zeros((F, K)), "method": method.init(jax.random.key(0), batch, 400)[0]}
    params, _ = jax.jit(lambda p: jax.lax.scan(one, p, jnp.arange(300)))(params)
    q = method.posterior(params["method"], {}, {"features": inputs, "logits": inputs @ params["model"]}, batch)
    untrusted = trusted < 0
    assert (q.candidates["posterior"].argmax(1) == true)[untrusted].mean() > 0.93 > (noisy == true)[untrusted].mean()
    assert ((q.extras["noise_type"][:, 0] < 0.5) == (noisy != true))[untrusted].mean() > 0.9
    assert (noise_kinds(true, noisy, confusing)[noisy != true] == 2).all()


def test_bottom_up_is_forward_correction_except_where_labels_are_trusted():
    transition = np.asarray(0.6 * jnp.eye(K) + 0.4 * CONFUSING)
    method = bottom_up(transition)
    outputs = outputs_of(WEIGHTS)
    p = np.asarray(jax.nn.softmax(outputs["logits"]))
    known = np.asarray(TRUSTED) >= 0
    rows = np.arange(N)
    expected = np.where(known, -np.log(p[rows, TRUSTED]), -np.log((p @ transition)[rows, NOISY]))
    loss, _ = method.loss({}, {}, outputs, BATCH, jax.random.key(0), jnp.int32(0))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    q = method.posterior({}, {}, outputs, BATCH).candidates["bayes"]
    bayes = p * transition.T[np.asarray(NOISY)]
    np.testing.assert_allclose(q, bayes / bayes.sum(1, keepdims=True), rtol=1e-5)
    nobody = jnp.eye(K).at[2].set(jnp.eye(K)[0])  # no class comes out as 2
    np.testing.assert_allclose(
        bottom_up(nobody).posterior({}, {}, outputs, BATCH | {"noisy_label": jnp.full(N, 2)}).candidates["bayes"],
        p,
        rtol=1e-5,
    )


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"confusing must be \(3, 3\)"):
        noise_types(3, CONFUSING, shared_trunk(F), boundaries=(0, 0))
    with pytest.raises(ValueError, match="two steps in order"):
        noise_types(K, CONFUSING, shared_trunk(F), boundaries=(3, 2))
    with pytest.raises(ValueError, match="at least 0"):
        make(branch_rate=-1.0)


def test_the_most_confusing_comes_first():
    kinds = np.array([[0.9, 0.0, 0.1], [0.1, 0.2, 0.7], [0.5, 0.2, 0.3]])
    method = noise_types(3, (1 - np.eye(3)) / 2, shared_trunk(2), boundaries=(0, 0))
    np.testing.assert_array_equal(method.columns({"noise_type": kinds})["confusing_rank"], [2, 0, 1])
