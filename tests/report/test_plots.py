import numpy as np
import pytest
from matplotlib.image import imread

from nlx.report.plots import outlier_curve, quality_embedding, training_curves

BLUE, ORANGE, GREEN = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x00, 0x9E, 0x73)


def _picture(path):
    return np.round(imread(path)[..., :3] * 255).astype(int)


def _pixels(path, colour, tolerance=0):
    """How many pixels of a picture have a colour."""
    return int(np.all(np.abs(_picture(path) - np.array(colour)) <= tolerance, axis=-1).sum())


def _epochs(n):
    return [
        {"epoch": i + 1, "train_loss": 2 / (i + 1), "test_accuracy": 0.5, "recovery": 0.6, "validation_score": None}
        for i in range(n)
    ]


@pytest.mark.parametrize("n", [1, 2, 40])
def test_training_curves_have_a_panel_per_series(n, tmp_path):
    training_curves(_epochs(n), tmp_path / "all.png")
    training_curves([{"epoch": i, "train_loss": 1.0 / i} for i in range(1, n + 1)], tmp_path / "loss.png")
    all_height, loss_height = (_picture(tmp_path / name).shape[0] for name in ("all.png", "loss.png"))
    assert all_height > 2 * loss_height
    assert _pixels(tmp_path / "all.png", BLUE) > _pixels(tmp_path / "loss.png", BLUE) > 0
    assert _pixels(tmp_path / "all.png", ORANGE) == 0


def test_training_curves_join_epochs_over_missing_values(tmp_path):
    rows = [{**row, "test_accuracy": 0.1} for row in _epochs(4)]
    rows[0]["validation_score"] = rows[3]["validation_score"] = 0.9
    training_curves(rows, tmp_path / "curves.png")
    orange = np.all(_picture(tmp_path / "curves.png") == ORANGE, axis=-1)
    assert orange.any(axis=0).sum() > 200  # columns that the line crosses; two markers alone are some twenty wide


def test_training_curves_show_every_posterior_and_the_given_labels(tmp_path):
    rows = [{**row, "recovery_additive": 0.2, "recovery_bayes": 0.6} for row in _epochs(5)]
    training_curves(rows, tmp_path / "without.png")
    training_curves(rows, tmp_path / "with.png", given_recovery=0.4)
    assert _pixels(tmp_path / "without.png", ORANGE) > 100
    assert _pixels(tmp_path / "without.png", GREEN) > 100
    ink = [int(np.all(_picture(tmp_path / name) < 230, axis=-1).sum()) for name in ("with.png", "without.png")]
    assert ink[0] > ink[1] + 500


def test_training_curves_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="metrics is empty"):
        training_curves([], tmp_path / "curves.png")
    with pytest.raises(ValueError, match="nothing to plot"):
        training_curves([{"epoch": 1, "train_loss": None}], tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def _quality(n, d):
    return np.random.default_rng(0).normal(size=(n, d))


@pytest.mark.parametrize(
    "quality",
    [_quality(80, 4), _quality(80, 1), _quality(6, 3), _quality(3, 1), _quality(1, 2), np.ones((50, 3)),
     np.outer(_quality(30, 1), [1.0, 2.0]), np.repeat(_quality(2, 2), 20, axis=0)],
    ids=["plain", "one dimension", "few", "three", "one", "identical", "on a line", "two places"],
)  # fmt: skip
def test_quality_embedding_draws_both_groups(quality, tmp_path):
    agrees = np.arange(len(quality)) % 2 == 0
    quality_embedding(quality, agrees, tmp_path / "quality.png", seed=0)
    picture = _picture(tmp_path / "quality.png")
    blue = (picture[..., 2] > picture[..., 0] + 40) & (picture[..., 2] > picture[..., 1])
    green = (picture[..., 1] > picture[..., 0] + 40) & (picture[..., 1] > picture[..., 2])
    assert blue.sum() > 20
    assert (green.sum() > 20) == (len(quality) > 1)


@pytest.mark.parametrize("d", [1, 3])
def test_quality_embedding_is_determined_by_the_seed(d, tmp_path):
    quality = _quality(60, d)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        quality_embedding(quality, np.arange(60) < 30, tmp_path / name, seed=seed, max_points=40)
    a, b, c = (_picture(tmp_path / name) for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert a.shape != c.shape or np.any(a != c)


@pytest.mark.parametrize(
    ("quality", "agrees", "message"),
    [
        (np.zeros(3), np.ones(3, bool), "must have shape"),
        (np.zeros((3, 2)), np.ones(2, bool), "must have shape"),
        (np.zeros((0, 2)), np.ones(0, bool), "must have shape"),
        (np.full((3, 2), np.nan), np.ones(3, bool), "diverged"),
    ],
)
def test_quality_embedding_of_bad_input(quality, agrees, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        quality_embedding(quality, agrees, tmp_path / "quality.png", seed=0)


def test_outlier_curve_and_its_bad_input(tmp_path):
    outlier = np.arange(10) < 5
    outlier_curve(np.linspace(1, 0, 10), outlier, tmp_path / "outliers.png")
    assert _picture(tmp_path / "outliers.png").shape[1] > 300
    with pytest.raises(ValueError, match="vectors with an outlier"):
        outlier_curve(np.zeros(3), np.zeros(3, bool), tmp_path / "none.png")
