"""Weights to start a training from, and where they lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax

from nlx.data import Dataset
from nlx.data.dataset import Split
from nlx.experiment.defaults import seen_shape
from nlx.experiment.options import RecipeOptions, refuse_idle
from nlx.models.pretrained import load_weights
from nlx.training.placement import shardings
from nlx.training.state import TrainState, with_weights
from nlx.training.trainer import Trainer


def with_initial_weights(
    trainer: Trainer, data: Dataset, options: RecipeOptions, model: str, say: Callable[[str], object]
) -> TrainState | None:
    """The state at step 0 with the weights that the options name; None where they name none.

    Args:
      trainer: what is to train.
      data: on what.
      options: the recipe's.
      model: name of the backbone.
      say: told what of the weights is used.

    Raises:
      ArgumentError: they cannot be read, or are of another model.
    """
    if options.init is None:
        return None
    state = trainer.init(jax.random.key(options.seed), data.train)
    shape = seen_shape(options, data)
    params, stats, notes = load_weights(model, state.params["model"], state.stats, Path(options.init), shape)
    for note in notes:
        say(f"{options.init}: {note}")
    return with_weights(state, params, stats)


def refuse_idle_layout(options: RecipeOptions, trainer: Trainer, split: Split) -> None:
    """Raise an ArgumentError for an option that would split nothing."""
    if (options.shard_params or options.spread_data) and trainer.mesh.size == 1:
        refuse_idle(options, "on one device", "shard_params", "spread_data")
    if not options.shard_params:
        return
    whole = trainer.abstract_state(split)
    wanted = shardings(whole.params, trainer.mesh, shard_params=True)
    unsplit = shardings(whole.params, trainer.mesh, shard_params=False)
    if jax.tree.leaves(wanted) == jax.tree.leaves(unsplit):
        refuse_idle(options, "where no array of weights has 4 MiB and an axis that divides", "shard_params")
