"""CIFAR and people's labels of it on tiny sets with the layout of the official files, Python 2 pickles included."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from nlx.data import DataError
from nlx.data.sources.cifar import cifar, cifar_n
from tests.data.test_fuzz import mutated

HUMAN = "CIFAR-10_human.npy"
PER_BATCH = 4
N = 5 * PER_BATCH


class Python2Pickler(pickle._Pickler):
    """Writes what CIFAR's own files hold: byte strings as Python 2 strings, NumPy under the names of its time."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_python2_string(self, obj):
        self.write(pickle.BINSTRING + struct.pack("<i", len(obj)) + obj)
        self.memoize(obj)

    dispatch[bytes] = save_python2_string

    def reducer_override(self, obj):
        if isinstance(obj, np.dtype):
            return np.dtype, (b"u1", 0, 1), (3, b"|", None, None, None, -1, -1, 0)
        return NotImplemented


def write_python2(path, content):
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(content)
    path.write_bytes(buffer.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def human_labels(clean):
    rng = np.random.default_rng(1)
    keys = ("aggre_label", "worse_label", "random_label1", "random_label2", "random_label3")
    return {"clean_label": clean} | {key: rng.integers(0, 10, len(clean)) for key in keys}


@pytest.fixture
def official(tmp_path):
    """Folder with the files, the images NHWC, their labels, and the human ones."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N + 3, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, N + 3)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    flat = np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), -1))
    for i in range(5):
        part = slice(i * PER_BATCH, (i + 1) * PER_BATCH)
        content = {b"data": flat[part], b"labels": labels[part].tolist(), b"batch_label": b"training"}
        write_python2(folder / f"data_batch_{i + 1}", content)
    write_python2(folder / "test_batch", {b"data": flat[N:], b"labels": labels[N:].tolist()})
    human = human_labels(labels[:N])
    np.save(tmp_path / "CIFAR-10_human.npy", human, allow_pickle=True)
    return tmp_path, images, labels, human


@pytest.mark.parametrize(
    ("labels", "key"),
    [
        ("worst", "worse_label"),
        ("aggregate", "aggre_label"),
        ("random1", "random_label1"),
        ("random2", "random_label2"),
        ("random3", "random_label3"),
    ],
)
def test_images_and_labels_come_out_as_they_went_in(official, labels, key):
    folder, images, clean, human = official
    dataset = cifar_n("cifar10n", folder, labels)
    assert dataset.name == f"cifar10n/{labels}"
    assert dataset.class_names[6] == "frog"
    assert dataset.train.inputs.dtype == np.uint8
    np.testing.assert_array_equal(dataset.train.inputs, images[:N])
    np.testing.assert_array_equal(dataset.train.label, clean[:N])
    np.testing.assert_array_equal(dataset.train.noisy_label, human[key])
    assert dataset.train.noisy_label.dtype == np.int32
    np.testing.assert_array_equal(dataset.test.inputs, images[N:])
    np.testing.assert_array_equal(dataset.test.label, clean[N:])
    assert dataset.test.noisy_label is None


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_any_pickle_protocol_is_read(official, protocol):
    folder, images, labels, _ = official
    flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    content = {b"data": np.ascontiguousarray(flat[N:]), b"labels": labels[N:].tolist()}
    (folder / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(content, protocol))
    np.testing.assert_array_equal(cifar_n("cifar10n", folder, "worst").test.inputs, images[N:])


def test_torch_file_is_read_without_torch(official):
    folder, _, _, human = official
    (folder / "CIFAR-10_human.npy").unlink()
    path = folder / "CIFAR-10_human.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(human, protocol=2))
        archive.writestr("archive/version", "3\n")
    np.testing.assert_array_equal(cifar_n("cifar10n", folder, "worst").train.noisy_label, human["worse_label"])
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C))  # how files of torch before 1.6 begin
    with pytest.raises(DataError, match=r"CIFAR-10_human.pt: cannot be read without torch: convert it .*np.save"):
        cifar_n("cifar10n", folder, "worst")


class Attack:
    """A pickle of it runs a command when it is loaded."""

    def __init__(self, marker):
        self.command = f"touch {marker}"

    def __reduce__(self):
        return os.system, (self.command,)


def test_pickles_cannot_run_code(official):
    folder, *_ = official
    marker = folder / "attacked"
    np.save(folder / "CIFAR-10_human.npy", {"clean_label": Attack(marker)}, allow_pickle=True)
    with pytest.raises(DataError, match=r"posix.system is not allowed in a data file"):
        cifar_n("cifar10n", folder, "worst")
    (folder / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps(Attack(marker)))
    np.save(folder / "CIFAR-10_human.npy", human_labels(np.zeros(N, int)), allow_pickle=True)
    with pytest.raises(DataError, match=r"data_batch_3: cannot be read \(posix.system is not allowed"):
        cifar_n("cifar10n", folder, "worst")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch"])
def test_missing_batch_is_named(official, name):
    folder, *_ = official
    (folder / "cifar-10-batches-py" / name).unlink()
    with pytest.raises(DataError, match=rf"cifar-10-batches-py/{name}: no such file: get .*cs.toronto.edu"):
        cifar_n("cifar10n", folder, "worst")


def test_missing_human_labels_are_named(official):
    folder, *_ = official
    (folder / "CIFAR-10_human.npy").unlink()
    with pytest.raises(DataError, match=r"CIFAR-10_human.npy: no such file, nor 'CIFAR-10_human.pt': get .*UCSC-REAL"):
        cifar_n("cifar10n", folder, "worst")


def test_human_labels_in_another_order_are_refused(official):
    folder, _, _, human = official
    swapped = human["clean_label"].copy()
    row = np.flatnonzero(np.diff(swapped))[2]
    swapped[[row, row + 1]] = swapped[[row + 1, row]]
    np.save(folder / "CIFAR-10_human.npy", human | {"clean_label": swapped}, allow_pickle=True)
    with pytest.raises(DataError, match=f"'clean_label' row {row} is not CIFAR-10's own label"):
        cifar_n("cifar10n", folder, "worst")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"worse_label": None}, "'worse_label' is missing or no array"),
        ({"worse_label": np.full(N, 10)}, "'worse_label' row 0 is 10, out of range: CIFAR-10 gives 10 classes"),
        ({"worse_label": np.zeros(N - 1, int)}, "'worse_label' has 19 rows but .* has 20"),
        ({"worse_label": np.zeros(N)}, "'worse_label' has dtype float64"),
    ],
)
def test_wrong_human_labels(official, change, match):
    folder, _, _, human = official
    np.save(folder / "CIFAR-10_human.npy", human | change, allow_pickle=True)
    with pytest.raises(DataError, match=match):
        cifar_n("cifar10n", folder, "worst")


@pytest.mark.parametrize("content", [b"", b"no NumPy file at all", b"\x93NUMPY\x09\x00"])
def test_human_file_that_is_no_array(official, content):
    folder, *_ = official
    (folder / "CIFAR-10_human.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"CIFAR-10_human.npy: not a NumPy file"):
        cifar_n("cifar10n", folder, "worst")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (pickle.dumps([1, 2]), "it does not hold a dict"),
        (pickle.dumps({b"data": np.zeros((3, 7), np.uint8), b"labels": [0, 1, 2]}), r"'data' is not uint8 \[n, 3072\]"),
        (
            pickle.dumps({b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1]}),
            "'labels' has 2 rows but 'data' .* 3",
        ),
        (pickle.dumps({b"data": np.zeros((3, 3072), np.uint8)}), "'labels' .*give class numbers"),
        (b"\x80\x02}q", "data_batch_1: cannot be read"),
    ],
)
def test_broken_batches(official, content, match):
    folder, *_ = official
    (folder / "cifar-10-batches-py" / "data_batch_1").write_bytes(content)
    with pytest.raises(DataError, match=match):
        cifar_n("cifar10n", folder, "worst")


def test_labels_and_folder_must_be_given(tmp_path):
    with pytest.raises(
        DataError, match="several labellings: choose one of worst, aggregate, random1, random2, random3"
    ):
        cifar_n("cifar10n", tmp_path)
    with pytest.raises(DataError, match="no labels 'worse': choose one of worst"):
        cifar_n("cifar10n", tmp_path, "worse")
    with pytest.raises(DataError, match="needs a `data_dir`"):
        cifar_n("cifar10n", None, "worst")


def test_cifar100_and_its_human_labels(tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "cifar-100-python"
    folder.mkdir()
    images, fine = rng.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8), [0, 1, 2, 0, 1, 2]
    for name in ("train", "test"):
        content = {b"data": images.reshape(6, -1), b"fine_labels": fine, b"coarse_labels": [0] * 6}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"apple", b"bear", b"cup"]}))
    noisy = {"clean_label": np.array(fine), "noisy_label": np.array([0, 1, 2, 0, 1, 0]), "noisy_coarse_label": fine}
    np.save(tmp_path / "CIFAR-100_human.npy", noisy, allow_pickle=True)
    dataset = cifar_n("cifar100n", tmp_path)
    assert dataset.name == "cifar100n"
    assert dataset.class_names == ("apple", "bear", "cup")
    assert dataset.train.noisy_label.tolist() == [0, 1, 2, 0, 1, 0]
    assert dataset.train.label.tolist() == dataset.test.label.tolist() == fine
    np.testing.assert_array_equal(cifar("cifar100", tmp_path).test.inputs, images.transpose(0, 2, 3, 1))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": "apple"}))
    with pytest.raises(DataError, match="meta: lists no class names"):
        cifar("cifar100", tmp_path)


def test_binary_versions(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    rows = np.concatenate([np.array([[9, 0], [9, 1], [9, 1], [9, 0]], np.uint8), images.reshape(4, -1)], axis=1)
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for name in ("train.bin", "test.bin"):
        rows.tofile(folder / name)
    (folder / "fine_label_names.txt").write_text("apple\nbear\n")
    dataset = cifar("cifar100", tmp_path)
    assert dataset.test.label.tolist() == [0, 1, 1, 0]
    np.testing.assert_array_equal(dataset.train.inputs, images.transpose(0, 2, 3, 1))
    (folder / "test.bin").write_bytes(rows.tobytes()[:-1])
    with pytest.raises(DataError, match=r"test.bin: row 3 is cut short: get CIFAR-100 again"):
        cifar("cifar100", tmp_path)
    (tmp_path / "cifar-10-batches-bin").mkdir()
    with pytest.raises(DataError, match=r"data_batch_1.bin: no such file: get the binary version of CIFAR-10"):
        cifar("cifar10", tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["cifar-10-batches-py/data_batch_2", "cifar-10-batches-py/test_batch", HUMAN])
def test_damaged_pickles_are_read_rightly_or_told_in_one_sentence(official, name):
    folder, *_ = official
    intact, rng = (folder / name).read_bytes(), np.random.default_rng(0)
    told = []
    for _ in range(40):
        (folder / name).write_bytes(mutated(intact, rng))
        try:
            data = cifar_n("cifar10n", folder, "worst")
        except DataError as error:
            told.append(str(error))
        else:
            assert data.train.inputs.shape[1:] == data.test.inputs.shape[1:] == (32, 32, 3)
            assert len(data.train.inputs) == len(data.train.label)
            assert set(data.train.noisy_label) | set(data.test.label) <= set(range(10))
    assert told
    assert not any("\n" in sentence for sentence in told)
