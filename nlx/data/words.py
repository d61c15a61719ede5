"""What words of another vocabulary say of the classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np


def said_of_classes(
    noisy: np.ndarray, names: Sequence[str], class_names: Sequence[str], words: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """Labels of another vocabulary as labels of the classes.

    A class is said where one of its words is; by default the word is its own name. A word that is not in the
    vocabulary but consists of several that are, such as ``fire hydrant``, is said where all of them are.

    Args:
      noisy: {0, 1} ``[n, N]``.
      names: of its columns.
      class_names: the K classes.
      words: of classes, where these are not their names.

    Returns:
      Of noisy's dtype, ``[n, K]``; zeros where a class has no word in the vocabulary.
    """
    column = {name: i for i, name in enumerate(names)}

    def said(word: str) -> np.ndarray:
        parts = parts_of(word, column)
        if not parts:
            return np.zeros(len(noisy), noisy.dtype)
        return noisy[:, [column[part] for part in parts]].min(axis=1)

    return np.stack([np.max([said(w) for w in words.get(name, (name,))], axis=0) for name in class_names], axis=1)


def parts_of(word: str, vocabulary: Collection[str]) -> list[str]:
    """The words of a vocabulary that a word is said by, see :func:`said_of_classes`; none where it cannot be said."""
    parts = [word] if word in vocabulary else word.split()
    return parts if all(part in vocabulary for part in parts) else []
