"""A user's own Flax module, and preparation in front of any model, as pure functions."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from nlx.arguments import ArgumentError
from nlx.models import Model, build, from_nnx, prepared


class Net(nnx.Module):
    """Everything that is not a parameter: batch statistics, random streams; and layers in a list."""

    def __init__(self, *, rngs):
        self.layers = nnx.List([nnx.Linear(6, 16, rngs=rngs), nnx.Linear(16, 16, rngs=rngs)])
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.head(self.dropout(self.norm(x)))


class Given(nnx.Module):
    """Returns what it is told to, whatever the inputs."""

    def __init__(self, outputs):
        self.outputs = nnx.static(outputs)

    def __call__(self, x):
        return self.outputs(x)


X = jax.random.normal(jax.random.key(1), (8, 6))


def arrays(module):
    """All that a module holds, keys as their words."""
    leaves = jax.tree.leaves(nnx.to_pure_dict(nnx.state(module)))
    return [jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.array(x) for x in leaves]


def words(tree):
    return jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree)


@pytest.mark.parametrize("make", [Net, lambda rngs: Net(rngs=rngs), lambda streams: Net(rngs=streams)])
def test_the_functions_do_what_flax_does(make):
    model = from_nnx(make)
    key = jax.random.key(0)
    params, stats = model.init(key)
    net = Net(rngs=nnx.Rngs(jax.random.fold_in(key, 1), params=key))
    chex.assert_trees_all_equal(
        params, jax.tree.map(np.asarray, {**params, "head": nnx.to_pure_dict(nnx.state(net.head))})
    )
    apply = jax.jit(model.apply, static_argnums=3)
    net.train()
    for _ in range(3):  # as often as statistics and counters move on
        outputs, stats = apply(params, stats, X, True, jax.random.key(5))
        chex.assert_trees_all_close(outputs, {"logits": net(X)}, rtol=1e-5, atol=1e-6)
    assert stats["dropout"]["rngs"]["count"] == 3
    chex.assert_trees_all_close(
        stats["norm"], nnx.to_pure_dict(nnx.state(net.norm, nnx.BatchStat)), rtol=1e-5, atol=1e-6
    )
    net.eval()
    outputs, same = apply(params, stats, X, False, None)
    chex.assert_trees_all_close(outputs["logits"], net(X), rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_equal(words(same), words(stats))
    chex.assert_trees_all_close(model.apply_test(params, stats, X), outputs, rtol=1e-5, atol=1e-6)


def test_an_instance_is_the_start_and_stays_as_it_is():
    net = Net(rngs=nnx.Rngs(3))
    net.train()
    before = arrays(net)
    model = from_nnx(net)
    (params, stats), (others, other_stats) = model.init(jax.random.key(0)), model.init(jax.random.key(1))
    chex.assert_trees_all_equal(params, others)
    chex.assert_trees_all_equal(params["head"], jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(net.head))))
    assert words(stats)["dropout"]["rngs"]["key"].tolist() != words(other_stats)["dropout"]["rngs"]["key"].tolist()
    step = jax.jit(
        lambda p, s: (jax.tree.map(lambda x: x - 1, p), model.apply(p, s, X, True, None)[1]), donate_argnums=(0, 1)
    )
    step(params, stats)
    chex.assert_trees_all_equal(before, arrays(net))
    assert not net.dropout.deterministic
    net.head.kernel[...] = jnp.zeros((16, 3))  # what comes later does not count
    chex.assert_trees_all_equal(model.init(jax.random.key(0))[0], others)


def test_training_under_jit_grad_and_vmap_takes_one_trace_and_learns():
    model, optimizer, labels = from_nnx(Net), optax.sgd(0.1, momentum=0.9), jnp.arange(8) % 3

    @jax.jit
    @chex.assert_max_traces(1)
    def step(params, stats, state):
        def loss(params, stats):
            outputs, stats = model.apply(params, stats, X, True, None)
            return optax.softmax_cross_entropy_with_integer_labels(outputs["logits"], labels).mean(), stats

        def one(params, stats, state):
            (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params, stats)
            updates, state = optimizer.update(grads, state)
            return optax.apply_updates(params, updates), stats, state, value

        return jax.vmap(one)(params, stats, state)

    params, stats = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 2))
    state = jax.vmap(optimizer.init)(params)
    shapes, losses = jax.eval_shape(lambda: stats), []
    for _ in range(40):
        params, stats, state, values = step(params, stats, state)
        losses.append(values)
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, jax.eval_shape(lambda: stats))
    chex.assert_tree_all_finite(params)
    assert np.all(losses[-1] < 0.5 * losses[0])
    assert np.all(losses[0] != losses[1])
    assert losses[0][0] != losses[0][1]


def test_dropout_of_every_member_is_its_own_with_an_instance():
    model = from_nnx(Net(rngs=nnx.Rngs(0)))
    params, stats = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 2))
    outputs, _ = jax.vmap(lambda p, s: model.apply(p, s, X, True, None))(params, stats)
    assert np.any(outputs["logits"][0] != outputs["logits"][1])


def test_layers_in_a_list_have_strings_as_keys_and_keep_their_order():
    class Deep(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(6 + i, 7 + i, rngs=rngs) for i in range(12)])

        def __call__(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    model = from_nnx(Deep)
    params, stats = model.init(jax.random.key(0))
    for path, _ in jax.tree.leaves_with_path(params):
        assert all(isinstance(entry.key, str) for entry in path)
    product = X
    for i in range(12):
        product = product @ params["layers"][str(i)]["kernel"]
    chex.assert_trees_all_close(model.apply_test(params, stats, X)["logits"], product, rtol=1e-4)


def test_a_key_is_given_to_a_module_that_takes_one():
    class Noisy(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(6, 3, rngs=rngs)

        def __call__(self, x, *, key=None):
            return self.linear(x if key is None else x + jax.random.normal(key, x.shape))

    model = from_nnx(Noisy)
    params, stats = model.init(jax.random.key(0))
    assert stats == {}
    one, again, other = (model.apply(params, stats, X, True, jax.random.key(i))[0]["logits"] for i in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    clean = model.apply(params, stats, X, False, None)[0]["logits"]
    np.testing.assert_allclose(clean, X @ params["linear"]["kernel"], rtol=1e-5, atol=1e-6)


def test_features_and_further_outputs_come_along_in_float32():
    outputs = {
        "logits": jnp.ones((8, 3), jnp.bfloat16),
        "features": jnp.ones((8, 5), jnp.bfloat16),
        "depth": jnp.ones((8, 4, 4), jnp.bfloat16),
    }
    returned, _ = from_nnx(Given(lambda x: outputs)).apply({}, {}, X, False, None)
    chex.assert_shape([returned["logits"], returned["features"], returned["depth"]], [(8, 3), (8, 5), (8, 4, 4)])
    assert [returned[name].dtype for name in outputs] == [jnp.float32, jnp.float32, jnp.bfloat16]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (lambda x: x[0], r"returns `logits` of shape \(6,\) for 8 inputs: their shape must be \[B, K\]"),
        (lambda x: x[:4], r"returns `logits` of shape \(4, 6\) for 8 inputs"),
        (lambda x: (x, x), "returns `logits` of tuple for 8 inputs"),
        (lambda x: {"features": x}, r"returns a dict of \['features'\]: `logits` of shape \[B, K\] must be among them"),
        (lambda x: {"logits": x, "features": x[None]}, r"returns `features` of shape \(1, 8, 6\) .* must be \[B, F\]"),
    ],
)
def test_a_module_that_returns_something_else_is_told_so(outputs, message):
    with pytest.raises(ArgumentError, match=message):
        from_nnx(Given(outputs)).apply({}, {}, X, False, None)


class Two(nnx.Module):
    def __call__(self, x, mask):
        return x


class Nothing(nnx.Module):
    pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Two(), r"Two must be called with \(x\) or \(x, key\)"),
        (Nothing(), r"Nothing must be called with \(x\) or \(x, key\)"),
        (lambda rngs: 3, "must return an nnx.Module, not int"),
        ("mlp", "a model is an nnx.Module, or a function from rngs to one, not str"),
    ],
)
def test_what_is_no_module_is_named(make, message):
    with pytest.raises(ArgumentError, match=message):
        from_nnx(make)


def identity():
    """A model whose logits are its inputs, while training plus what the key draws."""

    def apply(params, stats, inputs, train, key):
        noise = jax.random.normal(key, inputs.shape) if train and key is not None else jnp.zeros_like(inputs)
        return {"logits": inputs + noise}, stats

    return Model(lambda key: ({}, {}), apply, lambda params, stats, inputs: {"logits": inputs * 2})


def test_preparation_stands_in_front_and_augments_while_training_alone():
    def prepare(stored, key):
        return stored / 10 + (0 if key is None else jax.random.uniform(key))

    model = prepared(identity(), prepare)
    logits = lambda train, key: model.apply({}, {}, X, train, key)[0]["logits"]  # noqa: E731
    for train, key in ((False, None), (True, None), (False, jax.random.key(0))):
        np.testing.assert_array_equal(logits(train, key), X / 10)
    augment, draw = jax.random.split(jax.random.key(0))
    expected = X / 10 + jax.random.uniform(augment) + jax.random.normal(draw, X.shape)
    np.testing.assert_allclose(logits(True, jax.random.key(0)), expected, rtol=1e-6)
    np.testing.assert_array_equal(model.apply_test({}, {}, X)["logits"], X / 10 * 2)


def test_predictions_are_averaged_over_views():
    model = prepared(identity(), lambda stored, key: stored, lambda stored: [stored, stored + 1, stored + 5])
    np.testing.assert_allclose(model.apply_test({}, {}, X)["logits"], 2 * (X + 2), rtol=1e-6)
    np.testing.assert_array_equal(model.apply({}, {}, X, False, None)[0]["logits"], X)


def test_crops_are_views():
    views = lambda stored: [stored[:, :4, :4], stored[:, 4:, 4:]]  # noqa: E731
    model = prepared(build("mlp", (4, 4, 1), 3, widths=(5,)), lambda stored, key: stored[:, 2:6, 2:6], views)
    params, stats = model.init(jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    network = build("mlp", (4, 4, 1), 3, widths=(5,))
    each = [network.apply(params, stats, view, False, None)[0]["logits"] for view in views(images)]
    chex.assert_trees_all_close(model.apply_test(params, stats, images)["logits"], sum(each) / 2, rtol=1e-5)
