"""``nlx.clean``: inputs and labels in, a table of cleaned labels out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import ArrayLike

from nlx import losses, transitions
from nlx.arguments import ArgumentError
from nlx.cleaning.folds import out_of_fold
from nlx.cleaning.table import LabelTable, label_table
from nlx.data.dataset import Split
from nlx.methods.method import Method, chosen_candidate
from nlx.methods.plain import cross_entropy, plain
from nlx.models import build
from nlx.training.mesh import make_mesh
from nlx.training.stages import Stage, cosine
from nlx.training.state import TrainState
from nlx.training.trainer import Trainer

# Of a linear softmax on features of norm 16, about; found on held-out noisy labels of CIFAR-10N.
_RATE, _DECAY, _Q, _NORM = 0.5, 3e-3, 0.7, 16.0
_BATCH, _EPOCHS, _STEPS = 256, 8, 400
_MOST_VALUES = 2**14  # of an input that a linear model can look at


def clean(
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    method: Method | None = None,
    class_names: Sequence[str] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> LabelTable:
    """Find wrong labels and propose right ones.

    By default a linear softmax with generalized cross-entropy is trained in folds, all in one program, so that every
    example is judged by a model that has not seen its label; the transition matrix comes from the confident joint, and
    the posterior from Bayes' rule. (Several labels per example: linear sigmoids out of fold.) Heuristics and settings
    may change between versions.

    Args:
      inputs: features, any float ``[n, F]``, such as embeddings; or small images, uint8 ``[n, H, W]`` or
        ``[n, H, W, C]``. Each dimension is standardized.
      labels: as they are: class numbers or strings ``[n]``, or a {0, 1} matrix ``[n, K]``.
      method: a system of ``nlx.methods`` to train instead, on all examples, behind a small network; the posterior is
        then the method's own.
      class_names: K names; for class numbers. By default the numbers, or the strings themselves, in order.
      folds: number of models.
      seed: decides folds and everything else that is random.

    Returns:
      The table: cleaned labels with probabilities, a score for each given label, and ranks, most suspicious first.

    Raises:
      ArgumentError, DataError: one sentence that says what to change.

    Examples:
      >>> from sklearn.datasets import load_iris
      >>> x, y = load_iris(return_X_y=True)
      >>> y[:3] = 2  # three wrong labels
      >>> table = clean(x, y)
      >>> sorted(table.most_suspicious(3).tolist())
      [0, 1, 2]

    References:
      Zhang and Sabuncu, 2018 (the loss); Northcutt et al., 2021 (the confident joint).
    """
    features = features_of(inputs)
    noisy, names = classes_of(labels, class_names)
    if len(noisy) != len(features):
        raise ArgumentError(f"`inputs` and `labels` must be of the same examples, got {len(features)} and {len(noisy)}")
    if not 2 <= folds <= len(noisy):
        raise ArgumentError(f"`folds` must lie between 2 and the {len(noisy)} examples, got {folds}")
    return train(Split(standard_form(features).apply(features), noisy, None), names, method, folds, seed).table


class Standard(NamedTuple):
    """How features get mean 0, spread 1 per dimension and one norm: ``(x - mean) * scale``, ``[F]`` each."""

    mean: np.ndarray
    scale: np.ndarray

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Prepared features, float32 ``[n, F]``."""
        return ((features - self.mean) * self.scale).astype(np.float32)


def standard_form(features: np.ndarray) -> Standard:
    """The preparation that suits features, float ``[n, F]``."""
    spread = features.std(axis=0)
    return Standard(features.mean(axis=0), _NORM / np.sqrt(features.shape[1]) / np.where(spread > 1e-12, spread, 1.0))


class Trained(NamedTuple):
    """What cleaning has trained: networks, whose mean predicts, and the table.

    Attributes:
      trainer: of the networks.
      states: of each.
      table: cleaned labels.
    """

    trainer: Trainer
    states: list[TrainState]
    table: LabelTable


def train(split: Split, names: tuple[str, ...], method: Method | None, folds: int, seed: int) -> Trained:
    """Train on prepared features and clean their labels, see :func:`clean`."""
    key, n, noisy = jax.random.key(seed), len(split), split.observed
    trainer, stage = trainer_for(split, method, n if method else n - n // folds, len(names))
    if method is not None:
        state = trainer.fit(split, key, stage).state
        posterior = trainer.posterior(state, split)
        chosen = chosen_candidate(posterior)
        probs = np.asarray(posterior.candidates[chosen].probs)
        table = label_table(probs, noisy, class_names=names, chosen=chosen, method=method.name)
        return Trained(trainer, [state], table)
    held_out = out_of_fold(trainer, split, key, folds=folds, stages=stage)
    states = [held_out.fitted.member(i).state for i in range(folds)]
    probs, chosen = held_out.probs, "out_of_fold"
    if noisy.ndim == 1:
        matrix = transitions.from_confident_joint(transitions.confident_joint(probs, noisy), noisy)
        probs, chosen = np.asarray(transitions.posterior(jnp.log(jnp.maximum(probs, 1e-12)), noisy, matrix)), "bayes"
    extras = {"out_of_fold": held_out.probs}
    return Trained(
        trainer, states, label_table(probs, noisy, extras=extras, class_names=names, chosen=chosen, method="linear")
    )


def trainer_for(split: Split, method: Method | None, size: int, num_classes: int) -> tuple[Trainer, Stage]:
    """A trainer of prepared features, linear or with a small network for a method, and how long to train ``size``."""
    width = split.inputs.shape[1]
    mesh = make_mesh(jax.local_devices()[:1])
    if method is not None:
        batch = min(128, max(1, size // 4))
        network = build("mlp", (width,), num_classes, widths=(128,))
        epochs = max(20, -(-_STEPS // (size // batch)))
        return Trainer(network, method, optax.sgd(0.05, momentum=0.9), batch_size=batch, mesh=mesh), Stage(
            epochs, schedule=cosine
        )
    batch = min(_BATCH, max(1, size // 4))
    loss = partial(losses.generalized_cross_entropy, q=_Q) if split.observed.ndim == 1 else cross_entropy
    linear = partial(nnx.Linear, width, num_classes, kernel_init=nnx.initializers.zeros)
    optimizer = optax.chain(optax.add_decayed_weights(_DECAY), optax.sgd(_RATE, momentum=0.9, nesterov=True))
    trainer = Trainer(lambda rngs: linear(rngs=rngs), plain(loss, "linear"), optimizer, batch_size=batch, mesh=mesh)
    return trainer, Stage(max(_EPOCHS, -(-_STEPS // (size // batch))), schedule=cosine)


def features_of(inputs: ArrayLike) -> np.ndarray:
    """Inputs as vectors, float64 ``[n, F]``.

    Raises:
      ArgumentError: a form that is not known, or values that are not finite.
    """
    x = np.asarray(inputs)
    images = x.dtype == np.uint8 and x.ndim in (3, 4)
    if not images and (x.dtype.kind not in "fiu" or x.ndim != 2):
        raise ArgumentError(
            f"`inputs` must be features, float [n, F], or images, uint8 [n, H, W, C], got {x.dtype} {list(x.shape)}"
        )
    if x.size == 0:
        raise ArgumentError("`inputs` are empty: give at least two examples")
    flat = x.reshape(len(x), -1).astype(np.float64)
    if images and flat.shape[1] > _MOST_VALUES:
        raise ArgumentError(
            f"`inputs` are images of {flat.shape[1]} values, too many for a linear model: give embeddings of them"
        )
    if not np.isfinite(flat).all():
        row, column = np.argwhere(~np.isfinite(flat))[0]
        raise ArgumentError(f"`inputs`[{row}, {column}] is {flat[row, column]}: repair or remove that example")
    return flat


def classes_of(labels: ArrayLike, class_names: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as int32 ``[n]`` or {0, 1} uint8 ``[n, K]``, and the names of the classes.

    Raises:
      ArgumentError: labels of a form that is not known, fewer than two classes, or names that do not fit.
    """
    y = np.asarray(labels)
    if y.ndim not in (1, 2) or len(y) == 0:
        raise ArgumentError(f"`labels` must be classes [n] or a {{0, 1}} matrix [n, K], got shape {list(y.shape)}")
    if y.ndim == 2:
        if not np.isin(y, (0, 1)).all():
            raise ArgumentError("`labels` [n, K] must hold only 0 and 1; give class numbers or strings as [n]")
        names = tuple(class_names) if class_names is not None else tuple(map(str, range(y.shape[1])))
        noisy, k = y.astype(np.uint8), y.shape[1]
    else:
        if y.dtype.kind == "f" and not np.isfinite(y).all():
            raise ArgumentError("`labels` have missing values: remove these examples")
        values, codes = np.unique(y, return_inverse=True)
        whole = y.dtype.kind in "iu" and values[0] >= 0
        if class_names is not None and not (whole and values[-1] < len(class_names)):
            raise ArgumentError(f"`class_names` name classes 0 to {len(class_names) - 1}, which `labels` are not")
        names = tuple(map(str, values)) if class_names is None else tuple(class_names)
        noisy, k = (codes if class_names is None else y).astype(np.int32), len(names)
    if len(names) != k or k < 2:
        raise ArgumentError(f"there must be at least two classes, each with a name, got {k} and {len(names)} names")
    return noisy, names
