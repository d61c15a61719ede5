"""The likeliest of many classes in place of all of them: what is kept of beliefs about very many examples."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nlx.methods.method import Column, Posterior

COUNT = 10  # classes that are kept
_MANY = 4 * COUNT  # classes, above which that is worth it
MOST_GIB = 0.5
"""Of beliefs that are kept whole, unless more is asked for."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Top:
    """A belief of which the likeliest classes are known; as NumPy arrays it stands for ``[n, K]`` where rows are read.

    Attributes:
      classes: from the likeliest down, int32 ``[n, count]``, each once in a row.
      probs: of these, float16 ``[n, count]``.
      best: of the first of them, float32 ``[n]``.
      given: of the given label, float32 ``[n]``.
      num_classes: K.
    """

    classes: Any
    probs: Any
    best: Any
    given: Any
    num_classes: int = field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, int]:
        """Of the array that it stands for."""
        return len(self.best), self.num_classes

    def __len__(self) -> int:
        return len(self.best)

    def __getitem__(self, key: Any) -> Any:
        """Rows as float32 ``[m, K]``, what is left spread evenly over the other classes; or one entry of one row."""
        rows, column = key if isinstance(key, tuple) else (key, slice(None))
        one = np.ndim(self.best[rows]) == 0
        best, probs, classes = (x[rows][None] if one else x[rows] for x in (self.best, self.probs, self.classes))
        probs, rest = _in_full(best, probs, self.num_classes)
        whole = np.repeat(rest[:, None], self.num_classes, axis=1)
        np.put_along_axis(whole, classes, probs, axis=1)
        return whole[0, column] if one else whole[:, column]

    def entries(self, classes: np.ndarray) -> np.ndarray:
        """The probability of a class of each row, int ``[n]``: float32 ``[n]``, as rows of the array have it."""
        probs, rest = _in_full(self.best, self.probs, self.num_classes)
        same = self.classes == np.asarray(classes)[:, None]
        return np.where(same.any(axis=1), np.max(np.where(same, probs, 0), axis=1), rest).astype(np.float32)

    def argmax(self, axis: int = 1) -> np.ndarray:
        """The likeliest class, int32 ``[n]``; ``axis`` is that of the classes."""
        return np.asarray(self.classes[:, 0])

    def certain(self, label: np.ndarray, where: np.ndarray, given: np.ndarray) -> Top:
        """The same, but sure of a class ``label`` in the rows ``where``, ``[n]`` each, whatever label was ``given``."""
        wide = where[:, None]
        ranks = np.arange(self.classes.shape[1])
        return replace(
            self,
            classes=np.where(wide, (label[:, None] + ranks) % self.num_classes, self.classes).astype(np.int32),
            probs=np.where(wide, (ranks == 0).astype(np.float16), self.probs),
            best=np.where(where, np.float32(1), self.best),
            given=np.where(where, np.float32(label == given), self.given),
        )

    def without(self, label: np.ndarray, where: np.ndarray) -> Top:
        """The same, but for the given class, ``label``, being excluded in the rows ``where``, ``[n]`` each."""
        wide = where[:, None]
        excluded = wide & (self.classes == label[:, None])
        probs = self.probs.astype(np.float32)
        probs[:, 0] = self.best
        listed = np.where(excluded, 0, probs).sum(axis=1, keepdims=True)
        left = np.maximum(1 - self.given[:, None], listed)
        # Of next to nothing the listed classes' share may be rounded away, but they had no less than the others.
        even = (~excluded).sum(axis=1, keepdims=True) / (self.num_classes - 1)
        share = np.where(listed > even * left, probs / np.where(left > 0, left, 1), 1 / (self.num_classes - 1))
        probs = np.where(wide, share, probs).astype(np.float32)
        # The class itself comes last, in the place of the least likely where it was not among them.
        last = np.argsort(excluded, axis=1, kind="stable")
        classes, probs = (np.take_along_axis(x, last, axis=1) for x in (self.classes, probs))
        classes[where, -1], probs[where, -1] = label[where], 0
        return replace(
            self,
            classes=classes,
            probs=probs.astype(np.float16),
            best=probs[:, 0],
            given=np.where(where, np.float32(0), self.given),
        )


def _in_full(best: np.ndarray, probs: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest classes' probabilities, float32 ``[m, count]``, and that of each other class, ``[m]``."""
    # Half precision must not lift the second above the first.
    probs = np.minimum(probs.astype(np.float32), np.nextafter(best, np.float32(0))[:, None])
    probs[:, 0] = best
    rest = np.maximum(1 - probs.sum(axis=1), 0) / (num_classes - probs.shape[1])
    return probs, rest


def worth_shortening(size: int, num_classes: int, limit: float) -> bool:
    """Whether beliefs of so many examples about one label of K classes take more than ``limit`` bytes, and need not."""
    return num_classes > _MANY and 4 * size * num_classes > limit


def likeliest(probs: ArrayLike, labels: ArrayLike) -> Any:
    """The :class:`Top` of probabilities ``[B, K]``, with the given labels int ``[B]``, -1 for none."""
    probs, labels = jnp.asarray(probs), jnp.asarray(labels)
    values, classes = jax.lax.top_k(probs, COUNT)
    best = jnp.max(probs, axis=1)  # not values[:, 0], for which XLA sorts all classes: 40 times slower on a CPU
    given = jnp.take_along_axis(probs, jnp.maximum(labels, 0)[:, None], axis=1)[:, 0]
    return Top(classes.astype(jnp.int32), values.astype(jnp.float16), best, given, probs.shape[1])


def shortened(posterior: Posterior, labels: Array) -> Posterior:
    """A posterior whose beliefs over many classes are :class:`Top`; other columns as wide are left out."""

    def wide(values: Array) -> bool:
        return values.ndim == 2 and values.shape[1] > _MANY

    candidates = {
        name: c._replace(probs=likeliest(c.probs, labels)) if wide(c.probs) else c
        for name, c in posterior.candidates.items()
    }
    columns = {
        name: Column(likeliest(c.values, labels), c.kind) if wide(c.values) else c
        for name, c in posterior.columns.items()
        if c.kind == "belief" or not wide(c.values)
    }
    return Posterior(candidates, columns)
