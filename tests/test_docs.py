"""The documents' code runs: the page beside cleanlab, and the notebooks."""

import importlib.util
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from nlx.training import trainer
from nlx.training.mesh import make_mesh

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture
def as_a_reader(monkeypatch, tmp_path):
    """No strict settings, one device, and an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trainer, "make_mesh", lambda: make_mesh(jax.devices()[:1]))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def recall(flagged, wrong):
    return float(np.mean(flagged[wrong]))


def test_the_page_beside_cleanlab(as_a_reader):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "coming_from_cleanlab.md").read_text(), re.S)
    theirs = [block for block in blocks if "cleanlab" in block.replace("as_cleanlab", "") or "CleanLearning" in block]
    there = {name: importlib.util.find_spec(name) is not None for name in ("cleanlab", "pandas")}
    said: dict = {}
    for block in blocks:
        if (block in theirs and not there["cleanlab"]) or ("pandas" in block and not there["pandas"]):
            continue
        exec(compile(block, "coming_from_cleanlab.md", "exec"), said)
    truth, wrong = said["truth"], said["wrong"]
    assert len(theirs) == 5
    for found in (said["changed"], said["by_probs"].changed):
        assert recall(found, wrong) > 0.9 > 0.1 > recall(found, ~wrong)
    assert np.mean(wrong[said["listed"]]) >= 0.9
    assert said["noise"].low <= wrong.mean() <= said["noise"].high
    if not there["cleanlab"]:
        return
    for found in (said["flagged"], said["flagged_by_probs"]):
        assert np.mean(found == said["changed"]) > 0.85  # the same labels, by and large
    np.testing.assert_array_equal(said["joint"], said["own_joint"])
    assert abs(said["number"] / len(wrong) - said["noise"].value) < 0.1
    for predicted in (said["own_predicted"], said["predicted"]):
        assert np.mean(predicted == truth) > 0.9
    assert set(said["as_cleanlab_has_it"].columns) <= set(said["issues"].columns)


@pytest.mark.parametrize("path", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook(path, as_a_reader):
    cells = json.loads(path.read_text())["cells"]
    said = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), said)
    assert said["shown"]  # each ends with what it has shown
