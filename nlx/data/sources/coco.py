"""``coco_captions`` and ``coco_tags``: COCO's pictures with the words of their captions, or with their Flickr tags.

Both have the layout of the official archives of 2014, https://cocodataset.org, unpacked in one folder::

    annotations/captions_train2014.json     annotations_trainval2014.zip
    annotations/instances_train2014.json
    annotations/instances_val2014.json
    annotations/flickr_tags_train2014.json  your own, for coco_tags; see there
    train2014/COCO_train2014_*.jpg          train2014.zip
    val2014/COCO_val2014_*.jpg              val2014.zip

Pictures of ``train2014`` are trained on. Vahdat, 2017, tests on one half of ``val2014`` and validates on the other;
which half was which is not in the papers, so the test set here is a fixed random half, and the other is left alone.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nlx.data.dataset import DataError, Dataset, ImageFiles, Split
from nlx.data.pictures import find_files

SOURCE = "https://cocodataset.org/#download"
ARCHIVE = "annotations_trainval2014.zip"
AGAIN = f"get {ARCHIVE} again, from {SOURCE}"
CAPTIONS = "annotations/captions_train2014.json"
INSTANCES = "annotations/instances_{}2014.json"
TAGS = "annotations/flickr_tags_train2014.json"
TEST_SEED = 2014  # never to be changed: results are comparable only on one test set

# Misra et al., 2016, map classes to the 1,000 commonest words by hand and find no word for these: 80 - 7 = 73 remain.
WITHOUT_WORDS = ("hair drier", "handbag", "oven", "parking meter", "remote", "toaster", "traffic light")

_WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")
_PHOTO = re.compile(r"/(\d+)_[^/]*$")  # https://farm9.staticflickr.com/SERVER/PHOTO_SECRET_z.jpg


class _Part(NamedTuple):
    """``train2014`` or ``val2014``.

    Attributes:
      ids: COCO's image ids, sorted.
      photo: number of each picture on Flickr, as text; empty where unknown.
      paths: the files.
      label: {0, 1} uint8 ``[n, C]``.
      class_names: C names.
    """

    ids: tuple[int, ...]
    photo: tuple[str, ...]
    paths: tuple[str, ...]
    label: np.ndarray
    class_names: tuple[str, ...]


def coco_captions(
    data_dir: str | Path | None,
    image_size: int = 224,
    *,
    num_words: int = 1000,
    stop_words: Collection[str] = (),
    all_classes: bool = False,
    trusted: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """COCO's pictures, the words of their captions as noisy labels, their objects as clean ones.

    Words are runs of letters and digits in lower case, inner hyphens and apostrophes included, without a final 's. The
    vocabulary are those that occur most often in the training captions. The papers name no stop words, and the code of
    Misra et al. leaves out punctuation alone, so all words count unless ``stop_words`` says otherwise.

    Args:
      data_dir: the folder described in the module's documentation.
      image_size: height and width of the pictures, pixels: short side resized, centre cropped.
      num_words: N, size of the noisy vocabulary; fewer if there are not as many words.
      stop_words: words to leave out, in lower case.
      all_classes: take all 80 classes instead of the papers' 73.
      trusted: share of the training pictures whose clean labels methods may use, in (0, 1].
      seed: which of them.

    Returns:
      The data set ``coco/captions``: pictures as ``ImageFiles``, in the order of their ids, noisy labels uint8
      ``[n, N]`` by falling count, clean ones uint8 ``[n, C]`` in the order of COCO's categories.

    Raises:
      DataError: a file or folder that is missing, malformed or does not belong to the others.

    References:
      Vahdat, Toward Robustness against Label Noise in Training Deep Discriminative Neural Networks, 2017, section 4.1;
      Misra et al., Seeing through the Human Reporting Bias, 2016.
    """
    root = _root(data_dir, "coco_captions")
    path = root / CAPTIONS
    captions = _records(path, _json(path), "annotations", {"image_id": int, "caption": str})
    train, test = _parts(root, all_classes)
    of_image: dict[int, list[str]] = {image: [] for image in train.ids}
    for row, caption in enumerate(captions):
        if caption["image_id"] not in of_image:
            raise DataError(
                f"{path}: 'annotations' entry {row} is of image {caption['image_id']}, which is not in "
                f"{root / INSTANCES.format('train')}: take both files from one {ARCHIVE}."
            )
        of_image[caption["image_id"]] += words_of(caption["caption"])
    if not any(of_image.values()):
        raise DataError(f"{path}: there is no word in any caption: {AGAIN}.")
    names = vocabulary(of_image.values(), num_words, stop_words)
    return _dataset("coco/captions", train, test, of_image.values(), names, image_size).trust(trusted, seed)


def coco_tags(
    data_dir: str | Path | None,
    image_size: int = 224,
    *,
    num_words: int = 1024,
    stop_words: Collection[str] = (),
    all_classes: bool = False,
    trusted: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """COCO's pictures, their tags on Flickr as noisy labels, their objects as clean ones.

    Nobody has published the tags; the paper's author collected them through Flickr's public API. Put yours into
    ``annotations/flickr_tags_train2014.json``: one object that maps the number of a photo on Flickr to the list of its
    tags, ``{"2567034063": ["Square Format", "macro"], ...}``. The number stands in ``flickr_url`` of COCO's images,
    between the last slash and the underscore, and is what ``flickr.tags.getListPhoto`` takes as ``photo_id``; a tag is
    the ``raw`` of its answer. Photos that are no longer there, and so are not in the file, count as untagged.

    Tags are compared in lower case with single spaces, but not taken apart.

    Args:
      data_dir: the folder described in the module's documentation.
      num_words: N, size of the noisy vocabulary; fewer if there are not as many tags.
      stop_words: tags to leave out, in lower case.
      image_size, all_classes, trusted, seed: see :func:`coco_captions`.

    Returns:
      The data set ``coco/tags``, in the form of :func:`coco_captions`.

    Raises:
      DataError: a file or folder that is missing, malformed or does not belong to the others.

    References:
      Vahdat, Toward Robustness against Label Noise in Training Deep Discriminative Neural Networks, 2017, section 4.2.
    """
    root = _root(data_dir, "coco_tags")
    path = root / TAGS
    tags = _json(path, "collect the tags from Flickr, as the documentation of coco_tags says")
    for photo, some in tags.items():
        if not isinstance(some, list) or not all(isinstance(tag, str) for tag in some):
            raise DataError(f'{path}: photo {photo} has no list of texts: write {{"{photo}": ["one tag", "another"]}}.')
    train, test = _parts(root, all_classes)
    if not any(photo and photo in tags for photo in train.photo):
        raise DataError(
            f"{path}: no photo of it is in {root / INSTANCES.format('train')}: its keys must be numbers of photos on "
            f"Flickr, such as {next(filter(None, train.photo), '2567034063')}, not COCO's ids."
        )
    words = [list(dict.fromkeys(" ".join(tag.lower().split()) for tag in tags.get(photo, ()))) for photo in train.photo]
    if not any(any(some) for some in words):
        raise DataError(f"{path}: there is no tag of any photo of COCO's training pictures: collect them anew.")
    names = vocabulary(words, num_words, stop_words)
    return _dataset("coco/tags", train, test, words, names, image_size).trust(trusted, seed)


def words_of(caption: str) -> list[str]:
    """The words of a caption, see :func:`coco_captions`.

    Examples:
      >>> words_of("The man's T-shirt says 'NO_WAY 66'.")
      ['the', 'man', 't-shirt', 'says', 'no', 'way', '66']
    """
    words = _WORD.findall(caption.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    return [word.removesuffix("'s") for word in words]


def vocabulary(words: Iterable[Iterable[str]], size: int, stop_words: Collection[str] = ()) -> tuple[str, ...]:
    """The commonest words, by falling count; the alphabet decides between equal counts.

    Args:
      words: of each example.
      size: how many at most.
      stop_words: words to leave out.

    Examples:
      >>> vocabulary([["a", "cat"], ["a", "dog"], ["a", "bee", "dog"]], 3)
      ('a', 'dog', 'bee')
    """
    counts = Counter(word for some in words for word in some)
    for word in ("", *stop_words):
        counts.pop(word, None)
    return tuple(sorted(counts, key=lambda word: (-counts[word], word))[:size])


def _dataset(
    name: str, train: _Part, test: _Part, words: Collection[Sequence[str]], names: tuple[str, ...], image_size: int
) -> Dataset:
    column = {word: i for i, word in enumerate(names)}
    noisy = np.zeros((len(words), len(names)), np.uint8)
    for row, some in zip(noisy, words, strict=True):
        row[[column[word] for word in some if word in column]] = 1
    train_split = Split(ImageFiles(train.paths, image_size), noisy, train.label)
    test_split = Split(ImageFiles(test.paths, image_size), None, test.label)
    return Dataset(name, train.class_names, train_split, test_split, names)


def _parts(root: Path, all_classes: bool) -> tuple[_Part, _Part]:
    """The training pictures and the test half of the others."""
    train, val = (_part(root, part, all_classes) for part in ("train", "val"))
    if train.class_names != val.class_names:
        raise DataError(
            f"{root / INSTANCES.format('val')}: its categories are not those of "
            f"{root / INSTANCES.format('train')}: take both files from one {ARCHIVE}."
        )
    rows = np.random.default_rng(TEST_SEED).permutation(len(val.ids))[: (len(val.ids) + 1) // 2]
    rows.sort()
    ids, photo, paths = (tuple(column[i] for i in rows) for column in (val.ids, val.photo, val.paths))
    return train, _Part(ids, photo, paths, val.label[rows], val.class_names)


def _part(root: Path, part: str, all_classes: bool) -> _Part:
    path = root / INSTANCES.format(part)
    content = _json(path)
    images = _records(path, content, "images", {"id": int, "file_name": str})
    categories = _records(path, content, "categories", {"id": int, "name": str})
    objects = _records(path, content, "annotations", {"image_id": int, "category_id": int})

    kept = [c for c in sorted(categories, key=lambda c: c["id"]) if all_classes or c["name"] not in WITHOUT_WORDS]
    known = {c["id"] for c in categories}
    by_id = {image["id"]: image for image in images}
    row_of = {image: row for row, image in enumerate(sorted(by_id))}
    column_of = {c["id"]: column for column, c in enumerate(kept)}
    label = np.zeros((len(row_of), len(kept)), np.uint8)
    for entry, thing in enumerate(objects):
        for key, ids in (("image_id", row_of), ("category_id", known)):
            if thing[key] not in ids:
                raise DataError(
                    f"{path}: 'annotations' entry {entry} has {key} {thing[key]}, which is not listed: {AGAIN}."
                )
        if thing["category_id"] in column_of:
            label[row_of[thing["image_id"]], column_of[thing["category_id"]]] = 1

    ordered = [by_id[image] for image in row_of]
    folder = root / f"{part}2014"
    _check_pictures(folder, path, [image["file_name"] for image in ordered])
    photos = (_PHOTO.search(str(image.get("flickr_url", ""))) for image in ordered)
    return _Part(
        tuple(row_of),
        tuple(photo.group(1) if photo else "" for photo in photos),
        tuple(str(folder / image["file_name"]) for image in ordered),
        label,
        tuple(c["name"] for c in kept),
    )


def _check_pictures(folder: Path, path: Path, names: Sequence[str]) -> None:
    archive = f"{folder.name}.zip"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder: unpack {archive} there, from {SOURCE}.")
    found = find_files(folder, names)
    if missing := [row for row, file in enumerate(found) if file.path is None or file.outside]:
        raise DataError(
            f"{folder}: {len(missing)} of the {len(names)} pictures of {path.name} are missing, the first is "
            f"{names[missing[0]]}: unpack {archive} again, from {SOURCE}."
        )


def _root(data_dir: str | Path | None, name: str) -> Path:
    if data_dir is None:
        raise DataError(f"{name} needs a `data_dir`: the folder that holds 'annotations', 'train2014' and 'val2014'.")
    return Path(data_dir).expanduser()


def _json(path: Path, fix: str = f"unpack {ARCHIVE} in the folder above, from {SOURCE}") -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such file: {fix}.")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # bad JSON and bad UTF-8 are the former
        raise DataError(f"{path}: not JSON ({error}): {fix}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: its top is no JSON object: {fix}.")
    return content


def _records(path: Path, content: dict[str, Any], key: str, fields: dict[str, type]) -> list[dict[str, Any]]:
    """A list of objects with at least these fields."""
    records = content.get(key)
    if not isinstance(records, list) or not records:
        raise DataError(f"{path}: there is no list '{key}' with entries: {AGAIN}.")
    for entry, record in enumerate(records):
        for field, kind in fields.items():
            if not isinstance(record, dict) or not isinstance(record.get(field), kind):
                raise DataError(f"{path}: '{key}' entry {entry} has no {kind.__name__} '{field}': {AGAIN}.")
    return records
