"""The parts that train and score a method: model, step, passes over the data."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import Mesh

from nlx.data.prepare import normalization, preparer, six_views
from nlx.experiment.options import ConfigError, build_model, crop_size, make_optimizer
from nlx.experiment.recipe import Plan
from nlx.experiment.transition import true_transition
from nlx.methods.method import Posterior
from nlx.training.evaluate import Evaluator, Refresher
from nlx.training.feed import Feed, in_order, make_feed
from nlx.training.loop import Diverged, Row
from nlx.training.scores import clean_scores, noisy_score, recovery_scores
from nlx.training.state import TrainState, init_state, make_mesh, redraw_heads
from nlx.training.step import batch_for_method, make_step

_EVALUATION_BATCH = 512


class Assembly:
    """Everything of a run that does not depend on its seed.

    Args:
      plan: what is to be trained on what.
      mesh: where; all devices there are by default.

    Attributes:
      plan: what it was made for.
      mesh: where it runs.
      step: the training step, not yet jitted.
      redraw: gives a state fresh last layers; the old one is consumed.
      refresh: lets the method look at the whole training set between epochs; None where it does not want to.

    Raises:
      ConfigError: a model or crops that do not fit the data.
    """

    def __init__(self, plan: Plan, mesh: Mesh | None = None):
        config, dataset, method = plan.config, plan.dataset, plan.method
        assert config.augmentation is not None
        self.plan, self.mesh = plan, mesh or make_mesh()
        self._model = build_model(config, dataset)
        size = crop_size(config, dataset)
        mean, scale = normalization(dataset.train.inputs)
        prepare = preparer(mean, scale, augmentation=config.augmentation, size=size)
        self._optimizer = make_optimizer(config, plan.course.total)
        self.step = make_step(self._model, method, self._optimizer, prepare, self.mesh)
        self._batch = -(-_EVALUATION_BATCH // self.mesh.size) * self.mesh.size
        self._sample = batch_for_method(next(in_order(dataset.train, self.mesh.size, self.mesh))[0], prepare, None)
        self._evaluator = self._tester = Evaluator(self._model, method, prepare, self.mesh)
        if config.six_crops:
            if size is None:
                raise ConfigError("--six_crops needs images stored larger than the model sees them; leave it out")
            self._tester = Evaluator(self._model, method, preparer(mean, scale), self.mesh, six_views(size))
        self.refresh: Refresher | None = None
        if method.refresh is not None:
            self.refresh = Refresher(self._model, method, prepare, self.mesh, dataset.train, self._batch)
        self.redraw = redraw_heads(self._model, method, self._sample, self.mesh)
        self._truth = true_transition(dataset)

    def start(self, seed: int) -> TrainState:
        """The state of a seed at step 0."""
        method, size = self.plan.method, len(self.plan.dataset.train)
        return init_state(jax.random.key(seed), self._model, method, self._optimizer, self._sample, size, self.mesh)

    def feed(self, seed: int) -> Feed:
        """What takes a seed's steps.

        Raises:
          DataError: the batch does not divide over the devices.
        """
        key = jax.random.key(seed)
        return make_feed(self.plan.dataset.train, self.plan.course, self.step, seed, key, self.mesh)

    def posterior(self, state: TrainState) -> Posterior:
        """The method's posterior of every training example.

        Raises:
          Diverged: it is not finite, as after a last update that threw the weights over.
        """
        found = self._evaluator.posterior(state, in_order(self.plan.dataset.train, self._batch, self.mesh))
        if not all(np.isfinite(probs).all() for probs in found.candidates.values()):
            at = f"after step {int(state.step)}"
            raise Diverged(f"the posterior is not finite {at}: take a lower --learning_rate and another --run_dir")
        return found

    def features(self, state: TrainState, rows: np.ndarray) -> np.ndarray:
        """The backbone's features of some training examples, float32 ``[len(rows), F]``."""
        part = self.plan.dataset.train.take(rows)
        return self._evaluator.features(state, in_order(part, self._batch, self.mesh))

    def evaluate(self, state: TrainState) -> Row:
        """All scores of a state, as they go into metrics.jsonl."""
        dataset, held_out, method = self.plan.dataset, self.plan.held_out, self.plan.method
        row: Row = {}
        if dataset.test is not None:
            assert dataset.test.label is not None
            scores = self._tester.scores(state, in_order(dataset.test, self._batch, self.mesh))
            row |= clean_scores(scores, dataset.test.label)
        if held_out is not None:
            scores = self._tester.scores(state, in_order(held_out, self._batch, self.mesh))
            row["validation_score"] = noisy_score(scores, dataset.given(held_out))
        if dataset.train.label is not None:
            row |= recovery_scores(self.posterior(state), dataset.train)
        if method.transition is not None and self._truth is not None:
            learned = method.transition(state.params["method"])
            row["transition_mae"] = float(np.abs(learned - self._truth).mean())
        return row
