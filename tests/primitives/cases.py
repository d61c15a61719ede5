"""One table of calls of every public function of the primitives, which the tests here put to every transformation."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nlx import corruption as co
from nlx import crf, crowd, losses, metrics, posteriors, prototypes, variational
from nlx import transitions as t
from nlx.crf import rbm
from nlx.samplers import bits, concrete, gaussian, gibbs

MODULES = (co, crf, crowd, losses, metrics, posteriors, prototypes, variational, t)
MODULES = (*MODULES, rbm, bits, concrete, gaussian, gibbs)


@dataclass(frozen=True)
class Case:
    """A call.

    Attributes:
      call: a function of the arrays alone.
      arrays: its arguments, arrays or keys.
      rows: which of them have one row per example.
      host: it reads values and cannot be traced.
      double: float64 arguments give float64.
      none: what it says where there is no example, a regular expression; None where it is right.
      one: what it says where there is one class.
      nothing: without examples NaN is the answer.
    """

    call: Callable[..., Any]
    arrays: tuple[Any, ...] = ()
    rows: tuple[int, ...] = ()
    host: bool = False
    double: bool = False
    none: str | None = None
    one: str | None = None
    nothing: bool = False


def table(n=8, k=3, dtype=np.float32):
    """All calls, by module and name (and variant), for n examples and k classes."""
    rng, key = np.random.default_rng(0), jax.random.key(0)
    logits, others = rng.normal(0, 2, (2, n, k)).astype(dtype)
    pairs, features, noise = (rng.normal(size=(n, *s)).astype(dtype) for s in ((k, 2), (4,), (3,)))
    y, z = rng.integers(0, k, (2, n))
    vectors, clean = rng.integers(0, 2, (2, n, k))
    y[: min(n, k)] = np.arange(k)[:n]
    probs = rng.dirichlet(np.ones(k), n).astype(dtype) if n else np.zeros((n, k), dtype)
    matrix = rng.dirichlet(np.ones(k) * 3, k).astype(dtype)
    binary = rng.dirichlet(np.ones(2) * 3, (k, 2)).astype(dtype)
    confusing = ((1 - np.eye(k)) / max(k - 1, 1)).astype(dtype)
    inverse = np.linalg.inv(matrix.astype(np.float64)).astype(dtype)
    similarity = np.corrcoef(rng.normal(size=(6, 4))).astype(np.float32)
    where, members, rate = np.arange(n) != 1, np.arange(6) < 5, np.float32(0.3)
    centres, present = np.eye(k, 4, dtype=dtype), np.arange(k) != 1 if k > 1 else np.ones(1, bool)
    units, hidden, chains = k, 2, 4
    coupling, y_bias, z_bias = (rng.normal(size=s).astype(dtype) for s in ((hidden, units), (n, units), (n, hidden)))
    means = rng.uniform(size=(n, hidden)).astype(dtype)
    samples = rng.integers(0, 2, (2, n, chains, units)).astype(dtype)
    machine = coupling, y_bias[0] if n else np.zeros(units, dtype), z_bias[0] if n else np.zeros(hidden, dtype)
    packed, words = np.zeros((n, chains, 1), np.uint8), np.arange(n * 2, dtype=np.uint32).reshape(n, 1, 2)
    few, pair = "at least (2|two)", "at least 1, got 0|must have examples|n of at least 1|n > 0"
    who, sizes, some = np.arange(n) % 2, {"num_items": 3, "num_classes": k}, {"num_annotators": 2, "iterations": 3}

    def loss(name, *args, **options):
        return {f"losses.{name}": Case(partial(getattr(losses, name), **options), args, (0, 1), double=True)}

    def on_rows(function, *args, rows=None, **options):
        return Case(function, args, tuple(range(len(args))) if rows is None else rows, **options)

    return {
        **loss("cross_entropy", logits, y),
        **loss("soft_cross_entropy", logits, probs),
        **loss("binary_cross_entropy", logits, vectors.astype(dtype)),
        **loss("forward_corrected", logits, y, matrix),
        **loss("backward_corrected", logits, y, inverse),
        **loss("binary_forward_corrected", logits, vectors, binary),
        "losses.conditional_noise": on_rows(losses.conditional_noise, logits, pairs, vectors, double=True),
        **loss("bootstrap_soft", logits, y, beta=0.6),
        **loss("bootstrap_hard", logits, y, beta=0.6),
        **loss("generalized_cross_entropy", logits, y),
        **loss("mean_absolute_error", logits, y),
        **loss("symmetric_cross_entropy", logits, y),
        **loss("active_passive", logits, y),
        **loss("joint_asymmetric", logits, y),
        **loss("bi_tempered", logits, y),
        **loss("label_smoothing", logits, y),
        **loss("soft_forward_corrected", logits, probs, matrix),
        **loss("importance_reweighted", logits, y, matrix),
        "transitions.symmetric": Case(lambda r: t.symmetric(k, r), (rate,), one=few),
        "transitions.pair": Case(lambda r: t.pair(k, r), (rate,), one=few),
        "transitions.sparse": Case(lambda key, r: t.sparse(key, k, r, 1, concentration=1.0), (key, rate), one=few),
        "transitions.outlier": Case(lambda r: t.outlier(k, r), (rate,)),
        "transitions.from_confusion": Case(lambda c: t.from_confusion(c, 0.1), (matrix,), host=True, one="at least 2"),
        "transitions.check": Case(t.check, (matrix,), host=True),
        "transitions.invert": Case(t.invert, (matrix,), host=True),
        "transitions.label_posterior": Case(t.label_posterior, (matrix, y), (1,), host=True, none="at least one"),
        "transitions.project": on_rows(t.project, logits, double=True),
        "transitions.posterior": Case(t.posterior, (logits, y, matrix), (0, 1), double=True),
        "transitions.binary_posterior": Case(t.binary_posterior, (logits, vectors, binary), (0, 1), double=True),
        "transitions.from_pairs": on_rows(lambda a, b: t.from_pairs(a, b, k), y, z),
        "transitions.from_few_pairs": on_rows(lambda a, b: t.from_few_pairs(a, b, k), y, z),
        "transitions.from_anchors": on_rows(partial(t.from_anchors, quantile=0.7), probs, none=pair),
        "transitions.confident_thresholds": on_rows(t.confident_thresholds, probs, y, none=pair, one=few),
        "transitions.confident_joint": on_rows(t.confident_joint, probs, y, none=pair, one=few),
        "transitions.calibrate_joint": Case(t.calibrate_joint, (np.eye(k, dtype=int), y), (1,)),
        "transitions.from_confident_joint": Case(t.from_confident_joint, (np.eye(k, dtype=int), y), (1,)),
        "transitions.estimate_confusing": on_rows(lambda a, b: t.estimate_confusing(a, b, k), y, z, one=few),
        "transitions.noise_kinds": Case(t.noise_kinds, (y, z, confusing), (0, 1), one="at least 2"),
        "corruption.uniform_flips": Case(
            lambda key, y, r: co.uniform_flips(key, y, k, r), (key, y, rate), (1,), one=few
        ),
        "corruption.flips": Case(co.flips, (key, y, matrix), (1,), one=few),
        "corruption.outliers": Case(lambda key, y, r: co.outliers(key, y, k, r), (key, y, rate), (1,), one=few),
        "corruption.instance_dependent": Case(
            lambda key, x, y, r: co.instance_dependent(key, x, y, k, r), (key, features, y, rate), (1, 2), one=few
        ),
        "corruption.vector_shuffle": Case(co.vector_shuffle, (key, vectors, rate), (1,)),
        "corruption.vector_shuffle, classes": Case(
            lambda key, y, r: co.vector_shuffle(key, y, r, k), (key, y, rate), (1,), one=few
        ),
        "corruption.tag_noise": Case(lambda key, v, r: co.tag_noise(key, v, r, r, r, 3), (key, vectors, rate), (1,)),
        "concrete.sample": Case(lambda key, x: concrete.sample(key, x, 0.5), (key, logits), (1,), double=True),
        "gaussian.sample": Case(gaussian.sample, (key, logits, others), (1, 2), double=True),
        "gibbs.carries_y": Case(partial(gibbs.carries_y, 2, 3), host=True),
        "gibbs.init": Case(
            lambda key, m: gibbs.init(key, n, chains, 2, 3, mean=m), (key, means), none="sizes must be at least 1"
        ),
        "gibbs.step": Case(
            lambda key, p, u, b, a: gibbs.step(key, gibbs.State(p), u, b, a, 3, average=True, mixing=True),
            (key, packed, coupling, y_bias, z_bias),
            (1, 3, 4),
        ),
        "gibbs.step, hash": Case(
            lambda key, p, u, b, a, s: gibbs.step(key, gibbs.State(p), u, b, a, s, generator="hash"),
            (key, packed, coupling, y_bias[0] if n else machine[1], z_bias, np.int32(2)),
            (1, 4),
        ),
        "bits.threefry2x32": Case(bits.threefry2x32, (np.arange(2, dtype=np.uint32), words, words), (1, 2)),
        "bits.random_words": Case(lambda w: bits.random_words(w, (n, 2)), (np.arange(2, dtype=np.uint32),)),
        "bits.prepare": Case(lambda w: bits.prepare(w, (n, 2, 2), "threefry"), (np.arange(2, dtype=np.uint32),)),
        "bits.words_shape": Case(partial(bits.words_shape, (3, 4, 5)), host=True),
        "bits.uniform16": on_rows(lambda w: bits.uniform16(w, (len(w), 2, 2), "threefry"), words),
        "bits.bernoulli16": on_rows(bits.bernoulli16, words, noise[:, None, :2].astype(np.float32)),
        "bits.num_bytes": Case(partial(bits.num_bytes, 9), host=True),
        "bits.pack": on_rows(bits.pack, vectors),
        "bits.unpack": on_rows(lambda p: bits.unpack(p, 5), packed),
        "prototypes.unit": on_rows(prototypes.unit, features, double=True),
        "prototypes.cosine_similarity": on_rows(prototypes.cosine_similarity, features, double=True),
        "prototypes.quantile": Case(lambda s, w: prototypes.quantile(s, 0.4, where=w), (similarity, similarity > -2)),
        "prototypes.density": Case(lambda s, w: prototypes.density(s, 0.1, where=w), (similarity, members)),
        "prototypes.separation": Case(
            lambda s, r, w: prototypes.separation(s, r, where=w), (similarity, np.arange(6), members[::-1] | True)
        ),
        "prototypes.select": Case(
            lambda r, s, w: prototypes.select(r, s, 2, where=w), (np.arange(6), similarity[0], members)
        ),
        "prototypes.by_density": Case(
            lambda key, s, w: prototypes.by_density(key, s, w, 2), (key, similarity, members)
        ),
        "prototypes.selector": Case(
            lambda key, s, w: prototypes.selector("density")(key, s, w, 2), (key, similarity, members)
        ),
        "prototypes.by_kmeans": Case(lambda key, s, w: prototypes.by_kmeans(key, s, w, 2), (key, similarity, members)),
        "prototypes.by_density_peaks": Case(
            lambda key, s, w: prototypes.by_density_peaks(key, s, w, 2), (key, similarity, members)
        ),
        "prototypes.centered": Case(lambda x, y: prototypes.centered(x, y, k), (features, y), (0, 1), double=True),
        "prototypes.typical": Case(lambda x, y: prototypes.typical(x, y, k), (features, y), (0, 1), double=True),
        "prototypes.sample_members": Case(
            lambda key, y, w: prototypes.sample_members(key, y, k, 3, where=w), (key, y, where), (1, 2)
        ),
        **{
            f"prototypes.class_prototypes, {name}": Case(
                lambda key, x, y, w, selector=selector: prototypes.class_prototypes(
                    key, x, y, k, members=4, count=2, where=w, selector=selector
                ),
                (key, features.astype(np.float32), y, where),
                (1, 2, 3),
            )
            for name, selector in (
                ("density", partial(prototypes.by_density, share=0.5)),
                ("k-means", prototypes.by_kmeans),
                ("density peaks", prototypes.by_density_peaks),
            )
        },
        "prototypes.class_scores": Case(prototypes.class_scores, (features, centres, present), (0,), double=True),
        "prototypes.stored_scores": Case(
            lambda x, m, p: prototypes.stored_scores(x, m, p, parts=2).astype(x.dtype),
            (features, centres, present),
            (0,),
            double=True,
        ),
        "prototypes.decide": on_rows(prototypes.decide, logits, double=True),
        "prototypes.correct": Case(
            lambda x, m, p: prototypes.correct(x, m, p, parts=2), (features, centres, present), (0,), double=True
        ),
        "crf.energy": Case(crf.energy, (samples[0, :, 0], means, coupling, y_bias, z_bias), (0, 1, 3, 4), double=True),
        "crf.z_logits": Case(crf.z_logits, (samples[0, :, 0], coupling, z_bias), (0, 2), double=True),
        "crf.y_logits": Case(crf.y_logits, (means, coupling, y_bias), (0, 2), double=True),
        "crf.posterior_logits": on_rows(lambda a, b: crf.posterior_logits(a, b, 2.0), logits, others, double=True),
        "crf.categorical_posterior": on_rows(
            lambda a, b: crf.categorical_posterior(a, b, 2.0), logits, probs, double=True
        ),
        "crf.contrast": Case(
            lambda y, m, s, t, u, b, a: crf.contrast((y, m), (s, t), u, b, a),
            (samples[0, :, 0], means, samples[1], samples[0][..., :1].repeat(hidden, -1), coupling, y_bias, z_bias),
            (0, 1, 2, 3, 5, 6),
            double=True,
        ),
        "crf.split_weights": on_rows(crf.split_weights, where),
        "crf.mean_field": Case(
            lambda u, b, a: crf.mean_field(u, b, a, 3), (coupling, y_bias, z_bias), (1, 2), double=True
        ),
        "crf.marginal_logits": Case(
            lambda key, u, b, a: crf.marginal_logits(key, u, b, a, sweeps=2, burn_in=1, chains=2),
            (key, coupling, y_bias, z_bias),
            (2, 3),
        ),
        "rbm.conditional_logits": Case(
            lambda u, b, a, y: rbm.conditional_logits(rbm.RBM(u, b, a), y),
            (*machine, samples[0, :, 0]),
            (3,),
            double=True,
        ),
        "rbm.likelihood_loss": Case(
            lambda u, b, a, y, c: rbm.likelihood_loss(
                rbm.RBM(u, b, a), y, c, (jnp.zeros((1, 2, units), u.dtype), jnp.zeros((1, 2, hidden), u.dtype))
            ),
            (*machine, samples[0, :, 0], samples[0, :, 0, :1]),
            (3, 4),
            double=True,
            nothing=True,
        ),
        "rbm.fit": Case(
            lambda key, y, c: rbm.fit(key, y, c, 1, 2, batch_size=2, chains=2, sweeps=1),
            (key, vectors, clean),
            (1, 2),
            none=pair,
        ),
        "posteriors.noise_types": Case(
            posteriors.noise_types, (logits, noise, y, confusing), (0, 1, 2), double=True, one=few
        ),
        "posteriors.noise_types, in parts": Case(
            partial(posteriors.noise_types, rows_at_once=2),
            (logits, noise, y, confusing),
            (0, 1, 2),
            double=True,
            one=few,
        ),
        "variational.reconstruction": Case(
            variational.reconstruction, (np.stack([logits, others]), vectors.astype(dtype)), double=True
        ),
        "variational.label_divergence": on_rows(
            lambda a, b: variational.label_divergence(a, b, 0.3), logits, others, double=True
        ),
        "variational.quality_divergence": on_rows(
            lambda a, b: variational.quality_divergence(a, b, 0.3), logits, others, double=True
        ),
        "crowd.dawid_skene": Case(
            lambda *a: crowd.dawid_skene(
                *a[:3], **sizes, **some, groups=np.zeros(2, int), log_prior=a[3], trusted=a[4]
            ),
            (y, who, z, np.eye(3, k, dtype=dtype), np.array([0, -1, -1])),
            (0, 1, 2),
            one=few,
        ),
        **{
            f"crowd.{name}": on_rows(partial(getattr(crowd, name), **sizes, **some), y, who, z, one=few)
            for name in ("one_coin", "mace", "glad")
        },
        "crowd.copies": Case(
            crowd.copies, (np.eye(3, k, dtype=dtype), np.stack([matrix, matrix]), y, who, z), (2, 3, 4), host=True
        ),
        "crowd.tempered": Case(
            lambda *a: crowd.tempered(crowd.dawid_skene(*a, **sizes, **some), *a), (y, who, z), (0, 1, 2), one=few
        ),
        "crowd.majority_vote": on_rows(partial(crowd.majority_vote, **sizes), y, z),
        "crowd.krippendorff_alpha": on_rows(partial(crowd.krippendorff_alpha, **sizes), y, z, nothing=True, one=few),
        "crowd.answer_probs": Case(crowd.answer_probs, (matrix, y, z), (1, 2), double=True),
        **{
            f"crowd.{name}": Case(
                partial(getattr(crowd, name), num_annotators=2), (matrix, y, who, z), (1, 2, 3), one=no
            )
            for name, no in (("annotator_quality", None), ("annotator_confusion", few))
        },
        "crowd.expected_information": Case(crowd.expected_information, (probs, matrix[None]), (0,), double=True),
        "metrics.accuracy": on_rows(metrics.accuracy, logits, y, nothing=True),
        "metrics.average_precision": on_rows(
            metrics.average_precision, logits[:, 0], vectors[:, 0] | (y == 0), nothing=True
        ),
        "metrics.mean_average_precision": on_rows(
            partial(metrics.mean_average_precision, points=11), logits, y, nothing=True
        ),
        "metrics.mean_average_precision, vectors": on_rows(
            metrics.mean_average_precision, logits, vectors, nothing=True
        ),
        "metrics.recovery": on_rows(metrics.recovery, probs, vectors, nothing=True),
        "metrics.transition_counts": on_rows(metrics.transition_counts, vectors, clean),
        "metrics.as_vectors": on_rows(lambda y: metrics.as_vectors(y, k), y),
    }


CASES = table()
"""Of eight examples and three classes, in float32."""
