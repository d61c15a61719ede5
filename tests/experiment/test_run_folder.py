"""A run folder belongs to one run, and says which."""

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import jax
import numpy as np
import pytest

from nlx.arguments import ArgumentError
from nlx.data import Dataset, Split
from nlx.data.dataset import ImageFiles
from nlx.experiment import run_folder
from nlx.experiment.options import RecipeOptions
from nlx.experiment.run_folder import versions, write_json

FACTS = {"method": "can", "data": "web/sample", "classes": ["cat", "dog"], "training_examples": 90}


@dataclass(frozen=True)
class CANOptions(RecipeOptions):
    regularizer: float = 0.3


OPTIONS = CANOptions(model="mlp", widths=(32, 16), epochs=3, batch_size=8, learning_rate=0.05, data_dir=Path("there"))


def open_folder(folder, options, facts):
    with ExitStack() as held:
        return run_folder.open_folder(folder, asdict(options), facts, held)


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
            **{name: getattr(OPTIONS, name) for name in (f.name for f in fields(OPTIONS))},
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


def test_an_option_that_there_was_not_yet_may_have_any_value(folder):
    config = told(folder)
    del config["options"]["evaluate_every"]
    (folder / "config.json").write_text(json.dumps(config))
    open_folder(folder, replace(OPTIONS, resume=True, evaluate_every=3), FACTS)
    assert told(folder)["options"]["evaluate_every"] == 3


@pytest.mark.parametrize(
    ("facts", "differs", "cure"),
    [
        ({"training_examples": 91}, "on other data (training_examples was 90, is 91)", "bring that data back"),
        ({"inputs_digest": "ab"}, "on other data (inputs_digest was None, is ab)", "bring that data back"),
        ({"method": "elr"}, "with another method (can, not elr)", "resume with the same recipe"),
    ],
)
def test_another_run_is_told_by_what_differs_and_nobody_is_sent_to_resume_it(folder, facts, differs, cure):
    for resume in (True, False):
        with pytest.raises(ArgumentError) as error:
            open_folder(folder, replace(OPTIONS, resume=resume), FACTS | facts)
        started = f"was started {differs}: {cure}, or" if resume else f"exists, started {differs}:"
        assert str(error.value) == f"{folder} {started} choose another `run_dir`"
    with pytest.raises(ArgumentError, match="exists, started with `seed`=0, not 1: choose another"):
        open_folder(folder, replace(OPTIONS, seed=1), FACTS)


@pytest.mark.parametrize("content", ["{}", "[1]", '{"options": 3}', "not json", '{"options": {'])
@pytest.mark.parametrize("resume", [True, False])
def test_a_config_of_something_else_is_never_overwritten(tmp_path, content, resume):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ArgumentError, match=r"config.json is not what a run has written: choose another `run_dir`"):
        open_folder(tmp_path, replace(OPTIONS, resume=resume), FACTS)
    assert (tmp_path / "config.json").read_text() == content


@pytest.mark.parametrize("name", ["report.html", "metrics.jsonl", "checkpoints/6", "thesis.tex"])
def test_resuming_in_a_folder_without_a_config_touches_nothing(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("dear")
    with pytest.raises(ArgumentError, match=r"holds no config\.json, which says what was started there"):
        open_folder(tmp_path, replace(OPTIONS, resume=True), FACTS)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / name]


def test_a_folder_belongs_to_one_process_at_a_time(folder):
    resumed = asdict(replace(OPTIONS, resume=True))
    with ExitStack() as held:
        run_folder.open_folder(folder, resumed, FACTS, held)
        with pytest.raises(ArgumentError, match=f"another process is writing to {folder}: wait for its end"):
            open_folder(folder, replace(OPTIONS, resume=True), FACTS)
    open_folder(folder, replace(OPTIONS, resume=True), FACTS)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "metrics.jsonl"]  # the lock is no file


def test_what_a_kill_has_left_is_cleared_away_and_nothing_else(folder):
    for name in (".config.json.0123abcd.tmp", ".labels.parquet.ffffffff.tmp", ".mine.tmp", "notes.0123abcd.tmp"):
        (folder / name).write_text("half")
    open_folder(folder, replace(OPTIONS, resume=True), FACTS)
    assert {p.name for p in folder.iterdir()} == {"config.json", "metrics.jsonl", ".mine.tmp", "notes.0123abcd.tmp"}


def test_other_versions_are_told_in_one_line(folder):
    assert open_folder(folder, replace(OPTIONS, resume=True), FACTS) == ""
    config = told(folder)
    config["versions"]["jax"] = "0.0.1"
    write_json(folder / "config.json", config)
    line = open_folder(folder, replace(OPTIONS, resume=True), FACTS)
    assert line.endswith(f"may differ: jax 0.0.1 there, {jax.__version__} here")


def test_a_fingerprint_tells_apart_whatever_differs(tmp_path):
    x, y = np.arange(12, dtype=np.float32).reshape(6, 2), np.arange(6) % 2
    matrix = tmp_path / "t.npy"
    matrix.write_bytes(b"one")

    def of(inputs=x, noisy=y, label=None, trusted=None, given=None, wrong=None):
        split = Split(inputs, noisy, label, trusted, wrong=wrong)
        return tuple(run_folder.fingerprint(Dataset("mine", ("a", "b"), split, None), given).items())

    others = [of(), of(x + 1), of(x[:, ::-1]), of(x.reshape(6, 1, 2)), of(noisy=1 - y), of(label=y), of(given=matrix)]
    others.append(of(label=y, trusted=np.ones(6, bool)))
    others.append(of(label=y, trusted=np.ones(6, bool), wrong=np.zeros(6, bool)))
    matrix.write_bytes(b"two")
    others.append(of(given=matrix))
    paths = tuple(str(tmp_path / f"{i}.png") for i in range(6))
    for i, path in enumerate(paths):
        Path(path).write_bytes(bytes([i]))
    others.append(of(ImageFiles(paths, 8)))
    Path(paths[3]).write_bytes(b"!")
    others.append(of(ImageFiles(paths, 8)))
    assert len(set(others)) == len(others)
    assert of(np.array(x)) == of()


def test_links_are_replaced_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("dear")
    (tmp_path / "summary.json").symlink_to(precious)
    write_json(tmp_path / "summary.json", {"score": float("nan"), "all": [1.5, float("inf")]})
    assert precious.read_text() == "dear"
    assert json.loads((tmp_path / "summary.json").read_text()) == {"score": None, "all": [1.5, None]}


def test_json_files_are_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "sub" / "summary.json"
    write_json(path, {"a": 1})
    assert path.read_text() == '{\n  "a": 1\n}\n'

    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("nlx.files.os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"a": 2})
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [p.name for p in path.parent.iterdir()] == ["summary.json"]
