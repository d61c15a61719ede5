"""A training that was stopped or killed and then goes on gives, bit for bit, what one that was left alone gives."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from nlx.data import Split
from nlx.methods.crf import annealed, crf
from nlx.methods.plain import trusted_cross_entropy
from nlx.methods.self_learning import corrections, self_learning
from nlx.training.checkpoint import Checkpoints
from nlx.training.observers import Observer
from nlx.training.stages import Stage, step_decay
from tests.training.conftest import REMEMBERING, STEPS, N, assert_same

EPOCHS = 3


class Killed(Exception):
    pass


class Interrupter(Observer):
    """Asks for a stop, or kills the training, when a step is done, or after an epoch's row."""

    def __init__(self, epoch, done=None, kill=False):
        self.when, self.kill, self.asked = (epoch, done), kill, False

    def on_progress(self, progress):
        if self.when[1] is not None and (progress.epoch, progress.done) >= self.when:
            self.now()

    def on_epoch(self, state, row):
        if self.when == (row["epoch"], None):
            self.now()

    def now(self):
        if self.kill:
            raise Killed
        self.asked = True

    def stop_requested(self):
        return self.asked


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
        "self_learning": (split, self_learning(3, refresh_after=corrections(1), prototypes=2, members=16), 3, "none"),
        "crf": (tags, crf(3, 5, alpha=annealed(2.0, 1.0, 10), auxiliary=None, **options), EPOCHS, "none"),
    }[request.param]


def go(case, trainer_for, folder, interrupter, seconds=1e9):
    """One process: everything made anew, the last checkpoint loaded if there is one, and on to the end."""
    data, method, stages, augmentation = case
    checkpoints = Checkpoints(folder, seconds)
    trainer = trainer_for(data, method, observers=[checkpoints, interrupter], augmentation=augmentation)
    with jax.numpy_dtype_promotion("standard"):
        state = checkpoints.load(trainer.abstract_state(data))
        # The key of a state that goes on is its own.
        return trainer.fit(data, jax.random.key(0 if state is None else 7), stages, state=state)


@pytest.fixture(scope="module")
def uninterrupted(case, trainer_for, tmp_path_factory):
    """What a training gives that nobody disturbs."""
    fitted = go(case, trainer_for, tmp_path_factory.mktemp("whole") / "c", Interrupter(None))
    before = trainer_for(case[0], case[1], augmentation=case[3]).init(jax.random.key(0), case[0])
    for old, new in zip(jax.tree.leaves(before.memory), jax.tree.leaves(fitted.state.memory), strict=True):
        assert (np.asarray(old) != np.asarray(new)).any()  # all of it is of consequence
    return fitted


def assert_goes_on(fitted, expected):
    assert_same(fitted.state, expected.state)
    timing = {"seconds", "examples_per_second"}
    strip = [[{k: v for k, v in row.items() if k not in timing} for row in f.history] for f in (fitted, expected)]
    assert strip[0] == strip[1][len(strip[1]) - len(strip[0]) :]


@pytest.mark.parametrize(
    ("epoch", "done"), [(1, 1), (2, 1), (1, None), (2, None)], ids=["at once", "mid-epoch", "after one", "after two"]
)
def test_a_stopped_training_goes_on_as_if_nothing_had_been(case, trainer_for, uninterrupted, tmp_path, epoch, done):
    stopped = go(case, trainer_for, tmp_path / "c", Interrupter(epoch, done))
    assert stopped.stopped
    assert [p.name for p in (tmp_path / "c").iterdir()] == [str(int(stopped.state.step))]
    assert_goes_on(go(case, trainer_for, tmp_path / "c", Interrupter(None)), uninterrupted)


def test_a_killed_training_goes_on_from_its_last_checkpoint(case, trainer_for, uninterrupted, tmp_path):
    with pytest.raises(Killed):
        go(case, trainer_for, tmp_path / "c", Interrupter(3, 1, kill=True), seconds=0.0)
    steps = sorted(int(p.name) for p in (tmp_path / "c").iterdir())
    assert len(steps) == 2
    if case[2] == EPOCHS:
        assert steps == [STEPS, 2 * STEPS]
    assert_goes_on(go(case, trainer_for, tmp_path / "c", Interrupter(None)), uninterrupted)
