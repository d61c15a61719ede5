"""Weights in orbax checkpoints: whatever form they were saved in, and a sentence for what is no whole one."""

import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from orbax.checkpoint import v1

from nlx.arguments import ArgumentError
from nlx.data.prepare import IMAGENET
from nlx.models import ResNet, build, pair, vit
from nlx.models.checkpoints import checkpoint_in, read_checkpoint
from nlx.models.own import file_of, told_beside
from nlx.models.pixels import pixels_of
from nlx.models.pretrained import frozen, load_weights
from nlx.training.averaging import averaged
from nlx.training.checkpoint import Checkpoints
from nlx.training.state import TrainState, predicting_params

SHAPE = (8, 8, 3)
TOLD = {"options": {"model": "dinov2-s14"}, "pixels": [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]}


def form_of(name, num_classes, shape=SHAPE):
    return jax.eval_shape(build(name, shape, num_classes).init, jax.random.key(0))


def drawn(form, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.1, 1, x.shape), x.dtype), form)


def save_state(folder, params, stats, *, mean=None, step=7):
    """What a run writes, whose method has a weight too; with a running mean of the parameters if asked."""
    params = {"model": params, "method": {"matrix": jnp.ones((3, 3))}}
    optimizer = optax.sgd(0.1, 0.9) if mean is None else averaged(optax.sgd(0.1, 0.9), 0.9)
    opt_state = optimizer.init(params)
    if mean is not None:
        opt_state = optax.tree.set(opt_state, average=mean)
    memory = {"model": {"head": jnp.ones(4)}}
    state = TrainState(jnp.int32(step), jax.random.key(0), params, stats, opt_state, memory, {"loss": jnp.ones(())})
    kept = Checkpoints(folder)
    kept.save(state, kept=True)
    kept.close(None)
    return state


def save_plain(folder, tree, **options):
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)) as opened:
        opened.save(folder.resolve(), tree)


def save_managed(folder, tree):
    with ocp.CheckpointManager(folder) as manager:
        manager.save(2, args=ocp.args.StandardSave(jax.tree.map(jnp.zeros_like, tree)))
        manager.save(10, args=ocp.args.StandardSave(tree))


def save_standard(folder, tree):
    with ocp.StandardCheckpointer() as opened:
        opened.save(folder, tree)


FORMS = {
    "standard": save_standard,
    "v1": v1.save,
    "managed": save_managed,
    "files": lambda folder, tree: save_plain(folder, tree, use_ocdbt=False),
    "zarr3": lambda folder, tree: save_plain(folder, tree, use_ocdbt=True, use_zarr3=True),
}


def equal(loaded, wanted):
    jax.tree.map(np.testing.assert_array_equal, loaded, wanted)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An mlp's parameters as StandardCheckpointer leaves them, to be copied and broken."""
    folder = tmp_path_factory.mktemp("saved") / "mlp"
    params, _ = drawn(form_of("mlp", 3))
    save_standard(folder, params)
    return SimpleNamespace(folder=folder, params=params)


@pytest.mark.parametrize("form", FORMS)
def test_parameters_and_statistics_are_read_in_every_form(form, tmp_path):
    params, stats = drawn(form_of("resnet8", 5))
    tree = {"params": params, "batch_stats": stats, "step": 3, "opt_state": {"count": jnp.zeros(())}}
    FORMS[form](tmp_path / "c", tree)
    loaded = load_weights("resnet8", *form_of("resnet8", 5), tmp_path / "c")
    equal(loaded[:2], (params, stats))
    inner = {"v1": "c/state", "managed": "c/10/default"}.get(form)
    assert loaded.notes == (() if inner is None else (f"weights are those of {tmp_path / inner}",))


def test_a_module_s_own_state_is_read(tmp_path):
    module = ResNet(8, 3, 5, stem="32", rngs=nnx.Rngs(0))
    save_standard(tmp_path / "c", nnx.state(module))  # parameters and statistics in one tree, each with a `value`
    loaded = load_weights("resnet8", *form_of("resnet8", 5), tmp_path / "c")
    pure = nnx.to_pure_dict(nnx.state(module, nnx.Param)), nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))
    equal(loaded[:2], pure)


def test_other_classes_other_precision_and_pairs(saved, tmp_path):
    params, stats = drawn(form_of("mlp", 4), seed=1)
    new = load_weights("mlp", params, stats, saved.folder)
    assert new.notes == ("the last layer is drawn anew, for that checkpoint has none of this size",)
    equal(new.params, {**saved.params, "head": params["head"]})
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), saved.params)
    del half["head"]
    v1.save(tmp_path / "half", {"params": half})
    model = pair(build("mlp", SHAPE, 3))
    both = drawn(jax.eval_shape(model.init, jax.random.key(0)), seed=2)
    twins = load_weights("mlp", *both, tmp_path / "half").params
    for key in "ab":
        equal(twins[key]["head"], both[0][key]["head"])
        equal(twins[key]["hidden_0"], jax.tree.map(lambda x: x.astype(np.float32), half["hidden_0"]))
        assert {leaf.dtype for leaf in jax.tree.leaves(twins)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"kernel": np.full((8, 3), np.nan)},
            "head/dense/kernel holds NaN or infinity: the training that left it failed",
        ),
        ({"bias": None}, "head/dense/bias is missing"),
        ({"kernel": None}, "head/dense/kernel is missing"),
        ({"kernel": np.ones((7, 3))}, r"head/dense/kernel has the shape \[7, 3\], here \[8, 3\]"),
        ({"bias": np.ones(4)}, r"head/dense/bias has the shape \[4\], here \[3\]"),
    ],
)
def test_a_last_layer_is_drawn_anew_for_other_classes_alone(tmp_path, change, message):
    form = jax.eval_shape(build("mlp", SHAPE, 3, widths=(8,)).init, jax.random.key(0))
    params, _ = drawn(form)
    dense = {**params["head"]["dense"], **change}
    params["head"] = {"dense": {name: jnp.asarray(x, jnp.float32) for name, x in dense.items() if x is not None}}
    save_standard(tmp_path / "c", params)
    with pytest.raises(ArgumentError, match=message):
        load_weights("mlp", *form, tmp_path / "c")


@pytest.mark.parametrize("averages", [False, True])
def test_a_run_that_has_not_finished_starts_another(averages, tmp_path):
    old, new = build("resnet8", SHAPE, 3), build("resnet8", SHAPE, 6)
    params, stats = drawn(form_of("resnet8", 3))
    mean = drawn(form_of("resnet8", 3), seed=1)[0] if averages else None
    run = tmp_path / "run"
    save_state(run / "checkpoints", params, stats, step=3)
    last = save_state(run / "checkpoints", jax.tree.map(jnp.negative, params), stats, mean=mean, step=12)
    (run / "config.json").write_text(json.dumps(TOLD))
    fresh = drawn(form_of("resnet8", 6), seed=2)
    for named in (run, run / "checkpoints", run / "checkpoints" / "12", run / "checkpoints" / "12" / "state"):
        loaded = load_weights("resnet8", *fresh, named)
        equal(loaded[:2], ({**predicting_params(last)["model"], "head": fresh[0]["head"]}, stats))
        np.testing.assert_array_equal(pixels_of(named, IMAGENET), TOLD["pixels"])
    assert loaded.notes == ("the last layer is drawn anew, for that run had other classes",)
    assert load_weights("resnet8", *fresh, run).notes[0] == f"weights are those of {run}/checkpoints/12/state"
    equal(load_weights("resnet8", *fresh, run / "checkpoints" / "3").params["stem_conv"], params["stem_conv"])
    if averages:
        x = jnp.asarray(np.random.default_rng(3).normal(size=(2, *SHAPE)), jnp.float32)
        before = old.apply_test(predicting_params(last)["model"], stats, x)["features"]
        after = new.apply_test(*jax.tree.map(jnp.asarray, loaded[:2]), x)["features"]
        np.testing.assert_array_equal(before, after)
        assert np.abs(before).max() > 0.1


def test_names_and_shapes_must_be_those_of_the_model(saved, tmp_path):
    form, kernel = form_of("mlp", 3), saved.params["hidden_0"]["kernel"]
    for i, (change, message) in enumerate(
        (
            ({"hidden_0": {"kernel": kernel}}, "params/hidden_0/bias is missing: give the checkpoint of a mlp"),
            (
                {"hidden_9": {"kernel": kernel}},
                "params/hidden_9/kernel has no place here: give the checkpoint of a mlp",
            ),
            (
                {"hidden_1": {"kernel": kernel[:5], "bias": kernel[0]}},
                r"params/hidden_1/kernel has the shape \[5, 512\]",
            ),
        )
    ):
        v1.save(tmp_path / str(i), {"params": {**saved.params, **change}})
        with pytest.raises(ArgumentError, match=rf"{tmp_path}/{i}/state: {message}"):
            load_weights("mlp", *form, tmp_path / str(i))
    v1.save(tmp_path / "more", {"params": saved.params, "ema": saved.params})
    with pytest.raises(ArgumentError, match="ema/head/dense/bias has no place here"):
        load_weights("mlp", *form, tmp_path / "more")
    with pytest.raises(ArgumentError, match=rf"{saved.folder}: head|{saved.folder}: stage_0_block_0/\S+ is missing"):
        load_weights("resnet8", *form_of("resnet8", 3), saved.folder)
    v1.save(tmp_path / "alone", {"params": drawn(form_of("resnet8", 3))[0]})
    with pytest.raises(ArgumentError, match=r"batch_stats/.* is missing"):
        load_weights("resnet8", *form_of("resnet8", 3), tmp_path / "alone")


def break_data(folder):
    next(iter((folder / "d").iterdir())).unlink()


def break_names(folder):
    (folder / "_METADATA").write_text('{"tree_metadata": {"a": 3}}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_data, "cannot be read .*the checkpoint is damaged or was not written to its end; name an earlier one"),
        (break_names, "_METADATA is not what orbax has written: name another, or save it anew"),
        (lambda folder: (folder / "_METADATA").unlink(), "holds a checkpoint that was not written to its end"),
        (lambda folder: shutil.rmtree(folder), None),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(damage, message, saved, tmp_path):
    folder = tmp_path / "c"
    shutil.copytree(saved.folder, folder)
    damage(folder)
    if message is None:  # nothing there at all: told as a file that is missing
        with pytest.raises(FileNotFoundError):
            load_weights("mlp", *form_of("mlp", 3), folder)
        return
    with pytest.raises(ArgumentError, match=f"{folder}.*{message}"):
        load_weights("mlp", *form_of("mlp", 3), folder)


def test_part_of_an_array_that_is_missing_is_not_taken_for_zeros(tmp_path):
    save_plain(tmp_path / "c", {"a": jnp.ones((2, 2))}, use_ocdbt=False)
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "c").arrays["a"], np.ones((2, 2)))
    (tmp_path / "c" / "a" / "0.0").unlink()
    with pytest.raises(ArgumentError, match="a cannot be read"):
        read_checkpoint(tmp_path / "c")


def test_what_is_being_written_what_holds_nothing_and_what_holds_several(saved, tmp_path):
    under_way = tmp_path / "run" / "checkpoints" / "5.orbax-checkpoint-tmp-17"
    shutil.copytree(saved.folder, under_way)
    for named in (under_way, tmp_path / "run"):
        with pytest.raises(ArgumentError, match="was not written to its end: name an earlier one, or save it anew"):
            checkpoint_in(named)
    for name in ("actor", "critic"):
        shutil.copytree(saved.folder, tmp_path / "two" / name)
    shutil.copytree(saved.folder, tmp_path / "run" / "checkpoints" / "4" / "state")
    assert checkpoint_in(tmp_path / "run") == tmp_path / "run" / "checkpoints" / "4" / "state"  # what is whole counts
    with pytest.raises(
        ArgumentError, match=r"holds several trees \(actor, critic\): name the one of the weights, such as"
    ):
        checkpoint_in(tmp_path / "two")
    assert checkpoint_in(tmp_path / "two" / "actor") == tmp_path / "two" / "actor"
    (tmp_path / "pictures" / "ants").mkdir(parents=True)
    with pytest.raises(ArgumentError, match=r"pictures holds no weights: name the folder of a run that has written a"):
        pixels_of(tmp_path / "pictures", IMAGENET)


def test_pixels_are_those_that_a_checkpoint_s_config_says(saved, tmp_path):
    folder = tmp_path / "c"
    shutil.copytree(saved.folder, folder)
    assert pixels_of(folder, IMAGENET) is None
    for told in (TOLD["pixels"][:1], [[1, 2, 3], [4, 5, 0]], [[1, 2], [3, 4]], "black"):
        (folder / "config.json").write_text(json.dumps({"pixels": told}))
        with pytest.raises(
            ArgumentError, match=r"`pixels` in its config.json must be three means and three deviations"
        ):
            pixels_of(folder, IMAGENET)
    (folder / "config.json").write_text(json.dumps(TOLD))
    np.testing.assert_array_equal(pixels_of(folder, IMAGENET), TOLD["pixels"])
    assert told_beside(file_of(folder)) == TOLD


def test_a_frozen_network_is_that_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(vit, "_DEPTH", 1)
    params, stats = drawn(form_of("dinov2-s14", 4, (224, 224, 3)))
    save_state(tmp_path / "run" / "checkpoints", params, stats)
    with pytest.raises(ArgumentError, match="run does not say what network it is of: name it by `model`"):
        frozen(tmp_path / "run", IMAGENET)
    (tmp_path / "run" / "config.json").write_text(json.dumps(TOLD))
    images = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    normal = jnp.asarray((images - np.array(TOLD["pixels"][0])) / TOLD["pixels"][1], jnp.float32)
    wanted = build("dinov2-s14", (224, 224, 3), 4).apply_test(params, stats, normal)["features"]
    np.testing.assert_allclose(frozen(tmp_path / "run", IMAGENET)(images), wanted, rtol=1e-4, atol=1e-4)


@pytest.fixture(autouse=True)
def as_users_have_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
