import numpy as np
import pytest
from matplotlib.image import imread

from nlx.report.prototypes import accuracy_by_class, density_histogram, density_scatter, prototype_grid

RNG = np.random.default_rng(0)
BLUE, GREEN, ORANGE, RED = (0x00, 0x72, 0xB2), (0x00, 0x9E, 0x73), (0xE6, 0x9F, 0x00), (0xD5, 0x5E, 0x00)
GREY = (0x66, 0x66, 0x66)


def pixels(path, colour):
    """How many pixels of a picture have a colour, or nearly."""
    picture = np.round(imread(path)[..., :3] * 255).astype(int)
    return int(np.all(np.abs(picture - np.array(colour)) <= 3, axis=-1).sum())


def test_densities_of_right_and_wrong_labels(tmp_path):
    density, right = RNG.integers(-50, 50, 200), RNG.uniform(size=200) < 0.7
    for name, rows in (("both", right), ("right", np.ones(200, bool)), ("wrong", np.zeros(200, bool))):
        density_histogram(density, rows, tmp_path / f"{name}.png")
    pale_blue = tuple(round(255 - 0.55 * (255 - c)) for c in BLUE)
    assert pixels(tmp_path / "both.png", GREEN) > 300
    assert pixels(tmp_path / "both.png", pale_blue) > 2000
    assert pixels(tmp_path / "right.png", GREEN) == 0
    assert pixels(tmp_path / "wrong.png", pale_blue) == 0
    with pytest.raises(ValueError, match=r"same length.*density \(200,\), right \(3,\)"):
        density_histogram(density, np.ones(3, bool), tmp_path / "no.png")
    with pytest.raises(ValueError, match="at least 1"):
        density_histogram(np.zeros(0), np.zeros(0, bool), tmp_path / "no.png")


def test_prototypes_stand_out_among_the_members(tmp_path):
    density, separation = RNG.integers(-50, 50, 200), RNG.uniform(0.5, 1, 200)
    density_scatter(density, separation, np.arange(8), tmp_path / "eight.png")
    density_scatter(density, separation, np.arange(0), tmp_path / "none.png")
    assert pixels(tmp_path / "eight.png", RED) > 5 * max(1, pixels(tmp_path / "none.png", RED))
    assert pixels(tmp_path / "eight.png", GREY) > 50
    density_scatter(density, separation, np.arange(8), tmp_path / "without.png", limit=None)
    assert pixels(tmp_path / "without.png", GREY) < pixels(tmp_path / "eight.png", GREY)
    with pytest.raises(ValueError, match="same length"):
        density_scatter(density, separation[:5], np.arange(3), tmp_path / "no.png")


def test_label_accuracy_of_each_class(tmp_path):
    true = RNG.integers(0, 5, 400)
    given = np.where(RNG.uniform(size=400) < 0.5, (true + 1) % 5, true)
    labels = {"given": given, "first correction": np.full(400, -1), "last correction": true}
    accuracy_by_class(labels, true, [f"class $ {i}" for i in range(5)], tmp_path / "all.png")
    accuracy_by_class({"given": given}, true, list("abcde"), tmp_path / "given.png")
    assert min(pixels(tmp_path / "all.png", colour) for colour in (GREY, ORANGE, BLUE)) > 200
    assert pixels(tmp_path / "given.png", BLUE) == 0
    with pytest.raises(ValueError, match="'given' labels"):
        accuracy_by_class({"given": given[:5]}, true, list("abcde"), tmp_path / "no.png")
    with pytest.raises(ValueError, match="got 0"):
        accuracy_by_class({}, true, list("abcde"), tmp_path / "no.png")


def test_of_many_classes_those_that_change_are_drawn(tmp_path):
    true = np.repeat(np.arange(1000), 2)
    accuracy_by_class({"given": np.where(true == 990, 0, true), "last": true}, true, [""] * 1000, tmp_path / "many.png")
    accuracy_by_class({"given": true, "last": true}, true, [""] * 1000, tmp_path / "same.png")
    height = [imread(tmp_path / name).shape[0] for name in ("many.png", "same.png")]
    assert max(height) < 2000
    line = (0xCC, 0xCC, 0xCC)
    assert pixels(tmp_path / "many.png", line) > pixels(tmp_path / "same.png", line) + 300


@pytest.mark.parametrize("channels", [1, 3])
def test_prototypes_as_pictures(channels, tmp_path):
    images = np.full((3, 4, 8, 8, channels), 255, np.uint8)
    images[1, 2] = 0
    everything, nothing = np.ones((3, 4), bool), np.zeros((3, 4), bool)
    prototype_grid(images, list("abc"), tmp_path / "all.png")
    prototype_grid(images, list("abc"), tmp_path / "blank.png", valid=nothing)
    prototype_grid(images, list("abc"), tmp_path / "wrong.png", valid=everything, right=nothing)
    assert pixels(tmp_path / "all.png", (0, 0, 0)) > pixels(tmp_path / "blank.png", (0, 0, 0)) + 2000
    assert pixels(tmp_path / "all.png", RED) == 0
    assert pixels(tmp_path / "wrong.png", RED) > 1000
    with pytest.raises(ValueError, match="2 class names"):
        prototype_grid(images, ["a", "b"], tmp_path / "no.png")
    with pytest.raises(ValueError, match=r"must have shape \(3, 4\)"):
        prototype_grid(images, list("abc"), tmp_path / "no.png", valid=nothing[:2])
