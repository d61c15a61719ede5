"""CleanNet: a second network learns from a few verified labels how much the others fit their examples (Lee et al.).

  python recipes/clean_net.py --dataset=digits --noise=symmetric:0.4 --clean_fraction=0.1   # seconds, accuracy 91.4 %
Trusted labels come from --clean_fraction, a column of the data, or --dataset=food101n --labels=verified; where none of
the labels given there is known to be wrong, right ones are taken as wrong labels for the other classes.
Its twin for comparison is recipes/baseline.py with the same options but that one, which learns from no trusted labels:
76.9 % there.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import jax

from nlx import Stage, Trainer
from nlx.arguments import ArgumentError
from nlx.experiment.defaults import build_model, build_optimizer, build_schedule, require_one_label
from nlx.experiment.main import main
from nlx.experiment.options import RecipeOptions, refuse_idle, require
from nlx.experiment.run import Result, Run
from nlx.methods.clean_net import clean_net
from nlx.methods.self_learning import corrections
from nlx.methods.verified import known_right, known_wrong


@dataclass(frozen=True)
class CleanNetOptions(RecipeOptions):
    """Options of CleanNet, after those of every recipe."""

    clean_fraction: float = 0.1
    """Share of the training examples whose true label is trusted."""
    warm_up: float = 0.1
    """Share of the epochs on the labels as they are, before CleanNet first learns, in (0, 1)."""
    every: float = 0.2
    """Share of the epochs between two of its turns, in (0, 1] (paper: classifier and CleanNet alternate)."""
    references: int = 50
    """Features that stand for a class (paper 50)."""
    width: int = 128
    """Units of its layers and embeddings."""
    cleannet_steps: int = 200
    """Batches of a turn, of 64 verified and 64 other examples; few verified labels are learned by heart in many."""
    cleannet_rate: float = 0.002
    """Learning rate of its Adam."""
    margin: float = 0.1
    """rho, up to which a wrong label's cosine is no loss, in [0, 1) (paper 0.1)."""
    reconstruction_weight: float = 0.1
    """beta, weight of the auto-encoder's loss (paper 0.1)."""
    pseudo_weight: float = 0.1
    """gamma, weight of what unverified labels say of themselves (paper 0.1)."""

    def check(self) -> None:
        """See :class:`RecipeOptions`."""
        super().check()
        require(self, "(0, 1)", "warm_up")
        require(self, "(0, 1]", "every")
        require(self, "[1, 10000]", "references", "width")
        require(self, "[1, inf)", "cleannet_steps")
        require(self, "(0, inf)", "cleannet_rate")
        require(self, "[0, 1)", "margin")
        require(self, "[0, inf)", "reconstruction_weight", "pseudo_weight")
        refuse_idle(self, "in CleanNet, which keeps something for each example", "mix")


def train(options: CleanNetOptions, run: Run) -> Result:
    """Data, model, method, optimizer; then fit, and write what the run leaves."""
    data, training = run.load()
    require_one_label(data, "CleanNet is")
    given, trusted = data.train.observed, data.train.trusted_label
    if trusted is None or not known_right(given, trusted).any():
        raise ArgumentError("CleanNet learns from trusted labels, of which some are right; raise `clean_fraction`, say")
    if not known_wrong(given, trusted).any():
        run.warn("no trusted label is wrong; CleanNet takes the right ones as wrong labels for the other classes")
    model = build_model(options, training, data)
    start, every = (max(1, round(share * training.epochs)) for share in (options.warm_up, options.every))
    method = clean_net(
        data.num_classes,
        refresh_after=corrections(start, every),
        references=options.references,
        width=options.width,
        steps=options.cleannet_steps,
        rate=options.cleannet_rate,
        margin=options.margin,
        reconstruction_weight=options.reconstruction_weight,
        pseudo_weight=options.pseudo_weight,
    )
    optimizer, observers = build_optimizer(options, training), run.observers(method, data, warm_up_epochs=start)
    trainer = Trainer(model, method, optimizer, batch_size=training.batch_size, observers=observers)
    stage = Stage(training.epochs, schedule=build_schedule(options, training))
    fitted = trainer.fit(data.train, jax.random.key(options.seed), stage, state=run.restored(trainer, data, stage))
    return run.export(trainer, fitted, data)


if __name__ == "__main__":
    sys.exit(main(CleanNetOptions, train))
