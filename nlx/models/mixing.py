"""Training on pairs of examples: mixup and CutMix."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from nlx.arguments import ArgumentError
from nlx.models.head import Outputs
from nlx.models.model import Model, Params, Stats

SHARE = "mix_share"
"""Output of a mixing model while it trains: the weight of each example beside the one that it is paired with, the last
with the first; :func:`nlx.training.step.make_step` weighs the losses of both labels by it."""


def mixing(model: Model, kind: Literal["mixup", "cutmix"], alpha: float) -> Model:
    """A model that mixes the examples of a batch while it trains, each with the one as far from the other end.

    Args:
      model: of prepared inputs.
      kind: ``mixup``, the mean of two inputs; ``cutmix``, a picture with a rectangle of the other one in it.
      alpha: the weight of the first is drawn from Beta(alpha, alpha) for each pair; of ``cutmix`` it is then the share
        of the picture that is left.

    Returns:
      The model, whose outputs have ``mix_share``, float32 ``[B]``, while it trains.

    References:
      Zhang et al., 2018, mixup: Beyond empirical risk minimization; Yun et al., 2019, CutMix.
    """

    def apply(
        params: Params, stats: Stats, inputs: Array, train: bool, key: Array | None = None
    ) -> tuple[Outputs, Stats]:
        if not train:
            return model.apply(params, stats, inputs, train, key)
        if key is None:
            raise ArgumentError("training with `mix` needs a key: pass jax.random.key(...)")
        mix_key, place_key, model_key = jax.random.split(key, 3)
        share = jax.random.beta(mix_key, alpha, alpha, (len(inputs),)).astype(jnp.float32)
        if kind == "cutmix":
            if inputs.ndim != 4:
                raise ArgumentError("`mix`=cutmix is for pictures: take mixup")
            kept = _outside(place_key, share, inputs.shape[1:3])
            share = jnp.mean(kept, axis=(1, 2), dtype=jnp.float32)
            mixed = jnp.where(kept[..., None], inputs, inputs[::-1])
        else:
            weight = share.reshape((-1,) + (1,) * (inputs.ndim - 1)).astype(inputs.dtype)
            mixed = weight * inputs + (1 - weight) * inputs[::-1]
        outputs, stats = model.apply(params, stats, mixed, train, model_key)
        return {**outputs, SHARE: share}, stats

    return Model(model.init, apply, model.apply_test)


def _outside(key: Array, share: Array, shape: tuple[int, ...]) -> Array:
    """Outside a rectangle of about ``1 - share`` of a picture, at a random place and cut off at its edges, bool."""
    kept = []
    for axis, (size, k) in enumerate(zip(shape, jax.random.split(key), strict=True)):
        half = jnp.sqrt(1 - share) * size / 2
        middle = jax.random.uniform(k, share.shape, maxval=size)
        at = jnp.arange(size, dtype=jnp.float32)[None] + 0.5
        inside = jnp.abs(at - middle[:, None]) < half[:, None]
        kept.append(jnp.expand_dims(inside, 2 - axis))
    return ~(kept[0] & kept[1])
