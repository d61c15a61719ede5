"""The command nlx, in this process: files in, files out, one sentence for each mistake."""

import csv
import io
import subprocess
import sys
from collections import Counter

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nlx import cli, start
from nlx.cleaning import plan
from nlx.cleaning.label_files import read_labels
from nlx.cli import main
from nlx.experiment.saved import load_run


@pytest.fixture
def user(tmp_path, monkeypatch, capsys):
    """Function that runs the command in an empty folder, and gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 120)
    np.save("x.npy", 4 * np.eye(3, 5)[true] + rng.normal(size=(120, 5)))
    noisy = np.where(rng.uniform(size=120) < 0.2, (true + 1) % 3, true)
    names = np.array(["ant", "bee", "cat"])
    (tmp_path / "labels.txt").write_text("\n".join(names[noisy]))
    np.savez("data.npz", features=np.load("x.npy"), noisy_label=noisy)

    def call(*arguments):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            code = main(list(arguments))
        return code, *capsys.readouterr()

    return call, names[true]


def test_a_list_and_a_report_come_out(user, tmp_path):
    call, true = user
    code, out, err = call("clean", "x.npy", "labels.txt", "--out=mine", "--precision=0.5", "--network")
    assert (code, err) == (0, "")
    assert "given ones look wrong: " in out
    assert "decided to be wrong: " in out
    assert "labels that the networks change: " in out
    assert "120 examples of shape [5]; labels are 3 classes: ant, bee, cat\n" in out
    assert "15 nearest neighbours, three small networks; about " in out
    changed = table_changes(tmp_path / "mine")
    assert "cleaned labels look better than the given ones" in out
    assert f"{len(changed)} labels would change ({len(changed) / 120:.1%}), most often " in out
    (given, proposed), count = Counter(changed).most_common(1)[0]
    assert f"{given} to {proposed} ({count})" in out
    table = read_labels(tmp_path / "mine" / "labels.parquet")
    rows = list(csv.DictReader((tmp_path / "mine" / "issues.csv").read_text().splitlines()))
    assert len(rows) == 120
    cleaned = np.empty(120, object)
    for row in rows:
        cleaned[int(row["row"])] = row["proposed"]
    assert np.mean(cleaned == true) > 0.97
    assert [int(row["row"]) for row in rows] == table.most_suspicious(120).tolist()
    assert [int(row["is_issue"]) for row in rows] == table.extras["decided"][table.most_suspicious(120)].tolist()
    assert "models that have not seen the label: " in rows[0]["reason"]
    assert "while networks train its margin is " in rows[0]["reason"]
    assert float(rows[0]["label_score"]) <= float(rows[-1]["label_score"])
    assert "bee" in (tmp_path / "mine" / "report.html").read_text()
    model = load_run("mine")
    predicted = np.array(model.class_names)[model.predict(np.load("x.npy")).argmax(axis=1)]
    assert np.mean(predicted == true) > 0.97
    assert call("clean", "data.npz", "data.npz")[0] == 0


def table_changes(folder):
    rows = csv.DictReader((folder / "issues.csv").read_text().splitlines())
    return [(row["given"], row["proposed"]) for row in rows if row["changed"] == "1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.npy", "labels.txt"), "cannot read or write nothing.npy"),
        (("labels.txt", "labels.txt"), "labels.txt: no column of numbers or of vectors"),
        (("broken.npz", "labels.txt"), "broken.npz is no array"),
        (("objects.npz", "labels.txt"), "objects.npz: 'features' holds Python objects"),
        (("x.npy", "two.csv"), "two.csv: row 2 has 2 fields but row 1 has 1"),
        (("x.npy", "twice.csv", "--id=kye"), "twice.csv: there is no column 'kye', but id, label"),
        (("x.npy", "words.csv"), "words.csv: which column holds the labels? Name one by --label: name, kind"),
        (("x.npy", "slip.csv"), "slip.csv: column: 'lable' is not read: rename it to 'label'"),
        (("x.npy", "words.csv", "--label=none"), "words.csv: there is no column 'none', but name, kind"),
        (("x.npy", "headed.csv"), "121 labels for the 120 examples of x.npy: give one each; if 'kind' is a heading"),
        (("ids.npz", "twice.csv"), "twice.csv: column 'id': rows 0 and 2 have the same id, '7': give each its own"),
        (("ids.npz", "others.csv"), "others.csv: none of its ids, such as 'x', is in ids.npz, which has 0"),
        (("x.npy", "labels.txt", "--trusted=fixes.csv"), "fixes.csv: row 2 has the label 'beee': write 'bee'"),
        (("x.npy", "labels.txt", "--trusted=far.csv"), "far.csv: row 1 decides on row '120', which is not among"),
        (("x.npy", "labels.txt", "--trusted=two_minds.csv"), "two_minds.csv: row 2 decides on row '3' again"),
        (("x.npy", "labels.txt", "--trusted=labels.txt"), "decisions need the columns row, and label"),
        (("x.npy", "labels.txt", "--features=frozen"), "--features=frozen is for a folder of pictures and weights"),
        (("x.npy", "labels.txt", "--model=clip-b32"), "--model says of what network --init is, for --features=frozen"),
        (("x.npy",), "x.npy: holds features alone: give a file of labels as well"),
        (("ragged.parquet", "labels.txt"), "ragged.parquet: the vectors of column 'e' differ in length"),
        (("pictures", "pictures.csv"), "pictures.csv: row 1 names 'c.png', which is not in pictures"),
        (("empty",), "empty: has neither labels.csv nor folders of pictures"),
        (("x.npy", "short.txt"), "short.txt: 2 labels for the 120 examples of x.npy: give one each"),
        (("x.npy", "other.npz"), "has no noisy_label"),
        (("x.npy", "labels.txt", "--folds=1"), "--folds must lie between 2"),
        (("x.npy", "labels.txt", "--precision=2"), "--precision must lie between 0 and 1"),
        (("x.npy", "labels.txt", "--out=there"), "there exists: choose another folder by --out"),
        (("crowd", "said.csv", "--out=there"), "there exists: choose another folder by --out"),
        (("crowd", "labels.txt"), "labels.txt has no columns of annotators"),
        (("crowd", "said.csv", "--trusted=nothing.csv"), "nothing.csv: no such file"),
    ],
)
def test_a_mistake_is_one_sentence(user, tmp_path, arguments, message):
    call, _ = user
    (tmp_path / "short.txt").write_text("a\nb\n")
    texts = {
        "words.csv": "name;kind\na;b\n",
        "slip.csv": "name,lable\na,b\n",
        "headed.csv": "\n".join(["kind", *["ant", "bee"] * 60]),
        "twice.csv": "id,label\n7,ant\n8,bee\n7,ant\n",
        "others.csv": "id,label\nx,ant\ny,bee\n",
        "fixes.csv": "row,label\n3,ant\n4,beee\n",
        "far.csv": "row,label\n120,ant\n",
        "two_minds.csv": "row,label\n3,ant\n3,bee\n",
        "pictures.csv": "path,label\na.png,ant\nc.png,bee\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    np.savez("ids.npz", features=np.ones((2, 3)), id=np.arange(2))
    pq.write_table(pa.table({"e": [[1.0, 2.0], [3.0]]}), "ragged.parquet")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save("pictures/a.png")
    (tmp_path / "empty").mkdir()
    np.savez("other.npz", x=np.ones((3, 1)))
    (tmp_path / "there").mkdir()
    (tmp_path / "two.csv").write_text('"a"\nb,c\n')
    np.savez("objects.npz", features=np.array([None, 1]))
    (tmp_path / "broken.npz").write_bytes((tmp_path / "data.npz").read_bytes()[:300])
    (tmp_path / "said.csv").write_text("task,worker,label\n1,a,x\n")
    code, _, err = call(*(("clean",) if arguments[0] != "crowd" else ()), *arguments)
    assert code == 1
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "cleaned").exists()


@pytest.mark.slow
def test_pictures_and_vectors_and_quoted_labels(user, tmp_path):
    call, true = user
    pictures = np.zeros((120, 4, 4), np.uint8)
    pictures[np.arange(120), np.unique(true, return_inverse=True)[1]] = 200
    several = np.eye(3, dtype=int)[np.unique(true, return_inverse=True)[1]]
    several[::2, 0] = 1
    np.savez("pictures.npz", image=pictures, noisy_label=several)
    code, out, err = call("clean", "pictures.npz", "pictures.npz", "--out=vectors")
    assert (code, err) == (0, "")
    assert "labels are vectors of 3 classes" in out
    assert (tmp_path / "vectors" / "report.html").read_text().count("<img") == 48
    (tmp_path / "quoted.csv").write_text("\n".join(f'"{name}, {name}"' for name in true))
    assert "ant, ant, bee, bee, cat, cat" in call("clean", "pictures.npz", "quoted.csv")[1]


def test_answers_become_labels_and_pages(user, tmp_path):
    call, _ = user
    rows = [f"{i},{who},{'cat' if (i + (who == 'c')) % 2 else 'dog'}" for i in range(20) for who in "abc"]
    (tmp_path / "said.csv").write_text("\n".join(["task,worker,label", *rows, "20,a,"]))
    (tmp_path / "web.csv").write_text("item,label\n20,cat\n")
    code, out, err = call("crowd", "said.csv", "--out=found", "--web=web.csv", "--tasks")
    assert (code, err) == (0, "")
    assert "61 answers by 4 annotators to 21 items; labels are 2 classes: cat, dog" in out
    assert "items without an answer: 1" in out
    found = list(csv.DictReader((tmp_path / "found" / "consensus.csv").read_text().splitlines()))
    assert [row["label"] for row in found] == ["dog", "cat"] * 10 + ["cat"]
    people = list(csv.DictReader((tmp_path / "found" / "annotators.csv").read_text().splitlines()))
    assert {people[0]["annotator"], people[1]["annotator"]} == {"a", "b"}
    assert float({row["annotator"]: row for row in people}["c"]["right"]) < 0.2
    assert "data:image/png" in (tmp_path / "found" / "report.html").read_text()
    assert "to ask first: 20 (a)" in out or "to ask first: 20 (b)" in out
    assert (tmp_path / "found" / "tasks.json").exists()
    listed = read_labels(tmp_path / "found" / "labels.parquet")
    assert listed.origin.key.tolist() == list(map(str, range(21)))  # the user's own ids
    assert len(list(csv.DictReader((tmp_path / "found" / "issues.csv").read_text().splitlines()))) == 21
    page = (tmp_path / "found" / "report.html").read_text()
    for heading in ("Whom to trust", "Answers most likely to be wrong", "What to ask next, and whom"):
        assert f"<h2>{heading}</h2>" in page
    assert "The first 20 of 61 rows" in page
    assert "nlx crowd ANSWERS --trusted=decided.csv" in (tmp_path / "found" / "crowd.txt").read_text()
    (tmp_path / "decided.csv").write_text("item,label\n20,dog\n")
    code, out, err = call("crowd", "found/tasks.json", "--out=second", "--trusted=decided.csv", "--method=glad")
    assert (code, err) == (0, "")
    assert "worth beside others" not in out  # which that model does not know
    again = read_labels(tmp_path / "second" / "labels.parquet")
    assert again.extras["trusted"].tolist() == [False] * 20 + [True]


def test_the_plan_adds_up_what_was_tried(monkeypatch):
    monkeypatch.setattr(plan, "_seconds", lambda run: (0.1, 0.02))
    said = plan.planned((10_240, 256), 10, None, True, 3)
    # 60 and 60 programs; 400 steps, a third more for the model that is kept, and 30 times as many of networks; Bayes'
    # rule 230 times for ten times as many; neighbours of ten times as many, squared.
    assert said == "linear models in 3 folds, 15 nearest neighbours, three small networks; about 5 minutes"
    assert plan.planned((90_000, 256), 10, None, False, 5).endswith("no neighbours, being too many; about 8 minutes")
    # Three times on a fifth of 64 examples of each class, and then on all; Bayes' rule 200 times for 16,777 of them.
    assert plan.planned((90_000, 256), 1000, None, False, 5).startswith("linear models in 5 folds in the best of three")
    assert plan.planned((90_000, 256), 1000, None, False, 5).endswith("about 4 minutes")


def test_the_command_speaks_before_it_loads(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    told = []
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(cli, "main", lambda: told.append(sys.stderr.getvalue()) or 7)
    assert start.main() == 7
    assert told == ["loading nlx ...\r\x1b[2K"]
    run = subprocess.run(
        [sys.executable, "-c", "import sys, nlx.start; print('jax' in sys.modules)"], capture_output=True
    )
    assert run.stdout == b"False\n"


def test_unknown_flags_exit_with_2(user):
    with pytest.raises(SystemExit) as ended:
        main(["clean", "x.npy", "labels.txt", "--fold=3"])
    assert ended.value.code == 2
