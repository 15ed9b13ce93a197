"""The distribution over the whole vocabulary, in the place of the hidden state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fewfit.models.base import Capabilities, FrontModel
from fewfit.models.optional import gives_vocabulary
from fewfit.observations import Batch, Observations, Status
from fewfit.prompts import Prompt


class VocabularyModel(FrontModel):
    """A frozen model in front of another, whose hidden state is the other's distribution.

    The hidden state of a prompt is the log-probability of every token at the slot, shape (V,), in
    nats. There are no label-word scores, and so no calibration is asked. One query per prompt; a
    store in front of it keeps 4 V bytes for each. A row with NaN counts as not answered. Lengths
    are not known (-1), nor cut texts.

    Parameters
    ----------
    model : FrozenModel
        One that declares ``full_vocabulary``.
    """

    @property
    def capabilities(self) -> Capabilities:
        given = self.model.capabilities.full_vocabulary
        return Capabilities(scores=None, hidden=given, full_vocabulary=given)

    @property
    def identity(self) -> Mapping[str, str]:
        return {**self.model.identity, "hidden": "vocabulary"}

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        for positions, log_probs in gives_vocabulary(self.model).vocabulary_log_probs(prompts):
            n, broken = len(positions), np.isnan(log_probs.sum(axis=1))
            yield (
                positions,
                Observations(
                    columns=tuple(words),
                    scores=None,
                    space=None,
                    hidden=np.where(broken[:, None], np.nan, log_probs),
                    label_mass=np.full(n, np.nan),
                    n_tokens=np.full(n, -1),
                    status=np.where(broken, Status.FAILED, Status.OK),
                    asked=np.ones(n, dtype=bool),
                ),
            )
