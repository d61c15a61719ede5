"""What is written can be joined to the user's own file, by row, id or path, and every row is right."""

import csv

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nlx.cleaning.label_files import read_labels, write_issues, write_labels
from nlx.cleaning.label_forms import classes_of
from nlx.cleaning.table import label_table
from nlx.data.examples import Names, read_examples
from nlx.data.sources.image_folder import folder
from nlx.experiment.export import held_out_tables

CLASSES = ("ant", "bee", "cat; or dog")


def written(tmp_path, table, held_out=None):
    """Both files, as lists of dictionaries."""
    write_labels(tmp_path / "labels.parquet", table, held_out)
    write_issues(tmp_path / "issues.csv", table, held_out)
    with open(tmp_path / "issues.csv", encoding="utf-8", newline="") as file:
        issues = list(csv.DictReader(file))
    return pq.read_table(tmp_path / "labels.parquet").to_pylist(), issues


@pytest.mark.parametrize("seed", range(8))
def test_every_row_of_a_run_is_the_users(seed, tmp_path):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(12, 40))
    mine = []
    for i in range(n):
        name = f"{'ü ' if i % 3 else ''}{i}.png"
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / name)
        test = i > 3 and rng.uniform() < 0.3
        noisy = "" if test or (i > 3 and rng.uniform() < 0.2) else CLASSES[rng.integers(3)]
        mine.append({"path": name, "noisy": noisy, "label": CLASSES[i % 3] if test else "", "split": "test" * test})
    rng.shuffle(mine)
    with open(tmp_path / "labels.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, mine[0].keys())
        writer.writeheader()
        for row in mine:
            writer.writerow(row)
            file.write("\n" * int(rng.integers(0, 2)))  # blank lines, which readers pass over
    data = folder(tmp_path, 4, label_separator="|")
    if seed % 2:
        data = data.keep(0.7, seed)
    if seed % 3 == 0:
        data = data.hold_out(0.3, seed)

    def of(split, probs):
        return held_out_tables({"test": (split, probs)}, data, "m", True)["test"]

    def probs(split):
        return rng.dirichlet(np.ones(data.num_classes), len(split))

    held_out = {"test": data.test, "validation": data.validation}
    held_out = {name: of(split, probs(split)) for name, split in held_out.items() if split is not None}
    table = label_table(
        probs(data.train), data.given(data.train), class_names=data.class_names, origin=data.train.origin
    )
    assert held_out
    parts = {"train": table, **held_out}
    for rows in written(tmp_path, table, held_out):
        assert len(rows) == sum(map(len, parts.values()))
        assert len({(row["split"], row["row"]) for row in rows}) == len(rows)
        for row in rows:
            own = mine[int(row["row"])]
            assert row["path"] == own["path"]
            assert row["given"] == (own["label"] if row["split"] == "test" else own["noisy"])
            assert row["proposed"] in CLASSES
            assert (row["split"] == "test") == (own["split"] == "test")
    by_path = {path: i for i, path in enumerate(table.origin.key)}
    for row in pq.read_table(tmp_path / "labels.parquet").to_pylist():
        if row["split"] == "train":
            assert row["label_score"] == table.label_score[by_path[row["path"]]]
    again = read_labels(tmp_path / "labels.parquet")
    np.testing.assert_array_equal(again.origin.row, table.origin.row)
    assert again.origin.key.tolist() == table.origin.key.tolist()


@pytest.mark.parametrize("seed", range(8))
def test_every_row_of_a_list_is_the_users(seed, tmp_path):
    rng = np.random.default_rng(seed)
    n, kind = int(rng.integers(5, 30)), ("id", "path", "numbers", "order")[seed % 4]
    keys = [i * 7 if kind == "numbers" else f"{i}, é" for i in rng.permutation(n).tolist()]
    given = {key: "" if i > 2 and rng.uniform() < 0.2 else CLASSES[i % 2] for i, key in enumerate(keys)}
    arrays = {"features": rng.normal(size=(n, 3))}
    column = "path" if kind == "path" else "ID"
    if kind != "order":
        arrays[column.lower()] = np.array(keys)
    np.savez(tmp_path / "x.npz", **arrays)
    order = range(n) if kind == "order" else rng.permutation(n)
    dropped = set() if kind == "order" or seed < 4 else set(rng.permutation(n)[: n // 5].tolist())
    with open(tmp_path / "y.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=";" if seed % 2 else ",")
        writer.writerow([column, "Label", "more"])
        writer.writerows([keys[i], given[keys[i]], "x"] for i in order if i not in dropped)
    examples = read_examples(tmp_path / "x.npz", tmp_path / "y.csv", Names())
    np.testing.assert_array_equal(examples.inputs, arrays["features"])
    found = classes_of(examples.labels, None)
    table = label_table(
        rng.dirichlet(np.ones(len(found.names)), n), found.noisy, class_names=found.names, origin=examples.origin
    )
    for rows in written(tmp_path, table):
        assert sorted(int(row["row"]) for row in rows) == list(range(n))
        for row in rows:
            i = int(row["row"])
            assert str(row[column.lower()]) == str(keys[i])
            assert (row["given"] or "") == ("" if i in dropped else given[keys[i]])
            assert not (row["given"] in (None, "") and int(row["is_issue"]))
