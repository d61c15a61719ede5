import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import roc_auc_score

from nlx.arguments import ArgumentError
from nlx.data import Split
from nlx.methods.clean_net import (
    Relevance,
    class_embeddings,
    clean_net,
    cosine,
    first_net,
    terms,
)
from nlx.methods.method import KNOWN_WRONG
from nlx.methods.plain import cross_entropy, plain
from nlx.methods.self_learning import corrections
from nlx.models import build
from nlx.training.mesh import by_example, make_mesh, replicated
from nlx.training.trainer import Trainer

B, K, V, F, D = 12, 3, 4, 5, 7
RNG = np.random.default_rng(0)
NET = first_net(jax.random.key(1), F, D)
X, REFERENCE = RNG.normal(size=(B, F)), RNG.normal(size=(K, V, F))
VALID = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], bool)
LABEL = np.array([0, 1, 0, 1, 2, 0] * 2)
RIGHT, WRONG = np.arange(B) % 4 == 0, np.arange(B) % 4 == 1


def always(**options):
    return clean_net(3, refresh_after=lambda epochs: True, **options)


def reference(net, balance=2.0, margin=0.1):
    """Verified, pseudo and reconstruction loss of each example, in float64 and one number after the other."""
    layer = lambda name, x: net[name]["weights"].T @ x + net[name]["bias"]  # noqa: E731
    classes = []
    for rows, valid in zip(REFERENCE, VALID, strict=True):
        encoded = [layer("reference", np.tanh(layer("reference_hidden", row))) for row in rows[valid]]
        scores = [np.exp(np.tanh(layer("attention", h)) @ net["context"]) for h in encoded]
        classes.append(sum(s * h for s, h in zip(scores, encoded, strict=True)) / sum(scores) if encoded else None)
    found = []
    for x, label, right, wrong in zip(X, LABEL, RIGHT, WRONG, strict=True):
        q, s = layer("query", np.tanh(layer("query_hidden", x))), classes[label]
        c = 0.0 if s is None else q @ s / np.sqrt((q @ q) * (s @ s))
        again = layer("decoder", np.tanh(layer("decoder_hidden", q)))
        verified = 1 - c if right else balance * max(0.0, c - margin) if wrong else 0.0
        pseudo = 0.0 if right or wrong or c < margin else 1 - c
        found.append([verified, pseudo, np.mean((x - again) ** 2)])
    return np.array(found)


def ours(net, x=X, right=RIGHT, wrong=WRONG):
    to = class_embeddings(net, jnp.asarray(REFERENCE, jnp.float32), jnp.asarray(VALID))[jnp.asarray(LABEL)]
    return terms(net, jnp.asarray(x, jnp.float32), to, jnp.asarray(right), jnp.asarray(wrong), jnp.float32(2.0), 0.1)


def test_terms_and_their_gradients_follow_the_paper():
    rng = np.random.default_rng(3)
    net = jax.tree.map(lambda p: np.asarray(p, np.float64) + rng.normal(0, 0.3, p.shape), NET)
    wanted = reference(net)
    single = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), net)
    np.testing.assert_allclose(np.stack(ours(single), 1), wanted, rtol=1e-4, atol=1e-6)
    assert (wanted.max(0) > 0.05).all()  # nothing is compared at 0 alone
    assert wanted[WRONG, 0].max() > 0.05
    for part in range(3):
        slope = jax.grad(lambda net, part=part: jnp.sum(ours(net)[part]))(single)
        for path, leaf in jax.tree_util.tree_leaves_with_path(slope):
            at, moved = tuple(rng.integers(0, leaf.shape)), [jax.tree.map(np.copy, net) for _ in range(2)]
            for copy, step in zip(moved, (1e-6, -1e-6), strict=True):
                dict(jax.tree_util.tree_leaves_with_path(copy))[path][at] += step
            numeric = (reference(moved[0]) - reference(moved[1])).sum(0)[part] / 2e-6
            np.testing.assert_allclose(leaf[at], numeric, rtol=1e-3, atol=1e-4, err_msg=f"{part} {path}")


def test_who_learns_from_what():
    slopes = [jax.grad(lambda net, part=part: jnp.sum(ours(net)[part]))(NET) for part in range(3)]
    moves = [
        {name for name, leaf in slope.items() if max(jnp.abs(x).max() for x in jax.tree.leaves(leaf)) > 0}
        for slope in slopes
    ]
    decoder = {"decoder", "decoder_hidden"}
    assert moves[0] == NET.keys() - decoder
    assert moves[2] == {"query", "query_hidden"} | decoder


def test_references_count_by_attention_in_any_order_and_padding_does_not():
    x, valid = jnp.asarray(REFERENCE, jnp.float32), jnp.asarray(VALID)
    whole = class_embeddings(NET, x, valid)
    np.testing.assert_allclose(class_embeddings(NET, x[:, ::-1], valid[:, ::-1]), whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(class_embeddings(NET, jnp.where(valid[..., None], x, 99.0), valid), whole)
    assert (whole[2] == 0).all()
    one = class_embeddings(NET, x[:, :1], valid[:, :1])[:2]
    alone = jnp.asarray([[[1.0] * F]] * 2) * x[:2, :1]
    np.testing.assert_array_equal(one, class_embeddings(NET, alone, jnp.ones((2, 1), bool)))
    mean = class_embeddings({**NET, "context": jnp.zeros(D)}, x, valid)
    each = class_embeddings(NET, x.reshape(-1, 1, F), jnp.ones((K * V, 1), bool)).reshape(K, V, D)
    np.testing.assert_allclose(mean[1], (each[1, 0] + each[1, 2]) / 2, rtol=1e-5, atol=1e-6)


def test_the_cosine_is_that_of_the_angle_and_smooth_at_zero():
    a, b = jnp.asarray([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0]]), jnp.asarray([[6.0, 8.0], [0.0, 5.0], [-1.0, 0.0]])
    np.testing.assert_allclose(cosine(a, b), [1, 0, -1], atol=1e-6)
    slopes = jax.grad(lambda a, b: cosine(a, b).sum(), (0, 1))(jnp.zeros((2, 3)), jnp.asarray([[0.0] * 3, [1.0] * 3]))
    chex.assert_tree_all_finite(slopes)


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_losses_and_gradients_are_finite_at_extremes(scale):
    value, slope = jax.value_and_grad(lambda net: sum(jnp.sum(part) for part in ours(net, x=X * scale)))(NET)
    chex.assert_tree_all_finite((value, slope))
    logits = jnp.sign(jnp.asarray(RNG.normal(size=(len(GIVEN), K)), jnp.float32)) * 1e4
    chex.assert_tree_all_finite(jax.value_and_grad(lambda x: classified(x)[0].sum())(logits))


GIVEN, TRUSTED = np.array([0, 1, 2, 0, 1, -1]), np.array([-1, -1, 2, 1, -2, -1])
COSINE = np.array([0.7, -0.4, -0.9, 0.2, 0.8, 0.0])


def classified(logits):
    batch = {"noisy_label": jnp.asarray(GIVEN, jnp.int32), "trusted_label": jnp.asarray(TRUSTED, jnp.int32)}
    rows = Relevance(jnp.asarray(COSINE, jnp.float32))
    return always().loss(jax.random.key(0), {}, rows, {"logits": logits}, batch, jnp.int32(0))


def test_an_example_counts_by_its_relevance_and_a_trusted_label_in_full():
    logits = RNG.normal(0, 2, (len(GIVEN), K))
    nats = np.log(np.exp(logits).sum(1, keepdims=True)) - logits
    # An irrelevant label, a known outlier and an example without a label count for nothing.
    wanted = [0.7 * nats[0, 0], 0, nats[2, 2], nats[3, 1], 0, 0]
    losses, _, metrics = classified(jnp.asarray(logits, jnp.float32))
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    np.testing.assert_allclose(metrics["relevance"], np.maximum(COSINE, 0), rtol=1e-6)
    slope = jax.grad(lambda x: classified(x)[0].sum())(jnp.asarray(logits, jnp.float32))
    p, weight = np.exp(-nats), np.array([0.7, 0, 1, 1, 0, 0])[:, None]
    label = np.eye(K)[[0, 1, 2, 1, 0, 0]]
    np.testing.assert_allclose(slope, weight * (p - label), rtol=1e-4, atol=1e-6)


def clusters(n=320, wrong=0.3, trusted=0.2):
    rng = np.random.default_rng(1)
    true = rng.integers(0, 3, n).astype(np.int32)
    x = (3.0 * np.eye(3, 16)[true] + rng.normal(size=(n, 16))).astype(np.float32)
    other = (true + rng.integers(1, 3, n)).astype(np.int32) % 3
    given = np.where(rng.uniform(size=n) < wrong, other, true)
    return x, true, given, np.where(rng.uniform(size=n) < trusted, true, -1).astype(np.int32)


def relevance(x, given, trusted, method=None, mesh=None):
    labels = {"noisy_label": jnp.asarray(given), "trusted_label": jnp.asarray(trusted)}
    args = Relevance(jnp.ones(len(x))), jnp.asarray(x), labels
    refresh = (method or always()).refresh
    if mesh is None:
        return np.asarray(jax.jit(refresh)(jax.random.key(0), *args).cosine)
    placed = jax.device_put(args, by_example(mesh))
    with jax.set_mesh(mesh):
        jitted = jax.jit(refresh, out_shardings=by_example(mesh))
        return np.asarray(jitted(jax.device_put(jax.random.key(0), replicated(mesh)), *placed).cosine)


@pytest.mark.slow
def test_relevance_ranks_wrong_labels_that_nobody_verified():
    x, true, given, trusted = clusters()
    c = relevance(x, given, trusted)
    unknown, right = trusted < 0, given == true
    assert roc_auc_score(right[unknown], c[unknown]) > 0.9
    assert np.median(c[unknown & right]) > 0.7
    assert np.median(c[unknown & ~right]) < 0.3


def test_verified_labels_that_are_all_right_tell_wrong_ones_as_well():
    x, true, given, trusted = clusters()
    c = relevance(x, given, np.where(given == true, trusted, -1))
    unknown, right = trusted < 0, given == true
    assert roc_auc_score(right[unknown], c[unknown]) > 0.9
    assert np.median(c[unknown & right]) > 0.7
    assert np.median(c[unknown & ~right]) < 0.3


@pytest.mark.slow
def test_labels_verified_as_wrong_teach_as_much_as_those_whose_true_label_is_known():
    x, true, given, trusted = clusters()
    wrong_alone = np.where((trusted >= 0) & (given != true), KNOWN_WRONG, trusted)
    np.testing.assert_array_equal(relevance(x, given, wrong_alone), relevance(x, given, trusted))


@pytest.mark.slow
def test_a_turn_on_eight_devices_is_one_on_one_and_padding_says_nothing():
    x, _, given, trusted = clusters()
    x[-5:], given[-5:], trusted[-5:] = 1e3, -1, -1
    method = always(steps=20, references=5)
    one = relevance(x, given, trusted, method)
    np.testing.assert_allclose(relevance(x, given, trusted, method, make_mesh(jax.devices())), one, atol=2e-3)
    assert (one[-5:] == 0).all()
    shorter = x.copy()
    shorter[-5:] = -7.0
    np.testing.assert_array_equal(relevance(shorter, given, trusted, method), one)


@pytest.mark.parametrize("known", ["none", "all", "no wrong one"])
def test_a_turn_is_finite_whatever_is_verified_and_features_say(known):
    x, true, given, trusted = clusters(n=64)
    trusted = {"none": np.full_like(true, -1), "all": true, "no wrong one": np.where(given == true, trusted, -1)}[known]
    method = always(steps=5, references=80)
    for features in (x, np.zeros_like(x), x * 1e4):
        c = relevance(features, given, trusted, method)
        assert np.isfinite(c).all()
        assert (np.abs(c) <= 1 + 1e-5).all()


@pytest.mark.slow
def test_training_and_turns_alternate_and_fewer_labels_are_memorized():
    x, true, given, trusted = clusters(n=400, wrong=0.4)
    data = Split(x, given, true, trusted=trusted >= 0)
    model, unknown = build("mlp", (16,), 3, widths=(64,)), trusted < 0

    def train(method, epochs=60):
        trainer = Trainer(model, method, optax.sgd(0.3), batch_size=50, mesh=make_mesh(jax.devices()[:1]))
        fitted = trainer.fit(data, jax.random.key(0), epochs)
        return fitted.history, trainer.posterior(fitted.state, data)

    history, judged = train(clean_net(3, refresh_after=corrections(4, 20)))
    memorized = train(plain(cross_entropy))[1]
    right = [p.candidates["classifier"].probs.argmax(1)[unknown] == true[unknown] for p in (judged, memorized)]
    assert np.mean(right[0]) > np.mean(right[1]) + 0.05
    column = judged.columns["relevance"].values
    assert ((column >= 0) & (column <= 1)).all()
    assert roc_auc_score((given == true)[unknown], column[unknown]) > 0.8
    assert [row["relevance"] == 1 for row in history[:6]] == [True] * 4 + [False] * 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"references": 0}, "`references`, `members`, `width` and `steps` must be at least 1"),
        ({"rate": 0.0}, "`rate` above 0"),
        ({"margin": 1.0}, r"`margin` in \[0, 1\)"),
        ({"pseudo_weight": -1.0}, "`reconstruction_weight` and `pseudo_weight` must be at least 0"),
        ({"reconstruction_weight": float("nan")}, "`reconstruction_weight` and `pseudo_weight` must be at least 0"),
    ],
)
def test_numbers_out_of_range_are_told(options, told):
    with pytest.raises(ArgumentError, match=told):
        always(**options)


def test_data_without_trusted_labels_are_refused():
    trainer = Trainer(
        build("mlp", (3,), 2, widths=(4,)), always(), optax.sgd(0.1), batch_size=2, mesh=make_mesh(jax.devices()[:1])
    )
    with pytest.raises(ArgumentError, match=r"learns from trusted labels: add `clean_fraction`=0.1"):
        trainer.fit((np.zeros((8, 3), np.float32), np.arange(8) % 2), jax.random.key(0), 1)
