"""Between epochs a method sees the whole training set: each example's features in its own row, on any devices."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.data import Split
from nlx.methods.method import Aux, Method, only
from nlx.methods.self_learning import corrections, self_learning
from nlx.training.evaluate import Refresher
from nlx.training.state import by_example

N, F, K, WIDTH, ROWS = 100, 6, 3, 16, 256  # width of the features, rows of the padded memory


def witness() -> Method:
    """A method that takes nothing from what it is shown between epochs but notes of it, after every second one."""

    def init(key, batch, size):
        notes = {"noisy": jnp.zeros(size, jnp.int32), "trusted": jnp.zeros(size, jnp.int32)}
        return {}, {"features": jnp.zeros((size, WIDTH)), **notes, "drawn": jnp.zeros(size), "times": jnp.zeros(size)}

    def refresh(memory, features, labels, key):
        return {
            "features": features,
            "noisy": labels["noisy_label"],
            "trusted": labels.get("trusted_label", memory["trusted"] - 7),
            "drawn": jnp.full(len(features), jax.random.uniform(key)),
            "times": memory["times"] + 1,
        }

    return Method(
        "witness",
        init,
        lambda params, memory, outputs, batch, key, step: (jnp.sum(outputs["logits"] ** 2, axis=-1), Aux({})),
        lambda params, memory, outputs, batch: only("classifier", jax.nn.softmax(outputs["logits"])),
        refresh=refresh,
        refresh_after=lambda epochs: epochs % 2 == 0,
    )


WITNESS = witness()


@pytest.fixture(scope="module")
def partly_trusted(split):
    return replace(split, label=(split.noisy_label + 1) % K, trusted=np.arange(N) % 3 == 0)


@pytest.fixture(scope="module")
def trained(partly_trusted, new_run):
    """Runs on one and on eight devices, with the same parameters, a few steps in."""
    one, eight = (new_run(partly_trusted, WITNESS, devices) for devices in (1, 8))
    state = one.feed.advance(one.state, 0, 4)
    placed = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), state, eight.state)
    return {1: one._replace(state=state), 8: eight._replace(state=placed)}


def refreshed(run, split, batch_size, epochs=2, method=WITNESS):
    """The state afterwards; that of the run stays as it is."""
    refresher = Refresher(run.model, method, run.prepare, run.mesh, split, batch_size)
    return refresher(jax.tree.map(jnp.copy, run.state), epochs)


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 64), (8, 64), (8, 104)])  # 36 rows at the end, or 4 too many
def test_every_example_is_shown_in_its_own_row_with_its_labels(trained, partly_trusted, devices, batch_size):
    run = trained[devices]
    state = refreshed(run, partly_trusted, batch_size)
    x = run.prepare(jnp.asarray(partly_trusted.inputs), None)
    expected = run.model.apply(trained[1].state.params["model"], {}, x, False, None)[0]["features"]
    np.testing.assert_allclose(state.memory["features"][:N], expected, rtol=1e-4, atol=1e-5)
    assert len(np.unique(np.asarray(expected), axis=0)) > N // 2  # rows that change places would show
    padding = np.full(ROWS - N, -1)
    np.testing.assert_array_equal(state.memory["noisy"], [*partly_trusted.noisy_label, *padding])
    np.testing.assert_array_equal(state.memory["trusted"], [*partly_trusted.trusted_label, *padding])
    np.testing.assert_array_equal(state.memory["features"][N:], 0)
    for leaf in jax.tree.leaves(state.memory):
        assert leaf.sharding.is_equivalent_to(by_example(run.mesh), leaf.ndim)
        assert {len(shard.data) for shard in leaf.addressable_shards} == {ROWS // devices}
    jax.tree.map(np.testing.assert_array_equal, state.params, run.state.params)


def test_without_trusted_labels_none_are_handed_over(trained, partly_trusted):
    state = refreshed(trained[1], replace(partly_trusted, trusted=None), 64)
    np.testing.assert_array_equal(state.memory["trusted"], -7)


def test_a_method_is_asked_after_the_epochs_it_wants_with_a_new_key_each_time(trained, partly_trusted):
    run = trained[1]
    refresher = Refresher(run.model, WITNESS, run.prepare, run.mesh, partly_trusted, 64)
    for epochs in (1, 3, 5):
        assert refresher(run.state, epochs) is run.state
    drawn = [float(refreshed(run, partly_trusted, 64, epochs).memory["drawn"][0]) for epochs in (2, 4, 2)]
    assert drawn[0] == drawn[2] != drawn[1]
    other = run._replace(state=run.state._replace(key=jax.random.key(1)))
    assert float(refreshed(other, partly_trusted, 64).memory["drawn"][0]) != drawn[0]


def test_a_run_refreshes_after_each_epoch_before_it_evaluates_and_saves(trained, partly_trusted, train, new_run):
    run = new_run(partly_trusted, WITNESS)
    saved, seen = [], []

    class Book:
        def save(self, step, state):
            saved.append(float(state.memory["times"][0]))

    state = train(
        run,
        epochs=5,
        refresh=Refresher(run.model, WITNESS, run.prepare, run.mesh, partly_trusted, 64),
        evaluate=lambda state: seen.append(float(state.memory["times"][0])) or {},
        checkpoints=Book(),
        checkpoint_seconds=0.0,
    )
    assert seen == saved == [0, 1, 1, 2, 2]
    np.testing.assert_array_equal(state.memory["times"], 2)


def test_eight_devices_correct_the_same_labels_as_one(new_run, train):
    """Self-learning on three clusters, a quarter of whose labels are wrong: training and corrections by turns."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, K, N)
    noisy = np.where(rng.uniform(size=N) < 0.25, (true + 1) % K, true).astype(np.int32)
    split = Split((3 * np.eye(K, F)[true] + 0.5 * rng.normal(size=(N, F))).astype(np.float32), noisy, None)
    method = self_learning(K, refresh_after=corrections(2), prototypes=2, members=64)
    found = []
    for devices in (1, 8):
        run = new_run(split, method, devices)
        refresh = Refresher(run.model, method, run.prepare, run.mesh, split, 64)
        found.append(train(run, epochs=3, refresh=refresh).memory)
    one, eight = found
    np.testing.assert_array_equal(eight["corrected"], one["corrected"])
    np.testing.assert_array_equal(eight["first"], one["first"])
    np.testing.assert_allclose(eight["scores"], one["scores"], rtol=1e-3, atol=1e-4)
    assert (np.asarray(one["corrected"][:N]) == true).mean() > (noisy == true).mean() + 0.1
    np.testing.assert_array_equal(one["corrected"][N:], -1)
