"""Prototypes and label correction against NumPy, torch and the matrix products that none can do without."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.kernels.timing import Row, against, interleaved, to_numpy, torch_device
from nlx import prototypes

K, M, D, P = 14, 1280, 2048, 8
_FEWER = 4  # classes of the timed selection: time is in proportion to them, on both sides


def measure(rounds: int) -> list[Row]:
    """Rows of selection, of correction and of correction at a million examples."""
    return [*_selection(rounds), *_correction(rounds), _a_million(rounds)]


def _features(n: int, classes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features as after a ReLU, in overlapping classes of several clusters, with 30 % wrong labels."""
    centres = 0.5 * rng.normal(size=(classes, 3, D)).astype(np.float32)
    true = rng.integers(0, classes, n)
    x = centres[true, rng.integers(0, 3, n)]
    x += rng.standard_normal((n, D), np.float32)
    np.maximum(x, 0, out=x)
    return x, np.where(rng.uniform(size=n) < 0.3, rng.integers(0, classes, n), true).astype(np.int32)


def numpy_selection(s: np.ndarray, share: float = 0.4, limit: float = 0.95) -> tuple[np.ndarray, int]:
    """Rows of the prototypes of one class, and how many members qualify, in NumPy."""
    k = -(-round(share * 10_000) * s.size // 10_000)
    threshold = np.partition(s.ravel(), k - 1)[k - 1]
    rho = (s > threshold).sum(axis=1) - (s < threshold).sum(axis=1)
    denser = rho[None, :] > rho[:, None]
    eta = np.where(denser.any(axis=1), np.where(denser, s, -np.inf).max(axis=1), s.min(axis=1))
    fits = eta < limit
    return np.lexsort((np.arange(len(s)), -rho, ~fits))[:P], int(fits.sum())


def _selection(rounds: int) -> list[Row]:
    rng = np.random.default_rng(0)
    x = _features(_FEWER * M, _FEWER, rng)[0]
    labels = rng.permutation(np.repeat(np.arange(_FEWER, dtype=np.int32), M))
    rows = [np.flatnonzero(labels == c) for c in range(_FEWER)]

    def in_numpy() -> list[np.ndarray]:
        chosen = []
        for members in rows:
            u = x[members]
            u /= np.linalg.norm(u, axis=1, keepdims=True)
            chosen.append(members[numpy_selection(u @ u.T)[0]])
        return chosen

    features, given, key = jnp.asarray(x), jnp.asarray(labels), jax.random.key(0)
    select = jax.jit(lambda key, x, y: prototypes.class_prototypes(key, x, y, _FEWER, members=M, count=P))
    products = jax.jit(lambda units: jax.lax.map(lambda u: u @ u.T, units))
    units = jnp.stack([prototypes.unit(features[members]) for members in rows])

    selected = select(key, features, given)
    similarity = jax.jit(prototypes.cosine_similarity)
    for c, members in enumerate(rows):
        # On the same S: rounding may move a density by one, and so change places.
        expected, qualified = numpy_selection(np.asarray(similarity(features[members])))
        if not np.array_equal(selected.rows[c], members[expected]) or int(selected.qualified[c]) != qualified:
            raise AssertionError(f"prototypes {selected.rows[c]} should be NumPy's {members[expected]}")
    t = interleaved(
        {"ours": lambda: select(key, features, given), "numpy": in_numpy, "products": lambda: products(units)}, rounds
    )
    shape = f"prototypes of {_FEWER} classes, m = {M}, d = {D}"
    return [
        against(f"{shape}: ours / NumPy", t, "numpy", 1.0),
        against(f"{shape}: ours / its matrix products u u' alone", t, "products", 1.5),
    ]


def _correction(rounds: int) -> list[Row]:
    n = 20_000
    rng = np.random.default_rng(1)
    x, labels = _features(n, K, rng)
    features = jnp.asarray(x)
    selected = jax.jit(lambda x: prototypes.class_prototypes(jax.random.key(0), x, labels, K, members=200, count=P))(
        features
    )
    present = selected.valid.any(axis=1)
    ours = jax.jit(prototypes.correct)

    chosen = x[np.asarray(selected.rows).ravel()]
    lengths = np.linalg.norm(chosen, axis=1, keepdims=True)
    each = (x @ (chosen / lengths).T).reshape(n, K, P).mean(axis=2) / np.linalg.norm(x, axis=1, keepdims=True)
    ordered = np.sort(each, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 1e-5
    label = np.asarray(ours(features, selected.mean, present).label)
    if not np.array_equal(label[clear], each.argmax(axis=1)[clear]) or clear.mean() < 0.99:
        raise AssertionError("corrected labels should follow from the mean of the cosines with each prototype")

    all_prototypes = jnp.asarray(chosen / lengths)
    plain = jax.jit(
        lambda x, all_prototypes: jnp.argmax(
            (prototypes.unit(x) @ all_prototypes.T).reshape(n, K, P).mean(axis=2), axis=1
        )
    )
    sides = {
        "ours": lambda: ours(features, selected.mean, present),
        "each": lambda: plain(features, all_prototypes),
    }
    if device := torch_device():
        import torch

        theirs, mean = (torch.from_numpy(np.array(array)).to(device) for array in (x, selected.mean))

        def in_torch() -> torch.Tensor:
            return (torch.nn.functional.normalize(theirs) @ mean.T).topk(2, dim=1).indices

        def in_torch_scaled() -> torch.Tensor:
            # Dividing the product instead of the features, as ours does.
            return ((theirs @ mean.T) / theirs.norm(dim=1, keepdim=True)).topk(2, dim=1).indices

        if not np.array_equal(to_numpy(in_torch())[clear, 0], label[clear]):
            raise AssertionError("corrected labels should be torch's")
        sides |= {"torch": in_torch, "torch_scaled": in_torch_scaled}
    t = interleaved(sides, rounds)
    shape = f"correction of {n:,} x {D} with {K * P} prototypes"
    lines = [against(f"{shape}: ours / with every prototype", t, "each", None)]
    if "torch" in t:
        lines.append(against(f"{shape}: ours / torch", t, "torch", 0.5))
        lines.append(against(f"{shape}: ours / torch that divides the product", t, "torch_scaled", None))
    return lines


def _a_million(rounds: int) -> Row:
    """Correction of 10^6 x 512, beside reading them once: 2 GB that no cache holds."""
    n, d, parts = 2**20, 512, 1024
    # Drawn piece by piece: the bits behind a float take as much memory as the float.
    keys = jax.random.split(jax.random.key(0), 64)
    draw = jax.jit(lambda keys: jax.lax.map(lambda key: jax.random.uniform(key, (n // 64, d)), keys).reshape(n, d))
    features = draw(keys)
    mean = prototypes.unit(jax.random.normal(jax.random.key(1), (K, d)))
    present = jnp.ones(K, bool)
    ours = jax.jit(lambda x: prototypes.correct(x, mean, present, parts=parts))
    some, whole = slice(0, n, 1000), jax.jit(prototypes.correct)
    if not np.array_equal(ours(features).label[some], whole(features[some], mean, present).label):
        raise AssertionError("labels should not depend on how many examples are taken at a time")
    read = jax.jit(lambda x: jnp.max(x, axis=1))
    sides = {"ours": lambda: ours(features), "read": lambda: read(features)}
    t = interleaved(sides, min(rounds, 5))
    return against(f"correction of {n:,} x {d} in {parts} parts: ours / reading them once", t, "read", None)
