"""How sure a consensus is: what answers are worth beside others, who repeats whom, and intervals that hold."""

import itertools

import numpy as np
import pytest

from nlx import crowd
from nlx.data.crowds import planted_crowd

K = 3
WEIGHTS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def log_softmax(x):
    return x - x.max() - np.log(np.exp(x - x.max()).sum())


@pytest.fixture(scope="module")
def misled():
    """2,000 items, of a third of which everyone takes the true class for one other more often than not."""
    rng = np.random.default_rng(0)
    true, hard = rng.integers(0, K, 500), rng.uniform(size=500) < 0.35
    item = np.repeat(np.arange(500), 6)
    who = np.concatenate([rng.choice(20, 6, replace=False) for _ in range(500)])
    right = rng.uniform(size=3000) < np.where(hard[item], 0.2, 0.9)
    said = np.where(right, true[item], (true[item] + 1) % K).astype(np.int32)
    sizes = {"num_items": 500, "num_annotators": 20, "num_classes": K}
    return true, (item, who, said), sizes


def tempered_in_loops(c, answers, strength, trusted):
    """The best weight and the beliefs under it, item by item."""
    q, t, prior = (np.asarray(x, np.float64) for x in (c.posterior, c.confusion, c.class_prior))
    counts = np.zeros_like(t)
    for n, a, j in zip(*answers, strict=True):
        counts[a, :, j] += q[n]
    pooled = counts.sum(0) + 0.7 * np.eye(K) + 0.3 / K
    whole = counts + strength * pooled / pooled.sum(1, keepdims=True) + 0.01
    rows = {}
    for n, a, j in zip(*answers, strict=True):
        rows.setdefault(n, []).append(np.log((whole[a, :, j] - q[n]) / (whole[a].sum(1) - q[n])))
    fits = []
    for w in WEIGHTS:
        fit = -2 * np.log(w) ** 2
        for n, each in rows.items():
            if trusted is not None:
                fit += log_softmax(np.log(prior) + w * sum(each))[trusted[n]] if trusted[n] >= 0 else 0
                continue
            for row in each:
                fit += np.log(np.exp(log_softmax(np.log(prior) + w * (sum(each) - row)) + row).sum())
        fits.append(fit)
    best = WEIGHTS[int(np.argmax(fits))]
    log_q = np.log(prior) * np.ones((len(q), 1))
    for n, a, j in zip(*answers, strict=True):
        log_q[n] += best * np.log(t[a, :, j])
    beliefs = np.exp([log_softmax(row) for row in log_q])
    if trusted is not None:
        beliefs[trusted >= 0] = np.eye(K)[trusted[trusted >= 0]]
    return best, beliefs


def test_answers_are_worth_what_those_held_out_bear_out_and_trusted_labels_say_more(misled):
    true, answers, sizes = misled
    some = np.where(np.arange(500) % 10 == 0, true, -1)
    found, rest = {}, some < 0
    for name, trusted in (("plain", None), ("trusted", some)):
        c = crowd.dawid_skene(*answers, **sizes, strength=4.0, trusted=trusted)
        found[name] = crowd.tempered(c, *answers, strength=4.0, trusted=trusted)
        best, beliefs = tempered_in_loops(c, answers, 4.0, trusted)
        assert float(found[name].weight) == pytest.approx(best)
        np.testing.assert_allclose(found[name].posterior, beliefs, atol=2e-4)
    beliefs = c.posterior, found["plain"].posterior, found["trusted"].posterior
    losses = [-np.log(np.asarray(q)[rest, true[rest]]).mean() for q in beliefs]
    assert losses == sorted(losses, reverse=True)
    assert found["trusted"].weight < found["plain"].weight < 1


def test_a_group_is_the_best_of_all_that_there_are():
    """Of seven people three copy one another in most cases; all groups are looked at, all pairs in loops."""
    rng = np.random.default_rng(1)
    true, people = rng.integers(0, K, 40), 7
    said = np.where(rng.uniform(size=(people, 40)) < 0.6, true, rng.integers(0, K, (people, 40)))
    said[[2, 5]] = np.where(rng.uniform(size=(2, 40)) < 0.9, said[1], said[[2, 5]])
    asked = rng.uniform(size=said.shape) < 0.8
    who, item = np.nonzero(asked)
    q, t = rng.dirichlet(np.ones(K), 40), 0.5 * np.eye(K) + 0.5 * rng.dirichlet(np.ones(K), (people, K))
    evidence = np.zeros((people, people))
    for a, b in itertools.combinations(range(people), 2):
        common = [n for n in range(40) if asked[a, n] and asked[b, n]]
        p = np.mean([sum(q[n, i] * t[a, i] @ t[b, i] for i in range(K)) for n in common])
        agree = sum(said[a, n] == said[b, n] for n in common)
        evidence[a, b] = agree * np.log((0.7 + 0.3 * p) / p) + (len(common) - agree) * np.log(0.3)
    groups = [g for size in range(2, people) for g in itertools.combinations(range(people), size)]
    worth = [evidence[np.ix_(g, g)].sum() - len(g) * np.log(people) for g in groups]
    best = groups[int(np.argmax(worth))]
    assert best == (1, 2, 5)
    answers = item, who, said[asked]
    for error, expected in (
        (np.exp(-max(worth) + 0.01), [0, 1, 1, 3, 4, 1, 6]),
        (np.exp(-max(worth) - 0.01), range(7)),
    ):
        found = crowd.copies(q, t, *answers, error=error)
        assert found.group.tolist() == list(expected)
        seen, again = set(), []
        for n, a, j in zip(*answers, strict=True):
            cell = n, expected[a], j
            again.append(cell in seen)
            seen.add(cell)
        assert found.repeated.tolist() == again


@pytest.mark.parametrize("skilled", [True, False])
def test_who_repeats_others_is_found_by_few_answers_and_intervals_hold_what_they_promise(skilled):
    true = np.random.default_rng(0).integers(0, 4, 4000)
    made = planted_crowd(true, 4, per_item=2, annotators=50, skilled_only=skilled)
    answers, sizes = (made.item, made.annotator), {"num_items": 4000, "num_annotators": 50, "num_classes": 4}
    c = crowd.dawid_skene(*answers, made.label, **sizes)
    assert crowd.tempered(c, *answers, made.label).weight >= 0.9
    found = crowd.copies(c.posterior, c.confusion, *answers, made.label)
    together = np.bincount(found.group)[found.group] > 1
    np.testing.assert_array_equal(together, made.kind == "colluding")
    assert len(set(found.group[together])) == (0 if skilled else 1)
    c = crowd.dawid_skene(*answers, np.where(found.repeated, -1, made.label), **sizes)
    quality = crowd.annotator_quality(c.posterior, *answers, made.label, num_annotators=50, confidence=0.9)
    truly = np.einsum("aii->a", made.confusion) / 4
    assert np.mean((quality.low <= truly) & (truly <= quality.high)) >= 0.86
    assert np.mean(quality.high - quality.low) < 0.2


def test_one_answer_an_item_says_nothing_of_who_gives_it():
    alone = np.arange(30)
    c = crowd.dawid_skene(alone, alone % 5, alone % K, num_items=30, num_annotators=5, num_classes=K)
    quality = crowd.annotator_quality(c.posterior, alone, alone % 5, alone % K, num_annotators=5)
    assert quality.low.max() < 0.01 < 0.99 < quality.high.min()
