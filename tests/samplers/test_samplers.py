import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.samplers import concrete, gaussian

N = 200_000


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 5.0])
@pytest.mark.parametrize("q", [0.05, 0.5, 0.8])
def test_concrete_exceeds_one_half_with_probability_q_at_any_temperature(key, temperature, q):
    z = concrete.sample(key, jnp.full(N, np.log(q / (1 - q)), jnp.float32), temperature)
    assert abs(np.mean(z > 0.5) - q) < 4.5 * np.sqrt(q * (1 - q) / N)


def test_concrete_has_the_distribution_of_two_gumbels(key):
    q, temperature = 0.3, 0.7
    one, two = jax.random.split(key)
    z = concrete.sample(one, jnp.full(N, np.log(q / (1 - q)), jnp.float32), temperature)
    g = jax.random.gumbel(two, (2, N))
    on, off = jnp.exp((jnp.log(q) + g[0]) / temperature), jnp.exp((jnp.log(1 - q) + g[1]) / temperature)
    reference = on / (on + off)
    for moment in (1, 2, 3):
        a, b = z**moment, reference**moment
        assert abs(a.mean() - b.mean()) < 4.5 * np.sqrt((a.var() + b.var()) / N)


def test_the_logistic_noise_has_its_moments(key):
    z = concrete.sample(key, jnp.zeros(N), 1.0)
    noise = np.log(np.asarray(z, np.float64)) - np.log1p(-np.asarray(z, np.float64))
    assert abs(noise.mean()) < 4.5 * np.sqrt(np.pi**2 / 3 / N)
    fourth = 7 * np.pi**4 / 15
    assert abs(noise.var() - np.pi**2 / 3) < 4.5 * np.sqrt((fourth - np.pi**4 / 9) / N)


def test_concrete_tends_to_bits_as_the_temperature_falls(key):
    z = concrete.sample(key, jnp.zeros(1000), 1e-3)
    assert np.mean((z < 0.01) | (z > 0.99)) > 0.98


def test_gradient_reaches_the_logits(key):
    gradient = jax.grad(lambda x: concrete.sample(key, x, 0.5).sum())(jnp.zeros(100))
    assert (np.asarray(gradient) > 0).all()


@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_concrete_is_finite_at_extremes(key, extreme):
    value, gradient = jax.value_and_grad(lambda x: concrete.sample(key, x, 0.01).sum())(jnp.full(8, extreme))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_gaussian_moments_show_sigma_and_not_its_square(key):
    s = gaussian.sample(key, jnp.full(N, 2.0), jnp.full(N, np.log(9.0), jnp.float32))
    assert abs(s.mean() - 2) < 4.5 * 3 / np.sqrt(N)
    assert abs(s.std() - 3) < 4.5 * 3 / np.sqrt(2 * N)


def test_gaussian_gradients_are_one_and_half_the_deviation(key):
    mean, log_variance = jnp.array([1.0, -1.0]), jnp.array([0.3, -0.2])
    by_mean, by_log_variance = jax.grad(lambda m, v: gaussian.sample(key, m, v).sum(), (0, 1))(mean, log_variance)
    np.testing.assert_allclose(by_mean, 1.0)
    np.testing.assert_allclose(by_log_variance, (gaussian.sample(key, mean, log_variance) - mean) / 2, rtol=1e-5)


def test_same_key_same_draw_and_jit_agrees(key):
    logits = jnp.linspace(-2, 2, 7)
    np.testing.assert_array_equal(concrete.sample(key, logits, 0.5), concrete.sample(key, logits, 0.5))
    np.testing.assert_allclose(jax.jit(concrete.sample)(key, logits, 0.5), concrete.sample(key, logits, 0.5), rtol=1e-6)
    assert (concrete.sample(key, logits, 0.5) != concrete.sample(jax.random.key(1), logits, 0.5)).all()


def test_bad_input_is_named(key):
    with pytest.raises(TypeError, match="logits must be floating"):
        concrete.sample(key, jnp.arange(3), 0.5)
    with pytest.raises(ValueError, match="must have the same shape"):
        gaussian.sample(key, jnp.zeros(3), jnp.zeros(2))
