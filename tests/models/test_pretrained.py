"""Frozen backbones from files: the same features as torch's own operations give."""

import json
import re

import jax
import numpy as np
import pytest

from nlx.arguments import ArgumentError
from nlx.models.pretrained import read_safetensors, resnet_features

SHAPES = {18: ((2, 2, 2, 2), False), 34: ((3, 4, 6, 3), False), 50: ((3, 4, 6, 3), True)}


def weights(depth, seed=0):
    """Random weights with torchvision's names and shapes."""
    rng, arrays = np.random.default_rng(seed), {}
    stages, bottleneck = SHAPES[depth]

    def conv(name, outputs, inputs, size):
        scale = np.sqrt(2 / (inputs * size**2))
        arrays[f"{name}.weight"] = rng.normal(0, scale, (outputs, inputs, size, size)).astype(np.float32)

    def norm(name, width):
        for part, low, high in (("weight", 0.3, 0.6), ("bias", -0.2, 0.2), ("running_mean", -0.3, 0.3)):
            arrays[f"{name}.{part}"] = rng.uniform(low, high, width).astype(np.float32)
        arrays[f"{name}.running_var"] = rng.uniform(0.5, 2, width).astype(np.float32)
        arrays[f"{name}.num_batches_tracked"] = np.array(7)

    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    inputs = 64
    for stage, count in enumerate(stages):
        width = 64 * 2**stage
        outputs = 4 * width if bottleneck else width
        for number in range(count):
            name = f"layer{stage + 1}.{number}"
            sizes = [(width, inputs, 1), (width, width, 3), (outputs, width, 1)]
            sizes = sizes if bottleneck else [(width, inputs, 3), (width, width, 3)]
            for i, size in enumerate(sizes, 1):
                conv(f"{name}.conv{i}", *size)
                norm(f"{name}.bn{i}", size[0])
            if number == 0 and (stage > 0 or bottleneck):
                conv(f"{name}.downsample.0", outputs, inputs, 1)
                norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    arrays["fc.weight"], arrays["fc.bias"] = np.zeros((10, inputs), np.float32), np.zeros(10, np.float32)
    return arrays


def save(path, arrays):
    header, parts, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, array in arrays.items():
        content = array.tobytes()
        kind = {"f": "F", "i": "I"}[array.dtype.kind] + str(8 * array.dtype.itemsize)
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + len(content)]}
        at += len(content)
        parts.append(content)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def by_torch(torch, arrays, images):
    """The features of a ResNet, written with torch's functions."""
    f, t = torch.nn.functional, {name: torch.tensor(array) for name, array in arrays.items()}

    def layer(x, conv, norm, stride=1):
        half = t[f"{conv}.weight"].shape[2] // 2
        x = f.conv2d(x, t[f"{conv}.weight"], stride=stride, padding=half)
        parts = (t[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return f.batch_norm(x, *parts, training=False, eps=1e-5)

    mean, spread = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x = (torch.tensor(images).permute(0, 3, 1, 2).float() / 255 - mean) / spread
    x = f.max_pool2d(f.relu(layer(x, "conv1", "bn1", 2)), 3, 2, 1)
    for name in sorted({m[0] for key in t if (m := re.match(r"layer\d\.\d+", key))}):
        stride = 2 if name.endswith(".0") and name[5] != "1" else 1
        three = f"{name}.conv3.weight" in t
        down = f"{name}.downsample.0"
        shortcut = layer(x, down, f"{name}.downsample.1", stride) if f"{down}.weight" in t else x
        x = f.relu(layer(x, f"{name}.conv1", f"{name}.bn1", 1 if three else stride))
        x = layer(x, f"{name}.conv2", f"{name}.bn2", stride if three else 1)
        x = layer(f.relu(x), f"{name}.conv3", f"{name}.bn3") if three else x
        x = f.relu(x + shortcut)
    return x.mean(dim=(2, 3)).numpy()


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_features_are_those_of_torch(depth, tmp_path):
    torch = pytest.importorskip("torch")
    arrays = weights(depth)
    save(tmp_path / "weights.safetensors", arrays)
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    ours = resnet_features(tmp_path / "weights.safetensors")(images)
    theirs = by_torch(torch, arrays, images)
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def test_only_a_whole_network_is_taken(tmp_path):
    path, arrays = tmp_path / "weights.safetensors", weights(18)
    save(path, arrays)
    np.testing.assert_array_equal(read_safetensors(path)["conv1.weight"], arrays["conv1.weight"])
    for change, message in (
        ({"layer2.0.bn1.bias": None}, "layer2.0.bn1.bias is missing"),
        ({"layer2.0.bn1.bias": np.zeros(3, np.float32)}, r"layer2.0.bn1.bias has the shape \[3\]"),
        ({"layer1.0.se.weight": np.zeros(3, np.float32)}, "layer1.0.se.weight is of no ResNet"),
        ({"layer1.2.conv1.weight": np.zeros(3, np.float32)}, "no ResNet of 18, 34 or 50 layers"),
    ):
        save(path, {name: array for name, array in {**arrays, **change}.items() if array is not None})
        with pytest.raises(ArgumentError, match=message):
            resnet_features(path)
    path.write_bytes(b"no")
    with pytest.raises(ArgumentError, match="no safetensors file"):
        resnet_features(path)


@pytest.fixture(autouse=True)
def as_users_have_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
