"""Every example once an epoch, from memory or from files in one order, whatever was trained before."""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from nlx.arguments import ArgumentError
from nlx.data import DataError, ImageFiles, Split
from nlx.methods.method import Method
from nlx.training.feed import DeviceFeed, StreamFeed, make_feed
from nlx.training.mesh import by_example, make_mesh, replicated, to_device
from nlx.training.order import epoch_order
from nlx.training.stages import Stage, Stages
from nlx.training.trainer import Trainer
from tests.training.conftest import STEPS, VISITING, B, K, N


def visits(trainer, split, epochs, seed=0):
    memory = trainer.fit(split, jax.random.key(seed), epochs).state.memory
    return np.asarray(memory.step)[:N], np.asarray(memory.count)[:N]


def test_pictures_in_memory_and_on_disk_come_in_one_order_on_any_devices(pictures, trainer_for):
    first = visits(trainer_for(pictures["memory"], VISITING), pictures["memory"], 2)
    for kind, devices in (("files", 1), ("files", 8), ("memory", 8)):
        again = visits(trainer_for(pictures[kind], VISITING, devices), pictures[kind], 2)
        np.testing.assert_array_equal(again, first)
    other = visits(trainer_for(pictures["files"], VISITING), pictures["files"], 2, seed=1)
    assert (other[0] != first[0]).mean() > 0.5


def test_pictures_in_memory_and_on_disk_train_alike(pictures, trainer_for):
    losses = []
    for kind in ("memory", "files"):
        history = trainer_for(pictures[kind], VISITING).fit(pictures[kind], jax.random.key(0), 2).history
        losses.append([row["train_loss"] for row in history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


class Came(NamedTuple):
    """What an example came with, and how many batches it was in."""

    count: Array
    pixel: Array
    label: Array
    trusted: Array


def recorder(shapes):
    """A method that takes down what it is given: each row in memory, rows of an epoch as sums, and a batch's form."""

    def loss(key, params, memory, outputs, batch, step):
        shapes.append({name: (rows.shape, rows.dtype) for name, rows in batch.items()})
        pixel = batch["inputs"][:, 0, 0, 0].astype(jnp.int32)
        index = batch["index"].astype(jnp.float32)
        came = Came(memory.count + 1, pixel, batch["noisy_label"], batch["trusted_label"])
        return jnp.sum(outputs["logits"] ** 2, axis=-1), came, {"index": index, "square": index**2}

    def init(key, outputs, num_classes, size):
        return {}, Came(jnp.zeros(size, jnp.int32), *(jnp.full(size, -9) for _ in range(3)))

    return Method("recorder", loss, init=init)


@pytest.mark.parametrize("kind", ["memory", "files"])
@pytest.mark.parametrize("devices", [1, 8])
def test_stages_visit_their_own_rows_as_often_as_they_say(pictures, trainer_for, kind, devices):
    """Each with its own inputs and labels; one that stands twice in a stage comes twice an epoch."""
    trusted, shapes = np.arange(N) % 2 == 0, []
    split = replace(pictures[kind], label=pictures[kind].noisy_label, trusted=trusted)
    clean, twice = np.flatnonzero(trusted)[:32], np.arange(1, 31, 2)
    everything = np.concatenate([np.arange(81), twice])
    stages = [Stage(2, "clean", clean), Stage(1, "all", everything)]
    fitted = trainer_for(split, recorder(shapes), devices).fit(split, jax.random.key(0), stages)
    assert [row["stage"] for row in fitted.history] == ["clean", "clean", "all"]
    assert [row["step"] for row in fitted.history] == [2, 4, 10]
    for row, rows in zip(fitted.history, (clean, clean, everything), strict=True):
        steps = len(rows) // B
        assert row["index"] * steps * B == rows.sum()
        assert row["square"] * steps * B == (rows**2).sum()
    came = jax.tree.map(lambda leaf: np.asarray(leaf)[:N], fitted.state.memory)
    visits = np.zeros(N, int)
    for rows in (clean, clean, np.arange(81)):
        visits[rows] += 1
    once = np.setdiff1d(np.arange(N), twice)
    np.testing.assert_array_equal(came.count[once], visits[once])
    assert set(came.count[twice]) == {1, 2}  # both times in one batch, or in two
    seen = visits > 0
    np.testing.assert_array_equal(came.pixel[seen], pictures["memory"].inputs[seen, 0, 0, 0])
    np.testing.assert_array_equal(came.label[seen], split.noisy_label[seen])
    np.testing.assert_array_equal(came.trusted[seen], split.trusted_label[seen])
    form = {"inputs": ((B, 4, 4, 3), np.uint8)} | dict.fromkeys(
        ("noisy_label", "index", "trusted_label"), ((B,), np.int32)
    )
    assert all(batch == form for batch in shapes)
    assert shapes


def test_a_row_that_stands_twice_in_a_stage_is_visited_twice():
    rows = np.array([3, 1, 1, 4, 4, 4])
    order = np.asarray(epoch_order(jax.random.key(0), 2, rows.astype(np.int32), 8))
    assert sorted(order[:6].tolist()) == sorted(rows.tolist())
    assert order[6:].tolist() == [0, 0]
    assert (order != np.asarray(epoch_order(jax.random.key(0), 3, rows.astype(np.int32), 8))).any()


def test_the_feed_is_the_one_that_suits_the_data(pictures, trainer_for):
    mesh, plan = make_mesh(), Stages(1, N, B)
    key = jax.random.key(0)
    device = make_feed(pictures["memory"], plan, [], key, mesh)
    assert isinstance(device, DeviceFeed)
    assert set(device._data) == {"inputs", "noisy_label"}
    assert all(a.sharding.is_fully_replicated and len(a.devices()) == 8 for a in device._data.values())
    assert isinstance(make_feed(pictures["files"], plan, [], key, mesh), StreamFeed)
    assert device.longest == STEPS


@pytest.mark.parametrize("devices", [3, 8])
def test_a_batch_must_divide_over_the_devices(trainer_for, split, devices):
    trainer = trainer_for(split, VISITING)
    with pytest.raises(ArgumentError, match=f"`batch_size`=20 does not divide over {devices} devices"):
        Trainer(
            trainer.model,
            trainer.method,
            trainer.optimizer,
            batch_size=20,
            mesh=make_mesh(jax.devices()[:devices]),
        )


def test_a_picture_that_cannot_be_read_is_told_while_training(pictures, trainer_for, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    paths = (*pictures["files"].inputs.paths[:-1], str(tmp_path / "broken.png"))
    split = Split(ImageFiles(paths, 4), pictures["files"].noisy_label, None)
    with pytest.raises(DataError, match=r"broken\.png: not a readable picture"):
        trainer_for(split, VISITING).fit(split, jax.random.key(0), 3)


def test_arrays_come_to_the_devices_that_they_belong_to():
    mesh = make_mesh()
    batch = {"inputs": np.arange(16 * K).reshape(16, K).astype(np.uint8), "index": np.arange(16, dtype=np.int32)}
    placed = to_device(batch, by_example(mesh))
    for name, rows in batch.items():
        assert placed[name].dtype == rows.dtype
        assert placed[name].sharding == by_example(mesh)
        np.testing.assert_array_equal(placed[name], rows)
        for shard in placed[name].addressable_shards:
            d = list(mesh.devices.flat).index(shard.device)
            np.testing.assert_array_equal(shard.data, rows[2 * d : 2 * d + 2])
    whole = to_device(batch, replicated(mesh))
    assert all(shard.data.shape == (16, K) for shard in whole["inputs"].addressable_shards)
