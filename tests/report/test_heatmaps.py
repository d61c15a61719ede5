import numpy as np
import pytest
from matplotlib.image import imread

from nlx.report.heatmaps import transition_comparison, transition_heatmaps


def _picture(path):
    return np.round(imread(path)[..., :3] * 255).astype(int)


def _pixels(path, colour, tolerance=0):
    """How many pixels of a picture have a colour."""
    return int(np.all(np.abs(_picture(path) - np.array(colour)) <= tolerance, axis=-1).sum())


def test_transition_heatmaps_colour_the_share_of_a_row(tmp_path):
    """A row of one certain transition is darkest, whatever its count; rows without any stay blank."""
    counts = np.array([[0, 7], [0, 0]])
    transition_heatmaps({"a": counts, "b": 1000 * counts}, ("a", "b"), tmp_path / "one.png")
    transition_heatmaps({"a": counts, "b": np.zeros((2, 2))}, ("a", "b"), tmp_path / "none.png")
    darkest = (8, 48, 107)
    # Both heat maps have one dark cell of four; the colour bar's end is dark as well.
    assert _pixels(tmp_path / "one.png", darkest) > 1.9 * _pixels(tmp_path / "none.png", darkest) > 0


@pytest.mark.parametrize("k", [1, 12, 20, 45])
def test_transition_heatmaps_of_any_size(k, tmp_path):
    counts = np.random.default_rng(0).integers(0, 30_000, (k, k))
    names = [f"$class_{i} with a name that is too long" for i in range(k)]
    transition_heatmaps({"a": counts, "b": counts.T}, names, tmp_path / "transitions.png")
    height, width, _ = _picture(tmp_path / "transitions.png").shape
    assert (width > height) == (k <= 12)
    assert width < 1600


def test_transition_heatmaps_of_bad_input(tmp_path):
    with pytest.raises(ValueError, match=r"counts must have shape \(2, 2\)"):
        transition_heatmaps({"a": np.zeros((2, 2)), "b": np.zeros((2, 3))}, ("a", "b"), tmp_path / "transitions.png")


@pytest.mark.parametrize("true", [None, np.eye(3)])
def test_transition_comparison_with_and_without_the_truth(true, tmp_path):
    found = np.full((3, 3), 1 / 3)
    transition_comparison(found, true, ("a", "b", "c"), tmp_path / "one.png")
    wide = _picture(tmp_path / "one.png").shape[1]
    assert (wide > 900) == (true is not None)


def test_transition_comparison_of_several_labels(tmp_path):
    found = np.array([[[0.9, 0.1], [0.3, 0.7]]] * 4)
    transition_comparison(found, found[::-1], tuple("abcd"), tmp_path / "two.png")
    assert _picture(tmp_path / "two.png").shape[1] > 300
    with pytest.raises(ValueError, match="must have the same shape"):
        transition_comparison(found, found[:2], tuple("abcd"), tmp_path / "bad.png")
