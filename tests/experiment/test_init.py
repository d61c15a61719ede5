"""Weights that a run starts from."""

import json
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import nlx
from nlx.arguments import ArgumentError
from nlx.data import Dataset, Split
from nlx.data.prepare import IMAGENET
from nlx.experiment import defaults
from nlx.experiment.options import RecipeOptions
from nlx.experiment.run import Run
from nlx.methods.plain import plain
from nlx.models import build, pair, vit
from nlx.models.naming import naming
from nlx.training.stages import Stage
from nlx.training.state import TrainState

IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
DATA = Dataset("mine", ("ant", "bee", "cat"), Split(IMAGES, np.arange(16, dtype=np.int32) % 3, None), None)


def zeros(model):
    """Parameters and statistics of a model, all 0."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(model.init, jax.random.key(0)))


def save(path, name, num_classes, size=8):
    """Random weights by torchvision's or timm's names; our trees of them come back."""
    rng, model = np.random.default_rng(1), build(name, (size, size, 3), num_classes)
    trees = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), zeros(model))
    of, arrays = naming(name, {}), {}
    for place, array in jax.tree.leaves_with_path(trees[0]) + jax.tree.leaves_with_path(trees[1]):
        order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim, range(array.ndim))
        arrays[of(tuple(part.key for part in place))] = np.ascontiguousarray(array.transpose(order))
    save_file(arrays, path)
    return trees


def begun(options, data=DATA):
    """A run with an open folder."""
    run, method = Run(options, data=data), plain(nlx.losses.cross_entropy)
    data, _ = run.load()
    run.observers(method, data)
    return run


@pytest.mark.parametrize("two", [False, True])
def test_a_run_starts_from_the_weights_of_a_file(tmp_path, capsys, two):
    wanted = save(tmp_path / "r8.safetensors", "resnet8", 5)
    options = RecipeOptions(model="resnet8", init=tmp_path / "r8.safetensors", run_dir=tmp_path / "run", batch_size=8)
    model = build("resnet8", (8, 8, 3), 3)
    params, stats = zeros(pair(model) if two else model)
    fresh = TrainState(jnp.zeros(()), jax.random.key(0), {"model": params, "method": {}}, stats, (), (), {})
    state = begun(options).restored(SimpleNamespace(batch_size=8, init=lambda key, data: fresh), DATA, Stage(1))
    for key in "ab" if two else "-":
        ours = (tree[key] if two else tree for tree in (state.params["model"], state.stats))
        for tree, its in zip(ours, wanted, strict=True):
            assert all((leaf == 0).all() for leaf in jax.tree.leaves(tree.get("head", {})))  # of another size
            for name in its.keys() - {"head"}:
                jax.tree.map(np.testing.assert_array_equal, tree[name], its[name])
    assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda x: x.sharding, fresh)
    assert "the last layer is drawn anew" in capsys.readouterr().err


def test_positions_become_those_of_the_pictures_that_are_seen(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(vit, "_DEPTH", 1)
    save(tmp_path / "w.safetensors", "dinov2-s14", 5, size=42)
    images = np.random.default_rng(0).integers(0, 256, (16, 28, 14, 3), dtype=np.uint8)
    data = replace(DATA, train=replace(DATA.train, inputs=images))
    options = RecipeOptions(model="dinov2-s14", init=tmp_path / "w.safetensors", run_dir=tmp_path / "run", batch_size=8)
    params, stats = zeros(build("dinov2-s14", (28, 14, 3), 3))
    fresh = TrainState(jnp.zeros(()), jax.random.key(0), {"model": params, "method": {}}, stats, (), (), {})
    state = begun(options, data).restored(SimpleNamespace(batch_size=8, init=lambda key, data: fresh), data, Stage(1))
    assert state.params["model"]["positions"].shape == (1, 3, 384)
    assert "positions are resampled from 3 x 3 patches to 2 x 1" in capsys.readouterr().err


def test_a_run_records_how_its_pixels_are_normalized_where_weights_say_it(tmp_path):
    save(weights := tmp_path / "r8.safetensors", "resnet8", 3)
    for init, pixels in ((None, None), (weights, [part.tolist() for part in IMAGENET])):
        folder = tmp_path / f"{init is None}"
        begun(RecipeOptions(model="resnet8", init=init, run_dir=folder, batch_size=8))
        assert json.loads((folder / "config.json").read_text()).get("pixels") == pixels


def test_a_model_that_takes_no_weights_says_so(tmp_path):
    save(tmp_path / "r8.safetensors", "resnet8", 3)
    run = begun(RecipeOptions(model="mlp", init=tmp_path / "r8.safetensors", run_dir=tmp_path / "run", batch_size=8))
    state = SimpleNamespace(params={"model": {"head": {}}}, stats={})
    with pytest.raises(ArgumentError, match="mlp takes no weights from files; leave out `init`"):
        run.restored(SimpleNamespace(batch_size=8, init=lambda key, data: state), DATA, Stage(1))


def test_pictures_are_then_normalized_as_those_of_imagenet(tmp_path, monkeypatch):
    means = []
    monkeypatch.setattr(defaults, "preparer", lambda mean, scale, **options: means.append(mean))
    for init in (None, tmp_path / "some"):
        options = RecipeOptions(model="convnet", init=init)
        defaults.build_model(options, defaults.training_for(options, DATA), DATA)
    np.testing.assert_allclose(means[0], IMAGES.mean(axis=(0, 1, 2)), rtol=1e-5)
    assert means[1] is IMAGENET[0]


def test_pictures_without_colours_are_refused(tmp_path):
    grey = Dataset("grey", ("ant", "bee"), Split(IMAGES[..., :1], np.arange(16, dtype=np.int32) % 2, None), None)
    options = RecipeOptions(model="resnet8", init=tmp_path / "some")
    with pytest.raises(ArgumentError, match=r"`init` is for pictures in colour, but grey has inputs of \(8, 8, 1\)"):
        defaults.build_model(options, defaults.training_for(options, grey), grey)
