"""Seeds and folds side by side: each member is what it would be alone, and visits its own rows."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.kernels.programs import facts_of
from nlx.arguments import ArgumentError
from nlx.data import Split
from nlx.methods.plain import cross_entropy, plain, trusted_cross_entropy
from nlx.methods.self_learning import corrections, self_learning
from nlx.models import build
from nlx.training.feed import on_device
from nlx.training.loop import Diverged
from nlx.training.members import devices_of_members, stack
from nlx.training.mesh import make_mesh
from nlx.training.stages import Stage, Stages, step_decay
from nlx.training.trainer import Trainer
from tests.training.conftest import REMEMBERING, VISITING, B, N

CORRECTING = self_learning(3, refresh_after=corrections(1), prototypes=2, members=16)
STAGES = [
    Stage(1, "clean", np.arange(0, N, 2), step_decay(), trusted_cross_entropy(), fresh_optimizer=True),
    Stage(1, "all", reinit_heads=True),
]


def keys(*seeds):
    return jnp.stack([jax.random.key(seed) for seed in seeds])


@pytest.mark.parametrize(
    ("method", "stages", "devices"),
    [
        (REMEMBERING, 2, 1),
        (CORRECTING, 2, 8),
        pytest.param(VISITING, STAGES, 1, marks=pytest.mark.slow),
        pytest.param(REMEMBERING, STAGES, 8, marks=pytest.mark.slow),
    ],
    ids=["can-1", "refresh-8", "stages-1", "stages-8"],
)
def test_every_member_ends_where_it_ends_alone(split, trainer_for, method, stages, devices):
    split = replace(split, trusted=np.arange(N) % 2 == 0)
    trainer = trainer_for(split, method, devices)
    with jax.numpy_dtype_promotion("standard"):
        many = trainer.fit_many(split, keys(3, 4), stages)
        for i, seed in enumerate((3, 4)):
            alone, member = trainer.fit(split, jax.random.key(seed), stages), many.member(i)
            for a, b in zip(
                jax.tree.leaves((alone.state.params, alone.state.memory)),
                jax.tree.leaves((member.state.params, member.state.memory)),
                strict=True,
            ):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
            for row, ours in zip(alone.history, member.history, strict=True):
                assert ours["train_loss"] == pytest.approx(row["train_loss"], rel=1e-3)
                assert (row["epoch"], row["step"]) == (ours["epoch"], ours["step"])
    assert many.history[0]["train_loss"].shape == (2,)
    assert many.history[0]["train_loss"][0] != many.history[0]["train_loss"][1]


@pytest.mark.parametrize("devices", [1, 8])
def test_members_visit_their_own_rows_and_no_others(split, trainer_for, devices):
    folds = [np.flatnonzero(np.arange(N) % 3 != i) for i in range(3)]  # 66 or 67 rows
    trainer = trainer_for(split, VISITING, devices)
    many = trainer.fit_many(split, keys(0, 0, 1), 5, rows=folds)
    count = np.asarray(many.state.memory.count)[:, :N]
    for i, rows in enumerate(folds):
        outside = np.setdiff1d(np.arange(N), rows)
        assert (count[i, outside] == 0).all()
        assert (count[i, rows] >= 3).all()
        assert count[i].sum() == 5 * (66 // B) * B
    member = many.member(0)
    whole = trainer.fit(split, jax.random.key(0), Stage(5, rows=folds[0]))
    np.testing.assert_array_equal(member.state.memory.count, whole.state.memory.count)
    assert trainer.predict(many.member(1).state, split.inputs).shape == (N, 3)
    assert trainer.posterior(member.state, split).candidates["classifier"].probs.shape == (N, 3)
    assert int(trainer.fit(split, jax.random.key(0), 5, state=member.state).state.step) == 5 * (N // B)


def test_each_stage_is_as_long_as_its_smallest_member_allows(split, trainer_for):
    """Which member that is differs from stage to stage."""
    first, last = np.arange(50), np.arange(50, 100)
    rows = [np.arange(20, 100), np.arange(68)]  # 30 and 50 of the first ones, 50 and 18 of the last ones
    stages = [Stage(2, "first", first), Stage(2, "last", last)]
    many = trainer_for(split, VISITING).fit_many(split, keys(0, 1), stages, rows=rows)
    assert [row["step"] for row in many.history] == [1, 2, 3, 4]
    count = np.asarray(many.state.memory.count)[:, :N]
    np.testing.assert_array_equal(count.sum(axis=1), 4 * B)
    for own, seen in zip(rows, count, strict=True):
        assert set(np.flatnonzero(seen)) <= set(own)
        assert seen[:50].sum() == 2 * B


def test_what_cannot_be_trained_together_is_told(split, pictures, trainer_for):
    with pytest.raises(ArgumentError, match="from memory only: raise `in_memory_gib`"):
        trainer_for(pictures["files"], VISITING).fit_many(pictures["files"], keys(0), 1)
    with pytest.raises(ArgumentError, match="`rows` must say what each of 2 members visits, got 1"):
        trainer_for(split, VISITING).fit_many(split, keys(0, 1), 1, rows=[np.arange(50)])
    with pytest.raises(ArgumentError, match="`batch_size`=16 must lie between 1 and the 9"):
        trainer_for(split, VISITING).fit_many(split, keys(0), 1, rows=[np.arange(9)])

    def broken(logits, labels):
        return jnp.where(jnp.sum(logits) < jnp.inf, jnp.nan, cross_entropy(logits, labels))

    with pytest.raises(Diverged, match="not finite after step 6"):
        trainer_for(split, plain(broken)).fit_many(split, keys(0, 1), 1)


def test_members_lie_apart_where_they_come_out_even():
    mesh = make_mesh(jax.devices())
    found = [devices_of_members(mesh, count) for count in (1, 2, 4, 5, 7, 8, 11, 16, 24)]
    assert [None if m is None else m.size for m in found] == [None, None, None, 5, 7, 8, None, 8, 8]
    assert devices_of_members(make_mesh(jax.devices()[:1]), 4) is None
    assert devices_of_members(make_mesh(jax.devices()[:2]), 4).shape == {"members": 2}


@pytest.mark.parametrize(
    ("method", "stages", "members"),
    [
        pytest.param(REMEMBERING, STAGES, 8, marks=pytest.mark.slow),
        (CORRECTING, 2, 5),
    ],
    ids=["stages-8", "refresh-5"],
)
def test_members_on_devices_of_their_own_end_where_those_of_one_device_end(split, trainer_for, method, stages, members):
    split = replace(split, trusted=np.arange(N) % 2 == 0)
    rows = [np.setdiff1d(np.arange(N), np.arange(i, N, members)) for i in range(members)]
    one, apart = (trainer_for(split, method, devices) for devices in (1, 8))
    together, many = (t.fit_many(split, keys(*range(members)), stages, rows=rows) for t in (one, apart))
    for a, b in zip(jax.tree.leaves(together.state.params), jax.tree.leaves(many.state.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    for a, b in zip(jax.tree.leaves(together.state.memory), jax.tree.leaves(many.state.memory), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(many.history, together.history, strict=True):
        np.testing.assert_allclose(ours["train_loss"], theirs["train_loss"], rtol=1e-4)
    assert all(devices_of_members(apart.mesh, members) in key for key in list(apart._programs)[-1:])
    last = many.member(members - 1).state
    assert {d for leaf in jax.tree.leaves(last) for d in leaf.devices()} == set(jax.devices())
    np.testing.assert_allclose(
        apart.predict(last, split.inputs),
        one.predict(together.member(members - 1).state, split.inputs),
        rtol=1e-3,
        atol=1e-4,
    )


def test_steps_of_members_that_lie_apart_send_nothing(split, trainer_for):
    trainer = trainer_for(split, REMEMBERING, 8)
    apart = devices_of_members(trainer.mesh, 16)
    (program,) = trainer._stage_programs(Stages(1, N, B), members=True, apart=apart)
    state = trainer.init(keys(0)[0], split)
    states = stack([state._replace(sums=dict.fromkeys(trainer._sum_names(split, program), jnp.zeros(())))] * 16)
    orders = jnp.zeros((16, N), jnp.int32)
    args = (states, on_device(split, apart, False), orders, np.int32(0), np.int32(1))
    facts = facts_of(program.members.lower(*jax.tree.map(form, args)).compile())
    assert not facts.collectives
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves((states.params, states.memory)))
    assert kept / 8 < facts.donated < kept / 2  # each device has the states of its two


def form(leaf):
    """What a program is compiled for."""
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_members_with_convolutions_go_one_after_the_other(monkeypatch, platform):
    """Each ends where it ends alone, and no convolution has the kernels of two."""
    monkeypatch.setattr("nlx.training.feed.target.platform", lambda: platform)
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(64, 8, 8, 3)).astype(np.float32), rng.integers(0, 3, 64).astype(np.int32)
    model, mesh = build("convnet", (8, 8, 3), 3, widths=(4, 8)), make_mesh(jax.devices()[:1])
    trainer = Trainer(model, plain(cross_entropy), optax.sgd(0.1), batch_size=16, mesh=mesh)
    split, seeds = Split(images, labels, None), keys(0, 1)
    many = trainer.fit_many(split, seeds, 2)
    for i, key in enumerate(seeds):
        alone = trainer.fit(split, key, 2).state
        for a, b in zip(jax.tree.leaves(many.member(i).state.params), jax.tree.leaves(alone.params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    (program,) = trainer._stage_programs(Stages(2, 64, 16), members=True)
    orders = jnp.zeros((2, 64), jnp.int32)
    lowered = program.members.lower(many.state, on_device(split, mesh, False), orders, np.int32(0), np.int32(1))
    assert "feature_group_count = 2" not in lowered.as_text()
