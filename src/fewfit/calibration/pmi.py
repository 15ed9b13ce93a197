"""What each answer scores after a premise alone: domain-conditional PMI."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fewfit.calibration.base import Calibration, Scores
from fewfit.errors import InputError
from fewfit.observations import ScoreSpace
from fewfit.prompts import Part, Prompt, Row, View

_FIELD = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")


@dataclass(frozen=True)
class PMICalibration(Calibration):
    """Subtract what each answer scores after a premise without an example (Holtzman et al. 2021).

    Domain-conditional pointwise mutual information, ``log P(y|x) - log P(y|premise)``: an answer
    that is common everywhere gains nothing by it. Unlike contextual calibration the premise need
    not be the template, and nothing is normalised over the classes, so that scores of multi-token
    answers may be summed log-probabilities. Several label words of a class are reduced to their
    best before the premise is removed; the paper has one answer per class.

    Attributes
    ----------
    premise : str
        A stub of the task with one ``{mask}`` and no field, for example ``"The topic is {mask}"``.
        Empty means the view's own template with empty fields.
    """

    name = "pmi"
    needs_content_free = True
    spaces = frozenset({ScoreSpace.LOGIT, ScoreSpace.LOGPROB})
    queries_per_example = "0, and 1 once"
    reference = "Holtzman et al. 2021, arXiv 2104.08315"

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Calibration._parameter_constraints,
        "premise": [str],
    }

    content_free: tuple[str, ...] = ("",)
    premise: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.premise and self.premise.count("{mask}") != 1:
            raise InputError(f"premise: exactly one {{mask}} is needed in {self.premise!r}")
        if self.premise and self.content_free != type(self).content_free:
            raise InputError(
                "content_free: with a premise, that alone is asked; leave one of the two out"
            )
        fields = [part for part in _FIELD.findall(self.premise) if part != "{mask}"]
        if fields:  # it would be asked about as it stands
            raise InputError(
                f"premise: it is asked without an example and has no field, and {fields[0]!r} is "
                "one; leave the premise out to ask the template with empty fields"
            )

    def with_premise(self, premise: str) -> Calibration:
        return replace(self, premise=premise)

    def prompts(self, view: View, rows: Sequence[Row]) -> list[Prompt]:
        if not self.premise:
            return super().prompts(view, rows)
        before, _, after = self.premise.partition("{mask}")
        parts = (Part("literal", before), Part("mask", ""), Part("literal", after))
        return [Prompt(tuple(part for part in parts if part.kind == "mask" or part.text))]

    def prior(self, scores: Scores, space: ScoreSpace) -> NDArray[np.float64]:
        return scores.astype(np.float64).mean(axis=0)

    def remove(self, scores: Scores, prior: Scores) -> NDArray[np.float64]:
        return scores.astype(np.float64) - prior
