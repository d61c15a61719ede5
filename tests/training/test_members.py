"""Seeds and folds side by side: each member is what it would be alone, and visits its own rows."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nlx.arguments import ArgumentError
from nlx.methods.plain import cross_entropy, plain, trusted_cross_entropy
from nlx.methods.self_learning import corrections, self_learning
from nlx.training.loop import Diverged
from nlx.training.stages import Stage, step_decay
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
    [(REMEMBERING, 2, 1), (CORRECTING, 2, 8), (VISITING, STAGES, 1), (REMEMBERING, STAGES, 8)],
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
