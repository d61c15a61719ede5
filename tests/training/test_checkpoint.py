"""What is saved is what comes back, on any number of devices; what cannot be used is said in one sentence."""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.methods.crf import annealed, crf
from nlx.methods.plain import trusted_cross_entropy
from nlx.training import checkpoint
from nlx.training.checkpoint import CheckpointError, Checkpoints
from nlx.training.loop import Diverged
from nlx.training.mesh import by_example, replicated
from nlx.training.observers import Observer
from nlx.training.stages import Stage
from tests.training.conftest import REMEMBERING, STEPS, Tape, Told, assert_same, compiled, taped, values


class Run(NamedTuple):
    """A trainer, a state of it in the middle of an epoch, and where both live."""

    trainer: Any
    state: Any
    mesh: Any


def in_the_middle(trainer, split):
    """Three steps in."""
    return Run(trainer, trainer.fit(split, jax.random.key(0), Stage(1, rows=np.arange(48))).state, trainer.mesh)


@pytest.fixture(scope="module")
def runs(split, trainer_for):
    """The same training on one device and on eight, a few steps in."""
    return {devices: in_the_middle(trainer_for(split, REMEMBERING, devices), split) for devices in (1, 8)}


def copy(state):
    """A state that may be given away."""
    return jax.tree.map(jnp.copy, state)


def abstract_state(state):
    """Shapes, dtypes and shardings of a state."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


@contextmanager
def opened(folder, about=None):
    """Checkpoints that are closed at the end, as a trainer does."""
    checkpoints = Checkpoints(folder, about=about)
    try:
        yield checkpoints
    except BaseException as error:
        checkpoints.close(error)
        raise
    checkpoints.close(None)


def saved(folder, *states):
    with opened(folder) as checkpoints:
        for state in states:
            checkpoints.save(state)


def load(folder, state):
    with opened(folder) as checkpoints:
        return checkpoints.load(abstract_state(state))


def at(state, step):
    """The state with another step, so that checkpoints can be told apart."""
    return state._replace(step=jax.device_put(np.int32(step), state.step.sharding))


@pytest.mark.parametrize(("there", "here"), [(1, 1), (8, 8), (1, 8), (8, 1)])
def test_a_state_comes_back_as_it_was_on_any_number_of_devices(runs, there, here, tmp_path):
    state, mesh = runs[there].state, runs[here].mesh
    assert int(state.step) == 3
    assert float(state.memory.count.sum()) == 48
    saved(tmp_path, state)
    loaded = load(tmp_path, runs[here].state)
    assert_same(loaded, state)
    assert jnp.issubdtype(loaded.key.dtype, jax.dtypes.prng_key)
    assert loaded.memory.count.sharding.is_equivalent_to(by_example(mesh), 1)
    rest = loaded._replace(memory=())
    assert all(x.sharding.is_equivalent_to(replicated(mesh), x.ndim) for x in jax.tree.leaves(rest))
    assert {d for x in jax.tree.leaves(loaded) for d in x.devices()} == set(mesh.devices.flat)


def test_chains_of_bits_move_to_another_number_of_devices_and_go_on(split, trainer_for, tmp_path):
    """From one device to eight and back; a step on either draws the same chains."""
    tags = np.random.default_rng(0).integers(0, 2, (len(split), 11), dtype=np.uint8)
    method = crf(3, 11, alpha=annealed(2.0, 1.0, 9), auxiliary=None, hidden=2, chains=5, sweeps=2, generator="hash")
    data = replace(split, noisy_label=tags, label=None)
    one, eight = (trainer_for(data, method, devices) for devices in (1, 8))
    start = np.asarray(one.init(jax.random.key(0), data).memory.chains)
    state = in_the_middle(one, data).state
    saved(tmp_path / "one", state)
    with opened(tmp_path / "one") as checkpoints:
        spread = checkpoints.load(eight.abstract_state(data))
    assert_same(spread, state)
    chains = spread.memory.chains
    assert (chains.shape, chains.dtype) == ((256, 5), np.uint8)
    assert chains.sharding.is_equivalent_to(by_example(eight.mesh), 2)
    assert {shard.data.shape for shard in chains.addressable_shards} == {(256 // 8, 5)}
    assert (np.asarray(chains) != start).any(axis=1).sum() > 20  # of the 48 examples that have been visited
    went_on = [
        t.fit(data, jax.random.key(0), 1, state=s).state.memory.chains for t, s in ((eight, spread), (one, state))
    ]
    np.testing.assert_array_equal(*went_on)


def test_a_loaded_state_trains_on_as_the_saved_one(split, runs, tmp_path):
    run = runs[8]
    saved(tmp_path, run.state)
    loaded = load(tmp_path, run.state)
    ours, theirs = (run.trainer.fit(split, jax.random.key(0), 2, state=s).state for s in (loaded, copy(run.state)))
    assert_same(ours, theirs)


def test_a_state_of_a_stage_with_other_metrics_comes_back(split, trainer_for, stepwise, tmp_path):
    """In the middle of either stage, whose steps sum up different things."""
    stages = [Stage(1, "other", method=trusted_cross_entropy()), Stage(1)]
    trainer = trainer_for(split)
    for epoch, names in ((1, {"train_loss"}), (2, {"train_loss", "objective"})):
        checkpoints = Checkpoints(tmp_path / str(epoch))
        stop = Told(lambda events, epoch=epoch: events[-1] == ("progress", epoch, 3))
        trainer.observers = (checkpoints, stop)
        fitted = trainer.fit(split, jax.random.key(0), stages)
        loaded = checkpoints.load(trainer.abstract_state(split))
        checkpoints.close(None)
        trainer.observers = ()
        assert int(fitted.state.step) == (epoch - 1) * STEPS + 3
        assert names <= set(loaded.sums)
        assert ("objective" in loaded.sums) == ("objective" in names)
        assert_same(loaded, fitted.state)


class Book(Checkpoints):
    """Notes what it would write, which takes it some seconds."""

    def __init__(self, folder, seconds, clock, takes=0.0):
        super().__init__(folder, seconds)
        self.steps, self.clock, self.takes = [], clock, takes

    def save(self, state, *, kept=False):
        self.clock.now += 0.0 if kept else self.takes
        self.steps.append((int(state.step), bool(state.sums)))
        self._partial = int(state.step) if state.sums else None


class Now:
    """A clock that others move."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Moves(Observer):
    """Ten seconds go by between looks."""

    def __init__(self, clock):
        self.clock = clock

    def on_progress(self, progress):
        self.clock.now += 10.0


@pytest.mark.parametrize(
    ("seconds", "takes", "steps"),
    [
        # Of each step, within an epoch and before its scores, and after the last ones.
        (0.0, 0.0, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (6, 0)]),
        (25.0, 0.0, [(3, 1), (6, 1), (6, 0)]),
        (5.0, 1.0, [(1, 1), (3, 1), (5, 1), (6, 0)]),  # a second's writing for 20 others
        (1e9, 0.0, [(6, 0)]),
    ],
)
def test_states_are_saved_when_due_and_always_at_the_end(monkeypatch, stepwise, tmp_path, seconds, takes, steps):
    clock = Now()
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=clock))
    book = Book(tmp_path, seconds, clock, takes)
    taped(Tape(1), 3, 2, [Moves(clock), book])
    assert book.steps == [(step, bool(under_way)) for step, under_way in steps]


def test_what_was_saved_before_a_training_diverged_stays(tmp_path):
    checkpoints = Checkpoints(tmp_path, 0.0)
    with pytest.raises(Diverged) as error:
        taped(Tape(3, lambda step: float("nan") if step == 7 else 1.0), 3, 6, [checkpoints])
    checkpoints.close(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3", "6"]


def test_a_folder_of_another_training_is_refused(split, trainer_for, tmp_path):
    """A step that is there already is not written again: its state would be the other training's."""
    with opened(tmp_path) as checkpoints:
        trainer = trainer_for(split, observers=[checkpoints])
        fitted = trainer.fit(split, jax.random.key(0), 2)
        with pytest.raises(CheckpointError) as error:
            trainer.fit(split, jax.random.key(1), 2)
        assert str(error.value) == (
            f"{tmp_path} holds checkpoint 12, but training is to start after step 0: go on with the state that `load` "
            "gives, or choose another folder"
        )
        assert int(trainer.fit(split, jax.random.key(0), 3, state=fitted.state).state.step) == 3 * STEPS
        assert int(checkpoints.load(trainer.abstract_state(split)).step) == 3 * STEPS
    trainer.observers = ()


def test_a_folder_that_cannot_be_made_is_told_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file/mine cannot be made \(Not a directory\)"):
        Checkpoints(tmp_path / "file" / "mine").on_start(None, None, SimpleNamespace(step=0))


def test_giving_the_state_away_while_it_is_written_does_not_spoil_it(runs, tmp_path):
    run = runs[1]
    big = run.state._replace(memory={"seen": run.state.memory, "ballast": jnp.arange(2_000_000.0)})
    spoil = jax.jit(
        lambda state: jax.tree.map(lambda x: x, state)._replace(memory=jax.tree.map(lambda x: x * 0 - 1, state.memory)),
        donate_argnums=0,
    )
    expected = values(big)
    abstract = abstract_state(big)
    with opened(tmp_path) as checkpoints:
        state = copy(big)
        checkpoints.save(state)
        spoiled = spoil(state)
        assert all(x.is_deleted() for x in jax.tree.leaves(state.memory))
        assert float(spoiled.memory["ballast"][5]) == -1
        checkpoints.wait()
        loaded = checkpoints.load(abstract)
    for a, b in zip(values(loaded), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_saving_compiles_no_program_per_array(runs, tmp_path, caplog):
    state = runs[8].state
    state = state._replace(params={f"{i}": jnp.full((8, 3 + i), i) for i in range(9)})
    state = jax.device_put(state, jax.tree.map(lambda x: runs[8].state.step.sharding, state))
    with compiled(caplog) as programs:
        saved(tmp_path, state)
    assert not programs


def test_states_are_written_as_they_are(runs, tmp_path):
    """Compressed ones are held in memory a second time while they are written."""
    state = runs[1].state._replace(memory=jnp.zeros((300, 1000)))
    saved(tmp_path, state)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) > 4 * 300 * 1000


def test_an_empty_folder_holds_nothing(runs, tmp_path):
    assert load(tmp_path / "new", runs[1].state) is None


def test_the_latest_two_are_kept(runs, tmp_path):
    state = runs[1].state
    saved(tmp_path, state, at(state, 4), at(state, 5))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["4", "5"]
    assert int(load(tmp_path, state).step) == 5


def test_a_step_that_is_there_already_is_not_written_again(runs, tmp_path):
    state = runs[1].state
    saved(tmp_path, state)
    before = (tmp_path / "3").stat().st_mtime_ns
    saved(tmp_path, state)
    assert (tmp_path / "3").stat().st_mtime_ns == before


def test_a_state_of_another_model_is_told_by_the_parameter_that_differs(runs, tmp_path):
    saved(tmp_path, runs[1].state)

    def wider(leaf):
        return jnp.zeros((7, 16), leaf.dtype) if leaf.shape == (6, 16) else leaf

    with pytest.raises(CheckpointError) as error:
        load(tmp_path, jax.tree.map(wider, runs[1].state))
    assert str(error.value) == (
        f"checkpoint 3 in {tmp_path} is of another training (params/model/hidden_0/kernel is float32[6, 16] there and "
        "float32[7, 16] here): go on with the model, method and data that it was started with, or choose another folder"
    )


def test_missing_and_unknown_parts_are_named(runs, tmp_path):
    state = runs[1].state
    saved(tmp_path, state)
    with pytest.raises(CheckpointError, match=r"memory/step is int32\[256\] there and missing here"):
        load(tmp_path, state._replace(memory=()))
    with pytest.raises(CheckpointError, match=r"stats/mean is missing there and float32\[\] here"):
        load(tmp_path, state._replace(stats={"mean": jnp.zeros(())}))
    with pytest.raises(CheckpointError, match=r"step is int32\[\] there and float32\[\] here"):
        load(tmp_path, state._replace(step=jnp.zeros(())))


def damage(folder):
    """Cut a file in half, as a full disk or a machine without power does."""
    file = folder / "state" / "_METADATA"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_damaged_checkpoint_is_passed_over_and_written_again(runs, tmp_path):
    state = runs[1].state
    saved(tmp_path, state, at(state, 4))
    damage(tmp_path / "4")
    with opened(tmp_path) as checkpoints:
        assert_same(checkpoints.load(abstract_state(state)), state)
        checkpoints.save(at(state, 4))
    assert_same(load(tmp_path, state), at(state, 4))


@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_checkpoint_that_does_not_say_what_it_is_of_is_damaged(kept, runs, tmp_path):
    state, about = runs[1].state, {"inputs_digest": "1f"}
    with opened(tmp_path, about) as checkpoints:
        checkpoints.save(state)
        checkpoints.save(at(state, 4))
    file = tmp_path / "4" / "_CHECKPOINT_METADATA"
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    with opened(tmp_path, about) as checkpoints:
        assert_same(checkpoints.load(abstract_state(state)), state)
        assert checkpoints.damaged == {4}


@pytest.mark.parametrize(("pattern", "kept"), [("d/*", 0.5), ("array_metadatas/*", 0.5), ("manifest.ocdbt", 0.1)])
def test_arrays_that_cannot_be_read_are_damage_too(runs, tmp_path, pattern, kept):
    """Orbax is not given them, as it leaves reads behind that end in tracebacks."""
    state = runs[1].state
    saved(tmp_path, state, at(state, 4))
    (file,) = (tmp_path / "4" / "state").glob(pattern)
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    with opened(tmp_path) as checkpoints:
        read, given = checkpoints._orbax.load, []
        checkpoints._orbax.load = lambda step, **options: given.append(step) or read(step, **options)
        assert_same(checkpoints.load(abstract_state(state)), state)
        assert given == [3]
        before = (tmp_path / "4").stat().st_mtime_ns
        checkpoints.save(at(state, 4))
        checkpoints.save(at(state, 4))
    assert (tmp_path / "4").stat().st_mtime_ns > before
    assert_same(load(tmp_path, state), at(state, 4))


def test_a_description_of_something_else_is_told_in_one_sentence(runs, tmp_path):
    with opened(tmp_path, {"inputs_digest": "1f"}) as checkpoints:
        checkpoints.save(runs[1].state)
    file = tmp_path / "3" / "_CHECKPOINT_METADATA"
    file.write_text(file.read_text().replace("commit_timestamp", "commiv_timestamp"))
    with pytest.raises(CheckpointError, match=r"cannot be told apart .*: delete the damaged one, or that folder"):
        load(tmp_path, runs[1].state)


def test_where_all_are_damaged_one_sentence_says_so(runs, tmp_path):
    saved(tmp_path, runs[1].state)
    damage(tmp_path / "3")
    with pytest.raises(CheckpointError) as error:
        load(tmp_path, runs[1].state)
    assert str(error.value).startswith(f"no checkpoint in {tmp_path} can be read (")
    assert str(error.value).endswith("): delete that folder to start again")
    assert len(str(error.value)) < 400


def test_what_a_killed_process_was_writing_is_cleared_away(runs, tmp_path):
    state = runs[1].state
    saved(tmp_path, state)
    half = tmp_path / "5.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "state").mkdir()
    (half / "state" / "_METADATA").write_text('{"tree_meta')
    with opened(tmp_path) as checkpoints:
        assert_same(checkpoints.load(abstract_state(state)), state)
        checkpoints.save(at(state, 4))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3", "4"]


def test_a_checkpoint_that_cannot_be_written_says_what_to_do(runs, tmp_path):
    def fail_to_write(*args, **options):
        raise OSError("No space left on device")

    with opened(tmp_path) as checkpoints:
        checkpoints._orbax.save_async = fail_to_write
        with pytest.raises(CheckpointError) as error:
            checkpoints.save(runs[1].state)
    assert str(error.value) == (
        f"could not write a checkpoint to {tmp_path} (No space left on device); free space or fix the folder, then "
        "resume: the checkpoint before is intact"
    )


def test_an_error_under_way_is_the_one_that_is_raised(runs, tmp_path):
    def fail():
        with opened(tmp_path) as checkpoints:
            checkpoints.save(runs[1].state)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert_same(load(tmp_path, runs[1].state), runs[1].state)


def test_a_checkpoint_of_other_data_is_told_by_what_differs(runs, tmp_path):
    state = runs[1].state
    for about, there in (({"labels_digest": "aa"}, None), ({"labels_digest": "bb"}, "aa"), ({"more": "x"}, "missing")):
        checkpoints = Checkpoints(tmp_path, about=about)
        if there is None:
            checkpoints.save(state)
            checkpoints.wait()
            assert_same(checkpoints.load(abstract_state(state)), state)
        else:
            ((name, here),) = about.items()
            with pytest.raises(
                CheckpointError, match=f"is of another training .{name} is {there} there and {here} here"
            ):
                checkpoints.load(abstract_state(state))
        checkpoints.close(None)


def test_an_epoch_that_is_over_takes_the_place_of_the_same_one_under_way(runs, tmp_path):
    over = runs[1].state._replace(sums={})
    under_way = over._replace(sums={"train_loss": jnp.float32(3)})
    saved(tmp_path, under_way)
    with opened(tmp_path) as checkpoints:
        assert checkpoints.load(abstract_state(over)).sums == {"train_loss": 3}
        checkpoints.save(over)
    assert load(tmp_path, over).sums == {}
