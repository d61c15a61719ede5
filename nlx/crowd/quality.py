"""What a consensus says of answers, of those who answer, and of what is worth asking again."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import ndtri, xlogy
from jax.typing import ArrayLike

from nlx.arguments import at_least, class_vector, floating, in_range, same_shape


class Quality(NamedTuple):
    """How often annotators are right, float32 ``[A]``.

    Attributes:
      answers: how many answers of theirs count.
      right: share of them that is expected to be right; 0.5 without any.
      low: lower end of its interval; 0 without any answer.
      high: upper end; 1 likewise.
    """

    answers: Array
    right: Array
    low: Array
    high: Array


def answer_probs(posterior: ArrayLike, items: ArrayLike, labels: ArrayLike) -> Array:
    """The probability of each answer to be right.

    Args:
      posterior: p(true class given all answers), float ``[N, K]``.
      items: which item an answer is about, in ``[0, N)``, int ``[M]``.
      labels: the answers, in ``[0, K)``, int ``[M]``.

    Returns:
      float ``[M]``; NaN for an answer whose item or label is none.

    Raises:
      TypeError: posterior not floating, or numbers not integers.
      ValueError: shapes disagree.

    Examples:
      >>> answer_probs(jnp.array([[0.75, 0.25]]), jnp.array([0, 0]), jnp.array([0, -1]))
      Array([0.75,  nan], dtype=float32)
    """
    belief, item, _, label = checked_answers(posterior, items, items, labels)
    return jnp.where((item >= 0) & (label >= 0), belief[jnp.maximum(item, 0), jnp.maximum(label, 0)], jnp.nan)


def annotator_quality(
    posterior: ArrayLike,
    items: ArrayLike,
    annotators: ArrayLike,
    labels: ArrayLike,
    *,
    num_annotators: int,
    confidence: float = 0.95,
) -> Quality:
    r"""How often each annotator is right, with an interval.

    The interval is Wilson's, on as many answers as are worth what is known: which of them are right is not certain, and
    of their Fisher information on the share r that part is missing,

    .. math:: n' = n \Big(1 - \frac{\overline{q (1 - q)}}{r (1 - r)}\Big)

    with q the probability of an answer to be right. Where every answer is as likely right as another, nothing is known.

    Args:
      posterior: p(true class given all answers), float ``[N, K]``.
      items: which item an answer is about, in ``[0, N)``, int ``[M]``; others do not count.
      annotators: who answers, in ``[0, A)``, int ``[M]``; likewise.
      labels: the answers, in ``[0, K)``, int ``[M]``; likewise.
      num_annotators: A.
      confidence: of the interval, in (0, 1].

    Raises:
      TypeError: posterior not floating, or numbers not integers.
      ValueError: shapes disagree, or an argument is out of its range.

    Examples:
      >>> posterior = jnp.array([[1.0, 0.0], [0.5, 0.5]])
      >>> q = annotator_quality(posterior, jnp.array([0, 1]), jnp.array([0, 0]), jnp.array([0, 0]), num_annotators=2)
      >>> print(f"{q.right[0]:.2f}, from {q.low[0]:.2f} to {q.high[0]:.2f}")
      0.75, from 0.08 to 0.99

    References:
      Wilson, 1927; Louis, 1982, equation 3.2.
    """
    at_least(1, num_annotators=num_annotators)
    in_range(confidence, "confidence", 0, 1, above=True)
    belief, item, annotator, label = checked_answers(posterior, items, annotators, labels, num_annotators)
    counts = (item >= 0) & (annotator >= 0) & (label >= 0)
    who = jnp.where(counts, annotator, num_annotators)
    p = belief[jnp.maximum(item, 0), jnp.maximum(label, 0)].astype(jnp.float32)
    sums = (jax.ops.segment_sum(x, who, num_annotators, mode="drop") for x in (jnp.ones_like(p), p, p * (1 - p)))
    answers, right, unsure = sums
    some = jnp.maximum(answers, 1.0)
    share = jnp.where(answers > 0, right / some, 0.5)
    spread = share * (1 - share)
    worth = jnp.where(spread > 1e-6, some - unsure / jnp.maximum(spread, 1e-6), some)
    worth = jnp.maximum(worth, 0.0)
    z = ndtri(jnp.float32(0.5 + confidence / 2))
    middle = (share * worth + z**2 / 2) / (worth + z**2)
    reach = z * jnp.sqrt(spread * worth + z**2 / 4) / (worth + z**2)
    low, high = jnp.maximum(middle - reach, 0.0), jnp.minimum(middle + reach, 1.0)
    return Quality(answers, share, jnp.where(answers > 0, low, 0.0), jnp.where(answers > 0, high, 1.0))


def expected_information(posterior: ArrayLike, confusion: ArrayLike) -> Array:
    r"""How much one more answer is expected to say of each item's true class.

    .. math:: I_{ng} = H\Big(\sum_i q_n(i)\, T^g_{i\cdot}\Big) - \sum_i q_n(i)\, H(T^g_{i\cdot})

    Args:
      posterior: p(true class given all answers so far), float ``[N, K]``.
      confusion: of who might be asked, ``T[g, i, j] = p(answers j | true class i)``, float ``[G, K, K]``.

    Returns:
      Mutual information of the answer and the true class in nats, float ``[N, G]``: 0 for items that are certain and
      annotators who guess.

    Raises:
      TypeError: not floating.
      ValueError: shapes disagree.

    Examples:
      >>> sure, guess = jnp.eye(2), jnp.full((2, 2), 0.5)
      >>> print(expected_information(jnp.array([[0.5, 0.5], [1.0, 0.0]]), jnp.stack([sure, guess])).round(2))
      [[0.69 0.  ]
       [0.   0.  ]]

    References:
      Lindley, 1956.
    """
    belief, matrices = floating(posterior, "posterior"), floating(confusion, "confusion")
    if belief.ndim != 2 or matrices.ndim != 3 or matrices.shape[1:] != (belief.shape[1],) * 2:
        raise ValueError(f"posterior must be [N, K] and confusion [G, K, K], got {belief.shape} and {matrices.shape}")
    answer = jnp.einsum("ni,gij->ngj", belief, matrices)
    certain = belief @ _entropy(matrices).T
    return jnp.maximum(_entropy(answer) - certain, 0.0)


def _entropy(p: Array) -> Array:
    return -jnp.sum(xlogy(p, p), axis=-1)


def checked_answers(
    posterior: ArrayLike, items: ArrayLike, annotators: ArrayLike, labels: ArrayLike, num_annotators: int | None = None
) -> tuple[Array, Array, Array, Array]:
    """Beliefs ``[N, K]`` and answers whose numbers are in range or -1.

    Raises:
      TypeError: posterior not floating, or numbers not integers.
      ValueError: shapes disagree.
    """
    belief = floating(posterior, "posterior")
    if belief.ndim != 2 or 0 in belief.shape:
        raise ValueError(f"posterior must be [N, K], of at least 1 item, got {belief.shape}")
    item, label = class_vector(items, "items", belief.shape[0]), class_vector(labels, "labels", belief.shape[1])
    most = np.iinfo(np.int32).max if num_annotators is None else num_annotators
    annotator = class_vector(annotators, "annotators", most)
    for name, other in (("annotators", annotator), ("labels", label)):
        same_shape(name, other.shape, "items", item.shape)
    return belief, item, annotator, label
