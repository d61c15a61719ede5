"""timm's weights from the hub, with a download that stands for it."""

import json
import sys
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from nlx.arguments import ArgumentError
from nlx.data.prepare import IMAGENET
from nlx.models import build
from nlx.models.hub import fetched
from nlx.models.naming import naming
from nlx.models.pixels import pixels_of
from nlx.models.pretrained import frozen, load_weights

ERRORS = ("LocalEntryNotFoundError", "RepositoryNotFoundError", "EntryNotFoundError", "HFValidationError")


class Hub(ModuleType):
    """huggingface_hub with some repositories, a cache of files, and what was asked of it over the network."""

    def __init__(self, remote):
        super().__init__("huggingface_hub")
        self.remote, self.cached, self.asked, self.failure = remote, set(), [], None
        self.errors = ModuleType("huggingface_hub.errors")
        for name in ERRORS:
            setattr(self.errors, name, type(name, (Exception,), {}))

    def hf_hub_download(self, repository, file, local_files_only=False):
        if local_files_only and (repository, file) not in self.cached:
            raise self.errors.LocalEntryNotFoundError
        if not local_files_only:
            self.asked.append((repository, file))
            if self.failure:
                raise self.failure
            if repository not in self.remote:
                raise self.errors.RepositoryNotFoundError
            self.cached.add((repository, file))
        return str(self.remote[repository] / file)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    rng, arrays = np.random.default_rng(0), {}
    form = jax.eval_shape(build("resnet18", (72, 72, 3), 10).init, jax.random.key(0))
    of = naming("resnet18", {})
    for place, leaf in jax.tree.leaves_with_path(form[0]) + jax.tree.leaves_with_path(form[1]):
        order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[leaf.ndim]
        shape = [leaf.shape[axis] for axis in order] + [1, 1] * (leaf.ndim == 2 and place[0].key != "head")
        arrays[of(tuple(part.key for part in place))] = rng.uniform(0.1, 0.2, shape).astype(np.float32)
    save_file(arrays, tmp_path / "model.safetensors")
    about = {"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    hub = Hub({f"timm/{name}": tmp_path for name in ("resnet18.a1_in1k", "vit_base_patch32_clip_224.openai")})
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", hub.errors)
    return hub


def test_a_name_of_timms_is_fetched_once_and_goes_the_way_of_a_file(hub, tmp_path):
    path = Path("timm:resnet18.a1_in1k")
    form = jax.eval_shape(build("resnet18", (72, 72, 3), 10).init, jax.random.key(0))
    loaded, wanted = (load_weights("resnet18", *form, p) for p in (path, tmp_path / "model.safetensors"))
    jax.tree.map(np.testing.assert_array_equal, loaded, wanted)
    np.testing.assert_array_equal(pixels_of(path, IMAGENET), [[127.5] * 3, [63.75] * 3])
    images = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    same = frozen(path, IMAGENET)(images)
    np.testing.assert_array_equal(same, frozen(tmp_path / "model.safetensors", IMAGENET)(images))
    assert hub.asked == [("timm/resnet18.a1_in1k", file) for file in ("config.json", "model.safetensors")]
    with pytest.raises(ArgumentError, match=r"timm:resnet18.a1_in1k: fc.weight has the shape \[10, 512\]"):
        load_weights("resnet50", *jax.eval_shape(build("resnet50", (72, 72, 3), 10).init, jax.random.key(0)), path)
    assert fetched(tmp_path) == tmp_path


def test_both_activations_of_clip_are_one_file_there(hub, tmp_path):
    quick = Path("timm:vit_base_patch32_clip_quickgelu_224.openai")
    assert fetched(quick) == tmp_path / "model.safetensors"
    form = jax.eval_shape(build("clip-b32", (64, 64, 3), 10).init, jax.random.key(0))
    with pytest.raises(ArgumentError, match="is of quick GELU: take clip-b32-quick"):
        load_weights("clip-b32", *form, quick)


def test_what_keeps_a_name_from_being_fetched_is_told(hub, monkeypatch):
    with pytest.raises(
        ArgumentError, match=r"timm:resnet18: the hub has no such weights of timm's: give the name with its tag"
    ):
        fetched(Path("timm:resnet18"))
    for failure, message in (
        (hub.errors.LocalEntryNotFoundError(), "timm:resnet18.a1_in1k cannot be fetched, for there is no network here"),
        (hub.errors.EntryNotFoundError(), "the hub has no such weights of timm's"),
        (TimeoutError(), r"timm:resnet18.a1_in1k cannot be fetched \(TimeoutError\): try again, or name a file"),
    ):
        hub.failure = failure
        with pytest.raises(ArgumentError, match=message):
            fetched(Path("timm:resnet18.a1_in1k"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ArgumentError, match="which is not here: pip install huggingface_hub, or name a file"):
        fetched(Path("timm:resnet18.a1_in1k"))
