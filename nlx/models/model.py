"""Models by name, as pure functions of parameters and batch statistics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from nlx.models.convnet import ConvNet
from nlx.models.head import Outputs
from nlx.models.mlp import AMT_WIDTHS, MLP
from nlx.models.resnet import DEPTHS, ResNet

Params = dict[str, Any]
Stats = dict[str, Any]

NAMES = ("mlp", "mlp-amt", "convnet", *(f"resnet{depth}" for depth in DEPTHS))
"""Every name that `build` knows."""

_SMALL = 64  # pixels; up to this size a ResNet starts with one 3x3 convolution and no pooling


class Model(NamedTuple):
    """A network as pure functions.

    Attributes:
      init: ``(key) -> (params, stats)``, nested dicts of arrays; stats are the running means and variances of batch
        normalization, empty where there is none.
      apply: ``(params, stats, inputs, train, key) -> (outputs, stats)``: inputs float ``[B, ...]``, train a Python
        bool, key for dropout (None where nothing is dropped); outputs ``logits`` ``[B, K]`` and ``features``
        ``[B, F]``, float32. The stats that come back differ from those that went in only where train is True.
      num_features: F, the width of ``features``, which is the input of the last layer.
    """

    init: Callable[[jax.Array], tuple[Params, Stats]]
    apply: Callable[[Params, Stats, jax.Array, bool, jax.Array | None], tuple[Outputs, Stats]]
    num_features: int


def build(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    widths: tuple[int, ...] | None = None,
    dropout: float = 0.0,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Model:
    """Make a model; nothing is allocated before its ``init`` is called.

    Args:
      name: one of `NAMES`. ``mlp-amt`` is an ``mlp`` with the hidden widths (1024, 30).
      input_shape: shape of one input: ``(F,)``, or ``(H, W, C)`` for images. A ResNet on at most 64 pixels starts with
        one 3x3 convolution, on larger images with a 7x7 of stride 2 and a max-pooling.
      num_classes: K.
      widths: hidden widths of ``mlp`` (default 512, 512) or ``convnet`` (default 32, 64, 128 channels, dense 128).
      dropout: probability that a value becomes 0 while training: behind every hidden layer of an ``mlp``, before the
        last layer of the others.
      dtype: dtype of the computation before the last layer, e.g. ``jnp.bfloat16``; parameters, batch statistics and
        outputs are float32.

    Returns:
      The model.

    Raises:
      ValueError: unknown name, an input shape the model cannot take, or widths for a model that has its own.

    Examples:
      >>> model = build("mlp", (8, 8, 1), num_classes=10, widths=(32,))
      >>> params, stats = model.init(jax.random.key(0))
      >>> outputs, stats = model.apply(params, stats, jnp.ones((5, 8, 8, 1)), False, None)
      >>> outputs["logits"].shape, outputs["features"].shape
      ((5, 10), (5, 32))
    """
    make = _constructor(name, input_shape, num_classes, widths, dropout, dtype)
    # The graph is static; traced abstractly here, once for training and once for evaluation.
    skeleton = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    skeleton.train()
    train_graph = nnx.graphdef(skeleton)
    skeleton.eval()
    eval_graph = nnx.graphdef(skeleton)

    def init(key: jax.Array) -> tuple[Params, Stats]:
        model = make(nnx.Rngs(params=key))
        return nnx.to_pure_dict(nnx.state(model, nnx.Param)), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    def apply(
        params: Params, stats: Stats, inputs: jax.Array, train: bool, key: jax.Array | None = None
    ) -> tuple[Outputs, Stats]:
        if inputs.shape[1:] != tuple(input_shape):
            raise ValueError(f"{name} was built for inputs [B, {', '.join(map(str, input_shape))}], got {inputs.shape}")
        if not jnp.issubdtype(inputs.dtype, jnp.floating):
            raise TypeError(f"inputs must be floating, got {inputs.dtype}: normalize images before the model")
        # Merged from pure dicts at every call: variables of an outer trace could not be written under jax.grad.
        model = nnx.merge(train_graph if train else eval_graph, params, stats)
        outputs = model(inputs, key)
        if not (train and stats):
            return outputs, stats
        return outputs, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    return Model(init, apply, skeleton.head.num_features)


def _constructor(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    widths: tuple[int, ...] | None,
    dropout: float,
    dtype: jax.typing.DTypeLike,
) -> Callable[[nnx.Rngs], Any]:
    if name not in NAMES:
        raise ValueError(f"unknown model {name!r}, choose one of: {', '.join(NAMES)}")
    if widths is not None and name not in ("mlp", "convnet"):
        raise ValueError(f"{name} has its own widths: leave them out, or choose mlp or convnet")
    options: dict[str, Any] = {"dropout": dropout, "dtype": dtype}
    if name.startswith("mlp"):
        widths = AMT_WIDTHS if name == "mlp-amt" else widths
        if widths is not None:
            options["widths"] = tuple(widths)
        return lambda rngs: MLP(math.prod(input_shape), num_classes, rngs=rngs, **options)
    if len(input_shape) != 3:
        raise ValueError(f"{name} takes images (H, W, C), got inputs of shape {tuple(input_shape)}: use mlp")
    height, width, channels = input_shape
    if name == "convnet":
        if widths is not None:
            options["widths"] = tuple(widths)
        return lambda rngs: ConvNet((height, width, channels), num_classes, rngs=rngs, **options)
    depth = int(name.removeprefix("resnet"))
    stem = "32" if max(height, width) <= _SMALL else "224"
    return lambda rngs: ResNet(depth, channels, num_classes, stem=stem, rngs=rngs, **options)
