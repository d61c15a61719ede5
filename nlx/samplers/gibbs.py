"""Block Gibbs sampling of a bipartite binary model whose biases depend on the example, with persistent chains.

The model has two sides, y of N units and z of M units, and for each example

.. math:: p(y, z) \\propto \\exp(b \\cdot y + a \\cdot z + z^\\top U y),

so that given one side the units of the other are independent. A sweep draws one side given the other and back: two
matrix products and two sets of Bernoulli draws. Chains of all examples are rows of the same products. Only one side
needs to be carried from step to step; it is the smaller one (y where they are equal), packed as bits.
"""

from __future__ import annotations

import operator
from functools import partial
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from nlx.arguments import array, floating, in_range, known, typed_key, varying
from nlx.samplers.bits import Generator, bernoulli16, num_bytes, pack, prepare, uniform16, unpack, words_shape
from nlx.samplers.mixing import Mixing, mixing_of
from nlx.samplers.rows import alignment, filled, stored, times


class State(NamedTuple):
    """Where the chains stand.

    Attributes:
      packed: the carried side as bits, uint8 ``[B, chains, bytes]``.
    """

    packed: Array


class Info(NamedTuple):
    """What a step tells besides the state.

    Attributes:
      y: the last sweep's y, float32 ``[B, chains, N]``.
      z: the last sweep's z, float32 ``[B, chains, M]``. The carried side of the two is given as its conditional mean
        given the other's draw, so that averages of products z_i y_j have the right expectation and less noise than
        with two draws.
      y_mean: mean over chains of p(y = 1 given z) (Rao-Blackwell), float32 ``[B, N]``; of the last sweep, or over all
        sweeps where asked for.
      z_mean: likewise, float32 ``[B, M]``.
      z_off: likewise p(z = 0 given y), which keeps its digits where z_mean is all but 1, float32 ``[B, M]``.
      flip_rate: share of the carried side's units that differ from the state that came in, float32 ``[B]``.
      y_mixing: ESS and R-hat of y; None unless asked for.
      z_mixing: likewise.
    """

    y: Array
    z: Array
    y_mean: Array
    z_mean: Array
    z_off: Array
    flip_rate: Array
    y_mixing: Mixing | None
    z_mixing: Mixing | None


class _Sweep(NamedTuple):
    """One sweep: draws of both sides, which may have zeros at their end, and the log-odds they were drawn with."""

    other: Array
    other_logits: Array
    carried: Array
    carried_logits: Array


def carries_y(num_y: int, num_z: int) -> bool:
    """Whether the state holds y; z otherwise."""
    return num_y <= num_z


def init(key: Array, examples: int, chains: int, num_y: int, num_z: int, *, mean: ArrayLike | None = None) -> State:
    """Start chains at independent draws.

    Args:
      key: typed PRNG key.
      examples: B, or the size of a memory of chains for a whole training set.
      chains: chains per example.
      num_y: N.
      num_z: M.
      mean: P(unit = 1) of the carried side, float32 ``[units]`` or ``[B, units]``; None for one half.

    Returns:
      The state.

    Raises:
      ValueError: a size below 1, or mean of another shape.

    Examples:
      >>> init(jax.random.key(0), 100, 50, num_y=1000, num_z=273).packed.shape
      (100, 50, 35)
    """
    if min(examples, chains, num_y, num_z) < 1:
        raise ValueError(f"sizes must be at least 1, got {examples=}, {chains=}, {num_y=}, {num_z=}")
    units = min(num_y, num_z)
    typed_key(key)
    if mean is not None:
        mean = floating(mean, "mean").astype(jnp.float32)
        if mean.shape not in ((units,), (examples, units)):
            raise ValueError(f"mean must be of shape {(units,)} or {(examples, units)}, got {mean.shape}")
        return State(pack(jax.random.bernoulli(key, mean.reshape(-1, 1, units), (examples, chains, units))))
    packed = jax.random.bits(key, (examples, chains, num_bytes(units)), jnp.uint8)
    return State(packed & _used(units))


def step(
    key: Array,
    state: State,
    coupling: ArrayLike,
    y_bias: ArrayLike,
    z_bias: ArrayLike,
    num_sweeps: int | Array,
    *,
    generator: Generator = "threefry",
    dtype: DTypeLike = jnp.bfloat16,
    average: bool = False,
    mixing: bool = False,
) -> tuple[State, Info]:
    r"""Run sweeps of block Gibbs on every chain.

    .. math::
       y_n \mid z \sim \mathrm{Bernoulli}(\sigma(b_n + (U^\top z)_n)), \qquad
       z_m \mid y \sim \mathrm{Bernoulli}(\sigma(a_m + (U y)_m))

    Probabilities are rounded to multiples of 2^-16 (see :func:`nlx.samplers.bits.bernoulli16`).

    Args:
      key: typed PRNG key.
      state: where the chains stand.
      coupling: U, float ``[M, N]``.
      y_bias: b, float ``[N]`` or ``[B, N]``.
      z_bias: a, float ``[M]`` or ``[B, M]``.
      num_sweeps: sweeps, at least 1; may be traced, and then counts as 1 below that.
      generator: where the random bits come from.
      dtype: operands of the matrix products, which add up in float32; bfloat16 rounds U to 8 significant bits and is
        several times faster where the hardware knows it.
      average: take means over all sweeps instead of the last one.
      mixing: compute ESS and R-hat; wants at least 2 chains and 2 sweeps.

    Returns:
      The new state, and the info.

    Raises:
      TypeError: coupling or biases not floating, or key not typed.
      ValueError: shapes disagree, num_sweeps < 1, or mixing with a single chain or sweep.

    Examples:
      >>> state = init(jax.random.key(0), 1, 1000, num_y=1, num_z=1)
      >>> coupling, bias = jnp.array([[2.0]]), jnp.zeros(1)
      >>> state, info = step(jax.random.key(1), state, coupling, bias, bias, 20, average=True)
      >>> print(info.y_mean.round(1))  # (1 + e^2) / (3 + e^2)
      [[0.8]]

    References:
      Vahdat, 2017, section 3.1 and 4.1. Tieleman, 2008, for persistent chains.
    """
    u, b, a, sweeps = _checked(key, state, coupling, y_bias, z_bias, num_sweeps, mixing, generator)
    # A number that is known is made part of the program: accelerators then need not ask how far the loop has come.
    fixed = sweeps if isinstance(sweeps, int) else None
    packed = array(state.packed, "state")
    return _step(key, packed, u, b, a, sweeps, (fixed, generator, jnp.dtype(dtype), average, mixing, alignment()))


@partial(jax.jit, static_argnames="fixed")
def _step(
    key: Array, before: Array, u: Array, b: Array, a: Array, sweeps: int | Array, fixed: tuple[Any, ...]
) -> tuple[State, Info]:
    known_sweeps, generator, dtype, average, mixing, aligned = fixed
    num_sweeps = jnp.maximum(sweeps, 1) if known_sweeps is None else known_sweeps
    (num_z, num_y), (examples, chains, _) = u.shape, before.shape
    y_carried = carries_y(num_y, num_z)
    u = filled(filled(u.astype(dtype), aligned).T, aligned).T
    # Where y is carried it goes through U^T to z and back through U; where z is, the other way round.
    to_other, to_carried = (u.T, u) if y_carried else (u, u.T)
    carried_bias, other_bias = (b, a) if y_carried else (a, b)
    shapes = [(examples, chains, bias.shape[-1]) for bias in (other_bias, carried_bias)]

    def logits_of(bits: Array, matrix: Array, bias: Array) -> Array:
        return times(bits, matrix, aligned)[..., : bias.shape[-1]] + bias

    def drawn(uniform: Array, logits: Array) -> Array:
        return stored(filled(bernoulli16(uniform, logits).astype(dtype), aligned), aligned)

    def sweep_keys(i: int | Array) -> Array:
        return jax.random.bits(jax.random.fold_in(key, i), (2, 2), jnp.uint32)

    def sweep(carried: Array, prepared: list[Array]) -> _Sweep:
        u_other, u_carried = (uniform16(p, shape, generator) for p, shape in zip(prepared, shapes, strict=True))
        other_logits = logits_of(carried, to_other, other_bias)
        other = drawn(u_other, other_logits)
        carried_logits = logits_of(other, to_carried, carried_bias)
        return _Sweep(other, other_logits, drawn(u_carried, carried_logits), carried_logits)

    def units_of(s: _Sweep) -> _Sweep:
        return s._replace(other=s.other[..., : shapes[0][2]], carried=s.carried[..., : shapes[1][2]])

    def z_logits(s: _Sweep) -> Array:
        return s.other_logits if y_carried else s.carried_logits

    def sums(s: _Sweep) -> dict[str, Array]:
        s, out = units_of(s), {}
        if average:
            out["other"] = jnp.sum(jax.nn.sigmoid(s.other_logits), axis=1)
            out["carried"] = jnp.sum(jax.nn.sigmoid(s.carried_logits), axis=1)
            out["off"] = jnp.sum(jax.nn.sigmoid(-z_logits(s)), axis=1)
        if mixing:
            out["other_draws"] = s.other.astype(jnp.float32)
            out["carried_draws"] = s.carried.astype(jnp.float32)
        return out

    def body(i: Array, loop: tuple[Array, list[Array], dict[str, Array]]) -> tuple:
        carried, prepared, total = loop
        s = sweep(carried, prepared)
        # Made one sweep ahead: what a loop carries is stored, and so computed once and not inside every consumer.
        ahead = [prepare(k, shape, generator) for k, shape in zip(sweep_keys(i + 1), shapes, strict=True)]
        return s.carried, ahead, jax.tree.map(jnp.add, total, sums(s))

    prepared = list(sweep_keys(0))
    if generator == "threefry":
        # The same bits from jax.random's rolled loop, once: a second unrolled one would double the time to compile.
        prepared = [
            jax.random.bits(jax.random.wrap_key_data(k, impl="threefry2x32"), words_shape(shape), jnp.uint32)
            for k, shape in zip(prepared, shapes, strict=True)
        ]
    start = varying(filled(unpack(before, carried_bias.shape[-1], dtype), aligned), u, b, a, prepared[0])
    shapes_of_sums = jax.eval_shape(lambda: sums(sweep(start, prepared)))
    zeros = jax.tree.map(lambda x: varying(jnp.zeros(x.shape, x.dtype), start), shapes_of_sums)
    # The last sweep stands outside the loop, so that its log-odds are at hand without being carried.
    carried, prepared, total = jax.lax.fori_loop(0, num_sweeps - 1, body, (start, prepared, zeros))
    last = units_of(sweep(carried, prepared))
    total = jax.tree.map(jnp.add, total, sums(last))

    packed = pack(last.carried)
    changed = packed ^ (before & _used(carried_bias.shape[-1]))
    flips = jnp.sum(jax.lax.population_count(changed).astype(jnp.float32), axis=(1, 2))
    count = jnp.asarray(num_sweeps, jnp.float32)
    given_other = jax.nn.sigmoid(last.carried_logits)
    if average:
        means = total["carried"] / (chains * count), total["other"] / (chains * count)
        z_off = total["off"] / (chains * count)
    else:
        means = jnp.mean(given_other, axis=1), jnp.mean(jax.nn.sigmoid(last.other_logits), axis=1)
        z_off = jnp.mean(jax.nn.sigmoid(-z_logits(last)), axis=1)
    mixed: tuple[Mixing | None, Mixing | None] = (None, None)
    if mixing:
        mixed = mixing_of(total["carried_draws"] / count, count), mixing_of(total["other_draws"] / count, count)
    y, z = (0, 1) if y_carried else (1, 0)
    pair = given_other, last.other.astype(jnp.float32)
    flip_rate = flips / (chains * min(num_y, num_z))
    return State(packed), Info(pair[y], pair[z], means[y], means[z], z_off, flip_rate, mixed[y], mixed[z])


def _used(units: int) -> np.ndarray:
    """Which bits of a state are units, uint8 ``[1, 1, bytes]``; the others are 0."""
    return np.packbits(np.ones(units, np.uint8)).reshape(1, 1, -1)


def _checked(
    key: Array,
    state: State,
    coupling: ArrayLike,
    y_bias: ArrayLike,
    z_bias: ArrayLike,
    num_sweeps: int | Array,
    mixing: bool,
    generator: Generator,
) -> tuple[Array, Array, Array, int | Array]:
    """U, b and a as arrays, the biases ``[B or 1, 1, units]``, and the number of sweeps, an int where it is known."""
    typed_key(key)
    u, b, a = floating(coupling, "coupling"), floating(y_bias, "y_bias"), floating(z_bias, "z_bias")
    if u.ndim != 2:
        raise ValueError(f"coupling must be [M, N], got {u.shape}")
    if state.packed.ndim != 3 or state.packed.shape[-1] != num_bytes(min(u.shape)):
        raise ValueError(f"state {state.packed.shape} does not fit coupling {u.shape}; make it with init")
    if state.packed.dtype != jnp.uint8:
        raise TypeError(f"state must be uint8, got {state.packed.dtype}; make it with init")
    values = known(state.packed)
    if values is not None and (values & ~_used(min(u.shape))).any():
        raise ValueError(f"state has units beyond the {min(u.shape)} of coupling {u.shape}; make it with init")
    examples, chains, _ = state.packed.shape
    for name, x, units in (("y_bias", b, u.shape[1]), ("z_bias", a, u.shape[0])):
        if x.shape not in ((units,), (examples, units)):
            raise ValueError(f"{name} must be of shape {(units,)} or {(examples, units)}, got {x.shape}")
    if generator not in get_args(Generator):
        raise ValueError(f"unknown generator {generator!r}; known: {', '.join(get_args(Generator))}")
    in_range(num_sweeps, "num_sweeps", 1)
    sweeps = num_sweeps if known(num_sweeps) is None else operator.index(num_sweeps)
    if mixing and (chains < 2 or (isinstance(sweeps, int) and sweeps < 2)):
        raise ValueError(f"mixing needs at least 2 chains and 2 sweeps, got {chains} and {num_sweeps}")
    b, a = (x.astype(jnp.float32).reshape(-1 if x.size else 0, 1, x.shape[-1]) for x in (b, a))
    return u, b, a, sweeps
