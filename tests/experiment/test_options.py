"""What options may be."""

from dataclasses import replace

import pytest

from nlx.arguments import ArgumentError
from nlx.experiment.defaults import DEFAULTS
from nlx.experiment.options import RecipeOptions
from nlx.models import NAMES

NAN, INF = float("nan"), float("inf")


def test_the_defaults_are_sound():
    RecipeOptions().check()
    for training in DEFAULTS.values():
        replace(RecipeOptions(), **vars(training)).check()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("epochs", 0, "`epochs` must be above 0, got 0"),
        ("batch_size", -5, "`batch_size` must be above 0, got -5"),
        ("image_size", 0, "`image_size` must lie in [1, 16384], got 0"),
        ("seeds", 0, "`seeds` must be above 0, got 0"),
        ("evaluate_every", 0, "`evaluate_every` must be above 0, got 0"),
        ("learning_rate", 0.0, "`learning_rate` must be above 0, got 0.0"),
        ("learning_rate", NAN, "`learning_rate` must be above 0, got nan"),
        ("learning_rate", INF, "`learning_rate` must be above 0, got inf"),
        ("method_rate", -1.0, "`method_rate` must be above 0, got -1.0"),
        ("momentum", 1.0, "`momentum` must lie in [0, 1), got 1.0"),
        ("dropout", -0.1, "`dropout` must lie in [0, 1), got -0.1"),
        ("dropout", NAN, "`dropout` must lie in [0, 1), got nan"),
        ("validation_fraction", 1.0, "`validation_fraction` must lie in [0, 1), got 1.0"),
        ("weight_decay", -1e-4, "`weight_decay` must be at least 0, got -0.0001"),
        ("weight_decay", NAN, "`weight_decay` must be at least 0, got nan"),
        ("seed", -1, "`seed` must be at least 0, got -1"),
        ("noise_seed", 2**32, "`noise_seed` must lie in [0, 4294967296), got 4294967296"),
        ("seed", 2**32, "`seed` must lie in [0, 4294967296), got 4294967296"),
        ("seeds", 2**32 + 1, "`seed` and `seeds` must sum to 4294967296 at most, got 0 and 4294967297"),
        ("label_separator", "", "`label_separator` must not be empty; write ; say"),
        ("noise_seed", -1, "`noise_seed` must be at least 0, got -1"),
        ("checkpoint_seconds", -1.0, "`checkpoint_seconds` must be at least 0, got -1.0"),
        ("decay_every", 0.0, "`decay_every` must lie in (0, 1], got 0.0"),
        ("decay_every", 1.5, "`decay_every` must lie in (0, 1], got 1.5"),
        ("model", "vgg", f"`model`=vgg is not known; choose one of {', '.join(NAMES)}"),
        ("widths", (), "`widths` must be above 0, got none"),
        ("widths", (0,), "`widths` must be above 0, got 0"),
        ("widths", (8, -3), "`widths` must be above 0, got 8 -3"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(option, value, message):
    with pytest.raises(ArgumentError) as error:
        replace(RecipeOptions(), **{option: value}).check()
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", 1),
        ("momentum", 0.0),
        ("dropout", 0.99),
        ("decay_every", 1.0),
        ("weight_decay", 0.0),
        ("model", "mlp"),
    ],
)
def test_values_at_the_edge_are_allowed(option, value):
    replace(RecipeOptions(), **{option: value}).check()
