"""Six ways to use a few trusted labels beside many noisy ones: which examples are visited when.

They are the models of Table 1 in Xiao et al., Learning From Massive Noisy Labeled Data for Image Classification, 2015:

====================  ===  ========================================  ===============================================
strategy              row  paper                                     here: stages and method
====================  ===  ========================================  ===============================================
``clean_only``         1   trusted data, random start                trusted; `nlx.methods.plain.trusting`
``finetune``           2   trusted data, from ImageNet weights       noisy, then trusted; `trusting`
``mixed``              3   all data, noisy labels taken as true      all; `trusting`
``mixed_pretrained``   4   the same, from ImageNet weights           trusted, then all; `trusting`
``bottom_up``          5   all data, fixed T, from model 2           trusted, then all; `bottom_up`
``noise_types``        6   all data, this method, from model 2       trusted, trusted again for z, all; `noise_types`
====================  ===  ========================================  ===============================================

Where the paper starts from weights of other data there is a first stage on labels at hand, so that the rows can be
compared without ImageNet. "All" means the noisy examples and the trusted ones upsampled to half their number.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from nlx.training.stages import Stage

Strategy = Literal["clean_only", "finetune", "mixed", "mixed_pretrained", "bottom_up", "noise_types"]


def plan(
    strategy: Strategy,
    trusted: np.ndarray,
    *,
    pretrain: int,
    pretrain_types: int,
    train: int,
    fresh_heads: bool = False,
    seed: int = 0,
) -> list[Stage]:
    """Which rows of the training set a strategy visits, and when.

    Args:
      strategy: a row of the paper's Table 1, see the top of this file.
      trusted: examples whose true label is trusted, bool ``[n]``.
      pretrain: epochs of the first stage, where the strategy has one before the last.
      pretrain_types: epochs over the trusted examples for p(z given x), ``noise_types`` only.
      train: epochs of the last stage.
      fresh_heads: whether the last stage begins with last layers drawn anew.
      seed: decides which trusted examples come once more than others.

    Returns:
      The stages in order: ``clean`` (trusted rows), ``noisy`` (all others), ``types`` (trusted rows) or ``mixed``: the
      noisy rows, and the trusted ones upsampled to half their number (never fewer than there are).

    Raises:
      ValueError: an unknown strategy, trusted not bool ``[n]``, nothing to visit (no trusted example, or no other), or
        fresh heads without a stage before the last.

    Examples:
      >>> trusted = np.array([True] + [False] * 6)
      >>> [(s.name, s.rows.tolist(), s.epochs) for s in plan("mixed", trusted, pretrain=1, pretrain_types=1, train=5)]
      [('mixed', [1, 2, 3, 4, 5, 6, 0, 0, 0], 5)]
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f"unknown strategy {strategy!r}, choose one of: {', '.join(get_args(Strategy))}")
    trusted = np.asarray(trusted)
    if trusted.dtype != bool or trusted.ndim != 1:
        raise ValueError(f"trusted must be bool [n], got {trusted.dtype} {trusted.shape}")
    clean, noisy = np.flatnonzero(trusted), np.flatnonzero(~trusted)
    if len(clean) == 0:
        raise ValueError(f"{strategy} learns from trusted labels: none are")
    if len(noisy) == 0 and strategy != "clean_only":
        raise ValueError(f"{strategy} learns from noisy labels: all are trusted, take clean_only")
    wanted = max(len(clean), len(noisy) // 2)
    upsampled = np.resize(np.random.default_rng(seed).permutation(clean), wanted)
    first = Stage("clean", clean, pretrain)
    mixed = Stage("mixed", np.concatenate([noisy, upsampled]), train)
    stages: dict[str, list[Stage]] = {
        "clean_only": [Stage("clean", clean, train)],
        "finetune": [Stage("noisy", noisy, pretrain), Stage("clean", clean, train)],
        "mixed": [mixed],
        "mixed_pretrained": [first, mixed],
        "bottom_up": [first, mixed],
        "noise_types": [first, Stage("types", clean, pretrain_types), mixed],
    }
    *before, last = stages[strategy]
    if fresh_heads and not any(stage.epochs for stage in before):
        raise ValueError(f"{strategy} has no stage before its last one here, whose heads could be drawn anew")
    return [*before, last._replace(fresh_heads=fresh_heads)]
