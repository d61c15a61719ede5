"""Every example once an epoch, from memory or from files, and the same order whatever was trained before."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nlx.data import DataError, ImageFiles, Split
from nlx.training.feed import DeviceFeed, StreamFeed, in_order, make_feed, place
from nlx.training.stages import Course, Stage
from nlx.training.state import TrainState, by_example, make_mesh, replicated

N, B, STEPS = 50, 8, 6  # two examples of an epoch are left over


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """The same pictures in memory and as files; a picture's first pixel is its number, and so is its label."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, 4, 4, 3), dtype=np.uint8)
    images[:, 0, 0] = np.arange(N)[:, None]
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    labels = np.arange(N, dtype=np.int32)
    files = ImageFiles(tuple(str(folder / f"{i}.png") for i in range(N)), 4)
    return {"memory": Split(images, labels, labels), "files": Split(files, labels, labels)}


def recorder(traces):
    """A step that trains nothing: its memory takes down who came at which step, and the batch's own account of it."""

    def step(state, batch):
        traces.append({name: (rows.shape, rows.dtype) for name, rows in batch.items()})
        index = batch["index"]
        memory = {
            "count": state.memory["count"].at[index].add(1),
            "step": state.memory["step"].at[index].set(state.step),
            "pixel": state.memory["pixel"].at[index].set(batch["image"][:, 0, 0, 0].astype(jnp.int32)),
            "label": state.memory["label"].at[index].set(batch["noisy_label"]),
        }
        return state._replace(step=state.step + 1, memory=memory)

    return step


def start(split, devices=1, seed=0, key=0, course=None):
    mesh = make_mesh(jax.devices()[:devices])
    memory = {name: jnp.full(N, -1 if name != "count" else 0) for name in ("count", "step", "pixel", "label")}
    state = TrainState(jnp.int32(0), jax.random.key(0), {}, {}, (), memory, {})
    state = jax.tree.map(lambda x: jax.device_put(x, replicated(mesh)), state)
    traces = []
    return (
        state,
        make_feed(split, course or Course.whole(len(split), B, 1), recorder(traces), seed, jax.random.key(key), mesh),
        traces,
    )


def seen(state):
    return {name: np.asarray(rows) for name, rows in state.memory.items()}


@pytest.mark.parametrize("kind", ["memory", "files"])
@pytest.mark.parametrize("devices", [1, 8])
def test_an_epoch_takes_each_example_once_with_its_own_label(splits, kind, devices):
    state, feed, traces = start(splits[kind], devices)
    assert isinstance(feed, {"memory": DeviceFeed, "files": StreamFeed}[kind])
    state = feed.advance(state, 0, STEPS)
    after = seen(state)
    came = after["count"] == 1
    assert came.sum() == STEPS * B
    assert after["count"].max() == 1
    np.testing.assert_array_equal(np.bincount(after["step"][came]), [B] * STEPS)
    np.testing.assert_array_equal(after["pixel"][came], np.flatnonzero(came))
    np.testing.assert_array_equal(after["label"][came], np.flatnonzero(came))
    state = feed.advance(state, STEPS, STEPS)
    assert seen(state)["count"].sum() == 2 * STEPS * B
    again = seen(state)["step"][came] - STEPS
    assert (again[again >= 0] != after["step"][came][again >= 0]).mean() > 0.5  # another order
    assert len(traces) == 1
    assert traces[0] == {
        "image": ((B, 4, 4, 3), np.uint8),
        "noisy_label": ((B,), np.int32),
        "index": ((B,), np.int32),
    }


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_who_comes_at_a_step_does_not_depend_on_where_a_run_began(splits, kind):
    def order(cuts):
        state, feed, _ = start(splits[kind])
        for first, last in cuts:
            state = feed.advance(state._replace(step=jnp.int32(first)), first, last - first)
        return seen(state)["step"]

    whole = order([(0, 6), (6, 12)])
    cut = order([(0, 1), (1, 4), (4, 6), (6, 8), (8, 12)])
    np.testing.assert_array_equal(cut, whole)
    second = order([(6, 12)])
    np.testing.assert_array_equal(second[second >= 0], whole[second >= 0])
    tail = order([(8, 12)])
    np.testing.assert_array_equal(tail[tail >= 0], whole[tail >= 0])
    assert (tail >= 0).sum() == 4 * B
    back = order([(6, 12), (0, 6), (6, 12)])  # one feed, set back to an epoch it has left
    np.testing.assert_array_equal(back[second >= 0], whole[second >= 0])


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_another_seed_is_another_order(splits, kind):
    def order(seed):
        state, feed, _ = start(splits[kind], seed=seed, key=seed)
        return seen(feed.advance(state, 0, STEPS))["step"]

    assert (order(1) != order(2)).mean() > 0.5
    np.testing.assert_array_equal(order(1), order(1))


def test_the_number_of_devices_does_not_change_the_order(splits):
    for split in splits.values():
        orders = []
        for devices in (1, 8):
            state, feed, _ = start(split, devices)
            orders.append(seen(feed.advance(state, 0, STEPS))["step"])
        np.testing.assert_array_equal(*orders)


def test_a_training_set_on_the_device_holds_no_truth(splits):
    _, feed, _ = start(splits["memory"], 8)
    assert set(feed._data) == {"image", "noisy_label"}
    assert all(a.sharding.is_fully_replicated and len(a.devices()) == 8 for a in feed._data.values())


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_a_batch_must_divide_over_the_devices(splits, kind):
    mesh = make_mesh()
    with pytest.raises(DataError, match=r"^--batch_size=20 does not divide over 8 devices; take a multiple$"):
        make_feed(splits[kind], Course.whole(N, 20, 1), recorder([]), 0, jax.random.key(0), mesh)


@pytest.mark.parametrize("kind", ["memory", "files"])
@pytest.mark.parametrize("devices", [1, 8])
def test_stages_visit_their_own_rows_as_often_as_they_say_in_one_program(splits, kind, devices):
    split = splits[kind]
    trusted = np.arange(N) % 2 == 0
    split = replace(split, trusted=trusted)
    upsampled = np.concatenate([np.arange(N), np.flatnonzero(trusted)[:14]])  # 64 rows, 8 steps
    course = Course([Stage("clean", np.flatnonzero(trusted)[:24], 2), Stage("all", upsampled, 1)], B)
    state, feed, traces = start(split, devices, course=course)
    assert [course.at(step).epoch for step in range(course.total)] == [0] * 3 + [1] * 3 + [2] * 8
    for first, count in ((0, 3), (3, 3), (6, 8)):
        state = feed.advance(state, first, count)
    count = seen(state)["count"]
    expected = np.ones(N, int)
    expected[np.flatnonzero(trusted)[:14]] += 1
    expected[np.flatnonzero(trusted)[:24]] += 2
    np.testing.assert_array_equal(count, expected)
    assert len(traces) == 1
    assert traces[0]["trusted_label"] == ((B,), np.int32)


def test_a_picture_that_cannot_be_read_is_told_while_training(splits, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    paths = (*splits["files"].inputs.paths[:-1], str(tmp_path / "broken.png"))
    state, feed, _ = start(Split(ImageFiles(paths, 4), splits["files"].noisy_label, None))
    with pytest.raises(DataError, match=r"broken\.png: not a readable picture"):
        feed.advance(state, 0, 2 * STEPS)


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_evaluation_goes_front_to_back(splits, kind):
    mesh = make_mesh()
    batches = list(in_order(splits[kind], 16, mesh))
    assert [count for _, count in batches] == [16, 16, 16, 2]
    for batch, _ in batches:
        assert set(batch) == {"image", "noisy_label", "index"}
        assert batch["image"].shape == (16, 4, 4, 3)
        assert all(rows.sharding == by_example(mesh) for rows in batch.values())
    index = np.concatenate([np.asarray(batch["index"])[:count] for batch, count in batches])
    np.testing.assert_array_equal(index, np.arange(N))
    pixels = np.concatenate([np.asarray(batch["image"])[:count, 0, 0, 0] for batch, count in batches])
    np.testing.assert_array_equal(pixels, np.arange(N))


def test_place_puts_each_row_on_the_device_it_belongs_to():
    mesh = make_mesh()
    batch = {"image": np.arange(16 * 3).reshape(16, 3).astype(np.uint8), "index": np.arange(16, dtype=np.int32)}
    placed = place(batch, by_example(mesh))
    for name, rows in batch.items():
        assert placed[name].dtype == rows.dtype
        assert placed[name].sharding == by_example(mesh)
        np.testing.assert_array_equal(placed[name], rows)
        for shard in placed[name].addressable_shards:
            d = list(mesh.devices.flat).index(shard.device)
            np.testing.assert_array_equal(shard.data, rows[2 * d : 2 * d + 2])
    whole = place(batch, replicated(mesh))
    assert all(shard.data.shape == (16, 3) for shard in whole["image"].addressable_shards)
