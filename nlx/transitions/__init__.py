"""Transition matrices ``T[i, j] = p(noisy = j | true = i)``, rows sum to 1, float32 ``[K, K]``.

Made to order (:func:`symmetric`, :func:`pair`, :func:`sparse`, :func:`from_confusion`, :func:`outlier`), estimated from
data (:func:`from_pairs`, :func:`from_few_pairs`, :func:`from_anchors`, :func:`confident_joint` with
:func:`from_confident_joint`, :func:`estimate_confusing`), learned (:func:`project` after the optimizer's step),
inverted (:func:`invert`), and turned into cleaned labels (:func:`posterior`, :func:`binary_posterior`; without a
classifier :func:`label_posterior`).
:func:`check` is for the places where a matrix enters.
"""

from nlx.transitions.algebra import binary_posterior, invert, posterior, project
from nlx.transitions.bayes import label_posterior
from nlx.transitions.build import check, from_confusion, outlier, pair, sparse, symmetric
from nlx.transitions.confident import calibrate_joint, confident_joint, confident_thresholds, from_confident_joint
from nlx.transitions.confusing import estimate_confusing, noise_kinds
from nlx.transitions.estimate import from_anchors, from_few_pairs, from_pairs

__all__ = [
    "binary_posterior",
    "calibrate_joint",
    "check",
    "confident_joint",
    "confident_thresholds",
    "estimate_confusing",
    "from_anchors",
    "from_confident_joint",
    "from_confusion",
    "from_few_pairs",
    "from_pairs",
    "invert",
    "label_posterior",
    "noise_kinds",
    "outlier",
    "pair",
    "posterior",
    "project",
    "sparse",
    "symmetric",
]
