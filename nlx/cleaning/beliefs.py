"""What several people's answers make believe: the models of :mod:`nlx.crowd`, with repeated answers counted once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from nlx import crowd
from nlx.data.answers import Answers

_ROUNDS = 3  # of looking for those who repeat one another

ModelName = Literal["dawid_skene", "one_coin", "mace", "glad"]


class Beliefs(NamedTuple):
    """Beliefs about items and annotators.

    Attributes:
      posterior: p(true class given all answers), float32 ``[N, K]``.
      confusion: ``p(annotator a answers j | true class i)``, float32 ``[A, K, K]``.
      repeated: whether an answer repeats another annotator's and does not count, bool ``[M]``.
      group: the lowest number among annotators who repeat one another, one's own for who is alone, int64 ``[A]``.
      weight: of the answers' log-likelihood in the posterior, see :func:`nlx.crowd.tempered`; 1 for other models.
    """

    posterior: np.ndarray
    confusion: np.ndarray
    repeated: np.ndarray
    group: np.ndarray
    weight: float = 1.0


def believed(answers: Answers, method: ModelName = "dawid_skene", log_prior: np.ndarray | None = None) -> Beliefs:
    """Fit a model of annotators, again without the answers that repeat others' where there are such.

    Args:
      answers: by number.
      method: the model.
      log_prior: unnormalized log p(true class) of each item, float ``[N, K]``.
    """
    known: dict[str, Any] = {"log_prior": log_prior, "trusted": answers.trusted}
    item, who, label = answers.item, answers.annotator, answers.label
    for _ in range(_ROUNDS):
        c, confusion = _fitted(answers, label, method, known)
        found = crowd.copies(c.posterior, confusion, item, who, answers.label)
        before, label = label, np.where(found.repeated, -1, answers.label)
        if np.array_equal(before, label):
            break
    if method != "dawid_skene":
        return Beliefs(np.asarray(c.posterior), confusion, *found)
    q, weight = crowd.tempered(c, item, who, label, groups=answers.groups, **known)
    if found.repeated.any():  # those who repeat others have matrices of their own
        each = crowd.annotator_confusion(
            q, item, who, answers.label, num_annotators=len(answers.annotators), groups=answers.groups
        )
        confusion = np.asarray(each)
    return Beliefs(np.asarray(q), confusion, *found, float(weight))


def _fitted(answers: Answers, label: np.ndarray, method: ModelName, known: dict[str, Any]) -> tuple[Any, np.ndarray]:
    """What the model says, and its matrices ``[A, K, K]``."""
    in_groups = partial(crowd.dawid_skene, groups=answers.groups)
    fit: Callable[..., Any] = in_groups if method == "dawid_skene" else getattr(crowd, method)
    c = fit(answers.item, answers.annotator, label, **answers.sizes, **known)
    if method != "glad":
        return c, np.asarray(c.confusion)
    k = len(answers.class_names)
    skill = jax.nn.sigmoid(c.ability * np.median(c.ease))[:, None, None]
    return c, np.where(np.eye(k, dtype=bool), skill, (1 - skill) / (k - 1))
