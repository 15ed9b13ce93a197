"""The same samples, prompts and answers for every method, and the cost of each.

``from fewfit.compare import compare`` is the way in; ``fewfit.compare`` itself is this room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewfit.calibration import Calibration
from fewfit.compare.experiment import SEARCH_TRIALS, Bar, Cost, Experiment
from fewfit.compare.methods import DecoderMethod, Features, Method
from fewfit.compare.metrics import Metrics, expected_calibration_error, measure
from fewfit.compare.names import DEFAULT_METHODS, METHODS
from fewfit.compare.report.advice import advice
from fewfit.compare.schema import Cell, Comparison, Ledger, Summary
from fewfit.compare.searchers import SearcherMethod
from fewfit.compare.splits import draw_samples, sample_shots
from fewfit.compare.tuning import TuningRow
from fewfit.decoders import Decoder
from fewfit.estimators.classifier import DEFAULT_TEMPLATE
from fewfit.models import FrozenModel
from fewfit.prompts import View, Views

__all__ = [
    "DEFAULT_METHODS",
    "METHODS",
    "Bar",
    "Cell",
    "Comparison",
    "Cost",
    "DecoderMethod",
    "Experiment",
    "Features",
    "Ledger",
    "Method",
    "Metrics",
    "SearcherMethod",
    "Summary",
    "TuningRow",
    "advice",
    "compare",
    "draw_samples",
    "expected_calibration_error",
    "measure",
    "sample_shots",
]


def compare(
    X_train: Any,
    y_train: Any,
    X_test: Any,
    y_test: Any,
    *,
    template: str | View | Views | Sequence[str | View] = DEFAULT_TEMPLATE,
    labels: Mapping[Any, str | Sequence[str] | Mapping[str, float]] | None = None,
    methods: Sequence[str] | Mapping[str, Method | Decoder] = DEFAULT_METHODS,
    models: Sequence[str | FrozenModel] = ("embedded",),
    shots: Sequence[int] | None = None,
    seeds: int | Sequence[int] = 5,
    calibration: str | Calibration | None = None,
    store: str | Path | None = "default",
    drop_overlap: bool = False,
    search_trials: int = SEARCH_TRIALS,
    output: str | Path | None = None,
    price_per_token: float | None = None,
    bar: Bar | None = None,
    progress: bool = False,
) -> Comparison:
    """Compare methods on your task: which one, with how many labels, at what cost.

    Every method gets the same samples of the training pool, the same prompts and the same answers.
    Only rows that some sample holds, and the test rows, are asked about.

    Parameters
    ----------
    X_train, y_train : as for :meth:`FewShotClassifier.fit`
        The pool that samples are drawn from.
    X_test, y_test : as for :meth:`FewShotClassifier.fit`
        The test set; no text of it may be in the pool.
    template, labels, calibration, store : as for :class:`FewShotClassifier`
    methods : sequence of str, or mapping of str to Decoder or Method
        Names out of :data:`METHODS`, a decoder's with its own calibration as in
        ``"zero-shot+batch"``; or decoders with other parameters under names of yours,
        ``DecoderMethod(decoder, calibration, template=...)``, ``SearcherMethod(name)`` and
        ``TuningRow(name, options)``.
    models : sequence of str or FrozenModel, default=("embedded",)
        Methods that need no frozen model run once for all of them.
    shots : sequence of int, optional
        Labelled examples per class; left out, 1, 4 and 16, as far as the smallest class goes.
    seeds : int or sequence of int, default=5
        How many samples to draw for each number of shots, or their seeds.
    drop_overlap : bool, default=False
        Whether rows of the pool whose text is in the test set are left out; if not, they are an
        error. Texts are the same in what the first template reads; case and white space do not
        make them different.
    search_trials : int, default=50
        A searcher may try so many prompts in each cell: its budget is this times the examples of
        the sample, with what its calibration asks. At least 2.
    output, price_per_token, bar, progress : as for :meth:`Experiment.run`

    Returns
    -------
    Comparison
        Cells, their summaries, and how each method errs.

    Raises
    ------
    InputError
        Before any query: labels, template or words that do not go together, too few examples of a
        class, a row in both the pool and the test set.
    CapabilityError
        Before any query: a method needs what a model does not give.

    Examples
    --------
    >>> from fewfit.compare import compare
    >>> found = compare(
    ...     ["so good", "quite good", "so bad", "bad taste"], ["yes", "yes", "no", "no"],
    ...     ["good", "bad"], ["yes", "no"], labels={"no": "bad", "yes": "good"},
    ...     methods=["zero-shot", "dect"], models=["fake"], shots=[1], seeds=3, store=None,
    ... )
    >>> [(item.method, item.shots, item.accuracy, item.queries) for item in found.summaries]
    [('zero-shot', 1, 1.0, 1), ('dect', 1, 1.0, 3)]
    """
    experiment = Experiment(
        X_train,
        y_train,
        X_test,
        y_test,
        template=template,
        labels=labels,
        methods=methods,
        models=models,
        shots=shots,
        seeds=seeds,
        calibration=calibration,
        store=store,
        drop_overlap=drop_overlap,
        search_trials=search_trials,
    )
    return experiment.run(output, price_per_token=price_per_token, bar=bar, progress=progress)
