"""A running mean of the weights: its course, and that everything which predicts does so by it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nlx.arguments import ArgumentError
from nlx.methods.plain import cross_entropy, plain
from nlx.models import build
from nlx.training.averaging import average_in, averaged
from nlx.training.mesh import make_mesh
from nlx.training.stages import Stage
from nlx.training.state import for_prediction, predicting_params, reinit_heads, with_weights
from nlx.training.trainer import Trainer

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 4)).astype(np.float32), RNG.integers(0, 2, 32).astype(np.int32)


def trainer(decay=0.8):
    optimizer = averaged(optax.sgd(0.5, momentum=0.9), decay)
    model = build("mlp", (4,), 2, widths=(3,))
    return Trainer(model, plain(cross_entropy), optimizer, batch_size=8, mesh=make_mesh(jax.devices()[:1]))


def test_the_mean_looks_back_further_as_it_goes_on():
    optimizer = averaged(optax.sgd(1.0), 0.5)
    params = {"model": {"w": jnp.float32(0)}, "method": {}}
    state, mean, path = optimizer.init(params), 0.0, []
    for t in range(12):
        mean = min(0.5, (1 + t) / (10 + t)) * mean + (1 - min(0.5, (1 + t) / (10 + t))) * float(params["model"]["w"])
        updates, state = optimizer.update({"model": {"w": jnp.float32(-1)}, "method": {}}, state, params)
        params = optax.apply_updates(params, updates)
        path.append(float(average_in(state)["w"]))
        assert path[-1] == pytest.approx(mean, rel=1e-6)
    assert path[-1] == pytest.approx(10.0, abs=0.1)  # a mean of 0.5 lags by one step, and is one behind


def test_predictions_are_by_the_mean_and_training_is_not():
    with_mean, without = trainer(), trainer()
    without.optimizer = optax.sgd(0.5, momentum=0.9)
    fitted, alone = (t.fit((X, Y), jax.random.key(0), 3).state for t in (with_mean, without))
    for own, other in zip(*(jax.tree.leaves(s.params) for s in (fitted, alone)), strict=True):
        np.testing.assert_array_equal(own, other)
    mean = predicting_params(fitted)["model"]
    swapped = alone._replace(params={**alone.params, "model": mean})
    np.testing.assert_array_equal(with_mean.scores(fitted, X), without.scores(swapped, X))
    assert not np.allclose(with_mean.scores(fitted, X), without.scores(alone, X))
    np.testing.assert_array_equal(with_mean.scores(for_prediction(fitted), X), with_mean.scores(fitted, X))


def test_the_mean_begins_anew_with_other_weights_and_heads():
    t = trainer()
    state = t.fit((X, Y), jax.random.key(0), 2).state
    params = jax.tree.map(jnp.zeros_like, state.params["model"])
    for leaf in jax.tree.leaves(average_in(with_weights(state, params, state.stats).opt_state)):
        np.testing.assert_array_equal(leaf, 0)
    fresh = reinit_heads(state, t.init(jax.random.key(1), (X, Y)))
    for mean, own in zip(*map(jax.tree.leaves, (average_in(fresh.opt_state), fresh.params["model"])), strict=True):
        np.testing.assert_array_equal(mean, own)
    # Neither start shares a buffer with the parameters, which the next step consumes.
    t.fit((X, Y), jax.random.key(0), [Stage(1), Stage(1, reinit_heads=True), Stage(1, fresh_optimizer=True)])


@pytest.mark.parametrize("decay", [0.0, 1.0, float("nan")])
def test_a_decay_out_of_range_is_told(decay):
    with pytest.raises(ArgumentError, match="`decay` must lie between 0 and 1"):
        averaged(optax.sgd(1.0), decay)
