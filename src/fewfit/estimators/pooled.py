"""What a fitted classifier does with texts without labels: learn from them, say which to label."""

from __future__ import annotations

import copy
import warnings
from numbers import Integral
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fewfit.errors import InputError, ModelError, ModelWarning
from fewfit.estimators.base import TextEstimator
from fewfit.estimators.examples import (
    check_pool,
    positions,
    read_pool,
    report_left_out,
    usable,
)
from fewfit.estimators.fitted import Fitted
from fewfit.estimators.suggesting import Suggestion, Suggestions, choose
from fewfit.observations import Observations
from fewfit.progress import Progress
from fewfit.prompts import read_labels, read_rows


class Pooled(TextEstimator):
    """A classifier with a pool of texts beside its examples."""

    def adapt(
        self,
        X: Any,
        *,
        answers: Observations | None = None,
        progress: Progress | bool | None = None,
    ) -> Self:
        """Return a classifier that has learnt from texts without labels too.

        The texts may be those that are to be labelled. Of the rows of `fit` nothing is needed, so
        a classifier that was loaded can do it. This one stays as it is. Texts that it has learnt
        from already are no further evidence: given again, they make it too sure.

        Parameters
        ----------
        X : sequence of str, sequence of mapping, or table
            The texts; one query each and view.
        answers : Observations, optional
            What :meth:`observe` returned for them, if they were asked about before.
        progress : callable or bool, optional

        Returns
        -------
        FewShotClassifier
            Its `n_queries_` are those of the texts, and of the empty text by which an artifact of
            it can be verified; with `answers` given it has none such.

        Raises
        ------
        InputError
            Before any query, if the decoder does not learn from texts without labels once it is
            fitted, as the default and zero-shot do; or `answers` are not as many as the texts.
        CapabilityError
            Before any query, if the model gives no hidden states.
        ModelError
            If no text got a usable answer.
        """
        check_is_fitted(self, "classes_")
        if not self.decoder_.adapts:
            raise InputError(
                f"adapt: {type(self.decoder_).__name__} does not learn from texts without labels "
                "once it is fitted; fit with the default decoder, or with ZeroShot"
            )
        task, probe = self.task_, None
        check_pool(task)
        P = len(task.template.views)
        rows = read_pool(X, task.template.fields, name="X")
        if answers is not None and len(answers) != len(rows) * P:
            raise InputError(
                f"answers: expected {len(rows) * P}, of X in each view, got {len(answers)}"
            )
        if answers is None:
            both = self.observe([*rows, task.probe], progress=progress)
            queries, answers, probe = both.queries, both[:-P], both[-P:]
        else:
            queries = answers.queries
        pool = usable(task, answers)
        decoder = self.decoder_.adapt(pool["pool"], scores=pool["pool_scores"])
        was = {"doctor": self.doctor_, "columns": self.columns_, "counts": self._counts}
        found = copy.copy(self)
        found.n_queries_ = queries
        found._keep(Fitted(task, decoder, self.n_examples_, example=None, **was))
        if probe is not None:
            found._probe = found._recorded(task.probe, probe)
        return found

    def suggest(
        self,
        X: Any,
        n: int = 10,
        *,
        labelled: tuple[Any, Any] | None = None,
        progress: Progress | bool | None = None,
    ) -> Suggestions:
        """Return which texts of a pool to label next.

        It needs no label to begin with: ``fit([], [])`` with label words is enough.

        Parameters
        ----------
        X : sequence of str, sequence of mapping, or table
            The pool; one query each and view. Of equal texts the first is taken.
        n : int, default=10
            How many; all that there are, if there are fewer.
        labelled : (like X, sequence), optional
            What has a label already, where this is not the object that was fitted on it. It is not
            suggested again, and counts as what need not be learnt twice; one query each and view.
        progress : callable or bool, optional

        Returns
        -------
        Suggestions
            A list of :class:`Suggestion`, the most useful first; its `queries` say what they cost.

        Raises
        ------
        InputError
            Before any query, if `n` is not at least 1 or nothing in the pool is without a label.
        """
        check_is_fitted(self, "classes_")
        if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
            raise InputError(f"n: expected an integer from 1 on, got {n!r:.50}")
        fields = self.task_.template.fields
        rows, known, codes = read_pool(X, fields, name="X"), [], np.empty(0, np.intp)
        if labelled is not None:
            known = read_rows(labelled[0], fields, name="labelled")
            y = read_labels(labelled[1], len(known), name="labelled")
            codes = positions(self.task_.verbalizer, y, name="labelled")
        elif self._training is not None:
            known, codes = list(self._training.rows), self._training.codes
        taken = {tuple(row.items()) for row in known}
        places: dict[tuple[tuple[str, str], ...], int] = {}
        for i, row in enumerate(rows):
            if tuple(row.items()) not in taken:
                places.setdefault(tuple(row.items()), i)
        if not places:
            raise InputError("X: every text of the pool has a label already")
        asked = [rows[i] for i in places.values()]
        more = known if labelled is not None else []
        answers = self.observe([*asked, *more], progress=progress)
        there = self.task_.answered(answers)
        if not there[: len(asked)].any():
            raise ModelError("X: the model gave no usable answer to any example")
        report_left_out(there[: len(asked)], "texts of the pool")
        hidden, scores = self.task_.features(self.task_.select(answers, there))
        m = int(there[: len(asked)].sum())
        if labelled is not None:
            codes = codes[there[len(asked) :]]
        elif self._training is not None:  # was asked about once
            before = self._training.scores
            hidden = np.concatenate([hidden, self._training.hidden])
            if scores is not None and before is not None:
                scores = np.concatenate([scores, before])
        pool, told = hidden[:m], None if scores is None else scores[:m]
        decoder = self.decoder_
        if decoder.adapts:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ModelWarning)
                decoder = decoder.adapt(pool, scores=told)
        f = np.log(np.maximum(decoder.predict_proba(hidden, scores=scores), 1e-30))
        known_by = hidden if hidden.shape[1] else f
        found = choose(hidden[:m], f[:m], n, (known_by[m:], codes))
        origin = np.array(list(places.values()))[there[: len(asked)]]
        return Suggestions(
            (Suggestion(int(origin[i]), rows[origin[i]], reason) for i, reason in found),
            queries=answers.queries,
        )
