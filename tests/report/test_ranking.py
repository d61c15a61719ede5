import itertools

import numpy as np
import pytest
from PIL import Image

from nlx.cleaning.table import label_table
from nlx.data import Dataset, Split
from nlx.report.ranking import precision_at, rank_precision, rank_precision_pictures

RNG = np.random.default_rng(0)


def test_precision_is_the_mean_over_all_orders_of_equal_scores():
    scores, wrong = np.array([3.0, 2, 2, 2, 1, 1]), np.array([True, False, True, True, True, False])
    means = np.zeros(6)
    orders = [p for p in itertools.permutations(range(6)) if (np.diff(scores[list(p)]) <= 0).all()]
    for order in orders:
        means += np.cumsum(wrong[list(order)]) / np.arange(1, 7)
    np.testing.assert_allclose(precision_at(scores, wrong, range(1, 7)), means / len(orders))


def test_precision_of_different_scores_counts_the_top():
    scores, wrong = RNG.permutation(50).astype(float), RNG.uniform(size=50) < 0.4
    order = np.argsort(-scores)
    for k in (1, 7, 50):
        np.testing.assert_allclose(precision_at(scores, wrong, [k]), wrong[order[:k]].mean())
    shuffled = RNG.permutation(50)
    np.testing.assert_allclose(
        precision_at(scores[shuffled] // 5, wrong[shuffled], [13]), precision_at(scores // 5, wrong, [13])
    )


def test_the_curve_is_a_picture(tmp_path):
    scores = RNG.uniform(size=3000)
    wrong = RNG.uniform(size=3000) < scores
    path = rank_precision(
        {"confusing": scores, "1 - q(noisy label)": -scores}, wrong, tmp_path / "a" / "b.png", top=500
    )
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert pixels.shape[0] > 300
    # Both lines are there, in their colours.
    for colour in ((0, 114, 178), (213, 94, 0)):
        assert (np.abs(pixels.astype(int) - colour).sum(-1) < 30).any()
    rank_precision({"one": np.array([0.3])}, np.array([True]), tmp_path / "one.png")


def test_bad_input_is_named(tmp_path):
    scores, wrong = np.arange(3.0), np.array([True, False, True])
    with pytest.raises(ValueError, match=r"ks must lie in \[1, 3\]"):
        precision_at(scores, wrong, [4])
    with pytest.raises(ValueError, match="wrong must be bool"):
        precision_at(scores, wrong.astype(int), [1])
    with pytest.raises(ValueError, match="scores have NaN"):
        precision_at(np.array([0.0, np.nan]), np.array([True, False]), [1])
    with pytest.raises(ValueError, match="must be a vector"):
        precision_at(np.zeros((2, 2)), np.zeros((2, 2), bool), [1])
    with pytest.raises(ValueError, match="1 to 5 names"):
        rank_precision({}, wrong, tmp_path / "x.png")
    with pytest.raises(ValueError, match="no examples"):
        rank_precision({"a": np.zeros(0)}, np.zeros(0, bool), tmp_path / "x.png")
    with pytest.raises(ValueError, match="top must be"):
        rank_precision({"a": scores}, wrong, tmp_path / "x.png", top=0)


def test_a_posterior_with_noise_types_has_a_curve_where_the_truth_is_known(tmp_path):
    noisy, true = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 1], np.int32)
    posterior = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]])
    kinds = np.array([[0.9, 0, 0.1], [0.8, 0, 0.2], [0.1, 0, 0.9], [0.3, 0, 0.7]])
    data = Dataset("d", ("a", "b"), Split(np.ones((4, 2)), noisy, true), None)
    table = label_table(posterior, noisy, true_label=true, extras={"noise_type": kinds})
    assert rank_precision_pictures(tmp_path, table, data) == [tmp_path / "rank-precision.png"]
    assert (tmp_path / "rank-precision.png").stat().st_size > 1000
    assert rank_precision_pictures(tmp_path, label_table(posterior, noisy, true_label=true), data) == []
    assert rank_precision_pictures(tmp_path, label_table(posterior, noisy, extras={"noise_type": kinds}), data) == []
