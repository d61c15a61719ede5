"""True labels from several people's answers, as three arrays of numbers: item, annotator, label.

:func:`majority_vote` and :func:`krippendorff_alpha` know nobody; :func:`dawid_skene`, :func:`one_coin`, :func:`mace`
and :func:`glad` learn by EM who is to be believed; :func:`copies` finds those who repeat one
another, and :func:`tempered` how much answers are worth together; :func:`answer_probs`, :func:`annotator_quality` and
:func:`expected_information` say which answers are wrong, who gives them, and what to ask next. ``nlx.consensus`` reads
tables of answers as people have them.
"""

from nlx.crowd.abilities import Glad, glad
from nlx.crowd.agreement import Votes, krippendorff_alpha, majority_vote
from nlx.crowd.copying import Copies, copies
from nlx.crowd.em import Consensus
from nlx.crowd.matrices import annotator_confusion, dawid_skene
from nlx.crowd.quality import Quality, annotator_quality, answer_probs, expected_information
from nlx.crowd.skills import mace, one_coin
from nlx.crowd.tempering import Tempered, tempered

__all__ = [
    "Consensus",
    "Copies",
    "Glad",
    "Quality",
    "Tempered",
    "Votes",
    "annotator_confusion",
    "annotator_quality",
    "answer_probs",
    "copies",
    "dawid_skene",
    "expected_information",
    "glad",
    "krippendorff_alpha",
    "mace",
    "majority_vote",
    "one_coin",
    "tempered",
]
