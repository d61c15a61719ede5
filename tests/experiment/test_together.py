"""Seeds that train in one program do what each of them does alone."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.data import Dataset, ImageFiles, Split
from nlx.experiment.options import ConfigError
from nlx.experiment.recipe import Recipe
from nlx.experiment.run import run
from nlx.experiment.together import run_together
from nlx.methods.plain import plain
from nlx.training.loop import Diverged
from recipes import baseline, noise_types, self_learning

N, K = 96, 3
RNG = np.random.default_rng(0)
TRUE = RNG.integers(0, K, N).astype(np.int32)
INPUTS = (np.eye(K)[TRUE] + 0.5 * RNG.normal(size=(N, K))).astype(np.float32)
TRAIN = Split(INPUTS[:64], np.where(np.arange(64) % 4, TRUE[:64], (TRUE[:64] + 1) % K), TRUE[:64])
DATA = Dataset("mine", ("ant", "bee", "cat"), TRAIN, Split(INPUTS[64:], None, TRUE[64:]))
OPTIONS = {"epochs": 3, "batch_size": 8, "widths": (8,), "evaluate_every": 2, "validation_fraction": 0.1, "seed": 3}
STAGES = {"pretrain_epochs": 1, "types_epochs": 1, "fresh_heads": True, "clean_fraction": 0.4}
CASES = {
    "plain": (baseline.BaselineConfig(**OPTIONS), baseline.RECIPE),
    "features between epochs": (
        self_learning.SelfLearningConfig(start_epoch=1, members=16, prototypes=2, **OPTIONS),
        self_learning.RECIPE,
    ),
    "stages and fresh heads": (noise_types.NoiseTypesConfig(**STAGES, **OPTIONS), noise_types.RECIPE),
}


@pytest.mark.parametrize("case", CASES)
def test_every_seed_ends_where_it_ends_alone(case, tmp_path):
    config, recipe = CASES[case]
    recipe = replace(recipe, products=None, features=None)
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules need it
        together = run_together(config, recipe, (3, 4), dataset=DATA)
        run(replace(config, seeds=2, run_dir=tmp_path), recipe, dataset=DATA)
    for seed, found in zip((3, 4), together, strict=True):
        alone = json.loads((tmp_path / f"seed-{seed}" / "summary.json").read_text())
        for part in ("last", "best"):
            assert found[part].keys() == alone[part].keys() - {"examples_per_second", "stage"}
        for name, value in found["last"].items():
            if name != "seconds":
                assert value == pytest.approx(alone["last"][name], abs=2e-3), name
        assert found["cleaned_with"] == alone["cleaned_with"]
        assert found["given_label_recovery"] == pytest.approx(alone["given_label_recovery"])
    assert together[0]["last"]["train_loss"] != together[1]["last"]["train_loss"]


def test_a_seed_that_diverges_is_named():
    def loss(params, memory, outputs, batch, key, step):
        losses, aux = method.loss(params, memory, outputs, batch, key, step)
        return jnp.where(jnp.sum(outputs["logits"]) < jnp.inf, jnp.nan, losses), aux

    method = plain("cross_entropy")
    recipe = Recipe(lambda config, dataset, course: method._replace(loss=loss))
    config = baseline.BaselineConfig(**OPTIONS)
    with jax.numpy_dtype_promotion("standard"), pytest.raises(Diverged, match="seed 7: the loss is not finite"):
        run_together(config, recipe, (7,), dataset=DATA)


def test_images_on_disk_are_refused(tmp_path):
    files = ImageFiles(tuple(str(tmp_path / f"{i}.png") for i in range(64)), 4)
    dataset = replace(DATA, train=replace(TRAIN, inputs=files), test=None)
    config = baseline.BaselineConfig(model="mlp", **{**OPTIONS, "validation_fraction": 0.0})
    with pytest.raises(ConfigError, match="from memory only"):
        run_together(config, baseline.RECIPE, (0,), dataset=dataset)
