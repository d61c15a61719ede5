"""The command line of a recipe: exit codes, one sentence for an error, flags in the place of arguments."""

import sys

import pytest

from nlx.arguments import ArgumentError
from nlx.data import DataError
from nlx.experiment.main import as_flags, main, over_seeds
from nlx.experiment.options import RecipeOptions
from nlx.experiment.signals import Stopped
from nlx.training.checkpoint import CheckpointError
from nlx.training.loop import Diverged


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("`epochs` must be above 0, got 0", "--epochs must be above 0, got 0"),
        ("`model`=vgg is not known", "--model=vgg is not known"),
        ("give `labels`, or `noise`, not both", "give --labels, or --noise, not both"),
        ("`where` must have shape (3,)", "where must have shape (3,)"),  # no option of the recipe's
        ("a file `that one.png`", "a file `that one.png`"),
        ("seeds need no flag", "seeds need no flag"),
    ],
)
def test_arguments_in_backticks_become_flags(message, expected):
    assert as_flags(message, {"epochs", "model", "labels", "noise", "seeds"}) == expected


FULL = OSError(28, "No space left on device", "runs/mine/metrics.jsonl")


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (None, 0, ""),
        (Stopped(7), 143, "stopped after step 7; the state is saved: go on with --resume\n"),
        (ArgumentError("`epochs` must be above 0"), 1, "error: --epochs must be above 0\n"),
        (DataError("leave out `clean_fraction`."), 1, "error: leave out --clean_fraction.\n"),
        (
            Diverged("take a lower `learning_rate`"),
            1,
            "error: take a lower --learning_rate, and another --run_dir\n",
        ),
        (
            CheckpointError("none can be read"),
            1,
            "error: none can be read (--resume goes on, --run_dir chooses another folder)\n",
        ),
        (
            FULL,
            1,
            "error: cannot read or write runs/mine/metrics.jsonl: No space left on device; fix that and go on with "
            "--resume\n",
        ),
        (OSError("gone"), 1, "error: cannot read or write: gone; fix that and go on with --resume\n"),
    ],
)
def test_every_end_has_its_exit_code_and_sentence(capsys, error, code, told):
    class Done(Exception):
        summary = {"last": 1}

    def train(options, run):
        if error is not None:
            raise error
        return Done

    assert main(RecipeOptions, train, ["--seed=3"]) == code
    assert capsys.readouterr() == ("", told)


def test_an_error_of_the_programs_own_is_not_hidden():
    def train(options, run):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main(RecipeOptions, train, [])


@pytest.mark.parametrize(("arguments", "code"), [(["--lamda=0.3"], 2), (["--seed=x"], 2), (["--help"], 0)])
def test_unknown_options_and_help_exit_at_once(capsys, arguments, code):
    def train(options, run):
        raise AssertionError

    with pytest.raises(SystemExit) as stop:
        main(RecipeOptions, train, arguments)
    assert stop.value.code == code
    out, err = capsys.readouterr()
    if code == 0:
        assert sys.modules[__name__].__doc__ in " ".join(out.split())
        assert "--noise_seed" in out
    else:
        assert arguments[0].partition("=")[0] in err


def test_the_first_wrong_option_is_told_before_anything_is_loaded(capsys):
    def train(options, run):
        raise AssertionError

    assert main(RecipeOptions, train, ["--epochs=0"]) == 1
    assert capsys.readouterr() == ("", "error: --epochs must be above 0, got 0\n")


def test_scores_over_seeds_are_means_and_standard_deviations():
    common = {"method": "can", "dataset": "digits", "epochs": 3, "given_label_recovery": 0.6, "versions": {"jax": "1"}}
    summaries = [
        common
        | {
            "seeds": [seed],
            "cleaned_with": name,
            "guard": {"line": f"line of {seed}"},
            "last": {"test_accuracy": value},
            "best": {"test_accuracy": {"value": value + 1, "epoch": 2}},
            "wall_seconds": 1.25,
        }
        for seed, name, value in ((3, "bayes", 0.5), (4, "bayes", 0.7), (5, "additive", 0.6))
    ]
    assert over_seeds(summaries) == common | {
        "seeds": [3, 4, 5],
        "cleaned_with": ["bayes", "bayes", "additive"],
        "guard": ["line of 3", "line of 4", "line of 5"],
        "own_guard": ["line of 3", "line of 4", "line of 5"],
        "last": {"test_accuracy": {"mean": pytest.approx(0.6), "std": pytest.approx(0.1)}},
        "best": {"test_accuracy": {"mean": pytest.approx(1.6), "std": pytest.approx(0.1)}},
        "wall_seconds": 3.8,
    }
