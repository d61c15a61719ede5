import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import Array

from nlx.losses import binary_cross_entropy
from nlx.methods.can import PAPER_STEPS, Heads, NoiseNetwork, can, paper_schedule
from nlx.methods.method import Method
from nlx.samplers import concrete, gaussian
from nlx.variational import label_divergence, quality_divergence, reconstruction

K = 4
RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(0, 2, (6, K)), jnp.float32)
NOISY = jnp.asarray(RNG.integers(0, 2, (6, K)), jnp.float32)
HEADS = Heads(quality_dim=3, encoder_width=16, decoder_width=16)


def constant(value: float) -> optax.Schedule:
    return lambda step: jnp.asarray(value, jnp.float32)


def make(rho: float = 0.4, regularizer: float = 0.3, samples: int = 1, heads: Heads = HEADS) -> Method:
    return can(K, temperature=constant(0.7), rho=constant(rho), regularizer=regularizer, samples=samples, heads=heads)


def start(method: Method, seed: int = 0) -> dict:
    return method.init(jax.random.key(seed), {}, K, 6)[0]


def mean_loss(method: Method, params: dict, logits: Array, noisy: Array = NOISY) -> Array:
    batch = {"noisy_label": noisy, "index": jnp.arange(6)}
    return method.loss(jax.random.key(3), params, (), {"logits": logits}, batch, jnp.int32(0))[0].mean()


@pytest.mark.parametrize("rho", [0.0, 0.4, 1.0])
def test_the_classifier_follows_equation_7(rho):
    """(1 - rho) grad KL(q || P) + rho grad CE(P, noisy), with q constant: in logits, P - target."""
    method = make(rho)
    params = start(method)
    gradient = jax.grad(lambda x: mean_loss(method, params, x))(LOGITS) * 6
    network = rebuild(params)
    p = jax.nn.sigmoid(LOGITS)
    q = jax.nn.sigmoid(network.label(NOISY, p))
    np.testing.assert_allclose(gradient, (1 - rho) * (p - q) + rho * (p - NOISY), rtol=1e-4, atol=1e-5)


def rebuild(params: dict) -> NoiseNetwork:
    graph = nnx.graphdef(NoiseNetwork(K, HEADS, rngs=nnx.Rngs(0)))
    return nnx.merge(graph, params)


def test_the_noise_network_follows_equation_6_with_the_classifier_constant():
    method = make()
    params = start(method)

    def objective(params):
        network = rebuild(params)
        prediction = jax.nn.sigmoid(LOGITS)
        q = network.label(NOISY, prediction)
        mean, log_variance = network.quality(NOISY, prediction)
        z_key, s_key = jax.random.split(jax.random.key(3))
        z = concrete.sample(z_key, q[None], 0.7)
        s = gaussian.sample(s_key, mean[None], log_variance[None])
        terms = reconstruction(network.decode(z, s), NOISY) + label_divergence(q, LOGITS, 0.3)
        return (terms + quality_divergence(mean, log_variance, 0.3)).mean()

    expected = jax.grad(objective)(params)
    actual = jax.grad(lambda p: mean_loss(method, p, LOGITS))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), actual, expected)


def gradient_of_metric(name: str) -> dict[str, float]:
    """Largest gradient of one term of the objective on each layer."""
    method = make()

    def term(params):
        batch = {"noisy_label": NOISY, "index": jnp.arange(6)}
        metrics = method.loss(jax.random.key(3), params, (), {"logits": LOGITS}, batch, jnp.int32(0))[2]
        return metrics[name].mean()

    gradients = jax.grad(term)(start(method))
    return {layer: max(float(jnp.abs(g).max()) for g in jax.tree.leaves(g)) for layer, g in gradients.items()}


@pytest.mark.parametrize(
    ("term", "layers"),
    [
        ("reconstruction", {"contrast", "add", "decode"}),
        ("label_divergence", {"add"}),
        ("quality_divergence", {"contrast"}),
    ],
)
def test_each_term_reaches_its_own_layers_and_no_others(term, layers):
    for layer, size in gradient_of_metric(term).items():
        assert (size > 0) == (layer.split("_")[0] in layers), (term, layer, size)


def test_rho_changes_nothing_for_the_noise_network():
    plain, annealed = make(rho=1.0), make(rho=0.0)
    params = start(plain)
    one = jax.grad(lambda p: mean_loss(plain, p, LOGITS))(params)
    two = jax.grad(lambda p: mean_loss(annealed, p, LOGITS))(params)
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_single_labels_enter_as_one_hot_vectors():
    method = make()
    labels = jnp.array([0, 3, 2, 1, 1, 0])
    params = start(method)
    one_hot = jax.nn.one_hot(labels, K)
    assert mean_loss(method, params, LOGITS, labels) == mean_loss(method, params, LOGITS, one_hot)


@pytest.mark.slow
def test_more_samples_average_the_reconstruction_with_less_spread():
    batch = {"noisy_label": NOISY, "index": jnp.arange(6)}

    def spread(samples):
        method = make(samples=samples)
        params = start(method)
        draw = jax.vmap(
            lambda key: method.loss(key, params, (), {"logits": LOGITS}, batch, jnp.int32(0))[2][
                "reconstruction"
            ].mean()
        )
        draws = draw(jax.random.split(jax.random.key(0), 400))
        return draws.mean(), draws.std()

    (mean_1, std_1), (mean_16, std_16) = spread(1), spread(16)
    assert abs(mean_1 - mean_16) < 5 * std_1 / 20
    assert std_16 == pytest.approx(std_1 / 4, rel=0.25)


def test_the_identity_start_adds_label_and_prediction_and_passes_z_through():
    network = rebuild(start(make()))
    noisy = jnp.eye(K)
    prediction = jnp.roll(jnp.eye(K), 1, axis=0) * 0.9
    q = jax.nn.sigmoid(network.label(noisy, prediction))
    w = HEADS.prediction_weight
    expected = 1 / (1 + np.exp(-4 * (np.asarray(noisy + w * prediction) - (1 + w) / 2)))
    assert np.abs(np.asarray(q) - expected).max() < 0.2
    decoded = network.decode(jnp.eye(K), jnp.zeros((K, 3)))
    assert (np.asarray(decoded > 0) == np.eye(K)).all()


def test_the_bayes_posterior_of_single_labels_enumerates_classes():
    method = make()
    params = start(method)
    labels = jnp.array([0, 3, 2, 1, 1, 0])
    posterior = method.posterior(params, (), {"logits": LOGITS}, {"noisy_label": labels})
    network = rebuild(params)
    noisy = jax.nn.one_hot(labels, K)
    p = 1 / (1 + np.exp(-np.asarray(LOGITS, np.float64)))
    mean, _ = network.quality(noisy, jax.nn.sigmoid(LOGITS))
    joint = np.zeros((6, K))
    for k in range(K):
        z = jnp.broadcast_to(jax.nn.one_hot(k, K), (6, K))
        likelihood = np.exp(-np.asarray(binary_cross_entropy(network.decode(z, mean), noisy), np.float64))
        prior = np.prod(np.where(np.arange(K) == k, p, 1 - p), axis=1)
        joint[:, k] = prior * likelihood
    expected = joint / joint.sum(1, keepdims=True)
    np.testing.assert_allclose(posterior.candidates["bayes"].probs, expected, rtol=1e-4, atol=1e-6)


def test_the_bayes_posterior_of_vectors_is_exact_where_classes_do_not_interact():
    """With a decoder that keeps classes apart, one class at a time is the exact posterior: 2^K enumeration."""
    method = make()
    params = start(method)
    apart = {name: jax.tree.map(jnp.zeros_like, layer) for name, layer in params.items()}
    eye = jnp.concatenate([jnp.eye(K), -jnp.eye(K)], axis=1)
    apart["decode_in"]["kernel"] = apart["decode_in"]["kernel"].at[:K, : 2 * K].set(eye)
    apart["decode_mid"]["kernel"] = apart["decode_mid"]["kernel"].at[: 2 * K, : 2 * K].set(jnp.eye(2 * K))
    apart["decode_out"]["kernel"] = apart["decode_out"]["kernel"].at[: 2 * K].set(3.0 * eye.T)
    apart["decode_out"]["bias"] = jnp.full(K, -1.0)
    bayes = method.posterior(apart, (), {"logits": LOGITS}, {"noisy_label": NOISY}).candidates["bayes"].probs
    network = rebuild(apart)
    p = 1 / (1 + np.exp(-np.asarray(LOGITS, np.float64)))
    marginal, total = np.zeros((6, K)), np.zeros((6, 1))
    for bits in np.ndindex(*(2,) * K):
        z = np.broadcast_to(np.array(bits, np.float32), (6, K))
        likelihood = np.exp(-np.asarray(binary_cross_entropy(network.decode(z, jnp.zeros((6, 3))), NOISY), np.float64))
        joint = (np.prod(np.where(z > 0, p, 1 - p), axis=1) * likelihood)[:, None]
        marginal += joint * z
        total += joint
    np.testing.assert_allclose(bayes, marginal / total, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("noisy", [NOISY, jnp.array([0, 3, 2, 1, 1, 0])])
def test_the_posterior_is_finite_at_extreme_logits(noisy):
    method = make()
    params = start(method)
    posterior = method.posterior(params, (), {"logits": LOGITS * 1e4}, {"noisy_label": noisy})
    for leaf in jax.tree.leaves(posterior):
        assert np.isfinite(leaf).all()
    value, gradient = jax.value_and_grad(lambda x: mean_loss(method, params, x, noisy))(LOGITS * 1e4)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    if noisy.ndim == 1:
        np.testing.assert_allclose(posterior.candidates["additive"].probs.sum(-1), 1, rtol=1e-5)


def test_the_papers_schedule():
    schedule = paper_schedule(PAPER_STEPS)
    assert schedule(0) == 1
    assert schedule(10_000) == pytest.approx(np.exp(-0.3), rel=1e-5)
    assert schedule(30_000) == 0.5
    shrunk = paper_schedule(1000, floor=0.0)
    assert shrunk(100) == pytest.approx(np.exp(-3e-5 * PAPER_STEPS / 10), rel=1e-5)
    assert paper_schedule(1000, rate=0.01, floor=0.0)(100) == pytest.approx(np.exp(-1), rel=1e-5)


def train_on_clusters(rho: optax.Schedule, steps: int = 400) -> np.ndarray:
    """Three well-separated classes, 20 % flips, a linear classifier, a random start: which predictions are right."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 600)
    centres = np.array([[3.0, -2], [-3, -2], [0, 3]])
    x = np.concatenate([centres[truth] + rng.normal(0, 0.5, (600, 2)), np.ones((600, 1))], axis=1)
    x = jnp.asarray(x, jnp.float32)
    noisy = jnp.asarray(np.where(rng.uniform(size=600) < 0.2, (truth + 1) % 3, truth))
    method = can(3, temperature=constant(0.5), rho=rho, heads=Heads(2, 16, 16, "random"))
    params = {"model": jnp.zeros((3, 3)), "method": method.init(jax.random.key(0), {}, 3, 600)[0]}
    optimizer = optax.sgd(0.1, momentum=0.9)

    def step(carry, i):
        params, opt_state = carry

        def objective(params):
            outputs = {"logits": x @ params["model"]}
            batch = {"noisy_label": noisy, "index": jnp.arange(600)}
            key = jax.random.fold_in(jax.random.key(1), i)
            return method.loss(key, params["method"], (), outputs, batch, i)[0].mean()

        updates, opt_state = optimizer.update(jax.grad(objective)(params), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(steps)))((params, optimizer.init(params)))
    return np.argmax(np.asarray(x @ params["model"]), axis=1) == truth


def test_without_rho_the_order_of_classes_is_lost_and_the_schedule_keeps_it():
    lost = train_on_clusters(constant(0.0)).mean()
    kept = train_on_clusters(paper_schedule(400)).mean()
    assert kept > 0.95
    assert lost < 0.6


def test_bad_options_are_named():
    with pytest.raises(ValueError, match="lambda"):
        make(regularizer=-0.1)
    with pytest.raises(ValueError, match="`samples` must be at least 1"):
        make(samples=0)
    with pytest.raises(ValueError, match="at least 2K = 8"):
        make(heads=Heads(encoder_width=4))


@pytest.mark.parametrize("classes", [3, 50])
def test_widths_suit_any_number_of_classes(classes):
    network = nnx.eval_shape(lambda: NoiseNetwork(classes, Heads(), rngs=nnx.Rngs(0)))
    assert network.add_out.kernel.shape == (max(64, 2 * classes), classes)
    assert network.decode_mid.kernel.shape == (max(64, 2 * classes),) * 2
