"""A scikit-learn classifier that is trained on noisy labels and cleans them."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from nlx.cleaning.arrays import standard_form
from nlx.cleaning.clean import train
from nlx.cleaning.trainers import MethodName, trainer_for
from nlx.data.dataset import Split
from nlx.methods.method import Method
from nlx.training.state import for_prediction
from nlx.training.trainer import Trainer


class NoisyLabelClassifier(ClassifierMixin, BaseEstimator):
    """Classifier of features whose training labels may be wrong; see :func:`nlx.clean` for what is trained.

    Args:
      method: a system of ``nlx.methods``, or the name of one, to train behind a small network; None for linear models
        in folds, which a method's labels are joined with, or set aside for, where they look no better than the given.
      hidden: widths of that network.
      epochs: passes over the training set; None for as many as its size suggests.
      folds: number of linear models, at most as many as examples; their mean predicts.
      random_state: seed, or what scikit-learn takes for one.

    Attributes:
      classes_: class labels ``[K]``.
      n_features_in_: F.
      table_: the table of labels of the training set, :class:`nlx.cleaning.table.LabelTable`.
      cleaned_labels_: proposed labels ``[n]``.
      label_score_: probability that each given label is right, float32 ``[n]``.

    Examples:
      >>> from sklearn.datasets import load_iris
      >>> x, y = load_iris(return_X_y=True)
      >>> y[:3] = 2  # three wrong labels
      >>> classifier = NoisyLabelClassifier().fit(x, y)
      >>> classifier.cleaned_labels_[:3], classifier.predict(x[:3])
      (array([0, 0, 0]), array([0, 0, 0]))
    """

    def __init__(
        self,
        method: Method | MethodName | None = None,
        *,
        hidden: tuple[int, ...] = (128,),
        epochs: int | None = None,
        folds: int = 5,
        random_state: int | np.random.RandomState | None = 0,
    ):
        self.method = method
        self.hidden = hidden
        self.epochs = epochs
        self.folds = folds
        self.random_state = random_state

    _trainer: Trainer | None

    def fit(self, X: ArrayLike, y: ArrayLike) -> NoisyLabelClassifier:
        """Train on features ``[n, F]`` and noisy class labels ``[n]``, and clean these."""
        features, labels = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(labels)
        self.classes_, noisy = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("there must be at least two classes to tell apart, got 1 class")
        self._standard = standard_form(features)
        split = Split(self._standard.apply(features), noisy.astype(np.int32), None)
        folds, names = min(self.folds, len(noisy)), tuple(map(str, self.classes_))
        seed = self.random_state
        if not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(2**31 - 1)
        self._how = (self.method, len(noisy), len(self.classes_), self.hidden, self.epochs)
        trained = train(split, names, self.method, folds, int(seed), *self._how[3:])
        self._trainer, self.table_ = trained.trainer, trained.table
        self._states = [jax.tree.map(np.asarray, for_prediction(state)) for state in trained.states]
        self.cleaned_labels_ = self.classes_[self.table_.cleaned_label]
        self.label_score_ = self.table_.label_score
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Class probabilities of features ``[m, F]``, the mean of all models, float ``[m, K]``."""
        check_is_fitted(self)
        features = self._standard.apply(validate_data(self, X, dtype=np.float64, reset=False))
        if self._trainer is None:
            split = Split(features, np.zeros(len(features), np.int32), None)
            self._trainer, _ = trainer_for(split, *self._how)
        return np.mean([self._trainer.predict(state, features) for state in self._states], axis=0)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """The most probable class of features ``[m, F]``, ``[m]``."""
        best = np.argmax(self.predict_proba(X), axis=1)
        labels: np.ndarray = self.classes_[best]
        return labels

    def __getstate__(self) -> dict[str, Any]:
        """All but compiled programs, which are made anew where they are wanted."""
        state: dict[str, Any] = dict(super().__getstate__())
        return state | {"_trainer": None} if "_trainer" in state else state
