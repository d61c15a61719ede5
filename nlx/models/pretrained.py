"""ResNets with weights that were trained elsewhere, from a safetensors file with torchvision's names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx

from nlx.arguments import ArgumentError
from nlx.models.resnet import ResNet

# Of the pictures that ImageNet's weights were trained on.
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I64": np.int64}
_DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
}
_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
_NOT_USED = re.compile(r"fc\.(weight|bias)|.*num_batches_tracked")


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


def resnet_features(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The frozen backbone of a ResNet of 18, 34 or 50 layers.

    Args:
      path: safetensors with torchvision's names (``layer1.0.conv1.weight`` and so on); its last layer is not used.

    Returns:
      Function from images, uint8 ``[B, H, W, 3]``, to features, float32 ``[B, F]``: 512, of 50 layers 2048.

    Raises:
      ArgumentError: the file is no such network, in one sentence that names a weight.

    References:
      He et al., 2016, Deep residual learning for image recognition.
    """
    arrays = read_safetensors(path)
    blocks = {tuple(map(int, m.groups())) for name in arrays if (m := re.match(r"layer(\d)\.(\d+)\.", name))}
    stages = tuple(sum(stage == i for stage, _ in blocks) for i in (1, 2, 3, 4))
    bottleneck = "layer1.0.conv3.weight" in arrays
    if (bottleneck, stages) not in _DEPTHS:
        raise ArgumentError(f"{path} holds no ResNet of 18, 34 or 50 layers by torchvision's names")
    model = ResNet(_DEPTHS[bottleneck, stages], 3, 1, rngs=nnx.Rngs(0))
    model.eval()
    _fill(model, path, arrays)
    graph, state = nnx.split(model)

    @jax.jit
    def features(state: nnx.State, images: jax.Array) -> jax.Array:
        pixels = (images.astype(jnp.float32) / 255 - jnp.array(_MEAN)[None, None, None]) / jnp.array(_SPREAD)[
            None, None, None
        ]
        return nnx.merge(graph, state)(pixels)["features"]

    return lambda images: np.asarray(features(state, jnp.asarray(images)))


def _fill(model: ResNet, path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Put arrays into a model, every one and all of its own."""
    used = set()
    for prefix, module in _modules(model):
        names = {"weight": "kernel"} if hasattr(module, "kernel") else _NORM
        for theirs, ours in names.items():
            name, variable = f"{prefix}.{theirs}", getattr(module, ours)
            array = arrays.get(name)
            array = array.transpose(2, 3, 1, 0) if array is not None and array.ndim == 4 else array
            if array is None or array.shape != variable.shape:
                found = "is missing" if array is None else f"has the shape {list(arrays[name].shape)}"
                raise ArgumentError(f"{path}: {name} {found}: give the weights of a whole ResNet")
            variable[...] = jnp.asarray(array, jnp.float32)
            used.add(name)
    unknown = [name for name in arrays if name not in used and not _NOT_USED.fullmatch(name)]
    if unknown:
        raise ArgumentError(f"{path}: {unknown[0]} is of no ResNet that is known: give torchvision's names")


def _modules(model: ResNet) -> list[tuple[str, nnx.Module]]:
    """Convolutions and normalizations by torchvision's names."""
    found: list[tuple[str, nnx.Module]] = [("conv1", model.stem_conv), ("bn1", model.stem_norm)]
    for name in model.blocks:
        _, stage, _, number = name.split("_")
        block, prefix = getattr(model, name), f"layer{int(stage) + 1}.{number}"
        for i in range(block.num_layers):
            found += [(f"{prefix}.conv{i + 1}", getattr(block, f"conv_{i}"))]
            found += [(f"{prefix}.bn{i + 1}", getattr(block, f"norm_{i}"))]
        if block.project:
            found += [(f"{prefix}.downsample.0", block.shortcut_conv), (f"{prefix}.downsample.1", block.shortcut_norm)]
    return found
