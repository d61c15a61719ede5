"""MNIST and Fashion-MNIST: tiny files in their layouts, from every place, and every way in which they can be broken."""

import gzip
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nlx.data import DataError
from nlx.data.sources import idx
from nlx.data.sources.idx import fashion_mnist, mnist, read_idx

N, TEST = 12, 5
FILES = {  # by the array: the official name, and the other spelling
    "x_train": ("train-images-idx3-ubyte", "train-images.idx3-ubyte"),
    "y_train": ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte"),
    "x_test": ("t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"),
    "y_test": ("t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"),
}


@pytest.fixture(autouse=True)
def no_debian(monkeypatch, tmp_path):
    monkeypatch.setattr(idx, "DEBIAN", tmp_path / "no such folder")


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (N, 28, 28), dtype=np.uint8),
        "y_train": (np.arange(N) % 10).astype(np.uint8),
        "x_test": rng.integers(0, 256, (TEST, 28, 28), dtype=np.uint8),
        "y_test": (np.arange(TEST) + 5).astype(np.uint8),
    }


def idx_bytes(array):
    header = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def write(folder, arrays, spelling=0, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for key, array in arrays.items():
        content = idx_bytes(array)
        path = folder / (FILES[key][spelling] + (".gz" if packed else ""))
        path.write_bytes(gzip.compress(content) if packed else content)


def assert_is(dataset, arrays):
    for given, key in (
        (dataset.train.inputs, "x_train"),
        (dataset.train.label, "y_train"),
        (dataset.train.noisy_label, "y_train"),
        (dataset.test.inputs, "x_test"),
        (dataset.test.label, "y_test"),
    ):
        image = key.startswith("x")
        assert given.dtype == (np.uint8 if image else np.int32)
        np.testing.assert_array_equal(given, arrays[key][..., None] if image else arrays[key])
    assert dataset.test.noisy_label is None
    assert dataset.num_classes == 10


@pytest.mark.parametrize("load", [mnist, fashion_mnist])
@pytest.mark.parametrize(("spelling", "packed"), [(0, False), (0, True), (1, False), (1, True)])
def test_idx_files_in_either_folder_and_spelling(tmp_path, arrays, load, spelling, packed):
    write(tmp_path, arrays, spelling, packed)
    dataset = load(str(tmp_path))
    assert_is(dataset, arrays)
    assert dataset.name == load.__name__
    own = arrays | {"x_train": arrays["x_train"][::-1]}
    write(tmp_path / load.__name__, own, spelling, packed)
    assert_is(load(tmp_path), own)  # the folder of its name comes first


def test_noisy_labels_are_an_array_of_their_own(tmp_path, arrays):
    write(tmp_path, arrays)
    train = mnist(tmp_path).train
    train.noisy_label[:] = 0
    np.testing.assert_array_equal(train.label, arrays["y_train"])


def test_class_names(tmp_path, arrays):
    write(tmp_path, arrays)
    assert mnist(tmp_path).class_names == tuple("0123456789")
    assert fashion_mnist(tmp_path).class_names[7:] == ("Sneaker", "Bag", "Ankle boot")


@pytest.mark.skipif(not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="needs dataset-fashion-mnist")
def test_the_real_files(monkeypatch):
    monkeypatch.undo()
    dataset = fashion_mnist(None)
    assert dataset.train.inputs.shape == (60_000, 28, 28, 1)
    assert dataset.test.inputs.shape == (10_000, 28, 28, 1)
    assert np.bincount(dataset.train.label).tolist() == [6000] * 10
    assert tuple(dataset.train.label[:10]) == idx._SOURCES["fashion_mnist"].first
    assert 72 < dataset.train.inputs.mean() < 74


def test_debian_package_stands_in_for_fashion_alone(tmp_path, arrays, monkeypatch):
    monkeypatch.setattr(idx, "DEBIAN", tmp_path / "debian")
    write(tmp_path / "debian", arrays, packed=True)
    for data_dir in (None, tmp_path / "elsewhere"):
        assert_is(fashion_mnist(data_dir), arrays)
        with pytest.raises(DataError, match="mnist cannot be found"):
            mnist(data_dir)
    own = arrays | {"y_test": arrays["y_test"][::-1]}
    write(tmp_path / "mine", own)
    assert_is(fashion_mnist(tmp_path / "mine"), own)


@pytest.mark.parametrize("inner", ["", "mnist"])
def test_keras_file_is_mnist_even_beside_idx_files_of_fashion(tmp_path, arrays, inner):
    fashion = arrays | {"y_train": np.array([*idx._SOURCES["fashion_mnist"].first, 0, 0], np.uint8)}
    write(tmp_path, fashion)
    with pytest.raises(DataError, match=r"are fashion_mnist's, not mnist's: keep each set in a folder of its own"):
        mnist(tmp_path)
    (tmp_path / inner).mkdir(exist_ok=True)
    np.savez(tmp_path / inner / "mnist.npz", **arrays)
    assert_is(mnist(tmp_path), arrays)
    assert_is(fashion_mnist(tmp_path), fashion)


def test_mnist_is_not_taken_for_fashion(tmp_path, arrays):
    write(tmp_path, arrays | {"y_train": np.array([*idx._SOURCES["mnist"].first, 0, 0], np.uint8)})
    with pytest.raises(DataError, match="are mnist's, not fashion_mnist's"):
        fashion_mnist(tmp_path)
    assert mnist(tmp_path).train.label[0] == 5


@pytest.mark.parametrize(
    ("load", "ways"),
    [
        (mnist, ("train-images-idx3-ubyte", "mnist.npz in the layout of Keras", "tfds build mnist")),
        (fashion_mnist, ("train-images-idx3-ubyte", "apt-get install dataset-fashion-mnist", "tfds build fashion_")),
    ],
)
def test_nothing_there_names_every_way(tmp_path, monkeypatch, load, ways):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=f"cannot be found in {tmp_path} or {tmp_path / load.__name__}: ") as caught:
        load(tmp_path)
    assert all(way in str(caught.value) for way in ways)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be found without a `data_dir`: "):
        load(None)


def test_missing_file_of_four_is_named(tmp_path, arrays):
    write(tmp_path, arrays)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte: no such file, nor with .gz: put it beside"):
        mnist(tmp_path)


def broken(change):
    """The content of a file after some damage."""
    return lambda array: change(idx_bytes(array))


DAMAGE = {
    "too short": ("x_train", broken(lambda b: b[:-1]), r"holds 9407 entries, but its header says 12x28x28"),
    "too long": ("y_train", broken(lambda b: b + b"x"), r"holds 13 entries, but its header says 12:"),
    "header cut off": ("x_test", broken(lambda b: b[:7]), "holds 0 entries"),
    "empty": ("x_test", lambda array: b"", "begins with nothing, not with 00000803"),
    "labels for images": (
        "x_train",
        lambda array: idx_bytes(array[:, 0, 0]),
        "begins with 00000801, not with 00000803",
    ),
    "images for labels": ("y_train", lambda array: idx_bytes(array[:, None, None]), "with 00000803, not with 00000801"),
    "floats": ("x_train", broken(lambda b: b[:2] + b"\x0d" + b[3:]), "begins with 00000d03, not with 00000803"),
    "packed by its content": ("y_test", broken(gzip.compress), r"begins with 1f8b.*unpack it if it has no .gz"),
    "other size": ("x_train", lambda array: idx_bytes(array[:, :, :27]), r"shape \(12, 28, 27\): .* \[n, 28, 28\]"),
    "fewer labels": ("y_train", lambda array: idx_bytes(array[:-1]), "has 11 rows but .*images-idx3-ubyte has 12"),
    "no such class": (
        "y_test",
        lambda array: idx_bytes(array + np.uint8(3)),
        "row 2 is 10, out of range: .* 10 classes",
    ),
    "no examples": ("y_test", lambda array: idx_bytes(array[:0]), "is empty"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_broken_idx_files_are_named(tmp_path, arrays, damage):
    key, change, match = DAMAGE[damage]
    write(tmp_path, arrays)
    path = tmp_path / FILES[key][0]
    path.write_bytes(change(arrays[key]))
    with pytest.raises(DataError, match=match) as caught:
        mnist(tmp_path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [lambda b: b[:-9], lambda b: b[:30], lambda b: b"no gzip", lambda b: b[:20] + b"?" * 9]
)
def test_broken_gzip_files_are_named(tmp_path, arrays, change):
    path = tmp_path / "x.gz"
    path.write_bytes(change(gzip.compress(idx_bytes(arrays["x_train"]))))
    with pytest.raises(DataError, match=r"x.gz: cannot be read \(.+\): get the file again"):
        read_idx(path, 3)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"y_test": None}, r"mnist.npz: cannot be read \(y_test.*\): it must be an .npz file with the arrays x_train,"),
        ({"x_train": np.zeros((N, 28, 28))}, "'x_train' has dtype float64 and shape"),
        ({"x_test": np.zeros((TEST, 784), np.uint8)}, r"'x_test' has .* shape \(5, 784\)"),
        ({"y_train": np.zeros((N, 10), np.uint8)}, r"'y_train' has shape \(12, 10\): give class numbers"),
        ({"y_train": np.arange(N)}, "'y_train' row 10 is 10, out of range"),
        ({"y_test": np.zeros(4, int)}, "'y_test' has 4 rows but .*'x_test' has 5"),
        ({"y_test": np.array(["a"] * TEST, object)}, "cannot be read .*allow_pickle"),
    ],
)
def test_broken_keras_files_are_named(tmp_path, arrays, change, match):
    np.savez(tmp_path / "mnist.npz", **{k: v for k, v in (arrays | change).items() if v is not None})
    with pytest.raises(DataError, match=match):
        mnist(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no zip at all", b"PK\x03\x04 cut off"])
def test_keras_file_that_is_none(tmp_path, content):
    (tmp_path / "mnist.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"mnist.npz: cannot be read"):
        mnist(tmp_path)


@pytest.fixture
def tfds(monkeypatch, tmp_path, arrays):
    """A stand-in for TensorFlow Datasets that has prepared MNIST; what it was asked for is kept."""
    asked = []

    def data_source(name, **options):
        asked.append((name, options))
        return tuple(
            [{"image": x[..., None], "label": np.int64(y)} for x, y in zip(*pair, strict=True)]
            for pair in ((arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"]))
        )

    monkeypatch.setitem(sys.modules, "tensorflow_datasets", SimpleNamespace(data_source=data_source))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    (tmp_path / "mnist" / "3.0.1" / "dataset_info.json").touch()
    return asked


def test_what_tfds_has_prepared_is_read_without_tensorflow(tmp_path, arrays, tfds):
    assert_is(mnist(tmp_path), arrays)
    record = {"file_format": "array_record"}
    options = {"split": ["train", "test"], "data_dir": str(tmp_path), "download": False, "builder_kwargs": record}
    assert tfds == [("mnist", options)]
    with pytest.raises(DataError, match="cannot be found"):
        fashion_mnist(tmp_path)  # not prepared
    write(tmp_path, arrays | {"y_train": arrays["y_train"][::-1]})
    assert mnist(tmp_path).train.label[0] == arrays["y_train"][-1]  # files come first
    assert len(tfds) == 1


def test_tfds_may_download_where_tensorflow_can_prepare(tmp_path, arrays, tfds, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found" if name == "tensorflow" else None)
    assert_is(fashion_mnist(tmp_path), arrays)
    assert tfds[0][0] == "fashion_mnist"
    assert tfds[0][1]["download"] is True


def test_what_tfds_says_is_passed_on_in_one_sentence(tmp_path, tfds, monkeypatch):
    def fail(name, **options):
        raise NotImplementedError("No random access.\nMore lines\nfollow.")

    monkeypatch.setattr(sys.modules["tensorflow_datasets"], "data_source", fail)
    with pytest.raises(DataError, match=r"cannot give mnist \(No random access\): put its four IDX files") as caught:
        mnist(tmp_path)
    assert "\n" not in str(caught.value)
