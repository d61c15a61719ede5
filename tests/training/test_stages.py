import numpy as np
import optax
import pytest

from nlx.arguments import ArgumentError
from nlx.training.stages import Position, Stage, Stages, cosine, step_decay


def test_stages_follow_each_other_and_the_last_goes_on():
    plan = Stages([Stage(2, "a", np.arange(10)), Stage(0, "skipped"), Stage(3, "b", np.arange(7))], 10, 3)
    assert (plan.total, plan.epochs, plan.longest, plan.starts, plan.steps) == (12, 5, 10, (0, 6), (6, 6))
    assert [plan.position(step)[:3] for step in (0, 2, 3, 5, 6, 7, 8, 11)] == [
        (0, 0, 0), (0, 0, 2), (0, 1, 0), (0, 1, 2), (1, 2, 0), (1, 2, 1), (1, 3, 0), (1, 4, 1),
    ]  # fmt: skip
    assert plan.position(12) == Position(1, 5, 0, 2)


def test_a_number_is_one_stage_over_everything():
    for plan in (Stages(4, 10, 3), Stages(np.int64(4), 10, 3)):
        assert (plan.epochs, plan.total) == (4, 12)
    np.testing.assert_array_equal(plan.rows[0], np.arange(10))


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (0, "`epochs` must be at least 1"),
        (Stage(1, rows=np.arange(5)), "`batch_size`=8 must lie between 1 and the 5 training examples"),
        ([Stage(1, "clean", np.arange(5)), Stage(1)], "`batch_size`=8 must lie between 1 and the 5 clean stage's"),
        (Stage(1, rows=np.arange(45, 55)), r"`rows` of stage training must be integers in \[0, 50\)"),
        (Stage(1, rows=np.arange(-1, 20)), r"`rows` of stage training must be integers in \[0, 50\)"),
        (Stage(1, rows=np.arange(50) < 25), r"`rows` of stage training must be integers"),  # a mask
        (Stage(1, rows=np.linspace(0, 1, 9)), r"`rows` of stage training must be integers"),
    ],
)
def test_what_cannot_be_trained_is_told(stages, message):
    with pytest.raises(ArgumentError, match=message):
        Stages(stages, 50, 8)
    assert Stages([Stage(0, "clean", np.arange(5)), Stage(1)], 50, 8).total == 6  # it is not visited


def test_schedules_span_their_stage():
    with_drops = step_decay()(90)
    rates = [float(with_drops(step)) for step in (0, 29, 30, 31, 60, 61, 89)]
    np.testing.assert_allclose(rates, [1, 1, 0.1, 0.1, 0.01, 0.01, 0.01], rtol=1e-6)
    reference = optax.piecewise_constant_schedule(1.0, {30: 0.1, 60: 0.1})
    np.testing.assert_allclose([with_drops(s) for s in range(90)], [reference(s) for s in range(90)])
    assert float(step_decay(0.5, 0.2)(10)(6)) == pytest.approx(0.2)
    assert [round(float(cosine(10)(s)), 3) for s in (0, 5, 10)] == [1.0, 0.5, 0.0]
