"""The conditional random field over clean and noisy labels, and the machine that guides it.

Pure functions of arrays; imports other primitives only.
"""

from nlx.crf import rbm
from nlx.crf.field import (
    categorical_posterior,
    contrast,
    energy,
    posterior_logits,
    split_weights,
    y_logits,
    z_logits,
)
from nlx.crf.inference import Start, marginal_logits, mean_field

__all__ = [
    "Start",
    "categorical_posterior",
    "contrast",
    "energy",
    "marginal_logits",
    "mean_field",
    "posterior_logits",
    "rbm",
    "split_weights",
    "y_logits",
    "z_logits",
]
