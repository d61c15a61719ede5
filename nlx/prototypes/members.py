"""Prototypes of all classes: a sample of each class's members, and one program that selects among them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AbstractMesh, PartitionSpec
from jax.typing import ArrayLike

from nlx.arguments import at_least, class_vector, floating, mask, typed_key
from nlx.prototypes.density import Selection, by_density
from nlx.prototypes.similarity import unit

_PARTS = (4, 16)  # of a sample: a class that a quarter or a sixteenth holds is selected from that
_FEWEST = 64  # members: what a selection from fewer costs is no matter
_AT_A_TIME = 8  # samples of classes that a device holds beside its own features


class Selector(Protocol):
    """A rule that selects the prototypes of one class, such as :func:`nlx.prototypes.by_density`."""

    def __call__(self, key: Array, features: Array, where: Array, count: int) -> Selection:
        """Select ``count`` of the rows of ``features [m, d]`` that ``where [m]`` marks."""


class Prototypes(NamedTuple):
    """The prototypes of all classes.

    Attributes:
      rows: of the features, int32 ``[K, p]``; 0 where there is none.
      valid: which of them are prototypes, bool ``[K, p]``: of a class with no member none, of one with fewer than p
        members as many as it has.
      qualified: how many of a class's sampled members met the criterion, int32 ``[K]``.
      mean: of each class's unit prototypes, float ``[K, d]``; zero for a class without any.
    """

    rows: Array
    valid: Array
    qualified: Array
    mean: Array


def sample_members(
    key: Array, labels: ArrayLike, num_classes: int, size: int, *, where: ArrayLike | None = None
) -> tuple[Array, Array]:
    """Random examples of every class, without replacement: one sort, whatever the number of classes.

    Args:
      key: a PRNG key.
      labels: classes, int ``[n]``; examples with a label outside ``[0, K)`` (padding is -1) belong to none.
      num_classes: K.
      size: m, examples per class at most.
      where: examples to draw from, bool ``[n]``.

    Returns:
      Indices, int32 ``[K, m]``, ascending in each row, and which of them count, bool ``[K, m]``: the first min(m, size
      of the class) of each row. The other indices are 0.

    Raises:
      TypeError: labels not integer.
      ValueError: shapes disagree, or size < 1.

    Examples:
      >>> index, mask = sample_members(jax.random.key(0), jnp.array([1, 0, 1, -1]), 3, 2)
      >>> index[0], mask.sum(axis=1)
      (Array([1, 0], dtype=int32), Array([1, 2, 0], dtype=int32))
    """
    group = class_vector(labels, "labels", num_classes, unknown=num_classes)
    if size < 1:
        raise ValueError(f"labels must be [n] and size at least 1, got {group.shape} and {size}")
    n, where = len(group), mask(where, group.shape)
    if not n:
        return jnp.zeros((num_classes, size), jnp.int32), jnp.zeros((num_classes, size), bool)
    if where is not None:
        group = jnp.where(where, group, num_classes)
    order = jax.random.bits(typed_key(key), (n,), jnp.uint32)
    group, _, index = jax.lax.sort((group, order, jnp.arange(n, dtype=jnp.int32)), num_keys=2)
    starts = jnp.searchsorted(group, jnp.arange(num_classes + 1, dtype=jnp.int32)).astype(jnp.int32)
    offsets = jnp.arange(size, dtype=jnp.int32)
    taken = offsets[None, :] < (starts[1:] - starts[:-1])[:, None]
    rows = jnp.minimum(starts[:-1, None] + offsets[None, :], n - 1)
    # In the order of the data, so that of equal members the one with the lower index comes first.
    chosen = jnp.sort(jnp.where(taken, index[rows], n), axis=1)
    return jnp.where(taken, chosen, 0), taken


def class_prototypes(
    key: Array,
    features: ArrayLike,
    labels: ArrayLike,
    num_classes: int,
    *,
    members: int = 1280,
    count: int = 8,
    where: ArrayLike | None = None,
    selector: Selector = by_density,
) -> Prototypes:
    """Prototypes of every class, from a random sample of its members.

    Classes are taken one after the other in one program, which holds the features of one class's sample beside those
    it was given: ``m (d + m)`` floats, not K times as many. A class of at most m/4 or m/16 members costs a sixteenth or
    a 256th. Under a mesh (``jax.set_mesh``) whose size divides n, each device takes a class of its own at a time, and
    has the features of its members from those that hold them.

    Args:
      key: a PRNG key, for the sample and for selectors that draw.
      features: float32 ``[n, d]``.
      labels: noisy classes, int ``[n]``; those outside ``[0, K)`` (padding is -1) are no members.
      num_classes: K.
      members: m, examples of a class to select from at most (paper 1280).
      count: p, prototypes per class (paper 8).
      where: examples that may be prototypes, bool ``[n]``.
      selector: (key, features ``[m, d]``, where ``[m]``, p) -> Selection; give other options with
        ``functools.partial``. Called eagerly, the same function compiles once.

    Returns:
      The prototypes.

    Raises:
      TypeError: labels not integer, or features not float32.
      ValueError: shapes disagree, or sizes below 1.

    Examples:
      >>> x = jnp.array([[1.0, 0.0], [1.0, 0.1], [0.9, 0.0], [0.0, 1.0]])
      >>> prototypes = class_prototypes(jax.random.key(0), x, jnp.array([0, 0, 0, 1]), 3, members=4, count=1)
      >>> prototypes.valid[:, 0]
      Array([ True,  True, False], dtype=bool)

    References:
      Han et al., 2019, section 3.3.
    """
    x, labels = floating(features, "features"), class_vector(labels, "labels", num_classes)
    if x.ndim != 2 or labels.shape != x.shape[:1]:
        raise ValueError(f"features must be [n, d] and labels [n], got {x.shape} and {labels.shape}")
    at_least(1, members=members, count=count)
    if not len(x):  # one row that is no member of any class says the same
        x, labels, where = jnp.zeros((1, x.shape[1]), x.dtype), jnp.full(1, -1, jnp.int32), None
    members, counts = min(members, len(x)), mask(where, labels.shape)  # what is sampled costs its square
    # The options of a rule that was made anew for this call are told apart by value, so that nothing compiles anew.
    rule: Any = selector
    options: tuple[tuple[str, Any], ...] = ()
    if isinstance(rule, partial) and not rule.args:
        rule, options = rule.func, tuple(sorted(rule.keywords.items()))
    return _prototypes(typed_key(key), x, labels, counts, (num_classes, members, count, rule, options))


@partial(jax.jit, static_argnames="fixed")
def _prototypes(key: Array, features: Array, labels: Array, where: Array | None, fixed: tuple[Any, ...]) -> Prototypes:
    num_classes, members, count, rule, options = fixed
    sample_key, select_key = jax.random.split(key)
    indices, masks = sample_members(sample_key, labels, num_classes, members, where=where)

    def among(size: int, label: Array, index: Array, taken: Array, x: Array) -> Prototypes:
        index, taken, x = index[:size], taken[:size], x[:size]
        chosen = rule(jax.random.fold_in(select_key, label), x, taken, count, **dict(options))
        held = jnp.sum(chosen.valid, dtype=jnp.int32).astype(x.dtype)
        mean = jnp.sum(jnp.where(chosen.valid[:, None], unit(x[chosen.rows]), 0.0), axis=0) / jnp.maximum(held, 1)
        return Prototypes(jnp.where(chosen.valid, index[chosen.rows], 0), chosen.valid, chosen.qualified, mean)

    # What a selection costs grows with the square of the sample, most of which is padding where classes are small.
    sizes = sorted({members, *(size for part in _PARTS if (size := members // part) >= max(count, _FEWEST))})

    def one_class(label: Array, index: Array, taken: Array, x: Array) -> Prototypes:
        smallest = jnp.searchsorted(jnp.array(sizes, jnp.int32), jnp.sum(taken, dtype=jnp.int32)).astype(jnp.int32)
        return jax.lax.switch(smallest, [partial(among, size) for size in sizes], label, index, taken, x)

    classes = jnp.arange(num_classes, dtype=jnp.int32), indices, masks
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size > 1 and mesh.are_all_axes_auto and features.shape[0] % mesh.size == 0:
        return _over_devices(mesh, one_class, features, classes)
    return jax.lax.map(lambda row: one_class(row[0], row[1], row[2], features[row[1]]), classes)


def _over_devices(
    mesh: AbstractMesh, one_class: Callable[..., Prototypes], features: Array, classes: tuple[Array, ...]
) -> Prototypes:
    """``one_class`` of (label, index, taken, features of the members), on each device of every so many-th class."""
    axes, size = tuple(mesh.axis_names), mesh.size
    num_classes, members = classes[1].shape
    rounds = -(-num_classes // size)
    padded = [jnp.pad(x, ((0, rounds * size - num_classes), *(((0, 0),) * (x.ndim - 1)))) for x in classes]
    # What a device holds at a time of others' members is bounded, however many devices there are.
    strips = -(-size // _AT_A_TIME)

    def on_device(features: Array, labels: Array, indices: Array, masks: Array) -> Prototypes:
        me, held = jax.lax.axis_index(axes), features.shape[0]

        def one_round(row: tuple[Array, Array, Array]) -> Prototypes:
            label, index, taken = row

            def strip(index: Array) -> Array:
                mine = index - me * held
                rows = features[jnp.clip(mine, 0, held - 1)]
                here = ((mine >= 0) & (mine < held))[..., None]
                return jax.lax.psum_scatter(jnp.where(here, rows, 0.0), axes)

            wide = jnp.pad(index, ((0, 0), (0, -members % strips))).reshape(size, strips, -1).swapaxes(0, 1)
            x = jax.lax.map(strip, wide).reshape(-1, features.shape[1])[:members]
            return one_class(label[me], index[me], taken[me], x)

        found = jax.lax.map(one_round, tuple(x.reshape(rounds, size, *x.shape[1:]) for x in (labels, indices, masks)))
        return jax.tree.map(lambda leaf: leaf[:, None], found)

    everywhere, spread = PartitionSpec(), PartitionSpec(axes)
    in_rounds = jax.shard_map(
        on_device, in_specs=(spread, everywhere, everywhere, everywhere), out_specs=PartitionSpec(None, axes)
    )(features, *padded)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:num_classes], in_rounds)
