"""Every command and every example of the README runs; training is cut short."""

import doctest
import os
import re
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


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != TEST])
def test_command(command, tmp_path, of_one_device):
    words = shlex.split(python_part(command))
    assert words[0] == "python"
    if "npz:my_arrays.npz" in command or "folder:" in command:
        pytest.skip("names the reader's own files; tests/test_recipes.py runs the same on files of its own")
    epochs = 3 if "self_learning" in words[1] else 1  # the first correction comes after three
    short = [f"--epochs={epochs}", f"--run_dir={tmp_path / 'run'}", "--no_second_opinion"]
    short = ["--help"] if words[1].startswith("benchmarks") else short
    subprocess.run([sys.executable, *words[1:], *short], cwd=ROOT, env=of_one_device, check=True, timeout=300)
    if words[1].startswith("recipes"):
        assert (tmp_path / "run" / "summary.json").exists()


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
