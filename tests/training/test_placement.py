"""Parameters split over devices by rules, and training sets spread over them: the same training, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from benchmarks.kernels.programs import facts_of
from nlx.arguments import ArgumentError
from nlx.data import Split
from nlx.methods.elr import elr
from nlx.methods.noise_layer import noise_layer
from nlx.methods.plain import cross_entropy, plain
from nlx.methods.self_learning import corrections, self_learning
from nlx.models import build
from nlx.training.averaging import averaged
from nlx.training.checkpoint import Checkpoints
from nlx.training.costs import costs_of
from nlx.training.feed import batch_shapes, on_device
from nlx.training.mesh import Layout, by_example, laid_out, make_mesh, on_host, replicated
from nlx.training.placement import shardings
from nlx.training.stages import Stage, Stages
from nlx.training.state import with_weights
from nlx.training.trainer import Trainer
from tests.training.conftest import Told, assert_same, compiled

N, F, K, B = 100, 6, 4, 16  # the last rows of a spread set are filled up
WIDE = build("mlp", (F,), K, widths=(1024, 1024))  # whose second kernel has 4 MiB
NARROW = build("mlp", (F,), K, widths=(16,))
PLAIN = plain(cross_entropy, "plain")
LAYER = noise_layer(K, learn_from=2)
FLAT, SQUARE = ((8, 1), (4, 2))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return Split(rng.normal(size=(N, F)).astype(np.float32), rng.integers(0, K, N).astype(np.int32), None)


def mesh_of(form):
    return make_mesh(jax.devices(), form[1])


def trainer_of(method, form, *, model=WIDE, observers=(), **layout):
    parts = {"model": optax.sgd(0.05, momentum=0.9), "method": optax.sgd(0.05)}
    optimizer = averaged(optax.partition(parts, {"model": "model", "method": "method"}), 0.9)
    return Trainer(model, method, optimizer, batch_size=B, mesh=mesh_of(form), observers=observers, **layout)


def assert_close(state, other, rtol=1e-4, atol=1e-6):
    a, b = (jax.tree.leaves(s._replace(key=jnp.zeros(()))) for s in (state, other))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)


def specs(tree):
    return jax.tree.map(lambda leaf: leaf.sharding.spec, tree)


def test_a_mesh_has_a_second_axis_where_devices_share_parameters():
    assert make_mesh().shape == {"data": 8}
    assert make_mesh(jax.devices(), 2).shape == {"data": 4, "model": 2}
    assert by_example(make_mesh(jax.devices(), 2)).shard_shape((16, 3)) == (2, 3)
    for wrong in (0, 3, 16):
        with pytest.raises(ArgumentError, match=f"`model_devices`={wrong} does not divide 8 devices"):
            make_mesh(jax.devices(), wrong)


def test_what_is_split_and_along_which_axis():
    mib = jax.ShapeDtypeStruct((2**20 // 4,), np.float32)
    forms = {
        "method": {"transition": (6, 6), "several": {"transition": (6, 2, 2)}, "odd": {"transition": (7, 7)}},
        "model": {
            "a": (1024, 1024),
            "b": (512, 4, 2048),
            "small": (1024, 1023),
            "odd": (2**22 + 1,),
            "long": (2**22 + 1, 8),
            "head": {"kernel": (2**20, 6), "bias": (6,), "scale": ()},
        },
    }
    tree = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, np.float32), forms, is_leaf=lambda x: isinstance(x, tuple)
    )

    def found(form, shard_params, **more):
        return jax.tree.map(lambda s: s.spec, shardings(tree, mesh_of(form), shard_params, **more))

    whole = jax.tree.map(lambda _: P(), tree)
    assert found(FLAT, False) == whole
    by_class = {"kernel": P(None, "model"), "bias": P("model"), "scale": P()}
    shared = {
        "method": {**whole["method"], "transition": P("model")},
        "model": {**whole["model"], "head": by_class},
    }
    assert found(SQUARE, False) == shared
    split = {"a": P("data"), "b": P(None, None, "data"), "long": P(None, "data")}
    both = {**split, "small": P(), "odd": P(), "head": {**by_class, "kernel": P("data", "model")}}
    assert found(SQUARE, True) == {**shared, "model": both}
    assert found(FLAT, True, least=1)["model"]["small"] == P("data")
    assert shardings({"x": mib}, mesh_of(FLAT), True)["x"].spec == P()


@pytest.mark.parametrize(
    ("method", "form", "layout"),
    [
        pytest.param(PLAIN, FLAT, {"shard_params": True}, marks=pytest.mark.slow),
        (LAYER, SQUARE, {"shard_params": True, "spread_data": True}),
        pytest.param(elr(), SQUARE, {}, marks=pytest.mark.slow),
        pytest.param(elr(), FLAT, {"shard_params": True}, marks=pytest.mark.slow),
    ],
    ids=["plain", "noise_layer", "elr-model", "elr"],
)
def test_split_parameters_train_as_whole_ones(data, method, form, layout):
    """Up to the order in which gradients are summed, which differs."""
    one, many = trainer_of(method, FLAT), trainer_of(method, form, **layout)
    stages = [Stage(2), Stage(1, "fresh", reinit_heads=True, fresh_optimizer=True)]
    whole, split = (t.fit(data, jax.random.key(0), stages) for t in (one, many))
    assert_close(whole.state, split.state)
    assert whole.history[0]["train_loss"] == pytest.approx(split.history[0]["train_loss"], rel=1e-5)
    wanted = many.abstract_state(data)._replace(sums={})
    assert specs(split.state._replace(sums={})) == specs(wanted)
    kernel = split.state.params["model"]["hidden_1"]["kernel"]
    rows = 1024 // form[0] if layout.get("shard_params") else 1024
    # The rule reaches the optimizer's momentum and its running mean.
    moments = [leaf for leaf in jax.tree.leaves(split.state.opt_state) if leaf.shape == (1024, 1024)]
    assert len(moments) == 2
    for leaf in (kernel, *moments):
        assert {shard.data.shape for shard in leaf.addressable_shards} == {(rows, 1024)}
    if form == SQUARE:
        head = split.state.params["model"]["head"]["dense"]["kernel"]
        assert {shard.data.shape for shard in head.addressable_shards} == {(1024, K // 2)}
        if method is LAYER:
            shards = split.state.params["method"]["transition"].addressable_shards
            assert {shard.data.shape for shard in shards} == {(K // 2, K)}
    np.testing.assert_allclose(one.scores(whole.state, data), many.scores(split.state, data), rtol=1e-3, atol=1e-4)
    for a, b in zip(
        jax.tree.leaves(one.posterior(whole.state, data)),
        jax.tree.leaves(many.posterior(split.state, data)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_no_step_compiles_anew_and_each_device_holds_its_part(data, caplog):
    trainer = trainer_of(LAYER, SQUARE, shard_params=True, spread_data=True)
    with compiled(caplog) as first:
        trainer.fit(data, jax.random.key(0), 2)
    with compiled(caplog) as later:
        trainer.fit(data, jax.random.key(1), 5)
    assert first
    assert not later


def test_a_step_gathers_split_parameters_twice_at_most_and_moves_no_layer_that_is_split_by_class():
    classes = 2048
    model = build("mlp", (F,), classes, widths=(1024, 1024))
    data = Split(np.zeros((64, F), np.float32), np.zeros(64, np.int32), None)

    def facts(form, shard_params):
        trainer = Trainer(model, PLAIN, optax.sgd(0.1), batch_size=16, mesh=mesh_of(form), shard_params=shard_params)
        found = []

        def compiling(lowered):
            found.append(facts_of(lowered.compile()))
            return lowered.compile()

        return costs_of(trainer, data, compiling), found[0]

    (whole, _), (split, sent) = facts(FLAT, False), facts(FLAT, True)
    wide = 4 * (1024 * 1024 + 1024 * classes)
    assert split.parts["weights"] == whole.parts["weights"] - wide * 7 // 8
    assert wide / 4 < sent.collectives["all-gather"][1] < 2.1 * wide
    (_, apart) = facts(SQUARE, False)
    assert apart.collectives.get("all-gather", (0, 0))[1] < 4 * 1024 * classes / 8


@pytest.mark.parametrize(("form", "shard_params"), [(FLAT, True), (SQUARE, True), (SQUARE, False)])
def test_a_streamed_step_leaves_every_array_where_it_was(data, form, shard_params):
    """Whatever the method made of it; in a program of many steps the loop would see to that."""

    def project(params):
        return jax.lax.with_sharding_constraint(LAYER.project(params), replicated(mesh_of(form)))

    trainer = trainer_of(LAYER._replace(project=project), form, shard_params=shard_params)
    (program,) = trainer._stage_programs(Stages(1, N, B))
    state = trainer.abstract_state(data)
    sums = dict.fromkeys(trainer._sum_names(data, program), jax.ShapeDtypeStruct((), np.float32))
    batch = {
        name: jax.ShapeDtypeStruct(rows.shape, rows.dtype, sharding=by_example(trainer.mesh))
        for name, rows in batch_shapes(data, B).items()
    }
    given = program.one.lower(state._replace(sums=sums), batch).compile().output_shardings
    for leaf, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(given._replace(sums={})), strict=True):
        assert sharding.is_equivalent_to(leaf.sharding, leaf.ndim)


def test_what_a_stage_begins_with_lies_as_what_it_replaces(data):
    trainer = trainer_of(LAYER, SQUARE, shard_params=True)
    state = trainer.init(jax.random.key(0), data)
    for stage in (Stage(1, fresh_optimizer=True), Stage(1, reinit_heads=True)):
        assert specs(trainer._begin_stage(state, data, stage)) == specs(state)


def test_weights_from_elsewhere_lie_as_those_they_replace(data):
    trainer = trainer_of(PLAIN, SQUARE, shard_params=True)
    state = trainer.init(jax.random.key(0), data)
    other = trainer.init(jax.random.key(1), data)
    given = with_weights(state, on_host(other.params["model"]), on_host(other.stats))
    assert specs(given) == specs(state)
    np.testing.assert_array_equal(
        given.params["model"]["hidden_1"]["kernel"], on_host(other.params["model"])["hidden_1"]["kernel"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("there", ["split", "whole"])
def test_a_run_goes_on_where_parameters_lie_otherwise(data, tmp_path, there):
    made = {
        "split": lambda **more: trainer_of(LAYER, SQUARE, shard_params=True, spread_data=True, **more),
        "whole": lambda **more: trainer_of(LAYER, FLAT, **more),
    }
    here = "whole" if there == "split" else "split"
    uninterrupted = made[here]().fit(data, jax.random.key(0), 3).state
    stop = Told(lambda events: ("epoch", 1) in events)
    checkpoints = Checkpoints(tmp_path, seconds=0.0)
    assert made[there](observers=[checkpoints, stop]).fit(data, jax.random.key(0), 3).stopped
    trainer = made[here]()
    loader = Checkpoints(tmp_path)
    loaded = loader.load(trainer.abstract_state(data))
    loader.close(None)
    assert specs(loaded._replace(sums={})) == specs(trainer.abstract_state(data)._replace(sums={}))
    assert 0 < int(loaded.step) < 3 * (N // B)
    assert_close(trainer.fit(data, jax.random.key(0), 3, state=loaded).state, uninterrupted)


@pytest.mark.parametrize("form", [FLAT, SQUARE])
def test_spread_data_are_the_same_batches(data, form):
    trainers = [trainer_of(elr(), form, model=NARROW, spread_data=spread) for spread in (False, True)]
    whole, spread = (t.fit(data, jax.random.key(0), 2).state for t in trainers)
    assert_same(whole, spread)
    arrays = on_device(data, trainers[1].mesh, True)
    for name, rows in (("inputs", data.inputs), ("noisy_label", data.noisy_label)):
        assert {len(shard.data) for shard in arrays[name].addressable_shards} == {13}
        np.testing.assert_array_equal(arrays[name][:N], rows)
        np.testing.assert_array_equal(arrays[name][N:], 0)


def test_spread_data_are_never_gathered():
    data = Split(np.zeros((2**16, F), np.float32), np.zeros(2**16, np.int32), None)
    trainer = trainer_of(PLAIN, FLAT, model=NARROW, spread_data=True)
    (program,) = trainer._stage_programs(Stages(1, len(data), B))
    state = trainer._begin_epoch(
        trainer.init(jax.random.key(0), data), data, Stages(1, 2**16, B), Stages(1, 2**16, B).position(0), [program]
    )
    order = jax.ShapeDtypeStruct((2**16,), np.int32)
    arrays = on_device(data, trainer.mesh, True)
    facts = facts_of(program.many.lower(state, arrays, order, np.int32(0), np.int32(1)).compile())
    assert max(facts.temporary, facts.received) < data.inputs.nbytes / 16
    whole, spread = (costs_of(trainer_of(PLAIN, FLAT, model=NARROW, spread_data=s), data) for s in (False, True))
    assert spread.parts["data"] == whole.parts["data"] // 8
    assert {name: size for name, size in spread.parts.items() if name != "data"} == {
        name: size for name, size in whole.parts.items() if name != "data"
    }


@pytest.mark.slow
def test_corrections_between_epochs_are_those_of_one_axis(data):
    method = self_learning(K, refresh_after=corrections(1), prototypes=2, members=16)
    labels = []
    for form, layout in ((FLAT, {}), (SQUARE, {"shard_params": True, "spread_data": True})):
        state = trainer_of(method, form, **layout).fit(data, jax.random.key(0), 2).state
        assert state.memory.corrected.sharding.is_equivalent_to(by_example(mesh_of(form)), 1)
        labels.append(np.asarray(state.memory.corrected))
    np.testing.assert_array_equal(*labels)
    assert (labels[0][:N] >= 0).all()


@pytest.mark.slow
def test_members_of_split_parameters_are_trained_together(data):
    keys = jax.random.split(jax.random.key(0), 8)
    trainer = trainer_of(LAYER, SQUARE, shard_params=True, spread_data=True)
    many, alone = trainer.fit_many(data, keys, 1), trainer_of(LAYER, FLAT).fit(data, keys[7], 1)
    assert_close(many.member(7).state._replace(sums={}), alone.state._replace(sums={}), rtol=1e-3, atol=1e-5)


def test_trainers_that_are_not_told_follow_the_layout():
    with laid_out(Layout(2, True, True)):
        trainer = Trainer(NARROW, PLAIN, optax.sgd(0.1), batch_size=B)
        assert (trainer.mesh.shape["model"], trainer.shard_params, trainer.spread_data) == (2, True, True)
        own = Trainer(NARROW, PLAIN, optax.sgd(0.1), batch_size=B, mesh=make_mesh(jax.devices()[:1]))
        assert (own.mesh.size, own.shard_params, own.spread_data) == (1, False, False)
    after = Trainer(NARROW, PLAIN, optax.sgd(0.1), batch_size=B)
    assert (after.mesh.shape, after.shard_params, after.spread_data) == ({"data": 8}, False, False)
