"""The step: one trace, the same on eight devices, memory spread and donated, no sight of the truth."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

from nlx.data import Split
from nlx.methods.method import KNOWN_OUTLIER, UNKNOWN, Method
from nlx.methods.noise_layer import outliers
from nlx.methods.plain import cross_entropy, plain
from nlx.models import Model, build, prepared
from nlx.training.mesh import by_example, make_mesh
from nlx.training.stages import Stage, cosine
from nlx.training.state import state_maker
from nlx.training.step import make_step
from nlx.training.trainer import Trainer
from tests.training.conftest import REMEMBERING, STEPS, VISITING, B, K, N, compiled, counted

PLAIN = plain(cross_entropy, "plain")


@pytest.mark.parametrize("method", [PLAIN, REMEMBERING], ids=lambda m: m.name)
def test_eight_devices_compute_what_one_computes(split, trainer_for, method):
    one, eight = (trainer_for(split, method, devices).fit(split, jax.random.key(0), 2) for devices in (1, 8))
    assert one.history[-1]["train_loss"] > 0
    for a, b in zip(jax.tree.leaves(one.state.params), jax.tree.leaves(eight.state.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)
    assert one.history[1]["train_loss"] == pytest.approx(eight.history[1]["train_loss"], rel=1e-4)


def test_batch_statistics_are_those_of_the_whole_batch_on_eight_devices():
    data = Split(np.random.default_rng(0).normal(size=(N, 8, 8, 1)).astype(np.float32), np.arange(N) % K, None)

    def stats(devices):
        model, mesh = build("resnet8", (8, 8, 1), K), make_mesh(jax.devices()[:devices])
        trainer = Trainer(model, PLAIN, optax.sgd(0.1), batch_size=B, mesh=mesh)
        return trainer.fit(data, jax.random.key(0), Stage(1, rows=np.arange(2 * B))).state.stats

    for a, b in zip(jax.tree.leaves(stats(1)), jax.tree.leaves(stats(8)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_training_is_one_program_whatever_its_cuts(split, trainer_for, caplog):
    trainer = trainer_for(split, VISITING, 2)
    with compiled(caplog) as first:
        trainer.fit(split, jax.random.key(0), 1)
    with compiled(caplog) as later:
        trainer.fit(split, jax.random.key(1), 5)
    assert first
    assert not later


def test_an_epoch_visits_every_example_once_in_an_order_of_its_own(split, trainer_for):
    for devices in (1, 8):
        trainer = trainer_for(split, VISITING, devices)
        first, second = (trainer.fit(split, jax.random.key(0), epochs).state.memory for epochs in (1, 2))
        np.testing.assert_array_equal(np.bincount(np.asarray(first.count[:N], int)), [N % B, N - N % B])
        assert float(second.count.sum()) == 2 * (N - N % B)
        came = np.asarray((first.count[:N] == 1) & (second.count[:N] == 2))
        assert (np.asarray(second.step)[:N][came] - 6 != np.asarray(first.step)[:N][came]).mean() > 0.5
        np.testing.assert_array_equal(first.count[N:], 0)


def test_memory_lies_spread_over_the_devices_and_the_rest_on_all(split, trainer_for):
    trainer = trainer_for(split, REMEMBERING, 8)
    state = trainer.fit(split, jax.random.key(0), 1).state
    assert all(leaf.sharding.is_equivalent_to(by_example(trainer.mesh), 1) for leaf in state.memory)
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params))


def step_of(trainer):
    return next(iter(trainer._programs.values())).step


def test_the_state_is_donated(split, trainer_for):
    trainer = trainer_for(split)
    state = trainer.init(jax.random.key(0), split)
    trainer.fit(split, jax.random.key(0), 1, state=state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.memory)))


def test_no_loss_can_see_the_true_label(split, trainer_for):
    """A batch that carries it is refused, and the trainer's batches do not."""
    trainer = trainer_for(split, PLAIN)
    trainer.fit(split, jax.random.key(0), 1)
    batch = {"inputs": jnp.ones((B, 6)), "noisy_label": jnp.zeros(B, int), "index": jnp.arange(B)}
    with pytest.raises(ValueError, match=r"may not hold \['label'\]"):
        step_of(trainer)(trainer.init(jax.random.key(0), split), batch | {"label": jnp.zeros(B)})

    def peek(key, params, memory, outputs, batch, step):
        return batch["label"].astype(jnp.float32), memory, {}

    with pytest.raises(KeyError, match="label"):
        trainer_for(split, PLAIN._replace(loss=peek)).fit(split, jax.random.key(0), 1)


def test_the_projection_follows_every_step(split, trainer_for):
    method = REMEMBERING._replace(project=lambda params: jax.tree.map(jnp.zeros_like, params))
    params = trainer_for(split, method).fit(split, jax.random.key(0), 1).state.params
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(params["method"]))
    assert any((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(params["model"]))


def test_a_leaf_that_comes_back_as_it_was_is_not_written(split):
    """The compiled step scatters into what changes alone."""

    def make(changes):
        def loss(key, params, memory, outputs, batch, step):
            return cross_entropy(outputs["logits"], batch["noisy_label"]), memory + 1 if changes else memory, {}

        method = Method("m", loss, init=lambda key, outputs, k, size: ({}, jnp.zeros(size)))
        mesh = make_mesh(jax.devices()[:1])
        trainer = Trainer(build("mlp", (6,), K, widths=(4,)), method, optax.sgd(0.1), batch_size=B, mesh=mesh)
        state = trainer.fit(split, jax.random.key(0), 1).state
        batch = {"inputs": jnp.ones((B, 6)), "noisy_label": jnp.zeros(B, jnp.int32), "index": jnp.arange(B)}
        text = jax.jit(step_of(trainer)).lower(state, batch).as_text()
        return state.memory, text.count('"stablehlo.scatter"')

    (still, none), (moved, some) = make(False), make(True)
    assert float(still.sum()) == 0
    assert float(moved.sum()) == N - N % B
    assert some == none + 1


class Drawn(NamedTuple):
    method: Array
    given: Array
    model: Array
    augmented: Array


def test_every_step_draws_anew_and_the_same_again(split):
    """Augmentation, the model and the method each have a key of their own, made from the training's and the step."""

    def loss(key, params, memory, outputs, batch, step):
        drawn = Drawn(jnp.full(B, jax.random.uniform(key)), *(outputs[name] for name in Drawn._fields[1:]))
        return jnp.sum(outputs["logits"] ** 2, axis=-1), drawn, {}

    def apply(params, stats, inputs, train, key):
        model = jnp.full(len(inputs), jax.random.uniform(key) if train else 0.0)
        return {"logits": inputs * params["w"], "model": model, "augmented": inputs[:, 0]}, stats

    network = Model(lambda key: ({"w": jnp.ones(())}, {}), apply, lambda *_: {})
    inner = prepared(network, lambda x, key: x if key is None else x * 0 + jax.random.uniform(key))

    def outer(params, stats, inputs, train, key):
        outputs, stats = inner.apply(params, stats, inputs, train, key)
        return outputs | {"given": jnp.full(len(inputs), jax.random.uniform(key) if train else 0.0)}, stats

    method = Method("m", loss, init=lambda key, outputs, k, size: ({}, Drawn(*jnp.zeros((4, size)))))
    mesh = make_mesh(jax.devices()[:1])
    trainer = Trainer(inner._replace(apply=outer), method, optax.sgd(0.0), batch_size=B, mesh=mesh)

    def draws(seed):
        state = trainer.fit(split, jax.random.key(seed), Stage(1, rows=np.arange(96))).state
        assert state.key == jax.random.key(seed)
        return np.stack(state.memory)[:, :96]

    first = draws(0)
    assert len(np.unique(first)) == 4 * STEPS
    np.testing.assert_array_equal(first, draws(0))
    assert not np.isin(draws(1), first).any()


def test_a_stages_schedule_is_one_of_optaxs_over_that_stage_alone(split):
    def fit(optimizer, stages):
        mesh = make_mesh(jax.devices()[:1])
        trainer = Trainer(build("mlp", (6,), K, widths=(4,)), PLAIN, optimizer, batch_size=B, mesh=mesh)
        return trainer.fit(split, jax.random.key(0), stages).state.params

    all_of_them = optax.join_schedules(
        [cosine(2 * STEPS), optax.constant_schedule(1.0), cosine(STEPS)], [2 * STEPS, 3 * STEPS]
    )
    stages = [Stage(2, "a", schedule=cosine), Stage(1, "b"), Stage(1, "c", schedule=cosine)]
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules need it
        ours = fit(optax.sgd(0.3, momentum=0.9), stages)
        theirs = fit(optax.sgd(lambda step: 0.3 * all_of_them(step), momentum=0.9), 4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), ours, theirs)


def test_a_stages_method_is_trained_on_in_that_stage_alone(split, trainer_for):
    """What the trainer's own method has stays as it was until its stage comes."""
    trainer = trainer_for(split)
    fitted = trainer.fit(split, jax.random.key(0), Stage(2, method=PLAIN))
    start, alone = trainer.init(jax.random.key(0), split), trainer_for(split, PLAIN).fit(split, jax.random.key(0), 2)
    for ours, theirs in ((fitted.state.params["method"], start.params["method"]), (fitted.state.memory, start.memory)):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    pairs = zip(*map(jax.tree.leaves, (fitted.state.params["model"], alone.state.params["model"])), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    both = trainer.fit(split, jax.random.key(0), [Stage(2, "first", method=PLAIN), Stage(1, "then")])
    assert [set(row) >= {"objective"} for row in both.history] == [False, False, True]
    assert float(both.state.memory.count.sum()) == STEPS * B
    assert np.asarray(both.state.memory.step).max() == 3 * STEPS - 1


def test_training_lowers_the_loss(split, trainer_for):
    learnable = Split(split.inputs, (split.inputs[:, 0] > 0).astype(np.int32), None)
    history = trainer_for(learnable, counted(PLAIN)).fit(learnable, jax.random.key(0), 20).history
    assert history[-1]["train_loss"] < 0.3 * history[0]["train_loss"]


def test_known_outliers_are_left_out_unless_the_method_learns_from_them(split, trainer_for):
    outlier = np.arange(N) % 4 == 0
    told = np.where(outlier, KNOWN_OUTLIER, UNKNOWN).astype(np.int32)

    def after(method, noisy):
        batch = {
            "inputs": jnp.asarray(split.inputs),
            "noisy_label": jnp.asarray(noisy),
            "index": jnp.arange(N),
            "trusted_label": jnp.asarray(told),
        }
        model = build("mlp", split.inputs.shape[1:], K)
        optimizer = optax.sgd(0.1)
        mesh = make_mesh(jax.devices()[:1])
        state = state_maker(model, method, optimizer, split, mesh)(jax.random.key(0))
        state, means = jax.jit(make_step(model, method, optimizer, mesh))(state, batch)
        return state.params, means["train_loss"]

    other = np.where(outlier, (split.noisy_label + 1) % K, split.noisy_label)
    left_out, changed = (after(PLAIN, labels) for labels in (split.noisy_label, other))
    jax.tree.map(np.testing.assert_array_equal, left_out, changed)
    learning = PLAIN._replace(outliers=True)
    assert after(learning, split.noisy_label)[1] != after(learning, other)[1]
    assert outliers(K, 0.5).outliers


def test_frozen_parameters_stay_whatever_the_optimizer_does(split, trainer_for):
    def init(key, outputs, num_classes, size):
        return {"kept": jnp.full(3, 2.0), "pulled": jnp.full(3, 2.0)}, ()

    trainer = trainer_for(split, PLAIN._replace(init=init, frozen=("kept", "absent")), 1)
    trainer = Trainer(
        trainer.model, trainer.method, optax.chain(optax.add_decayed_weights(1.0), optax.sgd(0.1)), batch_size=B
    )
    params = trainer.fit(split, jax.random.key(0), 1).state.params["method"]
    np.testing.assert_array_equal(params["kept"], 2.0)
    assert (params["pulled"] < 2.0).all()
