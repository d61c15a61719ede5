"""How often the promises of nlx.clean hold: precision of the decided list, and intervals, on sets whose truth is known.

python benchmarks/promises.py                             # digits and points, four seeds: 4 minutes on two cores
python benchmarks/promises.py --features=cifar10n.npz     # and subsets with human noise, of an .npz with features,
                                                         # label and noisy_worst, noisy_random1, noisy_aggregate
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro
from sklearn.datasets import load_digits, make_blobs, make_classification

import nlx
from nlx.cleaning.clean import evidence_of
from nlx.cleaning.estimates import decided, estimate

_PRECISIONS = (0.8, 0.9, 0.95)
Set = tuple[str, np.ndarray, np.ndarray, np.ndarray]  # name, features, given, true


@dataclass(frozen=True)
class Options:
    """What to try."""

    features: Path | None = None
    """Features with human labels."""
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    """Seeds of noise, subsets and folds."""
    only: str = ""
    """Of the sets, those whose name contains this."""


def corrupted(kind: str, rate: float, x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Labels with noise, int ``[n]``."""
    key, k = jax.random.key(seed), int(y.max()) + 1
    if kind == "instance":
        return np.asarray(nlx.corruption.instance_dependent(key, x.astype(np.float32), y, k, rate)[0])
    return np.asarray(nlx.corruption.flips(key, y, getattr(nlx.transitions, kind)(k, rate))[0])


def thinned(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows that leave a tenth of the last class, and the others in between."""
    share = 0.1 ** (np.arange(y.max() + 1) / y.max())
    return np.flatnonzero(rng.random(len(y)) < share[y])


def classes_of_points(k: int, width: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points ``[n, width]`` around random centres of k classes, which spread as far as points around them."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    return rng.normal(size=(k, width))[y] + rng.normal(size=(n, width)), y


def sets(options: Options, seed: int) -> Iterator[Set]:
    """All sets of a seed."""
    rng = np.random.default_rng(seed)
    x, y = load_digits(return_X_y=True)
    few, points = thinned(y, rng), {"random_state": seed}
    informative = {"n_informative": 8, "flip_y": 0.0}  # else some of its true labels are random
    groups = {
        "digits": ((x, y), ("symmetric:0.05", "symmetric:0.2", "symmetric:0.4", "pair:0.3", "instance:0.3")),
        "digits, imbalanced": ((x[few], y[few]), ("symmetric:0.2", "instance:0.3")),
        "blobs": (make_blobs(2000, 5, centers=4, cluster_std=2.5, **points), ("symmetric:0.2", "pair:0.3")),
        "classes of two clusters": (
            make_classification(2000, 20, n_classes=3, **informative, **points),
            ("symmetric:0.2", "instance:0.3"),
        ),
        "two classes, 15 %": (
            make_classification(1500, 10, weights=[0.85], **informative, **points),
            ("symmetric:0.15",),
        ),
        "200 classes": (classes_of_points(200, 64, 4000, seed), ("symmetric:0.4", "pair:0.3")),
    }
    for name, ((features, true), noises) in groups.items():
        for noise in noises:
            kind, rate = noise.split(":")
            yield f"{name}, {noise}", features, corrupted(kind, float(rate), features, true, seed), true
    if options.features is None:
        return
    with np.load(options.features) as file:
        x, y, human = file["features"], file["label"].astype(int), ("worst", "random1", "aggregate")
        given = {name: file[f"noisy_{name}"].astype(int) for name in human}
    order = rng.permutation(len(y))
    for name in human:
        some = order[:20000]
        parts = {"1,000": order[:1000], "5,000": order[:5000], "20,000, imbalanced": some[thinned(y[some], rng)]}
        for size, rows in parts.items():
            yield f"human, {name}, {size}", x[rows], given[name][rows], y[rows]


def line(found: list[dict[str, np.ndarray]]) -> str:
    """A row of the table, from what a set showed in each seed."""
    cells = []
    for precision in _PRECISIONS:
        lists = [f["lists"][_PRECISIONS.index(precision)] for f in found]
        made = [(share, recall) for size, share, recall in lists if size]
        kept = sum(share >= precision for share, _ in made)
        recall = f"{100 * np.mean([r for _, r in made]):.0f}" if made else "–"
        cells.append(f"{kept} / {len(made)}, {recall}")
    holds = [sum(bool(f[name]) for f in found) for name in ("noise", "remaining")]
    width = np.mean([f["width"] for f in found])
    return " | ".join([*cells, f"{holds[0]} / {len(found)}, {100 * width:.0f}", f"{holds[1]} / {len(found)}"])


def judged(x: np.ndarray, given: np.ndarray, true: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """What a set shows: precision and recall of the lists, and whether intervals hold."""
    table = nlx.clean(x, given, seed=seed, class_names=[str(i) for i in range(int(true.max()) + 1)])
    probs, wrong, lists = evidence_of(table), given != true, []
    for precision in _PRECISIONS:
        listed = decided(probs, given, precision)
        right = (wrong & listed).sum()
        lists.append((listed.sum(), right / max(listed.sum(), 1), right / max(wrong.sum(), 1)))
    known, left = estimate(probs, given), np.mean(table.cleaned_label != true)
    rate = known.noise_rate
    return {
        "lists": np.array(lists),
        "noise": rate.low <= wrong.mean() <= rate.high,
        "width": rate.high - rate.low,
        "remaining": known.remaining.low <= left <= known.remaining.high,
    }


def main(options: Options) -> None:
    """Print the table."""
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    for seed in options.seeds:
        for name, x, given, true in (s for s in sets(options, seed) if options.only in s[0]):
            found.setdefault(name, []).append(judged(x, given, true, seed))
    heads = [f"{p:.0%}: kept / made, recall" for p in _PRECISIONS]
    print("| set | " + " | ".join([*heads, "noise rate: held, width", "remaining: held"]) + " |")
    print("| --- " * 6 + "|")
    for name, rows in found.items():
        print(f"| {name} | {line(rows)} |")
    print(f"| all | {line([row for rows in found.values() for row in rows])} |")


if __name__ == "__main__":
    main(tyro.cli(Options))
