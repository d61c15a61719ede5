"""Noise types: a little clean data and a lot of noisy data, by exact EM over (true label, noise type) (Xiao et al.).

  python recipes/noise_types.py --dataset=digits --noise=instance:0.4   # seconds on two cores, test accuracy 89.1 %
  python recipes/noise_types.py --dataset=digits --noise=instance:0.4 --strategy=mixed

The strategies are the rows of the paper's Table 1.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Literal

import jax
import numpy as np

from nlx import Stage, Trainer, transitions
from nlx.arguments import ArgumentError
from nlx.data import Dataset, with_upsampled
from nlx.experiment.defaults import Training, build_model, build_optimizer, build_schedule, require_one_label
from nlx.experiment.main import main
from nlx.experiment.options import RecipeOptions, refuse_idle, require
from nlx.experiment.run import Result, Run
from nlx.experiment.transition_source import pairs_of
from nlx.methods.noise_types import Branch, bottom_up, noise_types, pretrain_noise_types, second_backbone, shared_trunk
from nlx.methods.plain import trusted_cross_entropy
from nlx.report.ranking import rank_precision_pictures
from nlx.transitions.confusing import estimate_confusing

Strategy = Literal["clean_only", "finetune", "mixed", "mixed_pretrained", "bottom_up", "noise_types"]


@dataclass(frozen=True)
class NoiseTypesOptions(RecipeOptions):
    """Options of noise types, after those of every recipe."""

    clean_fraction: float = 0.1
    """Share of the training examples whose true label may be learnt from (paper: 47,570 of 1,047,570)."""
    strategy: Strategy = "noise_types"
    """A row of the paper's Table 1. clean_only: the clean part alone. finetune: the noisy part, then the clean one.
    mixed: both, noisy labels taken as true. mixed_pretrained: the clean part, then both. bottom_up: the same, with a
    fixed transition matrix for noisy labels. noise_types: this system, in three stages."""
    pretrain_epochs: int = 30
    """Epochs of the first stage, where the strategy has one before the last."""
    types_epochs: int = 30
    """Epochs over the clean part in which p(noise type given x) is pretrained."""
    branch: Literal["own", "shared"] = "own"
    """p(noise type given x): own is a second backbone (paper), shared a second head on the first one."""
    clean_weight: float = 1.0
    """Weight of clean examples in the last stage, where they are already upsampled to half the noisy ones (paper 1).
    Above 1 for a clean part that is tiny but to be followed closely."""
    branch_rate: float = 1.0
    """Learning rate of p(noise type given x), as a multiple of the classifier's, on top of METHOD_RATE (paper 1). Below
    1 where it learns the few clean examples by heart."""
    reinit_heads: bool = False
    """Draw the last layers of both networks anew when the last stage begins (paper: no). For a clean part so small that
    they were fitted to it by heart."""

    def check(self) -> None:
        """See :class:`RecipeOptions`."""
        super().check()
        require(self, "[0, inf)", "pretrain_epochs", "types_epochs", "clean_weight", "branch_rate")
        if self.strategy != "noise_types":
            refuse_idle(self, f"with `strategy`={self.strategy}", "branch", "clean_weight", "branch_rate")


def branch(options: NoiseTypesOptions, training: Training, data: Dataset) -> Branch:
    """The network of noise types; its own one is without batch normalization, which would need statistics."""
    if options.branch == "shared":
        return shared_trunk()
    if training.model.startswith(("resnet", "preact")):
        options, training = replace(options, widths=None), replace(training, model="convnet")
    network = build_model(options, training, replace(data, class_names=("none", "random", "confusing")))
    return second_backbone(lambda key: network.init(key)[0], lambda p, x: network.apply_test(p, {}, x)["logits"])


def train(options: NoiseTypesOptions, run: Run) -> Result:
    """Data, model, method, stages by strategy, optimizer; then fit, and write what the run leaves."""
    data, training = run.load()
    require_one_label(data, "noise types are")
    trusted, k = data.train.trusted_label, data.num_classes
    if trusted is None:
        raise ArgumentError("noise types learn from trusted labels; add `clean_fraction`=0.1, say")
    known = trusted >= 0
    if absent := sorted(set(range(k)) - set(trusted[known])):
        names = ", ".join(data.class_names[c] for c in absent)
        run.warn(f"no trusted example of {names}; its labels are taken as they are")
    model, schedule = build_model(options, training, data), build_schedule(options, training)
    method, types = trusted_cross_entropy()._replace(name=options.strategy), None
    if options.strategy == "bottom_up":
        method = bottom_up(transitions.from_few_pairs(*pairs_of(data.train), k))
    elif options.strategy == "noise_types":
        confusing = estimate_confusing(*pairs_of(data.train), k).transition
        network = branch(options, training, data)
        types = pretrain_noise_types(confusing, network, branch_rate=options.branch_rate)
        method = noise_types(k, confusing, network, clean_weight=options.clean_weight, branch_rate=options.branch_rate)
    clean, rest = np.flatnonzero(known), np.flatnonzero(~known)
    first = Stage(options.pretrain_epochs, "clean", clean, schedule, trusted_cross_entropy())
    mixed = Stage(training.epochs, "mixed", with_upsampled(known, options.seed), schedule)
    last = Stage(training.epochs, "clean", clean, schedule)
    *before, last = {
        "clean_only": [last],
        "finetune": [Stage(options.pretrain_epochs, "noisy", rest, schedule), last],
        "mixed": [mixed],
        "mixed_pretrained": [first, mixed],
        "bottom_up": [first, mixed],
        "noise_types": [first, Stage(options.types_epochs, "types", clean, schedule, types), mixed],
    }[options.strategy]
    if options.reinit_heads and not any(stage.epochs for stage in before):
        raise ArgumentError(f"{options.strategy} has no stage before its last one: leave out `reinit_heads`")
    stages = [*before, replace(last, reinit_heads=options.reinit_heads)]
    optimizer, observers = build_optimizer(options, training), run.observers(method, data)
    trainer = Trainer(model, method, optimizer, batch_size=training.batch_size, observers=observers)
    fitted = trainer.fit(data.train, jax.random.key(options.seed), stages, state=run.restored(trainer, data, stages))
    return run.export(trainer, fitted, data, pictures=[rank_precision_pictures])


if __name__ == "__main__":
    sys.exit(main(NoiseTypesOptions, train))
