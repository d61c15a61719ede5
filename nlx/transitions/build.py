"""Transition matrices made to order: the synthetic noise of the papers, and the check that a matrix is one."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from nlx.arguments import at_least, in_range, typed_key


def symmetric(num_classes: int, rate: ArrayLike) -> Array:
    r"""Every class flips to all the others alike.

    .. math:: T_{ij} = (1 - r)\,[i = j] + \frac{r}{K - 1}\,[i \ne j]

    Args:
      num_classes: K, at least 2.
      rate: r, probability of a wrong label, in [0, 1]; scalar.

    Returns:
      ``T[i, j] = p(noisy = j | true = i)``, float32 ``[K, K]``.

    Raises:
      ValueError: num_classes < 2, or a rate known before tracing is outside [0, 1].

    Examples:
      >>> symmetric(3, 0.5)
      Array([[0.5 , 0.25, 0.25],
             [0.25, 0.5 , 0.25],
             [0.25, 0.25, 0.5 ]], dtype=float32)
    """
    at_least(2, num_classes=num_classes)
    rate = _rate(rate)
    return jnp.where(jnp.eye(num_classes, dtype=bool), 1.0 - rate, rate / (num_classes - 1))


def pair(num_classes: int, rate: ArrayLike, targets: Sequence[int] | None = None) -> Array:
    r"""Every class flips to one other: by default class i to i + 1, the last to the first.

    .. math:: T_{ij} = (1 - r)\,[i = j] + r\,[j = t_i]

    Args:
      num_classes: K, at least 2.
      rate: r, probability of a wrong label, in [0, 1]; scalar.
      targets: t, the class that each class flips to, K numbers in ``[0, K)``; a class that is its own target stays.

    Returns:
      ``T[i, j] = p(noisy = j | true = i)``, float32 ``[K, K]``.

    Raises:
      ValueError: num_classes < 2, targets are not K classes, or a rate known before tracing is outside [0, 1].

    Examples:
      >>> pair(3, 0.25)
      Array([[0.75, 0.25, 0.  ],
             [0.  , 0.75, 0.25],
             [0.25, 0.  , 0.75]], dtype=float32)
    """
    at_least(2, num_classes=num_classes)
    rate = _rate(rate)
    to = (np.arange(num_classes) + 1) % num_classes if targets is None else np.asarray(targets)
    if (
        to.shape != (num_classes,)
        or not np.issubdtype(to.dtype, np.integer)
        or np.min(to) < 0
        or np.max(to) >= num_classes
    ):
        raise ValueError(f"targets must be {num_classes} classes in [0, {num_classes}), got {targets}")
    eye = np.eye(num_classes, dtype=np.float32)
    return (1.0 - rate) * eye + rate * eye[to]


def sparse(
    key: Array, num_classes: int, rate: ArrayLike, targets: int = 10, *, concentration: float | None = None
) -> Array:
    r"""Every class flips to a few others, drawn at random: the ImageNet experiment of the noise layer.

    .. math:: T_{ij} = (1 - r)\,[i = j] + r\,w_{ij}\,[j \in S_i], \qquad \sum_{j \in S_i} w_{ij} = 1

    The paper has K = 1000, r = 0.5 and 10 targets and does not say how the flips are shared among them: evenly here,
    unless a concentration is given.

    Args:
      key: typed PRNG key.
      num_classes: K, at least 2.
      rate: r, probability of a wrong label, in [0, 1]; scalar.
      targets: how many classes each class flips to, the size of S_i, 1 to K - 1.
      concentration: None for even shares w, else the parameter of the symmetric Dirichlet that they are drawn from
        (1: uniform over all shares; the lower, the more uneven).

    Returns:
      ``T[i, j] = p(noisy = j | true = i)``, float32 ``[K, K]``.

    Raises:
      ValueError: num_classes < 2, targets outside [1, K - 1], concentration <= 0, or a rate known before tracing is
        outside [0, 1].

    Examples:
      >>> t = sparse(jax.random.key(0), 100, 0.5)
      >>> (t > 0).sum(axis=1)[:3].tolist(), round(t[0].max().item(), 3), round(t.mean().item(), 3)
      ([11, 11, 11], 0.5, 0.01)

    References:
      Sukhbaatar et al., 2015, section 4.2.
    """
    at_least(2, num_classes=num_classes)
    if not 1 <= targets <= num_classes - 1:
        raise ValueError(f"targets must lie in [1, {num_classes - 1}] for {num_classes} classes, got {targets}")
    if concentration is not None and not concentration > 0:
        raise ValueError(f"concentration must be positive, got {concentration}")
    rate = _rate(rate)
    place_key, share_key = jax.random.split(typed_key(key))
    eye = jnp.eye(num_classes, dtype=jnp.float32)
    # The places of the highest of K - 1 uniform draws are a random subset; the diagonal is never among them.
    draws = jax.random.uniform(place_key, (num_classes, num_classes), jnp.float32) - 2.0 * eye
    places = jax.lax.top_k(draws, targets)[1]
    if concentration is None:
        shares = jnp.full((num_classes, targets), 1.0 / targets, jnp.float32)
    else:
        alpha = jnp.full((targets,), concentration, jnp.float32)
        shares = jax.random.dirichlet(share_key, alpha, (num_classes,), jnp.float32)
    return ((1.0 - rate) * eye).at[jnp.arange(num_classes)[:, None], places].add(rate * shares)


def from_confusion(counts: ArrayLike, rate: float, *, priors: ArrayLike | None = None) -> Array:
    r"""A model's confusions, scaled to a flip rate: adversarial noise, which mislabels what is easily mistaken.

    With :math:`c_{ij}` the share of class i that the model calls j and priors :math:`\pi`,

    .. math:: T_{ij} = s\,c_{ij} \;(i \ne j), \qquad s \sum_i \pi_i \sum_{j \ne i} c_{ij} = r

    A class that the model never confuses says nothing about where it would flip to: it flips with probability r to all
    the others alike, and the scale s is that of the remaining classes.

    Args:
      counts: ``counts[i, j]``, how often class i was called j, or those shares; not negative, ``[K, K]``.
      rate: r, probability of a wrong label over all examples, in [0, 1].
      priors: share of each true class, ``[K]``, normalized here; None weighs the classes alike.

    Returns:
      ``T[i, j] = p(noisy = j | true = i)``, float32 ``[K, K]``. Values are checked, so this cannot be traced.

    Raises:
      ValueError: counts not square, negative or not finite; bad priors; rate outside [0, 1]; or a rate so high that a
        class would have to flip with probability above 1.

    Examples:
      >>> from_confusion(jnp.array([[3, 1], [2, 2]]), 0.1875)
      Array([[0.875, 0.125],
             [0.25 , 0.75 ]], dtype=float32)

    References:
      Sukhbaatar et al., 2015, section 4.2, the adversarial case.
    """
    c = np.asarray(counts, np.float64)
    _check_square(c.shape, "counts")
    k = len(c)
    if not np.isfinite(c).all() or (c < 0).any():
        raise ValueError("counts must be finite and not negative")
    in_range(rate, "rate", 0, 1)
    weights = np.ones(k) if priors is None else np.asarray(priors, np.float64)
    if weights.shape != (k,) or not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() == 0:
        raise ValueError(f"priors must be {k} shares, not negative and not all zero, got {priors}")
    wrong = np.where(np.eye(k, dtype=bool), 0.0, c)
    confused = wrong.sum(1) > 0
    wrong /= np.where(confused, c.sum(1), 1.0)[:, None]
    error = wrong.sum(1)
    # Where no confused class has any weight, no scale matters: each then flips at the rate, as the others do.
    weighted = np.average(error[confused], weights=weights[confused]) if weights[confused].sum() > 0 else 0.0
    flip = np.where(confused & (weighted > 0), error * rate / (weighted or 1.0), rate)
    worst = int(np.argmax(flip))
    if flip[worst] > 1.0 + 1e-9:
        raise ValueError(
            f"rate {rate} needs class {worst} to flip with probability {flip[worst]:.3g}; "
            f"these confusions allow at most {rate / flip[worst]:.3g}"
        )
    flip = np.minimum(flip, 1.0)
    direction = np.where(confused[:, None], wrong / np.where(confused, error, 1.0)[:, None], (1 - np.eye(k)) / (k - 1))
    return jnp.asarray(flip[:, None] * direction + np.diag(1.0 - flip), jnp.float32)


def outlier(num_classes: int, alpha: ArrayLike) -> Array:
    r"""One more class, 'outlier', whose examples mostly carry labels of the others at random.

    .. math:: T_{ij} = [i = j] \;(i < K), \qquad T_{Kj} = \frac{1 - \alpha}{K} \;(j < K), \qquad T_{KK} = \alpha

    Args:
      num_classes: K, without the outlier class, at least 1.
      alpha: share of the outliers that are labelled as such, in [0, 1]; scalar. At 0 the matrix is singular, and the
        outlier class cannot be learned.

    Returns:
      ``T[i, j] = p(noisy = j | true = i)``, float32 ``[K + 1, K + 1]``; 'outlier' is the last class.

    Raises:
      ValueError: num_classes < 1, or an alpha known before tracing is outside [0, 1].

    Examples:
      >>> outlier(2, 0.5)
      Array([[1.  , 0.  , 0.  ],
             [0.  , 1.  , 0.  ],
             [0.25, 0.25, 0.5 ]], dtype=float32)

    References:
      Sukhbaatar et al., 2015, section 3.4.
    """
    at_least(1, num_classes=num_classes)
    alpha = _rate(alpha, "alpha")
    last = jnp.append(jnp.full((num_classes,), (1.0 - alpha) / num_classes), alpha)
    return jnp.eye(num_classes + 1, dtype=jnp.float32).at[-1].set(last)


def check(transition: ArrayLike, *, atol: float = 1e-4) -> None:
    """Raise unless every row is a distribution; for the places where a matrix enters, not for traced code.

    Args:
      transition: ``T[i, j] = p(noisy = j | true = i)``, float ``[..., K, K]`` (``[K, 2, 2]`` for binary ones).
      atol: how far a row's sum may be from 1, and an entry below 0.

    Raises:
      ValueError: not square, or a row that is not a distribution; the first such row is named.

    Examples:
      >>> check(symmetric(10, 0.4))
      >>> check(jnp.array([[0.5, 0.5], [0.9, 0.2]]))
      Traceback (most recent call last):
      ValueError: row 1 of the transition matrix sums to 1.1, not 1
    """
    t = np.asarray(transition, np.float64)
    if t.ndim < 2 or t.shape[-1] != t.shape[-2]:
        raise ValueError(f"a transition matrix must be [K, K], got shape {t.shape}")
    for index in np.ndindex(t.shape[:-1]):
        row = t[index]
        name = f"row {index[0] if len(index) == 1 else index} of the transition matrix"
        if not np.isfinite(row).all():
            raise ValueError(f"{name} is not finite")
        if np.min(row) < -atol:
            raise ValueError(f"{name} holds {np.min(row):.6g}, below 0")
        if abs(row.sum() - 1.0) > atol:
            raise ValueError(f"{name} sums to {row.sum():.6g}, not 1")


def _rate(rate: ArrayLike, name: str = "rate") -> Array:
    in_range(rate, name, 0, 1)
    return jnp.asarray(rate, jnp.float32)


def _check_square(shape: tuple[int, ...], name: str) -> None:
    if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 2:
        raise ValueError(f"{name} must be [K, K] with K of at least 2, got shape {shape}")
