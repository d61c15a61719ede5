"""What cleaning is made of: the first answer by linear models in folds, neighbours, and networks in folds together.

The first answer and cleanlab's do the same work: out-of-fold probabilities of five linear models of 40,000 examples,
and a decision about every label. The limit of neighbours and of networks in folds is what their products cost alone.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from benchmarks.kernels.timing import Row, against, interleaved
from nlx.cleaning.arrays import standard_form
from nlx.cleaning.evidence import weigh
from nlx.cleaning.folds import folds_of, out_of_fold
from nlx.cleaning.neighbours import neighbours
from nlx.cleaning.trainers import trainer_for
from nlx.data import Split
from nlx.methods.plain import cross_entropy, plain
from nlx.models import build
from nlx.training.mesh import make_mesh
from nlx.training.stages import Stage
from nlx.training.trainer import Trainer

_N, _WIDTH, _K, _FOLDS, _SEEDS, _BLOCK = 40_000, 256, 10, 5, 3, 500
_FEWER, _HIDDEN, _BATCH = 10_000, (512, 512), 128


def measure(rounds: int) -> list[Row]:
    """Rows of the first answer, neighbours, folds and seeds together, and a network's folds."""
    split, true = _planted()
    return [*_first_answer(split, true, min(rounds, 5)), _neighbours(split, min(rounds, 5)), *_together(split, rounds)]


def _planted() -> tuple[Split, np.ndarray]:
    """Gaussian classes that overlap, three labels in ten moved to any other class."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, _K, _N)
    x = 0.25 * rng.normal(size=(_K, _WIDTH))[true] + rng.normal(size=(_N, _WIDTH))
    noisy = np.where(rng.random(_N) < 0.3, (true + rng.integers(1, _K, _N)) % _K, true).astype(np.int32)
    return Split(standard_form(x).apply(x), noisy, None), true


def _first_answer(split: Split, true: np.ndarray, rounds: int) -> list[Row]:
    """Ours against cleanlab with scikit-learn's logistic regression; both must tell wrong labels as well."""
    x, y = np.asarray(split.inputs), split.observed
    trainer, stage = trainer_for(split, None, _N - _N // _FOLDS, _K)

    def ours() -> np.ndarray:
        probs = out_of_fold(trainer, split, jax.random.key(0), folds=_FOLDS, stages=stage).probs
        return weigh(probs, y).posterior[np.arange(_N), y]

    def cleanlab(filters: Any) -> np.ndarray:
        scaled = x * np.sqrt(_WIDTH)  # unit variance, as it is used
        probs = cross_val_predict(LogisticRegression(), scaled, y, cv=_FOLDS, method="predict_proba")
        filters.find_label_issues(y, probs, n_jobs=1)
        return np.asarray(probs[np.arange(_N), y])

    if not importlib.util.find_spec("cleanlab"):
        return []
    sides: dict[str, Callable[[], Any]] = {
        "ours": ours,
        "cleanlab": partial(cleanlab, importlib.import_module("cleanlab.filter")),
    }
    told = {name: roc_auc_score(y != true, -side()) for name, side in sides.items()}
    if told["ours"] < told["cleanlab"] - 0.02:
        raise AssertionError(f"the first answer is worse: {told}")
    about = f"first answer for {_N:,} x {_WIDTH}, {_FOLDS} folds"
    return [against(f"{about}: ours / cleanlab with logistic regression", interleaved(sides, rounds), "cleanlab", 0.5)]


def _neighbours(split: Split, rounds: int) -> Row:
    """The exact search against the products of all pairs, block by block, and nothing done with them."""
    x = jnp.asarray(split.inputs)

    @jax.jit
    def alone(x: jax.Array) -> jax.Array:
        def block(total: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
            rows = jax.lax.dynamic_slice_in_dim(x, i * _BLOCK, _BLOCK)
            products = jax.lax.optimization_barrier(rows @ x.T)  # all of them, not only what is used
            return total + products[0], None

        return jax.lax.scan(block, jnp.zeros(_N), jnp.arange(_N // _BLOCK))[0]

    t = interleaved({"ours": lambda: neighbours(x), "products": lambda: alone(x)}, rounds)
    return against(f"15 neighbours among {_N:,} x {_WIDTH}: ours / the products of all pairs", t, "products", 2.0)


def _together(split: Split, rounds: int) -> list[Row]:
    """Folds times seeds in one program against one after the other; a network's folds against their products."""
    split = split.take(np.arange(_FEWER))
    fold = folds_of(split.observed, _FOLDS, 0)
    rows = [np.flatnonzero(fold != i) for i in range(_FOLDS)]
    keys = jax.random.split(jax.random.key(0), _FOLDS * _SEEDS)
    trainer, _ = trainer_for(split, None, len(rows[0]), _K)
    sides: dict[str, Callable[[], Any]] = {
        "ours": lambda: trainer.fit_many(split, keys, 1, rows=rows * _SEEDS).state.params,
        "alone": lambda: [
            trainer.fit(split, key, Stage(1, rows=own)).state.params
            for key, own in zip(keys, rows * _SEEDS, strict=True)
        ],
    }
    t = interleaved(sides, rounds)
    about = f"{_FOLDS} folds x {_SEEDS} seeds of a linear model, {_FEWER:,} x {_WIDTH}"
    return [against(f"{about}: together / one after the other", t, "alone", 1.0), _network(split, rows, rounds)]


def _network(split: Split, rows: list[np.ndarray], rounds: int) -> Row:
    """An epoch of five networks together, against as many operations of a large product."""
    model, optimizer = build("mlp", (_WIDTH,), _K, widths=_HIDDEN), optax.sgd(0.05, momentum=0.9)
    mesh = make_mesh(jax.devices()[:1])
    trainer = Trainer(model, plain(cross_entropy), optimizer, batch_size=_BATCH, mesh=mesh)
    split, keys = replace(split, inputs=np.asarray(split.inputs)), jax.random.split(jax.random.key(1), len(rows))
    square = jnp.ones((2048, 2048))
    product = jax.jit(lambda x: x @ x)
    sides = {
        "ours": lambda: trainer.fit_many(split, keys, 1, rows=rows).state.params,
        "product": lambda: product(square),
    }
    t = interleaved(sides, rounds)
    widths = (_WIDTH, *_HIDDEN, _K)
    operations = 6 * sum(a * b for a, b in pairwise(widths)) * sum(len(own) for own in rows)
    t["product"] *= operations / (2 * 2048**3)
    about = f"{len(rows)} folds of a {'-'.join(map(str, widths))} network, an epoch of {_FEWER:,}"
    return against(f"{about}: ours / their operations in a large product", t, "product", 1 / 0.6)
