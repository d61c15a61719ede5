"""How the pixels were normalized that weights from elsewhere were trained on."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from nlx.arguments import ArgumentError
from nlx.data.prepare import IMAGENET
from nlx.models.pixels import CLIP, pixels_of

HALF = (np.full(3, 127.5), np.full(3, 127.5))


def saved(path, *names):
    path.parent.mkdir(exist_ok=True)
    save_file({name: np.zeros(2, np.float32) for name in names}, path)
    return path


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (("conv1.weight", "fc.weight"), IMAGENET),
        (("class_token", "conv_proj.weight"), IMAGENET),  # torchvision's
        (("cls_token", "blocks.0.ls1.gamma"), IMAGENET),  # DINOv2's
        (("cls_token", "blocks.0.norm1.weight"), HALF),  # timm's
        (("stem.conv.weight",), HALF),
        (("cls_token", "norm_pre.weight"), CLIP),
        (("vision_model.pre_layrnorm.weight",), CLIP),
    ],
)
def test_names_say_it_where_nothing_else_does(names, wanted, tmp_path):
    path = saved(tmp_path / "w.safetensors", *names)
    np.testing.assert_array_equal(pixels_of(path, IMAGENET), wanted)
    (tmp_path / "config.json").write_text("[1, 2]")  # something else
    np.testing.assert_array_equal(pixels_of(path, IMAGENET), wanted)
    about = {"architecture": "x", "pretrained_cfg": {"mean": [0.1, 0.2, 0.4], "std": [0.5, 0.6, 0.8]}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    np.testing.assert_allclose(pixels_of(path, IMAGENET), [[25.5, 51, 102], [127.5, 153, 204]], rtol=1e-6)


def test_a_run_says_what_it_began_with(tmp_path):
    path = saved(tmp_path / "run" / "model.safetensors", "params/model/head/dense/bias")
    assert pixels_of(path, IMAGENET) is None
    (path.parent / "config.json").write_text(json.dumps({"options": {}}))
    assert pixels_of(path.parent, IMAGENET) is None
    (path.parent / "config.json").write_text(json.dumps({"pixels": [part.tolist() for part in CLIP]}))
    for named in (path, path.parent):
        np.testing.assert_array_equal(pixels_of(named, IMAGENET), CLIP)


def test_a_file_that_is_none_is_refused_and_one_that_is_missing_left_to_the_loader(tmp_path):
    assert pixels_of(tmp_path / "none", IMAGENET) is IMAGENET
    (tmp_path / "w.safetensors").write_bytes(b"no")
    with pytest.raises(ArgumentError, match="no safetensors file of floats"):
        pixels_of(tmp_path / "w.safetensors", IMAGENET)
