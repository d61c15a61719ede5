"""Where a transition matrix comes from: the truth, trusted pairs, held-out models, a file, or a plain run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nlx import transitions
from nlx.arguments import ArgumentError
from nlx.cleaning.held_out import held_out_transition, judged_as_they_are
from nlx.cleaning.label_files import read_labels
from nlx.cleaning.table import LabelTable
from nlx.data import Dataset, Split
from nlx.methods.top import Top
from nlx.training.evaluation import true_transition


def read_transition(source: str | None, data: Dataset) -> np.ndarray:
    """A transition matrix by where it is to come from.

    Args:
      source: ``true`` (from all true training labels, an oracle), ``trusted`` (from the trusted ones), ``held_out``
        (estimated with linear models of the inputs that have not seen an example's label), ``anchors:LABELS`` or
        ``confident:LABELS`` (estimated from the predictions of a plain run on the same data, in its labels.parquet), or
        the path of an ``.npy`` file.
      data: training data; single-label.

    Returns:
      T, float32 ``[K, K]``.

    Raises:
      ArgumentError: the source does not exist, does not fit the data, or is no transition matrix.
    """
    if source is None:
        raise ArgumentError(
            "say by `transition` where the matrix comes from: trusted, held_out, anchors:LABELS, confident:LABELS, an "
            ".npy file, or true, an oracle"
        )
    kind, _, path = source.partition(":")
    if kind == "true":
        transition = true_transition(data)
        if transition is None:
            raise ArgumentError(f"`transition`=true needs true training labels, which {data.name} does not have")
        return transition
    if kind == "trusted":
        trusted = data.train.trusted_label
        if trusted is None:
            raise ArgumentError("`transition`=trusted needs trusted labels; add `clean_fraction`=0.1, say")
        return np.asarray(transitions.from_few_pairs(*pairs_of(data.train), data.num_classes))
    if source == "held_out":
        return _held_out(data)
    if kind in ("anchors", "confident"):
        return _estimated(kind, Path(path), data)
    return _from_file(Path(source), data.num_classes)


def pairs_of(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """True and noisy labels that noise may be counted on, those of trusted examples, int ``[m]`` each.

    Raises:
      ArgumentError: labels were verified alone, so that no pair is of two classes; or none is trusted.
    """
    if split.trusted_label is None:
        raise ArgumentError("noise is counted on trusted labels; add `clean_fraction`=0.1, say")
    if split.wrong is not None:
        raise ArgumentError(
            "noise cannot be counted on labels that were verified as right or wrong, for of the wrong ones the true "
            "class is not known; take T from elsewhere, or another method"
        )
    return split.trusted_label[split.paired], split.observed[split.paired]


def file_of(source: str | None) -> Path | None:
    """The file that a source names, None where there is none."""
    if source is None or source in ("true", "trusted", "held_out"):
        return None
    kind, _, path = source.partition(":")
    file = Path(path if kind in ("anchors", "confident") else source)
    return file if file.is_file() else None


def _held_out(data: Dataset) -> np.ndarray:
    inputs, labels, k = data.train.inputs, data.train.observed, data.num_classes
    if not judged_as_they_are(inputs):
        raise ArgumentError(
            f"`transition`=held_out is for features and small images, but {data.name} has inputs of "
            f"{data.input_shape}; give confident:LABELS with the labels.parquet of a plain run"
        )
    if len(missing := np.setdiff1d(np.arange(k), labels)):
        raise ArgumentError(
            f"`transition`=held_out needs labels of every class, but none is {data.class_names[missing[0]]}"
        )
    rows = np.random.default_rng(0).permutation(len(labels))[: max(20_000, 100 * k)]
    return held_out_transition(inputs[rows], labels[rows], k)


def _estimated(kind: str, path: Path, data: Dataset) -> np.ndarray:
    try:
        table = read_labels(path)
    except (OSError, ValueError) as error:
        raise ArgumentError(f"`transition`={kind}:{path}: {error}") from error
    if isinstance(table.posterior, Top):
        raise ArgumentError(
            f"`transition`={kind}:{path} holds the likeliest classes only: run it with `posterior_gib` of more"
        )
    if table.posterior.shape != (len(data.train), data.num_classes):
        raise ArgumentError(
            f"`transition`={kind}:{path} holds predictions {table.posterior.shape} for other data than the "
            f"({len(data.train)}, {data.num_classes}) here; give the labels.parquet of a plain run on them"
        )
    probs = _predictions(f"`transition`={kind}:{path}", table)
    if not np.array_equal(table.noisy_label, data.train.observed):
        raise ArgumentError(f"`transition`={kind}:{path} is of other noisy labels than those here; give a run on them")
    # Where something of the true label was known stands no prediction; the other rows speak for them.
    rows = ~(table.marked("trusted") | table.marked("known_wrong"))
    probs, observed = probs[rows], data.train.observed[rows]
    if not np.isfinite(probs).all() or not np.allclose(probs.sum(axis=1), 1, atol=1e-3):
        raise ArgumentError(f"`transition`={kind}:{path} holds rows that are no probabilities; run that training again")
    if not np.isin(np.arange(data.num_classes), observed).all():
        raise ArgumentError(
            f"`transition`={kind}:{path} holds true labels in place of predictions; give a run without trusted labels"
        )
    if kind == "anchors":
        return np.asarray(transitions.from_anchors(probs))
    joint = transitions.confident_joint(probs, observed)
    return np.asarray(transitions.from_confident_joint(joint, observed))


def _predictions(option: str, table: LabelTable) -> np.ndarray:
    """Probabilities that were predicted from inputs alone: out of fold, or a classifier's own."""
    if "out_of_fold" in table.extras:
        return np.asarray(table.extras["out_of_fold"])
    if "classifier_posterior" in table.extras:
        return np.asarray(table.extras["classifier_posterior"])
    if table.chosen != "classifier":
        raise ArgumentError(
            f"{option} holds the posterior {table.chosen}, which has seen the noisy labels; give the labels.parquet of "
            "a plain run or of nlx clean"
        )
    return np.asarray(table.posterior)


def _from_file(path: Path, num_classes: int) -> np.ndarray:
    if path.suffix != ".npy":
        raise ArgumentError(
            f"`transition`={path} is not known; choose true, trusted, held_out, anchors:LABELS, "
            "confident:LABELS or an .npy file"
        )
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArgumentError(f"`transition`={path} is no array that numpy.save wrote: {error}") from error
    if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "fiu":
        raise ArgumentError(f"`transition`={path} must hold one array of real numbers")
    transition = stored.astype(np.float32)
    try:
        transitions.check(transition)
    except ValueError as error:
        raise ArgumentError(f"`transition`={path}: {error}") from error
    if transition.shape != (num_classes, num_classes):
        raise ArgumentError(f"`transition`={path} has shape {transition.shape}; the data have {num_classes} classes")
    return transition
