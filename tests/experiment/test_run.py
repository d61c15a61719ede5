"""What a run trains on, when, what it is scored by and what it leaves; one seed or several, stopped or not."""

import json
import os
import signal
import threading
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx import Stage, Trainer
from nlx.arguments import ArgumentError
from nlx.cleaning.label_files import read_labels
from nlx.data import DataError, Dataset, Split
from nlx.experiment import run as run_module
from nlx.experiment.defaults import build_model, build_optimizer
from nlx.experiment.main import run_recipe
from nlx.experiment.options import RecipeOptions
from nlx.experiment.run import Run
from nlx.experiment.signals import Stopped
from nlx.methods.method import Column, Method, single_posterior
from nlx.training.loop import Diverged

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
OPTIONS = RecipeOptions(epochs=2, batch_size=8, widths=(8,))


def loaded(data, **options):
    """The data set that a recipe gets."""
    return Run(replace(OPTIONS, **options), data=data).load()[0]


def test_data_are_as_they_are_and_what_depends_on_them_is_filled_in(tmp_path):
    run = Run(replace(OPTIONS, run_dir=tmp_path / "run"), data=DATA)
    data, training = run.load()
    assert data is DATA
    assert (training.model, training.epochs, training.batch_size, training.schedule) == ("mlp", 2, 8, "cosine")
    assert not (tmp_path / "run").exists()


def test_a_share_of_the_training_set_is_part_of_a_larger_share():
    kept = [loaded(DATA, training_fraction=share).train.inputs for share in (0.2, 0.5)]
    assert [len(rows) for rows in kept] == [12, 30]
    assert {row.tobytes() for row in kept[0]} < {row.tobytes() for row in kept[1]}


def test_a_share_of_the_true_labels_is_trusted_and_another_noise_seed_trusts_others():
    train = loaded(DATA, clean_fraction=0.2).train
    assert train.trusted.sum() == 12
    np.testing.assert_array_equal(train.trusted_label[train.trusted], TRUE[train.trusted])
    np.testing.assert_array_equal(train.trusted_label[~train.trusted], -1)
    other = loaded(DATA, clean_fraction=0.2, noise_seed=1).train
    assert (other.trusted != train.trusted).any()
    same = loaded(DATA, clean_fraction=0.2, seed=1).train
    np.testing.assert_array_equal(same.trusted, train.trusted)
    with pytest.raises(DataError, match="no true training labels to trust"):
        loaded(replace(DATA, train=replace(TRAIN, label=None)), clean_fraction=0.2)


def test_a_share_of_the_outliers_is_known_on_top_of_trusted_labels():
    train = loaded(OUTLIERS, known_outliers=0.25, clean_fraction=0.1).train
    trusted = loaded(OUTLIERS, clean_fraction=0.1).train.trusted
    assert (train.trusted & ~trusted).sum() <= 5 <= (train.trusted & train.outlier).sum()
    np.testing.assert_array_equal(train.trusted & ~train.outlier, trusted & ~train.outlier)
    np.testing.assert_array_equal(train.trusted_label == -2, train.trusted & train.outlier)
    with pytest.raises(DataError, match="no known outliers"):
        loaded(DATA, known_outliers=0.25)


def test_held_out_examples_are_not_trained_on():
    data = loaded(DATA, validation_fraction=0.2)
    assert (len(data.train), len(data.validation)) == (48, 12)
    rows = {row.tobytes() for split in (data.train, data.validation) for row in split.inputs}
    assert rows == {row.tobytes() for row in TRAIN.inputs}


def test_words_are_translated_into_classes_unless_a_recipe_asks_for_them():
    translated = loaded(WORDS)
    assert translated.noisy_names is None
    np.testing.assert_array_equal(translated.train.noisy_label[:, 0], 0)  # there is no word for ants
    np.testing.assert_array_equal(translated.train.noisy_label[:, 1], WORDS.train.noisy_label[:, 0])
    assert Run(OPTIONS, data=WORDS).load(two_vocabularies=True)[0] is WORDS


def test_a_table_says_which_words_speak_of_a_class(tmp_path):
    table, word = tmp_path / "words.csv", WORDS.noisy_names[1]
    table.write_text(
        f"Class,word\n{WORDS.class_names[0]}, {word}\n\n{WORDS.class_names[0]},other\n", encoding="utf-8-sig"
    )
    given = loaded(WORDS, words=table).train.noisy_label
    np.testing.assert_array_equal(given[:, 0], WORDS.train.noisy_label[:, 1])
    np.testing.assert_array_equal(given[:, 1], WORDS.train.noisy_label[:, 0])
    run = Run(replace(OPTIONS, words=table), data=WORDS)
    run.load()
    assert run.source.notes == (f"{table}: 1 words are not in the vocabulary, line 4 ('other') first",)
    table.write_text(f"class,word\nant,{word}\nbee,hives\n")
    run = Run(replace(OPTIONS, words=table), data=WORDS)
    run.load()
    assert run.source.notes[0].endswith("line 3 ('hives') first; bee can never be said")
    with pytest.raises(DataError, match="`words` does nothing for"):
        loaded(DATA, words=table)
    for text, told in [
        ("class,word\nbee,hives\n", "no word of it is in the vocabulary of"),
        ("dog,puppy\n", "the first line must be class,word"),
        ("class,word\nbee,hive\nwolf,howl\n", "line 3: 'wolf' is no class; they are ant, bee"),
        ("class,word\nbee\n", "line 2: write a class and one word"),
    ]:
        table.write_text(text)
        with pytest.raises(DataError, match=told):
            loaded(WORDS, words=table)
    with pytest.raises(DataError, match="cannot be read as a table of words"):
        loaded(WORDS, words=tmp_path / "none.csv")


def recipe(method, *, stages=None, pictures=(), observers=lambda options: (), **settled):
    """A recipe of a test's own method, stages and observers."""

    def train(options, run):
        data, training = run.load()
        trainer = Trainer(
            build_model(options, training, data),
            method,
            build_optimizer(options, training),
            batch_size=training.batch_size,
            observers=[*observers(options), *run.observers(method, data, **settled)],
        )
        visited = training.epochs if stages is None else stages(data)
        key, state = jax.random.key(options.seed), run.restored(trainer, data, visited)
        return run.export(
            trainer, trainer.fit(data.train, key, visited, state=state), data, pictures=pictures, facts={"planned": 7}
        )

    return train


class Notes(NamedTuple):
    """How often each example was met, and what was told of it."""

    seen: jax.Array
    told: jax.Array


def witness():
    """A method that notes in its memory which examples it has met and what it was told of them."""

    def loss(key, params, rows, outputs, batch, step):
        notes = Notes(rows.seen + 1, batch.get("trusted_label", rows.told))
        return jnp.sum(outputs["logits"] ** 2, axis=-1) + params["weight"], notes, {}

    def posterior(params, rows, outputs, batch):
        columns = {"seen": Column(rows.seen), "told": Column(rows.told)}
        return single_posterior("classifier", jax.nn.softmax(outputs["logits"]), columns)

    return Method(
        "witness",
        loss,
        posterior,
        init=lambda key, outputs, k, size: ({"weight": jnp.zeros(())}, Notes(jnp.zeros(size), jnp.full(size, -9))),
        # Whatever the classifier says, everything is a bee.
        predict=lambda params, outputs: jax.nn.one_hot(jnp.ones(len(outputs["logits"]), jnp.int32), K),
    )


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_stages_trusted_labels_and_predictions_reach_the_training_and_the_scores(tmp_path):
    """Two stages over parts of the data: every visit is counted, and test examples are scored by ``predict``."""
    whole = np.arange(40)
    pictured = []

    def stages(data):
        return [Stage(3, "few", np.flatnonzero(data.train.trusted)[:8]), Stage(2, "many", whole)]

    options = replace(OPTIONS, clean_fraction=0.25, validation_fraction=0.1, run_dir=tmp_path, widths=(4,))
    pictures = [lambda folder, table, data: pictured.append((folder, table, data)) or []]
    summary = run_recipe(options, recipe(witness(), stages=stages, pictures=pictures, strength=3), data=DATA)

    rows = lines(tmp_path / "metrics.jsonl")
    assert [row["stage"] for row in rows] == 3 * ["few"] + 2 * ["many"]
    assert [row["step"] for row in rows] == [1, 2, 3, 8, 13]
    assert all(row["test_accuracy"] == pytest.approx(np.mean(TEST.label == 1)) for row in rows)
    ((folder, table, data),) = pictured
    assert folder == tmp_path
    assert len(data.train) == 54
    assert summary["last"]["validation_score"] == pytest.approx(np.mean(data.validation.noisy_label == 1))
    assert summary["planned"] == 7

    stored = read_labels(tmp_path / "labels.parquet")
    seen = np.zeros(54)
    seen[whole] += 2
    seen[np.flatnonzero(data.train.trusted)[:8]] += 3
    np.testing.assert_array_equal(stored.extras["seen"], seen)
    np.testing.assert_array_equal(stored.extras["told"][seen > 0], data.train.trusted_label[seen > 0])
    assert (stored.extras["told"][seen > 0] >= 0).sum() > 5
    np.testing.assert_array_equal(stored.posterior, table.posterior)
    options = json.loads((tmp_path / "config.json").read_text())["options"]
    assert (options["strength"], options["model"], options["clean_fraction"]) == (3, "mlp", 0.25)


@pytest.mark.slow
def test_several_seeds_stopped_and_resumed_are_one_run_on_data_that_are_loaded_once(tmp_path, monkeypatch):
    loads, stops = [], [1]

    def load(name, **options):
        loads.append(name)
        return DATA

    def stop_once(options):
        def told(row):
            if options.seed == 1 and row["epoch"] == 1 and stops:
                os.kill(os.getpid(), stops.pop() and signal.SIGTERM)

        return [told]

    monkeypatch.setattr(run_module, "load", load)
    options = replace(OPTIONS, dataset="digits", seeds=2, evaluate_every=2)
    cut, whole = (replace(options, run_dir=tmp_path / name) for name in ("cut", "whole"))
    train = recipe(witness(), observers=stop_once)
    with pytest.raises(Stopped, match="after step 7"):
        run_recipe(cut, train)
    assert loads == ["digits"]
    assert not (tmp_path / "cut" / "summary.json").exists()
    with pytest.raises(ArgumentError, match="cut exists: go on with it by `resume`"):
        run_recipe(cut, train)
    with pytest.raises(ArgumentError, match="started with `seeds`=2, not 1"):
        run_recipe(replace(cut, seeds=1, resume=True), train)
    summary = run_recipe(replace(cut, resume=True), train)
    uninterrupted = run_recipe(whole, train)

    assert summary["seeds"] == [0, 1]
    assert summary == json.loads((tmp_path / "cut" / "summary.json").read_text())
    for name, value in summary["last"].items():
        assert name in ("seconds", "examples_per_second") or value == uninterrupted["last"][name]
    assert summary["last"]["train_loss"]["std"] > 0
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert (config["options"]["seeds"], config["options"]["model"], config["method"]) == (2, "mlp", "witness")
    one = json.loads((tmp_path / "whole" / "seed-1" / "config.json").read_text())
    assert (one["options"]["seeds"], one["options"]["seed"]) == (1, 1)
    assert sorted(p.name for p in (tmp_path / "whole").iterdir()) == ["config.json", "seed-0", "seed-1", "summary.json"]


def test_a_run_in_a_thread_is_like_any_other(tmp_path):
    before, results = signal.getsignal(signal.SIGTERM), []
    options = replace(OPTIONS, run_dir=tmp_path, epochs=1)

    def work():
        results.append(signal.getsignal(signal.SIGTERM))
        results.append(run_recipe(options, recipe(witness()), data=DATA))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results[0] is before is signal.getsignal(signal.SIGTERM)
    assert results[1] == json.loads((tmp_path / "summary.json").read_text())


def test_weights_that_are_not_finite_after_the_last_update_are_told_as_divergence(tmp_path):
    """The last loss is finite and what comes after it is not."""

    def loss(key, params, rows, outputs, batch, step):
        score = jax.nn.logsumexp(outputs["logits"], axis=-1)
        steep = jnp.where(step < 13, 0.0, 1e38) * (score - jax.lax.stop_gradient(score))  # 0, but for its gradient
        return 1e-3 * score + steep, rows, {}

    options = replace(OPTIONS, run_dir=tmp_path, learning_rate=1e3, evaluate_every=9)
    with pytest.raises(Diverged, match="the posterior is not finite after step 14"):
        run_recipe(options, recipe(Method("steep", loss)), data=DATA)
