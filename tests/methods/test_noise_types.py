from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx import posteriors
from nlx.methods.noise_types import bottom_up, noise_types, pretrain_noise_types, second_backbone, shared_trunk
from nlx.methods.plain import trusted_cross_entropy
from nlx.transitions.confusing import estimate_confusing, noise_kinds

RNG = np.random.default_rng(0)
N, F, K = 12, 5, 4
CONFUSING = jnp.array([[0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 1], [1 / 3, 1 / 3, 1 / 3, 0]], jnp.float32)
NOISY = jnp.asarray(RNG.integers(0, K, N), jnp.int32)
TRUSTED = jnp.asarray(np.where(np.arange(N) < 6, RNG.integers(0, K, N), -1), jnp.int32).at[11].set(-2)
X = jnp.asarray(RNG.normal(size=(N, F)), jnp.float32)
BATCH = {"noisy_label": NOISY, "trusted_label": TRUSTED, "index": jnp.arange(N), "inputs": X}
WEIGHTS = {
    "trunk": jnp.asarray(RNG.normal(size=(F, F)), jnp.float32),
    "head": jnp.asarray(RNG.normal(size=(F, K)), jnp.float32),
}


def own_network(key):
    return {"in": jax.random.normal(key, (F, 8)), "out": jax.random.normal(key, (8, 3))}


BRANCHES = {
    "shared": shared_trunk(),
    "own": second_backbone(own_network, lambda params, x: jnp.tanh(x @ params["in"]) @ params["out"]),
}


@cache
def make(branch="own", **options):
    return noise_types(K, CONFUSING, BRANCHES[branch], **options)


@cache
def pretraining(branch="own", **options):
    return pretrain_noise_types(CONFUSING, BRANCHES[branch], **options)


def outputs_of(weights):
    features = jnp.tanh(X @ weights["trunk"])
    return {"features": features, "logits": features @ weights["head"]}


def start(method):
    params, memory = method.init(jax.random.key(0), outputs_of(WEIGHTS), K, N)
    assert memory == ()
    return jax.tree.map(lambda p: p + 0.1, params)  # away from the zeros of a linear head


@cache
def jitted(loss):
    return jax.jit(loss)


def losses(method, params, batch=BATCH, weights=WEIGHTS):
    return jitted(method.loss)(jax.random.key(1), params, (), outputs_of(weights), batch, jnp.int32(0))


def cross_entropy(q, logits):
    return -np.sum(np.asarray(q) * np.asarray(jax.nn.log_softmax(logits)), axis=1)


@pytest.mark.parametrize("branch", BRANCHES)
def test_pretraining_and_joint_training_are_their_cross_entropies(branch):
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
        pretraining(branch): known * about_kind,
        method: np.where(known, 3.0, 1.0) * (about_class + about_kind),
    }
    assert set(kind[known]) == {0, 1, 2}
    for trained, values in expected.items():
        loss, _, metrics = losses(trained, params)
        np.testing.assert_allclose(loss, values, rtol=1e-4, atol=1e-6)
        assert all(v.shape == (N,) for v in metrics.values())


@pytest.mark.parametrize("branch", BRANCHES)
def test_gradient_reaches_only_what_a_stage_trains(branch):
    params = start(make(branch))
    for method, trains_backbone in ((pretraining(branch), False), (make(branch), True)):

        def total(weights, params, method=method):
            return method.loss(jax.random.key(0), params, (), outputs_of(weights), BATCH, jnp.int32(0))[0].sum()

        by_weights, by_params = jax.jit(jax.grad(total, (0, 1)))(WEIGHTS, params)
        assert all(bool(g.any()) == trains_backbone for g in jax.tree.leaves(by_weights))
        assert all(bool(g.any()) for g in jax.tree.leaves(by_params))


def test_no_gradient_goes_through_the_posterior():
    method = make("own")
    batch = {name: x for name, x in BATCH.items() if name != "trusted_label"}

    def loss(logits):
        outputs = {"logits": logits, "inputs": X}
        return method.loss(jax.random.key(0), start(method), (), outputs, batch, jnp.int32(0))[0].sum()

    logits = outputs_of(WEIGHTS)["logits"]
    q = method.posterior(start(method), (), {"logits": logits, "inputs": X}, batch)
    by_logits = jax.jit(jax.grad(loss))(logits)
    np.testing.assert_allclose(by_logits, jax.nn.softmax(logits) - q.candidates["posterior"].probs, atol=1e-6)


def test_branch_rate_scales_the_gradient_of_the_branch_alone():
    def grads(rate):
        method = make("shared", branch_rate=rate)
        return jax.grad(lambda w, p: losses(method, p, weights=w)[0].sum(), (0, 1))(WEIGHTS, start(method))

    (weights, params), (weights_slow, params_slow) = grads(1.0), grads(0.25)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), weights, weights_slow)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(0.25 * a, b, rtol=1e-5, atol=1e-7), params, params_slow)


def test_posterior_takes_no_notice_of_trusted_labels():
    method = make()
    with_them = method.posterior(start(method), (), outputs_of(WEIGHTS), BATCH)
    batch = {name: x for name, x in BATCH.items() if name != "trusted_label"}
    without = method.posterior(start(method), (), outputs_of(WEIGHTS), batch)
    jax.tree.map(np.testing.assert_array_equal, with_them, without)
    assert with_them.columns["noise_type"].values.shape == (N, 3)
    np.testing.assert_allclose(with_them.candidates["posterior"].probs.sum(1), 1, rtol=1e-5)
    assert (with_them.candidates["posterior"].cost > 0).all()


def test_without_trusted_labels_there_is_nothing_to_pretrain_on():
    batch = {name: x for name, x in BATCH.items() if name != "trusted_label"}
    params = start(make())
    np.testing.assert_array_equal(losses(pretraining(), params, batch)[0], 0)
    assert (losses(make(), params, batch)[0] > 0).all()


def test_losses_stay_finite_at_extremes_and_where_the_trusted_part_lacks_a_class():
    true = jnp.array([0, 0, 0, 1, 1, 1], jnp.int32)  # classes 2 and 3 are not seen, 1 is never mislabelled
    confusing = estimate_confusing(true, jnp.array([0, 1, 3, 1, 1, 1], jnp.int32), K).transition
    methods = noise_types(K, confusing, shared_trunk()), pretrain_noise_types(confusing, shared_trunk())
    params = {"head": {"weights": 1e4 * jnp.eye(K, 3), "bias": jnp.array([0, -1e4, 1e4])}}

    for method in methods:

        def total(logits, params, method=method):
            outputs = {"logits": logits, "features": jnp.sign(logits)}
            return method.loss(jax.random.key(0), params, (), outputs, BATCH, jnp.int32(0))[0].sum()

        run = jax.jit(jax.value_and_grad(total, (0, 1)))
        value, grads = run(1e4 * jnp.sign(outputs_of(WEIGHTS)["logits"]), params)
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
    method, types = noise_types(K, confusing, shared_trunk()), pretrain_noise_types(confusing, shared_trunk())
    batch = {"noisy_label": jnp.asarray(noisy), "trusted_label": jnp.asarray(trusted), "index": jnp.arange(400)}
    inputs = jnp.asarray(x)

    def descend(params, trained, steps):
        def objective(params):
            outputs = {"features": inputs, "logits": inputs @ params["model"]}
            losses = trained.loss(jax.random.key(0), params["method"], (), outputs, batch, jnp.int32(0))[0]
            return jnp.mean(jnp.where(batch["trusted_label"] >= 0, losses, 0.0) if trained is first else losses)

        def one(params, _):
            return jax.tree.map(lambda p, g: p - g, params, jax.grad(objective)(params)), None

        return jax.jit(lambda p: jax.lax.scan(one, p, length=steps)[0])(params)

    first = trusted_cross_entropy()
    shapes = {"features": inputs}
    params = {"model": jnp.zeros((F, K)), "method": method.init(jax.random.key(0), shapes, K, 400)[0]}
    for trained, steps in ((first, 60), (types, 60), (method, 180)):
        params = descend(params, trained, steps)
    q = method.posterior(params["method"], (), {"features": inputs, "logits": inputs @ params["model"]}, batch)
    untrusted = trusted < 0
    assert (
        (q.candidates["posterior"].probs.argmax(1) == true)[untrusted].mean() > 0.93 > (noisy == true)[untrusted].mean()
    )
    assert ((q.columns["noise_type"].values[:, 0] < 0.5) == (noisy != true))[untrusted].mean() > 0.9
    assert (noise_kinds(true, noisy, confusing)[noisy != true] == 2).all()


def test_bottom_up_is_forward_correction_except_where_labels_are_trusted():
    transition = np.asarray(0.6 * jnp.eye(K) + 0.4 * CONFUSING)
    method = bottom_up(transition)
    outputs = outputs_of(WEIGHTS)
    p = np.asarray(jax.nn.softmax(outputs["logits"]))
    known = np.asarray(TRUSTED) >= 0
    rows = np.arange(N)
    expected = np.where(known, -np.log(p[rows, TRUSTED]), -np.log((p @ transition)[rows, NOISY]))
    loss = method.loss(jax.random.key(0), {}, (), outputs, BATCH, jnp.int32(0))[0]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    q = method.posterior({}, (), outputs, BATCH).candidates["bayes"].probs
    bayes = p * transition.T[np.asarray(NOISY)]
    np.testing.assert_allclose(q, bayes / bayes.sum(1, keepdims=True), rtol=1e-5)
    nobody = jnp.eye(K).at[2].set(jnp.eye(K)[0])  # no class comes out as 2
    np.testing.assert_allclose(
        bottom_up(nobody).posterior({}, (), outputs, BATCH | {"noisy_label": jnp.full(N, 2)}).candidates["bayes"].probs,
        p,
        rtol=1e-5,
    )


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"`confusing` must be \[K, K\] for K = 3"):
        noise_types(3, CONFUSING, shared_trunk())
    with pytest.raises(ValueError, match="`branch_rate` must be at least 0"):
        make(branch_rate=-1.0)
    with pytest.raises(ValueError, match="`branch_rate` must be at least 0"):
        pretraining(branch_rate=-1.0)
