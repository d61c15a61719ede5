import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.samplers import bits

EXAMPLES, CHAINS, UNITS, KEYS = 4, 50, 500, 104  # 1.04e7 draws


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_known_answers_of_random123(key, counter, expected):
    key, counter = np.array(key, np.uint32), np.array(counter, np.uint32)
    assert tuple(map(int, bits.threefry2x32(jnp.asarray(key), counter[0], counter[1]))) == expected


@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 9)])
def test_threefry_words_are_those_of_jax_random(shape):
    key = jax.random.key(5)
    np.testing.assert_array_equal(
        bits.random_words(jax.random.key_data(key), shape), jax.random.bits(key, shape, jnp.uint32)
    )


def weak_words(key, shape):
    """What the mixing is for: a counter times an odd number, and nothing else."""
    return jnp.arange(np.prod(shape), dtype=jnp.uint32).reshape(shape) * np.uint32(0x9E3779B1) + key[0]


@functools.partial(jax.jit, static_argnums=1)
def draw_uniforms(key, generator):
    """Uniforms of many sets of draws, keyed as the sampler keys its sweeps, ``[keys, examples, chains, units]``."""
    shape = (EXAMPLES, CHAINS, UNITS)

    def one(i):
        words = jax.random.bits(jax.random.fold_in(key, i), (2,), jnp.uint32)
        if generator == "weak":
            return (weak_words(words, shape) >> np.uint32(16)).astype(jnp.uint16)
        return bits.uniform16(bits.prepare(words, shape, generator), shape, generator).astype(jnp.uint16)

    return jax.lax.map(one, jnp.arange(KEYS))


def largest_scores(u):
    """z-scores that stay below about 5 for independent uniforms, by name."""
    scores = {}
    n = u.size
    counts = np.bincount(u.ravel(), minlength=2**16)
    scores["histogram"] = (np.sum((counts - n / 2**16) ** 2) / (n / 2**16) - 2**16) / np.sqrt(2 * 2**16)
    # Draws at every probability: one per unit.
    p = np.round(2**16 / (1 + np.exp(-np.linspace(-4, 4, UNITS)))) / 2**16
    standard = ((u < p * 2**16) - p.astype(np.float32)) / np.sqrt(p * (1 - p)).astype(np.float32)
    rows = standard.reshape(-1, UNITS)
    marginal = rows.sum(0) / np.sqrt(len(rows))
    scores["marginals"] = np.abs(marginal).max()
    scores["marginals together"] = (np.sum(marginal**2) - UNITS) / np.sqrt(2 * UNITS)
    pairs = (rows.T @ rows / np.sqrt(len(rows)))[np.triu_indices(UNITS, 1)]
    scores["covariance of units"] = np.abs(pairs).max() - 1  # the largest of 125,000 is about 4.6 on its own
    scores["covariances together"] = (np.mean(pairs**2) - 1) * np.sqrt(len(pairs) / 2)
    for name, axis, lags in (("keys", 0, (1, 2)), ("chains", 2, (1, 2, CHAINS // 2)), ("units", 3, (1, 2, 3, 64))):
        for lag in lags:
            index = np.arange(standard.shape[axis])
            a, b = (standard.take(part, axis) for part in (index[lag:], index[:-lag]))
            scores[f"serial, {name}, {lag}"] = abs(np.vdot(a, b)) / np.sqrt(a.size)
    for bit in range(16):
        scores[f"bit {bit}"] = abs(np.count_nonzero(u & np.uint16(1 << bit)) - n / 2) / np.sqrt(n / 4)
    return {name: float(abs(score)) for name, score in scores.items()}


@pytest.mark.parametrize("generator", ["threefry", "hash"])
def test_ten_million_draws_look_independent(key, generator):
    u = np.asarray(draw_uniforms(key, generator))
    assert u.size >= 10**7
    scores = largest_scores(u)
    assert max(scores.values()) < 4.8, scores


def test_the_same_test_finds_a_weak_generator(key):
    assert max(largest_scores(np.asarray(draw_uniforms(key, "weak"))).values()) > 50


def test_hash_streams_of_two_keys_are_not_one_stream_shifted():
    # Keys apart by what a shift of the counter would be: added or xored to it they would give the same words again.
    one, two = (np.asarray(bits.random_words(jnp.array([k, 7], jnp.uint32), (4096,), "hash")) for k in (0, 1024))
    other = np.asarray(bits.random_words(jnp.array([1024, 8], jnp.uint32), (4096,), "hash"))
    assert np.intersect1d(one, two).size == 4096  # the first word alone permutes the counters ...
    assert np.intersect1d(one, other).size < 10  # ... and the second tells the streams apart


@pytest.mark.parametrize("logit", [-1e4, -90.0, -12.0, -11.0, -3.3, -1e-3, 0.0, 0.7, 5.0, 11.0, 12.0, 90.0, 1e4])
def test_bernoulli16_is_sigmoid_to_half_a_step(logit):
    u = jnp.arange(2**16, dtype=jnp.uint32)
    drawn = bits.bernoulli16(u, jnp.full(2**16, logit, jnp.float32))
    exact = 1 / (1 + np.exp(np.float64(-logit))) if logit > -700 else 0.0
    assert abs(np.mean(np.asarray(drawn), dtype=np.float64) - exact) <= 2.0**-17 * 1.01


@pytest.mark.parametrize("units", [1, 7, 8, 9, 273])
def test_packing_round_trips(key, units):
    state = jax.random.bernoulli(key, 0.3, (3, 5, units))
    packed = bits.pack(state)
    assert packed.dtype == jnp.uint8
    assert packed.shape == (3, 5, bits.num_bytes(units))
    np.testing.assert_array_equal(packed, np.packbits(np.asarray(state), axis=-1))
    unpacked = bits.unpack(packed, units, jnp.bfloat16)
    assert unpacked.dtype == jnp.bfloat16
    np.testing.assert_array_equal(unpacked.astype(bool), state)


def test_bad_input_is_named():
    key = jnp.zeros(2, jnp.uint32)
    with pytest.raises(ValueError, match="unknown generator 'rbg'; known: threefry, hash"):
        bits.random_words(key, (2,), "rbg")
    with pytest.raises(ValueError, match=r"more than 2\^32 words"):
        bits.random_words(key, (2**20, 2**13), "hash")
    with pytest.raises(ValueError, match="9 units take 2 bytes, got 1"):
        bits.unpack(jnp.zeros((1, 1), jnp.uint8), 9)


@pytest.mark.parametrize(("platform", "expected"), [("cpu", "threefry"), ("gpu", "hash"), ("tpu", "hash")])
def test_the_default_goes_by_the_platform(monkeypatch, platform, expected):
    monkeypatch.setattr(bits.target, "platform", lambda: platform)
    assert bits.default_generator() == expected
