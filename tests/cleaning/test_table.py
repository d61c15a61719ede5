import csv
import io
import json
import resource

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nlx.cleaning.label_files import read_labels, write_issues, write_labels
from nlx.cleaning.reasons import reasons
from nlx.cleaning.table import label_table, of_all_rows, with_trusted
from nlx.data import Split
from nlx.data.origin import Origin


def _single(n=60, k=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(k), n).astype(np.float32), rng.integers(0, k, n)


def _multi(n=60, k=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, k)).astype(np.float32), rng.integers(0, 2, (n, k))


def test_single_label_columns_equal_a_loop():
    posterior, noisy = _single()
    table = label_table(posterior, noisy)
    for i in range(len(noisy)):
        best = max(range(4), key=lambda c, i=i: posterior[i, c])
        assert table.cleaned_label[i] == best
        assert table.probability[i] == posterior[i, best]
        assert table.label_score[i] == posterior[i, noisy[i]]
        assert table.issue_rank[i] == sum(s < table.label_score[i] for s in table.label_score)
        assert table.changed[i] == (best != noisy[i])
    assert (table.cleaned_label.dtype, table.noisy_label.dtype, table.issue_rank.dtype) == (np.int32,) * 3


def test_multi_label_columns_equal_a_loop():
    posterior, noisy = _multi()
    table = label_table(posterior, noisy)
    for i in range(len(noisy)):
        score = 1.0
        for c in range(4):
            q = posterior[i, c]
            assert table.cleaned_label[i, c] == (q >= 0.5)
            assert table.probability[i, c] == pytest.approx(q if q >= 0.5 else 1 - q)
            score *= q if noisy[i, c] else 1 - q
        assert table.label_score[i] == pytest.approx(score)
    np.testing.assert_array_equal(table.label_score[table.most_suspicious(60)], np.sort(table.label_score))


def test_one_half_counts_as_present():
    np.testing.assert_array_equal(label_table(np.array([[0.5, 0.49]]), np.array([[0, 0]])).cleaned_label, [[1, 0]])


def test_equal_scores_rank_by_index():
    table = label_table(np.full((4, 2), 0.5), np.array([0, 1, 0, 1]), index=np.array([7, 3, 9, 1]))
    np.testing.assert_array_equal(table.issue_rank, [2, 1, 3, 0])
    np.testing.assert_array_equal(table.most_suspicious(2), [3, 1])


def test_permuting_the_classes_permutes_the_result():
    posterior, noisy = _single()
    order = np.array([2, 0, 3, 1])
    a, b = label_table(posterior, noisy), label_table(posterior[:, order], np.argsort(order)[noisy])
    np.testing.assert_array_equal(order[b.cleaned_label], a.cleaned_label)
    np.testing.assert_array_equal(b.issue_rank, a.issue_rank)


@pytest.mark.parametrize("make", [_single, _multi])
def test_parquet_gives_back_the_table(make, tmp_path):
    posterior, noisy = make()
    extras = {
        "additive_posterior": posterior[:, ::-1],
        "quality_mean": np.arange(180.0).reshape(60, 3),
        "trustworthy": np.arange(60) % 3 == 0,
        "chain": np.arange(60 * 2 * 5, dtype=np.int32).reshape(60, 2, 5),
    }
    names = ("a", "b, <i>", "c", "ü")
    origin = Origin(np.arange(60)[::-1], "id", np.array([f"{i}é" for i in range(60)], object))
    table = label_table(
        posterior, noisy, true_label=noisy[::-1], extras=extras, class_names=names, chosen="bayes_posterior",
        dataset="web/sample", method="can", origin=origin,
    )  # fmt: skip
    write_labels(tmp_path / "new" / "labels.parquet", table)
    again = read_labels(tmp_path / "new" / "labels.parquet")
    for name, value in vars(table).items():
        other = getattr(again, name)
        if isinstance(value, np.ndarray):
            assert other.dtype == value.dtype
            np.testing.assert_array_equal(other, value)
        elif name == "origin":
            np.testing.assert_array_equal(other.row, value.row)
            np.testing.assert_array_equal(other.key, value.key)
            assert other.name == value.name == "id"
        elif name == "extras":
            assert list(other) == list(extras)
            for key in extras:
                assert other[key].dtype == extras[key].dtype
                np.testing.assert_array_equal(other[key], extras[key])
        else:
            assert other == value
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["labels.parquet"]


def test_other_readers_find_plain_columns_and_metadata(tmp_path):
    posterior, noisy = _multi(n=3)
    write_labels(tmp_path / "labels.parquet", label_table(posterior, noisy, chosen="q", dataset="d", method="m"))
    arrow = pq.read_table(tmp_path / "labels.parquet")
    assert arrow.column("posterior").type == pa.list_(pa.float32())
    assert arrow.column("noisy_label").to_pylist() == noisy.tolist()
    assert "true_label" not in arrow.column_names
    metadata = json.loads(arrow.schema.metadata[b"nlx"])
    assert metadata["chosen"] == "q"
    assert (metadata["dataset"], metadata["method"], metadata["class_names"]) == ("d", "m", ["0", "1", "2", "3"])


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "labels.parquet"
    old = label_table(*_single(n=5))
    write_labels(path, old)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError):
            write_labels(path, label_table(*_single(n=5000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    np.testing.assert_array_equal(read_labels(path).posterior, old.posterior)
    assert list(tmp_path.iterdir()) == [path]


def test_rounding_is_forgiven_and_clipped():
    table = label_table(np.array([[1.00001, -0.00001]]), np.array([1]))
    np.testing.assert_array_equal(table.posterior, [[1.0, 0.0]])


GOOD, LABELS = np.array([[0.5, 0.5], [0.2, 0.8]]), np.array([0, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"posterior": GOOD[0]}, r"posterior must have shape \[n, K\]"),
        ({"posterior": GOOD * np.nan}, r"posterior\[0, 0\] is nan: give probabilities"),
        ({"posterior": np.array([[0.5, 0.5], [-2.0, 3.0]])}, r"posterior\[1, 0\] is -2.0: give probabilities"),
        ({"posterior": np.array([[0.5, 0.5], [0.9, 0.9]])}, r"posterior\[1\] sums to 1.8: divide"),
        ({"noisy_label": np.array([0])}, r"noisy_label must have shape \(2,\) or \(2, 2\)"),
        ({"noisy_label": np.array([0, 2])}, r"noisy_label\[1\] is 2: .* in \[0, 2\)"),
        ({"noisy_label": np.array([[0, 1], [1, -1]])}, r"noisy_label\[1, 1\] is -1"),
        ({"noisy_label": np.array([0, 0.5])}, r"noisy_label\[1\] is 0.5"),
        ({"true_label": np.array([[0, 1], [1, 0]])}, "must both be classes or both"),
        ({"index": np.arange(3)}, r"index must have shape \(2,\)"),
        ({"class_names": ("a",)}, "class_names has 1 names"),
        ({"extras": {"prior": np.zeros(3)}}, r"extras\['prior'\] must have 2 rows"),
        ({"extras": {"posterior": np.zeros(2)}}, "rename it"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        label_table(**{"posterior": GOOD, "noisy_label": LABELS, **arguments})


def test_trusted_labels_make_a_posterior_certain():
    probs, trusted = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]], np.float32), np.array([False, True, True])
    split = Split(probs, np.array([0, 0, 0]), np.array([1, 1, 0]), trusted, np.array([False, False, True]))
    np.testing.assert_array_equal(with_trusted(probs, split), probs * [[1], [0], [1]] + [[0, 0], [0, 1], [0, 0]])
    several = Split(probs, None, np.array([[1, 1], [1, 1], [0, 0]], np.uint8), trusted)
    np.testing.assert_array_equal(with_trusted(probs, several), np.array([[0.9, 0.1], [1, 1], [0, 0]], np.float32))
    assert with_trusted(probs, Split(probs, None, None)) is probs


def test_a_label_known_to_be_wrong_is_not_proposed():
    probs = np.array([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [1, 0, 0], [0.6, 0.3, 0.1], [0.6, 0.3, 0.1]], np.float32)
    given, label = np.array([0, 0, 0, -1, 0]), np.array([-1, -1, -1, -1, 2])
    wrong = np.array([True, False, True, True, False])
    split = Split(probs, given, label, label >= 0, wrong=wrong)
    expected = [[0, 0.75, 0.25], [0.6, 0.3, 0.1], [0, 0.5, 0.5], [0.6, 0.3, 0.1], [0, 0, 1]]
    np.testing.assert_allclose(with_trusted(probs, split), expected, rtol=1e-6)
    table = label_table(with_trusted(probs, split), given, chosen="classifier", extras={"known_wrong": wrong})
    assert table.cleaned_label.tolist() == [1, 0, 1, 0, 2]
    told = reasons(table, np.arange(5))
    assert told[0] == "checked: not 0; classifier: 1 75 %"
    assert told[4] == "classifier: 2 100 %, given 0 0 %"


def test_reading_something_else(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_labels(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(ValueError, match="cannot be read: give a labels"):
        read_labels(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="cannot be read: give a labels"):
        read_labels(tmp_path / "other.parquet")


def test_issues_come_as_names_most_suspicious_first(tmp_path):
    posterior = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    origin = Origin(np.array([7, 5, 9, 2]), "id", np.array(["a", 3, 2.5, None], object))
    names, given = ('a,"b"', "ü"), np.array([0, 1, 0, -1])
    extras = {"trusted": np.array([True, False, False, False])}
    table = label_table(posterior, given, class_names=names, origin=origin, extras=extras)
    test = label_table(posterior[:1], given[1:2], class_names=names)
    write_issues(tmp_path / "issues.csv", table, {"test": test})
    rows = list(csv.DictReader(io.StringIO((tmp_path / "issues.csv").read_bytes().decode())))
    assert [(row["row"], row["id"], row["split"]) for row in rows] == [
        *(("0", "", "test"), ("5", "3", "train"), ("9", "2.5", "train"), ("7", "a", "train"), ("2", "", "train"))
    ]
    assert rows[1] == {
        "row": "5",
        "id": "3",
        "given": "ü",
        "proposed": 'a,"b"',
        "label": "",
        "is_issue": "1",
        "reason": 'posterior: a,"b" 80 %, given ü 20 %',
        "probability": "0.8000",
        "label_score": "0.2000",
        "issue_rank": "0",
        "changed": "1",
        "trusted": "0",
        "split": "train",
    }
    assert [row["changed"] for row in rows] == ["1", "1", "1", "0", "0"]
    assert [row["is_issue"] for row in rows] == ["0", "1", "1", "0", "0"]
    assert [row["label"] for row in rows] == ["", "", "", 'a,"b"', ""]
    assert (rows[4]["given"], rows[4]["proposed"], rows[4]["label_score"]) == ("", "ü", "")
    assert rows[4]["reason"] == "no label; posterior: ü 70 %"
    several = label_table(
        np.array([[0.9, 0.7, 0.2], [0.9, 0.1, 0.1]]),
        np.array([[1, 0, 1], [-1, -1, -1]]),
        class_names=("a", "b", "c"),
    )
    write_issues(tmp_path / "several.csv", several)
    row, none = csv.DictReader(io.StringIO((tmp_path / "several.csv").read_bytes().decode()))
    assert (row["given"], row["proposed"], row["probability"]) == ("a;c", "a;b", "0.7000")
    assert row["reason"] == "posterior: with b 70 %, without c 80 %"
    assert (none["given"], none["proposed"], none["is_issue"], none["reason"]) == ("", "a", "0", "posterior: no label")


def test_rows_without_a_label_come_back(tmp_path):
    some = label_table(
        np.array([[0.9, 0.1], [0.2, 0.8]]),
        np.array([0, 0]),
        extras={"aum": np.ones(2), "trusted": np.array([True, False]), "evidence": np.full((2, 2), 0.5)},
    )
    posterior = np.array([[0.6, 0.4], [0.7, 0.3]], np.float32)
    table = of_all_rows(some, posterior, np.array([1, 3]), np.array([-1, 0, -1, 0]))
    np.testing.assert_array_equal(table.labelled, [False, True, False, True])
    np.testing.assert_array_equal(table.posterior[[1, 3]], some.posterior)
    np.testing.assert_array_equal(table.posterior[[0, 2]], posterior)
    np.testing.assert_array_equal(table.changed, [False, False, False, True])
    np.testing.assert_array_equal(table.extras["aum"], [np.nan, 1, np.nan, 1])
    np.testing.assert_array_equal(table.extras["trusted"], [False, True, False, False])
    np.testing.assert_array_equal(table.extras["evidence"][[0, 2]], posterior)
    np.testing.assert_array_equal(table.issue_rank, [2, 1, 3, 0])
    write_labels(tmp_path / "labels.parquet", table, {"test": label_table(posterior, np.array([0, 1]))})
    assert len(read_labels(tmp_path / "labels.parquet")) == 4
    arrow = pq.read_table(tmp_path / "labels.parquet")
    assert arrow.column("split").to_pylist() == ["train"] * 4 + ["test"] * 2
    assert arrow.column("given").to_pylist() == [None, "0", None, "0", "0", "1"]
    assert arrow.column("evidence").null_count == 2


def test_scores_of_many_entries_keep_their_order_where_float32_has_none():
    posterior = np.full((3, 3000), 0.9)
    posterior[0, :5], posterior[2, :9] = 0.8, 0.8
    table = label_table(posterior, np.ones((3, 3000), int))
    np.testing.assert_array_equal(table.label_score, 0)
    np.testing.assert_array_equal(table.issue_rank, [1, 2, 0])


def test_a_label_of_many_classes_is_doubted_by_its_least_probable_entry():
    table = label_table(np.full((2, 80), 0.99), np.ones((2, 80), int))
    assert (table.label_score < 0.5).all()
    assert reasons(table) == ["", ""]
    posterior = np.full((1, 80), 0.99)
    posterior[0, 3] = 0.5
    assert reasons(label_table(posterior, np.ones((1, 80), int))) == [""]
    assert reasons(label_table(1 - posterior, np.zeros((1, 80), int)))[0] == "posterior: with 3 50 %"
