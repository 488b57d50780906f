"""Labels that the model's own answers contradict, of the part that the page is about.

Its photos were not trained on, so what the answers say of their labels can be believed as far as
that of a probe which has not seen them; the rule is that of `finetune check`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from finetune.evaluate.confident import FEWEST, Likeliest, suspect_labels
from finetune.report.answers import Answers
from finetune.runtime.shell import quote

if TYPE_CHECKING:
    from finetune.report.material import Material

__all__ = ["LabelCheck", "check_command", "check_labels"]


@dataclass(frozen=True, slots=True)
class LabelCheck:
    """What the answers say of the labels of a part.

    Attributes:
        num_judged: Photos whose label was judged; 0 where none could be.
        suspects: Positions of those whose label is probably wrong, the likeliest first.
        passed_over: Indices of classes with too few photos to be judged.
    """

    num_judged: int = 0
    suspects: tuple[int, ...] = ()
    passed_over: tuple[int, ...] = ()


def check_labels(answers: Answers) -> LabelCheck:
    """Judge the labels of scored photos by answers of a model that was not trained on them.

    Each photo's likeliest classes and its own are all that the rule looks at. A class of fewer than
    five scored photos is not judged, nor does any photo look like it; two classes must remain.
    """
    counts = answers.confusion.sum(axis=1)
    passed_over = tuple(np.flatnonzero((counts > 0) & (counts < FEWEST)).tolist())
    enough = np.flatnonzero(counts >= FEWEST)
    if len(enough) < 2:
        return LabelCheck(passed_over=passed_over)
    judged = np.flatnonzero(answers.is_scored & np.isin(answers.labels, enough))
    found = suspect_labels(
        answers.probabilities[judged],
        answers.labels[judged],
        of=Likeliest(answers.likeliest[judged], answers.own[judged]),
    )
    return LabelCheck(len(judged), tuple(judged[found.places].tolist()), passed_over)


def check_command(material: Material) -> str:
    """Give the command that judges the labels of all photos, training photos among them."""
    data = quote(str(material.data)) if material.data else "DIR"
    backbone = quote(str(material.document["backbone"] or "NAME"))
    return f"finetune check {data} --backbone {backbone} --out findings.json"
