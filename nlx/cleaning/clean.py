"""``nlx.clean``: inputs and labels in, a table of cleaned labels out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from nlx.arguments import ArgumentError
from nlx.cleaning.arrays import Given, columns_of, given_split
from nlx.cleaning.blocks import kept
from nlx.cleaning.estimates import NoiseView
from nlx.cleaning.evidence import each_class, fuse, weigh, weigh_each
from nlx.cleaning.guard import best_belief, guard_of, guarded
from nlx.cleaning.held_out import judge, rows_to_judge
from nlx.cleaning.linear import linear_in_folds
from nlx.cleaning.margins import join, margins
from nlx.cleaning.neighbours import NEIGHBOURS, neighbours
from nlx.cleaning.second_opinion import ALONE, settled
from nlx.cleaning.table import BELIEFS, Belief, LabelTable, label_table, of_all_rows, with_trusted
from nlx.cleaning.trainers import MethodName, trainer_for
from nlx.data.dataset import Split
from nlx.methods.method import Method
from nlx.training.state import TrainState
from nlx.training.trainer import Trainer

_MOST_PRODUCTS, _MOST_ENTRIES = 10**12, 10**7  # of numbers, for the neighbours; of labels, where there are several


def clean(
    inputs: ArrayLike | Any,
    labels: ArrayLike | str,
    *,
    method: Method | MethodName | None = None,
    trusted: Mapping[int, Any] | ArrayLike | str | None = None,
    ids: ArrayLike | str | None = None,
    class_names: Sequence[str] | None = None,
    precision: float | None = None,
    folds: int = 5,
    network: bool = False,
    seed: int = 0,
) -> LabelTable:
    """Find wrong labels and propose right ones.

    By default a linear softmax with generalized cross-entropy is trained in folds, all in one program, so that every
    example is judged by a model that has not seen its label: with q = 0.7, and where that predicts less than half of
    the given labels of fewer than 32,000 examples also with 0.3, of which the one stays that predicts more (of more
    than 40 classes see :func:`nlx.cleaning.linear.linear_in_folds`). Its opinion is joined with the nearest
    neighbours' (of up to 60,000 examples of 256 features), the transition matrix comes from the confident joint and EM,
    and the posterior from Bayes' rule, see :mod:`nlx.cleaning.evidence`. (Several labels per example: sigmoids, with
    less decay where they rank the given labels badly, and the rest for each class.) Heuristics and settings may change
    between versions.

    Args:
      inputs: features, any float ``[n, F]``, such as embeddings, dense or a sparse matrix; or small images, uint8
        ``[n, H, W]`` or ``[n, H, W, C]``; or anything with named columns, a pandas or polars frame, an Arrow table, a
        Hugging Face data set, of which the one column of vectors or all columns of numbers are the features. Each
        dimension is standardized.
      labels: as they are: class numbers or strings ``[n]``, one-hot or soft ``[n, K]``; a {0, 1} matrix or lists of
        names where an example can have several; or the name of the inputs' column. None, NaN, an empty string and -1
        are no label: such an example is told a label all the same.
      method: a system of ``nlx.methods``, or the name of one, to train instead, on all examples, behind a small
        network; the posterior is its own, joined with the default's where it looks no better than what was given.
      trusted: true labels where they are known: by row, ``{17: "cat"}``; or of all rows, none where unknown; or a mask
        of the rows whose given label has been checked; or the name of a column with either. They are trained on in
        place of the given ones, calibrate what is believed of the others, and are certain in the table.
      ids: what examples are known by, ``[n]`` of any type, or the name of a column; they come back in the table.
      class_names: K names; for class numbers. By default the numbers, or the strings themselves, in order.
      precision: 0.9 adds the column ``decided``: a list of labels of which at least 90 % are wrong, at 95 % confidence,
        empty where that cannot be promised; see :func:`nlx.cleaning.estimates.decided`.
      folds: number of models.
      network: also train three small networks on all labels, and join how each label fares on the way
        (:mod:`nlx.cleaning.margins`): better labels for more time, and the columns ``aum``, ``confidence`` and
        ``variability``.
      seed: decides folds and everything else that is random.

    Returns:
      The table: cleaned labels with probabilities, a score for each given label, and ranks, most suspicious first.
      Its ``guard`` says whether cleaned labels look better than the given ones. Where the probabilities of more than
      40 classes would fill more than half a GiB, it has the ten likeliest, see :class:`nlx.methods.top.Top`.

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
    inputs, labels, trusted, origin = columns_of(inputs, labels, trusted, ids)
    given = given_split(inputs, labels, trusted, class_names)
    usable, several = np.flatnonzero(given.usable), given.labels.noisy.ndim == 2
    if not 2 <= folds <= len(usable):
        raise ArgumentError(f"`folds` must lie between 2 and the {len(usable)} examples with a label, got {folds}")
    if network and (method is not None or several):
        raise ArgumentError("`network` is for one label per example and joins no other system: leave `method` out")
    if precision is not None and not 0 < precision < 1:
        raise ArgumentError(f"`precision` must lie between 0 and 1, got {precision}")
    if precision is not None and (method is not None or several):
        raise ArgumentError("`precision` needs held-out evidence of one label per example: leave `method` out")
    split, soft = given.split if given.usable.all() else given.split.take(usable), given.labels.soft
    # Where nothing was given, what is known stands in for it.
    observed = split.observed if split.label is None else np.where(split.observed < 0, split.label, split.observed)
    split = replace(split, noisy_label=observed.astype(np.uint8 if several else np.int32))
    trained = train(
        split, given.labels.names, method, folds, seed, network=network, soft=None if soft is None else soft[usable]
    )
    table = trained.table
    if precision is not None:
        assert trained.noise is not None
        listed = trained.noise.decided(precision)
        if split.trusted is not None:
            listed = np.where(split.trusted, table.changed, listed)
        table = replace(table, extras=table.extras | {"decided": listed})
    if not several:
        beliefs = {name: kept(table.extras[name], table.noisy_label) for name in BELIEFS if name in table.extras}
        table = replace(table, extras=table.extras | beliefs)
    if not given.labels.given.all():
        table = of_all_rows(table, _predicted(trained, given, usable), usable, given.labels.noisy)
    return replace(table, origin=origin)


def _predicted(trained: Trained, given: Given, usable: np.ndarray) -> np.ndarray:
    """Class probabilities of the rows that were not learnt from, ``[m, K]``."""
    rest = np.setdiff1d(np.arange(len(given.split)), usable)
    if not len(rest):
        return np.zeros((0, len(given.labels.names)), np.float32)
    inputs, several = given.split.take(rest).inputs, trained.table.multi_label
    each = [trained.trainer.predict(state, inputs, multi_label=several) for state in trained.states]
    probs = np.mean(each, axis=0)
    if several or "out_of_fold" not in trained.table.extras:
        return probs
    sharp = probs ** weigh(trained.table.extras["out_of_fold"], trained.table.noisy_label).power
    return np.asarray(sharp / sharp.sum(axis=1, keepdims=True), np.float32)


def evidence_of(table: LabelTable) -> np.ndarray:
    """p(true label | x) without the label itself, ``[n, K]``, from a table by default."""
    return table.extras.get("evidence", table.extras["out_of_fold"])


class Trained(NamedTuple):
    """What cleaning has trained: networks, whose mean predicts, and the table.

    Attributes:
      trainer: of the networks.
      states: of each.
      table: cleaned labels.
      noise: what evidence by default says of the noise, where each example has one label.
    """

    trainer: Trainer
    states: list[TrainState]
    table: LabelTable
    noise: NoiseView | None = None


def train(
    split: Split,
    names: tuple[str, ...],
    method: Method | str | None,
    folds: int,
    seed: int,
    hidden: tuple[int, ...] = (128,),
    epochs: int | None = None,
    network: bool = False,
    soft: np.ndarray | None = None,
) -> Trained:
    """Train on prepared features and clean their labels, see :func:`clean`.

    ``hidden`` is of a method's network, ``epochs`` of it or of the linear models.
    """
    key, n, noisy = jax.random.key(seed), len(split), split.observed
    extras: dict[str, np.ndarray] = {}
    near: np.ndarray | None = None
    if split.trusted is not None:
        extras["trusted"] = split.trusted
    rows = rows_to_judge(n)
    judged = judge(rows, np.asarray(split.take(rows).inputs), noisy, len(names))

    def built(probs: Belief, chosen: str) -> LabelTable:
        about: dict[str, Any] = {"class_names": names, "chosen": chosen, "method": trainer.method.name}
        return label_table(with_trusted(probs, split), noisy, extras=extras, **about)

    if method is not None:
        trainer, stage = trainer_for(split, method, n, len(names), hidden, epochs)
        states = [trainer.fit(split, key, stage).state]
        own = best_belief(judged, trainer.posterior(states[0], split))
        others = cache(partial(train, split, names, None, max(2, folds), seed, soft=soft))
        table = settled(judged, own, split, built, lambda: evidence_of(others().table))
        return others()._replace(table=table) if table.chosen == ALONE else Trained(trainer, states, table)
    taught = split if split.trusted is None else replace(split, noisy_label=split.label)
    trainer, trained, _ = linear_in_folds(taught, len(names), key, folds, epochs)
    states = [trained.fitted.member(i).state for i in range(folds)]
    chosen, known, noise = "bayes", split.trusted_label, None
    probs: Belief = trained.probs
    extras["out_of_fold"] = probs
    if affordable(*split.inputs.shape) and (noisy.ndim == 1 or noisy.size <= _MOST_ENTRIES):
        near = neighbours(np.asarray(split.inputs), min(NEIGHBOURS, n - 1))
        fused: Any = lambda p, y, k: fuse(p, y, near, k)[0]  # noqa: E731
        probs = (fused if noisy.ndim == 1 else partial(each_class, fused))(probs, noisy, known)
        extras["evidence"] = probs
    if noisy.ndim == 2:
        probs = weigh_each(probs, noisy, known)
    else:
        weighed = weigh(probs, noisy, known, soft)
        noise = NoiseView(probs, noisy, weighed=weighed if known is None and soft is None else None)
        probs = weighed.posterior if network else weighed.belief
    if network:
        extras |= margins(taught, jax.random.fold_in(key, 0), len(names))
        probs, chosen = kept(join(probs, taught.observed, extras["aum"]), noisy), "bayes_margins"
    table = built(probs, chosen)
    if near is not None and noisy.ndim == 1:
        votes = {"near_given": table.noisy_label, "near_proposed": table.cleaned_label}
        counts = {name: (noisy[near] == labels[:, None]).sum(axis=1, dtype=np.int32) for name, labels in votes.items()}
        table = replace(table, extras=table.extras | counts)
    guard = guard_of(judged, table)
    if noise is not None:  # better evidence than the judges', who stay others than what they judge
        guard = guard._replace(noise=noise.estimates.noise_rate, remaining=noise.estimates.remaining)
    return Trained(trainer, states, guarded(table, guard), noise)


def affordable(n: int, width: int) -> bool:
    """Whether neighbours are looked for: a few seconds on a desktop's processor at the limit."""
    return n**2 * width <= _MOST_PRODUCTS
