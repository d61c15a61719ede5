"""Noise specifications such as ``shuffle:0.4``: read from text, applied to the clean labels of a data set."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from nlx import corruption, transitions
from nlx.data.dataset import DataError, Dataset, ImageFiles, Inputs, Split
from nlx.data.decode import decode_all

SINGLE_LABEL = ("symmetric", "pair", "asymmetric", "sparse", "adversarial", "instance", "shuffle", "outlier")
MULTI_LABEL = ("shuffle", "tags")
NOISE_KINDS = ("none", *SINGLE_LABEL, "tags")

_BY_CLASS = ("symmetric", "pair", "asymmetric", "sparse", "adversarial")  # a transition matrix says all there is to say
_ASYMMETRIC = (  # Patrini et al., 2017, section 5: true class and what it is taken for, of CIFAR-10 and of MNIST
    {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"},
    {"2": "7", "3": "8", "5": "6", "6": "5", "7": "1"},
)
_FEATURES = 64  # what instance and adversarial noise see of an input: at most so many numbers
_THUMBNAIL = 16  # height and width, pixels, of what they see of a picture on disk
_TILES = 4  # an image is cut into so many tiles each way, to be scrambled
_PROJECTION_SEED = 64


class NoiseSpec(NamedTuple):
    """A kind of synthetic label noise and how much of it.

    Attributes:
      kind: one of ``NOISE_KINDS``.
      rate: probability that an example, or a tag, is touched, in [0, 1].
    """

    kind: str
    rate: float

    def __str__(self) -> str:
        """The text that ``parse_noise`` reads back."""
        return self.kind if self.kind == "none" else f"{self.kind}:{self.rate:g}"


def parse_noise(text: str) -> NoiseSpec:
    """Read a noise specification.

    Args:
      text: ``none`` or ``KIND:RATE``, the kinds being

        - ``symmetric``: to any other class with equal probability;
        - ``pair``: to the next class;
        - ``asymmetric``: half of the classes to one that looks alike, by the names of CIFAR-10's classes (truck to
          automobile, bird to airplane, deer to horse, cat to dog and back) or of the ten digits (2 to 7, 3 to 8, 7 to
          1, 5 to 6 and back);
        - ``sparse``: to a few random other classes (at most ten, and a third of them) with equal probability;
        - ``adversarial``: to what a simple classifier confuses the class with;
        - ``instance``: how likely and to what depends on the input;
        - ``shuffle``: the CAN paper's vector shuffle, which may leave a label as it was;
        - ``outlier``: the input is replaced by one from elsewhere, with a random label;
        - ``tags``, for label vectors: each tag is missing with probability RATE, and as many are added elsewhere.

    Returns:
      The kind and the rate.

    Raises:
      DataError: unknown kind, or a rate that is missing, not a number or outside [0, 1].

    Examples:
      >>> parse_noise("symmetric:0.4")
      NoiseSpec(kind='symmetric', rate=0.4)
    """
    kind, colon, rate_text = text.strip().partition(":")
    if kind not in NOISE_KINDS:
        raise DataError(f"unknown noise {kind!r} in {text!r}: choose one of {', '.join(NOISE_KINDS)}.")
    if kind == "none":
        if colon:
            raise DataError(f"noise {text!r} has a rate, but 'none' takes none: write 'none'.")
        return NoiseSpec("none", 0.0)
    try:
        rate = float(rate_text)
    except ValueError:
        raise DataError(f"noise {text!r} has no rate: write it as '{kind}:0.4'.") from None
    if not 0.0 <= rate <= 1.0:
        raise DataError(f"noise {text!r} has rate {rate_text}: a rate must lie between 0 and 1.")
    return NoiseSpec(kind, rate)


def with_noise(dataset: Dataset, noise: NoiseSpec, seed: int, elsewhere: Dataset | None = None) -> Dataset:
    """The data set with its clean training labels, corrupted, instead of its noisy ones.

    Outliers come from ``elsewhere``. Without it they are made of the data set itself: images are cut into 4 by 4 tiles
    that change places, and of feature vectors each number is taken from another example. An outlier has no true class:
    its ``label`` is its random one, and ``outlier`` marks it so that scores leave it out.

    Args:
      dataset: its training labels must be known; its test split stays as it is.
      noise: which noise.
      seed: seed of the noise alone; the same seed gives the same labels.
      elsewhere: a data set whose training inputs, shaped like this one's, are of none of its classes.

    Returns:
      The data set, its name followed by ``/`` and the noise, and by ``+`` and where its outliers come from.

    Raises:
      DataError: the clean training labels are unknown, the kind of noise is not for such labels, or its inputs stay on
        disk and would have to be changed.
    """
    label = _checked_truth(dataset, noise)
    named = f"{dataset.name}/{noise}"
    if noise.kind == "outlier":
        named += f"+{elsewhere.name}" if elsewhere else ""
        return replace(dataset, name=named, train=_with_outliers(dataset, label, noise.rate, seed, elsewhere))
    noisy = _noisy_labels(dataset.train, label, noise, dataset.class_names, seed)
    return replace(dataset, name=named, train=replace(dataset.train, noisy_label=noisy))


def _checked_truth(dataset: Dataset, noise: NoiseSpec) -> np.ndarray:
    """The true training labels, to which such noise can be put."""
    label = dataset.train.label
    if label is None:
        raise DataError(
            f"{dataset.name} has no true training labels, which synthetic noise starts from: leave out `noise`."
        )
    if not dataset.train.known.all():
        raise DataError(
            f"{dataset.name} knows {dataset.train.known.sum()} of {len(label)} true training labels, and noise "
            f"starts from all: leave out `noise`."
        )
    kinds = ("none", *(MULTI_LABEL if label.ndim == 2 else SINGLE_LABEL))
    if noise.kind not in kinds:
        form = "label vectors" if label.ndim == 2 else "one class an example"
        raise DataError(f"noise '{noise}' is not for {dataset.name}, which has {form}: choose from {', '.join(kinds)}.")
    if label.ndim == 2 and label.shape[1] != dataset.num_classes:
        raise DataError(
            f"{dataset.name} has {dataset.num_classes} noisy tags but {label.shape[1]} true ones, of another "
            f"vocabulary: leave out `noise`."
        )
    if dataset.num_classes < 2 and noise.kind != "none":
        raise DataError(f"{dataset.name} has a single class, which cannot be mistaken: leave out `noise`.")
    return label


def _noisy_labels(train: Split, label: np.ndarray, noise: NoiseSpec, names: tuple[str, ...], seed: int) -> np.ndarray:
    """Noisy labels in the form of the clean ones, an array of their own."""
    num_classes = len(names)
    key = jax.random.key(seed)
    if noise.kind == "shuffle":
        return np.array(corruption.vector_shuffle(key, label, noise.rate, num_classes).labels)
    if noise.kind == "instance":
        features = _small_features(train.inputs)
        return np.array(corruption.instance_dependent(key, features, label, num_classes, noise.rate).labels)
    if noise.kind == "tags":
        tags = int(np.count_nonzero(label))
        spurious = min(1.0, noise.rate * tags / max(1, label.size - tags))
        return np.array(corruption.tag_noise(key, label, noise.rate, spurious, batch_copied=0.0).labels)
    if noise.kind in _BY_CLASS:
        matrix_key, flip_key = jax.random.split(key)
        matrix = _transition(train.inputs, label, noise, names, matrix_key)
        return np.array(corruption.flips(flip_key, label, matrix).labels)
    return label.copy()


def _transition(
    inputs: Inputs, label: np.ndarray, noise: NoiseSpec, names: tuple[str, ...], key: jax.Array
) -> jax.Array:
    """``T[i, j] = p(noisy = j | true = i)``, float32 ``[K, K]``."""
    num_classes = len(names)
    if noise.kind == "symmetric":
        return transitions.symmetric(num_classes, noise.rate)
    if noise.kind == "pair":
        return transitions.pair(num_classes, noise.rate)
    if noise.kind == "asymmetric":
        flips = next((pairs for pairs in _ASYMMETRIC if num_classes == 10 and {*pairs} <= {*names}), None)
        if flips is None:
            raise DataError(
                f"noise '{noise}' goes by the names of CIFAR-10's classes or of the ten digits, and these are "
                f"{', '.join(names[:10])}: choose pair or adversarial."
            )
        return transitions.pair(num_classes, noise.rate, [names.index(flips.get(name, name)) for name in names])
    if noise.kind == "sparse":
        return transitions.sparse(key, num_classes, noise.rate, targets=min(10, max(1, (num_classes - 1) // 3)))
    confusion = _confusion(_small_features(inputs), label, num_classes)
    try:
        return transitions.from_confusion(confusion, noise.rate, priors=np.bincount(label, minlength=num_classes))
    except ValueError as error:
        raise DataError(f"noise '{noise}' is more than a classifier's confusions can give: {error}.") from error


def _confusion(features: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """How often the nearest class mean takes true i for j, no example counting toward its own mean; int ``[K, K]``."""
    counts = np.bincount(label, minlength=num_classes)
    means = np.zeros((num_classes, features.shape[1]))
    np.add.at(means, label, features)
    means /= np.maximum(counts, 1)[:, None]
    distance = (means**2).sum(axis=1) - 2 * features @ means.T + (features**2).sum(axis=1, keepdims=True)
    distance[:, counts == 0] = np.inf
    rows, own = np.arange(len(label)), counts[label]
    # Without the example x, the mean c of n moves to (n c - x) / (n - 1), which is n / (n - 1) times as far from x.
    distance[rows, label] *= (own / np.maximum(own - 1, 1)) ** 2
    distance[rows[own == 1], label[own == 1]] = np.inf
    confusion = np.zeros((num_classes, num_classes), np.int32)
    np.add.at(confusion, (label, distance.argmin(axis=1)), 1)
    return confusion


def _small_features(inputs: Inputs) -> np.ndarray:
    """Standardized features, by a fixed random projection where there are many, float64 ``[n, F]`` with F <= 64."""
    array = decode_all(inputs.paths, _THUMBNAIL, inputs.top) if isinstance(inputs, ImageFiles) else inputs
    flat = array.reshape(len(array), -1)
    if flat.shape[1] > _FEATURES:
        onto = np.random.default_rng(_PROJECTION_SEED).standard_normal((flat.shape[1], _FEATURES))
        # In pieces, as pixels take eight times their memory in float64.
        flat = np.concatenate([part @ onto for part in np.array_split(flat, max(1, len(flat) // 4096))])
    features = flat - flat.mean(axis=0, dtype=np.float64)
    spread = features.std(axis=0)
    return features / np.where(spread > 0, spread, 1)


def _with_outliers(dataset: Dataset, label: np.ndarray, rate: float, seed: int, elsewhere: Dataset | None) -> Split:
    train = dataset.train
    if isinstance(train.inputs, ImageFiles):
        raise DataError(
            f"{dataset.name} stays on disk, where no picture can be replaced by an outlier: raise `in_memory_gib`."
        )
    noisy, mask = map(np.array, corruption.outliers(jax.random.key(seed), label, dataset.num_classes, rate))
    rng = np.random.default_rng([seed % 2**64, len(train), 0x6F7574])
    rows = np.flatnonzero(mask)
    inputs = train.inputs.copy()
    pool = None if elsewhere is None else elsewhere.train.inputs
    if isinstance(pool, ImageFiles):
        raise DataError(f"outliers are taken from memory only, and {pool.paths[0]} stays on disk.")
    if pool is not None:
        inputs[rows] = pool[rng.integers(len(pool), size=len(rows))]
    elif inputs.ndim == 2:
        for column in range(inputs.shape[1]):
            inputs[rows, column] = train.inputs[rng.integers(len(inputs), size=len(rows)), column]
    else:
        inputs[rows] = _scrambled(rng, train.inputs[rows])
    return replace(train, inputs=inputs, noisy_label=noisy, label=noisy.copy(), outlier=mask)


def _scrambled(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Images ``[n, H, W, C]`` whose tiles have changed places, in each image in another way."""
    n, height, width, channels = images.shape
    down, across = min(_TILES, height), min(_TILES, width)
    high, wide = height // down, width // across
    tiled = images[:, : down * high, : across * wide].reshape(n, down, high, across, wide, channels)
    tiles = tiled.swapaxes(2, 3).reshape(n, down * across, high, wide, channels)
    order = rng.permuted(np.tile(np.arange(down * across), (n, 1)), axis=1)
    moved = tiles[np.arange(n)[:, None], order].reshape(n, down, across, high, wide, channels).swapaxes(2, 3)
    scrambled = images.copy()
    scrambled[:, : down * high, : across * wide] = moved.reshape(n, down * high, across * wide, channels)
    return scrambled
