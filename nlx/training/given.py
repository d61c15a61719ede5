"""What a trainer is given: splits, or plain arrays."""

from __future__ import annotations

from typing import Any

import jax

from nlx.arguments import ArgumentError
from nlx.data.checks import split_of
from nlx.data.dataset import ImageFiles, Inputs, Split
from nlx.models import Model
from nlx.training.state import output_shapes

Data = Split | tuple[Any, Any]
"""A split, or plain arrays (inputs, noisy labels)."""


def as_split(data: Data) -> Split:
    """What a trainer is given, as a split.

    Raises:
      ArgumentError, DataError: what plain arrays hold cannot be trained on.
    """
    if isinstance(data, Split):
        return data
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ArgumentError(f"`data` must be a Split or a pair (inputs, labels), not {type(data).__name__}")
    return split_of(*data)


def trainable(data: Data, model: Model) -> Split:
    """A split whose noisy labels are classes that the model has.

    Raises:
      ArgumentError: there are none, or they are others.
    """
    split = as_split(data)
    if split.noisy_label is None:
        raise ArgumentError("there are no noisy labels to learn from")
    sample = jax.ShapeDtypeStruct((1, *split.inputs.shape[1:]), split.inputs.dtype)
    classes = output_shapes(model, sample)["logits"].shape[-1]
    if split.noisy_label.ndim == 1 and not 0 <= split.noisy_label.min() <= split.noisy_label.max() < classes:
        raise ArgumentError(f"labels must be classes from 0 to {classes - 1}, as many as the model has logits")
    return split


def inputs_only(inputs: Inputs | Split) -> Split:
    """Inputs without labels, as a split."""
    if isinstance(inputs, Split):
        return inputs
    return Split(inputs, None, None) if isinstance(inputs, ImageFiles) else split_of(inputs)
