"""Names and options to data sets."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nlx.data import DataError, Dataset, ImageFiles, Split, load


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
    other = load("digits", noise="symmetric:0.2", noise_seed=3, data_dir="unused")
    assert other.name == "digits/symmetric:0.2"
    again = load("digits", noise="symmetric:0.2", noise_seed=4)
    assert (again.train.noisy_label != other.train.noisy_label).any()


def test_web_is_the_real_set_where_there_is_one(web_dir, tmp_path, monkeypatch):
    real = load("web", data_dir=web_dir, image_size=6)
    assert real.name == "web"
    assert real.multi_label
    assert real.train.inputs.shape == (2, 6, 6, 3)
    assert isinstance(load("web", data_dir=str(web_dir), in_memory_gib=0).train.inputs, ImageFiles)
    (web_dir / "web" / "labels.csv").unlink()
    monkeypatch.setattr("nlx.data.loading.web_sample", lambda: replace(real, name="web/sample"))
    assert load("web", data_dir=web_dir).name == "web/sample"
    assert load("web").name == "web/sample"


def test_paths(web_dir, tmp_path):
    np.savez(tmp_path / "x:y.npz", features=np.zeros((2, 3)), noisy_a=np.array([0, 1]), noisy_b=np.array([1, 1]))
    assert load(f"npz:{tmp_path / 'x:y.npz'}", labels="b").train.noisy_label.tolist() == [1, 1]
    dataset = load(f"folder:{web_dir / 'web'}", image_size=5)
    assert dataset.class_names == ("cat", "dog")
    assert not dataset.multi_label
    assert dataset.train.inputs.shape == (2, 5, 5, 3)


def test_folders_of_classes(tmp_path):
    for name in ("train/cat/a.png", "train/dog/deep/b.png", "val/dog/c.png", "val/cat/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name) if name.endswith("png") else (tmp_path / name).touch()
    dataset = load(str(tmp_path), image_size=5)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train.noisy_label.tolist() == [0, 1]
    assert dataset.train.label is None
    assert dataset.train.origin.key.tolist() == ["train/cat/a.png", "train/dog/deep/b.png"]
    assert dataset.test.label.tolist() == [1]
    whole = load(f"folder:{tmp_path / 'train'}", image_size=5, noise="pair:1")
    assert whole.train.noisy_label.tolist() == [1, 0]
    assert whole.train.label.tolist() == [0, 1]
    assert whole.test is None


@pytest.mark.parametrize("options", [{"labels": "worst"}, {"noise": "pair:0.1"}])
def test_cifar10n_passes_its_options(tmp_path, options):
    with pytest.raises(DataError, match=f"{tmp_path}/cifar-10-batches-py/data_batch_1: no such file"):
        load("cifar10n", data_dir=tmp_path, **options)


def tiny(name, noisy, label):
    images = np.arange(6 * 28 * 28, dtype=np.uint8).reshape(6, 28, 28, 1)
    return Dataset(name, tuple("abc"), Split(images, noisy, label), None)


def test_noise_takes_the_place_of_human_labels(monkeypatch):
    clean, human = np.array([0, 1, 2, 0, 1, 2]), np.array([2, 2, 2, 2, 2, 2])
    monkeypatch.setattr(
        "nlx.data.loading.cifar_n", lambda name, data_dir, labels: tiny(f"{name}/{labels}", human, clean)
    )
    monkeypatch.setattr("nlx.data.loading.cifar", lambda name, data_dir: tiny(name, clean, clean))
    assert load("cifar10n", labels="worst").train.noisy_label.tolist() == human.tolist()
    dataset = load("cifar10n", noise="pair:1")
    assert dataset.name == "cifar10n/pair:1"
    assert dataset.train.noisy_label.tolist() == [1, 2, 0, 1, 2, 0]
    assert load("cifar10n", noise="none").train.noisy_label.tolist() == clean.tolist()


def test_noise_on_arrays_and_folders(web_dir, tmp_path):
    arrays = {"features": np.zeros((3, 2)), "noisy_label": np.array([1, 1, 1])}
    np.savez(tmp_path / "mine.npz", **arrays, label=np.array([0, 1, 2]))
    dataset = load(f"npz:{tmp_path / 'mine.npz'}", noise="pair:1")
    assert dataset.name == "mine/pair:1"
    assert dataset.train.noisy_label.tolist() == [1, 2, 0]
    np.savez(tmp_path / "unknown.npz", **arrays)
    with pytest.raises(DataError, match=r"unknown.npz: there are no true labels"):
        load(f"npz:{tmp_path / 'unknown.npz'}", noise="pair:1")
    with pytest.raises(DataError, match="web has no true training labels"):
        load("web", data_dir=web_dir, noise="shuffle:0.1")
    (web_dir / "web" / "labels.csv").write_text("path,noisy,label\na.png,cat,dog\nb.png,dog,cat\n")
    dataset = load(f"folder:{web_dir / 'web'}", image_size=5, noise="pair:1")
    assert dataset.name == "web/pair:1"
    assert dataset.train.noisy_label.tolist() == [0, 1]


def test_noise_on_the_embedded_sample(monkeypatch):
    tags = np.eye(3, dtype=np.uint8)[[0, 1, 2, 0, 1, 2]]
    monkeypatch.setattr("nlx.data.loading.web_sample", lambda: tiny("web/sample", tags, tags))
    dataset = load("web", noise="tags:0.5")
    assert dataset.name == "web/sample/tags:0.5"
    assert (dataset.train.noisy_label != tags).any()


@pytest.mark.parametrize(("name", "other"), [("mnist", "fashion_mnist"), ("fashion_mnist", "mnist")])
def test_outliers_of_one_mnist_are_the_other(monkeypatch, name, other):
    clean = np.array([0, 1, 2, 0, 1, 2])
    bright = replace(tiny(other, clean, clean), train=Split(np.full((2, 28, 28, 1), 255, np.uint8), None, None))

    def missing(data_dir):
        raise DataError("not to be found")

    monkeypatch.setattr(f"nlx.data.loading.{name}", lambda data_dir: tiny(name, clean, clean))
    monkeypatch.setattr(f"nlx.data.loading.{other}", lambda data_dir: bright)
    assert load(name).name == name
    assert load(name, noise="pair:0.5").name == f"{name}/pair:0.5"
    dataset = load(name, noise="outlier:1")
    assert dataset.name == f"{name}/outlier:1+{other}"
    assert (dataset.train.inputs == 255).all()
    monkeypatch.setattr(f"nlx.data.loading.{other}", missing)
    dataset = load(name, noise="outlier:1")
    assert dataset.name == f"{name}/outlier:1"
    assert dataset.train.outlier.all()


def test_both_mnists_come_from_the_data_folder(tmp_path):
    for name in ("mnist", "fashion_mnist"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train-images-idx3-ubyte").write_bytes(b"broken")
        with pytest.raises(DataError, match=f"{tmp_path / name / 'train-labels-idx1-ubyte'}: no such file"):
            load(name, data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        (
            "digit",
            r"one of digits, mnist, .*, cifar10n, .*, npz:PATH, folder:PATH\. Did you mean digits\?",
        ),
        ("fashion-mnist", r"Did you mean fashion_mnist\?"),
        ("cifar-10", r"Did you mean cifar10\?"),
        ("npy:x", r"Did you mean npz:PATH\?"),
        ("birds", r"unknown dataset 'birds': choose one of .*folder:PATH\.$"),
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
        (
            "digits",
            {"labels": "worst"},
            "digits takes no `labels`: leave it out; only cifar10n, cifar100n, .*, npz can use one",
        ),
        ("web", {"labels": "x"}, "web takes no `labels`"),
        ("folder:x", {"labels": "a"}, "folder:x takes no `labels`"),
        ("mnist", {"noise": "uniform:0.1"}, "unknown noise 'uniform'"),
        (
            "cifar10n",
            {"labels": "worst", "noise": "pair:0.1"},
            "cifar10n takes `labels`=worst or `noise`=pair:0.1, not both: noise corrupts the true labels",
        ),
        ("npz:x", {"labels": "a", "noise": "none"}, "npz:x takes `labels`=a or `noise`=none, not both"),
    ],
)
def test_options_that_do_not_apply(name, options, match):
    with pytest.raises(DataError, match=match):
        load(name, **options)
