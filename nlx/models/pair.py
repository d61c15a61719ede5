"""Two networks side by side, for methods in which each teaches the other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from nlx.models.head import Outputs
from nlx.models.model import Model, Params, Stats


def pair(model: Model) -> Model:
    """Two networks of one kind that begin at different weights and see the same inputs.

    Args:
      model: of each.

    Returns:
      The model. ``logits`` are the logarithm of the mean of both's class probabilities, float32 ``[B, K]``,
      ``features`` the features of both, ``[B, 2 F]``, where they have any, and ``pair_logits`` each one's logits,
      ``[B, 2, K]``.

    Examples:
      >>> from nlx.models import build
      >>> twins = pair(build("mlp", (5,), 3, widths=(8,)))
      >>> outputs = twins.apply_test(*twins.init(jax.random.key(0)), jnp.ones((4, 5)))
      >>> {name: outputs[name].shape for name in sorted(outputs)}
      {'features': (4, 16), 'logits': (4, 3), 'pair_logits': (4, 2, 3)}
    """

    def init(key: Array) -> tuple[Params, Stats]:
        params, stats = zip(*(model.init(k) for k in jax.random.split(key)), strict=True)
        return dict(zip("ab", params, strict=True)), dict(zip("ab", stats, strict=True))

    def apply(
        params: Params, stats: Stats, inputs: Array, train: bool, key: Array | None = None
    ) -> tuple[Outputs, Stats]:
        keys = (None, None) if key is None else jax.random.split(key)
        both = [model.apply(params[i], stats[i], inputs, train, k) for i, k in zip("ab", keys, strict=True)]
        return _joined(*(outputs for outputs, _ in both)), {i: s for i, (_, s) in zip("ab", both, strict=True)}

    def apply_test(params: Params, stats: Stats, inputs: Array) -> Outputs:
        return _joined(*(model.apply_test(params[i], stats[i], inputs) for i in "ab"))

    return Model(init, apply, apply_test)


def _joined(a: Outputs, b: Outputs) -> Outputs:
    logits = jnp.stack([a["logits"], b["logits"]], axis=1)
    mean = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=1) - jnp.log(2.0)
    joined = {"logits": mean, "pair_logits": logits}
    if "features" in a:
        joined["features"] = jnp.concatenate([a["features"], b["features"]], axis=1)
    return joined
