import numpy as np

from nlx.cleaning.table import label_table
from nlx.data import Dataset, Split
from nlx.report.quality import consistent, quality_pictures, trustworthy

RNG = np.random.default_rng(0)


def test_consistent_follows_the_papers_rule():
    prediction = np.array([[0.9, 0.1], [0.4, 0.3], [0.6, 0.7]])
    np.testing.assert_array_equal(consistent(prediction, np.array([0, 1, 1])), [True, False, True])
    np.testing.assert_array_equal(consistent(prediction, np.array([[1, 0], [1, 0], [1, 1]])), [True, False, True])


def test_the_trustworthy_cluster_is_the_one_that_agrees_more():
    group = np.arange(200) < 120
    quality = np.where(group, 4.0, -4.0)[:, None] + RNG.normal(size=(200, 3))
    agrees = np.where(group, RNG.uniform(size=200) < 0.2, RNG.uniform(size=200) < 0.9)
    np.testing.assert_array_equal(trustworthy(quality, agrees, 0), ~group)
    np.testing.assert_array_equal(trustworthy(quality, ~agrees, 0), group)


def test_a_collapsed_embedding_is_one_group():
    assert trustworthy(np.zeros((50, 3)), RNG.uniform(size=50) < 0.5, 0).all()


def test_pictures_are_written_for_both_kinds_of_labels(tmp_path):
    quality, probs = RNG.normal(size=(60, 3)).astype(np.float32), RNG.dirichlet(np.ones(4), 60).astype(np.float32)
    for name, noisy in {"single": RNG.integers(0, 4, 60), "multi": RNG.integers(0, 2, (60, 4))}.items():
        folder = tmp_path / name
        folder.mkdir()
        table = label_table(probs, noisy, extras={"quality_mean": quality, "classifier": probs})
        data = Dataset("d", ("a", "b", "c", "d"), Split(quality, table.noisy_label, None), None)
        paths = quality_pictures(folder, table, data)
        assert [path.name for path in paths] == ["quality.png", "transitions.png"]
        assert all(path.stat().st_size > 1000 for path in paths)
