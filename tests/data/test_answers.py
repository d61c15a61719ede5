"""Answers in every form that people have them in, and what is said of those that cannot be meant."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nlx.arguments import ArgumentError
from nlx.data import DataError
from nlx.data.answers import answers_of
from nlx.data.crowds import planted_crowd

LONG = {"task": ["x", "x", "y", "y"], "worker": [7, 8, 7, 9], "label": ["cat", "dog", "dog", None]}


def rows(answers):
    """Answers as people would say them."""
    a, names = answers, answers.class_names
    numbers = zip(a.item.tolist(), a.annotator.tolist(), a.label.tolist(), strict=True)
    return [(str(a.items[i]), str(a.annotators[w]), names[j]) for i, w, j in numbers]


def forms(folder):
    (folder / "long.csv").write_text("task,worker,label\nx,7,cat\nx,8,dog\ny,7,dog\ny,9,\n")
    (folder / "semicolons.csv").write_text("task;worker;label\nx;7;cat\nx;8;dog\ny;7;dog\ny;9;\n", encoding="utf-8-sig")
    (folder / "wide.tsv").write_text("item\t7\t8\t9\nx\tcat\tdog\t\ny\tdog\t\t\n")
    pq.write_table(pa.table(LONG), folder / "long.parquet")
    return [
        LONG,
        tuple(LONG.values()),
        pa.table(LONG),
        *(folder / name for name in ("long.csv", "semicolons.csv", "wide.tsv", "long.parquet")),
        {"item": ["x", "y"], "7": ["cat", "dog"], "8": ["dog", ""], "9": [None, float("nan")]},
    ]


def test_every_form_says_the_same(tmp_path):
    for form in forms(tmp_path):
        answers = answers_of(form)
        assert rows(answers) == [("x", "7", "cat"), ("x", "8", "dog"), ("y", "7", "dog")], form
        assert answers.class_names == ("cat", "dog")
        assert (len(answers.items), len(answers.annotators)) == (2, 3)


def test_rows_are_rows_however_they_are_listed():
    rows_of_three = [("x", 7, "cat"), ("x", 8, "dog"), ("y", 7, "dog")]
    expected = [("x", "7", "cat"), ("x", "8", "dog"), ("y", "7", "dog")]
    assert rows(answers_of(rows_of_three)) == expected
    named = ("item", "annotator", "label")
    assert rows(answers_of([dict(zip(named, row, strict=True)) for row in rows_of_three])) == expected
    square = [[0, 1, -1], [1, 1, 0], [0, 0, 1]]  # three people and three items: a matrix, as an array of it is
    assert rows(answers_of(square)) == rows(answers_of(np.array(square)))
    assert len(answers_of(square)) == 8
    assert len(answers_of(np.ma.masked_equal([[0, 9], [1, 0]], 9))) == 3
    with pytest.raises(ArgumentError, match=r"rows \(item, annotator, label\)"):
        answers_of([("x", 7), ("y", 8)])


def test_ids_in_files_are_text_and_join_with_numbers(tmp_path):
    big = "100000000000000000001"
    (tmp_path / "ids.csv").write_text(f"item,annotator,label\n1,007,0\n01,7,1\n1e5,007,1\n{big},7,0\n")
    (tmp_path / "true.csv").write_text("task,answer\n1,1\n")
    answers = answers_of(tmp_path / "ids.csv", trusted={1: 1})
    assert answers.items.tolist() == ["1", "01", "1e5", big]
    assert answers.annotators.tolist() == ["007", "7"]
    assert answers.trusted.tolist() == [1, -1, -1, -1]
    assert answers_of(tmp_path / "ids.csv", trusted=tmp_path / "true.csv").trusted.tolist() == [1, -1, -1, -1]
    whole = answers_of(([10**25, 3], ["a", "b"], [0, 1]))
    assert whole.items.tolist() == [str(10**25), "3"]
    assert answers_of(([1e25, 1e24], ["a", "b"], [0, 1])).items.tolist() == [1e25, 1e24]
    (tmp_path / "rows.csv").write_text("item,annotator,label\n1,a,0\n0,b,1\n")
    assert answers_of(tmp_path / "rows.csv", num_items=2).item.tolist() == [1, 0]
    (tmp_path / "utf16.csv").write_text("item,annotator,label\nä,a,0\nö,b,1\n", encoding="utf-16")
    assert answers_of(tmp_path / "utf16.csv").items.tolist() == ["ä", "ö"]


def test_frames_keep_their_index():
    pd = pytest.importorskip("pandas")
    long = pd.DataFrame(LONG)
    assert rows(answers_of(long.set_index("task"))) == rows(answers_of(LONG))
    wide = long.pivot(index="task", columns="worker", values="label")
    assert rows(answers_of(wide)) == rows(answers_of(LONG))
    assert rows(answers_of(wide.rename_axis(index="picture"))) == rows(answers_of(LONG))
    assert rows(answers_of(long[long.worker == 7])) == [("x", "7", "cat"), ("y", "7", "dog")]
    by_item = pd.Series(["dog", "cat"], index=["y", "x"])
    assert answers_of(LONG, trusted=by_item).trusted.tolist() == [0, 1]
    assert answers_of(LONG, trusted=pd.Series(["dog", None])).trusted.tolist() == [1, -1]


@pytest.mark.parametrize(("items", "single"), [([0, 1, 2, 2], True), ([0, 1, 1, 2, 2], False), ([0, 1, 1], False)])
def test_single_answers_are_told_from_several(items, single):
    people = np.arange(len(items))  # of whom nobody answers again
    assert answers_of((np.array(items), people, people % 2)).mostly_single == single


def test_people_may_be_in_groups():
    table = {**LONG, "team": ["new", "old", "new", "old"]}
    answers = answers_of(table, web={"x": "cat"})
    assert answers.annotators.tolist() == ["7", "8", "9", "web"]
    assert [answers.group_names[g] for g in answers.groups] == ["new", "old", "old", "web"]
    assert answers.of_web.tolist() == [False, False, False, True]
    assert answers_of(LONG).group_names == ("",)


def test_labels_that_only_trusted_ones_have_are_told():
    assert "nobody answered" in answers_of(LONG, trusted={"x": "cow"}).notes[-1]


@pytest.mark.parametrize("gap", [-1, np.nan, None])
def test_a_matrix_has_gaps(gap):
    answers = answers_of(np.array([[2, gap, 0], [gap, gap, gap], [0, 5, gap]], object if gap is None else None))
    assert rows(answers) == [("0", "0", "2"), ("0", "2", "0"), ("2", "0", "0"), ("2", "1", "5")]
    assert answers.class_names == ("0", "2", "5")
    annotators, labels = answers.by_item()
    np.testing.assert_array_equal(annotators, [[0, 2], [-1, -1], [0, 1]])
    np.testing.assert_array_equal(labels, [[1, 0], [-1, -1], [0, 2]])
    annotators, labels = answers.by_item(np.array([False, True, True, False]))
    np.testing.assert_array_equal(annotators, [[2], [-1], [0]])
    np.testing.assert_array_equal(labels, [[0], [-1], [0]])


def test_an_annotators_last_answer_counts_and_that_is_said():
    table = (["x", "x", "x", "y"], ["a", "b", "a", "a"], ["no", "no", "yes", "no"])
    answers = answers_of(table)
    assert rows(answers) == [("x", "b", "no"), ("x", "a", "yes"), ("y", "a", "no")]
    assert "the last one counts: 1 left out" in answers.notes[0]
    assert len(answers_of(table, repeats="all")) == 4


def test_web_and_trusted_labels_lie_beside(tmp_path):
    (tmp_path / "web.csv").write_text("item,label\ny,bird\nz,cat\n")
    answers = answers_of(LONG, web=tmp_path / "web.csv", trusted={"x": "dog"})
    assert rows(answers)[3:] == [("y", "web", "bird"), ("z", "web", "cat")]
    assert answers.groups.tolist() == [0, 0, 0, 1]
    assert answers.trusted.tolist() == [2, -1, -1]
    alone = answers_of((["x", "y"], ["web", "web"], ["a", "b"]))  # nobody else is there
    assert (alone.groups.tolist(), alone.of_web.tolist()) == ([0], [False])
    by_row = answers_of(np.array([[0, 1], [1, 1]]), web=["b", None], class_names=("a", "b"), num_items=2)
    assert rows(by_row)[4:] == [("0", "web", "b")]


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ({"item": [1], "label": ["a"]}, {}, "has no column 'annotator', only 'item', 'label'"),
        ({"item": [1], "worker": [2], "lable": ["a"]}, {}, "has no column 'label'"),
        ({**LONG, "labels": LONG["label"], "task": ["x", None, "y", "y"]}, {}, "row 1 has no item"),
        ({"item": [1, 2], "worker": [2, 3], "label": [None, None]}, {}, "holds no answer"),
        ({"item": [1], "worker": [2], "label": ["a"]}, {}, "labels of 1 class"),
        ([[1, 2], [1]], {}, "its rows differ in length"),
        (np.zeros(3), {}, "got an array of shape [3]"),
        ((["x"], ["a", "b"], ["yes"]), {}, "three arrays of one length"),
        (LONG, {"trusted": {"z": "cat"}}, "`trusted` names z, which no answer is about"),
        (LONG, {"web": ["cat"]}, "one for each of 2 items, got 1"),
        ({**LONG, "worker": ["web", "a", "b", "c"]}, {"web": {"x": "cat"}}, "called 'web' already"),
        ({**LONG, "worker": [7, None, None, 9]}, {}, "row 1 has no annotator (2 such)"),
        ({**LONG, "team": ["a", "b", "b", "a"]}, {}, "7 is of the groups 'a' and 'b'"),
        ({**LONG, "label": [["cat"], ["dog"], [], []]}, {}, "one number or text in each cell"),
        ({"a": ["u", "v"], "b": ["v", "u"], "comment": ["sure", "no idea"]}, {}, "column 'comment' has no label in"),
        (LONG, {"repeats": "first"}, "`repeats` must be one of last, all"),
        (LONG, {"class_names": ("cat", "dog", "cat")}, "'cat' twice"),
        (LONG, {"trusted": {"task": ["x", "x"], "label": ["cat", "dog"]}}, "two labels for x, 'cat' and 'dog'"),
        (LONG, {"trusted": {"picture": ["x"], "label": ["cat"]}}, "`trusted` has no column 'item'"),
        (LONG, {"web": {"task": ["x", "y"], "label": ["cat"]}}, "2 items and 1 labels"),
        (LONG, {"class_names": ("cat", "cow")}, "label 'dog' is none of `class_names`"),
        (LONG, {"num_items": 2}, "row 0 is about item x (4 such)"),
        ("no/such.csv", {}, "no such file"),
    ],
)
def test_what_cannot_be_meant_is_told_in_a_sentence(form, options, message):
    with pytest.raises((ArgumentError, DataError)) as error:
        answers_of(form, **options)
    assert message in str(error.value)


def test_broken_files_are_told(tmp_path):
    (tmp_path / "twice.csv").write_text("item,annotator,label,label\nx,a,0,1\n")
    with pytest.raises(DataError, match="has two columns 'label'"):
        answers_of(tmp_path / "twice.csv")
    (tmp_path / "latin.csv").write_bytes("item,annotator,label\nä,a,0\n".encode("latin-1"))
    with pytest.raises(DataError, match="save it as CSV in UTF-8"):
        answers_of(tmp_path / "latin.csv")
    for name in ("a.csv", "a.parquet", "a.json", "a.npy"):
        (tmp_path / name).write_bytes(b"item,label\n1\n\x00{")
        with pytest.raises(DataError, match=r"cannot be read as answers|holds NUL characters"):
            answers_of(tmp_path / name)


def test_a_planted_crowd_answers_as_its_matrices_say():
    true = np.random.default_rng(0).integers(0, 3, 4000)
    crowd = planted_crowd(true, 3, per_item=4, annotators=20)
    assert len(np.unique(crowd.item * 20 + crowd.annotator)) == 16_000  # nobody answers twice
    counts = np.zeros((20, 3, 3))
    np.add.at(counts, (crowd.annotator, true[crowd.item], crowd.label), 1)
    assert np.abs(counts / counts.sum(2, keepdims=True) - crowd.confusion).max() < 0.12
    copies = np.flatnonzero(crowd.kind == "colluding")
    said = np.full((4000, 20), -1)
    said[crowd.item, crowd.annotator] = crowd.label
    both = (said[:, copies[:2]] >= 0).all(1)
    assert (said[both][:, copies[0]] == said[both][:, copies[1]]).all()
    assert both.sum() > 50
