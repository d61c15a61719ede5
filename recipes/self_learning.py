"""Self-learning with multi-prototypes: labels corrected after every epoch, without clean data (Han et al.).

  python recipes/self_learning.py --dataset=digits --noise=symmetric:0.4   # 20 s on two cores, test accuracy 90.0 %
  python recipes/self_learning.py --dataset=digits --clean_fraction=0.1 --verified --clean_epochs=10
Its twin for comparison is recipes/baseline.py with the same options.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from nlx import Stage, Trainer
from nlx.arguments import ArgumentError
from nlx.experiment.defaults import build_model, build_optimizer, build_schedule, require_one_label
from nlx.experiment.main import main
from nlx.experiment.options import RecipeOptions, refuse_idle, require
from nlx.experiment.run import Result, Run
from nlx.methods.plain import trusted_cross_entropy
from nlx.methods.self_learning import CleanWith, corrections, self_learning
from nlx.methods.verified import eligible
from nlx.prototypes import Select
from nlx.report.corrections import as_compared, correction_pictures, shown_members

OWN: tuple[str, ...] = ("alpha", "prototypes", "members", "quantile", "limit", "select", "center", "typical_only")
OWN += ("keep_good", "verified", "temperature", "clean_with", "keep_scores")


@dataclass(frozen=True)
class SelfLearningOptions(RecipeOptions):
    """Options of self-learning, after those of every recipe."""

    start_epoch: int = 3
    """Epochs on the labels as they are, before the first correction, at least 1 (the paper gives none)."""
    every: int = 1
    """Epochs between two corrections (paper 1)."""
    last_correction: int | None = None
    """Epoch of the last correction; later features have memorized wrong labels. Default: the end of the run (paper)."""
    alpha: float = 0.5
    """Weight of the corrected label, in [0, 1] (paper 0.5)."""
    prototypes: int = 8
    """Prototypes per class (paper 8)."""
    members: int = 1280
    """Random examples of each class that its prototypes are selected from (paper 1280)."""
    quantile: float = 0.4
    """Share of similarities below the density's threshold (paper 0.4)."""
    limit: float = 0.95
    """Members this similar to a denser one are no prototypes (paper 0.95)."""
    select: Select = "density"
    """How prototypes are selected: density (paper), or its Table 4's kmeans and density_peaks."""
    center: bool = True
    """Compare features less the mean of their class means (the paper compares them as they are)."""
    typical_only: bool = True
    """Take prototypes from examples that resemble their own class more than any other (paper: from all)."""
    keep_good: bool = True
    """Refuse a correction that agrees with clearly fewer of the given labels than the one before (paper: none is)."""
    verified: bool = False
    """Take prototypes from examples whose label is known to be right, where --clean_fraction says so."""
    clean_epochs: int = 0
    """Epochs on the clean part alone at the end (the paper's last row); needs --clean_fraction."""
    temperature: float = 0.1
    """Of the softmax that makes probabilities of resemblance (a score; the paper needs none)."""
    clean_with: CleanWith = "held_out"
    """What labels are cleaned with: prototypes (paper), classifier, combined (their geometric mean), or held_out, the
    one of these that models prefer which have not seen the labels."""
    keep_scores: bool = True
    """Keep the resemblance to every class for each example, 2 K bytes each."""

    def check(self) -> None:
        """See :class:`RecipeOptions`."""
        super().check()
        require(self, "[1, inf)", "start_epoch", "every", "members")
        require(self, "[1, 10000]", "prototypes")
        require(self, "[0, 1]", "alpha", "quantile")
        require(self, "(0, inf)", "temperature")
        require(self, "(-inf, inf)", "limit")
        require(self, "[0, inf)", "clean_epochs")
        if not (self.verified or self.clean_epochs):
            refuse_idle(self, "without `verified` or `clean_epochs`", "clean_fraction")
        if self.select != "density":
            refuse_idle(self, f"with `select`={self.select}", "quantile", "limit")
        if self.last_correction is not None and self.last_correction < self.start_epoch:
            raise ArgumentError(f"`last_correction`={self.last_correction} comes before `start_epoch`; raise it")


def train(options: SelfLearningOptions, run: Run) -> Result:
    """Data, model, method, stages, optimizer; then fit, and write what the run leaves."""
    data, training = run.load()
    require_one_label(data, "self-learning is")
    known = data.train.trusted_label
    if known is None and (options.verified or options.clean_epochs):
        raise ArgumentError("`verified` and `clean_epochs` need trusted labels; add `clean_fraction`=0.1, say")
    last = min(options.last_correction or training.epochs, training.epochs)
    if last < options.start_epoch:
        raise ArgumentError(f"`start_epoch`={options.start_epoch} comes after the last of {last} epochs; lower it")
    model = build_model(options, training, data)
    when = corrections(options.start_epoch, options.every, last)
    own = {name: getattr(options, name) for name in OWN}
    method = self_learning(data.num_classes, refresh_after=when, **own)
    schedule = build_schedule(options, training)
    stages = [Stage(training.epochs, schedule=schedule)]
    if options.clean_epochs and known is not None:
        stages += [Stage(options.clean_epochs, "clean", np.flatnonzero(known >= 0), schedule, trusted_cross_entropy())]
    optimizer, observers = build_optimizer(options, training), run.observers(method, data)
    trainer = Trainer(model, method, optimizer, batch_size=training.batch_size, observers=observers)
    fitted = trainer.fit(data.train, jax.random.key(options.seed), stages, state=run.restored(trainer, data, stages))
    among = eligible(data.train.observed, known, data.num_classes) if options.verified and known is not None else None
    rows = shown_members(data, among)
    seen = trainer.features(fitted.state, data.train.take(rows))
    features, rows = as_compared(seen, rows, data, options.center, options.typical_only)
    chosen = partial(correction_pictures, features=features, rows=rows, count=options.prototypes, select=options.select)
    return run.export(trainer, fitted, data, pictures=[partial(chosen, quantile=options.quantile, limit=options.limit)])


if __name__ == "__main__":
    sys.exit(main(SelfLearningOptions, train))
