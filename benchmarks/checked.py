"""What 5 % of checked labels add to nlx.clean, on the labels that nobody has checked.

python benchmarks/checked.py                                 # digits
python benchmarks/checked.py --features=cifar10n.npz         # human noise: an .npz with features, label, noisy_worst

Each seed draws noise, subset and the rows that are checked. `others` are the rows that were not: percent of them that
are right after cleaning without and with the checked ones, and the mean difference between its 95 % bounds (Student's,
paired). `all` counts the checked rows as well. `top` has as many rows checked from the top of the first list.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from scipy.stats import t as student

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nlx
from nlx.data import load

_DIGITS = ("symmetric:0.4", "pair:0.4", "instance:0.4")


@dataclass(frozen=True)
class Options:
    """What to try."""

    features: Path | None = None
    """Features with human labels."""
    sizes: tuple[int, ...] = (5_000, 40_000)
    """How many of them."""
    labels: str = "worst"
    """Which labels."""
    seeds: int = 5
    """Number of seeds."""
    share: float = 0.05
    """Of the labels, that is checked."""


def sets(options: Options, seed: int) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Names, inputs, given and true labels."""
    for noise in () if options.features is not None else _DIGITS:
        train = load("digits", noise=noise, noise_seed=seed).train
        assert train.label is not None
        yield f"digits, {noise}", np.asarray(train.inputs).reshape(len(train), -1), train.observed, train.label
    if options.features is not None:
        with np.load(options.features) as file:
            x, true = file["features"].astype(np.float32), file["label"].astype(int)
            given = file[f"noisy_{options.labels}"].astype(int)
        for size in options.sizes:
            rows = np.random.default_rng(seed).permutation(len(x))[:size]
            yield f"{options.labels}, {size:,}", x[rows], given[rows], true[rows]


def shares(x: np.ndarray, given: np.ndarray, true: np.ndarray, share: float, seed: int) -> list[float]:
    """Percent right without and with: of others, of all; and with the top checked, of others, of all."""
    names = [str(i) for i in range(int(max(given.max(), true.max())) + 1)]
    n = len(x)
    before = nlx.clean(x, given, class_names=names, seed=seed)
    drawn = np.random.default_rng(100 + seed).permutation(n)[: round(share * n)]
    told = []
    for checked in (drawn, before.most_suspicious(round(share * n))):
        trusted = {int(row): int(true[row]) for row in checked}
        after = nlx.clean(x, given, class_names=names, seed=seed, trusted=trusted)
        others = np.setdiff1d(np.arange(n), checked)
        for rows in (others, np.arange(n)):
            told += [100 * float(np.mean(table.cleaned_label[rows] == true[rows])) for table in (before, after)]
    return told


def main(options: Options) -> None:
    """Print the table."""
    found: dict[str, list[list[float]]] = {}
    for seed in range(options.seeds):
        for name, x, given, true in sets(options, seed):
            found.setdefault(name, []).append(shares(x, given, true, options.share, seed))
            print(f"seed {seed}, {name}: {' '.join(f'{value:.2f}' for value in found[name][-1])}", file=sys.stderr)
    print("| set | others, without | with | difference | all, difference | top: others, difference | top: all |")
    print("| --- " * 7 + "|")
    for name, seeds in found.items():
        values = np.array(seeds)
        gain = values[:, 1::2] - values[:, ::2]
        half = student.ppf(0.975, len(seeds) - 1) * gain.std(axis=0, ddof=1) / np.sqrt(len(seeds))
        mean = gain.mean(axis=0)
        cells = [f"{m:+.2f} [{m - h:+.2f}, {m + h:+.2f}]" for m, h in zip(mean, half, strict=True)]
        print(f"| {name} | {values[:, 0].mean():.2f} | {values[:, 1].mean():.2f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__, use_underscores=True))
