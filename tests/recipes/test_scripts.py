"""What every recipe has in common: its form, its commands, and defaults that are those of what it calls."""

import ast
import importlib
import inspect
import re
import shlex
from dataclasses import fields, replace
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro

from nlx import losses
from nlx.arguments import ArgumentError
from nlx.data import Dataset, Split
from nlx.experiment.loss_options import FUNCTIONS, asked_of, by_loss, numbers
from nlx.experiment.options import RecipeOptions
from nlx.experiment.run import Result, Run
from nlx.methods import crf as methods_crf
from nlx.methods.plain import generalized_q
from recipes import baseline, crf

OTHERWISE = {
    ("baseline", "loss"),  # the method's name
    ("crowd", "folds"),  # by how many answers an example has
    ("can", "rho_floor"),  # the paper's curve, from which the option departs and says why
}
ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for path in (ROOT / "recipes").glob("*.py") if path.stem != "__init__")
NAMES = [path.stem for path in FILES]


def load(name):
    recipe = importlib.import_module(f"recipes.{name}")
    return recipe, inspect.get_annotations(recipe.train, eval_str=True)


def test_there_are_recipes():
    assert len(NAMES) >= 7


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_a_script_that_one_reads_from_top_to_bottom(name):
    text = (ROOT / "recipes" / f"{name}.py").read_text()
    assert 40 <= len(text.splitlines()) <= 120
    _, types = load(name)
    assert list(types) == ["options", "run", "return"]
    assert issubclass(types["options"], RecipeOptions)
    assert (types["run"], types["return"]) == (Run, Result)
    assert text.endswith(f"main({types['options'].__name__}, train))\n")


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_of_the_docstring_can_be_given(name):
    recipe, types = load(name)
    joined = recipe.__doc__.replace("\\\n", " ")
    commands = re.findall(rf"^  python recipes/{name}\.py (.*)$", joined, re.MULTILINE)
    assert commands
    for command in commands:
        options = tyro.cli(types["options"], args=shlex.split(command, comments=True), use_underscores=True)
        options.check()


def called(recipe, call):
    """The function of the library's that a call in a recipe calls, and what it is given by position and name."""
    name, given = ast.unparse(call.func), call.args
    if name == "partial":
        name, given = ast.unparse(given[0]), given[1:]
    function = recipe
    for part in name.split("."):
        function = getattr(function, part, None)
    if not str(getattr(function, "__module__", "")).startswith("nlx.") or function is ArgumentError:
        return None
    parameters = inspect.signature(function).parameters
    named = {word.arg: word.value for word in call.keywords}
    return function, parameters, {**dict(zip(parameters, given, strict=False)), **named}


def parameters_from_options(name):
    """(option, its default, function, the default of its parameter) wherever a recipe passes an option on as it is."""
    recipe, types = load(name)
    defaults = {field.name: field.default for field in fields(types["options"])}
    calls = (node for node in ast.walk(ast.parse(inspect.getsource(recipe))) if isinstance(node, ast.Call))
    for function, parameters, given in filter(None, (called(recipe, call) for call in calls)):
        for parameter, value in given.items():
            passed = isinstance(value, ast.Attribute) and ast.unparse(value.value) == "options"
            if passed and parameters[parameter].default is not inspect.Parameter.empty:
                yield value.attr, defaults[value.attr], function, parameters[parameter].default
    for option in getattr(recipe, "OWN", ()):  # those that self-learning passes on by name
        yield (
            option,
            defaults[option],
            recipe.self_learning,
            inspect.signature(recipe.self_learning).parameters[option].default,
        )


@pytest.mark.parametrize("name", NAMES)
def test_defaults_of_a_recipe_are_those_of_the_functions_it_calls(name):
    compared = [pair for pair in parameters_from_options(name) if (name, pair[0]) not in OTHERWISE]
    for option, default, function, other in compared:
        assert default == other, f"{option} is {default}, {function.__name__} has {other}"
    expected = {
        "agreement": 0,
        "can": 10,
        "clean_net": 7,
        "co_teaching": 0,
        "crf": 3,
        "crowd": 1,
        "distill": 0,
        "divide_mix": 3,
        "elr": 1,
        "icnm": 1,
        "joint_optimization": 2,
        "linear": 0,
        "noise_layer": 3,
        "noise_types": 2,
        "sop": 2,
        "self_learning": 11,
        "baseline": 0,
    }
    assert len(compared) >= expected[name], compared


@pytest.mark.parametrize(("steps", "first"), [(8, 32), (100, 100)])
def test_t_is_learned_after_an_epoch_and_not_before_32_steps(steps, first):
    recipe, types = load("noise_layer")
    data = Dataset("mine", ("cat", "dog"), Split(np.zeros((2, 2), np.float32), np.array([0, 1], np.int32), None), None)
    method = recipe.layer(types["options"](strength=0.0), data, steps)
    batch, outputs = {"noisy_label": np.array([0, 1])}, {"logits": np.eye(2, dtype=np.float32)}

    def slope(step):
        loss = lambda params: method.loss(None, params, (), outputs, batch, step)[0].sum()  # noqa: E731
        return np.abs(jax.grad(loss)({"transition": np.eye(2, dtype=np.float32)})["transition"]).max()

    assert slope(first - 1) == 0
    assert slope(first) > 0


def test_defaults_that_a_recipe_works_out_are_the_librarys():
    def default(function, name):
        return inspect.signature(function).parameters[name].default

    assert default(methods_crf.crf, "hidden") == crf.CRFOptions().hidden
    asked = {"bootstrap_hard": {"beta": 0.8}, "bi_tempered": {"t1": 0.8, "t2": 1.2}, "mae": {}, "cross_entropy": {}}
    for loss, settled in asked.items():
        assert numbers(baseline.BaselineOptions(loss=loss), 10) == settled
    joint = baseline.BaselineOptions(loss="joint_asymmetric", beta=0.5)
    assert numbers(joint, 10) == {"alpha": 1.0, "beta": 0.5, "a": 30.0}
    generalized = baseline.BaselineOptions(loss="generalized_ce")
    assert numbers(generalized, 10) == asked_of("generalized_ce") == {"q": 0.7}
    assert numbers(generalized, 1000) == {"q": generalized_q(1000)}
    assert numbers(replace(generalized, q=0.6), 1000) == {"q": 0.6}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_loss_by_name_is_the_function_with_its_numbers(name):
    given = {"beta": 0.25, "q": 0.5, "alpha": 0.5, "a": 2.0, "rate": 0.3, "t1": 0.5, "t2": 1.5}
    asked = asked_of(name)
    options = baseline.BaselineOptions(loss=name, **{n: given[n] for n in asked})
    options.check()
    data = Dataset("mine", ("cat", "dog"), Split(np.zeros((2, 2), np.float32), np.array([0, 1], np.int32), None), None)
    logits, labels = jax.random.normal(jax.random.key(0), (4, 3)), np.array([0, 1, 2, 0])
    found = by_loss(options, data).loss(None, {}, (), {"logits": logits}, {"noisy_label": labels}, 0)[0]
    np.testing.assert_allclose(found, FUNCTIONS[name](logits, labels, **{n: given[n] for n in asked}), rtol=1e-6)


def test_smoothing_and_weighting_go_through_a_matrix(tmp_path):
    matrix = np.array([[0.8, 0.2], [0.3, 0.7]], np.float32)
    np.save(tmp_path / "t.npy", matrix)
    data = Dataset("mine", ("cat", "dog"), Split(np.zeros((2, 2), np.float32), np.array([0, 1], np.int32), None), None)
    logits, labels = jax.random.normal(jax.random.key(0), (4, 2)), np.array([0, 1, 1, 0])
    for name, function in (("label_smoothing", losses.label_smoothing), ("reweighted", losses.importance_reweighted)):
        options = baseline.BaselineOptions(loss=name, transition=str(tmp_path / "t.npy"))
        options.check()
        found = by_loss(options, data).loss(None, {}, (), {"logits": logits}, {"noisy_label": labels}, 0)[0]
        np.testing.assert_allclose(found, function(logits, labels, transition=matrix), rtol=1e-6)
