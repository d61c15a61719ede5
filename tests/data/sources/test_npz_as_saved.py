"""npz files as people save them: names for classes, truth known in part, pixels of other types, members that lie."""

import io
import zipfile

import numpy as np
import pytest

from nlx.data import DataError
from nlx.data.sources.npz import npz
from nlx.data.understanding import understood
from tests.data.sources.conftest import FEATURES, IMAGES, MATRIX, NOISY, TRUE, save, with_value


@pytest.mark.parametrize("kind", ["U", "S"])
def test_names_are_classes_in_order_with_one_spelling(tmp_path, kind):
    noisy = np.array(["10", "9", " 9", "1.0", "10.0", "1"]).astype(kind)
    dataset = npz(save(tmp_path, features=FEATURES, noisy_label=noisy, label=np.array(["10", "", "9", "", "", ""])))
    assert dataset.class_names == ("1", "9", "10")
    assert dataset.train.noisy_label.tolist() == [2, 1, 1, 0, 2, 0]
    assert dataset.train.trusted_label.tolist() == [2, -1, 1, -1, -1, -1]
    numbers = np.array(["10.0", "9.0", "1"])  # as they are listed
    assert npz(
        save(tmp_path, features=FEATURES, noisy_label=noisy, class_names=numbers)
    ).train.noisy_label.tolist() == [*(0, 1, 1, 2, 0, 2)]
    named = {"class_names": np.array(["ant", "bee"]), "features": FEATURES}
    bees = np.array(["bee"] * 6)
    assert npz(save(tmp_path, noisy_label=bees, **named)).train.noisy_label.tolist() == [1] * 6
    with pytest.raises(DataError, match=r"'noisy_label' row 3 is 'fly' .1 such rows., which 'class_names' lacks"):
        npz(save(tmp_path, noisy_label=with_value(bees, 3, "fly"), **named))
    with pytest.raises(DataError, match=r"'noisy_label' row 3 is '' .1 such rows., no name: remove the rows"):
        npz(save(tmp_path, noisy_label=with_value(bees, 3, ""), **named))


NAMED = np.array(["ant", "bee", "cat"])
PARTS = {
    "-1": {"label": np.where(np.arange(6) < 2, TRUE, -1)},
    "nan": {"label": np.where(np.arange(6) < 2, TRUE, np.nan)},
    "nan among names": {"noisy_label": NAMED[NOISY], "label": np.where(np.arange(6) < 2, NAMED[TRUE], "nan")},
    "-1 among names": {"noisy_label": NAMED[NOISY], "label": np.where(np.arange(6) < 2, NAMED[TRUE], "-1")},
    "mask": {"label": np.where(np.arange(6) < 2, TRUE, NOISY), "trusted": np.arange(6) < 2},
}


@pytest.mark.parametrize("part", PARTS)
def test_labels_known_in_part_are_trusted_and_no_others(tmp_path, part):
    dataset = npz(save(tmp_path, **{"features": FEATURES, "noisy_label": NOISY} | PARTS[part]))
    assert dataset.train.label.tolist() == [0, 1, -1, -1, -1, -1]
    for trusted in (dataset, dataset.trust(0.9, 0)):
        assert trusted.train.trusted_label.tolist() == [0, 1, -1, -1, -1, -1]
    assert not dataset.train.scored.any()
    assert "true labels of 2 are known and trusted" in understood(dataset)


@pytest.mark.parametrize(
    ("label", "told"),
    [
        (np.where(np.arange(6) < 2, TRUE, -2), r"row 2 is -2, .* write -1 there"),
        (np.array([-1, -1, 0, -2, 1, 1]), r"row 3 is -2, .*\(1 such rows\): write -1 there"),
        (np.array([-1, np.nan, 0, 0.5, 1, 1]), "not fractions"),
        (np.where(np.arange(6) < 2, TRUE, 255).astype(np.uint8), "row 2 is 255 .*: write -1 there"),
        (np.where(np.arange(6) < 2, TRUE, 9999), "row 2 is 9999 .*: write -1 there"),
    ],
)
def test_other_marks_of_unknown_labels_have_their_own_cure(tmp_path, label, told):
    with pytest.raises(DataError, match=f"'label'.*{told}"):
        npz(save(tmp_path, features=FEATURES, noisy_label=NOISY, label=label))


def test_a_number_in_two_spellings_is_told(tmp_path):
    for pair in (("1", "1,0"), ("10", "1e1"), ("01", "1"), ("-1.5", "-1.50"), ("A", "a")):
        noisy = np.array([*pair] * 3)
        notes = npz(save(tmp_path, features=FEATURES, noisy_label=noisy)).notes
        assert any("differ by case, spaces or zeros alone" in note for note in notes), pair
    names = np.array(["1", "-1", "1-"])
    assert not any("differ" in note for note in npz(save(tmp_path, features=FEATURES, noisy_label=names[NOISY])).notes)


def test_a_mask_says_which_of_all_true_labels_are_trusted(tmp_path):
    mask = np.arange(6) < 4
    dataset = npz(save(tmp_path, features=FEATURES, noisy_label=NOISY, label=TRUE, trusted=mask))
    assert dataset.train.label.tolist() == TRUE.tolist()
    assert dataset.trust(0.5, 0).train.trusted.tolist() == mask.tolist()
    assert dataset.trust(1.0, 0).train.trusted.all()


def test_a_matrix_known_in_part(tmp_path):
    label = np.where(np.arange(6)[:, None] < 2, MATRIX, -1)
    dataset = npz(save(tmp_path, features=FEATURES, noisy_label=MATRIX, label=label))
    assert dataset.train.trusted.tolist() == [True, True, False, False, False, False]
    assert dataset.train.trusted_label[:2].tolist() == MATRIX[:2].tolist()


def test_a_column_is_class_numbers(tmp_path):
    dataset = npz(save(tmp_path, features=FEATURES, noisy_label=NOISY[:, None], label=TRUE))
    assert dataset.train.noisy_label.tolist() == NOISY.tolist()


@pytest.mark.parametrize(
    ("pixels", "cure"),
    [
        (IMAGES / 255, "multiply by 255 first"),
        (IMAGES.astype(float), r"convert with np.round\(images\)"),
        (IMAGES * np.nan, "repair or remove those that are not finite first"),
        (IMAGES.astype(np.uint16) * 200, "scale them from the range 0 to"),
    ],
)
def test_pixels_of_other_types_each_have_their_cure(tmp_path, pixels, cure):
    with pytest.raises(DataError, match=cure):
        npz(save(tmp_path, image=pixels, noisy_label=NOISY))


def member(shape, dtype="<f4", body=b""):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + body


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (member((10**15, 1)), "'features' is broken, its header says 4,000,000,000,000,000 bytes and the file holds 0"),
        (member((-1, 4)), "'features' is broken"),
        (member((6, 4), "|O"), "'features' holds Python objects"),
        (member((2, 4), body=bytes(31)), "header says 32 bytes and the file holds 31"),
        (b"", "'features' cannot be read"),
    ],
)
def test_a_member_that_is_not_what_it_says(tmp_path, content, match):
    path = save(tmp_path, noisy_label=NOISY)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("features.npy", content)
    with pytest.raises(DataError, match=match):
        npz(path)


def test_what_does_not_fit_into_memory_is_refused_unread(tmp_path, monkeypatch):
    path = save(tmp_path, features=FEATURES, noisy_label=NOISY)
    monkeypatch.setattr("nlx.data.sources.npz.memory", lambda: FEATURES.nbytes - 1)
    with pytest.raises(DataError, match=r"'features' of shape .6, 4. does not fit into memory, 192 of 191 bytes"):
        npz(path)


@pytest.mark.parametrize(("at", "value", "match"), [(8, 1, "is encrypted: save it"), (10, 99, "cannot be read")])
def test_members_that_cannot_be_unpacked(tmp_path, at, value, match):
    content = bytearray(save(tmp_path, features=FEATURES, noisy_label=NOISY).read_bytes())
    content[content.index(b"PK\x01\x02") + at] |= value  # of the first entry in the directory at the end
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(DataError, match=match):
        npz(tmp_path / "mine.npz")
