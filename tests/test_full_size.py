"""Tables at full size, on miniatures of the papers' data: what they lack is named, what is there runs to its table."""

import json
import re
import shutil
import signal
import sys
from dataclasses import fields
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import tables
from benchmarks.miniatures import Maker, write_weights
from benchmarks.protocols import full_run, plan, planner
from benchmarks.protocols.changes import read_changes
from benchmarks.protocols.full import FULL
from nlx.cleaning.label_files import write_labels
from nlx.cleaning.table import label_table
from nlx.experiment import plan as planned
from nlx.experiment.console import Console
from nlx.experiment.signals import Stopped
from nlx.training import trainer
from nlx.training.mesh import make_mesh
from nlx.training.observers import Interrupted

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("model=mlp", "image_size=8", "batch_size=4", "six_crops=false", "init=none", "clean_fraction=0.1")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    maker = Maker(tmp_path_factory.mktemp("full"), side=8, each=4, classes=3)
    for make in maker.makers().values():
        make()
    return maker.root


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setattr(trainer, "make_mesh", lambda: make_mesh(jax.devices()[:1]))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def number(cell):
    return float(cell.replace(",", ""))


def called(names, data_dir, *options, **more):
    """The exit code of the command."""
    wanted = tables.Options(names, full=True, data_dir=data_dir, options=options, **more)
    return tables.full_size(list(names), wanted, Console(", ".join(names)))


OF_ONE_SIZE = ("can-4", "crf-2", "layer-fig3", "layer-fig5")
SOONER = ("can-2", "crf-2", "self-2", "imagenet-noise")  # the others by -m slow


@pytest.mark.parametrize("name", [n if n in SOONER else pytest.param(n, marks=pytest.mark.slow) for n in FULL])
def test_every_table_is_planned_on_its_miniature(name, data_dir, tmp_path, capsys, monkeypatch):
    for entry in FULL[name].rows.values():
        entry.options.check()
    last = dict(list(FULL[name].rows.items())[-1:])  # the paper's own, mostly
    monkeypatch.setitem(FULL, name, FULL[name]._replace(rows=last))
    options = [o for o in SMALL if not (name in OF_ONE_SIZE and o.startswith("image"))]
    options = [o for o in options if not (name == "can-4" and o.startswith("model"))]
    options = [o for o in options if not o.startswith("clean") or name in ("types-2", "types-fig8")]
    assert called([name], data_dir, *options, dry_run=True, plan="cpu:1", runs=tmp_path / "runs") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(" | ") for line in lines if " | `python recipes/" in line]
    assert [row[0].removeprefix("| ") for row in rows] == list(FULL[name].rows)
    for row in rows:
        assert int(row[1]) <= 320  # of the miniature, not of the paper
        assert number(row[3]) > number(row[4]) > 0
        assert row[5] == "yes"
        assert f"--data_dir={data_dir}" in row[-1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("name", "label"), [("self-1", "SMP"), ("crf-1", "noisy"), ("can-6", "CAN, 0.4")])
def test_memory_is_what_the_recipe_says_of_the_same_options(
    name, label, data_dir, tmp_path, capsys, monkeypatch, as_a_user
):
    monkeypatch.setitem(FULL, name, FULL[name]._replace(rows={label: FULL[name].rows[label]}))
    options = [o for o in SMALL if not o.startswith("clean")]
    assert called([name], data_dir, *options, dry_run=True, plan="cpu:1", runs=tmp_path / "runs") == 0
    (row,) = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith(f"| {label} | ")]
    recipe, *given = row[-1].removesuffix("` |").partition("recipes/")[2].split(" --")
    code, _, err = as_a_user(recipe.removesuffix(".py"), *(f"--{option}" for option in given), "--plan=cpu:1")
    assert code == 0, err
    assert f"memory of each device, MiB: {row[3]} (" in err
    assert re.search(rf", a step {re.escape(row[4])}(\)| or between epochs )", err)
    assert f" {row[1]} examples, " in err
    assert f" {row[2]} steps of 4 examples on 1 x cpu" in err


@pytest.mark.slow
def test_rows_of_one_program_compile_it_once(data_dir, tmp_path, capsys):
    options = [*(o for o in SMALL if not o.startswith("clean")), "in_memory_gib=0"]  # fractions differ in their mean
    about = {"dry_run": True, "plan": "cpu:1", "runs": tmp_path / "runs"}
    assert called(["can-fig6", "self-4", "self-3"], data_dir, *options, **about) == 0
    told = capsys.readouterr()
    assert [line for line in told.err.splitlines() if line.startswith("compiling")] == [
        "compiling a step of can, mlp, 4 examples",
        "compiling a step of self_learning, mlp, 4 examples",
    ]
    assert told.out.count("| yes |") == sum(len(FULL[name].rows) for name in ("can-fig6", "self-4", "self-3"))


def test_what_is_missing_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(planned, "memory", lambda: 700 * 2**20)
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1_000}))
    options = (*SMALL[:4], "init=resnet8.safetensors")
    assert called(["self-5"], tmp_path, *options, dry_run=True, plan="cpu:1", weights=tmp_path) == 1
    told = capsys.readouterr()
    assert "310,009" in told.out  # the paper's size where there is none
    assert [told.out.count(f"| {fits} |") for fits in ("yes", "no")] == [2, 1]
    for sentence in (
        f"{tmp_path}/food101n: no such folder: get food101n as its page has it",
        f"{tmp_path}/resnet8.safetensors: no such file",
        "runs need 0.6 GiB on disk, and runs/full has 0.0",
    ):
        assert f"error: self-5 lacks: {sentence}" in told.err
    assert re.search(
        r"lacks: SMP needs \d+\.\d MiB on each device, there are 700\.0: take more devices, --remat", told.err
    )


@pytest.fixture
def nothing_fits(monkeypatch):
    """A compiler that refuses all programs at once."""

    def full(lowered):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory on HBM, 23.01G exceeds 15.75G.\nmore")

    monkeypatch.setattr(planner.Lowered, "compile", full)


@pytest.mark.usefixtures("nothing_fits")
def test_foreign_pictures_have_to_be_there(data_dir, tmp_path, capsys):
    shutil.copytree(data_dir / "cifar-10-batches-py", tmp_path / "cifar-10-batches-py")
    about = {"dry_run": True, "plan": "cpu:1", "runs": tmp_path / "runs"}
    assert called(["layer-fig5"], tmp_path, *(o for o in SMALL if not o.startswith(("image", "clean"))), **about) == 1
    assert f"error: layer-fig5 lacks: {tmp_path}/cifar-100-python/train: no such file" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_fits")
def test_what_the_arrays_must_hold_is_told(tmp_path, capsys):
    assert called(["can-4"], tmp_path, *SMALL[2:4], dry_run=True, plan="cpu:1", runs=tmp_path / "runs") == 1
    told = capsys.readouterr().err
    assert f"error: can-4 lacks: {tmp_path}/amt.npz: no such file: save the features of AMT and SD4 there" in told
    assert "features [n, 5376], noisy_label, test_features and test_label." in told


def test_rows_that_cannot_be_compiled_are_named_and_the_others_planned(data_dir, tmp_path, capsys, nothing_fits):
    options = [o for o in SMALL if not o.startswith("clean")]
    about = {"dry_run": True, "plan": "cpu:1", "runs": tmp_path / "runs"}
    assert called(["self-3"], data_dir, *options, **about) == 1
    told = capsys.readouterr()
    assert told.err.count("compiling") == 1
    for label in FULL["self-3"].rows:
        assert f"| {label} | – | – | – | – | – | – | {FULL['self-3'].paper[label]} | `python recipes/" in told.out
        wrong = "a step does not fit into a cpu: Ran out of memory on HBM, 23.01G exceeds 15.75G. take more devices"
        assert f"error: self-3 lacks: {label}: {wrong}" in told.err


def test_devices_that_are_not_known_are_told(data_dir, capsys):
    assert called(["self-3"], data_dir, dry_run=True, plan="mars") == 1
    assert (
        "error: --plan=mars is neither here, nor cpu:N or h100:N, nor a TPU slice such as v5e:2x4"
        in capsys.readouterr().err
    )


RUN = (*SMALL[:5], "epochs=2", "start_epoch=1", "members=4", "prototypes=2", "second_opinion=false")


@pytest.mark.slow
def test_a_table_runs_to_its_end_and_is_not_run_again(data_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    assert called(["self-2"], data_dir, *RUN, runs=tmp_path / "runs") == 0
    score = json.loads((tmp_path / "self-2-full.json").read_text())["SMP"]["recovery"]
    assert 0 <= score <= 1
    assert f"| SMP | 77.36 | {100 * score:.2f} |" in (tmp_path / "self-2-full.md").read_text()
    monkeypatch.setattr(full_run, "run_recipe", lambda *_, **__: pytest.fail("it has been run"))
    assert called(["self-2"], data_dir, *RUN, runs=tmp_path / "runs") == 0


BRIEF = ("epochs=2", "batch_size=4", "second_opinion=false", "start_epoch=1", "members=4", "prototypes=2")
BRIEF += ("pretrain_epochs=1", "types_epochs=1")
OF_FIELDS = ("chains=2", "sweeps=2", "hidden=4", "auxiliary_steps=20")


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """Folder of data with pictures large enough for crops, and of weights for small stand-ins of the networks."""
    maker = Maker(tmp_path_factory.mktemp("larger"), side=72, each=4, classes=3)
    for make in maker.makers().values():
        make()
    for name in ("resnet50", "alexnet"):
        write_weights(maker.root / f"{name}.safetensors", "resnet8")
    return maker.root


CASES = {name: (list(full.rows)[-1],) for name, full in FULL.items()}
CASES["can-5"] = ("0.5",)  # the last one, 10, has no lower bound: from random weights it may diverge
CASES |= {"self-5 CleanNet": ("CleanNet",), "self-1 forward": ("CE", "forward", "Joint")}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_row_of_every_table_runs_to_its_end(case, larger, tmp_path, capsys, monkeypatch):
    name, labels = case.split()[0], CASES[case]
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    rows = {label: FULL[name].rows[label] for label in labels}
    monkeypatch.setitem(FULL, name, FULL[name]._replace(rows=rows))
    options = [*BRIEF, *(OF_FIELDS if name in ("crf-1", "crf-q") else [])]
    options += [] if name == "can-4" else ["model=resnet8"]
    options += [] if name in OF_ONE_SIZE else ["image_size=72"]
    known = {field.name for entry in rows.values() for field in fields(entry.options)}
    options = [option for option in options if option.partition("=")[0] in known]
    where = {"weights": larger, "runs": tmp_path / "runs"}
    assert called([name], larger, *options, **where) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / f"{name}-full.json").read_text())
    page = (tmp_path / f"{name}-full.md").read_text()
    for label, entry in rows.items():
        folder = full_run.folder_of(tmp_path / "runs", name, label)
        config = json.loads((folder / "config.json").read_text())["options"]
        assert config["six_crops"] == entry.options.six_crops
        assert (config["init"] is None) == (entry.options.init is None)
        if name != "types-fig8":  # of whose pictures no truth is known that was not learnt
            assert 0 <= found[label][FULL[name].measure] <= 1
        assert f"| {label} | " in page


@pytest.fixture
def at_once(monkeypatch, tmp_path):
    """Tables whose recipes only leave what says that they have run."""
    ran = []

    def run_recipe(options, train):
        ran.append(options)
        options.run_dir.mkdir(parents=True, exist_ok=True)
        (options.run_dir / "config.json").write_text("{}")
        score = 0.5 if options.seeds == 1 else {"mean": 0.5, "std": 0.01}
        last = {"recovery": score, "recovery_first_label": 0.45}
        (options.run_dir / "summary.json").write_text(json.dumps({"last": last, "given_label_recovery": 0.4}))

    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(full_run, "run_recipe", run_recipe)
    monkeypatch.setattr(tables, "dry_run", lambda *_: ([], []))
    return ran


def test_a_row_that_was_run_with_other_options_is_refused(data_dir, tmp_path, capsys, at_once):
    runs = tmp_path / "runs"
    assert called(["self-2"], data_dir, *RUN, runs=runs) == 0
    assert called(["self-2"], data_dir, *RUN, runs=runs) == 0
    assert len(at_once) == 1
    for dry_run in (False, True):
        assert called(["self-2"], data_dir, *RUN, "epochs=4", runs=runs, dry_run=dry_run) == 1
        told = capsys.readouterr()
        assert f"{runs}/self-2/SMP holds a run with epochs=2, not 4: choose another --runs, or delete" in told.err
    assert "77.36" not in told.out
    next(runs.glob("*/*.options.json")).unlink()
    assert called(["self-2"], data_dir, *RUN, runs=runs) == 1
    assert (
        "SMP.options.json beside it, which says of what, is missing: choose another --runs" in capsys.readouterr().err
    )
    assert len(at_once) == 1


def test_several_seeds(data_dir, tmp_path, capsys, at_once):
    assert called(["self-2"], data_dir, seeds=3, runs=tmp_path / "runs") == 0
    assert at_once[0].seeds == 3
    assert "| 50.00 ± 1.00 |" in capsys.readouterr().out


def test_figures_by_other_scores_stand_beside(data_dir, tmp_path, capsys, at_once):
    assert called(["self-2", "crf-2"], data_dir, runs=tmp_path / "runs") == 0
    pages = capsys.readouterr().out
    heads = ("recovery", "given_label_recovery", "recovery_first_label")
    assert " | ".join(["| row", *(f"paper, {head} | here, {head}" for head in heads)]) in pages
    assert "| SMP | 77.36 | 50.00 | 61.74 | 40.00 | 74.38 | 45.00 |" in pages
    assert "| plain, 0.1 | 91.2 | – | 94.1 | 50.00 |" in pages
    assert "| backward, 0.5 | 45.6 | – | – | 50.00 |" in pages
    assert "| CRF, 0.5 | 84.3 | – | 88.1 | 50.00 |" in pages


def test_the_forward_correction_takes_its_matrix_from_plain_training_in_the_same_table(tmp_path):
    folders = {"data_dir": tmp_path, "weights": tmp_path, "run_dir": tmp_path / "runs"}
    for changes, part in (({}, ""), ({"seeds": "3", "seed": "5"}, "seed-5/")):
        rows = plan.prepared_rows("self-1", FULL["self-1"], changes, **folders)
        options = rows["forward"].options
        assert options.transition == f"anchors:{tmp_path}/runs/self-1/CE/{part}labels.parquet"
        assert options.labels is None
        assert plan.as_planned(rows["forward"], tmp_path / "runs").options.transition is None
        assert plan.as_planned(rows["forward, verified"], tmp_path / "runs") == rows["forward, verified"]
    labels = Path(options.transition.removeprefix("anchors:"))
    labels.parent.mkdir(parents=True)
    labels.touch()
    assert plan.as_planned(rows["forward"], tmp_path / "runs") == rows["forward"]


def test_rows_that_the_papers_have_are_there():
    assert FULL["self-1"].paper == {
        "CE": 69.54,
        "forward": 69.84,
        "Joint": 72.23,
        "SMP": 74.45,
        "forward, verified": 73.11,
        "SMP, verified": 76.44,
        "CE, clean": 80.27,
        "SMP, clean": 81.16,
    }
    assert [entry.options.alpha for name, entry in FULL["self-fig4"].rows.items() if "alpha" in name][::4] == [0, 1]
    shares = {entry.options.training_fraction for entry in FULL["layer-fig3"].rows.values()}
    assert shares == {0.1, 0.2, 0.5, 1.0}
    assert FULL["self-5"].paper["CleanNet"] == 83.95


def test_precision_among_the_most_confusing_counts_labels_whose_truth_is_known_and_was_not_learnt(tmp_path):
    assert full_run.precision_500(tmp_path) is None
    n = 900
    true, wrong = np.arange(n) % 3, np.arange(n) < 450
    noisy = ((true + wrong) % 3).astype(np.int32)
    posterior = np.full((n, 3), 1 / 3, np.float32)
    types = np.stack([~wrong, 0 * wrong, wrong], 1).astype(np.float32)

    def written(folder, known, trusted):
        extras = {"noise_type": types, "trusted": trusted}
        labels = np.where(known, true, -1).astype(np.int32)
        table = label_table(posterior, noisy, true_label=labels, extras=extras)
        folder.mkdir(exist_ok=True)
        write_labels(folder / "labels.parquet", table)

    everything, none = np.ones(n, bool), np.zeros(n, bool)
    written(tmp_path, everything, none)
    assert full_run.precision_500(tmp_path) == 450 / 500
    written(tmp_path, np.arange(n) >= 400, np.arange(n) >= 600)  # 50 wrong ones are left of 200
    assert full_run.precision_500(tmp_path) == 50 / 200
    written(tmp_path, everything, everything)
    assert full_run.precision_500(tmp_path) is None


def test_a_figure_that_another_one_makes_is_found_by_its_name(monkeypatch):
    found = []
    monkeypatch.setattr(tables, "full_size", lambda names, *_: found.append(names) or 0)
    for names in (["can-fig9"], ["can-fig7", "can-fig9"]):
        monkeypatch.setattr(sys, "argv", ["tables.py", *names, "--full"])
        before = signal.getsignal(signal.SIGTERM)
        try:
            assert tables.main() == 0
        finally:
            signal.signal(signal.SIGTERM, before)
    assert found == [["can-fig7"], ["can-fig7"]]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("epochs", "--options epochs has no value: write epochs=VALUE"),
        ("epochs=abc", "--options epochs=abc: epochs must be a whole number"),
        ("epochs=1.5", "--options epochs=1.5: epochs must be a whole number"),
        ("learning_rate=fast", "--options learning_rate=fast: learning_rate must be a number"),
        ("epcohs=3", "--options epcohs=3: no row has an option epcohs: take epochs"),
        ("optimizer=sgdd", "--options optimizer=sgdd: optimizer must be one of sgd, nesterov, adam, adamw, lars"),
        ("keep_good=maybe", "--options keep_good=maybe: keep_good must be true or false"),
        ("widths=8,x", "--options widths=8,x: widths must be whole numbers with commas between"),
        ("run_dir=here", "--options run_dir=here: the table sees to run_dir: take --runs"),
        ("dataset=cloths", "lacks: unknown dataset 'cloths'"),
    ],
)
def test_options_that_cannot_be_meant_are_told(option, sentence, data_dir, tmp_path, capsys):
    assert called(["self-2"], data_dir, option, dry_run=True, plan="cpu:1", runs=tmp_path / "runs") == 1
    assert sentence in capsys.readouterr().err


def test_options_are_read_as_their_recipe_has_them(tmp_path):
    rows = FULL["self-2"].rows
    given = ("learning_rate=1e-4", "epochs=3", "keep_good=True", "widths=8,4", "noise=None", "mix=none")
    changes = read_changes(given, rows.values())
    folders = {"data_dir": tmp_path, "weights": tmp_path / "w", "run_dir": tmp_path}
    (entry,) = plan.prepared_rows("self-2", FULL["self-2"], changes, **folders).values()
    o = entry.options
    assert (o.learning_rate, o.epochs, o.keep_good, o.widths, o.noise) == (1e-4, 3, True, (8, 4), None)
    assert o.mix == "none"
    assert o.init == tmp_path / "w" / "resnet50.safetensors"


@pytest.mark.parametrize(
    ("init", "found"),
    [
        ("timm:resnet50.a1_in1k", "timm:resnet50.a1_in1k"),
        ("runs/old", "runs/old"),
        ("/old.safetensors", "/old.safetensors"),
        ("old.safetensors", "weights/old.safetensors"),
    ],
)
def test_weights_are_named_without_their_folder_or_as_they_are(init, found, tmp_path):
    rows = {"plain": FULL["self-2"].rows["SMP"].but(init=init)}
    for full, changes in ((FULL["self-2"], {"init": init}), (FULL["self-2"]._replace(rows=rows), {})):
        folders = {"data_dir": tmp_path, "weights": Path("weights"), "run_dir": tmp_path}
        (entry,) = plan.prepared_rows("self-2", full, changes, **folders).values()
        assert str(entry.options.init) == found


def test_all_data_that_are_missing_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(planner.Planner, "__call__", lambda *_: None)
    for name, year in (("can-2", 2007), ("can-3", 2012)):
        assert called([name], tmp_path, *SMALL[:5], dry_run=True, plan="cpu:1", runs=tmp_path / "runs") == 1
        told = capsys.readouterr().err
        assert f"lacks: {tmp_path}/web/labels.csv: no such file" in told
        assert f"lacks: {tmp_path}/VOCdevkit: no such folder: get voc{year}" in told


@pytest.mark.parametrize("stop", [Stopped(3), Interrupted()])
def test_a_stop_is_one_sentence(stop, data_dir, tmp_path, capsys, monkeypatch, at_once):
    def stopped(*_, **__):
        raise stop

    monkeypatch.setattr(full_run, "run_recipe", stopped)
    monkeypatch.setattr(sys, "argv", ["tables.py", "self-2", "--full", f"--data_dir={data_dir}", f"--runs={tmp_path}"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert tables.main() == 143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "stopped; what is saved is kept, and the same command goes on from there"
    )


def test_the_page_has_every_table():
    page = (ROOT / "docs" / "full_size.md").read_text()
    for name in FULL:
        assert f"| `{name}`" in page
    assert np.all([f"{figure:g}" in page for figure in FULL["types-2"].paper.values()])


def test_the_command_wants_one_of_two_sizes(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tables.py", "self-2"])
    assert tables.main() == 1
    assert "say whether --small or --full" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["tables.py", "self-2", "--full", "--plan=cpu:1"])
    assert tables.main() == 1
    assert "--plan is of --dry_run" in capsys.readouterr().err
    for form, option, other in (
        ("--full", "--quick", "--small"),
        ("--full", "--workers=2", "--small"),
        ("--small", "--dry_run", "--full"),
        ("--small", "--runs=here", "--full"),
    ):
        monkeypatch.setattr(sys, "argv", ["tables.py", "self-2", form, option])
        assert tables.main() == 1
        assert f"error: {option.partition('=')[0]} is of {other}: leave it out" in capsys.readouterr().err
