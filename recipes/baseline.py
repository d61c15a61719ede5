"""Training with one loss: the baselines that every system is compared with.

  python recipes/baseline.py --loss=cross_entropy --dataset=web   # web/sample, 1 minute on two cores: test mAP 89.2 %
  python recipes/baseline.py --loss=generalized_ce --dataset=digits --noise=symmetric:0.4   # seconds, accuracy 94.7 %

A matrix from another run is given as --transition=anchors:RUN/labels.parquet.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import jax

from nlx import Stage, Trainer, losses, transitions
from nlx.arguments import ArgumentError
from nlx.data import Dataset
from nlx.experiment.defaults import build_model, build_optimizer, build_schedule
from nlx.experiment.main import main
from nlx.experiment.options import RecipeOptions, refuse_idle, require
from nlx.experiment.run import Result, Run
from nlx.experiment.transition_source import read_transition
from nlx.methods.dynamics import with_dynamics
from nlx.methods.method import Method
from nlx.methods.noise_layer import forward
from nlx.methods.plain import backward, cross_entropy, per_class, plain, trusted_cross_entropy, with_vectors

AnyLabels = Literal["cross_entropy", "binary_cross_entropy", "bootstrap_soft", "bootstrap_hard", "clean"]
SingleLabel = Literal["forward", "backward", "generalized_ce", "symmetric_ce", "mae"]
BETA = {"bootstrap_soft": 0.95, "bootstrap_hard": 0.8}  # the paper's
USERS = {"transition": ("forward", "backward"), "beta": BETA, "q": ("generalized_ce",), "alpha": ("symmetric_ce",)}


@dataclass(frozen=True)
class BaselineOptions(RecipeOptions):
    """Options of the baselines, after those of every recipe."""

    loss: Literal[AnyLabels, SingleLabel] = "cross_entropy"
    """cross_entropy: softmax for single-label data, one sigmoid per class for multi-label data (paper).
    binary_cross_entropy: one sigmoid per class on both, CAN's own output layer. bootstrap_soft and bootstrap_hard (Reed
    et al.) mix label and prediction. forward and backward (Patrini et al.) correct with --transition. generalized_ce,
    symmetric_ce and mae are robust by themselves. clean trains on the true labels: the upper bound."""
    transition: str | None = None
    """Needed by forward and backward: true (from all true training labels, an oracle), trusted (from those that
    --clean_fraction reveals), held_out (by linear models), anchors:LABELS or confident:LABELS (from the labels.parquet
    of a plain run on the same data), or an .npy file with rows that sum to 1."""
    beta: float | None = None
    """Trust in the label, for the bootstraps. Default: bootstrap_soft 0.95, bootstrap_hard 0.8 (paper)."""
    q: float = 0.7
    """Of generalized_ce, in (0, 1]; towards 0 it is cross-entropy, at 1 it is mae (paper 0.7)."""
    alpha: float = 0.1
    """Of symmetric_ce, weight of the cross-entropy (paper, CIFAR-10: 0.1)."""

    def check(self) -> None:
        """See :class:`RecipeOptions`."""
        super().check()
        require(self, "[0, 1]", "beta")
        require(self, "(0, 1]", "q")
        require(self, "[0, inf)", "alpha")
        for name, losses_with_it in USERS.items():
            if self.loss not in losses_with_it:
                refuse_idle(self, f"with `loss`={self.loss}", name)
        refuse_idle(self, "here", *(["clean_fraction"] if self.transition != "trusted" else []), "known_outliers")


def baseline(options: BaselineOptions, data: Dataset, beta: float) -> Method:
    """The loss that the options say, as a method."""
    if data.multi_label and options.loss in get_args(SingleLabel):
        raise ArgumentError(
            f"`loss`={options.loss} is for one label per example, but {data.name} has several; take cross_entropy, "
            "bootstrap_soft, bootstrap_hard or clean"
        )
    match options.loss:
        case "forward":
            return forward(read_transition(options.transition, data))
        case "backward":
            try:
                return backward(transitions.invert(read_transition(options.transition, data)))
            except ValueError as error:
                raise ArgumentError(f"`loss`=backward: {error}") from error
        case "clean":
            return trusted_cross_entropy()._replace(name="clean")
        case "cross_entropy":
            return plain(cross_entropy, "plain")
        case "binary_cross_entropy":
            return plain(per_class, "plain_binary")
        case "bootstrap_soft" | "bootstrap_hard":
            return plain(with_vectors(partial(getattr(losses, options.loss), beta=beta)), options.loss)
        case "generalized_ce":
            return plain(partial(losses.generalized_cross_entropy, q=options.q), options.loss)
        case "symmetric_ce":
            return plain(partial(losses.symmetric_cross_entropy, alpha=options.alpha), options.loss)
        case "mae":
            return plain(losses.mean_absolute_error, options.loss)


def train(options: BaselineOptions, run: Run) -> Result:
    """Data, model, method, optimizer; then fit, and write what the run leaves."""
    data, training = run.load()
    if options.loss == "clean":
        if not data.train.known.all():
            raise ArgumentError(f"`loss`=clean needs all true labels, {data.name} has not; take another loss")
        data = data.trust(1.0, 0)
    model = build_model(options, training, data)
    beta = BETA.get(options.loss, 1.0) if options.beta is None else options.beta
    method = baseline(options, data, beta)
    method = method if data.multi_label or options.mix != "none" else with_dynamics(method)
    optimizer = build_optimizer(options, training)
    observers = run.observers(method, data, beta=beta)
    trainer = Trainer(model, method, optimizer, batch_size=training.batch_size, observers=observers)
    stage = Stage(training.epochs, schedule=build_schedule(options, training))
    fitted = trainer.fit(data.train, jax.random.key(options.seed), stage, state=run.restored(trainer, data))
    return run.export(trainer, fitted, data)


if __name__ == "__main__":
    sys.exit(main(BaselineOptions, train))
