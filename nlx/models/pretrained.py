"""Networks with weights that were trained elsewhere: files with torchvision's or timm's names, or runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nlx.arguments import ArgumentError
from nlx.models.model import NAMES, Params, Stats, build
from nlx.models.naming import in_timms_names, name_of, naming, of_transformers
from nlx.models.own import Loaded, file_of, finite, load_own, of_a_run, other_classes, places_of, told_beside
from nlx.models.pixels import Pixels, pixels_of
from nlx.models.stored import read_safetensors
from nlx.models.vit import KINDS

_NOT_OURS = ("num_batches_tracked", "mask_token")  # of batch normalization, and of DINOv2's own training
_QUICK = "quickgelu"  # in timm's names of such models
_REGISTERS = "-reg"  # in our names of ViTs with them
_SIDE = 224


def load_weights(
    name: str, params: Params, stats: Stats, path: Path, input_shape: tuple[int, ...] | None = None
) -> Loaded:
    """The weights of a file in the place of a model's own.

    Args:
      name: of the model, one of :data:`nlx.models.NAMES`.
      params: its parameters, or those of a :func:`nlx.models.pair`; the last layer stays as it is where the file has
        none or one for another number of classes.
      stats: its statistics.
      path: safetensors with the names of torchvision (ResNets, AlexNet, VGG-16, ViT), timm (ResNets, PreAct-ResNets,
        which it calls resnetv2, ViT, DINOv2, CLIP's image towers) or transformers (CLIP); ``timm:NAME``, see
        :func:`nlx.models.hub.fetched`; or a run's folder, its model.safetensors or its checkpoints, or the folder of
        another orbax checkpoint, of any model, whose tree is ours: see :func:`nlx.models.checkpoints.read_checkpoint`.
      input_shape: (H, W, C) of an image, to whose patches the positions of a ViT are resampled where the file is for
        images of another size, as timm does: bicubic, antialiased. None refuses those.

    Returns:
      The same trees with the file's values, float32 NumPy arrays where they were replaced.

    Raises:
      ArgumentError: it is no such file, or a name is missing, unknown, of another shape or not finite, in a sentence
        that names it.
      OSError: it cannot be read.
    """
    if of_a_run(path):
        return load_own(name, params, stats, path)
    if params and "head" not in params:
        parts = {key: load_weights(name, params[key], stats[key], path, input_shape) for key in params}
        params, stats = ({key: part[i] for key, part in parts.items()} for i in (0, 1))
        return Loaded(params, stats, next(iter(parts.values())).notes)
    arrays = in_timms_names(read_safetensors(file_of(path)))
    of = naming(name, arrays)
    if of is None:
        raise ArgumentError(f"{name} takes no weights from files; leave out `init`, or take a ResNet, say")
    if _QUICK in path.name and name in KINDS and not KINDS[name].quick:
        raise ArgumentError(f"{path} is of quick GELU: take {name}-quick, or the same weights by timm's other name")
    kind = name_of(arrays)
    if kind in KINDS and kind != name and kind.removesuffix(_REGISTERS) == name.removesuffix(_REGISTERS):
        found = f"is no weight of a {name}" if "reg_token" in arrays else "is missing"
        raise ArgumentError(f"{path}: reg_token {found}: take {kind}")
    used, notes, at_head = set(), [], False
    head = [arrays[n] for n in map(of, places_of(params["head"], ("head",))) if n in arrays]
    if name in KINDS and input_shape is not None and (stored := arrays.get(of(("positions",)))) is not None:
        grid = (input_shape[0] // KINDS[name].patch, input_shape[1] // KINDS[name].patch)
        patches = stored.shape[1] - KINDS[name].placed
        if (side := math.isqrt(patches)) ** 2 == patches and grid != (side, side):
            arrays[of(("positions",))] = _resampled(stored, side, grid)
            notes.append(f"positions are resampled from {side} x {side} patches to {grid[0]} x {grid[1]}")

    def taken(place: Any, ours: Any) -> Any:
        nonlocal at_head
        keys = tuple(part.key for part in place)
        theirs = of(keys)
        used.add(theirs)
        array = arrays.get(theirs)
        if array is not None and array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)[(0, 0) if len(ours.shape) == 2 else ...]
        elif array is not None and array.ndim == 2:
            array = array.T
        if array is not None and array.shape == ours.shape:
            return np.ascontiguousarray(finite(array, path, theirs), np.float32)
        if keys[0] == "head" and other_classes(array, ours.shape, {part.shape[:1] for part in head}):
            at_head = True
            return ours
        found = "is missing" if array is None else f"has the shape {list(arrays[theirs].shape)}"
        raise ArgumentError(f"{path}: {theirs} {found}: give the weights of a whole {name} for such images")

    params, stats = (jax.tree.map_with_path(taken, tree) for tree in (params, stats))
    unknown = [key for key in arrays if key not in used and not key.endswith(_NOT_OURS)]
    if unknown:
        raise ArgumentError(f"{path}: {unknown[0]} is no weight of a {name}: give torchvision's or timm's names")
    if at_head:
        notes.append(f"the last layer is drawn anew, for {path.name} has none of this size")
    return Loaded(params, stats, tuple(notes))


def _resampled(positions: np.ndarray, side: int, grid: tuple[int, int]) -> np.ndarray:
    """Positions ``[1, side^2, F]``, or with the class token's first, for another grid of patches."""
    first, others = np.split(positions.astype(np.float32), [positions.shape[1] - side**2], axis=1)
    width = positions.shape[-1]
    resized = jax.image.resize(others.reshape(1, side, side, width), (1, *grid, width), "cubic")
    return np.concatenate([first, np.asarray(resized).reshape(1, -1, width)], axis=1)


def frozen(path: Path, imagenet: Pixels, name: str | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """The frozen backbone of a file of weights, whose names say what it is.

    Args:
      path: as for :func:`load_weights`; the last layer is not used.
      imagenet: mean and standard deviation of ImageNet's pixels, see :func:`nlx.models.pixels.pixels_of`.
      name: of the model, one of :data:`nlx.models.NAMES`. By default what names and shapes in the file say: of CLIP's
        towers the one of quick GELU where transformers wrote it, or ``quickgelu`` stands in the file's own name. Of a
        run, what its config.json says; another orbax checkpoint does not say it.

    Returns:
      Function from images, uint8 ``[B, H, W, 3]``, for a ViT of 224 pixels, to features, float32 ``[B, F]``; a ResNet
      of 18 or 34 layers and CLIP give 512, a ResNet of more layers 2048.

    Raises:
      ArgumentError: the file is no such network, in one sentence that names a weight, or nothing says which it is.
    """
    if name is None and of_a_run(path):
        told = told_beside(file_of(path)).get("options")
        name = told.get("model") if isinstance(told, dict) else None
        if name not in NAMES:
            raise ArgumentError(f"{path} does not say what network it is of: name it by `model`, such as resnet18")
    if name is None:
        arrays = read_safetensors(file_of(path))
        name = name_of(in_timms_names(arrays))
        if name is not None and (of_transformers(arrays) or _QUICK in path.name):
            name += "-quick"
    if name is None:
        raise ArgumentError(f"{path} holds no network that is known by torchvision's or timm's names, such as a ResNet")
    shape = (_SIDE, _SIDE, 3)
    model = build(name, shape, 1)
    params, stats = jax.eval_shape(model.init, jax.random.key(0))
    loaded = load_weights(name, params, stats, path, shape)
    params = {**loaded.params, "head": jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), loaded.params["head"])}
    mean, scale = (v.reshape(1, 1, 1, 3) for v in pixels_of(path, imagenet) or imagenet)

    @jax.jit
    def features(params: Params, stats: Stats, images: jax.Array) -> jax.Array:
        pixels = (images.astype(jnp.float32) - mean) / scale
        return model.apply_test(params, stats, pixels)["features"]

    weights = jax.device_put((params, loaded.stats))
    return lambda images: np.asarray(features(*weights, jnp.asarray(images)))
