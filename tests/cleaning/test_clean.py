"""nlx.clean: what it accepts, what it finds, and what it says of input that it cannot use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import nlx
from nlx.arguments import ArgumentError
from nlx.cleaning import estimates, linear
from nlx.cleaning.arrays import features_of, standard_form
from nlx.cleaning.label_forms import classes_of
from nlx.cleaning.trainers import FEW_CLASSES, Setting
from nlx.data.dataset import Split
from nlx.methods.plain import plain

RNG = np.random.default_rng(0)


def vectors(y, k=10):
    """Labels of an example that can have several: the classes, and one more that half of the examples have."""
    return np.concatenate([np.eye(k, dtype=int)[y], (y < k // 2)[:, None].astype(int)], axis=1)


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
    table = nlx.clean(images, noisy, precision=0.9)
    assert np.mean(noisy == label) < 0.72
    assert np.mean(table.cleaned_label == label) > 0.96
    listed = table.extras["decided"]
    assert listed.sum() > 0.5 * (noisy != label).sum()
    assert np.mean(noisy[listed] != label[listed]) >= 0.9
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


def test_what_the_evidence_says_of_noise_is_found_once(digits, monkeypatch):
    images, noisy, _ = (part[:400] for part in digits)
    with monkeypatch.context() as without:
        without.setattr(estimates, "weigh", None)  # it is done for the posterior already
        table = nlx.clean(images, noisy, precision=0.9)
    about = table.extras["evidence"], table.noisy_label
    found = estimates.estimate(*about)
    for name, interval in (("noise", found.noise_rate), ("remaining", found.remaining)):
        assert table.guard[name] == {bound: float(x) for bound, x in interval._asdict().items()}
    np.testing.assert_array_equal(table.extras["decided"], estimates.decided(*about, 0.9))


def test_units_of_features_do_not_matter(digits):
    images, noisy, _ = (part[:400] for part in digits)
    scale = 10.0 ** RNG.integers(-3, 4, 64)
    near = nlx.clean(images * scale + 1e4 * scale, noisy)
    np.testing.assert_allclose(near.posterior, nlx.clean(images, noisy).posterior, atol=2e-2)


@pytest.mark.slow
def test_weak_features_are_learnt_from_by_a_softer_loss(monkeypatch):
    """Of hundreds of dimensions that say little each; what held-out models predict of the given labels decides."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 10, 300)
    x = rng.normal(size=(300, 200)) + 0.15 * rng.normal(size=(10, 200))[label]

    def hits():
        return np.mean(nlx.clean(x, label).extras["out_of_fold"].argmax(axis=1) == label)

    best = hits()
    monkeypatch.setattr(linear, "_SOFTER", FEW_CLASSES)
    assert hits() < best < 0.5


def many_classes(n=4000, k=200, d=64, seed=0):
    """Embeddings, noisy labels of which two in five are drawn at random, and true ones."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, k, n)
    x = rng.normal(size=(k, d))[label] + rng.normal(size=(n, d))
    return x, np.where(rng.random(n) < 0.4, rng.integers(0, k, n), label), label


@pytest.mark.slow
def test_settings_of_many_classes_are_chosen_by_held_out_labels_of_some_examples(monkeypatch):
    """With the first one alone most classes are hardly learnt."""
    x, noisy, label = many_classes()
    split = Split(standard_form(x).apply(x), noisy.astype(np.int32), None)
    monkeypatch.setattr(linear, "MANY", 3000)
    monkeypatch.setattr(linear, "_EACH", 1)
    best = linear.linear_in_folds(split, 200, jax.random.key(0), 3)
    monkeypatch.setattr(linear, "_OF_MANY_CLASSES", (FEW_CLASSES,))
    first = linear.linear_in_folds(split, 200, jax.random.key(0), 3)
    assert (best.setting != first.setting) == (first.setting == FEW_CLASSES)
    assert best.found.probs.shape == first.found.probs.shape == (4000, 200)
    for labels in (noisy, label):
        hits = [np.mean(models.found.probs.argmax(axis=1) == labels) for models in (best, first)]
        assert hits[0] > hits[1] + 0.2


def test_linear_models_train_for_the_epochs_that_are_asked_for():
    x, noisy, _ = many_classes(n=120, k=3, d=4)
    split = Split(standard_form(x).apply(x), noisy.astype(np.int32), None)
    assert len(linear.linear_in_folds(split, 3, jax.random.key(0), 2, epochs=3).found.fitted.history) == 3


def test_of_many_examples_one_fold_chooses_the_setting(monkeypatch):
    x, noisy, _ = many_classes(n=600, k=41, d=8)
    split, fitted = Split(standard_form(x).apply(x), noisy.astype(np.int32), None), []
    monkeypatch.setattr(linear, "MANY", 500)
    monkeypatch.setattr(linear, "out_of_fold", lambda *args, **options: fitted.append(options))
    found = linear.linear_in_folds(split, 41, jax.random.key(0), 3)
    assert (len(fitted), found.found) == (1, None)
    for order in (1, -1):  # whichever is tried first
        monkeypatch.setattr(linear, "_OF_MANY_CLASSES", linear._OF_MANY_CLASSES[::order])
        assert found.setting == linear.setting_for(split, 41, jax.random.key(0), 3)
    monkeypatch.undo()
    fits = [linear.fits(n, k, 5) for n, k in ((64_000, 40), (31_999, 1000), (64_000, 1000), (1_000_000, 1000))]
    assert fits == pytest.approx([1, 3, 1.6, 1.0384])
    tried = [linear.trials(n, k, 5) for n, k in ((64_000, 40), (31_999, 1000), (64_000, 1000))]
    assert tried == pytest.approx([0, 3, 0.6])


@pytest.mark.slow
def test_the_setting_of_clean_labels_of_many_classes():
    x, _, label = many_classes()
    split = Split(standard_form(x).apply(x), label.astype(np.int32), None)
    assert linear.setting_for(split, 200, jax.random.key(0), folds=2) != FEW_CLASSES
    assert linear.setting_for(split.take(np.flatnonzero(label < 40)), 40, jax.random.key(0)) == Setting()


def test_pictures_and_several_labels_and_a_method_of_ones_own(digits):
    images, noisy, label = digits
    pictures = (images * 15).astype(np.uint8).reshape(-1, 8, 8)
    assert np.mean(nlx.clean(pictures, noisy).cleaned_label == label) > 0.94
    table = nlx.clean(images, vectors(noisy))
    assert table.multi_label
    assert np.mean(table.cleaned_label == vectors(label)) > np.mean(vectors(noisy) == vectors(label))
    by_method = nlx.clean(images, noisy, method=plain(nlx.losses.generalized_cross_entropy, "mine"))
    assert by_method.method == "mine"
    assert np.mean(by_method.cleaned_label == label) > 0.9


@pytest.mark.parametrize("name", [pytest.param("can", marks=pytest.mark.slow), "generalized_ce", "noise_layer"])
def test_methods_have_names(digits, name):
    images, noisy, label = (part[:900] for part in digits)
    table = nlx.clean(images, noisy, method=name)
    assert table.method == name
    assert np.mean(table.cleaned_label == label) > np.mean(noisy == label) + 0.1


@pytest.mark.slow
def test_self_learning_by_its_name(digits, monkeypatch):
    monkeypatch.setattr("nlx.cleaning.trainers._STEPS", 20)
    images, noisy, _ = (part[:200] for part in digits)
    assert nlx.clean(images, noisy % 2, method="self_learning").method == "self_learning"


@pytest.mark.parametrize("name", [pytest.param("can", marks=pytest.mark.slow), "noise_layer"])
def test_methods_of_several_labels_have_names(digits, name):
    images, noisy, label = digits
    table = nlx.clean(images, vectors(noisy), method=name)
    assert (table.multi_label, table.method) == (True, name)
    assert np.mean(table.cleaned_label == vectors(label)) > np.mean(vectors(noisy) == vectors(label))


def test_a_method_that_is_not_there_or_not_for_such_labels(digits):
    images, noisy, _ = (part[:60] for part in digits)
    with pytest.raises(ArgumentError, match=r"`method` must be one of can, .*got 'cans'"):
        nlx.clean(images, noisy, method="cans")
    with pytest.raises(ArgumentError, match="`method`=self_learning is for one label per example"):
        nlx.clean(images, vectors(noisy), method="self_learning")


@pytest.mark.parametrize(
    ("several", "method"),
    [
        (False, None),
        (True, None),
        pytest.param(False, "generalized_ce", marks=pytest.mark.slow),
        pytest.param(True, "noise_layer", marks=pytest.mark.slow),
    ],
)
def test_trusted_labels_are_certain(digits, several, method):
    images, noisy, label = (part[:300] for part in digits)
    names = np.array([f"digit {i}" for i in range(10)])
    form = vectors if several else (lambda y: names[y])
    rows = [5, *np.flatnonzero(noisy != label)[:20].tolist()]
    precision = None if several or method else 0.9
    trusted = dict(zip(rows, form(label[rows]), strict=True))
    table = nlx.clean(images, form(noisy), trusted=trusted, method=method, precision=precision)
    if precision:
        np.testing.assert_array_equal(table.extras["decided"][rows], noisy[rows] != label[rows])
    np.testing.assert_array_equal(table.posterior[rows], vectors(label[rows]) if several else np.eye(10)[label[rows]])
    np.testing.assert_array_equal(table.noisy_label, vectors(noisy) if several else noisy)
    np.testing.assert_array_equal(np.flatnonzero(table.extras["trusted"]), np.unique(rows))
    assert set(table.most_suspicious(20).tolist()) == set(rows[1:])


def test_trusted_labels_are_what_is_trained_on():
    # Two classes that nothing but the trusted labels tells apart, every given label being the same but for two.
    x = np.repeat(np.eye(2), 60, axis=0) + RNG.normal(size=(120, 2)) / 10
    given, true = np.zeros(120, int), np.repeat([0, 1], 60)
    table = nlx.clean(x, given, trusted={i: true[i] for i in range(0, 120, 2)})  # class 1 was never given
    assert np.mean(np.argmax(table.extras["out_of_fold"], axis=1) == true) > 0.97
    with_no_help = nlx.clean(x, np.where(np.arange(120) == 119, 1, given))
    assert np.mean(np.argmax(with_no_help.extras["out_of_fold"], axis=1) == true) < 0.9


@pytest.mark.parametrize("trusted", [{300: 1}, {-1: 1}, {"a": 1}, {0.5: 1}, {0: [0, 1]}])
def test_trusted_has_to_fit(digits, trusted):
    images, noisy, _ = (part[:300] for part in digits)
    with pytest.raises(ArgumentError, match="`trusted` must "):
        nlx.clean(images, noisy, trusted=trusted)


@pytest.mark.slow
def test_dtypes_of_features_and_labels_that_others_use(digits):
    images, noisy, _ = (part[:200] for part in digits)
    as_float = nlx.clean(images, noisy)
    for same in (
        images.astype(np.float16),
        jnp.asarray(images, jnp.bfloat16),
        images.astype(np.int64),
        images.tolist(),
    ):
        np.testing.assert_array_equal(nlx.clean(same, noisy.tolist()).posterior, as_float.posterior)
    assert classes_of(np.array([b"ant", b"bee"]), None)[1] == ("ant", "bee")
    unused = nlx.clean(images, noisy % 3, class_names=("a", "b", "c", "never"))
    assert np.isfinite(unused.posterior).all()
    assert unused.posterior.shape == (200, 4)


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (np.ones((3, 2)), [0, 1], "of the same examples, got 3 and 2"),
        (np.ones((3, 2)), [0, 0, 0], "at least two classes"),
        (np.ones((3, 2)), np.array(["a", 1, "b"], object), "`labels` are of several types"),
        (np.ones((3, 2)), np.ones((3, 2, 2)), r"classes \[n\] or a"),
        (np.ones((3, 2)), [[0, 2], [1, 0], [0, 0]], "only 0 and 1"),
        (np.array([[1.0, np.inf], [1, 1]]), [0, 1], r"`inputs`\[0, 1\] is inf"),
        (np.array([[1.0, 1e200], [1, 1]]), [0, 1], r"`inputs`\[0, 1\] is 1e\+200"),
        (np.ones(3), [0, 1, 0], r"features, float \[n, F\]"),
        (np.array([["a"], ["b"]]), [0, 1], r"features, float \[n, F\]"),
        (np.zeros((0, 2)), [], "empty"),
        ([[1.0, 2.0], [1.0]], [0, 1], "`inputs` must be an array: its rows differ"),
        (np.ones((2, 2)) * 1j, [0, 1], r"features, float \[n, F\]"),
        (np.ones((3, 2)), 1, "of the same examples, got 3 and 1"),
        (np.zeros((2, 200, 200, 3), np.uint8), [0, 1], "give embeddings"),
        (np.ones((3, 2)), [0, 1, 0], "`folds` must lie between 2 and the 3"),
        (np.ones((3, 2)), [0, 1, -1], "`folds` must lie between 2 and the 2 examples with a label"),
        (np.ones((3, 2)), ["", None, np.nan], "at least two classes"),
        (np.ones((3, 2)), [[0.5, 0.5], [0.9, 0.9], [0, 1]], "or rows that sum to 1"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(inputs, labels, message):
    with pytest.raises(ArgumentError, match=message) as error:
        nlx.clean(inputs, labels, folds=5)
    assert "\n" not in str(error.value)


def test_class_names_have_to_fit():
    with pytest.raises(ArgumentError, match="`class_names` name classes 0 to 1"):
        classes_of([0, 2], ("a", "b"))
    with pytest.raises(ArgumentError, match="2 columns for 3"):
        classes_of([[0, 1]], ("a", "b", "c"))
    labels, names, _ = classes_of([2, 0], ("a", "b", "c"))
    assert (labels.tolist(), names) == ([2, 0], ("a", "b", "c"))
    for names in (("2.0", "1.0"), ("1", "2"), ("1.0", "nan", "2.")):
        labels, found, _ = classes_of(["1", "2.0", "1.0", "2"], names)
        assert ([float(names[c]) for c in labels], found) == ([1, 2, 1, 2], names)
    labels, names, _ = classes_of([True, False], None)
    assert (labels.tolist(), names) == ([1, 0], ("False", "True"))


def test_features_are_standardized_and_constant_ones_are_left_alone():
    x = np.stack([RNG.normal(5, 3, 100), np.full(100, 1e9 + 0.1), RNG.normal(5, 3, 100) * 1e-20], axis=1)
    standard = standard_form(features_of(x))
    y = standard.apply(x)
    np.testing.assert_allclose(y[:, [0, 2]].std(axis=0), 16 / np.sqrt(3), rtol=1e-4)
    np.testing.assert_array_equal(y[:, 1], 0)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["a", " a", "b", "b\u200b"], ("a", "b")),
        (["10", "10.0", "9", "9"], ("9", "10")),
        ([b"10", b"10.0", b"9", b"9"], ("9", "10")),
        ([1.0, 1.0, 0.0, 0.0], ("0", "1")),
        ([[1], [1], [0], [0]], ("0", "1")),
        (np.array(["e\u0301", "\u00e9", "x", "x"], object), ("x", "\u00e9")),
    ],
)
def test_a_class_has_one_spelling(labels, names):
    noisy, found, _ = classes_of(labels, None)
    assert found == names
    assert noisy[0] == noisy[1] != noisy[2] == noisy[3]
