"""Pairs of examples, the loss of both labels, and blocks that are computed again."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from nlx.arguments import ArgumentError
from nlx.methods.plain import cross_entropy, plain
from nlx.models import Model, build
from nlx.models.head import run_block
from nlx.models.mixing import mixing
from nlx.training.mesh import make_mesh
from nlx.training.state import TrainState
from nlx.training.step import make_step
from tests.training.conftest import VISITING

KEY = jax.random.key(3)


def seeing(params, stats, inputs, train, key):
    """Logits are the first three numbers of an input, moved by a parameter; the inputs come back as they were seen."""
    flat = inputs.reshape(len(inputs), -1)
    return {"logits": flat[:, :3] + params["shift"], "seen": flat}, stats


MODEL = Model(lambda key: ({"shift": jnp.zeros((1, 3))}, {}), seeing, lambda p, s, x: seeing(p, s, x, False, None)[0])


def test_mixup_is_the_mean_of_two_inputs_at_the_weight_that_comes_out():
    x = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    model = mixing(MODEL, "mixup", 0.5)
    out, _ = model.apply(*MODEL.init(KEY), x, True, KEY)
    share = np.asarray(out["mix_share"])[:, None]
    np.testing.assert_allclose(out["seen"], share * x + (1 - share) * x[::-1], rtol=1e-5, atol=1e-6)
    assert len(set(share[:, 0].tolist())) == 8
    assert ((share >= 0) & (share <= 1)).all()
    assert "mix_share" not in model.apply(*MODEL.init(KEY), x, False, None)[0]
    with pytest.raises(ArgumentError, match="training with `mix` needs a key"):
        model.apply(*MODEL.init(KEY), x, True, None)


def test_cutmix_puts_a_rectangle_of_another_picture_and_counts_what_is_left():
    x = jnp.broadcast_to(jnp.arange(8.0)[:, None, None, None], (8, 12, 10, 3))
    out, _ = mixing(MODEL, "cutmix", 1.0).apply(*MODEL.init(KEY), x, True, KEY)
    own = np.asarray(out["seen"]).reshape(8, 12, 10, 3) == np.arange(8)[:, None, None, None]
    np.testing.assert_allclose(out["mix_share"], own[..., 0].mean(axis=(1, 2)), rtol=1e-5)
    for kept in own[..., 0]:
        rows, columns = np.nonzero(~kept.all(axis=1))[0], np.nonzero(~kept.all(axis=0))[0]
        assert (~kept).sum() == len(rows) * len(columns)  # a rectangle
    assert 0.2 < float(out["mix_share"].mean()) < 0.9
    with pytest.raises(ArgumentError, match="`mix`=cutmix is for pictures"):
        mixing(MODEL, "cutmix", 1.0).apply(*MODEL.init(KEY), jnp.ones((4, 3)), True, KEY)


def test_the_loss_is_that_of_both_labels_at_the_weights_of_their_inputs():
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    labels = np.arange(8, dtype=np.int32) % 3
    model, method = mixing(MODEL, "mixup", 1.0), plain(cross_entropy, "plain")
    state = TrainState(jnp.int32(0), KEY, {"model": MODEL.init(KEY)[0], "method": {}}, {}, optax.EmptyState(), {}, {})
    step = make_step(model, method, optax.identity(), make_mesh(jax.devices()[:1]))
    batch = {"inputs": jnp.asarray(x), "noisy_label": jnp.asarray(labels), "index": jnp.arange(8)}
    _, means = step(state, batch)

    model_key = jax.random.split(jax.random.fold_in(jax.random.split(KEY, 3)[2], 0), 3)[0]
    out, _ = model.apply(state.params["model"], {}, x, True, model_key)
    log = np.asarray(jax.nn.log_softmax(out["logits"]))
    share, rows = np.asarray(out["mix_share"]), np.arange(8)
    expected = -(share * log[rows, labels] + (1 - share) * log[rows, labels[::-1]]).mean()
    np.testing.assert_allclose(means["train_loss"], expected, rtol=1e-5)
    keeping = make_step(model, VISITING, optax.identity(), make_mesh(jax.devices()[:1]))
    with pytest.raises(ArgumentError, match="keeps something for each example: leave out `mix`"):
        jax.eval_shape(keeping, state._replace(memory=VISITING.init(KEY, {}, 3, 8)[1]), batch)


def test_blocks_that_are_computed_again_give_the_same_gradients():
    x, block = jnp.linspace(-1, 1, 8).reshape(2, 4), nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    graph, state = nnx.split(block)

    def loss(state, remat):
        return jnp.sum(jnp.tanh(run_block(nnx.merge(graph, state), x, remat)))

    first, again = (jax.grad(loss, allow_int=True)(state, remat) for remat in (False, True))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for name, shape in (("resnet8", (8, 8, 3)), ("preact18", (8, 8, 3)), ("vit-s16", (16, 16, 3))):
        model = build(name, shape, 3, remat=True)
        given = jax.eval_shape(model.init, KEY)
        traced = jax.make_jaxpr(lambda p, s, x, model=model: model.apply(p, s, x, True, None))(
            *given, jnp.ones((2, *shape))
        )
        assert "remat" in str(traced)
    with pytest.raises(ArgumentError, match="convnet has no blocks to compute again"):
        build("convnet", (8, 8, 3), 3, remat=True)
