"""A run that was stopped or killed and then resumed gives, bit for bit, what one that was left alone gives."""

import jax
import numpy as np
import pytest
from PIL import Image

from nlx.data import ImageFiles, Split
from nlx.methods.crf import annealed, crf
from nlx.methods.self_learning import corrections, self_learning
from nlx.training.checkpoint import Checkpoints, abstract_state
from nlx.training.evaluate import Refresher
from nlx.training.feed import StreamFeed, in_order
from nlx.training.loop import MetricsLog, Stopped

EPOCHS, STEPS = 3, 6  # of 16 examples


class Killed(Exception):
    pass


class Interrupter:
    """Asks for a stop, or kills the run, when a given step of a given epoch is done, or after that epoch's row."""

    def __init__(self, epoch, step=None, kill=False):
        self.when, self.kill, self.asked = (epoch, step), kill, False

    def progress(self, epoch, done, total, loss, rate):
        if self.when[1] is not None and (epoch, done) >= self.when:
            self.now()

    def epoch(self, row):
        if self.when == (row["epoch"], None):
            self.now()

    def now(self):
        if self.kill:
            raise Killed
        self.asked = True


@pytest.fixture(scope="module")
def pictures(split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(1)
    for i in range(len(split)):
        Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    paths = tuple(str(folder / f"{i}.png") for i in range(len(split)))
    return Split(ImageFiles(paths, 4), split.noisy_label, split.label)


@pytest.fixture(scope="module")
def tags(split):
    """The same examples with noisy labels of another vocabulary, a third of the clean ones trusted."""
    rng = np.random.default_rng(2)
    noisy, clean = (rng.integers(0, 2, (len(split), k), dtype=np.uint8) for k in (5, 3))
    return Split(split.inputs, noisy, clean, trusted=np.arange(len(split)) % 3 == 0)


@pytest.fixture(scope="module", params=["device", "stream", "self_learning", "crf"])
def start(request, split, pictures, tags, remembering, new_run):
    """Function that makes a fresh state and feed of one kind, and looks at the outside world every second step."""
    options = {"hidden": 2, "chains": 4, "sweeps": 2, "prediction": "mean_field", "generator": "hash"}
    data, method = {
        "device": (split, remembering),
        "stream": (pictures, remembering),
        "self_learning": (split, self_learning(3, refresh_after=corrections(1), prototypes=2, members=16)),
        "crf": (tags, crf(3, 5, alpha=annealed(2.0, 1.0, 10), auxiliary=None, **options)),
    }[request.param]

    refreshers = []

    def make():
        run = new_run(data, method, augmentation="none" if data is not pictures else "crop-flip")
        assert isinstance(run.feed, StreamFeed) == (request.param == "stream")
        run.feed.longest = 2
        if method.refresh and not refreshers:
            refreshers.append(Refresher(run.model, method, run.prepare, run.mesh, data, 32))
        return run, data, refreshers[0] if refreshers else None

    return make


def go(start, train, folder, watcher, checkpoint_seconds=1e9):
    """One process: everything made anew, the last checkpoint loaded if there is one, and on to the end."""
    run, data, refresh = start()
    with Checkpoints(folder / "checkpoints") as checkpoints:
        loaded = checkpoints.load(abstract_state(run.state))
        state = run.state if loaded is None else loaded
        log = MetricsLog(folder / "metrics.jsonl", int(state.step))
        state = train(
            run,
            state,
            epochs=EPOCHS,
            refresh=refresh,
            evaluate=lambda state: {"score": float(run.evaluator.scores(state, in_order(data, 32, run.mesh)).sum())},
            log=log,
            checkpoints=checkpoints,
            checkpoint_seconds=checkpoint_seconds,
            watcher=watcher,
            should_stop=lambda: watcher.asked,
        )
    return state, log.rows


@pytest.fixture(scope="module")
def uninterrupted(start, train, tmp_path_factory):
    """Final state and rows of a run that nobody disturbs."""
    first = jax.tree.map(np.asarray, start()[0].state.memory)
    state, rows = go(start, train, tmp_path_factory.mktemp("whole"), Interrupter(None))
    for name, leaf in first.items():
        assert (np.asarray(state.memory[name]) != leaf).any(), name  # all of it is of consequence
    return state, rows


def assert_same_run(found, expected):
    (state, rows), (other, other_rows) = found, expected
    assert jax.tree.structure(state) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)
    timing = {"seconds", "examples_per_second"}
    strip = [[{k: v for k, v in row.items() if k not in timing} for row in r] for r in (rows, other_rows)]
    assert strip[0] == strip[1]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert {"train_loss", "score"} < set(rows[0])


@pytest.mark.parametrize(
    ("epoch", "step"), [(2, 3), (1, STEPS), (2, None)], ids=["mid-epoch", "last step of an epoch", "after an epoch"]
)
def test_a_stopped_run_goes_on_as_if_nothing_had_been(start, train, uninterrupted, tmp_path, epoch, step):
    with pytest.raises(Stopped) as stop:
        go(start, train, tmp_path, Interrupter(epoch, step))
    expected = {(2, 3): {9, 10}, (1, STEPS): {6}, (2, None): {12}}[epoch, step]
    assert stop.value.step in expected
    assert str(stop.value) == f"stopped after step {stop.value.step}"
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [str(stop.value.step)]
    assert_same_run(go(start, train, tmp_path, Interrupter(None)), uninterrupted)


def test_a_killed_run_goes_on_from_its_last_checkpoint(start, train, uninterrupted, tmp_path):
    """Between the checkpoint at step 6 and the end of the process a row was written that is then written again."""
    with pytest.raises(Killed):
        go(start, train, tmp_path, Interrupter(2, None, kill=True), checkpoint_seconds=0.0)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["6"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert_same_run(go(start, train, tmp_path, Interrupter(None)), uninterrupted)
