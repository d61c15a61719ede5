"""Readers of official layouts, on miniatures of them: labels by class, what is known of them, and what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from benchmarks.miniatures import CLOTHES, Maker
from nlx.data import DataError, ImageFiles, load
from nlx.data.sources.counts import COUNTS, Counts
from nlx.data.sources.official import OFFICIAL
from nlx.methods.method import KNOWN_WRONG, UNKNOWN

ROOT = Path(__file__).parents[3]
EACH = 4


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    maker = Maker(tmp_path_factory.mktemp("official"), side=8, each=EACH, classes=3)
    for make in maker.makers().values():
        make()
    return maker.root


def loaded(name, data_dir, **options):
    return load(name, data_dir=data_dir, image_size=8, **options)


def by_class(count, each=EACH):
    return np.repeat(np.arange(count), each).tolist()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("imagenet", 3),
        ("food101n", 3),
        ("webvision_mini", 50),
        ("animal10n", 10),
        ("svhn", 10),
        ("cifar10", 10),
        ("cifar100", 3),
    ],
)
def test_every_picture_has_its_class(data_dir, name, count):
    data = loaded(name, data_dir)
    assert data.num_classes == count
    given = data.train.noisy_label.tolist()
    assert given == (by_class(count) * 5 if name == "cifar10" else by_class(count))
    assert data.test.label.tolist() == by_class(count, EACH // 2)
    assert data.train.inputs.dtype == np.uint8
    assert len(data.train.inputs) == len(given)
    if name in OFFICIAL:
        assert "where its authors have" in data.notes[0]
    if name == "cifar10":
        assert loaded(name, data_dir, noise="outlier:1").name == "cifar10/outlier:1+cifar100"
    if data.train.label is not None:  # a set that has true labels can be made noisy
        noisy = loaded(name, data_dir, noise="pair:1").train.noisy_label
        assert (noisy == (data.train.label + 1) % count).all()


def test_pictures_are_streamed_where_they_are_many(data_dir):
    data = loaded("imagenet", data_dir, in_memory_gib=0)
    assert isinstance(data.train.inputs, ImageFiles)
    assert data.train.inputs.paths[0].endswith("imagenet/train/n01440764/train_n01440764_0.JPEG")
    assert data.train.origin.key[-1] == "n01440766/train_n01440766_3.JPEG"


def test_clothing_has_noisy_verified_and_clean_labels(data_dir):
    n = EACH * len(CLOTHES)
    noisy, verified, clean = (
        loaded("clothing1m", data_dir, labels=labels) for labels in ("noisy", "verified", "clean")
    )
    assert (len(noisy.train), len(verified.train), len(clean.train)) == (n, n + n // 2, 2 * n)
    assert noisy.train.label is None
    wrong = np.arange(n) % 4 == 3  # as the miniature has them
    np.testing.assert_array_equal(noisy.train.noisy_label, (np.repeat(np.arange(14), EACH) + wrong) % 14)
    scored = loaded("clothing1m", data_dir, labels="scored").train
    assert scored.trusted is None
    assert (scored.label == verified.train.label).all()
    assert scored.scored.sum() == n // 2
    for data in (verified, clean):
        assert data.train.trusted.tolist() == [False] * n + [True] * (len(data.train) - n)
        assert (data.train.paired == data.train.trusted & ~data.train.filled).all()
        assert data.train.paired.sum() == n // 2
    assert clean.train.label[n:].tolist() == by_class(14)
    given, paired = clean.train.noisy_label, clean.train.paired
    assert (given[clean.train.filled] == clean.train.label[clean.train.filled]).all()
    assert (given[paired] != clean.train.label[paired]).sum() == n // 4
    assert clean.test.label.tolist() == by_class(14, EACH // 2)


def test_verified_food_is_trusted_and_the_rest_unknown(data_dir):
    train = loaded("food101n", data_dir, labels="verified").train
    rows = np.arange(len(train))
    right = (rows % 2 == 0) & (rows % 4 != 2)
    assert (train.trusted == right).all()
    assert (train.label == np.where(right, train.noisy_label, -1)).all()
    assert (train.wrong == (rows % 4 == 2)).all()
    unknown = np.where(train.wrong, KNOWN_WRONG, UNKNOWN)
    assert (train.trusted_label == np.where(right, train.noisy_label, unknown)).all()
    assert (train.take(rows[::-1]).wrong == train.wrong[::-1]).all()
    assert loaded("food101n", data_dir).train.wrong is None
    assert (replace(train, trusted=None).trusted_label == unknown).all()
    for label in (None, np.eye(len(train), dtype=np.uint8)):
        with pytest.raises(ValueError, match="`wrong` needs `label`, one for each example"):
            replace(train, label=label)


def test_a_missing_picture_of_the_verified_has_its_row(data_dir, tmp_path):
    shutil.copytree(data_dir / "clothing1m", tmp_path / "clothing1m")
    (tmp_path / "clothing1m/images/0/clean_train3,0.jpg").unlink()
    with pytest.raises(DataError, match=r"clean_train_key_list.txt: row 4 names 'images/0/clean_train3,0.jpg', which"):
        loaded("clothing1m", tmp_path, labels="verified")


def test_food_that_was_verified_has_to_be_listed(data_dir):
    path = data_dir / "food101n/Food-101N_release/meta/verified_train.tsv"
    text = path.read_text()
    change(path, "dish_000/", "dish_009/")
    try:
        with pytest.raises(DataError, match=r"tsv: row 2 names 'dish_009/\w+.jpg', which imagelist.tsv does not: get"):
            loaded("food101n", data_dir, labels="verified")
    finally:
        path.write_text(text)


@pytest.mark.parametrize(("name", "extra"), [("webvision", 53), ("svhn_extra", 10)])
def test_a_larger_version_has_both_parts(data_dir, name, extra):
    data = loaded(name, data_dir)
    assert data.train.noisy_label.tolist() == by_class(extra) * 2


@pytest.mark.parametrize("name", ["voc2007", "voc2012"])
def test_objects_of_voc(data_dir, name):
    data = loaded(name, data_dir)
    seen = np.eye(20, dtype=np.uint8)
    assert (data.train.label == seen[np.arange(len(data.train)) % 20]).all()
    assert (data.test.label == seen[np.arange(len(data.test)) % 20]).all()
    assert data.class_names[19] == "tvmonitor"


def test_another_set_to_test_on(data_dir, tmp_path):
    data = loaded("webvision_mini", data_dir, test="imagenet")
    assert data.name == "webvision_mini+imagenet"
    assert data.class_names[0] == "n01440764"
    assert data.test.label.tolist() == by_class(3, EACH // 2)
    (tmp_path / "labels.csv").write_text("path,noisy\na.jpg,bird;sofa\nb.jpg,sofa\n")
    for picture in ("a.jpg", "b.jpg"):
        (tmp_path / picture).write_bytes((data_dir / "VOCdevkit/VOC2007/JPEGImages/000000.jpg").read_bytes())
    tagged = loaded(f"folder:{tmp_path}", data_dir, test="voc2007")
    assert tagged.test.label.tolist()[2] == [1, 0]  # bird is the third class of VOC
    assert tagged.test.label.sum() == 4
    with pytest.raises(DataError, match=r"voc2007 has no test examples of classes that animal10n names"):
        loaded("animal10n", data_dir, test="voc2007")


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "match"),
    [
        (
            "clothing1m",
            "clothing1m/noisy_label_kv.txt",
            ",1.jpg 1\n",
            ",1.jpg 14\n",
            "row 5 has '14' in place of a numb",
        ),
        ("clothing1m", "clothing1m/noisy_label_kv.txt", ",1.jpg 1\n", ",1.jpg\n", "row 5 has 1 columns in place of 2"),
        ("clothing1m", "clothing1m/clean_test_key_list.txt", "test1", "test9", "row 2 names .*, which has no label"),
        ("food101n", "food101n/food-101/meta/test.txt", "dish_001", "fish", "row 3 names 'fish', which is no class"),
        (
            "food101n",
            "food101n/Food-101N_release/meta/imagelist.tsv",
            "01/",
            "01/x",
            "row 6 names .*x0.*, which is not",
        ),
        (
            "webvision",
            "webvision/info/train_filelist_flickr.txt",
            "1/2",
            "1/9",
            "flickr.txt: row 7 names .*, which is not",
        ),
        (
            "clothing1m",
            "clothing1m/clean_label_kv.txt",
            ",1.jpg 1\n",
            ",1.jpg 1\nimages/1/clean_train0,1.jpg 1\nimages/1/clean_train0,1.jpg 2\n",
            "row 7 gives 'images/1/clean_train0,1.jpg' 2, an earlier row 1",
        ),
        (
            "clothing1m",
            "clothing1m/noisy_train_key_list.txt",
            "train1,0",
            "train0,0",
            "row 2 repeats 'images/0/noisy_train0,0.jpg' of row 1",
        ),
        (
            "clothing1m",
            "clothing1m/clean_test_key_list.txt",
            "0/clean_test1,",
            "0/noisy_train1,",
            "row 2 names 'images/0/noisy_train1,0.jpg', which noisy_train_key_list.txt has as well",
        ),
        ("clothing1m", "clothing1m/category_names_eng.txt", "Shawl", "Vest", "row 13 repeats 'Vest' of row 11"),
        (
            "food101n",
            "food101n/Food-101N_release/meta/imagelist.tsv",
            "class_name/key\n",
            "",
            "row 1 names a picture in place of the columns",
        ),
        ("webvision", "webvision/info/synsets.txt", " name, other name", "", "synsets.txt: row 1 has 1 columns"),
        ("voc2007", "VOCdevkit/VOC2007/ImageSets/Main/cow_test.txt", " -1\n", "  7\n", "cow_test.txt: row 1 has '7'"),
        (
            "voc2007",
            "VOCdevkit/VOC2007/ImageSets/Main/dog_test.txt",
            "100000 -1\n",
            "",
            "has 39 rows, other classes have 40",
        ),
        (
            "voc2007",
            "VOCdevkit/VOC2007/ImageSets/Main/cow_test.txt",
            "100000 -1\n100001 -1\n",
            "100001 -1\n100000 -1\n",
            "row 1 names '100001', and that of other classes '100000'",
        ),
    ],
)
def test_a_broken_list_is_refused_with_its_row(data_dir, name, file, old, new, match):
    path = data_dir / file
    text = path.read_text()
    change(path, old, new)
    try:
        with pytest.raises(DataError, match=match) as refusal:
            loaded(name, data_dir)
    finally:
        path.write_text(text)
    told = str(refusal.value)
    assert told.startswith(str(path))
    assert told.endswith(f"get {name} as its page has it, {OFFICIAL[name].page}.")


@pytest.mark.parametrize(
    ("name", "file", "match"),
    [
        ("imagenet", "imagenet/val/n09/a.jpg", r"val/n09: is no class of train"),
        ("animal10n", "animal10n/testing/cat_1.jpg", r"cat_1.jpg: does not begin with a class number"),
        ("svhn", "svhn/train_32x32.mat", r"train_32x32.mat: cannot be read"),
    ],
)
def test_what_does_not_belong_there_is_named(data_dir, name, file, match):
    path = data_dir / file
    before = path.read_bytes() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"nothing")
    try:
        with pytest.raises(DataError, match=match):
            loaded(name, data_dir)
    finally:
        path.unlink() if before is None else path.write_bytes(before)


@pytest.mark.parametrize(
    ("name", "folder", "empty"),
    [
        ("imagenet", "imagenet/val/n01440765", "n01440765: holds no pictures of this class"),
        ("imagenet", "imagenet/train/n01440765", "train/n01440765: holds no pictures of this class"),
        ("animal10n", "animal10n/training", "training: has no pictures"),
        ("animal10n", "animal10n/testing", "testing: has no pictures"),
    ],
)
def test_folders_without_pictures_are_named(data_dir, tmp_path, name, folder, empty):
    copy = tmp_path / name
    shutil.copytree(data_dir / name, copy)
    for picture in (tmp_path / folder).iterdir():
        picture.unlink()
    with pytest.raises(DataError, match=empty):
        loaded(name, tmp_path)


@pytest.mark.parametrize(
    ("y", "match"),
    [
        ([1.0, 1.5], "'y' row 1 is 1.5, no whole number from 0 to 10"),
        ([np.nan, 2.0], "'y' row 0 is nan, no whole number"),
        ([3, -1], "'y' row 1 is -1, no whole number"),
        ([], "holds no pictures"),
    ],
)
def test_digits_that_are_none_are_refused(tmp_path, y, match):
    path = tmp_path / "svhn" / "train_32x32.mat"
    path.parent.mkdir()
    savemat(path, {"X": np.zeros((32, 32, 3, len(y)), np.uint8), "y": np.array(y)})
    with pytest.raises(DataError, match=rf"^{path}: {match}.*: get svhn as its page has it"):
        loaded("svhn", tmp_path)


def test_what_is_missing_is_named(tmp_path):
    for name in OFFICIAL:
        with pytest.raises(DataError, match=f"no such folder: get {name} as its page has it"):
            loaded(name, tmp_path)
    with pytest.raises(DataError, match="clothing1m has no labels 'all': choose one of noisy, verified, clean, scored"):
        loaded("clothing1m", tmp_path, labels="all")


def test_the_page_lists_every_set_with_its_counts():
    page = (ROOT / "docs" / "data.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")] for line in page.splitlines() if line.startswith("| `")]
    for name, about in COUNTS.items():
        (row,) = (row for row in rows if f"`{name}`" in row[1].split(", "))
        counts = dict.fromkeys((about.train, *about.by_labels.values()))
        wanted = [f"{about.classes:,}", ", ".join(f"{n:,}" for n in counts), f"{about.test:,}" if about.test else "–"]
        assert row[2:5] == wanted, name
    assert COUNTS.keys() >= OFFICIAL.keys()
    for about in OFFICIAL.values():
        assert about.page in page


@pytest.mark.parametrize("name", ["cifar10", "cifar100n", "coco_captions", "web"])
def test_other_sets_that_are_not_all_there_are_told_too(data_dir, name):
    data = loaded(name, data_dir)
    count = COUNTS[name]
    has = f"{name} has {len(data.train):,} examples to train on and {len(data.test or ()):,} to test on here"
    assert data.notes[-1] == (f"{has}, where its authors have {count.train:,} and {count.test:,}")


def test_what_is_all_there_gets_no_note(data_dir, monkeypatch):
    monkeypatch.setitem(COUNTS, "food101n", Counts(3, 12, 6))
    assert loaded("food101n", data_dir).notes == ()
    monkeypatch.setitem(COUNTS, "clothing1m", Counts(14, 1, 28, {"verified": 84}))
    assert loaded("clothing1m", data_dir, labels="verified").notes == ()
    assert "where its authors have 1 and 28" in loaded("clothing1m", data_dir).notes[0]
    monkeypatch.setitem(COUNTS, "web", Counts(20, 80, 0))
    assert not any("authors" in note for note in loaded("web", data_dir).notes)
    *_, note = loaded("web", data_dir, test="voc2007").notes  # of what is tested on
    assert note.startswith("voc2007 has 80 examples to train on and 40 to test on here")
