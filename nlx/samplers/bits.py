"""Random 16-bit thresholds for Bernoulli draws at the rate of matrix products, and states packed as bits.

A Gibbs sweep over a thousand units is two matrix products and a thousand draws, so that the draws have to be cheap. Two
things make them so: 16 random bits per draw instead of 32, compared without a division, and generators that XLA turns
into one vectorized loop.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nlx import target
from nlx.arguments import same_shape

Generator = Literal["threefry", "hash"]
"""``threefry``: the bits of ``jax.random.bits``. ``hash``: a counter put through a keyed mixing function, cheaper; its
draws pass the tests in ``tests/samplers/test_bits.py`` and nothing beyond them is claimed."""

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def default_generator() -> Generator:
    """Threefry on CPUs; the hash on TPUs and GPUs, where threefry's bits are a quarter of the time or more."""
    return "threefry" if target.platform() == "cpu" else "hash"


def threefry2x32(key: Array, high: ArrayLike, low: ArrayLike) -> tuple[Array, Array]:
    """The Threefry-2x32 block function of 20 rounds, unrolled.

    ``jax.random``'s own is a rolled loop on CPU, which costs as much as the matrix products that the bits are for.

    Args:
      key: two words, uint32 ``[2]``.
      high: first word of the counters, uint32 ``[...]``.
      low: second word, uint32 ``[...]``.

    Returns:
      Two words for each counter, uint32 ``[...]`` each.

    Examples:
      >>> a, b = threefry2x32(jnp.zeros(2, jnp.uint32), jnp.uint32(0), jnp.uint32(0))
      >>> f"{int(a):08x} {int(b):08x}"
      '6b200159 99ba4efe'

    References:
      Salmon et al., 2011, Parallel random numbers: as easy as 1, 2, 3.
    """
    same_shape("high", jnp.shape(high), "low", jnp.shape(low))
    words = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x0, x1 = jnp.asarray(high) + words[0], jnp.asarray(low) + words[1]
    for block in range(5):
        for distance in _ROTATIONS[block % 2]:
            x0 = x0 + x1
            x1 = ((x1 << np.uint32(distance)) | (x1 >> np.uint32(32 - distance))) ^ x0
        x0 = x0 + words[(block + 1) % 3]
        x1 = x1 + words[(block + 2) % 3] + np.uint32(block + 1)
    return x0, x1


def random_words(key: Array, shape: tuple[int, ...], generator: Generator = "threefry") -> Array:
    """Random 32-bit words.

    Args:
      key: two words, uint32 ``[2]``: the key data of a threefry key.
      shape: of the result; at most 2^32 words.
      generator: which bits.

    Returns:
      Words, uint32 ``shape``; with threefry those of ``jax.random.bits(key, shape)``.

    Raises:
      ValueError: unknown generator, or too many words for one key.

    Examples:
      >>> key = jax.random.key(0)
      >>> bool((random_words(jax.random.key_data(key), (3, 5)) == jax.random.bits(key, (3, 5))).all())
      True
    """
    if generator not in get_args(Generator):
        raise ValueError(f"unknown generator {generator!r}; known: {', '.join(get_args(Generator))}")
    if math.prod(shape) > 2**32:
        raise ValueError(f"{shape} is more than 2^32 words; draw in several calls with keys of their own")
    counter = _counter(shape)
    if generator == "threefry":
        a, b = threefry2x32(key, jnp.zeros_like(counter), counter)
        return a ^ b
    # The second word goes in half way: were both added to the counter, two keys would give one stream, shifted.
    x = (counter ^ key[0]) * np.uint32(0x9E3779B1)
    x = (x ^ (x >> np.uint32(16))) + key[1]
    x = x * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def prepare(key: Array, shape: tuple[int, int, int], generator: Generator) -> Array:
    """Do ahead of the draws whatever part of their making is better done apart.

    Threefry's bits are made ahead and stored, two draws to a word: computed inside the loop that compares them they
    would be computed once per draw. The hash is cheaper than the traffic to memory and back, and is left to that loop.

    Args:
      key: two words, uint32 ``[2]``.
      shape: (examples, chains, units) of the draws.
      generator: which bits.

    Returns:
      Words for :func:`uniform16` with the same shape and generator, uint32: ready-made, or the key to hash with.
    """
    return random_words(key, words_shape(shape), generator) if generator == "threefry" else key


def words_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Threefry's words for so many draws: two draws to a word where the number of chains is even, one otherwise."""
    examples, chains, units = shape
    return examples, chains if chains % 2 else chains // 2, units


def uniform16(prepared: Array, shape: tuple[int, int, int], generator: Generator) -> Array:
    """Independent uniform integers in [0, 2^16), uint32 of the shape prepared for."""
    if generator == "hash":
        return random_words(prepared, shape, generator) >> np.uint32(16)
    if shape[1] % 2:
        return prepared >> np.uint32(16)
    # The low halves serve the first half of the chains: units stay contiguous, and examples on their own device.
    first = jax.lax.broadcasted_iota(jnp.uint32, (1, 2, 1, 1), 1) == 0
    pair = prepared[:, None]
    return jnp.where(first, pair & np.uint32(0xFFFF), pair >> np.uint32(16)).reshape(shape)


def bernoulli16(uniform: Array, logits: Array) -> Array:
    r"""Draw Bernoullis from 16-bit uniforms.

    .. math:: z = \left[(u + \tfrac12)(1 + e^{-l}) < 2^{16}\right]

    which is :math:`(u + \tfrac12) / 2^{16} < \sigma(l)` without the division. P(z = 1) is sigma(l) rounded to the
    nearest multiple of 2^-16, so it is off by at most 2^-17; beyond logits of about +-11.8 the draw is certain. An
    overflow of the exponential gives infinity, which is not below the bound: the draw is 0, as it should be.

    Args:
      uniform: u, uint32 ``[...]`` below 2^16.
      logits: l, float32 ``[...]``.

    Returns:
      Draws, bool ``[...]``.

    Examples:
      >>> bernoulli16(jnp.array([0, 40000, 40000], jnp.uint32), jnp.array([-1e4, 0.0, 1e4]))
      Array([False, False,  True], dtype=bool)
    """
    same_shape("uniform", uniform.shape, "logits", logits.shape)
    u = uniform.astype(jnp.int32).astype(jnp.float32)  # by way of int32, which CPUs convert in one instruction
    return (u + np.float32(0.5)) * (1 + jnp.exp(-logits)) < np.float32(2**16)


def num_bytes(units: int) -> int:
    """Bytes that a state of so many units takes."""
    return -(-units // 8)


def pack(bits: ArrayLike) -> Array:
    """Pack {0, 1} states, eight to a byte, the first in the highest bit.

    Args:
      bits: bool or any number type ``[..., units]``.

    Returns:
      uint8 ``[..., num_bytes(units)]``; the bits left over are 0.

    Examples:
      >>> pack(jnp.array([1.0, 0, 0, 0, 0, 0, 0, 0, 1]))
      Array([128, 128], dtype=uint8)
    """
    return jnp.packbits(jnp.asarray(bits).astype(bool), axis=-1)


def unpack(packed: Array, units: int, dtype: jax.typing.DTypeLike = jnp.float32) -> Array:
    """The inverse of :func:`pack`.

    Args:
      packed: uint8 ``[..., num_bytes(units)]``.
      units: how many units to read.
      dtype: of the result.

    Returns:
      {0, 1} ``[..., units]``.

    Raises:
      ValueError: the bytes do not fit the number of units.
    """
    if packed.shape[-1] != num_bytes(units):
        raise ValueError(f"{units} units take {num_bytes(units)} bytes, got {packed.shape[-1]}")
    if not packed.size:
        return jnp.zeros((*packed.shape[:-1], units), dtype)
    return jnp.unpackbits(packed, axis=-1, count=units).astype(dtype)


def _counter(shape: tuple[int, ...]) -> Array:
    """Position of each entry in the flattened array, uint32; made of iotas, so that it can be made shard by shard."""
    counter, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in range(len(shape) - 1, -1, -1):
        counter = counter + jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride % 2**32)
        stride *= shape[axis]
    return counter
