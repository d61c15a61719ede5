import numpy as np
import pytest

from nlx.training.strategies import plan

RNG = np.random.default_rng(0)


def test_plans_visit_what_the_table_says():
    trusted = RNG.uniform(size=200) < 0.1
    clean, noisy = np.flatnonzero(trusted), np.flatnonzero(~trusted)

    def of(strategy):
        return plan(strategy, trusted, pretrain=2, pretrain_types=3, train=5)

    names = {
        "clean_only": [("clean", 5)],
        "finetune": [("noisy", 2), ("clean", 5)],
        "mixed": [("mixed", 5)],
        "mixed_pretrained": [("clean", 2), ("mixed", 5)],
        "bottom_up": [("clean", 2), ("mixed", 5)],
        "noise_types": [("clean", 2), ("types", 3), ("mixed", 5)],
    }
    for strategy, expected in names.items():
        assert [(v.name, v.epochs) for v in of(strategy)] == expected
        for visit in of(strategy):
            counts = np.bincount(visit.rows, minlength=200)
            if visit.name == "mixed":
                np.testing.assert_array_equal(counts[noisy], 1)
                assert counts[clean].sum() == len(noisy) // 2
                assert np.ptp(counts[clean]) <= 1
            else:
                np.testing.assert_array_equal(counts, ~trusted if visit.name == "noisy" else trusted)
    many = plan("mixed", ~trusted, pretrain=0, pretrain_types=0, train=1)[0].rows
    np.testing.assert_array_equal(np.sort(many), np.arange(200))


def test_only_a_stage_after_others_begins_with_fresh_heads():
    trusted = np.array([True, False, False])

    def fresh(strategy):
        stages = plan(strategy, trusted, pretrain=1, pretrain_types=1, train=1, fresh_heads=True)
        return [stage.fresh_heads for stage in stages]

    assert fresh("noise_types") == [False, False, True]
    with pytest.raises(ValueError, match="mixed has no stage before its last one"):
        fresh("mixed")
    with pytest.raises(ValueError, match="no stage before"):
        plan("finetune", trusted, pretrain=0, pretrain_types=0, train=1, fresh_heads=True)


def test_bad_input_is_named():
    trusted = np.array([True, False])
    epochs = {"pretrain": 1, "pretrain_types": 1, "train": 1}
    with pytest.raises(ValueError, match="unknown strategy 'best'"):
        plan("best", trusted, **epochs)
    with pytest.raises(ValueError, match="none are"):
        plan("mixed", ~trusted & trusted, **epochs)
    with pytest.raises(ValueError, match="take clean_only"):
        plan("mixed", ~trusted | trusted, **epochs)
    with pytest.raises(ValueError, match="trusted must be bool"):
        plan("mixed", trusted.astype(int), **epochs)
