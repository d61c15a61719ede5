import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.methods.noise_types import noise_types, second_backbone, shared_trunk
from nlx.models import build
from nlx.training.feed import in_order
from nlx.training.state import redraw_heads
from nlx.training.step import batch_for_method

K = 3


def own_branch(split):
    branch = build("mlp", split.inputs.shape[1:], 3, widths=(4,))
    return second_backbone(
        lambda key: branch.init(key)[0],
        lambda params, inputs: branch.apply(params, {}, inputs, False, None)[0]["logits"],
    )


@pytest.mark.parametrize("branch", [own_branch, lambda split: shared_trunk(16)], ids=["own", "shared"])
def test_a_redraw_changes_last_layers_and_nothing_else(split, new_run, branch):
    method = noise_types(K, (1 - np.eye(K)) / (K - 1), branch(split), boundaries=(2, 4))
    run = new_run(split, method)
    sample = batch_for_method(next(in_order(split, 1, run.mesh))[0], run.prepare, None)
    redraw = redraw_heads(run.model, method, sample, run.mesh)
    before = jax.tree.map(lambda x: x + 1 if x.dtype == jnp.float32 else x, run.state)

    def drawn(step):
        copied = jax.tree.map(jnp.copy, before)
        return redraw(copied._replace(step=jnp.int32(step)))

    first, again, later = drawn(0), drawn(0), drawn(1)
    heads = 0
    for path, old in jax.tree.leaves_with_path(before.params):
        one, two, other = (np.asarray(dict(jax.tree.leaves_with_path(s.params))[path]) for s in (first, again, later))
        np.testing.assert_array_equal(one, two)
        if jax.tree_util.DictKey("head") in path:
            heads += 1
            assert (one != np.asarray(old)).all()
            assert (one != other).any() or not one.any()  # biases and a shared trunk's weights start at 0
        else:
            np.testing.assert_array_equal(one, np.asarray(old))
            np.testing.assert_array_equal(other, np.asarray(old))
    assert heads == 4
    for path, gathered in jax.tree.leaves_with_path(first.opt_state):
        if gathered.dtype == jnp.float32:
            np.testing.assert_array_equal(gathered, 0 if jax.tree_util.DictKey("head") in path else 1)
