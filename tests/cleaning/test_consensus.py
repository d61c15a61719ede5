"""``nlx.consensus``: what its tables say, and the way to Label Studio and back."""

import json

import numpy as np
import pytest

import nlx
from nlx.arguments import ArgumentError
from nlx.cleaning import consensus as module
from nlx.data import DataError
from nlx.data.answers import answers_of
from nlx.data.crowds import planted_crowd

NAMES = np.array(["ant", "bee", "cat"])


@pytest.fixture(scope="module")
def crowd():
    """True labels of 150 items, and what 12 people say of them; one item is left to be asked about."""
    true = np.random.default_rng(0).integers(0, 3, 150)
    planted = planted_crowd(true[:-1], 3, per_item=4, annotators=12, seed=1)
    people = np.array([f"{kind} {a}" for a, kind in enumerate(planted.kind)])
    table = {"item": planted.item + 1000, "annotator": people[planted.annotator], "label": NAMES[planted.label]}
    gap = {"item": [1149], "annotator": ["skilled 0"], "label": [""]}
    return true, {name: np.concatenate([table[name], gap[name]]) for name in table}


@pytest.fixture(scope="module")
def found(crowd):
    return nlx.consensus(crowd[1])


def test_tables_say_the_labels_whom_to_trust_what_is_wrong_and_what_to_ask(crowd, found, tmp_path):
    true, table = crowd
    items = found.items_table().to_pydict()
    assert items["item"] == list(range(1000, 1150))
    right = {name: np.mean(np.array(items[name])[:-1] == NAMES[true[:-1]]) for name in ("label", "majority")}
    assert right["label"] > max(0.88, right["majority"] + 0.03)
    assert (items["answers"][-1], items["majority"][-1], items["answers"][0]) == (0, None, 4)
    people = found.annotators_table().to_pydict()
    assert people["annotator"][0].startswith("skilled")
    assert people["annotator"][-1].startswith("adversarial")
    assert people["low"] == sorted(people["low"], reverse=True)
    answers = found.answers_table().to_pydict()
    right = np.array(answers["label"]) == NAMES[true[np.array(answers["item"]) - 1000]]
    assert right[:100].mean() < 0.1 < 0.9 < right[-100:].mean()
    questions = found.questions_table(top=5).to_pydict()
    assert questions["item"][0] == 1149  # of which nothing is known
    assert all(name.startswith("skilled") for name in questions["ask"])
    asked = {(i, a) for i, a in zip(table["item"].tolist(), table["annotator"].tolist(), strict=True)}
    assert not asked & set(zip(questions["item"][1:], questions["ask"][1:], strict=True))
    assert min(questions["information"]) > 0


def test_label_studio_gives_back_what_it_was_given(crowd, found, tmp_path):
    found.write(tmp_path)
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert tasks[0]["predictions"][0]["score"] == pytest.approx(float(found.probability[0]))
    back = answers_of(tmp_path / "tasks.json")
    first = found.answers
    order = np.lexsort((first.annotators[first.annotator], first.items[first.item].astype(str)))
    other = np.lexsort((back.annotators[back.annotator], back.items[back.item]))
    for names in ("items", "annotators"):
        numbers = {"items": "item", "annotators": "annotator"}[names]
        ours, theirs = (getattr(x, names)[getattr(x, numbers)] for x in (first, back))
        np.testing.assert_array_equal(ours[order].astype(str), theirs[other])
    np.testing.assert_array_equal(first.label[order], back.label[other])
    # As Label Studio itself exports: people by e-mail, cancelled annotations, several tasks without an item's name.
    result = [{"type": "choices", "value": {"choices": ["ant"]}}]
    own = [
        {"id": 5, "data": {"text": "x"}, "annotations": [{"completed_by": {"email": "a@b"}, "result": result}]},
        {"id": 6, "data": {}, "annotations": [{"completed_by": 3, "result": result, "was_cancelled": True}]},
    ]
    (tmp_path / "own.json").write_text(json.dumps(own))
    read = answers_of(tmp_path / "own.json", class_names=("ant", "bee"))
    assert (read.items.tolist(), read.annotators.tolist()) == (["5", "6"], ["a@b", "3"])
    assert (read.item.tolist(), read.label.tolist()) == ([0], [0])


def exported(tasks, folder):
    (folder / "tasks.json").write_text(json.dumps(tasks))
    return folder / "tasks.json"


def choice(*names, control="label", **more):
    return {"from_name": control, "to_name": "item", "type": "choices", "value": {"choices": list(names)}, **more}


def test_what_is_known_beside_peoples_answers_goes_to_label_studio_and_back(tmp_path):
    table = {"item": ["a.jpg", "b.jpg", "c.jpg"], "annotator": ["x", "y", "y"], "label": ["ant", "bee", None]}
    found = nlx.consensus(table, web={"a.jpg": "bee"}, trusted={"b.jpg": "ant"})
    found.write(tmp_path)
    back = answers_of(tmp_path / "tasks.json")
    assert (back.items.tolist(), back.annotators.tolist()) == (["a.jpg", "b.jpg", "c.jpg"], ["x", "web", "y"])
    assert back.trusted.tolist() == [-1, 0, -1]
    assert back.of_web.tolist() == [False, True, False]
    again = nlx.consensus(back)
    np.testing.assert_allclose(again.posterior, found.posterior, atol=1e-6)
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert not any("completed_by" in a for task in tasks for a in task["annotations"])  # only members may be named
    config = (tmp_path / "label_config.xml").read_text()
    assert '<Image name="item" value="$item"/>' in config
    assert '<Choice value="bee"/>' in config
    assert found.items_table()["trusted"].to_pylist() == [False, True, False]


def test_label_studios_other_forms(tmp_path):
    several = [{"id": 1, "data": {}, "annotations": [{"completed_by": 1, "result": [choice("ant", "bee")]}]}]
    with pytest.raises(DataError, match=r"task 1 has an answer of several choices \(ant, bee\)"):
        answers_of(exported(several, tmp_path))
    result = [choice("blurry", control="quality"), choice("ant")]
    two = [{"id": 1, "data": {}, "annotations": [{"completed_by": 1, "result": result}]}]
    assert answers_of(exported(two, tmp_path), class_names=("ant", "bee")).class_names == ("ant", "bee")
    two[0]["annotations"][0]["result"] = [choice("blurry", control="quality"), choice("ant", control="kind")]
    with pytest.raises(DataError, match=r"choices of several controls \(kind, quality\)"):
        answers_of(exported(two, tmp_path))
    two[0]["annotations"][0]["result"] = [choice("ant")]
    two[0]["predictions"] = [{"model_version": "web", "result": [choice()]}]  # which chooses nothing
    assert answers_of(exported(two, tmp_path), class_names=("ant", "bee")).annotators.tolist() == ["1"]
    several = [{"id": 1, "item": "a", "label": {"choices": ["ant", "bee"]}, "annotator": 3}]
    with pytest.raises(DataError, match=r"an answer of several choices \(ant, bee\): give one"):
        answers_of(exported(several, tmp_path))
    beside = [
        {**several[0], "item": name, "label": name, "defects": {"choices": ["torn", "wet"]}} for name in ("ant", "bee")
    ]
    assert len(answers_of(exported(beside, tmp_path))) == 2
    short = [
        {"id": 1, "item": "a", "label": "ant", "annotator": 3},
        {"id": 2, "item": "b", "label": "bee", "annotator": 4},
    ]
    read = answers_of(exported(short, tmp_path))
    assert (read.items.tolist(), read.annotators.tolist()) == (["a", "b"], ["3", "4"])


def test_groups_have_matrices_that_lean_on_their_own(crowd):
    _, table = crowd
    kind = np.array([name.split()[0] for name in table["annotator"]])
    found = nlx.consensus({**table, "group": kind})
    assert set(found.annotators_table()["group"].to_pylist()) == set(kind)
    assert not np.allclose(found.confusion, nlx.consensus(table).confusion, atol=1e-3)


def test_trusted_labels_are_certain_and_a_classifier_may_say_more(crowd):
    true, table = crowd
    certain = nlx.consensus(table, trusted={1000: NAMES[(true[0] + 1) % 3]})
    assert certain.label[0] == (true[0] + 1) % 3
    assert certain.probability[0] == 1
    probs = np.where(np.eye(3)[true] > 0, 0.8, 0.1)
    with_probs = nlx.consensus(table, probs=probs)
    assert (with_probs.label == true).mean() > 0.97
    assert with_probs.label[-1] == true[-1]


@pytest.mark.parametrize("method", ["mace", "glad"])
def test_other_models_are_as_good_as_the_majority_at_least(crowd, found, method):
    true, table = crowd
    other = nlx.consensus(table, method=method)
    votes = np.asarray(other.votes.label)
    assert np.mean(other.label[:-1] == true[:-1]) > np.mean(votes[:-1] == true[:-1])
    np.testing.assert_allclose(other.confusion.sum(axis=2), 1, rtol=1e-5)


def test_matrices_that_no_memory_holds_are_refused(crowd, monkeypatch):
    monkeypatch.setattr(module, "memory", lambda: 1000)
    with pytest.raises(ArgumentError, match="by 12 annotators in 3 classes, whose matrices take"):
        nlx.consensus(crowd[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "guess"}, "`method` must be one of dawid_skene"),
        ({"confidence": 1.0}, "`confidence` must lie between 0 and 1"),
        ({"confidence": "a"}, "`confidence` must lie between 0 and 1"),
        ({"probs": np.ones((150, 3))}, "rows that sum to 1"),
        ({"probs": np.full((150, 3), np.nan)}, "but row 0 is"),
        ({"probs": np.ones((150, 2)) / 2}, r"a row an item and a column a class, got \[150, 2\]"),
        ({"probs": "x"}, "`probs` must be numbers"),
    ],
)
def test_a_mistake_is_one_sentence(crowd, options, message):
    with pytest.raises(ArgumentError, match=message):
        module.consensus(crowd[1], **options)
