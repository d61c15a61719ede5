"""Training with one loss: the losses by their names, and what they are given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from jax import Array

from nlx import losses, transitions
from nlx.arguments import ArgumentError
from nlx.data import Dataset
from nlx.experiment.options import RecipeOptions, refuse_idle, require
from nlx.experiment.transition_source import read_transition
from nlx.methods.method import Method
from nlx.methods.noise_layer import forward
from nlx.methods.plain import (
    backward,
    cross_entropy,
    generalized_q,
    per_class,
    plain,
    trusted_cross_entropy,
    with_vectors,
)

AnyLabels = Literal["cross_entropy", "binary_cross_entropy", "bootstrap_soft", "bootstrap_hard", "clean"]
ByMatrix = Literal["forward", "backward", "reweighted"]
Robust = Literal[
    "generalized_ce", "symmetric_ce", "mae", "label_smoothing", "bi_tempered", "active_passive", "joint_asymmetric"
]
FUNCTIONS: dict[str, Callable[..., Array]] = {
    "bootstrap_soft": losses.bootstrap_soft,
    "bootstrap_hard": losses.bootstrap_hard,
    "generalized_ce": losses.generalized_cross_entropy,
    "symmetric_ce": losses.symmetric_cross_entropy,
    "mae": losses.mean_absolute_error,
    "label_smoothing": losses.label_smoothing,
    "bi_tempered": losses.bi_tempered,
    "active_passive": losses.active_passive,
    "joint_asymmetric": losses.joint_asymmetric,
}
NUMBERS = {"beta": "[0, inf)", "q": "(0, 1]", "alpha": "[0, inf)", "a": "[1, inf)", "rate": "[0, 1]", "t1": "[0, 1]"}
NUMBERS |= {"t2": "[1, inf)"}
"""What options give the losses that have such an argument, and where it lies."""


@dataclass(frozen=True)
class LossOptions(RecipeOptions):
    """Which loss, and its numbers, after the options of every recipe."""

    loss: Literal[AnyLabels, ByMatrix, Robust] = "cross_entropy"
    """cross_entropy: softmax for single-label data, one sigmoid per class for multi-label data (paper).
    binary_cross_entropy: one sigmoid per class on both, CAN's own output layer. bootstrap_soft and bootstrap_hard (Reed
    et al.) mix label and prediction. forward and backward (Patrini et al.) correct with --transition, reweighted (Liu
    and Tao) weighs by it, label_smoothing may go through it. The others are robust by themselves. clean trains on the
    true labels: the upper bound."""
    transition: str | None = None
    """Needed by forward, backward and reweighted: true (from all true training labels, an oracle), trusted (from those
    that --clean_fraction reveals), held_out (by linear models), anchors:LABELS or confident:LABELS (from the
    labels.parquet of a plain run on the same data), or an .npy file with rows that sum to 1."""
    beta: float | None = None
    """Trust in the label, for the bootstraps (papers 0.95 and 0.8); weight of the reverse cross-entropy, symmetric_ce
    (paper 1), or of the passive loss, active_passive and joint_asymmetric (1)."""
    q: float | None = None
    """Of generalized_ce, in (0, 1]; towards 0 it is cross-entropy, at 1 it is mae (paper 0.7; here, of more than 27
    classes, ln 10 / ln K, so that labels count enough at first)."""
    alpha: float | None = None
    """Weight of the cross-entropy, symmetric_ce (paper, CIFAR-10: 0.1), active_passive and joint_asymmetric (1)."""
    a: float | None = None
    """Where joint_asymmetric draws the label's probability to (30)."""
    rate: float | None = None
    """Share of the label that label_smoothing spreads over all classes (paper 0.1)."""
    t1: float | None = None
    """Temperature of bi_tempered's logarithm (0.8)."""
    t2: float | None = None
    """Temperature of bi_tempered's exponential (1.2)."""

    def check(self) -> None:
        """See :class:`RecipeOptions`."""
        super().check()
        for name, interval in NUMBERS.items():
            trust = name == "beta" and self.loss.startswith("bootstrap")
            require(self, "[0, 1]" if trust else interval, name)
        takes = [
            *asked_of(self.loss),
            *(["transition"] if self.loss in (*get_args(ByMatrix), "label_smoothing") else []),
        ]
        refuse_idle(self, f"with `loss`={self.loss}", *(n for n in (*NUMBERS, "transition") if n not in takes))
        refuse_idle(self, "here", *(["clean_fraction"] if self.transition != "trusted" else []), "known_outliers")


def asked_of(loss: str) -> dict[str, float]:
    """The numbers that a loss takes, with its own defaults."""
    taken = inspect.signature(FUNCTIONS.get(loss, losses.cross_entropy)).parameters
    return {name: taken[name].default for name in NUMBERS if name in taken}


def numbers(options: LossOptions, num_classes: int) -> dict[str, float]:
    """The loss's arguments that options give; by default its own, and q by the number of classes."""
    usual = asked_of(options.loss)
    if "q" in usual:
        usual["q"] = generalized_q(num_classes)
    given = {name: getattr(options, name) for name in usual}
    return usual | {name: value for name, value in given.items() if value is not None}


def by_loss(options: LossOptions, data: Dataset) -> Method:
    """The loss that the options say, as a method."""
    if data.multi_label and options.loss not in get_args(AnyLabels):
        raise ArgumentError(
            f"`loss`={options.loss} is for one label per example, but {data.name} has several; take cross_entropy, "
            "bootstrap_soft, bootstrap_hard or clean"
        )
    match options.loss:
        case "clean":
            return trusted_cross_entropy()._replace(name="clean")
        case "cross_entropy":
            return plain(cross_entropy, "plain")
        case "binary_cross_entropy":
            return plain(per_class, "plain_binary")
        case "forward":
            return forward(read_transition(options.transition, data))
        case "backward":
            try:
                return backward(transitions.invert(read_transition(options.transition, data)))
            except ValueError as error:
                raise ArgumentError(f"`loss`=backward: {error}") from error
        case "reweighted":
            matrix = read_transition(options.transition, data)
            return plain(partial(losses.importance_reweighted, transition=matrix), options.loss)
    loss = partial(FUNCTIONS[options.loss], **numbers(options, data.num_classes))
    if options.loss in get_args(AnyLabels):
        return plain(with_vectors(loss), options.loss)
    if options.transition is not None:
        loss = partial(loss, transition=read_transition(options.transition, data))
    return plain(loss, options.loss)
