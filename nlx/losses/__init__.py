"""Losses, one value per example: nothing here reduces over a batch, so that callers can weight, mask and rank.

All are computed from logits with log-softmax or log-sigmoid, never from clipped probabilities, so that values and
gradients stay finite at logits of any size.
"""

from nlx.losses.corrected import (
    backward_corrected,
    binary_forward_corrected,
    conditional_noise,
    forward_corrected,
    importance_reweighted,
)
from nlx.losses.normalized import active_passive, joint_asymmetric
from nlx.losses.plain import binary_cross_entropy, cross_entropy, soft_cross_entropy
from nlx.losses.robust import (
    bootstrap_hard,
    bootstrap_soft,
    generalized_cross_entropy,
    mean_absolute_error,
    symmetric_cross_entropy,
)
from nlx.losses.soft import label_smoothing, soft_forward_corrected
from nlx.losses.tempered import bi_tempered

__all__ = [
    "active_passive",
    "backward_corrected",
    "bi_tempered",
    "binary_cross_entropy",
    "binary_forward_corrected",
    "bootstrap_hard",
    "bootstrap_soft",
    "conditional_noise",
    "cross_entropy",
    "forward_corrected",
    "generalized_cross_entropy",
    "importance_reweighted",
    "joint_asymmetric",
    "label_smoothing",
    "mean_absolute_error",
    "soft_cross_entropy",
    "soft_forward_corrected",
    "symmetric_cross_entropy",
]
