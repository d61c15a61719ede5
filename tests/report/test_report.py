import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from nlx.cleaning.table import label_table
from nlx.data.dataset import ImageFiles
from nlx.data.origin import Origin
from nlx.report import page
from nlx.report.plots import training_curves
from nlx.report.report import write_report
from nlx.report.thumbnails import thumbnails

NAMES = ("<cat>", 'dog & "co"', "owl")
POSTERIOR = np.array([[0.9, 0.05, 0.05], [0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.0, 0.99, 0.01]])
GIVEN = np.array([0, 1, 0, 2])  # scores 0.9, 0.2, 0.1, 0.01


class _Page(HTMLParser):
    """Text of the cells of every table, and what the page refers to."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.references, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.references += [value for name, value in attributes if name in ("src", "href", "action", "data", "srcset")]
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data


def _write(tmp_path, table=None, **changes):
    arguments = {
        "title": "can on <web>",
        "facts": {"data": "web/sample", "classes": list(NAMES)},
        "summary": {"last": {"test_accuracy": 0.875}, "best": {"test_accuracy": {"value": 0.9, "epoch": 3}}},
        "plots": [],
        "table": label_table(POSTERIOR, GIVEN, class_names=NAMES, chosen="bayes") if table is None else table,
        "class_names": NAMES,
        "inputs": None,
        **changes,
    }
    write_report(tmp_path / "report.html", **arguments)
    text = (tmp_path / "report.html").read_text()
    page = _Page(text)
    assert page.open == []
    return text, page


def test_single_labels_are_ranked_and_escaped(tmp_path):
    text, page = _write(tmp_path)
    suspicious, confusions, classes, scores = page.tables
    assert scores[1] == ["Test accuracy", "87.5%", "90.0%", "3"]
    assert [row.pop(1) for row in suspicious][:2] == ["Reason", 'bayes: dog & "co" 99 %, given owl 1 %']
    assert suspicious == [
        ["Row", "Given", "p(given)", "Proposed", "p(proposed)"],
        ["3", "owl", "1.0%", 'dog & "co"', "99.0%"],
        ["2", "<cat>", "10.0%", "owl", "80.0%"],
        ["1", 'dog & "co"', "20.0%", "<cat>", "70.0%"],
        ["0", "<cat>", "90.0%", "<cat>", "90.0%"],
    ]
    # Given, removed, added, cleaned; every class loses one and gains one.
    counts = [["2", "1", "1", "2", "50.0%"], ["1", "1", "1", "1", "80.0%"], ["1", "1", "1", "1", "99.0%"]]
    assert [row[1:] for row in classes[1:]] == counts
    assert [row[1:] for row in confusions[1:]] == [["", "", "1"], ["1", "", ""], ["", "1", ""]]
    assert "Of 4 given labels, 3 (75.0%) would change" in text
    assert "<cat>" not in text
    assert "&lt;cat&gt;" in text
    assert "<h1>can on &lt;web&gt;</h1>" in text


def test_multi_labels_name_their_changes(tmp_path):
    posterior = np.array([[0.9, 0.2, 0.6], [0.97, 0.04, 0.05]])
    table = label_table(posterior, np.array([[1, 1, 0], [1, 0, 0]]), true_label=np.array([[1, 0, 1], [0, 0, 0]]))
    table = replace(table, class_names=tuple(NAMES))
    _, page = _write(tmp_path, table)
    suspicious, classes, _ = page.tables
    assert [row.pop(1) for row in suspicious][1] == 'posterior: without dog & "co" 80 %, with owl 60 %'
    assert suspicious[1:] == [
        ["0", '<cat>, dog & "co"', "7.2%", '−dog & "co"\xa080.0%, +owl\xa060.0%', "60.0%", "<cat>, owl"],
        ["1", "<cat>", "88.5%", "no change", "95.0%", "none"],
    ]
    assert classes[1:] == [
        ['dog & "co"', "1", "1", "0", "0", "0.0%", "0.0%"],
        ["owl", "0", "0", "1", "1", "0.0%", "100.0%"],
        ["<cat>", "2", "0", "0", "2", "100.0%", "100.0%"],
    ]


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_thumbnails_are_the_images_in_order_of_suspicion(channels, tmp_path):
    images = np.full((4, 8, 6, channels), np.arange(4, dtype=np.uint8)[:, None, None, None] * 50)
    text, page = _write(tmp_path, inputs=images, top=3)
    assert json.loads(re.search(r'id="data">(.*?)</script>', text)[1])["pictures"][:3] == page.references
    pictures = [Image.open(io.BytesIO(base64.b64decode(src.split(",")[1]))) for src in page.references]
    assert [np.asarray(picture).max() for picture in pictures] == [150, 100, 50]
    assert {picture.size for picture in pictures} == {(6, 8)}
    assert {picture.mode for picture in pictures} == {"RGB" if channels == 3 else "L"}


def test_thumbnails_of_files_and_of_a_subset(tmp_path):
    for i in range(9):
        Image.new("RGB", (400, 300), (20 * i, 0, 0)).save(tmp_path / f"{i}.png")
    table = label_table(POSTERIOR, GIVEN, index=np.array([8, 3, 5, 1]), class_names=NAMES)
    inputs = ImageFiles(tuple(str(tmp_path / f"{i}.png") for i in range(9)), 224)
    _, page = _write(tmp_path, table, inputs=inputs)
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(s.split(",")[1])))) for s in page.references]
    np.testing.assert_allclose([picture[..., 0].mean() for picture in pictures], [20, 100, 60, 160], atol=2)
    assert pictures[0].shape == (108, 108, 3)


def test_pictures_end_where_the_page_would_be_too_large():
    images = np.random.default_rng(0).integers(0, 256, (40, 20, 20, 3), dtype=np.uint8)
    every = thumbnails(images, range(40), 10**6)
    assert len(every) == 40
    assert thumbnails(images, range(40), sum(map(len, every[:7]))) == every[:7]
    assert thumbnails(np.zeros((4, 5)), range(4), 10**6) == []


def test_the_page_is_self_contained(tmp_path):
    training_curves([{"epoch": 1, "train_loss": 1.0}], tmp_path / "curves.png")
    text, page = _write(tmp_path, plots=[tmp_path / "curves.png"], inputs=np.zeros((4, 5, 5, 1), np.uint8))
    assert all(reference.startswith("data:image/png;base64,") for reference in page.references)
    assert base64.b64decode(page.references[-1].split(",")[1]) == (tmp_path / "curves.png").read_bytes()
    assert not re.search(r"https?:|url\(|@import|<script src", text)
    assert "prefers-color-scheme: dark" in text


def test_feature_vectors_give_no_thumbnails(tmp_path):
    _, page = _write(tmp_path, inputs=np.zeros((4, 5), np.float32))
    assert page.references == []


def test_summary_lists_what_is_not_a_score(tmp_path):
    summary = {"wall_seconds": 12345.6, "cost": {"bayes": 1.23456}, "test_examples": 300, "seeds": [0, 1], "none": None}
    text, page = _write(tmp_path, summary=summary)
    shown = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    assert shown["Wall seconds"] == "12,346"
    assert shown["Cost · Bayes"] == "1.235"
    assert (shown["Test examples"], shown["Seeds"], shown["None"]) == ("300", "0, 1", "–")
    assert len(page.tables) == 3  # no scores


def test_the_answer_and_what_speaks_against_it_come_first(tmp_path):
    table = label_table(POSTERIOR, GIVEN, class_names=NAMES)
    noise = {"value": 0.5, "low": 0.25, "high": 0.75}
    guard = {"noise": noise, "verdict": "worse", "held_out_hits": {"given": 0.4}, "classes_lost": ["<cat>"]}
    guard["classes_unpredicted"] = ["dog"]
    text, _ = _write(tmp_path, replace(table, guard=guard), told={"still wrong": "3.0 %"})
    shown = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    assert shown["Labels that look wrong"] == "50.0 % [25.0, 75.0]"
    assert shown["Labels proposed to change"] == "3 of 4 (75.0%)"
    assert shown["Proposals surer than 90 %"] == "1; all on average 83%"
    assert shown["Still wrong"] == "3.0 %"
    told = ("predict 40% of them, about what guessing", "look worse than", "vanish", "predicts: dog")
    for warning in (*told, "75% of all labels"):
        assert warning in text[: text.index("<h2>Labels to look at first")], warning
    kept = replace(label_table(np.eye(3)[GIVEN], GIVEN, class_names=NAMES), guard={"noise": noise})
    assert "No label would change, though 50 % look wrong" in _write(tmp_path, kept)[0]


def test_columns_that_tell_of_an_example_are_shown_and_no_mark_of_direction_is(tmp_path):
    paths = np.array(["a.png", "</script><script>x()", "b\u202e", "c.png"])
    table = label_table(POSTERIOR, GIVEN, class_names=NAMES, origin=Origin(np.arange(7, 11), "path", paths))
    text, page = _write(tmp_path, table)
    assert [row[0] for row in page.tables[0]] == ["Row", "10", "9", "8", "7"]
    assert [row[1] for row in page.tables[0]] == ["Path", "c.png", "b\\u202e", paths[1], "a.png"]
    assert page.tables[0][1][2] == f"posterior: {NAMES[1]} 99 %, given {NAMES[2]} 1 %"
    assert text.count("<script") == 2
    held = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert [row[1][0] for row in held["rows"]] == ["c.png", "b\\u202e", paths[1], "a.png"]


def test_empty_table(tmp_path):
    text, _ = _write(tmp_path, label_table(np.zeros((0, 3)), np.zeros(0, int)))
    assert "Of 0 given labels, 0 would change" in text


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="class_names has 1 names for 3 classes"):
        _write(tmp_path, class_names=("a",))
    with pytest.raises(ValueError, match="inputs has 3 examples, the table goes to index 3"):
        _write(tmp_path, inputs=np.zeros((3, 4, 4, 1), np.uint8))
    with pytest.raises(FileNotFoundError):
        _write(tmp_path, plots=[tmp_path / "none.png"])
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", ["<script>x()</script>", "\" onload='x()'", "\u202egnp.exe", "a\u2066b\x1b[31m"])
def test_hostile_names_are_text(tmp_path, name):
    """In the title, among the facts, as a class and as a picture's description."""
    shown = page.escape(name)
    assert not set(shown) & set("<>\"'\u202e\u2066\x1b")
    assert shown in page.document(name, "")
    assert shown in page.definitions([(name, "")])
    assert shown in page.embedded(b"", name)
    assert page.escape("naïve 猫 \u200dमैं") == "naïve 猫 \u200dमैं"
