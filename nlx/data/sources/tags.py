"""``tags/sample``: scenes of real digits with ten clean classes, and the forty words that people wrote under them.

The pictures are made like those of ``web/sample``; the clean labels say which of the digits zero to nine are shown. The
noisy labels are another vocabulary, as captions and Flickr tags are: the class words themselves, synonyms, words for
several classes (``even``, ``round``), words for the scene as a whole (``pair``, ``blurry``), words of people who write
alike (``school``, ``canon``), and frequent and rare words about nothing in the picture. Who writes:

- takes a digit that has a look-alike for it as the taggers of ``web/sample`` do, in 9 % of the cases;
- writes much, little or nothing at all (``ZEAL``), which makes all words of a scene come and go together;
- may have a habit (``HABITS``): some tag by school or by camera, and some count, ``one two three``, whatever
  there is to see;
- mentions, of all that holds, a part: each word has a rate per reason to write it (``WORDS``), and reasons add up as in
  a noisy-or, :math:`p(w) = 1 - \\prod_r (1 - \\text{rate}_{w,r}\\, r)`, times the writer's zeal.

A fifth of the training scenes is trusted. All rates were fixed before any method was run on the scenes and stay as they
are. A scene has 4.6 words, and 9 % of the scenes have none. Of the classes shown, their own words name 39 %; of these
words, 73 % are true. Ranked by their classes' own words alone, the scenes that are not trusted reach 40 % mAP; by
logistic regressions on these ten words, learnt from the trusted scenes, 47 %; on all words, 62 %.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nlx.data.cache import cached
from nlx.data.dataset import Dataset, Split
from nlx.data.sources.digits import real_digits
from nlx.data.sources.scenes import LOOK_ALIKE, MISTAKEN, Scenes, compose, tags_of

VERSION = 1  # raise it with any change of what is generated: it is part of the name of the cached file
SEED = 2017
NUM_TRAIN, NUM_TEST = 5000, 1000
TRUSTED = 0.2  # share of the training scenes, as in Vahdat, 2017, section 4.1

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

ZEAL = {0.0: 0.08, 0.7: 0.46, 1.3: 0.46}  # factor on all rates: share of the scenes
HABITS = {"school": 0.15, "camera": 0.2, "counting": 0.05}  # share of the scenes; independent of each other
REASONS = (*CLASS_NAMES, "one digit", "two digits", "three digits", "difficult", *HABITS, "always")

WORDS: dict[str, dict[str, float]] = {
    # the class words; people count on from one
    "zero": {"zero": 0.35, "always": 0.01},
    "one": {"one": 0.5, "counting": 0.6, "always": 0.02},
    "two": {"two": 0.5, "two digits": 0.05, "counting": 0.6, "always": 0.01},
    "three": {"three": 0.5, "three digits": 0.05, "counting": 0.6, "always": 0.01},
    "four": {"four": 0.4, "counting": 0.3, "always": 0.01},
    "five": {"five": 0.45, "counting": 0.2, "always": 0.01},
    "six": {"six": 0.4, "always": 0.01},
    "seven": {"seven": 0.5, "always": 0.02},
    "eight": {"eight": 0.4, "always": 0.01},
    "nine": {"nine": 0.35, "always": 0.01},
    # their synonyms, some of which mean other things too
    "nil": {"zero": 0.3, "always": 0.005},
    "single": {"one": 0.2, "one digit": 0.15, "always": 0.01},
    "double": {"two": 0.25, "two digits": 0.15, "always": 0.01},
    "trio": {"three": 0.25, "three digits": 0.15, "always": 0.005},
    "quad": {"four": 0.25, "always": 0.005},
    "star": {"five": 0.25, "always": 0.02},
    "hex": {"six": 0.25, "always": 0.005},
    "lucky": {"seven": 0.3, "always": 0.02},
    "snowman": {"eight": 0.25, "always": 0.005},
    "niner": {"nine": 0.25, "always": 0.005},
    # words for several classes
    "even": {"zero": 0.15, "two": 0.3, "four": 0.3, "six": 0.3, "eight": 0.3, "school": 0.1, "always": 0.01},
    "odd": {"one": 0.3, "three": 0.3, "five": 0.3, "seven": 0.3, "nine": 0.3, "school": 0.1, "always": 0.02},
    "prime": {"two": 0.2, "three": 0.25, "five": 0.25, "seven": 0.25, "school": 0.1, "always": 0.01},
    "round": {"zero": 0.35, "three": 0.1, "six": 0.25, "eight": 0.3, "nine": 0.25, "always": 0.02},
    "straight": {"one": 0.35, "four": 0.3, "seven": 0.3, "always": 0.02},
    "small": {"zero": 0.2, "one": 0.25, "two": 0.2, "always": 0.03},
    "large": {"seven": 0.15, "eight": 0.2, "nine": 0.3, "always": 0.03},
    # words for the scene
    "alone": {"one digit": 0.3, "always": 0.02},
    "pair": {"two digits": 0.35, "always": 0.02},
    "several": {"three digits": 0.4, "two digits": 0.1, "always": 0.01},
    "sum": {"three digits": 0.15, "two digits": 0.1, "school": 0.3, "always": 0.005},
    "blurry": {"difficult": 0.4, "always": 0.01},
    # words of people who write alike
    "math": {"school": 0.6, "always": 0.03},
    "homework": {"school": 0.4, "always": 0.01},
    "canon": {"camera": 0.5, "always": 0.03},
    "macro": {"camera": 0.4, "always": 0.01},
    # words about nothing in the picture
    "number": {"counting": 0.3, "always": 0.45},
    "photo": {"camera": 0.3, "always": 0.3},
    "birthday": {"always": 0.02},
    "lottery": {"always": 0.015},
}


class Writing(NamedTuple):
    """Words under scenes, and who wrote them.

    Attributes:
      words: uint8 ``[n, 40]``.
      seen: which class each place was taken for, -1 for none, int32 ``[n, 3]``.
      zeal: factor on all rates, float ``[n]``.
      reasons: how far each of ``REASONS`` holds, float ``[n, reasons]`` in [0, 1].
    """

    words: np.ndarray
    seen: np.ndarray
    zeal: np.ndarray
    reasons: np.ndarray


def tags_sample() -> Dataset:
    """The embedded two-vocabulary sample, generated in seconds on the first call and read from the cache afterwards.

    Returns:
      The data set ``tags/sample``: 5,000 training scenes with noisy words uint8 ``[n, 40]`` and true classes uint8
      ``[n, 10]``, 1,000 of them trusted, and 1,000 test scenes with true classes; images uint8 ``[n, 32, 32, 1]``. No
      digit is in both parts.
    """
    arrays = cached(f"tags_sample_v{VERSION}", _generate)
    train = Split(arrays["image"], arrays["noisy_label"], arrays["label"], arrays["trusted"])
    test = Split(arrays["test_image"], None, arrays["test_label"])
    return Dataset("tags/sample", CLASS_NAMES, train, test, tuple(WORDS))


def _generate() -> dict[str, np.ndarray]:
    train, test, writing, trusted = generate()
    return {
        "image": train.image,
        "noisy_label": writing.words,
        "label": tags_of(train.shown),
        "trusted": trusted,
        "test_image": test.image,
        "test_label": tags_of(test.shown),
    }


def generate() -> tuple[Scenes, Scenes, Writing, np.ndarray]:
    """Training scenes, test scenes, the words under the former, and which are trusted; always the same."""
    seeds = np.random.SeedSequence(SEED).spawn(4)
    train_rng, test_rng, words_rng, trusted_rng = (np.random.default_rng(seed) for seed in seeds)
    data = real_digits()
    train = compose(train_rng, NUM_TRAIN, data.train)
    test = compose(test_rng, NUM_TEST, data.test)
    trusted = np.argsort(trusted_rng.random(NUM_TRAIN), kind="stable") < round(TRUSTED * NUM_TRAIN)
    return train, test, write(words_rng, train), trusted


def write(rng: np.random.Generator, scenes: Scenes) -> Writing:
    """Write words under scenes; see the module's documentation for how.

    Args:
      rng: source of all randomness.
      scenes: what there is to see.

    Returns:
      The words, and why they were written.
    """
    n = len(scenes.shown)
    present = scenes.shown >= 0
    mistaken = present & (rng.random(scenes.shown.shape) < MISTAKEN * scenes.difficulty**2)
    seen = np.where(mistaken, LOOK_ALIKE[scenes.shown], scenes.shown)

    number = present.sum(axis=1)
    reasons = np.concatenate(
        [
            tags_of(seen),
            number[:, None] == [1, 2, 3],
            (scenes.difficulty.sum(axis=1) / number)[:, None],
            rng.random((n, len(HABITS))) < list(HABITS.values()),
            np.ones((n, 1)),
        ],
        axis=1,
    )
    levels, shares = list(ZEAL), list(ZEAL.values())
    zeal = np.array(levels)[np.searchsorted(np.cumsum(shares)[:-1], rng.random(n), side="right")]

    rate = rates()
    words = np.empty((n, len(WORDS)), np.uint8)
    for column in range(len(WORDS)):
        mention = 1 - np.prod(1 - rate[column] * reasons, axis=1)
        words[:, column] = rng.random(n) < zeal * mention
    return Writing(words, seen.astype(np.int32), zeal, reasons)


def rates() -> np.ndarray:
    """How often each word is written for each reason, float ``[40, reasons]``."""
    return np.array([[why.get(reason, 0.0) for reason in REASONS] for why in WORDS.values()])
