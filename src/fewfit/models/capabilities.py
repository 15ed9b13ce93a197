"""What a frozen model gives, declared before any query is asked."""

from __future__ import annotations

from dataclasses import dataclass

from fewfit.errors import CapabilityError
from fewfit.observations import ScoreSpace


@dataclass(frozen=True)
class Capabilities:
    """What a frozen model gives for one query, declared before any query is asked.

    Attributes
    ----------
    scores : ScoreSpace or None
        The space of its label-word scores; None if it gives no scores.
    hidden : bool
        Whether it gives the hidden state at the slot.
    score_scale : float
        The factor that turns differences of its scores into differences of log-odds: 1 for
        logits and log-probabilities, the inverse training temperature for similarities.
    max_labels : int or None
        How many label words one query can score; None for no limit.
    full_vocabulary : bool
        Whether it gives the log-probability of every token of its vocabulary at the slot.
    soft_prompts : bool
        Whether vectors of one's own can stand in front of a prompt
        (:class:`fewfit.models.optional.TakesSoftPrompts`).
    top_k : int or None
        How many of its most probable tokens the model lists; the score of a label word that is
        not among them is censored. None if every label word is scored.
    resolution : float
        Smallest step of the probabilities behind the scores, such as 1/n where they are counts of
        n answers; 0 where they are continuous.
    pairs : bool
        Whether it reads two fields as a pair of texts, whose hidden state has a size of its own.
    """

    scores: ScoreSpace | None
    hidden: bool
    score_scale: float = 1.0
    max_labels: int | None = None
    full_vocabulary: bool = False
    soft_prompts: bool = False
    top_k: int | None = None
    resolution: float = 0.0
    pairs: bool = False

    def check(self, requires: frozenset[str], *, who: str, n_words: int) -> None:
        """Refuse a method that needs more than this model gives.

        Parameters
        ----------
        requires : frozenset of str
            What the method needs, of "scores", "word_scores" (those of each label word, which come
            with them), "hidden", "full_vocabulary" and "soft_prompts". No model gives what is
            not one of these.
        who : str
            Name of the method, for the message.
        n_words : int
            Number of label words that will be asked.

        Raises
        ------
        CapabilityError
        """
        given = {
            "scores": self.scores is not None,
            "word_scores": self.scores is not None,
            "hidden": self.hidden,
            "full_vocabulary": self.full_vocabulary,
            "soft_prompts": self.soft_prompts,
        }
        for need in sorted(requires):
            if not given.get(need, False):
                raise CapabilityError(
                    f"{who} needs {need!r}, which this frozen model does not give; choose another "
                    "decoder or another model"
                )
        if self.max_labels is not None and n_words > self.max_labels and self.scores is not None:
            raise CapabilityError(
                f"{n_words} label words, but this frozen model scores at most {self.max_labels} "
                "in one query"
            )
