"""GLAD: how able annotators are and how easy items, by EM."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import at_least, in_range, varying
from nlx.crowd.em import Known, class_prior_of, known_of, seen
from nlx.crowd.sums import Sizes, scattered

_FARTHEST = 1.0  # that a step may go: where all answers agree, curvature vanishes before the slope does


class Glad(NamedTuple):
    """What answers say of true labels, annotators and items.

    Attributes:
      posterior: p(true class given all answers), float32 ``[N, K]``; rows sum to 1.
      ability: alpha, 0 for who guesses between right and wrong, negative for who is rather wrong, float32 ``[A]``.
      ease: beta, above 0, low for items on which even the able err, float32 ``[N]``.
      class_prior: p(true class), float32 ``[K]``.
      iterations: of EM, int32.
      change: of any probability in the last of them, at most.
    """

    posterior: Array
    ability: Array
    ease: Array
    class_prior: Array
    iterations: Array
    change: Array


class _State(NamedTuple):
    done: Array
    change: Array
    posterior: Array
    ability: Array
    log_ease: Array


def glad(
    items: ArrayLike,
    annotators: ArrayLike,
    labels: ArrayLike,
    *,
    num_items: int,
    num_annotators: int,
    num_classes: int,
    log_prior: ArrayLike | None = None,
    trusted: ArrayLike | None = None,
    steps: int = 5,
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> Glad:
    r"""GLAD: the abler who answers and the easier the item, the likelier is an answer right.

    .. math:: p(\text{right}) = \sigma(\alpha_a \beta_n), \qquad
        \alpha_a \sim \mathcal N(1, 1), \quad \log \beta_n \sim \mathcal N(1, 1)

    and each wrong class is as likely as another. The M step goes up the expected log-posterior by Fisher scoring, first
    in the abilities, of which each has a concave problem of its own, then in the items' ease. Items with a single
    answer have no part in it, unless they are trusted or have a prior of their own.

    Args:
      items: which item an answer is about, in ``[0, N)``, int ``[M]``; others do not count.
      annotators: who answers, in ``[0, A)``, int ``[M]``; likewise.
      labels: the answers, in ``[0, K)``, int ``[M]``; likewise, so that -1 is an abstention.
      num_items: N.
      num_annotators: A.
      num_classes: K, at least 2.
      log_prior: unnormalized log p(true class) of each item, float ``[N, K]``; None for one class prior, learnt.
      trusted: true classes where they are known, int ``[N]``, -1 elsewhere.
      steps: of the M step.
      iterations: of EM, at most.
      tolerance: EM ends where no probability changes by more.

    Returns:
      Beliefs about items and annotators.

    Raises:
      TypeError: numbers not integers, or log_prior not floating.
      ValueError: shapes disagree, or an argument is out of its range.

    References:
      Whitehill et al., 2009, with several classes as in its supplement.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    at_least(1, iterations=iterations, steps=steps)
    in_range(tolerance, "tolerance", 0)
    sizes = Sizes(num_items, num_annotators, num_classes)
    answers = scattered(items, annotators, labels, sizes)
    known = known_of(answers, log_prior, trusted, sizes)
    return _glad(
        answers.item, answers.cell, sizes, known, jnp.int32(steps), jnp.int32(iterations), jnp.float32(tolerance)
    )


@partial(jax.jit, static_argnames="sizes")
def _glad(
    item: Array, cell: Array, sizes: Sizes, known: Known, steps: Array, iterations: Array, tolerance: Array
) -> Glad:
    n, a, k = sizes
    annotator, label = cell // k, cell % k
    log_prior, trusted, telling = known
    judged = item if telling is None else jnp.where(jnp.take(telling, item, mode="clip"), item, n)
    judging = jnp.where(judged < n, annotator, a)

    def by_item(values: Array) -> Array:
        return jax.ops.segment_sum(values, judged, n, mode="drop")

    def by_annotator(values: Array) -> Array:
        return jax.ops.segment_sum(values, judging, a, mode="drop")

    def at_answers(ability: Array, log_ease: Array) -> tuple[Array, Array, Array]:
        able, ease = jnp.take(ability, annotator, mode="clip"), jnp.exp(jnp.take(log_ease, item, mode="clip"))
        return able, ease, able * ease

    def believe(ability: Array, log_ease: Array, class_prior: Array) -> Array:
        # Only the log-odds of a right answer tell classes apart, which are linear in alpha beta.
        weight = at_answers(ability, log_ease)[2] + math.log(k - 1)
        votes = jnp.zeros((n, k), weight.dtype).at[item, label].add(weight, mode="drop")
        prior = jnp.log(class_prior)[None, :] if log_prior is None else log_prior
        posterior = jax.nn.softmax(prior + votes)
        if trusted is None:
            return posterior
        return jnp.where(trusted[:, None] >= 0, jax.nn.one_hot(trusted, k, dtype=posterior.dtype), posterior)

    def uphill(_: Array, parameters: tuple[Array, Array], right: Array) -> tuple[Array, Array]:
        ability, log_ease = parameters
        _, ease, x = at_answers(ability, log_ease)
        p = jax.nn.sigmoid(x)
        slope = by_annotator((right - p) * ease) - (ability - 1)
        ability = ability + _step(slope, by_annotator(p * (1 - p) * ease**2) + 1)
        _, _, x = at_answers(ability, log_ease)
        p = jax.nn.sigmoid(x)
        slope = by_item((right - p) * x) - (log_ease - 1)
        return ability, log_ease + _step(slope, by_item(p * (1 - p) * x**2) + 1)

    def once(state: _State) -> _State:
        posterior = believe(state.ability, state.log_ease, class_prior_of(seen(state.posterior, known)))
        right = posterior[jnp.minimum(item, n - 1), label]
        climb = partial(uphill, right=right)
        ability, log_ease = jax.lax.fori_loop(0, steps, climb, (state.ability, state.log_ease))
        change = jnp.max(jnp.abs(posterior - state.posterior))
        return _State(state.done + 1, change, posterior, ability, log_ease)

    def again(state: _State) -> Array:
        return (state.done < iterations) & (state.change > tolerance)

    uniform, ones = jnp.full((n, k), 1 / k, jnp.float32), (jnp.ones(a, jnp.float32), jnp.ones(n, jnp.float32))
    start = _State(jnp.int32(0), jnp.float32(jnp.inf), uniform, *ones)
    start = jax.tree.map(lambda x: varying(x, *jax.tree.leaves((item, cell, known))), start)
    end = jax.lax.while_loop(again, once, start)
    prior = class_prior_of(seen(end.posterior, known))
    return Glad(end.posterior, end.ability, jnp.exp(end.log_ease), prior, end.done, end.change)


def _step(slope: Array, curvature: Array) -> Array:
    return jnp.clip(slope / curvature, -_FARTHEST, _FARTHEST)
