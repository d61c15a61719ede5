"""Learning from what others believe of every example, which is also what its labels are cleaned with."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from nlx.arguments import ArgumentError
from nlx.methods.method import (
    Batch,
    Column,
    Memory,
    Method,
    Metrics,
    Outputs,
    Params,
    Posterior,
    Shapes,
    as_rows,
    from_rows,
    single_posterior,
)


class Beliefs(NamedTuple):
    """What is kept of every example: probabilities of its classes, float32 ``[n, K]`` :func:`as_rows`."""

    probs: Array


def distill(beliefs: ArrayLike) -> Method:
    r"""Cross-entropy with beliefs q in the place of labels.

    .. math:: \ell = -\sum_k q_k \log p_k

    The noisy label enters by the beliefs alone. Memory: 4 K bytes an example.

    Args:
      beliefs: q, class probabilities of every training example, float ``[n, K]``, rows that sum to 1.

    Returns:
      A method for one label per example. Its posterior is q; the column ``classifier`` is what the network itself says.

    Raises:
      ArgumentError: rows that are no probabilities; at ``init``, of another number of examples or classes.

    References:
      Hinton, Vinyals and Dean, 2015, section 2, at temperature 1.
    """
    q = np.asarray(beliefs, np.float32)
    if q.ndim != 2 or not q.size or not (q >= 0).all() or not np.allclose(q.sum(axis=1), 1, atol=1e-3):
        raise ArgumentError(f"`beliefs` must be probabilities [n, K] whose rows sum to 1, got shape {q.shape}")

    def init(key: Array, outputs: Shapes, num_classes: int, size: int) -> tuple[Params, Memory]:
        del key, outputs
        if q.shape[1] != num_classes or len(q) > size:
            raise ArgumentError(f"`beliefs` {list(q.shape)} are not of {size} examples and {num_classes} classes")
        # Rows beyond the examples fill up the devices' shares, and are never visited.
        return {}, Beliefs(as_rows(jnp.asarray(np.pad(q, ((0, size - len(q)), (0, 0))))))

    def loss(
        key: Array, params: Params, memory: Memory, outputs: Outputs, batch: Batch, step: Array
    ) -> tuple[Array, Memory, Metrics]:
        del key, params, batch, step
        log_p = jax.nn.log_softmax(logits := outputs["logits"])
        return -jnp.sum(from_rows(memory.probs, logits.shape[1:]) * log_p, axis=1), memory, {}

    def posterior(params: Params, memory: Memory, outputs: Outputs, batch: Batch) -> Posterior:
        del params, batch
        classifier = Column(jax.nn.softmax(logits := outputs["logits"]))
        return single_posterior("beliefs", from_rows(memory.probs, logits.shape[1:]), {"classifier": classifier})

    return Method("distill", loss, posterior, init)
