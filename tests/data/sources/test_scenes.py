"""The embedded web sample: what is shown is tagged, and the tags go wrong at the documented rates."""

from itertools import pairwise

import numpy as np
import pytest

from nlx.data.sources import scenes
from nlx.data.sources.digits import real_digits
from nlx.data.sources.scenes import LOOK_ALIKE, compose, tags_of, web_sample, web_tags


@pytest.fixture(scope="module")
def generated():
    return scenes.generate()


def z_score(count, n, p):
    return abs(float(count) - n * p) / np.sqrt(n * p * (1 - p))


def test_tags_of_counts_a_class_once():
    shown = np.array([[3, 3, -1], [0, 9, 5], [-1, -1, -1]])
    expected = np.zeros((3, 10), np.uint8)
    expected[0, 3] = expected[1, 0] = expected[1, 9] = expected[1, 5] = 1
    np.testing.assert_array_equal(tags_of(shown), expected)


def test_no_digit_is_in_both_parts(generated):
    train, test, _ = generated
    data = real_digits()
    assert set(np.unique(train.digit)) - {-1} <= set(data.train)
    assert set(np.unique(test.digit)) - {-1} <= set(data.test)
    for part in (train, test):
        present = part.digit >= 0
        np.testing.assert_array_equal(data.label[part.digit[present]], part.shown[present])
        np.testing.assert_array_equal(part.shown == -1, ~present)


def test_number_of_digits_follows_its_law(generated):
    counts = np.bincount((generated[0].shown >= 0).sum(1), minlength=4)
    assert counts[0] == 0
    for count, p in zip(counts[1:], scenes.DIGITS_IN_SCENE, strict=True):
        assert z_score(count, 8000, p) < 4


def test_a_scene_shows_its_digits(monkeypatch):
    monkeypatch.setattr(scenes, "_clutter", lambda rng, level: np.zeros((len(level), 32, 32), np.float32))
    monkeypatch.setattr(scenes, "CONTRAST", (1.0, 1.0 + 1e-9))
    monkeypatch.setattr(scenes, "DIGIT_PIXELS", (12.0, 12.0 + 1e-9))
    pictures, _, rows, _ = real_digits()
    composed = compose(np.random.default_rng(0), 100, rows)
    for image, digit in zip(composed.image, composed.digit, strict=True):
        # Drawn 1.5 times as large, a digit has 2.25 times its ink, up to rounding and a little overlap.
        ink = pictures[digit[digit >= 0]].sum(dtype=float)
        assert 0.88 * 2.25 * ink < float(image.sum()) < 1.04 * 2.25 * ink


def test_stretch_is_linear_interpolation():
    rng = np.random.default_rng(1)
    values = rng.random(8)
    start, pixels = np.array([0.0, 3.3, 20.0]), np.array([8.0, 13.7, 12.0])
    for s, p, matrix in zip(start, pixels, scenes._stretch(start, pixels), strict=True):
        centres = s + (np.arange(-1, 9) + 0.5) * p / 8
        expected = np.interp(np.arange(32) + 0.5, centres, [0, *values, 0], left=0, right=0)
        np.testing.assert_allclose(matrix @ values, expected, atol=1e-6)


def test_digits_stay_inside_and_hardly_overlap():
    rng = np.random.default_rng(2)
    pixels = np.full((500, 3), 14.0)

    def overlap(tries):
        corner = scenes._place(rng, pixels, np.ones((500, 3), bool), tries)
        assert corner.min() >= 0
        assert corner.max() <= 32 - 14
        apart = np.abs(corner[:, [0, 0, 1]] - corner[:, [1, 2, 2]])
        return np.clip(14 - apart, 0, None).prod(-1).sum(-1).mean()

    assert overlap(32) < overlap(1) / 4


def test_clutter_grows_with_its_level():
    clutter = scenes._clutter(np.random.default_rng(3), np.array([0.0] * 50 + [1.0] * 50))
    assert np.abs(clutter[:50]).mean() < 0.03
    assert np.abs(clutter[50:]).mean() > 0.08


def test_tags_go_wrong_at_the_documented_rates(generated):
    train, _, noisy = generated
    wrong = noisy.tags != tags_of(train.shown)
    assert wrong.any(axis=1).mean() == pytest.approx(0.446, abs=0.005)
    assert wrong.mean() == pytest.approx(0.097, abs=0.003)
    true = tags_of(train.shown) == 1
    assert (true & (noisy.tags == 1)).sum() / (noisy.tags == 1).sum() == pytest.approx(0.75, abs=0.01)
    assert (true & (noisy.tags == 1)).sum() / true.sum() == pytest.approx(0.68, abs=0.01)


def test_look_alikes_are_mistaken_more_often_where_it_is_hard_to_tell(generated):
    train, _, noisy = generated
    np.testing.assert_array_equal(LOOK_ALIKE[LOOK_ALIKE], np.arange(10))
    may = (train.shown >= 0) & (LOOK_ALIKE[train.shown] != train.shown)
    assert not (noisy.mistaken & ~may).any()
    difficulty = train.difficulty[may]
    assert difficulty.min() >= 0
    assert difficulty.max() <= 1
    edges = np.quantile(difficulty, [0, 0.25, 0.5, 0.75, 1])
    shares = []
    for low, high in pairwise(edges):
        inside = (difficulty >= low) & (difficulty <= high)
        hits = noisy.mistaken[may][inside]
        assert z_score(hits.sum(), inside.sum(), (scenes.MISTAKEN * difficulty[inside] ** 2).mean()) < 4
        shares.append(hits.mean())
    assert np.all(np.diff(shares) > 0.02)


def test_missing_and_copied_tags(generated):
    train, _, noisy = generated
    seen = tags_of(np.where(noisy.mistaken, LOOK_ALIKE[train.shown], train.shown))
    assert z_score(noisy.missing.sum(), seen.sum(), scenes.MISSING) < 4
    own = seen * ~noisy.missing
    np.testing.assert_array_equal(noisy.tags[~noisy.copied], own[~noisy.copied])
    uploads = noisy.copied.reshape(-1, scenes.UPLOAD)
    assert (uploads.all(axis=1) == uploads.any(axis=1)).all()
    assert z_score(uploads.all(axis=1).sum(), len(uploads), scenes.COPIED) < 4
    tags = noisy.tags.reshape(-1, scenes.UPLOAD, 10)[uploads.all(axis=1)]
    assert (tags == tags[:, :1]).all()
    # Tags that were copied come from elsewhere: they agree with a scene no better than another scene's would.
    rows = np.flatnonzero(noisy.copied)
    agreement = (own[rows] == noisy.tags[rows]).all(axis=1).mean()
    by_chance = (own[rows] == np.roll(noisy.tags, 997, axis=0)[rows]).all(axis=1).mean()
    assert abs(agreement - by_chance) < 0.03


def test_generator_is_deterministic():
    rows = real_digits().train
    first, again = (compose(np.random.default_rng(4), 40, rows) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(*(web_tags(np.random.default_rng(5), first) for _ in range(2)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_sample_is_generated_once_and_cached(generated, monkeypatch, tmp_path):
    calls = []
    monkeypatch.setenv("NLX_CACHE", str(tmp_path))
    monkeypatch.setattr(scenes, "generate", lambda: calls.append(1) or generated)
    for _ in range(2):
        dataset = web_sample()
        assert dataset.name == "web/sample"
        assert dataset.class_names == tuple("0123456789")
        assert dataset.multi_label
        assert (len(dataset.train), len(dataset.test)) == (8000, 2000)
        np.testing.assert_array_equal(dataset.train.inputs, generated[0].image)
        np.testing.assert_array_equal(dataset.train.label, tags_of(generated[0].shown))
        np.testing.assert_array_equal(dataset.train.noisy_label, generated[2].tags)
        np.testing.assert_array_equal(dataset.test.inputs, generated[1].image)
        np.testing.assert_array_equal(dataset.test.label, tags_of(generated[1].shown))
        assert dataset.test.noisy_label is None
        assert {a.dtype for a in (dataset.train.inputs, dataset.train.label, dataset.train.noisy_label)} == {
            np.dtype(np.uint8)
        }
    assert calls == [1]
    assert [p.name for p in tmp_path.iterdir()] == [f"web_sample_v{scenes.VERSION}.npz"]
