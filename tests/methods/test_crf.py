import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nlx import crf as field
from nlx import losses, transitions
from nlx.crf import rbm
from nlx.methods.crf import annealed, crf, crf_analytic
from nlx.samplers import bits

C, N, H, F, SIZE = 2, 5, 3, 4, 12
ALPHA = annealed(4.0, 1.0, 10)
rng = np.random.default_rng(0)
AUX = rbm.RBM(*(jnp.asarray(rng.normal(size=s), "f4") for s in ((C + H, N), (N,), (C + H,))))
Y_TRUSTED, Z_TRUSTED = rng.integers(0, 2, (9, N)), rng.integers(0, 2, (9, C))
OUTPUTS = {"logits": jnp.asarray(rng.normal(size=(6, C)), "f4"), "features": jnp.asarray(rng.normal(size=(6, F)), "f4")}
TRUSTED = jnp.array([[1, 0], [-1, -1], [-1, -1], [0, 1], [-1, -1], [-1, -1]])
BATCH = {"noisy_label": jnp.asarray(rng.integers(0, 2, (6, N)), "f4"), "index": jnp.array([3, 1, 7, 0, 11, 5])}
KNOWN = np.array([True, False, False, True, False, False])
OPTIONS = {
    "hidden": {"hidden": H, "link": True},
    "no hidden": {"hidden": 0, "link": True},
    "no link": {"hidden": H},
    "no pairwise": {"pairwise": False, "link": True},
    "alone": {"hidden": H, "auxiliary": None},
}


def make(name, **changes):
    options = {"alpha": ALPHA, "auxiliary": AUX, "chains": 4, "sweeps": 3, "generator": "hash", **OPTIONS[name]}
    return crf(C, N, **{**options, **changes})


def begin(method, spread=0.5):
    """Parameters away from zero, memory, and the batch's rows of it."""
    params, memory = jax.jit(lambda key: method.init(key, OUTPUTS, C, SIZE))(jax.random.key(0))
    frozen = {name: value for name, value in params.items() if name in method.frozen}
    params = jax.tree.map(lambda p: p + jnp.asarray(spread * rng.normal(size=p.shape), "f4"), params) | frozen
    return params, memory, jax.tree.map(lambda m: m[BATCH["index"]], memory)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


@pytest.mark.parametrize("name", OPTIONS)
def test_every_variant_keeps_the_contract_and_trains_what_it_has(name):
    method = make(name)
    params, memory, rows = begin(method)
    assert memory.alpha.shape == (SIZE,)
    assert (memory.chains is None) == (name == "no pairwise")
    assert memory.chains is None or memory.chains.shape == (SIZE, 4)
    batch = {**BATCH, "trusted_label": TRUSTED}

    @jax.jit
    def gradient(params, outputs):
        def objective(both):
            value, stored, _ = method.loss(jax.random.key(1), both[0], rows, both[1], batch, jnp.int32(5))
            return jnp.mean(value), (value, stored)

        return jax.grad(objective, has_aux=True)((params, outputs))

    (of_params, of_outputs), (value, stored) = gradient(params, OUTPUTS)
    assert value.shape == (6,)
    assert value.dtype == jnp.float32
    assert jax.tree.map(jnp.shape, stored) == jax.tree.map(jnp.shape, rows)
    assert jax.tree.map(lambda x: x.dtype, stored) == jax.tree.map(lambda x: x.dtype, rows)
    np.testing.assert_allclose(stored.alpha, 2.5)
    trained = {name: slope for name, slope in of_params.items() if name not in method.frozen}
    assert all((np.asarray(g) != 0).any() for g in jax.tree.leaves(trained) if g.size)
    assert (of_outputs["logits"] != 0).any(axis=1).all()
    assert (of_outputs["features"] != 0).any() == ("link" in OPTIONS[name])
    posterior = method.posterior(params, rows, OUTPUTS, BATCH)
    assert posterior.candidates["posterior"].probs.shape == (6, C)
    assert jax.eval_shape(method.predict, params, OUTPUTS).shape == (6, C)


def test_posterior_is_equation_10_with_the_alpha_of_the_last_visit():
    method = make("hidden")
    params, memory, rows = begin(method)
    np.testing.assert_array_equal(memory.alpha, 4.0)
    _, later, _ = method.loss(jax.random.key(1), params, rows, OUTPUTS, BATCH, jnp.int32(100))
    y = np.asarray(BATCH["noisy_label"])
    own = np.asarray(OUTPUTS["logits"]) + y @ np.asarray(params["coupling"][:C]).T
    aux_logits = np.asarray(AUX.z_bias[:C]) + y @ np.asarray(AUX.coupling[:C]).T
    for memory_rows, alpha in ((rows, 4.0), (later, 1.0)):
        ours = method.posterior(params, memory_rows, OUTPUTS, BATCH).candidates["posterior"].probs
        np.testing.assert_allclose(ours, sigmoid((own + alpha * aux_logits) / (alpha + 1)), rtol=1e-4)


def test_gradient_is_that_of_both_means_added():
    method = make("hidden")
    params, _, rows = begin(method)
    key, step = jax.random.key(1), jnp.int32(0)
    together = {**BATCH, "trusted_label": TRUSTED}
    value = method.loss(key, params, rows, OUTPUTS, together, step)[0]
    alone = method.loss(key, params, rows, OUTPUTS, BATCH, step)[0]
    every = method.loss(key, params, rows, OUTPUTS, {**BATCH, "trusted_label": jnp.tile(TRUSTED[:1], (6, 1))}, step)[0]
    # The same key draws the same chains, so that examples can be compared one by one.
    np.testing.assert_allclose(value[~KNOWN] * 4 / 6, alone[~KNOWN], rtol=1e-5)
    np.testing.assert_allclose(value[0] * 2 / 6, every[0], rtol=1e-5)
    y, clean = BATCH["noisy_label"][0], TRUSTED[0].astype(jnp.float32)
    alpha = 4.0
    hidden = (params["hidden_bias"] + params["coupling"][C:] @ y + alpha * (AUX.z_bias[C:] + AUX.coupling[C:] @ y)) / 5
    z = jnp.concatenate([clean, jax.nn.sigmoid(hidden)])
    a = jnp.concatenate([OUTPUTS["logits"], jnp.tile(params["hidden_bias"][None], (6, 1))], axis=1)
    b = params["noisy_bias"] + OUTPUTS["features"][0] @ params["noisy_kernel"]
    positive = field.energy(y, z, params["coupling"], b, a[0])
    # What is left of the loss is the chains' energy, which no label touches.
    rest = positive - every[0]
    q = field.posterior_logits(
        field.z_logits(y, params["coupling"], a[0]), field.z_logits(y, AUX.coupling, AUX.z_bias), alpha
    )
    unknown = field.energy(y, jax.nn.sigmoid(q), params["coupling"], b, a[0])
    np.testing.assert_allclose(unknown - alone[0], rest, rtol=1e-4)


def test_without_pairwise_terms_the_loss_is_two_cross_entropies():
    method = make("no pairwise", link=False)
    params, _, rows = begin(method)
    value = method.loss(jax.random.key(1), params, rows, OUTPUTS, BATCH, jnp.int32(0))[0]
    q = method.posterior(params, rows, OUTPUTS, BATCH).candidates["posterior"].probs
    b = jnp.tile(params["noisy_bias"][None], (6, 1))
    expected = losses.binary_cross_entropy(OUTPUTS["logits"], q) + losses.binary_cross_entropy(b, BATCH["noisy_label"])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_array_equal(method.predict(params, OUTPUTS), OUTPUTS["logits"])


def test_chains_go_on_from_memory_and_come_back_changed():
    method = make("hidden", chains=16)
    params, _, rows = begin(method)
    params = {**params, "coupling": jnp.zeros((C + H, N)).at[:N].set(80 * jnp.eye(C + H, N))}
    frozen = {**params, "noisy_bias": jnp.full(N, -40.0), "hidden_bias": jnp.full(H, -40.0)}
    frozen["noisy_kernel"] = jnp.zeros((F, N))
    outputs = {**OUTPUTS, "logits": jnp.full((6, C), -40.0)}
    _, stored, metrics = method.loss(jax.random.key(1), frozen, rows, outputs, BATCH, jnp.int32(0))
    np.testing.assert_array_equal(stored.chains, rows.chains)
    np.testing.assert_array_equal(metrics["flip_rate"], 0)
    moved = method.loss(jax.random.key(1), params | {"coupling": 0 * params["coupling"]}, rows, OUTPUTS, BATCH, 0)[1]
    assert (moved.chains != rows.chains).any(axis=1).all()
    assert (np.asarray(bits.unpack(moved.chains.reshape(6, 16, -1), N)).mean((0, 1)) > 0).all()


def exact_marginals(params, outputs):
    y, z = (jnp.asarray((np.arange(2**n)[:, None] >> np.arange(n)) & 1, "f4") for n in (N, C + H))
    out = []
    for i in range(6):
        a = jnp.concatenate([outputs["logits"][i], params["hidden_bias"]])
        log_p = (z @ a)[:, None] + (y @ params["noisy_bias"])[None] + z @ params["coupling"] @ y.T
        out.append(jax.nn.softmax(log_p, axis=None).sum(1) @ z[:, :C])
    return np.asarray(out)


def test_predictions_are_the_fields_marginals():
    method = make("no link", prediction_chains=500, prediction_sweeps=40, dtype=jnp.float32)
    params, _, _ = begin(method)
    exact = exact_marginals(params, OUTPUTS)
    predict = jax.jit(method.predict)
    np.testing.assert_allclose(sigmoid(predict(params, OUTPUTS)), exact, atol=0.015)
    mean_field = make("no link", prediction="mean_field")
    np.testing.assert_allclose(sigmoid(mean_field.predict(params, OUTPUTS)), exact, atol=0.1)
    np.testing.assert_array_equal(make("no link", prediction="logits").predict(params, OUTPUTS), OUTPUTS["logits"])


def test_training_raises_the_likelihood_of_the_noisy_labels():
    method = make("no link", auxiliary=None, chains=50, sweeps=5, dtype=jnp.float32)
    params, memory = method.init(jax.random.key(0), OUTPUTS, C, 6)
    patterns = jnp.tile(jnp.array([[1.0, 1, 0, 0, 1], [0, 0, 1, 1, 0]]), (3, 1))
    batch = {"noisy_label": patterns, "index": jnp.arange(6)}
    outputs = {**OUTPUTS, "logits": jnp.tile(jnp.array([[2.0, -2.0], [-2.0, 2.0]]), (3, 1))}

    @jax.jit
    def update(params, memory, i):
        def objective(p):
            key = jax.random.fold_in(jax.random.key(1), i)
            value, stored, _ = method.loss(key, p, memory, outputs, batch, i)
            return jnp.mean(value), stored

        gradient, stored = jax.grad(objective, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient), stored

    def log_likelihood(params):
        y, z = (jnp.asarray((np.arange(2**n)[:, None] >> np.arange(n)) & 1, "f4") for n in (N, C + H))
        total = 0.0
        for i in range(2):
            a = jnp.concatenate([outputs["logits"][i], params["hidden_bias"]])
            log_p = (z @ a)[:, None] + (y @ params["noisy_bias"])[None] + z @ params["coupling"] @ y.T
            seen = (np.asarray(y) == np.asarray(patterns[i])).all(1)
            total += float((jax.nn.logsumexp(log_p[:, seen]) - jax.nn.logsumexp(log_p, axis=None)) / 2)
        return total

    before = log_likelihood(params)
    for i in range(150):
        params, memory = update(params, memory, jnp.int32(i))
    assert before == pytest.approx(-N * np.log(2), rel=1e-4)
    assert log_likelihood(params) > -0.6


TABLE = np.array([[0.7, 0.2, 0.1], [0.1, 0.9, 0.0], [0.3, 0.3, 0.4]])


def test_the_analytic_variant_is_cross_entropy_against_its_posterior():
    method = crf_analytic(TABLE, alpha=ALPHA, clean_weight=1.0)
    logits = jnp.asarray(rng.normal(size=(4, 3)), "f4")
    noisy, trusted = np.array([0, 1, 2, 2]), jnp.array([-1, -1, 1, -1])
    params, memory = method.init(jax.random.key(0), OUTPUTS, 3, 4)
    batch = {"noisy_label": jnp.asarray(noisy), "index": jnp.arange(4)}
    p = np.exp(np.asarray(jax.nn.log_softmax(logits), np.float64))
    q = (p * TABLE[noisy] ** 2.5) ** (1 / 3.5)
    q /= q.sum(1, keepdims=True)
    value, stored, _ = method.loss(jax.random.key(0), params, memory, {"logits": logits}, batch, jnp.int32(5))
    np.testing.assert_allclose(value, -(q * np.log(p)).sum(1), rtol=1e-4)
    np.testing.assert_allclose(
        method.posterior(params, stored, {"logits": logits}, batch).candidates["posterior"].probs, q, rtol=1e-4
    )
    # The posterior is a constant to the gradient: softmax minus target.
    gradient = jax.grad(
        lambda x: method.loss(jax.random.key(0), params, memory, {"logits": x}, batch, jnp.int32(5))[0].sum()
    )
    np.testing.assert_allclose(gradient(logits), p - q, atol=1e-5)
    with_trusted = {**batch, "trusted_label": trusted}
    known = method.loss(jax.random.key(0), params, memory, {"logits": logits}, with_trusted, jnp.int32(5))[0]
    np.testing.assert_allclose(known, np.where(trusted >= 0, -np.log(p[:, 1]), value), rtol=1e-4)
    heavy = crf_analytic(TABLE, alpha=ALPHA, clean_weight=3.0)
    weighed = heavy.loss(jax.random.key(0), params, memory, {"logits": logits}, with_trusted, jnp.int32(5))[0]
    np.testing.assert_allclose(weighed, known * np.where(trusted >= 0, 3.0, 1.0), rtol=1e-6)
    no_class = {**batch, "noisy_label": jnp.array([-1, 3, *noisy[2:]])}
    loss = jax.jit(method.loss)
    told = loss(jax.random.key(0), params, memory, {"logits": logits}, no_class, jnp.int32(5))[0]
    np.testing.assert_array_equal(np.isnan(told), [True, True, False, False])


def test_annealed_is_a_line_and_then_flat():
    np.testing.assert_allclose([annealed(40, 5, 11)(i) for i in (0, 11, 12, 100)], [40, 5, 5, 5])
    with pytest.raises(ValueError, match="`start` and `end` >= 0"):
        annealed(1, -1, 3)
    with pytest.raises(ValueError, match="`steps` >= 1, got 8, 1 and 0"):
        annealed(8, 1, 0)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="unknown `prediction` 'guess'"):
        make("hidden", prediction="guess")
    with pytest.raises(ValueError, match="fit it with as many `hidden` units"):
        make("hidden", hidden=H + 1)
    with pytest.raises(ValueError, match="at least 1"):
        make("hidden", chains=0)
    with pytest.raises(ValueError, match=r"`table` must be \[K, K\]"):
        crf_analytic(TABLE[:2], alpha=ALPHA)
    with pytest.raises(ValueError, match="`clean_weight` must be at least 0, got -1"):
        crf_analytic(TABLE, alpha=ALPHA, clean_weight=-1)
    with pytest.raises(ValueError, match="distribution over the true classes"):
        crf_analytic(TABLE * 2, alpha=optax.constant_schedule(0.0))


FLIPS = [0, 1, 0, 5, 7, 3, 6, 7, 8, 1]  # half of CIFAR-10's classes to one that looks alike, see docs/crf.md


@pytest.mark.parametrize(
    ("kind", "rate", "alpha", "right"),
    [
        ("symmetric", 0.1, 1.0, 0.90),
        ("symmetric", 0.3, 1.0, 0.70),
        ("symmetric", 0.3, 0.25, 1.00),
        ("flips", 0.1, 1.0, 0.98),
        ("flips", 0.2, 1.0, 0.96),
        ("flips", 0.3, 1.0, 0.94),
        ("flips", 0.4, 1.0, 0.92),
    ],
)
def test_where_the_classifier_settles_on_inputs_whose_class_is_certain(kind, rate, alpha, right):
    matrix = transitions.symmetric(10, rate) if kind == "symmetric" else transitions.pair(10, rate, FLIPS)
    matrix = np.asarray(matrix, np.float64)
    noisy, true = np.tile(np.arange(10), 10), np.arange(10).repeat(10)
    method = crf_analytic((matrix / matrix.sum(axis=0)).T, alpha=lambda step: alpha)

    @jax.jit
    def q_of(p):
        memory = method.init(jax.random.key(0), {}, 10, 100)[1]._replace(alpha=jnp.full(100, alpha))
        belief = method.posterior(
            {}, memory, {"logits": jnp.log(jnp.maximum(p, 1e-30))[true]}, {"noisy_label": jnp.asarray(noisy)}
        )
        return next(iter(belief.candidates.values())).probs

    p = jnp.full((10, 10), 0.1)
    for _ in range(300):
        p = jnp.einsum("cn,cnk->ck", jnp.asarray(matrix, jnp.float32), q_of(p).reshape(10, 10, 10))
    recovered = np.asarray(q_of(p)).reshape(10, 10, 10).argmax(axis=2) == np.arange(10)[:, None]
    assert (matrix * recovered).sum() / 10 == pytest.approx(right, abs=1e-6)


def test_a_machine_is_fitted_when_a_training_begins_and_lies_in_its_parameters():
    method = make("hidden", auxiliary=lambda: rbm.fit(jax.random.key(1), Y_TRUSTED, Z_TRUSTED, H, 3, chains=4))
    params, _, _ = begin(method)
    machine, report = rbm.fit(jax.random.key(1), Y_TRUSTED, Z_TRUSTED, H, 3, chains=4)
    np.testing.assert_allclose(params["auxiliary"].coupling, machine.coupling, rtol=1e-5)
    np.testing.assert_allclose(params["auxiliary_course"].clean_loss, report.clean_loss, rtol=1e-5)
    with pytest.raises(ValueError, match="couples"):
        begin(make("hidden", auxiliary=lambda: (AUX._replace(coupling=jnp.zeros((C, N))), None)))
