"""Passes over data: the formulas applied to everything at once, for any length and any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.data import Split
from nlx.data.prepare import normalization, preparer, six_views
from nlx.methods.method import Posterior
from nlx.methods.plain import plain
from nlx.models import build
from nlx.training.evaluate import Evaluator
from nlx.training.feed import in_order
from nlx.training.state import TrainState, make_mesh

N, K = 100, 3


@pytest.fixture(scope="module")
def trained(split, remembering, new_run):
    """Runs on one and on eight devices, with the same parameters, a few steps in."""
    one, eight = new_run(split, remembering), new_run(split, remembering, 8)
    state = one.feed.advance(one.state, 0, 4)
    placed = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), state, eight.state)
    return {1: one._replace(state=state), 8: eight._replace(state=placed)}


def at_once(run, split, method):
    """The posterior of all examples, eagerly in one batch."""
    x = run.prepare(jnp.asarray(split.inputs), None)
    outputs, _ = run.model.apply(run.state.params["model"], run.state.stats, x, False, None)
    batch = {"features": x, "noisy_label": jnp.asarray(split.noisy_label), "index": jnp.arange(len(split))}
    return method.posterior(run.state.params["method"], run.state.memory, outputs, batch), outputs["logits"]


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("batch_size", [8, 64, 104])  # 4 rows in the last batch, 36, and one batch that is too large
def test_posteriors_and_scores_are_those_of_all_examples_at_once(trained, split, remembering, devices, batch_size):
    run = trained[devices]
    expected, logits = at_once(trained[1], split, remembering)
    posterior = run.evaluator.posterior(run.state, in_order(split, batch_size, run.mesh))
    assert set(posterior.candidates) == set(posterior.cost) == {"additive", "bayes"}
    assert set(posterior.extras) == {"classifier", "quality_mean"}
    for a, b in zip(jax.tree.leaves(posterior), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, np.ndarray)
        assert len(a) == N
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    scores = run.evaluator.scores(run.state, in_order(split, batch_size, run.mesh))
    assert isinstance(scores, np.ndarray)
    np.testing.assert_allclose(scores, logits, rtol=1e-4, atol=1e-5)


def test_a_posterior_sees_the_rows_of_memory_of_its_examples(split, remembering, trained):
    """Whatever the order of the batches."""

    def posterior(params, memory, outputs, batch):
        given = jax.nn.one_hot(batch["noisy_label"], K)
        return Posterior({"given": given}, {"given": memory["seen"]}, {"index": batch["index"]})

    for run in trained.values():
        evaluator = Evaluator(run.model, remembering._replace(posterior=posterior), run.prepare, run.mesh)
        batches = list(in_order(split, 16, run.mesh))
        found = evaluator.posterior(run.state, [batches[2], batches[6], batches[0]])
        rows = [*range(32, 48), *range(96, 100), *range(16)]
        np.testing.assert_array_equal(found.extras["index"], rows)
        np.testing.assert_array_equal(found.cost["given"], np.asarray(run.state.memory["seen"])[rows])
        np.testing.assert_array_equal(found.candidates["given"], np.eye(K)[split.noisy_label[rows]])
        assert 0 < found.cost["given"].sum() < len(rows)


def test_passes_over_data_of_any_length_are_one_trace(split, remembering, trained):
    run = trained[1]
    traces = []

    def prepare(x, key):
        traces.append(key)
        return run.prepare(x, key)

    evaluator = Evaluator(run.model, remembering, prepare, run.mesh)
    for length in (100, 64, 7):
        part = split.take(np.arange(length))
        assert evaluator.scores(run.state, in_order(part, 32, run.mesh)).shape == (length, K)
    assert traces == [None]  # evaluation has no key to augment with
    for length in (100, 64, 7):
        part = split.take(np.arange(length))
        assert len(evaluator.posterior(run.state, in_order(part, 32, run.mesh)).cost["bayes"]) == length
    assert traces == [None, None]


def test_a_test_set_needs_no_noisy_labels(split, trained):
    run = trained[1]
    test = Split(split.inputs, None, split.label)
    np.testing.assert_array_equal(
        run.evaluator.scores(run.state, in_order(test, 32, run.mesh)),
        run.evaluator.scores(run.state, in_order(split, 32, run.mesh)),
    )


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (20, K)).astype(np.uint8)
    split = Split(rng.integers(0, 256, (20, 8, 8, 1), dtype=np.uint8), labels, None)
    model = build("convnet", (6, 6, 1), K, widths=(4, 8), dropout=0.5)
    params, stats = model.init(jax.random.key(0))
    state = TrainState(0, jax.random.key(0), {"model": params, "method": {}}, stats, (), {}, {})
    return split, model, state


@pytest.mark.parametrize("devices", [1, 8])
def test_scores_are_averaged_over_views(images, devices):
    split, model, state = images
    mesh = make_mesh(jax.devices()[:devices])
    evaluator = Evaluator(model, plain(), preparer(*normalization(split.inputs)), mesh, six_views(6))
    scores = evaluator.scores(state, in_order(split, 16, mesh))

    x = preparer(*normalization(split.inputs))(jnp.asarray(split.inputs), None)
    corners = [x[:, i : i + 6, j : j + 6] for i in (0, 2) for j in (0, 2)]
    views = [*corners, x[:, 1:7, 1:7], x[:, 1:7, 1:7][:, :, ::-1]]
    logits = [model.apply(state.params["model"], state.stats, v, False, None)[0]["logits"] for v in views]
    np.testing.assert_allclose(scores, np.mean(logits, axis=0), rtol=1e-4, atol=1e-5)
    assert np.abs(scores - logits[4]).max() > 1e-3


def test_label_vectors_reach_the_posterior_as_float32(images):
    split, model, state = images
    mesh = make_mesh(jax.devices()[:1])

    def posterior(params, memory, outputs, batch):
        assert batch["noisy_label"].dtype == jnp.float32
        assert batch["image"].shape[1:] == (6, 6, 1)
        return Posterior({"given": batch["noisy_label"]}, {"given": outputs["logits"][:, 0]}, {})

    prepare = preparer(*normalization(split.inputs), augmentation="crop-flip", size=6)
    evaluator = Evaluator(model, plain()._replace(posterior=posterior), prepare, mesh)
    found = evaluator.posterior(state, in_order(split, 16, mesh))
    np.testing.assert_array_equal(found.candidates["given"], split.noisy_label)
    # The centre is evaluated, without augmentation, dropout or batch statistics of the batch.
    again = evaluator.posterior(state, in_order(split, 8, mesh))
    np.testing.assert_allclose(found.cost["given"], again.cost["given"], rtol=1e-5, atol=1e-6)
