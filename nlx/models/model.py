"""Models as pure functions of parameters and statistics: by name, from your own Flax module, with preparation."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from nlx.arguments import ArgumentError
from nlx.models.convnet import ConvNet
from nlx.models.head import Outputs
from nlx.models.mlp import AMT_WIDTHS, MLP
from nlx.models.resnet import DEPTHS, PREACT_DEPTHS, ResNet
from nlx.models.vgg import VGG16, AlexNet
from nlx.models.vit import KINDS, ViT

Params = dict[str, Any]
Stats = dict[str, Any]
Apply = Callable[[Params, Stats, Array, bool, Array | None], tuple[Outputs, Stats]]

NAMES = (
    *("mlp", "mlp-amt", "convnet", "alexnet", "vgg16", *(f"resnet{depth}" for depth in DEPTHS)),
    *(*(f"preact{depth}" for depth in PREACT_DEPTHS), *KINDS),
)
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


def from_nnx(make: nnx.Module | Callable[..., nnx.Module]) -> Model:
    """A Flax module as pure functions.

    Args:
      make: a module's class, or another function from ``rngs`` to the module; or a module, whose parameters of this
        moment are then the start whatever the key, and which stays as it is. Called with inputs, or with inputs and
        ``key`` where it has such a parameter (for what is random while training), the module returns logits ``[B, K]``,
        or a dict of ``logits`` and, if it likes, ``features`` ``[B, F]`` and further arrays.

    Returns:
      The model. Variables that are no ``nnx.Param`` are its stats: batch statistics, and the random streams of
      ``nnx.Dropout``, which follow the key of ``init``. Logits and features are float32 whatever it computes in.

    Raises:
      ArgumentError: there is no such module; when applied, it returns something else.

    Examples:
      >>> model = from_nnx(lambda rngs: nnx.Linear(8, 3, rngs=rngs))
      >>> params, stats = model.init(jax.random.key(0))
      >>> model.apply_test(params, stats, jnp.ones((5, 8)))["logits"].shape
      (5, 3)
    """
    # The graph is static; traced abstractly here, once for training and once for evaluation.
    if isinstance(make, nnx.Module):
        construct, skeleton = None, nnx.clone(make)
    else:
        construct = partial(_construct, make)
        skeleton = nnx.eval_shape(lambda: _construct(make, jax.random.key(0)))
    start = _split(skeleton)
    takes_key = _takes_key(skeleton)
    skeleton.train()
    train_graph = nnx.graphdef(skeleton)
    skeleton.eval()
    eval_graph = nnx.graphdef(skeleton)

    def init(key: Array) -> tuple[Params, Stats]:
        if construct is not None:
            return _split(construct(key))
        bits = jax.random.bits(key)

        def fresh(x: Array) -> Array:
            if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                return jnp.copy(x)  # the module's own arrays must outlive a state that is given away
            return jax.vmap(lambda key: jax.random.fold_in(key, bits))(x.reshape(-1)).reshape(x.shape)

        params, stats = jax.tree.map(fresh, start)
        return params, stats

    def apply(
        params: Params, stats: Stats, inputs: Array, train: bool, key: Array | None = None
    ) -> tuple[Outputs, Stats]:
        # Merged from pure dicts at every call: variables of an outer trace could not be written under jax.grad.
        state = (nnx.restore_int_paths(tree) for tree in (params, stats))
        module = nnx.merge(train_graph if train else eval_graph, *state)
        outputs = _checked_outputs(module(inputs, key=key) if takes_key else module(inputs), inputs.shape[0])
        return outputs, _split(module)[1] if train else stats

    return Model(init, apply, _one_view(apply))


def _construct(make: Callable[..., nnx.Module], key: Array) -> nnx.Module:
    """The module, its initial weights from the key itself and all else that is random from another one."""
    if not callable(make):
        raise ArgumentError(f"a model is an nnx.Module, or a function from rngs to one, not {type(make).__name__}")
    rngs = nnx.Rngs(jax.random.fold_in(key, 1), params=key)
    # A module's class would show the signature of Flax's metaclass.
    signature = inspect.signature(make.__init__ if isinstance(make, type) else make)  # type: ignore[misc]
    module = make(rngs=rngs) if "rngs" in signature.parameters else make(rngs)
    if not isinstance(module, nnx.Module):
        raise ArgumentError(f"a model's function from rngs must return an nnx.Module, not {type(module).__name__}")
    return module


def _takes_key(module: nnx.Module) -> bool:
    """Whether a module is called with inputs and a key, rather than with inputs alone."""
    try:
        signature = inspect.signature(module)
        takes_key = "key" in signature.parameters
        signature.bind(None, **({"key": None} if takes_key else {}))
    except TypeError:
        raise ArgumentError(
            f"{type(module).__name__} must be called with (x) or (x, key): give it such a __call__"
        ) from None
    return takes_key


def _split(module: nnx.Module) -> tuple[Params, Stats]:
    """Parameters and all else, as dicts whose keys are strings, as checkpoints want them."""
    params, stats = nnx.split_state(nnx.state(module), nnx.Param, ...)
    return _with_string_keys(nnx.to_pure_dict(params)), _with_string_keys(nnx.to_pure_dict(stats))


def _with_string_keys(tree: Any) -> Any:
    return {str(key): _with_string_keys(value) for key, value in tree.items()} if isinstance(tree, dict) else tree


def _checked_outputs(outputs: Any, batch: int) -> Outputs:
    outputs = dict(outputs) if isinstance(outputs, Mapping) else {"logits": outputs}
    if "logits" not in outputs:
        raise ArgumentError(
            f"the model returns a dict of {sorted(outputs)}: `logits` of shape [B, K] must be among them"
        )
    for name, form in (("logits", "[B, K]"), ("features", "[B, F]")):
        if name not in outputs:
            continue
        shape = getattr(outputs[name], "shape", None)
        if shape is None or len(shape) != 2 or shape[0] != batch:
            what = type(outputs[name]).__name__ if shape is None else f"shape {shape}"
            raise ArgumentError(f"the model returns `{name}` of {what} for {batch} inputs: their shape must be {form}")
        outputs[name] = outputs[name].astype(jnp.float32)
    return outputs


def prepared(
    model: Model,
    prepare: Callable[[Array, Array | None], Array],
    views: Callable[[Array], Sequence[Array]] | None = None,
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
        augment_key, model_key = (None, None) if key is None or not train else jax.random.split(key)
        return model.apply(params, stats, prepare(inputs, augment_key), train, model_key)

    def apply_test(params: Params, stats: Stats, inputs: Array) -> Outputs:
        shown = [prepare(inputs, None)] if views is None else views(inputs)
        each = [model.apply_test(params, stats, view) for view in shown]
        return jax.tree.map(lambda *outputs: jnp.mean(jnp.stack(outputs), axis=0), *each)

    return Model(model.init, apply, apply_test)


def _one_view(apply: Apply) -> Callable[[Params, Stats, Array], Outputs]:
    return lambda params, stats, inputs: apply(params, stats, inputs, False, None)[0]


def build(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    widths: tuple[int, ...] | None = None,
    dropout: float = 0.0,
    remat: bool = False,
    ghost_batch: int | None = None,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> Model:
    """Make a model; nothing is allocated before its ``init`` is called.

    Args:
      name: one of `NAMES`. ``mlp-amt`` is an ``mlp`` with the hidden widths (1024, 30).
      input_shape: shape of one input: ``(F,)``, or ``(H, W, C)`` for images. A ResNet on at most 64 pixels starts with
        one 3x3 convolution, on larger images with a 7x7 of stride 2 and a max-pooling. ``alexnet`` takes 63 pixels or
        more, a ViT multiples of its patch: 16 or 32, of ``dinov2`` 14. ``clip-…-quick`` has OpenAI's quick GELU.
      num_classes: K.
      widths: hidden widths of ``mlp`` (default 512, 512) or ``convnet`` (default 32, 64, 128 channels, dense 128).
      dropout: probability that a value becomes 0 while training: behind every hidden layer of an ``mlp``, before the
        last layer of the others.
      remat: whether the blocks of ResNets and ViTs are computed again for the gradient, to save memory.
      ghost_batch: examples in a row that share the statistics of a ResNet's batch normalization while training; it must
        divide the batch. None for all of a batch, on however many devices it lies.
      dtype: dtype of the computation before the last layer, e.g. ``jnp.bfloat16``; parameters, batch statistics and
        outputs are float32.

    Returns:
      The model.

    Raises:
      ArgumentError: unknown name, an input shape the model cannot take, or widths for a model that has its own.

    Examples:
      >>> model = build("mlp", (8, 8, 1), num_classes=10, widths=(32,))
      >>> params, stats = model.init(jax.random.key(0))
      >>> outputs, stats = model.apply(params, stats, jnp.ones((5, 8, 8, 1)), False, None)
      >>> outputs["logits"].shape, outputs["features"].shape
      ((5, 10), (5, 32))
    """
    options = {"dropout": dropout, "dtype": dtype}
    model = from_nnx(_constructor(name, input_shape, num_classes, widths, remat, ghost_batch, **options))

    def apply(
        params: Params, stats: Stats, inputs: Array, train: bool, key: Array | None = None
    ) -> tuple[Outputs, Stats]:
        if inputs.shape[1:] != tuple(input_shape):
            form = ", ".join(map(str, input_shape))
            raise ArgumentError(f"{name} was built for inputs [B, {form}], got {inputs.shape}")
        if not jnp.issubdtype(inputs.dtype, jnp.floating):
            raise TypeError(f"inputs must be floating, got {inputs.dtype}: put nlx.models.prepared before the model")
        return model.apply(params, stats, inputs, train, key)

    return Model(model.init, apply, _one_view(apply))


def _constructor(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    widths: tuple[int, ...] | None,
    remat: bool,
    ghost_batch: int | None,
    **options: Any,
) -> Callable[[nnx.Rngs], Any]:
    if name not in NAMES:
        raise ArgumentError(f"unknown model {name!r}: choose one of {', '.join(NAMES)}")
    if widths is not None and name not in ("mlp", "convnet"):
        raise ArgumentError(f"{name} has its own widths: leave out `widths`, or choose mlp or convnet")
    if remat and not name.startswith(("resnet", "preact", *KINDS)):
        raise ArgumentError(f"{name} has no blocks to compute again: leave out `remat`")
    if ghost_batch is not None and not name.startswith(("resnet", "preact")):
        raise ArgumentError(f"{name} has no batch normalization: leave out `ghost_batch`")
    if name.startswith("mlp"):
        widths = AMT_WIDTHS if name == "mlp-amt" else widths
        if widths is not None:
            options["widths"] = tuple(widths)
        return lambda rngs: MLP(math.prod(input_shape), num_classes, rngs=rngs, **options)
    if len(input_shape) != 3:
        raise ArgumentError(f"{name} takes images (H, W, C), got inputs of shape {tuple(input_shape)}: use mlp")
    height, width, channels = input_shape
    if name == "convnet":
        if widths is not None:
            options["widths"] = tuple(widths)
        return lambda rngs: ConvNet((height, width, channels), num_classes, rngs=rngs, **options)
    shape = (height, width, channels)
    if name == "alexnet":
        return lambda rngs: AlexNet(shape, num_classes, rngs=rngs, **options)
    if name == "vgg16":
        return lambda rngs: VGG16(channels, num_classes, rngs=rngs, **options)
    options["remat"] = remat
    if name in KINDS:
        return lambda rngs: ViT(KINDS[name], shape, num_classes, rngs=rngs, **options)
    depth = int(name.removeprefix("resnet").removeprefix("preact"))
    options["ghost_batch"] = ghost_batch
    options |= {"preact": name.startswith("preact"), "stem": "32" if max(height, width) <= _SMALL else "224"}
    return lambda rngs: ResNet(depth, channels, num_classes, rngs=rngs, **options)
