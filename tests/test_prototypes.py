import re
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from benchmarks.kernels.programs import facts_of
from nlx import prototypes
from nlx.prototypes import correction, members

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


def points(n, d=6, seed=0):
    """Features with duplicates and a zero vector among them."""
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    x[n // 2 :][: n // 4] = x[: n // 4]
    if n > 3:
        x[3] = 0
    return x


def reference(s, p, share=0.4, limit=0.95):
    """The paper's steps 3 to 6 one element at a time, on a given S."""
    m = len(s)
    ordered = sorted(s.ravel().tolist())
    threshold = ordered[max(1, -(-round(share * 10_000) * m * m // 10_000)) - 1]
    rho = [sum(int(np.sign(s[i, j] - threshold)) for j in range(m)) for i in range(m)]
    eta = []
    for i in range(m):
        denser = [s[i, j] for j in range(m) if rho[j] > rho[i]]
        eta.append(max(denser) if denser else min(s[i]))
    fit = sorted((i for i in range(m) if eta[i] < limit), key=lambda i: (-rho[i], i))
    rest = sorted((i for i in range(m) if eta[i] >= limit), key=lambda i: (-rho[i], i))
    return threshold, rho, eta, (fit + rest)[:p], len(fit)


def cosines(x, y):
    """Cosines in float64, 0 for zero vectors."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    lengths = np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1))
    return np.divide(x @ y.T, lengths, out=np.zeros(lengths.shape), where=lengths > 0)


def test_cosines_of_anything_even_of_zero_vectors():
    x = points(20) * RNG.uniform(1e-6, 1e6, (20, 1)).astype(np.float32)
    s = prototypes.cosine_similarity(x)
    np.testing.assert_allclose(s, cosines(x, x), atol=1e-6)
    assert s[3, 3] == 0
    np.testing.assert_allclose(jax.jit(prototypes.cosine_similarity)(x), s, atol=1e-6)


def test_cosines_of_many_are_halved_and_mirrored():
    x = RNG.normal(size=(521, 3)).astype(np.float32)
    s = np.asarray(jax.jit(prototypes.cosine_similarity)(x))
    np.testing.assert_allclose(s, cosines(x, x), atol=1e-6)
    np.testing.assert_array_equal(s[:260, 260:], s[260:, :260].T)


@pytest.mark.parametrize("share", [0.0, 1 / 3, 0.4, 1.0])
def test_the_quantile_is_the_element_that_sorting_finds(share):
    quantile = jax.jit(lambda x, w: prototypes.quantile(x, share, where=w))
    for scale in (1e-30, 1.0, 1e30):
        x = (RNG.normal(size=(9, 12)) * scale).astype(np.float32)
        x[:4, 0], x[1, :4], x[2, :4] = 0.0, -0.0, x[3, 3]
        for w in (RNG.uniform(size=x.shape) < 0.7, np.ones(x.shape, bool)):
            values, selected = x[w], quantile(x, w)
            k = max(1, int(np.ceil(round(share * 3e6) * values.size / 3e6 - 1e-9)))
            assert selected == np.sort(values)[k - 1]


def test_the_rank_is_exact_where_float32_is_not():
    n = 1280 * 1280
    x = np.random.default_rng(1).permutation(n).astype(np.float32)
    for share, k in ((0.4, 655_360), (0.3, 491_520)):
        assert prototypes.quantile(x.reshape(1280, 1280), share) == k - 1


def test_the_quantile_of_little():
    assert prototypes.quantile(jnp.float32(3.0), 0.4) == 3
    assert prototypes.quantile(jnp.array([-jnp.inf, 1.0, jnp.inf]), 0.0) == -jnp.inf
    assert np.isnan(prototypes.quantile(jnp.ones(3), 0.4, where=jnp.zeros(3, bool)))


@jax.jit
def steps(s):
    threshold = prototypes.quantile(s, 0.4)
    rho = prototypes.density(s, threshold)
    eta = prototypes.separation(s, rho)
    return threshold, rho, eta, prototypes.select(rho, eta, 5, limit=0.7)


@pytest.mark.parametrize("m", [1, 3, 40])
def test_density_separation_and_selection_follow_the_definitions(m):
    for decimals in (1, 8):  # one decimal makes ties of every kind
        s = cosines(points(m), points(m)).round(decimals).astype(np.float32)
        threshold, rho, eta, rows, qualified = reference(s, 5, limit=np.float32(0.7))
        selected = steps(s)
        assert selected[0] == np.float32(threshold)
        np.testing.assert_array_equal(selected[1], rho)
        np.testing.assert_array_equal(selected[2], np.float32(eta))
        np.testing.assert_array_equal(selected[3].valid, np.arange(5) < m)
        np.testing.assert_array_equal(selected[3].rows[: len(rows)], rows)
        assert selected[3].qualified == qualified
    if m == 3:
        with jax.disable_jit():
            jax.tree.map(np.testing.assert_array_equal, steps(s), selected)


def test_rows_that_only_pad_change_nothing():
    x = points(30)
    where = RNG.uniform(size=30) < 0.6

    def everything(x, where):
        s = prototypes.cosine_similarity(x)
        rho = prototypes.density(s, 0.1, where=where)
        # Others must not count even where they would be the densest.
        eta = prototypes.separation(s, jnp.where(where, rho, 99), where=where)
        return rho, eta, prototypes.by_density(KEY, x, where, 4)

    rho, eta, whole = jax.jit(everything)(x, where)
    expected_rho, expected_eta, part = jax.jit(everything)(x[where], np.ones(where.sum(), bool))
    np.testing.assert_array_equal(rho[where], expected_rho)
    np.testing.assert_allclose(eta[where], expected_eta, atol=1e-6)
    assert (rho[~where] == 0).all()
    assert (eta[~where] == np.inf).all()
    np.testing.assert_array_equal(whole.rows, np.flatnonzero(where)[np.asarray(part.rows)])
    assert whole.qualified == part.qualified


def test_no_member_is_compared_with_itself():
    """With itself at cosine 1, every member but the densest would be too close to be a prototype."""
    x = np.eye(8, dtype=np.float32) + RNG.uniform(0, 0.1, (8, 8)).astype(np.float32)
    _, _, eta, selected = steps(cosines(x, x).astype(np.float32))
    assert (eta < 0.7).all()
    assert selected.qualified == 8


def test_sampled_members():
    labels = np.array([2, 0, -1, 2, 2, 5, 0, 2, 3, 2])
    sample = jax.jit(lambda size, where: prototypes.sample_members(KEY, labels, 4, size, where=where), static_argnums=0)
    index, mask = map(np.asarray, sample(3, np.ones(10, bool)))
    np.testing.assert_array_equal(mask.sum(1), [2, 0, 3, 1])
    np.testing.assert_array_equal(index[0], [1, 6, 0])
    np.testing.assert_array_equal(index[3], [8, 0, 0])
    assert set(index[2]) < {0, 3, 4, 7, 9}
    assert len(set(index[2])) == 3
    index, mask = map(np.asarray, sample(12, np.arange(10) > 3))
    np.testing.assert_array_equal(index[2][mask[2]], [4, 7, 9])
    np.testing.assert_array_equal(mask.sum(1), [1, 0, 3, 1])


def test_every_member_is_sampled_equally_often():
    labels = np.repeat([0, 1], [20, 300])
    draw = jax.jit(jax.vmap(lambda k: prototypes.sample_members(k, labels, 2, 5)[0]))
    index = np.asarray(draw(jax.random.split(KEY, 2000)))
    counts = np.bincount(index[:, 0].ravel(), minlength=20)
    z = (counts - 500) / np.sqrt(2000 * 0.25 * 0.75)
    assert np.abs(z).max() < 4
    assert z.std() > 0.5


SIZES = (40, 9, 0, 3, 1)
LABELS = np.random.default_rng(3).permutation(np.repeat(range(5), SIZES))
FEATURES = points(len(LABELS), seed=4)
S = np.asarray(jax.jit(prototypes.cosine_similarity)(FEATURES))


@jax.jit
def find(x, y, limit=0.95):
    return prototypes.class_prototypes(
        KEY, x, y, 5, members=45, count=4, selector=lambda *a: prototypes.by_density(*a, limit=limit)
    )


@pytest.mark.parametrize("limit", [0.95, 0.5, -1.0])
def test_classes_of_every_size_in_one_program(limit):
    selected = find(FEATURES, LABELS, limit)
    for c, size in enumerate(SIZES):
        rows = np.flatnonzero(c == LABELS)
        held = min(size, 4)
        np.testing.assert_array_equal(selected.valid[c], np.arange(4) < held)
        if size:
            _, _, _, chosen, qualified = reference(S[np.ix_(rows, rows)], 4, 0.4, limit)
            np.testing.assert_array_equal(selected.rows[c][:held], rows[chosen])
            assert selected.qualified[c] == qualified
            lengths = np.linalg.norm(FEATURES[rows[chosen]], axis=1, keepdims=True)
            expected = (FEATURES[rows[chosen]] / np.where(lengths > 0, lengths, 1)).mean(0)
            np.testing.assert_allclose(selected.mean[c], expected, atol=1e-6)
        else:
            assert (selected.mean[c] == 0).all()
            assert selected.qualified[c] == 0


SELECTORS = {
    "density": prototypes.by_density,
    "kmeans": prototypes.by_kmeans,
    "density_peaks": lambda *a: prototypes.by_density_peaks(*a, share=0.7),
}


@pytest.mark.slow
def test_classes_are_selected_from_as_much_of_a_sample_as_holds_them():
    """Of a sample of 1,200 a class of 20 is selected from 75 rows, one of 200 from 300, one of 1,000 from all."""
    sizes = (20, 200, 1000)
    labels = np.random.default_rng(5).permutation(np.repeat(range(3), sizes))
    x = np.random.default_rng(6).normal(size=(len(labels), 6)).astype(np.float32)
    found = prototypes.class_prototypes(KEY, x, labels, 3, members=1200, count=4)
    for c, size in enumerate(sizes):
        rows = np.flatnonzero(labels == c)
        alone = prototypes.by_density(KEY, x[rows], np.ones(size, bool), 4)
        np.testing.assert_array_equal(found.rows[c], rows[alone.rows])
        assert found.qualified[c] == alone.qualified


@pytest.mark.parametrize("name", SELECTORS)
def test_prototypes_hit_every_planted_cluster(name):
    rng = np.random.default_rng(5)
    # Clusters of one size, a member of each at its very centre: that one is the densest.
    centres = 3 * np.eye(4, 10)
    cluster = rng.permutation(np.repeat(range(4), 15))
    first = [np.flatnonzero(cluster == c)[0] for c in range(4)]
    noise = 0.2 * rng.normal(size=(60, 10))
    noise[first] = 0
    x = (centres[cluster] + noise).astype(np.float32)
    # A limit between the cosines across clusters and those within: one prototype in each.
    selector = SELECTORS[name] if name != "density" else lambda *a: prototypes.by_density(*a, share=0.9, limit=0.6)
    selected = jax.jit(lambda x: selector(KEY, x, np.ones(60, bool), 4))(x)
    assert selected.valid.all()
    assert sorted(cluster[np.asarray(selected.rows)]) == [0, 1, 2, 3]
    if name == "density":
        assert sorted(np.asarray(selected.rows)) == sorted(first)
        assert selected.qualified == 4
    if name == "kmeans":
        for row in np.asarray(selected.rows):
            mean = x[cluster == cluster[row]].mean(0)
            distance = np.where(cluster == cluster[row], np.linalg.norm(x - mean, axis=1), np.inf)
            assert distance[row] == distance.min()


def test_density_peaks_follow_their_definition():
    x = RNG.normal(size=(30, 3)).astype(np.float32)
    d = np.linalg.norm(x[:, None] - x[None], axis=-1)
    cut = np.sort(-d.ravel())[round(0.8 * 900) - 1]
    rho = (-d > cut + 1e-5).sum(1)
    delta = [min(d[i][rho > rho[i]], default=max(d[i])) for i in range(30)]
    selected = jax.jit(lambda x: prototypes.by_density_peaks(KEY, x, np.ones(30, bool), 5, share=0.8))(x)
    np.testing.assert_array_equal(selected.rows, np.argsort(-rho * delta, kind="stable")[:5])


@pytest.mark.parametrize("name", SELECTORS)
def test_few_members_or_equal_ones(name):
    x = np.tile(np.eye(2, 3, dtype=np.float32), (5, 1))
    selector = jax.jit(lambda where: SELECTORS[name](KEY, x, where, 3))
    for where, distinct in ((np.arange(10) < 10, 2), (np.arange(10) == 7, 1), (np.zeros(10, bool), 0)):
        selected = selector(where)
        rows = np.asarray(selected.rows)[np.asarray(selected.valid)]
        expected = distinct if name == "kmeans" else min(3, where.sum())
        assert len(set(rows)) == len(rows) == expected
        assert where[rows].all()
        if name == "kmeans":
            assert len({tuple(x[row]) for row in rows}) == distinct


def test_scores_are_the_mean_of_the_cosines_with_each_prototype():
    selected = find(FEATURES, LABELS)
    present = selected.valid.any(1)
    np.testing.assert_array_equal(present, [True, True, False, True, True])
    scores = np.asarray(jax.jit(prototypes.class_scores)(FEATURES, selected.mean, present))
    for c in range(5):
        rows = np.asarray(selected.rows[c])[np.asarray(selected.valid[c])]
        expected = cosines(FEATURES, FEATURES[rows]).mean(1) if len(rows) else -np.inf
        np.testing.assert_allclose(scores[:, c], expected, atol=1e-6)
    correction = prototypes.decide(scores)
    np.testing.assert_array_equal(correction.label, scores.argmax(1))
    ordered = np.sort(scores, axis=1)
    np.testing.assert_allclose(correction.margin, ordered[:, -1] - ordered[:, -2], atol=1e-6)
    assert not (np.asarray(correction.label) == 2).any()


def test_one_prototype_at_the_centre_is_the_nearest_centroid():
    x, y = points(60, seed=7), RNG.integers(0, 3, 60)
    centres = np.stack([x[y == c].mean(0) for c in range(3)])
    label = prototypes.correct(x, prototypes.unit(centres), np.ones(3, bool)).label
    nonzero = np.linalg.norm(x, axis=1) > 0
    np.testing.assert_array_equal(label[nonzero], cosines(x, centres).argmax(1)[nonzero])


@pytest.mark.parametrize("parts", [2, 16])
def test_parts_change_nothing_but_the_memory(parts, monkeypatch):
    x, mean = points(48), RNG.normal(size=(5, 6)).astype(np.float32)
    present = np.arange(5) != 1
    whole = prototypes.correct(x, mean, present)
    part = jax.jit(lambda x: prototypes.correct(x, mean, present, parts=parts))(x)
    np.testing.assert_array_equal(part.label, whole.label)
    np.testing.assert_allclose(part.margin, whole.margin, atol=1e-6)
    scores = prototypes.class_scores(x, mean, present)
    for kept in (prototypes.stored_scores(x, mean, present, parts=p) for p in (1, parts)):
        assert kept.dtype == np.float16
        np.testing.assert_allclose(np.asarray(kept, np.float32), scores, rtol=1e-3, atol=1e-6)
    monkeypatch.setattr(correction, "_MOST_BYTES", 4 * 48 * 5 // parts)
    assert correction._parts(48, 5) == parts
    np.testing.assert_array_equal(prototypes.correct(x, mean, present).label, whole.label)


def test_where_no_class_or_one_has_a_prototype():
    none = prototypes.decide(jnp.full((2, 3), -jnp.inf))
    np.testing.assert_array_equal(none.label, [-1, -1])
    np.testing.assert_array_equal(none.margin, [0, 0])
    one = prototypes.decide(jnp.array([[-jnp.inf, 0.0, -jnp.inf], [-jnp.inf, 1.0, -jnp.inf]]))
    np.testing.assert_array_equal(one.label, [1, 1])
    np.testing.assert_array_equal(one.margin, [1, 2])


def test_the_names_of_classes_do_not_matter():
    new_name = RNG.permutation(5)
    old = find(FEATURES, LABELS)
    new = find(FEATURES, new_name[LABELS])
    np.testing.assert_array_equal(new.rows[new_name], old.rows)
    np.testing.assert_allclose(new.mean[new_name], old.mean, atol=1e-7)


@pytest.mark.parametrize("spread", [False, True])
def test_eight_devices_find_what_one_does_and_hold_the_features_once(spread, monkeypatch):
    monkeypatch.setattr(members, "_AT_A_TIME", 3)  # so that members come in several strips
    x, y = points(64, seed=8), RNG.integers(0, 11, 64)

    def both(x, y):
        selected = prototypes.class_prototypes(KEY, x, y, 11, members=8, count=4)
        return selected, prototypes.correct(x, selected.mean, selected.valid.any(1), parts=2)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    shard = NamedSharding(mesh, PartitionSpec("data"))
    x8, y8 = jax.device_put(x, shard), jax.device_put(y, shard)
    one, one_label = jax.jit(both)(x, y)
    with jax.set_mesh(mesh) if spread else nullcontext():
        compiled = jax.jit(both).lower(x8, y8).compile()
    eight, eight_label = compiled(x8, y8)
    np.testing.assert_array_equal(eight.rows, one.rows)
    np.testing.assert_allclose(eight.mean, one.mean, atol=1e-7)
    np.testing.assert_array_equal(eight_label.label, one_label.label)
    assert not re.search(r"f32\[64,6\]\S* all-(gather|reduce)", compiled.as_text())
    assert spread == ("reduce-scatter" in facts_of(compiled).collectives)


def test_bad_input_is_named():
    x, s = np.ones((4, 2), np.float32), np.ones((4, 4), np.float32)
    with pytest.raises(TypeError, match="must be floating"):
        prototypes.unit(np.ones((2, 2), int))
    with pytest.raises(ValueError, match=r"must be \[m, d\]"):
        prototypes.cosine_similarity(np.ones(3, np.float32))
    with pytest.raises(ValueError, match="share must lie in"):
        prototypes.quantile(s, 40.0)
    with pytest.raises(TypeError, match="must be float32"):
        prototypes.quantile(np.ones(3, np.float16), 0.4)
    with pytest.raises(ValueError, match=r"where must be bool \(4, 4\)"):
        prototypes.quantile(s, 0.4, where=np.ones(4, bool))
    with pytest.raises(ValueError, match=r"must be \[m, m\]"):
        prototypes.density(s[:2], 0.5)
    with pytest.raises(ValueError, match=r"density must have shape \(4,\)"):
        prototypes.separation(s, np.ones(3))
    with pytest.raises(ValueError, match=r"count .* at least 1"):
        prototypes.select(np.ones(4, int), np.ones(4, np.float32), 0)
    with pytest.raises(ValueError, match=r"count .* at least 1"):
        prototypes.by_kmeans(KEY, x, np.ones(4, bool), 0)
    with pytest.raises(TypeError, match="labels must be integers"):
        prototypes.sample_members(KEY, np.ones(4, np.float32), 2, 2)
    with pytest.raises(ValueError, match="size at least 1"):
        prototypes.sample_members(KEY, np.ones(4, int), 2, 0)
    with pytest.raises(ValueError, match=r"features must be \[n, d\] and labels \[n\]"):
        prototypes.class_prototypes(KEY, x, np.ones(5, int), 2)
    with pytest.raises(ValueError, match="present"):
        prototypes.class_scores(x, np.ones((3, 2), np.float32), np.ones(2, bool))
    with pytest.raises(ValueError, match="multiple of parts = 3"):
        prototypes.correct(x, np.ones((3, 2), np.float32), np.ones(3, bool), parts=3)
    with pytest.raises(ValueError, match="multiple of parts = 3"):
        prototypes.stored_scores(x, np.ones((3, 2), np.float32), np.ones(3, bool), parts=3)
