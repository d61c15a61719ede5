import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.mixture import GaussianMixture

from nlx.arguments import ArgumentError
from nlx.data.prepare import preparer, several
from nlx.methods.divide_mix import Clean, divide_mix, lower_of_two
from nlx.methods.plain import cross_entropy, plain
from nlx.models import build, mixed_pair, prepared
from nlx.training.mesh import make_mesh
from nlx.training.trainer import Trainer

RNG = np.random.default_rng(0)
B, K, T = 6, 3, 0.5
GIVEN = np.array([0, 2, 1, 1, -1, 0])  # one is missing
TRUSTED = np.array([-1, -1, 2, -1, -1, -1])
CLEAN = RNG.uniform(size=(B, 2))
GUESS, MIXED = RNG.normal(0, 2, (B, 2, 2, K)), RNG.normal(0, 2, (B, 2, 2, K))
WEIGHT, MATE = RNG.uniform(0.5, 1, (B, 2)), RNG.integers(0, B, (B, 2))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def expected(mixed, ramp):
    """Equations 3 to 12 in float64, example by example."""
    guess, s, total = softmax(GUESS), softmax(mixed), 0.0
    for net in (0, 1):
        target, labelled = np.zeros((B, K)), np.zeros(B, bool)
        for i in range(B):
            w, label = CLEAN[i, 1 - net], GIVEN[i]
            if TRUSTED[i] >= 0:
                w, label = 1.0, TRUSTED[i]
            labelled[i] = label >= 0 and w > 0.5
            mean = guess[i, :, net].mean(0)
            raw = w * np.eye(K)[label] + (1 - w) * mean if labelled[i] else guess[i].mean((0, 1))
            target[i] = raw ** (1 / T) / (raw ** (1 / T)).sum()
        supervised, drawn = [], []
        for i in range(B):
            for view in (0, 1):
                w = WEIGHT[i, view]
                y, p = w * target[i] + (1 - w) * target[MATE[i, view]], s[i, view, net]
                (supervised if labelled[i] else drawn).append(
                    -(y * np.log(p)).sum() if labelled[i] else ((p - y) ** 2).mean()
                )
        spread = -np.log(K * s[:, :, net].mean((0, 1))).mean()
        total += np.mean(supervised) + ramp * np.mean(drawn) + spread
    return total


@pytest.mark.parametrize(("step", "ramp"), [(15, 2.0), (40, 4.0)])
def test_the_loss_and_its_gradient_follow_the_paper(step, ramp):
    method = divide_mix(warm_up=1, unlabelled_weight=4.0, start=10, rise=10)
    batch = {"noisy_label": jnp.asarray(GIVEN), "trusted_label": jnp.asarray(TRUSTED)}

    def loss(mixed):
        outputs = {
            "logits": jnp.zeros((B, K)),
            "guess_logits": jax.nn.log_softmax(jnp.asarray(GUESS, jnp.float32)),
            "mixed_logits": mixed,
            "mix_weight": jnp.asarray(WEIGHT, jnp.float32),
            "mix_with": jnp.asarray(MATE),
        }
        rows = Clean(jnp.asarray(CLEAN, jnp.float32))
        return jnp.mean(method.loss(jax.random.key(0), {}, rows, outputs, batch, jnp.int32(step))[0])

    value, slope = jax.value_and_grad(loss)(jnp.asarray(MIXED, jnp.float32))
    np.testing.assert_allclose(value, expected(MIXED, ramp), rtol=1e-5)
    for at in list(np.ndindex(MIXED.shape))[::5]:
        moved = np.zeros_like(MIXED)
        moved[at] = 1e-5
        numeric = (expected(MIXED + moved, ramp) - expected(MIXED - moved, ramp)) / 2e-5
        np.testing.assert_allclose(slope[at], numeric, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("lower", "apart"), [(0.8, 1.5), (0.6, 0.4)])
def test_two_gaussians_are_those_of_scikit_learn(lower, apart):
    n = 2000
    low = RNG.uniform(size=n) < lower
    values = np.where(low, RNG.gamma(2, 0.1, n), apart + RNG.normal(0, 0.3, n)).astype(np.float32)
    unit = ((values - values.min()) / (values.max() - values.min()))[:, None]
    theirs = GaussianMixture(2, max_iter=200, tol=1e-6, reg_covar=5e-4, random_state=0).fit(unit)
    wanted = theirs.predict_proba(unit)[:, theirs.means_.argmin()]
    counts = np.arange(n + 10) < n  # padded rows say nothing
    ours = jax.jit(lower_of_two)(np.append(values, np.full(10, 99.0, np.float32)), counts)
    assert np.abs(ours[:n] - wanted).max() < 0.05
    assert np.mean((ours[:n] > 0.5) != (wanted > 0.5)) < 0.005
    assert (ours[n:] == 0).all()


def test_equal_losses_are_all_right_and_extreme_ones_finite():
    np.testing.assert_array_equal(lower_of_two(jnp.ones(5), jnp.arange(5) < 4), [1, 1, 1, 1, 0])
    found = lower_of_two(jnp.asarray([0.0, 0.0, 1e4, 1e30]), jnp.ones(4, bool))
    assert np.isfinite(found).all()
    assert found[0] > 0.9 > 0.1 > found[3]
    assert (lower_of_two(jnp.ones(3), jnp.zeros(3, bool)) == 0).all()


def test_a_refresh_tells_right_labels_of_each_network():
    method, n = divide_mix(warm_up=3), 200
    true = RNG.integers(0, K, n)
    given = np.where(np.arange(n) < 60, (true + 1) % K, true)
    logits = np.stack([4 * np.eye(K)[true], 4 * np.eye(K)[given]], axis=1) + RNG.normal(0, 0.5, (n, 2, K))
    given = np.append(given, [-1, -1])  # padding
    features = jnp.asarray(np.vstack([logits.reshape(n, -1), np.zeros((2, 2 * K))]), jnp.float32)
    memory = method.init(jax.random.key(0), {}, K, n + 2)[1]
    clean = method.refresh(jax.random.key(0), memory, features, {"noisy_label": jnp.asarray(given)}).probability
    assert (clean[:60, 0] < 0.1).all()
    assert (clean[60:n, 0] > 0.9).all()
    assert (clean[n:] == 0).all()
    assert [method.refresh_after(epochs) for epochs in (2, 3, 4)] == [False, True, True]


def test_views_are_mixed_as_it_is_told():
    network = build("mlp", (4,), K, widths=(8,), dropout=0.0)
    model = mixed_pair(network, 1.0)
    params, stats = model.init(jax.random.key(0))
    views = jnp.asarray(RNG.normal(size=(B, 2, 4)), jnp.float32)
    outputs, _ = model.apply(params, stats, views, True, jax.random.key(1))
    assert (outputs["mix_weight"] >= 0.5).all()
    found = []
    for i, v in np.ndindex(B, 2):
        w, mate = outputs["mix_weight"][i, v], outputs["mix_with"][i, v]
        both = [w * views[i, v] + (1 - w) * views[mate, other] for other in (0, 1)]
        each = network.apply_test(params["a"], stats["a"], jnp.stack(both))["logits"]
        found.append(np.abs(np.asarray(each) - np.asarray(outputs["mixed_logits"][i, v, 0])).max(1).min())
    assert max(found) < 1e-5
    seen = network.apply_test(params["b"], stats["b"], views[:, 1])["logits"]
    np.testing.assert_allclose(outputs["guess_logits"][:, 1, 1], jax.nn.log_softmax(seen), rtol=1e-4, atol=1e-5)
    alone = model.apply(params, stats, views[:, 0], False, None)[0]
    np.testing.assert_allclose(alone["features"], alone["pair_logits"].reshape(B, -1))
    slope = jax.grad(lambda p: model.apply(p, stats, views, True, jax.random.key(1))[0]["guess_logits"].sum())(params)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(slope))


def test_two_copies_are_changed_each_for_itself():
    pictures = RNG.integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    prepare = several(preparer(np.zeros(3), np.ones(3), augmentation="crop_flip"), 2)
    seen = prepare(pictures, jax.random.key(0))
    assert seen.shape == (40, 2, 8, 8, 3)
    assert np.mean(np.any(seen[:, 0] != seen[:, 1], axis=(1, 2, 3))) > 0.5
    np.testing.assert_array_equal(prepare(pictures, None), pictures.astype(np.float32))


@pytest.mark.slow
def test_it_memorizes_less_than_one_network():
    true = RNG.integers(0, 3, 300)
    x = (2.5 * np.eye(3, 20)[true] + RNG.normal(size=(300, 20))).astype(np.float32)
    noisy = np.where(RNG.uniform(size=300) < 0.4, RNG.integers(0, 3, 300), true)
    network, prepare = build("mlp", (20,), 3, widths=(64,)), preparer(np.zeros(20), np.ones(20))

    def right(model, method, belief):
        trainer = Trainer(model, method, optax.sgd(0.1), batch_size=50, mesh=make_mesh(jax.devices()[:1]))
        state = trainer.fit((x, noisy), jax.random.key(0), 40).state
        return np.mean(trainer.posterior(state, (x, noisy)).candidates[belief].probs.argmax(1) == true)

    model = prepared(mixed_pair(network), several(prepare, 2))
    together = right(model, divide_mix(warm_up=8), "refined")
    assert together > right(prepared(network, prepare), plain(cross_entropy), "classifier") + 0.05


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"warm_up": 0}, "`warm_up` and `rise` must be at least 1"),
        ({"warm_up": 1, "temperature": 0.0}, "`temperature` above 0"),
        ({"warm_up": 1, "threshold": 1.5}, r"`threshold` in \[0, 1\]"),
        ({"warm_up": 1, "unlabelled_weight": float("nan")}, "`unlabelled_weight` at least 0"),
    ],
)
def test_numbers_out_of_range_are_told(options, told):
    with pytest.raises(ArgumentError, match=told):
        divide_mix(**options)


def test_other_models_and_inputs_are_refused():
    network, mesh = build("mlp", (3,), 2, widths=(4,)), make_mesh(jax.devices()[:1])
    data = np.zeros((8, 3), np.float32), np.arange(8) % 2
    for model, told in ((network, "make the model by `nlx.models.mixed_pair`"), (mixed_pair(network), "two views")):
        trainer = Trainer(model, divide_mix(warm_up=1), optax.sgd(0.1), batch_size=2, mesh=mesh)
        with pytest.raises(ArgumentError, match=told):
            trainer.fit(data, jax.random.key(0), 1)
    with pytest.raises(ArgumentError, match="`alpha` must be above 0"):
        mixed_pair(network, 0.0)
