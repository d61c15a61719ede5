"""A training that was stopped or killed and then goes on gives, bit for bit, what one that was left alone gives."""

from contextlib import contextmanager
from dataclasses import replace

import jax
import numpy as np
import pytest

from nlx.data import Split
from nlx.methods.crf import annealed, crf
from nlx.methods.plain import trusted_cross_entropy
from nlx.methods.self_learning import corrections, self_learning
from nlx.training.checkpoint import Checkpoints
from nlx.training.observers import Interrupted, Observer
from nlx.training.stages import Stage, step_decay
from tests.training.conftest import REMEMBERING, N, assert_same

EPOCHS = 3


class Killed(Exception):
    pass


class Interrupter(Observer):
    """Stops or kills the training after a given step, or leaves the next one; programs must be of one step."""

    def __init__(self, step=None, kill=False, leave=False):
        self.step, self.kill, self.leave = step, kill, leave

    def on_start(self, trainer, stages, state):
        self.done = int(state.step)

    def on_progress(self, progress):
        self.done += 1
        if self.kill and self.stop_requested():
            raise Killed

    def stop_requested(self):
        return self.done == self.step and not self.leave

    @contextmanager
    def interruptible(self, safe=None):
        if self.leave and safe is not None and self.done == self.step:
            assert safe()
            raise Interrupted
        yield
        assert safe is None or not safe()  # the step has consumed the state


@pytest.fixture(scope="module", params=["device", "stream", "stages", "self_learning", "crf"])
def case(request, split, pictures):
    """Data, method, stages and augmentation of one kind of training."""
    rng = np.random.default_rng(2)
    noisy, clean = (rng.integers(0, 2, (N, k), dtype=np.uint8) for k in (5, 3))
    tags = Split(split.inputs, noisy, clean, trusted=np.arange(N) % 3 == 0)
    options = {"hidden": 2, "chains": 4, "sweeps": 2, "prediction": "mean_field", "generator": "hash"}
    partly = replace(split, trusted=np.arange(N) % 2 == 0)
    with_stages = [
        Stage(1, "clean", np.arange(0, N, 2), step_decay(), trusted_cross_entropy()),
        Stage(1, "all", schedule=step_decay(), fresh_optimizer=True),
        Stage(1, "last", np.arange(64), reinit_heads=True),
    ]
    return {
        "device": (split, REMEMBERING, EPOCHS, "none"),
        "stream": (pictures["files"], REMEMBERING, EPOCHS, "crop-flip"),
        "stages": (partly, REMEMBERING, with_stages, "none"),
        "self_learning": (
            split,
            self_learning(3, refresh_after=corrections(1), prototypes=2, members=16, keep_good=False),
            3,
            "none",
        ),
        "crf": (tags, crf(3, 5, alpha=annealed(2.0, 1.0, 10), auxiliary=None, **options), EPOCHS, "none"),
    }[request.param]


def go(case, trainer_for, *observers, state=None):
    """From a state, or from the beginning, to the end or to a stop."""
    data, method, stages, augmentation = case
    trainer = trainer_for(data, method, observers=observers, augmentation=augmentation)
    with jax.numpy_dtype_promotion("standard"):
        # The key of a state that goes on is its own.
        return trainer.fit(data, jax.random.key(0 if state is None else 7), stages, state=state)


def loaded(case, trainer_for, folder):
    """What another process finds: the state of the last checkpoint."""
    checkpoints = Checkpoints(folder)
    state = checkpoints.load(trainer_for(case[0], case[1], augmentation=case[3]).abstract_state(case[0]))
    checkpoints.close(None)
    return state


@pytest.fixture(scope="module")
def uninterrupted(case, trainer_for):
    """What a training gives that nobody disturbs."""
    fitted = go(case, trainer_for)
    before = trainer_for(case[0], case[1], augmentation=case[3]).init(jax.random.key(0), case[0])
    leaves = zip(jax.tree.leaves_with_path(before.memory), jax.tree.leaves(fitted.state.memory), strict=True)
    for (path, old), new in leaves:  # all of it is of consequence, but that no correction is refused here
        assert (np.asarray(old) != np.asarray(new)).any() or "refused" in jax.tree_util.keystr(path)
    return fitted


def untimed(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "examples_per_second")} for row in history]


@pytest.mark.parametrize(
    "seed",
    [pytest.param(None, marks=pytest.mark.slow), 0, pytest.param(1, marks=pytest.mark.slow)],
    ids=["at epochs' ends", "seed 0", "seed 1"],
)
def test_a_training_stopped_anywhere_goes_on_as_if_nothing_had_been(
    case, trainer_for, uninterrupted, stepwise, tmp_path, seed
):
    """By turns from the state itself and from a checkpoint of it; stopped by request, or as a step is compiled."""
    leave = seed != 0
    ends = [row["step"] for row in uninterrupted.history]
    stops = [0, *ends[:-1]] if leave else ends[:-1]
    if seed is not None:
        stops = sorted(int(s) for s in np.random.default_rng(seed).choice(np.arange(1, ends[-1]), 3, replace=False))
    state, rows = None, []
    for number, step in enumerate(stops):
        fitted = go(case, trainer_for, Checkpoints(tmp_path / "c", 1e9), Interrupter(step, leave=leave), state=state)
        assert fitted.stopped
        assert int(fitted.state.step) == step
        assert str(step) in {p.name for p in (tmp_path / "c").iterdir()}
        rows += fitted.history
        state = fitted.state if number % 2 else loaded(case, trainer_for, tmp_path / "c")
    fitted = go(case, trainer_for, state=state)
    assert not fitted.stopped
    assert_same(fitted.state, uninterrupted.state)
    assert untimed(rows + fitted.history) == untimed(uninterrupted.history)


class KilledAtTheEnd(Observer):
    """Dies as an epoch's scores are to come."""

    def __init__(self, epoch):
        self.epoch = epoch

    def score(self, state, row):
        if row["epoch"] == self.epoch:
            raise Killed


@pytest.mark.parametrize("where", ["within an epoch", pytest.param("before its scores", marks=pytest.mark.slow)])
def test_a_killed_training_goes_on_from_its_last_checkpoint(
    case, trainer_for, uninterrupted, stepwise, tmp_path, where
):
    ends = [row["step"] for row in uninterrupted.history]
    within = where == "within an epoch"
    killer = Interrupter(ends[1] + 2, kill=True) if within else KilledAtTheEnd(2)
    with pytest.raises(Killed):
        go(case, trainer_for, killer, Checkpoints(tmp_path / "c", 0.0))
    # Killed before the checkpoint of its last step: that step is done again.
    kept = [ends[1], ends[1] + 1] if within else [ends[1] - 1, ends[1]]
    assert sorted(int(p.name) for p in (tmp_path / "c").iterdir()) == kept
    fitted = go(case, trainer_for, state=loaded(case, trainer_for, tmp_path / "c"))
    assert_same(fitted.state, uninterrupted.state)
    assert untimed(fitted.history) == untimed(uninterrupted.history[2 if within else 1 :])
