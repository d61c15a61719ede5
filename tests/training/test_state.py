import jax
import numpy as np

from nlx.methods.noise_types import noise_types, second_backbone
from nlx.models import build
from nlx.training.feed import in_order
from nlx.training.state import redraw_heads
from nlx.training.step import batch_for_method

K = 3


def test_a_redraw_changes_last_layers_and_nothing_else(split, new_run):
    branch = build("mlp", split.inputs.shape[1:], 3, widths=(4,))
    method = noise_types(
        K,
        (1 - np.eye(K)) / (K - 1),
        second_backbone(
            lambda key: branch.init(key)[0],
            lambda params, inputs: branch.apply(params, {}, inputs, False, None)[0]["logits"],
        ),
        boundaries=(2, 4),
    )
    run = new_run(split, method)
    sample = batch_for_method(next(in_order(split, 1, run.mesh))[0], run.prepare, None)
    again = [redraw_heads(run.state, run.model, method, sample, run.mesh) for _ in range(2)]
    later = redraw_heads(run.state._replace(step=run.state.step + 1), run.model, method, sample, run.mesh)

    changed = {}
    for path, leaf in jax.tree.leaves_with_path(run.state.params):
        one, two, other = (np.asarray(dict(jax.tree.leaves_with_path(s.params))[path]) for s in (*again, later))
        np.testing.assert_array_equal(one, two)
        if leaf.ndim == 2:  # biases are 0 at every start
            changed[jax.tree_util.keystr(path)] = (one != np.asarray(leaf)).any(), (one != other).any()
    assert {name: moved for name, moved in changed.items() if "head" in name} == {
        "['method']['head']['dense']['kernel']": (True, True),
        "['model']['head']['dense']['kernel']": (True, True),
    }
    assert not any(any(moved) for name, moved in changed.items() if "head" not in name)
    assert all(
        (np.asarray(a) == np.asarray(b)).all()
        for a, b in zip(jax.tree.leaves(run.state.opt_state), jax.tree.leaves(again[0].opt_state), strict=True)
    )
