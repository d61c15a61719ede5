"""nlx: classifiers that stay accurate on wrong labels, and a cleaned label with a probability for every example.

The primitives are pure functions of arrays and need neither Flax nor files: ``nlx.losses``, ``nlx.transitions``,
``nlx.posteriors``, ``nlx.prototypes``, ``nlx.crf``, ``nlx.crf.rbm``, ``nlx.samplers``, ``nlx.variational``,
``nlx.corruption`` and ``nlx.metrics``. ``nlx.methods`` builds whole systems from them; ``nlx.data``, ``nlx.models``,
``nlx.training`` and ``nlx.report`` train and report.
"""

from nlx import (
    corruption,
    crf,
    losses,
    metrics,
    posteriors,
    prototypes,
    samplers,
    transitions,
    variational,
)

__all__ = [
    "corruption",
    "crf",
    "losses",
    "metrics",
    "posteriors",
    "prototypes",
    "samplers",
    "transitions",
    "variational",
]
