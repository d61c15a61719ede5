"""Robust CNN-CRF: noisy and clean labels in one random field, guided by what a few clean labels teach (Vahdat).

  python recipes/crf.py --dataset=tags
  python recipes/crf.py --dataset=tags --field=no_hidden --alpha_start=0 --alpha_end=0
  python recipes/crf.py --dataset=digits --noise=symmetric:0.4

Data with two vocabularies take the field of the paper's Table 1; data with one label per example the analytic variant
of its Table 2. The twins for comparison are recipes/baseline.py with --loss=cross_entropy and --loss=clean.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from nlx import transitions
from nlx.crf import rbm
from nlx.data import Dataset
from nlx.experiment.cli import main
from nlx.experiment.options import ConfigError, RunConfig, build_model, check_range
from nlx.experiment.recipe import Recipe
from nlx.experiment.transition import read_transition
from nlx.methods.crf import Prediction, annealed, crf, crf_analytic
from nlx.methods.method import Method
from nlx.samplers.bits import Generator
from nlx.training.stages import Course


@dataclass(frozen=True)
class CRFConfig(RunConfig):
    """Options of the CRF, after those of every recipe."""

    field: Literal["no_link", "hidden", "no_hidden", "no_pairwise"] = "no_link"
    """A row of the paper's Table 1. no_pairwise: no interactions. no_hidden: noisy with clean labels. hidden: with
    hidden units as well. no_link: the same, but the noisy labels do not see the image (the paper's best)."""
    hidden: int = 50
    """Hidden units (paper 200 for 1,000 noisy labels)."""
    alpha_start: float | None = None
    """Weight of the auxiliary distribution at the start. Default: 40 for two vocabularies, 8 for one label (paper)."""
    alpha_end: float | None = None
    """The same later on. Default: 5 for two vocabularies (paper), 0.25 for one label (paper 1, at which labels with
    symmetric noise are never changed, see docs/crf.md). 0 and 0 leaves it out."""
    alpha_share: float = 0.3
    """Share of the run over which it falls (paper: 11 epochs on COCO, 10 of 200 on CIFAR-10)."""
    chains: int = 50
    """Persistent chains for each training example (paper 50)."""
    sweeps: int = 100
    """Gibbs sweeps per step (paper 100)."""
    prediction: Prediction = "gibbs"
    """Scores of test examples: gibbs, marginals by sampling (paper); mean_field, cheaper; logits, the classifier's."""
    generator: Generator = "threefry"
    """Random bits of the chains: threefry, or hash, faster and good enough for this."""
    auxiliary_steps: int = 2000
    """Steps of the auxiliary RBM, which is fitted to the clean part before the run."""
    transition: str = "true"
    """One label per example: noise that the auxiliary distribution is matched to: true (paper), trusted,
    anchors:LABELS, confident:LABELS, or an .npy file, as in recipes/baseline.py."""

    def check(self) -> None:
        """See :class:`RunConfig`."""
        super().check()
        check_range(self, "[1, inf)", "chains", "sweeps", "auxiliary_steps")
        check_range(self, "[0, inf)", "hidden", "alpha_start", "alpha_end")
        check_range(self, "[0, 1]", "alpha_share")


def fill_alpha(config: CRFConfig, dataset: Dataset) -> CRFConfig:
    """The configuration with alpha's course for the kind of data."""
    start, end = (40.0, 5.0) if dataset.multi_label else (8.0, 0.25)
    return replace(
        config,
        alpha_start=start if config.alpha_start is None else config.alpha_start,
        alpha_end=end if config.alpha_end is None else config.alpha_end,
    )


def make_method(config: CRFConfig, dataset: Dataset, course: Course) -> Method:
    """The CRF as configured."""
    start, end = config.alpha_start, config.alpha_end
    assert start is not None
    assert end is not None
    alpha = annealed(start, end, max(1, round(config.alpha_share * course.total)))
    if not dataset.multi_label:
        return crf_analytic(auxiliary_table(config, dataset), alpha=alpha)

    noisy, trusted = dataset.train.noisy_label, dataset.train.trusted_label
    assert noisy is not None
    machine, facts = None, {}
    hidden = config.hidden if config.field in ("no_link", "hidden") else 0
    if max(start, end) > 0:
        if trusted is None:
            raise ConfigError("the auxiliary distribution learns from clean labels; add --clean_fraction=0.2, say")
        known = np.all(trusted >= 0, axis=1)
        machine, report = rbm.fit(
            jax.random.key(config.seed), noisy[known], trusted[known], hidden, config.auxiliary_steps
        )
        losses = np.asarray(report.clean_loss)
        window = max(1, len(losses) // 20)
        facts = {
            "auxiliary_examples": int(known.sum()),
            "auxiliary_cross_entropy_first": round(float(losses[:window].mean()), 4),
            "auxiliary_cross_entropy_last": round(float(losses[-window:].mean()), 4),
            "auxiliary_flip_rate": round(float(report.flip_rate[-window:].mean()), 4),
        }
    return crf(
        dataset.num_classes,
        noisy.shape[1],
        alpha=alpha,
        auxiliary=machine,
        hidden=hidden,
        link_features=None if config.field == "no_link" else build_model(config, dataset).num_features,
        pairwise=config.field != "no_pairwise",
        chains=config.chains,
        sweeps=config.sweeps,
        prediction=config.prediction,
        generator=config.generator,
    )._replace(facts=facts)


def auxiliary_table(config: CRFConfig, dataset: Dataset) -> np.ndarray:
    """p(true class given noisy class) by Bayes' rule, rows are noisy classes, float32 ``[K, K]``."""
    noisy, k = dataset.train.noisy_label, dataset.num_classes
    assert noisy is not None
    transition = read_transition(config.transition, dataset)
    # The true classes' frequencies that would give the noisy ones' through T.
    frequency = np.bincount(noisy, minlength=k) / len(noisy)
    solved = np.linalg.lstsq(transition.T, frequency, rcond=1e-3)[0]
    prior = np.asarray(transitions.project(jnp.asarray(solved, jnp.float32)))
    joint = (prior + 1e-6)[:, None] * transition + 1e-12
    return np.asarray(joint.T / joint.T.sum(axis=1, keepdims=True), np.float32)


RECIPE = Recipe(make_method, fill=fill_alpha, two_vocabularies=True)

if __name__ == "__main__":
    sys.exit(main(CRFConfig, RECIPE, __doc__))
