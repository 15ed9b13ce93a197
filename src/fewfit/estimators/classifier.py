"""Text in, label out: one scikit-learn estimator around a frozen model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, clone
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from fewfit.asking import MAX_CENSORED, Policy, check_budget
from fewfit.calibration import Calibration, default_calibration, make_calibration
from fewfit.decoders import Decoder, OffsetLogisticRegression, ZeroShot, make_decoder
from fewfit.decoders.base import check_unlabelled, check_weighted, tell_views
from fewfit.errors import InputError, InputWarning, LabelWordWarning, ModelWarning
from fewfit.estimators.base import check_labelled
from fewfit.estimators.examples import (
    check_kept,
    check_kind,
    check_pool,
    check_unseen,
    fit_decoder,
    positions,
    read_pool,
    read_weights,
    report_left_out,
    usable,
)
from fewfit.estimators.expected import Training
from fewfit.estimators.fitted import Fitted
from fewfit.estimators.opening import open_model, pair
from fewfit.estimators.pooled import Pooled
from fewfit.estimators.tuning import N_FOLDS, Tuner, Tuning, check_tunable
from fewfit.models import FrozenModel
from fewfit.models.optional import check_installed, retries_of, show
from fewfit.parameters import check_parameters
from fewfit.progress import Progress, showing
from fewfit.prompts import (
    Row,
    Verbalizer,
    View,
    Views,
    make_views,
    read_labels,
    read_rows,
)
from fewfit.prompts.labels import class_array
from fewfit.prompts.verbalizer import Words, warn_of_numbers
from fewfit.task import DEFAULT_TEMPLATE, Task


class FewShotClassifier(ClassifierMixin, Pooled):
    """Adapt a frozen model to a classification task: one query per example, then milliseconds.

    Parameters
    ----------
    model : str or FrozenModel, default="embedded"
        Who is asked; see :func:`fewfit.load_model`.
    hidden : str or FrozenModel, optional
        Another model whose hidden states take the place of `model`'s, which then gives its label
        scores alone; see :class:`fewfit.models.paired.PairedModel`.
    template : str, View, or list of these, default="{text} This is about {mask}."
        Text with named fields and one slot for the label word. Of several, each is asked about
        every example: their hidden states are put side by side and their calibrated scores are
        averaged, unless the decoder does better.
    labels : mapping of class to str, list of str, or mapping of str to float; or list, optional
        The label words of each class, with weights or without; see
        :class:`fewfit.prompts.Verbalizer`. A list holds the words of the sorted classes in this
        order, which fits classes that scikit-learn's meta-estimators have numbered too. If left
        out, each class is spelled by its own name, with underscores read as spaces.
    decoder : Decoder or str, optional
        What is trained on the answers, or its name, such as "dect", one of
        :data:`fewfit.decoders.DECODERS`; left out, it is :class:`OffsetLogisticRegression`.
    calibration : str or Calibration, optional
        How the model's prior over labels is removed from its scores: "none", "contextual",
        "domain-context", "batch", "pmi" or "ratio"; see :mod:`fewfit.calibration`. Left out, it is
        "contextual", and "none" where the scores are counts of a few answers in words.
    store : "default", path or None, default="default"
        Where answers are kept so that none is paid for twice: "default" is a file in the user's
        cache folder (``$FEWFIT_CACHE`` moves it), None keeps nothing.
    max_queries : int, optional
        How many queries `fit` and all calls after it may pay for together, of `model` and of
        `hidden` each. A call that needs more
        asks what it can, stores that and raises; the same call again goes on from there. Without
        a store it asks nothing, and what is asked in more than one go (`unlabelled`, views that
        spell the label words differently) is refused.
    errors : {"raise", "nan"}, default="raise"
        What becomes of an example that the model gave no usable answer to. "raise" raises, with
        everything else stored; "nan" leaves it out of `fit` and gives it a row of NaN in
        :meth:`predict_proba`. It never gets a guessed label: :meth:`predict` raises either way.
        Of several views, each needs an answer.
    max_censored : float, default=0.5
        Largest share of class scores that may be bounds in `fit`, for servers that list only
        their most probable tokens.
    tune : {"auto"}, optional
        "auto" also tunes a few thousand numbers inside the model, by contrast between the examples,
        and keeps the model tuned where that makes the classes of held-out examples more likely. It
        takes three trainings, 8 examples, with fewer of which it stays frozen, and a model whose
        weights are at hand; see ``docs/contrast.md``.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        The classes, sorted: the order of the columns of :meth:`predict_proba`.
    decoder_ : Decoder
        The fitted decoder.
    task_ : Task
        Template, label words and calibration as they were fitted, and the frozen model with the
        store in front of it.
    n_queries_ : int
        How many queries `fit` paid for: one per distinct prompt that the store lacked. Beside the
        examples and what calibrates, a text that says nothing is asked about, by which a saved
        task is verified; the default calibration asks about it anyway.
    n_retries_ : int
        How many attempts were made again for them.
    doctor_ : dict or None
        The report of :func:`fewfit.models.probe.probe` on the frozen model, if one was put here;
        it is saved with the task.
    tuning_ : Tuning or None
        With ``tune="auto"``, what was chosen, why, and what that cost; a saved task keeps the model
        that came of it, not this report.

    Raises
    ------
    InputError
        From `fit` and `predict`, before any query: texts, labels, template or label words that do
        not go together.
    CapabilityError
        Before any query: the decoder or the calibration needs what the model does not give. After
        them: too many of the class scores are bounds.
    ModelError
        The model did not answer, or not all of it.
    BudgetExceededError
        More than `max_queries` are needed.

    Examples
    --------
    >>> from fewfit import FewShotClassifier
    >>> clf = FewShotClassifier(model="fake", labels={"no": "bad", "yes": "good"}, store=None)
    >>> clf = clf.fit(["so good", "quite bad"], ["yes", "no"])
    >>> clf.predict(["good"])
    array(['yes'], dtype='<U3')
    >>> clf.n_queries_  # two texts and the empty one, for the calibration
    3
    """

    kind: ClassVar[type[Decoder]] = Decoder
    decoder_: Decoder
    tuning_: Tuning | None = None
    _temperature: float = 1.0  # by which the log-odds of a fit on a tuned model are divided

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Pooled._parameter_constraints,
        "hidden": [str, FrozenModel, None],
        "labels": [Mapping, list, tuple, None],
        "calibration": [str, Calibration, None],
        "max_censored": [Interval(Real, 0, 1, closed="both")],
        "tune": [StrOptions({"auto"}), None],
    }

    def __init__(
        self,
        model: str | FrozenModel = "embedded",
        *,
        hidden: str | FrozenModel | None = None,
        template: str | View | Sequence[str | View] = DEFAULT_TEMPLATE,
        labels: Mapping[Any, Words] | Sequence[Words] | None = None,
        decoder: Decoder | str | None = None,
        calibration: str | Calibration | None = None,
        store: str | Path | None = "default",
        max_queries: int | None = None,
        errors: str = "raise",
        max_censored: float = MAX_CENSORED,
        tune: str | None = None,
    ) -> None:
        self.model = model
        self.hidden = hidden
        self.template = template
        self.labels = labels
        self.decoder = decoder
        self.calibration = calibration
        self.store = store
        self.max_queries = max_queries
        self.errors = errors
        self.max_censored = max_censored
        self.tune = tune

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        unlabelled: Any = None,
        progress: Progress | bool | None = None,
    ) -> Self:
        """Ask the model about each example once, and fit the decoder to its answers.

        Parameters
        ----------
        X : sequence of str, sequence of mapping, or table
            The examples; see :func:`fewfit.prompts.read_rows`.
        y : sequence of str, of int or of bool, length N
            Their classes, each of which has label words; see :func:`fewfit.prompts.read_labels`. A
            class of `labels` without an example is possible with the default decoder and
            :class:`ZeroShot`: the model's scores alone speak for it. With no examples at all,
            ``fit([], [])``, the classes are those of `labels`, and the model is believed as it is,
            calibrated: :class:`ZeroShot`, with a warning unless it is asked for.
        sample_weight : array-like of shape (N,), optional
            How many examples each counts for, for a decoder that can weigh them (the default,
            LinearProbe, NearestMean, DecT, SoftVerbalizer); an example of weight 0 is not asked
            about. Calibrations do not look at it. To the default, copies of a text are one row,
            with the mean of their weights.
        unlabelled : like X, optional
            Further texts, without labels, one query each and view. The default decoder learns from
            them, and so do :class:`fewfit.decoders.IPET` and those that declare it; others refuse
            them. Without any example the model's own scores are what they add to.
        progress : callable or bool, optional
            True shows a bar, and another of the steps of `tune`; a function is called with the
            number of prompts newly answered.

        Returns
        -------
        self
        """
        check_parameters(self)
        template = make_views(self.template)
        spec = None
        if self.tune is not None:
            spec = check_tunable(self.model, self.hidden, template.views, self.max_queries)
        rows = read_rows(X, template.fields)
        y = read_labels(y, len(rows))
        weight = read_weights(sample_weight, len(rows))
        self.tuning_ = None
        if not rows:
            pool = [] if unlabelled is None else read_pool(unlabelled, template.fields)
            with showing(progress, (1 + len(pool)) * len(template.views)) as told:
                self._fit_nothing(template, pool, told)
            if spec is not None:
                self.tuning_ = Tuning("frozen", "there are no examples")
            return self
        decoder = make_decoder(self.decoder, OffsetLogisticRegression)
        verbalizer = Verbalizer.for_examples(self.labels, y)
        codes = positions(verbalizer, y)
        if weight is not None:
            check_weighted(decoder)
            rows = [row for row, w in zip(rows, weight, strict=True) if w > 0]
            codes, weight = codes[weight > 0], weight[weight > 0]
        tell_views(decoder, len(template.views))
        check_unlabelled(decoder, given=unlabelled is not None)
        pool_rows = [] if unlabelled is None else read_pool(unlabelled, template.fields)
        task = self._task(template, verbalizer, decoder)
        scored = task.model.capabilities.scores is not None
        check_unseen(verbalizer, codes, decoder, scored=scored, pool=bool(pool_rows))
        if self.labels is None and scored and decoder.requires != {"hidden"}:
            warn_of_numbers(verbalizer.classes)
        if pool_rows:
            check_pool(task)
            check_budget(task.model, "examples with and without labels")

        P = len(template.views)
        retries, n_prompts = retries_of(task.model), len(rows + pool_rows) * P
        with showing(progress, n_prompts) as told:
            task, asked, self.n_queries_ = task.begin(
                rows, y=codes, more=[task.probe], progress=told
            )
            answers, probe = asked[:-P], asked[-P:]
            there = task.answered(answers)
            check_kept(verbalizer, codes, there)
            report_left_out(there, "examples")
            answers, codes = task.select(answers, there), codes[there]
            weight = None if weight is None else weight[there]
            further = self._pool(task, pool_rows, told) if pool_rows else {}
        self.n_retries_ = retries_of(task.model) - retries
        hidden, scores = task.features(answers)
        classes = verbalizer.classes
        decoder = fit_decoder(
            decoder, codes, hidden, scores, classes, further, weight, self._temperature
        )
        counts = np.bincount(codes, minlength=len(classes)).tolist()
        self._keep(Fitted(task, decoder, len(codes), example=None, counts=counts))
        own = [rows[i] for i in there.nonzero()[0]]
        fixed = not any(view.learns for view in template.views)
        known = answers.label_mass[~np.isnan(answers.label_mass)]
        mass = float(np.median(known)) if len(known) else None
        self._training = Training(hidden, scores, codes, own, further, P, fixed, mass, weight)
        self._probe = self._recorded(task.probe, probe)
        self._example = self._recorded(own[0], answers[:P])
        if spec is not None:
            self._tune(spec, X, y, sample_weight, unlabelled, shown=progress is True)
        return self

    def _tune(
        self,
        spec: str,
        X: Any,
        y: Any,
        weight: Any,
        unlabelled: Any,
        *,
        shown: bool,
    ) -> None:
        """Decide whether to tune the model; where that is better, be fitted on the tuned one."""
        assert self._training is not None
        tuner = Tuner(spec, self._training, self.task_, self.decoder_, shown)
        told, model = tuner.decide()
        asked = self.n_queries_
        if model is not None:
            own = self.get_params(deep=False)
            other = clone(self).set_params(model=model, tune=None)
            with warnings.catch_warnings():  # of what was given, which the first fit has said
                warnings.simplefilter("ignore", InputWarning)
                warnings.simplefilter("ignore", LabelWordWarning)
                other._temperature = told.temperature
                other.fit(X, y, sample_weight=weight, unlabelled=unlabelled)
                del other._temperature
            self.__dict__.update({**vars(other), **own})
            held = {"right": tuner.right, "n_folds": N_FOLDS}
            self._training = replace(self._training, **held)
        self.n_queries_ += told.queries + asked * (model is not None)
        self.tuning_ = told

    def _pool(self, task: Task, rows: list[Row], progress: Progress | None) -> dict[str, Any]:
        """Return the hidden states and scores of unlabelled texts."""
        pool = task.observe(rows, progress=progress)
        self.n_queries_ += pool.queries
        return usable(task, pool)

    def _fit_nothing(
        self, template: View | Views, pool: list[Row], progress: Progress | None
    ) -> None:
        """Fit without examples."""
        if not self.labels or not isinstance(self.labels, Mapping):
            raise InputError("y: no examples; with none, labels={class: word} has to name classes")
        decoder = make_decoder(self.decoder, ZeroShot)
        if self.decoder is None:
            what = "and the texts without labels are all there is"
            warnings.warn(
                "no examples: the model's own scores "
                f"{what if pool else 'are believed as they are'}; decoder=ZeroShot() says that "
                "this is meant",
                ModelWarning,
                stacklevel=3,
            )
        if decoder.labels_needed != "none":
            raise InputError(
                f"y: no examples, and {type(decoder).__name__} needs {decoder.labels_needed}; "
                "leave decoder out to believe the model's own scores"
            )
        if pool and not decoder.adapts:
            check_unlabelled(decoder, given=True)
        task = self._task(template.learn([], []), Verbalizer(self.labels), decoder)
        if pool:
            check_pool(task)
            check_budget(task.model, "texts without labels")
        retries, row = retries_of(task.model), task.probe
        task, answers, self.n_queries_ = task.begin([row], progress=progress)
        decoder.restore({}, class_array(task.verbalizer.classes))
        if pool:
            further = self._pool(task, pool, progress)
            decoder = decoder.adapt(further["pool"], scores=further["pool_scores"])
        self.n_retries_ = retries_of(task.model) - retries
        counts = [0] * len(task.verbalizer.classes)
        self._keep(Fitted(task, decoder, 0, example=None, counts=counts))
        self._probe = self._recorded(row, answers)

    def _task(self, template: View | Views, verbalizer: Verbalizer, decoder: Decoder) -> Task:
        """Open the model, and refuse what does not go together before anything is asked."""
        model = open_model(
            pair(self.model, self.hidden), self.store, self.max_queries, decoder.requires
        )
        resolution = model.capabilities.resolution
        task = Task(
            model,
            template,
            verbalizer,
            default_calibration(resolution)
            if self.calibration is None
            else make_calibration(self.calibration),
            policy=Policy(self.errors, self.max_censored, chosen=True),
            reads_words="word_scores" in decoder.requires,
        )
        task.check(decoder.requires, who=type(decoder).__name__)
        check_installed(task.model)
        return task

    def show_prompts(self, X: Any, y: Any) -> list[str]:
        """Return what `fit` would ask about the first example, view by view; nothing is asked.

        Parameters
        ----------
        X, y : as for :meth:`fit`

        Returns
        -------
        list of P str
            A prompt, or the whole request where the model is a chat that answers in words.
        """
        check_parameters(self)
        template = make_views(self.template)
        rows = read_rows(X, template.fields)
        y = read_labels(y, len(rows))
        if not rows:
            raise InputError("X: no examples")
        verbalizer = Verbalizer.for_examples(self.labels, y)
        decoder = make_decoder(self.decoder, OffsetLogisticRegression)
        task = self._task(template, verbalizer, decoder)
        shown = [verbalizer.first[k] for k in positions(verbalizer, y)]
        views = template.learn(rows, shown).views
        return [
            show(task.model, view.render(rows[0]), words)
            for view, words in zip(views, task.spellings(), strict=True)
        ]

    def predict(self, X: Any, *, progress: Progress | bool | None = None) -> NDArray[Any]:
        """Return the most probable class of each example, shape (N,).

        Raises
        ------
        ModelError
            If an example got no usable answer, with ``errors="nan"`` too: a label would be a guess.
        """
        probabilities = self.predict_proba(X, progress=progress)
        check_labelled(probabilities)
        return self.classes_[probabilities.argmax(axis=1)]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of examples that are given their class (accuracy).

        Parameters
        ----------
        X : sequence of str, sequence of mapping, or table
        y : as in :meth:`fit`
            A class that `fit` did not know is never given.
        sample_weight : array-like of shape (N,), optional

        Raises
        ------
        InputError
            Before any query, if `y` is text and the classes are numbers, or the other way round.
        """
        check_is_fitted(self, "classes_")
        rows = read_rows(X, self.task_.template.fields)
        true, weight = read_labels(y, len(rows)), read_weights(sample_weight, len(rows))
        check_kind(self.classes_.tolist(), true)
        given = self.predict(rows).tolist()
        right = [a == b for a, b in zip(given, true, strict=True)]
        return float(np.average(right, weights=weight))

    def _proba(
        self, hidden: NDArray[np.float32], scores: NDArray[np.float32] | None
    ) -> NDArray[Any]:
        proba = self.decoder_.predict_proba(hidden, scores=scores).astype(np.float64)
        # Single precision sums to one within its own rounding, which others look for in double.
        return proba / proba.sum(axis=1, keepdims=True)

    @classmethod
    def _options(cls, task: Task) -> dict[str, Any]:
        return {"labels": task.verbalizer.labels, "calibration": task.calibration}
