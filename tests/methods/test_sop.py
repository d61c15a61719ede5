import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nlx.arguments import ArgumentError
from nlx.methods.plain import cross_entropy, plain
from nlx.methods.sop import Excuse, sop
from nlx.models import build
from nlx.training.mesh import make_mesh
from nlx.training.trainer import Trainer

B, K = 6, 3
RNG = np.random.default_rng(0)


def reference(u, v, logits, label):
    """Cross-entropy and squared error of one example, in float64."""
    p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    y = np.eye(K)[label]
    added, taken = min(u * u, 1) * y, np.minimum(v * v, 1) * (1 - y)
    mended = np.maximum(p + added - taken, 1e-4)
    hard = np.eye(K)[p.argmax()]
    return -np.log(mended[label] / mended.sum()), np.sum((hard + added - taken - y) ** 2)


def test_loss_and_memory_follow_the_paper():
    logits, labels = RNG.normal(0, 2, (B, K)), np.array([0, 2, 1, 1, 0, -1])
    u, v = RNG.uniform(0.1, 0.6, B), RNG.uniform(0.1, 0.4, (B, K))
    rows = Excuse(jnp.asarray(u, jnp.float32), jnp.asarray(v, jnp.float32))
    batch, step = {"noisy_label": jnp.asarray(labels), "index": jnp.arange(B)}, jnp.int32(0)

    def loss(logits):
        out = sop(given_rate=0.5, others_rate=2.0).loss(jax.random.key(0), {}, rows, {"logits": logits}, batch, step)
        return out[0].sum(), out

    slope, (losses, after, metrics) = jax.grad(loss, has_aux=True)(jnp.asarray(logits, jnp.float32))
    np.testing.assert_allclose(metrics["unexplained"], u * u, rtol=1e-5)
    step = 1e-6
    for i in range(B - 1):
        of = lambda du=0.0, dv=0.0, dx=0.0, i=i: reference(u[i] + du, v[i] + dv, logits[i] + dx, labels[i])  # noqa: E731
        np.testing.assert_allclose(losses[i], of()[0], rtol=1e-5)
        sloped = (sum(of(du=step)) - sum(of(du=-step))) / (2 * step)
        np.testing.assert_allclose(after.given[i], u[i] - 0.5 * sloped / B, rtol=1e-4)
        for k in range(K):
            at = step * np.eye(K)[k]
            squares = (of(dv=at)[1] - of(dv=-at)[1]) / (2 * step)  # v follows the squared error alone
            np.testing.assert_allclose(after.others[i, k], v[i, k] - 2.0 * squares / B, rtol=1e-4)
            np.testing.assert_allclose(slope[i, k], (of(dx=at)[0] - of(dx=-at)[0]) / (2 * step), rtol=1e-3, atol=1e-5)
    assert losses[-1] == 0  # there is no label
    np.testing.assert_array_equal(after.others[-1], rows.others[-1])


def test_extremes_are_finite_and_what_is_unexplained_is_a_share():
    logits = jnp.asarray([[1e4, -1e4, 0], [-1e4, 1e4, 0]], jnp.float32)
    rows, batch = Excuse(jnp.full(2, 3.0), jnp.full((2, K), 3.0)), {"noisy_label": jnp.array([0, 0])}
    loss = lambda x: sop().loss(jax.random.key(0), {}, rows, {"logits": x}, batch, jnp.int32(0))[0].sum()  # noqa: E731
    assert np.isfinite(loss(logits))
    assert np.isfinite(jax.grad(loss)(logits)).all()
    column = sop().posterior({}, rows, {"logits": logits}, batch).columns["unexplained"]
    np.testing.assert_array_equal(column.values, 1)


def test_it_memorizes_less_and_finds_the_labels_that_are_wrong():
    true = RNG.integers(0, 3, 300)
    x = (2.5 * np.eye(3, 20)[true] + RNG.normal(size=(300, 20))).astype(np.float32)
    noisy = np.where(RNG.uniform(size=300) < 0.4, RNG.integers(0, 3, 300), true)

    def train(method):
        model, mesh = build("mlp", (20,), 3, widths=(64,)), make_mesh(jax.devices()[:1])
        trainer = Trainer(model, method, optax.sgd(0.2), batch_size=50, mesh=mesh)
        fitted = trainer.fit((x, noisy), jax.random.key(0), 60)
        return trainer.posterior(fitted.state, (x, noisy))

    cleaned, memorized = train(sop(given_rate=10.0)), train(plain(cross_entropy))
    right = [p.candidates["classifier"].probs.argmax(1) == true for p in (cleaned, memorized)]
    assert np.mean(right[0]) > np.mean(right[1]) + 0.05
    unexplained = np.asarray(cleaned.columns["unexplained"].values)
    assert unexplained[noisy != true].mean() > 2 * unexplained[noisy == true].mean()


@pytest.mark.parametrize("options", [{"given_rate": -1.0}, {"others_rate": float("nan")}])
def test_rates_out_of_range_are_told(options):
    with pytest.raises(ArgumentError, match="`given_rate` and `others_rate` must be at least 0"):
        sop(**options)


def test_numbers_of_many_examples_are_begun_without_copies_of_them():
    n, k = 5000, 1000
    begin = jax.jit(lambda key: sop().init(key, {}, k, n)[1])
    taken = begin.lower(jax.random.key(0)).compile().memory_analysis().temp_size_in_bytes
    assert taken < n * k
    rows = begin(jax.random.key(0))
    for x in (rows.given, rows.others[:, :k]):
        assert float(jnp.mean(x)) == pytest.approx(0, abs=5e-10)
        assert float(jnp.std(x)) == pytest.approx(1e-8, rel=0.05)
    assert abs(np.corrcoef(rows.given, rows.others[:, 0])[0, 1]) < 0.05
