"""Every step that is left out of distillation is left out, and what held-out labels say of it is told."""

import numpy as np
import pytest

from benchmarks.protocols import ablation
from benchmarks.protocols.ablation import ENTRIES, WHOLE, AblationOptions, claims_of, train
from nlx.cleaning.label_files import read_labels
from nlx.experiment.main import run_recipe

TINY = {"dataset": "digits", "noise": "symmetric:0.4", "widths": (8,), "epochs": 2, "training_fraction": 0.3}


@pytest.fixture
def posterior_of(tmp_path):
    def run(name, **options):
        folder = tmp_path / name
        told = AblationOptions(run_dir=folder, batch_size=40, **TINY, **options)
        run_recipe(told, train, pictures=False)
        return read_labels(folder / "labels.parquet").posterior

    return run


@pytest.mark.slow
@pytest.mark.usefixtures("on_one_device")
def test_each_step_can_be_left_out(posterior_of):
    whole = posterior_of("whole")
    np.testing.assert_array_equal(posterior_of("again"), whole)
    found = {step: posterior_of(step, without=step) for step in ablation.INSTEAD if step != "nothing"}
    assert len(found) == 4
    for step, posterior in found.items():
        assert np.abs(posterior - whole).max() > 0.01, step
    np.testing.assert_array_equal(posterior_of("last"), whole)  # what was left out is there again


def test_no_step_is_left_out_for_good_where_a_run_fails(monkeypatch):
    class Failing:
        def load(self):
            raise RuntimeError("no data")

    kept = ablation.distill.weigh
    with pytest.raises(RuntimeError, match="no data"):
        train(AblationOptions(without="Bayes' rule"), Failing())
    assert ablation.distill.weigh is kept


def test_what_speaks_for_another_form_is_told():
    def rows(**ahead):
        scores = {n: [0.5 + ahead.get(n, 0.0), 0.51 + ahead.get(n, 0.0)] for n in ENTRIES}
        return {
            "worst": {
                n: {"last": dict.fromkeys(("validation_score", "test_accuracy", "recovery"), s)}
                for n, s in scores.items()
            }
        }

    assert len(claims_of(rows())) == 3
    assert {c.verdict for c in claims_of(rows())} == {"holds"}
    worse = rows(**{"without neighbours": 0.1})
    assert {c.verdict for c in claims_of(worse)} == {"does not hold"}
    assert "without neighbours +10.0" in claims_of(worse)[0].evidence
    assert claims_of(rows(**{WHOLE: 0.1}))[0].verdict == "holds"
