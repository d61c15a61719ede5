"""COCO on a tiny set in the layout of the official archives: words and objects come out as they went in."""

import json

import numpy as np
import pytest
from PIL import Image

from nlx.data import DataError, ImageFiles
from nlx.data.decode import decode_all
from nlx.data.sources.coco import WITHOUT_WORDS, coco_captions, coco_tags, vocabulary, words_of
from tests.data.test_fuzz import mutated

# Out of order, as the official file has them; ids have gaps, and hair drier is one of the classes without a word.
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}, {"id": 89, "name": "hair drier"}]
TRAIN_IDS = (30, 9, 25, 71, 64)
VAL_IDS = (42, 7, 900, 73, 74)
OBJECTS = {
    "train": [(9, 1), (9, 1), (9, 18), (25, 89), (30, 18), (71, 1)],
    "val": [(42, 1), (7, 18), (900, 89), (73, 1), (73, 18), (74, 18)],
}
CAPTIONS = [
    (9, "A man walks the man's DOG."),
    (9, "a man & a dog!"),
    (25, "The hair-dryer, a red one"),
    (30, "dog dog dog"),
    (71, "A red man."),
]


def photo(image):
    return str(1000 + image)


def images(part, ids):
    return [
        {
            "id": i,
            "file_name": f"COCO_{part}2014_{i:012}.jpg",
            "flickr_url": f"http://farm9.staticflickr.com/8186/{photo(i)}_4e622c8349_z.jpg",
            "width": 12,
            "height": 10,
        }
        for i in ids
    ]


@pytest.fixture
def official(tmp_path):
    """The folder as the archives leave it, and tags beside it; each picture is of one grey, its id modulo 256."""
    (tmp_path / "annotations").mkdir()
    for part, ids in (("train", TRAIN_IDS), ("val", VAL_IDS)):
        (tmp_path / f"{part}2014").mkdir()
        for image in images(part, ids):
            grey = (image["id"] % 256,) * 3
            Image.new("RGB", (12, 10), grey).save(tmp_path / f"{part}2014" / image["file_name"], quality=95)
        objects = [
            {"id": k, "image_id": i, "category_id": c, "bbox": [0, 0, 1, 1], "iscrowd": 0}
            for k, (i, c) in enumerate(OBJECTS[part])
        ]
        content = {"info": {}, "images": images(part, ids), "annotations": objects, "categories": CATEGORIES}
        write(tmp_path, f"instances_{part}2014", content)
    captions = [{"id": k, "image_id": i, "caption": text} for k, (i, text) in enumerate(CAPTIONS)]
    write(tmp_path, "captions_train2014", {"info": {}, "images": images("train", TRAIN_IDS), "annotations": captions})
    tags = {
        photo(9): ["Square Format", "man", "square  format", "square format"],
        photo(71): ["uploaded:by=flickr_mobile", "Man"],
        photo(25): [],
        "5": ["of another picture"],
    }
    write(tmp_path, "flickr_tags_train2014", tags)
    return tmp_path


def write(root, name, content):
    (root / "annotations" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


def change(root, name, edit):
    """Edit one of the JSON files in place."""
    content = json.loads((root / "annotations" / f"{name}.json").read_text("utf-8"))
    edit(content)
    write(root, name, content)


def test_captions(official):
    dataset = coco_captions(official, 8, num_words=5)
    assert dataset.name == "coco/captions"
    assert dataset.multi_label
    # dog 5; a 5; man 4, the possessive one included; red and the 2: equal counts by the alphabet
    assert dataset.noisy_names == ("a", "dog", "man", "red", "the")
    expected = {9: [1, 1, 1, 0, 1], 25: [1, 0, 0, 1, 1], 30: [0, 1, 0, 0, 0], 64: [0, 0, 0, 0, 0], 71: [1, 0, 1, 1, 0]}
    assert dataset.train.noisy_label.tolist() == list(expected.values())
    assert dataset.train.noisy_label.dtype == dataset.train.label.dtype == np.uint8
    assert dataset.given(dataset.train).tolist() == [[0, row[1]] for row in expected.values()]


def test_objects(official):
    dataset = coco_captions(official, 8)
    assert dataset.class_names == ("person", "dog")
    assert dataset.train.label.tolist() == [[1, 1], [0, 0], [0, 1], [0, 0], [1, 0]]
    every = coco_captions(official, 8, all_classes=True)
    assert every.class_names == ("person", "dog", "hair drier")
    assert every.train.label[:, 2].tolist() == [0, 1, 0, 0, 0]
    assert len(set(WITHOUT_WORDS)) == 80 - 73


def test_pictures_go_with_their_labels(official):
    dataset = coco_captions(official, 8)
    for split in (dataset.train, dataset.test):
        assert isinstance(split.inputs, ImageFiles)
        assert split.inputs.size == 8
    ids = [round(float(image.mean())) for image in decode_all(dataset.train.inputs.paths, 8)]
    assert ids == sorted(TRAIN_IDS)


def test_test_set_is_a_fixed_half_with_its_own_labels(official):
    dataset = coco_captions(official, 8, seed=1)
    assert dataset.test.noisy_label is None
    of_image = {7: [0, 1], 42: [1, 0], 73: [1, 1], 74: [0, 1], 900: [0, 0]}
    ids = [int(path[-16:-4]) for path in dataset.test.inputs.paths]
    assert len(ids) == 3
    assert ids == sorted(ids)
    assert all("val2014/COCO_val2014_" in path for path in dataset.test.inputs.paths)
    assert dataset.test.label.tolist() == [of_image[i] for i in ids]
    assert coco_tags(official, 8).test.inputs == dataset.test.inputs


def test_trusted_share(official):
    assert coco_captions(official, 8).train.trusted.sum() == 1
    dataset = coco_captions(official, 8, trusted=0.6, seed=3)
    assert dataset.train.trusted.dtype == bool
    assert dataset.train.trusted.sum() == 3
    masks = {tuple(coco_tags(official, 8, trusted=0.6, seed=seed).train.trusted) for seed in range(6)}
    assert len(masks) > 1


def test_tags(official):
    dataset = coco_tags(official, 8)
    assert dataset.name == "coco/tags"
    # a tag counts once a picture, however often it is given
    assert dataset.noisy_names == ("man", "square format", "uploaded:by=flickr_mobile")
    assert dataset.train.noisy_label.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 1]]
    assert dataset.class_names == ("person", "dog")
    assert coco_tags(official, 8, num_words=1, stop_words=("man",)).noisy_names == ("square format",)


def test_words_of():
    assert words_of("Two dogs, one cat.") == ["two", "dogs", "one", "cat"]
    assert words_of("The T-shirt - a MAN\N{RIGHT SINGLE QUOTATION MARK}s, isn't it?") == [
        "the",
        "t-shirt",
        "a",
        "man",
        "isn't",
        "it",
    ]
    assert words_of("caf\u00e9 at 5_6") == ["caf\u00e9", "at", "5", "6"]
    assert words_of("...") == []


def test_vocabulary():
    words = [["b", "a", "b"], ["c", "a", ""], ["c", "b"]]
    assert vocabulary(words, 10) == ("b", "a", "c")
    assert vocabulary(words, 2) == ("b", "a")
    assert vocabulary(words, 2, stop_words=("b", "absent")) == ("a", "c")
    assert vocabulary([], 5) == ()


@pytest.mark.parametrize("loader", [coco_captions, coco_tags])
def test_folder_is_needed(loader):
    with pytest.raises(DataError, match=f"{loader.__name__} needs a `data_dir`: the folder that holds 'annotations'"):
        loader(None)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("captions_train2014", "unpack annotations_trainval2014.zip"),
        ("instances_train2014", "unpack annotations_trainval2014.zip"),
        ("instances_val2014", "unpack annotations_trainval2014.zip"),
        ("flickr_tags_train2014", "collect the tags from Flickr"),
    ],
)
def test_file_that_is_missing_or_no_json(official, name, fix):
    path = official / "annotations" / f"{name}.json"
    loader = coco_tags if name.startswith("flickr") else coco_captions
    for content, match in (
        (b'{"images": [', "not JSON"),
        (b'{"a": "\xff\xfe"}', "not JSON"),
        (b"[]", "its top is no JSON object"),
        (None, "no such file"),
    ):
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        with pytest.raises(DataError, match=f"{name}.json: {match}.*{fix}") as caught:
            loader(official)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "edit", "match"),
    [
        ("captions_train2014", lambda c: c.pop("annotations"), "there is no list 'annotations' with entries"),
        (
            "captions_train2014",
            lambda c: c["annotations"][2].pop("caption"),
            "'annotations' entry 2 has no str 'caption'",
        ),
        (
            "captions_train2014",
            lambda c: c["annotations"][1].update(image_id=42),
            "'annotations' entry 1 is of image 42, which is not in .*instances_train2014.json: take both",
        ),
        (
            "captions_train2014",
            lambda c: [a.update(caption="?") for a in c["annotations"]],
            "there is no word in any caption",
        ),
        ("instances_train2014", lambda c: c.update(images=[]), "there is no list 'images' with entries"),
        ("instances_train2014", lambda c: c.update(categories={}), "there is no list 'categories' with entries"),
        ("instances_train2014", lambda c: c["images"].insert(3, "x"), "'images' entry 3 has no int 'id'"),
        (
            "instances_train2014",
            lambda c: c["annotations"][4].update(image_id=8),
            "'annotations' entry 4 has image_id 8, which is not listed: ",
        ),
        (
            "instances_val2014",
            lambda c: c["annotations"][3].update(category_id=2),
            "'annotations' entry 3 has category_id 2, which is not listed: ",
        ),
        (
            "instances_val2014",
            lambda c: c["categories"][0].update(name="cat"),
            "its categories are not those of .*instances_train2014.json",
        ),
    ],
)
def test_file_that_is_not_as_documented(official, name, edit, match):
    change(official, name, edit)
    with pytest.raises(DataError, match=f"{name}.json: {match}"):
        coco_captions(official)


def test_tags_that_are_not_as_documented(official):
    write(official, "flickr_tags_train2014", {photo(9): "one tag"})
    with pytest.raises(DataError, match="photo 1009 has no list of texts"):
        coco_tags(official)
    write(official, "flickr_tags_train2014", {photo(9): ["a", 3]})
    with pytest.raises(DataError, match="photo 1009 has no list of texts"):
        coco_tags(official)
    write(official, "flickr_tags_train2014", {"9": ["a"], "": ["b"]})
    with pytest.raises(DataError, match="must be numbers of photos on Flickr, such as 1009, not COCO's ids"):
        coco_tags(official)
    change(official, "instances_train2014", lambda c: [image.pop("flickr_url") for image in c["images"]])
    with pytest.raises(DataError, match="must be numbers of photos on Flickr, such as 2567034063"):
        coco_tags(official)


def test_tags_that_are_all_empty(official):
    write(official, "flickr_tags_train2014", {photo(9): [" "]})
    with pytest.raises(DataError, match="there is no tag"):
        coco_tags(official)


@pytest.mark.parametrize("part", ["train", "val"])
def test_pictures_that_are_missing(official, part):
    folder = official / f"{part}2014"
    ids = sorted({"train": TRAIN_IDS, "val": VAL_IDS}[part])
    for i in ids[1:3]:
        (folder / f"COCO_{part}2014_{i:012}.jpg").unlink()
    first = f"COCO_{part}2014_{ids[1]:012}.jpg"
    with pytest.raises(DataError, match=f"{part}2014: 2 of the 5 pictures of .* are missing, the first is {first}"):
        coco_captions(official)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    with pytest.raises(DataError, match=f"{part}2014: no such folder: unpack {part}2014.zip"):
        coco_captions(official)


@pytest.mark.parametrize(
    "name", ["instances_train2014", "instances_val2014", "captions_train2014", "flickr_tags_train2014"]
)
def test_damaged_json_is_read_rightly_or_told_in_one_sentence(official, name):
    path, rng = official / "annotations" / f"{name}.json", np.random.default_rng(0)
    read = coco_tags if "tags" in name else coco_captions
    intact, told = path.read_bytes(), []
    for _ in range(40):
        path.write_bytes(mutated(intact, rng))
        try:
            data = read(official)
        except DataError as error:
            told.append(str(error))
        else:
            assert data.train.noisy_label.shape == (len(data.train.inputs), len(data.noisy_names))
            assert data.train.label.shape == (len(data.train.inputs), data.num_classes)
            assert data.train.noisy_label.any()
    assert told
    assert not any("\n" in sentence for sentence in told)
