"""What small networks tell of a label while they are trained on it, joined with what is known without it."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import optax
from jax import Array
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from nlx.cleaning.blocks import row_blocks
from nlx.data.dataset import Split
from nlx.methods.dynamics import Dynamics, with_dynamics
from nlx.methods.plain import cross_entropy, plain
from nlx.models import build
from nlx.training.mesh import make_mesh
from nlx.training.stages import Stage, cosine
from nlx.training.trainer import Trainer

_NETWORKS, _HIDDEN, _BATCH, _EPOCHS, _STEPS = 3, 256, 128, 8, 400
_RATE, _DECAY = 0.05, 5e-4
_LEAST = 1e-4  # probability


def margins(split: Split, key: Array, num_classes: int) -> dict[str, np.ndarray]:
    """Train a few small networks side by side, briefly, and keep how every label fares on the way.

    Args:
      split: prepared features and one label per example.
      key: typed PRNG key.
      num_classes: K.

    Returns:
      ``aum``, ``confidence`` and ``variability``, float32 ``[n]``, means over the networks, see
      :func:`nlx.methods.dynamics.with_dynamics`.
    """
    n, inputs = len(split), np.asarray(split.inputs)
    # Of one size whatever their number: the rate is for such.
    split = replace(split, inputs=inputs / max(float(inputs.std()), 1e-6))
    batch = min(_BATCH, max(1, n // 4))
    optimizer = optax.chain(optax.add_decayed_weights(_DECAY), optax.sgd(_RATE, momentum=0.9))
    network = build("mlp", split.inputs.shape[1:], num_classes, widths=(_HIDDEN,))
    method = with_dynamics(plain(cross_entropy, "plain"))
    trainer = Trainer(network, method, optimizer, batch_size=batch, mesh=make_mesh(jax.local_devices()[:1]))
    stage = Stage(max(_EPOCHS, -(-_STEPS // max(1, n // batch))), schedule=cosine)
    fitted = trainer.fit_many(split, jax.random.split(key, _NETWORKS), stage)
    kept: list[Dynamics] = [fitted.member(i).state.memory[1] for i in range(_NETWORKS)]
    columns = {
        "aum": [np.asarray(each.margin) for each in kept],
        "confidence": [np.asarray(each.prob) for each in kept],
        "variability": [np.sqrt(np.asarray(each.squares) / np.maximum(each.visits, 1)) for each in kept],
    }
    return {name: np.mean(values, axis=0)[:n] for name, values in columns.items()}


def join(posterior: ArrayLike, labels: ArrayLike, aum: ArrayLike) -> np.ndarray:
    r"""A posterior in which the margin of the given label, which it does not know of, counts as much as all else.

    .. math:: \operatorname{logit} q'_{\tilde y} = \tfrac12 \operatorname{logit} q_{\tilde y}
        + \tfrac12 \operatorname{logit} g(\mathrm{AUM})

    with g the isotonic regression of :math:`q_{\tilde y}` on the margin: the one never sees a true label, and the other
    gives the margin its scale. The other classes share the rest as before.

    Args:
      posterior: q, p(true label | x, given label), float ``[n, K]``.
      labels: given classes in ``[0, K)``, int ``[n]``.
      aum: margins, finite, float ``[n]``.

    Returns:
      q', float32 ``[n, K]``.

    Examples:
      >>> q = np.array([[0.7, 0.3], [0.7, 0.3], [0.7, 0.3], [0.7, 0.3], [0.2, 0.8]])
      >>> join(q, np.zeros(5, int), np.array([2.0, 3.0, 2.5, 2.0, -1.0])).round(1)[[0, 4]]
      array([[0.7, 0.3],
             [0.2, 0.8]], dtype=float32)
    """
    q, y = np.asarray(posterior), np.asarray(labels)
    score = np.clip(np.take_along_axis(q, y[:, None], axis=1)[:, 0].astype(np.float64), _LEAST, 1 - _LEAST)
    scaled = np.clip(IsotonicRegression().fit_transform(np.asarray(aum, np.float64), score), _LEAST, 1 - _LEAST)
    after, joined = expit((logit(score) + logit(scaled)) / 2), np.empty(q.shape, np.float32)
    for rows in row_blocks(*q.shape):
        others, own = q[rows].astype(np.float64), y[rows, None]
        np.put_along_axis(others, own, 0, axis=1)
        rest = others.sum(axis=1, keepdims=True)
        # Where nothing was left for the others they are alike.
        shares = np.where(rest > 0, others / np.where(rest > 0, rest, 1), 1 / max(1, q.shape[1] - 1))
        joined[rows] = (1 - after[rows, None]) * shares
        np.put_along_axis(joined[rows], own, after[rows, None].astype(np.float32), axis=1)
    return joined
