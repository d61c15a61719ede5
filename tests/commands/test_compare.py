"""Runs side by side, from what they leave in their folders."""

import json

import pytest

from nlx.cli import main
from nlx.commands.compare import grouped, read_runs

OPTIONS = {"dataset": "digits", "noise": "symmetric:0.4", "seeds": 1, "run_dir": None, "learning_rate": 0.1}


def leave(folder, method, seed, accuracy, **options):
    """A folder as a run leaves it."""
    folder.mkdir(parents=True)
    config = {"options": OPTIONS | options | {"seed": seed, "run_dir": str(folder)}}
    last = {"test_accuracy": accuracy, "train_loss": 0.5}
    summary = {"method": method, "dataset": "digits/symmetric:0.4", "last": last, "wall_seconds": 30.0}
    rows = [{"epoch": e, "train_loss": 1 / e, "test_accuracy": accuracy * e / 2} for e in (1, 2)]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(json.dumps(summary | {"given_label_recovery": 0.6}))
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_seeds_are_one_row_and_options_that_differ_are_told(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    leave(tmp_path / "a" / "seed-0", "can", 0, 0.9, widths=[16])
    leave(tmp_path / "a" / "seed-1", "can", 1, 0.8, widths=[16])
    leave(tmp_path / "b", "plain", 0, 0.7, learning_rate=0.01)
    leave(tmp_path / "c", "plain", 3, 0.75, q="$0.7$")
    assert main(["compare", "a", "b", "c", "--out=x.svg"]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (header, *rows[:3])]
    assert cells == [
        ["method", "data", "labels wrong", "seeds", "learning_rate", "test accuracy", "minutes"],
        ["can", "digits/symmetric:0.4", "40.0%", "2", "0.1", "85.0 ± 7.1", "1.0"],
        ["plain", "digits/symmetric:0.4", "40.0%", "1", "0.01", "70.0", "0.5"],
        ["plain", "digits/symmetric:0.4", "40.0%", "1", "0.1", "75.0", "0.5"],
    ]
    assert rows[3] == "curves: x.svg"
    assert "</svg>" in (tmp_path / "x.svg").read_text()
    names = [group.name for group in grouped([run for f in "abc" for run in read_runs(tmp_path / f)])]
    assert names == ["can learning_rate=0.1", "plain learning_rate=0.01", "plain learning_rate=0.1"]
    assert main(["compare", "a"]) == 0
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("none",), "none is no folder of a finished run"), (("none", "--out=x.pdf"), "no .png or .svg: choose another")],
)
def test_a_mistake_is_one_sentence(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *arguments]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1
