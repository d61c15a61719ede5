import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nlx.arguments import ArgumentError
from nlx.methods.joint_optimization import Said, joint_optimization
from nlx.methods.plain import cross_entropy, plain
from nlx.models import build
from nlx.training.mesh import make_mesh
from nlx.training.trainer import Trainer

RNG = np.random.default_rng(0)
B, K = 5, 3
PRIOR = np.array([0.5, 0.3, 0.2])
LABELS = np.array([0, 2, 1, 1, 0])


def objective(logits, labels):
    """Equations 4 to 9 in float64, labels being probabilities."""
    s = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.where(labels > 0, labels * np.log(labels / s), 0).sum(axis=1)
    spread = (PRIOR * np.log(PRIOR / s.mean(axis=0))).sum()
    return divergence + 0.7 * spread - 0.4 * (s * np.log(s)).sum(axis=1), s


@pytest.mark.parametrize("step", [9, 10])
def test_loss_gradient_and_memory_follow_the_paper(step):
    logits, before = RNG.normal(0, 2, (B, K)), RNG.dirichlet(np.ones(K), B) * 0.6
    before[4] = 0  # not visited yet
    labels = np.eye(K)[LABELS]
    if step == 10:
        labels[:4] = before[:4] / before[:4].sum(axis=1, keepdims=True)
    method = joint_optimization(start=10, prior=PRIOR, alpha=0.7, beta=0.4)
    rows, batch = Said(jnp.asarray(before, jnp.float32)), {"noisy_label": jnp.asarray(LABELS)}

    def loss(logits):
        out = method.loss(jax.random.key(0), {}, rows, {"logits": logits}, batch, jnp.int32(step))
        return jnp.mean(out[0]), out

    slope, (losses, after, _) = jax.grad(loss, has_aux=True)(jnp.asarray(logits, jnp.float32))
    expected, s = objective(logits, labels)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    np.testing.assert_allclose(after.mean, 0.9 * before + 0.1 * s, rtol=1e-4)
    for i, k in np.ndindex(B, K):
        at = np.zeros((B, K))
        at[i, k] = 1e-6
        numeric = (objective(logits + at, labels)[0].mean() - objective(logits - at, labels)[0].mean()) / 2e-6
        np.testing.assert_allclose(slope[i, k], numeric, rtol=1e-3, atol=1e-5)


def test_extremes_are_finite():
    logits = jnp.asarray([[1e4, -1e4, 0.0]] * B)
    method, rows = joint_optimization(start=0), Said(jnp.eye(K)[jnp.asarray(LABELS)])
    batch = {"noisy_label": jnp.asarray(LABELS)}
    loss = lambda x: method.loss(jax.random.key(0), {}, rows, {"logits": x}, batch, jnp.int32(1))[0].sum()  # noqa: E731
    assert np.isfinite(loss(logits))
    assert np.isfinite(jax.grad(loss)(logits)).all()


def test_it_memorizes_less_and_its_labels_are_its_predictions():
    true = RNG.integers(0, 3, 300)
    x = (2.5 * np.eye(3, 20)[true] + RNG.normal(size=(300, 20))).astype(np.float32)
    noisy = np.where(RNG.uniform(size=300) < 0.4, RNG.integers(0, 3, 300), true)

    def train(method, belief):
        mesh, model = make_mesh(jax.devices()[:1]), build("mlp", (20,), 3, widths=(64,))
        trainer = Trainer(model, method, optax.sgd(0.2), batch_size=50, mesh=mesh)
        fitted = trainer.fit((x, noisy), jax.random.key(0), 60)
        return trainer.posterior(fitted.state, (x, noisy)).candidates[belief].probs.argmax(1)

    cleaned = train(joint_optimization(start=60), "predictions")
    memorized = train(plain(cross_entropy), "classifier")
    assert np.mean(cleaned == true) > np.mean(memorized == true) + 0.05


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"start": -1}, "`start`, `alpha` and `beta` must be at least 0"),
        ({"start": 0, "momentum": 1.0}, r"`momentum` in \[0, 1\)"),
        ({"start": 0, "beta": float("nan")}, "must be at least 0"),
        ({"start": 0, "prior": [0.5, 0.6]}, "`prior` must be shares"),
    ],
)
def test_options_out_of_range_are_told(options, told):
    with pytest.raises(ArgumentError, match=told):
        joint_optimization(**options)


def test_a_prior_of_other_classes_is_refused():
    with pytest.raises(ArgumentError, match="`prior` has 3 classes, the data 4"):
        joint_optimization(start=0, prior=PRIOR).init(jax.random.key(0), {}, 4, 6)
