"""A run whose parameters and data are split over eight devices leaves what one leaves whose are not."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from nlx.arguments import ArgumentError
from nlx.cleaning.label_files import read_labels
from nlx.data import Dataset, ImageFiles, Split
from nlx.experiment.defaults import training_for
from nlx.experiment.main import main
from nlx.experiment.options import RecipeOptions
from nlx.experiment.saved import load_run
from nlx.training.trainer import Trainer
from recipes import noise_layer
from tests.compiling import QUICK
from tests.test_two_processes import ROOT, TIMEOUT, free_port

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
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": QUICK, "JAX_NUM_CPU_DEVICES": "2"}
    command = [sys.executable, __file__, str(four_classes), str(tmp_path / "two"), "--epochs=2", *SPLIT]
    processes = [
        subprocess.Popen(
            [*command, f"--distributed=localhost:{port},{i},2"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        assert run(four_classes, tmp_path / "one", "--epochs=2") == 0
        said = [process.communicate(timeout=TIMEOUT) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0, 0], "\n\n".join(err[-3000:] for _, err in said)
    one, two = (read_labels(tmp_path / name / "labels.parquet") for name in ("one", "two"))
    np.testing.assert_array_equal(two.cleaned_label, one.cleaned_label)
    np.testing.assert_allclose(two.posterior, one.posterior, rtol=1e-3, atol=1e-4)
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
    files = Split(ImageFiles(("a.png",) * 64, 8), np.arange(64, dtype=np.int32) % 3, None)
    pictures = Dataset("pictures", tuple("abc"), files, None)
    with pytest.raises(ArgumentError, match="`spread_data` does nothing for pictures that stay on disk"):
        training_for(replace(RecipeOptions(), spread_data=True), pictures)
    with pytest.raises(ArgumentError, match="`model_devices`=2 does not divide the 3 classes of pictures"):
        training_for(replace(RecipeOptions(), model_devices=2), pictures)


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
