"""How sure a consensus is beside how often it is right: Dawid-Skene's beliefs, and nlx.consensus's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.kernels.crowd import Answers
from nlx import crowd
from nlx.cleaning.beliefs import Beliefs, believed
from nlx.data import answers as data
from nlx.data.crowds import planted_crowd

_BINS = 15


def sureness(q: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Share right, mean probability of the label less that, expected calibration error, all in percent, and NLL."""
    top, right = q.max(axis=1), q.argmax(axis=1) == truth
    of = np.minimum((top * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(of, top - right, _BINS)
    nll = -np.log(np.maximum(q[np.arange(len(truth)), truth], 1e-12)).mean()
    percent = [100 * right.mean(), 100 * (top.mean() - right.mean()), 100 * np.abs(gaps).sum() / len(truth)]
    return np.array([*percent, nll])


def consensus_of_numbers(answers: Answers, n: int, k: int) -> Beliefs:
    """What nlx.consensus believes of answers by number."""
    item, annotator, label = answers
    people, names = np.arange(int(annotator.max()) + 1), tuple(map(str, range(k)))
    return believed(data.Answers(item, annotator, label, np.arange(n), people, names, np.zeros_like(people), ("",)))


def sureness_table(answers: Answers, n: int, k: int, truth: np.ndarray) -> list[str]:
    """Dawid-Skene as it is beside nlx.consensus."""
    sizes = {"num_items": n, "num_annotators": int(answers[1].max()) + 1, "num_classes": k}
    plain, ours = crowd.dawid_skene(*answers, **sizes), consensus_of_numbers(answers, n, k)
    rows = {"Dawid-Skene": np.asarray(plain.posterior), f"nlx.consensus, weight {ours.weight:.2g}": ours.posterior}
    lines = ["| beliefs | % right | surer than right | ECE | NLL |", "| --- " * 5 + "|"]
    for name, q in rows.items():
        right, surer, ece, nll = sureness(q, truth)
        lines.append(f"| {name} | {right:.2f} | {surer:.1f} | {ece:.1f} | {nll:.3f} |")
    return lines


def planted_table(seeds: Sequence[int]) -> list[str]:
    """Crowds of 50 people, 1 to 5 answers an item, four classes."""
    lines = [
        "| crowd | answers an item | majority | GLAD | right | surer than right | ECE | NLL | intervals that hold "
        "| copiers found | error of T | switched |",
        "| --- " * 12 + "|",
    ]
    for skilled in (True, False):
        for per_item in range(1, 6):
            cells = np.mean([_planted(seed, per_item, skilled) for seed in seeds], axis=0)
            kinds = "skilled only" if skilled else "60 % skilled, lazy, adversarial, colluding"
            one, both = cells[:6], cells[6:].reshape(2, 5)
            pairs = [f"{a:.1f} / {b:.1f}" for a, b in zip(*both[:, :3], strict=True)]
            pairs += [f"{both[0, 3]:.3f} / {both[1, 3]:.3f}", f"{both[0, 4]:.0f} / {both[1, 4]:.0f}"]
            lines.append(
                f"| {kinds} | {per_item} | {one[0]:.1f} | {one[1]:.1f} | {' | '.join(pairs)} | "
                f"{one[2]:.1f} and {one[3]:.1f} others | {one[4]:.3f} | {one[5]:.1f} |"
            )
    return [
        *lines,
        "",
        "Dawid-Skene's own beliefs / nlx.consensus: percent right; mean probability of the label less that, and "
        "expected calibration error, in points; negative log-likelihood of the truth; percent of the 95 % intervals of "
        "annotators' quality that hold how often they are right on average. Of the consensus: how many of the 8 who "
        "copy it finds, and of the others; mean absolute error of the skilled people's matrices; of them, how many "
        "have a class that they are believed to call by another name more often than by its own. 5,000 items, "
        f"{len(seeds)} seeds.",
    ]


def _planted(seed: int, per_item: int, skilled: bool) -> np.ndarray:
    truth = np.random.default_rng(seed).integers(0, 4, 5000)
    made = planted_crowd(truth, 4, per_item=per_item, annotators=50, seed=seed, skilled_only=skilled)
    answers, sizes = (made.item, made.annotator, made.label), {"num_items": 5000, "num_classes": 4}
    votes = crowd.majority_vote(made.item, made.label, **sizes)
    able, glad = made.kind == "skilled", crowd.glad(*answers, **sizes, num_annotators=50)
    plain, ours = crowd.dawid_skene(*answers, **sizes, num_annotators=50), consensus_of_numbers(answers, 5000, 4)
    truly = np.einsum("aii,i->a", made.confusion, np.bincount(truth, minlength=4) / len(truth))
    told = []
    for q in (np.asarray(plain.posterior), ours.posterior):
        quality = crowd.annotator_quality(q, *answers, num_annotators=50)
        holds = np.mean((np.asarray(quality.low) <= truly) & (truly <= np.asarray(quality.high)))
        told.append([*sureness(q, truth), 100 * holds])
    found, copying = np.bincount(ours.group, minlength=50)[ours.group] > 1, made.kind == "colluding"
    switched = (ours.confusion[able].argmax(axis=2) != np.arange(4)).any(axis=1).sum()
    shares = (100 * np.mean(np.asarray(label) == truth) for label in (votes.label, glad.posterior.argmax(axis=1)))
    error = np.abs(ours.confusion[able] - made.confusion[able]).mean()
    one = *shares, (found & copying).sum(), (found & ~copying).sum(), error, switched
    return np.array([*one, *told[0], *told[1]])
