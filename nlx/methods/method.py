"""The one contract of all methods: what a system for noisy labels must say to be trained, evaluated and exported.

A method is a tuple of pure functions, in the manner of optax's ``GradientTransformation``. Training code gives it the
backbone's outputs and a batch; it gives back a loss to train on and a posterior to clean labels with. A new system is
one file that returns a :class:`Method`, and one recipe.

Vocabulary:
  outputs: what the backbone gives for a batch: ``logits`` float32 ``[B, K]``, ``features`` ``[B, F]``, further heads.
  batch: ``noisy_label``, int32 ``[B]`` or {0, 1} float32 ``[B, K]``; ``index``, int32 ``[B]``, the examples' positions
    in the training set; ``image`` or ``features``. A batch never carries the true label: it is not on the device while
    training. Where a user says that some true labels are to be trusted, ``trusted_label`` holds them, int32 ``[B]`` or
    ``[B, C]``, ``UNKNOWN`` for the others, and ``KNOWN_OUTLIER`` for those known to be of no class.
  params: what a method trains beside the backbone. A method may have none: ``{}``.
  memory: what a method keeps for every training example, leaves ``[n, ...]``; a batch's functions see the batch's
    rows, ``[B, ...]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

Params = Any
Memory = Any
Batch = dict[str, Array]
Outputs = dict[str, Array]

UNKNOWN = -1
"""Trusted label of an example whose true label is not to be known."""
KNOWN_OUTLIER = -2
"""Trusted label of an example that is known to be of no class."""


class Aux(NamedTuple):
    """What a loss gives besides its value.

    Attributes:
      metrics: values to log as epoch means, scalars or ``[B]``.
      memory: the batch's rows of memory as they are to be stored, or None to leave the memory as it is.
    """

    metrics: dict[str, Array]
    memory: Memory | None = None


class Posterior(NamedTuple):
    """Beliefs about the true labels of a batch, given the inputs and the noisy labels.

    Attributes:
      candidates: by name, float32 ``[B, K]``: class probabilities that sum to 1 (single-label) or one probability per
        class (multi-label). Most methods have one.
      cost: by the same names, float32 ``[B]``: the method's own criterion, computed without true labels. Labels are
        cleaned with the candidate of lowest mean cost over the training set.
      extras: further columns for the export, ``[B, ...]``.
    """

    candidates: dict[str, Array]
    cost: dict[str, Array]
    extras: dict[str, Array]


class Method(NamedTuple):
    """A system for learning with noisy labels.

    Attributes:
      name: what outputs call it.
      init: (key, batch, dataset size n) -> (params, memory with leaves ``[n, ...]``).
      loss: (params, memory rows, outputs, batch, key, step) -> (loss ``[B]``, Aux). The backbone and ``params`` follow
        the gradient of its mean.
      posterior: (params, memory rows, outputs, batch) -> Posterior.
      project: params -> params, after every optimizer step (a simplex projection, say).
      refresh: (memory, features of the training set ``[n, F]``, its labels, key) -> memory, after an epoch. The labels
        are a dict of ``noisy_label`` and, where some are trusted, ``trusted_label``; -1 in rows that only pad. None
        where the method has no use for it, so that no pass over the data is spent.
      refresh_after: whether ``refresh`` is wanted after the given number of epochs.
      predict: (params, outputs) -> scores ``[B, C]`` that test examples are ranked by; the logits as they are, unless
        the method has something better to say.
      transition: params -> the transition matrix that the method believes in, ``[K, K]`` or ``[K, 2, 2]``; None where
        it has none.
      columns: extras of all training examples as NumPy arrays -> further columns for the export, such as ranks.
      facts: what was found before training, numbers by name, for config.json and the report.
    """

    name: str
    init: Callable[[Array, Batch, int], tuple[Params, Memory]]
    loss: Callable[[Params, Memory, Outputs, Batch, Array, Array], tuple[Array, Aux]]
    posterior: Callable[[Params, Memory, Outputs, Batch], Posterior]
    project: Callable[[Params], Params] = lambda params: params
    refresh: Callable[[Memory, Array, Batch, Array], Memory] | None = None
    refresh_after: Callable[[int], bool] = lambda epochs: True
    predict: Callable[[Params, Outputs], Array] = lambda params, outputs: outputs["logits"]
    transition: Callable[[Params], Array] | None = None
    columns: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda extras: {}
    facts: Mapping[str, float] = MappingProxyType({})


def without_state(key: Array, batch: Batch, size: int) -> tuple[Params, Memory]:
    """The ``init`` of a method that has neither parameters nor memory."""
    del key, batch, size
    return {}, {}


def only(name: str, probs: Array, extras: dict[str, Array] | None = None) -> Posterior:
    """A posterior with one candidate, float ``[B, K]``, which is then the one chosen."""
    return Posterior({name: probs}, {name: jnp.zeros(probs.shape[0])}, extras or {})


def followed_by(method: Method, last: Method, start: int) -> Method:
    """A method whose loss gives way to that of another, which has neither parameters nor memory.

    Args:
      method: until ``start``; its posterior and memory stay to the end.
      last: from ``start`` on.
      start: step.

    Returns:
      The method, under the first one's name.
    """

    def loss(
        params: Params, memory: Memory, outputs: Outputs, batch: Batch, key: Array, step: Array
    ) -> tuple[Array, Aux]:
        before, aux = method.loss(params, memory, outputs, batch, key, step)
        after, _ = last.loss({}, {}, outputs, batch, key, step)
        return jnp.where(step < start, before, after), aux

    return method._replace(loss=loss)
