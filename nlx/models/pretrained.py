"""Networks with weights that were trained elsewhere: files with torchvision's or timm's names, or runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from nlx.arguments import ArgumentError
from nlx.models.model import Params, Stats, build
from nlx.models.own import Loaded, file_of, load_own, of_a_run
from nlx.models.vgg import VGG_GROUPS
from nlx.models.vit import SIZES

_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I64": np.int64}
_DEPTHS = {(False, 8): 18, (False, 16): 34, (True, 16): 50, (True, 33): 101}  # by bottlenecks and number of blocks
_LEAF = {"kernel": "weight", "bias": "bias", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_COUNTERS = "num_batches_tracked"
_SIDE = 224

_Path = tuple[str, ...]


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, by name.

    Raises:
      ArgumentError: it is none, or its arrays are of a type other than floats and int64.
      OSError: it cannot be read.
    """
    content = path.read_bytes()
    try:
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        arrays = {}
        for name, about in header.items():
            if name != "__metadata__":
                begin, end = about["data_offsets"]
                part = content[8 + size + begin : 8 + size + end]
                arrays[name] = np.frombuffer(part, _DTYPES[about["dtype"]]).reshape(about["shape"])
        return arrays
    except Exception as error:  # a broken or foreign file can raise anything
        raise ArgumentError(f"{path} is no safetensors file of floats: save the weights anew") from error


def load_weights(name: str, params: Params, stats: Stats, path: Path) -> Loaded:
    """The weights of a file in the place of a model's own.

    Args:
      name: of the model, one of :data:`nlx.models.NAMES`.
      params: its parameters, or those of a :func:`nlx.models.pair`; the last layer stays as it is where the file has
        none or one of another size.
      stats: its statistics.
      path: safetensors with the names of torchvision (ResNets, AlexNet, VGG-16, ViT) or timm (ResNets, PreAct-ResNets,
        which it calls resnetv2, ViT); or a run's folder, or its model.safetensors, of any model.

    Returns:
      The same trees with the file's values, float32 NumPy arrays where they were replaced.

    Raises:
      ArgumentError: it is no such file, or a name is missing, unknown or of another shape, in a sentence that names it.
      OSError: it cannot be read.
    """
    if of_a_run(path):
        return load_own(name, params, stats, read_safetensors(path := file_of(path)), path)
    if params and "head" not in params:
        parts = {key: load_weights(name, params[key], stats[key], path) for key in params}
        params, stats = ({key: part[i] for key, part in parts.items()} for i in (0, 1))
        return Loaded(params, stats, next(iter(parts.values())).notes)
    arrays = read_safetensors(path)
    naming = _naming(name, arrays)
    if naming is None:
        raise ArgumentError(f"{name} takes no weights from files; leave out `init`, or take a ResNet, say")
    used, notes, at_head = set(), [], False

    def taken(place: Any, ours: Any) -> Any:
        nonlocal at_head
        keys = tuple(part.key for part in place)
        theirs = naming(keys)
        used.add(theirs)
        array = arrays.get(theirs)
        if array is not None and array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)[(0, 0) if len(ours.shape) == 2 else ...]
        elif array is not None and array.ndim == 2:
            array = array.T
        if array is not None and array.shape == ours.shape:
            return np.ascontiguousarray(array, np.float32)
        if keys[0] == "head":
            at_head = True
            return ours
        found = "is missing" if array is None else f"has the shape {list(arrays[theirs].shape)}"
        raise ArgumentError(f"{path}: {theirs} {found}: give the weights of a whole {name} for such images")

    params, stats = (jax.tree.map_with_path(taken, tree) for tree in (params, stats))
    unknown = [key for key in arrays if key not in used and not key.endswith(_COUNTERS)]
    if unknown:
        raise ArgumentError(f"{path}: {unknown[0]} is no weight of a {name}: give torchvision's or timm's names")
    if at_head:
        notes.append(f"the last layer is drawn anew, for {path.name} has none of this size")
    return Loaded(params, stats, tuple(notes))


def frozen(path: Path, mean: np.ndarray, scale: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The frozen backbone of a file of weights, whose names say what it is.

    Args:
      path: as for :func:`load_weights`; the last layer is not used.
      mean: of the pixels that it was trained on, float32 ``[3]``.
      scale: their standard deviation, likewise.

    Returns:
      Function from images, uint8 ``[B, H, W, 3]``, for a ViT of 224 pixels, to features, float32 ``[B, F]``; a ResNet
      of 18 or 34 layers gives 512, one of more 2048.

    Raises:
      ArgumentError: the file is no such network, in one sentence that names a weight.
    """
    arrays = read_safetensors(path)
    name = _name_of(arrays)
    if name is None:
        raise ArgumentError(f"{path} holds no network that is known by torchvision's or timm's names, such as a ResNet")
    model = build(name, (_SIDE, _SIDE, 3), 1)
    params, stats = jax.eval_shape(model.init, jax.random.key(0))
    loaded = load_weights(name, params, stats, path)
    params = {**loaded.params, "head": jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), loaded.params["head"])}
    mean, scale = (v.reshape(1, 1, 1, 3) for v in (mean, scale))

    @jax.jit
    def features(params: Params, stats: Stats, images: jax.Array) -> jax.Array:
        pixels = (images.astype(jnp.float32) - mean) / scale
        return model.apply_test(params, stats, pixels)["features"]

    weights = jax.device_put((params, loaded.stats))
    return lambda images: np.asarray(features(*weights, jnp.asarray(images)))


def _name_of(arrays: Mapping[str, np.ndarray]) -> str | None:
    """The model that such names are of."""
    if "features.0.weight" in arrays:
        return "alexnet" if arrays["features.0.weight"].shape[-1] == 11 else "vgg16"
    token = arrays.get("cls_token", arrays.get("class_token"))
    if token is not None:
        return next((f"vit-{size}" for size, (width, _) in SIZES.items() if width == token.shape[-1]), None)
    blocks = {m.group() for name in arrays if (m := re.match(r"(layer\d|stages\.\d\.blocks)\.\d+\.", name))}
    depth = _DEPTHS.get(("layer1.0.conv3.weight" in arrays, len(blocks)))
    if depth is None:
        return None
    return f"{'preact' if 'stem.conv.weight' in arrays else 'resnet'}{depth}"


def _naming(name: str, arrays: Mapping[str, np.ndarray]) -> Callable[[_Path], str] | None:
    """The function from the place of one of our weights to their name for it."""
    if name.startswith("vit-"):
        return partial(_of_vit, _TORCHVISION_VIT if "class_token" in arrays else _TIMM_VIT)
    kinds = {"resnet": _of_resnet, "preact": _of_preact, "vgg16": _of_vgg, "alexnet": _of_alexnet}
    return next((naming for kind, naming in kinds.items() if name.startswith(kind)), None)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _of_resnet(place: _Path) -> str:
    *where, leaf = place
    names = {"stem_conv": "conv1", "stem_norm": "bn1", "head": "fc"}
    if where[0] in names:
        return f"{names[where[0]]}.{_LEAF[leaf]}"
    stage, number = _numbers(where[0])
    part = {"shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1"}.get(where[1])
    part = part or f"{'conv' if where[1].startswith('conv') else 'bn'}{_numbers(where[1])[0] + 1}"
    return f"layer{stage + 1}.{number}.{part}.{_LEAF[leaf]}"


def _of_preact(place: _Path) -> str:
    *where, leaf = place
    names = {"stem_conv": "stem.conv", "last_norm": "norm", "head": "head.fc"}
    if where[0] in names:
        return f"{names[where[0]]}.{_LEAF[leaf]}"
    stage, number = _numbers(where[0])
    kind = where[1].partition("_")[0]
    part = "downsample.conv" if kind == "shortcut" else f"{kind}{_numbers(where[1])[0] + 1}"
    return f"stages.{stage}.blocks.{number}.{part}.{_LEAF[leaf]}"


def _of_vgg(place: _Path) -> str:
    *where, leaf = place
    if where[0] == "head":
        return f"classifier.6.{_LEAF[leaf]}"
    if where[0] == "dense":
        return f"classifier.{3 * _numbers(where[1])[0]}.{_LEAF[leaf]}"
    group, number = _numbers(where[0])
    before = sum(2 * count + 1 for count, _ in VGG_GROUPS[:group])  # layers with their ReLUs, and a pooling
    return f"features.{before + 2 * number}.{_LEAF[leaf]}"


def _of_alexnet(place: _Path) -> str:
    *where, leaf = place
    if where[0] == "head":
        return f"classifier.6.{_LEAF[leaf]}"
    if where[0] == "dense":
        return f"classifier.{1 + 3 * _numbers(where[1])[0]}.{_LEAF[leaf]}"
    return f"features.{(0, 3, 6, 8, 10)[_numbers(where[0])[0]]}.{_LEAF[leaf]}"


def _of_vit(names: dict[str, str], place: _Path) -> str:
    *where, leaf = place
    if place[0] in names:
        return names[place[0]] + (f".{_LEAF[leaf]}" if where else "")
    part, layer = where[1], f"{names['block']}{_numbers(where[0])[0]}"
    if part.startswith("norm"):
        return f"{layer}.{names['norm'].format(_numbers(part)[0] + 1)}.{_LEAF[leaf]}"
    return f"{layer}.{names[part]}{_LEAF[leaf]}"


_TIMM_VIT = {
    "patch_kernel": "patch_embed.proj.weight",
    "patch_bias": "patch_embed.proj.bias",
    "class_token": "cls_token",
    "positions": "pos_embed",
    "last_norm": "norm",
    "head": "head",
    "block": "blocks.",
    "norm": "norm{}",
    "qkv": "attn.qkv.",
    "projection": "attn.proj.",
    "dense_0": "mlp.fc1.",
    "dense_1": "mlp.fc2.",
}
_TORCHVISION_VIT = {
    "patch_kernel": "conv_proj.weight",
    "patch_bias": "conv_proj.bias",
    "class_token": "class_token",
    "positions": "encoder.pos_embedding",
    "last_norm": "encoder.ln",
    "head": "heads.head",
    "block": "encoder.layers.encoder_layer_",
    "norm": "ln_{}",
    "qkv": "self_attention.in_proj_",
    "projection": "self_attention.out_proj.",
    "dense_0": "mlp.0.",
    "dense_1": "mlp.3.",
}
