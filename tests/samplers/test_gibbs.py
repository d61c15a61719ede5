import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.samplers import bits, gibbs

CHAINS = 4000
SHAPES = {"carries z": (3, 5), "carries y": (6, 4)}  # M, N


def model(shape, examples=2, scale=1.0):
    """A random model whose coupling bfloat16 can hold, and one set of biases per example."""
    rng = np.random.default_rng(sum(shape))
    m, n = shape
    coupling = jnp.asarray(scale * rng.normal(size=(m, n)), jnp.bfloat16).astype(jnp.float32)
    return (
        coupling,
        jnp.asarray(rng.normal(size=(examples, n)), "f4"),
        jnp.asarray(rng.normal(size=(examples, m)), "f4"),
    )


def states(n):
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)


def exact(coupling, y_bias, z_bias):
    """Probabilities of all (z, y), ``[2^M, 2^N]``, with the states."""
    u, b, a = (np.asarray(x, np.float64) for x in (coupling, y_bias, z_bias))
    y, z = states(len(b)), states(len(a))
    log_p = (z @ a)[:, None] + y @ b + z @ u @ y.T
    p = np.exp(log_p - log_p.max())
    return p / p.sum(), y, z


STATIC = ("generator", "dtype", "average", "mixing")
run = jax.jit(functools.partial(gibbs.step, generator="hash"), static_argnames=STATIC)  # compiles faster


def assert_mean(samples, expected, z=4.5):
    """Mean over the first axis within z standard errors."""
    samples = np.asarray(samples, np.float64)
    error = samples.std(0, ddof=1) / np.sqrt(len(samples)) + 1e-9
    assert (np.abs(samples.mean(0) - expected) < z * error).all()


@pytest.mark.parametrize(
    ("shape", "generator", "dtype"),
    [
        (SHAPES["carries z"], "threefry", jnp.bfloat16),
        (SHAPES["carries y"], "hash", jnp.float32),
    ],
)
def test_samples_have_the_moments_of_the_enumerated_model(key, shape, generator, dtype):
    coupling, b, a = model(shape)
    state = gibbs.init(key, 2, CHAINS, shape[1], shape[0])
    state, info = run(jax.random.key(1), state, coupling, b, a, 30, generator=generator, dtype=dtype)
    carried = np.asarray(bits.unpack(state.packed, min(shape)))
    for i in range(2):
        p, y, z = exact(coupling, b[i], a[i])
        assert_mean(info.y[i], p.sum(0) @ y)
        assert_mean(info.z[i], p.sum(1) @ z)
        assert_mean(np.einsum("cm,cn->cmn", info.z[i], info.y[i]), z.T @ p @ y)
        side, weight = (y, p.sum(0)) if min(shape) == shape[1] else (z, p.sum(1))
        assert_mean(np.einsum("ci,cj->cij", carried[i], carried[i]), np.einsum("s,si,sj->ij", weight, side, side))
        np.testing.assert_allclose(info.y_mean[i], p.sum(0) @ y, atol=4.5 * 0.5 / np.sqrt(CHAINS))
        np.testing.assert_allclose(info.z_mean[i], p.sum(1) @ z, atol=4.5 * 0.5 / np.sqrt(CHAINS))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_carried_side_is_given_as_its_conditional_mean(key, shape):
    coupling, b, a = model(shape)
    state = gibbs.init(key, 2, 6, shape[1], shape[0])
    state, info = run(key, state, coupling, b, a, 3, dtype=jnp.float32)
    sigmoid = lambda x: 1 / (1 + np.exp(-np.asarray(x, np.float64)))  # noqa: E731
    if min(shape) == shape[1]:
        assert set(np.unique(info.z)) <= {0.0, 1.0}
        np.testing.assert_allclose(info.y, sigmoid(b[:, None] + info.z @ coupling), rtol=1e-5)
        np.testing.assert_allclose(info.y_mean, info.y.mean(1), rtol=1e-5)
    else:
        assert set(np.unique(info.y)) <= {0.0, 1.0}
        np.testing.assert_allclose(info.z, sigmoid(a[:, None] + info.y @ coupling.T), rtol=1e-5)
        np.testing.assert_allclose(info.z_mean, info.z.mean(1), rtol=1e-5)


@pytest.mark.parametrize(("shape", "chains"), [(SHAPES["carries z"], 4), (SHAPES["carries y"], 5)])
def test_chains_are_those_of_a_loop_over_the_same_random_bits(key, shape, chains):
    coupling, b, a = (np.asarray(x, np.float64) for x in model(shape))
    y_carried = shape[1] <= shape[0]
    state = gibbs.init(key, 2, chains, shape[1], shape[0])
    arrays = (jnp.asarray(x, jnp.float32) for x in (coupling, b, a))
    new, info = run(key, state, *arrays, 4, average=True, generator="threefry")

    def draw(words, logits):
        shape = logits.shape if chains % 2 else (2, chains // 2, logits.shape[-1])
        words = np.asarray(jax.random.bits(jax.random.wrap_key_data(words), shape))
        u = words >> 16 if chains % 2 else np.concatenate([words & 0xFFFF, words >> 16], axis=1)
        return ((u + 0.5) / 2**16 < 1 / (1 + np.exp(-logits))).astype(np.float64)

    carried = np.asarray(bits.unpack(state.packed, min(shape)), np.float64)
    y_means = []
    for i in range(4):
        words = jax.random.bits(jax.random.fold_in(key, i), (2, 2), jnp.uint32)
        if y_carried:
            z = draw(words[0], a[:, None] + carried @ coupling.T)
            logits = b[:, None] + z @ coupling
            carried = draw(words[1], logits)
        else:
            logits = b[:, None] + carried @ coupling
            carried = draw(words[1], a[:, None] + draw(words[0], logits) @ coupling.T)
        y_means.append(1 / (1 + np.exp(-logits)))
    np.testing.assert_array_equal(bits.unpack(new.packed, min(shape)), carried)
    np.testing.assert_allclose(info.y_mean, np.mean(y_means, axis=(0, 2)), rtol=1e-5)
    before = np.asarray(bits.unpack(state.packed, min(shape)))
    np.testing.assert_allclose(info.flip_rate, np.mean(before != carried, axis=(1, 2)), rtol=1e-6)


@pytest.mark.parametrize("sizes", [(9, 11), (11, 9)], ids=["carries z", "carries y"])
def test_every_chain_goes_on_from_its_own_state(key, sizes):
    # y copies z and z copies y: whatever a chain starts from stays, so that every lost or swapped row shows.
    coupling = jnp.eye(*sizes) * 80
    y_bias, z_bias = jnp.full(sizes[1], -40.0), jnp.full(sizes[0], -40.0)
    state = gibbs.init(key, 6, 10, sizes[1], sizes[0])
    assert len(np.unique(np.asarray(state.packed).reshape(60, -1), axis=0)) > 40
    new, info = run(key, state, coupling, y_bias, z_bias, 7)
    np.testing.assert_array_equal(new.packed, state.packed)
    np.testing.assert_array_equal(info.flip_rate, 0)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_an_example_does_not_feel_another_ones_biases(key, shape):
    coupling, b, a = model(shape, examples=4)
    state = gibbs.init(key, 4, 10, shape[1], shape[0])
    one, _ = run(key, state, coupling, b, a, 5)
    two, _ = run(key, state, coupling, b.at[2].add(3.0), a.at[2].add(-3.0), 5)
    same = (one.packed == two.packed).all(axis=(1, 2))
    np.testing.assert_array_equal(same, [True, True, False, True])


def test_biases_without_an_example_axis_serve_all_examples(key):
    coupling, b, a = model((3, 5))
    state = gibbs.init(key, 2, 4, 5, 3)
    shared, _ = run(key, state, coupling, b[0], a[0], 3)
    tiled, _ = run(key, state, coupling, b[jnp.zeros(2, jnp.int32)], a[jnp.zeros(2, jnp.int32)], 3)
    np.testing.assert_array_equal(shared.packed, tiled.packed)


def test_init_starts_at_the_mean_it_is_given(key):
    mean = jnp.array([0.1, 0.5, 0.9])
    drawn = bits.unpack(gibbs.init(key, 2, CHAINS, 5, 3, mean=mean).packed, 3)
    assert_mean(drawn.reshape(-1, 3), np.array([0.1, 0.5, 0.9]))
    by_example = gibbs.init(key, 2, 4, 5, 3, mean=jnp.array([[0.0] * 3, [1.0] * 3]))
    np.testing.assert_array_equal(bits.unpack(by_example.packed, 3).mean((1, 2)), [0, 1])
    fair = gibbs.init(key, 2, CHAINS, 5, 3).packed
    assert_mean(bits.unpack(fair, 3).reshape(-1, 3), 0.5)
    assert (np.asarray(fair) & 0b11111 == 0).all()  # bits left over


def test_ess_is_that_of_a_two_state_chain_and_r_hat_near_one(key):
    u, sweeps, chains = 3.0, 400, 2000
    coupling, bias = jnp.array([[u]]), jnp.full(1, -u / 2)
    state, _ = run(key, gibbs.init(key, 1, chains, 1, 1), coupling, bias, bias, 50)
    _, info = run(jax.random.key(1), state, coupling, bias, bias, sweeps, mixing=True)
    # Symmetric: a side copies the other with probability s, so a sweep keeps its value with correlation (2 s - 1)^2.
    correlation = (2 / (1 + np.exp(-u / 2)) - 1) ** 2
    expected = chains * sweeps * (1 - correlation) / (1 + correlation)
    for mixing in (info.y_mixing, info.z_mixing):
        np.testing.assert_allclose(mixing.ess[0, 0], expected, rtol=5 * np.sqrt(2 / chains) + 0.01)
        np.testing.assert_allclose(mixing.r_hat, 1, atol=0.01)


def test_chains_that_stand_still_are_seen(key):
    coupling, bias = jnp.array([[80.0]]), jnp.full(1, -40.0)
    _, info = run(key, gibbs.init(key, 1, 50, 1, 1), coupling, bias, bias, 20, mixing=True)
    assert np.isinf(info.y_mixing.r_hat).all()
    assert (info.y_mixing.ess <= 52).all()
    _, info = run(key, gibbs.init(key, 1, 50, 1, 1), coupling * 0, bias, bias, 20, mixing=True)
    np.testing.assert_array_equal(info.z_mixing.r_hat, 1)  # certain units are no sign of bad mixing
    np.testing.assert_array_equal(info.z_mixing.ess, 1000)


def test_one_trace_serves_all_keys_states_and_numbers_of_sweeps(key):
    coupling, b, a = model((3, 5))
    traces = []

    @jax.jit
    def counted(key, state, coupling, num_sweeps):
        traces.append(1)
        return gibbs.step(key, state, coupling, b, a, num_sweeps, generator="hash")

    state = gibbs.init(key, 2, 4, 5, 3)
    for i in range(3):
        state, _ = counted(jax.random.key(i), state, coupling * i, i + 1)
    assert len(traces) == 1
    eager, _ = gibbs.step(key, state, coupling, b, a, 3, generator="hash")
    np.testing.assert_array_equal(eager.packed, counted(key, state, coupling, 3)[0].packed)


def test_sharded_chains_are_the_same_chains(key):
    coupling, b, a = model((3, 5), examples=8)
    state = gibbs.init(key, 8, 4, 5, 3)
    alone, _ = run(key, state, coupling, b, a, 3)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.NamedSharding(mesh, jax.P("data"))
    spread, _ = run(key, jax.device_put(state, split), coupling, jax.device_put(b, split), jax.device_put(a, split), 3)
    np.testing.assert_array_equal(spread.packed, alone.packed)


@pytest.mark.parametrize(("num_y", "num_z", "generator"), [(13, 40, "threefry"), (40, 13, "hash"), (16, 24, "hash")])
def test_rows_filled_up_for_a_gpu_give_the_same_chains(key, monkeypatch, num_y, num_z, generator):
    state = gibbs.init(key, 3, 4, num_y, num_z)
    u, b, a = (jax.random.normal(key, shape) for shape in ((num_z, num_y), (3, num_y), (num_z,)))
    run = functools.partial(gibbs.step, key, state, u, b, a, 5, generator=generator, average=True, mixing=True)
    here = run()
    monkeypatch.setattr(gibbs, "alignment", lambda: 8)
    text = str(jax.make_jaxpr(run)())
    assert "optimization_barrier" in text
    assert ("pad[" in text) == (num_y % 8 > 0 or num_z % 8 > 0)
    jax.tree.map(np.testing.assert_array_equal, run(), here)


def test_everything_is_finite_at_extremes(key):
    coupling = jnp.array([[1e4, -1e4, 0.0]])
    state = gibbs.init(key, 1, 4, 3, 1)
    _, info = run(key, state, coupling, jnp.array([1e4, -1e4, 0.0]), jnp.array([1e4]), 3, average=True)
    assert all(np.isfinite(x).all() for x in info if x is not None)
    np.testing.assert_allclose(info.y_mean[0], [1, 0, 0.5])
    np.testing.assert_allclose(info.z_mean[0], 1)


def test_bad_input_is_named(key):
    coupling, b, a = model((3, 5))
    state = gibbs.init(key, 2, 4, 5, 3)
    call = functools.partial(gibbs.step, key, state)
    for bad, error, match in [
        ((coupling.astype(int), b, a, 1), TypeError, "coupling must be floating, got int32"),
        ((coupling[0], b, a, 1), ValueError, r"coupling must be \[M, N\]"),
        ((coupling, b[:1], a, 1), ValueError, r"y_bias must be of shape \(5,\) or \(2, 5\), got \(1, 5\)"),
        ((coupling, b, a[:, :2], 1), ValueError, r"z_bias must be of shape \(3,\) or \(2, 3\)"),
        ((coupling, b, a, 0), ValueError, "num_sweeps must be at least 1, got 0"),
        ((jnp.zeros((9, 9)), b, a, 1), ValueError, "does not fit coupling"),
    ]:
        with pytest.raises(error, match=match):
            call(*bad)
    with pytest.raises(ValueError, match="mixing needs at least 2 chains and 2 sweeps"):
        call(coupling, b, a, 1, mixing=True)
    with pytest.raises(ValueError, match="unknown generator 'rbg'"):
        call(coupling, b, a, 2, generator="rbg")
    with pytest.raises(TypeError, match="typed PRNG key"):
        gibbs.step(jnp.zeros(2, jnp.uint32), state, coupling, b, a, 1)
    with pytest.raises(ValueError, match="sizes must be at least 1"):
        gibbs.init(key, 0, 4, 5, 3)
    with pytest.raises(ValueError, match=r"mean must be of shape \(3,\) or \(2, 3\), got \(5,\)"):
        gibbs.init(key, 2, 4, 5, 3, mean=jnp.zeros(5))
