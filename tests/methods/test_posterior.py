"""Posteriors as arrays, and the candidate that a method would choose itself."""

import jax
import jax.numpy as jnp
import numpy as np

from nlx.methods.method import Candidate, Column, Posterior, chosen_candidate, single_posterior

K = 3


def test_a_posterior_goes_through_jit_with_the_kinds_of_its_columns():
    made = jax.jit(lambda x: Posterior({"a": Candidate(x, x[:, 0])}, {"b": Column(x, "belief")}))(jnp.ones((2, K)))
    assert made.columns["b"].kind == "belief"
    whole = jax.tree.map(lambda *rows: np.concatenate(rows), made, made)
    assert whole.columns["b"].values.shape == (4, K)


def test_the_candidate_of_lowest_mean_cost_is_chosen():
    probs = np.ones((2, K)) / K
    posterior = Posterior({"a": Candidate(probs, np.array([1.0, 0])), "b": Candidate(probs, np.array([0.4, 0.4]))}, {})
    assert chosen_candidate(posterior) == "b"
    assert chosen_candidate(single_posterior("only", jnp.asarray(probs))) == "only"
