"""nlx: classifiers that stay accurate on wrong labels, and a cleaned label with a probability for every example.

``nlx.clean`` finds wrong labels, ``nlx.consensus`` true ones in several people's answers,
``nlx.NoisyLabelClassifier`` learns in spite of wrong ones, ``nlx.Trainer`` trains any backbone and method together,
such as those of ``nlx.models`` and ``nlx.methods``. The primitives are pure functions of arrays and need neither Flax
nor files: ``nlx.losses``, ``nlx.transitions``, ``nlx.posteriors``, ``nlx.prototypes``, ``nlx.crf``, ``nlx.crowd``,
``nlx.samplers``, ``nlx.variational``, ``nlx.corruption`` and ``nlx.metrics``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlx import corruption, crf, crowd, losses, metrics, posteriors, prototypes, samplers, transitions, variational
    from nlx.cleaning.classifier import NoisyLabelClassifier
    from nlx.cleaning.clean import clean
    from nlx.cleaning.consensus import consensus
    from nlx.experiment.saved import load_run
    from nlx.training.stages import Stage
    from nlx.training.trainer import Trainer

_DOORS = {
    "NoisyLabelClassifier": "nlx.cleaning.classifier",
    "Stage": "nlx.training.stages",
    "Trainer": "nlx.training.trainer",
    "clean": "nlx.cleaning.clean",
    "consensus": "nlx.cleaning.consensus",
    "load_run": "nlx.experiment.saved",
}
_ROOMS = ("cleaning", "data", "methods", "models", "training")

__all__ = [
    "NoisyLabelClassifier",
    "Stage",
    "Trainer",
    "clean",
    "consensus",
    "corruption",
    "crf",
    "crowd",
    "load_run",
    "losses",
    "metrics",
    "posteriors",
    "prototypes",
    "samplers",
    "transitions",
    "variational",
]


def __getattr__(name: str) -> Any:
    """What is loaded when it is asked for: the command says that it begins before it has loaded JAX."""
    if name == "__version__":
        return importlib.metadata.version("nlx")
    if name in _DOORS:
        return getattr(importlib.import_module(_DOORS[name]), name)
    if name in _ROOMS or name in __all__:
        return importlib.import_module(f"nlx.{name}")
    raise AttributeError(f"module 'nlx' has no attribute {name!r}")
