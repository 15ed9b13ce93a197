"""What a task says, as an answer holds it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fewfit.errors import InputError, ModelError
from fewfit.estimators.multi_label import MultiLabelClassifier
from fewfit.prompts import InContext
from fewfit.serve.schemas import Chosen, Labelled, Question, SystemOneResponse, TaskInfo
from fewfit.serve.tasks import Served
from fewfit.serve.together import Answered


def labelled(task: Served, found: Answered) -> list[Labelled]:
    """Return what a task says of each text."""
    several = isinstance(task.estimator, MultiLabelClassifier)
    chosen = _chosen(task, found) if several else None
    classes, out = task.classes, []
    for i, (row, reason) in enumerate(zip(found.probabilities, found.reasons, strict=True)):
        if reason:
            out.append(Labelled(status="failed", reason=reason))
            continue
        p = dict(zip(map(str, classes), map(float, row), strict=True))
        status = "truncated" if found.cut[i] else "ok"
        if chosen is None:
            label = classes[int(row.argmax())]
            out.append(Labelled(label=label, probabilities=p, status=status))
        else:
            own = [name for name, yes in zip(classes, chosen[i], strict=True) if yes]
            out.append(Labelled(labels=own, probabilities=p, status=status))
    return out


def _chosen(task: Served, found: Answered) -> Any:
    return np.nan_to_num(found.probabilities) > task.estimator.decoder_.threshold_


def described(task: Served) -> TaskInfo:
    """Return what a caller may know of a task: no example, no path."""
    estimator = task.estimator
    views = estimator.task_.template.views
    verbalizer = estimator.task_.verbalizer
    words: list[list[str]] = [[] for _ in verbalizer.classes]
    for word, k in zip(verbalizer.words, verbalizer.word_class, strict=True):
        words[k].append(word)
    return TaskInfo(
        name=task.name,
        model=None if task.model.spec is None else public(task.model.spec),
        fields=list(task.fields),
        templates=[
            v.template if isinstance(v, InContext) else getattr(v, "source", "") for v in views
        ],
        classes=task.classes,
        words=words,
        decoder=type(estimator.decoder_).__name__,
        examples=estimator.n_examples_,
        several_labels=isinstance(estimator, MultiLabelClassifier),
        expected_accuracy=estimator._expected,
    )


def public(spec: str) -> str:
    """Return the name of a model without the address or folder that it is at."""
    kind, colon, _ = spec.partition(":")
    return f"{kind}:…" if colon else kind


def answered(task: Served, questions: dict[str, Question], found: Answered) -> SystemOneResponse:
    """Return a task's probabilities as answers to questions about one text.

    Raises
    ------
    ModelError
        If the text was not answered.
    """
    if found.reasons[0]:
        raise ModelError(f"state: the model gave no usable answer: {found.reasons[0]}")
    answers: dict[str, Chosen] = {}
    for name, question in questions.items():
        order = asked_for(task, question, name)
        p = {option: float(found.probabilities[0, k]) for option, k in order.items()}
        answers[name] = Chosen(choice=max(p, key=lambda option: p[option]), probabilities=p)
    tokens = int(found.tokens[0])
    usage = {} if tokens < 0 else {"input_tokens": tokens, "output_tokens": 0}
    return SystemOneResponse(model=task.name, answers=answers, usage=usage)


def asked_for(task: Served, question: Question, name: str) -> dict[str, int]:
    """Return the class of each option: by its name, or by its first label word.

    Raises
    ------
    InputError
        If it is another kind of question, or other options than the task's.
    """
    if question.type != "choice":
        raise InputError(f"questions.{name}: the type {question.type!r:.40} is not 'choice'")
    if isinstance(task.estimator, MultiLabelClassifier):
        raise InputError(f"model: {task.name} gives several labels per text, and a choice is one")
    by_class = {str(label): k for k, label in enumerate(task.classes)}
    by_word = {word: k for k, word in enumerate(task.estimator.task_.verbalizer.first)}
    for known in (by_class, by_word):
        if known.keys() == question.criteria.keys():
            return {option: known[option] for option in question.criteria}
    raise InputError(
        f"questions.{name}: the options of {task.name} are {_list(by_class)} (or "
        f"{_list(by_word)}), all of them"
    )


def _list(names: Any, most: int = 20) -> str:
    shown: Sequence[str] = list(names)[:most]
    return ", ".join(repr(name)[:60] for name in shown) + ", …" * (len(names) > most)
