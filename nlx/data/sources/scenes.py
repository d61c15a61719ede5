"""``web/sample``: multi-label scenes composed of real digits, tagged the way the web tags pictures.

A scene shows one to three of scikit-learn's real digits on clutter, and has ten tags, one per digit. The digit images
are split first, so that none appears in both training and test scenes. Test tags are true. Training tags go wrong as
they do on the web, and the true ones are kept beside them for evaluation:

- a digit that has a look-alike (1-7, 3-8, 4-9, 5-6) is mistaken for it with probability ``MISTAKEN * difficulty**2``,
  where the difficulty in [0, 1] is the mean of how faint and how small the digit and how cluttered the scene is;
- each tag is missing with probability ``MISSING``;
- scenes come in uploads of ``UPLOAD`` consecutive ones, and with probability ``COPIED`` all tags of an upload are
  copied from one scene of another upload.

These rates were fixed before any method was run on the scenes and stay as they are. Together they make 44.6 % of the
training scenes wrong in at least one tag and 9.7 % of all tag entries wrong; of the given tags 75 % are true, and 68 %
of the true tags are given.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nlx.data.cache import cached
from nlx.data.dataset import Dataset, Split
from nlx.data.sources.digits import CLASS_NAMES, real_digits

VERSION = 1  # raise it with any change of what is generated: it is part of the name of the cached file
SEED = 2019
NUM_TRAIN, NUM_TEST = 8000, 2000
SIZE = 32  # height and width of a scene, pixels
DIGITS_IN_SCENE = (0.35, 0.4, 0.25)  # probability of one, two, three
DIGIT_PIXELS = (10.0, 15.0)
CONTRAST = (0.45, 1.0)
STROKES = 5
BLOBS = 3

LOOK_ALIKE = np.array([0, 7, 2, 8, 9, 6, 5, 1, 3, 4])
MISTAKEN = 0.4
MISSING = 0.1
UPLOAD = 8
COPIED = 0.2


class Scenes(NamedTuple):
    """Composed scenes and what is in them.

    Attributes:
      image: uint8 ``[n, SIZE, SIZE, 1]``.
      digit: the row of the digit image in each of the three places, -1 for none, int32 ``[n, 3]``.
      shown: which class each place shows, -1 for none, int32 ``[n, 3]``.
      difficulty: how hard each digit is to tell, float ``[n, 3]`` in [0, 1].
    """

    image: np.ndarray
    digit: np.ndarray
    shown: np.ndarray
    difficulty: np.ndarray


class Tags(NamedTuple):
    """Noisy tags and what went wrong with them.

    Attributes:
      tags: uint8 ``[n, 10]``.
      mistaken: places whose digit was taken for its look-alike, bool ``[n, 3]``.
      missing: tags that were dropped, bool ``[n, 10]``.
      copied: scenes whose tags came from another upload, bool ``[n]``.
    """

    tags: np.ndarray
    mistaken: np.ndarray
    missing: np.ndarray
    copied: np.ndarray


def web_sample() -> Dataset:
    """The embedded sample, generated in seconds on the first call and read from the cache afterwards.

    Returns:
      The data set ``web/sample``: 8,000 training scenes with noisy and true tags, 2,000 test scenes with true ones;
      images uint8 ``[n, 32, 32, 1]``, tags uint8 ``[n, 10]``.
    """
    arrays = cached(f"web_sample_v{VERSION}", _generate)
    train = Split(arrays["image"], arrays["noisy_label"], arrays["label"])
    return Dataset("web/sample", CLASS_NAMES, train, Split(arrays["test_image"], None, arrays["test_label"]))


def _generate() -> dict[str, np.ndarray]:
    train, test, noisy = generate()
    return {
        "image": train.image,
        "noisy_label": noisy.tags,
        "label": tags_of(train.shown),
        "test_image": test.image,
        "test_label": tags_of(test.shown),
    }


def generate() -> tuple[Scenes, Scenes, Tags]:
    """Training scenes, test scenes, and the noisy tags of the training scenes; always the same."""
    train_seed, test_seed, noise_seed = np.random.SeedSequence(SEED).spawn(3)
    data = real_digits()
    train = compose(np.random.default_rng(train_seed), NUM_TRAIN, data.train)
    test = compose(np.random.default_rng(test_seed), NUM_TEST, data.test)
    return train, test, web_tags(np.random.default_rng(noise_seed), train)


def tags_of(shown: np.ndarray) -> np.ndarray:
    """The set of classes shown, as uint8 ``[n, 10]``, from classes ``[n, places]`` with -1 for none."""
    return (shown[:, :, None] == np.arange(len(CLASS_NAMES))).any(axis=1).astype(np.uint8)


def web_tags(rng: np.random.Generator, scenes: Scenes) -> Tags:
    """Tag scenes as the web does; see the module's documentation for the three ways in which tags go wrong.

    Args:
      rng: source of all randomness.
      scenes: what to tag.

    Returns:
      The noisy tags, and what went wrong.
    """
    n = len(scenes.shown)
    has_twin = LOOK_ALIKE[scenes.shown] != scenes.shown
    mistaken = (rng.random(scenes.shown.shape) < MISTAKEN * scenes.difficulty**2) & has_twin & (scenes.shown >= 0)
    tags = tags_of(np.where(mistaken, LOOK_ALIKE[scenes.shown], scenes.shown))
    missing = (rng.random(tags.shape) < MISSING) & (tags == 1)
    tags[missing] = 0

    upload = np.arange(n) // UPLOAD
    num_uploads = upload[-1] + 1
    is_copied = rng.random(num_uploads) < COPIED
    # A step of 1 to num_uploads - 1 around the circle of uploads never lands on the upload itself.
    source_upload = (
        np.arange(num_uploads) + 1 + (rng.random(num_uploads) * (num_uploads - 1)).astype(int)
    ) % num_uploads
    source = np.minimum(source_upload * UPLOAD + (rng.random(num_uploads) * UPLOAD).astype(int), n - 1)
    copied = is_copied[upload]
    return Tags(np.where(copied[:, None], tags[source[upload]], tags), mistaken, missing, copied)


def compose(rng: np.random.Generator, n: int, rows: np.ndarray) -> Scenes:
    """Compose scenes from some of the digits.

    Args:
      rng: source of all randomness.
      n: number of scenes.
      rows: which of the real digits may appear, int ``[m]``.

    Returns:
      The scenes.
    """
    data = real_digits()
    count = 1 + np.searchsorted(np.cumsum(DIGITS_IN_SCENE)[:-1], rng.random(n), side="right")
    present = np.arange(3) < count[:, None]
    digit = np.where(present, rows[(rng.random((n, 3)) * len(rows)).astype(int)], -1)
    clutter = rng.random(n)
    pixels = _between(DIGIT_PIXELS, rng.random((n, 3)))
    contrast = _between(CONTRAST, rng.random((n, 3)))
    corner = _place(rng, pixels, present)

    canvas = _clutter(rng, clutter)
    for place in range(3):
        ink = data.image[digit[:, place], :, :, 0].astype(np.float32) / 255 * (contrast * present)[:, place, None, None]
        down, across = (_stretch(corner[:, place, axis], pixels[:, place]) for axis in (0, 1))
        stamp = down @ ink.astype(np.float32) @ across.transpose(0, 2, 1)
        canvas = np.maximum(canvas, stamp)
    image = np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8)[..., None]

    faint, small = (_rest(CONTRAST, contrast), _rest(DIGIT_PIXELS, pixels))
    difficulty = (faint + small + clutter[:, None]) / 3
    shown = np.where(present, data.label[digit], -1).astype(np.int32)
    return Scenes(image, digit.astype(np.int32), shown, np.where(present, difficulty, 0.0))


def _between(limits: tuple[float, float], share: np.ndarray) -> np.ndarray:
    return limits[0] + (limits[1] - limits[0]) * share


def _rest(limits: tuple[float, float], value: np.ndarray) -> np.ndarray:
    """How far a value stays below its upper limit, 0 there and 1 at the lower limit."""
    return (limits[1] - value) / (limits[1] - limits[0])


def _place(rng: np.random.Generator, pixels: np.ndarray, present: np.ndarray, tries: int = 32) -> np.ndarray:
    """Top left corners ``[n, 3, 2]``: of some random placements of the digits, the one that overlaps least."""
    n = len(pixels)
    corners = rng.random((tries, n, 3, 2), dtype=np.float32) * (SIZE - pixels[None, :, :, None]).astype(np.float32)
    overlap = np.zeros((tries, n), np.float32)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        low = np.maximum(corners[:, :, a], corners[:, :, b])
        high = np.minimum(corners[:, :, a] + pixels[:, a, None], corners[:, :, b] + pixels[:, b, None])
        overlap += np.clip(high - low, 0, None).prod(-1) * (present[:, a] & present[:, b])
    return corners[overlap.argmin(0), np.arange(n)]


def _stretch(start: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Matrices ``[n, SIZE, 8]`` of linear interpolation that draw 8 pixels as ``pixels`` wide from ``start`` on."""
    at = (np.arange(SIZE) + 0.5 - start[:, None]) * (8 / pixels[:, None]) - 0.5
    return np.clip(1 - np.abs(at[:, :, None] - np.arange(8)), 0, None).astype(np.float32)


def _clutter(rng: np.random.Generator, level: np.ndarray) -> np.ndarray:
    """Backgrounds ``[n, SIZE, SIZE]`` of strokes, blobs and grain, their strength by ``level`` in [0, 1]."""
    n = len(level)
    grid = np.arange(SIZE, dtype=np.float32)
    canvas = np.zeros((n, SIZE, SIZE), np.float32)
    for _ in range(BLOBS):
        y, x = rng.random((2, n, 1), dtype=np.float32) * SIZE
        width = 3 + 5 * rng.random((n, 1), dtype=np.float32)
        strength = 0.25 * level * rng.random(n)
        down, across = (np.exp(-0.5 * ((grid - c) / width) ** 2) for c in (y, x))
        canvas += (strength.astype(np.float32)[:, None] * down)[:, :, None] * across[:, None, :]
    for _ in range(STROKES):
        strength = (level * (0.15 + 0.4 * rng.random(n))).astype(np.float32)
        canvas = np.maximum(canvas, strength[:, None, None] * _strokes(rng, n, grid))
    return canvas + (0.02 + 0.04 * level).astype(np.float32)[:, None, None] * rng.standard_normal(
        canvas.shape, np.float32
    )


def _strokes(rng: np.random.Generator, n: int, grid: np.ndarray) -> np.ndarray:
    """One straight pen stroke of 4 to 12 pixels in each of n pictures, ``[n, SIZE, SIZE]`` in [0, 1]."""
    y, x = rng.random((2, n, 1, 1), dtype=np.float32) * SIZE
    angle = rng.random((n, 1, 1), dtype=np.float32) * np.float32(2 * np.pi)
    half = 2 + 4 * rng.random((n, 1, 1), dtype=np.float32)
    dy, dx = grid[:, None] - y, grid[None, :] - x
    along = dx * np.cos(angle) + dy * np.sin(angle)
    across = dy * np.cos(angle) - dx * np.sin(angle)
    distance2 = across**2 + np.clip(np.abs(along) - half, 0, None) ** 2
    return np.exp(-distance2 / np.float32(1.5))
