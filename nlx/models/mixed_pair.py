"""Two networks that are trained on mixed views of a batch, and say beforehand what they think of each view."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from nlx.arguments import ArgumentError
from nlx.models.head import Outputs
from nlx.models.model import Model, Params, Stats
from nlx.models.pair import pair

VIEWS = 2


def mixed_pair(model: Model, alpha: float = 4.0) -> Model:
    """A pair whose training inputs are two views of every example, each mixed with any other view of the batch.

    Guesses are made first, as in evaluation, and no gradient goes through them. Then every view is mixed with a random
    one of all views, with the weight max(w, 1 - w) of its own, w from Beta(alpha, alpha), and both networks see what
    comes of it.

    Args:
      model: of each, of prepared inputs.
      alpha: of the weights, above 0 (DivideMix 4).

    Returns:
      The model. While it trains, inputs are ``[B, 2, ...]`` and outputs also hold ``guess_logits`` and
      ``mixed_logits``, ``[B, 2, 2, K]`` by view and network; ``mix_weight`` ``[B, 2]``; and ``mix_with``, int32
      ``[B, 2]``, the example of the batch that a view is mixed with. Otherwise inputs are ``[B, ...]``. Always, as of
      :func:`pair`, ``logits`` and ``pair_logits`` ``[B, 2, K]`` (means of the guesses over views), and ``features``,
      which are the pair's logits, ``[B, 2 K]``.

    Raises:
      ArgumentError: ``alpha`` is not above 0; while training, no key, or inputs of another number of views.

    References:
      Berthelot et al., MixMatch, 2019; Li et al., DivideMix, 2020, algorithm 1.
    """
    if not alpha > 0:
        raise ArgumentError(f"`alpha` must be above 0, got {alpha}")
    twins = pair(model)

    def apply(
        params: Params, stats: Stats, inputs: Array, train: bool, key: Array | None = None
    ) -> tuple[Outputs, Stats]:
        if not train:
            return _with_features(twins.apply(params, stats, inputs, False, None)[0]), stats
        if key is None:
            raise ArgumentError("training a mixed pair needs a key: pass jax.random.key(...)")
        if inputs.shape[1] != VIEWS:
            raise ArgumentError(f"a mixed pair learns from two views, [B, 2, ...], got inputs of {inputs.shape}")
        batch, model_key = len(inputs), jax.random.fold_in(key, 2)
        weight_key, order_key = jax.random.split(key)
        views = inputs.reshape(batch * VIEWS, *inputs.shape[2:])
        guessed = jax.lax.stop_gradient(twins.apply(params, stats, views, False, None)[0]["pair_logits"])
        weight = jax.random.beta(weight_key, alpha, alpha, (len(views),)).astype(jnp.float32)
        weight = jnp.maximum(weight, 1 - weight)
        order = jax.random.permutation(order_key, len(views))
        share = weight.reshape((-1,) + (1,) * (views.ndim - 1)).astype(views.dtype)
        outputs, stats = twins.apply(params, stats, share * views + (1 - share) * views[order], True, model_key)
        by_view = (batch, VIEWS, 2, guessed.shape[-1])
        guesses = jax.nn.log_softmax(guessed).reshape(by_view)
        each = jax.nn.logsumexp(guesses, axis=1) - jnp.log(float(VIEWS))
        told = {
            "pair_logits": each,
            "logits": jax.nn.logsumexp(each, axis=1) - jnp.log(2.0),
            "guess_logits": guesses,
            "mixed_logits": outputs["pair_logits"].reshape(by_view),
            "mix_weight": weight.reshape(batch, VIEWS),
            "mix_with": (order // VIEWS).astype(jnp.int32).reshape(batch, VIEWS),
        }
        return _with_features(told), stats

    def apply_test(params: Params, stats: Stats, inputs: Array) -> Outputs:
        return _with_features(twins.apply_test(params, stats, inputs))

    return Model(twins.init, apply, apply_test)


def _with_features(outputs: Outputs) -> Outputs:
    each = outputs["pair_logits"]
    return {**outputs, "features": each.reshape(len(each), -1)}
