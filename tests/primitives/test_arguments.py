"""The rules of nlx.arguments in every function: exact shapes, masks, labels that are no class, few bits."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx import corruption, losses, metrics, posteriors, prototypes, transitions, variational
from nlx.samplers import gibbs
from tests.primitives.drawing import one_in

B, K = 6, 3
RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
LOGITS, OTHER, FEATURES = (RNG.normal(0, 2, (B, K)).astype(np.float32) for _ in range(3))
PAIRS, KINDS = RNG.normal(size=(B, K, 2)).astype(np.float32), RNG.normal(size=(B, 3)).astype(np.float32)
Y, Z = np.array([0, 1, 2, 2, 1, 0]), np.array([0, 2, 2, 1, 1, 0])
V, W = RNG.integers(0, 2, (2, B, K))
V[:3] = np.eye(3)
PROBS = RNG.dirichlet(np.ones(K), B).astype(np.float32)
T = RNG.dirichlet(np.ones(K) * 3, K).astype(np.float32)
T2 = RNG.dirichlet(np.ones(2) * 3, (K, 2)).astype(np.float32)
CONFUSING = ((1 - np.eye(K)) / 2).astype(np.float32)
SIMILARITY = np.corrcoef(LOGITS).astype(np.float32)
CLASS_LOSSES = ("cross_entropy", "bootstrap_soft", "bootstrap_hard", "generalized_cross_entropy", "mean_absolute_error")
ROBUST = ("symmetric_cross_entropy", "active_passive", "joint_asymmetric", "bi_tempered", "label_smoothing")
CLASS_LOSSES = {n: getattr(losses, n) for n in (*CLASS_LOSSES, *ROBUST)} | {
    "forward_corrected": partial(losses.forward_corrected, transition=T),
    "backward_corrected": partial(losses.backward_corrected, inverse=T),
    "importance_reweighted": partial(losses.importance_reweighted, transition=T),
}
VECTOR_LOSSES = {
    "binary_cross_entropy": lambda x, v, **o: losses.binary_cross_entropy(x, jnp.asarray(v, jnp.float32), **o),
    "binary_forward_corrected": partial(losses.binary_forward_corrected, transition=T2),
    "conditional_noise": lambda x, v, **o: losses.conditional_noise(x, jnp.stack([x, -x], -1), v, **o),
}
# (function, arrays, shape of the mask): every function that takes a mask.
MASKED = {
    **{name: (loss, (LOGITS, Y), (B,)) for name, loss in CLASS_LOSSES.items()},
    **{name: (loss, (LOGITS, V), (B, K)) for name, loss in VECTOR_LOSSES.items()},
    "soft_cross_entropy": (losses.soft_cross_entropy, (LOGITS, PROBS), (B,)),
    "soft_forward_corrected": (partial(losses.soft_forward_corrected, transition=T), (LOGITS, PROBS), (B,)),
    "accuracy": (metrics.accuracy, (LOGITS, Y), (B,)),
    "average_precision": (metrics.average_precision, (LOGITS[:, 0], V[:, 0]), (B,)),
    "mean_average_precision": (metrics.mean_average_precision, (LOGITS, Y), (B,)),
    "mean_average_precision, vectors": (metrics.mean_average_precision, (LOGITS, V), (B,)),
    "recovery": (metrics.recovery, (PROBS, Y), (B,)),
    "recovery, vectors": (metrics.recovery, (PROBS, V), (B,)),
    "transition_counts": (metrics.transition_counts, (V, W), (B,)),
    "from_pairs": (partial(transitions.from_pairs, num_classes=K), (Y, Z), (B,)),
    "from_few_pairs": (partial(transitions.from_few_pairs, num_classes=K), (Y, Z), (B,)),
    "estimate_confusing": (
        lambda y, z, where: transitions.estimate_confusing(y, z, K, where=where)[::2], (Y, Z), (B,)
    ),
    "sample_members": (lambda y, where: prototypes.sample_members(KEY, y, K, 2, where=where), (Y,), (B,)),
    "class_prototypes": (
        lambda x, y, where: prototypes.class_prototypes(KEY, x, y, K, members=4, count=1, where=where),
        (FEATURES, Y),
        (B,),
    ),
    "quantile": (partial(prototypes.quantile, share=0.4), (LOGITS,), (B, K)),
    "by_density": (lambda x, where: prototypes.by_density(KEY, x, where, 2), (FEATURES,), (B,)),
    "by_kmeans": (lambda x, where: prototypes.by_kmeans(KEY, x, where, 2), (FEATURES,), (B,)),
    "by_density_peaks": (lambda x, where: prototypes.by_density_peaks(KEY, x, where, 2), (FEATURES,), (B,)),
    "density": (partial(prototypes.density, threshold=0.1), (SIMILARITY,), (B,)),
    "separation": (lambda s, where: prototypes.separation(s, np.arange(B), where=where), (SIMILARITY,), (B,)),
    "select": (lambda e, where: prototypes.select(np.arange(B), e, 2, where=where), (SIMILARITY[0],), (B,)),
}  # fmt: skip
LOSSES = [n for n in MASKED if n in {*CLASS_LOSSES, *VECTOR_LOSSES, "soft_cross_entropy", "soft_forward_corrected"}]


def same(ours, expected):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_every_function_with_a_mask_is_here():
    with_mask = {
        name
        for module in (losses, metrics, posteriors, prototypes, transitions, corruption, variational, gibbs)
        for name, function in inspect.getmembers(module, inspect.isroutine)
        if name[0] != "_" and name != "as_type" and "where" in inspect.signature(function).parameters
    }
    with_mask -= {"mask", "masked", "label_vectors", "probabilities"}
    assert with_mask == {name.split(",")[0] for name in MASKED}


@one_in(2, MASKED)
def test_a_mask_is_bool_and_of_one_shape(name):
    function, arrays, shape = MASKED[name]
    good = np.ones(shape, bool)
    function(*arrays, where=good)
    for bad in (good[..., None], good[:1], good[None], good.T[..., :1], good.reshape(-1)[:-1], good[0]):
        with pytest.raises(ValueError, match="where must be bool"):
            function(*arrays, where=bad)
    for weights in (np.full(shape, 0.5, np.float32), np.ones(shape, int)):
        with pytest.raises(ValueError, match="where must be bool"):
            function(*arrays, where=weights)


@pytest.mark.parametrize("name", MASKED)
def test_what_is_masked_may_be_anything(name):
    function, arrays, shape = MASKED[name]
    where = np.arange(B) % 3 != 1
    where = np.broadcast_to(where[:, None], shape) if len(shape) == 2 else where
    clean = function(*arrays, where=where)
    for garbage, label in ((np.nan, -1), (np.inf, 255), (-np.inf, K)):
        broken = []
        for x in arrays:
            x = x.copy()
            x[1::3] = garbage if x.dtype.kind == "f" else label
            if name in ("density", "separation"):
                x[:, 1::3] = garbage
            broken.append(x)
        same(function(*broken, where=where), clean)
        if name in LOSSES:
            assert (np.asarray(clean)[1::3] == 0).all()
            gradient = jax.grad(lambda x, rest=broken[1:]: function(x, *rest, where=where).sum())(broken[0])
            assert np.isfinite(gradient).all()
            assert (gradient[1::3] == 0).all()
            assert (gradient[::3] != 0).any()


@pytest.mark.parametrize("name", [n for n in MASKED if Y is MASKED[n][1][-1] or Z is MASKED[n][1][-1]])
def test_labels_have_one_axis(name):
    function, arrays, shape = MASKED[name]
    one_hot = [] if name in ("mean_average_precision", "recovery") else [np.eye(K, dtype=int)[Y]]  # taken as vectors
    for wrong in (Y[:, None], Y[None], Y[:-1], np.eye(B, dtype=int), *one_hot):
        with pytest.raises((TypeError, ValueError), match=r"shape|dimension|must be|vectors|one axis"):
            function(*arrays[:-1], wrong, where=np.ones(shape, bool))


PER_EXAMPLE = {
    **CLASS_LOSSES,
    "posterior": partial(transitions.posterior, transition=T),
    "noise_types": lambda x, y: posteriors.noise_types(x, KINDS, y, CONFUSING),
    "noise_types, in parts": lambda x, y: posteriors.noise_types(x, KINDS, y, CONFUSING, rows_at_once=4),
    "as_vectors": lambda x, y: metrics.as_vectors(y, K),
}
NO_CLASSES = [-1, K, 255, -7, 2**31 - 1]


@pytest.mark.parametrize("name", PER_EXAMPLE)
@pytest.mark.parametrize("traced", [False, True])
def test_what_is_told_of_an_example_without_a_class_is_nan_and_has_no_gradient(name, traced):
    function = jax.jit(PER_EXAMPLE[name]) if traced else PER_EXAMPLE[name]
    whole = function(LOGITS, Y)
    for label in NO_CLASSES[: 2 if traced else None]:
        labels = Y.copy()
        labels[1::3] = label
        for ours, right in zip(jax.tree.leaves(function(LOGITS, labels)), jax.tree.leaves(whole), strict=True):
            assert np.isnan(ours[1::3]).all()
            keep = np.arange(B) % 3 != 1
            np.testing.assert_allclose(ours[keep], right[keep], rtol=1e-6)
    if name in {*CLASS_LOSSES, "posterior"}:
        gradient = jax.grad(lambda x: function(x, labels)[..., :1].sum())(LOGITS)
        assert (gradient[1::3] == 0).all()
        assert np.isfinite(gradient).all()


COUNTED = {
    "accuracy": lambda y, rows: metrics.accuracy(LOGITS[rows], y),
    "mean_average_precision": lambda y, rows: metrics.mean_average_precision(LOGITS[rows], y),
    "recovery": lambda y, rows: metrics.recovery(PROBS[rows], y),
    "from_pairs": lambda y, rows: transitions.from_pairs(y, Z[rows], K),
    "from_pairs, noisy": lambda y, rows: transitions.from_pairs(Z[rows], y, K),
    "from_few_pairs": lambda y, rows: transitions.from_few_pairs(y, Z[rows], K),
    "estimate_confusing": lambda y, rows: transitions.estimate_confusing(Z[rows], y, K)[::2],
    "label_posterior": lambda y, rows: transitions.label_posterior(T, y),
    "confident_thresholds": lambda y, rows: transitions.confident_thresholds(PROBS[rows], y),
    "confident_joint": lambda y, rows: transitions.confident_joint(PROBS[rows], y),
    "calibrate_joint": lambda y, rows: transitions.calibrate_joint(np.eye(K), y),
    "from_confident_joint": lambda y, rows: transitions.from_confident_joint(np.eye(K), y),
    "sample_members": lambda y, rows: prototypes.sample_members(KEY, y, K, B)[1],
    "class_prototypes": lambda y, rows: prototypes.class_prototypes(KEY, FEATURES[rows], y, K, members=B, count=1).mean,
}


@pytest.mark.parametrize("name", COUNTED)
def test_what_is_counted_passes_over_examples_without_a_class(name):
    keep = np.arange(B) % 3 != 1
    fewer = COUNTED[name](Y[keep], keep)
    for label in NO_CLASSES:
        labels = np.where(keep, Y, label)
        for ours, right in zip(
            jax.tree.leaves(COUNTED[name](labels, slice(None))), jax.tree.leaves(fewer), strict=True
        ):
            cut = tuple(slice(0, n) for n in right.shape)
            np.testing.assert_allclose(ours[cut], right, rtol=1e-6)


NOISE = {
    "uniform_flips": lambda y: corruption.uniform_flips(KEY, y, K, 1.0),
    "flips": lambda y: corruption.flips(KEY, y, np.roll(np.eye(K, dtype=np.float32), 1, 1)),
    "outliers": lambda y: corruption.outliers(KEY, y, K, 1.0),
    "vector_shuffle": lambda y: corruption.vector_shuffle(KEY, y, 1.0, K),
    "instance_dependent": lambda y: corruption.instance_dependent(KEY, FEATURES, y, K, 1.0),
}


@pytest.mark.parametrize("name", NOISE)
def test_noise_leaves_what_is_no_class_as_it_is(name):
    whole = NOISE[name](Y)
    for label in NO_CLASSES:
        labels = np.where(np.arange(B) % 3 == 1, label, Y)
        noisy, touched = NOISE[name](labels)
        assert (np.asarray(noisy)[1::3] == label).all()
        assert not touched[1::3].any()
        same((noisy[::3], touched[::3]), (whole.labels[::3], whole.mask[::3]))


def test_noise_kinds_and_wide_integers():
    kinds = transitions.noise_kinds(np.array([0, -1, 0, K, 1]), np.array([0, 0, 255, 1, 2]), CONFUSING)
    assert kinds.tolist() == [0, -1, -1, -1, 1]
    wide = np.array([2**32, 1, -(2**33) + 1, 2**40 + 2])  # as int32 these would be classes 0, 1, 1 and 2
    assert np.isnan(losses.cross_entropy(LOGITS[:4], wide)).tolist() == [True, False, True, True]
    assert transitions.from_pairs(wide, wide, K).tolist() == np.eye(K).tolist()


VECTORS = {
    **{name: partial(loss, LOGITS) for name, loss in VECTOR_LOSSES.items()},
    "reconstruction": lambda v: variational.reconstruction(LOGITS[None], jnp.asarray(v, jnp.float32)),
    "binary_posterior": lambda v: transitions.binary_posterior(LOGITS, v, T2),
    "as_vectors": lambda v: metrics.as_vectors(v, K),
    "average_precision": lambda v: metrics.average_precision(LOGITS[:, 0], v[:, 0]),
    "mean_average_precision": partial(metrics.mean_average_precision, LOGITS),
    "recovery": partial(metrics.recovery, PROBS),
    "transition_counts": lambda v: metrics.transition_counts(v, W),
    "transition_counts, noisy": lambda v: metrics.transition_counts(W, v),
    "tag_noise": lambda v: corruption.tag_noise(KEY, v, 0.0, 0.0, 0.0).labels,
    "vector_shuffle": lambda v: corruption.vector_shuffle(KEY, v, 0.0).labels,
}


@pytest.mark.parametrize("name", VECTORS)
def test_minus_one_and_one_are_refused_or_unknown(name):
    function, signs = VECTORS[name], 2 * V - 1
    for wrong in (signs, signs.astype(np.float32), np.where(V == 1, 255, 0), jnp.asarray(signs)):
        with pytest.raises(ValueError, match=r"must be 0 or 1|must lie in \[0, 1\]"):
            function(wrong)
    for kind in (np.float32, np.int8, np.uint8, bool):
        same(jnp.asarray(function(V.astype(kind)), jnp.float32), jnp.asarray(function(V), jnp.float32))
    # Under a trace an entry of -1 is unknown: it makes what is told of its example NaN, or does not count.
    hidden = V.copy()
    hidden[0, 0] = -1
    ours, whole = (np.asarray(jax.jit(function)(v), np.float32) for v in (hidden, V))
    if name in ("tag_noise", "vector_shuffle"):
        assert (ours == hidden).all()
    elif ours.ndim and "counts" not in name:
        assert np.isnan(ours[0]).any()
        np.testing.assert_allclose(ours[1:], whole[1:], rtol=1e-6)
    else:
        assert np.isfinite(ours).all()
        assert (ours >= 0).all()


def test_unknown_entries_pass_where_a_mask_leaves_them_out():
    unknown = np.where(RNG.uniform(size=V.shape) < 0.5, -1, V)
    for loss in VECTOR_LOSSES.values():
        same(loss(LOGITS, unknown, where=unknown >= 0), loss(LOGITS, V, where=unknown >= 0))
    rows = np.arange(B) > 1
    unknown = np.where(rows[:, None], V, -1)
    same(metrics.recovery(PROBS, unknown, where=rows), metrics.recovery(PROBS[rows], V[rows]))


@pytest.mark.parametrize(
    ("kind", "k"), [(np.uint8, 300), (np.int8, 300), pytest.param(np.uint16, 70_000, marks=pytest.mark.slow)]
)
def test_labels_of_few_bits_are_widened(kind, k):
    few = RNG.integers(0, 100, 40).astype(kind)
    wide, other = few.astype(np.int32), RNG.integers(0, k, 40)
    calls = {
        "uniform_flips": lambda y: corruption.uniform_flips(KEY, y, k, 0.5),
        "outliers": lambda y: corruption.outliers(KEY, y, k, 0.5),
        "sample_members": lambda y: prototypes.sample_members(KEY, y, k, 2),
    }
    if k < 1000:  # the others hold a matrix
        eye = jnp.eye(k)
        calls |= {
            "flips": lambda y: corruption.flips(KEY, y, jnp.roll(eye, k - 100, 1)),
            "from_pairs": lambda y: transitions.from_pairs(y, other, k),
            "from_pairs, noisy": lambda y: transitions.from_pairs(other, y, k),
            "estimate_confusing": lambda y: transitions.estimate_confusing(y, other, k),
            "noise_kinds": lambda y: transitions.noise_kinds(y, other, jnp.roll(eye, 1, 1)),
            "cross_entropy": lambda y: losses.cross_entropy(jnp.ones((40, k)), y),
            "as_vectors": lambda y: metrics.as_vectors(y, k),
            "posterior": lambda y: transitions.posterior(jnp.ones((40, k)), y, eye),
        }
    for name, call in calls.items():
        for ours, right in zip(jax.tree.leaves(call(few)), jax.tree.leaves(call(wide)), strict=True):
            np.testing.assert_array_equal(ours, right, err_msg=name)
