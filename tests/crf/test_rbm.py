import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.crf import rbm

C, H, N = 2, 2, 3
rng = np.random.default_rng(0)


def states(n):
    return jnp.asarray((np.arange(2**n)[:, None] >> np.arange(n)) & 1, jnp.float32)


ALL_Y, ALL_Z = states(N), states(C + H)


def log_joint(machine):
    """log p of every (z, y), ``[2^M, 2^N]``."""
    u, b, a = machine
    log_p = (ALL_Z @ a)[:, None] + (ALL_Y @ b)[None] + ALL_Z @ u @ ALL_Y.T
    return log_p - jax.nn.logsumexp(log_p, axis=None)


def visible(machine):
    """log p(y, clean), ``[2^C, 2^N]``: clean labels are the low bits of a state's number."""
    return jax.nn.logsumexp(log_joint(machine).reshape(2**H, 2**C, 2**N), axis=0)


def machine(scale=1.0):
    return rbm.RBM(*(jnp.asarray(scale * rng.normal(size=s), "f4") for s in ((C + H, N), (N,), (C + H,))))


def test_gradient_is_that_of_the_enumerated_likelihood():
    m = machine()
    y_index, clean_index = np.array([1, 5, 5]), np.array([0, 2, 3])
    exact = jax.jit(jax.grad(lambda m: -visible(m)[clean_index, y_index].mean()))(m)
    # Every state is a chain as often as it is probable: chains are weighted by mixing single-chain gradients.
    p = jnp.exp(log_joint(m)).reshape(-1)
    y, z = jnp.tile(ALL_Y, (len(ALL_Z), 1)), jnp.repeat(ALL_Z, len(ALL_Y), 0)

    def loss(m):
        data = ALL_Y[y_index], states(C)[clean_index]
        return jnp.sum(p * jax.vmap(lambda y, z: rbm.likelihood_loss(m, *data, (y[None, None], z[None, None])))(y, z))

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5), jax.jit(jax.grad(loss))(m), exact)


def test_fit_finds_the_distribution_it_was_given_samples_of(key):
    truth = machine(2.5)
    p = np.exp(np.asarray(visible(truth), np.float64)).reshape(-1)
    drawn = rng.choice(len(p), size=4000, p=p / p.sum())
    clean, y = states(C)[drawn // 2**N], ALL_Y[drawn % 2**N]
    fitted, report = rbm.fit(key, y, clean, H, 1500, learning_rate=0.2, chains=512, sweeps=2, generator="hash")
    assert fitted.coupling.shape == (C + H, N)
    assert all(x.shape == (1500,) for x in report)
    divergence = np.sum(p * (np.log(p) - np.asarray(visible(fitted)).reshape(-1)))
    frequencies = [np.asarray(x).mean(0) for x in (clean, y)]
    independent = sum(-np.sum(f * np.log(f) + (1 - f) * np.log(1 - f)) for f in frequencies) + np.sum(p * np.log(p))
    assert divergence < 0.2 * independent, (divergence, independent)
    assert report.clean_loss[-200:].mean() < 0.95 * report.clean_loss[:20].mean()
    assert report.flip_rate.min() > 0.05


def test_bad_input_is_named(key):
    with pytest.raises(ValueError, match="with the same n > 0"):
        rbm.fit(key, jnp.zeros((3, 2)), jnp.zeros((2, 2)), 1, 10)
    with pytest.raises(ValueError, match="hidden must be at least 0"):
        rbm.fit(key, jnp.zeros((3, 2)), jnp.zeros((3, 2)), -1, 10)
    with pytest.raises(ValueError, match="4 units beside y, fewer than labels"):
        rbm.likelihood_loss(
            machine(), jnp.zeros((1, N)), jnp.zeros((1, 5)), (jnp.zeros((1, 1, N)), jnp.zeros((1, 1, 4)))
        )
