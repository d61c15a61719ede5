"""Recipes as programs of their own: what a run leaves, a stop and its resumption, exit codes and help."""

import html
import importlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nlx.cleaning.label_files import read_labels
from nlx.experiment.main import run_recipe
from tests.conftest import options_type

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT: dict[str, str] = {}


@pytest.fixture(scope="module", autouse=True)
def environment(of_one_device):
    ENVIRONMENT.update(of_one_device)


def start(recipe, *options):
    command = [sys.executable, str(ROOT / "recipes" / f"{recipe}.py"), *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def call(recipe, *options):
    process = start(recipe, *options)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


SMALL = ("--widths", "16", "--batch_size=30")
EPOCHS = 60


@pytest.fixture(scope="module")
def whole(arrays, tmp_path_factory):
    """Options of a run of some length, the folder of one that nobody stopped, and what that said."""
    options = (f"--dataset=npz:{arrays}", "--labels=web", f"--epochs={EPOCHS}", *SMALL)
    folder = tmp_path_factory.mktemp("runs") / "whole"
    code, _, err = call("can", *options, f"--run_dir={folder}")
    assert code == 0, err
    return options, folder, err


def test_a_can_run_leaves_everything_it_promises(whole, as_a_user):
    options, run, err = whole
    assert f"epoch {EPOCHS}/{EPOCHS}" in err
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, EPOCHS + 1))
    promised = {"step", "seconds", "examples_per_second", "train_loss", "test_accuracy", "test_map", "recovery"}
    assert promised <= rows[-1].keys()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["last"]["test_accuracy"] == rows[-1]["test_accuracy"]
    assert summary["best"]["test_accuracy"]["value"] == max(row["test_accuracy"] for row in rows)
    assert summary["seeds"] == [0]
    assert summary["versions"]["jax"]
    assert summary["wall_seconds"] > 0
    table = read_labels(run / "labels.parquet")
    assert len(table) == 300
    assert {"additive_posterior", "bayes_posterior", "quality_mean"} <= table.extras.keys()
    assert table.chosen == summary["cleaned_with"]
    name = table.chosen if table.chosen == "classifier" else f"{table.chosen}_posterior"
    np.testing.assert_array_equal(table.posterior, table.extras[name])
    assert table.guard == summary["guard"]
    assert table.guard["line"] in err
    assert set(table.guard["merit"]) == {"additive", "bayes", "classifier"}
    assert sum(table.guard["classes"]["given"]) == len(table)
    assert table.guard["line"] in html.unescape((run / "report.html").read_text())
    right = [np.mean(table.cleaned_label[table.true_label == c] == c) for c in range(3)]
    np.testing.assert_allclose(summary["class_recall"]["cleaned"], right, atol=1e-4)
    assert rows[-1]["test_balanced_accuracy"] > 0
    assert np.mean(table.cleaned_label == table.true_label) == pytest.approx(summary["last"]["recovery"], abs=1e-6)
    for picture in ("curves.png", "quality.png", "transitions.png"):
        assert (run / picture).read_bytes().startswith(b"\x89PNG")
    assert "bee" in (run / "report.html").read_text()
    assert any((run / "checkpoints").iterdir())
    config = json.loads((run / "config.json").read_text())
    assert config["options"]["learning_rate"] == 0.05

    code, _, err = as_a_user("can", *options, f"--run_dir={run}")
    assert code == 1
    assert err == f"error: {run} exists: go on with it by --resume, or choose another --run_dir\n"


@pytest.mark.slow
def test_several_seeds_are_summed_up(arrays, tmp_path):
    run = tmp_path / "run"
    options = (f"--dataset=npz:{arrays}", "--epochs=2", "--seeds=2", f"--run_dir={run}", "--validation_fraction=0.1")
    code, _, err = call("baseline", *options, "--labels=web", *SMALL)
    assert code == 0, err
    summary = json.loads((run / "summary.json").read_text())
    singles = [json.loads((run / f"seed-{s}" / "summary.json").read_text())["last"] for s in (0, 1)]
    values = [single["test_accuracy"] for single in singles]
    assert summary["last"]["test_accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert summary["last"]["test_accuracy"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert "validation_score" in summary["last"]
    assert summary["seeds"] == [0, 1]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stopped_run_resumes_to_the_same_numbers(whole, tmp_path, number):
    options, undisturbed, _ = whole
    process = start("can", *options, f"--run_dir={tmp_path / 'cut'}")
    metrics = tmp_path / "cut" / "metrics.jsonl"
    until = time.monotonic() + 120
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 5:
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "the state is saved: go on with --resume" in err
    assert "Traceback" not in err
    done = len(metrics.read_text().splitlines())
    assert 5 <= done < EPOCHS

    code, _, err = call("can", *options, f"--run_dir={tmp_path / 'cut'}", "--resume")
    assert code == 0, err
    assert "going on after step" in err

    def rows(folder):
        drop = ("seconds", "examples_per_second")
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k not in drop} for line in lines]

    assert rows(tmp_path / "cut") == rows(undisturbed)
    cut, other = (read_labels(folder / "labels.parquet") for folder in (tmp_path / "cut", undisturbed))
    np.testing.assert_array_equal(cut.posterior, other.posterior)
    np.testing.assert_array_equal(cut.extras["quality_mean"], other.extras["quality_mean"])


@pytest.mark.slow
def test_a_folder_of_images_and_a_csv(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    rows = ["path,noisy,label,split"]
    for i in range(24):
        pixels = np.full((20, 24, 3), 40 + 150 * (i % 2), np.uint8) + rng.integers(0, 20, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{'dark;x' if i % 2 == 0 else 'light'},{'dark' if i % 2 == 0 else 'light'},train")
    rows[-1] = rows[-1].replace("train", "test")
    rows[-2] = rows[-2].replace("train", "test")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    for memory in ("2", "0"):  # decoded up front, and streamed from the files
        run = tmp_path / f"run-{memory}"
        options = (f"--dataset=folder:{tmp_path}", "--model=convnet", "--image_size=16", "--epochs=2", "--batch_size=8")
        code, _, err = call("can", *options, f"--run_dir={run}", f"--in_memory_gib={memory}")
        assert code == 0, err
        assert "test mAP" in err
        assert "data:image/png;base64" in (run / "report.html").read_text()


def test_a_mistake_is_told_in_one_sentence_and_exit_code_1(tmp_path):
    code, out, err = call("can", "--dataset=digit", f"--run_dir={tmp_path / 'run'}")
    assert (code, out) == (1, "")
    assert err.startswith("error: unknown dataset 'digit'")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("self_learning", {"verified": True}),
        ("self_learning", {"clean_epochs": 2}),
        ("noise_layer", {"layer": "given", "transition": "trusted"}),
        ("baseline", {"loss": "forward", "transition": "trusted"}),
        ("noise_types", {"clean_fraction": 0.0}),
        ("crf", {"transition": "trusted"}),
    ],
)
def test_what_the_data_trust_is_enough(recipe, options, tmp_path, monkeypatch):
    """Labels that somebody has checked, in the user's own file, are learnt from without a share of random ones."""

    class Reached(Exception):
        pass

    def fit(trainer, split, *args, **kwargs):
        np.testing.assert_array_equal(split.trusted, np.arange(60) % 3 == 1)
        raise Reached

    rng = np.random.default_rng(0)
    true, noisy = rng.integers(0, 3, (2, 60))
    label = np.where(np.arange(60) % 3 == 1, true, -1)
    np.savez(tmp_path / "mine.npz", features=rng.normal(size=(60, 4)), noisy_label=noisy, label=label)
    module = importlib.import_module(f"recipes.{recipe}")
    monkeypatch.setattr(module.Trainer, "fit", fit)
    given = {"dataset": f"npz:{tmp_path}/mine.npz", "run_dir": tmp_path / "run", "batch_size": 8, **options}
    with pytest.raises(Reached):
        run_recipe(options_type(module)(**given), module.train)


def test_unknown_options_and_help(as_a_user, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        as_a_user("can", "--lamda=0.3")
    assert "--lamda" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"^0$"):
        as_a_user("can", "--help")
    out = capsys.readouterr().out
    for option in ("--regularizer", "--rho_floor", "--tau_rate", "--samples", "--learning_rate", "--seeds", "--resume"):
        assert option in out
    assert "paper 0.3" in out
