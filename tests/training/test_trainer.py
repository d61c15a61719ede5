"""The trainer as a guest in somebody's own code: own model, own optimizer, plain arrays; quiet wherever it runs."""

import asyncio
import signal
import tempfile
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import nlx
from nlx.arguments import ArgumentError
from nlx.data import DataError, Dataset, Split
from nlx.losses import generalized_cross_entropy
from nlx.methods.icnm import icnm
from nlx.methods.plain import cross_entropy, plain
from nlx.training.checkpoint import Checkpoints
from nlx.training.mesh import make_mesh
from tests.training.conftest import assert_same, counted

RNG = np.random.default_rng(0)
TRUE = RNG.integers(0, 3, 240)
X = 3 * np.eye(3, 7)[TRUE] + RNG.normal(size=(240, 7))  # float64, as NumPy has it
NOISY = np.where(RNG.uniform(size=240) < 0.2, (TRUE + 1) % 3, TRUE)


class Net(nnx.Module):
    """A user's own: batch statistics, dropout with its own random stream, logits and nothing else."""

    def __init__(self, rngs):
        self.inner = nnx.Linear(7, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.outer = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, x):
        return self.outer(self.dropout(nnx.relu(self.norm(self.inner(x)))))


def notebook(make=Net):
    """What a user writes."""
    method = plain(generalized_cross_entropy)
    mesh = make_mesh(jax.devices()[:1])
    trainer = nlx.Trainer(make, method, optax.adam(1e-2), batch_size=48, mesh=mesh)
    with jax.numpy_dtype_promotion("standard"):  # as users have it; optax's adam needs it
        fitted = trainer.fit((X, NOISY), jax.random.key(0), stages=15)
    return trainer, fitted


@pytest.fixture
def quiet(capfd, caplog, tmp_path, monkeypatch):
    """Fails where anything was printed, logged, written, or done to a signal's handler."""
    for name in ("cwd", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    yield
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cwd", "temporary"]
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == handlers


def test_a_notebook_trains_twice_and_says_nothing(quiet):
    trainer, fitted = notebook()
    _, again = notebook()
    assert_same(fitted.state, again.state)
    assert len(fitted.history) == 15
    assert np.mean(trainer.predict(fitted.state, X).argmax(1) == TRUE) > 0.9
    assert trainer.evaluate(fitted.state, (X, TRUE))["accuracy"] > 0.9
    assert trainer.posterior(fitted.state, (X, NOISY)).candidates["classifier"].probs.shape == (240, 3)


def test_in_a_thread_and_under_a_running_event_loop(quiet):
    _, expected = notebook()
    results = []
    thread = threading.Thread(target=lambda: results.append(notebook()[1]))
    thread.start()
    thread.join()

    async def cell():
        return notebook()[1]

    results.append(asyncio.run(cell()))
    for fitted in results:
        assert_same(fitted.state, expected.state)


def test_an_instance_brings_its_own_parameters_and_stays_as_it_was(quiet):
    module = Net(nnx.Rngs(3))
    before = jax.tree.map(np.asarray, nnx.state(module, nnx.Param))
    trainer, fitted = notebook(module)
    state = trainer.init(jax.random.key(9), (X, NOISY))
    np.testing.assert_array_equal(state.params["model"]["inner"]["kernel"], before["inner"]["kernel"].get_value())
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, nnx.state(module, nnx.Param)))
    assert (fitted.state.stats["norm"]["mean"] != 0).any()


def test_a_users_own_model_resumes_from_a_checkpoint(tmp_path):
    """Its random streams and statistics are in the state."""
    method, mesh = plain(cross_entropy), make_mesh(jax.devices()[:1])

    def trainer(*observers):
        return nlx.Trainer(Net, method, optax.sgd(0.1), batch_size=48, mesh=mesh, observers=observers)

    whole = trainer().fit((X, NOISY), jax.random.key(0), 4)
    trainer(Checkpoints(tmp_path)).fit((X, NOISY), jax.random.key(0), 2)
    again = trainer()
    checkpoints = Checkpoints(tmp_path)
    state = checkpoints.load(again.abstract_state((X, NOISY)))
    checkpoints.close(None)
    assert_same(again.fit((X, NOISY), jax.random.key(0), 4, state=state).state, whole.state)


def test_an_images_model_and_several_labels():
    images = RNG.normal(size=(40, 5, 5, 2)).astype(np.float32)
    vectors = RNG.integers(0, 2, (40, 4))

    class Conv(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
            self.head = nnx.Linear(4, 4, rngs=rngs)

        def __call__(self, x):
            features = nnx.relu(self.conv(x)).mean(axis=(1, 2))
            return {"logits": self.head(features), "features": features}

    mesh = make_mesh(jax.devices()[:1])
    trainer = nlx.Trainer(Conv, icnm(), optax.sgd(0.1), batch_size=20, mesh=mesh)
    fitted = trainer.fit((images, vectors), jax.random.key(0), 2)
    assert trainer.predict(fitted.state, images, multi_label=True).shape == (40, 4)
    assert trainer.posterior(fitted.state, (images, vectors)).candidates["bayes"].probs.shape == (40, 4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, NOISY[:-1]), "has 239 rows but `inputs` has 240"),
        ((X, NOISY + 1), "labels must be classes from 0 to 2"),
        ((X, NOISY - 1), "no class number"),
        ((np.where(X > 3, np.nan, X), NOISY), "not finite"),
        ((X, NOISY * 0.5), "must be integers"),
    ],
)
def test_data_that_cannot_be_trained_on_are_told(data, message):
    mesh = make_mesh(jax.devices()[:1])
    trainer = nlx.Trainer(Net, plain(cross_entropy), optax.sgd(0.1), batch_size=48, mesh=mesh)
    with pytest.raises((ArgumentError, DataError), match=message):
        trainer.fit(data, jax.random.key(0), 1)


@pytest.mark.parametrize(
    "data", [X, (X,), (X, NOISY, TRUE), Dataset("d", ("a", "b", "c"), Split(X, NOISY, None), None)]
)
def test_what_is_no_pair_is_told(data):
    trainer = nlx.Trainer(Net, plain(cross_entropy), optax.sgd(0.1), batch_size=48, mesh=make_mesh(jax.devices()[:1]))
    with pytest.raises(ArgumentError, match=r"^`data` must be a Split or a pair \(inputs, labels\), not "):
        trainer.fit(data, jax.random.key(0), 1)


def test_a_state_of_another_training_is_told():
    """Memory goes by position; out of range it would be read and written elsewhere without a word."""
    method, mesh = counted(plain(cross_entropy)), make_mesh(jax.devices()[:1])
    trainer = nlx.Trainer(Net, method, optax.sgd(0.1), batch_size=48, mesh=mesh)
    state = trainer.init(jax.random.key(0), (X, NOISY))
    more = (np.tile(X, (2, 1)), np.tile(NOISY, 2))
    with pytest.raises(ArgumentError, match=r"^`state` is of another model, method, optimizer or data: "):
        trainer.fit(more, jax.random.key(0), 1, state=state)
    momentum = nlx.Trainer(Net, method, optax.sgd(0.1, momentum=0.9), batch_size=48, mesh=mesh)
    with pytest.raises(ArgumentError, match=r"^`state` is of another model, method, optimizer or data: "):
        momentum.fit((X, NOISY), jax.random.key(0), 1, state=state)


def test_a_callable_that_is_no_observer_gets_rows():
    rows, mesh = [], make_mesh(jax.devices()[:1])
    trainer = nlx.Trainer(Net, plain(cross_entropy), optax.sgd(0.1), batch_size=48, mesh=mesh, observers=[rows.append])
    assert trainer.fit((X, NOISY), jax.random.key(0), 2).history == rows
    assert all(jnp.isfinite(row["train_loss"]) for row in rows)
