"""What self-learning's pictures show: what selection by density has chosen, and labels before and after."""

from functools import partial

import jax
import numpy as np
import pytest

from nlx import prototypes
from nlx.cleaning.table import label_table
from nlx.data import Dataset, Split
from nlx.report.corrections import class_figures, correction_pictures, shown_members

RNG = np.random.default_rng(0)
N, K = 90, 3
TRUE = RNG.integers(0, K, N).astype(np.int32)
NOISY = np.where(RNG.uniform(size=N) < 0.2, (TRUE + 1) % K, TRUE).astype(np.int32)
FEATURES = (3 * np.eye(K, 5)[TRUE] + RNG.normal(size=(N, 5))).astype(np.float32)


def dataset(inputs, label=TRUE):
    return Dataset("d", ("a", "b", "c"), Split(inputs, NOISY, label), None)


def test_shown_members_are_of_the_first_classes_by_given_label():
    rows = shown_members(dataset(FEATURES))
    np.testing.assert_array_equal(np.sort(rows), np.arange(N))
    assert (np.diff(NOISY[rows]) >= 0).all()
    some = np.arange(N) % 2 == 0
    np.testing.assert_array_equal(np.sort(shown_members(dataset(FEATURES), some)), np.flatnonzero(some))


SELECTORS = {
    "density": partial(prototypes.by_density, share=0.3, limit=0.9),
    "kmeans": prototypes.by_kmeans,
    "density_peaks": prototypes.by_density_peaks,
}


@pytest.mark.parametrize("select", SELECTORS)
def test_the_figures_are_those_of_selection(select):
    rows = np.flatnonzero(NOISY == 1)
    figures = class_figures(FEATURES[rows], rows, size=len(rows) + 3, count=4, quantile=0.3, limit=0.9, select=select)
    everybody = np.ones(len(rows), bool)
    chosen = SELECTORS[select](jax.random.key(0), FEATURES[rows], everybody, 4)
    np.testing.assert_array_equal(figures.prototypes, rows[np.asarray(chosen.rows)])
    assert figures.density.shape == figures.separation.shape == (len(rows),)
    nobody = class_figures(np.zeros((0, 5), np.float32), np.zeros(0, int), size=2, count=4, quantile=0.3, limit=0.9)
    assert not nobody.valid.any()


@pytest.mark.parametrize(("pictured", "select"), [(False, "density"), (True, "density"), (True, "kmeans")])
def test_pictures_are_written_where_there_is_something_to_show(tmp_path, pictured, select):
    inputs = RNG.integers(0, 256, (N, 6, 6, 1), dtype=np.uint8) if pictured else FEATURES
    corrected = np.where(RNG.uniform(size=N) < 0.1, NOISY, TRUE).astype(np.int32)
    extras = {"first_label": NOISY, "corrected_label": corrected}
    posterior = np.eye(K)[corrected]
    rows = shown_members(dataset(inputs))
    for label, expected in ((TRUE, ["density.png", "separation.png", "label-accuracy.png"]), (None, [])):
        table = label_table(posterior, NOISY, true_label=label, extras=extras)
        how = {"features": FEATURES[rows], "rows": rows, "select": select}
        paths = correction_pictures(tmp_path, table, dataset(inputs, label), **how)
        assert [p.name for p in paths] == ["prototypes.png"] * pictured + expected
        assert all(p.stat().st_size > 500 for p in paths)
