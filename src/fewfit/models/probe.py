"""What a frozen model really gives, found out with a few queries."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from fewfit.errors import ModelError, ModelWarning
from fewfit.models.base import Check, FrozenModel
from fewfit.models.optional import check_fields
from fewfit.observations import Observations, ScoreSpace, Status
from fewfit.prompts import Prompt, Template

TEXTS = (
    "The film was a joy from its first minute to its last.",
    "The parcel arrived broken, and nobody at the shop answers the phone.",
)
MOST, MOST_OF_VIEW = 5, 2
"""How many queries :func:`probe` asks with the first template, and with each further one."""

NOISE = 0.05
"""Nats, or share of a vector's length: more than half-precision arithmetic explains."""

LITTLE_MASS = 0.01
"""Below this the model says something else at the slot, and its scores of the words are noise."""


@dataclass
class Report:
    """What :func:`probe` found.

    Attributes
    ----------
    model : str or None
        The model's spec.
    identity : dict of str to str
    words : tuple of str
        The label words that were tried.
    queries : int
        How many were asked.
    answers : bool
        Whether the model gave a usable answer at all.
    checks : list of Check
        ``outcome`` is "ok", "note", "problem", or for a field of the request what became of it.
    """

    model: str | None
    identity: dict[str, str]
    words: tuple[str, ...]
    queries: int = 0
    answers: bool = False
    checks: list[Check] = field(default_factory=list)

    def add(self, name: str, outcome: str, detail: str, value: float | None = None) -> None:
        """Append a check; a value that is not finite is none."""
        number = None if value is None or not np.isfinite(value) else float(value)
        self.checks.append(Check(name, outcome, detail, number))

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON keeps it."""
        entries = asdict(self)
        entries["words"] = list(self.words)
        return entries


def probe(
    model: FrozenModel,
    *,
    template: Template | None = None,
    further: Sequence[Template] = (),
    words: Sequence[str] = ("good", "bad"),
) -> Report:
    """Ask a frozen model about two texts, alone, again and together, and compare.

    Parameters
    ----------
    model : FrozenModel
        Without a store in front: stored answers say nothing about the model.
    template : Template, default="{text} It was {mask}."
        Each of its fields gets the same text.
    further : sequence of Template, optional
        Other views of the same task: whether the model answers, and what it gives the words there.
    words : sequence of str, length W >= 1

    Returns
    -------
    Report
        A model that does not answer is a finding, not an error.

    Notes
    -----
    Queries: one of the model's own (:class:`~fewfit.models.optional.TriesFields`), one alone, the
    same again with the words in reverse order, and two at once; of a further template, one alone
    and, where its scores do not tell the label mass, one of the model's own.
    """
    template = template or Template("{text} It was {mask}.")
    first, second = (template.render(dict.fromkeys(template.fields, text)) for text in TEXTS)
    report = Report(model.spec, dict(model.identity), tuple(words))
    _capabilities(report, model)
    try:
        fields = check_fields(model, first, words)
        report.checks += fields
        report.queries += bool(fields)
    except ModelError as error:
        report.queries += 1
        report.add("fields", "problem", str(error))
    start = time.perf_counter()
    alone = _asked(report, model, [first], words)
    seconds = time.perf_counter() - start
    if alone is None:
        return report
    report.answers = True
    report.add("one query", "ok", f"{1000 * seconds:.0f} ms", seconds)
    _contents(report, alone)
    again = _asked(report, model, [first], words[::-1])
    if again is not None:
        _noise(report, "asked again, words reversed", alone, again, reverse=True)
    both = _asked(report, model, [first, second], words)
    if both is not None:
        _noise(report, "asked together with another", alone, both[:1])
        _difference(report, alone, both)
    for number, view in enumerate(further, start=2):
        _view(report, model, view, words, number)
    return report


def _capabilities(report: Report, model: FrozenModel) -> None:
    given = model.capabilities
    limits = [
        f"at most {given.max_labels} words" if given.max_labels is not None else "",
        f"among the {given.top_k} most probable tokens" if given.top_k is not None else "",
    ]
    scores = "none" if given.scores is None else given.scores.value
    detail = ", ".join(filter(None, [scores, *limits]))
    report.add("label scores", "note" if given.scores is None else "ok", detail)
    detail = "declared" if given.hidden else "none: decoders have the scores alone"
    report.add("hidden state", "ok" if given.hidden else "note", detail)


def _asked(
    report: Report, model: FrozenModel, prompts: list[Prompt], words: Sequence[str]
) -> Observations | None:
    report.queries += len(prompts)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ModelWarning)
        try:
            answers = model.observe(prompts, words)
        except ModelError as error:
            report.add("answer", "problem", str(error))
            return None
    for said in dict.fromkeys(str(warning.message) for warning in caught):
        if all(check.detail != said for check in report.checks):
            report.add("answer", "problem", said)
    return None if (answers.status == Status.FAILED).any() else answers


def _contents(report: Report, answers: Observations) -> None:
    if answers.censored is not None:
        listed = [
            word
            for word, censored in zip(report.words, answers.censored[0], strict=True)
            if not censored
        ]
        report.add(
            "label words listed",
            "ok" if len(listed) == len(report.words) else "note" if listed else "problem",
            f"{len(listed)} of {len(report.words)}: {', '.join(listed) or 'none'}",
            len(listed) / len(report.words),
        )
    if answers.space is ScoreSpace.LOGPROB:
        report.checks.append(check_mass(float(answers.label_mass[0])))
    if answers.hidden is not None:
        norm = float(np.linalg.norm(answers.hidden[0]))
        unit = abs(norm - 1) < 1e-3
        detail = f"{answers.hidden.shape[1]} numbers, length {norm:.4g}"
        note = ": normalised, which loses the length" if unit else ""
        report.add("hidden state's length", "note" if unit else "ok", detail + note, norm)


def check_mass(mass: float) -> Check:
    """Judge the share of the probability at the slot that the label words have together."""
    if np.isnan(mass):
        return Check("label mass", "note", "unknown: a word takes several slots", None)
    little = mass < LITTLE_MASS
    advice = "; choose words or a template so that the model would say them"
    detail = f"{mass:.2%} of the probability at the slot"
    return Check("label mass", "problem" if little else "ok", detail + advice * little, mass)


def _view(
    report: Report, model: FrozenModel, view: Template, words: Sequence[str], number: int
) -> None:
    """Find out what a further template alone can change: that it is answered, and the words."""
    start, prompt = len(report.checks), view.render(dict.fromkeys(view.fields, TEXTS[0]))
    answers = _asked(report, model, [prompt], words)
    if answers is not None and answers.space is ScoreSpace.LOGPROB:
        report.checks.append(check_mass(float(answers.label_mass[0])))
    elif answers is not None and answers.space is ScoreSpace.LOGIT:
        report.checks += (fields := check_fields(model, prompt, words))
        report.queries += bool(fields)
    if answers is not None and len(report.checks) == start:
        report.add("answer", "ok", "a usable one")
    named = [replace(c, name=f"{c.name}, template {number}") for c in report.checks[start:]]
    report.checks[start:] = named


def _noise(
    report: Report, name: str, one: Observations, other: Observations, *, reverse: bool = False
) -> None:
    found: list[str] = []
    worst = 0.0
    if one.scores is not None and other.scores is not None:
        a, b = one.scores[0], other.scores[0][::-1] if reverse else other.scores[0]
        gap = float(np.abs(a - b).max())
        found.append(f"scores differ by {gap:.2g}")
        worst = gap
    if one.hidden is not None and other.hidden is not None:
        gap = _apart(one.hidden[0], other.hidden[0])
        found.append(f"hidden states by {gap:.2g} of their length")
        worst = max(worst, gap)
    report.add(name, "ok" if worst <= NOISE else "problem", ", ".join(found), worst)


def _difference(report: Report, alone: Observations, both: Observations) -> None:
    """Whether answers depend on the text, and belong to the prompt that they came with."""
    arrays = [(both.hidden, alone.hidden), (both.scores, alone.scores)]
    together, single = next((t, s) for t, s in arrays if t is not None and s is not None)
    if np.array_equal(together[0], together[1]):
        report.add("another text", "problem", "the same answer: the text is not read")
    elif _apart(single[0], together[1]) < _apart(single[0], together[0]):
        detail = "the answers to two prompts sent at once are exchanged"
        report.add("another text", "problem", detail)
    else:
        gap = _apart(together[0], together[1])
        report.add("another text", "ok", f"another answer, {gap:.2g} of its length apart", gap)


def _apart(a: Any, b: Any) -> float:
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(a)), 1e-30))
