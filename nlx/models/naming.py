"""What torchvision, timm and transformers call the weights that are ours by another name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np

from nlx.models.vgg import VGG_GROUPS
from nlx.models.vit import KINDS

_DEPTHS = {(False, 8): 18, (False, 16): 34, (True, 16): 50, (True, 33): 101}  # by bottlenecks and number of blocks
_LEAF = {"kernel": "weight", "bias": "bias", "scale": "weight", "mean": "running_mean", "var": "running_var"}

_Path = tuple[str, ...]


def name_of(arrays: Mapping[str, np.ndarray]) -> str | None:
    """The model that arrays of such names and shapes are of; of GELU, where it may be a quick one."""
    if "features.0.weight" in arrays:
        return "alexnet" if arrays["features.0.weight"].shape[-1] == 11 else "vgg16"
    patch = arrays.get("patch_embed.proj.weight", arrays.get("conv_proj.weight"))
    if patch is not None:
        has = tuple(name in arrays for name in ("blocks.0.ls1.gamma", "norm_pre.weight", "reg_token"))
        form = (patch.shape[0], patch.shape[-1], *has)
        kinds = ((name, (k.width, k.patch, k.scaled, k.first_norm, k.registers > 0)) for name, k in KINDS.items())
        return next((name for name, kind in kinds if kind == form), None)
    blocks = {m.group() for name in arrays if (m := re.match(r"(layer\d|stages\.\d\.blocks)\.\d+\.", name))}
    depth = _DEPTHS.get(("layer1.0.conv3.weight" in arrays, len(blocks)))
    if depth is None:
        return None
    return f"{'preact' if 'stem.conv.weight' in arrays else 'resnet'}{depth}"


def naming(name: str, arrays: Mapping[str, np.ndarray]) -> Callable[[_Path], str] | None:
    """The function from the place of one of our weights to their name for it; None where a model has no peer.

    Args:
      name: of our model.
      arrays: of the file, by names that tell torchvision's from timm's.
    """
    if name in KINDS:
        if KINDS[name].embedding:
            return partial(_of_vit, _TIMM_CLIP)
        return partial(_of_vit, _TORCHVISION_VIT if "class_token" in arrays else _TIMM_VIT)
    kinds = {"resnet": _of_resnet, "preact": _of_preact, "vgg16": _of_vgg, "alexnet": _of_alexnet}
    return next((of for kind, of in kinds.items() if name.startswith(kind)), None)


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
    layer = f"{names['block']}{_numbers(where[0])[0]}"
    if leaf.startswith("scale_"):
        return f"{layer}.ls{_numbers(leaf)[0] + 1}.gamma"
    part = where[1]
    if part.startswith("norm"):
        return f"{layer}.{names['norm'].format(_numbers(part)[0] + 1)}.{_LEAF[leaf]}"
    return f"{layer}.{names[part]}{_LEAF[leaf]}"


_TIMM_VIT = {
    "patch_kernel": "patch_embed.proj.weight",
    "patch_bias": "patch_embed.proj.bias",
    "class_token": "cls_token",
    "positions": "pos_embed",
    "registers": "reg_token",
    "last_norm": "norm",
    "head": "head",
    "block": "blocks.",
    "norm": "norm{}",
    "qkv": "attn.qkv.",
    "projection": "attn.proj.",
    "dense_0": "mlp.fc1.",
    "dense_1": "mlp.fc2.",
}
# What timm calls the head of CLIP's tower is the embedding; a last layer behind that it has none.
_TIMM_CLIP = {**_TIMM_VIT, "first_norm": "norm_pre", "embedding": "head", "head": "(none)"}
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

_TRANSFORMERS_CLIP = (
    ("visual_projection.", "head."),
    ("vision_model.embeddings.class_embedding", "cls_token"),
    ("vision_model.embeddings.position_embedding.weight", "pos_embed"),
    ("vision_model.embeddings.patch_embedding.", "patch_embed.proj."),
    ("vision_model.pre_layrnorm.", "norm_pre."),
    ("vision_model.post_layernorm.", "norm."),
    ("vision_model.encoder.layers.", "blocks."),
    (".layer_norm", ".norm"),
    (".self_attn.out_proj.", ".attn.proj."),
)
_NO_IMAGES = ("text_model.", "text_projection.", "logit_scale", "vision_model.embeddings.position_ids")


def of_transformers(names: Iterable[str]) -> bool:
    """Whether names are those that transformers has for CLIP, as a whole or its image tower alone."""
    return any(name.startswith("vision_model.") for name in names)


def in_timms_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """CLIP's image tower by timm's names, from transformers' ones, and DINOv2 with registers from its authors'.

    The text's tower is left out, other files stay.
    """
    if "register_tokens" in arrays:
        return _of_dinov2(arrays)
    if not of_transformers(arrays):
        return dict(arrays)
    named = {}
    for name, array in arrays.items():
        if not name.startswith(_NO_IMAGES):
            for theirs, timms in _TRANSFORMERS_CLIP:
                name = name.replace(theirs, timms)
            named[name] = array
    for query in [name for name in named if ".self_attn.q_proj." in name]:
        parts = [query.replace("q_proj", f"{part}_proj") for part in "qkv"]
        if all(part in named for part in parts):
            joined = np.concatenate([named.pop(part) for part in parts])
            named[query.replace("self_attn.q_proj", "attn.qkv")] = joined
    for name, axes in (("cls_token", (0, 1)), ("pos_embed", 0)):
        if name in named:
            named[name] = np.expand_dims(named[name], axes)
    if (embedding := named.get("head.weight")) is not None:
        named["head.bias"] = np.zeros(len(embedding), np.float32)
    return named


def _of_dinov2(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What timm makes of its authors' weights with registers: the class token has its position added, once and for all.

    Source: Oquab et al., 2023, and Darcet et al., 2024, whose module adds positions before it puts registers between.
    """
    named = dict(arrays)
    named["reg_token"] = named.pop("register_tokens")
    positions = named.get("pos_embed")
    if positions is not None and "cls_token" in named:
        named["cls_token"], named["pos_embed"] = named["cls_token"] + positions[:, :1], positions[:, 1:]
    return named
