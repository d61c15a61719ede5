"""Losses, one value per example: nothing here reduces over a batch, so that callers can weight, mask and rank.

All are computed from logits with log-softmax or log-sigmoid, never from clipped probabilities, so that values and
gradients stay finite at logits of any size.
"""

from nlx.losses.corrected import (
    backward_corrected,
    binary_forward_corrected,
    conditional_noise,
    forward_corrected,
)
from nlx.losses.plain import binary_cross_entropy, cross_entropy, soft_cross_entropy
from nlx.losses.robust import (
    bootstrap_hard,
    bootstrap_soft,
    generalized_cross_entropy,
    mean_absolute_error,
    symmetric_cross_entropy,
)

__all__ = [
    "backward_corrected",
    "binary_cross_entropy",
    "binary_forward_corrected",
    "bootstrap_hard",
    "bootstrap_soft",
    "conditional_noise",
    "cross_entropy",
    "forward_corrected",
    "generalized_cross_entropy",
    "mean_absolute_error",
    "soft_cross_entropy",
    "symmetric_cross_entropy",
]
