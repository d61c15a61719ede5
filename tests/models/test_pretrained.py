"""Weights of other frameworks: the same outputs as torch's own modules give, and nothing but whole networks."""

import json
import math
from copy import deepcopy
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.arguments import ArgumentError
from nlx.data.prepare import IMAGENET
from nlx.models import build, vit
from nlx.models.naming import in_timms_names, naming
from nlx.models.pixels import CLIP
from nlx.models.pretrained import frozen, load_weights
from nlx.models.stored import read_safetensors

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
    "dinov2-s14": ("timm", "vit_small_patch14_dinov2", {"img_size": 42}, 42),
    "dinov2-b14": ("timm", "vit_base_patch14_dinov2", {"img_size": 42}, 42),
    "dinov2-s14-reg": ("timm", "vit_small_patch14_reg4_dinov2", {"img_size": 42}, 42),
    "dinov2-b14-reg": ("timm", "vit_base_patch14_reg4_dinov2", {"img_size": 42}, 42),
    "clip-b32": ("timm", "vit_base_patch32_clip_224", {"img_size": 64, "num_classes": 512}, 64),
    "clip-b16": ("timm", "vit_base_patch16_clip_224", {"img_size": 48, "num_classes": 512}, 48),
    "clip-b32-quick": ("timm", "vit_base_patch32_clip_quickgelu_224", {"img_size": 64, "num_classes": 512}, 64),
    "clip-b16-quick": ("timm", "vit_base_patch16_clip_quickgelu_224", {"img_size": 48, "num_classes": 512}, 48),
}
ANEW = "the last layer is drawn anew, for weights.safetensors has none of this size"


def far(ours, theirs):
    """The largest difference, by the largest output."""
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def alike(ours, theirs, near=1e-4):
    assert ours.shape == theirs.shape
    assert far(ours, theirs) <= near


def peer(name):
    """A module of torch's with random weights and statistics, and its pixels."""
    torch = pytest.importorskip("torch")
    library, its, options, size = PEERS[name]
    make = pytest.importorskip("torchvision").models if library == "torchvision" else None
    torch.manual_seed(0)
    if make is None:
        module = pytest.importorskip("timm").create_model(its, **{"num_classes": 10, **options})
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
    embeds = name.startswith("clip")  # what is the head of timm's towers gives the features
    assert loaded.notes == ((ANEW,) if embeds else ())
    x = np.random.default_rng(1).normal(size=(4, size, size, 3)).astype(np.float32)
    for train in (True, False):
        module.train(train)
        with torch.no_grad():
            exact = deepcopy(module).double()(torch.tensor(x).double().permute(0, 3, 1, 2)).numpy()
            theirs = module(torch.tensor(x).permute(0, 3, 1, 2)).numpy()
        if not train:  # torch's running statistics have moved meanwhile
            save(path, {key: value.numpy() for key, value in module.state_dict().items()})
            loaded = load_weights(name, *loaded[:2], path)
        ours = model.apply(*jax.tree.map(jnp.asarray, loaded[:2]), jnp.asarray(x), train, None)[0]
        ours = ours["features" if embeds else "logits"]
        assert np.abs(exact).max() > 0.1
        # Of 101 layers the statistics of few pictures magnify rounding: torch's own is 1.3e-4.
        alike(ours, exact, max(1e-4, 2 * far(theirs, exact)) if train and name == "resnet101" else 1e-4)
    other = build(name, (size, size, 3), 7)
    params, stats = other.init(jax.random.key(0))
    anew = load_weights(name, params, stats, path)
    assert anew.notes == (ANEW,)
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
        ({"conv1.weight": np.full((64, 3, 7, 7), np.nan, np.float32)}, "conv1.weight holds NaN or infinity: the trai"),
        ({"bn1.running_var": np.full(64, np.inf, np.float32)}, "bn1.running_var holds NaN or infinity"),
        ({"fc.bias": None}, "fc.bias is missing"),
        ({"fc.weight": None}, "fc.weight is missing"),
        ({"fc.weight": np.zeros((10, 256), np.float32)}, r"fc.weight has the shape \[10, 256\]"),
        ({"fc.bias": np.zeros(9, np.float32)}, r"fc.bias has the shape \[9\]"),
        ({"layer1.0.se.weight": np.zeros(3, np.float32)}, "layer1.0.se.weight is no weight of a resnet18"),
    ):
        save(path, {name: array for name, array in {**arrays, **change}.items() if array is not None})
        with pytest.raises(ArgumentError, match=message):
            load_weights("resnet18", *form, path)
        with pytest.raises(ArgumentError, match=message):
            frozen(path, IMAGENET)
    save(path, {name: array for name, array in arrays.items() if not name.startswith("fc.")})  # of features alone
    assert load_weights("resnet18", *form, path).notes == (ANEW,)
    save(path, {**arrays, "layer1.2.conv1.weight": np.zeros(3, np.float32)})
    with pytest.raises(ArgumentError, match="holds no network that is known"):
        frozen(path, IMAGENET)
    with pytest.raises(ArgumentError, match="mlp takes no weights from files"):
        load_weights("mlp", {}, {}, path)
    path.write_bytes(b"no")
    with pytest.raises(ArgumentError, match="no safetensors file"):
        frozen(path, IMAGENET)


def timms(name, size, seed=0):
    """Random weights of one block's depth with timm's names, and ours of the same values."""
    model, rng, arrays = build(name, (size, size, 3), 1), np.random.default_rng(seed), {}
    of = naming(name, {})

    def drawn(place, form):
        wide = 1 / np.sqrt(max(form.shape))
        value = (rng.uniform(0.3, 1, form.shape) if len(form.shape) == 1 else rng.normal(0, wide, form.shape)).astype(
            "f4"
        )
        if not (theirs := of(tuple(part.key for part in place))).startswith("(none)"):
            order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(value.ndim, range(value.ndim))
            arrays[theirs] = np.ascontiguousarray(value.transpose(order))
        return value

    return arrays, jax.tree.map_with_path(drawn, jax.eval_shape(model.init, jax.random.key(0))[0])


def by_numpy(arrays, images, epsilon, quick):
    """The features of one block's transformer by timm's names, in float64."""
    w = {name: array.astype(np.float64) for name, array in arrays.items()}

    def norm(x, name):
        unit = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
        return unit * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def scaled(x, name):
        return x * w.get(f"blocks.0.{name}.gamma", 1.0)

    kernel, out = w["patch_embed.proj.weight"], []
    width, side, heads = kernel.shape[0], kernel.shape[-1], kernel.shape[0] // 64
    for image in images.astype(np.float64):
        tokens = [w["cls_token"][0, 0]]
        for top in range(0, image.shape[0], side):
            for left in range(0, image.shape[1], side):
                patch = image[top : top + side, left : left + side].transpose(2, 0, 1)
                tokens.append((kernel * patch).sum((1, 2, 3)) + w.get("patch_embed.proj.bias", 0.0))
        if "reg_token" in w:  # patches alone have positions
            tokens[1:] = [*w["reg_token"][0], *(np.stack(tokens[1:]) + w["pos_embed"][0])]
            x = np.stack(tokens)
        else:
            x = np.stack(tokens) + w["pos_embed"][0]
        x = norm(x, "norm_pre") if "norm_pre.weight" in w else x
        q, k, v = dense(norm(x, "blocks.0.norm1"), "blocks.0.attn.qkv").reshape(-1, 3, heads, 64).transpose(1, 2, 0, 3)
        weight = np.exp(q @ k.transpose(0, 2, 1) / 8)
        seen = (weight / weight.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(-1, width)
        x = x + scaled(dense(seen, "blocks.0.attn.proj"), "ls1")
        inner = dense(norm(x, "blocks.0.norm2"), "blocks.0.mlp.fc1")
        normal = 1 / (1 + np.exp(-1.702 * inner)) if quick else 0.5 * (1 + np.vectorize(math.erf)(inner / 2**0.5))
        x = x + scaled(dense(inner * normal, "blocks.0.mlp.fc2"), "ls2")
        x = norm(x, "norm")[0]
        out.append(dense(x, "head") if "norm_pre.weight" in w else x)
    return np.stack(out)


@pytest.mark.parametrize(
    ("name", "size", "epsilon", "quick"),
    [
        pytest.param("vit-s16", 32, 1e-6, False, marks=pytest.mark.slow),
        ("dinov2-s14", 28, 1e-6, False),
        ("dinov2-s14-reg", 28, 1e-6, False),
        pytest.param("clip-b16", 32, 1e-5, False, marks=pytest.mark.slow),
        pytest.param("clip-b32-quick", 64, 1e-5, True, marks=pytest.mark.slow),
    ],
)
def test_features_of_a_transformer_are_those_of_a_loop(name, size, epsilon, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(vit, "_DEPTH", 1)
    path, (arrays, _) = tmp_path / "w.safetensors", timms(name, size)
    x = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
    x[1] *= 1e-3  # so that what is added to a variance counts
    for key in {"cls_token", "pos_embed", "reg_token"} & arrays.keys():
        arrays[key] *= 1e-2
    save(path, arrays)
    model = build(name, (size, size, 3), 3)
    ours = model.apply_test(*load_weights(name, *model.init(jax.random.key(0)), path)[:2], jnp.asarray(x))["features"]
    alike(ours, by_numpy(arrays, x, epsilon, quick))


def by_its_authors(arrays):
    """timm's weights of DINOv2 with registers as its authors' hub has them: the class has a position of its own."""
    named, first = dict(arrays), np.random.default_rng(2).normal(size=arrays["cls_token"].shape).astype(np.float32)
    named["register_tokens"] = named.pop("reg_token")
    named["pos_embed"] = np.concatenate([first, named["pos_embed"]], axis=1)
    named["cls_token"] = named["cls_token"] - first
    return {**named, "mask_token": np.zeros((1, first.shape[-1]), np.float32)}


def by_transformers(arrays):
    """timm's weights of a CLIP tower as transformers calls them, with some of the text's beside them."""
    tower = {
        "embeddings.class_embedding": arrays["cls_token"][0, 0],
        "embeddings.position_embedding.weight": arrays["pos_embed"][0],
        "embeddings.patch_embedding.weight": arrays["patch_embed.proj.weight"],
        "embeddings.position_ids": np.arange(50)[None],
    }
    for leaf in ("weight", "bias"):
        tower[f"pre_layrnorm.{leaf}"] = arrays[f"norm_pre.{leaf}"]
        tower[f"post_layernorm.{leaf}"] = arrays[f"norm.{leaf}"]
        block = {f"layer_norm{i}.{leaf}": arrays[f"blocks.0.norm{i}.{leaf}"] for i in (1, 2)}
        block |= {f"mlp.fc{i}.{leaf}": arrays[f"blocks.0.mlp.fc{i}.{leaf}"] for i in (1, 2)}
        block[f"self_attn.out_proj.{leaf}"] = arrays[f"blocks.0.attn.proj.{leaf}"]
        for part, piece in zip("qkv", np.split(arrays[f"blocks.0.attn.qkv.{leaf}"], 3), strict=True):
            block[f"self_attn.{part}_proj.{leaf}"] = piece
        tower |= {f"encoder.layers.0.{name}": array for name, array in block.items()}
    text = {"text_model.embeddings.token_embedding.weight": np.zeros((3, 2)), "logit_scale": np.zeros(())}
    text |= {"text_projection.weight": np.zeros((2, 2)), "visual_projection.weight": arrays["head.weight"]}
    return text | {f"vision_model.{name}": array for name, array in tower.items()}


@pytest.mark.parametrize(
    ("name", "file", "pixels", "form"),
    [
        pytest.param("dinov2-s14", "w", IMAGENET, dict, marks=pytest.mark.slow),
        ("dinov2-s14-reg", "w", IMAGENET, by_its_authors),
        pytest.param("clip-b32", "w", CLIP, dict, marks=pytest.mark.slow),
        ("clip-b32-quick", "vit_base_patch32_clip_quickgelu_224", CLIP, dict),
        ("clip-b32-quick", "w", CLIP, by_transformers),
        ("vit-s16", "w", (np.full(3, 127.5),) * 2, dict),
    ],
)
def test_a_frozen_transformer_is_known_by_its_names(name, file, pixels, form, tmp_path, monkeypatch):
    monkeypatch.setattr(vit, "_DEPTH", 1)
    path = tmp_path / f"{file}.safetensors"
    arrays, params = timms(name, 224)
    if form is by_transformers:
        arrays["head.bias"], params["embedding"]["bias"] = (np.zeros(512, np.float32) for _ in range(2))
    save(path, form(arrays))
    images = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    normal = jnp.asarray((images - pixels[0]) / pixels[1], "f4")

    def features(name):
        return build(name, (224, 224, 3), 1).apply_test(params, {}, normal)["features"]

    alike(frozen(path, IMAGENET)(images), features(name))
    if name == "clip-b32":  # the names do not say which GELU
        told = frozen(path, IMAGENET, "clip-b32-quick")(images)
        alike(told, features("clip-b32-quick"))
        assert np.abs(told - features(name)).max() > 1e-3


@pytest.mark.parametrize("name", ["dinov2-s14", "dinov2-s14-reg", "clip-b32"])
def test_only_a_whole_transformer_is_taken(name, tmp_path, monkeypatch):
    monkeypatch.setattr(vit, "_DEPTH", 1)
    path, (arrays, _) = tmp_path / "w.safetensors", timms(name, 224)
    own = "norm_pre.bias" if name == "clip-b32" else "blocks.0.ls2.gamma"
    form = jax.eval_shape(build(name, (224, 224, 3), 5).init, jax.random.key(0))
    registers = ({"reg_token": np.zeros((1, 4, 384), np.float32)}, f"reg_token is no weight of a {name}")
    if name == "dinov2-s14-reg":
        registers = ({"reg_token": None}, "reg_token is missing: take dinov2-s14$")
    elif name == "dinov2-s14":
        registers = (registers[0], registers[1] + ": take dinov2-s14-reg$")
    for change, message in (
        ({own: None}, f"{own} is missing"),
        ({own: np.zeros(3, np.float32)}, rf"{own} has the shape \[3\]"),
        registers,
        ({"blocks.1.norm1.bias": np.zeros(384, np.float32)}, f"blocks.1.norm1.bias is no weight of a {name}"),
    ):
        save(path, {key: array for key, array in {**arrays, **change}.items() if array is not None})
        with pytest.raises(ArgumentError, match=message):
            load_weights(name, *form, path)
    save(path, {**arrays, "mask_token": np.zeros((1, 384), np.float32)})  # as its authors leave it
    assert len(load_weights(name, *form, path).notes) == 1
    with pytest.raises(ArgumentError, match="give the weights of a whole vit-b16"):
        load_weights("vit-b16", *jax.eval_shape(build("vit-b16", (224, 224, 3), 5).init, jax.random.key(0)), path)


def test_a_quick_tower_is_not_taken_for_another(tmp_path, monkeypatch):
    monkeypatch.setattr(vit, "_DEPTH", 1)
    path = tmp_path / "vit_base_patch32_clip_quickgelu_224.openai.safetensors"
    save(path, timms("clip-b32", 64)[0])
    form = jax.eval_shape(build("clip-b32", (64, 64, 3), 5).init, jax.random.key(0))
    load_weights("clip-b32-quick", *form, path)
    with pytest.raises(ArgumentError, match="is of quick GELU: take clip-b32-quick"):
        load_weights("clip-b32", *form, path)


def cubic(old, new):
    """The matrix that resamples a row bicubically with antialiasing, in loops."""
    matrix, wide = np.zeros((new, old)), max(old / new, 1)
    for i in range(new):
        for j in range(old):
            t = abs(j + 0.5 - (i + 0.5) * old / new) / wide
            matrix[i, j] = (
                1.5 * t**3 - 2.5 * t**2 + 1 if t < 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0
            )
    return matrix / matrix.sum(axis=1, keepdims=True)


OTHERS = ((56, 42), (56, 126), (154, 154))  # the second has as many patches as the file


@pytest.mark.parametrize(("name", "first"), [("dinov2-s14", 1), ("dinov2-s14-reg", 0)])
def test_positions_for_another_size_are_resampled(name, first, tmp_path, monkeypatch):
    monkeypatch.setattr(vit, "_DEPTH", 1)
    path, (arrays, _) = tmp_path / "w.safetensors", timms(name, 84)
    save(path, arrays)
    for height, width in OTHERS:
        shape, grid = (height, width, 3), (height // 14, width // 14)
        form = jax.eval_shape(build(name, shape, 5).init, jax.random.key(0))
        loaded = load_weights(name, *form, path, shape)
        assert loaded.notes[0] == f"positions are resampled from 6 x 6 patches to {grid[0]} x {grid[1]}"
        stored = arrays["pos_embed"][0, first:].reshape(6, 6, -1)
        wanted = np.einsum("ai,bj,ijf->abf", *(cubic(6, new) for new in grid), stored)
        ours = loaded.params["positions"][0]
        np.testing.assert_array_equal(ours[:first], arrays["pos_embed"][0, :first])
        np.testing.assert_allclose(ours[first:].reshape(*grid, -1), wanted, atol=1e-6)
    form = jax.eval_shape(build(name, (56, 56, 3), 5).init, jax.random.key(0))
    with pytest.raises(ArgumentError, match=rf"pos_embed has the shape \[1, {36 + first}, 384\]"):
        load_weights(name, *form, path)


@pytest.mark.parametrize(("name", "first"), [("dinov2-s14", 1), ("dinov2-s14-reg", 0)])
def test_positions_are_resampled_as_timm_does(name, first, tmp_path, monkeypatch):
    torch, timm = (pytest.importorskip(library) for library in ("torch", "timm"))
    monkeypatch.setattr(vit, "_DEPTH", 1)
    path, (arrays, _) = tmp_path / "w.safetensors", timms(name, 84)
    save(path, arrays)
    for height, width in OTHERS:
        form = jax.eval_shape(build(name, (height, width, 3), 5).init, jax.random.key(0))
        ours = load_weights(name, *form, path, (height, width, 3)).params["positions"]
        stored = torch.tensor(arrays["pos_embed"])
        theirs = timm.layers.resample_abs_pos_embed(
            stored, [height // 14, width // 14], num_prefix_tokens=first
        ).numpy()
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_its_authors_names_of_registers_become_what_timm_makes_of_them(monkeypatch):
    torch, theirs = pytest.importorskip("torch"), pytest.importorskip("timm.models.vision_transformer")
    monkeypatch.setattr(vit, "_DEPTH", 1)
    arrays = by_its_authors(timms("dinov2-s14-reg", 28)[0])
    module = SimpleNamespace(no_embed_class=True, pos_embed=torch.zeros(1, 4, 384))
    module.patch_embed = SimpleNamespace(grid_size=(2, 2), proj=SimpleNamespace(weight=torch.zeros(384, 3, 14, 14)))
    wanted = theirs.checkpoint_filter_fn({name: torch.tensor(array) for name, array in arrays.items()}, module)
    ours = {name: array for name, array in in_timms_names(arrays).items() if name != "mask_token"}
    assert ours.keys() == wanted.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, wanted[name].numpy())


def test_features_are_those_of_transformers(tmp_path):
    torch, transformers = (pytest.importorskip(library) for library in ("torch", "transformers"))
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=768, intermediate_size=3072, num_attention_heads=12, image_size=64, projection_dim=512
    )
    module = transformers.CLIPVisionModelWithProjection(config).eval()
    path = tmp_path / "model.safetensors"
    save(path, {key: value.numpy() for key, value in module.state_dict().items()})
    model = build("clip-b32-quick", (64, 64, 3), 5)
    loaded = load_weights("clip-b32-quick", *model.init(jax.random.key(0)), path)
    x = np.random.default_rng(1).normal(size=(4, 64, 64, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = module(torch.tensor(x).permute(0, 3, 1, 2)).image_embeds.numpy()
    ours = model.apply_test(*loaded[:2], jnp.asarray(x))["features"]
    alike(ours, theirs)


@pytest.fixture(autouse=True)
def as_users_have_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
