"""Orders of visits: in groups, so that what is kept of an example lies where it is visited."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.kernels.programs import facts_of
from nlx.arguments import ArgumentError
from nlx.data import Split
from nlx.data.prepare import preparer
from nlx.methods.elr import elr
from nlx.methods.self_learning import corrections, self_learning
from nlx.models import build, prepared
from nlx.training.checkpoint import Checkpoints
from nlx.training.costs import costs_of
from nlx.training.feed import batch_shapes, on_device
from nlx.training.mesh import by_example, make_mesh
from nlx.training.order import epoch_order, grouped
from nlx.training.rows import put_rows, take_rows
from nlx.training.stages import Stage, Stages
from nlx.training.trainer import Trainer
from tests.training.conftest import VISITING, Told, assert_same, compiled

N, F, K, B, G = 101, 6, 4, 16, 8
SELF = self_learning(K, refresh_after=corrections(1), members=8)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return Split(rng.normal(size=(N, F)).astype(np.float32), rng.integers(0, K, N).astype(np.int32), None)


def trainer_of(method, devices=8, groups=G, **more):
    mesh = make_mesh(jax.devices()[:devices], more.pop("model_devices", 1))
    model = build("mlp", (F,), K, widths=(16,))
    more = {"shuffle_groups": groups, **more}
    return Trainer(model, method, optax.sgd(0.05, momentum=0.9), batch_size=B, mesh=mesh, **more)


@pytest.mark.parametrize("rows", [np.arange(98), np.arange(101), np.repeat(np.arange(101), 2)[:-3]])
def test_every_batch_takes_as_many_from_each_group(rows):
    share = -(-101 // G)
    groups = grouped(rows, share, G, B)
    order = np.asarray(epoch_order(jax.random.key(0), 2, groups, len(rows)))
    steps = len(rows) // B
    batches = order[: steps * B].reshape(steps, G, B // G)
    assert (batches // share == np.arange(G)[:, None]).all()
    np.testing.assert_array_equal(order[steps * B :], 0)
    for group in range(G):
        own = rows[rows // share == group]
        visits, visited = np.unique(own, return_counts=True), batches[:, group].ravel()
        times = dict(zip(*np.unique(visited, return_counts=True), strict=True))
        rounds = -(-len(visited) // len(own))  # more than one for a group smaller than the mean
        assert set(times) <= set(own)
        assert all(times.get(row, 0) <= rounds * count for row, count in zip(*visits, strict=True))
        assert len(visited) < len(own) or set(times) == set(own)
    again = np.asarray(epoch_order(jax.random.key(0), 3, groups, len(rows)))
    assert (again != order).any()


def test_orders_in_groups_are_uniform():
    """Each row of a group comes at each place equally often, as do pairs of neighbours."""
    groups, epochs = grouped(np.arange(6), 3, 2, 2), 6000
    orders = jax.vmap(lambda epoch: epoch_order(jax.random.key(1), epoch, groups, 6))(jnp.arange(epochs))
    first = np.asarray(orders)[:, ::2]  # of the first group
    assert set(np.unique(first)) == {0, 1, 2}
    _, counts = np.unique(first, axis=0, return_counts=True)
    assert len(counts) == 6
    np.testing.assert_allclose(counts, epochs / 6, atol=5 * np.sqrt(epochs / 6))


def test_rows_of_their_own_devices_are_those_of_all():
    mesh = make_mesh()
    tree = {"a": jnp.arange(64.0), "b": jnp.arange(128).reshape(64, 2)}
    spread = jax.device_put(tree, by_example(mesh))
    index = jax.device_put(jnp.arange(16) * 4 + jnp.arange(16) % 3, by_example(mesh))
    taken, own = (jax.jit(take_rows, static_argnums=2)(t, index, m) for t, m in ((tree, None), (spread, mesh)))
    new = {"a": None, "b": -taken["b"]}
    put, put_own = (put_rows(t, index, new, m) for t, m in ((tree, None), (spread, mesh)))
    jax.tree.map(np.testing.assert_array_equal, (taken, put), (own, put_own))


@pytest.mark.parametrize("method", [elr(), pytest.param(SELF, marks=pytest.mark.slow)], ids=["elr", "self_learning"])
def test_one_device_visits_what_eight_visit(data, method):
    """The same groups on either, and so the same training but for the order of sums."""
    one, eight = (trainer_of(method, devices).fit(data, jax.random.key(0), 3).state for devices in (1, 8))
    assert jax.tree.map(jnp.shape, one) == jax.tree.map(jnp.shape, eight)
    for a, b in zip(*map(jax.tree.leaves, ((one.params, one.memory), (eight.params, eight.memory))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    everywhere = trainer_of(method, 8, 1).fit(data, jax.random.key(0), 3).state
    pairs = zip(jax.tree.leaves(eight.params), jax.tree.leaves(everywhere.params), strict=True)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in pairs)


@pytest.mark.parametrize("more", [{"spread_data": True}, {"spread_data": True, "model_devices": 2}])
def test_spread_data_are_the_same_batches(data, more):
    whole = trainer_of(elr(), model_devices=more.get("model_devices", 1)).fit(data, jax.random.key(0), 2).state
    spread = trainer_of(elr(), **more).fit(data, jax.random.key(0), 2).state
    assert_same(whole, spread)


def test_nothing_of_an_example_is_sent():
    """Twice as much memory of each, and as many bytes between devices: those of the gradient."""
    big = Split(np.zeros((4096, F), np.float32), np.zeros(4096, np.int32), None)

    def received(groups, k, spread_data):
        model = build("mlp", (F,), k, widths=(4,))
        mesh, options = make_mesh(), {"shuffle_groups": groups, "spread_data": spread_data}
        trainer = Trainer(model, elr(), optax.sgd(0.1), batch_size=1024, mesh=mesh, **options)
        plan = Stages(1, len(big), 1024)
        (program,) = trainer._stage_programs(plan)
        state = trainer._begin_epoch(trainer.init(jax.random.key(0), big), big, plan, plan.position(0), [program])
        if spread_data:
            order = jax.ShapeDtypeStruct((len(big),), np.int32)
            arrays = on_device(big, mesh, True, groups)
            lowered = program.many.lower(state, arrays, order, np.int32(0), np.int32(1))
        else:
            forms = batch_shapes(big, 1024).items()
            batch = {n: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=by_example(mesh)) for n, a in forms}
            lowered = program.one.lower(state, batch)
        return facts_of(lowered.compile()).received

    for spread_data in (False, True):
        gradient = 4 * ((F + 1) * 4 + 5 * 64)
        assert received(G, 64, spread_data) < 1.2 * gradient
        assert received(1, 64, spread_data) > 1024 * 64 * 4


def test_every_example_is_visited_and_files_are_read_in_that_order(pictures):
    """Of 100 in 8 groups of 13 the last has 9: an epoch of 6 batches takes 12 of each group, of that one 3 twice."""
    trained = {}
    for name, split in pictures.items():
        model = prepared(build("mlp", (4, 4, 3), 3, widths=(8,)), preparer(np.full(3, 128.0), np.full(3, 64)))
        trainer = Trainer(model, VISITING, optax.sgd(0.1), batch_size=B, mesh=make_mesh(), shuffle_groups=G)
        trained[name] = trainer.fit(split, jax.random.key(0), 2).state
    assert_same(trained["memory"], trained["files"])
    count = np.asarray(trained["memory"].memory.count)
    assert count.sum() == 2 * 6 * B
    assert count[:91].reshape(7, 13).sum(axis=1).tolist() == [24] * 7
    assert (count[91:100] >= 2).all()
    assert (count[100:] == 0).all()


def test_a_training_goes_on_and_no_program_is_compiled_anew(data, tmp_path, caplog):
    stages = [Stage(2), Stage(2, rows=np.arange(1, N, 2))]
    trainer = trainer_of(elr())
    with compiled(caplog) as found:
        uninterrupted = trainer.fit(data, jax.random.key(0), stages).state
    assert len([message for message in found if "jit(run)" in message]) == 1  # for both stages
    checkpoints, stop = Checkpoints(tmp_path, seconds=0.0), Told(lambda events: ("epoch", 1) in events)
    assert trainer_of(elr(), observers=[checkpoints, stop]).fit(data, jax.random.key(0), stages).stopped
    loader = Checkpoints(tmp_path)
    loaded = loader.load(trainer.abstract_state(data))
    loader.close(None)
    assert 0 < int(loaded.step) < uninterrupted.step
    with compiled(caplog) as found:
        assert_same(trainer.fit(data, jax.random.key(0), stages, state=loaded).state, uninterrupted)
    assert not [message for message in found if "jit(run)" in message]
    four = trainer_of(elr(), devices=4)  # whose rows lie otherwise
    loader = Checkpoints(tmp_path)
    loaded = loader.load(four.abstract_state(data))
    loader.close(None)
    moved = four.fit(data, jax.random.key(0), stages, state=loaded).state
    pairs = map(jax.tree.leaves, ((moved.params, moved.memory), (uninterrupted.params, uninterrupted.memory)))
    for a, b in zip(*pairs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_what_is_planned_counts_what_lies_in_groups(data):
    parts = costs_of(trainer_of(elr()), data).parts
    assert parts["examples"] == 13 * K * 4


def test_what_cannot_be_cut_into_groups_is_refused(data):
    with pytest.raises(ArgumentError, match=r"`shuffle_groups`=12 do not divide over 8 devices; take a multiple, or 1"):
        trainer_of(elr(), groups=12)
    with pytest.raises(ArgumentError, match=r"`batch_size`=16 does not divide over 32 `shuffle_groups`"):
        trainer_of(elr(), groups=32)
    few = Stage(1, rows=np.arange(60))
    with pytest.raises(ArgumentError, match=r"one has 0 of the 60 examples to visit and another 13: take fewer"):
        trainer_of(elr()).fit(data, jax.random.key(0), few)


def test_no_batch_holds_an_example_twice():
    rows = np.concatenate([np.arange(14), np.arange(16, 26)])
    order = np.asarray(epoch_order(jax.random.key(0), 0, grouped(rows, 16, 2, 20), len(rows)))
    assert len(set(order[:20])) == 20
    with pytest.raises(
        ArgumentError, match=r"`batch_size`=24 takes 12 of each of 2 `shuffle_groups`, and one has 10 ex"
    ):
        grouped(rows, 16, 2, 24)


def test_members_shuffle_all_rows(data):
    rows = [np.arange(60), np.arange(40, N)]  # which no groups have evenly
    fitted = trainer_of(elr()).fit_many(data, jax.random.split(jax.random.key(0), 2), 1, rows=rows)
    plain = trainer_of(elr(), groups=1).fit_many(data, jax.random.split(jax.random.key(0), 2), 1, rows=rows)
    assert_same(fitted.state.params, plain.state.params)
