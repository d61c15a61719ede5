"""Passes over data: formulas applied to everything at once, for any length and any number of devices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

from benchmarks.kernels.programs import facts_of
from nlx.arguments import ArgumentError
from nlx.data import Split
from nlx.data.prepare import normalization, preparer, six_views
from nlx.methods.method import Candidate, Column, Method, Posterior
from nlx.methods.plain import cross_entropy, plain
from nlx.methods.self_learning import corrections, self_learning
from nlx.models import build, prepared
from nlx.training.loop import Diverged
from nlx.training.mesh import by_example, make_mesh
from nlx.training.observers import Interrupted, Observer, polled
from nlx.training.trainer import Trainer
from tests.training.conftest import REMEMBERING, VISITING, F, K, N

PLAIN = plain(cross_entropy, "plain")
CORRECTING = self_learning(K, refresh_after=corrections(1), prototypes=2, members=16)


def at_once(trainer, state, split):
    """The posterior of all examples, eagerly in one batch."""
    outputs, _ = trainer.model.apply(state.params["model"], state.stats, jnp.asarray(split.inputs), False, None)
    batch = {"noisy_label": jnp.asarray(split.noisy_label), "index": jnp.arange(len(split))}
    rows = jax.tree.map(lambda m: m[: len(split)], state.memory)
    return trainer.method.posterior(state.params["method"], rows, outputs, batch), outputs


def in_numpy(params, inputs):
    """What the MLP with one hidden layer gives for features."""
    x = (inputs - inputs.mean(axis=0)) / inputs.std()
    hidden, head = params["hidden_0"], params["head"]["dense"]
    features = np.maximum(x @ hidden["kernel"] + hidden["bias"], 0)
    return {"features": features, "logits": features @ head["kernel"] + head["bias"]}


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_posteriors_scores_and_features_are_those_of_all_examples_at_once(split, trainer_for, devices):
    big = Split(np.tile(split.inputs, (6, 1)), np.tile(split.noisy_label, 6), None)  # more than a batch of 512
    trainer = trainer_for(big, REMEMBERING, devices)
    state = trainer.fit(big, jax.random.key(0), 1).state
    expected, outputs = at_once(trainer, jax.device_get(state), big)
    for name, array in in_numpy(jax.device_get(state.params["model"]), big.inputs).items():
        np.testing.assert_allclose(outputs[name], array, rtol=1e-4, atol=1e-5)
    posterior = trainer.posterior(state, big)
    assert set(posterior.candidates) == {"additive", "bayes"}
    assert {name: column.kind for name, column in posterior.columns.items()} == {
        "classifier": "belief",
        "quality_mean": "value",
    }
    for a, b in zip(jax.tree.leaves(posterior), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, np.ndarray)
        assert len(a) == 6 * N
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    test = Split(big.inputs, None, None)
    np.testing.assert_allclose(trainer.scores(state, test), outputs["logits"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trainer.features(state, big.inputs), outputs["features"], rtol=1e-4, atol=1e-5)
    logits = np.asarray(outputs["logits"])
    np.testing.assert_allclose(trainer.predict(state, big.inputs), jax.nn.softmax(logits), rtol=1e-4, atol=1e-5)
    sigmoids = trainer.predict(state, big.inputs, multi_label=True)
    np.testing.assert_allclose(sigmoids, jax.nn.sigmoid(logits), rtol=1e-4, atol=1e-5)


def test_pictures_on_disk_are_what_they_are_in_memory(pictures, trainer_for):
    """One trainer for both: where the inputs of a pass lie is of no consequence."""
    files, memory = pictures["files"], pictures["memory"]
    for devices in (1, 8):
        trainer = trainer_for(files, VISITING, devices)
        state = trainer.init(jax.random.key(0), files)
        for a, b in zip(*(jax.tree.leaves(trainer.posterior(state, s)) for s in (files, memory)), strict=True):
            np.testing.assert_array_equal(a, b)
            assert len(a) == N
        for ask in (trainer.scores, trainer.predict, trainer.features):
            asked = [ask(state, inputs) for inputs in (files, files.inputs, memory, memory.inputs)]
            assert len(asked[0]) == N
            for other in asked[1:]:
                np.testing.assert_array_equal(other, asked[0])
        assert trainer.evaluate(state, files) == trainer.evaluate(state, (memory.inputs, memory.noisy_label))


def test_a_posterior_sees_the_rows_of_memory_of_its_examples(split, trainer_for):
    def posterior(params, memory, outputs, batch):
        given = jax.nn.one_hot(batch["noisy_label"], K)
        return Posterior({"given": Candidate(given, memory.step)}, {"index": Column(batch["index"])})

    for devices in (1, 8):
        trainer = trainer_for(split, VISITING._replace(posterior=posterior), devices)
        state = trainer.fit(split, jax.random.key(0), 1).state
        beliefs = trainer.posterior(state, split)
        np.testing.assert_array_equal(beliefs.columns["index"].values, np.arange(N))
        np.testing.assert_array_equal(beliefs.candidates["given"].cost, state.memory.step[:N])
        np.testing.assert_array_equal(beliefs.candidates["given"].probs, np.eye(K)[split.noisy_label])


def test_draws_of_scores_are_the_same_on_any_number_of_devices(split, trainer_for):
    def predict(params, outputs):
        return jax.random.uniform(jax.random.key(0), outputs["logits"].shape)

    found = []
    for devices in (1, 3, 8):
        trainer = trainer_for(split, PLAIN._replace(predict=predict), devices, batch_size=24)
        state = trainer.init(jax.random.key(0), split)
        found.append(trainer.scores(state, np.tile(split.inputs, (20, 1))[:1100]))
    np.testing.assert_array_equal(found[0][:512], found[0][512:1024])
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1][:513], found[1][513:1026])


def test_passes_over_data_of_any_length_are_one_trace(split):
    traces = []

    def prepare(x, key):
        traces.append(key)
        return x

    model = prepared(build("mlp", (F,), K, widths=(4,)), prepare)
    trainer = Trainer(model, PLAIN, optax.sgd(0.1), batch_size=16, mesh=make_mesh(jax.devices()[:1]))
    state = trainer.init(jax.random.key(0), split)
    traces.clear()
    for length in (100, 64, 7):
        part = split.take(np.arange(length))
        assert trainer.scores(state, part).shape == (length, K)
        assert len(trainer.posterior(state, part).candidates["classifier"].probs) == length
    assert traces == [None, None]  # one pass each, without a key to augment with


@pytest.mark.parametrize("devices", [1, 8])
def test_scores_are_averaged_over_views_and_posteriors_see_the_centre(devices):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (20, K)).astype(np.uint8)
    split = Split(rng.integers(0, 256, (20, 8, 8, 1), dtype=np.uint8), labels, None)
    network, figures = build("convnet", (6, 6, 1), K, widths=(4, 8), dropout=0.5), normalization(split.inputs)
    whole, cut = preparer(*figures), six_views(6)
    model = prepared(network, preparer(*figures, augmentation="crop-flip", size=6), lambda x: cut(whole(x, None)))
    seen = []

    def posterior(params, memory, outputs, batch):
        seen.append((batch["noisy_label"].dtype, batch["inputs"].dtype))
        return Posterior({"given": Candidate(batch["noisy_label"], outputs["logits"][:, 0])}, {})

    mesh = make_mesh(jax.devices()[:devices])
    trainer = Trainer(model, PLAIN._replace(posterior=posterior), optax.sgd(0.1), batch_size=16, mesh=mesh)
    state = trainer.init(jax.random.key(0), split)
    x = whole(jnp.asarray(split.inputs), None)
    corners = [x[:, i : i + 6, j : j + 6] for i in (0, 2) for j in (0, 2)]
    views = [*corners, x[:, 1:7, 1:7], x[:, 1:7, 1:7][:, :, ::-1]]
    params = jax.device_get(state.params["model"])
    logits = [network.apply(params, {}, v, False, None)[0]["logits"] for v in views]
    scores = trainer.scores(state, split)
    np.testing.assert_allclose(scores, np.mean(logits, axis=0), rtol=1e-4, atol=1e-5)
    assert np.abs(scores - logits[4]).max() > 1e-3
    beliefs = trainer.posterior(state, split).candidates["given"]
    np.testing.assert_array_equal(beliefs.probs, labels)
    np.testing.assert_allclose(beliefs.cost, logits[4][:, 0], rtol=1e-4, atol=1e-5)
    assert seen == [(jnp.float32, np.uint8)]


def test_a_posterior_that_is_not_finite_is_told(split, trainer_for):
    trainer = trainer_for(split)
    state = trainer.init(jax.random.key(0), split)
    broken = state._replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))
    with pytest.raises(Diverged, match=r"posterior is not finite after step 0: take a lower `learning_rate`"):
        trainer.posterior(broken, split)


class Notes(NamedTuple):
    features: Array
    noisy: Array
    trusted: Array
    drawn: Array
    times: Array


def witness():
    """A method that takes nothing from what it is shown between epochs but notes of it, after every second one."""

    def init(key, outputs, num_classes, size):
        width, none = outputs["features"].shape[-1], jnp.zeros(size, jnp.int32)
        return {}, Notes(jnp.zeros((size, width)), none, none, jnp.zeros(size), jnp.zeros(size))

    def refresh(key, memory, features, labels):
        trusted = labels.get("trusted_label", memory.trusted - 7)
        drawn = jnp.full(len(features), jax.random.uniform(key))
        return Notes(features, labels["noisy_label"], trusted, drawn, memory.times + 1)

    def loss(key, params, memory, outputs, batch, step):
        return 0.01 * jnp.sum(outputs["logits"] ** 2, axis=-1), memory, {}  # features stay alive

    return Method("witness", loss, init=init, refresh=refresh, refresh_after=lambda epochs: epochs % 2 == 0)


WITNESS = witness()


class Times(Observer):
    """How often a method had looked when an epoch was told of."""

    def __init__(self):
        self.seen = []

    def on_epoch(self, state, row):
        self.seen.append(int(state.memory.times[0]))


@pytest.mark.parametrize("devices", [1, 8])
def test_every_example_is_shown_in_its_own_row_with_its_labels(trainer_for, devices):
    """More of them than a batch; before observers are told of the epoch."""
    rng, n, rows = np.random.default_rng(3), 600, 768
    label = rng.integers(0, K, n).astype(np.int32)
    split = Split(rng.normal(size=(n, F)).astype(np.float32), (label + 1) % K, label, trusted=np.arange(n) % 3 == 0)
    times = Times()
    trainer = trainer_for(split, WITNESS, devices, observers=[times])
    first = trainer.fit(split, jax.random.key(0), 1).state
    np.testing.assert_array_equal(first.memory.times, 0)
    state = trainer.fit(split, jax.random.key(0), 2).state
    expected = in_numpy(jax.device_get(state.params["model"]), split.inputs)["features"]
    np.testing.assert_allclose(state.memory.features[:n], expected, rtol=1e-4, atol=1e-5)
    assert len(np.unique(expected, axis=0)) > n // 2  # rows that change places would show
    padding = np.full(rows - n, -1)
    np.testing.assert_array_equal(state.memory.noisy, [*split.noisy_label, *padding])
    np.testing.assert_array_equal(state.memory.trusted, [*split.trusted_label, *padding])
    np.testing.assert_array_equal(state.memory.features[n:], 0)
    for leaf in state.memory:
        assert leaf.sharding.is_equivalent_to(by_example(trainer.mesh), leaf.ndim)
        assert {len(shard.data) for shard in leaf.addressable_shards} == {rows // devices}
    later = trainer.fit(split, jax.random.key(0), 5).state.memory
    assert times.seen == [0, *[0, 1], *[0, 1, 1, 2, 2]]
    assert later.drawn[0] != state.memory.drawn[0]
    other = trainer.fit(split, jax.random.key(1), 2).state.memory
    assert other.drawn[0] != state.memory.drawn[0]


def test_features_are_extracted_where_they_are_kept(split, trainer_for):
    """No batch of them is sent to all."""
    trainer = trainer_for(split, WITNESS, 8)
    passes, spread = trainer._passes, by_example(trainer.mesh)

    def rows(shape, dtype=np.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=spread)

    batch = rows((passes.batch, F)), rows((passes.batch,), np.int32)
    lowered = passes._extract.lower(rows((2048, 16)), trainer.abstract_state(split), *batch, np.int32(2000))
    assert facts_of(lowered.compile()).received == 0


def test_without_trusted_labels_none_are_handed_over(split, trainer_for):
    memory = trainer_for(split, WITNESS).fit(split, jax.random.key(0), 2).state.memory
    np.testing.assert_array_equal(memory.trusted, -7)


def test_a_refresh_needs_features(split):
    from flax import nnx

    mesh = make_mesh(jax.devices()[:1])
    method = WITNESS._replace(init=lambda key, outputs, k, size: ({}, (jnp.zeros(size),)))
    trainer = Trainer(lambda rngs: nnx.Linear(F, K, rngs=rngs), method, optax.sgd(0.1), batch_size=16, mesh=mesh)
    with pytest.raises(ArgumentError, match="witness needs a model that returns `features`"):
        trainer.fit(split, jax.random.key(0), 2)


def test_eight_devices_correct_the_same_labels_as_one(trainer_for):
    """Self-learning on three clusters, a quarter of whose labels are wrong: training and corrections by turns."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, K, N)
    noisy = np.where(rng.uniform(size=N) < 0.25, (true + 1) % K, true).astype(np.int32)
    split = Split((3 * np.eye(K, F)[true] + 0.5 * rng.normal(size=(N, F))).astype(np.float32), noisy, None)
    method = self_learning(K, refresh_after=corrections(2), prototypes=2, members=64)
    one, eight = (
        trainer_for(split, method, devices).fit(split, jax.random.key(0), 3).state.memory for devices in (1, 8)
    )
    np.testing.assert_array_equal(eight.corrected, one.corrected)
    np.testing.assert_array_equal(eight.first, one.first)
    np.testing.assert_allclose(eight.scores, one.scores, rtol=1e-3, atol=1e-4)
    assert (np.asarray(one.corrected[:N]) == true).mean() > (noisy == true).mean() + 0.1
    np.testing.assert_array_equal(one.corrected[N:], -1)


def test_every_pass_is_left_between_batches_where_a_stop_was_asked_for(split, trainer_for):
    trainer = trainer_for(split, CORRECTING)
    state = trainer.init(jax.random.key(0), split)
    passes = (
        lambda: trainer.posterior(state, split),
        lambda: trainer.scores(state, split),
        lambda: trainer.features(state, split),
        lambda: trainer._passes.refresh(state, split, 1),
    )
    for work in passes:
        with polled(lambda: True), pytest.raises(Interrupted):
            work()
        with polled(lambda: False):
            work()
