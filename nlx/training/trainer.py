"""The trainer: a backbone, a method and an optimizer, trained on data that are given to ``fit``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.sharding import Mesh

from nlx.arguments import ArgumentError
from nlx.data.dataset import ImageFiles, Inputs, Split
from nlx.methods.method import Method, Posterior
from nlx.models import Model, from_nnx
from nlx.training import evaluation
from nlx.training.feed import Program, batch_shapes, make_feed, make_program, on_device
from nlx.training.given import Data, as_split, inputs_only, trainable
from nlx.training.loop import Diverged, Fitted, run_stages
from nlx.training.members import common_plan, devices_of_members, member_plans, run_members
from nlx.training.mesh import MODEL, Layout, check_batch, layout, make_mesh, replicated
from nlx.training.observers import Observer, Row, as_observers, closing
from nlx.training.passes import Passes
from nlx.training.stages import Position, Stage, Stages
from nlx.training.state import HEADS, TrainState, abstract, fitting, key_for, reinit_heads, state_maker, state_shardings
from nlx.training.step import make_step


class Trainer:
    """Trains a backbone and a method together; data and key are given to :meth:`fit`.

    It prints nothing, writes nothing and touches no signal; whoever wants to look on is an observer.

    Args:
      model: a :class:`nlx.models.Model`, or your own Flax module: ``rngs -> nnx.Module``, or an instance, whose
        parameters are then the start. It maps inputs ``[B, ...]`` to logits ``[B, K]``, or to a dict of ``logits`` and
        ``features``.
      method: the system to train.
      optimizer: an optax optimizer of the parameters ``{"model": ..., "method": ...}``.
      batch_size: B, over all devices.
      mesh: where it runs; all devices there are by default.
      observers: told how a training goes, in this order: :class:`~nlx.training.observers.Observer`, or functions of an
        epoch's row.
      shard_params: whether wide parameters, and what the optimizer keeps for them, are split over the mesh in place of
        lying on every device, see :func:`nlx.training.placement.shardings`.
      spread_data: whether a training set in memory is spread over the mesh by example in place of lying on every
        device; batches are the same.
      shuffle_groups: into how many groups of neighbours, a multiple of the devices, :meth:`fit` cuts the training set
        to shuffle each by itself; a batch takes as many examples from each, and what is kept of them lies on the device
        that visits them. 1 shuffles all, and sends rows of memory between devices.

    Where the last three are None, a trainer with a mesh splits nothing, and one without does as the layout says
    (:func:`nlx.training.mesh.laid_out`).

    Raises:
      ArgumentError: the batch does not divide over the devices or groups, or these not over the devices.

    Examples:
      >>> import nlx, optax
      >>> from nlx.methods.plain import plain
      >>> inputs, labels = np.eye(8, dtype=np.float32), np.arange(8) % 2
      >>> mesh = make_mesh(jax.devices()[:1])
      >>> model = nlx.models.build("mlp", (8,), 2, widths=(4,))
      >>> trainer = Trainer(model, plain(nlx.losses.cross_entropy), optax.sgd(0.5), batch_size=4, mesh=mesh)
      >>> fitted = trainer.fit((inputs, labels), jax.random.key(0), stages=20)
      >>> trainer.predict(fitted.state, inputs).shape, len(fitted.history)
      ((8, 2), 20)
    """

    def __init__(
        self,
        model: Model | nnx.Module | Callable[[nnx.Rngs], nnx.Module],
        method: Method,
        optimizer: optax.GradientTransformation,
        *,
        batch_size: int = 128,
        mesh: Mesh | None = None,
        observers: Iterable[Observer | Callable[[Row], object]] = (),
        shard_params: bool | None = None,
        spread_data: bool | None = None,
        shuffle_groups: int | None = None,
    ):
        self.model = model if isinstance(model, Model) else from_nnx(model)
        self.method, self.optimizer, self.batch_size = method, optimizer, batch_size
        wanted = layout() if mesh is None else Layout()
        self.mesh = make_mesh() if mesh is None else mesh
        self.shard_params = wanted.shard_params if shard_params is None else shard_params
        self.spread_data = wanted.spread_data if spread_data is None else spread_data
        self.shuffle_groups = wanted.shuffle_groups if shuffle_groups is None else shuffle_groups
        self.observers = as_observers(observers)
        check_batch(batch_size, self.mesh.size, self.shuffle_groups)
        self._passes = Passes(self.model, method, self.mesh)
        self._programs: dict[Any, Program] = {}
        self._names: dict[Program, list[str]] = {}
        self._makers: dict[Any, Callable[[Array], TrainState]] = {}

    def init(self, key: Array, data: Data) -> TrainState:
        """The state at step 0 of a training on data of this form.

        Args:
          key: typed PRNG key.
          data: what is to be trained on; only the form of the inputs and the number of examples matter.
        """
        state: TrainState = self._maker(as_split(data))(key)
        return state

    def abstract_state(self, data: Data) -> TrainState:
        """Shapes, dtypes and shardings of :meth:`init`'s state, to restore a checkpoint into; nothing is allocated."""
        return abstract(self._maker(as_split(data)), self.mesh, self.shard_params)

    def fit(
        self, data: Data, key: Array, stages: int | Stage | Sequence[Stage] = 20, *, state: TrainState | None = None
    ) -> Fitted:
        """Train to the end of the stages, from wherever the state is.

        Args:
          data: training examples with noisy labels.
          key: typed PRNG key that everything random follows from; a given state has its own.
          stages: what is visited when; a number is one stage of so many epochs.
          state: to go on with, bit for bit as if it had never stopped; it is consumed.

        Returns:
          The last state and a row per epoch.

        Raises:
          ArgumentError: data, stages and batch do not fit together.
          Diverged: the loss is not finite.
        """
        split = trainable(data, self.model)
        plan = Stages(stages, len(split), self.batch_size)
        state = self.init(key, split) if state is None else fitting(state, self.abstract_state(split))
        programs = self._stage_programs(plan)
        feed = make_feed(split, plan, programs, state.key, self.mesh, self.spread_data, self.shuffle_groups)
        with closing(self.observers):
            for observer in self.observers:
                observer.on_start(self, plan, state)
            return run_stages(
                state,
                plan,
                feed,
                begin_epoch=lambda state, at: self._begin_epoch(state, split, plan, at, programs),
                refresh=lambda state, epochs: self._passes.refresh(state, split, epochs),
                observers=self.observers,
            )

    def fit_many(
        self,
        data: Data,
        keys: Array,
        stages: int | Stage | Sequence[Stage] = 20,
        *,
        rows: Sequence[np.ndarray] | None = None,
    ) -> Fitted:
        """Train several members side by side in one program: seeds, folds, or both.

        On an accelerator a small network leaves most of the device idle, and members trained together fill it. The data
        are shared; orders, initial weights and draws are each member's own. On a CPU, which gains nothing there, those
        with convolutions go one after the other within the program. Arithmetic is batched, so that a member
        agrees with :meth:`fit` under its key up to rounding, which training then magnifies. Observers are not told.

        On several devices of one process each trains members of its own and sends nothing, where they come out even on
        more than half of the devices, and neither parameters nor data are to be split.

        Args:
          data: training examples in memory.
          keys: one typed PRNG key for each member, ``[m]``.
          stages: what is visited when.
          rows: rows of the training set that each member may visit, within those of a stage; None for all. Members take
            the same number of steps: in a stage, as many as the member with the fewest rows of it can.

        Returns:
          States with a leading axis, and a row per epoch whose metrics are arrays over members.

        Raises:
          ArgumentError: files that stay on disk, or what :meth:`fit` raises.
          Diverged: the loss of a member is not finite.
        """
        split = trainable(data, self.model)
        if isinstance(split.inputs, ImageFiles):
            raise ArgumentError("members train together from memory only: raise `in_memory_gib`, or fit one by one")
        plans = member_plans(Stages(stages, len(split), self.batch_size), rows, len(keys), len(split))
        common = common_plan(plans, len(split))
        splits = self.spread_data or self.shard_params or MODEL in self.mesh.shape  # which is for what is large
        apart = None if splits else devices_of_members(self.mesh, len(keys))
        programs = self._stage_programs(common, members=True, apart=apart)
        return run_members(
            [self.init(key, split) for key in keys],
            plans,
            common,
            programs,
            on_device(split, apart or self.mesh, self.spread_data),
            begin_stage=lambda state, at: self._begin_stage(state, split, common.all[at.stage]),
            sum_names=lambda at: self._sum_names(split, programs[at.stage]),
            refresh=None if self.method.refresh is None else lambda s, epochs: self._passes.refresh(s, split, epochs),
            apart=apart,
            home=lambda state: state_shardings(state, self.mesh, self.shard_params),
        )

    def posterior(
        self, state: TrainState, data: Data, *, whole: bool = True, rows: np.ndarray | None = None
    ) -> Posterior:
        """The method's posterior of every example of a training set, or of some rows of it, as NumPy arrays.

        Args:
          state: of a training on these data: memory goes by position.
          data: with noisy labels.
          whole: with the probabilities of all classes, or only of the likeliest (:class:`nlx.methods.top.Top`).
          rows: of the data, int; None for all.

        Raises:
          Diverged: it is not finite.
        """
        posterior = self._passes.posterior(state, as_split(data), whole, rows)
        if not all(np.isfinite(x).all() for c in posterior.candidates.values() for x in jax.tree.leaves(c.probs)):
            raise Diverged(f"the posterior is not finite after step {int(state.step)}: take a lower `learning_rate`")
        return posterior

    def scores(self, state: TrainState, inputs: Inputs | Split) -> np.ndarray:
        """The method's scores for inputs alone, log-odds or logits, float32 ``[n, K]``."""
        return self._passes.scores(state, inputs_only(inputs))

    def predict(self, state: TrainState, inputs: Inputs | Split, *, multi_label: bool = False) -> np.ndarray:
        """Class probabilities for inputs alone: a softmax, or one sigmoid per class, float32 ``[n, K]``."""
        scores = jnp.asarray(self.scores(state, inputs))
        return np.asarray(jax.nn.sigmoid(scores) if multi_label else jax.nn.softmax(scores))

    def features(self, state: TrainState, inputs: Inputs | Split) -> np.ndarray:
        """The backbone's features, float32 ``[n, F]``."""
        return self._passes.features(state, inputs_only(inputs))

    def evaluate(self, state: TrainState, data: Data) -> Row:
        """Scores of predictions against the true labels of a split, or against its noisy ones where it has no others.

        Returns:
          ``accuracy`` (single-label), ``map`` and ``map_11_point``.
        """
        split = as_split(data)
        labels = split.noisy_label if split.label is None else split.label
        if labels is None:
            raise ArgumentError("there are no labels to compare predictions with")
        return evaluation.against(self.scores(state, split), labels)

    def _maker(self, split: Split) -> Callable[[Array], TrainState]:
        """The function from a key to the first state, made once for each form of data."""
        if (form := (split.inputs.shape[1:], split.inputs.dtype, len(split))) not in self._makers:
            about = (self.model, self.method, self.optimizer, split, self.mesh, self.shard_params)
            self._makers[form] = state_maker(*about, self.shuffle_groups)
        return self._makers[form]

    def _stage_programs(self, plan: Stages, members: bool = False, apart: Mesh | None = None) -> list[Program]:
        """A program for each stage, of one training or of members, which do not go by groups.

        Stages that differ in neither method nor schedule share one.
        """
        programs, local = [], self.shuffle_groups > 1 and not members
        for stage, start, steps in zip(plan.all, plan.starts, plan.steps, strict=True):
            # Its length and its begin matter to a schedule alone.
            key = (stage.method, stage.schedule, *((start, steps) if stage.schedule else ()), apart, local)
            if key not in self._programs:
                rate = None
                if stage.schedule is not None:
                    factor = stage.schedule(steps)
                    rate = lambda step, factor=factor, start=start: factor(jnp.float32(step - start))  # noqa: E731
                mesh = self.mesh if apart is None else None
                make = partial(make_step, self.model, self.method, self.optimizer, mesh, rate=rate)
                step = make(loss_of=stage.method, shard_params=self.shard_params, local=local)
                spread = self.mesh if local and self.spread_data else None
                self._programs[key] = make_program(step, self.batch_size, apart, spread)
            programs.append(self._programs[key])
        return programs

    def _begin_epoch(
        self, state: TrainState, split: Split, plan: Stages, at: Position, programs: list[Program]
    ) -> TrainState:
        """The state with empty sums, and with what a stage wants to be new where it begins."""
        if int(state.step) == plan.starts[at.stage]:
            state = self._begin_stage(state, split, plan.all[at.stage])
        names = self._sum_names(split, programs[at.stage])
        return state._replace(sums={n: jax.device_put(np.float32(0), replicated(self.mesh)) for n in names})

    def _begin_stage(self, state: TrainState, split: Split, stage: Stage) -> TrainState:
        """The state with what a stage wants to be new."""
        if stage.fresh_optimizer:
            placed = state_shardings(state, self.mesh, self.shard_params).opt_state
            state = state._replace(opt_state=jax.jit(self.optimizer.init, out_shardings=placed)(state.params))
        if stage.reinit_heads:
            state = reinit_heads(state, self._maker(split)(key_for(state, HEADS, state.step)))
        return state

    def _sum_names(self, split: Split, program: Program) -> list[str]:
        """Names of the metrics of a program's steps."""
        if program not in self._names:
            form, batch = self.abstract_state(split), batch_shapes(split, self.batch_size)
            self._names[program] = list(jax.eval_shape(program.step, form, batch)[1])
        return self._names[program]
