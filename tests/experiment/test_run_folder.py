"""A run folder belongs to one run, and says which."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jax
import pytest

from nlx.arguments import ArgumentError
from nlx.experiment import run_folder
from nlx.experiment.options import RecipeOptions
from nlx.experiment.run_folder import versions, write_json

FACTS = {"method": "can", "data": "web/sample", "classes": ["cat", "dog"], "training_examples": 90}


@dataclass(frozen=True)
class CANOptions(RecipeOptions):
    regularizer: float = 0.3


OPTIONS = CANOptions(model="mlp", widths=(32, 16), epochs=3, batch_size=8, learning_rate=0.05, data_dir=Path("there"))


def open_folder(folder, options, facts):
    run_folder.open_folder(folder, asdict(options), facts)


@pytest.fixture
def folder(tmp_path):
    """The folder of a run under way."""
    path = tmp_path / "runs" / "mine"
    open_folder(path, replace(OPTIONS, run_dir=path), FACTS)
    (path / "metrics.jsonl").write_text('{"epoch": 1, "step": 6}\n')
    return path


def told(path):
    return json.loads((path / "config.json").read_text())


def test_config_json_holds_every_option_the_facts_and_the_versions(folder):
    config = told(folder)
    assert config == {
        "options": {
            **{name: getattr(OPTIONS, name) for name in OPTIONS.__dataclass_fields__},
            "widths": [32, 16],
            "data_dir": "there",
            "run_dir": str(folder),
        },
        **FACTS,
        "versions": versions(),
    }
    assert config["options"]["regularizer"] == 0.3
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "metrics.jsonl"]


def test_versions_name_the_device():
    about = versions()
    assert about["jax"] == jax.__version__
    assert about["device"] == f"8 x {jax.devices()[0].device_kind} (cpu)"
    assert {"python", "nlx", "jaxlib", "flax", "optax", "numpy", "orbax-checkpoint"} < set(about)


def test_a_folder_that_holds_a_run_is_refused(folder):
    before = (folder / "config.json").read_bytes()
    with pytest.raises(ArgumentError) as error:
        open_folder(folder, OPTIONS, FACTS)
    assert str(error.value) == f"{folder} exists: go on with it by `resume`, or choose another `run_dir`"
    assert (folder / "config.json").read_bytes() == before


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(ArgumentError, match="exists: go on with it by `resume`"):
        open_folder(tmp_path, OPTIONS, FACTS)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_is_taken(tmp_path):
    open_folder(tmp_path, OPTIONS, FACTS)
    assert told(tmp_path)["method"] == "can"


def test_a_run_that_ended_before_its_first_epoch_is_no_hindrance(tmp_path):
    open_folder(tmp_path, OPTIONS, FACTS)
    (tmp_path / "checkpoints").mkdir()
    open_folder(tmp_path, replace(OPTIONS, epochs=4), FACTS)
    assert told(tmp_path)["options"]["epochs"] == 4
    (tmp_path / "checkpoints" / "6").mkdir()
    with pytest.raises(ArgumentError, match="exists"):
        open_folder(tmp_path, OPTIONS, FACTS)


def test_resuming_with_the_same_options_is_the_same_run(folder):
    open_folder(folder, replace(OPTIONS, resume=True), FACTS)
    assert (folder / "metrics.jsonl").exists()


def test_resuming_where_there_is_nothing_yet_begins(tmp_path):
    open_folder(tmp_path / "new", replace(OPTIONS, resume=True), FACTS)
    assert told(tmp_path / "new")["method"] == "can"


@pytest.mark.parametrize(
    ("option", "value", "was", "now"),
    [
        ("learning_rate", 0.1, "0.05", "0.1"),
        ("widths", (32,), "[32, 16]", "[32]"),
        ("widths", None, "[32, 16]", "None"),
        ("regularizer", 0.5, "0.3", "0.5"),
        ("seed", 1, "0", "1"),
        ("in_memory_gib", 0.0, "2.0", "0.0"),  # batches from files and from memory go through different programs
    ],
)
def test_resuming_with_another_option_names_it(folder, option, value, was, now):
    before = (folder / "config.json").read_bytes()
    with pytest.raises(ArgumentError) as error:
        open_folder(folder, replace(OPTIONS, resume=True, **{option: value}), FACTS)
    assert str(error.value) == (
        f"{folder} was started with `{option}`={was}, not {now}: resume with the same options, or choose another "
        "`run_dir`"
    )
    assert (folder / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("option", "value"), [("run_dir", Path("elsewhere")), ("data_dir", Path("moved")), ("checkpoint_seconds", 5.0)]
)
def test_what_does_not_change_the_numbers_may_differ(folder, option, value):
    open_folder(folder, replace(OPTIONS, resume=True, **{option: value}), FACTS)
    assert told(folder)["options"]["resume"] is True


def test_resuming_on_data_that_has_changed_is_refused(folder):
    with pytest.raises(ArgumentError) as error:
        open_folder(folder, replace(OPTIONS, resume=True), FACTS | {"training_examples": 91})
    assert str(error.value) == (
        f"{folder} was started on other data (training_examples was 90, is 91): bring that data back, or choose "
        "another `run_dir`"
    )


def test_json_files_are_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "sub" / "summary.json"
    write_json(path, {"a": 1})
    assert path.read_text() == '{\n  "a": 1\n}\n'

    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(run_folder.json, "dumps", lambda *args, **options: "x" * 10)
    monkeypatch.setattr("nlx.files.os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"a": 2})
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [p.name for p in path.parent.iterdir()] == ["summary.json"]
