"""Models of annotators against loops in float64, planted crowds, plans against scatters, and what may go wrong."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from nlx import crowd
from nlx.crowd import sums as sums_module
from nlx.crowd.sums import Sizes, checked, scattered

N, A, K = 40, 5, 3
SIZES = {"num_items": N, "num_annotators": A, "num_classes": K}


def planted(seed=0, answers=160):
    """True labels and answers: one annotator is adversarial, one lazy, some answers come twice, some are no class."""
    rng = np.random.default_rng(seed)
    true, item, who = rng.integers(0, K, N), rng.integers(0, N, answers), rng.integers(0, A, answers)
    said = np.where(rng.uniform(size=answers) < 0.8, true[item], rng.integers(0, K, answers))
    said = np.where(who == 3, (true[item] + 1) % K, np.where(who == 4, 0, said))
    item[:4] = item[4:8]
    said[-3:] = -1, K, 255
    return true, item.astype(np.int32), who.astype(np.int32), said.astype(np.int32)


TRUE, ITEM, WHO, SAID = planted()
ANSWERS = [(i, a, j) for i, a, j in zip(ITEM, WHO, SAID, strict=True) if 0 <= j < K]


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def believe(matrix, prior, trusted=None):
    """The E step of any model, item by item."""
    log_q = np.log(prior) * np.ones((N, 1))
    for i, a, j in ANSWERS:
        log_q[i] += np.log(matrix[a, :, j])
    q = np.stack([softmax(row) for row in log_q])
    for i in range(N):
        if trusted is not None and trusted[i] >= 0:
            q[i] = np.eye(K)[trusted[i]]
    evidence = [np.log(np.exp(row).sum()) for row in log_q]
    return q, np.array(evidence)


ALONE = {i for i in range(N) if sum(item == i for item, _, _ in ANSWERS) == 1}


def counts_of(q, alone=True):
    n = np.zeros((A, K, K))
    for i, a, j in ANSWERS:
        n[a, :, j] += q[i] * (alone or i not in ALONE)
    return n


def class_prior(q, alone=True):
    counted = q[[i for i in range(N) if alone or sum(item == i for item, _, _ in ANSWERS) > 1]]
    return (counted.sum(0) + 1 / K) / (len(counted) + 1)


def reference(start, update, matrix_of, iterations, prior=None, trusted=None, alone=False):
    """EM in loops: beliefs, matrices and log-evidence."""
    q, parameters = np.full((N, K), 1 / K), start
    for _ in range(iterations):
        q, evidence = believe(matrix_of(parameters), class_prior(q, alone) if prior is None else prior, trusted)
        parameters = update(parameters, counts_of(q, alone))
    return q, matrix_of(parameters), evidence


def leaning(strength, smoothing, groups):
    def update(_, n):
        out = np.empty_like(n)
        for a in range(A):
            pooled = n[[b for b in range(A) if groups[b] == groups[a]]].sum(0) + 0.7 * np.eye(K) + 0.3 / K
            shared, pull = pooled / pooled.sum(1, keepdims=True), strength if groups[a] >= 0 else 0
            weights = n[a] + pull * shared + smoothing
            out[a] = weights / weights.sum(1, keepdims=True)
        return out

    return update


def coin(_, n):
    return np.array([(np.trace(c) + 1.0) / (c.sum() + 1.5) for c in n])


def habits(before, n):
    theta, habit = before
    knew = np.zeros((A, K))
    for a in range(A):
        for i in range(K):
            knew[a, i] = n[a, i, i] * theta[a] / (theta[a] + (1 - theta[a]) * habit[a, i])
    guessed = n.sum(1) - knew + 0.1
    return (knew.sum(1) + 0.5) / (n.sum((1, 2)) + 1), guessed / guessed.sum(1, keepdims=True)


ANYONE = np.broadcast_to(np.where(np.eye(K) > 0, 0.7, 0.15), (A, K, K))
IDENTITY = lambda matrix: matrix  # noqa: E731
GROUPS = np.array([0, 0, 1, 1, -1])
PRIOR = np.random.default_rng(1).dirichlet(np.ones(K), N)
TRUSTED = np.where(np.arange(N) % 7 == 0, TRUE, -1)
MODELS = {
    "dawid_skene": (
        partial(crowd.dawid_skene, strength=0.0, smoothing=0.3),
        partial(reference, ANYONE, leaning(0, 0.3, np.zeros(A)), IDENTITY, alone=True),
    ),
    "everything": (
        partial(
            crowd.dawid_skene,
            strength=4.0,
            groups=GROUPS,
            log_prior=np.log(PRIOR).astype(np.float32) + 3,
            trusted=TRUSTED,
        ),
        partial(reference, ANYONE, leaning(4, 0.01, GROUPS), IDENTITY, prior=PRIOR, trusted=TRUSTED, alone=True),
    ),
    "one_coin": (
        crowd.one_coin,
        partial(
            reference,
            np.full(A, 0.7),
            coin,
            lambda s: np.where(np.eye(K) > 0, s[:, None, None], (1 - s[:, None, None]) / (K - 1)),
        ),
    ),
    "mace": (
        crowd.mace,
        partial(
            reference,
            (np.full(A, 0.55), np.full((A, K), 1 / K)),
            habits,
            lambda p: p[0][:, None, None] * np.eye(K) + (1 - p[0])[:, None, None] * p[1][:, None, :],
        ),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_em_is_that_of_the_formulas(name):
    ours, loops = MODELS[name]
    c = ours(ITEM, WHO, SAID, **SIZES, iterations=7, tolerance=0.0)
    q, matrix, evidence = loops(7)
    np.testing.assert_allclose(c.posterior, q, atol=2e-5)
    np.testing.assert_allclose(c.confusion, matrix, atol=2e-5)
    np.testing.assert_allclose(c.log_evidence, evidence, atol=2e-4)
    np.testing.assert_allclose(c.class_prior, class_prior(q, name in ("dawid_skene", "everything")), atol=1e-5)
    assert c.iterations == 7
    converged = ours(ITEM, WHO, SAID, **SIZES, iterations=400, tolerance=1e-5)
    assert converged.change <= 1e-5
    assert converged.iterations < 400


def test_em_never_lowers_the_likelihood():
    """With neither priors nor what is shared, for then it is the likelihood that EM climbs."""
    run = partial(crowd.dawid_skene, ITEM, WHO, SAID, **SIZES, smoothing=0.0, strength=0.0, tolerance=0.0)
    likelihood = [float(run(iterations=i).log_evidence.sum()) for i in (1, 2, 4, 8)]
    assert likelihood == sorted(likelihood)
    assert likelihood[-1] > likelihood[0] + 1


def glad_in_loops(iterations, steps):
    ability, ease = np.ones(A), np.ones(N)

    def beliefs(prior):
        log_q = np.log(prior) * np.ones((N, 1))
        for i, a, j in ANSWERS:
            p = 1 / (1 + np.exp(-ability[a] * np.exp(ease[i])))
            log_q[i] += np.where(np.arange(K) == j, np.log(p), np.log((1 - p) / (K - 1)))
        return np.stack([softmax(row) for row in log_q])

    q = np.full((N, K), 1 / K)
    for _ in range(iterations):
        q = beliefs(class_prior(q, alone=False))
        for _ in range(steps):
            for mine, values in (("ability", ability), ("ease", ease)):
                slope, curvature = 1 - values, np.ones(len(values))
                for i, a, j in (answer for answer in ANSWERS if answer[0] not in ALONE):
                    x = ability[a] * np.exp(ease[i])
                    p, at = 1 / (1 + np.exp(-x)), a if mine == "ability" else i
                    outer = np.exp(ease[i]) if mine == "ability" else x
                    slope[at] += (q[i, j] - p) * outer
                    curvature[at] += p * (1 - p) * outer**2
                values += np.clip(slope / curvature, -1, 1)
    return q, ability, np.exp(ease)


def test_glad_is_that_of_the_formulas():
    c = crowd.glad(ITEM, WHO, SAID, **SIZES, iterations=4, tolerance=0.0)
    for ours, expected in zip(c[:3], glad_in_loops(4, 5), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-5)
    assert c.ability[3] < 0 < c.ability[:3].min()


def test_a_plan_and_eight_devices_sum_as_scatters_do(monkeypatch):
    sizes = Sizes(N, A, K)
    monkeypatch.setattr(sums_module, "_MANY", 1)
    rng = np.random.default_rng(0)
    rare = np.minimum(rng.geometric(0.02, 1600) - 1, A - 1)  # nearly all by one, so that there are three levels
    items, labels = rng.integers(0, N - 1, 1600), rng.integers(-1, K, 1600)  # nobody looks at the last item
    planned, plain = (f(items, rare, labels, sizes) for f in (checked, scattered))
    assert len(planned.by_cell) >= 2
    assert not plain.by_cell
    eight = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put((items, rare, labels), NamedSharding(eight, PartitionSpec("d")))
    assert not checked(*spread, sizes).by_item
    q, table = rng.normal(size=(N, K)).astype(np.float32), rng.normal(size=(A * K, K)).astype(np.float32)
    expected, counted = np.zeros((N, K)), np.zeros((A * K, K))
    for i, a, j in zip(items, rare, labels, strict=True):
        if j >= 0:
            expected[i] += table[a * K + j]
            counted[a * K + j] += q[i]
    monkeypatch.setattr(sums_module, "_CACHED", 40)
    blocked = checked(items, rare, labels, sizes)
    assert [len(level) for level in blocked.by_cell[-1:]] == [3]
    for sums in (planned, plain, blocked, checked(*spread, sizes)):
        np.testing.assert_allclose(sums.of_items(jnp.asarray(table), sizes), expected, atol=1e-3)
        np.testing.assert_allclose(sums.of_cells(jnp.asarray(q), sizes), counted, atol=1e-3)
    one = crowd.dawid_skene(items, rare, labels, **SIZES)
    np.testing.assert_allclose(crowd.dawid_skene(*spread, **SIZES).posterior, one.posterior, atol=1e-4)


def big_crowd(kinds, per_item, seed=0, items=2000, classes=4):
    """Answers of a crowd whose confusion matrices are known: (true labels, item, annotator, label, matrices)."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, items)
    item = np.repeat(np.arange(items), per_item)
    who = np.concatenate([rng.choice(len(kinds), per_item, replace=False) for _ in range(items)])
    draws = (kinds[who, true[item]].cumsum(1) < rng.uniform(size=(len(who), 1))).sum(1)
    return true, item, who, np.minimum(draws, classes - 1)


def test_skilled_lazy_and_adversarial_annotators_are_told_apart_and_nobody_switches_labels():
    rng = np.random.default_rng(0)
    eye = np.eye(4)
    skilled = [p * eye + (1 - p) * rng.dirichlet(np.ones(4), 4) for p in rng.uniform(0.6, 0.9, 14)]
    lazy, adversarial = np.tile([0.85, 0.05, 0.05, 0.05], (4, 1)), 0.8 * np.roll(eye, 1, axis=1) + 0.05
    matrices = np.stack([*skilled, lazy, lazy, adversarial, adversarial])
    true, item, who, said = big_crowd(matrices, 5)
    c = crowd.dawid_skene(item, who, said, num_items=2000, num_annotators=18, num_classes=4)
    q = np.asarray(c.posterior)
    right = q.argmax(1) == true
    votes = crowd.majority_vote(item, said, num_items=2000, num_classes=4)
    assert right.mean() > np.mean(np.asarray(votes.label) == true) + 0.03
    assert np.abs(np.asarray(c.confusion) - matrices).mean() < 0.03
    assert abs(q.max(1).mean() - right.mean()) < 0.02  # as sure as it may be
    quality = crowd.annotator_quality(q, item, who, said, num_annotators=18)
    truly = np.einsum("aii->a", matrices) / 4
    assert np.mean((quality.low <= truly) & (truly <= quality.high)) > 0.8
    assert quality.right[-2:].max() < 0.15


def test_one_answer_an_item_is_believed_whatever_the_crowd():
    """Half of it always says the same: nothing tells who, and no class may take all."""
    lazy, able = np.tile([0.91, 0.03, 0.03, 0.03], (4, 1)), 0.8 * np.eye(4) + 0.05
    _, item, who, said = big_crowd(np.stack([lazy, able] * 10), 1)
    sizes = {"num_items": 2000, "num_annotators": 20, "num_classes": 4}
    for fit in (crowd.dawid_skene, crowd.one_coin, crowd.mace, crowd.glad):
        c = fit(item, who, said, **sizes)
        assert (np.asarray(c.posterior).argmax(1) == said).mean() > 0.99, fit.__name__


def test_annotators_of_few_answers_lean_on_the_others():
    """Of five answers each: matrices of their own are of little use, and those that lean are nearer the truth."""
    matrices = np.tile(0.7 * np.eye(4) + 0.075, (400, 1, 1))
    true, item, who, said = big_crowd(matrices, 3, items=700)
    sizes = {"num_items": 700, "num_annotators": 400, "num_classes": 4}
    own, leaning = (crowd.dawid_skene(item, who, said, **sizes, strength=s) for s in (0.0, None))
    off = [np.abs(np.asarray(c.confusion) - matrices).mean() for c in (own, leaning)]
    assert off[1] < 0.05 < 3 * off[1] < off[0]
    assert np.mean(leaning.posterior.argmax(1) == true) > np.mean(own.posterior.argmax(1) == true)


def test_krippendorffs_alpha_is_that_of_the_coincidence_matrix():
    """The example of Krippendorff, 2011, section C: alpha is 0.743."""
    table = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ]
    )  # observer by observer, 0 for a missing answer
    items = np.tile(np.arange(12), 4)
    alpha = crowd.krippendorff_alpha(items, table.ravel() - 1, num_items=12, num_classes=5)
    assert float(alpha) == pytest.approx(0.743, abs=5e-4)


def test_information_is_the_mutual_one_and_asks_the_able_about_the_open():
    rng = np.random.default_rng(0)
    q, t = rng.dirichlet(np.ones(3), 5), rng.dirichlet(np.ones(3), (2, 3))
    ours = crowd.expected_information(q.astype(np.float32), t.astype(np.float32))
    for n in range(5):
        for g in range(2):
            joint = q[n][:, None] * t[g]
            expected = (joint * np.log(joint / (joint.sum(1, keepdims=True) * joint.sum(0)))).sum()
            assert float(ours[n, g]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": SAID[:3]}, r"labels .* and items .* must have the same shape"),
        ({"annotators": WHO * 1.0}, "annotators must be integers"),
        ({"num_classes": 1}, "num_classes must be at least 2"),
        ({"num_items": 0}, "items must be at least 1"),
        ({"strength": -1.0}, "strength must be at least 0"),
        ({"groups": [0, 1]}, r"groups must be \(5,\)"),
        ({"log_prior": np.zeros((2, K))}, r"log_prior must be \(40, 3\)"),
        ({"trusted": [0]}, r"trusted must be \(40,\)"),
        ({"iterations": 0}, "iterations must be at least 1"),
    ],
)
def test_a_mistake_is_told(change, message):
    arguments = {"items": ITEM, "annotators": WHO, "labels": SAID, **SIZES, **change}
    with pytest.raises((ValueError, TypeError), match=message):
        crowd.dawid_skene(**arguments)


def said_by_a_crowd(seed=3, skew=None):
    """300 items, 20 people and 4 classes, with abstentions, repeated answers and items that nobody has seen."""
    rng = np.random.default_rng(seed)
    true = rng.choice(4, 300, p=skew)
    item, who = rng.integers(0, 280, 1200), rng.integers(0, 20, 1200)
    label = np.where(rng.random(1200) < 0.7, true[item], rng.choice(4, 1200, p=skew))
    return item, who, np.where(rng.random(1200) < 0.05, -1, label)


def test_votes_are_those_counted_one_by_one():
    item, _, label = said_by_a_crowd()
    votes = crowd.majority_vote(item, label, num_items=300, num_classes=4)
    for i in range(300):
        own = [int(j) for n, j in zip(item, label, strict=True) if n == i and j >= 0]
        counts = [own.count(j) for j in range(4)]
        assert votes.counts[i].tolist() == counts
        assert int(votes.label[i]) == (counts.index(max(counts)) if own else -1)
        assert bool(votes.tied[i]) == (bool(own) and counts.count(max(counts)) > 1)


def test_quality_is_wilsons_interval_of_what_is_known():
    item, who, label = said_by_a_crowd()
    posterior = np.random.default_rng(0).dirichlet(np.full(4, 0.2), 300)
    found = crowd.annotator_quality(posterior.astype(np.float32), item, who, label, num_annotators=21, confidence=0.9)
    z = 1.6448536269514722
    for a in range(20):
        p = [posterior[i, j] for i, b, j in zip(item, who, label, strict=True) if b == a and j >= 0]
        n, share = len(p), sum(p) / len(p)
        worth = max(n * (1 - np.mean([x * (1 - x) for x in p]) / (share * (1 - share))), 0)
        middle = (share * worth + z**2 / 2) / (worth + z**2)
        reach = z * math.sqrt(share * (1 - share) * worth + z**2 / 4) / (worth + z**2)
        assert float(found.answers[a]) == n
        expected = (share, max(middle - reach, 0), min(middle + reach, 1))
        assert [float(x[a]) for x in (found.right, found.low, found.high)] == pytest.approx(expected, abs=2e-5)
    assert (float(found.low[20]), float(found.high[20])) == (0, 1)  # of whom nothing is known


def alpha_by_pairs(item, label):
    """Of all pairs of answers to an item, and of all answers, in float64."""
    of_item = {i: [int(j) for n, j in zip(item, label, strict=True) if n == i and j >= 0] for i in set(item.tolist())}
    paired = [own for own in of_item.values() if len(own) > 1]
    total = sum(map(len, paired))
    observed = sum(sum(a != b for a in own for b in own) / (len(own) - 1) for own in paired) / total
    every = np.bincount([j for own in paired for j in own], minlength=4).astype(np.float64)
    return 1 - observed * total * (total - 1) / sum(every[a] * every[b] for a in range(4) for b in range(4) if a != b)


@pytest.mark.parametrize("skew", [None, (0.97, 0.01, 0.01, 0.01)])
def test_alpha_is_that_of_all_pairs(skew):
    item, _, label = said_by_a_crowd(skew=skew)
    if skew is not None:
        label = np.random.default_rng(1).permutation(label)  # agreement by chance: alpha near 0
    alpha = crowd.krippendorff_alpha(item, label, num_items=300, num_classes=4)
    assert float(alpha) == pytest.approx(alpha_by_pairs(item, label), abs=1e-6)


@pytest.mark.filterwarnings("ignore:The (inplace|copy) keyword")
def test_crowd_kit_says_the_same():
    """Its methods know no pull towards what annotators share, and start from the majority's shares."""
    kit, pandas = pytest.importorskip("crowdkit.aggregation"), pytest.importorskip("pandas")
    item, who, label = said_by_a_crowd()
    kept = np.unique(item * 20 + who, return_index=True)[1]  # one answer by each to an item
    item, who, label = (x[kept][label[kept] >= 0] for x in (item, who, label))
    table = pandas.DataFrame({"task": item, "worker": who, "label": label})
    sizes = {"num_items": 300, "num_annotators": 20, "num_classes": 4}
    votes = crowd.majority_vote(item, label, num_items=300, num_classes=4)
    theirs = kit.MajorityVote().fit_predict(table)
    clear = [i for i in theirs.index if not votes.tied[i]]
    assert [int(votes.label[i]) for i in clear] == theirs[clear].tolist()
    ours = np.asarray(
        crowd.dawid_skene(item, who, label, **sizes, strength=0.0, smoothing=0.0, iterations=100).posterior
    )
    model = kit.DawidSkene(n_iter=100, tol=-np.inf).fit(table)
    rows = model.probas_.index.to_numpy()
    np.testing.assert_allclose(ours[rows], model.probas_[[0, 1, 2, 3]].to_numpy(), atol=0.01)
    coin = np.asarray(crowd.one_coin(item, who, label, **sizes, iterations=100).posterior)
    one = kit.OneCoinDawidSkene(n_iter=100, tol=-np.inf).fit(table)
    same = coin[rows].argmax(1) == one.probas_[[0, 1, 2, 3]].to_numpy().argmax(1)
    assert same.mean() > 0.98
