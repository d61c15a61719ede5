import functools
import math
import re
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from nlx.arguments import ArgumentError
from nlx.models import AMT_WIDTHS, MLP, NAMES, ConvNet, Model, ResNet, build
from nlx.models.conv import conv2d
from nlx.models.resnet import _Block

SMALL = {"mlp": (6, 5, 2), "convnet": (12, 10, 2), "resnet8": (8, 8, 2)}


def _inputs(shape, seed=1, batch=4):
    return jax.random.normal(jax.random.key(seed), (batch, *shape))


def _size(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


class _Small(NamedTuple):
    """A small model with its compiled functions, shared by tests: compiling takes longer than running."""

    model: Model
    init: Callable
    apply: Callable
    params: dict
    stats: dict
    x: jax.Array


@functools.cache
def _make(name):
    model = build(name, SMALL[name], 3)
    init = jax.jit(model.init)
    params, stats = init(jax.random.key(0))
    return _Small(model, init, jax.jit(model.apply, static_argnums=3), params, stats, _inputs(SMALL[name]))


@pytest.fixture(params=SMALL)
def small(request):
    return _make(request.param)


LARGER = re.compile("101|34|b14|b16")  # of a form that a smaller one has


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if LARGER.search(name) else name for name in NAMES]
)
def test_outputs_have_the_promised_shapes(name):
    shape = {"mlp-amt": (5376,), "alexnet": (64, 64, 3)}.get(name, (28, 28, 3) if "14" in name else (32, 32, 3))
    model = build(name, shape, 7)
    params, stats = jax.eval_shape(model.init, jax.random.key(0))
    outputs, new_stats = jax.eval_shape(
        lambda p, s, x: model.apply(p, s, x, True, None), params, stats, jnp.zeros((2, *shape))
    )
    chex.assert_shape(outputs["logits"], (2, 7))
    chex.assert_shape(outputs["features"], (2, params["head"]["dense"]["kernel"].shape[0]))
    assert {leaf.dtype for leaf in jax.tree.leaves((params, stats, outputs))} == {jnp.dtype(jnp.float32)}
    chex.assert_trees_all_equal_shapes_and_dtypes(new_stats, stats)
    assert bool(stats) == name.startswith(("resnet", "preact"))
    assert all(isinstance(key.key, str) for path, _ in jax.tree.leaves_with_path(params) for key in path)


# Parameters of the networks of torchvision, and of resnetv2_18 and vit_small_patch16_224 of timm.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"),
    [
        *(("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032), ("resnet101", 44_549_160)),
        *(("alexnet", 61_100_840), ("vgg16", 138_357_544), ("vit-b16", 86_567_656), ("vit-s16", 22_050_664)),
        ("preact18", 11_687_720),
    ],
)
def test_parameter_counts_of_large_networks(name, count):
    params, _ = jax.eval_shape(build(name, (224, 224, 3), 1000).init, jax.random.key(0))
    assert _size(params) == count
    with pytest.raises(ArgumentError, match="alexnet takes images from 63 pixels on, got 32x32"):
        build("alexnet", (32, 32, 3), 10)
    with pytest.raises(ArgumentError, match="this ViT takes images of multiples of 16 pixels, got 40x32"):
        build("vit-s16", (40, 32, 3), 10)


# He et al., 2016, Table 6 gives 0.27M and 0.46M; here with projections where they pad the shortcuts with zeros.
@pytest.mark.parametrize(("name", "count"), [("resnet20", 0.27e6), ("resnet32", 0.46e6)])
def test_cifar_resnet_parameter_counts(name, count):
    params, _ = jax.eval_shape(build(name, (32, 32, 3), 10).init, jax.random.key(0))
    assert abs(_size(params) - count) < 0.01e6


def test_mlp_amt_is_the_shape_of_the_paper():
    params, _ = jax.eval_shape(build("mlp-amt", (5376,), 10).init, jax.random.key(0))
    assert _size(params) == 5376 * 1024 + 1024 + 1024 * 30 + 30 + 30 * 10 + 10
    assert AMT_WIDTHS == (1024, 30)


def test_mlp_equals_numpy():
    model = build("mlp", (2, 3), 4, widths=(5, 6))
    params, stats = model.init(jax.random.key(0))
    x = _inputs((2, 3))
    hidden = np.asarray(x, np.float64).reshape(4, 6)
    for name in ("hidden_0", "hidden_1"):
        hidden = np.maximum(hidden @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"]), 0.0)
    outputs, _ = model.apply(params, stats, x, True, None)
    dense = params["head"]["dense"]
    np.testing.assert_allclose(outputs["features"], hidden, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        outputs["logits"], hidden @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"]), rtol=1e-5, atol=1e-5
    )


def test_stem_follows_the_image_size():
    small, _ = jax.eval_shape(build("resnet18", (64, 64, 3), 10).init, jax.random.key(0))
    large, _ = jax.eval_shape(build("resnet18", (96, 65, 3), 10).init, jax.random.key(0))
    assert small["stem_conv"]["kernel"].shape == (3, 3, 3, 64)
    assert large["stem_conv"]["kernel"].shape == (7, 7, 3, 64)


def test_new_residual_blocks_are_the_identity():
    """With the last scale of a block 0, an input that is not negative passes a block without projection unchanged."""
    x = jnp.abs(_inputs((4, 4, 6)))
    block = jax.jit(lambda x: _Block(6, 6, 1, bottleneck=False, ghost=None, dtype=jnp.float32, rngs=nnx.Rngs(0))(x))
    np.testing.assert_array_equal(block(x), x)


def test_init_is_determined_by_the_key(small):
    chex.assert_trees_all_equal(small.init(jax.random.key(0)), (small.params, small.stats))
    other, _ = small.init(jax.random.key(1))
    kernel = lambda tree: tree["head"]["dense"]["kernel"]  # noqa: E731
    assert np.any(kernel(other) != kernel(small.params))


def test_stats_change_in_training_only():
    net = _make("resnet8")
    _, trained = net.apply(net.params, net.stats, net.x, True, None)
    _, evaluated = net.apply(net.params, net.stats, net.x, False, None)
    chex.assert_trees_all_equal(evaluated, net.stats)
    # The running mean moves a tenth of the way to the mean of the batch.
    channels = conv2d(net.x, net.params["stem_conv"]["kernel"], 1)
    np.testing.assert_allclose(trained["stem_norm"]["mean"], 0.1 * channels.mean((0, 1, 2)), rtol=1e-3, atol=1e-6)
    assert all(np.any(a != b) for a, b in zip(jax.tree.leaves(trained), jax.tree.leaves(net.stats), strict=True))


def test_evaluation_looks_at_each_example_alone(small):
    _, stats = small.apply(small.params, small.stats, small.x, True, None)
    together, _ = small.apply(small.params, stats, small.x, False, None)
    alone, _ = small.apply(small.params, stats, small.x[1:2], False, None)
    np.testing.assert_allclose(together["logits"][1:2], alone["logits"], rtol=1e-4, atol=1e-5)


def test_jit_equals_eager(small):
    eager = small.model.apply(small.params, small.stats, small.x, True, None)
    compiled = small.apply(small.params, small.stats, small.x, True, None)
    chex.assert_trees_all_close(eager, compiled, rtol=1e-4, atol=1e-5)


def test_gradient_reaches_every_parameter_in_a_scanned_step(small):
    def step(carry, inputs):
        params, stats = carry

        def loss(params):
            outputs, new_stats = small.model.apply(params, stats, inputs, True, None)
            return jnp.mean((outputs["logits"] - 1.0) ** 2), new_stats

        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return (jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads), stats), (value, grads)

    # Several steps, because blocks that start as the identity give their convolutions no gradient in the first one.
    start, batches = (small.params, small.stats), jnp.stack([small.x] * 3)
    _, (losses, grads) = jax.jit(lambda carry, xs: jax.lax.scan(step, carry, xs))(start, batches)
    assert losses[-1] < losses[0]
    for path, grad in jax.tree.leaves_with_path(grads):
        assert np.any(grad != 0), path


def test_vmap_over_seeds_equals_a_loop(small):
    seeds = [(small.params, small.stats), small.init(jax.random.key(1))]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    together, _ = jax.jit(jax.vmap(lambda p, s: small.model.apply(p, s, small.x, True, None)))(*stacked)
    for logits, (p, s) in zip(together["logits"], seeds, strict=True):
        alone, _ = small.apply(p, s, small.x, True, None)
        np.testing.assert_allclose(logits, alone["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_computes_in_bfloat16_and_returns_float32(name):
    net = _make(name)
    rounded = build(name, SMALL[name], 3, dtype=jnp.bfloat16)
    initial = jax.eval_shape(rounded.init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(initial)} == {jnp.dtype(jnp.float32)}
    exact, _ = net.apply(net.params, net.stats, net.x, True, None)
    outputs, stats = jax.jit(rounded.apply, static_argnums=3)(net.params, net.stats, net.x, True, None)
    assert {leaf.dtype for leaf in jax.tree.leaves((outputs, stats))} == {jnp.dtype(jnp.float32)}
    assert 0 < np.max(np.abs(exact["logits"] - outputs["logits"])) < 0.1


def test_dropout_takes_its_key_at_the_call():
    model = build("mlp", (6,), 3, widths=(400,), dropout=0.25)
    params, stats = model.init(jax.random.key(0))
    x = _inputs((6,), batch=8)

    def features(train, key):
        return model.apply(params, stats, x, train, key)[0]["features"]

    kept = np.asarray(features(False, None))
    dropped = np.asarray(features(True, jax.random.key(1)))
    np.testing.assert_array_equal(dropped, features(True, jax.random.key(1)))
    assert np.any(dropped != features(True, jax.random.key(2)))
    positive = kept > 0
    np.testing.assert_allclose(dropped[dropped > 0], kept[dropped > 0] / 0.75, rtol=1e-6)
    # About 1,600 positive values: four standard deviations of the share that is dropped.
    assert abs(np.mean(dropped[positive] == 0) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / positive.sum())
    with pytest.raises(ValueError, match="dropout needs a key"):
        features(True, None)


@pytest.mark.parametrize("name", ["convnet", "resnet8"])
def test_dropout_of_image_models_needs_a_key(name):
    model = build(name, (8, 8, 1), 3, dropout=0.5)
    params, stats = jax.eval_shape(model.init, jax.random.key(0))
    with pytest.raises(ValueError, match="dropout needs a key"):
        jax.eval_shape(lambda p, s: model.apply(p, s, _inputs((8, 8, 1)), True, None), params, stats)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build("vit", (8, 8, 1), 3), "unknown model 'vit': choose one of mlp, mlp-amt, convnet"),
        (lambda: build("resnet18", (8,), 3), "takes images"),
        (lambda: build("resnet18", (8, 8, 1), 3, widths=(4,)), "has its own widths"),
        (lambda: build("convnet", (8, 8, 1), 3, widths=(4,)), "`widths` must have a convolution"),
        (lambda: build("mlp", (8,), 3, dropout=1.0), r"`dropout` must lie in \[0, 1\)"),
        (lambda: build("mlp", (8,), 3, ghost_batch=4), "mlp has no batch normalization: leave out `ghost_batch`"),
        (lambda: ResNet(19, 3, 10, rngs=nnx.Rngs(0)), "`depth` must be one of"),
        (lambda: ResNet(18, 3, 10, stem="64", rngs=nnx.Rngs(0)), "`stem` must be"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


@pytest.mark.parametrize("name", ["resnet8", pytest.param("preact18", marks=pytest.mark.slow)])
def test_ghost_batches_are_normalized_each_for_itself(name):
    inputs = _inputs((8, 8, 1), batch=8)
    whole, halves = build(name, (8, 8, 1), 3), build(name, (8, 8, 1), 3, ghost_batch=4)
    params, stats = whole.init(jax.random.key(0))
    outputs, seen = halves.apply(params, stats, inputs, True, None)
    each = [whole.apply(params, stats, half, True, None) for half in (inputs[:4], inputs[4:])]
    expected = jnp.concatenate([one["logits"] for one, _ in each])
    np.testing.assert_allclose(outputs["logits"], expected, rtol=1e-4, atol=1e-4)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *(own for _, own in each))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), seen, mean)
    together = whole.apply(params, stats, inputs, True, None)[0]["logits"]
    assert np.abs(together - outputs["logits"]).max() > 1e-2
    tested = (model.apply_test(params, stats, inputs)["logits"] for model in (whole, halves))
    np.testing.assert_array_equal(*tested)


def test_a_ghost_batch_divides_the_batch():
    model = build("resnet8", (8, 8, 1), 3, ghost_batch=3)
    with pytest.raises(ArgumentError, match="`ghost_batch`=3 does not divide the batch of 8; take a divisor"):
        model.apply(*model.init(jax.random.key(0)), _inputs((8, 8, 1), batch=8), True, None)


def test_devices_do_not_ask_each_other_for_statistics_of_their_own_ghost_batches():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("data"))

    def asked(**options):
        model = build("resnet8", (8, 8, 1), 3, **options)
        params, stats = model.init(jax.random.key(0))
        forward = jax.jit(
            lambda x: model.apply(params, stats, x, True, None)[0]["logits"], in_shardings=spread, out_shardings=spread
        )
        text = forward.lower(jax.ShapeDtypeStruct((16, 8, 8, 1), jnp.float32)).compile().as_text()
        return text.count("all-reduce(")

    assert asked() > 0
    assert asked(ghost_batch=2) == asked(ghost_batch=1) == 0


def test_bad_inputs(small):
    with pytest.raises(ValueError, match="was built for inputs"):
        small.model.apply(small.params, small.stats, small.x[:, 1:], False, None)
    with pytest.raises(TypeError, match="must be floating"):
        small.model.apply(small.params, small.stats, small.x.astype(jnp.int32), False, None)


def test_modules_can_be_used_alone():
    def outputs(make, shape):
        return nnx.eval_shape(lambda: make(nnx.Rngs(0))(_inputs(shape)))

    convnet = outputs(lambda rngs: ConvNet((8, 8, 1), 3, widths=(4, 8), rngs=rngs), (8, 8, 1))
    assert convnet["logits"].shape == (4, 3)
    linear = outputs(lambda rngs: MLP(6, 3, widths=(), rngs=rngs), (6,))
    assert linear["features"].shape == (4, 6)
