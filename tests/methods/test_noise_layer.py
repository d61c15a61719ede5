import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx import losses
from nlx.methods.method import KNOWN_OUTLIER, UNKNOWN
from nlx.methods.noise_layer import forward, noise_layer, outliers

K, B, F = 4, 6, 3
RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(0, 2, (B, K)), jnp.float32)
FEATURES = jnp.asarray(RNG.normal(size=(B, F)), jnp.float32)
LABELS = jnp.array([0, 3, 2, 2, 1, 3])
VECTORS = jnp.asarray(RNG.integers(0, 2, (B, K)), jnp.float32)
OUTPUTS = {"logits": LOGITS, "features": FEATURES}
KEY = jax.random.key(0)
T = jnp.asarray(RNG.dirichlet(np.ones(K), K), jnp.float32)


def gradient(method, params, step=0, batch=None):
    batch = batch or {"noisy_label": LABELS}
    return jax.grad(lambda p: method.loss(KEY, p, (), OUTPUTS, batch, jnp.int32(step))[0].mean())(params)


def test_it_starts_as_plain_training():
    method = noise_layer(K, learn_from=3, strength=0.0)
    params, _ = method.init(KEY, OUTPUTS, K, 10)
    loss, _, _ = method.loss(KEY, params, (), OUTPUTS, {"noisy_label": LABELS}, jnp.int32(0))
    np.testing.assert_allclose(loss, losses.cross_entropy(LOGITS, LABELS), rtol=1e-5)


def test_the_matrix_learns_from_one_step_until_another():
    method = noise_layer(K, learn_from=3, learn_until=7)
    params, _ = method.init(KEY, OUTPUTS, K, 10)
    moved = [bool(jnp.any(gradient(method, params, step)["transition"] != 0)) for step in range(9)]
    assert moved == [False] * 3 + [True] * 4 + [False] * 2
    assert jnp.any(gradient(noise_layer(K, learn_from=0), params, 10**6)["transition"] != 0)


NEAR = 0.999 * np.asarray(T, np.float64) + 0.001 * np.eye(K)  # what the volume is taken of


@pytest.mark.parametrize(
    ("penalty", "slope"), [("decay", T), ("trace", jnp.eye(K)), ("volume", 0.999 * np.linalg.inv(NEAR).T)]
)
def test_the_penalty_pulls_with_its_own_slope(penalty, slope):
    params = {"transition": T}
    with_it = gradient(noise_layer(K, learn_from=0, gradient_limit=None, penalty=penalty, strength=0.3), params)[
        "transition"
    ]
    without = gradient(noise_layer(K, learn_from=0, gradient_limit=None, strength=0.0), params)["transition"]
    np.testing.assert_allclose(with_it - without, 0.3 * slope, rtol=1e-3, atol=1e-5)


def test_the_penalties_have_their_papers_weights_and_a_start_has_none():
    loss = lambda **options: noise_layer(K, learn_from=0, **options).loss(  # noqa: E731
        KEY, {"transition": T}, (), OUTPUTS, {"noisy_label": LABELS}, jnp.int32(0)
    )[0]
    bare = losses.forward_corrected(LOGITS, LABELS, T)
    np.testing.assert_allclose(loss(start=T), bare, rtol=1e-6)
    np.testing.assert_allclose(loss(), bare + 0.1 * np.sum(np.square(T)) / 2, rtol=1e-5)
    many, labels = jnp.zeros((1, 200)), {"noisy_label": jnp.zeros(1, jnp.int32)}
    params = {"transition": jnp.eye(200)}
    first = noise_layer(200, learn_from=0).loss(KEY, params, (), {"logits": many}, labels, jnp.int32(0))[0]
    np.testing.assert_allclose(first, np.log(200) + 0.05 * 200 / 2, rtol=1e-5)  # half the weight of 100 classes
    volume = np.log(abs(np.linalg.det(NEAR)))
    np.testing.assert_allclose(loss(penalty="volume", strength=1.0), bare + volume, rtol=1e-4)
    np.testing.assert_allclose(loss(penalty="volume"), bare + 1e-4 * volume, rtol=1e-5)
    flat = {"transition": jnp.full((K, K), 1 / K)}  # its volume is 0
    assert np.isfinite(gradient(noise_layer(K, learn_from=0, penalty="volume"), flat)["transition"]).all()


def test_a_start_is_used_from_the_first_step_and_revised_later():
    method = noise_layer(K, learn_from=3, start=T)
    params, _ = method.init(KEY, OUTPUTS, K, 10)
    np.testing.assert_array_equal(params["transition"], T)
    slopes = [gradient(method, params, step)["transition"] for step in (0, 3)]
    assert not slopes[0].any()
    assert slopes[1].any()
    with pytest.raises(ValueError, match=r"`start` must be \[4, 4\], got \[3, 3\]"):
        noise_layer(K, learn_from=0, start=np.eye(3))
    with pytest.raises(ValueError, match="sums to 2"):
        noise_layer(K, learn_from=0, start=2 * np.eye(K))


def test_the_gradient_limit_shortens_rows():
    params = {"transition": jnp.eye(K)}
    free = gradient(noise_layer(K, learn_from=0, gradient_limit=None, strength=0.0), params)["transition"]
    cut = gradient(noise_layer(K, learn_from=0, strength=0.0, gradient_limit=0.5), params)["transition"]
    length = np.linalg.norm(free, axis=-1, keepdims=True)
    assert (length > 0.5).any()
    assert (length < 0.5).any()
    np.testing.assert_allclose(cut, free * np.minimum(1, 0.5 / np.maximum(length, 1e-9)), rtol=1e-5)


@pytest.mark.parametrize("shape", [(K, K), (K, 2, 2)])
def test_projection_is_onto_rows_that_sum_to_one(shape):
    method = noise_layer(K, learn_from=0, multi_label=len(shape) == 3)
    raw = jnp.asarray(RNG.normal(size=shape), jnp.float32)
    projected = method.project({"transition": raw})["transition"]
    np.testing.assert_allclose(projected.sum(-1), 1, rtol=1e-5)
    assert (projected >= 0).all()
    clipped = jnp.maximum(raw, 0)
    assert not np.allclose(projected, clipped / clipped.sum(-1, keepdims=True), atol=1e-3)


def test_forward_and_its_posterior():
    method = forward(T)
    loss, _, _ = method.loss(KEY, {}, (), OUTPUTS, {"noisy_label": LABELS}, jnp.int32(0))
    np.testing.assert_allclose(loss, losses.forward_corrected(LOGITS, LABELS, T), rtol=1e-6)
    posterior = method.posterior({}, (), OUTPUTS, {"noisy_label": LABELS})
    weights = np.asarray(jax.nn.softmax(LOGITS)) * np.asarray(T)[:, LABELS].T
    np.testing.assert_allclose(posterior.candidates["bayes"].probs, weights / weights.sum(-1, keepdims=True), rtol=1e-4)
    np.testing.assert_array_equal(method.transition({}), T)


def test_several_labels_have_a_matrix_each():
    method = noise_layer(K, learn_from=0, multi_label=True)
    params, _ = method.init(KEY, OUTPUTS, K, 10)
    batch = {"noisy_label": VECTORS}
    loss, _, _ = method.loss(KEY, params, (), OUTPUTS, batch, jnp.int32(0))
    penalty = 0.02 * 0.5 * K * 2  # a fifth of the paper's
    np.testing.assert_allclose(loss, losses.binary_cross_entropy(LOGITS, VECTORS) + penalty, rtol=1e-5)
    posterior = method.posterior(params, (), OUTPUTS, batch)
    np.testing.assert_allclose(posterior.candidates["bayes"].probs, VECTORS, atol=1e-6)  # T = I believes every label


def test_learning_finds_the_matrix_where_the_classifier_is_right():
    """With true predictions, the gradient and the projection lead to the frequencies of noisy labels."""
    true = jnp.asarray(RNG.integers(0, K, 2000))
    wanted = 0.7 * jnp.eye(K) + 0.3 * jnp.roll(jnp.eye(K), 1, axis=1)
    noisy = jnp.where(jnp.asarray(RNG.uniform(size=2000)) < 0.7, true, (true + 1) % K)
    method = noise_layer(K, learn_from=0, strength=0.0, gradient_limit=1.0)
    outputs = {"logits": 6 * jax.nn.one_hot(true, K)}

    @jax.jit
    def descend(params):
        slope = jax.grad(lambda p: method.loss(KEY, p, (), outputs, {"noisy_label": noisy}, jnp.int32(0))[0].mean())(
            params
        )
        return method.project(jax.tree.map(lambda p, g: p - 0.3 * g, params, slope))

    params, _ = method.init(KEY, OUTPUTS, K, 0)
    for _ in range(60):
        params = descend(params)
    np.testing.assert_allclose(params["transition"], wanted, atol=0.04)


def test_outliers_have_a_class_of_their_own():
    method = outliers(K, 0.25)
    params, _ = method.init(KEY, OUTPUTS, K, 10)
    rare = method.posterior(params, (), OUTPUTS, {"noisy_label": LABELS}).columns["outlier_score"].values
    assert rare.max() < 1 / (1 + K)  # at first, lest it swallow a class
    params = {"weights": jnp.ones((F, 1)), "bias": jnp.full(1, 0.3)}
    trusted = jnp.array([UNKNOWN, KNOWN_OUTLIER, UNKNOWN, UNKNOWN, UNKNOWN, KNOWN_OUTLIER])
    loss, _, _ = method.loss(KEY, params, (), OUTPUTS, {"noisy_label": LABELS, "trusted_label": trusted}, jnp.int32(0))
    scores = np.concatenate([LOGITS, FEATURES.sum(-1, keepdims=True) + 0.3], axis=-1).astype(np.float64)
    p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = []
    for n, y in enumerate(np.asarray(LABELS)):
        known = trusted[n] == KNOWN_OUTLIER
        expected.append(-np.log(0.25 * p[n, K] if known else p[n, y] + 0.75 / K * p[n, K]))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    posterior = method.posterior(params, (), OUTPUTS, {"noisy_label": LABELS})
    np.testing.assert_allclose(posterior.columns["outlier_score"].values, p[:, K], rtol=1e-5)
    np.testing.assert_allclose(posterior.candidates["classifier"].probs, jax.nn.softmax(LOGITS), rtol=1e-6)


def test_bad_options():
    with pytest.raises(ValueError, match="`strength` must be at least 0, got -1"):
        noise_layer(K, learn_from=0, strength=-1)
    with pytest.raises(ValueError, match="`gradient_limit` must be above 0, got 0"):
        noise_layer(K, learn_from=0, gradient_limit=0)
