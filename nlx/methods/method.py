"""The one contract of all methods: what a system for noisy labels must say to be trained and to clean labels.

A method is a tuple of pure functions, in the manner of optax's ``GradientTransformation``. Training gives it the
backbone's outputs and a batch; it gives back a loss to train on and a posterior to clean labels with. A simple method
is a ``loss``; everything else has a default. A new system is one file that returns a :class:`Method`.

Vocabulary:
  outputs: what the backbone gives for a batch: ``logits`` ``[B, K]`` and ``features`` ``[B, F]``, float32 whatever it
    computes in; further heads.
  batch: ``noisy_label``, int32 ``[B]`` or {0, 1} float32 ``[B, K]``; ``index``, int32 ``[B]``, the examples' positions
    in the training set; ``inputs`` ``[B, ...]`` as stored. A batch never carries the true label: it is not on the
    device while training. Where a user says that some true labels are to be trusted, ``trusted_label`` holds them,
    int32 ``[B]`` or ``[B, C]``, ``UNKNOWN`` for the others, ``KNOWN_OUTLIER`` for those known to be of no class, and
    ``KNOWN_WRONG`` where no more is known than that the given label is wrong.
  params: what a method trains beside the backbone, a dict of arrays; ``{}`` for nothing.
  memory: what a method keeps for every training example, a NamedTuple of its own with leaves ``[n, ...]``; a batch's
    functions see the batch's rows, ``[B, ...]``. ``()`` for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from nlx.arguments import KNOWN_OUTLIER as KNOWN_OUTLIER
from nlx.arguments import KNOWN_WRONG as KNOWN_WRONG
from nlx.arguments import UNKNOWN as UNKNOWN

Params = Any
Memory = Any
Metrics = dict[str, Array]
Batch = dict[str, Array]
Outputs = dict[str, Array]
Shapes = dict[str, jax.ShapeDtypeStruct]

Kind = Literal["belief", "label", "outlier_score", "value"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Column:
    """A column of a posterior beside its candidates, one row per example.

    Attributes:
      values: ``[B, ...]``.
      kind: what they are. ``belief``: class probabilities ``[B, K]`` such as the classifier's own, which labels are
        cleaned with where held-out models say that more of them are right; ``label``: class numbers, int ``[B]``, -1
        for none; ``outlier_score``: float ``[B]``, higher for what is of no class; ``value``: anything else.
    """

    values: Array
    kind: Kind = field(default="value", metadata={"static": True})


class Candidate(NamedTuple):
    """A belief about the true labels that they may be cleaned with.

    Attributes:
      probs: float32 ``[B, K]``: class probabilities that sum to 1 (single-label), or one probability per class.
      cost: the method's own criterion, computed without true labels, float32 ``[B]``; infinite for what labels must
        not be cleaned with.
    """

    probs: Array
    cost: Array


class Posterior(NamedTuple):
    """Beliefs about the true labels of a batch, given the inputs and the noisy labels.

    Attributes:
      candidates: by name. Most methods have one. While training, the one of lowest mean cost over the training set
        is scored, see :func:`chosen_candidate`; which belief labels are cleaned with in the end, models decide that
        have not seen them, see :func:`nlx.cleaning.guard.best_belief`.
      columns: further columns, by name.
    """

    candidates: dict[str, Candidate]
    columns: dict[str, Column]


_LANES = 128  # of an accelerator's vectors


def as_rows(values: Array) -> Array:
    """Arrays ``[n, ...]`` as rows of memory, ``[n, width]``: longer ones than 128 are filled up to a multiple of that.

    A TPU lays such rows out as they are read and written, one by one; of others it makes a copy at every step, all n.
    """
    rows = values.reshape(values.shape[0], -1)
    width = rows.shape[1]
    return rows if width <= _LANES else jnp.pad(rows, ((0, 0), (0, -width % _LANES)))


def from_rows(rows: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of :func:`as_rows`, ``[n, *shape]``."""
    width = math.prod(shape)
    if rows.shape[1] > width:  # libtpu 0.0.42 cannot compile a cut drawn into the exchange of rows between chips
        rows = jax.lax.optimization_barrier(rows)
    return rows[:, :width].reshape(rows.shape[0], *shape)


def single_posterior(name: str, probs: Array, columns: dict[str, Column] | None = None) -> Posterior:
    """A posterior with one candidate, float ``[B, K]``, which is then the one chosen."""
    return Posterior({name: Candidate(probs, jnp.zeros(probs.shape[0], probs.dtype))}, columns or {})


def chosen_candidate(posterior: Posterior) -> str:
    """The candidate of lowest mean cost: the method's own choice."""
    return min(posterior.candidates, key=lambda name: float(posterior.candidates[name].cost.mean()))


def to_probs(logits: Array, noisy_label: Array) -> Array:
    """Class probabilities of logits ``[B, K]``: a softmax for labels ``[B]``, one sigmoid per class for ``[B, K]``.

    Where exactly one class is true, independent Bernoullis given that are a softmax of their log-odds, so that a method
    with sigmoids has a softmax as its posterior on single-label data.
    """
    return jax.nn.softmax(logits) if noisy_label.ndim == 1 else jax.nn.sigmoid(logits)


def no_state(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
    """The ``init`` of a method that has neither parameters nor memory."""
    del key, outputs, num_classes, size
    return {}, ()


def prediction_posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
    """The classifier's own prediction, as the one candidate ``classifier``."""
    del params, memory
    return single_posterior("classifier", to_probs(outputs["logits"], batch["noisy_label"]))


class Method(NamedTuple):
    """A system for learning with noisy labels.

    Attributes:
      name: what outputs call it.
      loss: (key, params, memory rows, outputs, batch, step) -> (loss ``[B]``, memory rows, metrics). The backbone and
        ``params`` follow the gradient of the loss's mean. Memory rows come back as they are to be stored; a leaf that
        comes back as it was given is not written. Metrics, scalars or ``[B]`` by name, are logged as epoch means.
      posterior: (params, memory rows, outputs, batch) -> Posterior.
      init: (key, shapes of a batch's outputs, K, n) -> (params, memory with leaves ``[n, ...]``).
      project: params -> params, after every optimizer step (a simplex projection, say).
      frozen: names of ``params`` that stay as ``init`` gives them, whatever the optimizer does.
      refresh: (key, memory, features of the training set ``[n, F]``, labels) -> memory, between epochs. The labels are
        ``noisy_label`` and, where some are trusted, ``trusted_label``; -1 in rows that only pad. None where the method
        has no use for it, so that no pass over the data is spent.
      refresh_after: whether ``refresh`` is wanted after the given number of epochs.
      predict: (params, outputs) -> scores ``[B, K]``, log-odds or logits, of examples without a noisy label.
      outliers: whether ``loss`` learns from known outliers; otherwise the step leaves them out of its mean, for their
        noisy label is a random one.
      transition: params -> the transition matrix that the method believes in, ``[K, K]`` or ``[K, 2, 2]``; None where
        it has none.
    """

    name: str
    loss: Callable[[Array, Params, Memory, Outputs, Batch, Array], tuple[Array, Memory, Metrics]]
    posterior: Callable[[Params, Memory, Outputs, Batch], Posterior] = prediction_posterior
    init: Callable[[Array, Shapes, int, int], tuple[Params, Memory]] = no_state
    project: Callable[[Params], Params] = lambda params: params
    refresh: Callable[[Array, Memory, Array, Batch], Memory] | None = None
    refresh_after: Callable[[int], bool] = lambda epochs: True
    predict: Callable[[Params, Outputs], Array] = lambda params, outputs: outputs["logits"]
    transition: Callable[[Params], Array] | None = None
    outliers: bool = False
    frozen: tuple[str, ...] = ()
