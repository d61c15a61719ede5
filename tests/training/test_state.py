"""What a stage may want to be new: last layers, the optimizer's state."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nlx.arguments import ArgumentError
from nlx.methods.noise_types import noise_types, second_backbone, shared_trunk
from nlx.methods.plain import cross_entropy, plain
from nlx.models import build
from nlx.training import state
from nlx.training.mesh import make_mesh
from nlx.training.stages import Stage
from nlx.training.state import compile_soon, reinit_heads
from nlx.training.trainer import Trainer
from tests.training.conftest import STEPS, B, F, K


def own_branch():
    branch = build("mlp", (F,), 3, widths=(4,))
    return second_backbone(
        lambda key: branch.init(key)[0],
        lambda params, inputs: branch.apply(params, {}, inputs, False, None)[0]["logits"],
    )


@pytest.mark.parametrize("branch", [own_branch(), shared_trunk()], ids=["own", "shared"])
def test_fresh_heads_change_last_layers_and_nothing_else(split, trainer_for, branch):
    trainer = trainer_for(split, noise_types(K, (1 - np.eye(K)) / (K - 1), branch))
    one = trainer.init(jax.random.key(0), split)
    old = jax.tree.map(lambda x: x + 1 if x.dtype == jnp.float32 else x, one)
    fresh = trainer.init(jax.random.key(1), split)
    state = reinit_heads(old, fresh)
    heads = 0
    before, drawn = (dict(jax.tree.leaves_with_path(s.params)) for s in (old, fresh))
    for path, leaf in jax.tree.leaves_with_path(state.params):
        is_head = jax.tree_util.DictKey("head") in path
        heads += is_head
        np.testing.assert_array_equal(leaf, (drawn if is_head else before)[path])
    assert heads == 4
    for path, gathered in jax.tree.leaves_with_path(state.opt_state):
        if gathered.dtype == jnp.float32:
            np.testing.assert_array_equal(gathered, 0 if jax.tree_util.DictKey("head") in path else 1)


@pytest.mark.parametrize(
    ("width", "rows", "told"),
    [
        (
            10**6,
            1,
            r"need 3,7\d\d GiB .* make params/model/hidden_1/kernel of \[1000000, 1000000\] smaller, by `widths`",
        ),
        (
            4,
            2**33,
            r"GiB of memory, .* make memory of \[\d+, 8589934592\] smaller, .* or give fewer classes or examples",
        ),
    ],
)
def test_a_state_that_memory_cannot_hold_is_refused_before_it_is_made(split, width, rows, told):
    def init(key, outputs, num_classes, size):
        return {}, jnp.zeros((size, rows), jnp.float32)

    method = plain(cross_entropy)._replace(init=init)
    trainer = Trainer(build("mlp", (F,), K, widths=(width, width)), method, optax.sgd(0.1), batch_size=B)
    with pytest.raises(ArgumentError, match=told):
        trainer.fit(split, jax.random.key(0), 1)


def test_stages_draw_heads_and_start_the_optimizer_anew_where_they_begin(split):
    mesh = make_mesh(jax.devices()[:1])
    still = optax.sgd(0.0, momentum=0.9)  # nothing moves, but momentum gathers

    def fit(**new):
        model = build("mlp", (F,), K, widths=(4,))
        trainer = Trainer(model, plain(cross_entropy), still, batch_size=B, mesh=mesh)
        stages = [Stage(1, "a"), Stage(1, "b", **new)]
        return trainer.init(jax.random.key(0), split), trainer.fit(split, jax.random.key(0), stages).state

    first, kept = fit()
    jax.tree.map(np.testing.assert_array_equal, first.params, kept.params)
    first, drawn = fit(reinit_heads=True)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), first.params["model"], drawn.params["model"])
    assert same["hidden_0"] == {"bias": True, "kernel": True}
    assert not same["head"]["dense"]["kernel"]
    assert int(drawn.step) == 2 * STEPS
    _, again = fit(fresh_optimizer=True)
    sizes = [float(sum(jnp.sum(x**2) for x in jax.tree.leaves(s.opt_state))) for s in (kept, again)]
    assert sizes[1] < sizes[0]


def test_weights_are_drawn_by_a_program_that_compiles_soon_unless_the_environment_says_how(
    split, trainer_for, monkeypatch
):
    cpu, gpu = (SimpleNamespace(devices=np.array([SimpleNamespace(platform=name)])) for name in ("cpu", "gpu"))
    assert compile_soon(cpu) is None  # as the tests' environment does
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    assert compile_soon(cpu) == {"xla_backend_optimization_level": 1}
    assert compile_soon(gpu) is None
    monkeypatch.setattr(state, "compile_soon", lambda mesh: {"no_such_option": 1})
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
        trainer_for(split, plain(cross_entropy)).init(jax.random.key(0), split)
