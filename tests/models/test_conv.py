import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from nlx.models.conv import Conv, conv2d


def _arrays(height, width, size):
    rng = np.random.default_rng(3)
    return rng.normal(size=(2, height, width, 3)), rng.normal(size=(size, size, 3, 4))


def _reference(x, kernel, stride):
    """Float64 loops over positions."""
    half = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    height, width = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    out = np.zeros((len(x), height, width, kernel.shape[3]))
    for i in range(height):
        for j in range(width):
            window = padded[:, i * stride : i * stride + len(kernel), j * stride : j * stride + len(kernel)]
            out[:, i, j] = np.einsum("bhwc,hwcd->bd", window, kernel)
    return out


SHAPES = [(8, 8, 5, 2), (9, 6, 3, 2), (7, 5, 3, 1), (6, 6, 1, 2), (5, 9, 7, 2)]


@pytest.mark.parametrize(("height", "width", "size", "stride"), SHAPES)
def test_conv2d_matches_loops(height, width, size, stride):
    x, kernel = _arrays(height, width, size)
    out = conv2d(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32), stride)
    np.testing.assert_allclose(out, _reference(x, kernel, stride), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("height", "width", "size", "stride"), SHAPES)
def test_conv2d_gradients(height, width, size, stride):
    x, kernel = (jnp.asarray(a, jnp.float32) for a in _arrays(height, width, size))
    check_grads(lambda x, kernel: conv2d(x, kernel, stride), (x, kernel), order=1, modes=["rev"], rtol=1e-2, atol=1e-2)


def test_conv2d_gradients_vmap_over_kernels():
    x, kernel = (jnp.asarray(a, jnp.float32) for a in _arrays(8, 8, 3))
    kernels = jnp.stack([kernel, -2.0 * kernel])
    grad = jax.grad(lambda kernel: jnp.sum(conv2d(x, kernel, 2) ** 2))
    expected = jnp.stack([grad(k) for k in kernels])
    np.testing.assert_allclose(jax.vmap(grad)(kernels), expected, rtol=1e-4, atol=1e-3)


def test_gradients_in_a_loop_have_the_order_that_is_fast_on_a_cpu():
    """A convolution in a loop body that XLA has to run by its slow general routine stays a bare instruction."""
    x, kernel = (jnp.asarray(a, jnp.float32) for a in _arrays(32, 32, 3))

    def step(kernel, _):
        return kernel - 0.1 * jax.grad(lambda k: jnp.sum(conv2d(conv2d(x, k, 2) @ jnp.ones((4, 3)), k, 2) ** 2))(
            kernel
        ), None

    text = jax.jit(lambda k: jax.lax.scan(step, k, None, length=4)[0]).lower(kernel).compile().as_text()
    orders = {
        line.split("dim_labels=")[1].split(",")[0].split(" ")[0] for line in text.splitlines() if "dim_labels=" in line
    }
    assert orders == {"b01f_01io->b01f"}


def test_bias_and_dtype():
    conv = Conv(3, 4, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert conv.kernel[...].dtype == jnp.float32
    conv.bias[...] = jnp.arange(4.0)
    out = conv(jnp.zeros((1, 4, 4, 3)))
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out[0, 2, 2].astype(jnp.float32), jnp.arange(4.0))
