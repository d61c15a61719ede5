"""Primitives on drawn arguments: logits of any size, masks over whatever stands there, shapes that are wrong."""

import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nlx
from nlx.prototypes import class_scores, cosine_similarity, unit
from tests.primitives.cases import CASES
from tests.primitives.drawing import SEEDS, SIZES, another, few, logits_of
from tests.primitives.test_values import REFERENCES

LOSSES = [name for name in CASES if name.startswith("losses.")]
TOGETHER = [name for name, case in CASES.items() if len(case.rows) > 1]


@jax.jit
def masked_losses(arrays, by_row, by_entry):
    """Values and gradients in the logits of all losses."""

    def one(name):
        where = by_entry if "binary" in name or "conditional" in name else by_row
        logits, *others = arrays[name]
        value, back = jax.vjp(lambda x: CASES[name].call(x, *others, where=where), logits)
        return value, back(jnp.ones_like(value))[0]

    return {name: one(name) for name in LOSSES}


@given(seed=SEEDS, size=SIZES, garbage=st.sampled_from((np.nan, np.inf, -np.inf, 1e4)))
@few(10)
def test_what_is_masked_has_neither_value_nor_gradient(seed, size, garbage):
    rng = np.random.default_rng(seed)
    keep = rng.random(8) < 0.5
    arrays = {name: [another(x, rng, size, False) for x in CASES[name].arrays] for name in LOSSES}
    for logits, *_ in arrays.values():
        logits[~keep] = garbage
    for name, parts in masked_losses(arrays, keep, np.repeat(keep[:, None], 3, 1)).items():
        for part in map(np.asarray, parts):
            assert np.isfinite(part).all(), name
            assert not part[~keep].any(), name


@given(seed=SEEDS, size=SIZES)
@few(20)
def test_losses_are_those_of_float64(seed, size):
    logits = logits_of((4, 3), np.random.default_rng(seed), size)
    for name, loss in jax.jit(losses_of)(logits).items():
        expected = REFERENCES[name][1](logits.astype(np.float64))
        np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6, err_msg=name)


def losses_of(logits):
    return {name: ours(logits) for name, (ours, _) in REFERENCES.items()}


@pytest.mark.parametrize("name", TOGETHER)
@given(row=st.integers(0, 9), change=st.sampled_from(("fewer", "one", "another axis", "scalar")))
@few(6)
def test_rows_that_do_not_fit_are_told_in_one_sentence_of_our_own(name, row, change):
    case = CASES[name]
    at = case.rows[row % len(case.rows)]
    x = case.arrays[at]
    wrong = {"fewer": x[1:], "one": x[:1], "another axis": x[..., None], "scalar": x.reshape(-1)[0]}[change]
    with pytest.raises((TypeError, ValueError)) as error:
        case.call(*(wrong if i == at else other for i, other in enumerate(case.arrays)))
    said_by = Path(traceback.extract_tb(error.value.__traceback__)[-1].filename)
    assert said_by.is_relative_to(Path(nlx.__file__).parent)
    assert "\n" not in str(error.value)


@given(seed=SEEDS, scale=st.sampled_from((1e-30, 1e-25, 1e20, 1e37)))
@few(8)
def test_directions_do_not_depend_on_the_scale(seed, scale):
    x = np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32)
    far, both = x * np.float32(scale), np.ones(2, bool)
    np.testing.assert_allclose(unit(far), unit(x), atol=1e-6)
    np.testing.assert_allclose(cosine_similarity(far), cosine_similarity(x), atol=1e-6)
    np.testing.assert_allclose(class_scores(far, np.eye(2, 3), both), unit(x)[:, :2], atol=1e-6)
    if scale < 1e30:  # beyond, slopes are no float32
        np.testing.assert_allclose(slopes(far) * scale, slopes(x), atol=1e-5 / np.linalg.norm(x, axis=1).min())


slopes = jax.jit(jax.vmap(jax.jacobian(unit)))


def test_a_zero_vector_has_a_direction_of_zero_and_a_finite_gradient():
    assert not unit(np.zeros(3, np.float32)).any()
    assert np.isfinite(slopes(np.zeros((1, 3), np.float32))).all()
