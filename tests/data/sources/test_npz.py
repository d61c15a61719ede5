"""npz files: every kind that is documented loads, and every mistake is named in one sentence."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from nlx.data import DataError
from nlx.data.sources.npz import npz
from tests.data.sources.conftest import FEATURES, IMAGES, MATRIX, NOISY, TRUE, save, with_value

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "cifar10n_features.npz"


def test_images_with_everything(tmp_path):
    path = save(
        tmp_path,
        image=IMAGES,
        noisy_label=NOISY.astype(np.uint8),
        label=TRUE,
        test_image=IMAGES[:2],
        test_label=TRUE[:2],
        class_names=np.array(["ant", "bee", "cat", "dog"]),
        comment=np.array("other keys are left alone"),
    )
    dataset = npz(path)
    assert dataset.name == "mine"
    assert dataset.class_names == ("ant", "bee", "cat", "dog")
    assert not dataset.multi_label
    for given, expected in (
        (dataset.train.inputs, IMAGES),
        (dataset.train.noisy_label, NOISY.astype(np.int32)),
        (dataset.train.label, TRUE.astype(np.int32)),
        (dataset.test.inputs, IMAGES[:2]),
        (dataset.test.label, TRUE[:2].astype(np.int32)),
    ):
        assert given.dtype == expected.dtype
        np.testing.assert_array_equal(given, expected)
    assert dataset.test.noisy_label is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_features_of_any_precision_and_the_least_there_can_be(tmp_path, dtype):
    dataset = npz(save(tmp_path, features=FEATURES.astype(dtype), noisy_label=NOISY))
    assert dataset.train.inputs.dtype == np.float32
    np.testing.assert_array_equal(dataset.train.inputs, FEATURES.astype(dtype).astype(np.float32))
    assert dataset.train.label is None
    assert dataset.test is None
    assert dataset.class_names == ("0", "1", "2")


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_label_matrices(tmp_path, dtype):
    dataset = npz(save(tmp_path, image=IMAGES, noisy_label=MATRIX.astype(dtype), label=MATRIX[::-1].astype(dtype)))
    assert dataset.multi_label
    assert dataset.num_classes == 3
    assert dataset.train.noisy_label.dtype == np.uint8
    np.testing.assert_array_equal(dataset.train.noisy_label, MATRIX)
    np.testing.assert_array_equal(dataset.train.label, MATRIX[::-1])


def test_classes_are_counted_over_all_labels(tmp_path):
    arrays = {"image": IMAGES, "noisy_label": NOISY, "test_image": IMAGES}
    assert npz(save(tmp_path, **arrays, test_label=NOISY + 2)).num_classes == 5
    assert npz(save(tmp_path, **arrays, test_label=NOISY, label=NOISY + 3)).num_classes == 6


def test_one_of_several_labellings(tmp_path):
    path = save(tmp_path, image=IMAGES, noisy_worst=NOISY, noisy_best=TRUE)
    dataset = npz(path, "best")
    assert dataset.name == "mine/best"
    np.testing.assert_array_equal(dataset.train.noisy_label, TRUE)
    with pytest.raises(
        DataError, match=r"mine.npz: there are several labellings: choose one with `labels`=best \| worst"
    ):
        npz(path)
    with pytest.raises(DataError, match="no 'noisy_wurst': choose `labels` from best, worst"):
        npz(path, "wurst")
    assert npz(save(tmp_path, image=IMAGES, noisy_only=NOISY)).name == "mine/only"


def test_true_labels_in_the_place_of_noisy_ones(tmp_path):
    for noisy in ({}, {"noisy_label": NOISY}, {"noisy_worst": NOISY, "noisy_best": NOISY}):
        dataset = npz(save(tmp_path, image=IMAGES, label=TRUE, **noisy), clean=True)
        assert dataset.name == "mine"
        np.testing.assert_array_equal(dataset.train.noisy_label, TRUE)
        np.testing.assert_array_equal(dataset.train.label, TRUE)
    with pytest.raises(DataError, match=r"mine.npz: there are no true labels, .*: save them under 'label'"):
        npz(save(tmp_path, image=IMAGES, noisy_label=NOISY), clean=True)


KNOWN = np.array([True, True, False, False, True, False])


@pytest.mark.parametrize(
    "arrays",
    [
        {"label": np.where(KNOWN, TRUE, -1)},
        {"label": np.where(KNOWN, TRUE, np.nan)},
        {"label": np.where(KNOWN, TRUE, NOISY), "trusted": KNOWN},
        {"label": np.where(KNOWN, TRUE, -1)[:, None]},
        {"noisy_label": np.eye(3, dtype=int)[NOISY], "label": np.where(KNOWN[:, None], np.eye(3, dtype=int)[TRUE], -1)},
    ],
)
def test_labels_that_are_partly_known_are_trusted_exactly_there(tmp_path, arrays):
    dataset = npz(save(tmp_path, **({"features": FEATURES, "noisy_label": NOISY} | arrays)))
    for data in (dataset, dataset.trust(0.1, 0)):
        np.testing.assert_array_equal(data.train.trusted, KNOWN)
        np.testing.assert_array_equal(data.train.known, KNOWN)
        assert not data.train.scored.any()


BASE = {"features": FEATURES, "noisy_label": NOISY, "label": TRUE, "test_features": FEATURES, "test_label": TRUE}
ABCD = np.array(["a", "b", "c", "d"])
MISTAKES = {
    "no noisy labels": ({"noisy_label": None}, "no noisy labels: save them under 'noisy_label'"),
    "no inputs": ({"features": None, "test_features": None}, "no 'image' and no 'features'"),
    "both inputs": ({"image": IMAGES}, "both 'image' and 'features'"),
    "test without labels": ({"test_label": None}, "'test_features' comes without 'test_label'"),
    "test without inputs": ({"test_features": None}, "'test_label' does not go with 'features'"),
    "other test inputs": (
        {"test_features": None, "test_image": IMAGES},
        "'test_image' does not go with 'features': a test set needs 'test_features'",
    ),
    "label too large": (
        {"class_names": np.array(["a", "b"])},
        "'noisy_label' row 2 is 2, out of range: 'class_names' gives 2 classes, so labels must lie in 0 to 1",
    ),
    "true label too large": (
        {"label": with_value(TRUE, 4, 7), "class_names": ABCD},
        "'label' row 4 is 7, out of range",
    ),
    "test label too large": ({"test_label": with_value(TRUE, 5, 4), "class_names": ABCD}, "'test_label' row 5 is 4"),
    "negative label": ({"noisy_label": with_value(NOISY, 1, -1)}, "'noisy_label' row 1 is -1, no class number"),
    "huge label": ({"label": with_value(TRUE, 1, 2**40)}, "'label' row 1 is 1099511627776, no class number"),
    "not a number": (
        {"features": with_value(FEATURES, (3, 2), np.nan)},
        "'features' row 3 is not finite, nan in col.* 2",
    ),
    "infinite": ({"test_features": with_value(FEATURES, (5, 0), -np.inf)}, "'test_features' row 5 is not finite, -inf"),
    "too large for float32": ({"features": with_value(FEATURES, (1, 1), 1e300)}, "row 1 is not finite, 1e.300"),
    "fewer labels": ({"noisy_label": NOISY[:5]}, "'noisy_label' has 5 rows but 'features' has 6"),
    "fewer true labels": ({"label": TRUE[:4]}, "'label' has 4 rows but 'features' has 6"),
    "fewer test labels": ({"test_label": TRUE[:3]}, "'test_label' has 3 rows but 'test_features' has 6"),
    "widths": ({"test_features": FEATURES[:, :3]}, r"'test_features' has shape \(3,\), but one of 'features' \(4,\)"),
    "float labels": ({"noisy_label": NOISY + 0.5}, "'noisy_label' has dtype float64: labels must be integers"),
    "names beside numbers": ({"label": np.array(["a"] * 6)}, "'noisy_label' is int64 .6., and 'label' holds names"),
    "missing label": (
        {"noisy_label": with_value(NOISY.astype(float), 2, np.nan)},
        "'noisy_label' has dtype float64: .* row 2 is missing .1 such.: remove these rows",
    ),
    "signs": ({"noisy_label": 2 * (NOISY % 2) - 1}, r"row 0 is -1, .*\(4 such rows\): remove .*or number the classes"),
    "a marker": (
        {"noisy_label": with_value(NOISY.astype(np.uint8), (slice(2, 4),), 255)},
        r"'noisy_label' row 2 is 255 \(2 such rows\), far above the others: remove these rows",
    ),
    "column of seconds": (
        {"features": FEATURES + np.array([0, 0, 1.7e9, 0])},
        "'features' column 2 loses its digits in float32, 17000000.* subtract the mean first",
    ),
    "bfloat16": ({"features": FEATURES.astype(ml_dtypes.bfloat16)}, r"np.asarray\(features, 'float32'\) before saving"),
    "complex": ({"features": FEATURES + 1j}, "features must be floating point; give each example a row of numbers"),
    "nothing trusted": ({"trusted": np.zeros(6, bool)}, "'trusted' trusts no row: correct it, or leave it out"),
    "unknown but trusted": (
        {"trusted": np.ones(6, bool), "label": with_value(TRUE, 4, -1)},
        "'trusted' trusts row 4, whose 'label' is unknown",
    ),
    "no truth": ({"label": TRUE * 0 - 1}, "'label' is unknown in every row: leave it out"),
    "empty name": ({"class_names": np.array(["a", " ", "b"])}, "'class_names' row 1 is empty"),
    "names of no text": ({"class_names": np.array([b"a", b"\xff", b"b"])}, "'class_names' is not UTF-8 text"),
    "near miss": ({"Labels": TRUE, "label": None}, "'Labels' is not read: rename it to 'label'"),
    "mask without truth": ({"trusted": TRUE > 0, "label": None}, "'trusted' must be bool .6., and go with true labels"),
    "cube of labels": ({"noisy_label": MATRIX[:, :, None]}, r"'noisy_label' has shape \(6, 3, 1\): give class numbers"),
    "no matrix of bits": (
        {"noisy_label": with_value(MATRIX, (4, 1), 3), "label": None, "test_label": MATRIX},
        "'noisy_label' row 4 holds 3: a label matrix .* holds only 0 and 1",
    ),
    "mixed forms": ({"label": MATRIX}, r"'label' has shape \(6, 3\) but 'noisy_label' \(6,\)"),
    "matrix widths": (
        {"noisy_label": MATRIX, "label": MATRIX[:, :2], "test_label": MATRIX},
        "'label' has 2 columns, but 'noisy_label' gives 3 classes",
    ),
    "names and matrix": (
        {"noisy_label": MATRIX, "label": None, "test_label": MATRIX, "class_names": ABCD},
        "'noisy_label' has 3 columns, but 'class_names' gives 4 classes",
    ),
    "empty": ({"features": FEATURES[:0], "noisy_label": NOISY[:0]}, "'features' is empty"),
    "empty labels": ({"noisy_label": NOISY[:0]}, "'noisy_label' is empty"),
    "integer features": ({"features": np.zeros((6, 4), int)}, "'features' has dtype int64: features must be floating"),
    "feature cube": (
        {"features": FEATURES[:, :, None]},
        r"'features' has shape \(6, 4, 1\): features must be \[n, F\]",
    ),
    "repeated name": ({"class_names": np.array(["a", "b", "a"])}, "'class_names' row 2 repeats 'a'"),
    "names are numbers": ({"class_names": np.arange(3)}, "'class_names' has dtype int64 .* one string a class"),
    "object names": (
        {"class_names": np.array(["a", None, "c"], object)},
        "'class_names' holds Python objects, which may run code: save numbers, or strings",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_one_sentence_that_names_the_file(tmp_path, name):
    change, match = MISTAKES[name]
    arrays = {key: array for key, array in (BASE | change).items() if array is not None}
    with pytest.raises(DataError, match=match) as caught:
        npz(save(tmp_path, **arrays))
    assert str(caught.value).startswith(f"{tmp_path / 'mine.npz'}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (IMAGES.astype(np.float32), "'image' has dtype float32: images must be uint8"),
        (IMAGES[..., 0], r"'image' has shape \(6, 4, 5\).*\[\.\.\., None\]"),
        (IMAGES.transpose(0, 3, 1, 2), r"last axis must be 1 or 3 channels; transpose it"),
        (IMAGES[..., :2], "last axis must be 1 or 3 channels; convert"),
        (IMAGES[:, :0], r"'image' is empty, of shape \(6, 0, 5, 3\)"),
    ],
)
def test_bad_images(tmp_path, image, match):
    with pytest.raises(DataError, match=match):
        npz(save(tmp_path, image=image, noisy_label=NOISY))


def test_test_images_must_have_the_size_of_the_training_images(tmp_path):
    path = save(tmp_path, image=IMAGES, noisy_label=NOISY, test_image=IMAGES[:, :3], test_label=TRUE)
    with pytest.raises(DataError, match=r"'test_image' has shape \(3, 5, 3\), but one of 'image' \(4, 5, 3\)"):
        npz(path)


def test_files_that_are_no_npz(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(DataError, match=r"x.npz: no such file"):
        npz(path)
    with pytest.raises(DataError, match="no such file"):
        npz(tmp_path)
    for content in (b"", b"text, no arrays", b"PK\x03\x04 and then nothing"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x.npz: not an .npz file: write one with np.savez"):
            npz(path)
    with path.open("wb") as file:
        np.save(file, NOISY)
    with pytest.raises(DataError, match=r"a single array, not an .npz file"):
        npz(path)
    whole = save(tmp_path, image=IMAGES, noisy_label=NOISY).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"not an .npz file"):
        npz(path)
    path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    with pytest.raises(DataError, match=r"'image' cannot be read .*Bad CRC-32"):
        npz(path)


@pytest.mark.skipif(not SHARED.exists(), reason="the CIFAR-10N features are not beside the project")
def test_cifar10n_features():
    dataset = npz(SHARED, "worst")
    assert dataset.name == "cifar10n_features/worst"
    assert dataset.train.inputs.shape == (40_000, 256)
    assert dataset.test.inputs.shape == (10_000, 256)
    assert dataset.class_names[0] == "airplane"
    assert (dataset.train.noisy_label != dataset.train.label).mean() == pytest.approx(0.404, abs=0.001)
    with pytest.raises(DataError, match=r"aggregate \| random1 \| random2 \| random3 \| worst"):
        npz(SHARED)
