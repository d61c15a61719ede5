"""Labels, features and decisions in the forms that people have them in."""

import csv
import importlib.util

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy import sparse

from nlx.arguments import ArgumentError
from nlx.cleaning.arrays import columns_of, features_of
from nlx.cleaning.decisions import read_decisions
from nlx.cleaning.label_files import read_labels, write_issues, write_labels
from nlx.cleaning.label_forms import classes_of, label_array, split_labels, trusted_rows
from nlx.cleaning.pictures import patch_features, patterns_of
from nlx.cleaning.readme import SNIPPETS, write_readme
from nlx.cleaning.table import label_table
from nlx.cli import main
from nlx.commands.models import save_linear
from nlx.data import DataError
from nlx.data.examples import Names, read_examples
from nlx.data.origin import Origin
from nlx.data.tables import as_table, is_frame
from nlx.experiment.saved import load_run

NAN = float("nan")


@pytest.mark.parametrize(
    ("labels", "noisy", "names"),
    [
        (["b", "", "a", None], [1, -1, 0, -1], "ab"),
        (["b", NAN, "a"], [1, -1, 0], "ab"),
        ([1.0, NAN, 3], [0, -1, 1], "13"),
        ([1, None, 3], [0, -1, 1], "13"),
        ([1, -1, 0], [1, -1, 0], "01"),
        ([1, -2, -1], [2, 0, 1], ("-2", "-1", "1")),  # -1 means nothing where -2 is a class
        (["1", "-1", "0", "1.0"], [1, -1, 0, 1], "01"),
        ([[0, 1], [1, 0], [-1, -1]], [1, 0, -1], "01"),
        ([[0, 1], [1, 1]], [[0, 1], [1, 1]], "01"),
        ([[0, 1], [NAN, 0], [1, 1]], [[0, 1], [-1, -1], [1, 1]], "01"),
        ([["a"], ["a", "b"], None, []], [[1, 0], [1, 1], [-1, -1], [-1, -1]], "ab"),
        (np.array(["a", "", "b;a"]), [[1, 0], [-1, -1], [1, 1]], "ab"),
        ([[0.3, 0.7], [0.5, 0.5], [NAN, NAN]], [1, 0, -1], "01"),
    ],
)
def test_labels_of_any_form(labels, noisy, names):
    found = classes_of(split_labels(label_array(labels), ";"), None)
    assert (found.noisy.tolist(), found.names) == (noisy, tuple(names))
    assert (found.soft is not None) == (0.3 in np.ravel(noisy if isinstance(labels[0], str) else labels[0]))
    np.testing.assert_array_equal(found.given, np.reshape(noisy, (len(noisy), -1)).min(axis=1) >= 0)


def test_what_may_mean_two_things_is_refused():
    given = np.array(["yes", "no", "yes"])
    assert trusted_rows(np.array([True, False, True]), given, ("no", "yes"))[1] == ["yes", "yes"]
    assert trusted_rows(np.array(["cat", "", "dog"]), given, ("cat", "dog"))[0].tolist() == [0, 2]
    assert trusted_rows(np.array(["true", "", "no"]), given, ("cat", "dog"))[0].tolist() == [0]
    with pytest.raises(ArgumentError, match="`trusted` can be a mask or labels"):
        trusted_rows(np.array(["yes", "", "no"]), given, ("no", "yes"))
    with pytest.raises(ArgumentError, match="mask or labels of the 3 examples"):
        trusted_rows(np.array([True]), given, ("no", "yes"))


@pytest.fixture(scope="module")
def clusters():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 200)
    x = 3 * np.eye(3, 4)[true] + rng.normal(size=(200, 4))
    return x, np.where(rng.uniform(size=200) < 0.25, (true + 1) % 3, true), true


@pytest.fixture(autouse=True)
def as_users_have_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("package", ["pyarrow", "pandas", "polars", "datasets"])
def test_frames_of_any_make(package):
    module = pytest.importorskip(package)
    content = {"e": [[1.0, 2.0], [3.0, 4.0]], "Label": ["a", None], "key": ["x", "y"], "ok": [True, False]}
    make = {"pyarrow": "table", "pandas": "DataFrame", "polars": "DataFrame"}
    frame = getattr(module, make[package])(content) if package in make else module.Dataset.from_dict(content)
    assert is_frame(frame)
    inputs, labels, trusted, origin = columns_of(frame, "label", "ok", "key")
    assert inputs.tolist() == content["e"]
    assert (labels.tolist(), trusted.tolist(), origin.key.tolist()) == (["a", None], [True, False], ["x", "y"])
    with pytest.raises(DataError, match="there is no column 'none', but e, Label, key, ok"):
        columns_of(frame, "none", None, None)


def test_columns_of_numbers_and_names_that_need_a_frame():
    table = as_table(pa.table({"a": [1, 2], "b": [0.5, None], "word": ["x", "y"]}))
    np.testing.assert_array_equal(table.features(["word"]), [[1, 0.5], [2, NAN]])
    with pytest.raises(ArgumentError, match="`labels`='label' names a column"):
        columns_of(np.ones((2, 2)), "label", None, None)
    with pytest.raises(DataError, match="rows 0 and 1 have the same id, 7"):
        columns_of(np.ones((2, 2)), [0, 1], None, [7, 7])


def test_sparse_features_fill_memory_or_are_refused(tmp_path, monkeypatch):
    matrix = sparse.random(20, 9, 0.3, "csr", random_state=0)
    np.testing.assert_array_equal(features_of(matrix), matrix.toarray())
    sparse.save_npz(tmp_path / "x.npz", matrix)
    (tmp_path / "y.txt").write_text("a\nb\n\n" + 17 * "a\n" + "\n\n")
    examples = read_examples(tmp_path / "x.npz", tmp_path / "y.txt", Names())
    np.testing.assert_array_equal(features_of(examples.inputs), matrix.toarray())
    assert examples.labels.tolist() == ["a", "b", "", *17 * ["a"]]
    with pytest.raises(ArgumentError, match=r"\[1000000, 1000000\] fill 7450.6 GiB .*TruncatedSVD"):
        features_of(sparse.csr_matrix((10**6, 10**6)))


def test_files_are_joined_by_id_whatever_their_order(tmp_path):
    pq.write_table(pa.table({"ID": [3, 1, 2], "vector": [[3.0, 0], [1.0, 0], [2.0, 0]]}), tmp_path / "x.parquet")
    (tmp_path / "y.csv").write_text("Label\tid\tTrusted\nb\t2\t1\na\t1\t0\nc\t9\t0\n")
    examples = read_examples(tmp_path / "x.parquet", tmp_path / "y.csv", Names())
    assert examples.inputs[:, 0].tolist() == [3, 1, 2]
    assert (examples.labels.tolist(), examples.trusted.tolist()) == ([None, "a", "b"], [None, "0", "1"])
    assert examples.origin.key.tolist() == [3, 1, 2]
    said = "joined by id: 2 of 3 examples; 1 have no label; 1 labels have no features and are left out"
    assert examples.notes == (f"labels: Label of {tmp_path / 'y.csv'}", said)
    (tmp_path / "all.csv").write_text("a,b,word,y\n1,2,x,p\n3,4,y,q\n")
    both = read_examples(tmp_path / "all.csv", None, Names(label="word"))
    assert (both.inputs.tolist(), both.labels.tolist()) == ([[1, 2], [3, 4]], ["x", "y"])
    (tmp_path / "numbers.csv").write_text("1,2\n3,4\n")
    (tmp_path / "y.txt").write_text("a\nb\n")
    assert read_examples(tmp_path / "numbers.csv", tmp_path / "y.txt", Names()).inputs.shape == (2, 2)


def test_decisions_find_their_rows(tmp_path):
    origin = Origin(np.arange(4), "id", np.array([10, 20.0, "x", "007"], object))
    (tmp_path / "fixes.csv").write_text("id;given;label\n20;a;b\nx;b;\n007;a;new;\n10;a;a\n".replace("new;", "new"))
    assert read_decisions(tmp_path / "fixes.csv", origin, ("a", "b")) == {1: "b", 3: "new", 0: "a"}
    pq.write_table(pa.table({"row": [2, 0], "label": ["a;b", None]}), tmp_path / "fixes.parquet")
    assert read_decisions(tmp_path / "fixes.parquet", origin, ("a", "b")) == {2: ("a", "b")}


@pytest.fixture
def pictures(tmp_path):
    rng, root = np.random.default_rng(0), tmp_path / "pictures"
    for name, stripes in (("across", 0), ("down", 1)):
        (root / name).mkdir(parents=True)
        for i in range(30):
            wave = np.sin(np.arange(20) + rng.uniform(0, 6))
            picture = np.broadcast_to(wave[:, None] if stripes == 0 else wave[None], (20, 20))
            pixels = 120 + 60 * picture[..., None] + rng.normal(0, 20, (20, 20, 3))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / name / f"{i:02}.png")
    return root


def test_pictures_in_folders_or_in_a_table(pictures, tmp_path):
    by_folder = read_examples(pictures, None, Names())
    assert by_folder.inputs.shape == (60, 32, 32, 3)
    assert by_folder.labels.tolist() == ["across"] * 30 + ["down"] * 30
    assert by_folder.origin.key[[0, -1]].tolist() == ["across/00.png", "down/29.png"]
    rows = [f"{'down' if i == 3 else path.split('/')[0]},{path}" for i, path in enumerate(by_folder.origin.key)]
    (pictures / "labels.csv").write_text("\n".join(["species,File", *rows[::-1]]))
    listed = read_examples(pictures, None, Names(label="species"))
    assert listed.origin.key.tolist() == by_folder.origin.key.tolist()[::-1]
    np.testing.assert_array_equal(listed.inputs, by_folder.inputs[::-1])
    (pictures / "across" / "07.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"07\.png: not a readable picture"):
        read_examples(pictures, None, Names(label="species"))
    fewer = read_examples(pictures, None, Names(label="species"), skip_broken=True)
    assert fewer.origin.row.tolist() == [row for row in range(60) if row != 52]
    patterns = patterns_of(by_folder.inputs)
    features = patch_features(by_folder.inputs, patterns)
    assert features.shape == (60, 1024)
    larger = by_folder.inputs[:8].repeat(3, axis=1).repeat(3, axis=2)[:, :, :97]  # are first made smaller
    np.testing.assert_allclose(patch_features(larger, patterns), features[:8], atol=1e-4)
    # What is kept of them predicts from pictures.
    down = (by_folder.labels == "down").astype(int)
    table = label_table(np.eye(2)[down], down, class_names=("across", "down"))
    save_linear(tmp_path / "kept", features, table, images=by_folder.inputs, patterns=patterns)
    model = load_run(tmp_path / "kept")
    assert (model.predict(by_folder.inputs).argmax(axis=1) == down).all()
    assert (model.predict(model.files([pictures / "down" / "03.png"])).argmax(axis=1) == 1).all()
    far = np.linalg.norm(features[:30].mean(axis=0) - features[30:].mean(axis=0))
    assert far > 3 * np.linalg.norm(features[:15].mean(axis=0) - features[15:30].mean(axis=0))


def test_gaps_and_decisions_go_round_by_the_command(clusters, tmp_path, monkeypatch, capsys):
    x, given, true = clusters
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", x)
    names = np.array(["ant", "bee", "cat"])
    gaps, known = np.arange(0, 200, 10), np.arange(5, 200, 20)
    labels = ["" if i in gaps else names[c] for i, c in enumerate(given)]
    right = [names[true[i]] if i in known or i == 0 else "" for i in range(200)]  # also of a row without a label
    paths = [f"p{i}.png" for i in range(200)]
    with open("labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("label", "path", "Trusted"), *zip(labels, paths, right, strict=True)])
    assert main(["clean", "x.npy", "labels.csv", "--out=first"]) == 0
    assert "cat; 20 without a label; 11 trusted\n" in capsys.readouterr().out
    with open("first/issues.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    table = read_labels("first/labels.parquet")
    np.testing.assert_array_equal(np.flatnonzero(~table.labelled), gaps)
    assert not table.is_issue[gaps].any()
    assert table.is_issue.sum() > 10
    assert table.probability[0] == 1
    assert np.mean(table.cleaned_label[gaps] == true[gaps]) >= 0.85
    assert np.mean(table.cleaned_label == true) > 0.93
    decided = {int(row["row"]): names[true[int(row["row"])]] for row in rows if row["label"]}
    assert set(decided) == {0, *known}
    decided |= {int(row["row"]): names[true[int(row["row"])]] for row in rows[:40]}
    with open("fixes.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=";")
        writer.writeheader()
        writer.writerows(row | {"label": decided.get(int(row["row"]), "")} for row in rows)
    assert main(["clean", "x.npy", "labels.csv", "--out=second", "--trusted=fixes.csv"]) == 0
    assert f"; {len(decided)} trusted" in capsys.readouterr().out
    with open("second/issues.csv", newline="") as file:
        again = {int(row["row"]): row for row in csv.DictReader(file)}
    assert {row: told["label"] for row, told in again.items() if told["label"]} == decided
    assert all(again[row]["proposed"] == name and again[row]["path"] == f"p{row}.png" for row, name in decided.items())
    assert all(again[row]["reason"] == f"checked: {name}" for row, name in decided.items())


def test_readme_snippets_run(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    origin = Origin(np.arange(6), "path", np.array([f"{i}.png" for i in range(6)], object))
    table = label_table(rng.dirichlet(np.ones(3), 6), np.array([0, 1, 2, 0, 1, -1]), origin=origin)
    held_out = {"test": label_table(rng.dirichlet(np.ones(3), 2), np.array([0, 1]))}
    write_labels("labels.parquet", table, held_out)
    write_issues("issues.csv", table, held_out)
    write_readme("README.txt", table, 0.9)
    text = (tmp_path / "README.txt").read_text()
    assert "is_issue: whether the given label is held to be wrong: of these, at least 90 % are wrong" in text
    documented = {name.strip() for line in text.splitlines() if ": " in line for name in line.split(":")[0].split(",")}
    assert set(pq.read_table("labels.parquet").column_names) <= documented
    assert set((tmp_path / "issues.csv").read_text().splitlines()[0].split(",")) <= documented
    for name, code in SNIPPETS.items():
        assert code.strip() in text
        if importlib.util.find_spec(name.split(",")[0].split(" ")[0]) is None:
            continue
        space = {}
        exec(code, space)
        if name == "pandas":
            assert space["mine"].proposed.notna().sum() == 6
            assert space["wrong"].issue_rank.is_monotonic_increasing
        if "cleanlab" in name:
            assert space["issues"].is_label_issue.sum() == table.is_issue.sum()
        if name.startswith("json"):
            assert len(space["tasks"]) == 8
