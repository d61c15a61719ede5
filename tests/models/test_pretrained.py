"""Weights of other frameworks: the same outputs as torch's own modules give, and nothing but whole networks."""

import json
from copy import deepcopy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.arguments import ArgumentError
from nlx.data.prepare import IMAGENET
from nlx.models import build
from nlx.models.pretrained import frozen, load_weights, read_safetensors

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


PEERS = {  # our name: whose module, its name, its options, pixels
    "resnet18": ("torchvision", "resnet18", {}, 72),
    "resnet34": ("torchvision", "resnet34", {}, 72),
    "resnet50": ("timm", "resnet50", {}, 72),
    "resnet101": ("torchvision", "resnet101", {}, 72),
    "preact18": ("timm", "resnetv2_18", {}, 72),
    "preact34": ("timm", "resnetv2_34", {}, 72),
    "alexnet": ("torchvision", "alexnet", {"dropout": 0.0}, 70),
    "vgg16": ("torchvision", "vgg16", {"dropout": 0.0}, 48),
    "vit-s16": ("timm", "vit_small_patch16_224", {"img_size": 48}, 48),
    "vit-b16": ("torchvision", "vit_b_16", {"image_size": 48}, 48),
}


def peer(name):
    """A module of torch's with random weights and statistics, and its pixels."""
    torch = pytest.importorskip("torch")
    library, its, options, size = PEERS[name]
    make = pytest.importorskip("torchvision").models if library == "torchvision" else None
    torch.manual_seed(0)
    if make is None:
        module = pytest.importorskip("timm").create_model(its, num_classes=10, **options)
    else:
        module = getattr(make, its)(num_classes=10, **options)
    for key, value in module.state_dict().items():
        if value.ndim == 1 and value.is_floating_point():  # norms and biases begin at 0 or 1
            low, high = (0.5, 1.5) if key.endswith("var") else (0.2, 0.6) if key.endswith("weight") else (-0.2, 0.2)
            value.uniform_(low, high)
        elif "token" in key or value.ndim == 2:
            value.normal_(0, 1 / value.shape[-1] ** 0.5)
    return torch, module, size


@pytest.mark.parametrize("name", PEERS)
def test_outputs_are_those_of_torch(name, tmp_path):
    torch, module, size = peer(name)
    path = tmp_path / "weights.safetensors"
    save(path, {key: value.numpy() for key, value in module.state_dict().items()})
    model = build(name, (size, size, 3), 10)
    loaded = load_weights(name, *model.init(jax.random.key(0)), path)
    assert not loaded.notes
    x = np.random.default_rng(1).normal(size=(4, size, size, 3)).astype(np.float32)
    for train in (True, False):
        module.train(train)
        with torch.no_grad():
            exact = deepcopy(module).double()(torch.tensor(x).double().permute(0, 3, 1, 2)).numpy()
            theirs = module(torch.tensor(x).permute(0, 3, 1, 2)).numpy()
        if not train:  # torch's running statistics have moved meanwhile
            save(path, {key: value.numpy() for key, value in module.state_dict().items()})
            loaded = load_weights(name, *loaded[:2], path)
        ours = model.apply(*jax.tree.map(jnp.asarray, loaded[:2]), jnp.asarray(x), train, None)[0]["logits"]
        scale = np.abs(theirs).max()
        assert scale > 0.1
        # The statistics of few pictures magnify rounding: of 101 layers torch's own is 1.3e-4.
        near = max(1e-4, 2 * np.abs(theirs - exact).max() / scale)
        np.testing.assert_allclose(ours, exact, rtol=near, atol=near * scale)
    other = build(name, (size, size, 3), 7)
    params, stats = other.init(jax.random.key(0))
    anew = load_weights(name, params, stats, path)
    assert anew.notes == ("the last layer is drawn anew, for weights.safetensors has none of this size",)
    np.testing.assert_array_equal(anew.params["head"]["dense"]["kernel"], params["head"]["dense"]["kernel"])


def test_only_a_whole_network_is_taken(tmp_path):
    path, arrays = tmp_path / "weights.safetensors", weights(18)
    save(path, arrays)
    np.testing.assert_array_equal(read_safetensors(path)["conv1.weight"], arrays["conv1.weight"])
    form = jax.eval_shape(build("resnet18", (72, 72, 3), 10).init, jax.random.key(0))
    loaded = load_weights("resnet18", *form, path)
    block = arrays["layer2.0.downsample.0.weight"]
    kernel = loaded.params["stage_1_block_0"]["shortcut_conv"]["kernel"]
    np.testing.assert_array_equal(kernel[0, 0], block[:, :, 0, 0].T)
    np.testing.assert_array_equal(loaded.stats["stem_norm"]["var"], arrays["bn1.running_var"])
    for change, message in (
        ({"layer2.0.bn1.bias": None}, "layer2.0.bn1.bias is missing"),
        ({"layer2.0.bn1.bias": np.zeros(3, np.float32)}, r"layer2.0.bn1.bias has the shape \[3\]"),
        ({"layer1.0.se.weight": np.zeros(3, np.float32)}, "layer1.0.se.weight is no weight of a resnet18"),
    ):
        save(path, {name: array for name, array in {**arrays, **change}.items() if array is not None})
        with pytest.raises(ArgumentError, match=message):
            load_weights("resnet18", *form, path)
        with pytest.raises(ArgumentError, match=message):
            frozen(path, *IMAGENET)
    save(path, {**arrays, "layer1.2.conv1.weight": np.zeros(3, np.float32)})
    with pytest.raises(ArgumentError, match="holds no network that is known"):
        frozen(path, *IMAGENET)
    with pytest.raises(ArgumentError, match="mlp takes no weights from files"):
        load_weights("mlp", {}, {}, path)
    path.write_bytes(b"no")
    with pytest.raises(ArgumentError, match="no safetensors file"):
        frozen(path, *IMAGENET)


@pytest.fixture(autouse=True)
def as_users_have_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
