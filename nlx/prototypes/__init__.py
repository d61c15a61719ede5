"""Class prototypes: which examples stand for a class, and the labels that they give to all others.

Han et al., Deep Self-Learning From Noisy Labels. Examples of one class that many others of it resemble are likely to
be labelled right; a few of them that do not resemble each other too much stand for the class, and every example takes
the label of the class whose prototypes it resembles most.
"""

from nlx.prototypes.classes import centered, typical
from nlx.prototypes.clustering import by_density_peaks, by_kmeans
from nlx.prototypes.correction import Correction, class_scores, correct, decide, stored_scores
from nlx.prototypes.density import Selection, by_density, density, select, separation
from nlx.prototypes.members import Prototypes, Selector, class_prototypes, sample_members
from nlx.prototypes.selectors import Select, selector
from nlx.prototypes.similarity import cosine_similarity, quantile, unit

__all__ = [
    "Correction",
    "Prototypes",
    "Select",
    "Selection",
    "Selector",
    "by_density",
    "by_density_peaks",
    "by_kmeans",
    "centered",
    "class_prototypes",
    "class_scores",
    "correct",
    "cosine_similarity",
    "decide",
    "density",
    "quantile",
    "sample_members",
    "select",
    "selector",
    "separation",
    "stored_scores",
    "typical",
    "unit",
]
