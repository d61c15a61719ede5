"""A run whose parameters and data are split over eight devices leaves what one leaves whose are not."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from nlx.arguments import ArgumentError
from nlx.cleaning.label_files import read_labels
from nlx.data import Dataset, ImageFiles, Split
from nlx.experiment.defaults import training_for
from nlx.experiment.main import main
from nlx.experiment.options import RecipeOptions
from nlx.experiment.saved import load_run
from nlx.experiment.weights import refuse_idle_layout
from nlx.losses import cross_entropy
from nlx.methods.plain import plain
from nlx.models import build
from nlx.training.mesh import make_mesh
from nlx.training.trainer import Trainer
from recipes import noise_layer
from tests.processes import assert_well, outcome, two

SPLIT = ("--shard_params", "--spread_data", "--model_devices=2")
K = 4


@pytest.fixture(scope="module")
def four_classes(tmp_path_factory):
    """Four clusters, a quarter of the labels wrong."""
    rng = np.random.default_rng(0)
    centres, label = rng.normal(0, 3, (K, 6)), rng.integers(0, K, 300)
    features = (centres[label] + rng.normal(size=(300, 6))).astype(np.float32)
    noisy = np.where(rng.uniform(size=300) < 0.25, rng.integers(0, K, 300), label)
    path = tmp_path_factory.mktemp("layout") / "four.npz"
    arrays = {"features": features, "noisy_web": noisy, "label": label}
    np.savez(path, **arrays, test_features=features[:60], test_label=label[:60], class_names=np.array(list("abcd")))
    return path


def run(path, folder, *more):
    """The noise layer behind a network with a kernel of 4 MiB, on all eight devices."""
    options = (f"--dataset=npz:{path}", "--labels=web", f"--run_dir={folder}", "--model=mlp", "--widths=1024", "1024")
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return main(noise_layer.NoiseLayerOptions, noise_layer.train, [*options, "--batch_size=32", *more])


@pytest.mark.slow
def test_products_are_those_of_a_run_on_whole_parameters(four_classes, tmp_path, monkeypatch, capsys):
    trainers, init = [], Trainer.__init__

    def noted(self, *args, **options):
        init(self, *args, **options)
        trainers.append(self)

    monkeypatch.setattr(Trainer, "__init__", noted)
    assert run(four_classes, tmp_path / "whole", "--epochs=3") == 0
    assert run(four_classes, tmp_path / "split", "--epochs=3", *SPLIT) == 0
    (split,) = (trainer for trainer in trainers if trainer.shard_params)
    assert (split.mesh.shape, split.spread_data) == ({"data": 4, "model": 2}, True)
    whole, other = (read_labels(tmp_path / name / "labels.parquet") for name in ("whole", "split"))
    np.testing.assert_array_equal(other.cleaned_label, whole.cleaned_label)
    np.testing.assert_allclose(other.posterior, whole.posterior, rtol=1e-3, atol=1e-4)
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "split").iterdir()} == names
    inputs = np.load(four_classes)["test_features"]
    saved = [load_run(tmp_path / name).predict(inputs) for name in ("whole", "split")]
    np.testing.assert_allclose(*saved, rtol=1e-3, atol=1e-4)
    # What was left by one goes on as the other.
    assert run(four_classes, tmp_path / "split", "--epochs=3", "--resume") == 0
    assert json.loads((tmp_path / "split" / "config.json").read_text())["options"]["shard_params"] is False


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(four_classes, tmp_path):
    """Kernels lie half on each, the transition matrix twice; the first one writes what both hold."""

    def arguments(address, i):
        return four_classes, tmp_path / "two", "--epochs=2", *SPLIT, f"--distributed={address},{i},2"

    with two(__file__, arguments) as processes:
        assert run(four_classes, tmp_path / "one", "--epochs=2") == 0
        assert_well(outcome(processes))
    one, other = (read_labels(tmp_path / name / "labels.parquet") for name in ("one", "two"))
    np.testing.assert_array_equal(other.cleaned_label, one.cleaned_label)
    np.testing.assert_allclose(other.posterior, one.posterior, rtol=1e-3, atol=1e-4)
    weights = [load_run(tmp_path / name).weights for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_plan_counts_what_each_device_has(four_classes, tmp_path, capsys):
    said = []
    for more in ((), SPLIT):
        assert run(four_classes, tmp_path / "none", "--plan=cpu:8", *more) == 0
        said.append(capsys.readouterr().err)
    weights = 4 * (7 * 1024 + 1025 * 1024 + 1025 * K + K * K)
    assert f"weights {weights / 2**20:,.1f}" in said[0]
    split = weights - 4 * (1024 * 1024 * 3 // 4 + 1025 * K // 2 + K * K // 2)
    assert f"weights {split / 2**20:,.1f}" in said[1]
    disk = [line for text in said for line in text.splitlines() if line.startswith("on disk")]
    assert disk[0] == disk[1]


def test_layouts_that_do_nothing_are_told():
    split = Split(np.zeros((16, 6), np.float32), np.zeros(16, np.int32), None)

    def told(devices, widths, **wanted):
        model, mesh = build("mlp", (6,), K, widths=widths), make_mesh(jax.devices()[:devices])
        trainer = Trainer(model, plain(cross_entropy), optax.sgd(0.1), batch_size=8, mesh=mesh)
        refuse_idle_layout(replace(RecipeOptions(), **wanted), trainer, split)

    for option in ("shard_params", "spread_data"):
        with pytest.raises(ArgumentError, match=f"`{option}` does nothing on one device"):
            told(1, (8,), **{option: True})
    with pytest.raises(ArgumentError, match="`shard_params` does nothing where no array of weights has 4 MiB"):
        told(8, (8,), shard_params=True)
    told(8, (1024, 1024), shard_params=True)
    told(8, (8,), spread_data=True)
    told(1, (8,))
    files = Split(ImageFiles(("a.png",) * 64, 8), np.arange(64, dtype=np.int32) % 3, None)
    pictures = Dataset("pictures", tuple("abc"), files, None)
    with pytest.raises(ArgumentError, match="`spread_data` does nothing for pictures that stay on disk"):
        training_for(replace(RecipeOptions(), spread_data=True), pictures)
    with pytest.raises(ArgumentError, match="`model_devices`=2 does not divide the 3 classes of pictures"):
        training_for(replace(RecipeOptions(), model_devices=2), pictures)


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
