"""Data sets of pictures as their authors hand them out: a short reader for each."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.io import loadmat

from nlx.data.dataset import DataError, Dataset, Split
from nlx.data.pictures import class_folders
from nlx.data.sources.layout import Layout, Listed

ANIMALS = ("cat", "lynx", "wolf", "coyote", "cheetah", "jaguar", "chimpanzee", "orangutan", "hamster", "guinea pig")
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable"),
    *("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_MINI = 50  # classes of WebVision that its mini version keeps, of Google's pictures alone


def imagenet(layout: Layout) -> Dataset:
    """``train/`` and ``val/``, in each a folder for every class, as torchvision's scripts leave them."""
    parts = [class_folders(layout.folder(part)) for part in ("train", "val")]
    train, test = ([Path(name).parts[0] for name in names] for names in parts)
    made = (path.name for path in (layout.root / "train").iterdir() if path.is_dir() and path.name[0] != ".")
    classes = sorted({*made, *train})
    if not classes:
        raise layout.wrong(layout.root / "train", "holds no folders of pictures")
    for part, names in (("train", train), ("val", test)):
        if lacking := sorted(set(classes) - set(names)):
            raise layout.wrong(layout.root / part / lacking[0], "holds no pictures of this class")
    if strange := sorted(set(test) - set(classes)):
        raise layout.wrong(layout.root / "val" / strange[0], "is no class of train; sort val into its classes")
    labels = [np.searchsorted(classes, part).astype(np.int32) for part in (train, test)]
    one, other = (layout.root / part for part in ("train", "val"))
    return layout.dataset(
        classes, [Listed(one, one, parts[0], labels[0], labels[0])], Listed(other, other, parts[1], labels[1])
    )


def clothing1m(layout: Layout, labels: str) -> Dataset:
    """The key lists and the two tables of labels, in the folder of ``images/`` or in ``annotations/``.

    ``noisy``: a million noisy labels alone. ``verified``: with the clean labels of training pictures that have a noisy
    one. ``clean``: with all clean labels of training pictures. ``scored``: as ``verified``, but the clean labels are
    only for scores.
    """
    at = "annotations/" if (layout.root / "annotations").is_dir() else ""
    classes = layout.once(layout.rows(f"{at}category_names_eng.txt", 1))
    noisy_of, clean_of = (
        layout.table(layout.rows(f"{at}{kind}_label_kv.txt", 2), len(classes)) for kind in ("noisy", "clean")
    )
    seen: dict[str, str] = {}

    def part(name: str, table: dict[str, int], among: Container[str] | None = None) -> Listed:
        rows = layout.rows(f"{at}{name}_key_list.txt", 1)
        for number, key in enumerate(layout.once(rows), start=1):
            if seen.setdefault(key, name) != name:
                raise layout.wrong(
                    rows.where, f"row {number} names {key!r}, which {seen[key]}_key_list.txt has as well"
                )
            if key not in table:
                raise layout.wrong(rows.where, f"row {number} names {key!r}, which has no label")
        kept = [
            (number, row[0]) for number, row in enumerate(rows.cells, rows.first) if among is None or row[0] in among
        ]
        keys, row = [key for _, key in kept], np.array([number for number, _ in kept])
        return Listed(rows.where, layout.root, keys, np.array([table[key] for key in keys], np.int32), row=row)

    train = [part("noisy_train", noisy_of)]
    if labels != "noisy":
        known = part("clean_train", clean_of, None if labels == "clean" else noisy_of)
        filled = np.array([name not in noisy_of for name in known.names])
        given = np.array([noisy_of.get(n, y) for n, y in zip(known.names, known.label.tolist(), strict=True)], np.int32)
        train.append(known._replace(label=given, true=known.label, filled=filled))
    return layout.dataset(classes, train, part("clean_test", clean_of), trust=labels != "scored")


def food101n(layout: Layout, labels: str) -> Dataset:
    """``Food-101N_release/`` to train on, the test list of ``food-101/`` to test on.

    ``noisy``: the labels alone. ``verified``: those that were verified as right are true ones, and trusted; those that
    were verified as wrong are known to be.
    """
    ours, tested = "Food-101N_release", "food-101"
    classes = layout.once(layout.rows(f"{ours}/meta/classes.txt", 1, heading=True))
    listed = layout.rows(f"{ours}/meta/imagelist.tsv", 1, heading=True)
    test = layout.rows(f"{tested}/meta/test.txt", 1)
    label, known = (layout.of_class(rows, classes) for rows in (listed, test))
    true = wrong = None
    if labels == "verified":
        checked = layout.rows(f"{ours}/meta/verified_train.tsv", 2, heading=True)
        right, names = layout.table(checked, 2), set(listed.column(0))
        for number, name in enumerate(checked.column(0), checked.first):
            if name not in names:
                raise layout.wrong(checked.where, f"row {number} names {name!r}, which {listed.where.name} does not")
        true = np.where([right.get(name) == 1 for name in listed.column(0)], label, np.int32(-1))
        wrong = np.array([right.get(name) == 0 for name in listed.column(0)])
    test = test._replace(cells=[[f"{name}.jpg"] for name in test.column(0)])
    train = listed.listed(layout.root / ours / "images", label, true=true, wrong=wrong)
    return layout.dataset(classes, [train], test.listed(layout.root / tested / "images", known))


def webvision(layout: Layout, mini: bool = False) -> Dataset:
    """``info/`` with its lists, ``google/`` and ``flickr/``, and ``val_images_256/``; the test set is its val."""
    classes = layout.once(layout.rows("info/synsets.txt", 2))
    limit = min(_MINI, len(classes)) if mini else len(classes)

    def part(file: str, folder: Path) -> Listed:
        rows = layout.rows(f"info/{file}.txt", 2)
        label = layout.numbers(rows, 1, len(classes))
        kept = np.flatnonzero(label < limit)
        return Listed(rows.where, folder, [rows.cells[i][0] for i in kept], label[kept], row=kept + rows.first)

    train = [
        part(f"train_filelist_{source}", layout.root) for source in (("google",) if mini else ("google", "flickr"))
    ]
    return layout.dataset(classes[:limit], train, part("val_filelist", layout.folder("val_images_256", "val_images")))


def animal10n(layout: Layout) -> Dataset:
    """``training/`` and ``testing/``, with pictures that are called by their label, ``3_000123.jpg``."""
    parts = []
    for folder in ("training", "testing"):
        root = layout.folder(folder)
        names = sorted(path.name for path in root.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        for name in names:
            if name.partition("_")[0] not in map(str, range(len(ANIMALS))):
                raise layout.wrong(root / name, "does not begin with a class number and _")
        label = np.array([int(name.partition("_")[0]) for name in names], np.int32)
        parts.append(Listed(root, root, names, label))
    return layout.dataset(ANIMALS, parts[:1], parts[1])


def voc(layout: Layout, year: int) -> Dataset:
    """``VOC2007/`` or ``VOC2012/`` of the development kit: the objects that are seen, difficult ones left out.

    Of 2007 trainval is trained on and test tested on; of 2012, whose test labels are not public, train and val.
    """
    root, parts = layout.root / f"VOC{year}", []
    for part in ("trainval", "test") if year == 2007 else ("train", "val"):
        columns, first = [], layout.rows(f"VOC{year}/ImageSets/Main/{VOC_CLASSES[0]}_{part}.txt", 2)
        for name in VOC_CLASSES:
            rows = layout.rows(f"VOC{year}/ImageSets/Main/{name}_{part}.txt", 2)
            if len(rows.cells) != len(first.cells):
                raise layout.wrong(rows.where, f"has {len(rows.cells)} rows, other classes have {len(first.cells)}")
            for number, (own, other) in enumerate(zip(rows.column(0), first.column(0), strict=True), rows.first):
                if own != other:
                    raise layout.wrong(rows.where, f"row {number} names {own!r}, and that of other classes {other!r}")
            columns.append(layout.numbers(rows, 1, 2, least=-1) == 1)
        label = np.stack(columns, axis=1).astype(np.uint8)
        names = [f"{name}.jpg" for name in first.column(0)]
        parts.append(Listed(first.where, root / "JPEGImages", names, label, label))
    return layout.dataset(VOC_CLASSES, parts[:1], parts[1])


def svhn(layout: Layout, extra: bool = False) -> Dataset:
    """``train_32x32.mat`` and ``test_32x32.mat``, and with the extra pictures ``extra_32x32.mat``."""
    parts = []
    for part in ("train", "test", "extra")[: 2 + extra]:
        path = layout.root / f"{part}_32x32.mat"
        if not path.is_file():
            raise layout.wrong(path, "no such file")
        try:
            content = loadmat(path, variable_names=("X", "y"))
            images, y = content["X"].transpose(3, 0, 1, 2), content["y"].reshape(-1)
            bad = np.flatnonzero(~np.isin(y, np.arange(11)))
        except Exception as error:  # a broken file can raise anything
            raise layout.wrong(path, f"cannot be read ({' '.join(str(error).split())})") from error
        if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or len(images) != len(y):
            raise layout.wrong(path, f"'X' is {images.dtype} {list(images.shape)} for {len(y)} labels 'y'")
        if not len(y):
            raise layout.wrong(path, "holds no pictures")
        if len(bad):
            raise layout.wrong(path, f"'y' row {bad[0]} is {y[bad[0]]}, no whole number from 0 to 10")
        label = y.astype(np.int32) % 10
        parts.append((np.ascontiguousarray(images), label))
    train = parts[0] if not extra else [np.concatenate(pair) for pair in zip(parts[0], parts[2], strict=True)]
    test = Split(parts[1][0], None, parts[1][1])
    return Dataset(layout.name, tuple("0123456789"), Split(train[0], train[1], train[1]), test)


class Official(NamedTuple):
    """A data set.

    Attributes:
      read: from its folder and, where it has several, a choice of labels.
      folder: below the data folder.
      page: where it comes from.
      labels: which it has; the first is the default.
    """

    read: Callable[..., Dataset]
    folder: str
    page: str
    labels: tuple[str, ...] = ()


_VOC_PAGE = "http://host.robots.ox.ac.uk/pascal/VOC"
_WEBVISION_PAGE = "https://data.vision.ee.ethz.ch/cvl/webvision/dataset2017.html"
_SVHN_PAGE = "http://ufldl.stanford.edu/housenumbers"
_CLOTHES = ("noisy", "verified", "clean", "scored")
OFFICIAL: dict[str, Official] = {
    "imagenet": Official(imagenet, "imagenet", "https://image-net.org/download.php"),
    "clothing1m": Official(clothing1m, "clothing1m", "https://github.com/Cysu/noisy_label", _CLOTHES),
    "food101n": Official(food101n, "food101n", "https://kuanghuei.github.io/Food-101N", ("noisy", "verified")),
    "webvision": Official(webvision, "webvision", _WEBVISION_PAGE),
    "webvision_mini": Official(partial(webvision, mini=True), "webvision", _WEBVISION_PAGE),
    "animal10n": Official(animal10n, "animal10n", "https://dm.kaist.ac.kr/datasets/animal-10n"),
    "voc2007": Official(partial(voc, year=2007), "VOCdevkit", f"{_VOC_PAGE}/voc2007"),
    "voc2012": Official(partial(voc, year=2012), "VOCdevkit", f"{_VOC_PAGE}/voc2012"),
    "svhn": Official(svhn, "svhn", _SVHN_PAGE),
    "svhn_extra": Official(partial(svhn, extra=True), "svhn", _SVHN_PAGE),
}


def official(
    name: str, data_dir: str | Path | None, labels: str | None, image_size: int, in_memory_gib: float
) -> Dataset:
    """A data set of :data:`OFFICIAL`.

    Args:
      name: which.
      data_dir: the folder that its own folder lies in.
      labels: which of its labels; by default the first.
      image_size: height and width of pictures from files, pixels.
      in_memory_gib: pictures that fill no more than this are decoded at once, others stay on disk.

    Raises:
      DataError: a file that is missing or otherwise than its authors have it, or labels that do not exist.
    """
    about = OFFICIAL[name]
    if labels is not None and labels not in about.labels:
        raise DataError(f"{name} has no labels {labels!r}: choose one of {', '.join(about.labels)}.")
    layout = Layout(name, Path(data_dir or "data").expanduser() / about.folder, about.page, image_size, in_memory_gib)
    if not layout.root.is_dir():
        raise layout.wrong(layout.root, "no such folder")
    chosen = labels or next(iter(about.labels), None)
    data = about.read(layout) if chosen is None else about.read(layout, chosen)
    return replace(data, name=f"{name}/{labels}" if labels else name)
