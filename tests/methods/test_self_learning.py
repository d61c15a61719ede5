import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from nlx import losses
from nlx.methods.method import KNOWN_OUTLIER, KNOWN_WRONG, chosen_candidate
from nlx.methods.self_learning import corrections, self_learning
from nlx.methods.verified import eligible

K, N = 4, 80
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
TRUE = RNG.integers(0, K, N)
NOISY = np.where(RNG.uniform(size=N) < 0.3, RNG.integers(0, K, N), TRUE).astype(np.int32)
FEATURES = (2 * np.eye(K, 6)[TRUE] + 0.3 * RNG.normal(size=(N, 6))).astype(np.float32)
LOGITS = jnp.asarray(RNG.normal(0, 2, (N, K)), jnp.float32)
BATCH = {"noisy_label": jnp.asarray(NOISY), "index": jnp.arange(N)}


@functools.cache
def make(**options):
    """One method for equal options, so that what is compiled once serves all tests."""
    return self_learning(K, **{"refresh_after": corrections(1), "prototypes": 3, "members": 64, **options})


def refreshed(method, features=FEATURES, labels=None, memory=None):
    labels = {"noisy_label": NOISY} if labels is None else labels
    memory = method.init(KEY, {}, K, len(features))[1] if memory is None else memory
    return jax.jit(method.refresh)(KEY, memory, features, labels)


def loss(method, memory, logits=LOGITS, batch=BATCH):
    rows = jax.tree.map(lambda leaf: leaf[batch["index"]], memory)
    return method.loss(KEY, {}, rows, {"logits": logits}, batch, jnp.int32(0))


def posterior(method, memory, logits=LOGITS):
    return jax.jit(method.posterior)({}, memory, {"logits": logits}, BATCH)


@pytest.fixture(scope="module")
def memory():
    return refreshed(make())


def rounded(leaf):
    return {"rtol": 1e-3, "atol": 1e-6} if leaf.dtype == np.float16 else {"atol": 1e-6}


def test_before_the_first_correction_it_is_plain_cross_entropy():
    memory = make().init(KEY, {}, K, N)[1]
    np.testing.assert_array_equal(loss(make(), memory)[0], losses.cross_entropy(LOGITS, NOISY))
    beliefs = posterior(make(), memory)
    for candidate in beliefs.candidates.values():
        np.testing.assert_allclose(candidate.probs, jax.nn.softmax(LOGITS), rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_loss_mixes_both_labels(alpha, memory):
    half = memory._replace(corrected=jnp.where(jnp.arange(N) % 2 == 0, memory.corrected, -1))
    values, _, metrics = jax.jit(lambda: loss(make(alpha=alpha), half))()
    logits, corrected = np.asarray(LOGITS, np.float64), np.asarray(half.corrected)
    for i in range(N):
        log_p = logits[i] - np.log(np.exp(logits[i]).sum())
        given, better = -log_p[NOISY[i]], -log_p[corrected[i]]
        expected = (1 - alpha) * given + alpha * better if i % 2 == 0 else given
        np.testing.assert_allclose(values[i], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(metrics["labels_changed"], (corrected >= 0) & (corrected != NOISY))


def test_the_gradient_is_the_prediction_less_the_mixed_label(memory):
    gradient = jax.grad(lambda x: loss(make(alpha=0.3), memory, x)[0].sum())(LOGITS)
    target = 0.7 * np.eye(K)[NOISY] + 0.3 * np.eye(K)[np.asarray(memory.corrected)]
    np.testing.assert_allclose(gradient, jax.nn.softmax(LOGITS) - target, atol=1e-6)
    check_grads(lambda x: loss(make(), memory, x)[0], (LOGITS,), order=1, modes=["rev"], atol=0.05, rtol=0.05)
    extreme = jnp.where(LOGITS > 0, 1e4, -1e4)
    assert np.isfinite(jax.grad(lambda x: loss(make(), memory, x)[0].sum())(extreme)).all()


def test_correction_finds_the_true_labels_of_planted_clusters(memory):
    assert (NOISY != TRUE).mean() > 0.2
    np.testing.assert_array_equal(memory.corrected, TRUE)
    assert (memory.margin > 0).all()
    np.testing.assert_array_equal(np.argmax(memory.scores, 1), TRUE)


@pytest.mark.parametrize("select", ["kmeans", "density_peaks"])
def test_other_ways_to_select(select):
    # Noise in the labels is a cluster too, and K-means gives it a prototype: one is enough to be outvoted.
    assert (refreshed(make(select=select, prototypes=1)).corrected == TRUE).mean() > (NOISY == TRUE).mean() + 0.1


def test_corrected_labels_belong_to_examples_not_to_places_in_a_batch():
    """A published attempt stored the labels in the order of a shuffled loader."""
    order = RNG.permutation(N)
    # All members are prototypes: of equally dense ones the first in the data would be taken, whatever the order.
    method = make(prototypes=64)
    memory = refreshed(method)
    shuffled = refreshed(method, FEATURES[order], {"noisy_label": NOISY[order]})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[order], **rounded(a)), shuffled, memory)
    batch = {name: rows[order] for name, rows in BATCH.items()}
    np.testing.assert_allclose(loss(method, memory, LOGITS[order], batch)[0], loss(method, memory)[0][order], rtol=1e-6)


def test_a_batch_changes_no_label(memory):
    """A published attempt corrected labels within the loop over batches, from features of half an epoch."""
    rows = jax.tree.map(lambda leaf: leaf[BATCH["index"]], memory)
    given_back = make().loss(KEY, {}, rows, {"logits": LOGITS}, BATCH, jnp.int32(0))[1]
    assert all(new is old for new, old in zip(given_back, rows, strict=True))


def test_first_and_last_correction(memory):
    turned = FEATURES[:, [1, 0, 2, 3, 4, 5]]
    later = refreshed(make(), turned, memory=memory)
    np.testing.assert_array_equal(later.first, memory.corrected)
    later = refreshed(make(), turned, {"noisy_label": RNG.permutation(NOISY)}, memory=memory)
    assert (later.corrected != memory.corrected).any()
    np.testing.assert_array_equal(later.first, memory.first)


@pytest.mark.parametrize("members", [64, 5])
def test_rows_that_pad_the_memory_are_ignored(members):
    method = make(members=members)
    padded = refreshed(
        method,
        np.concatenate([FEATURES, np.full((16, 6), 7, np.float32)]),
        {"noisy_label": np.concatenate([NOISY, np.full(16, -1, np.int32)])},
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[:N], b, **rounded(a)), padded, refreshed(method))
    np.testing.assert_array_equal(padded.corrected[N:], -1)
    np.testing.assert_array_equal(padded.first[N:], -1)


def test_eight_devices_correct_as_one_does(memory):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    shard = NamedSharding(mesh, PartitionSpec("data"))
    for method in (make(), make(parts=2), make(keep_scores=False, parts=2)):
        start = jax.device_put(method.init(KEY, {}, K, N)[1], shard)
        sharded = jax.jit(method.refresh, out_shardings=shard)(
            KEY, start, jax.device_put(FEATURES, shard), {"noisy_label": jax.device_put(NOISY, shard)}
        )
        for name, leaf in sharded._asdict().items():
            if leaf is not None:
                np.testing.assert_allclose(leaf, getattr(memory, name), **rounded(leaf))


def test_beliefs_follow_the_scores(memory):
    beliefs = posterior(make(temperature=0.2), memory)
    sigma = np.asarray(memory.scores, np.float64)
    corrected = np.arange(K) == np.asarray(memory.corrected)[:, None]
    second = np.max(np.where(corrected, -1, sigma), axis=1)
    sigma = np.where(corrected, (second + np.asarray(memory.margin))[:, None], sigma)  # which half precision rounds
    np.testing.assert_allclose(sigma, memory.scores, atol=1e-3)
    expected = np.exp(sigma / 0.2) / np.exp(sigma / 0.2).sum(1, keepdims=True)
    np.testing.assert_allclose(beliefs.candidates["prototypes"].probs, expected, rtol=1e-4)
    both = np.sqrt(expected * np.asarray(jax.nn.softmax(LOGITS)))
    np.testing.assert_allclose(
        beliefs.candidates["combined"].probs, both / both.sum(1, keepdims=True), rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(beliefs.columns["sigma"].values, sigma, rtol=1e-6)
    np.testing.assert_array_equal(beliefs.columns["corrected_label"].values, memory.corrected)
    np.testing.assert_array_equal(beliefs.columns["first_label"].values, memory.first)
    for named in ("prototypes", "classifier", "combined"):
        named_alone = posterior(make(clean_with=named), memory)
        assert chosen_candidate(named_alone) == named
        assert [n for n, c in named_alone.candidates.items() if np.isfinite(c.cost).all()] == [named]
    assert all((c.cost == 0).all() for c in beliefs.candidates.values())


def test_half_precision_tells_scores_apart_by_their_margin(memory):
    near = memory._replace(margin=jnp.full(N, 1e-6), scores=jnp.full((N, K), 0.7, jnp.float16))
    prototypes = posterior(make(), near).candidates["prototypes"].probs
    np.testing.assert_array_equal(np.argmax(prototypes, axis=1), memory.corrected)


def test_labels_known_to_be_wrong_are_no_reason_to_refuse_a_correction(memory):
    turned = np.roll(FEATURES, 7, axis=0)
    agreed = np.asarray(memory.corrected) == NOISY
    labels = {"noisy_label": NOISY, "trusted_label": np.where(agreed, KNOWN_WRONG, -1).astype(np.int32)}
    for verified, refused in ((True, 0), (False, 1)):
        kept = refreshed(make(verified=verified), turned, labels, memory=memory)
        assert (np.asarray(kept.refused) == refused).all()


def test_scores_of_many_classes_fill_rows_up_to_what_a_device_reads_at_once():
    classes, n = 130, 780
    true = np.arange(n, dtype=np.int32) % classes
    x = (np.eye(classes, 140)[true] + 0.05 * RNG.normal(size=(n, 140))).astype(np.float32)
    method = self_learning(classes, refresh_after=lambda epochs: True, center=False, typical_only=False)
    start = method.init(KEY, {}, classes, n)[1]
    kept = method.refresh(KEY, start, x, {"noisy_label": true})
    assert kept.scores.shape == start.scores.shape == (n, 256)
    assert np.isneginf(np.asarray(kept.scores[:, classes:], np.float32)).all()
    batch = {"noisy_label": true, "index": np.arange(n)}
    probs = method.posterior({}, kept, {"logits": jnp.zeros((n, classes))}, batch).candidates["prototypes"].probs
    assert probs.shape == (n, classes)
    np.testing.assert_array_equal(np.argmax(probs, axis=1), true)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-4)


def test_without_scores_the_label_and_its_margin_remain(memory):
    method = make(keep_scores=False, temperature=0.2)
    short = memory._replace(scores=None)
    assert method.init(KEY, {}, K, N)[1].scores is None
    beliefs = posterior(method, short)
    probs = np.asarray(beliefs.candidates["prototypes"].probs)
    np.testing.assert_array_equal(probs.argmax(1), memory.corrected)
    np.testing.assert_allclose(probs.max(1), 1 / (1 + np.exp(-np.asarray(memory.margin) / 0.2)), rtol=1e-5)
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-5)
    assert "sigma" not in beliefs.columns


def test_a_class_without_members_is_never_chosen():
    noisy = np.where(NOISY == 2, 1, NOISY)
    without = refreshed(make(), labels={"noisy_label": noisy})
    assert not (without.corrected == 2).any()
    candidates = posterior(make(), without).candidates
    for candidate in candidates.values():
        assert np.isfinite(candidate.probs).all()
    assert (candidates["prototypes"].probs[:, 2] == 0).all()
    nobody = refreshed(make(), labels={"noisy_label": np.full(N, -1, np.int32)})
    np.testing.assert_array_equal(nobody.corrected, -1)
    np.testing.assert_allclose(
        posterior(make(), nobody).candidates["prototypes"].probs, jax.nn.softmax(LOGITS), rtol=1e-5
    )


def test_prototypes_come_from_verified_labels():
    noisy = jnp.array([0, 0, 0, 1, 1, 1, 2, -1])
    trusted = jnp.array([0, -1, 1, -1, 0, KNOWN_OUTLIER, 1, -1])
    np.testing.assert_array_equal(eligible(noisy, trusted, 3), [True, False, False, True] + 4 * [False])
    other = jnp.where(trusted == KNOWN_OUTLIER, KNOWN_WRONG, trusted)
    np.testing.assert_array_equal(eligible(noisy, other, 3), eligible(noisy, trusted, 3))
    # Most of class 0 is labelled wrong, and its dense part stands elsewhere; five labels known right put it in place.
    rng = np.random.default_rng(1)
    true, noisy = np.repeat([0, 1, 2], [10, 50, 40]), np.repeat([0, 0, 1, 2], [10, 30, 20, 40]).astype(np.int32)
    x = (np.eye(3, 6)[true] + 0.1 * rng.normal(size=(100, 6))).astype(np.float32)
    labels = {"noisy_label": noisy, "trusted_label": np.where(np.arange(100) < 5, 0, -1).astype(np.int32)}
    nobody_knows = {"noisy_label": noisy, "trusted_label": np.full(100, -1, np.int32)}
    verified = refreshed(make(verified=True), x, labels).corrected
    unverified = refreshed(make(verified=True, typical_only=False), x, nobody_knows).corrected
    np.testing.assert_array_equal(verified, true)
    assert (unverified == true).mean() < 0.8
    # Without the option, what is known is passed over.
    np.testing.assert_array_equal(refreshed(make(typical_only=False), x, labels).corrected, unverified)


@pytest.mark.parametrize(
    ("sizes", "wrong"),
    [((950, 30, 20), 0.08), ((950, 30, 20), 0.02), ((20, 950, 30), 0.08), ((15, 15, 970), 0.05), ((600, 370, 30), 0.2)],
)
def test_rare_classes_keep_their_place(sizes, wrong):
    """The mean of all lies inside the largest class, and its flips fill half of the smallest."""
    rng = np.random.default_rng(2)
    true = np.repeat([0, 1, 2], sizes)
    x = (np.eye(3, 8)[true] * 4 + 0.5 * rng.normal(size=(1000, 8))).astype(np.float32)
    noisy = np.where(rng.uniform(size=1000) < wrong, (true + rng.integers(1, 3, 1000)) % 3, true).astype(np.int32)
    corrected = refreshed(make(), x, {"noisy_label": noisy}).corrected
    assert (corrected == true).mean() > (noisy == true).mean()
    assert min((corrected == true)[true == c].mean() for c in range(3)) > 0.9
    if max(sizes) > 900 and wrong > 0.02:
        among_all = refreshed(make(typical_only=False), x, {"noisy_label": noisy}).corrected
        assert (among_all == true).mean() < (noisy == true).mean()


def test_a_correction_that_loses_is_refused(memory):
    """Labels that agree with the given ones no better than chance stay out, unless every correction is to be taken."""
    turned = np.roll(FEATURES, 7, axis=0)
    kept = refreshed(make(), turned, memory=memory)
    np.testing.assert_array_equal(kept.corrected, memory.corrected)
    np.testing.assert_array_equal(kept.scores, memory.scores)
    assert (np.asarray(kept.refused), np.asarray(memory.refused)) == (pytest.approx(1), pytest.approx(0))
    assert float(loss(make(), kept)[2]["corrections_refused"][0]) == 1
    taken = refreshed(make(keep_good=False), turned, memory=memory)
    assert (taken.corrected != memory.corrected).any()
    again = refreshed(make(), FEATURES, memory=kept)
    np.testing.assert_array_equal(again.refused, 1)


def test_when_labels_are_corrected():
    assert [done for done in range(1, 9) if corrections(3)(done)] == [3, 4, 5, 6, 7, 8]
    assert [done for done in range(1, 12) if corrections(2, every=3, last=8)(done)] == [2, 5, 8]
    assert make(refresh_after=corrections(4)).refresh_after(4)
    with pytest.raises(ValueError, match="at least 1 epoch"):
        corrections(0)
    with pytest.raises(ValueError, match="must not come before"):
        corrections(5, last=4)


def test_bad_options_are_named():
    for option, value in {
        "alpha": 1.5,
        "prototypes": 0,
        "members": 0,
        "quantile": 40,
        "temperature": 0.0,
        "parts": 0,
        "select": "dbscan",
        "clean_with": "all",
    }.items():
        with pytest.raises(ValueError, match=f"`{option}` must be"):
            make(**{option: value})
    with pytest.raises(ValueError, match="one class per example"):
        loss(make(), make().init(KEY, {}, K, N)[1], batch={**BATCH, "noisy_label": jnp.zeros((N, K))})
