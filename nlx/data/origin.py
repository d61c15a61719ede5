"""Which of a user's own examples a data set holds, whatever is left out, held out or reordered."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np


class Origin(NamedTuple):
    """Which of a user's own examples these are.

    Attributes:
      row: position in the user's file, int64 ``[n]``; in each its own where there are several.
      name: ``id`` or ``path``, what else examples are known by; None for nothing.
      key: these ids, of any type, or paths, ``[n]``.
    """

    row: np.ndarray
    name: Literal["id", "path"] | None = None
    key: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Origin:
        """Some of them."""
        return Origin(self.row[rows], self.name, None if self.key is None else self.key[rows])
