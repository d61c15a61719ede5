"""The rules of selection by their names."""

from __future__ import annotations

from functools import partial
from typing import Literal

from nlx.prototypes.clustering import by_density_peaks, by_kmeans
from nlx.prototypes.density import by_density
from nlx.prototypes.members import Selector

Select = Literal["density", "kmeans", "density_peaks"]


def selector(select: Select, *, share: float = 0.4, limit: float = 0.95) -> Selector:
    """A rule that selects the prototypes of one class.

    Args:
      select: ``density`` (paper), or what its Table 4 compares with: ``kmeans`` or ``density_peaks``.
      share: see :func:`by_density`; the others do not use it.
      limit: likewise.

    Returns:
      The rule.

    Raises:
      ValueError: the name is not known.

    Examples:
      >>> selector("kmeans") is by_kmeans
      True

    References:
      Han et al., 2019, section 3.2 and Table 4.
    """
    rules: dict[str, Selector] = {
        "density": partial(by_density, share=share, limit=limit),
        "kmeans": by_kmeans,
        "density_peaks": by_density_peaks,
    }
    if select not in rules:
        raise ValueError(f"select must be one of {', '.join(rules)}, got {select!r}")
    return rules[select]
