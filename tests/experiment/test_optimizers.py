"""Optimizers by options: where a weight goes under given gradients."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nlx.experiment.defaults import Training, build_optimizer
from nlx.experiment.options import RecipeOptions
from nlx.training.averaging import average_in

MLP = Training("mlp", 3, 2, 0.5)


def walk(grads, steps, learning_rate=0.1, start=2.0, decay=0.0, of_method=None, optimizer="sgd", **options):
    """Where one weight of the backbone and one of the method go, under the same gradient at every step."""
    training = replace(MLP, learning_rate=learning_rate, weight_decay=decay, optimizer=optimizer)
    optimizer = build_optimizer(RecipeOptions(**options), training, of_method)
    params = {"model": {"w": jnp.float32(start)}, "method": {"v": jnp.float32(start)}}
    path = []
    with jax.numpy_dtype_promotion("standard"):  # which optax leans on
        state = optimizer.init(params)
        for _ in range(steps):
            same = jax.tree.map(lambda p: jnp.full_like(p, grads), params)
            updates, state = optimizer.update(same, state, params)
            params = optax.apply_updates(params, updates)
            path.append([float(params["model"]["w"]), float(params["method"]["v"])])
    return np.array(path)


def test_sgd_moves_backbone_and_method_at_their_own_rates():
    path = walk(1.0, 3, method_rate=0.04, momentum=0.0)
    np.testing.assert_allclose(path, 2 - np.outer([1, 2, 3], [0.1, 0.004]), rtol=1e-6)


def test_momentum_adds_up_past_gradients():
    np.testing.assert_allclose(walk(1.0, 3, momentum=0.5)[:, 0], 2 - 0.1 * np.cumsum([1, 1.5, 1.75]), rtol=1e-6)


def test_weight_decay_is_an_l2_penalty():
    options = {"method_rate": 0.5, "momentum": 0.0}
    path = walk(0.0, 4, decay=0.2, **options)
    np.testing.assert_allclose(path[:, 0], 2 * (1 - 0.1 * 0.2) ** np.arange(1, 5), rtol=1e-5)
    np.testing.assert_allclose(path[:, 1], 2 * (1 - 0.05 * 0.2) ** np.arange(1, 5), rtol=1e-5)
    np.testing.assert_array_equal(walk(0.0, 2, **options), 2)


@pytest.mark.parametrize("options", [{"optimizer": "adam"}, {"momentum": 0.9, "decay": 0.2, "learning_rate": 7.0}])
def test_a_method_may_bring_an_optimizer_of_its_own(options):
    path = walk(1.0, 3, of_method=optax.sgd(0.5), **options)
    np.testing.assert_allclose(path[:, 1], 2 - 0.5 * np.array([1, 2, 3]), rtol=1e-6)
    np.testing.assert_array_equal(walk(0.0, 3, of_method=optax.sgd(0.5), **options)[:, 1], 2)


def test_adam_steps_by_the_learning_rate_whatever_the_gradients_size():
    for size in (1e-3, 1e3):
        path = walk(size, 2, learning_rate=0.01, optimizer="adam", method_rate=10.0)
        np.testing.assert_allclose(path, 2 - np.outer([1, 2], [0.01, 0.1]), rtol=1e-4)


def test_a_large_epsilon_makes_adams_steps_follow_the_gradients_size():
    steps = [walk(size, 1, learning_rate=0.01, optimizer="adam", adam_epsilon=1.0) for size in (1e-3, 2e-3)]
    small, twice = (2 - path[0, 0] for path in steps)
    np.testing.assert_allclose(twice / small, 2.0, rtol=0.01)


def test_adams_first_decay_rate_is_the_momentum():
    optimizer = build_optimizer(RecipeOptions(momentum=0.5), replace(MLP, optimizer="adam"))
    params = {"model": {"w": jnp.ones(())}, "method": {}}
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
        _, state = optimizer.update(params, state, params)
    means = [x for path, x in jax.tree.leaves_with_path(state) if ".mu" in jax.tree_util.keystr(path)]
    assert [float(x) for x in means] == [0.5]


def test_nesterovs_momentum_looks_ahead():
    path = walk(1.0, 3, momentum=0.5, optimizer="nesterov")[:, 0]
    np.testing.assert_allclose(path, 2 - 0.1 * np.cumsum([1.5, 1.75, 1.875]), rtol=1e-6)


def test_adamw_decays_kernels_alone():
    training = replace(MLP, learning_rate=0.1, weight_decay=0.2, optimizer="adamw")
    optimizer = build_optimizer(RecipeOptions(), training)
    params = {"model": {"kernel": jnp.ones(2), "bias": jnp.ones(2), "scale": jnp.ones(2)}, "method": {"t": jnp.ones(2)}}
    with jax.numpy_dtype_promotion("standard"):
        nothing = jax.tree.map(jnp.zeros_like, params)
        updates, _ = optimizer.update(nothing, optimizer.init(params), params)
    np.testing.assert_allclose(updates["model"].pop("kernel"), -0.02, rtol=1e-6)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates))


def test_a_long_gradient_of_the_backbone_is_cut():
    path = walk(3.0, 2, momentum=0.0, clip=0.5)
    np.testing.assert_allclose(path, 2 - np.outer([1, 2], [0.05, 0.3]), rtol=1e-6)


def test_weights_move_by_the_mean_gradient_of_accumulated_steps():
    path = walk(1.0, 4, momentum=0.0, accumulate=2)[:, 0]
    np.testing.assert_allclose(path, [2.0, 1.9, 1.9, 1.8], rtol=1e-6)


def test_a_method_may_have_nothing_to_train():
    optimizer = build_optimizer(RecipeOptions(momentum=0.0), replace(MLP, learning_rate=0.1))
    params = {"model": {"w": jnp.ones(3)}, "method": {}}
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_allclose(updates["model"]["w"], -0.1, rtol=1e-6)
    assert updates["method"] == {}


def test_lars_steps_in_proportion_to_the_weights():
    training = replace(MLP, learning_rate=0.1, weight_decay=0.0, optimizer="lars")
    optimizer = build_optimizer(RecipeOptions(momentum=0.0), training)
    params = {"model": {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array([3.0, 4.0])}, "method": {}}
    grads = {"model": {"kernel": jnp.array([0.0, 2.0]), "bias": jnp.array([0.0, 2.0])}, "method": {}}
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
    # 0.001 of the norm along the unit gradient, and the gradient itself where nothing is in proportion
    np.testing.assert_allclose(updates["model"]["kernel"], [0, -0.1 * 0.001 * 5], rtol=1e-5)
    np.testing.assert_allclose(updates["model"]["bias"], [0, -0.2], rtol=1e-5)


def test_an_average_of_weights_is_kept_where_it_is_asked_for():
    params = {"model": {"w": jnp.float32(2)}, "method": {}}
    for options, kept in (({}, False), ({"average": 0.9}, True), ({"average": 0.9, "accumulate": 2}, True)):
        state = build_optimizer(RecipeOptions(**options), MLP).init(params)
        assert (average_in(state) is not None) == kept
