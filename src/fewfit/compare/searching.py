"""What a searcher finds, as a classifier that can be saved."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fewfit.calibration import Calibration, make_calibration
from fewfit.compare.methods import Features
from fewfit.compare.searchers import SearcherMethod
from fewfit.decoders import OffsetLogisticRegression, make_decoder
from fewfit.decoders.base import check_unlabelled, tell_views
from fewfit.errors import InputError, InputWarning
from fewfit.estimators.classifier import FewShotClassifier
from fewfit.estimators.examples import check_unseen, positions
from fewfit.estimators.opening import load_model, open_model
from fewfit.models import FrozenModel
from fewfit.models.base import FrontModel
from fewfit.models.metered import MeteredModel
from fewfit.prompts import Row, Template, Verbalizer, read_labels, read_rows
from fewfit.prompts.labels import Label
from fewfit.searchers import SEARCHERS, learn_unsupervised
from fewfit.task import DEFAULT_TEMPLATE, Task

TRIALS = 50


class Search(NamedTuple):
    """What a search came to.

    Attributes
    ----------
    classifier : FewShotClassifier
        Fitted, with the question that was found.
    queries : int
        What was asked of the model and no store had, the fit of what was found included.
    max_queries : int
        What was allowed.
    shown : str
        The question, for a person.
    """

    classifier: FewShotClassifier
    queries: int
    max_queries: int
    shown: str


def search(
    searcher: str,
    X: Any,
    y: Any = None,
    *,
    model: str | FrozenModel = "embedded",
    template: str = DEFAULT_TEMPLATE,
    labels: Mapping[Any, Any] | None = None,
    calibration: str | Calibration | None = None,
    decoder: Any = "zero-shot",
    options: Mapping[str, Any] | None = None,
    max_queries: int | None = None,
    seed: int = 0,
    store: str | Path | None = "default",
) -> Search:
    """Look for a better question, and return a classifier that asks it.

    Parameters
    ----------
    searcher : str
        A key of :data:`fewfit.searchers.SEARCHERS`.
    X, y : as for :meth:`FewShotClassifier.fit`
        "unsupervised-prompts" takes no labels, and needs `labels` for the classes.
    model : str or FrozenModel, default="embedded"
    template : str
        Where it starts from.
    labels : mapping of class to label words, optional
    calibration : str or Calibration, optional
        Of its scores; left out, none, as in the papers.
    decoder : Decoder or str, default="zero-shot"
        What is fitted on the answers to the question that was found. "zero-shot" believes the
        model's scores, as the searchers do.
    options : mapping, optional
        Of the searcher.
    max_queries : int, optional
        Never exceeded; left out, 50 prompts on all examples. What it takes to ask about the
        examples once more, in the form that was found, is set aside for the classifier.
    seed : int, default=0
    store : path, "default" or None, default="default"

    Raises
    ------
    InputError, CapabilityError
        Before any query.
    """
    told = None if calibration is None else make_calibration(calibration)
    method = SearcherMethod(searcher, told, dict(options or {}))
    rows = read_rows(X, Template(template).fields)
    unsupervised = SEARCHERS[searcher] is learn_unsupervised
    if unsupervised and labels is None:
        raise InputError(f"{searcher} has no labels to know the classes by: name them, labels=")
    if not unsupervised and y is None:
        raise InputError(f"{searcher} learns from labels: give them")
    known = None if y is None or unsupervised else read_labels(y, len(rows))
    words = Verbalizer.for_examples(labels, known or list(labels or ()))
    assert method.calibration is not None
    metered = MeteredModel(open_model(model, store))
    task = Task(metered, Template(template), words, method.calibration)
    method.check(task, who=searcher)
    task.check(method.requires, who=searcher)
    _check_decoder(decoder, task, known)
    classes = np.array(words.classes)
    given = np.array([words.classes[0]] * len(rows) if known is None else known)
    n_free = len(method.calibration.prompts(task.template.views[0], rows))
    each = len(rows) + n_free
    # The classifier's fit, with a row that says nothing; before it the labels, if there are none.
    aside = (2 if unsupervised else 1) * each + 1
    least, allowed = method.least_queries(len(rows), n_free) + aside, max_queries
    if allowed is None:
        allowed = max(TRIALS * each, least)
    if allowed < least:
        raise InputError(
            f"max_queries: {searcher} on {len(rows)} examples, and the fit of what it finds, need "
            f"at least {least}, and {allowed} are allowed"
        )
    ready = method.on(task, max_queries=allowed - aside, seed=seed)
    found = ready.fit(Features.unasked(rows, given), classes)
    if known is None:
        p = ready.predict_proba(found, Features.unasked(rows, given))
        known = classes[p.argmax(axis=1)].tolist()
    classifier = FewShotClassifier(
        _asked(found.task.model, model),
        template=found.task.template.views[0],
        labels=words.labels,
        decoder=decoder,
        calibration=method.calibration,
        store=store,
    ).fit(rows, known)
    queries = metered.bill.paid + classifier.n_queries_
    return Search(classifier, queries, allowed, _shown(found.task, rows[0]))


def _check_decoder(decoder: Any, task: Task, known: Sequence[Label] | None) -> None:
    """Refuse what could not be fitted at the end of the search (InputError, CapabilityError)."""
    made = make_decoder(decoder, OffsetLogisticRegression)
    tell_views(made, 1)
    check_unlabelled(made, given=False)
    task.check(made.requires, who=type(made).__name__)
    if known is not None:
        with warnings.catch_warnings():  # of what the fit says again
            warnings.simplefilter("ignore", InputWarning)
            check_unseen(task.verbalizer, positions(task.verbalizer, known), made, scored=True)


def _asked(found: FrozenModel, model: str | FrozenModel) -> str | FrozenModel:
    """Return who is asked from now on: the model as it was named, unless vectors were found."""
    while isinstance(found, FrontModel):
        found = found.model
    plain = load_model(model)
    while isinstance(plain, FrontModel):
        plain = plain.model
    return model if found.identity == plain.identity else found


def _shown(task: Task, row: Row) -> str:
    [view] = task.template.views
    said = view.render(row).text("{mask}")
    soft = task.model.identity.get("soft_prompt")
    return said if soft is None else f"{soft.split()[0]} vectors, and {said}"
