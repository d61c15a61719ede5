"""Every command and every example of the README runs; training is cut short."""

import doctest
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```console\n(.*?)```", README, re.S) for line in block.splitlines()]
MAIN, TEST = COMMANDS[:2]


def python_part(command):
    return command.split("&&")[-1].strip().removeprefix(".venv/bin/")


def short(command, folder):
    """The recipe and options of a command, for a training of few epochs."""
    epochs = 3 if "self_learning" in command else 1  # the first correction comes after three
    _, recipe, *options = shlex.split(python_part(command))
    cut = [f"--epochs={epochs}", "--evaluate_every=100", "--no_second_opinion"]
    return recipe, [*options, *cut, f"--run_dir={folder}"]


def test_the_main_command(tmp_path, of_one_device):
    recipe, options = short(MAIN, tmp_path / "run")
    subprocess.run([sys.executable, recipe, *options], cwd=ROOT, env=of_one_device, check=True, timeout=300)
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(c, marks=pytest.mark.slow) if "baseline.py --loss=cross_entropy --dataset=web" in c else c
        for c in COMMANDS
        if "recipes/" in c and c != MAIN
    ],
)
def test_recipes(command, tmp_path, as_a_user):
    assert shlex.split(python_part(command))[0] == "python"
    if "npz:my_arrays.npz" in command or "folder:" in command:
        pytest.skip("names the reader's own files; tests/recipes runs the same on files of its own")
    recipe, options = short(command, tmp_path / "run")
    code, _, err = as_a_user(Path(recipe).stem, *options)
    assert code == 0, err
    assert (tmp_path / "run" / "summary.json").exists()


def test_all_other_commands_are_scripts_that_explain_themselves(monkeypatch, capsys):
    others = [shlex.split(python_part(c)) for c in COMMANDS if c != TEST and "recipes/" not in c]
    assert {words[0] for words in others} == {"python"}
    monkeypatch.setattr(sys, "path", list(sys.path))  # scripts put the repository there
    for script in sorted({words[1] for words in others}):
        monkeypatch.setattr(sys, "argv", [script, "--help"])
        with pytest.raises(SystemExit, match=r"^0$"):
            runpy.run_path(str(ROOT / script), run_name="__main__")
        assert re.match(rf"usage: \S*{script} ", capsys.readouterr().out)


def test_the_first_two_commands_make_their_own_environment():
    assert MAIN.startswith("python3 -m venv .venv && .venv/bin/pip install")
    assert MAIN.endswith(".venv/bin/python recipes/can.py --dataset=web")
    assert TEST.startswith("python3 -m venv .venv && .venv/bin/pip install")
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_examples():
    results = doctest.testfile(str(ROOT / "README.md"), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted > 0
    assert results.failed == 0


def test_links_to_files_are_whole():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert os.path.exists(ROOT / target), target


def test_tables_are_what_the_results_say():
    subprocess.run([sys.executable, "benchmarks/readme.py", "--check"], cwd=ROOT, check=True, timeout=120)
