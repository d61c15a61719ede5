"""Models as pure functions of parameters and statistics: by name, from your own Flax module, with preparation."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from nlx.arguments import ArgumentError
from nlx.models.convnet import ConvNet
from nlx.models.head import Outputs
from nlx.models.mlp import AMT_WIDTHS, MLP
from nlx.models.resnet import DEPTHS, ResNet

Params = dict[str, Any]
Stats = dict[str, Any]
Apply = Callable[[Params, Stats, Array, bool, Array | None], tuple[Outputs, Stats]]

NAMES = ("mlp", "mlp-amt", "convnet", *(f"resnet{depth}" for depth in DEPTHS))
"""Every name that `build` knows."""

_SMALL = 64  # pixels; up to this size a ResNet starts with one 3x3 convolution and no pooling


class Model(NamedTuple):
    """A network as pure functions.

    Attributes:
      init: ``(key) -> (params, stats)``, nested dicts of arrays; stats are all that is not trained, such as running
        means and variances of batch normalization, empty where there is nothing.
      apply: ``(params, stats, inputs, train, key) -> (outputs, stats)``: inputs ``[B, ...]``, train a Python bool, key
        for what is random while training; outputs ``logits`` ``[B, K]`` and, unless a module of yours has none,
        ``features`` ``[B, F]``. The stats that come back differ from those that went in only where train is True.
      apply_test: ``(params, stats, inputs) -> outputs``, for predictions: averaged over views where there are several.
    """

    init: Callable[[Array], tuple[Params, Stats]]
    apply: Apply
    apply_test: Callable[[Params, Stats, Array], Outputs]


def from_nnx(make: nnx.Module | Callable[[nnx.Rngs], nnx.Module]) -> Model:
    """A Flax module as pure functions.

    Args:
      make: a function from ``rngs`` to the module, or a module, whose own parameters are then the start whatever the
        key. Called with inputs, and a key where it has such a parameter, it returns logits ``[B, K]`` or a dict of
        ``logits`` and ``features``.

    Returns:
      The model. All variables that are no ``nnx.Param``, random states included, are its stats.

    Raises:
      ArgumentError: while tracing, a module that returns something else.
    """
    instance = make if isinstance(make, nnx.Module) else None
    # The graph is static; traced abstractly here, once for training and once for evaluation.
    skeleton = nnx.clone(instance) if instance else nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    skeleton.train()
    train_graph = nnx.graphdef(skeleton)
    skeleton.eval()
    eval_graph = nnx.graphdef(skeleton)
    takes_key = "key" in inspect.signature(type(skeleton).__call__).parameters

    def split(module: nnx.Module) -> tuple[Params, Stats]:
        params, stats = nnx.split_state(nnx.state(module), nnx.Param, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def init(key: Array) -> tuple[Params, Stats]:
        return split(instance or make(nnx.Rngs(params=key, dropout=jax.random.fold_in(key, 1))))

    def apply(
        params: Params, stats: Stats, inputs: Array, train: bool, key: Array | None = None
    ) -> tuple[Outputs, Stats]:
        # Merged from pure dicts at every call: variables of an outer trace could not be written under jax.grad.
        module = nnx.merge(train_graph if train else eval_graph, params, stats)
        outputs = module(inputs, key) if takes_key else module(inputs)
        outputs = outputs if isinstance(outputs, dict) else {"logits": outputs}
        if "logits" not in outputs or getattr(outputs["logits"], "ndim", 0) != 2:
            raise ArgumentError("the model must return logits of shape [B, K], or a dict with such `logits`")
        return outputs, split(module)[1] if train and stats else stats

    return Model(init, apply, _plain_test(apply))


def prepared(
    model: Model,
    prepare: Callable[[Array, Array | None], Array],
    views: Callable[[Array], list[Array]] | None = None,
) -> Model:
    """A model of inputs as they are stored, which are prepared on the device.

    Args:
      model: of prepared inputs.
      prepare: (stored inputs, key while training or None) -> prepared inputs, see :func:`nlx.data.prepare.preparer`.
      views: stored inputs -> prepared views of them over which predictions are averaged; None for the one that
        ``prepare`` gives.
    """

    def apply(
        params: Params, stats: Stats, inputs: Array, train: bool, key: Array | None = None
    ) -> tuple[Outputs, Stats]:
        if not train or key is None:
            return model.apply(params, stats, prepare(inputs, None), train, None)
        augment_key, model_key = jax.random.split(key)
        return model.apply(params, stats, prepare(inputs, augment_key), train, model_key)

    def over_views(params: Params, stats: Stats, inputs: Array) -> Outputs:
        assert views is not None
        each = [model.apply_test(params, stats, view) for view in views(inputs)]
        return jax.tree.map(lambda *x: jnp.mean(jnp.stack(x), axis=0), *each)

    return Model(model.init, apply, _plain_test(apply) if views is None else over_views)


def _plain_test(apply: Apply) -> Callable[[Params, Stats, Array], Outputs]:
    return lambda params, stats, inputs: apply(params, stats, inputs, False, None)[0]


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
    model = from_nnx(_constructor(name, input_shape, num_classes, widths, dropout, dtype))

    def apply(
        params: Params, stats: Stats, inputs: Array, train: bool, key: Array | None = None
    ) -> tuple[Outputs, Stats]:
        if inputs.shape[1:] != tuple(input_shape):
            raise ValueError(f"{name} was built for inputs [B, {', '.join(map(str, input_shape))}], got {inputs.shape}")
        if not jnp.issubdtype(inputs.dtype, jnp.floating):
            raise TypeError(f"inputs must be floating, got {inputs.dtype}: normalize images before the model")
        return model.apply(params, stats, inputs, train, key)

    return Model(model.init, apply, _plain_test(apply))


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
