"""nlx.clean: what it accepts, what it finds, and what it says of input that it cannot use."""

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import nlx
from nlx.arguments import ArgumentError
from nlx.cleaning.clean import classes_of, features_of, standard_form
from nlx.methods.plain import plain

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def as_users_have_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def digits():
    images, label = load_digits(return_X_y=True)
    wrong = RNG.uniform(size=len(label)) < 0.3
    noisy = np.where(wrong, (label + RNG.integers(1, 10, len(label))) % 10, label)
    return images, noisy, label


def test_digits_in_a_few_lines(digits, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, noisy, label = digits
    table = nlx.clean(images, noisy)
    assert np.mean(noisy == label) < 0.72
    assert np.mean(table.cleaned_label == label) > 0.94
    assert roc_auc_score(noisy != label, -table.label_score) > 0.98
    assert table.extras["out_of_fold"].shape == (len(label), 10)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_the_seed_decides_everything_and_classes_may_have_any_name(digits):
    images, noisy, _ = (part[:400] for part in digits)
    names = np.array([f"digit {i}" for i in range(10)])
    one, two, other = nlx.clean(images, noisy), nlx.clean(images, names[noisy]), nlx.clean(images, noisy, seed=1)
    np.testing.assert_array_equal(one.posterior, two.posterior)
    assert two.class_names == tuple(names)
    assert (one.posterior != other.posterior).any()


def test_units_of_features_do_not_matter(digits):
    images, noisy, _ = (part[:400] for part in digits)
    scale = 10.0 ** RNG.integers(-3, 4, 64)
    near = nlx.clean(images * scale + 1e4 * scale, noisy)
    np.testing.assert_allclose(near.posterior, nlx.clean(images, noisy).posterior, atol=2e-2)


def test_pictures_and_several_labels_and_a_method_of_ones_own(digits):
    images, noisy, label = digits
    pictures = (images * 15).astype(np.uint8).reshape(-1, 8, 8)
    assert np.mean(nlx.clean(pictures, noisy).cleaned_label == label) > 0.94
    vectors = np.eye(10, dtype=int)[noisy]
    table = nlx.clean(images, vectors)
    assert table.multi_label
    assert np.mean(table.cleaned_label == np.eye(10)[label]) > np.mean(vectors == np.eye(10)[label])
    by_method = nlx.clean(images, noisy, method=plain(nlx.losses.generalized_cross_entropy, "mine"))
    assert by_method.method == "mine"
    assert np.mean(by_method.cleaned_label == label) > 0.9


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (np.ones((3, 2)), [0, 1], "of the same examples, got 3 and 2"),
        (np.ones((3, 2)), [0, 0, 0], "at least two classes"),
        (np.ones((3, 2)), [0, 1, np.nan], "missing values"),
        (np.ones((3, 2)), np.ones((3, 2, 2)), r"classes \[n\] or a"),
        (np.ones((3, 2)), [[0, 2], [1, 0], [0, 0]], "only 0 and 1"),
        (np.array([[1.0, np.inf], [1, 1]]), [0, 1], r"`inputs`\[0, 1\] is inf"),
        (np.ones(3), [0, 1, 0], r"features, float \[n, F\]"),
        (np.array([["a"], ["b"]]), [0, 1], r"features, float \[n, F\]"),
        (np.zeros((0, 2)), [], "empty"),
        (np.zeros((2, 200, 200, 3), np.uint8), [0, 1], "give embeddings"),
        (np.ones((3, 2)), [0, 1, 0], "`folds` must lie between 2 and the 3"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(inputs, labels, message):
    with pytest.raises(ArgumentError, match=message) as error:
        nlx.clean(inputs, labels, folds=5)
    assert "\n" not in str(error.value)


def test_class_names_have_to_fit():
    with pytest.raises(ArgumentError, match="`class_names` name classes 0 to 1"):
        classes_of([0, 2], ("a", "b"))
    with pytest.raises(ArgumentError, match="2 and 3 names"):
        classes_of([[0, 1]], ("a", "b", "c"))
    labels, names = classes_of([2, 0], ("a", "b", "c"))
    assert (labels.tolist(), names) == ([2, 0], ("a", "b", "c"))
    labels, names = classes_of([True, False], None)
    assert (labels.tolist(), names) == ([1, 0], ("False", "True"))


def test_features_are_standardized_and_constant_ones_are_left_alone():
    x = np.stack([RNG.normal(5, 3, 100), np.full(100, 1e9)], axis=1)
    standard = standard_form(features_of(x))
    y = standard.apply(x)
    np.testing.assert_allclose(y[:, 0].std(), 16 / np.sqrt(2), rtol=1e-4)
    np.testing.assert_array_equal(y[:, 1], 0)
