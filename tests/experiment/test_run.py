"""What a run trains on, when, and what it is scored by: each option of the data, and each part of a recipe."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.cleaning.table import read_labels
from nlx.data import DataError, Dataset, Split
from nlx.experiment.options import RunConfig
from nlx.experiment.recipe import Recipe
from nlx.experiment.run import run
from nlx.methods.method import Aux, Method, only
from nlx.training.loop import Diverged
from nlx.training.stages import Stage

N, K = 60, 3
RNG = np.random.default_rng(0)
TRUE = RNG.integers(0, K, N).astype(np.int32)
TRAIN = Split(RNG.normal(size=(N, 4)).astype(np.float32), (TRUE + (np.arange(N) % 4 == 0)) % K, TRUE)
TEST = Split(RNG.normal(size=(20, 4)).astype(np.float32), None, RNG.integers(0, K, 20).astype(np.int32))
DATA = Dataset("mine", ("ant", "bee", "cat"), TRAIN, TEST)
OUTLIERS = replace(DATA, train=replace(TRAIN, outlier=np.arange(N) < 20))
WORDS = Dataset(
    "words",
    ("ant", "bee"),
    Split(TRAIN.inputs, RNG.integers(0, 2, (N, 3), dtype=np.uint8), RNG.integers(0, 2, (N, 2), dtype=np.uint8)),
    None,
    ("bee", "sting", "honey"),
)
CONFIG = RunConfig(epochs=2, batch_size=8, widths=(8,))


class Told(Exception):
    """Ends a run when its method would be made, with what it would be made from."""


def told(config, dataset, **recipe):
    """Configuration, data set and course that a recipe's method is made from."""

    def tell(*given):
        raise Told(*given)

    with pytest.raises(Told) as found:
        run(config, Recipe(tell, **recipe), dataset=dataset)
    return found.value.args


def test_a_method_is_made_for_the_data_as_they_are_and_all_of_them_in_every_epoch(tmp_path):
    config, dataset, course = told(replace(CONFIG, run_dir=tmp_path / "run"), DATA)
    assert dataset is DATA
    assert config.model == "mlp"  # what depends on the data is filled in
    assert (course.epochs, course.total, course.longest) == (2, 2 * (N // 8), N)
    assert not (tmp_path / "run").exists()


def test_a_share_of_the_training_set_is_part_of_a_larger_share():
    kept = [told(replace(CONFIG, training_fraction=share), DATA)[1].train.inputs for share in (0.2, 0.5)]
    assert [len(rows) for rows in kept] == [12, 30]
    assert {row.tobytes() for row in kept[0]} < {row.tobytes() for row in kept[1]}
    course = told(replace(CONFIG, training_fraction=0.5), DATA)[2]
    assert course.longest == 30


def test_a_share_of_the_true_labels_is_trusted_and_another_noise_seed_trusts_others():
    train = told(replace(CONFIG, clean_fraction=0.2), DATA)[1].train
    assert train.trusted.sum() == 12
    np.testing.assert_array_equal(train.trusted_label[train.trusted], TRUE[train.trusted])
    np.testing.assert_array_equal(train.trusted_label[~train.trusted], -1)
    other = told(replace(CONFIG, clean_fraction=0.2, noise_seed=1), DATA)[1].train
    assert (other.trusted != train.trusted).any()
    same = told(replace(CONFIG, clean_fraction=0.2, seed=1), DATA)[1].train
    np.testing.assert_array_equal(same.trusted, train.trusted)
    with pytest.raises(DataError, match="no true training labels to trust"):
        told(replace(CONFIG, clean_fraction=0.2), replace(DATA, train=replace(TRAIN, label=None)))


def test_a_share_of_the_outliers_is_known_on_top_of_trusted_labels():
    train = told(replace(CONFIG, known_outliers=0.25, clean_fraction=0.1), OUTLIERS)[1].train
    trusted = told(replace(CONFIG, clean_fraction=0.1), OUTLIERS)[1].train.trusted
    assert (train.trusted & ~trusted).sum() <= 5 <= (train.trusted & train.outlier).sum()
    np.testing.assert_array_equal(train.trusted & ~train.outlier, trusted & ~train.outlier)
    np.testing.assert_array_equal(train.trusted_label == -2, train.trusted & train.outlier)
    with pytest.raises(DataError, match="no known outliers"):
        told(replace(CONFIG, known_outliers=0.25), DATA)


def test_held_out_examples_are_not_trained_on():
    dataset, course = told(replace(CONFIG, validation_fraction=0.2), DATA)[1:]
    assert len(dataset.train) == course.longest == 48


def test_a_recipe_has_the_last_word_on_its_data():
    def data(config, dataset):
        assert dataset.train.trusted.sum() == 12
        return dataset.trust(1.0, config.seed)

    assert told(replace(CONFIG, clean_fraction=0.2), DATA, data=data)[1].train.trusted.all()


def test_words_are_translated_into_classes_unless_a_recipe_asks_for_them():
    translated = told(CONFIG, WORDS)[1]
    assert translated.noisy_names is None
    np.testing.assert_array_equal(translated.train.noisy_label[:, 0], 0)  # there is no word for ants
    np.testing.assert_array_equal(translated.train.noisy_label[:, 1], WORDS.train.noisy_label[:, 0])
    assert told(CONFIG, WORDS, two_vocabularies=True)[1] is WORDS


def witness() -> Method:
    """A method that notes in its memory which examples it has met and what it was told of them."""

    def init(key, batch, size):
        return {"weight": jnp.zeros(())}, {"seen": jnp.zeros(size), "told": jnp.full(size, -9)}

    def loss(params, memory, outputs, batch, key, step):
        notes = {"seen": memory["seen"] + 1, "told": batch["trusted_label"]}
        return jnp.sum(outputs["logits"] ** 2, axis=-1) + params["weight"], Aux({}, notes)

    return Method(
        "witness",
        init,
        loss,
        lambda params, memory, outputs, batch: only("classifier", jax.nn.softmax(outputs["logits"]), memory),
        # Whatever the classifier says, everything is a bee.
        predict=lambda params, outputs: jax.nn.one_hot(jnp.ones(len(outputs["logits"]), jnp.int32), K),
        facts={"planned": 7},
    )


def test_stages_trusted_labels_and_predictions_reach_the_training_and_the_scores(tmp_path):
    """Two stages over parts of the data: every visit is counted, and test examples are scored by ``predict``."""
    whole = np.arange(40)

    def stages(config, dataset):
        first = Stage("few", np.flatnonzero(dataset.train.trusted)[:8], 3)
        return [first, Stage("many", whole, config.epochs)]

    config = replace(CONFIG, clean_fraction=0.25, validation_fraction=0.1, run_dir=tmp_path, widths=(4,))
    pictures = []
    recipe = Recipe(lambda config, dataset, course: witness(), lambda cleaned: pictures.append(cleaned) or [], stages)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules need it
        summary = run(config, recipe, dataset=DATA)

    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == 3 * ["few"] + 2 * ["many"]
    assert [row["step"] for row in rows] == [1, 2, 3, 8, 13]
    assert all(row["test_accuracy"] == pytest.approx(np.mean(TEST.label == 1)) for row in rows)
    dataset = pictures[0].dataset
    assert len(dataset.train) == 54
    assert summary["last"]["validation_score"] == pytest.approx(np.mean(held_out(dataset).noisy_label == 1))

    table = read_labels(tmp_path / "labels.parquet")
    seen = np.zeros(54)
    seen[whole] += 2
    seen[np.flatnonzero(dataset.train.trusted)[:8]] += 3
    np.testing.assert_array_equal(table.extras["seen"], seen)
    np.testing.assert_array_equal(table.extras["told"][seen > 0], dataset.train.trusted_label[seen > 0])
    assert (table.extras["told"][seen > 0] >= 0).sum() > 5
    assert json.loads((tmp_path / "config.json").read_text())["planned"] == 7


def held_out(dataset):
    """The training examples that are not among those of a run."""
    there = {row.tobytes() for row in dataset.train.inputs}
    return TRAIN.take(np.array([i for i, row in enumerate(TRAIN.inputs) if row.tobytes() not in there]))


def test_weights_that_the_last_update_threw_over_are_told_as_divergence(tmp_path):
    """The last loss is finite and what comes after it is not."""

    def loss(params, memory, outputs, batch, key, step):
        score = jax.nn.logsumexp(outputs["logits"], axis=-1)
        steep = jnp.where(step < 13, 0.0, 1e38) * (score - jax.lax.stop_gradient(score))  # 0, but for its gradient
        return 1e-3 * score + steep, Aux({})

    def posterior(params, memory, outputs, batch):
        return only("classifier", jax.nn.softmax(outputs["logits"]))

    method = Method("thrown", lambda key, batch, size: ({}, {}), loss, posterior)
    config = replace(CONFIG, run_dir=tmp_path, learning_rate=1e3, evaluate_every=9)
    with (
        jax.numpy_dtype_promotion("standard"),
        pytest.raises(Diverged, match="the posterior is not finite after step 14"),
    ):
        run(config, Recipe(lambda config, dataset, course: method), dataset=DATA)
