"""What makes one recipe different from another, and what it decides before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import numpy as np

from nlx.data import Dataset, Split, load
from nlx.experiment.export import Cleaned
from nlx.experiment.options import Config, RunConfig, fill
from nlx.methods.method import Method
from nlx.training.stages import Course, Stage


@dataclass(frozen=True)
class Recipe(Generic[Config]):
    """What makes one recipe different from another.

    Attributes:
      method: (filled-in configuration, data set, course of the run) -> the method to train.
      products: (finished run) -> paths of the pictures it adds to the run folder; None for none.
      stages: (filled-in configuration, data set) -> what is visited when; None for all examples in every epoch.
      fill: (configuration, data set) -> the configuration with the recipe's own defaults that depend on the data.
      data: (configuration, data set) -> the data set to train on; None for the one that was loaded.
      features: data set -> rows of the training set whose features ``products`` needs; None for none.
      two_vocabularies: whether noisy labels may be of another vocabulary than the classes; else they are translated.
    """

    method: Callable[[Config, Dataset, Course], Method]
    products: Callable[[Cleaned], list[Path]] | None = None
    stages: Callable[[Config, Dataset], list[Stage]] | None = None
    fill: Callable[[Config, Dataset], Config] | None = None
    data: Callable[[Config, Dataset], Dataset] | None = None
    features: Callable[[Dataset], np.ndarray] | None = None
    two_vocabularies: bool = False


@dataclass(frozen=True)
class Plan:
    """What is to be trained on what.

    Attributes:
      config: filled in.
      dataset: without what is held out.
      held_out: noisy examples to validate on, or None.
      course: what is visited when.
      method: the method, made for these data.
    """

    config: RunConfig
    dataset: Dataset
    held_out: Split | None
    course: Course
    method: Method


def make_plan(config: Config, recipe: Recipe[Config], dataset: Dataset | None = None) -> Plan:
    """Load the data, unless they are given, and make the method for them.

    Raises:
      DataError, ConfigError: something the user has to change.
    """
    config.check()
    if dataset is None:
        dataset = load(
            config.dataset,
            labels=config.labels,
            data_dir=config.data_dir,
            noise=config.noise,
            image_size=config.image_size,
            noise_seed=config.noise_seed,
            in_memory_gib=config.in_memory_gib,
        )
    if not recipe.two_vocabularies:
        dataset = dataset.in_classes()
    if config.training_fraction < 1:
        dataset = dataset.keep(config.training_fraction, config.noise_seed)
    if config.clean_fraction:
        dataset = dataset.trust(config.clean_fraction, config.noise_seed)
    if config.known_outliers:
        dataset = dataset.know_outliers(config.known_outliers, config.noise_seed)
    if recipe.data is not None:
        dataset = recipe.data(config, dataset)
    config = fill(config, dataset)
    if recipe.fill is not None:
        config = recipe.fill(config, dataset)
    held_out = None
    if config.validation_fraction:
        dataset, held_out = dataset.hold_out(config.validation_fraction, config.noise_seed)
    assert config.epochs is not None
    assert config.batch_size is not None
    if recipe.stages is None:
        course = Course.whole(len(dataset.train), config.batch_size, config.epochs)
    else:
        course = Course(recipe.stages(config, dataset), config.batch_size)
    return Plan(config, dataset, held_out, course, recipe.method(config, dataset, course))
