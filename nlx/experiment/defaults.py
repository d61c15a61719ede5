"""How to train where the options do not say: one row for each kind of data, and what is built from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from nlx import target
from nlx.arguments import ArgumentError
from nlx.data import Dataset, ImageFiles
from nlx.data.prepare import IMAGENET, Augmentation, normalization, preparer, several, six_views
from nlx.experiment.options import Dtype, Optimizer, RecipeOptions, Schedule, refuse_idle
from nlx.models import Model, build, prepared
from nlx.models.mixing import mixing
from nlx.models.pixels import Pixels, pixels_of
from nlx.training import stages
from nlx.training.averaging import averaged


@dataclass(frozen=True)
class Training:
    """The options of a training whose defaults depend on the kind of data.

    Attributes:
      model: name of the backbone.
      epochs: passes over the training set.
      batch_size: examples per step, over all devices.
      learning_rate: the first one.
      augmentation: random changes of training images.
      schedule: course of the learning rate over a stage.
      dropout: rate.
      weight_decay: L2 penalty on all weights.
      dtype: of the backbone's computation.
      optimizer: name of the backbone's.
    """

    model: str
    epochs: int
    batch_size: int
    learning_rate: float
    augmentation: Augmentation = "none"
    schedule: Schedule = "step"
    dropout: float = 0.0
    weight_decay: float = 0.0
    dtype: Dtype = "float32"
    optimizer: Optimizer = "sgd"


DEFAULTS = {
    "samples": Training("convnet", 30, 128, 0.05, "crop", "constant"),  # web/sample and tags/sample, 32 pixels
    "digits": Training("mlp", 90, 50, 0.01),  # 8 x 8 pixels
    "mnist": Training("mlp", 30, 128, 0.05),  # 28 x 28 pixels, one channel
    "features": Training("mlp", 30, 128, 0.05, schedule="cosine", dropout=0.5, weight_decay=5e-4),
    "small images": Training("resnet18", 90, 128, 0.01, "crop-flip"),  # up to 64 pixels
    "large images": Training("resnet34", 90, 50, 0.01, "crop-flip"),  # the paper's
}

_FEWEST_BATCHES, _MOST_EPOCHS = 8, 100  # of an epoch and of a training on a small set
_FEWEST_STEPS, _STEPS_PER_CLASS = 300, 30
_ADAM = 0.001  # its learning rate, whatever the data
_LARS = 10  # its learning rate by SGD's, as its steps are a thousandth of the weights


def kind_of(data: Dataset) -> str:
    """The row of :data:`DEFAULTS` for a data set."""
    shape = data.input_shape
    if data.name.startswith(("web/sample", "tags/sample")):
        return "samples"
    if len(shape) == 1:
        return "features"
    if data.name.startswith("digits/") and shape == (8, 8, 1):
        return "digits"
    if shape == (28, 28, 1):
        return "mnist"
    return "small images" if shape[0] <= 64 else "large images"


def training_for(options: RecipeOptions, data: Dataset) -> Training:
    """How to train: what the options say, and the defaults for this kind of data where they do not.

    Of a small set a default batch takes an eighth, in equal parts on all devices, and the passes over it become more.
    It is no more than all trusted examples, which may have a stage of their own.

    Raises:
      ArgumentError: there are fewer examples than a batch takes, or an option that does nothing for such data.
    """
    if len(data.input_shape) == 1:
        refuse_idle(options, "for features", "six_crops", *(["augmentation"] if options.augmentation != "none" else []))
    if isinstance(data.train.inputs, ImageFiles):
        refuse_idle(options, "for pictures that stay on disk", "spread_data")
    if data.num_classes % options.model_devices:
        raise ArgumentError(
            f"`model_devices`={options.model_devices} does not divide the {data.num_classes} classes of {data.name}, "
            "over which the last layer would be split; take a divisor"
        )
    given = {field.name: getattr(options, field.name) for field in fields(Training)}
    size, default = len(data.train), DEFAULTS[kind_of(data)]
    if data.multi_label:
        default = replace(default, **options.several_labels)
    if not size:
        raise ArgumentError(
            f"`validation_fraction`={options.validation_fraction} leaves no example to train on; lower it"
        )
    batch = given["batch_size"]
    if batch is None:
        devices = max(len(target.devices()), options.shuffle_groups)
        trusted = round(size * (data.train.trusted_share or 0))
        parts = math.ceil(min(default.batch_size, size / _FEWEST_BATCHES) / devices)
        batch = devices * max(1, min(parts, trusted // devices or parts))
    if batch > size:
        raise ArgumentError(f"`batch_size`={batch} is more than the {size} training examples; take a smaller one")
    steps = max(_FEWEST_STEPS, _STEPS_PER_CLASS * data.num_classes)
    epochs = max(default.epochs, min(_MOST_EPOCHS, math.ceil(steps * batch / size)))
    rate = default.learning_rate if data.multi_label else min(default.learning_rate, options.single_label_rate)
    optimizer = options.optimizer or default.optimizer
    rate = rate * _LARS if optimizer == "lars" else min(rate, _ADAM) if optimizer.startswith("adam") else rate
    dtype: Dtype = "float32" if target.platform() == "cpu" else "bfloat16"
    default = replace(default, batch_size=batch, epochs=epochs, learning_rate=rate, dtype=dtype)
    training = replace(default, **{name: value for name, value in given.items() if value is not None})
    if options.ghost_batch is not None and training.batch_size % options.ghost_batch:
        raise ArgumentError(
            f"`ghost_batch`={options.ghost_batch} does not divide `batch_size`={training.batch_size}; take a divisor"
        )
    if not training.optimizer.startswith("adam"):
        refuse_idle(options, "without `optimizer`=adam or adamw", "adam_epsilon")
    if training.schedule != "step":
        refuse_idle(options, f"with `schedule`={training.schedule}", "decay_every")
    if training.model not in ("mlp", "convnet"):
        refuse_idle(options, f"with `model`={training.model}", "widths")
    return training


def build_model(
    options: RecipeOptions,
    training: Training,
    data: Dataset,
    *,
    around: Callable[[Model], Model] | None = None,
    copies: int | None = None,
) -> Model:
    """The backbone, from stored inputs to outputs: normalized, augmented, cropped where images come from files.

    Args:
      options: the recipe's.
      training: what they come to.
      data: to be trained on.
      around: what makes the model of prepared inputs from the network, such as :func:`nlx.models.pair`.
      copies: of each input while training, each augmented for itself, as an axis after the first; None for none.

    Raises:
      ArgumentError: a model or crops that do not fit the data.
    """
    size = crop_size(options, data)
    network = build(
        training.model,
        seen_shape(options, data),
        data.num_classes,
        widths=options.widths,
        dropout=training.dropout,
        remat=options.remat,
        ghost_batch=options.ghost_batch,
        dtype=jnp.dtype(training.dtype),
    )
    pixels = pixels_at_start(options)
    if pixels is not None and data.input_shape[2:] != (3,):
        raise ArgumentError(f"`init` is for pictures in colour, but {data.name} has inputs of {data.input_shape}")
    mean, scale = normalization(data.train.inputs, options.standardize == "each") if pixels is None else pixels
    views = None
    if options.six_crops:
        if size is None:
            raise ArgumentError("`six_crops` needs images stored larger than the model sees them; leave it out")
        whole, cut = preparer(mean, scale), six_views(size)
        views = lambda stored: cut(whole(stored, None))  # noqa: E731
    if options.mix != "none":
        network = mixing(network, options.mix, options.mix_alpha)
    prepare = preparer(mean, scale, augmentation=training.augmentation, size=size)
    network = network if around is None else around(network)
    return prepared(network, prepare if copies is None else several(prepare, copies), views)


def pixels_at_start(options: RecipeOptions) -> Pixels | None:
    """Mean and deviation of pixels that weights to start from expect; None where it is the data's own that count."""
    return None if options.init is None else pixels_of(Path(options.init), IMAGENET)  # text, from a notebook


def facts_at_start(options: RecipeOptions) -> dict[str, list[list[float]]]:
    """``pixels`` for config.json, see :func:`nlx.models.pixels.pixels_of`; nothing where it is the data's own."""
    pixels = pixels_at_start(options)
    return {} if pixels is None else {"pixels": [part.tolist() for part in pixels]}


def require_one_label(data: Dataset, what: str) -> None:
    """Raise an ArgumentError where examples have several labels; ``what`` begins the sentence, as in "ELR is"."""
    if data.multi_label:
        raise ArgumentError(f"{what} for one label per example, but {data.name} has several")


def require_arrays(data: Dataset, what: str) -> None:
    """Raise an ArgumentError for data that models in folds cannot judge: several labels, or not all in one memory."""
    require_one_label(data, f"{what} is")
    if isinstance(data.train.inputs, ImageFiles) or jax.process_count() > 1:
        raise ArgumentError(f"{what} needs all examples in the memory of one process: raise `in_memory_gib`")


def require_steps(options: RecipeOptions, plan: stages.Stages) -> None:
    """Raise an ArgumentError where gradients are averaged over more steps than there are, so that no weight moves."""
    steps = [0]
    for stage, some in zip(plan.all, plan.steps, strict=True):
        if stage.fresh_optimizer and steps[-1]:  # which begins to count anew
            steps.append(0)
        steps[-1] += some
    if options.accumulate > min(steps):
        raise ArgumentError(
            f"`accumulate`={options.accumulate} is more than the {min(steps)} steps of the training, in which no "
            "weight would move; take fewer"
        )


def crop_size(options: RecipeOptions, data: Dataset) -> int | None:
    """Height and width that images from folders are cut to, an eighth less than stored; None for other inputs."""
    from_folder = data.input_shape[:2] == (options.image_size,) * 2 and options.image_size > 64
    return options.image_size * 7 // 8 if from_folder else None


def seen_shape(options: RecipeOptions, data: Dataset) -> tuple[int, ...]:
    """Shape of an input as the model sees it."""
    size = crop_size(options, data)
    return data.input_shape if size is None else (size, size, data.input_shape[2])


def build_optimizer(
    options: RecipeOptions, training: Training, of_method: optax.GradientTransformation | None = None
) -> optax.GradientTransformation:
    """The optimizer of the backbone and of the method's parameters: its own, or the same at another learning rate."""

    def rule(rate: float) -> optax.GradientTransformation:
        decay = training.weight_decay
        if training.optimizer == "adamw":
            about = {"eps": options.adam_epsilon, "weight_decay": decay, "mask": _kernels}
            return optax.adamw(rate, b1=options.momentum, **about)
        if training.optimizer == "adam":
            step = optax.adam(rate, b1=options.momentum, eps=options.adam_epsilon)
        elif training.optimizer == "lars":
            about = {"momentum": options.momentum, "weight_decay": decay, "weight_decay_mask": _kernels}
            return optax.lars(rate, trust_ratio_mask=_kernels, **about)
        else:
            step = optax.sgd(rate, momentum=options.momentum or None, nesterov=training.optimizer == "nesterov")
        return optax.chain(optax.add_decayed_weights(decay), step)

    clipped = [] if options.clip is None else [optax.clip_by_global_norm(options.clip)]
    of_method = rule(training.learning_rate * options.method_rate) if of_method is None else of_method
    parts = {"model": optax.chain(*clipped, rule(training.learning_rate)), "method": of_method}
    both = optax.partition(parts, {"model": "model", "method": "method"})
    if options.accumulate > 1:
        both = optax.MultiSteps(both, options.accumulate).gradient_transformation()
    return averaged(both, options.average) if options.average else both


def _kernels(params: optax.Params) -> optax.Params:
    """Which parameters are matrices and filters, rather than biases, scales and tokens."""
    return jax.tree.map_with_path(lambda path, _: "kernel" in str(path[-1]), params)


def build_schedule(options: RecipeOptions, training: Training) -> stages.Schedule | None:
    """The course of the learning rate over a stage."""
    named = {"constant": None, "cosine": stages.cosine, "step": stages.step_decay(options.decay_every)}
    schedule = named[training.schedule]
    return stages.warmed(schedule, options.warmup) if options.warmup else schedule
