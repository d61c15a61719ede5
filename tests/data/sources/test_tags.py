"""The embedded two-vocabulary sample: words come at their rates, for their reasons, and tell of more than one class."""

import numpy as np
import pytest

from nlx.data.sources import tags
from nlx.data.sources.digits import real_digits
from nlx.data.sources.scenes import LOOK_ALIKE, MISTAKEN, tags_of
from nlx.data.sources.tags import CLASS_NAMES, REASONS, WORDS, rates, tags_sample, write

NAMES = tuple(WORDS)
FROZEN = {"words": 23183, "train": 8897, "test": 1771, "trusted": [10, 12, 14, 26, 27]}
OWN = [NAMES.index(name) for name in CLASS_NAMES]


@pytest.fixture(scope="module")
def generated():
    return tags.generate()


@pytest.fixture(scope="module")
def truth(generated):
    return tags_of(generated[0].shown)


def z_score(hits, probabilities):
    probabilities = np.broadcast_to(probabilities, np.shape(hits))
    return abs(np.sum(hits, dtype=float) - probabilities.sum()) / np.sqrt((probabilities * (1 - probabilities)).sum())


def average_precision(scores, label):
    """Mean over the positives of the precision where they stand; equal scores share the place of the last."""
    at_least = scores[None, :] >= scores[label == 1][:, None]
    return ((at_least & (label == 1)).sum(1) / at_least.sum(1)).mean()


def posterior(words, label, rows):
    """Log-odds of each class by Bernoulli naive Bayes, counted on the given rows plus one example of each kind."""
    scores = np.zeros(label.shape)
    for c in range(label.shape[1]):
        shares = []
        for value in (0, 1):
            of = words[rows][label[rows, c] == value]
            shares.append((of.sum(0) + 1) / (len(of) + 2))
        odds = np.log(shares[1] / shares[0]) * words + np.log((1 - shares[1]) / (1 - shares[0])) * (1 - words)
        scores[:, c] = odds.sum(1)
    return scores


def mean_average_precision(scores, label):
    return np.mean([average_precision(scores[:, c], label[:, c]) for c in range(label.shape[1])])


def test_words_and_rates():
    assert len(NAMES) == 40
    assert set(CLASS_NAMES) <= set(NAMES)
    assert {reason for why in WORDS.values() for reason in why} <= set(REASONS)
    assert rates().shape == (40, len(REASONS))
    assert rates()[NAMES.index("even"), REASONS.index("six")] == 0.3
    assert rates()[NAMES.index("even"), REASONS.index("five")] == 0
    assert rates().sum() == pytest.approx(sum(sum(why.values()) for why in WORDS.values()))
    assert max(tags.ZEAL) * rates().max() < 1
    assert sum(tags.ZEAL.values()) == pytest.approx(1)


def test_no_digit_is_in_both_parts(generated):
    train, test, _, _ = generated
    data = real_digits()
    assert (len(train.image), len(test.image)) == (5000, 1000)
    assert set(np.unique(train.digit)) - {-1} <= set(data.train)
    assert set(np.unique(test.digit)) - {-1} <= set(data.test)
    pictures = {image.tobytes() for image in train.image}
    assert len(pictures) == 5000
    assert not any(image.tobytes() in pictures for image in test.image)


def test_a_fifth_is_trusted_at_random(generated, truth):
    trusted = generated[3]
    assert trusted.dtype == bool
    assert trusted.sum() == 1000
    assert abs(trusted[:2500].sum() - 500) < 4 * np.sqrt(1000 / 4 * 0.8)
    assert np.abs(truth[trusted].mean(0) - truth.mean(0)).max() < 0.05


def test_look_alikes_are_mistaken(generated):
    train, _, writing, _ = generated
    shown, seen = train.shown, writing.seen
    differs = seen != shown
    np.testing.assert_array_equal(seen[differs], LOOK_ALIKE[shown[differs]])
    may = (shown >= 0) & (LOOK_ALIKE[shown] != shown)
    assert z_score(differs[may], MISTAKEN * train.difficulty[may] ** 2) < 4
    assert differs.sum() / (shown >= 0).sum() == pytest.approx(0.09, abs=0.005)


def test_reasons_hold_where_they_should(generated):
    train, _, writing, _ = generated
    reason = dict(zip(REASONS, writing.reasons.T, strict=True))
    for c, name in enumerate(CLASS_NAMES):
        np.testing.assert_array_equal(reason[name], (writing.seen == c).any(1))
    number = (train.shown >= 0).sum(1)
    for count, name in enumerate(("one digit", "two digits", "three digits"), start=1):
        np.testing.assert_array_equal(reason[name], number == count)
    for row in range(5):
        mean = train.difficulty[row][train.shown[row] >= 0].mean()
        assert reason["difficult"][row] == pytest.approx(mean)
    for name, share in tags.HABITS.items():
        assert set(np.unique(reason[name])) == {0, 1}
        assert z_score(reason[name], share) < 4
    for zeal, share in tags.ZEAL.items():
        assert z_score(writing.zeal == zeal, share) < 4
    assert (reason["always"] == 1).all()


@pytest.mark.parametrize("word", NAMES)
def test_word_comes_at_its_rate(generated, word):
    """Against a loop over reasons, in all scenes and in those where any one reason holds or does not."""
    writing = generated[2]
    hits = writing.words[:, NAMES.index(word)]
    silent = np.ones(5000)
    for reason, rate in WORDS[word].items():
        silent *= 1 - rate * writing.reasons[:, REASONS.index(reason)]
    expected = writing.zeal * (1 - silent)
    assert z_score(hits, expected) < 4.5
    for column in writing.reasons.T:
        for rows in (column > 0.5, column <= 0.5):
            if rows.any():
                assert z_score(hits[rows], expected[rows]) < 4.5


def test_documented_figures(generated, truth):
    words, trusted = generated[2].words, generated[3]
    assert words.sum(1).mean() == pytest.approx(4.6, abs=0.05)
    assert (words.sum(1) == 0).mean() == pytest.approx(0.09, abs=0.005)
    own = words[:, OWN]
    assert (own & truth).sum() / truth.sum() == pytest.approx(0.39, abs=0.005)
    assert (own & truth).sum() / own.sum() == pytest.approx(0.73, abs=0.005)
    # Here precision is not interpolated, which costs a point.
    alone = mean_average_precision(own[~trusted].astype(float), truth[~trusted])
    assert alone == pytest.approx(0.40, abs=0.015)


def test_the_other_words_tell_of_the_classes(generated, truth):
    words, trusted = generated[2].words, generated[3]

    def score(columns):
        beliefs = posterior(words[:, columns], truth, trusted)[~trusted]
        return mean_average_precision(beliefs, truth[~trusted])

    others = [i for i in range(40) if i not in OWN]
    several = [NAMES.index(word) for word in ("even", "odd", "prime", "round", "straight", "small", "large")]
    nothing = [NAMES.index(word) for word in ("photo", "birthday", "lottery", "canon", "macro")]
    own = score(OWN)
    assert 0.4 < own < 0.5
    assert score([*OWN, *several]) > own + 0.05
    assert score(range(40)) > own + 0.1
    assert score(others) > 0.35
    assert score(nothing) < truth.mean() + 0.03


def test_words_of_a_habit_come_together(generated):
    words = generated[2].words.astype(float)
    correlation = np.corrcoef(words.T)
    for one, other in (("math", "homework"), ("canon", "macro"), ("one", "two"), ("two", "three")):
        assert correlation[NAMES.index(one), NAMES.index(other)] > 0.1
    assert correlation[NAMES.index("math"), NAMES.index("canon")] < 0.08


def test_writing_is_deterministic(generated):
    first, again, other = (write(np.random.default_rng(seed), generated[0]) for seed in (4, 4, 5))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first.words != other.words).any()


def test_sample_is_the_frozen_one(generated):
    """A change of these figures changes the sample: raise VERSION."""
    train, test, writing, trusted = generated
    assert tags.VERSION == 1
    assert writing.words.sum() == FROZEN["words"]
    assert tags_of(train.shown).sum() == FROZEN["train"]
    assert tags_of(test.shown).sum() == FROZEN["test"]
    assert np.flatnonzero(trusted)[:5].tolist() == FROZEN["trusted"]


def test_sample_is_generated_once_and_cached(generated, truth, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setenv("NLX_CACHE", str(tmp_path))
    monkeypatch.setattr(tags, "generate", lambda: calls.append(1) or generated)
    for _ in range(2):
        dataset = tags_sample()
        assert dataset.name == "tags/sample"
        assert dataset.class_names == CLASS_NAMES
        assert dataset.noisy_names == NAMES
        assert dataset.multi_label
        assert dataset.train.inputs.shape == (5000, 32, 32, 1)
        assert dataset.train.noisy_label.shape == (5000, 40)
        assert dataset.train.label.shape == (5000, 10)
        np.testing.assert_array_equal(dataset.train.inputs, generated[0].image)
        np.testing.assert_array_equal(dataset.train.noisy_label, generated[2].words)
        np.testing.assert_array_equal(dataset.train.label, truth)
        np.testing.assert_array_equal(dataset.train.trusted, generated[3])
        np.testing.assert_array_equal(dataset.test.inputs, generated[1].image)
        np.testing.assert_array_equal(dataset.test.label, tags_of(generated[1].shown))
        assert dataset.test.noisy_label is None
        np.testing.assert_array_equal(dataset.given(dataset.train), generated[2].words[:, OWN])
        arrays = (dataset.train.inputs, dataset.train.label, dataset.train.noisy_label, dataset.test.inputs)
        assert {a.dtype for a in arrays} == {np.dtype(np.uint8)}
    assert calls == [1]
    assert [p.name for p in tmp_path.iterdir()] == [f"tags_sample_v{tags.VERSION}.npz"]
