"""Noise read from text and applied to data sets."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nlx.data import DataError, Dataset, ImageFiles, Split
from nlx.data import noise as noise_module
from nlx.data.noise import MULTI_LABEL, NOISE_KINDS, SINGLE_LABEL, NoiseSpec, parse_noise, with_noise
from nlx.data.sources.cifar import CLASS_NAMES as CIFAR10
from nlx.data.sources.digits import CLASS_NAMES as DIGITS

N, K = 4000, 10
LABELS = np.arange(N, dtype=np.int32) % K
TAGS = (np.random.default_rng(3).random((N, 6)) < 0.3).astype(np.uint8)
# Classes in a row, each with neighbours that it is mistaken for.
PLACES = np.stack([LABELS, np.zeros(N)], axis=1) + np.random.default_rng(1).normal(0, 0.6, (N, 2))
IMAGES = np.random.default_rng(2).integers(0, 256, (N, 8, 8, 1), dtype=np.uint8)


def dataset_of(inputs, label, noisy=None, name="mine"):
    k = label.shape[1] if label.ndim == 2 else K
    names = tuple(str(c) for c in range(k))
    return Dataset(name, names, Split(inputs, label * 0 if noisy is None else noisy, label), None)


FEATURES_SET = dataset_of(PLACES.astype(np.float32), LABELS)
IMAGE_SET = dataset_of(IMAGES, LABELS)
TAG_SET = dataset_of(IMAGES, TAGS)


def z_score(count, n, p):
    return abs(float(count) - float(n) * p) / np.sqrt(float(n) * p * (1 - p))


def noisy_counts(dataset):
    counts = np.zeros((K, K))
    np.add.at(counts, (LABELS, dataset.train.noisy_label), 1)
    return counts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", NoiseSpec("none", 0.0)),
        ("symmetric:0.4", NoiseSpec("symmetric", 0.4)),
        ("shuffle:1", NoiseSpec("shuffle", 1.0)),
        (" shuffle:0 ", NoiseSpec("shuffle", 0.0)),
        *((f"{kind}:0.25", NoiseSpec(kind, 0.25)) for kind in NOISE_KINDS[1:]),
    ],
)
def test_reads_what_it_writes(text, expected):
    assert parse_noise(text) == expected
    assert parse_noise(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "pears:0.4",
            r"unknown noise 'pears' in 'pears:0.4': choose one of none, symmetric, .*, tags\.$",
        ),
        ("uniform:0.4", "unknown noise 'uniform'"),
        ("", "unknown noise ''"),
        ("symmetric", "has no rate: write it as 'symmetric:0.4'"),
        ("pair:", "has no rate"),
        ("shuffle:much", "has no rate: write it as 'shuffle:0.4'"),
        ("symmetric:1.5", "rate 1.5: a rate must lie between 0 and 1"),
        ("symmetric:-0.1", "rate -0.1"),
        ("symmetric:nan", "rate nan"),
        ("none:0.4", "write 'none'"),
    ],
)
def test_unreadable_noise_is_one_sentence(text, match):
    with pytest.raises(DataError, match=match) as caught:
        parse_noise(text)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("kind", ["none", *SINGLE_LABEL])
@pytest.mark.parametrize("base", [FEATURES_SET, IMAGE_SET], ids=["features", "images"])
def test_single_labels_go_wrong_at_the_rate_and_nothing_else_changes(base, kind):
    spec = NoiseSpec(kind, 0.0 if kind == "none" else 0.3)
    result = with_noise(base, spec, 1)
    assert result.name == f"mine/{spec}"
    assert result.train.noisy_label.dtype == np.int32
    share = spec.rate * {"shuffle": 1 - 1 / K, "outlier": 1 - 1 / K, "asymmetric": 0.5}.get(kind, 1)
    wrong = (result.train.noisy_label != LABELS).sum()
    assert wrong == 0 if kind == "none" else z_score(wrong, N, share) < 4
    if kind != "outlier":
        assert result.train.inputs is base.train.inputs
        assert result.train.label is base.train.label
        assert result.train.outlier is None


@pytest.mark.parametrize("kind", ["none", *SINGLE_LABEL])
def test_seed_decides_and_the_clean_labels_stay(kind):
    noise = NoiseSpec(kind, 0.0 if kind == "none" else 0.4)
    first, again, other = (with_noise(FEATURES_SET, noise, seed).train for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.noisy_label, again.noisy_label)
    np.testing.assert_array_equal(first.inputs, again.inputs)
    assert (first.noisy_label == other.noisy_label).all() == (kind == "none")
    first.noisy_label[:] = 0  # writable, and no view of the clean labels
    np.testing.assert_array_equal(FEATURES_SET.train.label, np.arange(N) % K)


def test_kinds_differ_in_what_a_class_becomes():
    pair, symmetric, sparse, adversarial = (
        noisy_counts(with_noise(FEATURES_SET, NoiseSpec(kind, 0.4), 2))
        for kind in ("pair", "symmetric", "sparse", "adversarial")
    )
    wrong = ~np.eye(K, dtype=bool)
    for counts in (pair, symmetric, sparse):
        assert max(z_score(counts[c, c], N / K, 0.6) for c in range(K)) < 4
    np.testing.assert_array_equal(pair > 0, np.eye(K, dtype=bool) | np.roll(np.eye(K, dtype=bool), 1, axis=1))
    assert (symmetric[wrong] > 0).all()
    np.testing.assert_array_equal((sparse * wrong > 0).sum(axis=1), 3)
    away = np.abs(np.arange(K)[:, None] - np.arange(K))
    assert adversarial[away == 1].sum() > 0.9 * adversarial[wrong].sum()
    assert adversarial[0, 0] > adversarial[5, 5]  # a class at the end has one neighbour to be mistaken for


@pytest.mark.parametrize(
    ("names", "flips"),
    [
        (CIFAR10, {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}),
        (DIGITS, {"2": "7", "3": "8", "5": "6", "6": "5", "7": "1"}),
    ],
)
def test_asymmetric_noise_goes_by_the_names_of_classes(names, flips):
    data = replace(FEATURES_SET, class_names=names)
    counts = noisy_counts(with_noise(data, NoiseSpec("asymmetric", 0.4), 2))
    wrong = counts * ~np.eye(K, dtype=bool)
    taken_for = {names[i]: {names[j] for j in np.flatnonzero(wrong[i])} for i in range(K) if wrong[i].any()}
    assert taken_for == {name: {other} for name, other in flips.items()}
    assert all(z_score(counts[i, i], N / K, 0.6) < 4 for i in range(K) if names[i] in flips)
    with pytest.raises(DataError, match=r"'asymmetric:0.4' goes by the names of .* and these are c0, c1"):
        with_noise(replace(data, class_names=tuple(f"c{i}" for i in range(K))), NoiseSpec("asymmetric", 0.4), 2)


def test_sparse_noise_has_ten_targets_where_there_are_many_classes():
    label = np.arange(20_000, dtype=np.int32) % 50
    base = Dataset("many", tuple(map(str, range(50))), Split(np.zeros((20_000, 1), np.float32), label, label), None)
    noisy = with_noise(base, NoiseSpec("sparse", 0.9), 0).train.noisy_label
    assert {len(np.unique(noisy[(label == c) & (noisy != c)])) for c in range(50)} == {10}


def test_confusion_is_that_of_the_nearest_mean_of_the_others():
    features, label = PLACES[:60] * 0.4, LABELS[:60] % 4
    label[7] = 4  # alone in its class, and class 5 is empty
    expected = np.zeros((6, 6), int)
    for row in range(60):
        distance = np.full(6, np.inf)
        for c in range(6):
            others = (label == c) & (np.arange(60) != row)
            if others.any():
                distance[c] = ((features[row] - features[others].mean(0)) ** 2).sum()
        expected[label[row], distance.argmin()] += 1
    np.testing.assert_array_equal(noise_module._confusion(features, label, 6), expected)
    assert 0 < expected.trace() < 60


def test_adversarial_rate_is_that_of_all_examples_whatever_the_classes_sizes():
    ends = (LABELS == 0) | (LABELS == K - 1)
    away = PLACES[:, :1] + 2 * np.where(ends, np.sign(LABELS - 1), 0)[:, None]  # the ends are hardly ever mistaken
    rows = np.flatnonzero(ends | (np.random.default_rng(6).random(N) < 0.15))
    base = dataset_of(away[rows].astype(np.float32), LABELS[rows])
    wrong = with_noise(base, NoiseSpec("adversarial", 0.15), 0).train.noisy_label != LABELS[rows]
    assert z_score(wrong.sum(), len(rows), 0.15) < 3


def test_adversarial_noise_says_when_confusions_do_not_reach_so_far():
    with pytest.raises(DataError, match=r"noise 'adversarial:0.95' is more than .* class \d .* at most 0\.\d+\.$"):
        with_noise(FEATURES_SET, NoiseSpec("adversarial", 0.95), 0)


def test_instance_noise_looks_at_the_inputs():
    moved = dataset_of(PLACES[::-1].astype(np.float32), LABELS)
    spec = NoiseSpec("instance", 0.4)
    assert (with_noise(FEATURES_SET, spec, 0).train.noisy_label != with_noise(moved, spec, 0).train.noisy_label).any()


def test_small_features_are_standardized_and_keep_distances():
    features = noise_module._small_features(PLACES.astype(np.float32))
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(features.std(axis=0), 1, atol=1e-6)
    assert (noise_module._small_features(np.full((5, 3), 2.0)) == 0).all()
    wide = np.random.default_rng(5).normal(0, 1, (10_000, 300)).astype(np.float32)
    small = noise_module._small_features(wide)
    assert small.shape == (10_000, 64)
    np.testing.assert_array_equal(small, noise_module._small_features(wide))
    distances = [((x[:500] - x[500:1000]) ** 2).mean(axis=1) for x in (wide, small)]
    assert np.corrcoef(np.stack([wide[:500, 0], small[:500, 0]]))[0, 1] < 0.5  # a projection, not a choice of columns
    assert 0.9 < distances[1].mean() / distances[0].mean() < 1.1


def test_tags_go_missing_and_others_come_in_as_many():
    noisy = with_noise(TAG_SET, NoiseSpec("tags", 0.2), 0).train.noisy_label
    assert noisy.dtype == np.uint8
    assert z_score((noisy[TAGS == 1] == 0).sum(), TAGS.sum(), 0.2) < 4
    assert z_score((noisy[TAGS == 0] == 1).sum(), (TAGS == 0).sum(), 0.2 * TAGS.sum() / (TAGS == 0).sum()) < 4
    full = dataset_of(IMAGES, np.ones_like(TAGS))
    assert with_noise(full, NoiseSpec("tags", 0.2), 0).train.noisy_label.mean() < 0.9  # nothing can be added


def test_label_vectors_are_shuffled_whole():
    result = with_noise(TAG_SET, NoiseSpec("shuffle", 0.5), 0)
    assert result.name == "mine/shuffle:0.5"
    np.testing.assert_array_equal(result.train.noisy_label.sum(1), TAGS.sum(1))
    assert 0.2 < (result.train.noisy_label != TAGS).any(axis=1).mean() < 0.5
    np.testing.assert_array_equal(with_noise(TAG_SET, NoiseSpec("none", 0.0), 0).train.noisy_label, TAGS)


@pytest.mark.parametrize("kind", sorted({*SINGLE_LABEL, "tags"}))
def test_noise_for_the_other_kind_of_labels_is_refused(kind):
    spec = NoiseSpec(kind, 0.3)
    if kind not in MULTI_LABEL:
        with pytest.raises(
            DataError, match=rf"'{spec}' is not for mine, which has label vectors: .* none, shuffle, tags"
        ):
            with_noise(TAG_SET, spec, 0)
    if kind not in SINGLE_LABEL:
        with pytest.raises(
            DataError, match=rf"'{spec}' is not for mine, which has one class an example: .* symmetric,"
        ):
            with_noise(IMAGE_SET, spec, 0)


def test_clean_labels_must_be_known_and_mistakable():
    unknown = Dataset("mine", ("a", "b"), Split(IMAGES, LABELS % 2, None), None)
    with pytest.raises(DataError, match="mine has no true training labels, which synthetic noise starts from"):
        with_noise(unknown, NoiseSpec("none", 0.0), 0)
    single = Dataset("mine", ("a",), Split(IMAGES, LABELS * 0, LABELS * 0), None)
    with pytest.raises(DataError, match="single class"):
        with_noise(single, NoiseSpec("pair", 0.1), 0)
    assert with_noise(single, NoiseSpec("none", 0.0), 0).name == "mine/none"
    words = Dataset("mine", ("a", "b"), Split(IMAGES, TAGS[:, :2], TAGS), None)
    with pytest.raises(DataError, match="2 noisy tags but 6 true ones, of another vocabulary"):
        with_noise(words, NoiseSpec("shuffle", 0.1), 0)


def test_pictures_on_disk(tmp_path):
    paths = []
    for i in range(60):
        paths.append(str(tmp_path / f"{i}.png"))
        shade = 40 * (i % 3)
        Image.fromarray(np.random.default_rng(i).integers(shade, shade + 90, (20, 24, 3), dtype=np.uint8)).save(
            paths[-1]
        )
    label = np.arange(60, dtype=np.int32) % 3
    base = Dataset("disk", ("a", "b", "c"), Split(ImageFiles(tuple(paths), 18), label, label), None)
    for kind in ("instance", "adversarial"):
        train = with_noise(base, NoiseSpec(kind, 0.3), 0).train
        assert train.inputs is base.train.inputs
        assert 0.05 < (train.noisy_label != label).mean() < 0.6
    with pytest.raises(
        DataError, match=r"disk stays on disk, where no picture can be replaced .*: raise `in_memory_gib`"
    ):
        with_noise(base, NoiseSpec("outlier", 0.3), 0)
