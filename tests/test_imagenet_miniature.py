"""The miniature of ImageNet: its files are read, its weights are taken, and its table is made at a tiny size."""

import sys

import jax
import numpy as np
import pytest

from benchmarks import imagenet_miniature
from benchmarks.imagenet_miniature import HEAD, Miniature, Options, like
from nlx.data import ImageFiles, load
from nlx.models import build
from nlx.models.pretrained import load_weights
from tests.compiling import QUICK

TINY = Options(classes=3, each=6, side=40, image_size=72)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    made = Miniature(tmp_path_factory.mktemp("imagenet"), TINY)
    made.make()
    return made


def test_files_are_read_and_pictures_tell_their_class(miniature):
    data = load("imagenet", data_dir=miniature.folder / "data", image_size=16, noise="symmetric:0.4")
    assert (len(data.train), len(data.test), data.num_classes, miniature.files) == (18, 9, 3, 18)
    means = np.stack([data.train.inputs[data.train.label == c].mean(0) for c in range(3)])
    distances = ((data.test.inputs[:, None] - means) ** 2).sum((2, 3, 4))
    np.testing.assert_array_equal(distances.argmin(1), data.test.label)
    streamed = load("imagenet", data_dir=miniature.folder / "data", image_size=16, in_memory_gib=0.0)
    assert isinstance(streamed.train.inputs, ImageFiles)


def test_weights_are_those_of_a_whole_network(miniature):
    params, stats = build(TINY.model, (63, 63, 3), 3).init(jax.random.key(0))
    loaded = load_weights(TINY.model, params, stats, miniature.folder / "random.safetensors")
    assert loaded.notes == ("the last layer is drawn anew, for random.safetensors has none of this size",)
    wanted = build(TINY.model, (63, 63, 3), 1000).init(jax.random.key(1))[0]
    for name in set(params) - {"head"}:
        for ours, theirs in zip(jax.tree.leaves(loaded.params[name]), jax.tree.leaves(wanted[name]), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_one_epoch_is_refused(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["imagenet_miniature.py", "--epochs=1"])
    with pytest.raises(SystemExit, match="--epochs=1 must be at least 2"):
        imagenet_miniature.main()


@pytest.mark.slow
def test_a_run_is_killed_and_goes_on_and_eight_devices_agree(miniature, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", QUICK)
    made = Miniature(miniature.folder, Options(classes=3, each=6, side=40, image_size=72, batch_size=8, epochs=12))
    one, eight = (dict(zip(HEAD, made.row("noise_layer", devices), strict=True)) for devices in (1, 8))
    for row in (one, eight):
        assert row["killed, resumed"].startswith("after step ")
        assert row["killed, resumed"].endswith(": as uninterrupted")
    assert eight[HEAD[-1]] == like(made.folder / "noise_layer-8", made.folder / "noise_layer-1")
    share, _, difference = eight[HEAD[-1]].partition(" %; ")
    assert float(share) > 80
    assert float(difference) < 0.2
