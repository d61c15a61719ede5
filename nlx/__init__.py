"""nlx: classifiers that stay accurate on wrong labels, and a cleaned label with a probability for every example.

The primitives are pure functions of arrays and need neither Flax nor files: ``nlx.losses``, ``nlx.transitions``,
``nlx.corruption``, ``nlx.samplers``, ``nlx.variational`` and ``nlx.metrics``. ``nlx.methods`` builds whole systems from
them; ``nlx.data``, ``nlx.models``, ``nlx.training`` and ``nlx.reporting`` train and report.
"""

from nlx import corruption, losses, metrics, samplers, transitions, variational

__all__ = ["corruption", "losses", "metrics", "samplers", "transitions", "variational"]
