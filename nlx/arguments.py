"""What the primitives ask of their arguments, told as errors of Python's own also while tracing.

The rules that all of them keep:

Shapes are exact. Nothing broadcasts that a docstring does not say; a mask ``where`` is bool, of the shape given there,
and what it leaves out gives 0 and no gradient, whatever stands in its place.

A class label outside [0, K), be it -1, K or 255, is unknown. What is told of each example (a loss, a posterior) is NaN
for it, with no gradient: noticed, unless a mask leaves it out. What is counted, averaged or drawn over examples passes
over it, and noise leaves it as it is. An entry of a label vector other than 0 and 1 is unknown in the same way, under
``jax.jit``; where its value can be read, it is refused, since -1 and 1 may be meant as absent and present.

Half precision is worked on in float32 and comes back as it came, what it cannot hold as its largest number; float64 is
worked on in float64, except where a docstring says float32.

Values (rows of a transition matrix that sum to 1, rates, label vectors) are checked where they are known: not under a
trace, and not in arrays of more than a million entries on an accelerator, which would have to be fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType
from jax.typing import ArrayLike, DTypeLike

UNKNOWN = -1
"""Trusted label of an example whose true label is not to be known."""
KNOWN_OUTLIER = -2
"""Trusted label of an example that is known to be of no class."""
KNOWN_WRONG = -3
"""Trusted label of an example whose given label is known to be wrong, while the true one is not known."""

_FETCHED = 2**20  # entries of an array on an accelerator that are fetched to check them, at most


class ArgumentError(ValueError):
    """An argument that the caller has to change; the message is one sentence that names the fix.

    Arguments stand in backticks, for a command line to show them as its options.
    """


def array(x: ArrayLike, name: str) -> Array:
    """An array, not spread over a mesh of type Explicit, whose gathers would each want a sharding."""
    if isinstance(x, (np.ndarray, np.generic)) and x.dtype.kind in "iu" and (kind := jnp.result_type(x)) != x.dtype:
        # Without x64 64 bits become 32: wrapped round, 2^32 would be class 0.
        x = np.clip(x, np.array(0 if x.dtype.kind == "u" else jnp.iinfo(kind).min, x.dtype), jnp.iinfo(kind).max)
    x = jnp.asarray(x)
    if AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types:
        raise ValueError(
            f"{name} lies on a mesh of type Explicit: wrap the call in jax.sharding.auto_axes, or make the mesh with "
            "axis_types=(jax.sharding.AxisType.Auto,)"
        )
    return x


def floating(x: ArrayLike, name: str) -> Array:
    """An array of floats."""
    x = array(x, name)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name} must be floating, got {x.dtype}")
    return x


def integers(x: ArrayLike, name: str) -> Array:
    """An array of integers."""
    x = array(x, name)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers, got {x.dtype}")
    return x


def class_labels(x: ArrayLike, name: str, num_classes: int, *, unknown: int = -1) -> Array:
    """Class labels of any integer type as int32; ``unknown`` stands for all that are no class."""
    if num_classes < 1:
        raise ValueError(f"{name} must be of at least 1 class, got {num_classes}")
    labels = integers(x, name)
    labels = labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels  # K may not fit in 8 or 16 bits
    return jnp.where((labels >= 0) & (labels < num_classes), labels.astype(jnp.int32), unknown)


def class_vector(x: ArrayLike, name: str, num_classes: int, *, unknown: int = -1) -> Array:
    """Class labels ``[n]``, see :func:`class_labels`."""
    labels = class_labels(x, name, num_classes, unknown=unknown)
    if labels.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {labels.shape}")
    return labels


def label_vectors(
    x: ArrayLike, name: str, shape: tuple[int, ...] | None = None, where: Array | None = None
) -> tuple[Array, Array]:
    """Which entries of {0, 1} labels of any type are 1, and which are either, both bool; others are refused."""
    labels = array(x, name)
    same_shape(name, labels.shape, "predictions", labels.shape if shape is None else shape)
    _refuse(x, where, lambda v: (v == 0) | (v == 1), f"{name} must be 0 or 1 (of -1 and 1, take {name} > 0)")
    zero, one = (labels == jnp.asarray(value, labels.dtype) for value in (0, 1))
    return one, zero | one


def probabilities(x: ArrayLike, name: str, where: Array | None = None, high: float = 1) -> tuple[Array, Array]:
    """Floats, and which of them lie in [0, high] (or a rounding outside), bool; others are 0, and refused if known."""
    domain = f"lie in [0, {high:g}]" if high < np.inf else "be at least 0"
    _refuse(x, where, lambda v: (v >= -0.01) & (v <= high + 0.01), f"{name} must {domain}")
    probs = floating(x, name)
    are = (probs >= -0.01) & (probs <= high + 0.01)
    return jnp.where(are, probs, jnp.zeros((), probs.dtype)), are


def distributions(x: ArrayLike, name: str, *, signed: bool = False, diagonal: bool = True) -> None:
    """Refuse a matrix whose rows do not sum to 1, with nothing below 0, if it is known.

    ``signed`` lets negative entries pass (an inverse has some); without ``diagonal`` rows may leave it out.
    """
    values = known(x)
    if values is None or not values.size:
        return
    slack = 0.0101  # two digits, as matrices are printed, and what a finite difference moves
    rows = values.astype(np.float64)
    sums = rows.sum(axis=-1)
    fits = np.abs(sums - 1) <= slack * (np.abs(rows).max() if signed else 1)
    if not diagonal:
        fits |= np.abs(sums - np.diagonal(rows) - 1) <= slack
    bad = np.argwhere(~(fits & (signed | (rows >= -slack).all(axis=-1))))
    if len(bad):
        row, below = ", ".join(map(str, bad[0])), "" if signed else ", with nothing below 0"
        raise ValueError(f"{name} row {row} is no distribution: it must sum to 1{below}")


@overload
def mask(where: ArrayLike, shape: tuple[int, ...], name: str = "where") -> Array: ...
@overload
def mask(where: None, shape: tuple[int, ...], name: str = "where") -> None: ...
@overload
def mask(where: ArrayLike | None, shape: tuple[int, ...], name: str = "where") -> Array | None: ...
def mask(where: ArrayLike | None, shape: tuple[int, ...], name: str = "where") -> Array | None:
    """A mask of exactly this shape; None stays None."""
    if where is None:
        return None
    where = array(where, name)
    if where.shape != shape or where.dtype != jnp.bool_:
        raise ValueError(f"{name} must be bool {shape}, got {where.dtype} {where.shape}")
    return where


def masked(values: Array, where: Array | None) -> Array:
    """Values where they count, 0 elsewhere; where they are whole rows, the mask lacks the last axis.

    Masked before a computation as well as after it, what is left out has no gradient, be it infinite or not a number.
    """
    if where is None:
        return values
    return jnp.where(where if where.ndim == values.ndim else where[..., None], values, jnp.zeros((), values.dtype))


def working(*arrays: Array) -> DTypeLike:
    """The type to work in: float64 if any of them is, else float32."""
    return jnp.float64 if any(x.dtype == jnp.float64 for x in arrays) else jnp.float32


def as_type(x: Array, dtype: DTypeLike) -> Array:
    """Values in another type of floats, what it cannot hold as its largest number; NaN stays."""
    highest = float(jnp.finfo(dtype).max)
    return x if x.dtype == dtype else jnp.where(jnp.isinf(x), x, jnp.clip(x, -highest, highest)).astype(dtype)


def in_range(value: ArrayLike, name: str, low: float, high: float = np.inf, *, above: bool = False) -> None:
    """Refuse a number that is known and not in [low, high], or, with ``above``, in (low, high]; no arrays."""
    if np.ndim(value):
        raise ValueError(f"{name} must be a scalar, got shape {np.shape(value)}")
    number = known(value)
    if number is not None and not ((number > low if above else number >= low) and number <= high):
        domain = f"be {'above' if above else 'at least'} {low:g}"
        if high < np.inf:
            domain = f"lie in {'(' if above else '['}{low:g}, {high:g}]"
        raise ValueError(f"{name} must {domain}, got {value}")


def at_least(low: int, **counts: int) -> None:
    """Refuse counts below a bound."""
    for name, count in counts.items():
        if count < low:
            raise ValueError(f"{name} must be at least {low}, got {count}")


def known(x: ArrayLike) -> np.ndarray | None:
    """The values, where they can be had without a trace in the way and without fetching much."""
    if isinstance(x, jax.core.Tracer):
        return None
    if isinstance(x, Array):
        near = all(device.platform == "cpu" for device in x.devices())
        if not x.is_fully_addressable or (x.size > _FETCHED and not near):
            return None
    return np.asarray(x)


def typed_key(key: Array, name: str = "key") -> Array:
    """One key that jax.random.key made, not one of the old kind, and not what was given in a key's place."""
    if not isinstance(key, Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError(f"{name} must be a typed PRNG key: make one with jax.random.key(seed)")
    if key.shape:
        raise ValueError(f"{name} must be one key, got {key.shape}: map over several with jax.vmap")
    return key


def same_shape(name: str, shape: tuple[int, ...], other: str, other_shape: tuple[int, ...]) -> None:
    """Both shapes are one."""
    if shape != other_shape:
        raise ValueError(f"{name} {shape} and {other} {other_shape} must have the same shape")


def varying(x: Array, *others: Array) -> Array:
    """x as the start of a loop that mixes it with others: inside ``jax.shard_map`` it varies over what they do."""
    for other in others:
        zero = jnp.zeros_like(other, dtype=x.dtype, shape=())
        x = x | zero if x.dtype == jnp.bool_ else x + zero
    return x


def _refuse(x: ArrayLike, where: Array | None, fits: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    values, counts = known(x), np.array(True) if where is None else known(where)
    if values is None or counts is None:
        return
    bad = ~fits(values) & (counts if counts.ndim in (0, values.ndim) else counts[..., None])
    if bad.any():
        raise ValueError(f"{message}, got {values[bad].flat[0]}; where leaves unknown ones out")


def float_order(x: Array) -> Array:
    """Integers that sort as float32 numbers do, int32."""
    # Adding 0 turns -0 into 0. Bits of positive floats sort as integers; those of negative ones in reverse.
    bits = jax.lax.bitcast_convert_type(x + 0.0, jnp.int32)
    return jnp.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
