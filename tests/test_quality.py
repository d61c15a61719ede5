"""Lint, format, types and the direction of imports."""

import ast
import graphlib
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

PRIMITIVES = (
    *("arguments", "corruption", "crf", "crowd", "losses", "metrics", "posteriors"),
    *("prototypes", "samplers", "target", "transitions", "variational"),
)
BELOW_TRAINING = {"methods", "models", "data", "files", *PRIMITIVES}
MAY_IMPORT = {
    **{name: set(PRIMITIVES) for name in PRIMITIVES},
    "files": set(),
    "models": {"models", "arguments"},
    "data": {"data", "files", *PRIMITIVES},
    "methods": {"methods", *PRIMITIVES},
    "training": {"training", *BELOW_TRAINING},
    "cleaning": {"cleaning", "training", *BELOW_TRAINING},
    "report": {"report", "cleaning", "data", "files", *PRIMITIVES},
    "experiment": {"experiment", "report", "cleaning", "training", *BELOW_TRAINING},
    "commands": {"commands", "experiment", "report", "cleaning", "training", *BELOW_TRAINING},
    "cli": {"cli", "commands", "experiment", "report", "cleaning", "training", *BELOW_TRAINING},
    "start": {"cli"},
}


@pytest.mark.parametrize("command", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join)
def test_tool(command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            if node.module == "nlx":
                yield from (f"nlx.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sorted((ROOT / "nlx").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way_and_files_stay_short(path):
    parts = path.relative_to(ROOT / "nlx").with_suffix("").parts
    assert len(path.read_text().splitlines()) <= 300
    if parts == ("__init__",):
        return
    for name in imported(path):
        if name.startswith("nlx."):
            assert name.split(".")[1] in MAY_IMPORT[parts[0]], f"{path} imports {name}"
        if parts[0] in PRIMITIVES:
            assert name.split(".")[0] not in {"flax", "optax", "orbax"}, f"{path} imports {name}"


def test_no_module_imports_itself_by_way_of_others():
    names = {p: ".".join(p.relative_to(ROOT).with_suffix("").parts) for p in (ROOT / "nlx").rglob("*.py")}
    modules = {name.removesuffix(".__init__"): set(imported(path)) for path, name in names.items()}
    needs = {name: {m for m in targets if m in modules and m not in ("nlx", name)} for name, targets in modules.items()}
    list(graphlib.TopologicalSorter(needs).static_order())  # raises CycleError


def test_the_primitives_need_no_flax():
    code = (
        "import sys, nlx; [getattr(nlx, name) for name in nlx.__all__ if name not in nlx._DOORS]; "
        "assert 'nlx.crowd' in sys.modules; "
        "sys.exit(any(m.split('.')[0] in ('flax', 'optax', 'orbax') for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_needs_flax_loads_when_it_is_asked_for():
    code = (
        "import sys, nlx; assert 'flax' not in sys.modules; nlx.models.build; nlx.methods; nlx.training; nlx.data; "
        "nlx.cleaning; assert 'flax' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("folder", ["benchmarks", "recipes"])
def test_no_script_hides_an_installed_package(folder):
    """The folder of a script that is run comes first on the path, before what is installed."""
    hidden = {path.stem for path in (ROOT / folder).iterdir()} & (
        packages_distributions().keys() | sys.stdlib_module_names
    )
    assert not hidden
