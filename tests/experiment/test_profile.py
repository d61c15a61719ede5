"""A profile of some steps after the first, whatever the length of a training."""

import jax
import numpy as np
import optax
import pytest

import nlx
from nlx.experiment.profile import Profile
from nlx.methods.plain import plain


@pytest.mark.parametrize(("epochs", "steps"), [(1, 2), (2, 6)])
def test_a_profile_of_some_steps_is_written_once(tmp_path, epochs, steps):
    said = []
    inputs, labels = np.eye(8 * steps, 4, dtype=np.float32), np.arange(8 * steps, dtype=np.int32) % 2
    model = nlx.models.build("mlp", (4,), 2, widths=(4,))
    profile = Profile(tmp_path / "profile", said.append)
    loss = plain(nlx.losses.cross_entropy)
    nlx.Trainer(model, loss, optax.sgd(0.1), batch_size=8, observers=[profile]).fit(
        (inputs, labels), jax.random.key(0), epochs
    )
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1
    assert len(said) == 1
    assert str(tmp_path / "profile") in said[0]


def test_without_a_second_program_in_an_epoch_it_is_told_that_there_is_none(tmp_path):
    said = []
    profile = Profile(tmp_path, said.append)
    for epoch in (1, 2):
        profile.on_progress(nlx.training.observers.Progress(epoch, 4, 4, 0.0, 1.0))
    profile.close(None)
    assert said == ["there is no profile: no epoch has more steps than the first program took"]
    assert not list(tmp_path.rglob("*.pb"))


def test_another_trace_under_way_costs_the_profile_and_not_the_training(tmp_path):
    said = []
    with jax.profiler.trace(str(tmp_path / "other")):
        profile = Profile(tmp_path, said.append)
        for done in (1, 2, 9):
            profile.on_progress(nlx.training.observers.Progress(1, done, 9, 0.0, 1.0))
        profile.close(None)
    assert len(said) == 1
    assert said[0].startswith("warning: there is no profile (")


def test_a_training_that_ends_early_leaves_no_trace_open(tmp_path):
    profile = Profile(tmp_path, lambda text: None)
    profile.on_progress(nlx.training.observers.Progress(1, 1, 9, 0.0, 1.0))
    profile.close(ValueError())
    profile.close(None)
    jax.profiler.start_trace(tmp_path / "another")
    jax.profiler.stop_trace()
