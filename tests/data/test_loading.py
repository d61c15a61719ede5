"""Names and options to data sets."""

import numpy as np
import pytest
from PIL import Image

from nlx.data import DataError, ImageFiles, load


@pytest.fixture
def web_dir(tmp_path):
    (tmp_path / "web").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "web" / name)
    (tmp_path / "web" / "labels.csv").write_text("path,noisy\na.png,cat\nb.png,dog\n")
    return tmp_path


def test_digits():
    dataset = load("digits")
    assert dataset.name == "digits/shuffle:0.4"
    other = load("digits", noise="uniform:0.2", noise_seed=3, data_dir="unused")
    assert other.name == "digits/uniform:0.2"
    again = load("digits", noise="uniform:0.2", noise_seed=4)
    assert (again.train.noisy_label != other.train.noisy_label).any()


def test_web_is_the_real_set_where_there_is_one(web_dir, tmp_path, monkeypatch):
    real = load("web", data_dir=web_dir, image_size=6)
    assert real.name == "web"
    assert real.multi_label
    assert real.train.inputs.shape == (2, 6, 6, 3)
    assert isinstance(load("web", data_dir=str(web_dir), in_memory_gib=0).train.inputs, ImageFiles)
    (web_dir / "web" / "labels.csv").unlink()
    monkeypatch.setattr("nlx.data.loading.web_sample", lambda: "the sample")
    assert load("web", data_dir=web_dir) == "the sample"
    assert load("web") == "the sample"


def test_paths(web_dir, tmp_path):
    np.savez(tmp_path / "x:y.npz", features=np.zeros((2, 3)), noisy_a=np.array([0, 1]), noisy_b=np.array([1, 1]))
    assert load(f"npz:{tmp_path / 'x:y.npz'}", labels="b").train.noisy_label.tolist() == [1, 1]
    dataset = load(f"folder:{web_dir / 'web'}", image_size=5)
    assert dataset.class_names == ("cat", "dog")
    assert not dataset.multi_label
    assert dataset.train.inputs.shape == (2, 5, 5, 3)


def test_cifar10n_passes_its_options(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path}/cifar-10-batches-py/data_batch_1: no such file"):
        load("cifar10n", labels="worst", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("digit", r"choose one of digits, web, cifar10n, npz:PATH, folder:PATH\. Did you mean digits\?"),
        ("cifar10", r"Did you mean cifar10n\?"),
        ("npy:x", r"Did you mean npz:PATH\?"),
        ("imagenet", r"unknown dataset 'imagenet': choose one of .*folder:PATH\.$"),
        ("web:here", "unknown dataset 'web:here'"),
        ("", "unknown dataset ''"),
        ("npz", "needs a path: write npz:PATH"),
        ("folder:", "needs a path: write folder:PATH"),
    ],
)
def test_unknown_names(name, match):
    with pytest.raises(DataError, match=match):
        load(name)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("digits", {"labels": "worst"}, "digits takes no labels: leave it out; only cifar10n and npz can use one"),
        ("web", {"noise": "none"}, "web takes no noise: leave it out; only digits can use one"),
        ("web", {"labels": "x"}, "web takes no labels"),
        ("npz:x", {"noise": "none"}, "npz:x takes no noise"),
        ("folder:x", {"labels": "a"}, "folder:x takes no labels"),
        ("cifar10n", {"noise": "uniform:0.1"}, "cifar10n takes no noise"),
    ],
)
def test_options_that_do_not_apply(name, options, match):
    with pytest.raises(DataError, match=match):
        load(name, **options)
