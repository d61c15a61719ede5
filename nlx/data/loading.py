"""One door to every data source: a name and options in, a data set out."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nlx.data.dataset import DataError, Dataset
from nlx.data.noise import NoiseSpec, parse_noise, with_noise
from nlx.data.sources.cifar import FORMS, cifar, cifar_n
from nlx.data.sources.coco import coco_captions, coco_tags
from nlx.data.sources.counts import told
from nlx.data.sources.digits import DEFAULT_NOISE, digits
from nlx.data.sources.idx import fashion_mnist, mnist
from nlx.data.sources.image_folder import folder
from nlx.data.sources.npz import npz
from nlx.data.sources.official import OFFICIAL, official
from nlx.data.sources.records import array_record, hugging_face, tfds
from nlx.data.sources.scenes import web_sample
from nlx.data.sources.tags import tags_sample

_HUMAN = ("cifar10n", "cifar100n")
KNOWN = (
    *("digits", "mnist", "fashion_mnist", "web", "tags", "coco_captions", "coco_tags", *FORMS, *_HUMAN, *OFFICIAL),
    *("hf:PATH", "array_record:GLOB", "tfds:NAME", "npz:PATH", "folder:PATH"),
)
LABELLED = (*_HUMAN, *(name for name, about in OFFICIAL.items() if about.labels), "npz")

_ARRAYS = ("digits", "mnist", "fashion_mnist", "tags", *FORMS, *_HUMAN, "npz")
_KINDS = tuple(name.partition(":")[0] for name in KNOWN)
FOREIGN = {"mnist": "fashion_mnist", "fashion_mnist": "mnist", "cifar10": "cifar100", "cifar100": "cifar10"}
"""Where outliers come from, if it can be had."""


def load(
    dataset: str,
    *,
    test: str | None = None,
    labels: str | None = None,
    data_dir: str | Path | None = None,
    noise: str | None = None,
    image_size: int = 224,
    noise_seed: int = 0,
    in_memory_gib: float = 2.0,
    label_separator: str = ";",
    skip_broken: bool = False,
    allow_outside: bool = False,
) -> Dataset:
    """Load a data set by name.

    - ``digits``: 1,797 real handwritten digits with synthetic noise;
    - ``mnist`` and ``fashion_mnist``: 70,000 pictures each, clean but for synthetic noise, from their own files under
      ``data_dir`` or from TensorFlow Datasets, the latter from its Debian package as well;
    - ``web``: the WEB set where it lies under ``<data_dir>/web/``, else the embedded sample;
    - ``tags``: the embedded sample with two vocabularies, words as noisy labels and digits as clean ones;
    - ``coco_captions`` and ``coco_tags``: COCO's pictures with caption words or Flickr tags, under ``data_dir``;
    - ``cifar10``, ``cifar100``, and with people's labels ``cifar10n`` (``labels``) and ``cifar100n``, and those of
      :data:`nlx.data.sources.official.OFFICIAL`: from their official files under ``data_dir``;
    - ``hf:PATH`` (Parquet), ``array_record:GLOB``, ``tfds:NAME`` (under ``data_dir``): pictures in large files;
    - ``npz:PATH``: your own arrays (``labels``);
    - ``folder:PATH``, or the path of a folder alone: your own pictures with a ``labels.csv``, or in folders by class.

    Args:
      dataset: one of the names above.
      test: another data set whose test examples to take, of those classes that are called alike in both.
      labels: which labelling to learn from, where there are several.
      data_dir: folder of the data sets that are not embedded; the others have no use for it.
      noise: synthetic noise on the true training labels, instead of the noisy labels that the data has; see
        :func:`nlx.data.noise.parse_noise`. Digits default to ``shuffle:0.4``, the others to their own labels. The
        outliers of ``mnist`` are ``fashion_mnist``, those of ``cifar10`` ``cifar100``, and vice versa, where these
        are.
      image_size: height and width of pictures read from files, pixels.
      noise_seed: seed of the synthetic noise.
      in_memory_gib: pictures that would fill more than this stay on disk, as ``ImageFiles``.
      label_separator: between several labels of one picture in a ``labels.csv``.
      skip_broken: leave out pictures of a folder that cannot be read, instead of refusing.
      allow_outside: take pictures that a ``labels.csv`` names outside its folder.

    Returns:
      The data set; ``web`` is called ``web/sample`` where the embedded sample is used, and synthetic noise follows
      the name, as in ``fashion_mnist/symmetric:0.4``.

    Raises:
      DataError: a name that is unknown, an option that does not apply, or anything wrong with the data.
    """
    kind, colon, path = dataset.partition(":")
    if kind and not colon and kind not in _KINDS and Path(kind).expanduser().is_dir():
        kind, colon, path = "folder", ":", dataset
    _check_name(dataset, kind, bool(colon), path)
    if labels is not None and kind not in LABELLED:
        raise DataError(f"{dataset} takes no `labels`: leave it out; only {', '.join(LABELLED)} can use one.")
    if labels is not None and noise is not None:
        raise DataError(
            f"{dataset} takes `labels`={labels} or `noise`={noise}, not both: noise corrupts the true labels and "
            f"leaves the noisy ones aside."
        )
    if kind == "digits":
        return digits(DEFAULT_NOISE if noise is None else noise, noise_seed)
    options = {
        "in_memory_gib": in_memory_gib,
        "label_separator": label_separator,
        "skip_broken": skip_broken,
        "allow_outside": allow_outside,
    }
    spec = None if noise is None else parse_noise(noise)
    loaded = _load(kind, path, labels, data_dir, image_size, options, synthetic=spec is not None)
    loaded = told(loaded, kind, labels)
    if spec is not None:
        elsewhere, notes = _elsewhere(kind, spec, data_dir)
        loaded = with_noise(loaded, spec, noise_seed, elsewhere)
        loaded = replace(loaded, notes=(*loaded.notes, *notes))
    if test is None:
        return loaded
    other = load(
        test,
        data_dir=data_dir,
        image_size=image_size,
        in_memory_gib=in_memory_gib,
        label_separator=label_separator,
        skip_broken=skip_broken,
        allow_outside=allow_outside,
    )
    return _tested_on(loaded, other)


def _tested_on(data: Dataset, other: Dataset) -> Dataset:
    """The data set with the test examples of another one, of those classes that are called alike in both.

    Raises:
      DataError: it has no test split or inputs of another shape, or there are no such classes.
    """
    index, test = {name: number for number, name in enumerate(data.class_names)}, other.test
    common = [name in index for name in other.class_names]
    if test is None or test.label is None or not any(common) or test.label.ndim != data.train.observed.ndim:
        raise DataError(f"{other.name} has no test examples of classes that {data.name} names: leave out `test`.")
    if other.input_shape != data.input_shape:
        raise DataError(f"{other.name} has inputs of {other.input_shape}, {data.name} of {data.input_shape}.")
    label = test.label
    if label.ndim == 1:
        place = np.array([index.get(name, -1) for name in other.class_names], np.int32)
        test = replace(test, label=place[label]).take(np.flatnonzero(place[label] >= 0))
    else:
        named = np.zeros((len(test), data.num_classes), label.dtype)
        named[:, [index[name] for name in other.class_names if name in index]] = label[:, common]
        test = replace(test, label=named)
    return replace(data, name=f"{data.name}+{other.name}", test=test, notes=(*data.notes, *other.notes))


def idle_options(dataset: str) -> tuple[str, ...]:
    """Names of the options of :func:`load` that do nothing for a data set, those for pictures and for a labels.csv."""
    kind = dataset.partition(":")[0]
    if kind in ("folder", "web") or kind not in _KINDS:
        return ()
    of_pictures = ("image_size", "in_memory_gib") if kind in _ARRAYS else ()
    return "label_separator", "skip_broken", "allow_outside", *of_pictures


def _load(
    kind: str,
    path: str,
    labels: str | None,
    data_dir: str | Path | None,
    image_size: int,
    options: dict[str, Any],
    synthetic: bool,
) -> Dataset:
    if kind == "mnist":
        return mnist(data_dir)
    if kind == "fashion_mnist":
        return fashion_mnist(data_dir)
    if kind == "tags":
        return tags_sample()
    if kind in ("coco_captions", "coco_tags"):
        read = coco_captions if kind == "coco_captions" else coco_tags
        return read(Path("data") if data_dir is None else data_dir, image_size)
    if kind == "npz":
        return npz(path, labels, clean=synthetic)
    if kind == "folder":
        return folder(path, image_size, **options, clean=synthetic)
    if kind in ("hf", "array_record"):
        return (hugging_face if kind == "hf" else array_record)(path, image_size, options["in_memory_gib"], synthetic)
    if kind == "tfds":
        return tfds(path, data_dir, image_size, options["in_memory_gib"], synthetic)
    if kind in FORMS:
        return cifar(kind, data_dir)
    if kind in _HUMAN:
        clean = kind.removesuffix("n")
        return replace(cifar(clean, data_dir), name=kind) if synthetic else cifar_n(kind, data_dir, labels)
    if kind in OFFICIAL:
        return official(kind, data_dir, labels, image_size, options["in_memory_gib"])
    if data_dir is not None and (Path(data_dir).expanduser() / "web" / "labels.csv").exists():
        real = Path(data_dir).expanduser() / "web"
        return folder(real, image_size, **options, name="web", multi_label=True)
    return web_sample()


def _elsewhere(kind: str, spec: NoiseSpec, data_dir: str | Path | None) -> tuple[Dataset | None, tuple[str, ...]]:
    """Where outliers come from, None for the data themselves, and what to say of that."""
    if spec.kind != "outlier" or kind not in FOREIGN:
        return None, ()
    try:
        return _load(FOREIGN[kind], "", None, data_dir, 0, {}, synthetic=False), ()
    except DataError as error:
        return None, (f"outliers are made of {kind} itself, for {FOREIGN[kind]} cannot be read: {error}",)


def _check_name(dataset: str, kind: str, colon: bool, path: str) -> None:
    needs_path = ":" in next((name for name in KNOWN if name.partition(":")[0] == kind), "")
    if kind not in _KINDS or (colon and not needs_path):
        close = difflib.get_close_matches(kind, _KINDS, n=1)
        hint = f" Did you mean {KNOWN[_KINDS.index(close[0])]}?" if close else ""
        raise DataError(f"unknown dataset {dataset!r}: choose one of {', '.join(KNOWN)}.{hint}")
    if needs_path and not path:
        raise DataError(f"dataset {dataset!r} needs a path: write {KNOWN[_KINDS.index(kind)]}.")
