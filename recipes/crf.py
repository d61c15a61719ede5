"""Robust CNN-CRF: noisy and clean labels in one random field, guided by what a few clean labels teach (Vahdat).

  python recipes/crf.py --dataset=digits --noise=symmetric:0.4 --transition=true   # seconds, accuracy 85.8 %
Two vocabularies, words and objects: --dataset=tags --field=no_link.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax

from nlx import Stage, Trainer, transitions
from nlx.arguments import ArgumentError
from nlx.crf import rbm
from nlx.data import Dataset
from nlx.experiment.defaults import build_model, build_optimizer, build_schedule
from nlx.experiment.main import main
from nlx.experiment.options import RecipeOptions, refuse_idle, require
from nlx.experiment.run import Result, Run
from nlx.experiment.transition_source import read_transition
from nlx.methods.crf import Prediction, annealed, crf, crf_analytic
from nlx.samplers.bits import Generator, default_generator

OF_THE_FIELD = ("field", "hidden", "chains", "sweeps", "prediction", "generator", "auxiliary_steps")


@dataclass(frozen=True)
class CRFOptions(RecipeOptions):
    """Options of the CRF, after those of every recipe."""

    single_label_rate: ClassVar[float] = 0.01  # at higher ones its posterior feeds on itself
    several_labels: ClassVar[Mapping[str, Any]] = {"optimizer": "adam", "batch_size": 32, "epochs": 40}
    field: Literal["no_link", "hidden", "no_hidden", "no_pairwise"] = "no_link"
    """A row of the paper's Table 1. no_pairwise: no interactions; no_hidden: of noisy with clean labels; hidden: both
    with hidden units; no_link: likewise, but the noisy labels do not see the image (the paper's best)."""
    hidden: int = 50
    """Hidden units (paper 200 for 1,000 noisy labels)."""
    alpha_start: float | None = None
    """Weight of the auxiliary distribution at the start. Default: 40 for two vocabularies, 8 for one label (paper)."""
    alpha_end: float | None = None
    """The same later on; 0 and 0: none. Default: 5 for two vocabularies (paper), 0.25 for one label (paper 1)."""
    alpha_share: float = 0.3
    """Share of the run over which it falls (paper: 11 epochs on COCO, 10 of 200 on CIFAR-10)."""
    chains: int = 50
    """Persistent chains for each training example (paper 50)."""
    sweeps: int = 100
    """Gibbs sweeps per step (paper 100)."""
    prediction: Prediction = "gibbs"
    """Scores of test examples: gibbs, marginals by sampling (paper); mean_field, cheaper; logits, the classifier's."""
    generator: Generator | None = None
    """Random bits of the chains: threefry, or hash, faster and good enough for this. Default: hash on TPUs and GPUs."""
    auxiliary_steps: int = 2000
    """Steps of the auxiliary RBM, which is fitted to the clean part before the run."""
    transition: str | None = None
    """One label per example: noise that the auxiliary distribution is matched to, as in recipes/baseline.py."""
    clean_weight: float = 2.0
    """Likewise: weight of an example whose true label is trusted, the others having 1."""

    def check(self) -> None:
        """See :class:`RecipeOptions`."""
        super().check()
        require(self, "[1, 10000]", "chains", "sweeps")
        require(self, "[0, 10000]", "hidden", "alpha_start", "alpha_end", "clean_weight")
        require(self, "[1, 1000000]", "auxiliary_steps")
        require(self, "[0, 1]", "alpha_share")


def train(options: CRFOptions, run: Run) -> Result:
    """Data, model, auxiliary distribution, method, optimizer; then fit, and write what the run leaves."""
    data, training = run.load(two_vocabularies=True)
    model, steps = build_model(options, training, data), training.epochs * (len(data.train) // training.batch_size)
    defaults, given = (40.0, 5.0) if data.multi_label else (8.0, 0.25), (options.alpha_start, options.alpha_end)
    start, end = (d if value is None else value for d, value in zip(defaults, given, strict=True))
    alpha = annealed(start, end, max(1, round(options.alpha_share * steps)))
    noisy, generator = data.train.observed, options.generator or default_generator()
    if data.multi_label:
        refuse_idle(options, "for two vocabularies", "transition", "clean_weight")
        hidden = options.hidden if options.field in ("no_link", "hidden") else 0
        method = crf(
            data.num_classes,
            noisy.shape[1],
            alpha=alpha,
            auxiliary=auxiliary_fit(options, data, hidden) if max(start, end) > 0 else None,
            trusted_share=data.train.trusted_share,
            hidden=hidden,
            link=options.field != "no_link",
            pairwise=options.field != "no_pairwise",
            chains=options.chains,
            sweeps=options.sweeps,
            prediction=options.prediction,
            generator=generator,
        )
    else:
        refuse_idle(options, "for one label per example", *OF_THE_FIELD)
        refuse_idle(options, "without trusted labels", *(["clean_weight"] if data.train.trusted is None else []))
        table = transitions.label_posterior(read_transition(options.transition, data), noisy)
        method = crf_analytic(table, alpha=alpha, clean_weight=options.clean_weight)
    optimizer = build_optimizer(options, training)
    observers = run.observers(method, data, alpha_start=start, alpha_end=end, generator=generator)
    trainer = Trainer(model, method, optimizer, batch_size=training.batch_size, observers=observers)
    stage, key = Stage(training.epochs, schedule=build_schedule(options, training)), jax.random.key(options.seed)
    fitted = trainer.fit(data.train, key, stage, state=run.restored(trainer, data, stage))
    report = fitted.state.params["method"].get("auxiliary_course")
    return run.export(trainer, fitted, data, facts=None if report is None else report.course())


def auxiliary_fit(options: CRFOptions, data: Dataset, hidden: int) -> Callable[[], tuple[rbm.RBM, rbm.Report]]:
    """What fits the auxiliary distribution over both vocabularies to the clean part."""
    if (trusted := data.train.trusted_label) is None:
        raise ArgumentError("the auxiliary distribution learns from clean labels; add `clean_fraction`=0.2, say")
    known, key = (trusted >= 0).all(axis=1), jax.random.key(options.seed)
    return lambda: rbm.fit(key, data.train.observed[known], trusted[known], hidden, options.auxiliary_steps)


if __name__ == "__main__":
    sys.exit(main(CRFOptions, train))
